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
  if (!*out && !e.text[0]) /* jansson found no fault, and had no memory */
    return PF_ENOMEM;
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

static int add_line(const char *path, const pf_lines *l, json_t *list) {
  json_t *line;
  int rc = pf_js_text(path, l->s, l->n, &line);
  return rc == PF_OK && json_array_append_new(list, line) != 0 ? PF_ENOMEM : rc;
}

int pf_js_lines(const char *path, size_t limit, json_t **out) {
  pf_lines l = {0};
  bool more = true;
  *out = json_array();
  int rc = *out ? pf_lines_open(&l, path, limit) : PF_ENOMEM;
  while (rc == PF_OK && more) {
    rc = pf_lines_next(&l, &more);
    if (rc == PF_OK && more)
      rc = add_line(path, &l, *out);
  }
  pf_lines_close(&l);
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
