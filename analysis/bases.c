/* SPDX-License-Identifier: Apache-2.0
 * Prompts that have been run, each from where its tokens part from another's. */
#include "analysis/bases.h"

#include "base/mem.h"
#include "base/status.h"

/* Which prompts run before which. */
typedef enum level { ROOT, ONE_PART, BOTH_PARTS, N_LEVELS } level;

static level level_of(const pf_base *b) {
  return b->persona == PF_BASE && b->task == PF_BASE ? ROOT
         : b->persona >= 0 && b->task >= 0           ? BOTH_PARTS
                                                     : ONE_PART;
}

pf_base *pf_bases_find(const pf_bases *b, int persona, int task) {
  for (size_t i = 0; i < b->n; i++)
    if (b->v[i]->persona == persona && b->v[i]->task == task)
      return b->v[i];
  return NULL;
}

static void base_free(pf_base *b) {
  pf_seq_free(b->seq);
  pf_role_prompt_free(&b->own);
  pf_free(b->h);
  pf_free(b);
}

void pf_bases_drop(pf_bases *b, bool all) {
  size_t kept = 0;
  for (size_t i = 0; i < b->n; i++)
    if (all || b->v[i]->persona >= 0)
      base_free(b->v[i]);
    else
      b->v[kept++] = b->v[i];
  b->n = kept;
  if (!all)
    return;
  pf_free(b->v);
  b->v = NULL;
  b->cap = 0;
}

int pf_bases_want(pf_bases *b, int persona, int task, pf_base **out) {
  const pf_plan *p = &b->d->plan;
  if ((*out = pf_bases_find(b, persona, task)))
    return PF_OK;
  int rc = pf_grow((void **)&b->v, &b->cap, b->n + 1, sizeof(pf_base *));
  pf_base *x = rc == PF_OK ? pf_calloc(1, sizeof *x) : NULL;
  if (!x)
    return PF_ENOMEM;
  b->v[b->n++] = *out = x;
  *x = (pf_base){.persona = persona, .task = task, .q = &x->own};
  if (persona == PF_NOBODY)
    rc = pf_plan_say(p, NULL, p->grid.tasks[task].text, &x->own);
  else
    x->q = pf_plan_prompt(p, persona, task);
  x->h = pf_calloc((size_t)p->info->d_model, sizeof *x->h);
  return rc == PF_OK && !x->h ? PF_ENOMEM : rc;
}

/* Tokens that a prompt takes from another's run. */
static size_t kept(const pf_desk *d, const pf_role_prompt *q, const pf_role_prompt *from) {
  return d->o->no_sharing ? 0 : (size_t)pf_shared_prefix(q, from, q->p_last);
}

/* The run whose beginning a prompt takes; NULL: none. */
static const pf_base *parent_of(const pf_bases *b, const pf_base *x) {
  const pf_base *from = level_of(x) == BOTH_PARTS ? pf_bases_find(b, x->persona, PF_BASE) : NULL;
  if (!from && level_of(x) != ROOT)
    from = pf_bases_find(b, PF_BASE, PF_BASE);
  return from;
}

static int begin(const pf_bases *b, pf_base *x) {
  const pf_base *from = parent_of(b, x);
  size_t keep = from ? kept(b->d, x->q, from->q) : 0;
  x->tap = (pf_tap){.hook = b->hook,
                    .layer = b->layer,
                    .head = -1,
                    .pos_lo = x->q->p_last,
                    .pos_hi = x->q->p_last + 1,
                    .op = PF_OP_CAPTURE,
                    .out = x->h};
  int rc =
      keep ? pf_seq_fork(&x->seq, from->seq, (int32_t)keep) : pf_seq_new(&x->seq, b->d->work.ctx);
  return rc == PF_OK ? pf_seq_set_taps(x->seq, &x->tap, 1) : rc;
}

static size_t rows_of(const pf_base *x, pf_row *rows) {
  size_t n = 0;
  for (int32_t at = pf_seq_end(x->seq); (size_t)at < x->q->enc.n; at++)
    rows[n++] = (pf_row){.seq = x->seq, .token = x->q->enc.ids[at], .pos = at, .out = -1};
  return n;
}

static int run_level(pf_bases *b, level which) {
  size_t n = 0, most = 0;
  for (size_t i = 0; i < b->n; i++)
    most += b->v[i]->q->enc.n;
  pf_row *rows = pf_alloc(most, sizeof *rows);
  bool *fresh = pf_calloc(b->n, sizeof *fresh);
  int rc = rows && fresh ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < b->n && rc == PF_OK; i++) {
    if (b->v[i]->seq || level_of(b->v[i]) != which)
      continue;
    fresh[i] = true;
    rc = begin(b, b->v[i]);
    if (rc == PF_OK)
      n += rows_of(b->v[i], rows + n);
  }
  if (rc == PF_OK)
    rc = pf_desk_eval(b->d, b->d->work.ctx, rows, n, NULL);
  for (size_t i = 0; i < b->n && rc == PF_OK; i++)
    if (fresh[i])
      rc = pf_seq_set_taps(b->v[i]->seq, NULL, 0);
  pf_free(rows);
  pf_free(fresh);
  return rc;
}

int pf_bases_run(pf_bases *b) {
  int rc = PF_OK;
  for (int k = ROOT; k < N_LEVELS && rc == PF_OK; k++)
    rc = run_level(b, (level)k);
  return rc;
}

/* Rows of a prompt that continues another. */
static uint64_t rows_behind(const pf_desk *d, const pf_role_prompt *q, const pf_role_prompt *from) {
  return q->enc.n - kept(d, q, from);
}

uint64_t pf_bases_rows(const pf_desk *d, size_t cell) {
  const pf_plan *p = &d->plan;
  size_t x = cell / p->grid.n_tasks, y = cell % p->grid.n_tasks;
  uint64_t n = rows_behind(d, &p->xy[cell], &p->xb[x]);
  if (y == 0)
    n += rows_behind(d, &p->xb[x], &p->bb);
  if (x == 0) /* the task alone is as long as it is behind the baseline persona */
    n += 2 * rows_behind(d, &p->by[y], &p->bb);
  return n + (cell == 0 ? p->bb.enc.n : 0);
}

pf_bases_bytes pf_bases_memory(const pf_desk *d) {
  const pf_plan *p = &d->plan;
  pf_bases_bytes m = {0};
  for (size_t c = 0; c < p->n_cells; c++) {
    const pf_role_prompt *q = &p->xy[c], *xb = &p->xb[c / p->grid.n_tasks];
    size_t longest = q->enc.n > xb->enc.n ? q->enc.n : xb->enc.n;
    uint64_t whole = pf_kv_bytes(d->work.ctx, 0, longest),
             xy = pf_kv_bytes(d->work.ctx, kept(d, q, xb), q->enc.n);
    m.whole = whole > m.whole ? whole : m.whole;
    m.xy = xy > m.xy ? xy : m.xy;
  }
  return m;
}
