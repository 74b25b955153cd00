/* SPDX-License-Identifier: Apache-2.0
 * Aligned allocation with checked sizes. */
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/status.h"

bool pf_mul3(size_t a, size_t b, size_t c, size_t *out) {
  size_t ab;
  return !__builtin_mul_overflow(a, b, &ab) && !__builtin_mul_overflow(ab, c, out);
}

enum { LINE = 64 };

/* Blocks of more than a huge page are activations and results, which are gone over again and again:
 * there a huge page saves hundreds of address translations. A wish; who refuses it loses nothing.
 */
void *pf_alloc(size_t n, size_t size) {
  size_t bytes;
  void *p = NULL;
  bool fits = pf_mul3(n, size, 1, &bytes) && bytes <= PTRDIFF_MAX - PF_HUGE_PAGE,
       large = fits && bytes > PF_HUGE_PAGE;
  if (!fits || posix_memalign(&p, large ? PF_HUGE_PAGE : LINE,
                              bytes ? pf_round_up(bytes, LINE) : LINE) != 0) {
    pf_fail(PF_ENOMEM, "out of memory: %zu x %zu bytes were asked for", n, size);
    return NULL;
  }
  if (large)
    (void)madvise(p, bytes / PF_HUGE_PAGE * PF_HUGE_PAGE, MADV_HUGEPAGE);
  return p;
}

void *pf_calloc(size_t n, size_t size) {
  void *p = pf_alloc(n, size);
  if (p)
    memset(p, 0, n * size);
  return p;
}

void pf_free(void *p) {
  free(p);
}

void pf_release_freed(void) {
#ifdef __GLIBC__
  (void)malloc_trim(0);
#endif
}

char *pf_strdup(const char *s) {
  size_t n = strlen(s) + 1;
  char *p = pf_alloc(n, 1);
  if (p)
    memcpy(p, s, n);
  return p;
}

int pf_grow(void **p, size_t *cap, size_t need, size_t size) {
  if (need <= *cap)
    return PF_OK;
  size_t n = *cap ? *cap : 16;
  while (n < need && n <= SIZE_MAX / 2)
    n *= 2;
  void *q = n < need ? NULL : pf_alloc(n, size);
  if (!q)
    return PF_ENOMEM;
  if (*p)
    memcpy(q, *p, *cap * size);
  pf_free(*p);
  *p = q;
  *cap = n;
  return PF_OK;
}
