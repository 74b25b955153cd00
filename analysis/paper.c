/* SPDX-License-Identifier: Apache-2.0
 * The paper's published per-cell values, and how a replica is set beside them. */
#include "analysis/paper.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/grid.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

enum { N_EXPERIMENTS = 5, TABLES_MAX = 64, FILE_LIMIT = 1 << 24 };

/* ---- reading
 * ------------------------------------------------------------------------------------------------------
 */

/* The next table of p with room for n cells; NULL when out of memory or out of places. */
static pf_paper_table *new_table(pf_paper *p, pf_experiment e, size_t n, bool texts) {
  pf_paper_table *t = &p->t[p->n];
  if (p->n == TABLES_MAX)
    return NULL;
  *t = (pf_paper_table){.experiment = e};
  t->cell = pf_calloc(n, sizeof *t->cell);
  t->value = pf_calloc(n, sizeof *t->value);
  t->text = texts ? pf_calloc(n, sizeof *t->text) : NULL;
  p->n++; /* freed with the others, whatever is missing */
  return t->cell && t->value && (t->text || !texts) ? t : NULL;
}

static int put(pf_paper_table *t, const char *cell, const json_t *v) {
  if (!json_is_number(v) && !json_is_boolean(v))
    return pf_fail(PF_EINPUT, "published results: %s of %s is no number", t->condition, cell);
  t->cell[t->n] = cell;
  t->value[t->n++] = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
  return PF_OK;
}

/* {cell: number}, or {cell: {member: number}} for one member. */
static int take_cells(pf_paper *p, pf_experiment e, const char *condition, const json_t *cells,
                      const char *member) {
  const char *key;
  json_t *v;
  pf_paper_table *t = new_table(p, e, json_object_size(cells), false);
  if (!t)
    return PF_ENOMEM;
  snprintf(t->condition, sizeof t->condition, "%s", condition);
  int rc = PF_OK;
  json_object_foreach((json_t *)cells, key, v) {
    if (rc == PF_OK)
      rc = put(t, key, member ? json_object_get(v, member) : v);
  }
  return rc;
}

static int take_sites(pf_paper *p, pf_experiment e, const json_t *root) {
  const char *probe, *layer;
  json_t *layers, *site;
  int rc = PF_OK;
  json_object_foreach(json_object_get(root, "causal"), probe, layers) {
    json_object_foreach(layers, layer, site) {
      char condition[40];
      snprintf(condition, sizeof condition, "%.24s %.8s", probe, layer);
      if (rc == PF_OK)
        rc = take_cells(p, e, condition, json_object_get(site, "per_cell"), NULL);
    }
  }
  return rc;
}

static int take_markers(pf_paper *p, pf_experiment e, const json_t *root) {
  static const char *const conditions[] = {"clean", "additive", "remove_X", "bare"};
  const json_t *cells = json_object_get(root, "results");
  const char *key;
  json_t *v;
  int rc = PF_OK;
  for (size_t i = 0; i < sizeof conditions / sizeof *conditions && rc == PF_OK; i++) {
    pf_paper_table *t = new_table(p, e, json_object_size(cells), true);
    if (!t)
      return PF_ENOMEM;
    snprintf(t->condition, sizeof t->condition, "%s", conditions[i]);
    json_object_foreach((json_t *)cells, key, v) {
      const json_t *one = json_object_get(v, conditions[i]);
      t->text[t->n] = json_string_value(json_object_get(one, "text"));
      if (rc == PF_OK)
        rc = put(t, key, json_object_get(one, "any"));
    }
  }
  return rc;
}

static int take_injection(pf_paper *p, pf_experiment e, const json_t *root) {
  static const char *const members[][2] = {
      {"host", "kl_host_clean"}, {"oracle", "kl_oracle"}, {"cached", "kl_cached"}};
  int rc = PF_OK;
  for (size_t i = 0; i < sizeof members / sizeof *members && rc == PF_OK; i++)
    rc = take_cells(p, e, members[i][0], json_object_get(root, "results"), members[i][1]);
  return rc;
}

static int take_layer_sets(pf_paper *p, pf_experiment e, const json_t *root) {
  const char *set;
  json_t *v;
  int rc = PF_OK;
  json_object_foreach(json_object_get(root, "results"), set, v) {
    if (rc == PF_OK)
      rc = take_cells(p, e, set, json_object_get(v, "kls"), NULL);
  }
  return rc;
}

/* Which models an experiment had, and its file. */
static const struct {
  const char *models, *file;
  int (*take)(pf_paper *p, pf_experiment e, const json_t *root);
} experiments[N_EXPERIMENTS] = {
    [PF_PAPER_SHORT] = {"gemma2b qwen15 qwen3b", "v15_%s_localized_positions.json", take_sites},
    [PF_PAPER_LONG] = {"gemma2b qwen15", "v16_%s_diverse_grid.json", take_sites},
    [PF_PAPER_MARKERS] = {"gemma2b", "v17_behavioral_markers.json", take_markers},
    [PF_PAPER_INJECTION] = {"gemma2b", "v14b_v2.json", take_injection},
    [PF_PAPER_LAYER_SETS] = {"gemma2b", "v14e_multilayer.json", take_layer_sets}};

static bool has_word(const char *words, const char *word) {
  size_t n = strlen(word);
  for (const char *p = n ? strstr(words, word) : NULL; p; p = strstr(p + 1, word))
    if ((p == words || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
      return true;
  return false;
}

static int open_file(const char *pattern, const char *model_key, json_t **out) {
  char name[128], path[4096];
  const char *at = strstr(pattern, "%s");
  snprintf(name, sizeof name, "paper-results/%.*s%s%s",
           at ? (int)(at - pattern) : (int)strlen(pattern), pattern, at ? model_key : "",
           at ? at + 2 : "");
  int rc = pf_data_path(name, path, sizeof path);
  return rc == PF_OK ? pf_js_file(path, FILE_LIMIT, out) : rc;
}

int pf_paper_open(pf_paper *out, const char *model_key) {
  *out = (pf_paper){.t = pf_calloc(TABLES_MAX, sizeof *out->t)};
  int rc = out->t ? PF_OK : PF_ENOMEM;
  for (size_t e = 0; e < N_EXPERIMENTS && rc == PF_OK; e++) {
    if (!has_word(experiments[e].models, model_key))
      continue;
    rc = open_file(experiments[e].file, model_key, &out->files[e]);
    if (rc == PF_OK)
      rc = experiments[e].take(out, (pf_experiment)e, out->files[e]);
  }
  if (rc == PF_OK && out->n == 0)
    rc = pf_fail(PF_EINPUT, "the paper has no results for the model '%.40s'", model_key);
  if (rc != PF_OK)
    pf_paper_free(out);
  return rc;
}

void pf_paper_free(pf_paper *p) {
  for (size_t i = 0; i < p->n; i++) {
    pf_free(p->t[i].cell);
    pf_free(p->t[i].value);
    pf_free(p->t[i].text);
  }
  pf_free(p->t);
  for (size_t e = 0; e < N_EXPERIMENTS; e++)
    json_decref(p->files[e]);
  *p = (pf_paper){0};
}

const pf_paper_table *pf_paper_find(const pf_paper *p, pf_experiment e, const char *condition) {
  for (size_t i = 0; i < p->n; i++)
    if (p->t[i].experiment == e && !strcmp(p->t[i].condition, condition))
      return &p->t[i];
  return NULL;
}

/* ---- comparing
 * ----------------------------------------------------------------------------------------------------
 */

pf_met pf_paper_agrees(double ours, double theirs, const pf_replica *r) {
  double apart = fabs(ours - theirs), small = pf_threshold.replica_small;
  if (isnan(apart))
    return PF_UNCLEAR;
  if (!r->bf16)
    return apart <= pf_threshold.replica_relative * (theirs > small ? theirs : small) ? PF_MET
                                                                                      : PF_MISSED;
  double more = ours > theirs ? ours : theirs, less = ours > theirs ? theirs : ours;
  return more <= pf_threshold.replica_factor * less || apart <= r->floor ? PF_MET : PF_MISSED;
}

typedef struct pairs {
  double *ours, *theirs; /* of the published cells in their order; NaN: not among ours */
  size_t *at;            /* place among ours; n: none */
} pairs;

static void pair_up(const pf_paper_table *t, const char *const *cell, const double *ours, size_t n,
                    const pairs *p) {
  for (size_t c = 0; c < t->n; c++) {
    size_t k = 0;
    while (k < n && strcmp(cell[k], t->cell[c]) != 0)
      k++;
    p->at[c] = k;
    p->ours[c] = k < n ? ours[k] : NAN;
    p->theirs[c] = isnan(p->ours[c]) ? NAN : t->value[c];
  }
}

static void compare_cells(const pf_paper_table *t, const char *const *text, size_t n,
                          const pf_replica *r, const pairs *p, pf_agreement *out,
                          pf_met *per_cell) {
  bool markers = t->experiment == PF_PAPER_MARKERS;
  for (size_t c = 0; c < t->n; c++) {
    bool there = !isnan(p->ours[c]);
    pf_met met = !there    ? PF_UNCLEAR
                 : markers ? (p->ours[c] == t->value[c] ? PF_MET : PF_MISSED)
                           : pf_paper_agrees(p->ours[c], t->value[c], r);
    out->n += there;
    out->cells_agree += met == PF_MET;
    out->same_texts += text && t->text && p->at[c] < n && text[p->at[c]] && t->text[c] &&
                       !strcmp(text[p->at[c]], t->text[c]);
    if (per_cell)
      per_cell[c] = met;
  }
}

static pf_met table_met(const pf_paper_table *t, const pf_replica *r, const pf_agreement *a) {
  if (a->n == 0)
    return PF_UNCLEAR;
  if (t->experiment == PF_PAPER_MARKERS)
    return (double)a->cells_agree >= pf_threshold.replica_markers * (double)a->n ? PF_MET
                                                                                 : PF_MISSED;
  pf_met met = pf_paper_agrees(a->ours, a->theirs, r);
  if (met != PF_MET || r->bf16)
    return met;
  return a->rank.value > pf_threshold.replica_rank ? PF_MET
         : isnan(a->rank.value)                    ? PF_UNCLEAR
                                                   : PF_MISSED;
}

int pf_paper_compare(const pf_paper_table *t, const char *const *cell, const double *ours,
                     const char *const *text, size_t n, const pf_replica *r, pf_agreement *out,
                     pf_met *per_cell) {
  pairs p = {pf_alloc(t->n, sizeof *p.ours), pf_alloc(t->n, sizeof *p.theirs),
             pf_alloc(t->n, sizeof *p.at)};
  int rc = p.ours && p.theirs && p.at ? PF_OK : PF_ENOMEM;
  *out = (pf_agreement){0};
  if (rc == PF_OK) {
    pair_up(t, cell, ours, n, &p);
    compare_cells(t, text, n, r, &p, out, per_cell);
    rc = pf_spearman(p.ours, p.theirs, t->n, &out->rank);
  }
  if (rc == PF_OK) {
    bool markers = t->experiment == PF_PAPER_MARKERS;
    out->ours = markers ? pf_mean(p.ours, t->n) : pf_stats_of(p.ours, t->n).median;
    out->theirs = markers ? pf_mean(p.theirs, t->n) : pf_stats_of(p.theirs, t->n).median;
    out->met = table_met(t, r, out);
  }
  pf_free(p.ours);
  pf_free(p.theirs);
  pf_free(p.at);
  return rc;
}
