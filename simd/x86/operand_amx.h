/* SPDX-License-Identifier: Apache-2.0
 * Where 16 rows of s8 operands lie in the AMX form. */
#ifndef PF_SIMD_X86_OPERAND_AMX_H
#define PF_SIMD_X86_OPERAND_AMX_H

#include "base/bf16.h"
#include "simd/x86/amx.h"

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
