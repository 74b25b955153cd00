/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Elementwise" and "Elementary functions". */
#include "simd/vec/vmath.h"

/* Runs `expr` of the lanes v = x[i..] (and w = b[i..]) over n values, the tail with a short load
 * and store. */
#define PF_MAP1(n, x, y, expr)                                                                     \
  do {                                                                                             \
    size_t i = 0;                                                                                  \
    for (; i + PF_LANES <= (n); i += PF_LANES) {                                                   \
      v16 v = v_load((x) + i);                                                                     \
      v_store((y) + i, expr);                                                                      \
    }                                                                                              \
    if (i < (n)) {                                                                                 \
      v16 v = v_loadn((x) + i, (n)-i);                                                             \
      v_storen((y) + i, expr, (n)-i);                                                              \
    }                                                                                              \
  } while (0)

#define PF_MAP2(n, x, b, y, expr)                                                                  \
  do {                                                                                             \
    size_t i = 0;                                                                                  \
    for (; i + PF_LANES <= (n); i += PF_LANES) {                                                   \
      v16 v = v_load((x) + i), w = v_load((b) + i);                                                \
      v_store((y) + i, expr);                                                                      \
    }                                                                                              \
    if (i < (n)) {                                                                                 \
      v16 v = v_loadn((x) + i, (n)-i), w = v_loadn((b) + i, (n)-i);                                \
      v_storen((y) + i, expr, (n)-i);                                                              \
    }                                                                                              \
  } while (0)

void PF_FN(vexp)(size_t n, const float *x, float *y) {
  PF_MAP1(n, x, y, v_exp(v));
}

void PF_FN(vtanh)(size_t n, const float *x, float *y) {
  PF_MAP1(n, x, y, v_tanh(v));
}

void PF_FN(vsigmoid)(size_t n, const float *x, float *y) {
  PF_MAP1(n, x, y, v_sigmoid(v));
}

void PF_FN(softcap)(size_t n, float *x, float cap) {
  v16 c = v_set1(cap);
  PF_MAP1(n, x, x, v_mul(c, v_tanh(v_div(v, c))));
}

void PF_FN(gelu_tanh)(size_t n, const float *x, float *y) {
  PF_MAP1(n, x, y, v_gelu_tanh(v));
}

void PF_FN(silu)(size_t n, const float *x, float *y) {
  PF_MAP1(n, x, y, v_silu(v));
}

void PF_FN(mul)(size_t n, const float *a, const float *b, float *y) {
  PF_MAP2(n, a, b, y, v_mul(v, w));
}

void PF_FN(add)(size_t n, const float *a, const float *b, float *y) {
  PF_MAP2(n, a, b, y, v_add(v, w));
}

void PF_FN(scale)(size_t n, const float *x, float f, float *y) {
  v16 c = v_set1(f);
  PF_MAP1(n, x, y, v_mul(v, c));
}

void PF_FN(rms_apply)(size_t d, const float *x, float scale, float *y) {
  PF_FN(scale)(d, x, 1.0f / scale, y);
}

void PF_FN(rms_weight)(size_t d, const float *x, const float *w_, int plus_one, float *y) {
  v16 one = v_set1(1.0f);
  if (plus_one)
    PF_MAP2(d, x, w_, y, v_mul(v, v_add(one, w)));
  else
    PF_MAP2(d, x, w_, y, v_mul(v, w));
}
