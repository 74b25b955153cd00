/* SPDX-License-Identifier: Apache-2.0
 * Values of hook points as snapshots and other programs keep them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/diff.h"
#include "base/mem.h"
#include "base/status.h"

static int side_alloc(pf_values *s, size_t n) {
  s->tensor = pf_alloc(n, sizeof *s->tensor);
  s->head_first = pf_calloc(n, sizeof *s->head_first);
  for (size_t i = 0; s->tensor && i < n; i++)
    s->tensor[i] = -1;
  return s->tensor && s->head_first ? PF_OK : PF_ENOMEM;
}

void pf_values_free(pf_values *s) {
  pf_tin_close(s->values);
  pf_free(s->tensor);
  pf_free(s->head_first);
  *s = (pf_values){0};
}

/* ---- snapshots ------------------------------------------------------------------------------- */

int pf_values_open(pf_values *s, const char *path, const pf_points *points) {
  *s = (pf_values){0};
  int rc = side_alloc(s, points->n);
  if (rc == PF_OK)
    rc = pf_tin_open(&s->values, path);
  for (size_t i = 0; rc == PF_OK && i < points->n; i++) {
    const pf_at *a = &points->v[i];
    s->tensor[i] = pf_tin_find(s->values, a->name);
    const pf_tensor *t = s->tensor[i] < 0 ? NULL : pf_tin_get(s->values, (size_t)s->tensor[i]);
    if (!t || t->n_dims != (a->hook->heads ? 3 : 2) || (a->hook->heads && t->dims[1] != a->heads) ||
        t->dims[t->n_dims - 1] != (a->width ? a->width : t->dims[0]))
      rc = pf_fail(PF_EINPUT, "%s: damaged: no values of %s: make the snapshot again", path,
                   a->name);
    else
      s->n_pos = (int32_t)t->dims[0];
  }
  if (rc != PF_OK)
    pf_values_free(s);
  return rc;
}

int pf_values_of_snap(pf_values *s, const pf_snap *snap, size_t k, const pf_points *points) {
  char path[4400];
  pf_snap_values_path(snap, k, path);
  return pf_values_open(s, path, points);
}

/* ---- other programs -------------------------------------------------------------------------- */

/* The point that a foreign name means, -1: none of the snapshot. */
static ptrdiff_t point_of(const pf_snap *like, const char *name) {
  int id;
  int32_t layer;
  if (!strcmp(name, "logits"))
    name = "unembed.hook_out";
  if (pf_hook_find(like->config, name, &id, &layer) != PF_OK)
    return -1;
  for (size_t i = 0; i < like->points.n; i++)
    if (like->points.v[i].hook->id == id && like->points.v[i].layer == layer)
      return (ptrdiff_t)i;
  return -1;
}

static int bad_shape(const char *path, const pf_tensor *t, const char *want) {
  char shape[PF_SHAPE_TEXT];
  return pf_fail(PF_EINPUT, "%s: %s has the shape %s; wanted is %s", path, t->name,
                 pf_shape_text(t, shape), want);
}

/* What the row of a position has for the keys after it: nothing. */
static bool is_none(float v) {
  return v == 0 || v <= -1e30f; /* masks that are added are the lowest float, not -inf */
}

/* Of n x n x n values whose last axis is keys: whether positions may be the axis `pos`. */
static bool causal(const float *v, size_t n, int pos) {
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++)
      for (size_t k = (pos ? j : i) + 1; k < n; k++)
        if (!is_none(v[(i * n + j) * n + k]))
          return false;
  return true;
}

/* As many positions as heads: the keys that a row cannot have tell the axes apart; where they do
 * not, the file is taken for one of ours. */
static int heads_come_first(pf_values *s, size_t point, size_t n, bool *first) {
  size_t count;
  if (!pf_mul3(n, n, n, &count))
    return PF_ENOMEM;
  float *v = pf_alloc(count, sizeof *v);
  int rc = v ? pf_tin_read(s->values, (size_t)s->tensor[point], 0, count, v) : PF_ENOMEM;
  *first = rc == PF_OK && causal(v, n, 1) && !causal(v, n, 0);
  pf_free(v);
  return rc;
}

static bool is_length(const pf_blocks *b, size_t positions) {
  return positions == (size_t)b->prompt || positions == (size_t)b->all;
}

/* d: the three axes. *pos: how many positions there are, 0 when the shape is no pattern's. */
static int fit_keys(pf_values *s, const pf_blocks *b, size_t point, size_t heads, const size_t *d,
                    size_t *pos) {
  bool ours = d[1] == heads && d[0] == d[2] && is_length(b, d[0]);
  bool theirs = d[0] == heads && d[1] == d[2] && is_length(b, d[1]);
  s->head_first[point] = theirs;
  *pos = ours || theirs ? d[2] : 0;
  return ours && theirs ? heads_come_first(s, point, heads, &s->head_first[point]) : PF_OK;
}

/* Leading axes of 1 are a batch. Keys: [position, head, key] or [head, position, key]. Others:
 * [position, ...] with the point's values a position. */
static int fit(const char *path, pf_values *s, const pf_snap *like, const pf_blocks *b,
               size_t point) {
  const pf_at *a = &like->points.v[point];
  const pf_tensor *t = pf_tin_get(s->values, (size_t)s->tensor[point]);
  const size_t *d = t->dims;
  int n = t->n_dims, rc = PF_OK;
  char want[128];
  while (n > 2 && *d == 1 && (a->width || n > 3))
    d++, n--;
  size_t pos = n ? d[0] : 0;
  snprintf(want, sizeof want, "%d or %d positions of %zu values", (int)b->prompt, (int)b->all,
           a->heads * a->width);
  if (!a->width) {
    snprintf(want, sizeof want, "%d or %d positions, %zu heads (or these first), as many keys",
             (int)b->prompt, (int)b->all, a->heads);
    pos = 0;
    rc = n == 3 ? fit_keys(s, b, point, a->heads, d, &pos) : PF_OK;
  } else if (pos && pf_tensor_count(t) != pos * a->heads * a->width) {
    pos = 0;
  }
  if (rc == PF_OK && !is_length(b, pos))
    rc = bad_shape(path, t, want);
  if (rc == PF_OK)
    s->n_pos = s->n_pos == 0 || (int32_t)pos < s->n_pos ? (int32_t)pos : s->n_pos;
  return rc;
}

int pf_values_foreign(pf_values *s, const char *path, const pf_snap *like, const pf_blocks *b,
                      json_t *ignored) {
  size_t found = 0;
  *s = (pf_values){0};
  int rc = side_alloc(s, like->points.n);
  if (rc == PF_OK)
    rc = pf_tin_open(&s->values, path);
  for (size_t i = 0; rc == PF_OK && i < pf_tin_count(s->values); i++) {
    const char *name = pf_tin_get(s->values, i)->name;
    ptrdiff_t p = point_of(like, name);
    if (p < 0) {
      json_array_append_new(ignored, json_string(name));
      continue;
    }
    if (s->tensor[p] >= 0)
      rc = pf_fail(PF_EINPUT, "%s: %s and %s are both %s", path, name,
                   pf_tin_get(s->values, (size_t)s->tensor[p])->name, like->points.v[p].name);
    s->tensor[p] = (ptrdiff_t)i;
    found++;
    if (rc == PF_OK)
      rc = fit(path, s, like, b, (size_t)p);
  }
  if (rc == PF_OK && !found)
    rc = pf_fail(PF_EINPUT,
                 "%s: none of its %zu tensors has the name of a hook point that the snapshot "
                 "holds ('personaflow hooks' lists names and aliases)",
                 path, pf_tin_count(s->values));
  if (rc != PF_OK)
    pf_values_free(s);
  return rc;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static const pf_tensor *tensor_of(const pf_values *s, size_t point) {
  return pf_tin_get(s->values, (size_t)s->tensor[point]);
}

size_t pf_values_part(const pf_values *s, const pf_points *points, size_t point) {
  const pf_tensor *t = tensor_of(s, point);
  return points->v[point].width ? points->v[point].width : t->dims[t->n_dims - 1];
}

int pf_values_rows(pf_values *s, const pf_points *points, size_t point, int32_t lo, int32_t hi,
                   float *out) {
  size_t heads = points->v[point].heads, part = pf_values_part(s, points, point),
         stride = heads * part;
  size_t i = (size_t)s->tensor[point];
  if (!s->head_first[point])
    return pf_tin_read(s->values, i, (size_t)lo * stride, (size_t)(hi - lo) * stride, out);
  int rc = PF_OK;
  for (int32_t pos = lo; pos < hi; pos++)
    for (size_t h = 0; rc == PF_OK && h < heads; h++)
      rc = pf_tin_read(s->values, i, (h * part + (size_t)pos) * part, part,
                       out + (size_t)(pos - lo) * stride + h * part);
  return rc;
}
