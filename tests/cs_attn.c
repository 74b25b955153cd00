/* SPDX-License-Identifier: Apache-2.0
 * qk, softmax, pv, and qk and pv over blocks of bf16. */
#include <string.h>

#include "base/mem.h"
#include "tests/cs.h"

enum { MAX_BLOCKS = 4, MAX_NQ = 70, LONG = 100 };
static const size_t nqs[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17};
enum { N_NQS = sizeof nqs / sizeof *nqs };

/* Which keys a query sees of a block: all, none, some, few, those up to a position, those from one.
 */
static uint32_t some_mask(cs *t) {
  uint32_t u = cs_u32(t), at = cs_u32(t) % 32;
  const uint32_t masks[] = {~0u, ~0u, 0, u, u & cs_u32(t), ~0u >> at, ~0u << at};
  return masks[cs_u32(t) % 7];
}

/* Pointers and guarded memory of one case. Rows of q and y stand in the opposite order. */
typedef struct attn_case {
  pf_attn a;
  const float *q[MAX_NQ];
  const void *blk[LONG];
  const uint32_t *mask[MAX_NQ];
  float *y[MAX_NQ];
  size_t ldy;
  bool halves; /* bf16 blocks, and operands that are bf16 */
} attn_case;

/* pattern 0: every query has its own masks; 1: they see everything; 2: causal, a query sees one key
 * more than the one before it; 3: of each block they see the same one key, or it and the next. */
static void make_masks(cs *t, attn_case *c, unsigned pattern) {
  size_t nblk = c->a.nblk, first = cs_u32(t) % (nblk * PF_KBLK);
  uint32_t *m = cs_guarded(t, 11, c->a.nq * nblk * sizeof *m);
  for (size_t i = 0; i < c->a.nq; i++)
    for (size_t b = 0; b < nblk; b++) {
      uint32_t alone = (b % 2 ? 3u : 1u) << (first + 7 * b) % 32;
      size_t keys = first + i + 1, before = b * PF_KBLK;
      uint32_t causal = keys <= before        ? 0
                        : keys - before >= 32 ? ~0u
                                              : (1u << (keys - before)) - 1;
      m[i * nblk + b] = pattern == 0   ? some_mask(t)
                        : pattern == 1 ? ~0u
                        : pattern == 2 ? causal
                                       : alone;
      c->mask[i] = m + i * nblk;
    }
}

/* A value as the operands of the case hold it. */
static float operand(cs *t, const attn_case *c, int kind) {
  float x = cs_value(t, kind);
  return c->halves ? pf_bf16_to_f32(pf_f32_to_bf16(x)) : x;
}

/* A block of n outputs, a multiple of 16, over k, in the case's layout; of halves +0 beyond k. */
static void *make_block(cs *t, const attn_case *c, int slot, size_t n, size_t k, int kind) {
  if (!c->halves)
    return cs_in(t, slot, n * k, kind);
  size_t kp = pf_round_up(k, PF_KBLK), bytes = n * kp * sizeof(uint16_t);
  uint16_t *w = memset(cs_guarded(t, slot, bytes), 0, bytes);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < k; j++)
      w[pf_packed_bf16(kp, i, j)] = pf_f32_to_bf16(cs_value(t, kind));
  return w;
}

/* What a case multiplies: bf16 or fp32, K or V. */
typedef struct what {
  bool halves, values;
} what;

/* Sizes 0: drawn. Of long rows the blocks are few and come again and again. */
static void make_case(cs *t, attn_case *c, size_t d, what w, size_t nq, size_t nblk, int kind) {
  nq = nq ? nq : nqs[cs_u32(t) % N_NQS];
  nblk = nblk ? nblk : 1 + cs_u32(t) % MAX_BLOCKS;
  *c = (attn_case){.a = {.d = d, .nq = nq, .nblk = nblk, .lds = nblk * PF_KBLK + cs_u32(t) % 3},
                   .ldy = d + cs_u32(t) % 3,
                   .halves = w.halves};
  size_t n = w.values ? pf_round_up(d, PF_LANES) : PF_KBLK, k = w.values ? PF_KBLK : d;
  for (size_t b = 0; b < nblk; b++)
    c->blk[b] = cs_u32(t) % 6 == 0 ? NULL
                : b < MAX_BLOCKS   ? make_block(t, c, 1 + (int)b, n, k, kind)
                                   : c->blk[b % MAX_BLOCKS];
  unsigned pattern = cs_u32(t) % 3;
  make_masks(t, c, kind == CS_ALONE ? 3 : pattern);
  c->a.q = c->q;
  c->a.mask = c->mask;
  c->a.kblk = c->a.vblk = c->blk;
  c->a.y = c->y;
  c->a.work = cs_guarded(t, 10, PF_ATTN_WORK);
}

static void run_qk(const attn_case *c, const pf_simd *s) {
  (c->halves ? s->qk_bf16 : s->qk)(&c->a);
}

static void one_qk(cs *t, size_t d, bool halves, size_t nq, size_t nblk, int kind) {
  attn_case c;
  make_case(t, &c, d, (what){halves, false}, nq, nblk, kind);
  size_t extent = (c.a.nq - 1) * c.a.lds + c.a.nblk * PF_KBLK;
  float *q = cs_guarded(t, 0, c.a.nq * d * sizeof *q), *got, *want;
  for (size_t i = 0; i < c.a.nq * d; i++)
    q[i] = operand(t, &c, kind);
  for (size_t i = 0; i < c.a.nq; i++)
    c.q[i] = q + (c.a.nq - 1 - i) * d;
  c.a.scale = cs_value(t, CS_UNIT);
  cs_out(t, 0, extent, &got, &want);
  c.a.s = want;
  if (!cs_recall(t, want, extent)) {
    run_qk(&c, t->ref);
    cs_keep(t, want, extent);
  }
  c.a.s = got;
  run_qk(&c, t->v);
  cs_cmp(t, got, want, extent, "d %zu, queries %zu, blocks %zu, kind %d", d, c.a.nq, c.a.nblk,
         kind);
}

/* -0 that flushing makes does not survive the end of a sum; blocks of which little is seen. */
static void small_sums(cs *t, bool halves, void (*one)(cs *, size_t, bool, size_t, size_t, int)) {
  for (size_t nq = 1; nq <= 40 && (nq > 1 || cs_extra(t)); nq++)
    one(t, 24 + nq % 4 * 16, halves, nq, 2 + nq % 3, CS_SMALL);
  for (size_t i = 0; i < 60 && t->place; i++)
    one(t, 20, halves, 1 + i % 7, 4, CS_ALONE);
}

void cs_qk(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_qk(t, cs_sizes[i], false, 0, 0, kind);
  small_sums(t, false, one_qk);
}

void cs_qk_bf16(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_qk(t, cs_sizes[i], true, 0, 0, kind);
  for (int kind = 0; kind < CS_KINDS; kind++) {
    one_qk(t, 33, true, 50, 0, kind);
    one_qk(t, 5, true, 18, LONG, kind);
  }
  if (!cs_extra(t))
    return;
  one_qk(t, 40, true, 41, 0, CS_UNIT);
  one_qk(t, 40, true, MAX_NQ, 0, CS_UNIT);
  small_sums(t, true, one_qk);
}

/* One row: kind of the scores, share of -inf in 16ths, a value put somewhere (0: none); masks: 0:
 * none, 1: some, 2: nothing is seen. */
static void one_softmax(cs *t, size_t nblk, int kind, unsigned share, uint32_t poison, int masks) {
  float *got, *want;
  size_t n = nblk * PF_KBLK;
  uint32_t *mask = cs_guarded(t, 11, nblk * sizeof *mask);
  cs_out(t, 0, n, &got, &want);
  for (size_t b = 0; b < nblk; b++)
    mask[b] = masks == 1 ? some_mask(t) : 0;
  for (size_t i = 0; i < n; i++) {
    float v = cs_value(t, kind);
    if (kind == CS_UNIT)
      v *= 20;
    want[i] = cs_u32(t) % 16 < share ? pf_f32_of_bits(0xff800000u) : v;
    if (masks && !(mask[i / 32] >> i % 32 & 1) && cs_u32(t) % 4 == 0)
      want[i] = cs_value(t, CS_BITS);
  }
  size_t at = cs_u32(t) % n;
  if (poison)
    want[at] = pf_f32_of_bits(poison);
  memcpy(got, want, n * sizeof *got);
  const uint32_t *m = masks ? mask : NULL;
  int r = t->ref->softmax(nblk, m, want), v = t->v->softmax(nblk, m, got);
  cs_cmp_u(t, (uint64_t)v, (uint64_t)r, "softmax's result, blocks %zu, kind %d", nblk, kind);
  if (!r)
    cs_cmp(t, got, want, n, "blocks %zu, kind %d, -inf %u/16, masks %d", nblk, kind, share, masks);
}

/* Scores about the limit below which exp is +0. */
static void softmax_low(cs *t, size_t nblk) {
  float *got, *want;
  size_t n = nblk * PF_KBLK;
  cs_out(t, 0, n, &got, &want);
  for (size_t i = 0; i < n; i++)
    want[i] = i == n / 3 ? 0.0f : -86.5f + 0.5f * cs_value(t, CS_UNIT);
  memcpy(got, want, n * sizeof *got);
  t->ref->softmax(nblk, NULL, want);
  t->v->softmax(nblk, NULL, got);
  cs_cmp(t, got, want, n, "blocks %zu, scores down to -87.5", nblk);
}

void cs_softmax(cs *t) {
  static const int kinds[] = {CS_UNIT, CS_WIDE, CS_TINY, CS_HUGE, CS_SIGNS, CS_FINITE, CS_BITS};
  static const uint32_t poisons[] = {0x7f800000u, 0x7fc00000u, 0xffc00001u, 0x7f800001u};
  for (size_t nblk = 1; nblk <= 10; nblk++) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
      for (unsigned share = 0; share <= 16; share += 4)
        for (int masks = 0; masks <= 2; masks++)
          one_softmax(t, nblk, kinds[i], share, 0, masks);
    for (size_t i = 0; i < sizeof poisons / sizeof *poisons; i++)
      for (int masks = 0; masks <= 2; masks++)
        one_softmax(t, nblk, CS_UNIT, 2, poisons[i], masks);
  }
  for (size_t nblk = 1; nblk <= 20 && (nblk > 1 || cs_extra(t)); nblk++)
    softmax_low(t, nblk);
}

/* A NaN or an Inf at a few places of V, in keys that some query does not see. */
static void poison_masked(cs *t, attn_case *c) {
  size_t dp = pf_round_up(c->a.d, PF_LANES);
  for (int n = 0; n < 3; n++) {
    size_t b = cs_u32(t) % c->a.nblk, j = cs_u32(t) % PF_KBLK, i = cs_u32(t) % dp;
    const uint32_t *m = c->mask[cs_u32(t) % c->a.nq];
    void *v = (void *)(uintptr_t)c->blk[b];
    float bad = pf_f32_of_bits(n ? 0x7f800000u : 0x7fc00000u);
    if (!v || m[b] >> j & 1)
      continue;
    if (c->halves)
      ((uint16_t *)v)[pf_packed_bf16(PF_KBLK, i, j)] = pf_f32_to_bf16(bad);
    else
      ((float *)v)[pf_packed_f32(PF_KBLK, i, j)] = bad;
  }
}

/* The probability of a masked key is anything. */
static float *make_probabilities(cs *t, const attn_case *c, int kind) {
  size_t extent = (c->a.nq - 1) * c->a.lds + c->a.nblk * PF_KBLK;
  float *p = cs_guarded(t, 0, extent * sizeof *p);
  for (size_t i = 0; i < extent; i++)
    p[i] = operand(t, c, kind);
  for (size_t i = 0; i < c->a.nq; i++)
    for (size_t j = 0; j < c->a.nblk * PF_KBLK; j++)
      if (!(c->mask[i][j / 32] >> j % 32 & 1) && cs_u32(t) % 2)
        p[i * c->a.lds + j] = cs_value(t, CS_BITS);
  return p;
}

static void run_pv(attn_case *c, const pf_simd *s, float *y) {
  for (size_t i = 0; i < c->a.nq; i++)
    c->y[i] = y + (c->a.nq - 1 - i) * c->ldy;
  (c->halves ? s->pv_bf16 : s->pv)(&c->a);
}

static void one_pv(cs *t, size_t d, bool halves, size_t nq, size_t nblk, int kind) {
  attn_case c;
  make_case(t, &c, d, (what){halves, true}, nq, nblk, kind);
  c.a.s = make_probabilities(t, &c, kind);
  if (cs_u32(t) % 4 == 0)
    poison_masked(t, &c);
  size_t extent = (c.a.nq - 1) * c.ldy + d;
  float *got, *want;
  cs_out(t, 0, extent, &got, &want);
  if (!cs_recall(t, want, extent)) {
    run_pv(&c, t->ref, want);
    cs_keep(t, want, extent);
  }
  run_pv(&c, t->v, got);
  cs_cmp(t, got, want, extent, "d %zu, queries %zu, blocks %zu, kind %d", d, c.a.nq, c.a.nblk,
         kind);
}

void cs_pv(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_pv(t, cs_sizes[i], false, 0, 0, kind);
  small_sums(t, false, one_pv);
}

void cs_pv_bf16(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_pv(t, cs_sizes[i], true, 0, 0, kind);
  for (int kind = 0; kind < CS_KINDS; kind++) {
    one_pv(t, 33, true, 50, 0, kind);
    one_pv(t, 20, true, 17, LONG, kind);
    one_pv(t, 17, true, 7, LONG, kind);
  }
  if (!cs_extra(t))
    return;
  for (size_t i = 0; i < 12; i++) { /* one to four panels; some of the rows see most blocks */
    one_pv(t, 16 + i % 4 * 16, true, 7, LONG, CS_UNIT);
    one_pv(t, 17 + i % 4 * 16, true, 41, 0, CS_UNIT);
  }
  one_pv(t, 40, true, MAX_NQ, 0, CS_BITS);
  small_sums(t, true, one_pv);
}
