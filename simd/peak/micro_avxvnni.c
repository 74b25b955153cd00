/* SPDX-License-Identifier: Apache-2.0
 * AVX-VNNI: four 8-bit products and their sum in each of 8 lanes. */
#include <immintrin.h>

#include "simd/peak/micro.h"

#define STEP_DPBUSD(i) c##i = _mm256_dpbusd_avx_epi32(c##i, a, b);
double pf_micro_dpbusd_avxvnni(size_t n) {
  typedef __m256i acc_t;
  acc_t a = _mm256_set1_epi8(127), b = _mm256_set1_epi8(-113), first = b;
  PF_CHAINS(PF_X12, n, STEP_DPBUSD)
  return 12.0 * 32 * 2 * (double)n;
}
