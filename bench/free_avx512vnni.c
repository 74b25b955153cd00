/* SPDX-License-Identifier: Apache-2.0
 * bench/free_s8.h by VPDPBUSD of 512 bits: 24 accumulators. */
#include <immintrin.h>

#define FREE_NAME        pf_free_s8_avx512vnni
#define FREE_VEC         __m512i
#define FREE_ROWS        12
#define FREE_PANELS      2
#define FREE_PARTS       1
#define FREE_DP          _mm512_dpbusd_epi32
#define FREE_SET1        _mm512_set1_epi32
#define FREE_ZERO        _mm512_setzero_si512()
#define FREE_LOAD(p)     _mm512_loadu_si512(p)
#define FREE_STORE(p, v) _mm512_storeu_si512(p, v)
#include "bench/free_s8.h"
