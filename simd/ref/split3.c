/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "split3": x = hi + mid + lo. */
#include "simd/ref/ref.h"

static float round_bf16(float x) {
  return pf_bf16_to_f32(pf_f32_to_bf16(x));
}

void pf_split3_scalar(size_t k, size_t kp, const float *x, float *hi, float *mid, float *lo) {
  for (size_t i = 0; i < kp; i++) {
    float v = i < k ? x[i] : 0.0f;
    int in_range = (pf_bits_of_f32(v) & 0x7fffffffu) < PF_C_SPLIT_MAX;
    hi[i] = round_bf16(v);
    float r = v - hi[i];
    mid[i] = in_range ? round_bf16(r) : 0.0f;
    r = r - mid[i];
    lo[i] = in_range ? round_bf16(r) : 0.0f;
  }
}
