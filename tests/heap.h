/* SPDX-License-Identifier: Apache-2.0
 * What the heap holds, where the C library tells. */
#ifndef PF_TESTS_HEAP_H
#define PF_TESTS_HEAP_H

#include <stddef.h>
#include <stdlib.h> /* __GLIBC__ */

#if defined __GLIBC__ && !defined __SANITIZE_ADDRESS__
#if __GLIBC_PREREQ(2, 33)
#define TU_HEAP
#include <malloc.h>
#endif
#endif

/* bytes: in use, 0 where nobody tells. large: of them at most what large pieces (pf_alloc) are
 * aligned to, and nobody touches. */
typedef struct tu_heap {
  size_t bytes, large;
} tu_heap;

static inline tu_heap tu_heap_now(void) {
#ifdef TU_HEAP
  struct mallinfo2 m = mallinfo2();
  return (tu_heap){m.uordblks + m.hblkhd, m.hblks * ((size_t)2 << 20)};
#else
  return (tu_heap){0, 0};
#endif
}

#endif
