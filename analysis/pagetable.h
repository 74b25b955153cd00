/* SPDX-License-Identifier: Apache-2.0
 * Tables of a page as CSV. */
#ifndef PF_ANALYSIS_PAGETABLE_H
#define PF_ANALYSIS_PAGETABLE_H

#include "base/buf.h"

/* The text of the elements in [s, end) without tags; what <br> parts is parted by a space, and a
 * <data value="..."> is its value. */
void pf_page_plain(const char *s, const char *end, pf_buf *out);
/* True where the element `tag` ("<td") opens at s. */
bool pf_page_opens(const char *s, const char *tag);

/* A table element of ours, [s, end), as CSV: a header, then rows of as many columns. A column whose
 * cells are numbers has one number a column: "a [b, c]" becomes X, "X lo" and "X hi", "k/n" beside
 * it or alone "X k" and "X n". PF_ENOMEM. */
int pf_page_csv(const char *s, const char *end, pf_buf *out);

#endif
