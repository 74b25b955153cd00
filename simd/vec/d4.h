/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "fp64": the 16 fp64 lanes of a row as four quads in the compiler's own vector type;
 * pf_dexp_seq over one. */
#ifndef PF_VEC_D4_H
#define PF_VEC_D4_H

#include <string.h>

#include "base/dmath_seq.h"

typedef double d4 __attribute__((vector_size(32)));
typedef int64_t l4 __attribute__((vector_size(32)));
typedef uint64_t u4 __attribute__((vector_size(32)));
typedef float f4 __attribute__((vector_size(16)));

static inline d4 d4_set1(double x) {
  return (d4){x, x, x, x};
}

/* Four floats, widened. */
static inline d4 d4_widen(const float *x) {
  f4 f;
  memcpy(&f, x, sizeof f);
  return __builtin_convertvector(f, d4);
}

/* m ? yes : no, lane by lane; m is 0 or -1. */
static inline d4 d4_select(l4 m, d4 yes, d4 no) {
  return (d4)(((l4)yes & m) | ((l4)no & ~m));
}

static inline d4 d4_exp(d4 x) {
  d4 t = x * d4_set1(PF_D_LOG2E) + d4_set1(PF_D_MAGIC);
  d4 k = t - d4_set1(PF_D_MAGIC);
  d4 r = (x - k * d4_set1(PF_D_LN2_HI)) - k * d4_set1(PF_D_LN2_LO);
  static const double c[] = {PF_D_EXP_TAYLOR};
  d4 q = d4_set1(c[0]);
  for (size_t i = 1; i < sizeof c / sizeof *c; i++)
    q = q * r + d4_set1(c[i]);
  d4 y = d4_set1(1.0) + (r + (r * r) * q);
  y = (d4)((u4)y + ((u4)t << 52));
  y = d4_select(x < d4_set1(PF_D_EXP_LO), d4_set1(0.0), y);
  y = d4_select(x > d4_set1(PF_D_EXP_HI), d4_set1(__builtin_inf()), y);
  return d4_select(x != x, x, y);
}

#endif
