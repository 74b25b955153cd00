/* SPDX-License-Identifier: Apache-2.0
 * The part of a study's page that shows the experiments of the full protocol. */
#ifndef PF_ANALYSIS_FULLPAGE_H
#define PF_ANALYSIS_FULLPAGE_H

#include "base/buf.h"

/* Appends it for the records that the folder holds; nothing where there are none. */
int pf_full_page(const char *dir, pf_buf *b);

#endif
