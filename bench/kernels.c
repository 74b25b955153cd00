/* SPDX-License-Identifier: Apache-2.0
 * bench/kernels */
#include "config.h"

#include <stdio.h>

#include "bench/machine.h"
#include "personaflow/types.h"

int main(void) {
  pf_peaks p = {0};
  int rc = pf_bench_peaks(&p);
  if (rc != PF_OK) {
    fprintf(stderr, "bench/kernels: %s\n", pf_last_error());
    return pf_exit_code(rc);
  }
  for (int i = 0; i < PF_PEAK_N; i++)
    if (p.ops[i] > 0)
      printf("%-20s %9.1f GOP/s  %s\n", pf_peak_word(i), p.ops[i] * 1e-9, pf_peak_what(i));
  printf("%-20s %9.1f GB/s\n", "read, plain", p.read_plain * 1e-9);
  printf("%-20s %9.1f GB/s  %d streams, %zu bytes ahead, near %d\n", "read", p.read * 1e-9,
         p.plan.streams, p.plan.ahead, p.plan.near);
  return 0;
}
