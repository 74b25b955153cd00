/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Environment": the contraction canary with this library's flags. */
#include "simd/vec/v16.h"

#include "simd/canary.h"

int PF_FN(canary)(const volatile float *abc) {
  return pf_two_roundings(abc);
}
