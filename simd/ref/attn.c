/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "qk", "softmax", "pv". */
#include "simd/ref/ref.h"

/* Dot of q with key `lane` of 16: blocks of 32 over d, the last one shorter (its absent products
 * are +0 * +0). */
static float dot_key(size_t d, const float *q, const float *keys, size_t lane) {
  float acc = 0;
  for (size_t k = 0; k < d; k += PF_KBLK) {
    float e = 0, o = 0;
    for (size_t i = k; i < d && i < k + PF_KBLK; i++) {
      float *chain = i % 2 ? &o : &e;
      *chain = rfma(q[i], keys[i * PF_LANES + lane], *chain);
    }
    acc = acc + (e + o);
  }
  return acc + 0.0f;
}

void pf_qk_scalar(size_t d, const float *q, size_t nblk, const float *const *kblk, float scale,
                  float *s) {
  for (size_t b = 0; b < nblk; b++)
    for (size_t j = 0; kblk[b] && j < PF_KBLK; j++)
      s[PF_KBLK * b + j] =
          dot_key(d, q, kblk[b] + j / PF_LANES * d * PF_LANES, j % PF_LANES) * scale;
}

int pf_softmax_scalar(size_t n, float *s) {
  float max = -PF_INF, sum[PF_LANES] = {0};
  for (size_t j = 0; j < n; j++) {
    uint32_t u = pf_bits_of_f32(s[j]);
    if ((u & 0x7f800000u) == 0x7f800000u && u != 0xff800000u)
      return 1;
    max = s[j] > max ? s[j] : max;
  }
  if (max == -PF_INF) {
    for (size_t j = 0; j < n; j++)
      s[j] = 0.0f;
    return 0;
  }
  for (size_t j = 0; j < n; j++) {
    s[j] = rexp(s[j] - max);
    sum[j % PF_LANES] = sum[j % PF_LANES] + s[j];
  }
  float inv = 1.0f / rtree(sum);
  for (size_t j = 0; j < n; j++)
    s[j] = s[j] * inv;
  return 0;
}

void pf_pv_scalar(size_t d, size_t nblk, const float *p, const float *const *vblk,
                  const uint32_t *mask, float *y) {
  size_t dp = (d + PF_LANES - 1) / PF_LANES * PF_LANES;
  for (size_t i = 0; i < d; i++) {
    float acc = 0;
    for (size_t b = 0; b < nblk; b++) {
      float e = 0, o = 0;
      for (size_t j = 0; vblk[b] && j < PF_KBLK; j++) {
        float *chain = j % 2 ? &o : &e;
        if (mask[b] >> j & 1)
          *chain = rfma(p[PF_KBLK * b + j], vblk[b][j * dp + i], *chain);
      }
      acc = acc + (e + o);
    }
    y[i] = acc + 0.0f;
  }
}
