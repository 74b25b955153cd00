/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Elementary functions" and the elementwise operations. */
#include "simd/ref/ref.h"

void pf_vexp_scalar(size_t n, const float *x, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = rexp(x[i]);
}

void pf_vtanh_scalar(size_t n, const float *x, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = rtanh(x[i]);
}

void pf_vsigmoid_scalar(size_t n, const float *x, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = rsigmoid(x[i]);
}

void pf_softcap_scalar(size_t n, float *x, float cap) {
  for (size_t i = 0; i < n; i++)
    x[i] = cap * rtanh(x[i] / cap);
}

/* x/2 (1 + tanh(u)) = x / (1 + exp(-2u)), 2u = x (A + B x^2) */
void pf_gelu_tanh_scalar(size_t n, const float *x, float *y) {
  for (size_t i = 0; i < n; i++) {
    float x2 = x[i] * x[i];
    float g = rfma(x2, PF_C_GELU_B, PF_C_GELU_A);
    float u = x[i] * g;
    y[i] = x[i] / (1.0f + rexp(-u));
  }
}

void pf_silu_scalar(size_t n, const float *x, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = x[i] / (1.0f + rexp(-x[i]));
}

void pf_mul_scalar(size_t n, const float *a, const float *b, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = a[i] * b[i];
}

void pf_add_scalar(size_t n, const float *a, const float *b, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = a[i] + b[i];
}

void pf_scale_scalar(size_t n, const float *x, float f, float *y) {
  for (size_t i = 0; i < n; i++)
    y[i] = x[i] * f;
}
