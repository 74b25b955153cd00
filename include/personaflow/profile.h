/* SPDX-License-Identifier: Apache-2.0
 * Where a forward pass spends its time, layer by layer, and what the machine could do. A profile
 * that is not running costs a forward pass nothing but untaken branches; doc/PROFILE.md says what a
 * running one costs. */
#ifndef PERSONAFLOW_PROFILE_H
#define PERSONAFLOW_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "personaflow/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- profiles of a context --------------------------------------------------------------------
 */

typedef struct pf_profile pf_profile;

/* What is done in one layer (-1: outside of layers) under one name: a line of model/roles.def, or
 * "hook_..." for the actions at a hook point. FLOPs (a multiply-add is two) are those that the
 * mathematics asks for, bytes those that have to come from or go to memory at least once: weights,
 * visible blocks of K and V, rows. Element-wise work has bytes only. */
typedef struct pf_profile_row {
  int32_t layer;
  const char *name;
  uint64_t calls;
  double seconds; /* of all threads together */
  double most;    /* of the thread that spent the most */
  double flops, bytes;
} pf_profile_row;

/* A piece of work of one thread, for timelines; seconds since the start. */
typedef struct pf_profile_span {
  double from, to;
  int32_t layer, thread;
  const char *name;
} pf_profile_span;

/* The context must outlive it and has at most one. spans: 1 keeps pieces for pf_profile_spans, up
 * to a million a thread. PF_EUSAGE, PF_ENOMEM. */
PF_API int pf_profile_new(pf_profile **out, pf_ctx *c, int spans);
PF_API void pf_profile_free(pf_profile *p);
/* Forgets what it has and begins; ends. Not while the context computes. */
PF_API void pf_profile_start(pf_profile *p);
PF_API void pf_profile_stop(pf_profile *p);
/* Of the last start to the last stop: wall time, and the part of it in which the context computed.
 */
PF_API double pf_profile_wall(const pf_profile *p);
PF_API double pf_profile_busy(const pf_profile *p);
PF_API int pf_profile_threads(const pf_profile *p);
/* The rows that are not empty, in order of layers (those outside last) and of model/roles.def;
 * they are the profile's until the next start. NULL: out of memory. */
PF_API const pf_profile_row *pf_profile_rows(pf_profile *p, size_t *n);
/* In no order; the profile's alike. NULL with *n = 0 without spans. dropped (may be NULL): how many
 * there was no room for. */
PF_API const pf_profile_span *pf_profile_spans(pf_profile *p, size_t *n, size_t *dropped);

/* ---- the machine ------------------------------------------------------------------------------
 */

/* What this machine does at most on `threads` threads, measured with loops of one instruction, and
 * of reading memory far larger than its caches. */
typedef struct pf_machine_peak {
  int threads;
  double flops;     /* a second, of the instruction of the precision's products */
  int parts;        /* products that one counts for: 3 in f32 with bf16 weights */
  const char *what; /* the instruction; NULL and flops 0: not measured for this set */
  double bytes;     /* read a second */
} pf_machine_peak;
/* Takes a second or two. The instruction is the one of the model's layers. */
PF_API int pf_machine_measure(const pf_model *m, const char *isa, int threads,
                              pf_machine_peak *out);

#ifdef __cplusplus
}
#endif

#endif
