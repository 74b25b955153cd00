/* SPDX-License-Identifier: Apache-2.0
 * Order statistics of per-cell values. */
#ifndef PF_ANALYSIS_STATS_H
#define PF_ANALYSIS_STATS_H

#include <stddef.h>

typedef struct pf_stats {
  size_t n;                          /* values that are numbers */
  double median, q25, q75, min, max; /* NaN when n = 0 */
} pf_stats;

/* Quantile q in [0,1] of n ascending values by linear interpolation between the two nearest order
 * statistics (NumPy's default): position q*(n-1). n >= 1. */
double pf_quantile(const double *sorted, size_t n, double q);
/* Sorts x in place and leaves NaN out. The median of an even number is the mean of the middle two.
 */
pf_stats pf_stats_of(double *x, size_t n);

#endif
