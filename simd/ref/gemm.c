/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "dot", "gemm_x3_bf16", "gemm_f32": one output at a time, blocks of 32, an even and an
 * odd chain. */
#include "simd/ref/ref.h"

/* E + O of one block: a[32] against the 32 weights of one output. */
static float block(const float *a, const float *w) {
  float e = 0, o = 0;
  for (int p = 0; p < PF_KBLK / 2; p++) {
    e = rfma(a[2 * p], w[2 * p], e);
    o = rfma(a[2 * p + 1], w[2 * p + 1], o);
  }
  return e + o;
}

/* Weights k..k+31 of output j from the bf16 panels. */
static void load_bf16(const pf_gemm *g, size_t j, size_t k, float w[PF_KBLK]) {
  const uint16_t *p = (const uint16_t *)g->w + (j / 16 * g->kp + k) * 16 + 2 * (j % 16);
  for (size_t i = 0; i < PF_KBLK; i++)
    w[i] = pf_bf16_to_f32(p[i / 2 * 32 + i % 2]);
}

static void load_f32(const pf_gemm *g, size_t j, size_t k, float w[PF_KBLK]) {
  const float *p = (const float *)g->w + (j / 16 * g->kp + k) * 16 + j % 16;
  for (size_t i = 0; i < PF_KBLK; i++)
    w[i] = p[i * 16];
}

static void store(const pf_gemm *g, size_t i, size_t j, float dot) {
  g->y[i * g->ldy + j] = g->bias ? dot + g->bias[j] : dot;
}

void pf_gemm_x3_bf16_scalar(const pf_gemm *g) {
  for (size_t i = 0; i < g->m; i++)
    for (size_t j = 0; j < g->n; j++) {
      float h = 0, m = 0, w[PF_KBLK];
      for (size_t k = 0; k < g->kp; k += PF_KBLK) {
        load_bf16(g, j, k, w);
        h = h + block(g->a[0] + i * g->lda + k, w);
        m = m + block(g->a[1] + i * g->lda + k, w);
        m = m + block(g->a[2] + i * g->lda + k, w);
      }
      store(g, i, j, (h + m) + 0.0f);
    }
}

void pf_gemm_f32_scalar(const pf_gemm *g) {
  for (size_t i = 0; i < g->m; i++)
    for (size_t j = 0; j < g->n; j++) {
      float acc = 0, w[PF_KBLK];
      for (size_t k = 0; k < g->kp; k += PF_KBLK) {
        load_f32(g, j, k, w);
        acc = acc + block(g->a[0] + i * g->lda + k, w);
      }
      store(g, i, j, acc + 0.0f);
    }
}
