/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "gemm_x3_bf16", "gemm_bf16", "gemm_f32". A line is a row of operands, of x3 one part
 * of a row: all three products are lines x panels of 16 outputs, and differ in what is done with
 * the sums of a block.
 *
 * Many lines: tiles of PF_GEMM_LINES lines x a panel. Where there are registers for it
 * (PF_GEMM_BOTH) the chains of even and of odd k of a block run side by side; else even k come
 * first, then odd k. Both are then added to sums that stand in g->work. Around the tiles, from
 * outside to inside: blocks of rows, groups of panels, pieces of K (their operands are copied side
 * by side and stay in the second-level cache), panels with their weights of the piece (widened once
 * and kept in the first-level cache), tiles.
 * Few rows: both parities side by side over the whole of K, panels as streams that are fetched
 * ahead. doc/KERNELS.md has the measurements. */
#include <string.h>

#include "base/mem.h"
#include "simd/vec/v16.h"

enum {
  PANEL = 16 * PF_KBLK, /* weights of a panel and a block */
  /* Many lines. */
  LINES = PF_GEMM_LINES,
  BLOCK = 108,       /* lines of a block, a multiple of 3 * LINES */
  PIECE = 256,       /* k of a piece: 16 KB of fp32 weights */
  GROUP = 68,        /* panels of a group */
  FETCH = 8,         /* lines of operands fetched in a tile */
  NARROW = 2 * LINES /* up to so many lines the weights are widened where they are used */
};
_Static_assert((BLOCK * PIECE + BLOCK * GROUP * 16 + PIECE * 16) * sizeof(float) <= PF_GEMM_WORK,
               "operands, sums and weights fit");

/* Of the sums of a tile, the one that line l goes to: of hi, mid, lo to H, M, M. */
#define SUM_OF(l, parts) ((parts) == 1 ? (l) : (l) / 3 * 2 + ((l) % 3 > 0))

/* ---- many lines: one tile ---- */

/* Where the weights of a tile come from: fp32; bf16, widened in registers; the same and stored as
 * fp32 for the tiles that follow. */
enum { FP32, BF16, STORE };

typedef struct tile {
  const float *a; /* [blocks][lines][32] */
  const char *w;
  float *acc; /* [rows][sums][16] */
  size_t blocks;
  float *wide;          /* STORE: where to */
  const char *fetch[2]; /* what to fetch, `burst` lines of the cache from each in a block */
  size_t burst;
} tile;

/* Weights of 16 outputs at the even or the odd k of a pair. */
PF_INLINE v16 weights(const char *w, float *wide, const int odd, const int from) {
  v16 x = from == FP32 ? v_load((const float *)(const void *)w + 16 * odd) : v_half(w, odd);
  if (from == STORE)
    v_store(wide + 16 * odd, x);
  return x;
}

/* The chains of one parity over a block. */
PF_INLINE void chains(v16 c[LINES], const float *a, const char *w, float *wide, const int odd,
                      const int L, const int from) {
  PF_UNROLL for (int l = 0; l < L; l++) c[l] = v_fresh_zero();
  for (int k = 0; k < PF_KBLK; k += 2, a += 2, w += from == FP32 ? 128 : 64, wide += 32) {
    v16 x = weights(w, wide, odd, from);
    PF_UNROLL for (int l = 0; l < L; l++) c[l] = v_fma(v_set1(a[l * PF_KBLK + odd]), x, c[l]);
  }
}

/* Of both. */
PF_INLINE void both_chains(v16 e[LINES], v16 o[LINES], const float *a, const char *w, float *wide,
                           const int L, const int from) {
  PF_UNROLL for (int l = 0; l < L; l++) e[l] = o[l] = v_zero();
  for (int k = 0; k < PF_KBLK; k += 2, a += 2, w += from == FP32 ? 128 : 64, wide += 32) {
    v16 even = weights(w, wide, 0, from), odd = weights(w, wide, 1, from);
    PF_UNROLL for (int l = 0; l < L; l++) {
      e[l] = v_fma(v_set1(a[l * PF_KBLK]), even, e[l]);
      o[l] = v_fma(v_set1(a[l * PF_KBLK + 1]), odd, o[l]);
    }
  }
}

/* n lines of the cache from p. */
PF_INLINE void fetch(const void *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    __builtin_prefetch((const char *)p + 64 * i);
}

/* parts 3: the lines of a row are hi, mid, lo; its sums are H and M. */
PF_INLINE void run_tile(const tile *t, const int L, const int parts, const int from) {
  const float *a = t->a;
  float *wide = t->wide;
  const char *w = t->w, *next[2] = {t->fetch[0], t->fetch[1]};
  const int sums = parts == 1 ? L : L / 3 * 2;
  /* Copies: stores of sums might be to *t, as far as the compiler can tell. */
  float *const to = t->acc;
  const size_t blocks = t->blocks, burst = t->burst;
  PF_UNROLL for (int i = 0; i < sums; i++) __builtin_prefetch(to + 16 * i);
  for (size_t b = 0; b < blocks; b++) {
    v16 e[LINES], o[LINES];
    fetch(next[0], burst);
    fetch(next[1], burst);
    PF_UNROLL for (int i = 0; i < 2 * L; i++) __builtin_prefetch(a + L * PF_KBLK + 16 * i);
    if (PF_GEMM_BOTH) {
      both_chains(e, o, a, w, wide, L, from);
    } else {
      chains(e, a, w, wide, 0, L, from);
      chains(o, a, w, wide, 1, L, from);
    }
    PF_UNROLL for (int l = 0; l < L; l++) {
      float *acc = to + SUM_OF(l, parts) * 16;
      v_store(acc, v_add(v_load(acc), v_add(e[l], o[l])));
    }
    a += L * PF_KBLK;
    w += PANEL * (from == FP32 ? 4 : 2);
    wide += PANEL;
    next[0] += 64 * burst;
    next[1] += 64 * burst;
  }
}

typedef void (*tile_fn)(const tile *t);
/* clang-format off */
#define PF_TILE(name, L, parts, from) static void name##_##L(const tile *t) { run_tile(t, L, parts, from); }
#define PF_SIX(F, name, parts, from) \
  F(name, 1, parts, from) F(name, 2, parts, from) F(name, 3, parts, from) \
  F(name, 4, parts, from) F(name, 5, parts, from) F(name, 6, parts, from)
#if PF_GEMM_LINES == 12
#define PF_ALL(F, name, parts, from) PF_SIX(F, name, parts, from) \
  F(name, 7, parts, from) F(name, 8, parts, from) F(name, 9, parts, from) \
  F(name, 10, parts, from) F(name, 11, parts, from) F(name, 12, parts, from)
#define PF_THIRDS(F, name, parts, from) F(name, 3, parts, from) F(name, 6, parts, from) \
  F(name, 9, parts, from) F(name, 12, parts, from)
#else
#define PF_ALL PF_SIX
#define PF_THIRDS(F, name, parts, from) F(name, 3, parts, from) F(name, 6, parts, from)
#endif
#define PF_NAME(name, L, parts, from) name##_##L,
PF_ALL(PF_TILE, plain, 1, FP32)
PF_ALL(PF_TILE, plain_bf16, 1, BF16)
PF_ALL(PF_TILE, plain_store, 1, STORE)
PF_THIRDS(PF_TILE, split, 3, FP32)
PF_THIRDS(PF_TILE, split_bf16, 3, BF16)
PF_THIRDS(PF_TILE, split_store, 3, STORE)
/* By where the weights come from, and by rows. */
static const tile_fn plain_tiles[3][LINES] = {{PF_ALL(PF_NAME, plain, 1, FP32)},
  {PF_ALL(PF_NAME, plain_bf16, 1, BF16)}, {PF_ALL(PF_NAME, plain_store, 1, STORE)}};
static const tile_fn split_tiles[3][LINES] = {{PF_THIRDS(PF_NAME, split, 3, FP32)},
  {PF_THIRDS(PF_NAME, split_bf16, 3, BF16)}, {PF_THIRDS(PF_NAME, split_store, 3, STORE)}};
/* clang-format on */

/* ---- many lines: the whole product ---- */

typedef struct product {
  const pf_gemm *g;
  const tile_fn (*tiles)[LINES]; /* [from][rows - 1] */
  size_t parts, sums, bytes;     /* lines of a row, sums of a row, bytes of a weight */
  size_t i, rows, most;          /* the block's rows; rows of a tile */
  size_t j, panels;              /* the group's panels */
  size_t k, len;                 /* the piece */
  size_t fetched;                /* lines of the cache, of the next piece of operands */
  float *a, *acc, *wide;         /* in g->work */
} product;

static const char *weights_at(const product *p, size_t panel, size_t k) {
  return (const char *)p->g->w + (panel * p->g->kp + k) * 16 * p->bytes;
}

/* The piece of the block's operands, in the order in which tiles read them. */
static void copy_operands(const product *p) {
  size_t line = p->parts * PF_KBLK;
  for (size_t i = 0, R; i < p->rows; i += R) {
    R = pf_even_part(p->rows - i, p->most);
    for (size_t r = i; r < i + R; r++) {
      const float *from = (const float *)p->g->a + ((p->i + r) * p->g->kp + p->k) * p->parts;
      for (size_t k = 0; k < p->len; k += PF_KBLK, from += line) {
        float *to = p->a + (i * p->len + k * R) * p->parts + (r - i) * line;
        for (size_t l = 0; l < line; l += PF_LANES)
          v_store(to + l, v_load(from + l));
      }
    }
  }
}

/* Some of the operands that copy_operands will read next, the same rows at the next k or from k =
 * 0, into the second-level cache: their rows are too short there for the hardware to notice. */
static void fetch_operands(product *p, size_t n) {
  size_t k = p->k + p->len < p->g->kp ? p->k + p->len : 0, row = p->len * p->parts / 16;
  for (; n && p->fetched < p->rows * row; n--, p->fetched++) {
    size_t i = p->i + p->fetched / row, at = p->fetched % row * 16;
    __builtin_prefetch((const float *)p->g->a + (i * p->g->kp + k) * p->parts + at, 0, 2);
  }
}

/* The piece of a panel over the tiles of the block. Each fetches a share of the next panel's, of
 * both halves, which memory gives faster than one run. */
static void run_panel(product *p, size_t panel) {
  size_t tiles = (p->rows + p->most - 1) / p->most, blocks = p->len / PF_KBLK;
  size_t half = p->len * 16 * p->bytes / 2, shares = tiles * blocks;
  const char *next = weights_at(p, panel + 1, p->k);
  int from = p->bytes == 4 ? FP32 : p->rows * p->parts > NARROW ? STORE : BF16;
  tile t = {.a = p->a,
            .w = weights_at(p, panel, p->k),
            .acc = p->acc + (panel - p->j) * p->rows * p->sums * 16,
            .blocks = blocks,
            .wide = p->wide,
            .fetch = {next, next + half},
            .burst = (half / 64 + shares - 1) / shares};
  for (size_t i = 0, R; i < p->rows; i += R) {
    R = pf_even_part(p->rows - i, p->most);
    fetch_operands(p, FETCH);
    p->tiles[from][R - 1](&t);
    t.a += R * p->len * p->parts;
    t.acc += R * p->sums * 16;
    t.fetch[0] += blocks * t.burst * 64;
    t.fetch[1] += blocks * t.burst * 64;
    if (from == STORE) {
      from = FP32;
      t.w = (const char *)p->wide;
    }
  }
}

/* The block's and group's sums to y. */
static void finish(const product *p) {
  for (size_t r = 0; r < p->rows; r++)
    for (size_t n = 0; n < p->panels; n++) {
      const float *acc = p->acc + (n * p->rows + r) * p->sums * 16;
      v16 dot = v_load(acc);
      if (p->sums > 1)
        dot = v_add(dot, v_load(acc + 16));
      pf_put(p->g, p->i + r, (p->j + n) * 16, dot);
    }
}

static void run_group(product *p) {
  memset(p->acc, 0, p->panels * p->rows * p->sums * 16 * sizeof *p->acc);
  for (p->k = 0; p->k < p->g->kp; p->k += p->len) {
    p->len = p->g->kp - p->k < PIECE ? p->g->kp - p->k : PIECE;
    copy_operands(p);
    p->fetched = 0;
    for (size_t panel = p->j; panel < p->j + p->panels; panel++)
      run_panel(p, panel);
  }
  finish(p);
}

static void many(product p) {
  size_t block = BLOCK / p.parts, panels = (p.g->n + 15) / 16;
  p.most = LINES / p.parts;
  p.sums = p.parts == 1 ? 1 : 2;
  p.a = p.g->work;
  p.acc = p.a + BLOCK * PIECE;
  p.wide = p.acc + BLOCK * GROUP * 16;
  for (p.i = 0; p.i < p.g->m; p.i += p.rows) {
    p.rows = pf_even_units(p.g->m - p.i, block, p.most);
    p.rows = p.g->m - p.i < p.rows ? p.g->m - p.i : p.rows;
    for (p.j = 0; p.j < panels; p.j += p.panels) {
      p.panels = pf_even_part(panels - p.j, GROUP);
      run_group(&p);
    }
  }
}

/* ---- few rows ---- */

enum { MOST = 4 }; /* panels side by side */

typedef struct stream {
  const char *w[MOST]; /* panels */
  const float *a;      /* row 0 */
  size_t lda, ahead;   /* values between rows; bytes of a panel that are fetched ahead */
} stream;

/* k of one parity, for every line and panel. */
PF_INLINE void few_step(v16 c[LINES][MOST], const stream *s, const int k, const int odd,
                        const int R, const int P, const int parts, const int bf16) {
  v16 x[MOST];
  PF_UNROLL for (int p = 0; p < P; p++) {
    const char *at = s->w[p] + 16 * k * (bf16 ? 2 : 4);
    if (!bf16 && P == 1 && R < 4) /* one stream of so much: straight to the first level */
      __builtin_prefetch(at + s->ahead + 64 * odd);
    else if (!bf16 || !odd)
      PF_FETCH_L2(at + s->ahead + 64 * odd);
    x[p] = bf16 ? v_half(at, odd) : v_load((const float *)(const void *)at + 16 * odd);
  }
  PF_UNROLL for (int r = 0; r < R; r++) PF_UNROLL for (int q = 0; q < parts; q++) {
    v16 y = v_set1(s->a[(size_t)r * s->lda + (size_t)(q * PF_KBLK + k + odd)]);
    PF_UNROLL for (int p = 0; p < P; p++) c[r * parts + q][p] = v_fma(y, x[p], c[r * parts + q][p]);
  }
}

/* A block: acc[row of sums][panel] += its even and odd chains, side by side. */
PF_INLINE void few_block(v16 acc[LINES][MOST], const stream *s, const int R, const int P,
                         const int parts, const int bf16) {
  v16 e[LINES][MOST], o[LINES][MOST];
  PF_UNROLL for (int l = 0; l < R * parts; l++) PF_UNROLL for (int p = 0; p < P; p++) e[l][p] =
      o[l][p] = v_zero();
  for (int k = 0; k < PF_KBLK; k += 2) {
    few_step(e, s, k, 0, R, P, parts, bf16);
    few_step(o, s, k, 1, R, P, parts, bf16);
  }
  PF_UNROLL for (int l = 0; l < R * parts; l++) PF_UNROLL for (int p = 0; p < P; p++) {
    v16 *sum = &acc[SUM_OF(l, parts)][p];
    *sum = v_add(*sum, v_add(e[l][p], o[l][p]));
  }
}

/* R rows and P panels from j over the whole of K. Panels after `there` are not there: they are
 * computed as the first one is, and dropped. */
PF_INLINE void run_few(const pf_gemm *g, size_t j, size_t there, const int R, const int P,
                       const int parts, const int bf16) {
  const size_t bytes = bf16 ? 2 : 4, ldw = 16 * g->kp * bytes;
  const size_t ahead = PF_AHEAD(P, R * parts, bytes);
  stream s = {.a = g->a, .lda = (size_t)parts * g->kp, .ahead = ahead};
  v16 acc[LINES][MOST];
  PF_UNROLL for (int p = 0; p < P; p++) {
    s.w[p] = (const char *)g->w + (j + ((size_t)p < there ? (size_t)p : 0)) * ldw;
    PF_UNROLL for (int i = 0; i < LINES; i++) acc[i][p] = v_zero();
  }
  for (size_t k = 0; k < g->kp; k += PF_KBLK) {
    /* At the end of its panel a stream goes on to the panels that come next. */
    if (k + ahead / (16 * bytes) == g->kp)
      s.ahead += (size_t)(P - 1) * ldw;
    few_block(acc, &s, R, P, parts, bf16);
    PF_UNROLL for (int p = 0; p < P; p++) s.w[p] += PANEL * bytes;
    s.a += parts * PF_KBLK;
  }
  PF_UNROLL for (int r = 0; r < R; r++) PF_UNROLL for (int p = 0; p < P; p++) {
    v16 dot = parts == 1 ? acc[r][p] : v_add(acc[2 * r][p], acc[2 * r + 1][p]);
    if ((size_t)p < there)
      pf_put(g, (size_t)r, (j + (size_t)p) * 16, dot);
  }
}

#if !PF_GEMM_BOTH
/* The two chains of every line over a block, for 8 outputs of a panel: with up to 6 lines they fill
 * 12 registers, where whole panels would leave room for 3 lines. sum[line of sums] is 16 floats
 * apart. */
PF_INLINE void half_block(float *sum, const float *a, size_t lda, const char *w, size_t ahead,
                          const int R, const int parts, const int bf16) {
  v8 e[LINES], o[LINES];
  PF_UNROLL for (int l = 0; l < R * parts; l++) e[l] = o[l] = v8_zero();
  for (int k = 0; k < PF_KBLK; k += 2, w += bf16 ? 64 : 128) {
    if (ahead) {
      PF_FETCH_L2(w + ahead);
      if (!bf16)
        PF_FETCH_L2(w + ahead + 64);
    }
    v8 even = bf16 ? v8_half(w, 0) : v8_load(w), odd = bf16 ? v8_half(w, 1) : v8_load(w + 64);
    PF_UNROLL for (int r = 0; r < R; r++) PF_UNROLL for (int q = 0; q < parts; q++) {
      const float *y = a + (size_t)r * lda + q * PF_KBLK + k;
      e[r * parts + q] = v8_fma(v8_set1(y[0]), even, e[r * parts + q]);
      o[r * parts + q] = v8_fma(v8_set1(y[1]), odd, o[r * parts + q]);
    }
  }
  PF_UNROLL for (int l = 0; l < R * parts; l++) {
    float *s = sum + SUM_OF(l, parts) * 16;
    v8_store(s, v8_add(v8_load(s), v8_add(e[l], o[l])));
  }
}

/* R rows and a panel over the whole of K, half by half of each block; more lines than 6 in two
 * parts. */
PF_INLINE void run_halves(const pf_gemm *g, size_t j, const int R, const int parts,
                          const int bf16) {
  const size_t bytes = bf16 ? 2 : 4, lda = (size_t)parts * g->kp;
  const int first = R * parts > LINES ? (R + 1) / 2 : R;
  const char *w = (const char *)g->w + j * 16 * g->kp * bytes;
  const float *a = g->a;
  float sum[2 * LINES * 16] __attribute__((aligned(32))) = {0};
  for (size_t k = 0; k < g->kp; k += PF_KBLK, w += PANEL * bytes, a += parts * PF_KBLK) {
    half_block(sum, a, lda, w, PF_AHEAD(1, R * parts, bytes), first, parts, bf16);
    half_block(sum + 8, a, lda, w + 32, 0, first, parts, bf16);
    if (first == R)
      continue;
    half_block(sum + first * 16, a + (size_t)first * lda, lda, w, 0, R - first, parts, bf16);
    half_block(sum + first * 16 + 8, a + (size_t)first * lda, lda, w + 32, 0, R - first, parts,
               bf16);
  }
  for (int r = 0; r < R; r++)
    pf_put(g, (size_t)r, j * 16,
           parts == 1 ? v_load(sum + r * 16)
                      : v_add(v_load(sum + 2 * r * 16), v_load(sum + (2 * r + 1) * 16)));
}
#define PF_HALVES(name, R, parts, bf16)                                                            \
  static void name##_few_##R(const pf_gemm *g, size_t j, size_t there) {                           \
    (void)there;                                                                                   \
    run_halves(g, j, R, parts, bf16);                                                              \
  }
#endif

typedef void (*few_fn)(const pf_gemm *g, size_t j, size_t there);
#define PF_FEW(name, R, P, parts, bf16)                                                            \
  static void name##_few_##R(const pf_gemm *g, size_t j, size_t there) {                           \
    run_few(g, j, there, R, P, parts, bf16);                                                       \
  }
/* clang-format off */
#define PF_ROW(name, R, P) {name##_few_##R, P}
#define PF_TWELVE_ROWS(name) PF_SIX_ROWS(name), PF_ROW(name, 7, 1), PF_ROW(name, 8, 1), \
  PF_ROW(name, 9, 1), PF_ROW(name, 10, 1), PF_ROW(name, 11, 1), PF_ROW(name, 12, 1)
#if PF_GEMM_BOTH
#define PF_FEW_ROWS(name, bf16) \
  PF_FEW(name, 1, 4, 1, bf16) PF_FEW(name, 2, 4, 1, bf16) PF_FEW(name, 3, 4, 1, bf16) \
  PF_FEW(name, 4, 2, 1, bf16) PF_FEW(name, 5, 2, 1, bf16) PF_FEW(name, 6, 2, 1, bf16) \
  PF_FEW(name, 7, 1, 1, bf16) PF_FEW(name, 8, 1, 1, bf16) PF_FEW(name, 9, 1, 1, bf16) \
  PF_FEW(name, 10, 1, 1, bf16) PF_FEW(name, 11, 1, 1, bf16) PF_FEW(name, 12, 1, 1, bf16)
PF_FEW_ROWS(bf16, 1)
PF_FEW_ROWS(f32, 0)
PF_FEW(x3, 1, 2, 3, 1) PF_FEW(x3, 2, 2, 3, 1) PF_FEW(x3, 3, 1, 3, 1) PF_FEW(x3, 4, 1, 3, 1)
#define PF_SIX_ROWS(name) PF_ROW(name, 1, 4), PF_ROW(name, 2, 4), PF_ROW(name, 3, 4), \
  PF_ROW(name, 4, 2), PF_ROW(name, 5, 2), PF_ROW(name, 6, 2)
#define PF_BF16_ROWS PF_TWELVE_ROWS(bf16)
#define PF_X3_ROWS PF_ROW(x3, 1, 2), PF_ROW(x3, 2, 2), PF_ROW(x3, 3, 1), PF_ROW(x3, 4, 1)
#else
/* 7 rows of bf16 and more are faster as many lines. */
#define PF_FEW_ROWS(name, bf16) \
  PF_FEW(name, 1, 2, 1, bf16) PF_FEW(name, 2, 1, 1, bf16) PF_FEW(name, 3, 1, 1, bf16) \
  PF_HALVES(name, 4, 1, bf16) PF_HALVES(name, 5, 1, bf16) PF_HALVES(name, 6, 1, bf16)
PF_FEW_ROWS(bf16, 1)
PF_FEW_ROWS(f32, 0)
PF_HALVES(f32, 7, 1, 0) PF_HALVES(f32, 8, 1, 0) PF_HALVES(f32, 9, 1, 0)
PF_HALVES(f32, 10, 1, 0) PF_HALVES(f32, 11, 1, 0) PF_HALVES(f32, 12, 1, 0)
PF_FEW(x3, 1, 1, 3, 1) PF_HALVES(x3, 2, 3, 1)
#define PF_SIX_ROWS(name) PF_ROW(name, 1, 2), PF_ROW(name, 2, 1), PF_ROW(name, 3, 1), \
  PF_ROW(name, 4, 1), PF_ROW(name, 5, 1), PF_ROW(name, 6, 1)
#define PF_BF16_ROWS PF_SIX_ROWS(bf16)
#define PF_X3_ROWS PF_ROW(x3, 1, 1), PF_ROW(x3, 2, 1)
#endif

/* By rows - 1; panels side by side. */
static const struct few {
  few_fn run;
  size_t panels;
} few_bf16[] = {PF_BF16_ROWS}, few_f32[] = {PF_TWELVE_ROWS(f32)}, few_x3[] = {PF_X3_ROWS};
/* clang-format on */

/* False when there are more rows than the table has. */
static bool run_streams(const pf_gemm *g, const struct few *table, size_t n) {
  size_t panels = (g->n + 15) / 16;
  if (g->m > n)
    return false;
  for (size_t j = 0; g->m && j < panels; j += table[g->m - 1].panels)
    table[g->m - 1].run(g, j, panels - j);
  return true;
}

#define PF_COUNT(table) (sizeof(table) / sizeof *(table))

void PF_FN(gemm_x3_bf16)(const pf_gemm *g) {
  if (!run_streams(g, few_x3, PF_COUNT(few_x3)))
    many((product){.g = g, .tiles = split_tiles, .parts = 3, .bytes = 2});
}

void PF_FN(gemm_bf16)(const pf_gemm *g) {
  if (!run_streams(g, few_bf16, PF_COUNT(few_bf16)))
    many((product){.g = g, .tiles = plain_tiles, .parts = 1, .bytes = 2});
}

void PF_FN(gemm_f32)(const pf_gemm *g) {
  if (!run_streams(g, few_f32, PF_COUNT(few_f32)))
    many((product){.g = g, .tiles = plain_tiles, .parts = 1, .bytes = 4});
}
