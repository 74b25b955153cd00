/* SPDX-License-Identifier: Apache-2.0
 * Reader of the reference fixtures. It trusts them: they are files of the source tree. */
#include "fixture.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/js.h"
#include "base/sha256.h"
#include "personaflow/types.h"
#include "tests/suite.h"
#include "tests/util.h"

enum { PATHS = 4, PATH_SIZE = 1024, FILE_LIMIT = 64 << 20 };

const char *src_path(const char *fmt, ...) {
  static char paths[PATHS][PATH_SIZE];
  static int next;
  char *p = paths[next++ % PATHS];
  int k = snprintf(p, PATH_SIZE, "%s/", tu_srcdir());
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(p + k, PATH_SIZE - (size_t)k, fmt, ap);
  va_end(ap);
  return p;
}

json_t *fixture_json(const char *path) {
  json_t *root;
  ck_assert_msg(pf_js_file(src_path("%s", path), FILE_LIMIT, &root) == PF_OK, "%s",
                pf_last_error());
  return root;
}

json_t *fixture_published(const char *name) {
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "data/paper-results/%s.json", name);
  return fixture_json(path);
}

const char *fixture_model_dir(const char *name) {
  static const char *const folders[] = {"tests/mini", "data/models"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    const char *config = src_path("%s/%s/config.json", folders[i], name);
    struct stat st;
    if (stat(config, &st) == 0)
      return src_path("%s/%s", folders[i], name);
  }
  return NULL;
}

static int by_name(const void *a, const void *b) {
  return strcmp(a, b);
}

size_t fixture_list(const char *folder, const char *suffix, char (*names)[64], size_t max) {
  size_t n = 0, ls = strlen(suffix);
  DIR *d = opendir(src_path("%s", folder));
  for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
    size_t l = strlen(e->d_name);
    if (l <= ls || l - ls >= 64 || n == max || strcmp(e->d_name + l - ls, suffix) != 0)
      continue;
    snprintf(names[n++], 64, "%.*s", (int)(l - ls), e->d_name);
  }
  if (d)
    closedir(d);
  qsort(names, n, sizeof *names, by_name);
  return n;
}

void fixture_open(fixture_file *f, const char *folder, const char *name) {
  memset(f, 0, sizeof *f);
  snprintf(f->name, sizeof f->name, "%s", name);
  const char *path = src_path("%s/%s.safetensors", folder, name);
  ck_assert_msg(pf_read_file(path, FILE_LIMIT, &f->file) == PF_OK, "%s", pf_last_error());
  uint64_t n;
  memcpy(&n, f->file.s, 8);
  ck_assert_uint_lt(n, f->file.n - 8);
  ck_assert_msg(pf_js_text(path, f->file.s + 8, n, &f->header) == PF_OK, "%s", pf_last_error());
  f->data = f->file.s + 8 + n;
}

void fixture_close(fixture_file *f) {
  json_decref(f->header);
  pf_buf_free(&f->file);
}

void fixture_check_model(const char *dir, const json_t *sha256) {
  const char *name;
  json_t *want;
  ck_assert_uint_gt(json_object_size(sha256), 0);
  json_object_foreach((json_t *)sha256, name, want) {
    pf_buf b = {0};
    char path[PATH_SIZE], hex[65];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_msg(pf_read_file(path, FILE_LIMIT, &b) == PF_OK, "%s", pf_last_error());
    pf_sha256_hex(b.s, b.n, hex);
    ck_assert_msg(strcmp(hex, json_string_value(want)) == 0,
                  "%s is not the file that the fixture was made from: run tools/fixtures", path);
    pf_buf_free(&b);
  }
}

void fixture_check_about(const fixture_file *f, const char *dir) {
  json_t *meta = json_object_get(f->header, "__metadata__"), *about;
  const char *text = json_string_value(json_object_get(meta, "about"));
  ck_assert_ptr_nonnull(text);
  ck_assert_msg(pf_js_text(f->name, text, strlen(text), &about) == PF_OK, "%s", pf_last_error());
  fixture_check_model(dir, json_object_get(about, "sha256"));
  json_decref(about);
}

static const void *tensor(const fixture_file *f, size_t *n, const char *name, const char *dtype,
                          size_t size) {
  json_t *t = json_object_get(f->header, name), *o = json_object_get(t, "data_offsets");
  ck_assert_msg(t != NULL, "%s has no tensor %s", f->name, name);
  ck_assert_str_eq(json_string_value(json_object_get(t, "dtype")), dtype);
  size_t lo = (size_t)json_integer_value(json_array_get(o, 0));
  size_t hi = (size_t)json_integer_value(json_array_get(o, 1));
  ck_assert_uint_le(hi, f->file.n - (size_t)(f->data - f->file.s));
  if (n)
    *n = (hi - lo) / size;
  return f->data + lo;
}

#define NAME_FROM(fmt)                                                                             \
  char name[128];                                                                                  \
  va_list ap;                                                                                      \
  va_start(ap, fmt);                                                                               \
  vsnprintf(name, sizeof name, fmt, ap);                                                           \
  va_end(ap)

const float *fixture_f32(const fixture_file *f, size_t *n, const char *fmt, ...) {
  NAME_FROM(fmt);
  return tensor(f, n, name, "F32", sizeof(float));
}

const uint16_t *fixture_bf16(const fixture_file *f, size_t *n, const char *fmt, ...) {
  NAME_FROM(fmt);
  return tensor(f, n, name, "BF16", sizeof(uint16_t));
}

const double *fixture_f64(const fixture_file *f, size_t *n, const char *fmt, ...) {
  NAME_FROM(fmt);
  return tensor(f, n, name, "F64", sizeof(double));
}

const int64_t *fixture_i64(const fixture_file *f, size_t *n, const char *name) {
  return tensor(f, n, name, "I64", sizeof(int64_t));
}

const char *fixture_text(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  ck_assert_msg(s != NULL, "a record without the text %s", key);
  return s;
}

double fixture_number(const json_t *o, const char *key) {
  const json_t *v = json_object_get(o, key);
  ck_assert_msg(json_is_number(v), "a record without the number %s", key);
  return json_number_value(v);
}

void fixture_key(const json_t *o, const char *const *keys, size_t n, char out[512]) {
  size_t at = 0;
  for (size_t i = 0; i < n && at < 512; i++) {
    const json_t *v = json_object_get(o, keys[i]);
    const char *slash = i ? "/" : "", *s = json_string_value(v);
    ck_assert_msg(s || json_is_integer(v), "a record without %s", keys[i]);
    int k = s ? snprintf(out + at, 512 - at, "%s%s", slash, s)
              : snprintf(out + at, 512 - at, "%s%d", slash, (int)json_integer_value(v));
    at += (size_t)k;
  }
}

json_t *fixture_rows(const char *dir, const char *file) {
  char path[512];
  json_t *rows;
  snprintf(path, sizeof path, "%s/%s", dir, file);
  ck_assert_msg(pf_js_lines(path, FILE_LIMIT, &rows) == PF_OK, "%s", pf_last_error());
  return rows;
}

json_t *fixture_lines(const char *dir, const char *file, const char *const *keys, size_t n) {
  char key[512];
  json_t *by_key = json_object(), *rows = fixture_rows(dir, file), *row;
  size_t i;
  json_array_foreach(rows, i, row) {
    fixture_key(row, keys, n, key);
    ck_assert_msg(!json_object_get(by_key, key), "%s has %s twice", file, key);
    json_object_set(by_key, key, row);
  }
  json_decref(rows);
  return by_key;
}

const json_t *fixture_find(const json_t *by_key, const json_t *want, const char *const *keys,
                           size_t n, char key[512]) {
  fixture_key(want, keys, n, key);
  const json_t *got = json_object_get(by_key, key);
  ck_assert_msg(got != NULL, "no record %s", key);
  return got;
}
