/* SPDX-License-Identifier: Apache-2.0
 * What the experiments on attention to the persona share: the edges that read it, and the ways to
 * take them away. doc/STUDY.md, D1 to D5. */
#ifndef PF_ANALYSIS_FLOW_H
#define PF_ANALYSIS_FLOW_H

#include "analysis/sheet.h"

/* Edges into the persona's keys, by the queries that read them. */
enum {
  PF_READ_A = 1, /* the later prompt, without p_last: persona is written into it */
  PF_READ_B = 2, /* p_last: the first token */
  PF_READ_C = 4  /* generated tokens */
};

/* THE list of ways to take an edge away. F(id, name) */
#define PF_ABLATIONS(F)                                                                            \
  F(MASK, "mask")                     /* the edge is cut; the softmax shares its mass out */       \
  F(COUNTERFACTUAL, "counterfactual") /* K and V of a neutral persona of the same length */        \
  F(ZERO_V, "zero_v")                 /* the softmax stays, V is 0 */                              \
  F(K_ONLY, "k_only")                 /* K of the neutral persona: where it looks */               \
  F(V_ONLY, "v_only")                 /* V of the neutral persona: what it finds */
typedef enum pf_ablation {
#define PF_ABLATION_ID(id, name) PF_ABLATE_##id,
  PF_ABLATIONS(PF_ABLATION_ID) PF_N_ABLATIONS
#undef PF_ABLATION_ID
} pf_ablation;
extern const char *const pf_ablation_names[PF_N_ABLATIONS];

/* A cell's runs for these experiments. */
typedef struct pf_flow {
  pf_sheet s;
  const pf_track *xy;
  const pf_track *neutral; /* the first neutral persona, as long as the cell's or, behind a gap, a
                              token or two shorter; NULL: the controls have none */
  const pf_seq *zero_v;    /* the prompt up to the persona's end, whose values are 0 */
  bool has_zero_v;         /* it has been made */
  int32_t x_lo, x_hi;      /* positions of the persona */
  int32_t p_last, end;     /* position of p_last; one past the last */
} pf_flow;

int pf_flow_open(pf_flow *f, pf_lab *l, json_t *rows);
void pf_flow_close(pf_flow *f);
/* Queries [*lo, *hi) of one kind of edge. */
void pf_flow_queries(const pf_flow *f, int edge, int32_t *lo, int32_t *hi);
/* Takes the edges `reads` away from the line in layers [lo, hi). */
int pf_flow_ablate(pf_flow *f, pf_line *line, int reads, pf_ablation how, int32_t layer_lo,
                   int32_t layer_hi);
/* Cuts the reads of the keys [k_lo, k_hi) by queries from q_lo on, in all layers and heads. */
int pf_flow_cut(pf_flow *f, pf_line *line, int32_t q_lo, int32_t k_lo, int32_t k_hi);
/* The same in layers [layer_lo, layer_hi). */
int pf_flow_cut_in(pf_flow *f, pf_line *line, int32_t layer_lo, int32_t layer_hi, int32_t q_lo,
                   int32_t k_lo, int32_t k_hi);
/* Cuts the edges `reads` of one head of a layer. */
int pf_flow_cut_head(pf_flow *f, pf_line *line, int reads, int32_t layer, int32_t head);
/* Sets "layers": [lo, hi) of a line's record. */
void pf_line_layers(const pf_line *line, int32_t lo, int32_t hi);

/* THE list of spans of layers that a profile is made of: a layer alone, with two neighbours on each
 * side, it and all later ones, all below it. F(id, name) */
#define PF_PROFILES(F)                                                                             \
  F(WINDOW1, "window1")                                                                            \
  F(WINDOW5, "window5")                                                                            \
  F(FROM, "from")                                                                                  \
  F(BELOW, "below")
typedef enum pf_profile {
#define PF_PROFILE_ID(id, name) PF_PROFILE_##id,
  PF_PROFILES(PF_PROFILE_ID) PF_N_PROFILES
#undef PF_PROFILE_ID
} pf_profile;
/* The span [*lo, *hi) of n layers; false if it is empty. */
bool pf_profile_span(pf_profile p, int32_t layer, int32_t n, int32_t *lo, int32_t *hi);
/* Sets "profile" and "layer" of a line's record. */
void pf_line_profile(const pf_line *line, pf_profile p, int32_t layer);

#endif
