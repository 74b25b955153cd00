/* SPDX-License-Identifier: Apache-2.0
 * 16 fp32 lanes as one AVX-512 register. */
#ifndef PF_V_AVX512_H
#define PF_V_AVX512_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__FMA__)
#error "simd/vec for AVX-512 needs the flags of AVX512_CFLAGS"
#endif
#include <immintrin.h>

#define PF_FN(op)     pf_##op##_avx512
#define PF_GEMM_LINES 12 /* tile of a product: both chains of 12 lines in 24 registers */
#define PF_GEMM_BOTH  1
#define PF_ATT_PAIRS  4 /* rows of qk and pv up to which even and odd chains run side by side */
#define PF_ATT_PANELS 2

typedef __m512 v16;
typedef __m512i i16;
typedef __mmask16 m16;

static inline v16 v_set1(float x) {
  return _mm512_set1_ps(x);
}
/* In a register of its own: copies of one zero would take the ports of multiply-adds. */
static inline v16 v_fresh_zero(void) {
  v16 x;
  __asm__("vpxord %0, %0, %0" : "=v"(x));
  return x;
}
static inline v16 v_load(const float *p) {
  return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, v16 a) {
  _mm512_storeu_ps(p, a);
}
static inline m16 v_first(size_t n) {
  return (m16)((1u << n) - 1);
}
static inline v16 v_loadn(const float *p, size_t n) {
  return _mm512_maskz_loadu_ps(v_first(n), p);
}
static inline void v_storen(float *p, v16 a, size_t n) {
  _mm512_mask_storeu_ps(p, v_first(n), a);
}

static inline v16 v_add(v16 a, v16 b) {
  return _mm512_add_ps(a, b);
}
static inline v16 v_sub(v16 a, v16 b) {
  return _mm512_sub_ps(a, b);
}
static inline v16 v_mul(v16 a, v16 b) {
  return _mm512_mul_ps(a, b);
}
static inline v16 v_div(v16 a, v16 b) {
  return _mm512_div_ps(a, b);
}
static inline v16 v_fma(v16 a, v16 b, v16 c) {
  return _mm512_fmadd_ps(a, b, c);
}

static inline m16 v_gt(v16 a, v16 b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline m16 v_nan(v16 a) {
  return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
static inline v16 v_select(m16 m, v16 yes, v16 no) {
  return _mm512_mask_blend_ps(m, no, yes);
}
static inline m16 m_or(m16 a, m16 b) {
  return (m16)(a | b);
}
static inline m16 m_none(void) {
  return 0;
}
static inline int m_any(m16 m) {
  return m != 0;
}

static inline i16 i_bits(v16 a) {
  return _mm512_castps_si512(a);
}
static inline v16 v_bits(i16 a) {
  return _mm512_castsi512_ps(a);
}
static inline i16 i_set1(uint32_t x) {
  return _mm512_set1_epi32((int)x);
}
static inline i16 i_load(const void *p) {
  return _mm512_loadu_si512(p);
}
static inline void i_store(void *p, i16 a) {
  _mm512_storeu_si512(p, a);
}
static inline i16 i_add(i16 a, i16 b) {
  return _mm512_add_epi32(a, b);
}
static inline i16 i_and(i16 a, i16 b) {
  return _mm512_and_si512(a, b);
}
static inline i16 i_or(i16 a, i16 b) {
  return _mm512_or_si512(a, b);
}
#define i_shl(a, n) _mm512_slli_epi32(a, n)
#define i_shr(a, n) _mm512_srli_epi32(a, n)
static inline m16 i_gt(i16 a, i16 b) {
  return _mm512_cmpgt_epi32_mask(a, b);
} /* signed */
static inline m16 i_eq(i16 a, i16 b) {
  return _mm512_cmpeq_epi32_mask(a, b);
}
static inline i16 i_select(m16 m, i16 yes, i16 no) {
  return _mm512_mask_blend_epi32(m, no, yes);
}

static inline m16 m_bits(uint32_t u) {
  return (m16)u;
}

/* The instruction by name: the C function would set errno. */
static inline float v_root(float x) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

#endif
