/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint bytes into the kernels' layout (simd/simd.h): panels of 16 outputs, k in pairs for
 * bf16. */
#ifndef PF_MODEL_PACK_H
#define PF_MODEL_PACK_H

#include "model/internal.h"
#include "model/safetensors.h"

/* Sets type, n, k, kp and group (PF_W_S8; else 0), not the pointers. */
void pf_mat_shape(pf_mat *m, pf_wtype type, size_t n, size_t k, size_t group);
/* Bytes of its packed form, a multiple of 64. */
size_t pf_mat_bytes(const pf_mat *m);
/* Of those, what a product reads: weights and scales. */
size_t pf_mat_read_bytes(const pf_mat *m);
/* The pointers: its memory begins at p, 64-byte aligned and all zero. */
void pf_mat_place(pf_mat *m, void *p);

/* Scales of a row of k int8 values: one for each group that k begins. */
static inline size_t pf_s8_scales(size_t k, size_t group) {
  return (k + group - 1) / group;
}

/* Packs rows [row0, row0 + n) from src, row-major (n, k) of dtype dt, at any alignment. row0 is a
 * multiple of 16, n too unless these are the last rows. Absent outputs and k >= K are left as they
 * are (zero: the arena is fresh). PF_W_F32 takes F32 and F16 (widened), PF_W_BF16 takes BF16, and
 * F32 and F16 rounded to nearest even, PF_W_S8 takes I8 (and makes the sums; the scales come by
 * pf_pack_scales). Returns true if it looked (pf_pack_looks) and a value is NaN or infinite. */
bool pf_pack_rows(const pf_mat *m, pf_dtype dt, size_t row0, size_t n, const void *src);
/* True where pf_pack_rows looks for NaN and infinity on its way: values that stay as they are. */
bool pf_pack_looks(const pf_mat *m, pf_dtype dt);
/* The scales of those rows of a PF_W_S8 matrix, row-major (n, groups). */
void pf_pack_scales(const pf_mat *m, size_t row0, size_t n, const void *src);
/* Widens rows of BF16, F16 or F32 and quantises them (simd/CONTRACT.md, quant_s8, for every group
 * of a row) into a PF_W_S8 matrix. wide: k floats, q: 16*kp bytes of scratch. */
void pf_quant_rows(const pf_mat *m, const pf_simd *f, pf_dtype dt, size_t row0, size_t n,
                   const void *src, float *wide, int8_t *q);
/* One row of a PF_W_S8 matrix back: k values and its groups' scales. */
void pf_unpack_s8(const pf_mat *m, size_t row, int8_t *q, float *scales);

/* n values to fp32, exactly. */
void pf_widen(float *dst, pf_dtype dt, size_t n, const void *src);
/* Index of the first NaN or infinity among n values, n if there is none. */
size_t pf_first_nonfinite(pf_dtype dt, size_t n, const void *src);
/* Index of the first fp32 value that rounds to an infinite bf16. */
size_t pf_first_beyond_bf16(size_t n, const void *src);
/* Index of the first int8 value -128, and of the first negative fp32 value: what quantised weights
 * and their scales cannot be. */
size_t pf_first_minus_128(size_t n, const void *src);
size_t pf_first_negative(size_t n, const void *src);

static inline size_t pf_dtype_bytes(pf_dtype dt) {
  return dt == PF_DT_F32 ? 4 : dt == PF_DT_I8 ? 1 : 2;
}

#endif
