/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "qk_bf16", "pv_bf16" with bfmlalb and bfmlalt: a block of K is 32 outputs over d, V
 * over the blocks' keys is d outputs over 32 keys each, both packed as weights are, so the tiles of
 * products serve. Up to 32 queries go through all blocks; their operands are made once, in work:
 * [query][d], and of pv [query][block][32 keys], masked ones +0. Blocks that none of the queries
 * sees are left out. */
#include <string.h>

#include "simd/arm/bf16.h"
#include "simd/vec/attn.h"
#include "simd/vec/bf16.h"

enum { ROWS = 32, TILE = 8, PANEL = PF_KBLK * PF_LANES * 2 /* bytes of 32 k */ };
_Static_assert(sizeof(elem) * ROWS * PF_LIVE * PF_KBLK <= PF_ATTN_WORK, "operands of pv fit");
_Static_assert(sizeof(elem) * ROWS * 4096 <= PF_ATTN_WORK, "operands of qk fit");

/* Queries i..i+n-1, and the blocks that they see. */
typedef struct pass {
  const pf_attn *a;
  size_t i, n, lda; /* lda: elements between the operands of two queries */
  pf_live live;
} pass;

static const elem *operands_of(const pass *s, size_t r) {
  return (const elem *)s->a->work + r * s->lda;
}

/* A tile of queries from r on, over block (qk) or panel (pv) x of the pass. */
typedef void tile_fn(const pass *s, size_t r, size_t x);

static void tiles(const pass *s, tile_fn *const *fns, size_t x) {
  for (size_t r = 0, rows; r < s->n; r += rows) {
    rows = pf_even_part(s->n - r, TILE);
    fns[rows - 1](s, r, x);
  }
}

#define PF_TILE_FN(op, R)                                                                          \
  static void op##_##R(const pass *s, size_t r, size_t x) {                                        \
    op##_tile(s, r, x, R);                                                                         \
  }
#define PF_TILE_FNS(op)                                                                            \
  PF_TILE_FN(op, 1)                                                                                \
  PF_TILE_FN(op, 2)                                                                                \
  PF_TILE_FN(op, 3)                                                                                \
  PF_TILE_FN(op, 4)                                                                                \
  PF_TILE_FN(op, 5)                                                                                \
  PF_TILE_FN(op, 6)                                                                                \
  PF_TILE_FN(op, 7)                                                                                \
  PF_TILE_FN(op, 8)                                                                                \
  static tile_fn *const op##_fns[TILE] = {op##_1, op##_2, op##_3, op##_4,                          \
                                          op##_5, op##_6, op##_7, op##_8};

/* Adds 32 k of one panel to the sums; fetch: its counterpart in the block to come, or NULL. */
PF_INLINE void panel_step(sums c, const elem *a, size_t lda, const char *w, const char *fetch,
                          const int R) {
  const int V = PF_WIDTH(R);
  if (fetch)
    pf_prefetch(fetch, PANEL);
  for (size_t v = 0; v < 4; v += (size_t)V)
    block(c, v, a, lda, (const uint8_t *)w + 16 * v, R, 1, V, 0);
}

/* ---- qk -------------------------------------------------------------------------------------- */

PF_INLINE void qk_tile(const pass *s, size_t r, size_t j, const int R) {
  const pf_attn *a = s->a;
  size_t b = s->live.at[j], steps = s->lda / PF_KBLK;
  const elem *q = operands_of(s, r);
  for (size_t c = 0; c < 2; c++) {
    sums acc = {0};
    for (size_t k = 0, off = c * steps * PANEL; k < steps; k++, off += PANEL)
      panel_step(acc, q + k * PF_KBLK, s->lda, s->live.blk[j] + off,
                 s->i + r == 0 ? s->live.blk[j + 1] + off : NULL, R);
    for (size_t x = 0; x < (size_t)R; x++) {
      v16 y = {acc[x][0], acc[x][1], acc[x][2], acc[x][3]};
      size_t i = s->i + r + x;
      if (a->mask[i][b])
        v_store(a->s + i * a->lds + PF_KBLK * b + c * PF_LANES,
                v_mul(v_add(y, v_zero()), v_set1(a->scale)));
    }
  }
}
PF_TILE_FNS(qk)

static void make_queries(const pass *s) {
  for (size_t r = 0; r < s->n; r++)
    for (size_t k = 0; k < s->lda; k += PF_LANES)
      put_halves((elem *)s->a->work + r * s->lda + k, v_load_k(s->a->d, s->a->q[s->i + r], k));
}

static void qk_pass(pass *s) {
  const pf_attn *a = s->a;
  s->lda = (a->d + PF_KBLK - 1) / PF_KBLK * PF_KBLK;
  make_queries(s);
  for (size_t b = 0; b < a->nblk;) {
    b = pf_find_live(&s->live, a, s->i, s->n, a->kblk, b);
    for (size_t j = 0; j < s->live.n; j++)
      tiles(s, qk_fns, j);
  }
}

/* ---- pv -------------------------------------------------------------------------------------- */

static v16 take(const float *y, size_t left) {
  return left >= PF_LANES ? v_load(y) : v_loadn(y, left);
}

static void give(float *y, v16 x, size_t left) {
  if (left >= PF_LANES)
    v_store(y, x);
  else
    v_storen(y, x, left);
}

PF_INLINE void pv_tile(const pass *s, size_t r, size_t c, const int R) {
  const pf_attn *a = s->a;
  size_t left = a->d - c * PF_LANES;
  const elem *p = operands_of(s, r);
  sums acc;
  for (size_t x = 0; x < (size_t)R; x++) {
    v16 y = take(a->y[s->i + r + x] + c * PF_LANES, left);
    acc[x][0] = y.a;
    acc[x][1] = y.b;
    acc[x][2] = y.c;
    acc[x][3] = y.d;
  }
  for (size_t j = 0; j < s->live.n; j++)
    panel_step(acc, p + j * PF_KBLK, s->lda, s->live.blk[j] + c * PANEL,
               s->i + r == 0 ? s->live.blk[j + 1] + c * PANEL : NULL, R);
  for (size_t x = 0; x < (size_t)R; x++)
    give(a->y[s->i + r + x] + c * PF_LANES, (v16){acc[x][0], acc[x][1], acc[x][2], acc[x][3]},
         left);
}
PF_TILE_FNS(pv)

static void make_probabilities(const pass *s) {
  const pf_attn *a = s->a;
  for (size_t r = 0; r < s->n; r++) {
    elem *to = (elem *)a->work + r * s->lda;
    const float *p = a->s + (s->i + r) * a->lds;
    for (size_t j = 0; j < s->live.n; j++, to += PF_KBLK) {
      uint32_t bits = a->mask[s->i + r][s->live.at[j]];
      const float *x = p + s->live.at[j] * PF_KBLK;
      put_halves(to, v_select(m_bits(bits), v_load(x), v_zero()));
      put_halves(to + 16, v_select(m_bits(bits >> 16), v_load(x + 16), v_zero()));
    }
  }
}

static void pv_pass(pass *s) {
  const pf_attn *a = s->a;
  for (size_t r = 0; r < s->n; r++)
    memset(a->y[s->i + r], 0, a->d * sizeof(float));
  for (size_t b = 0; b < a->nblk;) {
    b = pf_find_live(&s->live, a, s->i, s->n, a->vblk, b);
    s->lda = s->live.n * PF_KBLK;
    make_probabilities(s);
    for (size_t c = 0; s->live.n && c * PF_LANES < a->d; c++)
      tiles(s, pv_fns, c);
  }
  for (size_t r = 0; r < s->n; r++)
    if (pv_finish(a->d, a->y[s->i + r])) /* +0 times a masked NaN or Inf? */
      pv_exact(a, s->i + r, 1);
}

/* ---- queries --------------------------------------------------------------------------------- */

static void for_queries(const pf_attn *a, void (*fn)(pass *s)) {
  for (size_t i = 0; i < a->nq; i += ROWS) {
    pass s;
    s.a = a;
    s.i = i;
    s.n = a->nq - i < ROWS ? a->nq - i : ROWS;
    fn(&s);
  }
}

void pf_qk_bf16_neonbf16(const pf_attn *a) {
  for_queries(a, qk_pass);
}

void pf_pv_bf16_neonbf16(const pf_attn *a) {
  for_queries(a, pv_pass);
}
