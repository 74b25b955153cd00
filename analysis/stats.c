/* SPDX-License-Identifier: Apache-2.0
 * Order statistics of per-cell values, as NumPy computes them; means and ranks. */
#include "analysis/stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/dmath.h"
#include "base/mem.h"
#include "base/status.h"

double pf_quantile(const double *sorted, size_t n, double q) {
  double at = q * (double)(n - 1);
  size_t i = (size_t)at;
  if (i >= n - 1)
    return sorted[n - 1];
  double t = at - (double)i, a = sorted[i], b = sorted[i + 1];
  /* from the nearer end, so that t = 1 gives b exactly */
  return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

int pf_ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static size_t numbers_first(double *x, size_t n) {
  size_t k = 0;
  for (size_t i = 0; i < n; i++)
    if (!isnan(x[i]))
      x[k++] = x[i];
  return k;
}

pf_stats pf_stats_of(double *x, size_t n) {
  pf_stats s = {0, NAN, NAN, NAN, NAN, NAN};
  s.n = numbers_first(x, n);
  if (s.n == 0)
    return s;
  qsort(x, s.n, sizeof *x, pf_ascending);
  size_t half = s.n / 2;
  s.median = s.n % 2 ? x[half] : (x[half - 1] + x[half]) / 2;
  s.q25 = pf_quantile(x, s.n, 0.25);
  s.q75 = pf_quantile(x, s.n, 0.75);
  s.min = x[0];
  s.max = x[s.n - 1];
  return s;
}

double pf_mean(const double *x, size_t n) {
  double sum = 0, k = 0;
  for (size_t i = 0; i < n; i++)
    if (!isnan(x[i])) {
      sum += x[i];
      k++;
    }
  return k > 0 ? sum / k : NAN;
}

/* ---- ranks
 * --------------------------------------------------------------------------------------------------------
 */

typedef struct placed {
  double x;
  size_t at;
} placed;

static int by_value(const void *a, const void *b) {
  const placed *p = a, *q = b;
  int d = (p->x > q->x) - (p->x < q->x);
  return d ? d : (p->at > q->at) - (p->at < q->at);
}

int pf_order(const double *x, size_t n, size_t *order, size_t *n_out) {
  placed *p = pf_alloc(n, sizeof *p);
  size_t k = 0;
  if (!p)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++)
    if (!isnan(x[i]))
      p[k++] = (placed){x[i], i};
  qsort(p, k, sizeof *p, by_value);
  for (size_t i = 0; i < k; i++)
    order[i] = p[i].at;
  pf_free(p);
  *n_out = k;
  return PF_OK;
}

void pf_mid_ranks(const double *x, const size_t *order, size_t n, const double *w, double *rank) {
  double before = 0;
  for (size_t i = 0, end; i < n; i = end) {
    double group = 0;
    for (end = i; end < n && x[order[end]] == x[order[i]]; end++)
      group += w ? w[order[end]] : 1;
    for (size_t k = i; k < end; k++)
      rank[order[k]] = before + (group + 1) / 2;
    before += group;
  }
}

double pf_correlation(const double *x, const double *y, const size_t *order, size_t n,
                      const double *w) {
  double sw = 0, sx = 0, sy = 0, xx = 0, yy = 0, xy = 0;
  for (size_t k = 0; k < n; k++) {
    double m = w ? w[order[k]] : 1;
    sw += m;
    sx += m * x[order[k]];
    sy += m * y[order[k]];
  }
  for (size_t k = 0; k < n; k++) {
    double m = w ? w[order[k]] : 1, a = x[order[k]] - sx / sw, b = y[order[k]] - sy / sw;
    xx += m * (a * a);
    yy += m * (b * b);
    xy += m * (a * b);
  }
  double r = xx > 0 && yy > 0 ? xy / (sqrt(xx) * sqrt(yy)) : NAN;
  return r > 1 ? 1 : r < -1 ? -1 : r;
}

void pf_pair_up(const double *x, const double *y, size_t n, double *a, double *b) {
  for (size_t i = 0; i < n; i++) {
    bool both = !isnan(x[i]) && !isnan(y[i]);
    a[i] = both ? x[i] : NAN;
    b[i] = both ? y[i] : NAN;
  }
}

static double dtanh(double z) {
  double e = pf_dexp(2 * z);
  return z > 300 ? 1 : (e - 1) / (e + 1);
}

static pf_interval fisher(double r, size_t n) {
  if (isnan(r) || n < 4)
    return (pf_interval){r, NAN, NAN};
  if (r == 1 || r == -1)
    return (pf_interval){r, r, r};
  double z = 0.5 * pf_dlog((1 + r) / (1 - r)), se = sqrt((1 + r * r / 2) / (double)(n - 3));
  return (pf_interval){r, dtanh(z - PF_Z975 * se), dtanh(z + PF_Z975 * se)};
}

int pf_spearman(const double *x, const double *y, size_t n, pf_interval *out) {
  double *a = pf_alloc(n, 4 * sizeof *a), *b = a ? a + n : NULL, *ra = a ? a + 2 * n : NULL,
         *rb = a ? a + 3 * n : NULL;
  size_t *order = pf_alloc(n, sizeof *order), k = 0;
  int rc = a && order ? PF_OK : PF_ENOMEM;
  *out = (pf_interval){NAN, NAN, NAN};
  if (rc == PF_OK) {
    pf_pair_up(x, y, n, a, b);
    rc = pf_order(b, n, order, &k);
  }
  if (rc == PF_OK) {
    pf_mid_ranks(b, order, k, NULL, rb);
    rc = pf_order(a, n, order, &k);
  }
  if (rc == PF_OK) {
    pf_mid_ranks(a, order, k, NULL, ra);
    *out = fisher(k ? pf_correlation(ra, rb, order, k, NULL) : NAN, k);
  }
  pf_free(order);
  pf_free(a);
  return rc;
}

/* ---- proportions and lists of p
 * -----------------------------------------------------------------------------------
 */

pf_interval pf_wilson(size_t k, size_t n) {
  double m = (double)n, p = (double)k / m, z2 = PF_Z975 * PF_Z975;
  if (n == 0)
    return (pf_interval){NAN, NAN, NAN};
  double mid = p + z2 / (2 * m), half = PF_Z975 * sqrt(p * (1 - p) / m + z2 / (4 * m * m));
  double lo = (mid - half) / (1 + z2 / m), hi = (mid + half) / (1 + z2 / m);
  return (pf_interval){p, k == 0 ? 0 : lo, k == n ? 1 : hi}; /* as they are without rounding */
}

int pf_holm(const double *p, size_t n, double *adjusted) {
  size_t *order = pf_alloc(n, sizeof *order), m = 0;
  int rc = order ? pf_order(p, n, order, &m) : PF_ENOMEM;
  double most = 0;
  for (size_t i = 0; i < n && rc == PF_OK && adjusted != p; i++)
    adjusted[i] = NAN;
  for (size_t i = 0; i < m && rc == PF_OK; i++) {
    double a = (double)(m - i) * p[order[i]];
    most = a > most ? a : most;
    adjusted[order[i]] = most < 1 ? most : 1;
  }
  pf_free(order);
  return rc;
}
