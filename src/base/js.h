/* SPDX-License-Identifier: Apache-2.0
 * JSON files with one clear line when they are wrong; parsing is jansson's. */
#ifndef PF_BASE_JS_H
#define PF_BASE_JS_H

#include <jansson.h>
#include <stddef.h>

/* Parses a file of at most `limit` bytes; *out is a new reference. Duplicate keys are refused. */
int pf_js_file(const char *path, size_t limit, json_t **out);
/* Parses text; `name` stands in the error line. */
int pf_js_text(const char *name, const char *text, size_t n, json_t **out);
/* A file of at most `limit` bytes with a value in each line; *out is a new array. */
int pf_js_lines(const char *path, size_t limit, json_t **out);
/* A member that is a text; "" where there is none. */
const char *pf_js_str(const json_t *o, const char *key);
/* A member that is a number; NaN where there is none. */
double pf_js_real(const json_t *o, const char *key);

#endif
