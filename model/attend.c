/* SPDX-License-Identifier: Apache-2.0
 * Attention of one row and head over its own branch: scores over key positions from 0 in blocks of
 * 32, soft-cap, mask, softmax, P.V (simd/CONTRACT.md). A key that cannot be seen (gap, future,
 * window, cut) is masked: it adds +0 and its value is read as +0; a block without visible keys is
 * skipped. */
#include <string.h>

#include "base/dmath.h"
#include "base/par.h"
#include "model/step.h"

/* Bits of block b for positions in [lo, hi). */
static uint32_t bits_in(size_t b, int64_t lo, int64_t hi) {
  int64_t base = (int64_t)b * PF_KBLK;
  lo = lo > base ? lo - base : 0;
  hi = hi - base < PF_KBLK ? hi - base : PF_KBLK;
  if (hi <= lo)
    return 0;
  uint32_t below_hi = hi >= PF_KBLK ? ~0u : (1u << hi) - 1u;
  return below_hi & ~((1u << lo) - 1u);
}

typedef struct item {
  const pf_step *t;
  const pf_seq *seq;
  pf_lane *lane;
  int32_t pos, head, kv_head;
  size_t r, n_blk;
} item;

static void own_blocks(const item *i) {
  const pf_ctx *c = i->t->c;
  for (size_t b = 0; b < i->n_blk; b++) {
    const pf_kvblock *blk = b < i->seq->n_blk ? pf_seq_block(i->seq, i->t->layer, b) : NULL;
    i->lane->k[b] = blk ? blk->k + (size_t)i->kv_head * pf_kv_k_head(c) : NULL;
    i->lane->v[b] = blk ? blk->v + (size_t)i->kv_head * pf_kv_v_head(c) : NULL;
    i->lane->mask[b] = b < i->seq->n_blk ? i->seq->present[b] : 0;
  }
}

/* The lane's private copy of a head's K and V of block b, so that single keys can be exchanged. */
static void own_copy(const item *i, size_t b, float **k, float **v) {
  const pf_ctx *c = i->t->c;
  size_t nk = pf_kv_k_head(c), nv = pf_kv_v_head(c);
  *k = i->lane->swapped + b * (nk + nv);
  *v = *k + nk;
  if (i->lane->k[b] == *k)
    return;
  if (i->lane->k[b]) {
    memcpy(*k, i->lane->k[b], nk * sizeof **k);
    memcpy(*v, i->lane->v[b], nv * sizeof **v);
  } else {
    memset(*k, 0, (nk + nv) * sizeof **k);
  }
  i->lane->k[b] = *k;
  i->lane->v[b] = *v;
}

/* Key of the source at its own position, or its un-rotated key rotated to `pos` and rounded as keys
 * are. */
static void swap_key(const item *i, const pf_swap *w, int32_t from, int32_t pos, float *k) {
  const pf_ctx *c = i->t->c;
  size_t d = (size_t)i->t->cfg->info.d_head, slot = (size_t)(pos % PF_KBLK),
         old = (size_t)(from % PF_KBLK);
  const pf_kvblock *blk = pf_seq_block(w->src, i->t->layer, (size_t)from / PF_KBLK);
  float *to = k + slot / PF_LANES * d * PF_LANES + slot % PF_LANES;
  if (from == pos) {
    const float *src = blk->k + (size_t)i->kv_head * pf_kv_k_head(c) +
                       old / PF_LANES * d * PF_LANES + old % PF_LANES;
    for (size_t e = 0; e < d; e++)
      to[e * PF_LANES] = src[e * PF_LANES];
    return;
  }
  const float *raw = blk->raw_k + (size_t)i->kv_head * pf_kv_k_head(c) + old * d;
  for (size_t e = 0; e < d / 2; e++) {
    float cs, sn, x[2] = {raw[e], raw[e + d / 2]}, y[2];
    pf_rope_angle(pos, c->inv_freq[e], &cs, &sn);
    i->t->f->rope(2, x, &cs, &sn, y);
    pf_step_round(i->t, PF_HOOK_ROT_K, 2, y);
    to[e * PF_LANES] = y[0];
    to[(e + d / 2) * PF_LANES] = y[1];
  }
}

static void swap_span(const item *i, const pf_swap *w) {
  size_t dp = pf_ctx_dp(i->t->c), d = (size_t)i->t->cfg->info.d_head;
  for (int32_t pos = w->pos_lo; pos < w->pos_hi; pos++) {
    size_t b = (size_t)pos / PF_KBLK, slot = (size_t)(pos % PF_KBLK);
    int32_t from = w->src_lo + pos - w->pos_lo;
    float *k, *v;
    own_copy(i, b, &k, &v);
    if (w->what & PF_SWAP_K)
      swap_key(i, w, from, pos, k);
    if (w->what & PF_SWAP_V) {
      const pf_kvblock *blk = pf_seq_block(w->src, i->t->layer, (size_t)from / PF_KBLK);
      const float *src =
          blk->v + (size_t)i->kv_head * pf_kv_v_head(i->t->c) + (size_t)(from % PF_KBLK) * dp;
      memcpy(v + slot * dp, src, d * sizeof *v);
    }
    if (w->what == (PF_SWAP_K | PF_SWAP_V))
      i->lane->mask[b] |= 1u << slot;
  }
}

static void apply_swaps(const item *i) {
  for (size_t n = 0; n < i->seq->n_swaps; n++) {
    const pf_swap *w = &i->seq->swaps[n];
    if (i->t->layer >= w->layer_lo && i->t->layer < w->layer_hi && i->pos >= w->pos_hi &&
        (w->head < 0 || w->head == i->kv_head))
      swap_span(i, w);
  }
}

static void restrict_mask(const item *i) {
  int32_t window = i->t->cfg->windowed[i->t->layer] ? i->t->cfg->info.sliding_window : 0;
  int64_t lo = window ? (int64_t)i->pos - window + 1 : 0;
  for (size_t b = 0; b < i->n_blk; b++)
    i->lane->mask[b] &= bits_in(b, lo, (int64_t)i->pos + 1);
  for (size_t n = 0; n < i->seq->n_cuts; n++) {
    const pf_cut *c = &i->seq->cuts[n];
    if (i->t->layer < c->layer_lo || i->t->layer >= c->layer_hi ||
        (c->head >= 0 && c->head != i->head) || i->pos < c->q_lo || i->pos >= c->q_hi)
      continue;
    for (size_t b = (size_t)c->k_lo / PF_KBLK; b < i->n_blk && (int64_t)b * PF_KBLK < c->k_hi; b++)
      i->lane->mask[b] &= ~bits_in(b, c->k_lo, c->k_hi);
  }
  for (size_t b = 0; b < i->n_blk; b++)
    if (!i->lane->mask[b])
      i->lane->k[b] = i->lane->v[b] = NULL;
}

/* A point over keys: the row has pos + 1 of them. */
static void tap_keys(const item *i, int hook) {
  const pf_step *t = i->t;
  pf_step_round(t, hook, i->n_blk * PF_KBLK, i->lane->s);
  if (!t->used[((size_t)t->layer + 1) * PF_N_HOOKS + (size_t)hook])
    return;
  size_t n = (size_t)i->pos + 1;
  pf_point p = {.hook = hook,
                .layer = t->layer,
                .pos = i->pos,
                .head0 = i->head,
                .heads = 1,
                .width = n,
                .stride = n};
  if (pf_tapset_run(&i->seq->taps, &p, i->lane->s))
    pf_step_round(t, hook, n, i->lane->s);
}

static void mask_scores(const item *i, float masked) {
  for (size_t b = 0; b < i->n_blk; b++)
    if (i->lane->mask[b] != ~0u)
      for (int j = 0; j < PF_KBLK; j++)
        if (!(i->lane->mask[b] >> j & 1u))
          i->lane->s[b * PF_KBLK + (size_t)j] = masked;
}

static void attend(const item *i) {
  const pf_step *t = i->t;
  const pf_model_info *m = &t->cfg->info;
  size_t d = (size_t)m->d_head, at = i->r * (size_t)m->n_heads * d + (size_t)i->head * d;
  own_blocks(i);
  apply_swaps(i);
  restrict_mask(i);
  t->f->qk(d, t->s->rot_q + at, i->n_blk, i->lane->k, (float)m->attn_scale, i->lane->s);
  mask_scores(i, 0.0f);
  tap_keys(i, PF_HOOK_SCORES_RAW);
  for (size_t b = 0; b < i->n_blk && m->attn_softcap > 0; b++)
    if (i->lane->mask[b])
      t->f->softcap(PF_KBLK, i->lane->s + b * PF_KBLK, m->attn_softcap);
  mask_scores(i, -__builtin_inff());
  tap_keys(i, PF_HOOK_SCORES);
  if (t->f->softmax(i->n_blk * PF_KBLK, i->lane->s))
    __atomic_store_n(&t->bad[i->r], t->layer + 1, __ATOMIC_RELAXED);
  tap_keys(i, PF_HOOK_PATTERN);
  t->f->pv(d, i->n_blk, i->lane->s, i->lane->v, i->lane->mask, t->s->z + at);
}

static void attend_part(void *arg, int tid, int nt) {
  pf_step *t = arg;
  size_t heads = (size_t)t->cfg->info.n_heads, group = heads / (size_t)t->cfg->info.n_kv_heads, lo,
         hi;
  pf_par_range(t->n * heads, tid, nt, &lo, &hi);
  for (size_t n = lo; n < hi; n++) {
    const pf_row *row = &t->rows[n / heads];
    item i = {.t = t,
              .seq = row->seq,
              .lane = &t->s->lanes[tid],
              .pos = row->pos,
              .head = (int32_t)(n % heads),
              .kv_head = (int32_t)(n % heads / group),
              .r = n / heads,
              .n_blk = (size_t)row->pos / PF_KBLK + 1};
    attend(&i);
  }
}

void pf_step_attend(pf_step *t) {
  double keys = 0;
  for (size_t r = 0; r < t->n; r++)
    keys += (double)t->rows[r].pos + 1;
  double work = 3.0 * keys * (double)t->cfg->info.n_heads * (double)t->cfg->info.d_head;
  pf_par(pf_par_worth(t->c->threads, work), attend_part, t);
}
