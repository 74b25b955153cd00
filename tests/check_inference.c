/* SPDX-License-Identifier: Apache-2.0
 * Intervals and tests against SciPy, NumPy and full enumeration (tests/fixtures/stats), and what
 * they promise: sizes and coverage. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/stats.h"
#include "base/dmath.h"
#include "base/js.h"
#include "tests/fixture.h"
#include "tests/suite.h"

enum { MAX_VALUES = 1024 };
static json_t *fixture;

static double number(const json_t *o, const char *key) {
  const json_t *v = json_object_get(o, key);
  return json_is_number(v) ? json_number_value(v) : NAN;
}

/* Numbers of nested lists in order; null is NaN. */
static size_t numbers_of(const json_t *v, double *out, size_t n) {
  for (size_t i = 0; i < json_array_size(v); i++)
    n = numbers_of(json_array_get(v, i), out, n);
  if (!json_is_array(v)) {
    ck_assert_uint_lt(n, MAX_VALUES);
    out[n++] = json_is_number(v) ? json_number_value(v) : NAN;
  }
  return n;
}
static size_t numbers(const json_t *o, const char *key, double *out) {
  const json_t *v = json_object_get(o, key);
  ck_assert_msg(v != NULL, "the fixture has no %s", key);
  return numbers_of(v, out, 0);
}

static pf_crossed table(const json_t *o, const char *key, double *x) {
  const json_t *rows = json_object_get(o, key);
  numbers(o, key, x);
  return (pf_crossed){x, json_array_size(rows), json_array_size(json_array_get(rows, 0))};
}

static void near(double got, double want, double tolerance, const char *what, size_t i) {
  ck_assert_msg(fabs(got - want) <= tolerance * (1 + fabs(want)) || (isnan(got) && isnan(want)),
                "%s %zu: %.17g instead of %.17g", what, i, got, want);
}

static void near_interval(pf_interval got, const json_t *o, const char *what, size_t i) {
  double want[2];
  ck_assert_uint_eq(numbers(o, "interval", want), 2);
  if (json_object_get(o, "value"))
    near(got.value, number(o, "value"), 1e-12, what, i);
  near(got.lo, want[0], 1e-12, what, i);
  near(got.hi, want[1], 1e-12, what, i);
}

static pf_boot boot_of(const json_t *o) {
  const char *what = json_string_value(json_object_get(o, "resampling"));
  return (pf_boot){strcmp(what, "personas") ? PF_PIGEONHOLE : PF_PERSONAS,
                   (size_t)number(o, "draws"), number(o, "level"),
                   (uint64_t)json_integer_value(json_object_get(o, "seed"))};
}

static pf_alternative side_of(const json_t *o) {
  static const char *const names[] = {"two_sided", "greater", "less"};
  size_t i = 0;
  while (strcmp(names[i], json_string_value(json_object_get(o, "side"))) != 0)
    i++;
  return (pf_alternative)i;
}

/* ---- one function for each group of the fixture ----------------------------------------------
 */

static void quantiles(const json_t *o, size_t i) {
  double x[MAX_VALUES], q[MAX_VALUES], want[MAX_VALUES];
  size_t n = numbers(o, "x", x), k = numbers(o, "q", q);
  numbers(o, "value", want);
  pf_stats s = pf_stats_of(x, n);
  for (size_t j = 0; j < k; j++) /* NumPy's own arithmetic: every bit */
    ck_assert_msg(pf_quantile(x, n, q[j]) == want[j], "quantiles %zu, q %g", i, q[j]);
  ck_assert(s.median == want[5] && s.q25 == want[3] && s.q75 == want[6]);
}

static void wilson(const json_t *o, size_t i) {
  near_interval(pf_wilson((size_t)number(o, "k"), (size_t)number(o, "n")), o, "wilson", i);
}

static void mcnemar(const json_t *o, size_t i) {
  near(pf_mcnemar((size_t)number(o, "b"), (size_t)number(o, "c")), number(o, "p"), 1e-13, "mcnemar",
       i);
}

static void sign_flip(const json_t *o, size_t i) {
  double x[MAX_VALUES];
  size_t n = numbers(o, "x", x);
  double p = pf_sign_flip(x, n, number(o, "null"), side_of(o));
  ck_assert_msg(p == number(o, "p"), "sign_flip %zu: %.17g", i, p);
}

static void holm(const json_t *o, size_t i) {
  double p[MAX_VALUES], want[MAX_VALUES], got[MAX_VALUES];
  size_t n = numbers(o, "p", p);
  numbers(o, "adjusted", want);
  ck_assert_int_eq(pf_holm(p, n, got), PF_OK);
  for (size_t k = 0; k < n; k++)
    near(got[k], want[k], 1e-15, "holm", i);
  ck_assert_int_eq(pf_holm(p, n, p), PF_OK);
  for (size_t k = 0; k < n; k++)
    near(p[k], want[k], 1e-15, "holm in place", i);
}

static void spearman(const json_t *o, size_t i) {
  double x[MAX_VALUES], y[MAX_VALUES];
  pf_interval got;
  size_t n = numbers(o, "x", x);
  ck_assert_uint_eq(numbers(o, "y", y), n);
  ck_assert_int_eq(pf_spearman(x, y, n, &got), PF_OK);
  near_interval(got, o, "spearman", i);
}

static void bootstrap(const json_t *o, size_t i) {
  double x[MAX_VALUES];
  pf_crossed t = table(o, "x", x);
  pf_boot b = boot_of(o);
  pf_interval got;
  bool mean = !strcmp(json_string_value(json_object_get(o, "statistic")), "mean");
  ck_assert_int_eq(pf_bootstrap(&t, mean ? PF_MEAN : PF_MEDIAN, &b, &got), PF_OK);
  near_interval(got, o, "bootstrap", i);
}

static void bootstrap_spearman(const json_t *o, size_t i) {
  double x[MAX_VALUES], y[MAX_VALUES];
  pf_crossed tx = table(o, "x", x), ty = table(o, "y", y);
  pf_boot b = boot_of(o);
  pf_interval got;
  ck_assert_int_eq(pf_bootstrap_spearman(&tx, &ty, &b, &got), PF_OK);
  near_interval(got, o, "bootstrap_spearman", i);
}

static void tost(const json_t *o, size_t i) {
  double x[MAX_VALUES];
  pf_crossed t = table(o, "x", x);
  pf_boot b = boot_of(o);
  pf_tost got;
  ck_assert_int_eq(pf_bootstrap_tost(&t, PF_MEAN, number(o, "margin"), &b, &got), PF_OK);
  near_interval(got.ci, o, "tost", i);
  near(got.p, number(o, "p"), 1e-15, "tost p", i);
  ck_assert(got.equivalent == json_is_true(json_object_get(o, "equivalent")));
}

static void additivity(const json_t *o, size_t i) {
  double g[MAX_VALUES];
  pf_boot b = boot_of(o);
  pf_additivity got;
  numbers(o, "gram", g);
  ck_assert_int_eq(
      pf_r2_additive(g, (size_t)number(o, "personas"), (size_t)number(o, "tasks"), &b, &got),
      PF_OK);
  near_interval(got.r2, o, "additivity", i);
  near(got.null_q95, number(o, "null_q95"), 1e-11, "additivity null", i);
  near(got.p, number(o, "p"), 1e-15, "additivity p", i);
}

static void labels(const json_t *o, size_t i) {
  double k[MAX_VALUES], p;
  const json_t *rows = json_object_get(o, "k");
  size_t n = json_array_size(rows),
         tasks = json_array_size(json_array_get(json_array_get(rows, 0), 0));
  pf_boot b = boot_of(o);
  numbers(o, "k", k);
  ck_assert_int_eq(pf_label_permutation(k, n, tasks, side_of(o), &b, &p), PF_OK);
  near(p, number(o, "p"), 1e-15, "labels", i);
  b.draws = 20000;
  ck_assert_int_eq(pf_label_permutation(k, n, tasks, side_of(o), &b, &p), PF_OK);
  near(p, number(o, "exact"), 0.015, "labels, all permutations", i);
}

static void identification(const json_t *o, size_t i) {
  double x[MAX_VALUES];
  int32_t predicted[MAX_VALUES];
  pf_crossed t = table(o, "predicted", x);
  pf_identified got;
  for (size_t c = 0; c < t.n_personas * t.n_tasks; c++)
    predicted[c] = (int32_t)x[c];
  ck_assert_int_eq(pf_identification(predicted, t.n_personas, t.n_tasks, &got), PF_OK);
  ck_assert_uint_eq(got.hits, (size_t)number(o, "hits"));
  near(got.p, number(o, "p"), 1e-13, "identification", i);
}

static const struct group {
  const char *name;
  void (*check)(const json_t *o, size_t i);
} groups[] = {{"quantiles", quantiles}, {"wilson", wilson},
              {"mcnemar", mcnemar},     {"sign_flip", sign_flip},
              {"holm", holm},           {"spearman", spearman},
              {"bootstrap", bootstrap}, {"bootstrap_spearman", bootstrap_spearman},
              {"tost", tost},           {"additivity", additivity},
              {"labels", labels},       {"identification", identification}};
enum { N_GROUPS = sizeof groups / sizeof *groups };

START_TEST(against_others) {
  const json_t *list = json_object_get(fixture, groups[_i].name);
  ck_assert_uint_gt(json_array_size(list), 0);
  for (size_t i = 0; i < json_array_size(list); i++)
    groups[_i].check(json_array_get(list, i), i);
}
END_TEST

/* ---- promises ---------------------------------------------------------------------------------
 */

/* P(X <= k) pieces of Binomial(n, p) by the recurrence. */
static void binomial(size_t n, double p, double *pmf) {
  pmf[0] = 1;
  for (size_t i = 0; i < n; i++)
    pmf[0] *= 1 - p;
  for (size_t k = 0; k < n; k++)
    pmf[k + 1] = pmf[k] * (double)(n - k) / (double)(k + 1) * p / (1 - p);
}

START_TEST(wilson_coverage) {
  double pmf[64], mean = 0, least = 1;
  enum { N = 24, STEPS = 200 };
  for (size_t s = 1; s < STEPS; s++) {
    double p = (double)s / STEPS, covered = 0;
    binomial(N, p, pmf);
    for (size_t k = 0; k <= N; k++) {
      pf_interval w = pf_wilson(k, N);
      ck_assert(w.lo >= 0 && w.hi <= 1 && w.lo <= w.value && w.value <= w.hi);
      covered += w.lo <= p && p <= w.hi ? pmf[k] : 0;
    }
    mean += covered / (STEPS - 1);
    least = covered < least ? covered : least;
  }
  for (size_t n = 1; n < 300; n++) /* exact at the ends, where rounding could leave [0,1] */
    ck_assert(pf_wilson(0, n).lo == 0 && pf_wilson(n, n).hi == 1);
  ck_assert_msg(mean > 0.94 && mean < 0.965 && least > 0.83, "mean %g, least %g", mean, least);
}
END_TEST

/* An exact test rejects a true null at most as often as it says. */
START_TEST(mcnemar_size) {
  double pmf[64];
  for (size_t n = 1; n <= 40; n++) {
    double rejected = 0;
    binomial(n, 0.5, pmf);
    for (size_t b = 0; b <= n; b++) {
      ck_assert(pf_mcnemar(b, n - b) == pf_mcnemar(n - b, b));
      rejected += pf_mcnemar(b, n - b) <= 0.05 ? pmf[b] : 0;
    }
    ck_assert_msg(rejected <= 0.05 + 1e-12, "%zu pairs: %g", n, rejected);
  }
}
END_TEST

/* Over all choices of signs of one set of magnitudes, each p is the share of choices with as small
 * a p. */
START_TEST(sign_flip_size) {
  static const double size[] = {.31, 1.7, .02, .9, 2.2, .45, 1.1, .63};
  enum { N = 8, ALL = 1 << N };
  size_t rejected = 0, least = 0;
  for (size_t s = 0; s < ALL; s++) {
    double x[N];
    for (size_t i = 0; i < N; i++)
      x[i] = s >> i & 1 ? -size[i] : size[i];
    double p = pf_sign_flip(x, N, 0, PF_TWO_SIDED);
    rejected += p <= 0.05;
    least += p == 2.0 / ALL;
    double up = pf_sign_flip(x, N, 0, PF_GREATER), down = pf_sign_flip(x, N, 0, PF_LESS);
    ck_assert(up + down >= 1 && up + down <= 1 + 3.0 / ALL);
  }
  ck_assert_uint_eq(least, 2);
  ck_assert_uint_le(rejected, ALL / 20);
  ck_assert_uint_ge(rejected, ALL / 20 - 2);
}
END_TEST

/* Two independent standard normal numbers by Box and Muller. */
static void normals(uint64_t stream, uint64_t counter, double z[2]) {
  double r = sqrt(-2 * pf_dlog(1 - pf_uniform(99, stream, counter)));
  double angle = 6.283185307179586 * pf_uniform(99, stream, counter + (1ull << 40));
  z[0] = r * pf_dcos(angle);
  z[1] = r * pf_dsin(angle);
}

/* x_ij = a_i + b_j + e_ij, mean 0: how often do the intervals of the mean hold 0? The pigeonhole is
 * conservative; persons alone see no spread between tasks and so cover too rarely when there is
 * one. */
static double coverage(pf_resampling resampling, double between_tasks, size_t n_p, size_t n_t) {
  enum { RUNS = 300 };
  size_t covered = 0;
  for (uint64_t run = 0; run < RUNS; run++) {
    double x[MAX_VALUES], z[2];
    for (size_t c = 0; c < n_p * n_t; c++) {
      normals(run, c, z);
      double e = z[0];
      normals(run, 10000 + c / n_t, z);
      e += z[0];
      normals(run, 20000 + c % n_t, z);
      x[c] = e + between_tasks * z[0];
    }
    pf_crossed t = {x, n_p, n_t};
    pf_boot o = {resampling, 400, 0.95, run};
    pf_interval ci;
    ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, &o, &ci), PF_OK);
    covered += ci.lo <= 0 && 0 <= ci.hi;
  }
  return (double)covered / RUNS;
}

START_TEST(bootstrap_coverage) {
  double both = coverage(PF_PIGEONHOLE, 1, 16, 16), alone = coverage(PF_PERSONAS, 1, 16, 16),
         fixed = coverage(PF_PERSONAS, 0, 16, 16), small = coverage(PF_PIGEONHOLE, 1, 8, 6);
  ck_assert_msg(both >= 0.91 && both <= 0.99, "pigeonhole 16 x 16: %g", both);
  ck_assert_msg(small >= 0.88 && small <= 0.99, "pigeonhole 8 x 6: %g", small);
  ck_assert_msg(fixed >= 0.88 && fixed <= 0.98, "personas, no spread between tasks: %g", fixed);
  ck_assert_msg(alone < 0.85, "personas, spread between tasks: %g", alone);
}
END_TEST

/* The default interval, to the bit: what a report prints must not depend on the machine. */
START_TEST(same_bits) {
  static const double x[] = {.31, 1.7, .02, .9, 2.2, .45, 1.1, .63, 1.4, .05, .77, 3.1};
  pf_crossed t = {x, 4, 3};
  pf_interval ci, again;
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, NULL, &ci), PF_OK);
  pf_boot named = {PF_PIGEONHOLE, PF_BOOT_DRAWS, 0.95, 0};
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, &named, &again), PF_OK);
  ck_assert(ci.lo == again.lo && ci.hi == again.hi);
  ck_assert_msg(ci.lo == 0x1.c51eb851eb853p-2 && ci.hi == 0x1.b666666666667p0, "%a %a", ci.lo,
                ci.hi);
  near_interval(ci, json_object_get(fixture, "default"), "default interval", 0);
  /* another seed gives another interval, seen with few samples: with many it is much the same */
  named = (pf_boot){.draws = 99};
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, &named, &ci), PF_OK);
  named.seed = 1;
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, &named, &again), PF_OK);
  ck_assert(ci.lo != again.lo || ci.hi != again.hi);
}
END_TEST

START_TEST(edges) {
  double none[] = {NAN, NAN}, one[] = {2, NAN}, many[21], p;
  pf_interval ci;
  pf_crossed t = {none, 2, 1};
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEDIAN, NULL, &ci), PF_OK);
  ck_assert(isnan(ci.value) && isnan(ci.lo) && isnan(ci.hi));
  t.x = one; /* samples have this cell or none: they do not say how far it could be off */
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEDIAN, NULL, &ci), PF_OK);
  ck_assert(ci.value == 2 && isnan(ci.lo) && isnan(ci.hi));
  pf_tost tost;
  ck_assert_int_eq(pf_bootstrap_tost(&t, PF_MEDIAN, 3, NULL, &tost), PF_OK);
  ck_assert(tost.ci.value == 2 && isnan(tost.ci.lo) && isnan(tost.p) && !tost.equivalent);
  t = (pf_crossed){(double[]){1, NAN, 2}, 3, 1}; /* samples without a cell are left out */
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEDIAN, NULL, &ci), PF_OK);
  ck_assert(ci.value == 1.5 && ci.lo == 1 && ci.hi == 2);
  t = (pf_crossed){(double[]){1, 2}, 1, 2};
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEDIAN, NULL, &ci), PF_OK);
  ck_assert(ci.value == 1.5 && ci.lo == 1 && ci.hi == 2);
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEDIAN, &(pf_boot){.resampling = PF_PERSONAS}, &ci), PF_OK);
  ck_assert(ci.value == 1.5 && isnan(ci.lo) && isnan(ci.hi));
  t = (pf_crossed){one, 2, 1};
  t.n_tasks = 0;
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, NULL, &ci), PF_EUSAGE);
  pf_boot level = {.level = 1.5};
  t.n_tasks = 1;
  ck_assert_int_eq(pf_bootstrap(&t, PF_MEAN, &level, &ci), PF_EUSAGE);
  for (size_t i = 0; i < 21; i++)
    many[i] = 1;
  ck_assert(isnan(pf_sign_flip(many, 21, 0, PF_TWO_SIDED)));
  ck_assert(isnan(pf_sign_flip(none, 2, 0, PF_TWO_SIDED)));
  ck_assert(pf_sign_flip(many, 20, 0, PF_GREATER) == 0x1p-20);
  ck_assert(isnan(pf_wilson(0, 0).lo) && isnan(pf_mean(none, 2)) && pf_mean(one, 2) == 2);
  ck_assert(pf_rank_p(2, many, 19, PF_GREATER) == 1.0 / 20 && pf_rank_p(1, many, 19, PF_LESS) == 1);
  ck_assert_int_eq(pf_spearman(many, many, 21, &ci), PF_OK);
  ck_assert(isnan(ci.value));
  ck_assert_int_eq(pf_label_permutation(many, 0, 3, PF_LESS, NULL, &p), PF_EUSAGE);
  pf_identified id;
  int32_t wrong[] = {0, 2};
  ck_assert_int_eq(pf_identification(wrong, 2, 1, &id), PF_EUSAGE);
}
END_TEST

/* Equivalence by signs: near zero and narrow, near zero and wide, narrow and away. */
START_TEST(tost_by_signs) {
  static const struct {
    double mean, spread;
    bool yes;
  } t[] = {{.01, .02, true}, {.01, .4, false}, {.15, .02, false}, {-.15, .02, false}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    double x[8];
    for (size_t k = 0; k < 8; k++)
      x[k] = t[i].mean + t[i].spread * ((double)k - 3.5) / 3.5;
    ck_assert_msg((pf_sign_flip_tost(x, 8, .1) <= 0.05) == t[i].yes, "case %zu: %g", i,
                  pf_sign_flip_tost(x, 8, .1));
  }
}
END_TEST

int main(void) {
  if (pf_js_file(src_path("tests/fixtures/stats/stats.json"), 1 << 24, &fixture) != PF_OK) {
    fprintf(stderr, "%s\n", pf_last_error());
    return 1;
  }
  Suite *s = suite_create("inference");
  TCase *t = tcase_create("inference");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, against_others, 0, N_GROUPS);
  tcase_add_test(t, wilson_coverage);
  tcase_add_test(t, mcnemar_size);
  tcase_add_test(t, sign_flip_size);
  tcase_add_test(t, bootstrap_coverage);
  tcase_add_test(t, same_bits);
  tcase_add_test(t, edges);
  tcase_add_test(t, tost_by_signs);
  suite_add_tcase(s, t);
  int failed = tu_suite_run(s, CK_NOFORK);
  json_decref(fixture);
  return failed != 0;
}
