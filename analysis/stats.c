/* SPDX-License-Identifier: Apache-2.0
 * Order statistics of per-cell values, as NumPy computes them. */
#include "analysis/stats.h"

#include <math.h>
#include <stdlib.h>

double pf_quantile(const double *sorted, size_t n, double q) {
  double at = q * (double)(n - 1);
  size_t i = (size_t)at;
  if (i >= n - 1)
    return sorted[n - 1];
  double t = at - (double)i, a = sorted[i], b = sorted[i + 1];
  /* from the nearer end, so that t = 1 gives b exactly */
  return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

static int ascending(const void *a, const void *b) {
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
  qsort(x, s.n, sizeof *x, ascending);
  size_t half = s.n / 2;
  s.median = s.n % 2 ? x[half] : (x[half - 1] + x[half]) / 2;
  s.q25 = pf_quantile(x, s.n, 0.25);
  s.q75 = pf_quantile(x, s.n, 0.75);
  s.min = x[0];
  s.max = x[s.n - 1];
  return s;
}
