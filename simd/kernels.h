/* SPDX-License-Identifier: Apache-2.0
 * The kernels of kernels.def as prototypes and as a table. */
#ifndef PF_SIMD_KERNELS_H
#define PF_SIMD_KERNELS_H

#include "config.h"
#include "simd/cpu.h"
#include "simd/simd.h"

#define PF_KERNEL(op, isa, symbol, features) __typeof__(*((pf_simd *)0)->op) symbol;
#include "simd/kernels.def"
#undef PF_KERNEL

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
/* The cap in force: `cap`, else PERSONAFLOW_ISA, else NULL. */
const char *pf_isa_cap(const char *cap);

#endif
