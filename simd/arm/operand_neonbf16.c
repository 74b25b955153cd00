/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands" as gemm_neonbf16.c reads them: bf16 values, [block of 32][part][32].
 * Rounding is in integers: bfcvt would flush denormals. */
#include "simd/vec/bf16.h"

#include "simd/arm/bf16.h"

void pf_operand_x3_bf16_neonbf16(size_t row, size_t k, size_t kp, const float *x, void *a) {
  elem *at = (elem *)a + row * 3 * kp;
  v16 p[3];
  for (size_t i = 0; i < kp; i += PF_LANES) { /* kp is a multiple of 32 */
    elem *to = at + i / PF_KBLK * 3 * PF_KBLK + i % PF_KBLK;
    v_split_bf16(v_load_k(k, x, i), p);
    put_halves(to, p[0]);
    put_halves(to + PF_KBLK, p[1]);
    put_halves(to + 2 * PF_KBLK, p[2]);
  }
}

void pf_operand_bf16_neonbf16(size_t row, size_t k, size_t kp, const float *x, void *a) {
  elem *at = (elem *)a + row * kp;
  for (size_t i = 0; i < kp; i += PF_LANES)
    put_halves(at + i, v_round_bf16(v_load_k(k, x, i)));
}
