#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Where data files are looked for: the variable alone if it is set, then beside the program (its own prefix, its source
# tree), and only then the prefix it was built for: an older installation must not give a new build its data.
set -u
: "${PF_EMULATOR:=}"
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-data-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
mkdir -p "$T"/{other,prefix,share/personaflow,data,bin/data} && cp tests/data_path "$T/bin/" || exit 99
unset PERSONAFLOW_DATADIR
bad=0

finds() { # WANT: the file that is found, then it is taken away
  local got
  got=$(cd "$T" && realpath "$($PF_EMULATOR ./bin/data_path x)")
  [ "$got" = "$(realpath "$T/$1")" ] || { echo "FAIL: '$got' found, not $1"; bad=1; }
  rm "$T/$1"
}

for d in other prefix share/personaflow data bin/data; do touch "$T/$d/x"; done
PERSONAFLOW_DATADIR=$T/other finds other/x
(cd "$T" && PERSONAFLOW_DATADIR=$T/other $PF_EMULATOR ./bin/data_path x) 2>/dev/null &&
  { echo "FAIL: something else is found although the variable is set"; bad=1; }
finds share/personaflow/x
finds bin/data/x
finds data/x
finds prefix/x
line=$(cd "$T" && $PF_EMULATOR ./bin/data_path x 2>&1)
[[ $line == *"x: not beside the program ($(realpath "$T")/bin/data, ../data or ../share/personaflow there), and not in prefix:"* ]] ||
  { echo "FAIL: the line is '$line'"; bad=1; }
exit $bad
