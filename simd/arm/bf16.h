/* SPDX-License-Identifier: Apache-2.0
 * The vocabulary of simd/arm/products.h for bf16 operands: bfmlalb and bfmlalt by element are the
 * contract's even and odd chain as they stand. Each is the fma of the widened values; it keeps
 * FPCR's rounding and flushing, which bfdot and bfmmla do not. */
#ifndef PF_SIMD_ARM_BF16_H
#define PF_SIMD_ARM_BF16_H

#include "simd/arm/arm.h"

#if !defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#error "simd/arm/bf16.h needs the flags of NEONBF16_CFLAGS"
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

/* The upper halves of 16 values that are bf16. */
PF_INLINE void put_halves(elem *to, v16 x) {
  i16 u = i_bits(x);
  vst1q_u16(to, vuzp2q_u16(vreinterpretq_u16_u32(u.a), vreinterpretq_u16_u32(u.b)));
  vst1q_u16(to + 8, vuzp2q_u16(vreinterpretq_u16_u32(u.c), vreinterpretq_u16_u32(u.d)));
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

#endif
