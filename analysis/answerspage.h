/* SPDX-License-Identifier: Apache-2.0
 * The parts of a study's page about its answers; nothing where there are no records. */
#ifndef PF_ANALYSIS_ANSWERSPAGE_H
#define PF_ANALYSIS_ANSWERSPAGE_H

#include "analysis/pagework.h"

void pf_page_texts(pf_page *g);
void pf_page_injections(pf_page *g);

#endif
