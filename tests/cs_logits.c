/* SPDX-License-Identifier: Apache-2.0
 * finite, argmax, logsumexp, kl, jsd. */
#include <string.h>

#include "tests/cs.h"

void cs_finite(cs *t) {
  static const uint32_t bad[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xff800001u};
  for (size_t i = 0; i < cs_n_sizes; i++) {
    size_t n = cs_sizes[i];
    float *x = cs_in(t, 0, n, CS_FINITE);
    cs_cmp_u(t, (uint64_t)t->v->finite(n, x), 1, "all finite, n %zu", n);
    for (size_t at = 0; at < n; at++) {
      float keep = x[at];
      x[at] = pf_f32_of_bits(bad[at % 4]);
      cs_cmp_u(t, (uint64_t)t->v->finite(n, x), (uint64_t)t->ref->finite(n, x), "n %zu, at %zu", n,
               at);
      x[at] = keep;
    }
  }
}

/* Few different values, so that ties are common. */
static void coarse(cs *t, float *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    x[i] = (float)(cs_u32(t) % 9) - 4.0f;
}

/* Two equal values of a long row, before and behind where an index outgrows 16 bits. */
static void argmax_far(cs *t) {
  enum { N = 140003 };
  static const size_t at[] = {0, 9, 65535, 65536, 65541, 131072, 131080, N - 1};
  enum { N_AT = sizeof at / sizeof *at };
  float *x = cs_in(t, 0, N, CS_UNIT), s, r;
  for (size_t i = 0; i < N_AT * N_AT; i++) {
    float *a = &x[at[i / N_AT]], *b = &x[at[i % N_AT]], keep_a = *a, keep_b = *b;
    *a = *b = 5;
    size_t want = t->ref->argmax(N, x, &r), got = t->v->argmax(N, x, &s);
    *a = keep_a;
    *b = keep_b;
    cs_cmp_u(t, got, want, "5 at %zu and at %zu", at[i / N_AT], at[i % N_AT]);
    cs_cmp(t, &s, &r, 1, "second, 5 at %zu and at %zu", at[i / N_AT], at[i % N_AT]);
  }
}

void cs_argmax(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind <= CS_KINDS + 1; kind++) {
      size_t n = cs_sizes[i];
      float *x = cs_in(t, 0, n, kind < CS_KINDS ? kind : CS_UNIT), s, r;
      if (kind == CS_KINDS)
        coarse(t, x, n);
      if (kind == CS_KINDS + 1)
        for (size_t j = 0; j < n; j++)
          x[j] = pf_f32_of_bits(0xff800000u);
      size_t want = t->ref->argmax(n, x, &r), got = t->v->argmax(n, x, &s);
      cs_cmp_u(t, got, want, "n %zu, kind %d", n, kind);
      cs_cmp(t, &s, &r, 1, "second, n %zu, kind %d", n, kind);
    }
  if (cs_extra(t))
    argmax_far(t);
}

static float *logits(cs *t, int slot, size_t n, int kind) {
  float *x = cs_in(t, slot, n, kind < CS_KINDS ? kind : CS_UNIT);
  for (size_t i = 0; i < n && kind >= CS_KINDS; i++) {
    x[i] *= 15;
    if (kind == CS_KINDS + 1 && cs_u32(t) % 4 == 0)
      x[i] = pf_f32_of_bits(0xff800000u);
  }
  return x;
}

void cs_logsumexp(cs *t) {
  for (size_t i = 0; i < cs_n_sizes + 2; i++)
    for (int kind = 0; kind < CS_KINDS + 2; kind++) {
      size_t n = i < cs_n_sizes ? cs_sizes[i] : 1000 + 37 * i;
      float *x = logits(t, 0, n, kind);
      double want = t->ref->logsumexp(n, x), got = t->v->logsumexp(n, x);
      cs_cmp_d(t, got, want, "n %zu, kind %d", n, kind);
    }
}

/* p, q and their logsumexp. */
typedef struct pair {
  size_t n;
  const float *p, *q;
  double lse_p, lse_q;
} pair;

/* The values of m rows q, then their second values (zero where the operation has one). */
enum { ROWS = 11 };
typedef void (*divergence)(const pf_simd *f, const pair *x, size_t m, const float *const *q,
                           const double *lse_q, double out[2 * ROWS]);

static void kl(const pf_simd *f, const pair *x, size_t m, const float *const *q,
               const double *lse_q, double out[2 * ROWS]) {
  f->kl(x->n, x->p, x->lse_p, m, q, lse_q, out);
  memset(out + m, 0, m * sizeof *out);
}

static void jsd(const pf_simd *f, const pair *x, size_t m, const float *const *q,
                const double *lse_q, double out[2 * ROWS]) {
  f->jsd(x->n, x->p, x->lse_p, m, q, lse_q, out, out + m);
}

/* Rows together have the bits they have alone. They are not hashed: the golden value is that of
 * single rows. */
static void together(cs *t, const pair *x, divergence f) {
  const float *rows[ROWS];
  double lse_q[ROWS], got[2 * ROWS], want[2 * ROWS];
  pf_sha256 *hash = t->hash;
  t->hash = NULL;
  for (int r = 0; r < ROWS; r++) {
    rows[r] = r % 3 ? x->q : x->p;
    lse_q[r] = (r % 3 ? x->lse_q : x->lse_p) + 0.25 * r;
  }
  f(t->v, x, ROWS, rows, lse_q, got);
  for (int r = 0; r < ROWS; r++) {
    f(t->ref, x, 1, &rows[r], &lse_q[r], want);
    cs_cmp_d(t, got[r], want[0], "n %zu, row %d of %d", x->n, r, ROWS);
    cs_cmp_d(t, got[ROWS + r], want[1], "n %zu, row %d of %d, second value", x->n, r, ROWS);
  }
  t->hash = hash;
}

/* n_values: how many the operation gives for a row. */
static void divergences(cs *t, divergence f, int n_values) {
  for (size_t i = 0; i < cs_n_sizes + 2; i++)
    for (int kind = 0; kind < CS_KINDS + 2; kind++) {
      size_t n = i < cs_n_sizes ? cs_sizes[i] : 1000 + 37 * i;
      pair x = {.n = n, .p = logits(t, 0, n, kind), .q = logits(t, 1, n, kind)};
      double got[2 * ROWS], want[2 * ROWS];
      x.lse_p = t->ref->logsumexp(n, x.p);
      x.lse_q = t->ref->logsumexp(n, x.q);
      f(t->v, &x, 1, &x.q, &x.lse_q, got);
      f(t->ref, &x, 1, &x.q, &x.lse_q, want);
      for (int k = 0; k < n_values; k++)
        cs_cmp_d(t, got[k], want[k], "n %zu, kind %d, value %d", n, kind, k);
      together(t, &x, f);
    }
  if (!cs_extra(t))
    return;
  /* Exponentials about the limit below which they are +0. */
  for (size_t i = 0; i < cs_n_sizes; i++) {
    size_t n = cs_sizes[i];
    pair x = {n, cs_in(t, 0, n, CS_UNIT), cs_in(t, 1, n, CS_UNIT), 705 + (double)(i % 5), 706};
    double got[2 * ROWS], want[2 * ROWS];
    f(t->v, &x, 1, &x.q, &x.lse_q, got);
    f(t->ref, &x, 1, &x.q, &x.lse_q, want);
    for (int k = 0; k < n_values; k++)
      cs_cmp_d(t, got[k], want[k], "n %zu, lse %g, value %d", n, x.lse_p, k);
  }
}

void cs_kl(cs *t) {
  divergences(t, kl, 1);
}

void cs_jsd(cs *t) {
  divergences(t, jsd, 2);
}
