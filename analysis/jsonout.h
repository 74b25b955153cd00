/* SPDX-License-Identifier: Apache-2.0
 * JSON out: the shortest decimal numbers that read back to the same bits, object members in order
 * of insertion. */
#ifndef PF_ANALYSIS_JSONOUT_H
#define PF_ANALYSIS_JSONOUT_H

#include <jansson.h>
#include <stdint.h>

#include "base/buf.h"

/* Shortest decimal text of a finite double (16 to 24 bytes are enough; size >= 32). */
void pf_format_double(double x, char *out, size_t size);
/* As JSON: a number, or null when x is not finite. A new reference, NULL when out of memory. */
json_t *pf_js_num(double x);
/* indent 0: one line without spaces; else as many spaces a level. Appends to *b. */
void pf_js_dump(const json_t *v, int indent, pf_buf *b);
/* About what a value takes on the heap, bytes. */
size_t pf_js_bytes(const json_t *v);
/* DIR/NAME: the value over lines. v NULL: PF_ENOMEM. */
int pf_js_write(const char *dir, const char *name, const json_t *v);
/* A new array of n integers. */
json_t *pf_js_ints(const int32_t *v, size_t n);

#endif
