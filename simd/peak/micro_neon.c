/* SPDX-License-Identifier: Apache-2.0
 * NEON: fp32 fused multiply-add. */
#include <arm_neon.h>

#include "simd/peak/micro.h"

#define STEP_FMA(i) c##i = vfmaq_f32(c##i, a, b);
double pf_micro_fma_neon(size_t n) {
  typedef float32x4_t acc_t;
  acc_t a = vdupq_n_f32(0.999f), b = vdupq_n_f32(1e-3f), first = b;
  PF_CHAINS(PF_X24, n, STEP_FMA)
  return 24.0 * 4 * 2 * (double)n;
}
