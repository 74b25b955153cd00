/* SPDX-License-Identifier: Apache-2.0
 * Prompts of a grid that have been run, for texts that begin with them. */
#ifndef PF_ANALYSIS_BASES_H
#define PF_ANALYSIS_BASES_H

#include "analysis/experiment.h"

/* A prompt, run once for all that begins with it. */
typedef struct pf_base {
  int persona, task; /* pf_who's */
  const pf_role_prompt *q;
  pf_role_prompt own; /* q, where it is none of the plan's */
  pf_seq *seq;        /* NULL: it has not been run */
  pf_tap tap;
  float *h; /* (d): what enters the layer at p_last */
} pf_base;

typedef struct pf_bases {
  pf_desk *d;
  int hook; /* whose input at `layer` is kept */
  int32_t layer;
  pf_base **v;
  size_t n, cap;
} pf_bases;

/* The base of a persona and a task, new if it is not there. */
int pf_bases_want(pf_bases *b, int persona, int task, pf_base **out);
/* NULL: it is not there. */
pf_base *pf_bases_find(const pf_bases *b, int persona, int task);
/* Runs those that have not been run. BB comes first, then what has one part of the grid's, then XY:
 * each continues the one before it (XY its XB) where their tokens part, and has p_last of its own.
 */
int pf_bases_run(pf_bases *b);
/* Frees those with a persona of the grid, or all. */
void pf_bases_drop(pf_bases *b, bool all);

/* Rows of a cell's prompts and of its bare task; what cells share counts for the first of them. */
uint64_t pf_bases_rows(const pf_desk *d, size_t cell);
/* Bytes of K,V that a prompt of its own takes, and that XY takes beside XB: the most in the grid.
 */
typedef struct pf_bases_bytes {
  uint64_t whole, xy;
} pf_bases_bytes;
pf_bases_bytes pf_bases_memory(const pf_desk *d);

#endif
