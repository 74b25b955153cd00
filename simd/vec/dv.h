/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "fp64": the 16 fp64 lanes of a row as PF_DN parts of PF_DW in the compiler's own
 * vector type; pf_dexp_seq and pf_dartanh2_seq over one. */
#ifndef PF_VEC_DV_H
#define PF_VEC_DV_H

#include <string.h>

#include "base/dmath_seq.h"

#ifdef PF_VEC_AVX512
#define PF_DW       8
#define PF_D_ALL(x) x, x, x, x, x, x, x, x
#else
#define PF_DW       4
#define PF_D_ALL(x) x, x, x, x
#endif
#define PF_DN (16 / PF_DW)

typedef double dv __attribute__((vector_size(8 * PF_DW)));
typedef int64_t dv_mask __attribute__((vector_size(8 * PF_DW)));
typedef uint64_t dv_bits __attribute__((vector_size(8 * PF_DW)));
typedef float dv_narrow __attribute__((vector_size(4 * PF_DW)));

static inline dv dv_set1(double x) {
  return (dv){PF_D_ALL(x)};
}

/* PF_DW floats, widened. */
static inline dv dv_widen(const float *x) {
  dv_narrow f;
  memcpy(&f, x, sizeof f);
  return __builtin_convertvector(f, dv);
}

/* m ? yes : no, lane by lane; m is 0 or -1. */
static inline dv dv_select(dv_mask m, dv yes, dv no) {
  return (dv)(((dv_mask)yes & m) | ((dv_mask)no & ~m));
}

static inline dv dv_exp(dv x) {
  dv t = x * dv_set1(PF_D_LOG2E) + dv_set1(PF_D_MAGIC);
  dv k = t - dv_set1(PF_D_MAGIC);
  dv r = (x - k * dv_set1(PF_D_LN2_HI)) - k * dv_set1(PF_D_LN2_LO);
  static const double c[] = {PF_D_EXP_TAYLOR};
  dv q = dv_set1(c[0]);
  for (size_t i = 1; i < sizeof c / sizeof *c; i++)
    q = q * r + dv_set1(c[i]);
  dv y = dv_set1(1.0) + (r + (r * r) * q);
  y = (dv)((dv_bits)y + ((dv_bits)t << 52));
  y = dv_select(x < dv_set1(PF_D_EXP_LO), dv_set1(0.0), y);
  y = dv_select(x > dv_set1(PF_D_EXP_HI), dv_set1(__builtin_inf()), y);
  return dv_select(x != x, x, y);
}

static inline dv dv_artanh2(dv z) {
  static const double c[] = {PF_D_ARTANH_SERIES};
  dv s = z * z, q = dv_set1(c[0]);
  for (size_t i = 1; i < sizeof c / sizeof *c; i++)
    q = q * s + dv_set1(c[i]);
  return dv_set1(2.0) * z + z * (s * q);
}

#endif
