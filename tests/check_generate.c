/* SPDX-License-Identifier: Apache-2.0
 * Generation of many branches: each must have the bits of a run by itself, whatever goes with it;
 * memory within its limit; the token tree. */
#include <stdbool.h>

#include "base/dmath.h"
#include "base/fpenv.h"
#include "model/prefix.h"
#include "model/sample.h"
#include "model_util.h"
#include "tests/suite.h"
#include "tests/util.h"

enum { N_BRANCHES = 40, MAX_PROMPT = 100, MAX_NEW = 12 };

static const char *const models[] = {"tests/mini/g2-window", "tests/mini/q2-odd",
                                     "tests/mini/g2-nocap-mqa", "tests/mini/q2-mixed"};
enum { N_MODELS = sizeof models / sizeof *models };

/* The small tier is for emulators; the big one takes every model in every precision. */
static int n_cases(void) {
  return tu_tier("big") ? N_MODELS * (PF_N_PRECISIONS - 1) : tu_tier("small") ? 1 : 3;
}

static pf_model *open_case(int i) {
  pf_precision p = tu_tier("big") ? (pf_precision)(1 + i / N_MODELS)
                   : i == 2       ? PF_PRECISION_INT8
                                  : PF_PRECISION_F32;
  return tu_open_as(models[i % N_MODELS], p);
}

static uint32_t number(uint64_t key, uint64_t at) {
  uint32_t w[4];
  pf_philox(key, 5, at, w);
  return w[0];
}

static void ok(int st) {
  ck_assert_msg(st == PF_OK, "%s", pf_last_error());
}

/* ---- branches of all kinds ------------------------------------------------------------------- */

typedef struct kit {
  const pf_model *m;
  pf_ctx *c;
  pf_seq *src; /* of swaps and forks */
  pf_branch b[N_BRANCHES];
  int32_t ids[N_BRANCHES][MAX_PROMPT];
  pf_tap taps[N_BRANCHES];
  float *value, *logits;
} kit;

/* A prompt: one of three beginnings, some of it, then tokens of its own. */
static size_t prompt(const pf_model *m, size_t i, int32_t *ids) {
  size_t head = (size_t[]){0, 40, 66, 90}[number(1, i) % 4],
         n = 1 + number(2, i) % (MAX_PROMPT - 1);
  uint64_t key = 100 + number(3, i) % 3;
  for (size_t k = 0; k < n; k++)
    ids[k] = tu_token(m, k < head ? key : 1000 + i % 30, (int32_t)k);
  return n;
}

static void options(size_t i, pf_gen_opts *o) {
  pf_gen_defaults(o);
  o->max_tokens = 1 + (int32_t)(number(4, i) % MAX_NEW);
  o->seed = number(5, i) % 3;
  o->chunk = i % 5 == 0 ? 7 : 0;
  o->repetition_penalty = i % 3 == 1 ? 1.3 : 1.0;
  o->temperature = i % 4 == 2 ? 0.8 : i % 4 == 3 ? 25.0 : 0.0;
  o->top_k = i % 8 == 2 ? 5 : i % 8 == 3 ? 40 : 0;
  o->top_p = i % 8 >= 6 ? 0.9 : 1.0;
  o->ignore_eos = i % 2;
}

/* Sequences that hold something: a fork with an edit, a cut, swapped K and V; one that is full. */
static void give_seq(kit *k, size_t i) {
  pf_branch *b = &k->b[i];
  ok(pf_seq_fork(&b->seq, k->src, 37));
  b->free_seq = i % 2 == 0;
  if (i % 4 == 0) {
    k->taps[i] = (pf_tap){.hook = 0,
                          .layer = 1,
                          .head = -1,
                          .pos_lo = 38,
                          .pos_hi = 39,
                          .op = PF_OP_ADD,
                          .value = k->value};
    k->taps[i].hook = tu_hook(k->m, "blocks.1.hook_resid_pre");
    ok(pf_seq_set_taps(b->seq, &k->taps[i], 1));
  } else if (i % 4 == 1) {
    ok(pf_seq_set_cuts(b->seq, &(pf_cut){0, 2, -1, 37, 99, 3, 9}, 1));
  } else if (i % 4 == 2) {
    pf_swap s = {.layer_lo = 0,
                 .layer_hi = 2,
                 .head = -1,
                 .pos_lo = 5,
                 .pos_hi = 12,
                 .src_lo = 20,
                 .what = PF_SWAP_K | PF_SWAP_V,
                 .src = k->src};
    ok(pf_seq_set_swaps(b->seq, &s, 1));
  } else {
    b->n = 0;
    b->logits = k->logits;
  }
}

static kit *kit_new(const pf_model *m, int threads) {
  kit *k = calloc(1, sizeof *k);
  k->m = m;
  k->c = tu_ctx(m, threads);
  k->src = tu_seq(k->c);
  k->logits = tu_logits(m);
  k->value = calloc((size_t)pf_model_get_info(m)->d_model, sizeof *k->value);
  for (int32_t d = 0; d < pf_model_get_info(m)->d_model; d++)
    k->value[d] = (float)(d % 7) - 3;
  tu_run(k->c, k->src, m, 100, 0, 37, k->logits);
  for (size_t i = 0; i < N_BRANCHES; i++) {
    k->b[i].ids = k->ids[i];
    k->b[i].n = prompt(m, i, k->ids[i]);
    options(i, &k->b[i].o);
    if (i % 10 >= 6)
      give_seq(k, i);
  }
  return k;
}

static void kit_free(kit *k) {
  for (size_t i = 0; i < N_BRANCHES; i++) {
    pf_branch_clear(&k->b[i]);
    pf_seq_free(k->b[i].seq);
  }
  pf_seq_free(k->src);
  size_t peak;
  ck_assert_uint_eq(pf_ctx_kv_bytes(k->c, &peak), 0);
  ck_assert_uint_gt(peak, 0);
  pf_ctx_free(k->c);
  free(k->value);
  free(k->logits);
  free(k);
}

static void same_branch(const pf_branch *a, const pf_branch *b, size_t i, const char *what) {
  ck_assert_msg(a->out.n == b->out.n && a->finish == b->finish,
                "%s: branch %zu: %zu tokens and %s, not %zu and %s", what, i, a->out.n,
                pf_finish_name(a->finish), b->out.n, pf_finish_name(b->finish));
  ck_assert_msg(!memcmp(a->out.v, b->out.v, a->out.n * sizeof *a->out.v), "%s: branch %zu: ids",
                what, i);
  ck_assert_msg(!memcmp(a->logprobs, b->logprobs, a->out.n * sizeof *a->logprobs) &&
                    !memcmp(a->margins, b->margins, a->out.n * sizeof *a->margins),
                "%s: branch %zu: log-probabilities or margins", what, i);
}

/* ---- each by itself, written down plainly ---------------------------------------------------- */

typedef struct scored {
  float x;
  int32_t id;
} scored;

static int by_score(const void *a, const void *b) {
  const scored *x = a, *y = b;
  return x->x != y->x ? (x->x > y->x ? -1 : 1) : x->id < y->id ? -1 : 1;
}

static int32_t plain_draw(const pf_gen_opts *o, const float *x, size_t n, uint64_t step) {
  scored *c = calloc(n, sizeof *c);
  double *p = calloc(n, sizeof *p), total = 0, sum = 0;
  for (size_t i = 0; i < n; i++)
    c[i] = (scored){x[i], (int32_t)i};
  qsort(c, n, sizeof *c, by_score);
  size_t keep = o->top_k && (size_t)o->top_k < n ? (size_t)o->top_k : n, m = 0, i = 0;
  for (size_t k = 0; k < keep; k++)
    total += p[k] = pf_dexp(((double)c[k].x - (double)c[0].x) / o->temperature);
  while (m < keep && (m == 0 || sum < o->top_p * total))
    sum += p[m++];
  double u = pf_uniform(o->seed, 0, step) * sum, acc = p[0];
  while (i + 1 < m && acc <= u)
    acc += p[++i];
  int32_t id = c[i].id;
  free(c);
  free(p);
  return id;
}

/* The next token of ids[0..n) from a sequence made for it. */
static int32_t plain_token(kit *k, const pf_gen_opts *o, const int32_t *ids, size_t n,
                           uint64_t step, float *logprob) {
  size_t v = (size_t)pf_model_get_info(k->m)->vocab_size;
  pf_seq *s = tu_seq(k->c);
  pf_row *rows = calloc(n, sizeof *rows);
  float *x = tu_logits(k->m), *y = tu_logits(k->m);
  for (size_t i = 0; i < n; i++)
    rows[i] = (pf_row){.seq = s, .token = ids[i], .pos = (int32_t)i, .out = i + 1 == n ? 0 : -1};
  ok(pf_eval(k->c, rows, n, x));
  memcpy(y, x, v * sizeof *x);
  for (size_t i = 0; i < n; i++) {
    float was = x[ids[i]], p = (float)o->repetition_penalty;
    y[ids[i]] = was < 0 ? was * p : was / p;
  }
  int32_t id = o->temperature > 0 ? plain_draw(o, y, v, step) : pf_argmax(y, v, NULL);
  *logprob = (float)pf_logprob(x, v, id);
  free(rows);
  free(x);
  free(y);
  pf_seq_free(s);
  return id;
}

static int is_eos(const pf_model *m, int32_t id) {
  const pf_model_info *i = pf_model_get_info(m);
  for (int32_t k = 0; k < i->n_eos; k++)
    if (i->eos[k] == id)
      return 1;
  return 0;
}

/* Against the branches of k, which were generated by themselves. */
static void compare_plain(kit *k, size_t i) {
  const pf_branch *b = &k->b[i];
  int32_t ids[MAX_PROMPT + MAX_NEW];
  memcpy(ids, b->ids, b->n * sizeof *ids);
  for (size_t t = 0; t < b->out.n; t++) {
    float lp;
    int32_t id = plain_token(k, &b->o, ids, b->n + t, t, &lp);
    ck_assert_msg(id == b->out.v[t] && !memcmp(&lp, &b->logprobs[t], sizeof lp),
                  "branch %zu, token %zu: %d (%a), not %d (%a)", i, t, b->out.v[t],
                  (double)b->logprobs[t], id, (double)lp);
    ids[b->n + t] = id;
    bool last = t + 1 == (size_t)b->o.max_tokens || (!b->o.ignore_eos && is_eos(k->m, id));
    ck_assert_msg(last == (t + 1 == b->out.n), "branch %zu ends at token %zu", i, t);
  }
}

static kit *one_by_one(const pf_model *m) {
  kit *k = kit_new(m, 1);
  for (size_t i = 0; i < N_BRANCHES; i++)
    ok(pf_generate_many(k->c, &k->b[i], 1, NULL, NULL));
  return k;
}

START_TEST(plain) {
  pf_model *m = open_case(_i);
  kit *k = one_by_one(m);
  size_t compared = 0;
  for (size_t i = 0; i < N_BRANCHES; i++)
    if (i % 10 < 6) {
      compare_plain(k, i);
      compared++;
    }
  ck_assert_uint_ge(compared, 20);
  kit_free(k);
  pf_model_close(m);
}
END_TEST

/* ---- together -------------------------------------------------------------------------------- */

static int stop_at_three(void *user, int32_t id, float logprob, float margin) {
  (void)id, (void)logprob, (void)margin;
  return ++*(int *)user == 3;
}

static void shuffle(kit *k, size_t *order, uint64_t key) {
  for (size_t i = 0; i < N_BRANCHES; i++)
    order[i] = i;
  for (size_t i = N_BRANCHES; key && i-- > 1;) {
    size_t j = number(key, i) % (i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  pf_branch *b = calloc(N_BRANCHES, sizeof *b);
  for (size_t i = 0; i < N_BRANCHES; i++)
    b[i] = k->b[order[i]];
  memcpy(k->b, b, N_BRANCHES * sizeof *b);
  free(b);
}

static int count_done(void *user, size_t i) {
  ((int *)user)[i]++;
  return PF_OK;
}

/* memory: in branches that fit by themselves, 0 = no limit. */
static void together(kit *ref, int threads, size_t batch, uint64_t key, double memory) {
  kit *k = kit_new(ref->m, threads);
  size_t order[N_BRANCHES];
  int done[N_BRANCHES] = {0};
  char what[80];
  pf_many_stats st;
  pf_many_opts o = {.batch = batch, .on_done = count_done, .user = done};
  shuffle(k, order, key);
  snprintf(what, sizeof what, "%d threads, batch %zu, order %llu, memory %g", threads, batch,
           (unsigned long long)key, memory);
  if (memory > 0) {
    o.memory = 1;
    ck_assert_int_eq(pf_generate_many(k->c, k->b, N_BRANCHES, &o, &st), PF_ENOMEM);
    o.memory = (size_t)((double)st.memory_one * memory);
  }
  int rc = pf_generate_many(k->c, k->b, N_BRANCHES, &o, &st);
  ck_assert_msg(rc == PF_OK, "%s: %s", what, pf_last_error());
  ck_assert_msg(!batch || st.in_flight <= batch, "%s: %zu in flight", what, st.in_flight);
  ck_assert_msg(!o.memory || st.memory_peak <= o.memory, "%s: %zu bytes, not %zu", what,
                st.memory_peak, o.memory);
  for (size_t i = 0; i < N_BRANCHES; i++) {
    same_branch(&k->b[i], &ref->b[order[i]], order[i], what);
    ck_assert_int_eq(done[i], 1);
    ck_assert(!k->b[i].free_seq || !k->b[i].seq);
  }
  kit_free(k);
}

START_TEST(any_company) {
  static const size_t batches[] = {1, 2, 5, 16, 0};
  pf_model *m = open_case(_i);
  kit *ref = one_by_one(m);
  for (int t = 1; t <= 3; t++)
    for (size_t b = 0; b < 5; b++)
      if (tu_tier("big") || (size_t)t % 3 == b % 3)
        together(ref, t, batches[b], (uint64_t)t * b, 0);
  together(ref, 2, 0, 7, 1.0);
  together(ref, 3, 0, 8, 2.5);
  kit_free(ref);
  pf_model_close(m);
}
END_TEST

/* ---- ends ------------------------------------------------------------------------------------ */

START_TEST(ends) {
  pf_model *m = tu_open("tests/mini/q2-odd");
  pf_ctx *c = tu_ctx(m, 2);
  int32_t ids[] = {3, 4, 5}, most = pf_model_get_info(m)->max_positions;
  int seen = 0;
  pf_branch b[4] = {
      {.ids = ids, .n = 3}, {.ids = ids, .n = 3}, {.ids = ids, .n = 3}, {.ids = ids, .n = 2}};
  for (int i = 0; i < 4; i++) {
    pf_gen_defaults(&b[i].o);
    b[i].o.max_tokens = 6;
    b[i].o.ignore_eos = i != 1;
  }
  ok(pf_generate_many(c, b, 1, NULL, NULL));
  ck_assert_int_eq(b[0].finish, PF_FINISH_LENGTH);
  ck_assert_uint_eq(b[0].out.n, 6);
  size_t first = 0; /* the EOS of branch 1: the token at 2, where it is new */
  while (b[0].out.v[first] != b[0].out.v[2])
    first++;
  int32_t eos = b[0].out.v[2];
  pf_branch_clear(&b[0]);
  b[1].o.eos = &eos;
  b[1].o.n_eos = 1;
  b[2].o.on_token = stop_at_three;
  b[2].o.user = &seen;
  b[3].seq = tu_seq(c); /* a gap up to near the end */
  ok(pf_eval(c, &(pf_row){.seq = b[3].seq, .token = 2, .pos = most - 5, .out = -1}, 1, NULL));
  ok(pf_generate_many(c, b, 4, NULL, NULL));
  ck_assert_int_eq(b[1].finish, PF_FINISH_EOS);
  ck_assert_uint_eq(b[1].out.n, first + 1);
  ck_assert_int_eq(b[2].finish, PF_FINISH_STOPPED);
  ck_assert_uint_eq(b[2].out.n, 3);
  ck_assert_int_eq(b[3].finish, PF_FINISH_POSITIONS);
  ck_assert_uint_eq(b[3].out.n, 3);
  ck_assert_int_eq(pf_seq_end(b[3].seq), most);
  ck_assert_str_eq(pf_finish_name(b[3].finish), "positions");
  for (int i = 0; i < 4; i++)
    pf_branch_clear(&b[i]);
  pf_seq_free(b[3].seq);
  pf_ctx_free(c);
  pf_model_close(m);
}
END_TEST

static int stop_flag;

static int raise_flag(void *user, size_t i) {
  (void)user, (void)i;
  stop_flag = 1;
  return PF_OK;
}

static int fail_at_end(void *user, size_t i) {
  (void)user, (void)i;
  return PF_EIO;
}

START_TEST(broken_off) {
  pf_model *m = tu_open("tests/mini/q2-odd");
  kit *k = kit_new(m, 2);
  pf_many_opts o = {.batch = 3, .on_done = raise_flag, .stop = &stop_flag};
  stop_flag = 0;
  ck_assert_int_eq(pf_generate_many(k->c, k->b, N_BRANCHES, &o, NULL), PF_EINCOMPLETE);
  size_t done = 0;
  for (size_t i = 0; i < N_BRANCHES; i++)
    done += k->b[i].finish != PF_FINISH_NONE;
  ck_assert(done >= 1 && done <= 3);
  kit_free(k);
  k = kit_new(m, 2);
  o = (pf_many_opts){.on_done = fail_at_end};
  ck_assert_int_eq(pf_generate_many(k->c, k->b, N_BRANCHES, &o, NULL), PF_EIO);
  kit_free(k);
  pf_model_close(m);
}
END_TEST

static void refused(pf_ctx *c, pf_branch *b, size_t n, const char *why) {
  ck_assert_int_eq(pf_generate_many(c, b, n, NULL, NULL), PF_EUSAGE);
  ck_assert_msg(strstr(pf_last_error(), why) != NULL, "'%s', not '%s'", pf_last_error(), why);
}

START_TEST(refusals) {
  pf_model *m = tu_open("tests/mini/q2-odd");
  pf_ctx *c = tu_ctx(m, 1), *other = tu_ctx(m, 1);
  int32_t ids[] = {3, 9999};
  pf_branch b[2] = {{.ids = ids, .n = 1}, {.ids = ids, .n = 1}};
  pf_gen_defaults(&b[0].o);
  b[1].o = b[0].o;
  b[1].n = 2;
  refused(c, b, 2, "branch 1: token id 9999");
  b[1].n = 0;
  refused(c, b, 2, "branch 1: the prompt is empty");
  float nothing[1] = {0};
  b[1].logits = nothing; /* of which sequence? */
  refused(c, b, 2, "branch 1: the prompt is empty");
  b[1].logits = NULL;
  size_t most = (size_t)pf_model_get_info(m)->max_positions;
  int32_t *many = calloc(most + 1, sizeof *many);
  b[1].ids = many;
  b[1].n = most + 1;
  refused(c, b, 2, "branch 1: the prompt has");
  b[1].ids = ids;
  free(many);
  b[1].n = 1;
  b[1].o.max_tokens = 0;
  refused(c, b, 2, "branch 1: at least one token");
  b[1].o.max_tokens = 1;
  b[1].o.eos = ids;
  b[1].o.n_eos = 2;
  refused(c, b, 2, "end-of-sequence id 9999");
  b[1].o.eos = NULL;
  b[0].seq = b[1].seq = tu_seq(c);
  refused(c, b, 2, "the same sequence");
  refused(other, b, 1, "does not belong");
  pf_seq_free(b[0].seq);
  ok(pf_generate_many(c, b, 0, NULL, NULL));
  float *x = tu_logits(m);
  b[0] = (pf_branch){.seq = tu_seq(c), .logits = x};
  pf_gen_defaults(&b[0].o);
  b[0].o.max_tokens = 1;
  tu_run(c, b[0].seq, m, 5, 0, 4, x);
  x[0] = NAN;
  ck_assert_int_eq(pf_generate_many(c, b, 1, NULL, NULL), PF_ENUMERIC);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "not finite"));
  pf_seq_free(b[0].seq);
  free(x);
  pf_ctx_free(c);
  pf_ctx_free(other);
  pf_model_close(m);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

START_TEST(blocks_are_counted) {
  pf_model *m = tu_open("tests/mini/g2-window");
  pf_ctx *c = tu_ctx(m, 1);
  pf_seq *s = tu_seq(c), *f;
  size_t peak;
  tu_run(c, s, m, 1, 0, 33, NULL);
  size_t two = pf_ctx_kv_bytes(c, NULL); /* blocks of 32 positions, in every layer */
  ck_assert_uint_ge(two, 64 * pf_ctx_bytes_per_position(c));
  ok(pf_seq_fork(&f, s, 33));
  ck_assert_uint_eq(pf_ctx_kv_bytes(c, NULL), two);
  tu_run(c, f, m, 2, 33, 34, NULL); /* copies the second block */
  ck_assert_uint_eq(pf_ctx_kv_bytes(c, NULL), two + two / 2);
  pf_seq_free(s);
  ck_assert_uint_eq(pf_ctx_kv_bytes(c, &peak), two);
  ck_assert_uint_eq(peak, two + two / 2);
  pf_seq_free(f);
  pf_ctx_kv_reset_peak(c);
  ck_assert_uint_eq(pf_ctx_kv_bytes(c, &peak) + peak, 0);
  pf_ctx_free(c);
  pf_model_close(m);
}
END_TEST

/* What one branch is said to need: blocks of its positions, none beyond the model's last, and a row
 * of logits. A sequence that is given counts from its end on, once, whether it stays or not. */
START_TEST(one_branch_is_counted) {
  pf_model *m = tu_open("tests/mini/q2-odd");
  pf_ctx *c = tu_ctx(m, 1);
  int32_t ids[40] = {0}, most = pf_model_get_info(m)->max_positions;
  size_t row = (size_t)pf_model_get_info(m)->vocab_size * sizeof(float),
         block = pf_ctx_block_bytes(c);
  pf_many_opts o = {.memory = 1};
  pf_many_stats st;
  pf_branch b = {.ids = ids, .n = 40};
  pf_gen_defaults(&b.o);
  b.o.max_tokens = 25; /* the last token needs no position */
  ck_assert_int_eq(pf_generate_many(c, &b, 1, &o, &st), PF_ENOMEM);
  ck_assert_uint_eq(st.memory_one, 2 * block + row);
  b.o.max_tokens = 26;
  ck_assert_int_eq(pf_generate_many(c, &b, 1, &o, &st), PF_ENOMEM);
  ck_assert_uint_eq(st.memory_one, 3 * block + row);
  b.o.max_tokens = INT32_MAX;
  ck_assert_int_eq(pf_generate_many(c, &b, 1, &o, &st), PF_ENOMEM);
  ck_assert_uint_eq(st.memory_one, (size_t)(most + 31) / 32 * block + row);
  b.o.max_tokens = 25;
  b.seq = tu_seq(c);
  tu_run(c, b.seq, m, 1, 0, 40, NULL);
  for (int gone = 0; gone < 2; gone++) {
    b.free_seq = gone;
    o.memory = 1;
    ck_assert_int_eq(pf_generate_many(c, &b, 1, &o, &st), PF_ENOMEM);
    ck_assert_uint_eq(st.memory_one, 3 * block + row); /* positions 40 to 103: blocks 1 to 3 */
  }
  b.free_seq = 0;
  o.memory = st.memory_one;
  ok(pf_generate_many(c, &b, 1, &o, &st));
  pf_branch_clear(&b);
  pf_seq_free(b.seq);
  pf_ctx_free(c);
  pf_model_close(m);
}
END_TEST

/* A beginning is given back with its last branch: there is room for two of three families. */
START_TEST(beginnings_are_given_back) {
  enum { FAMILIES = 3, EACH = 4, LEN = 70, N = FAMILIES * EACH };
  pf_model *m = tu_open("tests/mini/q2-odd");
  pf_ctx *c = tu_ctx(m, 1);
  static int32_t ids[N][LEN];
  pf_branch b[N] = {0};
  pf_many_stats st;
  for (int i = 0; i < N; i++) {
    for (int32_t k = 0; k < LEN; k++)
      ids[i][k] = tu_token(m, (uint64_t)(k < LEN - 2 ? i / EACH : 10 + i), k);
    b[i].ids = ids[i];
    b[i].n = LEN;
    pf_gen_defaults(&b[i].o);
    b[i].o.max_tokens = 3;
    b[i].o.ignore_eos = 1;
  }
  pf_many_opts o = {.memory = 8 * pf_ctx_block_bytes(c) +
                              3 * (size_t)pf_model_get_info(m)->vocab_size * sizeof(float)};
  ok(pf_generate_many(c, b, N, &o, &st));
  ck_assert_uint_lt(st.prompt_rows, st.prompt_tokens / 2); /* they were shared */
  ck_assert_uint_le(st.memory_peak, o.memory);
  for (int i = 0; i < N; i++)
    pf_branch_clear(&b[i]);
  pf_ctx_free(c);
  pf_model_close(m);
}
END_TEST

/* ---- choosing -------------------------------------------------------------------------------- */

enum { CHOICES = 10 };

/* A sequence of tokens 3, nothing, 5 and what is chosen after them from logits of which the first
 * few are `first`, the others far below. */
static pf_chosen choose(const pf_gen_opts *o, const float *first, uint64_t step) {
  pf_model *m = tu_open("tests/mini/q2-one-layer");
  pf_ctx *c = tu_ctx(m, 1);
  pf_seq *s = tu_seq(c);
  size_t v = (size_t)pf_model_get_info(m)->vocab_size;
  pf_row rows[] = {{.seq = s, .token = 3, .pos = 0, .out = -1},
                   {.seq = s, .token = 5, .pos = 2, .out = -1}};
  float *x = tu_logits(m), *y = tu_logits(m);
  pf_picker p = {0};
  pf_chosen got;
  ok(pf_eval(c, rows, 2, NULL));
  for (size_t i = 0; i < v; i++)
    x[i] = y[i] = i < CHOICES ? first[i] : -1000;
  ok(pf_picker_make(&p, v, true, true));
  uint64_t env = pf_fp_enter();
  pf_pick(&p, s, o, step, x, &got);
  pf_fp_leave(env);
  ck_assert_msg(memcmp(x, y, v * sizeof *x) == 0, "the logits are not as they were");
  for (size_t i = 0; i < v; i++)
    ck_assert_uint_eq(p.seen[i], 0);
  pf_picker_free(&p);
  free(x);
  free(y);
  pf_seq_free(s);
  pf_ctx_free(c);
  pf_model_close(m);
  return got;
}

START_TEST(penalties_that_fp32_has) {
  static const double fine[] = {1e-3, 1, 1e3}, outside[] = {0, -1, 1e-60, 1e300, NAN, INFINITY};
  pf_model_info m = {.vocab_size = CHOICES};
  pf_gen_opts o;
  pf_gen_defaults(&o);
  for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
    o.repetition_penalty = fine[i];
    ck_assert_int_eq(pf_gen_check(&o, &m), PF_OK);
  }
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
    o.repetition_penalty = outside[i];
    ck_assert_int_eq(pf_gen_check(&o, &m), PF_EUSAGE);
  }
}
END_TEST

/* Seen tokens have positive scores divided and negative ones multiplied. */
START_TEST(penalty_of_both_signs) {
  float x[CHOICES] = {-9, -9, -9, 1, -9, -1, -9, 0.625f, -9, -1.5f};
  pf_gen_opts o;
  pf_gen_defaults(&o);
  o.repetition_penalty = 2;
  pf_chosen c = choose(&o, x, 0);
  ck_assert_int_eq(c.id, 7);
  ck_assert(c.margin == 0.125f);
  x[3] = x[7] = -9;
  c = choose(&o, x, 0);
  ck_assert_int_eq(c.id, 9);
  ck_assert(c.margin == 0.5f);
  ck_assert(fabsf(c.logprob + 0.5f + logf(1 + expf(-0.5f))) <
            0.01f); /* of the scores as they were */
}
END_TEST

/* Which of the choices come up in so many steps, a bit each. */
static unsigned drawn(const pf_gen_opts *o, const float *x, uint64_t steps) {
  unsigned seen = 0;
  for (uint64_t i = 0; i < steps; i++)
    seen |= 1u << choose(o, x, i).id;
  return seen;
}

START_TEST(draws_at_the_edges) {
  const float apart[CHOICES] = {1, 8, 2, 0.5f, 4, -9, -9, -9, -9, -9},
              twins[CHOICES] = {-99, 3, -99, -99, 3, -99, -99, -99, -99, -99},
              zeros[CHOICES] = {-9, 0, 1e-40f, -1e-40f, -0.0f, 1e-41f, -9, -9, -9, -9};
  pf_gen_opts o;
  pf_gen_defaults(&o);
  o.temperature = 100;
  o.top_k = 3; /* of very different sizes */
  ck_assert_uint_eq(drawn(&o, apart, 40), 1u << 1 | 1u << 2 | 1u << 4);
  o.top_k = 1; /* zeros and denormals are equal: the lowest id */
  ck_assert_uint_eq(drawn(&o, zeros, 3), 1u << 1);
  o.top_k = 0;
  o.temperature = 1;
  ck_assert_uint_eq(drawn(&o, twins, 20), 1u << 1 | 1u << 4);
  o.top_p = 0.5; /* which the first one has */
  ck_assert_uint_eq(drawn(&o, twins, 20), 1u << 1);
  int32_t last = CHOICES;
  o.eos = &last;
  o.n_eos = 1;
  ck_assert_int_eq(pf_gen_check(&o, &(pf_model_info){.vocab_size = CHOICES}), PF_EUSAGE);
  last--;
  ck_assert_int_eq(pf_gen_check(&o, &(pf_model_info){.vocab_size = CHOICES}), PF_OK);
  o.top_p = 0;
  ck_assert_int_eq(pf_gen_check(&o, &(pf_model_info){.vocab_size = CHOICES}), PF_EUSAGE);
}
END_TEST

/* ---- rows of a call -------------------------------------------------------------------------- */

typedef struct steps {
  uint64_t last, most;
} steps;

static void on_step(void *user, const char *what, uint64_t done, uint64_t total) {
  steps *s = user;
  (void)what, (void)total;
  s->most = done - s->last > s->most ? done - s->last : s->most;
  s->last = done;
}

/* Prompts go in calls of 2,048 rows, and a chunk of a branch's own. Nothing else tells. */
START_TEST(rows_of_a_call) {
  enum { N = 45, LEN = 97, ROOM = 2048 };
  pf_model *m = tu_open("tests/mini/q2-one-layer");
  pf_ctx *c = tu_ctx(m, 2);
  pf_branch *b = calloc(N, sizeof *b);
  int32_t *ids = calloc(N * LEN, sizeof *ids);
  steps s = {0};
  pf_many_opts o = {.progress = on_step, .progress_user = &s};
  for (int i = 0; i < N; i++) {
    for (int32_t k = 0; k < LEN; k++)
      ids[i * LEN + k] = tu_token(m, (uint64_t)(20 + i), k);
    b[i].ids = ids + i * LEN;
    b[i].n = LEN;
    pf_gen_defaults(&b[i].o);
    b[i].o.max_tokens = 2;
  }
  ok(pf_generate_many(c, b, N, &o, NULL));
  ck_assert_uint_ge(s.most, ROOM - N); /* full, but for what ended */
  ck_assert_uint_le(s.most, ROOM + N);
  pf_branch_clear(&b[0]);
  b[0].o.chunk = 7;
  b[0].o.max_tokens = 1;
  s = (steps){0};
  ok(pf_generate_many(c, b, 1, &o, NULL));
  ck_assert_uint_eq(s.most, 7);
  for (int i = 0; i < N; i++)
    pf_branch_clear(&b[i]);
  free(b);
  free(ids);
  pf_ctx_free(c);
  pf_model_close(m);
}
END_TEST

/* 2,000 branches of mixed lengths inside a budget for a few of them. */
START_TEST(two_thousand) {
  enum { N = 2000, P = 120 };
  size_t n = tu_tier("small") ? 200 : N;
  pf_model *m = tu_open("tests/mini/q2-one-layer");
  pf_ctx *c = tu_ctx(m, 2);
  pf_branch *b = calloc(n, sizeof *b);
  int32_t *ids = calloc(n * P, sizeof *ids);
  pf_many_stats st;
  size_t tokens = 0;
  for (size_t i = 0; i < n; i++) {
    size_t len = 1 + number(11, i) % P, head = number(12, i) % 2 ? 50 : 0;
    for (size_t k = 0; k < len; k++)
      ids[i * P + k] = tu_token(m, k < head ? 1 : 50 + i, (int32_t)k);
    b[i].ids = ids + i * P;
    b[i].n = len;
    pf_gen_defaults(&b[i].o);
    b[i].o.max_tokens = 1 + (int32_t)(number(13, i) % 20);
    b[i].o.ignore_eos = 1;
    tokens += (size_t)b[i].o.max_tokens;
  }
  pf_many_opts o = {.memory = 1};
  ck_assert_int_eq(pf_generate_many(c, b, n, &o, &st), PF_ENOMEM);
  char needed[64];
  snprintf(needed, sizeof needed, "needs %zu bytes", st.memory_one);
  ck_assert_msg(strstr(pf_last_error(), needed) != NULL, "%s", pf_last_error());
  o.memory = n / 50 * st.memory_one;
  ok(pf_generate_many(c, b, n, &o, &st));
  ck_assert_msg(st.memory_peak <= o.memory && st.memory_peak > o.memory / 2,
                "%zu bytes with a limit of %zu", st.memory_peak, o.memory);
  ck_assert_uint_le(st.kv_peak, st.memory_peak);
  ck_assert_uint_lt(st.in_flight, n / 4);
  ck_assert_uint_gt(st.in_flight, n / 50);
  ck_assert_uint_eq(st.generated, tokens);
  ck_assert_uint_lt(st.prompt_rows, st.prompt_tokens * 3 / 4); /* half of them share 50 tokens */
  ck_assert_uint_eq(pf_ctx_kv_bytes(c, NULL), 0);
  for (size_t i = 0; i < n; i++) {
    ck_assert_uint_eq(b[i].out.n, (size_t)b[i].o.max_tokens);
    pf_branch_clear(&b[i]);
  }
  free(b);
  free(ids);
  pf_ctx_free(c);
  pf_model_close(m);
}
END_TEST

/* ---- the token tree -------------------------------------------------------------------------- */

/* Prompts over two tokens share a lot. */
START_TEST(tree) {
  enum { N = 60, P = 40 };
  int32_t ids[N][P];
  pf_prompt_ids p[N];
  pf_prefix_tree t;
  for (size_t i = 0; i < N; i++) {
    size_t from = number((uint64_t)_i, i) % (i + 1), keep = number((uint64_t)_i, 100 + i) % P;
    for (size_t k = 0; k < P; k++)
      ids[i][k] =
          i && k < keep ? ids[from][k] : (int32_t)(number((uint64_t)_i, 1000 + i * P + k) % 2);
    p[i] = (pf_prompt_ids){ids[i], 1 + number((uint64_t)_i, 200 + i) % P, i};
  }
  size_t worth = (size_t[]){1, 8, 30, 10000}[_i % 4], step = _i % 4 == 2 ? 4 : 1, rows = 0, all = 0;
  ok(pf_prefix_tree_make(&t, p, N, worth, step));
  for (size_t i = 0; i < t.n_v; i++) {
    ck_assert(t.v[i].parent < (int64_t)i);
    size_t up = t.v[i].parent >= 0 ? t.v[t.v[i].parent].n : 0;
    ck_assert(t.v[i].n >= up + step);
    ck_assert(!up || !memcmp(t.v[i].ids, t.v[t.v[i].parent].ids, up * sizeof(int32_t)));
    rows += t.v[i].n - up;
  }
  for (size_t i = 0; i < N; i++) {
    size_t up = t.of[i] >= 0 ? t.v[t.of[i]].n : 0;
    ck_assert(p[i].n > up);
    ck_assert(!up || !memcmp(p[i].ids, t.v[t.of[i]].ids, up * sizeof(int32_t)));
    rows += p[i].n - up;
    all += p[i].n;
  }
  ck_assert(worth == 10000 ? rows == all : rows < all);
  /* The fewest rows: tokens that differ from the sorted neighbour before, and a last one each. */
  size_t least = p[0].n;
  for (size_t i = 1; i < N; i++) {
    size_t k = 0;
    while (k + 1 < p[i].n && k + 1 < p[i - 1].n && p[i].ids[k] == p[i - 1].ids[k])
      k++;
    least += p[i].n - k;
  }
  ck_assert(worth == 1 ? rows == least : rows >= least);
  pf_prefix_tree_free(&t);
}
END_TEST

int main(void) {
  Suite *s = suite_create("generate");
  TCase *t = tcase_create("many");
  tcase_set_timeout(t, 600);
  tcase_add_loop_test(t, plain, 0, n_cases());
  tcase_add_loop_test(t, any_company, 0, n_cases());
  tcase_add_test(t, ends);
  tcase_add_test(t, broken_off);
  tcase_add_test(t, refusals);
  tcase_add_test(t, blocks_are_counted);
  tcase_add_test(t, one_branch_is_counted);
  tcase_add_test(t, beginnings_are_given_back);
  tcase_add_test(t, rows_of_a_call);
  tcase_add_test(t, penalties_that_fp32_has);
  tcase_add_test(t, penalty_of_both_signs);
  tcase_add_test(t, draws_at_the_edges);
  tcase_add_test(t, two_thousand);
  tcase_add_loop_test(t, tree, 0, 8);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_FORK_GETENV);
}
