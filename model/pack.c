/* SPDX-License-Identifier: Apache-2.0
 * Repacking of weights. All panel layouts are a transposition of 4-byte words (an fp32 value, a
 * pair of bf16 values, four int8 values along k): word (row, w) of a row-major tensor goes to
 * panel[row / 16][w][row % 16]. */
#include "model/pack.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

/* What tells NaN and infinity of a type among the values in a word: their exponent bits, and the 1
 * that carries an exponent of all ones into the sign bit. All 0: no value is told. */
typedef struct probe {
  uint32_t exponent, one, sign;
} probe;

static const probe probes[] = {[PF_DT_BF16] = {0x7f807f80, 0x00800080, 0x80008000},
                               [PF_DT_F16] = {0x7c007c00, 0x04000400, 0x80008000},
                               [PF_DT_F32] = {0x7f800000, 0x00800000, 0x80000000},
                               [PF_DT_I8] = {0, 0, 0}};

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
/* 4 rows x 4 words at src to dst[word*16 + row]. Returns what the probe carried, and other bits. */
static inline v4 transpose_4x4(uint32_t *dst, const unsigned char *src, size_t stride, probe q) {
  v4 a = load_v4(src), b = load_v4(src + stride), c = load_v4(src + 2 * stride),
     d = load_v4(src + 3 * stride);
  v4 ac0 = LOW(a, c), ac1 = HIGH(a, c), bd0 = LOW(b, d), bd1 = HIGH(b, d);
  store_v4(dst, LOW(ac0, bd0));
  store_v4(dst + PF_LANES, HIGH(ac0, bd0));
  store_v4(dst + 2 * PF_LANES, LOW(ac1, bd1));
  store_v4(dst + 3 * PF_LANES, HIGH(ac1, bd1));
  return ((a & q.exponent) + q.one) | ((b & q.exponent) + q.one) | ((c & q.exponent) + q.one) |
         ((d & q.exponent) + q.one);
}
#undef LOW
#undef HIGH

/* Whole lines of memory, both sides aligned to 64 bytes. Packed weights are far more than caches
 * hold: written past them, a line is not read first, and the source stays. */
static inline void store_past_caches(uint32_t *to, const uint32_t *from, size_t bytes) {
#ifdef __SSE2__
  for (size_t i = 0; i < bytes / 16; i++)
    _mm_stream_si128((__m128i *)to + i, _mm_load_si128((const __m128i *)from + i));
#else
  memcpy(to, from, bytes);
#endif
}

/* Makes such stores visible to other threads before what is stored after. */
static inline void stores_done(void) {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

/* Words [lo, hi) of rows [r, n) of a panel. Returns what the probe carried, and other bits. */
static uint32_t transpose_edge(uint32_t *dst, const unsigned char *src, size_t stride, size_t r,
                               size_t n, size_t lo, size_t hi, probe q) {
  uint32_t seen = 0;
  for (; r < n; r++)
    for (size_t w = lo; w < hi; w++) {
      uint32_t u = dst[w * PF_LANES + r] = load32(src + r * stride + 4 * w);
      seen |= (u & q.exponent) + q.one;
    }
  return seen;
}

enum { TILE = 16 }; /* words of a row that are transposed at a time: whole lines of memory */

/* 16 rows x TILE words. */
static v4 transpose_tile(uint32_t *dst, const unsigned char *src, size_t stride, probe q) {
  _Alignas(64) uint32_t tile[TILE * PF_LANES];
  v4 seen = {0};
  for (size_t r = 0; r < PF_LANES; r += 4)
    for (size_t w = 0; w < TILE; w += 4)
      seen |= transpose_4x4(tile + w * PF_LANES + r, src + r * stride + 4 * w, stride, q);
  store_past_caches(dst, tile, sizeof tile);
  return seen;
}

/* One panel: n rows of nw words at src, stride bytes apart, to dst[word*16 + row]. Returns true if
 * a value was NaN or infinite by the probe. */
static bool transpose(uint32_t *dst, const unsigned char *src, size_t stride, size_t n, size_t nw,
                      probe q) {
  size_t tiled = n == PF_LANES ? nw / TILE * TILE : 0;
  v4 seen = {0};
  for (size_t w = 0; w < tiled; w += TILE)
    seen |= transpose_tile(dst + w * PF_LANES, src + 4 * w, stride, q);
  uint32_t edge = transpose_edge(dst, src, stride, 0, n, tiled, nw, q);
  return ((seen[0] | seen[1] | seen[2] | seen[3] | edge) & q.sign) != 0;
}

static float value(pf_dtype dt, const unsigned char *p) {
  if (dt == PF_DT_F32)
    return pf_f32_of_bits(load32(p));
  return dt == PF_DT_BF16 ? pf_bf16_to_f32(load16(p)) : pf_f16_to_f32(load16(p));
}

/* Rows of values as wide as the panel's: whole words, then what is left of a row. */
static bool pack_same(uint32_t *dst, pf_dtype dt, size_t k, size_t n, const unsigned char *src) {
  const probe q = probes[dt];
  size_t stride = k * pf_dtype_bytes(dt), nw = stride / 4, rest = stride % 4;
  bool found = transpose(dst, src, stride, n, nw, q);
  for (size_t r = 0; rest && r < n; r++) {
    uint32_t *last = dst + nw * PF_LANES + r;
    memcpy(last, src + r * stride + 4 * nw, rest);
    found |= (((*last & q.exponent) + q.one) & q.sign) != 0;
  }
  return found;
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

typedef int16_t s8x __attribute__((vector_size(16)));
typedef uint16_t h8 __attribute__((vector_size(16)));
enum { SUMMED = sizeof(s8x), SUM_STEPS = 128 }; /* 2 * 127 * SUM_STEPS fit 16 bits */

static int32_t sum_s8(const int8_t *q, size_t n) {
  int32_t sum = 0;
  size_t i = 0;
  while (i + SUMMED <= n) {
    s8x lanes = {0}, v;
    for (int step = 0; step < SUM_STEPS && i + SUMMED <= n; step++, i += SUMMED) {
      memcpy(&v, q + i, sizeof v);
      lanes += ((s8x)((h8)v << 8) >> 8) + (v >> 8);
    }
    for (size_t k = 0; k < SUMMED / 2; k++)
      sum += lanes[k];
  }
  for (; i < n; i++)
    sum += q[i];
  return sum;
}

/* The sums of the groups of one row. */
static void sum_row(const pf_mat *m, size_t row, const int8_t *q) {
  for (size_t g = 0, lo = 0; lo < m->k; g++, lo += m->group)
    m->wsum[scale_at(m, row, g)] = sum_s8(q + lo, lo + m->group < m->k ? m->group : m->k - lo);
}

/* True for values that are moved as they are. */
static bool stays(const pf_mat *m, pf_dtype dt) {
  return pf_dtype_bytes(dt) == types[m->type].bytes && dt != PF_DT_F16;
}

bool pf_pack_looks(const pf_mat *m, pf_dtype dt) {
  return stays(m, dt) && m->type != PF_W_S8;
}

static bool pack_panel(const pf_mat *m, pf_dtype dt, size_t row0, size_t n,
                       const unsigned char *src) {
  uint32_t *dst = word_at(m, row0, 0);
  bool found = false;
  if (stays(m, dt))
    found = pack_same(dst, dt, m->k, n, src);
  else if (m->type == PF_W_F32)
    pack_widened(dst, dt, m->k, n, src);
  else
    pack_rounded(dst, dt, m->k, n, src);
  for (size_t r = 0; m->type == PF_W_S8 && r < n; r++)
    sum_row(m, row0 + r, (const int8_t *)src + r * m->k);
  return found;
}

bool pf_pack_rows(const pf_mat *m, pf_dtype dt, size_t row0, size_t n, const void *src) {
  const unsigned char *p = src;
  size_t panel = PF_LANES * m->k * pf_dtype_bytes(dt);
  bool found = false;
  for (size_t r = 0; r < n; r += PF_LANES, p += panel)
    found |= pack_panel(m, dt, row0 + r, n - r < PF_LANES ? n - r : PF_LANES, p);
  stores_done();
  return found;
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
  transpose(word_at(m, row0, 0), (const unsigned char *)q, m->kp, n, words(m), probes[PF_DT_I8]);
}

void pf_quant_rows(const pf_mat *m, const pf_simd *f, pf_dtype dt, size_t row0, size_t n,
                   const void *src, float *wide, int8_t *q) {
  const unsigned char *p = src;
  size_t panel = PF_LANES * m->k * pf_dtype_bytes(dt);
  for (size_t r = 0; r < n; r += PF_LANES, p += panel)
    quant_panel(m, f, dt, row0 + r, n - r < PF_LANES ? n - r : PF_LANES, p, wide, q);
  stores_done();
}

void pf_unpack_s8(const pf_mat *m, size_t row, int8_t *q, float *scales) {
  for (size_t k = 0; k < m->k; k++)
    q[k] = (int8_t)(uint8_t)(*word_at(m, row, k / 4) >> 8 * (k % 4));
  for (size_t g = 0; g < pf_mat_groups(m); g++)
    scales[g] = m->ws[scale_at(m, row, g)];
}

/* bf16 is the upper half of fp32. */
static size_t widen_bf16(float *dst, size_t n, const unsigned char *src) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    h8 v, zero = {0}, lo, hi;
    memcpy(&v, src + 2 * i, sizeof v);
    lo = __builtin_shufflevector(zero, v, 0, 8, 1, 9, 2, 10, 3, 11);
    hi = __builtin_shufflevector(zero, v, 4, 12, 5, 13, 6, 14, 7, 15);
    memcpy(dst + i, &lo, sizeof lo);
    memcpy(dst + i + 4, &hi, sizeof hi);
  }
  return i;
}

void pf_widen(float *dst, pf_dtype dt, size_t n, const void *src) {
  const unsigned char *p = src;
  for (size_t i = dt == PF_DT_BF16 ? widen_bf16(dst, n, p) : 0; i < n; i++)
    dst[i] = value(dt, p + i * pf_dtype_bytes(dt));
}

enum { STEP = 64 }; /* bytes at a time */

/* Bits that the probe carried out of an exponent, and others. */
static inline v4 carries(const unsigned char *p, probe q) {
  v4 u[STEP / sizeof(v4)], seen = {0};
  memcpy(u, p, STEP);
  for (size_t j = 0; j < STEP / sizeof(v4); j++)
    seen |= (u[j] & q.exponent) + q.one;
  return seen;
}

static bool nonfinite(pf_dtype dt, const unsigned char *p, size_t bytes) {
  const probe q = probes[dt];
  unsigned char last[STEP] = {0};
  size_t whole = bytes / STEP * STEP;
  memcpy(last, p + whole, bytes - whole);
  v4 seen = carries(last, q);
  for (size_t i = 0; i < whole; i += STEP)
    seen |= carries(p + i, q);
  return ((seen[0] | seen[1] | seen[2] | seen[3]) & q.sign) != 0;
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
