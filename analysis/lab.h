/* SPDX-License-Identifier: Apache-2.0
 * The runs of one cell that experiments compare, and trials: changed copies of a run whose answers
 * are measured against the clean one. doc/ENGINE.md, "Tracks and trials". */
#ifndef PF_ANALYSIS_LAB_H
#define PF_ANALYSIS_LAB_H

#include "analysis/study.h"

/* ---- who says what ----------------------------------------------------------------------------
 */

/* Personas and tasks of a prompt beside those of the grid, which count from 0. */
enum {
  PF_BASE = -1,   /* the grid's baseline persona or task */
  PF_NOBODY = -2, /* no persona: the bare task */
  /* Lists of the controls, which have at most 256 items: */
  PF_BASE_ALT = -1000, /* PF_BASE_ALT - i: other baseline i, persona or task */
  PF_NEUTRAL = -2000,  /* PF_NEUTRAL - i: neutral persona i, as long as the cell's */
  PF_HOST = -3000      /* PF_HOST - i: host i, which has no persona */
};

typedef enum pf_placing {
  PF_PLAIN,
  PF_GAP, /* positions of all that follows the persona are those of the cell's own prompt */
  PF_MASK /* later positions do not see the persona's keys */
} pf_placing;

typedef struct pf_who {
  int persona, task;
  pf_placing placing;
  bool values_only; /* residuals at the sites are all that is wanted: no K,V, so no trials, and y
                       only as far as sites go */
} pf_who;

/* ---- tracks -----------------------------------------------------------------------------------
 */

/* A prompt and the cell's y behind it, run once. Index i counts its tokens, position pos[i] is what
 * the model sees (they differ behind a gap). */
typedef struct pf_track {
  pf_who who;
  const pf_role_prompt *q;
  pf_role_prompt own; /* q, where it is none of the plan's */
  int32_t *ids, *pos;
  size_t n, n_prompt;
  /* By index: persona (empty without one), task with what joins it to the persona, from there the
   * end of the turn and the generation header. */
  pf_span x, y, e;
  pf_cut cut;    /* of PF_MASK */
  pf_seq *seq;   /* NULL: values only */
  int32_t *slot; /* by index: its place in h, -1: not kept */
  size_t n_slots;
  float *h; /* (n_slots, L+1, d): the residual that enters each layer; at L the one that leaves the
               last */
  size_t kept, kv; /* bytes: of residuals and tokens; of the K,V blocks that it may own */
} pf_track;

/* THE list of sites, and how many tokens of y stand before the first scored one. F(id, name,
 * prefix)
 */
#define PF_SITES(F)                                                                                \
  F(PERSONA_LAST, "persona_last", 0)                                                               \
  F(TASK_MID, "task_mid", 0)                                                                       \
  F(P_USER_LAST, "p_user_last", 0)                                                                 \
  F(P_LAST, "p_last", 0)                                                                           \
  F(G1, "g1", 1)                                                                                   \
  F(G2, "g2", 2)                                                                                   \
  F(G4, "g4", 4)                                                                                   \
  F(G8, "g8", 8)
typedef enum pf_site {
#define PF_SITE_ID(id, name, prefix) PF_SITE_##id,
  PF_SITES(PF_SITE_ID)
#undef PF_SITE_ID
      PF_N_SITES
} pf_site;
extern const char *const pf_site_names[PF_N_SITES];
extern const int32_t pf_site_prefix[PF_N_SITES];

/* Index of a site, -1 where the track has none (no persona; y ended before it). g_k is the token
 * y_(k-1). */
int32_t pf_track_site(const pf_track *t, pf_site s);
/* Index of the row whose logits give y_t. */
static inline int32_t pf_track_row(const pf_track *t, int32_t step) {
  return (int32_t)t->n_prompt - 1 + step;
}

/* ---- the lab ----------------------------------------------------------------------------------
 */

typedef struct pf_lab pf_lab;

/* Bytes beside the weights that a lab has had at most, or by a dry lab's count will have. */
typedef struct pf_lab_need {
  uint64_t fixed;   /* scratch of the model, logits of a step */
  uint64_t arena;   /* of pf_lab_alloc */
  uint64_t kept;    /* residuals and tokens of tracks, logits of references */
  uint64_t kv;      /* K,V of tracks and donors, with the largest trial's */
  uint64_t records; /* of a unit, and their text in the journal */
} pf_lab_need;

typedef struct pf_lab_opts {
  int threads;
  uint64_t memory;  /* bytes beside the weights; 0: no limit */
  pf_lab_need need; /* what a dry lab has counted; 0: not known */
  bool no_sharing;  /* trials are whole forward passes */
  bool dry;         /* nothing runs: residuals and results are zero, costs are counted */
  const volatile int *stop;
  void (*tick)(void *user); /* after every step */
  void *tick_user;
} pf_lab_opts;

int pf_lab_new(pf_lab **out, const pf_plan *p, const pf_lab_opts *o);
void pf_lab_free(pf_lab *l);
/* Turns to a cell and its greedy continuation y (copied); drops what it had of another. */
int pf_lab_cell(pf_lab *l, size_t cell, const int32_t *y, size_t n_y);

const pf_plan *pf_lab_plan(const pf_lab *l);
size_t pf_lab_index(const pf_lab *l);                    /* the cell */
int pf_lab_persona(const pf_lab *l);                     /* of the cell */
int pf_lab_task(const pf_lab *l);                        /* of the cell */
size_t pf_lab_n_y(const pf_lab *l);                      /* tokens of y */
const int32_t *pf_lab_y(const pf_lab *l);                /* y */
const pf_ref *pf_lab_ref(const pf_lab *l, int32_t step); /* clean logits that give y_t */
size_t pf_lab_n_tracks(const pf_lab *l);                 /* of the cell, so far */
size_t pf_lab_d(const pf_lab *l);                        /* width */
int32_t pf_lab_layers(const pf_lab *l);                  /* L */
int pf_lab_hook(const pf_lab *l, const char *name);      /* id of "blocks.0.hook_v", or a status */

/* The tracks of `who`, in one call of the model as far as they are not there yet: out[i] (lab's,
 * until the next cell). The cell's own prompt, with y scored, is {persona, task}. */
int pf_lab_tracks(pf_lab *l, const pf_who *who, size_t n, const pf_track **out);
int pf_lab_track(pf_lab *l, pf_who who, const pf_track **out);
/* False where the controls have no such persona or task, or the cell's persona is too short for a
 * gap (PF_GAP: of the baseline persona, or of a neutral one, which always fits). */
bool pf_lab_has(const pf_lab *l, pf_who who);
/* A sequence that holds the track's positions below index `end`, run with the taps (source of
 * swaps). The lab's, until pf_lab_clear; NULL in a dry lab. out NULL: what the taps captured is all
 * that is wanted. */
int pf_lab_donor(pf_lab *l, const pf_track *t, int32_t end, pf_tap *taps, size_t n_taps,
                 const pf_seq **out);
/* Logits of a track at the steps of y, as references for trials (pf_trial.ref): (n_y), the lab's.
 */
int pf_lab_refs(pf_lab *l, const pf_track *t, const pf_ref **out);
/* The residual that enters a layer at an index that is kept: any, or of values only a site. */
const float *pf_lab_h(const pf_lab *l, const pf_track *t, int32_t index, int32_t layer);

/* Memory that lasts until pf_lab_clear or the next cell; zero. NULL without memory. The pieces lie
 * one behind the other in a block as large as a unit has needed. */
void *pf_lab_alloc(pf_lab *l, size_t n, size_t size);
/* Such memory of `bytes` that begins with the `old` bytes of `from` (NULL: 0): longer in place
 * where `from`, of just `old` bytes, is the last that was given out, else a new piece. */
void *pf_lab_more(pf_lab *l, const void *from, size_t old, size_t bytes);
void pf_lab_clear(pf_lab *l);

/* ---- trials -----------------------------------------------------------------------------------
 */

/* A copy of a track with actions, cuts and swaps (as on a pf_seq; positions are the track's),
 * scored at the steps [from, to) of y: kl[t - from] = KL(clean || changed) where y_t is given.
 * Arrays are the caller's (pf_lab_alloc serves). */
typedef struct pf_trial {
  const pf_track *t;
  pf_tap *taps;
  const pf_cut *cuts;
  const pf_swap *swaps;
  size_t n_taps, n_cuts, n_swaps;
  int32_t from, to;   /* to is cut to the number of y's tokens */
  double *kl;         /* (to - from) */
  double *reverse_kl; /* (to - from) KL(changed || clean), and the Jensen-Shannon divergence; */
  double *jsd;        /* both or, NULL, neither */
  double *logprob;    /* (to - from) of y_t; NULL: not wanted */
  const pf_ref *ref;  /* (n_y), by step: the logits to measure against; NULL: the clean ones */
} pf_trial;

/* Runs all of them, as many rows together as memory allows. A tap that acts on no row is
 * PF_EINTERNAL. PF_EINCOMPLETE when it is stopped. */
int pf_lab_run(pf_lab *l, const pf_trial *v, size_t n);

/* A tap that replaces (or adds to) the residual entering `layer` at an index. */
pf_tap pf_lab_put(const pf_lab *l, const pf_track *t, int32_t index, int32_t layer, pf_op op,
                  const float *value);

/* Rows, row-layers (changed: those of trials, base: of tracks) and scored rows so far. */
typedef struct pf_lab_cost {
  uint64_t rows, base, changed, whole, scored, trials;
} pf_lab_cost;
const pf_lab_cost *pf_lab_costs(const pf_lab *l);
/* What it has needed so far. */
pf_lab_need pf_lab_needs(const pf_lab *l);
/* The records of a unit are there, until it ends. */
void pf_lab_count_records(pf_lab *l, const json_t *rows);
static inline uint64_t pf_lab_bytes(const pf_lab_need *n) {
  return n->fixed + n->arena + n->kept + n->kv + n->records;
}

#endif
