#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bad inputs: each line of tests/badinputs.tsv is run, and its exit code and its one line on stderr must
# be the table's.
# Columns (tab-separated): name, exit code, pattern of the line (extended regular expression), set-up, command.
# Set-up and command see $M (a copy of a model, made by `model NAME`), $T (a fresh folder) and $srcdir.
# cli_badinputs.sh PATTERN runs only the cases whose name matches.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
srcdir=$(cd "$srcdir" && pwd)
only=${1:-.}
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-bad-XXXXXX") || exit 99
M=$T/model
trap 'umount "$T/full" 2>/dev/null; chmod -R u+w "$T"; rm -rf "$T"' EXIT
export HF_HUB_CACHE=$T/hub
export LC_ALL=C OMP_NUM_THREADS=2
n_ok=0 n_bad=0 n_skip=0

personaflow() { $PF_EMULATOR ./personaflow "$@"; }
ok() { n_ok=$((n_ok + 1)); }
bad() { n_bad=$((n_bad + 1)); printf 'FAIL: %s\n' "$*"; }
skip() { n_skip=$((n_skip + 1)); printf 'SKIP: %s\n' "$*"; }

# ---- mutations: each must change something, or the case is void --------------------------------

model() { # NAME: tests/mini/NAME or data/models/NAME, as a copy
  local from=$srcdir/tests/mini/$1
  [ -d "$from" ] || from=$srcdir/data/models/$1
  rm -rf "$M" && cp -r "$from" "$M" && chmod -R u+w "$M"
}
put() { printf '%s' "$2" >"$1"; }        # FILE TEXT
cut_end() { truncate -s "-$2" "$1"; }    # FILE BYTES
poke() { printf '%b' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE OFFSET BYTES
poke_end() { poke "$1" $(($(stat -c %s "$1") - $2)) "$3"; }                       # FILE BYTES-FROM-END BYTES
sub() {                                  # FILE OLD NEW: first occurrence
  cp "$1" "$T/before" && sed -i "0,/$2/s//$3/" "$1" && ! cmp -s "$T/before" "$1"
}
sub_same() { [ ${#2} = ${#3} ] && sub "$@"; } # the same, where offsets must stay

# ---- the table -----------------------------------------------------------------------------------

run_case() { # name code pattern set-up command
  local rc lines
  rm -rf "$M" "$T/w" && mkdir "$T/w"
  if [ "$4" != - ] && ! eval "$4" >"$T/setup" 2>&1; then
    bad "$1: its set-up '$4' did nothing: $(cat "$T/setup")"
    return
  fi
  (eval "$5") </dev/null >"$T/out" 2>"$T/err"
  rc=$?
  lines=$(grep -c . "$T/err")
  if [ $rc != "$2" ]; then
    bad "$1: exit code $rc, not $2: $(tail -n 3 "$T/err")"
  elif [ "$lines" != 1 ]; then
    bad "$1: $lines lines on stderr, not one: $(head -n 5 "$T/err")"
  elif ! grep -qE -e "$3" "$T/err"; then
    bad "$1: the line is '$(cat "$T/err")', not /$3/"
  else
    ok
  fi
}

run_table() {
  local name code pattern setup command n=0
  while IFS=$'\t' read -r name code pattern setup command; do
    case $name in '' | '#'*) continue ;; esac
    n=$((n + 1))
    [[ $name =~ $only ]] && run_case "$name" "$code" "$pattern" "$setup" "$command"
  done <"$srcdir/tests/badinputs.tsv"
  [ $n -ge 40 ] || bad "the table has $n cases: at least 40 are promised"
}

run_table
echo "bad inputs: $n_ok ok, $n_bad failed, $n_skip skipped"
[ $n_bad = 0 ] && [ $n_ok -gt 0 ]
