#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench/kernels runs: every operation of every instruction set that this CPU has, tiny and once, in
# each format. No time is judged.
set -eu
read -ra emulator <<<"${PF_EMULATOR:-}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMP_NUM_THREADS=2

bench() { "${emulator[@]}" ./bench/kernels --smoke "$@"; }
fail() { echo "FAIL: $*"; exit 1; }

bench >"$out/text"
bench --format csv >"$out/csv"
bench --format json >"$out/json"

grep -q '^peak ' "$out/text" || grep -q '^read, best' "$out/text" || fail "text names no peak"
for op in gemm_x3_bf16 gemm_bf16 gemm_f32 gemm_s8 attention attention_bf16 rms_scale softmax kl; do
  grep -q "^$op  *scalar" "$out/text" || fail "text has no line of $op"
done
awk -F, '!/^#/ { if (n && NF != n) exit 1; n = NF; lines++ } END { exit lines < 30 }' "$out/csv" ||
  fail "the lines of the CSV differ in their number of fields, or are few"
bench --targets >"$out/targets"
[ "$(grep -cE '\| (met|\*\*not met\*\*) \|$' "$out/targets")" -ge 1 ] || grep -q scalar <<<"${PERSONAFLOW_ISA:-}" || fail "no target"
lines() { grep -vc '^#' "$out/csv"; }
[ "$(grep -c '^    {"op": ' "$out/json")" -eq $(($(lines) - 1)) ] || fail "JSON and CSV differ in their number of results"
if command -v python3 >/dev/null; then
  python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$out/json" || fail "the JSON is none"
fi
for bad in '--op nothing' '--isa nothing' '--shape 3' '-m 0' '--format xml' '--group 63'; do
  # shellcheck disable=SC2086
  if bench $bad >/dev/null 2>&1; then fail "accepted $bad"; else [ $? -eq 2 ] || fail "$bad: wrong exit code"; fi
done
echo "$(($(lines) - 1)) lines in each format"
