/* SPDX-License-Identifier: Apache-2.0
 * D4: does attention mass explain the cause? For each head: what cutting its reads of the persona
 * by p_last and generated tokens costs (KL), its mean attention mass there, and the mean length of
 * W_O sum_j alpha_j v_j over the persona's keys, and what that adds to the logit of the answer's
 * token over the one that the baseline's prompt prefers; the same for the first token's key, on
 * which attention rests, as a control. doc/STUDY.md, D4. */
#include <math.h>

#include "analysis/experiment.h"
#include "analysis/heads.h"
#include "analysis/jsonout.h"
#include "base/status.h"
#include "personaflow/stats.h"

enum { TOP = 10 };

/* KL of cutting the reads b and c of each head alone: out (layers, heads). */
static int causes(pf_flow *f, const pf_heads *h, double *out) {
  size_t n = h->layers * h->heads, n_y = pf_lab_n_y(f->s.l);
  pf_line **x = pf_lab_alloc(f->s.l, n, sizeof *x);
  int rc = x ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    rc = pf_sheet_probe(&f->s, f->xy, &x[i]);
    if (rc == PF_OK)
      rc = pf_flow_cut_head(f, x[i], PF_READ_B | PF_READ_C, (int32_t)(i / h->heads),
                            (int32_t)(i % h->heads));
  }
  if (rc == PF_OK)
    rc = pf_sheet_run(&f->s);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    out[i] = pf_sum_steps(x[i]->v.kl, n_y, 0, n_y);
  return rc;
}

static bool among_best(const double *x, size_t n, size_t i) {
  size_t above = 0;
  for (size_t j = 0; j < n; j++)
    above += x[j] > x[i] || (x[j] == x[i] && j < i);
  return above < TOP;
}

/* Share of the TOP heads by cause that are among the TOP by the score. */
static double recall(const double *cause, const double *score, size_t n) {
  size_t hits = 0, all = 0;
  for (size_t i = 0; i < n; i++)
    if (among_best(cause, n, i)) {
      all++;
      hits += among_best(score, n, i);
    }
  return all ? (double)hits / (double)all : (double)NAN;
}

static json_t *map(const double *x, const pf_heads *h) {
  json_t *layers = json_array();
  for (size_t k = 0; k < h->layers; k++) {
    json_t *row = json_array();
    for (size_t q = 0; q < h->heads; q++)
      json_array_append_new(row, pf_js_num(x[k * h->heads + q]));
    json_array_append_new(layers, row);
  }
  return layers;
}

static int put(pf_flow *f, const char *score, const double *cause, const double *x,
               const pf_heads *h) {
  size_t n = h->layers * h->heads;
  pf_interval rho;
  int rc = pf_spearman(cause, x, n, &rho);
  if (rc != PF_OK)
    return rc;
  return pf_rows_add(f->s.rows, json_pack("{s:s,s:o,s:o,s:o}", "condition", score, "spearman",
                                          pf_js_num(rho.value), "recall10",
                                          pf_js_num(recall(cause, x, n)), "map", map(x, h)));
}

/* Mass, weighted values and projection of the keys [lo, hi). host: what the answer is held against.
 */
static int scores(pf_flow *f, const pf_heads *h, const double *cause, int32_t lo, int32_t hi,
                  const pf_ref *host, const char *const names[3]) {
  pf_lab *l = f->s.l;
  size_t n = h->layers * h->heads;
  double *x = pf_lab_alloc(l, n, sizeof *x);
  float *z = pf_lab_alloc(l, n * h->rows, h->d_head * sizeof *z);
  if (!x || !z)
    return PF_ENOMEM;
  pf_heads_mass(h, lo, hi, x);
  int rc = put(f, names[0], cause, x, h);
  pf_heads_values(h, lo, hi, z);
  float *results = NULL;
  if (rc == PF_OK)
    rc = pf_heads_results(h, f, z, &results);
  if (rc != PF_OK)
    return rc;
  pf_heads_norms(h, f, results, x);
  rc = put(f, names[1], cause, x, h);
  if (rc == PF_OK)
    rc = pf_heads_projection(h, f, results, host, x);
  return rc == PF_OK ? put(f, names[2], cause, x, h) : rc;
}

/* The baseline persona's answer to the same task. */
static int host_refs(pf_lab *l, const pf_ref **out) {
  const pf_track *t;
  int rc = pf_lab_track(l, (pf_who){.persona = PF_BASE, .task = pf_lab_task(l)}, &t);
  return rc == PF_OK ? pf_lab_refs(l, t, out) : rc;
}

int pf_d4(pf_lab *l, size_t part, json_t *rows) {
  pf_flow f;
  pf_heads h;
  (void)part;
  int rc = pf_flow_open(&f, l, rows);
  if (rc == PF_OK && pf_lab_n_y(l) > 0) {
    rc = pf_heads_read(&h, &f, f.xy);
    size_t n = h.layers * h.heads;
    double *cause = rc == PF_OK ? pf_lab_alloc(l, n, sizeof *cause) : NULL;
    if (rc == PF_OK)
      rc = cause ? causes(&f, &h, cause) : PF_ENOMEM;
    if (rc == PF_OK)
      rc = pf_rows_add(rows, json_pack("{s:s,s:o}", "condition", "cause", "map", map(cause, &h)));
    const pf_ref *host = NULL;
    if (rc == PF_OK)
      rc = host_refs(l, &host);
    if (rc == PF_OK)
      rc = scores(&f, &h, cause, f.xy->x.lo, f.xy->x.hi, host,
                  (const char *const[3]){"mass", "value_weighted", "projection"});
    if (rc == PF_OK)
      rc = scores(&f, &h, cause, 0, 1, host,
                  (const char *const[3]){"first_mass", "first_value_weighted", "first_projection"});
  }
  pf_flow_close(&f);
  return rc;
}
