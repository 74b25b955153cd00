/* SPDX-License-Identifier: Apache-2.0
 * One step of the forward pass: up to PF_STEP_ROWS rows of any sequences, layer by layer. Stages
 * are either parallel over rows (a row is one thread's) or over output columns (products); no sum
 * crosses threads. */
#ifndef PF_MODEL_STEP_H
#define PF_MODEL_STEP_H

#include "base/par.h"
#include "model/kv.h"
#include "model/precision.h"
#include "model/prof.h"

enum { PF_STEP_ROWS = 256 };

/* What a thread needs: for the attention of one item's rows over n_blk blocks, and for products. */
typedef struct pf_lane {
  float *s;            /* (queries, 32 n_blk) scores, then probabilities */
  const void **k, **v; /* (n_blk) blocks of the head, NULL = nothing visible */
  void *work;          /* PF_GEMM_WORK bytes, of products and of attention */
  uint32_t *mask;      /* (queries, n_blk) visible keys; of rows where their heads see the same */
  const float **q;     /* (queries), as are the next two */
  float **y;
  const uint32_t **seen; /* of their rows */
  float *act;            /* (F) a row of the MLP between its products */
  char *swapped; /* n_blk copies of a K head and of a V head, NULL when no sequence has swaps */
} pf_lane;

/* Rows of a branch whose attention goes together, `group` query heads to a K,V head: about 64
 * queries, fewer if their scores would leave the second-level cache; a power of 2. */
enum { PF_ATTEND_QUERIES = 64, PF_ATTEND_SCORES = 98304 };
static inline size_t pf_attend_rows(size_t group, size_t n_blk) {
  size_t n = 1;
  while (2 * n * group <= PF_ATTEND_QUERIES && 2 * n * group * n_blk * PF_KBLK <= PF_ATTEND_SCORES)
    n *= 2;
  return n;
}

typedef struct pf_scratch {
  pf_turn *turns; /* (threads) of the region that runs */
  size_t rows;    /* rows it is made for, a multiple of 16 */
  size_t kp_max;
  float *x;                 /* (rows, D) residual */
  float *norm;              /* (rows, D) */
  void *op[PF_N_WTYPES];    /* operands of the next product, by the weights' storage */
  float *q, *k, *v;         /* (rows, heads*d_head) before RoPE */
  float *rot_q, *rot_k;     /* (rows, heads*d_head) */
  float *result, *result_z; /* one row: (2, H, D) per-head results, (H*d_head) one head's z; made
                               when asked for */
  float *logits;            /* (logit_rows, V); made when asked for */
  size_t logit_rows;
  float *z;         /* (rows, H*d_head) */
  float *out;       /* (rows, D) output of W_O or W_down */
  float *gate, *up; /* (rows, F) */
  float *cos, *sin; /* (rows, d_head/2) */
  void *block;      /* all of the above */
  pf_lane *lanes;   /* (threads) */
  void *lane_block;
  size_t lane_blk; /* n_blk the lanes are made for */
  bool lane_swaps;
} pf_scratch;

/* Takes the logits x of a row with out >= 0 while they are hot. Called on the context's threads,
 * tid below their number; x is to be the same afterwards. */
typedef struct pf_sink {
  void (*take)(void *user, int tid, int32_t out, float *x);
  void *user;
} pf_sink;
/* pf_eval whose logits go to a sink (NULL: no row asks). Of them PF_FINAL_ROWS rows, or as many as
 * ask, are in memory at a time. */
int pf_eval_into(pf_ctx *c, const pf_row *rows, size_t n_rows, const pf_sink *sink);

/* PF_EUSAGE unless the vocabulary has the id. */
int pf_check_token(const pf_model_info *m, int32_t id);

typedef struct pf_step {
  pf_ctx *c;
  pf_scratch *s;
  const pf_config *cfg;
  const pf_mode *mode;
  const pf_simd *f;
  const pf_row *rows;
  size_t n;
  size_t read; /* rows whose output of this layer is read: the first ones; of the others, K,V alone
                */
  int32_t layer;
  const pf_layer *w;
  const uint8_t
      *used;        /* [(n_layers+1)][PF_N_HOOKS] some sequence of the call has an action there */
  int32_t *bad;     /* (n) 1 + layer where a row's scores were not finite, 0 = fine */
  pf_profile *prof; /* NULL: none runs */
} pf_step;

/* A parallel part of the pass. */
static inline void pf_step_par(const pf_step *t, pf_stage stage, int threads, pf_par_fn fn,
                               void *arg) {
  if (t->prof)
    pf_prof_par(t->prof, t->layer, stage, threads, fn, arg);
  else
    pf_par(threads, fn, arg);
}

/* The thread's time since its last lap was spent on this. */
static inline void pf_step_lap(const pf_step *t, pf_role_id role) {
  if (t->prof)
    pf_prof_lap(t->prof, t->layer, role);
}

/* What is done there; bytes: what has to be read and written at least once. */
static inline void pf_step_work(const pf_step *t, pf_role_id role, double flops, double bytes) {
  if (t->prof)
    pf_prof_work(t->prof, t->layer, role, flops, bytes);
}

/* Rounds n values as the precision asks at a point. */
static inline void pf_step_round(const pf_step *t, int hook, size_t n, float *x) {
  if (t->mode->rounds[hook] >> t->cfg->arch & 1)
    t->f->round_bf16(n, x, x);
}

/* The same for values between the points. */
static inline void pf_step_round_inner(const pf_step *t, size_t n, float *x) {
  if (t->mode->inner)
    t->f->round_bf16(n, x, x);
}

/* Runs a branch's actions at a point over n values, which are rounded again if an action may have
 * changed them; true then. */
static inline bool pf_step_act(const pf_step *t, const pf_seq *s, const pf_point *p, size_t n,
                               float *x) {
  uint64_t mark = t->prof ? pf_prof_pause() : 0;
  bool changed = pf_tapset_run(&s->taps, p, x);
  if (changed)
    pf_step_round(t, p->hook, n, x);
  if (t->prof)
    pf_prof_resume(t->prof, p->layer, PF_N_PROF_ROLES + p->hook, mark);
  return changed;
}

/* A point of the pass for row r; x: `heads` parts of `width` (heads = 1 for points without heads).
 * Rounds, runs the actions, rounds again what they left: a hooked value is the one that is used.
 * True if an action may have changed x. */
static inline bool pf_step_tap(const pf_step *t, size_t r, int hook, int32_t layer, float *x,
                               size_t heads, size_t width) {
  pf_step_round(t, hook, heads * width, x);
  if (!t->used[((size_t)layer + 1) * PF_N_HOOKS + (size_t)hook])
    return false;
  pf_point p = {.hook = hook,
                .layer = layer,
                .pos = t->rows[r].pos,
                .heads = (int32_t)heads,
                .width = width,
                .stride = width};
  return pf_step_act(t, t->rows[r].seq, &p, heads * width, x);
}

/* attend.c: z of all heads of rows, parallel over (rows, K,V head). */
void pf_step_attend(pf_step *t);
/* layer.c: one layer over the step's rows. */
void pf_step_layer(pf_step *t);
/* final.c: final norm and logits of the rows that ask for them or whose branches have actions
 * there, PF_FINAL_ROWS at a time. */
enum { PF_FINAL_ROWS = 64 };
int pf_step_finish(const pf_step *t, const pf_sink *sink);
/* Does row r go to logits, a score or the final norm? */
bool pf_step_goes_on(const pf_step *t, size_t r);
/* The kernels' rope (y != x) and softcap with the roundings of the precision in between; what they
 * leave is rounded at the point that follows. */
void pf_step_rope(const pf_step *t, size_t d, const float *x, const float *c, const float *s,
                  float *y);
void pf_step_softcap(const pf_step *t, size_t n, float *x, float cap);
void pf_step_norm(const pf_step *t, size_t r, const float *x, const float *w, const int hooks[3],
                  int32_t layer, float *y);
/* Makes row r of the operands that w needs from x (k values). */
void pf_step_operand(const pf_step *t, size_t r, const float *x, const pf_mat *w);

/* y (m, n of w; stride ldy) = operands x w (+ bias), on the context's threads. */
typedef struct pf_product {
  const pf_mat *w;
  const float *bias;
  float *y;
  size_t ldy;
  pf_role_id role;
} pf_product;
void pf_step_products(const pf_step *t, pf_stage stage, const pf_product *p, size_t n, size_t m);

/* scratch.c */
int pf_scratch_make(pf_ctx *c, size_t rows, size_t n_blk, bool swaps);
int pf_scratch_results(pf_ctx *c);
int pf_scratch_logits(pf_ctx *c, size_t rows);
void pf_scratch_free(pf_scratch *s);

#endif
