/* SPDX-License-Identifier: Apache-2.0
 * Small charts as inline SVG. */
#include "analysis/svg.h"

#include <math.h>
#include <stdio.h>

void pf_html_text(pf_buf *b, const char *s) {
  static const struct {
    char c;
    const char *entity;
  } map[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
  for (; *s; s++) {
    size_t i = 0;
    while (i < sizeof map / sizeof *map && map[i].c != *s)
      i++;
    if (i < sizeof map / sizeof *map)
      pf_buf_puts(b, map[i].entity);
    else
      pf_buf_add(b, s, 1);
  }
}

void pf_svg_open(pf_buf *b, double width, double height, const char *label) {
  pf_buf_printf(b, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"", width, height);
  pf_html_text(b, label);
  pf_buf_puts(b, "\">\n");
}

void pf_svg_close(pf_buf *b) {
  pf_buf_puts(b, "</svg>\n");
}

/* Text of a class of the page's style at (x, y); anchor: "start", "middle" or "end". */
static void text_at(pf_buf *b, const char *class_name, double x, double y, const char *anchor,
                    const char *s) {
  pf_buf_printf(b, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", class_name, x, y,
                anchor);
  pf_html_text(b, s);
  pf_buf_puts(b, "</text>\n");
}

static double clamp(double v, double lo, double hi) {
  return v < lo ? lo : v > hi ? hi : v;
}

static double at_x(const pf_axes *a, double v) {
  if (a->log_x)
    return a->x + a->w * log10(clamp(v, a->xmin, a->xmax) / a->xmin) / log10(a->xmax / a->xmin);
  return a->x + a->w * (v - a->xmin) / (a->xmax > a->xmin ? a->xmax - a->xmin : 1);
}

static double at_y(const pf_axes *a, double v) {
  v = clamp(v, a->ymin, a->ymax);
  double t =
      a->log ? log10(v / a->ymin) / log10(a->ymax / a->ymin) : (v - a->ymin) / (a->ymax - a->ymin);
  return a->y + a->h * (1 - t);
}

static void y_tick(pf_buf *b, const pf_axes *a, double v, bool label) {
  double y = at_y(a, v);
  pf_buf_printf(b, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", a->x,
                y, a->x + a->w, y);
  if (label)
    pf_buf_printf(b, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                  a->x - 6, y + 4, v + 0.0);
}

static void y_ticks(pf_buf *b, const pf_axes *a, bool labels) {
  if (a->log) {
    for (double e = ceil(log10(a->ymin) - 1e-9); e <= log10(a->ymax) + 1e-9; e++)
      y_tick(b, a, pow(10, e), labels);
    return;
  }
  double step = a->ymax - a->ymin > 3 ? 1 : a->ymax - a->ymin > 1.2 ? 0.5 : 0.2;
  for (double k = ceil(a->ymin / step - 1e-9); k * step <= a->ymax + 1e-9; k++)
    y_tick(b, a, k * step, labels);
}

static void x_tick(pf_buf *b, const pf_axes *a, double v) {
  pf_buf_printf(b, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
                at_x(a, v), a->y + a->h + 16, v + 0.0); /* -0 reads 0 */
}

static void x_ticks(pf_buf *b, const pf_axes *a) {
  if (a->log_x) {
    for (double e = ceil(log10(a->xmin) - 1e-9); e <= log10(a->xmax) + 1e-9; e++)
      x_tick(b, a, pow(10, e));
    return;
  }
  double range = a->xmax - a->xmin, step = range <= 10 ? 1 : range <= 20 ? 2 : range <= 45 ? 5 : 10;
  step = range > 5 && range <= 10 ? 2 : step;
  for (double k = ceil(a->xmin / step); k * step <= a->xmax + 1e-9; k++)
    x_tick(b, a, k * step);
}

void pf_svg_axes(pf_buf *b, const pf_axes *a, const char *title, const char *x_name,
                 bool y_labels) {
  y_ticks(b, a, y_labels);
  x_ticks(b, a);
  pf_buf_printf(b, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                a->x, a->y, a->w, a->h);
  text_at(b, "panel", a->x, a->y - 8, "start", title);
  text_at(b, "tick", a->x + a->w / 2, a->y + a->h + 33, "middle", x_name);
}

void pf_svg_band(pf_buf *b, const pf_axes *a, const double *x, const double *lo, const double *hi,
                 size_t n, int colour) {
  size_t seen = 0;
  pf_buf_printf(b, "<polygon class=\"band c%d\" points=\"", colour);
  for (size_t k = 0; k < 2 * n; k++) {
    size_t i = k < n ? k : 2 * n - 1 - k;
    double y = k < n ? lo[i] : hi[i];
    if (isnan(y))
      continue;
    pf_buf_printf(b, "%.1f,%.1f ", at_x(a, x[i]), at_y(a, y));
    seen++;
  }
  pf_buf_puts(b, seen ? "\"/>\n" : "0,0\"/>\n");
}

void pf_svg_line(pf_buf *b, const pf_axes *a, const double *x, const double *y, size_t n,
                 int colour, bool dots) {
  pf_buf_printf(b, "<polyline class=\"line c%d\" points=\"", colour);
  for (size_t i = 0; i < n; i++)
    if (!isnan(y[i]))
      pf_buf_printf(b, "%.1f,%.1f ", at_x(a, x[i]), at_y(a, y[i]));
  pf_buf_puts(b, "\"/>\n");
  for (size_t i = 0; dots && i < n; i++)
    if (!isnan(y[i]))
      pf_buf_printf(b,
                    "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%g: "
                    "%.4g</title></circle>\n",
                    colour, at_x(a, x[i]), at_y(a, y[i]), x[i], y[i]);
}

void pf_svg_rule(pf_buf *b, const pf_axes *a, double y, const char *label) {
  if (y < a->ymin || y > a->ymax)
    return;
  pf_buf_printf(b, "<line class=\"rule\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", a->x,
                at_y(a, y), a->x + a->w, at_y(a, y));
  text_at(b, "tick", a->x + a->w - 4, at_y(a, y) - 4, "end", label);
}

void pf_svg_scale(double t, char out[8], bool *dark) {
  /* stops of cividis (Nunez, Anderton, Renslow 2018, PLoS ONE 13(7)), rounded */
  static const double stop[][3] = {{0, 34, 78},     {53, 69, 108},   {102, 105, 112},
                                   {148, 142, 119}, {200, 184, 102}, {254, 232, 56}};
  enum { N = sizeof stop / sizeof *stop };
  t = clamp(isnan(t) ? 0 : t, 0, 1) * (N - 1);
  int i = t >= N - 1 ? N - 2 : (int)t;
  double f = t - i, c[3];
  for (int k = 0; k < 3; k++)
    c[k] = stop[i][k] + f * (stop[i + 1][k] - stop[i][k]);
  snprintf(out, 8, "#%02x%02x%02x", (unsigned)c[0] & 255u, (unsigned)c[1] & 255u,
           (unsigned)c[2] & 255u);
  *dark = 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2] < 140;
}

void pf_svg_effect(double v, double most, char out[8], bool *dark) {
  pf_svg_scale(most > 0 && v > 0 ? sqrt(v / most) : 0, out, dark);
}

void pf_svg_mark(pf_buf *b, const pf_axes *a, double x, double y, int colour, const char *label,
                 const char *title) {
  pf_buf_printf(b, "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>", colour,
                at_x(a, x), at_y(a, y));
  pf_html_text(b, title);
  pf_buf_printf(b, "</title></circle><text class=\"tick\" x=\"%.1f\" y=\"%.1f\">", at_x(a, x) + 6,
                at_y(a, y) + 4);
  pf_html_text(b, label);
  pf_buf_puts(b, "</text>\n");
}

void pf_svg_key(pf_buf *b, double x, double y, int colour, const char *label) {
  pf_buf_printf(b,
                "<line class=\"line c%d\" x1=\"%g\" y1=\"%g\" x2=\"%g\" y2=\"%g\"/><text "
                "class=\"key\" x=\"%g\" y=\"%g\">",
                colour, x, y, x + 26, y, x + 33, y + 4);
  pf_html_text(b, label);
  pf_buf_puts(b, "</text>\n");
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum { ROW = 26, TOP = 30, NAMES = 330, PANEL = 370 }; /* units of a figure that is 720 wide */

static void row_ticks(pf_buf *b, const pf_axes *a) {
  double range = a->xmax - a->xmin, step = range > 3 ? 1 : range > 1.5 ? 0.5 : 0.25;
  for (double k = ceil(a->xmin / step - 1e-9); k * step <= a->xmax + 1e-9; k++) {
    pf_buf_printf(b, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
                  at_x(a, k * step), a->y, at_x(a, k * step), a->y + a->h);
    x_tick(b, a, k * step);
  }
}

static void row_value(pf_buf *b, const pf_axes *a, const pf_svg_row *r, size_t k, double y) {
  if (isnan(r->mid[k]))
    return;
  double x[3] = {r->lo[k], r->mid[k], r->hi[k]};
  for (int i = 0; i < 3; i++)
    x[i] = at_x(a, clamp(isnan(x[i]) ? r->mid[k] : x[i], a->xmin, a->xmax));
  pf_buf_printf(b,
                "<line class=\"line c%zu\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                "y2=\"%.1f\"/><circle class=\"dot c%zu\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"3.5\"><title>%.4g",
                k, x[0], y, x[2], y, k, x[1], y, r->mid[k]);
  if (!isnan(r->lo[k]) && !isnan(r->hi[k])) /* of one cell there is no interval */
    pf_buf_printf(b, " [%.4g, %.4g]", r->lo[k], r->hi[k]);
  pf_buf_puts(b, "</title></circle>\n");
}

void pf_svg_rows(pf_buf *b, const char *title, const pf_svg_row *rows, size_t n,
                 const char *const *series, size_t n_series, double xmin, double xmax) {
  double h = ROW * (double)n;
  pf_axes a = {.x = NAMES, .y = TOP, .w = PANEL, .h = h, .xmin = xmin, .xmax = xmax};
  pf_svg_open(b, 720, TOP + h + 54, title);
  row_ticks(b, &a);
  pf_buf_printf(b, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                a.x, a.y, a.w, a.h);
  text_at(b, "panel", a.x, a.y - 8, "start", title);
  for (size_t i = 0; i < n; i++) {
    double y = TOP + ROW * ((double)i + 0.5);
    text_at(b, "key", NAMES - 8, y + 4, "end", rows[i].name);
    for (size_t k = 0; k < n_series; k++)
      row_value(b, &a, &rows[i], k, n_series > 1 ? y - 4 + 8 * (double)k : y);
  }
  for (size_t k = 0; k < n_series; k++)
    pf_svg_key(b, NAMES + 190 * (double)k, TOP + h + 40, (int)k, series[k]);
  pf_svg_close(b);
}

/* ---- maps ------------------------------------------------------------------------------------ */

enum { CELL = 20, MAP_NAMES = 150, MAP_PANEL = 550, SCALE_STEPS = 32, SCALE_STEP = 6 };

static void rect(pf_buf *b, double x, double y, double w, double h, const char *colour) {
  pf_buf_printf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\">", x, y,
                w, h, colour);
}

static void map_row(pf_buf *b, const pf_svg_map *m, size_t row, double most) {
  double w = (double)MAP_PANEL / (double)m->n_cols, y = TOP + CELL * (double)row;
  char colour[8];
  bool dark;
  text_at(b, "tick", MAP_NAMES - 8, y + 14, "end", m->row_names[row]);
  for (size_t k = 0; k < m->n_cols; k++) {
    double v = m->v[row * m->n_cols + k];
    if (isnan(v))
      continue;
    pf_svg_effect(v, most, colour, &dark);
    rect(b, MAP_NAMES + w * (double)k, y, w - 1, CELL - 1, colour);
    pf_buf_puts(b, "<title>");
    pf_html_text(b, m->row_names[row]);
    pf_buf_printf(b, ", %s %zu: %.3g</title></rect>\n", m->col_name, k, v);
  }
}

static void map_scale(pf_buf *b, double y, double most) {
  double end = MAP_NAMES + SCALE_STEP * SCALE_STEPS;
  char colour[8], text[32];
  bool dark;
  for (int i = 0; i < SCALE_STEPS; i++) {
    pf_svg_scale(i / (SCALE_STEPS - 1.0), colour, &dark);
    rect(b, MAP_NAMES + SCALE_STEP * i, y, SCALE_STEP + 0.5, 10, colour); /* no seams */
    pf_buf_puts(b, "</rect>\n");
  }
  text_at(b, "tick", MAP_NAMES - 8, y + 10, "end", "0");
  snprintf(text, sizeof text, "%.3g", most / 4); /* the root of a quarter is a half */
  text_at(b, "tick", (MAP_NAMES + end) / 2, y + 26, "middle", text);
  snprintf(text, sizeof text, "%.3g", most);
  text_at(b, "tick", end + 8, y + 10, "start", text);
}

void pf_svg_heat(pf_buf *b, const pf_svg_map *m) {
  double most = 0, bottom = TOP + CELL * (double)m->n_rows,
         w = (double)MAP_PANEL / (double)m->n_cols;
  size_t step = m->n_cols <= 24 ? 1 : m->n_cols <= 48 ? 2 : 5;
  char number[24];
  for (size_t i = 0; i < m->n_rows * m->n_cols; i++)
    most = fmax(most, m->v[i]);
  pf_svg_open(b, 720, bottom + 84, m->title);
  text_at(b, "panel", MAP_NAMES, TOP - 8, "start", m->title);
  for (size_t i = 0; i < m->n_rows; i++)
    map_row(b, m, i, most);
  for (size_t k = 0; k < m->n_cols; k += step) {
    snprintf(number, sizeof number, "%zu", k);
    text_at(b, "tick", MAP_NAMES + w * ((double)k + 0.5), bottom + 15, "middle", number);
  }
  text_at(b, "tick", MAP_NAMES + MAP_PANEL / 2.0, bottom + 32, "middle", m->col_name);
  map_scale(b, bottom + 48, most);
  pf_svg_close(b);
}
