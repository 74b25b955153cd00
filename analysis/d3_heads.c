/* SPDX-License-Identifier: Apache-2.0
 * D3: which heads and which tokens of the persona? The reads b (p_last) and c (generated tokens) of
 * one head are cut, then of the best k together, then of all but the best k; random sets of as many
 * heads in the same layers say what is special about the best. Tokens of the persona are left out
 * one by one, clause by clause, and one by one in each layer alone. doc/STUDY.md, D3. */
#include <string.h>

#include "analysis/experiment.h"
#include "analysis/flow.h"
#include "analysis/jsonout.h"
#include "analysis/stats.h"
#include "base/mem.h"
#include "base/status.h"

enum { RANDOM_SETS = 100, READS = PF_READ_B | PF_READ_C };
static const uint64_t SEED = 2605;
static const double SHARES[] = {0.05, 0.25};

typedef struct d3 {
  pf_flow f;
  int32_t layers, heads;
  size_t n;             /* heads in all */
  const pf_trial *base; /* the reads of all heads are cut */
  size_t *order;        /* (n) heads as layer * heads + head, most effect first */
} d3;

/* ---- single heads ---------------------------------------------------------------------------- */

static int cut_head(d3 *d, pf_line *x, int reads, int32_t head) {
  return pf_flow_cut_head(&d->f, x, reads, head / d->heads, head % d->heads);
}

static int add(d3 *d, const char *name, pf_line **x) {
  int rc = pf_sheet_add(&d->f.s, d->f.xy, name, x);
  if (rc == PF_OK)
    (*x)->base = d->base ? d->base : &(*x)->v;
  return rc;
}

/* The reads of all heads: closure 0 of the sets of heads. */
static int all_heads(d3 *d) {
  pf_line *x;
  int rc = add(d, "all_heads", &x);
  if (rc != PF_OK)
    return rc;
  d->base = &x->v;
  return pf_flow_ablate(&d->f, x, READS, PF_ABLATE_MASK, 0, d->layers);
}

static int single_heads(d3 *d) {
  static const struct {
    const char *name;
    int reads;
  } edges[] = {{"b", PF_READ_B}, {"c", PF_READ_C}, {"bc", READS}};
  size_t n_y = pf_lab_n_y(d->f.s.l);
  pf_line **both = pf_lab_alloc(d->f.s.l, d->n, sizeof *both);
  double *kl = pf_lab_alloc(d->f.s.l, d->n, sizeof *kl);
  int rc = both && kl ? all_heads(d) : PF_ENOMEM;
  for (int32_t h = 0; (size_t)h < d->n && rc == PF_OK; h++)
    for (int e = 0; e < 3 && rc == PF_OK; e++) {
      pf_line *x;
      rc = add(d, "head", &x);
      if (rc != PF_OK)
        return rc;
      json_object_set_new(x->row, "edge", json_string(edges[e].name));
      json_object_set_new(x->row, "layer", json_integer(h / d->heads));
      json_object_set_new(x->row, "head", json_integer(h % d->heads));
      rc = cut_head(d, x, edges[e].reads, h);
      both[h] = x; /* the last one has both */
    }
  if (rc == PF_OK)
    rc = pf_sheet_run(&d->f.s);
  for (size_t h = 0; h < d->n && rc == PF_OK; h++)
    kl[h] = -pf_sum_steps(both[h]->v.kl, n_y, 0, n_y);
  size_t ranked;
  return rc == PF_OK ? pf_order(kl, d->n, d->order, &ranked) : rc;
}

/* ---- sets of heads --------------------------------------------------------------------------- */

/* Cuts the reads of the set's heads, or with keep of all others. */
static int cut_set(d3 *d, pf_line *x, const size_t *set, size_t k, bool keep) {
  int rc = PF_OK;
  for (int32_t h = 0; (size_t)h < d->n && rc == PF_OK; h++) {
    bool in = false;
    for (size_t i = 0; i < k; i++)
      in |= set[i] == (size_t)h;
    if (in != keep)
      rc = cut_head(d, x, READS, h);
  }
  return rc;
}

static int best_sets(d3 *d) {
  int rc = PF_OK;
  for (size_t k = 1; k < d->n && rc == PF_OK; k *= 2)
    for (int keep = 0; keep < 2 && rc == PF_OK; keep++) {
      pf_line *x;
      rc = add(d, keep ? "keep_best" : "cut_best", &x);
      if (rc != PF_OK)
        return rc;
      json_object_set_new(x->row, "k", json_integer((json_int_t)k));
      rc = cut_set(d, x, d->order, k, keep);
    }
  return rc;
}

/* As many other heads of each layer as the best k have there; where a layer has no other left, the
 * same. */
static void random_set(const d3 *d, size_t k, uint64_t stream, size_t *set) {
  size_t heads = (size_t)d->heads;
  for (size_t i = 0; i < k; i++)
    for (uint64_t c = 0;; c++) {
      size_t h =
          d->order[i] / heads * heads + pf_draw_below(SEED, stream ^ (uint64_t)i << 16, c, heads);
      bool taken = false;
      for (size_t j = 0; j < i; j++)
        taken |= set[j] == h;
      set[i] = h;
      if (!taken)
        break;
    }
}

/* Closures of RANDOM_SETS sets of k heads, in one record beside the best k's. */
static int random_sets(d3 *d, size_t k, bool keep) {
  pf_lab *l = d->f.s.l;
  size_t n_y = pf_lab_n_y(l);
  size_t *set = pf_lab_alloc(l, k, sizeof *set);
  pf_line *best, *x[RANDOM_SETS];
  json_t *draws = json_array();
  int rc = set && draws ? add(d, keep ? "keep_share" : "cut_share", &best) : PF_ENOMEM;
  if (rc == PF_OK) {
    json_object_set_new(best->row, "k", json_integer((json_int_t)k));
    json_object_set_new(best->row, "heads", json_integer((json_int_t)d->n));
    rc = cut_set(d, best, d->order, k, keep);
  }
  for (uint64_t i = 0; i < RANDOM_SETS && rc == PF_OK; i++) {
    random_set(d, k,
               9ull << 56 ^ (uint64_t)pf_lab_index(l) << 40 ^ (uint64_t)k << 24 ^
                   (uint64_t)keep << 23 ^ i,
               set);
    rc = pf_sheet_probe(&d->f.s, d->f.xy, &x[i]);
    if (rc == PF_OK)
      rc = cut_set(d, x[i], set, k, keep);
  }
  json_t *row = rc == PF_OK ? json_incref(best->row) : NULL;
  if (rc == PF_OK)
    rc = pf_sheet_run(&d->f.s);
  for (int i = 0; i < RANDOM_SETS && rc == PF_OK; i++)
    json_array_append_new(draws, pf_js_num(pf_closure(&x[i]->v, d->base, n_y)));
  json_object_set(row, "random", draws);
  json_decref(row);
  json_decref(draws);
  return rc;
}

static int share_sets(d3 *d) {
  int rc = PF_OK;
  for (size_t i = 0; i < sizeof SHARES / sizeof *SHARES && rc == PF_OK; i++) {
    size_t k = (size_t)(SHARES[i] * (double)d->n + 0.999);
    for (int keep = 0; keep < 2 && rc == PF_OK; keep++)
      rc = random_sets(d, k, keep);
  }
  return rc;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* A record that names the tokens [lo, hi), by index. */
static int add_tokens(d3 *d, const char *name, int32_t lo, int32_t hi, pf_line **x) {
  const pf_track *t = d->f.xy;
  int rc = add(d, name, x);
  if (rc != PF_OK)
    return rc;
  uint32_t from = t->q->enc.start[lo], to = t->q->enc.end[hi - 1];
  json_object_set_new((*x)->row, "tokens", json_pack("[i,i]", lo - t->x.lo, hi - t->x.lo));
  json_object_set_new((*x)->row, "text", json_stringn(t->q->text + from, to - from));
  return PF_OK;
}

/* The reads of the keys [lo, hi), by index, by p_last and what follows. */
static int cut_tokens(d3 *d, const char *name, int32_t lo, int32_t hi) {
  const pf_track *t = d->f.xy;
  pf_line *x;
  int rc = add_tokens(d, name, lo, hi, &x);
  return rc == PF_OK ? pf_flow_cut(&d->f, x, d->f.p_last, t->pos[lo], t->pos[hi - 1] + 1) : rc;
}

/* The same reads of one key in one layer. */
static int cut_token_in(d3 *d, int32_t i, int32_t layer) {
  int32_t pos = d->f.xy->pos[i];
  pf_line *x;
  int rc = add_tokens(d, "token_layer", i, i + 1, &x);
  if (rc != PF_OK)
    return rc;
  json_object_set_new(x->row, "layer", json_integer(layer));
  return pf_flow_cut_in(&d->f, x, layer, layer + 1, d->f.p_last, pos, pos + 1);
}

static int token_map(d3 *d) {
  const pf_track *t = d->f.xy;
  int rc = PF_OK;
  for (int32_t i = t->x.lo; i < t->x.hi && rc == PF_OK; i++)
    for (int32_t layer = 0; layer < d->layers && rc == PF_OK; layer++)
      rc = cut_token_in(d, i, layer);
  return rc == PF_OK ? pf_sheet_run(&d->f.s) : rc;
}

static bool has_comma(const pf_track *t, int32_t i) {
  uint32_t lo = t->q->enc.start[i], hi = t->q->enc.end[i];
  return memchr(t->q->text + lo, ',', hi - lo) != NULL;
}

static int tokens(d3 *d) {
  const pf_track *t = d->f.xy;
  int rc = PF_OK;
  for (int32_t i = t->x.lo; i < t->x.hi && rc == PF_OK; i++)
    rc = cut_tokens(d, "token", i, i + 1);
  for (int32_t lo = t->x.lo, hi; lo < t->x.hi && rc == PF_OK; lo = hi) {
    for (hi = lo + 1; hi < t->x.hi && !has_comma(t, hi - 1);)
      hi++;
    rc = cut_tokens(d, "clause", lo, hi);
  }
  if (rc == PF_OK)
    rc =
        cut_tokens(d, "after_persona", t->y.lo, t->y.lo + 1); /* the comma, in the usual template */
  return rc == PF_OK ? pf_sheet_run(&d->f.s) : rc;
}

int pf_d3(pf_lab *l, size_t part, json_t *rows) {
  const pf_model_info *info = pf_lab_plan(l)->info;
  d3 d = {.layers = info->n_layers, .heads = info->n_heads};
  (void)part;
  d.n = (size_t)d.layers * (size_t)d.heads;
  d.order = pf_lab_alloc(l, d.n, sizeof *d.order);
  int rc = d.order ? pf_flow_open(&d.f, l, rows) : PF_ENOMEM;
  if (pf_lab_n_y(l) > 0) {
    int (*const steps[])(d3 *) = {single_heads, best_sets, tokens, token_map, share_sets};
    for (size_t i = 0; i < sizeof steps / sizeof *steps && rc == PF_OK; i++)
      rc = steps[i](&d);
  }
  pf_flow_close(&d.f);
  return rc;
}
