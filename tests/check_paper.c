/* SPDX-License-Identifier: Apache-2.0
 * The published per-cell values as tables, and the rule of agreement on replicas that are made up
 * from them. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/paperpage.h"
#include "tests/suite.h"
#include "tests/util.h"
#include "tmpdir.h"

static pf_paper open_paper(const char *key) {
  pf_paper p;
  ck_assert_msg(pf_paper_open(&p, key) == PF_OK, "%s", pf_last_error());
  return p;
}

START_TEST(tables) {
  static const struct {
    const char *key;
    size_t by_experiment[5], cells[5];
  } want[] = {{"gemma2b", {20, 9, 4, 3, 5}, {12, 48, 24, 24, 24}},
              {"qwen15", {20, 9, 0, 0, 0}, {12, 48, 0, 0, 0}},
              {"qwen3b", {20, 0, 0, 0, 0}, {12, 0, 0, 0, 0}}};
  for (size_t k = 0; k < 3; k++) {
    pf_paper p = open_paper(want[k].key);
    size_t n[5] = {0};
    for (size_t i = 0; i < p.n; i++) {
      n[p.t[i].experiment]++;
      ck_assert_uint_eq(p.t[i].n, want[k].cells[p.t[i].experiment]);
    }
    for (size_t e = 0; e < 5; e++)
      ck_assert_uint_eq(n[e], want[k].by_experiment[e]);
    pf_paper_free(&p);
  }
  pf_paper p;
  ck_assert_int_eq(pf_paper_open(&p, "gemma"), PF_EINPUT);
  ck_assert_int_eq(pf_paper_open(&p, ""), PF_EINPUT);
  ck_assert(p.t == NULL);
}
END_TEST

/* One value of each experiment, from the files. */
START_TEST(values) {
  static const struct {
    pf_experiment e;
    const char *condition, *cell;
    double value;
  } want[] = {{PF_PAPER_SHORT, "p_user_last 6", "buffett__policy", 0.017103341224697033},
              {PF_PAPER_LONG, "p_last 10", "engineer__arch", 0.033842544369690586},
              {PF_PAPER_MARKERS, "bare", "engineer__arch", 1},
              {PF_PAPER_MARKERS, "additive", "engineer__proposal", 0},
              {PF_PAPER_INJECTION, "host", "engineer__arch", 0.6527824845397845},
              {PF_PAPER_INJECTION, "oracle", "engineer__plan", 2.2932808049954474},
              {PF_PAPER_INJECTION, "cached", "engineer__plan", 2.0397573756054044},
              {PF_PAPER_LAYER_SETS, "10_12_14", "engineer__arch", 0.7815497879637405}};
  pf_paper p = open_paper("gemma2b");
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    const pf_paper_table *t = pf_paper_find(&p, want[i].e, want[i].condition);
    ck_assert_msg(t != NULL, "%s", want[i].condition);
    size_t c = 0;
    while (c < t->n && strcmp(t->cell[c], want[i].cell) != 0)
      c++;
    ck_assert_msg(c < t->n && t->value[c] == want[i].value, "%s %s", want[i].condition,
                  want[i].cell);
    ck_assert((t->text != NULL) == (want[i].e == PF_PAPER_MARKERS));
  }
  ck_assert(pf_paper_find(&p, PF_PAPER_SHORT, "p_last 7") == NULL);
  pf_paper_free(&p);
}
END_TEST

START_TEST(one_value) {
  static const struct {
    double ours, theirs;
    pf_replica r;
    pf_met want;
  } t[] = {
      {.109, .1, {false, 0}, PF_MET},     {.111, .1, {false, 0}, PF_MISSED},
      {.0013, .0004, {false, 0}, PF_MET}, {.0015, .0004, {false, 0}, PF_MISSED},
      {.149, .1, {true, 0}, PF_MET},      {.151, .1, {true, 0}, PF_MISSED},
      {.066, .1, {true, 0}, PF_MISSED},   {.068, .1, {true, 0}, PF_MET},
      {.001, .006, {true, .006}, PF_MET}, {.001, .006, {true, .004}, PF_MISSED},
      {0, 0, {true, 0}, PF_MET},          {NAN, .1, {false, 0}, PF_UNCLEAR},
      {.109, .1, {false, 1}, PF_MET},     {.2, .1, {false, 1}, PF_MISSED}, /* fp32: no floor */
  };
  for (size_t i = 0; i < sizeof t / sizeof *t; i++)
    ck_assert_msg(pf_paper_agrees(t[i].ours, t[i].theirs, &t[i].r) == t[i].want, "case %zu", i);
}
END_TEST

/* A made-up replica: cell c has the published value times factor (1 + wobble) for even c, (1 -
 * wobble) for odd c. */
static pf_agreement replica(const pf_paper_table *t, double factor, double wobble, bool bf16,
                            pf_met *cells) {
  double ours[64];
  pf_replica r = {bf16, 0};
  pf_agreement a;
  for (size_t c = 0; c < t->n; c++)
    ours[c] = t->value[c] * factor * (c % 2 ? 1 - wobble : 1 + wobble);
  ck_assert_int_eq(pf_paper_compare(t, t->cell, ours, NULL, t->n, &r, &a, cells), PF_OK);
  return a;
}

START_TEST(kl_tables) {
  pf_paper p = open_paper("gemma2b");
  const pf_paper_table *t = pf_paper_find(&p, PF_PAPER_LONG, "p_last 14");
  pf_met cells[64];
  pf_agreement a = replica(t, 1, 0, false, cells);
  ck_assert(a.met == PF_MET && a.n == 48 && a.cells_agree == 48 && a.rank.value == 1);
  ck_assert(a.ours == a.theirs);
  a = replica(t, 1.05, 0, false, NULL);
  ck_assert(a.met == PF_MET && a.cells_agree == 48);
  a = replica(t, 1.2, 0, false, NULL); /* all cells too large by a fifth: in order, but wrong */
  ck_assert(a.met == PF_MISSED && a.cells_agree == 0 && a.rank.value == 1);
  a = replica(t, 1.2, 0, true, NULL);
  ck_assert(a.met == PF_MET && a.cells_agree == 48);
  a = replica(t, 1.6, 0, true, cells);
  ck_assert(a.met == PF_MISSED && a.cells_agree == 0 && cells[0] == PF_MISSED);
  a = replica(t, 1, .8, false, NULL); /* the order is lost */
  ck_assert(a.met == PF_MISSED && a.rank.value < .95);
  pf_paper_free(&p);
}
END_TEST

/* A right median does not make up for a wrong order of cells. */
START_TEST(order_of_cells) {
  pf_paper p = open_paper("gemma2b");
  const pf_paper_table *t = pf_paper_find(&p, PF_PAPER_SHORT, "p_last 14");
  double ours[64];
  pf_replica fp32 = {false, 0}, bf16 = {true, 0};
  pf_agreement a;
  for (size_t c = 0; c < t->n; c++)
    ours[c] = t->value[t->n - 1 - c];
  ck_assert_int_eq(pf_paper_compare(t, t->cell, ours, NULL, t->n, &fp32, &a, NULL), PF_OK);
  ck_assert(a.ours == a.theirs && a.met == PF_MISSED);
  ck_assert_int_eq(pf_paper_compare(t, t->cell, ours, NULL, t->n, &bf16, &a, NULL), PF_OK);
  ck_assert(a.met == PF_MET); /* the rule for bf16 looks at medians */
  /* cells are found by name, and what is missing is left out */
  const char *some[] = {t->cell[3], "nobody__plan", t->cell[0]};
  double given[] = {t->value[3], 7, t->value[0]};
  pf_met cells[64];
  ck_assert_int_eq(pf_paper_compare(t, some, given, NULL, 3, &fp32, &a, cells), PF_OK);
  ck_assert(a.n == 2 && a.cells_agree == 2 && cells[1] == PF_UNCLEAR && cells[3] == PF_MET);
  ck_assert(a.ours == a.theirs);
  ck_assert_int_eq(pf_paper_compare(t, some, given, NULL, 0, &fp32, &a, NULL), PF_OK);
  ck_assert(a.n == 0 && a.met == PF_UNCLEAR);
  pf_paper_free(&p);
}
END_TEST

START_TEST(marker_tables) {
  pf_paper p = open_paper("gemma2b");
  const pf_paper_table *clean = pf_paper_find(&p, PF_PAPER_MARKERS, "clean"),
                       *additive = pf_paper_find(&p, PF_PAPER_MARKERS, "additive");
  pf_replica fp32 = {false, 0};
  pf_agreement a;
  ck_assert_int_eq(
      pf_paper_compare(clean, clean->cell, clean->value, clean->text, clean->n, &fp32, &a, NULL),
      PF_OK);
  ck_assert(a.met == PF_MET && a.same_texts == 24 && a.cells_agree == 24);
  ck_assert(fabs(a.ours - 16.0 / 24) < 1e-15);
  /* the paper's own two conditions differ in 4 of 24 cells and agree in 3 texts */
  ck_assert_int_eq(
      pf_paper_compare(clean, additive->cell, additive->value, additive->text, 24, &fp32, &a, NULL),
      PF_OK);
  ck_assert(a.met == PF_MISSED && a.same_texts == 3 && a.cells_agree == 20);
  pf_paper_free(&p);
}
END_TEST

/* ---- in a report ----------------------------------------------------------------------------- */

/* The records of a study whose every value is the published one times a factor. */
static void write_records(const char *dir, const pf_paper *p, pf_experiment e, const char *file,
                          double factor) {
  pf_buf b = {0};
  for (size_t i = 0; i < p->n; i++)
    for (size_t k = 0; p->t[i].experiment == e && k < p->t[i].n; k++) {
      const pf_paper_table *t = &p->t[i];
      const char *split = strstr(t->cell[k], "__");
      char probe[40];
      int layer;
      pf_buf_printf(&b, "{\"persona\": \"%.*s\", \"task\": \"%s\", ", (int)(split - t->cell[k]),
                    t->cell[k], split + 2);
      if (e == PF_PAPER_SHORT && sscanf(t->condition, "%39s %d", probe, &layer) == 2)
        pf_buf_printf(&b, "\"probe\": \"%s\", \"layer\": %d, \"kl\": %.17g}\n", probe, layer,
                      t->value[k] * factor);
      else if (e == PF_PAPER_MARKERS)
        pf_buf_printf(&b, "\"condition\": \"%s\", \"markers\": %g, \"text\": \"\"}\n", t->condition,
                      3 * t->value[k]);
      else if (e == PF_PAPER_LAYER_SETS)
        pf_buf_printf(&b, "\"condition\": \"cached\", \"set\": \"%s\", \"kl10\": %.17g}\n",
                      t->condition, t->value[k] * factor);
      else
        pf_buf_printf(&b, "\"condition\": \"%s\", \"kl10\": %.17g}\n",
                      !strcmp(t->condition, "host") ? "none" : t->condition, t->value[k] * factor);
    }
  tmp_write(dir, file, b.s, b.n);
  pf_buf_free(&b);
}

static size_t count(const char *text, const char *what) {
  size_t n = 0;
  for (; (text = strstr(text, what)); text += strlen(what))
    n++;
  return n;
}

START_TEST(tables_of_a_report) {
  char dir[256];
  pf_paper p = open_paper("gemma2b");
  pf_buf page = {0};
  pf_replica f32 = {0};
  tmp_make(dir);
  write_records(dir, &p, PF_PAPER_SHORT, "results.jsonl", 1.02);
  write_records(dir, &p, PF_PAPER_MARKERS, "markers.jsonl", 1);
  write_records(dir, &p, PF_PAPER_INJECTION, "injection.jsonl", 1);
  write_records(dir, &p, PF_PAPER_LAYER_SETS, "layer_sets.jsonl", 1.3);
  ck_assert_msg(pf_paper_page(dir, "gemma2b", &f32, NULL, &page) == PF_OK, "%s", pf_last_error());
  const char *html = pf_buf_str(&page), *cells = strstr(html, "The paper's cells");
  ck_assert(cells != NULL);
  /* 20 sites, 4 conditions of markers and 3 of injection agree, 5 layer sets do not */
  size_t all = count(html, ">agrees<"), below = count(cells, ">agrees<");
  ck_assert_uint_eq(all - below, 20 + 4 + 3);
  ck_assert_uint_eq(below, 20 * 12 + 4 * 24 + 3 * 24);
  ck_assert_uint_eq(count(html, ">differs<") - count(cells, ">differs<"), 5);
  ck_assert_uint_eq(count(cells, ">differs<"), 5 * 24);
  pf_buf_free(&page);
  tmp_remove(dir);
  pf_paper_free(&p);
}
END_TEST

int main(void) {
  tu_use_source_data();
  Suite *s = suite_create("paper");
  TCase *t = tcase_create("paper");
  tcase_add_test(t, tables);
  tcase_add_test(t, values);
  tcase_add_test(t, one_value);
  tcase_add_test(t, kl_tables);
  tcase_add_test(t, order_of_cells);
  tcase_add_test(t, marker_tables);
  tcase_add_test(t, tables_of_a_report);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
