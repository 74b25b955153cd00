/* SPDX-License-Identifier: Apache-2.0
 * The vocabulary of 16 fp32 lanes for the instruction set that this unit is compiled for, and what
 * is built on it alone. Only static inline code: these units carry wide instructions, which must
 * not leak into generic ones.
 *
 *   v16 fp32 lanes, i16 their bits, m16 a lane mask; v_loadn/v_storen touch the first n < 16 lanes
 * only (others: +0); v_select(m, yes, no); comparisons are ordered (false for NaN). */
#ifndef PF_V16_H
#define PF_V16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bf16.h"
#include "simd/consts.h"
#include "simd/kernels.h"
#include "simd/simd.h"

#if defined(PF_VEC_AVX512)
#include "simd/vec/v_avx512.h"
#elif defined(PF_VEC_AVX2)
#include "simd/vec/v_avx2.h"
#elif defined(PF_VEC_NEON)
#include "simd/vec/v_neon.h"
#else
#error "simd/vec is compiled with one of PF_VEC_AVX512, PF_VEC_AVX2, PF_VEC_NEON"
#endif

#define PF_BITS_INF    0x7f800000u
#define PF_BITS_NEGINF 0xff800000u
#define PF_BITS_ABS    0x7fffffffu

static inline v16 v_zero(void) {
  return v_set1(0.0f);
}

static inline v16 v_const_bits(uint32_t u) {
  return v_bits(i_set1(u));
}

/* 16 pairs of bf16, which are the upper halves of fp32: the first of each, or the second. */
PF_INLINE v16 v_half(const char *pairs, const bool odd) {
  i16 u = i_load(pairs);
  return v_bits(odd ? i_and(u, i_set1(0xffff0000u)) : i_shl(u, 16));
}

/* The end of a product: y = (sum + (+0)) (+ bias) of 16 outputs from j on, fewer at the edge. */
PF_INLINE void pf_put(const pf_gemm *g, size_t i, size_t j, v16 sum) {
  float *y = g->y + i * g->ldy + j;
  size_t n = g->n - j;
  v16 dot = v_add(sum, v_zero());
  if (n >= PF_LANES)
    v_store(y, g->bias ? v_add(dot, v_load(g->bias + j)) : dot);
  else
    v_storen(y, g->bias ? v_add(dot, v_loadn(g->bias + j, n)) : dot, n);
}

/* The tree of CONTRACT.md: l^8, l^4, l^2, l^1. */
static inline float v_sum(v16 a) {
  float v[PF_LANES];
  v_store(v, a);
  for (int h = PF_LANES / 2; h; h /= 2)
    for (int l = 0; l < h; l++)
      v[l] = v[l] + v[l + h];
  return v[0];
}

/* The largest lane; no lane is NaN. */
static inline float v_max(v16 a) {
  float v[PF_LANES];
  v_store(v, a);
  float m = v[0];
  for (int l = 1; l < PF_LANES; l++)
    m = v[l] > m ? v[l] : m;
  return m;
}

/* Lanes that are Inf or NaN. */
static inline m16 v_nonfinite(v16 a) {
  i16 inf = i_set1(PF_BITS_INF);
  return i_eq(i_and(i_bits(a), inf), inf);
}

#endif
