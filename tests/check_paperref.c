/* SPDX-License-Identifier: Apache-2.0
 * The paper's markers and injections against an implementation in PyTorch (tests/fixtures/paper):
 * every text token by token up to the first token that rounding may decide, the marker hits of
 * equal texts, and KL10 of every injection. */
#include "config.h"

#include <math.h>
#include <stdbool.h>

#include "base/js.h"
#include "fixture.h"
#include "personaflow/analysis.h"
#include "tests/suite.h"
#include "tests/util.h"
#include "tmpdir.h"

#define FOLDER      "tests/fixtures/paper"
#define KL_RELATIVE 1e-3 /* one of the two must hold */
#define KL_ABSOLUTE 1e-6
enum { MAX_FIXTURES = 16, N_DEMOS = 2, LIMIT = 64 << 20 };

static char names[MAX_FIXTURES][64];
static const char *const text_keys[] = {"persona", "task", "condition"};
static const char *const kl_keys[] = {"persona", "task", "condition", "set"};

typedef struct tally {
  size_t texts, tokens, unsure, kl, wrong;
  double relative;
} tally;

/* How many tokens two texts share at their beginning. */
static size_t shared(const json_t *a, const json_t *b) {
  size_t n = 0;
  while (n < json_array_size(a) && n < json_array_size(b) &&
         json_equal(json_array_get(a, n), json_array_get(b, n)))
    n++;
  return n;
}

static void compare_text(const json_t *got, const json_t *want, const char *key, tally *t) {
  const json_t *a = json_object_get(got, "ids"), *b = json_object_get(want, "ids");
  size_t sure = (size_t)fixture_number(want, "sure");
  bool same = json_equal(a, b);
  t->texts++;
  t->tokens += json_array_size(b);
  t->unsure += sure < json_array_size(b);
  bool good = shared(a, b) >= sure &&
              (!same || (!strcmp(fixture_text(got, "text"), fixture_text(want, "text")) &&
                         fixture_number(got, "markers") == fixture_number(want, "markers")));
  if (!good && t->wrong++ < 10)
    printf("FAIL %s: %zu tokens alike of %zu, of which %zu are sure\n  %s\n  %s\n", key,
           shared(a, b), json_array_size(b), sure, fixture_text(got, "text"),
           fixture_text(want, "text"));
}

static void compare_kl(const json_t *got, const json_t *want, const char *key, tally *t) {
  double a = fixture_number(got, "kl10"), b = fixture_number(want, "kl10"), d = fabs(a - b);
  ck_assert_msg(json_equal(json_object_get(got, "layers"), json_object_get(want, "layers")),
                "%s: other layers", key);
  t->kl++;
  t->relative = fmax(t->relative, d / fmax(b, KL_ABSOLUTE));
  if (d > KL_ABSOLUTE && d > KL_RELATIVE * b && t->wrong++ < 10)
    printf("FAIL %s: KL10 %.9g, PyTorch %.9g\n", key, a, b);
}

static void compare_injections(const json_t *fixture, const char *out, tally *t) {
  static const char *const files[] = {"injection", "layer_sets"};
  for (int f = 0; f < 2; f++) {
    char name[64], key[512];
    size_t i, n = t->kl;
    json_t *want;
    snprintf(name, sizeof name, "%s.jsonl", files[f]);
    json_t *got = fixture_lines(out, name, kl_keys, 4);
    json_array_foreach(json_object_get(fixture, "injections"), i, want) {
      if (strcmp(fixture_text(want, "experiment"), files[f]))
        continue;
      compare_kl(fixture_find(got, want, kl_keys, 4, key), want, key, t);
    }
    ck_assert_msg(t->kl > n, "no record of %s in the fixture", files[f]);
    json_decref(got);
  }
}

static void compare_texts(const json_t *fixture, const char *out, tally *t) {
  char key[512];
  size_t i;
  json_t *want, *got = fixture_lines(out, "markers.jsonl", text_keys, 3);
  json_array_foreach(json_object_get(fixture, "texts"), i, want) {
    compare_text(fixture_find(got, want, text_keys, 3, key), want, key, t);
  }
  ck_assert_uint_eq(json_object_size(got), t->texts);
  json_decref(got);
}

START_TEST(paper_equals_pytorch) {
  char dir[256], out[300];
  json_t *fixture;
  tally t = {0};
  bool small = tu_tier("small"); /* texts take the longest */
  tmp_make(dir);
  snprintf(out, sizeof out, "%s/study", dir);
  ck_assert_msg(pf_js_file(src_path(FOLDER "/%s.json", names[_i]), LIMIT, &fixture) == PF_OK, "%s",
                pf_last_error());
  const char *model = fixture_model_dir(fixture_text(fixture, "model"));
  ck_assert_msg(model != NULL, "the model of fixture %s is missing", names[_i]);
  fixture_check_model(model, json_object_get(fixture, "model_sha256"));
  pf_study_opts o = {.model = model,
                     .protocol = "paper",
                     .only = small ? "y,injection,layer_sets" : "y,markers,injection,layer_sets",
                     .out_dir = out,
                     .grid = src_path("data/grids/%s.json", fixture_text(fixture, "grid"))};
  ck_assert_msg(pf_study_run(&o) == PF_OK, "%s", pf_last_error());
  if (!small)
    compare_texts(fixture, out, &t);
  compare_injections(fixture, out, &t);
  printf("%s: %zu texts of %zu tokens (%zu texts with a margin that rounding may decide); %zu "
         "injections, KL10 off by at most %.1e of it\n",
         names[_i], t.texts, t.tokens, t.unsure, t.kl, t.relative);
  json_decref(fixture);
  tmp_remove(dir);
  ck_assert_msg(t.wrong == 0, "%s: %zu values differ", names[_i], t.wrong);
}
END_TEST

int main(void) {
  size_t n = fixture_list(FOLDER, ".json", names, MAX_FIXTURES);
  if (n < N_DEMOS)
    printf("%zu fixtures in %s, %d are shipped\n", n, src_path(FOLDER), N_DEMOS);
  Suite *s = suite_create("paperref");
  TCase *t = tcase_create("pytorch");
  tcase_set_timeout(t, 0);
  tcase_add_loop_test(t, paper_equals_pytorch, 0, tu_tier("small") && n ? 1 : (int)n);
  suite_add_tcase(s, t);
  int failed = tu_suite_run(s, CK_NOFORK);
  return failed != 0 || n < N_DEMOS;
}
