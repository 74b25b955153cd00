/* SPDX-License-Identifier: Apache-2.0
 * Cells of a study together. BB runs once, XB once a persona, BY once a task, each forked from BB
 * where their tokens part, XY from XB. A substitution at (l, s) forks XY there and runs s and what
 * follows from layer l on, with the residuals that XY had. By the contract (simd/CONTRACT.md) a
 * forked row has the bits of a whole run; with sharing off every prompt and every substitution is
 * one. */
#include "analysis/cells.h"

#include <string.h>

#include "analysis/geometry.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/status.h"

/* Sites of a base prompt, tokens of y behind it. */
enum { BASE_SITES = 2, TAIL = 2 };
/* Logits of a branch that generates. */
enum { GENERATION_LOGITS = 3 };
const uint64_t pf_default_budget = 1500000000;

static bool stopped(const pf_work *w) {
  return w->o->stop && *w->o->stop;
}

static int32_t n_layers(const pf_work *w) {
  return w->plan->info->n_layers;
}

size_t pf_kv_bytes(const pf_ctx *c, size_t lo, size_t hi) {
  size_t n = hi > lo ? (hi - 1) / PF_KV_BLOCK - lo / PF_KV_BLOCK + 1 : 0;
  return n * pf_ctx_block_bytes(c);
}

/* The same in n of the layers. */
static size_t block_bytes(const pf_work *w, size_t lo, size_t hi, int32_t n) {
  return pf_kv_bytes(w->ctx, lo, hi) / (size_t)n_layers(w) * (size_t)n;
}

/* Counts what the context has computed, and the time it took, since the last time. */
static void count(pf_work *w, size_t rows, pf_phase phase) {
  uint64_t *layers[PF_N_PHASES] = {&w->done.base, &w->done.changed};
  double now = pf_seconds();
  uint64_t computed = pf_ctx_row_layers(w->ctx);
  *layers[phase] += computed - w->counted;
  w->counted = computed;
  w->seconds[phase] += now - w->since;
  w->since = now;
  w->done.rows += rows;
  pf_cost more = {.base = w->done.base - w->told.base,
                  .changed = w->done.changed - w->told.changed,
                  .scored = w->done.scored - w->told.scored};
  if (w->tick)
    w->tick(w->tick_user, &more);
  w->told = w->done;
}

static int eval(pf_work *w, const pf_row *rows, size_t n, pf_phase phase) {
  int rc = stopped(w) ? PF_EINCOMPLETE : pf_eval(w->ctx, rows, n, NULL);
  count(w, n, phase);
  return rc;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void run_free(pf_run *r) {
  pf_seq_free(r->seq);
  pf_free(r->taps);
  pf_free(r->h);
  *r = (pf_run){0};
}

/* Taps of n positions: the input of every layer, and what the final norm gives. */
static void capture_at(const pf_work *w, pf_tap *t, int32_t pos, int32_t n, float *out) {
  int32_t layers = n_layers(w);
  for (int32_t l = 0; l <= layers; l++)
    t[l] = (pf_tap){.hook = l < layers ? w->hook_pre : w->hook_final,
                    .layer = l < layers ? l : -1,
                    .head = -1,
                    .pos_lo = pos,
                    .pos_hi = pos + n,
                    .op = PF_OP_CAPTURE,
                    .out = out + (size_t)l * w->d,
                    .out_stride = w->n_h};
}

static int32_t xy_positions(const pf_role_prompt *q) {
  return q->p_last + PF_Y_MAX - q->p_user_last;
}

/* Tokens that a run can take from another one. */
static int32_t keep_of(const pf_work *w, const pf_role_prompt *q, const pf_role_prompt *from) {
  return w->o->no_sharing ? 0 : pf_shared_prefix(q, from, q->p_user_last);
}

/* A sequence for the prompt that has its first `keep` positions, and n_taps taps. */
static int run_begin(pf_work *w, pf_run *r, const pf_role_prompt *q, const pf_run *from,
                     int32_t keep, size_t n_taps, size_t n_positions) {
  *r = (pf_run){.q = q};
  r->taps = pf_calloc(n_taps, sizeof *r->taps);
  r->h = pf_calloc(n_positions, w->n_h * sizeof *r->h);
  if (!r->taps || !r->h)
    return PF_ENOMEM;
  return from && keep ? pf_seq_fork(&r->seq, from->seq, keep) : pf_seq_new(&r->seq, w->ctx);
}

static int base_begin(pf_work *w, pf_run *r, const pf_role_prompt *q, const pf_run *from,
                      int32_t keep) {
  size_t n = (size_t)n_layers(w) + 1;
  int rc = run_begin(w, r, q, from, keep, BASE_SITES * n, BASE_SITES);
  if (rc != PF_OK)
    return rc;
  for (int i = 0; i < BASE_SITES; i++)
    capture_at(w, r->taps + (size_t)i * n, pf_plan_site(q, (pf_probe)i), 1,
               r->h + (size_t)i * w->n_h);
  return pf_seq_set_taps(r->seq, r->taps, BASE_SITES * n);
}

static size_t prompt_rows(const pf_run *r, pf_row *rows) {
  size_t n = 0;
  for (int32_t at = pf_seq_end(r->seq); (size_t)at < r->q->enc.n; at++)
    rows[n++] = (pf_row){.seq = r->seq, .token = r->q->enc.ids[at], .pos = at, .out = -1};
  return n;
}

/* The prompts of n runs in one call. Runs without their prompt are not kept. */
static int run_prompts(pf_work *w, pf_run **runs, size_t n) {
  size_t n_rows = 0;
  for (size_t i = 0; i < n; i++)
    n_rows += runs[i]->q->enc.n;
  pf_row *rows = pf_alloc(n_rows, sizeof *rows);
  if (!rows)
    return PF_ENOMEM;
  n_rows = 0;
  for (size_t i = 0; i < n; i++)
    n_rows += prompt_rows(runs[i], rows + n_rows);
  int rc = eval(w, rows, n_rows, PF_PHASE_BASE);
  pf_free(rows);
  return rc;
}

int pf_work_bb(pf_work *w) {
  if (w->bb.seq)
    return PF_OK;
  pf_run *bb = &w->bb;
  int rc = base_begin(w, bb, &w->plan->bb, NULL, 0);
  if (rc == PF_OK)
    rc = run_prompts(w, &bb, 1);
  if (rc != PF_OK)
    run_free(bb);
  return rc;
}

/* Begins a base run that is not there yet and lists it. */
static int want_base(pf_work *w, pf_run *r, const pf_role_prompt *q, pf_run **list, size_t *n) {
  if (r->seq)
    return PF_OK;
  list[(*n)++] = r;
  return base_begin(w, r, q, &w->bb, keep_of(w, q, &w->plan->bb));
}

/* Frees XB of personas that none of n cells has. */
static void drop_xb(pf_work *w, const pf_cell *c, size_t n) {
  for (size_t x = 0; x < w->plan->grid.n_personas; x++) {
    bool wanted = false;
    for (size_t i = 0; i < n; i++)
      wanted |= c[i].index / w->plan->grid.n_tasks == x;
    if (!wanted)
      run_free(&w->xb[x]);
  }
}

/* The three base runs of every cell, as far as they are not there yet. */
static int need_base(pf_work *w, pf_cell *c, size_t n) {
  const pf_plan *p = w->plan;
  size_t n_list = 0, n_tasks = p->grid.n_tasks;
  pf_run **list = pf_calloc(p->grid.n_personas + n_tasks, sizeof *list);
  int rc = list ? pf_work_bb(w) : PF_ENOMEM;
  drop_xb(w, c, n);
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    size_t x = c[i].index / n_tasks, y = c[i].index % n_tasks;
    c[i].base[PF_BB] = &w->bb;
    c[i].base[PF_XB] = &w->xb[x];
    c[i].base[PF_BY] = &w->by[y];
    rc = want_base(w, &w->xb[x], &p->xb[x], list, &n_list);
    if (rc == PF_OK)
      rc = want_base(w, &w->by[y], &p->by[y], list, &n_list);
  }
  if (rc == PF_OK && n_list)
    rc = run_prompts(w, list, n_list);
  for (size_t i = 0; i < n_list && rc != PF_OK; i++)
    run_free(list[i]);
  pf_free(list);
  return rc;
}

/* ---- continuations --------------------------------------------------------------------------- */

/* XY's sequence; its taps take the residuals and, at the rows that give y_t, the clean logits. */
static int begin_xy(pf_work *w, pf_cell *c) {
  const pf_role_prompt *q = &w->plan->xy[c->index];
  const pf_run *xb = c->base[PF_XB];
  size_t n_taps = (size_t)n_layers(w) + 2;
  int32_t n = xy_positions(q);
  c->clean = pf_alloc(PF_Y_MAX, w->vocab * sizeof *c->clean);
  int rc =
      c->clean ? run_begin(w, &c->xy, q, xb, keep_of(w, q, xb->q), n_taps, (size_t)n) : PF_ENOMEM;
  if (rc != PF_OK)
    return rc;
  capture_at(w, c->xy.taps, q->p_user_last, n, c->xy.h);
  c->xy.taps[n_taps - 1] = (pf_tap){.hook = w->hook_logits,
                                    .layer = -1,
                                    .head = -1,
                                    .pos_lo = q->p_last,
                                    .pos_hi = q->p_last + PF_Y_MAX,
                                    .op = PF_OP_CAPTURE,
                                    .out = c->clean,
                                    .out_stride = w->vocab};
  return pf_seq_set_taps(c->xy.seq, c->xy.taps, n_taps);
}

static pf_branch branch_of(const pf_work *w, const pf_cell *c) {
  int32_t at = pf_seq_end(c->xy.seq);
  pf_branch b = {.seq = c->xy.seq, .ids = c->xy.q->enc.ids + at, .n = c->xy.q->enc.n - (size_t)at};
  pf_gen_defaults(&b.o);
  b.o.max_tokens = PF_Y_MAX;
  b.o.repetition_penalty = w->plan->repetition_penalty;
  return b;
}

typedef struct continuation {
  pf_work *w;
  pf_cell *c;
  pf_branch *b;
} continuation;

static int take_y(void *user, size_t i) {
  const continuation *k = user;
  k->c[i].y = k->b[i];
  k->b[i].out = (pf_ids){0};
  k->b[i].logprobs = k->b[i].margins = NULL;
  count(k->w, 0, PF_PHASE_BASE);
  return PF_OK;
}

/* The XY prompts of n cells and their continuations, together. */
static int continue_xy(pf_work *w, pf_cell *c, size_t n) {
  pf_branch *b = pf_calloc(n, sizeof *b);
  pf_many_stats stats = {0};
  int rc = b ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    rc = begin_xy(w, &c[i]);
    if (rc == PF_OK)
      b[i] = branch_of(w, &c[i]);
  }
  continuation k = {w, c, b};
  pf_many_opts o = {.on_done = take_y, .user = &k, .stop = w->o->stop};
  if (rc == PF_OK)
    rc = pf_generate_many(w->ctx, b, n, &o, &stats);
  for (size_t i = 0; b && i < n; i++)
    pf_branch_clear(&b[i]);
  pf_free(b);
  count(w, (size_t)stats.rows, PF_PHASE_BASE);
  return rc;
}

typedef struct tail {
  pf_seq *seq;
  pf_tap *taps;
} tail;

/* A fork of a base run for y_0 and y_1; the run's own sequence stays as it is. */
static int tail_begin(const pf_work *w, const pf_cell *c, int k, tail *t) {
  const pf_run *r = c->base[k];
  size_t n_taps = (size_t)n_layers(w) + 1;
  t->taps = pf_calloc(n_taps, sizeof *t->taps);
  if (!t->taps)
    return PF_ENOMEM;
  capture_at(w, t->taps, (int32_t)r->q->enc.n, TAIL, c->tail + (size_t)k * TAIL * w->n_h);
  int rc = pf_seq_fork(&t->seq, r->seq, (int32_t)r->q->enc.n);
  return rc == PF_OK ? pf_seq_set_taps(t->seq, t->taps, n_taps) : rc;
}

static size_t tail_rows(const pf_cell *c, const pf_role_prompt *q, pf_seq *s, pf_row *rows) {
  size_t n = 0;
  for (size_t i = 0; i < TAIL && i < c->y.out.n; i++)
    if ((int32_t)(q->enc.n + i) >= pf_seq_end(s))
      rows[n++] =
          (pf_row){.seq = s, .token = c->y.out.v[i], .pos = (int32_t)(q->enc.n + i), .out = -1};
  return n;
}

/* Appends y_0 and y_1 (as far as they exist) to BB, XB and BY of n cells; to XY what generation
 * left out after an early EOS. */
static int run_tails(pf_work *w, pf_cell *c, size_t n) {
  tail *t = pf_calloc(n * PF_N_BASE, sizeof *t);
  pf_row *rows = pf_alloc(n * PF_N_RUNS * TAIL, sizeof *rows);
  size_t n_rows = 0;
  int rc = t && rows ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    c[i].tail = pf_calloc(PF_N_BASE * TAIL, w->n_h * sizeof *c[i].tail);
    rc = c[i].tail ? PF_OK : PF_ENOMEM;
    for (int k = 0; k < PF_N_BASE && rc == PF_OK; k++) {
      rc = tail_begin(w, &c[i], k, &t[i * PF_N_BASE + (size_t)k]);
      if (rc == PF_OK)
        n_rows +=
            tail_rows(&c[i], c[i].base[k]->q, t[i * PF_N_BASE + (size_t)k].seq, rows + n_rows);
    }
    if (rc == PF_OK)
      n_rows += tail_rows(&c[i], c[i].xy.q, c[i].xy.seq, rows + n_rows);
  }
  if (rc == PF_OK)
    rc = eval(w, rows, n_rows, PF_PHASE_BASE);
  for (size_t i = 0; t && i < n * PF_N_BASE; i++) {
    pf_seq_free(t[i].seq);
    pf_free(t[i].taps);
  }
  pf_free(t);
  pf_free(rows);
  return rc;
}

const float *pf_cell_residual(const pf_work *w, const pf_cell *c, pf_run_id r, pf_probe probe,
                              int32_t layer) {
  const float *at;
  if (r == PF_XY)
    at = c->xy.h + (size_t)(pf_plan_site(c->xy.q, probe) - c->xy.q->p_user_last) * w->n_h;
  else if (probe < PF_G1)
    at = c->base[r]->h + (size_t)probe * w->n_h;
  else
    at = c->tail + ((size_t)r * TAIL + (size_t)(probe - PF_G1)) * w->n_h;
  return at + (size_t)layer * w->d;
}

int32_t pf_cell_scored(const pf_cell *c, pf_probe probe) {
  int32_t left = (int32_t)c->y.out.n - pf_probe_prefix(probe);
  return left < 0 ? 0 : left < PF_SCORED ? left : PF_SCORED;
}

/* ---- substitutions --------------------------------------------------------------------------- */

/* A condition whose rows are in the running step. */
typedef struct live {
  pf_cell *c;
  pf_condition *k;
  pf_seq *seq;
  pf_tap tap;
  float *value; /* (d) */
  pf_score score[PF_SCORED];
} live;

typedef struct step {
  live v[PF_CALL_ROWS];
  size_t n, n_rows, bytes;
  pf_row *rows;
  size_t cap_rows;
} step;

/* Rows of a condition: from its site, or from position 0 with sharing off, to the row that gives
 * its last scored token. */
static int32_t first_row(const pf_work *w, const pf_role_prompt *q, pf_probe probe) {
  return w->o->no_sharing ? 0 : pf_plan_site(q, probe);
}

static int32_t end_row(const pf_role_prompt *q, pf_probe probe, int32_t n_scored) {
  return q->p_last + pf_probe_prefix(probe) + n_scored;
}

/* XY's branch at the tap's (layer, position). */
static int fork_at(const pf_work *w, live *v, int32_t n) {
  if (w->o->no_sharing)
    return pf_seq_new(&v->seq, w->ctx);
  int32_t *layers = pf_alloc((size_t)n, sizeof *layers);
  if (!layers)
    return PF_ENOMEM;
  for (int32_t p = 0; p < n; p++)
    layers[p] = n_layers(w);
  pf_reach_taps(&v->tap, 1, n, layers);
  int rc = pf_seq_fork_layers(&v->seq, v->c->xy.seq, n, layers);
  pf_free(layers);
  return rc;
}

static int live_begin(const pf_work *w, live *v) {
  const pf_cell *c = v->c;
  const pf_condition *k = v->k;
  int32_t at = pf_plan_site(c->xy.q, k->probe);
  v->value = pf_alloc(w->d, sizeof *v->value);
  if (!v->value)
    return PF_ENOMEM;
  pf_additive(pf_cell_residual(w, c, PF_BB, k->probe, k->layer),
              pf_cell_residual(w, c, PF_XB, k->probe, k->layer),
              pf_cell_residual(w, c, PF_BY, k->probe, k->layer), w->d, v->value);
  v->tap = (pf_tap){.hook = w->hook_pre,
                    .layer = k->layer,
                    .head = -1,
                    .pos_lo = at,
                    .pos_hi = at + 1,
                    .op = PF_OP_REPLACE,
                    .value = v->value};
  int rc = fork_at(w, v, end_row(c->xy.q, k->probe, k->n_scored));
  return rc == PF_OK ? pf_seq_set_taps(v->seq, &v->tap, 1) : rc;
}

static void live_rows(const pf_work *w, live *v, step *s) {
  const pf_cell *c = v->c;
  const pf_condition *k = v->k;
  const pf_role_prompt *q = c->xy.q;
  int32_t n = (int32_t)q->enc.n, prefix = pf_probe_prefix(k->probe), first = q->p_last + prefix;
  int32_t end = end_row(q, k->probe, k->n_scored);
  for (int32_t at = first_row(w, q, k->probe); at < end; at++) {
    pf_row *r = &s->rows[s->n_rows++];
    *r = (pf_row){.seq = v->seq,
                  .token = at < n ? q->enc.ids[at] : c->y.out.v[at - n],
                  .pos = at,
                  .out = -1,
                  .layer = w->o->no_sharing ? 0 : k->layer};
    if (r->layer)
      r->resid = c->xy.h + (size_t)(at - q->p_user_last) * w->n_h + (size_t)k->layer * w->d;
    if (at < first)
      continue;
    r->score = &v->score[at - first];
    *r->score = (pf_score){.what = PF_SCORE_KL, .ref = &c->ref[at - first + prefix]};
  }
}

/* The substitution acted; its scores go home. */
static int live_end(const live *v) {
  if (v->tap.fired != 1)
    return pf_fail(PF_EINTERNAL, "the substitution at layer %d acted on %llu rows, not on one",
                   v->k->layer, (unsigned long long)v->tap.fired);
  for (int32_t t = 0; t < v->k->n_scored; t++)
    v->k->kl[t] = v->score[t].kl;
  v->c->left--;
  return PF_OK;
}

/* Bytes of K,V that a condition's branch owns, and of its value. */
static size_t live_bytes(const pf_work *w, const pf_role_prompt *q, pf_probe probe, int32_t layer,
                         int32_t n_scored) {
  return block_bytes(w, (size_t)first_row(w, q, probe), (size_t)end_row(q, probe, n_scored),
                     n_layers(w) - (w->o->no_sharing ? 0 : layer)) +
         w->d * sizeof(float);
}

static int run_step(pf_work *w, step *s) {
  int rc = s->n ? PF_OK : PF_EINTERNAL;
  s->n_rows = 0;
  for (size_t i = 0; i < s->n && rc == PF_OK; i++) {
    rc = live_begin(w, &s->v[i]);
    if (rc == PF_OK)
      live_rows(w, &s->v[i], s);
  }
  for (size_t i = 0; i < s->n; i++)
    w->done.scored += (uint64_t)s->v[i].k->n_scored;
  if (rc == PF_OK)
    rc = eval(w, s->rows, s->n_rows, PF_PHASE_SUBSTITUTIONS);
  for (size_t i = 0; i < s->n; i++) {
    if (rc == PF_OK)
      rc = live_end(&s->v[i]);
    pf_seq_free(s->v[i].seq);
    pf_free(s->v[i].value);
  }
  s->n = s->n_rows = s->bytes = 0;
  return rc;
}

static int room_for_rows(step *s, size_t n) {
  if (n <= s->cap_rows)
    return PF_OK;
  pf_free(s->rows);
  s->rows = pf_alloc(n, sizeof *s->rows);
  s->cap_rows = s->rows ? n : 0;
  return s->rows ? PF_OK : PF_ENOMEM;
}

/* Puts a condition into the step; runs the step first if the condition does not fit beside what it
 * holds. */
static int add_condition(pf_work *w, step *s, pf_cell *c, pf_condition *k) {
  const pf_role_prompt *q = c->xy.q;
  size_t rows = (size_t)(end_row(q, k->probe, k->n_scored) - first_row(w, q, k->probe));
  size_t bytes = live_bytes(w, q, k->probe, k->layer, k->n_scored);
  int rc = PF_OK;
  if (s->n && (s->n_rows + rows > PF_CALL_ROWS || s->bytes + bytes > w->in_flight))
    rc = run_step(w, s);
  if (rc == PF_OK)
    rc = room_for_rows(s, rows > PF_CALL_ROWS ? rows : PF_CALL_ROWS);
  if (rc != PF_OK)
    return rc;
  s->v[s->n++] = (live){.c = c, .k = k};
  s->n_rows += rows;
  s->bytes += bytes;
  return PF_OK;
}

static void cell_free(pf_cell *c) {
  run_free(&c->xy);
  pf_free(c->tail);
  pf_free(c->clean);
  pf_free(c->k);
  pf_branch_clear(&c->y);
  *c = (pf_cell){0};
}

/* Hands over the cells from *at on that are finished. */
static int hand_over(pf_cell *c, size_t n, size_t *at, int (*on_cell)(void *, const pf_cell *),
                     void *user) {
  int rc = PF_OK;
  for (; *at < n && c[*at].left == 0 && rc == PF_OK; ++*at) {
    rc = on_cell(user, &c[*at]);
    cell_free(&c[*at]);
  }
  return rc;
}

static size_t n_conditions(const pf_work *w) {
  return w->plan->grid.n_probes * w->plan->layers.n;
}

static int list_conditions(const pf_work *w, pf_cell *c) {
  const pf_plan *p = w->plan;
  c->k = pf_calloc(n_conditions(w), sizeof *c->k);
  for (size_t i = 0; c->k && i < n_conditions(w); i++) {
    c->k[i].probe = p->grid.probes[i / p->layers.n];
    c->k[i].layer = p->layers.v[i % p->layers.n];
    c->k[i].n_scored = pf_cell_scored(c, c->k[i].probe);
    c->left += c->k[i].n_scored > 0;
  }
  for (size_t t = 0; t < c->y.out.n; t++)
    pf_ref_make(&c->ref[t], c->clean + t * w->vocab, w->vocab);
  return c->k ? PF_OK : PF_ENOMEM;
}

/* Steps of conditions of all cells, cell by cell, so that cells are finished in their order. */
static int substitute(pf_work *w, pf_cell *c, size_t n, int (*on_cell)(void *, const pf_cell *),
                      void *user) {
  step *s = pf_calloc(1, sizeof *s);
  size_t finished = 0;
  int rc = s ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    rc = list_conditions(w, &c[i]);
    for (size_t k = 0; k < n_conditions(w) && rc == PF_OK; k++) {
      if (c[i].k[k].n_scored > 0)
        rc = add_condition(w, s, &c[i], &c[i].k[k]);
      if (rc == PF_OK)
        rc = hand_over(c, i, &finished, on_cell, user);
    }
  }
  if (rc == PF_OK && s->n)
    rc = run_step(w, s);
  if (rc == PF_OK)
    rc = hand_over(c, n, &finished, on_cell, user);
  if (s)
    pf_free(s->rows);
  pf_free(s);
  return rc;
}

/* ---- cells together -------------------------------------------------------------------------- */

/* A fork for y_0 and y_1 owns the blocks that they lie in. */
static size_t tail_bytes(const pf_work *w, const pf_cell *c) {
  size_t bytes = 0;
  for (int k = 0; k < PF_N_BASE; k++)
    bytes += block_bytes(w, c->base[k]->q->enc.n, c->base[k]->q->enc.n + TAIL, n_layers(w));
  return bytes;
}

/* Tails of as many cells at a time as there is room for. */
static int all_tails(pf_work *w, pf_cell *c, size_t n) {
  int rc = PF_OK;
  for (size_t at = 0, m; at < n && rc == PF_OK; at += m) {
    size_t bytes = tail_bytes(w, &c[at]);
    for (m = 1; at + m < n && bytes + tail_bytes(w, &c[at + m]) <= w->in_flight; m++)
      bytes += tail_bytes(w, &c[at + m]);
    rc = run_tails(w, c + at, m);
  }
  return rc;
}

int pf_cells_run(pf_work *w, const size_t *index, size_t n,
                 int (*on_cell)(void *user, const pf_cell *c), void *user) {
  pf_cell *c = pf_calloc(n, sizeof *c);
  int rc = c ? PF_OK : PF_ENOMEM;
  w->since = pf_seconds();
  w->counted = pf_ctx_row_layers(w->ctx);
  for (size_t i = 0; c && i < n; i++)
    c[i].index = index[i];
  if (rc == PF_OK)
    rc = need_base(w, c, n);
  if (rc == PF_OK)
    rc = continue_xy(w, c, n);
  if (rc == PF_OK)
    rc = all_tails(w, c, n);
  if (rc == PF_OK)
    rc = substitute(w, c, n, on_cell, user);
  for (size_t i = 0; c && i < n; i++)
    cell_free(&c[i]);
  pf_free(c);
  return rc;
}

/* ---- what it costs --------------------------------------------------------------------------- */

static void cost_prompt(const pf_work *w, const pf_role_prompt *q, int32_t keep, pf_cost *cost) {
  cost->rows += q->enc.n - (uint64_t)keep;
  cost->base += (q->enc.n - (uint64_t)keep) * (uint64_t)n_layers(w);
}

void pf_cost_base(const pf_work *w, pf_cost *cost) {
  const pf_plan *p = w->plan;
  cost_prompt(w, &p->bb, 0, cost);
  for (size_t i = 0; i < p->grid.n_personas; i++)
    cost_prompt(w, &p->xb[i], keep_of(w, &p->xb[i], &p->bb), cost);
  for (size_t i = 0; i < p->grid.n_tasks; i++)
    cost_prompt(w, &p->by[i], keep_of(w, &p->by[i], &p->bb), cost);
}

void pf_cost_cell(const pf_work *w, size_t c, pf_cost *cost) {
  const pf_plan *p = w->plan;
  const pf_role_prompt *q = &p->xy[c];
  uint64_t layers = (uint64_t)n_layers(w), more = PF_Y_MAX - 1 + PF_N_BASE * TAIL;
  cost_prompt(w, q, keep_of(w, q, &p->xb[c / p->grid.n_tasks]), cost);
  cost->rows += more;
  cost->base += more * layers;
  for (size_t i = 0; i < n_conditions(w); i++) {
    pf_probe probe = p->grid.probes[i / p->layers.n];
    uint64_t end = (uint64_t)end_row(q, probe, PF_SCORED),
             rows = end - (uint64_t)first_row(w, q, probe);
    uint64_t from = w->o->no_sharing ? 0 : (uint64_t)p->layers.v[i % p->layers.n];
    cost->rows += rows;
    cost->changed += rows * (layers - from);
    cost->whole += end * layers;
    cost->scored += PF_SCORED;
  }
}

uint64_t pf_layer_units(const pf_model_info *i) {
  uint64_t d = (uint64_t)i->d_model, heads = (uint64_t)(2 * i->n_heads + 2 * i->n_kv_heads);
  return d * (heads * (uint64_t)i->d_head + 3 * (uint64_t)i->d_ff);
}

uint64_t pf_work_units(const pf_work *w, const pf_cost *cost) {
  const pf_model_info *i = w->plan->info;
  return (cost->base + cost->changed) * pf_layer_units(i) +
         cost->scored * (uint64_t)i->d_model * (uint64_t)i->vocab_size;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Bytes, with room for the longest prompt wherever a prompt is meant. */
typedef struct memory {
  uint64_t fixed, run, cell; /* whatever goes together; each base run; each cell beside those */
  uint64_t least, most;      /* of branches in flight: one, and as many as a step takes */
} memory;

static memory memory_of(const pf_work *w) {
  const pf_plan *p = w->plan;
  uint64_t row = (uint64_t)w->vocab * sizeof(float), h = (uint64_t)w->n_h * sizeof(float), sum = 0;
  const pf_role_prompt *q = pf_plan_longest(p);
  uint64_t kv = block_bytes(w, 0, q->enc.n + PF_Y_MAX, n_layers(w));
  memory m = {.fixed = pf_ctx_scratch_bytes(w->ctx, PF_CALL_ROWS, 0) + PF_LOGIT_ROWS * row,
              .run = kv + BASE_SITES * h,
              .cell = kv + ((uint64_t)xy_positions(q) + PF_N_BASE * TAIL) * h +
                      (PF_Y_MAX + GENERATION_LOGITS) * row,
              .least = block_bytes(w, 31, 33, n_layers(w)) * PF_N_BASE};
  for (size_t i = 0; i < n_conditions(w); i++) {
    uint64_t one =
        live_bytes(w, q, p->grid.probes[i / p->layers.n], p->layers.v[i % p->layers.n], PF_SCORED);
    sum += one;
    m.least = 2 * one > m.least ? 2 * one : m.least; /* another prompt may touch a block more */
  }
  m.most = m.least + sum / n_conditions(w) * (PF_CALL_ROWS / PF_SCORED);
  return m;
}

/* Personas of n of the work's cells in a row, at most: without holes between them, as in a shard or
 * after a break, they would have fewer. */
static size_t group_personas(const pf_work *w, size_t n) {
  size_t tasks = w->plan->grid.n_tasks, most = 1;
  for (size_t at = 0; at + n <= w->n_cells; at++) {
    size_t personas = 1;
    for (size_t i = at + 1; i < at + n; i++)
      personas += w->cells[i] / tasks != w->cells[i - 1] / tasks;
    most = personas > most ? personas : most;
  }
  return most;
}

static uint64_t memory_for(const pf_work *w, const memory *m, size_t n) {
  size_t runs = 1 + w->plan->grid.n_tasks + group_personas(w, n);
  return m->fixed + n * m->cell + runs * m->run;
}

uint64_t pf_work_memory(const pf_work *w, size_t n) {
  memory m = memory_of(w);
  return memory_for(w, &m, n) + w->in_flight;
}

uint64_t pf_work_least(const pf_work *w) {
  memory m = memory_of(w);
  return memory_for(w, &m, 1) + m.least;
}

size_t pf_work_fit(pf_work *w, uint64_t budget) {
  memory m = memory_of(w);
  uint64_t one = memory_for(w, &m, 1), room = budget > one ? budget - one : 0;
  size_t n = w->n_cells ? w->n_cells : 1;
  w->in_flight = (size_t)(m.most < room ? m.most : room);
  while (n > 1 && memory_for(w, &m, n) + w->in_flight > budget)
    n--;
  return n;
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static int find_hook(const pf_work *w, const char *name, int *id) {
  int32_t layer;
  return pf_hook_find(w->plan->model, name, id, &layer);
}

int pf_work_begin(pf_work *w, const pf_plan *p, const pf_study_opts *o) {
  const pf_model_info *i = p->info;
  *w = (pf_work){.plan = p, .o = o, .d = (size_t)i->d_model, .vocab = (size_t)i->vocab_size};
  w->n_h = w->d * ((size_t)i->n_layers + 1);
  w->xb = pf_calloc(p->grid.n_personas, sizeof *w->xb);
  w->by = pf_calloc(p->grid.n_tasks, sizeof *w->by);
  int rc = w->xb && w->by ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK)
    rc = find_hook(w, "blocks.0.hook_resid_pre", &w->hook_pre);
  if (rc == PF_OK)
    rc = find_hook(w, "ln_final.hook_out", &w->hook_final);
  if (rc == PF_OK)
    rc = find_hook(w, "unembed.hook_out", &w->hook_logits);
  return rc == PF_OK ? pf_ctx_new(&w->ctx, p->model, &(pf_ctx_opts){.threads = o->threads}) : rc;
}

void pf_work_drop(pf_work *w) {
  run_free(&w->bb);
  for (size_t i = 0; w->xb && i < w->plan->grid.n_personas; i++)
    run_free(&w->xb[i]);
  for (size_t i = 0; w->by && i < w->plan->grid.n_tasks; i++)
    run_free(&w->by[i]);
}

void pf_work_end(pf_work *w) {
  pf_work_drop(w);
  pf_free(w->xb);
  pf_free(w->by);
  pf_ctx_free(w->ctx);
  *w = (pf_work){0};
}
