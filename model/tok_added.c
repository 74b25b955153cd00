/* SPDX-License-Identifier: Apache-2.0
 * Added tokens in a text: the leftmost, and there the longest one.
 *
 * Which are seen: an added token whose file entry says "special" is a control token (<bos>,
 * <start_of_turn>,
 * <|im_end|>...); it is seen only outside the spans that the caller declares plain. One that is not
 * special is a symbol of the language (Gemma's newline runs and HTML tags, Qwen's <tool_call>) that
 * the model always reads as one piece, in user text too, because the training text was cut that
 * way. This is the reference library's encode_special_tokens. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

static int by_text(const void *pa, const void *pb) {
  const pf_added *a = *(const pf_added *const *)pa, *b = *(const pf_added *const *)pb;
  int c = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
  return c ? c : (a->n > b->n) - (a->n < b->n);
}

int pf_matcher_build(pf_matcher *m, const pf_added *added, size_t n, bool normalized) {
  m->v = pf_calloc(n, sizeof *m->v);
  if (!m->v)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++)
    if (added[i].normalized == normalized && added[i].n > 0)
      m->v[m->n++] = &added[i];
  if (m->n > 1)
    qsort(m->v, m->n, sizeof *m->v, by_text);
  return PF_OK;
}

/* The first of [lo, hi), which share their first k bytes, whose byte k is at least c; one of length
 * k has none (-1). */
static size_t bound(const pf_matcher *m, size_t lo, size_t hi, size_t k, int c) {
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    int d = m->v[mid]->n > k ? (unsigned char)m->v[mid]->text[k] : -1;
    if (d < c)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static const pf_added *longest(const pf_matcher *m, const char *s, size_t n) {
  const pf_added *best = NULL;
  size_t lo = 0, hi = m->n;
  for (size_t k = 0; lo < hi; k++) {
    if (m->v[lo]->n == k)
      best = m->v[lo];
    if (k == n)
      break;
    int c = (unsigned char)s[k];
    lo = bound(m, lo, hi, k, c);
    hi = bound(m, lo, hi, k, c + 1);
  }
  return best;
}

/* A character of a word, as \w: letters, marks, decimal digits, connectors and joiners. */
static bool is_word(uint32_t cp) {
  utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
  return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
         cp == 0x200c || cp == 0x200d;
}

static bool is_space(uint32_t cp) {
  return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
         (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
         cp == 0x205f || cp == 0x3000;
}

static uint32_t char_at(const char *s, size_t n, size_t i, size_t *len) {
  uint32_t cp = 0;
  *len = (size_t)pf_utf8_step(s + i, n - i, &cp);
  return cp;
}

static uint32_t char_before(const char *s, size_t i, size_t *len) {
  size_t from = i - 1;
  while (from > 0 && ((unsigned char)s[from] & 0xc0) == 0x80)
    from--;
  return char_at(s, i, from, len);
}

static bool inside_word(const char *s, size_t n, size_t lo, size_t hi) {
  size_t len;
  return (lo > 0 && is_word(char_before(s, lo, &len))) ||
         (hi < n && is_word(char_at(s, n, hi, &len)));
}

static void widen(pf_match *m, const char *s, size_t n, size_t from) {
  size_t len;
  while (m->token->lstrip && m->lo > from && is_space(char_before(s, m->lo, &len)))
    m->lo -= len;
  while (m->token->rstrip && m->hi < n && is_space(char_at(s, n, m->hi, &len)))
    m->hi += len;
}

bool pf_added_find(const pf_matcher *m, const char *s, size_t n, size_t from, const pf_job *j,
                   pf_is_plain_fn plain, pf_match *out) {
  if (m->n == 0)
    return false;
  for (size_t i = from; i < n;) {
    const pf_added *a = longest(m, s + i, n - i);
    if (!a) {
      i++;
      continue;
    }
    size_t hi = i + a->n;
    if (a->special && plain(j, i, hi)) {
      /* The reference goes on behind the match; a match that is plain in part only must not hide a
       * real one. */
      i = plain(j, hi - 1, hi) ? hi : i + 1;
    } else if (a->single_word && inside_word(s, n, i, hi)) {
      i = hi;
    } else {
      *out = (pf_match){a, i, hi};
      widen(out, s, n, from);
      return true;
    }
  }
  return false;
}
