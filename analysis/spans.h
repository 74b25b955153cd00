/* SPDX-License-Identifier: Apache-2.0
 * Filling role templates. */
#ifndef PF_ANALYSIS_SPANS_H
#define PF_ANALYSIS_SPANS_H

#include "personaflow/analysis.h"

/* Byte ranges of persona and task in a filled template. */
typedef struct pf_filled {
  char *text; /* pf_free */
  size_t persona_lo, persona_hi, task_lo, task_hi;
} pf_filled;

/* persona NULL: the bare task (an empty persona range before it). */
int pf_template_fill(const char *template_, const char *persona, const char *task, pf_filled *out);

#endif
