/* SPDX-License-Identifier: Apache-2.0
 * The token tree: sorted prompts, and the intervals of prompts whose neighbours agree in at least
 * so many tokens, nested, found in one pass with a stack. */
#include "model/prefix.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "personaflow/types.h"

/* Prompts [lo, hi] of the sorted list agree in len tokens. */
typedef struct interval {
  size_t len, lo, hi;
  int64_t parent; /* the interval around it; -1: none */
} interval;

typedef struct builder {
  const pf_prompt_ids *p;
  size_t n;
  interval *v; /* (at most 2n) in order of opening */
  size_t n_v;
  size_t *stack, depth;
  size_t *closed, n_closed; /* inner ones first */
} builder;

static int by_ids(const void *a, const void *b) {
  const pf_prompt_ids *x = a, *y = b;
  size_t n = x->n < y->n ? x->n : y->n;
  for (size_t i = 0; i < n; i++)
    if (x->ids[i] != y->ids[i])
      return x->ids[i] < y->ids[i] ? -1 : 1;
  if (x->n != y->n)
    return x->n < y->n ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* Tokens that two prompts share, leaving each at least one. */
static size_t common(const pf_prompt_ids *x, const pf_prompt_ids *y) {
  size_t n = (x->n < y->n ? x->n : y->n), i = 0;
  while (i + 1 < n && x->ids[i] == y->ids[i])
    i++;
  return i;
}

static size_t top_len(const builder *b) {
  return b->depth ? b->v[b->stack[b->depth - 1]].len : 0;
}

static int64_t top_id(const builder *b) {
  return b->depth ? (int64_t)b->stack[b->depth - 1] : -1;
}

static void open_interval(builder *b, size_t len, size_t lo) {
  b->v[b->n_v] = (interval){.len = len, .lo = lo, .parent = -1};
  b->stack[b->depth++] = b->n_v++;
}

/* Prompt hi is the last of the innermost interval; it and the next one agree in `len` tokens. */
static void close_interval(builder *b, size_t hi, size_t len) {
  size_t id = b->stack[--b->depth];
  interval *i = &b->v[id];
  if (len > top_len(b))
    open_interval(b, len, i->lo);
  i->parent = top_id(b);
  i->hi = hi;
  b->closed[b->n_closed++] = id;
}

/* of[k]: the innermost interval of prompt k. */
static void find(builder *b, int64_t *of) {
  for (size_t k = 0; k < b->n; k++) {
    size_t len = k + 1 < b->n ? common(&b->p[k], &b->p[k + 1]) : 0;
    if (len > top_len(b))
      open_interval(b, len, k);
    of[k] = top_id(b);
    while (len < top_len(b))
      close_interval(b, k, len);
  }
}

/* Keeps the intervals that are worth it; new numbers (0: none), outer ones first, stand in `stack`.
 */
static void number(builder *b, pf_prefix_tree *t, size_t worth, size_t step) {
  size_t *to = b->stack;
  for (size_t k = b->n_closed; k-- > 0;) {
    const interval *i = &b->v[b->closed[k]];
    size_t up = i->parent >= 0 ? to[i->parent] : 0, more = i->len - (up ? t->v[up - 1].n : 0);
    if (more >= step && (i->hi - i->lo) * more >= worth) {
      t->v[t->n_v++] = (pf_prefix){b->p[i->lo].ids, i->len, (int64_t)up - 1};
      up = t->n_v;
    }
    to[b->closed[k]] = up;
  }
  for (size_t k = 0; k < b->n; k++)
    t->of[k] = t->of[k] >= 0 ? (int64_t)to[t->of[k]] - 1 : -1;
}

int pf_prefix_tree_make(pf_prefix_tree *t, pf_prompt_ids *prompts, size_t n, size_t worth,
                        size_t step) {
  builder b = {.p = prompts, .n = n};
  qsort(prompts, n, sizeof *prompts, by_ids);
  b.v = pf_alloc(2 * n, sizeof *b.v);
  b.stack = pf_alloc(2 * n, sizeof *b.stack);
  b.closed = pf_alloc(2 * n, sizeof *b.closed);
  *t = (pf_prefix_tree){.v = pf_alloc(2 * n, sizeof *t->v), .of = pf_alloc(n, sizeof *t->of)};
  bool fine = b.v && b.stack && b.closed && t->v && t->of;
  if (fine) {
    find(&b, t->of);
    number(&b, t, worth, step);
  }
  pf_free(b.v);
  pf_free(b.stack);
  pf_free(b.closed);
  return fine ? PF_OK : PF_ENOMEM;
}

void pf_prefix_tree_free(pf_prefix_tree *t) {
  pf_free(t->v);
  pf_free(t->of);
  *t = (pf_prefix_tree){0};
}
