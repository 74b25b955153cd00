/* SPDX-License-Identifier: Apache-2.0
 * Repacking of weights. Both panel layouts are a transposition of 4-byte words (an fp32 value, or a
 * pair of bf16 values along k): word (row, w) of a row-major tensor goes to panel[row / 16][w][row
 * % 16]. */
#include "model/pack.h"

#include <string.h>

#include "base/bf16.h"
#include "base/mem.h"

void pf_mat_shape(pf_mat *m, pf_dtype dt, size_t n, size_t k) {
  m->type = dt == PF_DT_BF16 ? PF_W_BF16 : PF_W_F32;
  m->n = n;
  m->k = k;
  m->kp = pf_round_up(k, PF_KBLK);
}

static size_t words(const pf_mat *m) { /* of a packed row */
  return m->type == PF_W_BF16 ? m->kp / 2 : m->kp;
}

size_t pf_mat_bytes(const pf_mat *m) {
  return pf_round_up(m->n, PF_LANES) * words(m) * 4;
}

static uint32_t *word_at(const pf_mat *m, size_t row, size_t word) {
  return (uint32_t *)m->w + (row / PF_LANES * words(m) + word) * PF_LANES + row % PF_LANES;
}

static inline uint32_t load32(const unsigned char *p) {
  uint32_t u;
  memcpy(&u, p, sizeof u);
  return u;
}

static inline uint16_t load16(const unsigned char *p) {
  uint16_t u;
  memcpy(&u, p, sizeof u);
  return u;
}

/* One panel: n rows of nw words at src, stride bytes apart, to dst[word*16 + row]; 16 words at a
 * time stay in L1. */
static void transpose(uint32_t *dst, const unsigned char *src, size_t stride, size_t n, size_t nw) {
  for (size_t w0 = 0; w0 < nw; w0 += 16) {
    size_t w1 = w0 + 16 < nw ? w0 + 16 : nw;
    for (size_t r = 0; r < n; r++)
      for (size_t w = w0; w < w1; w++)
        dst[w * PF_LANES + r] = load32(src + r * stride + 4 * w);
  }
}

static void pack_panel(const pf_mat *m, pf_dtype dt, size_t row0, size_t n,
                       const unsigned char *src) {
  uint32_t *dst = word_at(m, row0, 0);
  size_t stride = m->k * pf_dtype_bytes(dt);
  if (dt == PF_DT_F32)
    transpose(dst, src, stride, n, m->k);
  else if (dt == PF_DT_BF16) {
    transpose(dst, src, stride, n, m->k / 2);
    for (size_t r = 0; m->k % 2 && r < n; r++) /* the last value of an odd k has no partner */
      dst[m->k / 2 * PF_LANES + r] = load16(src + r * stride + 2 * (m->k - 1));
  } else
    for (size_t r = 0; r < n; r++)
      for (size_t k = 0; k < m->k; k++)
        dst[k * PF_LANES + r] = pf_bits_of_f32(pf_f16_to_f32(load16(src + r * stride + 2 * k)));
}

void pf_pack_rows(const pf_mat *m, pf_dtype dt, size_t row0, size_t n, const void *src) {
  const unsigned char *p = src;
  size_t panel = PF_LANES * m->k * pf_dtype_bytes(dt);
  for (size_t r = 0; r < n; r += PF_LANES, p += panel)
    pack_panel(m, dt, row0 + r, n - r < PF_LANES ? n - r : PF_LANES, p);
}

static float value(pf_dtype dt, const unsigned char *p) {
  if (dt == PF_DT_F32)
    return pf_f32_of_bits(load32(p));
  return dt == PF_DT_BF16 ? pf_bf16_to_f32(load16(p)) : pf_f16_to_f32(load16(p));
}

void pf_widen(float *dst, pf_dtype dt, size_t n, const void *src) {
  const unsigned char *p = src;
  for (size_t i = 0; i < n; i++, p += pf_dtype_bytes(dt))
    dst[i] = value(dt, p);
}

/* The exponent bits of every value in 8 bytes, and the 1 that carries an all-ones exponent into the
 * sign bit. */
static const struct {
  uint64_t exponent, one, sign;
} bits[] = {[PF_DT_BF16] = {0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000},
            [PF_DT_F16] = {0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000},
            [PF_DT_F32] = {0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000}};

static bool nonfinite(pf_dtype dt, const unsigned char *p, size_t bytes) {
  uint64_t seen = 0, last = 0, e = bits[dt].exponent, one = bits[dt].one;
  size_t whole = bytes / 8 * 8;
  for (size_t i = 0; i < whole; i += 8) {
    uint64_t u;
    memcpy(&u, p + i, 8);
    seen |= (u & e) + one;
  }
  memcpy(&last, p + whole, bytes - whole);
  return ((seen | ((last & e) + one)) & bits[dt].sign) != 0;
}

size_t pf_first_nonfinite(pf_dtype dt, size_t n, const void *src) {
  const unsigned char *p = src;
  size_t i = n, es = pf_dtype_bytes(dt);
  if (nonfinite(dt, p, n * es))
    for (i = 0; i < n && !nonfinite(dt, p + i * es, es); i++)
      ;
  return i;
}

float pf_mat_get(const pf_mat *m, size_t row, size_t col) {
  if (m->type == PF_W_F32)
    return pf_f32_of_bits(*word_at(m, row, col));
  return pf_bf16_to_f32((uint16_t)(*word_at(m, row, col / 2) >> 16 * (col % 2)));
}

void pf_mat_row(const pf_mat *m, size_t row, float *out) {
  for (size_t k = 0; k < m->k; k++)
    out[k] = pf_mat_get(m, row, k);
}
