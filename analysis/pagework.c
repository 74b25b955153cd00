/* SPDX-License-Identifier: Apache-2.0
 * Statistics of a study's records, and table cells. */
#include "analysis/pagework.h"

#include <math.h>

#include "analysis/svg.h"
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
    pf_buf_printf(g->b, fabs(x) >= 100 ? "%.0f" : fabs(x) >= 10 ? "%.1f" : "%.3f", x);
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

void pf_page_fields_row(pf_page *g, const char *name, const char *experiment, const char *query,
                        const char *const *fields, size_t n) {
  for (size_t k = 0; k < n; k++) {
    pf_stats s = pf_page_stats(g, experiment, fields[k], query);
    if (k == 0 && s.n == 0)
      return;
    if (k == 0)
      pf_page_label(g, name);
    pf_page_spread(g, &s);
  }
  pf_buf_puts(g->b, "</tr>\n");
}
