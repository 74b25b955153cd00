/* SPDX-License-Identifier: Apache-2.0
 * gemm_s8.h's vocabulary in 512-bit registers: 16 outputs are one. */
#ifndef PF_SIMD_X86_S8_512_H
#define PF_SIMD_X86_S8_512_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "int8 products in 512-bit registers need the flags of AVX512_CFLAGS"
#endif
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define S8_H       1 /* registers of 16 outputs */
#define S8_KEEP(x) __asm__("" : "+v"(x))

typedef __m512i vi;
typedef __m512 vf;

static inline vi vi_zero(void) {
  return _mm512_setzero_si512();
}
static inline vi vi_load(const void *p) {
  return _mm512_loadu_si512(p);
}
static inline void vi_store(void *p, vi a) {
  _mm512_storeu_si512(p, a);
}
static inline vi vi_sub(vi a, vi b) {
  return _mm512_sub_epi32(a, b);
}
static inline vi vi_add(vi a, vi b) {
  return _mm512_add_epi32(a, b);
}
#define vi_shl(a, n) _mm512_slli_epi32(a, n)
/* The same four bytes in every lane. */
static inline vi vi_every(const void *p) {
  int32_t v;
  memcpy(&v, p, sizeof v);
  return _mm512_set1_epi32(v);
}
/* Bytes 0 and 2 of each lane as int16, bytes 1 and 3 of each lane. */
static inline vi vi_even(vi a) {
  return _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8);
}
static inline vi vi_odd(vi a) {
  return _mm512_srai_epi16(a, 8);
}
static inline vi vi_madd(vi a, vi b) {
  return _mm512_madd_epi16(a, b);
}

static inline vf vf_zero(void) {
  return _mm512_setzero_ps();
}
static inline vf vf_set1(float x) {
  return _mm512_set1_ps(x);
}
static inline vf vf_load(const float *p) {
  return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf a) {
  _mm512_storeu_ps(p, a);
}
static inline vf vf_add(vf a, vf b) {
  return _mm512_add_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
  return _mm512_mul_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) {
  return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_of(vi a) {
  return _mm512_cvtepi32_ps(a);
}

/* ---- quantisation: 16 values at a time --------------------------------------------------------
 */

typedef __m512 s8_16;

/* n values, +0 after them. */
static inline s8_16 s8_load(const float *x, size_t n) {
  return n < 16 ? _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x) : _mm512_loadu_ps(x);
}

typedef __m512i s8_top;
/* The larger of top and the magnitudes' bits. */
static inline s8_top s8_larger(s8_top top, s8_16 x) {
  __m512i abs = _mm512_set1_epi32(0x7fffffff);
  return _mm512_max_epi32(top, _mm512_and_si512(_mm512_castps_si512(x), abs));
}
static inline uint32_t s8_largest(s8_top top) {
  return (uint32_t)_mm512_reduce_max_epi32(top);
}

/* The integers nearest to x / scale as int16 in order. */
static inline __m256i s8_nearest(s8_16 x, float scale) {
  return _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_div_ps(x, _mm512_set1_ps(scale))));
}
static inline __m128i s8_bytes(__m256i q) {
  return _mm256_cvtepi16_epi8(q);
}

#endif
