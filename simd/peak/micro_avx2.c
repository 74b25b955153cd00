/* SPDX-License-Identifier: Apache-2.0
 * AVX2: fp32 fused multiply-add, and the integer product without saturation (16-bit pairs and an
 * addition: two instructions for 16 products). */
#include <immintrin.h>

#define PF_READ_NAME pf_read_avx2
#define PF_READ_VEC  32
#include "simd/peak/micro_read.h"

#define STEP_FMA(i) c##i = _mm256_fmadd_ps(a, b, c##i);
double pf_micro_fma_avx2(size_t n) {
  typedef __m256 acc_t;
  acc_t a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f), first = b;
  PF_CHAINS(PF_X12, n, STEP_FMA)
  return 12.0 * 8 * 2 * (double)n;
}

#define STEP_MADDWD(i)                                                                             \
  PF_OPAQUE(a);                                                                                    \
  c##i = _mm256_add_epi32(c##i, _mm256_madd_epi16(a, b));
double pf_micro_maddwd_avx2(size_t n) {
  typedef __m256i acc_t;
  acc_t a = _mm256_set1_epi16(127), b = _mm256_set1_epi16(-113), first = b;
  PF_CHAINS(PF_X12, n, STEP_MADDWD)
  return 12.0 * 16 * 2 * (double)n;
}
