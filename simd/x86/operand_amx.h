/* SPDX-License-Identifier: Apache-2.0
 * Operands in the AMX form: a row of a tile of bf16, where 16 rows of s8 lie. */
#ifndef PF_SIMD_X86_OPERAND_AMX_H
#define PF_SIMD_X86_OPERAND_AMX_H

#include "base/bf16.h"
#include "simd/kernels.h"
#include "simd/x86/amx.h"

/* The upper halves of 32 values: a row of a tile. */
PF_INLINE __m512i pf_upper_halves(__m512 lo, __m512 hi) {
  static const uint16_t odd[32] __attribute__((aligned(64))) = {
      1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(_mm512_castps_si512(lo), _mm512_load_si512(odd),
                                   _mm512_castps_si512(hi));
}

typedef struct pf_amx_s8 {
  char *tiles;  /* [kp/64][16][64] */
  float *scale; /* [groups][16] */
} pf_amx_s8;

static inline pf_amx_s8 pf_amx_s8_at(const void *a, size_t row_tile, size_t kp, size_t group) {
  size_t groups = (kp + group - 1) / group;
  char *p = (char *)(uintptr_t)a + row_tile * (16 * kp + 64 * groups);
  return (pf_amx_s8){p, (float *)(void *)(p + 16 * kp)};
}

#endif
