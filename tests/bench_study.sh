#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench/study runs on a demo model: counts, the comparison of the results, refusals. No time is judged.
set -eu
read -ra emulator <<<"${PF_EMULATOR:-}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMP_NUM_THREADS=2 XDG_CACHE_HOME=$out/cache
fail() { echo "FAIL: $*"; exit 1; }

cat >"$out/grid.json" <<'G'
{"schema": "personaflow-grid/1", "name": "one-cell", "description": "one cell", "template": "As {persona}, {task}",
 "baseline": {"persona": "a thoughtful person", "task": "Give advice to someone facing a difficult decision."},
 "personas": [{"key": "pirate", "text": "a pirate"}], "tasks": [{"key": "rain", "text": "Describe what a rainy day is like."}]}
G
"${emulator[@]}" ./bench/study -m "$srcdir/data/models/demo-qwen2" --out "$out/s" --grid "$out/grid.json" >"$out/table"
grep -q '^results.jsonl of both: the same bytes$' "$out/table" || fail "the results differ"
read -r off on < <(sed -n 's/^| row-layers of the substitutions | \([0-9]*\) | \([0-9]*\) .*/\1 \2/p' "$out/table")
[ "$on" -gt 0 ] && [ "$off" -gt $((3 * on)) ] || fail "row-layers $off and $on"
grep -qE '^\| seconds, off / on, of the ratio of operations: at least \| 80 % \| [0-9.]+ % \| (met|\*\*not met\*\*) \|$' "$out/table" ||
  fail "no target of the time"
for bad in '' '-m x' "-m $srcdir/data/models/demo-qwen2 --out $out/s" '--precision half' '-t x' 'more'; do
  # shellcheck disable=SC2086
  if "${emulator[@]}" ./bench/study $bad >/dev/null 2>&1; then fail "accepted '$bad'"; else [ $? -eq 2 ] || fail "'$bad': wrong exit code"; fi
done
