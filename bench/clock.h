/* SPDX-License-Identifier: Apache-2.0
 * The clock of the benches. */
#ifndef PF_BENCH_CLOCK_H
#define PF_BENCH_CLOCK_H

#include <time.h>

/* Seconds of a monotonic clock. */
static inline double pf_bench_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
