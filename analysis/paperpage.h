/* SPDX-License-Identifier: Apache-2.0
 * A study of one of the paper's models beside the paper's own numbers. */
#ifndef PF_ANALYSIS_PAPERPAGE_H
#define PF_ANALYSIS_PAPERPAGE_H

#include "analysis/paper.h"
#include "base/buf.h"

/* Appends a table of every experiment and condition that study and paper have in common (medians,
 * cells that agree, verdict, the rule), and every cell beside the published value. Nothing in
 * common: nothing. dir: of the finished study. lists: the name of the marker lists that its texts
 * were scored on, NULL: the paper's; on others, their markers are not compared. */
int pf_paper_page(const char *dir, const char *model_key, const pf_replica *r, const char *lists,
                  pf_buf *b);

#endif
