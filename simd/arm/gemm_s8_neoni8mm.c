/* SPDX-License-Identifier: Apache-2.0
 * gemm_s8 with smmla: 2 rows x 8 k against 8 k x 2 outputs. Two lines of a panel, zipped by words,
 * give the 8 k of 2 outputs. */
#include "simd/arm/s8_dot.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "gemm_s8_neoni8mm.c needs the flags of NEONI8MM_CFLAGS"
#endif

/* R: pairs of rows. A register holds 2 rows x 2 outputs. */
PF_INLINE void sums(int32x4_t out[][4], const pf_gemm *g, size_t i, s8_group t, const int8_t *w,
                    const int R, const int V) {
  const int8_t *q = s8_row_at(g->a, i, g->kp, g->group, 1).q;
  size_t lda = (size_t)(s8_row_at(g->a, i + 2, g->kp, g->group, 1).q - q);
  int32x4_t c[PF_MAX_R][4][2];
#define PF_INIT(r, v, l)                                                                           \
  if ((r) < R && (v) < V)                                                                          \
    c[r][v][0] = c[r][v][1] = vdupq_n_s32(0);
  PF_CELLS(PF_INIT, 0)
#undef PF_INIT
  for (size_t k = t.lo; k < t.hi; k += 8, w += 8 * PF_LANES) {
    int8x16_t x[PF_MAX_R];
#define PF_LOAD(r, v, l)                                                                           \
  if ((r) < R)                                                                                     \
    x[r] = vld1q_s8(q + (size_t)(r)*lda + 2 * k);
    PF_ROWS(PF_LOAD, 0, 0)
#undef PF_LOAD
    pf_prefetch(w + PF_PANEL_AHEAD, 8 * PF_LANES);
#define PF_MMLA(r, v, l)                                                                           \
  if ((r) < R) {                                                                                   \
    c[r][v][0] = vmmlaq_s32(c[r][v][0], x[r], vreinterpretq_s8_s32(vzip1q_s32(lo, hi)));           \
    c[r][v][1] = vmmlaq_s32(c[r][v][1], x[r], vreinterpretq_s8_s32(vzip2q_s32(lo, hi)));           \
  }
#define PF_VECTOR(v, l)                                                                            \
  if ((v) < V) {                                                                                   \
    int32x4_t lo = vreinterpretq_s32_s8(vld1q_s8(w + 16 * (v)));                                   \
    int32x4_t hi = vreinterpretq_s32_s8(vld1q_s8(w + 64 + 16 * (v)));                              \
    PF_ROWS(PF_MMLA, v, 0)                                                                         \
  }
    PF_VECTORS(PF_VECTOR, 0)
#undef PF_VECTOR
#undef PF_MMLA
  }
#define PF_ROW(f, r, v)                                                                            \
  vreinterpretq_s32_s64(f(vreinterpretq_s64_s32(c[r][v][0]), vreinterpretq_s64_s32(c[r][v][1])))
#define PF_OUT(r, v, l)                                                                            \
  if ((r) < R && (v) < V) {                                                                        \
    out[2 * (r)][v] = PF_ROW(vzip1q_s64, r, v);                                                    \
    out[2 * (r) + 1][v] = PF_ROW(vzip2q_s64, r, v);                                                \
  }
  PF_CELLS(PF_OUT, 0)
#undef PF_OUT
#undef PF_ROW
}

#define PF_TILE(R)                                                                                 \
  static void tile_##R(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels) {         \
    s8_tile(g, i, j, rows, panels, sums, R, (R) <= 2 ? 4 : (R) <= 5 ? 2 : 1, 1);                   \
  }
PF_TILE(1)
PF_TILE(2)
PF_TILE(3)
PF_TILE(4)
PF_TILE(5)
PF_TILE(6)
PF_TILE(7)
PF_TILE(8)

/* A row by itself would leave half of each smmla idle. */
static void one_or_two(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels) {
  if (rows == 1)
    s8_one_row(g, i, j, panels, 1);
  else
    tile_1(g, i, j, rows, panels);
}

static const pf_tile tiles[8] = {one_or_two, tile_2, tile_3, tile_4,
                                 tile_5,     tile_6, tile_7, tile_8};

void pf_gemm_s8_neoni8mm(const pf_gemm *g) {
  pf_tiles(g, tiles, 8, 2);
}

void pf_operand_s8_neoni8mm(size_t row, size_t k, size_t kp, size_t group, const float *x,
                            void *a) {
  s8_operand(row, k, kp, group, x, a, 1);
}
