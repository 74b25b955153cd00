#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every sub-command explains itself, and the man page names every sub-command and every option.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
man=$(sed 's/\\-/-/g; s/\\fR//g' "$srcdir/doc/man/personaflow.1")
bad=0 n=0
commands=$($PF_EMULATOR ./personaflow --help | awk '/^  [a-z]/ {print $1}')
for c in $commands; do
  help=$($PF_EMULATOR ./personaflow "$c" --help) || { echo "FAIL: $c --help: exit code $?"; bad=1; }
  [ "$help" = "$($PF_EMULATOR ./personaflow help "$c")" ] || { echo "FAIL: help $c is not that of $c --help"; bad=1; }
  grep -q "^usage: personaflow $c" <<<"$help" || { echo "FAIL: $c --help: no usage line"; bad=1; }
  grep -qE "^\.SS personaflow $c( |$)" <<<"$man" || { echo "FAIL: the man page lacks $c"; bad=1; }
  for o in $(grep -oE -e '--[a-z][a-z-]+' <<<"$help" | sort -u); do
    n=$((n + 1))
    grep -qF -e "$o" <<<"$man" || [ "$o" = --help ] || { echo "FAIL: the man page lacks $c $o"; bad=1; }
  done
done
echo "$n options of $(wc -w <<<"$commands") commands looked for"
[ $bad = 0 ] && [ $n -gt 20 ]
