/* SPDX-License-Identifier: Apache-2.0
 * Where two runs differ: the parts that diff and bisect share. */
#ifndef PF_ANALYSIS_DIFF_H
#define PF_ANALYSIS_DIFF_H

#include "analysis/snapshot.h"

/* ---- values ---------------------------------------------------------------------------------- */

typedef struct pf_tolerance {
  double atol, rtol, ulp; /* < 0: not given */
} pf_tolerance;

static inline bool pf_tolerance_given(const pf_tolerance *t) {
  return t->atol >= 0 || t->rtol >= 0 || t->ulp >= 0;
}
/* Floats between a and b (0: equal, or zeros of two signs); UINT32_MAX when one is NaN. */
uint32_t pf_ulp_distance(float a, float b);
/* Without a tolerance: the same bits, any NaN for any other. */
bool pf_values_agree(const pf_tolerance *t, float a, float b);

/* Values of hook points by position, wherever they come from. */
typedef struct pf_values {
  pf_tin *values;
  ptrdiff_t *tensor; /* (points) place in values, -1: not there */
  bool *head_first;  /* (points) [head, position, key], as other programs keep points over keys */
  int32_t n_pos;
} pf_values;
/* Those of a file that has all of `points`. */
int pf_values_open(pf_values *s, const char *path, const pf_points *points);
/* The tensors of prompt k of a full snapshot, for `points`. */
int pf_values_of_snap(pf_values *s, const pf_snap *snap, size_t k, const pf_points *points);
/* Those of another program; what is not known is put into *ignored (names), which may be NULL. */
int pf_values_foreign(pf_values *s, const char *path, const pf_snap *like, const pf_blocks *b,
                      json_t *ignored);
void pf_values_free(pf_values *s);
/* Values a head of the point has in a row of the file. */
size_t pf_values_part(const pf_values *s, const pf_points *points, size_t point);
/* Rows [lo, hi): out (hi - lo, heads, part). */
int pf_values_rows(pf_values *s, const pf_points *points, size_t point, int32_t lo, int32_t hi,
                   float *out);

/* ---- one prompt ------------------------------------------------------------------------------ */

/* A difference. block and head are known from digests, the rest from values. */
typedef struct pf_place {
  size_t point, block, head;
  pf_span span;
  bool exact;
  int32_t pos;
  size_t element;
  float a, b;
} pf_place;

/* How the values differ over all that was looked at. */
typedef struct pf_spread {
  double max_abs;
  uint32_t max_ulp;
  pf_place abs_at, ulp_at;
  double kl_sum, kl_max;
  int32_t kl_at, top1, n_logits;
} pf_spread;

typedef struct pf_prompt_diff {
  bool same, has_values;
  size_t n_points, n_differ; /* points of the prompt that were compared, and that differ */
  pf_place first;
  pf_spread spread;
} pf_prompt_diff;

/* Compares over `points`; a and b: digests by these points, either NULL when values decide;
 * va, vb: values, NULL when there are none. */
typedef struct pf_comparison {
  const pf_points *points;
  pf_blocks blocks;
  const pf_snap_prompt *a, *b;
  pf_values *va, *vb;
  pf_tolerance tolerance;
} pf_comparison;
int pf_compare(const pf_comparison *c, pf_prompt_diff *out);

/* A place as JSON; digests may be NULL. A new reference. */
json_t *pf_place_json(const pf_points *points, const pf_place *p, int32_t n_prompt,
                      const pf_snap_prompt *a, const pf_snap_prompt *b);

/* ---- weights --------------------------------------------------------------------------------- */

/* Two lists of a manifest: NULL when they are equal, else {"different": how many, "first": the
 * first in order of use, as {"name", "a", "b"}, of which one may be null}. *changed: some tensor
 * has other bytes in the same type and shape. */
json_t *pf_compare_tensors(const json_t *a, const json_t *b, bool *changed);
/* Puts the first element that differs between the two directories' files, and both values, into
 * tensors["first"]; leaves it as it is when that cannot be told. */
void pf_first_element(json_t *tensors, const char *dir_a, const char *dir_b);
/* The place of a tensor in order of use. */
int64_t pf_tensor_order(const char *name);

/* ---- results --------------------------------------------------------------------------------- */

/* Takes a new reference to result. */
int pf_diff_wrap(pf_diff **out, json_t *result, bool same);
/* The search with a candidate that is changed at a hook point. */
int pf_bisect_make(pf_diff **out, const pf_bisect_opts *o, const pf_snap_extra *x);

#endif
