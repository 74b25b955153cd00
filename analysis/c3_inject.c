/* SPDX-License-Identifier: Apache-2.0
 * C3: can cached residuals stand in for the persona's text? A host prompt without the persona gets
 * residuals of other runs at some positions and layers, and its answer is measured against the
 * clean one: closure = 1 - KL / KL(host). One factor at a time is varied from the paper's setting:
 * host "As a thoughtful person", p_last, one layer, overwritten once. `injection` and `layer_sets`
 * are the paper's own. Positions count from p_last (0): g_k is k, and prompts are aligned at their
 * ends. doc/STUDY.md, C3. */
#include <math.h>
#include <string.h>

#include "analysis/direction.h"
#include "analysis/experiment.h"
#include "analysis/geometry.h"
#include "analysis/jsonout.h"
#include "analysis/sheet.h"
#include "base/status.h"

/* ---- the paper's layers ---------------------------------------------------------------------- */

enum { PAPER_LAYERS = 26, PAPER_LAYER = 14, N_SETS = 5, RANDOM_DRAWS = 5 };
static const struct {
  const char *name;
  int32_t first, last; /* even layers of the paper's 26 */
} sets[N_SETS] = {{"14", 14, 14},
                  {"10_12_14", 10, 14},
                  {"10_12_14_16_18", 10, 18},
                  {"10_12_14_16_18_20_22", 10, 22},
                  {"6_8_10_12_14_16_18_20_22", 6, 22}};

int32_t pf_paper_layer(int32_t layer, int32_t n_layers) {
  int32_t x = layer * n_layers, q = x / PAPER_LAYERS, r = 2 * (x % PAPER_LAYERS);
  return q + (r > PAPER_LAYERS || (r == PAPER_LAYERS && q % 2));
}

/* The set's layers in a model of n_layers, ascending, each once. */
static size_t set_layers(size_t set, int32_t n_layers, int32_t *out) {
  size_t n = 0;
  for (int32_t l = sets[set].first; l <= sets[set].last; l += 2) {
    int32_t at = pf_paper_layer(l, n_layers);
    if (n == 0 || out[n - 1] != at)
      out[n++] = at;
  }
  return n;
}

/* ---- contents -------------------------------------------------------------------------------- */

/* THE list of what is put in. F(id, name) */
#define CONTENTS(F)                                                                                \
  F(NONE, "none")                                                                                  \
  F(CACHED, "cached")         /* h_BB + D_X + D_Y */                                               \
  F(ORACLE, "oracle")         /* h_XY */                                                           \
  F(OWN, "own")               /* what is there */                                                  \
  F(OTHER, "other_persona")   /* h_X'Y */                                                          \
  F(AVERAGED, "averaged")     /* h_BY + mean over other tasks of h_XY' - h_BY' */                  \
  F(RANDOM, "random")         /* the host's, moved by |h_XY - host| in a random direction */       \
  F(DELTA, "delta")           /* D_X = h_XB - h_BB, to be added */                                 \
  F(MEAN_DELTA, "mean_delta") /* the mean over other tasks of h_XY' - h_BY', to be added */
typedef enum content {
#define CONTENT_ID(id, name) IN_##id,
  CONTENTS(CONTENT_ID) N_CONTENTS
} content;
#define CONTENT_NAME(id, name) name,
static const char *const content_names[N_CONTENTS] = {CONTENTS(CONTENT_NAME)};

typedef struct c3 {
  pf_sheet s;
  const pf_trial *clean; /* the answer's likelihood with the persona's text */
  size_t d;
  int32_t layers;
  const pf_track *xy, *bb, *xb, *by, *other;
  const pf_track **row, **column; /* (n_tasks) h_XY', h_BY': at sites only; own places NULL */
  size_t n_tasks;
} c3;

static const float *at(const c3 *c, const pf_track *t, int32_t offset, int32_t layer) {
  return pf_lab_h(c->s.l, t, (int32_t)t->n_prompt - 1 + offset, layer);
}

/* Mean over the other tasks of h_XY' - h_BY' at p_last; false without another task. */
static bool mean_delta(const c3 *c, int32_t layer, double *out) {
  if (c->n_tasks < 2)
    return false;
  for (size_t e = 0; e < c->d; e++)
    out[e] = 0;
  for (size_t j = 0; j < c->n_tasks; j++) {
    if (!c->row[j])
      continue;
    const float *a = at(c, c->row[j], 0, layer), *b = at(c, c->column[j], 0, layer);
    for (size_t e = 0; e < c->d; e++)
      out[e] += ((double)a[e] - (double)b[e]) / (double)(c->n_tasks - 1);
  }
  return true;
}

static void random_move(const c3 *c, const float *host, const float *xy, uint64_t stream, double *u,
                        float *out) {
  pf_normals(stream, c->d, u);
  pf_set_length(u, pf_distance(host, xy, c->d), c->d);
  pf_add_scaled(host, u, 1, c->d, out);
}

/* The value at one (position, layer); false where it does not exist. */
static bool fill(const c3 *c, const pf_track *host, content what, int32_t offset, int32_t layer,
                 uint64_t stream, double *u, float *out) {
  switch (what) {
  case IN_CACHED:
    pf_additive(at(c, c->bb, offset, layer), at(c, c->xb, offset, layer),
                at(c, c->by, offset, layer), c->d, out);
    return true;
  case IN_ORACLE:
    memcpy(out, at(c, c->xy, offset, layer), c->d * sizeof *out);
    return true;
  case IN_OWN:
    memcpy(out, at(c, host, offset, layer), c->d * sizeof *out);
    return true;
  case IN_OTHER:
    if (c->other)
      memcpy(out, at(c, c->other, offset, layer), c->d * sizeof *out);
    return c->other != NULL;
  case IN_AVERAGED:
    if (!mean_delta(c, layer, u))
      return false;
    pf_add_scaled(at(c, c->by, offset, layer), u, 1, c->d, out);
    return true;
  case IN_RANDOM:
    random_move(c, at(c, host, offset, layer), at(c, c->xy, offset, layer), stream, u, out);
    return true;
  case IN_DELTA:
    for (size_t e = 0; e < c->d; e++)
      out[e] = at(c, c->xb, offset, layer)[e] - at(c, c->bb, offset, layer)[e];
    return true;
  case IN_MEAN_DELTA:
    if (!mean_delta(c, layer, u))
      return false;
    pf_add_scaled(NULL, u, 1, c->d, out);
    return true;
  default:
    return false;
  }
}

/* ---- conditions ------------------------------------------------------------------------------ */

typedef struct plan {
  const char *host_name;
  const pf_track *host;
  const pf_trial *base;
  content what;
  double alpha; /* 0: overwrite; else add alpha times the value */
  const char *positions;
  int32_t from, to; /* offsets [from, to) */
  const char *set;  /* name of the layers */
  const int32_t *layers;
  size_t n_layers;
  int draw;
} plan;

/* Values at all positions of one layer: one tap. */
static int tap_layer(c3 *c, pf_line *x, const plan *p, int32_t layer, bool *there) {
  pf_lab *l = c->s.l;
  size_t n = (size_t)(p->to - p->from);
  float *value = pf_lab_alloc(l, n, c->d * sizeof *value);
  double *u = pf_lab_alloc(l, c->d, sizeof *u);
  if (!value || !u)
    return PF_ENOMEM;
  for (size_t i = 0; i < n && *there; i++) {
    float *v = value + i * c->d;
    uint64_t stream = 11ull << 56 ^ (uint64_t)pf_lab_index(l) << 40 ^ (uint64_t)layer << 24 ^
                      (uint64_t)(i << 8) ^ (uint64_t)p->draw;
    *there = fill(c, p->host, p->what, p->from + (int32_t)i, layer, stream, u, v);
    for (size_t e = 0; e < c->d && p->alpha != 0 && p->alpha != 1; e++)
      v[e] = (float)(p->alpha * (double)v[e]);
  }
  if (!*there)
    return PF_OK;
  pf_tap tap = pf_lab_put(l, p->host, (int32_t)p->host->n_prompt - 1 + p->from, layer,
                          p->alpha != 0 ? PF_OP_ADD : PF_OP_REPLACE, value);
  tap.pos_hi = tap.pos_lo + (int32_t)n;
  tap.value_stride = c->d;
  return pf_line_tap(&c->s, x, tap);
}

/* What a condition has by construction, whatever the model: not evidence. What is put in the place
 * of the final norm's input makes that token's logits alone, and the host no part of them. */
static const char *degenerate(const c3 *c, const plan *p) {
  bool last = p->n_layers > 0 && p->layers[p->n_layers - 1] == c->layers;
  if (p->what == IN_OWN || p->what == IN_NONE)
    return "all";
  if (p->alpha != 0 || !last || p->from > 0)
    return NULL;
  return p->to >= (int32_t)pf_lab_n_y(c->s.l) ? "all" : "t0";
}

static int put(c3 *c, const plan *p, const pf_trial **trial) {
  pf_line *x;
  bool there = true;
  int rc = pf_sheet_add(&c->s, p->host, content_names[p->what], &x);
  for (size_t k = 0; k < p->n_layers && rc == PF_OK && there && p->what != IN_NONE; k++)
    rc = tap_layer(c, x, p, p->layers[k], &there);
  if (rc != PF_OK)
    return rc;
  if (!there) { /* the grid has no such value: no record */
    json_decref(x->row);
    c->s.n--;
    return PF_OK;
  }
  json_object_set_new(x->row, "host", json_string(p->host_name));
  json_object_set_new(x->row, "op", json_string(p->alpha != 0 ? "add" : "overwrite"));
  if (p->alpha != 0)
    json_object_set_new(x->row, "alpha", pf_js_num(p->alpha));
  json_object_set_new(x->row, "positions", json_string(p->positions));
  json_object_set_new(x->row, "set", json_string(p->set));
  json_object_set_new(x->row, "layers",
                      pf_js_ints(p->layers, p->what == IN_NONE ? 0 : p->n_layers));
  if (p->what == IN_RANDOM)
    json_object_set_new(x->row, "draw", json_integer(p->draw));
  if (degenerate(c, p))
    json_object_set_new(x->row, "degenerate", json_string(degenerate(c, p)));
  x->base = p->base ? p->base : &x->v;
  x->clean = c->clean;
  x->steps = true;
  if (c->clean && !(x->v.logprob = pf_lab_alloc(c->s.l, pf_lab_n_y(c->s.l) + 1, sizeof(double))))
    return PF_ENOMEM;
  if (trial)
    *trial = &x->v;
  return PF_OK;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static int open_tracks(c3 *c, pf_lab *l, json_t *rows, bool full) {
  const pf_plan *p = pf_lab_plan(l);
  int x = pf_lab_persona(l), y = pf_lab_task(l), other = (x + 1) % (int)p->grid.n_personas;
  pf_who who[5] = {{.persona = x, .task = y},
                   {.persona = PF_BASE, .task = PF_BASE},
                   {.persona = x, .task = PF_BASE},
                   {.persona = PF_BASE, .task = y},
                   {.persona = other, .task = y}};
  const pf_track *t[5] = {NULL};
  *c = (c3){.s = {.l = l, .rows = rows}, .d = pf_lab_d(l), .layers = pf_lab_layers(l)};
  int rc = pf_lab_tracks(l, who, full && other != x ? 5 : 4, t);
  c->xy = t[0];
  c->bb = t[1];
  c->xb = t[2];
  c->by = t[3];
  c->other = t[4];
  return rc;
}

/* The prompts of other tasks, for averages. */
static int open_others(c3 *c) {
  pf_lab *l = c->s.l;
  c->n_tasks = pf_lab_plan(l)->grid.n_tasks;
  c->row = pf_lab_alloc(l, c->n_tasks, sizeof *c->row);
  c->column = pf_lab_alloc(l, c->n_tasks, sizeof *c->column);
  int rc = c->row && c->column ? PF_OK : PF_ENOMEM;
  for (int j = 0; (size_t)j < c->n_tasks && rc == PF_OK; j++) {
    pf_who who[2] = {{.persona = pf_lab_persona(l), .task = j, .values_only = true},
                     {.persona = PF_BASE, .task = j, .values_only = true}};
    const pf_track *t[2];
    if (j == pf_lab_task(l))
      continue;
    rc = pf_lab_tracks(l, who, 2, t);
    c->row[j] = t[0];
    c->column[j] = t[1];
  }
  return rc;
}

static plan paper_setting(const c3 *c, const int32_t *layer) {
  return (plan){.host_name = pf_host_keys[PF_HOST_B],
                .host = c->by,
                .positions = "p_last",
                .to = 1,
                .set = sets[0].name,
                .layers = layer,
                .n_layers = 1};
}

/* The host alone, then cached and oracle in it. */
static int host_and_values(c3 *c, plan p, const pf_trial **base) {
  int rc = put(c, &p, base);
  p.base = *base;
  for (int k = IN_CACHED; k <= IN_ORACLE && rc == PF_OK; k++) {
    p.what = (content)k;
    rc = put(c, &p, NULL);
  }
  return rc;
}

static int each_set(c3 *c, const pf_trial *base, bool oracle) {
  int rc = PF_OK;
  for (size_t s = 0; s < N_SETS && rc == PF_OK; s++)
    for (int k = IN_CACHED; k <= (oracle ? IN_ORACLE : IN_CACHED) && rc == PF_OK; k++) {
      int32_t layers[PAPER_LAYERS];
      plan p = paper_setting(c, layers);
      p.base = base;
      p.what = (content)k;
      p.set = sets[s].name;
      p.n_layers = set_layers(s, c->layers, layers);
      rc = put(c, &p, NULL);
    }
  return rc;
}

static int injection(c3 *c, const int32_t *layer) {
  const pf_trial *base;
  return host_and_values(c, paper_setting(c, layer), &base);
}

static int layer_sets(c3 *c, const int32_t *layer) {
  const pf_trial *base;
  plan p = paper_setting(c, layer);
  int rc = put(c, &p, &base);
  return rc == PF_OK ? each_set(c, base, false) : rc;
}

/* One of the experiments on the lab's cell. */
static int run(pf_lab *l, json_t *rows, bool full, int (*conditions)(c3 *, const int32_t *)) {
  c3 c;
  int32_t layer = pf_paper_layer(PAPER_LAYER, pf_lab_layers(l));
  int rc = open_tracks(&c, l, rows, full);
  if (rc == PF_OK && pf_lab_n_y(l) > 0)
    rc = conditions(&c, &layer);
  if (rc == PF_OK)
    rc = pf_sheet_run(&c.s);
  pf_sheet_free(&c.s);
  return rc;
}

int pf_injection(pf_lab *l, size_t part, json_t *rows) {
  (void)part;
  return run(l, rows, false, injection);
}

int pf_layer_sets(pf_lab *l, size_t part, json_t *rows) {
  (void)part;
  return run(l, rows, false, layer_sets);
}

/* ---- the full list --------------------------------------------------------------------------- */

static int one_host(c3 *c, const int32_t *layer, const char *name, pf_who who) {
  const pf_trial *base;
  plan p = paper_setting(c, layer);
  int rc = pf_lab_track(c->s.l, who, &p.host);
  p.host_name = name;
  return rc == PF_OK ? host_and_values(c, p, &base) : rc;
}

/* The study's own but B, which the other conditions are in. */
static int each_host(c3 *c, const int32_t *layer) {
  pf_lab *l = c->s.l;
  int x = pf_lab_persona(l), y = pf_lab_task(l);
  const pf_who hosts[PF_N_HOSTS] = {
      [PF_HOST_BARE] = {.persona = PF_NOBODY, .task = y},
      [PF_HOST_N] = {.persona = PF_NEUTRAL, .task = y, .placing = PF_GAP},
      [PF_HOST_GAP] = {.persona = PF_BASE, .task = y, .placing = PF_GAP},
      [PF_HOST_MASK] = {.persona = x, .task = y, .placing = PF_MASK}};
  int rc = PF_OK;
  for (int h = PF_HOST_B + 1; h < PF_N_HOSTS && rc == PF_OK; h++)
    if (pf_lab_has(l, hosts[h]))
      rc = one_host(c, layer, pf_host_keys[h], hosts[h]);
  return rc;
}

/* The grid's own. */
static int own_hosts(c3 *c, const int32_t *layer) {
  const pf_plan *p = pf_lab_plan(c->s.l);
  int rc = PF_OK;
  for (size_t i = 0; i < p->controls.n_hosts && rc == PF_OK; i++)
    if (pf_plan_own_host(p, i))
      rc = one_host(c, layer, p->controls.hosts[i].key,
                    (pf_who){.persona = PF_HOST - (int)i, .task = pf_lab_task(c->s.l)});
  return rc;
}

static int each_content(c3 *c, const int32_t *layer, const pf_trial *base) {
  static const double alphas[] = {0.5, 1, 2, 4};
  plan p = paper_setting(c, layer);
  int rc = PF_OK;
  p.base = base;
  for (int k = IN_OWN; k <= IN_RANDOM && rc == PF_OK; k++) {
    p.what = (content)k;
    for (p.draw = 0; p.draw < (k == IN_RANDOM ? RANDOM_DRAWS : 1) && rc == PF_OK; p.draw++)
      rc = put(c, &p, NULL);
  }
  for (int k = IN_DELTA; k <= IN_MEAN_DELTA; k++)
    for (size_t a = 0; a < sizeof alphas / sizeof *alphas && rc == PF_OK; a++) {
      p.what = (content)k;
      p.alpha = alphas[a];
      p.draw = 0;
      rc = put(c, &p, NULL);
    }
  return rc;
}

static int32_t least(int32_t a, int32_t b) {
  return a < b ? a : b;
}

/* How far before p_last the runs that a value comes from go; the header, the task and it. */
static int32_t before(const c3 *c, content what, bool task) {
  const pf_track *t[] = {c->by, c->xy, c->bb, c->xb};
  int32_t n = INT32_MAX;
  for (int i = 0; i < (what == IN_ORACLE ? 2 : 4); i++)
    n = least(n, (int32_t)t[i]->n_prompt - 1 - (task ? t[i]->y.lo : t[i]->e.lo));
  return n;
}

static int each_position(c3 *c, const int32_t *layer, const pf_trial *base) {
  int32_t n_y = (int32_t)pf_lab_n_y(c->s.l);
  int rc = PF_OK;
  for (int k = IN_CACHED; k <= IN_ORACLE && rc == PF_OK; k++) {
    const struct {
      const char *name;
      int32_t from, to;
    } spans[] = {{"E", -before(c, (content)k, false), 1},
                 {"Y+E", -before(c, (content)k, true), 1},
                 {"window", 0, least(3, n_y)},
                 {"every_step", 0, n_y}};
    for (int i = 0; i < 4 && rc == PF_OK; i++) {
      plan p = paper_setting(c, layer);
      p.base = base;
      p.what = (content)k;
      p.positions = spans[i].name;
      p.from = spans[i].from;
      p.to = spans[i].to;
      rc = put(c, &p, NULL);
    }
  }
  plan p = paper_setting(c, layer);
  p.base = base;
  p.what = IN_MEAN_DELTA;
  p.positions = "every_step";
  p.to = n_y;
  static const double alphas[] = {0.5, 1, 2};
  for (int a = 0; a < 3 && rc == PF_OK; a++) {
    p.alpha = alphas[a];
    rc = put(c, &p, NULL);
  }
  return rc;
}

static int each_layer(c3 *c, const pf_trial *base) {
  int32_t *all = pf_lab_alloc(c->s.l, (size_t)c->layers + 1, sizeof *all);
  int32_t n_y = (int32_t)pf_lab_n_y(c->s.l);
  int rc = all ? PF_OK : PF_ENOMEM;
  for (int32_t k = 0; k <= c->layers && rc == PF_OK; k++)
    all[k] = k;
  for (int k = IN_CACHED; k <= IN_ORACLE && rc == PF_OK; k++) {
    plan p = paper_setting(c, all);
    p.base = base;
    p.what = (content)k;
    p.set = "one";
    for (int32_t at = 0; at <= c->layers && rc == PF_OK; at++) {
      p.layers = &all[at];
      rc = put(c, &p, NULL);
    }
    p.set = "all";
    p.layers = all;
    p.n_layers = (size_t)c->layers + 1;
    if (rc == PF_OK)
      rc = put(c, &p, NULL);
    p.set = "last";
    p.layers = &all[c->layers];
    p.n_layers = 1;
    p.positions = "every_step";
    p.to = n_y;
    if (rc == PF_OK)
      rc = put(c, &p, NULL);
  }
  return rc == PF_OK ? each_set(c, base, true) : rc;
}

static int clean_likelihood(c3 *c) {
  pf_line *x;
  int rc = pf_sheet_probe(&c->s, c->xy, &x);
  if (rc != PF_OK)
    return rc;
  x->v.logprob = pf_lab_alloc(c->s.l, pf_lab_n_y(c->s.l) + 1, sizeof(double));
  c->clean = &x->v;
  return x->v.logprob ? PF_OK : PF_ENOMEM;
}

static int all(c3 *c, const int32_t *layer) {
  const pf_trial *base;
  int rc = open_others(c);
  if (rc == PF_OK)
    rc = clean_likelihood(c);
  if (rc == PF_OK)
    rc = host_and_values(c, paper_setting(c, layer), &base);
  if (rc == PF_OK)
    rc = each_host(c, layer);
  if (rc == PF_OK)
    rc = own_hosts(c, layer);
  if (rc == PF_OK)
    rc = each_content(c, layer, base);
  if (rc == PF_OK)
    rc = each_position(c, layer, base);
  return rc == PF_OK ? each_layer(c, base) : rc;
}

int pf_c3(pf_lab *l, size_t part, json_t *rows) {
  (void)part;
  return run(l, rows, true, all);
}
