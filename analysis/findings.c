/* SPDX-License-Identifier: Apache-2.0
 * Verdicts of a study: tables of per-cell numbers from its records, the decision rules of verdict.c
 * over them. Which records decide which hypothesis stands in doc/STUDY.md, "Verdicts". */
#include "analysis/findings.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/jsonout.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* Settings of a content: each layer of a model that a page takes (report.c), and some more. */
enum { MAX_SETTINGS = 1024 + 64, LATE = 16 };
#define SITES "p_last", "g1", "g2"
static const char *const sites[] = {SITES};
enum { N_SITES = sizeof sites / sizeof *sites };

/* Tables live until the end. */
typedef struct work {
  pf_records r, more[PF_POOLED]; /* more: of the same cells in other words */
  size_t n_more;
  size_t n; /* cells */
  double **tables;
  size_t n_tables, cap_tables;
  json_t *out;
  const char *model;
  int rc;
} work;

/* ---- tables ---------------------------------------------------------------------------------- */

static double *keep(work *w, double *x) {
  if (!x) {
    w->rc = w->rc == PF_OK ? PF_ENOMEM : w->rc;
    return NULL;
  }
  int rc = pf_grow((void **)&w->tables, &w->cap_tables, w->n_tables + 1, sizeof(double *));
  if (rc != PF_OK) {
    pf_free(x);
    w->rc = rc;
    return NULL;
  }
  return w->tables[w->n_tables++] = x;
}

/* A table of NaN. */
static double *blank(work *w) {
  double *x = w->rc == PF_OK ? keep(w, pf_alloc(w->n, sizeof *x)) : NULL;
  for (size_t c = 0; x && c < w->n; c++)
    x[c] = NAN;
  return x;
}

static pf_crossed crossed(const work *w, const double *x) {
  return pf_records_crossed(&w->r, x);
}

/* A field of the records of one study; of counts, 1 where there is any. */
static double *field_of(pf_records *r, const char *experiment, const char *query, const char *field,
                        bool counts, int *rc) {
  double *x = pf_records_table(r, experiment, query, field, rc);
  for (size_t c = 0; x && counts && c < r->n_personas * r->n_tasks; c++)
    x[c] = isnan(x[c]) ? x[c] : x[c] > 0;
  return x;
}

/* x: each cell's mean over all studies that have a number of it. */
static void pool(work *w, const char *experiment, const char *query, const char *field, bool counts,
                 double *x) {
  double *n = w->n_more && x ? pf_alloc(w->n, sizeof *n) : NULL;
  for (size_t c = 0; n && c < w->n; c++)
    n[c] = !isnan(x[c]);
  for (size_t k = 0; n && k < w->n_more && w->rc == PF_OK; k++) {
    double *y = field_of(&w->more[k], experiment, query, field, counts, &w->rc);
    for (size_t c = 0; y && c < w->n; c++)
      if (!isnan(y[c])) {
        x[c] = n[c] > 0 ? x[c] + y[c] : y[c];
        n[c]++;
      }
    pf_free(y);
  }
  for (size_t c = 0; n && c < w->n; c++)
    x[c] /= n[c] > 0 ? n[c] : 1;
  if (w->n_more && !n && w->rc == PF_OK)
    w->rc = PF_ENOMEM;
  pf_free(n);
}

static double *pooled(work *w, const char *experiment, const char *query, const char *field,
                      bool counts) {
  double *x =
      w->rc == PF_OK ? keep(w, field_of(&w->r, experiment, query, field, counts, &w->rc)) : NULL;
  pool(w, experiment, query, field, counts, x);
  return w->rc == PF_OK ? x : NULL;
}

PF_PRINTF(4, 5)
static double *table(work *w, const char *experiment, const char *field, const char *query, ...) {
  char q[256];
  va_list ap;
  va_start(ap, query);
  vsnprintf(q, sizeof q, query, ap);
  va_end(ap);
  return pooled(w, experiment, q, field, false);
}

static bool has(work *w, const char *experiment) {
  return w->rc == PF_OK && pf_records_of(&w->r, experiment, &w->rc) != NULL;
}

static size_t numbers(const work *w, const double *x) {
  size_t n = 0;
  for (size_t c = 0; x && c < w->n; c++)
    n += !isnan(x[c]);
  return n;
}

/* 1 - a / b in each cell. */
static double *ratio(work *w, const double *a, const double *b) {
  double *x = w->rc == PF_OK ? keep(w, pf_alloc(w->n, sizeof *x)) : NULL;
  for (size_t c = 0; x && c < w->n; c++)
    x[c] = b[c] > 0 ? 1 - a[c] / b[c] : (double)NAN;
  return x;
}

static double *difference(work *w, const double *a, const double *b) {
  double *x = w->rc == PF_OK ? keep(w, pf_alloc(w->n, sizeof *x)) : NULL;
  for (size_t c = 0; x && c < w->n; c++)
    x[c] = a[c] - b[c];
  return x;
}

/* ---- findings -------------------------------------------------------------------------------- */

static void put(work *w, const pf_finding *f, json_t *where) {
  char *line = NULL;
  json_t *o = pf_finding_json(f);
  if (w->rc == PF_OK)
    w->rc = pf_finding_line(f, w->model, &line);
  if (w->rc == PF_OK &&
      (!o || json_object_set_new(o, "where", where ? json_incref(where) : json_null()) != 0 ||
       json_object_set_new(o, "line", json_string(line)) != 0 || json_array_append(w->out, o) != 0))
    w->rc = PF_ENOMEM;
  json_decref(o);
  json_decref(where);
  pf_free(line);
}

/* ---- C1 -------------------------------------------------------------------------------------- */

/* p that the own persona's vector gives a smaller KL than the others' do (N1, labels permuted). */
static double p_shuffled(work *w, const char *site, int layer, const double *own) {
  size_t np = w->r.n_personas, nt = w->r.n_tasks, i, k;
  double *x = pf_alloc(np * np * nt, sizeof *x), p = NAN;
  char q[96];
  const json_t *rows = pf_records_of(&w->r, "C1", &w->rc), *row, *draw;
  for (size_t c = 0; x && c < np * np * nt; c++)
    x[c] = NAN;
  for (size_t c = 0; x && c < w->n; c++)
    x[(c / nt * np + c / nt) * nt + c % nt] = own[c];
  snprintf(q, sizeof q, "site=%s layer=%d condition=N1", site, layer);
  bool whole = x && np > 2;
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(&w->r, row);
    if (!whole || c >= w->n || !pf_record_is(row, q))
      continue;
    json_array_foreach(json_object_get(row, "draws"), k, draw)
        x[(c / nt * np + (c / nt + 1 + k) % np) * nt + c % nt] = json_number_value(draw);
  }
  for (size_t c = 0; whole && c < np * np * nt; c++)
    whole = !isnan(x[c]);
  if (whole)
    w->rc = pf_label_permutation(x, np, nt, PF_LESS, NULL, &p);
  pf_free(x);
  return p;
}

/* p that A1 has a smaller mean KL than persona effects of the same length in random directions. */
static double p_random(work *w, const char *site, int layer, const char *kind, const double *own) {
  double null[64] = {0}, sum = 0;
  size_t n = SIZE_MAX, cells = 0, i, k;
  char q[96];
  const json_t *rows = pf_records_of(&w->r, "C1", &w->rc), *row, *draw;
  snprintf(q, sizeof q, "site=%s layer=%d condition=%s", site, layer, kind);
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(&w->r, row);
    const json_t *draws = json_object_get(row, "draws");
    if (c >= w->n || isnan(own[c]) || !pf_record_is(row, q) || !draws)
      continue;
    json_array_foreach(draws, k, draw) {
      if (k < 64)
        null[k] += json_number_value(draw);
    }
    n = json_array_size(draws) < n ? json_array_size(draws) : n;
    sum += own[c];
    cells++;
  }
  return cells && n <= 64 ? pf_rank_p(sum, null, n, PF_LESS) : (double)NAN;
}

typedef struct spot {
  const char *site;
  int layer;
  double *a1, *rx, *r0;
  double floor, p[2];
  pf_finding h1a;
} spot;

static json_t *where_of(const spot *s) {
  return json_pack("{s:s,s:i,s:o}", "site", s->site, "layer", s->layer, "floor",
                   pf_js_num(s->floor));
}

static double *c1(work *w, const spot *s, const char *condition) {
  return table(w, "C1", "kl10", "site=%s layer=%d condition=%s", s->site, s->layer, condition);
}

static void site_relevance(work *w, spot *s) {
  double *sx = c1(w, s, "S_X"), *sy = c1(w, s, "S_Y"), *s0 = c1(w, s, "S_0");
  s->a1 = c1(w, s, "A1");
  s->floor = pf_records_floor(&w->r, s->site, s->layer, &w->rc);
  if (w->rc != PF_OK)
    return;
  s->rx = ratio(w, s->a1, sx);
  s->r0 = ratio(w, s->a1, s0);
  s->p[0] = p_shuffled(w, s->site, s->layer, s->a1);
  double iso = p_random(w, s->site, s->layer, "N3_isotropic", s->a1),
         cov = p_random(w, s->site, s->layer, "N3_covariance", s->a1);
  s->p[1] = isnan(cov) || iso > cov ? iso : cov; /* the harder of the two */
  pf_crossed tx = crossed(w, sx), ty = crossed(w, sy);
  if (w->rc == PF_OK)
    w->rc = pf_h1a(&tx, &ty, s->floor, NULL, &s->h1a);
  if (w->rc == PF_OK)
    put(w, &s->h1a, where_of(s));
}

/* Holm's adjustment is over the two tests of a site and layer: of 50 random directions no p is
 * small enough for a larger family. */
static void additivity(work *w, const spot *s) {
  pf_finding f;
  double adjusted[2];
  pf_crossed rx = crossed(w, s->rx), r0 = crossed(w, s->r0), a1 = crossed(w, s->a1);
  if (w->rc == PF_OK)
    w->rc = pf_holm(s->p, 2, adjusted);
  if (w->rc == PF_OK)
    w->rc = pf_h1b(&rx, &r0, &a1, adjusted[0], adjusted[1], &s->h1a, NULL, &f);
  if (w->rc == PF_OK)
    put(w, &f, where_of(s));
}

/* R_X of a cell where dropping the persona costs it something (H1a's limit, of the cell): elsewhere
 * it is a ratio of noise, without a lower end. */
static double *relevant_ratio(work *w, const spot *s) {
  double *a = c1(w, s, "A1"), *b = c1(w, s, "S_X"), *r = w->rc == PF_OK ? ratio(w, a, b) : NULL,
         floor = pf_records_floor(&w->r, s->site, s->layer, &w->rc),
         limit = fmax(pf_threshold.relevant_kl, pf_threshold.relevant_floors * floor);
  for (size_t c = 0; r && c < w->n; c++)
    r[c] = b[c] >= limit ? r[c] : (double)NAN;
  return r;
}

/* R_X over the tested layers and sites that are relevant to a cell, mean; sites outside the
 * transition for comparison. */
static void band(work *w) {
  static const char *const inside[] = {SITES}, *const outside[] = {"task_mid", "p_user_last", "g8"};
  double *x[2];
  const json_t *layers = json_object_get(w->r.manifest, "layers");
  for (int side = 0; side < 2 && w->rc == PF_OK; side++) {
    x[side] = keep(w, pf_calloc(w->n, sizeof(double)));
    double *n = keep(w, pf_calloc(w->n, sizeof *n));
    for (int i = 0; i < 3 && w->rc == PF_OK; i++)
      for (size_t k = 0; k < json_array_size(layers) && w->rc == PF_OK; k++) {
        spot s = {.site = side ? outside[i] : inside[i],
                  .layer = (int)json_integer_value(json_array_get(layers, k))};
        double *r = relevant_ratio(w, &s);
        for (size_t c = 0; r && c < w->n; c++)
          if (!isnan(r[c])) {
            x[side][c] += r[c];
            n[c]++;
          }
      }
    for (size_t c = 0; w->rc == PF_OK && c < w->n; c++)
      x[side][c] = n[c] > 0 ? x[side][c] / n[c] : (double)NAN;
  }
  pf_finding f;
  double *d = w->rc == PF_OK ? difference(w, x[0], x[1]) : NULL;
  pf_crossed t = crossed(w, d);
  if (w->rc == PF_OK)
    w->rc = pf_h1c(&t, NULL, &f);
  if (w->rc == PF_OK)
    put(w, &f, NULL);
}

/* 95 % quantile of cos(D_XY, D_X' + D_Y) over the other personas of all cells. */
static double cosine_null(work *w, const spot *s) {
  char q[96];
  size_t n = 0, i, k;
  double *x = keep(w, pf_alloc(w->n * w->r.n_personas + 1, sizeof *x)), at = NAN;
  const json_t *rows = pf_records_of(&w->r, "C1", &w->rc), *row, *v;
  snprintf(q, sizeof q, "site=%s layer=%d condition=geometry", s->site, s->layer);
  json_array_foreach(rows, i, row) {
    if (!x || !pf_record_is(row, q))
      continue;
    json_array_foreach(json_object_get(row, "null_cos"), k, v) {
      if (n < w->n * w->r.n_personas)
        x[n++] = json_number_value(v);
    }
  }
  if (x && n) {
    pf_stats_of(x, n); /* sorts */
    at = pf_quantile(x, n, 0.95);
  }
  return at;
}

/* A sample that has personas twice leaves less to the interaction than the grid does (one persona
 * alone: nothing), so the samples lie above the estimate: the interval is reflected about it (the
 * basic bootstrap; Davison and Hinkley 1997, 5.2.1). */
static pf_interval reflected(pf_interval x) {
  return (pf_interval){x.value, 2 * x.value - x.hi, fmin(1, 2 * x.value - x.lo)};
}

/* From the first cell's Gram matrix; without one, from the share under each cell's own y. */
static void additive_share(work *w, const spot *s, pf_additivity *out) {
  char q[96];
  size_t i;
  const json_t *rows = pf_records_of(&w->r, "C1", &w->rc), *row;
  *out = (pf_additivity){{NAN, NAN, NAN}, NAN, NAN};
  snprintf(q, sizeof q, "site=%s layer=%d condition=geometry gram", s->site, s->layer);
  json_array_foreach(rows, i, row) {
    const json_t *g = json_object_get(row, "gram");
    if (!pf_record_is(row, q) || json_array_size(g) != w->n * w->n)
      continue;
    double *gram = keep(w, pf_alloc(w->n * w->n, sizeof *gram));
    for (size_t k = 0; gram && k < w->n * w->n; k++)
      gram[k] = json_number_value(json_array_get(g, k));
    if (gram)
      w->rc = pf_r2_additive(gram, w->r.n_personas, w->r.n_tasks, NULL, out);
    out->r2 = reflected(out->r2);
    return;
  }
  double *r2 = table(w, "C1", "r2_add", "site=%s layer=%d condition=geometry", s->site, s->layer);
  pf_crossed t = crossed(w, r2);
  if (w->rc == PF_OK && numbers(w, r2))
    w->rc = pf_bootstrap(&t, PF_MEDIAN, NULL, &out->r2);
}

static void geometry(work *w, const spot *s) {
  pf_finding f;
  pf_additivity share;
  double *g[3];
  static const char *const fields[] = {"cos_xy_sum", "cos_x_y", "inter_over_xy"};
  for (int i = 0; i < 3; i++)
    g[i] = table(w, "C1", fields[i], "site=%s layer=%d condition=geometry", s->site, s->layer);
  double null = w->rc == PF_OK ? cosine_null(w, s) : 0;
  if (w->rc != PF_OK || !numbers(w, g[0]))
    return;
  additive_share(w, s, &share);
  json_t *where = where_of(s);
  if (!isnan(share.null_q95)) {
    json_object_set_new(where, "R2_add of permuted personas, 95 %", pf_js_num(share.null_q95));
    json_object_set_new(where, "its p", pf_js_num(share.p));
  }
  pf_crossed sum = crossed(w, g[0]), xy = crossed(w, g[1]), inter = crossed(w, g[2]);
  if (w->rc == PF_OK)
    w->rc = pf_h2(&sum, null, &share, &xy, NULL, &f);
  if (w->rc == PF_OK)
    put(w, &f, json_incref(where));
  json_decref(where);
  double *n4 = c1(w, s, "N4_random"), *d = w->rc == PF_OK ? difference(w, n4, s->a1) : NULL;
  pf_crossed a1 = crossed(w, s->a1), td = crossed(w, d);
  if (w->rc == PF_OK)
    w->rc = pf_h2b(&inter, &a1, &td, NULL, &f);
  if (w->rc == PF_OK)
    put(w, &f, where_of(s));
}

static void local(work *w) {
  const json_t *layers = json_object_get(w->r.manifest, "layers");
  size_t n = 0;
  if (!has(w, "C1"))
    return;
  spot *s = pf_calloc(N_SITES * json_array_size(layers) + 1, sizeof *s);
  if (!s)
    w->rc = PF_ENOMEM;
  for (int i = 0; i < N_SITES; i++)
    for (size_t k = 0; k < json_array_size(layers) && w->rc == PF_OK; k++) {
      s[n] = (spot){.site = sites[i], .layer = (int)json_integer_value(json_array_get(layers, k))};
      if (numbers(w, c1(w, &s[n], "S_X")) < 2)
        continue;
      site_relevance(w, &s[n++]);
    }
  for (size_t i = 0; i < n && w->rc == PF_OK; i++)
    additivity(w, &s[i]);
  if (w->rc == PF_OK && n)
    band(w);
  for (size_t i = 0; i < n && w->rc == PF_OK; i++)
    geometry(w, &s[i]);
  pf_free(s);
}

/* ---- C2 -------------------------------------------------------------------------------------- */

/* A field of texts that a value acted on once; of counts, whether there is any, before wordings are
 * taken together: a marker in one of two says .5. */
static double *marked(work *w, const char *condition, const char *field, bool counts) {
  char q[96];
  snprintf(q, sizeof q, "condition=%s schedule=once", condition);
  return pooled(w, "C2", q, field, counts);
}

static void behaviour(work *w) {
  static const struct {
    const char *name, *field;
    bool counts;
  } lists[] = {{"own less others' mean, not verbatim", "own_minus_others_any", false},
               {"any marker", "markers", true},
               {"not verbatim", "markers_not_verbatim", true}};
  if (!has(w, "C2"))
    return;
  for (int i = 0; i < 3 && w->rc == PF_OK; i++) {
    static const char *const names[] = {"clean", "additive", "remove_X", "S_X"};
    pf_finding f;
    double *x[4];
    for (int k = 0; k < 4; k++)
      x[k] = marked(w, names[k], lists[i].field, lists[i].counts);
    if (w->rc != PF_OK || !numbers(w, x[0]))
      continue;
    pf_crossed t[4];
    for (int k = 0; k < 4; k++)
      t[k] = crossed(w, x[k]);
    w->rc = pf_h3(&t[0], &t[1], &t[2], numbers(w, x[3]) ? &t[3] : NULL, NULL, &f);
    if (w->rc == PF_OK)
      put(w, &f, json_pack("{s:s}", "markers", lists[i].name));
  }
}

/* ---- C3 -------------------------------------------------------------------------------------- */

/* The name of a record's setting; false: it is not of the content, not in host B, or degenerate. */
static bool setting_of(const json_t *row, const char *content, char name[192]) {
  if (!pf_record_is(row, "host=B !degenerate") || strcmp(pf_js_str(row, "condition"), content) != 0)
    return false;
  char *layers = json_dumps(json_object_get(row, "layers"), JSON_COMPACT);
  snprintf(name, 192, "%s|%s|%s|%.3g", layers ? layers : "", pf_js_str(row, "positions"),
           pf_js_str(row, "op"), json_number_value(json_object_get(row, "alpha")));
  free(layers);
  return true;
}

static size_t find_setting(char q[][192], size_t n, const char *name) {
  size_t k = 0;
  while (k < n && strcmp(q[k], name) != 0)
    k++;
  return k;
}

/* Distinct settings of a content; once: at p_last alone. */
static size_t settings_of(work *w, const char *content, bool once, char q[][192]) {
  size_t n = 0, i;
  const json_t *rows = pf_records_of(&w->r, "C3", &w->rc), *row;
  json_array_foreach(rows, i, row) {
    char name[192];
    if (!setting_of(row, content, name) || (once && !pf_record_is(row, "positions=p_last")))
      continue;
    if (n < MAX_SETTINGS && find_setting(q, n, name) == n)
      memcpy(q[n++], name, sizeof name);
  }
  return n;
}

/* The closure of every setting in every cell: (n, cells). */
static int fill_settings(work *w, const char *content, char q[][192], size_t n, double *x) {
  size_t i;
  const json_t *rows = pf_records_of(&w->r, "C3", &w->rc), *row;
  for (size_t k = 0; k < n * w->n; k++)
    x[k] = NAN;
  json_array_foreach(rows, i, row) {
    char name[192];
    size_t c = pf_record_cell(&w->r, row);
    const json_t *v = json_object_get(row, "closure");
    if (c >= w->n || !json_is_number(v) || !setting_of(row, content, name))
      continue;
    size_t k = find_setting(q, n, name);
    if (k < n)
      x[k * w->n + c] = json_number_value(v);
  }
  return w->rc;
}

/* The best setting of a content, chosen on the other half of the personas. */
static double *held_out(work *w, const char *content, bool once, json_t *chosen_names) {
  static char q[MAX_SETTINGS][192];
  size_t n = settings_of(w, content, once, q), chosen[2];
  if (w->rc != PF_OK || n == 0 || w->r.n_personas < 2)
    return NULL;
  double *x = keep(w, pf_alloc(n * w->n, sizeof *x)), *out = keep(w, pf_alloc(w->n, sizeof *out));
  pf_crossed t[MAX_SETTINGS];
  if (w->rc != PF_OK || fill_settings(w, content, q, n, x) != PF_OK)
    return NULL;
  for (size_t k = 0; k < n; k++)
    t[k] = crossed(w, x + k * w->n);
  w->rc = pf_held_out_best(t, n, out, chosen);
  if (w->rc != PF_OK)
    return NULL;
  json_object_set_new(chosen_names, content, json_pack("[s,s]", q[chosen[0]], q[chosen[1]]));
  return out;
}

static void one_residual(work *w, bool once) {
  static const char *const contents[] = {"cached", "oracle", "averaged", "delta", "mean_delta"};
  pf_crossed t[5];
  const char *names[5];
  size_t n = 0;
  pf_finding f;
  double *t3 = table(w, "D2", "closure", "condition=T3");
  json_t *chosen = json_object();
  for (size_t i = 0; i < 5 && w->rc == PF_OK; i++) {
    double *x = held_out(w, contents[i], once, chosen);
    if (!x || !numbers(w, x))
      continue;
    names[n] = contents[i];
    t[n++] = crossed(w, x);
  }
  pf_crossed control = crossed(w, t3);
  if (w->rc == PF_OK && n)
    w->rc = pf_h4(t, names, n, &control, NULL, &f);
  if (w->rc == PF_OK && n)
    put(w, &f,
        json_pack("{s:s,s:O}", "settings", once ? "once at p_last" : "all", "chosen", chosen));
  json_decref(chosen);
}

static void first_token(work *w) {
  const json_t *layers = json_object_get(w->r.manifest, "layers");
  int late = (int)json_integer_value(json_array_get(layers, json_array_size(layers) - 1));
  char q[96];
  size_t i;
  double *x = blank(w);
  const json_t *rows = pf_records_of(&w->r, "C3", &w->rc), *row;
  snprintf(q, sizeof q, "host=B condition=oracle positions=p_last set=one");
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(&w->r, row);
    const json_t *at = json_array_get(json_object_get(row, "layers"), 0),
                 *a = json_object_get(row, "closure_0"), *b = json_object_get(row, "closure_1_9");
    if (x && c < w->n && json_integer_value(at) == late && pf_record_is(row, q) &&
        json_is_number(a) && json_is_number(b))
      x[c] = json_number_value(a) - json_number_value(b);
  }
  pf_finding f;
  pf_crossed t = crossed(w, x);
  if (w->rc == PF_OK && numbers(w, x))
    w->rc = pf_h4b(&t, NULL, &f);
  if (w->rc == PF_OK && numbers(w, x))
    put(w, &f, json_pack("{s:i}", "layer", late));
}

static void hosts(work *w) {
  static const char *const names[] = {"N", "GAP", "MASK"};
  const char *used[3];
  pf_crossed t[3];
  size_t n = 0;
  pf_finding f;
  double *b = table(w, "C3", "closure10", "host=B condition=oracle positions=p_last set=14");
  for (int i = 0; i < 3 && w->rc == PF_OK; i++) {
    double *x =
        table(w, "C3", "closure10", "host=%s condition=oracle positions=p_last set=14", names[i]);
    double *d = w->rc == PF_OK ? difference(w, x, b) : NULL;
    if (!numbers(w, d))
      continue;
    used[n] = names[i];
    t[n++] = crossed(w, d);
  }
  if (w->rc == PF_OK && n)
    w->rc = pf_h4c(t, used, n, NULL, &f);
  if (w->rc == PF_OK && n)
    put(w, &f, NULL);
}

/* ---- D1 to D4 -------------------------------------------------------------------------------- */

static void routes(work *w) {
  static const char *const ways[] = {"mask", "counterfactual"};
  pf_finding f[2], both;
  int n = 0;
  for (int i = 0; i < 2 && w->rc == PF_OK; i++) {
    double *x[5] = {table(w, "D1", "closure", "condition=K2 ablation=%s !profile layers", ways[i]),
                    table(w, "D1", "closure", "condition=K1 ablation=%s !profile layers", ways[i]),
                    table(w, "D2", "closure", "condition=T1"),
                    table(w, "D2", "closure", "condition=T2"),
                    table(w, "D2", "closure", "condition=T3")};
    pf_crossed t[5];
    int n_t = 0;
    for (int k = 0; k < 5 && w->rc == PF_OK; k++) {
      if (!numbers(w, x[k]))
        break;
      t[n_t++] = crossed(w, x[k]);
    }
    if (w->rc != PF_OK || n_t < 5)
      continue;
    w->rc = pf_h5(&t[0], &t[1], &t[2], &t[3], &t[4], NULL, &f[n]);
    if (w->rc == PF_OK)
      put(w, &f[n++], json_pack("{s:s}", "ablation", ways[i]));
  }
  if (w->rc != PF_OK || n < 2)
    return;
  pf_h5_both((const pf_finding *const[]){&f[0], &f[1]}, ways, &both);
  put(w, &both, json_pack("{s:s}", "ablation", "both"));
}

/* The smallest tested share of the persona's tokens whose transplant closes .8. No number where one
 * token is as large a share as the limit, so that no share could miss it (*few: such cells), nor
 * where all tokens do not close it (*never), as nothing is said about how few would. */
static double *n80_share(work *w, size_t *few, size_t *never) {
  double *x = blank(w);
  size_t i;
  *few = *never = 0;
  const json_t *rows = pf_records_of(&w->r, "D2", &w->rc), *row;
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(&w->r, row);
    if (!x || c >= w->n || !pf_record_is(row, "condition=T7 order=best"))
      continue;
    double n = json_number_value(json_object_get(row, "n")),
           k = json_number_value(json_object_get(row, "k")),
           closure = json_number_value(json_object_get(row, "closure"));
    bool all = k == n, closes = closure >= pf_threshold.enough_closure;
    if (n * pf_threshold.many_tokens <= 1)
      *few += all;
    else if (closes && !(x[c] <= k / n))
      x[c] = k / n;
    if (all && n * pf_threshold.many_tokens > 1)
      *never += isnan(x[c]);
  }
  return x;
}

/* p that the best k tokens close more than random ones, over all k below all. */
static double p_tokens(work *w) {
  double best = 0, null[64] = {0};
  size_t draws = 0, i;
  const json_t *rows = pf_records_of(&w->r, "D2", &w->rc), *row;
  json_array_foreach(rows, i, row) {
    bool all = json_integer_value(json_object_get(row, "k")) ==
               json_integer_value(json_object_get(row, "n"));
    double c = json_number_value(json_object_get(row, "closure"));
    size_t draw = (size_t)json_integer_value(json_object_get(row, "draw"));
    if (all || !pf_record_is(row, "condition=T7"))
      continue;
    if (pf_record_is(row, "order=best"))
      best += c;
    if (pf_record_is(row, "order=random") && draw < 64) {
      null[draw] += c;
      draws = draw + 1 > draws ? draw + 1 : draws;
    }
  }
  return draws ? pf_rank_p(best, null, draws, PF_GREATER) : (double)NAN;
}

/* The smaller share of heads: closure of keeping the best alone in each cell, and p against random
 * sets. */
static double *top_heads(work *w, double *p) {
  double *x = blank(w), null[128] = {0}, sum = 0;
  json_int_t least = INT32_MAX;
  size_t n = 0, i, j;
  const json_t *rows = pf_records_of(&w->r, "D3", &w->rc), *row, *draw;
  json_array_foreach(rows, i, row) {
    json_int_t k = json_integer_value(json_object_get(row, "k"));
    if (pf_record_is(row, "condition=keep_share") && k < least)
      least = k;
  }
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(&w->r, row);
    const json_t *closure = json_object_get(row, "closure");
    if (!x || c >= w->n || !pf_record_is(row, "condition=keep_share") ||
        json_integer_value(json_object_get(row, "k")) != least || !json_is_number(closure))
      continue;
    x[c] = json_number_value(closure);
    sum += x[c];
    json_array_foreach(json_object_get(row, "random"), j, draw) {
      if (j < 128)
        null[j] += json_number_value(draw);
      n = j + 1 > n ? j + 1 : n;
    }
  }
  *p = n && n <= 128 ? pf_rank_p(sum, null, n, PF_GREATER) : (double)NAN;
  return x;
}

static void distributed(work *w) {
  pf_finding f;
  double p[2];
  size_t few, never;
  double *n80 = n80_share(w, &few, &never), *heads = w->rc == PF_OK ? top_heads(w, &p[1]) : NULL;
  if (w->rc != PF_OK || !numbers(w, heads))
    return;
  p[0] = p_tokens(w);
  pf_crossed a = crossed(w, n80), b = crossed(w, heads);
  w->rc = pf_holm(p, 2, p);
  if (w->rc == PF_OK)
    w->rc = pf_h6(&a, &b, p[0], p[1], NULL, &f);
  if (w->rc == PF_OK)
    put(w, &f,
        json_pack("{s:I,s:I}", "cells of too few tokens", (json_int_t)few, "cells never closed",
                  (json_int_t)never));
}

/* KL from step LATE on of the cut from there, and of the cut from the first. */
static void persistence(work *w) {
  static const int taus[2] = {LATE, 0};
  double *x[2];
  for (int i = 0; i < 2; i++) {
    x[i] = blank(w);
    if (w->rc == PF_OK)
      pf_records_tails(&w->r, taus[i], LATE, x[i], &w->rc);
  }
  if (w->rc != PF_OK || !numbers(w, x[0]))
    return;
  double *share = blank(w), floor = has(w, "C1") ? 0 : (double)NAN; /* nothing is above no floor */
  for (size_t c = 0; share && c < w->n; c++)
    if (x[1][c] > 0)
      share[c] = x[0][c] / x[1][c];
  const json_t *layers = json_object_get(w->r.manifest, "layers");
  for (size_t k = 0; k < json_array_size(layers); k++) {
    double one = pf_records_floor(&w->r, "p_last",
                                  (int)json_integer_value(json_array_get(layers, k)), &w->rc);
    floor = isnan(floor) || one < floor ? floor : one;
  }
  pf_finding f;
  pf_crossed kl = crossed(w, x[0]), t = crossed(w, share);
  if (w->rc == PF_OK) /* the floor is of ten tokens; what is judged are 48 */
    w->rc = pf_h7(&kl, &t, 4.8 * floor, NULL, &f);
  if (w->rc == PF_OK)
    put(w, &f, NULL);
}

static void mass(work *w) {
  pf_finding f;
  pf_interval x[2];
  static const char *const scores[] = {"mass", "value_weighted"};
  double *t[2];
  for (int i = 0; i < 2; i++)
    t[i] = table(w, "D4", "spearman", "condition=%s", scores[i]);
  if (w->rc != PF_OK || !numbers(w, t[0]))
    return;
  for (int i = 0; i < 2 && w->rc == PF_OK; i++) {
    pf_crossed c = crossed(w, t[i]);
    w->rc = pf_bootstrap(&c, PF_MEDIAN, NULL, &x[i]);
  }
  if (w->rc == PF_OK)
    w->rc = pf_h8(&x[0], &x[1], numbers(w, t[0]), &f);
  if (w->rc == PF_OK)
    put(w, &f, NULL);
}

/* ---- all ------------------------------------------------------------------------------------- */

static int write_all(work *w) {
  json_t *thresholds = json_array();
  double value;
  const char *what;
  for (size_t i = 0; (what = pf_threshold_text(i, &value)) != NULL; i++)
    json_array_append_new(thresholds,
                          json_pack("{s:s,s:o}", "what", what, "value", pf_js_num(value)));
  json_t *all = json_pack("{s:s,s:s,s:O,s:O,s:o}", "schema", "personaflow-findings/1", "model",
                          w->model, "precision", json_object_get(w->r.manifest, "precision"),
                          "findings", w->out, "thresholds", thresholds);
  int rc = pf_js_write(w->r.dir, "findings.json", all);
  json_decref(all);
  return rc;
}

static work *open_work(const char *dir) {
  work *w = pf_calloc(1, sizeof *w);
  if (!w)
    return NULL;
  w->rc = pf_records_open(&w->r, dir);
  w->out = json_array();
  if (w->rc == PF_OK) {
    w->n = w->r.n_personas * w->r.n_tasks;
    w->model = json_string_value(json_object_get(json_object_get(w->r.manifest, "model"), "name"));
    w->model = w->model ? w->model : "";
  }
  return w;
}

static void close_work(work *w) {
  json_decref(w->out);
  pf_records_close(&w->r);
  for (size_t k = 0; k < w->n_more; k++)
    pf_records_close(&w->more[k]);
  for (size_t i = 0; i < w->n_tables; i++)
    pf_free(w->tables[i]);
  pf_free(w->tables);
  pf_free(w);
}

/* The hypotheses whose numbers are tables alone: a mean of cells says the same of any of them. */
int pf_findings_pooled(const char *const *dirs, size_t n, json_t **out) {
  work *w = n > 1 && n <= PF_POOLED ? open_work(dirs[0]) : NULL;
  *out = NULL;
  if (!w)
    return n > 1 && n <= PF_POOLED
               ? PF_ENOMEM
               : pf_fail(PF_EUSAGE, "2 to %d studies can be taken together", PF_POOLED);
  for (size_t k = 1; k < n && w->rc == PF_OK; k++) {
    w->rc = pf_records_open(&w->more[w->n_more++], dirs[k]);
    if (w->rc == PF_OK &&
        (w->more[k - 1].n_personas != w->r.n_personas || w->more[k - 1].n_tasks != w->r.n_tasks))
      w->rc = pf_fail(PF_EINPUT, "%s and %s have other cells", dirs[0], dirs[k]);
  }
  behaviour(w);
  if (has(w, "C3"))
    hosts(w);
  if (has(w, "D1") && has(w, "D2"))
    routes(w);
  if (has(w, "D4"))
    mass(w);
  int rc = w->rc;
  *out = rc == PF_OK ? json_incref(w->out) : NULL;
  close_work(w);
  return rc;
}

int pf_findings_make(const char *dir) {
  work *w = open_work(dir);
  if (!w)
    return PF_ENOMEM;
  local(w);
  behaviour(w);
  if (has(w, "C3")) {
    one_residual(w, true);
    one_residual(w, false);
    first_token(w);
    hosts(w);
  }
  if (has(w, "D1") && has(w, "D2"))
    routes(w);
  if (has(w, "D2") && has(w, "D3"))
    distributed(w);
  if (has(w, "D1"))
    persistence(w);
  if (has(w, "D4"))
    mass(w);
  int rc = w->rc == PF_OK && json_array_size(w->out) ? write_all(w) : w->rc;
  close_work(w);
  return rc;
}

/* " 2, 3": the layers at which a hypothesis has a verdict at a site; how many. */
static size_t layers_of(const json_t *list, const char *id, const char *site, const char *verdict,
                        pf_buf *b) {
  const json_t *f;
  size_t i, n = 0;
  json_array_foreach(list, i, f) {
    const json_t *where = json_object_get(f, "where");
    const char *s = json_string_value(json_object_get(where, "site"));
    if (s && !strcmp(s, site) && !strcmp(json_string_value(json_object_get(f, "id")), id) &&
        !strcmp(json_string_value(json_object_get(f, "verdict")), verdict))
      pf_buf_printf(b, "%s %d", n++ ? "," : "",
                    (int)json_integer_value(json_object_get(where, "layer")));
  }
  return n;
}

/* "H1a site relevance, p_last: supported at layers 2, 3; inconclusive at layer 4" for all findings
 * of a hypothesis at a site. */
static void print_site(const json_t *list, size_t from, pf_buf *b) {
  const json_t *first = json_array_get(list, from);
  const char *id = json_string_value(json_object_get(first, "id")),
             *site = json_string_value(json_object_get(json_object_get(first, "where"), "site"));
  pf_buf_printf(b, "%s %s, %s:", id, json_string_value(json_object_get(first, "title")), site);
  const char *verdict[4] = {"supported", "inconclusive", "not supported", "uninformative"};
  int any = 0;
  for (int v = 0; v < 4; v++) {
    pf_buf layers = {0};
    size_t n = layers_of(list, id, site, verdict[v], &layers);
    if (n)
      pf_buf_printf(b, "%s %s at layer%s%s", any++ ? ";" : "", verdict[v], n > 1 ? "s" : "",
                    pf_buf_str(&layers));
    pf_buf_free(&layers);
  }
}

/* The first finding of a hypothesis at a site speaks for all of them. */
static bool is_first(const json_t *list, size_t at) {
  const json_t *f = json_array_get(list, at);
  const char *id = json_string_value(json_object_get(f, "id")),
             *site = json_string_value(json_object_get(json_object_get(f, "where"), "site"));
  for (size_t i = 0; i < at; i++) {
    const json_t *g = json_array_get(list, i);
    const char *s = json_string_value(json_object_get(json_object_get(g, "where"), "site"));
    if (s && !strcmp(s, site) && !strcmp(json_string_value(json_object_get(g, "id")), id))
      return false;
  }
  return true;
}

/* The line with what tells it from others of its hypothesis: "H5 direct reading, ablation mask". */
static void print_line(const char *line, const json_t *where, pf_buf *b) {
  const char *dash = strstr(line, " \xe2\x80\x94 "), *key;
  json_t *v;
  pf_buf_add(b, line, dash ? (size_t)(dash - line) : strlen(line));
  json_object_foreach((json_t *)where, key, v) {
    if (json_is_string(v))
      pf_buf_printf(b, ", %s %s", key, json_string_value(v));
  }
  pf_buf_puts(b, dash ? dash : "");
}

int pf_findings_print(const char *dir, void (*log)(void *user, const char *line), void *user) {
  char path[4400];
  json_t *all;
  size_t i;
  const json_t *f;
  snprintf(path, sizeof path, "%s/findings.json", dir);
  if (access(path, F_OK) != 0)
    return PF_OK;
  int rc = pf_js_file(path, (size_t)1 << 30, &all);
  if (rc != PF_OK)
    return rc;
  json_array_foreach(json_object_get(all, "findings"), i, f) {
    const json_t *where = json_object_get(f, "where"), *list = json_object_get(all, "findings");
    pf_buf b = {0};
    if (json_object_get(where, "site") && !is_first(list, i))
      continue;
    if (json_object_get(where, "site"))
      print_site(list, i, &b);
    else
      print_line(pf_js_str(f, "line"), where, &b);
    log(user, pf_buf_str(&b));
    pf_buf_free(&b);
  }
  json_decref(all);
  return PF_OK;
}
