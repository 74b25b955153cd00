/* SPDX-License-Identifier: Apache-2.0
 * Marker lists (data; doc/GRIDS.md has the format) and how a text scores on them. */
#ifndef PF_ANALYSIS_MARKERS_H
#define PF_ANALYSIS_MARKERS_H

#include <jansson.h>

#include "analysis/grid.h"

typedef struct pf_marker pf_marker;

typedef struct pf_marker_list {
  const char *key; /* of the persona or task */
  size_t n;
  pf_marker *v;
} pf_marker_list;

/* Strings belong to root. */
typedef struct pf_markers {
  json_t *root;
  const char *name;
  pf_marker_list *personas, *tasks;
  size_t n_personas, n_tasks;
  char sha256[65]; /* of the file's bytes; of the grid's when they are a grid's */
} pf_markers;

/* `what`: the name of a shipped file ("paper", "full") or a path. Markers that do not compile are
 * PF_EINPUT. */
int pf_markers_open(pf_markers *out, const char *what);
int pf_markers_parse(pf_markers *out, const char *name, const char *text, size_t n);
/* The markers that stand with a grid's personas and tasks. */
int pf_markers_of_grid(pf_markers *out, const pf_grid *g);
void pf_markers_free(pf_markers *m);
/* NULL: there is no list for this key. */
const pf_marker_list *pf_markers_persona(const pf_markers *m, const char *key);
const pf_marker_list *pf_markers_task(const pf_markers *m, const char *key);
/* As a report names it. */
const char *pf_marker_name(const pf_marker_list *l, size_t i);
/* Is `list` a list of markers? For files that hold one; `where` stands in the error line. */
int pf_markers_check(const json_t *list, const char *where);

/* How a marker stands in a text. Verbatim: everything it matched is also in the persona's or the
 * task's text (upper and lower case of ASCII letters alike), so it may have been copied. */
typedef enum pf_hit { PF_NO_HIT, PF_HIT_VERBATIM, PF_HIT_OWN } pf_hit;

typedef struct pf_marker_score {
  size_t distinct; /* markers that hit */
  size_t own;      /* of them, not verbatim */
} pf_marker_score;

/* persona, task: the prompt's texts (NULL: none). hits: (n) or NULL. PF_EINPUT if a pattern takes
 * too long on this text. */
int pf_markers_score(const pf_marker_list *l, const char *text, const char *persona,
                     const char *task, pf_marker_score *out, pf_hit *hits);
/* score[own] less the mean of the others; NaN without others. NaN among the others are left out. */
double pf_own_minus_others(const double *score, size_t n, size_t own);

/* Syllables of the n bytes of English text at s by a rule of thumb. In each word: its groups of
 * vowels (y is one, but not at the front or between vowels; "ing" begins a group), less an e that
 * is not spoken at the end or in a final "es" or "ed"; at least 1. Digits count one each. */
size_t pf_syllables(const char *s, size_t n);

#endif
