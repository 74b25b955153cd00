/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "qk", "softmax", "pv". qk: lanes are keys; pv: lanes are dimensions of the head. */
#include "simd/vec/vmath.h"

/* Scores of the 32 keys of one block. */
static inline void qk_block(size_t d, const float *q, const float *keys, v16 scale, float *s) {
  const float *k0 = keys, *k1 = keys + d * PF_LANES;
  v16 acc0 = v_zero(), acc1 = v_zero();
  for (size_t i = 0; i < d;) {
    v16 e0 = v_zero(), e1 = e0, o0 = e0, o1 = e0;
    size_t end = d - i < PF_KBLK ? d : i + PF_KBLK;
    for (; i + 2 <= end; i += 2) {
      v16 a = v_set1(q[i]), b = v_set1(q[i + 1]);
      e0 = v_fma(a, v_load(k0 + i * PF_LANES), e0);
      e1 = v_fma(a, v_load(k1 + i * PF_LANES), e1);
      o0 = v_fma(b, v_load(k0 + (i + 1) * PF_LANES), o0);
      o1 = v_fma(b, v_load(k1 + (i + 1) * PF_LANES), o1);
    }
    if (i < end) {
      v16 a = v_set1(q[i]);
      e0 = v_fma(a, v_load(k0 + i * PF_LANES), e0);
      e1 = v_fma(a, v_load(k1 + i * PF_LANES), e1);
      i++;
    }
    acc0 = v_add(acc0, v_add(e0, o0));
    acc1 = v_add(acc1, v_add(e1, o1));
  }
  v_store(s, v_mul(v_add(acc0, v_zero()), scale));
  v_store(s + PF_LANES, v_mul(v_add(acc1, v_zero()), scale));
}

void PF_FN(qk)(size_t d, const float *q, size_t nblk, const float *const *kblk, float scale,
               float *s) {
  v16 f = v_set1(scale);
  for (size_t b = 0; b < nblk; b++)
    if (kblk[b])
      qk_block(d, q, kblk[b], f, s + PF_KBLK * b);
}

int PF_FN(softmax)(size_t n, float *s) {
  i16 neg_inf = i_set1(PF_BITS_NEGINF);
  v16 max = v_bits(neg_inf), sum = v_zero();
  m16 bad = m_none();
  for (size_t i = 0; i < n; i += PF_LANES) {
    v16 v = v_load(s + i);
    bad = m_or(bad, v_nonfinite(v_select(i_eq(i_bits(v), neg_inf), v_zero(), v)));
    max = v_select(v_gt(v, max), v, max);
  }
  if (m_any(bad))
    return 1;
  float top = v_max(max);
  if (pf_bits_of_f32(top) == PF_BITS_NEGINF) {
    for (size_t i = 0; i < n; i += PF_LANES)
      v_store(s + i, v_zero());
    return 0;
  }
  max = v_set1(top);
  for (size_t i = 0; i < n; i += PF_LANES) {
    v16 e = v_exp(v_sub(v_load(s + i), max));
    v_store(s + i, e);
    sum = v_add(sum, e);
  }
  v16 inv = v_set1(1.0f / v_sum(sum));
  for (size_t i = 0; i < n; i += PF_LANES)
    v_store(s + i, v_mul(v_load(s + i), inv));
  return 0;
}

#define PF_INLINE  static inline __attribute__((always_inline))
#define PF_COLS(F) F(0) F(1) F(2) F(3)

typedef struct pv_args {
  size_t d, dp, nblk;
  const float *p;
  const float *const *vblk;
  const uint32_t *mask;
  float *y;
} pv_args;

/* C groups of 16 dimensions from dimension i. */
PF_INLINE void pv_cols(const pv_args *a, size_t i, const int C) {
  v16 acc[4];
#define PF_INIT(c) acc[c] = v_zero();
  PF_COLS(PF_INIT)
#undef PF_INIT
  for (size_t b = 0; b < a->nblk; b++) {
    if (!a->vblk[b] || !a->mask[b])
      continue;
    v16 e[4], o[4];
#define PF_INIT(c) e[c] = o[c] = v_zero();
    PF_COLS(PF_INIT)
#undef PF_INIT
    const float *v = a->vblk[b] + i, *p = a->p + PF_KBLK * b;
    for (uint32_t j = 0; j < PF_KBLK; j += 2) {
      uint32_t bits = a->mask[b] >> j;
#define PF_KEY(c, chain, key)                                                                      \
  if ((c) < C)                                                                                     \
    chain[c] = v_fma(x, v_load(v + (key)*a->dp + 16 * (c)), chain[c]);
#define PF_EVEN(c) PF_KEY(c, e, j)
#define PF_ODD(c)  PF_KEY(c, o, j + 1)
      if (bits & 1) {
        v16 x = v_set1(p[j]);
        PF_COLS(PF_EVEN)
      }
      if (bits & 2) {
        v16 x = v_set1(p[j + 1]);
        PF_COLS(PF_ODD)
      }
#undef PF_ODD
#undef PF_EVEN
#undef PF_KEY
    }
#define PF_SUM(c) acc[c] = v_add(acc[c], v_add(e[c], o[c]));
    PF_COLS(PF_SUM)
#undef PF_SUM
  }
#define PF_PUT(c)                                                                                  \
  if ((c) < C) {                                                                                   \
    size_t at = i + 16 * (c);                                                                      \
    if (at + PF_LANES <= a->d)                                                                     \
      v_store(a->y + at, v_add(acc[c], v_zero()));                                                 \
    else                                                                                           \
      v_storen(a->y + at, v_add(acc[c], v_zero()), a->d - at);                                     \
  }
  PF_COLS(PF_PUT)
#undef PF_PUT
}

void PF_FN(pv)(size_t d, size_t nblk, const float *p, const float *const *vblk,
               const uint32_t *mask, float *y) {
  pv_args a = {d, (d + PF_LANES - 1) / PF_LANES * PF_LANES, nblk, p, vblk, mask, y};
  size_t i = 0;
  for (; i + 16 * PF_PV_COLS <= a.dp; i += 16 * PF_PV_COLS)
    pv_cols(&a, i, PF_PV_COLS);
  for (; i < a.dp; i += 16)
    pv_cols(&a, i, 1);
}
