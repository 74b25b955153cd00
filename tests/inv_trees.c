/* SPDX-License-Identifier: Apache-2.0
 * Random trees of branches: forks at (layer, position), plain forks, stops at a layer, cuts, swaps,
 * moved keys, gaps, actions at any hook point, generations, rows of several branches mixed and
 * calls cut anywhere, failed calls in between. Of every branch the residuals of all positions and
 * layers, the logits of the rows that ran and the generated tokens must be those of a run of its
 * own from nothing, bit for bit. Draws come from a counter-based generator: PF_TREES_SEED=S
 * tests/inv_trees [TREES]     PF_TREES_ONLY=N: tree N alone */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "personaflow/personaflow.h"
#include "tests/util.h"

static const char *const models[] = {"g2-window", "q2-odd",     "g2-layer-types", "g2-nocap-mqa",
                                     "q2-mixed",  "q2-sharded", "q2-one-layer",   "g2-f16"};
enum { N_MODELS = sizeof models / sizeof *models, POS = 96, NODES = 7, ACTS = 12, GEN = 5 };

static uint64_t seed, tree, draws;

static uint32_t draw(uint32_t n) {
  uint32_t w[4];
  pf_philox(seed, tree, draws++, w);
  return w[0] % n;
}

static int32_t between(int32_t lo, int32_t hi) { /* [lo, hi) */
  return lo + (int32_t)draw((uint32_t)(hi - lo));
}

typedef struct node {
  const char *kind;
  int parent;
  pf_seq *seq;
  int32_t end, token[POS], entry[POS]; /* token -1: a gap; entry -1: the row does not run here */
  pf_tap tap[ACTS];
  pf_cut cut[ACTS];
  pf_swap swap[ACTS];
  size_t n_tap, n_cut, n_swap;
  int32_t gen_at; /* first position fed by the generation, -1: none */
  pf_gen_opts gen;
  pf_ids out;
  float *resid;  /* (n_layers + 1, POS, d) */
  float *logits; /* (POS, V) of the rows that ran */
} node;

static struct {
  pf_model *m;
  const pf_model_info *i;
  pf_ctx *c;
  int pre, post;
  size_t d, v, n_hooks;
  const pf_hook_info *hooks;
  node n[NODES];
  int n_nodes;
  float *values[NODES * ACTS];
  size_t n_values;
} t;

static int failures;

static void bad(const node *n, const char *what, int32_t layer, int32_t pos) {
  printf(
      "FAIL: seed %llu, tree %llu, node %d (%s of %d): %s, layer %d, position %d; last error: %s\n",
      (unsigned long long)seed, (unsigned long long)tree, (int)(n - t.n), n->kind, n->parent, what,
      (int)layer, (int)pos, pf_last_error());
  failures++;
}

static float *resid_of(const node *n, int32_t layer, int32_t pos) {
  return n->resid + ((size_t)layer * POS + (size_t)pos) * t.d;
}

/* ---- actions --------------------------------------------------------------------------------- */

static float *random_values(size_t n) {
  float *v = malloc(n * sizeof *v);
  for (size_t i = 0; i < n; i++)
    v[i] = ((float)draw(4096) - 2048.0f) / 1024.0f;
  t.values[t.n_values++] = v;
  return v;
}

static pf_tap random_tap(int32_t lo, int32_t hi) {
  const pf_hook_info *h = &t.hooks[draw((uint32_t)t.n_hooks)];
  pf_tap a = {.hook = h->id, .layer = h->per_layer ? between(0, t.i->n_layers) : -1, .head = -1};
  a.pos_lo = between(lo, hi);
  a.pos_hi = a.pos_lo + 1 + (draw(3) ? 0 : between(0, 6));
  a.head = h->heads && draw(2) ? between(0, h->heads) : -1;
  a.op = h->width == 1 || (h->width < 0 && draw(2)) ? PF_OP_SCALE
         : h->width < 0                             ? PF_OP_ZERO
                                                    : (pf_op)between(PF_OP_REPLACE, PF_OP_ZERO + 1);
  a.scale = draw(2) ? 0.5f : 1.25f;
  if (a.op != PF_OP_REPLACE && a.op != PF_OP_ADD)
    return a;
  a.value_stride = (size_t)h->width * (a.head < 0 && h->heads ? (size_t)h->heads : 1);
  a.value = random_values(a.value_stride * (size_t)(a.pos_hi - a.pos_lo));
  return a;
}

static pf_cut random_cut(int32_t end) {
  pf_cut c = {.layer_lo = between(0, t.i->n_layers), .head = -1};
  c.layer_hi = between(c.layer_lo + 1, t.i->n_layers + 1);
  c.head = draw(2) ? between(0, t.i->n_heads) : -1;
  c.q_lo = between(0, end);
  c.q_hi = between(c.q_lo + 1, end + 4);
  c.k_lo = between(0, end);
  c.k_hi = between(c.k_lo + 1, end + 1);
  return c;
}

static bool has_span(const node *n, int32_t lo, int32_t hi) {
  for (int32_t p = lo; p < hi; p++)
    if (p >= n->end || n->token[p] < 0)
      return false;
  return true;
}

/* False: no span of the source was found. */
static bool random_swap(int32_t end, pf_swap *w) {
  if (t.n_nodes == 0)
    return false;
  const node *src = &t.n[draw((uint32_t)t.n_nodes)];
  int32_t n = between(1, 5), from = between(0, src->end);
  if (!has_span(src, from, from + n) || src->gen_at >= 0 || end < n + 1)
    return false;
  *w =
      (pf_swap){.layer_lo = between(0, t.i->n_layers), .head = -1, .src_lo = from, .src = src->seq};
  w->layer_hi = between(w->layer_lo + 1, t.i->n_layers + 1);
  w->head = draw(2) ? between(0, t.i->n_kv_heads) : -1;
  w->pos_lo = draw(2) && from + n <= end ? from : between(0, end - n);
  w->pos_hi = w->pos_lo + n;
  w->what = 1 + draw(3);
  w->q_lo = draw(3) ? 0 : between(0, end + 8);
  w->q_hi = draw(3) ? 0 : between(w->q_lo > 1 ? w->q_lo : 1, end + 9);
  return true;
}

/* Adds actions that leave what `layers` says of the first `fixed` positions; lowers the rest. */
static void add_actions(node *n, int count, int32_t fixed, int32_t *layers) {
  for (int k = 0; k < count; k++) {
    int32_t after[POS], end = n->end;
    memcpy(after, layers, sizeof after);
    uint32_t kind = draw(6);
    pf_swap w;
    if (kind == 0) {
      n->cut[n->n_cut] = random_cut(end);
      pf_reach_cuts(&n->cut[n->n_cut], 1, POS, after);
    } else if (kind == 1) {
      if (!random_swap(end, &w))
        continue;
      n->swap[n->n_swap] = w;
      pf_reach_swaps(&w, 1, POS, after);
    } else {
      n->tap[n->n_tap] = random_tap(0, end);
      pf_reach_taps(&n->tap[n->n_tap], 1, POS, after);
    }
    if (memcmp(after, layers, (size_t)fixed * sizeof *layers) != 0)
      continue;
    memcpy(layers, after, sizeof after);
    n->n_cut += kind == 0;
    n->n_swap += kind == 1;
    n->n_tap += kind > 1;
  }
}

/* The actions of a node between captures of what enters each layer and of what leaves the last. */
static size_t tap_list(const node *n, float *resid, pf_tap *list) {
  int32_t layers = t.i->n_layers;
  size_t k = 0;
  for (int32_t l = 0; l <= layers; l++) {
    if (l == layers)
      for (size_t a = 0; a < n->n_tap; a++)
        list[k++] = n->tap[a];
    list[k++] = (pf_tap){.hook = l < layers ? t.pre : t.post,
                         .layer = l < layers ? l : layers - 1,
                         .head = -1,
                         .pos_hi = POS,
                         .op = PF_OP_CAPTURE,
                         .out = resid + (size_t)l * POS * t.d,
                         .out_stride = t.d};
  }
  return k;
}

static int dress(const node *n, pf_seq *s, float *resid, pf_tap *list) {
  int rc = pf_seq_set_taps(s, list, tap_list(n, resid, list));
  if (rc == PF_OK)
    rc = pf_seq_set_cuts(s, n->cut, n->n_cut);
  return rc == PF_OK ? pf_seq_set_swaps(s, n->swap, n->n_swap) : rc;
}

/* ---- building -------------------------------------------------------------------------------- */

/* New positions at the end, some of them gaps. */
static void grow(node *n, int32_t count) {
  for (int32_t k = 0; k < count && n->end < POS - GEN - 4; k++) {
    if (n->end > 0 && draw(12) == 0 && n->end < POS - 30)
      n->end += between(1, 20);
    n->entry[n->end] = 0;
    n->token[n->end++] = (int32_t)draw((uint32_t)t.v);
  }
}

static node *new_node(const char *kind, int parent) {
  node *n = &t.n[t.n_nodes];
  *n = (node){.kind = kind, .parent = parent, .gen_at = -1};
  for (int32_t p = 0; p < POS; p++)
    n->token[p] = n->entry[p] = -1;
  n->resid = calloc((size_t)(t.i->n_layers + 1) * POS * t.d, sizeof *n->resid);
  n->logits = calloc(POS * t.v, sizeof *n->logits);
  return n;
}

/* The parent's actions, and its first `keep` positions. */
static void inherit(node *n, const node *p, int32_t keep) {
  memcpy(n->tap, p->tap, sizeof n->tap);
  memcpy(n->cut, p->cut, sizeof n->cut);
  memcpy(n->swap, p->swap, sizeof n->swap);
  n->n_tap = p->n_tap, n->n_cut = p->n_cut, n->n_swap = p->n_swap;
  memcpy(n->token, p->token, (size_t)keep * sizeof *n->token);
  memcpy(n->resid, p->resid, (size_t)(t.i->n_layers + 1) * POS * t.d * sizeof *n->resid);
  for (n->end = keep; n->end > 0 && n->token[n->end - 1] < 0;)
    n->end--;
}

static void whole_layers(int32_t *layers) {
  for (int32_t p = 0; p < POS; p++)
    layers[p] = t.i->n_layers;
}

static int make_root(node *n) {
  int32_t layers[POS];
  whole_layers(layers);
  grow(n, between(8, 60));
  add_actions(n, between(0, 3), 0, layers);
  return pf_seq_new(&n->seq, t.c);
}

/* New tokens from some position on. */
static int make_plain(node *n, const node *p) {
  int32_t layers[POS], keep = between(0, p->end + 1);
  whole_layers(layers);
  inherit(n, p, keep);
  grow(n, between(1, 24));
  add_actions(n, between(0, 3), keep, layers);
  return pf_seq_fork(&n->seq, p->seq, keep);
}

/* Changes anywhere; each position restarts where it must, sometimes below. */
static int make_layered(node *n, const node *p) {
  int32_t layers[POS], keep = between(1, p->end + 1);
  whole_layers(layers);
  inherit(n, p, keep);
  if (n->end == 0)
    inherit(n, p, keep = p->end);
  add_actions(n, between(1, 4), 0, layers);
  for (int32_t q = between(0, keep), more = draw(3) == 0; q < keep && more; q++)
    layers[q] = between(0, layers[q] + 1);
  for (int32_t q = 0; q < keep; q++)
    if (n->token[q] >= 0 && layers[q] < t.i->n_layers)
      n->entry[q] = layers[q];
  int rc = pf_seq_fork_layers(&n->seq, p->seq, keep, layers);
  grow(n, draw(2) ? between(0, 8) : 0);
  return rc;
}

/* Tokens that the model chooses, after one that is given. */
static int make_generation(node *n, const node *p) {
  inherit(n, p, p->end);
  pf_gen_defaults(&n->gen);
  n->gen.max_tokens = between(1, GEN);
  n->gen.repetition_penalty = draw(2) ? 1.3 : 1.0;
  n->gen.ignore_eos = 1;
  n->gen_at = n->end;
  n->token[n->end++] = (int32_t)draw((uint32_t)t.v);
  return pf_seq_fork(&n->seq, p->seq, p->end);
}

static int make_node(void) {
  int rc, parent = t.n_nodes ? (int)draw((uint32_t)t.n_nodes) : -1;
  const node *p = parent < 0 ? NULL : &t.n[parent];
  uint32_t kind = draw(8);
  node *n;
  if (!p || kind == 0) {
    n = new_node("root", -1);
    rc = make_root(n);
  } else if (p->gen_at >= 0 || kind < 3) {
    n = new_node("plain fork", parent);
    rc = make_plain(n, p);
  } else if (kind < 7 || p->end > POS - GEN - 2) {
    n = new_node("layered fork", parent);
    rc = make_layered(n, p);
  } else {
    n = new_node("generation", parent);
    rc = make_generation(n, p);
  }
  if (rc != PF_OK)
    bad(n, "making it", -1, -1);
  return rc;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct call {
  pf_row rows[2 * POS];
  node *of[2 * POS];
  size_t n;
} call;

static pf_row row_of(node *n, pf_seq *s, int32_t p, int32_t layer) {
  return (pf_row){.seq = s,
                  .token = n->token[p],
                  .pos = p,
                  .layer = layer,
                  .resid = layer ? resid_of(n, layer, p) : NULL};
}

/* The rows of up to two nodes, shuffled, each node's in order; now and then logits of a position
 * that is finished. */
static void gather(node *a, int count, call *k) {
  int32_t at[2] = {0, 0};
  k->n = 0;
  for (int left = count; left > 0;) {
    int w = count > 1 ? (int)draw(2) : 0;
    node *n = &a[w];
    for (int32_t run = between(1, 9); run > 0 && at[w] < n->end; at[w]++)
      if (n->entry[at[w]] >= 0 && n->gen_at < 0) {
        k->rows[k->n] = row_of(n, n->seq, at[w], n->entry[at[w]]);
        k->of[k->n++] = n;
        run--;
      }
    left = 0;
    for (int i = 0; i < count; i++)
      left += at[i] < a[i].end;
  }
}

/* A call that must fail, and change nothing: a wrong token after good rows. */
static bool fails(const call *k, size_t lo, size_t n) {
  pf_row rows[2 * POS];
  memcpy(rows, k->rows + lo, n * sizeof *rows);
  rows[n - 1].token = -1;
  return pf_eval(t.c, rows, n, NULL) == PF_EUSAGE;
}

static int run_rows(call *k) {
  float *logits = malloc(2 * POS * t.v * sizeof *logits);
  int rc = PF_OK;
  for (size_t lo = 0, n; lo < k->n && rc == PF_OK; lo += n) {
    n = draw(2) ? k->n - lo : 1 + draw((uint32_t)(k->n - lo));
    for (size_t i = 0; i < n; i++)
      k->rows[lo + i].out = (int32_t)i;
    if (draw(6) == 0) {
      for (size_t i = 0; i < n; i++)
        k->rows[lo + i].out = -1;
      if (!fails(k, lo, n))
        bad(k->of[lo], "a wrong call passes", -1, k->rows[lo].pos);
      for (size_t i = 0; i < n; i++)
        k->rows[lo + i].out = (int32_t)i;
    }
    rc = pf_eval(t.c, k->rows + lo, n, logits);
    for (size_t i = 0; i < n && rc == PF_OK; i++)
      memcpy(k->of[lo + i]->logits + (size_t)k->rows[lo + i].pos * t.v, logits + i * t.v,
             t.v * sizeof *logits);
  }
  free(logits);
  return rc;
}

/* Its rows up to a layer that is drawn, in one call; from there on they run again. */
static int run_below(node *n) {
  static call k;
  int32_t stop = between(1, t.i->n_layers + 1);
  int rc = pf_seq_set_stop(n->seq, stop);
  k.n = 0;
  for (int32_t p = 0; p < n->end; p++)
    if (n->entry[p] >= 0 && n->entry[p] < stop) {
      k.rows[k.n] = row_of(n, n->seq, p, n->entry[p]);
      k.rows[k.n++].out = -1;
      n->entry[p] = stop;
    }
  if (rc == PF_OK && stop < t.i->n_layers && k.n && draw(4) == 0) {
    k.rows[k.n - 1].out = 0;
    if (pf_eval(t.c, k.rows, k.n, NULL) != PF_EUSAGE)
      bad(n, "logits of rows that stop", stop, k.rows[k.n - 1].pos);
    k.rows[k.n - 1].out = -1;
  }
  if (rc == PF_OK)
    rc = pf_eval(t.c, k.rows, k.n, NULL);
  return rc == PF_OK ? pf_seq_set_stop(n->seq, t.i->n_layers) : rc;
}

static int generate(node *n, pf_seq *s, pf_ids *out) {
  return pf_generate(s, &n->token[n->gen_at], 1, &n->gen, out);
}

static void run_nodes(node *a, int count) {
  static call k;
  pf_tap *list[2] = {NULL, NULL};
  int rc = PF_OK;
  for (int i = 0; i < count && rc == PF_OK; i++) {
    list[i] = calloc(ACTS + 16, sizeof **list);
    rc = dress(&a[i], a[i].seq, a[i].resid, list[i]);
    if (rc == PF_OK && a[i].gen_at < 0 && draw(3) == 0)
      rc = run_below(&a[i]);
  }
  gather(a, count, &k);
  if (rc == PF_OK)
    rc = run_rows(&k);
  for (int i = 0; i < count && rc == PF_OK; i++)
    if (a[i].gen_at >= 0)
      rc = generate(&a[i], a[i].seq, &a[i].out);
  if (rc != PF_OK)
    bad(a, "running it", -1, -1);
  for (int i = 0; i < count; i++) {
    for (size_t g = 0; a[i].gen_at >= 0 && g + 1 < a[i].out.n; g++)
      a[i].token[a[i].end++] = a[i].out.v[g];
    pf_seq_set_taps(a[i].seq, NULL, 0);
    free(list[i]);
  }
}

/* ---- comparing ------------------------------------------------------------------------------- */

static void compare(node *n, const node *w, const float *logits, const pf_ids *out) {
  for (int32_t p = 0; p < n->end; p++) {
    if (n->token[p] < 0)
      continue;
    for (int32_t l = 0; l <= t.i->n_layers; l++)
      if (memcmp(resid_of(n, l, p), resid_of(w, l, p), t.d * sizeof(float)) != 0) {
        bad(n, "residual", l, p);
        return;
      }
    if (n->entry[p] >= 0 &&
        memcmp(n->logits + (size_t)p * t.v, logits + (size_t)p * t.v, t.v * sizeof *logits) != 0) {
      bad(n, "logits", -1, p);
      return;
    }
  }
  if (n->out.n != out->n || (out->n && memcmp(n->out.v, out->v, out->n * sizeof *out->v) != 0))
    bad(n, "generated tokens", -1, n->gen_at);
}

/* The node's run from nothing: a new sequence with its actions, every position from layer 0. */
static void check(node *n) {
  node w = {.resid = calloc((size_t)(t.i->n_layers + 1) * POS * t.d, sizeof(float))};
  pf_tap list[ACTS + 16];
  pf_row rows[POS];
  float *logits = malloc(POS * t.v * sizeof *logits);
  pf_ids out = {0};
  size_t k = 0;
  int rc = pf_seq_new(&w.seq, t.c);
  if (rc == PF_OK)
    rc = dress(n, w.seq, w.resid, list);
  for (int32_t p = 0; p < (n->gen_at < 0 ? n->end : n->gen_at); p++)
    if (n->token[p] >= 0) {
      rows[k] = row_of(n, w.seq, p, 0);
      rows[k++].out = p;
    }
  if (rc == PF_OK)
    rc = pf_eval(t.c, rows, k, logits);
  if (rc == PF_OK && n->gen_at >= 0)
    rc = generate(n, w.seq, &out);
  if (rc == PF_OK)
    compare(n, &w, logits, &out);
  else
    bad(n, "running it whole", -1, -1);
  pf_seq_free(w.seq);
  pf_ids_free(&out);
  free(w.resid);
  free(logits);
}

/* Logits of finished positions again: rows that enter after the last layer. */
static void check_last(node *n) {
  int32_t p = between(0, n->end), l = t.i->n_layers;
  if (n->token[p] < 0 || n->entry[p] < 0)
    return;
  pf_tap list[ACTS + 16];
  float *scratch = calloc((size_t)(l + 1) * POS * t.d, sizeof *scratch),
        *x = malloc(t.v * sizeof *x);
  pf_row r = row_of(n, n->seq, p, l);
  int rc = dress(n, n->seq, scratch, list);
  if (rc == PF_OK)
    rc = pf_eval(t.c, &r, 1, x);
  if (rc != PF_OK || memcmp(x, n->logits + (size_t)p * t.v, t.v * sizeof *x) != 0)
    bad(n, "logits of a row after the last layer", l, p);
  pf_seq_set_taps(n->seq, NULL, 0);
  free(scratch);
  free(x);
}

/* ---- trees ----------------------------------------------------------------------------------- */

static void free_tree(void) {
  for (int i = t.n_nodes; i-- > 0;) {
    pf_seq_free(t.n[i].seq);
    pf_ids_free(&t.n[i].out);
    free(t.n[i].resid);
    free(t.n[i].logits);
  }
  for (size_t i = 0; i < t.n_values; i++)
    free(t.values[i]);
  t.n_nodes = 0;
  t.n_values = 0;
}

static void grow_tree(void) {
  int before = failures;
  while (t.n_nodes < NODES && failures == before) {
    int first = t.n_nodes, count = t.n_nodes && t.n_nodes + 1 < NODES ? 1 + (int)draw(2) : 1;
    if (make_node() != PF_OK)
      return;
    if (count == 2) { /* the second one does not fork from the first, which has not run */
      t.n_nodes = first;
      node keep = t.n[first];
      t.n[first] = (node){0};
      node *slot = &t.n[first];
      int rc = make_node();
      node second = *slot;
      t.n[first] = keep;
      t.n[first + 1] = second;
      if (rc != PF_OK)
        return;
    }
    t.n_nodes = first + count;
    run_nodes(&t.n[first], count);
    for (int i = 0; i < count && failures == before; i++) {
      check(&t.n[first + i]);
      if (t.n[first + i].gen_at < 0)
        check_last(&t.n[first + i]);
    }
  }
}

static int open_model(size_t which, pf_precision precision) {
  char path[1024];
  int32_t layer;
  snprintf(path, sizeof path, "%s/tests/mini/%s", tu_srcdir(), models[which]);
  pf_model_opts o = {.no_checksum = 1, .threads = 1, .precision = precision};
  int rc = pf_model_open(&t.m, path, &o);
  if (rc == PF_OK)
    rc = pf_ctx_new(&t.c, t.m, &(pf_ctx_opts){.threads = 1 + (int)(tree % 2), .keep_raw_k = 1});
  if (rc == PF_OK)
    rc = pf_hook_find(t.m, "blocks.0.hook_resid_pre", &t.pre, &layer);
  if (rc == PF_OK)
    rc = pf_hook_find(t.m, "blocks.0.hook_resid_post", &t.post, &layer);
  if (rc != PF_OK)
    return rc;
  t.i = pf_model_get_info(t.m);
  t.d = (size_t)t.i->d_model;
  t.v = (size_t)t.i->vocab_size;
  t.hooks = pf_hooks(t.m, &t.n_hooks);
  return PF_OK;
}

static uint64_t number(const char *text, uint64_t other) {
  return text && *text ? strtoull(text, NULL, 10) : other;
}

int main(int argc, char **argv) {
  const char *only = getenv("PF_TREES_ONLY");
  uint64_t n = tu_tier("normal") ? 200 : tu_tier("big") ? 600 : 16, done = 0;
  seed = number(getenv("PF_TREES_SEED"), 1);
  n = number(argc > 1 ? argv[1] : NULL, n);
  printf("seed %llu\n", (unsigned long long)seed);
  uint64_t first = number(only, 0), end = only ? first + 1 : n;
  for (tree = first; tree < end; tree++, done++) {
    draws = 0;
    size_t which = draw(N_MODELS);
    if (open_model(which, (pf_precision)(1 + draw(PF_N_PRECISIONS - 1))) != PF_OK) {
      printf("FAIL: %s: %s\n", models[which], pf_last_error());
      return 1;
    }
    grow_tree();
    free_tree();
    pf_ctx_free(t.c);
    pf_model_close(t.m);
  }
  printf("%llu trees, %d failed\n", (unsigned long long)done, failures);
  return failures != 0 || done == 0;
}
