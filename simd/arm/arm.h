/* SPDX-License-Identifier: Apache-2.0
 * What the Arm products share. */
#ifndef PF_SIMD_ARM_ARM_H
#define PF_SIMD_ARM_ARM_H

#include "simd/vec/v16.h"

#define PF_PANELS      4    /* panels of a tile: streams of weights side by side */
#define PF_PANEL_AHEAD 1024 /* bytes of a panel that are asked for ahead of their use */

/* Unrolled by name, so that every index and lane is a constant and the arrays become registers.
 * F(row, vector of 4 outputs, l). */
#define PF_MAX_R 9
#define PF_ROWS(F, v, l)                                                                           \
  F(0, v, l)                                                                                       \
  F(1, v, l) F(2, v, l) F(3, v, l) F(4, v, l) F(5, v, l) F(6, v, l) F(7, v, l) F(8, v, l)
#define PF_VECTORS(F, l) F(0, l) F(1, l) F(2, l) F(3, l)
#define PF_CELLS(F, l)   PF_ROWS(F, 0, l) PF_ROWS(F, 1, l) PF_ROWS(F, 2, l) PF_ROWS(F, 3, l)

/* Asks for `bytes` from p on, which may lie behind the weights: a hint never faults. */
PF_INLINE void pf_prefetch(const void *p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64)
    __builtin_prefetch((const void *)((uintptr_t)p + i));
}

/* A tile of rows from i on and of panels from output j on. */
typedef void (*pf_tile)(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels);

/* tiles[t] takes up to (t + 1) * unit rows, and begins at a multiple of unit. Rows are dealt out
 * evenly, so that no tile is much smaller than the others. Panels outside: those of a tile stay in
 * the second-level cache while the rows pass. */
PF_INLINE void pf_tiles(const pf_gemm *g, const pf_tile *tiles, size_t n_tiles, size_t unit) {
  for (size_t j = 0; j < g->n; j += PF_PANELS * PF_LANES) {
    size_t left = (g->n - j + PF_LANES - 1) / PF_LANES,
           panels = left < PF_PANELS ? left : PF_PANELS;
    size_t units = (g->m + unit - 1) / unit;
    for (size_t i = 0, u; i < g->m; i += u * unit, units -= u) {
      u = pf_even_part(units, n_tiles);
      tiles[u - 1](g, i, j, g->m - i < u * unit ? g->m - i : u * unit, panels);
    }
  }
}

#endif
