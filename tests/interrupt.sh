# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Long runs that are broken off; for scripts that have a folder $T.

n_ok=0 n_bad=0
ok() { n_ok=$((n_ok + 1)); echo "ok: $*"; }
bad() { n_bad=$((n_bad + 1)); echo "FAIL: $*"; }

# four_cells FILE: a grid of two personas and two tasks: six prompts, four cells.
four_cells() {
  cat >"$1" <<'G'
{"schema": "personaflow-grid/1", "name": "broken-runs", "description": "four cells",
 "template": "As {persona}, {task}",
 "baseline": {"persona": "a thoughtful person", "task": "Give advice to someone facing a difficult decision."},
 "personas": [{"key": "pirate", "text": "a pirate"}, {"key": "cook", "text": "a chef"}],
 "tasks": [{"key": "book", "text": "Recommend a book worth reading and explain why."},
           {"key": "rain", "text": "Describe what a rainy day is like."}]}
G
}

records() { cat "$1/journal.jsonl" 2>/dev/null | wc -l; }

# interrupt SIGNAL DIR RESULT COMMAND...: runs the command (a program, no function) with --out DIR, sends SIGNAL after its
# first record and leaves the exit code in rc, its lines in $T/out and $T/err. On a busy machine a run may end before the
# signal comes, so that DIR/RESULT is there: then again.
interrupt() {
  local signal=$1 dir=$2 result=$3 pid try
  shift 3
  for try in 1 2 3 4 5; do
    rm -rf "$dir"
    "$@" --out "$dir" >"$T/out" 2>"$T/err" &
    pid=$!
    for _ in $(seq 6000); do # the first line is the head, the second a record
      [ "$(records "$dir")" -ge 2 ] && break
      kill -0 $pid 2>/dev/null || break
      sleep 0.01
    done
    kill -s "$signal" $pid 2>/dev/null
    wait $pid 2>/dev/null
    rc=$?
    [ -e "$dir/$result" ] || return 0
  done
  bad "SIG$signal: it had finished before the signal $try times; the case is void"
}
