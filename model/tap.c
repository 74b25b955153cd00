/* SPDX-License-Identifier: Apache-2.0
 * Actions at hook points: checked and sorted once, run on rows. */
#include "model/tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/internal.h"

/* Floats that a row has in value and out. */
static size_t row_width(const pf_hook_info *h, const pf_tap *t) {
  size_t part = (size_t)(h->width < 0 ? t->n_keys : h->width);
  return h->heads && t->head < 0 ? part * (size_t)h->heads : part;
}

/* "tap I: POINT", and what is said of it. */
static int refuse(const pf_hook_info *h, const pf_tap *t, size_t i, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static int refuse(const pf_hook_info *h, const pf_tap *t, size_t i, const char *fmt, ...) {
  char name[96], said[256];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(said, sizeof said, fmt, ap);
  va_end(ap);
  pf_hook_spell(h, t->layer, name, sizeof name);
  return pf_fail(PF_EUSAGE, "tap %zu: %s%s", i, name, said);
}

/* Layer, head, positions. */
static int check_place(const pf_model *m, const pf_hook_info *h, const pf_tap *t, size_t i) {
  if (h->per_layer && (t->layer < 0 || t->layer >= m->cfg.info.n_layers))
    return refuse(h, t, i, ": layer %d does not exist: the model has 0 to %d", t->layer,
                  m->cfg.info.n_layers - 1);
  if (!h->per_layer && t->layer != -1)
    return refuse(h, t, i, " is of no layer: layer has to be -1, not %d", t->layer);
  if (!h->heads && t->head != -1)
    return refuse(h, t, i, " has no heads: head has to be -1, not %d", t->head);
  if (t->head < -1 || (t->head >= 0 && t->head >= h->heads))
    return refuse(h, t, i, " has no head %d: there are 0 to %d, and -1 for all", t->head,
                  h->heads - 1);
  if (t->pos_lo < 0 || t->pos_hi <= t->pos_lo)
    return refuse(h, t, i, ": empty or negative positions [%d, %d)", t->pos_lo, t->pos_hi);
  return PF_OK;
}

/* Operation, value and out, at a place that there is. */
static int check_values(const pf_hook_info *h, const pf_tap *t, size_t i) {
  bool reads = t->op == PF_OP_REPLACE || t->op == PF_OP_ADD;
  if ((unsigned)t->op > PF_OP_ZERO)
    return refuse(h, t, i, ": unknown operation %d", (int)t->op);
  if (reads && !t->value)
    return refuse(h, t, i, ": replace and add need a value");
  if (t->op == PF_OP_CAPTURE && !t->out)
    return refuse(h, t, i, ": capture needs a place to write to");
  if (h->width < 0 && (t->value || t->out) && t->n_keys <= 0)
    return refuse(h, t, i, " is a hook over keys and needs n_keys");
  /* Rows would lie over each other: which one stays would depend on the threads. */
  if (t->op == PF_OP_CAPTURE && t->pos_hi - t->pos_lo > 1 && t->out_stride < row_width(h, t))
    return refuse(h, t, i, ": rows of %zu values cannot be captured with an out_stride of %zu",
                  row_width(h, t), t->out_stride);
  /* Fewer would leave the rest of a row as it was. */
  if (h->width < 0 && reads && t->n_keys < t->pos_hi)
    return refuse(h, t, i, " has %d keys at position %d, its values %d", t->pos_hi, t->pos_hi - 1,
                  t->n_keys);
  return PF_OK;
}

static int check(const pf_model *m, const pf_tap *t, size_t i) {
  const pf_hook_info *h = pf_hook_by_id(m, t->hook);
  if (!h)
    return pf_fail(PF_EUSAGE, "tap %zu: this model has no hook %d", i, t->hook);
  int rc = check_place(m, h, t, i);
  return rc == PF_OK ? check_values(h, t, i) : rc;
}

static int64_t key_of(int hook, int32_t layer) {
  return ((int64_t)layer + 1) * PF_N_HOOKS + hook;
}

/* qsort has no context argument */
static _Thread_local const pf_tap *sort_base;

static int by_key(const void *a, const void *b) {
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  int64_t x = key_of(sort_base[i].hook, sort_base[i].layer),
          y = key_of(sort_base[j].hook, sort_base[j].layer);
  return x != y ? (x < y ? -1 : 1) : (i < j ? -1 : i > j);
}

int pf_tapset_make(pf_tapset *t, const pf_model *m, pf_tap *taps, size_t n) {
  pf_tapset made = {.taps = taps, .n = n};
  for (size_t i = 0; i < n; i++) {
    int rc = check(m, &taps[i], i);
    if (rc != PF_OK)
      return rc;
  }
  made.order = n ? pf_alloc(n, sizeof *made.order) : NULL;
  if (n && !made.order)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++)
    made.order[i] = (uint32_t)i;
  sort_base = taps;
  if (n)
    qsort(made.order, n, sizeof *made.order, by_key);
  pf_tapset_free(t);
  *t = made;
  return PF_OK;
}

void pf_tapset_free(pf_tapset *t) {
  pf_free(t->order);
  *t = (pf_tapset){0};
}

static size_t first_at(const pf_tapset *t, int64_t key) {
  size_t lo = 0, hi = t->n;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    const pf_tap *a = &t->taps[t->order[mid]];
    if (key_of(a->hook, a->layer) < key)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* The i-th action in sorted order if it stands at the key, else NULL. */
static pf_tap *at_key(const pf_tapset *t, size_t i, int64_t key) {
  if (i >= t->n)
    return NULL;
  pf_tap *a = &t->taps[t->order[i]];
  return key_of(a->hook, a->layer) == key ? a : NULL;
}

bool pf_tapset_hits(const pf_tapset *t, int hook, int32_t layer, int32_t pos) {
  int64_t key = key_of(hook, layer);
  const pf_tap *a;
  for (size_t i = first_at(t, key); (a = at_key(t, i, key)); i++)
    if (pos >= a->pos_lo && pos < a->pos_hi)
      return true;
  return false;
}

void pf_tapset_mark(const pf_tapset *t, uint8_t *used) {
  for (size_t i = 0; i < t->n; i++)
    used[key_of(t->taps[i].hook, t->taps[i].layer)] = 1;
}

static void act(const pf_tap *a, float *x, size_t n, const float *value, float *out,
                size_t n_file) {
  size_t both = n < n_file ? n : n_file;
  switch (a->op) {
  case PF_OP_CAPTURE:
    memcpy(out, x, both * sizeof *x);
    break;
  case PF_OP_REPLACE:
    memcpy(x, value, both * sizeof *x);
    break;
  case PF_OP_ADD:
    for (size_t i = 0; i < both; i++)
      x[i] = x[i] + value[i];
    break;
  case PF_OP_SCALE:
    for (size_t i = 0; i < n; i++)
      x[i] = x[i] * a->scale;
    break;
  case PF_OP_ZERO:
    memset(x, 0, n * sizeof *x);
    break;
  }
}

/* Keys that a row does not have: 0, or -inf for masked scores. */
static void fill_rest(const pf_tap *a, size_t n, size_t n_file, float *out) {
  float rest = a->hook == PF_HOOK_SCORES ? -__builtin_inff() : 0.0f;
  for (size_t i = n; a->op == PF_OP_CAPTURE && i < n_file; i++)
    out[i] = rest;
}

static void run_one(pf_tap *a, const pf_point *p, float *x) {
  size_t n_file = pf_hook_over_keys(a->hook) && a->n_keys > 0 ? (size_t)a->n_keys : p->width;
  size_t row = (size_t)(p->pos - a->pos_lo);
  for (int32_t h = p->head0; h < p->head0 + p->heads; h++) {
    if (a->head >= 0 && a->head != h)
      continue;
    size_t part = a->head >= 0 ? 0 : (size_t)h * n_file;
    const float *value = a->value ? a->value + row * a->value_stride + part : NULL;
    float *out = a->out ? a->out + row * a->out_stride + part : NULL;
    act(a, x + (size_t)(h - p->head0) * p->stride, p->width, value, out, n_file);
    fill_rest(a, p->width, n_file, out);
    if (a->head >= 0 || h == 0) /* once a row, also when heads come one by one on several threads */
      __atomic_fetch_add(&a->fired, 1, __ATOMIC_RELAXED);
  }
}

bool pf_tapset_run(const pf_tapset *t, const pf_point *p, float *x) {
  int64_t key = key_of(p->hook, p->layer);
  bool changed = false;
  pf_tap *a;
  for (size_t i = first_at(t, key); (a = at_key(t, i, key)); i++)
    if (p->pos >= a->pos_lo && p->pos < a->pos_hi) {
      run_one(a, p, x);
      changed |= a->op != PF_OP_CAPTURE;
    }
  return changed;
}
