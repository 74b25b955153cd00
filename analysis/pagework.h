/* SPDX-License-Identifier: Apache-2.0
 * What the parts of a study's page are made with: statistics of a study's records, table cells. */
#ifndef PF_ANALYSIS_PAGEWORK_H
#define PF_ANALYSIS_PAGEWORK_H

#include "analysis/records.h"
#include "analysis/svg.h"
#include "base/buf.h"

enum { PF_QUERY = 256 }; /* bytes of a query for records */

/* A page being made. After a failure (rc) the functions add nothing of use and may all be called.
 */
typedef struct pf_page {
  pf_records r;
  pf_buf *b;
  size_t n; /* cells */
  int n_layers, n_heads;
  int rc;
} pf_page;

/* Over cells, of a field of an experiment's records that a query asks for. */
pf_stats pf_page_stats(pf_page *g, const char *experiment, const char *field, const char *query);
/* Their median with its 95 % interval over personas and tasks. */
pf_interval pf_page_interval(pf_page *g, const char *experiment, const char *field,
                             const char *query);
bool pf_page_has(pf_page *g, const char *experiment);
/* With &, <, > as entities; NULL: nothing. */
void pf_page_text(pf_page *g, const char *s);
/* A row of a table begins with its label. */
void pf_page_label(pf_page *g, const char *s);
void pf_page_number(pf_page *g, double x);
/* A table's cell: "median [25 %, 75 %]". */
void pf_page_spread(pf_page *g, const pf_stats *s);
/* A table of numbers behind a summary, its first column's heading written; and its end. */
void pf_numbers_open(pf_buf *b, const char *summary, const char *first);
void pf_numbers_close(pf_buf *b);

/* Medians and quartiles along an axis. */
enum { PF_POINTS = 128 };
typedef struct pf_series {
  const char *name;
  double x[PF_POINTS], mid[PF_POINTS], lo[PF_POINTS], hi[PF_POINTS];
  size_t n;
} pf_series;

/* Nothing is added for statistics of nothing. */
void pf_series_add(pf_series *s, double x, const pf_stats *v);
/* Series in one panel, a key below (three a line), their numbers behind a summary. Nothing for
 * fewer than two places. */
void pf_page_chart(pf_page *g, const char *title, const char *x_name, const pf_series *s, size_t n,
                   double ymin, double ymax, bool log, const char *caption);

/* A figure of rows (pf_svg_rows) being filled. */
enum { PF_FIGURE_ROWS = 48 };
typedef struct pf_figure {
  pf_svg_row row[PF_FIGURE_ROWS];
  size_t n;
} pf_figure;

/* The next row, without values; the last one again when there are too many. */
pf_svg_row *pf_figure_row(pf_figure *f, const char *name);
/* Median and quartiles of a series of the row. */
void pf_figure_value(pf_svg_row *r, int series, const pf_stats *s);
/* A table's row of several fields of the records that the query asks for, of the first two in the
 * figure too (unless NULL); none where the first has no value, and the number of its cells where it
 * is not all of them. "<FIELD" (not the first): in how
 * many cells the field is below 0. */
void pf_page_fields_row(pf_page *g, const char *name, const char *experiment, const char *query,
                        const char *const *fields, size_t n, pf_figure *f);
/* Such rows, one for each that is asked for. */
typedef struct pf_asked {
  const char *what, *query;
} pf_asked;
#define PF_COUNT(a) (sizeof(a) / sizeof *(a))
void pf_page_asked(pf_page *g, const char *experiment, const pf_asked *rows, size_t n_rows,
                   const char *const *fields, size_t n_fields, pf_figure *f);
/* Over [xmin, 1]; caption: HTML. Nothing without rows. */
void pf_figure_put(pf_buf *b, const pf_figure *f, const char *title, const char *const *series,
                   size_t n_series, double xmin, const char *caption);

#endif
