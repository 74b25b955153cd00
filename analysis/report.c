/* SPDX-License-Identifier: Apache-2.0
 * report.html: one page, no network, from manifest.json, summary.json and generated.jsonl of a
 * finished study. It says what was asked, what was found and what that does not show; figures are
 * inline SVG; light and dark; prints on paper. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "analysis/answer.h"
#include "analysis/folder.h"
#include "analysis/fullpage.h"
#include "analysis/jsonout.h"
#include "analysis/markers.h"
#include "analysis/pageparts.h"
#include "analysis/pagework.h"
#include "analysis/paperpage.h"
#include "analysis/study.h"
#include "analysis/svg.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

enum { LAYERS_MAX = 1024 };
static const size_t FILE_LIMIT = (size_t)1 << 30;
/* The paper's reference line for "essentially clean", nats over 10 tokens. */
static const double CLEAN_LINE = 0.1;
/* KL below this is drawn on the lower edge of the logarithmic axis. */
static const double KL_FLOOR = 1e-6;

typedef struct page {
  const char *dir;
  json_t *manifest, *summary, *texts,
      *published;          /* published: NULL if the model or the grid is not the paper's */
  json_t *probes, *layers; /* of the manifest */
  int n_layers, n_cells;
  pf_buf b;
} page;

static const struct {
  const char *key, *name, *what;
} probe_texts[] = {
    {"p_user_last", "p_user_last", "last token of the user's message"},
    {"p_last", "p_last", "last token of the prompt, just before the answer"},
    {"g1", "g1", "first token of the answer"},
    {"g2", "g2", "second token of the answer"},
};

/* ---- small things
 * -------------------------------------------------------------------------------------------------
 */

/* A study that ran the experiment has left it. */
static bool has_file(const page *g, const char *name) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", g->dir, name);
  return access(path, F_OK) == 0;
}

static void text(page *g, const char *s) {
  pf_html_text(&g->b, s ? s : "");
}

static void puts_(page *g, const char *s) {
  pf_buf_puts(&g->b, s);
}

/* NaN when it is not a number. */
static double num(const json_t *v) {
  return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *probe_at(const page *g, size_t i) {
  const char *s = json_string_value(json_array_get(g->probes, i));
  return s ? s : "";
}

static const char *probe_what(const char *probe) {
  for (size_t i = 0; i < sizeof probe_texts / sizeof *probe_texts; i++)
    if (!strcmp(probe_texts[i].key, probe))
      return probe_texts[i].what;
  return "";
}

static int layer_at(const page *g, size_t i) {
  return (int)json_integer_value(json_array_get(g->layers, i));
}

static const json_t *by_layer(const json_t *o, int layer) {
  char key[16];
  snprintf(key, sizeof key, "%d", layer);
  return json_object_get(o, key);
}

static const json_t *causal(const json_t *root, const char *probe, int layer) {
  return by_layer(json_object_get(json_object_get(root, "causal"), probe), layer);
}

static const json_t *decomposition(const page *g, const char *probe, int layer) {
  return by_layer(json_object_get(json_object_get(g->summary, "decomposition"), probe), layer);
}

/* A number for people: two figures below 0.01, three decimals up to 10; no powers of ten. */
static void figure(pf_buf *b, double v) {
  double a = fabs(v);
  if (isnan(v))
    pf_buf_puts(b, "&ndash;");
  else if (v == 0)
    pf_buf_puts(b, "0");
  else if (a < KL_FLOOR)
    pf_buf_printf(b, "<data value=\"%.2g\">&lt;&#8239;0.000001</data>", v);
  else
    pf_buf_printf(b, "%.*f", a < 0.01 ? 1 - (int)floor(log10(a)) : a < 10 ? 3 : 1, v);
}

/* Cells of a site whose KL is below the paper's line. */
static int below_line(const json_t *site, int *n) {
  const char *key;
  json_t *v;
  int below = 0;
  *n = 0;
  json_object_foreach(json_object_get(site, "per_cell"), key, v) {
    *n += json_is_number(v);
    below += json_is_number(v) && json_number_value(v) < CLEAN_LINE;
  }
  return below;
}

/* ---- head and answer
 * ---------------------------------------------------------------------------------------------- */

static void head(page *g) {
  const json_t *m = json_object_get(g->manifest, "model"),
               *grid = json_object_get(g->manifest, "grid");
  bool paper = !strcmp(pf_js_str(g->manifest, "protocol"), "paper");
  char title[256];
  snprintf(title, sizeof title, "Persona + task: %s", pf_js_str(m, "name"));
  pf_page_open(&g->b, title);
  puts_(g, "<h1>Is a persona added to a task?</h1>\n<p class=\"sub\">");
  text(g, pf_js_str(m, "name"));
  puts_(g, " in ");
  text(g, pf_js_str(g->manifest, "precision"));
  puts_(g, " &middot; grid ");
  text(g, pf_js_str(grid, "name"));
  puts_(g, json_object_get(grid, "conflicts") ? " (its conflicting cells, crossed)" : "");
  pf_buf_printf(&g->b, " &middot; %d cell%s &middot; protocol %s &ldquo;As X, Do Y&rdquo; (",
                g->n_cells, g->n_cells == 1 ? "" : "s",
                paper ? "of the paper" : "full: beyond that of the paper");
  puts_(g, "arXiv 2605.23147)</p>\n");
}

/* The prompts, which all experiments share. */
static void question_prompts(page *g) {
  const json_t *grid = json_object_get(g->manifest, "grid"),
               *base = json_object_get(grid, "baseline");
  puts_(g, "<h2>What was asked</h2>\n<p>A prompt such as &ldquo;");
  text(g, pf_js_str(grid, "template"));
  if (*pf_js_str(grid, "system")) {
    puts_(g, "&rdquo; under the system message &ldquo;");
    text(g, pf_js_str(grid, "system"));
  }
  puts_(g, "&rdquo; gives a model a persona X and a task Y. Four prompts are run for every cell: "
           "baseline persona and task (BB), persona only (XB), task only (BY), both (XY). The "
           "baselines are &ldquo;");
  text(g, pf_js_str(base, "persona"));
  puts_(g, "&rdquo; and &ldquo;");
  text(g, pf_js_str(base, "task"));
  puts_(g, "&rdquo; What is changed in a run is measured as the Kullback&ndash;Leibler divergence "
           "of the next-token distributions, clean against changed, summed over tokens of the "
           "clean continuation (nats; 0 means nothing changed).</p>\n");
}

static bool has_any(const page *g, const char *const *files) {
  while (*files && !has_file(g, *files))
    files++;
  return *files != NULL;
}

/* What the experiments that were run ask. */
static void question(page *g) {
  static const struct {
    const char *files[5], *what;
  } asked[] = {
      {{"summary.json", "C1.jsonl"},
       "<p>Inside the model, at one token and one layer, the prompt has become a vector. Is that "
       "vector the sum of a persona part and a task part, near enough that the answer does not "
       "change when the sum is put in its place? In the XY run it is replaced by h<sub>BB</sub> + "
       "(h<sub>XB</sub> &minus; h<sub>BB</sub>) + (h<sub>BY</sub> &minus; h<sub>BB</sub>), and the "
       "next 10 tokens are scored.</p>\n"},
      {{"injection.jsonl", "layer_sets.jsonl", "C3.jsonl"},
       "<p>Can that vector stand in for the persona&rsquo;s text? It is put into the prompt of the "
       "baseline persona, and the answer is compared with the one that the text gives.</p>\n"},
      {{"D1.jsonl", "D2.jsonl", "D3.jsonl", "D5.jsonl"},
       "<p>Which way does the persona reach the answer? Reads of the keys and values of its tokens "
       "are taken away, or given to a prompt without it: by position, layer and head.</p>\n"}};
  question_prompts(g);
  for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
    if (has_any(g, asked[i].files))
      puts_(g, asked[i].what);
}

/* The largest value of any cell at any tested layer: medians hide it. */
static void answer_worst(page *g, const char *probe) {
  const char *name, *where = NULL;
  json_t *v;
  double worst = -1;
  int layer = 0;
  for (size_t i = 0; i < json_array_size(g->layers); i++) {
    json_object_foreach(json_object_get(causal(g->summary, probe, layer_at(g, i)), "per_cell"),
                        name, v) {
      if (json_is_number(v) && json_number_value(v) > worst) {
        worst = json_number_value(v);
        where = name;
        layer = layer_at(g, i);
      }
    }
  }
  const char *sep = where ? strstr(where, "__") : NULL;
  if (!sep)
    return;
  puts_(g, "The largest value of any cell is ");
  figure(&g->b, worst);
  char cell[192];
  snprintf(cell, sizeof cell, "%.*s, %s", (int)(sep - where), where, sep + 2);
  puts_(g, " (");
  text(g, cell);
  pf_buf_printf(&g->b, ", layer %d).", layer);
}

/* Sentences on a probe: where its medians lie, how many cells are under the paper's line. */
static void answer_probe(page *g, const char *probe) {
  size_t n = json_array_size(g->layers), lo = 0, hi = 0;
  double v[LAYERS_MAX];
  for (size_t i = 0; i < n; i++) {
    v[i] = num(json_object_get(
        json_object_get(causal(g->summary, probe, layer_at(g, i)), "summary"), "median"));
    lo = v[i] < v[lo] ? i : lo;
    hi = v[i] > v[hi] ? i : hi;
  }
  puts_(g, "<li><b>");
  text(g, probe);
  pf_buf_printf(&g->b, "</b> (%s): the median KL over cells is ", probe_what(probe));
  if (n > 1) {
    figure(&g->b, v[lo]);
    pf_buf_printf(&g->b, " at layer %d, where it is smallest, and ", layer_at(g, lo));
  }
  figure(&g->b, v[hi]);
  pf_buf_printf(&g->b, " at layer %d%s. ", layer_at(g, hi), n > 1 ? ", where it is largest" : "");
  int cells, below = below_line(causal(g->summary, probe, layer_at(g, hi)), &cells);
  pf_buf_printf(&g->b,
                "There, %d of %d cells are below 0.1, the paper&rsquo;s line for "
                "&ldquo;essentially clean&rdquo;. ",
                below, cells);
  answer_worst(g, probe);
  puts_(g, "</li>\n");
}

/* Where the medians of directions are not over all cells. */
static void geometry_cells(page *g, const json_t *site) {
  json_int_t n = json_integer_value(json_object_get(json_object_get(site, "cos_x_y"), "n"));
  if (n)
    pf_buf_printf(&g->b,
                  " over %d of %d cells: a persona or a task that is the baseline&rsquo;s own has "
                  "no direction, nor an answer that ends before",
                  (int)n, g->n_cells);
}

static void answer_geometry(page *g, const char *probe) {
  int layer = layer_at(g, json_array_size(g->layers) / 2);
  const json_t *d = decomposition(g, probe, layer);
  const char *const names[] = {"cos_xy_sum", "cos_x_y", "inter_over_xy"};
  double v[3];
  for (int i = 0; i < 3; i++)
    v[i] = pf_js_real(json_object_get(d, names[i]), "median");
  if (isnan(v[1])) /* no answer came as far as the probe */
    return;
  puts_(g, "<li>Geometry at ");
  text(g, probe);
  pf_buf_printf(&g->b, ", layer %d (medians", layer);
  geometry_cells(g, d);
  pf_buf_printf(&g->b,
                "): the joint change and the sum of the two "
                "parts have a cosine of "
                "%.2f; the two parts have a cosine of %.2f with each other; what the sum misses is "
                "%.2f times as long as the "
                "joint change.</li>\n",
                v[0], v[1], v[2]);
}

static void answer(page *g) {
  puts_(g, "<h2>What was found</h2>\n<div class=\"card\"><ul>\n");
  for (size_t i = 0; i < json_array_size(g->probes); i++)
    answer_probe(g, probe_at(g, i));
  const char *main_probe = probe_at(g, 0);
  for (size_t i = 0; i < json_array_size(g->probes); i++)
    if (!strcmp(probe_at(g, i), "p_last"))
      main_probe = "p_last";
  answer_geometry(g, main_probe);
  bool tested = has_file(g, "findings.json");
  puts_(g, "</ul></div>\n<p><b>What this does not show.</b> A small KL can mean that the vector is "
           "a sum, or that "
           "this token at this layer hardly matters for the next ten tokens; the sweep cannot tell "
           "the two apart. "
           "Early layers are additive in part because little has happened yet: at layer 0 nothing "
           "differs at all. ");
  puts_(g, tested ? "The controls, intervals and tests that tell stand below, under Verdicts.</p>\n"
                  : "There are no null controls here, and no confidence intervals or tests stand "
                    "behind the medians; "
                    "cells that share a persona or a task are not independent. Protocol full has "
                    "them.</p>\n");
}

/* ---- figures
 * ------------------------------------------------------------------------------------------------------
 */

enum { PANEL_W = 210, PANEL_H = 190, LEFT = 62, GAP = 24, TOP = 30, BOTTOM = 44 };

typedef struct series {
  size_t n;
  double x[LAYERS_MAX], median[LAYERS_MAX], q25[LAYERS_MAX], q75[LAYERS_MAX];
} series;

static void add_point(series *s, double x, const json_t *summary) {
  const json_t *iqr = json_object_get(summary, "iqr");
  if (s->n == LAYERS_MAX)
    return;
  s->x[s->n] = x;
  s->median[s->n] = pf_js_real(summary, "median");
  s->q25[s->n] = num(json_array_get(iqr, 0));
  s->q75[s->n++] = num(json_array_get(iqr, 1));
}

static void kl_series(const page *g, const json_t *root, const char *probe, series *s) {
  s->n = 0;
  for (size_t i = 0; i < json_array_size(g->layers); i++)
    add_point(s, layer_at(g, i), json_object_get(causal(root, probe, layer_at(g, i)), "summary"));
}

static void widen(const series *s, bool band, double *lo, double *hi) {
  for (size_t k = 0; k < s->n; k++) {
    double a = band ? s->q25[k] : s->median[k], b = band ? s->q75[k] : s->median[k];
    *lo = a < *lo ? a : *lo;
    *hi = b > *hi ? b : *hi;
  }
}

/* Decades that hold every quartile of every probe and the published medians, KL_FLOOR at the
 * lowest. */
static void kl_range(const page *g, series *s, double *lo, double *hi) {
  *lo = 0.1;
  *hi = 1;
  for (size_t i = 0; i < json_array_size(g->probes); i++) {
    kl_series(g, g->summary, probe_at(g, i), s);
    widen(s, true, lo, hi);
    kl_series(g, g->published, probe_at(g, i), s);
    widen(s, false, lo, hi);
  }
  *lo = pow(10, floor(log10(*lo > KL_FLOOR ? *lo : KL_FLOOR)));
  *hi = pow(10, ceil(log10(*hi)));
}

static pf_axes panel(size_t i, double xmin, double xmax, double ymin, double ymax, bool log) {
  return (pf_axes){.x = LEFT + (double)i * (PANEL_W + GAP),
                   .y = TOP,
                   .w = PANEL_W,
                   .h = PANEL_H,
                   .xmin = xmin,
                   .xmax = xmax,
                   .ymin = ymin,
                   .ymax = ymax,
                   .log = log};
}

static double figure_width(const page *g) {
  return LEFT + (double)json_array_size(g->probes) * (PANEL_W + GAP);
}

static int kl_figure(page *g) {
  series *s = pf_alloc(1, sizeof *s);
  if (!s)
    return PF_ENOMEM;
  double lo, hi;
  kl_range(g, s, &lo, &hi);
  puts_(g, "<h2>How much the answer changes</h2>\n<figure>\n");
  pf_svg_open(&g->b, figure_width(g), TOP + PANEL_H + BOTTOM + 24, "KL by layer at each position");
  for (size_t i = 0; i < json_array_size(g->probes); i++) {
    pf_axes a = panel(i, 0, g->n_layers - 1, lo, hi, true);
    pf_svg_axes(&g->b, &a, probe_at(g, i), "layer", i == 0);
    pf_svg_rule(&g->b, &a, CLEAN_LINE, "0.1");
    if (g->published) {
      kl_series(g, g->published, probe_at(g, i), s);
      pf_svg_line(&g->b, &a, s->x, s->median, s->n, 1, true);
    }
    kl_series(g, g->summary, probe_at(g, i), s);
    pf_svg_band(&g->b, &a, s->x, s->q25, s->q75, s->n, 0);
    pf_svg_line(&g->b, &a, s->x, s->median, s->n, 0, true);
  }
  pf_svg_key(&g->b, LEFT, TOP + PANEL_H + 54, 0, "median over cells (band: middle half)");
  if (g->published)
    pf_svg_key(&g->b, LEFT + 300, TOP + PANEL_H + 54, 1, "the paper's published median");
  pf_svg_close(&g->b);
  puts_(g, "<figcaption>KL(clean &Vert; changed) over 10 tokens, logarithmic, when the vector at "
           "this position and layer is replaced by "
           "the sum. Dashed line: 0.1. Values below 10<sup>&minus;6</sup> lie on the lower "
           "edge.</figcaption></figure>\n");
  pf_free(s);
  return PF_OK;
}

static void geometry_series(const page *g, const char *probe, const char *name, series *s) {
  s->n = 0;
  for (int l = 1; l <= g->n_layers; l++)
    add_point(s, l, json_object_get(decomposition(g, probe, l), name));
}

static const struct {
  const char *name, *label;
} shapes[] = {{"cos_xy_sum", "cosine of the joint change and the sum"},
              {"cos_x_y", "cosine of persona part and task part"},
              {"inter_over_xy", "what the sum misses / joint change"}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void geometry_numbers(page *g) {
  pf_numbers_open(&g->b, "The medians", "layer");
  for (size_t i = 0; i < json_array_size(g->probes); i++)
    for (int k = 0; k < N_SHAPES; k++) {
      puts_(g, "<th>");
      text(g, probe_at(g, i));
      pf_buf_printf(&g->b, "<br>%s</th>", shapes[k].name);
    }
  puts_(g, "</tr>\n");
  for (int l = 1; l <= g->n_layers; l++) {
    pf_buf_printf(&g->b, "<tr><td>%d</td>", l);
    for (size_t i = 0; i < json_array_size(g->probes); i++)
      for (int k = 0; k < N_SHAPES; k++) {
        const json_t *v = json_object_get(decomposition(g, probe_at(g, i), l), shapes[k].name);
        puts_(g, "<td>");
        figure(&g->b, num(json_object_get(v, "median")));
        puts_(g, "</td>");
      }
    puts_(g, "</tr>\n");
  }
  pf_numbers_close(&g->b);
}

static int geometry_figure(page *g) {
  series *s = pf_alloc(1, sizeof *s);
  if (!s)
    return PF_ENOMEM;
  double lo = 0, hi = 1;
  for (size_t i = 0; i < json_array_size(g->probes); i++)
    for (int k = 0; k < N_SHAPES; k++) {
      geometry_series(g, probe_at(g, i), shapes[k].name, s);
      for (size_t j = 0; j < s->n; j++) {
        lo = s->q25[j] < lo ? s->q25[j] : lo;
        hi = s->q75[j] > hi ? s->q75[j] : hi;
      }
    }
  lo = floor(lo * 5) / 5;
  hi = ceil(hi * 5) / 5;
  puts_(g, "<h2>Directions and lengths</h2>\n<figure>\n");
  pf_svg_open(&g->b, figure_width(g), TOP + PANEL_H + BOTTOM + 24,
              "Cosines and interaction ratio by layer at each position");
  for (size_t i = 0; i < json_array_size(g->probes); i++) {
    pf_axes a = panel(i, 1, g->n_layers, lo, hi, false);
    pf_svg_axes(&g->b, &a, probe_at(g, i), "layer", i == 0);
    for (int k = 0; k < N_SHAPES; k++) {
      geometry_series(g, probe_at(g, i), shapes[k].name, s);
      pf_svg_band(&g->b, &a, s->x, s->q25, s->q75, s->n, k);
      pf_svg_line(&g->b, &a, s->x, s->median, s->n, k, false);
    }
  }
  for (int k = 0; k < N_SHAPES; k++)
    pf_svg_key(&g->b, LEFT + 310 * k, TOP + PANEL_H + 54, k, shapes[k].label);
  pf_svg_close(&g->b);
  pf_buf_printf(
      &g->b,
      "<figcaption>Medians over cells with the middle half as bands. Layer %d is what the final "
      "norm hands to the "
      "unembedding. A perfect sum has a first cosine of 1 and misses 0.</figcaption></figure>\n",
      g->n_layers);
  geometry_numbers(g);
  pf_free(s);
  return PF_OK;
}

static void heat_cell(page *g, double x, double y, double w, double v, double lo, double hi) {
  char colour[8];
  bool dark;
  double t = v > 0 ? log(v / lo) / log(hi / lo) : 0;
  pf_svg_scale(hi > lo ? t : 0.5, colour, &dark);
  pf_buf_printf(&g->b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"24\" fill=\"%s\"/>", x,
                y, w - 2, isnan(v) ? "none" : colour);
  pf_buf_printf(
      &g->b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" style=\"font-size:12px;fill:%s\">",
      x + w / 2 - 1, y + 16.5,
      isnan(v) ? "#888"
      : dark   ? "#fff"
               : "#111");
  if (isnan(v))
    pf_buf_puts(&g->b, "-");
  else
    pf_buf_printf(&g->b, v != 0 && v < 5e-4 ? "%.0e" : v < 1 ? "%.3f" : "%.2f", v);
  pf_buf_puts(&g->b, "</text>\n");
}

static double cell_kl(const json_t *site, const char *persona, const char *task) {
  char name[160];
  snprintf(name, sizeof name, "%s__%s", persona, task);
  return pf_js_real(json_object_get(site, "per_cell"), name);
}

static void heat_range(const page *g, int layer, double *lo, double *hi) {
  *lo = 1;
  *hi = KL_FLOOR;
  for (size_t i = 0; i < json_array_size(g->probes); i++) {
    const char *name;
    json_t *v;
    json_object_foreach(json_object_get(causal(g->summary, probe_at(g, i), layer), "per_cell"),
                        name, v) {
      double x = num(v);
      x = x < KL_FLOOR ? KL_FLOOR : x;
      *lo = x < *lo ? x : *lo;
      *hi = x > *hi ? x : *hi;
    }
  }
}

/* The first `most` bytes of a key. */
static void heat_text(page *g, const char *class_name, double x, double y, const char *anchor,
                      const char *key, int most) {
  char cut[80];
  snprintf(cut, sizeof cut, "%.*s", most, key ? key : "");
  pf_buf_printf(&g->b, "<text class=\"%s\" x=\"%g\" y=\"%g\" text-anchor=\"%s\">", class_name, x, y,
                anchor);
  text(g, cut);
  puts_(g, "</text>\n");
}

static void heat_map(page *g, size_t i, int layer, double x, double y, double w, double lo,
                     double hi) {
  const json_t *personas = json_object_get(g->summary, "personas"),
               *tasks = json_object_get(g->summary, "tasks");
  const json_t *site = causal(g->summary, probe_at(g, i), layer);
  heat_text(g, "panel", x, y - 24, "start", probe_at(g, i), 64);
  for (size_t t = 0; t < json_array_size(tasks); t++) {
    const char *task = json_string_value(json_array_get(tasks, t));
    heat_text(g, "tick", x + w * ((double)t + .5) - 1, y - 7, "middle", task, 10);
    for (size_t p = 0; p < json_array_size(personas); p++) {
      const char *persona = json_string_value(json_array_get(personas, p));
      heat_cell(g, x + w * (double)t, y + 26 * (double)p, w, cell_kl(site, persona, task), lo, hi);
      if (t == 0)
        heat_text(g, "tick", x - 6, y + 26 * (double)p + 16.5, "end", persona, 14);
    }
  }
}

static void heat_figure(page *g) {
  const json_t *personas = json_object_get(g->summary, "personas"),
               *tasks = json_object_get(g->summary, "tasks");
  size_t n = json_array_size(g->probes), columns = json_array_size(tasks) > 4 ? 1 : 2;
  int layer = layer_at(g, json_array_size(g->layers) / 2);
  double lo, hi, w = columns == 2 ? 84 : 110, each = 130 + w * (double)json_array_size(tasks),
                 tall = 26 * (double)json_array_size(personas) + 76;
  heat_range(g, layer, &lo, &hi);
  pf_buf_printf(&g->b, "<h2>Cell by cell, layer %d</h2>\n<figure>\n", layer);
  pf_svg_open(&g->b, each * (double)columns, tall * (double)((n + columns - 1) / columns),
              "KL of every cell at each position");
  for (size_t i = 0; i < n; i++)
    heat_map(g, i, layer, 110 + each * (double)(i % columns), 52 + tall * (double)(i / columns), w,
             lo, hi);
  pf_svg_close(&g->b);
  puts_(g, "<figcaption>KL over 10 tokens of every persona (row) and task (column); one "
           "logarithmic colour scale for all maps, dark is "
           "small.</figcaption></figure>\n");
}

/* ---- tables
 * -------------------------------------------------------------------------------------------------------
 */

static void kl_table_cell(page *g, const json_t *site) {
  const json_t *s = json_object_get(site, "summary"), *iqr = json_object_get(s, "iqr");
  int n, below = below_line(site, &n);
  puts_(g, "<td>");
  figure(&g->b, pf_js_real(s, "median"));
  puts_(g, "<br><small>[");
  figure(&g->b, num(json_array_get(iqr, 0)));
  puts_(g, ", ");
  figure(&g->b, num(json_array_get(iqr, 1)));
  pf_buf_printf(&g->b, "]</small><br><small>%d/%d</small></td>", below, n);
}

static void kl_table(page *g) {
  puts_(g, "<div class=\"wide\"><table class=\"num\"><tr><th class=\"t\">position</th>");
  for (size_t k = 0; k < json_array_size(g->layers); k++)
    pf_buf_printf(&g->b, "<th>layer %d</th>", layer_at(g, k));
  puts_(g, "</tr>\n");
  for (size_t i = 0; i < json_array_size(g->probes); i++) {
    puts_(g, "<tr><td class=\"t\"><data value=\"");
    text(g, probe_at(g, i));
    puts_(g, "\"><b>");
    text(g, probe_at(g, i));
    pf_buf_printf(&g->b, "</b><br><small>%s</small></data></td>", probe_what(probe_at(g, i)));
    for (size_t k = 0; k < json_array_size(g->layers); k++)
      kl_table_cell(g, causal(g->summary, probe_at(g, i), layer_at(g, k)));
    puts_(g, "</tr>\n");
  }
  puts_(g,
        "</table></div>\n<p class=\"sub\">Median KL, [25 %, 75 %], and the cells below 0.1.</p>\n");
}

static void published_row(page *g, const char *probe, int layer) {
  const json_t *ours = json_object_get(causal(g->summary, probe, layer), "summary"),
               *theirs = json_object_get(causal(g->published, probe, layer), "summary");
  if (!theirs)
    return;
  double a = pf_js_real(ours, "median"), b = pf_js_real(theirs, "median");
  puts_(g, "<tr><td class=\"t\">");
  text(g, probe);
  pf_buf_printf(&g->b, "</td><td>%d</td><td>", layer);
  figure(&g->b, a);
  puts_(g, "</td><td>");
  figure(&g->b, b);
  pf_buf_printf(&g->b, "</td><td>%.2f</td></tr>\n", a / b);
}

/* What keeps a study of one of the paper's models from being held against its values: NULL where
 * nothing does. y is the paper's where it has the generation config's penalty. */
static const char *in_other_words(const page *g) {
  int n;
  const json_t *m = json_object_get(g->manifest, "model");
  const char *why = pf_manifest_other_words(g->manifest, &n);
  if (why)
    return why;
  if (pf_js_real(m, "repetition_penalty") != 1 &&
      strcmp(pf_js_str(g->manifest, "protocol"), "paper") != 0)
    return "the answers are made without the repetition penalty";
  return NULL;
}

static void published_table(page *g) {
  const json_t *m = json_object_get(g->manifest, "model");
  if (*pf_js_str(m, "shaped_as_key") && in_other_words(g))
    pf_buf_printf(&g->b,
                  "<p>The model has the shape of one of the paper&rsquo;s, but %s: nothing here is "
                  "set beside the published values.</p>\n",
                  in_other_words(g));
  if (!g->published)
    return;
  puts_(g, "<h2>Next to the paper</h2>\n<p>The configuration and every tensor shape are those of ");
  text(g, pf_js_str(m, "shaped_as"));
  puts_(g, ", one of the paper&rsquo;s models. Whether the weights are the same cannot be "
           "checked against a published value; theirs here hash to <code>");
  text(g, pf_js_str(m, "weights_sha256"));
  puts_(g, "</code>. This run computes in precision ");
  text(g, pf_js_str(g->manifest, "precision"));
  puts_(g, "; the paper ran Gemma in float32 and Qwen in bfloat16.</p>\n");
  puts_(g, "<table><tr><th class=\"t\">position</th><th>layer</th><th>median KL "
           "here</th><th>published</th><th>ratio</th></tr>\n");
  for (size_t i = 0; i < json_array_size(g->probes); i++)
    for (size_t k = 0; k < json_array_size(g->layers); k++)
      published_row(g, probe_at(g, i), layer_at(g, k));
  puts_(g, "</table>\n");
}

static void prompt_echo(page *g) {
  static const char *const parts[] = {"bos", "template", "persona", "task", "header"};
  const json_t *q = json_object_get(json_array_get(g->texts, 0), "prompt");
  puts_(g, "<h2>The prompt and its parts</h2>\n<div class=\"prompt\">");
  for (int i = 0; i < 5; i++) {
    pf_buf_printf(&g->b, "<span class=\"s%d\">", i);
    text(g, pf_js_str(json_object_get(q, parts[i]), "text"));
    puts_(g, "</span>");
  }
  puts_(g, "</div>\n<p class=\"sub\">The first cell&rsquo;s prompt in this model&rsquo;s chat "
           "format. Token spans: ");
  for (int i = 0; i < 5; i++) {
    const json_t *s = json_object_get(json_object_get(q, parts[i]), "tokens");
    int lo = (int)json_integer_value(json_array_get(s, 0)),
        hi = (int)json_integer_value(json_array_get(s, 1));
    pf_buf_printf(&g->b, hi > lo ? "%s%s %d&ndash;%d" : "%s%s none", i ? ", " : "", parts[i], lo,
                  hi - 1);
  }
  json_int_t n = json_integer_value(json_object_get(q, "tokens"));
  pf_buf_printf(&g->b, "; p_user_last = %d, p_last = %d, g1 = %d, g2 = %d (counted from 0).</p>\n",
                (int)json_integer_value(json_object_get(q, "p_user_last")), (int)n - 1, (int)n,
                (int)n + 1);
}

static void texts_table(page *g) {
  puts_(g, "<h2>What the model says</h2>\n<p>The clean greedy continuation of every cell, up to 12 "
           "tokens: what the ten scored tokens are "
           "taken from.</p>\n<div class=\"wide\"><table><tr><th class=\"t\">persona</th><th "
           "class=\"t\">task</th><th class=\"t\">continuation</th>"
           "</tr>\n");
  for (size_t i = 0; i < json_array_size(g->texts); i++) {
    const json_t *e = json_array_get(g->texts, i);
    puts_(g, "<tr><td class=\"t\">");
    text(g, pf_js_str(e, "persona"));
    puts_(g, "</td><td class=\"t\">");
    text(g, pf_js_str(e, "task"));
    puts_(g, json_is_true(json_object_get(e, "held_out"))
                 ? " <span class=\"tag\">held out</span></td><td class=\"t\">"
                 : "</td><td class=\"t\">");
    text(g, pf_js_str(json_object_get(e, "y"), "text"));
    puts_(g, "</td></tr>\n");
  }
  puts_(g, "</table></div>\n");
}

static void row(page *g, const char *name, const char *value) {
  puts_(g, "<tr><td class=\"t\">");
  text(g, name);
  puts_(g, "</td><td class=\"t mono\">");
  text(g, value);
  puts_(g, "</td></tr>\n");
}

static void run_table(page *g) {
  const json_t *m = json_object_get(g->manifest, "model"),
               *p = json_object_get(g->manifest, "program"),
               *cpu = json_object_get(g->manifest, "cpu");
  pf_buf b = {0};
  puts_(g,
        "<h2>This run</h2>\n<table><tr><th class=\"t\">what</th><th class=\"t\">value</th></tr>\n");
  pf_buf_printf(&b, "%s: %s, %d layers, width %d, %d query and %d key heads, vocabulary %d, %s",
                pf_js_str(m, "name"), pf_js_str(m, "arch"), g->n_layers,
                (int)json_integer_value(json_object_get(m, "d_model")),
                (int)json_integer_value(json_object_get(m, "n_heads")),
                (int)json_integer_value(json_object_get(m, "n_kv_heads")),
                (int)json_integer_value(json_object_get(m, "vocab_size")),
                pf_js_str(m, "weights_dtype"));
  row(g, "model", pf_buf_str(&b));
  row(g, "weights, SHA-256", pf_js_str(m, "weights_sha256"));
  row(g, "tokenizer, SHA-256", pf_js_str(json_object_get(g->manifest, "tokenizer"), "sha256"));
  row(g, "grid, SHA-256", pf_js_str(json_object_get(g->manifest, "grid"), "sha256"));
  pf_buf_free(&b);
  char number[32];
  bool paper = !strcmp(pf_js_str(g->manifest, "protocol"), "paper");
  pf_format_double(paper ? pf_js_real(m, "repetition_penalty") : 1, number, sizeof number);
  pf_buf_printf(&b, "%s (in the clean continuation; not in the scored log-probabilities)", number);
  row(g, "repetition penalty", pf_buf_str(&b));
  pf_buf_free(&b);
  pf_buf_printf(&b, "personaflow %s, numerics contract %d, precision %s", pf_js_str(p, "version"),
                (int)json_integer_value(json_object_get(p, "contract")),
                pf_js_str(g->manifest, "precision"));
  row(g, "program", pf_buf_str(&b));
  row(g, "processor", pf_js_str(cpu, "name"));
  pf_buf_free(&b);
  puts_(
      g,
      "</table>\n<p class=\"sub\">The same model, grid and contract give the same bytes of "
      "results.jsonl on every machine. Per cell and "
      "layer: <code>results.jsonl</code>; statistics under the paper&rsquo;s names: "
      "<code>summary.json</code>; kernels and arguments: "
      "<code>manifest.json</code>; times: <code>timings.json</code>.</p>\n</main></body></html>\n");
}

/* ---- files
 * --------------------------------------------------------------------------------------------------------
 */

static int read_part(const page *g, const char *name, json_t **out) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", g->dir, name);
  int rc = pf_js_file(path, FILE_LIMIT, out);
  return rc == PF_OK ? rc : pf_fail_prefix(rc, "no finished study");
}

/* The additive sweep may not have been asked for: its two files are there together or not at all.
 */
static int read_sweep(page *g) {
  char path[4400];
  if (!has_file(g, "summary.json"))
    return PF_OK;
  int rc = read_part(g, "summary.json", &g->summary);
  snprintf(path, sizeof path, "%s/generated.jsonl", g->dir);
  return rc == PF_OK ? pf_js_lines(path, FILE_LIMIT, &g->texts) : rc;
}

/* A manifest made by hand may hold anything: what the page indexes with must be sane. */
static int check_parts(page *g) {
  g->probes = json_object_get(g->manifest, "probes");
  g->layers = json_object_get(g->manifest, "layers");
  g->n_layers =
      (int)json_integer_value(json_object_get(json_object_get(g->manifest, "model"), "n_layers"));
  g->n_cells = (int)json_integer_value(json_object_get(g->manifest, "cells"));
  size_t n = json_array_size(g->layers), p = json_array_size(g->probes);
  if (g->n_layers < 1 || g->n_layers >= LAYERS_MAX || n < 1 || n > LAYERS_MAX || p < 1 ||
      p > PF_N_PROBES || (g->summary && !json_is_object(json_object_get(g->summary, "causal"))))
    return pf_fail(PF_EINPUT, "%s: manifest.json or summary.json is not of a study", g->dir);
  return PF_OK;
}

/* A page would stand without the experiment, and nobody would see that it had been run. */
static int check_files(const page *g) {
  size_t i;
  const json_t *v;
  json_array_foreach(json_object_get(g->manifest, "experiments"), i, v) {
    const char *key = json_string_value(v);
    char name[80];
    snprintf(name, sizeof name, "%.64s.jsonl", key ? key : "");
    const char *const files[] = {strcmp(name, "additive.jsonl") ? name : "summary.json",
                                 strcmp(name, "additive.jsonl") ? name : "generated.jsonl"};
    for (int k = 0; k < 2; k++)
      if (!has_file(g, files[k]))
        return pf_fail(
            PF_EINPUT,
            "%s/%s: is missing, although the study has run %s: `personaflow study` makes "
            "it again from the journal",
            g->dir, files[k], key ? key : "");
  }
  return PF_OK;
}

static int read_all(page *g) {
  int rc = pf_folder_finished(g->dir);
  if (rc == PF_OK)
    rc = read_part(g, "manifest.json", &g->manifest);
  if (rc == PF_OK)
    rc = check_files(g);
  if (rc == PF_OK)
    rc = read_sweep(g);
  if (rc == PF_OK)
    rc = check_parts(g);
  const json_t *m = json_object_get(g->manifest, "model");
  if (rc == PF_OK && *pf_js_str(m, "shaped_as_key") && !in_other_words(g) &&
      pf_published_load(pf_js_str(m, "shaped_as_key"),
                        pf_js_str(json_object_get(g->manifest, "grid"), "sha256"),
                        &g->published) != PF_OK)
    g->published =
        NULL; /* another grid, or the data files are not here: the page stands without them */
  return rc;
}

static int sweep(page *g) {
  answer(g);
  int rc = kl_figure(g);
  kl_table(g);
  published_table(g);
  if (rc == PF_OK)
    rc = geometry_figure(g);
  heat_figure(g);
  return rc;
}

/* The largest KL10 of I1 at the sweep's places; 0 where C1 was not run. */
static int noise_floor(const page *g, double *floor) {
  pf_records r;
  *floor = 0;
  if (!has_file(g, "C1.jsonl"))
    return PF_OK;
  int rc = pf_records_open(&r, g->dir);
  for (size_t i = 0; i < json_array_size(g->probes) && rc == PF_OK; i++)
    for (size_t k = 0; k < json_array_size(g->layers) && rc == PF_OK; k++)
      *floor = fmax(*floor, pf_records_floor(&r, probe_at(g, i), layer_at(g, k), &rc));
  pf_records_close(&r);
  return rc;
}

/* The name of the marker lists, where they are not the paper's; NULL: they are. */
static const char *other_lists(const page *g) {
  pf_markers paper;
  const json_t *own = json_object_get(g->manifest, "markers");
  bool other = own && pf_markers_open(&paper, "paper") == PF_OK;
  if (!other)
    return NULL;
  other = strcmp(paper.sha256, pf_js_str(own, "sha256")) != 0;
  pf_markers_free(&paper);
  return other ? pf_js_str(own, "name") : NULL;
}

/* Of a model that has the shape of one of the paper's. */
static int paper_tables(page *g) {
  const char *key = pf_js_str(json_object_get(g->manifest, "model"), "shaped_as_key"),
             *precision = pf_js_str(g->manifest, "precision");
  /* the paper ran Qwen in bf16 */
  pf_replica r = {.bf16 = strcmp(precision, "f32") != 0 || !strncmp(key, "qwen", 4)};
  if (!*key || !g->published)
    return PF_OK;
  int rc = noise_floor(g, &r.floor);
  if (rc == PF_OK)
    rc = pf_paper_page(g->dir, key, &r, other_lists(g), &g->b);
  return rc == PF_EINPUT ? PF_OK
                         : rc; /* the data files are not here: the page stands without them */
}

static int write_page(page *g) {
  char path[4400];
  head(g);
  question(g);
  int rc = pf_page_answer(g->dir, &g->b);
  if (rc == PF_OK && g->summary)
    rc = sweep(g);
  if (rc == PF_OK)
    rc = paper_tables(g);
  if (rc == PF_OK)
    rc = pf_full_page(g->dir, &g->b);
  if (g->texts) {
    prompt_echo(g);
    texts_table(g);
  }
  run_table(g);
  snprintf(path, sizeof path, "%s/report.html", g->dir);
  if (rc == PF_OK)
    rc = pf_buf_status(&g->b);
  if (rc == PF_OK)
    rc = pf_page_parts(g->dir, g->b.s);
  return rc == PF_OK ? pf_write_file(path, g->b.s, g->b.n) : rc;
}

int pf_report_make(const char *dir) {
  PF_FP_PLAIN();
  page g = {.dir = dir};
  int rc =
      strlen(dir) > 4096 ? pf_fail(PF_EUSAGE, "the path of the folder is too long") : read_all(&g);
  if (rc == PF_OK)
    rc = write_page(&g);
  json_decref(g.manifest);
  json_decref(g.summary);
  json_decref(g.texts);
  json_decref(g.published);
  pf_buf_free(&g.b);
  return rc;
}
