/* SPDX-License-Identifier: Apache-2.0
 * The experiments of a study, and what their work runs in. An experiment has one unit of work or
 * more for each cell; the journal keeps the unit's records, and experiments.def is the one list. */
#ifndef PF_ANALYSIS_EXPERIMENT_H
#define PF_ANALYSIS_EXPERIMENT_H

#include "analysis/cells.h"
#include "analysis/lab.h"

typedef struct pf_experiment pf_experiment;

/* What an experiment took in this run. */
typedef struct pf_spent {
  double seconds;
  uint64_t row_layers;
  uint64_t peak; /* bytes of memory, of the process until then */
} pf_spent;

enum { PF_ANSWERS = 1 << PF_N_PROTOCOLS };

/* A running study. */
typedef struct pf_desk {
  pf_plan plan;
  const pf_study_opts *o;
  pf_work work;    /* of the additive sweep */
  size_t together; /* its cells that go together */
  bool *chosen;    /* (pf_n_experiments) */
  pf_journal *journal;
  pf_lab *lab;
  uint64_t done, total; /* for the progress line, in multiplications */
  size_t computed;      /* units, in this run */
  pf_spent *spent;      /* (pf_n_experiments) */
  size_t now;           /* the experiment that runs */
  uint64_t budget;      /* bytes beside the weights: what was asked for, else what one cell needs */
} pf_desk;

/* One line of experiments.def. It has `cell` or `together`. */
struct pf_experiment {
  const char *key, *title;
  int revision; /* of its records, from 1 */
  /* Bits 1 << pf_protocol; PF_ANSWERS: in the paper's only on the tasks that the grid names. */
  unsigned protocols;
  /* Units of a cell; NULL: one. */
  size_t (*parts)(const pf_plan *p);
  /* Records of one unit of the lab's cell: appends objects to rows. */
  int (*cell)(pf_lab *l, size_t part, json_t *rows);
  /* All of the cells [0, n), which are not done, in any order; pf_desk_done takes each. */
  int (*together)(pf_desk *d, const size_t *cells, size_t n);
  /* Adds what a cell costs with `together`. */
  void (*cost)(const pf_desk *d, size_t cell, pf_cost *cost);
  /* Bytes beside the weights that `together` takes for *n cells at a time; *n = 0 becomes as many
   * as the budget allows. NULL: other limits. */
  uint64_t (*memory)(const pf_desk *d, size_t *n);
};

extern const pf_experiment pf_experiments[];
extern const size_t pf_n_experiments;
/* NULL: there is none of this name. */
const pf_experiment *pf_experiment_find(const char *key);
/* Units of a cell; 0: the experiment does not run there. */
size_t pf_experiment_parts(const pf_experiment *e, const pf_plan *p, size_t cell);

/* A unit is finished: its data (a new reference, NULL: out of memory) go to the journal. */
int pf_desk_done(pf_desk *d, const char *experiment, size_t cell, size_t part, json_t *data);
/* True if a unit is finished; its data (a new reference), NULL if it is not. */
bool pf_desk_has(const pf_desk *d, const char *experiment, size_t cell, size_t part);
int pf_desk_get(const pf_desk *d, const char *experiment, size_t cell, size_t part, json_t **data);
/* True for an experiment of this run that the cell lacks. */
bool pf_desk_wants(const pf_desk *d, const char *experiment, size_t cell);
/* True when the study is to stop. */
bool pf_desk_stopped(const pf_desk *d);
/* The running experiment has computed this much more. */
void pf_desk_count(pf_desk *d, const pf_cost *more);
/* pf_eval, counted; PF_EINCOMPLETE when the study is to stop. */
int pf_desk_eval(pf_desk *d, pf_ctx *c, const pf_row *rows, size_t n, float *logits);
/* Appends an object to rows; takes the reference. */
int pf_rows_add(json_t *rows, json_t *row);

/* continuation.c: the greedy y of every cell, on which all else is scored. */
int pf_continuation(pf_desk *d, const size_t *cells, size_t n);
void pf_continuation_cost(const pf_desk *d, size_t cell, pf_cost *cost);
/* Bytes beside the weights that one cell's takes. */
uint64_t pf_continuation_least(const pf_desk *d);
/* The record of a generated y; NULL without memory. */
json_t *pf_continuation_record(const pf_desk *d, const pf_branch *b);
/* y of a cell from the journal; PF_EINTERNAL if it is not there. */
int pf_desk_y(const pf_desk *d, size_t cell, pf_ids *out);

/* additive.c: the paper's sweep of the additive value over sites and layers (cells.c). It generates
 * y too, where the protocol's is no longer than what the sweep scores. */
int pf_additive_sweep(pf_desk *d, const size_t *cells, size_t n);
void pf_additive_cost(const pf_desk *d, size_t cell, pf_cost *cost);
bool pf_additive_gives_y(const pf_desk *d, size_t cell);

/* c1_local.c: values put at every layer of every site. */
size_t pf_c1_parts(const pf_plan *p);
int pf_c1(pf_lab *l, size_t part, json_t *rows);
/* c2_behaviour.c: texts under each value; the paper's four conditions, and all. */
int pf_c2_markers(pf_desk *d, const size_t *cells, size_t n);
void pf_c2_markers_cost(const pf_desk *d, size_t cell, pf_cost *cost);
uint64_t pf_c2_markers_memory(const pf_desk *d, size_t *n);
int pf_c2(pf_desk *d, const size_t *cells, size_t n);
void pf_c2_cost(const pf_desk *d, size_t cell, pf_cost *cost);
uint64_t pf_c2_memory(const pf_desk *d, size_t *n);
/* c3_inject.c: residuals put into hosts without the persona; the paper's two tests of it, and all.
 * A layer of the paper's 26 in a model of n_layers: layer / 26 n_layers, half to even. */
int32_t pf_paper_layer(int32_t layer, int32_t n_layers);
int pf_injection(pf_lab *l, size_t part, json_t *rows);
int pf_layer_sets(pf_lab *l, size_t part, json_t *rows);
int pf_c3(pf_lab *l, size_t part, json_t *rows);
/* d1_cuts.c, d2_transplant.c: which reads of the persona are needed, which K,V suffice. */
int pf_d1(pf_lab *l, size_t part, json_t *rows);
int pf_d2(pf_lab *l, size_t part, json_t *rows);
/* d3_heads.c, d4_mass.c, d5_delta.c: which heads and tokens, what their attention tells, what it
 * brings. */
int pf_d3(pf_lab *l, size_t part, json_t *rows);
int pf_d4(pf_lab *l, size_t part, json_t *rows);
int pf_d5(pf_lab *l, size_t part, json_t *rows);

#endif
