/* SPDX-License-Identifier: Apache-2.0
 * Order statistics, number text and geometry; the published medians are recomputed from the
 * published per-cell values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/geometry.h"
#include "analysis/jsonout.h"
#include "analysis/stats.h"
#include "base/js.h"
#include "tests/fixture.h"
#include "tests/suite.h"

static double number(const json_t *o, const char *key) {
  return json_number_value(json_object_get(o, key));
}

/* The file's summary against our statistics of its per-cell values; only members whose key ends in
 * `suffix` count. */
static void check_summary(const json_t *cells, const json_t *summary, const char *prefix,
                          const char *suffix) {
  double v[64];
  size_t n = 0;
  const char *key;
  json_t *x;
  json_object_foreach((json_t *)cells, key, x) {
    const char *sep = strstr(key, "__");
    bool fits = (!prefix || ((size_t)(sep - key) == strlen(prefix) &&
                             !strncmp(key, prefix, strlen(prefix)))) &&
                (!suffix || !strcmp(sep + 2, suffix));
    if (fits)
      v[n++] = json_number_value(x);
  }
  pf_stats s = pf_stats_of(v, n);
  const json_t *iqr = json_object_get(summary, "iqr");
  ck_assert(s.median == number(summary, "median"));
  ck_assert(s.q25 == json_number_value(json_array_get(iqr, 0)));
  ck_assert(s.q75 == json_number_value(json_array_get(iqr, 1)));
  ck_assert(s.min == number(summary, "min") && s.max == number(summary, "max"));
}

static size_t check_site(const json_t *site) {
  size_t n = 1;
  const char *key;
  json_t *s;
  const json_t *cells = json_object_get(site, "per_cell");
  check_summary(cells, json_object_get(site, "summary"), NULL, NULL);
  json_object_foreach(json_object_get(site, "per_persona"), key, s) {
    check_summary(cells, s, key, NULL);
    n++;
  }
  json_object_foreach(json_object_get(site, "per_task"), key, s) {
    check_summary(cells, s, NULL, key);
    n++;
  }
  return n;
}

START_TEST(published_medians) {
  static const char *const files[] = {
      "v15_gemma2b_localized_positions", "v15_qwen15_localized_positions",
      "v15_qwen3b_localized_positions", "v16_gemma2b_diverse_grid", "v16_qwen15_diverse_grid"};
  size_t n = 0;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    json_t *root = fixture_published(files[i]);
    const char *probe, *layer;
    json_t *sites, *site;
    json_object_foreach(json_object_get(root, "causal"), probe, sites) {
      json_object_foreach(sites, layer, site) n += check_site(site);
    }
    json_decref(root);
  }
  ck_assert_uint_eq(n, 3 * 4 * 5 + 2 * 3 * 3 * (1 + 8 + 6));
}
END_TEST

START_TEST(small_cases) {
  double one[] = {3}, even[] = {4, 1, 3, 2}, holes[] = {NAN, 5, NAN, 1};
  pf_stats s = pf_stats_of(one, 1);
  ck_assert(s.median == 3 && s.q25 == 3 && s.q75 == 3 && s.n == 1);
  s = pf_stats_of(even, 4);
  ck_assert(s.median == 2.5 && s.q25 == 1.75 && s.q75 == 3.25 && s.min == 1 && s.max == 4);
  s = pf_stats_of(holes, 4);
  ck_assert(s.n == 2 && s.median == 3);
  s = pf_stats_of(holes, 0);
  ck_assert(s.n == 0 && isnan(s.median) && isnan(s.max));
}
END_TEST

START_TEST(numbers_read_back) {
  static const double x[] = {0,    0.1,   1.0 / 3,  1e300, 5e-324, 123456789012345680.0,
                             -2.5, 1e-07, 0.3 - 0.1};
  char text[32];
  for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
    pf_format_double(x[i], text, sizeof text);
    ck_assert(strtod(text, NULL) == x[i]);
  }
  pf_format_double(0.1, text, sizeof text);
  ck_assert_str_eq(text, "0.1");
  json_t *none = pf_js_num(NAN);
  ck_assert(json_is_null(none));
  json_decref(none);
}
END_TEST

START_TEST(json_text) {
  json_t *v = json_pack("{s:s, s:[f,i,n], s:{}}", "b", "a\"\\\n\x01", "a", 0.5, 3, "z");
  pf_buf b = {0};
  pf_js_dump(v, 0, &b);
  ck_assert_str_eq(pf_buf_str(&b), "{\"b\":\"a\\\"\\\\\\n\\u0001\",\"a\":[0.5,3,null],\"z\":{}}");
  json_t *again;
  ck_assert(pf_js_text("text", b.s, b.n, &again) == PF_OK);
  ck_assert(json_equal(v, again));
  json_decref(again);
  json_decref(v);
  pf_buf_free(&b);
}
END_TEST

START_TEST(additive_order) {
  float bb[] = {1, 1e8f, 1}, xb[] = {3, 1e8f + 8, 1e8f}, by[] = {0.5f, 1, -1e8f}, out[3];
  pf_additive(bb, xb, by, 3, out);
  ck_assert(out[0] == 2.5f);
  ck_assert(out[2] == 0); /* (1 + 1e8) - 1e8, where fp32 has steps of 8; D_X + D_Y first: 1 */
  volatile float dx = xb[1] - bb[1], dy = by[1] - bb[1], sum = bb[1] + dx;
  ck_assert(out[1] == sum + dy);
}
END_TEST

START_TEST(decomposition) {
  float bb[] = {0, 0, 0}, xb[] = {1, 0, 0}, by[] = {0, 2, 0}, xy[] = {1, 2, 1};
  pf_geometry g = pf_decompose(bb, xb, by, xy, 3);
  ck_assert(!g.zero && g.cos_x_y == 0 && g.norm_x == 1 && g.norm_y == 2);
  ck_assert(fabs(g.cos_xy_sum - 5 / sqrt(30)) < 1e-15);
  ck_assert(fabs(g.inter_over_xy - 1 / sqrt(6)) < 1e-15);
  g = pf_decompose(bb, bb, bb, bb, 3); /* layer 0: nothing differs */
  ck_assert(g.zero && g.cos_xy_sum == 0 && g.cos_x_y == 0 && g.inter_over_xy == 0);
  g = pf_decompose(bb, bb, by, by, 3); /* one axis has no effect */
  ck_assert(g.zero && g.cos_x_y == 0 && g.cos_xy_sum == 1 && g.inter_over_xy == 0);
}
END_TEST

int main(void) {
  Suite *s = suite_create("stats");
  TCase *t = tcase_create("stats");
  tcase_add_test(t, published_medians);
  tcase_add_test(t, small_cases);
  tcase_add_test(t, numbers_read_back);
  tcase_add_test(t, json_text);
  tcase_add_test(t, additive_order);
  tcase_add_test(t, decomposition);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
