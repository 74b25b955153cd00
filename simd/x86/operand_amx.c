/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "Operands" as AMX A tiles: rows stand in groups of 16; a group is, for each block of
 * 64 bytes of k, one tile of 16 rows (x3: three tiles, hi, mid, lo). A row fills whole cache lines,
 * so that rows may be made by different threads. After an s8 group's tiles stand its scales, [group
 * of k][16 rows]. */
#include "simd/x86/operand_amx.h"

#include "simd/vec/bf16.h"
#include "simd/x86/s8_512.h"
#include "simd/x86/s8_scale.h"

void pf_operand_bf16_amx(size_t row, size_t k, size_t kp, const float *x, void *a) {
  char *to = (char *)a + row / 16 * kp * 32 + row % 16 * 64;
  for (size_t i = 0; i < kp; i += PF_KBLK, to += PF_TILE_BYTES)
    _mm512_store_si512(
        to, pf_upper_halves(v_round_bf16(v_load_k(k, x, i)), v_round_bf16(v_load_k(k, x, i + 16))));
}

void pf_operand_x3_bf16_amx(size_t row, size_t k, size_t kp, const float *x, void *a) {
  char *to = (char *)a + row / 16 * kp * 96 + row % 16 * 64;
  for (size_t i = 0; i < kp; i += PF_KBLK) {
    __m512 p[3], q[3];
    v_split_bf16(v_load_k(k, x, i), p);
    v_split_bf16(v_load_k(k, x, i + 16), q);
    for (int part = 0; part < 3; part++, to += PF_TILE_BYTES)
      _mm512_store_si512(to, pf_upper_halves(p[part], q[part]));
  }
}

/* One group's scale, and its values into one line of each tile. */
static float quantise(size_t n, const float *x, char *to) {
  float scale = s8_scale(n, x);
  for (size_t i = 0; i < n; i += 16) {
    __m256i q = _mm256_setzero_si256();
    if (scale > 0)
      q = s8_nearest(s8_load(x + i, n - i < 16 ? n - i : 16), scale);
    _mm_store_si128((__m128i *)(void *)(to + i / 64 * PF_TILE_BYTES + i % 64), s8_bytes(q));
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
