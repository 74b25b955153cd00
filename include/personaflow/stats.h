/* SPDX-License-Identifier: Apache-2.0
 * Statistics of a study: order statistics, bootstrap intervals for a crossed design (persona x
 * task), exact and permutation tests.
 *
 * Every function gives the same bits on every machine: fp64 with + - * / and square roots in a
 * fixed order, exponentials and logarithms of the library's own, no threads; random draws come from
 * the counter-based generator Philox 4x32-10 (Salmon et al., SC 2011), so a seed names one result.
 * The draws of all functions are uniform numbers of 53 bits. NaN stands for "there is no number"
 * in inputs (a cell that was not run) and in results (nothing to compute from). */
#ifndef PERSONAFLOW_STATS_H
#define PERSONAFLOW_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "personaflow/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- order statistics --------------------------------------------------------------------- */

typedef struct pf_stats {
  size_t n;                          /* values that are numbers */
  double median, q25, q75, min, max; /* NaN when n = 0 */
} pf_stats;

/* Quantile q in [0,1] of n ascending values by linear interpolation between the two nearest order
 * statistics, position q*(n-1): NumPy's default, definition 7 of Hyndman and Fan (1996). n >= 1. */
PF_API double pf_quantile(const double *sorted, size_t n, double q);
/* Sorts x in place and leaves NaN out. The median of an even number is the mean of the middle two.
 */
PF_API pf_stats pf_stats_of(double *x, size_t n);
/* Sum over i = 0 .. n-1 in this order, NaN left out, divided by their number; NaN when there is
 * none. */
PF_API double pf_mean(const double *x, size_t n);

/* ---- bootstrap over personas and tasks ---------------------------------------------------- */

typedef struct pf_interval {
  double value, lo, hi; /* the estimate from the data themselves, and the interval's ends */
} pf_interval;

/* One number for each cell, x[persona * n_tasks + task]; NaN: the cell is not there. */
typedef struct pf_crossed {
  const double *x;
  size_t n_personas, n_tasks;
} pf_crossed;

typedef enum pf_statistic { PF_MEAN, PF_MEDIAN } pf_statistic;

/* What is drawn with replacement. PF_PIGEONHOLE: personas and tasks, each on its own (Owen, "The
 * pigeonhole bootstrap", Annals of Applied Statistics 1, 2007): a cell stands in the sample as
 * often as its persona was drawn times as often as its task was. PF_PERSONAS: personas alone, each
 * with all its tasks (a cluster bootstrap). */
typedef enum pf_resampling { PF_PIGEONHOLE, PF_PERSONAS } pf_resampling;

/* A member that is zero has its default. Sample b draws the personas floor(U n_personas) with the
 * uniform numbers 0 .. n_personas-1 of stream b, then the tasks with the next n_tasks. */
typedef struct pf_boot {
  pf_resampling resampling;
  size_t draws; /* 10 000 */
  double level; /* 0.95 */
  uint64_t seed;
} pf_boot;
#define PF_BOOT_DRAWS 10000

/* Percentile interval: quantiles (1-level)/2 and 1-(1-level)/2 of the statistic over the samples;
 * a sample without a cell that is there is left out. Where all numbers are of one persona and
 * (unless personas alone are drawn) one task, no two samples differ: lo and hi are NaN. o NULL: all
 * defaults. PF_EUSAGE for an empty table or a level that is not in (0,1). */
PF_API int pf_bootstrap(const pf_crossed *t, pf_statistic what, const pf_boot *o, pf_interval *out);
/* The same for Spearman's rank correlation between two tables over the cells that are in both; of
 * fewer than four of them lo and hi are NaN. */
PF_API int pf_bootstrap_spearman(const pf_crossed *x, const pf_crossed *y, const pf_boot *o,
                                 pf_interval *out);

/* Two one-sided tests (Schuirmann 1987) of -margin < statistic < margin at 1-level (5 %). */
typedef struct pf_tost {
  pf_interval ci;  /* of coverage 2*level-1 (90 %) */
  double p;        /* the larger of the two one-sided p: (1 + samples outside) / (1 + samples) */
  bool equivalent; /* the interval lies within the margins */
} pf_tost;
PF_API int pf_bootstrap_tost(const pf_crossed *t, pf_statistic what, double margin,
                             const pf_boot *o, pf_tost *out);

/* Share of the spread of n_personas x n_tasks vectors h_ij that mu + a_i + b_j takes:
 * R2 = 1 - SS_interaction / SS_total, from their Gram matrix gram[c*N+c'] = <h_c, h_c'>,
 * N = n_personas * n_tasks, c = persona * n_tasks + task; every cell must be there. The null
 * permutes persona labels within each task. */
typedef struct pf_additivity {
  pf_interval r2;  /* interval by the bootstrap */
  double null_q95; /* 95 % quantile of R2 under the null */
  double p;        /* (1 + draws with R2 at or above) / (1 + draws) */
} pf_additivity;
PF_API int pf_r2_additive(const double *gram, size_t n_personas, size_t n_tasks, const pf_boot *o,
                          pf_additivity *out);

/* ---- tests -------------------------------------------------------------------------------- */

typedef enum pf_alternative { PF_TWO_SIDED, PF_GREATER, PF_LESS } pf_alternative;

/* Mean over the tasks that are there, one number for each persona. */
PF_API void pf_persona_means(const pf_crossed *t, double *out);
/* Exact sign-flip test (Fisher's randomisation test for one sample) that values x are symmetric
 * around null: the share of all 2^n choices of signs whose sum of (x - null) is at least as extreme
 * as the one at hand. NaN are left out; NaN when none or more than 20 are left. Sums that differ by
 * less than 1e-12 of the sum of magnitudes count as equal. */
PF_API double pf_sign_flip(const double *x, size_t n, double null, pf_alternative alt);
/* Equivalence by two one-sided sign-flip tests: the larger p of "above -margin" and "below margin".
 */
PF_API double pf_sign_flip_tost(const double *x, size_t n, double margin);

/* (1 + number of null draws at least as extreme) / (1 + n): Phipson and Smyth 2010. Two-sided: by
 * magnitude. */
PF_API double pf_rank_p(double observed, const double *null, size_t n, pf_alternative alt);

/* Does it matter which persona's value is used? k[(i * n_personas + i') * n_tasks + j] is the
 * outcome in cell (i,j) with the value of persona i'. The statistic is the sum over cells of
 * k[i][i][j]; the null permutes persona labels within each task (draw b: Fisher-Yates from the last
 * place down, stream 2^32 + b). PF_LESS: own values give smaller outcomes. */
PF_API int pf_label_permutation(const double *k, size_t n_personas, size_t n_tasks,
                                pf_alternative alt, const pf_boot *o, double *p);

/* Identification: predicted[persona * n_tasks + task] is the persona that a score picked, -1 for
 * none. p is exact: the probability of as many hits when persona labels are permuted within each
 * task, from rook numbers. At most 150 personas. */
typedef struct pf_identified {
  size_t hits, n;
  pf_interval accuracy; /* Wilson */
  double p;
} pf_identified;
PF_API int pf_identification(const int32_t *predicted, size_t n_personas, size_t n_tasks,
                             pf_identified *out);

/* Exact two-sided McNemar test: b pairs are yes-no, c are no-yes. 1 when both are 0. */
PF_API double pf_mcnemar(size_t b, size_t c);
/* Wilson's score interval (1927) for k of n, coverage 95 %. */
PF_API pf_interval pf_wilson(size_t k, size_t n);
/* Holm's step-down adjustment (1979); NaN stay NaN and do not count. adjusted may be p. */
PF_API int pf_holm(const double *p, size_t n, double *adjusted);
/* Spearman's rank correlation with mid-ranks for ties over the pairs without NaN. Interval:
 * Fisher's z with the variance (1 + r^2/2) / (n - 3) of Bonett and Wright (2000); NaN ends for n
 * < 4. */
PF_API int pf_spearman(const double *x, const double *y, size_t n, pf_interval *out);

#ifdef __cplusplus
}
#endif

#endif
