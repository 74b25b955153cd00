/* SPDX-License-Identifier: Apache-2.0
 * AMX tiles (Intel SDM vol. 1, chapter 18): eight tiles of 16 rows of 64 bytes. Every kernel uses
 * the same configuration, loads it on entry and releases the tiles before it returns, so that the
 * operating system need not save them at a context switch. */
#ifndef PF_SIMD_X86_AMX_H
#define PF_SIMD_X86_AMX_H

/* clang before 16 spells the macros without the second underscore. */
#if !(defined(__AMX_TILE__) || defined(__AMXTILE__)) ||                                            \
    !(defined(__AMX_BF16__) || defined(__AMXBF16__)) ||                                            \
    !(defined(__AMX_INT8__) || defined(__AMXINT8__)) || !defined(__AVX512BW__)
#error "simd/x86/*_amx.c need the flags of AMX_CFLAGS"
#endif
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { PF_TILE_BYTES = 1024, PF_TILE_ROWS = 16 };

/* Tiles 0..7, each of `rows` rows for accumulators and activations (tiles in mask) and 16 for the
 * others. */
static inline void pf_amx_enter(unsigned rows, unsigned mask) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } __attribute__((aligned(64))) c = {.palette = 1};
  for (unsigned i = 0; i < 8; i++) {
    c.row_bytes[i] = 64;
    c.rows[i] = (uint8_t)(mask >> i & 1u ? rows : PF_TILE_ROWS);
  }
  /* GCC 12 believes that _tile_loadconfig reads 8 bytes: without this the rest is never stored. */
  __asm__ __volatile__("" : : "r"(&c) : "memory");
  _tile_loadconfig(&c);
}

static inline void pf_amx_leave(void) {
  _tile_release();
}

#endif
