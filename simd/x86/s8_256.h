/* SPDX-License-Identifier: Apache-2.0
 * gemm_s8.h's vocabulary in 256-bit registers: 16 outputs are two of them, 8 lanes each. */
#ifndef PF_SIMD_X86_S8_256_H
#define PF_SIMD_X86_S8_256_H

#if !defined(__AVX2__) || !defined(__FMA__)
#error "int8 products in 256-bit registers need the flags of AVX2_CFLAGS"
#endif
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define S8_H       2 /* registers of 16 outputs */
#define S8_KEEP(x) __asm__("" : "+x"(x))

typedef __m256i vi;
typedef __m256 vf;

static inline vi vi_zero(void) {
  return _mm256_setzero_si256();
}
static inline vi vi_load(const void *p) {
  return _mm256_loadu_si256((const __m256i *)p);
}
static inline void vi_store(void *p, vi a) {
  _mm256_storeu_si256((__m256i *)p, a);
}
static inline vi vi_sub(vi a, vi b) {
  return _mm256_sub_epi32(a, b);
}
static inline vi vi_add(vi a, vi b) {
  return _mm256_add_epi32(a, b);
}
#define vi_shl(a, n) _mm256_slli_epi32(a, n)
/* The same four bytes in every lane. */
static inline vi vi_every(const void *p) {
  int32_t v;
  memcpy(&v, p, sizeof v);
  return _mm256_set1_epi32(v);
}
/* Bytes 0 and 2 of each lane as int16, bytes 1 and 3 of each lane. */
static inline vi vi_even(vi a) {
  return _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8);
}
static inline vi vi_odd(vi a) {
  return _mm256_srai_epi16(a, 8);
}
static inline vi vi_madd(vi a, vi b) {
  return _mm256_madd_epi16(a, b);
}

static inline vf vf_zero(void) {
  return _mm256_setzero_ps();
}
static inline vf vf_set1(float x) {
  return _mm256_set1_ps(x);
}
static inline vf vf_load(const float *p) {
  return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf a) {
  _mm256_storeu_ps(p, a);
}
static inline vf vf_add(vf a, vf b) {
  return _mm256_add_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
  return _mm256_mul_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) {
  return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_of(vi a) {
  return _mm256_cvtepi32_ps(a);
}

/* ---- quantisation: 16 values at a time --------------------------------------------------------
 */

typedef struct s8_16 {
  __m256 a, b;
} s8_16;

/* n < 16 values, +0 after them: through memory, as emulators read what vmaskmov masks out. */
static inline s8_16 s8_load(const float *x, size_t n) {
  float t[16] = {0};
  if (n < 16)
    memcpy(t, x, n * sizeof *x);
  const float *p = n < 16 ? t : x;
  return (s8_16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

typedef __m256i s8_top;
/* The larger of top and the magnitudes' bits. */
static inline s8_top s8_larger(s8_top top, s8_16 x) {
  __m256i abs = _mm256_set1_epi32(0x7fffffff);
  top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(x.a), abs));
  return _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(x.b), abs));
}
static inline uint32_t s8_largest(s8_top top) {
  uint32_t t[8], most = 0;
  vi_store(t, top);
  for (int i = 0; i < 8; i++)
    most = t[i] > most ? t[i] : most;
  return most;
}

/* The integers nearest to x / scale as int16 in order. */
static inline __m256i s8_nearest(s8_16 x, float scale) {
  __m256 s = _mm256_set1_ps(scale);
  __m256i a = _mm256_cvtps_epi32(_mm256_div_ps(x.a, s));
  __m256i b = _mm256_cvtps_epi32(_mm256_div_ps(x.b, s));
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}
static inline __m128i s8_bytes(__m256i q) {
  return _mm_packs_epi16(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
}

#endif
