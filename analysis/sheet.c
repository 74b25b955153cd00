/* SPDX-License-Identifier: Apache-2.0
 * Trials and their records. */
#include "analysis/sheet.h"

#include <math.h>
#include <stddef.h>
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

double pf_closure(const pf_trial *v, const pf_trial *base, size_t n) {
  double b = pf_sum_steps(base->kl, n, 0, n);
  return b > 0 ? 1 - pf_sum_steps(v->kl, n, 0, n) / b : (double)NAN;
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
  size_t n = pf_lab_n_y(s->l);
  int rc = pf_sheet_probe(s, t, line);
  double *more = rc == PF_OK ? pf_lab_alloc(s->l, 2 * (n + 1), sizeof *more) : NULL;
  if (!more)
    return rc == PF_OK ? PF_ENOMEM : rc;
  (*line)->v.reverse_kl = more;
  (*line)->v.jsd = more + n + 1;
  if (!((*line)->row = json_pack("{s:s}", "condition", condition)))
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

/* How far from the clean answers, and in how many of the windows it is recorded. */
static const struct {
  const char *key, *closure;
  size_t at;
  int windows;
} measures[] = {{"kl", "closure", offsetof(pf_trial, kl), N_WINDOWS},
                {"reverse_kl", "closure_reverse_kl", offsetof(pf_trial, reverse_kl), 2},
                {"jsd", "closure_jsd", offsetof(pf_trial, jsd), 2}};
enum { N_MEASURES = sizeof measures / sizeof *measures };

static const double *values_of(const pf_trial *v, int measure) {
  return *(double *const *)((const char *)v + measures[measure].at);
}

/* NaN for a window that begins behind the last step. */
static void put_window(const pf_line *x, size_t n, int m, int w) {
  char key[40];
  size_t lo = windows[w].lo, hi = windows[w].hi;
  double sum = pf_sum_steps(values_of(&x->v, m), n, lo, hi);
  snprintf(key, sizeof key, "%s%s", measures[m].key, windows[w].name);
  json_object_set_new(x->row, key, pf_js_num(n > lo ? sum : (double)NAN));
  if (!x->base)
    return;
  double base = pf_sum_steps(values_of(x->base, m), n, lo, hi);
  snprintf(key, sizeof key, "%s%s", measures[m].closure, windows[w].name);
  json_object_set_new(x->row, key, pf_js_num(n > lo && base > 0 ? 1 - sum / base : (double)NAN));
}

/* How likely the clean answer is, over the steps below hi. */
static void put_likelihood(const pf_line *x, size_t n, const char *window, size_t hi) {
  char key[40];
  double ll = pf_sum_steps(x->v.logprob, n, 0, hi);
  snprintf(key, sizeof key, "ll%s", window);
  json_object_set_new(x->row, key, pf_js_num(ll));
  if (!x->base || !x->clean)
    return;
  double from = pf_sum_steps(x->base->logprob, n, 0, hi),
         to = pf_sum_steps(x->clean->logprob, n, 0, hi);
  snprintf(key, sizeof key, "closure_ll%s", window);
  json_object_set_new(x->row, key, pf_js_num(to > from ? (ll - from) / (to - from) : (double)NAN));
}

static void put_windows(const pf_line *x, size_t n) {
  if (x->v.logprob) {
    put_likelihood(x, n, "", SIZE_MAX);
    put_likelihood(x, n, "10", 10);
  }
  if (x->steps)
    put_steps(x, n);
  json_object_set_new(x->row, "n_scored", json_integer((json_int_t)n));
  for (int m = 0; m < N_MEASURES; m++)
    for (int w = 0; w < measures[m].windows; w++)
      put_window(x, n, m, w);
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

/* Lists have room for 1, 2, 4, ... items, so that one of n is copied log n times and not n times:
 * what it leaves behind stays in the lab's memory until the unit ends. */
static void *longer(pf_sheet *s, const void *list, size_t n, const void *item, size_t size) {
  bool full = (n & (n - 1)) == 0;
  char *all = full ? pf_lab_more(s->l, list, n * size, (n ? 2 * n : 1) * size) : (char *)list;
  if (all)
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
