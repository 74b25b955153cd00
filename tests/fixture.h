/* SPDX-License-Identifier: Apache-2.0
 * Reads the reference fixtures of tests/fixtures (their README has the formats) and finds the
 * models they are of. */
#ifndef PF_TESTS_FIXTURE_H
#define PF_TESTS_FIXTURE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* A safetensors file with F32, BF16, F64 and I64 tensors, whole in memory. */
typedef struct fixture_file {
  char name[64]; /* the file's name without its suffix: the model's name */
  pf_buf file;
  json_t *header;
  const char *data;
} fixture_file;

/* Path of a file of the source tree (the folder of configure is $srcdir when tests run, else ".").
 * The text is overwritten by the next call but three. */
const char *src_path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A JSON file of the source tree; a test that cannot read it stops. */
json_t *fixture_json(const char *path);

/* A file of data/paper-results, by its name without the suffix. */
json_t *fixture_published(const char *name);

/* The directory of a model by name: tests/mini or data/models; NULL if there is none. */
const char *fixture_model_dir(const char *name);

/* Stops the test if a file of the model is not the one that the fixture was made from. sha256: an
 * object of file names and hex digests. */
void fixture_check_model(const char *dir, const json_t *sha256);

/* A member of a record; a test stops when it is not there. */
const char *fixture_text(const json_t *o, const char *key);
double fixture_number(const json_t *o, const char *key);
/* The values of n members, texts or whole numbers, with '/' between them. */
void fixture_key(const json_t *o, const char *const *keys, size_t n, char out[512]);
/* The records of DIR/FILE, JSON lines: an array; by fixture_key, where two of one key stop the
 * test. */
json_t *fixture_rows(const char *dir, const char *file);
json_t *fixture_lines(const char *dir, const char *file, const char *const *keys, size_t n);
/* The one of them that has the key of `want`, which is left in `key`; a test stops without it. */
const json_t *fixture_find(const json_t *by_key, const json_t *want, const char *const *keys,
                           size_t n, char key[512]);

/* Names (without suffix) of the files `suffix` in a folder of the source tree, sorted; at most max.
 */
size_t fixture_list(const char *folder, const char *suffix, char (*names)[64], size_t max);

/* These stop the test with a line when the fixture is not what it should be. */
void fixture_open(fixture_file *f, const char *folder, const char *name);
/* fixture_check_model with what the fixture says of itself. */
void fixture_check_about(const fixture_file *f, const char *dir);
void fixture_close(fixture_file *f);
/* Number of elements in *n (may be NULL). */
const float *fixture_f32(const fixture_file *f, size_t *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
const uint16_t *fixture_bf16(const fixture_file *f, size_t *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
const double *fixture_f64(const fixture_file *f, size_t *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
const int64_t *fixture_i64(const fixture_file *f, size_t *n, const char *name);

#endif
