/* SPDX-License-Identifier: Apache-2.0
 * What a study compares a grid with: other templates, hosts without the persona, neutral personas
 * of matched length, other baselines, conflicting cells. A grid's own, else the shipped ones
 * (data/grids/controls.json). */
#ifndef PF_ANALYSIS_CONTROLS_H
#define PF_ANALYSIS_CONTROLS_H

#include "analysis/grid.h"

/* Another way to say persona and task. system NULL: all in the user message `text`; else the
 * persona stands in the system message and the task in text. */
typedef struct pf_paraphrase {
  const char *key, *system, *text;
} pf_paraphrase;

/* A persona without a character, cut to a wished length. */
typedef struct pf_neutral {
  const char *key;
  const char **clauses;
  size_t n;
} pf_neutral;

typedef struct pf_conflict {
  pf_grid_item persona, task;
} pf_conflict;

/* THE list of the hosts that a study has of itself, by the keys that stand in its records: the
 * baseline persona's prompt, the bare task's, and with a neutral persona, a gap, a mask (C3).
 * F(id, key) */
#define PF_HOSTS(F) F(B, "B") F(BARE, "bare") F(N, "N") F(GAP, "GAP") F(MASK, "MASK")
enum {
#define PF_HOST_ID(id, key) PF_HOST_##id,
  PF_HOSTS(PF_HOST_ID)
#undef PF_HOST_ID
      PF_N_HOSTS
};
extern const char *const pf_host_keys[PF_N_HOSTS];

/* Strings belong to root. A member that the grid and the shipped file leave out has 0 items. */
typedef struct pf_controls {
  json_t *root;
  pf_paraphrase *paraphrases;
  pf_grid_item *hosts; /* text: with {task} */
  pf_neutral *neutral;
  pf_grid_item *base_personas, *base_tasks;
  pf_conflict *conflicts;
  size_t n_paraphrases, n_hosts, n_neutral, n_base_personas, n_base_tasks, n_conflicts;
} pf_controls;

/* Those of g, and the shipped ones where g has none. g must outlive *out. */
int pf_controls_open(pf_controls *out, const pf_grid *g);
/* Those of g alone; for checking. */
int pf_controls_of_grid(pf_controls *out, const pf_grid *g, const char *name);
void pf_controls_free(pf_controls *c);

/* The first `words` words of the clauses, joined by ", " and without a comma at the end; all when
 * there are fewer. pf_free. NULL when out of memory. */
char *pf_neutral_text(const pf_neutral *c, size_t words);
/* The text whose persona span in the template's prompt has `want` tokens, or else as near below as
 * whole words allow (at least one word); *got: its tokens. */
int pf_neutral_fit(const pf_neutral *c, const pf_tok *t, const char *template_, const char *task,
                   int32_t want, char **text, int32_t *got);

#endif
