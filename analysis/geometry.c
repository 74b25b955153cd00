/* SPDX-License-Identifier: Apache-2.0
 * The 2x2 decomposition of residuals at one site: h_XY against h_BB + D_X + D_Y, where D_X = h_XB -
 * h_BB and so on. */
#include "analysis/geometry.h"

#include <math.h>

#include "base/fpenv.h"

void pf_additive(const float *bb, const float *xb, const float *by, size_t d, float *out) {
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i++) {
    float dx = xb[i] - bb[i], dy = by[i] - bb[i];
    out[i] = (bb[i] + dx) + dy;
  }
  pf_fp_leave(env);
}

static double cosine(double dot, double a2, double b2, bool *zero) {
  if (a2 == 0 || b2 == 0) {
    *zero = true;
    return 0;
  }
  return dot / (sqrt(a2) * sqrt(b2));
}

pf_geometry pf_decompose(const float *bb, const float *xb, const float *by, const float *xy,
                         size_t d) {
  double xx = 0, yy = 0, zz = 0, ss = 0, x_y = 0, z_s = 0, ii = 0,
         hh = 0; /* z = D_XY, s = D_X + D_Y, i = z - s */
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i++) {
    float fx = xb[i] - bb[i], fy = by[i] - bb[i], fz = xy[i] - bb[i];
    double x = fx, y = fy, z = fz, h = bb[i], s = x + y, r = z - s;
    xx += x * x;
    yy += y * y;
    zz += z * z;
    ss += s * s;
    x_y += x * y;
    z_s += z * s;
    ii += r * r;
    hh += h * h;
  }
  pf_geometry g = {
      .norm_x = sqrt(xx), .norm_y = sqrt(yy), .norm_xy = sqrt(zz), .norm_bb = sqrt(hh)};
  g.cos_xy_sum = cosine(z_s, zz, ss, &g.zero);
  g.cos_x_y = cosine(x_y, xx, yy, &g.zero);
  g.zero |= zz == 0;
  g.inter_over_xy = zz == 0 ? 0 : sqrt(ii) / g.norm_xy;
  pf_fp_leave(env);
  return g;
}
