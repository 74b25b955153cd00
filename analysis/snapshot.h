/* SPDX-License-Identifier: Apache-2.0
 * Snapshots: what a model computed for some prompts, as digests of every chosen hook point by
 * head and block of positions (doc/REGRESSION.md).
 *
 * A folder: manifest.json (written last; "head" is what decides the bits), config.json of the
 * model, and for every prompt prompt-NNNNNN.json with its digests and, in a full snapshot,
 * prompt-NNNNNN.safetensors with the values. partial.json, which holds the head, stands in the
 * place of the manifest while the snapshot is made. */
#ifndef PF_ANALYSIS_SNAPSHOT_H
#define PF_ANALYSIS_SNAPSHOT_H

#include <jansson.h>
#include <stdbool.h>

#include "analysis/prompts.h"
#include "analysis/tensorstream.h"
#include "personaflow/regression.h"

#define PF_SNAP_SCHEMA "personaflow-snapshot/1"
enum { PF_SNAP_BLOCK = 16 };

/* ---- points of execution --------------------------------------------------------------------- */

/* A hook point of one layer. A row (position) has `heads` parts of `width` values; width 0: a row
 * at position p has p + 1 values a head, one for each key. */
typedef struct pf_at {
  const pf_hook_info *hook; /* of the model */
  int32_t layer;            /* -1: not per layer */
  size_t heads, width;
  char name[80];
} pf_at;

typedef struct pf_points {
  pf_at *v; /* in order of execution */
  size_t n, cap;
} pf_points;

/* "A,B,...", '*' in the place of a layer takes every layer; NULL or "all": all but hook_result,
 * which is computed for its readers only. The logits are always there. PF_EUSAGE for a name that is
 * none. */
int pf_points_make(pf_points *out, const pf_model *m, const char *list);
/* From names as a manifest lists them. */
int pf_points_named(pf_points *out, const pf_model *m, const json_t *names);
/* One more, in its place. */
int pf_points_add(pf_points *p, const pf_model *m, const char *name);
ptrdiff_t pf_points_find(const pf_points *p, const char *name);
/* A new reference; NULL when out of memory. */
json_t *pf_points_names(const pf_points *p);
void pf_points_free(pf_points *p);

/* ---- blocks of positions --------------------------------------------------------------------- */

/* The prompt's positions in blocks of `block` (the last one may be shorter), then one block for
 * each generated position: what a digest covers was computed in one evaluation or in a row of them
 * over the same prompt. */
typedef struct pf_blocks {
  int32_t prompt, all, block;
} pf_blocks;

static inline size_t pf_blocks_prompt(const pf_blocks *b) {
  return (size_t)((b->prompt + b->block - 1) / b->block);
}
static inline size_t pf_blocks_n(const pf_blocks *b) {
  return pf_blocks_prompt(b) + (size_t)(b->all - b->prompt);
}
static inline pf_span pf_block_span(const pf_blocks *b, size_t i) {
  size_t n = pf_blocks_prompt(b);
  int32_t lo = i < n ? (int32_t)i * b->block : b->prompt + (int32_t)(i - n);
  int32_t hi = i >= n ? lo + 1 : lo + b->block < b->prompt ? lo + b->block : b->prompt;
  return (pf_span){lo, hi};
}

/* ---- one prompt ------------------------------------------------------------------------------ */

typedef struct pf_sha {
  unsigned char b[32];
} pf_sha;

/* digest[point][block * heads + head]: SHA-256 of the values of the head's rows in the block, row
 * after row, fp32 little-endian; any NaN counts as 0x7fc00000. */
typedef struct pf_snap_prompt {
  char *id;
  pf_ids ids, generated;
  pf_blocks blocks;
  pf_sha **digest;
  size_t n_points;
} pf_snap_prompt;
int pf_snap_prompt_init(pf_snap_prompt *p, const pf_points *points, const char *id,
                        const int32_t *ids, size_t n, int32_t max_tokens, int32_t block);
void pf_snap_prompt_free(pf_snap_prompt *p);
/* p, whose digests are by `own`, as seen by `wanted`, a part of it: the digests stay p's, the list
 * view->digest is the caller's (pf_free), NULL on failure. */
int pf_snap_view(pf_snap_prompt *view, const pf_snap_prompt *p, const pf_points *own,
                 const pf_points *wanted);
/* A file for the values of the prompt: a tensor [position, head, width] for each point, [position,
 * width] for those without heads. Its metadata is of m (pf_origin), tokenizer_sha256 may be NULL.
 */
int pf_points_values(pf_tout **out, const char *path, const pf_points *points,
                     const pf_snap_prompt *p, const pf_model *m, const char *tokenizer_sha256);

/* Runs prompts. Each one is evaluated in pieces of at most `chunk` rows and then max_tokens tokens
 * are chosen greedily, an end-of-sequence token like any other; all but the last are evaluated too.
 */
typedef struct pf_runner {
  const pf_model *model;
  const pf_points *points;
  const char *isa;
  int threads;
  int32_t block, max_tokens, chunk;
  const pf_tap *edits; /* actions before the captures; NULL: none */
  size_t n_edits;
  /* Rows [lo, hi) of a point as they were captured, stride values apart; a point over keys has
   * `stride / heads` keys a head. May be NULL. A failure ends the run. */
  int (*rows)(void *user, size_t point, int32_t lo, int32_t hi, const float *v, size_t stride);
  void (*done)(void *user, int32_t positions); /* may be NULL */
  void *user;
  const volatile int *stop;
} pf_runner;
/* out: initialised for the prompt (pf_snap_prompt_init); receives digests and generated ids. */
int pf_runner_run(const pf_runner *r, pf_snap_prompt *out);

/* ---- making and reading ---------------------------------------------------------------------- */

/* What the public options do not have. */
typedef struct pf_snap_extra {
  const pf_tap *edits; /* for the prompt at place `prompt` alone */
  size_t n_edits, prompt;
} pf_snap_extra;
int pf_snap_make(const pf_snap_opts *o, const pf_snap_extra *x, char digest[65]);

/* The tensors of an opened model as a manifest lists them. */
json_t *pf_tensors_json(const pf_model *m);

typedef struct pf_snap {
  char *dir;
  json_t *manifest;
  const json_t *head; /* of it */
  pf_model *config;   /* configuration only */
  pf_points points;
  int32_t block, max_tokens;
  size_t n_prompts;
  bool full;
} pf_snap;
/* True if path is a folder that a snapshot was begun in. */
bool pf_snap_is(const char *path);
/* PF_EINPUT when it is not complete, or damaged. */
int pf_snap_open(pf_snap *out, const char *dir);
void pf_snap_close(pf_snap *s);
/* The checked digests of prompt k. */
int pf_snap_read(const pf_snap *s, size_t k, pf_snap_prompt *out);
/* PF_EINPUT unless its file is the one that the manifest lists. */
int pf_snap_check(const pf_snap *s, size_t k);
/* SHA-256 of its file, and its id, as the manifest has them. */
const char *pf_snap_file_sha(const pf_snap *s, size_t k);
const char *pf_snap_id(const pf_snap *s, size_t k);
/* The file with the values of prompt k of a full snapshot. */
void pf_snap_values_path(const pf_snap *s, size_t k, char path[4400]);

/* The instruction set that `cap` (NULL: none), the environment or this build asks for, in this
 * order. */
const char *pf_isa_in_force(const char *cap);

#endif
