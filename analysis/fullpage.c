/* SPDX-License-Identifier: Apache-2.0
 * The experiments of the full protocol on a page: verdicts, then a figure or a table for each. */
#include "analysis/fullpage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/answerspage.h"
#include "analysis/flowpage.h"
#include "analysis/svg.h"
#include "analysis/verdict.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- verdicts -------------------------------------------------------------------------------- */

static void where_text(pf_page *g, const json_t *w) {
  const char *key;
  json_t *v;
  bool first = true;
  json_object_foreach((json_t *)w, key, v) {
    if (!strcmp(key, "chosen"))
      continue;
    pf_buf_puts(g->b, first ? "" : ", ");
    first = false;
    if (strcmp(key, "site") != 0) {
      pf_page_text(g, key);
      pf_buf_puts(g->b, " ");
    }
    if (json_is_integer(v))
      pf_buf_printf(g->b, "%d", (int)json_integer_value(v));
    else if (json_is_number(v))
      pf_buf_printf(g->b, "%.2g", json_number_value(v));
    else
      pf_page_text(g, json_string_value(v));
  }
}

/* What a line says between the number of cells and the verdict. */
static void criteria_text(pf_page *g, const json_t *f) {
  static const char *const heads[] = {" cells: ", " cell: "};
  const char *line = pf_js_str(f, "line"), *from = NULL, *to = strstr(line, " \xe2\x86\x92 ");
  for (size_t i = 0; i < PF_COUNT(heads) && !from; i++) {
    from = strstr(line, heads[i]);
    from += from ? strlen(heads[i]) : 0;
  }
  char *part = from && to && to > from ? strndup(from, (size_t)(to - from)) : NULL;
  pf_page_text(g, part ? part : line);
  free(part);
}

/* The criteria's means over cells, intervals over personas alone, sign flips of persona means. */
static void personas_text(pf_page *g, const json_t *f) {
  const json_t *c;
  size_t i;
  bool any = false;
  json_array_foreach(json_object_get(f, "criteria"), i, c) {
    const json_t *x = json_object_get(c, "over_personas"), *p = json_object_get(c, "sign_flip_p");
    if (!x)
      continue;
    pf_buf_puts(g->b, any ? ", " : "<br><i>mean, and the interval over personas alone:</i> ");
    any = true;
    pf_page_text(g, pf_js_str(c, "name"));
    pf_buf_printf(g->b, " %.2g [%.2g, %.2g]", pf_js_real(c, "mean"),
                  json_number_value(json_array_get(x, 0)), json_number_value(json_array_get(x, 1)));
    if (p)
      pf_buf_printf(g->b, " (p = %.2g)", json_number_value(p));
  }
}

static void finding_row(pf_page *g, const json_t *f) {
  pf_buf_puts(g->b, "<tr><td class=\"t\"><b>");
  pf_page_text(g, pf_js_str(f, "id"));
  pf_buf_puts(g->b, "</b> ");
  pf_page_text(g, pf_js_str(f, "title"));
  pf_buf_puts(g->b, "<br><small>");
  where_text(g, json_object_get(f, "where"));
  pf_buf_puts(g->b, "</small></td><td class=\"t\"><b>");
  pf_page_text(g, pf_js_str(f, "verdict"));
  if (*pf_js_str(f, "kind")) {
    pf_buf_puts(g->b, "</b>, ");
    pf_page_text(g, pf_js_str(f, "kind"));
    pf_buf_puts(g->b, "<b>");
  }
  pf_buf_puts(g->b, "</b></td><td class=\"t\"><small>");
  criteria_text(g, f);
  personas_text(g, f);
  pf_buf_puts(g->b, "</small></td></tr>\n");
}

static bool is_of_site(const json_t *f) {
  return json_object_get(json_object_get(f, "where"), "site") != NULL;
}

static void finding_rows(pf_page *g, const json_t *list, bool of_sites) {
  size_t i;
  const json_t *f;
  pf_buf_puts(g->b, "<div class=\"wide\"><table><tr><th class=\"t\">hypothesis</th><th class=\"t\">"
                    "verdict</th><th class=\"t\">what decided (95 % intervals over personas x "
                    "tasks; of H4c 90 %: two one-sided tests)</th></tr>\n");
  json_array_foreach(list, i, f) {
    if (is_of_site(f) == of_sites)
      finding_row(g, f);
  }
  pf_buf_puts(g->b, "</table></div>\n");
}

static int middle_layer(const pf_page *g) {
  const json_t *layers = json_object_get(g->r.manifest, "layers");
  return (int)json_integer_value(json_array_get(layers, json_array_size(layers) / 2));
}

static void site_findings(pf_page *g, const json_t *list) {
  pf_buf_puts(g->b,
              "<details><summary>By site and layer: relevance, additivity, geometry (a site at "
              "which dropping the persona changes little is uninformative: it is not called "
              "additive)</summary>\n");
  finding_rows(g, list, true);
  pf_buf_puts(g->b, "</details>\n");
}

static void verdicts(pf_page *g) {
  char path[4400];
  json_t *all = NULL;
  snprintf(path, sizeof path, "%s/findings.json", g->r.dir);
  if (access(path, F_OK) != 0)
    return;
  g->rc = pf_js_file(path, (size_t)1 << 30, &all);
  if (g->rc != PF_OK)
    return;
  pf_buf_puts(g->b, "<h2>Verdicts</h2>\n");
  pf_buf_puts(g->b,
              "<p>A hypothesis is supported if the interval of every criterion lies on the "
              "required side, not supported if one lies wholly on the other side, else "
              "inconclusive. The rules and their limits stand in <code>findings.json</code>; they "
              "were fixed before any run on published weights, and what was changed after the demo "
              "models had been seen is in doc/STUDY.md.</p>\n");
  const json_t *list = json_object_get(all, "findings"), *f;
  size_t i, n = 0;
  finding_rows(g, list, false);
  json_array_foreach(list, i, f) n += is_of_site(f);
  if (n)
    site_findings(g, list);
  json_decref(all);
}

/* ---- C1 -------------------------------------------------------------------------------------- */

/* Of how many cells, where it is not all of them. */
static void ratio_cell(pf_page *g, size_t n, size_t all, const pf_stats *s) {
  if (n == all) {
    pf_page_spread(g, s);
    return;
  }
  pf_buf_puts(g->b, "<td>");
  if (n)
    pf_buf_printf(g->b, "%.3g <small>[%.3g, %.3g]</small>", s->median, s->q25, s->q75);
  else
    pf_buf_puts(g->b, "&ndash;");
  pf_buf_printf(g->b, " <small>%zu/%zu</small></td>", n, all);
}

/* KL of A1, S_X, S_Y, S_0 in each cell, and the three ratios where dropping costs something.
 * Nothing without A1. */
static void site_row(pf_page *g, const char *name, double *const x[4]) {
  double *r = pf_alloc(g->n, sizeof *r);
  size_t there = 0;
  for (size_t c = 0; c < g->n; c++)
    there += !isnan(x[0][c]);
  if (!r)
    g->rc = PF_ENOMEM;
  if (!r || !there) {
    pf_free(r);
    return;
  }
  pf_page_label(g, name);
  for (int k = 0; k < 7; k++) {
    const double *kl = x[k < 4 ? k : k - 3];
    size_t n = 0;
    for (size_t c = 0; c < g->n; c++) {
      r[c] = k < 4 ? kl[c] : kl[c] >= pf_threshold.relevant_kl ? 1 - x[0][c] / kl[c] : (double)NAN;
      n += !isnan(r[c]);
    }
    pf_stats s = pf_stats_of(r, g->n);
    ratio_cell(g, k < 4 ? there : n, there, &s);
  }
  pf_buf_puts(g->b, "</tr>\n");
  pf_free(r);
}

/* Do the answers depend on which divergence is taken? */
static void local_values(pf_page *g) {
  static const struct {
    const char *condition, *name;
  } values[] = {{"I1", "one unit in the last place (I1)"},
                {"A1", "additive value (A1)"},
                {"A2", "two-way fit without the cell (A2)"},
                {"N5", "A1 at the length of the state (N5)"},
                {"RMX", "persona's part taken away (RMX)"},
                {"S_X", "persona dropped (S_X)"},
                {"S_Y", "task dropped (S_Y)"},
                {"S_0", "both dropped (S_0)"},
                {"N1", "another persona (N1)"},
                {"N2", "another task (N2)"},
                {"N3_isotropic", "random direction for the persona (N3)"}};
  static const char *const fields[] = {"kl10", "reverse_kl10", "jsd10", "kl_0"};
  int layer = middle_layer(g);
  double floor = pf_records_floor(&g->r, "p_last", layer, &g->rc);
  pf_buf_printf(g->b,
                "<h3>Values at p_last, layer %d</h3>\n<div class=\"wide\"><table class=\"num\"><tr>"
                "<th class=\"t\">put there</th><th>KL, 10 tokens</th><th>reverse KL</th><th>"
                "Jensen&ndash;Shannon</th><th>KL, t = 0</th></tr>\n",
                layer);
  for (size_t i = 0; i < sizeof values / sizeof *values && g->rc == PF_OK; i++) {
    char q[PF_QUERY], name[96];
    snprintf(q, sizeof q, "site=p_last layer=%d condition=%s", layer, values[i].condition);
    pf_stats kl = pf_page_stats(g, "C1", "kl10", q);
    snprintf(name, sizeof name, "%s%s", values[i].name,
             kl.median < pf_threshold.late_floors * floor ? ": at floor" : "");
    pf_page_fields_row(g, name, "C1", q, fields, sizeof fields / sizeof *fields, NULL);
  }
  pf_buf_printf(
      g->b,
      "</table></div>\n<p class=\"sub\">Nats, medians over cells [25 %%, 75 %%]. The "
      "Jensen&ndash;Shannon divergence of a token is at most ln 2. Noise floor: %.2g nats, "
      "the largest KL of I1 in any cell and draw; below three of it: at floor. Another "
      "run, batch, thread count or kernel changes no bit, so that these floors are 0.</p>"
      "\n",
      floor);
}

/* All sites side by side: does each carry persona and task, and is it additive there? */
static void by_site(pf_page *g) {
  static const struct {
    const char *site, *name;
  } rows[] = {{"window", "p_last, g1 and g2 together (window)"},
              {"p_last", "p_last"},
              {"g1", "g1"},
              {"g2", "g2"},
              {"g4", "g4"},
              {"g8", "g8"},
              {"p_user_last", "end of the task (p_user_last)"},
              {"task_mid", "middle of the task (task_mid)"},
              {"persona_last", "last token of the persona (the task comes later: A1 is h_XY)"}};
  static const char *const conditions[] = {"A1", "S_X", "S_Y", "S_0"};
  int layer = middle_layer(g);
  pf_buf_printf(g->b,
                "<h3>Sites, layer %d</h3>\n<div class=\"wide\"><table class=\"num\"><tr><th "
                "class=\"t\">site</th><th>KL, A1</th><th>KL, persona dropped</th><th>KL, task "
                "dropped</th><th>KL, both dropped</th><th>R_X</th><th>R_Y</th><th>R_0</th></tr>\n",
                layer);
  for (size_t i = 0; i < PF_COUNT(rows) && g->rc == PF_OK; i++) {
    double *x[4] = {NULL};
    char q[PF_QUERY];
    for (int k = 0; k < 4 && g->rc == PF_OK; k++) {
      snprintf(q, sizeof q, "site=%s layer=%d condition=%s", rows[i].site, layer, conditions[k]);
      x[k] = pf_records_table(&g->r, "C1", q, "kl10", &g->rc);
    }
    if (g->rc == PF_OK)
      site_row(g, rows[i].name, x);
    for (int k = 0; k < 4; k++)
      pf_free(x[k]);
  }
  pf_buf_printf(g->b,
                "</table></div>\n<p class=\"sub\">Medians over cells [25 %%, 75 %%]; R = 1 &minus; "
                "KL(A1) / KL(dropped), in each cell: 1 where the additive value loses nothing "
                "of what dropping loses. R of the cells in which dropping costs %.2g nats or more: "
                "elsewhere it would be a ratio of noise (k/n: of how many cells).</p>\n",
                pf_threshold.relevant_kl);
}

static void local(pf_page *g) {
  static const struct {
    const char *condition, *name;
  } lines[] = {{"A1", "additive value (A1)"},
               {"S_X", "persona dropped (S_X)"},
               {"N1", "another persona (N1)"},
               {"N3_isotropic", "random direction (N3)"}};
  static const char *const sites[] = {"p_last", "g1", "g2"};
  if (!pf_page_has(g, "C1"))
    return;
  pf_buf_puts(g->b, "<h2>Is the state additive at a site?</h2>\n<p>A value is put in the place of "
                    "the residual that enters a layer at one position; KL of the next ten tokens. "
                    "Where dropping the persona (S_X) costs little the site does not carry it, "
                    "whatever the additive value does.</p>\n");
  for (int i = 0; i < 3 && g->rc == PF_OK; i++) {
    pf_series s[4] = {{0}};
    char q[PF_QUERY], title[64];
    for (int k = 0; k < 4; k++) {
      s[k].name = lines[k].name;
      for (int l = 0; l <= g->n_layers && l < PF_POINTS; l++) {
        snprintf(q, sizeof q, "site=%s layer=%d condition=%s", sites[i], l, lines[k].condition);
        pf_stats v = pf_page_stats(g, "C1", "kl10", q);
        pf_series_add(&s[k], l, &v);
      }
    }
    snprintf(title, sizeof title, "KL at %s", sites[i]);
    pf_page_chart(
        g, title, "layer", s, 4, 1e-6, 100, true,
        "Medians over cells, bands from 25 to 75 %; nats over ten tokens, values below 1e-6 on "
        "the lower edge. N1 and N3: means over draws at the tested layers, one draw elsewhere. The "
        "last layer is the input of the final norm.");
  }
  local_values(g);
  by_site(g);
}

/* ---- conflicting cells ----------------------------------------------------------------------- */

static bool conflicting(const pf_page *g, size_t cell) {
  const json_t *list = json_object_get(json_object_get(g->r.manifest, "grid"), "conflicts"), *pair;
  size_t i;
  json_array_foreach(list, i, pair) {
    if (!strcmp(json_string_value(json_array_get(pair, 0)), g->r.personas[cell / g->r.n_tasks]) &&
        !strcmp(json_string_value(json_array_get(pair, 1)), g->r.tasks[cell % g->r.n_tasks]))
      return true;
  }
  return false;
}

/* A field over the conflicting cells, or over the others. */
static void part_of_cells(pf_page *g, const char *query, const char *field, bool conflicts) {
  double *x = g->rc == PF_OK ? pf_records_table(&g->r, "C1", query, field, &g->rc) : NULL;
  for (size_t c = 0; x && c < g->n; c++)
    x[c] = conflicting(g, c) == conflicts ? x[c] : (double)NAN;
  if (x) {
    pf_stats s = pf_stats_of(x, g->n);
    pf_page_spread(g, &s);
  }
  pf_free(x);
}

static void conflicts(pf_page *g) {
  static const struct {
    const char *name, *condition, *field;
  } rows[] = {{"interaction / |D_XY|", "geometry", "inter_over_xy"},
              {"cos(D_XY, D_X + D_Y)", "geometry", "cos_xy_sum"},
              {"KL, additive value (A1)", "A1", "kl10"},
              {"KL, persona dropped (S_X)", "S_X", "kl10"},
              {"KL, task dropped (S_Y)", "S_Y", "kl10"}};
  int layer = middle_layer(g);
  if (!pf_page_has(g, "C1") ||
      !json_object_get(json_object_get(g->r.manifest, "grid"), "conflicts"))
    return;
  pf_buf_printf(
      g->b,
      "<h2>Do personas and tasks interact where they conflict?</h2>\n<p>The grid crosses "
      "personas and tasks of which some do not go together, such as a legal contract with "
      "an opinion on policy. p_last, layer %d.</p>\n<table class=\"num\"><tr>"
      "<th class=\"t\"></th><th>conflicting cells</th><th>the others</th></tr>\n",
      layer);
  for (size_t i = 0; i < sizeof rows / sizeof *rows && g->rc == PF_OK; i++) {
    char q[PF_QUERY];
    snprintf(q, sizeof q, "site=p_last layer=%d condition=%s", layer, rows[i].condition);
    pf_page_label(g, rows[i].name);
    part_of_cells(g, q, rows[i].field, true);
    part_of_cells(g, q, rows[i].field, false);
    pf_buf_puts(g->b, "</tr>\n");
  }
  pf_buf_puts(g->b, "</table>\n<p class=\"sub\">Medians [25 %, 75 %].</p>\n");
}

/* ---- the page ----------------------------------------------------------------------------------
 */

static int open_page(pf_page *g, const char *dir, pf_buf *b) {
  *g = (pf_page){.b = b};
  g->rc = pf_records_open(&g->r, dir);
  if (g->rc != PF_OK)
    return g->rc;
  const json_t *m = json_object_get(g->r.manifest, "model");
  g->n = g->r.n_personas * g->r.n_tasks;
  g->n_layers = (int)json_integer_value(json_object_get(m, "n_layers"));
  g->n_heads = (int)json_integer_value(json_object_get(m, "n_heads"));
  return PF_OK;
}

int pf_full_page(const char *dir, pf_buf *b) {
  pf_page g;
  if (open_page(&g, dir, b) != PF_OK)
    return g.rc;
  void (*const parts[])(pf_page *) = {verdicts,
                                      local,
                                      conflicts,
                                      pf_page_texts,
                                      pf_page_injections,
                                      pf_page_routes,
                                      pf_page_transplants,
                                      pf_page_flow_maps,
                                      pf_page_words,
                                      pf_page_mass_and_delta};
  for (size_t i = 0; i < sizeof parts / sizeof *parts && g.rc == PF_OK; i++)
    parts[i](&g);
  pf_records_close(&g.r);
  return g.rc;
}
