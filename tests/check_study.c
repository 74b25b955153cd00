/* SPDX-License-Identifier: Apache-2.0
 * The study on the Gemma-2 demo model: what must be exactly 0, the same bytes for any thread count
 * and after stops, early EOS, results that are not overwritten, the page. Agreement with another
 * implementation: check_studyref. */
#include "config.h"

#include <fenv.h>
#include <glob.h>
#include <math.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/experiment.h"
#include "analysis/findings.h"
#include "analysis/grid.h"
#include "analysis/records.h"
#include "analysis/study.h"
#include "base/io.h"
#include "base/js.h"
#include "tests/model_util.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

#define MODEL  "data/models/demo-gemma2"
#define BASE_X "a thoughtful person"
#define BASE_Y "Give advice to someone facing a difficult decision."
#define HAIKU  "Write a haiku about Monday mornings."

static char dir[256], model[1024], grid[300];

static void setup(void) {
  tmp_make(dir);
  snprintf(model, sizeof model, "%s/" MODEL, tu_srcdir());
  snprintf(grid, sizeof grid, "%s/grid.json", dir);
}

static void teardown(void) {
  tmp_remove(dir);
}

/* Personas and tasks: key=text pairs already as JSON. */
static void make_grid(const char *personas, const char *tasks) {
  char text[2048];
  snprintf(
      text, sizeof text,
      "{\"schema\":\"personaflow-grid/1\",\"name\":\"test\",\"template\":\"As {persona}, {task}\","
      "\"baseline\":{\"persona\":\"" BASE_X "\",\"task\":\"" BASE_Y
      "\"},\"personas\":[%s],\"tasks\":[%s]}",
      personas, tasks);
  tmp_text(dir, "grid.json", text);
}

static const char *out(const char *name) {
  static char path[4][400];
  static int turn;
  turn = (turn + 1) % 4;
  snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
  return path[turn];
}

static pf_study_opts opts(const char *name, const char *layers) {
  return (pf_study_opts){.model = model,
                         .protocol = "paper",
                         .only = "additive",
                         .grid = grid,
                         .layers = layers,
                         .out_dir = out(name),
                         .threads = 1};
}

static void run(const pf_study_opts *o) {
  int rc = pf_study_run(o);
  ck_assert_msg(rc == PF_OK, "%d: %s", rc, pf_last_error());
}

static void read_file(const char *name, const char *file, pf_buf *b) {
  char path[700];
  snprintf(path, sizeof path, "%s/%s", out(name), file);
  ck_assert_msg(pf_read_file(path, 1 << 26, b) == PF_OK, "%s", pf_last_error());
}

static void same_file(const char *a, const char *b, const char *file) {
  pf_buf x, y;
  read_file(a, file, &x);
  read_file(b, file, &y);
  ck_assert_msg(x.n == y.n && !memcmp(x.s, y.s, x.n), "%s of %s and %s differ", file, a, b);
  pf_buf_free(&x);
  pf_buf_free(&y);
}

/* The record at *p, which goes on behind it; NULL at the end. json_decref. */
static json_t *next_record(char **p) {
  json_t *line;
  char *end = strchr(*p, '\n');
  if (!**p)
    return NULL;
  ck_assert(pf_js_text("records", *p, (size_t)(end - *p), &line) == PF_OK);
  *p = end + 1;
  return line;
}

/* Calls fn on every line of results.jsonl; returns their number. */
static size_t each_result(const char *name, void (*fn)(const json_t *line)) {
  pf_buf b;
  size_t n = 0;
  read_file(name, "results.jsonl", &b);
  char *p = b.s;
  for (json_t *line; (line = next_record(&p)); json_decref(line), n++)
    fn(line);
  pf_buf_free(&b);
  return n;
}

static bool flagged(const json_t *line, const char *flag) {
  const json_t *flags = json_object_get(line, "flags");
  for (size_t i = 0; i < json_array_size(flags); i++)
    if (!strcmp(json_string_value(json_array_get(flags, i)), flag))
      return true;
  return false;
}

static double value(const json_t *line, const char *key) {
  const json_t *v = json_object_get(line, key);
  ck_assert_msg(json_is_number(v), "%s is no number", key);
  return json_number_value(v);
}

#define HAIKU_TASK "{\"key\":\"haiku\",\"text\":\"" HAIKU "\"}"
#define BOOK       "Recommend a book worth reading and explain why."
#define BOOK_TASK  "{\"key\":\"book\",\"text\":\"" BOOK "\"}"
#define PIRATE     "{\"key\":\"pirate\",\"text\":\"a pirate\"}"
#define COOK       "{\"key\":\"cook\",\"text\":\"a chef\"}"

#define LONG    "a retired captain of a small ship, who is fond of maps, of rum, and of long stories"
#define CAPTAIN "{\"key\":\"captain\",\"text\":\"" LONG "\"}"

/* ---- what must be 0 ---- */

static void all_zero(const json_t *line) {
  ck_assert(flagged(line, "zero_difference"));
  ck_assert(value(line, "inter_over_xy") == 0 && value(line, "cos_xy_sum") == 0);
  if (json_object_get(line, "kl"))
    ck_assert_msg(value(line, "kl") == 0, "layer %g: %g", value(line, "layer"), value(line, "kl"));
}

/* Baseline persona and baseline task: all four runs are one, the sum is the clean value, bit for
 * bit. */
START_TEST(identity_is_zero) {
  make_grid("{\"key\":\"x\",\"text\":\"" BASE_X "\"}", "{\"key\":\"y\",\"text\":\"" BASE_Y "\"}");
  pf_study_opts o = opts("id", "all");
  run(&o);
  ck_assert_uint_eq(each_result("id", all_zero), 4 * 9);
}
END_TEST

/* Directions of a persona that is the baseline's are no zeros among those of the others. */
START_TEST(baseline_among_others) {
  pf_buf b;
  json_t *root;
  make_grid("{\"key\":\"x\",\"text\":\"" BASE_X "\"}," PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("among", "4");
  run(&o);
  read_file("among", "summary.json", &b);
  ck_assert(pf_js_text("summary.json", b.s, b.n, &root) == PF_OK);
  const json_t *layers = json_object_get(json_object_get(root, "decomposition"), "p_last"),
               *at = json_object_get(json_object_get(layers, "4"), "cos_x_y"),
               *at0 = json_object_get(json_object_get(layers, "0"), "cos_x_y");
  ck_assert(value(at, "n") == 1 && value(at, "min") == value(at, "max") && value(at, "min") != 0);
  ck_assert(value(at0, "median") == 0 && !json_object_get(at0, "n"));
  json_decref(root);
  pf_buf_free(&b);
  read_file("among", "report.html", &b);
  ck_assert(strstr(b.s, "(medians over 1 of 2 cells: a persona") != NULL);
  pf_buf_free(&b);
}
END_TEST

/* ---- statistics of the summary ---- */

static double sorted_kl[3], sorted_cos[3];

static void take_three(double *v, double x) {
  int k = 0;
  while (k < 3 && !isnan(v[k]) && v[k] < x)
    k++;
  memmove(v + k + 1, v + k, (2 - (size_t)k) * sizeof *v);
  v[k] = x;
}

static void take_result(const json_t *line) {
  if (!strcmp(json_string_value(json_object_get(line, "probe")), "p_last") &&
      value(line, "layer") == 4) {
    take_three(sorted_kl, value(line, "kl"));
    take_three(sorted_cos, value(line, "cos_xy_sum"));
  }
}

/* Of three values: the middle one, and half way to each other. */
static void three(const json_t *s, const double *v) {
  const json_t *iqr = json_object_get(s, "iqr");
  ck_assert(value(s, "median") == v[1] && value(s, "min") == v[0] && value(s, "max") == v[2]);
  ck_assert(fabs(json_number_value(json_array_get(iqr, 0)) - (v[0] + v[1]) / 2) < 1e-12);
  ck_assert(fabs(json_number_value(json_array_get(iqr, 1)) - (v[1] + v[2]) / 2) < 1e-12);
}

START_TEST(summary_of_the_cells) {
  pf_buf b;
  json_t *root;
  make_grid(PIRATE "," COOK "," CAPTAIN, HAIKU_TASK);
  pf_study_opts o = opts("three cells", "4");
  run(&o);
  for (int k = 0; k < 3; k++)
    sorted_kl[k] = sorted_cos[k] = NAN;
  each_result("three cells", take_result);
  read_file("three cells", "summary.json", &b);
  ck_assert(pf_js_text("summary.json", b.s, b.n, &root) == PF_OK);
  const json_t *kl =
                   json_object_get(json_object_get(json_object_get(root, "causal"), "p_last"), "4"),
               *shape = json_object_get(
                   json_object_get(json_object_get(root, "decomposition"), "p_last"), "4"),
               *cells = json_object_get(kl, "per_cell");
  three(json_object_get(kl, "summary"), sorted_kl);
  three(json_object_get(json_object_get(kl, "per_task"), "haiku"), sorted_kl);
  three(json_object_get(shape, "cos_xy_sum"), sorted_cos);
  ck_assert(value(json_object_get(json_object_get(kl, "per_persona"), "cook"), "median") ==
            value(cells, "cook__haiku"));
  json_decref(root);
  pf_buf_free(&b);
}
END_TEST

/* A record of an experiment says which cell it is of: the continuations of two files agree. */
static void same_cells(const char *name) {
  char path[2][700];
  json_t *generated, *y;
  const json_t *a, *b;
  size_t i, k, found = 0;
  snprintf(path[0], sizeof path[0], "%s/generated.jsonl", out(name));
  snprintf(path[1], sizeof path[1], "%s/y.jsonl", out(name));
  ck_assert_int_eq(pf_js_lines(path[0], 1 << 26, &generated), PF_OK);
  ck_assert_int_eq(pf_js_lines(path[1], 1 << 26, &y), PF_OK);
  json_array_foreach(y, i, a) {
    json_array_foreach(generated, k, b) {
      if (!strcmp(pf_js_str(a, "persona"), pf_js_str(b, "persona")) &&
          !strcmp(pf_js_str(a, "task"), pf_js_str(b, "task"))) {
        ck_assert(
            json_equal(json_object_get(a, "ids"), json_object_get(json_object_get(b, "y"), "ids")));
        found++;
      }
    }
  }
  ck_assert_uint_eq(found, json_array_size(generated));
  json_decref(generated);
  json_decref(y);
}

/* Medians of two: over a persona's tasks, over a task's personas. */
START_TEST(summary_of_personas_and_tasks) {
  static const char *const groups[][4] = {
      {"per_persona", "pirate", "pirate__haiku", "pirate__book"},
      {"per_persona", "cook", "cook__haiku", "cook__book"},
      {"per_task", "haiku", "pirate__haiku", "cook__haiku"},
      {"per_task", "book", "pirate__book", "cook__book"}};
  pf_buf b;
  json_t *root;
  make_grid(PIRATE "," COOK, HAIKU_TASK "," BOOK_TASK);
  pf_study_opts o = opts("two by two", "4");
  o.only = "additive,y";
  run(&o);
  same_cells("two by two");
  read_file("two by two", "summary.json", &b);
  ck_assert(pf_js_text("summary.json", b.s, b.n, &root) == PF_OK);
  const json_t *kl =
                   json_object_get(json_object_get(json_object_get(root, "causal"), "p_last"), "4"),
               *cells = json_object_get(kl, "per_cell");
  for (int k = 0; k < 4; k++) {
    const json_t *one = json_object_get(json_object_get(kl, groups[k][0]), groups[k][1]);
    double want = (value(cells, groups[k][2]) + value(cells, groups[k][3])) / 2;
    ck_assert_msg(fabs(value(one, "median") - want) < 1e-12, "%s", groups[k][1]);
  }
  json_decref(root);
  pf_buf_free(&b);
}
END_TEST

static size_t at_zero, elsewhere;

/* Layer 0 sees the token's embedding only: the same in all four prompts. */
static void layer0_zero(const json_t *line) {
  if (value(line, "layer") == 0)
    all_zero(line), at_zero++;
  else if (json_object_get(line, "kl"))
    elsewhere += value(line, "kl") > 0;
}

START_TEST(layer0_is_zero) {
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("l0", "0,4");
  at_zero = elsewhere = 0;
  run(&o);
  each_result("l0", layer0_zero);
  ck_assert_uint_eq(at_zero, 4);
  ck_assert_uint_eq(elsewhere, 4);
}
END_TEST

/* ---- against whole runs ---- */

enum { SLOW_LAYER = 3, Y = 12 };

typedef struct slow {
  pf_model *m;
  pf_ctx *c;
  size_t d, v;
  pf_role_prompt q[4]; /* BB XB BY XY */
  int32_t y[Y];
} slow;

/* Runs prompt k and the first n_y tokens of y in one call on a new sequence, with one action;
 * logits of all rows. */
static float *whole(slow *w, int k, size_t n_y, pf_tap *tap) {
  size_t n = w->q[k].enc.n + n_y;
  pf_row *rows = calloc(n, sizeof *rows);
  float *logits = calloc(n * w->v, sizeof *logits);
  pf_seq *s;
  ck_assert_int_eq(pf_seq_new(&s, w->c), PF_OK);
  ck_assert_int_eq(pf_seq_set_taps(s, tap, 1), PF_OK);
  for (size_t i = 0; i < n; i++)
    rows[i] = (pf_row){.seq = s,
                       .token = i < n - n_y ? w->q[k].enc.ids[i] : w->y[i - (n - n_y)],
                       .pos = (int32_t)i,
                       .out = (int32_t)i};
  ck_assert_msg(pf_eval(w->c, rows, n, logits) == PF_OK, "%s", pf_last_error());
  ck_assert_uint_eq(tap->fired, 1);
  pf_seq_free(s);
  free(rows);
  return logits;
}

/* KL of one probe by whole forward passes, without forks. */
static double slow_kl(slow *w, int hook, const char *probe) {
  int prefix = !strcmp(probe, "g1") ? 1 : !strcmp(probe, "g2") ? 2 : 0;
  float *h[4], *value = calloc(w->d, sizeof *value), *clean = NULL;
  double sum = 0;
  for (int k = 0; k < 4; k++) {
    int32_t at = !strcmp(probe, "p_user_last") ? w->q[k].p_user_last : w->q[k].p_last + prefix;
    h[k] = calloc(w->d, sizeof **h);
    pf_tap t = {hook, SLOW_LAYER, -1, at, at + 1, PF_OP_CAPTURE, .out = h[k]};
    float *logits = whole(w, k, k == 3 ? Y : (size_t)prefix, &t);
    if (k == 3)
      clean = logits;
    else
      free(logits);
  }
  for (size_t i = 0; i < w->d; i++) {
    volatile float dx = h[1][i] - h[0][i], dy = h[2][i] - h[0][i], a = h[0][i] + dx;
    value[i] = a + dy;
  }
  int32_t at = !strcmp(probe, "p_user_last") ? w->q[3].p_user_last : w->q[3].p_last + prefix;
  pf_tap t = {hook, SLOW_LAYER, -1, at, at + 1, PF_OP_REPLACE, .value = value};
  float *changed = whole(w, 3, Y, &t);
  for (size_t i = 0; i < 10; i++) {
    size_t r = ((size_t)w->q[3].p_last + (size_t)prefix + i) * w->v;
    sum += pf_kl(clean + r, changed + r, w->v);
  }
  for (int k = 0; k < 4; k++)
    free(h[k]);
  free(value);
  free(clean);
  free(changed);
  return sum;
}

static slow whole_runs;
static int slow_hook;

static void equals_whole_run(const json_t *line) {
  if (!json_object_get(line, "kl"))
    return;
  const char *probe = json_string_value(json_object_get(line, "probe"));
  double want = slow_kl(&whole_runs, slow_hook, probe);
  ck_assert_msg(value(line, "kl") == want, "%s: %.17g, whole runs %.17g", probe, value(line, "kl"),
                want);
  ck_assert(want > 0);
}

static int32_t y_of(const char *name, int at, size_t *n);

START_TEST(forks_equal_whole_runs) {
  slow *w = &whole_runs;
  pf_tok *t;
  size_t n;
  int32_t layer;
  char list[8];
  static const char *const text[4][2] = {
      {BASE_X, BASE_Y}, {"a pirate", BASE_Y}, {BASE_X, HAIKU}, {"a pirate", HAIKU}};
  snprintf(list, sizeof list, "%d", SLOW_LAYER);
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("fast", list);
  run(&o);
  ck_assert(pf_model_open(&w->m, model, NULL) == PF_OK && pf_tok_open(&t, model) == PF_OK);
  ck_assert_int_eq(pf_ctx_new(&w->c, w->m, &(pf_ctx_opts){.threads = 1}), PF_OK);
  ck_assert_int_eq(pf_hook_find(w->m, "blocks.3.hook_resid_pre", &slow_hook, &layer), PF_OK);
  w->d = (size_t)pf_model_get_info(w->m)->d_model;
  w->v = (size_t)pf_model_get_info(w->m)->vocab_size;
  for (int i = 0; i < Y; i++)
    w->y[i] = y_of("fast", i, &n);
  for (int k = 0; k < 4; k++)
    ck_assert(pf_role_prompt_make(t, "As {persona}, {task}", text[k][0], text[k][1], &w->q[k]) ==
              PF_OK);
  each_result("fast", equals_whole_run);
  for (int k = 0; k < 4; k++)
    pf_role_prompt_free(&w->q[k]);
  pf_ctx_free(w->c);
  pf_tok_close(t);
  pf_model_close(w->m);
}
END_TEST

/* ---- the same bytes ---- */

static volatile int stop;
static int calls_left;

static void stop_later(void *user, const char *what, uint64_t done, uint64_t total) {
  (void)user, (void)done, (void)total;
  if (!strcmp(what, "study") && --calls_left == 0)
    stop = 1;
}

static void same_results(const char *a, const char *b) {
  static const char *const files[] = {"journal.jsonl", "results.jsonl", "generated.jsonl",
                                      "summary.json", "report.html"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    same_file(a, b, files[i]);
}

START_TEST(threads_and_stops) {
  make_grid(PIRATE "," COOK, HAIKU_TASK);
  pf_study_opts o = opts("one", "2,5");
  run(&o);
  o = opts("three", "2,5");
  o.threads = 3;
  run(&o);
  same_results("one", "three");
  o = opts("stopped", "2,5");
  o.stop = &stop;
  o.progress = stop_later;
  int rc, turns = 0;
  for (calls_left = 1;; calls_left = 2 + turns % 3) { /* stops at every kind of step */
    stop = 0;
    rc = pf_study_run(&o);
    if (rc == PF_OK || ++turns > 40)
      break;
    ck_assert_msg(rc == PF_EINCOMPLETE, "%d: %s", rc, pf_last_error());
    ck_assert(strstr(pf_last_error(), "run it again to go on") != NULL);
    if (turns > 6)
      o.progress = NULL;
  }
  ck_assert_int_eq(rc, PF_OK);
  ck_assert_int_ge(turns, 2);
  same_results("one", "stopped");
}
END_TEST

/* The integer that follows a member's name in timings.json. */
static long long timing(const char *name, const char *member) {
  pf_buf b;
  json_t *root;
  read_file(name, "timings.json", &b);
  ck_assert(pf_js_text("timings.json", b.s, b.n, &root) == PF_OK);
  long long v = (long long)json_integer_value(json_object_get(root, member));
  json_decref(root);
  pf_buf_free(&b);
  return v;
}

static long long whole_layers, shared_layers;

/* Row-layers of a substitution: rows from its site, or from position 0, to the one that gives the
 * 10th scored token, times the layers that they run. The demo model has 8. */
static void count_layers(const json_t *line) {
  if (!json_object_get(line, "kl"))
    return;
  const char *probe = json_string_value(json_object_get(line, "probe"));
  long long user = whole_runs.q[3].p_user_last, last = whole_runs.q[3].p_last;
  long long prefix = !strcmp(probe, "g1") ? 1 : !strcmp(probe, "g2") ? 2 : 0;
  long long end = last + prefix + 10, at = !strcmp(probe, "p_user_last") ? user : last + prefix;
  whole_layers += end * 8;
  shared_layers += (end - at) * (8 - (long long)value(line, "layer"));
}

/* With nothing shared, and with memory for one cell at a time: the same bytes. */
START_TEST(sharing_and_memory) {
  pf_tok *t;
  make_grid(PIRATE "," COOK, HAIKU_TASK);
  pf_study_opts o = opts("shared", "2,5");
  run(&o);
  o = opts("whole", "2,5");
  o.no_sharing = 1;
  run(&o);
  same_results("shared", "whole");
  o = opts("small", "2,5");
  o.memory = 1;
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  const char *needs = strstr(pf_last_error(), "one cell needs ");
  ck_assert_msg(needs != NULL, "%s", pf_last_error());
  o.memory = (uint64_t)(atof(needs + strlen("one cell needs ")) * 1e6) - 1000000;
  while (pf_study_run(&o) == PF_EUSAGE)
    o.memory += 1 << 17;
  same_results("shared", "small");
  ck_assert_int_eq(timing("shared", "cells_together"), 2);
  ck_assert_int_eq(timing("small", "cells_together"), 1);
  make_grid(PIRATE, HAIKU_TASK);
  o = opts("shared1", "2,5");
  run(&o);
  o = opts("whole1", "2,5");
  o.no_sharing = 1;
  run(&o);
  ck_assert(pf_tok_open(&t, model) == PF_OK);
  ck_assert(pf_role_prompt_make(t, "As {persona}, {task}", "a pirate", HAIKU, &whole_runs.q[3]) ==
            PF_OK);
  each_result("shared1", count_layers);
  ck_assert_int_eq(timing("whole1", "row_layers_substitutions"), whole_layers);
  ck_assert_int_eq(timing("shared1", "row_layers_substitutions"), shared_layers);
  ck_assert_int_gt(whole_layers, 4 * shared_layers);
  pf_role_prompt_free(&whole_runs.q[3]);
  pf_tok_close(t);
}
END_TEST

/* Megabytes that a study is refused for, 0: it is not. */
static double refused(pf_study_opts *o, double mb, int dry) {
  o->memory = (uint64_t)(mb * 1e6);
  o->dry_run = dry;
  int rc = pf_study_run(o);
  const char *needs = strstr(pf_last_error(), "one cell needs ");
  ck_assert_msg(rc == PF_OK || (rc == PF_EUSAGE && needs), "%d: %s", rc, pf_last_error());
  return rc == PF_OK ? 0 : atof(needs + strlen("one cell needs "));
}

/* The first number that a study names suffices for all that will run, in a cell of any length, and
 * a dry run names the same. */
START_TEST(the_memory_that_suffices) {
  static const char *const only[] = {"markers,injection", "y", "additive,D1", "additive,D3"};
  struct stat st;
  make_grid(PIRATE "," COOK "," CAPTAIN, HAIKU_TASK);
  for (size_t i = 0; i < (tu_tier("small") ? 1 : tu_tier("big") ? 4 : 3); i++) {
    char name[8];
    snprintf(name, sizeof name, "m%zu", i);
    pf_study_opts o = opts(name, "2");
    o.protocol = "full";
    o.only = only[i];
    double mb = refused(&o, 1, 0);
    ck_assert(mb > 1 && stat(out(name), &st) != 0); /* nothing is left behind */
    ck_assert(refused(&o, 1, 1) == mb && refused(&o, mb - 1, 1) == mb);
    ck_assert(refused(&o, mb, 1) == 0 && refused(&o, mb - 1, 0) == mb);
    ck_assert(refused(&o, mb, 0) == 0);
    ck_assert_int_le(timing(name, "cells_together"), 3);
  }
}
END_TEST

/* Memory is counted with room for the longest prompt, here a persona with the baseline task, and
 * for the personas of the cells that go together, neighbours or not. */
START_TEST(room_for_prompts) {
  const size_t row[2] = {0, 1}, holes[2] = {0, 2};
  pf_plan p;
  pf_work w;
  make_grid(PIRATE "," CAPTAIN, HAIKU_TASK ",{\"key\":\"hi\",\"text\":\"Say hi.\"}");
  pf_study_opts o = opts("room", "2");
  ck_assert_msg(pf_plan_make(&p, &o) == PF_OK, "%s", pf_last_error());
  size_t longest = pf_plan_longest(&p)->enc.n;
  for (size_t c = 0; c < p.n_cells; c++) {
    ck_assert_uint_ge(longest, p.xy[c].enc.n);
    ck_assert_uint_ge(longest, p.xb[c / 2].enc.n);
    ck_assert_uint_ge(longest, p.by[c % 2].enc.n);
  }
  ck_assert_int_eq(pf_work_begin(&w, &p, &o), PF_OK);
  w.n_cells = 2;
  w.cells = row;
  uint64_t one = pf_work_memory(&w, 2);
  w.cells = holes;
  ck_assert_uint_gt(pf_work_memory(&w, 2), one);
  pf_work_end(&w);
  pf_plan_free(&p);
}
END_TEST

/* Row-layers of an experiment. */
static long long spent(const char *name, const char *experiment) {
  pf_buf b;
  json_t *root;
  read_file(name, "timings.json", &b);
  ck_assert(pf_js_text("timings.json", b.s, b.n, &root) == PF_OK);
  const json_t *e = json_object_get(json_object_get(root, "experiments"), experiment);
  ck_assert(e != NULL);
  long long v = (long long)json_integer_value(json_object_get(e, "row_layers"));
  json_decref(root);
  pf_buf_free(&b);
  return v;
}

static void same_experiments(const char *a, const char *b, const char *const *keys) {
  for (char file[32]; *keys; keys++) {
    snprintf(file, sizeof file, "%s.jsonl", *keys);
    same_file(a, b, file);
  }
}

/* A caller that rounds upwards gets the files of one that does not, and keeps its mode. */
START_TEST(another_rounding_mode) {
  static const char *const files[] = {"results.jsonl", "C1.jsonl", "summary.json", "findings.json"};
  make_grid(PIRATE "," COOK, HAIKU_TASK);
  for (int up = 0; up < 2; up++) {
    pf_study_opts o = opts(up ? "up" : "nearest", "2");
    o.protocol = "full";
    o.only = "additive,C1";
    fesetround(up ? FE_UPWARD : FE_TONEAREST);
    run(&o);
    int mode = fegetround();
    fesetround(FE_TONEAREST);
    ck_assert_int_eq(mode, up ? FE_UPWARD : FE_TONEAREST);
  }
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    same_file("nearest", "up", files[i]);
}
END_TEST

/* What experiments take from one another, against each by itself: fewer row-layers, the same bytes.
 */
START_TEST(experiments_share) {
  static const char *const keys[] = {"y", "markers", "injection", "layer_sets", NULL};
  make_grid(PIRATE "," COOK, tu_tier("small") ? HAIKU_TASK : HAIKU_TASK "," BOOK_TASK);
  pf_study_opts o = opts("shared", "2,5");
  o.only = NULL;
  run(&o);
  o = opts("whole", "2,5");
  o.only = NULL;
  o.no_sharing = 1;
  run(&o);
  same_experiments("shared", "whole", keys);
  ck_assert_int_eq(spent("shared", "y"), 0);
  ck_assert_int_gt(spent("whole", "y"), 0);
  for (int i = 1; i < 3; i++)
    ck_assert_int_lt(10 * spent("shared", keys[i]), 9 * spent("whole", keys[i]));
}
END_TEST

/* The paper's texts are some of C2's; a budget that is too small for one cell's is refused, and the
 * least one gives the same bytes. */
START_TEST(texts_and_memory) {
  static const char *const keys[] = {"markers", "C2", NULL};
  make_grid(PIRATE "," COOK, HAIKU_TASK);
  pf_study_opts o = opts("C2", "2");
  o.protocol = "full";
  o.only = "markers,C2";
  o.threads = 2;
  run(&o);
  ck_assert_int_eq(spent("C2", "markers"), 0);
  o.out_dir = out("small");
  o.memory = 14000000; /* enough for a cell of the additive sweep */
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  const char *needs = strstr(pf_last_error(), "one cell needs ");
  ck_assert_msg(needs != NULL, "%s", pf_last_error());
  o.memory = (uint64_t)(atof(needs + strlen("one cell needs ")) * 1e6);
  ck_assert_int_gt(o.memory, 14000000);
  run(&o);
  same_experiments("C2", "small", keys);
  o = opts("markers", "2");
  o.protocol = "full";
  o.only = "markers";
  run(&o);
  same_file("C2", "markers", "markers.jsonl");
  ck_assert_int_gt(spent("markers", "markers"), 0);
}
END_TEST

/* Runs prompt and text from nothing with the taps; logits of the last token. */
static void run_whole(pf_ctx *c, const pf_role_prompt *q, const int32_t *text, size_t n,
                      pf_tap *taps, size_t n_taps, float *logits) {
  pf_row rows[256];
  pf_seq *s = tu_seq(c);
  size_t all = q->enc.n + n;
  ck_assert_uint_le(all, 256);
  for (size_t i = 0; i < all; i++)
    rows[i] = (pf_row){.seq = s,
                       .token = i < q->enc.n ? q->enc.ids[i] : text[i - q->enc.n],
                       .pos = (int32_t)i,
                       .out = i + 1 == all ? 0 : -1};
  ck_assert_int_eq(pf_seq_set_taps(s, taps, n_taps), PF_OK);
  ck_assert_msg(pf_eval(c, rows, all, logits) == PF_OK, "%s", pf_last_error());
  pf_seq_free(s);
}

enum { FREE_TOKENS = 12, FREE_WIDTH = 512 };

/* ---- texts under each value ---- */

enum { TO_BB, TO_XB, TO_BY, TO_XY, TO_OTHER, TO_TASK, TO_PERSONA, TO_ACROSS, N_PROMPTS };
static const char *const said_to[N_PROMPTS][2] = {
    {BASE_X, BASE_Y},   {"a pirate", BASE_Y}, {BASE_X, HAIKU},   {"a pirate", HAIKU},
    {"a chef", BASE_Y}, {"a pirate", BOOK},   {"a chef", HAIKU}, {"a chef", BOOK}};

typedef struct speaker {
  pf_model *m;
  pf_ctx *c;
  pf_tok *t;
  pf_role_prompt q[N_PROMPTS], book[2]; /* book: of the persona, of the baseline's */
  size_t d, vocab;
  pf_tap at; /* the residual that enters the layer of the paper's test */
  float *logits;
} speaker;

static void speaker_open(speaker *s) {
  s->m = tu_open(MODEL);
  s->c = tu_ctx(s->m, 1);
  s->d = (size_t)pf_model_get_info(s->m)->d_model;
  s->vocab = (size_t)pf_model_get_info(s->m)->vocab_size;
  s->logits = tu_logits(s->m);
  s->at = (pf_tap){.hook = tu_hook(s->m, "blocks.0.hook_resid_pre"),
                   .layer = pf_paper_layer(14, pf_model_get_info(s->m)->n_layers),
                   .head = -1};
  ck_assert_int_le((int)s->d, FREE_WIDTH);
  ck_assert_int_eq(pf_tok_open(&s->t, model), PF_OK);
  for (int k = 0; k < N_PROMPTS; k++)
    ck_assert_int_eq(
        pf_role_prompt_make(s->t, "As {persona}, {task}", said_to[k][0], said_to[k][1], &s->q[k]),
        PF_OK);
  for (int k = 0; k < 2; k++)
    ck_assert_int_eq(pf_role_prompt_make(s->t, "As {persona}, {task}", k ? BASE_X : "a pirate",
                                         BOOK, &s->book[k]),
                     PF_OK);
}

static void speaker_close(speaker *s) {
  for (int k = 0; k < N_PROMPTS; k++)
    pf_role_prompt_free(&s->q[k]);
  for (int k = 0; k < 2; k++)
    pf_role_prompt_free(&s->book[k]);
  free(s->logits);
  pf_tok_close(s->t);
  pf_ctx_free(s->c);
  pf_model_close(s->m);
}

/* The residual of the last token of a prompt with n tokens of text behind it. */
static void residual(speaker *s, const pf_role_prompt *q, const int32_t *text, size_t n,
                     float *out) {
  pf_tap get = s->at;
  get.op = PF_OP_CAPTURE;
  get.pos_lo = (int32_t)(q->enc.n + n) - 1;
  get.pos_hi = get.pos_lo + 1;
  get.out = out;
  run_whole(s->c, q, text, n, &get, 1, s->logits);
}

/* The fit to three cells of two personas and two tasks, at the fourth. */
static float neighbours(float same_persona, float same_task, float across) {
  return (float)((double)same_persona + (double)same_task - (double)across);
}

/* What a condition puts at this step, by its name. */
static void value_of(speaker *s, const char *condition, const int32_t *text, size_t n, float *out) {
  static float h[N_PROMPTS][FREE_WIDTH], other[2][FREE_WIDTH];
  bool mean = !strcmp(condition, "host_mean_delta");
  for (int k = 0; k < N_PROMPTS && !mean; k++)
    residual(s, &s->q[k], text, n, h[k]);
  for (int k = 0; k < 2 && mean; k++)
    residual(s, &s->book[k], text, 0, other[k]); /* of the other task, at p_last */
  for (size_t e = 0; e < s->d; e++) {
    float b = h[TO_BB][e], dx = h[TO_XB][e] - b, dy = h[TO_BY][e] - b, dz = h[TO_OTHER][e] - b;
    out[e] = mean                                ? other[0][e] - other[1][e]
             : !strcmp(condition, "remove_X")    ? h[TO_XY][e] - dx
             : !strcmp(condition, "S_X")         ? h[TO_BY][e]
             : !strcmp(condition, "N1")          ? (b + dz) + dy
             : !strcmp(condition, "host_oracle") ? h[TO_XY][e]
             : !strcmp(condition, "A2")
                 ? neighbours(h[TO_TASK][e], h[TO_PERSONA][e], h[TO_ACROSS][e])
                 : (b + dx) + dy;
  }
}

/* Greedy tokens with a condition's value at the first so many steps: whole passes. */
static void say(speaker *s, const char *condition, size_t steps, int32_t *text) {
  static float v[FREE_TOKENS][FREE_WIDTH];
  const pf_role_prompt *host = &s->q[strncmp(condition, "host", 4) ? TO_XY : TO_BY];
  pf_tap put[FREE_TOKENS];
  float margin;
  for (size_t k = 0; k < FREE_TOKENS; k++) {
    put[k] = s->at;
    put[k].op = strcmp(condition, "host_mean_delta") ? PF_OP_REPLACE : PF_OP_ADD;
    put[k].pos_lo = (int32_t)(host->enc.n + k) - 1;
    put[k].pos_hi = put[k].pos_lo + 1;
    put[k].value = v[k];
    if (k < steps)
      value_of(s, condition, text, k, v[k]);
    run_whole(s->c, host, text, k, put, k < steps ? k + 1 : steps, s->logits);
    text[k] = pf_argmax(s->logits, s->vocab, &margin);
  }
}

/* The record of the first cell. */
static const json_t *text_of(const json_t *rows, const char *condition, const char *schedule) {
  char query[128];
  const json_t *row;
  size_t i;
  snprintf(query, sizeof query, "persona=pirate task=haiku condition=%s schedule=%s", condition,
           schedule);
  json_array_foreach(rows, i, row) {
    if (pf_record_is(row, query))
      return row;
  }
  ck_abort_msg("no record %s", query);
}

/* log p of a record's text, a token, behind a prompt; the text of n tokens into ids. */
static double logprob_of(speaker *s, const json_t *row, const pf_role_prompt *q) {
  int32_t ids[128];
  const json_t *list = json_object_get(row, "ids");
  size_t n = json_array_size(list);
  double sum = 0;
  ck_assert(n > 0 && n <= 128);
  for (size_t k = 0; k < n; k++) {
    double all = 0, most = -INFINITY;
    ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
    run_whole(s->c, q, ids, k, NULL, 0, s->logits);
    for (size_t i = 0; i < s->vocab; i++)
      most = fmax(most, (double)s->logits[i]);
    for (size_t i = 0; i < s->vocab; i++)
      all += exp((double)s->logits[i] - most);
    sum += (double)s->logits[ids[k]] - most - log(all);
  }
  return sum / (double)n;
}

/* The model's own scores of one text, and its course. */
static void text_scores(speaker *s, const json_t *rows, const char *condition) {
  const json_t *row = text_of(rows, condition, "once"), *llr = json_object_get(row, "llr"),
               *ids = json_object_get(row, "ids"),
               *clean = json_object_get(text_of(rows, "clean", "once"), "ids");
  pf_role_prompt chef;
  ck_assert_int_eq(pf_role_prompt_make(s->t, "As {persona}, {task}", "a chef", HAIKU, &chef),
                   PF_OK);
  double own = logprob_of(s, row, &s->q[TO_XY]), base = logprob_of(s, row, &s->q[TO_BY]),
         other = logprob_of(s, row, &chef);
  pf_role_prompt_free(&chef);
  ck_assert(fabs(json_number_value(json_array_get(llr, 0)) - (own - base)) < 1e-5);
  ck_assert(fabs(json_number_value(json_array_get(llr, 1)) - (other - base)) < 1e-5);
  ck_assert(fabs(value(row, "llr_own") - (own - base)) < 1e-5);
  ck_assert(fabs(value(row, "nll_own") + own) < 1e-5);
  ck_assert_str_eq(pf_js_str(row, "identified"), own > other ? "pirate" : "cook");
  size_t same = 0, again = 0, n = json_array_size(ids);
  while (same < n && json_equal(json_array_get(ids, same), json_array_get(clean, same)))
    same++;
  for (size_t i = 0; i + 2 < n; i++) {
    bool before = false;
    for (size_t k = 0; k < i; k++)
      before |= json_equal(json_array_get(ids, i), json_array_get(ids, k)) &&
                json_equal(json_array_get(ids, i + 1), json_array_get(ids, k + 1)) &&
                json_equal(json_array_get(ids, i + 2), json_array_get(ids, k + 2));
    again += before;
  }
  ck_assert(value(row, "first_divergence") == (double)same);
  ck_assert(fabs(value(row, "repetition") - (double)again / (double)(n - 2)) < 1e-12);
}

/* C2's texts are those of whole passes with the value that each is named after. */
START_TEST(texts_of_values) {
  static const struct {
    const char *condition, *schedule;
    size_t steps;
  } all[] = {{"additive", "once", 1},
             {"additive", "window", 3},
             {"additive", "every_step", 99},
             {"remove_X", "once", 1},
             {"remove_X", "every_step", 99},
             {"S_X", "once", 1},
             {"S_X", "every_step", 99},
             {"N1", "once", 1},
             {"N1", "every_step", 99},
             {"host_cached", "once", 1},
             {"host_cached", "every_step", 99},
             {"host_oracle", "once", 1},
             {"host_oracle", "window", 3},
             {"host_oracle", "every_step", 99},
             {"A2", "once", 1},
             {"A2", "window", 3},
             {"A2", "every_step", 99},
             {"host_mean_delta", "window", 3},
             {"host_mean_delta", "every_step", 99}};
  char path[700];
  json_t *rows;
  speaker s;
  make_grid(PIRATE "," COOK, HAIKU_TASK "," BOOK_TASK);
  pf_study_opts o = opts("said", "2");
  o.protocol = "full";
  o.only = "C2";
  run(&o);
  snprintf(path, sizeof path, "%s/C2.jsonl", out("said"));
  ck_assert_int_eq(pf_js_lines(path, 1 << 26, &rows), PF_OK);
  speaker_open(&s);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    int32_t text[FREE_TOKENS];
    const json_t *ids = json_object_get(text_of(rows, all[i].condition, all[i].schedule), "ids");
    say(&s, all[i].condition, all[i].steps, text);
    for (size_t k = 0; k < FREE_TOKENS && k < json_array_size(ids); k++)
      ck_assert_msg(json_integer_value(json_array_get(ids, k)) == text[k], "%s, %s: token %zu",
                    all[i].condition, all[i].schedule, k);
  }
  text_scores(&s, rows, "host");
  text_scores(&s, rows, "additive");
  text_scores(&s, rows, "bare");
  speaker_close(&s);
  json_decref(rows);
}
END_TEST

/* A record torn by kill -9: it is computed again. */
START_TEST(torn_record) {
  char path[600];
  struct stat st;
  make_grid(PIRATE "," COOK, HAIKU_TASK);
  pf_study_opts o = opts("whole", "3");
  run(&o);
  o = opts("torn", "3");
  run(&o);
  snprintf(path, sizeof path, "%s/journal.jsonl", out("torn"));
  ck_assert(stat(path, &st) == 0 && truncate(path, st.st_size - 100) == 0);
  tmp_unlink(out("torn"), "results.jsonl");
  tmp_unlink(out("torn"), "summary.json");
  run(&o);
  same_results("whole", "torn");
}
END_TEST

START_TEST(nothing_is_overwritten) {
  pf_buf before, after;
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("keep", "3");
  run(&o);
  read_file("keep", "results.jsonl", &before);
  o.no_resume = 1;
  ck_assert_int_eq(pf_study_run(&o), PF_EEXIST);
  o.no_resume = 0;
  o.layers = "4";
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "differs in layers") != NULL);
  read_file("keep", "results.jsonl", &after);
  ck_assert(before.n == after.n && !memcmp(before.s, after.s, after.n));
  pf_buf_free(&after);
  tmp_unlink(out("keep"), "journal.jsonl");
  ck_assert_int_eq(pf_study_run(&o), PF_EEXIST);
  ck_assert(strstr(pf_last_error(), "without their journal") != NULL);
  o.force = 1;
  run(&o);
  read_file("keep", "results.jsonl", &after);
  ck_assert(before.n != after.n || memcmp(before.s, after.s, after.n));
  pf_buf_free(&before);
  pf_buf_free(&after);
}
END_TEST

START_TEST(dry_run_writes_nothing) {
  struct stat st;
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("dry", NULL);
  o.dry_run = 1;
  run(&o);
  ck_assert(stat(out("dry"), &st) != 0);
}
END_TEST

/* What results call the model, however its folder was named. */
START_TEST(model_names) {
  enum { N = 4 };
  char path[N][1200], hub[600], inside[700], was[PATH_MAX];
  const char *names[N] = {"demo-gemma2", "demo-gemma2", "tiny-it", "demo-gemma2"};
  make_grid(PIRATE, HAIKU_TASK);
  snprintf(hub, sizeof hub, "%s/models--acme--tiny-it", dir);
  snprintf(inside, sizeof inside, "%s/snapshots", hub);
  ck_assert(mkdir(hub, 0777) == 0 && mkdir(inside, 0777) == 0);
  snprintf(path[0], sizeof path[0], "%s", model);
  snprintf(path[1], sizeof path[1], "%s//", model);
  snprintf(path[2], sizeof path[2], "%s/0123456789abcdef0123456789abcdef01234567", inside);
  snprintf(path[3], sizeof path[3], ".");
  char *real = realpath(model, NULL);
  ck_assert(real && symlink(real, path[2]) == 0 && getcwd(was, sizeof was));
  for (int i = 0; i < N; i++) {
    char name[8];
    json_t *summary;
    pf_buf b;
    snprintf(name, sizeof name, "n%d", i);
    pf_study_opts o = opts(name, "3");
    o.model = path[i];
    ck_assert(i < 3 || chdir(real) == 0);
    run(&o);
    ck_assert(chdir(was) == 0);
    read_file(name, "summary.json", &b);
    ck_assert_int_eq(pf_js_text("summary", b.s, b.n, &summary), PF_OK);
    ck_assert_str_eq(json_string_value(json_object_get(summary, "model_name")), names[i]);
    json_decref(summary);
    pf_buf_free(&b);
  }
  free(real);
}
END_TEST

START_TEST(wrong_options) {
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("x", "8");
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "0 to 7") != NULL);
  o = opts("x", NULL);
  o.protocol = "papers";
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  o = opts("x", NULL);
  o.only = "additive,Z9";
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "no experiment 'Z9'") != NULL);
  o = opts("x", NULL);
  o.no_resume = o.force = 1;
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  o = opts("x", NULL);
  o.shard = o.shards = 2;
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  o = opts("x", NULL);
  o.model = "/nonexistent/model";
  ck_assert_int_eq(pf_study_run(&o), PF_EINPUT);
  o = opts("x", NULL);
  o.out_dir = "/proc/nowhere";
  ck_assert_int_eq(pf_study_run(&o), PF_EIO);
  ck_assert_int_eq(pf_report_make(dir), PF_EINPUT);
}
END_TEST

/* ---- an early EOS ---- */

static int32_t y_of(const char *name, int at, size_t *n) {
  pf_buf b;
  json_t *line;
  read_file(name, "generated.jsonl", &b);
  ck_assert(pf_js_text("generated", b.s, (size_t)(strchr(b.s, '\n') - b.s), &line) == PF_OK);
  const json_t *ids = json_object_get(json_object_get(line, "y"), "ids");
  *n = json_array_size(ids);
  int32_t id = (int32_t)json_integer_value(json_array_get(ids, (size_t)at));
  json_decref(line);
  pf_buf_free(&b);
  return id;
}

/* The model again, with another EOS. */
static void model_with_eos(const char *name, int32_t eos) {
  static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                      "tokenizer_config.json"};
  char text[128], from[1200], *real = realpath(model, NULL);
  snprintf(text, sizeof text, "{\"eos_token_id\":[%d]}", eos);
  snprintf(from, sizeof from, "%s/generation_config.json", name);
  tmp_text(dir, from, text);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char to[700];
    snprintf(from, sizeof from, "%s/%s", real, files[i]);
    snprintf(to, sizeof to, "%s/%s", out(name), files[i]);
    ck_assert(symlink(from, to) == 0);
  }
  free(real);
}

static int expected_y;

static void early_line(const json_t *line) {
  const char *probe = json_string_value(json_object_get(line, "probe"));
  int prefix = !strcmp(probe, "g1") ? 1 : !strcmp(probe, "g2") ? 2 : 0, left = expected_y - prefix;
  const json_t *kl = json_object_get(line, "kl");
  ck_assert(flagged(line, "no_site") == (left < 0));
  ck_assert(json_is_null(json_object_get(line, "cos_x_y")) == (left < 0));
  if (!kl)
    return;
  ck_assert_int_eq((int)value(line, "n_scored"), left < 0 ? 0 : left);
  ck_assert(json_is_null(kl) == (left <= 0));
  ck_assert(flagged(line, "nothing_scored") == (left == 0));
  ck_assert(flagged(line, "stopped_at_eos") == (left > 0));
}

START_TEST(early_eos) {
  size_t n;
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("long", "3");
  run(&o);
  int32_t first = y_of("long", 0, &n), third = y_of("long", 2, &n);
  ck_assert_uint_eq(n, 12);
  ck_assert_int_ne(first, third);
  model_with_eos("m1", first);
  model_with_eos("m3", third);
  for (expected_y = 1; expected_y <= 3; expected_y += 2) {
    o = opts(expected_y == 1 ? "e1" : "e3", "3");
    o.model = out(expected_y == 1 ? "m1" : "m3");
    run(&o);
    y_of(expected_y == 1 ? "e1" : "e3", 0, &n);
    ck_assert_int_eq((int)n, expected_y);
    ck_assert_uint_eq(each_result(expected_y == 1 ? "e1" : "e3", early_line), 4 * 9);
  }
}
END_TEST

/* ---- the tasks of the paper's experiments of answers ---- */

/* Lines of a file that speak of a task, and all of them. */
static size_t lines_with(const char *name, const char *file, const char *task, size_t *all) {
  char word[64];
  pf_buf b;
  size_t n = *all = 0;
  snprintf(word, sizeof word, "\"task\":\"%s\"", task);
  read_file(name, file, &b);
  for (char *p = b.s, *end; *p; p = end + 1, ++*all) {
    end = strchr(p, '\n');
    *end = 0;
    n += strstr(p, word) != NULL;
  }
  pf_buf_free(&b);
  return n;
}

/* The table of markers as CSV: one number a column. */
static void marker_table(const char *name) {
  static const char head[] = "value,schedule,any marker lo,any marker hi,any marker k,any marker n,"
                             "not verbatim lo,not verbatim hi,not verbatim k,not verbatim n,"
                             "against clean lost,against clean won,against clean p,";
  char path[700];
  glob_t g;
  pf_buf b;
  snprintf(path, sizeof path, "%s/tables/*-what-the-model-says*.csv", out(name));
  ck_assert_int_eq(glob(path, 0, NULL, &g), 0);
  ck_assert(pf_read_file(g.gl_pathv[0], 1 << 20, &b) == PF_OK);
  ck_assert_msg(!strncmp(b.s, head, strlen(head)), "%s", b.s);
  pf_buf_free(&b);
  globfree(&g);
}

/* In the protocol "paper" on the tasks that the grid names, the other cells as they were; in the
 * full one on all of them. */
START_TEST(answer_tasks) {
  size_t n, all, wide;
  pf_buf page;
  make_grid(PIRATE, HAIKU_TASK "," BOOK_TASK);
  pf_study_opts o = opts("all", "3");
  o.only = "layer_sets";
  run(&o);
  ck_assert_uint_eq(2 * lines_with("all", "layer_sets.jsonl", "book", &wide), wide);
  make_grid("{\"key\":\"pirate\",\"text\":\"a pirate\",\"markers\":[\"sea\"]}",
            HAIKU_TASK "," BOOK_TASK "],\"answer_tasks\":[\"book\"");
  o.only = "layer_sets,markers";
  o.out_dir = out("one");
  run(&o);
  n = lines_with("one", "layer_sets.jsonl", "book", &all);
  ck_assert_uint_gt(n, 0);
  ck_assert_uint_eq(n, all);
  ck_assert_uint_eq(2 * n, wide);
  read_file("one", "report.html", &page);
  ck_assert(strstr(page.s, "aria-label=\"Closure by what is put into the host\"") != NULL);
  ck_assert(strstr(page.s, "aria-label=\"Cells whose text has a marker of the persona\"") != NULL);
  ck_assert(strstr(page.s, "<td class=\"t\">remove_X</td>") != NULL);
  ck_assert(strstr(page.s, "pirate &times; book") != NULL);
  ck_assert(strstr(page.s, ">once</th>") != NULL && strstr(page.s, "every step</th>") == NULL);
  ck_assert(strstr(page.s, "pirate &times; haiku") == NULL); /* no text there: no entry */
  ck_assert(strstr(page.s, "nan") == NULL && strstr(page.s, ">-0<") == NULL);
  pf_buf_free(&page);
  marker_table("one");
  o.only = "layer_sets";
  make_grid(PIRATE, HAIKU_TASK "," BOOK_TASK "],\"answer_tasks\":[");
  o.out_dir = out("none");
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  ck_assert_msg(strstr(pf_last_error(), "answer_tasks") != NULL, "%s", pf_last_error());
  o.protocol = "full";
  run(&o);
  ck_assert_uint_eq(2 * lines_with("none", "layer_sets.jsonl", "book", &wide), wide);
}
END_TEST

/* With the tasks of the conflicting cells in place of the grid's, the names still count. */
START_TEST(answer_tasks_of_conflicts) {
  pf_plan p;
  const pf_experiment *texts = pf_experiment_find("markers");
  make_grid(PIRATE,
            BOOK_TASK "," HAIKU_TASK
                      "],\"answer_tasks\":[\"haiku\"],\"conflicts\":{\"tasks\":[{\"key\":\"hi\","
                      "\"text\":\"Say hi.\"}],\"cells\":[[\"pirate\",\"haiku\"],[\"pirate\","
                      "\"book\"],[\"pirate\",\"hi\"]]},\"probes\":[\"p_last\"");
  pf_study_opts o = opts("conflicts", "2");
  o.conflicts = 1;
  ck_assert_msg(pf_plan_make(&p, &o) == PF_OK, "%s", pf_last_error());
  ck_assert_uint_eq(p.n_cells, 3);
  for (size_t c = 0; c < 3; c++)
    ck_assert_uint_eq(pf_experiment_parts(texts, &p, c), c == 0);
  pf_plan_free(&p);
}
END_TEST

/* ---- verdicts ---- */

/* Of all sites at every tested layer, of settings at every layer, however many there are. */
START_TEST(verdicts_of_many_layers) {
  enum { L = 80 };
  static const char *const sites[] = {"p_last", "g1", "g2"}, *const cells[] = {"a", "b"};
  pf_buf manifest = {0}, c1 = {0}, c3 = {0};
  pf_buf_puts(&manifest,
              "{\"model\":{\"name\":\"m\"},\"precision\":\"f32\",\"grid\":{\"personas\":[{"
              "\"key\":\"a\"},{\"key\":\"b\"}],\"tasks\":[{\"key\":\"t\"}]},\"layers\":[");
  for (int l = 0; l < L; l++) {
    pf_buf_printf(&manifest, "%s%d", l ? "," : "", l);
    for (int c = 0; c < 2; c++) {
      for (int s = 0; s < 3; s++)
        pf_buf_printf(&c1,
                      "{\"persona\":\"%s\",\"task\":\"t\",\"site\":\"%s\",\"layer\":%d,"
                      "\"condition\":\"S_X\",\"kl10\":1}\n",
                      cells[c], sites[s], l);
      pf_buf_printf(
          &c3,
          "{\"persona\":\"%s\",\"task\":\"t\",\"host\":\"B\",\"condition\":\"oracle\","
          "\"positions\":\"p_last\",\"op\":\"overwrite\",\"layers\":[%d],\"closure\":%g}\n",
          cells[c], l, l / 100.);
    }
  }
  pf_buf_puts(&manifest, "]}");
  tmp_text(dir, "manifest.json", pf_buf_str(&manifest));
  tmp_text(dir, "C1.jsonl", pf_buf_str(&c1));
  tmp_text(dir, "C3.jsonl", pf_buf_str(&c3));
  ck_assert_msg(pf_findings_make(dir) == PF_OK, "%s", pf_last_error());
  pf_buf b;
  read_file(".", "findings.json", &b);
  size_t n = 0;
  for (const char *p = b.s; (p = strstr(p, "\"H1a\"")); p++)
    n++;
  ck_assert_uint_eq(n, 3 * L);
  ck_assert(strstr(b.s, "[79]|p_last|overwrite|0") != NULL); /* the best of all layers */
  pf_buf_free(&b);
  pf_buf_free(&manifest);
  pf_buf_free(&c1);
  pf_buf_free(&c3);
}
END_TEST

/* ---- every experiment, shared and not ---- */

/* Of the other demo model: one thread and what memory it likes, against three threads, little
 * memory and whole passes. D3 and C1 in the big tier alone. */
START_TEST(every_experiment) {
  static const char *const keys[] = {"D4", "D5", "C3", "D1", "D2", "markers", "C2", "C1", "D3"};
  size_t n = tu_tier("small") ? 2 : tu_tier("big") ? 9 : 5;
  char only[64] = "", qwen[1024];
  for (size_t i = 0; i < n; i++)
    snprintf(only + strlen(only), sizeof only - strlen(only), "%s%s", i ? "," : "", keys[i]);
  snprintf(qwen, sizeof qwen, "%s/data/models/demo-qwen2", tu_srcdir());
  make_grid(n < 9 ? PIRATE : PIRATE "," COOK, HAIKU_TASK);
  pf_study_opts o = opts("one thread", "3"), p = opts("three", "3");
  o.protocol = p.protocol = "full";
  o.only = p.only = only;
  o.model = p.model = qwen;
  run(&o);
  p.threads = 3;
  p.no_sharing = 1;
  p.memory = (uint64_t)100e6;
  run(&p);
  for (size_t i = 0; i < n; i++) {
    char file[32];
    snprintf(file, sizeof file, "%s.jsonl", keys[i]);
    same_file("one thread", "three", file);
  }
}
END_TEST

/* ---- hosts of the grid ---- */

/* What `field` is of the C3 record of a host and a content, NaN where there is none. */
static double in_host(const char *name, const char *host, const char *content, const char *field) {
  char query[200];
  pf_buf b;
  double x = NAN;
  snprintf(query, sizeof query, "host=%s condition=%s positions=p_last set=14", host, content);
  read_file(name, "C3.jsonl", &b);
  char *p = b.s;
  for (json_t *line; (line = next_record(&p)); json_decref(line))
    if (pf_record_is(line, query))
      x = value(line, field);
  pf_buf_free(&b);
  return x;
}

static void grid_with_hosts(const char *hosts) {
  char tasks[400];
  snprintf(tasks, sizeof tasks, HAIKU_TASK "],\"hosts\":[%s", hosts);
  make_grid(PIRATE ",{\"key\":\"long\",\"text\":\"a retired captain who never learned to swim\"}",
            tasks);
}

/* A persona is injected into the hosts that a grid brings: one with the words of the baseline
 * persona's prompt, in a study with another baseline, is what that prompt is as host B. Those that
 * say what B or the bare task says are not run again. */
START_TEST(own_hosts) {
  static const char *const contents[] = {"none", "oracle"};
  pf_buf page;
  grid_with_hosts("{\"key\":\"mine\",\"text\":\"As " BASE_X ", {task}\"},"
                  "{\"key\":\"bare\",\"text\":\"{task}\"},"
                  "{\"key\":\"polite\",\"text\":\"Please <help>: {task}\"}");
  pf_study_opts o = opts("own", "3");
  o.protocol = "full";
  o.only = "C3";
  run(&o);
  ck_assert(isnan(in_host("own", "mine", "none", "kl10")));
  ck_assert(in_host("own", "polite", "none", "kl10") > 0);
  ck_assert(in_host("own", "polite", "cached", "closure10") < 1);
  ck_assert(in_host("own", "bare", "none", "kl10") > 0);
  read_file("own", "report.html", &page);
  ck_assert(strstr(page.s, "oracle in host polite of the grid") != NULL);
  ck_assert(strstr(page.s, "Please &lt;help&gt;: {task}") != NULL);
  ck_assert(strstr(page.s, "oracle behind a gap (1 of 2 cells)") != NULL);
  pf_buf_free(&page);
  o.baseline = "person";
  o.out_dir = out("person");
  run(&o);
  for (int i = 0; i < 2; i++) {
    double x = in_host("person", "mine", contents[i], "kl10");
    ck_assert(x > 0 && x == in_host("own", "B", contents[i], "kl10"));
    ck_assert(x != in_host("person", "B", contents[i], "kl10"));
  }
  grid_with_hosts("{\"key\":\"GAP\",\"text\":\"Well, {task}\"}");
  o.baseline = NULL;
  o.out_dir = out("taken");
  ck_assert_int_eq(pf_study_run(&o), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "take another key") != NULL, "%s", pf_last_error());
}
END_TEST

/* ---- marker lists ---- */

#define LISTS(personas, tasks)                                                                     \
  "{\"schema\":\"personaflow-markers/1\",\"name\":\"mine\",\"personas\":{" personas                \
  "},\"tasks\":{" tasks "}}"
#define ANY "[{\"pattern\":\".\"}]"

/* Counts of a field in the paper's texts. */
static double marks(const char *name, const char *field) {
  pf_buf b;
  double sum = 0;
  read_file(name, "markers.jsonl", &b);
  char *p = b.s;
  for (json_t *line; (line = next_record(&p)); json_decref(line))
    sum += value(line, field);
  pf_buf_free(&b);
  return sum;
}

/* Lists of the grid, of a file in their place, of a file for something else; a run is not gone on
 * with under others. A list without a marker is none: no text could hit it. */
START_TEST(marker_lists) {
  char path[400];
  pf_buf page;
  make_grid("{\"key\":\"pirate\",\"text\":\"a pirate\",\"markers\":[\"qqq\"]}",
            "{\"key\":\"haiku\",\"text\":\"Write a haiku about the sea.\",\"markers\":" ANY "}");
  pf_study_opts o = opts("grid", "3");
  o.only = "markers";
  run(&o);
  ck_assert(marks("grid", "markers") == 0 && marks("grid", "task_markers") == 4);
  tmp_text(dir, "mine.json", LISTS("\"pirate\":" ANY, "\"haiku\":[\"qqq\"]"));
  snprintf(path, sizeof path, "%s/mine.json", dir);
  o.markers = path;
  ck_assert_int_eq(pf_study_run(&o), PF_EUSAGE);
  ck_assert_msg(strstr(pf_last_error(), "differs in markers") != NULL, "%s", pf_last_error());
  o.out_dir = out("mine");
  run(&o);
  ck_assert(marks("mine", "markers") == 4 && marks("mine", "task_markers") == 0);
  read_file("mine", "report.html", &page);
  ck_assert(strstr(page.s, "Lists of markers: mine.") != NULL);
  pf_buf_free(&page);
  tmp_text(dir, "mine.json", LISTS("\"nurse\":" ANY, ""));
  ck_assert_int_eq(pf_study_run(&o), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "no key is that of") != NULL, "%s", pf_last_error());
  /* what stands in the prompt anyway is a marker, but a copied one */
  make_grid("{\"key\":\"pirate\",\"text\":\"a pirate\",\"markers\":[{\"pattern\":\"a\"}]}",
            HAIKU_TASK);
  o.markers = NULL;
  o.out_dir = out("copied");
  run(&o);
  ck_assert(marks("copied", "markers") == 4 && marks("copied", "markers_not_verbatim") == 0);
  make_grid("{\"key\":\"pirate\",\"text\":\"a pirate\",\"markers\":[]}", HAIKU_TASK);
  o.out_dir = out("empty");
  run(&o);
  read_file("empty", "markers.jsonl", &page);
  ck_assert(page.n > 0 && strstr(page.s, "\"markers\":null") != NULL);
  ck_assert(strstr(page.s, "\"markers\":0") == NULL);
  pf_buf_free(&page);
}
END_TEST

/* ---- the page ---- */

/* The KL of D3's record of the persona's tokens from `lo` to `hi`, of no layer (-1) or one. */
static double words_kl(const char *name, const char *condition, int lo, int hi, int layer) {
  pf_buf b;
  double kl = -1;
  read_file(name, "D3.jsonl", &b);
  char *p = b.s;
  for (json_t *line; (line = next_record(&p)); json_decref(line)) {
    const json_t *at = json_object_get(line, "tokens");
    if (!strcmp(pf_js_str(line, "condition"), condition) &&
        json_integer_value(json_array_get(at, 0)) == lo &&
        json_integer_value(json_array_get(at, 1)) == hi &&
        (layer < 0 || value(line, "layer") == layer))
      kl = value(line, "kl");
  }
  pf_buf_free(&b);
  return kl;
}

START_TEST(persona_words) {
  pf_buf page;
  char want[3][100];
  make_grid(PIRATE, HAIKU_TASK);
  pf_study_opts o = opts("words", "3");
  o.protocol = "full";
  o.only = "D3";
  run(&o);
  read_file("words", "report.html", &page);
  snprintf(want[0], sizeof want[0], ">pirate</span><small>%.2g</small>",
           words_kl("words", "token", 1, 2, -1));
  snprintf(want[1], sizeof want[1], ">a pirate</span><small>%.2g</small>",
           words_kl("words", "clause", 0, 2, -1));
  snprintf(want[2], sizeof want[2], "<title>pirate, layer 1: %.3g</title>",
           words_kl("words", "token_layer", 1, 2, 1));
  for (int i = 0; i < 3; i++)
    ck_assert_msg(strstr(page.s, want[i]) != NULL, "no %s", want[i]);
  pf_buf_free(&page);
}
END_TEST

START_TEST(report_page) {
  pf_buf page;
  make_grid("{\"key\":\"tag\",\"text\":\"a <script>alert(1)</script> & \\\"x\\\"\"}", HAIKU_TASK);
  pf_study_opts o = opts("page", NULL);
  run(&o);
  read_file("page", "report.html", &page);
  ck_assert(strstr(page.s, "<script") == NULL && strstr(page.s, "&lt;script&gt;") != NULL);
  ck_assert(strstr(page.s, "http://") == NULL && strstr(page.s, "https://") == NULL);
  ck_assert(strstr(page.s, "no null controls") != NULL && strstr(page.s, "<svg") != NULL);
  ck_assert(strstr(page.s, "nan") == NULL && strstr(page.s, "inf\"") == NULL);
  pf_buf_free(&page);
}
END_TEST

/* pf_published_load for a shipped grid. */
static int published_for(const char *model_key, const char *word, json_t **root) {
  pf_grid g;
  ck_assert_msg(pf_grid_open(&g, word) == PF_OK, "%s", pf_last_error());
  int rc = pf_published_load(model_key, g.sha256, root);
  pf_grid_free(&g);
  return rc;
}

/* The paper's models are known by their configuration, its grids by their content, and its files
 * are found. */
START_TEST(published_models) {
  const pf_model_info gemma = {.arch = "gemma2",
                               .n_layers = 26,
                               .d_model = 2304,
                               .n_heads = 8,
                               .n_kv_heads = 4,
                               .d_head = 256,
                               .d_ff = 9216,
                               .vocab_size = 256000,
                               .rms_eps = 1e-6f,
                               .attn_softcap = 50,
                               .final_softcap = 30,
                               .rope_theta = 1e4,
                               .attn_scale = 1.0 / 16,
                               .sliding_window = 4096,
                               .tied = 1};
  pf_model_info i = gemma;
  json_t *root;
  tu_use_source_data();
  ck_assert_str_eq(pf_published_match(&i)->key, "gemma2b");
  ck_assert_msg(published_for("gemma2b", "short", &root) == PF_OK, "%s", pf_last_error());
  ck_assert_str_eq(json_string_value(json_object_get(root, "model_name")),
                   pf_published_match(&i)->name);
  json_decref(root);
  i.d_ff++;
  ck_assert(pf_published_match(&i) == NULL);
  i = gemma;
  i.rope_theta = 1e6;
  ck_assert(pf_published_match(&i) == NULL);
  i = gemma;
  i.rms_eps = 1e-5f;
  ck_assert(pf_published_match(&i) == NULL);
  i = gemma;
  i.attn_scale = 1;
  ck_assert(pf_published_match(&i) == NULL);
  i = gemma;
  i.tied = 0;
  ck_assert(pf_published_match(&i) == NULL);
  ck_assert_int_eq(published_for("gemma2b", "demo", &root), PF_EINPUT);
  ck_assert_int_eq(published_for("qwen3b", "long", &root), PF_EINPUT);
}
END_TEST

int main(void) {
  Suite *s = suite_create("study");
  TCase *t = tcase_create("study");
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_test(t, identity_is_zero);
  tcase_add_test(t, baseline_among_others);
  tcase_add_test(t, summary_of_the_cells);
  tcase_add_test(t, summary_of_personas_and_tasks);
  tcase_add_test(t, layer0_is_zero);
  tcase_add_test(t, forks_equal_whole_runs);
  tcase_add_test(t, threads_and_stops);
  tcase_add_test(t, sharing_and_memory);
  tcase_add_test(t, the_memory_that_suffices);
  tcase_add_test(t, room_for_prompts);
  tcase_add_test(t, experiments_share);
  if (!tu_tier("small")) {
    tcase_add_test(t, texts_and_memory);
    tcase_add_test(t, texts_of_values);
    tcase_add_test(t, another_rounding_mode);
    tcase_add_test(t, persona_words);
  }
  tcase_add_test(t, torn_record);
  tcase_add_test(t, nothing_is_overwritten);
  tcase_add_test(t, dry_run_writes_nothing);
  tcase_add_test(t, model_names);
  tcase_add_test(t, wrong_options);
  tcase_add_test(t, early_eos);
  tcase_add_test(t, answer_tasks);
  tcase_add_test(t, own_hosts);
  tcase_add_test(t, answer_tasks_of_conflicts);
  tcase_add_test(t, marker_lists);
  tcase_add_test(t, verdicts_of_many_layers);
  tcase_add_test(t, every_experiment);
  tcase_add_test(t, report_page);
  tcase_add_test(t, published_models);
  tcase_set_timeout(t, 600);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
