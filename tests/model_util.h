/* SPDX-License-Identifier: Apache-2.0
 * What the tests of the model floor share: opening a shipped model, running token lists, comparing
 * bits. */
#ifndef PF_TESTS_MODEL_UTIL_H
#define PF_TESTS_MODEL_UTIL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "personaflow/personaflow.h"
#include "tests/suite.h"
#include "tests/util.h"

static inline pf_model *tu_open_as(const char *sub, pf_precision precision) {
  char path[1024];
  pf_model *m;
  snprintf(path, sizeof path, "%s/%s", tu_srcdir(), sub);
  pf_model_opts o = {.no_checksum = 1, .threads = 1, .precision = precision};
  int st = pf_model_open(&m, path, &o);
  ck_assert_msg(st == PF_OK, "%s: %s", path, pf_last_error());
  return m;
}

static inline pf_model *tu_open(const char *sub) {
  return tu_open_as(sub, PF_PRECISION_AUTO);
}

static inline pf_ctx *tu_ctx(const pf_model *m, int threads) {
  pf_ctx *c;
  int st = pf_ctx_new(&c, m, &(pf_ctx_opts){.threads = threads, .keep_raw_k = 1});
  ck_assert_msg(st == PF_OK, "%s", pf_last_error());
  return c;
}

static inline pf_seq *tu_seq(pf_ctx *c) {
  pf_seq *s;
  ck_assert_int_eq(pf_seq_new(&s, c), PF_OK);
  return s;
}

/* Id of a hook point, for which a layer stands in the name. */
static inline int tu_hook(const pf_model *m, const char *name) {
  int id;
  int32_t layer;
  ck_assert_msg(pf_hook_find(m, name, &id, &layer) == PF_OK, "%s", pf_last_error());
  return id;
}

/* Token i of stream `key`, any id of the vocabulary. */
static inline int32_t tu_token(const pf_model *m, uint64_t key, int32_t i) {
  uint32_t w[4];
  pf_philox(key, 77, (uint64_t)i, w);
  return (int32_t)(w[0] % (uint32_t)pf_model_get_info(m)->vocab_size);
}

/* Runs tokens [lo, hi) of stream `key` at their own positions in one call; logits of the last into
 * x (may be NULL). */
static inline void tu_run(pf_ctx *c, pf_seq *s, const pf_model *m, uint64_t key, int32_t lo,
                          int32_t hi, float *x) {
  pf_row *rows = calloc((size_t)(hi - lo), sizeof *rows);
  for (int32_t p = lo; p < hi; p++)
    rows[p - lo] = (pf_row){
        .seq = s, .token = tu_token(m, key, p), .pos = p, .out = x && p + 1 == hi ? 0 : -1};
  int st = pf_eval(c, rows, (size_t)(hi - lo), x);
  ck_assert_msg(st == PF_OK, "%s", pf_last_error());
  free(rows);
}

static inline float *tu_logits(const pf_model *m) {
  return calloc((size_t)pf_model_get_info(m)->vocab_size, sizeof(float));
}

/* Fails with the first differing index and both values. */
static inline void tu_same(const pf_model *m, const float *a, const float *b, const char *what) {
  for (int32_t i = 0; i < pf_model_get_info(m)->vocab_size; i++)
    ck_assert_msg(memcmp(a + i, b + i, sizeof *a) == 0, "%s: logit %d: %a against %a", what, (int)i,
                  (double)a[i], (double)b[i]);
}

static inline int tu_differ(const pf_model *m, const float *a, const float *b) {
  return memcmp(a, b, (size_t)pf_model_get_info(m)->vocab_size * sizeof *a) != 0;
}

#endif
