/* SPDX-License-Identifier: Apache-2.0
 * The journal of a run: DIR/journal.jsonl, append-only. Line 1 is the head, which says what run
 * this is; every further line is
 * {"unit": key, "sum": first 16 hex digits of SHA-256 over the data's text, "data": {...}}. A line
 * is fsynced before append returns, so what the journal holds survives kill -9; a torn last line is
 * dropped when it is opened again. */
#ifndef PF_ANALYSIS_JOURNAL_H
#define PF_ANALYSIS_JOURNAL_H

#include <jansson.h>
#include <stdbool.h>

#include "analysis/folder.h"
#include "personaflow/types.h"

typedef struct pf_journal pf_journal;

typedef enum pf_journal_mode {
  PF_JOURNAL_NEW,    /* PF_EEXIST if one of `outputs` is in dir */
  PF_JOURNAL_RESUME, /* go on; PF_EUSAGE if it was made with another head, PF_EEXIST if outputs are
                        there without it */
  PF_JOURNAL_FORCE   /* remove `outputs` and start again */
} pf_journal_mode;

/* Makes dir, locks it against other runs, opens or begins the journal. outputs: names of the files
 * that a run leaves in dir, NULL-terminated, the journal's own included. head: flat object. kind:
 * PF_FOLDER_...; PF_EEXIST where dir holds another. */
int pf_journal_open(pf_journal **out, const char *dir, pf_journal_mode mode, const char *kind,
                    const json_t *head, const char *const *outputs);
/* The part of it that needs no head (and removes nothing unless mode is PF_JOURNAL_FORCE):
 * PF_EEXIST as above; PF_EIO if dir cannot be made or written to. For a look before long work. */
int pf_journal_look(const char *dir, pf_journal_mode mode, const char *kind,
                    const char *const *outputs);
/* For a plan: refuses what an opening would refuse, reads what it would find, and writes nothing.
 * head NULL: the refusals alone that need none, *out is NULL then. Nothing is appended to it. */
int pf_journal_peek(pf_journal **out, const char *dir, pf_journal_mode mode, const char *kind,
                    const json_t *head, const char *const *outputs);
/* True for a unit that is finished. */
bool pf_journal_has(const pf_journal *j, const char *unit);
/* Its data, read from the file (a new reference); *data NULL if it is not there. What a journal
 * holds in memory is where units stand. */
int pf_journal_get(const pf_journal *j, const char *unit, json_t **data);
/* Takes the reference `data`. PF_EINCOMPLETE when the disk is full: the journal stays valid. */
int pf_journal_append(pf_journal *j, const char *unit, json_t *data);
/* The same for n units at once: all of them, or none. */
int pf_journal_append_all(pf_journal *j, const char *const *units, json_t *const *data, size_t n);
/* Takes over the units of another folder's journal that are not there yet. PF_EUSAGE if it was made
 * with another head; a torn last line of it is left out. */
int pf_journal_join(pf_journal *j, const char *dir, const json_t *head);
/* The first member in which two heads differ, NULL if none. It belongs to one of them. */
const char *pf_journal_difference(const json_t *a, const json_t *b);
/* The head of the journal in a folder (a new reference). */
int pf_journal_head(const char *dir, json_t **head);
size_t pf_journal_count(const pf_journal *j);
/* Bytes of a torn last line that were dropped when it was opened. */
size_t pf_journal_dropped(const pf_journal *j);
void pf_journal_close(pf_journal *j);

#endif
