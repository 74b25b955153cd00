/* SPDX-License-Identifier: Apache-2.0
 * NEON with 8-bit matrix products: 2 x 8 by 8 x 2. */
#include <arm_neon.h>

#include "simd/peak/micro.h"

#define STEP_SMMLA(i) c##i = vmmlaq_s32(c##i, a, b);
double pf_micro_smmla_neoni8mm(size_t n) {
  typedef int32x4_t acc_t;
  int8x16_t a = vdupq_n_s8(127), b = vdupq_n_s8(-113);
  acc_t first = vdupq_n_s32(0);
  PF_CHAINS(PF_X24, n, STEP_SMMLA)
  return 24.0 * 32 * 2 * (double)n;
}
