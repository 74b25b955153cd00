/* SPDX-License-Identifier: Apache-2.0
 * Trials and their records. */
#include "analysis/sheet.h"

#include <math.h>
#include <string.h>

#include "analysis/jsonout.h"
#include "base/mem.h"
#include "base/status.h"

double pf_sum_steps(const double *kl, size_t n, size_t lo, size_t hi) {
  double sum = 0;
  for (size_t t = lo; t < hi && t < n; t++)
    sum += kl[t];
  return sum;
}

double pf_closure(const double *kl, const double *base, size_t n) {
  double b = pf_sum_steps(base, n, 0, n);
  return b > 0 ? 1 - pf_sum_steps(kl, n, 0, n) / b : (double)NAN;
}

int pf_sheet_probe(pf_sheet *s, const pf_track *t, pf_line **line) {
  size_t n = pf_lab_n_y(s->l);
  int rc = pf_grow((void **)&s->v, &s->cap, s->n + 1, sizeof(pf_line *));
  pf_line *x = *line = rc == PF_OK ? pf_lab_alloc(s->l, 1, sizeof *x) : NULL;
  double *kl = x ? pf_lab_alloc(s->l, n + 1, sizeof *kl) : NULL;
  if (!kl)
    return PF_ENOMEM;
  *x = (pf_line){.v = {.t = t, .to = (int32_t)n, .kl = kl}};
  s->v[s->n++] = x;
  return PF_OK;
}

int pf_sheet_add(pf_sheet *s, const pf_track *t, const char *condition, pf_line **line) {
  int rc = pf_sheet_probe(s, t, line);
  if (rc == PF_OK && !((*line)->row = json_pack("{s:s}", "condition", condition)))
    rc = PF_ENOMEM;
  return rc;
}

static const struct {
  const char *name;
  size_t lo, hi;
} windows[] = {
    {"", 0, SIZE_MAX}, {"10", 0, 10}, {"_0", 0, 1}, {"_1_9", 1, 10}, {"_10", 10, SIZE_MAX}};
enum { N_WINDOWS = sizeof windows / sizeof *windows };

static void put_steps(const pf_line *x, size_t n) {
  json_t *steps = json_array();
  for (size_t t = 0; t < n; t++)
    json_array_append_new(steps, pf_js_num(x->v.kl[t]));
  json_object_set_new(x->row, "kl_steps", steps);
}

static void put_windows(const pf_line *x, size_t n) {
  char key[32];
  if (x->steps)
    put_steps(x, n);
  json_object_set_new(x->row, "n_scored", json_integer((json_int_t)n));
  for (int w = 0; w < N_WINDOWS; w++) {
    snprintf(key, sizeof key, "kl%s", windows[w].name);
    double kl = pf_sum_steps(x->v.kl, n, windows[w].lo, windows[w].hi);
    bool there = n > windows[w].lo;
    json_object_set_new(x->row, key, pf_js_num(there ? kl : (double)NAN));
    if (!x->base)
      continue;
    snprintf(key, sizeof key, "closure%s", windows[w].name);
    double base = pf_sum_steps(x->base, n, windows[w].lo, windows[w].hi);
    json_object_set_new(x->row, key, pf_js_num(there && base > 0 ? 1 - kl / base : (double)NAN));
  }
}

int pf_sheet_run(pf_sheet *s) {
  pf_trial *v = pf_alloc(s->n, sizeof *v);
  if (!v)
    return PF_ENOMEM;
  for (size_t i = 0; i < s->n; i++)
    v[i] = s->v[i]->v;
  int rc = pf_lab_run(s->l, v, s->n);
  pf_free(v);
  for (size_t i = 0; i < s->n; i++) {
    json_t *row = s->v[i]->row;
    if (rc != PF_OK || !row)
      continue;
    put_windows(s->v[i], pf_lab_n_y(s->l));
    if (json_array_append(s->rows, row) != 0)
      rc = PF_ENOMEM;
  }
  for (size_t i = 0; i < s->n; i++)
    json_decref(s->v[i]->row);
  s->n = 0;
  return rc;
}

void pf_sheet_free(pf_sheet *s) {
  for (size_t i = 0; i < s->n; i++)
    json_decref(s->v[i]->row);
  pf_free(s->v);
  *s = (pf_sheet){0};
}

/* Lists of a line have few items: each addition makes a new one. */
static void *longer(pf_sheet *s, const void *list, size_t n, const void *item, size_t size) {
  char *all = pf_lab_alloc(s->l, n + 1, size);
  if (!all)
    return NULL;
  if (n)
    memcpy(all, list, n * size);
  memcpy(all + n * size, item, size);
  return all;
}

int pf_line_cut(pf_sheet *s, pf_line *line, pf_cut cut) {
  line->v.cuts = longer(s, line->v.cuts, line->v.n_cuts, &cut, sizeof cut);
  line->v.n_cuts++;
  return line->v.cuts ? PF_OK : PF_ENOMEM;
}

int pf_line_swap(pf_sheet *s, pf_line *line, pf_swap swap) {
  line->v.swaps = longer(s, line->v.swaps, line->v.n_swaps, &swap, sizeof swap);
  line->v.n_swaps++;
  return line->v.swaps ? PF_OK : PF_ENOMEM;
}

int pf_line_tap(pf_sheet *s, pf_line *line, pf_tap tap) {
  line->v.taps = longer(s, line->v.taps, line->v.n_taps, &tap, sizeof tap);
  line->v.n_taps++;
  return line->v.taps ? PF_OK : PF_ENOMEM;
}
