/* SPDX-License-Identifier: Apache-2.0
 * The kernels of kernels.def as prototypes and as a table. */
#ifndef PF_SIMD_KERNELS_H
#define PF_SIMD_KERNELS_H

#include "config.h"
#include "base/mem.h"
#include "simd/cpu.h"
#include "simd/simd.h"

#define PF_KERNEL(op, isa, symbol, features) __typeof__(*((pf_simd *)0)->op) symbol;
#include "simd/kernels.def"
#undef PF_KERNEL

/* PF_ISA(name, level, features): the instruction sets that PERSONAFLOW_ISA may name. A cap allows
 * its own level and those below. */
#define PF_ISAS(F)                                                                                 \
  F(scalar, 0, 0)                                                                                  \
  F(avx2, 1, PF_CPU_LEVEL_AVX2)                                                                    \
  F(avxvnni, 2, PF_CPU_LEVEL_AVX2 | PF_CPU_AVXVNNI)                                                \
  F(avx512, 3, PF_CPU_LEVEL_AVX512)                                                                \
  F(avx512vnni, 4, PF_CPU_LEVEL_AVX512 | PF_CPU_AVX512VNNI)                                        \
  F(amx, 5, PF_CPU_LEVEL_AMX)                                                                      \
  F(neon, 1, PF_CPU_NEON)                                                                          \
  F(neondot, 2, PF_CPU_NEON | PF_CPU_DOTPROD)                                                      \
  F(neoni8mm, 3, PF_CPU_NEON | PF_CPU_DOTPROD | PF_CPU_I8MM)                                       \
  F(neonbf16, 4, PF_CPU_NEON | PF_CPU_DOTPROD | PF_CPU_I8MM | PF_CPU_BF16)

/* n things in the fewest parts of at most `most`, dealt evenly: the size of the first part. */
static inline size_t pf_even_part(size_t n, size_t most) {
  size_t parts = (n + most - 1) / most;
  return (n + parts - 1) / parts;
}

/* The same in multiples of `unit`, as `most` is one. */
static inline size_t pf_even_units(size_t n, size_t most, size_t unit) {
  return pf_round_up(pf_even_part(n, most), unit);
}

/* A function whose arguments become constants where it is called. */
#define PF_INLINE static inline __attribute__((always_inline))

/* Weights that few rows read as streams are fetched ahead into the second-level cache: bytes of
 * each stream. One that passes quickly (one of many, few lines over it) wants little, of fp32 twice
 * that. Measured (doc/KERNELS.md). */
#define PF_QUICK(streams, lines, bytes)                                                            \
  ((streams) > 2 || (lines) == 1 || ((bytes) > 2 && (streams) > 1))
#define PF_AHEAD(streams, lines, bytes)                                                            \
  ((size_t)(!PF_QUICK(streams, lines, bytes) ? 8192 / (streams) : (bytes) > 2 ? 2048 : 1024))
#define PF_FETCH_L2(p) __builtin_prefetch((p), 0, 2)

/* Before a loop with a constant count: indices become constants, arrays registers. */
#if defined(__clang__)
#define PF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PF_UNROLL _Pragma("GCC unroll 24")
#endif

typedef struct pf_kernel {
  const char *op, *isa, *symbol;
  uint32_t features;
  size_t slot; /* offset of the pointer in pf_simd */
  void (*fn)(void);
} pf_kernel;

/* Every line of kernels.def in its order. */
const pf_kernel *pf_kernel_table(size_t *n);
/* Puts the kernel in its slot. */
void pf_kernel_install(pf_simd *s, const pf_kernel *k);
/* The kernels that pf_simd_init(out, cap) takes: chosen[i] belongs to slot i. */
#define PF_N_OPS (sizeof(pf_simd) / sizeof(void (*)(void)))
int pf_kernel_choose(const pf_kernel *chosen[PF_N_OPS], const char *cap);
/* Names of the instruction sets that this build and this CPU have, in the order of PF_ISAS; their
 * number. */
enum { PF_MAX_ISAS = 16 };
size_t pf_isa_names(const char *names[PF_MAX_ISAS]);
/* The cap in force: `cap`, else PERSONAFLOW_ISA, else NULL. */
const char *pf_isa_cap(const char *cap);

#endif
