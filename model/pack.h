/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint bytes into the kernels' layout (simd/simd.h): panels of 16 outputs, k in pairs for
 * bf16. */
#ifndef PF_MODEL_PACK_H
#define PF_MODEL_PACK_H

#include "model/internal.h"
#include "model/safetensors.h"

/* Sets type, n, k, kp (not w) of a matrix that comes from a tensor of dtype dt. */
void pf_mat_shape(pf_mat *m, pf_dtype dt, size_t n, size_t k);
/* Bytes of its packed form. */
size_t pf_mat_bytes(const pf_mat *m);
/* Packs rows [row0, row0 + n) from src, row-major (n, k) of dtype dt, at any alignment. row0 is a
 * multiple of 16, n too unless these are the last rows. Absent outputs and k >= K are left as they
 * are (zero: the arena is fresh). */
void pf_pack_rows(const pf_mat *m, pf_dtype dt, size_t row0, size_t n, const void *src);
/* n values to fp32, exactly. */
void pf_widen(float *dst, pf_dtype dt, size_t n, const void *src);
/* Index of the first NaN or infinity among n values, n if there is none. */
size_t pf_first_nonfinite(pf_dtype dt, size_t n, const void *src);

static inline size_t pf_dtype_bytes(pf_dtype dt) {
  return dt == PF_DT_F32 ? 4 : 2;
}

#endif
