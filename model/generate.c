/* SPDX-License-Identifier: Apache-2.0
 * Generation of many branches together. A unit is a branch, or a beginning that several prompts
 * share (prefix.h); it feeds the tokens it has to pf_eval, as many as there are: the ids of a
 * prompt, then one chosen token a step. A unit starts when what it continues is there, so the
 * prompts of all branches under a beginning go together in one call.
 *
 * Memory is reserved for all that a unit may come to hold before it starts; a beginning's is given
 * back when the last branch under it has ended, since these hold its blocks. Branches start in the
 * order of the tree: what they wait for is paid for already, so they never wait for each other. */
#include <stdlib.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "model/prefix.h"
#include "model/sample.h"
#include "model/step.h"

/* Rows that sharing a beginning must save, since it costs a step more, and tokens that it must add
 * to the one before, since it holds blocks of its own. */
enum { SHARE_WORTH = 32, SHARE_STEP = 4 };
/* Rows of prompts in a call. */
enum { CALL_ROWS = 2048 };

static const size_t NO_ROW = SIZE_MAX;

typedef enum unit_state { WAITING, RUNNING, READY, ENDED } unit_state;

typedef struct unit {
  pf_branch *b; /* NULL: a shared beginning */
  size_t index; /* of b in the caller's list */
  pf_seq *seq;
  const int32_t *ids;
  size_t n, at; /* of ids and generated tokens, `at` are fed or inherited */
  int64_t parent;
  size_t users; /* of a beginning: units that continue it and have not ended */
  size_t kv;    /* bytes it may come to hold */
  size_t cap[2];
  unit_state state;
  size_t fed, out; /* in this step: rows, and the row of logits */
} unit;

typedef struct run {
  pf_ctx *c;
  const pf_many_opts *o;
  pf_many_stats *stats;
  unit *u; /* (n_prefixes + n): beginnings, then branches in the order in which they start */
  size_t n_u, next;
  size_t *active, n_active, in_flight;
  size_t held; /* bytes reserved for K,V */
  size_t kv_before;
  pf_row *rows;
  size_t cap_rows, n_rows;
  size_t cap_out, n_out;
  float *given;      /* (vocab) */
  pf_chosen *chosen; /* (cap_out) */
  const unit **picks;
  pf_picker *pickers; /* (n_pickers) */
  size_t n_pickers;   /* as many threads as choose at once */
  uint64_t done, total;
} run;

static size_t vocab(const run *g) {
  return (size_t)g->c->model->cfg.info.vocab_size;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Bytes of the blocks with positions [from, to). */
static size_t kv_bytes(const run *g, size_t from, size_t to) {
  size_t blocks = (to + PF_KBLK - 1) / PF_KBLK - from / PF_KBLK;
  return to > from ? blocks * pf_kv_block_bytes(g->c) * (size_t)g->c->model->cfg.info.n_layers : 0;
}

/* Bytes of logits with so many branches in flight. */
static size_t logit_bytes(const run *g, size_t n) {
  return (n < PF_FINAL_ROWS ? n : PF_FINAL_ROWS) * vocab(g) * sizeof(float);
}

/* Positions that a branch may come to hold: its last token needs none. */
static size_t last_position(const run *g, const pf_branch *b, size_t begin) {
  size_t most = (size_t)g->c->model->cfg.info.max_positions,
         want = begin + b->n + (size_t)b->o.max_tokens - 1;
  return want < most ? want : most;
}

/* What it takes to start u: its own, and that of beginnings that have not started. */
static size_t kv_to_start(const run *g, const unit *u, bool alone) {
  size_t sum = u->kv;
  for (int64_t p = u->parent; p >= 0; p = g->u[p].parent)
    sum += alone || g->u[p].state == WAITING ? g->u[p].kv : 0;
  return sum;
}

/* The branch that needs most by itself; stats->memory_one receives how much. */
static const unit *largest_unit(run *g) {
  const unit *largest = NULL;
  g->stats->memory_one = 0;
  for (size_t i = g->next; i < g->n_u; i++) {
    size_t need = g->held + kv_to_start(g, &g->u[i], true) + logit_bytes(g, 1);
    if (need > g->stats->memory_one) {
      g->stats->memory_one = need;
      largest = &g->u[i];
    }
  }
  return largest;
}

static bool too_small(const run *g) {
  return g->o->memory && g->stats->memory_one > g->o->memory;
}

static int refuse(const run *g, const unit *largest) {
  return pf_fail(
      PF_ENOMEM,
      "a memory limit of %zu bytes is too small: the largest branch (%zu tokens, up to %d more) "
      "needs %zu bytes for K,V and logits",
      g->o->memory, largest->n, largest->b->o.max_tokens, g->stats->memory_one);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static int check_branch(const run *g, const pf_branch *b) {
  const pf_model_info *m = &g->c->model->cfg.info;
  size_t begin = b->seq ? (size_t)b->seq->end : 0;
  int rc = pf_gen_check(&b->o, m);
  if (rc == PF_OK && b->seq && b->seq->ctx != g->c)
    rc = pf_fail(PF_EUSAGE, "the sequence does not belong to this context");
  if (rc == PF_OK && b->n == 0 && !(b->seq && b->logits))
    rc = pf_fail(PF_EUSAGE, "the prompt is empty: at least one token is needed");
  if (rc == PF_OK && begin + b->n > (size_t)m->max_positions)
    rc = pf_fail(PF_EUSAGE, "the prompt has %zu tokens; the model has %d positions", begin + b->n,
                 m->max_positions);
  for (size_t i = 0; i < b->n && rc == PF_OK; i++)
    rc = pf_check_token(m, b->ids[i]);
  return rc;
}

static int by_address(const void *a, const void *b) {
  const pf_seq *const *x = a, *const *y = b;
  return *x < *y ? -1 : *x > *y;
}

static int check_seqs(const pf_branch *b, size_t n) {
  const pf_seq **s = pf_alloc(n, sizeof(pf_seq *));
  size_t m = 0;
  int rc = s ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && s; i++)
    if (b[i].seq)
      s[m++] = b[i].seq;
  if (m)
    qsort(s, m, sizeof(pf_seq *), by_address);
  for (size_t i = 1; i < m && rc == PF_OK; i++)
    if (s[i] == s[i - 1])
      rc = pf_fail(PF_EUSAGE, "two branches have the same sequence: fork it");
  pf_free(s);
  return rc;
}

static int check_all(const run *g, const pf_branch *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    int rc = check_branch(g, &b[i]);
    if (rc != PF_OK)
      return n > 1 ? pf_fail_prefix(rc, "branch %zu", i) : rc;
  }
  return check_seqs(b, n);
}

/* ---- units ----------------------------------------------------------------------------------- */

/* Beginnings, then the branches without a sequence in the order of the tree. */
static void add_tree(run *g, pf_branch *b, const pf_prompt_ids *p, const pf_prefix_tree *t,
                     size_t n) {
  for (size_t i = 0; i < t->n_v + n; i++) {
    unit *u = &g->u[g->n_u++];
    bool prefix = i < t->n_v;
    int64_t parent = prefix ? t->v[i].parent : t->of[i - t->n_v];
    size_t begin = parent >= 0 ? t->v[parent].n : 0;
    *u = (unit){.parent = parent, .at = begin};
    if (prefix) {
      u->ids = t->v[i].ids;
      u->n = t->v[i].n;
      u->kv = kv_bytes(g, begin, u->n);
    } else {
      u->index = p[i - t->n_v].index;
      u->b = &b[u->index];
      u->ids = u->b->ids;
      u->n = u->b->n;
      u->kv = kv_bytes(g, begin, last_position(g, u->b, 0));
    }
    if (parent >= 0)
      g->u[parent].users++;
  }
}

/* A sequence that stays the caller's never gives back what it comes to hold. */
static void add_given(run *g, pf_branch *b, size_t index) {
  size_t begin = (size_t)b->seq->end, kv = kv_bytes(g, begin, last_position(g, b, begin));
  g->u[g->n_u++] = (unit){.b = b,
                          .index = index,
                          .seq = b->seq,
                          .ids = b->ids,
                          .n = b->n,
                          .parent = -1,
                          .kv = b->free_seq ? kv : 0};
  g->held += b->free_seq ? 0 : kv;
}

static int make_units(run *g, pf_branch *b, size_t n, size_t worth) {
  pf_prompt_ids *p = pf_alloc(n, sizeof *p);
  pf_prefix_tree t = {0};
  size_t m = 0;
  for (size_t i = 0; p && i < n; i++)
    if (!b[i].seq)
      p[m++] = (pf_prompt_ids){b[i].ids, b[i].n, i};
  int rc = p ? pf_prefix_tree_make(&t, p, m, worth, SHARE_STEP) : PF_ENOMEM;
  if (rc == PF_OK && !(g->u = pf_alloc(t.n_v + n, sizeof *g->u)))
    rc = PF_ENOMEM;
  if (rc == PF_OK)
    add_tree(g, b, p, &t, m);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    if (b[i].seq)
      add_given(g, &b[i], i);
  g->next = t.n_v;
  pf_prefix_tree_free(&t);
  pf_free(p);
  return rc;
}

/* Beginnings hold blocks of their own: where the limit is too small for them, nothing is shared. */
static int make_fitting_units(run *g, pf_branch *b, size_t n) {
  int rc = make_units(g, b, n, SHARE_WORTH);
  const unit *largest = rc == PF_OK ? largest_unit(g) : NULL;
  if (rc == PF_OK && too_small(g)) {
    pf_free(g->u);
    g->u = NULL;
    g->n_u = g->held = 0;
    rc = make_units(g, b, n, SIZE_MAX);
    largest = rc == PF_OK ? largest_unit(g) : NULL;
  }
  return rc == PF_OK && too_small(g) ? refuse(g, largest) : rc;
}

static bool fits(const run *g, const unit *u) {
  if (g->o->batch && g->in_flight >= g->o->batch)
    return false;
  return !g->o->memory ||
         g->held + kv_to_start(g, u, false) + logit_bytes(g, g->in_flight + 1) <= g->o->memory;
}

/* From waiting to running, what it continues first. */
static void admit(run *g, size_t i) {
  unit *u = &g->u[i];
  if (u->parent >= 0 && g->u[u->parent].state == WAITING)
    admit(g, (size_t)u->parent);
  u->state = RUNNING;
  g->held += u->kv;
  g->active[g->n_active++] = i;
}

static void admit_all(run *g) {
  for (; g->next < g->n_u && fits(g, &g->u[g->next]); g->next++) {
    admit(g, g->next);
    g->in_flight++;
  }
  if (g->in_flight > g->stats->in_flight)
    g->stats->in_flight = g->in_flight;
}

/* Gives back what an ended unit held; the beginning goes with the last that continued it. */
static void release(run *g, unit *u) {
  g->held -= u->kv;
  u->state = ENDED;
  if (!u->b || !u->b->seq || u->b->free_seq)
    pf_seq_free(u->seq);
  u->seq = NULL;
  if (u->b && u->b->free_seq)
    u->b->seq = NULL;
  if (u->parent >= 0 && --g->u[u->parent].users == 0)
    release(g, &g->u[u->parent]);
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Makes the sequence of a unit as soon as it can be made. */
static int start(run *g, unit *u) {
  if (u->seq)
    return PF_OK;
  if (u->parent < 0)
    return pf_seq_new(&u->seq, g->c);
  const unit *p = &g->u[u->parent];
  return p->state == READY ? pf_seq_fork(&u->seq, p->seq, (int32_t)p->n) : PF_OK;
}

static size_t tokens_of(const unit *u) {
  return u->n + (u->b ? u->b->out.n : 0);
}

/* Puts the next rows of a unit into the call: all it has, as far as its chunk and the call allow.
 */
static void feed(run *g, unit *u) {
  size_t left = tokens_of(u) - u->at, chunk = u->b ? (size_t)u->b->o.chunk : 0;
  size_t room = g->n_rows < CALL_ROWS ? CALL_ROWS - g->n_rows : 0, m = left;
  if (left > 1) {
    m = m > room ? room : m;
    m = chunk && m > chunk ? chunk : m;
  }
  for (size_t i = u->at; i < u->at + m; i++)
    g->rows[g->n_rows++] = (pf_row){.seq = u->seq,
                                    .token = i < u->n ? u->ids[i] : u->b->out.v[i - u->n],
                                    .pos = u->seq->end + (int32_t)(i - u->at),
                                    .out = -1};
  u->fed = m;
  u->out = NO_ROW;
  if (!u->b || m < left)
    return;
  u->out = g->n_out++;
  g->picks[u->out] = u;
  if (m)
    g->rows[g->n_rows - 1].out = (int32_t)u->out;
}

static int collect(run *g) {
  int rc = PF_OK;
  g->n_rows = g->n_out = 0;
  for (size_t i = 0; i < g->n_active && rc == PF_OK; i++) {
    unit *u = &g->u[g->active[i]];
    u->fed = 0;
    u->out = NO_ROW;
    rc = start(g, u);
    if (rc == PF_OK && u->seq)
      feed(g, u);
  }
  return rc;
}

/* Room for the rows and choices of all that is active. */
static int make_room(run *g) {
  if (g->n_active + CALL_ROWS > g->cap_rows) {
    pf_free(g->rows);
    g->cap_rows = 2 * g->n_active + CALL_ROWS;
    g->rows = pf_alloc(g->cap_rows, sizeof *g->rows);
  }
  if (g->in_flight > g->cap_out) {
    pf_free(g->chosen);
    pf_free(g->picks);
    g->cap_out = 2 * g->in_flight;
    g->chosen = pf_alloc(g->cap_out, sizeof *g->chosen);
    g->picks = pf_alloc(g->cap_out, sizeof *g->picks);
  }
  return g->rows && g->chosen && g->picks ? PF_OK : PF_ENOMEM;
}

/* A pf_sink. */
static void pick(void *user, int tid, int32_t out, float *x) {
  run *g = user;
  const unit *u = g->picks[out];
  pf_pick(&g->pickers[tid], u->seq, &u->b->o, u->b->out.n, x, &g->chosen[out]);
}

/* A first token from logits that were given: on a copy, since others may read them. */
static int pick_given(run *g, size_t out) {
  const float *x = g->picks[out]->b->logits;
  if (!g->given && !(g->given = pf_alloc(vocab(g), sizeof *g->given)))
    return PF_ENOMEM;
  if (!g->c->simd->finite(vocab(g), x))
    return pf_fail(PF_ENUMERIC, "the logits that a branch was given are not finite");
  memcpy(g->given, x, vocab(g) * sizeof *x);
  uint64_t env = pf_fp_enter();
  pick(g, 0, (int32_t)out, g->given);
  pf_fp_leave(env);
  return PF_OK;
}

static int eval(run *g) {
  int rc = PF_OK;
  for (size_t i = 0; i < g->n_out && rc == PF_OK; i++)
    if (!g->picks[i]->fed)
      rc = pick_given(g, i);
  return rc == PF_OK ? pf_eval_into(g->c, g->rows, g->n_rows, &(pf_sink){pick, g}) : rc;
}

static bool is_eos(const run *g, const pf_gen_opts *o, int32_t id) {
  const pf_model_info *m = &g->c->model->cfg.info;
  const int32_t *v = o->eos ? o->eos : m->eos;
  size_t n = o->eos ? o->n_eos : (size_t)m->n_eos;
  for (size_t i = 0; i < n && !o->ignore_eos; i++)
    if (v[i] == id)
      return true;
  return false;
}

static int keep(unit *u, const pf_chosen *c) {
  pf_branch *b = u->b;
  void *p[2] = {b->logprobs, b->margins};
  int rc = PF_OK;
  for (int i = 0; i < 2 && rc == PF_OK; i++)
    rc = pf_grow(&p[i], &u->cap[i], b->out.n + 1, sizeof(float));
  b->logprobs = p[0];
  b->margins = p[1];
  if (rc != PF_OK)
    return rc;
  b->logprobs[b->out.n] = c->logprob;
  b->margins[b->out.n] = c->margin;
  return pf_ids_push(&b->out, c->id);
}

static pf_finish finish_of(const run *g, const unit *u, int32_t id, bool stopped) {
  const pf_branch *b = u->b;
  if (is_eos(g, &b->o, id))
    return PF_FINISH_EOS;
  if (b->out.n == (size_t)b->o.max_tokens)
    return PF_FINISH_LENGTH;
  if (u->seq->end >= g->c->model->cfg.info.max_positions)
    return PF_FINISH_POSITIONS;
  return stopped ? PF_FINISH_STOPPED : PF_FINISH_NONE;
}

static int take(run *g, unit *u) {
  const pf_chosen *c = &g->chosen[u->out];
  pf_branch *b = u->b;
  int rc = keep(u, c);
  if (rc != PF_OK)
    return rc;
  g->stats->generated++;
  bool stopped = b->o.on_token && b->o.on_token(b->o.user, c->id, c->logprob, c->margin);
  b->finish = finish_of(g, u, c->id, stopped);
  if (b->finish == PF_FINISH_NONE)
    return PF_OK;
  g->done += u->n + (size_t)b->o.max_tokens;
  g->in_flight--;
  release(g, u);
  return g->o->on_done ? g->o->on_done(g->o->user, u->index) : PF_OK;
}

/* Moves the units on and forgets those that have nothing to do any more. */
static int advance(run *g) {
  size_t kept = 0;
  int rc = PF_OK;
  for (size_t i = 0; i < g->n_active; i++) {
    unit *u = &g->u[g->active[i]];
    u->at += u->fed;
    if (!u->b && u->at == u->n)
      u->state = READY;
    if (rc == PF_OK && u->out != NO_ROW)
      rc = take(g, u);
    if (u->state == RUNNING)
      g->active[kept++] = g->active[i];
  }
  g->n_active = kept;
  return rc;
}

static void report(const run *g) {
  uint64_t done = g->done;
  if (!g->o->progress)
    return;
  for (size_t i = 0; i < g->n_active; i++)
    if (g->u[g->active[i]].b)
      done += g->u[g->active[i]].at;
  g->o->progress(g->o->progress_user, "generate", done, g->total);
}

/* After the rows of a step, before anything is given back. */
static void count_step(run *g) {
  pf_many_stats *s = g->stats;
  size_t now = g->c->kv_bytes, before = g->kv_before;
  size_t memory = (now > before ? now - before : 0) + logit_bytes(g, g->n_out);
  s->steps++;
  s->rows += g->n_rows;
  s->memory_peak = memory > s->memory_peak ? memory : s->memory_peak;
  for (size_t i = 0; i < g->n_active; i++) {
    const unit *u = &g->u[g->active[i]];
    size_t left = u->n > u->at ? u->n - u->at : 0;
    s->prompt_rows += u->fed < left ? u->fed : left;
  }
}

static int step(run *g) {
  admit_all(g);
  int rc = g->n_active ? make_room(g) : pf_fail(PF_EINTERNAL, "branches wait for no memory");
  if (rc == PF_OK)
    rc = collect(g);
  if (rc == PF_OK)
    rc = eval(g);
  count_step(g);
  return rc == PF_OK ? advance(g) : rc;
}

static int steps(run *g) {
  int rc = PF_OK;
  while (rc == PF_OK && (g->next < g->n_u || g->n_active)) {
    if (g->o->stop && *g->o->stop)
      return pf_fail(PF_EINCOMPLETE, "stopped: %zu branches have not ended",
                     g->in_flight + g->n_u - g->next);
    rc = step(g);
    report(g);
  }
  return rc;
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* Up front: a thread that runs out of memory in the middle could not say so. */
static int make_pickers(run *g, const pf_branch *b, size_t n) {
  bool penalty = false, draws = false;
  for (size_t i = 0; i < n; i++) {
    penalty |= b[i].o.repetition_penalty != 1.0;
    draws |= b[i].o.temperature > 0;
  }
  g->n_pickers = (size_t)pf_par_most(g->c->threads, n < PF_FINAL_ROWS ? n : PF_FINAL_ROWS);
  g->pickers = pf_calloc(g->n_pickers, sizeof *g->pickers);
  int rc = g->pickers ? PF_OK : PF_ENOMEM;
  for (size_t t = 0; t < g->n_pickers && rc == PF_OK; t++)
    rc = pf_picker_make(&g->pickers[t], vocab(g), penalty, draws);
  return rc;
}

static int make_run(run *g, pf_branch *b, size_t n) {
  int rc = make_fitting_units(g, b, n);
  if (rc == PF_OK && !(g->active = pf_alloc(g->n_u, sizeof *g->active)))
    rc = PF_ENOMEM;
  if (rc == PF_OK)
    rc = make_pickers(g, b, n);
  for (size_t i = 0; i < n; i++) {
    g->total += b[i].n + (size_t)b[i].o.max_tokens;
    g->stats->prompt_tokens += b[i].n;
  }
  return rc;
}

static void free_run(run *g) {
  for (size_t i = 0; i < g->n_u; i++)
    if (!g->u[i].b || !g->u[i].b->seq)
      pf_seq_free(g->u[i].seq);
  for (size_t t = 0; g->pickers && t < g->n_pickers; t++)
    pf_picker_free(&g->pickers[t]);
  void *const all[] = {g->u, g->active, g->rows, g->given, g->chosen, g->picks, g->pickers};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    pf_free(all[i]);
}

int pf_generate_many(pf_ctx *c, pf_branch *b, size_t n, const pf_many_opts *o,
                     pf_many_stats *stats) {
  static const pf_many_opts none;
  pf_many_stats own;
  run g = {.c = c, .o = o ? o : &none, .stats = stats ? stats : &own, .kv_before = c->kv_bytes};
  size_t peak = c->kv_peak;
  *g.stats = (pf_many_stats){0};
  pf_ctx_kv_reset_peak(c);
  int rc = n ? check_all(&g, b, n) : PF_OK;
  if (rc == PF_OK && n)
    rc = make_run(&g, b, n);
  if (rc == PF_OK && n)
    rc = steps(&g);
  g.stats->kv_peak = c->kv_peak - g.kv_before;
  c->kv_peak = peak > c->kv_peak ? peak : c->kv_peak;
  free_run(&g);
  return rc;
}

int pf_generate(pf_seq *s, const int32_t *ids, size_t n, const pf_gen_opts *o, pf_ids *out) {
  pf_branch b = {.seq = s, .ids = ids, .n = n};
  pf_gen_defaults(&b.o);
  b.o = o ? *o : b.o;
  int rc = pf_generate_many(s->ctx, &b, 1, NULL, NULL);
  for (size_t i = 0; i < b.out.n; i++)
    if (pf_ids_push(out, b.out.v[i]) != PF_OK)
      rc = PF_ENOMEM;
  pf_branch_clear(&b);
  return rc;
}

void pf_branch_clear(pf_branch *b) {
  if (!b)
    return;
  pf_ids_free(&b->out);
  pf_free(b->logprobs);
  pf_free(b->margins);
  b->logprobs = b->margins = NULL;
  b->finish = PF_FINISH_NONE;
}

const char *pf_finish_name(pf_finish f) {
  static const char *const names[PF_N_FINISHES] = {"",
#define PF_FINISH_NAME(id, name) name,
                                                   PF_FINISHES(PF_FINISH_NAME)
#undef PF_FINISH_NAME
  };
  return f > PF_FINISH_NONE && f < PF_N_FINISHES ? names[f] : "";
}
