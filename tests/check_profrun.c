/* SPDX-License-Identifier: Apache-2.0
 * `personaflow profile`: the result and its files, tables of results that are written by hand, and
 * what a comparison calls a change. */
#include "config.h"

#include <math.h>
#include <stdbool.h>

#include "analysis/profile.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "personaflow/personaflow.h"
#include "tests/suite.h"
#include "tests/util.h"
#include "tmpdir.h"

static char dir[256];

static void setup(void) {
  tmp_make(dir);
}

static void teardown(void) {
  tmp_remove(dir);
}

static const char *in(const char *name) {
  static char path[16][400];
  static int turn;
  turn = (turn + 1) % 16;
  snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
  return path[turn];
}

static char *contents(const char *path) {
  pf_buf b = {0};
  char *text;
  ck_assert_msg(pf_read_file(path, 64 << 20, &b) == PF_OK, "%s", pf_last_error());
  ck_assert(pf_buf_take(&b, &text) == PF_OK);
  return text;
}

static size_t lines(const char *s) {
  size_t n = 0;
  for (; *s; s++)
    n += *s == '\n';
  return n;
}

/* ---- a run ----------------------------------------------------------------------------------- */

static double number(const json_t *o, const char *key) {
  ck_assert_msg(json_is_number(json_object_get(o, key)), "no number %s", key);
  return json_number_value(json_object_get(o, key));
}

static size_t check_phase(const json_t *phase, const char *name, int tokens) {
  const json_t *rows = json_object_get(phase, "rows"), *row;
  size_t i;
  ck_assert_str_eq(json_string_value(json_object_get(phase, "name")), name);
  ck_assert(number(phase, "tokens") == tokens);
  ck_assert_uint_eq(json_array_size(json_object_get(phase, "wall")), 2);
  ck_assert_uint_eq(json_array_size(json_object_get(phase, "unprofiled_wall")), 2);
  ck_assert(json_object_size(json_object_get(phase, "counters")) > 5);
  ck_assert(json_array_size(rows) > 40);
  json_array_foreach(rows, i, row) {
    ck_assert_uint_eq(json_array_size(json_object_get(row, "seconds")), 2);
  }
  return json_array_size(rows);
}

/* Complete events with times, threads by name: the Trace Event Format's JSON object form. */
static void check_trace(const char *path) {
  json_t *t;
  const json_t *e;
  size_t i, complete = 0, named = 0;
  ck_assert_msg(pf_js_file(path, 64 << 20, &t) == PF_OK, "%s", pf_last_error());
  json_array_foreach(json_object_get(t, "traceEvents"), i, e) {
    const char *ph = json_string_value(json_object_get(e, "ph"));
    ck_assert(ph && json_is_string(json_object_get(e, "name")));
    ck_assert(json_is_integer(json_object_get(e, "pid")));
    if (!strcmp(ph, "X")) {
      ck_assert(number(e, "ts") >= 0 && number(e, "dur") >= 0);
      ck_assert(json_is_integer(json_object_get(e, "tid")));
      complete++;
    } else {
      ck_assert_str_eq(ph, "M");
      ck_assert(json_is_object(json_object_get(e, "args")));
      named += !strcmp(json_string_value(json_object_get(e, "name")), "thread_name");
    }
  }
  ck_assert(complete > 100 && named == 3); /* phases, two threads */
  json_decref(t);
}

static pf_profile_opts small(const char *model) {
  return (pf_profile_opts){
      .model = model, .threads = 2, .prompt = 20, .generate = 3, .branches = 2, .repeats = 2};
}

START_TEST(files_of_a_run) {
  char model[1024], *json, *text;
  snprintf(model, sizeof model, "%s/tests/mini/g2-window", tu_srcdir());
  pf_profile_opts o = small(model);
  o.out_dir = in("p");
  ck_assert_msg(pf_profile_run(&o, &json) == PF_OK, "%s", pf_last_error());
  json_t *r;
  ck_assert(pf_profile_parse("x", json, &r) == PF_OK);
  const json_t *phases = json_object_get(r, "phases");
  const json_t *load = json_array_get(phases, 0);
  ck_assert_str_eq(json_string_value(json_object_get(load, "name")), "load");
  ck_assert_uint_eq(json_array_size(json_object_get(load, "rows")), 3);
  size_t rows = check_phase(json_array_get(phases, 1), "prefill", 20) +
                check_phase(json_array_get(phases, 2), "decode", 6) + 3;
  text = contents(in("p/profile.json"));
  ck_assert_str_eq(text, json);
  pf_text_free(text);
  text = contents(in("p/profile.csv"));
  ck_assert_uint_eq(lines(text), rows + 1);
  pf_text_free(text);
  text = contents(in("p/report.html"));
  ck_assert(strstr(text, "<svg") && strstr(text, "Roofline") && strstr(text, "</html>"));
  ck_assert(!strstr(text, "http://") && !strstr(text, "https://"));
  pf_text_free(text);
  check_trace(in("p/trace.json"));
  pf_text_free(json);
  json_decref(r);
  ck_assert_int_eq(pf_profile_run(&o, &json), PF_EEXIST);
  o.force = 1;
  ck_assert_int_eq(pf_profile_run(&o, &json), PF_OK);
  pf_text_free(json);
}
END_TEST

START_TEST(interventions_have_rows) {
  char model[1024], *json;
  snprintf(model, sizeof model, "%s/tests/mini/g2-window", tu_srcdir());
  tmp_text(dir, "iv.json",
           "{\"schema\": \"personaflow-interventions/1\", \"interventions\": [{\"op\": \"scale\","
           " \"site\": \"blocks.1.hook_resid_pre\", \"positions\": \"3:6\", \"scale\": 0.5}]}");
  pf_profile_opts o = small(model);
  o.interventions = in("iv.json");
  ck_assert_msg(pf_profile_run(&o, &json) == PF_OK, "%s", pf_last_error());
  ck_assert(strstr(json, "\"hook:hook_resid_pre\"") && strstr(json, "scale blocks.1"));
  pf_text_free(json);
}
END_TEST

START_TEST(runs_that_cannot_be) {
  char model[1024], *json;
  snprintf(model, sizeof model, "%s/tests/mini/g2-window", tu_srcdir());
  pf_profile_opts o = small(model);
  volatile int stop = 1;
  o.stop = &stop;
  o.out_dir = in("stopped");
  ck_assert_int_eq(pf_profile_run(&o, &json), PF_EINCOMPLETE);
  ck_assert(json == NULL && access(in("stopped/profile.json"), F_OK) != 0);
  o = small(model);
  o.prompt = 1 << 20;
  ck_assert_int_eq(pf_profile_run(&o, &json), PF_EUSAGE);
  o = small(model);
  o.repeats = 0;
  ck_assert_int_eq(pf_profile_run(&o, &json), PF_EUSAGE);
}
END_TEST

/* ---- tables of a result that is known -------------------------------------------------------- */

/* Two layers, two roles, three repeats; `slow`: of layer 1's product. */
static char *result(double slow, double noise) {
  pf_buf b = {0};
  char *text;
  pf_buf_puts(
      &b, "{\"schema\": \"personaflow-profile/1\", \"model\": \"m\", \"precision\": \"f32\","
          " \"isa\": \"x\", \"threads\": 2, \"repeats\": 3, \"version\": \"0\","
          " \"machine\": {\"cpu\": \"c\", \"features\": \"\", \"products\": \"p\", \"flops\": 3e12,"
          " \"products_for_one\": 3, \"attention_flops\": 2e12, \"read\": 1e11},"
          " \"load\": {\"seconds\": 1, \"bytes\": 1000},"
          " \"phases\": [{\"name\": \"prefill\", \"tokens\": 8, \"wall\": [1, 1, 1], \"busy\":"
          " [1, 1, 1], \"unprofiled_wall\": [1, 1, 1], \"counters\": {}, \"rows\": [");
  for (int layer = 0; layer < 2; layer++)
    for (int role = 0; role < 2; role++) {
      double t = (role ? 0.1 : 0.2) * (layer && !role ? slow : 1);
      pf_buf_printf(&b,
                    "%s{\"layer\": %d, \"role\": \"%s\", \"calls\": 2, \"flops\": 1e11, \"bytes\": "
                    "1e10, \"seconds\": [%.9g, %.9g, %.9g], \"imbalance\": [0.1, 0.1, 0.1]}",
                    layer || role ? ", " : "", layer, role ? "attn.scores" : "mlp.up_proj",
                    t * (1 - noise), t * (1 + noise), t);
    }
  pf_buf_puts(&b, "]}]}");
  ck_assert(pf_buf_take(&b, &text) == PF_OK);
  return text;
}

static void near(double got, double want, const char *what) {
  ck_assert_msg(fabs(got - want) <= 1e-9 * fabs(want), "%s: %g, not %g", what, got, want);
}

START_TEST(columns) {
  char *json = result(1, 0.01);
  json_t *r;
  pf_profile_line *l;
  size_t n;
  ck_assert(pf_profile_parse("x", json, &r) == PF_OK);
  const json_t *phase = json_array_get(json_object_get(r, "phases"), 0);
  pf_profile_view v = {.by = PF_BY_ROLE};
  ck_assert(pf_profile_lines(r, phase, &v, &l, &n) == PF_OK && n == 2);
  ck_assert_str_eq(l[0].name, "mlp.up_proj");
  near(l[0].value[PF_COLUMN_TIME], 0.4, "time");
  near(l[0].value[PF_COLUMN_SHARE], 0.4, "share");
  near(l[0].value[PF_COLUMN_CALLS], 4, "calls");
  near(l[0].value[PF_COLUMN_GFLOPS], 2e11 / 0.4, "operations a second");
  near(l[0].value[PF_COLUMN_GBS], 2e10 / 0.4, "bytes a second");
  near(l[0].value[PF_COLUMN_INTENSITY], 10, "intensity");
  near(l[0].value[PF_COLUMN_PEAK], 2e11 / 0.4 / 1e12, "peak");
  near(l[1].value[PF_COLUMN_PEAK], 2e11 / 0.2 / 2e12, "peak of attention");
  near(l[0].value[PF_COLUMN_BANDWIDTH], 2e10 / 0.4 / 1e11, "bandwidth");
  near(l[0].value[PF_COLUMN_IMBALANCE], 0.1, "imbalance");
  near(l[0].noise, 1.4826 * 1.2533 * 0.01 / sqrt(3), "noise");
  pf_free(l);
  v = (pf_profile_view){.by = PF_BY_ROW, .sort = "gflops", .top = 3};
  ck_assert(pf_profile_lines(r, phase, &v, &l, &n) == PF_OK && n == 3);
  ck_assert_str_eq(l[0].name, "attn.scores");
  ck_assert(l[0].layer == 0 && l[1].layer == 1);
  pf_free(l);
  v.sort = "no such";
  ck_assert_int_eq(pf_profile_lines(r, phase, &v, &l, &n), PF_EUSAGE);
  json_decref(r);
  pf_text_free(json);
}
END_TEST

static size_t compare(double slow, double noise, pf_profile_by by, char **text) {
  char *a = result(1, noise), *b = result(slow, noise);
  size_t changed;
  tmp_text(dir, "a.json", a);
  tmp_text(dir, "b.json", b);
  pf_profile_view v = {.by = by};
  ck_assert_msg(pf_profile_compare(in("a.json"), in("b.json"), &v, text, &changed) == PF_OK, "%s",
                pf_last_error());
  pf_text_free(a);
  pf_text_free(b);
  return changed;
}

START_TEST(changes) {
  char *text;
  ck_assert_uint_eq(compare(1, 0.01, PF_BY_ROW, &text), 0);
  ck_assert(!strstr(text, "slower") && strstr(text, "0 rows changed"));
  pf_text_free(text);
  ck_assert_uint_eq(compare(1.1, 0.01, PF_BY_ROW, &text), 1); /* of layer 1 */
  ck_assert(strstr(text, " 1 mlp.up_proj") && strstr(text, "+10.0%"));
  ck_assert(strstr(strstr(text, " 1 mlp.up_proj"), "slower") > strstr(text, "+10.0%"));
  pf_text_free(text);
  ck_assert_uint_eq(compare(0.9, 0.01, PF_BY_ROLE, &text), 1);
  ck_assert(strstr(text, "faster") != NULL);
  pf_text_free(text);
  ck_assert_uint_eq(compare(1.1, 0.05, PF_BY_ROW, &text), 0); /* within the noise */
  pf_text_free(text);
}
END_TEST

/* Runs in turn: each counts once, whatever its repeats say. */
START_TEST(several_runs_a_side) {
  char *text, a[1024], b[1024];
  static const double state[] = {1, 1.2, 1, 1.2, 1}; /* the machine's */
  size_t changed;
  for (int i = 0; i < 5; i++)
    for (int side = 0; side < 2; side++) {
      char name[16], *r = result(side ? 1.1 : 1, 0.001);
      json_t *o, *row;
      size_t k, t;
      snprintf(name, sizeof name, "%c%d", side ? 'b' : 'a', i);
      ck_assert(pf_profile_parse(name, r, &o) == PF_OK);
      const json_t *phase = json_array_get(json_object_get(o, "phases"), 0);
      json_array_foreach(json_object_get(phase, "rows"), k, row) {
        json_t *s = json_object_get(row, "seconds");
        for (t = 0; t < json_array_size(s); t++)
          json_array_set_new(s, t, json_real(state[i] * json_number_value(json_array_get(s, t))));
      }
      char *slower = json_dumps(o, 0);
      tmp_text(dir, name, slower);
      free(slower);
      json_decref(o);
      pf_text_free(r);
    }
  pf_profile_view v = {.by = PF_BY_ROW};
  /* runs in different states: everything seems to change */
  ck_assert(pf_profile_compare(in("a0"), in("b1"), &v, &text, &changed) == PF_OK && changed == 4);
  pf_text_free(text);
  snprintf(a, sizeof a, "%s,%s,%s,%s,%s", in("a0"), in("a2"), in("a4"), in("a1"), in("a3"));
  snprintf(b, sizeof b, "%s,%s,%s,%s,%s", in("b0"), in("b2"), in("b4"), in("b1"), in("b3"));
  ck_assert_msg(pf_profile_compare(a, b, &v, &text, &changed) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(changed == 1 && strstr(text, "1 rows changed"), "%s", text);
  pf_text_free(text);
}
END_TEST

START_TEST(what_is_no_profile) {
  static const pf_profile_view v;
  char *text;
  tmp_text(dir, "x.json", "{\"schema\": \"other\"}");
  tmp_text(dir, "y.json", "{");
  ck_assert_int_eq(pf_profile_compare(in("x.json"), in("x.json"), &v, &text, NULL), PF_EINPUT);
  ck_assert_int_eq(pf_profile_compare(in("y.json"), in("x.json"), &v, &text, NULL), PF_EINPUT);
  ck_assert(pf_profile_compare(in("none"), in("x.json"), &v, &text, NULL) < 0);
  ck_assert_ptr_null(text);
}
END_TEST

int main(void) {
  tu_use_source_data();
  Suite *s = suite_create("profrun");
  TCase *t = tcase_create("profile");
  tcase_set_timeout(t, 600);
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_test(t, files_of_a_run);
  tcase_add_test(t, interventions_have_rows);
  tcase_add_test(t, runs_that_cannot_be);
  tcase_add_test(t, columns);
  tcase_add_test(t, changes);
  tcase_add_test(t, several_runs_a_side);
  tcase_add_test(t, what_is_no_profile);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
