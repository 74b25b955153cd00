/* SPDX-License-Identifier: Apache-2.0
 * Profiles: counters by lane, layer and role. */
#include "model/prof.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "base/clock.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "model/kv.h"

enum { MOST_SPANS = 1 << 20 };

typedef struct span {
  uint64_t from, to;
  int32_t layer;
  pf_stage stage;
} span;

typedef struct lane {
  _Alignas(64) uint64_t last;
  pf_prof_cell *cell; /* (n_layers + 1, PF_PROF_ROWS): outside of layers, then the layers */
  span *spans;
  size_t n_spans, cap_spans, dropped;
} lane;

struct pf_profile {
  pf_ctx *c;
  int threads;
  int32_t n_layers;
  bool keep_spans;
  lane *lane;
  uint64_t begin, end, call, busy; /* ticks; call: the running call's begin */
  double begin_s, wall;
  pf_profile_row *rows;
  pf_profile_span *out;
  char (*hook_name)[64];
};

static const char *const role_names[] = {
#define PF_ROLE(id, with, name, what) name,
#include "model/roles.def"
#undef PF_ROLE
};

static const int role_with[] = {
#define PF_ROLE(id, with, name, what) PF_ROLE_##with,
#include "model/roles.def"
#undef PF_ROLE
};

static const struct {
  const char *name;
  int role;
} stages[PF_N_STAGES] = {
#define PF_STAGE_ROW(id, name, role) {name, PF_ROLE_##role},
    PF_STAGES(PF_STAGE_ROW)};

/* The thread's lane while it is in a part. */
static _Thread_local lane *here;

/* A counter of constant rate; a lap reads it. */
static uint64_t ticks(void) {
#if defined(__x86_64__)
  return __rdtsc();
#elif defined(__aarch64__)
  uint64_t t;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
  return t;
#else
  return (uint64_t)(1e9 * pf_seconds());
#endif
}

static lane *lane_here(pf_profile *p) {
  return here ? here : p->lane;
}

static pf_prof_cell *cell_of(const pf_profile *p, const lane *l, int32_t layer, int row) {
  size_t at = layer >= 0 && layer < p->n_layers ? (size_t)layer + 1 : 0;
  return &l->cell[at * PF_PROF_ROWS + (size_t)row];
}

static void lap(const pf_profile *p, lane *l, int32_t layer, int row) {
  uint64_t now = ticks();
  cell_of(p, l, layer, row)->ticks += now - l->last;
  l->last = now;
}

void pf_prof_lap(pf_profile *p, int32_t layer, int row) {
  lap(p, lane_here(p), layer, row);
}

void pf_prof_work(pf_profile *p, int32_t layer, int row, double flops, double bytes) {
  pf_prof_cell *c = cell_of(p, lane_here(p), layer, row);
  c->calls++;
  c->flops += flops;
  c->bytes += bytes;
}

uint64_t pf_prof_pause(void) {
  return ticks();
}

void pf_prof_resume(pf_profile *p, int32_t layer, int row, uint64_t mark) {
  lane *l = lane_here(p);
  uint64_t spent = ticks() - mark;
  pf_prof_cell *c = cell_of(p, l, layer, row);
  c->calls++;
  c->ticks += spent;
  l->last += spent;
}

void pf_prof_call(pf_profile *p, bool begins) {
  uint64_t now = ticks();
  if (begins) {
    p->call = now;
    for (int t = 0; t < p->threads; t++)
      p->lane[t].last = now;
    return;
  }
  lap(p, p->lane, -1, PF_ROLE_BETWEEN);
  for (int t = 1; t < p->threads; t++)
    lap(p, &p->lane[t], -1, PF_ROLE_WAIT);
  p->busy += now - p->call;
}

static void keep_span(lane *l, uint64_t from, int32_t layer, pf_stage stage) {
  if (l->n_spans == MOST_SPANS ||
      pf_grow((void **)&l->spans, &l->cap_spans, l->n_spans + 1, sizeof(span)) != PF_OK) {
    l->dropped++;
    return;
  }
  l->spans[l->n_spans++] = (span){from, l->last, layer, stage};
}

typedef struct part {
  pf_profile *p;
  int32_t layer;
  pf_stage stage;
  void (*fn)(void *arg, int tid, int nt);
  void *arg;
} part;

static void run_part(void *arg, int tid, int nt) {
  const part *j = arg;
  lane *l = &j->p->lane[tid];
  lap(j->p, l, j->layer, PF_ROLE_WAIT);
  uint64_t from = l->last;
  here = l;
  j->fn(j->arg, tid, nt);
  here = NULL;
  lap(j->p, l, j->layer, stages[j->stage].role);
  if (j->p->keep_spans)
    keep_span(l, from, j->layer, j->stage);
}

void pf_prof_par(pf_profile *p, int32_t layer, pf_stage stage, int threads,
                 void (*fn)(void *arg, int tid, int nt), void *arg) {
  part j = {p, layer, stage, fn, arg};
  lap(p, p->lane, layer, PF_ROLE_BETWEEN);
  pf_par(threads, run_part, &j);
  lap(p, p->lane, layer, PF_ROLE_WAIT);
}

/* ---- what the public sees -------------------------------------------------------------------- */

static size_t cells(const pf_profile *p) {
  return ((size_t)p->n_layers + 1) * PF_PROF_ROWS;
}

int pf_profile_new(pf_profile **out, pf_ctx *c, int spans) {
  *out = NULL;
  if (c->profile)
    return pf_fail(PF_EUSAGE, "the context has a profile already");
  pf_profile *p = pf_calloc(1, sizeof *p);
  if (!p)
    return PF_ENOMEM;
  *p = (pf_profile){.c = c,
                    .threads = c->threads,
                    .n_layers = c->model->cfg.info.n_layers,
                    .keep_spans = spans != 0};
  c->profile = p;
  p->lane = pf_calloc((size_t)p->threads, sizeof *p->lane);
  p->hook_name = pf_calloc(PF_N_HOOKS, sizeof *p->hook_name);
  bool ok = p->lane && p->hook_name;
  for (int t = 0; ok && t < p->threads; t++)
    ok = (p->lane[t].cell = pf_calloc(cells(p), sizeof(pf_prof_cell))) != NULL;
  if (!ok) {
    pf_profile_free(p);
    return PF_ENOMEM;
  }
  *out = p;
  return PF_OK;
}

void pf_profile_free(pf_profile *p) {
  if (!p)
    return;
  p->c->profile = NULL;
  p->c->profiled = NULL;
  for (int t = 0; p->lane && t < p->threads; t++) {
    pf_free(p->lane[t].cell);
    pf_free(p->lane[t].spans);
  }
  pf_free(p->lane);
  pf_free(p->hook_name);
  pf_free(p->rows);
  pf_free(p->out);
  pf_free(p);
}

void pf_profile_start(pf_profile *p) {
  for (int t = 0; t < p->threads; t++) {
    memset(p->lane[t].cell, 0, cells(p) * sizeof(pf_prof_cell));
    p->lane[t].n_spans = p->lane[t].dropped = 0;
  }
  p->busy = 0;
  p->begin_s = pf_seconds();
  p->begin = ticks();
  p->c->profiled = p;
}

void pf_profile_stop(pf_profile *p) {
  p->c->profiled = NULL;
  p->end = ticks();
  p->wall = pf_seconds() - p->begin_s;
}

double pf_profile_wall(const pf_profile *p) {
  return p->wall;
}

static double seconds_of(const pf_profile *p, uint64_t t) {
  uint64_t all = p->end - p->begin;
  return all ? (double)t * p->wall / (double)all : 0;
}

double pf_profile_busy(const pf_profile *p) {
  return seconds_of(p, p->busy);
}

int pf_profile_threads(const pf_profile *p) {
  return p->threads;
}

/* "hook_resid_pre" of "blocks.%d.hook_resid_pre", "attn.hook_q" of "blocks.%d.attn.hook_q". */
static const char *name_of(pf_profile *p, int row) {
  if (row < PF_N_PROF_ROLES)
    return role_names[row];
  char *name = p->hook_name[row - PF_N_PROF_ROLES];
  const pf_hook_info *h = pf_hook_by_id(p->c->model, row - PF_N_PROF_ROLES);
  const char *full = h ? h->name : "?", *dot = strstr(full, "%d.");
  snprintf(name, sizeof p->hook_name[0], "hook:%s", dot ? dot + 3 : full);
  return name;
}

/* Of the roles of one parallel part, which threads may share out among them. */
static double imbalance(const pf_profile *p, int32_t layer, int row) {
  uint64_t most = 0, all = 0;
  for (int t = 0; t < p->threads; t++) {
    uint64_t own = 0;
    for (int r = 0; r < PF_PROF_ROWS; r++)
      if (r == row ||
          (r < PF_N_PROF_ROLES && row < PF_N_PROF_ROLES && role_with[r] == role_with[row]))
        own += cell_of(p, &p->lane[t], layer, r)->ticks;
    all += own;
    most = own > most ? own : most;
  }
  return all ? (double)most * p->threads / (double)all - 1 : 0;
}

static bool sum_row(pf_profile *p, int32_t layer, int row, pf_profile_row *out) {
  *out = (pf_profile_row){.layer = layer};
  for (int t = 0; t < p->threads; t++) {
    const pf_prof_cell *c = cell_of(p, &p->lane[t], layer, row);
    out->calls += c->calls;
    out->seconds += seconds_of(p, c->ticks);
    out->flops += c->flops;
    out->bytes += c->bytes;
  }
  out->imbalance = imbalance(p, layer, row);
  if (out->calls == 0 && out->seconds <= 0)
    return false;
  out->name = name_of(p, row);
  return true;
}

const pf_profile_row *pf_profile_rows(pf_profile *p, size_t *n) {
  pf_free(p->rows);
  *n = 0;
  p->rows = pf_alloc(cells(p), sizeof *p->rows);
  for (int32_t l = 0; p->rows && l <= p->n_layers; l++)
    for (int row = 0; row < PF_PROF_ROWS; row++)
      *n += sum_row(p, l < p->n_layers ? l : -1, row, &p->rows[*n]);
  return p->rows;
}

const pf_profile_span *pf_profile_spans(pf_profile *p, size_t *n, size_t *dropped) {
  size_t all = 0, lost = 0;
  for (int t = 0; t < p->threads; t++) {
    all += p->lane[t].n_spans;
    lost += p->lane[t].dropped;
  }
  pf_free(p->out);
  p->out = all ? pf_alloc(all, sizeof *p->out) : NULL;
  *n = 0;
  for (int t = 0; p->out && t < p->threads; t++)
    for (size_t i = 0; i < p->lane[t].n_spans; i++) {
      const span *s = &p->lane[t].spans[i];
      p->out[(*n)++] =
          (pf_profile_span){.from = seconds_of(p, s->from - p->begin),
                            .to = seconds_of(p, s->to - p->begin),
                            .layer = s->layer >= 0 && s->layer < p->n_layers ? s->layer : -1,
                            .thread = t,
                            .name = stages[s->stage].name};
    }
  if (dropped)
    *dropped = lost;
  return p->out;
}
