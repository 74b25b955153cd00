/* SPDX-License-Identifier: Apache-2.0
 * Durations in words. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>

#include "personaflow/types.h"

static const struct {
  uint64_t seconds;
  const char *name;
} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
enum { N_UNITS = sizeof units / sizeof *units };

const char *pf_duration(double seconds, char text[32]) {
  uint64_t t = seconds > 0 && seconds < 1e15 ? (uint64_t)ceil(seconds) : 0;
  int u = 0;
  while (u < N_UNITS - 1 && t < units[u].seconds)
    u++;
  uint64_t whole = t / units[u].seconds;
  if (u == N_UNITS - 1)
    snprintf(text, 32, "%llu s", (unsigned long long)whole);
  else
    snprintf(text, 32, "%llu %s %llu %s", (unsigned long long)whole, units[u].name,
             (unsigned long long)(t % units[u].seconds / units[u + 1].seconds), units[u + 1].name);
  return text;
}
