/* SPDX-License-Identifier: Apache-2.0
 * AVX-512: as micro_avx2.c at twice the width. */
#include <immintrin.h>

#define PF_READ_NAME pf_read_avx512
#define PF_READ_VEC  64
#include "simd/peak/micro_read.h"

#define STEP_FMA(i) c##i = _mm512_fmadd_ps(a, b, c##i);
double pf_micro_fma_avx512(size_t n) {
  typedef __m512 acc_t;
  acc_t a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f), first = b;
  PF_CHAINS(PF_X24, n, STEP_FMA)
  return 24.0 * 16 * 2 * (double)n;
}

#define STEP_MADDWD(i)                                                                             \
  PF_OPAQUE(a);                                                                                    \
  c##i = _mm512_add_epi32(c##i, _mm512_madd_epi16(a, b));
double pf_micro_maddwd_avx512(size_t n) {
  typedef __m512i acc_t;
  acc_t a = _mm512_set1_epi16(127), b = _mm512_set1_epi16(-113), first = b;
  PF_CHAINS(PF_X24, n, STEP_MADDWD)
  return 24.0 * 32 * 2 * (double)n;
}
