#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One digest of logits per model and precision, whatever computed it: tests/golden/digests.sha has the value, and every
# instruction set of this machine must reach it, over threads, prefill chunks, sequences in a call, cached and recomputed
# (tests/inv_model.c). In the normal tier the best instruction set runs all models, the others the small tier; in the small
# tier the others run one model; in the tiny tier all run that one; in the big tier all of them run everything. The same file is
# read by builds of other compilers and for other processors.
# `make digests` prints the digests (--print [PRECISIONS]).
set -u
: "${srcdir:=.}" "${PF_TEST_TIER:=normal}" "${PF_EMULATOR:=}"
golden=$srcdir/tests/golden/digests.sha
few=("$srcdir"/tests/mini/{q2-f32,g2-window,q2-odd})
models=("$srcdir"/tests/mini/*/ "$srcdir"/data/models/*/)
models=("${models[@]%/}")
[ "$PF_TEST_TIER" = small ] && models=("${few[@]}")
[ "$PF_TEST_TIER" = tiny ] && PF_TEST_TIER=small models=("${few[0]}")
if [ "${1:-}" = --print ]; then
  exec $PF_EMULATOR ./tests/inv_model digest "$PF_TEST_TIER" "${2:-all}" "${models[@]}"
fi
case ${host_cpu:-$(uname -m)} in
aarch64) levels='neonbf16 neoni8mm neondot neon scalar' ;;
*) levels='amx avx512vnni avx512 avxvnni avx2 scalar' ;;
esac
bad=0 ran=0 tier=$PF_TEST_TIER
err=$(mktemp) && trap 'rm -f "$err"' EXIT || exit 99
for isa in $levels; do
  got=$(PERSONAFLOW_ISA=$isa $PF_EMULATOR ./tests/inv_model digest "$tier" all "${models[@]}" 2>"$err")
  rc=$?
  if [ $rc = 5 ] && [[ " ${PERSONAFLOW_REQUIRE_ISA:-} scalar " != *" $isa "* ]]; then
    echo "SKIP: digests with $isa: $(cat "$err")"
    continue
  fi
  ran=$((ran + 1))
  [ $rc = 0 ] || { echo "FAIL: $isa: exit code $rc: $(cat "$err")"; bad=1; }
  while read -r sha name; do
    if grep -qxF "$sha  $name" "$golden"; then
      echo "ok: $isa: $name"
    else
      echo "FAIL: $isa: $sha  $name is not what $golden has"
      bad=1
    fi
  done <<<"$got"
  case $PF_TEST_TIER in
  small) models=("${few[0]}") ;;
  normal) tier=small models=("${few[@]}") ;;
  esac
done
[ $ran -gt 0 ] || { echo "FAIL: no instruction set could run"; bad=1; }
exit $bad
