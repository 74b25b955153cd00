/* SPDX-License-Identifier: Apache-2.0
 * Attention of rows over their own branches: scores over key positions from 0 in blocks of 32,
 * soft-cap, mask, softmax, P.V (simd/CONTRACT.md). A key that cannot be seen (gap, future, window,
 * cut) is masked: it adds +0 and its value is read as +0; a block without visible keys is skipped.
 *
 * Consecutive rows of a branch and the query heads of a K,V head go together, so that K and V are
 * read once for all of them. Rows of which some see a swap and others do not go apart; a row with
 * actions on scores goes head by head. */
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

/* Rows [r, r + n) of one branch and all query heads of a K,V head. */
typedef struct item {
  const pf_step *t;
  const pf_seq *seq;
  pf_lane *lane;
  size_t r, n, n_blk;
  int32_t pos, kv_head; /* pos: of the last row */
  bool by_head;
} item;

static size_t group_of(const pf_step *t) {
  return (size_t)(t->cfg->info.n_heads / t->cfg->info.n_kv_heads);
}

static void own_blocks(const item *i) {
  const pf_ctx *c = i->t->c;
  for (size_t b = 0; b < i->n_blk; b++) {
    const pf_kvblock *blk = b < i->seq->n_blk ? pf_seq_block(i->seq, i->t->layer, b) : NULL;
    i->lane->k[b] = blk ? pf_kv_k_at(c, blk, i->kv_head) : NULL;
    i->lane->v[b] = blk ? pf_kv_v_at(c, blk, i->kv_head) : NULL;
  }
}

static void own_keys(const item *i, uint32_t *mask) {
  size_t n = i->n_blk < i->seq->n_blk ? i->n_blk : i->seq->n_blk;
  memcpy(mask, i->seq->present, n * sizeof *mask);
  memset(mask + n, 0, (i->n_blk - n) * sizeof *mask);
}

/* Takes away what a query at `pos` may not see. */
static void restrict_mask(const item *i, int32_t pos, int32_t head, uint32_t *mask) {
  int32_t window = i->t->cfg->windowed[i->t->layer] ? i->t->cfg->info.sliding_window : 0;
  int64_t lo = window ? (int64_t)pos - window + 1 : 0;
  for (size_t b = 0; b < i->n_blk; b++)
    mask[b] &= bits_in(b, lo, (int64_t)pos + 1);
  for (size_t n = 0; n < i->seq->n_cuts; n++) {
    const pf_cut *c = &i->seq->cuts[n];
    if (i->t->layer < c->layer_lo || i->t->layer >= c->layer_hi ||
        (c->head >= 0 && c->head != head) || pos < c->q_lo || pos >= c->q_hi)
      continue;
    for (size_t b = (size_t)c->k_lo / PF_KBLK; b < i->n_blk && (int64_t)b * PF_KBLK < c->k_hi; b++)
      mask[b] &= ~bits_in(b, c->k_lo, c->k_hi);
  }
}

/* Blocks that none of n queries sees are not there. */
static void drop_unseen(const item *i, size_t n) {
  for (size_t b = 0; b < i->n_blk; b++) {
    uint32_t any = 0;
    for (size_t r = 0; r < n; r++)
      any |= i->lane->mask[r * i->n_blk + b];
    if (!any)
      i->lane->k[b] = i->lane->v[b] = NULL;
  }
}

/* The operation over n rows x heads [head, head + heads), as the kernels take it; `masks` of them
 * for each row, 1 or one a head. */
static pf_attn operation(const item *i, size_t n, int32_t head, size_t heads, size_t masks) {
  const pf_step *t = i->t;
  const pf_model_info *m = &t->cfg->info;
  pf_lane *l = i->lane;
  size_t d = (size_t)m->d_head;
  for (size_t j = 0; j < n * heads; j++) {
    size_t at = ((i->r + j / heads) * (size_t)m->n_heads + (size_t)head + j % heads) * d;
    l->q[j] = t->s->rot_q + at;
    l->y[j] = t->s->z + at;
    l->seen[j] = l->mask + (masks > 1 ? j : j / heads) * i->n_blk;
  }
  return (pf_attn){.d = d,
                   .nq = n * heads,
                   .nblk = i->n_blk,
                   .q = l->q,
                   .kblk = l->k,
                   .vblk = l->v,
                   .mask = l->seen,
                   .scale = t->mode->inner ? 1.0f : (float)m->attn_scale,
                   .lds = i->n_blk * PF_KBLK,
                   .s = l->s,
                   .y = l->y,
                   .work = l->work};
}

/* With values between the points rounded: rounds the products and scales them, in the blocks that a
 * query sees; else qk has scaled them. */
static void scale_rounded(const pf_step *t, size_t n_blk, const uint32_t *mask, float *s) {
  for (size_t b = 0; b < n_blk && t->mode->inner; b++)
    if (mask[b]) {
      t->f->round_bf16(PF_KBLK, s + b * PF_KBLK, s + b * PF_KBLK);
      t->f->scale(PF_KBLK, s + b * PF_KBLK, (float)t->cfg->info.attn_scale, s + b * PF_KBLK);
    }
}

/* Soft-caps the blocks that a query sees, as few calls as possible. */
static void cap_scores(const pf_step *t, size_t n_blk, const uint32_t *mask, float *s) {
  float cap = t->cfg->info.attn_softcap;
  for (size_t b = 0, end; b < n_blk && cap > 0; b = end) {
    for (end = b; end < n_blk && mask[end];)
      end++;
    if (end > b)
      pf_step_softcap(t, (end - b) * PF_KBLK, s + b * PF_KBLK, cap);
    else
      end = b + 1;
  }
}

/* pf_step_round of the blocks that a query sees, as few calls as possible. */
static void round_seen(const pf_step *t, int hook, size_t n_blk, const uint32_t *mask, float *s) {
  if (!t->mode->rounds[hook])
    return;
  for (size_t b = 0, end; b < n_blk; b = end + 1) {
    for (end = b; end < n_blk && mask[end];)
      end++;
    if (end > b)
      pf_step_round(t, hook, (end - b) * PF_KBLK, s + b * PF_KBLK);
  }
}

/* From products with keys to probabilities; returns whether a score is NaN or +inf. */
static int soften(const pf_step *t, size_t n_blk, const uint32_t *mask, float *s) {
  scale_rounded(t, n_blk, mask, s);
  round_seen(t, PF_HOOK_SCORES_RAW, n_blk, mask, s);
  cap_scores(t, n_blk, mask, s);
  round_seen(t, PF_HOOK_SCORES, n_blk, mask, s);
  int bad = t->f->softmax(n_blk, mask, s);
  round_seen(t, PF_HOOK_PATTERN, n_blk, mask, s);
  return bad;
}

static void scores_bad(const pf_step *t, size_t r) {
  __atomic_store_n(&t->bad[r], t->layer + 1, __ATOMIC_RELAXED);
}

/* Of n heads for each of `rows` rows, whose masks stand (`masks` a row): a query takes the product
 * with each key that it sees, and as much for the values; K and V come in whole blocks. */
static void attend_work(const item *i, size_t rows, size_t heads, size_t masks) {
  const pf_step *t = i->t;
  const pf_ctx *c = t->c;
  double pairs = 0, blocks = 0, d = (double)t->cfg->info.d_head;
  for (size_t b = 0; b < i->n_blk; b++)
    blocks += i->lane->k[b] != NULL;
  for (size_t n = 0; n < rows * masks * i->n_blk; n++)
    pairs += __builtin_popcount(i->lane->mask[n]);
  pairs *= (double)(heads / masks);
  double row = 4 * d * (double)(rows * heads);
  pf_step_work(t, PF_ROLE_SCORES, 2 * d * pairs,
               blocks * (double)pf_kv_k_head(c) + row + 4 * pairs);
  pf_step_work(t, PF_ROLE_SOFTMAX, 0, 8 * pairs);
  pf_step_work(t, PF_ROLE_PV, 2 * d * pairs, blocks * (double)pf_kv_v_head(c) + row + 4 * pairs);
}

/* ---- swaps ---- */

/* The lane's private copy of a head's K and V of block b, so that single keys can be exchanged. */
static void own_copy(const item *i, size_t b, void **k, void **v) {
  const pf_ctx *c = i->t->c;
  size_t nk = pf_kv_k_head(c), nv = pf_kv_v_head(c);
  char *at = i->lane->swapped + b * (nk + nv);
  *k = at;
  *v = at + nk;
  if (i->lane->k[b] == *k)
    return;
  if (i->lane->k[b]) {
    memcpy(*k, i->lane->k[b], nk);
    memcpy(*v, i->lane->v[b], nv);
  } else {
    memset(*k, 0, nk + nv);
  }
  i->lane->k[b] = *k;
  i->lane->v[b] = *v;
}

/* Key of the source at its own position, or its un-rotated key rotated to `pos` and rounded as keys
 * are. */
static void swap_key(const item *i, const pf_kvblock *src, int32_t from, int32_t pos, void *k) {
  const pf_ctx *c = i->t->c;
  size_t half = (size_t)i->t->cfg->info.d_head / 2;
  int slot = pos % PF_KBLK, old = from % PF_KBLK;
  if (from == pos) {
    pf_kv_copy_key(c, k, slot, pf_kv_k_at(c, src, i->kv_head), old);
    return;
  }
  const float *raw = pf_kv_raw_at(c, src, i->kv_head, old);
  for (size_t e = 0; e < half; e++) {
    float cs, sn, x[2] = {raw[e], raw[e + half]}, y[2];
    pf_rope_angle(pos, c->inv_freq[e], &cs, &sn);
    pf_step_round_inner(i->t, 1, &cs);
    pf_step_round_inner(i->t, 1, &sn);
    pf_step_rope(i->t, 2, x, &cs, &sn, y);
    pf_step_round(i->t, PF_HOOK_ROT_K, 2, y);
    pf_kv_put_key(c, k, slot, e, y[0]);
    pf_kv_put_key(c, k, slot, e + half, y[1]);
  }
}

static void swap_span(const item *i, const pf_swap *w) {
  const pf_ctx *c = i->t->c;
  for (int32_t pos = w->pos_lo; pos < w->pos_hi; pos++) {
    size_t b = (size_t)pos / PF_KBLK;
    int32_t from = w->src_lo + pos - w->pos_lo;
    const pf_kvblock *src = pf_seq_block(w->src, i->t->layer, (size_t)from / PF_KBLK);
    void *k, *v;
    own_copy(i, b, &k, &v);
    if (w->what & PF_SWAP_K)
      swap_key(i, src, from, pos, k);
    if (w->what & PF_SWAP_V)
      pf_kv_copy_value(c, v, pos % PF_KBLK, pf_kv_v_at(c, src, i->kv_head), from % PF_KBLK);
    if (w->what == (PF_SWAP_K | PF_SWAP_V))
      i->lane->mask[b] |= 1u << (pos % PF_KBLK);
  }
}

static bool sees(const pf_swap *w, int32_t pos) {
  return pos >= w->pos_hi && pos >= w->q_lo && (!w->q_hi || pos < w->q_hi);
}

static bool in_layer(const pf_step *t, const pf_swap *w) {
  return t->layer >= w->layer_lo && t->layer < w->layer_hi;
}

/* Exchanges keys and values for the item's rows, which see the same swaps; the first mask has the
 * keys that are there now. */
static void apply_swaps(const item *i) {
  if (!i->seq->n_swaps)
    return;
  pf_step_lap(i->t, PF_ROLE_SCORES);
  for (size_t n = 0; n < i->seq->n_swaps; n++) {
    const pf_swap *w = &i->seq->swaps[n];
    if (in_layer(i->t, w) && sees(w, i->pos) && (w->head < 0 || w->head == i->kv_head))
      swap_span(i, w);
  }
  pf_step_work(i->t, PF_ROLE_SWAP, 0, 0);
  pf_step_lap(i->t, PF_ROLE_SWAP);
}

/* Do rows r and o of a branch see the same swaps? */
static bool same_swaps(const pf_step *t, size_t r, size_t o) {
  const pf_seq *s = t->rows[r].seq;
  for (size_t n = 0; n < s->n_swaps; n++)
    if (in_layer(t, &s->swaps[n]) &&
        sees(&s->swaps[n], t->rows[r].pos) != sees(&s->swaps[n], t->rows[o].pos))
      return false;
  return true;
}

/* ---- together ---- */

/* Do cuts of single heads act on the item's rows? */
static bool cut_by_head(const item *i) {
  int32_t first = i->t->rows[i->r].pos;
  for (size_t n = 0; n < i->seq->n_cuts; n++) {
    const pf_cut *c = &i->seq->cuts[n];
    if (c->head >= 0 && i->t->layer >= c->layer_lo && i->t->layer < c->layer_hi &&
        i->pos >= c->q_lo && first < c->q_hi)
      return true;
  }
  return false;
}

static void attend_together(const item *i) {
  const pf_step *t = i->t;
  size_t group = group_of(t);
  own_blocks(i);
  own_keys(i, i->lane->mask);
  apply_swaps(i);
  size_t masks = cut_by_head(i) ? group : 1;
  int32_t first = i->kv_head * (int32_t)group;
  for (size_t q = i->n * masks; q-- > 0;) {
    uint32_t *mask = i->lane->mask + q * i->n_blk;
    memmove(mask, i->lane->mask, i->n_blk * sizeof *mask);
    restrict_mask(i, t->rows[i->r + q / masks].pos, masks > 1 ? first + (int32_t)(q % masks) : -1,
                  mask);
  }
  drop_unseen(i, i->n * masks);
  if (t->prof)
    attend_work(i, i->n, group, masks);
  pf_attn a = operation(i, i->n, first, group, masks);
  pf_kv_ops(t->c)->qk(t->f, &a);
  pf_step_lap(t, PF_ROLE_SCORES);
  for (size_t j = 0; j < a.nq; j++)
    if (soften(t, a.nblk, a.mask[j], a.s + j * a.lds))
      scores_bad(t, i->r + j / group);
  pf_step_lap(t, PF_ROLE_SOFTMAX);
  pf_kv_ops(t->c)->pv(t->f, &a);
  pf_step_lap(t, PF_ROLE_PV);
}

/* ---- head by head ---------------------------------------------------------------------------- */

/* A point over keys: the row has pos + 1 of them. */
static void tap_keys(const item *i, int32_t head, int hook) {
  const pf_step *t = i->t;
  pf_step_round(t, hook, i->n_blk * PF_KBLK, i->lane->s);
  if (!t->used[((size_t)t->layer + 1) * PF_N_HOOKS + (size_t)hook])
    return;
  size_t n = (size_t)i->pos + 1;
  pf_point p = {.hook = hook,
                .layer = t->layer,
                .pos = i->pos,
                .head0 = head,
                .heads = 1,
                .width = n,
                .stride = n};
  (void)pf_step_act(t, i->seq, &p, n, i->lane->s);
}

static void mask_scores(const item *i, float masked) {
  for (size_t b = 0; b < i->n_blk; b++)
    if (i->lane->mask[b] != ~0u)
      for (int j = 0; j < PF_KBLK; j++)
        if (!(i->lane->mask[b] >> j & 1u))
          i->lane->s[b * PF_KBLK + (size_t)j] = masked;
}

/* Scores and probabilities of masked keys are values like others here: an action may see and change
 * them. */
static void attend_head(const item *i, int32_t head) {
  const pf_step *t = i->t;
  own_blocks(i);
  own_keys(i, i->lane->mask);
  apply_swaps(i);
  restrict_mask(i, i->pos, head, i->lane->mask);
  drop_unseen(i, 1);
  if (t->prof)
    attend_work(i, 1, 1, 1);
  pf_attn a = operation(i, 1, head, 1, 1);
  pf_kv_ops(t->c)->qk(t->f, &a);
  pf_step_lap(t, PF_ROLE_SCORES);
  mask_scores(i, 0.0f);
  scale_rounded(t, a.nblk, a.mask[0], a.s);
  tap_keys(i, head, PF_HOOK_SCORES_RAW);
  cap_scores(t, a.nblk, a.mask[0], a.s);
  mask_scores(i, -__builtin_inff());
  tap_keys(i, head, PF_HOOK_SCORES);
  if (t->f->softmax(a.nblk, NULL, a.s))
    scores_bad(t, i->r);
  tap_keys(i, head, PF_HOOK_PATTERN);
  pf_step_lap(t, PF_ROLE_SOFTMAX);
  pf_kv_ops(t->c)->pv(t->f, &a);
  pf_step_lap(t, PF_ROLE_PV);
}

static bool by_head(const pf_step *t, size_t r) {
  static const int hooks[] = {PF_HOOK_SCORES_RAW, PF_HOOK_SCORES, PF_HOOK_PATTERN};
  const pf_seq *s = t->rows[r].seq;
  for (size_t n = 0; n < sizeof hooks / sizeof *hooks; n++)
    if (t->used[((size_t)t->layer + 1) * PF_N_HOOKS + (size_t)hooks[n]] &&
        pf_tapset_hits(&s->taps, hooks[n], t->layer, t->rows[r].pos))
      return true;
  return false;
}

/* ---- who does what --------------------------------------------------------------------------- */

/* Rows from r, which does not go by head, that go together, below `end`. Pieces end where positions
 * are a multiple of their size, so that few blocks are seen in part. */
static size_t rows_together(const pf_step *t, size_t r, size_t end) {
  size_t most = pf_attend_rows(group_of(t), (size_t)t->rows[end - 1].pos / PF_KBLK + 1), n = 1;
  while (n < most && r + n < end && (size_t)t->rows[r + n].pos % most != 0 && !by_head(t, r + n) &&
         same_swaps(t, r, r + n))
    n++;
  return n;
}

/* What an item costs: blocks of keys x (queries, and what reading K and V costs). */
static uint64_t cost_of(const item *i) {
  int32_t window = i->t->cfg->windowed[i->t->layer] ? i->t->cfg->info.sliding_window : 0;
  size_t most = window ? (size_t)window / PF_KBLK + 1 : i->n_blk, n = i->n_blk;
  return (n < most ? n : most) * (i->n * group_of(i->t) + 8);
}

static void attend(const item *i) {
  size_t group = group_of(i->t);
  if (!i->by_head) {
    attend_together(i);
    return;
  }
  for (size_t g = 0; g < group; g++)
    attend_head(i, i->kv_head * (int32_t)group + (int32_t)g);
}

/* All items in order; does those that begin at a cost in [lo, hi). Returns the cost of all. Within
 * a branch a K,V head's items stand together: its keys stay in the cache. */
static uint64_t walk(const pf_step *t, pf_lane *lane, uint64_t lo, uint64_t hi) {
  uint64_t at = 0;
  for (size_t from = 0, to; from < t->n; from = to) {
    for (to = from + 1; to < t->n && t->rows[to].seq == t->rows[from].seq &&
                        t->rows[to].pos > t->rows[to - 1].pos;)
      to++;
    for (int32_t h = 0; h < t->cfg->info.n_kv_heads; h++)
      for (size_t r = from, n; r < to; r += n) {
        bool alone = by_head(t, r);
        n = alone ? 1 : rows_together(t, r, to);
        item i = {.t = t, .seq = t->rows[r].seq, .lane = lane, .r = r, .n = n, .kv_head = h};
        i.by_head = alone;
        i.pos = t->rows[r + n - 1].pos;
        i.n_blk = (size_t)i.pos / PF_KBLK + 1;
        if (at >= lo && at < hi)
          attend(&i);
        at += cost_of(&i);
      }
  }
  return at;
}

/* Contiguous parts of equal cost. */
static void attend_part(void *arg, int tid, int nt) {
  const pf_step *t = arg;
  uint64_t total = walk(t, NULL, 0, 0);
  walk(t, &t->s->lanes[tid], total * (uint64_t)tid / (uint64_t)nt,
       total * ((uint64_t)tid + 1) / (uint64_t)nt);
}

void pf_step_attend(pf_step *t) {
  double keys = 0;
  for (size_t r = 0; r < t->n; r++)
    keys += (double)t->rows[r].pos + 1;
  double work = 3.0 * keys * (double)t->cfg->info.n_heads * (double)t->cfg->info.d_head;
  pf_step_par(t, PF_STAGE_ATTEND, pf_par_worth(t->c->threads, work), attend_part, t);
}
