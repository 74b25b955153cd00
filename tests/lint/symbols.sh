#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The shared library exports pf_ symbols only, and exactly those that the installed headers declare with PF_API.
set -u
root=${1:-.}
so=${2:-.libs/libpersonaflow.so}
[ -f "$so" ] || { echo "$so is missing (configured with --disable-shared?)"; exit 1; }
exported=$(nm -D --defined-only "$so" | awk '$2 ~ /^[A-Z]$/ {sub(/@.*/, "", $3); print $3}' | sort -u)
declared=$(cat "$root"/include/personaflow/*.h | tr '\n' ' ' | grep -oE 'PF_API [^;(]*[ *]pf_[a-z0-9_]+ *\(' |
  grep -oE 'pf_[a-z0-9_]+ *\($' | tr -d ' (' | sort -u)
stray=$(grep -v '^pf_' <<<"$exported")
[ -z "$stray" ] || printf 'exported, but not pf_:\n%s\n' "$stray"
differ=$(comm -3 <(printf '%s\n' "$exported") <(printf '%s\n' "$declared"))
[ -z "$differ" ] || printf 'exported | declared with PF_API, not in both:\n%s\n' "$differ"
[ -z "$stray$differ" ]
