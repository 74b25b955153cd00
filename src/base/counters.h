/* SPDX-License-Identifier: Apache-2.0
 * Hardware and kernel counters of all threads of this process (perf_event_open). What the kernel or
 * the machine does not give is named with the reason, never made up. */
#ifndef PF_BASE_COUNTERS_H
#define PF_BASE_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_counter {
  const char *name; /* "cycles", ... */
  bool there;
  double value;       /* of the last start to the last stop; scaled where counters took turns */
  const char *absent; /* why it is not there, else NULL */
} pf_counter;

typedef struct pf_counters pf_counters;

/* Opens them for the threads that there are now: after the first parallel work. amx: the CPU has
 * it. PF_ENOMEM. */
int pf_counters_open(pf_counters **out, bool amx);
void pf_counters_close(pf_counters *c);
void pf_counters_start(pf_counters *c);
void pf_counters_stop(pf_counters *c);
const pf_counter *pf_counters_read(const pf_counters *c, int *n);

#endif
