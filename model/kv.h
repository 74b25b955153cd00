/* SPDX-License-Identifier: Apache-2.0
 * Sequences and their K,V: blocks of 32 positions of one layer, with reference counts, copied on
 * write. */
#ifndef PF_MODEL_KV_H
#define PF_MODEL_KV_H

#include "model/precision.h"

/* Rotated keys and values of n_kv_heads heads as the precision's kernels read them (pf_attn in
 * simd/simd.h), optionally un-rotated keys [n_kv_heads][32][d_head], which are fp32 in every
 * precision. Belongs to one thread, so the count is plain. */
typedef struct pf_kvblock {
  unsigned refs;
  void *k, *v;
  float *raw_k;            /* NULL unless the context keeps them; all in one allocation */
  struct pf_kvblock *next; /* of spare blocks */
} pf_kvblock;

struct pf_seq {
  pf_ctx *ctx;
  int32_t end;       /* one past the highest position it has */
  int32_t todo;      /* the lowest position that lacks layers below `stop`, `end` if none does */
  int32_t inherited; /* positions below it came with the fork */
  int32_t stop;      /* layers that its rows go through, counted from 0 */
  size_t n_blk, cap_blk;
  uint32_t *present; /* (n_blk) bit j: it has position 32*b + j, finished or not */
  int32_t *tokens;   /* (32*n_blk) token at each position, -1 in gaps */
  int32_t *depth;    /* (32*n_blk) layers, from 0, whose K,V of the position is there */
  pf_kvblock **blk;  /* [n_layers][cap_blk] */
  pf_tapset taps;
  pf_cut *cuts;
  size_t n_cuts;
  pf_swap *swaps;
  size_t n_swaps;
};

struct pf_ctx {
  const pf_model *model;
  const pf_simd *simd;
  int threads;
  bool keep_raw_k;
  float *inv_freq;     /* (d_head/2) */
  uint64_t row_layers; /* computed so far */
  struct pf_scratch *scratch;
  struct pf_profile *profile, *profiled; /* what it has; the same while it runs, else NULL */
  size_t kv_bytes, kv_peak;              /* of all blocks of its sequences */
  pf_kvblock *spare;                     /* blocks that were given back */
};

/* Bytes of one block of one layer. */
size_t pf_kv_block_bytes(const pf_ctx *c);
/* Makes room for position pos and owns the block it lies in from a layer on (copy on write). */
int pf_seq_reserve(pf_seq *s, int32_t pos, int32_t layer);
/* Takes up an unfinished or new position whose room is reserved; the row computes its K,V. */
void pf_seq_take(pf_seq *s, int32_t pos, int32_t token);
/* Undoes it; of several positions the highest first. layer: at which the row entered. */
void pf_seq_untake(pf_seq *s, int32_t pos, int32_t layer);
static inline pf_kvblock *pf_seq_block(const pf_seq *s, int32_t layer, size_t b) {
  return s->blk[(size_t)layer * s->cap_blk + b];
}
static inline bool pf_seq_has(const pf_seq *s, int32_t pos) {
  return pos >= 0 && pos < s->end && (s->present[pos / PF_KBLK] >> (pos % PF_KBLK) & 1u);
}
/* All layers of the position are there. */
static inline bool pf_seq_holds(const pf_seq *s, int32_t pos) {
  return pf_seq_has(s, pos) && s->depth[pos] == s->ctx->model->cfg.info.n_layers;
}

static inline const pf_attn_ops *pf_kv_ops(const pf_ctx *c) {
  return &pf_attns[pf_modes[c->model->cfg.info.precision].kv];
}
static inline size_t pf_ctx_dp(const pf_ctx *c) {
  return ((size_t)c->model->cfg.info.d_head + 15) / 16 * 16;
}
/* The inner dimension of packed K: d_head, rounded up to 32 in bf16. */
static inline size_t pf_kv_kp(const pf_ctx *c) {
  size_t d = (size_t)c->model->cfg.info.d_head;
  return pf_kv_ops(c)->size == sizeof(float) ? d : (d + PF_KBLK - 1) / PF_KBLK * PF_KBLK;
}
/* Bytes of one K head and of one V head of a block. */
static inline size_t pf_kv_k_head(const pf_ctx *c) {
  return pf_kv_kp(c) * PF_KBLK * pf_kv_ops(c)->size;
}
static inline size_t pf_kv_v_head(const pf_ctx *c) {
  return pf_ctx_dp(c) * PF_KBLK * pf_kv_ops(c)->size;
}
/* Where a head lies in a block. raw: its row of d_head at a slot. */
static inline void *pf_kv_k_at(const pf_ctx *c, const pf_kvblock *b, int32_t head) {
  return (char *)b->k + (size_t)head * pf_kv_k_head(c);
}
static inline void *pf_kv_v_at(const pf_ctx *c, const pf_kvblock *b, int32_t head) {
  return (char *)b->v + (size_t)head * pf_kv_v_head(c);
}
static inline float *pf_kv_raw_at(const pf_ctx *c, const pf_kvblock *b, int32_t head, int slot) {
  return b->raw_k + ((size_t)head * PF_KBLK + (size_t)slot) * (size_t)c->model->cfg.info.d_head;
}

/* kvlayout.c. Stores one position's rotated key, value and (if kept) un-rotated key of one K,V
 * head, rounded as the precision rounds them. */
void pf_kv_store(const pf_ctx *c, pf_kvblock *b, int32_t head, int slot, const float *rot_k,
                 const float *v, const float *raw_k);
/* Element e of the key in a slot of a K head. */
void pf_kv_put_key(const pf_ctx *c, void *k, int slot, size_t e, float x);
/* A key, a value from one slot to another of another head of the kind. */
void pf_kv_copy_key(const pf_ctx *c, void *k, int slot, const void *from, int old);
void pf_kv_copy_value(const pf_ctx *c, void *v, int slot, const void *from, int old);

#endif
