/* SPDX-License-Identifier: Apache-2.0
 * Trials and the records they become: each trial scored on all of y, its KL summed over windows of
 * steps, and its closure against a base condition. */
#ifndef PF_ANALYSIS_SHEET_H
#define PF_ANALYSIS_SHEET_H

#include "analysis/lab.h"

typedef struct pf_line {
  pf_trial v;
  json_t *row;           /* NULL: no record */
  const pf_trial *base;  /* of a line with a record: closure 0; NULL: no closure */
  const pf_trial *clean; /* with v.logprob and the base's: closure_ll 1; NULL: none */
  bool steps;            /* the KL of every step stands in the record too (kl_steps) */
} pf_line;

/* Lines live in the lab's memory (pf_lab_alloc) until it is cleared. */
typedef struct pf_sheet {
  pf_lab *l;
  json_t *rows;
  pf_line **v;
  size_t n, cap;
} pf_sheet;

/* Adds a trial of the track with a record; what it does is set in (*line)->v. The record begins
 * with `condition`. */
int pf_sheet_add(pf_sheet *s, const pf_track *t, const char *condition, pf_line **line);
/* The same without a record: for choices that later trials depend on. */
int pf_sheet_probe(pf_sheet *s, const pf_track *t, pf_line **line);
/* Runs what was added since the last time and appends its records: n_scored, kl (all steps), kl10
 * (t < 10), kl_0, kl_1_9, kl_10, and with a base closure, closure10, closure_0, closure_1_9,
 * closure_10: 1 - KL / KL of the base. The same of the reverse KL (reverse_kl,
 * closure_reverse_kl) and the Jensen-Shannon divergence (jsd, closure_jsd), over all steps and 10.
 * With v.logprob: ll, ll10, the log-likelihood of y in nats; with base and clean closure_ll,
 * closure_ll10: 0 at the base's, 1 at the clean one's. */
int pf_sheet_run(pf_sheet *s);
void pf_sheet_free(pf_sheet *s);

/* Sum over the steps [lo, hi) that there are. */
double pf_sum_steps(const double *kl, size_t n, size_t lo, size_t hi);
/* 1 - kl / base over all n steps; NaN where the base has none. */
double pf_closure(const pf_trial *v, const pf_trial *base, size_t n);

/* One cut, in a lab's memory; [q_lo, q_hi) and [k_lo, k_hi) are positions. */
int pf_line_cut(pf_sheet *s, pf_line *line, pf_cut cut);
int pf_line_swap(pf_sheet *s, pf_line *line, pf_swap swap);
int pf_line_tap(pf_sheet *s, pf_line *line, pf_tap tap);

#endif
