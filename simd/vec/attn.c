/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "qk", "softmax", "pv". Both products are tiles of rows x panels of 16 lanes (keys in
 * qk, dimensions of the head in pv) that keep the chains of one block of 32 in registers. Blocks of
 * keys are the outer loop: a block stays in the first-level cache while the queries pass, and the
 * first tile of queries fetches what comes next. bf16 blocks (H, "halves") hold pairs of k: what
 * is loaded for an even k is loaded for the next one too, and widened by a shift or an `and`. */
#include <string.h>

#include "simd/vec/attn.h"
#include "simd/vec/vmath.h"

/* Unrolled by name, so that every index is a constant and the arrays become registers. */
#define PF_ROWS(F) F(0) F(1) F(2) F(3) F(4) F(5)
#ifndef PF_FETCH_TO
#define PF_FETCH_TO 2 /* the second-level cache: a block of keys and the queries fill the first */
#endif
enum { MAX_ROWS = 6, MAX_PANELS = 2, PIECES = 8, LINE = 64 };

/* The operands of one block of 32: rows a[r][k], panels w[p]. Meanwhile lines of the
 * next block of keys are fetched into the cache, side by side from eight pieces of it of `piece`
 * bytes: one stream of addresses does not reach the memory's bandwidth (doc/KERNELS.md). */
typedef struct operands {
  const float *a[MAX_ROWS];
  const char *w[MAX_PANELS], *next;
  size_t piece;
} operands;

#define PF_FMA(r, c, at)                                                                           \
  if ((r) < R) {                                                                                   \
    v16 x = v_set1(b->a[r][at]);                                                                   \
    c[r][0] = v_fma(x, w0, c[r][0]);                                                               \
    if (P > 1)                                                                                     \
      c[r][1] = v_fma(x, w1, c[r][1]);                                                             \
  }

/* As many lines as one parity's step over k uses: P; of halves P / 2, one panel's twice. */
PF_INLINE void fetch_lines(const operands *b, size_t k, size_t odd, const int P, const int H) {
  size_t n = H ? k * (size_t)P / 4 : k / 2 * (size_t)P;
  const char *next = b->next + odd * (PIECES / 2) * b->piece;
  __builtin_prefetch(next + n % (PIECES / 2) * b->piece + n / (PIECES / 2) * LINE, 0, PF_FETCH_TO);
  n++;
  if (P > 1 && !H)
    __builtin_prefetch(next + n % (PIECES / 2) * b->piece + n / (PIECES / 2) * LINE, 0,
                       PF_FETCH_TO);
}

/* The chains of k = lo + odd, lo + odd + 2, ... below hi. */
PF_INLINE void chains(v16 c[MAX_ROWS][MAX_PANELS], const operands *b, size_t lo, size_t hi,
                      const size_t odd, const int R, const int P, const int H, const int fetch) {
#define PF_INIT(r) c[r][0] = c[r][1] = v_zero();
  PF_ROWS(PF_INIT)
#undef PF_INIT
#define PF_ROW(r) PF_FMA(r, c, k)
  for (size_t k = lo + odd; k < hi; k += 2) {
    if (fetch)
      fetch_lines(b, k, odd, P, H);
    v16 w0 = lanes_of(b->w[0], k, odd, H), w1 = P > 1 ? lanes_of(b->w[1], k, odd, H) : w0;
    PF_ROWS(PF_ROW)
  }
#undef PF_ROW
}

/* The same for both parities side by side. */
PF_INLINE void chain_pairs(v16 e[MAX_ROWS][MAX_PANELS], v16 o[MAX_ROWS][MAX_PANELS],
                           const operands *b, size_t lo, size_t hi, const int R, const int P,
                           const int H, const int fetch) {
#define PF_INIT(r) e[r][0] = e[r][1] = o[r][0] = o[r][1] = v_zero();
  PF_ROWS(PF_INIT)
#undef PF_INIT
#define PF_EVEN(r) PF_FMA(r, e, k)
#define PF_ODD(r)  PF_FMA(r, o, k + 1)
  size_t k = lo;
  for (; k + 2 <= hi; k += 2) {
    if (fetch) {
      fetch_lines(b, k, 0, P, H);
      fetch_lines(b, k, 1, P, H);
    }
    v16 w0 = lanes_of(b->w[0], k, 0, H), w1 = P > 1 ? lanes_of(b->w[1], k, 0, H) : w0;
    PF_ROWS(PF_EVEN)
    w0 = lanes_of(b->w[0], k + 1, 1, H);
    w1 = P > 1 ? lanes_of(b->w[1], k + 1, 1, H) : w0;
    PF_ROWS(PF_ODD)
  }
  if (k < hi) {
    v16 w0 = lanes_of(b->w[0], k, 0, H), w1 = P > 1 ? lanes_of(b->w[1], k, 0, H) : w0;
    PF_ROWS(PF_EVEN)
  }
#undef PF_ODD
#undef PF_EVEN
}

/* sum[r][p] = E + O over k in [lo, hi), lo even. Few rows keep both chains in registers at once;
 * with more rows the chains run one after the other, so that a loaded vector serves all rows. */
PF_INLINE void block(v16 sum[MAX_ROWS][MAX_PANELS], const operands *b, size_t lo, size_t hi,
                     const int R, const int P, const int H, const int fetch) {
  v16 o[MAX_ROWS][MAX_PANELS];
  if (R <= PF_ATT_PAIRS) {
    chain_pairs(sum, o, b, lo, hi, R, P, H, fetch);
  } else {
    chains(sum, b, lo, hi, 0, R, P, H, fetch);
    chains(o, b, lo, hi, 1, R, P, H, fetch);
  }
#define PF_SUM(r)                                                                                  \
  sum[r][0] = v_add(sum[r][0], o[r][0]);                                                           \
  sum[r][1] = v_add(sum[r][1], o[r][1]);
  PF_ROWS(PF_SUM)
#undef PF_SUM
}

/* Queries i.. of an operation over block b; next: the block that follows, or b itself. */
typedef struct tile {
  const pf_attn *a;
  size_t i, b, next;
} tile;

/* Scores of R queries and P panels of 16 keys from panel c. */
PF_INLINE void qk_tile(const tile *t, size_t c, const int R, const int P, const int H,
                       const int fetch) {
  const pf_attn *a = t->a;
  size_t d = a->d, panel = (H ? (d + PF_KBLK - 1) / PF_KBLK * PF_KBLK : d) * PF_STEP(H);
  const char *keys = (const char *)a->kblk[t->b] + c * panel,
             *next = (const char *)a->kblk[t->next] + c * panel / PIECES;
  v16 acc[MAX_ROWS][MAX_PANELS], sum[MAX_ROWS][MAX_PANELS];
#define PF_INIT(r) acc[r][0] = acc[r][1] = v_zero();
  PF_ROWS(PF_INIT)
#undef PF_INIT
  for (size_t k = 0; k < d; k += PF_KBLK) {
    size_t n = d - k < PF_KBLK ? d - k : PF_KBLK;
    const char *w = keys + k * PF_STEP(H);
    operands o = {.w = {w, w + panel},
                  .next = next + k * (size_t)P * PF_STEP(H) / PIECES,
                  .piece = 2 * panel / PIECES};
#define PF_X(r) o.a[r] = a->q[t->i + (r < R ? r : 0)] + k;
    PF_ROWS(PF_X)
#undef PF_X
    block(sum, &o, 0, n, R, P, H, fetch);
#define PF_ADD(r)                                                                                  \
  acc[r][0] = v_add(acc[r][0], sum[r][0]);                                                         \
  acc[r][1] = v_add(acc[r][1], sum[r][1]);
    PF_ROWS(PF_ADD)
#undef PF_ADD
  }
  v16 f = v_set1(a->scale);
#define PF_PUT(r)                                                                                  \
  if ((r) < R && a->mask[t->i + (r)][t->b]) {                                                      \
    float *s = a->s + (t->i + (r)) * a->lds + PF_KBLK * t->b + c * PF_LANES;                       \
    v_store(s, v_mul(v_add(acc[r][0], v_zero()), f));                                              \
    if (P > 1)                                                                                     \
      v_store(s + PF_LANES, v_mul(v_add(acc[r][1], v_zero()), f));                                 \
  }
  PF_ROWS(PF_PUT)
#undef PF_PUT
}

/* Adds the block to panels c.. of R results; p: their probabilities of the block's keys [lo, hi).
 */
PF_INLINE void pv_tile(const tile *t, const float *const p[MAX_ROWS], size_t lo, size_t hi,
                       size_t c, const int R, const int P, const int H, const int fetch) {
  const pf_attn *a = t->a;
  size_t n = (a->d + PF_LANES - 1) / PF_LANES, panel = PF_KBLK * PF_STEP(H);
  const char *w = (const char *)a->vblk[t->b] + c * panel;
  operands o = {.w = {w, w + panel},
                .next = (const char *)a->vblk[t->next] + c * panel / PIECES,
                .piece = n * panel / PIECES};
#define PF_P(r) o.a[r] = p[r];
  PF_ROWS(PF_P)
#undef PF_P
  v16 sum[MAX_ROWS][MAX_PANELS];
  block(sum, &o, lo, hi, R, P, H, fetch);
  size_t left = a->d - c * PF_LANES;
#define PF_ONE(r, q)                                                                               \
  if ((r) < R && (q) < P) {                                                                        \
    float *y = a->y[t->i + (r)] + (c + (q)) * PF_LANES;                                            \
    if (left >= ((q) + 1) * PF_LANES)                                                              \
      v_store(y, v_add(v_load(y), sum[r][q]));                                                     \
    else                                                                                           \
      v_storen(y, v_add(v_loadn(y, left - (q)*PF_LANES), sum[r][q]), left - (q)*PF_LANES);         \
  }
#define PF_ROW(r) PF_ONE(r, 0) PF_ONE(r, 1)
  PF_ROWS(PF_ROW)
#undef PF_ROW
#undef PF_ONE
}

PF_INLINE void qk_rows(const tile *t, const int R, const int H, const int fetch) {
  for (size_t c = 0; c < 2; c += PF_ATT_PANELS)
    qk_tile(t, c, R, PF_ATT_PANELS, H, fetch);
}

/* Masked probabilities are made +0, so that the tile may take every key; what a NaN or an Inf of V
 * makes of that is found at the end. */
PF_INLINE void pv_rows(const tile *t, const int R, const int H, const int fetch) {
  const pf_attn *a = t->a;
  const float *p[MAX_ROWS];
  float masked[MAX_ROWS][PF_KBLK];
  uint32_t any = 0, all = ~0u;
#define PF_ROW(r)                                                                                  \
  if ((r) < R) {                                                                                   \
    uint32_t bits = a->mask[t->i + (r)][t->b];                                                     \
    any |= bits;                                                                                   \
    all &= bits;                                                                                   \
  }                                                                                                \
  p[r] = a->s + (t->i + ((r) < R ? (r) : 0)) * a->lds + PF_KBLK * t->b;
  PF_ROWS(PF_ROW)
#undef PF_ROW
  if (!any)
    return;
  if (~all) {
#define PF_ROW(r)                                                                                  \
  if ((r) < R) {                                                                                   \
    uint32_t bits = a->mask[t->i + (r)][t->b];                                                     \
    v_store(masked[r], v_select(m_bits(bits), v_load(p[r]), v_zero()));                            \
    v_store(masked[r] + 16, v_select(m_bits(bits >> 16), v_load(p[r] + 16), v_zero()));            \
    p[r] = masked[r];                                                                              \
  }
    PF_ROWS(PF_ROW)
#undef PF_ROW
  }
  size_t lo = (size_t)__builtin_ctz(any) & ~(size_t)1, hi = 32 - (size_t)__builtin_clz(any);
  size_t n = (a->d + PF_LANES - 1) / PF_LANES, c = 0;
  for (; c + PF_ATT_PANELS <= n; c += PF_ATT_PANELS)
    pv_tile(t, p, lo, hi + hi % 2, c, R, PF_ATT_PANELS, H, fetch);
  for (; c < n; c++)
    pv_tile(t, p, lo, hi + hi % 2, c, R, 1, H, fetch);
}

typedef void (*rows_fn)(const tile *t);
#define PF_ROWS_FN(op, r)                                                                          \
  static void op##_##r(const tile *t) {                                                            \
    op##_rows(t, r, 0, 0);                                                                         \
  }                                                                                                \
  static void op##_##r##_fetch(const tile *t) {                                                    \
    op##_rows(t, r, 0, 1);                                                                         \
  }                                                                                                \
  static void op##_bf16_##r(const tile *t) {                                                       \
    op##_rows(t, r, 1, 0);                                                                         \
  }                                                                                                \
  static void op##_bf16_##r##_fetch(const tile *t) {                                               \
    op##_rows(t, r, 1, 1);                                                                         \
  }
#define PF_ROWS_FNS(op)                                                                            \
  PF_ROWS_FN(op, 1)                                                                                \
  PF_ROWS_FN(op, 2) PF_ROWS_FN(op, 3) PF_ROWS_FN(op, 4) PF_ROWS_FN(op, 5) PF_ROWS_FN(op, 6)
PF_ROWS_FNS(qk)
PF_ROWS_FNS(pv)
#define PF_ROWS_LIST(op)                                                                           \
  {                                                                                                \
    {op##_1, op##_2, op##_3, op##_4, op##_5, op##_6}, {                                            \
      op##_1_fetch, op##_2_fetch, op##_3_fetch, op##_4_fetch, op##_5_fetch, op##_6_fetch           \
    }                                                                                              \
  }
/* [0: the tiles, 1: those that fetch too][rows - 1] */
typedef const rows_fn rows_fns[2][MAX_ROWS];
static rows_fns qk_fns = PF_ROWS_LIST(qk), qk_bf16_fns = PF_ROWS_LIST(qk_bf16),
                pv_fns = PF_ROWS_LIST(pv), pv_bf16_fns = PF_ROWS_LIST(pv_bf16);

/* The queries in tiles of equal size, as far as that goes. */
static void run(const pf_attn *a, const void *const *blk, rows_fns fns) {
  size_t tiles = (a->nq + MAX_ROWS - 1) / MAX_ROWS;
  for (size_t b = 0, after; b < a->nblk; b = after) {
    for (after = b + 1; after < a->nblk && !blk[after];)
      after++;
    tile t = {a, 0, b, after < a->nblk ? after : b};
    for (size_t n = 0, rows; blk[b] && n < tiles; n++, t.i += rows) {
      rows = (a->nq - t.i + tiles - n - 1) / (tiles - n);
      fns[n == 0][rows - 1](&t);
    }
  }
}

void PF_FN(qk)(const pf_attn *a) {
  run(a, a->kblk, qk_fns);
}

void PF_FN(qk_bf16)(const pf_attn *a) {
  run(a, a->kblk, qk_bf16_fns);
}

/* The scores of a block's half with the masked ones -inf. */
static inline v16 seen(const float *s, uint32_t bits) {
  return v_select(m_bits(bits), v_load(s), v_const_bits(PF_BITS_NEGINF));
}

/* The largest score of the keys that take part; NaN if one of them is NaN or +inf. */
static float top_score(size_t nblk, const uint32_t *mask, const float *s) {
  i16 neg_inf = i_set1(PF_BITS_NEGINF);
  v16 max = v_bits(neg_inf);
  m16 bad = m_none();
  for (size_t b = 0; b < nblk; b++) {
    uint32_t bits = mask ? mask[b] : ~0u;
    for (unsigned h = 0; bits && h < 2; h++) {
      v16 v = seen(s + PF_KBLK * b + PF_LANES * h, bits >> 16 * h);
      bad = m_or(bad, v_nonfinite(v_select(i_eq(i_bits(v), neg_inf), v_zero(), v)));
      max = v_select(v_gt(v, max), v, max);
    }
  }
  return m_any(bad) ? pf_f32_of_bits(0x7fc00000u) : v_max(max);
}

int PF_FN(softmax)(size_t nblk, const uint32_t *mask, float *s) {
  float top = top_score(nblk, mask, s);
  if (top != top)
    return 1;
  int none = pf_bits_of_f32(top) == PF_BITS_NEGINF;
  v16 max = v_set1(none ? 0 : top), sum = v_zero();
  for (size_t b = 0; b < nblk; b++) {
    uint32_t bits = mask ? mask[b] : ~0u;
    for (unsigned h = 0; bits && h < 2; h++) {
      float *at = s + PF_KBLK * b + PF_LANES * h;
      v16 e = v_exp_upto0(v_sub(seen(at, bits >> 16 * h), max));
      v_store(at, e);
      sum = v_add(sum, e);
    }
  }
  v16 inv = v_set1(none ? 0 : 1.0f / v_sum(sum));
  for (size_t b = 0; b < nblk; b++)
    for (size_t h = 0; (!mask || mask[b]) && h < 2; h++) {
      float *at = s + PF_KBLK * b + PF_LANES * h;
      v_store(at, v_mul(v_load(at), inv));
    }
  return 0;
}

static void pv(const pf_attn *a, rows_fns fns, int halves) {
  for (size_t i = 0; i < a->nq; i++)
    memset(a->y[i], 0, a->d * sizeof(float));
  run(a, a->vblk, fns);
  for (size_t i = 0; i < a->nq; i++)
    if (pv_finish(a->d, a->y[i])) /* +0 times a masked NaN or Inf? */
      pv_exact(a, i, halves);
}

void PF_FN(pv)(const pf_attn *a) {
  pv(a, pv_fns, 0);
}

void PF_FN(pv_bf16)(const pf_attn *a) {
  pv(a, pv_bf16_fns, 1);
}
