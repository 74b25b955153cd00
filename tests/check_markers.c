/* SPDX-License-Identifier: Apache-2.0
 * Marker lists: the paper's hits from its published texts, the rules of matching, shapes,
 * syllables, files that are refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/markers.h"
#include "analysis/stats.h"
#include "tests/fixture.h"
#include "tests/suite.h"
#include "tests/util.h"

/* ---- the paper --------------------------------------------------------------------------------
 */

enum { N_CONDITIONS = 4, N_CELLS = 24 };
static const char *const conditions[N_CONDITIONS] = {"clean", "additive", "remove_X", "bare"};

typedef struct paper {
  json_t *root;
  pf_grid grid;
  pf_markers markers;
} paper;

static paper paper_open(void) {
  paper p = {.root = fixture_published("v17_behavioral_markers")};
  ck_assert_msg(pf_grid_open(&p.grid, "long") == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_markers_open(&p.markers, "paper") == PF_OK, "%s", pf_last_error());
  return p;
}

static void paper_close(paper *p) {
  pf_markers_free(&p->markers);
  pf_grid_free(&p->grid);
  json_decref(p->root);
}

static const char *item_text(const pf_grid_item *items, size_t n, const char *key, size_t len) {
  for (size_t i = 0; i < n; i++)
    if (strlen(items[i].key) == len && !strncmp(items[i].key, key, len))
      return items[i].text;
  ck_abort_msg("no %s", key);
  return NULL;
}

/* Totals over the cells of one condition. */
typedef struct totals {
  size_t any, hits, verbatim, any_own;
  double others; /* mean over cells of the share of other personas with a marker */
} totals;

static void same_hits(const pf_marker_list *l, const pf_hit *hit, const json_t *want,
                      const char *cell) {
  size_t k = 0;
  for (size_t i = 0; i < l->n; i++)
    if (hit[i] != PF_NO_HIT) {
      const char *name = json_string_value(json_array_get(want, k++));
      ck_assert_msg(name && !strcmp(name, pf_marker_name(l, i)), "%s: '%s' instead of '%s'", cell,
                    pf_marker_name(l, i), name ? name : "nothing");
    }
  ck_assert_msg(k == json_array_size(want), "%s: %zu hits", cell, k);
}

static void add_cell(const paper *p, const char *cell, const json_t *result, totals *t) {
  const char *text = json_string_value(json_object_get(result, "text"));
  size_t n = (size_t)(strstr(cell, "__") - cell);
  const char *persona = item_text(p->grid.personas, p->grid.n_personas, cell, n),
             *task = item_text(p->grid.tasks, p->grid.n_tasks, cell + n + 2, strlen(cell + n + 2));
  double any[8];
  size_t own = 0;
  for (size_t i = 0; i < p->grid.n_personas; i++) {
    const pf_marker_list *l = pf_markers_persona(&p->markers, p->grid.personas[i].key);
    pf_marker_score s;
    pf_hit hit[32];
    ck_assert_int_eq(pf_markers_score(l, text, persona, task, &s, hit), PF_OK);
    any[i] = s.distinct > 0;
    if (p->grid.personas[i].text != persona)
      continue;
    own = i;
    same_hits(l, hit, json_object_get(result, "hits"), cell);
    t->any += s.distinct > 0;
    t->hits += s.distinct;
    t->verbatim += s.distinct - s.own;
    t->any_own += s.own > 0;
  }
  t->others += (any[own] - pf_own_minus_others(any, 8, own)) / N_CELLS;
}

START_TEST(published_hits) {
  static const totals want[N_CONDITIONS] = {
      {16, 29, 15, 8, .071}, {14, 22, 10, 9, .054}, {15, 23, 13, 7, .077}, {1, 2, 0, 1, .042}};
  paper p = paper_open();
  for (size_t c = 0; c < N_CONDITIONS; c++) {
    totals t = {0};
    const char *cell;
    json_t *v;
    json_object_foreach(json_object_get(p.root, "results"), cell, v)
        add_cell(&p, cell, json_object_get(v, conditions[c]), &t);
    ck_assert_msg(t.any == want[c].any && t.hits == want[c].hits, "%s: %zu, %zu", conditions[c],
                  t.any, t.hits);
    ck_assert_msg(t.verbatim == want[c].verbatim && t.any_own == want[c].any_own,
                  "%s: verbatim %zu, own words %zu", conditions[c], t.verbatim, t.any_own);
    ck_assert_msg(fabs(t.others - want[c].others) < 5e-4, "%s: others %g", conditions[c], t.others);
  }
  paper_close(&p);
}
END_TEST

/* The shipped list and the published file hold the same words; the paper's grids bring none of
 * their own, so that the full protocol scores on `full`, which has their personas. */
START_TEST(one_list) {
  static const char *const grids[] = {"short", "long"};
  paper p = paper_open();
  const char *key;
  json_t *list;
  json_object_foreach(json_object_get(p.root, "persona_markers"), key, list) {
    const pf_marker_list *a = pf_markers_persona(&p.markers, key);
    ck_assert(a);
    ck_assert_uint_eq(a->n, json_array_size(list));
    for (size_t i = 0; i < a->n; i++)
      ck_assert_str_eq(pf_marker_name(a, i), json_string_value(json_array_get(list, i)));
  }
  pf_markers full;
  ck_assert(pf_markers_open(&full, "full") == PF_OK);
  for (int i = 0; i < 2; i++) {
    pf_grid g;
    pf_markers own;
    ck_assert(pf_grid_open(&g, grids[i]) == PF_OK && pf_markers_of_grid(&own, &g) == PF_OK);
    ck_assert(own.n_personas == 0 && own.n_tasks == 0);
    for (size_t k = 0; k < g.n_personas; k++)
      ck_assert(pf_markers_persona(&full, g.personas[k].key) != NULL);
    ck_assert(pf_markers_persona(&full, "nobody") == NULL);
    pf_markers_free(&own);
    pf_grid_free(&g);
  }
  pf_markers_free(&full);
  paper_close(&p);
}
END_TEST

/* ---- rules ------------------------------------------------------------------------------------
 */

static int parse(pf_markers *m, const char *list) {
  char text[4096];
  snprintf(text, sizeof text,
           "{\"schema\":\"personaflow-markers/1\",\"name\":\"t\",\"personas\":{\"p\":%s}}", list);
  return pf_markers_parse(m, "t.json", text, strlen(text));
}

static const struct rule {
  const char *markers, *text, *persona, *task;
  size_t distinct, own;
} rules[] = {
    /* words: whole, in any case */
    {"[\"source\"]", "Sources say", NULL, NULL, 0, 0},
    {"[\"source\"]", "one SOURCE.", NULL, NULL, 1, 1},
    {"[\"indemnif\"]", "indemnify, indemnification", NULL, NULL, 0, 0},
    {"[\"sauté\"]", "then Sauté it", NULL, NULL, 1, 1},
    {"[\"sauté\"]", "sautéed", NULL, NULL, 0, 0},
    {"[\"c++\"]", "in c++x", NULL, NULL, 1, 1},
    /* with a space or hyphen: anywhere */
    {"[\"like a\"]", "like any other", NULL, NULL, 1, 1},
    {"[\"step-by-step\"]", "Step-by-steps", NULL, NULL, 1, 1},
    {"[\"step-by-step\"]", "step by step", NULL, NULL, 0, 0},
    {"[\"let's say\"]", "let\xe2\x80\x99s say", NULL, NULL, 0, 0},
    /* what stands in the prompt may be copied */
    {"[\"patient\",\"nurse\"]", "A patient nurse", "a PATIENT man", "Ask", 2, 1},
    {"[\"patient\",\"nurse\"]", "A patient nurse", "a man", "ask the nurse, the patient", 2, 0},
    {"[{\"pattern\":\"\\\\bplan\\\\w*\"}]", "plan, plans", NULL, "Review this plan", 1, 1},
    {"[{\"pattern\":\"\\\\bplan\\\\w*\"}]", "plan, plan", NULL, "Review this plan", 1, 0},
    /* patterns */
    {"[{\"pattern\":\"hmm+\"}]", "Hmmmm", NULL, NULL, 1, 1},
    {"[{\"pattern\":\"(?-i)the Force\"}]", "the force", NULL, NULL, 0, 0},
    {"[{\"pattern\":\"x*\"}]", "yyy", NULL, NULL, 1, 1},
    {"[{\"pattern\":\"\"},\"a\"]", NULL, NULL, NULL, 0, 0},
    /* so many of a list */
    {"[{\"at_least\":2,\"of\":[\"pros\",\"cons\",\"risk\"]}]", "Pros: none. Risks", NULL, NULL, 0,
     0},
    {"[{\"at_least\":2,\"of\":[\"pros\",\"cons\",\"risk\"]}]", "Pros: none. Cons", NULL, NULL, 1,
     1},
    {"[{\"at_least\":2,\"of\":[\"pros\",\"cons\"]}]", "Pros. Cons", NULL, "the pros", 1, 0},
    /* shapes of lines */
    {"[{\"lines\":[2,1]}]", "Title\n\nOver\nout\n\nmore text", NULL, NULL, 1, 1},
    {"[{\"lines\":[2,1]}]", "over\nout\nfurther", NULL, NULL, 0, 0},
    {"[{\"lines\":[2,1]}]", "over\nfurther", NULL, NULL, 0, 0},
    {"[{\"lines\":[2,1],\"tolerance\":1}]", "over\nfurther", NULL, NULL, 1, 1},
    {"[{\"lines\":[2,1]}]", "", NULL, NULL, 0, 0},
    /* bytes that are no UTF-8, as where a text is cut */
    {"[\"cut\"]", "cut here \xe2\x80", NULL, NULL, 1, 1},
};

START_TEST(matching) {
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    const struct rule *r = &rules[i];
    pf_markers m;
    pf_marker_score s;
    int rc = parse(&m, r->markers);
    if (!r->text) { /* such a file is refused */
      ck_assert_msg(rc == PF_EINPUT, "rule %zu", i);
      continue;
    }
    ck_assert_msg(rc == PF_OK, "rule %zu: %s", i, pf_last_error());
    ck_assert_int_eq(
        pf_markers_score(pf_markers_persona(&m, "p"), r->text, r->persona, r->task, &s, NULL),
        PF_OK);
    ck_assert_msg(s.distinct == r->distinct && s.own == r->own, "rule %zu, '%s': %zu, %zu", i,
                  r->text, s.distinct, s.own);
    pf_markers_free(&m);
  }
}
END_TEST

START_TEST(endless) {
  pf_markers m;
  pf_marker_score s;
  ck_assert_int_eq(parse(&m, "[{\"pattern\":\"(a|a?)+(a|a?)+[!?]\"}]"), PF_OK);
  char text[2048];
  memset(text, 'a', sizeof text - 1);
  text[sizeof text - 1] = 0;
  ck_assert_int_eq(pf_markers_score(pf_markers_persona(&m, "p"), text, NULL, NULL, &s, NULL),
                   PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "gave up") != NULL, "%s", pf_last_error());
  pf_markers_free(&m);
}
END_TEST

static const struct {
  const char *list, *says;
} wrong[] = {
    {"7", "must be a list"},
    {"[7]", "marker 0 is no text"},
    {"[\"a\",\"\"]", "marker 1 is no text"},
    {"[{}]", "want one of"},
    {"[{\"pattern\":\"(\"}]", "does not compile"},
    {"[{\"pattern\":\"a\\\\C\"}]", "does not compile"},
    {"[{\"pattern\":\"a\",\"lines\":[1]}]", "want one of"},
    {"[{\"lines\":[]}]", "1 to 16"},
    {"[{\"lines\":[0]}]", "numbers of syllables"},
    {"[{\"lines\":[5],\"tolerance\":-1}]", "tolerance"},
    {"[{\"pattern\":\"a\",\"tolerance\":1}]", "goes with"},
    {"[{\"of\":[\"a\"],\"at_least\":2}]", "goes with"},
    {"[{\"of\":[]}]", "wants a list"},
    {"[{\"of\":[3]}]", "marker 0: marker 0 is no text"},
    {"[{\"patern\":\"a\"}]", "unknown key \"patern\""},
    {"[{\"pattern\":\"a\",\"name\":\"\"}]", "\"name\""},
    {"[{\"of\":[{\"of\":[{\"of\":[{\"of\":[{\"of\":[{\"of\":[\"a\"]}]}]}]}]}]}]", "too deep"},
};

START_TEST(refused) {
  pf_markers m;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    ck_assert_int_eq(parse(&m, wrong[i].list), PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), wrong[i].says) != NULL, "case %zu: %s", i,
                  pf_last_error());
    ck_assert(m.root == NULL && m.personas == NULL);
  }
  static const char *const files[][2] = {
      {"{}", "personaflow-markers/1"},
      {"{\"schema\":\"personaflow-markers/1\"}", "\"name\" is missing"},
      {"{\"schema\":\"personaflow-markers/1\",\"name\":\"t\",\"persona\":{}}", "unknown key"},
      {"{\"schema\":\"personaflow-markers/1\",\"name\":\"t\",\"tasks\":[]}", "\"tasks\" wants"}};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    ck_assert_int_eq(pf_markers_parse(&m, "t", files[i][0], strlen(files[i][0])), PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), files[i][1]) != NULL, "%s", pf_last_error());
  }
  ck_assert_int_eq(pf_markers_open(&m, "nosuchlist"), PF_EINPUT);
  ck_assert(strstr(pf_last_error(), "nosuchlist") != NULL);
}
END_TEST

/* ---- the shipped stems and shapes -------------------------------------------------------------
 */

static const struct {
  const char *persona, *task, *text;
  size_t distinct;
} full[] = {
    {"lawyer", NULL, "You must indemnify us; the evidence and our precedents say so.", 3},
    {"doctor", NULL, "Symptoms first. Under any condition, evaluate.", 1},
    {"chef", NULL, "Fresh balance.", 0},
    {"chef", NULL, "Sautéed, with seasonal flavours", 3},
    {"founder", NULL, "Ship it lean; we iterated.", 1},
    {"yoda", NULL, "Learn, you must. Patience, have you! Hmmm.", 2},
    {"yoda", NULL, "you use the force", 0},
    {"yoda", NULL, "you use the Force", 1},
    {"marx", NULL, "the bourgeoisie exploits; capitalism alienates", 4},
    {"angelou", NULL, "a caged bird sings", 2},
    {"buffett", NULL, "a moat, a margin of safety, compounding", 3},
    {NULL, "haiku", "Monday mornings come,\nthe coffee steams in my cup,\nthe long week begins.",
     1},
    {NULL, "haiku",
     "Here is one:\n\nAlarm clock ringing,\nSunlight peeks through weary eyes,\nA new week begins.",
     1},
    {NULL, "haiku", "Monday mornings come,\nmy coffee steams in the old cup,\nthe week begins.", 1},
    {NULL, "haiku", "Monday mornings come,\nmy coffee is steaming in the cup,\nthe week begins.",
     0},
    {NULL, "haiku", "I would rather not write a haiku.\nIt is too early.\nGoodbye.", 0},
    {NULL, "recommend", "Read **\"The Alchemist\" by Paulo Coelho**, please.", 1},
    {NULL, "recommend", "I recommend *Sapiens* by Yuval Noah Harari.", 1},
    {NULL, "recommend", "I recommend a book by someone.", 0},
    {NULL, "recommend", "The word \"truth\" by itself says little.", 0},
    {NULL, "policy", "UBI may work", 1},
    {NULL, "policy", "An ubiquitous idea", 0},
    {NULL, "arch", "Strengths: simple. Weaknesses: one database.", 1},
    {NULL, "plan", "Strengths: simple.", 0},
};

START_TEST(stems) {
  pf_markers m;
  ck_assert_msg(pf_markers_open(&m, "full") == PF_OK, "%s", pf_last_error());
  for (size_t i = 0; i < sizeof full / sizeof *full; i++) {
    const pf_marker_list *l = full[i].persona ? pf_markers_persona(&m, full[i].persona)
                                              : pf_markers_task(&m, full[i].task);
    pf_marker_score s;
    ck_assert_msg(l != NULL, "case %zu", i);
    ck_assert_int_eq(pf_markers_score(l, full[i].text, NULL, NULL, &s, NULL), PF_OK);
    ck_assert_msg(s.distinct == full[i].distinct, "case %zu: '%s': %zu", i, full[i].text,
                  s.distinct);
  }
  pf_markers_free(&m);
}
END_TEST

/* Every persona and task of the paper's grids has a list. */
START_TEST(complete) {
  static const char *const grids[] = {"short", "long"};
  pf_markers m;
  ck_assert_int_eq(pf_markers_open(&m, "full"), PF_OK);
  for (size_t k = 0; k < 2; k++) {
    pf_grid g;
    ck_assert_int_eq(pf_grid_open(&g, grids[k]), PF_OK);
    for (size_t i = 0; i < g.n_personas; i++)
      ck_assert_msg(pf_markers_persona(&m, g.personas[i].key) != NULL, "%s", g.personas[i].key);
    for (size_t i = 0; i < g.n_tasks; i++)
      ck_assert_msg(pf_markers_task(&m, g.tasks[i].key) != NULL, "%s", g.tasks[i].key);
    pf_grid_free(&g);
  }
  pf_markers_free(&m);
}
END_TEST

START_TEST(syllables) {
  static const struct {
    const char *text;
    size_t n;
  } t[] = {{"", 0},
           {" ,.;", 0},
           {"the", 1},
           {"apple", 2},
           {"like", 1},
           {"likes", 1},
           {"liked", 1},
           {"wanted", 2},
           {"dances", 2},
           {"table", 2},
           {"while", 1},
           {"you", 1},
           {"beyond", 2},
           {"boys", 1},
           {"crying", 2},
           {"eye", 1},
           {"settled", 2},
           {"morning", 2},
           {"coffee", 2},
           {"seeing", 2},
           {"don't", 1},
           {"don\xe2\x80\x99t", 1},
           {"two words", 2},
           {"rhythm", 1},
           {"v2", 2},
           {"hmm", 1},
           {"dishes", 2},
           {"universal basic income", 8},
           {"\xf0\x9f\x9a\x80", 0}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++)
    ck_assert_msg(pf_syllables(t[i].text, strlen(t[i].text)) == t[i].n, "'%s': %zu", t[i].text,
                  pf_syllables(t[i].text, strlen(t[i].text)));
}
END_TEST

START_TEST(contrast) {
  static const double s[] = {1, 0, NAN, .5};
  ck_assert(pf_own_minus_others(s, 4, 0) == .75 && pf_own_minus_others(s, 4, 1) == -.75);
  ck_assert(isnan(pf_own_minus_others(s, 1, 0)) && isnan(pf_own_minus_others(s, 4, 2)));
}
END_TEST

int main(void) {
  tu_use_source_data();
  Suite *s = suite_create("markers");
  TCase *t = tcase_create("markers");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, published_hits);
  tcase_add_test(t, one_list);
  tcase_add_test(t, matching);
  tcase_add_test(t, endless);
  tcase_add_test(t, refused);
  tcase_add_test(t, stems);
  tcase_add_test(t, complete);
  tcase_add_test(t, syllables);
  tcase_add_test(t, contrast);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
