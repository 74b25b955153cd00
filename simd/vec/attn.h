/* SPDX-License-Identifier: Apache-2.0
 * What kernels of P.V share: lanes of blocks of fp32 and bf16, and the way out when a masked key
 * holds a NaN or an Inf. */
#ifndef PF_VEC_ATTN_H
#define PF_VEC_ATTN_H

#include "simd/vec/v16.h"

/* Bytes of 16 lanes of one k; H: of halves, that is bf16. */
#define PF_STEP(H) ((H) ? 2 * PF_LANES : 4 * PF_LANES)

/* Lanes of k; odd: its parity. */
PF_INLINE v16 lanes_of(const char *w, size_t k, const size_t odd, const int H) {
  if (!H)
    return v_load((const float *)(const void *)w + k * PF_LANES);
  return v_half(w + k / 2 * 4 * PF_LANES, odd);
}

/* Result i of pv once more, without the masked keys. */
static void pv_exact(const pf_attn *a, size_t i, int halves) {
  const float *p = a->s + i * a->lds;
  for (size_t c = 0; c * PF_LANES < a->d; c++) {
    v16 acc = v_zero();
    for (size_t b = 0; b < a->nblk; b++) {
      const char *v = (const char *)a->vblk[b] + c * PF_KBLK * PF_STEP(halves);
      v16 chain[2] = {v_zero(), v_zero()};
      for (size_t j = 0; a->vblk[b] && j < PF_KBLK; j++)
        if (a->mask[i][b] >> j & 1)
          chain[j % 2] =
              v_fma(v_set1(p[PF_KBLK * b + j]), lanes_of(v, j, j % 2, halves), chain[j % 2]);
      acc = v_add(acc, v_add(chain[0], chain[1]));
    }
    size_t left = a->d - c * PF_LANES;
    v_storen(a->y[i] + c * PF_LANES, v_add(acc, v_zero()), left < PF_LANES ? left : PF_LANES);
  }
}

#endif
