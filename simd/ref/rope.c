/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "rope": two products and a sum per value, three roundings, no fma. */
#include "simd/ref/ref.h"

void pf_rope_scalar(size_t d, const float *x, const float *c, const float *s, float *y) {
  size_t h = d / 2;
  for (size_t i = 0; i < h; i++) {
    float a = x[i], b = x[i + h];
    y[i] = a * c[i] - b * s[i];
    y[i + h] = b * c[i] + a * s[i];
  }
}
