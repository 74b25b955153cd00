/* SPDX-License-Identifier: Apache-2.0
 * Pieces by id and by text, merges by pair: open addressing with linear probing, at most three
 * quarters full.
 */
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/tok.h"

/* FNV-1a, 32 bits. */
uint32_t pf_vocab_hash(const char *s, size_t n) {
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < n; i++)
    h = (h ^ (unsigned char)s[i]) * 16777619u;
  return h;
}

/* FNV's low bits are weak for texts that differ in their last byte only. */
static size_t place(uint32_t h) {
  return (size_t)(h ^ h >> 15) * 0x9e3779b1u;
}

static int reserve_ids(pf_vocab *v, size_t n) {
  void *p = v->pieces;
  int rc = pf_grow(&p, &v->cap, n, sizeof *v->pieces);
  v->pieces = p;
  for (; rc == PF_OK && v->n_ids < n; v->n_ids++)
    v->pieces[v->n_ids].off = PF_NO_PIECE;
  return rc;
}

int pf_vocab_add(pf_vocab *v, int32_t id, const char *s, size_t n) {
  if (v->arena.n + n >= PF_NO_PIECE)
    return pf_fail(PF_EINPUT, "tokenizer: more than 4 GB of pieces");
  int rc = (size_t)id < v->n_ids ? PF_OK : reserve_ids(v, (size_t)id + 1);
  if (rc != PF_OK)
    return rc;
  v->pieces[id] = (struct pf_piece){(uint32_t)v->arena.n, (uint32_t)n};
  v->n_pieces++;
  pf_buf_add(&v->arena, s, n);
  return pf_buf_status(&v->arena);
}

const char *pf_vocab_text(const pf_vocab *v, int32_t id, size_t *n) {
  *n = 0;
  if (id < 0 || (size_t)id >= v->n_ids || v->pieces[id].off == PF_NO_PIECE)
    return NULL;
  *n = v->pieces[id].len;
  return v->arena.s + v->pieces[id].off;
}

/* The slot that holds the text, or the empty one where it would go. */
static struct pf_piece_slot *piece_slot(const pf_vocab *v, uint32_t h, const char *s, size_t n) {
  for (size_t i = place(h);; i++) {
    struct pf_piece_slot *p = &v->slots[i & v->mask];
    if (!p->id1 || (p->hash == h && p->at.len == n && !memcmp(v->arena.s + p->at.off, s, n)))
      return p;
  }
}

/* Small tables matter more than short probes: Gemma's merges take 16 MB, and every access misses
 * the cache. */
static size_t table_size(size_t n) {
  size_t size = 16;
  while (size / 4 * 3 < n)
    size *= 2;
  return size;
}

int pf_vocab_index(pf_vocab *v, const char *name) {
  size_t size = table_size(v->n_pieces);
  v->slots = pf_calloc(size, sizeof *v->slots);
  if (!v->slots)
    return PF_ENOMEM;
  v->mask = size - 1;
  for (size_t id = 0; id < v->n_ids; id++) {
    size_t n;
    const char *s = pf_vocab_text(v, (int32_t)id, &n);
    if (!s)
      continue;
    uint32_t h = pf_vocab_hash(s, n);
    struct pf_piece_slot *p = piece_slot(v, h, s, n);
    if (p->id1)
      return pf_fail(PF_EINPUT, "%s: model.vocab: piece '%.*s' has two ids, %u and %zu", name,
                     (int)(n < 64 ? n : 64), s, p->id1 - 1, id);
    *p = (struct pf_piece_slot){h, (uint32_t)id + 1, v->pieces[id]};
  }
  return PF_OK;
}

void pf_vocab_prefetch(const pf_vocab *v, uint32_t hash) {
  __builtin_prefetch(&v->slots[place(hash) & v->mask]);
}

int32_t pf_vocab_find_hashed(const pf_vocab *v, uint32_t hash, const char *s, size_t n) {
  return (int32_t)piece_slot(v, hash, s, n)->id1 - 1;
}

int32_t pf_vocab_find(const pf_vocab *v, const char *s, size_t n) {
  return pf_vocab_find_hashed(v, pf_vocab_hash(s, n), s, n);
}

void pf_vocab_free(pf_vocab *v) {
  pf_buf_free(&v->arena);
  pf_free(v->pieces);
  pf_free(v->slots);
  *v = (pf_vocab){0};
}

int pf_merges_reserve(pf_merges *m, size_t n) {
  size_t size = table_size(n);
  m->slots = pf_calloc(size, sizeof *m->slots);
  m->mask = size - 1;
  return m->slots ? PF_OK : PF_ENOMEM;
}

static size_t pair_place(uint64_t pair) {
  return (size_t)(pair * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static pf_merge *merge_slot(const pf_merges *m, uint64_t pair) {
  for (size_t i = pair_place(pair);; i++) {
    pf_merge *s = &m->slots[i & m->mask];
    if (!s->rank1 || s->pair == pair)
      return s;
  }
}

static uint64_t pair_of(int32_t left, int32_t right) {
  return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void pf_merges_prefetch(const pf_merges *m, int32_t left, int32_t right) {
  __builtin_prefetch(&m->slots[pair_place(pair_of(left, right)) & m->mask], 1);
}

void pf_merges_add(pf_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id) {
  uint64_t pair = pair_of(left, right);
  pf_merge *s = merge_slot(m, pair);
  m->n += !s->rank1;
  *s = (pf_merge){pair, rank + 1, id};
}

const pf_merge *pf_merges_find(const pf_merges *m, int32_t left, int32_t right) {
  const pf_merge *s = merge_slot(m, pair_of(left, right));
  return s->rank1 ? s : NULL;
}
