/* SPDX-License-Identifier: Apache-2.0
 * The products of bf16 operands with bfmlalb and bfmlalt by element: the contract's even and odd
 * chain as they stand. Each is the fma of the widened values; it keeps FPCR's rounding and
 * flushing, which bfdot and bfmmla do not. */
#include "simd/arm/arm.h"

#if !defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#error "gemm_neonbf16.c needs the flags of NEONBF16_CFLAGS"
#endif

#define PF_BYTES(kind) 2

typedef uint16_t elem;
typedef bfloat16x8_t act, pair;
#define PF_ACT_K 8

PF_INLINE act act_load(const elem *a) {
  return vreinterpretq_bf16_u16(vld1q_u16(a));
}

PF_INLINE pair pair_load(const uint8_t *w, const int kind, const int p, const int v) {
  (void)kind;
  return vreinterpretq_bf16_u8(vld1q_u8(w + 64 * p + 16 * v));
}

/* The lane form reads its third operand from v0..v15 only, which GCC 12 does not know: its
 * intrinsic stops at the assembler. Hence the instructions by name ("x": those registers). */
#define PF_BFMLAL(instruction, c, w, x, lane)                                                      \
  ({                                                                                               \
    float32x4_t sum_ = c;                                                                          \
    __asm__(instruction " %0.4s, %1.8h, %2.h[" #lane "]" : "+w"(sum_) : "w"(w), "x"(x));           \
    sum_;                                                                                          \
  })
#define PF_EVEN(c, w, x, p) PF_BFMLAL("bfmlalb", c, w, x, 2 * p)
#define PF_ODD(c, w, x, p)  PF_BFMLAL("bfmlalt", c, w, x, 2 * p + 1)
#define PF_WIDTH(R)         ((R) <= 3 ? 4 : (R) <= 5 ? 2 : 1)

#include "simd/arm/products.h"

PF_TILES_3(x3, 0)
PF_TILES_1(bf16, 0)

void pf_gemm_x3_bf16_neonbf16(const pf_gemm *g) {
  pf_tiles(g, x3_tiles, 3, 1);
}

void pf_gemm_bf16_neonbf16(const pf_gemm *g) {
  pf_tiles(g, bf16_tiles, 8, 1);
}
