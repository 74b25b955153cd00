/* SPDX-License-Identifier: Apache-2.0
 * Where persona flows, as maps: layers and heads, the persona's words and layers. */
#include "analysis/flowpage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/svg.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

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
  pf_buf_puts(g->b, "<details><summary>The numbers</summary>\n<div class=\"wide\"><table "
                    "class=\"num\"><tr><th>layer</th>");
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
  pf_buf_puts(g->b, "</table></div></details>\n");
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
    size_t layer = (size_t)json_integer_value(json_object_get(row, "layer")), k = first_token(row),
           cell = pf_record_cell(&g->r, row);
    if (!is_word(row, condition, persona) || k >= w->n || layer >= n_layers || cell >= g->n)
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
