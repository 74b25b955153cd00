/* SPDX-License-Identifier: Apache-2.0
 * The parts of a study's page about where persona flows, D1 to D5; nothing where there are no
 * records. */
#ifndef PF_ANALYSIS_FLOWPAGE_H
#define PF_ANALYSIS_FLOWPAGE_H

#include "analysis/pagework.h"

void pf_page_routes(pf_page *g);
void pf_page_transplants(pf_page *g);
void pf_page_flow_maps(pf_page *g);
void pf_page_words(pf_page *g);
void pf_page_mass_and_delta(pf_page *g);

#endif
