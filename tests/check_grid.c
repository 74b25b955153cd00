/* SPDX-License-Identifier: Apache-2.0
 * Grid files: the shipped ones, every way to be wrong, layer lists. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/grid.h"

static void use_source_data(void) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s/data", getenv("srcdir") ? getenv("srcdir") : ".");
  setenv("PERSONAFLOW_DATADIR", dir, 1);
}

START_TEST(shipped) {
  static const struct {
    const char *word, *name;
    size_t personas, tasks, probes;
  } want[] = {{"short", "paper-short", 4, 3, 4},
              {"long", "paper-long", 8, 6, 3},
              {"demo", "demo", 6, 4, 4},
              {"paper-long", "paper-long", 8, 6, 3}};
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    pf_grid g;
    ck_assert_msg(pf_grid_open(&g, want[i].word) == PF_OK, "%s", pf_last_error());
    ck_assert_str_eq(g.name, want[i].name);
    ck_assert_uint_eq(g.n_personas, want[i].personas);
    ck_assert_uint_eq(g.n_tasks, want[i].tasks);
    ck_assert_uint_eq(g.n_probes, want[i].probes);
    pf_grid_free(&g);
  }
}
END_TEST

#define HEAD "{\"schema\":\"personaflow-grid/1\",\"name\":\"t\","
#define TPL  "\"template\":\"As {persona}, {task}\","
#define BASE "\"baseline\":{\"persona\":\"x\",\"task\":\"y\"},"
#define P1   "\"personas\":[{\"key\":\"a\",\"text\":\"A\"}],"
#define T1   "\"tasks\":[{\"key\":\"b\",\"text\":\"B\"}]"

static const struct {
  const char *text, *says;
} wrong[] = {
    {"[]", "one JSON object"},
    {"{", "invalid JSON"},
    {"{\"name\":\"t\"," TPL BASE P1 T1 "}", "\"schema\" is missing"},
    {"{\"schema\":\"personaflow-grid/9\",\"name\":\"t\"," TPL BASE P1 T1 "}", "this version reads"},
    {HEAD BASE P1 T1 "}", "\"template\" is missing"},
    {HEAD "\"template\":3," BASE P1 T1 "}", "wrong type"},
    {HEAD TPL BASE P1 T1 ",\"persona\":1}", "unknown key \"persona\""},
    {HEAD TPL TPL BASE P1 T1 "}", "invalid JSON"},
    {HEAD "\"template\":\"As {person}, {task}\"," BASE P1 T1 "}", "unknown placeholder"},
    {HEAD "\"template\":\"As {persona}.\"," BASE P1 T1 "}", "wants {task} once"},
    {HEAD "\"template\":\"{persona} {task} {task}\"," BASE P1 T1 "}", "wants {task} once"},
    {HEAD "\"template\":\"{task} as {persona}\"," BASE P1 T1 "}", "before {task}"},
    {HEAD "\"template\":\" {persona} {task}\"," BASE P1 T1 "}", "white space"},
    {HEAD TPL "\"baseline\":{\"persona\":\"x\"}," P1 T1 "}", "baseline \"task\""},
    {HEAD TPL BASE "\"personas\":[]," T1 "}", "1 to"},
    {HEAD TPL BASE "\"personas\":[{\"text\":\"A\"}]," T1 "}", "\"key\" is missing"},
    {HEAD TPL BASE "\"personas\":[{\"key\":\"a\"}]," T1 "}", "missing or empty"},
    {HEAD TPL BASE "\"personas\":[{\"key\":\"a\",\"text\":\"A \"}]," T1 "}", "white space"},
    {HEAD TPL BASE "\"personas\":[{\"key\":\"a__b\",\"text\":\"A\"}]," T1 "}", "single _"},
    {HEAD TPL BASE "\"personas\":[{\"key\":\"../x\",\"text\":\"A\"}]," T1 "}", "letters, digits"},
    {HEAD TPL BASE
     "\"personas\":[{\"key\":\"a\",\"text\":\"A\"},{\"key\":\"a\",\"text\":\"B\"}]," T1 "}",
     "two personas"},
    {HEAD TPL BASE "\"personas\":[{\"key\":\"a\",\"text\":\"A\",\"markers\":[\"\"]}]," T1 "}",
     "marker 0"},
    {HEAD TPL BASE "\"personas\":[7]," T1 "}", "\"key\" is missing"},
    {HEAD TPL BASE P1 T1 ",\"probes\":[]}", "probes is empty"},
    {HEAD TPL BASE P1 T1 ",\"probes\":[\"g3\"]}", "unknown probe \"g3\""},
    {HEAD TPL BASE P1 T1 ",\"probes\":[\"g1\",\"g1\"]}", "twice"},
    {HEAD TPL BASE P1 T1 ",\"layers\":{\"4\":[4]}}", "from 0 to 3"},
    {HEAD TPL BASE P1 T1 ",\"layers\":{\"4\":[2,1]}}", "ascending"},
    {HEAD TPL BASE P1 T1 ",\"layers\":{\"x\":[1]}}", "number of layers"},
    {HEAD TPL BASE P1 T1 ",\"held_out\":[[\"a\",\"z\"]]}", "held_out 0"},
};

START_TEST(refused) {
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    pf_grid g;
    int rc = pf_grid_parse(&g, "t.json", wrong[i].text, strlen(wrong[i].text));
    ck_assert_msg(rc == PF_EINPUT, "case %zu: status %d", i, rc);
    ck_assert_msg(strstr(pf_last_error(), wrong[i].says) != NULL, "case %zu: %s", i,
                  pf_last_error());
    ck_assert(g.root == NULL);
  }
}
END_TEST

static void expect_layers(const char *list, const char *extra, int32_t n, const char *want) {
  char text[1024], got[256] = "";
  pf_grid g;
  pf_ids v;
  snprintf(text, sizeof text, HEAD TPL BASE P1 T1 "%s}", extra);
  ck_assert_msg(pf_grid_parse(&g, "t", text, strlen(text)) == PF_OK, "%s", pf_last_error());
  int rc = pf_grid_layers(&g, list, n, &v);
  for (size_t i = 0; rc == PF_OK && i < v.n; i++)
    snprintf(got + strlen(got), sizeof got - strlen(got), i ? ",%d" : "%d", v.v[i]);
  ck_assert_str_eq(rc == PF_OK ? got : "error", want);
  if (rc == PF_OK)
    pf_ids_free(&v);
  pf_grid_free(&g);
}

START_TEST(layers) {
  const char *own = ",\"layers\":{\"26\":[10,14,18]}";
  expect_layers(NULL, "", 26, "6,10,14,18,22");
  expect_layers(NULL, "", 28, "7,11,15,20,24");
  expect_layers(NULL, "", 36, "9,14,20,25,31");
  expect_layers(NULL, "", 1, "0");
  expect_layers(NULL, "", 2, "1");
  expect_layers(NULL, "", 4, "1,2,3");
  expect_layers(NULL, own, 26, "10,14,18");
  expect_layers(NULL, own, 28, "7,11,15,20,24");
  expect_layers("3,0,5-7,6", own, 26, "0,3,5,6,7");
  expect_layers("all", "", 3, "0,1,2");
  expect_layers("26", "", 26, "error");
  expect_layers("-1", "", 26, "error");
  expect_layers("3,", "", 26, "error");
  expect_layers("", "", 26, "error");
  expect_layers("5-3", "", 26, "error");
  expect_layers("1,x", "", 26, "error");
  expect_layers("99999999999999999999", "", 26, "error");
}
END_TEST

START_TEST(held_out_cells) {
  const char *text = HEAD TPL BASE P1 T1 ",\"held_out\":[[\"a\",\"b\"]]}";
  pf_grid g;
  ck_assert(pf_grid_parse(&g, "t", text, strlen(text)) == PF_OK);
  ck_assert(pf_grid_held_out(&g, 0, 0));
  pf_grid_free(&g);
}
END_TEST

START_TEST(missing_files) {
  pf_grid g;
  ck_assert_int_eq(pf_grid_open(&g, "nosuchgrid"), PF_EINPUT);
  ck_assert(strstr(pf_last_error(), "nosuchgrid") != NULL);
  ck_assert_int_eq(pf_grid_open(&g, "/nonexistent/g.json"), PF_EINPUT);
  ck_assert_int_eq(pf_grid_open(&g, "/"), PF_EINPUT);
  ck_assert_int_eq(pf_grid_open(&g, ""), PF_EINPUT);
}
END_TEST

int main(void) {
  use_source_data();
  Suite *s = suite_create("grid");
  TCase *t = tcase_create("grid");
  tcase_add_test(t, shipped);
  tcase_add_test(t, refused);
  tcase_add_test(t, layers);
  tcase_add_test(t, held_out_cells);
  tcase_add_test(t, missing_files);
  suite_add_tcase(s, t);
  SRunner *r = srunner_create(s);
  srunner_set_fork_status(r, CK_NOFORK);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}
