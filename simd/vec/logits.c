/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "finite, argmax" and "fp64": 16 fp64 lanes are arrays, the compiler chooses the
 * registers. */
#include "simd/vec/dv.h"
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

/* 16 values from x[i]: where they stand, or in `pad` with those from n on -Inf. */
static inline const float *lanes_at(const float *x, size_t i, size_t n, float pad[PF_LANES]) {
  if (i + PF_LANES <= n)
    return x + i;
  v_store(pad, load_or_neg_inf(x, i, n));
  return pad;
}

static inline double tree_d(const dv part[PF_DN]) {
  double v[PF_LANES];
  memcpy(v, part, sizeof v);
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
  dv v[PF_DN] = {{0}}, max = dv_set1((double)top);
  for (size_t i = 0; i < n; i += PF_LANES) {
    float pad[PF_LANES];
    const float *at = lanes_at(x, i, n, pad);
    for (int l = 0; l < PF_DN; l++)
      v[l] = v[l] + dv_exp(dv_widen(at + PF_DW * l) - max);
  }
  return (double)top + pf_dlog_seq(tree_d(v));
}

/* Rows that share the exponentials of p in registers. */
enum { KL_ROWS = 4 };

/* m is a constant wherever this is inlined. */
PF_INLINE void kl_rows(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
                       const double *lse_q, double *kl) {
  dv v[KL_ROWS][PF_DN] = {{{0}}}, zero = dv_set1(0.0);
  for (size_t i = 0; i < n; i += PF_LANES) {
    float pad[PF_LANES];
    const float *at = lanes_at(p, i, n, pad);
    dv a[PF_DN], e[PF_DN];
    for (int l = 0; l < PF_DN; l++) {
      a[l] = dv_widen(at + PF_DW * l) - dv_set1(lse_p);
      e[l] = dv_exp(a[l]);
    }
    for (size_t r = 0; r < m; r++) {
      at = lanes_at(q[r], i, n, pad);
      for (int l = 0; l < PF_DN; l++) {
        dv b = dv_widen(at + PF_DW * l) - dv_set1(lse_q[r]);
        v[r][l] = v[r][l] + dv_select(e[l] == zero, zero, e[l] * (a[l] - b));
      }
    }
  }
  for (size_t r = 0; r < m; r++)
    kl[r] = tree_d(v[r]) + 0.0;
}

void PF_FN(kl)(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
               const double *lse_q, double *kl) {
  for (; m >= KL_ROWS; m -= KL_ROWS, q += KL_ROWS, lse_q += KL_ROWS, kl += KL_ROWS)
    kl_rows(n, p, lse_p, KL_ROWS, q, lse_q, kl);
  for (; m > 0; m--, q++, lse_q++, kl++)
    kl_rows(n, p, lse_p, 1, q, lse_q, kl);
}

static inline dv jsd_term(dv hi, dv lo, dv d) {
  dv zero = dv_set1(0.0), z = (hi - lo) / (dv_set1(3.0) * hi + lo), u = dv_artanh2(z);
  dv small = dv_select(lo == zero, zero, lo * (u - d));
  return dv_select(hi == zero, zero, hi * u + small);
}

PF_INLINE void jsd_rows(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
                        const double *lse_q, double *rkl, double *jsd) {
  dv v[KL_ROWS][PF_DN] = {{{0}}}, k[KL_ROWS][PF_DN] = {{{0}}}, zero = dv_set1(0.0);
  for (size_t i = 0; i < n; i += PF_LANES) {
    float pad[PF_LANES];
    const float *at = lanes_at(p, i, n, pad);
    dv a[PF_DN], ea[PF_DN];
    for (int l = 0; l < PF_DN; l++) {
      a[l] = dv_widen(at + PF_DW * l) - dv_set1(lse_p);
      ea[l] = dv_exp(a[l]);
    }
    for (size_t r = 0; r < m; r++) {
      at = lanes_at(q[r], i, n, pad);
      for (int l = 0; l < PF_DN; l++) {
        dv b = dv_widen(at + PF_DW * l) - dv_set1(lse_q[r]), d = a[l] - b, eb = dv_exp(b);
        dv_mask more = ea[l] > eb;
        k[r][l] = k[r][l] + dv_select(eb == zero, zero, eb * (b - a[l]));
        v[r][l] = v[r][l] + jsd_term(dv_select(more, ea[l], eb), dv_select(more, eb, ea[l]),
                                     dv_select(d < zero, zero - d, d));
      }
    }
  }
  for (size_t r = 0; r < m; r++) {
    rkl[r] = tree_d(k[r]) + 0.0;
    jsd[r] = 0.5 * tree_d(v[r]) + 0.0;
  }
}

void PF_FN(jsd)(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
                const double *lse_q, double *rkl, double *jsd) {
  for (; m >= KL_ROWS; m -= KL_ROWS, q += KL_ROWS, lse_q += KL_ROWS, rkl += KL_ROWS, jsd += KL_ROWS)
    jsd_rows(n, p, lse_p, KL_ROWS, q, lse_q, rkl, jsd);
  for (; m > 0; m--, q++, lse_q++, rkl++, jsd++)
    jsd_rows(n, p, lse_p, 1, q, lse_q, rkl, jsd);
}
