/* SPDX-License-Identifier: Apache-2.0
 * simd/peak/peaks.h: runs the loops of simd/peak/micro.h on all threads and keeps the best of
 * several repeats; a disturbance only ever makes them slower. */
#include "config.h"

#include "simd/peak/peaks.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/par.h"
#include "base/status.h"
#include "simd/cpu.h"

/* Short runs and many: between two runs of other programs there is room for a short one. A team
 * starts in some microseconds. */
#define SHORTEST 0.002               /* seconds of one timed run of registers-only code */
#define WINDOW   ((size_t)256 << 20) /* bytes of one timed run of reading */
enum {
  MIN_ROUNDS = 3,
  MAX_ROUNDS = 12,
  CALM_ROUNDS = 2,
  OPS_REPEATS = 30,
  PLAN_REPEATS = 4,
  READ_FINALISTS = 3,
  READ_REPEATS = 16
};
enum { MAX_TRIALS = 4 * (1 + 4 * 2) }; /* streams x (no prefetch, distances x levels) */

static const struct {
  const char *word, *what;
} names[PF_PEAK_N] = {
#define PF_PEAK(id, word, what) {word, what},
    PF_PEAK_LIST(PF_PEAK)
#undef PF_PEAK
};

static const struct {
  pf_micro_fn fn; /* NULL: not in this build */
  uint32_t features;
} micro[PF_PEAK_N] = {
#ifdef PF_HAVE_AVX2
    [PF_PEAK_FMA_AVX2] = {pf_micro_fma_avx2, PF_CPU_LEVEL_AVX2},
    [PF_PEAK_S8_AVX2] = {pf_micro_maddwd_avx2, PF_CPU_LEVEL_AVX2},
#endif
#ifdef PF_HAVE_AVX512
    [PF_PEAK_FMA_AVX512] = {pf_micro_fma_avx512, PF_CPU_LEVEL_AVX512},
    [PF_PEAK_S8_AVX512] = {pf_micro_maddwd_avx512, PF_CPU_LEVEL_AVX512},
#endif
#ifdef PF_HAVE_AVXVNNI
    [PF_PEAK_S8_AVXVNNI] = {pf_micro_dpbusd_avxvnni, PF_CPU_LEVEL_AVX2 | PF_CPU_AVXVNNI},
#endif
#ifdef PF_HAVE_AVX512VNNI
    [PF_PEAK_S8_AVX512VNNI] = {pf_micro_dpbusd_avx512vnni, PF_CPU_LEVEL_AVX512 | PF_CPU_AVX512VNNI},
#endif
#ifdef PF_HAVE_AMX
    [PF_PEAK_BF16_AMX] = {pf_micro_bf16_amx, PF_CPU_LEVEL_AVX512 | PF_CPU_AMXTILE | PF_CPU_AMXBF16},
    [PF_PEAK_S8_AMX] = {pf_micro_s8_amx, PF_CPU_LEVEL_AVX512 | PF_CPU_AMXTILE | PF_CPU_AMXINT8},
#endif
#ifdef PF_HAVE_NEON
    [PF_PEAK_FMA_NEON] = {pf_micro_fma_neon, PF_CPU_NEON},
#endif
#ifdef PF_HAVE_NEONBF16
    [PF_PEAK_BF16_NEON] = {pf_micro_bfmlal_neonbf16, PF_CPU_NEON | PF_CPU_BF16},
#endif
#ifdef PF_HAVE_NEONDOT
    [PF_PEAK_S8_NEONDOT] = {pf_micro_sdot_neondot, PF_CPU_NEON | PF_CPU_DOTPROD},
#endif
#ifdef PF_HAVE_NEONI8MM
    [PF_PEAK_S8_NEONI8MM] = {pf_micro_smmla_neoni8mm, PF_CPU_NEON | PF_CPU_I8MM},
#endif
};

/* From the plainest to the widest; the last that the CPU has is used. */
static const struct {
  pf_read_fn fn;
  uint32_t features;
} readers[] = {
    {pf_read_generic, 0},
#ifdef PF_HAVE_AVX2
    {pf_read_avx2, PF_CPU_LEVEL_AVX2},
#endif
#ifdef PF_HAVE_AVX512
    {pf_read_avx512, PF_CPU_LEVEL_AVX512},
#endif
};

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double pf_median_of(double *v, size_t n) {
  qsort(v, n, sizeof *v, by_value);
  return v[n / 2];
}

const char *pf_peak_word(pf_peak_id id) {
  return names[id].word;
}

const char *pf_peak_what(pf_peak_id id) {
  return names[id].what;
}

/* What an instruction set multiplies with. -1: not measured. */
static const struct {
  const char *isa;
  int real, integer;
} units[] = {
    {"scalar", -1, -1},
    {"avx2", PF_PEAK_FMA_AVX2, PF_PEAK_S8_AVX2},
    {"avxvnni", PF_PEAK_FMA_AVX2, PF_PEAK_S8_AVXVNNI},
    {"avx512", PF_PEAK_FMA_AVX512, PF_PEAK_S8_AVX512},
    {"avx512vnni", PF_PEAK_FMA_AVX512, PF_PEAK_S8_AVX512VNNI},
    {"amx", PF_PEAK_BF16_AMX, PF_PEAK_S8_AMX},
    {"neon", PF_PEAK_FMA_NEON, -1},
    {"neondot", PF_PEAK_FMA_NEON, PF_PEAK_S8_NEONDOT},
    {"neoni8mm", PF_PEAK_FMA_NEON, PF_PEAK_S8_NEONI8MM},
    {"neonbf16", PF_PEAK_BF16_NEON, -1},
};

int pf_peak_of(const char *isa, bool integer) {
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (!strcmp(units[i].isa, isa))
      return integer ? units[i].integer : units[i].real;
  return -1;
}

static int offered(uint32_t features) {
  return (pf_cpu_bits() & features) == features;
}

static int can_run(pf_peak_id id) {
  return micro[id].fn && offered(micro[id].features);
}

static void ops_part(void *arg, int tid, int nt) {
  pf_peaking *j = arg;
  (void)nt;
  double ops = j->fn(j->n);
  if (tid == 0)
    j->ops = ops * j->threads;
}

/* Rounds that take SHORTEST on one thread; alone, as a team may wait for a CPU that is taken. */
static size_t calibrate(pf_micro_fn fn) {
  for (size_t n = 1000;; n *= 2) {
    double t = pf_seconds();
    (void)fn(n);
    if (pf_seconds() - t > SHORTEST)
      return n;
  }
}

void pf_peak_call(void *peaking) {
  pf_peaking *j = peaking;
  double t = pf_seconds();
  pf_par(j->threads, ops_part, j);
  double rate = j->ops / (pf_seconds() - t);
  j->best = rate > j->best ? rate : j->best;
}

static double best_ops(pf_peak_id id, int threads, int repeats) {
  pf_peaking j = {.threads = threads, .fn = micro[id].fn, .n = calibrate(micro[id].fn)};
  for (int i = 0; i < repeats; i++)
    pf_peak_call(&j);
  return j.best;
}

typedef struct read_job {
  const char *p;
  pf_read_fn fn;
  const pf_read_plan *plan;
  size_t part; /* bytes of one thread */
} read_job;

static void read_part(void *arg, int tid, int nt) {
  const read_job *j = arg;
  (void)nt;
  uint64_t v = j->fn(j->p + (size_t)tid * j->part, j->part, j->plan);
  __asm__ volatile("" : : "r"(v));
}

static pf_read_fn reader(void) {
  size_t i = sizeof readers / sizeof *readers;
  while (!offered(readers[--i].features)) {
  }
  return readers[i].fn;
}

/* Bytes a second of the best of several windows, which go round the arena, so that a cache has
 * forgotten one when it comes again. */
static double best_read(const pf_arena *a, const pf_read_plan *plan, int threads, int repeats) {
  static size_t turn;
  size_t window = a->bytes < WINDOW ? a->bytes : WINDOW, windows = a->bytes / window;
  double best = 0;
  read_job j = {NULL, reader(), plan, window / (size_t)threads / PF_READ_STEP * PF_READ_STEP};
  for (int i = 0; i < repeats; i++, turn++) {
    j.p = a->p + turn % windows * window;
    double rate, t = pf_seconds();
    pf_par(threads, read_part, &j);
    rate = (double)j.part * threads / (pf_seconds() - t);
    best = rate > best ? rate : best;
  }
  return best;
}

typedef struct trial {
  pf_read_plan plan;
  double rate;
} trial;

/* Every plan; the first is the plain loop. */
static size_t make_trials(trial t[MAX_TRIALS]) {
  static const size_t ahead[] = {0, 512, 1024, 2048, 4096};
  size_t n = 0;
  for (int streams = 1; streams <= 8; streams *= 2)
    for (int d = 0; d < 5; d++)
      for (int near = 0; near < (d ? 2 : 1); near++)
        t[n++] = (trial){{streams, near, ahead[d]}, 0};
  return n;
}

/* The better of two into *best; 1 when it is better by more than the usual jitter. */
static int keep(double *best, double rate) {
  int more = rate > 1.02 * *best;
  *best = rate > *best ? rate : *best;
  return more;
}

static void sort_down(trial *t, size_t n) {
  for (size_t i = 1; i < n; i++)
    for (size_t k = i; k && t[k].rate > t[k - 1].rate; k--) {
      trial swap = t[k];
      t[k] = t[k - 1];
      t[k - 1] = swap;
    }
}

static int repeats(const pf_peaks *p, int n) {
  return p->rough ? 1 : n;
}

/* One round of everything; 1 when it found more than the rounds before. */
static int measure_all(pf_peaks *out, trial *t, size_t n, const pf_arena *a) {
  int more = 0;
  for (int id = 0; id < PF_PEAK_N; id++)
    if (can_run(id))
      more |= keep(&out->ops[id], best_ops(id, out->threads, repeats(out, OPS_REPEATS)));
  double read = t[0].rate;
  for (size_t i = 0; i < n; i++) {
    keep(&t[i].rate, best_read(a, &t[i].plan, out->threads, repeats(out, PLAN_REPEATS)));
    more |= keep(&out->read, t[i].rate);
  }
  return more | (t[0].rate > 1.02 * read);
}

/* In rounds, until two of them find nothing more: what a round measured while another program ran
 * is made good by a later one. */
void pf_peaks_measure_in(pf_peaks *out, const pf_arena *a) {
  trial t[MAX_TRIALS];
  size_t n = make_trials(t);
  *out = (pf_peaks){.threads = out->threads, .rough = out->rough};
  int rounds = out->rough ? 1 : MAX_ROUNDS;
  for (int r = 0, calm = 0; r < rounds && (r < MIN_ROUNDS || calm < CALM_ROUNDS); r++)
    calm = measure_all(out, t, n, a) ? 0 : calm + 1;
  out->read_plain = t[0].rate;
  sort_down(t, n);
  for (int i = 0; i < READ_FINALISTS; i++)
    (void)keep(&t[i].rate, best_read(a, &t[i].plan, out->threads, repeats(out, READ_REPEATS)));
  sort_down(t, READ_FINALISTS);
  out->plan = t[0].plan;
  out->read = t[0].rate;
}

int pf_peaks_measure(pf_peaks *out) {
  pf_arena a;
  if (out->threads <= 0)
    out->threads = pf_par_default();
  int status = pf_arena_open(&a, PF_READ_BYTES, out->threads);
  if (status != PF_OK)
    return status;
  pf_peaks_measure_in(out, &a);
  pf_arena_close(&a);
  return PF_OK;
}

double pf_reading_bytes(const pf_reading *r) {
  size_t window = r->arena->bytes < WINDOW ? r->arena->bytes : WINDOW,
         threads = (size_t)r->p->threads;
  return (double)(window / threads / PF_READ_STEP * PF_READ_STEP * threads);
}

void pf_read_call(void *reading) {
  const pf_reading *r = reading;
  (void)best_read(r->arena, &r->p->plan, r->p->threads, 1);
}

bool pf_peaking_open(pf_peaking *out, const pf_peaks *p, pf_peak_id id) {
  *out = (pf_peaking){.threads = p->threads, .fn = p->ops[id] > 0 ? micro[id].fn : NULL};
  out->n = out->fn ? calibrate(out->fn) : 0;
  return out->fn != NULL;
}

double pf_peak_now(pf_peaks *p, pf_peak_id id) {
  double now = p->ops[id] > 0 ? best_ops(id, p->threads, repeats(p, OPS_REPEATS / 3)) : 0;
  (void)keep(&p->ops[id], now);
  return now;
}

double pf_read_now(pf_peaks *p, const pf_arena *a) {
  double now = best_read(a, &p->plan, p->threads, repeats(p, READ_REPEATS / 2));
  (void)keep(&p->read, now);
  return now;
}
