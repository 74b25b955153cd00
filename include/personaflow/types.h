/* SPDX-License-Identifier: Apache-2.0
 * Status codes, exit codes and the few types that every public header shares. */
#ifndef PERSONAFLOW_TYPES_H
#define PERSONAFLOW_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PF_API          __attribute__((visibility("default")))
#define PF_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define PF_API
#define PF_PRINTF(f, a)
#endif

/* Every call that can fail returns PF_OK (0) or one of these; the sentence that says what, where
 * and what to do is then in pf_last_error() of the calling thread. */
typedef enum pf_status {
  PF_OK = 0,
  PF_EUSAGE = -1,      /* arguments that make no sense (exit code 2) */
  PF_EINPUT = -2,      /* a missing or invalid model, grid or other input file (3) */
  PF_EIO = -3,         /* reading or writing failed (3) */
  PF_EINCOMPLETE = -4, /* the result is incomplete and can be resumed (4) */
  PF_ENOMEM = -5,      /* out of memory (5) */
  PF_EENV = -6,        /* the machine or its settings: instruction set, kernel (5) */
  PF_ENUMERIC = -7,    /* non-finite scores or logits (3) */
  PF_EEXIST = -8,      /* results are there already and were not to be overwritten (2) */
  PF_EINTERNAL = -9    /* a defect of the library (70) */
} pf_status;

/* The line that explains the failure of the calling thread's last call. Means nothing after a call
 * that did not fail, which may have tried something in vain; nor where the status is one that the
 * caller's own function returned. Never NULL; valid until the thread's next call. */
PF_API const char *pf_last_error(void);
/* A fixed sentence for a status, never NULL. */
PF_API const char *pf_strstatus(int status);
/* The program exit code that belongs to a status (0 for PF_OK). */
PF_API int pf_exit_code(int status);

/* Progress of long work: done and total in units of the caller's choice. Called from one thread. */
typedef void (*pf_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

/* A duration as people say it: "42 s", "12 min 5 s", "3 h 20 min", "5 d 11 h"; seconds are rounded
 * up. Returns text, which has room for 32 bytes. */
PF_API const char *pf_duration(double seconds, char text[32]);

/* A growing list of token ids; free with pf_ids_free. */
typedef struct pf_ids {
  int32_t *v;
  size_t n, cap;
} pf_ids;
PF_API void pf_ids_free(pf_ids *ids);
PF_API int pf_ids_push(pf_ids *ids, int32_t id); /* PF_ENOMEM */

#ifdef __cplusplus
}
#endif

#endif
