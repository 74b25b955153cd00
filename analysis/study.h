/* SPDX-License-Identifier: Apache-2.0
 * What the files of the study share: the plan of a run, and the names of what it leaves behind. */
#ifndef PF_ANALYSIS_STUDY_H
#define PF_ANALYSIS_STUDY_H

#include "analysis/controls.h"
#include "analysis/grid.h"
#include "analysis/markers.h"
#include "analysis/journal.h"

/* The paper's protocol: tokens of y that are scored at a site, and the tokens before them at g2. */
enum { PF_SCORED = 10, PF_Y_MAX = PF_SCORED + 2 };
/* Rows that go through the weights together, and rows whose logits exist at a time in pf_eval. */
enum { PF_CALL_ROWS = 256, PF_LOGIT_ROWS = 64 };

/* Tokens of y that stand before the scored ones at a probe. */
static inline int32_t pf_probe_prefix(pf_probe p) {
  return p == PF_G1 ? 1 : p == PF_G2 ? 2 : 0;
}

/* THE list of protocols: the tokens of y that a cell's experiments are scored on, and whether y is
 * made with the generation config's repetition penalty. F(id, name, y tokens, penalty) */
#define PF_PROTOCOLS(F)                                                                            \
  F(PAPER, "paper", PF_Y_MAX, true)                                                                \
  F(FULL, "full", 64, false)
typedef enum pf_protocol {
#define PF_PROTOCOL_ID(id, name, y, penalty) PF_PROTOCOL_##id,
  PF_PROTOCOLS(PF_PROTOCOL_ID)
#undef PF_PROTOCOL_ID
      PF_N_PROTOCOLS
} pf_protocol;
extern const char *const pf_protocol_names[PF_N_PROTOCOLS];

/* Everything that fixes a run's bits, and its prompts. Cell c is persona c / n_tasks, task c %
 * n_tasks. */
typedef struct pf_plan {
  pf_protocol protocol;
  size_t y_max;              /* tokens of y */
  double repetition_penalty; /* with which y is made */
  bool all_draws;            /* C1 draws at every site and layer as often as at the paper's */
  pf_grid grid;
  pf_controls controls;
  const pf_paraphrase *paraphrase; /* in place of the grid's template; NULL: that */
  char *base_host; /* what the baseline persona's prompt says, with {task}; NULL: in two messages */
  pf_markers markers; /* of --markers, else the grid's own; without lists: shipped ones */
  bool conflicts;     /* the grid is that of the controls' conflicting cells */
  pf_ids layers;      /* tested, ascending */
  pf_model *model;
  pf_tok *tok;
  const pf_model_info *info;
  pf_role_prompt bb, *xb, *by, *xy; /* (n_personas), (n_tasks), (n_cells) */
  size_t n_cells;
  json_t *head; /* the journal's */
} pf_plan;

int pf_plan_make(pf_plan *p, const pf_study_opts *o);
void pf_plan_free(pf_plan *p);
/* The prompt of any persona (NULL: none) and task in the study's words. */
int pf_plan_say(const pf_plan *p, const char *persona, const char *task, pf_role_prompt *out);
/* The prompt of a host of the controls. */
int pf_plan_say_host(const pf_plan *p, size_t host, const char *task, pf_role_prompt *out);
/* False where host i of the controls says what the baseline persona's prompt or the bare task says,
 * which are hosts anyway. */
bool pf_plan_own_host(const pf_plan *p, size_t i);
/* The journal's key of a unit: SHA-256 of head, experiment, part and the cell's four prompts. */
int pf_plan_unit(const pf_plan *p, const char *experiment, size_t cell, size_t part, char key[65]);
/* The prompt of a persona and a task of the grid; below 0: of the baseline. */
const pf_role_prompt *pf_plan_prompt(const pf_plan *p, int persona, int task);
/* The prompt of the most tokens, of BB, all XB, BY and XY. */
const pf_role_prompt *pf_plan_longest(const pf_plan *p);
/* Position of a probe in a prompt. */
int32_t pf_plan_site(const pf_role_prompt *q, pf_probe probe);
/* Tokens that two prompts share from the start, at most `limit`. */
int32_t pf_shared_prefix(const pf_role_prompt *a, const pf_role_prompt *b, int32_t limit);

/* What results call the model of a directory: its last part; NAME of a snapshot in the Hugging Face
 * cache (models--ORG--NAME/snapshots/COMMIT). pf_free; NULL: out of memory. */
char *pf_model_name(const char *dir);

/* Files of a finished run; NULL-terminated. */
extern const char *const pf_study_outputs[];

/* Writes results.jsonl, generated.jsonl, summary.json and manifest.json from a journal that holds
 * every cell. */
int pf_export(const pf_plan *p, const pf_study_opts *o, const pf_journal *j);
/* The table of medians, line by line, from DIR/summary.json. */
int pf_export_table(const char *dir, void (*log)(void *user, const char *line), void *user);

/* ---- published.c: the paper's models and their published medians ------------------------------
 */

typedef struct pf_published {
  const char *key, *name; /* as the published files name the model */
} pf_published;
/* The paper's model with the same configuration and so the same tensor shapes; NULL if it is none.
 */
const pf_published *pf_published_match(const pf_model_info *i);
/* The published file for a model key and the SHA-256 of a grid file; PF_EINPUT if there is none. */
int pf_published_load(const char *model_key, const char *grid_sha256, json_t **out);

#endif
