/* SPDX-License-Identifier: Apache-2.0
 * Precisions as data: which product a matrix takes part in, and at which points of the pass values
 * are rounded to bf16 (simd/CONTRACT.md, "Precision modes"). */
#ifndef PF_MODEL_PRECISION_H
#define PF_MODEL_PRECISION_H

#include "model/internal.h"
#include "model/tap.h"

typedef enum pf_kind { PF_K_NONE, PF_K_X3_BF16, PF_K_BF16, PF_K_F32, PF_K_S8, PF_N_KINDS } pf_kind;

/* The operands and the product of a kind; parts: of pf_operand_bytes, 0 for PF_K_NONE. */
typedef struct pf_product_ops {
  const char *names[3]; /* of the operations in simd/kernels.def that it alone calls */
  size_t parts;
  void (*operand)(const pf_simd *f, const pf_mat *w, size_t row, const float *x, void *a);
  void (*gemm)(const pf_simd *f, const pf_gemm *g);
} pf_product_ops;

typedef struct pf_mode {
  uint8_t kind[PF_N_WTYPES]; /* pf_kind of a matrix by its storage */
  pf_wtype floats[3];        /* storage of a product's weights by their dtype BF16, F16, F32 */
  bool round_weights;        /* biases, norms and embeddings are rounded to bf16 when loaded too */
  bool inner; /* values between hook points are rounded too, as doc/BF16_HF.md says */
  /* Bit 1 << pf_arch: values are rounded to bf16 before and after the point's actions. */
  uint8_t rounds[PF_N_HOOKS];
} pf_mode;

extern const pf_mode pf_modes[PF_N_PRECISIONS]; /* [PF_PRECISION_AUTO] is empty */
extern const pf_product_ops pf_products[PF_N_KINDS];

#endif
