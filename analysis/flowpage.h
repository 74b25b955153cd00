/* SPDX-License-Identifier: Apache-2.0
 * The parts of a study's page about heads and about the persona's words; nothing where there are no
 * records. */
#ifndef PF_ANALYSIS_FLOWPAGE_H
#define PF_ANALYSIS_FLOWPAGE_H

#include "analysis/pagework.h"

void pf_page_flow_maps(pf_page *g);
void pf_page_words(pf_page *g);

#endif
