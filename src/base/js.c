/* SPDX-License-Identifier: Apache-2.0
 * JSON files with one clear line when they are wrong. */
#include "base/js.h"

#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/status.h"

int pf_js_text(const char *name, const char *text, size_t n, json_t **out) {
  json_error_t e;
  *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
  /* Tokenizer configurations say "no limit" as the integer 10^30: numbers of such a file are read
   * as reals. */
  if (!*out && json_error_code(&e) == json_error_numeric_overflow)
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
  if (!*out)
    return pf_fail(PF_EINPUT, "%s: invalid JSON: line %d, column %d: %s", name, e.line, e.column,
                   e.text);
  return PF_OK;
}

int pf_js_file(const char *path, size_t limit, json_t **out) {
  pf_buf b;
  *out = NULL;
  int rc = pf_read_file(path, limit, &b);
  if (rc == PF_OK)
    rc = pf_js_text(path, pf_buf_str(&b), b.n, out);
  pf_buf_free(&b);
  return rc;
}

static int parse_lines(const char *path, const pf_buf *b, json_t *list) {
  int rc = PF_OK;
  for (size_t at = 0; rc == PF_OK && at < b->n;) {
    const char *end = memchr(b->s + at, '\n', b->n - at);
    size_t n = end ? (size_t)(end - b->s) - at : b->n - at;
    json_t *line = NULL;
    rc = pf_js_text(path, b->s + at, n, &line);
    if (rc == PF_OK && json_array_append_new(list, line) != 0)
      rc = PF_ENOMEM;
    at += n + 1;
  }
  return rc;
}

int pf_js_lines(const char *path, size_t limit, json_t **out) {
  pf_buf b = {0};
  *out = json_array();
  int rc = *out ? pf_read_file(path, limit, &b) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = parse_lines(path, &b, *out);
  pf_buf_free(&b);
  if (rc != PF_OK) {
    json_decref(*out);
    *out = NULL;
  }
  return rc;
}

const char *pf_js_str(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return s ? s : "";
}

double pf_js_real(const json_t *o, const char *key) {
  const json_t *v = json_object_get(o, key);
  return json_is_number(v) ? json_number_value(v) : (double)NAN;
}
