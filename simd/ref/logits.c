/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "finite", "argmax", "logsumexp", "kl", "jsd". */
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

/* hi log(hi / h) + lo log(lo / h), h the mean of hi >= lo and d = log(hi / lo); log(hi / h) =
 * 2 artanh((hi - lo) / (3 hi + lo)). */
static double jsd_term(double hi, double lo, double d) {
  double z = (hi - lo) / (3.0 * hi + lo), u = pf_dartanh2_seq(z);
  double big = hi * u, small = lo * (u - d);
  return hi == 0.0 ? 0.0 : big + (lo == 0.0 ? 0.0 : small);
}

static void jsd_of(size_t n, const float *p, double lse_p, const float *q, double lse_q,
                   double *rkl, double *jsd) {
  double r[PF_LANES] = {0}, v[PF_LANES] = {0};
  for (size_t i = 0; i < n; i++) {
    double a = (double)p[i] - lse_p, b = (double)q[i] - lse_q, d = a - b;
    double ea = pf_dexp_seq(a), eb = pf_dexp_seq(b), t = eb * (b - a);
    bool more = ea > eb;
    r[i % PF_LANES] = r[i % PF_LANES] + (eb == 0.0 ? 0.0 : t);
    v[i % PF_LANES] =
        v[i % PF_LANES] + jsd_term(more ? ea : eb, more ? eb : ea, d < 0.0 ? 0.0 - d : d);
  }
  *rkl = rtree_d(r) + 0.0;
  *jsd = 0.5 * rtree_d(v) + 0.0;
}

void pf_jsd_scalar(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
                   const double *lse_q, double *rkl, double *jsd) {
  for (size_t i = 0; i < m; i++)
    jsd_of(n, p, lse_p, q[i], lse_q[i], &rkl[i], &jsd[i]);
}
