/* SPDX-License-Identifier: Apache-2.0
 * bench/free.h on AMX, over the operands of simd/x86. Blocks of 2 x 2 tiles over all of K. x3: hi,
 * mid and lo go to the same accumulators, so that a block is twice as large as the contract's two.
 * int8: sums over all of K. */
#include <string.h>

#include "bench/free.h"
#include "simd/x86/amx.h"

#define LOAD(t, p)  _tile_loadd(t, p, 64)
#define STORE(t, p) _tile_stored(t, p, 64)

typedef enum kind { BF16, X3, S8 } kind;
enum { ROWS = 16, PIECE_BF16 = 18, PIECE_X3 = 12, PIECE_S8 = 18 }; /* tiles */
enum { SLOT = 1024 };                                              /* values of a block */

#define DP(K, c, a, b)                                                                             \
  do {                                                                                             \
    if ((K) == S8)                                                                                 \
      _tile_dpbssd(c, a, b);                                                                       \
    else                                                                                           \
      _tile_dpbf16ps(c, a, b);                                                                     \
  } while (0)

INLINE void steps(const char *a, size_t a_next, const char *b, size_t b_next, size_t n,
                  const kind K, const int R, const int P) {
  const int parts = K == X3 ? 3 : 1;
  for (; n; n--, b += PF_TILE_BYTES) {
    LOAD(6, b);
    if (P > 1)
      LOAD(7, b + b_next);
    for (int p = 0; p < parts; p++, a += PF_TILE_BYTES) {
      LOAD(4, a);
      DP(K, 0, 4, 6);
      if (P > 1)
        DP(K, 1, 4, 7);
      if (R > 1) {
        LOAD(5, a + a_next);
        DP(K, 2, 5, 6);
        if (P > 1)
          DP(K, 3, 5, 7);
      }
    }
  }
}

INLINE void load_block(const float *c) {
  LOAD(0, c);
  LOAD(1, c + 256);
  LOAD(2, c + 512);
  LOAD(3, c + 768);
}

INLINE void store_block(float *c) {
  STORE(0, c);
  STORE(1, c + 256);
  STORE(2, c + 512);
  STORE(3, c + 768);
}

/* A row tile's scales stand after its tiles; a panel has one line of them. */
INLINE __m512 scaled(const pf_gemm *g, const char *a, size_t row, size_t panel, __m512 v) {
  float sa;
  memcpy(&sa, a + 16 * g->kp + row * sizeof sa, sizeof sa);
  v = _mm512_cvtepi32_ps(_mm512_castps_si512(v));
  return _mm512_mul_ps(v, _mm512_mul_ps(_mm512_set1_ps(sa), _mm512_loadu_ps(g->ws + panel * 16)));
}

INLINE void put(const pf_gemm *g, const float *c, const char *a, size_t i, size_t j, const kind K,
                const int P) {
  size_t rows = g->m - i * 16 < 16 ? g->m - i * 16 : 16;
  for (size_t r = 0; r < rows; r++)
    for (size_t p = 0; p < (size_t)P; p++) {
      size_t at = (j + p) * 16, left = g->n - at;
      __mmask16 m = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
      __m512 v = _mm512_load_ps(c + p * 256 + r * 16);
      if (K == S8)
        v = scaled(g, a, r, j + p, v);
      if (g->bias)
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, g->bias + at));
      _mm512_mask_storeu_ps(g->y + (i * 16 + r) * g->ldy + at, m, v);
    }
}

typedef struct place {
  const char *a, *b;
  size_t a_tile, a_step, panel, k, n, all;
} place;

INLINE void block(const pf_gemm *g, const place *q, size_t i, size_t j, float *slot, const kind K,
                  const int R, const int P) {
  if (q->k)
    load_block(slot);
  else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const char *a = q->a + i * q->a_tile;
  steps(a + q->k * q->a_step, q->a_tile, q->b + j * q->panel + q->k * PF_TILE_BYTES, q->panel, q->n,
        K, R, P);
  store_block(slot);
  if (q->k + q->n < q->all)
    return;
  put(g, slot, a, i, j, K, P);
  if (R > 1)
    put(g, slot + 512, a + q->a_tile, i + 1, j, K, P);
}

INLINE void rows(const pf_gemm *g, const place *q, size_t i0, size_t i1, size_t j, float *slots,
                 const kind K, const int P) {
  size_t i = i0;
  for (; i + 2 <= i1; i += 2, slots += SLOT)
    block(g, q, i, j, slots, K, 2, P);
  if (i < i1)
    block(g, q, i, j, slots, K, 1, P);
}

INLINE void run(const pf_gemm *g, size_t piece, const kind K) {
  float slots[ROWS / 2 * SLOT] __attribute__((aligned(64)));
  size_t tile_k = K == S8 ? 64 : 32, parts = K == X3 ? 3 : 1, tiles = (g->m + 15) / 16,
         panels = (g->n + 15) / 16;
  place q = {.a = g->a, .b = g->w, .a_step = parts * PF_TILE_BYTES, .all = g->kp / tile_k};
  q.a_tile = q.all * q.a_step + (K == S8 ? 64 : 0);
  q.panel = q.all * PF_TILE_BYTES;
  pf_amx_enter(16, 0);
  for (size_t i = 0; i < tiles; i += ROWS) {
    size_t i1 = i + ROWS < tiles ? i + ROWS : tiles;
    for (size_t j = 0; j < panels; j += 2)
      for (q.k = 0; q.k < q.all; q.k += piece) {
        q.n = q.all - q.k < piece ? q.all - q.k : piece;
        if (j + 1 < panels)
          rows(g, &q, i, i1, j, slots, K, 2);
        else
          rows(g, &q, i, i1, j, slots, K, 1);
      }
  }
  pf_amx_leave();
}

void pf_free_bf16_amx(const pf_gemm *g) {
  run(g, PIECE_BF16, BF16);
}

void pf_free_x3_amx(const pf_gemm *g) {
  run(g, PIECE_X3, X3);
}

void pf_free_s8_amx(const pf_gemm *g) {
  run(g, PIECE_S8, S8);
}
