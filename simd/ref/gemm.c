/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "dot", "gemm_x3_bf16", "gemm_bf16", "gemm_f32": one output at a time, blocks of 32,
 * an even and an odd chain; "gemm_s8". */
#include "simd/ref/operand.h"
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
      const float *a = (const float *)g->a + i * 3 * g->kp;
      for (size_t k = 0; k < g->kp; k += PF_KBLK, a += 3 * PF_KBLK) {
        load_bf16(g, j, k, w);
        h = h + block(a, w);
        m = m + block(a + PF_KBLK, w);
        m = m + block(a + 2 * PF_KBLK, w);
      }
      store(g, i, j, (h + m) + 0.0f);
    }
}

typedef void (*load_fn)(const pf_gemm *g, size_t j, size_t k, float w[PF_KBLK]);

static void one_part(const pf_gemm *g, load_fn load) {
  for (size_t i = 0; i < g->m; i++)
    for (size_t j = 0; j < g->n; j++) {
      float acc = 0, w[PF_KBLK];
      for (size_t k = 0; k < g->kp; k += PF_KBLK) {
        load(g, j, k, w);
        acc = acc + block((const float *)g->a + i * g->kp + k, w);
      }
      store(g, i, j, acc + 0.0f);
    }
}

void pf_gemm_bf16_scalar(const pf_gemm *g) {
  one_part(g, load_bf16);
}

void pf_gemm_f32_scalar(const pf_gemm *g) {
  one_part(g, load_f32);
}

/* Sum of q * w over k in [lo, hi) for output j. */
static int32_t sum_s8(const pf_gemm *g, const int8_t *q, size_t j, size_t lo, size_t hi) {
  const int8_t *w = (const int8_t *)g->w + j / 16 * g->kp * 16 + 4 * (j % 16);
  int32_t sum = 0;
  for (size_t k = lo; k < hi; k++)
    sum += q[k] * w[k / 4 * 64 + k % 4];
  return sum;
}

void pf_gemm_s8_scalar(const pf_gemm *g) {
  size_t groups = pf_s8_groups(g->kp, g->group);
  for (size_t i = 0; i < g->m; i++) {
    pf_s8_row a = pf_s8_row_at(g->a, i, g->kp, g->group);
    for (size_t j = 0; j < g->n; j++) {
      float acc = 0;
      for (size_t t = 0; t < groups; t++) {
        size_t lo = t * g->group, hi = lo + g->group < g->kp ? lo + g->group : g->kp;
        float scale = a.scale[t] * g->ws[(j / 16 * groups + t) * 16 + j % 16];
        acc = rfma((float)sum_s8(g, a.q, j, lo, hi), scale, acc);
      }
      store(g, i, j, acc + 0.0f);
    }
  }
}
