/* SPDX-License-Identifier: Apache-2.0
 * For runs that are timed: a prompt in pieces, one token on every branch, the model's size. */
#ifndef PF_ANALYSIS_FEED_H
#define PF_ANALYSIS_FEED_H

#include "personaflow/model.h"

/* Token i of the prompt, or of branch i. */
typedef int32_t (*pf_feed_fn)(void *user, int32_t i);

/* n tokens behind what s has, at most `batch` in one call; logits (V) of the last one. */
int pf_feed_prompt(pf_ctx *c, pf_seq *s, int32_t n, int32_t batch, pf_feed_fn token, void *user,
                   float *logits);
/* One token on each of n branches; logits (n, V). rows: (n), scratch. */
int pf_feed_step(pf_ctx *c, pf_seq *const *s, int32_t n, pf_feed_fn token, void *user, pf_row *rows,
                 float *logits);

/* Values of the checkpoint: matrices, norms, and the biases of q, k and v that Qwen has. */
int64_t pf_parameters(const pf_model_info *i);

#endif
