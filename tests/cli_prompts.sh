#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Positions and spans of every kind of prompt, as `capture` resolves and echoes them; names of hook points.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
model=$srcdir/data/models/demo-gemma2
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-prompts-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
bad=0

# at POSITIONS WANT PROMPT...: the echoed line, and no other
at() {
  local positions=$1 want=$2 got
  shift 2
  got=$($PF_EMULATOR ./personaflow capture "$model" "$@" --hooks hook_embed --positions "$positions" \
    --out "$T/o.safetensors" --force 2>&1 | tail -n 1)
  [ "$got" = "positions $want" ] || { echo "FAIL: $* --positions $positions: '$got', not '$want'"; bad=1; }
}

cat >"$T/chat.json" <<'M'
[{"role": "user", "content": "Sing."}, {"role": "assistant", "content": "La."}, {"role": "user", "content": "Again."}]
M
ids='--prompt-ids 2,5,6,7,8'
at 3: '3..4 of 5' $ids
at :2 '0..1 of 5' $ids
at :-2 '0..2 of 5' $ids
at -2: '3..4 of 5' $ids
at : '0..4 of 5' $ids
at bos '0..0 of 5' $ids
at p_last '4..4 of 5' $ids
at bos '0..0 of 3' --prompt-raw Hi
n=14
at bos "0..0 of $n" --prompt 'As a pirate, sing'
at template "1..3 of $n" --prompt 'As a pirate, sing'
at header "9..13 of $n" --prompt 'As a pirate, sing'
at p_user_last "10..10 of $n" --prompt 'As a pirate, sing'
at header "9..13 of $n" --persona 'a pirate' --task sing
at p_user_last "10..10 of $n" --persona 'a pirate' --task sing
at bos '0..0 of 29' --messages "$T/chat.json"
at header '24..28 of 29' --messages "$T/chat.json"
at p_user_last '25..25 of 29' --messages "$T/chat.json"

# hooks --list: the name, a tab, the aliases; capture takes any of them.
list=$($PF_EMULATOR ./personaflow hooks "$model" --list)
for line in $'blocks.%d.hook_resid_mid' \
  $'blocks.%d.hook_resid_pre\tblocks.%d.hook_in model.layers.%d.input block_input.%d hidden_states.%d hidden_states[%d] hidden_states_%d' \
  $'ln_final.hook_out\tmodel.norm hidden_states.8 hidden_states[8] hidden_states_8' \
  $'blocks.%d.attn.hook_pattern\tattentions.%d attentions[%d]'; do
  grep -qxF -e "$line" <<<"$list" || { echo "FAIL: hooks --list has no line '$line'"; bad=1; }
done
for name in blocks.2.attn.hook_pattern attentions.2 'attentions[2]' 'attentions[*]' ' hook_embed , ln_final.hook_out' hidden_states_8; do
  $PF_EMULATOR ./personaflow capture "$model" $ids --hooks "$name" --out "$T/o.safetensors" --force --quiet ||
    { echo "FAIL: capture --hooks $name"; bad=1; }
done

# Hugging Face's hidden_states: the layers' inputs, then what comes out of the final norm.
$PF_EMULATOR ./personaflow capture "$model" $ids --hooks 'hidden_states.*,blocks.7.hook_resid_pre,ln_final.hook_out' \
  --format npy --out "$T/h" --quiet || { echo "FAIL: hidden_states.*"; bad=1; }
cmp "$T/h/hidden_states.7.npy" "$T/h/blocks.7.hook_resid_pre.npy" || bad=1
cmp "$T/h/hidden_states.8.npy" "$T/h/ln_final.hook_out.npy" || bad=1
echo '{"ids": [2, 5]}' | $PF_EMULATOR ./personaflow snap "$model" --prompts - --hooks 'hidden_states.* , hook_embed' --max-tokens 0 \
  --out "$T/s" --quiet >/dev/null || { echo "FAIL: snap --hooks hidden_states.*"; bad=1; }
[ "$(grep -cE '^ *"(blocks\.[0-7]\.hook_resid_pre|ln_final.hook_out|hook_embed|unembed.hook_out)":' "$T/s/prompt-000000.json")" = 11 ] ||
  { echo "FAIL: the snapshot's points: $(cut -c 1-40 "$T/s/prompt-000000.json")"; bad=1; }

# An intervention file on standard input is that file.
iv='{"schema": "personaflow-interventions/1", "interventions": [{"op": "zero", "site": "hidden_states.3", "positions": "1"}]}'
echo "$iv" >"$T/i.json"
for f in "$T/i.json" -; do
  echo "$iv" | $PF_EMULATOR ./personaflow generate "$model" $ids --max-tokens 3 --json --interventions "$f" >"$T/g${f##*/}" 2>"$T/err" ||
    { echo "FAIL: --interventions $f"; bad=1; }
  grep -qxF 'zero hidden_states.3 layers 3 positions 1..1 (1)' "$T/err" || { echo "FAIL: $f: $(cat "$T/err")"; bad=1; }
done
cmp "$T/gi.json" "$T/g-" || bad=1
exit $bad
