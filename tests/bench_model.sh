#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench/model runs: prompts, generation, branches, loading, profile and targets, tiny and once, in each format. No time is judged.
set -eu
read -ra emulator <<<"${PF_EMULATOR:-}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMP_NUM_THREADS=2 XDG_CACHE_HOME=$out/cache
model=$srcdir/data/models/demo-qwen2

bench() { "${emulator[@]}" ./bench/model --smoke -m "$model" "$@"; }
fail() { echo "FAIL: $*"; exit 1; }

bench -p 5,40 -b 16 -n 2 -npl 1,3 -d 3 -r 2 --load --profile >"$out/md" 2>"$out/profile"
[ "$(grep -cE '^\| demo-qwen2 \| .* \| (f32|bf16|int8) \| 2 \| ' "$out/md")" -eq 24 ] || fail "not 8 lines in each precision"
grep -q '^| mlp.down_proj | ' "$out/profile" || fail "the profile knows no product"
few=(--precision bf16-hf -p 8 -n 0 -r 1 --no-warmup)
for o in csv json jsonl; do bench "${few[@]}" -p 9 -o $o >"$out/$o"; done
awk -F, 'n && NF != n { exit 1 } { n = NF } END { exit NR != 3 }' "$out/csv" || fail "the CSV has other than three lines of one length"
[ "$(grep -c '"precision": "bf16-hf"' "$out/json")" -eq 2 ] || fail "the JSON has other than two results"
[ "$(grep -c '^{.*}$' "$out/jsonl")" -eq 2 ] || fail "the JSONL has other than two lines"
if command -v python3 >/dev/null; then
  python3 -c 'import json, sys; json.load(open(sys.argv[1])); [json.loads(l) for l in open(sys.argv[2])]' "$out/json" "$out/jsonl" || fail "the JSON is none"
fi
for m in demo-gemma2:2135040 demo-qwen2:2217600; do # as many as the tensors have
  for b in 'bench/model --smoke' 'personaflow bench'; do
    # shellcheck disable=SC2086
    "${emulator[@]}" ./$b -m "$srcdir/data/models/${m%:*}" --precision bf16 -p 1 -n 0 -r 1 --no-warmup -o jsonl 2>/dev/null |
      grep -qE "\"model_n_params\": ?${m#*:}," || fail "$b: ${m%:*} has not ${m#*:} parameters"
  done
done
bench --precision int8 -p 8 -n 2 -r 1 --targets >"$out/targets"
[ "$(grep -cE '^\| demo-qwen2 int8, .*\| (met|\*\*not met\*\*) \|$' "$out/targets")" -eq 7 ] || fail "not seven targets"
for isa in avx2 neon; do
  PERSONAFLOW_ISA=$isa bench --precision bf16 --only prefill -p 512 -n 0 -r 1 --no-warmup --targets >"$out/targets" 2>/dev/null && break
done
grep -qE '^\| demo-qwen2 bf16, pp512 \| 70 % of the multiply-add peak \| [0-9.]+ % .*\| (met|\*\*not met\*\*) \|$' "$out/targets" ||
  fail "no target of the prompt without AMX"
bench --precision int8 --only decode -n 2 -r 1 --targets >"$out/targets"
[ "$(grep -cE '\| (met|\*\*not met\*\*) \|$' "$out/targets")" -eq 1 ] || fail "other targets than that of decode"
for bad in '-p x' '-n -1' '-npl 99999' '-b 0' '-t 0' '-r 0' '-o xml' '--precision half' '--only all' 'more'; do
  # shellcheck disable=SC2086
  if bench $bad >/dev/null 2>&1; then fail "accepted $bad"; else [ $? -eq 2 ] || fail "$bad: wrong exit code"; fi
done
if "${emulator[@]}" ./bench/model --smoke -m "$out/none" >/dev/null 2>&1; then fail "accepted no model"; else [ $? -eq 3 ] || fail "no model: wrong exit code"; fi
