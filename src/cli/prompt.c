/* SPDX-License-Identifier: Apache-2.0
 * Prompts of the command line as token ids. */
#include "cli/prompt.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/messages.h"

static int take(pf_encoding *e, int status, pf_ids *out) {
  for (size_t i = 0; i < e->n && status == PF_OK; i++)
    status = pf_ids_push(out, e->ids[i]);
  pf_encoding_free(e);
  return status == PF_OK ? 0 : cli_fail(status);
}

static int encode_chat(const cli_prompt *p, cli_ready *r, const pf_message *m, size_t n) {
  pf_encoding e = {0};
  unsigned flags = p->specials ? PF_CHAT_PARSE_SPECIALS : 0;
  int st = pf_chat_prompt_make(r->tok, m, n, flags, &e, &r->spans);
  return take(&e, st, &r->ids);
}

static int encode_messages(const cli_prompt *p, cli_ready *r) {
  cli_messages m;
  int rc = cli_messages_read(p->messages, &m);
  if (rc == 0)
    rc = encode_chat(p, r, m.v, m.n);
  cli_messages_free(&m);
  return rc;
}

static bool has_tokenizer(const char *dir) {
  char path[4200];
  snprintf(path, sizeof path, "%s/tokenizer.json", dir);
  return access(path, F_OK) == 0;
}

static int encode_role(const cli_prompt *p, cli_ready *r) {
  pf_role_prompt role;
  int st = pf_role_prompt_make(r->tok, "As {persona}, {task}", p->persona, p->task, &role);
  if (st != PF_OK)
    return cli_fail(st);
  for (size_t i = 0; i < role.enc.n && st == PF_OK; i++)
    st = pf_ids_push(&r->ids, role.enc.ids[i]);
  pf_spans_of(&role, &r->spans);
  pf_role_prompt_free(&role);
  return st == PF_OK ? 0 : cli_fail(st);
}

static int encode(const char *cmd, const cli_prompt *p, cli_ready *r) {
  if (p->ids)
    return cli_ids(cmd, "--prompt-ids", p->ids, &r->ids) ? 0 : 2;
  if (p->messages)
    return encode_messages(p, r);
  if (p->chat)
    return encode_chat(p, r, &(pf_message){"user", p->chat}, 1);
  if (p->task)
    return encode_role(p, r);
  unsigned flags = PF_TOK_AUTO_BOS | (p->specials ? PF_TOK_SPECIALS : 0);
  pf_encoding e = {0};
  int st = pf_tok_encode(r->tok, p->raw, strlen(p->raw), flags, &e);
  return take(&e, st, &r->ids);
}

/* Texts as the command line has them: later, lines count in the rendered prompt. */
static int check_texts(const char *cmd, const cli_prompt *p) {
  const struct {
    const char *option, *text;
    bool whole; /* a part of a role prompt, of which no end may be cut off */
  } texts[] = {{"--prompt", p->chat, false},
               {"--prompt-raw", p->raw, false},
               {"--persona", p->persona, true},
               {"--task", p->task, true}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    const char *s = texts[i].text;
    size_t n = s ? strlen(s) : 0;
    if (s && pf_text_check(s, n) != PF_OK)
      return cli_usage(cmd, "%s: %s", texts[i].option, pf_last_error());
    if (s && texts[i].whole && n == 0)
      return cli_usage(cmd, "%s: the text is empty", texts[i].option);
    if (s && texts[i].whole && (isspace((unsigned char)s[0]) || isspace((unsigned char)s[n - 1])))
      return cli_usage(cmd, "%s: the text begins or ends with white space", texts[i].option);
  }
  return 0;
}

int cli_prompt_make(const char *cmd, const cli_prompt *p, const char *dir, cli_ready *out) {
  *out = (cli_ready){0};
  if (!!p->chat + !!p->raw + !!p->ids + !!p->messages + !!p->task != 1)
    return cli_usage(cmd, "give exactly one of --prompt, --prompt-raw, --prompt-ids, --messages, "
                          "--task with --persona");
  if (p->persona && !p->task)
    return cli_usage(cmd, "--persona needs --task");
  if (p->specials && (p->ids || p->task))
    return cli_usage(cmd,
                     "--specials goes with --prompt, --prompt-raw or --messages: ids are tokens "
                     "already, and a role prompt is text");
  int rc = check_texts(cmd, p);
  if (rc)
    return rc;
  if (!p->ids || has_tokenizer(dir)) {
    int st = pf_tok_open(&out->tok, dir);
    if (st != PF_OK)
      return cli_fail(st);
  }
  rc = encode(cmd, p, out);
  if (rc == 0 && !out->spans.n)
    pf_spans_of_tokens(out->tok, out->ids.v, out->ids.n, &out->spans);
  return rc;
}

void cli_ready_free(cli_ready *r) {
  pf_tok_close(r->tok);
  pf_ids_free(&r->ids);
}

int cli_interventions(const char *path, const pf_model *m, pf_ctx *c, const cli_ready *r,
                      pf_seq *seq, pf_interventions **iv) {
  int st = pf_interventions_read(iv, path, m);
  if (st == PF_OK)
    st = pf_interventions_bind(*iv, c, r->tok, &r->spans, seq);
  const char *line;
  for (size_t i = 0; st == PF_OK && (line = pf_interventions_line(*iv, i)); i++)
    fprintf(stderr, "%s\n", line);
  return st;
}
