#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# doc/STORIES.md as it is written: the commands of each story, one after the other, each of which must succeed.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}" "${PF_TEST_TIER:=normal}"
if [ -n "$PF_EMULATOR" ] || [ "$PF_TEST_TIER" = small ]; then
  echo 'SKIP: the stories run natively, in the normal and big tiers'
  exit 77
fi
srcdir=$(cd "$srcdir" && pwd)
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-stories-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
ln -s "$PWD" "$T/build"
ln -s "$srcdir/data" "$T/data"
export LC_ALL=C
n=0
for story in $(seq "$(grep -c '^```sh$' "$srcdir/doc/STORIES.md")"); do
  awk -v want="$story" '/^```sh$/ {n++; on = n == want; next} /^```$/ {on = 0} on' "$srcdir/doc/STORIES.md" >"$T/$story.sh"
  (cd "$T" && bash -e "$story.sh" >"$story.out" 2>&1) || { echo "FAIL: story $story"; tail -n 20 "$T/$story.out"; exit 1; }
  n=$((n + 1))
  echo "ok: story $story, $(wc -l <"$T/$story.out") lines"
done
[ $n = 3 ]
