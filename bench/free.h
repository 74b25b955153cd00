/* SPDX-License-Identifier: Apache-2.0
 * Products in whatever order is fastest, to measure what the contract's order costs. They read the
 * weights that the kernels read; only int8 scales differ: one for each row and output, applied once
 * at the end. Nothing ships them. */
#ifndef PF_BENCH_FREE_H
#define PF_BENCH_FREE_H

#include "config.h"
#include "simd/simd.h"

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* As pf_simd's operand_T and gemm_T. Of int8, g->group is kp, at any size. */
typedef void (*pf_free_operand)(size_t row, size_t k, size_t kp, const float *x, void *a);
typedef void (*pf_free_gemm)(const pf_gemm *g);

void pf_free_bf16_amx(const pf_gemm *g);
void pf_free_x3_amx(const pf_gemm *g);
void pf_free_s8_amx(const pf_gemm *g);
void pf_free_operand_bf16_avx512(size_t row, size_t k, size_t kp, const float *x, void *a);
void pf_free_bf16_avx512(const pf_gemm *g);
void pf_free_s8_avx512vnni(const pf_gemm *g);
void pf_free_s8_avxvnni(const pf_gemm *g);

/* Rows of unsigned bytes (q + 128, so that 0 is 128), kp of them and 64 more that begin with the
 * scale. */
void pf_free_operand_u8(size_t row, size_t k, size_t kp, const float *x, void *a);

/* One vector of bf16 weights in the layout of the file, (n, k), read once; any k, no bias. */
void pf_free_file_avx512(size_t n, size_t k, const uint16_t *w, const float *x, float *y);

#endif
