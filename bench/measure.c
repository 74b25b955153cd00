/* SPDX-License-Identifier: Apache-2.0
 * Timing. The best of many calls is what a kernel can do: a disturbance only makes it slower. */
#include "config.h"

#include <string.h>
#include <time.h>

#include "bench/bench.h"

enum { MAX_CALLS = 1 << 14, MIN_CALLS = 3, TRIES = 3 };
#define DISTURBED 0.92 /* of the machine's best */

bool pf_bench_listed(const char *list, const char *word) {
  size_t n = strlen(word);
  if (!list)
    return true;
  for (const char *p = list; p; p = strchr(p, ',')) {
    p += *p == ',';
    if (!strncmp(p, word, n) && (p[n] == ',' || !p[n]))
      return true;
  }
  return false;
}

static double cpu_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

pf_timing pf_bench_time(pf_bench_fn fn, void *arg, double seconds, double limit) {
  static double t[MAX_CALLS];
  int n = 0;
  double cpu = cpu_clock(), start = pf_seconds(), end = start;
  while (n < MAX_CALLS && (end - start < seconds || (n < MIN_CALLS && end - start < limit))) {
    double begin = end;
    fn(arg);
    end = pf_seconds();
    t[n++] = end - begin;
  }
  cpu = cpu_clock() - cpu;
  double median = pf_median_of(t, (size_t)n);
  return (pf_timing){t[0], median, cpu / (end - start), n};
}

void pf_bench_race(size_t n, const pf_bench_fn *fn, void *const *arg, double seconds, double *t) {
  enum { MAX = 501 };
  static double all[PF_BENCH_RACERS][MAX];
  double start = pf_seconds(), now = start;
  int rounds = 0;
  for (size_t i = 0; i < n; i++)
    fn[i](arg[i]);
  for (; rounds < MAX && (rounds < MIN_CALLS || now - start < seconds); rounds++)
    for (size_t i = 0; i < n; i++) {
      double begin = pf_seconds();
      fn[i](arg[i]);
      now = pf_seconds();
      all[i][rounds] = now - begin;
    }
  for (size_t i = 0; i < n; i++)
    t[i] = pf_median_of(all[i], (size_t)rounds);
}

/* One try: the machine, then the call. */
static bool try(pf_bench *b, pf_result *r, pf_bench_fn fn, void *arg, int peak, double share) {
  double ops = peak < 0 ? 0 : pf_peak_now(&b->peaks, (pf_peak_id)peak);
  double read = pf_read_now(&b->peaks, &b->arena);
  pf_timing t = pf_bench_time(fn, arg, b->o.seconds, b->o.limit);
  if (r->t.calls == 0 || t.best < r->t.best) {
    r->t = t;
    r->peak_now = ops / share;
    r->read_now = read;
  }
  return (peak < 0 || ops >= DISTURBED * b->peaks.ops[peak]) && read >= DISTURBED * b->peaks.read;
}

void pf_bench_measure(pf_bench *b, pf_result *r, pf_bench_fn fn, void *arg, int peak,
                      double share) {
  double start = pf_seconds();
  fn(arg); /* pages, caches, threads */
  r->t.calls = 0;
  r->disturbed = true;
  int tries = b->o.smoke ? 1 : TRIES;
  for (int i = 0; i < tries && r->disturbed; i++) {
    r->disturbed = !try(b, r, fn, arg, peak, share);
    if (pf_seconds() - start > b->o.limit)
      break;
  }
  r->peak = peak < 0 ? 0 : b->peaks.ops[peak] / share;
}

const char *pf_bench_isa_name(size_t i) {
  static const char *const names[] = {
#define PF_ISA_NAME(name, level, features) #name,
      PF_ISAS(PF_ISA_NAME)
#undef PF_ISA_NAME
          NULL};
  return i < sizeof names / sizeof *names ? names[i] : NULL;
}

bool pf_bench_isa(pf_simd *out, const char *isa) {
  size_t n;
  bool any = false;
  const pf_kernel *k = pf_kernel_table(&n);
  memset(out, 0, sizeof *out);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(k[i].isa, isa) && (pf_cpu_bits() & k[i].features) == k[i].features) {
      pf_kernel_install(out, &k[i]);
      any = true;
    }
  return any;
}
