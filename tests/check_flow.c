/* SPDX-License-Identifier: Apache-2.0
 * What must hold of the attention experiments whatever the model is, bit by bit: a full transplant
 * is the clean run; cutting every read of the persona is the prompt without it, positions kept;
 * cutting what is written is transplanting what was never written; heads one by one are the layer;
 * and the experiments agree with each other where they say the same. */
#include "config.h"

#include <math.h>

#include "analysis/experiment.h"
#include "analysis/flow.h"
#include "tests/lab_util.h"
#include "tests/suite.h"

enum { N_Y = 12 };

static lu_cell demo;
static pf_lab *lab;
static pf_flow f;

static void open_model(int i) {
  lu_open(&demo, i);
  lab = lu_lab(&demo, N_Y, (pf_lab_opts){0});
  ck_assert_msg(pf_flow_open(&f, lab, json_array()) == PF_OK, "%s", pf_last_error());
}

static void close_model(void) {
  json_decref(f.s.rows);
  pf_flow_close(&f);
  pf_lab_free(lab);
  pf_plan_free(&demo.plan);
}

static pf_line *line_of(const pf_track *t) {
  pf_line *x;
  ck_assert(pf_sheet_probe(&f.s, t, &x) == PF_OK);
  return x;
}

static void run(void) {
  ck_assert_msg(pf_sheet_run(&f.s) == PF_OK, "%s", pf_last_error());
}

static void same(const pf_line *a, const pf_line *b, const char *what) {
  ck_assert_msg(a->v.kl[N_Y - 1] > 0, "%s: nothing changed", what);
  for (int k = 0; k < N_Y; k++)
    ck_assert_msg(a->v.kl[k] == b->v.kl[k], "%s, step %d: %a against %a", what, k, a->v.kl[k],
                  b->v.kl[k]);
}

/* The prompt and y without the persona's tokens, the others at their positions. */
START_TEST(no_read_at_all_is_no_persona) {
  open_model(_i);
  int32_t layers = pf_lab_layers(lab), n = 0;
  size_t v = (size_t)demo.plan.info->vocab_size;
  pf_ctx *c;
  pf_seq *s;
  pf_row *rows = calloc(f.xy->n, sizeof *rows);
  float *logits = calloc((size_t)N_Y * v, sizeof *logits);
  ck_assert(pf_ctx_new(&c, demo.plan.model, &(pf_ctx_opts){.threads = 1}) == PF_OK);
  ck_assert(pf_seq_new(&s, c) == PF_OK);
  for (int32_t i = 0; i < (int32_t)f.xy->n; i++) {
    int32_t step = i - pf_track_row(f.xy, 0);
    if (i >= f.xy->x.lo && i < f.xy->x.hi)
      continue;
    rows[n++] = (pf_row){.seq = s,
                         .token = f.xy->ids[i],
                         .pos = f.xy->pos[i],
                         .out = step >= 0 && step < N_Y ? step : -1};
  }
  ck_assert(pf_eval(c, rows, (size_t)n, logits) == PF_OK);
  pf_line *x = line_of(f.xy);
  ck_assert(pf_flow_ablate(&f, x, PF_READ_A | PF_READ_B | PF_READ_C, PF_ABLATE_MASK, 0, layers) ==
            PF_OK);
  run();
  for (int32_t k = 0; k < N_Y; k++) {
    double kl = pf_kl(pf_lab_ref(lab, k)->logits, logits + (size_t)k * v, v);
    ck_assert_msg(kl == x->v.kl[k] && kl > 0, "step %d: %a, without the persona %a", k, x->v.kl[k],
                  kl);
  }
  free(rows);
  free(logits);
  pf_seq_free(s);
  pf_ctx_free(c);
  close_model();
}
END_TEST

START_TEST(nothing_written_is_a_transplant_of_the_mask) {
  open_model(_i);
  const pf_track *masked;
  int32_t layers = pf_lab_layers(lab);
  pf_who w = f.xy->who;
  w.placing = PF_MASK;
  ck_assert(pf_lab_track(lab, w, &masked) == PF_OK);
  pf_line *cut = line_of(f.xy), *swap = line_of(f.xy);
  ck_assert(pf_flow_ablate(&f, cut, PF_READ_A, PF_ABLATE_MASK, 0, layers) == PF_OK);
  ck_assert(pf_line_swap(&f.s, swap,
                         (pf_swap){.layer_hi = layers,
                                   .head = -1,
                                   .pos_lo = f.x_hi,
                                   .pos_hi = f.p_last,
                                   .src_lo = f.x_hi,
                                   .what = PF_SWAP_K | PF_SWAP_V,
                                   .src = masked->seq,
                                   .q_lo = f.p_last}) == PF_OK);
  run();
  same(cut, swap, "K2 and the mask's K,V");
  close_model();
}
END_TEST

START_TEST(heads_one_by_one_are_the_layer) {
  open_model(_i);
  int32_t layer = pf_lab_layers(lab) / 2;
  pf_line *whole = line_of(f.xy), *heads = line_of(f.xy);
  ck_assert(pf_flow_ablate(&f, whole, PF_READ_B | PF_READ_C, PF_ABLATE_MASK, layer, layer + 1) ==
            PF_OK);
  for (int32_t h = 0; h < demo.plan.info->n_heads; h++)
    ck_assert(pf_line_cut(&f.s, heads,
                          (pf_cut){.layer_lo = layer,
                                   .layer_hi = layer + 1,
                                   .head = h,
                                   .q_lo = f.p_last,
                                   .q_hi = f.end,
                                   .k_lo = f.x_lo,
                                   .k_hi = f.x_hi}) == PF_OK);
  run();
  same(whole, heads, "all heads of a layer");
  close_model();
}
END_TEST

/* An action at g2, and reads of generated tokens, leave what comes before alone. */
START_TEST(the_past_stays) {
  open_model(_i);
  pf_line *late = line_of(f.xy), *put = line_of(f.xy), *none = line_of(f.xy);
  int32_t g2 = pf_track_site(f.xy, PF_SITE_G2);
  ck_assert(pf_flow_ablate(&f, late, PF_READ_C, PF_ABLATE_MASK, 0, pf_lab_layers(lab)) == PF_OK);
  ck_assert(pf_line_tap(&f.s, put,
                        pf_lab_put(lab, f.xy, g2, 2, PF_OP_REPLACE, pf_lab_h(lab, f.xy, 0, 2))) ==
            PF_OK);
  ck_assert(pf_line_cut(&f.s, none,
                        (pf_cut){.layer_hi = 1, .head = -1, .q_lo = 9, .q_hi = 9, .k_hi = 1}) ==
            PF_OK);
  run();
  ck_assert(late->v.kl[0] == 0 && late->v.kl[1] > 0);
  ck_assert(put->v.kl[0] == 0 && put->v.kl[1] == 0 && put->v.kl[2] > 0);
  for (int k = 0; k < N_Y; k++)
    ck_assert(none->v.kl[k] == 0);
  close_model();
}
END_TEST

/* ---- the experiments ------------------------------------------------------------------------- */

static const json_t *find(const json_t *rows, const char *condition, const char *key,
                          const char *value) {
  const json_t *row;
  size_t i;
  json_array_foreach(rows, i, row) {
    const char *v = key ? json_string_value(json_object_get(row, key)) : NULL;
    if (!strcmp(json_string_value(json_object_get(row, "condition")), condition) &&
        (!key || (v && !strcmp(v, value))) && !json_object_get(row, "profile"))
      return row;
  }
  ck_abort_msg("no record %s %s", condition, value ? value : "");
  return NULL;
}

static double number(const json_t *row, const char *key) {
  ck_assert_msg(json_is_number(json_object_get(row, key)), "no number %s", key);
  return json_number_value(json_object_get(row, key));
}

START_TEST(experiments_agree) {
  open_model(_i);
  json_t *d1 = json_array(), *d2 = json_array(), *c3 = json_array();
  ck_assert_msg(pf_d1(lab, 0, d1) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_d2(lab, 0, d2) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_c3(lab, 0, c3) == PF_OK, "%s", pf_last_error());
  ck_assert(number(find(d2, "T3", NULL, NULL), "kl") == 0);
  ck_assert(number(find(d2, "T3", NULL, NULL), "closure") == 1);
  /* host = all reads of the neutral persona; T1 leaves what is written; T2 what is read */
  const char *cf = "counterfactual";
  ck_assert(number(find(d1, "K3", "ablation", cf), "kl") ==
            number(find(d2, "host", NULL, NULL), "kl"));
  ck_assert(number(find(d1, "K2", "ablation", cf), "kl") ==
            number(find(d2, "T1", NULL, NULL), "kl"));
  ck_assert(number(find(d1, "K1", "ablation", cf), "kl") ==
            number(find(d2, "T2", NULL, NULL), "kl"));
  ck_assert(number(find(d1, "K1", "ablation", "mask"), "kl") ==
            number(find(d1, "late", NULL, NULL), "kl")); /* tau = 0 */
  ck_assert(number(find(d1, "K1g", "ablation", "mask"), "kl_0") == 0);
  ck_assert(number(find(d2, "T6", NULL, NULL), "kl_0") ==
            number(find(d2, "host", NULL, NULL), "kl_0"));
  /* by construction */
  ck_assert(number(find(c3, "own", NULL, NULL), "closure") == 0);
  const json_t *row;
  size_t i, all = 0, t0 = 0;
  json_array_foreach(c3, i, row) {
    const char *d = json_string_value(json_object_get(row, "degenerate"));
    bool oracle = !strcmp(json_string_value(json_object_get(row, "condition")), "oracle");
    if (!d || !oracle)
      continue;
    ck_assert(number(row, "kl_0") == 0);
    t0 += !strcmp(d, "t0");
    all += !strcmp(d, "all") && number(row, "kl") == 0;
  }
  ck_assert(t0 >= 2 && all == 1);
  json_decref(d1);
  json_decref(d2);
  json_decref(c3);
  close_model();
}
END_TEST

/* Every score of D4 and every ladder of D5 has its record, and heads in layer order. */
START_TEST(heads_have_scores) {
  static const char *const scores[] = {"mass",       "value_weighted",       "projection",
                                       "first_mass", "first_value_weighted", "first_projection"};
  open_model(_i);
  json_t *d4 = json_array(), *d5 = json_array();
  ck_assert_msg(pf_d4(lab, 0, d4) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_d5(lab, 0, d5) == PF_OK, "%s", pf_last_error());
  ck_assert_uint_eq(json_array_size(d4), 7);
  for (size_t i = 0; i < sizeof scores / sizeof *scores; i++) {
    const json_t *row = find(d4, scores[i], NULL, NULL), *map = json_object_get(row, "map");
    ck_assert(fabs(number(row, "spearman")) <= 1);
    ck_assert_uint_eq(json_array_size(map), (size_t)pf_lab_layers(lab));
    ck_assert_uint_eq(json_array_size(json_array_get(map, 0)), (size_t)demo.plan.info->n_heads);
  }
  ck_assert(json_array_size(d5) >= 3);
  json_decref(d4);
  json_decref(d5);
  close_model();
}
END_TEST

START_TEST(layers_of_the_paper) {
  for (int32_t l = 0; l < 26; l++)
    ck_assert_int_eq(pf_paper_layer(l, 26), l);
  ck_assert_int_eq(pf_paper_layer(14, 28), 15); /* 15.08 */
  ck_assert_int_eq(pf_paper_layer(13, 13), 6);  /* 6.5: to the even one */
  ck_assert_int_eq(pf_paper_layer(14, 8), 4);
}
END_TEST

int main(void) {
  Suite *s = suite_create("flow");
  TCase *t = tcase_create("flow");
  tcase_set_timeout(t, 600);
  int n = lu_models();
  tcase_add_loop_test(t, no_read_at_all_is_no_persona, 0, n);
  tcase_add_loop_test(t, nothing_written_is_a_transplant_of_the_mask, 0, n);
  tcase_add_loop_test(t, heads_one_by_one_are_the_layer, 0, n);
  tcase_add_loop_test(t, the_past_stays, 0, n);
  tcase_add_loop_test(t, heads_have_scores, 0, n);
  tcase_add_loop_test(t, experiments_agree, 0, n);
  tcase_add_test(t, layers_of_the_paper);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
