/* SPDX-License-Identifier: Apache-2.0
 * The floating-point environment of a compute region: round to nearest even, denormals are zero on
 * input and output (MXCSR FTZ+DAZ on x86, FPCR.FZ on Arm), all exceptions masked. simd/CONTRACT.md,
 * "Environment". */
#ifndef PF_BASE_FPENV_H
#define PF_BASE_FPENV_H

#include <fenv.h>
#include <stdint.h>

/* To a compiler a change of mode has nothing to do with arithmetic: it may compute what stands
 * between enter and leave before the one or after the other. A local value goes through this after
 * pf_fp_enter if it comes from outside, before pf_fp_leave if it is a result; memory that others
 * see needs nothing. */
#define PF_FP_PIN(x) __asm__ __volatile__("" : "+m"(x))

#if defined(__x86_64__)
#include <xmmintrin.h>
static inline uint64_t pf_fp_enter(void) {
  uint64_t saved = _mm_getcsr();
  _mm_setcsr(0x1f80u | 0x8040u);
  return saved;
}
static inline void pf_fp_leave(uint64_t saved) {
  _mm_setcsr((unsigned)saved);
}
#elif defined(__aarch64__)
static inline uint64_t pf_fp_enter(void) {
  uint64_t saved;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved));
  uint64_t fz = UINT64_C(1) << 24;
  __asm__ __volatile__("msr fpcr, %0" : : "r"(fz) : "memory");
  return saved;
}
static inline void pf_fp_leave(uint64_t saved) {
  __asm__ __volatile__("msr fpcr, %0" : : "r"(saved) : "memory");
}
#else
#error "personaflow supports x86-64 and aarch64: the contract needs a flush-to-zero mode"
#endif

/* What reads and writes numbers outside the compute path does so in the mode that a process begins
 * in, the C library's conversions included: up to the end of the block that begins with this, the
 * caller's mode is put aside. Not for arithmetic in the same function (see above). */
static inline fenv_t pf_fp_plain(void) {
  fenv_t saved;
  fegetenv(&saved);
  fesetenv(FE_DFL_ENV);
  return saved;
}
static inline void pf_fp_back(fenv_t *saved) {
  fesetenv(saved);
}
#define PF_FP_PLAIN() fenv_t fp_caller __attribute__((unused, cleanup(pf_fp_back))) = pf_fp_plain()

#endif
