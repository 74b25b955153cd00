/* SPDX-License-Identifier: Apache-2.0
 * The per-cell values that the paper published for its five experiments, as tables, and the rule by
 * which a replica agrees with them. */
#ifndef PF_ANALYSIS_PAPER_H
#define PF_ANALYSIS_PAPER_H

#include <jansson.h>

#include "analysis/verdict.h"

typedef enum pf_experiment {
  PF_PAPER_SHORT,     /* KL10 of the additive value; condition "p_last 14": probe, layer */
  PF_PAPER_LONG,      /* the same on the long grid */
  PF_PAPER_MARKERS,   /* 1 where the text has a marker; "clean", "additive", "remove_X", "bare" */
  PF_PAPER_INJECTION, /* KL10 in the host; "host", "oracle", "cached" */
  PF_PAPER_LAYER_SETS /* KL10 in the host; "10_12_14": the layers that got the cached values */
} pf_experiment;

/* One condition of one experiment. Strings belong to the file. */
typedef struct pf_paper_table {
  pf_experiment experiment;
  char condition[40];
  size_t n;
  const char **cell; /* "engineer__arch" */
  double *value;
  const char **text; /* the generated texts of PF_PAPER_MARKERS; else NULL */
} pf_paper_table;

typedef struct pf_paper {
  json_t *files[5]; /* by experiment; NULL where the model was not in it */
  pf_paper_table *t;
  size_t n;
} pf_paper;

/* model_key: "gemma2b", "qwen15" or "qwen3b" (pf_published_match). PF_EINPUT for others. */
int pf_paper_open(pf_paper *out, const char *model_key);
void pf_paper_free(pf_paper *p);
/* NULL if the paper has no such table. */
const pf_paper_table *pf_paper_find(const pf_paper *p, pf_experiment e, const char *condition);

/* How a replica was run. bf16: it, or what was published, was computed in bf16; floor is the noise
 * floor of a KL10, nats (0 where not measured). */
typedef struct pf_replica {
  bool bf16;
  double floor;
} pf_replica;

/* A value agrees with a published KL10 or median
 *   in fp32: |ours - theirs| <= 10 % of theirs, or of .01 where theirs is less;
 *   in bf16: one is at most 1.5 times the other, or they differ by at most the floor.
 * Thresholds: replica_* of thresholds.def. NaN is unclear. */
pf_met pf_paper_agrees(double ours, double theirs, const pf_replica *r);

typedef struct pf_agreement {
  size_t n, cells_agree; /* cells of both; those that agree */
  double ours, theirs;   /* medians over them; of markers: means */
  pf_interval rank;      /* Spearman over cells */
  size_t same_texts;     /* of markers, when ours have texts */
  pf_met met; /* of the table: medians agree, and in fp32 the rank correlation is over .95;
                 of markers: 9 of 10 cells have the same answer */
} pf_agreement;

/* ours: (n) values of the cells cell[]; NaN: not there. text: (n) or NULL. per_cell: (t->n), of the
 * published cells in their order, or NULL. */
int pf_paper_compare(const pf_paper_table *t, const char *const *cell, const double *ours,
                     const char *const *text, size_t n, const pf_replica *r, pf_agreement *out,
                     pf_met *per_cell);

#endif
