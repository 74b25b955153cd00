/* SPDX-License-Identifier: Apache-2.0
 * gemm_s8 of one row with sdot by element, for the units that have it: 4 outputs x 4 k of a panel
 * against 4 k of the row. */
#ifndef PF_SIMD_ARM_S8_DOT_H
#define PF_SIMD_ARM_S8_DOT_H

#include "simd/arm/s8.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "s8_dot.h needs the flags of NEONDOT_CFLAGS"
#endif

/* Sums of P panels over a group, side by side: 4 P chains. */
PF_INLINE void s8_dots(int32x4_t out[PF_PANELS][4], s8_group t, size_t next, const int8_t *q,
                       const int P, const int paired) {
  int32x4_t c[PF_MAX_R][4];
#define PF_INIT(p, v, l)                                                                           \
  if ((p) < P)                                                                                     \
    c[p][v] = vdupq_n_s32(0);
  PF_CELLS(PF_INIT, 0)
#undef PF_INIT
  for (size_t k = t.lo; k < t.hi; k += 16) {
    int8x16_t x =
        paired ? vcombine_s8(vld1_s8(q + 2 * k), vld1_s8(q + 2 * k + 16)) : vld1q_s8(q + k);
    const int8_t *w = t.w + (k - t.lo) * PF_LANES;
#define PF_DOT(p, v, l)                                                                            \
  if ((p) < P)                                                                                     \
    c[p][v] = vdotq_laneq_s32(c[p][v], vld1q_s8(w + (size_t)(p)*next + 64 * (l) + 16 * (v)), x, l);
    PF_CELLS(PF_DOT, 0)
    PF_CELLS(PF_DOT, 1)
    PF_CELLS(PF_DOT, 2)
    PF_CELLS(PF_DOT, 3)
#undef PF_DOT
    for (int p = 0; p < P; p++)
      pf_prefetch(w + (size_t)p * next + PF_PANEL_AHEAD, 16 * PF_LANES);
  }
#define PF_OUT(p, v, l)                                                                            \
  if ((p) < P)                                                                                     \
    out[p][v] = c[p][v];
  PF_CELLS(PF_OUT, 0)
#undef PF_OUT
}

PF_INLINE void s8_row_panels(const pf_gemm *g, size_t i, size_t j, const int P, const int paired) {
  pf_s8_row a = s8_row_at(g->a, i, g->kp, g->group, paired);
  float32x4_t acc[PF_PANELS][4] = {0};
  for (size_t t = 0; t < pf_s8_groups(g->kp, g->group); t++) {
    int32x4_t c[PF_PANELS][4];
    s8_dots(c, s8_group_at(g, j / PF_LANES, t), g->kp * PF_LANES, a.q, P, paired);
    for (int p = 0; p < P; p++)
      for (int v = 0; v < 4; v++)
        acc[p][v] = s8_add(acc[p][v], c[p][v], a.scale[t],
                           s8_group_at(g, j / PF_LANES + (size_t)p, t).ws + 4 * v);
  }
  for (int p = 0; p < P; p++)
    s8_put(g, i, j + (size_t)p * PF_LANES, acc[p]);
}

PF_INLINE void s8_one_row(const pf_gemm *g, size_t i, size_t j, size_t panels, const int paired) {
  if (panels == PF_PANELS) {
    s8_row_panels(g, i, j, PF_PANELS, paired);
    return;
  }
  for (size_t p = 0; p < panels; p++)
    s8_row_panels(g, i, j + p * PF_LANES, 1, paired);
}

#endif
