/* SPDX-License-Identifier: Apache-2.0
 * The texts under each value, and residuals in place of the persona's text, on a page. */
#include "analysis/answerspage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/svg.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- texts: C2, or the paper's four values --------------------------------------------------- */

typedef struct texts {
  pf_page *g;
  const char *experiment;
  bool full;     /* C2 has scores by the model itself too */
  double *clean; /* markers of each cell's clean text */
  pf_figure f;
} texts;

/* A count of markers in each cell's text, NaN without the text. NULL: g->rc. */
static double *marked(const texts *t, const char *q, const char *field) {
  pf_page *g = t->g;
  return g->rc == PF_OK ? pf_records_table(&g->r, t->experiment, q, field, &g->rc) : NULL;
}

/* Cells with a marker of those with a text, and Wilson's interval, in the table and the figure. */
static void share(const texts *t, const double *x, pf_svg_row *r, int series) {
  size_t k = 0, n = 0;
  for (size_t c = 0; x && c < t->g->n; c++) {
    n += !isnan(x[c]);
    k += x[c] > 0;
  }
  pf_interval w = pf_wilson(k, n);
  r->mid[series] = n ? (double)k / (double)n : (double)NAN;
  r->lo[series] = w.lo;
  r->hi[series] = w.hi;
  pf_buf_printf(t->g->b, "<td>%zu/%zu <small>[%.2f, %.2f]</small></td>", k, n, w.lo, w.hi);
}

/* Cells that only the clean text has a marker in, that only this one has, and McNemar's p. */
static void against_clean(const texts *t, const double *x) {
  const double *clean = t->clean;
  size_t lost = 0, won = 0;
  for (size_t c = 0; clean && x && c < t->g->n; c++) {
    lost += clean[c] > 0 && x[c] <= 0;
    won += clean[c] <= 0 && x[c] > 0;
  }
  pf_buf_printf(t->g->b, "<td>&minus;%zu +%zu <small>p = %.2g</small></td>", lost, won,
                pf_mcnemar(lost, won));
}

/* Of how many cells' texts the model itself names the persona, and p under permuted labels. */
static void identified(const texts *t, const char *q) {
  pf_page *g = t->g;
  size_t i;
  pf_identified x = {.p = NAN};
  int32_t *named = pf_alloc(g->n, sizeof *named);
  const json_t *rows = pf_records_of(&g->r, t->experiment, &g->rc), *row;
  for (size_t c = 0; named && c < g->n; c++)
    named[c] = -1;
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(&g->r, row), p = 0;
    if (!named || c >= g->n || !pf_record_is(row, q))
      continue;
    while (p < g->r.n_personas && strcmp(g->r.personas[p], pf_js_str(row, "identified")) != 0)
      p++;
    named[c] = p < g->r.n_personas ? (int32_t)p : -1;
  }
  if (g->rc == PF_OK &&
      (!named || pf_identification(named, g->r.n_personas, g->r.n_tasks, &x) == PF_ENOMEM))
    g->rc = PF_ENOMEM;
  pf_buf_printf(g->b, "<td>%zu/%zu <small>[%.2f, %.2f] p = %.2g</small></td>", x.hits, x.n,
                x.accuracy.lo, x.accuracy.hi, x.p);
  pf_free(named);
}

static const char *const text_conditions[][2] = {{"clean", "once"},
                                                 {"additive", "once"},
                                                 {"additive", "window"},
                                                 {"additive", "every_step"},
                                                 {"A2", "once"},
                                                 {"A2", "window"},
                                                 {"A2", "every_step"},
                                                 {"remove_X", "once"},
                                                 {"remove_X", "window"},
                                                 {"remove_X", "every_step"},
                                                 {"S_X", "once"},
                                                 {"S_X", "window"},
                                                 {"S_X", "every_step"},
                                                 {"N1", "once"},
                                                 {"N1", "window"},
                                                 {"N1", "every_step"},
                                                 {"host", "once"},
                                                 {"bare", "once"},
                                                 {"host_cached", "once"},
                                                 {"host_cached", "window"},
                                                 {"host_cached", "every_step"},
                                                 {"host_oracle", "once"},
                                                 {"host_oracle", "window"},
                                                 {"host_oracle", "every_step"},
                                                 {"host_mean_delta", "once"},
                                                 {"host_mean_delta", "window"},
                                                 {"host_mean_delta", "every_step"}};
enum { N_TEXT_CONDITIONS = sizeof text_conditions / sizeof *text_conditions };

/* How a text runs. */
static const char *const course[] = {"first_divergence", "repetition", "nll_own"};

static void text_cells(texts *t, const char *q, const char *condition, const char *schedule,
                       const double *x) {
  char name[64];
  pf_page *g = t->g;
  double *not_verbatim = marked(t, q, "markers_not_verbatim");
  pf_stats own = pf_page_stats(g, t->experiment, "own_minus_others_not_verbatim", q);
  snprintf(name, sizeof name, "%s, %s", condition, schedule);
  pf_svg_row *r = pf_figure_row(&t->f, name);
  pf_buf_printf(g->b, "<tr><td class=\"t\">%s</td><td class=\"t\">%s</td>", condition, schedule);
  share(t, x, r, 0);
  share(t, not_verbatim, r, 1);
  if (strcmp(condition, "clean") != 0)
    against_clean(t, x);
  else
    pf_buf_puts(g->b, "<td>&ndash;</td>");
  pf_page_spread(g, &own);
  if (t->full) {
    pf_stats llr = pf_page_stats(g, t->experiment, "llr_own", q);
    pf_page_spread(g, &llr);
    identified(t, q);
    for (size_t k = 0; k < PF_COUNT(course); k++) {
      pf_stats s = pf_page_stats(g, t->experiment, course[k], q);
      pf_page_spread(g, &s);
    }
  }
  pf_buf_puts(g->b, "</tr>\n");
  pf_free(not_verbatim);
}

/* Nothing where no cell has a count of markers. */
static void text_row(texts *t, const char *condition, const char *schedule) {
  char q[PF_QUERY];
  snprintf(q, sizeof q, "condition=%s schedule=%s", condition, schedule);
  double *x = marked(t, q, "markers");
  bool any = false;
  for (size_t c = 0; x && c < t->g->n; c++)
    any |= !isnan(x[c]);
  if (any)
    text_cells(t, q, condition, schedule, x);
  pf_free(x);
}

/* A text with how it scores. */
static void one_text(const texts *t, const json_t *row) {
  static const struct {
    const char *field, *name;
  } scores[] = {{"markers_not_verbatim", "markers"},
                {"llr_own", "LLR"},
                {"first_divergence", "tokens as clean"},
                {"repetition", "repeated"}};
  pf_page *g = t->g;
  const char *named = pf_js_str(row, "identified");
  pf_page_text(g, pf_js_str(row, "text"));
  pf_buf_puts(g->b, "<br><small>");
  for (size_t k = 0; k < PF_COUNT(scores); k++) {
    const json_t *v = json_object_get(row, scores[k].field);
    if (!json_is_number(v))
      continue;
    pf_buf_printf(g->b, "%s ", scores[k].name);
    pf_buf_printf(g->b, json_is_integer(v) ? "%.0f; " : "%.2g; ", json_number_value(v));
  }
  if (*named) {
    pf_buf_puts(g->b, "sounds like: ");
    pf_page_text(g, named);
  }
  pf_buf_puts(g->b, "</small>");
}

/* The texts of a condition side by side, by schedule; one alone takes the whole row. once: there
 * are no others. */
static void texts_of_condition(const texts *t, const json_t *const *of, const char *condition,
                               bool once) {
  static const char *const schedules[] = {"once", "window", "every_step"};
  pf_page *g = t->g;
  const json_t *row[3] = {NULL};
  for (int s = 0; s < 3; s++) {
    char q[PF_QUERY];
    snprintf(q, sizeof q, "condition=%s schedule=%s", condition, schedules[s]);
    for (size_t i = 0; of[i] && !row[s]; i++)
      row[s] = pf_record_is(of[i], q) ? of[i] : NULL;
  }
  if (!row[0])
    return;
  bool alone = !row[1] && !row[2];
  pf_page_label(g, condition);
  for (int s = 0; s < (alone ? 1 : 3); s++) {
    pf_buf_puts(g->b, alone && !once ? "<td class=\"t\" colspan=\"3\">" : "<td class=\"t\">");
    if (row[s])
      one_text(t, row[s]);
    pf_buf_puts(g->b, "</td>");
  }
  pf_buf_puts(g->b, "</tr>\n");
}

static void texts_of_cell(const texts *t, size_t c) {
  size_t i, n = 0;
  pf_page *g = t->g;
  const json_t *rows = pf_records_of(&g->r, t->experiment, &g->rc), *row;
  const json_t **of = pf_calloc(json_array_size(rows) + 1, sizeof *of);
  if (!of)
    g->rc = PF_ENOMEM;
  json_array_foreach(rows, i, row) {
    if (of && pf_record_cell(&g->r, row) == c)
      of[n++] = row;
  }
  if (n) {
    pf_buf_puts(g->b, "<details><summary>");
    pf_page_text(g, g->r.personas[c / g->r.n_tasks]);
    pf_buf_puts(g->b, " &times; ");
    pf_page_text(g, g->r.tasks[c % g->r.n_tasks]);
    bool once = true;
    for (i = 0; i < n; i++)
      once &= pf_record_is(of[i], "schedule=once") != 0;
    pf_buf_printf(g->b,
                  "</summary><div class=\"wide\"><table class=\"texts\"><tr><th "
                  "class=\"t\"></th><th class=\"t\">once</th>%s</tr>\n",
                  once ? "" : "<th class=\"t\">window</th><th class=\"t\">every step</th>");
    for (int k = 0; k < N_TEXT_CONDITIONS; k++)
      if (k == 0 || strcmp(text_conditions[k][0], text_conditions[k - 1][0]) != 0)
        texts_of_condition(t, of, text_conditions[k][0], once);
    pf_buf_puts(g->b, "</table></div></details>\n");
  }
  pf_free(of);
}

/* Of --markers, or the grid's own; else shipped ones. */
static const char *lists_of(const texts *t) {
  const char *own = pf_js_str(json_object_get(t->g->r.manifest, "markers"), "name");
  return *own ? own : t->full ? "full" : "paper";
}

static void texts_head(const texts *t) {
  pf_buf_puts(t->g->b, "<h2>What the model says under each value</h2>\n<p>Lists of markers: ");
  pf_page_text(t->g, lists_of(t));
  pf_buf_printf(
      t->g->b,
      ". 80 greedy tokens with a value put at the "
      "layer of the paper&rsquo;s test: %s. clean: nothing is put; additive: h<sub>BB</sub> + D_X "
      "+ D_Y (D_X = h<sub>XB</sub> &minus; h<sub>BB</sub>, D_Y = h<sub>BY</sub> &minus; "
      "h<sub>BB</sub>); remove_X: h<sub>XY</sub> &minus; D_X; %sbare: the task alone as the "
      "prompt. Markers are signs of the persona; not verbatim: not words of the prompt itself.%s"
      "</p>\n"
      "<div class=\"wide\"><table class=\"num\"><tr><th class=\"t\">value</th><th "
      "class=\"t\">schedule</th><th>any marker</th><th>not verbatim</th><th>against "
      "clean</th><th>own &minus; others</th>%s</tr>\n",
      t->full ? "once at p_last, at p_last, g1 and g2 (window), or at every step"
              : "once, at p_last",
      t->full ? "A2: persona and task effects fitted to the other cells; S_X: h<sub>BY</sub>, the "
                "persona dropped; N1: another persona&rsquo;s D_X in the place of its own; host: "
                "the baseline persona&rsquo;s prompt; "
              : "",
      t->full ? " LLR: how much likelier the persona&rsquo;s prompt makes the text than the "
                "baseline&rsquo;s, nats a token, by the model itself; persona identified: it is "
                "the one whose prompt makes the text likeliest (Wilson&rsquo;s interval, p under "
                "permuted labels). host_: in the baseline persona&rsquo;s prompt in place of the "
                "text: the additive value (cached), that of the whole prompt (oracle), the "
                "persona&rsquo;s effect averaged over other tasks, added (mean_delta)."
              : "",
      t->full ? "<th>LLR</th><th>persona identified</th><th>tokens as clean</th><th>repeated "
                "triples</th><th>nats a token, own prompt</th>"
              : "");
}

void pf_page_texts(pf_page *g) {
  static const char *const series[2] = {"any marker", "not verbatim"};
  texts t = {.g = g, .full = pf_page_has(g, "C2")};
  t.experiment = t.full ? "C2" : "markers";
  if (!pf_page_has(g, t.experiment))
    return;
  texts_head(&t);
  t.clean = marked(&t, "condition=clean schedule=once", "markers");
  for (int i = 0; i < N_TEXT_CONDITIONS && g->rc == PF_OK; i++)
    text_row(&t, text_conditions[i][0], text_conditions[i][1]);
  pf_free(t.clean);
  pf_buf_puts(g->b, "</table></div>\n<p class=\"sub\">Shares of cells with Wilson&rsquo;s 95 % "
                    "intervals; cells that lost and won a marker against the clean text, with "
                    "McNemar&rsquo;s exact p (not adjusted); medians [25 %, 75 %].</p>\n");
  if (!t.f.n)
    pf_buf_puts(g->b, "<p>No persona of this grid has a list of markers.</p>\n");
  pf_figure_put(
      g->b, &t.f, "Cells whose text has a marker of the persona", series, 2, 0,
      "Share of cells, Wilson&rsquo;s 95 % intervals. Paired cells decide between two rows, "
      "not the overlap of their intervals.");
  pf_buf_puts(g->b, "<p class=\"sub\">The texts of each cell:</p>\n");
  for (size_t c = 0; c < g->n && g->rc == PF_OK; c++)
    texts_of_cell(&t, c);
}

/* ---- residuals in a host: C3, or the paper's two tests --------------------------------------- */

static const pf_asked of_c3[] = {
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
    {"D_X added, p_last", "host=B condition=delta positions=p_last alpha=1"},
    {"twice D_X added, p_last", "host=B condition=delta positions=p_last alpha=2"},
    {"four times D_X added, p_last", "host=B condition=delta positions=p_last alpha=4"},
    {"averaged D_X added, p_last", "host=B condition=mean_delta positions=p_last alpha=1"},
    {"twice averaged D_X added, p_last", "host=B condition=mean_delta positions=p_last alpha=2"},
    {"four times averaged D_X, p_last", "host=B condition=mean_delta positions=p_last alpha=4"},
    {"half averaged D_X, every step", "host=B condition=mean_delta positions=every_step alpha=0.5"},
    {"averaged D_X added at every step",
     "host=B condition=mean_delta positions=every_step alpha=1"},
    {"twice averaged D_X, every step", "host=B condition=mean_delta positions=every_step alpha=2"},
    {"cached in the bare task", "host=bare condition=cached"},
    {"oracle in the bare task", "host=bare condition=oracle"},
    {"cached in a neutral persona's prompt", "host=N condition=cached"},
    {"oracle in a neutral persona's prompt", "host=N condition=oracle"},
    {"cached behind a gap", "host=GAP condition=cached"},
    {"oracle behind a gap", "host=GAP condition=oracle"},
    {"cached in the masked prompt", "host=MASK condition=cached"},
    {"oracle in the masked prompt", "host=MASK condition=oracle"}};
static const pf_asked of_paper[] = {{"oracle, one layer", "condition=oracle set=14"},
                                    {"cached, one layer", "condition=cached set=14"}};
static const pf_asked of_sets[] = {
    {"cached, two layers earlier too", "condition=cached set=10_12_14"},
    {"cached, layers before and after", "condition=cached set=10_12_14_16_18"},
    {"cached, from there to late layers", "condition=cached set=10_12_14_16_18_20_22"},
    {"cached, the widest set of layers", "condition=cached set=6_8_10_12_14_16_18_20_22"}};

static const json_t *grid_hosts(const pf_page *g) {
  return json_object_get(json_object_get(g->r.manifest, "grid"), "hosts");
}

/* Two rows for each host that the grid brings; in the figure as far as it has room. */
static void rows_of_hosts(pf_page *g, const char *const *fields, size_t n_fields, pf_figure *f) {
  static const char *const contents[] = {"cached", "oracle"};
  const char *key;
  json_t *text;
  json_object_foreach((json_t *)grid_hosts(g), key, text) {
    for (int i = 0; i < 2; i++) {
      char what[PF_QUERY], query[PF_QUERY];
      snprintf(what, sizeof what, "%s in host %s of the grid", contents[i], key);
      snprintf(query, sizeof query, "host=%s condition=%s", key, contents[i]);
      pf_page_fields_row(g, what, "C3", query, fields, n_fields, f->n < PF_FIGURE_ROWS ? f : NULL);
    }
  }
}

static void texts_of_hosts(pf_page *g) {
  const char *key;
  json_t *text;
  json_object_foreach((json_t *)grid_hosts(g), key, text) {
    pf_buf_puts(g->b, "<p class=\"sub\">Host ");
    pf_page_text(g, key);
    pf_buf_puts(g->b, ": &ldquo;");
    pf_page_text(g, json_string_value(text));
    pf_buf_puts(g->b, "&rdquo;</p>\n");
  }
}

void pf_page_injections(pf_page *g) {
  static const char *const fields[] = {
      "closure10",     "closure_0",    "closure_1_9", "closure_10", "closure_reverse_kl10",
      "closure_jsd10", "closure_ll10", "<closure10"};
  static const char *const series[2] = {"ten tokens", "the first token"};
  enum { N_FIELDS = PF_COUNT(fields) };
  pf_figure f = {.n = 0};
  bool full = pf_page_has(g, "C3");
  if (!full && !pf_page_has(g, "injection") && !pf_page_has(g, "layer_sets"))
    return;
  pf_buf_printf(g->b,
                "<h2>Can residuals stand in for the persona&rsquo;s text?</h2>\n<p>Closure = 1 "
                "&minus; KL / KL(host): 0 as without the persona, 1 as with its text. "
                "%sThe first token (t = 0) stands apart: a late residual decides it alone, later "
                "tokens meet it only through one position&rsquo;s keys and values.</p>\n"
                "<div class=\"wide\"><table class=\"num\"><tr><th class=\"t\">put into the "
                "host</th><th>closure, 10 tokens</th><th>t = 0</th><th>t = 1&ndash;9</th><th>t "
                "&ge; 10</th><th>10 tokens, reverse "
                "KL</th><th>Jensen&ndash;Shannon</th><th>likelihood</th><th>cells made "
                "worse</th></tr>\n",
                full ? ""
                     : "Host: the baseline persona&rsquo;s prompt, overwritten once at p_last; "
                       "cached: the additive value; oracle: the vector of the whole prompt. ");
  if (full) {
    pf_page_asked(g, "C3", of_c3, PF_COUNT(of_c3), fields, N_FIELDS, &f);
    rows_of_hosts(g, fields, N_FIELDS, &f);
  } else {
    pf_page_asked(g, "injection", of_paper, PF_COUNT(of_paper), fields, N_FIELDS, &f);
    pf_page_asked(g, "layer_sets", of_sets, PF_COUNT(of_sets), fields, N_FIELDS, &f);
  }
  pf_buf_puts(g->b, "</table></div>\n");
  if (full)
    texts_of_hosts(g);
  pf_figure_put(g->b, &f, "Closure by what is put into the host", series, 2, -0.25,
                "Medians over cells with the middle half; what lies outside is drawn at the edge.");
}
