/* SPDX-License-Identifier: Apache-2.0
 * Encoding: added tokens cut the text, the segments between are normalised, cut into words and
 * merged (tok.h). */
#include "model/tok.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/tok_utf8.h"

#define MAX_TEXT                                                                                   \
  ((size_t)1 << 30) /* positions are 32 bits, and normalising may make a text longer */

void pf_encoding_free(pf_encoding *e) {
  if (!e)
    return;
  pf_free(e->ids);
  pf_free(e->start);
  pf_free(e->end);
  *e = (pf_encoding){0};
}

static int grow_encoding(pf_encoding *e) {
  size_t cap = e->cap ? 2 * e->cap : 64;
  int32_t *ids = pf_alloc(cap, sizeof *ids);
  uint32_t *start = pf_alloc(cap, sizeof *start), *end = pf_alloc(cap, sizeof *end);
  if (!ids || !start || !end) {
    pf_free(ids);
    pf_free(start);
    pf_free(end);
    return PF_ENOMEM;
  }
  if (e->n) {
    memcpy(ids, e->ids, e->n * sizeof *ids);
    memcpy(start, e->start, e->n * sizeof *start);
    memcpy(end, e->end, e->n * sizeof *end);
  }
  size_t n = e->n;
  pf_encoding_free(e);
  *e = (pf_encoding){ids, start, end, n, cap};
  return PF_OK;
}

int pf_encoding_push(pf_encoding *e, int32_t id, size_t start, size_t end) {
  int rc = e->n < e->cap ? PF_OK : grow_encoding(e);
  if (rc != PF_OK)
    return rc;
  e->ids[e->n] = id;
  e->start[e->n] = (uint32_t)start;
  e->end[e->n++] = (uint32_t)end;
  return PF_OK;
}

void pf_job_free(pf_job *j) {
  pf_ntext *x[2] = {&j->a, &j->b};
  for (int i = 0; i < 2; i++) {
    pf_free(x[i]->s);
    pf_free(x[i]->lo);
    pf_free(x[i]->hi);
  }
  pf_free(j->syms);
  pf_free(j->heap);
  pf_buf_free(&j->word);
  pcre2_match_data_free(j->match);
}

/* Whether [lo, hi) of the given text touches a plain span. */
static bool is_plain(const pf_job *j, size_t lo, size_t hi) {
  size_t a = 0, b = j->n_plain; /* the first span that ends behind lo */
  while (a < b) {
    size_t mid = a + (b - a) / 2;
    if (j->plain[mid].hi <= lo)
      a = mid + 1;
    else
      b = mid;
  }
  return a < j->n_plain && j->plain[a].lo < hi;
}

static bool is_plain_normalised(const pf_job *j, size_t lo, size_t hi) {
  return is_plain(j, j->a.lo[lo], j->a.hi[hi - 1]);
}

static int encode_segment(pf_job *j, size_t lo, size_t hi) {
  size_t done = 0;
  pf_match m;
  int rc = pf_normalise(j, lo, hi);
  while (rc == PF_OK &&
         pf_added_find(&j->t->normal, j->a.s, j->a.n, done, j, is_plain_normalised, &m)) {
    rc = pf_encode_words(j, done, m.lo);
    if (rc == PF_OK)
      rc = pf_encoding_push(j->out, m.token->id, j->a.lo[m.lo], j->a.hi[m.hi - 1]);
    done = m.hi;
  }
  return rc == PF_OK ? pf_encode_words(j, done, j->a.n) : rc;
}

static int encode_text(pf_job *j) {
  size_t done = 0;
  pf_match m;
  int rc = PF_OK;
  while (rc == PF_OK && pf_added_find(&j->t->raw, j->text, j->n, done, j, is_plain, &m)) {
    if (m.lo > done)
      rc = encode_segment(j, done, m.lo);
    if (rc == PF_OK)
      rc = pf_encoding_push(j->out, m.token->id, m.lo, m.hi);
    done = m.hi;
  }
  return rc == PF_OK && done < j->n ? encode_segment(j, done, j->n) : rc;
}

int pf_text_check(const char *s, size_t n) {
  uint32_t cp;
  for (size_t i = 0; i < n;) {
    int k = pf_utf8_step(s + i, n - i, &cp);
    if (k <= 0)
      return pf_fail(PF_EINPUT, "invalid UTF-8 at byte %zu (0x%02x)", i, (unsigned char)s[i]);
    i += (size_t)k;
  }
  return PF_OK;
}

static int check_text(const char *s, size_t n) {
  if (n > MAX_TEXT)
    return pf_fail(PF_EINPUT,
                   "text: %zu bytes are more than the 1 GiB that can be tokenised at once", n);
  int rc = pf_text_check(s, n);
  return rc == PF_OK ? rc : pf_fail_prefix(rc, "text");
}

int pf_tok_encode_spans(const pf_tok *t, const char *text, size_t n, const pf_span *plain,
                        size_t n_plain, pf_encoding *out) {
  pf_job j = {.t = t, .text = text, .n = n, .plain = plain, .n_plain = n_plain, .out = out};
  size_t had = out->n;
  int rc = check_text(text, n);
  if (rc == PF_OK && t->split && !(j.match = pcre2_match_data_create_from_pattern(t->split, NULL)))
    rc = pf_fail(PF_ENOMEM, "out of memory: a pattern match");
  if (rc == PF_OK)
    rc = encode_text(&j);
  pf_job_free(&j);
  if (rc != PF_OK)
    out->n = had;
  return rc;
}

int pf_tok_encode(const pf_tok *t, const char *text, size_t n, unsigned flags, pf_encoding *out) {
  const pf_span all = {0, n};
  int32_t bos = flags & PF_TOK_BOS ? t->bos : flags & PF_TOK_AUTO_BOS ? t->auto_bos : -1;
  int rc = PF_OK;
  size_t had = out->n;
  if (flags & PF_TOK_BOS && bos < 0)
    return pf_fail(PF_EUSAGE, "this tokenizer has no BOS token: do not ask for one");
  if (bos >= 0)
    rc = pf_encoding_push(out, bos, 0, 0);
  if (rc == PF_OK)
    rc = pf_tok_encode_spans(t, text, n, &all, !(flags & PF_TOK_SPECIALS), out);
  if (rc != PF_OK)
    out->n = had;
  return rc;
}
