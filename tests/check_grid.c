/* SPDX-License-Identifier: Apache-2.0
 * Grid files: the shipped ones, every way to be wrong, layer lists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/controls.h"
#include "base/mem.h"
#include "tests/suite.h"
#include "tests/util.h"

START_TEST(shipped) {
  static const struct {
    const char *word, *name;
    size_t personas, tasks, answered, probes;
  } want[] = {{"short", "paper-short", 4, 3, 0, 4},
              {"long", "paper-long", 8, 6, 3, 3},
              {"demo", "demo", 6, 4, 4, 4},
              {"paper-long", "paper-long", 8, 6, 3, 3}};
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    pf_grid g;
    ck_assert_msg(pf_grid_open(&g, want[i].word) == PF_OK, "%s", pf_last_error());
    ck_assert_str_eq(g.name, want[i].name);
    ck_assert_uint_eq(g.n_personas, want[i].personas);
    ck_assert_uint_eq(g.n_tasks, want[i].tasks);
    for (size_t t = 0; t < g.n_tasks; t++) /* the paper's three stand first */
      ck_assert_int_eq(g.answered[t], t < want[i].answered);
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
    {"{\"schema\":\"personaflow-grid/1\",\"name\":\"\"," TPL BASE P1 T1 "}",
     "\"name\" wants a text"},
    {HEAD BASE P1 T1 "}", "\"template\" is missing"},
    {HEAD T1 "}", "the keys \"template\", \"baseline\", \"personas\" are missing"},
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
    {HEAD TPL BASE P1 T1 ",\"answer_tasks\":[\"b\",\"z\"]}", "no task \"z\""},
    {HEAD TPL BASE P1 T1 ",\"answer_tasks\":[7]}", "no task \"?\""},
    {HEAD TPL BASE P1 T1 ",\"answer_tasks\":\"b\"}", "wrong type"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":{}}", "wrong type"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":[]}", "\"hosts\": want a list of 1 to"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":[7]}", "\"hosts\" 0 is no object"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":[{\"key\":\"h\"}]}", "\"text\" is missing"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":[{\"key\":\"h\",\"text\":\"x\"}]}", "{task} once"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":[{\"key\":\"h\",\"text\":\"{persona} {task}\"}]}",
     "{task} once and no other"},
    {HEAD TPL BASE P1 T1
     ",\"hosts\":[{\"key\":\"h\",\"text\":\"{task}\"},{\"key\":\"h\",\"text\":\"a {task}\"}]}",
     "\"h\" is there twice"},
    {HEAD TPL BASE P1 T1 ",\"hosts\":[{\"key\":\"h\",\"text\":\"{task}\",\"x\":1}]}",
     "unknown key"},
    {HEAD TPL BASE P1 T1 ",\"paraphrases\":[{\"key\":\"p\",\"text\":\"{task} {persona}\"}]}",
     "{persona} before {task}"},
    {HEAD TPL BASE P1 T1 ",\"paraphrases\":[{\"key\":\"p\",\"text\":\"{persona}{task}{x}\"}]}",
     "no other {"},
    {HEAD TPL BASE P1 T1
     ",\"paraphrases\":[{\"key\":\"p\",\"system\":\"Be.\",\"text\":\"{task}\"}]}",
     "{persona} once"},
    {HEAD TPL BASE P1 T1
     ",\"paraphrases\":[{\"key\":\"p\",\"system\":\" {persona}\",\"text\":\"{task}\"}]}",
     "white space"},
    {HEAD TPL BASE P1 T1 ",\"neutral\":[{\"key\":\"n\",\"clauses\":[]}]}", "\"clauses\""},
    {HEAD TPL BASE P1 T1 ",\"neutral\":[{\"key\":\"n\",\"clauses\":[\"x \"]}]}", "white space"},
    {HEAD TPL BASE P1 T1 ",\"neutral\":[{\"key\":\"_\",\"clauses\":[\"x\"]}]}", "a key is"},
    {HEAD TPL BASE P1 T1 ",\"baselines\":{\"persona\":[]}}", "unknown key \"persona\""},
    {HEAD TPL BASE P1 T1 ",\"baselines\":{\"tasks\":[{\"key\":\"k\",\"text\":\"\"}]}}",
     "missing or empty"},
    {HEAD TPL BASE P1 T1 ",\"conflicts\":{}}", "\"cells\" is missing"},
    {HEAD TPL BASE P1 T1 ",\"conflicts\":{\"cells\":[[\"a\",\"c\"]]}}", "cell 0: want"},
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

/* What a grid leaves out comes from the shipped file; what it has replaces that key alone. */
START_TEST(controls) {
  const char *text = HEAD TPL BASE P1 T1
      ",\"paraphrases\":[{\"key\":\"s\",\"system\":\"You: {persona}.\",\"text\":\"Now {task}\"}],"
      "\"hosts\":[{\"key\":\"h\",\"text\":\"Please: {task}\"}],"
      "\"conflicts\":{\"personas\":[{\"key\":\"c\",\"text\":\"C\"}],\"cells\":[[\"c\",\"b\"],["
      "\"a\","
      "\"b\"]]}}";
  pf_grid g;
  pf_controls c;
  ck_assert_msg(pf_grid_parse(&g, "t", text, strlen(text)) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_controls_of_grid(&c, &g, "t") == PF_OK, "%s", pf_last_error());
  ck_assert(c.n_paraphrases == 1 && c.n_hosts == 1 && c.n_conflicts == 2 && c.n_neutral == 0 &&
            c.n_base_personas == 0);
  pf_controls_free(&c);
  ck_assert_msg(pf_controls_open(&c, &g) == PF_OK, "%s", pf_last_error());
  ck_assert_str_eq(c.paraphrases[0].system, "You: {persona}.");
  ck_assert_str_eq(c.hosts[0].text, "Please: {task}");
  ck_assert_str_eq(c.conflicts[0].persona.text, "C");
  ck_assert_str_eq(c.conflicts[1].persona.text, "A");
  ck_assert_str_eq(c.conflicts[1].task.text, "B");
  ck_assert(c.n_neutral == 2 && c.n_base_personas == 3 && c.n_base_tasks == 2);
  pf_controls_free(&c);
  pf_grid_free(&g);
}
END_TEST

/* The shipped controls: three templates beside the main one, the texts of the paper's grids. */
START_TEST(shipped_controls) {
  pf_grid g, longer;
  pf_controls c;
  ck_assert_int_eq(pf_grid_open(&g, "short"), PF_OK);
  ck_assert_int_eq(pf_grid_open(&longer, "long"), PF_OK);
  ck_assert_msg(pf_controls_open(&c, &g) == PF_OK, "%s", pf_last_error());
  ck_assert(c.n_paraphrases == 3 && c.n_hosts == 2 && c.n_conflicts == 5);
  ck_assert_str_eq(c.base_personas[0].text, g.base.key);
  ck_assert_str_eq(c.base_tasks[0].text, g.base.text);
  ck_assert_str_eq(c.conflicts[0].persona.text, longer.personas[0].text);
  ck_assert_str_eq(c.conflicts[0].task.text, g.tasks[1].text);
  pf_controls_free(&c);
  pf_grid_free(&longer);
  pf_grid_free(&g);
}
END_TEST

START_TEST(neutral_words) {
  static const char *clauses[] = {"an adult who reads", "eats at noon", "sleeps"};
  static const char *const want[] = {"",
                                     "an",
                                     "an adult",
                                     "an adult who",
                                     "an adult who reads",
                                     "an adult who reads, eats",
                                     "an adult who reads, eats at",
                                     "an adult who reads, eats at noon",
                                     "an adult who reads, eats at noon, sleeps",
                                     "an adult who reads, eats at noon, sleeps"};
  pf_neutral c = {"n", clauses, 3};
  for (size_t n = 0; n < sizeof want / sizeof *want; n++) {
    char *s = pf_neutral_text(&c, n);
    ck_assert_str_eq(s, want[n]);
    pf_free(s);
  }
}
END_TEST

/* The persona's span gets the wished number of tokens where whole words allow it. */
START_TEST(neutral_lengths) {
  char dir[4096];
  pf_tok *t;
  pf_grid g;
  pf_controls c;
  snprintf(dir, sizeof dir, "%s/models/demo-qwen2", getenv("PERSONAFLOW_DATADIR"));
  ck_assert_msg(pf_tok_open(&t, dir) == PF_OK, "%s", pf_last_error());
  ck_assert_int_eq(pf_grid_open(&g, "demo"), PF_OK);
  ck_assert_int_eq(pf_controls_open(&c, &g), PF_OK);
  for (int32_t want = 1; want <= 30; want++) {
    char *text;
    int32_t got;
    pf_role_prompt p;
    ck_assert_int_eq(
        pf_neutral_fit(&c.neutral[0], t, g.template_, g.tasks[0].text, want, &text, &got), PF_OK);
    ck_assert_int_eq(pf_role_prompt_make(t, g.template_, text, g.tasks[0].text, &p), PF_OK);
    ck_assert_int_eq(p.persona.hi - p.persona.lo, got);
    ck_assert_msg(got <= want && got >= want - 1, "%d tokens: %d", want, got);
    pf_role_prompt_free(&p);
    pf_free(text);
  }
  pf_controls_free(&c);
  pf_grid_free(&g);
  pf_tok_close(t);
}
END_TEST

/* ---- the description -------------------------------------------------------------------------
 */

typedef struct lines {
  size_t n;
  char all[64 << 10];
} lines;

static void take_line(void *user, const char *line) {
  lines *l = user;
  size_t n = strlen(l->all);
  l->n++;
  snprintf(l->all + n, sizeof l->all - n, "%s\n", line);
}

START_TEST(described) {
  static lines l;
  char dir[4096];
  pf_tok *t;
  snprintf(dir, sizeof dir, "%s/models/demo-gemma2", getenv("PERSONAFLOW_DATADIR"));
  ck_assert_int_eq(pf_tok_open(&t, dir), PF_OK);
  ck_assert_int_eq(pf_grid_describe("demo", NULL, 0, take_line, &l), PF_OK);
  ck_assert(strstr(l.all, "grid demo: 6 personas x 4 tasks = 24 cells") != NULL);
  ck_assert(strstr(l.all, "pirate__haiku") == NULL);
  /* the keys that study --baseline takes */
  ck_assert(strstr(l.all, "\nbaseline persona ordinary: ") != NULL);
  ck_assert(strstr(l.all, "\nbaseline task topic: ") != NULL);
  l = (lines){0};
  ck_assert_msg(pf_grid_describe("demo", t, 512, take_line, &l) == PF_OK, "%s", pf_last_error());
  /* bos | start user As | a pirate | , task | header */
  ck_assert_msg(strstr(l.all, "pirate__haiku                                20  0:1 1:5 5:7 7:15 "
                              "15:20  16 19\n") != NULL,
                "%s", l.all);
  ck_assert(strstr(l.all, "paraphrase system left out") != NULL);
  ck_assert(strstr(l.all, "neutral np1 for doctor: 30 of 30 tokens") != NULL);
  ck_assert_int_eq(pf_grid_describe("demo", t, 70, take_line, &l), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "the model has 70 positions") != NULL, "%s",
                pf_last_error());
  pf_tok_close(t);
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
  tu_use_source_data();
  Suite *s = suite_create("grid");
  TCase *t = tcase_create("grid");
  tcase_add_test(t, shipped);
  tcase_add_test(t, refused);
  tcase_add_test(t, layers);
  tcase_add_test(t, held_out_cells);
  tcase_add_test(t, controls);
  tcase_add_test(t, shipped_controls);
  tcase_add_test(t, neutral_words);
  tcase_add_test(t, neutral_lengths);
  tcase_add_test(t, described);
  tcase_add_test(t, missing_files);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
