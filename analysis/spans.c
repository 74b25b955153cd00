/* SPDX-License-Identifier: Apache-2.0
 * Role prompts and their named token spans; positions written as text. */
#include "analysis/spans.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- the prompt
 * ---------------------------------------------------------------------------------------------------
 */

int pf_template_fill(const char *template_, const char *persona, const char *task, pf_filled *out) {
  *out = (pf_filled){0};
  const char *p = strstr(template_, "{persona}"), *t = strstr(template_, "{task}");
  if (!p || !t || t < p)
    return pf_fail(PF_EUSAGE, "template '%s': want {persona} and after it {task}", template_);
  pf_buf b = {0};
  if (persona) {
    pf_buf_add(&b, template_, (size_t)(p - template_));
    out->persona_lo = b.n;
    pf_buf_puts(&b, persona);
    out->persona_hi = b.n;
    pf_buf_add(&b, p + strlen("{persona}"), (size_t)(t - p) - strlen("{persona}"));
  }
  out->task_lo = b.n;
  pf_buf_puts(&b, task);
  out->task_hi = b.n;
  if (persona)
    pf_buf_puts(&b, t + strlen("{task}"));
  return pf_buf_take(&b, &out->text);
}

/* First token that ends after byte `at`. */
static int32_t token_at(const pf_encoding *e, size_t at) {
  size_t i = 0;
  while (i < e->n && e->end[i] <= at)
    i++;
  return (int32_t)i;
}

/* First token that begins at or after byte `at`: a token across the border belongs to what it began
 * in. */
static int32_t token_from(const pf_encoding *e, size_t at) {
  size_t i = 0;
  while (i < e->n && e->start[i] < at)
    i++;
  return (int32_t)i;
}

/* Spans from the bytes of the rendered text at which the persona begins and ends and the last
 * message ends: bos | template (up to "As") | persona | task (its comma included) | header. */
static void set_spans(const pf_tok *t, size_t persona_lo, size_t persona_hi, size_t content_end,
                      pf_role_prompt *p) {
  const pf_encoding *e = &p->enc;
  int32_t n = (int32_t)e->n, bos = pf_tok_bos(t);
  int32_t b = bos >= 0 && n > 0 && e->ids[0] == bos ? 1 : 0;
  int32_t lo = token_at(e, persona_lo);
  int32_t hi = persona_hi > persona_lo ? token_from(e, persona_hi) : lo;
  int32_t end = token_from(e, content_end);
  p->bos = (pf_span){0, b};
  p->template_ = (pf_span){b, lo};
  p->persona = (pf_span){lo, hi};
  p->task = (pf_span){hi, end};
  p->header = (pf_span){end, n};
  p->p_last = n - 1;
}

/* p_user_last: the last token of the rendering without the generation header, which must be a
 * prefix of the whole; else -1. */
static int user_last(const pf_tok *t, const pf_message *m, size_t n, unsigned flags,
                     const pf_encoding *whole, int32_t *out) {
  pf_encoding e = {0};
  char *text = NULL;
  int rc = pf_chat_encode(t, m, n, flags | PF_CHAT_NO_GENERATION_PROMPT, &e, &text, NULL);
  bool prefix = rc == PF_OK && e.n > 0 && e.n <= whole->n &&
                memcmp(e.ids, whole->ids, e.n * sizeof *e.ids) == 0;
  *out = prefix ? (int32_t)e.n - 1 : -1;
  pf_encoding_free(&e);
  pf_text_free(text);
  return rc;
}

static int set_user_last(const pf_tok *t, const pf_message *m, size_t n, pf_role_prompt *p) {
  int rc = user_last(t, m, n, 0, &p->enc, &p->p_user_last);
  if (rc == PF_OK && p->p_user_last < 0)
    rc = pf_fail(PF_EINPUT,
                 "chat template: the prompt without generation header is no prefix of the prompt: "
                 "p_user_last is not defined");
  return rc;
}

/* Byte at which the last message's content ends in a rendering of n_text bytes: what follows it
 * depends on no content, so a rendering with another content there has the same tail. */
static int content_end(const pf_tok *t, const pf_message *m, size_t n, size_t n_text, size_t *end) {
  pf_message *copy = pf_calloc(n, sizeof *copy);
  size_t *start = pf_calloc(n, sizeof *start);
  pf_encoding e = {0};
  char *text = NULL;
  if (copy && start)
    memcpy(copy, m, n * sizeof *copy);
  if (copy && start)
    copy[n - 1].content = "x";
  int rc = copy && start ? pf_chat_encode(t, copy, n, 0, &e, &text, start) : PF_ENOMEM;
  if (rc == PF_OK)
    *end = n_text - (strlen(text) - start[n - 1] - 1);
  pf_text_free(text);
  pf_encoding_free(&e);
  pf_free(copy);
  pf_free(start);
  return rc;
}

static int find_content(const pf_role_prompt *p, const char *content, size_t start) {
  size_t n = strlen(content);
  if (start > strlen(p->text) || strncmp(p->text + start, content, n) != 0)
    return pf_fail(PF_EINPUT,
                   "chat template: it changes the message '%.60s' (white space at its ends is cut "
                   "off): spans are not defined",
                   content);
  return PF_OK;
}

/* m: the user's message, or the system's and the user's; the persona stands at bytes [lo, hi) of
 * the first. */
static int make_prompt(const pf_tok *t, const pf_message *m, size_t n, size_t lo, size_t hi,
                       pf_role_prompt *out) {
  size_t start[2] = {0, 0};
  int rc = pf_chat_encode(t, m, n, 0, &out->enc, &out->text, start);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = find_content(out, m[i].content, start[i]);
  if (rc == PF_OK) {
    set_spans(t, start[0] + lo, start[0] + hi, start[n - 1] + strlen(m[n - 1].content), out);
    rc = set_user_last(t, m, n, out);
  }
  if (rc != PF_OK)
    pf_role_prompt_free(out);
  return rc;
}

int pf_role_prompt_make(const pf_tok *t, const char *template_, const char *persona,
                        const char *task, pf_role_prompt *out) {
  pf_filled f;
  *out = (pf_role_prompt){0};
  int rc = pf_template_fill(template_, persona, task, &f);
  if (rc == PF_OK)
    rc = make_prompt(t, &(pf_message){"user", f.text}, 1, f.persona_lo, f.persona_hi, out);
  pf_free(f.text);
  return rc;
}

/* What a template with one placeholder makes of a text. */
static int fill_one(const char *template_, const char *place, const char *text, size_t *lo,
                    char **out) {
  const char *at = strstr(template_, place);
  pf_buf b = {0};
  if (!at)
    return pf_fail(PF_EUSAGE, "template '%.60s': want %s", template_, place);
  *lo = (size_t)(at - template_);
  pf_buf_add(&b, template_, *lo);
  pf_buf_puts(&b, text);
  pf_buf_puts(&b, at + strlen(place));
  return pf_buf_take(&b, out);
}

int pf_role_prompt_make_system(const pf_tok *t, const char *system, const char *template_,
                               const char *persona, const char *task, pf_role_prompt *out) {
  size_t lo = 0, at;
  char *user = NULL, *sys = NULL;
  *out = (pf_role_prompt){0};
  int rc = fill_one(template_, "{task}", task, &at, &user);
  if (rc == PF_OK && persona)
    rc = fill_one(system, "{persona}", persona, &lo, &sys);
  pf_message both[] = {{"system", sys}, {"user", user}};
  if (rc == PF_OK && persona)
    rc = make_prompt(t, both, 2, lo, lo + strlen(persona), out);
  else if (rc == PF_OK)
    rc = make_prompt(t, both + 1, 1, 0, 0, out);
  pf_free(user);
  pf_free(sys);
  return rc;
}

void pf_role_prompt_free(pf_role_prompt *p) {
  if (!p)
    return;
  pf_encoding_free(&p->enc);
  pf_text_free(p->text);
  *p = (pf_role_prompt){0};
}

/* ---- named spans and positions
 * ------------------------------------------------------------------------------------ */

static void add_span(pf_spans *s, const char *name, int32_t lo, int32_t hi) {
  s->v[s->n++] = (pf_named_span){name, {lo, hi}};
}

void pf_spans_of_ids(int32_t n_prompt, pf_spans *out) {
  *out = (pf_spans){.n_prompt = n_prompt};
  add_span(out, "answer", n_prompt, INT32_MAX);
  add_span(out, "p_last", n_prompt - 1, n_prompt);
  add_span(out, "g1", n_prompt, n_prompt + 1);
  add_span(out, "g2", n_prompt + 1, n_prompt + 2);
}

void pf_spans_of(const pf_role_prompt *p, pf_spans *out) {
  *out = (pf_spans){.n_prompt = (int32_t)p->enc.n};
  add_span(out, "bos", p->bos.lo, p->bos.hi);
  add_span(out, "template", p->template_.lo, p->template_.hi);
  add_span(out, "persona", p->persona.lo, p->persona.hi);
  add_span(out, "task", p->task.lo, p->task.hi);
  add_span(out, "header", p->header.lo, p->header.hi);
  add_span(out, "p_user_last", p->p_user_last, p->p_user_last + 1);
  pf_spans rest;
  pf_spans_of_ids(out->n_prompt, &rest);
  for (size_t i = 0; i < rest.n; i++)
    out->v[out->n++] = rest.v[i];
}

static bool starts_with_bos(const pf_tok *t, const int32_t *ids, size_t n) {
  int32_t bos = t ? pf_tok_bos(t) : -1;
  return bos >= 0 && n > 0 && ids[0] == bos;
}

void pf_spans_of_tokens(const pf_tok *t, const int32_t *ids, size_t n, pf_spans *out) {
  pf_spans_of_ids((int32_t)n, out);
  if (starts_with_bos(t, ids, n))
    add_span(out, "bos", 0, 1);
}

/* header: from the end of the last content; template: before the content of an only message. */
static int chat_spans(const pf_tok *t, const pf_message *m, size_t n, unsigned flags,
                      const pf_encoding *e, const char *text, size_t content, pf_spans *out) {
  size_t end;
  int32_t last;
  pf_spans_of_tokens(t, e->ids, e->n, out);
  int rc = content_end(t, m, n, strlen(text), &end);
  if (rc == PF_OK)
    rc = user_last(t, m, n, flags, e, &last);
  if (rc != PF_OK)
    return rc;
  int32_t b = starts_with_bos(t, e->ids, e->n) ? 1 : 0;
  if (n == 1)
    add_span(out, "template", b, token_at(e, content));
  add_span(out, "header", token_from(e, end), (int32_t)e->n);
  if (last >= 0 && !strcmp(m[n - 1].role, "user"))
    add_span(out, "p_user_last", last, last + 1);
  return PF_OK;
}

int pf_chat_prompt_make(const pf_tok *t, const pf_message *m, size_t n, unsigned flags,
                        pf_encoding *out, pf_spans *spans) {
  size_t *start = pf_calloc(n ? n : 1, sizeof *start);
  char *text = NULL;
  *out = (pf_encoding){0};
  int rc = start ? pf_chat_encode(t, m, n, flags, out, &text, start) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = chat_spans(t, m, n, flags, out, text, start[n - 1], spans);
  pf_text_free(text);
  pf_free(start);
  if (rc != PF_OK)
    pf_encoding_free(out);
  return rc;
}

/* Names that other prompts have, and which. */
static const struct {
  const char *name, *where;
} elsewhere[] = {
    {"bos", "prompts that begin with the tokenizer's BOS token have it"},
    {"persona", "role prompts have it (--persona with --task)"},
    {"task", "role prompts have it (--persona with --task)"},
    {"template", "chat prompts of one message have it (--prompt, --task)"},
    {"header", "chat prompts have it (--prompt, --messages, --task)"},
    {"p_user_last", "chat prompts that end with a user's message have it"},
};

static int unknown_span(const char *text, size_t n_name, const pf_spans *s) {
  pf_buf names = {0};
  const char *where = NULL;
  for (size_t i = 0; i < s->n; i++)
    pf_buf_printf(&names, "%s%s", i ? " " : "", s->v[i].name);
  for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
    if (strlen(elsewhere[i].name) == n_name && !strncmp(elsewhere[i].name, text, n_name))
      where = elsewhere[i].where;
  int rc = pf_fail(PF_EUSAGE, "position '%s': unknown span: %s%sthis prompt has %s", text,
                   where ? where : "", where ? "; " : "", pf_buf_str(&names));
  pf_buf_free(&names);
  return rc;
}

/* A whole number at *p; false (and *p unmoved) when there is none. One beyond 31 bits becomes the
 * largest, which no prompt has. */
static bool number(const char **p, long *v) {
  char *end;
  const char *s = *p;
  if (!isdigit((unsigned char)s[0]) &&
      !((s[0] == '-' || s[0] == '+') && isdigit((unsigned char)s[1])))
    return false;
  long x = strtol(s, &end, 10);
  *v = x > INT32_MAX ? INT32_MAX : x < -INT32_MAX ? -INT32_MAX : x;
  *p = end;
  return true;
}

/* "a", "a:b", ":b", "a:" of [lo, hi); negative numbers from the end. *close is what must follow. */
static int slice(const char *text, const char *p, char close, pf_span in, pf_span *out) {
  long a = 0, b;
  bool open = in.hi == INT32_MAX;
  long n = (long)in.hi - in.lo;
  bool has_a = number(&p, &a), range = *p == ':';
  bool has_b = range ? (p++, number(&p, &b)) : false;
  if (*p != close || (close && p[1]) || (!has_a && !range))
    return pf_fail(
        PF_EUSAGE,
        "position '%s': want a form such as -1, 12, 3:7, persona, persona[-1] or task[0:3]", text);
  if (open && ((has_a && a < 0) || (has_b && b < 0)))
    return pf_fail(PF_EUSAGE, "position '%s': the answer has no end to count from", text);
  a = has_a && a < 0 ? a + n : a;
  b = !range ? a + 1 : !has_b ? n : b < 0 ? b + n : b;
  if (has_b && a >= 0 && b <= a)
    return pf_fail(PF_EUSAGE,
                   "position '%s': the range is empty: it ends before position %ld, its first",
                   text, in.lo + a);
  if (open && b > n)
    return pf_fail(PF_EUSAGE, "position '%s': outside: no text has so many tokens", text);
  if (a < 0 || b <= a || b > n)
    return pf_fail(PF_EUSAGE, "position '%s': outside: there are %ld tokens", text, n);
  *out = (pf_span){(int32_t)(in.lo + a), (int32_t)(in.lo + b)};
  return PF_OK;
}

int pf_positions_parse(const char *text, const pf_spans *s, pf_span *out) {
  if (!isalpha((unsigned char)*text)) {
    bool prompt =
        strchr(text, '-') || *text == ':'; /* else numbers may lie beyond it, in the answer */
    return slice(text, text, '\0', (pf_span){0, prompt ? s->n_prompt : INT32_MAX}, out);
  }
  size_t n = strcspn(text, "["), i = 0;
  while (i < s->n && (strlen(s->v[i].name) != n || strncmp(s->v[i].name, text, n) != 0))
    i++;
  if (i == s->n)
    return unknown_span(text, n, s);
  *out = s->v[i].span;
  if (text[n] == '[')
    return slice(text, text + n + 1, ']', s->v[i].span, out);
  if (out->hi <= out->lo)
    return pf_fail(PF_EUSAGE, "position '%s': the span is empty in this prompt", text);
  return PF_OK;
}
