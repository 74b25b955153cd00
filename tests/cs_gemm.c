/* SPDX-License-Identifier: Apache-2.0
 * split3 and the products; a transcription of the contract's dot beside them; their speed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fpenv.h"
#include "base/mem.h"
#include "simd/ref/ref.h"
#include "tests/cs.h"

void cs_split3(cs *t) {
  for (size_t s = 0; s < cs_n_sizes; s++)
    for (int kind = 0; kind < CS_KINDS; kind++) {
      size_t k = cs_sizes[s], kp = pf_round_up(k, PF_KBLK);
      float *x = cs_in(t, 0, k, kind), *got[3], *want[3];
      for (int i = 0; i < 3; i++)
        cs_out(t, i, kp, &got[i], &want[i]);
      t->ref->split3(k, kp, x, want[0], want[1], want[2]);
      t->v->split3(k, kp, x, got[0], got[1], got[2]);
      for (int i = 0; i < 3; i++)
        cs_cmp(t, got[i], want[i], kp, "k %zu, kind %d, part %d", k, kind, i);
    }
}

/* Weights of n outputs and k inner values in both packed layouts, absent ones zero. */
static uint16_t *pack_bf16(cs *t, int slot, size_t n, size_t k, size_t kp, int kind) {
  size_t bytes = pf_round_up(n, 16) * kp * 2;
  uint16_t *w = cs_guarded(t, slot, bytes);
  memset(w, 0, bytes);
  for (size_t j = 0; j < n; j++)
    for (size_t i = 0; i < k; i++)
      w[(j / 16 * kp / 2 + i / 2) * 32 + 2 * (j % 16) + i % 2] = pf_f32_to_bf16(cs_value(t, kind));
  return w;
}

static float *pack_f32(cs *t, int slot, size_t n, size_t k, size_t kp, int kind) {
  size_t bytes = pf_round_up(n, 16) * kp * 4;
  float *w = cs_guarded(t, slot, bytes);
  memset(w, 0, bytes);
  for (size_t j = 0; j < n; j++)
    for (size_t i = 0; i < k; i++)
      w[(j / 16 * kp + i) * 16 + j % 16] = cs_value(t, kind);
  return w;
}

/* Rows of activations with stride lda: x3 splits them, else they stay. */
static void activations(cs *t, pf_gemm *g, size_t k, int kind, int x3) {
  size_t extent = (g->m - 1) * g->lda + g->kp;
  float *x = cs_in(t, 0, g->kp, kind), *part[3];
  for (int i = 0; i < 3; i++) {
    g->a[i] = part[i] = cs_guarded(t, 1 + i, extent * sizeof(float));
    memset(part[i], 0x5a, extent * sizeof(float));
  }
  for (size_t r = 0; r < g->m; r++) {
    for (size_t i = 0; i < g->kp; i++)
      x[i] = i < k ? cs_value(t, kind) : 0.0f;
    if (x3)
      pf_split3_scalar(k, g->kp, x, part[0] + r * g->lda, part[1] + r * g->lda,
                       part[2] + r * g->lda);
    else
      memcpy(part[0] + r * g->lda, x, g->kp * sizeof(float));
  }
}

static void one_gemm(cs *t, size_t m, size_t n, size_t k, int kind, int x3) {
  size_t kp = pf_round_up(k, PF_KBLK), ldy = n + cs_u32(t) % 3;
  pf_gemm g = {.m = m, .n = n, .kp = kp, .lda = kp + cs_u32(t) % 2 * 7, .ldy = ldy};
  activations(t, &g, k, kind, x3);
  if (!x3)
    g.a[1] = g.a[2] = NULL;
  g.w = x3 ? (const void *)pack_bf16(t, 4, n, k, kp, kind) : pack_f32(t, 4, n, k, kp, kind);
  g.bias = cs_u32(t) % 2 ? cs_in(t, 5, n, kind) : NULL;
  float *got, *want;
  size_t extent = (m - 1) * ldy + n;
  cs_out(t, 0, extent, &got, &want);
  g.y = want;
  (x3 ? t->ref->gemm_x3_bf16 : t->ref->gemm_f32)(&g);
  g.y = got;
  (x3 ? t->v->gemm_x3_bf16 : t->v->gemm_f32)(&g);
  cs_cmp(t, got, want, extent, "m %zu, n %zu, k %zu, kind %d, bias %d", m, n, k, kind,
         g.bias != NULL);
}

static void all_gemms(cs *t, int x3) {
  static const size_t ns[] = {1, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 65};
  static const size_t ks[] = {1, 31, 32, 33, 64, 90, 160};
  for (size_t m = 1; m <= 9 && !t->failed; m++)
    for (size_t i = 0; i < sizeof ns / sizeof *ns; i++)
      for (size_t j = 0; j < sizeof ks / sizeof *ks; j++)
        one_gemm(t, m, ns[i], ks[j], (int)(cs_u32(t) % CS_KINDS), x3);
  for (int kind = 0; kind < CS_KINDS; kind++)
    one_gemm(t, 5, 40, 576, kind, x3);
}

void cs_gemm_x3_bf16(cs *t) {
  all_gemms(t, 1);
}

void cs_gemm_f32(cs *t) {
  all_gemms(t, 0);
}

/* ---- the reference against a second transcription, with the C library's fma
 * ---------------------------------------- */

/* The contract's dot over n products, written once more: absent products are +0 * +0. */
static float naive_dot(size_t n, const float *a, const float *b) {
  volatile float acc = 0;
  for (size_t k = 0; k < n; k += 32) {
    volatile float chain[2] = {0, 0};
    for (size_t i = k; i < k + 32; i++)
      chain[i % 2] = fmaf(i < n ? a[i] : 0.0f, i < n ? b[i] : 0.0f, chain[i % 2]);
    volatile float sum = chain[0] + chain[1];
    acc = acc + sum;
  }
  return acc + 0.0f;
}

static unsigned differ(const char *what, float got, float want, int kind, unsigned i) {
  uint32_t a = pf_bits_of_f32(got), b = pf_bits_of_f32(want);
  if (a == b || (got != got && want != want))
    return 0;
  printf("FAIL  %s: kind %d, trial %u: %08x, want %08x\n", what, kind, i, a, b);
  return 1;
}

unsigned cs_naive(void) {
  enum { K = 70, KP = 96 };
  pf_kernel none = {.op = "naive", .isa = "scalar"};
  cs t = {.k = &none, .seed = 7};
  uint64_t env = pf_fp_enter();
  unsigned bad = 0;
  for (unsigned i = 0; i < 2000 && !bad; i++) {
    int kind = (int)(i % CS_KINDS);
    float a[KP] = {0}, w[KP] = {0}, y;
    float *packed = pack_f32(&t, 4, 1, 0, KP, kind);
    for (size_t k = 0; k < K; k++)
      packed[k * 16] = w[k] = cs_value(&t, kind), a[k] = cs_value(&t, kind);
    pf_gemm g = {
        .m = 1, .n = 1, .kp = KP, .lda = KP, .ldy = 1, .a = {a, NULL, NULL}, .w = packed, .y = &y};
    pf_gemm_f32_scalar(&g);
    bad += differ("dot against its transcription", y, naive_dot(K, a, w), kind, i);
  }
  for (unsigned i = 0; i < 300000 && !bad; i++) {
    int kind = (int)(i % CS_KINDS);
    volatile float a = cs_value(&t, kind), b = cs_value(&t, kind), c = cs_value(&t, kind);
    if (i % 3 == 0) /* near cancellation and near ties */
      c = -(a * b);
    bad += differ("fma of the reference against fmaf", rfma(a, b, c), fmaf(a, b, c), kind, i);
  }
  pf_fp_leave(env);
  if (!bad)
    printf("ok    dot and fma of the reference against a second transcription\n");
  return bad;
}

/* ---- speed
 * ----------------------------------------------------------------------------------------------------------
 */

/* Of this thread's processor time, so that other work on the machine counts less. */
static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void time_gemm(const pf_simd *s, const char *isa, size_t m, size_t n, size_t k, int x3) {
  float *a = pf_calloc(3 * m * k, sizeof *a), *y = pf_calloc(m * n, sizeof *y);
  void *w = pf_calloc(n * k, x3 ? 2 : 4);
  if (a && y && w) {
    for (size_t i = 0; i < 3 * m * k; i++)
      a[i] = (float)(i % 7) - 3;
    memset(w, 0x3f, n * k * (x3 ? 2 : 4));
    pf_gemm g = {.m = m,
                 .n = n,
                 .kp = k,
                 .lda = k,
                 .ldy = n,
                 .a = {a, a + m * k, a + 2 * m * k},
                 .w = w,
                 .y = y};
    uint64_t env = pf_fp_enter();
    double best = 1e30, total = 0;
    for (int i = 0; i < 50 && total < 1.0; i++) {
      double t0 = seconds();
      (x3 ? s->gemm_x3_bf16 : s->gemm_f32)(&g);
      double dt = seconds() - t0;
      total += dt;
      best = dt < best ? dt : best;
    }
    pf_fp_leave(env);
    double fma = (double)m * (double)n * (double)k * (x3 ? 3 : 1);
    printf("%-13s %-7s m %3zu n %zu k %zu: %8.1f GFLOP/s (fma x 2), weights at %6.2f GB/s\n",
           x3 ? "gemm_x3_bf16" : "gemm_f32", isa, m, n, k, 2e-9 * fma / best,
           1e-9 * (double)(n * k * (x3 ? 2 : 4)) / best);
  }
  pf_free(a);
  pf_free(y);
  pf_free(w);
}

void cs_bench(const pf_simd *s, const char *isa) {
  int scalar = !strcmp(isa, "scalar");
  static const size_t ms[] = {1, 4, 12, 64};
  for (int x3 = 1; x3 >= 0; x3--)
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
      time_gemm(s, isa, ms[i], scalar ? 64 : 9216, 2304, x3);
}
