/* SPDX-License-Identifier: Apache-2.0
 * The 2x2 decomposition of residuals at one site. */
#ifndef PF_ANALYSIS_GEOMETRY_H
#define PF_ANALYSIS_GEOMETRY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct pf_geometry {
  double cos_xy_sum;    /* cos(D_XY, D_X + D_Y) */
  double cos_x_y;       /* cos(D_X, D_Y) */
  double inter_over_xy; /* |D_XY - (D_X + D_Y)| / |D_XY| */
  double norm_x, norm_y, norm_xy, norm_bb;
  bool zero; /* a norm in a denominator is 0: what it divides is given as 0 (as the paper's formula
                gives) */
} pf_geometry;

/* The additive prediction (h_BB + (h_XB - h_BB)) + (h_BY - h_BB) in fp32, in this order. out may be
 * none of the inputs. */
void pf_additive(const float *bb, const float *xb, const float *by, size_t d, float *out);
/* D = differences in fp32, everything after them in fp64; sums run over i = 0 .. d-1 in this order.
 */
pf_geometry pf_decompose(const float *bb, const float *xb, const float *by, const float *xy,
                         size_t d);

#endif
