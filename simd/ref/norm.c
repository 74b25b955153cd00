/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "rms_scale", "rms_apply", "rms_weight". */
#include "simd/ref/ref.h"

float pf_rms_scale_scalar(size_t d, const float *x, float eps) {
  float v[PF_LANES] = {0};
  for (size_t j = 0; j < d; j++)
    v[j % PF_LANES] = rfma(x[j], x[j], v[j % PF_LANES]);
  float mean = rtree(v) / (float)d;
  return rroot(mean + eps);
}

void pf_rms_apply_scalar(size_t d, const float *x, float scale, float *y) {
  float inv = 1.0f / scale;
  for (size_t j = 0; j < d; j++)
    y[j] = x[j] * inv;
}

void pf_rms_weight_scalar(size_t d, const float *x, const float *w, int plus_one, float *y) {
  for (size_t j = 0; j < d; j++)
    y[j] = x[j] * (plus_one ? 1.0f + w[j] : w[j]);
}
