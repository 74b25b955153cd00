/* SPDX-License-Identifier: Apache-2.0
 * D1: which reads of the persona carry it to the answer? Edges into the persona's keys are taken
 * away by kind of query: a, the later prompt (persona is written into it); b, p_last; c, generated
 * tokens. K1 = b + c leaves the indirect route, K2 = a the direct one, K3 = a + b + c nothing.
 * Closure = 1 - KL / KL(K3 of the same ablation). doc/STUDY.md, D1. */
#include <string.h>

#include "analysis/experiment.h"
#include "analysis/flow.h"
#include "base/rng.h"
#include "base/status.h"

enum { K1 = PF_READ_B | PF_READ_C, K2 = PF_READ_A, K3 = PF_READ_A | PF_READ_B | PF_READ_C };
enum { CONTROL_DRAWS = 5 };
static const uint64_t SEED = 2605;

static const struct {
  const char *name;
  int reads;
} cuts[] = {{"K1", K1}, {"K1p", PF_READ_B}, {"K1g", PF_READ_C}, {"K2", K2}, {"K3", K3}};
enum { N_CUTS = sizeof cuts / sizeof *cuts };
static const char *const layered[] = {"K1", "K2", "K3"};

static int reads_of(const char *name) {
  for (int i = 0; i < N_CUTS; i++)
    if (!strcmp(cuts[i].name, name))
      return cuts[i].reads;
  return 0;
}

/* One condition; base NULL: it is its own. */
static int add(pf_flow *f, const char *name, pf_ablation how, int32_t lo, int32_t hi,
               const pf_trial *base, const pf_trial **trial) {
  pf_line *x;
  int rc = pf_sheet_add(&f->s, f->xy, name, &x);
  if (rc != PF_OK)
    return rc;
  json_object_set_new(x->row, "ablation", json_string(pf_ablation_names[how]));
  pf_line_layers(x, lo, hi);
  x->base = base ? base : &x->v;
  if (trial)
    *trial = &x->v;
  return pf_flow_ablate(f, x, reads_of(name), how, lo, hi);
}

/* All cuts over all layers, by each ablation, and the layer profiles of the mask. */
static int factorial(pf_flow *f, const pf_trial **floor) {
  int32_t layers = pf_lab_layers(f->s.l);
  int rc = PF_OK;
  for (int how = 0; how < PF_N_ABLATIONS && rc == PF_OK; how++) {
    bool needs_neutral = how != PF_ABLATE_MASK && how != PF_ABLATE_ZERO_V;
    const pf_trial *base = NULL;
    if (needs_neutral && !f->neutral)
      continue;
    rc = add(f, "K3", (pf_ablation)how, 0, layers, NULL, &base);
    for (int i = 0; i < N_CUTS && rc == PF_OK; i++)
      if (cuts[i].reads != K3)
        rc = add(f, cuts[i].name, (pf_ablation)how, 0, layers, base, NULL);
    if (how == PF_ABLATE_MASK)
      *floor = base;
  }
  return rc;
}

static int profile(pf_flow *f, const pf_trial *floor) {
  int32_t layers = pf_lab_layers(f->s.l), lo, hi;
  int rc = PF_OK;
  for (size_t i = 0; i < sizeof layered / sizeof *layered; i++)
    for (int32_t k = 0; k < layers && rc == PF_OK; k++)
      for (int p = 0; p < PF_N_PROFILES && rc == PF_OK; p++) {
        if (!pf_profile_span((pf_profile)p, k, layers, &lo, &hi))
          continue;
        rc = add(f, layered[i], PF_ABLATE_MASK, lo, hi, floor, NULL);
        if (rc == PF_OK)
          pf_line_profile(f->s.v[f->s.n - 1], (pf_profile)p, k);
      }
  return rc;
}

/* Reads by the rows that give y_t are cut for t >= tau only. */
static int time_profile(pf_flow *f, const pf_trial *floor) {
  static const int32_t taus[] = {0, 1, 2, 4, 8, 16, 32};
  int rc = PF_OK;
  for (size_t i = 0; i < sizeof taus / sizeof *taus && rc == PF_OK; i++) {
    pf_line *x;
    if ((size_t)taus[i] >= pf_lab_n_y(f->s.l))
      break;
    rc = pf_sheet_add(&f->s, f->xy, "late", &x);
    if (rc != PF_OK)
      return rc;
    json_object_set_new(x->row, "tau", json_integer(taus[i]));
    x->base = floor;
    x->steps = true;
    rc = pf_flow_cut(f, x, f->p_last + taus[i], f->x_lo, f->x_hi);
  }
  return rc;
}

/* `n` of the keys [lo, hi) without repetition, in ascending order, cut from p_last on. */
static int cut_some(pf_flow *f, pf_line *x, int32_t lo, int32_t hi, int32_t n, uint64_t stream) {
  int rc = PF_OK;
  for (int32_t k = lo, left = hi - lo; k < hi && n > 0 && rc == PF_OK; k++, left--) {
    if (pf_uniform(SEED, stream, (uint64_t)k) * left >= n)
      continue;
    n--;
    rc = pf_flow_cut(f, x, f->p_last, k, k + 1);
  }
  return rc;
}

/* Keys that a control takes away. */
typedef struct region {
  const char *name, *as_many_as;
  int32_t lo, hi, n;
} region;

static int control(pf_flow *f, const pf_trial *floor, const region *r, uint64_t kind) {
  int rc = PF_OK;
  for (uint64_t draw = 0; draw < CONTROL_DRAWS && rc == PF_OK; draw++) {
    pf_line *x;
    if (draw && r->n == r->hi - r->lo)
      break; /* all of them: every draw is the same */
    rc = pf_sheet_add(&f->s, f->xy, r->name, &x);
    if (rc != PF_OK)
      return rc;
    if (r->as_many_as)
      json_object_set_new(x->row, "as_many_as", json_string(r->as_many_as));
    json_object_set_new(x->row, "draw", json_integer((json_int_t)draw));
    json_object_set_new(x->row, "n_keys", json_integer(r->n));
    x->base = floor;
    rc = cut_some(f, x, r->lo, r->hi, r->n,
                  kind << 56 ^ (uint64_t)pf_lab_index(f->s.l) << 16 ^ draw);
  }
  return rc;
}

/* The reads of K1 from other keys, as many or all there are: of the task; of what stands before the
 * persona, without the first token, on which attention rests. Beside each, as many of the persona's
 * own. */
static int other_keys(pf_flow *f, const pf_trial *floor) {
  const pf_track *t = f->xy;
  const region regions[] = {{"Kc_task", NULL, t->pos[t->y.lo], t->pos[t->y.hi], 0},
                            {"Kc_before", NULL, 1, f->x_lo, 0}};
  int rc = PF_OK;
  for (uint64_t i = 0; i < 2 && rc == PF_OK; i++) {
    region r = regions[i], own = {"K1_some", r.name, f->x_lo, f->x_hi, 0};
    int32_t there = r.hi - r.lo, n = f->x_hi - f->x_lo;
    if (there <= 0)
      continue;
    r.n = own.n = n < there ? n : there;
    rc = control(f, floor, &r, i + 1);
    if (rc == PF_OK)
      rc = control(f, floor, &own, i + 3);
  }
  return rc;
}

/* The same cut of a neutral persona's keys in its own prompt, against that prompt's own answer. */
static int neutral_keys(pf_flow *f) {
  pf_line *x;
  const pf_ref *ref;
  if (!f->neutral)
    return PF_OK;
  int rc = pf_lab_refs(f->s.l, f->neutral, &ref);
  if (rc == PF_OK)
    rc = pf_sheet_add(&f->s, f->neutral, "Kc_neutral", &x);
  if (rc != PF_OK)
    return rc;
  x->v.ref = ref;
  return pf_flow_cut(f, x, f->p_last, f->x_lo, f->neutral->pos[f->neutral->x.hi - 1] + 1);
}

int pf_d1(pf_lab *l, size_t part, json_t *rows) {
  pf_flow f;
  const pf_trial *floor = NULL;
  (void)part;
  int rc = pf_flow_open(&f, l, rows);
  if (rc == PF_OK && pf_lab_n_y(l) > 0)
    rc = factorial(&f, &floor);
  if (rc == PF_OK && floor)
    rc = profile(&f, floor);
  if (rc == PF_OK && floor)
    rc = time_profile(&f, floor);
  if (rc == PF_OK && floor)
    rc = other_keys(&f, floor);
  if (rc == PF_OK && floor)
    rc = neutral_keys(&f);
  if (rc == PF_OK)
    rc = pf_sheet_run(&f.s);
  pf_flow_close(&f);
  return rc;
}
