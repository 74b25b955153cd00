/* SPDX-License-Identifier: Apache-2.0
 * Rows that enter at a layer, and forks that share the layers below: the bits are those of whole
 * runs, a fork owns the blocks that it changes, wrong use is refused. */
#include <math.h>

#include "base/rng.h"
#include "model/kv.h"
#include "model_util.h"
#include "tests/suite.h"
#include "tests/util.h"

static const char *const models[] = {"tests/mini/g2-window", "tests/mini/q2-odd",
                                     "tests/mini/g2-nocap-mqa", "tests/mini/q2-mixed"};
enum { N_MODELS = sizeof models / sizeof *models, LEN = 44 };

typedef struct fix {
  pf_model *m;
  const pf_model_info *i;
  pf_ctx *c;
  pf_seq *base; /* stream 1, positions below LEN */
  float
      *resid; /* (n_layers + 1, LEN, d_model) of base: what enters each layer and leaves the last */
  float *x, *y; /* (LEN + 1, V) */
} fix;

static int n_cases(void) {
  return tu_tier("small") ? 2 : N_MODELS * (PF_N_PRECISIONS - 1);
}

static void capture_base(fix *f) {
  size_t d = (size_t)f->i->d_model, n = (size_t)f->i->n_layers;
  pf_tap *t = calloc(n + 1, sizeof *t);
  for (size_t l = 0; l <= n; l++)
    t[l] = (pf_tap){
        .hook = tu_hook(f->m, l < n ? "blocks.0.hook_resid_pre" : "blocks.0.hook_resid_post"),
        .layer = (int32_t)(l < n ? l : n - 1),
        .head = -1,
        .pos_hi = LEN,
        .op = PF_OP_CAPTURE,
        .out = f->resid + l * LEN * d,
        .out_stride = d};
  ck_assert_int_eq(pf_seq_set_taps(f->base, t, n + 1), PF_OK);
  tu_run(f->c, f->base, f->m, 1, 0, LEN, NULL);
  ck_assert_int_eq(pf_seq_set_taps(f->base, NULL, 0), PF_OK);
  free(t);
}

static fix open_fix(int i) {
  fix f = {.m = tu_open_as(models[i % N_MODELS], (pf_precision)(1 + i / N_MODELS))};
  f.i = pf_model_get_info(f.m);
  f.c = tu_ctx(f.m, 2);
  f.base = tu_seq(f.c);
  f.resid = calloc(((size_t)f.i->n_layers + 1) * LEN * (size_t)f.i->d_model, sizeof *f.resid);
  f.x = calloc((LEN + 1) * (size_t)f.i->vocab_size, sizeof *f.x);
  f.y = calloc((LEN + 1) * (size_t)f.i->vocab_size, sizeof *f.y);
  capture_base(&f);
  return f;
}

static void close_fix(fix *f) {
  pf_seq_free(f->base);
  pf_ctx_free(f->c);
  pf_model_close(f->m);
  free(f->resid);
  free(f->x);
  free(f->y);
}

/* The row of base's position p in s, entering at a layer; its logits go to row p. */
static pf_row row_at(const fix *f, pf_seq *s, int32_t p, int32_t layer) {
  size_t d = (size_t)f->i->d_model;
  return (pf_row){.seq = s,
                  .token = tu_token(f->m, 1, p),
                  .pos = p,
                  .out = p,
                  .layer = layer,
                  .resid = layer ? f->resid + ((size_t)layer * LEN + (size_t)p) * d : NULL};
}

static pf_seq *fork_layers(const fix *f, const int32_t *layers) {
  pf_seq *s;
  int rc = pf_seq_fork_layers(&s, f->base, LEN, layers);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
  return s;
}

/* Rows for what `layers` leaves unfinished; returns their number. */
static size_t rows_of(const fix *f, pf_seq *s, const int32_t *layers, pf_row *rows) {
  size_t n = 0;
  for (int32_t p = 0; p < LEN; p++)
    if (layers[p] < f->i->n_layers)
      rows[n++] = row_at(f, s, p, layers[p]);
  return n;
}

static void eval(const fix *f, const pf_row *rows, size_t n, float *logits) {
  int rc = pf_eval(f->c, rows, n, logits);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
}

/* Logits of every position, and of one more token. */
static void whole(const fix *f, pf_seq *s, float *logits) {
  pf_row rows[LEN + 1];
  for (int32_t p = 0; p <= LEN; p++)
    rows[p] = row_at(f, s, p, 0);
  eval(f, rows, LEN + 1, logits);
}

static void same_row(const fix *f, int32_t p, const char *what) {
  size_t v = (size_t)f->i->vocab_size;
  tu_same(f->m, f->x + (size_t)p * v, f->y + (size_t)p * v, what);
}

/* y: whole runs with the actions that set() gives s; x: the fork. The token after the last row sees
 * all K,V. */
static void fork_equals_whole(fix *f, void (*set)(const fix *f, pf_seq *s, void *arg), void *arg,
                              const int32_t *layers, const char *what) {
  pf_seq *s = fork_layers(f, layers), *w = tu_seq(f->c);
  pf_row rows[LEN + 1];
  set(f, s, arg);
  set(f, w, arg);
  whole(f, w, f->y);
  size_t n = rows_of(f, s, layers, rows);
  rows[n++] = row_at(f, s, LEN, 0);
  uint64_t before = pf_ctx_row_layers(f->c), cost = (uint64_t)f->i->n_layers;
  eval(f, rows, n, f->x);
  for (int32_t p = 0; p < LEN; p++)
    cost += (uint64_t)(f->i->n_layers - layers[p]);
  ck_assert_uint_eq(pf_ctx_row_layers(f->c) - before, cost);
  for (size_t r = 0; r < n; r++)
    same_row(f, rows[r].pos, what);
  pf_seq_free(s);
  pf_seq_free(w);
}

/* What is said to be reached is: of the positions from p on, entered one layer later with what the
 * base has there, one has other logits than in the whole run. (Not each: a softmax may leave a key
 * nothing.) */
static void one_layer_less(fix *f, void (*set)(const fix *f, pf_seq *s, void *arg), void *arg,
                           const int32_t *reached, int32_t p, const char *what) {
  size_t v = (size_t)f->i->vocab_size, n, differ = 0;
  int32_t layers[LEN];
  pf_row rows[2 * LEN];
  pf_seq *w = tu_seq(f->c);
  set(f, w, arg);
  whole(f, w, f->y);
  for (int32_t k = 0; k < LEN; k++)
    layers[k] = reached[k] + (k >= p && reached[k] < f->i->n_layers);
  pf_seq *s = fork_layers(f, layers);
  set(f, s, arg);
  n = rows_of(f, s, layers, rows);
  for (int32_t k = p; k < LEN; k++)
    if (layers[k] == f->i->n_layers)
      rows[n++] = row_at(f, s, k, layers[k]);
  eval(f, rows, n, f->x);
  for (size_t k = (size_t)p; k < LEN; k++)
    differ += memcmp(f->x + k * v, f->y + k * v, v * sizeof *f->x) != 0;
  ck_assert_msg(differ > 0, "%s: positions from %d on could enter at layer %d", what, (int)p,
                (int)layers[p]);
  pf_seq_free(s);
  pf_seq_free(w);
}

static void all_layers(const fix *f, int32_t *layers) {
  for (int32_t p = 0; p < LEN; p++)
    layers[p] = f->i->n_layers;
}

static void set_tap(const fix *f, pf_seq *s, void *arg) {
  (void)f;
  ck_assert_int_eq(pf_seq_set_taps(s, arg, 1), PF_OK);
}

/* Half of a residual has the same norms as all of it, so that nothing would arrive: it gets another
 * direction. */
enum { RAMP = 1 << 16 };
static pf_tap *add_ramp(pf_tap *t, const float *ramp) {
  t->op = PF_OP_ADD;
  t->value = ramp;
  t->n_keys = LEN;
  return t;
}

/* Every point of a layer, halved at one position: what pf_reach_taps leaves is enough, and no more
 * than is needed. */
START_TEST(every_hook_reaches_what_is_said) {
  fix f = open_fix(_i);
  float *ramp = calloc(RAMP, sizeof *ramp);
  for (size_t k = 0; k < RAMP; k++)
    ramp[k] = (float)(k % 7) * .25f - .5f;
  size_t n;
  const pf_hook_info *h = pf_hooks(f.m, &n);
  int32_t layers[LEN], changed = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t at = 5 + (int32_t)(7 * i + (size_t)_i) % (LEN - 6);
    pf_tap t = {.hook = h[i].id,
                .layer = h[i].per_layer ? (int32_t)(i + (size_t)_i) % f.i->n_layers : -1,
                .head = -1,
                .pos_lo = at,
                .pos_hi = at + 1 + (int32_t)(i % 2),
                .op = PF_OP_SCALE,
                .scale = 0.5f};
    all_layers(&f, layers);
    pf_reach_taps(&t, 1, LEN, layers);
    ck_assert_int_eq(layers[at - 1], f.i->n_layers);
    fork_equals_whole(&f, set_tap, &t, layers, h[i].name);
    if (t.pos_hi < LEN && layers[t.pos_hi] < f.i->n_layers)
      one_layer_less(&f, set_tap, add_ramp(&t, ramp), layers, t.pos_hi, h[i].name);
    changed += layers[LEN - 1] < f.i->n_layers && layers[LEN - 1] > 0;
  }
  ck_assert_int_gt(changed, 5);
  free(ramp);
  close_fix(&f);
}
END_TEST

static void set_cut(const fix *f, pf_seq *s, void *arg) {
  (void)f;
  ck_assert_int_eq(pf_seq_set_cuts(s, arg, 1), PF_OK);
}

START_TEST(cuts_reach_their_queries) {
  fix f = open_fix(_i);
  int32_t layers[LEN], last = f.i->n_layers - 1;
  const pf_cut cuts[] = {{0, 1, -1, 20, 21, 14, 19},
                         {1, last + 1, 0, 20, 25, 0, 19},
                         {last, last + 1, -1, 33, 36, 30, 36}};
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    pf_cut c = cuts[i];
    all_layers(&f, layers);
    pf_reach_cuts(&c, 1, LEN, layers);
    fork_equals_whole(&f, set_cut, &c, layers, "cut");
    if (layers[c.q_hi] < f.i->n_layers)
      one_layer_less(&f, set_cut, &c, layers, c.q_hi, "cut");
    one_layer_less(&f, set_cut, &c, layers, c.q_lo, "queries of a cut");
  }
  close_fix(&f);
}
END_TEST

/* What acts on nothing reaches nothing. */
START_TEST(nothing_is_reached) {
  fix f = open_fix(0);
  int32_t layers[LEN];
  const pf_cut cuts[] = {{0, 2, -1, 20, 20, 3, 9}, {0, 2, -1, 20, 25, 9, 9}};
  const pf_swap swap = {
      .layer_hi = 2, .head = -1, .pos_lo = 5, .pos_hi = 20, .q_lo = 3, .q_hi = 12};
  all_layers(&f, layers);
  pf_reach_cuts(cuts, 2, LEN, layers);
  pf_reach_swaps(&swap, 1, LEN, layers); /* its queries stand before what is behind the span */
  for (int32_t p = 0; p < LEN; p++)
    ck_assert_int_eq(layers[p], f.i->n_layers);
  close_fix(&f);
}
END_TEST

static void set_swap(const fix *f, pf_seq *s, void *arg) {
  (void)f;
  ck_assert_int_eq(pf_seq_set_swaps(s, arg, 1), PF_OK);
}

START_TEST(swaps_reach_what_follows) {
  fix f = open_fix(_i);
  int32_t layers[LEN];
  pf_seq *other = tu_seq(f.c);
  tu_run(f.c, other, f.m, 2, 0, LEN, NULL);
  pf_swap w = {1, f.i->n_layers, -1, 8, 14, 3, PF_SWAP_K | PF_SWAP_V, other, 0, 0};
  all_layers(&f, layers);
  pf_reach_swaps(&w, 1, LEN, layers);
  ck_assert_int_eq(layers[13], f.i->n_layers);
  fork_equals_whole(&f, set_swap, &w, layers, "moved keys of another branch");
  w.q_lo = 20;
  w.q_hi = 22;
  all_layers(&f, layers);
  pf_reach_swaps(&w, 1, LEN, layers);
  ck_assert_int_eq(layers[19], f.i->n_layers);
  ck_assert_int_eq(layers[20], 1);
  ck_assert_int_eq(layers[22], f.i->n_layers > 1 ? 2 : 1);
  fork_equals_whole(&f, set_swap, &w, layers, "a swap that some queries see");
  pf_seq_free(other);
  close_fix(&f);
}
END_TEST

/* Rows that see the same swaps go together, and heads that are cut with those that are not; a
 * captured pattern makes them go head by head. */
START_TEST(swaps_together_and_apart) {
  fix f = open_fix(_i);
  size_t v = (size_t)f.i->vocab_size, heads = (size_t)f.i->n_heads;
  float *pattern = calloc(heads * (LEN + 1) * (LEN + 1), sizeof *pattern);
  pf_seq *other = tu_seq(f.c), *a = tu_seq(f.c), *b = tu_seq(f.c), *plain = tu_seq(f.c);
  tu_run(f.c, other, f.m, 2, 0, LEN, NULL);
  pf_swap w[] = {
      {0, f.i->n_layers, -1, 8, 14, 3, PF_SWAP_K | PF_SWAP_V, other, 0, 0},
      {0, 1, f.i->n_kv_heads - 1, 15, 17, 15, PF_SWAP_V, other, 0, 0},
      {1, f.i->n_layers, -1, 18, 20, 18, PF_SWAP_K, other, 26, 31}}; /* rows 26 to 30 alone */
  pf_tap t = {.hook = tu_hook(f.m, "blocks.0.attn.hook_pattern"), .head = -1, .pos_hi = LEN + 1};
  t.op = PF_OP_CAPTURE, t.out = pattern, t.n_keys = LEN + 1;
  t.out_stride = heads * (LEN + 1);
  pf_tap taps[8];
  ck_assert(f.i->n_layers <= 8);
  for (int32_t l = 0; l < f.i->n_layers; l++) {
    taps[l] = t;
    taps[l].layer = l;
  }
  pf_cut cuts[] = {{0, f.i->n_layers, f.i->n_heads - 1, 20, 33, 4, 12},
                   {1, f.i->n_layers, 0, 9, 12, 0, 9},
                   {0, 1, -1, 21, 22, 13, 20}};
  for (int k = 0; k < 2; k++) {
    ck_assert_int_eq(pf_seq_set_swaps(k ? b : a, w, 3), PF_OK);
    ck_assert_int_eq(pf_seq_set_cuts(k ? b : a, cuts, 3), PF_OK);
  }
  ck_assert_int_eq(pf_seq_set_taps(b, taps, (size_t)f.i->n_layers), PF_OK);
  whole(&f, a, f.x);
  whole(&f, b, f.y);
  for (int32_t p = 0; p <= LEN; p++)
    same_row(&f, p, "swaps");
  whole(&f, plain, f.y);
  for (int32_t p = 0; p <= LEN; p++)
    ck_assert((memcmp(f.x + (size_t)p * v, f.y + (size_t)p * v, v * sizeof *f.x) != 0) >= (p > 15));
  free(pattern);
  pf_seq_free(a);
  pf_seq_free(b);
  pf_seq_free(plain);
  pf_seq_free(other);
  close_fix(&f);
}
END_TEST

/* Forks at several (layer, position), a new branch and finished rows in one call, in order of
 * positions, so that branches and layers mix; each has the bits it has alone. */
START_TEST(entry_layers_mix_in_a_call) {
  fix f = open_fix(_i);
  enum { FORKS = 4 };
  size_t v = (size_t)f.i->vocab_size, n = 0;
  float *together = calloc((FORKS + 2) * LEN * v, sizeof *together);
  pf_row *rows = calloc((FORKS + 2) * LEN, sizeof *rows);
  int32_t layers[FORKS][LEN];
  pf_seq *s[FORKS], *fresh = tu_seq(f.c);
  for (int32_t k = 0; k < FORKS; k++) {
    for (int32_t p = 0; p < LEN; p++)
      layers[k][p] = p < 7 * k + 1 ? f.i->n_layers : (k + p / 32) % f.i->n_layers;
    s[k] = fork_layers(&f, layers[k]);
  }
  for (int32_t p = 0; p < LEN; p++) {
    for (int32_t k = FORKS - 1; k >= 0; k--)
      if (layers[k][p] < f.i->n_layers) {
        rows[n] = row_at(&f, s[k], p, layers[k][p]);
        rows[n++].out = k * LEN + p;
      }
    rows[n] = row_at(&f, fresh, p, 0);
    rows[n++].out = FORKS * LEN + p;
    rows[n] = row_at(&f, f.base, p, f.i->n_layers);
    rows[n++].out = (FORKS + 1) * LEN + p;
  }
  eval(&f, rows, n, together);
  pf_seq *w = tu_seq(f.c);
  whole(&f, w, f.y);
  for (size_t r = 0; r < n; r++)
    tu_same(f.m, f.y + (size_t)rows[r].pos * v, together + (size_t)rows[r].out * v, "mixed");
  for (int k = 0; k < FORKS; k++)
    pf_seq_free(s[k]);
  pf_seq_free(fresh);
  pf_seq_free(w);
  free(rows);
  free(together);
  close_fix(&f);
}
END_TEST

/* A fork at (1, 33) writes the block of positions 32..63 of the layers from 1 on, no other. */
/* Of rows that nobody reads the last layer makes K,V alone: what is read keeps its bits, whoever
 * reads it, and so does what follows. */
START_TEST(rows_that_nobody_reads) {
  static const char *const points[] = {"hook_resid_pre",    "attn.hook_q",    "attn.hook_rot_k",
                                       "attn.hook_pattern", "hook_resid_mid", "hook_resid_post"};
  enum { N_POINTS = sizeof points / sizeof *points, FROM = 11, TO = 17 };
  fix f = open_fix(_i);
  size_t most = (size_t)f.i->n_heads * LEN + 4096;
  for (int k = -1; k <= N_POINTS; k++) { /* -1: no action; N_POINTS: at the final norm */
    pf_seq *s = tu_seq(f.c), *w = tu_seq(f.c);
    float *a = calloc(2 * most * (TO - FROM), sizeof *a), *b = a + most * (TO - FROM);
    pf_row rows[LEN + 1], all[LEN + 1];
    char name[64];
    snprintf(name, sizeof name, k < N_POINTS ? "blocks.0.%s" : "ln_final.hook_out",
             k < 0          ? points[0]
             : k < N_POINTS ? points[k]
                            : "");
    pf_tap t = {.hook = tu_hook(f.m, name), .layer = k < N_POINTS ? f.i->n_layers - 1 : -1};
    t.head = -1, t.pos_lo = FROM, t.pos_hi = TO, t.op = PF_OP_CAPTURE, t.out_stride = most;
    t.n_keys = LEN;
    pf_tap u = t;
    t.out = a, u.out = b;
    ck_assert_int_eq(pf_seq_set_taps(s, &t, k >= 0), PF_OK);
    ck_assert_int_eq(pf_seq_set_taps(w, &u, k >= 0), PF_OK);
    for (int32_t p = 0; p <= LEN; p++) {
      rows[p] = row_at(&f, s, p, 0);
      all[p] = row_at(&f, w, p, 0);
      if (p % 7 && p < LEN)
        rows[p].out = -1;
    }
    eval(&f, rows, LEN, f.x);
    eval(&f, rows + LEN, 1, f.x); /* sees the K,V of them all */
    eval(&f, all, LEN + 1, f.y);
    for (int32_t p = 0; p <= LEN; p++)
      if (p % 7 == 0 || p == LEN)
        same_row(&f, p, "a row that is read");
    ck_assert_msg(!memcmp(a, b, most * (TO - FROM) * sizeof *a), "%s", name);
    ck_assert(k < 0 || t.fired == TO - FROM);
    free(a);
    pf_seq_free(s);
    pf_seq_free(w);
  }
  close_fix(&f);
}
END_TEST

START_TEST(a_fork_owns_the_blocks_it_changes) {
  fix f = open_fix(_i);
  int32_t layers[LEN], n_layers = f.i->n_layers;
  pf_row rows[LEN];
  for (int32_t p = 0; p < LEN; p++)
    layers[p] = p < 33 ? n_layers : 1;
  pf_seq *s = fork_layers(&f, layers);
  eval(&f, rows, rows_of(&f, s, layers, rows), f.x);
  for (int32_t l = 0; l < n_layers; l++)
    for (size_t b = 0; b < 2; b++)
      ck_assert_int_eq(pf_seq_block(s, l, b) != pf_seq_block(f.base, l, b), l >= 1 && b == 1);
  pf_seq *k; /* a fork of the fork shares what the fork owns */
  ck_assert_int_eq(pf_seq_fork(&k, s, LEN), PF_OK);
  ck_assert_ptr_eq(pf_seq_block(k, n_layers - 1, 1), pf_seq_block(s, n_layers - 1, 1));
  pf_seq_free(s);
  pf_seq *w = tu_seq(f.c);
  whole(&f, w, f.y);
  rows[0] = row_at(&f, k, LEN, 0);
  eval(&f, rows, 1, f.x);
  same_row(&f, LEN, "fork of a fork");
  pf_seq_free(k);
  pf_seq_free(w);
  close_fix(&f);
}
END_TEST

/* What an unfinished fork lacks, a fork of it lacks too, however many layers it is told to share.
 */
START_TEST(a_fork_of_an_unfinished_fork) {
  fix f = open_fix(_i);
  int32_t layers[LEN], all[LEN];
  pf_row rows[LEN + 1];
  all_layers(&f, layers);
  all_layers(&f, all);
  layers[31] = 1;
  layers[32] = 0;
  all[30] = 1;
  pf_seq *s = fork_layers(&f, layers), *k, *w = tu_seq(f.c);
  ck_assert_int_eq(pf_seq_fork_layers(&k, s, LEN, all), PF_OK);
  layers[30] = 1;
  size_t n = rows_of(&f, k, layers, rows);
  ck_assert_uint_eq(n, 3);
  rows[n++] = row_at(&f, k, LEN, 0);
  eval(&f, rows, n, f.x);
  whole(&f, w, f.y);
  for (size_t r = 0; r < n; r++)
    same_row(&f, rows[r].pos, "behind a fork of an unfinished fork");
  pf_seq_free(s);
  pf_seq_free(k);
  pf_seq_free(w);
  close_fix(&f);
}
END_TEST

/* Scores that are not finite in the middle of a mixed call: every branch is as it was. */
START_TEST(a_failed_call_leaves_forks_unfinished) {
  fix f = open_fix(_i);
  int32_t layers[LEN], last = f.i->n_layers - 1;
  size_t d = (size_t)f.i->d_head;
  float *huge = calloc(d, sizeof *huge);
  pf_row rows[LEN + 2];
  for (size_t i = 0; i < d; i++)
    huge[i] = __builtin_inff();
  for (int32_t p = 0; p < LEN; p++)
    layers[p] = p < 30 ? f.i->n_layers : p % 2 ? last : 0;
  pf_tap t = {.hook = tu_hook(f.m, "blocks.0.attn.hook_rot_q"),
              .layer = last,
              .head = 0,
              .pos_lo = 40,
              .pos_hi = 41,
              .op = PF_OP_REPLACE,
              .value = huge};
  pf_seq *s = fork_layers(&f, layers), *w = tu_seq(f.c);
  set_tap(&f, s, &t);
  size_t n = rows_of(&f, s, layers, rows);
  rows[n++] = row_at(&f, s, LEN, 0);
  ck_assert_int_eq(pf_eval(f.c, rows, n, f.x), PF_ENUMERIC);
  ck_assert(strstr(pf_last_error(), "at position 40"));
  ck_assert_int_eq(pf_seq_end(s), LEN);
  rows[n] = row_at(&f, f.base, LEN - 1, f.i->n_layers); /* that row's position was there before */
  ck_assert_int_eq(pf_eval(f.c, rows, n + 1, f.x), PF_ENUMERIC);
  ck_assert_int_eq(pf_seq_end(f.base), LEN);
  ck_assert_int_eq(pf_seq_set_taps(s, NULL, 0), PF_OK);
  for (size_t r = 0; r < n; r++) /* one by one this time */
    eval(&f, &rows[r], 1, f.x);
  whole(&f, w, f.y);
  for (size_t r = 0; r < n; r++)
    same_row(&f, rows[r].pos, "after a failure");
  pf_seq_free(s);
  pf_seq_free(w);
  free(huge);
  close_fix(&f);
}
END_TEST

/* Scores of rows of several references and none, with and without a place for their logits: the
 * bits of the functions on full logits. More rows than are finished together. */
START_TEST(scores_equal_full_logits) {
  fix f = open_fix(_i);
  enum { REFS = 3, TOP = 5, RUNS = 2, N = RUNS * LEN };
  size_t v = (size_t)f.i->vocab_size;
  pf_ref ref[REFS];
  pf_score score[N];
  pf_top top[N][TOP];
  pf_row rows[N];
  float *all = calloc(2 * N * v, sizeof *all), *none = all + N * v, margin;
  pf_seq *s[RUNS] = {tu_seq(f.c), tu_seq(f.c)};
  whole(&f, s[0], f.x);
  for (size_t i = 0; i < REFS; i++)
    pf_ref_make(&ref[i], f.x + (5 + i) * v, v);
  for (int32_t k = 0; k < N; k++) {
    rows[k] = row_at(&f, s[1], k % LEN, 0);
    if (k >= LEN)
      rows[k] = row_at(&f, f.base, k % LEN, f.i->n_layers);
    rows[k].out = k % 4 ? k : -1;
    rows[k].score = k % 7 ? &score[k] : NULL;
    score[k] = (pf_score){.what = 1u << k % 5 | (k % 3 ? PF_SCORE_KL : 0),
                          .ref = &ref[k / 2 % REFS],
                          .token = (int32_t)(k * 31 % (int32_t)v),
                          .n_top = TOP,
                          .top = top[k]};
  }
  eval(&f, rows, N, all);
  for (size_t r = 0; r < N; r++)
    rows[r].score = NULL, rows[r].out = (int32_t)r;
  pf_seq_free(s[1]);
  s[1] = tu_seq(f.c);
  for (size_t r = 0; r < LEN; r++)
    rows[r].seq = s[1];
  eval(&f, rows, N, none);
  for (int32_t k = 0; k < N; k++) {
    const float *x = none + (size_t)k * v;
    const pf_score *a = &score[k];
    if (k % 4)
      tu_same(f.m, x, all + (size_t)k * v, "logits beside scores");
    if (k % 7 == 0)
      continue;
    if (a->what & PF_SCORE_KL) {
      double kl = pf_kl(a->ref->logits, x, v);
      ck_assert_msg(memcmp(&kl, &a->kl, sizeof kl) == 0, "KL %d: %a, %a", k, kl, a->kl);
    }
    if (a->what & PF_SCORE_JSD) {
      double jsd = pf_jsd(a->ref->logits, x, v), rkl = pf_kl(x, a->ref->logits, v);
      ck_assert_msg(memcmp(&jsd, &a->jsd, sizeof jsd) == 0, "JSD %d: %a, %a", k, jsd, a->jsd);
      ck_assert_msg(rkl == a->reverse_kl, "reverse KL %d: %a, %a", k, rkl, a->reverse_kl);
    }
    if (a->what & PF_SCORE_LOGPROB) {
      double lp = pf_logprob(x, v, a->token);
      ck_assert_msg(memcmp(&lp, &a->logprob, sizeof lp) == 0, "row %d: %a, %a", k, lp, a->logprob);
    }
    if (a->what & PF_SCORE_ARGMAX) {
      ck_assert_int_eq(a->best, pf_argmax(x, v, &margin));
      ck_assert(memcmp(&margin, &a->margin, sizeof margin) == 0);
    }
    for (int32_t i = 0; i < TOP && (a->what & PF_SCORE_TOP); i++) {
      size_t before = 0; /* values that stand before this one */
      for (size_t j = 0; j < v; j++)
        before += x[j] > x[a->top[i].id] || (x[j] == x[a->top[i].id] && (int32_t)j < a->top[i].id);
      ck_assert_uint_eq(before, (size_t)i);
      ck_assert(a->top[i].logit == x[a->top[i].id]);
    }
  }
  pf_seq_free(s[0]);
  pf_seq_free(s[1]);
  free(all);
  close_fix(&f);
}
END_TEST

static void set_logits(const fix *f, pf_seq *s, pf_tap *t, float *x) {
  *t = (pf_tap){.hook = tu_hook(f->m, "unembed.hook_out"),
                .layer = -1,
                .head = -1,
                .pos_hi = LEN,
                .op = PF_OP_REPLACE,
                .value = x};
  ck_assert_int_eq(pf_seq_set_taps(s, t, 1), PF_OK);
}

/* Of equal logits the lowest id comes first; logits that are not finite are an error, whoever made
 * them. */
START_TEST(logits_of_an_action) {
  fix f = open_fix(_i);
  size_t v = (size_t)f.i->vocab_size;
  pf_top top[5];
  pf_score score = {.what = PF_SCORE_TOP, .n_top = 5, .top = top};
  pf_tap t;
  pf_row r = row_at(&f, f.base, 20, f.i->n_layers);
  r.score = &score;
  for (size_t i = 0; i < v; i++)
    f.y[i] = i % 3 ? 1 : 2;
  f.y[4] = 3;
  set_logits(&f, f.base, &t, f.y);
  eval(&f, &r, 1, f.x);
  for (int i = 0; i < 5; i++)
    ck_assert_int_eq(top[i].id, i ? 3 * (i - 1) : 4);
  r.score = NULL;
  f.y[v - 1] = INFINITY;
  ck_assert_int_eq(pf_eval(f.c, &r, 1, f.x), PF_ENUMERIC);
  ck_assert(strstr(pf_last_error(), "logits are not finite at position 20"));
  close_fix(&f);
}
END_TEST

/* A capture is reason enough to make logits. */
START_TEST(logits_that_only_a_capture_wants) {
  fix f = open_fix(_i);
  size_t v = (size_t)f.i->vocab_size;
  bool capped = f.i->final_softcap > 0;
  pf_seq *s = tu_seq(f.c);
  pf_tap t = {.hook = tu_hook(f.m, capped ? "unembed.hook_out_precap" : "unembed.hook_out"),
              .layer = -1,
              .head = -1,
              .pos_lo = 7,
              .pos_hi = 8,
              .op = PF_OP_CAPTURE,
              .out = f.x};
  set_tap(&f, s, &t);
  tu_run(f.c, s, f.m, 1, 0, 9, NULL);
  ck_assert_uint_eq(t.fired, 1);
  pf_row r = row_at(&f, f.base, 7, f.i->n_layers);
  r.out = 0;
  eval(&f, &r, 1, f.y);
  for (size_t i = 0; i < v; i++) {
    float x = capped ? f.i->final_softcap * tanhf(f.x[i] / f.i->final_softcap) : f.x[i];
    ck_assert(fabsf(x - f.y[i]) <= 0.02f * (1 + fabsf(f.y[i])));
  }
  pf_seq_free(s);
  close_fix(&f);
}
END_TEST

/* Where Hugging Face's residual is bf16, so is one that the caller brings behind the last layer. */
START_TEST(a_residual_behind_the_last_layer_is_rounded) {
  fix f = open_fix(N_MODELS * (PF_PRECISION_BF16_HF - 1) + _i);
  size_t d = (size_t)f.i->d_model;
  pf_row r = row_at(&f, f.base, 20, f.i->n_layers);
  float *near = calloc(d, sizeof *near);
  for (size_t i = 0; i < d; i++)
    near[i] = r.resid[i] * (1 + (i % 2 ? 0x1p-11f : -0x1p-11f));
  r.out = 0;
  eval(&f, &r, 1, f.y);
  r.resid = near;
  eval(&f, &r, 1, f.x);
  tu_same(f.m, f.x, f.y, "a residual near a bf16 one");
  free(near);
  close_fix(&f);
}
END_TEST

/* By the definition, in long double: KL(p || h) and KL(q || h), h = (p + q) / 2. */
static long double jsd_by_definition(const float *p, const float *q, size_t n) {
  long double zp = 0, zq = 0, sum = 0;
  for (size_t i = 0; i < n; i++) {
    zp += expl(p[i]);
    zq += expl(q[i]);
  }
  for (size_t i = 0; i < n; i++) {
    long double a = expl(p[i]) / zp, b = expl(q[i]) / zq, h = (a + b) / 2;
    sum += a * logl(a / h) / 2 + b * logl(b / h) / 2;
  }
  return sum;
}

/* Logits whose difference shrinks to one in a million: the divergence goes with its square. */
START_TEST(jensen_shannon_is_its_definition) {
  enum { V = 1003 };
  static const float apart[] = {30, 4, 1, 0.1f, 1e-3f, 1e-6f};
  float p[V], q[V];
  for (size_t k = 0; k < sizeof apart / sizeof *apart; k++) {
    for (uint32_t i = 0; i < V; i++) {
      p[i] = (float)(pf_uniform(31, 0, i) * 20 - 10);
      q[i] = p[i] + apart[k] * (float)(pf_uniform(31, 1, i) - 0.5);
    }
    double got = pf_jsd(p, q, V);
    long double want = jsd_by_definition(p, q, V);
    ck_assert_msg(fabsl((long double)got - want) <= 1e-13L * want + 2e-16L,
                  "%g apart: %.17g, not %.17Lg", apart[k], got, want);
    ck_assert(got == pf_jsd(q, p, V));
    ck_assert(pf_jsd(p, p, V) == 0);
  }
  for (uint32_t i = 0; i < V; i++) {
    p[i] = i % 2 ? 700.0f : -700.0f;
    q[i] = -p[i];
  }
  ck_assert(fabs(pf_jsd(p, q, V) - M_LN2) < 1e-12);
}
END_TEST

static void refused(const fix *f, pf_row r, const char *line) {
  ck_assert_int_eq(pf_eval(f->c, &r, 1, f->x), PF_EUSAGE);
  ck_assert_msg(strstr(pf_last_error(), line) != NULL, "'%s' is not in '%s'", line,
                pf_last_error());
}

START_TEST(misuse_is_refused) {
  fix f = open_fix(0);
  int32_t layers[LEN];
  all_layers(&f, layers);
  layers[30] = 2;
  layers[31] = 1;
  pf_seq *s = fork_layers(&f, layers), *k;
  pf_row r = row_at(&f, s, 30, 2);
  refused(&f, row_at(&f, s, 30, f.i->n_layers + 1), "there are 0 to 4");
  refused(&f, row_at(&f, s, 30, -1), "cannot enter at layer -1");
  r.resid = NULL;
  refused(&f, r, "needs the residual that enters it");
  refused(&f, row_at(&f, s, 30, 1),
          "position 30 lacks layers from 2 on: a row enters there, not at 1");
  refused(&f, row_at(&f, s, 30, 0), "enters there, not at 0");
  refused(&f, row_at(&f, s, 31, 1), "position 30, which lacks layers from 2 on, is first");
  refused(&f, row_at(&f, s, LEN, 0), "position 30, which lacks layers from 2 on, is first");
  refused(&f, row_at(&f, s, 12, 2), "position 30, which lacks layers from 2 on, is first");
  refused(&f, row_at(&f, s, LEN, f.i->n_layers),
          "is first"); /* logits of a row that is not there */
  r = row_at(&f, s, 30, 2);
  r.token++;
  refused(&f, r, "position 30 has layers of token");
  refused(&f, row_at(&f, f.base, LEN, 1), "position 44 lacks layers from 0 on");
  refused(&f, row_at(&f, f.base, 12, 1), "position 12 is taken: the sequence goes on at 44");
  pf_ref ref = {.n = 3};
  pf_score bad = {.what = PF_SCORE_KL};
  r = row_at(&f, s, 30, 2);
  r.score = &bad;
  refused(&f, r, "position 30: a divergence needs a reference of");
  bad.ref = &ref;
  refused(&f, r, "position 30: a divergence needs a reference of");
  bad = (pf_score){.what = PF_SCORE_LOGPROB, .token = f.i->vocab_size};
  refused(&f, r, "position 30: no log-probability of token");
  bad = (pf_score){.what = PF_SCORE_TOP, .n_top = 1};
  refused(&f, r, "position 30: the best 1 of");
  pf_top top[1];
  bad.top = top;
  bad.n_top = f.i->vocab_size + 1;
  refused(&f, r, "position 30: the best");
  bad = (pf_score){.what = PF_SCORE_JSD};
  refused(&f, r, "position 30: a divergence needs a reference of");
  pf_swap w = {0, 1, -1, 30, 31, 30, PF_SWAP_K, s, 0, 0};
  ck_assert_int_eq(pf_seq_set_swaps(f.base, &w, 1), PF_EUSAGE); /* unfinished */
  layers[3] = f.i->n_layers + 1;
  ck_assert_int_eq(pf_seq_fork_layers(&k, f.base, LEN, layers), PF_EUSAGE);
  ck_assert_ptr_null(k);
  layers[3] = 0;
  ck_assert_int_eq(pf_seq_fork_layers(&k, f.base, LEN + 1, layers), PF_EUSAGE);
  ck_assert_int_eq(pf_seq_end(s), LEN);
  eval(&f, (pf_row[]){row_at(&f, s, 30, 2), row_at(&f, s, 31, 1), row_at(&f, s, LEN, 0)}, 3, f.x);
  ck_assert_int_eq(pf_seq_end(s), LEN + 1);
  pf_seq_free(s);
  close_fix(&f);
}
END_TEST

int main(void) {
  int n = n_cases();
  Suite *s = suite_create("rows");
  TCase *t = tcase_create("bits");
  tcase_set_timeout(t, 0);
  tcase_add_loop_test(t, every_hook_reaches_what_is_said, 0, n);
  tcase_add_loop_test(t, cuts_reach_their_queries, 0, n);
  tcase_add_loop_test(t, swaps_reach_what_follows, 0, n);
  tcase_add_loop_test(t, swaps_together_and_apart, 0, n);
  tcase_add_loop_test(t, entry_layers_mix_in_a_call, 0, n);
  tcase_add_loop_test(t, rows_that_nobody_reads, 0, n);
  tcase_add_loop_test(t, a_fork_owns_the_blocks_it_changes, 0, n);
  tcase_add_loop_test(t, a_fork_of_an_unfinished_fork, 0, n);
  tcase_add_loop_test(t, a_failed_call_leaves_forks_unfinished, 0, n);
  tcase_add_loop_test(t, scores_equal_full_logits, 0, n);
  tcase_add_loop_test(t, logits_of_an_action, 0, n);
  tcase_add_loop_test(t, logits_that_only_a_capture_wants, 0, n);
  tcase_add_loop_test(t, a_residual_behind_the_last_layer_is_rounded, 0,
                      tu_tier("small") ? 1 : N_MODELS);
  tcase_add_test(t, nothing_is_reached);
  tcase_add_test(t, jensen_shannon_is_its_definition);
  tcase_add_test(t, misuse_is_refused);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
