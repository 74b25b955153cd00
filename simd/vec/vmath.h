/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Elementary functions" over 16 lanes. */
#ifndef PF_VMATH_H
#define PF_VMATH_H

#include "simd/vec/v16.h"

/* exp(x) - 1 without its power of two; *t holds k = x/ln2 rounded, in its low bits. */
static inline v16 v_expm1_reduced(v16 x, v16 *t) {
  *t = v_fma(x, v_set1(PF_C_LOG2E), v_set1(PF_C_MAGIC));
  v16 k = v_sub(*t, v_set1(PF_C_MAGIC));
  v16 r = v_fma(k, v_set1(-PF_C_LN2_HI), x);
  r = v_fma(k, v_set1(-PF_C_LN2_LO), r);
  v16 q = v_fma(v_set1(PF_C_Q5), r, v_set1(PF_C_Q4));
  q = v_fma(q, r, v_set1(PF_C_Q3));
  q = v_fma(q, r, v_set1(PF_C_Q2));
  q = v_fma(q, r, v_set1(PF_C_Q1));
  q = v_fma(q, r, v_set1(PF_C_Q0));
  return v_fma(q, v_mul(r, r), r);
}

static inline v16 v_exp(v16 x) {
  v16 t, y = v_add(v_expm1_reduced(x, &t), v_set1(1.0f));
  y = v_bits(i_add(i_bits(y), i_shl(i_bits(t), 23)));
  y = v_select(v_gt(v_set1(PF_C_EXP_LO), x), v_zero(), y);
  y = v_select(v_gt(x, v_set1(PF_C_EXP_HI)), v_const_bits(PF_BITS_INF), y);
  return v_select(v_nan(x), x, y);
}

/* v_exp where no lane is above 0 or NaN. */
static inline v16 v_exp_upto0(v16 x) {
  v16 t, y = v_add(v_expm1_reduced(x, &t), v_set1(1.0f));
  y = v_bits(i_add(i_bits(y), i_shl(i_bits(t), 23)));
  return v_select(v_gt(v_set1(PF_C_EXP_LO), x), v_zero(), y);
}

static inline v16 v_neg(v16 x) {
  return v_bits(i_add(i_bits(x), i_set1(0x80000000u)));
}

static inline v16 v_tanh(v16 x) {
  v16 a = v_bits(i_and(i_bits(x), i_set1(PF_BITS_ABS))), top = v_set1(PF_C_TANH_MAX);
  a = v_select(v_gt(a, top), top, a);
  v16 t, y = v_expm1_reduced(v_add(a, a), &t);
  v16 p = v_bits(i_add(i_set1(0x3f800000u), i_shl(i_bits(t), 23)));
  v16 m = v_fma(y, p, v_sub(p, v_set1(1.0f)));
  m = v_div(m, v_add(m, v_set1(2.0f)));
  m = v_bits(i_or(i_bits(m), i_and(i_bits(x), i_set1(0x80000000u))));
  return v_select(v_nan(x), x, m);
}

/* 1 + exp(-x) */
static inline v16 v_one_plus_exp_neg(v16 x) {
  return v_add(v_set1(1.0f), v_exp(v_neg(x)));
}

static inline v16 v_sigmoid(v16 x) {
  v16 y = v_div(v_set1(1.0f), v_one_plus_exp_neg(x));
  return v_select(v_gt(v_set1(PF_C_EXP_LO), x), v_zero(), y);
}

static inline v16 v_silu(v16 x) {
  return v_div(x, v_one_plus_exp_neg(x));
}

static inline v16 v_gelu_tanh(v16 x) {
  v16 g = v_fma(v_mul(x, x), v_set1(PF_C_GELU_B), v_set1(PF_C_GELU_A));
  return v_div(x, v_one_plus_exp_neg(v_mul(x, g)));
}

#endif
