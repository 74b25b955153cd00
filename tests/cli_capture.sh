#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What capture leaves on the disk: a folder holds one run and is whole or not there.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
model=$srcdir/data/models/demo-gemma2
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-capture-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
bad=0

fail() { echo "FAIL: $*"; bad=1; }
capture() { $PF_EMULATOR ./personaflow capture "$model" --prompt-ids 2,5,6,7 --quiet "$@"; }
# holds DIR NAME...: these files and no others
holds() {
  local dir=$1 got
  shift
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

exit $bad
