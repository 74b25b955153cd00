/* SPDX-License-Identifier: Apache-2.0
 * Elementary functions in fp64 by fixed sequences of + - * / (no fma, no libm): the same bits on
 * every machine and with every compiler, with or without flush-to-zero. The worst errors stand in
 * simd/CONTRACT.md and are asserted by tests/check_math.c. */
#ifndef PF_BASE_DMATH_H
#define PF_BASE_DMATH_H

#include <stdint.h>

/* exp(x); +0 below -708.396 (no denormal results), +Inf above 709.7827128933, NaN for NaN. */
double pf_dexp(double x);
/* ln(x); -Inf for zero and denormals, NaN for negative x and NaN, +Inf for +Inf. */
double pf_dlog(double x);
/* sin(x), cos(x) for |x| <= 2^23; NaN beyond. */
double pf_dsin(double x);
double pf_dcos(double x);
/* x^y for x > 0 normal and a result in the normal range, through a double-double logarithm and
 * exponential: the correctly rounded value except in near ties beyond 2^-90. */
double pf_dpow(double x, double y);

/* fl32(theta^(-2i/d)), the exponent not rounded on the way. */
float pf_rope_inv_freq(double theta, int i, int d);
/* cos and sin of the angle fl32(pos * inv_freq), computed in fp64 and rounded to fp32. */
void pf_rope_angle(int32_t pos, float inv_freq, float *cos, float *sin);

#endif
