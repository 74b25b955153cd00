/* SPDX-License-Identifier: Apache-2.0
 * Loops that do nothing but one instruction, or nothing but read memory: what a core can do at
 * most. Each file of them is compiled with the flags of its instruction set; machine.c picks those
 * that the CPU has and runs them on all threads. */
#ifndef PF_SIMD_MICRO_H
#define PF_SIMD_MICRO_H

#include <stddef.h>
#include <stdint.h>

/* n rounds over registers only, with enough independent accumulators to hide the latency. Returns
 * the operations done; a multiplication and its addition are two. */
typedef double (*pf_micro_fn)(size_t n);
double pf_micro_fma_avx2(size_t n);
double pf_micro_maddwd_avx2(size_t n);
double pf_micro_fma_avx512(size_t n);
double pf_micro_maddwd_avx512(size_t n);
double pf_micro_dpbusd_avx512vnni(size_t n);
double pf_micro_dpbusd_avxvnni(size_t n);
double pf_micro_bf16_amx(size_t n);
double pf_micro_s8_amx(size_t n);
double pf_micro_fma_neon(size_t n);
double pf_micro_sdot_neondot(size_t n);
double pf_micro_smmla_neoni8mm(size_t n);
double pf_micro_bfmlal_neonbf16(size_t n);

/* How memory is read: side by side from `streams` (1, 2, 4, 8) equal parts, each with a prefetch
 * `ahead` bytes in front (0: none) into the first (near) or the second level of the cache. */
typedef struct pf_read_plan {
  int streams, near;
  size_t ahead;
} pf_read_plan;

/* Reads the n bytes at p, n a multiple of PF_READ_STEP; returns something that depends on all. */
#define PF_READ_STEP 1024
typedef uint64_t (*pf_read_fn)(const char *p, size_t n, const pf_read_plan *plan);
uint64_t pf_read_generic(const char *p, size_t n, const pf_read_plan *plan);
uint64_t pf_read_avx2(const char *p, size_t n, const pf_read_plan *plan);
uint64_t pf_read_avx512(const char *p, size_t n, const pf_read_plan *plan);

/* An empty statement that the compiler takes to change the register variable x, so that equal
 * chains are not merged and nothing moves out of a loop. */
#if defined(__AVX512F__)
#define PF_OPAQUE(x) __asm__ volatile("" : "+v"(x))
#elif defined(__x86_64__)
#define PF_OPAQUE(x) __asm__ volatile("" : "+x"(x))
#else
#define PF_OPAQUE(x) __asm__ volatile("" : "+w"(x))
#endif

/* n rounds of STEP(i) on each accumulator c<i> of the list X. They begin as `first`, of type acc_t,
 * and have names because an array of them would go through memory without optimisation. */
#define PF_CHAINS(X, n, STEP)                                                                      \
  X(PF_CHAIN_BEGIN)                                                                                \
  for (size_t r = 0; r < (n); r++) {                                                               \
    X(STEP)                                                                                        \
  }                                                                                                \
  X(PF_CHAIN_END)
#define PF_CHAIN_BEGIN(i)                                                                          \
  acc_t c##i = first;                                                                              \
  PF_OPAQUE(c##i);
#define PF_CHAIN_END(i) PF_OPAQUE(c##i);
#define PF_X12(F)       F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define PF_X24(F)                                                                                  \
  PF_X12(F)                                                                                        \
  F(12) F(13) F(14) F(15) F(16) F(17) F(18) F(19) F(20) F(21) F(22) F(23)

#endif
