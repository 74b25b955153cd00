#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A study of every experiment, killed again and again at random moments, with torn last records and full disks in between: it
# ends in the bytes of a run without a break, and no finished unit is computed twice. Then shards in any order, and as many
# processes of an MPI launcher where there is one. The big tier kills 100 times; others a few times, with few experiments.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}" "${PF_TEST_TIER:=normal}"
srcdir=$(cd "$srcdir" && pwd)
model=$srcdir/data/models/demo-gemma2
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-kills-XXXXXX") || exit 99
trap 'mountpoint -q "$T/disk" && umount "$T/disk"; rm -rf "$T"' EXIT
export LC_ALL=C
RANDOM=2605
. "$srcdir/tests/interrupt.sh"

four_cells "$T/grid.json"
study=(study "$model" --grid "$T/grid.json" --layers 4 --quiet)
kills=5 shards=3 longest=400 # milliseconds of a run before it is killed
case $PF_TEST_TIER in
big) kills=100 shards=8 longest=3000 ;;
small) kills=1 shards=2 study+=(--only y,injection) ;;
*) study+=(--only y,markers,injection) ;;
esac

# shellcheck disable=SC2086
run() { $PF_EMULATOR ./personaflow "${study[@]}" "$@" >"$T/out" 2>"$T/err"; }
same() { # WHAT DIR
  local f
  for f in "$T"/whole/*.json*; do
    f=${f##*/}
    [[ $f = journal.jsonl || $f = timings.json || $f = run.json ]] && continue
    cmp "$T/whole/$f" "$2/$f" 2>&1 || { bad "$1: $f differs from a run without a break"; return; }
  done
  [ -z "$(sed -n '2,$s/.*"unit": *"\([^"]*\)".*/\1/p' "$2/journal.jsonl" | sort | uniq -d)" ] ||
    { bad "$1: a unit stands in the journal twice"; return; }
  ok "$1: the bytes of a run without a break"
}

# A run of a random length, killed. The records that were there must still be there.
kill_once() { # DIR
  local pid before after ms=$((RANDOM * longest / 32768))
  before=$(records "$1")
  run --out "$1" &
  pid=$!
  sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
  pkill -KILL -P $pid 2>/dev/null
  wait $pid 2>/dev/null
  after=$(records "$1")
  [ "$after" -ge "$before" ] || bad "kill $killed: $before records before, $after after"
}

# What else may have happened to the last record: half of it is written, or its end is lost.
torn=0 full=0
tear() { # DIR
  [ "$(records "$1")" -gt 2 ] || return
  torn=$((torn + 1))
  if [ $((torn % 2)) = 1 ]; then
    printf '{"unit": "D1/0' >>"$1/journal.jsonl"
  else
    truncate -s -$((RANDOM % 30 + 1)) "$1/journal.jsonl"
  fi
}
fill() { # DIR: a run on a disk with a few blocks left
  local used
  mountpoint -q "$T/disk" && [ -e "$1/journal.jsonl" ] && [ ! -e "$1/findings.json" ] || return
  used=$(du -k -s "$T/disk" | cut -f1)
  mount -o remount,size=$((used + 8))k "$T/disk"
  run --out "$1"
  [ $? = 4 ] && grep -q 'No space left' "$T/err" || bad "full disk: $(cat "$T/err")"
  mount -o remount,size=1g "$T/disk"
  full=$((full + 1))
}

run --out "$T/whole" || { cat "$T/err"; exit 1; }
mkdir "$T/disk"
mount -t tmpfs -o size=1g pf-kills "$T/disk" 2>/dev/null || echo "SKIP: full disks: mounting a tmpfs is not permitted here"
killed=0 finished=0
while [ $killed -lt $kills ]; do
  dir=$T/disk/$finished
  while [ $killed -lt $kills ] && [ ! -e "$dir/report.html" ]; do
    killed=$((killed + 1))
    kill_once "$dir"
    [ $((killed % 10)) != 5 ] || [ -e "$dir/report.html" ] || tear "$dir"
    [ $((killed % 10)) != 0 ] || [ -e "$dir/report.html" ] || fill "$dir"
  done
  run --out "$dir" || bad "the last run: $(cat "$T/err")"
  same "study $finished, after $killed kills so far" "$dir"
  finished=$((finished + 1))
done
echo "$killed kills, $torn torn records, $full full disks, $finished studies"

for i in $(seq $shards | sort -R --random-source=<(yes)); do
  run --out "$T/shards" --shard "$i/$shards" || bad "shard $i of $shards: $(cat "$T/err")"
done
# shellcheck disable=SC2086
$PF_EMULATOR ./personaflow merge "$T/shards" --quiet 2>"$T/err" || bad "merge: $(cat "$T/err")"
same "$shards shards" "$T/shards"

if [ "$PF_TEST_TIER" = big ]; then
  if command -v mpirun >/dev/null; then
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -n 4 \
      ./personaflow "${study[@]}" --out "$T/mpi" --shard auto -t 1 >"$T/out" 2>&1 || bad "mpirun: $(tail -n 3 "$T/out")"
    ./personaflow merge "$T/mpi" --quiet 2>"$T/err" || bad "merge: $(cat "$T/err")"
    same 'mpirun -n 4' "$T/mpi"
  else
    echo 'SKIP: there is no mpirun'
  fi
fi
echo "kills: $n_ok ok, $n_bad failed"
[ $n_bad = 0 ] && [ $n_ok -gt 1 ]
