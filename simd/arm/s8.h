/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "quant_s8", "operand_s8", "gemm_s8": what the int8 units share. Sums of products are
 * exact integers, so only the scales have an order.
 *
 * Operands are rows (simd/ref/operand.h), or pairs of rows for smmla: [kp/8][row 0, row 1][8]
 * values, then the scales of row 0 and of row 1. */
#ifndef PF_SIMD_ARM_S8_H
#define PF_SIMD_ARM_S8_H

#include "simd/arm/arm.h"
#include "simd/ref/operand.h"

/* Where row i begins: with `paired` 0 its values, else the values of its pair. */
PF_INLINE pf_s8_row s8_row_at(const void *a, size_t i, size_t kp, size_t group, const int paired) {
  if (!paired)
    return pf_s8_row_at(a, i, kp, group);
  size_t groups = pf_s8_groups(kp, group), scales = (2 * groups * sizeof(float) + 63) / 64 * 64;
  int8_t *q = (int8_t *)(uintptr_t)a + i / 2 * (2 * kp + scales);
  return (pf_s8_row){q, (float *)(void *)(q + 2 * kp) + i % 2 * groups};
}

/* max|x| / 127; NaN when a value is not finite: as bits, NaN is above Inf above all numbers. */
PF_INLINE float s8_scale(size_t n, const float *x) {
  uint32x4_t top = vdupq_n_u32(0), abs = vdupq_n_u32(PF_BITS_ABS);
  for (size_t i = 0; i < n; i += PF_LANES) {
    i16 u = i_bits(i + PF_LANES <= n ? v_load(x + i) : v_loadn(x + i, n - i));
    top = vmaxq_u32(top, vmaxq_u32(vandq_u32(u.a, abs), vandq_u32(u.b, abs)));
    top = vmaxq_u32(top, vmaxq_u32(vandq_u32(u.c, abs), vandq_u32(u.d, abs)));
  }
  uint32_t most = vmaxvq_u32(top);
  return most < PF_BITS_INF ? pf_f32_of_bits(most) / 127.0f : pf_f32_of_bits(0x7fc00000u);
}

/* The integers nearest to x / scale, ties to even; 0 without a scale. x: values i.. of n, +0
 * beyond.
 */
PF_INLINE int8x16_t s8_values(size_t n, const float *x, size_t i, float scale) {
  if (!(scale > 0) || i >= n)
    return vdupq_n_s8(0);
  v16 q = v_div(i + PF_LANES <= n ? v_load(x + i) : v_loadn(x + i, n - i), v_set1(scale));
  int16x8_t lo = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(q.a)), vmovn_s32(vcvtnq_s32_f32(q.b)));
  int16x8_t hi = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(q.c)), vmovn_s32(vcvtnq_s32_f32(q.d)));
  return vcombine_s8(vmovn_s16(lo), vmovn_s16(hi));
}

PF_INLINE void s8_operand(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a,
                          const int paired) {
  pf_s8_row to = s8_row_at(a, row, kp, group, paired);
  for (size_t g = 0; g < kp; g += group) {
    size_t end = g + group < kp ? g + group : kp, n = k < end ? k : end;
    float scale = to.scale[g / group] = s8_scale(n - g, x + g);
    for (size_t i = g; i < end; i += PF_LANES) {
      int8x16_t q = s8_values(n, x, i, scale);
      if (paired) {
        vst1_s8(to.q + 2 * i + row % 2 * 8, vget_low_s8(q));
        vst1_s8(to.q + 2 * i + row % 2 * 8 + 16, vget_high_s8(q));
      } else {
        vst1q_s8(to.q + i, q);
      }
    }
  }
}

/* Values of k in [lo, hi): group t of a panel. w: its weights, ws: its scales. */
typedef struct s8_group {
  size_t lo, hi;
  const int8_t *w;
  const float *ws;
} s8_group;

PF_INLINE s8_group s8_group_at(const pf_gemm *g, size_t panel, size_t t) {
  size_t lo = t * g->group, hi = lo + g->group < g->kp ? lo + g->group : g->kp;
  return (s8_group){lo, hi, (const int8_t *)g->w + (panel * g->kp + lo) * PF_LANES,
                    g->ws + (panel * pf_s8_groups(g->kp, g->group) + t) * PF_LANES};
}

/* acc = fma((float)sum, sa * sw, acc) of 4 outputs. */
PF_INLINE float32x4_t s8_add(float32x4_t acc, int32x4_t sum, float sa, const float *sw) {
  return vfmaq_f32(acc, vcvtq_f32_s32(sum), vmulq_f32(vdupq_n_f32(sa), vld1q_f32(sw)));
}

PF_INLINE void s8_put(const pf_gemm *g, size_t i, size_t j, const float32x4_t acc[4]) {
  pf_put(g, i, j, (v16){acc[0], acc[1], acc[2], acc[3]});
}

/* Sums over a group of V vectors of 4 outputs, and of R rows from i on (with pairs: R pairs); w:
 * the weights of the first vector and k. */
typedef void (*s8_sums)(int32x4_t c[][4], const pf_gemm *g, size_t i, s8_group t, const int8_t *w,
                        const int R, const int V);

/* The weights of a group stay in the first-level cache while its outputs are taken V vectors at a
 * time. */
PF_INLINE void s8_tile(const pf_gemm *g, size_t i, size_t j, size_t rows, size_t panels,
                       s8_sums sums, const int R, const int V, const int paired) {
  float32x4_t acc[PF_PANELS][16][4] = {0};
  for (size_t t = 0; t < pf_s8_groups(g->kp, g->group); t++)
    for (size_t p = 0; p < panels; p++) {
      s8_group at = s8_group_at(g, j / PF_LANES + p, t);
      for (size_t v = 0; v < 4; v += (size_t)V) {
        int32x4_t c[16][4];
        sums(c, g, i, at, at.w + 16 * v, R, V);
        for (size_t r = 0; r < rows; r++) {
          float sa = s8_row_at(g->a, i + r, g->kp, g->group, paired).scale[t];
          for (size_t u = v; u < v + (size_t)V; u++)
            acc[p][r][u] = s8_add(acc[p][r][u], c[r][u - v], sa, at.ws + 4 * u);
        }
      }
    }
  for (size_t p = 0; p < panels; p++)
    for (size_t r = 0; r < rows; r++)
      s8_put(g, i + r, j + p * PF_LANES, acc[p][r]);
}

#endif
