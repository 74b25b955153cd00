/* SPDX-License-Identifier: Apache-2.0
 * Edges that read the persona. */
#include "analysis/flow.h"

#include "base/status.h"

#define ABLATION_NAME(id, name) name,
const char *const pf_ablation_names[PF_N_ABLATIONS] = {PF_ABLATIONS(ABLATION_NAME)};

/* The prompt up to the persona's end with the persona's values set to 0 as they are made. */
static int zero_values(pf_flow *f) {
  pf_lab *l = f->s.l;
  int32_t layers = pf_lab_layers(l);
  int hook = pf_lab_hook(l, "blocks.0.attn.hook_v");
  pf_tap *taps = pf_lab_alloc(l, (size_t)layers, sizeof *taps);
  if (hook < 0)
    return hook;
  if (!taps)
    return PF_ENOMEM;
  for (int32_t k = 0; k < layers; k++)
    taps[k] = (pf_tap){.hook = hook,
                       .layer = k,
                       .head = -1,
                       .pos_lo = f->x_lo,
                       .pos_hi = f->x_hi,
                       .op = PF_OP_ZERO};
  f->has_zero_v = true;
  return pf_lab_donor(l, f->xy, f->xy->x.hi, taps, (size_t)layers, &f->zero_v);
}

int pf_flow_open(pf_flow *f, pf_lab *l, json_t *rows) {
  int task = pf_lab_task(l);
  pf_who who[2] = {{.persona = pf_lab_persona(l), .task = task},
                   {.persona = PF_NEUTRAL, .task = task, .placing = PF_GAP}};
  const pf_track *t[2] = {NULL, NULL};
  *f = (pf_flow){.s = {.l = l, .rows = rows}};
  int rc = pf_lab_tracks(l, who, pf_lab_has(l, who[1]) ? 2 : 1, t);
  if (rc != PF_OK)
    return rc;
  f->xy = t[0];
  f->neutral = t[1];
  f->x_lo = f->xy->pos[f->xy->x.lo];
  f->x_hi = f->xy->pos[f->xy->x.hi];
  f->p_last = f->xy->pos[f->xy->n_prompt - 1];
  f->end = f->xy->pos[f->xy->n - 1] + 1;
  return PF_OK;
}

void pf_flow_close(pf_flow *f) {
  pf_sheet_free(&f->s);
}

void pf_flow_queries(const pf_flow *f, int edge, int32_t *lo, int32_t *hi) {
  *lo = edge == PF_READ_A ? f->x_hi : edge == PF_READ_B ? f->p_last : f->p_last + 1;
  *hi = edge == PF_READ_A ? f->p_last : edge == PF_READ_B ? f->p_last + 1 : f->end;
}

static int take_away(pf_flow *f, pf_line *line, pf_ablation how, int32_t q_lo, int32_t q_hi,
                     int32_t layer_lo, int32_t layer_hi) {
  static const unsigned what[PF_N_ABLATIONS] = {[PF_ABLATE_COUNTERFACTUAL] = PF_SWAP_K | PF_SWAP_V,
                                                [PF_ABLATE_ZERO_V] = PF_SWAP_V,
                                                [PF_ABLATE_K_ONLY] = PF_SWAP_K,
                                                [PF_ABLATE_V_ONLY] = PF_SWAP_V};
  if (how == PF_ABLATE_MASK)
    return pf_line_cut(&f->s, line,
                       (pf_cut){.layer_lo = layer_lo,
                                .layer_hi = layer_hi,
                                .head = -1,
                                .q_lo = q_lo,
                                .q_hi = q_hi,
                                .k_lo = f->x_lo,
                                .k_hi = f->x_hi});
  /* a neutral persona that is shorter leaves the persona's last keys without a counterpart: cut */
  int32_t x_hi = how == PF_ABLATE_ZERO_V ? f->x_hi : f->neutral->pos[f->neutral->x.hi - 1] + 1;
  int rc = pf_line_swap(&f->s, line,
                        (pf_swap){.layer_lo = layer_lo,
                                  .layer_hi = layer_hi,
                                  .head = -1,
                                  .pos_lo = f->x_lo,
                                  .pos_hi = x_hi,
                                  .src_lo = f->x_lo,
                                  .what = what[how],
                                  .src = how == PF_ABLATE_ZERO_V ? f->zero_v : f->neutral->seq,
                                  .q_lo = q_lo,
                                  .q_hi = q_hi});
  if (rc == PF_OK && x_hi < f->x_hi)
    rc = pf_line_cut(&f->s, line,
                     (pf_cut){.layer_lo = layer_lo,
                              .layer_hi = layer_hi,
                              .head = -1,
                              .q_lo = q_lo,
                              .q_hi = q_hi,
                              .k_lo = x_hi,
                              .k_hi = f->x_hi});
  return rc;
}

int pf_flow_ablate(pf_flow *f, pf_line *line, int reads, pf_ablation how, int32_t layer_lo,
                   int32_t layer_hi) {
  int rc = PF_OK;
  if (how == PF_ABLATE_ZERO_V && !f->has_zero_v)
    rc = zero_values(f);
  for (int edge = PF_READ_A; edge <= PF_READ_C && rc == PF_OK; edge *= 2) {
    int32_t lo, hi;
    pf_flow_queries(f, edge, &lo, &hi);
    if (reads & edge && lo < hi)
      rc = take_away(f, line, how, lo, hi, layer_lo, layer_hi);
  }
  return rc;
}

void pf_line_layers(const pf_line *line, int32_t lo, int32_t hi) {
  json_object_set_new(line->row, "layers", json_pack("[i,i]", lo, hi));
}

int pf_flow_cut_in(pf_flow *f, pf_line *line, int32_t layer_lo, int32_t layer_hi, int32_t q_lo,
                   int32_t k_lo, int32_t k_hi) {
  return pf_line_cut(&f->s, line,
                     (pf_cut){.layer_lo = layer_lo,
                              .layer_hi = layer_hi,
                              .head = -1,
                              .q_lo = q_lo,
                              .q_hi = f->end,
                              .k_lo = k_lo,
                              .k_hi = k_hi});
}

int pf_flow_cut(pf_flow *f, pf_line *line, int32_t q_lo, int32_t k_lo, int32_t k_hi) {
  return pf_flow_cut_in(f, line, 0, pf_lab_layers(f->s.l), q_lo, k_lo, k_hi);
}

int pf_flow_cut_head(pf_flow *f, pf_line *line, int reads, int32_t layer, int32_t head) {
  int rc = PF_OK;
  for (int edge = PF_READ_A; edge <= PF_READ_C && rc == PF_OK; edge *= 2) {
    int32_t lo, hi;
    pf_flow_queries(f, edge, &lo, &hi);
    if (reads & edge && lo < hi)
      rc = pf_line_cut(&f->s, line,
                       (pf_cut){.layer_lo = layer,
                                .layer_hi = layer + 1,
                                .head = head,
                                .q_lo = lo,
                                .q_hi = hi,
                                .k_lo = f->x_lo,
                                .k_hi = f->x_hi});
  }
  return rc;
}

#define PROFILE_NAME(id, name) name,
static const char *const profile_names[PF_N_PROFILES] = {PF_PROFILES(PROFILE_NAME)};

bool pf_profile_span(pf_profile p, int32_t layer, int32_t n, int32_t *lo, int32_t *hi) {
  const int32_t spans[PF_N_PROFILES][2] = {
      [PF_PROFILE_WINDOW1] = {layer, layer + 1},
      [PF_PROFILE_WINDOW5] = {layer > 2 ? layer - 2 : 0, layer + 3 < n ? layer + 3 : n},
      [PF_PROFILE_FROM] = {layer, n},
      [PF_PROFILE_BELOW] = {0, layer}};
  *lo = spans[p][0];
  *hi = spans[p][1];
  return *lo < *hi;
}

void pf_line_profile(const pf_line *line, pf_profile p, int32_t layer) {
  json_object_set_new(line->row, "profile", json_string(profile_names[p]));
  json_object_set_new(line->row, "layer", json_integer(layer));
}
