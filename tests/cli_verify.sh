#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# personaflow verify: passes here (the big tier: with every instruction set; else with the best one), says which digest is
# not the shipped one, and survives a process that dies.
set -u
: "${srcdir:=.}" "${PF_TEST_TIER:=normal}" "${PF_EMULATOR:=}"
srcdir=$(cd "$srcdir" && pwd)
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-verify-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
bad=0
fail() { echo "FAIL: $*"; bad=1; }
run() { # expected exit code, what, arguments...
  local want=$1 what=$2 rc
  shift 2
  $PF_EMULATOR ./personaflow verify "$@" >"$T/out" 2>"$T/err"
  rc=$?
  [ $rc = "$want" ] || fail "$what: exit code $rc, not $want: $(tail -n 3 "$T/out" "$T/err")"
}
has() { grep -qE -e "$2" "$T/out" || fail "$1: no /$2/ in $(head -n 5 "$T/out")"; }

best=$($PF_EMULATOR ./personaflow info --json | sed -n 's/.*"isa": "\([a-z0-9]*\)".*/\1/p' | sort | uniq -c | sort -rn |
  awk 'NR == 1 {print $2}')
one=(--isa "$best" --precision bf16)
if [ "$PF_TEST_TIER" = big ]; then
  run 0 "all instruction sets"
  has "all instruction sets" "^([0-9]+) of \1 digests"
else
  run 0 "$best" --isa "$best"
  has "$best" "^8 of 8 digests"
fi
run 0 "quiet" "${one[@]}" --quiet
[ ! -s "$T/out" ] || fail "quiet: prints $(head -n 2 "$T/out")"
run 0 "json" "${one[@]}" --json -t 1
has "json" '"same": true'
PERSONAFLOW_ISA=scalar run 0 "the variable" --precision bf16
has "the variable" "^scalar +demo-qwen2 +bf16 +ok"

# A digest that is not that of the model, digests that are not there, no such instruction set.
mkdir "$T/data" && ln -s "$srcdir/data/models" "$T/data/models"
sed '/demo-qwen2 bf16$/s/^..../0000/' "$srcdir/tests/golden/digests.sha" >"$T/data/digests.sha"
PERSONAFLOW_DATADIR=$T/data run 1 "another digest" "${one[@]}"
has "another digest" "demo-qwen2 +bf16 +DIFFERENT: [0-9a-f]{64}, not 0000"
has "another digest" "demo-gemma2 +bf16 +ok"
has "another digest" "^1 of 2 digests"
PERSONAFLOW_DATADIR=$T/data run 1 "another digest, json" "${one[@]}" --json
has "another digest, json" '"same": false'
rm "$T/data/digests.sha"
PERSONAFLOW_DATADIR=$T/data run 3 "no digests" "${one[@]}"
run 5 "no such instruction set" --isa quantum

# A model that cannot be read is a row, and the rows after it are still there.
sed 's/^..../0000/' "$srcdir/tests/golden/digests.sha" >"$T/data/digests.sha"
rm "$T/data/models" && mkdir -p "$T/data/models/demo-gemma2" && ln -s "$srcdir/data/models/demo-qwen2" "$T/data/models/"
PERSONAFLOW_DATADIR=$T/data run 1 "a model without files" "${one[@]}"
has "a model without files" "demo-gemma2 +bf16 +DIFFERENT: .*config.json"
has "a model without files" "demo-qwen2 +bf16 +DIFFERENT"
exit $bad
