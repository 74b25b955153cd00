/* SPDX-License-Identifier: Apache-2.0
 * Several finished studies side by side: verdicts, what decided them, and H9 (do models agree?). A
 * row is a hypothesis at a place; layers are matched by their rank among the tested ones, since
 * models have different depths. Studies of one model in several precisions show what rounding
 * changes; with several baselines or paraphrases, which verdicts depend on the wording. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/findings.h"
#include "analysis/folder.h"
#include "analysis/jsonout.h"
#include "analysis/pageparts.h"
#include "analysis/pagework.h"
#include "analysis/verdict.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

enum { MOST = 16, FILE_LIMIT = 256 << 20, KEY = 256 };

typedef struct study {
  const char *dir;
  json_t *manifest, *findings, *summary; /* NULL: not run */
} study;

typedef struct comparison {
  study s[MOST];
  size_t n;
  json_t *pools;
  json_t *rows; /* key -> {"id", "title", "where", "cells": [finding or null, ...]} */
} comparison;

/* ---- reading --------------------------------------------------------------------------------- */

static int read_json(const char *dir, const char *name, bool wanted, json_t **out) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  *out = NULL;
  if (!wanted && access(path, F_OK) != 0)
    return PF_OK;
  int rc = pf_js_file(path, FILE_LIMIT, out);
  return rc == PF_OK ? rc : pf_fail_prefix(rc, "no finished study");
}

static int read_study(study *s, const char *dir) {
  s->dir = dir;
  if (strlen(dir) > 4000)
    return pf_fail(PF_EUSAGE, "the path of the folder is too long");
  int rc = pf_folder_finished(dir);
  if (rc == PF_OK)
    rc = read_json(dir, "manifest.json", true, &s->manifest);
  if (rc == PF_OK)
    rc = read_json(dir, "findings.json", false, &s->findings);
  if (rc == PF_OK)
    rc = read_json(dir, "summary.json", false, &s->summary);
  if (rc == PF_OK && !s->findings && !s->summary)
    rc = pf_fail(PF_EINPUT, "%s: the study has neither findings.json nor summary.json", dir);
  return rc;
}

static const json_t *model_of(const study *s) {
  return json_object_get(s->manifest, "model");
}

static const char *precision_of(const study *s) {
  return pf_js_str(s->manifest, "precision");
}

static const json_t *grid_of(const study *s) {
  return json_object_get(s->manifest, "grid");
}

static bool of_conflicts(const study *s) {
  return json_object_get(grid_of(s), "conflicts") != NULL;
}

/* The same file, and both of its own cells or both of the conflicting ones. */
static bool same_grid(const study *a, const study *b) {
  return !strcmp(pf_js_str(grid_of(a), "sha256"), pf_js_str(grid_of(b), "sha256")) &&
         of_conflicts(a) == of_conflicts(b);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* The rank of a layer among the tested ones, -1: it is none of them. */
static int rank_of(const study *s, json_int_t layer) {
  const json_t *list = json_object_get(s->manifest, "layers");
  for (size_t i = 0; i < json_array_size(list); i++)
    if (json_integer_value(json_array_get(list, i)) == layer)
      return (int)i;
  return -1;
}

/* "H1a, p_last, tested layer 2": what the floor is, or which setting was chosen, is a
 * result. */
static void key_of(const study *s, const json_t *finding, char out[KEY]) {
  const char *name;
  json_t *v;
  int at = snprintf(out, KEY, "%s", pf_js_str(finding, "id"));
  json_object_foreach(json_object_get(finding, "where"), name, v) {
    if (at >= KEY || !strcmp(name, "floor") || !strcmp(name, "chosen"))
      continue;
    size_t left = KEY - (size_t)at;
    if (!strcmp(name, "layer"))
      at += snprintf(out + at, left, ", tested layer %d", rank_of(s, json_integer_value(v)) + 1);
    else if (json_is_string(v))
      at += snprintf(out + at, left, ", %s", json_string_value(v));
  }
}

/* The row of a key; a new one has no cells yet. */
static json_t *row_of(comparison *c, const char *key, const json_t *finding) {
  json_t *row = json_object_get(c->rows, key);
  if (row)
    return row;
  json_t *cells = json_array();
  for (size_t i = 0; i < c->n; i++)
    json_array_append_new(cells, json_null());
  row = json_pack("{s:s,s:s,s:o}", "id", pf_js_str(finding, "id"), "title",
                  pf_js_str(finding, "title"), "cells", cells);
  json_object_set_new(c->rows, key, row);
  return row;
}

static int collect(comparison *c) {
  c->rows = json_object();
  for (size_t i = 0; i < c->n && c->rows; i++) {
    const json_t *f;
    size_t k;
    json_array_foreach(json_object_get(c->s[i].findings, "findings"), k, f) {
      char key[KEY];
      key_of(&c->s[i], f, key);
      json_array_set(json_object_get(row_of(c, key, f), "cells"), i, (json_t *)f);
    }
  }
  return c->rows ? PF_OK : PF_ENOMEM;
}

/* ---- do models agree? ------------------------------------------------------------------------ */

static pf_verdict verdict_of(const json_t *finding) {
  const char *name = pf_js_str(finding, "verdict");
  for (int v = 0; v <= PF_UNINFORMATIVE; v++)
    if (!strcmp(name, pf_verdict_name((pf_verdict)v)))
      return (pf_verdict)v;
  return PF_INCONCLUSIVE; /* not run */
}

/* A study in the grid's own words goes before those with another baseline or paraphrase. */
static int in_other_words(const study *s) {
  int n;
  (void)pf_manifest_other_words(s->manifest, &n);
  return n;
}

/* H9 counts each model once: its study in f32, whatever the order they are named in. */
static bool counts(const comparison *c, size_t i) {
  if (strcmp(precision_of(&c->s[i]), "f32") != 0)
    return false;
  for (size_t k = 0; k < c->n; k++) {
    int less = in_other_words(&c->s[k]) - in_other_words(&c->s[i]);
    if (k != i && !strcmp(precision_of(&c->s[k]), "f32") &&
        !strcmp(pf_js_str(model_of(&c->s[k]), "weights_sha256"),
                pf_js_str(model_of(&c->s[i]), "weights_sha256")) &&
        (less < 0 || (less == 0 && k < i)))
      return false;
  }
  return true;
}

static json_t *agreement(const comparison *c, const json_t *row) {
  pf_verdict v[MOST];
  pf_finding f;
  char *line = NULL;
  size_t n = 0;
  for (size_t i = 0; i < c->n; i++)
    if (counts(c, i)) {
      const json_t *cell = json_array_get(json_object_get(row, "cells"), i);
      v[n++] = verdict_of(cell);
    }
  if (n < 2)
    return json_null();
  pf_h9(v, n, &f);
  json_t *o = pf_finding_json(&f);
  if (pf_finding_line(&f, pf_js_str(row, "id"), &line) == PF_OK)
    json_object_set_new(o, "line", json_string(line));
  pf_text_free(line);
  return o;
}

/* ---- does the wording decide? ---------------------------------------------------------------- */

/* What prompts are worded by, beside the grid. */
static const char *const wordings[] = {"baseline", "paraphrase"};
enum { N_WORDINGS = sizeof wordings / sizeof *wordings };

static const json_t *worded(const study *s, int w) {
  return json_object_get(json_object_get(s->manifest, "grid"), wordings[w]);
}

static bool same_wording(const study *a, const study *b, int w) {
  const json_t *x = worded(a, w), *y = worded(b, w);
  return x && y ? json_equal(x, y) : x == y;
}

static bool one_wording(const comparison *c, int w) {
  for (size_t i = 1; i < c->n; i++)
    if (!same_wording(&c->s[0], &c->s[i], w))
      return false;
  return true;
}

/* Whether two studies differ in this wording, of model, precision, grid and wordings in no other.
 */
static bool differ_in(const study *a, const study *b, int w) {
  if (strcmp(pf_js_str(model_of(a), "weights_sha256"), pf_js_str(model_of(b), "weights_sha256")) ||
      strcmp(precision_of(a), precision_of(b)) != 0 || !same_grid(a, b))
    return false;
  for (int k = 0; k < N_WORDINGS; k++)
    if (same_wording(a, b, k) == (k == w))
      return false;
  return true;
}

/* The wordings on which a row's verdict depends: an array of their names. */
static json_t *depends_on(const comparison *c, const json_t *row) {
  const json_t *cells = json_object_get(row, "cells");
  json_t *out = json_array();
  for (int w = 0; w < N_WORDINGS; w++) {
    bool depends = false;
    for (size_t i = 0; i < c->n; i++)
      for (size_t k = 0; k < i; k++) {
        const json_t *a = json_array_get(cells, i), *b = json_array_get(cells, k);
        depends |= json_is_object(a) && json_is_object(b) && differ_in(&c->s[i], &c->s[k], w) &&
                   verdict_of(a) != verdict_of(b);
      }
    if (depends)
      json_array_append_new(out, json_string(wordings[w]));
  }
  return out;
}

/* ---- wordings together ---- */

/* Whether two studies differ in the paraphrase at most: the same cells of one model. */
static bool same_but_words(const study *a, const study *b) {
  return !strcmp(pf_js_str(model_of(a), "weights_sha256"),
                 pf_js_str(model_of(b), "weights_sha256")) &&
         !strcmp(precision_of(a), precision_of(b)) && same_grid(a, b) && !of_conflicts(a) &&
         same_wording(a, b, 0);
}

/* Studies of one model that say the same cells in other words, and what they find together. Two of
 * one wording are one study twice: the first counts. */
static int add_pool(const comparison *c, size_t first, json_t *pools) {
  const char *dirs[PF_POOLED];
  size_t at[PF_POOLED], n = 0;
  for (size_t i = first; i < c->n && n < PF_POOLED; i++) {
    bool there = !same_but_words(&c->s[first], &c->s[i]);
    for (size_t k = 0; k < n; k++)
      there |= same_wording(&c->s[at[k]], &c->s[i], 1);
    if (!there) {
      at[n] = i;
      dirs[n++] = c->s[i].dir;
    }
  }
  json_t *found, *folders = json_array();
  for (size_t k = 0; k < n; k++)
    json_array_append_new(folders, json_string(dirs[k]));
  int rc = n > 1 ? pf_findings_pooled(dirs, n, &found) : PF_OK;
  if (n > 1 && rc == PF_OK && json_array_size(found))
    json_array_append_new(pools, json_pack("{s:s,s:s,s:O,s:O}", "model",
                                           pf_js_str(model_of(&c->s[first]), "name"), "precision",
                                           precision_of(&c->s[first]), "folders", folders,
                                           "findings", found));
  if (n > 1)
    json_decref(found);
  json_decref(folders);
  return rc;
}

static int pools_json(const comparison *c, json_t **out) {
  int rc = PF_OK;
  *out = json_array();
  for (size_t i = 0; i < c->n && rc == PF_OK; i++) {
    size_t k = 0;
    while (k < i && !same_but_words(&c->s[k], &c->s[i]))
      k++;
    if (k == i)
      rc = add_pool(c, i, *out);
  }
  return rc;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *study_json(const study *s) {
  const json_t *m = model_of(s), *g = json_object_get(s->manifest, "grid");
  return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:O?,s:O?,s:O?,s:O?}", "folder", s->dir, "model",
                   pf_js_str(m, "name"), "weights_sha256", pf_js_str(m, "weights_sha256"),
                   "precision", precision_of(s), "protocol", pf_js_str(s->manifest, "protocol"),
                   "grid", pf_js_str(g, "name"), "layers", json_object_get(s->manifest, "layers"),
                   "cells", json_object_get(s->manifest, "cells"), wordings[0], worded(s, 0),
                   wordings[1], worded(s, 1));
}

static double median_at(const study *s, const char *probe, size_t rank) {
  char layer[16];
  const json_t *list = json_object_get(s->manifest, "layers");
  if (rank >= json_array_size(list))
    return NAN;
  snprintf(layer, sizeof layer, "%d", (int)json_integer_value(json_array_get(list, rank)));
  const json_t *site =
      json_object_get(json_object_get(json_object_get(s->summary, "causal"), probe), layer);
  return pf_js_real(json_object_get(site, "summary"), "median");
}

/* A row for each position and rank among the tested layers: the studies' medians. */
static json_t *sweep_json(const comparison *c) {
  static const char *const probes[] = {"p_user_last", "p_last", "g1", "g2"};
  json_t *rows = json_array();
  bool any = false;
  size_t most = 0;
  for (size_t i = 0; i < c->n; i++) {
    size_t n = json_array_size(json_object_get(c->s[i].manifest, "layers"));
    any |= c->s[i].summary != NULL;
    most = n > most ? n : most;
  }
  for (size_t p = 0; any && p < sizeof probes / sizeof *probes; p++)
    for (size_t k = 0; k < most; k++) {
      json_t *x = json_array();
      for (size_t i = 0; i < c->n; i++)
        json_array_append_new(
            x, pf_js_num(c->s[i].summary ? median_at(&c->s[i], probes[p], k) : (double)NAN));
      json_array_append_new(rows, json_pack("{s:s,s:i,s:o}", "position", probes[p], "tested_layer",
                                            (int)k + 1, "median_kl10", x));
    }
  return rows;
}

static json_t *result_of(const comparison *c) {
  json_t *studies = json_array(), *rows = json_array(), *row;
  const char *key;
  for (size_t i = 0; i < c->n; i++)
    json_array_append_new(studies, study_json(&c->s[i]));
  json_object_foreach(c->rows, key, row) {
    json_t *o = json_deep_copy(row);
    json_object_set_new(o, "where", json_string(key));
    json_object_set_new(o, "H9", agreement(c, row));
    json_object_set_new(o, "depends_on", depends_on(c, row));
    json_array_append_new(rows, o);
  }
  return json_pack("{s:s,s:o,s:o,s:O,s:o}", "schema", "personaflow-comparison/1", "studies",
                   studies, "rows", rows, "pooled", c->pools, "sweep", sweep_json(c));
}

/* ---- the page -------------------------------------------------------------------------------- */

static void puts_(pf_buf *b, const char *s) {
  pf_buf_puts(b, s);
}

static bool one_grid(const comparison *c) {
  for (size_t i = 1; i < c->n; i++)
    if (!same_grid(&c->s[i], &c->s[0]))
      return false;
  return true;
}

/* Model and precision, and on which grid and in which wording where the studies differ. */
static void name_what(const comparison *c, const study *s, char out[KEY]) {
  const json_t *base = worded(s, 0), *by = worded(s, 1);
  int at = snprintf(out, KEY, "%s, %s", pf_js_str(model_of(s), "name"), precision_of(s));
  if (at < KEY && !one_grid(c))
    at += snprintf(out + at, KEY - (size_t)at, ", grid %s%s", pf_js_str(grid_of(s), "name"),
                   of_conflicts(s) ? ", conflicts" : "");
  if (at < KEY && base && !one_wording(c, 0))
    at += snprintf(out + at, KEY - (size_t)at, ", baseline \"%s\" and \"%s\"",
                   pf_js_str(base, "persona"), pf_js_str(base, "task"));
  if (at < KEY && !one_wording(c, 1))
    snprintf(out + at, KEY - (size_t)at, ", paraphrase %s",
             json_is_string(by) ? json_string_value(by) : "none");
}

/* With the folder where another study is named the same. */
static void study_name(const comparison *c, const study *s, char out[KEY]) {
  char other[KEY];
  size_t same = 0;
  name_what(c, s, out);
  for (size_t i = 0; i < c->n; i++) {
    name_what(c, &c->s[i], other);
    same += !strcmp(out, other);
  }
  size_t at = strlen(out);
  if (same > 1)
    snprintf(out + at, KEY - at, ", %s", s->dir);
}

static void header_cells(const comparison *c, pf_buf *b) {
  char name[KEY];
  for (size_t i = 0; i < c->n; i++) {
    study_name(c, &c->s[i], name);
    puts_(b, "<th class=\"t\">");
    pf_html_text(b, name);
    puts_(b, "</th>");
  }
}

static void value_text(pf_buf *b, double x) {
  if (isnan(x))
    puts_(b, "&ndash;");
  else
    pf_buf_printf(b,
                  x == floor(x)     ? "%.0f"
                  : fabs(x) >= 10   ? "%.1f"
                  : fabs(x) >= 0.01 ? "%.2f"
                                    : "%.1g",
                  x);
}

/* The verdict and the first number that decided it. */
static void verdict_cell(pf_buf *b, const json_t *f) {
  const json_t *k = json_array_get(json_object_get(f, "criteria"), 0);
  puts_(b, "<td class=\"t\">");
  if (!json_is_object(f)) {
    puts_(b, "&ndash;</td>");
    return;
  }
  pf_html_text(b, pf_js_str(f, "verdict"));
  if (*pf_js_str(f, "kind")) {
    puts_(b, " / ");
    pf_html_text(b, pf_js_str(f, "kind"));
  }
  if (k) {
    puts_(b, "<br><small>");
    pf_html_text(b, pf_js_str(k, "name"));
    puts_(b, " = ");
    value_text(b, pf_js_real(k, "value"));
    puts_(b, " [");
    value_text(b, pf_js_real(k, "lo"));
    puts_(b, ", ");
    value_text(b, pf_js_real(k, "hi"));
    puts_(b, "]</small>");
  }
  puts_(b, "</td>");
}

/* True for a row about a site and layer. */
static bool of_site(const json_t *row) {
  const json_t *cell;
  size_t i;
  json_array_foreach(json_object_get(row, "cells"), i, cell) {
    if (json_object_get(json_object_get(cell, "where"), "site"))
      return true;
  }
  return false;
}

/* "baseline-dependent" where the verdict changes with it. */
static void depends_cell(pf_buf *b, const json_t *on) {
  puts_(b, "<td class=\"t\">");
  for (size_t i = 0; i < json_array_size(on); i++)
    pf_buf_printf(b, "%s%s-dependent", i ? ", " : "", json_string_value(json_array_get(on, i)));
  puts_(b, json_array_size(on) ? "</td>" : "&ndash;</td>");
}

static void verdict_table(const comparison *c, const json_t *result, bool sites, pf_buf *b) {
  const json_t *row, *cell;
  size_t i, k;
  bool wording = !one_wording(c, 0) || !one_wording(c, 1);
  puts_(b, "<div class=\"wide\"><table><tr><th class=\"t\">hypothesis</th>");
  header_cells(c, b);
  puts_(b, "<th class=\"t\">H9</th>");
  puts_(b, wording ? "<th class=\"t\">wording</th></tr>\n" : "</tr>\n");
  json_array_foreach(json_object_get(result, "rows"), i, row) {
    if (of_site(row) != sites)
      continue;
    puts_(b, "<tr><td class=\"t\">");
    pf_html_text(b, pf_js_str(row, "where"));
    puts_(b, "<br><small>");
    pf_html_text(b, pf_js_str(row, "title"));
    puts_(b, "</small></td>");
    json_array_foreach(json_object_get(row, "cells"), k, cell) verdict_cell(b, cell);
    verdict_cell(b, json_object_get(row, "H9"));
    if (wording)
      depends_cell(b, json_object_get(row, "depends_on"));
    puts_(b, "</tr>\n");
  }
  puts_(b, "</table></div>\n");
}

/* Two numbers of a hypothesis, study by study. */
static const struct {
  const char *where, *title, *names[2], *series[2], *caption;
} figures[] = {{"H5, mask",
                "Which route keeps the persona's effect?",
                {"c_D", "c_I"},
                {"direct reads alone", "the indirect route alone"},
                "Closure with 95 % intervals over personas and tasks: the first near 1 and the "
                "second near 0 is a "
                "direct route, the reverse an indirect, both near 1 a redundant one."},
               {"H4, once at p_last",
                "Can one residual replace the prompt?",
                {"cached", "oracle"},
                {"the additive value", "the oracle"},
                "Closure with 95 % intervals, once at p_last, in the setting that is best on the "
                "other half of "
                "the personas."}};

static const json_t *row_where(const json_t *result, const char *where) {
  const json_t *row;
  size_t i;
  json_array_foreach(json_object_get(result, "rows"), i, row) {
    if (!strcmp(pf_js_str(row, "where"), where))
      return row;
  }
  return NULL;
}

static void criterion_value(const json_t *finding, const char *name, pf_svg_row *r, int series) {
  const json_t *k;
  size_t i;
  json_array_foreach(json_object_get(finding, "criteria"), i, k) {
    if (strcmp(pf_js_str(k, "name"), name) != 0)
      continue;
    r->mid[series] = pf_js_real(k, "value");
    r->lo[series] = pf_js_real(k, "lo");
    r->hi[series] = pf_js_real(k, "hi");
  }
}

static void verdict_figures(const comparison *c, const json_t *result, pf_buf *b) {
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    const json_t *row = row_where(result, figures[i].where);
    pf_figure f = {.n = 0};
    for (size_t k = 0; k < c->n && row; k++) {
      char name[KEY];
      const json_t *finding = json_array_get(json_object_get(row, "cells"), k);
      study_name(c, &c->s[k], name);
      pf_svg_row *r = pf_figure_row(&f, name);
      for (int v = 0; v < 2; v++)
        criterion_value(finding, figures[i].names[v], r, v);
    }
    pf_figure_put(b, &f, figures[i].title, figures[i].series, 2, -0.25, figures[i].caption);
  }
}

static void verdicts(const comparison *c, const json_t *result, pf_buf *b) {
  puts_(b, "<h2>Verdicts</h2>\n<p>One row a hypothesis and place. Tested layers are counted from "
           "1, since "
           "models have different depths. The last column: in how many models is the verdict the "
           "same, each counted once, in f32 [of those here, at most of three]?</p>\n");
  verdict_table(c, result, false, b);
  verdict_figures(c, result, b);
  puts_(b, "<details><summary>By site and layer: relevance, additivity, geometry</summary>\n");
  verdict_table(c, result, true, b);
  puts_(b, "</details>\n");
}

/* "H5 direct reading, ablation mask" and what decided. */
static void pooled_row(const json_t *f, pf_buf *b) {
  const char *line = pf_js_str(f, "line"), *from = strstr(line, ": "), *key;
  const json_t *v;
  puts_(b, "<tr><td class=\"t\"><b>");
  pf_html_text(b, pf_js_str(f, "id"));
  puts_(b, "</b> ");
  pf_html_text(b, pf_js_str(f, "title"));
  json_object_foreach(json_object_get(f, "where"), key, v) {
    puts_(b, ", ");
    pf_html_text(b, json_is_string(v) ? json_string_value(v) : key);
  }
  puts_(b, "</td><td class=\"t\"><b>");
  pf_html_text(b, pf_js_str(f, "verdict"));
  puts_(b, "</b></td><td class=\"t\"><small>");
  pf_html_text(b, from ? from + 2 : line);
  puts_(b, "</small></td></tr>\n");
}

static void pooled_tables(const json_t *result, pf_buf *b) {
  const json_t *pools = json_object_get(result, "pooled"), *p, *f;
  size_t i, k;
  json_array_foreach(pools, i, p) {
    puts_(b, "<h2>Wordings together: ");
    pf_html_text(b, pf_js_str(p, "model"));
    puts_(b, ", ");
    pf_html_text(b, pf_js_str(p, "precision"));
    pf_buf_printf(b,
                  "</h2>\n<p>Each cell&rsquo;s mean over %zu ways to say it; intervals over "
                  "personas and tasks. What a wording brings by chance weighs less here.</p>\n"
                  "<div class=\"wide\"><table><tr><th class=\"t\">hypothesis</th><th "
                  "class=\"t\">verdict</th><th class=\"t\">what decided</th></tr>\n",
                  json_array_size(json_object_get(p, "folders")));
    json_array_foreach(json_object_get(p, "findings"), k, f) pooled_row(f, b);
    puts_(b, "</table></div>\n");
  }
}

/* Is a small KL that of the rounding? The same sweep in several precisions says. */
static void sweep_table(const comparison *c, const json_t *result, pf_buf *b) {
  const json_t *sweep = json_object_get(result, "sweep"), *row, *x;
  size_t i, k;
  if (json_array_size(sweep) == 0)
    return;
  puts_(b,
        "<h2>The additive value</h2>\n<p>Median KL over ten tokens, nats, when the additive value "
        "is put at a "
        "position and a tested layer (counted from 1: Studies says which they are). A KL that one "
        "precision has and another lacks is "
        "rounding.</p>\n"
        "<div class=\"wide\"><table class=\"num\"><tr><th class=\"t\">position, tested layer</th>");
  header_cells(c, b);
  puts_(b, "</tr>\n");
  json_array_foreach(sweep, i, row) {
    pf_buf_printf(b, "<tr><td class=\"t\">%s, %d</td>", pf_js_str(row, "position"),
                  (int)json_integer_value(json_object_get(row, "tested_layer")));
    json_array_foreach(json_object_get(row, "median_kl10"), k, x) {
      if (json_is_number(x))
        pf_buf_printf(b, "<td>%.5f</td>", json_number_value(x));
      else
        puts_(b, "<td>&ndash;</td>");
    }
    puts_(b, "</tr>\n");
  }
  puts_(b, "</table></div>\n");
}

/* "2, 3, 4": what "tested layer 2" of the tables below is in this study. */
static void tested_cell(const study *s, pf_buf *b) {
  const json_t *layer;
  size_t i;
  puts_(b, "<td class=\"t\">");
  json_array_foreach(json_object_get(s->manifest, "layers"), i, layer)
      pf_buf_printf(b, "%s%d", i ? ", " : "", (int)json_integer_value(layer));
  puts_(b, "</td></tr>\n");
}

static void studies_table(const comparison *c, pf_buf *b) {
  puts_(b, "<h2>Studies</h2>\n<div class=\"wide\"><table><tr><th class=\"t\">folder</th><th "
           "class=\"t\">model</th>"
           "<th class=\"t\">precision</th><th class=\"t\">protocol</th><th "
           "class=\"t\">grid</th><th>cells</th>"
           "<th>layers</th><th class=\"t\">of them tested</th></tr>\n");
  for (size_t i = 0; i < c->n; i++) {
    const study *s = &c->s[i];
    const char *texts[] = {s->dir, pf_js_str(model_of(s), "name"), precision_of(s),
                           pf_js_str(s->manifest, "protocol"),
                           pf_js_str(json_object_get(s->manifest, "grid"), "name")};
    puts_(b, "<tr>");
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
      puts_(b, "<td class=\"t\">");
      pf_html_text(b, texts[k]);
      puts_(b, "</td>");
    }
    pf_buf_printf(b, "<td>%d</td><td>%d</td>",
                  (int)json_integer_value(json_object_get(s->manifest, "cells")),
                  (int)json_integer_value(json_object_get(model_of(s), "n_layers")));
    tested_cell(s, b);
  }
  puts_(b, "</table></div>\n");
}

static void page_of(const comparison *c, const json_t *result, pf_buf *b) {
  pf_page_open(b, "personaflow: studies compared");
  pf_buf_printf(b, "<h1>%zu studies side by side</h1>\n", c->n);
  if (!one_grid(c))
    puts_(b, "<p class=\"card\">The studies have different grids: what differs may be the "
             "prompts.</p>\n");
  studies_table(c, b);
  if (json_object_size(c->rows))
    verdicts(c, result, b);
  pooled_tables(result, b);
  sweep_table(c, result, b);
  puts_(b, "</main></body></html>\n");
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int write_all(const comparison *c, const char *out) {
  char path[4400];
  pf_buf page = {0};
  json_t *result = result_of(c);
  page_of(c, result, &page);
  snprintf(path, sizeof path, "%s/comparison.html", out);
  int rc = pf_buf_status(&page);
  if (rc == PF_OK)
    rc = pf_write_file(path, page.s, page.n);
  if (rc == PF_OK)
    rc = pf_js_write(out, "comparison.json", result);
  if (rc == PF_OK)
    rc = pf_page_parts(out, page.s);
  pf_buf_free(&page);
  json_decref(result);
  return rc;
}

/* A study's own folder is no place for a comparison, whatever the files in it look like. */
static int check_out(const comparison *c, const char *out) {
  struct stat a, b;
  for (size_t i = 0; i < c->n; i++)
    if (stat(out, &a) == 0 && stat(c->s[i].dir, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
      return pf_fail(PF_EEXIST, "%s: is one of the studies: choose another folder for --out", out);
  return PF_OK;
}

int pf_report_compare(const char *const *dirs, size_t n, const char *out, int force) {
  PF_FP_PLAIN();
  static const char *const others[] = {"comparison.html", NULL};
  comparison c = {0};
  if (n < 2 || n > MOST)
    return pf_fail(PF_EUSAGE, "a comparison takes 2 to %d studies", MOST);
  int rc = PF_OK;
  for (; c.n < n && rc == PF_OK; c.n++)
    rc = read_study(&c.s[c.n], dirs[c.n]);
  if (rc == PF_OK)
    rc = check_out(&c, out);
  if (rc == PF_OK)
    rc = pf_folder_make(out, PF_FOLDER_COMPARISON, "comparison.json", others, force);
  if (rc == PF_OK)
    rc = collect(&c);
  if (rc == PF_OK)
    rc = pools_json(&c, &c.pools);
  if (rc == PF_OK)
    rc = write_all(&c, out);
  json_decref(c.rows);
  json_decref(c.pools);
  for (size_t i = 0; i < c.n; i++) {
    json_decref(c.s[i].manifest);
    json_decref(c.s[i].findings);
    json_decref(c.s[i].summary);
  }
  return rc;
}
