/* SPDX-License-Identifier: Apache-2.0
 * Regression testing to the bit: snapshots of what a model computes, their differences, the search
 * for the operation that differs, and a check of this machine (doc/REGRESSION.md). */
#ifndef PERSONAFLOW_REGRESSION_H
#define PERSONAFLOW_REGRESSION_H

#include "personaflow/model.h"
#include "personaflow/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- snapshots ------------------------------------------------------------------------------- */

typedef struct pf_snap_opts {
  const char *model;        /* directory or org/name[@revision] */
  const char *prompts_name; /* stands in error lines */
  const char *prompts;      /* JSON Lines (doc/REGRESSION.md, "Prompts") */
  size_t n_prompts;         /* bytes of it */
  const char *out_dir;
  const char *hooks; /* "A,B,...", '*' for every layer; NULL or "all": all but hook_result */
  pf_precision precision;
  int threads;
  const char *isa;    /* caps the instruction set; NULL: the environment's */
  int32_t max_tokens; /* generated greedily for each prompt; 0: none */
  int32_t block;      /* positions a digest covers; 0: 16 */
  int32_t chunk; /* prompt rows of one evaluation; 0: as many as the memory for captures takes */
  int full;      /* keep the values too */
  int resume;    /* go on with what out_dir holds */
  int force;     /* start again over what out_dir holds */
  pf_progress_fn progress; /* positions */
  void *progress_user;
  const volatile int *stop; /* set to non-zero to stop: PF_EINCOMPLETE, to be resumed */
} pf_snap_opts;

/* Makes the snapshot out_dir. digest receives SHA-256 over all of it that decides or shows bits, in
 * hex; it may be NULL. PF_EEXIST when there is one already. */
PF_API int pf_snap_run(const pf_snap_opts *o, char digest[65]);

/* ---- differences ----------------------------------------------------------------------------- */

/* Two snapshots; or a full one and values that came from elsewhere: a safetensors file or a folder
 * of .npy files whose tensors have names of hook points or aliases of theirs. */
typedef struct pf_diff_opts {
  const char *a, *b;
  const char *prompt; /* id; NULL: every prompt (values from elsewhere: the only one) */
  /* With one of these >= 0 values decide, not digests, and are equal when
   * |a - b| <= atol + rtol |b| or when at most `ulp` floats lie between them; full snapshots. */
  double atol, rtol;
  double ulp;
} pf_diff_opts;
PF_API void pf_diff_defaults(pf_diff_opts *o);

typedef struct pf_diff pf_diff;
typedef enum pf_format { PF_FORMAT_TEXT, PF_FORMAT_JSON, PF_FORMAT_JUNIT } pf_format;

PF_API int pf_diff_run(pf_diff **out, const pf_diff_opts *o);
PF_API int pf_diff_same(const pf_diff *d);
/* *text is a heap string (pf_text_free), *n its bytes. */
PF_API int pf_diff_report(const pf_diff *d, pf_format format, char **text, size_t *n);
PF_API void pf_diff_free(pf_diff *d);

/* ---- the operation that differs -------------------------------------------------------------- */

typedef struct pf_bisect_opts {
  const char *snapshot;
  const char *prompt; /* id; NULL: every prompt, until one differs */
  /* The candidate; what is not given is as in the snapshot (model, precision) or the default. */
  const char *model;
  pf_precision precision;
  const char *isa;
  int threads;
  int32_t chunk;
  const char *out_dir; /* a new folder for the values of the operation; NULL: none are kept */
  pf_progress_fn progress;
  void *progress_user;
} pf_bisect_opts;
/* Finds the first operation, in order of execution, whose result is not what the snapshot has: its
 * kernels, its operands' and weights' digests and shapes. The result is read with pf_diff_same and
 * pf_diff_report (text or JSON). */
PF_API int pf_bisect_run(pf_diff **out, const pf_bisect_opts *o);

/* ---- this machine ---------------------------------------------------------------------------- */

/* One demo model in one precision. */
typedef struct pf_verify_row {
  const char *isa, *model;
  pf_precision precision;
  int same;               /* the digest is the shipped one, in every way of evaluation tried */
  char want[65], got[65]; /* got: "" when it could not be computed */
  char note[256];         /* why not */
  double seconds;
} pf_verify_row;

/* Computes the digests of the demo models in one precision or all (PF_PRECISION_AUTO) under one cap
 * (NULL: the environment's), all positions in one call and one at a time, and calls fn for each.
 * PF_EENV for an instruction set that is not here, PF_EINPUT when models or digests are not
 * installed. */
PF_API int pf_verify_run(const char *isa, pf_precision only, int threads,
                         void (*fn)(void *user, const pf_verify_row *row), void *user);

#ifdef __cplusplus
}
#endif

#endif
