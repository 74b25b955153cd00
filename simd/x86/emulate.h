/* SPDX-License-Identifier: Apache-2.0
 * AMX tiles and vpdpbusd in C, for tests of those kernels on CPUs that lack them: configure's
 * --enable-emulation puts this before every source of theirs (-include), so that the kernels as
 * they stand run on AVX-512 (AMX, AVX512-VNNI) and AVX2 (AVX-VNNI). Tile loads and stores become
 * copies, which a sanitizer follows. After Intel SDM vol. 1, chapter 18, and vol. 2, LDTILECFG,
 * TILELOADD, TDPBF16PS, TDPBSSD, VPDPBUSD; what the CPU answers with #UD traps. TDPBF16PS takes the
 * environment of the caller, which is that of the instruction (base/fpenv.h). */
#ifndef PF_SIMD_X86_EMULATE_H
#define PF_SIMD_X86_EMULATE_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* Four products of an unsigned and a signed byte each, and their sum: exact, as 16-bit products. */
static inline __m256i pf_dpbusd_256(__m256i sum, __m256i u, __m256i s) {
  __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)),
                                   _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8)),
          odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32 pf_dpbusd_256
#ifndef __AVXVNNI__
#define __AVXVNNI__ 1
#endif

#ifdef __AVX512BW__
static inline __m512i pf_dpbusd_512(__m512i sum, __m512i u, __m512i s) {
  __m512i even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(255)),
                                   _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8)),
          odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), _mm512_srai_epi16(s, 8));
  return _mm512_add_epi32(sum, _mm512_add_epi32(even, odd));
}
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 pf_dpbusd_512
#ifndef __AVX512VNNI__
#define __AVX512VNNI__ 1
#endif

/* The configuration as LDTILECFG reads it; `rows` of 0: a tile that is not configured. */
typedef struct pf_tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} pf_tile_config;

typedef struct pf_tile {
  size_t rows;
  __m512i row[16];
} pf_tile;

static _Thread_local pf_tile pf_tiles[8];

static inline pf_tile *pf_tile_at(int t) {
  if (!pf_tiles[t].rows)
    __builtin_trap();
  return &pf_tiles[t];
}

static inline void pf_tile_zero(int t) {
  memset(pf_tile_at(t)->row, 0, sizeof pf_tiles[t].row);
}

static inline void pf_tile_release(void) {
  memset(pf_tiles, 0, sizeof pf_tiles);
}

/* Palette 1 with rows of 64 bytes, which is all that the kernels configure. */
static inline void pf_tile_loadconfig(const void *config) {
  pf_tile_config c;
  memcpy(&c, config, sizeof c);
  pf_tile_release();
  for (int t = 0; t < 8; t++) {
    if (c.palette != 1 || c.start_row || c.rows[t] > 16 || c.row_bytes[t] != 64)
      __builtin_trap();
    pf_tiles[t].rows = c.rows[t];
  }
}

static inline void pf_tile_loadd(int t, const void *base, size_t stride) {
  pf_tile_zero(t);
  for (size_t r = 0; r < pf_tiles[t].rows; r++)
    memcpy(&pf_tiles[t].row[r], (const char *)base + r * stride, 64);
}

static inline void pf_tile_stored(int t, void *base, size_t stride) {
  const pf_tile *from = pf_tile_at(t);
  for (size_t r = 0; r < from->rows; r++)
    memcpy((char *)base + r * stride, &from->row[r], 64);
}

/* Rows of c += rows of a (16 groups of 4 bytes each) x 16 rows of b: a row of b for each group. */
static inline size_t pf_tile_product(int c, int a, int b) {
  if (c == a || c == b || a == b || pf_tile_at(a)->rows != pf_tile_at(c)->rows ||
      pf_tile_at(b)->rows != 16)
    __builtin_trap();
  return pf_tiles[c].rows;
}

static inline __m512i pf_tile_group(int a, size_t row, size_t k) {
  int32_t four;
  memcpy(&four, (const char *)&pf_tiles[a].row[row] + 4 * k, 4);
  return _mm512_set1_epi32(four);
}

static inline __m512 pf_even_bf16(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

static inline __m512 pf_odd_bf16(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000)));
}

static inline void pf_tile_dpbf16ps(int c, int a, int b) {
  for (size_t r = 0, rows = pf_tile_product(c, a, b); r < rows; r++) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (size_t k = 0; k < 16; k++) {
      __m512i x = pf_tile_group(a, r, k), w = pf_tiles[b].row[k];
      even = _mm512_fmadd_ps(pf_even_bf16(x), pf_even_bf16(w), even);
      odd = _mm512_fmadd_ps(pf_odd_bf16(x), pf_odd_bf16(w), odd);
    }
    __m512 sum = _mm512_castsi512_ps(pf_tiles[c].row[r]);
    pf_tiles[c].row[r] = _mm512_castps_si512(_mm512_add_ps(sum, _mm512_add_ps(even, odd)));
  }
}

static inline __m512i pf_even_s8(__m512i fours) {
  return _mm512_srai_epi16(_mm512_slli_epi16(fours, 8), 8);
}

static inline void pf_tile_dpbssd(int c, int a, int b) {
  for (size_t r = 0, rows = pf_tile_product(c, a, b); r < rows; r++)
    for (size_t k = 0; k < 16; k++) {
      __m512i x = pf_tile_group(a, r, k), w = pf_tiles[b].row[k];
      __m512i even = _mm512_madd_epi16(pf_even_s8(x), pf_even_s8(w)),
              odd = _mm512_madd_epi16(_mm512_srai_epi16(x, 8), _mm512_srai_epi16(w, 8));
      pf_tiles[c].row[r] = _mm512_add_epi32(pf_tiles[c].row[r], _mm512_add_epi32(even, odd));
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_loadconfig   pf_tile_loadconfig
#define _tile_release      pf_tile_release
#define _tile_zero         pf_tile_zero
#define _tile_loadd        pf_tile_loadd
#define _tile_stream_loadd pf_tile_loadd
#define _tile_stored       pf_tile_stored
#define _tile_dpbf16ps     pf_tile_dpbf16ps
#define _tile_dpbssd       pf_tile_dpbssd
#if !defined(__AMX_TILE__)
#define __AMX_TILE__ 1
#define __AMX_BF16__ 1
#define __AMX_INT8__ 1
#endif
#endif

#endif
