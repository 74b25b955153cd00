#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tables.sh WORK [SHAPE...]: the tables of doc/KERNELS.md and doc/PERFORMANCE.md of this machine, one file each in WORK;
# run as ../bench/tables.sh in the build folder after `make bench`, with nothing else running. Some hours in all; a
# table that is there is kept, so it can be stopped and gone on with. SHAPE: as pf-mkckpt names them (default: the
# three). Random checkpoints are written to WORK/SHAPE; one with a tokenizer.json (copied there from the real model)
# runs the paper's studies too.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: bench/tables.sh WORK [SHAPE...]" >&2; exit 2; }
work=$1
shift
[ $# -gt 0 ] || set -- gemma-2-2b qwen2.5-1.5b qwen2.5-3b
mkdir -p "$work" || exit 3
export OMP_PROC_BIND="${OMP_PROC_BIND:-true}"

# keep NAME COMMAND...: its output is WORK/NAME.txt when it is whole; 5: this machine has no such thing.
keep() {
  local name=$1 rc=0
  shift
  [ -e "$work/$name.txt" ] && return
  echo "== $name"
  "$@" >"$work/$name.part" 2>"$work/$name.err" || rc=$?
  case $rc in
    0) mv "$work/$name.part" "$work/$name.txt" && rm "$work/$name.err" ;;
    5) cat "$work/$name.err" >&2; rm "$work/$name.part" "$work/$name.err" ;;
    *) echo "$name: exit code $rc, see $work/$name.err" >&2; exit $rc ;;
  esac
}

keep machine ./personaflow info
while read -r isa ops; do
  for op in $ops; do
    keep "kernels-$isa-$op" bench/kernels --targets --seconds 0.3 --isa "$isa" --op "$op" </dev/null
  done
done <<'END'
amx gemm_bf16 gemm_x3_bf16 gemm_s8 attention_bf16
avx512vnni gemm_s8
avx512 gemm_bf16 gemm_x3_bf16 gemm_f32 gemm_s8 attention,attention_bf16
avxvnni gemm_s8
avx2 gemm_bf16 gemm_x3_bf16 gemm_f32 gemm_s8 attention,attention_bf16
neonbf16 gemm_bf16 gemm_x3_bf16 attention_bf16
neoni8mm gemm_s8
neondot gemm_s8
neon gemm_bf16 gemm_x3_bf16 gemm_f32 gemm_s8 attention,attention_bf16
END
for shape; do
  [ -e "$work/$shape/config.json" ] || ./pf-mkckpt "$shape" "$work/$shape" || exit
  keep "model-$shape" bench/model -m "$work/$shape" --load --targets
  for grid in short long; do
    if [ -e "$work/$shape/tokenizer.json" ]; then
      keep "study-$shape-$grid" ./personaflow study "$work/$shape" --protocol paper --grid $grid --out "$work/study-$shape-$grid"
    else
      echo "$work/$shape has no tokenizer.json: no study of the $grid grid" >&2
    fi
  done
done
