/* SPDX-License-Identifier: Apache-2.0
 * AMX: 16 x 16 outputs an instruction, four accumulators from two tiles of each operand, so that
 * nothing is loaded. */
#include "simd/peak/micro.h"
#include "simd/x86/amx.h"

static void tiles_begin(const void *operand) {
  pf_amx_enter(PF_TILE_ROWS, 0);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, operand, 64);
  _tile_loadd(5, operand, 64);
  _tile_loadd(6, operand, 64);
  _tile_loadd(7, operand, 64);
}

double pf_micro_bf16_amx(size_t n) {
  uint16_t x[16 * 32]; /* +-1.something: power depends on the data */
  for (int i = 0; i < 16 * 32; i++)
    x[i] = (uint16_t)(0x3f80 | (i * 37 & 0x7f) | (i * 11 & 1) << 15);
  tiles_begin(x);
  for (size_t r = 0; r < n; r++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  pf_amx_leave();
  return 4.0 * 16 * 16 * 32 * 2 * (double)n;
}

double pf_micro_s8_amx(size_t n) {
  int8_t x[16 * 64];
  for (int i = 0; i < 16 * 64; i++)
    x[i] = (int8_t)(i * 37);
  tiles_begin(x);
  for (size_t r = 0; r < n; r++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  pf_amx_leave();
  return 4.0 * 16 * 16 * 64 * 2 * (double)n;
}
