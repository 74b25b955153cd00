/* SPDX-License-Identifier: Apache-2.0
 * From a complete journal to sorted results: results.jsonl, generated.jsonl, summary.json (the
 * paper's key names) and manifest.json. What they hold depends on the journal and the plan alone,
 * so resumed and uninterrupted runs agree in every byte. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/experiment.h"
#include "analysis/jsonout.h"
#include "analysis/stats.h"
#include "analysis/study.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

static const char *const measures[] = {"cos_xy_sum", "cos_x_y", "inter_over_xy"};
static const char *const numbers[] = {"cos_xy_sum", "cos_x_y", "inter_over_xy", "norm_x",
                                      "norm_y",     "norm_xy", "norm_bb"};
enum { N_MEASURES = 3, N_NUMBERS = 7 };

static int write_text(const char *dir, const char *name, const pf_buf *b) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return b->failed ? PF_ENOMEM : pf_write_file(path, pf_buf_str(b), b->n);
}

/* Takes the reference. */
static int write_json(const char *dir, const char *name, json_t *v) {
  int rc = pf_js_write(dir, name, v);
  json_decref(v);
  return rc;
}

static void put_line(pf_buf *b, json_t *line) {
  if (line)
    pf_js_dump(line, 0, b);
  else
    b->failed = true;
  pf_buf_puts(b, "\n");
  json_decref(line);
}

/* ---- what the journal says
 * ---------------------------------------------------------------------------------------- */

typedef struct view {
  const pf_plan *p;
  json_t **cell; /* (n_cells) */
} view;

static const char *precision_of(const pf_plan *p) {
  return pf_precision_name(p->info->precision);
}

static const json_t *site_of(const view *v, size_t cell, size_t probe) {
  return json_array_get(json_object_get(v->cell[cell], "sites"), probe);
}

/* NaN where there is none (y stopped before the site). */
static double geometry_of(const view *v, size_t cell, size_t probe, const char *name,
                          int32_t layer) {
  const json_t *list = json_object_get(json_object_get(site_of(v, cell, probe), "geometry"), name);
  const json_t *x = json_array_get(list, (size_t)layer);
  return json_is_number(x) ? json_number_value(x) : NAN;
}

static const json_t *steps_of(const view *v, size_t cell, size_t probe, size_t tested) {
  return json_array_get(json_object_get(site_of(v, cell, probe), "kl"), tested);
}

/* Sum of the scored terms in order, fp64; NaN when nothing was scored. */
static double kl_of(const view *v, size_t cell, size_t probe, size_t tested) {
  const json_t *steps = steps_of(v, cell, probe, tested);
  double sum = 0;
  for (size_t t = 0; t < json_array_size(steps); t++)
    sum += json_number_value(json_array_get(steps, t));
  return json_array_size(steps) ? sum : NAN;
}

/* ---- results.jsonl
 * ------------------------------------------------------------------------------------------------
 */

static json_t *flags_of(const json_t *site, bool tested, int32_t layer) {
  json_t *flags = json_array();
  const json_t *geometry = json_object_get(site, "geometry"),
               *zero = json_object_get(geometry, "zero");
  json_int_t n = json_integer_value(json_object_get(site, "n_scored"));
  if (!json_is_object(geometry))
    json_array_append_new(flags, json_string("no_site"));
  else if (tested && n == 0)
    json_array_append_new(flags, json_string("nothing_scored"));
  else if (tested && n < PF_SCORED)
    json_array_append_new(flags, json_string("stopped_at_eos"));
  for (size_t i = 0; i < json_array_size(zero); i++)
    if (json_integer_value(json_array_get(zero, i)) == layer)
      json_array_append_new(flags, json_string("zero_difference"));
  return flags;
}

static json_t *result_line(const view *v, size_t cell, size_t probe, int32_t layer,
                           const size_t *tested) {
  const json_t *c = v->cell[cell], *site = site_of(v, cell, probe);
  json_t *line =
      json_pack("{s:s,s:s,s:O,s:O,s:O,s:O,s:i,s:O}", "schema", "personaflow-result/1", "precision",
                precision_of(v->p), "persona", json_object_get(c, "persona"), "task",
                json_object_get(c, "task"), "held_out", json_object_get(c, "held_out"), "probe",
                json_object_get(site, "probe"), "layer", layer, "position",
                json_object_get(json_object_get(site, "positions"), "XY"));
  if (tested) {
    json_object_set(line, "n_scored", json_object_get(site, "n_scored"));
    json_object_set_new(line, "kl", pf_js_num(kl_of(v, cell, probe, *tested)));
    json_object_set(line, "kl_steps", (json_t *)steps_of(v, cell, probe, *tested));
  }
  for (int i = 0; i < N_NUMBERS; i++)
    json_object_set_new(line, numbers[i],
                        pf_js_num(geometry_of(v, cell, probe, numbers[i], layer)));
  json_object_set_new(line, "flags", flags_of(site, tested != NULL, layer));
  return line;
}

/* Order: persona, task, probe (as in the grid), layer. */
static int export_results(const view *v, const char *dir) {
  const pf_plan *p = v->p;
  pf_buf b = {0};
  for (size_t c = 0; c < p->n_cells; c++)
    for (size_t i = 0; i < p->grid.n_probes; i++) {
      size_t at = 0;
      for (int32_t l = 0; l <= p->info->n_layers; l++) {
        bool tested = at < p->layers.n && p->layers.v[at] == l;
        put_line(&b, result_line(v, c, i, l, tested ? &at : NULL));
        at += tested;
      }
    }
  int rc = write_text(dir, "results.jsonl", &b);
  pf_buf_free(&b);
  return rc;
}

static int export_generated(const view *v, const char *dir) {
  pf_buf b = {0};
  for (size_t c = 0; c < v->p->n_cells; c++) {
    const json_t *e = v->cell[c];
    put_line(&b, json_pack("{s:s,s:s,s:O,s:O,s:O,s:O,s:O}", "schema", "personaflow-generated/1",
                           "precision", precision_of(v->p), "persona",
                           json_object_get(e, "persona"), "task", json_object_get(e, "task"),
                           "held_out", json_object_get(e, "held_out"), "y", json_object_get(e, "y"),
                           "prompt", json_object_get(e, "prompt")));
  }
  int rc = write_text(dir, "generated.jsonl", &b);
  pf_buf_free(&b);
  return rc;
}

/* ---- summary.json
 * -------------------------------------------------------------------------------------------------
 */

/* {"median","iqr":[25 %, 75 %],"min","max"}; "n" only where values are missing. x is sorted in
 * place. */
static json_t *stats_json(double *x, size_t n) {
  pf_stats s = pf_stats_of(x, n);
  json_t *o =
      json_pack("{s:o,s:[o,o],s:o,s:o}", "median", pf_js_num(s.median), "iqr", pf_js_num(s.q25),
                pf_js_num(s.q75), "min", pf_js_num(s.min), "max", pf_js_num(s.max));
  if (s.n < n)
    json_object_set_new(o, "n", json_integer((json_int_t)s.n));
  return o;
}

/* A part is 0 there, and says nothing of angles: a persona or a task that is the baseline's. */
static bool is_zero(const view *v, size_t cell, size_t probe, int32_t layer) {
  const json_t *z = json_object_get(json_object_get(site_of(v, cell, probe), "geometry"), "zero"),
               *at;
  size_t i;
  json_array_foreach(z, i, at) {
    if (json_integer_value(at) == layer)
      return true;
  }
  return false;
}

/* Where a part is 0 in all cells (layer 0) the paper's zeros stand; where in some, they are left
 * out. */
static json_t *decomposition_json(const view *v, size_t probe, double *x) {
  json_t *layers = json_object();
  char key[16];
  for (int32_t l = 0; l <= v->p->info->n_layers; l++) {
    json_t *m = json_object();
    size_t zeros = 0;
    for (size_t c = 0; c < v->p->n_cells; c++)
      zeros += is_zero(v, c, probe, l);
    for (int i = 0; i < N_MEASURES; i++) {
      for (size_t c = 0; c < v->p->n_cells; c++)
        x[c] = zeros < v->p->n_cells && is_zero(v, c, probe, l)
                   ? (double)NAN
                   : geometry_of(v, c, probe, measures[i], l);
      json_object_set_new(m, measures[i], stats_json(x, v->p->n_cells));
    }
    snprintf(key, sizeof key, "%d", l);
    json_object_set_new(layers, key, m);
  }
  return layers;
}

/* Statistics of the cells that share a persona (by_task false) or a task. */
static json_t *groups_json(const view *v, size_t probe, size_t tested, bool by_task, double *x) {
  const pf_grid *g = &v->p->grid;
  size_t n = by_task ? g->n_tasks : g->n_personas, m = by_task ? g->n_personas : g->n_tasks;
  json_t *out = json_object();
  for (size_t i = 0; i < n; i++) {
    for (size_t k = 0; k < m; k++)
      x[k] = kl_of(v, by_task ? k * g->n_tasks + i : i * g->n_tasks + k, probe, tested);
    json_object_set_new(out, by_task ? g->tasks[i].key : g->personas[i].key, stats_json(x, m));
  }
  return out;
}

static json_t *causal_site_json(const view *v, size_t probe, size_t tested, double *x) {
  const pf_grid *g = &v->p->grid;
  json_t *cells = json_object();
  char key[160];
  for (size_t c = 0; c < v->p->n_cells; c++) {
    x[c] = kl_of(v, c, probe, tested);
    snprintf(key, sizeof key, "%s__%s", g->personas[c / g->n_tasks].key,
             g->tasks[c % g->n_tasks].key);
    json_object_set_new(cells, key, pf_js_num(x[c]));
  }
  json_t *summary = stats_json(x, v->p->n_cells);
  json_t *personas = groups_json(v, probe, tested, false, x),
         *tasks = groups_json(v, probe, tested, true, x);
  return json_pack("{s:o,s:o,s:o,s:o}", "summary", summary, "per_cell", cells, "per_persona",
                   personas, "per_task", tasks);
}

static json_t *causal_json(const view *v, size_t probe, double *x) {
  json_t *layers = json_object();
  char key[16];
  for (size_t i = 0; i < v->p->layers.n; i++) {
    snprintf(key, sizeof key, "%d", v->p->layers.v[i]);
    json_object_set_new(layers, key, causal_site_json(v, probe, i, x));
  }
  return layers;
}

static json_t *keys_json(const pf_grid_item *items, size_t n) {
  json_t *a = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(a, json_string(items[i].key));
  return a;
}

static json_t *summary_json(const view *v, double *x) {
  const pf_plan *p = v->p;
  char *name = pf_model_name(p->info->dir);
  const pf_published *known = pf_published_match(p->info);
  json_t *decomposition = json_object(), *causal = json_object();
  for (size_t i = 0; i < p->grid.n_probes; i++) {
    const char *probe = pf_probe_names[p->grid.probes[i]];
    json_object_set_new(decomposition, probe, decomposition_json(v, i, x));
    json_object_set_new(causal, probe, causal_json(v, i, x));
  }
  json_t *summary = json_pack(
      "{s:s,s:s,s:s,s:s,s:i,s:i,s:o,s:o,s:O,s:O,s:i,s:o,s:o}", "schema", "personaflow-summary/1",
      "precision", precision_of(p), "model_key", known ? known->key : name, "model_name",
      known ? known->name : name, "n_layers", p->info->n_layers, "d_model", p->info->d_model,
      "personas", keys_json(p->grid.personas, p->grid.n_personas), "tasks",
      keys_json(p->grid.tasks, p->grid.n_tasks), "probes", json_object_get(p->head, "probes"),
      "layers_to_test", json_object_get(p->head, "layers"), "n_eval", PF_SCORED, "decomposition",
      decomposition, "causal", causal);
  pf_free(name);
  return summary;
}

/* ---- manifest.json
 * ------------------------------------------------------------------------------------------------
 */

static json_t *kernels_json(void) {
  const pf_kernel_choice *k;
  size_t n = 0;
  json_t *a = json_array();
  if (pf_kernels(&k, &n) != PF_OK)
    n = 0;
  for (size_t i = 0; i < n; i++)
    json_array_append_new(a, json_pack("{s:s,s:s,s:s,s:s}", "op", k[i].op, "isa", k[i].isa,
                                       "symbol", k[i].symbol, "why", k[i].why));
  return a;
}

static json_t *model_json(const pf_model_info *i) {
  char *name = pf_model_name(i->dir);
  const pf_published *known = pf_published_match(i);
  json_t *m = json_pack(
      "{s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:s,s:I,s:o}", "name", name, "arch", i->arch,
      "n_layers", i->n_layers, "d_model", i->d_model, "n_heads", i->n_heads, "n_kv_heads",
      i->n_kv_heads, "d_head", i->d_head, "d_ff", i->d_ff, "vocab_size", i->vocab_size,
      "weights_dtype", i->weights_dtype, "weights_sha256", i->weights_sha256, "weight_bytes",
      (json_int_t)i->weight_bytes, "repetition_penalty", pf_js_num(i->repetition_penalty));
  pf_free(name);
  if (i->s8_group)
    json_object_set_new(m, "s8_group", json_integer(i->s8_group));
  json_object_set_new(m, "shaped_as", known ? json_string(known->name) : json_null());
  json_object_set_new(m, "shaped_as_key", known ? json_string(known->key) : json_null());
  return m;
}

static json_t *texts_json(const pf_grid_item *items, size_t n) {
  json_t *a = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(a, json_pack("{s:s,s:s}", "key", items[i].key, "text", items[i].text));
  return a;
}

static json_t *conflicts_json(const pf_controls *c) {
  json_t *a = json_array();
  for (size_t i = 0; i < c->n_conflicts; i++)
    json_array_append_new(
        a, json_pack("[s,s]", c->conflicts[i].persona.key, c->conflicts[i].task.key));
  return a;
}

/* NULL: there are none but the study's own. */
static json_t *hosts_json(const pf_plan *p) {
  json_t *o = json_object();
  for (size_t i = 0; i < p->controls.n_hosts; i++)
    if (pf_plan_own_host(p, i))
      json_object_set_new(o, p->controls.hosts[i].key, json_string(p->controls.hosts[i].text));
  if (json_object_size(o) > 0)
    return o;
  json_decref(o);
  return NULL;
}

static json_t *grid_json(const pf_plan *p) {
  const pf_grid *g = &p->grid;
  const pf_paraphrase *by = p->paraphrase;
  json_t *o =
      json_pack("{s:s,s:s,s:s,s:s,s:{s:s,s:s},s:o,s:o}", "name", g->name, "description",
                g->description, "sha256", g->sha256, "template", by ? by->text : g->template_,
                "baseline", "persona", g->base.key, "task", g->base.text, "personas",
                texts_json(g->personas, g->n_personas), "tasks", texts_json(g->tasks, g->n_tasks));
  if (o && by)
    json_object_set_new(o, "paraphrase", json_string(by->key));
  if (o && by && by->system)
    json_object_set_new(o, "system", json_string(by->system));
  if (o && p->conflicts)
    json_object_set_new(o, "conflicts", conflicts_json(&p->controls));
  json_t *hosts = hosts_json(p);
  if (o && hosts)
    json_object_set_new(o, "hosts", hosts);
  return o;
}

/* done: keys of the experiments whose records stand beside it. */
static json_t *manifest_json(const pf_plan *p, const pf_study_opts *o, json_t *done) {
  const char *family = pf_chat_family(p->tok);
  json_t *arguments =
      json_pack("{s:s,s:s,s:o,s:s?}", "model", o->model, "grid", o->grid, "layers",
                o->layers ? json_string(o->layers) : json_null(), "baseline", o->baseline);
  json_t *m = json_pack(
      "{s:s,s:{s:s,s:i},s:O,s:s,s:O,s:O,s:i,s:i,s:O,s:o,s:{s:O,s:s},s:o,s:{s:s,s:s},s:o,s:o}",
      "schema", "personaflow-manifest/1", "program", "version", pf_version(), "contract",
      pf_contract_version(), "protocol", json_object_get(p->head, "protocol"), "precision",
      precision_of(p), "probes", json_object_get(p->head, "probes"), "layers",
      json_object_get(p->head, "layers"), "cells", (int)p->n_cells, "scored_tokens", PF_SCORED,
      "experiments", done, "model", model_json(p->info), "tokenizer", "sha256",
      json_object_get(p->head, "tokenizer"), "chat", family ? family : "", "grid", grid_json(p),
      "cpu", "name", pf_cpu_name(), "features", pf_cpu_features(), "kernels", kernels_json(),
      "arguments", arguments);
  if (m && (p->markers.n_personas || p->markers.n_tasks))
    json_object_set_new(
        m, "markers", json_pack("{s:s,s:s}", "name", p->markers.name, "sha256", p->markers.sha256));
  return m;
}

/* ---- all of it
 * ----------------------------------------------------------------------------------------------------
 */

static int make_view(view *v, const pf_plan *p, const pf_journal *j) {
  v->p = p;
  v->cell = pf_calloc(p->n_cells, sizeof *v->cell);
  if (!v->cell)
    return PF_ENOMEM;
  for (size_t c = 0; c < p->n_cells; c++) {
    char key[65];
    int rc = pf_plan_unit(p, "additive", c, 0, key);
    if (rc == PF_OK)
      rc = pf_journal_get(j, key, &v->cell[c]);
    if (rc != PF_OK)
      return rc;
  }
  return PF_OK;
}

static void view_free(view *v) {
  for (size_t c = 0; v->cell && c < v->p->n_cells; c++)
    json_decref(v->cell[c]);
  pf_free(v->cell);
  v->cell = NULL;
}

static bool view_is_whole(const view *v) {
  for (size_t c = 0; c < v->p->n_cells; c++)
    if (!v->cell[c])
      return false;
  return true;
}

/* ---- experiments
 * --------------------------------------------------------------------------------------------------
 */

/* The records of a unit as lines: the cell in front of each. */
static void put_rows(pf_buf *b, const pf_plan *p, const pf_experiment *e, size_t cell,
                     const json_t *data) {
  const json_t *rows = json_object_get(data, "rows");
  for (size_t i = 0; i < json_array_size(rows); i++) {
    size_t x = cell / p->grid.n_tasks, y = cell % p->grid.n_tasks;
    json_t *line =
        json_pack("{s:s,s:s,s:s,s:s,s:s,s:b}", "schema", "personaflow-record/1", "precision",
                  precision_of(p), "experiment", e->key, "persona", p->grid.personas[x].key, "task",
                  p->grid.tasks[y].key, "held_out", pf_grid_held_out(&p->grid, x, y));
    if (line && json_object_update(line, json_array_get(rows, i)) != 0)
      b->failed = true;
    put_line(b, line);
  }
}

/* The records of a unit; *there false: it is not finished. */
static int export_unit(pf_buf *b, const pf_plan *p, const pf_experiment *e, const pf_journal *j,
                       size_t cell, size_t part, bool *there) {
  char key[65];
  json_t *data = NULL;
  int rc = pf_plan_unit(p, e->key, cell, part, key);
  if (rc == PF_OK)
    rc = pf_journal_get(j, key, &data);
  *there = data != NULL;
  put_rows(b, p, e, cell, data);
  json_decref(data);
  return rc;
}

/* KEY.jsonl of an experiment that is done in all cells; its key goes to `done`. */
static int export_experiment(const pf_plan *p, const pf_experiment *e, const pf_journal *j,
                             const char *dir, json_t *done) {
  pf_buf b = {0};
  char name[64];
  int rc = PF_OK;
  bool whole = true;
  for (size_t c = 0; c < p->n_cells && rc == PF_OK && whole; c++)
    for (size_t k = 0; k < pf_experiment_parts(e, p, c) && rc == PF_OK && whole; k++)
      rc = export_unit(&b, p, e, j, c, k, &whole);
  snprintf(name, sizeof name, "%s.jsonl", e->key);
  if (rc == PF_OK && whole && b.n) {
    rc = write_text(dir, name, &b);
    json_array_append_new(done, json_string(e->key));
  }
  pf_buf_free(&b);
  return rc;
}

/* Tables of the additive sweep, where it is done in all cells; its key goes to `done`. */
static int export_sweep(const pf_plan *p, const pf_study_opts *o, const pf_journal *j,
                        json_t *done) {
  view v = {0};
  size_t longest = p->n_cells > p->grid.n_personas ? p->n_cells : p->grid.n_personas;
  double *x = pf_alloc(longest, sizeof *x);
  int rc = x ? make_view(&v, p, j) : PF_ENOMEM;
  bool whole = rc == PF_OK && view_is_whole(&v);
  if (whole)
    json_array_append_new(done, json_string("additive"));
  if (rc == PF_OK && whole)
    rc = export_results(&v, o->out_dir);
  if (rc == PF_OK && whole)
    rc = export_generated(&v, o->out_dir);
  if (rc == PF_OK && whole)
    rc = write_json(o->out_dir, "summary.json", summary_json(&v, x));
  view_free(&v);
  pf_free(x);
  return rc;
}

int pf_export(const pf_plan *p, const pf_study_opts *o, const pf_journal *j) {
  json_t *done = json_array();
  int rc = done ? export_sweep(p, o, j, done) : PF_ENOMEM;
  for (size_t i = 0; i < pf_n_experiments && rc == PF_OK; i++)
    rc = export_experiment(p, &pf_experiments[i], j, o->out_dir, done);
  if (rc == PF_OK)
    rc = write_json(o->out_dir, "manifest.json", manifest_json(p, o, done));
  json_decref(done);
  return rc;
}

/* ---- the table
 * ----------------------------------------------------------------------------------------------------
 */

static void table_row(const char *probe, json_t *layers, pf_buf *b) {
  const char *layer;
  json_t *site;
  pf_buf_printf(b, "%-12s", probe);
  json_object_foreach(layers, layer, site) {
    const json_t *m = json_object_get(json_object_get(site, "summary"), "median");
    if (json_is_number(m))
      pf_buf_printf(b, " %9.4f", json_number_value(m));
    else
      pf_buf_printf(b, " %9s", "-");
  }
}

static void table_head(json_t *layers, size_t cells, pf_buf *b) {
  const char *layer;
  json_t *site;
  pf_buf_printf(b, "median KL (nats, %d tokens) over %zu cells\n%-12s", PF_SCORED, cells,
                "position");
  json_object_foreach(layers, layer, site) pf_buf_printf(b, "  layer%3s", layer);
  pf_buf_puts(b, "\n");
}

int pf_export_table(const char *dir, void (*log)(void *user, const char *line), void *user) {
  char path[4400];
  json_t *s, *layers;
  const char *probe;
  pf_buf b = {0};
  snprintf(path, sizeof path, "%s/summary.json", dir);
  int rc = pf_js_file(path, (size_t)1 << 30, &s);
  if (rc != PF_OK)
    return rc;
  json_object_foreach(json_object_get(s, "causal"), probe, layers) {
    if (b.n == 0)
      table_head(layers,
                 json_array_size(json_object_get(s, "personas")) *
                     json_array_size(json_object_get(s, "tasks")),
                 &b);
    table_row(probe, layers, &b);
    pf_buf_puts(&b, "\n");
  }
  for (char *line = b.s; line && *line;) {
    char *end = strchr(line, '\n');
    *end = '\0';
    log(user, line);
    line = end + 1;
  }
  rc = pf_buf_status(&b);
  json_decref(s);
  pf_buf_free(&b);
  return rc;
}
