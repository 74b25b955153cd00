/* SPDX-License-Identifier: Apache-2.0
 * Small charts as inline SVG. Colours are CSS classes of the page (c0 .. c5), so that light and
 * dark share one figure. */
#ifndef PF_ANALYSIS_SVG_H
#define PF_ANALYSIS_SVG_H

#include "base/buf.h"

/* A page of ours up to its heading: title, style, the body begun (style.c). */
void pf_page_open(pf_buf *b, const char *title);
/* The style of a figure that stands alone, and its background. */
extern const char pf_figure_style[];

/* A panel at (x, y) of w x h units that shows [xmin, xmax] x [ymin, ymax]; y is logarithmic if
 * `log`, x if `log_x`. */
typedef struct pf_axes {
  double x, y, w, h, xmin, xmax, ymin, ymax;
  bool log, log_x;
} pf_axes;

/* Text with &, <, >, " and ' as entities. */
void pf_html_text(pf_buf *b, const char *s);

void pf_svg_open(pf_buf *b, double width, double height, const char *label);
void pf_svg_close(pf_buf *b);
/* Frame, grid lines, tick labels (those of y only if `y_labels`) and a title. */
void pf_svg_axes(pf_buf *b, const pf_axes *a, const char *title, const char *x_name, bool y_labels);
/* Series of n points; points that are not numbers are left out. */
void pf_svg_band(pf_buf *b, const pf_axes *a, const double *x, const double *lo, const double *hi,
                 size_t n, int colour);
void pf_svg_line(pf_buf *b, const pf_axes *a, const double *x, const double *y, size_t n,
                 int colour, bool dots);
/* A horizontal dashed line with a label at its right end. */
void pf_svg_rule(pf_buf *b, const pf_axes *a, double y, const char *label);
/* A dot with a text at its right, and what it says when pointed at. */
void pf_svg_mark(pf_buf *b, const pf_axes *a, double x, double y, int colour, const char *label,
                 const char *title);
/* A short line in a series' colour at (x, y), and its name. */
void pf_svg_key(pf_buf *b, double x, double y, int colour, const char *label);
/* A value of up to two series in a row of a chart, with the ends of a line through it; not numbers:
 * nothing is drawn. */
typedef struct pf_svg_row {
  char name[64];
  double mid[2], lo[2], hi[2];
} pf_svg_row;
/* A figure of n rows over [xmin, xmax], their names at the left, a key below; what lies outside is
 * drawn at the edge. */
void pf_svg_rows(pf_buf *b, const char *title, const pf_svg_row *rows, size_t n,
                 const char *const *series, size_t n_series, double xmin, double xmax);
/* A map of n_rows x n_cols values from 0 to the largest (row-major), columns numbered from 0; what
 * is not a number stays empty. */
typedef struct pf_svg_map {
  const char *title, *col_name;
  const char *const *row_names; /* (n_rows) */
  size_t n_rows, n_cols;
  const double *v;
} pf_svg_map;
/* The map as a figure, its scale below: a place's colour is that of the root of its share of the
 * largest, so that small values are told apart. */
void pf_svg_heat(pf_buf *b, const pf_svg_map *m);
/* Colour of an effect v >= 0 where the largest is `most`: pf_svg_scale of the root of its share. */
void pf_svg_effect(double v, double most, char out[8], bool *dark);
/* Colour of t in [0,1] on a sequential scale that keeps its order for the colour-blind, as
 * "#rrggbb"; *dark says that white text is read on it. */
void pf_svg_scale(double t, char out[8], bool *dark);

#endif
