/* SPDX-License-Identifier: Apache-2.0
 * Where a forward pass spends its time: the table of kernels is exchanged for one whose entries
 * read a clock around the real ones. The model does not know. */
#include "config.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "bench/model.h"
#include "model/kv.h"

/* P(name, result, type of the result, parameters, arguments) */
#define OPERAND (size_t row, size_t k, size_t kp, const float *x, void *a), (row, k, kp, x, a)
#define GEMM    (const pf_gemm *g), (g)
#define ATTN    (const pf_attn *a), (a)
#define UNARY   (size_t n, const float *x, float *y), (n, x, y)
#define BINARY  (size_t n, const float *a, const float *b, float *y), (n, a, b, y)
#define VOIDS(P)                                                                                   \
  P(operand_x3_bf16, OPERAND)                                                                      \
  P(gemm_x3_bf16, GEMM)                                                                            \
  P(operand_bf16, OPERAND)                                                                         \
  P(gemm_bf16, GEMM)                                                                               \
  P(operand_f32, OPERAND)                                                                          \
  P(gemm_f32, GEMM)                                                                                \
  P(operand_s8, (size_t row, size_t k, size_t kp, size_t group, const float *x, void *a),          \
    (row, k, kp, group, x, a))                                                                     \
  P(gemm_s8, GEMM)                                                                                 \
  P(round_bf16, UNARY)                                                                             \
  P(rms_apply, (size_t d, const float *x, float scale, float *y), (d, x, scale, y))                \
  P(rms_weight, (size_t d, const float *x, const float *w, int one, float *y), (d, x, w, one, y))  \
  P(rope, (size_t d, const float *x, const float *c, const float *s, float *y), (d, x, c, s, y))   \
  P(qk, ATTN)                                                                                      \
  P(qk_bf16, ATTN)                                                                                 \
  P(softcap, (size_t n, float *x, float cap), (n, x, cap))                                         \
  P(pv, ATTN)                                                                                      \
  P(pv_bf16, ATTN)                                                                                 \
  P(gelu_tanh, UNARY)                                                                              \
  P(silu, UNARY)                                                                                   \
  P(mul, BINARY)                                                                                   \
  P(add, BINARY)                                                                                   \
  P(scale, (size_t n, const float *x, float f, float *y), (n, x, f, y))                            \
  P(vtanh, UNARY)
#define VALUES(P)                                                                                  \
  P(float, rms_scale, (size_t d, const float *x, float eps), (d, x, eps))                          \
  P(int, softmax, (size_t nblk, const uint32_t *mask, float *s), (nblk, mask, s))                  \
  P(int, finite, (size_t n, const float *x), (n, x))

enum {
#define ID(name, ...)             AT_##name,
#define ID_VALUE(type, name, ...) AT_##name,
  VOIDS(ID) VALUES(ID_VALUE) N_OPS
};

static const char *const op_names[N_OPS] = {
#define NAME(name, ...)             #name,
#define NAME_VALUE(type, name, ...) #name,
    VOIDS(NAME) VALUES(NAME_VALUE)};

static const pf_simd *real; /* one context at a time */
static pf_simd timed;
static _Atomic uint64_t spent[N_OPS], calls[N_OPS]; /* nanoseconds */

static uint64_t nanoseconds(void) {
  return (uint64_t)(1e9 * pf_seconds());
}

static void count(int op, uint64_t since) {
  atomic_fetch_add_explicit(&spent[op], nanoseconds() - since, memory_order_relaxed);
  atomic_fetch_add_explicit(&calls[op], 1, memory_order_relaxed);
}

#define WRAP(name, ...) WRAP_(name, __VA_ARGS__)
#define WRAP_(name, params, args)                                                                  \
  static void timed_##name params {                                                                \
    uint64_t since = nanoseconds();                                                                \
    real->name args;                                                                               \
    count(AT_##name, since);                                                                       \
  }
#define WRAP_VALUE(type, name, params, args)                                                       \
  static type timed_##name params {                                                                \
    uint64_t since = nanoseconds();                                                                \
    type v = real->name args;                                                                      \
    count(AT_##name, since);                                                                       \
    return v;                                                                                      \
  }
VOIDS(WRAP)
VALUES(WRAP_VALUE)

void pf_profile_start(pf_ctx *c) {
  real = c->simd;
  timed = *real;
#define SET(name, ...)             timed.name = timed_##name;
#define SET_VALUE(type, name, ...) timed.name = timed_##name;
  VOIDS(SET)
  VALUES(SET_VALUE)
  for (int i = 0; i < N_OPS; i++)
    spent[i] = calls[i] = 0;
  c->simd = &timed;
}

void pf_profile_print(pf_ctx *c, const char *title, double seconds) {
  double all = seconds * c->threads, left = all;
  c->simd = real;
  fprintf(stderr, "\n| %s | ms of a thread | share | calls |\n|---|---:|---:|---:|\n", title);
  for (int i = 0; i < N_OPS; i++) {
    double s = 1e-9 * (double)spent[i];
    left -= s;
    if (calls[i])
      fprintf(stderr, "| %s | %.2f | %.1f %% | %llu |\n", op_names[i], 1e3 * s / c->threads,
              100 * s / all, (unsigned long long)calls[i]);
  }
  fprintf(stderr, "| waiting, copies, the rest | %.2f | %.1f %% | |\n| together | %.2f | | |\n\n",
          1e3 * left / c->threads, 100 * left / all, 1e3 * seconds);
}
