/* SPDX-License-Identifier: Apache-2.0
 * Folders of results: what kind a folder holds, so that one kind is never written over another. */
#ifndef PF_ANALYSIS_FOLDER_H
#define PF_ANALYSIS_FOLDER_H

#include <stdbool.h>

/* As people call them. */
#define PF_FOLDER_STUDY      "study"
#define PF_FOLDER_TEXTS      "run of generate"
#define PF_FOLDER_SNAPSHOT   "snapshot"
#define PF_FOLDER_PROFILE    "profile"
#define PF_FOLDER_COMPARISON "comparison"

bool pf_folder_is(const char *dir, const char *kind);
/* PF_EEXIST where `dir` holds results of another kind than `own`; --force is for one's own. */
int pf_folder_guard(const char *dir, const char *own);
/* PF_EINCOMPLETE, with what to do, for a study that has begun and is not finished (no
 * manifest.json) and for a folder of shards that are not joined. */
int pf_folder_finished(const char *dir);
/* Makes the folder of a result that is known by the file `name` if it is not there. PF_EEXIST where
 * it holds another kind; one of its own and force is 0; or, and none of its own, something that has
 * the name of one of `others` (ends with NULL), which the result would write over. */
int pf_folder_make(const char *dir, const char *kind, const char *name, const char *const *others,
                   int force);

#endif
