/* SPDX-License-Identifier: Apache-2.0
 * C1: is the state additive at a site? Values are put at (layer, site) of the persona's own prompt,
 * and KL(clean || changed) is summed over the next ten tokens. One part a site, and one for the
 * joint window of p_last, g1 and g2, in which each site gets the value of its own. doc/STUDY.md,
 * C1.
 */
#include <math.h>
#include <string.h>

#include "analysis/direction.h"
#include "analysis/experiment.h"
#include "analysis/geometry.h"
#include "analysis/jsonout.h"
#include "analysis/sheet.h"
#include "base/mem.h"
#include "base/status.h"

enum {
  JITTER_DRAWS = 20,
  RANDOM_DRAWS = 50,
  ERROR_DRAWS = 10,
  TOGETHER = 256,
  WINDOW = PF_N_SITES
};

/* THE list of values. F(id, key, draws at the paper's sites, draws elsewhere, in the joint window)
 */
#define VALUES(F)                                                                                  \
  F(I0, "I0", 1, 1, true)                                                                          \
  F(I1, "I1", JITTER_DRAWS, 1, false)                                                              \
  F(A1, "A1", 1, 1, true)                                                                          \
  F(A2, "A2", 1, 1, true)                                                                          \
  F(SX, "S_X", 1, 1, true)                                                                         \
  F(SY, "S_Y", 1, 1, true)                                                                         \
  F(S0, "S_0", 1, 1, true)                                                                         \
  F(SM, "S_mean", 1, 1, true)                                                                      \
  F(RMX, "RMX", 1, 1, true)                                                                        \
  F(N1, "N1", OTHER_PERSONAS, 1, true)                                                             \
  F(N2, "N2", OTHER_TASKS, 1, true)                                                                \
  F(N3I, "N3_isotropic", RANDOM_DRAWS, 1, true)                                                    \
  F(N3C, "N3_covariance", RANDOM_DRAWS, 1, true)                                                   \
  F(N4R, "N4_random", ERROR_DRAWS, 1, true)                                                        \
  F(N4O, "N4_other", 1, 1, true)                                                                   \
  F(N5, "N5", 1, 1, true)
enum { OTHER_PERSONAS = -1, OTHER_TASKS = -2 };
typedef enum value_id {
#define VALUE_ID(id, key, paper, elsewhere, joint) V_##id,
  VALUES(VALUE_ID) N_VALUES
} value_id;
static const struct {
  const char *key;
  int paper, elsewhere;
  bool joint;
} values[N_VALUES] = {
#define VALUE_ROW(id, key, paper, elsewhere, joint) {key, paper, elsewhere, joint},
    VALUES(VALUE_ROW)};

/* A line of the result: trials [first, first + n). */
typedef struct group {
  json_t *row;
  size_t first, n;
} group;

typedef struct c1 {
  pf_lab *l;
  json_t *rows;
  size_t np, nt, d;
  size_t x, y;                                 /* the cell's persona and task */
  const pf_track *bb, *xy, **xb, **by, **grid; /* (np), (nt), (np * nt) */
  pf_trial v[TOGETHER];
  group g[TOGETHER];
  size_t n_v, n_g;
} c1;

/* What stands at one (site, layer) in the runs. */
typedef struct spot {
  pf_site site;
  int32_t layer;
  const float *bb, *xy, **xb, **by, **grid;
  float **dx; /* (np) h_XB - h_BB */
} spot;

/* ---- runs ------------------------------------------------------------------------------------ */

static int tracks(c1 *c) {
  size_t n = 2 + c->np + c->nt + c->np * c->nt, k = 0;
  pf_who *who = pf_lab_alloc(c->l, n, sizeof *who);
  const pf_track **t = pf_lab_alloc(c->l, n, sizeof *t);
  if (!who || !t)
    return PF_ENOMEM;
  who[k++] = (pf_who){.persona = (int)c->x, .task = (int)c->y};
  who[k++] = (pf_who){.persona = PF_BASE, .task = PF_BASE, .values_only = true};
  for (size_t i = 0; i < c->np; i++)
    who[k++] = (pf_who){.persona = (int)i, .task = PF_BASE, .values_only = true};
  for (size_t j = 0; j < c->nt; j++)
    who[k++] = (pf_who){.persona = PF_BASE, .task = (int)j, .values_only = true};
  for (size_t i = 0; i < c->np * c->nt; i++)
    who[k++] = (pf_who){.persona = (int)(i / c->nt), .task = (int)(i % c->nt), .values_only = true};
  c->xy = NULL;
  int rc = pf_lab_track(c->l, who[0], &c->xy); /* first: the others find it */
  if (rc == PF_OK)
    rc = pf_lab_tracks(c->l, who, n, t);
  c->bb = t[1];
  c->xb = t + 2;
  c->by = c->xb + c->np;
  c->grid = c->by + c->nt;
  return rc;
}

static const float *at(const c1 *c, const pf_track *t, pf_site s, int32_t layer) {
  return pf_lab_h(c->l, t, pf_track_site(t, s), layer);
}

static spot *look(c1 *c, pf_site site, int32_t layer) {
  spot *p = pf_lab_alloc(c->l, 1, sizeof *p);
  const float **list = pf_lab_alloc(c->l, c->np + c->nt + c->np * c->nt, sizeof *list);
  float **dx = pf_lab_alloc(c->l, c->np, sizeof *dx),
        *values_of_dx = pf_lab_alloc(c->l, c->np, c->d * sizeof *values_of_dx);
  if (!p || !list || !dx || !values_of_dx)
    return NULL;
  *p = (spot){.site = site,
              .layer = layer,
              .bb = at(c, c->bb, site, layer),
              .xy = at(c, c->xy, site, layer),
              .xb = list,
              .by = list + c->np,
              .grid = list + c->np + c->nt,
              .dx = dx};
  for (size_t i = 0; i < c->np; i++) {
    p->xb[i] = at(c, c->xb[i], site, layer);
    dx[i] = values_of_dx + i * c->d;
    for (size_t e = 0; e < c->d; e++)
      dx[i][e] = p->xb[i][e] - p->bb[e];
  }
  for (size_t j = 0; j < c->nt; j++)
    p->by[j] = at(c, c->by[j], site, layer);
  for (size_t i = 0; i < c->np * c->nt; i++)
    p->grid[i] = at(c, c->grid[i], site, layer);
  return p;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* One stream for each vector that is drawn. */
static uint64_t stream_of(const c1 *c, const spot *p, value_id id, size_t draw) {
  return ((uint64_t)(id + 1) << 56) ^ ((uint64_t)pf_lab_index(c->l) << 44) ^
         ((uint64_t)p->site << 28) ^ ((uint64_t)p->layer << 16) ^ (uint64_t)draw;
}

/* Another persona, or task, by the number of the draw: those that follow. */
static size_t other(size_t own, size_t draw, size_t n) {
  return (own + 1 + draw) % n;
}

/* h_BB + |D_X| u + D_Y. */
static void random_persona(const c1 *c, const spot *p, double *u, float *out) {
  pf_set_length(u, pf_norm(p->dx[c->x], c->d), c->d);
  for (size_t e = 0; e < c->d; e++)
    out[e] = (float)((double)p->bb[e] + u[e] + ((double)p->by[c->y][e] - (double)p->bb[e]));
}

static double inter_norm(const c1 *c, const spot *p) {
  pf_geometry g = pf_decompose(p->bb, p->xb[c->x], p->by[c->y], p->xy, c->d);
  return g.inter_over_xy * g.norm_xy;
}

/* h_XY + the interaction of the cell one persona and one task further. */
static void other_interaction(const c1 *c, const spot *p, float *out) {
  size_t i = other(c->x, 0, c->np), j = other(c->y, 0, c->nt);
  const float *h = p->grid[i * c->nt + j];
  for (size_t e = 0; e < c->d; e++)
    out[e] = (float)((double)p->xy[e] +
                     ((double)h[e] - (double)p->xb[i][e] - (double)p->by[j][e] + (double)p->bb[e]));
}

/* False where the grid is too small for it. */
static bool fill(const c1 *c, const spot *p, value_id id, size_t draw, double *u, float *out) {
  const float *bb = p->bb, *xb = p->xb[c->x], *by = p->by[c->y], *xy = p->xy;
  uint64_t stream = stream_of(c, p, id, draw);
  bool bf16 = pf_lab_plan(c->l)->info->precision == PF_PRECISION_BF16_HF;
  double length;
  switch (id) {
  case V_I0:
    memcpy(out, xy, c->d * sizeof *out);
    return true;
  case V_I1:
    pf_jitter(xy, bf16, stream, c->d, out);
    return true;
  case V_A1:
    pf_additive(bb, xb, by, c->d, out);
    return true;
  case V_A2:
    return pf_two_way_fit(p->grid, c->np, c->nt, c->x, c->y, c->d, out);
  case V_SX:
    memcpy(out, by, c->d * sizeof *out);
    return true;
  case V_SY:
    memcpy(out, xb, c->d * sizeof *out);
    return true;
  case V_S0:
    memcpy(out, bb, c->d * sizeof *out);
    return true;
  case V_SM:
    pf_mean_vector(p->grid, c->np * c->nt, c->d, out);
    return true;
  case V_RMX:
    for (size_t e = 0; e < c->d; e++)
      out[e] = xy[e] - p->dx[c->x][e];
    return true;
  case V_N1:
    pf_additive(bb, p->xb[other(c->x, draw, c->np)], by, c->d, out);
    return c->np > 1;
  case V_N2:
    pf_additive(bb, xb, p->by[other(c->y, draw, c->nt)], c->d, out);
    return c->nt > 1;
  case V_N3I:
    pf_normals(stream, c->d, u);
    random_persona(c, p, u, out);
    return true;
  case V_N3C:
    pf_covariance_draw((const float *const *)p->dx, c->np, stream, c->d, u);
    random_persona(c, p, u, out);
    return c->np > 2;
  case V_N4R:
    pf_normals(stream, c->d, u);
    pf_set_length(u, inter_norm(c, p), c->d);
    pf_add_scaled(xy, u, 1, c->d, out);
    return true;
  case V_N4O:
    other_interaction(c, p, out);
    return c->np > 1 && c->nt > 1;
  case V_N5:
    pf_additive(bb, xb, by, c->d, out);
    length = pf_norm(out, c->d);
    for (size_t e = 0; e < c->d; e++)
      out[e] = (float)((double)out[e] * (length > 0 ? pf_norm(xy, c->d) / length : 1));
    return true;
  default:
    return false;
  }
}

/* ---- trials ---------------------------------------------------------------------------------- */

/* KL10 of the group's mean, of each draw where there are several, and of the first token; the other
 * divergences of the mean. */
static int put_group(c1 *c, const group *g) {
  json_t *draws = json_array();
  double kl10 = 0, kl0 = 0, reverse = 0, jsd = 0;
  int32_t n = 0;
  for (size_t i = 0; i < g->n; i++) {
    const pf_trial *v = &c->v[g->first + i];
    n = v->to - v->from;
    double one = pf_sum_steps(v->kl, (size_t)n, 0, (size_t)n);
    json_array_append_new(draws, pf_js_num(one));
    kl10 += one / (double)g->n;
    kl0 += v->kl[0] / (double)g->n;
    reverse += pf_sum_steps(v->reverse_kl, (size_t)n, 0, (size_t)n) / (double)g->n;
    jsd += pf_sum_steps(v->jsd, (size_t)n, 0, (size_t)n) / (double)g->n;
  }
  json_object_set_new(g->row, "n_scored", json_integer(n));
  json_object_set_new(g->row, "kl10", pf_js_num(kl10));
  json_object_set_new(g->row, "kl_0", pf_js_num(kl0));
  json_object_set_new(g->row, "reverse_kl10", pf_js_num(reverse));
  json_object_set_new(g->row, "jsd10", pf_js_num(jsd));
  if (g->n > 1)
    json_object_set(g->row, "draws", draws);
  json_decref(draws);
  return pf_rows_add(c->rows, json_incref(g->row));
}

static int flush(c1 *c) {
  int rc = pf_lab_run(c->l, c->v, c->n_v);
  for (size_t i = 0; i < c->n_g; i++) {
    if (rc == PF_OK)
      rc = put_group(c, &c->g[i]);
    json_decref(c->g[i].row);
  }
  c->n_v = c->n_g = 0;
  return rc;
}

static json_t *row_of(const char *site, int32_t position, int32_t layer, const char *condition) {
  return json_pack("{s:s,s:i,s:i,s:s}", "site", site, "position", position, "layer", layer,
                   "condition", condition);
}

/* The trial that puts a value at n spots at once. */
static int add_trial(c1 *c, spot *const *p, size_t n, value_id id, size_t draw, bool *there) {
  pf_trial *v = &c->v[c->n_v];
  pf_tap *taps = pf_lab_alloc(c->l, n, sizeof *taps);
  double *u = pf_lab_alloc(c->l, c->d, sizeof *u),
         *kl = pf_lab_alloc(c->l, 3 * PF_SCORED, sizeof *kl);
  if (!taps || !u || !kl)
    return PF_ENOMEM;
  *there = true;
  for (size_t i = 0; i < n && *there; i++) {
    float *value = pf_lab_alloc(c->l, c->d, sizeof *value);
    if (!value)
      return PF_ENOMEM;
    *there = fill(c, p[i], id, draw, u, value);
    taps[i] = pf_lab_put(c->l, c->xy, pf_track_site(c->xy, p[i]->site), p[i]->layer, PF_OP_REPLACE,
                         value);
  }
  int32_t from = pf_site_prefix[p[0]->site], end = (int32_t)pf_lab_n_y(c->l);
  *v = (pf_trial){.t = c->xy,
                  .taps = taps,
                  .n_taps = n,
                  .from = from,
                  .to = from + PF_SCORED,
                  .kl = kl,
                  .reverse_kl = kl + PF_SCORED,
                  .jsd = kl + 2 * PF_SCORED};
  v->to = v->to < end ? v->to : end;
  c->n_v += *there;
  return PF_OK;
}

static size_t draws_of(const c1 *c, value_id id, bool many) {
  int n = many ? values[id].paper : values[id].elsewhere;
  return n == OTHER_PERSONAS ? c->np - 1 : n == OTHER_TASKS ? c->nt - 1 : (size_t)n;
}

static int add_group(c1 *c, spot *const *p, size_t n, const char *site, value_id id, bool many) {
  size_t draws = draws_of(c, id, many);
  bool there = true;
  int rc = PF_OK;
  if (c->n_v + draws > TOGETHER || c->n_g == TOGETHER)
    rc = flush(c);
  group g = {NULL, c->n_v, 0};
  for (size_t k = 0; k < draws && rc == PF_OK && there; k++)
    rc = add_trial(c, p, n, id, k, &there);
  g.n = c->n_v - g.first;
  if (rc != PF_OK || g.n == 0)
    return rc;
  g.row = row_of(site, pf_track_site(c->xy, p[0]->site), p[0]->layer, values[id].key);
  c->g[c->n_g++] = g;
  return g.row ? PF_OK : PF_ENOMEM;
}

/* ---- geometry -------------------------------------------------------------------------------- */

/* cos(D_XY, D_X' + D_Y) of the other personas: what a persona's own effect has to beat. */
static json_t *null_cosines(const c1 *c, const spot *p) {
  json_t *list = json_array();
  for (size_t i = 0; i < c->np; i++)
    if (i != c->x)
      json_array_append_new(
          list, pf_js_num(pf_decompose(p->bb, p->xb[i], p->by[c->y], p->xy, c->d).cos_xy_sum));
  return list;
}

/* Inner products of the grid's residuals, for the share of the additive part: the same in every
 * cell before y, so the first cell has them. */
static json_t *gram(const c1 *c, const spot *p) {
  size_t n = c->np * c->nt;
  json_t *list = json_array();
  for (size_t a = 0; a < n; a++)
    for (size_t b = 0; b < n; b++) {
      double dot = 0;
      for (size_t e = 0; e < c->d; e++)
        dot += (double)p->grid[a][e] * (double)p->grid[b][e];
      json_array_append_new(list, pf_js_num(dot));
    }
  return list;
}

static int put_geometry(c1 *c, const spot *p) {
  pf_geometry g = pf_decompose(p->bb, p->xb[c->x], p->by[c->y], p->xy, c->d);
  json_t *row = row_of(pf_site_names[p->site], pf_track_site(c->xy, p->site), p->layer, "geometry");
  bool zero = g.zero; /* a difference is 0: its angles mean nothing */
  json_object_set_new(row, "cos_xy_sum", pf_js_num(zero ? (double)NAN : g.cos_xy_sum));
  json_object_set_new(row, "cos_x_y", pf_js_num(zero ? (double)NAN : g.cos_x_y));
  json_object_set_new(row, "inter_over_xy", pf_js_num(zero ? (double)NAN : g.inter_over_xy));
  json_object_set_new(row, "norm_x", pf_js_num(g.norm_x));
  json_object_set_new(row, "norm_y", pf_js_num(g.norm_y));
  json_object_set_new(row, "norm_xy", pf_js_num(g.norm_xy));
  json_object_set_new(row, "null_cos", null_cosines(c, p));
  json_object_set_new(row, "r2_add", pf_js_num(pf_r2_two_way(p->grid, c->np, c->nt, c->d)));
  if (pf_lab_index(c->l) == 0 && (p->site == PF_SITE_P_LAST || p->site == PF_SITE_P_USER_LAST))
    json_object_set_new(row, "gram", gram(c, p));
  return pf_rows_add(c->rows, row);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static bool is_paper_site(pf_site s) {
  return s == PF_SITE_P_LAST || s == PF_SITE_G1 || s == PF_SITE_G2;
}

static bool is_tested(const pf_plan *p, int32_t layer) {
  for (size_t i = 0; i < p->layers.n; i++)
    if (p->layers.v[i] == layer)
      return true;
  return false;
}

static int one_site(c1 *c, pf_site site, int32_t layer) {
  const pf_plan *p = pf_lab_plan(c->l);
  bool many = (p->all_draws || is_paper_site(site)) && (p->all_draws || is_tested(p, layer));
  spot *s = look(c, site, layer);
  int rc = s ? put_geometry(c, s) : PF_ENOMEM;
  for (int id = 0; id < N_VALUES && rc == PF_OK; id++)
    rc = add_group(c, &s, 1, pf_site_names[site], (value_id)id, many);
  return rc;
}

static int joint(c1 *c, int32_t layer) {
  static const pf_site sites[] = {PF_SITE_P_LAST, PF_SITE_G1, PF_SITE_G2};
  spot *s[3];
  size_t n = 0;
  for (int i = 0; i < 3; i++)
    if (pf_track_site(c->xy, sites[i]) >= 0) {
      s[n] = look(c, sites[i], layer);
      if (!s[n++])
        return PF_ENOMEM;
    }
  int rc = PF_OK;
  for (int id = 0; id < N_VALUES && rc == PF_OK; id++)
    if (values[id].joint)
      rc = add_group(c, s, n, "window", (value_id)id, false);
  return rc;
}

size_t pf_c1_parts(const pf_plan *p) {
  (void)p;
  return PF_N_SITES + 1;
}

/* Whether y goes on far enough for something to be scored at the site. */
static bool scorable(const c1 *c, size_t part) {
  pf_site s = part == WINDOW ? PF_SITE_P_LAST : (pf_site)part;
  return pf_track_site(c->xy, s) >= 0 && (size_t)pf_site_prefix[s] < pf_lab_n_y(c->l);
}

/* Layers at whose input a value can change something; the input of the final norm (layer L) only
 * where the row itself is scored. */
static int32_t layers_at(const c1 *c, size_t part) {
  pf_site s = part == WINDOW ? PF_SITE_P_LAST : (pf_site)part;
  return pf_lab_layers(c->l) + (pf_track_site(c->xy, s) >= pf_track_row(c->xy, 0));
}

int pf_c1(pf_lab *l, size_t part, json_t *rows) {
  const pf_plan *p = pf_lab_plan(l);
  c1 *c = pf_lab_alloc(l, 1, sizeof *c);
  if (!c)
    return PF_ENOMEM;
  *c = (c1){.l = l,
            .rows = rows,
            .np = p->grid.n_personas,
            .nt = p->grid.n_tasks,
            .d = pf_lab_d(l),
            .x = (size_t)pf_lab_persona(l),
            .y = (size_t)pf_lab_task(l)};
  int rc = tracks(c);
  for (int32_t k = 0; rc == PF_OK && scorable(c, part) && k < layers_at(c, part); k++)
    rc = part == WINDOW ? joint(c, k) : one_site(c, (pf_site)part, k);
  int last = rc == PF_OK ? flush(c) : rc;
  for (size_t i = 0; i < c->n_g; i++)
    json_decref(c->g[i].row);
  return last;
}
