/* SPDX-License-Identifier: Apache-2.0
 * Sequences: K,V blocks with reference counts; forks share, writes copy. */
#include "model/kv.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"

/* Bytes of the K, V and un-rotated K of one position block in one layer. */
static size_t block_bytes(const pf_ctx *c) {
  size_t raw = c->keep_raw_k ? (size_t)c->model->cfg.info.d_head * PF_KBLK * sizeof(float) : 0;
  return (pf_kv_k_head(c) + pf_kv_v_head(c) + raw) * (size_t)c->model->cfg.info.n_kv_heads;
}

static pf_kvblock *block_new(const pf_ctx *c, const pf_kvblock *copy) {
  size_t n = block_bytes(c), hkv = (size_t)c->model->cfg.info.n_kv_heads;
  char *at = pf_alloc(1, 64 + n);
  pf_kvblock *b = (pf_kvblock *)(void *)at;
  if (!b)
    return NULL;
  *b = (pf_kvblock){.refs = 1, .k = at + 64};
  b->v = at + 64 + hkv * pf_kv_k_head(c);
  b->raw_k = c->keep_raw_k ? (float *)(void *)((char *)b->v + hkv * pf_kv_v_head(c)) : NULL;
  if (copy)
    memcpy(b->k, copy->k, n);
  else
    memset(b->k, 0, n);
  return b;
}

static void block_drop(pf_kvblock *b) {
  if (b && --b->refs == 0)
    pf_free(b);
}

size_t pf_ctx_bytes_per_position(const pf_ctx *c) {
  return block_bytes(c) * (size_t)c->model->cfg.info.n_layers / PF_KBLK;
}

int pf_seq_new(pf_seq **out, pf_ctx *c) {
  *out = pf_calloc(1, sizeof **out);
  if (!*out)
    return PF_ENOMEM;
  (*out)->ctx = c;
  return PF_OK;
}

void pf_seq_free(pf_seq *s) {
  if (!s)
    return;
  for (int32_t l = 0; l < s->ctx->model->cfg.info.n_layers; l++)
    for (size_t b = 0; b < s->n_blk; b++)
      block_drop(pf_seq_block(s, l, b));
  pf_tapset_free(&s->taps);
  pf_free(s->present);
  pf_free(s->tokens);
  pf_free(s->blk);
  pf_free(s->cuts);
  pf_free(s->swaps);
  pf_free(s);
}

int32_t pf_seq_end(const pf_seq *s) {
  return s->end;
}

static int grow_tables(pf_seq *s, size_t need) {
  size_t cap = s->cap_blk ? s->cap_blk : 4, layers = (size_t)s->ctx->model->cfg.info.n_layers;
  while (cap < need)
    cap *= 2;
  uint32_t *present = pf_calloc(cap, sizeof *present);
  int32_t *tokens = pf_alloc(cap * PF_KBLK, sizeof *tokens);
  pf_kvblock **blk = pf_calloc(cap * layers, sizeof(pf_kvblock *));
  if (!present || !tokens || !blk) {
    pf_free(present);
    pf_free(tokens);
    pf_free(blk);
    return PF_ENOMEM;
  }
  memset(tokens, -1, cap * PF_KBLK * sizeof *tokens);
  if (s->n_blk) {
    memcpy(present, s->present, s->n_blk * sizeof *present);
    memcpy(tokens, s->tokens, s->n_blk * PF_KBLK * sizeof *tokens);
    for (size_t l = 0; l < layers; l++)
      memcpy(blk + l * cap, s->blk + l * s->cap_blk, s->n_blk * sizeof *blk);
  }
  pf_free(s->present);
  pf_free(s->tokens);
  pf_free(s->blk);
  s->present = present;
  s->tokens = tokens;
  s->blk = blk;
  s->cap_blk = cap;
  return PF_OK;
}

int pf_seq_reserve(pf_seq *s, int32_t pos) {
  size_t b = (size_t)pos / PF_KBLK;
  if (b >= s->cap_blk) {
    int rc = grow_tables(s, b + 1);
    if (rc != PF_OK)
      return rc;
  }
  if (b >= s->n_blk)
    s->n_blk = b + 1;
  for (int32_t l = 0; l < s->ctx->model->cfg.info.n_layers; l++) {
    pf_kvblock **at = &s->blk[(size_t)l * s->cap_blk + b];
    if (*at && (*at)->refs == 1)
      continue;
    pf_kvblock *mine = block_new(s->ctx, *at);
    if (!mine)
      return PF_ENOMEM;
    block_drop(*at);
    *at = mine;
  }
  return PF_OK;
}

int pf_seq_fork(pf_seq **out, const pf_seq *src, int32_t n_keep) {
  *out = NULL;
  if (n_keep < 0 || n_keep > src->end)
    return pf_fail(PF_EUSAGE, "a fork cannot keep %d positions of a sequence that has %d", n_keep,
                   src->end);
  pf_seq *s;
  int rc = pf_seq_new(&s, src->ctx);
  size_t n = ((size_t)n_keep + PF_KBLK - 1) / PF_KBLK;
  if (rc == PF_OK && n)
    rc = grow_tables(s, n);
  if (rc != PF_OK) {
    pf_seq_free(s);
    return rc;
  }
  s->n_blk = n;
  for (int32_t l = 0; l < src->ctx->model->cfg.info.n_layers; l++)
    for (size_t b = 0; b < n; b++) {
      pf_kvblock *shared = pf_seq_block(src, l, b);
      if (shared)
        shared->refs++;
      s->blk[(size_t)l * s->cap_blk + b] = shared;
    }
  for (int32_t p = 0; p < n_keep; p++)
    if (pf_seq_holds(src, p)) {
      s->present[p / PF_KBLK] |= 1u << (p % PF_KBLK);
      s->tokens[p] = src->tokens[p];
      s->end = p + 1;
    }
  *out = s;
  return PF_OK;
}

int pf_seq_set_taps(pf_seq *s, pf_tap *taps, size_t n) {
  return pf_tapset_make(&s->taps, s->ctx->model, taps, n);
}

static int check_span(const pf_seq *s, const char *what, size_t i, int32_t layer_lo,
                      int32_t layer_hi, int32_t head, int32_t heads) {
  int32_t layers = s->ctx->model->cfg.info.n_layers;
  if (layer_lo < 0 || layer_hi > layers || layer_lo >= layer_hi)
    return pf_fail(PF_EUSAGE, "%s %zu: layers [%d, %d) are not in [0, %d)", what, i, layer_lo,
                   layer_hi, layers);
  if (head < -1 || head >= heads)
    return pf_fail(PF_EUSAGE, "%s %zu: head %d does not exist (%d heads)", what, i, head, heads);
  return PF_OK;
}

static int keep_copy(void **to, size_t *n_to, const void *from, size_t n, size_t size) {
  void *copy = n ? pf_alloc(n, size) : NULL;
  if (n && !copy)
    return PF_ENOMEM;
  if (n)
    memcpy(copy, from, n * size);
  pf_free(*to);
  *to = copy;
  *n_to = n;
  return PF_OK;
}

int pf_seq_set_cuts(pf_seq *s, const pf_cut *cuts, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const pf_cut *c = &cuts[i];
    int rc =
        check_span(s, "cut", i, c->layer_lo, c->layer_hi, c->head, s->ctx->model->cfg.info.n_heads);
    if (rc == PF_OK && (c->q_lo < 0 || c->k_lo < 0 || c->q_hi < c->q_lo || c->k_hi < c->k_lo))
      rc = pf_fail(PF_EUSAGE, "cut %zu: negative or reversed positions", i);
    if (rc != PF_OK)
      return rc;
  }
  void *p = s->cuts;
  int rc = keep_copy(&p, &s->n_cuts, cuts, n, sizeof *cuts);
  s->cuts = p;
  return rc;
}

static int check_swap(const pf_seq *s, const pf_swap *w, size_t i) {
  int rc = check_span(s, "swap", i, w->layer_lo, w->layer_hi, w->head,
                      s->ctx->model->cfg.info.n_kv_heads);
  if (rc != PF_OK)
    return rc;
  if (!w->src || w->src->ctx->model != s->ctx->model)
    return pf_fail(PF_EUSAGE, "swap %zu: the source is not a sequence of this model", i);
  if (w->pos_lo < 0 || w->pos_hi <= w->pos_lo || w->src_lo < 0 ||
      !(w->what & (PF_SWAP_K | PF_SWAP_V)))
    return pf_fail(PF_EUSAGE, "swap %zu: empty or negative positions, or neither K nor V", i);
  for (int32_t p = 0; p < w->pos_hi - w->pos_lo; p++)
    if (!pf_seq_holds(w->src, w->src_lo + p))
      return pf_fail(PF_EUSAGE, "swap %zu: the source does not hold position %d", i, w->src_lo + p);
  if ((w->what & PF_SWAP_K) && w->src_lo != w->pos_lo && !w->src->ctx->keep_raw_k)
    return pf_fail(PF_EUSAGE, "swap %zu: moving keys needs a context that keeps un-rotated keys",
                   i);
  return PF_OK;
}

int pf_seq_set_swaps(pf_seq *s, const pf_swap *swaps, size_t n) {
  for (size_t i = 0; i < n; i++) {
    int rc = check_swap(s, &swaps[i], i);
    if (rc != PF_OK)
      return rc;
  }
  void *p = s->swaps;
  int rc = keep_copy(&p, &s->n_swaps, swaps, n, sizeof *swaps);
  s->swaps = p;
  return rc;
}
