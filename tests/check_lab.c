/* SPDX-License-Identifier: Apache-2.0
 * Tracks and trials: what must be exactly 0, trials against whole forward passes (0 bits), the gap
 * and the mask, what is planned against what is computed. */
#include "config.h"

#include <math.h>

#include "analysis/experiment.h"
#include "analysis/sheet.h"
#include "base/rng.h"
#include "tests/heap.h"
#include "tests/lab_util.h"
#include "tests/suite.h"

enum { N_Y = 14 };

static lu_cell demo;
static pf_lab *lab, *whole;

static void open_model(int i) {
  lu_open(&demo, i);
  lab = lu_lab(&demo, N_Y, (pf_lab_opts){0});
  whole = lu_lab(&demo, N_Y, (pf_lab_opts){.no_sharing = true});
}

static void close_model(void) {
  pf_lab_free(lab);
  pf_lab_free(whole);
  pf_plan_free(&demo.plan);
}

static const pf_track *track(pf_lab *l, pf_who w) {
  const pf_track *t;
  ck_assert_msg(pf_lab_track(l, w, &t) == PF_OK, "%s", pf_last_error());
  return t;
}

static pf_who own(void) {
  return (pf_who){.persona = pf_lab_persona(lab), .task = pf_lab_task(lab)};
}

static void run(pf_lab *l, const pf_trial *v, size_t n) {
  ck_assert_msg(pf_lab_run(l, v, n) == PF_OK, "%s", pf_last_error());
}

/* Residuals alone are the same ones as those of a track that is kept, at every site. */
START_TEST(values_alone_are_the_same_values) {
  open_model(_i);
  const size_t bytes = pf_lab_d(lab) * sizeof(float);
  for (int persona = PF_BASE; persona < 2; persona++) {
    pf_who w = {.persona = persona, .task = 0}, alone = {persona, 0, PF_PLAIN, true};
    const pf_track *t = track(lab, w), *v = track(whole, alone);
    for (int s = 0; s < PF_N_SITES; s++)
      for (int32_t k = 0; k <= pf_lab_layers(lab); k++) {
        int32_t at = pf_track_site(t, (pf_site)s);
        ck_assert_int_eq(at, pf_track_site(v, (pf_site)s));
        ck_assert_msg(!memcmp(pf_lab_h(lab, t, at, k), pf_lab_h(whole, v, at, k), bytes),
                      "persona %d, %s, layer %d", persona, pf_site_names[s], (int)k);
      }
  }
  close_model();
}
END_TEST

/* ---- exactly nothing ------------------------------------------------------------------------- */

START_TEST(putting_back_what_is_there_changes_nothing) {
  open_model(_i);
  const pf_track *t = track(lab, own());
  size_t n = 0, per = (size_t)pf_lab_layers(lab) + 1;
  pf_trial *v = pf_lab_alloc(lab, PF_N_SITES * per + 1, sizeof *v);
  size_t size = (PF_N_SITES * per + 1) * N_Y;
  double *kl = pf_lab_alloc(lab, 3 * size, sizeof *kl); /* and the other divergences */
  for (int s = 0; s < PF_N_SITES; s++)
    for (int32_t k = 0; k <= pf_lab_layers(lab); k++, n++) {
      int32_t at = pf_track_site(t, (pf_site)s);
      pf_tap *tap = pf_lab_alloc(lab, 1, sizeof *tap);
      *tap = pf_lab_put(lab, t, at, k, PF_OP_REPLACE, pf_lab_h(lab, t, at, k));
      v[n] = (pf_trial){.t = t,
                        .taps = tap,
                        .n_taps = 1,
                        .from = pf_site_prefix[s],
                        .to = N_Y,
                        .kl = kl + n * N_Y,
                        .reverse_kl = kl + size + n * N_Y,
                        .jsd = kl + 2 * size + n * N_Y};
    }
  v[n] = (pf_trial){.t = t, .to = N_Y, .kl = kl + n * N_Y}; /* nothing at all */
  run(lab, v, n + 1);
  for (size_t i = 0; i < 3 * size; i++)
    ck_assert_msg(kl[i] == 0, "trial %zu, step %zu: %g", i % size / N_Y, i % N_Y, kl[i]);
  close_model();
}
END_TEST

/* Before the first layer the same token has the same residual in every prompt. */
START_TEST(additive_at_layer_0_changes_nothing) {
  open_model(_i);
  pf_who other = {.persona = PF_BASE, .task = PF_BASE};
  const pf_track *t = track(lab, own()), *bb = track(lab, other);
  int32_t at = pf_track_site(t, PF_SITE_P_LAST), from = pf_track_site(bb, PF_SITE_P_LAST);
  double kl[N_Y];
  pf_tap tap = pf_lab_put(lab, t, at, 0, PF_OP_REPLACE, pf_lab_h(lab, bb, from, 0));
  run(lab, &(pf_trial){.t = t, .taps = &tap, .n_taps = 1, .to = N_Y, .kl = kl}, 1);
  for (int k = 0; k < N_Y; k++)
    ck_assert(kl[k] == 0);
  close_model();
}
END_TEST

/* The last residual decides on the next token alone: in any host, the clean one makes KL 0 there.
 */
START_TEST(the_last_residual_makes_the_first_step_clean) {
  open_model(_i);
  const pf_track *t = track(lab, own()), *host = track(lab, (pf_who){PF_BASE, own().task, 0, 0});
  int32_t last = pf_lab_layers(lab);
  double kl[2][N_Y];
  pf_tap tap = pf_lab_put(lab, host, pf_track_site(host, PF_SITE_P_LAST), last, PF_OP_REPLACE,
                          pf_lab_h(lab, t, pf_track_site(t, PF_SITE_P_LAST), last));
  pf_trial v[2] = {{.t = host, .to = N_Y, .kl = kl[0]},
                   {.t = host, .taps = &tap, .n_taps = 1, .to = N_Y, .kl = kl[1]}};
  run(lab, v, 2);
  ck_assert(kl[0][0] > 0 && kl[1][0] == 0);
  for (int k = 1; k < N_Y; k++)
    ck_assert(kl[1][k] == kl[0][k] && kl[0][k] > 0);
  close_model();
}
END_TEST

/* ---- against whole forward passes ------------------------------------------------------------ */

static uint32_t draws;

static uint32_t draw(uint32_t n) {
  uint32_t w[4];
  pf_philox(41, 0, draws++, w);
  return w[0] % n;
}

static pf_who any_who(void) {
  static const int personas[] = {PF_BASE, PF_NOBODY, 0, PF_NEUTRAL, PF_BASE_ALT};
  pf_who w = {.persona = personas[draw(5)], .task = draw(2) ? own().task : PF_BASE};
  if (draw(3) == 0)
    w = own();
  else if (draw(4) == 0)
    w = (pf_who){.persona = PF_BASE, .task = own().task, .placing = PF_GAP};
  else if (draw(4) == 0)
    w.placing = w.persona == PF_NOBODY ? PF_PLAIN : PF_MASK;
  return w;
}

/* The same trial in a lab: its draws do not depend on the lab. */
static pf_trial any_trial(pf_lab *l, pf_who who, pf_who donor) {
  const pf_track *t = track(l, who), *from = track(l, donor);
  pf_trial v = {.t = t, .from = (int32_t)draw(3), .to = 4 + (int32_t)draw(N_Y)};
  int32_t layers = pf_lab_layers(l), at = (int32_t)draw((uint32_t)t->n_prompt), k;
  v.n_taps = draw(3);
  pf_tap *taps = v.taps = pf_lab_alloc(l, 2, sizeof *taps);
  for (size_t i = 0; i < v.n_taps; i++) {
    k = (int32_t)draw((uint32_t)layers + 1);
    taps[i] = pf_lab_put(l, t, at, k, draw(2) ? PF_OP_REPLACE : PF_OP_ADD,
                         pf_lab_h(l, from, (int32_t)draw((uint32_t)from->n), k));
  }
  pf_cut *cuts = pf_lab_alloc(l, 1, sizeof *cuts);
  k = (int32_t)draw((uint32_t)layers);
  cuts[0] = (pf_cut){.layer_lo = k,
                     .layer_hi = k + 1 + (int32_t)draw((uint32_t)(layers - k)),
                     .head = (int32_t)draw(3) - 1,
                     .q_lo = t->x.hi + (int32_t)draw(5),
                     .q_hi = t->pos[t->n - 1],
                     .k_lo = t->x.lo,
                     .k_hi = t->x.lo + 2};
  v.cuts = cuts;
  v.n_cuts = draw(2);
  pf_swap *swaps = pf_lab_alloc(l, 1, sizeof *swaps);
  swaps[0] = (pf_swap){.layer_lo = k,
                       .layer_hi = layers,
                       .head = -1,
                       .pos_lo = 2,
                       .pos_hi = 6,
                       .src_lo = 2,
                       .what = PF_SWAP_K | PF_SWAP_V,
                       .src = from->seq};
  v.swaps = swaps;
  v.n_swaps = draw(3) == 0;
  v.kl = pf_lab_alloc(l, 64, sizeof *v.kl);
  v.logprob = pf_lab_alloc(l, 64, sizeof *v.logprob);
  v.reverse_kl = pf_lab_alloc(l, 64, sizeof *v.reverse_kl);
  v.jsd = pf_lab_alloc(l, 64, sizeof *v.jsd);
  return v;
}

START_TEST(trials_equal_whole_passes) {
  enum { N = 60 };
  pf_trial a[N], b[N];
  open_model(_i);
  track(lab, own());
  track(whole, own());
  for (int i = 0; i < N; i++) {
    pf_who who = any_who(), donor = any_who();
    if (!pf_lab_has(lab, who) || !pf_lab_has(lab, donor))
      who = donor = own();
    uint32_t at = draws;
    a[i] = any_trial(lab, who, donor);
    draws = at;
    b[i] = any_trial(whole, who, donor);
  }
  run(lab, a, N);
  run(whole, b, N);
  int changed = 0;
  for (int i = 0; i < N; i++) {
    ck_assert_msg(!memcmp(a[i].kl, b[i].kl, 64 * sizeof(double)), "trial %d: KL", i);
    ck_assert_msg(!memcmp(a[i].logprob, b[i].logprob, 64 * sizeof(double)), "trial %d", i);
    ck_assert_msg(!memcmp(a[i].reverse_kl, b[i].reverse_kl, 64 * sizeof(double)), "trial %d", i);
    ck_assert_msg(!memcmp(a[i].jsd, b[i].jsd, 64 * sizeof(double)), "trial %d: JSD", i);
    changed += a[i].kl[0] != 0 && a[i].jsd[0] > 0 && a[i].reverse_kl[0] > 0;
  }
  ck_assert_int_gt(changed, N / 2);
  const pf_lab_cost *ca = pf_lab_costs(lab), *cb = pf_lab_costs(whole);
  ck_assert(ca->changed < cb->changed && ca->whole == cb->whole && ca->scored == cb->scored);
  close_model();
}
END_TEST

/* ---- placings -------------------------------------------------------------------------------- */

/* Cutting all reads of the persona is the prompt in which the persona is masked. */
START_TEST(all_cuts_are_the_mask) {
  open_model(_i);
  pf_who w = own();
  const pf_track *t = track(lab, w);
  w.placing = PF_MASK;
  const pf_track *masked = track(lab, w);
  double kl[2][N_Y];
  pf_cut cut = {.layer_hi = pf_lab_layers(lab),
                .head = -1,
                .q_lo = t->x.hi,
                .q_hi = (int32_t)t->n,
                .k_lo = t->x.lo,
                .k_hi = t->x.hi};
  pf_trial v[2] = {{.t = t, .cuts = &cut, .n_cuts = 1, .to = N_Y, .kl = kl[0]},
                   {.t = masked, .to = N_Y, .kl = kl[1]}};
  run(lab, v, 2);
  ck_assert(kl[0][0] > 0 && !memcmp(kl[0], kl[1], sizeof kl[0]));
  close_model();
}
END_TEST

/* What follows the baseline persona stands where it stands in the cell's own prompt. */
START_TEST(a_gap_moves_what_follows) {
  open_model(_i);
  const pf_track *t = track(lab, own()),
                 *gap = track(lab, (pf_who){PF_BASE, own().task, PF_GAP, false});
  ck_assert_int_lt((int)gap->n_prompt, (int)t->n_prompt);
  ck_assert_int_eq(gap->pos[gap->x.hi - 1], gap->x.hi - 1);
  ck_assert_int_eq(gap->pos[gap->x.hi], t->x.hi);
  for (size_t k = 1; k <= N_Y + 4; k++) {
    ck_assert_int_eq(gap->ids[gap->n - k], t->ids[t->n - k]);
    ck_assert_int_eq(gap->pos[gap->n - k], t->pos[t->n - k]);
  }
  ck_assert(!pf_lab_has(lab, (pf_who){0, 0, PF_GAP, false}));
  close_model();
}
END_TEST

/* ---- plans and limits ------------------------------------------------------------------------ */

START_TEST(a_plan_counts_what_runs) {
  open_model(_i);
  pf_lab *dry = lu_lab(&demo, N_Y, (pf_lab_opts){.dry = true}),
         *tight = lu_lab(&demo, N_Y, (pf_lab_opts){.memory = 1}); /* a trial at a time */
  pf_lab *labs[] = {lab, dry, tight};
  pf_trial v[3][20];
  for (int k = 0; k < 3; k++) {
    draws = 1000;
    for (int i = 0; i < 20; i++)
      v[k][i] = any_trial(labs[k], own(), (pf_who){PF_BASE, PF_BASE, 0, 0});
    run(labs[k], v[k], 20);
  }
  const pf_lab_cost *a = pf_lab_costs(lab), *b = pf_lab_costs(dry);
  ck_assert_uint_eq(a->rows, b->rows);
  ck_assert_uint_eq(a->base, b->base);
  ck_assert_uint_eq(a->changed, b->changed);
  ck_assert_uint_eq(a->scored, b->scored);
  for (int i = 0; i < 20; i++)
    ck_assert(!memcmp(v[0][i].kl, v[2][i].kl, 64 * sizeof(double)) && v[1][i].kl[0] == 0);
  pf_lab_free(dry);
  pf_lab_free(tight);
  close_model();
}
END_TEST

/* Lists that are added to in turn, so that neither can grow in place. */
START_TEST(lists_of_a_line_are_not_copied_each_time) {
  enum { N = 1000 };
  lu_open(&demo, _i);
  lab = lu_lab(&demo, N_Y, (pf_lab_opts){.dry = true});
  pf_sheet s = {.l = lab};
  pf_line *x[2];
  const pf_track *t = track(lab, own());
  for (int k = 0; k < 2; k++)
    ck_assert_int_eq(pf_sheet_probe(&s, t, &x[k]), PF_OK);
  for (int32_t i = 0; i < 2 * N; i++)
    ck_assert_int_eq(pf_line_cut(&s, x[i % 2], (pf_cut){.q_lo = i}), PF_OK);
  for (size_t i = 0; i < 2 * N; i++)
    ck_assert_int_eq(x[i % 2]->v.cuts[i / 2].q_lo, (int32_t)i);
  ck_assert_uint_lt(pf_lab_needs(lab).arena, 5 * 2 * N * sizeof(pf_cut));
  pf_sheet_free(&s);
  pf_lab_free(lab);
  pf_plan_free(&demo.plan);
}
END_TEST

/* Their K,V is not kept for the cell, and not at all where the taps were what was wanted. */
START_TEST(donors_go_with_their_unit) {
  enum { TIMES = 20 };
  lu_open(&demo, _i);
  lab = lu_lab(&demo, N_Y, (pf_lab_opts){0});
  const pf_track *t = track(lab, own());
  const pf_seq *s;
  uint64_t kv = 0;
  size_t heap = 0;
  for (int i = 0; i < TIMES; i++) {
    ck_assert_int_eq(pf_lab_donor(lab, t, t->x.hi, NULL, 0, &s), PF_OK);
    ck_assert(s != NULL && pf_lab_donor(lab, t, t->x.hi, NULL, 0, NULL) == PF_OK);
    pf_lab_clear(lab);
    kv = kv ? kv : pf_lab_needs(lab).kv;
    heap = heap ? heap : tu_heap_now().bytes;
  }
  ck_assert_uint_eq(pf_lab_needs(lab).kv, kv);
  ck_assert_uint_lt(tu_heap_now().bytes, heap + (1 << 16));
  pf_lab_free(lab);
  pf_plan_free(&demo.plan);
}
END_TEST

/* The records of an experiment's parts in a lab, each counted. */
static void all_parts(pf_lab *l, const pf_experiment *e) {
  for (size_t k = 0; k < pf_experiment_parts(e, &demo.plan, demo.cell); k++) {
    json_t *rows = json_array();
    ck_assert_msg(e->cell(l, k, rows) == PF_OK, "%s: %s", e->key, pf_last_error());
    pf_lab_count_records(l, rows);
    json_decref(rows);
    pf_lab_clear(l);
  }
}

static size_t heap_before, heap_most, heap_least;

/* At most and at least: what large pieces are aligned to may be counted with them. */
static void look_at_heap(void *user) {
  tu_heap h = tu_heap_now();
  size_t most = h.bytes - heap_before, least = h.large < most ? most - h.large : 0;
  (void)user;
  heap_most = most > heap_most ? most : heap_most;
  heap_least = least > heap_least ? least : heap_least;
}

/* D3 and C1 take longest. */
static bool in_tier(const char *key) {
  bool few = !strcmp(key, "D4") || !strcmp(key, "D5"),
       many = !strcmp(key, "D3") || !strcmp(key, "C1");
  return tu_tier("big") || (tu_tier("small") ? few : !many);
}

/* Of every experiment: what a lab has on the heap in the least memory that the plan asks for. */
START_TEST(a_plan_bounds_what_is_held) {
  lu_open(&demo, _i);
  for (size_t i = 0; i < pf_n_experiments; i++) {
    const pf_experiment *e = &pf_experiments[i];
    if (!e->cell || !in_tier(e->key))
      continue;
    pf_lab *dry = lu_lab(&demo, demo.plan.y_max, (pf_lab_opts){.dry = true});
    all_parts(dry, e);
    pf_lab_need plan = pf_lab_needs(dry);
    pf_lab_free(dry);
    heap_most = heap_least = 0;
    heap_before = tu_heap_now().bytes;
    lab = lu_lab(&demo, demo.plan.y_max,
                 (pf_lab_opts){.memory = pf_lab_bytes(&plan), .need = plan, .tick = look_at_heap});
    all_parts(lab, e);
    pf_lab_need had = pf_lab_needs(lab);
    ck_assert_uint_le(pf_lab_bytes(&had), pf_lab_bytes(&plan));
    if (heap_before) {
      ck_assert_msg(heap_least <= pf_lab_bytes(&plan), "%s: %zu bytes, planned %llu", e->key,
                    heap_least, (unsigned long long)pf_lab_bytes(&plan));
      ck_assert_msg(3 * heap_most > 2 * pf_lab_bytes(&plan), "%s: %zu bytes, planned %llu", e->key,
                    heap_most, (unsigned long long)pf_lab_bytes(&plan));
    }
    pf_lab_free(lab);
  }
  pf_plan_free(&demo.plan);
}
END_TEST

START_TEST(an_action_that_meets_no_row_is_a_defect) {
  open_model(_i);
  const pf_track *t = track(lab, own());
  double kl[N_Y];
  pf_tap tap = pf_lab_put(lab, t, (int32_t)t->n - 1, 3, PF_OP_REPLACE, pf_lab_h(lab, t, 0, 3));
  pf_trial v = {.t = t, .taps = &tap, .n_taps = 1, .to = 2, .kl = kl};
  ck_assert_int_eq(pf_lab_run(lab, &v, 1), PF_EINTERNAL);
  ck_assert_int_eq(pf_lab_track(lab, (pf_who){99, 0, 0, 0}, &t), PF_EINTERNAL);
  close_model();
}
END_TEST

int main(void) {
  Suite *s = suite_create("lab");
  TCase *t = tcase_create("lab");
  tcase_set_timeout(t, 600);
  int n = lu_models();
  tcase_add_loop_test(t, putting_back_what_is_there_changes_nothing, 0, n);
  tcase_add_loop_test(t, values_alone_are_the_same_values, 0, n);
  tcase_add_loop_test(t, additive_at_layer_0_changes_nothing, 0, n);
  tcase_add_loop_test(t, the_last_residual_makes_the_first_step_clean, 0, n);
  tcase_add_loop_test(t, trials_equal_whole_passes, 0, n);
  tcase_add_loop_test(t, all_cuts_are_the_mask, 0, n);
  tcase_add_loop_test(t, a_gap_moves_what_follows, 0, n);
  tcase_add_loop_test(t, a_plan_counts_what_runs, 0, n);
  tcase_add_loop_test(t, lists_of_a_line_are_not_copied_each_time, 0, 1);
  tcase_add_loop_test(t, donors_go_with_their_unit, 0, 1);
  tcase_add_loop_test(t, a_plan_bounds_what_is_held, 0, tu_tier("small") ? 1 : LU_DEMOS);
  tcase_add_loop_test(t, an_action_that_meets_no_row_is_a_defect, 0, 1);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
