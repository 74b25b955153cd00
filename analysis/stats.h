/* SPDX-License-Identifier: Apache-2.0
 * What the statistics share: ranks, sorting, draws. */
#ifndef PF_ANALYSIS_STATS_H
#define PF_ANALYSIS_STATS_H

#include "base/rng.h"
#include "personaflow/stats.h"

/* Streams of the generator: samples of the bootstrap take 0 .., permutations these and up. */
#define PF_STREAM_PERMUTATIONS (1ull << 32)

/* The 97.5 % point of the normal distribution. */
#define PF_Z975 1.959963984540054

/* qsort order of doubles without NaN. */
int pf_ascending(const void *a, const void *b);
/* The places of x in ascending order, equal values by place, places that hold NaN left out; *n_out:
 * how many are in order[]. */
int pf_order(const double *x, size_t n, size_t *order, size_t *n_out);
/* Mid-ranks (from 1) of n values whose ascending order is given; value i stands w[i] times (w NULL:
 * once). */
void pf_mid_ranks(const double *x, const size_t *order, size_t n, const double *w, double *rank);
/* Pearson's correlation with weights (w NULL: 1) over the places order[]; NaN when an axis does not
 * vary. */
double pf_correlation(const double *x, const double *y, const size_t *order, size_t n,
                      const double *w);
/* NaN in x or y makes the place NaN in a and b. */
void pf_pair_up(const double *x, const double *y, size_t n, double *a, double *b);

static inline size_t pf_draw_below(uint64_t seed, uint64_t stream, uint64_t counter, size_t n) {
  return (size_t)(pf_uniform(seed, stream, counter) * (double)n);
}

/* Persona labels in random order for each task: perm[task * n_personas + i]. */
void pf_draw_labels(uint64_t seed, uint64_t draw, size_t n_personas, size_t n_tasks,
                    uint32_t *perm);

/* Options with the defaults filled in; PF_EUSAGE. */
int pf_boot_fill(const pf_boot *o, pf_boot *out);

#endif
