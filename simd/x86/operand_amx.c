/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands" as AMX A tiles: rows stand in groups of 16; a group is, for each block of
 * 64 bytes of k, one tile of 16 rows (x3: three tiles, hi, mid, lo). A row fills whole cache lines,
 * so that rows may be made by different threads. After an s8 group's tiles stand its scales, [group
 * of k][16 rows]. */
#include "simd/x86/operand_amx.h"

#include "simd/consts.h"
#include "simd/kernels.h"

/* The 16 values i..i+15 of x, +0 beyond k. */
static inline __m512 load_k(size_t k, const float *x, size_t i) {
  if (i + 16 <= k)
    return _mm512_loadu_ps(x + i);
  return i < k ? _mm512_maskz_loadu_ps((__mmask16)((1u << (k - i)) - 1), x + i)
               : _mm512_setzero_ps();
}

/* Rounds to bf16 in integers; the value is the upper half, the lower half zero. */
static inline __m512 rounded(__m512 x) {
  __m512i u = _mm512_castps_si512(x), top = _mm512_set1_epi32((int)0xffff0000u);
  __m512i even = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r =
      _mm512_and_si512(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), even), top);
  __m512i nan = _mm512_or_si512(_mm512_and_si512(u, top), _mm512_set1_epi32(0x400000));
  __mmask16 is_nan = _mm512_cmp_epi32_mask(_mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff)),
                                           _mm512_set1_epi32(0x7f800000), _MM_CMPINT_NLE);
  return _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_nan, r, nan));
}

/* The upper halves of 32 values as one line. */
static inline void put_halves(void *to, __m512 a, __m512 b) {
  __m256i lo = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(a), 16));
  __m256i hi = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(b), 16));
  _mm512_store_si512(to, _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1));
}

void pf_operand_bf16_amx(size_t row, size_t k, size_t kp, const float *x, void *a) {
  char *to = (char *)a + row / 16 * kp * 32 + row % 16 * 64;
  for (size_t i = 0; i < kp; i += PF_KBLK, to += PF_TILE_BYTES)
    put_halves(to, rounded(load_k(k, x, i)), rounded(load_k(k, x, i + 16)));
}

static inline void split(__m512 x, __m512 part[3]) {
  __m512i mag = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
  __mmask16 in_range =
      _mm512_cmp_epi32_mask(mag, _mm512_set1_epi32((int)PF_C_SPLIT_MAX), _MM_CMPINT_LT);
  part[0] = rounded(x);
  __m512 r = _mm512_sub_ps(x, part[0]);
  part[1] = _mm512_maskz_mov_ps(in_range, rounded(r));
  r = _mm512_sub_ps(r, part[1]);
  part[2] = _mm512_maskz_mov_ps(in_range, rounded(r));
}

void pf_operand_x3_bf16_amx(size_t row, size_t k, size_t kp, const float *x, void *a) {
  char *to = (char *)a + row / 16 * kp * 96 + row % 16 * 64;
  for (size_t i = 0; i < kp; i += PF_KBLK) {
    __m512 p[3], q[3];
    split(load_k(k, x, i), p);
    split(load_k(k, x, i + 16), q);
    for (int part = 0; part < 3; part++, to += PF_TILE_BYTES)
      put_halves(to, p[part], q[part]);
  }
}

/* One group's scale, and its values into one line of each tile. */
static float quantise(size_t n, const float *x, char *to) {
  __m512i top = _mm512_setzero_si512(), abs = _mm512_set1_epi32(0x7fffffff);
  for (size_t i = 0; i < n; i += 16)
    top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_castps_si512(load_k(n, x, i)), abs));
  uint32_t amax = (uint32_t)_mm512_reduce_max_epi32(top);
  float scale = amax < 0x7f800000u ? pf_f32_of_bits(amax) / 127.0f : pf_f32_of_bits(0x7fc00000u);
  __m512 s = _mm512_set1_ps(scale);
  __mmask16 some = scale > 0 ? 0xffff : 0;
  for (size_t i = 0; i < n; i += 16) {
    __m512i q = _mm512_maskz_cvtps_epi32(some, _mm512_div_ps(load_k(n, x, i), s));
    _mm_store_si128((__m128i *)(void *)(to + i / 64 * PF_TILE_BYTES + i % 64),
                    _mm512_cvtepi32_epi8(q));
  }
  return scale;
}

void pf_operand_s8_amx(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  pf_amx_s8 t = pf_amx_s8_at(a, row / 16, kp, group);
  char *to = t.tiles + row % 16 * 64;
  for (size_t i = 0; i < kp; i += 64) /* what lies beyond k */
    if (i + 64 > k)
      _mm512_store_si512(to + i / 64 * PF_TILE_BYTES, _mm512_setzero_si512());
  for (size_t i = 0; i < kp; i += group) {
    size_t left = i < k ? k - i : 0, n = left < group ? left : group;
    t.scale[i / group * 16 + row % 16] = quantise(n, x + i, to + i / 64 * PF_TILE_BYTES);
  }
}
