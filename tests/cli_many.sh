#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# generate --prompts: every line has what generate --json gives for it, in the order of the file, for any batch, memory limit
# and number of threads; broken off (SIGINT, SIGTERM, kill -9) it keeps what is done, and --resume gives the bytes of a run
# without a break.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
srcdir=$(cd "$srcdir" && pwd)
model=$srcdir/data/models/demo-gemma2
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-many-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
export LC_ALL=C
. "$srcdir/tests/interrupt.sh"

generate() { $PF_EMULATOR ./personaflow generate "$model" --quiet --max-tokens 12 "$@"; }
many() { generate --prompts "$T/p.jsonl" "$@"; }

cat >"$T/p.jsonl" <<'P'
{"id": "pirate", "prompt": "As a pirate, recommend a book worth reading."}
{"persona": "a cook", "task": "Recommend a book worth reading.", "max_tokens": 7}

{"ids": [2, 5, 6, 7], "ignore_eos": true, "temperature": 1.5, "seed": 4, "top_k": 50}
{"raw": "Once upon a time", "repetition_penalty": 1.3}
{"messages": [{"role": "user", "content": "Sing."}, {"role": "assistant", "content": "La."}, {"role": "user", "content": "Again."}]}
{"id": 77, "prompt": "As a pirate, recommend a song.", "temperature": 0.9, "top_p": 0.8}
P

# line N WANT-ID ARGUMENTS...: ids, text and the rest are those of one prompt by itself.
line() {
  local n=$1 id=$2 one all
  shift 2
  all=$(sed -n "${n}p" "$T/all")
  one=$(generate --json "$@" | sed 's/": /":/g; s/, "/,"/g; s/\([0-9]\), /\1,/g')
  [ "$(cut -d, -f1 <<<"$all")" = "{\"id\":$id" ] || { bad "line $n: its id is not $id: $all"; return; }
  # Numbers are spelt in two ways.
  if [ "$(sed 's/"logprobs".*"finish"/"finish"/; s/^{"id":[^,]*,/{/' <<<"$all")" = \
       "$(sed 's/"logprobs".*"finish"/"finish"/' <<<"$one")" ]; then
    ok "line $n: as by itself"
  else
    bad "line $n: '$all', by itself '$one'"
  fi
}

many >"$T/all" || bad "exit code $?"
line 1 '"pirate"' --prompt 'As a pirate, recommend a book worth reading.'
line 2 1 --persona 'a cook' --task 'Recommend a book worth reading.' --max-tokens 7
line 3 2 --prompt-ids 2,5,6,7 --ignore-eos --temperature 1.5 --seed 4 --top-k 50
line 4 3 --prompt-raw 'Once upon a time' --repetition-penalty 1.3
echo '[{"role": "user", "content": "Sing."}, {"role": "assistant", "content": "La."}, {"role": "user", "content": "Again."}]' >"$T/chat.json"
line 5 4 --messages "$T/chat.json"
line 6 77 --prompt 'As a pirate, recommend a song.' --temperature 0.9 --top-p 0.8
for args in '--batch 1 -t 1' '--batch 2 -t 3' '--memory 400K' '--chunk 3'; do
  many $args >"$T/other" || bad "$args: exit code $?"
  cmp "$T/all" "$T/other" && ok "$args: the same bytes"
done
generate --prompts - <"$T/p.jsonl" >"$T/other"
cmp "$T/all" "$T/other" && ok 'standard input'

# 300 prompts, broken off when some are done.
model=$srcdir/tests/mini/q2-odd
for i in $(seq 300); do
  echo "{\"ids\": [2, $((i % 90 + 10)), $((i % 7 + 100))], \"max_tokens\": $((i % 60 + 40)), \"ignore_eos\": true}"
done >"$T/p.jsonl"
many >"$T/all"
broken() { # SIGNAL CODE PATTERN
  local dir=$T/$1
  # shellcheck disable=SC2086
  interrupt "$1" "$dir" generated.jsonl \
    $PF_EMULATOR ./personaflow generate "$model" --quiet --prompts "$T/p.jsonl" --batch 8 -t 1
  [ $rc = "$2" ] || bad "SIG$1: exit code $rc, not $2: $(cat "$T/err")"
  [ -z "$3" ] || grep -qE -e "$3" "$T/err" || bad "SIG$1: '$(cat "$T/err")'"
  many --max-tokens 128 --batch 64 --out "$dir" --resume || bad "SIG$1: resume: exit code $?"
  cmp "$T/all" "$dir/generated.jsonl" && ok "SIG$1: exit code $rc; resumed, the bytes of a run without a break"
}
broken INT 4 'prompts are done and kept: --resume goes on'
broken TERM 4 'prompts are done and kept'
broken KILL 137 ''
sum=$(sha256sum <"$T/INT/generated.jsonl")
many --max-tokens 128 --out "$T/INT" --force || bad "--force: exit code $?"
[ "$sum" = "$(sha256sum <"$T/INT/generated.jsonl")" ] && ok '--force: the same bytes'
echo '{"ids": [9999]}' >"$T/bad.jsonl"
# shellcheck disable=SC2086
$PF_EMULATOR ./personaflow generate "$model" --quiet --prompts "$T/bad.jsonl" --out "$T/INT" --force 2>/dev/null
[ $? = 3 ] && [ "$sum" = "$(sha256sum <"$T/INT/generated.jsonl")" ] && ok '--force with prompts that do not fit: what was there stays'
echo "many prompts: $n_ok ok, $n_bad failed"
[ $n_bad = 0 ] && [ $n_ok -ge 16 ]
