/* SPDX-License-Identifier: Apache-2.0
 * Bootstrap over personas and tasks: a sample is a number of times for each persona and for each
 * task, and a cell has the product as its weight. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/stats.h"
#include "base/mem.h"
#include "base/status.h"

/* A statistic of the sample in which persona i stands wp[i] times and task j wt[j] times; NaN when
 * it has none. */
typedef double (*statistic)(void *ctx, const double *wp, const double *wt);

int pf_boot_fill(const pf_boot *o, pf_boot *out) {
  *out = o ? *o : (pf_boot){0};
  out->draws = out->draws ? out->draws : PF_BOOT_DRAWS;
  out->level = out->level != 0 ? out->level : 0.95;
  if (!(out->level > 0.5 && out->level < 1))
    return pf_fail(PF_EUSAGE, "bootstrap: level %g: want one between 0.5 and 1", out->level);
  return PF_OK;
}

static void draw_sample(const pf_boot *o, uint64_t b, size_t n_personas, size_t n_tasks,
                        double *wp) {
  double *wt = wp + n_personas;
  memset(wp, 0, (n_personas + n_tasks) * sizeof *wp);
  for (size_t k = 0; k < n_personas; k++)
    wp[pf_draw_below(o->seed, b, k, n_personas)]++;
  for (size_t k = 0; k < n_tasks; k++)
    wt[o->resampling == PF_PERSONAS ? k : pf_draw_below(o->seed, b, n_personas + k, n_tasks)]++;
}

/* The statistic's value over the data into *value, and over the samples, ascending and without NaN,
 * into draws (o->draws); returns their number in *n. o is filled in. */
static int draws_of(size_t n_personas, size_t n_tasks, statistic f, void *ctx, const pf_boot *o,
                    double *value, double *draws, size_t *n) {
  double *w = pf_alloc(n_personas + n_tasks, sizeof *w);
  *n = 0;
  if (!w)
    return PF_ENOMEM;
  for (size_t i = 0; i < n_personas + n_tasks; i++)
    w[i] = 1;
  *value = f(ctx, w, w + n_personas);
  for (size_t b = 0; b < o->draws; b++) {
    draw_sample(o, b, n_personas, n_tasks, w);
    double x = f(ctx, w, w + n_personas);
    if (!isnan(x))
      draws[(*n)++] = x;
  }
  qsort(draws, *n, sizeof *draws, pf_ascending);
  pf_free(w);
  return PF_OK;
}

static pf_interval percentiles(double value, const double *draws, size_t n, double level) {
  if (n == 0)
    return (pf_interval){value, NAN, NAN};
  double tail = (1 - level) / 2;
  return (pf_interval){value, pf_quantile(draws, n, tail), pf_quantile(draws, n, 1 - tail)};
}

static int check_table(size_t n_personas, size_t n_tasks) {
  size_t n;
  if (n_personas == 0 || n_tasks == 0 || !pf_mul3(n_personas, n_tasks, 1, &n))
    return pf_fail(PF_EUSAGE, "bootstrap: a table of %zu personas x %zu tasks", n_personas,
                   n_tasks);
  return PF_OK;
}

/* The percentile interval, and the samples for who asks (draws_out NULL: not kept). */
static int interval_of(size_t n_personas, size_t n_tasks, statistic f, void *ctx, const pf_boot *o,
                       pf_interval *out, double **draws_out, size_t *n) {
  double *draws = pf_alloc(o->draws, sizeof *draws), value = NAN;
  int rc = draws ? draws_of(n_personas, n_tasks, f, ctx, o, &value, draws, n) : PF_ENOMEM;
  if (rc == PF_OK)
    *out = percentiles(value, draws, *n, o->level);
  if (draws_out && rc == PF_OK)
    *draws_out = draws;
  else
    pf_free(draws);
  return rc;
}

/* ---- mean and median
 * ----------------------------------------------------------------------------------------------
 */

typedef struct table {
  const pf_crossed *t;
  size_t *order, n; /* ascending cells; for the mean: as they stand */
} table;

static double weight(const table *c, size_t cell, const double *wp, const double *wt) {
  return wp[cell / c->t->n_tasks] * wt[cell % c->t->n_tasks];
}

static double mean_of(void *ctx, const double *wp, const double *wt) {
  const table *c = ctx;
  double sum = 0, n = 0;
  for (size_t k = 0; k < c->t->n_personas * c->t->n_tasks; k++)
    if (!isnan(c->t->x[k])) {
      double w = weight(c, k, wp, wt);
      sum += w * c->t->x[k];
      n += w;
    }
  return n > 0 ? sum / n : NAN;
}

/* The mean of the two middle values of the sample (of one value twice when their number is odd). */
static double median_of(void *ctx, const double *wp, const double *wt) {
  const table *c = ctx;
  double n = 0, before = 0, lo = NAN;
  for (size_t k = 0; k < c->n; k++)
    n += weight(c, c->order[k], wp, wt);
  double first = floor((n - 1) / 2), second = floor(n / 2);
  for (size_t k = 0; k < c->n && n > 0; k++) {
    double x = c->t->x[c->order[k]];
    before += weight(c, c->order[k], wp, wt);
    if (isnan(lo) && before > first)
      lo = x;
    if (before > second)
      return (lo + x) / 2;
  }
  return NAN;
}

static const statistic statistics[] = {[PF_MEAN] = mean_of, [PF_MEDIAN] = median_of};

/* Two personas have a number, or (where tasks are drawn too) two tasks: samples can differ. */
static bool can_vary(const pf_crossed *t, pf_resampling how) {
  size_t first = SIZE_MAX, n = t->n_personas * t->n_tasks;
  bool personas = false, tasks = false;
  for (size_t c = 0; c < n; c++) {
    if (isnan(t->x[c]))
      continue;
    first = first == SIZE_MAX ? c : first;
    personas |= c / t->n_tasks != first / t->n_tasks;
    tasks |= c % t->n_tasks != first % t->n_tasks;
  }
  return personas || (tasks && how != PF_PERSONAS);
}

static int table_draws(const pf_crossed *t, pf_statistic what, const pf_boot *o, pf_interval *out,
                       double **draws, size_t *n) {
  table c = {t, NULL, 0};
  int rc = check_table(t->n_personas, t->n_tasks);
  if (rc == PF_OK && !(c.order = pf_alloc(t->n_personas * t->n_tasks, sizeof *c.order)))
    rc = PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_order(t->x, t->n_personas * t->n_tasks, c.order, &c.n);
  if (rc == PF_OK)
    rc = interval_of(t->n_personas, t->n_tasks, statistics[what], &c, o, out, draws, n);
  if (rc == PF_OK && !can_vary(t, o->resampling)) {
    out->lo = out->hi = NAN;
    *n = 0;
  }
  pf_free(c.order);
  return rc;
}

int pf_bootstrap(const pf_crossed *t, pf_statistic what, const pf_boot *o, pf_interval *out) {
  pf_boot all;
  size_t n;
  int rc = pf_boot_fill(o, &all);
  *out = (pf_interval){NAN, NAN, NAN};
  return rc == PF_OK ? table_draws(t, what, &all, out, NULL, &n) : rc;
}

int pf_bootstrap_tost(const pf_crossed *t, pf_statistic what, double margin, const pf_boot *o,
                      pf_tost *out) {
  pf_boot all;
  double *draws = NULL;
  size_t n = 0, below = 0, above = 0;
  int rc = pf_boot_fill(o, &all);
  *out = (pf_tost){{NAN, NAN, NAN}, NAN, false};
  all.level = 2 * all.level - 1;
  if (rc == PF_OK)
    rc = table_draws(t, what, &all, &out->ci, &draws, &n);
  for (size_t i = 0; i < n; i++) {
    below += draws[i] <= -margin;
    above += draws[i] >= margin;
  }
  if (rc == PF_OK && n > 0) {
    out->p = (double)(1 + (below > above ? below : above)) / (double)(1 + n);
    out->equivalent = out->ci.lo > -margin && out->ci.hi < margin;
  }
  pf_free(draws);
  return rc;
}

/* ---- rank correlation
 * ---------------------------------------------------------------------------------------------
 */

/* Both tables' cells, in the ascending orders of each; n the same in both. */
typedef struct ranked {
  size_t n_tasks, n_cells, n;
  double *x, *y, *w, *rx, *ry;
  size_t *ox, *oy;
} ranked;

static double spearman_of(void *ctx, const double *wp, const double *wt) {
  ranked *r = ctx;
  for (size_t k = 0; k < r->n_cells; k++)
    r->w[k] = wp[k / r->n_tasks] * wt[k % r->n_tasks];
  pf_mid_ranks(r->x, r->ox, r->n, r->w, r->rx);
  pf_mid_ranks(r->y, r->oy, r->n, r->w, r->ry);
  return r->n ? pf_correlation(r->rx, r->ry, r->ox, r->n, r->w) : NAN;
}

static int ranked_make(ranked *r, const pf_crossed *x, const pf_crossed *y) {
  size_t n = x->n_personas * x->n_tasks, m;
  *r = (ranked){x->n_tasks, n, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
  r->x = pf_alloc(n, 5 * sizeof *r->x);
  r->ox = pf_alloc(n, 2 * sizeof *r->ox);
  if (!r->x || !r->ox)
    return PF_ENOMEM;
  r->y = r->x + n, r->w = r->y + n, r->rx = r->w + n, r->ry = r->rx + n, r->oy = r->ox + n;
  pf_pair_up(x->x, y->x, n, r->x, r->y);
  int rc = pf_order(r->x, n, r->ox, &r->n);
  return rc == PF_OK ? pf_order(r->y, n, r->oy, &m) : rc;
}

int pf_bootstrap_spearman(const pf_crossed *x, const pf_crossed *y, const pf_boot *o,
                          pf_interval *out) {
  pf_boot all;
  ranked r = {0};
  size_t n;
  int rc = pf_boot_fill(o, &all);
  *out = (pf_interval){NAN, NAN, NAN};
  if (rc == PF_OK)
    rc = check_table(x->n_personas, x->n_tasks);
  if (rc == PF_OK && (x->n_personas != y->n_personas || x->n_tasks != y->n_tasks))
    rc = pf_fail(PF_EUSAGE, "bootstrap: the two tables differ in shape");
  if (rc == PF_OK)
    rc = ranked_make(&r, x, y);
  if (rc == PF_OK)
    rc = interval_of(x->n_personas, x->n_tasks, spearman_of, &r, &all, out, NULL, &n);
  if (r.n < 4) /* of two cells it is 1 or -1 in every sample; pf_spearman draws the same line */
    out->lo = out->hi = NAN;
  pf_free(r.x);
  pf_free(r.ox);
  return rc;
}

/* ---- share of the additive part
 * -----------------------------------------------------------------------------------
 */

typedef struct gram {
  const double *g;
  size_t n_personas, n_tasks, n;
  double *v; /* (n) weights of one mean */
} gram;

/* |sum_c v_c h_c|^2 */
static double square_of(const gram *m, const double *v) {
  double sum = 0;
  for (size_t a = 0; a < m->n; a++)
    for (size_t b = 0; b < m->n && v[a] != 0; b++)
      sum += v[a] * v[b] * m->g[a * m->n + b];
  return sum;
}

/* |sum over the cells of one persona (or task) of their weights on the other axis|^2 */
static double line_square(gram *m, const double *w, size_t line, bool is_persona) {
  for (size_t c = 0; c < m->n; c++) {
    size_t i = c / m->n_tasks, j = c % m->n_tasks;
    m->v[c] = (is_persona ? i : j) == line ? w[is_persona ? j : i] : 0;
  }
  return square_of(m, m->v);
}

/* With P = sum wp and T = sum wt: every persona's mean stands T times, every task's P times. */
static double r2_of(void *ctx, const double *wp, const double *wt) {
  gram *m = ctx;
  double p = 0, t = 0, all = 0, personas = 0, tasks = 0;
  for (size_t i = 0; i < m->n_personas; i++)
    p += wp[i];
  for (size_t j = 0; j < m->n_tasks; j++)
    t += wt[j];
  for (size_t i = 0; i < m->n_personas; i++)
    personas += wp[i] > 0 ? wp[i] * line_square(m, wt, i, true) / t : 0;
  for (size_t j = 0; j < m->n_tasks; j++)
    tasks += wt[j] > 0 ? wt[j] * line_square(m, wp, j, false) / p : 0;
  for (size_t c = 0; c < m->n; c++) {
    m->v[c] = wp[c / m->n_tasks] * wt[c % m->n_tasks];
    all += m->v[c] * m->g[c * m->n + c];
  }
  double mean = square_of(m, m->v) / (p * t), total = all - mean;
  return total > 1e-12 * all ? (personas + tasks - 2 * mean) / total : NAN;
}

/* R2 when cell (i,j) holds the vector of persona perm[j * n_personas + i]: the tasks' part and the
 * total stay, so the personas' part decides. */
static double r2_permuted(const gram *m, const uint32_t *perm, double fixed, double total) {
  double personas = 0;
  for (size_t i = 0; i < m->n_personas; i++)
    for (size_t j = 0; j < m->n_tasks; j++) {
      size_t a = perm[j * m->n_personas + i] * m->n_tasks + j;
      for (size_t k = 0; k < m->n_tasks; k++)
        personas += m->g[a * m->n + perm[k * m->n_personas + i] * m->n_tasks + k];
    }
  return (personas / (double)m->n_tasks + fixed) / total;
}

/* What r2_permuted needs: SS of tasks less the mean's square twice, and SS total. */
static void r2_parts(gram *m, double *fixed, double *total) {
  double tasks = 0, all = 0;
  for (size_t c = 0; c < m->n; c++)
    all += m->g[c * m->n + c];
  for (size_t c = 0; c < m->n; c++)
    m->v[c] = 1;
  double mean = square_of(m, m->v) / (double)m->n;
  for (size_t j = 0; j < m->n_tasks; j++) {
    for (size_t c = 0; c < m->n; c++)
      m->v[c] = c % m->n_tasks == j;
    tasks += square_of(m, m->v) / (double)m->n_personas;
  }
  *fixed = tasks - 2 * mean;
  *total = all - mean;
}

static int r2_null(gram *m, const pf_boot *o, pf_additivity *out) {
  double *draws = pf_alloc(o->draws, sizeof *draws), fixed, total;
  uint32_t *perm = pf_alloc(m->n, sizeof *perm);
  int rc = draws && perm ? PF_OK : PF_ENOMEM;
  r2_parts(m, &fixed, &total);
  for (size_t b = 0; b < o->draws && rc == PF_OK; b++) {
    pf_draw_labels(o->seed, b, m->n_personas, m->n_tasks, perm);
    draws[b] = r2_permuted(m, perm, fixed, total);
  }
  if (rc == PF_OK) {
    out->p = pf_rank_p(out->r2.value, draws, o->draws, PF_GREATER);
    qsort(draws, o->draws, sizeof *draws, pf_ascending);
    out->null_q95 = pf_quantile(draws, o->draws, 0.95);
  }
  pf_free(perm);
  pf_free(draws);
  return rc;
}

int pf_r2_additive(const double *g, size_t n_personas, size_t n_tasks, const pf_boot *o,
                   pf_additivity *out) {
  pf_boot all;
  size_t n;
  gram m = {g, n_personas, n_tasks, n_personas * n_tasks, NULL};
  int rc = pf_boot_fill(o, &all);
  *out = (pf_additivity){{NAN, NAN, NAN}, NAN, NAN};
  if (rc == PF_OK)
    rc = check_table(n_personas, n_tasks);
  if (rc == PF_OK && !(m.v = pf_alloc(m.n, sizeof *m.v)))
    rc = PF_ENOMEM;
  if (rc == PF_OK)
    rc = interval_of(n_personas, n_tasks, r2_of, &m, &all, &out->r2, NULL, &n);
  if (rc == PF_OK && !isnan(out->r2.value))
    rc = r2_null(&m, &all, out);
  pf_free(m.v);
  return rc;
}
