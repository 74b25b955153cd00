/* SPDX-License-Identifier: Apache-2.0
 * The texts under each value, and residuals in place of the persona's text, on a page. */
#include "analysis/answerspage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* Rows of the table of C3. */
static const struct {
  const char *what, *query;
} injections[] = {
    {"paper: oracle, one layer, p_last", "host=B condition=oracle positions=p_last set=14"},
    {"paper: cached, one layer, p_last", "host=B condition=cached positions=p_last set=14"},
    {"cached, the widest set of layers", "host=B condition=cached set=6_8_10_12_14_16_18_20_22"},
    {"oracle, the widest set of layers", "host=B condition=oracle set=6_8_10_12_14_16_18_20_22"},
    {"oracle, all layers, p_last (t = 0 by construction)",
     "host=B condition=oracle positions=p_last set=all"},
    {"another persona's", "host=B condition=other_persona"},
    {"random, same length", "host=B condition=random"},
    {"averaged over other tasks", "host=B condition=averaged"},
    {"cached, end of turn and header", "host=B condition=cached positions=E"},
    {"cached, task and header", "host=B condition=cached positions=Y+E"},
    {"cached, p_last g1 g2", "host=B condition=cached positions=window"},
    {"oracle, p_last g1 g2", "host=B condition=oracle positions=window"},
    {"cached, every step", "host=B condition=cached positions=every_step set=14"},
    {"oracle, every step", "host=B condition=oracle positions=every_step set=14"},
    {"averaged D_X added at every step", "host=B condition=mean_delta positions=every_step"},
    {"oracle in the bare task", "host=bare condition=oracle"},
    {"oracle in a neutral persona's prompt", "host=N condition=oracle"},
    {"oracle behind a gap", "host=GAP condition=oracle"},
    {"oracle in the masked prompt", "host=MASK condition=oracle"}};

/* ---- C2 -------------------------------------------------------------------------------------- */

static double share(pf_page *g, const char *q, const char *field, size_t *k, size_t *n) {
  double *x = g->rc == PF_OK ? pf_records_table(&g->r, "C2", q, field, &g->rc) : NULL;
  *k = *n = 0;
  for (size_t c = 0; x && c < g->n; c++) {
    *n += !isnan(x[c]);
    *k += x[c] > 0;
  }
  pf_free(x);
  return *n ? (double)*k / (double)*n : (double)NAN;
}

static size_t identified(pf_page *g, const char *q) {
  size_t i, n = 0;
  const json_t *rows = pf_records_of(&g->r, "C2", &g->rc), *row;
  json_array_foreach(rows, i, row) n +=
      pf_record_is(row, q) && !strcmp(pf_js_str(row, "identified"), pf_js_str(row, "persona"));
  return n;
}

static const char *const text_conditions[][2] = {
    {"clean", "once"}, {"additive", "once"}, {"additive", "window"}, {"additive", "every_step"},
    {"A2", "once"},    {"remove_X", "once"}, {"remove_X", "window"}, {"remove_X", "every_step"},
    {"S_X", "once"},   {"S_X", "window"},    {"S_X", "every_step"},  {"N1", "once"},
    {"N1", "window"},  {"N1", "every_step"}, {"host", "once"},       {"bare", "once"}};
enum { N_TEXT_CONDITIONS = sizeof text_conditions / sizeof *text_conditions };

static void behaviour_row(pf_page *g, const char *condition, const char *schedule) {
  char q[PF_QUERY];
  size_t k, n;
  snprintf(q, sizeof q, "condition=%s schedule=%s", condition, schedule);
  share(g, q, "markers", &k, &n);
  if (n == 0)
    return;
  pf_interval w = pf_wilson(k, n);
  pf_buf_printf(g->b,
                "<tr><td class=\"t\">%s</td><td class=\"t\">%s</td><td>%zu/%zu <small>[%.2f, "
                "%.2f]</small></td>",
                condition, schedule, k, n, w.lo, w.hi);
  share(g, q, "markers_not_verbatim", &k, &n);
  w = pf_wilson(k, n);
  pf_buf_printf(g->b, "<td>%zu/%zu <small>[%.2f, %.2f]</small></td>", k, n, w.lo, w.hi);
  pf_stats own = pf_page_stats(g, "C2", "own_minus_others_not_verbatim", q),
           llr = pf_page_stats(g, "C2", "llr_own", q);
  pf_page_spread(g, &own);
  pf_page_spread(g, &llr);
  pf_buf_printf(g->b, "<td>%zu/%zu</td></tr>\n", identified(g, q), g->n);
}

static void texts_of_cell(pf_page *g, size_t c) {
  size_t i;
  const json_t *rows = pf_records_of(&g->r, "C2", &g->rc), *row;
  pf_buf_puts(g->b, "<details><summary>");
  pf_page_text(g, g->r.personas[c / g->r.n_tasks]);
  pf_buf_puts(g->b, " &times; ");
  pf_page_text(g, g->r.tasks[c % g->r.n_tasks]);
  pf_buf_puts(g->b, "</summary><table>\n");
  json_array_foreach(rows, i, row) {
    if (pf_record_cell(&g->r, row) != c)
      continue;
    pf_buf_puts(g->b, "<tr><td class=\"t\">");
    pf_page_text(g, pf_js_str(row, "condition"));
    pf_buf_puts(g->b, "<br><small>");
    pf_page_text(g, pf_js_str(row, "schedule"));
    pf_buf_puts(g->b, "</small></td><td class=\"t\">");
    pf_page_text(g, pf_js_str(row, "text"));
    pf_buf_puts(g->b, "</td></tr>\n");
  }
  pf_buf_puts(g->b, "</table></details>\n");
}

void pf_page_texts(pf_page *g) {
  if (!pf_page_has(g, "C2"))
    return;
  pf_buf_puts(g->b,
              "<h2>What the model says under each value</h2>\n<p>80 greedy tokens with a value put "
              "at the layer of the paper&rsquo;s "
              "test: once at p_last, at p_last, g1 and g2 (window), or at every step. Markers are "
              "signs of the "
              "persona; not verbatim: not words of the prompt itself. LLR: how much likelier the "
              "persona&rsquo;s prompt makes the text than the baseline&rsquo;s, nats a token, by "
              "the model itself.</p>\n"
              "<div class=\"wide\"><table class=\"num\"><tr><th class=\"t\">value</th><th "
              "class=\"t\">schedule</th><th>any marker</th>"
              "<th>not verbatim</th><th>own &minus; others</th><th>LLR</th><th>persona "
              "identified</th></tr>\n");
  for (int i = 0; i < N_TEXT_CONDITIONS && g->rc == PF_OK; i++)
    behaviour_row(g, text_conditions[i][0], text_conditions[i][1]);
  pf_buf_puts(g->b, "</table></div>\n<p class=\"sub\">Shares of cells with Wilson&rsquo;s 95 % "
                    "intervals; medians [25 %, 75 %]. The texts of each cell:</p>\n");
  for (size_t c = 0; c < g->n && g->rc == PF_OK; c++)
    texts_of_cell(g, c);
}

/* ---- C3 -------------------------------------------------------------------------------------- */

void pf_page_injections(pf_page *g) {
  if (!pf_page_has(g, "C3"))
    return;
  pf_buf_puts(g->b,
              "<h2>Can residuals stand in for the persona&rsquo;s text?</h2>\n<p>Closure = 1 "
              "&minus; KL / KL(host): 0 as without the persona, 1 as with its text. "
              "The first token (t = 0) stands apart: a late residual decides it alone, later "
              "tokens meet it only through one position&rsquo;s keys and values.</p>\n"
              "<div class=\"wide\"><table class=\"num\"><tr><th class=\"t\">put into the "
              "host</th><th>closure, 10 tokens</th><th>t = 0</th><th>t = 1&ndash;9</th><th>t "
              "&ge; 10</th><th>10 tokens, reverse KL</th><th>Jensen&ndash;Shannon</th></tr>\n");
  for (size_t i = 0; i < sizeof injections / sizeof *injections && g->rc == PF_OK; i++) {
    static const char *const fields[] = {
        "closure10",    "closure_0", "closure_1_9", "closure_10", "closure_reverse_kl10",
        "closure_jsd10"};
    pf_page_fields_row(g, injections[i].what, "C3", injections[i].query, fields,
               sizeof fields / sizeof *fields);
  }
  pf_buf_puts(g->b, "</table></div>\n");
}
