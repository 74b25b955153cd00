/* SPDX-License-Identifier: Apache-2.0
 * Chat formats. A template is a program; instead of running it, the formats of the known ones are
 * written here, and a model's template is recognised by the SHA-256 of its text: carriage returns
 * and trailing white space removed, the escape \n as a line feed, and for the Qwen family the
 * default system message cut out (it is read from the text, so a fine-tune that only changed that
 * message is known too). A template that is not known is an error, never a guess.
 *
 * Contents and roles are encoded as plain text: a control token written inside a message stays text
 * unless the caller asks for Hugging Face's behaviour (PF_CHAT_PARSE_SPECIALS). The rendered text
 * is encoded as a whole, since a word may begin in the template and end in a content. */
#include "config.h"

#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

typedef struct render {
  pf_buf text;
  pf_span *plain; /* where contents and roles lie */
  size_t n_plain, plain_cap;
  size_t *content_start;
  const pf_tok *t;
  const pf_message *m;
  size_t n;
  bool generation_prompt, failed;
} render;

struct pf_chat_format {
  const char *family, *sha256;
  int (*render)(render *r);
};

/* ---- pieces of a rendered text
 * ---------------------------------------------------------------------------------- */

static void literal(render *r, const char *s) {
  pf_buf_puts(&r->text, s);
}

static void plain(render *r, const char *s, size_t n) {
  void *p = r->plain;
  if (pf_grow(&p, &r->plain_cap, r->n_plain + 1, sizeof *r->plain) != PF_OK)
    r->failed = true;
  r->plain = p;
  if (!r->failed && n)
    r->plain[r->n_plain++] = (pf_span){r->text.n, r->text.n + n};
  pf_buf_add(&r->text, s, n);
}

static void content(render *r, size_t i, const char *s, size_t n) {
  if (r->content_start)
    r->content_start[i] = r->text.n;
  plain(r, s, n);
}

static bool has_role(const render *r, size_t i, const char *role) {
  return i < r->n && !strcmp(r->m[i].role, role);
}

/* ---- Gemma 2
 * ----------------------------------------------------------------------------------------------------
 */

/* What Python's str.strip takes away (the template's `trim`): Unicode white space and the four
 * separators U+001C..1F. */
static bool is_trimmed(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

/* Invalid UTF-8 is kept: encoding refuses it, naming the byte. */
static void trim(const char **s, size_t *n) {
  uint32_t c;
  size_t end = 0;
  while (*n) {
    int k = pf_utf8_step(*s, *n, &c);
    if (k <= 0 || !is_trimmed(c))
      break;
    *s += k;
    *n -= (size_t)k;
  }
  for (size_t i = 0; i < *n;) {
    int k = pf_utf8_step(*s + i, *n - i, &c);
    i += k > 0 ? (size_t)k : 1;
    if (k <= 0 || !is_trimmed(c))
      end = i;
  }
  *n = end;
}

static int gemma2(render *r) {
  const char *bos;
  size_t n;
  if (has_role(r, 0, "system"))
    return pf_fail(PF_EINPUT, "messages[0]: System role not supported");
  bos = pf_vocab_text(&r->t->vocab, r->t->bos, &n);
  pf_buf_add(&r->text, bos, n);
  for (size_t i = 0; i < r->n; i++) {
    if (has_role(r, i, "user") != (i % 2 == 0))
      return pf_fail(
          PF_EINPUT,
          "messages[%zu]: Conversation roles must alternate user/assistant/user/assistant/...", i);
    const char *role = has_role(r, i, "assistant") ? "model" : r->m[i].role, *s = r->m[i].content;
    size_t len = strlen(s);
    trim(&s, &len);
    literal(r, "<start_of_turn>");
    plain(r, role, strlen(role));
    literal(r, "\n");
    content(r, i, s, len);
    literal(r, "<end_of_turn>\n");
  }
  if (r->generation_prompt)
    literal(r, "<start_of_turn>model\n");
  return PF_OK;
}

/* ---- Qwen 2.5
 * ---------------------------------------------------------------------------------------------------
 */

/* Consecutive tool results share one user turn. */
static void tool_result(render *r, size_t i) {
  if (i == 0 || !has_role(r, i - 1, "tool"))
    literal(r, "<|im_start|>user");
  literal(r, "\n<tool_response>\n");
  content(r, i, r->m[i].content, strlen(r->m[i].content));
  literal(r, "\n</tool_response>");
  if (!has_role(r, i + 1, "tool"))
    literal(r, "<|im_end|>\n");
}

static void turn(render *r, size_t i) {
  literal(r, "<|im_start|>");
  plain(r, r->m[i].role, strlen(r->m[i].role));
  literal(r, "\n");
  content(r, i, r->m[i].content, strlen(r->m[i].content));
  literal(r, "<|im_end|>\n");
}

static int qwen25(render *r) {
  if (!has_role(r, 0, "system")) {
    literal(r, "<|im_start|>system\n");
    literal(r, r->t->chat_system);
    literal(r, "<|im_end|>\n");
  }
  for (size_t i = 0; i < r->n; i++) {
    if (has_role(r, i, "tool"))
      tool_result(r, i);
    else if (has_role(r, i, "user") || has_role(r, i, "assistant") || has_role(r, i, "system"))
      turn(r, i);
    else /* the template would leave the message out without a word */
      return pf_fail(
          PF_EINPUT,
          "messages[%zu]: role '%.40s' has no place in this chat format: use system, user, "
          "assistant or tool",
          i, r->m[i].role);
  }
  if (r->generation_prompt)
    literal(r, "<|im_start|>assistant\n");
  return PF_OK;
}

/* ---- recognising
 * ------------------------------------------------------------------------------------------------
 */

static const struct pf_chat_format formats[] = {
    {"gemma2", "ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6", gemma2},
    {"qwen2.5", "0b13fb322ccd9216b4b6ff11bc10d39f5919ca11ef9ef26b2470497a8dd15fa7", qwen25},
};

static void normalise_text(const char *s, pf_buf *out) {
  for (; *s; s++) {
    bool newline = s[0] == '\\' && s[1] == 'n';
    char c = newline ? '\n' : *s;
    if (c != '\r')
      pf_buf_add(out, &c, 1);
    s += newline;
  }
  while (out->n && strchr(" \t\n", out->s[out->n - 1]))
    out->s[--out->n] = '\0';
}

/* The default system message: what a string literal puts between "system\n" and "<|im_end|>". */
static const char *default_system(const char *s, size_t *n) {
  static const char before[] = "'<|im_start|>system\n", after[] = "<|im_end|>\n' }}";
  for (const char *at = s; (at = strstr(at, before));) {
    at += sizeof before - 1;
    const char *end = strstr(at, after), *quote = strchr(at, '\'');
    if (end && end > at && quote && quote > end && !memchr(at, '\\', (size_t)(end - at))) {
      *n = (size_t)(end - at);
      return at;
    }
  }
  return NULL;
}

/* Cuts the message out of the text, at most twice: the template has it with and without tools. */
static void cut_out(const char *s, const char *what, size_t n, pf_buf *out) {
  const char *at = what ? s : NULL;
  for (int i = 0; i < 2 && at && (at = memmem(s, strlen(s), what, n)); i++, s = at + n)
    pf_buf_add(out, s, (size_t)(at - s));
  pf_buf_puts(out, s);
}

static int keep_system(pf_tok *t, const char *s, size_t n) {
  char *copy = pf_calloc(n + 1, 1);
  if (!copy)
    return PF_ENOMEM;
  if (n)
    memcpy(copy, s, n);
  pf_free(t->chat_system);
  t->chat_system = copy;
  return PF_OK;
}

int pf_chat_recognise(pf_tok *t, const char *text) {
  pf_buf norm = {0}, skeleton = {0};
  size_t n = 0;
  char sha[65];
  normalise_text(text, &norm);
  const char *s = pf_buf_str(&norm), *system = default_system(s, &n);
  cut_out(s, system, n, &skeleton);
  int rc = pf_buf_status(&norm) != PF_OK ? PF_ENOMEM : pf_buf_status(&skeleton);
  if (rc == PF_OK)
    rc = keep_system(t, system, n);
  pf_sha256_hex(pf_buf_str(&skeleton), skeleton.n, sha);
  t->has_template = true;
  t->chat = NULL;
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
    if (!strcmp(sha, formats[i].sha256))
      t->chat = &formats[i];
  pf_buf_free(&norm);
  pf_buf_free(&skeleton);
  return rc;
}

const char *pf_chat_family(const pf_tok *t) {
  return t->chat ? t->chat->family : NULL;
}

/* ---- encoding
 * ---------------------------------------------------------------------------------------------------
 */

static int no_format(const pf_tok *t) {
  return pf_fail(PF_EINPUT,
                 "%s: %s; give the whole prompt as text (generate, capture: --prompt-raw; "
                 "tokenize: standard input with --specials)",
                 t->dir ? t->dir : "tokenizer",
                 t->has_template ? "this model's chat template is not one that is known here"
                                 : "this model has no chat template (chat_template.jinja, or "
                                   "chat_template in tokenizer_config.json)");
}

static int check_messages(const pf_tok *t, const pf_message *m, size_t n) {
  if (!t->chat)
    return no_format(t);
  if (t->chat->render == gemma2 && t->bos < 0)
    return pf_fail(PF_EINPUT,
                   "the chat template begins with the BOS token, which this tokenizer lacks");
  if (n == 0)
    return pf_fail(PF_EINPUT, "messages: a conversation needs at least one message");
  for (size_t i = 0; i < n; i++)
    if (!m[i].role || !m[i].content)
      return pf_fail(PF_EUSAGE, "messages[%zu]: role and content are needed", i);
  return PF_OK;
}

int pf_chat_encode(const pf_tok *t, const pf_message *messages, size_t n_messages, unsigned flags,
                   pf_encoding *out, char **text, size_t *content_start) {
  render r = {.content_start = content_start,
              .t = t,
              .m = messages,
              .n = n_messages,
              .generation_prompt = !(flags & PF_CHAT_NO_GENERATION_PROMPT)};
  *text = NULL;
  int rc = check_messages(t, messages, n_messages);
  if (rc == PF_OK)
    rc = t->chat->render(&r);
  if (rc == PF_OK)
    rc = r.failed ? PF_ENOMEM : pf_buf_status(&r.text);
  if (rc == PF_OK)
    rc = pf_tok_encode_spans(t, r.text.s, r.text.n, r.plain,
                             flags & PF_CHAT_PARSE_SPECIALS ? 0 : r.n_plain, out);
  pf_free(r.plain);
  if (rc == PF_OK)
    *text = r.text.s;
  else
    pf_buf_free(&r.text);
  return rc;
}
