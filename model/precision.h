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
  size_t size; /* bytes of an operand's element, all its parts */
  void (*operand)(const pf_simd *f, const pf_mat *w, size_t row, const float *x, void *a);
  void (*gemm)(const pf_simd *f, const pf_gemm *g);
} pf_product_ops;

/* How K and V are held, and what multiplies them. bf16 for precisions that round q, k, v and the
 * probabilities: it keeps every bit. */
typedef enum pf_kv_kind { PF_KV_F32, PF_KV_BF16, PF_N_KV } pf_kv_kind;

typedef struct pf_attn_ops {
  const char *names[2]; /* of the operations in simd/kernels.def */
  size_t size;          /* bytes of an element */
  void (*qk)(const pf_simd *f, const pf_attn *a);
  void (*pv)(const pf_simd *f, const pf_attn *a);
} pf_attn_ops;

typedef struct pf_mode {
  uint8_t kind[PF_N_WTYPES]; /* pf_kind of a matrix by its storage */
  pf_wtype floats[3];        /* storage of a product's weights by their dtype BF16, F16, F32 */
  pf_kv_kind kv;
  bool round_weights; /* biases, norms and embeddings are rounded to bf16 when loaded too */
  bool inner;         /* values between hook points are rounded too, as doc/BF16_HF.md says */
  /* Bit 1 << pf_arch: values are rounded to bf16 before and after the point's actions. */
  uint8_t rounds[PF_N_HOOKS];
} pf_mode;

extern const pf_mode pf_modes[PF_N_PRECISIONS]; /* [PF_PRECISION_AUTO] is empty */
extern const pf_product_ops pf_products[PF_N_KINDS];
extern const pf_attn_ops pf_attns[PF_N_KV];

#endif
