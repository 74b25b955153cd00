/* SPDX-License-Identifier: Apache-2.0
 * Sequences: K,V blocks with reference counts; forks share, writes copy. */
#include "model/kv.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"

/* Of a block, before its keys; keeps them on a line of the cache. */
enum { HEADER = 64 };
_Static_assert(sizeof(pf_kvblock) <= HEADER, "");

/* Bytes of the K, V and un-rotated K of one position block in one layer. */
static size_t block_bytes(const pf_ctx *c) {
  size_t raw = c->keep_raw_k ? (size_t)c->model->cfg.info.d_head * PF_KBLK * sizeof(float) : 0;
  return (pf_kv_k_head(c) + pf_kv_v_head(c) + raw) * (size_t)c->model->cfg.info.n_kv_heads;
}

size_t pf_kv_block_bytes(const pf_ctx *c) {
  return pf_round_up(HEADER + block_bytes(c), 64);
}

/* Blocks that were given back are used again: fresh memory costs more than filling it. */
static pf_kvblock *block_memory(pf_ctx *c) {
  pf_kvblock *b = c->spare;
  if (!b)
    return pf_alloc(1, pf_kv_block_bytes(c));
  c->spare = b->next;
  return b;
}

void pf_ctx_trim(pf_ctx *c) {
  while (c->spare)
    pf_free(block_memory(c));
}

static pf_kvblock *block_new(pf_ctx *c, const pf_kvblock *copy) {
  size_t n = block_bytes(c), hkv = (size_t)c->model->cfg.info.n_kv_heads;
  pf_kvblock *b = block_memory(c);
  char *at = (char *)b;
  if (!b)
    return NULL;
  c->kv_bytes += pf_kv_block_bytes(c);
  c->kv_peak = c->kv_bytes > c->kv_peak ? c->kv_bytes : c->kv_peak;
  *b = (pf_kvblock){.refs = 1, .k = at + HEADER};
  b->v = at + HEADER + hkv * pf_kv_k_head(c);
  b->raw_k = c->keep_raw_k ? (float *)(void *)((char *)b->v + hkv * pf_kv_v_head(c)) : NULL;
  if (copy)
    memcpy(b->k, copy->k, n);
  else
    memset(b->k, 0, n);
  return b;
}

static void block_drop(pf_ctx *c, pf_kvblock *b) {
  if (!b || --b->refs > 0)
    return;
  c->kv_bytes -= pf_kv_block_bytes(c);
  b->next = c->spare;
  c->spare = b;
}

size_t pf_ctx_kv_bytes(const pf_ctx *c, size_t *peak) {
  if (peak)
    *peak = c->kv_peak;
  return c->kv_bytes;
}

void pf_ctx_kv_reset_peak(pf_ctx *c) {
  c->kv_peak = c->kv_bytes;
}

size_t pf_ctx_bytes_per_position(const pf_ctx *c) {
  return block_bytes(c) * (size_t)c->model->cfg.info.n_layers / PF_KBLK;
}

size_t pf_ctx_block_bytes(const pf_ctx *c) {
  return pf_kv_block_bytes(c) * (size_t)c->model->cfg.info.n_layers;
}

int pf_seq_new(pf_seq **out, pf_ctx *c) {
  *out = pf_calloc(1, sizeof **out);
  if (!*out)
    return PF_ENOMEM;
  (*out)->ctx = c;
  (*out)->stop = c->model->cfg.info.n_layers;
  return PF_OK;
}

void pf_seq_free(pf_seq *s) {
  if (!s)
    return;
  for (int32_t l = 0; l < s->ctx->model->cfg.info.n_layers; l++)
    for (size_t b = 0; b < s->n_blk; b++)
      block_drop(s->ctx, pf_seq_block(s, l, b));
  pf_tapset_free(&s->taps);
  pf_free(s->present);
  pf_free(s->tokens);
  pf_free(s->depth);
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
  int32_t *depth = pf_calloc(cap * PF_KBLK, sizeof *depth);
  pf_kvblock **blk = pf_calloc(cap * layers, sizeof(pf_kvblock *));
  if (!present || !tokens || !depth || !blk) {
    pf_free(present);
    pf_free(tokens);
    pf_free(depth);
    pf_free(blk);
    return PF_ENOMEM;
  }
  memset(tokens, -1, cap * PF_KBLK * sizeof *tokens);
  if (s->n_blk) {
    memcpy(present, s->present, s->n_blk * sizeof *present);
    memcpy(tokens, s->tokens, s->n_blk * PF_KBLK * sizeof *tokens);
    memcpy(depth, s->depth, s->n_blk * PF_KBLK * sizeof *depth);
    for (size_t l = 0; l < layers; l++)
      memcpy(blk + l * cap, s->blk + l * s->cap_blk, s->n_blk * sizeof *blk);
  }
  pf_free(s->present);
  pf_free(s->tokens);
  pf_free(s->depth);
  pf_free(s->blk);
  s->present = present;
  s->tokens = tokens;
  s->depth = depth;
  s->blk = blk;
  s->cap_blk = cap;
  return PF_OK;
}

int pf_seq_reserve(pf_seq *s, int32_t pos, int32_t layer) {
  size_t b = (size_t)pos / PF_KBLK;
  if (b >= s->cap_blk) {
    int rc = grow_tables(s, b + 1);
    if (rc != PF_OK)
      return rc;
  }
  if (b >= s->n_blk)
    s->n_blk = b + 1;
  for (int32_t l = layer; l < s->stop; l++) {
    pf_kvblock **at = &s->blk[(size_t)l * s->cap_blk + b];
    if (*at && (*at)->refs == 1)
      continue;
    pf_kvblock *mine = block_new(s->ctx, *at);
    if (!mine)
      return PF_ENOMEM;
    block_drop(s->ctx, *at);
    *at = mine;
  }
  return PF_OK;
}

static void find_todo(pf_seq *s) {
  while (s->todo < s->end && (!pf_seq_has(s, s->todo) || s->depth[s->todo] >= s->stop))
    s->todo++;
}

void pf_seq_take(pf_seq *s, int32_t pos, int32_t token) {
  s->present[pos / PF_KBLK] |= 1u << (pos % PF_KBLK);
  s->tokens[pos] = token;
  s->depth[pos] = s->stop;
  if (pos >= s->end)
    s->end = pos + 1;
  find_todo(s);
}

void pf_seq_untake(pf_seq *s, int32_t pos, int32_t layer) {
  s->depth[pos] = layer;
  if (pos < s->inherited || layer > 0) {
    s->todo = pos;
    return;
  }
  s->present[pos / PF_KBLK] &= ~(1u << (pos % PF_KBLK));
  s->tokens[pos] = -1;
  while (s->end > 0 && !pf_seq_has(s, s->end - 1))
    s->end--;
  s->todo = s->end;
}

/* Shares the blocks b of the layers below `deep`. */
static void share_blocks(pf_seq *s, const pf_seq *src, size_t b, int32_t deep) {
  for (int32_t l = 0; l < deep; l++) {
    pf_kvblock *shared = pf_seq_block(src, l, b);
    if (shared)
      shared->refs++;
    s->blk[(size_t)l * s->cap_blk + b] = shared;
  }
}

/* layers NULL: all. */
static void share(pf_seq *s, const pf_seq *src, int32_t n, const int32_t *layers) {
  for (int32_t lo = 0; lo < n; lo += PF_KBLK) {
    int32_t hi = n - lo < PF_KBLK ? n : lo + PF_KBLK, deep = 0;
    for (int32_t p = lo; p < hi; p++) {
      if (!pf_seq_has(src, p))
        continue;
      int32_t d = layers && layers[p] < src->depth[p] ? layers[p] : src->depth[p];
      s->present[p / PF_KBLK] |= 1u << (p % PF_KBLK);
      s->tokens[p] = src->tokens[p];
      s->depth[p] = d;
      s->end = p + 1;
      deep = d > deep ? d : deep;
    }
    share_blocks(s, src, (size_t)lo / PF_KBLK, deep);
  }
  s->inherited = s->end;
  find_todo(s);
}

int pf_seq_fork_layers(pf_seq **out, const pf_seq *src, int32_t n, const int32_t *layers) {
  *out = NULL;
  if (n < 0 || n > src->end)
    return pf_fail(PF_EUSAGE, "a fork cannot keep %d positions of a sequence that has %d", n,
                   src->end);
  for (int32_t p = 0; layers && p < n; p++)
    if (layers[p] < 0 || layers[p] > src->ctx->model->cfg.info.n_layers)
      return pf_fail(PF_EUSAGE, "a fork cannot share %d layers of position %d: the model has %d",
                     layers[p], p, src->ctx->model->cfg.info.n_layers);
  pf_seq *s;
  int rc = pf_seq_new(&s, src->ctx);
  size_t blocks = ((size_t)n + PF_KBLK - 1) / PF_KBLK;
  if (rc == PF_OK && blocks)
    rc = grow_tables(s, blocks);
  if (rc != PF_OK) {
    pf_seq_free(s);
    return rc;
  }
  s->n_blk = blocks;
  s->stop = src->stop;
  share(s, src, n, layers);
  *out = s;
  return PF_OK;
}

int pf_seq_fork(pf_seq **out, const pf_seq *src, int32_t n_keep) {
  return pf_seq_fork_layers(out, src, n_keep, NULL);
}

int pf_seq_set_stop(pf_seq *s, int32_t layer) {
  int32_t layers = s->ctx->model->cfg.info.n_layers;
  if (layer < 1 || layer > layers)
    return pf_fail(PF_EUSAGE,
                   "a sequence cannot stop before layer %d: the model has layers 0 to %d", layer,
                   layers - 1);
  s->stop = layer;
  s->todo = 0;
  find_todo(s);
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
  if (w->q_hi != 0 && w->q_hi < w->q_lo)
    return pf_fail(PF_EUSAGE, "swap %zu: reversed queries [%d, %d)", i, w->q_lo, w->q_hi);
  if (w->pos_lo < 0 || w->pos_hi <= w->pos_lo || w->src_lo < 0 || w->q_lo < 0 || w->q_hi < 0 ||
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
