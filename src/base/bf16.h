/* SPDX-License-Identifier: Apache-2.0
 * bfloat16 and IEEE half conversions in integer arithmetic, so that no floating-point mode touches
 * them. */
#ifndef PF_BASE_BF16_H
#define PF_BASE_BF16_H

#include <stdint.h>
#include <string.h>

static inline float pf_f32_of_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static inline uint32_t pf_bits_of_f32(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

static inline float pf_bf16_to_f32(uint16_t h) {
  return pf_f32_of_bits((uint32_t)h << 16);
}

/* Round to nearest even; NaN stays NaN (quiet), denormals are rounded as numbers. */
static inline uint16_t pf_f32_to_bf16(float f) {
  uint32_t u = pf_bits_of_f32(f);
  if ((u & 0x7fffffffu) > 0x7f800000u)
    return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Exact: every half is a float. */
static inline float pf_f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
  if (e == 31)
    return pf_f32_of_bits(sign | 0x7f800000u | (m << 13));
  if (e == 0) {
    if (m == 0)
      return pf_f32_of_bits(sign);
    e = 1;
    while (!(m & 0x400u)) {
      m <<= 1;
      e--;
    }
    m &= 0x3ffu;
  }
  return pf_f32_of_bits(sign | ((e + 112) << 23) | (m << 13));
}

#endif
