/* SPDX-License-Identifier: Apache-2.0
 * What the scalar reference shares: an exact fp32 fma for CPUs without one, and the fp32 elementary
 * functions, one line per rounding. */
#ifndef PF_SIMD_REF_H
#define PF_SIMD_REF_H

#include <stddef.h>
#include <stdint.h>
#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <xmmintrin.h>
#endif

#include "base/bf16.h"
#include "simd/consts.h"
#include "simd/kernels.h"
#include "simd/simd.h"

#define PF_INF pf_f32_of_bits(0x7f800000u)
#define PF_NAN pf_f32_of_bits(0x7fc00000u)

/* fma(a, b, c) with one rounding. Without an instruction: a*b is exact in fp64, s = fl64(ab + c).
 * Rounding s to fp32 rounds ab + c, unless s is a midpoint of two fp32 numbers that the rounding to
 * fp64 has moved to; then s is first made round-to-odd: its last bit odd, on the side of the error
 * e (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers
 * 57, 2008). FTZ and DAZ act in the conversions, after rounding, as in the instruction. */
static inline float rfma(float a, float b, float c) {
#if defined(__aarch64__) || defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  double p = (double)a * (double)b, z = (double)c, s = p + z;
  uint64_t u;
  memcpy(&u, &s, sizeof u);
  if ((u & 0x1fffffffu) != 0x10000000u)
    return (float)s;
  double t = s - p, e = (p - (s - t)) + (z - t);
  if (e > 0 || e < 0)
    u += (e > 0) == (s > 0) ? 1 : (uint64_t)-1; /* a midpoint is even */
  memcpy(&s, &u, sizeof s);
  return (float)s;
#endif
}

/* The instruction by name: the C function would set errno. */
static inline float rroot(float x) {
#if defined(__aarch64__)
  return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0);
#else
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#endif
}

/* e^r - 1 of the reduced argument r = x - k ln2; the low bits of *t hold k. */
static inline float rexp_reduced(float x, float *t) {
  *t = rfma(x, PF_C_LOG2E, PF_C_MAGIC);
  float k = *t - PF_C_MAGIC;
  float r = rfma(k, -PF_C_LN2_HI, x);
  r = rfma(k, -PF_C_LN2_LO, r);
  float q = PF_C_Q5;
  q = rfma(q, r, PF_C_Q4);
  q = rfma(q, r, PF_C_Q3);
  q = rfma(q, r, PF_C_Q2);
  q = rfma(q, r, PF_C_Q1);
  q = rfma(q, r, PF_C_Q0);
  float r2 = r * r;
  return rfma(q, r2, r);
}

static inline float rexp(float x) {
  float t, y = rexp_reduced(x, &t);
  y = y + 1.0f;
  y = pf_f32_of_bits(pf_bits_of_f32(y) + (pf_bits_of_f32(t) << 23));
  if (x < PF_C_EXP_LO)
    return 0.0f;
  if (x > PF_C_EXP_HI)
    return PF_INF;
  return x != x ? PF_NAN : y;
}

/* m = exp(2|x|) - 1 = 2^k (e^r - 1) + (2^k - 1); tanh = sign(x) m / (m + 2). */
static inline float rtanh(float x) {
  float a = pf_f32_of_bits(pf_bits_of_f32(x) & 0x7fffffffu);
  a = a > PF_C_TANH_MAX ? PF_C_TANH_MAX : a;
  a = a + a;
  float t, y = rexp_reduced(a, &t);
  float p = pf_f32_of_bits(0x3f800000u + (pf_bits_of_f32(t) << 23));
  float p1 = p - 1.0f;
  float m = rfma(y, p, p1);
  float d = m + 2.0f;
  m = m / d;
  if (x != x)
    return PF_NAN;
  return pf_f32_of_bits(pf_bits_of_f32(m) | (pf_bits_of_f32(x) & 0x80000000u));
}

/* 1/(1 + exp(-x)); +0 below the limit of exp. */
static inline float rsigmoid(float x) {
  float y = 1.0f / (1.0f + rexp(-x));
  return x < PF_C_EXP_LO ? 0.0f : y;
}

/* Sum of 16 lanes: l^8, l^4, l^2, l^1. */
static inline float rtree(float v[PF_LANES]) {
  for (int h = PF_LANES / 2; h; h /= 2)
    for (int l = 0; l < h; l++)
      v[l] = v[l] + v[l + h];
  return v[0];
}

static inline double rtree_d(double v[PF_LANES]) {
  for (int h = PF_LANES / 2; h; h /= 2)
    for (int l = 0; l < h; l++)
      v[l] = v[l] + v[l + h];
  return v[0];
}

#endif
