/* SPDX-License-Identifier: Apache-2.0
 * gemm_s8 with sdot by element: 4 outputs x 4 k of a panel against 4 k of a row. */
#include "simd/arm/s8_dot.h"

PF_INLINE void sums(int32x4_t out[][4], const pf_gemm *g, size_t i, s8_group t, const int8_t *w,
                    const int R, const int V) {
  const int8_t *q = s8_row_at(g->a, i, g->kp, g->group, 0).q;
  size_t lda = (size_t)(s8_row_at(g->a, i + 1, g->kp, g->group, 0).q - q);
  int32x4_t c[PF_MAX_R][4];
#define PF_INIT(r, v, l)                                                                           \
  if ((r) < R && (v) < V)                                                                          \
    c[r][v] = vdupq_n_s32(0);
  PF_CELLS(PF_INIT, 0)
#undef PF_INIT
  for (size_t k = t.lo; k < t.hi; k += 16, w += 16 * PF_LANES) {
    int8x16_t x[PF_MAX_R];
#define PF_LOAD(r, v, l)                                                                           \
  if ((r) < R)                                                                                     \
    x[r] = vld1q_s8(q + (size_t)(r)*lda + k);
    PF_ROWS(PF_LOAD, 0, 0)
#undef PF_LOAD
    pf_prefetch(w + PF_PANEL_AHEAD, 16 * PF_LANES);
#define PF_DOT(r, v, l)                                                                            \
  if ((r) < R)                                                                                     \
    c[r][v] = vdotq_laneq_s32(c[r][v], wv, x[r], l);
#define PF_VECTOR(v, l)                                                                            \
  if ((v) < V) {                                                                                   \
    int8x16_t wv = vld1q_s8(w + 64 * (l) + 16 * (v));                                              \
    PF_ROWS(PF_DOT, v, l)                                                                          \
  }
    PF_VECTORS(PF_VECTOR, 0)
    PF_VECTORS(PF_VECTOR, 1)
    PF_VECTORS(PF_VECTOR, 2)
    PF_VECTORS(PF_VECTOR, 3)
#undef PF_VECTOR
#undef PF_DOT
  }
#define PF_OUT(r, v, l)                                                                            \
  if ((r) < R && (v) < V)                                                                          \
    out[r][v] = c[r][v];
  PF_CELLS(PF_OUT, 0)
#undef PF_OUT
}

#define PF_TILE(R)                                                                                 \
  static void tile_##R(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels) {         \
    s8_tile(g, i, j, rows, panels, sums, R, (R) <= 4 ? 4 : 2, 0);                                  \
  }
PF_TILE(2)
PF_TILE(3)
PF_TILE(4)
PF_TILE(5)
PF_TILE(6)
PF_TILE(7)
PF_TILE(8)

static void tile_1(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels) {
  (void)rows;
  s8_one_row(g, i, j, panels, 0);
}

static const pf_tile tiles[8] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8};

void pf_gemm_s8_neondot(const pf_gemm *g) {
  pf_tiles(g, tiles, 8, 1);
}

void pf_operand_s8_neondot(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  s8_operand(row, k, kp, group, x, a, 0);
}
