/* SPDX-License-Identifier: Apache-2.0
 * D2: which keys and values suffice? The host is the prompt with a neutral persona of the same
 * length (behind a gap where it is shorter). K,V of the cell's own prompt are put in the place of
 * the host's at some positions; p_last and the generated tokens are computed over the spliced
 * cache, all else is the host's. Closure = 1 - KL / KL(host). T3 = all positions before p_last: 0
 * by construction, the control. doc/STUDY.md, D2. */
#include <math.h>
#include <string.h>

#include "analysis/direction.h"
#include "analysis/experiment.h"
#include "analysis/flow.h"
#include "analysis/jsonout.h"
#include "analysis/stats.h"
#include "base/status.h"

enum { RANDOM_KV = 5, RANDOM_SETS = 20, MAX_KEYS = 512 };
static const uint64_t SEED = 2605;

typedef struct d2 {
  pf_flow f;
  const pf_track *host;
  const pf_trial *none; /* the host itself */
} d2;

static const pf_seq *xy_of(const d2 *d) {
  return d->f.xy->seq;
}

/* K,V of positions [lo, hi) of a sequence, for p_last and what follows. */
static int splice(d2 *d, pf_line *x, const pf_seq *src, int32_t lo, int32_t hi, int32_t layer_lo,
                  int32_t layer_hi) {
  if (hi <= lo)
    return PF_OK;
  return pf_line_swap(&d->f.s, x,
                      (pf_swap){.layer_lo = layer_lo,
                                .layer_hi = layer_hi,
                                .head = -1,
                                .pos_lo = lo,
                                .pos_hi = hi,
                                .src_lo = lo,
                                .what = PF_SWAP_K | PF_SWAP_V,
                                .src = src,
                                .q_lo = d->f.p_last});
}

static int add(d2 *d, const char *name, pf_line **x) {
  int rc = pf_sheet_add(&d->f.s, d->host, name, x);
  if (rc == PF_OK)
    (*x)->base = d->none ? d->none : &(*x)->v;
  return rc;
}

static int32_t layers_of(const d2 *d) {
  return pf_lab_layers(d->f.s.l);
}

/* One transplant of [lo, hi) from the cell's own prompt in all layers. */
static int whole(d2 *d, const char *name, int32_t lo, int32_t hi) {
  pf_line *x;
  int rc = add(d, name, &x);
  if (rc == PF_OK)
    x->steps = true;
  return rc == PF_OK ? splice(d, x, xy_of(d), lo, hi, 0, layers_of(d)) : rc;
}

/* T6: the keys of p_last alone; the first token stays the host's. */
static int p_last_alone(d2 *d) {
  pf_line *x;
  int32_t at = d->f.p_last;
  int rc = add(d, "T6", &x);
  if (rc == PF_OK)
    rc = splice(d, x, xy_of(d), at, at + 1, 0, layers_of(d));
  return rc;
}

static int routes(d2 *d) {
  const pf_flow *f = &d->f;
  int rc = whole(d, "T1", f->x_lo, f->x_hi);
  if (rc == PF_OK)
    rc = whole(d, "T2", f->x_hi, f->p_last);
  if (rc == PF_OK)
    rc = whole(d, "T3", f->x_lo, f->p_last);
  return rc == PF_OK ? p_last_alone(d) : rc;
}

/* ---- T4: another persona --------------------------------------------------------------------- */

/* The persona of the grid whose number of tokens is nearest, at most the cell's; -1: none. */
static int other_persona(const d2 *d) {
  const pf_plan *p = pf_lab_plan(d->f.s.l);
  size_t nt = p->grid.n_tasks, own = (size_t)pf_lab_persona(d->f.s.l),
         task = (size_t)pf_lab_task(d->f.s.l);
  int best = -1;
  int32_t most = 0, room = d->f.x_hi - d->f.x_lo;
  for (size_t k = 1; k < p->grid.n_personas; k++) {
    size_t i = (own + k) % p->grid.n_personas;
    const pf_span x = p->xy[i * nt + task].persona;
    if (x.hi - x.lo <= room && x.hi - x.lo > most) {
      most = x.hi - x.lo;
      best = (int)i;
    }
  }
  return best;
}

/* Its K,V in the place of the persona's, keys without a counterpart cut; measured against the clean
 * answer and against that persona's own. */
static int another_persona(d2 *d) {
  pf_lab *l = d->f.s.l;
  int i = other_persona(d);
  const pf_track *t;
  const pf_ref *ref;
  pf_line *x[3];
  if (i < 0)
    return PF_OK;
  const char *key = pf_lab_plan(l)->grid.personas[i].key;
  static const char *const names[] = {"T4", "T4_towards_other", "T4_host_to_other"};
  int rc = pf_lab_track(l, (pf_who){.persona = i, .task = pf_lab_task(l)}, &t);
  if (rc == PF_OK)
    rc = pf_lab_refs(l, t, &ref);
  for (int k = 0; k < 3 && rc == PF_OK; k++) {
    rc = add(d, names[k], &x[k]);
    if (rc != PF_OK)
      break;
    json_object_set_new(x[k]->row, "other", json_string(key));
    int32_t end = t->pos[t->x.hi - 1] + 1;
    if (k > 0)
      x[k]->v.ref = ref;
    if (k < 2)
      rc = splice(d, x[k], t->seq, d->f.x_lo, end, 0, layers_of(d));
    if (rc == PF_OK && k < 2 && end < d->f.x_hi)
      rc = pf_flow_cut(&d->f, x[k], d->f.p_last, end, d->f.x_hi);
  }
  if (rc == PF_OK)
    x[1]->base = x[2]->base = &x[2]->v;
  return rc;
}

/* ---- T5: random keys and values -------------------------------------------------------------- */

/* A persona's keys or values, before RoPE, in every layer. */
typedef struct kv_values {
  size_t n, width;
  float *v; /* (layers, n, width) */
} kv_values;

static int persona_values(d2 *d, const pf_track *t, int hook, size_t width, kv_values *out) {
  pf_lab *l = d->f.s.l;
  int32_t layers = layers_of(d), lo = t->pos[t->x.lo], hi = t->pos[t->x.hi - 1] + 1;
  size_t n = (size_t)(hi - lo);
  const pf_seq *s;
  pf_tap *taps = pf_lab_alloc(l, (size_t)layers, sizeof *taps);
  *out = (kv_values){n, width, pf_lab_alloc(l, (size_t)layers * n, width * sizeof *out->v)};
  if (!taps || !out->v)
    return PF_ENOMEM;
  for (int32_t k = 0; k < layers; k++)
    taps[k] = (pf_tap){.hook = hook,
                       .layer = k,
                       .head = -1,
                       .pos_lo = lo,
                       .pos_hi = hi,
                       .op = PF_OP_CAPTURE,
                       .out = out->v + (size_t)k * n * width,
                       .out_stride = width};
  return pf_lab_donor(l, t, t->x.hi, taps, (size_t)layers, &s);
}

/* The values of a layer, one by one. */
static void list_values(const kv_values *v, int32_t layer, const float **at) {
  for (size_t i = 0; i < v->n; i++)
    at[i] = v->v + ((size_t)layer * v->n + i) * v->width;
}

/* Taps that put draws at the persona's positions, with the mean of `of` and the covariance of
 * `own`. */
static int random_taps(d2 *d, int hook, const kv_values *own, const kv_values *of, uint64_t stream,
                       pf_tap *taps) {
  pf_lab *l = d->f.s.l;
  size_t n = own->n, width = own->width;
  double *u = pf_lab_alloc(l, width, sizeof *u);
  float *mean = pf_lab_alloc(l, width, sizeof *mean);
  const float **at = pf_lab_alloc(l, n, sizeof *at),
              **centre = pf_lab_alloc(l, of->n, sizeof *centre);
  if (!u || !mean || !at || !centre)
    return PF_ENOMEM;
  for (int32_t k = 0; k < layers_of(d); k++) {
    float *value = pf_lab_alloc(l, n, width * sizeof *value);
    if (!value)
      return PF_ENOMEM;
    list_values(own, k, at);
    list_values(of, k, centre);
    pf_mean_vector(centre, of->n, width, mean);
    for (size_t i = 0; i < n; i++) {
      pf_covariance_draw(at, n, stream ^ (uint64_t)k << 20 ^ (uint64_t)i << 8, width, u);
      pf_add_scaled(mean, u, 1 / sqrt((double)n), width, value + i * width);
    }
    taps[k] = (pf_tap){.hook = hook,
                       .layer = k,
                       .head = -1,
                       .pos_lo = d->f.x_lo,
                       .pos_hi = d->f.x_hi,
                       .op = PF_OP_REPLACE,
                       .value = value,
                       .value_stride = width};
  }
  return PF_OK;
}

/* T5: random keys and values that lie about the neutral persona's mean as the persona's own lie
 * about theirs: a null. T5_own: about the persona's own mean, which is not one: how much of the
 * persona is in the mean of its keys and values? */
static int random_kv(d2 *d) {
  static const char *const names[2] = {"T5", "T5_own"};
  pf_lab *l = d->f.s.l;
  const pf_model_info *info = pf_lab_plan(l)->info;
  size_t width = (size_t)info->n_kv_heads * (size_t)info->d_head, n = (size_t)layers_of(d);
  int hooks[2] = {pf_lab_hook(l, "blocks.0.attn.hook_k"), pf_lab_hook(l, "blocks.0.attn.hook_v")};
  kv_values v[2][2]; /* (host's, own), (k, v) */
  int rc = hooks[0] < 0 ? hooks[0] : hooks[1] < 0 ? hooks[1] : PF_OK;
  for (int i = 0; i < 4 && rc == PF_OK; i++)
    rc = persona_values(d, i / 2 ? d->f.xy : d->host, hooks[i % 2], width, &v[i / 2][i % 2]);
  for (uint64_t i = 0; i < 2 * RANDOM_KV && rc == PF_OK; i++) {
    uint64_t draw = i / 2, of = i % 2;
    const pf_seq *s = NULL;
    pf_line *x;
    pf_tap *taps = pf_lab_alloc(l, 2 * n, sizeof *taps);
    rc = taps ? PF_OK : PF_ENOMEM;
    for (int h = 0; h < 2 && rc == PF_OK; h++)
      rc = random_taps(d, hooks[h], &v[1][h], &v[of][h],
                       7ull << 56 ^ (uint64_t)pf_lab_index(l) << 44 ^ draw << 1 ^ (uint64_t)h,
                       taps + (size_t)h * n);
    if (rc == PF_OK)
      rc = pf_lab_donor(l, d->f.xy, d->f.xy->x.hi, taps, 2 * n, &s);
    if (rc == PF_OK)
      rc = add(d, names[of], &x);
    if (rc == PF_OK) {
      json_object_set_new(x->row, "draw", json_integer((json_int_t)draw));
      rc = splice(d, x, s, d->f.x_lo, d->f.x_hi, 0, layers_of(d));
    }
  }
  return rc;
}

/* ---- T7: how many positions ------------------------------------------------------------------ */

/* Transplants the persona's keys order[0..k). */
static int some_keys(d2 *d, pf_line *x, const size_t *order, int32_t k) {
  int rc = PF_OK;
  for (int32_t i = 0; i < k && rc == PF_OK; i++)
    rc = splice(d, x, xy_of(d), d->f.x_lo + (int32_t)order[i], d->f.x_lo + (int32_t)order[i] + 1, 0,
                layers_of(d));
  return rc;
}

static void shuffle(size_t *order, size_t n, uint64_t stream) {
  for (size_t i = 0; i < n; i++)
    order[i] = i;
  for (size_t i = n - 1; i > 0; i--) {
    size_t j = pf_draw_below(SEED, stream, i, i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
}

/* Every key alone; order: by its closure, best first, ties to the earlier one. */
static int rank_keys(d2 *d, int32_t n, size_t *order) {
  size_t n_y = pf_lab_n_y(d->f.s.l);
  pf_line *x[MAX_KEYS];
  double kl[MAX_KEYS];
  int rc = PF_OK;
  for (int32_t i = 0; i < n && rc == PF_OK; i++) {
    rc = add(d, "T7_single", &x[i]);
    if (rc != PF_OK)
      break;
    json_object_set_new(x[i]->row, "token", json_integer(i));
    rc = some_keys(d, x[i], &(size_t){(size_t)i}, 1);
  }
  if (rc == PF_OK)
    rc = pf_sheet_run(&d->f.s);
  for (int32_t i = 0; i < n && rc == PF_OK; i++)
    kl[i] = pf_sum_steps(x[i]->v.kl, n_y, 0, n_y);
  size_t ranked;
  return rc == PF_OK ? pf_order(kl, (size_t)n, order, &ranked) : rc;
}

static int curve(d2 *d, const char *how, const size_t *order, int32_t n, int draw) {
  int rc = PF_OK;
  for (int32_t k = 1; k <= n && rc == PF_OK; k = k < n && 2 * k > n ? n : 2 * k) {
    pf_line *x;
    rc = add(d, "T7", &x);
    if (rc != PF_OK)
      return rc;
    json_object_set_new(x->row, "order", json_string(how));
    json_object_set_new(x->row, "k", json_integer(k));
    json_object_set_new(x->row, "n", json_integer(n));
    if (draw >= 0)
      json_object_set_new(x->row, "draw", json_integer(draw));
    rc = some_keys(d, x, order, k);
  }
  return rc;
}

static int compression(d2 *d) {
  int32_t n = d->f.x_hi - d->f.x_lo;
  size_t order[MAX_KEYS];
  if (n > MAX_KEYS || n < 1)
    return n < 1 ? PF_OK
                 : pf_fail(PF_EINPUT, "study: a persona of %d tokens; at most %d", n, MAX_KEYS);
  int rc = rank_keys(d, n, order);
  if (rc == PF_OK)
    rc = curve(d, "best", order, n, -1);
  for (int32_t i = 0; i < n; i++)
    order[i] = (size_t)(n - 1 - i);
  if (rc == PF_OK)
    rc = curve(d, "last", order, n, -1);
  for (int draw = 0; draw < RANDOM_SETS && rc == PF_OK; draw++) {
    shuffle(order, (size_t)n, 8ull << 56 ^ (uint64_t)pf_lab_index(d->f.s.l) << 16 ^ (uint64_t)draw);
    rc = curve(d, "random", order, n, draw);
  }
  return rc;
}

/* ---- T8: which layers ------------------------------------------------------------------------ */

static int by_layer(d2 *d) {
  int32_t layers = layers_of(d), lo, hi;
  int rc = PF_OK;
  for (int32_t k = 0; k < layers && rc == PF_OK; k++)
    for (int p = 0; p < PF_N_PROFILES && rc == PF_OK; p++) {
      pf_line *x;
      if (!pf_profile_span((pf_profile)p, k, layers, &lo, &hi))
        continue;
      rc = add(d, "T8", &x);
      if (rc != PF_OK)
        return rc;
      pf_line_layers(x, lo, hi);
      pf_line_profile(x, (pf_profile)p, k);
      rc = splice(d, x, xy_of(d), d->f.x_lo, d->f.x_hi, lo, hi);
    }
  return rc;
}

/* The host as it is: the base of all closures. */
static int host_alone(d2 *d) {
  pf_line *x;
  int rc = add(d, "host", &x);
  if (rc == PF_OK) {
    x->steps = true;
    d->none = &x->v;
    json_object_set_new(x->row, "n_persona", json_integer(d->f.x_hi - d->f.x_lo));
    json_object_set_new(x->row, "n_neutral", json_integer(d->host->x.hi - d->host->x.lo));
  }
  return rc;
}

int pf_d2(pf_lab *l, size_t part, json_t *rows) {
  d2 d = {0};
  (void)part;
  int rc = pf_flow_open(&d.f, l, rows);
  d.host = d.f.neutral;
  if (rc == PF_OK && d.host && pf_lab_n_y(l) > 0) {
    int (*const parts[])(d2 *) = {host_alone, routes,      another_persona,
                                  random_kv,  compression, by_layer};
    for (size_t i = 0; i < sizeof parts / sizeof *parts && rc == PF_OK; i++)
      rc = parts[i](&d);
    if (rc == PF_OK)
      rc = pf_sheet_run(&d.f.s);
  }
  pf_flow_close(&d.f);
  return rc;
}
