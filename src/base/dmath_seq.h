/* SPDX-License-Identifier: Apache-2.0
 * The fp64 sequences of exp, log and 2 artanh, inline so that the kernels can run them over 16
 * lanes. simd/CONTRACT.md, "fp64". */
#ifndef PF_BASE_DMATH_SEQ_H
#define PF_BASE_DMATH_SEQ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline double pf_f64_of_bits(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

static inline uint64_t pf_bits_of_f64(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

#define PF_D_LOG2E  0x1.71547652b82fep+0
#define PF_D_LN2_HI 0x1.62e42fefa38p-1 /* 42 bits: k * hi is exact for |k| < 2^11 */
#define PF_D_LN2_LO 0x1.ef35793c7673p-45
#define PF_D_MAGIC  0x1.8p52 /* t = z + magic leaves rint(z) in the low bits of t */

#define PF_D_EXP_LO -708.396
#define PF_D_EXP_HI 709.7827128933
/* 1/13!, 1/12!, ..., 1/2! */
#define PF_D_EXP_TAYLOR                                                                            \
  0x1.6124613a86d09p-33, 0x1.1eed8eff8d898p-29, 0x1.ae64567f544e4p-26, 0x1.27e4fb7789f5cp-22,      \
      0x1.71de3a556c734p-19, 0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-13, 0x1.6c16c16c16c17p-10,  \
      0x1.1111111111111p-7, 0x1.5555555555555p-5, 0x1.5555555555555p-3, 0.5

/* x = k ln2 + r, |r| <= 0.3466; exp(x) = 2^k (1 + (r + r^2 q(r))), q the Taylor series to r^13. */
static inline double pf_dexp_seq(double x) {
  double t = x * PF_D_LOG2E + PF_D_MAGIC;
  double k = t - PF_D_MAGIC;
  double r = (x - k * PF_D_LN2_HI) - k * PF_D_LN2_LO;
  static const double c[] = {PF_D_EXP_TAYLOR};
  double q = c[0];
  for (size_t i = 1; i < sizeof c / sizeof *c; i++)
    q = q * r + c[i];
  double y = 1.0 + (r + (r * r) * q);
  y = pf_f64_of_bits(pf_bits_of_f64(y) + (pf_bits_of_f64(t) << 52));
  y = x < PF_D_EXP_LO ? 0.0 : y;
  y = x > PF_D_EXP_HI ? pf_f64_of_bits(UINT64_C(0x7ff) << 52) : y;
  return x != x ? x : y;
}

/* x = 2^k m, m in [sqrt(1/2), sqrt(2)); f = m - 1, s = f/(2+f), h = f^2/2, R = 2(s^2/3 + s^4/5 +
 * ... + s^20/21); ln m = f - (h - s (h + R)). */
static inline double pf_dlog_seq(double x) {
  uint64_t u = pf_bits_of_f64(x);
  if (x != x || u > UINT64_C(0x8000000000000000) + (UINT64_C(1) << 52))
    return pf_f64_of_bits(UINT64_C(0x7ff8) << 48);
  if ((u & ~(UINT64_C(1) << 63)) < (UINT64_C(1) << 52))
    return pf_f64_of_bits(UINT64_C(0xfff) << 52);
  if (u == UINT64_C(0x7ff) << 52)
    return x;
  int64_t e = (int64_t)((u - UINT64_C(0x3fe6a09e667f3bcd)) + (UINT64_C(1024) << 52)) >> 52;
  e -= 1024;
  double k = (double)e, f = pf_f64_of_bits(u - ((uint64_t)e << 52)) - 1.0;
  double s = f / (2.0 + f), z = s * s, h = 0.5 * f * f;
  double r = 2.0 / 21;
  for (int n = 19; n >= 3; n -= 2)
    r = r * z + 2.0 / n;
  r *= z;
  return k * PF_D_LN2_HI - ((h - (s * (h + r) + k * PF_D_LN2_LO)) - f);
}

/* 2/31, 2/29, ..., 2/3 */
#define PF_D_ARTANH_SERIES                                                                         \
  2.0 / 31, 2.0 / 29, 2.0 / 27, 2.0 / 25, 2.0 / 23, 2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15,        \
      2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3

/* 2 artanh(z), 0 <= z <= 1/3: 2z + z (s q(s)), s = z^2, the series to z^31. */
static inline double pf_dartanh2_seq(double z) {
  static const double c[] = {PF_D_ARTANH_SERIES};
  double s = z * z, q = c[0];
  for (size_t i = 1; i < sizeof c / sizeof *c; i++)
    q = q * s + c[i];
  return 2.0 * z + z * (s * q);
}

#endif
