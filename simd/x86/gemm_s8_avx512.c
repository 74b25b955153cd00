/* SPDX-License-Identifier: Apache-2.0
 * Int8 products with vpmaddwd on CPUs that have AVX-512 without VNNI. */
#include "simd/x86/s8_512.h"

#define S8_WIDE     1
#define S8_ROWS     8
#define S8_PANELS   2
#define S8_FEW(F)   F(1, 4) F(2, 4) F(3, 4) F(4, 4)
#define S8_FEW_ROWS 4

static inline vi s8_dot(vi sum, vi row, vi w) {
  sum = vi_add(sum, vi_madd(row, w));
  S8_KEEP(sum); /* else GCC adds products to each other first, which takes more registers */
  return sum;
}

#include "simd/x86/gemm_s8.h"

void pf_operand_s8_avx512(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  s8_operand(row, k, kp, group, x, a);
}

void pf_gemm_s8_avx512(const pf_gemm *g) {
  s8_gemm(g);
}

float pf_quant_s8_avx512(size_t n, const float *x, int8_t *q) {
  return s8_quant(n, x, q);
}
