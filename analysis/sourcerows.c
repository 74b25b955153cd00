/* SPDX-License-Identifier: Apache-2.0
 * Rows of a source file: by their shape, never by their number of values alone. */
#include "analysis/sourcerows.h"

#include <math.h>
#include <stdio.h>

#include "analysis/tensorfile.h"
#include "base/status.h"

static size_t positions_of(const pf_rows_want *w) {
  return w->at.hi == INT32_MAX ? 1 : (size_t)(w->at.hi - w->at.lo);
}

/* The forms without the first axis and with it; width: of a point over keys the tensor's. */
static bool rows_of(const pf_tensor *t, const pf_rows_want *w, size_t width, size_t *rows) {
  const size_t *d = t->dims;
  size_t row = width * (w->heads ? w->heads : 1);
  int n = t->n_dims;
  for (; n > (w->heads ? 3 : 2) && *d == 1; n--)
    d++;
  bool one = (n == 1 && d[0] == row) || (n == 2 && w->heads && d[0] == w->heads && d[1] == width);
  bool more = (n == 2 && d[1] == row) || (n == 3 && d[1] == w->heads && d[2] == width);
  *rows = one ? 1 : d[0];
  return one || more;
}

static int bad_shape(const char *source, const pf_tensor *t, const pf_rows_want *w) {
  char found[PF_SHAPE_TEXT], heads[32] = "", width[32] = "keys", each[96], all[80] = "";
  size_t n = positions_of(w);
  if (w->heads)
    snprintf(heads, sizeof heads, "%zu, ", w->heads);
  if (w->width)
    snprintf(width, sizeof width, "%zu", w->width);
  snprintf(each, sizeof each, "[%zu, %s%s]", n, heads, width);
  if (w->width || n == 1)
    snprintf(all, sizeof all, n == 1 ? " or [%s%s]" : ", or [%s%s] for all positions alike", heads,
             width);
  return pf_fail(PF_EINPUT, "%s has the shape %s; wanted for %s is %s%s", source,
                 pf_shape_text(t, found), w->hook, each, all);
}

/* Over keys: what stands behind a row's own keys would be lost without a word, and in a tensor of
 * another layout it is what shows. */
static int check_rest(const char *source, const pf_tensor *t, const pf_rows_want *w, size_t keys) {
  for (size_t r = 0; r < positions_of(w); r++)
    for (size_t h = 0; h < w->heads; h++)
      for (size_t k = (size_t)w->at.lo + r + 1; k < keys; k++) {
        float v = t->data[(r * w->heads + h) * keys + k];
        if (v != 0 && v != -INFINITY)
          return pf_fail(PF_EINPUT,
                         "%s has a value for key %zu in the row of position %zu, which ends with "
                         "its own key (rows are [position, head, key])",
                         source, k, (size_t)w->at.lo + r);
      }
  return PF_OK;
}

static int fit_keys(const char *source, const pf_tensor *t, const pf_rows_want *w) {
  size_t keys = t->n_dims ? t->dims[t->n_dims - 1] : 0, rows;
  if (w->at.hi == INT32_MAX)
    return pf_fail(PF_EINPUT,
                   "%s: %s has a key more at each position, and these positions have no end: give "
                   "one that has, such as \"g1\"",
                   source, w->hook);
  if (keys == 0 || !rows_of(t, w, keys, &rows) || rows != positions_of(w))
    return bad_shape(source, t, w);
  if (keys != (size_t)w->at.hi)
    return pf_fail(PF_EINPUT, "%s has %zu keys; %s at position %d has %d: as many are wanted",
                   source, keys, w->hook, (int)w->at.hi - 1, (int)w->at.hi);
  return check_rest(source, t, w, keys);
}

int pf_rows_fit(const char *source, const pf_tensor *t, const pf_rows_want *w, bool *one) {
  size_t rows = 1;
  if (!w->width) {
    *one = positions_of(w) == 1;
    return fit_keys(source, t, w);
  }
  if (!rows_of(t, w, w->width, &rows) || (rows != 1 && rows != positions_of(w)))
    return bad_shape(source, t, w);
  *one = rows == 1;
  return PF_OK;
}
