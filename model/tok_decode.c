/* SPDX-License-Identifier: Apache-2.0
 * Ids to text. The whole decode is the streaming one: every id is pushed, bytes come out as soon as
 * they are certain.
 *
 * Byte-level pieces: bytes that are no UTF-8 become U+FFFD, one for each maximal beginning of a
 * character. Byte pieces <0xNN> wait until a piece of another kind (or the end) closes their run; a
 * run that is not UTF-8 as a whole becomes one U+FFFD per byte. Both as the reference library does
 * it. */
#include "config.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

#define REPLACEMENT "\xef\xbf\xbd"

struct pf_decoder {
  const pf_tok *t;
  bool keep_specials;
  size_t strip; /* leading spaces still to be taken away */
  pf_buf out, wait;
};

int pf_decoder_new(pf_decoder **out, const pf_tok *t, int keep_specials) {
  pf_decoder *d = *out = pf_calloc(1, sizeof *d);
  if (!d)
    return PF_ENOMEM;
  d->t = t;
  d->keep_specials = keep_specials != 0;
  d->strip = t->dec.strip;
  return PF_OK;
}

void pf_decoder_free(pf_decoder *d) {
  if (!d)
    return;
  pf_buf_free(&d->out);
  pf_buf_free(&d->wait);
  pf_free(d);
}

/* ---- byte-level
 * -------------------------------------------------------------------------------------------------
 */

/* A piece with a character outside the alphabet (an added token) stands for its own bytes. */
static void add_byte_level(pf_buf *b, const char *s, size_t n) {
  size_t had = b->n;
  uint32_t cp = 0;
  for (size_t i = 0; i < n; i += pf_utf8_len(s + i)) {
    pf_utf8_step(s + i, n - i, &cp);
    int byte = pf_alphabet_byte(cp);
    if (byte < 0) {
      b->n = had;
      pf_buf_add(b, s, n);
      return;
    }
    char c = (char)byte;
    pf_buf_add(b, &c, 1);
  }
}

/* Moves what is certain from wait to out; `end`: nothing will follow. */
static void emit_certain(pf_decoder *d, bool end) {
  pf_buf *w = &d->wait;
  size_t i = 0;
  uint32_t cp;
  while (i < w->n) {
    int k = pf_utf8_step(w->s + i, w->n - i, &cp);
    if (k == 0 && !end)
      break;
    if (k > 0)
      pf_buf_add(&d->out, w->s + i, (size_t)k);
    else
      pf_buf_puts(&d->out, REPLACEMENT);
    i += k > 0 ? (size_t)k : k < 0 ? (size_t)-k : w->n - i;
  }
  if (i)
    memmove(w->s, w->s + i, w->n - i);
  w->n -= i;
}

/* ---- byte fallback
 * ---------------------------------------------------------------------------------------------- */

static int hex(char c) {
  const char *digits = "0123456789abcdef",
             *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c | 32 : c) : NULL;
  return at ? (int)(at - digits) : -1;
}

/* The byte of a piece "<0xNN>", -1 for other pieces. */
static int byte_of(const char *s, size_t n) {
  if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0)
    return -1;
  return hex(s[3]) << 4 | hex(s[4]);
}

static void close_run(pf_decoder *d) {
  pf_buf *w = &d->wait;
  uint32_t cp;
  size_t i = 0;
  for (int k; i < w->n && (k = pf_utf8_step(w->s + i, w->n - i, &cp)) > 0;)
    i += (size_t)k;
  if (w->n && i == w->n)
    pf_buf_add(&d->out, w->s, w->n);
  for (size_t b = 0; i < w->n && b < w->n; b++)
    pf_buf_puts(&d->out, REPLACEMENT);
  w->n = 0;
}

static void add_replaced(pf_decoder *d, const char *s, size_t n) {
  const char *from = d->t->dec.from;
  size_t k = from ? strlen(from) : 0;
  for (const char *at; k && (at = memmem(s, n, from, k));) {
    pf_buf_add(&d->out, s, (size_t)(at - s));
    pf_buf_puts(&d->out, d->t->dec.to);
    n -= (size_t)(at - s) + k;
    s = at + k;
  }
  pf_buf_add(&d->out, s, n);
}

static void add_fallback(pf_decoder *d, const char *s, size_t n) {
  int byte = d->t->dec.byte_fallback ? byte_of(s, n) : -1;
  char c = (char)byte;
  if (byte >= 0) {
    pf_buf_add(&d->wait, &c, 1);
    return;
  }
  close_run(d);
  add_replaced(d, s, n);
}

/* ---- the stream
 * -------------------------------------------------------------------------------------------------
 */

static void strip_begin(pf_decoder *d) {
  size_t i = 0;
  while (i < d->out.n && i < d->strip && d->out.s[i] == ' ')
    i++;
  if (d->out.n)
    d->strip = i < d->out.n ? 0 : d->strip - i;
  if (i)
    memmove(d->out.s, d->out.s + i, d->out.n - i);
  d->out.n -= i;
}

static int give(pf_decoder *d, const char **text, size_t *n) {
  strip_begin(d);
  *text = pf_buf_str(&d->out);
  *n = d->out.n;
  return d->out.failed || d->wait.failed ? PF_ENOMEM : PF_OK;
}

int pf_decoder_push(pf_decoder *d, int32_t id, const char **text, size_t *n) {
  size_t len;
  *text = "";
  *n = d->out.n = 0;
  if (id < 0)
    return pf_fail(PF_EUSAGE, "token id %d: ids are not negative", (int)id);
  const char *s = pf_vocab_text(&d->t->vocab, id, &len);
  if (!s || (!d->keep_specials && pf_tok_is_special(d->t, id)))
    return PF_OK; /* ids that only fill up the model's vocabulary have no text */
  if (d->t->dec.byte_level) {
    add_byte_level(&d->wait, s, len);
    emit_certain(d, false);
  } else {
    add_fallback(d, s, len);
  }
  return give(d, text, n);
}

int pf_decoder_finish(pf_decoder *d, const char **text, size_t *n) {
  d->out.n = 0;
  if (d->t->dec.byte_level)
    emit_certain(d, true);
  else
    close_run(d);
  return give(d, text, n);
}

int pf_tok_decode(const pf_tok *t, const int32_t *ids, size_t n_ids, int keep_specials, char **text,
                  size_t *n) {
  pf_decoder *d;
  pf_buf all = {0};
  const char *s;
  size_t k;
  *text = NULL;
  *n = 0;
  int rc = pf_decoder_new(&d, t, keep_specials);
  for (size_t i = 0; rc == PF_OK && i <= n_ids; i++) {
    rc = i < n_ids ? pf_decoder_push(d, ids[i], &s, &k) : pf_decoder_finish(d, &s, &k);
    if (rc == PF_OK)
      pf_buf_add(&all, s, k);
  }
  pf_decoder_free(d);
  rc = rc == PF_OK ? pf_buf_status(&all) : rc;
  if (rc == PF_OK) {
    *text = all.s;
    *n = all.n;
  } else {
    pf_buf_free(&all);
  }
  return rc;
}

void pf_text_free(char *text) {
  pf_free(text);
}
