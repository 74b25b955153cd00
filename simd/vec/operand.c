/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands": the layouts of simd/ref/operand.c. */
#include "simd/vec/v16.h"

static inline v16 rounded(v16 x) {
  i16 u = i_bits(x), top = i_set1(0xffff0000u);
  i16 even = i_and(i_shr(u, 16), i_set1(1));
  i16 r = i_and(i_add(i_add(u, i_set1(0x7fff)), even), top);
  i16 nan = i_or(i_and(u, top), i_set1(0x400000));
  return v_bits(i_select(i_gt(i_and(u, i_set1(PF_BITS_ABS)), i_set1(PF_BITS_INF)), nan, r));
}

static inline void split(v16 x, v16 part[3]) {
  m16 out_of_range = i_gt(i_and(i_bits(x), i_set1(PF_BITS_ABS)), i_set1(PF_C_SPLIT_MAX - 1));
  part[0] = rounded(x);
  v16 r = v_sub(x, part[0]);
  part[1] = v_select(out_of_range, v_zero(), rounded(r));
  r = v_sub(r, part[1]);
  part[2] = v_select(out_of_range, v_zero(), rounded(r));
}

/* Values i..i+15 of x, +0 beyond k. */
static inline v16 load_k(size_t k, const float *x, size_t i) {
  return i + PF_LANES <= k ? v_load(x + i) : i < k ? v_loadn(x + i, k - i) : v_zero();
}

void PF_FN(round_bf16)(size_t n, const float *x, float *y) {
  size_t i = 0;
  for (; i + PF_LANES <= n; i += PF_LANES)
    v_store(y + i, rounded(v_load(x + i)));
  if (i < n)
    v_storen(y + i, rounded(v_loadn(x + i, n - i)), n - i);
}

void PF_FN(operand_x3_bf16)(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * 3 * kp;
  v16 p[3];
  for (size_t i = 0; i < kp; i += PF_LANES) { /* kp is a multiple of 32 */
    float *to = at + i / PF_KBLK * 3 * PF_KBLK + i % PF_KBLK;
    split(load_k(k, x, i), p);
    v_store(to, p[0]);
    v_store(to + PF_KBLK, p[1]);
    v_store(to + 2 * PF_KBLK, p[2]);
  }
}

void PF_FN(operand_bf16)(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i += PF_LANES)
    v_store(at + i, rounded(load_k(k, x, i)));
}

void PF_FN(operand_f32)(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i += PF_LANES)
    v_store(at + i, load_k(k, x, i));
}
