/* SPDX-License-Identifier: Apache-2.0
 * What the shipped digests are of: logits of a fixed prompt of random tokens. */
#ifndef PF_ANALYSIS_VERIFY_H
#define PF_ANALYSIS_VERIFY_H

#include "personaflow/regression.h"

/* Two blocks of 32 positions and a piece; more than a chunk of 64. */
enum { PF_VERIFY_TOKENS = 70 };
void pf_verify_prompt(int32_t vocab_size, int32_t ids[PF_VERIFY_TOKENS]);

#endif
