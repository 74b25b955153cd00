/* SPDX-License-Identifier: Apache-2.0
 * `study` against an implementation of the same protocol in PyTorch (tests/fixtures/study): y token
 * by token, KL of every cell, site and layer, and the geometry of every layer. */
#include "config.h"

#include <math.h>
#include <stdbool.h>

#include "base/js.h"
#include "fixture.h"
#include "personaflow/analysis.h"
#include "tests/suite.h"
#include "tmpdir.h"

#define FOLDER             "tests/fixtures/study"
#define KL_RELATIVE        1e-3 /* one of the two must hold */
#define KL_ABSOLUTE        1e-6
#define GEOMETRY_TOLERANCE 1e-4
/* A difference of residuals below this part of the residual is rounding noise, and its direction
 * too: what must agree then is that it is noise. */
#define NOISE 1e-5
enum { MAX_FIXTURES = 64, LIMIT = 256 << 20 };

static char names[MAX_FIXTURES][64];
static const char *const keys[] = {"persona", "task", "probe", "layer"};

/* ---- comparisons ---------------------------------------------------- */

typedef struct tally {
  size_t kl, geometry, noise, wrong;
  double kl_abs, kl_rel, geometry_abs; /* the largest differences */
} tally;

static void compare_kl(const json_t *got, const json_t *want, const char *key, tally *t) {
  ck_assert_msg(fixture_number(got, "n_scored") == fixture_number(want, "n_scored"), "%s: n_scored",
                key);
  if (fixture_number(want, "n_scored") == 0)
    return;
  double a = fixture_number(got, "kl"), b = fixture_number(want, "kl64"), d = fabs(a - b);
  bool good = d <= KL_ABSOLUTE || d <= KL_RELATIVE * b;
  t->kl++;
  t->kl_abs = fmax(t->kl_abs, d);
  if (b > KL_RELATIVE)
    t->kl_rel = fmax(t->kl_rel, d / b);
  if (!good && t->wrong++ < 10)
    printf("FAIL %s: KL %.9g, PyTorch %.9g (its own error %.1e)\n", key, a, b,
           fixture_number(want, "spread"));
}

static bool is_noise(const json_t *r, const char *norm_h) {
  double least = fmin(fixture_number(r, "norm_xy"),
                      fmin(fixture_number(r, "norm_x"), fixture_number(r, "norm_y")));
  return least <= NOISE * fixture_number(r, norm_h);
}

static void compare_geometry(const json_t *got, const json_t *want, const char *key, tally *t) {
  static const char *const values[] = {"cos_xy_sum", "cos_x_y", "inter_over_xy"};
  bool noise = is_noise(want, "norm_h");
  ck_assert_msg(noise == is_noise(got, "norm_bb"), "%s: a difference at one side only", key);
  t->noise += noise;
  for (size_t i = 0; i < 3 && !noise; i++) {
    double a = fixture_number(got, values[i]), b = fixture_number(want, values[i]), d = fabs(a - b);
    t->geometry++;
    t->geometry_abs = fmax(t->geometry_abs, d);
    if (d > GEOMETRY_TOLERANCE && t->wrong++ < 10)
      printf("FAIL %s: %s %.9g, PyTorch %.9g (its own error %.1e)\n", key, values[i], a, b,
             fixture_number(want, "spread"));
  }
}

static void compare_records(const json_t *fixture, const json_t *results, tally *t) {
  char key[512];
  size_t i, with_kl = 0;
  json_t *want;
  const char *k;
  json_t *got;
  json_array_foreach(json_object_get(fixture, "geometry"), i, want) {
    const json_t *r = fixture_find(results, want, keys, 4, key);
    compare_geometry(r, want, key, t);
  }
  json_array_foreach(json_object_get(fixture, "cells"), i, want) {
    const json_t *r = fixture_find(results, want, keys, 4, key);
    compare_kl(r, want, key, t);
  }
  json_object_foreach((json_t *)results, k, got) {
    with_kl += json_is_number(json_object_get(got, "kl"));
  }
  ck_assert_msg(with_kl == t->kl, "%zu records with a KL, PyTorch has %zu", with_kl, t->kl);
}

/* y and the length of the XY prompt of every cell. */
static void compare_prompts(const json_t *fixture, const json_t *generated) {
  const char *cell;
  json_t *ids;
  char key[512];
  json_object_foreach(json_object_get(fixture, "y"), cell, ids) {
    const char *split = strstr(cell, "__");
    snprintf(key, sizeof key, "%.*s/%s", (int)(split - cell), cell, split + 2);
    const json_t *g = json_object_get(generated, key);
    ck_assert_msg(g != NULL, "no continuation of %s", key);
    ck_assert_msg(json_equal(json_object_get(json_object_get(g, "y"), "ids"), ids),
                  "%s: another continuation than PyTorch's", key);
    const json_t *prompt = json_object_get(g, "prompt"), *xy = json_object_get(prompt, "XY");
    prompt = xy ? xy : prompt;
    ck_assert_int_eq((int)fixture_number(prompt, "tokens"),
                     (int)fixture_number(json_object_get(fixture, "prompt_len"), cell));
    ck_assert_int_eq((int)fixture_number(prompt, "p_user_last"),
                     (int)fixture_number(json_object_get(fixture, "p_user_last"), cell));
  }
}

START_TEST(study_equals_pytorch) {
  char dir[256], out[300];
  json_t *fixture, *results, *generated;
  tally t = {0};
  tmp_make(dir);
  snprintf(out, sizeof out, "%s/study", dir);
  ck_assert_msg(pf_js_file(src_path(FOLDER "/%s.json", names[_i]), LIMIT, &fixture) == PF_OK, "%s",
                pf_last_error());
  const char *model = fixture_model_dir(fixture_text(fixture, "model"));
  ck_assert_msg(model != NULL, "the model %s of a fixture is missing",
                fixture_text(fixture, "model"));
  fixture_check_model(model, json_object_get(fixture, "model_sha256"));
  pf_study_opts o = {.model = model, .protocol = "paper", .only = "additive", .out_dir = out};
  o.grid = src_path("data/grids/%s.json", fixture_text(fixture, "grid"));
  ck_assert_msg(pf_study_run(&o) == PF_OK, "%s", pf_last_error());
  results = fixture_lines(out, "results.jsonl", keys, 4);
  generated = fixture_lines(out, "generated.jsonl", keys, 2);
  compare_prompts(fixture, generated);
  compare_records(fixture, results, &t);
  printf("%s: %zu KL values, off by at most %.1e (%.1e of those above %g); %zu values of geometry, "
         "at most %.1e; %zu sites where a difference is rounding noise\n",
         names[_i], t.kl, t.kl_abs, t.kl_rel, KL_RELATIVE, t.geometry, t.geometry_abs, t.noise);
  json_decref(fixture);
  json_decref(results);
  json_decref(generated);
  tmp_remove(dir);
  ck_assert_msg(t.wrong == 0, "%s: %zu values differ", names[_i], t.wrong);
}
END_TEST

enum { N_DEMOS = 2 };

int main(void) {
  size_t n = fixture_list(FOLDER, ".json", names, MAX_FIXTURES);
  if (n < N_DEMOS)
    printf("%zu fixtures in %s, %d are shipped\n", n, src_path(FOLDER), N_DEMOS);
  Suite *s = suite_create("studyref");
  TCase *t = tcase_create("pytorch");
  tcase_set_timeout(t, 0);
  tcase_add_loop_test(t, study_equals_pytorch, 0, (int)n);
  suite_add_tcase(s, t);
  int failed = tu_suite_run(s, CK_NOFORK);
  return failed != 0 || n < N_DEMOS;
}
