/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "rms_scale" and "rope". */
#include "simd/vec/v16.h"

float PF_FN(rms_scale)(size_t d, const float *x, float eps) {
  v16 acc = v_zero();
  size_t i = 0;
  for (; i + PF_LANES <= d; i += PF_LANES) {
    v16 v = v_load(x + i);
    acc = v_fma(v, v, acc);
  }
  if (i < d) {
    v16 v = v_loadn(x + i, d - i);
    acc = v_fma(v, v, acc);
  }
  float mean = v_sum(acc) / (float)d;
  return v_root(mean + eps);
}

void PF_FN(rope)(size_t d, const float *x, const float *c, const float *s, float *y) {
  size_t h = d / 2, i = 0;
  for (; i + PF_LANES <= h; i += PF_LANES) {
    v16 a = v_load(x + i), b = v_load(x + i + h), vc = v_load(c + i), vs = v_load(s + i);
    v_store(y + i, v_sub(v_mul(a, vc), v_mul(b, vs)));
    v_store(y + i + h, v_add(v_mul(b, vc), v_mul(a, vs)));
  }
  size_t n = h - i;
  if (n) {
    v16 a = v_loadn(x + i, n), b = v_loadn(x + i + h, n), vc = v_loadn(c + i, n),
        vs = v_loadn(s + i, n);
    v_storen(y + i, v_sub(v_mul(a, vc), v_mul(b, vs)), n);
    v_storen(y + i + h, v_add(v_mul(b, vc), v_mul(a, vs)), n);
  }
}
