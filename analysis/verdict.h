/* SPDX-License-Identifier: Apache-2.0
 * The study's hypotheses and their decision rules, over plain tables of per-cell numbers.
 *
 * A hypothesis is supported if every criterion's interval lies on the required side, not supported
 * if one lies wholly on the other side, and inconclusive otherwise. A control that does not hold
 * decides nothing: inconclusive. A site that is not relevant (H1a) is uninformative: it is never
 * called additive. */
#ifndef PF_ANALYSIS_VERDICT_H
#define PF_ANALYSIS_VERDICT_H

#include <jansson.h>

#include "personaflow/stats.h"

typedef struct pf_thresholds {
#define PF_THRESHOLD(name, value, what) double name;
#include "analysis/thresholds.def"
#undef PF_THRESHOLD
} pf_thresholds;
extern const pf_thresholds pf_threshold;
/* The i-th threshold for printing; NULL past the last. */
const char *pf_threshold_text(size_t i, double *value);

typedef enum pf_verdict {
  PF_INCONCLUSIVE,
  PF_SUPPORTED,
  PF_NOT_SUPPORTED,
  PF_UNINFORMATIVE
} pf_verdict;
const char *pf_verdict_name(pf_verdict v);

typedef enum pf_rule {
  PF_AT_LEAST, /* lower end >= the limit; missed: upper end < it */
  PF_OVER,     /* lower end > the limit (another interval's upper end); missed: upper end < its
                  lower end */
  PF_UNDER,    /* upper end < the limit; missed: lower end >= it */
  PF_WITHIN,   /* between -limit and limit; missed: wholly outside on one side */
  PF_HOLDS,    /* the interval holds the limit; missed: it does not */
  PF_P,        /* p < the limit; never missed: a large p shows nothing */
  PF_CONTROL,  /* value >= the limit, else the whole decides nothing */
  PF_SHOW      /* printed only */
} pf_rule;

typedef enum pf_met { PF_UNCLEAR, PF_MET, PF_MISSED } pf_met;

typedef struct pf_criterion {
  char name[40];
  pf_interval x; /* of a p: the value alone */
  pf_rule rule;
  double lo, hi; /* the limit, twice; of PF_OVER the other interval's ends */
  pf_met met;
  /* Shown beside, of a table: the mean over its cells, the interval of the statistic over personas
   * alone, and the exact sign-flip test of the persona means against the limit. NaN: there is
   * none. */
  double mean, sign_flip;
  pf_interval personas;
} pf_criterion;

enum { PF_MAX_CRITERIA = 12 };
typedef struct pf_finding {
  const char *id, *title, *kind; /* kind: a class beside the verdict (H5), or NULL */
  size_t n_cells;
  pf_verdict verdict;
  bool control_failed;
  size_t n;
  pf_criterion c[PF_MAX_CRITERIA];
} pf_finding;

/* Tables have one number for each cell (personaflow/stats.h); o: the bootstrap of all intervals of
 * a finding. Statistics: the median, of paired per-cell quantities; the mean of markers (shares of
 * cells) and of KL10 where a bound of "small" is wanted. */

/* H1a site relevance. kl_sx, kl_sy: KL10 of dropping persona (S_X) and task (S_Y; NULL: not shown);
 * floor: noise floor, nats. */
int pf_h1a(const pf_crossed *kl_sx, const pf_crossed *kl_sy, double floor, const pf_boot *o,
           pf_finding *out);
/* H1b additivity: rx, r0 = 1 - KL(A1)/KL(S_X), 1 - KL(A1)/KL(S_0); p of A1 against shuffled
 * personas (N1) and random directions (N3), adjusted. h1a: of the same site. */
int pf_h1b(const pf_crossed *rx, const pf_crossed *r0, const pf_crossed *kl_a1, double p_n1,
           double p_n3, const pf_finding *h1a, const pf_boot *o, pf_finding *out);
/* H1c band: R_X, mean over p_last, g1, g2, less its mean over the other sites. */
int pf_h1c(const pf_crossed *rx_difference, const pf_boot *o, pf_finding *out);
/* H2 geometry: cos(D_XY, D_X + D_Y) against the null's 95 % quantile; share of the additive part;
 * cos(D_X, D_Y) is shown. */
int pf_h2(const pf_crossed *cos_sum, double null_q95, const pf_additivity *r2,
          const pf_crossed *cos_xy, const pf_boot *o, pf_finding *out);
/* H2b: |Inter|/|D_XY| against KL10(A1) within the site; KL10(N4, random) - KL10(A1). */
int pf_h2b(const pf_crossed *ratio, const pf_crossed *kl_a1, const pf_crossed *n4_less_a1,
           const pf_boot *o, pf_finding *out);
/* H3 behaviour: marker scores of each cell (0 or 1, or own minus others); sx NULL: not run. */
int pf_h3(const pf_crossed *clean, const pf_crossed *additive, const pf_crossed *remove_x,
          const pf_crossed *sx, const pf_boot *o, pf_finding *out);

/* Each persona's cells under the setting that is best (mean over cells) for the half of the
 * personas that it does not belong to (those of even and of odd number). out (cells of
 * settings[0]); chosen[h]: the setting that half h gets. */
int pf_held_out_best(const pf_crossed *settings, size_t n, double *out, size_t chosen[2]);
/* H4: one table of held-out closures for each content class, names[i]; t3: closure of the full
 * transplant, the control. At most 8 classes. */
int pf_h4(const pf_crossed *closure, const char *const *names, size_t n, const pf_crossed *t3,
          const pf_boot *o, pf_finding *out);
/* H4b: closure at t = 0 less closure over t = 1..9. */
int pf_h4b(const pf_crossed *difference, const pf_boot *o, pf_finding *out);
/* H4c: closure in a host less closure in the reference host, one table for each host. At most 8. */
int pf_h4c(const pf_crossed *difference, const char *const *names, size_t n, const pf_boot *o,
           pf_finding *out);
/* H5 direct reading: direct and indirect closures of the edge cuts; closures of the transplants of
 * the persona's K,V (t1), of the later prompt's (t2), of all (t3, the control). kind: direct,
 * indirect, redundant, synergistic or mixed. */
int pf_h5(const pf_crossed *direct, const pf_crossed *indirect, const pf_crossed *t1,
          const pf_crossed *t2, const pf_crossed *t3, const pf_boot *o, pf_finding *out);
/* H5 of two ablations of the same reads: their verdict where it is one, else inconclusive; kind
 * likewise. suffix[i] names the i-th in the criteria. */
void pf_h5_both(const pf_finding *const each[2], const char *const suffix[2], pf_finding *out);
/* H6 distributed: n80 as a share of the persona's tokens, closure of keeping the top 5 % of heads;
 * p of each against random sets, adjusted. */
int pf_h6(const pf_crossed *n80_share, const pf_crossed *top_heads, double p_tokens, double p_heads,
          const pf_boot *o, pf_finding *out);
/* H7 persistence: KL over the tokens after a cut from step 16, and its share of the cut from 0. */
int pf_h7(const pf_crossed *late_kl, const pf_crossed *late_share, double floor, const pf_boot *o,
          pf_finding *out);
/* H8: rank correlation of causal effect and attention mass; value-weighted mass is shown. */
int pf_h8(const pf_interval *mass, const pf_interval *value_weighted, size_t n_cells,
          pf_finding *out);
/* H9 generality: one hypothesis' verdicts over models. Supported: enough of them agree on a verdict
 * that decides; not supported: no more can, with those that are inconclusive or not run. */
void pf_h9(const pf_verdict *v, size_t n, pf_finding *out);

/* "H5 direct reading — MODEL, 48 cells: c_D = .85 [.80, .90] (over c_I: yes), ... → supported /
 * direct". */
int pf_finding_line(const pf_finding *f, const char *model, char **line);
/* The same as an object: id, title, verdict, kind, cells, criteria. A new reference, NULL when out
 * of memory. */
json_t *pf_finding_json(const pf_finding *f);

#endif
