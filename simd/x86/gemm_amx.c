/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "gemm_bf16", "gemm_x3_bf16", "gemm_s8" on AMX. `tdpbf16ps` is the contract's block of
 * 32 k as it stands (E, O, acc + (E + O), denormals as zero); `tdpbssd` sums exactly. A product is
 * cut into
 *
 *   groups of panels x groups of row tiles x pieces of K x triples of panels x row tiles
 *
 * from outside to inside: a piece of the activations stays in the second-level cache while the
 * panels pass by, a triple of panels while the row tiles pass, and a group of panels that came from
 * memory is still in the last-level cache when the next row tiles need it. Accumulators that wait
 * for their next piece of K lie in g->work, which is exact.
 *
 * Six tiles accumulate and two hold operands. The tiles are renamed, so that two are enough, and 2
 * x 3 blocks read a sixth less of the second-level cache than 2 x 2 blocks. What a block gave goes
 * to y while the next block is multiplied, three lines after each tile of K and past the caches:
 * all at once, or waiting for the lines of y, the stores would stall the loads, which limit the
 * product. The loops with tile instructions are small functions without branches that could be
 * mispredicted. doc/KERNELS.md has the measurements. */
#include <string.h>

#include "base/mem.h"
#include "simd/kernels.h"
#include "simd/x86/operand_amx.h"

#define PF_INLINE static inline __attribute__((always_inline))

/* Sizes of the cut: row tiles, panels, and tiles along K. A block's accumulators (SLOT) fit work.
 */
enum {
  BF16_ROWS = 12,
  BF16_PANELS = 30,
  BF16_K = 72,
  X3_ROWS = 4,
  X3_PANELS = 48,
  X3_K = 72,
  S8_ROWS = 24,
  S8_PANELS = 12,
  S8_K = 36,
  TILE = 256,       /* floats of a tile */
  SLOT = 6 * TILE,  /* of a block's accumulators */
  LOOKAHEAD = 2048, /* bytes of a panel that are fetched ahead for few rows */
};
_Static_assert(BF16_ROWS / 2 * (BF16_PANELS / 3) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");
_Static_assert(X3_ROWS *(X3_PANELS / 3) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");
_Static_assert(S8_ROWS / 2 * (S8_PANELS / 3) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");

typedef enum kind { BF16, X3, S8 } kind;

/* ---- from tiles to y --------------------------------------------------------------------------
 */

/* A block of accumulators on its way out, three lines (a line: 16 columns of a row) at a time:
 * those of one row. Panels that a block lacks have an empty mask. */
typedef struct outgoing {
  const float *c; /* H of x3, whose M stands M_AT floats behind; s8: int32 */
  float *y;
  size_t c_next;    /* floats from a panel's tile to the next panel's */
  size_t ldy, left; /* left: rows */
  int stream;       /* whole cache lines of y: stored past the caches */
  __mmask16 mask[3];
  __m512 bias[3];
  /* s8: the sums of a group are scaled and added to acc, which lies as c does. */
  float *acc;
  const float *sa; /* the row scales */
  __m512 sw[3];
  int first, last; /* of the product's groups */
} outgoing;

enum { M_AT = 3 * TILE };

static inline __mmask16 columns(const pf_gemm *g, size_t panel) {
  size_t left = g->n > panel * 16 ? g->n - panel * 16 : 0;
  return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

PF_INLINE void put_line(const outgoing *o, const int l, const kind K, const int stream) {
  const float *c = o->c + (size_t)l * o->c_next;
  float *y = o->y + (size_t)l * 16;
  __m512 v = _mm512_load_ps(c);
  if (K == X3)
    v = _mm512_add_ps(v, _mm512_load_ps(c + M_AT));
  if (K == S8) {
    float *acc = o->acc + (size_t)l * o->c_next;
    __m512 scale = _mm512_mul_ps(_mm512_set1_ps(*o->sa), o->sw[l]);
    v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(v)), scale,
                        o->first ? _mm512_setzero_ps() : _mm512_load_ps(acc));
    if (!o->last) {
      _mm512_store_ps(acc, v);
      return;
    }
  }
  /* The bias of a product without one is +0, which changes nothing after this +0. */
  v = _mm512_add_ps(_mm512_add_ps(v, _mm512_setzero_ps()), o->bias[l]);
  if (stream)
    _mm512_stream_ps(y, v);
  else
    _mm512_mask_storeu_ps(y, o->mask[l], v);
}

PF_INLINE void put_row(outgoing *o, const kind K, const int stream) {
  put_line(o, 0, K, stream);
  put_line(o, 1, K, stream);
  put_line(o, 2, K, stream);
  o->c += 16;
  o->y += o->ldy;
  if (K == S8)
    o->acc += 16, o->sa++;
}

/* ---- one block over one piece of K ------------------------------------------------------------
 */

/* Tiles 0..5 accumulate, 6 holds activations, 7 weights. Of blocks of two row tiles x three panels,
 * row tile r and panel p accumulate in 2 p + r; of x3, one row tile, H in p and M in 3 + p. Smaller
 * blocks leave tiles out. */
#define LOAD(t, p)  _tile_loadd(t, p, 64)
#define STORE(t, p) _tile_stored(t, p, 64)

typedef struct block {
  const char *a, *b;     /* first tile of row tile 0, of panel 0 */
  size_t a_next, b_next; /* bytes to the next row tile and panel */
  size_t steps;          /* tiles along K */
} block;

#define DP(K, c)                                                                                   \
  do {                                                                                             \
    if ((K) == S8)                                                                                 \
      _tile_dpbssd(c, 6, 7);                                                                       \
    else                                                                                           \
      _tile_dpbf16ps(c, 6, 7);                                                                     \
  } while (0)

/* Activations a with P panels at b into c0, c1, c2: from the first panel to the last, and the other
 * way. */
#define FORTH(K, P, a, b, next, c0, c1, c2)                                                        \
  do {                                                                                             \
    LOAD(6, a);                                                                                    \
    LOAD(7, b);                                                                                    \
    DP(K, c0);                                                                                     \
    if ((P) > 1) {                                                                                 \
      LOAD(7, (b) + (next));                                                                       \
      DP(K, c1);                                                                                   \
    }                                                                                              \
    if ((P) > 2) {                                                                                 \
      LOAD(7, (b) + 2 * (next));                                                                   \
      DP(K, c2);                                                                                   \
    }                                                                                              \
  } while (0)
#define BACK(K, P, a, b, next, c0, c1, c2)                                                         \
  do {                                                                                             \
    LOAD(6, a);                                                                                    \
    if ((P) > 2) {                                                                                 \
      DP(K, c2);                                                                                   \
      LOAD(7, (b) + (next));                                                                       \
    }                                                                                              \
    if ((P) > 1) {                                                                                 \
      DP(K, c1);                                                                                   \
      LOAD(7, b);                                                                                  \
    }                                                                                              \
    DP(K, c0);                                                                                     \
  } while (0)
PF_INLINE void step(const char *a, size_t a_next, const char *b, size_t b_next, const kind K,
                    const int R, const int P) {
  if (K == X3) {
    FORTH(K, P, a + PF_TILE_BYTES, b, b_next, 3, 4, 5);
    BACK(K, P, a, b, b_next, 0, 1, 2);
    FORTH(K, P, a + 2 * PF_TILE_BYTES, b, b_next, 3, 4, 5);
  } else {
    FORTH(K, P, a, b, b_next, 0, 2, 4);
    if (R > 1)
      BACK(K, P, a + a_next, b, b_next, 1, 3, 5);
  }
}

/* The first steps of a block take rows of the block before along. */
PF_INLINE void steps(const block *k, outgoing *before, const kind K, const int R, const int P,
                     const int stream) {
  outgoing o = *before;
  const char *a = k->a, *b = k->b;
  size_t a_next = k->a_next, b_next = k->b_next;
  const size_t a_step = (K == X3 ? 3 : 1) * PF_TILE_BYTES;
  size_t with = o.left < k->steps ? o.left : k->steps;
  before->left = o.left - with;
  for (size_t n = with; n; n--, a += a_step, b += PF_TILE_BYTES) {
    step(a, a_next, b, b_next, K, R, P);
    put_row(&o, K, stream);
  }
  for (size_t n = k->steps - with; n; n--, a += a_step, b += PF_TILE_BYTES)
    step(a, a_next, b, b_next, K, R, P);
  for (size_t n = before->left; n; n--)
    put_row(&o, K, stream);
  before->left = 0;
}

#define STEPS(name, K, R, P)                                                                       \
  static __attribute__((noinline)) void name(const block *k, outgoing *before) {                   \
    if (before->stream)                                                                            \
      steps(k, before, K, R, P, 1);                                                                \
    else                                                                                           \
      steps(k, before, K, R, P, 0);                                                                \
  }
STEPS(bf16_23, BF16, 2, 3)
STEPS(bf16_22, BF16, 2, 2)
STEPS(bf16_21, BF16, 2, 1)
STEPS(bf16_13, BF16, 1, 3)
STEPS(bf16_12, BF16, 1, 2)
STEPS(bf16_11, BF16, 1, 1)
STEPS(x3_13, X3, 1, 3)
STEPS(x3_12, X3, 1, 2)
STEPS(x3_11, X3, 1, 1)
STEPS(s8_23, S8, 2, 3)
STEPS(s8_22, S8, 2, 2)
STEPS(s8_21, S8, 2, 1)
STEPS(s8_13, S8, 1, 3)
STEPS(s8_12, S8, 1, 2)
STEPS(s8_11, S8, 1, 1)

typedef void steps_fn(const block *, outgoing *);

/* [row tiles - 1][panels - 1] */
typedef steps_fn *const shapes[2][3];

static const shapes shapes_of[] = {
    [BF16] = {{bf16_11, bf16_12, bf16_13}, {bf16_21, bf16_22, bf16_23}},
    [X3] = {{x3_11, x3_12, x3_13}},
    [S8] = {{s8_11, s8_12, s8_13}, {s8_21, s8_22, s8_23}},
};

static inline void zero_tiles(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
}

/* Accumulators to and from memory; tiles that a smaller block lacks go along. */
static inline void load_tiles(const float *c) {
  LOAD(0, c);
  LOAD(1, c + TILE);
  LOAD(2, c + 2 * TILE);
  LOAD(3, c + 3 * TILE);
  LOAD(4, c + 4 * TILE);
  LOAD(5, c + 5 * TILE);
}

static inline void store_tiles(float *c) {
  STORE(0, c);
  STORE(1, c + TILE);
  STORE(2, c + 2 * TILE);
  STORE(3, c + 3 * TILE);
  STORE(4, c + 4 * TILE);
  STORE(5, c + 5 * TILE);
}

/* ---- the whole product ------------------------------------------------------------------------
 */

typedef struct product {
  const pf_gemm *g;
  kind kind;
  size_t unit;                     /* row tiles of a block */
  size_t row_tiles, panels, steps; /* steps: tiles along K */
  size_t a_tile, a_step;           /* bytes of a row tile's operands, and of one step of them */
  size_t group, groups;            /* s8: steps of a group */
  outgoing out;                    /* of the block before */
  float *result;                   /* its sums, SLOT floats */
  float sa[32];                    /* s8: its row scales */
} product;

/* A block: R row tiles from i, P panels from j; where its sums wait. */
typedef struct spot {
  size_t i, j, R, P;
  float *slot;
} spot;

/* What is left of the block before. */
static void finish(product *q) {
  outgoing *o = &q->out;
  for (; o->left; o->left--)
    if (q->kind == BF16)
      put_row(o, BF16, 0);
    else if (q->kind == X3)
      put_row(o, X3, 0);
    else
      put_row(o, S8, 0);
}

static void send_panels(outgoing *o, const pf_gemm *g, const spot *s) {
  o->stream = g->ldy % 16 == 0 && (uintptr_t)o->y % 64 == 0;
  for (size_t l = 0; l < 3; l++) {
    size_t j = s->j + l;
    o->mask[l] = l < s->P ? columns(g, j) : 0;
    o->stream = o->stream && o->mask[l] == 0xffff;
    o->bias[l] =
        g->bias ? _mm512_maskz_loadu_ps(o->mask[l], g->bias + j * 16) : _mm512_setzero_ps();
  }
}

/* The stored block at c goes out with the next block's steps. */
static void send(product *q, const float *c, const spot *s) {
  const pf_gemm *g = q->g;
  outgoing *o = &q->out;
  size_t rows = g->m - s->i * 16 < 16 * s->R ? g->m - s->i * 16 : 16 * s->R;
  o->c = c;
  o->y = g->y + s->i * 16 * g->ldy + s->j * 16;
  o->c_next = q->kind == X3 ? TILE : 2 * TILE;
  o->ldy = g->ldy;
  o->left = rows;
  send_panels(o, g, s);
}

/* And with it the scales of group t. */
static void send_s8(product *q, const spot *s, size_t t, float *acc) {
  const pf_gemm *g = q->g;
  outgoing *o = &q->out;
  const char *a = (const char *)g->a + s->i * q->a_tile + 16 * g->kp + t * 64;
  for (size_t r = 0; r < s->R; r++, a += q->a_tile)
    memcpy(q->sa + r * 16, a, 64);
  o->acc = acc;
  o->sa = q->sa;
  for (size_t l = 0; l < 3; l++) {
    size_t j = l < s->P ? s->j + l : s->j;
    o->sw[l] = _mm512_loadu_ps(g->ws + (j * q->groups + t) * 16);
  }
  o->first = t == 0;
  o->last = t + 1 == q->groups;
}

/* A block over n steps from k; the block before has left when it returns. */
static void multiply(product *q, const spot *s, size_t k, size_t n) {
  size_t panel = q->steps * PF_TILE_BYTES;
  block b = {(const char *)q->g->a + s->i * q->a_tile + k * q->a_step,
             (const char *)q->g->w + s->j * panel + k * PF_TILE_BYTES, q->a_tile, panel, n};
  shapes_of[q->kind][s->R - 1][s->P - 1](&b, &q->out);
}

/* One block of bf16 or x3 over the piece [k, k + n) of K. */
static void one_piece(product *q, const spot *s, size_t k, size_t n) {
  int last = k + n == q->steps;
  if (k)
    load_tiles(s->slot);
  else
    zero_tiles();
  multiply(q, s, k, n);
  if (!last) {
    store_tiles(s->slot);
    return;
  }
  store_tiles(q->result);
  send(q, q->result, s);
}

/* One block of s8 over the groups of the piece [k, k + n) of K. */
static void one_piece_s8(product *q, const spot *s, size_t k, size_t n) {
  for (size_t t = k; t < k + n; t += q->group) {
    zero_tiles();
    multiply(q, s, t, k + n - t < q->group ? k + n - t : q->group);
    store_tiles(q->result);
    send(q, q->result, s);
    send_s8(q, s, t / q->group, s->slot);
  }
}

static void any_piece(product *q, const spot *s, size_t k, size_t n) {
  if (q->kind == S8)
    one_piece_s8(q, s, k, n);
  else
    one_piece(q, s, k, n);
}

/* Row tiles [i0, i1) x P panels from j over a piece of K. slots: one a block. */
static void row_tiles(product *q, size_t i0, size_t i1, size_t j, size_t P, size_t k, size_t n,
                      float *slots) {
  for (size_t i = i0; i < i1; i += q->unit, slots += SLOT) {
    spot s = {i, j, i1 - i < q->unit ? i1 - i : q->unit, P, slots};
    any_piece(q, &s, k, n);
  }
}

/* As pf_even_part, in multiples of `unit`. */
static size_t even_units(size_t n, size_t most, size_t unit) {
  return pf_round_up(pf_even_part(n, most), unit);
}

static void cut(product *q, size_t rows, size_t panels, size_t piece) {
  float *work = q->g->work;
  size_t blocks = rows / q->unit;
  rows = even_units(q->row_tiles, rows, q->unit);
  piece = even_units(q->steps, piece, q->kind == S8 ? q->group : 1);
  for (size_t j0 = 0, j1; j0 < q->panels; j0 = j1) {
    j1 = j0 + panels < q->panels ? j0 + panels : q->panels;
    for (size_t i = 0, i1; i < q->row_tiles; i = i1) {
      i1 = i + rows < q->row_tiles ? i + rows : q->row_tiles;
      for (size_t k = 0, n; k < q->steps; k += n) {
        n = q->steps - k < piece ? q->steps - k : piece;
        for (size_t j = j0; j < j1; j += 3)
          row_tiles(q, i, i1, j, j1 - j < 3 ? j1 - j : 3, k, n,
                    work + (j - j0) / 3 * blocks * SLOT);
      }
    }
  }
  finish(q);
  _mm_sfence();
}

/* ---- few rows ---------------------------------------------------------------------------------
 */

PF_INLINE void fetch_tile(const char *p) {
  for (int i = 0; i < PF_TILE_BYTES; i += 64)
    _mm_prefetch(p + i, _MM_HINT_T0);
}

/* P panels, up to six, in tiles 0..P-1. */
PF_INLINE void few_steps(const block *k, const kind K, const int P) {
  const char *a = k->a, *b = k->b;
  size_t next = k->b_next;
#define FEW(c)                                                                                     \
  if (P > (c)) {                                                                                   \
    LOAD(7, b + (c)*next);                                                                         \
    fetch_tile(b + (c)*next + LOOKAHEAD);                                                          \
    DP(K, c);                                                                                      \
  }
  for (size_t s = 0; s < k->steps; s++, a += PF_TILE_BYTES, b += PF_TILE_BYTES) {
    LOAD(6, a);
    FEW(0)
    FEW(1)
    FEW(2)
    FEW(3)
    FEW(4)
    FEW(5)
  }
#undef FEW
}

/* P panels, up to three. */
PF_INLINE void few_steps_x3(const block *k, const int P) {
  const char *a = k->a, *b = k->b;
  for (size_t s = 0; s < k->steps; s++, a += 3 * PF_TILE_BYTES, b += PF_TILE_BYTES) {
    step(a, 0, b, k->b_next, X3, 1, P);
    for (int p = 0; p < P; p++)
      fetch_tile(b + (size_t)p * k->b_next + LOOKAHEAD);
  }
}

PF_INLINE void few_panels(product *q, size_t j, const kind K, const int P) {
  const size_t W = P > 3 ? 3 : (size_t)P;
  float acc[SLOT] __attribute__((aligned(64)));
  for (size_t s = 0; s < q->steps; s += q->group) {
    size_t len = q->steps - s < q->group ? q->steps - s : q->group,
           panel = q->steps * PF_TILE_BYTES;
    block b = {(const char *)q->g->a + s * q->a_step,
               (const char *)q->g->w + j * panel + s * PF_TILE_BYTES, 0, panel, len};
    zero_tiles();
    if (K == X3)
      few_steps_x3(&b, P);
    else
      few_steps(&b, K, P);
    store_tiles(q->result);
    for (size_t p = 0; p < (size_t)P; p += W) {
      spot at = {0, j + p, 1, W, NULL};
      send(q, q->result + p * TILE, &at);
      q->out.c_next = TILE;
      if (K == S8)
        send_s8(q, &at, s / q->group, acc + p * TILE);
      finish(q);
    }
  }
}

PF_INLINE void few_rows(product *q, const kind K) {
  size_t j = 0;
  if (K == X3)
    for (; j + 3 <= q->panels; j += 3)
      few_panels(q, j, K, 3);
  else
    for (; j + 6 <= q->panels; j += 6)
      few_panels(q, j, K, 6);
  for (; j < q->panels; j++)
    few_panels(q, j, K, 1);
}

/* ---- entries ----------------------------------------------------------------------------------
 */

static void few(product *q) {
  pf_amx_enter((unsigned)q->g->m, 0x7f);
  if (q->kind == BF16)
    few_rows(q, BF16);
  else if (q->kind == X3)
    few_rows(q, X3);
  else
    few_rows(q, S8);
}

static void run(const pf_gemm *g, size_t rows, size_t panels, size_t piece, kind K) {
  float sums[SLOT] __attribute__((aligned(64)));
  size_t tile_k = K == S8 ? 64 : 32, parts = K == X3 ? 3 : 1;
  product q = {.g = g,
               .kind = K,
               .unit = K == X3 ? 1 : 2,
               .row_tiles = (g->m + 15) / 16,
               .panels = (g->n + 15) / 16,
               .steps = g->kp / tile_k,
               .a_step = parts * PF_TILE_BYTES,
               .result = sums};
  q.a_tile = q.steps * q.a_step;
  q.group = K == S8 ? g->group / 64 : q.steps;
  q.groups = (q.steps + q.group - 1) / q.group;
  if (K == S8)
    q.a_tile += 64 * q.groups;
  if (q.row_tiles == 1) {
    few(&q);
  } else {
    pf_amx_enter(16, 0);
    cut(&q, rows, panels, piece);
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
