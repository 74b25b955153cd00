#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bench/tables.sh with stand-ins for what takes hours: a file for each table, what is there is kept, what this machine
# lacks is said, a failure ends it with its exit code and leaves no table.
set -u
: "${srcdir:=.}"
tables=$(cd "$srcdir" && pwd)/bench/tables.sh
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0
fail() { echo "FAIL: $*"; bad=1; }
# stand_in NAME TEXT: an executable script.
stand_in() { printf '#!/bin/bash\necho "%s $*" >>calls\n%s\n' "$1" "$2" >"$1"; chmod +x "$1"; }

cd "$dir" && mkdir bench || exit 1
# shellcheck disable=SC2016
{
  stand_in bench/kernels '[[ "$*" != *amx* ]] || { echo "none here" >&2; exit 5; }; echo kernels "$@"'
  stand_in bench/model 'echo model "$@"'
  stand_in personaflow '[ ! -e full ] || [ "$1" = info ] || exit 3; echo personaflow "$@"'
  stand_in pf-mkckpt 'mkdir -p "$2"; touch "$2/config.json"'
}
mkdir -p w/one && touch w/one/tokenizer.json full
bash "$tables" w one >out 2>err
[ $? = 3 ] || fail "a study that fails: exit code $?"
[ ! -e w/study-one-short.txt ] || fail 'a table of a study that failed'
rm full
bash "$tables" w one two >out 2>err || fail "exit code $?"
grep -q 'none here' err || fail 'nothing said of the instruction set that is not here'
grep -q 'two has no tokenizer.json' err || fail 'nothing said of the tokenizer that is not here'
for f in machine kernels-avx512-gemm_bf16 kernels-neon-gemm_s8 model-one model-two study-one-short study-one-long; do
  [ -s "w/$f.txt" ] || fail "no $f.txt"
done
! compgen -G 'w/*amx*' >/dev/null && ! compgen -G 'w/*.part' >/dev/null || fail "left over: $(ls w)"
[ "$(grep -c 'kernels.*--isa avx2 --op gemm_f32' calls)" = 1 ] || fail 'a table was made twice'
[ "$(grep -c pf-mkckpt calls)" = 2 ] || fail 'a checkpoint was written twice'
exit $bad
