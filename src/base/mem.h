/* SPDX-License-Identifier: Apache-2.0
 * Memory: 64-byte aligned blocks and products of sizes that cannot wrap. */
#ifndef PF_BASE_MEM_H
#define PF_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* a*b*c into *out; false when it does not fit in size_t. */
bool pf_mul3(size_t a, size_t b, size_t c, size_t *out);
/* n*size bytes, 64-byte aligned, all zero; NULL (with the error line set) when out of memory.
 * n*size = 0 gives a valid pointer. Free with pf_free. */
void *pf_calloc(size_t n, size_t size);
/* As pf_calloc, contents undefined. */
void *pf_alloc(size_t n, size_t size);
void pf_free(void *p);
/* Gives back to the system what was freed, where the C library can: between phases that hold
 * gigabytes, which would otherwise add up. */
void pf_release_freed(void);
/* A heap copy of the string; NULL when out of memory. Free with pf_free. */
char *pf_strdup(const char *s);
/* Grows *p (elements of `size` bytes) so that `need` elements fit; doubles *cap. PF_OK or
 * PF_ENOMEM, *p untouched. */
int pf_grow(void **p, size_t *cap, size_t need, size_t size);

/* Of x86-64 and of most aarch64 kernels. */
#define PF_HUGE_PAGE ((size_t)2 << 20)

static inline size_t pf_round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

#endif
