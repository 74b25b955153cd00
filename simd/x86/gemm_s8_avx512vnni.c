/* SPDX-License-Identifier: Apache-2.0
 * Int8 products with vpdpbusd. */
#include "simd/x86/s8_512.h"

#if !defined(__AVX512VNNI__)
#error "gemm_s8_avx512vnni.c needs the flags of AVX512VNNI_CFLAGS"
#endif

#define S8_WIDE   0
#define S8_ROWS   8
#define S8_PANELS 2
#define S8_FEW(F)                                                                                  \
  F(1, 4)                                                                                          \
  F(2, 4)                                                                                          \
  F(3, 4)                                                                                          \
  F(4, 4) F(5, 3) F(6, 3) F(7, 3) F(8, 3) F(9, 2) F(10, 2) F(11, 2) F(12, 2) F(13, 2) F(14, 2)
#define S8_FEW_ROWS 14

static inline vi s8_dot(vi sum, vi row, vi w) {
  return _mm512_dpbusd_epi32(sum, row, w);
}

#include "simd/x86/gemm_s8.h"

void pf_operand_s8_avx512vnni(size_t row, size_t k, size_t kp, size_t group, const float *x,
                              void *a) {
  s8_operand(row, k, kp, group, x, a);
}

void pf_gemm_s8_avx512vnni(const pf_gemm *g) {
  s8_gemm(g);
}
