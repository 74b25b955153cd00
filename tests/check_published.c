/* SPDX-License-Identifier: Apache-2.0
 * The paper's published per-cell values through our statistics: what the paper and its re-analysis
 * print must come out, digit for digit. Values are from arXiv 2605.23147 (tables and figures) or
 * recomputed from its result files (data/paper-results). */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/stats.h"
#include "tests/fixture.h"
#include "tests/suite.h"

enum { MAX_CELLS = 64, MAX_WORDS = 5 };

/* A quantity is a word and its arguments; `printed` has as many decimals as are compared. */
static const struct row {
  const char *file, *what, *printed;
} rows[] = {
#define G2S "v15_gemma2b_localized_positions"
#define Q1S "v15_qwen15_localized_positions"
#define Q3S "v15_qwen3b_localized_positions"
#define G2L "v16_gemma2b_diverse_grid"
#define Q1L "v16_qwen15_diverse_grid"
#define INJ "v14b_v2"
#define SET "v14e_multilayer"
#define MRK "v17_behavioral_markers"
    /* Table 1 and figure 1: KL10 at the transition, short grid. */
    {G2S, "kl p_last 6 median", ".0004"},
    {G2S, "kl p_last 6 q25", ".000"},
    {G2S, "kl p_last 6 q75", ".001"},
    {G2S, "kl p_last 10 median", ".033"},
    {G2S, "kl p_last 10 q25", ".022"},
    {G2S, "kl p_last 10 q75", ".060"},
    {G2S, "kl p_last 14 median", ".371"},
    {G2S, "kl p_last 14 q25", ".275"},
    {G2S, "kl p_last 14 q75", ".443"},
    {G2S, "kl p_last 18 median", "1.371"},
    {G2S, "kl p_last 22 median", "2.170"},
    {G2S, "kl g1 6 median", ".002"},
    {G2S, "kl g1 10 median", ".005"},
    {G2S, "kl g1 14 median", ".049"},
    {G2S, "kl g2 6 median", ".001"},
    {G2S, "kl g2 10 median", ".013"},
    {G2S, "kl g2 14 median", ".060"},
    {Q1S, "kl p_last 7 median", ".022"},
    {Q1S, "kl g1 7 median", ".027"},
    {Q1S, "kl g2 7 median", ".016"},
    {Q1S, "kl p_last 11 median", ".026"},
    {Q1S, "kl g1 11 median", ".050"},
    {Q1S, "kl g2 11 median", ".023"},
    {Q1S, "kl p_last 15 median", ".065"},
    {Q1S, "kl g1 15 median", ".118"},
    {Q1S, "kl g2 15 median", ".034"},
    {Q3S, "kl p_last 9 median", ".031"},
    {Q3S, "kl g1 9 median", ".021"},
    {Q3S, "kl g2 9 median", ".021"},
    {Q3S, "kl p_last 14 median", ".030"},
    {Q3S, "kl g1 14 median", ".045"},
    {Q3S, "kl g2 14 median", ".026"},
    {Q3S, "kl p_last 20 median", ".074"},
    {Q3S, "kl g1 20 median", ".104"},
    {Q3S, "kl g2 20 median", ".040"},
    /* Long grid. */
    {G2L, "kl p_last 10 median", ".072"},
    {G2L, "kl g1 10 median", ".017"},
    {G2L, "kl g2 10 median", ".012"},
    {G2L, "kl p_last 14 median", ".229"},
    {G2L, "kl g1 14 median", ".056"},
    {G2L, "kl g2 14 median", ".056"},
    {G2L, "kl p_last 18 median", ".518"},
    {G2L, "kl g1 18 median", ".157"},
    {G2L, "kl g2 18 median", ".138"},
    {Q1L, "kl p_last 7 median", ".030"},
    {Q1L, "kl g1 7 median", ".018"},
    {Q1L, "kl g2 7 median", ".014"},
    {Q1L, "kl p_last 15 median", ".112"},
    {Q1L, "kl g1 15 median", ".095"},
    {Q1L, "kl g2 15 median", ".097"},
    {Q1L, "kl p_last 20 median", ".198"},
    {Q1L, "kl g1 20 median", ".231"},
    {Q1L, "kl g2 20 median", ".279"},
    /* Maxima; shares below the paper's line of .1. */
    {G2L, "kl p_last 14 max", "2.46"},
    {G2L, "cell p_last 14 teacher__proposal", "2.46"},
    {G2L, "kl g1 14 max", "3.41"},
    {G2L, "kl g1 18 max", "4.73"},
    {Q3S, "kl g1 20 max", "4.58"},
    {Q3S, "kl g1 25 max", "10.8"},
    {G2S, "below p_last 14 .1", "1"},
    {G2L, "below p_last 14 .1", "9"},
    {G2L, "reviews p_last 14 median", ".191"},
    /* Geometry. */
    {G2S, "geometry p_last 14 cos_xy_sum", ".874"},
    {G2S, "geometry g1 14 cos_xy_sum", ".935"},
    {G2S, "geometry g2 14 cos_xy_sum", ".898"},
    {G2L, "geometry p_last 14 cos_xy_sum", ".818"},
    {G2L, "geometry g1 14 cos_xy_sum", ".875"},
    {G2L, "geometry g2 14 cos_xy_sum", ".863"},
    {G2S, "geometry p_last 14 cos_x_y", ".222"},
    {G2S, "geometry g1 14 cos_x_y", ".159"},
    {G2S, "geometry g2 14 cos_x_y", ".181"},
    {G2L, "geometry p_last 14 cos_x_y", ".171"},
    {G2L, "geometry g1 14 cos_x_y", ".234"},
    {G2L, "geometry g2 14 cos_x_y", ".218"},
    {G2S, "geometry p_last 14 inter_over_xy", ".598"},
    {G2S, "geometry g1 14 inter_over_xy", ".423"},
    {G2S, "geometry g2 14 inter_over_xy", ".573"},
    {G2L, "geometry p_last 14 inter_over_xy", ".695"},
    {G2L, "geometry g1 14 inter_over_xy", ".653"},
    {G2L, "geometry g2 14 inter_over_xy", ".672"},
    {Q1L, "geometry p_last 7 cos_xy_sum", ".862"},
    {Q1L, "geometry p_last 7 cos_x_y", ".469"},
    {Q1L, "geometry p_last 7 inter_over_xy", ".689"},
    {G2S, "geometry p_user_last 0 cos_xy_sum", "0"},
    {G2S, "geometry p_user_last 1 cos_xy_sum", "1.00"},
    {G2S, "geometry p_user_last 1 inter_over_xy", ".07"},
    /* Medians of a persona or a task, long grid. */
    {G2L, "persona p_last 14 engineer", ".262"},
    {G2L, "persona p_last 14 counselor", ".306"},
    {G2L, "persona p_last 14 founder", ".141"},
    {G2L, "persona p_last 14 teacher", ".391"},
    {G2L, "persona p_last 14 journalist", ".226"},
    {G2L, "persona p_last 14 doctor", ".224"},
    {G2L, "persona p_last 14 lawyer", ".194"},
    {G2L, "persona p_last 14 chef", ".239"},
    {G2L, "task p_last 14 arch", ".191"},
    {G2L, "task p_last 14 plan", ".258"},
    {G2L, "task p_last 14 proposal", ".101"},
    {G2L, "task p_last 14 policy", ".261"},
    {G2L, "task p_last 14 haiku", ".199"},
    {G2L, "task p_last 14 recommend", ".477"},
    /* Injection into the host, one layer and sets of layers. */
    {INJ, "injected kl_host_clean median", "3.05"},
    {INJ, "injected kl_host_clean q25", "2.05"},
    {INJ, "injected kl_host_clean q75", "7.08"},
    {INJ, "injected kl_host_clean mean", "6.53"},
    {INJ, "injected kl_host_clean max", "33.8"},
    {INJ, "injected kl_oracle median", "2.64"},
    {INJ, "injected kl_oracle q25", "1.50"},
    {INJ, "injected kl_oracle q75", "5.14"},
    {INJ, "injected kl_oracle mean", "4.56"},
    {INJ, "injected kl_oracle max", "23.8"},
    {INJ, "closure kl_oracle", ".217"},
    {INJ, "better kl_oracle", "24"},
    {INJ, "injected kl_cached median", "2.84"},
    {INJ, "injected kl_cached q25", "1.78"},
    {INJ, "injected kl_cached q75", "5.14"},
    {INJ, "injected kl_cached mean", "5.47"},
    {INJ, "injected kl_cached max", "30.4"},
    {INJ, "closure kl_cached", ".103"},
    {INJ, "better kl_cached", "23"},
    {SET, "injected 14 median", "2.84"},
    {SET, "closure 14", ".103"},
    {SET, "injected 10_12_14 median", "2.81"},
    {SET, "injected 10_12_14 q25", "1.67"},
    {SET, "injected 10_12_14 q75", "4.99"},
    {SET, "injected 10_12_14 mean", "5.32"},
    {SET, "injected 10_12_14 max", "30.3"},
    {SET, "closure 10_12_14", ".137"},
    {SET, "better 10_12_14", "23"},
    {SET, "injected 10_12_14_16_18 median", "2.82"},
    {SET, "injected 10_12_14_16_18 q25", "1.74"},
    {SET, "injected 10_12_14_16_18 q75", "4.36"},
    {SET, "injected 10_12_14_16_18 mean", "4.73"},
    {SET, "injected 10_12_14_16_18 max", "25.7"},
    {SET, "closure 10_12_14_16_18", ".147"},
    {SET, "better 10_12_14_16_18", "22"},
    {SET, "injected 10_12_14_16_18_20_22 median", "3.04"},
    {SET, "injected 10_12_14_16_18_20_22 q25", "1.82"},
    {SET, "injected 10_12_14_16_18_20_22 q75", "4.33"},
    {SET, "injected 10_12_14_16_18_20_22 mean", "4.68"},
    {SET, "injected 10_12_14_16_18_20_22 max", "25.0"},
    {SET, "closure 10_12_14_16_18_20_22", ".134"},
    {SET, "better 10_12_14_16_18_20_22", "19"},
    {SET, "injected 6_8_10_12_14_16_18_20_22 median", "3.01"},
    {SET, "injected 6_8_10_12_14_16_18_20_22 q25", "1.79"},
    {SET, "injected 6_8_10_12_14_16_18_20_22 q75", "4.27"},
    {SET, "injected 6_8_10_12_14_16_18_20_22 mean", "4.65"},
    {SET, "injected 6_8_10_12_14_16_18_20_22 max", "25.0"},
    {SET, "closure 6_8_10_12_14_16_18_20_22", ".143"},
    {SET, "better 6_8_10_12_14_16_18_20_22", "19"},
    /* The host's KL of the teacher cells. */
    {INJ, "injected-cell teacher__plan", "18.6"},
    {INJ, "injected-cell teacher__arch", "33.8"},
    /* Markers. */
    {MRK, "any clean", "16"},
    {MRK, "any additive", "14"},
    {MRK, "any remove_X", "15"},
    {MRK, "any bare", "1"},
    {MRK, "wilson-lo clean", ".47"},
    {MRK, "wilson-hi clean", ".82"},
    {MRK, "wilson-lo additive", ".39"},
    {MRK, "wilson-hi additive", ".76"},
    {MRK, "wilson-lo remove_X", ".43"},
    {MRK, "wilson-hi remove_X", ".79"},
    {MRK, "wilson-lo bare", ".01"},
    {MRK, "wilson-hi bare", ".20"},
    {MRK, "distinct clean", "1.21"},
    {MRK, "distinct additive", "0.92"},
    {MRK, "distinct remove_X", "0.96"},
    {MRK, "distinct bare", "0.08"},
    {MRK, "only clean additive", "3"},
    {MRK, "only additive clean", "1"},
    {MRK, "mcnemar clean additive", ".63"},
    {MRK, "only clean remove_X", "2"},
    {MRK, "only remove_X clean", "1"},
    {MRK, "mcnemar clean remove_X", "1"},
    {MRK, "only additive remove_X", "2"},
    {MRK, "only remove_X additive", "3"},
    {MRK, "mcnemar additive remove_X", "1"},
    {MRK, "only additive bare", "13"},
    {MRK, "only bare additive", "0"},
    {MRK, "mcnemar additive bare", ".00024"},
    {MRK, "same-text additive", "3"},
    {MRK, "same-text remove_X", "2"},
    {MRK, "persona-any engineer", "3"},
    {MRK, "persona-any counselor", "3"},
    {MRK, "persona-any teacher", "3"},
    {MRK, "persona-any founder", "2"},
    {MRK, "persona-any journalist", "2"},
    {MRK, "persona-any doctor", "2"},
    {MRK, "persona-any chef", "1"},
    {MRK, "persona-any lawyer", "0"},
    /* KL10 against the norm of the interaction, medians of sites; with p_user_last; there alone. */
    {G2S, "spearman p_last g1 g2", ".96"},
    {Q1S, "spearman p_last g1 g2", ".86"},
    {Q3S, "spearman p_last g1 g2", ".78"},
    {G2S, "spearman p_user_last p_last g1 g2", ".55"},
    {Q1S, "spearman p_user_last p_last g1 g2", ".58"},
    {Q3S, "spearman p_user_last p_last g1 g2", ".43"},
    {Q1S, "spearman p_user_last", "-1.0"},
    {Q3S, "spearman p_user_last", "-.7"},
    /* p_user_last. */
    {G2S, "kl p_user_last 22 median", ".016"},
    {G2S, "geometry p_user_last 22 inter_over_xy", ".99"},
    {Q1S, "below p_user_last 7 .1", "12"},
    {Q1S, "below p_user_last 11 .1", "12"},
    {Q1S, "below p_user_last 15 .1", "12"},
    {Q1S, "below p_user_last 20 .1", "12"},
    {Q1S, "below p_user_last 24 .1", "12"},
    {Q3S, "below p_user_last 9 .1", ">=11"},
    {Q3S, "below p_user_last 14 .1", ">=11"},
    {Q3S, "below p_user_last 20 .1", ">=11"},
    {Q3S, "below p_user_last 25 .1", ">=11"},
    {Q3S, "below p_user_last 31 .1", ">=11"},
    {Q1S, "kl p_user_last 24 median", ".0066"},
    {Q3S, "kl p_user_last 31 median", ".0062"},
};

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct asked {
  const json_t *root;
  char word[MAX_WORDS][32];
  int n;
} asked;

static const json_t *at(const json_t *o, const char *key) {
  const json_t *v = json_object_get(o, key);
  ck_assert_msg(v != NULL, "no %s", key);
  return v;
}

static double number(const json_t *v) {
  ck_assert(json_is_number(v));
  return json_number_value(v);
}

static double stat_of(double *x, size_t n, const char *name) {
  double mean = pf_mean(x, n);
  pf_stats s = pf_stats_of(x, n);
  const struct {
    const char *name;
    double value;
  } all[] = {{"median", s.median}, {"q25", s.q25}, {"q75", s.q75},
             {"min", s.min},       {"max", s.max}, {"mean", mean}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (!strcmp(all[i].name, name))
      return all[i].value;
  ck_abort_msg("no statistic %s", name);
  return NAN;
}

/* Cells of a site whose key fits: "persona__", "__task", NULL for all. */
static size_t cells_of(const asked *q, const char *part, double *x) {
  size_t n = 0;
  const char *key;
  json_t *v;
  const json_t *site = at(at(at(q->root, "causal"), q->word[1]), q->word[2]);
  json_object_foreach((json_t *)at(site, "per_cell"), key, v) {
    ck_assert_uint_lt(n, MAX_CELLS);
    if (!part || strstr(key, part))
      x[n++] = number(v);
  }
  ck_assert_uint_gt(n, 0);
  return n;
}

/* ---- quantities at sites ----------------------------------------------------------------------
 */

static double kl(const asked *q) {
  double x[MAX_CELLS];
  return stat_of(x, cells_of(q, NULL, x), q->word[3]);
}

static double cell(const asked *q) {
  return number(
      at(at(at(at(at(q->root, "causal"), q->word[1]), q->word[2]), "per_cell"), q->word[3]));
}

static double below(const asked *q) {
  double x[MAX_CELLS], line = strtod(q->word[3], NULL), k = 0;
  size_t n = cells_of(q, NULL, x);
  for (size_t i = 0; i < n; i++)
    k += x[i] < line;
  return k;
}

/* The three tasks of the injection and marker tests. */
static double reviews(const asked *q) {
  double x[MAX_CELLS];
  size_t n = cells_of(q, "__arch", x);
  n += cells_of(q, "__plan", x + n);
  n += cells_of(q, "__proposal", x + n);
  return stat_of(x, n, q->word[3]);
}

static double persona(const asked *q) {
  char part[64];
  double x[MAX_CELLS];
  snprintf(part, sizeof part, "%s__", q->word[3]);
  return stat_of(x, cells_of(q, part, x), "median");
}

static double task(const asked *q) {
  char part[64];
  double x[MAX_CELLS];
  snprintf(part, sizeof part, "__%s", q->word[3]);
  return stat_of(x, cells_of(q, part, x), "median");
}

/* The files hold medians only. */
static double geometry(const asked *q) {
  const json_t *layer = at(at(at(q->root, "decomposition"), q->word[1]), q->word[2]);
  return number(at(at(layer, q->word[3]), "median"));
}

static double spearman(const asked *q) {
  double x[MAX_CELLS], y[MAX_CELLS], v[MAX_CELLS];
  size_t n = 0;
  pf_interval r;
  for (int p = 1; p < q->n; p++) {
    const char *layer;
    json_t *site;
    json_object_foreach((json_t *)at(at(q->root, "causal"), q->word[p]), layer, site) {
      asked one = {q->root, {"", "", "", "inter_over_xy"}, 4};
      snprintf(one.word[1], sizeof one.word[1], "%s", q->word[p]);
      snprintf(one.word[2], sizeof one.word[2], "%s", layer);
      x[n] = stat_of(v, cells_of(&one, NULL, v), "median");
      y[n++] = geometry(&one);
    }
  }
  ck_assert_int_eq(pf_spearman(x, y, n, &r), PF_OK);
  return r.value;
}

/* ---- injection --------------------------------------------------------------------------------
 */

/* Of v14b: a member of each cell; of v14e: a layer set's cells. */
static size_t injected_cells(const asked *q, const char *name, double *x) {
  const json_t *results = at(q->root, "results"), *set = json_object_get(results, name);
  size_t n = 0;
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)(set ? at(set, "kls") : results), key, v) x[n++] =
      number(set ? v : at(v, name));
  return n;
}

static double injected(const asked *q) {
  double x[MAX_CELLS];
  return stat_of(x, injected_cells(q, q->word[1], x), q->word[2]);
}

static double injected_cell(const asked *q) {
  return number(at(at(at(q->root, "results"), q->word[1]), "kl_host_clean"));
}

static json_t *host_file;

/* The host of each cell stands in v14b; both files have the cells in the same order. */
static size_t hosted(const asked *q, double *x, double *host) {
  asked h = {host_file, {""}, 1};
  size_t n = injected_cells(q, q->word[1], x);
  ck_assert_uint_eq(injected_cells(&h, "kl_host_clean", host), n);
  return n;
}

static double closure(const asked *q) {
  double x[MAX_CELLS], host[MAX_CELLS];
  size_t n = hosted(q, x, host);
  for (size_t i = 0; i < n; i++)
    x[i] = 1 - x[i] / host[i];
  return stat_of(x, n, "median");
}

static double better(const asked *q) {
  double x[MAX_CELLS], host[MAX_CELLS], k = 0;
  size_t n = hosted(q, x, host);
  for (size_t i = 0; i < n; i++)
    k += x[i] < host[i];
  return k;
}

/* ---- markers ----------------------------------------------------------------------------------
 */

static size_t marked(const asked *q, const char *condition, bool *any) {
  size_t n = 0;
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)at(q->root, "results"), key, v) any[n++] =
      json_is_true(at(at(v, condition), "any"));
  return n;
}

static size_t count(const asked *q, size_t *n) {
  bool any[MAX_CELLS];
  size_t k = 0;
  *n = marked(q, q->word[1], any);
  for (size_t i = 0; i < *n; i++)
    k += any[i];
  return k;
}

static double any(const asked *q) {
  size_t n;
  return (double)count(q, &n);
}
static double wilson_lo(const asked *q) {
  size_t n, k = count(q, &n);
  return pf_wilson(k, n).lo;
}
static double wilson_hi(const asked *q) {
  size_t n, k = count(q, &n);
  return pf_wilson(k, n).hi;
}

static double distinct(const asked *q) {
  double x[MAX_CELLS];
  size_t n = 0;
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)at(q->root, "results"), key, v) x[n++] =
      (double)json_array_size(at(at(v, q->word[1]), "hits"));
  return pf_mean(x, n);
}

/* Cells with a marker under the first condition and none under the second. */
static size_t only_first(const asked *q, int first, int second) {
  bool a[MAX_CELLS], b[MAX_CELLS];
  size_t n = marked(q, q->word[first], a), k = 0;
  marked(q, q->word[second], b);
  for (size_t i = 0; i < n; i++)
    k += a[i] && !b[i];
  return k;
}
static double only(const asked *q) {
  return (double)only_first(q, 1, 2);
}
static double mcnemar(const asked *q) {
  return pf_mcnemar(only_first(q, 1, 2), only_first(q, 2, 1));
}

static double same_text(const asked *q) {
  double k = 0;
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)at(q->root, "results"), key, v) k +=
      !strcmp(json_string_value(at(at(v, "clean"), "text")),
              json_string_value(at(at(v, q->word[1]), "text")));
  return k;
}

static double persona_any(const asked *q) {
  double k = 0;
  size_t n = strlen(q->word[1]);
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)at(q->root, "results"), key, v) k +=
      !strncmp(key, q->word[1], n) && key[n] == '_' && json_is_true(at(at(v, "clean"), "any"));
  return k;
}

/* ---- the comparison ---------------------------------------------------------------------------
 */

static const struct {
  const char *name;
  double (*value)(const asked *q);
} quantities[] = {{"kl", kl},
                  {"cell", cell},
                  {"below", below},
                  {"reviews", reviews},
                  {"persona", persona},
                  {"task", task},
                  {"geometry", geometry},
                  {"spearman", spearman},
                  {"injected", injected},
                  {"injected-cell", injected_cell},
                  {"closure", closure},
                  {"better", better},
                  {"any", any},
                  {"wilson-lo", wilson_lo},
                  {"wilson-hi", wilson_hi},
                  {"distinct", distinct},
                  {"only", only},
                  {"mcnemar", mcnemar},
                  {"same-text", same_text},
                  {"persona-any", persona_any}};
enum { N_QUANTITIES = sizeof quantities / sizeof *quantities, N_ROWS = sizeof rows / sizeof *rows };

static double value_of(const json_t *root, const char *what) {
  asked q = {root, {""}, 0};
  q.n = sscanf(what, "%31s %31s %31s %31s %31s", q.word[0], q.word[1], q.word[2], q.word[3],
               q.word[4]);
  for (size_t i = 0; i < N_QUANTITIES; i++)
    if (!strcmp(quantities[i].name, q.word[0]))
      return quantities[i].value(&q);
  ck_abort_msg("no quantity %s", what);
  return NAN;
}

/* Rounds as print does: to the decimals that `printed` has, without a leading zero if it has none.
 */
static void as_printed(double x, const char *printed, char *out, size_t size) {
  const char *point = strchr(printed, '.');
  snprintf(out, size, "%.*f", point ? (int)strlen(point + 1) : 0, x + copysign(1e-12, x));
  char *zero = strstr(out, "0.");
  const char *digit = *printed == '-' ? printed + 1 : printed;
  if (*digit == '.' && zero == out + (*out == '-'))
    memmove(zero, zero + 1, strlen(zero));
}

START_TEST(published_values) {
  json_t *root = NULL;
  const char *open = "";
  size_t wrong = 0;
  host_file = fixture_published(INJ);
  for (size_t i = 0; i < N_ROWS; i++) {
    char got[64];
    if (strcmp(open, rows[i].file) != 0) {
      json_decref(root);
      root = fixture_published(open = rows[i].file);
    }
    double x = value_of(root, rows[i].what);
    as_printed(x, rows[i].printed, got, sizeof got);
    bool same = !strncmp(rows[i].printed, ">=", 2) ? x >= strtod(rows[i].printed + 2, NULL)
                                                   : !strcmp(got, rows[i].printed);
    if (!same)
      fprintf(stderr, "%s: %s: %s (%.17g) instead of %s\n", rows[i].file, rows[i].what, got, x,
              rows[i].printed);
    wrong += !same;
  }
  json_decref(root);
  json_decref(host_file);
  ck_assert_msg(wrong == 0, "%zu of %d values differ", wrong, N_ROWS);
}
END_TEST

int main(void) {
  Suite *s = suite_create("published");
  TCase *t = tcase_create("published");
  tcase_add_test(t, published_values);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
