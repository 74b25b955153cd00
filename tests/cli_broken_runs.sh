#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Studies that are broken off: SIGINT, SIGTERM, kill -9 in the middle, a full disk. Each keeps what is finished, says so with
# the right exit code, and the same command then gives the bytes of a run without a break. Results are never written over unasked.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
srcdir=$(cd "$srcdir" && pwd)
model=$srcdir/data/models/demo-gemma2
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-broken-XXXXXX") || exit 99
trap 'mountpoint -q "$T/full" && umount "$T/full"; rm -rf "$T"' EXIT
export LC_ALL=C
. "$srcdir/tests/interrupt.sh"

four_cells "$T/grid.json"
study=(study "$model" --protocol paper --only additive --grid "$T/grid.json" -t 1 --quiet)

run() { # DIR ARGUMENTS...: exit code in rc, the line in $T/err
  local dir=$1
  shift
  $PF_EMULATOR ./personaflow "${study[@]}" --out "$dir" "$@" >"$T/out" 2>"$T/err"
  rc=$?
}
same() { # WHAT DIR: the results are those of the unbroken run
  local f
  for f in results.jsonl generated.jsonl summary.json report.html; do
    cmp "$T/whole/$f" "$2/$f" 2>&1 || { bad "$1: $f differs from a run without a break"; return; }
  done
  ok "$1: the bytes of a run without a break"
}
expect() { # WHAT CODE PATTERN
  if [ "$rc" != "$2" ]; then
    bad "$1: exit code $rc, not $2: $(tail -n 2 "$T/err")"
  elif [ -n "$3" ] && ! { grep -qE -e "$3" "$T/err" && [ "$(grep -c . "$T/err")" = 1 ]; }; then
    bad "$1: the line is '$(cat "$T/err")', not one that matches /$3/"
  else
    ok "$1: exit code $rc${3:+, $(cut -c1-120 "$T/err")}"
  fi
}

# broken SIGNAL CODE PATTERN: stops a study in the middle, then resumes it.
broken() {
  local dir=$T/$1
  # shellcheck disable=SC2086
  interrupt "$1" "$dir" summary.json $PF_EMULATOR ./personaflow "${study[@]}"
  expect "SIG$1 in the middle" "$2" "$3"
  $PF_EMULATOR ./personaflow report "$dir" >"$T/out" 2>"$T/err"
  rc=$?
  expect "report of a study that SIG$1 stopped" 4 'is not finished: run .personaflow study. again'
  run "$dir"
  expect "resumed after SIG$1" 0 ''
  same "SIG$1" "$dir"
}

full_disk() {
  mkdir "$T/full"
  if ! mount -t tmpfs -o size=16k pf-full "$T/full" 2>/dev/null; then
    echo "SKIP: full disk: mounting a tmpfs is not permitted here"
    return
  fi
  run "$T/full/r"
  expect 'full disk' 4 'No space left on device.*--resume'
  mount -o remount,size=16m "$T/full"
  run "$T/full/r"
  expect 'resumed after a full disk' 0 ''
  same 'full disk' "$T/full/r"
}

run "$T/whole"
expect 'a run without a break' 0 ''
files='results.jsonl journal.jsonl generated.jsonl summary.json manifest.json timings.json report.html'
sums=$(cd "$T/whole" && sha256sum $files)
run "$T/whole" --no-resume
expect 'results are there' 2 'holds results already'
run "$T/whole" --resume
expect 'resume of a finished study' 0 ''
[ "$sums" = "$(cd "$T/whole" && sha256sum $files)" ] || bad 'resuming a finished study changed its files'
run "$T/whole" --resume -t 2
[ "$sums" = "$(cd "$T/whole" && sha256sum $files)" ] ||
  bad 'resuming a finished study with other threads changed its files'
grep -q '"threads": 1' "$T/whole/timings.json" || bad 'timings.json does not name the threads'
run "$T/two" -t 2
same 'two threads' "$T/two"
# A plan is that of the command: what is left of it, and what it would refuse.
plan() { # WHAT PATTERN DIR ARGUMENTS...
  local what=$1 pattern=$2 before
  shift 2
  before=$(ls -aR "$1" 2>&1)
  run "$1" --dry-run --json "${@:2}"
  [ $rc = 0 ] && grep -qE "$pattern" "$T/out" && [ "$before" = "$(ls -aR "$1" 2>&1)" ] && ok "plan of $what" || bad "plan of $what: $rc $(cat "$T/out" "$T/err")"
}
plan 'a study' '"units":4,"units_left":4,' "$T/none"
plan 'a shard' '"units":2,"units_left":2,.*"shard":\[1,3\]' "$T/none" --shard 1/3
plan 'a finished study' '"units":4,"units_left":0,.*"row_layers_base":0,.*"seconds":0\}' "$T/whole"
study[5]=additive,injection
plan 'what a new experiment adds' '"units":12,"units_left":8,.*"row_layers_substitutions":0,.*"trials":12' "$T/whole"
study[5]=additive
plan 'a study started again' '"units":4,"units_left":4,' "$T/whole" --force
for refused in 'differs in layers' --layers\ 3 'holds results already' --no-resume; do
  [ "${refused#--}" = "$refused" ] && pattern=$refused && continue
  # shellcheck disable=SC2086
  run "$T/whole" --dry-run --json $refused
  expect "plan with $refused" 2 "$pattern"
done
cmp "$T/whole/manifest.json" "$T/two/manifest.json" || bad 'the manifest depends on the threads'
broken INT 4 'run it again to go on'
broken TERM 4 'run it again to go on'
broken KILL 137 ''
full_disk
for i in 2 3 1; do
  run "$T/shards" --shard $i/3
  expect "shard $i of 3" 0 ''
done
$PF_EMULATOR ./personaflow merge "$T/shards" --quiet >"$T/out" 2>"$T/err"
rc=$?
expect 'merge of the shards' 0 ''
same 'three shards' "$T/shards"
SLURM_ARRAY_TASK_ID=4 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 run "$T/auto" --shard auto
expect 'a shard of a Slurm array' 0 ''
$PF_EMULATOR ./personaflow merge "$T/auto" --quiet >"$T/out" 2>"$T/err"
rc=$?
expect 'merge without the other shard' 4 'of [0-9]+ units are missing, of shards 1-of-2: run these'
SLURM_ARRAY_TASK_ID=9 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_STEP=4 run "$T/step" --shard auto
expect 'a shard of an array with a step' 0 ''
[ -s "$T/step/shard-3-of-3/journal.jsonl" ] || bad 'the step of a Slurm array'
SLURM_ARRAY_TASK_ID=9 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=1 run "$T/uneven" --shard auto
expect 'an array of uneven ids' 2 'must be evenly spaced'
OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 run "$T/auto" --shard auto
expect 'a shard of an MPI launcher' 0 ''
$PF_EMULATOR ./personaflow merge "$T/joined" "$T/auto"/shard-* --quiet >"$T/out" 2>"$T/err"
rc=$?
expect 'merge into another folder' 0 ''
same 'two shards' "$T/joined"
# Shards of two studies: nothing is written, so that the right ones can be joined there.
cp -r "$T/auto/shard-1-of-2" "$T/other" && sed -i '1s/"layers":\[/&99,/' "$T/other/journal.jsonl"
mkdir "$T/mixed" && cp -r "$T/auto/shard-2-of-2" "$T/mixed" && cp -r "$T/other" "$T/mixed/shard-1-of-2"
report() { $PF_EMULATOR ./personaflow report "$@" >"$T/out" 2>"$T/err"; rc=$?; }
report "$T/mixed"
expect 'report of shards' 4 'holds shards of a study: .personaflow merge'
report "$T/mixed/shard-2-of-2"
expect 'report of a shard' 4 'is a shard of a study: .personaflow merge'
report "$T/whole" "$T/mixed" --out "$T/cmp"
expect 'comparison with shards' 4 'holds shards of a study'
cp -r "$T/whole" "$T/part" && rm "$T/part/summary.json"
report "$T/part"
expect 'report without the sweep' 3 'part/summary.json: is missing, although the study has run additive'
merge() { $PF_EMULATOR ./personaflow merge "$@" --quiet >"$T/out" 2>"$T/err"; rc=$?; }
merge "$T/mixed"
expect 'shards of two studies' 2 'shard-2-of-2: is of another study than .*shard-1-of-2: they differ in layers'
[ "$(ls "$T/mixed")" = $'shard-1-of-2\nshard-2-of-2' ] || bad "left by a merge that was refused: $(ls "$T/mixed")"
cp "$T/other/journal.jsonl" "$T/mixed" # the folder holds another study
cp "$T/auto/shard-1-of-2/journal.jsonl" "$T/mixed/shard-1-of-2"
merge "$T/mixed"
expect 'merge over another study' 2 'differs in layers: choose another folder, or --force'
merge "$T/mixed" --force
expect 'merge --force' 0 ''
same 'merged with --force' "$T/mixed"
merge "$T/mixed/shard-1-of-2" "$T/mixed"/shard-* --force
expect 'merge --force into a shard' 2 'is one of the shards'
# Folders above --out are made, a grid may come from standard input.
$PF_EMULATOR ./personaflow "${study[@]:0:6}" --grid - -t 1 --quiet --out "$T/input" <"$T/grid.json" >"$T/out" 2>"$T/err"
rc=$?
expect 'a grid from standard input' 0 ''
same 'a grid from standard input' "$T/input"
echo '{"id": "a", "prompt": "Arr"}' >"$T/p.jsonl"
$PF_EMULATOR ./personaflow snap "$model" --prompts "$T/p.jsonl" --out "$T/new/deep/snap" --max-tokens 2 --quiet >"$T/out" 2>"$T/err"
rc=$?
expect 'a snapshot in a new folder of a new folder' 0 ''
echo "broken runs: $n_ok ok, $n_bad failed"
[ $n_bad = 0 ] && [ $n_ok -gt 0 ]
