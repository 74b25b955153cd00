/* SPDX-License-Identifier: Apache-2.0
 * Reads the two big members of tokenizer.json, model.vocab and model.merges, straight into tables.
 * A tree of Gemma's 256,000 pieces and 580,604 merges costs ten times the time of this pass and 100
 * MB; everything else in the file is left to the JSON library. Only the forms that these members
 * may have are read: an object of whole numbers, and an array of "a b" strings or ["a", "b"] pairs.
 */
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

typedef struct scan {
  const char *p, *end, *begin, *name, *what;
} scan;

static void space(scan *s) {
  while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
    s->p++;
}

static bool take(scan *s, char c) {
  space(s);
  if (s->p < s->end && *s->p == c)
    return s->p++, true;
  return false;
}

static int bad(const scan *s, const char *why) {
  return pf_fail(PF_EINPUT, "%s: %s: invalid JSON: %s at byte %zu of it", s->name, s->what, why,
                 (size_t)(s->p - s->begin));
}

/* ---- finding
 * ----------------------------------------------------------------------------------------------------
 */

/* Over a string without looking into it; *out (may be NULL) is what stands between the quotes. */
static bool skip_string(scan *s, pf_slice *out) {
  if (!take(s, '"'))
    return false;
  const char *from = s->p;
  for (; s->p < s->end && *s->p != '"'; s->p++)
    if (*s->p == '\\' && ++s->p == s->end)
      return false;
  if (s->p >= s->end)
    return false;
  if (out)
    *out = (pf_slice){from, (size_t)(s->p - from)};
  s->p++;
  return true;
}

/* Over an object or array: brackets are counted, their kinds are not compared. */
static bool skip_brackets(scan *s) {
  size_t depth = 0;
  do {
    space(s);
    if (s->p >= s->end)
      return false;
    if (*s->p == '"') {
      if (!skip_string(s, NULL))
        return false;
      continue;
    }
    depth += *s->p == '{' || *s->p == '[';
    depth -= *s->p == '}' || *s->p == ']';
    s->p++;
  } while (depth > 0);
  return true;
}

static bool skip_value(scan *s, pf_slice *out) {
  space(s);
  const char *from = s->p;
  if (from >= s->end)
    return false;
  bool ok = true;
  if (*from == '"')
    ok = skip_string(s, NULL);
  else if (*from == '{' || *from == '[')
    ok = skip_brackets(s);
  else
    while (s->p < s->end && !strchr(",]} \t\r\n", *s->p))
      s->p++;
  *out = (pf_slice){from, (size_t)(s->p - from)};
  return ok;
}

static bool is_key(pf_slice k, const char *name) {
  return k.n == strlen(name) && !memcmp(k.p, name, k.n);
}

/* The value of a member of the object that s stands at; the text after the object is not looked at.
 */
static bool find_member(pf_slice object, const char *key, pf_slice *out) {
  scan s = {object.p, object.p + object.n, object.p, "", ""};
  pf_slice k, v;
  if (!take(&s, '{'))
    return false;
  while (skip_string(&s, &k) && take(&s, ':') && skip_value(&s, &v)) {
    if (is_key(k, key)) {
      *out = v;
      return true;
    }
    if (!take(&s, ','))
      break;
  }
  return false;
}

void pf_scan_big_members(const char *text, size_t n, pf_slice *vocab, pf_slice *merges) {
  pf_slice model;
  *vocab = *merges = (pf_slice){0};
  if (!find_member((pf_slice){text, n}, "model", &model))
    return;
  find_member(model, "vocab", vocab);
  find_member(model, "merges", merges);
}

/* ---- strings
 * ----------------------------------------------------------------------------------------------------
 */

static int hex4(scan *s, uint32_t *u) {
  *u = 0;
  for (int i = 0; i < 4; i++, s->p++) {
    int c = s->p < s->end ? (unsigned char)*s->p : 0;
    int d = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                 : -1;
    if (d < 0)
      return bad(s, "a \\u escape needs four hexadecimal digits");
    *u = *u << 4 | (uint32_t)d;
  }
  return PF_OK;
}

static int unicode_escape(scan *s, char *to, size_t *n) {
  uint32_t u, low;
  int rc = hex4(s, &u);
  if (rc == PF_OK && u >= 0xd800 && u < 0xdc00) {
    if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
      return bad(s, "half of a surrogate pair");
    s->p += 2;
    rc = hex4(s, &low);
    if (rc == PF_OK && (low < 0xdc00 || low > 0xdfff))
      return bad(s, "half of a surrogate pair");
    u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
  } else if (rc == PF_OK && u >= 0xdc00 && u < 0xe000) {
    return bad(s, "half of a surrogate pair");
  }
  if (rc == PF_OK)
    *n = pf_utf8_put(to, u);
  return rc;
}

static int escape(scan *s, char *to, size_t *n) {
  static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
  char c = s->p < s->end ? *s->p++ : '\0';
  if (c == 'u')
    return unicode_escape(s, to, n);
  const char *at = c ? strchr(from, c) : NULL;
  if (!at)
    return bad(s, "an unknown escape");
  *to = into[at - from];
  *n = 1;
  return PF_OK;
}

/* Unescapes a string into *out (emptied first). */
static int string(scan *s, pf_buf *out) {
  char tmp[4];
  size_t n = 0;
  out->n = 0;
  if (!take(s, '"'))
    return bad(s, "a string is missing");
  for (;;) {
    const char *from = s->p;
    while (s->p < s->end && *s->p != '"' && *s->p != '\\' && (unsigned char)*s->p >= 0x20)
      s->p++;
    pf_buf_add(out, from, (size_t)(s->p - from));
    if (s->p >= s->end || (unsigned char)*s->p < 0x20)
      return bad(s, "an unfinished string");
    if (*s->p++ == '"')
      return pf_buf_status(out);
    int rc = escape(s, tmp, &n);
    if (rc != PF_OK)
      return rc;
    pf_buf_add(out, tmp, n);
  }
}

static int whole_number(scan *s, int32_t *out) {
  uint32_t u = 0;
  space(s);
  const char *from = s->p;
  for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && u < PF_TOK_MAX_IDS; s->p++)
    u = u * 10 + (uint32_t)(*s->p - '0');
  if (s->p == from || u >= PF_TOK_MAX_IDS)
    return bad(s, "an id that is not a whole number below 4194304");
  *out = (int32_t)u;
  return PF_OK;
}

static bool valid_utf8(const char *s, size_t n) {
  uint32_t cp;
  for (size_t i = 0; i < n;) {
    int k = pf_utf8_step(s + i, n - i, &cp);
    if (k <= 0)
      return false;
    i += (size_t)k;
  }
  return true;
}

/* ---- pieces
 * -----------------------------------------------------------------------------------------------------
 */

static int one_piece(scan *s, pf_buf *text, pf_vocab *v) {
  int32_t id = 0;
  size_t n;
  int rc = string(s, text);
  if (rc == PF_OK && !take(s, ':'))
    return bad(s, "':' is missing");
  if (rc == PF_OK)
    rc = whole_number(s, &id);
  if (rc != PF_OK)
    return rc;
  if (!valid_utf8(text->s, text->n))
    return bad(s, "invalid UTF-8");
  if (pf_vocab_text(v, id, &n))
    return pf_fail(PF_EINPUT, "%s: model.vocab: two pieces have the id %d", s->name, (int)id);
  return pf_vocab_add(v, id, text->s, text->n);
}

typedef int (*element_fn)(scan *s, void *user);

/* open element , element ... close, then nothing more. */
static int each(scan *s, char open, char close, element_fn fn, void *user) {
  if (!take(s, open))
    return pf_fail(PF_EINPUT, "%s: %s: must be %s", s->name, s->what,
                   open == '{' ? "an object" : "an array");
  bool more = !take(s, close);
  while (more) {
    int rc = fn(s, user);
    if (rc != PF_OK)
      return rc;
    more = take(s, ',');
    if (!more && !take(s, close))
      return bad(s, "',' or the closing bracket is missing");
  }
  space(s);
  return s->p == s->end ? PF_OK : bad(s, "more text");
}

struct vocab_reader {
  pf_buf text;
  pf_vocab *v;
};

static int vocab_element(scan *s, void *user) {
  struct vocab_reader *r = user;
  return one_piece(s, &r->text, r->v);
}

int pf_scan_vocab(const char *name, pf_slice in, pf_vocab *v) {
  if (!in.p)
    return pf_fail(PF_EINPUT, "%s: model.vocab is missing", name);
  scan s = {in.p, in.p + in.n, in.p, name, "model.vocab"};
  struct vocab_reader r = {.v = v};
  int rc = each(&s, '{', '}', vocab_element, &r);
  pf_buf_free(&r.text);
  if (rc == PF_OK && v->n_pieces == 0)
    rc = pf_fail(PF_EINPUT, "%s: model.vocab: no pieces", name);
  return rc == PF_OK ? pf_vocab_index(v, name) : rc;
}

/* ---- merges
 * -----------------------------------------------------------------------------------------------------
 */

/* Every merge needs three pieces and one place in tables that no cache holds. Merges are taken in
 * batches: all their pieces are asked for, then all found, then all placed, so that the memory
 * works on a batch at once. */
enum { BATCH = 32 };

struct waiting_merge {
  pf_buf text; /* both halves */
  size_t cut;  /* bytes of the left one */
  uint32_t hash[3];
  int32_t left, right, id;
};

struct merge_reader {
  struct waiting_merge wait[BATCH];
  size_t n;
  pf_buf right;
  const pf_tok *t;
  pf_merges *m;
  uint32_t rank; /* of wait[0] */
};

/* "a b": exactly one space, which is taken out. */
static int split_at_space(scan *s, struct merge_reader *r, struct waiting_merge *w) {
  char *sp = memchr(w->text.s, ' ', w->text.n);
  w->cut = sp ? (size_t)(sp - w->text.s) : 0;
  size_t n = sp ? w->text.n - w->cut - 1 : 0;
  if (!sp || memchr(sp + 1, ' ', n))
    return pf_fail(PF_EINPUT, "%s: model.merges: merge %zu is not of the form \"a b\": '%.*s'",
                   s->name, r->rank + r->n, (int)(w->text.n < 64 ? w->text.n : 64), w->text.s);
  memmove(sp, sp + 1, n);
  w->text.n--;
  return PF_OK;
}

static int read_pair(scan *s, struct merge_reader *r, struct waiting_merge *w) {
  int rc = string(s, &w->text);
  w->cut = w->text.n;
  if (rc == PF_OK && !take(s, ','))
    return bad(s, "a pair of strings is expected");
  if (rc == PF_OK)
    rc = string(s, &r->right);
  if (rc == PF_OK && !take(s, ']'))
    return bad(s, "a pair of strings is expected");
  if (rc == PF_OK)
    pf_buf_add(&w->text, r->right.s, r->right.n);
  return rc == PF_OK ? pf_buf_status(&w->text) : rc;
}

/* The three texts of a merge: left, right, both. */
static pf_slice part(const struct waiting_merge *w, int i) {
  const char *s = w->text.s;
  return i == 0   ? (pf_slice){s, w->cut}
         : i == 1 ? (pf_slice){s + w->cut, w->text.n - w->cut}
                  : (pf_slice){s, w->text.n};
}

static void ask(const pf_vocab *v, struct waiting_merge *w) {
  for (int i = 0; i < 3; i++) {
    pf_slice p = part(w, i);
    w->hash[i] = pf_vocab_hash(p.p, p.n);
    pf_vocab_prefetch(v, w->hash[i]);
  }
}

static int find(const scan *s, struct merge_reader *r, size_t k) {
  struct waiting_merge *w = &r->wait[k];
  int32_t *ids[3] = {&w->left, &w->right, &w->id};
  for (int i = 0; i < 3; i++) {
    pf_slice p = part(w, i);
    *ids[i] = pf_vocab_find_hashed(&r->t->vocab, w->hash[i], p.p, p.n);
    if (*ids[i] < 0)
      return pf_fail(
          PF_EINPUT,
          "%s: model.merges: merge %zu needs the piece '%.*s', which the vocabulary lacks", s->name,
          r->rank + k, (int)(p.n < 64 ? p.n : 64), p.p);
  }
  pf_merges_prefetch(r->m, w->left, w->right);
  return PF_OK;
}

/* A control token is never put together from text: only the special-token matcher makes one. */
static int flush(const scan *s, struct merge_reader *r) {
  int rc = PF_OK;
  for (size_t k = 0; rc == PF_OK && k < r->n; k++)
    rc = find(s, r, k);
  for (size_t k = 0; rc == PF_OK && k < r->n; k++) {
    const struct waiting_merge *w = &r->wait[k];
    if (!pf_tok_is_special(r->t, w->id))
      pf_merges_add(r->m, w->left, w->right, r->rank + (uint32_t)k, w->id);
  }
  r->rank += (uint32_t)r->n;
  r->n = 0;
  return rc;
}

static int merge_element(scan *s, void *user) {
  struct merge_reader *r = user;
  struct waiting_merge *w = &r->wait[r->n];
  bool pair = take(s, '[');
  int rc = pair ? read_pair(s, r, w) : string(s, &w->text);
  if (rc == PF_OK && !pair && r->rank + r->n == 0 && w->text.n >= 8 &&
      !memcmp(w->text.s, "#version", 8))
    return PF_OK;
  if (rc == PF_OK && !pair)
    rc = split_at_space(s, r, w);
  if (rc != PF_OK)
    return rc;
  ask(&r->t->vocab, w);
  return ++r->n == BATCH ? flush(s, r) : PF_OK;
}

/* An upper bound of the number of elements: their separators are commas outside strings, or half
 * the quotes. */
static size_t count_quotes(pf_slice in) {
  size_t n = 0;
  for (const char *p = in.p, *end = in.p + in.n; p < end && (p = memchr(p, '"', (size_t)(end - p)));
       p++)
    n++;
  return n;
}

int pf_scan_merges(const char *name, pf_slice in, const pf_tok *t, pf_merges *m) {
  if (!in.p)
    return pf_fail(PF_EINPUT, "%s: model.merges is missing", name);
  scan s = {in.p, in.p + in.n, in.p, name, "model.merges"};
  struct merge_reader r = {.n = 0, .t = t, .m = m};
  int rc = pf_merges_reserve(m, count_quotes(in) / 2 + 1);
  if (rc == PF_OK)
    rc = each(&s, '[', ']', merge_element, &r);
  if (rc == PF_OK)
    rc = flush(&s, &r);
  for (size_t i = 0; i < BATCH; i++)
    pf_buf_free(&r.wait[i].text);
  pf_buf_free(&r.right);
  return rc;
}
