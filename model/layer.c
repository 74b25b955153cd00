/* SPDX-License-Identifier: Apache-2.0
 * One decoder layer over the rows of a step, in the order of the mathematics (Gemma 2: arXiv
 * 2408.00118; Qwen2.5: arXiv 2412.15115), D model width, H query heads, Hk key/value heads, F
 * feed-forward width:
 *
 *   a = W_O attention(rope(W_Q n1(x)), rope(W_K n1(x)), W_V n1(x));  x = x + post1(a)
 *   m = W_down (act(W_gate n2(x)) * (W_up n2(x)));                   x = x + post2(m)
 *
 * n1, n2 are RMS norms; post1, post2 are RMS norms in Gemma-2 and absent in Qwen-2. */
#include <string.h>

#include "base/par.h"
#include "model/pack.h"
#include "model/step.h"

static const pf_product_ops *ops_of(const pf_step *t, const pf_mat *w) {
  return &pf_products[t->mode->kind[w->type]];
}

void pf_step_operand(const pf_step *t, size_t r, const float *x, const pf_mat *w) {
  ops_of(t, w)->operand(t->f, w, r, x, t->s->op[w->type]);
}

typedef struct product_job {
  const pf_step *t;
  const pf_product *p;
  size_t n, m;
} product_job;

/* Columns [16*lo, 16*hi) of one product. */
static void columns(const product_job *j, const pf_product *p, int tid, size_t lo, size_t hi) {
  const pf_mat *w = p->w;
  size_t first = lo * PF_LANES, last = hi * PF_LANES < w->n ? hi * PF_LANES : w->n;
  pf_gemm g = {.m = j->m, .n = last - first, .k = w->k, .kp = w->kp, .ldy = p->ldy};
  g.a = j->t->s->op[w->type];
  g.w = pf_mat_panel(w, first / PF_LANES);
  if (w->type == PF_W_S8) {
    g.group = w->group;
    g.ws = w->ws + first * pf_mat_groups(w);
    g.wsum = w->wsum + first * pf_mat_groups(w);
  }
  g.bias = p->bias ? p->bias + first : NULL;
  g.y = p->y + first;
  g.work = j->t->s->lanes[tid].work;
  ops_of(j->t, w)->gemm(j->t->f, &g);
}

/* Panels [lo, hi) of the line in which those of all products stand. */
static void panels(const product_job *j, int tid, size_t lo, size_t hi) {
  size_t base = 0, from, to;
  for (size_t i = 0; i < j->n; i++) {
    size_t panels = pf_mat_panels(j->p[i].w);
    if (pf_line_part(base, panels, lo, hi, &from, &to)) {
      columns(j, &j->p[i], tid, from, to);
      pf_step_lap(j->t, j->p[i].role);
    }
    base += panels;
  }
}

/* The line is cut into equal parts, so that a thread always reads the same weights. Few rows read a
 * part once from memory and take it in pieces; many rows would read their operands again for each
 * piece, which costs more than waiting for the slower thread. */
enum { FEW_ROWS = 16, FEW_UNIT = 2, FEW_SHARE = 4 };

static void product_part(void *arg, int tid, int nt) {
  const product_job *j = arg;
  size_t total = 0, lo, hi;
  bool few = j->m <= FEW_ROWS;
  for (size_t i = 0; i < j->n; i++)
    total += pf_mat_panels(j->p[i].w);
  while (pf_par_take(j->t->s->turns, total, few ? FEW_UNIT : 1, few ? FEW_SHARE : 1, tid, nt, &lo,
                     &hi))
    panels(j, tid, lo, hi);
}

static void begin_turns(const pf_step *t) {
  for (int i = 0; i < t->c->threads; i++)
    atomic_store_explicit(&t->s->turns[i].taken, 0, memory_order_relaxed);
}

/* Bytes of a row of the operands of w. */
static double operand_bytes(const pf_step *t, const pf_mat *w) {
  return (double)(ops_of(t, w)->size * w->kp);
}

/* 2 m n k operations; the weights, the operands and what comes of them. */
static void product_work(const pf_step *t, const pf_product *p, size_t m) {
  double rows = (double)m, n = (double)p->w->n;
  pf_step_work(t, p->role, 2 * rows * n * (double)p->w->k,
               (double)pf_mat_read_bytes(p->w) + rows * (operand_bytes(t, p->w) + 4 * n));
}

void pf_step_products(const pf_step *t, pf_stage stage, const pf_product *p, size_t n, size_t m) {
  product_job j = {t, p, n, m};
  double work = 0;
  for (size_t i = 0; i < n; i++)
    work += 3.0 * (double)m * (double)p[i].w->n * (double)p[i].w->kp;
  for (size_t i = 0; i < n && t->prof; i++)
    product_work(t, &p[i], m);
  begin_turns(t);
  pf_step_par(t, stage, pf_par_worth(t->c->threads, work), product_part, &j);
}

void pf_step_norm(const pf_step *t, size_t r, const float *x, const float *w, const int hooks[3],
                  int32_t layer, float *y) {
  size_t d = (size_t)t->cfg->info.d_model;
  float scale = t->f->rms_scale(d, x, t->cfg->info.rms_eps);
  pf_step_tap(t, r, hooks[0], layer, &scale, 1, 1);
  t->f->rms_apply(d, x, scale, y);
  pf_step_tap(t, r, hooks[1], layer, y, 1, d);
  t->f->rms_weight(d, y, w, t->cfg->plus_one, y);
  if (hooks[2] >= 0)
    pf_step_tap(t, r, hooks[2], layer, y, 1, d);
}

typedef void (*row_fn)(const pf_step *t, size_t r, const pf_lane *lane);
typedef struct row_job {
  const pf_step *t;
  row_fn fn;
} row_job;

static void row_part(void *arg, int tid, int nt) {
  const row_job *j = arg;
  size_t lo, hi;
  while (pf_par_take(j->t->s->turns, j->t->n, 1, 4, tid, nt, &lo, &hi))
    for (size_t r = lo; r < hi; r++)
      j->fn(j->t, r, &j->t->s->lanes[tid]);
}

static void each_row(const pf_step *t, pf_stage stage, row_fn fn) {
  row_job j = {t, fn};
  double work = 20.0 * (double)t->n * (double)(t->cfg->info.d_model + t->cfg->info.d_ff);
  begin_turns(t);
  pf_step_par(t, stage, pf_par_most(pf_par_worth(t->c->threads, work), t->n), row_part, &j);
}

static size_t dim(const pf_step *t) {
  return (size_t)t->cfg->info.d_model;
}

static void before_attention(const pf_step *t, size_t r, const pf_lane *lane) {
  (void)lane;
  static const int hooks[3] = {PF_HOOK_LN1_SCALE, PF_HOOK_LN1_NORM, PF_HOOK_LN1_OUT};
  float *x = t->s->x + r * dim(t), *y = t->s->norm + r * dim(t);
  pf_step_tap(t, r, PF_HOOK_RESID_PRE, t->layer, x, 1, dim(t));
  pf_step_norm(t, r, x, t->w->ln1, hooks, t->layer, y);
  pf_step_lap(t, PF_ROLE_NORM);
  const pf_mat *m[3] = {&t->w->q, &t->w->k, &t->w->v};
  for (int i = 0; i < 3; i++) /* a mixture of weight types needs both kinds of operand */
    if (i == 0 || m[i]->type != m[0]->type)
      pf_step_operand(t, r, y, m[i]);
  pf_step_lap(t, PF_ROLE_OPERAND);
}

/* y = R(a b) + sign R(u v), n values. */
static void rounded_products(const pf_step *t, size_t n, const float *a, const float *b,
                             const float *u, const float *v, float sign, float *y) {
  float tmp[64];
  for (size_t i = 0, m; i < n; i += m) {
    m = n - i < 64 ? n - i : 64;
    t->f->mul(m, a + i, b + i, y + i);
    t->f->round_bf16(m, y + i, y + i);
    t->f->mul(m, u + i, v + i, tmp);
    t->f->round_bf16(m, tmp, tmp);
    t->f->scale(m, tmp, sign, tmp);
    t->f->add(m, y + i, tmp, y + i);
  }
}

void pf_step_rope(const pf_step *t, size_t d, const float *x, const float *c, const float *s,
                  float *y) {
  size_t h = d / 2;
  if (!t->mode->inner) {
    t->f->rope(d, x, c, s, y);
    return;
  }
  rounded_products(t, h, x, c, x + h, s, -1, y);
  rounded_products(t, h, x + h, c, x, s, 1, y + h);
}

void pf_step_softcap(const pf_step *t, size_t n, float *x, float cap) {
  if (!t->mode->inner) {
    t->f->softcap(n, x, cap);
    return;
  }
  for (size_t i = 0; i < n; i++)
    x[i] = x[i] / cap;
  t->f->round_bf16(n, x, x);
  t->f->vtanh(n, x, x);
  t->f->round_bf16(n, x, x);
  t->f->scale(n, x, cap, x);
}

/* Rotates, runs the actions at q, k, v and stores K,V of the row. */
static void rotate_and_store(const pf_step *t, size_t r, const pf_lane *lane) {
  (void)lane;
  const pf_model_info *m = &t->cfg->info;
  size_t d = (size_t)m->d_head, nq = (size_t)m->n_heads, nk = (size_t)m->n_kv_heads;
  const pf_row *row = &t->rows[r];
  float *q = t->s->q + r * nq * d, *k = t->s->k + r * nk * d, *v = t->s->v + r * nk * d,
        *rq = t->s->rot_q + r * nq * d;
  const float *c = t->s->cos + r * (d / 2), *s = t->s->sin + r * (d / 2);
  pf_kvblock *blk = pf_seq_block(row->seq, t->layer, (size_t)row->pos / PF_KBLK);
  if (r < t->read)
    pf_step_tap(t, r, PF_HOOK_Q, t->layer, q, nq, d);
  pf_step_tap(t, r, PF_HOOK_K, t->layer, k, nk, d);
  pf_step_tap(t, r, PF_HOOK_V, t->layer, v, nk, d);
  for (size_t h = 0; h < nq && r < t->read; h++)
    pf_step_rope(t, d, q + h * d, c, s, rq + h * d);
  if (r < t->read)
    pf_step_tap(t, r, PF_HOOK_ROT_Q, t->layer, rq, nq, d);
  float *rot_k = t->s->rot_k + r * nk * d;
  for (size_t h = 0; h < nk; h++)
    pf_step_rope(t, d, k + h * d, c, s, rot_k + h * d);
  pf_step_tap(t, r, PF_HOOK_ROT_K, t->layer, rot_k, nk, d);
  pf_step_lap(t, PF_ROLE_ROPE);
  for (size_t h = 0; h < nk; h++)
    pf_kv_store(t->c, blk, (int32_t)h, row->pos % PF_KBLK, rot_k + h * d, v + h * d, k + h * d);
  pf_step_lap(t, PF_ROLE_STORE);
}

static void after_attention(const pf_step *t, size_t r, const pf_lane *lane) {
  (void)lane;
  size_t d = (size_t)t->cfg->info.d_head, nq = (size_t)t->cfg->info.n_heads;
  float *z = t->s->z + r * nq * d;
  pf_step_tap(t, r, PF_HOOK_Z, t->layer, z, nq, d);
  pf_step_operand(t, r, z, &t->w->o);
}

/* result_h = W_O (z with every other head zero), (H, D); an edit adds (new - captured) to the
 * output of W_O. */
static void results_of_row(const pf_step *t, size_t r, float *res, float *z1) {
  const pf_model_info *m = &t->cfg->info;
  size_t d = (size_t)m->d_head, nq = (size_t)m->n_heads, dm = dim(t);
  float *z = t->s->z + r * nq * d, *out = t->s->out + r * dm, *old = res + nq * dm;
  for (size_t h = 0; h < nq; h++) {
    memset(z1, 0, nq * d * sizeof *z1);
    memcpy(z1 + h * d, z + h * d, d * sizeof *z1);
    pf_step_operand(t, 0, z1, &t->w->o);
    pf_product p = {&t->w->o, NULL, res + h * dm, dm, PF_ROLE_RESULT};
    product_job j = {t, &p, 1, 1};
    panels(&j, 0, 0, pf_mat_panels(p.w));
  }
  memcpy(old, res, nq * dm * sizeof *res);
  if (!pf_step_tap(t, r, PF_HOOK_RESULT, t->layer, res, nq, dm))
    return;
  for (size_t h = 0; h < nq; h++)
    for (size_t i = 0; i < dm; i++)
      out[i] = out[i] + (res[h * dm + i] - old[h * dm + i]);
}

static void results_part(void *arg, int tid, int nt) {
  const pf_step *t = arg;
  (void)tid, (void)nt;
  for (size_t r = 0; r < t->n; r++)
    if (pf_tapset_hits(&t->rows[r].seq->taps, PF_HOOK_RESULT, t->layer, t->rows[r].pos))
      results_of_row(t, r, t->s->result, t->s->result_z);
}

static void add_attention(const pf_step *t, size_t r, const pf_lane *lane) {
  (void)lane;
  static const int post[3] = {PF_HOOK_LN1_POST_SCALE, PF_HOOK_LN1_POST_NORM, -1};
  static const int ln2[3] = {PF_HOOK_LN2_SCALE, PF_HOOK_LN2_NORM, PF_HOOK_LN2_OUT};
  float *x = t->s->x + r * dim(t), *a = t->s->out + r * dim(t), *y = t->s->norm + r * dim(t);
  if (t->cfg->post_norms) {
    pf_step_tap(t, r, PF_HOOK_ATTN_OUT_PRE, t->layer, a, 1, dim(t));
    pf_step_norm(t, r, a, t->w->ln1_post, post, t->layer, a);
    pf_step_lap(t, PF_ROLE_NORM);
  }
  pf_step_tap(t, r, PF_HOOK_ATTN_OUT, t->layer, a, 1, dim(t));
  t->f->add(dim(t), x, a, x);
  pf_step_tap(t, r, PF_HOOK_RESID_MID, t->layer, x, 1, dim(t));
  pf_step_lap(t, PF_ROLE_RESID);
  pf_step_norm(t, r, x, t->w->ln2, ln2, t->layer, y);
  pf_step_lap(t, PF_ROLE_NORM);
  pf_step_operand(t, r, y, &t->w->gate);
  if (t->w->up.type != t->w->gate.type)
    pf_step_operand(t, r, y, &t->w->up);
  pf_step_lap(t, PF_ROLE_OPERAND);
}

/* The row between the products stays in the caches: what came of them is read, never written. */
static void activate(const pf_step *t, size_t r, const pf_lane *lane) {
  size_t n = (size_t)t->cfg->info.d_ff;
  float *g = t->s->gate + r * n, *u = t->s->up + r * n, *y = lane->act;
  pf_step_tap(t, r, PF_HOOK_MLP_PRE, t->layer, g, 1, n);
  pf_step_tap(t, r, PF_HOOK_MLP_PRE_LINEAR, t->layer, u, 1, n);
  (t->cfg->gelu_tanh ? t->f->gelu_tanh : t->f->silu)(n, g, y);
  pf_step_round_inner(t, n, y);
  t->f->mul(n, y, u, y);
  pf_step_tap(t, r, PF_HOOK_MLP_POST, t->layer, y, 1, n);
  pf_step_lap(t, PF_ROLE_ACT);
  pf_step_operand(t, r, y, &t->w->down);
  pf_step_lap(t, PF_ROLE_OPERAND);
}

static void add_mlp(const pf_step *t, size_t r, const pf_lane *lane) {
  (void)lane;
  static const int post[3] = {PF_HOOK_LN2_POST_SCALE, PF_HOOK_LN2_POST_NORM, -1};
  float *x = t->s->x + r * dim(t), *m = t->s->out + r * dim(t);
  if (t->cfg->post_norms) {
    pf_step_tap(t, r, PF_HOOK_MLP_OUT_PRE, t->layer, m, 1, dim(t));
    pf_step_norm(t, r, m, t->w->ln2_post, post, t->layer, m);
    pf_step_lap(t, PF_ROLE_NORM);
  }
  pf_step_tap(t, r, PF_HOOK_MLP_OUT, t->layer, m, 1, dim(t));
  t->f->add(dim(t), x, m, x);
  pf_step_tap(t, r, PF_HOOK_RESID_POST, t->layer, x, 1, dim(t));
  pf_step_lap(t, PF_ROLE_RESID);
}

/* What the element-wise work of a layer reads and writes: up to K,V, and behind them. */
static void kv_work(const pf_step *t) {
  const pf_model_info *m = &t->cfg->info;
  double n = (double)t->n, dm = (double)m->d_model, q = (double)(m->n_heads * m->d_head),
         kv = (double)(m->n_kv_heads * m->d_head);
  pf_step_work(t, PF_ROLE_NORM, 0, n * 8 * dm);
  pf_step_work(t, PF_ROLE_OPERAND, 0, n * (4 * dm + operand_bytes(t, &t->w->q)));
  pf_step_work(t, PF_ROLE_ROPE, 0, 8 * ((double)t->read * q + n * kv));
  pf_step_work(t, PF_ROLE_STORE, 0, n * kv * (8 + 2.0 * (double)pf_kv_ops(t->c)->size));
}

static void read_work(const pf_step *t) {
  const pf_model_info *m = &t->cfg->info;
  double n = (double)t->read, dm = (double)m->d_model, f = (double)m->d_ff,
         q = (double)(m->n_heads * m->d_head);
  int norms = t->cfg->post_norms ? 3 : 1;
  for (int i = 0; i < norms; i++)
    pf_step_work(t, PF_ROLE_NORM, 0, n * 8 * dm);
  pf_step_work(t, PF_ROLE_OPERAND, 0, n * (4 * q + operand_bytes(t, &t->w->o)));
  pf_step_work(t, PF_ROLE_OPERAND, 0, n * (4 * dm + operand_bytes(t, &t->w->gate)));
  pf_step_work(t, PF_ROLE_OPERAND, 0, n * (4 * f + operand_bytes(t, &t->w->down)));
  pf_step_work(t, PF_ROLE_RESID, 0, n * 12 * dm);
  pf_step_work(t, PF_ROLE_RESID, 0, n * 12 * dm);
  pf_step_work(t, PF_ROLE_ACT, 0, n * 12 * f);
}

/* q of the rows that are read, K,V of all. */
static void project(pf_step *t) {
  const pf_layer *w = t->w;
  size_t d = (size_t)t->cfg->info.d_head, nq = (size_t)t->cfg->info.n_heads * d,
         nk = (size_t)t->cfg->info.n_kv_heads * d;
  const pf_product p[] = {{&w->q, w->bq, t->s->q, nq, PF_ROLE_Q},
                          {&w->k, w->bk, t->s->k, nk, PF_ROLE_K},
                          {&w->v, w->bv, t->s->v, nk, PF_ROLE_V}};
  if (t->read == t->n) {
    pf_step_products(t, PF_STAGE_QKV, p, 3, t->n);
    return;
  }
  if (t->read)
    pf_step_products(t, PF_STAGE_QKV, p, 1, t->read);
  pf_step_products(t, PF_STAGE_QKV, p + 1, 2, t->n);
}

/* From K,V to what leaves the layer, of the rows that are read. */
static void read_rows(pf_step *t) {
  pf_scratch *s = t->s;
  const pf_layer *w = t->w;
  size_t f = (size_t)t->cfg->info.d_ff;
  if (t->prof)
    read_work(t);
  pf_step_attend(t);
  each_row(t, PF_STAGE_ATTN_OUT, after_attention);
  pf_step_products(t, PF_STAGE_O_PROJ, &(pf_product){&w->o, NULL, s->out, dim(t), PF_ROLE_O}, 1,
                   t->n);
  if (t->used[((size_t)t->layer + 1) * PF_N_HOOKS + PF_HOOK_RESULT])
    pf_step_par(t, PF_STAGE_RESULTS, 1, results_part, t);
  each_row(t, PF_STAGE_MLP_IN, add_attention);
  pf_step_products(t, PF_STAGE_GATE_UP,
                   (pf_product[]){{&w->gate, NULL, s->gate, f, PF_ROLE_GATE},
                                  {&w->up, NULL, s->up, f, PF_ROLE_UP}},
                   2, t->n);
  each_row(t, PF_STAGE_ACT, activate);
  pf_step_products(t, PF_STAGE_DOWN, &(pf_product){&w->down, NULL, s->out, dim(t), PF_ROLE_DOWN}, 1,
                   t->n);
  each_row(t, PF_STAGE_MLP_OUT, add_mlp);
}

void pf_step_layer(pf_step *t) {
  size_t n = t->n;
  if (t->prof)
    kv_work(t);
  each_row(t, PF_STAGE_ATTN_IN, before_attention);
  project(t);
  each_row(t, PF_STAGE_ROTATE, rotate_and_store);
  t->n = t->read;
  if (t->n)
    read_rows(t);
  t->n = n;
}
