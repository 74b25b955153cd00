/* SPDX-License-Identifier: Apache-2.0
 * The one clock: for progress, timings and measurements, never for results. */
#ifndef PF_BASE_CLOCK_H
#define PF_BASE_CLOCK_H

#include <time.h>

/* Seconds of a monotonic clock. */
static inline double pf_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
