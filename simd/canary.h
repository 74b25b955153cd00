/* SPDX-License-Identifier: Apache-2.0
 * The contraction canary, compiled into every kernel library with that library's flags. */
#ifndef PF_SIMD_CANARY_H
#define PF_SIMD_CANARY_H

/* 1 when a*b + c, written as one expression, has the bits of a product stored and then added. */
static inline int pf_two_roundings(const volatile float *abc) {
  float a = abc[0], b = abc[1], c = abc[2];
  float once = a * b + c;
  volatile float product = a * b;
  volatile float twice = product + c;
  return once == twice;
}

#endif
