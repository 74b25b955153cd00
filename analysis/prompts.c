/* SPDX-License-Identifier: Apache-2.0
 * Prompts as JSON Lines. */
#include "analysis/prompts.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

typedef struct reader {
  const char *name, *dir;
  size_t line;
  pf_tok *tok;
  pf_prompt_key_fn key;
  json_t *ids; /* of the prompts so far */
} reader;

static int bad(const reader *r, const char *what) {
  return pf_fail(PF_EINPUT, "%s: line %zu: %s", r->name, r->line, what);
}

static const char *text_of(const json_t *o, const char *key) {
  const json_t *v = json_object_get(o, key);
  const char *s = json_string_value(v);
  return s && strlen(s) == json_string_length(v) ? s : NULL;
}

static int need_tokenizer(reader *r) {
  return r->tok ? PF_OK : pf_tok_open(&r->tok, r->dir);
}

/* Takes what an encoding holds. */
static int keep(int status, pf_encoding *e, pf_ids *out) {
  for (size_t i = 0; status == PF_OK && i < e->n; i++)
    status = pf_ids_push(out, e->ids[i]);
  pf_encoding_free(e);
  return status;
}

static int from_chat(const reader *r, const pf_message *m, size_t n, pf_ids *out) {
  pf_encoding e = {0};
  pf_spans spans;
  return keep(pf_chat_prompt_make(r->tok, m, n, 0, &e, &spans), &e, out);
}

static int from_prompt(reader *r, const json_t *o, pf_ids *out) {
  return from_chat(r, &(pf_message){"user", text_of(o, "prompt")}, 1, out);
}

static int from_raw(reader *r, const json_t *o, pf_ids *out) {
  const char *s = text_of(o, "raw");
  pf_encoding e = {0};
  return keep(pf_tok_encode(r->tok, s, strlen(s), PF_TOK_AUTO_BOS, &e), &e, out);
}

static int from_messages(reader *r, const json_t *o, pf_ids *out) {
  const json_t *list = json_object_get(o, "messages");
  size_t n = json_array_size(list);
  pf_message *m = pf_calloc(n, sizeof *m);
  int rc = !m ? PF_ENOMEM : n == 0 ? bad(r, "\"messages\" is empty") : PF_OK;
  for (size_t i = 0; rc == PF_OK && i < n; i++) {
    const json_t *one = json_array_get(list, i);
    m[i] = (pf_message){text_of(one, "role"), text_of(one, "content")};
    if (!m[i].role || !m[i].content)
      rc = bad(r, "a message wants a text \"role\" and a text \"content\"");
  }
  if (rc == PF_OK)
    rc = from_chat(r, m, n, out);
  pf_free(m);
  return rc;
}

static int from_role(reader *r, const json_t *o, pf_ids *out) {
  pf_role_prompt p;
  const char *persona = text_of(o, "persona"), *task = text_of(o, "task");
  if (!persona || !task)
    return bad(r, "\"persona\" and \"task\" go together, both texts");
  int rc = pf_role_prompt_make(r->tok, "As {persona}, {task}", persona, task, &p);
  for (size_t i = 0; rc == PF_OK && i < p.enc.n; i++)
    rc = pf_ids_push(out, p.enc.ids[i]);
  pf_role_prompt_free(&p);
  return rc;
}

static int from_ids(reader *r, const json_t *o, pf_ids *out) {
  const json_t *list = json_object_get(o, "ids");
  int rc = PF_OK;
  for (size_t i = 0; rc == PF_OK && i < json_array_size(list); i++) {
    const json_t *v = json_array_get(list, i);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
      return bad(r, "\"ids\" wants token ids such as [1, 2, 3]");
    rc = pf_ids_push(out, (int32_t)json_integer_value(v));
  }
  return rc;
}

static const struct kind {
  const char *key;
  json_type type;
  bool tokenizer;
  int (*read)(reader *r, const json_t *o, pf_ids *out);
} kinds[] = {{"prompt", JSON_STRING, true, from_prompt},
             {"raw", JSON_STRING, true, from_raw},
             {"messages", JSON_ARRAY, true, from_messages},
             {"persona", JSON_STRING, true, from_role},
             {"ids", JSON_ARRAY, false, from_ids}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* A key that says nothing about which prompt it is. */
static int other_key(const reader *r, const char *key, const json_t *v) {
  char where[512];
  if (!strcmp(key, "id") || !strcmp(key, "task"))
    return PF_OK;
  snprintf(where, sizeof where, "%.400s: line %zu", r->name, r->line);
  int rc = r->key ? r->key(where, key, v) : PF_EUSAGE;
  return rc == PF_EUSAGE ? pf_fail(PF_EINPUT, "%s: unknown key '%s'", where, key) : rc;
}

/* The one way in which the line gives a prompt. */
static int kind_of(const reader *r, const json_t *o, const struct kind **out) {
  const char *key;
  json_t *v;
  *out = NULL;
  json_object_foreach((json_t *)o, key, v) {
    size_t i = 0;
    while (i < N_KINDS && strcmp(key, kinds[i].key) != 0)
      i++;
    int rc = i == N_KINDS ? other_key(r, key, v) : PF_OK;
    if (rc != PF_OK)
      return rc;
    if (i == N_KINDS)
      continue;
    if (*out)
      return bad(r, "more than one of \"prompt\", \"raw\", \"messages\", \"persona\", \"ids\"");
    *out = &kinds[i];
  }
  if (!*out)
    return bad(r, "wanted is one of \"prompt\", \"raw\", \"messages\", \"persona\" with \"task\", "
                  "\"ids\"");
  v = json_object_get(o, (*out)->key);
  bool text = (*out)->type == JSON_STRING;
  if (json_typeof(v) != (*out)->type || (text && !text_of(o, (*out)->key)))
    return pf_fail(PF_EINPUT, "%s: line %zu: \"%s\" must be a %s", r->name, r->line, (*out)->key,
                   text ? "text without NUL characters" : "list");
  return json_object_get(o, "task") && strcmp((*out)->key, "persona") != 0
             ? bad(r, "\"task\" goes with \"persona\"")
             : PF_OK;
}

/* "id" as text, or the number of prompts before. */
static int id_of(const reader *r, const json_t *o, size_t n, char *buf, size_t size) {
  const json_t *v = json_object_get(o, "id");
  if (!v)
    snprintf(buf, size, "%zu", n);
  else if (json_is_integer(v))
    snprintf(buf, size, "%lld", (long long)json_integer_value(v));
  else if (text_of(o, "id") && json_string_length(v) > 0 && json_string_length(v) < size)
    snprintf(buf, size, "%s", json_string_value(v));
  else
    return bad(r, "\"id\" must be a whole number or a text of 1 to 127 bytes");
  return PF_OK;
}

/* Appends a copy of n ids. */
static int add_prompt(pf_prompts *p, const char *id, const int32_t *ids, size_t n) {
  if (pf_grow((void **)&p->v, &p->cap, p->n + 1, sizeof *p->v) != PF_OK)
    return PF_ENOMEM;
  pf_prompt *q = &p->v[p->n++];
  *q = (pf_prompt){.id = pf_strdup(id)};
  int rc = q->id ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; rc == PF_OK && i < n; i++)
    rc = pf_ids_push(&q->ids, ids[i]);
  return rc;
}

static int take_line(reader *r, pf_prompts *out, json_t *o) {
  const struct kind *k = NULL;
  char id[128];
  pf_ids ids = {0};
  int rc = json_is_object(o) ? kind_of(r, o, &k) : bad(r, "not a JSON object");
  if (rc == PF_OK)
    rc = id_of(r, o, out->n, id, sizeof id);
  if (rc == PF_OK && json_object_get(r->ids, id))
    rc = pf_fail(PF_EINPUT, "%s: line %zu: the id '%s' was given before", r->name, r->line, id);
  if (rc == PF_OK && json_object_set_new(r->ids, id, json_true()) != 0)
    rc = PF_ENOMEM;
  if (rc == PF_OK && k && k->tokenizer)
    rc = need_tokenizer(r);
  if (rc == PF_OK && k && (rc = k->read(r, o, &ids)) != PF_OK)
    rc = rc == PF_EINPUT || rc == PF_EUSAGE ? pf_fail_prefix(PF_EINPUT, "prompt '%s'", id) : rc;
  if (rc == PF_OK && ids.n == 0)
    rc = bad(r, "the prompt has no tokens");
  if (rc == PF_OK)
    rc = add_prompt(out, id, ids.v, ids.n);
  if (rc == PF_OK) {
    out->v[out->n - 1].line = r->line;
    out->v[out->n - 1].json = json_incref(o);
  }
  pf_ids_free(&ids);
  return rc;
}

static int take_text(reader *r, pf_prompts *out, const char *text, size_t n) {
  int rc = PF_OK;
  for (size_t at = 0; rc == PF_OK && at < n;) {
    const char *end = memchr(text + at, '\n', n - at);
    size_t len = end ? (size_t)(end - text) - at : n - at;
    char where[512];
    json_t *o = NULL;
    r->line++;
    snprintf(where, sizeof where, "%.400s: line %zu", r->name, r->line);
    size_t blank = 0;
    while (blank < len && strchr(" \t\r", text[at + blank]))
      blank++;
    if (blank < len) {
      rc = pf_js_text(where, text + at, len, &o);
      if (rc == PF_OK)
        rc = take_line(r, out, o);
      json_decref(o);
    }
    at += len + 1;
  }
  return rc == PF_OK && out->n == 0
             ? pf_fail(PF_EINPUT, "%s: no prompts: one JSON object a line is wanted", r->name)
             : rc;
}

int pf_prompts_parse(pf_prompts *out, const char *name, const char *text, size_t n, const char *dir,
                     pf_prompt_key_fn key) {
  reader r = {.name = name, .dir = dir, .key = key, .ids = json_object()};
  *out = (pf_prompts){0};
  int rc = r.ids ? take_text(&r, out, text, n) : PF_ENOMEM;
  if (r.tok)
    snprintf(out->tokenizer_sha256, sizeof out->tokenizer_sha256, "%s", pf_tok_sha256(r.tok));
  out->tok = r.tok;
  json_decref(r.ids);
  if (rc != PF_OK)
    pf_prompts_free(out);
  return rc;
}

static int fits(const pf_prompt *l, const char *name, int32_t vocab, int32_t positions,
                int32_t more) {
  for (size_t i = 0; i < l->ids.n; i++)
    if (l->ids.v[i] >= vocab)
      return pf_fail(PF_EINPUT, "%s: line %zu: token id %d is not in the vocabulary (0 to %d)",
                     name, l->line, l->ids.v[i], vocab - 1);
  if (l->ids.n > (size_t)(positions - more))
    return pf_fail(PF_EINPUT,
                   "%s: line %zu: the prompt has %zu tokens%s; the model has %d positions", name,
                   l->line, l->ids.n, more ? " and more are to follow" : "", positions);
  return PF_OK;
}

int pf_prompts_fit(const pf_prompts *p, const char *name, int32_t vocab, int32_t positions,
                   int32_t more) {
  int rc = more < positions ? PF_OK
                            : pf_fail(PF_EUSAGE, "%d positions are wanted; the model has %d",
                                      more + 1, positions);
  for (size_t i = 0; i < p->n && rc == PF_OK; i++)
    rc = fits(&p->v[i], name, vocab, positions, more);
  return rc;
}

void pf_prompts_free(pf_prompts *p) {
  for (size_t i = 0; i < p->n; i++) {
    pf_free(p->v[i].id);
    pf_ids_free(&p->v[i].ids);
    json_decref(p->v[i].json);
  }
  pf_free(p->v);
  pf_tok_close(p->tok);
  *p = (pf_prompts){0};
}
