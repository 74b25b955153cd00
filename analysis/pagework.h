/* SPDX-License-Identifier: Apache-2.0
 * What the parts of a study's page are made with: statistics of a study's records, table cells. */
#ifndef PF_ANALYSIS_PAGEWORK_H
#define PF_ANALYSIS_PAGEWORK_H

#include "analysis/records.h"
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
bool pf_page_has(pf_page *g, const char *experiment);
/* With &, <, > as entities; NULL: nothing. */
void pf_page_text(pf_page *g, const char *s);
/* A row of a table begins with its label. */
void pf_page_label(pf_page *g, const char *s);
void pf_page_number(pf_page *g, double x);
/* A table's cell: "median [25 %, 75 %]". */
void pf_page_spread(pf_page *g, const pf_stats *s);
/* A row of several fields of the records that the query asks for; none where the first has no
 * value. */
void pf_page_fields_row(pf_page *g, const char *name, const char *experiment, const char *query,
                        const char *const *fields, size_t n);

#endif
