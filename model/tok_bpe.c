/* SPDX-License-Identifier: Apache-2.0
 * Byte-pair encoding of one word: of all neighbouring pairs that can merge, the one of lowest rank
 * merges first, the leftmost of equals (R. Sennrich, B. Haddow, A. Birch, "Neural machine
 * translation of rare words with subword units", 2016). Candidates wait in a binary heap, so a word
 * of n symbols costs O(n log n): Gemma's whole text is one word. */
#include "base/mem.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

#define NONE UINT32_MAX

/* ---- heap of rank << 32 | position
 * ------------------------------------------------------------------------------ */

static int heap_push(pf_job *j, uint64_t key) {
  void *p = j->heap;
  int rc = pf_grow(&p, &j->heap_cap, j->n_heap + 1, sizeof *j->heap);
  j->heap = p;
  if (rc != PF_OK)
    return rc;
  uint64_t *h = j->heap;
  size_t i = j->n_heap++;
  for (; i > 0 && h[(i - 1) / 2] > key; i = (i - 1) / 2)
    h[i] = h[(i - 1) / 2];
  h[i] = key;
  return PF_OK;
}

static uint64_t heap_pop(pf_job *j) {
  uint64_t *h = j->heap, top = h[0], key = h[--j->n_heap];
  size_t n = j->n_heap, i = 0;
  for (size_t c = 1; c < n; c = 2 * i + 1) {
    c += c + 1 < n && h[c + 1] < h[c];
    if (h[c] >= key)
      break;
    h[i] = h[c];
    i = c;
  }
  h[i] = key;
  return top;
}

/* ---- symbols
 * ----------------------------------------------------------------------------------------------------
 */

static int add_symbol(pf_job *j, int32_t id, size_t start, size_t n) {
  void *p = j->syms;
  int rc = pf_grow(&p, &j->syms_cap, j->n_syms + 1, sizeof *j->syms);
  j->syms = p;
  if (rc != PF_OK)
    return rc;
  uint32_t i = (uint32_t)j->n_syms++;
  j->syms[i] =
      (pf_sym){.id = id, .start = (uint32_t)start, .n = (uint32_t)n, .prev = i - 1, .next = i + 1};
  return PF_OK;
}

/* A character without a piece: its bytes, else the unknown token, which takes in an unknown one
 * just before it. */
static int add_unknown(pf_job *j, size_t at, size_t n) {
  const pf_tok *t = j->t;
  bool bytes = t->byte_fallback;
  for (size_t i = 0; i < n; i++)
    bytes = bytes && t->byte_id[(unsigned char)j->a.s[at + i]] >= 0;
  int rc = PF_OK;
  for (size_t i = 0; bytes && i < n && rc == PF_OK; i++)
    rc = add_symbol(j, t->byte_id[(unsigned char)j->a.s[at + i]], at + i, 1);
  if (bytes)
    return rc;
  if (t->unk < 0)
    return pf_fail(
        PF_EINPUT,
        "tokenizer: no piece for the character at byte %u of the text, and no unknown token",
        j->a.lo[at]);
  pf_sym *last = j->n_syms ? &j->syms[j->n_syms - 1] : NULL;
  if (t->fuse_unk && last && last->id == t->unk) {
    last->n += (uint32_t)n;
    return PF_OK;
  }
  return add_symbol(j, t->unk, at, n);
}

static int split_bytes(pf_job *j, size_t lo, size_t hi) {
  for (size_t i = lo; i < hi; i++) {
    int32_t id = j->t->byte_id[(unsigned char)j->a.s[i]];
    int rc = id >= 0 ? add_symbol(j, id, i, 1) : add_unknown(j, i, 1);
    if (rc != PF_OK)
      return rc;
  }
  return PF_OK;
}

static int split_chars(pf_job *j, size_t lo, size_t hi) {
  for (size_t i = lo, n; i < hi; i += n) {
    n = pf_utf8_len(j->a.s + i);
    int32_t id = pf_vocab_find(&j->t->vocab, j->a.s + i, n);
    int rc = id >= 0 ? add_symbol(j, id, i, n) : add_unknown(j, i, n);
    if (rc != PF_OK)
      return rc;
  }
  return PF_OK;
}

/* ---- merging
 * ----------------------------------------------------------------------------------------------------
 */

/* Looks up the pair of i and its right neighbour and queues it. */
static int consider(pf_job *j, uint32_t i) {
  pf_sym *s = &j->syms[i];
  const pf_merge *m =
      s->next == NONE ? NULL : pf_merges_find(&j->t->merges, s->id, j->syms[s->next].id);
  s->rank1 = m ? m->rank1 : 0;
  if (!m)
    return PF_OK;
  s->merged = m->id;
  return heap_push(j, (uint64_t)m->rank1 << 32 | i);
}

static int merge_at(pf_job *j, uint32_t i) {
  pf_sym *a = &j->syms[i], *b = &j->syms[a->next];
  a->id = a->merged;
  a->n += b->n;
  a->next = b->next;
  b->n = 0;
  b->rank1 = 0;
  if (a->next != NONE)
    j->syms[a->next].prev = i;
  int rc = consider(j, i);
  return rc == PF_OK && a->prev != NONE ? consider(j, a->prev) : rc;
}

/* A queued pair is stale when its left symbol is gone or has another neighbour by now: then its
 * rank is another. */
static int merge_all(pf_job *j) {
  int rc = PF_OK;
  j->n_heap = 0;
  if (j->n_syms == 0)
    return PF_OK;
  j->syms[0].prev = NONE;
  j->syms[j->n_syms - 1].next = NONE;
  for (uint32_t i = 0; rc == PF_OK && i < j->n_syms; i++)
    rc = consider(j, i);
  while (rc == PF_OK && j->n_heap > 0) {
    uint64_t key = heap_pop(j);
    uint32_t i = (uint32_t)key;
    if (j->syms[i].rank1 == key >> 32)
      rc = merge_at(j, i);
  }
  return rc;
}

/* With ignore_merges a word that is a piece is that piece, whatever the merges say; never a control
 * token. */
static int whole_word(pf_job *j, size_t lo, size_t hi, int32_t *id) {
  const char *s = j->a.s + lo;
  size_t n = hi - lo;
  if (j->t->byte_level) {
    j->word.n = 0;
    for (size_t i = 0; i < n; i++) {
      char c[4];
      pf_buf_add(&j->word, c, pf_utf8_put(c, pf_alphabet_char((unsigned char)s[i])));
    }
    s = j->word.s;
    n = j->word.n;
    if (pf_buf_status(&j->word) != PF_OK)
      return PF_ENOMEM;
  }
  *id = pf_vocab_find(&j->t->vocab, s, n);
  if (pf_tok_is_special(j->t, *id))
    *id = -1;
  return PF_OK;
}

static int push_symbols(pf_job *j) {
  int rc = PF_OK;
  for (size_t i = 0; rc == PF_OK && i < j->n_syms; i++) {
    const pf_sym *s = &j->syms[i];
    if (s->n)
      rc = pf_encoding_push(j->out, s->id, j->a.lo[s->start], j->a.hi[s->start + s->n - 1]);
  }
  return rc;
}

int pf_encode_word(pf_job *j, size_t lo, size_t hi) {
  int32_t whole = -1;
  int rc = j->t->ignore_merges ? whole_word(j, lo, hi, &whole) : PF_OK;
  if (rc == PF_OK && whole >= 0)
    return pf_encoding_push(j->out, whole, j->a.lo[lo], j->a.hi[hi - 1]);
  j->n_syms = 0;
  if (rc == PF_OK)
    rc = j->t->byte_level ? split_bytes(j, lo, hi) : split_chars(j, lo, hi);
  if (rc == PF_OK)
    rc = merge_all(j);
  return rc == PF_OK ? push_symbols(j) : rc;
}
