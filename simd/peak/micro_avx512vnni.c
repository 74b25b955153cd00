/* SPDX-License-Identifier: Apache-2.0
 * AVX512-VNNI: four 8-bit products and their sum in each of 16 lanes. */
#include <immintrin.h>

#include "simd/peak/micro.h"

#define STEP_DPBUSD(i) c##i = _mm512_dpbusd_epi32(c##i, a, b);
double pf_micro_dpbusd_avx512vnni(size_t n) {
  typedef __m512i acc_t;
  acc_t a = _mm512_set1_epi8(127), b = _mm512_set1_epi8(-113), first = b;
  PF_CHAINS(PF_X24, n, STEP_DPBUSD)
  return 24.0 * 64 * 2 * (double)n;
}
