/* SPDX-License-Identifier: Apache-2.0
 * The parts of bench/model: the whole forward pass on a checkpoint, against what the machine can do
 * in the same run. */
#ifndef PF_BENCH_MODEL_H
#define PF_BENCH_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "simd/peak/peaks.h"
#include "model/internal.h"
#include "personaflow/profile.h"

enum { PF_MB_LIST = 8, PF_MB_LOADS = 3 /* repetitions of loading */ };

typedef enum pf_mb_format { PF_MB_MD, PF_MB_CSV, PF_MB_JSON, PF_MB_JSONL } pf_mb_format;

/* What a line measures. */
typedef enum pf_mb_test {
  PF_MB_PP,   /* a prompt of p tokens, logits of the last one */
  PF_MB_TG,   /* n tokens one after the other on each of `branches` branches, logits of all */
  PF_MB_LOAD, /* opening the model; the next three beside it */
  PF_MB_COLD, /* the same, the files dropped from the page cache */
  PF_MB_SUMS, /* the same, with the checksum of all tensors */
  PF_MB_FIRST /* opening and a prompt: time to the first token */
} pf_mb_test;

/* Parts of the table of targets; --only names some. */
#define PF_MB_PARTS(P)                                                                             \
  P(PREFILL, "prefill") P(DECODE, "decode") P(BATCH, "batch") P(LOAD, "load") P(MEMORY, "memory")
enum {
#define PF_MB_PART(id, word) PF_MB_PART_##id,
  PF_MB_PARTS(PF_MB_PART)
#undef PF_MB_PART
      PF_MB_N_PARTS
};

typedef struct pf_mb_opts {
  const char *model[PF_MB_LIST];
  size_t n_models;
  pf_precision precision[PF_N_PRECISIONS];
  size_t n_precisions;
  size_t p[PF_MB_LIST], n_p, n[PF_MB_LIST], n_n, npl[PF_MB_LIST], n_npl;
  size_t depth, batch, reps;
  int threads;
  pf_mb_format format;
  bool load, profile, smoke, warmup, targets;
  bool only[PF_MB_N_PARTS];
} pf_mb_opts;

typedef struct pf_mb_line {
  const char *model;
  pf_model_info info;  /* its strings may be gone */
  double size, params; /* bytes of the packed weights, parameters */
  pf_mb_test test;
  char name[32];
  size_t p, n, branches, depth;
  int threads;
  double tokens; /* of a repetition; 0: loading */
  double mean_s, best_s, mean_ts;
  double stddev; /* of tokens a second */
  double ops, peak, peak_now;
  bool amx; /* the products are AMX's */
  /* Weights or file bytes of a repetition; a second: the best that they are compared with, and what
   * was measured beside the line (between the steps of one branch: the median). */
  double bytes, read, read_now;
  double memory; /* peak of resident memory, without the bench's own arena, bytes */
} pf_mb_line;

typedef struct pf_mb {
  pf_mb_opts o;
  pf_peaks peaks;
  bool peaks_known;
  pf_arena arena; /* what bandwidth is measured with: the model's own weights when they are large */
  bool own_arena;
  pf_mb_line *lines; /* all so far */
  size_t n_lines, cap_lines;
} pf_mb;

/* model_run.c: all lines of a model in a precision, printed as they come. */
int pf_mb_run(pf_mb *b, const char *model, pf_precision p);

/* model_table.c */
void pf_mb_begin(const pf_mb *b);
int pf_mb_print(pf_mb *b, const pf_mb_line *l); /* keeps a copy; PF_OK or PF_ENOMEM */
void pf_mb_end(const pf_mb *b);
/* The name of the model's directory. */
const char *pf_mb_name(const pf_mb_line *l);
/* Best tokens a second, operations and bytes a second; 0: none. */
double pf_mb_rate(const pf_mb_line *l);
double pf_mb_ops(const pf_mb_line *l);
double pf_mb_flow(const pf_mb_line *l);

/* model_targets.c: the table, from the lines that were measured. */
void pf_mb_targets(const pf_mb *b);

/* profile.c: the share of each role of a stopped profile, on standard error. */
void pf_mb_profile_print(pf_profile *p, const char *title);

#endif
