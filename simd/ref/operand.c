/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands": activations as the products read them. Rows of x3 operands are blocks of
 * [hi, mid, lo][32] values, those of bf16 and f32 operands kp values, all fp32; a row of s8
 * operands is kp int8 values and then a scale per group. */
#include "simd/ref/operand.h"

#include "simd/ref/ref.h"

static float round_bf16(float x) {
  return pf_bf16_to_f32(pf_f32_to_bf16(x));
}

void pf_round_bf16_scalar(size_t n, const float *x, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = round_bf16(x[i]);
}

void pf_operand_x3_bf16_scalar(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * 3 * kp;
  for (size_t i = 0; i < kp; i++) {
    float v = i < k ? x[i] : 0.0f, *p = at + i / PF_KBLK * 3 * PF_KBLK + i % PF_KBLK;
    int in_range = (pf_bits_of_f32(v) & 0x7fffffffu) < PF_C_SPLIT_MAX;
    p[0] = round_bf16(v);
    float r = v - p[0];
    p[PF_KBLK] = in_range ? round_bf16(r) : 0.0f;
    r = r - p[PF_KBLK];
    p[2 * PF_KBLK] = in_range ? round_bf16(r) : 0.0f;
  }
}

void pf_operand_bf16_scalar(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i++)
    at[i] = i < k ? round_bf16(x[i]) : 0.0f;
}

void pf_operand_f32_scalar(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *at = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i++)
    at[i] = i < k ? x[i] : 0.0f;
}

float pf_quant_s8_scalar(size_t n, const float *x, int8_t *q) {
  uint32_t top = 0; /* of the magnitudes' bits: NaN above Inf above all numbers */
  for (size_t i = 0; i < n; i++) {
    uint32_t u = pf_bits_of_f32(x[i]) & 0x7fffffffu;
    top = u > top ? u : top;
  }
  float scale = top < 0x7f800000u ? pf_f32_of_bits(top) / 127.0f : PF_NAN;
  for (size_t i = 0; i < n; i++) /* adding 1.5 * 2^23 rounds to the nearest even integer */
    q[i] = scale > 0 ? (int8_t)((x[i] / scale + PF_C_MAGIC) - PF_C_MAGIC) : 0;
  return scale;
}

void pf_operand_s8_scalar(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  pf_s8_row to = pf_s8_row_at(a, row, kp, group);
  for (size_t i = 0; i < kp; i += group) {
    size_t left = i < k ? k - i : 0, n = left < group ? left : group;
    to.scale[i / group] = pf_quant_s8_scalar(n, x + i, to.q + i);
  }
  for (size_t i = k; i < kp; i++)
    to.q[i] = 0;
}
