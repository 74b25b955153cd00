/* SPDX-License-Identifier: Apache-2.0
 * Where a forward pass spends its time, layer by layer, and what the machine could do. A profile
 * that is not running costs a forward pass nothing but untaken branches; doc/PROFILE.md says what a
 * running one costs. */
#ifndef PERSONAFLOW_PROFILE_H
#define PERSONAFLOW_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "personaflow/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- profiles of a context --------------------------------------------------------------------
 */

typedef struct pf_profile pf_profile;

/* What is done in one layer (-1: outside of layers) under one name: a line of model/roles.def, or
 * "hook_..." for the actions at a hook point. FLOPs (a multiply-add is two) are those that the
 * mathematics asks for, bytes those that have to come from or go to memory at least once: weights,
 * visible blocks of K and V, rows. Element-wise work has bytes only. */
typedef struct pf_profile_row {
  int32_t layer;
  const char *name;
  uint64_t calls;
  double seconds;   /* of all threads together */
  double imbalance; /* time of the slowest thread over the mean, less one: of the role and those
                       that are one parallel part with it, as q, k and v are */
  double flops, bytes;
} pf_profile_row;

/* A piece of work of one thread, for timelines; seconds since the start. */
typedef struct pf_profile_span {
  double from, to;
  int32_t layer, thread;
  const char *name;
} pf_profile_span;

/* The context must outlive it and has at most one. spans: 1 keeps pieces for pf_profile_spans, up
 * to a million a thread. PF_EUSAGE, PF_ENOMEM. */
PF_API int pf_profile_new(pf_profile **out, pf_ctx *c, int spans);
PF_API void pf_profile_free(pf_profile *p);
/* Forgets what it has and begins; ends. Not while the context computes. */
PF_API void pf_profile_start(pf_profile *p);
PF_API void pf_profile_stop(pf_profile *p);
/* Of the last start to the last stop: wall time, and the part of it in which the context computed.
 */
PF_API double pf_profile_wall(const pf_profile *p);
PF_API double pf_profile_busy(const pf_profile *p);
PF_API int pf_profile_threads(const pf_profile *p);
/* The rows that are not empty, in order of layers (those outside last) and of model/roles.def;
 * they are the profile's until the next start. NULL: out of memory. */
PF_API const pf_profile_row *pf_profile_rows(pf_profile *p, size_t *n);
/* In no order; the profile's alike. NULL with *n = 0 without spans. dropped (may be NULL): how many
 * there was no room for. */
PF_API const pf_profile_span *pf_profile_spans(pf_profile *p, size_t *n, size_t *dropped);

/* ---- the machine ------------------------------------------------------------------------------
 */

/* What this machine does at most on `threads` threads, measured with loops of one instruction, and
 * of reading memory far larger than its caches. */
typedef struct pf_machine_peak {
  int threads;
  double flops;     /* a second, of the instruction of the precision's products */
  int parts;        /* products that one counts for: 3 in f32 with bf16 weights */
  const char *what; /* the instruction; NULL and flops 0: not measured for this set */
  double attention; /* as flops, of the instruction of attention; one product is one */
  const char *attention_what;
  double bytes; /* read a second */
} pf_machine_peak;
/* Takes a second or two. The instruction is the one of the model's layers. */
PF_API int pf_machine_measure(const pf_model *m, const char *isa, int threads,
                              pf_machine_peak *out);

/* ---- profiling a model ------------------------------------------------------------------------
 */

typedef struct pf_profile_opts {
  const char *model; /* as in pf_model_open */
  pf_precision precision;
  const char *isa; /* NULL: the environment's */
  int threads;     /* 0: default */
  /* Tokens of the prompt (drawn, the same ones every time), tokens that each of `branches` branches
   * generates behind it, rows of one evaluation of the prompt (0: all), repeats. */
  int32_t prompt, generate, branches, chunk, repeats;
  const char *interventions; /* a file ("-": standard input), NULL: none; its actions have rows of
                                their own */
  const char *out_dir;       /* profile.json, profile.csv, trace.json, report.html; NULL: none */
  int force;                 /* 1: writes over those of an earlier profile */
  pf_progress_fn progress;
  void *progress_user;
  const volatile int *stop; /* PF_EINCOMPLETE */
} pf_profile_opts;

/* Loads the model, measures the machine, runs prompt and generation `repeats` times with a profile
 * and as often without one in turn. *json: the result (schema "personaflow-profile/1",
 * doc/PROFILE.md), a heap string (pf_text_free). PF_EEXIST before anything is run when out_dir
 * holds a profile. */
PF_API int pf_profile_run(const pf_profile_opts *o, char **json);

typedef enum pf_profile_by { PF_BY_ROLE, PF_BY_LAYER, PF_BY_ROW } pf_profile_by;
typedef struct pf_profile_view {
  pf_profile_by by;
  const char *sort; /* a column: "time" (NULL), "share", "calls", "flops", "bytes", "gflops", "gbs",
                       "intensity", "peak", "bandwidth", "imbalance"; "order": as executed */
  int32_t top;      /* rows of a phase; 0: all */
} pf_profile_view;
/* PF_EUSAGE for a column that there is not. */
PF_API int pf_profile_check_view(const pf_profile_view *v);
/* A table for people, or every row as CSV. The text is a heap string. */
PF_API int pf_profile_table(const char *json, const pf_profile_view *v, char **text);
PF_API int pf_profile_csv(const char *json, char **text);
/* Two profiles (folders or profile.json; or several a side with commas between, each counted once)
 * row by row: the change of the median time, and whether it is more than the noise of the repeats.
 * By role and layer with view PF_BY_ROW. *changed (may be NULL): how many rows changed. */
PF_API int pf_profile_compare(const char *a, const char *b, const pf_profile_view *v, char **text,
                              size_t *changed);

/* ---- speed ------------------------------------------------------------------------------------
 */

/* Tests in the manner of llama-bench: prompts of p tokens, generation of n tokens on each of npl
 * branches; a 0 in p or n is no test. */
typedef struct pf_bench_opts {
  const int32_t *p, *n, *npl;
  size_t n_p, n_n, n_npl;
  int32_t n_depth;     /* tokens that are there before a test */
  int32_t n_batch;     /* tokens of a prompt in one call */
  int32_t repetitions; /* that count */
  int no_warmup;       /* 1: no repetition before them */
  int threads;         /* 0: default */
  pf_precision precision;
  /* A finished test: a JSON object in one line, with llama-bench's names where they mean the same
   * (avg_ts, n_gen, ...). Returns a status. */
  int (*line)(void *user, const char *json);
  void *user;
  pf_progress_fn progress; /* of loading */
  void *progress_user;
  const volatile int *stop; /* PF_EINCOMPLETE */
} pf_bench_opts;
PF_API int pf_bench_run(const pf_bench_opts *o, const char *model);

#ifdef __cplusplus
}
#endif

#endif
