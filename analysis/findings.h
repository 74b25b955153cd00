/* SPDX-License-Identifier: Apache-2.0
 * From the records of a study to its verdicts. */
#ifndef PF_ANALYSIS_FINDINGS_H
#define PF_ANALYSIS_FINDINGS_H

#include "analysis/records.h"
#include "analysis/verdict.h"

/* All findings that the folder's records allow, as findings.json in it: an array of objects (those
 * of pf_finding_json with `where`: site and layer, ablation or host, and `line`), the thresholds,
 * the noise floors. Without records of the full protocol nothing is written. */
int pf_findings_make(const char *dir);
/* The findings (as above) of H3, H4c, H5 and H8 of several studies together, which differ in the
 * wording of their prompts alone: every cell's numbers are means over them, so that intervals are
 * over the same personas and tasks and hold what the wordings have in common. */
enum { PF_POOLED = 16 };
int pf_findings_pooled(const char *const *dirs, size_t n, json_t **out);
/* The lines of findings.json, one by one; nothing without the file. */
int pf_findings_print(const char *dir, void (*log)(void *user, const char *line), void *user);

#endif
