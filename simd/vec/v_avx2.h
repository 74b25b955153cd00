/* SPDX-License-Identifier: Apache-2.0
 * 16 fp32 lanes as two AVX2 registers. */
#ifndef PF_V_AVX2_H
#define PF_V_AVX2_H

#if !defined(__AVX2__) || !defined(__FMA__)
#error "simd/vec for AVX2 needs the flags of AVX2_CFLAGS"
#endif
#include <immintrin.h>
#include <string.h>

#define PF_FN(op)     pf_##op##_avx2
#define PF_GEMM_LINES 6 /* tile of a product: chains of one parity of 6 lines in 12 registers */
#define PF_GEMM_BOTH  0
#define PF_ATT_PAIRS  3 /* rows of qk and pv up to which even and odd chains run side by side */
#define PF_ATT_PANELS 1

typedef struct v16 {
  __m256 a, b;
} v16;
typedef struct i16 {
  __m256i a, b;
} i16;
typedef v16 m16;
typedef __m256 v8; /* one of the two registers */

#define PF_V2(f, x, y) ((v16){f((x).a, (y).a), f((x).b, (y).b)})
#define PF_I2(f, x, y) ((i16){f((x).a, (y).a), f((x).b, (y).b)})

static inline v16 v_set1(float x) {
  return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
/* In registers of its own: copies of one zero would take the ports of multiply-adds. */
static inline v16 v_fresh_zero(void) {
  v16 x;
  __asm__("vxorps %0, %0, %0" : "=x"(x.a));
  __asm__("vxorps %0, %0, %0" : "=x"(x.b));
  return x;
}
static inline v16 v_load(const float *p) {
  return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline void v_store(float *p, v16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
/* Through memory: vmaskmov would do, but emulators read the lanes that it masks out. */
static inline v16 v_loadn(const float *p, size_t n) {
  float t[16] = {0};
  memcpy(t, p, n * sizeof *p);
  return v_load(t);
}

static inline void v_storen(float *p, v16 x, size_t n) {
  float t[16];
  v_store(t, x);
  memcpy(p, t, n * sizeof *p);
}

static inline v16 v_add(v16 x, v16 y) {
  return PF_V2(_mm256_add_ps, x, y);
}
static inline v16 v_sub(v16 x, v16 y) {
  return PF_V2(_mm256_sub_ps, x, y);
}
static inline v16 v_mul(v16 x, v16 y) {
  return PF_V2(_mm256_mul_ps, x, y);
}
static inline v16 v_div(v16 x, v16 y) {
  return PF_V2(_mm256_div_ps, x, y);
}
static inline v16 v_fma(v16 x, v16 y, v16 z) {
  return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

static inline v8 v8_zero(void) {
  return _mm256_setzero_ps();
}
static inline v8 v8_set1(float x) {
  return _mm256_set1_ps(x);
}
static inline v8 v8_load(const void *p) {
  return _mm256_loadu_ps(p);
}
static inline void v8_store(float *p, v8 x) {
  _mm256_storeu_ps(p, x);
}
/* As v_half: 8 pairs of bf16. */
static inline v8 v8_half(const void *pairs, const int odd) {
  __m256i u = _mm256_loadu_si256(pairs);
  return _mm256_castsi256_ps(odd ? _mm256_and_si256(u, _mm256_set1_epi32((int)0xffff0000u))
                                 : _mm256_slli_epi32(u, 16));
}
static inline v8 v8_fma(v8 x, v8 y, v8 z) {
  return _mm256_fmadd_ps(x, y, z);
}
static inline v8 v8_add(v8 x, v8 y) {
  return _mm256_add_ps(x, y);
}

static inline m16 v_gt(v16 x, v16 y) {
  return (m16){_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
static inline m16 v_nan(v16 x) {
  return (m16){_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)};
}
static inline v16 v_select(m16 m, v16 yes, v16 no) {
  return (v16){_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
static inline m16 m_or(m16 x, m16 y) {
  return PF_V2(_mm256_or_ps, x, y);
}
static inline m16 m_none(void) {
  return v_set1(0);
}
static inline int m_any(m16 m) {
  return (_mm256_movemask_ps(m.a) | _mm256_movemask_ps(m.b)) != 0;
}

static inline i16 i_bits(v16 x) {
  return (i16){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}
static inline v16 v_bits(i16 x) {
  return (v16){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
static inline i16 i_set1(uint32_t x) {
  return (i16){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)};
}
static inline i16 i_load(const void *p) {
  const __m256i *q = (const __m256i *)p;
  return (i16){_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
static inline void i_store(void *p, i16 x) {
  _mm256_storeu_si256((__m256i *)p, x.a);
  _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
static inline i16 i_add(i16 x, i16 y) {
  return PF_I2(_mm256_add_epi32, x, y);
}
static inline i16 i_and(i16 x, i16 y) {
  return PF_I2(_mm256_and_si256, x, y);
}
static inline i16 i_or(i16 x, i16 y) {
  return PF_I2(_mm256_or_si256, x, y);
}
#define i_shl(x, n) ((i16){_mm256_slli_epi32((x).a, n), _mm256_slli_epi32((x).b, n)})
#define i_shr(x, n) ((i16){_mm256_srli_epi32((x).a, n), _mm256_srli_epi32((x).b, n)})
static inline m16 i_gt(i16 x, i16 y) {
  return v_bits(PF_I2(_mm256_cmpgt_epi32, x, y));
} /* signed */
static inline m16 i_eq(i16 x, i16 y) {
  return v_bits(PF_I2(_mm256_cmpeq_epi32, x, y));
}
static inline i16 i_select(m16 m, i16 yes, i16 no) {
  return i_bits(v_select(m, v_bits(yes), v_bits(no)));
}

/* Lane l: bit l of u. */
static inline m16 m_bits(uint32_t u) {
  __m256i x = _mm256_set1_epi32((int)u), a = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128),
          b = _mm256_slli_epi32(a, 8);
  return v_bits((i16){_mm256_cmpeq_epi32(_mm256_and_si256(x, a), a),
                      _mm256_cmpeq_epi32(_mm256_and_si256(x, b), b)});
}

/* The instruction by name: the C function would set errno. */
static inline float v_root(float x) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

#endif
