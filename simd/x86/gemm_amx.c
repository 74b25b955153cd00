/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "gemm_bf16", "gemm_x3_bf16", "gemm_s8" on AMX. `tdpbf16ps` is the contract's block of
 * 32 k as it stands (E, O, acc + (E + O), denormals as zero); `tdpbssd` sums exactly. A product is
 * cut into
 *
 *   groups of row tiles x groups of panels x pieces of K x pairs of panels x row tiles
 *
 * from outside to inside, so that a piece of the activations stays in the second-level cache while
 * the weights pass by, and a pair of panels while the row tiles pass. Accumulators that wait for
 * their next piece of K lie in g->work, which is exact. What a block of tiles gave goes to y while
 * the next block is multiplied, some lines between the tile instructions: all at once they would
 * stall them. A few rows (one tile) are limited by the way of the weights from memory: there
 * several panels stream side by side and are fetched ahead. doc/KERNELS.md has the measurements. */
#include <string.h>

#include "simd/kernels.h"
#include "simd/x86/operand_amx.h"

#define PF_INLINE static inline __attribute__((always_inline))

/* Sizes of the cut: row tiles, panels, and tiles along K. (rows / R) * (panels / 2) slots of 4 KB
 * fit PF_GEMM_WORK. */
enum {
  BF16_ROWS = 12,
  BF16_PANELS = 32,
  BF16_K = 72,
  X3_ROWS = 8,
  X3_PANELS = 16,
  X3_K = 36,
  S8_ROWS = 16,
  S8_PANELS = 16,
  S8_K = 36,
  SLOT = 1024,      /* floats of a block's accumulators */
  LOOKAHEAD = 2048, /* bytes of a panel that are fetched ahead for few rows */
};
_Static_assert(BF16_ROWS / 2 * (BF16_PANELS / 2) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");
_Static_assert(X3_ROWS *(X3_PANELS / 2) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");
_Static_assert(S8_ROWS / 2 * (S8_PANELS / 2) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");

typedef enum kind { BF16, X3, S8 } kind;

/* ---- from tiles to y --------------------------------------------------------------------------
 */

/* A block of accumulators on its way out, in lines of one row of one panel. */
typedef struct outgoing {
  const float *c; /* tiles [R][P][16][16]; x3: [H, M][P][16][16]; s8: int32 */
  float *y;
  size_t ldy, lines, next;
  size_t p0; /* first panel, for masks and biases of the product */
  const pf_gemm *g;
  /* s8: the sums of a group are scaled and added to acc [R][P][16][16]. */
  float *acc;
  const float *sa,
      *sw; /* scales: [16] of a row tile, sa_tile apart; [16] of a panel, sw_panel apart */
  size_t sa_tile, sw_panel;
  int first, last; /* of the product's groups */
} outgoing;

static inline __mmask16 columns(const pf_gemm *g, size_t panel) {
  size_t left = g->n > panel * 16 ? g->n - panel * 16 : 0;
  return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

/* Line l: row l / P of panel l % P. */
PF_INLINE void put_line(const outgoing *o, size_t l, const kind K, const size_t P) {
  size_t r = l / P, p = l % P;
  size_t at = (K == X3 ? p : r / 16 * P + p) * 256 + r % 16 * 16;
  __m512 v = _mm512_load_ps(o->c + at);
  if (K == X3)
    v = _mm512_add_ps(v, _mm512_load_ps(o->c + at + P * 256));
  if (K == S8) {
    __m512 sa = _mm512_set1_ps(o->sa[r / 16 * o->sa_tile + r % 16]);
    __m512 scale = _mm512_mul_ps(sa, _mm512_loadu_ps(o->sw + p * o->sw_panel));
    __m512 acc = o->first ? _mm512_setzero_ps() : _mm512_load_ps(o->acc + at);
    v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(v)), scale, acc);
    if (!o->last) {
      _mm512_store_ps(o->acc + at, v);
      return;
    }
  }
  v = _mm512_add_ps(v, _mm512_setzero_ps());
  __mmask16 m = columns(o->g, o->p0 + p);
  if (o->g->bias)
    v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, o->g->bias + (o->p0 + p) * 16));
  _mm512_mask_storeu_ps(o->y + r * o->ldy + p * 16, m, v);
}

PF_INLINE void put_lines(outgoing *o, size_t n, const kind K, const size_t P) {
  size_t end = o->lines - o->next < n ? o->lines : o->next + n;
  for (; o->next < end; o->next++)
    put_line(o, o->next, K, P);
}

/* ---- one block over one piece of K ------------------------------------------------------------
 */

/* Tiles 0..3 accumulate, 4 and 5 hold activations, 6 and 7 weights. */
#define LOAD(t, p)  _tile_loadd(t, p, 64)
#define STORE(t, p) _tile_stored(t, p, 64)

typedef struct block {
  const char *a, *b;     /* first tile of row tile 0, of panel 0 */
  size_t a_next, b_next; /* bytes to the next row tile and panel */
  size_t steps;          /* tiles along K */
  const char *fetch;     /* weights that come next, into the second-level cache */
} block;

PF_INLINE void fetch_next(const char *p) {
  _mm_prefetch(p, _MM_HINT_T1);
  _mm_prefetch(p + 256, _MM_HINT_T1);
}

#define DP(K, c, a, b)                                                                             \
  do {                                                                                             \
    if ((K) == S8)                                                                                 \
      _tile_dpbssd(c, a, b);                                                                       \
    else                                                                                           \
      _tile_dpbf16ps(c, a, b);                                                                     \
  } while (0)

/* R x P blocks of bf16 or s8; between the steps `each` lines of the block before leave (P of it is
 * 2). */
PF_INLINE void steps(const block *k, outgoing *before, size_t each, const kind K, const int R,
                     const int P) {
  const char *a = k->a, *b = k->b, *f = k->fetch;
  for (size_t s = 0; s < k->steps; s++, a += PF_TILE_BYTES, b += PF_TILE_BYTES, f += 512) {
    LOAD(6, b);
    LOAD(4, a);
    fetch_next(f);
    DP(K, 0, 4, 6);
    if (P > 1)
      LOAD(7, b + k->b_next);
    put_lines(before, each, K, 2);
    if (P > 1)
      DP(K, 1, 4, 7);
    if (R > 1) {
      LOAD(5, a + k->a_next);
      DP(K, 2, 5, 6);
      if (P > 1)
        DP(K, 3, 5, 7);
    }
  }
}

/* 1 x P blocks of three parts: H in 0 and 1, M in 2 and 3. */
PF_INLINE void steps_x3(const block *k, outgoing *before, size_t each, const int P) {
  const char *a = k->a, *b = k->b, *f = k->fetch;
  for (size_t s = 0; s < k->steps; s++, a += 3 * PF_TILE_BYTES, b += PF_TILE_BYTES, f += 512) {
    LOAD(6, b);
    LOAD(4, a + PF_TILE_BYTES);
    fetch_next(f);
    _tile_dpbf16ps(2, 4, 6);
    if (P > 1) {
      LOAD(7, b + k->b_next);
      _tile_dpbf16ps(3, 4, 7);
    }
    LOAD(5, a);
    put_lines(before, each, X3, 2);
    _tile_dpbf16ps(0, 5, 6);
    if (P > 1)
      _tile_dpbf16ps(1, 5, 7);
    LOAD(4, a + 2 * PF_TILE_BYTES);
    _tile_dpbf16ps(2, 4, 6);
    if (P > 1)
      _tile_dpbf16ps(3, 4, 7);
  }
}

PF_INLINE void zero_tiles(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

/* Accumulators to and from memory: tile n of the block at c + 256 n, for the tiles that it has.
 * Tile numbers are r*2 + p, of x3 part*2 + p. */
PF_INLINE void load_tiles(const float *c, const int R, const int P) {
  LOAD(0, c);
  if (P > 1)
    LOAD(1, c + 256);
  if (R > 1)
    LOAD(2, c + P * 256);
  if (R > 1 && P > 1)
    LOAD(3, c + 768);
}

PF_INLINE void store_tiles(float *c, const int R, const int P) {
  STORE(0, c);
  if (P > 1)
    STORE(1, c + 256);
  if (R > 1)
    STORE(2, c + P * 256);
  if (R > 1 && P > 1)
    STORE(3, c + 768);
}

/* ---- the whole product ------------------------------------------------------------------------
 */

typedef struct product {
  const pf_gemm *g;
  size_t row_tiles, panels, steps; /* steps: tiles along K */
  size_t a_tile, a_step;           /* bytes of a row tile's operands, and of one step of them */
  size_t group;                    /* s8: steps of a group */
  outgoing out;                    /* of the block before */
  float *result;                   /* two buffers of SLOT floats, used in turn */
  int turn;
} product;

/* What is left of the block before. */
PF_INLINE void finish(product *q, const kind K) {
  put_lines(&q->out, q->out.lines, K, 2);
  q->out.lines = q->out.next = 0;
}

/* Sends the stored block at c out: at once if it is narrow, else with the next block's steps. */
PF_INLINE void send(product *q, const float *c, size_t i, size_t j, const kind K, const int R,
                    const int P) {
  outgoing *o = &q->out;
  size_t rows = q->g->m - i * 16 < 16u * (unsigned)R ? q->g->m - i * 16 : 16u * (unsigned)R;
  o->c = c;
  o->y = q->g->y + i * 16 * q->g->ldy + j * 16;
  o->ldy = q->g->ldy;
  o->lines = rows * (size_t)P;
  o->next = 0;
  o->p0 = j;
  o->g = q->g;
  if (P == 1) {
    put_lines(o, o->lines, K, 1);
    o->lines = o->next = 0;
  }
}

static inline float *result(product *q) {
  q->turn ^= 1;
  return q->result + q->turn * SLOT;
}

PF_INLINE block at_block(const product *q, size_t i, size_t j, size_t k, size_t n) {
  const char *w = q->g->w;
  size_t panel = q->steps * PF_TILE_BYTES;
  return (block){(const char *)q->g->a + i * q->a_tile + k * q->a_step,
                 w + j * panel + k * PF_TILE_BYTES,
                 q->a_tile,
                 panel,
                 n,
                 w};
}

static inline size_t lines_a_step(const product *q, size_t steps) {
  return (q->out.lines + steps - 1) / steps;
}

/* One block of bf16 or x3 over the piece [k, k + n) of K. */
PF_INLINE void one_piece(product *q, size_t i, size_t j, size_t k, size_t n, float *slot,
                         const char *fetch, const kind K, const int R, const int P) {
  const int RT = K == X3 ? 2 : R; /* H and M stand like two row tiles */
  int last = k + n == q->steps;
  block b = at_block(q, i, j, k, n);
  b.fetch = fetch;
  if (P == 1)
    finish(q, K);
  if (k)
    load_tiles(slot, RT, P);
  else
    zero_tiles();
  size_t each = lines_a_step(q, n);
  if (K == X3)
    steps_x3(&b, &q->out, each, P);
  else
    steps(&b, &q->out, each, K, R, P);
  finish(q, K);
  float *c = last ? result(q) : slot;
  store_tiles(c, RT, P);
  if (last)
    send(q, c, i, j, K, R, P);
}

/* One block of s8 over the groups of the piece [k, k + n) of K. */
PF_INLINE void one_piece_s8(product *q, size_t i, size_t j, size_t k, size_t n, float *slot,
                            const char *fetch, const int R, const int P) {
  const pf_gemm *g = q->g;
  size_t groups = (q->steps + q->group - 1) / q->group;
  for (size_t s = k; s < k + n; s += q->group) {
    size_t len = k + n - s < q->group ? k + n - s : q->group, t = s / q->group;
    block b = at_block(q, i, j, s, len);
    b.fetch = fetch + (s - k) * 512;
    if (P == 1)
      finish(q, S8);
    zero_tiles();
    steps(&b, &q->out, lines_a_step(q, len), S8, R, P);
    finish(q, S8);
    float *c = result(q);
    store_tiles(c, R, P);
    q->out.acc = slot;
    q->out.sa =
        (const float *)(const void *)((const char *)g->a + i * q->a_tile + 16 * g->kp) + t * 16;
    q->out.sa_tile = q->a_tile / sizeof(float);
    q->out.sw = g->ws + (j * groups + t) * 16;
    q->out.sw_panel = groups * 16;
    q->out.first = s == 0;
    q->out.last = s + len == q->steps;
    send(q, c, i, j, S8, R, P);
  }
}

PF_INLINE void any_piece(product *q, size_t i, size_t j, size_t k, size_t n, float *slot,
                         const char *fetch, const kind K, const int R, const int P) {
  if (K == S8)
    one_piece_s8(q, i, j, k, n, slot, fetch, R, P);
  else
    one_piece(q, i, j, k, n, slot, fetch, K, R, P);
}

/* Row tiles [i0, i1) x the panels j and (P 2) j + 1 over a piece of K. slots: one a block. */
PF_INLINE void row_tiles(product *q, size_t i0, size_t i1, size_t j, size_t k, size_t n,
                         float *slots, const kind K, const int P) {
  const size_t R = K == X3 ? 1 : 2;
  /* The rows share the fetching of the panels that come next. */
  const char *f = (const char *)q->g->w + ((j + 2) * q->steps + k) * PF_TILE_BYTES;
  size_t i = i0;
  for (; i + R <= i1; i += R, slots += SLOT, f += n * 512) {
    if (R == 2)
      any_piece(q, i, j, k, n, slots, f, K, 2, P);
    else
      any_piece(q, i, j, k, n, slots, f, K, 1, P);
  }
  if (i < i1)
    any_piece(q, i, j, k, n, slots, f, K, 1, P);
}

PF_INLINE void cut(product *q, size_t rows, size_t panels, size_t piece, const kind K) {
  float *work = q->g->work;
  size_t blocks = K == X3 ? rows : rows / 2;
  for (size_t i = 0, i1; i < q->row_tiles; i = i1) {
    i1 = i + rows < q->row_tiles ? i + rows : q->row_tiles;
    for (size_t j0 = 0, j1; j0 < q->panels; j0 = j1) {
      j1 = j0 + panels < q->panels ? j0 + panels : q->panels;
      for (size_t k = 0, n; k < q->steps; k += n) {
        n = q->steps - k < piece ? q->steps - k : piece;
        for (size_t j = j0; j < j1; j += 2) {
          float *slots = work + (j - j0) / 2 * blocks * SLOT;
          if (j + 1 < j1)
            row_tiles(q, i, i1, j, k, n, slots, K, 2);
          else
            row_tiles(q, i, i1, j, k, n, slots, K, 1);
        }
      }
    }
  }
  finish(q, K);
}

/* ---- few rows ---------------------------------------------------------------------------------
 */

PF_INLINE void fetch_tile(const char *p) {
  for (int i = 0; i < PF_TILE_BYTES; i += 64)
    _mm_prefetch(p + i, _MM_HINT_T0);
}

/* P panels from panel j over [k, k + n): bf16 and s8 accumulate in tiles 0..P-1 (P <= 4); tile 4
 * has the rows, 5 to 7 weights. */
PF_INLINE void few_steps(const block *k, const kind K, const int P) {
  const char *a = k->a, *b = k->b;
  size_t next = k->b_next;
  for (size_t s = 0; s < k->steps; s++, a += PF_TILE_BYTES, b += PF_TILE_BYTES) {
    LOAD(4, a);
    LOAD(5, b);
    fetch_tile(b + LOOKAHEAD);
    DP(K, 0, 4, 5);
    if (P > 1) {
      LOAD(6, b + next);
      fetch_tile(b + next + LOOKAHEAD);
      DP(K, 1, 4, 6);
    }
    if (P > 2) {
      LOAD(7, b + 2 * next);
      fetch_tile(b + 2 * next + LOOKAHEAD);
      DP(K, 2, 4, 7);
      LOAD(5, b + 3 * next);
      fetch_tile(b + 3 * next + LOOKAHEAD);
      DP(K, 3, 4, 5);
    }
  }
}

PF_INLINE void few_steps_x3(const block *k, const int P) {
  const char *a = k->a, *b = k->b;
  for (size_t s = 0; s < k->steps; s++, a += 3 * PF_TILE_BYTES, b += PF_TILE_BYTES) {
    LOAD(6, b);
    fetch_tile(b + LOOKAHEAD);
    LOAD(4, a + PF_TILE_BYTES);
    _tile_dpbf16ps(2, 4, 6);
    LOAD(5, a);
    _tile_dpbf16ps(0, 5, 6);
    if (P > 1) {
      LOAD(7, b + k->b_next);
      fetch_tile(b + k->b_next + LOOKAHEAD);
      _tile_dpbf16ps(3, 4, 7);
      _tile_dpbf16ps(1, 5, 7);
    }
    LOAD(4, a + 2 * PF_TILE_BYTES);
    _tile_dpbf16ps(2, 4, 6);
    if (P > 1)
      _tile_dpbf16ps(3, 4, 7);
  }
}

PF_INLINE void few_panels(product *q, size_t j, const kind K, const int P) {
  const pf_gemm *g = q->g;
  size_t groups = (q->steps + q->group - 1) / q->group;
  for (size_t s = 0; s < q->steps; s += q->group) {
    size_t len = q->steps - s < q->group ? q->steps - s : q->group, t = s / q->group;
    block b = at_block(q, 0, j, s, len);
    outgoing o = {.c = q->result, .y = g->y + j * 16, .ldy = g->ldy, .p0 = j, .g = g};
    o.lines = g->m * (size_t)P;
    o.acc = q->result + 4 * 256;
    o.sa = (const float *)(const void *)((const char *)g->a + 16 * g->kp) + t * 16;
    o.sw = K == S8 ? g->ws + (j * groups + t) * 16 : NULL;
    o.sw_panel = groups * 16;
    o.first = s == 0;
    o.last = s + len == q->steps;
    zero_tiles();
    if (K == X3)
      few_steps_x3(&b, P);
    else
      few_steps(&b, K, P);
    if (K == X3) {
      store_tiles(q->result, 2, P);
    } else {
      STORE(0, q->result);
      if (P > 1)
        STORE(1, q->result + 256);
      if (P > 2) {
        STORE(2, q->result + 512);
        STORE(3, q->result + 768);
      }
    }
    put_lines(&o, o.lines, K, (size_t)P);
  }
}

PF_INLINE void few_rows(product *q, const kind K) {
  const size_t wide = K == X3 ? 2 : 4;
  size_t j = 0;
  if (K == X3)
    for (; j + wide <= q->panels; j += wide)
      few_panels(q, j, K, 2);
  else
    for (; j + wide <= q->panels; j += wide)
      few_panels(q, j, K, 4);
  for (; j < q->panels; j++)
    few_panels(q, j, K, 1);
}

/* ---- entries ----------------------------------------------------------------------------------
 */

PF_INLINE void run(const pf_gemm *g, size_t rows, size_t panels, size_t piece, const kind K) {
  float buffers[2 * SLOT] __attribute__((aligned(64)));
  size_t tile_k = K == S8 ? 64 : 32, parts = K == X3 ? 3 : 1;
  product q = {.g = g,
               .row_tiles = (g->m + 15) / 16,
               .panels = (g->n + 15) / 16,
               .steps = g->kp / tile_k,
               .a_step = parts * PF_TILE_BYTES,
               .result = buffers};
  q.a_tile = q.steps * q.a_step;
  q.group = q.steps;
  if (K == S8) {
    size_t groups = (g->kp + g->group - 1) / g->group;
    q.a_tile += 64 * groups;
    q.group = g->group / 64;
    piece = piece / q.group ? piece / q.group * q.group : q.group;
  }
  if (q.row_tiles == 1) {
    pf_amx_enter((unsigned)g->m, 0x3f & ~(K == X3 ? 0u : 0x20u));
    few_rows(&q, K);
  } else {
    pf_amx_enter(16, 0);
    cut(&q, rows, panels, piece, K);
  }
  pf_amx_leave();
}

void pf_gemm_bf16_amx(const pf_gemm *g) {
  run(g, BF16_ROWS, BF16_PANELS, BF16_K, BF16);
}

void pf_gemm_x3_bf16_amx(const pf_gemm *g) {
  run(g, X3_ROWS, X3_PANELS, X3_K, X3);
}

void pf_gemm_s8_amx(const pf_gemm *g) {
  run(g, S8_ROWS, S8_PANELS, S8_K, S8);
}
