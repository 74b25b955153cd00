/* SPDX-License-Identifier: Apache-2.0
 * Whether a tensor of a file is the rows of a hook point that an intervention wants. */
#ifndef PF_ANALYSIS_SOURCEROWS_H
#define PF_ANALYSIS_SOURCEROWS_H

#include <stdbool.h>

#include "personaflow/analysis.h"

typedef struct pf_rows_want {
  const char *hook; /* as error lines say it */
  size_t heads;     /* those selected; 0: the point has none */
  size_t width;     /* values a head (or a row) has; 0: one a key */
  pf_span at;       /* positions; hi = INT32_MAX: without an end */
} pf_rows_want;

/* [position, head, width], heads joined or not, or without its first axis one row for all
 * positions; leading axes of 1 are a batch. Over keys every row has its own number of them, so each
 * position has a row, with as many keys as the last position has, and nothing (0 or -inf) beyond
 * its own. *one: there is one row. PF_EINPUT names what is wanted and what was found. */
int pf_rows_fit(const char *source, const pf_tensor *t, const pf_rows_want *w, bool *one);

#endif
