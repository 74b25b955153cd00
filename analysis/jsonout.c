/* SPDX-License-Identifier: Apache-2.0
 * JSON out: shortest numbers, members in order of insertion. */
#include "analysis/jsonout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/status.h"

void pf_format_double(double x, char *out, size_t size) {
  int fewest = 1, enough = 17; /* more digits are never farther from x */
  while (fewest < enough) {
    int digits = (fewest + enough) / 2;
    snprintf(out, size, "%.*g", digits, x);
    if (strtod(out, NULL) == x)
      enough = digits;
    else
      fewest = digits + 1;
  }
  snprintf(out, size, "%.*g", enough, x);
  for (char *c = out; *c; c++) /* a host program may have set a locale with a decimal comma */
    if (*c == ',')
      *c = '.';
}

json_t *pf_js_num(double x) {
  return isfinite(x) ? json_real(x) : json_null();
}

static void dump_string(const json_t *v, pf_buf *b) {
  const unsigned char *s = (const unsigned char *)json_string_value(v);
  size_t n = json_string_length(v);
  pf_buf_puts(b, "\"");
  for (size_t i = 0; i < n; i++) {
    if (s[i] == '"' || s[i] == '\\')
      pf_buf_printf(b, "\\%c", s[i]);
    else if (s[i] == '\n')
      pf_buf_puts(b, "\\n");
    else if (s[i] < 0x20 || s[i] == 0x7f)
      pf_buf_printf(b, "\\u%04x", s[i]);
    else
      pf_buf_add(b, s + i, 1);
  }
  pf_buf_puts(b, "\"");
}

static void newline(pf_buf *b, int indent, int depth) {
  if (indent)
    pf_buf_printf(b, "\n%*s", indent * depth, "");
}

static void dump(const json_t *v, int indent, int depth, pf_buf *b);

static void dump_array(const json_t *v, int indent, int depth, pf_buf *b) {
  bool flat = json_array_size(v) == 0 || !json_is_object(json_array_get(v, 0));
  pf_buf_puts(b, "[");
  for (size_t i = 0; i < json_array_size(v); i++) {
    pf_buf_puts(b, i ? (flat && indent ? ", " : ",") : "");
    if (!flat)
      newline(b, indent, depth + 1);
    dump(json_array_get(v, i), indent, depth + 1, b);
  }
  if (!flat)
    newline(b, indent, depth);
  pf_buf_puts(b, "]");
}

static void dump_object(const json_t *v, int indent, int depth, pf_buf *b) {
  pf_buf_puts(b, "{");
  const char *comma = "";
  for (void *it = json_object_iter((json_t *)v); it; it = json_object_iter_next((json_t *)v, it)) {
    pf_buf_puts(b, comma);
    newline(b, indent, depth + 1);
    json_t *key = json_string_nocheck(json_object_iter_key(it));
    if (!key)
      b->failed = true;
    else
      dump_string(key, b);
    json_decref(key);
    pf_buf_puts(b, indent ? ": " : ":");
    dump(json_object_iter_value(it), indent, depth + 1, b);
    comma = ",";
  }
  if (*comma)
    newline(b, indent, depth);
  pf_buf_puts(b, "}");
}

static void dump(const json_t *v, int indent, int depth, pf_buf *b) {
  char number[32];
  switch (v ? json_typeof(v) : JSON_NULL) {
  case JSON_OBJECT:
    dump_object(v, indent, depth, b);
    break;
  case JSON_ARRAY:
    dump_array(v, indent, depth, b);
    break;
  case JSON_STRING:
    dump_string(v, b);
    break;
  case JSON_INTEGER:
    pf_buf_printf(b, "%lld", (long long)json_integer_value(v));
    break;
  case JSON_REAL:
    pf_format_double(json_real_value(v), number, sizeof number);
    pf_buf_puts(b, number);
    break;
  case JSON_TRUE:
    pf_buf_puts(b, "true");
    break;
  case JSON_FALSE:
    pf_buf_puts(b, "false");
    break;
  default:
    pf_buf_puts(b, "null");
  }
}

void pf_js_dump(const json_t *v, int indent, pf_buf *b) {
  dump(v, indent, 0, b);
}

int pf_js_write(const char *dir, const char *name, const json_t *v) {
  char path[4500];
  pf_buf b = {0};
  snprintf(path, sizeof path, "%s/%s", dir, name);
  pf_js_dump(v, 1, &b);
  pf_buf_puts(&b, "\n");
  int rc = v ? pf_buf_status(&b) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_write_file(path, b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

json_t *pf_js_ints(const int32_t *v, size_t n) {
  json_t *a = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(a, json_integer(v[i]));
  return a;
}

/* Of jansson's structures and of malloc: a value, a place in an array that has doubled, a member
 * with its bucket. */
enum { VALUE = 48, PLACE = 16, OBJECT = 256, MEMBER = 112 };

size_t pf_js_bytes(const json_t *v) {
  size_t bytes = VALUE, i;
  const char *key;
  json_t *x;
  if (json_is_string(v))
    bytes += json_string_length(v) + VALUE / 2;
  json_array_foreach(v, i, x) bytes += PLACE + pf_js_bytes(x);
  bytes += json_is_object(v) ? OBJECT : 0;
  json_object_foreach((json_t *)v, key, x) bytes += MEMBER + strlen(key) + pf_js_bytes(x);
  return bytes;
}
