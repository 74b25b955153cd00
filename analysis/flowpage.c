/* SPDX-License-Identifier: Apache-2.0
 * Where persona flows: routes, keys and values, layers and heads, the persona's words. */
#include "analysis/flowpage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/svg.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- D1 -------------------------------------------------------------------------------------- */

static const struct {
  const char *condition, *what, *row; /* in the table, in the figure */
} cuts[] = {{"K3", "no read at all (K3)", NULL},
            {"K1", "not by p_last and generated tokens (K1): the indirect route is left",
             "the indirect route alone (K1)"},
            {"K1p", "not by p_last", "not read by p_last"},
            {"K1g", "not by generated tokens", "not read by generated tokens"},
            {"K2", "not by the later prompt (K2): the direct route is left",
             "the direct route alone (K2)"}};
static const char *const ways[] = {"mask", "counterfactual", "zero_v", "k_only", "v_only"};
enum { N_CUTS = sizeof cuts / sizeof *cuts, N_WAYS = sizeof ways / sizeof *ways };

static void route_row(pf_page *g, int cut, pf_figure *f) {
  pf_svg_row *r = cuts[cut].row ? pf_figure_row(f, cuts[cut].row) : NULL;
  pf_page_label(g, cuts[cut].what);
  for (int k = 0; k < N_WAYS; k++) {
    char q[PF_QUERY];
    snprintf(q, sizeof q, "condition=%s ablation=%s !profile", cuts[cut].condition, ways[k]);
    pf_stats s = pf_page_stats(g, "D1", r ? "closure" : "kl", q);
    pf_page_spread(g, &s);
    if (r && k < 2)
      pf_figure_value(r, k, &s);
  }
  pf_buf_puts(g->b, "</tr>\n");
}

/* 1 - c_D - c_I of each cell, for a means. */
static void interaction_cell(pf_page *g, const char *way) {
  double *x[2] = {NULL};
  static const char *const routes[] = {"K2", "K1"};
  for (int k = 0; k < 2 && g->rc == PF_OK; k++) {
    char q[PF_QUERY];
    snprintf(q, sizeof q, "condition=%s ablation=%s !profile", routes[k], way);
    x[k] = pf_records_table(&g->r, "D1", q, "closure", &g->rc);
  }
  for (size_t c = 0; g->rc == PF_OK && c < g->n; c++)
    x[0][c] = 1 - x[0][c] - x[1][c];
  if (g->rc == PF_OK) {
    pf_stats s = pf_stats_of(x[0], g->n);
    pf_page_spread(g, &s);
  }
  pf_free(x[0]);
  pf_free(x[1]);
}

static void interaction_row(pf_page *g) {
  pf_page_label(g, "1 - direct - indirect: below 0 redundant, above 0 synergistic");
  for (int k = 0; k < N_WAYS && g->rc == PF_OK; k++)
    interaction_cell(g, ways[k]);
  pf_buf_puts(g->b, "</tr>\n");
}

static void route_table(pf_page *g) {
  static const char *const series[] = {"masked", "a neutral persona's K,V"};
  pf_figure f = {.n = 0};
  pf_buf_puts(g->b, "<h2>Where persona flows: reads of its keys</h2>\n<p>Attention to the "
                    "persona&rsquo;s tokens is taken away by who reads. Closure = 1 &minus; KL / "
                    "KL(K3 by the same means): 1 = nothing lost. "
                    "Means: mask the edge; K and V of a neutral persona (counterfactual); V = 0; K "
                    "alone; V alone.</p>\n<div class=\"wide\"><table class=\"num\"><tr><th "
                    "class=\"t\">the persona is read</th>");
  for (int k = 0; k < N_WAYS; k++)
    pf_buf_printf(g->b, "<th>%s</th>", ways[k]);
  pf_buf_puts(g->b, "</tr>\n");
  for (int i = 0; i < N_CUTS && g->rc == PF_OK; i++)
    route_row(g, i, &f);
  interaction_row(g);
  pf_buf_puts(g->b, "</table></div>\n<p class=\"sub\">First row: KL over all scored tokens, nats; "
                    "the others: closure.</p>\n");
  pf_figure_put(
      g->b, &f, "What each route keeps of the persona's effect", series, 2, -0.25,
      "Closure, medians over cells with the middle half: direct near 1 and indirect near 0 "
      "is a direct route, both near 1 a redundant one.");
}

/* Does it cost as much to lose the reads of other keys? */
static void other_cuts(pf_page *g) {
  static const pf_asked rows[] = {
      {"the persona's (K1)", "condition=K1 ablation=mask !profile"},
      {"of the task's, as many or all", "condition=Kc_task"},
      {"so many of the persona's", "condition=K1_some as_many_as=Kc_task"},
      {"before the persona, not the first, as many or all", "condition=Kc_before"},
      {"so many of the persona's", "condition=K1_some as_many_as=Kc_before"},
      {"a neutral persona's, in its own prompt", "condition=Kc_neutral"}};
  static const char *const fields[] = {"kl", "kl10", "kl_0", "n_keys"};
  pf_buf_puts(g->b, "<h3>Reads of other keys</h3>\n<table class=\"num\"><tr><th class=\"t\">not "
                    "read from p_last on</th><th>KL, all scored tokens</th><th>10 tokens</th><th>t "
                    "= 0</th><th>keys</th></tr>\n");
  pf_page_asked(g, "D1", rows, PF_COUNT(rows), fields, PF_COUNT(fields), NULL);
  pf_buf_puts(g->b, "</table>\n<p class=\"sub\">Nats, medians over cells [25 %, 75 %]: how special "
                    "is the cut? Of random keys the mean of several draws in each cell.</p>\n");
}

/* Closure of a condition by what of the layers it acts in. */
static void by_layers(pf_page *g, const char *experiment, const char *condition, const char *title,
                      const char *caption) {
  pf_series s[3] = {{.name = "in this layer and later"},
                    {.name = "below this layer"},
                    {.name = "within five layers"}};
  static const char *const kinds[] = {"from", "below", "window5"};
  for (int k = 0; k < 3; k++)
    for (int l = 0; l < g->n_layers && l < PF_POINTS; l++) {
      char q[PF_QUERY];
      snprintf(q, sizeof q, "condition=%s profile=%s layer=%d", condition, kinds[k], l);
      pf_stats v = pf_page_stats(g, experiment, "closure", q);
      pf_series_add(&s[k], l, &v);
    }
  pf_page_chart(g, title, "layer", s, 3, 0, 1, false, caption);
}

static void layer_profile(pf_page *g) {
  by_layers(g, "D1", "K1", "Direct reads cut, by layer",
            "Closure when p_last and generated tokens may not read the persona in some layers: low "
            "where those layers do the reading.");
}

/* Of the steps that a cut acts on alone: those before it have no loss, and would make any late cut
 * look harmless. */
static void time_profile(pf_page *g) {
  static const int taus[] = {0, 1, 2, 4, 8, 16, 32};
  pf_series s = {.name = "reads cut from this step on"};
  double *x = pf_alloc(2 * g->n + 1, sizeof *x);
  for (int i = 0; i < 7 && x && g->rc == PF_OK; i++) {
    pf_records_tails(&g->r, taus[i], (size_t)taus[i], x, &g->rc);
    pf_records_tails(&g->r, 0, (size_t)taus[i], x + g->n, &g->rc);
    for (size_t c = 0; c < g->n; c++)
      x[c] = x[g->n + c] > 0 ? 1 - x[c] / x[g->n + c] : (double)NAN;
    pf_stats v = pf_stats_of(x, g->n);
    pf_series_add(&s, taus[i], &v);
  }
  g->rc = x ? g->rc : PF_ENOMEM;
  pf_free(x);
  pf_page_chart(g, "How long is the persona read?", "step of the answer", &s, 1, -0.25, 1, false,
                "What the answer keeps from a step on when the persona may not be read from there "
                "on: 1 - KL of those steps / their KL with the cut from the first step on. Near 1 "
                "once the answer carries the style by itself.");
}

void pf_page_routes(pf_page *g) {
  if (!pf_page_has(g, "D1"))
    return;
  route_table(g);
  other_cuts(g);
  layer_profile(g);
  time_profile(g);
}

/* ---- D2 -------------------------------------------------------------------------------------- */

static void token_curve(pf_page *g) {
  pf_series s[3] = {{.name = "best tokens"}, {.name = "last tokens"}, {.name = "random tokens"}};
  static const char *const orders[] = {"best", "last", "random"};
  for (int k = 0; k < 3; k++)
    for (int n = 1; n <= 64; n *= 2) {
      char q[PF_QUERY];
      snprintf(q, sizeof q, "condition=T7 order=%s k=%d", orders[k], n);
      pf_stats v = pf_page_stats(g, "D2", "closure", q);
      pf_series_add(&s[k], log2(n), &v);
    }
  pf_page_chart(
      g, "How many of the persona's tokens?", "log2 of the number of tokens", s, 3, -0.25, 1, false,
      "Closure of transplanting K,V of some of the persona's tokens; long personas alone reach "
      "the right end.");
}

/* A list of clauses that is too short for a persona leaves a host of another length. */
static void short_neutrals(pf_page *g) {
  size_t i, n = 0, all = 0;
  int most = 0, want = 0, got = 0;
  const json_t *rows = pf_records_of(&g->r, "D2", &g->rc), *row;
  json_array_foreach(rows, i, row) {
    if (!pf_record_is(row, "condition=host n_persona n_neutral"))
      continue;
    int x = (int)json_integer_value(json_object_get(row, "n_persona")),
        neutral = (int)json_integer_value(json_object_get(row, "n_neutral"));
    all++;
    n += x - neutral > 1;
    if (x - neutral > most) {
      most = x - neutral;
      want = x;
      got = neutral;
    }
  }
  if (n)
    pf_buf_printf(g->b,
                  "<p class=\"card\">In %zu of %zu cells the neutral persona is shorter by more "
                  "than a token, once with %d of %d: its list has too few clauses, and the lengths "
                  "are not matched there.</p>\n",
                  n, all, got, want);
}

void pf_page_transplants(pf_page *g) {
  static const pf_asked rows[] = {
      {"the persona's (T1)", "condition=T1"},
      {"the later prompt's (T2)", "condition=T2"},
      {"all (T3, the control)", "condition=T3"},
      {"those of p_last (T6)", "condition=T6"},
      {"another persona's (T4)", "condition=T4"},
      {"the same, towards that persona's own answer", "condition=T4_towards_other"},
      {"random, about a neutral mean (T5)", "condition=T5"},
      {"random, about its own mean (T5_own)", "condition=T5_own"}};
  static const char *const fields[] = {"closure", "closure_0"}, *const series[] = {
                                                                    "all scored tokens",
                                                                    "the first token"};
  pf_figure f = {.n = 0};
  if (!pf_page_has(g, "D2"))
    return;
  pf_buf_puts(g->b, "<h2>Which keys and values suffice?</h2>\n<p>K and V of the persona&rsquo;s "
                    "prompt put into the prompt of a neutral persona of the same length; p_last "
                    "and the answer are computed over them.</p>\n");
  short_neutrals(g);
  pf_buf_puts(g->b, "<table class=\"num\"><tr><th class=\"t\">K,V put in</th><th>closure</th><th>t "
                    "= 0</th></tr>\n");
  pf_page_asked(g, "D2", rows, PF_COUNT(rows), fields, 2, &f);
  pf_buf_puts(g->b, "</table>\n");
  pf_figure_put(g->b, &f, "Closure by which keys and values are put in", series, 2, -0.25,
                "Medians over cells with the middle half; what lies outside is drawn at the edge.");
  by_layers(g, "D2", "T8", "The persona's K,V put in, by layer",
            "Closure when keys and values of the persona's tokens are put into some layers alone: "
            "high where those layers carry it.");
  token_curve(g);
}

/* ---- layers and heads ------------------------------------------------------------------------ */

/* The style of a place whose effect is v, `most` at the end of the scale. */
static void effect_style(pf_page *g, double v, double most) {
  char colour[8];
  bool dark;
  pf_svg_effect(v, most, colour, &dark);
  pf_buf_printf(g->b, " style=\"background:%s;color:%s\"", colour, dark ? "#fff" : "#000");
}

/* x: (heads, layers). */
static void head_effects(pf_page *g, double *x) {
  for (int h = 0; h < g->n_heads; h++)
    for (int l = 0; l < g->n_layers; l++) {
      char q[PF_QUERY];
      snprintf(q, sizeof q, "condition=head edge=bc layer=%d head=%d", l, h);
      x[h * g->n_layers + l] = pf_page_stats(g, "D3", "kl", q).median;
    }
}

static void head_table(pf_page *g, const double *x) {
  pf_numbers_open(g->b, "The numbers", "layer");
  for (int h = 0; h < g->n_heads; h++)
    pf_buf_printf(g->b, "<th>head %d</th>", h);
  pf_buf_puts(g->b, "</tr>\n");
  for (int l = 0; l < g->n_layers; l++) {
    pf_buf_printf(g->b, "<tr><td>%d</td>", l);
    for (int h = 0; h < g->n_heads; h++) {
      pf_buf_puts(g->b, "<td>");
      pf_page_number(g, x[h * g->n_layers + l]);
      pf_buf_puts(g->b, "</td>");
    }
    pf_buf_puts(g->b, "</tr>\n");
  }
  pf_numbers_close(g->b);
}

static void map_figure(pf_page *g, const pf_svg_map *m, const char *caption) {
  pf_buf_puts(g->b, "<figure>");
  pf_svg_heat(g->b, m);
  if (*caption) {
    pf_buf_puts(g->b, "<figcaption>");
    pf_page_text(g, caption);
    pf_buf_puts(g->b, "</figcaption>");
  }
  pf_buf_puts(g->b, "</figure>\n");
}

static void head_map(pf_page *g) {
  size_t heads = (size_t)g->n_heads, layers = (size_t)g->n_layers;
  double *x = pf_calloc(heads * layers, sizeof *x);
  char(*text)[32] = pf_calloc(heads, sizeof *text);
  const char **names = pf_calloc(heads, sizeof *names);
  if (x && text && names) {
    head_effects(g, x);
    for (size_t h = 0; h < heads; h++) {
      snprintf(text[h], sizeof text[h], "head %zu", h);
      names[h] = text[h];
    }
    map_figure(g,
               &(pf_svg_map){.title = "KL without one head's reads of the persona",
                             .col_name = "layer",
                             .row_names = names,
                             .n_rows = heads,
                             .n_cols = layers,
                             .v = x},
               "Medians over cells, nats over all scored tokens; colour by the root of the value.");
    head_table(g, x);
  } else {
    g->rc = PF_ENOMEM;
  }
  pf_free(x);
  pf_free(text);
  pf_free(names);
}

static void head_sets(pf_page *g) {
  pf_buf_puts(g->b, "<table class=\"num\"><tr><th>heads</th><th>closure without the "
                    "best</th><th>with the best alone</th></tr>\n");
  for (int k = 1; k < g->n_layers * g->n_heads; k *= 2) {
    char q[2][PF_QUERY];
    snprintf(q[0], PF_QUERY, "condition=cut_best k=%d", k);
    snprintf(q[1], PF_QUERY, "condition=keep_best k=%d", k);
    pf_stats a = pf_page_stats(g, "D3", "closure", q[0]),
             b = pf_page_stats(g, "D3", "closure", q[1]);
    if (a.n == 0)
      continue;
    pf_buf_printf(g->b, "<tr><td>%d</td>", k);
    pf_page_spread(g, &a);
    pf_page_spread(g, &b);
    pf_buf_puts(g->b, "</tr>\n");
  }
  pf_buf_puts(g->b, "</table>\n");
}

void pf_page_flow_maps(pf_page *g) {
  if (!pf_page_has(g, "D3"))
    return;
  pf_buf_puts(g->b, "<h2>Flow map: layers and heads</h2>\n<p>What the answer loses when one head "
                    "of one layer may not read the persona from p_last on.</p>\n");
  head_map(g);
  if (g->rc == PF_OK)
    head_sets(g);
}

/* ---- words of the persona -------------------------------------------------------------------- */

enum { MAX_WORDS = 1024 };

/* The tokens or clauses of one persona in their order: what cutting the reads of each costs. */
typedef struct words {
  const char *persona;
  size_t n, n_layers, n_tasks;
  const char **text; /* (n) */
  double *x;         /* (n, n_layers, n_tasks); NaN: no record */
} words;

static bool is_word(const json_t *row, const char *condition, const char *persona) {
  return !strcmp(pf_js_str(row, "condition"), condition) &&
         !strcmp(pf_js_str(row, "persona"), persona);
}

static size_t first_token(const json_t *row) {
  return (size_t)json_integer_value(json_array_get(json_object_get(row, "tokens"), 0));
}

static void close_words(words *w) {
  pf_free(w->text);
  pf_free(w->x);
  *w = (words){0};
}

/* Words are at the index of their first token; others have no text. */
static int open_words(words *w, const pf_page *g, const json_t *rows, const char *condition,
                      const char *persona, size_t n_layers) {
  size_t i;
  const json_t *row, *kl;
  *w = (words){.persona = persona, .n_layers = n_layers, .n_tasks = g->r.n_tasks};
  json_array_foreach(rows, i, row) {
    size_t k = first_token(row);
    if (is_word(row, condition, persona) && k < MAX_WORDS && w->n <= k)
      w->n = k + 1;
  }
  size_t n = w->n * w->n_layers * w->n_tasks;
  w->text = pf_calloc(w->n, sizeof *w->text);
  w->x = pf_alloc(n, sizeof *w->x);
  if (w->n && (!w->text || !w->x))
    return PF_ENOMEM;
  for (i = 0; i < n; i++)
    w->x[i] = NAN;
  json_array_foreach(rows, i, row) {
    if (!is_word(row, condition, persona))
      continue;
    size_t layer = (size_t)json_integer_value(json_object_get(row, "layer")), k = first_token(row),
           cell = pf_record_cell(&g->r, row);
    if (k >= w->n || layer >= n_layers || cell >= g->n)
      continue;
    kl = json_object_get(row, "kl");
    w->x[(k * n_layers + layer) * w->n_tasks + cell % w->n_tasks] =
        json_is_number(kl) ? json_number_value(kl) : (double)NAN;
    w->text[k] = pf_js_str(row, "text");
    w->text[k] += w->text[k][0] == ' ';
  }
  return PF_OK;
}

/* Medians over tasks in place: x becomes (n, n_layers). */
static void words_medians(words *w) {
  for (size_t i = 0; i < w->n * w->n_layers; i++)
    w->x[i] = pf_stats_of(w->x + i * w->n_tasks, w->n_tasks).median;
}

/* Each with its effect behind it and as its colour, the largest at the end of the scale. */
static void words_strip(pf_page *g, const words *w) {
  double most = 0;
  for (size_t i = 0; i < w->n; i++)
    most = fmax(most, w->x[i]);
  pf_buf_puts(g->b, w->n ? "<div class=\"prompt\">" : "");
  for (size_t i = 0; i < w->n; i++) {
    if (!w->text[i])
      continue;
    pf_buf_puts(g->b, "<span");
    effect_style(g, w->x[i], most);
    pf_buf_puts(g->b, ">");
    pf_page_text(g, w->text[i]);
    pf_buf_printf(g->b, "</span><small>%.2g</small> ", w->x[i]);
  }
  pf_buf_puts(g->b, w->n ? "</div>\n" : "");
}

static void words_map(pf_page *g, const words *w) {
  char title[160];
  if (w->n == 0)
    return;
  for (size_t i = 0; i < w->n; i++)
    w->text[i] = w->text[i] ? w->text[i] : "";
  snprintf(title, sizeof title, "%s: KL without the reads of one token in one layer", w->persona);
  map_figure(g,
             &(pf_svg_map){.title = title,
                           .col_name = "layer",
                           .row_names = w->text,
                           .n_rows = w->n,
                           .n_cols = w->n_layers,
                           .v = w->x},
             "");
}

static void words_part(pf_page *g, const json_t *rows, const char *condition, const char *persona,
                       size_t n_layers, void (*show)(pf_page *g, const words *w)) {
  words w;
  if (g->rc != PF_OK)
    return;
  g->rc = open_words(&w, g, rows, condition, persona, n_layers);
  if (g->rc == PF_OK) {
    words_medians(&w);
    show(g, &w);
  }
  close_words(&w);
}

/* The token behind the persona, at which it may have been summed up. */
static void after_persona(pf_page *g) {
  pf_stats s = pf_page_stats(g, "D3", "kl", "condition=after_persona");
  if (!s.n)
    return;
  pf_buf_puts(g->b,
              "<p>The token behind the persona, in the usual template a comma, read by nobody "
              "from p_last on: ");
  pf_page_number(g, s.median);
  pf_buf_puts(g->b, " [");
  pf_page_number(g, s.q25);
  pf_buf_puts(g->b, ", ");
  pf_page_number(g, s.q75);
  pf_buf_printf(g->b, "] nats (median over %zu cells).</p>\n", s.n);
}

void pf_page_words(pf_page *g) {
  const json_t *rows = g->rc == PF_OK ? pf_records_of(&g->r, "D3", &g->rc) : NULL;
  if (!rows)
    return;
  pf_buf_puts(g->b, "<h2>Which words of the persona, in which layers?</h2>\n<p>KL when one token "
                    "of the persona, or one clause, is read by nobody from p_last on, and when a "
                    "token is not read in one layer (medians over tasks, nats over all scored "
                    "tokens; dark is small, each line and each map has its own scale, colour by "
                    "the root of the value). What is small here may still be needed together with "
                    "others.</p>\n");
  after_persona(g);
  for (size_t p = 0; p < g->r.n_personas; p++) {
    const char *persona = g->r.personas[p];
    pf_buf_puts(g->b, "<p><b>");
    pf_page_text(g, persona);
    pf_buf_puts(g->b, "</b></p>\n");
    words_part(g, rows, "token", persona, 1, words_strip);
    words_part(g, rows, "clause", persona, 1, words_strip);
    words_part(g, rows, "token_layer", persona, (size_t)g->n_layers, words_map);
  }
}

/* ---- D4, D5 ---------------------------------------------------------------------------------- */

static void mass(pf_page *g) {
  static const pf_asked rows[] = {{"mass", "condition=mass"},
                                  {"value_weighted", "condition=value_weighted"},
                                  {"projection", "condition=projection"},
                                  {"first_mass", "condition=first_mass"},
                                  {"first_value_weighted", "condition=first_value_weighted"},
                                  {"first_projection", "condition=first_projection"}};
  static const char *const fields[] = {"spearman", "recall10"}, *const series[] = {
                                                                    "rank correlation",
                                                                    "of the ten strongest"};
  pf_figure f = {.n = 0};
  pf_buf_puts(g->b, "<h2>Does attention mass explain the cause?</h2>\n<table "
                    "class=\"num\"><tr><th class=\"t\">score of a head</th><th>Spearman with its "
                    "effect</th><th>share of the ten strongest found</th></tr>\n");
  pf_page_asked(g, "D4", rows, PF_COUNT(rows), fields, 2, &f);
  pf_buf_puts(g->b,
              "</table>\n<p class=\"sub\">projection: on the answer&rsquo;s token over the one "
              "that the baseline "
              "prefers, with norms held fixed. first_: of the first token&rsquo;s key, on "
              "which attention rests, as a control.</p>\n");
  pf_figure_put(g->b, &f, "How well a score of heads tells their effect", series, 2, -1,
                "Medians over cells with the middle half.");
}

static void delta(pf_page *g) {
  static const pf_asked rows[] = {{"each step's own", "condition=by_step"},
                                  {"averaged over steps", "condition=mean_over_steps"},
                                  {"averaged over other tasks", "condition=mean_over_tasks"}};
  static const char *const fields[] = {"closure", "closure_0"}, *const series[] = {
                                                                    "all scored tokens",
                                                                    "the first token"};
  pf_figure f = {.n = 0};
  pf_buf_puts(g->b, "<h2>What attention brought, added to a host</h2>\n<table "
                    "class=\"num\"><tr><th class=\"t\">what each head took from the "
                    "persona</th><th>closure</th><th>t = 0</th></tr>\n");
  pf_page_asked(g, "D5", rows, PF_COUNT(rows), fields, 2, &f);
  pf_buf_puts(g->b, "</table>\n");
  pf_figure_put(g->b, &f, "Closure by what is averaged", series, 2, -0.25,
                "Medians over cells with the middle half; what lies outside is drawn at the edge.");
}

void pf_page_mass_and_delta(pf_page *g) {
  if (pf_page_has(g, "D4"))
    mass(g);
  if (pf_page_has(g, "D5"))
    delta(g);
}
