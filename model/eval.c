/* SPDX-License-Identifier: Apache-2.0
 * Contexts, and pf_eval: rows of any sequences through all layers. A call is cut into steps of
 * PF_STEP_ROWS rows; by the contract the cut changes no bit. A call that fails leaves every
 * sequence as it was. */
#include <string.h>

#include "base/dmath.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "model/step.h"

int pf_ctx_new(pf_ctx **out, const pf_model *m, const pf_ctx_opts *o) {
  int rc;
  *out = NULL;
  if (!m->layers)
    return pf_fail(PF_EUSAGE, "%s: only the configuration was opened; a context needs the weights",
                   m->cfg.dir);
  const pf_simd *simd = pf_simd_for(o ? o->isa : NULL, &rc);
  if (rc == PF_OK)
    rc = pf_par_check(o ? o->threads : 0);
  if (rc != PF_OK)
    return rc;
  pf_ctx *c = pf_calloc(1, sizeof *c);
  if (!c)
    return PF_ENOMEM;
  *c = (pf_ctx){
      .model = m, .simd = simd, .threads = o && o->threads > 0 ? o->threads : pf_par_default()};
  c->keep_raw_k = o && o->keep_raw_k;
  int d = m->cfg.info.d_head;
  c->inv_freq = pf_alloc((size_t)d / 2, sizeof *c->inv_freq);
  if (!c->inv_freq) {
    pf_ctx_free(c);
    return PF_ENOMEM;
  }
  for (int i = 0; i < d / 2; i++)
    c->inv_freq[i] = pf_rope_inv_freq(m->cfg.info.rope_theta, i, d);
  *out = c;
  return PF_OK;
}

void pf_ctx_free(pf_ctx *c) {
  if (!c)
    return;
  pf_scratch_free(c->scratch);
  pf_ctx_trim(c);
  pf_free(c->inv_freq);
  pf_free(c);
}

uint64_t pf_ctx_row_layers(const pf_ctx *c) {
  return c->row_layers;
}

/* ---- rows are taken up -----------------------------------------------------------------------
 */

/* A row enters exactly where its sequence lacks K,V. */
static int check_place(const pf_row *r, int32_t n_layers) {
  const pf_seq *s = r->seq;
  if (s->stop < n_layers && (r->out >= 0 || r->score))
    return pf_fail(PF_EUSAGE, "position %d: no logits of a sequence that stops before layer %d",
                   r->pos, s->stop);
  if (r->layer == n_layers && pf_seq_holds(s, r->pos))
    return PF_OK;
  if (s->todo < s->end && r->pos != s->todo)
    return pf_fail(PF_EUSAGE, "position %d: position %d, which lacks layers from %d on, is first",
                   r->pos, s->todo, s->depth[s->todo]);
  if (s->todo == s->end && r->pos < s->end)
    return pf_fail(PF_EUSAGE, "position %d is taken: the sequence goes on at %d", r->pos, s->end);
  int32_t depth = r->pos < s->end ? s->depth[r->pos] : 0;
  if (r->layer >= s->stop)
    return pf_fail(PF_EUSAGE,
                   "position %d: a row cannot enter at layer %d: the sequence stops there", r->pos,
                   s->stop);
  if (r->layer != depth)
    return pf_fail(PF_EUSAGE, "position %d lacks layers from %d on: a row enters there, not at %d",
                   r->pos, depth, r->layer);
  if (depth > 0 && r->token != s->tokens[r->pos])
    return pf_fail(PF_EUSAGE, "position %d has layers of token %d: its row is no token %d", r->pos,
                   s->tokens[r->pos], r->token);
  return PF_OK;
}

static int check_score(const pf_score *s, int32_t vocab, int32_t pos) {
  if ((s->what & (PF_SCORE_KL | PF_SCORE_JSD)) && (!s->ref || s->ref->n != (size_t)vocab))
    return pf_fail(PF_EUSAGE, "position %d: a divergence needs a reference of %d logits", pos,
                   vocab);
  if ((s->what & PF_SCORE_LOGPROB) && (s->token < 0 || s->token >= vocab))
    return pf_fail(PF_EUSAGE, "position %d: no log-probability of token %d: there are 0 to %d", pos,
                   s->token, vocab - 1);
  if ((s->what & PF_SCORE_TOP) && (!s->top || s->n_top < 1 || s->n_top > vocab))
    return pf_fail(PF_EUSAGE, "position %d: the best %d of %d tokens cannot be given", pos,
                   s->n_top, vocab);
  return PF_OK;
}

int pf_check_token(const pf_model_info *m, int32_t id) {
  if (id >= 0 && id < m->vocab_size)
    return PF_OK;
  return pf_fail(PF_EUSAGE, "token id %d is not in the vocabulary (0 to %d)", id,
                 m->vocab_size - 1);
}

static int check_row(const pf_ctx *c, const pf_row *r) {
  const pf_model_info *i = &c->model->cfg.info;
  if (!r->seq || r->seq->ctx != c)
    return pf_fail(PF_EUSAGE, "a row's sequence does not belong to this context");
  int rc = pf_check_token(i, r->token);
  if (rc != PF_OK)
    return rc;
  if (r->pos < 0 || r->pos >= i->max_positions)
    return pf_fail(PF_EUSAGE, "position %d is beyond the model's %d positions", r->pos,
                   i->max_positions);
  if (r->layer < 0 || r->layer > i->n_layers)
    return pf_fail(PF_EUSAGE, "position %d: a row cannot enter at layer %d: there are 0 to %d",
                   r->pos, r->layer, i->n_layers);
  if (r->layer > 0 && !r->resid)
    return pf_fail(PF_EUSAGE, "position %d: a row at layer %d needs the residual that enters it",
                   r->pos, r->layer);
  rc = r->score ? check_score(r->score, i->vocab_size, r->pos) : PF_OK;
  return rc == PF_OK ? check_place(r, i->n_layers) : rc;
}

static int admit(const pf_ctx *c, const pf_row *r) {
  int rc = check_row(c, r);
  if (rc != PF_OK || r->layer == c->model->cfg.info.n_layers)
    return rc;
  rc = pf_seq_reserve(r->seq, r->pos, r->layer);
  if (rc == PF_OK)
    pf_seq_take(r->seq, r->pos, r->token);
  return rc;
}

/* Takes the first n rows of a failed call back. */
static void withdraw(const pf_ctx *c, const pf_row *rows, size_t n) {
  while (n-- > 0)
    if (rows[n].layer < c->model->cfg.info.n_layers)
      pf_seq_untake(rows[n].seq, rows[n].pos, rows[n].layer);
}

static void embed_row(const pf_step *t, size_t r, float factor, float *x) {
  size_t d = (size_t)t->cfg->info.d_model;
  pf_mat_row(&t->c->model->embed, (size_t)t->rows[r].token, x);
  if (t->cfg->scale_embed)
    t->f->scale(d, x, factor, x);
  pf_step_tap(t, r, PF_HOOK_EMBED, -1, x, 1, d);
}

/* What the rows enter with, and the angles of their positions. */
static void enter_part(void *arg, int tid, int nt) {
  const pf_step *t = arg;
  size_t d = (size_t)t->cfg->info.d_model, half = (size_t)t->cfg->info.d_head / 2, lo, hi;
  float factor = __builtin_sqrtf((float)t->cfg->info.d_model);
  pf_step_round_inner(t, 1, &factor);
  pf_par_range(t->n, tid, nt, &lo, &hi);
  for (size_t r = lo; r < hi; r++) {
    float *x = t->s->x + r * d;
    if (t->rows[r].resid) {
      memcpy(x, t->rows[r].resid, d * sizeof *x);
      pf_step_round(t, PF_HOOK_RESID_POST, d, x); /* after the last layer no point does it */
    } else {
      embed_row(t, r, factor, x);
    }
    for (size_t i = 0; i < half; i++)
      pf_rope_angle(t->rows[r].pos, t->c->inv_freq[i], &t->s->cos[r * half + i],
                    &t->s->sin[r * half + i]);
    pf_step_round_inner(t, half, t->s->cos + r * half);
    pf_step_round_inner(t, half, t->s->sin + r * half);
  }
}

static int check_scores(const pf_step *t) {
  for (size_t r = 0; r < t->n; r++)
    if (t->bad[r])
      return pf_fail(PF_ENUMERIC, "attention scores are not finite in layer %d at position %d",
                     t->bad[r] - 1, t->rows[r].pos);
  return PF_OK;
}

/* ---- calls
 * ------------------------------------------------------------------------------------------------------
 */

typedef struct call {
  pf_ctx *c;
  uint8_t *used;
  int32_t *bad;
  const pf_sink *sink;
  pf_row *sorted; /* (PF_STEP_ROWS) */
  bool late;      /* some rows enter above layer 0 */
  bool stops;     /* some leave before the last layer */
} call;

/* A step's rows in the order of the layers at which they enter, else in their own: at each layer
 * those that have entered are the first ones, so that products have no holes. A branch's rows may
 * stand in any order, since all K,V of a layer are stored before its attention. */
static const pf_row *by_layer(const call *k, const pf_row *rows, size_t n) {
  size_t at = 0;
  if (!k->late) {
    memcpy(k->sorted, rows, n * sizeof *rows);
    return k->sorted;
  }
  for (int32_t l = 0; l <= k->c->model->cfg.info.n_layers; l++)
    for (size_t r = 0; r < n; r++)
      if (rows[r].layer == l)
        k->sorted[at++] = rows[r];
  return k->sorted;
}

/* Is what the last layer makes of row r wanted by anybody? */
static bool is_read(const pf_step *t, size_t r, const uint8_t *last) {
  const pf_row *row = &t->rows[r];
  if (pf_step_goes_on(t, r))
    return true;
  for (int h = 0; h < PF_N_HOOKS; h++)
    if (last[h] && !pf_hook_before_kv(h) &&
        pf_tapset_hits(&row->seq->taps, h, t->cfg->info.n_layers - 1, row->pos))
      return true;
  return false;
}

/* Row `from` of what a step keeps from layer to layer goes to the place of row `to`. */
static void move_row(const pf_step *t, pf_row *rows, size_t to, size_t from) {
  size_t d = (size_t)t->cfg->info.d_model, half = (size_t)t->cfg->info.d_head / 2;
  if (to == from)
    return;
  rows[to] = rows[from];
  memcpy(t->s->x + to * d, t->s->x + from * d, d * sizeof(float));
  memcpy(t->s->cos + to * half, t->s->cos + from * half, half * sizeof(float));
  memcpy(t->s->sin + to * half, t->s->sin + from * half, half * sizeof(float));
}

/* Rows whose sequence stops before this layer leave, of the n of the step; what would enter it is
 * the last point that they pass. The others close up. */
static size_t rows_left(pf_step *t, pf_row *rows, size_t n) {
  size_t kept = 0, d = (size_t)t->cfg->info.d_model;
  for (size_t r = 0; r < n; r++) {
    if (rows[r].seq->stop == t->layer) {
      pf_step_tap(t, r, PF_HOOK_RESID_PRE, t->layer, t->s->x + r * d, 1, d);
      t->n--; /* a row enters below its stop, so it is among those present */
      continue;
    }
    move_row(t, rows, kept++, r);
  }
  return kept;
}

static void swap_floats(float *a, float *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    float x = a[i];
    a[i] = b[i];
    b[i] = x;
  }
}

/* Brings the rows that somebody reads to the front, in their order, before the last layer: of the
 * others it owes K,V to what follows, and nothing else. */
static void readers_first(pf_step *t, pf_row *rows) {
  size_t d = (size_t)t->cfg->info.d_model, half = (size_t)t->cfg->info.d_head / 2;
  const uint8_t *last = t->used + (size_t)t->cfg->info.n_layers * PF_N_HOOKS;
  t->read = 0;
  for (size_t r = 0; r < t->n; r++) {
    if (!is_read(t, r, last))
      continue;
    size_t to = t->read++;
    if (to == r)
      continue;
    pf_row row = rows[to];
    rows[to] = rows[r];
    rows[r] = row;
    swap_floats(t->s->x + to * d, t->s->x + r * d, d);
    swap_floats(t->s->cos + to * half, t->s->cos + r * half, half);
    swap_floats(t->s->sin + to * half, t->s->sin + r * half, half);
  }
}

static int run_step(const call *k, const pf_row *rows, size_t n) {
  pf_ctx *c = k->c;
  const pf_model *m = c->model;
  pf_step t = {.c = c,
               .s = c->scratch,
               .cfg = &m->cfg,
               .mode = &pf_modes[m->cfg.info.precision],
               .f = c->simd,
               .rows = by_layer(k, rows, n),
               .n = n,
               .used = k->used,
               .bad = k->bad,
               .prof = c->profiled};
  memset(k->bad, 0, n * sizeof *k->bad);
  double d = (double)m->cfg.info.d_model;
  t.layer = -1;
  pf_step_work(&t, PF_ROLE_EMBED, 0, (double)n * d * (4 + 2));
  pf_step_par(&t, PF_STAGE_ENTER, pf_par_most(c->threads, n), enter_part, &t);
  t.n = 0;
  for (t.layer = 0; t.layer < m->cfg.info.n_layers; t.layer++) {
    n = k->stops ? rows_left(&t, k->sorted, n) : n;
    while (t.n < n && t.rows[t.n].layer <= t.layer)
      t.n++;
    if (t.n == 0)
      continue;
    t.w = &m->layers[t.layer];
    t.read = t.n;
    if (t.layer == m->cfg.info.n_layers - 1)
      readers_first(&t, k->sorted);
    pf_step_layer(&t);
    c->row_layers += t.n;
    int rc = check_scores(&t);
    if (rc != PF_OK)
      return rc;
  }
  t.n = n;
  return n ? pf_step_finish(&t, k->sink) : PF_OK;
}

static int prepare(call *k, const pf_row *rows, size_t n) {
  pf_ctx *c = k->c;
  size_t layers = (size_t)c->model->cfg.info.n_layers, n_blk = 1, n_out = 0, n_logits = 0;
  bool swaps = false;
  k->used = pf_calloc(layers + 1, PF_N_HOOKS);
  k->bad = pf_alloc(PF_STEP_ROWS, sizeof *k->bad);
  if (!k->used || !k->bad)
    return PF_ENOMEM;
  for (size_t r = 0; r < n; r++) {
    if (r == 0 || rows[r].seq != rows[r - 1].seq)
      pf_tapset_mark(&rows[r].seq->taps, k->used);
    swaps |= rows[r].seq->n_swaps > 0;
    n_out += rows[r].out >= 0;
    n_logits += rows[r].out >= 0 || rows[r].score;
    k->late |= rows[r].layer > 0;
    k->stops |= rows[r].seq->stop < c->model->cfg.info.n_layers;
    n_blk = (size_t)rows[r].pos / PF_KBLK + 1 > n_blk ? (size_t)rows[r].pos / PF_KBLK + 1 : n_blk;
  }
  if (n_out && !k->sink)
    return pf_fail(PF_EUSAGE, "rows ask for logits but there is no place to write them");
  if (k->used[PF_HOOK_LOGITS] || k->used[PF_HOOK_LOGITS_PRECAP])
    n_logits = n;
  if (pf_scratch_make(c, n < PF_STEP_ROWS ? n : PF_STEP_ROWS, n_blk, swaps) != PF_OK ||
      (n_logits &&
       pf_scratch_logits(c, n_logits < PF_FINAL_ROWS ? n_logits : PF_FINAL_ROWS) != PF_OK))
    return PF_ENOMEM;
  k->sorted = pf_alloc(n < PF_STEP_ROWS ? n : PF_STEP_ROWS, sizeof *k->sorted);
  if (!k->sorted)
    return PF_ENOMEM;
  for (size_t l = 1; l <= layers; l++)
    if (k->used[l * PF_N_HOOKS + PF_HOOK_RESULT] && pf_scratch_results(c) != PF_OK)
      return PF_ENOMEM;
  return PF_OK;
}

int pf_eval_into(pf_ctx *c, const pf_row *rows, size_t n_rows, const pf_sink *sink) {
  call k = {.c = c, .sink = sink};
  size_t in = 0;
  int rc = PF_OK;
  if (c->profiled)
    pf_prof_call(c->profiled, true);
  for (; in < n_rows && rc == PF_OK; in++)
    rc = admit(c, &rows[in]);
  size_t admitted = rc == PF_OK ? n_rows : in - 1;
  if (rc == PF_OK && n_rows)
    rc = prepare(&k, rows, n_rows);
  for (size_t at = 0; at < n_rows && rc == PF_OK; at += PF_STEP_ROWS)
    rc = run_step(&k, rows + at, n_rows - at < PF_STEP_ROWS ? n_rows - at : PF_STEP_ROWS);
  if (rc != PF_OK)
    withdraw(c, rows, admitted);
  pf_free(k.used);
  pf_free(k.bad);
  pf_free(k.sorted);
  if (c->profiled)
    pf_prof_call(c->profiled, false);
  return rc;
}

typedef struct table {
  float *logits; /* (n_out, v) */
  size_t v;
} table;

static void copy_row(void *user, int tid, int32_t out, float *x) {
  const table *t = user;
  (void)tid;
  memcpy(t->logits + (size_t)out * t->v, x, t->v * sizeof *x);
}

int pf_eval(pf_ctx *c, const pf_row *rows, size_t n_rows, float *logits) {
  table t = {logits, (size_t)c->model->cfg.info.vocab_size};
  return pf_eval_into(c, rows, n_rows, logits ? &(pf_sink){copy_row, &t} : NULL);
}
