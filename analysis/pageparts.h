/* SPDX-License-Identifier: Apache-2.0
 * The figures and tables of a page as files of their own. */
#ifndef PF_ANALYSIS_PAGEPARTS_H
#define PF_ANALYSIS_PAGEPARTS_H

/* Writes every figure of a page of ours as DIR/figures/NN-HEADING.svg (and .png where librsvg is
 * built in) and every table as DIR/tables/NN-HEADING.csv, NN counting from 01, HEADING the page's
 * heading above it. Those of an earlier page, which it has listed in a file .parts, are removed;
 * nothing else in these folders is. */
int pf_page_parts(const char *dir, const char *html);

#endif
