/* SPDX-License-Identifier: Apache-2.0
 * bench/model --profile: the share of each role, all layers together. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "bench/model.h"

enum { MOST_ROLES = 64 };

/* Sums rows of one name, in the order in which names come; returns how many there are. */
static size_t by_role(const pf_profile_row *rows, size_t n, pf_profile_row *out) {
  size_t m = 0;
  for (size_t i = 0; i < n; i++) {
    size_t at = 0;
    while (at < m && strcmp(out[at].name, rows[i].name) != 0)
      at++;
    if (at == MOST_ROLES)
      continue;
    if (at == m)
      out[m++] = (pf_profile_row){.name = rows[i].name};
    out[at].seconds += rows[i].seconds;
    out[at].calls += rows[i].calls;
  }
  return m;
}

void pf_mb_profile_print(pf_profile *p, const char *title) {
  size_t n;
  const pf_profile_row *rows = pf_profile_rows(p, &n);
  pf_profile_row role[MOST_ROLES];
  double threads = pf_profile_threads(p), all = pf_profile_busy(p) * threads;
  size_t m = rows ? by_role(rows, n, role) : 0;
  fprintf(stderr, "\n| %s | ms of a thread | share | calls |\n|---|---:|---:|---:|\n", title);
  for (size_t i = 0; i < m; i++)
    fprintf(stderr, "| %s | %.2f | %.1f %% | %llu |\n", role[i].name,
            1e3 * role[i].seconds / threads, 100 * role[i].seconds / all,
            (unsigned long long)role[i].calls);
  fprintf(stderr, "| together | %.2f | | |\n\n", 1e3 * pf_profile_busy(p));
}
