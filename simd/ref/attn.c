/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "qk", "softmax", "pv", over blocks of fp32 and of bf16. */
#include "simd/ref/ref.h"

/* Element k of output n of a block, by its layout. */
typedef float (*value_fn)(const void *w, size_t kp, size_t n, size_t k);

static float value_f32(const void *w, size_t kp, size_t n, size_t k) {
  return ((const float *)w)[pf_packed_f32(kp, n, k)];
}

static float value_bf16(const void *w, size_t kp, size_t n, size_t k) {
  return pf_bf16_to_f32(((const uint16_t *)w)[pf_packed_bf16(kp, n, k)]);
}

/* Dot of q with key j: blocks of 32 over d, the last one shorter (its absent products are +0 * +0).
 */
static float dot_key(size_t d, const float *q, const void *keys, size_t kp, size_t j,
                     value_fn value) {
  float acc = 0;
  for (size_t k = 0; k < d; k += PF_KBLK) {
    float e = 0, o = 0;
    for (size_t i = k; i < d && i < k + PF_KBLK; i++) {
      float *chain = i % 2 ? &o : &e;
      *chain = rfma(q[i], value(keys, kp, j, i), *chain);
    }
    acc = acc + (e + o);
  }
  return acc + 0.0f;
}

static void qk(const pf_attn *a, size_t kp, value_fn value) {
  for (size_t i = 0; i < a->nq; i++)
    for (size_t b = 0; b < a->nblk; b++)
      for (size_t j = 0; a->kblk[b] && a->mask[i][b] && j < PF_KBLK; j++)
        a->s[i * a->lds + PF_KBLK * b + j] =
            dot_key(a->d, a->q[i], a->kblk[b], kp, j, value) * a->scale;
}

void pf_qk_scalar(const pf_attn *a) {
  qk(a, a->d, value_f32);
}

void pf_qk_bf16_scalar(const pf_attn *a) {
  qk(a, (a->d + PF_KBLK - 1) / PF_KBLK * PF_KBLK, value_bf16);
}

/* Key j takes part. */
static int seen(const uint32_t *mask, size_t j) {
  return !mask || (mask[j / PF_KBLK] >> j % PF_KBLK & 1);
}

int pf_softmax_scalar(size_t nblk, const uint32_t *mask, float *s) {
  float max = -PF_INF, sum[PF_LANES] = {0};
  size_t n = nblk * PF_KBLK;
  for (size_t j = 0; j < n; j++) {
    uint32_t u = seen(mask, j) ? pf_bits_of_f32(s[j]) : 0xff800000u;
    if ((u & 0x7f800000u) == 0x7f800000u && u != 0xff800000u)
      return 1;
    max = seen(mask, j) && s[j] > max ? s[j] : max;
  }
  for (size_t j = 0; j < n; j++) {
    if (mask && !mask[j / PF_KBLK])
      continue;
    s[j] = seen(mask, j) && max > -PF_INF ? rexp(s[j] - max) : 0.0f;
    sum[j % PF_LANES] = sum[j % PF_LANES] + s[j];
  }
  float inv = 1.0f / rtree(sum);
  for (size_t j = 0; j < n; j++)
    if (max > -PF_INF && (!mask || mask[j / PF_KBLK]))
      s[j] = s[j] * inv;
  return 0;
}

/* Value i of the sum over the keys of query r. */
static float sum_values(const pf_attn *a, size_t r, size_t i, value_fn value) {
  float acc = 0;
  for (size_t b = 0; b < a->nblk; b++) {
    float e = 0, o = 0;
    for (size_t j = 0; a->vblk[b] && j < PF_KBLK; j++) {
      float *chain = j % 2 ? &o : &e, p = a->s[r * a->lds + PF_KBLK * b + j];
      if (seen(a->mask[r], PF_KBLK * b + j))
        *chain = rfma(p, value(a->vblk[b], PF_KBLK, i, j), *chain);
    }
    acc = acc + (e + o);
  }
  return acc + 0.0f;
}

static void pv(const pf_attn *a, value_fn value) {
  for (size_t r = 0; r < a->nq; r++)
    for (size_t i = 0; i < a->d; i++)
      a->y[r][i] = sum_values(a, r, i, value);
}

void pf_pv_scalar(const pf_attn *a) {
  pv(a, value_f32);
}

void pf_pv_bf16_scalar(const pf_attn *a) {
  pv(a, value_bf16);
}
