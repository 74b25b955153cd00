/* SPDX-License-Identifier: Apache-2.0
 * Role prompts of both demo models: spans, p_user_last, p_last; positions written as text. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/spans.h"
#include "tests/suite.h"
#include "tests/util.h"

#define TEMPLATE "As {persona}, {task}"
#define TASK     "Write a haiku about Monday mornings."

static pf_tok *open_tok(const char *model) {
  char path[1024];
  pf_tok *t;
  snprintf(path, sizeof path, "%s/data/models/%s", tu_srcdir(), model);
  ck_assert_msg(pf_tok_open(&t, path) == PF_OK, "%s", pf_last_error());
  return t;
}

/* The text that the tokens of a span stand for. */
static void expect(const pf_role_prompt *q, pf_span s, const char *want) {
  char got[512] = "";
  if (s.hi > s.lo) {
    size_t lo = q->enc.start[s.lo], hi = q->enc.end[s.hi - 1];
    snprintf(got, sizeof got, "%.*s", (int)(hi - lo), q->text + lo);
  }
  ck_assert_str_eq(got, want);
}

/* Spans follow each other from the first token to the last. */
static void check_chain(const pf_role_prompt *q) {
  ck_assert_int_eq(q->bos.lo, 0);
  ck_assert_int_eq(q->bos.hi, q->template_.lo);
  ck_assert_int_eq(q->template_.hi, q->persona.lo);
  ck_assert_int_eq(q->persona.hi, q->task.lo);
  ck_assert_int_eq(q->task.hi, q->header.lo);
  ck_assert_int_eq(q->header.hi, (int)q->enc.n);
  ck_assert_int_eq(q->p_last, (int)q->enc.n - 1);
}

START_TEST(gemma_spans) {
  pf_tok *t = open_tok("demo-gemma2");
  pf_role_prompt q;
  ck_assert_msg(pf_role_prompt_make(t, TEMPLATE, "Warren Buffett", TASK, &q) == PF_OK, "%s",
                pf_last_error());
  check_chain(&q);
  expect(&q, q.bos, "<bos>");
  expect(&q, q.template_, "<start_of_turn>user\nAs");
  expect(&q, q.persona, " Warren Buffett");
  expect(&q, q.task, ", " TASK);
  expect(&q, q.header, "<end_of_turn>\n<start_of_turn>model\n");
  ck_assert_int_eq(q.p_user_last, q.header.lo + 1); /* the line feed after <end_of_turn> */
  pf_role_prompt_free(&q);
  pf_tok_close(t);
}
END_TEST

START_TEST(qwen_spans) {
  pf_tok *t = open_tok("demo-qwen2");
  pf_role_prompt q;
  ck_assert_msg(pf_role_prompt_make(t, TEMPLATE, "a pirate", TASK, &q) == PF_OK, "%s",
                pf_last_error());
  check_chain(&q);
  expect(&q, q.bos, "");
  expect(&q, q.persona, " a pirate");
  expect(&q, q.task, ", " TASK);
  expect(&q, q.header, "<|im_end|>\n<|im_start|>assistant\n");
  ck_assert(strstr(q.text, "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.") ==
            q.text);
  ck_assert_int_eq(q.p_user_last, q.header.lo + 1);
  pf_role_prompt_free(&q);
  pf_tok_close(t);
}
END_TEST

START_TEST(system_role) {
  pf_tok *t = open_tok("demo-qwen2"), *gemma = open_tok("demo-gemma2");
  pf_role_prompt q, bare, plain;
  ck_assert_msg(
      pf_role_prompt_make_system(t, "You are {persona}.", "{task}", "a pirate", TASK, &q) == PF_OK,
      "%s", pf_last_error());
  check_chain(&q);
  expect(&q, q.template_, "<|im_start|>system\nYou are");
  expect(&q, q.persona, " a pirate");
  expect(&q, q.task, ".<|im_end|>\n<|im_start|>user\n" TASK);
  expect(&q, q.header, "<|im_end|>\n<|im_start|>assistant\n");
  ck_assert_int_eq(q.p_user_last, q.header.lo + 1);
  ck_assert_int_eq(pf_role_prompt_make_system(t, "You are {persona}.", "{task}", NULL, TASK, &bare),
                   PF_OK);
  ck_assert_int_eq(pf_role_prompt_make(t, TEMPLATE, NULL, TASK, &plain), PF_OK);
  ck_assert_str_eq(bare.text, plain.text);
  ck_assert(bare.persona.lo == bare.persona.hi && bare.task.lo == plain.task.lo);
  pf_role_prompt_free(&plain);
  pf_role_prompt_free(&bare);
  pf_role_prompt_free(&q);
  ck_assert_int_eq(
      pf_role_prompt_make_system(gemma, "You are {persona}.", "{task}", "a pirate", TASK, &q),
      PF_EINPUT);
  ck_assert(strstr(pf_last_error(), "System role") != NULL && q.text == NULL);
  ck_assert_int_eq(pf_role_prompt_make_system(t, "You.", "{task}", "a pirate", TASK, &q),
                   PF_EUSAGE);
  pf_tok_close(gemma);
  pf_tok_close(t);
}
END_TEST

START_TEST(bare_task) {
  pf_tok *t = open_tok("demo-gemma2");
  pf_role_prompt q;
  ck_assert_msg(pf_role_prompt_make(t, TEMPLATE, NULL, TASK, &q) == PF_OK, "%s", pf_last_error());
  check_chain(&q);
  expect(&q, q.persona, "");
  expect(&q, q.task, TASK);
  pf_role_prompt_free(&q);
  ck_assert_int_eq(pf_role_prompt_make(t, "As {task}", "x", TASK, &q), PF_EUSAGE);
  pf_tok_close(t);
}
END_TEST

/* Special tokens in a persona are text: they must not end the turn. */
START_TEST(specials_are_text) {
  pf_tok *t = open_tok("demo-gemma2");
  pf_role_prompt q;
  ck_assert_msg(pf_role_prompt_make(t, TEMPLATE, "<end_of_turn>", TASK, &q) == PF_OK, "%s",
                pf_last_error());
  check_chain(&q);
  int32_t id = pf_tok_id(t, "<end_of_turn>");
  for (int32_t i = q.persona.lo; i < q.persona.hi; i++)
    ck_assert_int_ne(q.enc.ids[i], id);
  ck_assert_int_gt(q.persona.hi - q.persona.lo, 1);
  pf_role_prompt_free(&q);
  pf_tok_close(t);
}
END_TEST

/* The text of a span by its name; NULL: this prompt has none of that name. */
static void expect_named(const pf_encoding *e, const char *text, const pf_spans *s,
                         const char *name, const char *want) {
  pf_span at;
  char got[512] = "";
  int rc = pf_positions_parse(name, s, &at);
  ck_assert_msg((rc == PF_OK) == (want != NULL), "%s: %s", name, pf_last_error());
  if (!want)
    return;
  size_t lo = e->start[at.lo], hi = e->end[at.hi - 1];
  snprintf(got, sizeof got, "%.*s", (int)(hi - lo), text + lo);
  ck_assert_str_eq(got, want);
}

static const struct {
  const char *model;
  size_t n;
  pf_message m[4];
  unsigned flags;
  const char *bos, *template_, *header, *user_last;
} chats[] = {
    {"demo-gemma2",
     1,
     {{"user", "  Sing. "}},
     0,
     "<bos>",
     "<start_of_turn>user\n",
     "<end_of_turn>\n<start_of_turn>model\n",
     "\n"},
    {"demo-gemma2",
     1,
     {{"user", "Sing<end_of_turn>"}},
     PF_CHAT_PARSE_SPECIALS,
     "<bos>",
     "<start_of_turn>user\n",
     "<end_of_turn>\n<start_of_turn>model\n",
     "\n"},
    {"demo-gemma2",
     3,
     {{"user", "Sing."}, {"assistant", "La."}, {"user", "Again."}},
     0,
     "<bos>",
     NULL,
     "<end_of_turn>\n<start_of_turn>model\n",
     "\n"},
    {"demo-gemma2",
     2,
     {{"user", "Sing."}, {"assistant", "La."}},
     0,
     "<bos>",
     NULL,
     "<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {"demo-qwen2",
     2,
     {{"system", "Be kind."}, {"user", "Sing."}},
     0,
     NULL,
     NULL,
     "<|im_end|>\n<|im_start|>assistant\n",
     "\n"},
};

START_TEST(chat_prompts) {
  pf_tok *t = open_tok(chats[_i].model);
  pf_encoding e, same = {0};
  pf_spans s;
  char *text;
  ck_assert_msg(pf_chat_prompt_make(t, chats[_i].m, chats[_i].n, chats[_i].flags, &e, &s) == PF_OK,
                "%s", pf_last_error());
  ck_assert_int_eq(pf_chat_encode(t, chats[_i].m, chats[_i].n, chats[_i].flags, &same, &text, NULL),
                   PF_OK);
  ck_assert(same.n == e.n && !memcmp(same.ids, e.ids, e.n * sizeof *e.ids));
  expect_named(&e, text, &s, "bos", chats[_i].bos);
  expect_named(&e, text, &s, "template", chats[_i].template_);
  expect_named(&e, text, &s, "header", chats[_i].header);
  expect_named(&e, text, &s, "p_user_last", chats[_i].user_last);
  expect_named(&e, text, &s, "persona", NULL);
  ck_assert(strstr(pf_last_error(), "role prompts have it") != NULL);
  pf_spans_of_tokens(t, e.ids, e.n, &s);
  expect_named(&e, text, &s, "bos", chats[_i].bos);
  expect_named(&e, text, &s, "header", NULL);
  pf_spans_of_tokens(NULL, e.ids, e.n, &s);
  expect_named(&e, text, &s, "bos", NULL);
  pf_encoding_free(&e);
  pf_encoding_free(&same);
  pf_text_free(text);
  pf_tok_close(t);
}
END_TEST

static const struct {
  const char *text;
  int32_t lo, hi; /* lo < 0: refused */
} positions[] = {
    {"12", 12, 13},
    {"0", 0, 1},
    {"24", 24, 25},
    {"30", 30, 31}, /* beyond the prompt: a generated token */
    {"-1", 24, 25},
    {"-25", 0, 1},
    {"3:7", 3, 7},
    {":5", 0, 5},
    {"-3:-1", 22, 24},
    {"20:", 20, INT32_MAX},
    {"persona", 4, 9},
    {"persona[-1]", 8, 9},
    {"persona[1:3]", 5, 7},
    {"persona[2:]", 6, 9},
    {"task[0:3]", 9, 12},
    {"header", 20, 25},
    {"p_user_last", 21, 22},
    {"p_last", 24, 25},
    {"g1", 25, 26},
    {"g2", 26, 27},
    {"answer", 25, INT32_MAX},
    {"answer[0:3]", 25, 28},
    {"answer[2:]", 27, INT32_MAX},
    {"-26", -1, 0},
    {"7:3", -1, 0},
    {"3:3", -1, 0},
    {"", -1, 0},
    {"-", -1, 0},
    {":", 0, 25},
    {"persona[5]", -1, 0},
    {"persona[]", -1, 0},
    {"persona[1", -1, 0},
    {"persona[1]x", -1, 0},
    {"personas", -1, 0},
    {"answer[-1]", -1, 0},
    {"1x", -1, 0},
    {"99999999999999999999", -1, 0},
    {"bos[1]", -1, 0},
};

START_TEST(positions_as_text) {
  pf_role_prompt q = {.bos = {0, 1},
                      .template_ = {1, 4},
                      .persona = {4, 9},
                      .task = {9, 20},
                      .header = {20, 25},
                      .p_user_last = 21};
  pf_spans s;
  q.enc.n = 25;
  pf_spans_of(&q, &s);
  for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
    pf_span got = {-7, -7};
    int rc = pf_positions_parse(positions[i].text, &s, &got);
    ck_assert_msg((rc == PF_OK) == (positions[i].lo >= 0), "'%s': %d %s", positions[i].text, rc,
                  pf_last_error());
    if (rc == PF_OK)
      ck_assert_msg(got.lo == positions[i].lo && got.hi == positions[i].hi, "'%s': %d..%d",
                    positions[i].text, got.lo, got.hi);
  }
  pf_span empty;
  q.bos.hi = 0;
  pf_spans_of(&q, &s);
  ck_assert_int_eq(pf_positions_parse("bos", &s, &empty), PF_EUSAGE);
  ck_assert_int_eq(pf_positions_parse("wizard", &s, &empty), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "bos template persona task header") != NULL);
  pf_spans_of_ids(10, &s);
  ck_assert_int_eq(pf_positions_parse("persona", &s, &empty), PF_EUSAGE);
  ck_assert_int_eq(pf_positions_parse("p_last", &s, &empty), PF_OK);
  ck_assert_int_eq(empty.lo, 9);
}
END_TEST

int main(void) {
  Suite *s = suite_create("spans");
  TCase *t = tcase_create("spans");
  tcase_add_test(t, gemma_spans);
  tcase_add_test(t, qwen_spans);
  tcase_add_test(t, system_role);
  tcase_add_test(t, bare_task);
  tcase_add_test(t, specials_are_text);
  tcase_add_loop_test(t, chat_prompts, 0, (int)(sizeof chats / sizeof *chats));
  tcase_add_test(t, positions_as_text);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
