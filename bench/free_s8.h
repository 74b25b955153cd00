/* SPDX-License-Identifier: Apache-2.0
 * bench/free.h for int8 by a dot product of unsigned and signed bytes. The file that includes this
 * defines FREE_NAME, FREE_VEC (integer vector), FREE_ROWS, FREE_PANELS, FREE_PARTS (vectors of a
 * panel) and FREE_DP, FREE_SET1, FREE_LOAD, FREE_STORE, FREE_ZERO. Sums of a piece of K stand in y
 * as integers until the last. */
#include <string.h>

#include "bench/free.h"

enum { PIECE = 512, COLS = FREE_PANELS * FREE_PARTS, WIDTH = (int)sizeof(FREE_VEC) };

typedef struct tile {
  const uint8_t *a; /* rows lda apart */
  const char *w;    /* of the first panel; the next `panel` bytes on */
  int32_t *y;
  size_t lda, panel, ldy, n; /* n: k of the piece */
  int first;
} tile;

/* R rows x P panels; panels have all their outputs. */
INLINE void tile_run(const tile *t, const int R, const int P) {
  FREE_VEC c[FREE_ROWS][COLS];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < P * FREE_PARTS; v++) {
    c[r][v] =
        t->first ? FREE_ZERO : FREE_LOAD((const char *)(t->y + (size_t)r * t->ldy) + v * WIDTH);
  }
  for (size_t k = 0; k < t->n; k += 4) {
    FREE_VEC w[COLS];
    UNROLL for (int v = 0; v < P * FREE_PARTS; v++) {
      w[v] =
          FREE_LOAD(t->w + (size_t)(v / FREE_PARTS) * t->panel + 16 * k + v % FREE_PARTS * WIDTH);
    }
    UNROLL for (int r = 0; r < R; r++) {
      int32_t four;
      memcpy(&four, t->a + (size_t)r * t->lda + k, sizeof four);
      FREE_VEC x = FREE_SET1(four);
      UNROLL for (int v = 0; v < P * FREE_PARTS; v++) {
        c[r][v] = FREE_DP(c[r][v], x, w[v]);
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < P * FREE_PARTS; v++) {
    FREE_STORE((char *)(t->y + (size_t)r * t->ldy) + v * WIDTH, c[r][v]);
  }
}

INLINE void strip(tile t, size_t m, const int P) {
  for (; m >= FREE_ROWS; m -= FREE_ROWS) {
    tile_run(&t, FREE_ROWS, P);
    t.a += FREE_ROWS * t.lda;
    t.y += FREE_ROWS * t.ldy;
  }
  for (; m; m--) {
    tile_run(&t, 1, P);
    t.a += t.lda;
    t.y += t.ldy;
  }
}

/* The integers of y to what they stand for: the 128 that every activation has too much are taken
 * off. */
INLINE void scale_out(const pf_gemm *g, size_t j, size_t n) {
  const uint8_t *a = g->a;
  size_t lda = g->kp + 64;
  for (size_t i = 0; i < g->m; i++) {
    float sa, *y = g->y + i * g->ldy + j;
    memcpy(&sa, a + i * lda + g->kp, sizeof sa);
    for (size_t l = 0; l < n; l++) {
      uint32_t sum; /* the bench's sums of weights are any bits: they may wrap */
      memcpy(&sum, &y[l], sizeof sum);
      sum -= 128 * (uint32_t)g->wsum[j + l];
      y[l] = (float)(int32_t)sum * (sa * g->ws[j + l]);
    }
  }
}

/* n is a multiple of 16 in the shapes of the models; what is over is left out. */
void FREE_NAME(const pf_gemm *g) {
  size_t panels = g->n / 16, panel = 16 * g->kp, lda = g->kp + 64;
  for (size_t j = 0, p; j < panels; j += p) {
    p = panels - j < FREE_PANELS ? 1 : FREE_PANELS;
    for (size_t k = 0; k < g->kp; k += PIECE) {
      tile t = {.a = (const uint8_t *)g->a + k, .w = (const char *)g->w + j * panel + 16 * k};
      t.y = (int32_t *)(void *)(g->y + j * 16);
      t.lda = lda;
      t.panel = panel;
      t.ldy = g->ldy;
      t.n = g->kp - k < PIECE ? g->kp - k : PIECE;
      t.first = k == 0;
      if (p == 1)
        strip(t, g->m, 1);
      else
        strip(t, g->m, FREE_PANELS);
    }
    scale_out(g, j * 16, p * 16);
  }
}
