/* SPDX-License-Identifier: Apache-2.0
 * What kernels of attention share: blocks that are seen, lanes of blocks of fp32 and bf16, and the
 * way out when a masked key holds a NaN or an Inf. */
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

/* Blocks of keys that some of the queries see, as many as a pass makes operands of at once. */
enum { PF_LIVE = 64 };
typedef struct pf_live {
  size_t n, at[PF_LIVE];
  const char *blk[PF_LIVE + 1]; /* one more: what is fetched ahead of the last one */
} pf_live;

/* Those of queries i..i+n-1 from block b on; returns the block after them. */
static inline size_t pf_find_live(pf_live *l, const pf_attn *a, size_t i, size_t n,
                                  const void *const *blk, size_t b) {
  for (l->n = 0; b < a->nblk && l->n < PF_LIVE; b++) {
    uint32_t any = 0;
    for (size_t r = 0; r < n; r++)
      any |= a->mask[i + r][b];
    if (!blk[b] || !any)
      continue;
    l->at[l->n] = b;
    l->blk[l->n++] = blk[b];
  }
  l->blk[l->n] = l->n ? l->blk[l->n - 1] : NULL;
  return b;
}

/* Adds +0 to a result; 1 if a value is NaN. */
static inline int pv_finish(size_t d, float *y) {
  m16 bad = m_none();
  size_t j = 0;
  for (; j + PF_LANES <= d; j += PF_LANES) {
    v16 v = v_add(v_load(y + j), v_zero());
    bad = m_or(bad, v_nan(v));
    v_store(y + j, v);
  }
  if (j < d) {
    v16 v = v_add(v_loadn(y + j, d - j), v_zero());
    bad = m_or(bad, v_nan(v));
    v_storen(y + j, v, d - j);
  }
  return m_any(bad);
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
