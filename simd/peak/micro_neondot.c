/* SPDX-License-Identifier: Apache-2.0
 * NEON with dot products: four 8-bit products and their sum in each of 4 lanes. */
#include <arm_neon.h>

#include "simd/peak/micro.h"

#define STEP_SDOT(i) c##i = vdotq_s32(c##i, a, b);
double pf_micro_sdot_neondot(size_t n) {
  typedef int32x4_t acc_t;
  int8x16_t a = vdupq_n_s8(127), b = vdupq_n_s8(-113);
  acc_t first = vdupq_n_s32(0);
  PF_CHAINS(PF_X24, n, STEP_SDOT)
  return 24.0 * 16 * 2 * (double)n;
}
