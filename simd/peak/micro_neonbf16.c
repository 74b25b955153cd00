/* SPDX-License-Identifier: Apache-2.0
 * NEON with bf16: products of the even and of the odd values (BFMLALB, BFMLALT), 4 an instruction.
 */
#include <arm_neon.h>

#include "simd/peak/micro.h"

#define STEP_BFMLAL(i) c##i = (i) % 2 ? vbfmlaltq_f32(c##i, a, b) : vbfmlalbq_f32(c##i, a, b);
double pf_micro_bfmlal_neonbf16(size_t n) {
  typedef float32x4_t acc_t;
  bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3f81)), b = a;
  acc_t first = vdupq_n_f32(0);
  PF_CHAINS(PF_X24, n, STEP_BFMLAL)
  return 24.0 * 4 * 2 * (double)n;
}
