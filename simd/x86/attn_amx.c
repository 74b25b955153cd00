/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "qk_bf16", "pv_bf16" on AMX. `tdpbf16ps` is the contract's block of 32: of the
 * dimensions in qk, of the keys in pv. Up to 32 queries, two tiles of rows, go through all blocks;
 * their operands are made once, as tiles in a->work. Tiles 0..3 accumulate: two row tiles x two
 * panels, or of few queries one row tile x four panels.
 *
 *   qk: [blocks][32 of d]: 32 queries x 32 keys; sums are scaled and stored after each block
 *   pv: [panels][blocks]: the sums of a panel stay in their tiles over all blocks
 *
 * Blocks that none of the queries sees are left out. Masked probabilities are made +0 in the
 * operands; what a NaN or an Inf of V makes of that is found at the end. The loops with tile
 * instructions are small functions without branches that could be mispredicted. */
#include <string.h>

#include "simd/vec/attn.h"
#include "simd/x86/operand_amx.h"

enum {
  ROWS = 2 * PF_TILE_ROWS, /* queries side by side */
};
_Static_assert(PF_LIVE * 2 * PF_TILE_BYTES <= PF_ATTN_WORK, "operands fit");

#define LOAD(t, p) _tile_loadd(t, p, 64)

PF_INLINE void fetch_tile(const char *p) {
  for (int i = 0; i < PF_TILE_BYTES; i += 64)
    _mm_prefetch(p + i, _MM_HINT_T1);
}

/* Queries i..i+n-1, the blocks that they see, and tiles of their operands. */
typedef struct pass {
  const pf_attn *a;
  size_t i, n, R, rows; /* R: row tiles, of `rows` rows each */
  pf_live live;
  char *tiles;
} pass;

PF_INLINE __m512i seen_halves(const float *x, uint32_t mask) {
  return pf_upper_halves(_mm512_maskz_loadu_ps((__mmask16)mask, x),
                         _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16));
}

/* The last row tile has tiles at `step` bytes from each other; its rows beyond n become zero. */
static void clear_rows(const pass *s, char *tile, size_t step, size_t tiles) {
  for (size_t t = 0; t < tiles; t++)
    for (size_t r = s->n - (s->R - 1) * PF_TILE_ROWS; r < s->rows; r++)
      _mm512_store_si512(tile + t * step + r * 64, _mm512_setzero_si512());
}

/* Calls of fewer than 16 queries have tiles of as many rows. */
static void for_queries(const pf_attn *a, void (*fn)(pass *s)) {
  size_t rows = a->nq < PF_TILE_ROWS ? a->nq : PF_TILE_ROWS;
  pf_amx_enter((unsigned)rows, 0x3f);
  for (size_t i = 0; i < a->nq; i += ROWS) {
    size_t n = a->nq - i < ROWS ? a->nq - i : ROWS;
    pass s;
    s.a = a;
    s.i = i;
    s.n = n;
    s.R = n > PF_TILE_ROWS ? 2 : 1;
    s.rows = rows;
    s.tiles = a->work;
    fn(&s);
  }
  pf_amx_leave();
}

/* ---- tiles -----------------------------------------------------------------------------------
 * Row tile r and panel p accumulate in tile 2 r + p, of one row tile in p. 4 and 5 hold operands of
 * the queries, 6 and 7 panels. */

/* One step over row tiles at a and a + a_next, P panels at b, b + b_next, ... */
PF_INLINE void step(const char *a, size_t a_next, const char *b, size_t b_next, const int R,
                    const int P) {
  LOAD(4, a);
  LOAD(6, b);
  _tile_dpbf16ps(0, 4, 6);
  if (P > 1) {
    LOAD(7, b + b_next);
    _tile_dpbf16ps(1, 4, 7);
  }
  if (R > 1) {
    LOAD(5, a + a_next);
    _tile_dpbf16ps(2, 5, 6);
    if (P > 1)
      _tile_dpbf16ps(3, 5, 7);
  }
  if (P > 2) {
    LOAD(6, b + 2 * b_next);
    _tile_dpbf16ps(2, 4, 6);
  }
  if (P > 3) {
    LOAD(7, b + 3 * b_next);
    _tile_dpbf16ps(3, 4, 7);
  }
}

PF_INLINE void fetch_panels(const char *b, size_t b_next, const int P) {
  for (int p = 0; p < P; p++)
    fetch_tile(b + (size_t)p * b_next);
}

static void zero_tiles(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

/* ---- qk --------------------------------------------------------------------------------------
 */

static void make_queries(const pass *s, size_t steps) {
  const pf_attn *a = s->a;
  for (size_t r = 0; r < s->n; r++) {
    char *to = s->tiles + r / PF_TILE_ROWS * steps * PF_TILE_BYTES + r % PF_TILE_ROWS * 64;
    for (size_t t = 0; t < steps; t++) {
      size_t left = a->d - t * PF_KBLK;
      uint32_t mask = left >= PF_KBLK ? ~0u : (1u << left) - 1;
      _mm512_store_si512(to + t * PF_TILE_BYTES, seen_halves(a->q[s->i + r] + t * PF_KBLK, mask));
    }
  }
  clear_rows(s, s->tiles + (s->R - 1) * steps * PF_TILE_BYTES, PF_TILE_BYTES, steps);
}

/* Block j against all of d; meanwhile the next block is fetched. */
PF_INLINE void qk_steps(const pass *s, size_t j, size_t steps, const int R, const int fetch) {
  const char *a = s->tiles, *b = s->live.blk[j], *next = s->live.blk[j + 1];
  size_t far = steps * PF_TILE_BYTES;
  zero_tiles();
  for (size_t t = 0; t < far; t += PF_TILE_BYTES) {
    step(a + t, far, b + t, far, R, 2);
    if (fetch)
      fetch_panels(next + t, far, 2);
  }
}

#define QK(name, R, fetch)                                                                         \
  static __attribute__((noinline)) void name(const pass *s, size_t j, size_t steps) {              \
    qk_steps(s, j, steps, R, fetch);                                                               \
  }
QK(qk_1, 1, 0)
QK(qk_2, 2, 0)
QK(qk_1_fetch, 1, 1)
QK(qk_2_fetch, 2, 1)
typedef void qk_fn(const pass *s, size_t j, size_t steps);
/* [0: of queries after the first 32, 1: of those, which fetch][row tiles - 1] */
static qk_fn *const qk_fns[2][2] = {{qk_1, qk_2}, {qk_1_fetch, qk_2_fetch}};

/* Sums c (n, 32) of a block become scores, of queries that see some of its keys. */
static void put_scores(const pass *s, size_t b, const float *c) {
  const pf_attn *a = s->a;
  __m512 f = _mm512_set1_ps(a->scale), zero = _mm512_setzero_ps();
  float *to = a->s + s->i * a->lds + b * PF_KBLK;
  for (size_t r = 0; r < s->n; r++, to += a->lds, c += PF_KBLK)
    if (a->mask[s->i + r][b]) {
      __m512 lo = _mm512_add_ps(_mm512_load_ps(c), zero),
             hi = _mm512_add_ps(_mm512_load_ps(c + 16), zero);
      _mm512_storeu_ps(to, _mm512_mul_ps(lo, f));
      _mm512_storeu_ps(to + 16, _mm512_mul_ps(hi, f));
    }
}

static void qk_pass(pass *s) {
  const pf_attn *a = s->a;
  size_t steps = (a->d + PF_KBLK - 1) / PF_KBLK;
  float c[ROWS * PF_KBLK] __attribute__((aligned(64)));
  qk_fn *fn = qk_fns[s->i == 0][s->R - 1];
  make_queries(s, steps);
  for (size_t b = 0; b < a->nblk;) {
    b = pf_find_live(&s->live, a, s->i, s->n, a->kblk, b);
    for (size_t j = 0; j < s->live.n; j++) {
      fn(s, j, steps);
      _tile_stored(0, c, 128);
      _tile_stored(1, c + 16, 128);
      if (s->R > 1) {
        _tile_stored(2, c + PF_TILE_ROWS * PF_KBLK, 128);
        _tile_stored(3, c + PF_TILE_ROWS * PF_KBLK + 16, 128);
      }
      put_scores(s, s->live.at[j], c);
    }
  }
}

void pf_qk_bf16_amx(const pf_attn *a) {
  for_queries(a, qk_pass);
}

/* ---- pv --------------------------------------------------------------------------------------
 */

static void make_probabilities(const pass *s) {
  const pf_attn *a = s->a;
  size_t step = s->R * PF_TILE_BYTES;
  for (size_t r = 0; r < s->n; r++) {
    char *to = s->tiles + r / PF_TILE_ROWS * PF_TILE_BYTES + r % PF_TILE_ROWS * 64;
    const float *p = a->s + (s->i + r) * a->lds;
    const uint32_t *mask = a->mask[s->i + r];
    for (size_t j = 0; j < s->live.n; j++, to += step)
      _mm512_store_si512(to, seen_halves(p + s->live.at[j] * PF_KBLK, mask[s->live.at[j]]));
  }
  clear_rows(s, s->tiles + (s->R - 1) * PF_TILE_BYTES, step, s->live.n);
}

/* P panels from byte `off` of the blocks. */
PF_INLINE void pv_steps(const pass *s, size_t off, const int R, const int P, const int fetch) {
  const size_t panel = PF_TILE_BYTES;
  const char *a = s->tiles;
  for (size_t j = 0; j < s->live.n; j++, a += R * PF_TILE_BYTES) {
    step(a, PF_TILE_BYTES, s->live.blk[j] + off, panel, R, P);
    if (fetch)
      fetch_panels(s->live.blk[j + 1] + off, panel, P);
  }
}

#define PV(name, R, P)                                                                             \
  static __attribute__((noinline)) void name(const pass *s, size_t off) {                          \
    if (s->i == 0)                                                                                 \
      pv_steps(s, off, R, P, 1);                                                                   \
    else                                                                                           \
      pv_steps(s, off, R, P, 0);                                                                   \
  }
PV(pv_11, 1, 1)
PV(pv_12, 1, 2)
PV(pv_13, 1, 3)
PV(pv_14, 1, 4)
PV(pv_21, 2, 1)
PV(pv_22, 2, 2)
typedef void pv_fn(const pass *s, size_t off);
/* [row tiles - 1][panels - 1] */
static pv_fn *const pv_fns[2][4] = {{pv_11, pv_12, pv_13, pv_14}, {pv_21, pv_22}};

/* Where the sums of query r and panel p lie. */
static float *sum_at(const pass *s, float *c, size_t r, size_t p) {
  return c + ((s->R > 1 ? r / PF_TILE_ROWS * 2 : 0) + p) * 256 + r % PF_TILE_ROWS * 16;
}

static __mmask16 dims_of(const pf_attn *a, size_t panel) {
  size_t left = a->d - panel * 16;
  return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

/* The sums so far come back from y. */
static void take_sums(const pass *s, float *c, size_t panel, size_t P) {
  for (size_t r = 0; r < s->n; r++)
    for (size_t p = 0; p < P; p++)
      _mm512_store_ps(
          sum_at(s, c, r, p),
          _mm512_maskz_loadu_ps(dims_of(s->a, panel + p), s->a->y[s->i + r] + (panel + p) * 16));
  LOAD(0, c);
  LOAD(1, c + 256);
  LOAD(2, c + 512);
  LOAD(3, c + 768);
}

/* Bit r: a sum of query r is NaN. */
static uint32_t put_sums(const pass *s, float *c, size_t panel, size_t P) {
  uint32_t bad = 0;
  _tile_stored(0, c, 64);
  _tile_stored(1, c + 256, 64);
  _tile_stored(2, c + 512, 64);
  _tile_stored(3, c + 768, 64);
  for (size_t r = 0; r < s->n; r++)
    for (size_t p = 0; p < P; p++) {
      __mmask16 m = dims_of(s->a, panel + p);
      __m512 v = _mm512_add_ps(_mm512_load_ps(sum_at(s, c, r, p)), _mm512_setzero_ps());
      bad |= (uint32_t)(_mm512_mask_cmp_ps_mask(m, v, v, _CMP_UNORD_Q) != 0) << r;
      _mm512_mask_storeu_ps(s->a->y[s->i + r] + (panel + p) * 16, m, v);
    }
  return bad;
}

static void pv_pass(pass *s) {
  const pf_attn *a = s->a;
  size_t panels = (a->d + 15) / 16, most = s->R > 1 ? 2 : 4, b = 0;
  float c[4 * 256] __attribute__((aligned(64)));
  uint32_t bad = 0;
  memset(c, 0, sizeof c);
  for (int first = 1; first || b < a->nblk; first = 0) {
    b = pf_find_live(&s->live, a, s->i, s->n, a->vblk, b);
    make_probabilities(s);
    for (size_t j = 0, P; j < panels; j += P) {
      P = panels - j < most ? panels - j : most;
      first ? zero_tiles() : take_sums(s, c, j, P);
      pv_fns[s->R - 1][P - 1](s, j * PF_TILE_BYTES);
      bad |= put_sums(s, c, j, P);
    }
  }
  for (; bad; bad &= bad - 1) /* +0 times a masked NaN or Inf? */
    pv_exact(a, s->i + (size_t)__builtin_ctz(bad), 1);
}

void pf_pv_bf16_amx(const pf_attn *a) {
  for_queries(a, pv_pass);
}
