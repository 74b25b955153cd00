/* SPDX-License-Identifier: Apache-2.0
 * How far bf16 and int8 are from f32: KL(f32 || precision) of the next-token distributions and the
 * share of positions with the same best token, over the prompts that are in no training text of the
 * demo models (tools/demo/held_out.py), each followed by f32's greedy answer. Small tier: two of
 * them. */
#include "config.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fixture.h"
#include "personaflow/personaflow.h"
#include "tests/suite.h"
#include "tests/util.h"

enum { ANSWER = 96 };

static const char *const models[] = {"demo-gemma2", "demo-qwen2"};

/* What the precisions promise: mean nats a token at most, share of equal best tokens at least. */
static const struct {
  pf_precision precision;
  double kl, same;
} bounds[] = {{PF_PRECISION_BF16, 0.001, 0.99}, {PF_PRECISION_INT8, 0.01, 0.99}};
enum { N_BOUNDS = sizeof bounds / sizeof *bounds };

typedef struct tally {
  size_t n, same;
  double sum, worst;
} tally;

static void ok(int status) {
  ck_assert_msg(status == PF_OK, "%s", pf_last_error());
}

static void *zeros(size_t n, size_t size) {
  void *p = pf_calloc(n, size);
  ck_assert_ptr_nonnull(p);
  return p;
}

static pf_model *open_as(const char *name, pf_precision p) {
  pf_model *m;
  ok(pf_model_open(&m, src_path("data/models/%s", name),
                   &(pf_model_opts){.no_checksum = 1, .precision = p}));
  return m;
}

/* ---- prompts ------------------------------------------------------------------------------- */

/* A prompt in its chat format, and f32's greedy answer behind it; returns where the answer begins.
 */
static size_t make_text(const pf_model *m, const pf_tok *t, const char *content, pf_ids *ids) {
  char *rendered;
  pf_encoding e = {0};
  pf_ctx *c;
  pf_seq *s;
  pf_gen_opts o;
  ok(pf_chat_encode(t, &(pf_message){"user", content}, 1, 0, &e, &rendered, NULL));
  for (size_t i = 0; i < e.n; i++)
    ok(pf_ids_push(ids, e.ids[i]));
  pf_gen_defaults(&o);
  o.max_tokens = ANSWER;
  ok(pf_ctx_new(&c, m, NULL));
  ok(pf_seq_new(&s, c));
  ok(pf_generate(s, e.ids, e.n, &o, ids));
  size_t prompt = e.n;
  pf_seq_free(s);
  pf_ctx_free(c);
  pf_text_free(rendered);
  pf_encoding_free(&e);
  return prompt;
}

/* ---- comparison ---------------------------------------------------------------------------- */

/* Logits (n, V) of every position. */
static float *logits_of(const pf_model *m, const pf_ids *ids) {
  float *x = zeros(ids->n * (size_t)pf_model_get_info(m)->vocab_size, sizeof *x);
  pf_row *rows = zeros(ids->n, sizeof *rows);
  pf_ctx *c;
  pf_seq *s;
  ok(pf_ctx_new(&c, m, NULL));
  ok(pf_seq_new(&s, c));
  for (size_t i = 0; i < ids->n; i++)
    rows[i] = (pf_row){.seq = s, .token = ids->v[i], .pos = (int32_t)i, .out = (int32_t)i};
  ok(pf_eval(c, rows, ids->n, x));
  pf_seq_free(s);
  pf_ctx_free(c);
  pf_free(rows);
  return x;
}

static void add(tally *t, const float *a, const float *b, size_t v, size_t lo, size_t hi) {
  for (size_t i = lo; i < hi; i++) {
    double kl = pf_kl(a + i * v, b + i * v, v);
    t->n++;
    t->sum += kl;
    t->worst = kl > t->worst ? kl : t->worst;
    t->same += pf_argmax(a + i * v, v, NULL) == pf_argmax(b + i * v, v, NULL);
  }
}

typedef struct subject {
  pf_model *f32, *other[N_BOUNDS];
  pf_tok *tok;
  tally prompts[N_BOUNDS], answers[N_BOUNDS];
} subject;

static void compare_prompt(subject *s, const char *content) {
  pf_ids ids = {0};
  size_t prompt = make_text(s->f32, s->tok, content, &ids);
  size_t v = (size_t)pf_model_get_info(s->f32)->vocab_size;
  float *want = logits_of(s->f32, &ids);
  for (int k = 0; k < N_BOUNDS; k++) {
    float *got = logits_of(s->other[k], &ids);
    add(&s->prompts[k], want, got, v, 0, prompt - 1);
    /* The token after position prompt - 1 is the answer's first. */
    add(&s->answers[k], want, got, v, prompt - 1, ids.n);
    pf_free(got);
  }
  pf_free(want);
  pf_ids_free(&ids);
}

static void say(const char *name, const char *precision, const char *what, const tally *t) {
  printf("%-12s %-5s %-8s %5zu positions  mean KL %.3e  largest %.3e  same best token %.2f %%\n",
         name, precision, what, t->n, t->sum / (double)t->n, t->worst,
         100.0 * (double)t->same / (double)t->n);
}

/* Prompts and answers together, as the bounds have it. */
static void judge(const char *name, const subject *s) {
  for (int k = 0; k < N_BOUNDS; k++) {
    const tally *p = &s->prompts[k], *a = &s->answers[k];
    const char *precision = pf_precision_name(bounds[k].precision);
    tally all = {p->n + a->n, p->same + a->same, p->sum + a->sum,
                 p->worst > a->worst ? p->worst : a->worst};
    say(name, precision, "prompts", p);
    say(name, precision, "answers", a);
    say(name, precision, "all", &all);
    double mean = all.sum / (double)all.n, same = (double)all.same / (double)all.n;
    ck_assert_msg(mean > 0, "%s is f32 itself", precision);
    ck_assert_msg(mean <= bounds[k].kl, "%s %s: mean KL %g above %g", name, precision, mean,
                  bounds[k].kl);
    ck_assert_msg(same >= bounds[k].same, "%s %s: best token equal at %g, below %g", name,
                  precision, same, bounds[k].same);
  }
}

static size_t n_prompts(const json_t *prompts) {
  size_t n = json_array_size(prompts);
  ck_assert_uint_ge(n, 86);
  return tu_tier("small") ? 2 : n;
}

START_TEST(near_f32) {
  const char *name = models[_i];
  subject s = {.f32 = open_as(name, PF_PRECISION_F32)};
  json_t *o = fixture_json("tests/fixtures/held-out.json");
  ok(pf_tok_open(&s.tok, src_path("data/models/%s", name)));
  for (int k = 0; k < N_BOUNDS; k++)
    s.other[k] = open_as(name, bounds[k].precision);
  const json_t *prompts = json_object_get(o, "prompts");
  size_t n = n_prompts(prompts);
  for (size_t i = 0; i < n; i++)
    compare_prompt(&s, json_string_value(json_array_get(prompts, i)));
  for (int k = 0; k < N_BOUNDS; k++)
    pf_model_close(s.other[k]);
  pf_model_close(s.f32);
  pf_tok_close(s.tok);
  json_decref(o);
  judge(name, &s);
}
END_TEST

int main(void) {
  Suite *s = suite_create("accuracy");
  TCase *c = tcase_create("precisions");
  tcase_set_timeout(c, 600);
  tcase_add_loop_test(c, near_f32, 0, sizeof models / sizeof *models);
  suite_add_tcase(s, c);
  return tu_suite_run(s, CK_FORK_GETENV);
}
