/* SPDX-License-Identifier: Apache-2.0
 * gemm_s8 without dot products: two products are summed in 16 bits (2 * 127 * 127 < 2^15), then
 * four of them by pairs into 32. quant_s8 of every Arm processor. */
#include <string.h>

#include "simd/arm/s8.h"

/* 4 k of a row, once for each of 4 outputs. */
PF_INLINE int8x16_t four(const int8_t *q) {
  int32_t x;
  memcpy(&x, q, sizeof x);
  return vreinterpretq_s8_s32(vdupq_n_s32(x));
}

/* c[..][0]: two halves of the sums of outputs 0 and 1, c[..][1]: of 2 and 3. */
PF_INLINE void sums(int32x4_t out[][4], const pf_gemm *g, size_t i, s8_group t, const int8_t *w,
                    const int R, const int V) {
  const int8_t *q = s8_row_at(g->a, i, g->kp, g->group, 0).q;
  size_t lda = (size_t)(s8_row_at(g->a, i + 1, g->kp, g->group, 0).q - q);
  int32x4_t c[PF_MAX_R][4][2];
#define PF_INIT(r, v, l)                                                                           \
  if ((r) < R && (v) < V)                                                                          \
    c[r][v][0] = c[r][v][1] = vdupq_n_s32(0);
  PF_CELLS(PF_INIT, 0)
#undef PF_INIT
  for (size_t k = t.lo; k < t.hi; k += 8, w += 8 * PF_LANES) {
    int8x16_t x[PF_MAX_R], y[PF_MAX_R];
#define PF_LOAD(r, v, l)                                                                           \
  if ((r) < R) {                                                                                   \
    x[r] = four(q + (size_t)(r)*lda + k);                                                          \
    y[r] = four(q + (size_t)(r)*lda + k + 4);                                                      \
  }
    PF_ROWS(PF_LOAD, 0, 0)
#undef PF_LOAD
    pf_prefetch(w + PF_PANEL_AHEAD, 8 * PF_LANES);
#define PF_PRODUCTS(r, v, l)                                                                       \
  if ((r) < R) {                                                                                   \
    int16x8_t s = vmull_s8(vget_low_s8(w0), vget_low_s8(x[r]));                                    \
    s = vmlal_s8(s, vget_low_s8(w1), vget_low_s8(y[r]));                                           \
    c[r][v][0] = vpadalq_s16(c[r][v][0], s);                                                       \
    s = vmull_high_s8(w0, x[r]);                                                                   \
    s = vmlal_high_s8(s, w1, y[r]);                                                                \
    c[r][v][1] = vpadalq_s16(c[r][v][1], s);                                                       \
  }
#define PF_VECTOR(v, l)                                                                            \
  if ((v) < V) {                                                                                   \
    int8x16_t w0 = vld1q_s8(w + 16 * (v)), w1 = vld1q_s8(w + 64 + 16 * (v));                       \
    PF_ROWS(PF_PRODUCTS, v, 0)                                                                     \
  }
    PF_VECTORS(PF_VECTOR, 0)
#undef PF_VECTOR
#undef PF_PRODUCTS
  }
#define PF_OUT(r, v, l)                                                                            \
  if ((r) < R && (v) < V)                                                                          \
    out[r][v] = vpaddq_s32(c[r][v][0], c[r][v][1]);
  PF_CELLS(PF_OUT, 0)
#undef PF_OUT
}

static void tile_1(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels) {
  s8_tile(g, i, j, rows, panels, sums, 1, 4, 0);
}

static void tile_2(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels) {
  s8_tile(g, i, j, rows, panels, sums, 2, 4, 0);
}

void pf_gemm_s8_neon(const pf_gemm *g) {
  static const pf_tile tiles[2] = {tile_1, tile_2};
  pf_tiles(g, tiles, 2, 1);
}

void pf_operand_s8_neon(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  s8_operand(row, k, kp, group, x, a, 0);
}

float pf_quant_s8_neon(size_t n, const float *x, int8_t *q) {
  float scale = s8_scale(n, x);
  for (size_t i = 0; i < n; i += PF_LANES) {
    int8_t v[PF_LANES];
    vst1q_s8(v, s8_values(n, x, i, scale));
    memcpy(q + i, v, n - i < PF_LANES ? n - i : PF_LANES);
  }
  return scale;
}
