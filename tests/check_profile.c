/* SPDX-License-Identifier: Apache-2.0
 * Profiles of the forward pass: operations equal those that the scalar kernels were asked for, no
 * time of a thread is lost or counted twice, no bit changes, actions have their own rows. */
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "model/kv.h"
#include "model_util.h"
#include "personaflow/profile.h"
#include "tests/suite.h"

static const char *const models[] = {"tests/mini/g2-window", "tests/mini/q2-odd"};
enum { N_MODELS = sizeof models / sizeof *models, LEN = 75, MORE = 5, THREADS = 2 };

typedef struct fix {
  pf_model *m;
  pf_ctx *c;
  pf_seq *s, *t;
  pf_profile *p;
  float *x, *y;
} fix;

static int n_cases(void) {
  return N_MODELS * (tu_tier("small") ? 1 : PF_N_PRECISIONS - 1);
}

static fix open_fix(int i) {
  fix f = {.m = tu_open_as(models[i % N_MODELS], (pf_precision)(1 + i / N_MODELS))};
  f.c = tu_ctx(f.m, THREADS);
  f.s = tu_seq(f.c);
  f.t = tu_seq(f.c);
  f.x = tu_logits(f.m);
  f.y = tu_logits(f.m);
  ck_assert(pf_profile_new(&f.p, f.c, 1) == PF_OK);
  return f;
}

static void close_fix(fix *f) {
  pf_profile_free(f->p);
  pf_seq_free(f->s);
  pf_seq_free(f->t);
  pf_ctx_free(f->c);
  pf_model_close(f->m);
  free(f->x);
  free(f->y);
}

/* A prompt with a gap, and tokens one by one; the second sequence's K,V where there are swaps. */
static void run(fix *f, pf_seq *s, float *x) {
  tu_run(f->c, s, f->m, 1, 0, 40, NULL);
  tu_run(f->c, s, f->m, 1, 44, LEN, x);
  for (int32_t i = LEN; i < LEN + MORE; i++)
    tu_run(f->c, s, f->m, 1, i, i + 1, x);
}

static double sum(const fix *f, const char *name, size_t field) {
  size_t n;
  const pf_profile_row *r = pf_profile_rows(f->p, &n);
  double all = 0;
  ck_assert(r && n > 0);
  for (size_t i = 0; i < n; i++)
    if (!name || !strcmp(r[i].name, name))
      all += field == offsetof(pf_profile_row, calls)
                 ? (double)r[i].calls
                 : *(const double *)((const char *)&r[i] + field);
  return all;
}

/* ---- operations ------------------------------------------------------------------------------ */

static const pf_simd *real;
static _Atomic uint64_t asked; /* multiply-adds */

#define COUNTED_GEMM(name)                                                                         \
  static void counted_##name(const pf_gemm *g) {                                                   \
    atomic_fetch_add(&asked, (uint64_t)g->m * g->n * g->k);                                        \
    real->name(g);                                                                                 \
  }
#define COUNTED_ATTN(name)                                                                         \
  static void counted_##name(const pf_attn *a) {                                                   \
    uint64_t pairs = 0;                                                                            \
    for (size_t j = 0; j < a->nq; j++)                                                             \
      for (size_t b = 0; b < a->nblk; b++)                                                         \
        pairs += (uint64_t)__builtin_popcount(a->mask[j][b]);                                      \
    atomic_fetch_add(&asked, pairs * a->d);                                                        \
    real->name(a);                                                                                 \
  }
COUNTED_GEMM(gemm_x3_bf16)
COUNTED_GEMM(gemm_bf16)
COUNTED_GEMM(gemm_f32)
COUNTED_GEMM(gemm_s8)
COUNTED_ATTN(qk)
COUNTED_ATTN(pv)
COUNTED_ATTN(qk_bf16)
COUNTED_ATTN(pv_bf16)

static pf_simd counted(void) {
  int rc;
  real = pf_simd_for("scalar", &rc);
  ck_assert(rc == PF_OK);
  pf_simd s = *real;
  s.gemm_x3_bf16 = counted_gemm_x3_bf16;
  s.gemm_bf16 = counted_gemm_bf16;
  s.gemm_f32 = counted_gemm_f32;
  s.gemm_s8 = counted_gemm_s8;
  s.qk = counted_qk;
  s.pv = counted_pv;
  s.qk_bf16 = counted_qk_bf16;
  s.pv_bf16 = counted_pv_bf16;
  return s;
}

START_TEST(operations_are_those_of_the_kernels) {
  fix f = open_fix(_i);
  pf_simd simd = counted();
  pf_cut cut = {.layer_hi = 2, .head = -1, .q_lo = 50, .q_hi = 70, .k_lo = 3, .k_hi = 17};
  f.c->simd = &simd;
  ck_assert_int_eq(pf_seq_set_cuts(f.s, &cut, 1), PF_OK);
  asked = 0;
  pf_profile_start(f.p);
  run(&f, f.s, f.x);
  pf_profile_stop(f.p);
  double flops = sum(&f, NULL, offsetof(pf_profile_row, flops));
  ck_assert(asked > 0);
  ck_assert_msg(flops == 2.0 * (double)asked, "%.0f operations, the kernels were asked for %.0f",
                flops, 2.0 * (double)asked);
  close_fix(&f);
}
END_TEST

/* The closed forms, for a model without windows and a run without gaps of which the last row alone
 * is read. */
START_TEST(operations_are_the_closed_form) {
  fix f = open_fix(1);
  const pf_model_info *i = pf_model_get_info(f.m);
  pf_profile_start(f.p);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  pf_profile_stop(f.p);
  double n = LEN, d = i->d_model, heads = (double)i->n_heads * i->d_head, layers = i->n_layers,
         read = n * (layers - 1) + 1, /* rows behind K,V, of all layers */
      pairs = (n * (n + 1) / 2 * (layers - 1) + n) * i->n_heads;
  size_t at = offsetof(pf_profile_row, flops);
  ck_assert(sum(&f, "attn.q_proj", at) == 2 * read * d * heads);
  ck_assert(sum(&f, "attn.k_proj", at) == 2 * n * d * i->n_kv_heads * i->d_head * layers);
  ck_assert(sum(&f, "mlp.down_proj", at) == 2 * read * d * i->d_ff);
  ck_assert(sum(&f, "attn.scores", at) == 2 * i->d_head * pairs);
  ck_assert(sum(&f, "attn.pv", at) == 2 * i->d_head * pairs);
  ck_assert(sum(&f, "unembed", at) == 2 * d * i->vocab_size);
  close_fix(&f);
}
END_TEST

/* ---- time ------------------------------------------------------------------------------------ */

/* Roles, waiting and the time between add up to the time of all threads. */
START_TEST(no_time_is_lost) {
  fix f = open_fix(_i);
  pf_profile_start(f.p);
  run(&f, f.s, f.x);
  pf_profile_stop(f.p);
  double rows = sum(&f, NULL, offsetof(pf_profile_row, seconds)),
         all = pf_profile_busy(f.p) * pf_profile_threads(f.p);
  ck_assert(all > 0 && pf_profile_busy(f.p) <= pf_profile_wall(f.p));
  ck_assert_msg(fabs(rows - all) <= 1e-4 * all + 1e-5, "%g seconds in rows, %g in threads", rows,
                all);
  close_fix(&f);
}
END_TEST

static int by_begin(const void *a, const void *b) {
  const pf_profile_span *x = a, *y = b;
  return x->thread != y->thread ? x->thread - y->thread : (x->from > y->from) - (x->from < y->from);
}

START_TEST(spans_follow_each_other) {
  fix f = open_fix(_i);
  size_t n, dropped;
  pf_profile_start(f.p);
  run(&f, f.s, f.x);
  pf_profile_stop(f.p);
  const pf_profile_span *all = pf_profile_spans(f.p, &n, &dropped);
  ck_assert(n > 100 && dropped == 0);
  pf_profile_span *s = malloc(n * sizeof *s);
  memcpy(s, all, n * sizeof *s);
  qsort(s, n, sizeof *s, by_begin);
  for (size_t i = 0; i < n; i++) {
    ck_assert(s[i].from >= 0 && s[i].to >= s[i].from && s[i].to <= 1.0001 * pf_profile_wall(f.p));
    ck_assert(s[i].thread >= 0 && s[i].thread < THREADS && s[i].name);
    ck_assert(i == 0 || s[i].thread != s[i - 1].thread || s[i].from >= s[i - 1].to);
  }
  free(s);
  close_fix(&f);
}
END_TEST

/* ---- what it leaves alone, what it sees ------------------------------------------------------ */

START_TEST(no_bit_changes) {
  fix f = open_fix(_i);
  run(&f, f.s, f.x);
  pf_profile_start(f.p);
  run(&f, f.t, f.y);
  pf_profile_stop(f.p);
  tu_same(f.m, f.x, f.y, "with a profile");
  double rows = sum(&f, NULL, offsetof(pf_profile_row, calls));
  tu_run(f.c, f.s, f.m, 1, LEN + MORE, LEN + MORE + 1, f.x); /* stopped: it does not count */
  ck_assert(rows == sum(&f, NULL, offsetof(pf_profile_row, calls)));
  close_fix(&f);
}
END_TEST

START_TEST(actions_have_their_rows) {
  fix f = open_fix(_i);
  int32_t layers = pf_model_get_info(f.m)->n_layers;
  tu_run(f.c, f.t, f.m, 2, 0, 8, NULL);
  pf_tap tap = {.hook = tu_hook(f.m, "blocks.0.hook_resid_pre"),
                .layer = 1,
                .head = -1,
                .pos_lo = 3,
                .pos_hi = 9,
                .op = PF_OP_SCALE,
                .scale = 0.5f};
  pf_swap swap = {0, layers, -1, 2, 4, 2, PF_SWAP_K | PF_SWAP_V, f.t, 0, 0};
  ck_assert_int_eq(pf_seq_set_taps(f.s, &tap, 1), PF_OK);
  ck_assert_int_eq(pf_seq_set_swaps(f.s, &swap, 1), PF_OK);
  pf_profile_start(f.p);
  tu_run(f.c, f.s, f.m, 1, 0, 20, f.x);
  pf_profile_stop(f.p);
  ck_assert(sum(&f, "hook:hook_resid_pre", offsetof(pf_profile_row, calls)) > 0);
  ck_assert(sum(&f, "attn.swaps", offsetof(pf_profile_row, calls)) > 0);
  ck_assert(sum(&f, "attn.swaps", offsetof(pf_profile_row, seconds)) > 0);
  size_t n;
  const pf_profile_row *r = pf_profile_rows(f.p, &n);
  for (size_t i = 0; i < n; i++)
    ck_assert(strcmp(r[i].name, "hook:hook_resid_pre") != 0 || r[i].layer == 1);
  close_fix(&f);
}
END_TEST

/* A profile that begins again has forgotten what it had. */
START_TEST(a_profile_begins_again) {
  fix f = open_fix(0);
  size_t n, dropped;
  pf_profile_start(f.p);
  run(&f, f.s, f.x);
  pf_profile_stop(f.p);
  double calls = sum(&f, NULL, offsetof(pf_profile_row, calls));
  pf_profile_spans(f.p, &n, &dropped);
  size_t spans = n;
  pf_profile_start(f.p);
  run(&f, f.t, f.x);
  pf_profile_stop(f.p);
  ck_assert(calls > 0 && sum(&f, NULL, offsetof(pf_profile_row, calls)) == calls);
  pf_profile_spans(f.p, &n, &dropped);
  ck_assert(n > 0 && n < spans + spans / 2); /* threads share parts out as they come */
  close_fix(&f);
}
END_TEST

START_TEST(a_context_has_one) {
  fix f = open_fix(0);
  pf_profile *second;
  ck_assert_int_eq(pf_profile_new(&second, f.c, 0), PF_EUSAGE);
  pf_profile_free(f.p);
  ck_assert_int_eq(pf_profile_new(&f.p, f.c, 0), PF_OK);
  close_fix(&f);
}
END_TEST

int main(void) {
  Suite *s = suite_create("profile");
  TCase *t = tcase_create("profile");
  tcase_set_timeout(t, 600);
  tcase_add_loop_test(t, operations_are_those_of_the_kernels, 0, n_cases());
  tcase_add_test(t, operations_are_the_closed_form);
  tcase_add_loop_test(t, no_time_is_lost, 0, N_MODELS);
  tcase_add_loop_test(t, spans_follow_each_other, 0, N_MODELS);
  tcase_add_loop_test(t, no_bit_changes, 0, n_cases());
  tcase_add_loop_test(t, actions_have_their_rows, 0, n_cases());
  tcase_add_test(t, a_context_has_one);
  tcase_add_test(t, a_profile_begins_again);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
