/* SPDX-License-Identifier: Apache-2.0
 * The operation that makes the values of a hook point (analysis/ops.def). */
#ifndef PF_ANALYSIS_OPS_H
#define PF_ANALYSIS_OPS_H

#include <stdbool.h>

#include "analysis/snapshot.h"

enum { PF_OP_PARTS = 4 };

typedef struct pf_operation {
  size_t n_kernels, n_operands, n_weights;
  char kernel[PF_OP_PARTS][32];  /* names of operations of pf_kernels, in order */
  char operand[PF_OP_PARTS][96]; /* hook points; layer 0 reads the embedding */
  char weight[PF_OP_PARTS][128]; /* tensors that the model has */
} pf_operation;

/* False when the table has none. m: opened with its checksum, or weights are left out. */
bool pf_operation_of(const pf_model *m, const pf_at *at, pf_operation *out);

#endif
