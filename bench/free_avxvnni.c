/* SPDX-License-Identifier: Apache-2.0
 * bench/free_s8.h by VPDPBUSD of 256 bits: 12 accumulators. */
#include <immintrin.h>

#define FREE_NAME        pf_free_s8_avxvnni
#define FREE_VEC         __m256i
#define FREE_ROWS        6
#define FREE_PANELS      1
#define FREE_PARTS       2
#define FREE_DP          _mm256_dpbusd_avx_epi32
#define FREE_SET1        _mm256_set1_epi32
#define FREE_ZERO        _mm256_setzero_si256()
#define FREE_LOAD(p)     _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define FREE_STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#include "bench/free_s8.h"
