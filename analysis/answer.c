/* SPDX-License-Identifier: Apache-2.0
 * The answer of a study's page: the three questions in a sentence each, with numbers, from
 * whichever experiment has asked; what none has asked is said. */
#include "analysis/answer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/pagework.h"
#include "base/js.h"
#include "base/status.h"

/* " 0.12 [0.10, 0.15]" */
static void put_interval(pf_page *g, const pf_interval *v) {
  pf_buf_printf(g->b, "%.3g", v->value);
  if (!isnan(v->lo) && g->n > 1)
    pf_buf_printf(g->b, " [%.3g, %.3g]", v->lo, v->hi);
}

/* `before` x `between` y `after`; false, and nothing, if one of the two is not there. */
static bool sentence(pf_page *g, const char *before, const pf_interval *x, const char *between,
                     const pf_interval *y, const char *after) {
  if (g->rc != PF_OK || isnan(x->value) || isnan(y->value))
    return false;
  pf_buf_printf(g->b, "<li>%s ", before);
  put_interval(g, x);
  pf_buf_printf(g->b, " %s ", between);
  put_interval(g, y);
  pf_buf_printf(g->b, "%s</li>\n", after);
  return true;
}

/* question: its first words too. */
static void not_asked(pf_page *g, const char *question) {
  bool paper = !strcmp(pf_js_str(g->r.manifest, "protocol"), "paper");
  pf_buf_printf(g->b, "<li>%s was not asked here%s.</li>\n", question,
                paper ? " (protocol full asks it)" : "");
}

/* ---- the three questions --------------------------------------------------------------------- */

/* The sweep alone: it does not tell whether the site carries the persona. */
static bool swept(pf_page *g, int layer) {
  char q[PF_QUERY];
  snprintf(q, sizeof q, "probe=p_last layer=%d", layer);
  pf_interval v = pf_page_interval(g, "results", "kl", q);
  if (g->rc != PF_OK || isnan(v.value))
    return false;
  pf_buf_printf(g->b,
                "<li>Additive? At the last token of the prompt (layer %d) the additive value "
                "changes the next ten tokens by ",
                layer);
  put_interval(g, &v);
  pf_buf_puts(g->b, " nats; what it would be without the persona there, protocol full "
                    "measures.</li>\n");
  return true;
}

static void additive(pf_page *g) {
  char q[2][PF_QUERY], where[160];
  const json_t *layers = json_object_get(g->r.manifest, "layers");
  int layer = (int)json_integer_value(json_array_get(layers, json_array_size(layers) / 2));
  snprintf(q[0], PF_QUERY, "site=p_last layer=%d condition=A1", layer);
  snprintf(q[1], PF_QUERY, "site=p_last layer=%d condition=S_X", layer);
  snprintf(where, sizeof where,
           "Additive? At the last token of the prompt (layer %d) the additive value changes the "
           "next ten tokens by",
           layer);
  pf_interval a1 = pf_page_interval(g, "C1", "kl10", q[0]),
              sx = pf_page_interval(g, "C1", "kl10", q[1]);
  if (!sentence(g, where, &a1, "nats; without the persona there it would be", &sx, ".") &&
      !swept(g, layer))
    not_asked(g, "Additive? Whether the state is a sum where the answer begins");
}

static void replaceable(pf_page *g) {
  static const char before[] =
      "Replaceable? Put into a prompt without the persona&rsquo;s text, the additive value, cached "
      "and put once at p_last, closes, of the gap at the first token,";
  static const struct {
    const char *experiment, *query;
  } asked[] = {{"C3", "host=B condition=cached positions=p_last set=14"},
               {"injection", "condition=cached set=14"}};
  for (size_t i = 0; i < PF_COUNT(asked); i++) {
    pf_interval first = pf_page_interval(g, asked[i].experiment, "closure_0", asked[i].query),
                later = pf_page_interval(g, asked[i].experiment, "closure_1_9", asked[i].query);
    if (sentence(g, before, &first, "and at the nine after it", &later, "."))
      return;
  }
  not_asked(g, "Replaceable? Whether a cached residual can replace the persona&rsquo;s text");
}

static void flow(pf_page *g) {
  pf_interval direct = pf_page_interval(g, "D1", "closure", "condition=K2 ablation=mask !profile"),
              indirect =
                  pf_page_interval(g, "D1", "closure", "condition=K1 ablation=mask !profile");
  if (!sentence(g,
                "Which way? With direct reads of the persona&rsquo;s tokens alone, by p_last and "
                "the answer,",
                &direct,
                "of the persona&rsquo;s effect is kept; with what the later prompt has taken over "
                "alone,",
                &indirect, "."))
    not_asked(g, "Which way? Through which reads the persona reaches the answer");
}

/* ---- the part of the page -------------------------------------------------------------------- */

static bool asked_any(pf_page *g) {
  static const char *const experiments[] = {"C1", "results", "C3", "injection", "D1"};
  for (size_t i = 0; i < PF_COUNT(experiments); i++)
    if (pf_page_has(g, experiments[i]))
      return true;
  return false;
}

int pf_page_answer(const char *dir, pf_buf *b) {
  pf_page g = {.b = b};
  g.rc = pf_records_open(&g.r, dir);
  if (g.rc != PF_OK)
    return g.rc;
  g.n = g.r.n_personas * g.r.n_tasks;
  if (asked_any(&g)) {
    pf_buf_puts(b, "<h2>The answer</h2>\n<div class=\"card\"><ul>\n");
    additive(&g);
    replaceable(&g);
    flow(&g);
    pf_buf_printf(b, "</ul></div>\n<p class=\"sub\">%s %zu cell%s.</p>\n",
                  g.n > 1 ? "Medians, with 95 % intervals over personas and tasks where there are "
                            "several, over"
                          : "Of",
                  g.n, g.n > 1 ? "s" : "");
  }
  pf_records_close(&g.r);
  return g.rc;
}
