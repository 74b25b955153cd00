/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands": the layouts of simd/ref/operand.c. */
#include "simd/vec/bf16.h"

void PF_FN(round_bf16)(size_t n, const float *x, float *y) {
  size_t i = 0;
  for (; i + PF_LANES <= n; i += PF_LANES)
    v_store(y + i, v_round_bf16(v_load(x + i)));
  if (i < n)
    v_storen(y + i, v_round_bf16(v_loadn(x + i, n - i)), n - i);
}

void PF_FN(operand_x3_bf16)(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * 3 * kp;
  v16 p[3];
  for (size_t i = 0; i < kp; i += PF_LANES) { /* kp is a multiple of 32 */
    float *to = at + i / PF_KBLK * 3 * PF_KBLK + i % PF_KBLK;
    v_split_bf16(v_load_k(k, x, i), p);
    v_store(to, p[0]);
    v_store(to + PF_KBLK, p[1]);
    v_store(to + 2 * PF_KBLK, p[2]);
  }
}

void PF_FN(operand_bf16)(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i += PF_LANES)
    v_store(at + i, v_round_bf16(v_load_k(k, x, i)));
}

void PF_FN(operand_f32)(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i += PF_LANES)
    v_store(at + i, v_load_k(k, x, i));
}
