/* SPDX-License-Identifier: Apache-2.0
 * Repacking of weights. All panel layouts are a transposition of 4-byte words (an fp32 value, a
 * pair of bf16 values, four int8 values along k): word (row, w) of a row-major tensor goes to
 * panel[row / 16][w][row % 16]. */
#include "model/pack.h"

#include <string.h>

#include "base/bf16.h"
#include "base/mem.h"

static const struct {
  size_t bytes, block; /* of a value; kp is a multiple of block */
} types[PF_N_WTYPES] = {
    [PF_W_BF16] = {2, PF_KBLK}, [PF_W_F32] = {4, PF_KBLK}, [PF_W_S8] = {1, PF_S8BLK}};

void pf_mat_shape(pf_mat *m, pf_wtype type, size_t n, size_t k, size_t group) {
  *m = (pf_mat){.type = type, .n = n, .k = k, .kp = pf_round_up(k, types[type].block)};
  m->group = type == PF_W_S8 ? group : 0;
}

static size_t words(const pf_mat *m) { /* of a packed row */
  return m->kp * types[m->type].bytes / 4;
}

static size_t scales_bytes(const pf_mat *m) {
  return pf_round_up(m->n, PF_LANES) * pf_mat_groups(m) * 4;
}

size_t pf_mat_bytes(const pf_mat *m) {
  return pf_round_up(m->n, PF_LANES) * words(m) * 4 + 2 * scales_bytes(m);
}

size_t pf_mat_read_bytes(const pf_mat *m) {
  return pf_mat_bytes(m) - scales_bytes(m);
}

void pf_mat_place(pf_mat *m, void *p) {
  m->w = p;
  if (m->type != PF_W_S8)
    return;
  m->ws = (float *)((char *)p + pf_round_up(m->n, PF_LANES) * words(m) * 4);
  m->wsum = (int32_t *)((char *)m->ws + scales_bytes(m));
}

static uint32_t *word_at(const pf_mat *m, size_t row, size_t word) {
  return (uint32_t *)m->w + (row / PF_LANES * words(m) + word) * PF_LANES + row % PF_LANES;
}

const void *pf_mat_panel(const pf_mat *m, size_t panel) {
  return word_at(m, panel * PF_LANES, 0);
}

/* Place of a row's group in ws and wsum. */
static size_t scale_at(const pf_mat *m, size_t row, size_t g) {
  return (row / PF_LANES * pf_mat_groups(m) + g) * PF_LANES + row % PF_LANES;
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

/* Four words: the width of vectors that every machine has. Compilers that do not see the shuffles
 * as such write them out. */
typedef uint32_t v4 __attribute__((vector_size(16)));

static inline v4 load_v4(const unsigned char *p) {
  v4 v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline void store_v4(uint32_t *p, v4 v) {
  memcpy(p, &v, sizeof v);
}

#define LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
/* 4 rows x 4 words at src to dst[word*16 + row]. */
static inline void transpose_4x4(uint32_t *dst, const unsigned char *src, size_t stride) {
  v4 a = load_v4(src), b = load_v4(src + stride), c = load_v4(src + 2 * stride),
     d = load_v4(src + 3 * stride);
  v4 ac0 = LOW(a, c), ac1 = HIGH(a, c), bd0 = LOW(b, d), bd1 = HIGH(b, d);
  store_v4(dst, LOW(ac0, bd0));
  store_v4(dst + PF_LANES, HIGH(ac0, bd0));
  store_v4(dst + 2 * PF_LANES, LOW(ac1, bd1));
  store_v4(dst + 3 * PF_LANES, HIGH(ac1, bd1));
}
#undef LOW
#undef HIGH
#undef SHUFFLE

/* Words [lo, hi) of rows [r, n) of a panel. */
static void transpose_edge(uint32_t *dst, const unsigned char *src, size_t stride, size_t r,
                           size_t n, size_t lo, size_t hi) {
  for (; r < n; r++)
    for (size_t w = lo; w < hi; w++)
      dst[w * PF_LANES + r] = load32(src + r * stride + 4 * w);
}

/* One panel: n rows of nw words at src, stride bytes apart, to dst[word*16 + row]; 16 words at a
 * time stay in L1. */
static void transpose(uint32_t *dst, const unsigned char *src, size_t stride, size_t n, size_t nw) {
  size_t n4 = n / 4 * 4, nw4 = nw / 4 * 4;
  for (size_t w0 = 0; w0 < nw4; w0 += 16) {
    size_t w1 = w0 + 16 < nw4 ? w0 + 16 : nw4;
    for (size_t r = 0; r < n4; r += 4)
      for (size_t w = w0; w < w1; w += 4)
        transpose_4x4(dst + w * PF_LANES + r, src + r * stride + 4 * w, stride);
  }
  transpose_edge(dst, src, stride, n4, n, 0, nw4);
  transpose_edge(dst, src, stride, 0, n, nw4, nw);
}

static float value(pf_dtype dt, const unsigned char *p) {
  if (dt == PF_DT_F32)
    return pf_f32_of_bits(load32(p));
  return dt == PF_DT_BF16 ? pf_bf16_to_f32(load16(p)) : pf_f16_to_f32(load16(p));
}

/* Rows of values as wide as the panel's: whole words, then what is left of a row. */
static void pack_same(uint32_t *dst, size_t size, size_t k, size_t n, const unsigned char *src) {
  size_t stride = k * size, nw = stride / 4, rest = stride % 4;
  transpose(dst, src, stride, n, nw);
  for (size_t r = 0; rest && r < n; r++)
    memcpy(dst + nw * PF_LANES + r, src + r * stride + 4 * nw, rest);
}

static void pack_widened(uint32_t *dst, pf_dtype dt, size_t k, size_t n, const unsigned char *src) {
  for (size_t r = 0; r < n; r++)
    for (size_t i = 0; i < k; i++, src += pf_dtype_bytes(dt))
      dst[i * PF_LANES + r] = pf_bits_of_f32(value(dt, src));
}

static void pack_rounded(uint32_t *dst, pf_dtype dt, size_t k, size_t n, const unsigned char *src) {
  uint16_t *to = (uint16_t *)dst;
  for (size_t r = 0; r < n; r++)
    for (size_t i = 0; i < k; i++, src += pf_dtype_bytes(dt))
      to[(i / 2 * PF_LANES + r) * 2 + i % 2] = pf_f32_to_bf16(value(dt, src));
}

/* The sums of the groups of one row. */
static void sum_row(const pf_mat *m, size_t row, const int8_t *q) {
  for (size_t g = 0, lo = 0; lo < m->k; g++, lo += m->group) {
    size_t hi = lo + m->group < m->k ? lo + m->group : m->k;
    int32_t sum = 0;
    for (size_t k = lo; k < hi; k++)
      sum += q[k];
    m->wsum[scale_at(m, row, g)] = sum;
  }
}

static void pack_panel(const pf_mat *m, pf_dtype dt, size_t row0, size_t n,
                       const unsigned char *src) {
  uint32_t *dst = word_at(m, row0, 0);
  if (pf_dtype_bytes(dt) == types[m->type].bytes && dt != PF_DT_F16)
    pack_same(dst, types[m->type].bytes, m->k, n, src);
  else if (m->type == PF_W_F32)
    pack_widened(dst, dt, m->k, n, src);
  else
    pack_rounded(dst, dt, m->k, n, src);
  for (size_t r = 0; m->type == PF_W_S8 && r < n; r++)
    sum_row(m, row0 + r, (const int8_t *)src + r * m->k);
}

void pf_pack_rows(const pf_mat *m, pf_dtype dt, size_t row0, size_t n, const void *src) {
  const unsigned char *p = src;
  size_t panel = PF_LANES * m->k * pf_dtype_bytes(dt);
  for (size_t r = 0; r < n; r += PF_LANES, p += panel)
    pack_panel(m, dt, row0 + r, n - r < PF_LANES ? n - r : PF_LANES, p);
}

void pf_pack_scales(const pf_mat *m, size_t row0, size_t n, const void *src) {
  const unsigned char *p = src;
  for (size_t r = 0; r < n; r++)
    for (size_t g = 0; g < pf_mat_groups(m); g++, p += 4)
      m->ws[scale_at(m, row0 + r, g)] = pf_f32_of_bits(load32(p));
}

static void quant_panel(const pf_mat *m, const pf_simd *f, pf_dtype dt, size_t row0, size_t n,
                        const unsigned char *src, float *wide, int8_t *q) {
  for (size_t r = 0; r < n; r++, src += m->k * pf_dtype_bytes(dt)) {
    int8_t *row = q + r * m->kp;
    pf_widen(wide, dt, m->k, src);
    for (size_t g = 0, lo = 0; lo < m->k; g++, lo += m->group)
      m->ws[scale_at(m, row0 + r, g)] =
          f->quant_s8(m->k - lo < m->group ? m->k - lo : m->group, wide + lo, row + lo);
    memset(row + m->k, 0, m->kp - m->k);
    sum_row(m, row0 + r, row);
  }
  transpose(word_at(m, row0, 0), (const unsigned char *)q, m->kp, n, words(m));
}

void pf_quant_rows(const pf_mat *m, const pf_simd *f, pf_dtype dt, size_t row0, size_t n,
                   const void *src, float *wide, int8_t *q) {
  const unsigned char *p = src;
  size_t panel = PF_LANES * m->k * pf_dtype_bytes(dt);
  for (size_t r = 0; r < n; r += PF_LANES, p += panel)
    quant_panel(m, f, dt, row0 + r, n - r < PF_LANES ? n - r : PF_LANES, p, wide, q);
}

void pf_unpack_s8(const pf_mat *m, size_t row, int8_t *q, float *scales) {
  for (size_t k = 0; k < m->k; k++)
    q[k] = (int8_t)(uint8_t)(*word_at(m, row, k / 4) >> 8 * (k % 4));
  for (size_t g = 0; g < pf_mat_groups(m); g++)
    scales[g] = m->ws[scale_at(m, row, g)];
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

typedef uint64_t q2 __attribute__((vector_size(16)));
enum { STEP = 64 }; /* bytes at a time */

/* Bits that `one` carried out of an exponent, and others. */
static inline q2 carries(const unsigned char *p, uint64_t exponent, uint64_t one) {
  q2 u[STEP / sizeof(q2)], seen = {0};
  memcpy(u, p, STEP);
  for (size_t j = 0; j < STEP / sizeof(q2); j++)
    seen |= (u[j] & exponent) + one;
  return seen;
}

static bool nonfinite(pf_dtype dt, const unsigned char *p, size_t bytes) {
  uint64_t e = bits[dt].exponent, one = bits[dt].one;
  unsigned char last[STEP] = {0};
  size_t whole = bytes / STEP * STEP;
  memcpy(last, p + whole, bytes - whole);
  q2 seen = carries(last, e, one);
  for (size_t i = 0; i < whole; i += STEP)
    seen |= carries(p + i, e, one);
  return ((seen[0] | seen[1]) & bits[dt].sign) != 0;
}

size_t pf_first_nonfinite(pf_dtype dt, size_t n, const void *src) {
  const unsigned char *p = src;
  size_t i = n, es = pf_dtype_bytes(dt);
  if (nonfinite(dt, p, n * es))
    for (i = 0; i < n && !nonfinite(dt, p + i * es, es); i++)
      ;
  return i;
}

size_t pf_first_beyond_bf16(size_t n, const void *src) {
  const unsigned char *p = src;
  size_t i = 0;
  while (i < n && (load32(p + 4 * i) & 0x7fffffffu) < 0x7f7f8000u)
    i++;
  return i;
}

size_t pf_first_minus_128(size_t n, const void *src) {
  const unsigned char *at = memchr(src, 0x80, n);
  return at ? (size_t)(at - (const unsigned char *)src) : n;
}

size_t pf_first_negative(size_t n, const void *src) {
  const unsigned char *p = src;
  size_t i = 0;
  while (i < n && !(p[4 * i + 3] & 0x80))
    i++;
  return i;
}

static float get_s8(const pf_mat *m, size_t row, size_t col) {
  int8_t q = (int8_t)(uint8_t)(*word_at(m, row, col / 4) >> 8 * (col % 4));
  return (float)q * m->ws[scale_at(m, row, col / m->group)];
}

float pf_mat_get(const pf_mat *m, size_t row, size_t col) {
  if (m->type == PF_W_F32)
    return pf_f32_of_bits(*word_at(m, row, col));
  if (m->type == PF_W_S8)
    return get_s8(m, row, col);
  return pf_bf16_to_f32((uint16_t)(*word_at(m, row, col / 2) >> 16 * (col % 2)));
}

void pf_mat_row(const pf_mat *m, size_t row, float *out) {
  for (size_t k = 0; k < m->k; k++)
    out[k] = pf_mat_get(m, row, k);
}
