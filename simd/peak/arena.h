/* SPDX-License-Identifier: Apache-2.0
 * Memory larger than every cache, in huge pages where the system gives them, touched by the threads
 * that will read it and full of values that are harmless as bf16, fp32 and int8. */
#ifndef PF_SIMD_ARENA_H
#define PF_SIMD_ARENA_H

#include <stddef.h>

typedef struct pf_arena {
  char *p;
  size_t bytes;
} pf_arena;

/* At least `bytes`; PF_OK or PF_ENOMEM. */
int pf_arena_open(pf_arena *a, size_t bytes, int threads);
void pf_arena_close(pf_arena *a);

#endif
