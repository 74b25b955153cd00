/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "quant_s8": the scale, over the vocabulary of s8_256.h or s8_512.h, which the file
 * that includes this has chosen. */
#ifndef PF_SIMD_X86_S8_SCALE_H
#define PF_SIMD_X86_S8_SCALE_H

#include "base/bf16.h"

/* max|x| / 127; NaN when a value is not finite: as bits, NaN is above Inf above all numbers. */
static inline float s8_scale(size_t n, const float *x) {
  s8_top top = {0};
  for (size_t i = 0; i < n; i += 16)
    top = s8_larger(top, s8_load(x + i, n - i < 16 ? n - i : 16));
  uint32_t most = s8_largest(top);
  return most < 0x7f800000u ? pf_f32_of_bits(most) / 127.0f : pf_f32_of_bits(0x7fc00000u);
}

#endif
