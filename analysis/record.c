/* SPDX-License-Identifier: Apache-2.0
 * What the journal keeps of a cell. */
#include "analysis/cells.h"
#include "analysis/geometry.h"
#include "analysis/jsonout.h"

static json_t *span(pf_span s) {
  return json_pack("[i,i]", s.lo, s.hi);
}

/* The text of the tokens [lo, hi). */
static json_t *part(const pf_role_prompt *q, pf_span s) {
  if (s.hi <= s.lo)
    return json_string("");
  uint32_t lo = q->enc.start[s.lo], hi = q->enc.end[s.hi - 1];
  return hi > lo ? json_stringn(q->text + lo, hi - lo) : json_string("");
}

static json_t *prompt_json(const pf_role_prompt *q) {
  static const char *const names[] = {"bos", "template", "persona", "task", "header"};
  const pf_span spans[] = {q->bos, q->template_, q->persona, q->task, q->header};
  json_t *out = json_pack("{s:i,s:i,s:s}", "tokens", (int)q->enc.n, "p_user_last", q->p_user_last,
                          "text", q->text);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    json_object_set_new(
        out, names[i], json_pack("{s:o,s:o}", "tokens", span(spans[i]), "text", part(q, spans[i])));
  return out;
}

static json_t *y_json(const pf_work *w, const pf_cell *c) {
  char *text = NULL;
  size_t n = 0;
  json_t *lp = json_array();
  for (size_t i = 0; i < c->y.out.n; i++) {
    json_array_append_new(
        lp, pf_js_num((double)c->clean[i * w->vocab + (size_t)c->y.out.v[i]] - c->ref[i].lse));
  }
  if (pf_tok_decode(w->plan->tok, c->y.out.v, c->y.out.n, 1, &text, &n) != PF_OK)
    text = NULL;
  json_t *out = json_pack("{s:o,s:o,s:o}", "ids", pf_js_ints(c->y.out.v, c->y.out.n), "text",
                          text ? json_stringn(text, n) : json_null(), "logprobs", lp);
  pf_text_free(text);
  return out;
}

enum { N_NUMBERS = 7 };
static const char *const geometry_names[N_NUMBERS] = {
    "cos_xy_sum", "cos_x_y", "inter_over_xy", "norm_x", "norm_y", "norm_xy", "norm_bb"};

/* Lists over layers 0..L; "zero": the layers at which a difference is exactly 0. */
static json_t *geometry_json(const pf_work *w, const pf_cell *c, pf_probe probe) {
  json_t *out = json_object(), *zero = json_array();
  for (int i = 0; i < N_NUMBERS; i++)
    json_object_set_new(out, geometry_names[i], json_array());
  for (int32_t l = 0; l <= w->plan->info->n_layers; l++) {
    pf_geometry g = pf_decompose(
        pf_cell_residual(w, c, PF_BB, probe, l), pf_cell_residual(w, c, PF_XB, probe, l),
        pf_cell_residual(w, c, PF_BY, probe, l), pf_cell_residual(w, c, PF_XY, probe, l), w->d);
    const double v[N_NUMBERS] = {g.cos_xy_sum, g.cos_x_y, g.inter_over_xy, g.norm_x,
                                 g.norm_y,     g.norm_xy, g.norm_bb};
    for (int i = 0; i < N_NUMBERS; i++)
      json_array_append_new(json_object_get(out, geometry_names[i]), pf_js_num(v[i]));
    if (g.zero)
      json_array_append_new(zero, json_integer(l));
  }
  json_object_set_new(out, "zero", zero);
  return out;
}

/* kl: for each tested layer the list of its n_scored terms. */
static json_t *kl_json(const pf_condition *k, size_t n) {
  json_t *out = json_array();
  for (size_t i = 0; i < n; i++) {
    json_t *steps = json_array();
    for (int32_t t = 0; t < k[i].n_scored; t++)
      json_array_append_new(steps, pf_js_num(k[i].kl[t]));
    json_array_append_new(out, steps);
  }
  return out;
}

static json_t *site_json(const pf_work *w, const pf_cell *c, pf_probe probe,
                         const pf_condition *k) {
  int32_t at[PF_N_RUNS];
  for (int r = 0; r < PF_N_RUNS; r++)
    at[r] = pf_plan_site(r == PF_XY ? c->xy.q : c->base[r]->q, probe);
  json_t *positions = json_pack("{s:i,s:i,s:i,s:i}", "BB", at[PF_BB], "XB", at[PF_XB], "BY",
                                at[PF_BY], "XY", at[PF_XY]);
  bool exists = (size_t)pf_probe_prefix(probe) <= c->y.out.n;
  return json_pack("{s:s,s:o,s:i,s:o,s:o}", "probe", pf_probe_names[probe], "positions", positions,
                   "n_scored", pf_cell_scored(c, probe), "geometry",
                   exists ? geometry_json(w, c, probe) : json_null(), "kl",
                   kl_json(k, w->plan->layers.n));
}

json_t *pf_cell_record(const pf_work *w, const pf_cell *c) {
  const pf_grid *g = &w->plan->grid;
  json_t *sites = json_array();
  for (size_t i = 0; i < g->n_probes; i++)
    json_array_append_new(sites, site_json(w, c, g->probes[i], c->k + i * w->plan->layers.n));
  size_t x = c->index / g->n_tasks, y = c->index % g->n_tasks;
  return json_pack("{s:s,s:s,s:b,s:o,s:o,s:o}", "persona", g->personas[x].key, "task",
                   g->tasks[y].key, "held_out", pf_grid_held_out(g, x, y), "prompt",
                   prompt_json(c->xy.q), "y", y_json(w, c), "sites", sites);
}
