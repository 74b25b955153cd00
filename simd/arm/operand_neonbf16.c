/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands" as gemm_neonbf16.c reads them: bf16 values, [block of 32][part][32].
 * Rounding is in integers: bfcvt would flush denormals. */
#include "simd/vec/bf16.h"

/* The upper halves of 16 values that are bf16. */
static inline void put(uint16_t *to, v16 x) {
  i16 u = i_bits(x);
  vst1q_u16(to, vuzp2q_u16(vreinterpretq_u16_u32(u.a), vreinterpretq_u16_u32(u.b)));
  vst1q_u16(to + 8, vuzp2q_u16(vreinterpretq_u16_u32(u.c), vreinterpretq_u16_u32(u.d)));
}

void pf_operand_x3_bf16_neonbf16(size_t row, size_t k, size_t kp, const float *x, void *a) {
  uint16_t *at = (uint16_t *)a + row * 3 * kp;
  v16 p[3];
  for (size_t i = 0; i < kp; i += PF_LANES) { /* kp is a multiple of 32 */
    uint16_t *to = at + i / PF_KBLK * 3 * PF_KBLK + i % PF_KBLK;
    v_split_bf16(v_load_k(k, x, i), p);
    put(to, p[0]);
    put(to + PF_KBLK, p[1]);
    put(to + 2 * PF_KBLK, p[2]);
  }
}

void pf_operand_bf16_neonbf16(size_t row, size_t k, size_t kp, const float *x, void *a) {
  uint16_t *at = (uint16_t *)a + row * kp;
  for (size_t i = 0; i < kp; i += PF_LANES)
    put(at + i, v_round_bf16(v_load_k(k, x, i)));
}
