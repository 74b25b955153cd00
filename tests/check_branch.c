/* SPDX-License-Identifier: Apache-2.0
 * Branches, interventions and their exact equivalences: every comparison is of bits. */
#include <malloc.h>
#include <math.h>

#include "model_util.h"
#include "tests/suite.h"
#include "tests/util.h"

static const char *const models[] = {"tests/mini/g2-window", "tests/mini/q2-odd",
                                     "tests/mini/g2-nocap-mqa", "tests/mini/q2-mixed"};
enum { N_MODELS = sizeof models / sizeof *models, LEN = 75 };

typedef struct fix {
  pf_model *m;
  pf_ctx *c;
  pf_seq *s, *t;
  float *x, *y;
} fix;

/* The small tier is for emulators: one Gemma-2 and one Qwen-2. */
static int n_models(void) {
  return tu_tier("small") ? 2 : N_MODELS;
}

/* Every model in every precision: case i. */
static int n_cases(void) {
  return n_models() * (PF_N_PRECISIONS - 1);
}

static pf_precision precision_of(int i) {
  return (pf_precision)(1 + i / n_models());
}

static fix open_fix(int i) {
  fix f = {.m = tu_open_as(models[i % n_models()], precision_of(i))};
  f.c = tu_ctx(f.m, 2);
  f.s = tu_seq(f.c);
  f.t = tu_seq(f.c);
  f.x = tu_logits(f.m);
  f.y = tu_logits(f.m);
  return f;
}

static void close_fix(fix *f) {
  pf_seq_free(f->s);
  pf_seq_free(f->t);
  pf_ctx_free(f->c);
  pf_model_close(f->m);
  free(f->x);
  free(f->y);
}

static int hook(const fix *f, const char *name, int32_t *layer) {
  int id;
  ck_assert_int_eq(pf_hook_find(f->m, name, &id, layer), PF_OK);
  return id;
}

START_TEST(pieces_equal_whole) {
  fix f = open_fix(_i);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  for (int32_t p = 0; p < LEN; p += 1 + p % 9)
    tu_run(f.c, f.t, f.m, 1, p, p + 1 + p % 9 < LEN ? p + 1 + p % 9 : LEN, f.y);
  tu_same(f.m, f.x, f.y, "pieces");
  close_fix(&f);
}
END_TEST

START_TEST(batch_equals_alone) {
  fix f = open_fix(_i);
  pf_seq *both[2] = {tu_seq(f.c), tu_seq(f.c)};
  pf_row rows[2 * LEN];
  size_t v = (size_t)pf_model_get_info(f.m)->vocab_size;
  float *two = calloc(2 * v, sizeof *two);
  for (int32_t p = 0; p < LEN; p++)
    for (int k = 0; k < 2; k++)
      rows[2 * p + k] = (pf_row){.seq = both[k],
                                 .token = tu_token(f.m, (uint64_t)k + 1, p),
                                 .pos = p,
                                 .out = p + 1 == LEN ? k : -1};
  ck_assert_int_eq(pf_eval(f.c, rows, 2 * LEN, two), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  tu_run(f.c, f.t, f.m, 2, 0, LEN, f.y);
  tu_same(f.m, f.x, two, "first of two");
  tu_same(f.m, f.y, two + v, "second of two");
  free(two);
  pf_seq_free(both[0]);
  pf_seq_free(both[1]);
  close_fix(&f);
}
END_TEST

START_TEST(fork_equals_recompute_and_leaves_the_parent) {
  fix f = open_fix(_i);
  pf_seq *k;
  tu_run(f.c, f.s, f.m, 1, 0, LEN - 1, NULL);
  for (int32_t keep = 0; keep < LEN - 1; keep += 13) {
    ck_assert_int_eq(pf_seq_fork(&k, f.s, keep), PF_OK);
    tu_run(f.c, k, f.m, 2, keep, LEN, f.y);
    pf_seq_free(k);
    k = tu_seq(f.c);
    if (keep)
      tu_run(f.c, k, f.m, 1, 0, keep, NULL);
    tu_run(f.c, k, f.m, 2, keep, LEN, f.x);
    tu_same(f.m, f.x, f.y, "fork");
    pf_seq_free(k);
  }
  tu_run(f.c, f.s, f.m, 1, LEN - 1, LEN, f.x);
  tu_run(f.c, f.t, f.m, 1, 0, LEN, f.y);
  tu_same(f.m, f.x, f.y, "parent after forks");
  close_fix(&f);
}
END_TEST

enum { STOPS = 3 };

/* Captures of what enters a layer at every position; the last layer's output for n_layers. */
static pf_tap entering(const fix *f, int32_t layer, float *out) {
  const pf_model_info *i = pf_model_get_info(f->m);
  int32_t none;
  return (pf_tap){
      .hook = hook(f, layer < i->n_layers ? "blocks.0.hook_resid_pre" : "blocks.0.hook_resid_post",
                   &none),
      .layer = layer < i->n_layers ? layer : layer - 1,
      .head = -1,
      .pos_hi = LEN,
      .op = PF_OP_CAPTURE,
      .out = out,
      .out_stride = (size_t)i->d_model};
}

/* Rows of branches that stop after one layer, after half of them and nowhere, mixed in one call:
 * each has what it has alone, and costs the layers that it goes through. */
START_TEST(stops_equal_the_whole_run) {
  fix f = open_fix(_i);
  const pf_model_info *i = pf_model_get_info(f.m);
  int32_t stop[STOPS] = {1, (i->n_layers + 1) / 2, i->n_layers};
  size_t size = LEN * (size_t)i->d_model, cost = 0;
  float *got[STOPS], *want = calloc(size, sizeof *want);
  pf_seq *s[STOPS];
  pf_tap tap[STOPS], whole;
  pf_row rows[STOPS * LEN];
  for (int k = 0; k < STOPS; k++) {
    s[k] = tu_seq(f.c);
    got[k] = calloc(size, sizeof *want);
    tap[k] = entering(&f, stop[k], got[k]);
    ck_assert_int_eq(pf_seq_set_taps(s[k], &tap[k], 1), PF_OK);
    ck_assert_int_eq(pf_seq_set_stop(s[k], stop[k]), PF_OK);
    for (int32_t p = 0; p < LEN; p++)
      rows[STOPS * p + k] = (pf_row){.seq = s[k],
                                     .token = tu_token(f.m, (uint64_t)k, p),
                                     .pos = p,
                                     .out = k == 2 && p + 1 == LEN ? 0 : -1};
    cost += LEN * (size_t)stop[k];
  }
  cost += pf_ctx_row_layers(f.c);
  ck_assert_int_eq(pf_eval(f.c, rows, STOPS * LEN, f.y), PF_OK);
  ck_assert_uint_eq(pf_ctx_row_layers(f.c), cost);
  for (int k = 0; k < STOPS; k++) {
    pf_seq *alone = tu_seq(f.c);
    whole = entering(&f, stop[k], want);
    ck_assert_int_eq(pf_seq_set_taps(alone, &whole, 1), PF_OK);
    tu_run(f.c, alone, f.m, (uint64_t)k, 0, LEN, f.x);
    ck_assert_mem_eq(got[k], want, size * sizeof *want);
    ck_assert_uint_eq(tap[k].fired, LEN);
    pf_seq_free(alone);
    pf_seq_free(s[k]);
    free(got[k]);
  }
  tu_same(f.m, f.x, f.y, "beside rows that stop");
  free(want);
  close_fix(&f);
}
END_TEST

/* Raised, it goes on from what entered the layer, lowest position first; its forks stop where it
 * does. */
START_TEST(a_stopped_branch_goes_on) {
  fix f = open_fix(_i);
  const pf_model_info *i = pf_model_get_info(f.m);
  size_t d = (size_t)i->d_model;
  int32_t stop = i->n_layers / 2 ? i->n_layers / 2 : 1;
  float *in = calloc(LEN * d, sizeof *in);
  pf_tap tap = entering(&f, stop, in);
  pf_row rows[LEN];
  pf_seq *k;
  ck_assert_int_eq(pf_seq_set_taps(f.s, &tap, 1), PF_OK);
  ck_assert_int_eq(pf_seq_set_stop(f.s, stop), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, 40, NULL);
  size_t bytes = pf_ctx_kv_bytes(f.c, NULL) / 2 * (size_t)i->n_layers;
  ck_assert_uint_eq(bytes, (size_t)stop * pf_ctx_block_bytes(f.c)); /* two blocks in those layers */
  ck_assert_int_eq(pf_seq_fork(&k, f.s, 40), PF_OK);
  ck_assert_int_eq(pf_seq_set_taps(k, &tap, 1), PF_OK);
  tu_run(f.c, k, f.m, 1, 40, LEN, NULL);
  ck_assert_int_eq(pf_seq_set_stop(k, i->n_layers), PF_OK);
  for (int32_t p = 0; p < LEN && stop < i->n_layers; p++)
    rows[p] = (pf_row){.seq = k,
                       .token = tu_token(f.m, 1, p),
                       .pos = p,
                       .out = p + 1 == LEN ? 0 : -1,
                       .layer = stop,
                       .resid = in + (size_t)p * d};
  if (stop < i->n_layers) {
    ck_assert_int_eq(pf_eval(f.c, rows + 1, 1, NULL), PF_EUSAGE); /* position 0 is first */
    ck_assert_int_eq(pf_eval(f.c, rows, 30, NULL), PF_OK);
    rows[LEN - 1].token = -1;
    ck_assert_int_eq(pf_eval(f.c, rows + 30, LEN - 30, f.y), PF_EUSAGE);
    rows[LEN - 1].token = tu_token(f.m, 1, LEN - 1);
    ck_assert_msg(pf_eval(f.c, rows + 30, LEN - 30, f.y) == PF_OK, "%s", pf_last_error());
    tu_run(f.c, f.t, f.m, 1, 0, LEN, f.x);
    tu_same(f.m, f.x, f.y, "a branch that had stopped");
  }
  pf_seq_free(k);
  free(in);
  close_fix(&f);
}
END_TEST

START_TEST(cut_equals_gap) {
  fix f = open_fix(_i);
  const int32_t spans[][2] = {{5, 9}, {0, 40}, {30, 70}, {32, 64}, {LEN - 2, LEN - 1}};
  for (size_t n = 0; n < sizeof spans / sizeof *spans; n++) {
    int32_t a = spans[n][0], b = spans[n][1];
    pf_seq *cut = tu_seq(f.c), *gap = tu_seq(f.c);
    pf_cut c = {0, pf_model_get_info(f.m)->n_layers, -1, b, LEN, a, b};
    ck_assert_int_eq(pf_seq_set_cuts(cut, &c, 1), PF_OK);
    tu_run(f.c, cut, f.m, 1, 0, LEN, f.x);
    if (a)
      tu_run(f.c, gap, f.m, 1, 0, a, NULL);
    tu_run(f.c, gap, f.m, 1, b, LEN, f.y);
    tu_same(f.m, f.x, f.y, "cut against gap");
    pf_seq_free(cut);
    pf_seq_free(gap);
  }
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.y);
  ck_assert(tu_differ(f.m, f.x, f.y)); /* the last cut did something */
  close_fix(&f);
}
END_TEST

START_TEST(heads_cut_one_by_one_equal_the_layer_cut) {
  fix f = open_fix(_i);
  const pf_model_info *m = pf_model_get_info(f.m);
  pf_cut all = {0, m->n_layers, -1, 20, LEN, 3, 17}, one[64];
  for (int32_t h = 0; h < m->n_heads; h++)
    one[h] = (pf_cut){0, m->n_layers, h, 20, LEN, 3, 17};
  ck_assert_int_eq(pf_seq_set_cuts(f.s, &all, 1), PF_OK);
  ck_assert_int_eq(pf_seq_set_cuts(f.t, one, (size_t)m->n_heads), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  tu_run(f.c, f.t, f.m, 1, 0, LEN, f.y);
  tu_same(f.m, f.x, f.y, "heads against layer");
  close_fix(&f);
}
END_TEST

/* All K,V before the last token from another run: the other run's answer. */
START_TEST(full_transplant_gives_the_source) {
  fix f = open_fix(_i);
  int32_t layers = pf_model_get_info(f.m)->n_layers;
  tu_run(f.c, f.t, f.m, 2, 0, LEN - 1, NULL);
  pf_swap w = {0, layers, -1, 0, LEN - 1, 0, PF_SWAP_K | PF_SWAP_V, f.t, 0, 0};
  tu_run(f.c, f.s, f.m, 1, 0, LEN - 1, NULL);
  ck_assert_int_eq(pf_seq_set_swaps(f.s, &w, 1), PF_OK);
  tu_run(f.c, f.s, f.m, 3, LEN - 1, LEN, f.x);
  tu_run(f.c, f.t, f.m, 3, LEN - 1, LEN, f.y);
  tu_same(f.m, f.x, f.y, "transplant");
  close_fix(&f);
}
END_TEST

/* Of the last position; keys: of hooks over keys. */
static pf_tap capture(const fix *f, const char *name, float *out, int32_t keys) {
  return (pf_tap){.hook = tu_hook(f->m, name),
                  .head = -1,
                  .pos_lo = LEN - 1,
                  .pos_hi = LEN,
                  .op = PF_OP_CAPTURE,
                  .out = out,
                  .n_keys = keys};
}

/* K and V of one head, of any other run: the query heads of that head see it, and no others. */
START_TEST(a_swap_of_a_head_is_for_its_queries) {
  fix f = open_fix(_i);
  const pf_model_info *m = pf_model_get_info(f.m);
  size_t group = (size_t)(m->n_heads / m->n_kv_heads), part = group * (size_t)m->d_head;
  float *z = calloc(2 * (size_t)m->n_kv_heads * part, sizeof *z),
        *swapped = z + part * (size_t)m->n_kv_heads;
  tu_run(f.c, f.t, f.m, 2, 0, LEN - 1, NULL);
  tu_run(f.c, f.s, f.m, 1, 0, LEN - 1, NULL);
  for (int32_t h = -1; h < m->n_kv_heads; h++) {
    pf_seq *s;
    pf_swap w = {0, 1, h, 0, LEN - 1, 0, PF_SWAP_K | PF_SWAP_V, f.t, 0, 0};
    ck_assert_int_eq(pf_seq_fork(&s, f.s, LEN - 1), PF_OK);
    if (h >= 0)
      ck_assert_int_eq(pf_seq_set_swaps(s, &w, 1), PF_OK);
    pf_tap t = capture(&f, "blocks.0.attn.hook_z", h >= 0 ? swapped : z, 0);
    ck_assert_int_eq(pf_seq_set_taps(s, &t, 1), PF_OK);
    tu_run(f.c, s, f.m, 1, LEN - 1, LEN, NULL);
    for (int32_t k = 0; k < m->n_kv_heads && h >= 0; k++)
      ck_assert_msg((memcmp(z + (size_t)k * part, swapped + (size_t)k * part, part * sizeof *z) !=
                     0) == (k == h),
                    "a swap of head %d, head %d", (int)h, (int)k);
    pf_seq_free(s);
  }
  free(z);
  close_fix(&f);
}
END_TEST

/* Keys alone, for positions that the branch does not hold: there is still nothing to see there. */
START_TEST(keys_alone_fill_no_gap) {
  fix f = open_fix(_i);
  tu_run(f.c, f.t, f.m, 2, 0, 30, NULL);
  pf_swap w = {0, pf_model_get_info(f.m)->n_layers, -1, 5, 25, 5, PF_SWAP_K, f.t, 0, 0};
  for (int k = 0; k < 2; k++) {
    pf_seq *s = tu_seq(f.c);
    ck_assert_int_eq(pf_seq_set_swaps(s, &w, (size_t)k), PF_OK);
    tu_run(f.c, s, f.m, 1, 0, 5, NULL);
    tu_run(f.c, s, f.m, 1, 25, 28, k ? f.y : f.x);
    pf_seq_free(s);
  }
  tu_same(f.m, f.x, f.y, "keys in a gap");
  close_fix(&f);
}
END_TEST

/* Raw scores of keys that cannot be seen read as 0, whatever was computed before. */
START_TEST(raw_scores_of_unseen_keys) {
  fix f = open_fix(_i);
  size_t heads = (size_t)pf_model_get_info(f.m)->n_heads;
  float *scores = calloc(heads * LEN, sizeof *scores);
  pf_cut c = {0, 1, -1, LEN - 1, LEN, 3, 70};
  pf_tap t = capture(&f, "blocks.0.attn.hook_attn_scores_raw", scores, LEN);
  tu_run(f.c, f.s, f.m, 1, 0, LEN - 1, NULL);
  ck_assert_int_eq(pf_seq_set_taps(f.s, &t, 1), PF_OK);
  ck_assert_int_eq(pf_seq_set_cuts(f.s, &c, 1), PF_OK);
  tu_run(f.c, f.s, f.m, 1, LEN - 1, LEN, NULL);
  for (size_t h = 0; h < heads; h++) {
    for (size_t k = 3; k < 70; k++)
      ck_assert_msg(scores[h * LEN + k] == 0, "head %zu, key %zu: %g", h, k,
                    (double)scores[h * LEN + k]);
    ck_assert(scores[h * LEN + LEN - 1] != 0);
  }
  free(scores);
  close_fix(&f);
}
END_TEST

/* The last position that there is: scores of as many keys, of all heads together and one by one. (A
 * key at 3276: of scores without the room for them, those of its block would lie on its V.) */
START_TEST(the_last_position) {
  fix f = open_fix(_i);
  int32_t last = pf_model_get_info(f.m)->max_positions - 1;
  float *seen = calloc((size_t)last + 1, sizeof *seen);
  pf_tap t = capture(&f, "blocks.0.attn.hook_pattern", seen, last + 1);
  t.head = 1;
  t.pos_lo = last;
  t.pos_hi = last + 1;
  ck_assert_int_eq(pf_seq_set_taps(f.t, &t, 1), PF_OK);
  for (int k = 0; k < 2; k++) {
    pf_seq *s = k ? f.t : f.s;
    pf_row rows[] = {{.seq = s, .token = 1, .pos = 0, .out = -1},
                     {.seq = s, .token = 4, .pos = 3276, .out = -1},
                     {.seq = s, .token = 2, .pos = last - 1, .out = -1},
                     {.seq = s, .token = 3, .pos = last, .out = 0}};
    ck_assert_int_eq(pf_eval(f.c, rows, 4, k ? f.y : f.x), PF_OK);
  }
  tu_same(f.m, f.x, f.y, "the last position");
  ck_assert(seen[last] > 0 && seen[last - 1] > 0);
  free(seen);
  close_fix(&f);
}
END_TEST

/* One head's values are its own: captured, they are that part of all heads'; put into a row with
 * more keys than it has, they are followed by what masked keys have. */
START_TEST(a_head_has_its_own_values) {
  fix f = open_fix(_i);
  enum { KEYS = LEN + 3 };
  int32_t heads = pf_model_get_info(f.m)->n_heads, head = heads - 1;
  float *all = calloc((size_t)(heads + 1) * KEYS, sizeof *all), *one = all + heads * KEYS;
  static const char *const names[] = {"blocks.0.attn.hook_attn_scores",
                                      "blocks.0.attn.hook_pattern"};
  for (int n = 0; n < 2; n++) {
    pf_tap t[2] = {capture(&f, names[n], all, KEYS), capture(&f, names[n], one, KEYS)};
    pf_seq *s = tu_seq(f.c);
    t[1].head = head;
    ck_assert_int_eq(pf_seq_set_taps(s, t, 2), PF_OK);
    tu_run(f.c, s, f.m, 1, 0, LEN, NULL);
    ck_assert(memcmp(one, all + head * KEYS, KEYS * sizeof *all) == 0);
    for (int k = LEN; k < KEYS; k++)
      ck_assert(n ? one[k] == 0 : one[k] == -INFINITY);
    ck_assert(one[LEN - 1] != 0 && one[LEN - 1] > -INFINITY);
    pf_seq_free(s);
  }
  free(all);
  close_fix(&f);
}
END_TEST

/* Looking at a value behind an action that changed it takes nothing from the change. */
START_TEST(a_capture_behind_an_edit) {
  fix f = open_fix(_i);
  float *seen =
      calloc((size_t)pf_model_get_info(f.m)->n_heads * (size_t)pf_model_get_info(f.m)->d_model,
             sizeof *seen);
  pf_tap t[2] = {{.pos_lo = LEN - 1, .pos_hi = LEN, .op = PF_OP_ZERO},
                 capture(&f, "blocks.0.attn.hook_result", seen, 0)};
  t[0].hook = t[1].hook;
  ck_assert_int_eq(pf_seq_set_taps(f.s, t, 2), PF_OK);
  ck_assert_int_eq(pf_seq_set_taps(f.t, t, 1), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  tu_run(f.c, f.t, f.m, 1, 0, LEN, f.y);
  tu_same(f.m, f.x, f.y, "with and without a look");
  ck_assert_int_eq(pf_seq_set_taps(f.t, NULL, 0), PF_OK);
  free(seen);
  close_fix(&f);
}
END_TEST

/* In one layer K and V of a token depend on the token alone, so keys moved from `from` to `to`
 * equal keys computed there: there and back again is the identity. */
static void move_keys(fix *f, int32_t from, int32_t to) {
  pf_seq *native = tu_seq(f->c), *source = tu_seq(f->c), *moved = tu_seq(f->c);
  pf_row rows[6], there[5];
  for (int32_t i = 0; i < 6; i++)
    rows[i] = (pf_row){
        .seq = native, .token = tu_token(f->m, 1, i), .pos = to + i, .out = i == 5 ? 0 : -1};
  for (int32_t i = 0; i < 5; i++)
    there[i] = (pf_row){.seq = source, .token = rows[i].token, .pos = from + i, .out = -1};
  ck_assert_int_eq(pf_eval(f->c, rows, 6, f->x), PF_OK);
  ck_assert_int_eq(pf_eval(f->c, there, 5, NULL), PF_OK);
  pf_swap w = {0, 1, -1, to, to + 5, from, PF_SWAP_K | PF_SWAP_V, source, 0, 0};
  ck_assert_int_eq(pf_seq_set_swaps(moved, &w, 1), PF_OK);
  rows[5].seq = moved;
  ck_assert_int_eq(pf_eval(f->c, &rows[5], 1, f->y), PF_OK);
  tu_same(f->m, f->x, f->y, "moved keys");
  pf_seq_free(moved);
  pf_seq_free(source);
  pf_seq_free(native);
}

START_TEST(moved_keys_equal_keys_computed_in_place) {
  fix f = {.m = tu_open_as("tests/mini/q2-one-layer", (pf_precision)_i)};
  f.c = tu_ctx(f.m, 1);
  f.x = tu_logits(f.m);
  f.y = tu_logits(f.m);
  move_keys(&f, 0, 40);
  move_keys(&f, 40, 0);
  close_fix(&f);
}
END_TEST

/* Blocks of a freed sequence stay for the next one until they are trimmed; then memory has them
 * back, and what comes after has the same bits. */
START_TEST(trimmed_blocks_are_freed) {
  fix f = open_fix(_i);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  size_t held = pf_ctx_kv_bytes(f.c, NULL);
  pf_seq_free(f.s);
  f.s = tu_seq(f.c);
  struct mallinfo2 before = mallinfo2();
  pf_ctx_trim(f.c);
  struct mallinfo2 after = mallinfo2();
  size_t given = before.uordblks + before.hblkhd - after.uordblks - after.hblkhd;
#ifdef __SANITIZE_ADDRESS__ /* its memory is not counted */
  (void)held, (void)given;
#else
  ck_assert_uint_ge(given, held);
#endif
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.y);
  tu_same(f.m, f.x, f.y, "after a trim");
  close_fix(&f);
}
END_TEST

/* K and V take two bytes a value where they are rounded to bf16, K with whole blocks of 32
 * dimensions; un-rotated keys are fp32. */
START_TEST(memory_of_a_position) {
  pf_model *m = tu_open_as(models[_i % n_models()], precision_of(_i));
  const pf_model_info *i = pf_model_get_info(m);
  size_t d = (size_t)i->d_head, f32 = i->precision == PF_PRECISION_F32,
         k = f32 ? 4 * d : 2 * ((d + 31) / 32 * 32), v = (f32 ? 4 : 2) * ((d + 15) / 16 * 16),
         heads = (size_t)i->n_layers * (size_t)i->n_kv_heads;
  for (size_t raw = 0; raw < 2; raw++) {
    pf_ctx *c;
    ck_assert_int_eq(pf_ctx_new(&c, m, &(pf_ctx_opts){.threads = 1, .keep_raw_k = (int)raw}),
                     PF_OK);
    ck_assert_uint_eq(pf_ctx_bytes_per_position(c), heads * (k + v + raw * 4 * d));
    pf_ctx_free(c);
  }
  pf_model_close(m);
}
END_TEST

START_TEST(an_edit_leaves_earlier_positions) {
  fix f = open_fix(_i);
  const pf_model_info *m = pf_model_get_info(f.m);
  size_t d = (size_t)m->d_model;
  float *before = calloc(LEN * d, sizeof *before), *after = calloc(LEN * d, sizeof *after),
        *zero = calloc(d, sizeof *zero);
  int32_t layer = m->n_layers - 1, pre;
  int post = hook(&f, "blocks.0.hook_resid_post", &pre),
      in = hook(&f, "blocks.0.hook_resid_pre", &pre);
  pf_tap a = {.hook = post,
              .layer = layer,
              .head = -1,
              .pos_hi = LEN,
              .op = PF_OP_CAPTURE,
              .out = before,
              .out_stride = d};
  pf_tap b[2] = {a,
                 {.hook = in,
                  .layer = 0,
                  .head = -1,
                  .pos_lo = 30,
                  .pos_hi = 31,
                  .op = PF_OP_REPLACE,
                  .value = zero}};
  b[0].out = after;
  ck_assert_int_eq(pf_seq_set_taps(f.s, &a, 1), PF_OK);
  ck_assert_int_eq(pf_seq_set_taps(f.t, b, 2), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, NULL);
  tu_run(f.c, f.t, f.m, 1, 0, LEN, NULL);
  ck_assert_uint_eq(a.fired, LEN);
  ck_assert_uint_eq(b[1].fired, 1);
  ck_assert(memcmp(before, after, 30 * d * sizeof *before) == 0);
  ck_assert(memcmp(before + 30 * d, after + 30 * d, d * sizeof *before) != 0);
  free(before);
  free(after);
  free(zero);
  close_fix(&f);
}
END_TEST

START_TEST(a_failed_call_changes_nothing) {
  fix f = open_fix(_i);
  float bad = 3e38f;
  int32_t layer;
  int q = hook(&f, "blocks.0.attn.hook_rot_q", &layer);
  size_t d = (size_t)pf_model_get_info(f.m)->d_head;
  float *v = calloc(d, sizeof *v);
  for (size_t i = 0; i < d; i++)
    v[i] = bad * (i % 2 ? 1.0f : -1.0f) * 10.0f;
  pf_tap t = {.hook = q,
              .layer = 0,
              .head = 0,
              .pos_lo = 20,
              .pos_hi = 21,
              .op = PF_OP_REPLACE,
              .value = v};
  tu_run(f.c, f.s, f.m, 1, 0, 10, NULL);
  ck_assert_int_eq(pf_seq_set_taps(f.s, &t, 1), PF_OK);
  pf_row rows[20];
  for (int32_t i = 0; i < 20; i++)
    rows[i] = (pf_row){.seq = f.s, .token = tu_token(f.m, 1, 10 + i), .pos = 10 + i, .out = -1};
  ck_assert_int_eq(pf_eval(f.c, rows, 20, NULL), PF_ENUMERIC);
  ck_assert(strstr(pf_last_error(), "layer 0 at position 20"));
  ck_assert_int_eq(pf_seq_end(f.s), 10);
  ck_assert_int_eq(pf_seq_set_taps(f.s, NULL, 0), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 10, LEN, f.x);
  tu_run(f.c, f.t, f.m, 1, 0, LEN, f.y);
  tu_same(f.m, f.x, f.y, "after a failure");
  free(v);
  close_fix(&f);
}
END_TEST

/* The same where a row goes head by head: a score that an action made infinite, with nobody who
 * wants its logits. */
START_TEST(an_infinite_score_is_an_error) {
  fix f = open_fix(_i);
  float inf[LEN];
  for (int k = 0; k < LEN; k++)
    inf[k] = INFINITY;
  pf_tap t = {.hook = tu_hook(f.m, "blocks.0.attn.hook_attn_scores"),
              .layer = 1,
              .head = 1,
              .pos_lo = 20,
              .pos_hi = 21,
              .op = PF_OP_REPLACE,
              .value = inf,
              .n_keys = LEN};
  ck_assert_int_eq(pf_seq_set_taps(f.s, &t, 1), PF_OK);
  pf_row rows[25];
  for (int32_t i = 0; i < 25; i++)
    rows[i] = (pf_row){.seq = f.s, .token = tu_token(f.m, 1, i), .pos = i, .out = -1};
  ck_assert_int_eq(pf_eval(f.c, rows, 25, NULL), PF_ENUMERIC);
  ck_assert(strstr(pf_last_error(), "layer 1 at position 20"));
  ck_assert_int_eq(pf_seq_end(f.s), 0);
  close_fix(&f);
}
END_TEST

/* ---- what directions say --------------------------------------------------------------------- */

static double along(const float *a, const float *b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += (double)a[i] * (double)b[i];
  return sum;
}

/* In f32: a difference of logits is the residual along its direction, and what heads give is,
 * behind the norm with its scale held fixed, what attention gives. */
START_TEST(frozen_norms_give_the_run) {
  fix f = open_fix(_i);
  const pf_model_info *m = pf_model_get_info(f.m);
  size_t d = (size_t)m->d_model, heads = (size_t)m->n_heads;
  float *x = calloc((heads + 3) * d, sizeof *x), *result = x + d, *out = x + (heads + 1) * d,
        *dir = x + (heads + 2) * d, scale, post = 1;
  int32_t l;
  int last = m->n_layers - 1, post_hook;
  bool has_post = pf_hook_find(f.m, "blocks.0.ln1_post.hook_scale", &post_hook, &l) == PF_OK;
  pf_tap taps[5] = {{.hook = tu_hook(f.m, "blocks.0.hook_resid_post"), .layer = last, .out = x},
                    {.hook = tu_hook(f.m, "ln_final.hook_scale"), .layer = -1, .out = &scale},
                    {.hook = tu_hook(f.m, "blocks.0.attn.hook_result"), .layer = 1, .out = result},
                    {.hook = tu_hook(f.m, "blocks.0.hook_attn_out"), .layer = 1, .out = out},
                    {.hook = has_post ? post_hook : 0, .layer = 1, .out = &post}};
  for (int i = 0; i < 5; i++) {
    taps[i].head = -1;
    taps[i].pos_lo = LEN - 1;
    taps[i].pos_hi = LEN;
    taps[i].op = PF_OP_CAPTURE;
  }
  ck_assert_int_eq(pf_seq_set_taps(f.s, taps, has_post ? 5 : 4), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  if (m->final_softcap > 0)
    for (int i = 3; i < 9; i += 5)
      f.x[i] = m->final_softcap * atanhf(f.x[i] / m->final_softcap);
  ck_assert_int_eq(pf_logit_direction(f.m, 3, 8, scale, dir), PF_OK);
  double want = (double)f.x[3] - (double)f.x[8], got = along(x, dir, d);
  ck_assert_msg(fabs(got - want) < 1e-4 * (1 + fabs(want)), "%g, not %g", got, want);
  for (size_t h = 0; h < heads; h++)
    pf_post_attention(f.m, 1, post, result + h * d);
  for (size_t e = 0; e < d; e++) {
    double sum = 0;
    for (size_t h = 0; h < heads; h++)
      sum += (double)result[h * d + e];
    ck_assert_msg(fabs(sum - (double)out[e]) < 1e-4 * (1 + fabs(sum)), "element %zu: %g, not %g", e,
                  sum, (double)out[e]);
  }
  ck_assert_int_eq(pf_logit_direction(f.m, 3, m->vocab_size, 1, dir), PF_EUSAGE);
  free(x);
  close_fix(&f);
}
END_TEST

/* Zeroing the result of a head removes what zeroing its z removes, up to rounding; in int8 the head
 * alone has other scales than the head among others. */
START_TEST(result_of_a_head_is_its_share) {
  fix f = open_fix(_i);
  const pf_model_info *m = pf_model_get_info(f.m);
  int32_t layer;
  pf_tap a = {.hook = hook(&f, "blocks.0.attn.hook_result", &layer),
              .layer = 0,
              .head = 1,
              .pos_lo = 40,
              .pos_hi = 41,
              .op = PF_OP_ZERO};
  pf_tap b = a;
  b.hook = hook(&f, "blocks.0.attn.hook_z", &layer);
  ck_assert_int_eq(pf_seq_set_taps(f.s, &a, 1), PF_OK);
  ck_assert_int_eq(pf_seq_set_taps(f.t, &b, 1), PF_OK);
  tu_run(f.c, f.s, f.m, 1, 0, LEN, f.x);
  tu_run(f.c, f.t, f.m, 1, 0, LEN, f.y);
  double worst = 0, size = 0;
  for (int32_t i = 0; i < m->vocab_size; i++) {
    double e = (double)f.x[i] - (double)f.y[i];
    worst = e * e > worst * worst ? (e < 0 ? -e : e) : worst;
    size = f.y[i] * f.y[i] > size * size ? (double)(f.y[i] < 0 ? -f.y[i] : f.y[i]) : size;
  }
  ck_assert_uint_eq(a.fired, 1);
  static const double tolerance[PF_N_PRECISIONS] = {[PF_PRECISION_F32] = 1e-4,
                                                    [PF_PRECISION_BF16] = 0.02,
                                                    [PF_PRECISION_BF16_HF] = 0.05,
                                                    [PF_PRECISION_INT8] = 0.1};
  ck_assert_msg(worst <= tolerance[precision_of(_i)] * size, "worst %g of %g", worst, size);
  close_fix(&f);
}
END_TEST

START_TEST(names_resolve) {
  fix f = open_fix(0);
  int a, b;
  int32_t l;
  ck_assert_int_eq(pf_hook_find(f.m, "blocks.1.hook_resid_pre", &a, &l), PF_OK);
  ck_assert_int_eq(l, 1);
  ck_assert_int_eq(pf_hook_find(f.m, "model.layers.1.input", &b, &l), PF_OK);
  ck_assert_int_eq(a, b);
  ck_assert_int_eq(pf_hook_find(f.m, "blocks.1.hook_resid_prr", &a, &l), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "the nearest are blocks.1.hook_resid_pre, "));
  ck_assert_int_eq(pf_hook_find(f.m, "hook_resid_prr", &a, &l), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "blocks.*.hook_resid_pre"));
  ck_assert_int_eq(pf_hook_find(f.m, "blocks.99999999999.hook_resid_prr", &a, &l), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "blocks.*.hook_resid_pre"));
  ck_assert_int_eq(pf_hook_find(f.m, "blocks.18446744073709551617.hook_resid_pre", &a, &l),
                   PF_EUSAGE); /* 1 above what 64 bits hold */
  ck_assert_int_eq(pf_hook_find(f.m, "attentions[1]", &a, &l), PF_OK);
  ck_assert_int_eq(l, 1);
  ck_assert_int_eq(pf_hook_find(f.m, "blocks.1.attn.hook_pattern", &b, &l), PF_OK);
  ck_assert_int_eq(a, b);
  ck_assert_int_eq(pf_hook_find(f.m, "blocks.99.hook_resid_pre", &a, &l), PF_EUSAGE);
  size_t n;
  const pf_hook_info *h = pf_hooks(f.m, &n);
  for (size_t i = 0; i < n; i++) { /* every primary name finds itself */
    char name[128];
    snprintf(name, sizeof name, h[i].per_layer ? "%.*s0%s" : "%.*s%s", h[i].per_layer ? 7 : 0,
             h[i].name, h[i].name + (h[i].per_layer ? 9 : 0));
    ck_assert_msg(pf_hook_find(f.m, name, &a, &l) == PF_OK && a == h[i].id, "%s: %s", name,
                  pf_last_error());
  }
  close_fix(&f);
}
END_TEST

/* Every point alone acts on a sequence that stops where pf_reach_stop says, and captures what the
 * whole run does; one layer less, and it does not act. */
START_TEST(actions_reach_the_stop) {
  fix f = open_fix(_i);
  const pf_model_info *m = pf_model_get_info(f.m);
  int32_t n = m->n_layers, mid = n / 2;
  size_t n_hooks, most = 0;
  const pf_hook_info *h = pf_hooks(f.m, &n_hooks);
  for (size_t i = 0; i < n_hooks; i++)
    if (h[i].width > 0)
      most += (size_t)h[i].width * (size_t)(h[i].heads ? h[i].heads : 1);
  float *want = calloc(most, sizeof *want), *got = calloc(most, sizeof *got);
  for (size_t i = 0; i < n_hooks; i++) {
    size_t width = h[i].width < 0 ? 5 : (size_t)h[i].width;
    pf_tap t = {.hook = h[i].id,
                .layer = h[i].per_layer ? mid : -1,
                .head = -1,
                .pos_lo = 4,
                .pos_hi = 5,
                .op = PF_OP_CAPTURE,
                .n_keys = h[i].width < 0 ? 5 : 0};
    int32_t stop = pf_reach_stop(&t, 1, n);
    for (int k = 0; k < 3; k++) {
      pf_seq *s = tu_seq(f.c);
      t.out = k ? got : want;
      t.fired = 0;
      ck_assert_int_eq(pf_seq_set_taps(s, &t, 1), PF_OK);
      if (k && (k == 1 || stop > 1))
        ck_assert_int_eq(pf_seq_set_stop(s, k == 1 ? stop : stop - 1), PF_OK);
      tu_run(f.c, s, f.m, 1, 0, 5, NULL);
      ck_assert_msg(t.fired == (k < 2 || stop == 1), "%s, stop %d: %d", h[i].name, stop, k);
      if (k == 1)
        ck_assert_mem_eq(got, want, width * (size_t)(h[i].heads ? h[i].heads : 1) * sizeof *got);
      pf_seq_free(s);
    }
  }
  free(want);
  free(got);
  close_fix(&f);
}
END_TEST

START_TEST(misuse_is_refused) {
  fix f = open_fix(0);
  pf_row r = {.seq = f.s, .token = 0, .pos = 5, .out = -1};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_OK);
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_EUSAGE); /* taken position */
  r = (pf_row){.seq = f.s, .token = 1 << 30, .pos = 6, .out = -1};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_EUSAGE); /* token */
  r = (pf_row){.seq = f.s, .token = 0, .pos = 1 << 30, .out = -1};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_EUSAGE); /* position */
  r = (pf_row){.seq = f.s, .token = 0, .pos = 6, .out = 0};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_EUSAGE); /* logits without a place */
  ck_assert_int_eq(pf_seq_end(f.s), 6);
  pf_seq *k;
  ck_assert_int_eq(pf_seq_fork(&k, f.s, 7), PF_EUSAGE);
  ck_assert_ptr_null(k);
  ck_assert_int_eq(pf_seq_set_stop(f.s, 0), PF_EUSAGE);
  ck_assert_int_eq(pf_seq_set_stop(f.s, pf_model_get_info(f.m)->n_layers + 1), PF_EUSAGE);
  ck_assert_int_eq(pf_seq_set_stop(f.s, 1), PF_OK);
  r = (pf_row){.seq = f.s, .token = 0, .pos = 6, .out = 0};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, f.x), PF_EUSAGE); /* no logits */
  r = (pf_row){.seq = f.s, .token = 0, .pos = 6, .out = -1, .layer = 1, .resid = f.x};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_EUSAGE); /* it stops there */
  ck_assert_int_eq(pf_seq_end(f.s), 6);
  pf_cut c = {0, 99, -1, 0, 1, 0, 1};
  ck_assert_int_eq(pf_seq_set_cuts(f.s, &c, 1), PF_EUSAGE);
  const pf_model_info *m = pf_model_get_info(f.m);
  r = (pf_row){.seq = f.s, .token = 0, .pos = m->max_positions, .out = -1};
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_EUSAGE);
  r.pos--;
  ck_assert_int_eq(pf_eval(f.c, &r, 1, NULL), PF_OK);
  c = (pf_cut){1, 1, -1, 0, 1, 0, 1};
  ck_assert_int_eq(pf_seq_set_cuts(f.s, &c, 1), PF_EUSAGE); /* no layer */
  c = (pf_cut){0, 1, m->n_heads, 0, 1, 0, 1};
  ck_assert_int_eq(pf_seq_set_cuts(f.s, &c, 1), PF_EUSAGE); /* one head too many */
  pf_swap w = {0, 1, -1, 0, 1, 0, PF_SWAP_K, f.t, 0, 0};
  ck_assert_int_eq(pf_seq_set_swaps(f.s, &w, 1), PF_EUSAGE); /* the source holds nothing */
  pf_ctx *plain; /* of the source's context it depends whether keys can be moved */
  ck_assert_int_eq(pf_ctx_new(&plain, f.m, &(pf_ctx_opts){.threads = 1}), PF_OK);
  w.src = tu_seq(plain);
  tu_run(plain, (pf_seq *)w.src, f.m, 1, 0, 4, NULL);
  ck_assert_int_eq(pf_seq_set_swaps(f.s, &w, 1), PF_OK);
  w.src_lo = 2;
  ck_assert_int_eq(pf_seq_set_swaps(f.s, &w, 1), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "un-rotated keys"));
  w.head = m->n_kv_heads;
  w.src_lo = 0;
  ck_assert_int_eq(pf_seq_set_swaps(f.s, &w, 1), PF_EUSAGE);
  ck_assert_int_eq(pf_seq_set_swaps(f.s, NULL, 0), PF_OK);
  pf_seq_free((pf_seq *)w.src);
  pf_ctx_free(plain);
  close_fix(&f);
}
END_TEST

int main(void) {
  int n = n_cases();
  Suite *s = suite_create("branch");
  TCase *t = tcase_create("bits");
  tcase_set_timeout(t, 0);
  tcase_add_loop_test(t, pieces_equal_whole, 0, n);
  tcase_add_loop_test(t, batch_equals_alone, 0, n);
  tcase_add_loop_test(t, fork_equals_recompute_and_leaves_the_parent, 0, n);
  tcase_add_loop_test(t, stops_equal_the_whole_run, 0, n);
  tcase_add_loop_test(t, a_stopped_branch_goes_on, 0, n);
  tcase_add_loop_test(t, actions_reach_the_stop, 0, n);
  tcase_add_loop_test(t, cut_equals_gap, 0, n);
  tcase_add_loop_test(t, heads_cut_one_by_one_equal_the_layer_cut, 0, n);
  tcase_add_loop_test(t, full_transplant_gives_the_source, 0, n);
  tcase_add_loop_test(t, a_swap_of_a_head_is_for_its_queries, 0, n);
  tcase_add_loop_test(t, keys_alone_fill_no_gap, 0, n);
  tcase_add_loop_test(t, raw_scores_of_unseen_keys, 0, n);
  tcase_add_loop_test(t, the_last_position, 0, n_models());
  tcase_add_loop_test(t, a_head_has_its_own_values, 0, n);
  tcase_add_loop_test(t, a_capture_behind_an_edit, 0, n);
  tcase_add_loop_test(t, an_infinite_score_is_an_error, 0, n);
  tcase_add_loop_test(t, frozen_norms_give_the_run, 0, n_models());
  tcase_add_loop_test(t, moved_keys_equal_keys_computed_in_place, 1, PF_N_PRECISIONS);
  tcase_add_loop_test(t, memory_of_a_position, 0, n);
  tcase_add_loop_test(t, trimmed_blocks_are_freed, 0, n_models());
  tcase_add_loop_test(t, an_edit_leaves_earlier_positions, 0, n);
  tcase_add_loop_test(t, a_failed_call_changes_nothing, 0, n);
  tcase_add_loop_test(t, result_of_a_head_is_its_share, 0, n);
  tcase_add_test(t, names_resolve);
  tcase_add_test(t, misuse_is_refused);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
