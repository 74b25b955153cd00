/* SPDX-License-Identifier: Apache-2.0
 * Rows of s8 operands as the scalar reference and the plain vector kernels hold them: kp int8
 * values, then one fp32 scale per group of k. */
#ifndef PF_SIMD_REF_OPERAND_H
#define PF_SIMD_REF_OPERAND_H

#include <stddef.h>
#include <stdint.h>

typedef struct pf_s8_row {
  int8_t *q;
  float *scale;
} pf_s8_row;

static inline size_t pf_s8_groups(size_t kp, size_t group) {
  return (kp + group - 1) / group;
}

static inline pf_s8_row pf_s8_row_at(const void *a, size_t row, size_t kp, size_t group) {
  size_t stride = kp + (pf_s8_groups(kp, group) * sizeof(float) + 63) / 64 * 64;
  int8_t *q = (int8_t *)(uintptr_t)a + row * stride;
  return (pf_s8_row){q, (float *)(void *)(q + kp)};
}

#endif
