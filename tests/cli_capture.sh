#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What capture leaves on the disk: a folder holds one run and is whole or not there; every file says what it comes from.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
model=$srcdir/data/models/demo-gemma2
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-capture-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
bad=0

fail() { echo "FAIL: $*"; bad=1; }
capture() { $PF_EMULATOR ./personaflow capture "$model" --prompt-ids 2,5,6,7 --quiet "$@"; }
# holds DIR NAME...: these files and capture.json, and no others
holds() {
  local dir=$1 got
  shift
  set -- capture.json "$@"
  got=$(ls "$dir" 2>&1 | tr '\n' ' ')
  [ "$got" = "$(printf '%s\n' "$@" | LC_ALL=C sort | tr '\n' ' ')" ] || fail "$dir holds $got, not $*"
}
export LC_ALL=C

# ---- a folder of .npy files ----------------------------------------------------------------------
capture --format npy --out "$T/c" --hooks 'blocks.*.hook_resid_pre' || fail "capture into a folder"
[ "$(ls "$T/c" | grep -c npy)" = 8 ] || fail "not 8 layers: $(ls "$T/c")"
capture --format npy --out "$T/c/" --hooks hook_embed --force || fail "--force over a folder"
holds "$T/c" hook_embed.npy
cp "$T/c/hook_embed.npy" "$T/embed"
capture --format npy --out "$T/c" --hooks hook_embed 2>/dev/null && fail "written over without --force"
mkdir "$T/empty" && capture --format npy --out "$T/empty" --hooks hook_embed --force || fail "an empty folder"
holds "$T/empty" hook_embed.npy
ln -s c "$T/link" && capture --format npy --out "$T/link" --hooks ln_final.hook_out --force || fail "a link"
holds "$T/c" ln_final.hook_out.npy
[ -L "$T/link" ] || fail "the link is gone"

# one layer alone, for which the prompt runs no further: the values are those of a capture of all
for hook in blocks.3.hook_resid_pre blocks.3.attn.hook_z blocks.2.hook_resid_post hook_embed; do
  capture --format npy --out "$T/one" --force --positions 0:3 --hooks "$hook" || fail "capture of $hook"
  capture --format npy --out "$T/all" --force --positions 0:3 --hooks "$hook,unembed.hook_out" || fail "$hook and logits"
  cmp "$T/one/$hook.npy" "$T/all/$hook.npy" || fail "$hook alone differs"
done
rm -r "$T/one" "$T/all"

# what is no file of a capture stays, and so does the rest
capture --format npy --out "$T/d" --hooks hook_embed || fail "a second folder"
for other in notes.txt mine.npy; do
  echo mine >"$T/d/$other"
  capture --format npy --out "$T/d" --hooks ln_final.hook_out --force 2>"$T/err" && fail "$other was removed"
  grep -q "d: holds $other, which is no file of a capture" "$T/err" || fail "$(cat "$T/err")"
  holds "$T/d" hook_embed.npy "$other"
  rm "$T/d/$other"
done
touch "$T/d/blocks.99.ln1_post.hook_scale.npy" # of a longer model
capture --format npy --out "$T/d" --hooks ln_final.hook_out --force || fail "another model's capture"
holds "$T/d" ln_final.hook_out.npy

# no room for the second file: the old folder stays as it was, nothing else is left
before=$(ls "$T")
(trap '' XFSZ; ulimit -f 4; capture --format npy --out "$T/d" --hooks ln_final.hook_scale,unembed.hook_out --force \
  2>"$T/err")
rc=$?
rm "$T/err"
[ $rc = 3 ] || fail "a disk without room: exit code $rc"
holds "$T/d" ln_final.hook_out.npy
(trap '' XFSZ; ulimit -f 4; capture --format npy --out "$T/new" --hooks ln_final.hook_scale,unembed.hook_out 2>/dev/null) &&
  fail "a disk without room"
[ "$(ls "$T")" = "$(grep -v '^err$' <<<"$before")" ] || fail "left behind: $(ls "$T")"

# ---- what the values come from -------------------------------------------------------------------
sha() { sha256sum | cut -d ' ' -f 1; }
# says FILE KEY VALUE: in the JSON at its beginning
says() {
  head -c 4000 "$1" | sed 's/": "/":"/g' | grep -aqF "\"$2\":\"$3\"" ||
    fail "$1 does not say $2: $3: $(head -c 600 "$1" | tr -cd '[:print:]')"
}
weights=$($PF_EMULATOR ./personaflow snap "$model" --prompts - --out "$T/snap" --full --max-tokens 2 --quiet \
  <<<'{"id": "a", "ids": [2, 5, 6, 7]}' >/dev/null && grep -aoE '"weights_sha256": ?"[0-9a-f]{64}"' "$T/snap/manifest.json" |
  grep -oE '[0-9a-f]{64}')
[ ${#weights} = 64 ] || fail "snap says no weights_sha256"
cat >"$T/i.json" <<'I'
{"schema": "personaflow-interventions/1", "interventions": [{"op": "scale", "site": "hook_embed", "positions": "1", "scale": 2}]}
I
capture --hooks hook_embed --positions 1:3 --interventions "$T/i.json" --out "$T/o.safetensors" 2>/dev/null || fail "capture"
capture --hooks hook_embed --positions 1:3 --interventions "$T/i.json" --format npy --out "$T/o" 2>/dev/null || fail "capture"
for f in "$T/o.safetensors" "$T/o/capture.json" "$T/snap/prompt-000000.safetensors"; do
  says "$f" weights_sha256 "$weights"
  says "$f" prompt_ids 2,5,6,7
  says "$f" prompt_ids_sha256 "$(printf 2,5,6,7 | sha)"
  says "$f" model "$model"
  says "$f" precision f32
  says "$f" contract "$($PF_EMULATOR ./personaflow --version | grep -oE 'contract [0-9]+' | grep -oE '[0-9]+')"
done
for f in "$T/o.safetensors" "$T/o/capture.json"; do
  says "$f" tokenizer_sha256 "$(sha <"$model/tokenizer.json")"
  says "$f" positions 1:3
  says "$f" interventions 'scale hook_embed positions 1..1 (1) scale 2'
done
says "$T/snap/prompt-000000.safetensors" positions 0:5
says "$T/snap/prompt-000000.safetensors" prompt a
# the directory's name however it is written
here=$PWD/personaflow whole=$(cd "$model" && pwd -P)
$PF_EMULATOR "$here" capture "$model//" --prompt-ids 2 --hooks hook_embed --out "$T/1" --quiet && says "$T/1" model "$model"
$PF_EMULATOR "$here" capture "$model/./" --prompt-ids 2 --hooks hook_embed --out "$T/2" --quiet && says "$T/2" model "$model"
(cd "$model" && $PF_EMULATOR "$here" capture . --prompt-ids 2 --hooks hook_embed --out "$T/3" --quiet)
says "$T/3" model "$whole"
many=$(seq -s , 1 600)
$PF_EMULATOR ./personaflow capture "$model" --prompt-ids "$many" --hooks hook_embed --positions 0 --out "$T/5" --quiet
says "$T/5" prompt_ids_sha256 "$(printf %s "$many" | sha)"
head -c 2000 "$T/5" | grep -aqF '"prompt_ids":' && fail "600 token ids in the metadata"
exit $bad
