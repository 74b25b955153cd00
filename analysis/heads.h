/* SPDX-License-Identifier: Apache-2.0
 * What each head takes from some keys: attention mass and the sum of weighted values. */
#ifndef PF_ANALYSIS_HEADS_H
#define PF_ANALYSIS_HEADS_H

#include "analysis/flow.h"

/* Of a track, at the rows that give y_0, y_1, ...: everything in the lab's memory. */
typedef struct pf_heads {
  const pf_track *t;
  size_t layers, heads, group, d_head, rows;
  size_t n_keys;      /* of a pattern */
  float *pattern;     /* (layers, rows, heads, n_keys) */
  float *v;           /* (layers, kv heads, prompt tokens, d_head): values of the prompt's keys */
  float *final_scale; /* (rows) of the final norm */
  float *post_scale;  /* (layers, rows) of the norms behind attention; NULL: there are none */
} pf_heads;

int pf_heads_read(pf_heads *h, pf_flow *f, const pf_track *t);
/* Mean over rows of the mass on the keys [lo, hi), indices of the prompt: out (layers, heads). */
void pf_heads_mass(const pf_heads *h, int32_t lo, int32_t hi, double *out);
/* sum_j alpha_j v_j over the keys [lo, hi): out (layers, rows, heads, d_head). */
void pf_heads_values(const pf_heads *h, int32_t lo, int32_t hi, float *out);
/* W_O z for such sums z: (layers, rows, heads, d), in the lab's memory. */
int pf_heads_results(const pf_heads *h, pf_flow *f, const float *z, float **out);
/* Mean over rows of the results' lengths: out (layers, heads). */
void pf_heads_norms(const pf_heads *h, const pf_flow *f, const float *results, double *out);
/* Mean over rows of what the results add to logit[y_t] - logit[host's best other token], with norms
 * frozen at the run's scales: out (layers, heads). host: references of another prompt. */
int pf_heads_projection(const pf_heads *h, pf_flow *f, const float *results, const pf_ref *host,
                        double *out);

#endif
