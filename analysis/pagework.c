/* SPDX-License-Identifier: Apache-2.0
 * Statistics of a study's records, and table cells. */
#include "analysis/pagework.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"

pf_stats pf_page_stats(pf_page *g, const char *experiment, const char *field, const char *query) {
  pf_stats s = {0, NAN, NAN, NAN, NAN, NAN};
  if (g->rc != PF_OK)
    return s;
  double *x = pf_records_table(&g->r, experiment, query, field, &g->rc);
  if (x)
    s = pf_stats_of(x, g->n);
  pf_free(x);
  return s;
}

pf_interval pf_page_interval(pf_page *g, const char *experiment, const char *field,
                             const char *query) {
  pf_interval v = {NAN, NAN, NAN};
  double *x = g->rc == PF_OK ? pf_records_table(&g->r, experiment, query, field, &g->rc) : NULL;
  pf_crossed t = pf_records_crossed(&g->r, x);
  if (x)
    g->rc = pf_bootstrap(&t, PF_MEDIAN, NULL, &v);
  pf_free(x);
  return v;
}

bool pf_page_has(pf_page *g, const char *experiment) {
  return g->rc == PF_OK && pf_records_of(&g->r, experiment, &g->rc) != NULL;
}

void pf_page_text(pf_page *g, const char *s) {
  pf_html_text(g->b, s ? s : "");
}

void pf_page_label(pf_page *g, const char *s) {
  pf_buf_puts(g->b, "<tr><td class=\"t\">");
  pf_page_text(g, s);
  pf_buf_puts(g->b, "</td>");
}

void pf_page_number(pf_page *g, double x) {
  if (isnan(x))
    pf_buf_puts(g->b, "&ndash;");
  else
    pf_buf_printf(g->b,
                  fabs(x) >= 100                ? "%.0f"
                  : fabs(x) >= 10               ? "%.1f"
                  : fabs(x) >= 0.01 || x == 0.0 ? "%.3f"
                                                : "%.2g",
                  x);
}

void pf_page_spread(pf_page *g, const pf_stats *s) {
  pf_buf_puts(g->b, "<td>");
  pf_page_number(g, s->median);
  if (s->n) {
    pf_buf_puts(g->b, " <small>[");
    pf_page_number(g, s->q25);
    pf_buf_puts(g->b, ", ");
    pf_page_number(g, s->q75);
    pf_buf_puts(g->b, "]</small>");
  }
  pf_buf_puts(g->b, "</td>");
}

void pf_numbers_open(pf_buf *b, const char *summary, const char *first) {
  pf_buf_printf(b,
                "<details><summary>%s</summary>\n<div class=\"wide\"><table "
                "class=\"num\"><tr><th>",
                summary);
  pf_html_text(b, first);
  pf_buf_puts(b, "</th>");
}

void pf_numbers_close(pf_buf *b) {
  pf_buf_puts(b, "</table></div></details>\n");
}

/* ---- charts ---------------------------------------------------------------------------------- */

void pf_series_add(pf_series *s, double x, const pf_stats *v) {
  if (s->n == PF_POINTS || v->n == 0)
    return;
  s->x[s->n] = x;
  s->mid[s->n] = v->median;
  s->lo[s->n] = v->q25;
  s->hi[s->n++] = v->q75;
}

/* The ends of the series along the axis; false unless there are two places. */
static bool x_range(const pf_series *s, size_t n, pf_axes *a) {
  a->xmin = INFINITY;
  a->xmax = -INFINITY;
  for (size_t k = 0; k < n; k++)
    for (size_t i = 0; i < s[k].n; i++) {
      a->xmin = fmin(a->xmin, s[k].x[i]);
      a->xmax = fmax(a->xmax, s[k].x[i]);
    }
  return a->xmin < a->xmax;
}

static void chart_cell(pf_page *g, const pf_series *s, double x) {
  size_t i = 0;
  while (i < s->n && s->x[i] != x)
    i++;
  pf_stats v = {.n = i < s->n, .median = NAN};
  if (v.n) {
    v.median = s->mid[i];
    v.q25 = s->lo[i];
    v.q75 = s->hi[i];
  }
  pf_page_spread(g, &v);
}

/* A row for each place of any series, in their order. */
static void chart_numbers(pf_page *g, const char *x_name, const pf_series *s, size_t n,
                          const pf_axes *a) {
  pf_numbers_open(g->b, "The numbers", x_name);
  for (size_t k = 0; k < n; k++) {
    pf_buf_puts(g->b, "<th>");
    pf_page_text(g, s[k].name);
    pf_buf_puts(g->b, "</th>");
  }
  pf_buf_puts(g->b, "</tr>\n");
  for (double x = a->xmin, next; x <= a->xmax; x = next) {
    pf_buf_printf(g->b, "<tr><td>%g</td>", x);
    next = INFINITY;
    for (size_t k = 0; k < n; k++) {
      chart_cell(g, &s[k], x);
      for (size_t i = 0; i < s[k].n; i++)
        next = s[k].x[i] > x ? fmin(next, s[k].x[i]) : next;
    }
    pf_buf_puts(g->b, "</tr>\n");
  }
  pf_numbers_close(g->b);
}

void pf_page_chart(pf_page *g, const char *title, const char *x_name, const pf_series *s, size_t n,
                   double ymin, double ymax, bool log, const char *caption) {
  pf_axes a = {.x = 60, .y = 30, .w = 620, .h = 220, .ymin = ymin, .ymax = ymax, .log = log};
  if (!x_range(s, n, &a))
    return;
  pf_buf_puts(g->b, "<figure>");
  pf_svg_open(g->b, 720, 320 + 22 * (double)((n - 1) / 3), title);
  pf_svg_axes(g->b, &a, title, x_name, true);
  for (size_t k = 0; k < n; k++) {
    pf_svg_band(g->b, &a, s[k].x, s[k].lo, s[k].hi, s[k].n, (int)k);
    pf_svg_line(g->b, &a, s[k].x, s[k].mid, s[k].n, (int)k, true);
    pf_svg_key(g->b, 60 + 210 * (double)(k % 3), 304 + 22 * (double)(k / 3), (int)k, s[k].name);
  }
  pf_svg_close(g->b);
  pf_buf_puts(g->b, "<figcaption>");
  pf_page_text(g, caption);
  pf_buf_puts(g->b, "</figcaption></figure>\n");
  chart_numbers(g, x_name, s, n, &a);
}

/* ---- figures of rows ------------------------------------------------------------------------- */

pf_svg_row *pf_figure_row(pf_figure *f, const char *name) {
  pf_svg_row *r = &f->row[f->n < PF_FIGURE_ROWS ? f->n++ : PF_FIGURE_ROWS - 1];
  *r = (pf_svg_row){.mid = {NAN, NAN}, .lo = {NAN, NAN}, .hi = {NAN, NAN}};
  snprintf(r->name, sizeof r->name, "%s", name);
  return r;
}

void pf_figure_value(pf_svg_row *r, int series, const pf_stats *s) {
  r->mid[series] = s->median;
  r->lo[series] = s->q25;
  r->hi[series] = s->q75;
}

/* How many of the cells that have a number have one below 0. */
static void below_zero(pf_page *g, const char *experiment, const char *field, const char *query) {
  size_t n = 0, below = 0;
  double *x = g->rc == PF_OK ? pf_records_table(&g->r, experiment, query, field, &g->rc) : NULL;
  for (size_t c = 0; x && c < g->n; c++) {
    n += !isnan(x[c]);
    below += x[c] < 0;
  }
  pf_buf_printf(g->b, "<td>%zu/%zu</td>", below, n);
  pf_free(x);
}

void pf_page_fields_row(pf_page *g, const char *name, const char *experiment, const char *query,
                        const char *const *fields, size_t n, pf_figure *f) {
  pf_svg_row *r = NULL;
  for (size_t k = 0; k < n; k++) {
    if (fields[k][0] == '<') {
      below_zero(g, experiment, fields[k] + 1, query);
      continue;
    }
    pf_stats s = pf_page_stats(g, experiment, fields[k], query);
    if (k == 0 && s.n == 0)
      return;
    if (k == 0) {
      char label[2 * PF_QUERY];
      snprintf(label, sizeof label, s.n < g->n ? "%s (%zu of %zu cells)" : "%s", name, s.n, g->n);
      pf_page_label(g, label);
      r = f ? pf_figure_row(f, name) : NULL;
    }
    pf_page_spread(g, &s);
    if (r && k < 2)
      pf_figure_value(r, (int)k, &s);
  }
  pf_buf_puts(g->b, "</tr>\n");
}

void pf_page_asked(pf_page *g, const char *experiment, const pf_asked *rows, size_t n_rows,
                   const char *const *fields, size_t n_fields, pf_figure *f) {
  for (size_t i = 0; i < n_rows && g->rc == PF_OK; i++)
    pf_page_fields_row(g, rows[i].what, experiment, rows[i].query, fields, n_fields, f);
}

void pf_figure_put(pf_buf *b, const pf_figure *f, const char *title, const char *const *series,
                   size_t n_series, double xmin, const char *caption) {
  if (!f->n)
    return;
  pf_buf_puts(b, "<figure>");
  pf_svg_rows(b, title, f->row, f->n, series, n_series, xmin, 1);
  pf_buf_printf(b, "<figcaption>%s</figcaption></figure>\n", caption);
}
