/* SPDX-License-Identifier: Apache-2.0
 * simd/peak/arena.h */
#include "config.h"

#include "simd/peak/arena.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"

#define HUGE ((size_t)2 << 20)

/* Pairs of bf16 of magnitude 1 to 2 and either sign: as fp32 values the same, as int8 anything.
 * Power, and with it the clock, depends on the data, so they are not all equal. */
static void fill(uint32_t *p, size_t n, uint64_t seed) {
  uint64_t x = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
  for (size_t i = 0; i < n; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    p[i] = ((uint32_t)x & 0x807f807fu) | 0x3f803f80u;
  }
}

static void fill_part(void *arg, int tid, int nt) {
  const pf_arena *a = arg;
  size_t lo, hi;
  pf_par_range(a->bytes / HUGE, tid, nt, &lo, &hi);
  for (size_t i = lo; i < hi; i++)
    fill((uint32_t *)(a->p + i * HUGE), HUGE / sizeof(uint32_t), i + 1);
}

int pf_arena_open(pf_arena *a, size_t bytes, int threads) {
  a->bytes = pf_round_up(bytes, HUGE);
  a->p = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (a->p == MAP_FAILED) {
    a->p = NULL;
    return pf_fail(PF_ENOMEM, "no memory for the %zu bytes that the measurement reads", a->bytes);
  }
  (void)madvise(a->p, a->bytes, MADV_HUGEPAGE);
  pf_par(threads, fill_part, a);
  return PF_OK;
}

void pf_arena_close(pf_arena *a) {
  if (a->p)
    munmap(a->p, a->bytes);
  a->p = NULL;
}
