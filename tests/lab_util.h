/* SPDX-License-Identifier: Apache-2.0
 * A cell of a demo model, or of random weights in its shape, for the tests of tracks, trials and
 * experiments. */
#ifndef PF_TESTS_LAB_UTIL_H
#define PF_TESTS_LAB_UTIL_H

#include "analysis/lab.h"
#include "base/rng.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

enum { LU_DEMOS = 2, LU_MODELS = 2 * LU_DEMOS, LU_MAX_TENSORS = 256, LU_MAX_Y = 64 };

/* A long persona, and a y of any tokens: nothing tested depends on what the model would say. */
typedef struct lu_cell {
  pf_plan plan;
  size_t cell;
  int32_t y[LU_MAX_Y];
} lu_cell;

/* How many models a tier tests, the demo models first: the small one the first alone. */
static inline int lu_models(void) {
  return tu_tier("small") ? 1 : LU_MODELS;
}

/* Any weights from -.1 to .1; norms multiply by about one. */
static inline float *lu_random(const pf_tensor_info *t, uint64_t stream, int gemma) {
  size_t n = (size_t)t->rows * (size_t)(t->cols ? t->cols : 1);
  float *x = malloc(n * sizeof *x), one = strstr(t->name, "norm") && !gemma ? 1 : 0;
  for (size_t i = 0; i < n; i++)
    x[i] = one + (float)(0.2 * pf_uniform(26, stream, i) - 0.1);
  return x;
}

/* dir/model.safetensors with random weights in the shapes of the demo's. */
static inline void lu_write_weights(const char *dir, const char *demo, int gemma) {
  pf_model *m;
  pf_tensor t[LU_MAX_TENSORS] = {0};
  char path[1024];
  size_t n;
  ck_assert(pf_model_open(&m, demo, &(pf_model_opts){.threads = 1}) == PF_OK);
  const pf_tensor_info *info = pf_model_tensors(m, &n);
  ck_assert(n > 0 && n <= LU_MAX_TENSORS);
  for (size_t i = 0; i < n; i++) {
    t[i] = (pf_tensor){.name = (char *)info[i].name,
                       .n_dims = info[i].cols ? 2 : 1,
                       .dims = {(size_t)info[i].rows, (size_t)info[i].cols},
                       .data = lu_random(&info[i], i, gemma)};
  }
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  ck_assert_msg(pf_safetensors_write(path, t, n, NULL) == PF_OK, "%s", pf_last_error());
  for (size_t i = 0; i < n; i++)
    free(t[i].data);
  pf_model_close(m);
}

/* The demo's folder with other weights. */
static inline void lu_randomise(char dir[256], const char *demo, int gemma) {
  static const char *const files[] = {"config.json", "generation_config.json", "tokenizer.json",
                                      "tokenizer_config.json"};
  tmp_make(dir);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", demo, files[i]);
    tmp_copy(dir, files[i], path);
  }
  lu_write_weights(dir, demo, gemma);
}

static inline void lu_open(lu_cell *c, int i) {
  static const char *const models[LU_DEMOS] = {"demo-gemma2", "demo-qwen2"};
  char demo[1024], dir[256];
  tu_use_source_data();
  snprintf(demo, sizeof demo, "%s/data/models/%s", tu_srcdir(), models[i % LU_DEMOS]);
  bool any = i >= LU_DEMOS;
  if (any)
    lu_randomise(dir, demo, i % LU_DEMOS == 0);
  pf_study_opts o = {.model = any ? dir : demo, .grid = "demo", .threads = 1};
  ck_assert_msg(pf_plan_make(&c->plan, &o) == PF_OK, "%s", pf_last_error());
  if (any)
    tmp_remove(dir);
  c->cell = 4 * c->plan.grid.n_tasks + 1;
  for (int k = 0; k < LU_MAX_Y; k++)
    c->y[k] = c->plan.xy[c->cell].enc.ids[8 + k % 8];
}

/* A lab on one thread that is at the cell with n tokens of y. */
static inline pf_lab *lu_lab(const lu_cell *c, size_t n, pf_lab_opts o) {
  pf_lab *l;
  o.threads = 1;
  ck_assert_msg(pf_lab_new(&l, &c->plan, &o) == PF_OK, "%s", pf_last_error());
  ck_assert(pf_lab_cell(l, c->cell, c->y, n) == PF_OK);
  return l;
}

#endif
