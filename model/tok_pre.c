/* SPDX-License-Identifier: Apache-2.0
 * Cuts normalised text into words: by the file's pattern (each match is a word, and so is what lies
 * between matches), or behind each occurrence of a text. Without a pre-tokeniser the whole text is
 * one word. */
#include "config.h"

#include <string.h>

#include "base/status.h"
#include "model/tok.h"

/* The next match of the pattern in a.s[lo, hi): 1 and *m, 0 when there is none, or an error. */
static int next_match(pf_job *j, size_t lo, size_t from, size_t hi, pf_span *m) {
  PCRE2_SPTR s = (PCRE2_SPTR)(j->a.s + lo);
  /* The text was checked; a word never looks behind lo, which is a character boundary. */
  int rc = pcre2_match(j->t->split, s, hi - lo, from - lo, PCRE2_NO_UTF_CHECK, j->match, NULL);
  if (rc == PCRE2_ERROR_NOMATCH)
    return 0;
  if (rc < 0)
    return pf_fail(PF_EINPUT,
                   "tokenizer: the pre_tokenizer's pattern gave up at byte %zu (PCRE2 error %d)",
                   (size_t)j->a.lo[from], rc);
  const PCRE2_SIZE *v = pcre2_get_ovector_pointer(j->match);
  *m = (pf_span){lo + v[0], lo + v[1]};
  return 1;
}

static int words_of_pattern(pf_job *j, size_t lo, size_t hi) {
  size_t done = lo, from = lo;
  int rc = PF_OK;
  while (from < hi) {
    pf_span m = {0};
    int found = next_match(j, lo, from, hi, &m);
    if (found < 0)
      return found;
    if (!found)
      break;
    if (m.hi <= m.lo) { /* an empty match (or \K) makes no word: step over one character */
      for (from = m.lo > from ? m.lo + 1 : from + 1;
           from < hi && ((unsigned char)j->a.s[from] & 0xc0) == 0x80; from++)
        ;
      continue;
    }
    if (m.lo > done)
      rc = pf_encode_word(j, done, m.lo);
    if (rc == PF_OK)
      rc = pf_encode_word(j, m.lo, m.hi);
    if (rc != PF_OK)
      return rc;
    done = from = m.hi;
  }
  return done < hi ? pf_encode_word(j, done, hi) : PF_OK;
}

static int words_after(pf_job *j, const char *text, size_t lo, size_t hi) {
  size_t n = strlen(text);
  int rc = PF_OK;
  while (rc == PF_OK && lo < hi) {
    const char *at = memmem(j->a.s + lo, hi - lo, text, n);
    size_t end = at ? (size_t)(at - j->a.s) + n : hi;
    rc = pf_encode_word(j, lo, end);
    lo = end;
  }
  return rc;
}

int pf_encode_words(pf_job *j, size_t lo, size_t hi) {
  if (lo == hi)
    return PF_OK;
  if (j->t->split)
    return words_of_pattern(j, lo, hi);
  if (j->t->split_after)
    return words_after(j, j->t->split_after, lo, hi);
  return pf_encode_word(j, lo, hi);
}
