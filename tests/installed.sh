#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# installed.sh DESTDIR PREFIX PKGCONFIGDIR LIBDIR EXAMPLE...: the examples built with what pkg-config says about the
# installed library, from the installed headers, print what those of the build folder print; the headers are C++ too.
set -u
dest=$1 prefix=$2 pkgconfig=$3 lib=$4
shift 4
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-installed-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
export PKG_CONFIG_PATH=$dest$pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} LD_LIBRARY_PATH=$dest$lib
bad=0
fail() { echo "FAIL: $*"; bad=1; }
flags=$(${PKG_CONFIG:-pkg-config} --define-variable=prefix="$dest$prefix" --cflags --libs personaflow) || exit 1
for e in "$@"; do
  name=${e##*/}
  $CC -std=c11 -Wall -Wextra -Werror -o "$T/$name" "$srcdir/$e.c" $flags || { fail "$e.c does not build"; continue; }
  args=("$srcdir/data/models/demo-gemma2" 'a pirate' 'recommend a book.')
  [ "$name" = logit_lens ] && args=("${args[0]}" 'Recommend a book.')
  cmp <("$T/$name" "${args[@]}") <("./$e" "${args[@]}") && echo "ok: $name" || fail "$name prints something else"
done

# A C++ program that names every function of the headers.
if command -v c++ >/dev/null; then
  names=$(grep -ohE '^PF_API.*' "$dest$prefix"/include/personaflow/*.h | grep -oE 'pf_[a-z0-9_]+\(' | tr -d '(' | sort -u)
  {
    echo '#include <personaflow/personaflow.h>'
    echo 'void (*const all[])() = {'
    for n in $names; do echo "  (void (*)())$n,"; done
    echo '};'
    echo 'int main() { for (auto f : all) if (!f) return 1; return 0; }'
  } >"$T/all.cc"
  c++ -Wall -Wextra -Wno-cast-function-type -o "$T/all" "$T/all.cc" $flags && "$T/all" &&
    echo "ok: C++, $(wc -w <<<"$names") functions" || fail 'C++'
else
  echo 'SKIP: no C++ compiler here'
fi
exit $bad
