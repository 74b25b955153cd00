/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "finite, argmax" and "fp64": 16 fp64 lanes are arrays, the compiler chooses the
 * registers. */
#include "simd/vec/d4.h"
#include "simd/vec/v16.h"

/* 16 lanes from x[i], those from n on -Inf. */
static inline v16 load_or_neg_inf(const float *x, size_t i, size_t n) {
  if (i + PF_LANES <= n)
    return v_load(x + i);
  float t[PF_LANES];
  for (size_t l = 0; l < PF_LANES; l++)
    t[l] = i + l < n ? x[i + l] : -__builtin_inff();
  return v_load(t);
}

int PF_FN(finite)(size_t n, const float *x) {
  size_t i = 0;
  m16 bad = m_none();
  for (; i + PF_LANES <= n; i += PF_LANES)
    bad = m_or(bad, v_nonfinite(v_load(x + i)));
  if (i < n)
    bad = m_or(bad, v_nonfinite(v_loadn(x + i, n - i)));
  return !m_any(bad);
}

size_t PF_FN(argmax)(size_t n, const float *x, float *second) {
  v16 best = v_const_bits(PF_BITS_NEGINF), next = best;
  uint32_t lane[PF_LANES], index[PF_LANES];
  float b[PF_LANES], s[PF_LANES];
  for (uint32_t l = 0; l < PF_LANES; l++)
    lane[l] = l;
  i16 at = i_set1(0), here = i_load(lane);
  for (size_t i = 0; i < n; i += PF_LANES, here = i_add(here, i_set1(PF_LANES))) {
    v16 v = load_or_neg_inf(x, i, n);
    m16 m = v_gt(v, best);
    next = v_select(m, best, v_select(v_gt(v, next), v, next));
    best = v_select(m, v, best);
    at = i_select(m, here, at);
  }
  v_store(b, best);
  v_store(s, next);
  i_store(index, at);
  size_t win = 0;
  for (size_t l = 1; l < PF_LANES; l++)
    if (b[l] > b[win] || (b[l] == b[win] && index[l] < index[win]))
      win = l;
  float runner = s[win];
  for (size_t l = 0; l < PF_LANES; l++)
    if (l != win && b[l] > runner)
      runner = b[l];
  *second = runner + 0.0f;
  return index[win];
}

static inline double tree_d(const d4 quad[4]) {
  double v[PF_LANES];
  memcpy(v, quad, sizeof v);
  for (int h = PF_LANES / 2; h; h /= 2)
    for (int l = 0; l < h; l++)
      v[l] = v[l] + v[l + h];
  return v[0];
}

/* The maximum; *nan: an entry is NaN. */
static inline float max_of(size_t n, const float *x, int *nan) {
  v16 max = v_const_bits(PF_BITS_NEGINF);
  m16 bad = m_none();
  for (size_t i = 0; i < n; i += PF_LANES) {
    v16 v = load_or_neg_inf(x, i, n);
    bad = m_or(bad, v_nan(v));
    max = v_select(v_gt(v, max), v, max);
  }
  *nan = m_any(bad);
  return v_max(max);
}

double PF_FN(logsumexp)(size_t n, const float *x) {
  int nan;
  float top = max_of(n, x, &nan);
  if (nan)
    return __builtin_nan("");
  if ((pf_bits_of_f32(top) & PF_BITS_ABS) == PF_BITS_INF)
    return (double)top;
  d4 v[4] = {{0}}, max = d4_set1((double)top);
  for (size_t i = 0; i < n; i += PF_LANES) {
    float t[PF_LANES];
    v_store(t, load_or_neg_inf(x, i, n));
    for (int l = 0; l < 4; l++)
      v[l] = v[l] + d4_exp(d4_widen(t + 4 * l) - max);
  }
  return (double)top + pf_dlog_seq(tree_d(v));
}

double PF_FN(kl)(size_t n, const float *p, double lse_p, const float *q, double lse_q) {
  d4 v[4] = {{0}}, zero = d4_set1(0.0);
  for (size_t i = 0; i < n; i += PF_LANES) {
    float s[PF_LANES], t[PF_LANES];
    v_store(s, load_or_neg_inf(p, i, n));
    v_store(t, load_or_neg_inf(q, i, n));
    for (int l = 0; l < 4; l++) {
      d4 a = d4_widen(s + 4 * l) - d4_set1(lse_p), b = d4_widen(t + 4 * l) - d4_set1(lse_q);
      d4 e = d4_exp(a);
      v[l] = v[l] + d4_select(e == zero, zero, e * (a - b));
    }
  }
  return tree_d(v) + 0.0;
}
