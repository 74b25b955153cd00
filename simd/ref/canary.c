/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Environment": 1 when the compiler kept the two roundings of a*b + c. */
#include "simd/ref/ref.h"

#include "simd/canary.h"

int pf_canary_scalar(const volatile float *abc) {
  return pf_two_roundings(abc);
}
