/* SPDX-License-Identifier: Apache-2.0
 * The reading loops with the registers that every CPU of the architecture has. */
#define PF_READ_NAME pf_read_generic
#define PF_READ_VEC  16
#include "simd/peak/micro_read.h"
