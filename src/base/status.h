/* SPDX-License-Identifier: Apache-2.0
 * How library code reports a failure: `return pf_fail(PF_EINPUT, "%s: ...", path);` */
#ifndef PF_BASE_STATUS_H
#define PF_BASE_STATUS_H

#include "personaflow/types.h"

/* Keeps the line for pf_last_error() and returns status. One line: what: where: what to do. */
int pf_fail(int status, const char *fmt, ...) PF_PRINTF(2, 3);
/* Puts "prefix: " before the kept line; returns status. */
int pf_fail_prefix(int status, const char *fmt, ...) PF_PRINTF(2, 3);

#endif
