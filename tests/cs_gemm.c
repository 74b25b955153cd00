/* SPDX-License-Identifier: Apache-2.0
 * Operands and products; a transcription of the contract's dot beside them; their speed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fpenv.h"
#include "base/mem.h"
#include "simd/ref/operand.h"
#include "simd/ref/ref.h"
#include "tests/cs.h"
#include "tests/util.h"

/* The kinds of products: how to make the operands and to multiply, bytes of a weight. */
typedef enum kind_of { X3, BF16, F32, S8, N_PRODUCTS } kind_of;
static const struct {
  const char *name;
  size_t parts, bytes, kblk;
} product_info[N_PRODUCTS] = {{"gemm_x3_bf16", 3, 2, PF_KBLK},
                              {"gemm_bf16", 1, 2, PF_KBLK},
                              {"gemm_f32", 1, 4, PF_KBLK},
                              {"gemm_s8", 1, 1, PF_S8BLK}};

static void operand(const pf_simd *s, kind_of p, const pf_gemm *g, size_t row, const float *x) {
  void *a = (void *)(uintptr_t)g->a;
  switch (p) {
  case X3:
    s->operand_x3_bf16(row, g->k, g->kp, x, a);
    break;
  case BF16:
    s->operand_bf16(row, g->k, g->kp, x, a);
    break;
  case F32:
    s->operand_f32(row, g->k, g->kp, x, a);
    break;
  default:
    s->operand_s8(row, g->k, g->kp, g->group, x, a);
  }
}

static void multiply(const pf_simd *s, kind_of p, const pf_gemm *g) {
  void (*const f[N_PRODUCTS])(const pf_gemm *) = {s->gemm_x3_bf16, s->gemm_bf16, s->gemm_f32,
                                                  s->gemm_s8};
  f[p](g);
}

/* ---- weights ----------------------------------------------------------------------------------
 */

/* Weights of n outputs and k inner values in the packed layouts, absent ones zero. */
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

/* Any int8 but -128, which quantisation never gives; CS_HUGE: the extremes only. */
static int8_t s8_value(cs *t, int kind) {
  uint32_t u = cs_u32(t);
  if (kind == CS_HUGE)
    return u % 2 ? 127 : -127;
  return (int8_t)((int)(u % 255) - 127);
}

static void pack_s8(cs *t, pf_gemm *g, int kind) {
  size_t np = pf_round_up(g->n, 16), groups = pf_s8_groups(g->kp, g->group);
  int8_t *w = cs_guarded(t, 4, np * g->kp);
  float *ws = cs_guarded(t, 6, np * groups * sizeof *ws);
  int32_t *sum = cs_guarded(t, 7, np * groups * sizeof *sum);
  memset(w, 0, np * g->kp);
  memset(ws, 0, np * groups * sizeof *ws);
  memset(sum, 0, np * groups * sizeof *sum);
  for (size_t j = 0; j < g->n; j++)
    for (size_t i = 0; i < g->k; i++) {
      size_t at = (j / 16 * groups + i / g->group) * 16 + j % 16;
      int8_t v = s8_value(t, kind);
      w[(j / 16 * g->kp / 4 + i / 4) * 64 + 4 * (j % 16) + i % 4] = v;
      sum[at] += v;
      if (i % g->group == 0)
        ws[at] = cs_value(t, kind);
    }
  g->w = w;
  g->ws = ws;
  g->wsum = sum;
}

static void weights(cs *t, kind_of p, pf_gemm *g, int kind) {
  if (p == S8)
    pack_s8(t, g, kind);
  else if (p == F32)
    g->w = pack_f32(t, 4, g->n, g->k, g->kp, kind);
  else
    g->w = pack_bf16(t, 4, g->n, g->k, g->kp, kind);
}

/* ---- one product ------------------------------------------------------------------------------
 */

/* Rows are made in an order that is not theirs; what lies between them must not matter. */
static void operands(cs *t, kind_of p, const pf_simd *s, pf_gemm *g, const float *x, int slot) {
  size_t bytes = pf_operand_bytes(product_info[p].parts, g->m, g->kp);
  g->a = cs_guarded(t, slot, bytes);
  memset((void *)(uintptr_t)g->a, 0xff, bytes);
  for (size_t i = g->m; i-- > 0;)
    operand(s, p, g, i, x + i * g->k);
}

/* group 0: drawn. */
static void gemm_case(cs *t, kind_of p, size_t m, size_t n, size_t k, int kind, size_t group) {
  static const size_t groups[] = {64, 128, 1024, 192};
  size_t kp = pf_round_up(k, product_info[p].kblk), ldy = n + cs_u32(t) % 3;
  pf_gemm g = {.m = m, .n = n, .k = k, .kp = kp, .ldy = ldy, .group = groups[cs_u32(t) % 4]};
  g.group = group ? group : g.group;
  float *x = cs_in(t, 0, m * k, kind), *got, *want;
  weights(t, p, &g, kind);
  g.bias = cs_u32(t) % 2 ? cs_in(t, 5, n, kind == CS_SMALL ? CS_SIGNS : kind) : NULL;
  g.work = cs_guarded(t, 8, PF_GEMM_WORK);
  /* What a case leaves, the next ones meet. Not every time: "rep stos" is slow under emulators. */
  if (t->cases % 64 == 0)
    memset(g.work, 0xff, PF_GEMM_WORK);
  size_t extent = (m - 1) * ldy + n;
  if (cs_leave_out(t, extent))
    return;
  cs_out(t, 0, extent, &got, &want);
  if (!cs_recall(t, want, extent)) {
    operands(t, p, t->ref, &g, x, 1);
    g.y = want;
    multiply(t->ref, p, &g);
    cs_keep(t, want, extent);
  }
  operands(t, p, t->v, &g, x, 2);
  g.y = got;
  multiply(t->v, p, &g);
  cs_cmp(t, got, want, extent, "m %zu, n %zu, k %zu, group %zu, kind %d, bias %d", m, n, k, g.group,
         kind, g.bias != NULL);
}

static void one_gemm(cs *t, kind_of p, size_t m, size_t n, size_t k, int kind) {
  gemm_case(t, p, m, n, k, kind, 0);
}

static void all_gemms(cs *t, kind_of p) {
  static const size_t ns[] = {1, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 65};
  static const size_t ks[] = {1, 31, 32, 33, 64, 90, 160};
  static const size_t ms[] = {10, 11, 12, 13, 14, 15, 16, 17, 24, 25, 31, 32, 33, 47, 65};
  for (size_t m = 1; m <= 9 && !t->failed; m++)
    for (size_t i = 0; i < sizeof ns / sizeof *ns; i++)
      for (size_t j = 0; j < sizeof ks / sizeof *ks; j++)
        one_gemm(t, p, m, ns[i], ks[j], (int)(cs_u32(t) % CS_KINDS));
  for (size_t i = 0; i < sizeof ms / sizeof *ms && !t->failed; i++)
    for (size_t j = 0; j < sizeof ns / sizeof *ns; j += 3)
      one_gemm(t, p, ms[i], ns[j], ks[(i + j) % 7], (int)(cs_u32(t) % CS_KINDS));
  for (int kind = 0; kind < CS_KINDS && !t->failed; kind++) {
    one_gemm(t, p, 5, 40, 576, kind);
    one_gemm(t, p, 2, 20, 2200, kind);
    one_gemm(t, p, 37, 33, 2112, kind);
  }
  /* beyond the sizes that kernels cut at: rows, columns, K */
  one_gemm(t, p, 260, 50, 96, CS_WIDE);
  one_gemm(t, p, 33, 1100, 64, CS_UNIT);
  one_gemm(t, p, 37, 33, 4700, CS_WIDE);
  if (!cs_extra(t))
    return;
  for (size_t m = 1; m <= 40; m++)
    one_gemm(t, p, m, 33, m % 2 ? 64 : 90, CS_SMALL);
}

/* Beyond what a cache holds, where kernels go through a product in another order: groups of rows
 * and of columns. Once, and not part of the golden hash. */
static void large_gemms(cs *t, kind_of p) {
  static const struct {
    size_t m, n, k;
  } large[N_PRODUCTS] = {[X3] = {130, 390, 1400},
                         [BF16] = {260, 70, 2200},
                         [F32] = {130, 50, 600},
                         [S8] = {260, 70, 4400}};
  if (tu_tier("small") || !cs_extra(t))
    return;
  one_gemm(t, p, large[p].m, large[p].n, large[p].k, CS_UNIT);
  one_gemm(t, p, 17, 1600, 40, CS_UNIT);
  for (size_t m = 1; m <= 4 && p == S8; m++) { /* groups without end */
    one_gemm(t, p, m, 17, 12416, CS_UNIT);
    gemm_case(t, p, m, 49, 20544, CS_UNIT, 64); /* more than the work of few rows holds */
  }
}

void cs_gemm_x3_bf16(cs *t) {
  all_gemms(t, X3);
  large_gemms(t, X3);
}

void cs_gemm_bf16(cs *t) {
  all_gemms(t, BF16);
  large_gemms(t, BF16);
}

void cs_gemm_f32(cs *t) {
  all_gemms(t, F32);
  large_gemms(t, F32);
}

void cs_gemm_s8(cs *t) {
  all_gemms(t, S8);
  large_gemms(t, S8);
}

/* Operands are seen through the product that reads them: y = a row times the unit vectors gives
 * every value back (x3: hi + (mid + lo)); special values spread over the row, as they do there. */
static void operand_rows(cs *t, kind_of p) {
  for (size_t s = 0; s < cs_n_sizes && !t->failed; s++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_gemm(t, p, 1 + s % 3, 17, cs_sizes[s], kind);
  if (!cs_extra(t))
    return;
  for (size_t i = 0; i < 60; i++)
    one_gemm(t, p, 1 + i % 5, 17, 1, CS_POINTS);
  for (size_t s = 0; s < cs_n_sizes; s++)
    one_gemm(t, p, 1 + s % 3, 17, cs_sizes[s], CS_TIES);
}

void cs_operand_x3_bf16(cs *t) {
  operand_rows(t, X3);
}

void cs_operand_bf16(cs *t) {
  operand_rows(t, BF16);
}

void cs_operand_f32(cs *t) {
  operand_rows(t, F32);
}

void cs_operand_s8(cs *t) {
  operand_rows(t, S8);
}

static void one_quant(cs *t, size_t n, int kind) {
  float *x = cs_in(t, 0, n, kind);
  int8_t *got = cs_guarded(t, 1, n), *want = cs_guarded(t, 2, n);
  float a = t->ref->quant_s8(n, x, want), b = t->v->quant_s8(n, x, got);
  cs_cmp(t, &b, &a, 1, "n %zu, kind %d, scale", n, kind);
  for (size_t i = 0; i < n; i++)
    cs_cmp_u(t, (uint8_t)got[i], (uint8_t)want[i], "n %zu, kind %d, value %zu", n, kind, i);
}

void cs_quant_s8(cs *t) {
  for (size_t s = 0; s < cs_n_sizes; s++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_quant(t, cs_sizes[s], kind);
  for (size_t s = 0; s < cs_n_sizes && (s || cs_extra(t)); s++)
    one_quant(t, cs_sizes[s], CS_TIES);
}

static void one_round(cs *t, size_t n, int kind) {
  float *x = cs_in(t, 0, n, kind), *got, *want;
  cs_out(t, 0, n, &got, &want);
  t->ref->round_bf16(n, x, want);
  t->v->round_bf16(n, x, got);
  cs_cmp(t, got, want, n, "n %zu, kind %d", n, kind);
  memcpy(got, x, n * sizeof *x);
  t->v->round_bf16(n, got, got);
  cs_cmp(t, got, want, n, "n %zu, kind %d, in place", n, kind);
}

void cs_round_bf16(cs *t) {
  for (size_t s = 0; s < cs_n_sizes; s++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_round(t, cs_sizes[s], kind);
  for (size_t s = 0; s < cs_n_sizes && (s || cs_extra(t)); s++)
    one_round(t, cs_sizes[s], CS_POINTS);
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
    _Alignas(64) float a[16 * KP] = {0};
    float w[KP] = {0}, y;
    float *packed = pack_f32(&t, 4, 1, 0, KP, kind);
    for (size_t k = 0; k < K; k++)
      packed[k * 16] = w[k] = cs_value(&t, kind), a[k] = cs_value(&t, kind);
    pf_gemm g = {.m = 1, .n = 1, .k = K, .kp = KP, .ldy = 1, .a = a, .w = packed, .y = &y};
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

static double best_time(const pf_simd *s, kind_of p, const pf_gemm *g) {
  double best = 1e30, total = 0;
  for (int i = 0; i < 50 && total < 1.0; i++) {
    double t0 = seconds();
    multiply(s, p, g);
    double dt = seconds() - t0;
    total += dt;
    best = dt < best ? dt : best;
  }
  return best;
}

static void time_gemm(const pf_simd *s, const char *isa, kind_of p, size_t m, size_t n, size_t k) {
  enum { GROUP = 512 };
  size_t bytes = n * k * product_info[p].bytes, groups = pf_s8_groups(k, GROUP);
  float *x = pf_calloc(k, sizeof *x), *y = pf_calloc(m * n, sizeof *y),
        *ws = pf_calloc(n * groups, sizeof *ws);
  void *a = pf_calloc(pf_operand_bytes(product_info[p].parts, m, k), 1), *w = pf_calloc(bytes, 1),
       *work = pf_alloc(PF_GEMM_WORK, 1);
  if (a && y && w && x && ws && work) {
    for (size_t i = 0; i < k; i++)
      x[i] = (float)(i % 7) - 3;
    memset(w, 0x3f, bytes);
    pf_gemm g = {.m = m, .n = n, .k = k, .kp = k, .ldy = n, .a = a, .w = w, .y = y};
    g.ws = ws;
    g.work = work;
    g.wsum = (const int32_t *)(const void *)ws;
    g.group = GROUP;
    uint64_t env = pf_fp_enter();
    for (size_t i = 0; i < m; i++)
      operand(s, p, &g, i, x);
    double best = best_time(s, p, &g);
    pf_fp_leave(env);
    double fma = (double)m * (double)n * (double)k * (double)product_info[p].parts;
    printf("%-13s %-10s m %3zu n %zu k %zu: %8.1f GFLOP/s (fma x 2), weights at %6.2f GB/s\n",
           product_info[p].name, isa, m, n, k, 2e-9 * fma / best, 1e-9 * (double)bytes / best);
  }
  pf_free(x);
  pf_free(a);
  pf_free(y);
  pf_free(w);
  pf_free(ws);
  pf_free(work);
}

void cs_bench(const pf_simd *s, const char *isa) {
  int scalar = !strcmp(isa, "scalar");
  static const size_t ms[] = {1, 4, 16, 64, 512};
  for (int p = 0; p < N_PRODUCTS; p++)
    for (size_t i = 0; i < sizeof ms / sizeof *ms && (!scalar || i < 2); i++)
      time_gemm(s, isa, (kind_of)p, ms[i], scalar ? 64 : 9216, 2304);
}
