/* SPDX-License-Identifier: Apache-2.0
 * What this machine can do, measured: operations a second of each kind of instruction and bytes a
 * second from memory, on all threads at once. The kernels are compared with it. */
#ifndef PF_SIMD_PEAKS_H
#define PF_SIMD_PEAKS_H

#include <stdbool.h>

#include "simd/peak/arena.h"
#include "base/clock.h"
#include "simd/peak/micro.h"

/* PF_PEAK(suffix of the constant, word, what it is) */
#define PF_PEAK_LIST(PF_PEAK)                                                                      \
  PF_PEAK(FMA_AVX2, "avx2-fma", "fp32 FMA, AVX2")                                                  \
  PF_PEAK(FMA_AVX512, "avx512-fma", "fp32 FMA, AVX-512")                                           \
  PF_PEAK(FMA_NEON, "neon-fma", "fp32 FMA, NEON")                                                  \
  PF_PEAK(BF16_NEON, "neonbf16-bfmlal", "bf16 BFMLALB/T, NEON")                                    \
  PF_PEAK(BF16_AMX, "amx-bf16", "bf16 TDPBF16PS, AMX")                                             \
  PF_PEAK(S8_AVX2, "avx2-maddwd", "int16 PMADDWD and PADDD, AVX2")                                 \
  PF_PEAK(S8_AVX512, "avx512-maddwd", "int16 PMADDWD and PADDD, AVX-512")                          \
  PF_PEAK(S8_AVXVNNI, "avxvnni-dpbusd", "int8 VPDPBUSD, 256 bits, AVX-VNNI")                       \
  PF_PEAK(S8_AVX512VNNI, "avx512vnni-dpbusd", "int8 VPDPBUSD, 512 bits, AVX512-VNNI")              \
  PF_PEAK(S8_AMX, "amx-s8", "int8 TDPBSSD, AMX")                                                   \
  PF_PEAK(S8_NEONDOT, "neondot-sdot", "int8 SDOT, NEON")                                           \
  PF_PEAK(S8_NEONI8MM, "neoni8mm-smmla", "int8 SMMLA, NEON")

typedef enum pf_peak_id {
#define PF_PEAK(id, word, what) PF_PEAK_##id,
  PF_PEAK_LIST(PF_PEAK)
#undef PF_PEAK
      PF_PEAK_N
} pf_peak_id;

typedef struct pf_peaks {
  bool rough;            /* in: one short round, of any arena: to see that everything runs */
  int threads;           /* in: threads to run on, 0 for the default; out: those used */
  double ops[PF_PEAK_N]; /* a second; a multiply-add is two. 0: not on this CPU, or not built */
  double read_plain;     /* bytes a second: one stream a thread, no prefetch */
  double read;           /* bytes a second of the best plan */
  pf_read_plan plan;
} pf_peaks;

/* The memory that bandwidth is measured with. Virtual machines report a last-level cache that
 * belongs to the whole host, so this is far more than any of them. */
#define PF_READ_BYTES ((size_t)2 << 30)

/* Measures everything in some ten seconds. PF_OK, or PF_ENOMEM. */
int pf_peaks_measure(pf_peaks *out);
/* As pf_peaks_measure, reading from an arena of at least PF_READ_BYTES that exists; out->threads is
 * not 0. */
void pf_peaks_measure_in(pf_peaks *out, const pf_arena *a);

/* The same again, short, to be taken beside a measurement: the clock and what other programs or
 * guests take from the machine change within a minute. Operations or bytes a second; p keeps the
 * best. */
double pf_peak_now(pf_peaks *p, pf_peak_id id);
double pf_read_now(pf_peaks *p, const pf_arena *a);

/* One such reading, to be called in turn with what is compared with it; bytes of a call. */
typedef struct pf_reading {
  const pf_peaks *p;
  const pf_arena *arena;
} pf_reading;
void pf_read_call(void *reading);
double pf_reading_bytes(const pf_reading *r);

/* One short run of an instruction, to be called in turn likewise; it keeps the best. */
typedef struct pf_peaking {
  int threads;
  pf_micro_fn fn;
  size_t n;         /* rounds */
  double ops, best; /* of a call; a second */
} pf_peaking;
/* False: this machine has not the instruction (p->ops is 0). */
bool pf_peaking_open(pf_peaking *out, const pf_peaks *p, pf_peak_id id);
void pf_peak_call(void *peaking);

/* Sorts n > 0 values; the upper one of two in the middle. */
double pf_median_of(double *v, size_t n);

const char *pf_peak_word(pf_peak_id id);
const char *pf_peak_what(pf_peak_id id);

/* The pf_peak_id of what an instruction set's products multiply with; -1: not measured. */
int pf_peak_of(const char *isa, bool integer);

#endif
