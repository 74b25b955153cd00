/* SPDX-License-Identifier: Apache-2.0
 * The products of bf16 operands with bfmlalb and bfmlalt. */
#include "simd/arm/bf16.h"

PF_TILES_3(x3, 0)
PF_TILES_1(bf16, 0)

void pf_gemm_x3_bf16_neonbf16(const pf_gemm *g) {
  pf_tiles(g, x3_tiles, 3, 1);
}

void pf_gemm_bf16_neonbf16(const pf_gemm *g) {
  pf_tiles(g, bf16_tiles, 8, 1);
}
