/* SPDX-License-Identifier: Apache-2.0
 * Reading what a study has left in its folder: tables of one number a cell from the records of an
 * experiment. */
#ifndef PF_ANALYSIS_RECORDS_H
#define PF_ANALYSIS_RECORDS_H

#include <jansson.h>

#include "personaflow/stats.h"

typedef struct pf_records {
  const char *dir;
  json_t *manifest;
  json_t *files;  /* experiment -> its records, as far as they were asked for */
  json_t *sorted; /* experiment -> condition -> its records in their order, likewise */
  size_t n_personas, n_tasks;
  const char **personas, **tasks; /* keys, of the manifest */
} pf_records;

int pf_records_open(pf_records *r, const char *dir);
void pf_records_close(pf_records *r);
/* The records of an experiment, NULL if the folder has none (or they do not read: *rc). */
const json_t *pf_records_of(pf_records *r, const char *experiment, int *rc);
/* The cell of a record; the number of cells if it names none. */
size_t pf_record_cell(const pf_records *r, const json_t *row);
/* True if the record has all that `query` asks: "key=value" (a text, or a number as "%g" prints it)
 * and "!key" (it has no such member), separated by spaces. */
int pf_record_is(const json_t *row, const char *query);
/* A new table of `field` of the records that the query asks for, NaN where there is none, the mean
 * where there are several; all NaN without the experiment. NULL: out of memory, or *rc. */
double *pf_records_table(pf_records *r, const char *experiment, const char *query,
                         const char *field, int *rc);
/* Why a study does not ask in the grid's own words (another wording, other cells, another
 * baseline); NULL: it does. *n: how many of these there are. */
const char *pf_manifest_other_words(const json_t *manifest, int *n);
/* A table (n_personas x n_tasks of x) of the KL of the steps from `from` on, of D1's cut that
 * begins at step tau; NaN where there is no such record or step. */
void pf_records_tails(pf_records *r, int tau, size_t from, double *x, int *rc);
/* The noise floor of C1 at a site and layer: the largest KL10 that a value one unit in the last
 * place away gave (I1), nats. What else could be noise (run, batch, kernel) changes no bit. */
double pf_records_floor(pf_records *r, const char *site, int layer, int *rc);
static inline pf_crossed pf_records_crossed(const pf_records *r, const double *x) {
  return (pf_crossed){x, r->n_personas, r->n_tasks};
}

#endif
