/* SPDX-License-Identifier: Apache-2.0
 * The study of "As X, Do Y" (arXiv 2605.23147): grids, prompt spans, the additive-substitution
 * study and its report. */
#ifndef PERSONAFLOW_ANALYSIS_H
#define PERSONAFLOW_ANALYSIS_H

#include "personaflow/model.h"
#include "personaflow/tokenizer.h"

/* Token spans [lo, hi) of a role prompt in the model's chat format. */
typedef struct pf_span {
  int32_t lo, hi;
} pf_span;

typedef struct pf_role_prompt {
  pf_encoding enc; /* the prompt with the generation header */
  char *text;      /* rendered text */
  /* template_: all that is neither of the others, up to the header. */
  pf_span bos, template_, persona, task, header;
  int32_t p_user_last, p_last;
} pf_role_prompt;

/* Fills a template such as "As {persona}, {task}" and encodes it as one user message. persona NULL
 * = the bare task. */
PF_API int pf_role_prompt_make(const pf_tok *t, const char *template_, const char *persona,
                               const char *task, pf_role_prompt *out);
PF_API void pf_role_prompt_free(pf_role_prompt *p);

typedef struct pf_study_opts {
  const char *model;    /* directory or org/name[@revision] */
  const char *protocol; /* "paper" */
  const char *grid;     /* "short", "long", a shipped grid's name, or a file */
  const char *layers;   /* "3,5,7"; NULL = the grid's or the paper's fractions */
  const char *out_dir;
  int threads;
  int resume;  /* 1: go on with what is there */
  int force;   /* 1: start again over what is there */
  int dry_run; /* 1: say cells, rows, memory and time; compute nothing */
  pf_progress_fn progress;
  void *progress_user;
  /* Set to non-zero (by a signal handler) to stop at the next step: PF_EINCOMPLETE. */
  const volatile int *stop;
  void (*log)(void *user, const char *line); /* tables and notes, line by line; NULL = silent */
  void *log_user;
} pf_study_opts;

PF_API int pf_study_run(const pf_study_opts *o);
/* Makes report.html of a finished study again. */
PF_API int pf_report_make(const char *dir);

#endif
