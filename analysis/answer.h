/* SPDX-License-Identifier: Apache-2.0
 * The answer of a study's page. */
#ifndef PF_ANALYSIS_ANSWER_H
#define PF_ANALYSIS_ANSWER_H

#include "base/buf.h"

/* Additive, replaceable, which way: a sentence each with the numbers of the records in the folder.
 * Nothing where no experiment asks one of them. */
int pf_page_answer(const char *dir, pf_buf *b);

#endif
