/* SPDX-License-Identifier: Apache-2.0
 * Choosing a token from a row of logits. */
#ifndef PF_MODEL_SAMPLE_H
#define PF_MODEL_SAMPLE_H

#include "model/kv.h"

typedef struct pf_chosen {
  int32_t id;
  float logprob, margin;
} pf_chosen;

/* What a thread needs for it; pf_picker_free takes a zeroed one too. */
typedef struct pf_picker {
  size_t vocab;
  uint8_t *seen; /* (vocab) all 0 between calls; this and the next two for the penalty */
  int32_t *ids;  /* (n_seen) tokens under the penalty */
  float *raw;    /* (n_seen) their logits without it */
  size_t n_seen;
  uint64_t *key[2]; /* (vocab) candidates; this and the next for drawing */
  double *weight;   /* (vocab) */
} pf_picker;

/* penalty, draws: some branch has a repetition penalty, a temperature. */
int pf_picker_make(pf_picker *p, size_t vocab, bool penalty, bool draws);
void pf_picker_free(pf_picker *p);

/* Options that make no sense: PF_EUSAGE. */
int pf_gen_check(const pf_gen_opts *o, const pf_model_info *m);

/* The token after those that s holds, from its logits x (vocab), which are the same afterwards;
 * `step` counts the tokens generated before. Inside pf_fp_enter. The log-probability is that of the
 * untouched logits; the margin is between the two best processed scores. */
void pf_pick(pf_picker *p, const pf_seq *s, const pf_gen_opts *o, uint64_t step, float *x,
             pf_chosen *out);

#endif
