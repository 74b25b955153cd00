#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# personaflow quantize: the directory it writes has the digest of the original in int8 (tests/golden/digests.sha), without
# the original; it is the same for any number of threads; a byte of a scale changed gives another digest.
set -u
: "${srcdir:=.}" "${PF_TEST_TIER:=normal}" "${PF_EMULATOR:=}"
golden=$srcdir/tests/golden/digests.sha
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-quantize-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
export XDG_CACHE_HOME=$T/cache
case $PF_TEST_TIER in
tiny | small) models=(q2-f32) ;;
normal) models=(q2-f32 g2-untied q2-sharded q2-f16 stories260K) ;;
*) models=($(cd "$srcdir/tests/mini" && ls -d */) demo-gemma2 demo-qwen2 stories260K) ;;
esac
models=("${models[@]%/}")
bad=0

fail() { echo "FAIL: $*"; bad=1; }
digest() { $PF_EMULATOR ./tests/inv_model digest small int8 "$1"; }
quantize() { $PF_EMULATOR ./personaflow quantize "$@" --quiet >/dev/null; }

for m in "${models[@]}"; do
  from=$srcdir/tests/mini/$m
  [ -d "$from" ] || from=$srcdir/data/models/$m
  mkdir "$T/from" "$T/new" && cp -r "$from" "$T/from/$m" || exit 99
  quantize "$T/from/$m" "$T/new/$m" -t 1 || fail "$m: exit code $?"
  quantize "$T/from/$m" "$T/new/3" -t 3 || fail "$m: exit code $? with three threads"
  cmp "$T/new/$m/model.safetensors" "$T/new/3/model.safetensors" || fail "$m: threads change the file"
  rm -r "$T/from" "$T/new/3"
  [ "$(ls "$T/new")" = "$m" ] || fail "$m: left behind: $(ls "$T/new")"
  got=$(digest "$T/new/$m")
  if [ -n "$got" ] && grep -qxF "$got" "$golden"; then
    echo "ok: $got"
  else
    fail "$m: '$got' is not what $golden has"
  fi
  [ "$m" != "${models[0]}" ] || cp -r "$T/new/$m" "$T/last"
  rm -r "$T/new"
done

# Scales are the first tensors of the file: bit 6 of a scale's third byte is the highest of its mantissa.
file=$T/last/model.safetensors
at=$((8 + $(od -An -tu8 -N8 "$file") + 2))
byte=$(od -An -tu1 -j$at -N1 "$file")
printf "\\x$(printf %x $((byte ^ 0x40)))" | dd of="$file" bs=1 seek=$at conv=notrunc status=none
mv "$T/last" "$T/${models[0]}"
got=$(digest "$T/${models[0]}") || fail "broken scale: exit code $?"
[ -n "$got" ] && ! grep -qxF "$got" "$golden" || fail "a broken scale has the digest of a whole one: $got"
exit $bad
