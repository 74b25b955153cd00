/* SPDX-License-Identifier: Apache-2.0
 * Grids: personas x tasks, the template that joins them, the sites to look at. Files of schema
 * "personaflow-grid/1". */
#ifndef PF_ANALYSIS_GRID_H
#define PF_ANALYSIS_GRID_H

#include <jansson.h>
#include <stdbool.h>

#include "personaflow/analysis.h"

/* The paper's probes, in this order: position s, and how many tokens of the continuation stand
 * before the scored ones. */
typedef enum pf_probe { PF_P_USER_LAST, PF_P_LAST, PF_G1, PF_G2, PF_N_PROBES } pf_probe;
extern const char *const pf_probe_names[PF_N_PROBES];

typedef struct pf_grid_item {
  const char *key, *text;
} pf_grid_item;

/* Strings belong to root. */
typedef struct pf_grid {
  json_t *root;
  const char *name, *description, *template_;
  pf_grid_item base; /* key: the baseline persona's text, text: the baseline task's */
  pf_grid_item *personas, *tasks;
  bool *answered; /* (n_tasks) the paper's experiments of answers run on it (`answer_tasks`) */
  size_t n_personas, n_tasks;
  pf_probe probes[PF_N_PROBES];
  size_t n_probes;
  char sha256[65]; /* of the file's bytes */
} pf_grid;

/* `what`: "short", "long" (the paper's), the name of a shipped grid, or a file. */
int pf_grid_open(pf_grid *out, const char *what);
int pf_grid_parse(pf_grid *out, const char *name, const char *text, size_t n);
void pf_grid_free(pf_grid *g);
/* True if [persona, task] is listed as held out of the model's training. */
bool pf_grid_held_out(const pf_grid *g, size_t persona, size_t task);

/* `answered` for the tasks that g has now. */
int pf_grid_answered(pf_grid *g);

/* One text and its key, for the files that hold such; `where` stands in the error line. A text that
 * a chat template would trim, or that is empty, would make other tokens than it seems to. */
int pf_grid_take_item(const json_t *e, const char *where, pf_grid_item *out);
int pf_grid_check_key(const char *where, const char *key);
int pf_grid_check_text(const char *where, const char *key, const char *s);

/* Layers to test, ascending: `list` ("3,5-7" or "all") if given, else the grid's for a model of
 * n_layers, else the paper's fractions. */
int pf_grid_layers(const pf_grid *g, const char *list, int32_t n_layers, pf_ids *out);

/* Path of a shipped data file ("grids/demo.json"): under $PERSONAFLOW_DATADIR if that is set, else
 * the installed folder, else beside the running program (share/personaflow of its prefix, or data
 * of its source tree). PF_EINPUT if it is nowhere. */
int pf_data_path(const char *name, char *buf, size_t size);

#endif
