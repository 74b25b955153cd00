/* SPDX-License-Identifier: Apache-2.0
 * Int8 products with the VEX form of vpdpbusd. */
#include "simd/x86/s8_256.h"

#if !defined(__AVXVNNI__)
#error "gemm_s8_avxvnni.c needs the flags of AVXVNNI_CFLAGS"
#endif

#define S8_WIDE     0
#define S8_ROWS     6
#define S8_PANELS   1
#define S8_FEW(F)   F(1, 4) F(2, 2) F(3, 2) F(4, 1)
#define S8_FEW_ROWS 4

static inline vi s8_dot(vi sum, vi row, vi w) {
  return _mm256_dpbusd_avx_epi32(sum, row, w);
}

#include "simd/x86/gemm_s8.h"

void pf_operand_s8_avxvnni(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  s8_operand(row, k, kp, group, x, a);
}

void pf_gemm_s8_avxvnni(const pf_gemm *g) {
  s8_gemm(g);
}
