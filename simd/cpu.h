/* SPDX-License-Identifier: Apache-2.0
 * What this CPU and this operating system offer. */
#ifndef PF_SIMD_CPU_H
#define PF_SIMD_CPU_H

#include <stddef.h>
#include <stdint.h>

/* PF_FEATURE(macro suffix, bit, word): a feature counts only if the operating system saves its
 * registers. */
#define PF_FEATURES(F)                                                                             \
  F(AVX2, 0, "avx2")                                                                               \
  F(FMA, 1, "fma")                                                                                 \
  F(F16C, 2, "f16c")                                                                               \
  F(AVX512F, 3, "avx512f")                                                                         \
  F(AVX512BW, 4, "avx512bw")                                                                       \
  F(AVX512DQ, 5, "avx512dq")                                                                       \
  F(AVX512VL, 6, "avx512vl")                                                                       \
  F(AVX512VNNI, 7, "avx512_vnni")                                                                  \
  F(AVX512BF16, 8, "avx512_bf16")                                                                  \
  F(AVXVNNI, 9, "avx_vnni")                                                                        \
  F(AMXTILE, 10, "amx_tile")                                                                       \
  F(AMXBF16, 11, "amx_bf16")                                                                       \
  F(AMXINT8, 12, "amx_int8")                                                                       \
  F(NEON, 16, "neon")                                                                              \
  F(DOTPROD, 17, "dotprod")                                                                        \
  F(I8MM, 18, "i8mm")                                                                              \
  F(BF16, 19, "bf16")

enum {
#define PF_FEATURE(name, bit, word) PF_CPU_##name = 1u << bit,
  PF_FEATURES(PF_FEATURE)
#undef PF_FEATURE
};

/* What the flags of the x86 kernel libraries let the compiler use. */
#define PF_CPU_LEVEL_AVX2 (PF_CPU_AVX2 | PF_CPU_FMA | PF_CPU_F16C)
#define PF_CPU_LEVEL_AVX512                                                                        \
  (PF_CPU_LEVEL_AVX2 | PF_CPU_AVX512F | PF_CPU_AVX512BW | PF_CPU_AVX512DQ | PF_CPU_AVX512VL)
#define PF_CPU_LEVEL_AMX                                                                           \
  (PF_CPU_LEVEL_AVX512 | PF_CPU_AVX512VNNI | PF_CPU_AMXTILE | PF_CPU_AMXBF16 | PF_CPU_AMXINT8)

/* All bits, detected once. */
uint32_t pf_cpu_bits(void);
/* The words of `bits`, separated by spaces, into buf. */
void pf_cpu_words(uint32_t bits, char *buf, size_t size);
/* "AMD EPYC", "unknown CPU"; never NULL. */
const char *pf_cpu_brand(void);

/* Per architecture (x86/cpu_x86.c, arm/cpu_arm.c): detection, and the name into buf ("" when the
 * CPU does not tell). */
uint32_t pf_cpu_detect(void);
void pf_cpu_detect_name(char *buf, size_t size);

#endif
