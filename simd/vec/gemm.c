/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "gemm_x3_bf16", "gemm_bf16", "gemm_f32": a tile of rows x panels of 16 outputs keeps
 * its chains in registers. The even and the odd chains of a block run one after the other, so that
 * a tile may be twice as large; a block of weights stays in the first-level cache in between. */
#include "simd/vec/v16.h"

#define PF_INLINE static inline __attribute__((always_inline))

/* Unrolled by name, so that every index is a constant and the arrays become registers. */
#define PF_ROWS(F) F(0) F(1) F(2) F(3)

/* Even k of 16 pairs: the low halves; odd k: the high halves (bf16 is the upper half of an fp32).
 */
PF_INLINE v16 weights_of(const uint16_t *pair, int odd) {
  i16 u = i_load(pair);
  return v_bits(odd ? i_and(u, i_set1(0xffff0000u)) : i_shl(u, 16));
}

PF_INLINE void put(const pf_gemm *g, size_t i, size_t j, v16 dot) {
  float *y = g->y + i * g->ldy + j;
  size_t n = g->n - j;
  if (n >= PF_LANES) {
    v_store(y, g->bias ? v_add(dot, v_load(g->bias + j)) : dot);
  } else {
    v_storen(y, g->bias ? v_add(dot, v_loadn(g->bias + j, n)) : dot, n);
  }
}

/* The chains of one parity over one block. c[row][part][panel]; a: the block's first value of row
 * 0, of hi, then mid and lo; rows are lda apart. */
PF_INLINE void chains_x3(v16 c[4][3][2], const float *a, size_t lda, const uint16_t *const w[2],
                         int odd, const int R, const int P) {
#define PF_INIT(r)                                                                                 \
  c[r][0][0] = c[r][1][0] = c[r][2][0] = v_zero();                                                 \
  c[r][0][1] = c[r][1][1] = c[r][2][1] = v_zero();
  PF_ROWS(PF_INIT)
#undef PF_INIT
  for (int p = 0; p < PF_KBLK / 2; p++) {
    v16 w0 = weights_of(w[0] + 32 * p, odd), w1 = P > 1 ? weights_of(w[1] + 32 * p, odd) : w0;
#define PF_PART(r, q)                                                                              \
  if ((r) < R) {                                                                                   \
    v16 x = v_set1(a[(r)*lda + (q)*PF_KBLK + 2 * (size_t)p + (size_t)odd]);                        \
    c[r][q][0] = v_fma(x, w0, c[r][q][0]);                                                         \
    if (P > 1)                                                                                     \
      c[r][q][1] = v_fma(x, w1, c[r][q][1]);                                                       \
  }
#define PF_ROW(r) PF_PART(r, 0) PF_PART(r, 1) PF_PART(r, 2)
    PF_ROWS(PF_ROW)
#undef PF_ROW
#undef PF_PART
  }
}

/* Rows i..i+R-1, panels j/16..j/16+P-1. */
PF_INLINE void tile_x3(const pf_gemm *g, size_t i, size_t j, const int R, const int P) {
  v16 h[4][2], m[4][2], e[4][3][2], o[4][3][2];
#define PF_INIT(r) h[r][0] = h[r][1] = m[r][0] = m[r][1] = v_zero();
  PF_ROWS(PF_INIT)
#undef PF_INIT
  const uint16_t *w = (const uint16_t *)g->w + j * g->kp;
  size_t lda = 3 * g->kp;
  for (size_t k = 0; k < g->kp; k += PF_KBLK) {
    const float *a = (const float *)g->a + i * lda + 3 * k;
    const uint16_t *const wk[2] = {w + k * 16, w + k * 16 + (P > 1 ? g->kp * 16 : 0)};
    chains_x3(e, a, lda, wk, 0, R, P);
    chains_x3(o, a, lda, wk, 1, R, P);
#define PF_CELL(r, p)                                                                              \
  if ((r) < R && (p) < P) {                                                                        \
    h[r][p] = v_add(h[r][p], v_add(e[r][0][p], o[r][0][p]));                                       \
    m[r][p] = v_add(m[r][p], v_add(e[r][1][p], o[r][1][p]));                                       \
    m[r][p] = v_add(m[r][p], v_add(e[r][2][p], o[r][2][p]));                                       \
  }
#define PF_ROW(r) PF_CELL(r, 0) PF_CELL(r, 1)
    PF_ROWS(PF_ROW)
#undef PF_ROW
#undef PF_CELL
  }
#define PF_CELL(r, p)                                                                              \
  if ((r) < R && (p) < P)                                                                          \
    put(g, i + (r), j + 16 * (p), v_add(v_add(h[r][p], m[r][p]), v_zero()));
#define PF_ROW(r) PF_CELL(r, 0) PF_CELL(r, 1)
  PF_ROWS(PF_ROW)
#undef PF_ROW
#undef PF_CELL
}

/* Few rows: both parities at once, one chain pair a cell. bf16 weights are widened as they are
 * loaded. */
PF_INLINE void tile_one(const pf_gemm *g, size_t i, size_t j, const int R, const int P,
                        const int bf16) {
  v16 acc[4][2];
#define PF_INIT(r) acc[r][0] = acc[r][1] = v_zero();
  PF_ROWS(PF_INIT)
#undef PF_INIT
  size_t lda = g->kp, next = P > 1 ? g->kp * 16 : 0;
  const float *w = (const float *)g->w + j * g->kp, *a = (const float *)g->a + i * lda;
  const uint16_t *w2 = (const uint16_t *)g->w + j * g->kp;
  for (size_t k = 0; k < g->kp; k += PF_KBLK) {
    v16 e[4][2], o[4][2];
#define PF_INIT(r) e[r][0] = e[r][1] = o[r][0] = o[r][1] = v_zero();
    PF_ROWS(PF_INIT)
#undef PF_INIT
    for (size_t p = k; p < k + PF_KBLK; p += 2) {
#define PF_HALF(r, c, odd)                                                                         \
  if ((r) < R) {                                                                                   \
    v16 x = v_set1(a[(r)*lda + p + (odd)]);                                                        \
    c[r][0] = v_fma(x, w0, c[r][0]);                                                               \
    if (P > 1)                                                                                     \
      c[r][1] = v_fma(x, w1, c[r][1]);                                                             \
  }
#define PF_EVEN(r) PF_HALF(r, e, 0)
#define PF_ODD(r)  PF_HALF(r, o, 1)
      v16 w0 = bf16 ? weights_of(w2 + p * 16, 0) : v_load(w + p * 16), w1 = w0;
      if (P > 1)
        w1 = bf16 ? weights_of(w2 + next + p * 16, 0) : v_load(w + next + p * 16);
      PF_ROWS(PF_EVEN)
      w0 = bf16 ? weights_of(w2 + p * 16, 1) : v_load(w + p * 16 + 16);
      if (P > 1)
        w1 = bf16 ? weights_of(w2 + next + p * 16, 1) : v_load(w + next + p * 16 + 16);
      PF_ROWS(PF_ODD)
#undef PF_ODD
#undef PF_EVEN
#undef PF_HALF
    }
#define PF_ROW(r)                                                                                  \
  acc[r][0] = v_add(acc[r][0], v_add(e[r][0], o[r][0]));                                           \
  acc[r][1] = v_add(acc[r][1], v_add(e[r][1], o[r][1]));
    PF_ROWS(PF_ROW)
#undef PF_ROW
  }
#define PF_CELL(r, p)                                                                              \
  if ((r) < R && (p) < P)                                                                          \
    put(g, i + (r), j + 16 * (p), v_add(acc[r][p], v_zero()));
#define PF_ROW(r) PF_CELL(r, 0) PF_CELL(r, 1)
  PF_ROWS(PF_ROW)
#undef PF_ROW
#undef PF_CELL
}

#define PF_MANY(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
enum { MANY = 12 };

/* The chains of one parity over one block, for many rows. */
PF_INLINE void chains_bf16(v16 c[MANY][2], const float *a, size_t lda, const uint16_t *const w[2],
                           int odd, const int R, const int P) {
#define PF_INIT(r) c[r][0] = c[r][1] = v_zero();
  PF_MANY(PF_INIT)
#undef PF_INIT
  for (size_t p = 0; p < PF_KBLK; p += 2) {
    v16 w0 = weights_of(w[0] + 16 * p, odd), w1 = P > 1 ? weights_of(w[1] + 16 * p, odd) : w0;
#define PF_ROW(r)                                                                                  \
  if ((r) < R) {                                                                                   \
    v16 x = v_set1(a[(r)*lda + p + (size_t)odd]);                                                  \
    c[r][0] = v_fma(x, w0, c[r][0]);                                                               \
    if (P > 1)                                                                                     \
      c[r][1] = v_fma(x, w1, c[r][1]);                                                             \
  }
    PF_MANY(PF_ROW)
#undef PF_ROW
  }
}

/* Many rows: as tile_x3, so that the widening of the weights serves more of them. */
PF_INLINE void tile_many(const pf_gemm *g, size_t i, size_t j, const int R, const int P) {
  v16 acc[MANY][2], e[MANY][2], o[MANY][2];
#define PF_INIT(r) acc[r][0] = acc[r][1] = v_zero();
  PF_MANY(PF_INIT)
#undef PF_INIT
  const uint16_t *w = (const uint16_t *)g->w + j * g->kp;
  for (size_t k = 0; k < g->kp; k += PF_KBLK) {
    const float *a = (const float *)g->a + i * g->kp + k;
    const uint16_t *const wk[2] = {w + k * 16, w + k * 16 + (P > 1 ? g->kp * 16 : 0)};
    chains_bf16(e, a, g->kp, wk, 0, R, P);
    chains_bf16(o, a, g->kp, wk, 1, R, P);
#define PF_ROW(r)                                                                                  \
  if ((r) < R) {                                                                                   \
    acc[r][0] = v_add(acc[r][0], v_add(e[r][0], o[r][0]));                                         \
    if (P > 1)                                                                                     \
      acc[r][1] = v_add(acc[r][1], v_add(e[r][1], o[r][1]));                                       \
  }
    PF_MANY(PF_ROW)
#undef PF_ROW
  }
#define PF_CELL(r, p)                                                                              \
  if ((r) < R && (p) < P)                                                                          \
    put(g, i + (r), j + 16 * (p), v_add(acc[r][p], v_zero()));
#define PF_ROW(r) PF_CELL(r, 0) PF_CELL(r, 1)
  PF_MANY(PF_ROW)
#undef PF_ROW
#undef PF_CELL
}

PF_INLINE void tile_f32(const pf_gemm *g, size_t i, size_t j, const int R, const int P) {
  tile_one(g, i, j, R, P, 0);
}

PF_INLINE void tile_bf16(const pf_gemm *g, size_t i, size_t j, const int R, const int P) {
  if (R <= PF_F32_ROWS)
    tile_one(g, i, j, R, P, 1);
  else
    tile_many(g, i, j, R, P);
}

#define PF_TILE(kind, r, p)                                                                        \
  static void kind##_##r##x##p(const pf_gemm *g, size_t i, size_t j) {                             \
    tile_##kind(g, i, j, r, p);                                                                    \
  }
typedef void (*const tile_fn)(const pf_gemm *g, size_t i, size_t j);

#define PF_FOUR(kind, p)                                                                           \
  PF_TILE(kind, 1, p) PF_TILE(kind, 2, p) PF_TILE(kind, 3, p) PF_TILE(kind, 4, p)
#define PF_LIST(kind, p) kind##_1x##p, kind##_2x##p, kind##_3x##p, kind##_4x##p
PF_FOUR(x3, 1)
PF_FOUR(x3, 2)
PF_FOUR(f32, 1)
PF_FOUR(f32, 2)
PF_FOUR(bf16, 1)
PF_FOUR(bf16, 2)
static const tile_fn x3_tiles[2][4] = {{PF_LIST(x3, 1)}, {PF_LIST(x3, 2)}};
static const tile_fn f32_tiles[2][4] = {{PF_LIST(f32, 1)}, {PF_LIST(f32, 2)}};

#define PF_MORE(p) PF_TILE(bf16, 5, p) PF_TILE(bf16, 6, p)
PF_MORE(1)
PF_MORE(2)
#if PF_BF16_ROWS > 6
#define PF_MOST(p)                                                                                 \
  PF_TILE(bf16, 7, p)                                                                              \
  PF_TILE(bf16, 8, p)                                                                              \
  PF_TILE(bf16, 9, p) PF_TILE(bf16, 10, p) PF_TILE(bf16, 11, p) PF_TILE(bf16, 12, p)
PF_MOST(1)
PF_MOST(2)
#define PF_BF16_LIST(p)                                                                            \
  PF_LIST(bf16, p), bf16_5x##p, bf16_6x##p, bf16_7x##p, bf16_8x##p, bf16_9x##p, bf16_10x##p,       \
      bf16_11x##p, bf16_12x##p
#else
#define PF_BF16_LIST(p) PF_LIST(bf16, p), bf16_5x##p, bf16_6x##p
#endif
static const tile_fn bf16_tiles[2][MANY] = {{PF_BF16_LIST(1)}, {PF_BF16_LIST(2)}};

/* Panels outside: the weights of a group of panels stay in the second-level cache while the rows
 * pass. */
static void run(const pf_gemm *g, const tile_fn *one, const tile_fn *two, size_t rows,
                size_t panels) {
  for (size_t j = 0, p; j < g->n; j += 16 * p) {
    p = g->n - j > 16 ? panels : 1;
    for (size_t i = 0, r; i < g->m; i += r) {
      r = pf_even_part(g->m - i, rows);
      (p > 1 ? two : one)[r - 1](g, i, j);
    }
  }
}

void PF_FN(gemm_x3_bf16)(const pf_gemm *g) {
  run(g, x3_tiles[0], x3_tiles[1], PF_X3_ROWS, PF_X3_PANELS);
}

void PF_FN(gemm_bf16)(const pf_gemm *g) {
  run(g, bf16_tiles[0], bf16_tiles[1], PF_BF16_ROWS, PF_F32_PANELS);
}

void PF_FN(gemm_f32)(const pf_gemm *g) {
  run(g, f32_tiles[0], f32_tiles[1], PF_F32_ROWS, PF_F32_PANELS);
}
