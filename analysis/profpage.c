/* SPDX-License-Identifier: Apache-2.0
 * report.html of a profile: for each phase a roofline (Williams, Waterman, Patterson 2009, CACM
 * 52(4)), time by role and by layer, and the tables. One file, no network. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/profile.h"
#include "analysis/svg.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

enum { WIDTH = 980, ROOF_HEIGHT = 420, BAR = 20, MOST_BARS = 24, MARKS = 20 };

typedef struct page {
  pf_buf *b;
  const json_t *result, *phase;
} page;

static const json_t *machine(const page *g) {
  return json_object_get(g->result, "machine");
}

/* ---- roofline -------------------------------------------------------------------------------- */

/* Level and slope up to it; the level's name. */
static void one_roof(page *g, const pf_axes *a, double top, const char *what, int colour) {
  double read = pf_js_real(machine(g), "read"), knee = top > 0 ? top / read : a->xmax;
  double x[3] = {a->xmin, fmin(knee, a->xmax), a->xmax},
         y[3] = {1e-9 * read * a->xmin, 1e-9 * read * x[1], 1e-9 * top};
  char label[128];
  pf_svg_line(g->b, a, x, y, top > 0 && knee < a->xmax ? 3 : 2, colour, false);
  if (top <= 0)
    return;
  snprintf(label, sizeof label, "%s: %.0f GFLOP/s", what, 1e-9 * top);
  pf_svg_rule(g->b, a, 1e-9 * top, label);
}

static void roofs(page *g, const pf_axes *a) {
  double products = pf_profile_roof(machine(g), NULL),
         attention = pf_profile_roof(machine(g), "attn.scores");
  one_roof(g, a, products, "products", 2);
  if (attention > 0 && fabs(attention / products - 1) > 0.02)
    one_roof(g, a, attention, "attention", 1);
}

static double intensity(const pf_profile_line *l) {
  return l->value[PF_COLUMN_INTENSITY];
}

static double rate(const pf_profile_line *l) {
  return 1e-9 * l->value[PF_COLUMN_GFLOPS];
}

/* The smallest powers of ten around everything that is drawn. */
static void limits(const page *g, const pf_profile_line *l, size_t n, pf_axes *a) {
  double top = fmax(pf_profile_roof(machine(g), NULL), pf_profile_roof(machine(g), "attn.scores")),
         knee = top > 0 ? top / pf_js_real(machine(g), "read") : 1;
  a->xmin = fmin(1, knee);
  a->xmax = fmax(1, knee) * 4;
  a->ymax = fmax(1e-9 * top, 1) * 2;
  a->ymin = a->ymax / 100;
  for (size_t i = 0; i < n; i++) {
    if (isnan(intensity(&l[i])) || isnan(rate(&l[i])))
      continue;
    a->xmin = fmin(a->xmin, intensity(&l[i]));
    a->xmax = fmax(a->xmax, intensity(&l[i]));
    a->ymin = fmin(a->ymin, rate(&l[i]));
    a->ymax = fmax(a->ymax, rate(&l[i]));
  }
  a->xmin = pow(10, floor(log10(a->xmin)));
  a->xmax = pow(10, ceil(log10(a->xmax)));
  a->ymin = pow(10, floor(log10(a->ymin)));
  a->ymax = pow(10, ceil(log10(a->ymax)));
}

/* A numbered dot, and its name in the list beside the panel. */
static void mark(page *g, const pf_axes *a, const pf_profile_line *l, int number) {
  const pf_axes beside = {
      .x = WIDTH - 130, .y = 24, .w = 1, .h = 16 * MARKS, .xmax = 1, .ymin = 0, .ymax = MARKS};
  char title[192], label[16], key[96];
  int colour = !strncmp(l->name, "attn.", 5) ? 1 : 0;
  snprintf(label, sizeof label, "%d", number);
  snprintf(key, sizeof key, "%d %s", number, l->name);
  snprintf(title, sizeof title, "%s: %.1f GFLOP/s, %.2f operations a byte, %.1f %% of the time",
           l->name, rate(l), intensity(l), 100 * l->value[PF_COLUMN_SHARE]);
  pf_svg_mark(g->b, a, intensity(l), rate(l), colour, label, title);
  pf_svg_mark(g->b, &beside, 0, MARKS - number, colour, key, title);
}

static void roofline(page *g, const pf_profile_line *l, size_t n) {
  pf_axes a = {
      .x = 60, .y = 30, .w = WIDTH - 210, .h = ROOF_HEIGHT - 90, .log = true, .log_x = true};
  int marks = 0;
  limits(g, l, n, &a);
  pf_buf_puts(g->b, "<figure>\n");
  pf_svg_open(g->b, WIDTH, ROOF_HEIGHT, "Roofline: GFLOP/s by operations a byte");
  pf_svg_axes(g->b, &a, "GFLOP/s", "operations a byte", true);
  roofs(g, &a);
  for (size_t i = 0; i < n && marks < MARKS; i++)
    if (!isnan(intensity(&l[i])) && !isnan(rate(&l[i])))
      mark(g, &a, &l[i], ++marks);
  pf_svg_close(g->b);
  pf_buf_puts(
      g->b,
      "<figcaption>Roles that compute, all layers together, by their time. The lines are what the "
      "machine did in this run at most: reading memory far larger than its caches (slopes), and "
      "the "
      "instructions of products and of attention (levels). A role above the slope found its "
      "operands in "
      "a cache.</figcaption></figure>\n");
}

/* ---- bars ------------------------------------------------------------------------------------ */

static void bars(page *g, const pf_profile_line *l, size_t n, const char *caption) {
  double most = 0;
  n = n < MOST_BARS ? n : MOST_BARS;
  for (size_t i = 0; i < n; i++)
    most = fmax(most, l[i].value[PF_COLUMN_TIME]);
  pf_buf_puts(g->b, "<figure>\n");
  pf_svg_open(g->b, WIDTH, (double)n * BAR + 10, caption);
  for (size_t i = 0; i < n && most > 0; i++) {
    char name[96];
    double y = 4 + (double)i * BAR, w = (WIDTH - 380) * l[i].value[PF_COLUMN_TIME] / most;
    pf_profile_line_name(&l[i], name);
    pf_buf_printf(g->b, "<text class=\"key\" x=\"170\" y=\"%.1f\" text-anchor=\"end\">", y + 13);
    pf_html_text(g->b, name);
    pf_buf_printf(
        g->b,
        "</text><rect class=\"dot c0\" x=\"180\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>"
        "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\">%.2f ms, %.1f %%</text>\n",
        y, w, BAR - 5, 188 + w, y + 13, 1e3 * l[i].value[PF_COLUMN_TIME],
        100 * l[i].value[PF_COLUMN_SHARE]);
  }
  pf_svg_close(g->b);
  pf_buf_puts(g->b, "<figcaption>");
  pf_html_text(g->b, caption);
  pf_buf_puts(g->b, "</figcaption></figure>\n");
}

/* ---- text ------------------------------------------------------------------------------------ */

static void head(page *g) {
  const json_t *r = g->result;
  pf_page_open(g->b, "personaflow profile");
  pf_buf_puts(g->b, "<h1>Where the time goes: ");
  pf_html_text(g->b, pf_js_str(r, "model"));
  pf_buf_puts(g->b, "</h1>\n<p class=\"sub\">");
  pf_html_text(g->b, pf_js_str(r, "precision"));
  pf_buf_puts(g->b, ", ");
  pf_html_text(g->b, pf_js_str(r, "isa"));
  pf_buf_printf(g->b,
                ", %d threads; prompt of %d tokens, %d tokens on %d branch%s; "
                "medians of %d repeats. ",
                (int)pf_js_real(r, "threads"), (int)pf_js_real(r, "prompt"),
                (int)pf_js_real(r, "generate"), (int)pf_js_real(r, "branches"),
                pf_js_real(r, "branches") > 1 ? "es" : "", (int)pf_js_real(r, "repeats"));
  pf_html_text(g->b, pf_js_str(machine(g), "cpu"));
  pf_buf_puts(g->b, " (");
  pf_html_text(g->b, pf_js_str(machine(g), "features"));
  pf_buf_printf(g->b, "). Read %.1f GB/s", 1e-9 * pf_js_real(machine(g), "read"));
  double top = pf_profile_roof(machine(g), NULL);
  if (top > 0) {
    pf_buf_printf(g->b, ", products %.0f GFLOP/s (", 1e-9 * top);
    pf_html_text(g->b, pf_js_str(machine(g), "products"));
    pf_buf_puts(g->b, ")");
  }
  pf_buf_puts(g->b, ", both measured in this run.</p>\n");
}

static int table(page *g) {
  pf_buf t = {0};
  int rc = pf_profile_put_table(g->result, &(pf_profile_view){.by = PF_BY_ROLE}, &t);
  pf_buf_puts(g->b, "<h2>Numbers</h2>\n<pre class=\"mono\" style=\"overflow-x:auto\">");
  pf_html_text(g->b, pf_buf_str(&t));
  pf_buf_puts(g->b, "</pre>\n");
  pf_buf_free(&t);
  return rc;
}

static int put_phase(page *g) {
  pf_profile_line *role = NULL, *layer = NULL;
  size_t n, m;
  int rc = pf_profile_lines(g->result, g->phase, &(pf_profile_view){.by = PF_BY_ROLE}, &role, &n);
  if (rc == PF_OK)
    rc = pf_profile_lines(g->result, g->phase, &(pf_profile_view){.by = PF_BY_LAYER}, &layer, &m);
  if (rc == PF_OK) {
    pf_buf_puts(g->b, "<h2>");
    pf_html_text(g->b, pf_js_str(g->phase, "name"));
    pf_buf_puts(g->b, "</h2>\n");
    bars(g, role, n, "Time by role, all layers together; of the phase's wall time");
    if (pf_js_real(g->phase, "tokens") > 0) {
      roofline(g, role, n);
      bars(g, layer, m, "Time by layer, the slowest first");
    }
  }
  pf_free(role);
  pf_free(layer);
  return rc;
}

int pf_profile_page(const json_t *result, pf_buf *b) {
  page g = {.b = b, .result = result};
  size_t i;
  int rc = PF_OK;
  head(&g);
  json_array_foreach(json_object_get(result, "phases"), i, g.phase) {
    if (rc == PF_OK)
      rc = put_phase(&g);
  }
  if (rc == PF_OK)
    rc = table(&g);
  pf_buf_puts(b, "</main></body></html>\n");
  return rc == PF_OK ? pf_buf_status(b) : rc;
}
