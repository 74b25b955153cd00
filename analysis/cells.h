/* SPDX-License-Identifier: Apache-2.0
 * The computing of a study: base runs, continuations and substitutions of cells that go together,
 * so that each weight is read once for the rows of many. doc/ENGINE.md, "A study". */
#ifndef PF_ANALYSIS_CELLS_H
#define PF_ANALYSIS_CELLS_H

#include "analysis/study.h"

typedef enum pf_run_id { PF_BB, PF_XB, PF_BY, PF_XY, PF_N_RUNS } pf_run_id;
enum { PF_N_BASE = PF_XY };

/* One prompt's run: its sequence and its residuals (layer 0..L, d), of a base run at p_user_last
 * and at p_last, of XY at all positions from p_user_last to its last scored row. */
typedef struct pf_run {
  const pf_role_prompt *q;
  pf_seq *seq;
  pf_tap *taps;
  float *h;
} pf_run;

/* The additive value put at (layer, site of the probe) of XY. */
typedef struct pf_condition {
  pf_probe probe;
  int32_t layer, n_scored; /* 10, fewer where y stopped at an EOS */
  double kl[PF_SCORED];    /* of each scored token, nats */
} pf_condition;

typedef struct pf_cell {
  size_t index;
  pf_run xy;
  pf_run *base[PF_N_BASE];
  float *tail;  /* (BB XB BY, 2, layer 0..L, d): residuals of y_0 and y_1 behind the base prompts */
  float *clean; /* (12, V): logits at the rows that give y_0 .. y_11 */
  pf_ref ref[PF_Y_MAX]; /* of them */
  pf_branch y;          /* its results: y, as it was generated */
  pf_condition *k;      /* (n_probes, n tested layers) */
  size_t left;          /* conditions that have not run */
} pf_cell;

/* Row-layers, and logit rows of the substitutions. */
typedef struct pf_cost {
  uint64_t rows, base, changed, scored;
  uint64_t whole; /* the substitutions' row-layers with one whole forward pass for each */
} pf_cost;

typedef enum pf_phase { PF_PHASE_BASE, PF_PHASE_SUBSTITUTIONS, PF_N_PHASES } pf_phase;

typedef struct pf_work {
  const pf_plan *plan;
  const pf_study_opts *o;
  pf_ctx *ctx; /* of the texts too */
  int hook_pre, hook_final, hook_logits;
  size_t d, n_h, vocab;                          /* n_h = (L+1)*d */
  pf_run bb, *xb, *by;                           /* (n_personas), (n_tasks) */
  const size_t *cells;                           /* those that are to run, in their order; */
  size_t n_cells;                                /* those that go together are a part of it */
  size_t in_flight;                              /* bytes of branches in a step, at most */
  pf_cost done;                                  /* computed so far */
  uint64_t counted;                              /* row-layers of the context that stand in done */
  pf_cost told;                                  /* done, at the last tick */
  void (*tick)(void *user, const pf_cost *more); /* what a step has added; NULL: nobody listens */
  void *tick_user;
  double seconds[PF_N_PHASES], since;
} pf_work;

int pf_work_begin(pf_work *w, const pf_plan *p, const pf_study_opts *o);
void pf_work_end(pf_work *w);
/* Frees the base runs; those that are wanted again run again. */
void pf_work_drop(pf_work *w);

/* Adds what cell c costs; and what the base prompts cost. */
void pf_cost_cell(const pf_work *w, size_t c, pf_cost *cost);
void pf_cost_base(const pf_work *w, pf_cost *cost);
/* Multiplications of a row in a layer's products; of a cost. */
uint64_t pf_layer_units(const pf_model_info *i);
uint64_t pf_work_units(const pf_work *w, const pf_cost *cost);

/* Positions of a K,V block, and bytes of those that the positions [lo, hi) lie in. */
enum { PF_KV_BLOCK = 32 };
size_t pf_kv_bytes(const pf_ctx *c, size_t lo, size_t hi);
/* What a study may take beside the weights where nobody says. */
extern const uint64_t pf_default_budget;
/* Bytes beside the weights that the sweep takes with n cells together; with one at a time and the
 * smallest step. */
uint64_t pf_work_memory(const pf_work *w, size_t n);
uint64_t pf_work_least(const pf_work *w);
/* Cells that go together in a budget, which holds the least; sets w->in_flight. */
size_t pf_work_fit(pf_work *w, uint64_t budget);

/* Runs the cells index[0..n). on_cell gets each when it is finished, in their order; another status
 * than PF_OK ends the run. PF_EINCOMPLETE when the study is stopped. */
int pf_cells_run(pf_work *w, const size_t *index, size_t n,
                 int (*on_cell)(void *user, const pf_cell *c), void *user);
/* BB alone, for a dry run. */
int pf_work_bb(pf_work *w);

/* A residual of a run at a probe of the cell. */
const float *pf_cell_residual(const pf_work *w, const pf_cell *c, pf_run_id r, pf_probe probe,
                              int32_t layer);
/* Tokens scored at a probe: 10, fewer where y stopped at an EOS. */
int32_t pf_cell_scored(const pf_cell *c, pf_probe probe);

/* record.c: what the journal keeps of a finished cell; NULL without memory. */
json_t *pf_cell_record(const pf_work *w, const pf_cell *c);

#endif
