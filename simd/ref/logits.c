/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "finite", "argmax", "logsumexp", "kl". */
#include "simd/ref/ref.h"

#include "base/dmath_seq.h"

int pf_finite_scalar(size_t n, const float *x) {
  for (size_t i = 0; i < n; i++)
    if ((pf_bits_of_f32(x[i]) & 0x7f800000u) == 0x7f800000u)
      return 0;
  return 1;
}

size_t pf_argmax_scalar(size_t n, const float *x, float *second) {
  size_t at = 0;
  float best = -PF_INF, next = -PF_INF;
  for (size_t i = 0; i < n; i++) {
    if (x[i] > best) {
      next = best;
      best = x[i];
      at = i;
    } else if (x[i] > next) {
      next = x[i];
    }
  }
  *second = next + 0.0f;
  return at;
}

double pf_logsumexp_scalar(size_t n, const float *x) {
  float max = -PF_INF;
  for (size_t i = 0; i < n; i++) {
    if (x[i] != x[i])
      return (double)PF_NAN;
    max = x[i] > max ? x[i] : max;
  }
  if (max == PF_INF || max == -PF_INF)
    return (double)max;
  double v[PF_LANES] = {0};
  for (size_t i = 0; i < n; i++)
    v[i % PF_LANES] = v[i % PF_LANES] + pf_dexp_seq((double)x[i] - (double)max);
  return (double)max + pf_dlog_seq(rtree_d(v));
}

static double kl_of(size_t n, const float *p, double lse_p, const float *q, double lse_q) {
  double v[PF_LANES] = {0};
  for (size_t i = 0; i < n; i++) {
    double a = (double)p[i] - lse_p, b = (double)q[i] - lse_q;
    double e = pf_dexp_seq(a), t = e * (a - b);
    v[i % PF_LANES] = v[i % PF_LANES] + (e == 0.0 ? 0.0 : t);
  }
  return rtree_d(v) + 0.0;
}

void pf_kl_scalar(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
                  const double *lse_q, double *kl) {
  for (size_t r = 0; r < m; r++)
    kl[r] = kl_of(n, p, lse_p, q[r], lse_q[r]);
}
