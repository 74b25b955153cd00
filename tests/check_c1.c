/* SPDX-License-Identifier: Apache-2.0
 * C1 and its vectors: planted additive tables, random directions of the wished length and
 * covariance, jitter of one unit in the last place; the values put back or at layer 0 change
 * nothing, and the additive value has the KL of the additive sweep. */
#include "config.h"

#include <math.h>

#include "analysis/direction.h"
#include "base/bf16.h"
#include "base/js.h"
#include "personaflow/analysis.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

enum { P = 4, T = 3, D = 5 };

/* mu + a_i + b_j + size * (-1)^(i+j), small integers: sums are exact. */
static void plant(float h[P * T][D], const float *at[P * T], float size) {
  for (int i = 0; i < P; i++)
    for (int j = 0; j < T; j++) {
      for (int e = 0; e < D; e++)
        h[i * T + j][e] =
            (float)(7 + 3 * i * (e + 1) - 2 * j * (e - 1)) + size * (float)((i + j) % 2 ? -1 : 1);
      at[i * T + j] = h[i * T + j];
    }
}

START_TEST(two_way_fit_of_planted_tables) {
  float h[P * T][D], out[D];
  const float *at[P * T];
  plant(h, at, 0);
  for (int e = 0; e < D; e++)
    h[1 * T + 2][e] = 1e6f; /* the cell itself is left out */
  ck_assert(pf_two_way_fit(at, P, T, 1, 2, D, out));
  for (int e = 0; e < D; e++)
    ck_assert_msg(fabsf(out[e] - (float)(7 + 3 * (e + 1) - 4 * (e - 1))) < 1e-4f, "%d: %g", e,
                  (double)out[e]);
  ck_assert(!pf_two_way_fit(at, 1, T, 0, 0, D, out) && !pf_two_way_fit(at, P, 1, 0, 0, D, out));
}
END_TEST

/* A checkerboard of odd width is not all interaction: rows have means of size 1/T. */
START_TEST(share_of_the_additive_part) {
  float h[P * T][D];
  const float *at[P * T];
  double inter = 0, total = 0;
  plant(h, at, 0);
  ck_assert(pf_r2_two_way(at, P, T, D) == 1);
  plant(h, at, 2);
  for (int i = 0; i < P; i++)
    for (int j = 0; j < T; j++) {
      double row = (i % 2 ? -1 : 1) / (double)T, c = (i + j) % 2 ? -1 : 1;
      inter += D * 4 * (c - row) * (c - row);
      for (int e = 0; e < D; e++) {
        double mean = 0;
        for (int k = 0; k < P * T; k++)
          mean += (double)h[k][e] / (P * T);
        total += ((double)h[i * T + j][e] - mean) * ((double)h[i * T + j][e] - mean);
      }
    }
  double r2 = pf_r2_two_way(at, P, T, D);
  ck_assert_msg(fabs(r2 - (1 - inter / total)) < 1e-12, "%.15g, planted %.15g", r2,
                1 - inter / total);
}
END_TEST

START_TEST(random_directions) {
  enum { N = 4000 };
  static double u[N], v[N], sum, squares, dot;
  pf_normals(1, N, u);
  pf_normals(2, N, v);
  for (int i = 0; i < N; i++) {
    sum += u[i];
    squares += u[i] * u[i];
    dot += u[i] * v[i];
  }
  ck_assert(fabs(sum / N) < 0.06 && fabs(squares / N - 1) < 0.08 && fabs(dot / N) < 0.06);
  pf_set_length(u, 3, N);
  squares = 0;
  for (int i = 0; i < N; i++)
    squares += u[i] * u[i];
  ck_assert(fabs(squares - 9) < 1e-9);
  double zero[2] = {0, 0};
  pf_set_length(zero, 3, 2);
  ck_assert(zero[0] == 0 && zero[1] == 0);
}
END_TEST

/* Draws lie in the span of the vectors about their mean: here on the line x = y. */
START_TEST(covariance_draws) {
  const float a[2] = {1, 2}, b[2] = {3, 4}, c[2] = {-2, -1};
  const float *v[3] = {a, b, c};
  double spread = 0, want = (1.0 / 9 + 49.0 / 9 + 64.0 / 9), one[2]; /* squares about 2/3 */
  for (uint64_t s = 0; s < 2000; s++) {
    pf_covariance_draw(v, 3, s, 2, one);
    ck_assert(fabs(one[0] - one[1]) < 1e-12);
    spread += one[0] * one[0] / 2000;
  }
  ck_assert_msg(fabs(spread / want - 1) < 0.15, "%g, want %g", spread, want);
}
END_TEST

START_TEST(jitter_is_one_unit) {
  enum { N = 300 };
  float x[N], y[N];
  int up = 0;
  for (int i = 0; i < N; i++)
    x[i] = i % 10 ? (float)(i - 150) * 0.37f : 0;
  for (int bf16 = 0; bf16 < 2; bf16++) {
    uint32_t step = bf16 ? 0x10000u : 1u;
    pf_jitter(x, bf16, 9, N, y);
    for (int i = 0; i < N; i++) {
      uint32_t a = pf_bits_of_f32(x[i]), b = pf_bits_of_f32(y[i]);
      ck_assert(x[i] == 0 ? b == a : b == a + step || b == a - step);
      up += b == a + step;
    }
  }
  ck_assert(up > 200 && up < 340);
}
END_TEST

/* ---- the experiment -------------------------------------------------------------------------- */

static char dir[256];

static json_t *lines(const char *file) {
  char path[700];
  json_t *all = json_array();
  snprintf(path, sizeof path, "%s/out/%s", dir, file);
  FILE *f = fopen(path, "r");
  ck_assert_msg(f != NULL, "no %s", path);
  for (json_t *o; (o = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;)
    json_array_append_new(all, o);
  fclose(f);
  return all;
}

static const char *text(const json_t *o, const char *key) {
  return json_string_value(json_object_get(o, key));
}

static double number(const json_t *o, const char *key) {
  return json_number_value(json_object_get(o, key));
}

static void study(const char *only) {
  char model[1024], grid[400], out[400];
  tu_use_source_data();
  tmp_text(dir, "grid.json",
           "{\"schema\":\"personaflow-grid/1\",\"name\":\"test\",\"template\":\"As {persona}, "
           "{task}\",\"baseline\":{\"persona\":\"a thoughtful person\",\"task\":\"Give advice to "
           "someone facing a difficult decision.\"},\"personas\":[{\"key\":\"pirate\",\"text\":\"a "
           "pirate\"},{\"key\":\"cook\",\"text\":\"a chef\"}],\"tasks\":[{\"key\":\"haiku\","
           "\"text\":\"Write a haiku about Monday mornings.\"}]}");
  snprintf(model, sizeof model, "%s/data/models/demo-gemma2", tu_srcdir());
  snprintf(grid, sizeof grid, "%s/grid.json", dir);
  snprintf(out, sizeof out, "%s/out", dir);
  pf_study_opts o = {
      .model = model, .grid = grid, .out_dir = out, .only = only, .layers = "3", .threads = 1};
  int rc = pf_study_run(&o);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
}

/* Its line of results.jsonl: the same cell, site and layer. */
static const json_t *additive_of(const json_t *results, const json_t *row) {
  const json_t *r;
  size_t i;
  json_array_foreach(results, i, r) {
    if (!strcmp(text(r, "persona"), text(row, "persona")) &&
        !strcmp(text(r, "task"), text(row, "task")) &&
        !strcmp(text(r, "probe"), text(row, "site")) &&
        number(r, "layer") == number(row, "layer") && json_object_get(r, "kl"))
      return r;
  }
  return NULL;
}

START_TEST(values_of_c1) {
  size_t i, same = 0, nothing = 0, draws = 0;
  const json_t *row;
  tmp_make(dir);
  study("additive,C1");
  json_t *c1 = lines("C1.jsonl"), *results = lines("results.jsonl");
  json_array_foreach(c1, i, row) {
    const char *what = text(row, "condition"), *site = text(row, "site");
    double kl = number(row, "kl10");
    bool embedding = number(row, "layer") == 0 && !strcmp(site, "p_last");
    if (!strcmp(what, "geometry"))
      continue;
    if (!strcmp(what, "I0") || (embedding && (!strcmp(what, "A1") || !strcmp(what, "S_0")))) {
      ck_assert_msg(kl == 0, "%s at %s: %g", what, site, kl);
      nothing++;
    }
    const json_t *r = strcmp(what, "A1") ? NULL : additive_of(results, row);
    if (r) {
      ck_assert_msg(kl == number(r, "kl"), "%s: %a, the sweep has %a", site, kl, number(r, "kl"));
      same++;
    }
    if (!strcmp(what, "N3_covariance") || !strcmp(what, "I1"))
      draws += json_array_size(json_object_get(row, "draws"));
  }
  ck_assert_uint_eq(same, 2 * 4); /* cells x probes at the tested layer */
  ck_assert_uint_ge(nothing, 2 * 9 * 8);
  ck_assert_uint_eq(draws, 2 * 3 * 20); /* two personas have no covariance to speak of */
  json_decref(c1);
  json_decref(results);
  tmp_remove(dir);
}
END_TEST

int main(void) {
  Suite *s = suite_create("c1");
  TCase *t = tcase_create("c1");
  tcase_set_timeout(t, 600);
  tcase_add_test(t, two_way_fit_of_planted_tables);
  tcase_add_test(t, share_of_the_additive_part);
  tcase_add_test(t, random_directions);
  tcase_add_test(t, covariance_draws);
  tcase_add_test(t, jitter_is_one_unit);
  if (!tu_tier("small"))
    tcase_add_test(t, values_of_c1);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
