/* SPDX-License-Identifier: Apache-2.0
 * A cell of a demo model for the tests of tracks, trials and experiments. */
#ifndef PF_TESTS_LAB_UTIL_H
#define PF_TESTS_LAB_UTIL_H

#include <check.h>

#include "analysis/lab.h"
#include "tests/util.h"

enum { LU_MODELS = 2, LU_MAX_Y = 64 };

/* A long persona, and a y of any tokens: nothing tested depends on what the model would say. */
typedef struct lu_cell {
  pf_plan plan;
  size_t cell;
  int32_t y[LU_MAX_Y];
} lu_cell;

/* How many demo models a tier tests: the small one the first alone. */
static inline int lu_models(void) {
  return tu_tier("small") ? 1 : LU_MODELS;
}

static inline void lu_open(lu_cell *c, int i) {
  static const char *const models[LU_MODELS] = {"demo-gemma2", "demo-qwen2"};
  char model[1024];
  tu_use_source_data();
  snprintf(model, sizeof model, "%s/data/models/%s", tu_srcdir(), models[i]);
  pf_study_opts o = {.model = model, .grid = "demo", .threads = 1};
  ck_assert_msg(pf_plan_make(&c->plan, &o) == PF_OK, "%s", pf_last_error());
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
