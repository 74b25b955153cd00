/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "dot", "gemm_x3_bf16", "gemm_bf16", "gemm_f32" with multiply-adds by element: 4
 * outputs of a panel against one value of a row. A unit that includes this brings its vocabulary:
 *
 *   elem               what the operands are made of
 *   act, act_load(p)   a register of PF_ACT_K consecutive k of a row
 *   pair, pair_load    the weights of 4 outputs for an even k and the odd one after it, of `kind`
 *   PF_EVEN(c, w, x, p), PF_ODD   c plus the product with value 2p, 2p+1 of the register x
 *   PF_WIDTH(R)        vectors of 4 outputs side by side for R rows: 1, 2 or 4
 *
 * Operands are [row][block of 32][part][32] elements. The parts of a row are rows to a tile. */
#ifndef PF_SIMD_ARM_PRODUCTS_H
#define PF_SIMD_ARM_PRODUCTS_H

typedef float32x4_t chains[PF_MAX_R][4][2]; /* [row][vector of 4 outputs][even, odd] */
typedef float32x4_t sums[PF_MAX_R][4];

/* PF_ACT_K values of k from a (row 0) and from w on: R rows, V vectors of outputs, both chains. */
PF_INLINE void step(chains c, const elem *a, size_t lda, const uint8_t *w, const int R,
                    const int parts, const int V, const int kind) {
  act x[PF_MAX_R];
#define PF_LOAD(r, v, p)                                                                           \
  if ((r) < R)                                                                                     \
    x[r] = act_load(a + (size_t)((r) / parts) * lda + (r) % parts * PF_KBLK);
  PF_ROWS(PF_LOAD, 0, 0)
#undef PF_LOAD
#define PF_FMA(r, v, p)                                                                            \
  if ((r) < R) {                                                                                   \
    c[r][v][0] = PF_EVEN(c[r][v][0], wv, x[r], p);                                                 \
    c[r][v][1] = PF_ODD(c[r][v][1], wv, x[r], p);                                                  \
  }
#define PF_VECTOR(v, p)                                                                            \
  if ((v) < V) {                                                                                   \
    const pair wv = pair_load(w, kind, p, v);                                                      \
    PF_ROWS(PF_FMA, v, p)                                                                          \
  }
  PF_VECTORS(PF_VECTOR, 0)
  PF_VECTORS(PF_VECTOR, 1)
#if PF_ACT_K == 8
  PF_VECTORS(PF_VECTOR, 2)
  PF_VECTORS(PF_VECTOR, 3)
#endif
#undef PF_VECTOR
#undef PF_FMA
}

/* Adds a block of 32 to the sums of vectors v0 .. v0+V-1; the parts mid and lo have one sum. */
PF_INLINE void block(sums s, size_t v0, const elem *a, size_t lda, const uint8_t *w, const int R,
                     const int parts, const int V, const int kind) {
  const size_t bytes = PF_ACT_K * PF_LANES * (size_t)PF_BYTES(kind);
  chains c;
#define PF_INIT(r, v, p)                                                                           \
  if ((r) < R && (v) < V)                                                                          \
    c[r][v][0] = c[r][v][1] = vdupq_n_f32(0);
  PF_CELLS(PF_INIT, 0)
#undef PF_INIT
  for (size_t k = 0; k < PF_KBLK; k += PF_ACT_K, w += bytes)
    step(c, a + k, lda, w, R, parts, V, kind);
#define PF_SUM(r, v, p)                                                                            \
  if ((r) < R && (v) < V) {                                                                        \
    float32x4_t *to = &s[(r) % parts == 2 ? (r)-1 : (r)][v0 + (v)];                                \
    *to = vaddq_f32(*to, vaddq_f32(c[r][v][0], c[r][v][1]));                                       \
  }
  PF_CELLS(PF_SUM, 0)
#undef PF_SUM
}

/* A block of weights stays in the first-level cache while its outputs are taken V vectors at a
 * time: at most 24 registers are chains, and a register of weights meets many rows. */
PF_INLINE void tile(const pf_gemm *g, size_t i, size_t j, size_t panels, const int rows,
                    const int parts, const int kind) {
  const int R = rows * parts, V = PF_WIDTH(R);
  const size_t line = PF_LANES * (size_t)PF_BYTES(kind), lda = (size_t)parts * g->kp;
  sums s[PF_PANELS] = {0};
  for (size_t k = 0; k < g->kp; k += PF_KBLK) {
    const elem *a = (const elem *)g->a + i * lda + (size_t)parts * k;
    for (size_t p = 0; p < panels; p++) {
      const uint8_t *w = (const uint8_t *)g->w + ((j / PF_LANES + p) * g->kp + k) * line;
      pf_prefetch(w + PF_KBLK * line, PF_KBLK * line); /* the panel's next block */
      for (size_t v = 0; v < 4; v += (size_t)V)
        block(s[p], v, a, lda, w + 16 * v, R, parts, V, kind);
    }
  }
  for (size_t p = 0; p < panels; p++)
    for (size_t r = 0; r < (size_t)rows; r++) {
      const float32x4_t *h = s[p][r * (size_t)parts], *m = h + 4;
      v16 y = {h[0], h[1], h[2], h[3]};
      if (parts == 3)
        y = v_add(y, (v16){m[0], m[1], m[2], m[3]});
      pf_put(g, i + r, j + p * PF_LANES, y);
    }
}

#define PF_TILE(name, rows, parts, kind)                                                           \
  static void name##_##rows(const pf_gemm *g, size_t i, size_t j, size_t n, size_t panels) {       \
    (void)n;                                                                                       \
    tile(g, i, j, panels, rows, parts, kind);                                                      \
  }
/* Tiles of 1 to 8 rows of one part, 1 to 3 rows of three parts. */
#define PF_TILES_1(name, kind)                                                                     \
  PF_TILE(name, 1, 1, kind)                                                                        \
  PF_TILE(name, 2, 1, kind)                                                                        \
  PF_TILE(name, 3, 1, kind)                                                                        \
  PF_TILE(name, 4, 1, kind)                                                                        \
  PF_TILE(name, 5, 1, kind)                                                                        \
  PF_TILE(name, 6, 1, kind)                                                                        \
  PF_TILE(name, 7, 1, kind)                                                                        \
  PF_TILE(name, 8, 1, kind)                                                                        \
  static const pf_tile name##_tiles[8] = {name##_1, name##_2, name##_3, name##_4,                  \
                                          name##_5, name##_6, name##_7, name##_8};
#define PF_TILES_3(name, kind)                                                                     \
  PF_TILE(name, 1, 3, kind)                                                                        \
  PF_TILE(name, 2, 3, kind)                                                                        \
  PF_TILE(name, 3, 3, kind)                                                                        \
  static const pf_tile name##_tiles[3] = {name##_1, name##_2, name##_3};

#endif
