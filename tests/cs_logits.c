/* SPDX-License-Identifier: Apache-2.0
 * finite, argmax, logsumexp, kl. */
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

/* Rows together have the bits they have alone. They are not hashed: the golden value is that of
 * single rows. */
static void kl_together(cs *t, size_t n, const float *p, const float *q, const double lse[2]) {
  enum { ROWS = 11 };
  const float *rows[ROWS];
  double lse_q[ROWS], got[ROWS], want;
  pf_sha256 *hash = t->hash;
  t->hash = NULL;
  for (int r = 0; r < ROWS; r++) {
    rows[r] = r % 3 ? q : p;
    lse_q[r] = lse[r % 3 != 0] + 0.25 * r;
  }
  t->v->kl(n, p, lse[0], ROWS, rows, lse_q, got);
  for (int r = 0; r < ROWS; r++) {
    t->ref->kl(n, p, lse[0], 1, &rows[r], &lse_q[r], &want);
    cs_cmp_d(t, got[r], want, "n %zu, row %d of %d", n, r, ROWS);
  }
  t->hash = hash;
}

void cs_kl(cs *t) {
  for (size_t i = 0; i < cs_n_sizes + 2; i++)
    for (int kind = 0; kind < CS_KINDS + 2; kind++) {
      size_t n = i < cs_n_sizes ? cs_sizes[i] : 1000 + 37 * i;
      float *p = logits(t, 0, n, kind), *q = logits(t, 1, n, kind);
      double lse[2] = {t->ref->logsumexp(n, p), t->ref->logsumexp(n, q)}, got, want;
      t->v->kl(n, p, lse[0], 1, (const float *[]){q}, &lse[1], &got);
      t->ref->kl(n, p, lse[0], 1, (const float *[]){q}, &lse[1], &want);
      cs_cmp_d(t, got, want, "n %zu, kind %d", n, kind);
      kl_together(t, n, p, q, lse);
    }
}
