/* SPDX-License-Identifier: Apache-2.0
 * The fp32 products with fmla by element; bf16 weights are widened as they are loaded. */
#include "simd/arm/arm.h"

enum { W_BF16, W_F32 };
#define PF_BYTES(kind) ((kind) == W_F32 ? 4 : 2)

typedef float elem;
typedef float32x4_t act;
#define PF_ACT_K 4
typedef struct pair {
  float32x4_t even, odd;
} pair;

PF_INLINE act act_load(const elem *a) {
  return vld1q_f32(a);
}

/* bf16: even k are the low halves of a word, odd k the high halves. */
PF_INLINE pair pair_load(const uint8_t *w, const int kind, const int p, const int v) {
  if (kind == W_F32) {
    const float *f = (const float *)(const void *)w + 32 * p + 4 * v;
    return (pair){vld1q_f32(f), vld1q_f32(f + PF_LANES)};
  }
  uint32x4_t u = vreinterpretq_u32_u8(vld1q_u8(w + 64 * p + 16 * v));
  return (pair){vreinterpretq_f32_u32(vshlq_n_u32(u, 16)),
                vreinterpretq_f32_u32(vandq_u32(u, vdupq_n_u32(0xffff0000u)))};
}

#define PF_EVEN(c, w, x, p) vfmaq_laneq_f32(c, (w).even, x, 2 * (p))
#define PF_ODD(c, w, x, p)  vfmaq_laneq_f32(c, (w).odd, x, 2 * (p) + 1)

#define PF_WIDTH(R) ((R) <= 2 ? 4 : (R) <= 4 ? 2 : 1)

#include "simd/arm/products.h"

PF_TILES_3(x3, W_BF16)
PF_TILES_1(bf16, W_BF16)
PF_TILES_1(f32, W_F32)

void pf_gemm_x3_bf16_neon(const pf_gemm *g) {
  pf_tiles(g, x3_tiles, 3, 1);
}

void pf_gemm_bf16_neon(const pf_gemm *g) {
  pf_tiles(g, bf16_tiles, 8, 1);
}

void pf_gemm_f32_neon(const pf_gemm *g) {
  pf_tiles(g, f32_tiles, 8, 1);
}
