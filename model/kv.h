/* SPDX-License-Identifier: Apache-2.0
 * Sequences and their K,V: blocks of 32 positions of one layer, with reference counts, copied on
 * write. */
#ifndef PF_MODEL_KV_H
#define PF_MODEL_KV_H

#include "model/internal.h"
#include "model/tap.h"

/* Rotated keys [n_kv_heads][2][d_head][16] (lane = position), values [n_kv_heads][dp/16][32][16],
 * optionally un-rotated keys [n_kv_heads][32][d_head]. Belongs to one thread, so the count is
 * plain. */
typedef struct pf_kvblock {
  unsigned refs;
  float *k, *v, *raw_k; /* raw_k NULL unless the context keeps them; all in one allocation */
} pf_kvblock;

struct pf_seq {
  pf_ctx *ctx;
  int32_t end;       /* one past the highest position it has */
  int32_t todo;      /* the lowest unfinished position, `end` if none is */
  int32_t inherited; /* positions below it came with the fork */
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
  size_t kv_bytes, kv_peak; /* of all blocks of its sequences */
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

static inline size_t pf_ctx_dp(const pf_ctx *c) {
  return ((size_t)c->model->cfg.info.d_head + 15) / 16 * 16;
}
/* Floats of one K head, one V head, one raw-K head of a block. */
static inline size_t pf_kv_k_head(const pf_ctx *c) {
  return (size_t)c->model->cfg.info.d_head * PF_KBLK;
}
static inline size_t pf_kv_v_head(const pf_ctx *c) {
  return pf_ctx_dp(c) * PF_KBLK;
}

/* Stores one position's rotated key, value and (if kept) un-rotated key of one K,V head. */
void pf_kv_store(const pf_ctx *c, pf_kvblock *b, int32_t head, int slot, const float *rot_k,
                 const float *v, const float *raw_k);

#endif
