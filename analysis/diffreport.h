/* SPDX-License-Identifier: Apache-2.0
 * A comparison's result (one JSON object) as text, JSON and JUnit XML. */
#ifndef PF_ANALYSIS_DIFFREPORT_H
#define PF_ANALYSIS_DIFFREPORT_H

#include <jansson.h>

#include "base/buf.h"
#include "personaflow/regression.h"

void pf_diff_write(const json_t *result, pf_format format, pf_buf *out);
/* The object behind a comparison; it stays the comparison's. */
const json_t *pf_diff_result(const pf_diff *d);

#endif
