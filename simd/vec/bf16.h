/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands": what makes them reads, rounds and splits 16 lanes at a time. */
#ifndef PF_VEC_BF16_H
#define PF_VEC_BF16_H

#include "simd/vec/v16.h"

/* Values i..i+15 of x, +0 beyond k. */
static inline v16 v_load_k(size_t k, const float *x, size_t i) {
  return i + PF_LANES <= k ? v_load(x + i) : i < k ? v_loadn(x + i, k - i) : v_zero();
}

static inline v16 v_round_bf16(v16 x) {
  i16 u = i_bits(x), top = i_set1(0xffff0000u);
  i16 even = i_and(i_shr(u, 16), i_set1(1));
  i16 r = i_and(i_add(i_add(u, i_set1(0x7fff)), even), top);
  i16 nan = i_or(i_and(u, top), i_set1(0x400000));
  return v_bits(i_select(i_gt(i_and(u, i_set1(PF_BITS_ABS)), i_set1(PF_BITS_INF)), nan, r));
}

static inline void v_split_bf16(v16 x, v16 part[3]) {
  m16 out_of_range = i_gt(i_and(i_bits(x), i_set1(PF_BITS_ABS)), i_set1(PF_C_SPLIT_MAX - 1));
  part[0] = v_round_bf16(x);
  v16 r = v_sub(x, part[0]);
  part[1] = v_select(out_of_range, v_zero(), v_round_bf16(r));
  r = v_sub(r, part[1]);
  part[2] = v_select(out_of_range, v_zero(), v_round_bf16(r));
}

#endif
