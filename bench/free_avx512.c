/* SPDX-License-Identifier: Apache-2.0
 * bench/free.h on AVX-512: bf16 as fp32 in one chain of FMAs for each output (VDPBF16PS has half
 * the rate of two FMAs on the CPUs that have it). Sums of a piece of K stand in y. */
#include <immintrin.h>
#include <string.h>

#include "base/bf16.h"
#include "bench/free.h"

enum { ROWS = 12, PANELS = 2, PIECE = 256 };

void pf_free_operand_bf16_avx512(size_t row, size_t k, size_t kp, const float *x, void *a) {
  float *to = (float *)a + row * kp;
  for (size_t i = 0; i < kp; i++)
    to[i] = i < k ? pf_bf16_to_f32(pf_f32_to_bf16(x[i])) : 0;
}

typedef struct tile {
  const float *a;
  const uint16_t *w;
  float *y;
  size_t lda, panel, ldy, n;
  int first;
} tile;

INLINE void tile_run(const tile *t, const int R, const int P) {
  __m512 c[ROWS][PANELS];
  const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++) {
    c[r][p] = t->first ? _mm512_setzero_ps() : _mm512_loadu_ps(t->y + (size_t)r * t->ldy + p * 16);
  }
  for (size_t k = 0; k < t->n; k += 2) {
    __m512 even[PANELS], odd[PANELS];
    UNROLL for (int p = 0; p < P; p++) {
      __m512i u = _mm512_loadu_si512(t->w + (size_t)p * t->panel + 16 * k);
      even[p] = _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
      odd[p] = _mm512_castsi512_ps(_mm512_and_si512(u, high));
    }
    UNROLL for (int r = 0; r < R; r++) {
      const float *x = t->a + (size_t)r * t->lda + k;
      UNROLL for (int p = 0; p < P; p++) {
        c[r][p] = _mm512_fmadd_ps(_mm512_set1_ps(x[0]), even[p], c[r][p]);
      }
      UNROLL for (int p = 0; p < P; p++) {
        c[r][p] = _mm512_fmadd_ps(_mm512_set1_ps(x[1]), odd[p], c[r][p]);
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++) {
    _mm512_storeu_ps(t->y + (size_t)r * t->ldy + p * 16, c[r][p]);
  }
}

INLINE void strip(tile t, size_t m, const int P) {
  for (; m >= ROWS; m -= ROWS) {
    tile_run(&t, ROWS, P);
    t.a += ROWS * t.lda;
    t.y += ROWS * t.ldy;
  }
  for (; m; m--) {
    tile_run(&t, 1, P);
    t.a += t.lda;
    t.y += t.ldy;
  }
}

/* n is a multiple of 16 in the shapes of the models; what is over is left out. */
void pf_free_bf16_avx512(const pf_gemm *g) {
  size_t panels = g->n / 16;
  for (size_t k = 0; k < g->kp; k += PIECE)
    for (size_t j = 0, p; j < panels; j += p) {
      p = panels - j < PANELS ? 1 : PANELS;
      tile t = {.a = (const float *)g->a + k, .y = g->y + j * 16, .lda = g->kp, .ldy = g->ldy};
      t.w = (const uint16_t *)g->w + j * 16 * g->kp + 16 * k;
      t.panel = 16 * g->kp;
      t.n = g->kp - k < PIECE ? g->kp - k : PIECE;
      t.first = k == 0;
      if (p == 1)
        strip(t, g->m, 1);
      else
        strip(t, g->m, PANELS);
    }
}

/* Four rows side by side, each in two chains of 16 lanes along k; fetched ahead. x is (kp) with
 * zeros behind k. */
void pf_free_file_avx512(size_t n, size_t k, const uint16_t *w, const float *x, float *y) {
  size_t whole = k / 32 * 32;
  for (size_t j = 0; j + 4 <= n; j += 4) {
    __m512 c[4];
    UNROLL for (int r = 0; r < 4; r++) {
      c[r] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < whole; i += 32) {
      __m512 x0 = _mm512_loadu_ps(x + i), x1 = _mm512_loadu_ps(x + i + 16);
      UNROLL for (int r = 0; r < 4; r++) {
        const uint16_t *p = w + (j + (size_t)r) * k + i;
        _mm_prefetch((const char *)p + 1024, _MM_HINT_T0);
        __m512i u = _mm512_loadu_si512(p);
        __m512i lo = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(u));
        __m512i hi = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(u, 1));
        c[r] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(lo, 16)), x0, c[r]);
        c[r] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(hi, 16)), x1, c[r]);
      }
    }
    for (size_t r = 0; r < 4; r++) {
      float sum = _mm512_reduce_add_ps(c[r]);
      for (size_t i = whole; i < k; i++)
        sum += pf_bf16_to_f32(w[(j + r) * k + i]) * x[i];
      y[j + r] = sum;
    }
  }
}
