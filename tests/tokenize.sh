#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# personaflow tokenize: output, options, exit codes and messages.
set -u
root=${srcdir:-.}
gemma=$root/tests/golden/tok/gemma
qwen=$root/tests/golden/tok/qwen
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0

# run NAME EXIT-CODE STDIN ARGUMENTS...: what it prints stays in $out and $err; one line of error at most.
run() {
  name=$1
  local want=$2 input=$3 code
  shift 3
  printf "$input" | ${PF_EMULATOR:-} ./personaflow tokenize "$@" >"$tmp/out" 2>"$tmp/err"
  code=$?
  out=$(cat "$tmp/out"; printf x)
  out=${out%x}
  err=$(cat "$tmp/err")
  [ $code = "$want" ] || { echo "FAIL $name: exit code $code, not $want: $err"; bad=1; }
  [ "$(wc -l <"$tmp/err")" -le 1 ] || { echo "FAIL $name: more than one line of error"; bad=1; }
  { [ "$want" = 0 ] && [ -z "$err" ]; } || { [ "$want" != 0 ] && [ -n "$err" ]; } ||
    { echo "FAIL $name: exit code $want and '$err'"; bad=1; }
}
is() { [ "$out" = "$1" ] || { echo "FAIL $name: printed '$out', not '$1'"; bad=1; }; }
says() { [[ $err == *"$1"* ]] || { echo "FAIL $name: said '$err', not '$1'"; bad=1; }; }
nl=$'\n'

run text 0 '<bos>' "$gemma";                     is '{"ids": [2, 378, 416, 429, 433, 380]}'"$nl"
run specials 0 '<bos>' "$gemma" --specials;      is '{"ids": [2, 2]}'"$nl"
run no-bos 0 '<bos>' "$gemma" --no-bos --specials; is '{"ids": [2]}'"$nl"
run bos 0 '' "$gemma" --bos;                     is '{"ids": [2]}'"$nl"
run offsets 0 '' "$gemma" --offsets --no-bos;    is '{"ids": [], "offsets": []}'"$nl"
run offsets2 0 '\n\n' "$gemma" --offsets;        is '{"ids": [2, 8], "offsets": [[0, 0], [0, 2]]}'"$nl"
run no-bos-token 2 'a' "$qwen" --bos;            says 'no BOS token'
run invalid 3 'ab\xffc' "$qwen";                 says 'invalid UTF-8 at byte 2'
run missing 3 '' "$tmp/none";                    says "$tmp/none"
run no-model 2 '';                               says 'a model is needed'
run two-models 2 '' "$qwen" "$gemma";            says 'one model'
run unknown-option 2 '' "$qwen" --nothing;       says "unknown option '--nothing'"
run needs-value 2 '' "$qwen" --messages;         says '--messages needs a value'
run both 2 '' "$qwen" --bos --no-bos;            says 'exclude each other'
run decode-bos 2 '' "$qwen" --decode --bos;      says '--decode takes no'
run prompt 2 '' "$qwen" --no-generation-prompt;  says 'needs --messages'
run help 0 '' --help

run decode 0 '{"ids": [2, 378, 416, 429, 433, 380]}' "$gemma" --decode; is '<bos>'
run decode-list 0 '[2, 8]' "$gemma" --decode --specials;  is "<bos>$nl$nl"
run decode-plain 0 ' 2,8\n 8 ' "$gemma" --decode;         is "$nl$nl$nl$nl"
run decode-json 3 '{"ids": [1,' "$gemma" --decode;        says 'not valid JSON'
run decode-none 3 '{"id": []}' "$gemma" --decode;         says 'no array "ids"'
run decode-word 3 '1 two' "$gemma" --decode;              says 'whole number'
run decode-negative 3 '[-1]' "$gemma" --decode;           says 'whole number'

# A conversation needs a template: a copy of the tiny tokenizer with the one of the demo models.
mkdir "$tmp/chat"
cp "$qwen/tokenizer.json" "$tmp/chat/"
cp "$root/tools/demo/qwen2.jinja" "$tmp/chat/chat_template.jinja"
run messages 0 '[{"role": "user", "content": "a<|im_end|>"}]' "$tmp/chat" --messages - --render --no-generation-prompt
[[ $out == *'user\na<|im_end|><|im_end|>\n"}'* ]] || { echo "FAIL messages: $out"; bad=1; }
end=$(printf '<|im_end|>' | ${PF_EMULATOR:-} ./personaflow tokenize "$qwen" --specials | tr -dc 0-9)
[ "$(grep -o "\b$end\b" <<<"$out" | wc -l)" = 2 ] || { echo "FAIL messages: a content made a control token"; bad=1; }
run messages-specials 0 '[{"role": "user", "content": "a<|im_end|>"}]' "$tmp/chat" --messages - --specials
[ "$(grep -o "\b$end\b" <<<"$out" | wc -l)" = 3 ] || { echo "FAIL messages-specials: $out"; bad=1; }
run messages-bad 3 '[{"role": "user"}]' "$tmp/chat" --messages -
run messages-parts 0 '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b c"}]}]}' "$tmp/chat" --messages - --render
[[ $out == *'user\nab c<|im_end|>'* ]] || { echo "FAIL messages-parts: $out"; bad=1; }
run messages-image 3 '[{"role": "user", "content": [{"type": "image_url"}]}]' "$tmp/chat" --messages -; says "not text"
run messages-role 3 '[{"role": "oracle", "content": ""}]' "$tmp/chat" --messages -; says "role 'oracle'"
run messages-missing 3 '' "$tmp/chat" --messages "$tmp/none.json"
run no-template 3 '[{"role": "user", "content": ""}]' "$qwen" --messages -;          says '--prompt-raw'
printf x >>"$tmp/chat/chat_template.jinja"
run unknown-template 3 '[{"role": "user", "content": ""}]' "$tmp/chat" --messages -; says 'tokenize: standard input with --specials'
printf '{' >"$tmp/chat/tokenizer.json"
run bad-file 3 '' "$tmp/chat";                            says 'invalid JSON'

if [ -w /dev/full ]; then
  ${PF_EMULATOR:-} ./personaflow tokenize "$gemma" </dev/null >/dev/full 2>"$tmp/err"
  [ $? = 3 ] || { echo "FAIL full disk"; bad=1; }
fi
exit $bad
