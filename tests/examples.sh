#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The programs of examples/ say what the program says, and the same on one thread with scalar kernels (small tier: of one
# model, and only the first).
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}" "${PF_TEST_TIER:=normal}"
models=("$srcdir"/data/models/demo-{gemma2,qwen2})
[ "$PF_TEST_TIER" = small ] && models=("${models[0]}")
persona='a pirate' task='recommend a book worth reading and explain why.'
bad=0
fail() { echo "FAIL: $*"; bad=1; }
pf() { $PF_EMULATOR ./personaflow "$@"; }

# both NAME ARGUMENTS...: what an example prints, here and with one scalar thread, in $out.
both() {
  local name=$1 scalar
  shift
  out=$($PF_EMULATOR "./examples/$name" "$@") || fail "$name: exit code $?"
  [ "$PF_TEST_TIER" = small ] && return
  scalar=$(OMP_NUM_THREADS=1 PERSONAFLOW_ISA=scalar $PF_EMULATOR "./examples/$name" "$@")
  [ "$out" = "$scalar" ] || fail "$name: one scalar thread prints something else"
}

for m in "${models[@]}"; do
  layers=$(pf hooks "$m" | sed -n 's/^[^ ]*: \([0-9]*\) layers.*/\1/p')

  both answer "$m" "$persona" "$task"
  want=$(pf generate "$m" --persona "$persona" --task "$task" --max-tokens 40 --quiet)
  [ "$out" = "$want" ] || fail "answer says '$out', generate '$want'"

  both logit_lens "$m" "Recommend a book."
  [ "$(wc -l <<<"$out")" = $((layers + 1)) ] || fail "logit_lens: not a line for each of $layers layers and one more"
  json=$(pf generate "$m" --prompt "Recommend a book." --max-tokens 1 --json --quiet)
  want=$(sed 's/.*"text": \("[^"]*"\).*"logprobs": \[\([^]]*\)\].*/\2 \1/' <<<"$json")
  want=$(printf 'layer %2d  %8.4f  %s' "$layers" ${want/ / })
  [ "$(tail -n 1 <<<"$out")" = "$want" ] || fail "logit_lens ends in '$(tail -n 1 <<<"$out")', generate in '$want'"

  both patch_layers "$m" "$persona" "$task"
  [ "$(wc -l <<<"$out")" = $((layers + 1)) ] || fail "patch_layers: not a line for each of $layers layers and one more"
  # The last tokens of both prompts are the same one, so what enters layer 0 is too.
  [ "$(head -n 1 <<<"$out")" = 'layer  0  0.000000' ] || fail "patch_layers: layer 0 changes something"
  awk '$1 == "bare" {bare = $2 > 0.01} $3 > 0.01 {some = 1} END {exit !(bare && some)}' <<<"$out" ||
    fail "patch_layers: nothing changes"
done

$PF_EMULATOR ./examples/answer "$srcdir/nothing" x y 2>err.$$ && fail 'answer: no model, no failure'
[ "$(wc -l <err.$$)" = 1 ] && grep -q nothing err.$$ || fail "answer: not one line that names what is missing: $(cat err.$$)"
rm -f err.$$
exit $bad
