/* SPDX-License-Identifier: Apache-2.0
 * From a study's records to the paper's tables, cell by cell. */
#include "analysis/paperpage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "analysis/svg.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

enum { NAME = 64, N_SOURCES = 5 };
static const size_t FILE_LIMIT = (size_t)1 << 30;

/* ---- a record's place and value in the paper's tables ---------------------------------------- */

static void site_condition(const json_t *row, char out[NAME]) {
  snprintf(out, NAME, "%s %d", pf_js_str(row, "probe"), (int)pf_js_real(row, "layer"));
}

static void own_condition(const json_t *row, char out[NAME]) {
  snprintf(out, NAME, "%s", pf_js_str(row, "condition"));
}

static void injection_condition(const json_t *row, char out[NAME]) {
  const char *c = pf_js_str(row, "condition");
  snprintf(out, NAME, "%s", !strcmp(c, "none") ? "host" : c);
}

static void set_condition(const json_t *row, char out[NAME]) {
  bool cached = !strcmp(pf_js_str(row, "condition"), "cached");
  snprintf(out, NAME, "%s", cached ? pf_js_str(row, "set") : "");
}

static double kl_of(const json_t *row) {
  return pf_js_real(row, "kl");
}

static double kl10_of(const json_t *row) {
  return pf_js_real(row, "kl10");
}

static double any_marker(const json_t *row) {
  double n = pf_js_real(row, "markers");
  return isnan(n) ? n : n > 0;
}

/* By experiment. */
static const struct {
  const char *file, *what;
  void (*condition)(const json_t *row, char out[NAME]);
  double (*value)(const json_t *row);
} sources[N_SOURCES] = {
    [PF_PAPER_SHORT] = {"results.jsonl", "short grid", site_condition, kl_of},
    [PF_PAPER_LONG] = {"results.jsonl", "long grid", site_condition, kl_of},
    [PF_PAPER_MARKERS] = {"markers.jsonl", "any marker", own_condition, any_marker},
    [PF_PAPER_INJECTION] = {"injection.jsonl", "injection", injection_condition, kl10_of},
    [PF_PAPER_LAYER_SETS] = {"layer_sets.jsonl", "layer sets", set_condition, kl10_of}};

/* ---- one table ------------------------------------------------------------------------------- */

typedef struct page {
  pf_buf *b;
  json_t *rows[N_SOURCES]; /* by experiment; NULL: not run, or not comparable */
  const pf_replica *r;
} page;

typedef struct ours {
  char (*cell)[2 * NAME];
  const char **name, **text;
  double *value;
  size_t n;
} ours;

static void free_ours(ours *o) {
  pf_free(o->cell);
  pf_free(o->name);
  pf_free(o->text);
  pf_free(o->value);
}

static int collect(const page *g, const pf_paper_table *t, ours *o) {
  const json_t *rows = g->rows[t->experiment], *row;
  size_t i, n = json_array_size(rows);
  *o = (ours){pf_alloc(n + 1, sizeof *o->cell), pf_alloc(n + 1, sizeof *o->name),
              pf_alloc(n + 1, sizeof *o->text), pf_alloc(n + 1, sizeof *o->value), 0};
  if (!o->cell || !o->name || !o->text || !o->value)
    return PF_ENOMEM;
  json_array_foreach(rows, i, row) {
    char condition[NAME];
    double v = sources[t->experiment].value(row);
    sources[t->experiment].condition(row, condition);
    if (isnan(v) || strcmp(condition, t->condition) != 0)
      continue;
    snprintf(o->cell[o->n], sizeof *o->cell, "%s__%s", pf_js_str(row, "persona"),
             pf_js_str(row, "task"));
    o->name[o->n] = o->cell[o->n];
    o->text[o->n] = pf_js_str(row, "text");
    o->value[o->n++] = v;
  }
  return PF_OK;
}

static const char *met_text(pf_met m) {
  return m == PF_MET ? "agrees" : m == PF_MISSED ? "differs" : "unclear";
}

static void value_text(pf_buf *b, double x) {
  if (isnan(x))
    pf_buf_puts(b, "&ndash;");
  else
    pf_buf_printf(b, fabs(x) >= 10 ? "%.1f" : fabs(x) >= 0.1 ? "%.3f" : "%.5f", x);
}

static void put_table(page *g, const pf_paper_table *t, const pf_agreement *a) {
  pf_buf_printf(g->b, "<tr><td class=\"t\">%s</td><td class=\"t\">", sources[t->experiment].what);
  pf_html_text(g->b, t->condition);
  pf_buf_puts(g->b, "</td><td>");
  value_text(g->b, a->ours);
  pf_buf_puts(g->b, "</td><td>");
  value_text(g->b, a->theirs);
  pf_buf_printf(g->b, "</td><td>%zu/%zu</td><td>", a->cells_agree, a->n);
  value_text(g->b, t->experiment == PF_PAPER_MARKERS ? (double)NAN : a->rank.value);
  pf_buf_printf(g->b, "</td><td class=\"t\">%s</td></tr>\n", met_text(a->met));
}

static double own_value(const ours *o, const char *cell) {
  for (size_t i = 0; i < o->n; i++)
    if (!strcmp(o->cell[i], cell))
      return o->value[i];
  return NAN;
}

static void put_cells(pf_buf *b, const pf_paper_table *t, const ours *o, const pf_met *met) {
  for (size_t i = 0; i < t->n; i++) {
    double v = own_value(o, t->cell[i]);
    if (isnan(v))
      continue;
    pf_buf_printf(b, "<tr><td class=\"t\">%s</td><td class=\"t\">", sources[t->experiment].what);
    pf_html_text(b, t->condition);
    pf_buf_puts(b, "</td><td class=\"t\">");
    pf_html_text(b, t->cell[i]);
    pf_buf_puts(b, "</td><td>");
    value_text(b, v);
    pf_buf_puts(b, "</td><td>");
    value_text(b, t->value[i]);
    pf_buf_printf(b, "</td><td class=\"t\">%s</td></tr>\n", met_text(met[i]));
  }
}

/* Adds the table's row, and its cells to `cells`; *any: there was something in common. */
static int one_table(page *g, const pf_paper_table *t, pf_buf *cells, bool *any) {
  ours o = {0};
  pf_agreement a;
  pf_met *met = pf_alloc(t->n, sizeof *met);
  int rc = met ? collect(g, t, &o) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_paper_compare(t, o.name, o.value, t->experiment == PF_PAPER_MARKERS ? o.text : NULL,
                          o.n, g->r, &a, met);
  if (rc == PF_OK && a.n) {
    *any = true;
    put_table(g, t, &a);
    put_cells(cells, t, &o, met);
  }
  free_ours(&o);
  pf_free(met);
  return rc;
}

/* ---- the part of the page -------------------------------------------------------------------- */

static int read_rows(page *g, const char *dir, const char *lists) {
  int rc = PF_OK;
  for (int e = 0; e < N_SOURCES && rc == PF_OK; e++) {
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", dir, sources[e].file);
    if (access(path, F_OK) != 0)
      continue;
    if (e != PF_PAPER_MARKERS || !lists)
      rc = pf_js_lines(path, FILE_LIMIT, &g->rows[e]);
    else {
      pf_buf_puts(g->b, "<p>The texts were scored on the marker lists &ldquo;");
      pf_html_text(g->b, lists);
      pf_buf_puts(g->b, "&rdquo;: they are not set beside the published ones.</p>\n");
    }
  }
  return rc;
}

static void rule(page *g) {
  char floor[48] = "";
  if (g->r->bf16 && g->r->floor > 0)
    snprintf(floor, sizeof floor, " of %.2g nats (I1)", g->r->floor);
  else if (g->r->bf16)
    snprintf(floor, sizeof floor, ", which C1 measures and was not run");
  pf_buf_printf(
      g->b,
      "<p class=\"sub\">A value agrees %s%s. A table agrees when its medians do%s; of markers, "
      "when "
      "%.0f %% of the "
      "cells have the same answer to: any marker?</p>\n",
      g->r->bf16
          ? "when one is at most 1.5 times the other (one of the two runs is in bf16), or they "
            "differ by at most the noise floor"
          : "when it is within 10 % of the published one, or of .01 where that is less",
      floor, g->r->bf16 ? "" : " and the cells' rank correlation is over .95",
      100 * pf_threshold.replica_markers);
}

static int all_tables(page *g, const pf_paper *p) {
  pf_buf rows = {0}, cells = {0}, *out = g->b;
  bool any = false;
  int rc = PF_OK;
  g->b = &rows;
  for (size_t i = 0; i < p->n && rc == PF_OK; i++)
    if (g->rows[p->t[i].experiment])
      rc = one_table(g, &p->t[i], &cells, &any);
  g->b = out;
  if (rc == PF_OK && any) {
    pf_buf_puts(
        out,
        "<h2>The paper's tables</h2>\n<table class=\"num\"><tr><th class=\"t\">experiment</th><th "
        "class=\"t\">condition</th><th>here</th><th>published</th><th>cells that "
        "agree</th><th>rank "
        "correlation</th><th class=\"t\">verdict</th></tr>\n");
    pf_buf_add(out, pf_buf_str(&rows), rows.n);
    pf_buf_puts(out, "</table>\n");
    rule(g);
    pf_buf_puts(
        out,
        "<h2>The paper's cells</h2>\n<details><summary>Every cell beside the published "
        "value</summary><table class=\"num\"><tr><th class=\"t\">experiment</th><th "
        "class=\"t\">condition</th><th class=\"t\">cell</th><th>here</th><th>published</th><th "
        "class=\"t\">verdict</th></tr>\n");
    pf_buf_add(out, pf_buf_str(&cells), cells.n);
    pf_buf_puts(out, "</table></details>\n");
  }
  pf_buf_free(&rows);
  pf_buf_free(&cells);
  return rc;
}

int pf_paper_page(const char *dir, const char *model_key, const pf_replica *r, const char *lists,
                  pf_buf *b) {
  page g = {.b = b, .r = r};
  pf_paper p;
  int rc = pf_paper_open(&p, model_key);
  if (rc != PF_OK)
    return rc;
  rc = read_rows(&g, dir, lists);
  if (rc == PF_OK)
    rc = all_tables(&g, &p);
  for (int e = 0; e < N_SOURCES; e++)
    json_decref(g.rows[e]);
  pf_paper_free(&p);
  return rc == PF_OK ? pf_buf_status(b) : rc;
}
