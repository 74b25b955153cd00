/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "gemm_bf16", "gemm_x3_bf16", "gemm_s8" on AMX. `tdpbf16ps` is the contract's block of
 * 32 k as it stands (E, O, acc + (E + O), denormals as zero); `tdpbssd` sums exactly.
 *
 * Six tiles accumulate and two hold operands: blocks of two row tiles x three panels (x3: one row
 * tile, H and M). A job is one chunk of K (some steps; of int8 a group) of three panels for some
 * row tiles: the chunk stays in the first-level cache while the rows pass it from the second, by
 * loads that leave little of them in the first. Between two chunks the accumulators lie in g->work,
 * which is exact. Jobs come in one of two orders (resident or not, see next_job), so that the
 * activations or the accumulators stay in the second level, and each fetches its share of the
 * weights of the next job: spread evenly, because fetches and loads share the line buffers of the
 * first level.
 *
 * What a block gave goes to y, past the caches, or of int8 into the fp32 sums, while the next block
 * is multiplied. The loops with tile instructions are small functions without branches that could
 * be mispredicted. doc/KERNELS.md has the measurements. */
#include <string.h>

#include "simd/kernels.h"
#include "simd/x86/operand_amx.h"

typedef enum kind { BF16, X3, S8 } kind;

enum {
  TILE = 256,            /* values of a tile */
  SLOT = 6 * TILE,       /* of a block's accumulators */
  PANELS = 24,           /* of a group of panels whose accumulators wait together */
  BLOCKS = 8,            /* of row tiles, likewise */
  CHUNK = 12,            /* steps of bf16 and x3: 36 KB of weights */
  RESIDENT_TILES = 32,   /* row tiles that may stay in the second-level cache, */
  RESIDENT = 1152 << 10, /* and their bytes */
  RESIDENT_PANELS = 96,  /* while these pass */
  LOOKAHEAD = 1024,      /* bytes of a panel that are fetched ahead for few rows */
};
_Static_assert(BLOCKS *(PANELS / 3) * SLOT * 4 <= PF_GEMM_WORK, "slots fit");
_Static_assert(RESIDENT_TILES *SLOT * 4 <= PF_GEMM_WORK, "slots fit");

/* ---- from tiles to y --------------------------------------------------------------------------
 */

/* Where lines go: masked into y, past the caches into y, or (int8) into the sums. */
typedef enum way { NOWHERE, LINES, STREAM, SUMS } way;

/* A block of accumulators on its way out, three lines (a line: 16 columns of a row) at a time:
 * those of one row. Panels that a block lacks have an empty mask. */
typedef struct outgoing {
  const float *c; /* H of x3, whose M stands M_AT floats behind; s8: int32 */
  float *y;
  size_t c_next;    /* floats from a panel's tile to the next panel's */
  size_t ldy, left; /* left: rows */
  way way;
  __mmask16 mask[3];
  __m512 bias[3];
  /* s8: the sums of a group are scaled and added to the sums before, at `from`, which lie as c does
   * or are zeros, from_row = from_next = 0. They go to acc unless they are the last. */
  const float *from;
  size_t from_row, from_next;
  float *acc;
  const float *sa; /* the row scales */
  __m512 sw[3];
} outgoing;

enum { M_AT = 3 * TILE };

static const float zeros[16] __attribute__((aligned(64)));

static inline __mmask16 columns(const pf_gemm *g, size_t panel) {
  size_t left = g->n > panel * 16 ? g->n - panel * 16 : 0;
  return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

PF_INLINE void put_line(const outgoing *o, const int l, const kind K, const way to) {
  if (to == STREAM && !o->mask[l])
    return;
  const float *c = o->c + (size_t)l * o->c_next;
  float *y = o->y + (size_t)l * 16;
  __m512 v = _mm512_load_ps(c);
  if (K == X3)
    v = _mm512_add_ps(v, _mm512_load_ps(c + M_AT));
  if (K == S8) {
    __m512 scale = _mm512_mul_ps(_mm512_set1_ps(*o->sa), o->sw[l]);
    v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(v)), scale,
                        _mm512_load_ps(o->from + (size_t)l * o->from_next));
    if (to == SUMS) {
      _mm512_store_ps(o->acc + (size_t)l * o->c_next, v);
      return;
    }
  }
  /* The bias of a product without one is +0, which changes nothing after this +0. */
  v = _mm512_add_ps(_mm512_add_ps(v, _mm512_setzero_ps()), o->bias[l]);
  if (to == STREAM)
    _mm512_stream_ps(y, v);
  else
    _mm512_mask_storeu_ps(y, o->mask[l], v);
}

PF_INLINE void put_rows(outgoing *o, size_t n, const kind K, const way to) {
  for (; n; n--) {
    put_line(o, 0, K, to);
    put_line(o, 1, K, to);
    put_line(o, 2, K, to);
    o->c += 16;
    o->y += o->ldy;
    if (K == S8) {
      o->from += o->from_row;
      o->acc += 16;
      o->sa++;
    }
  }
}

/* What is left of the block before. */
static void finish(outgoing *o, kind K) {
  if (K == BF16)
    put_rows(o, o->left, BF16, LINES);
  else if (K == X3)
    put_rows(o, o->left, X3, LINES);
  else if (o->way == SUMS)
    put_rows(o, o->left, S8, SUMS);
  else
    put_rows(o, o->left, S8, LINES);
  o->left = 0;
}

/* ---- one block over one chunk of K ------------------------------------------------------------
 */

/* Tiles 0..5 accumulate, 6 holds activations, 7 weights. Of blocks of two row tiles x three panels,
 * row tile r and panel p accumulate in 2 p + r; of x3, one row tile, H in p and M in 3 + p. Smaller
 * blocks leave tiles out. PASS loads what will not be needed again soon. */
#define LOAD(t, p)  _tile_loadd(t, p, 64)
#define PASS(t, p)  _tile_stream_loadd(t, p, 64)
#define STORE(t, p) _tile_stored(t, p, 64)

typedef struct block {
  const char *a, *b;     /* first tile of row tile 0, of panel 0 */
  size_t a_next, b_next; /* bytes to the next row tile and panel */
  size_t steps;          /* tiles along K */
  /* What each step fetches: lines of three panels b_next apart, and lines of activations. */
  const char *fetch_b, *fetch_a;
  size_t b_lines, a_lines;
} block;

#define DP(K, c)                                                                                   \
  do {                                                                                             \
    if ((K) == S8)                                                                                 \
      _tile_dpbssd(c, 6, 7);                                                                       \
    else                                                                                           \
      _tile_dpbf16ps(c, 6, 7);                                                                     \
  } while (0)

/* Activations a with P panels at b into c0, c1, c2: from the first panel to the last, and the other
 * way. What `first` and `second` do comes between the products. */
#define FORTH(K, P, a, b, next, c0, c1, c2, first, second)                                         \
  do {                                                                                             \
    PASS(6, a);                                                                                    \
    LOAD(7, b);                                                                                    \
    DP(K, c0);                                                                                     \
    first;                                                                                         \
    if ((P) > 1) {                                                                                 \
      LOAD(7, (b) + (next));                                                                       \
      DP(K, c1);                                                                                   \
    }                                                                                              \
    second;                                                                                        \
    if ((P) > 2) {                                                                                 \
      LOAD(7, (b) + 2 * (next));                                                                   \
      DP(K, c2);                                                                                   \
    }                                                                                              \
  } while (0)
#define BACK(K, P, a, b, next, c0, c1, c2, first, second)                                          \
  do {                                                                                             \
    PASS(6, a);                                                                                    \
    if ((P) > 2) {                                                                                 \
      DP(K, c2);                                                                                   \
      LOAD(7, (b) + (next));                                                                       \
    }                                                                                              \
    first;                                                                                         \
    if ((P) > 1) {                                                                                 \
      DP(K, c1);                                                                                   \
      LOAD(7, b);                                                                                  \
    }                                                                                              \
    second;                                                                                        \
    DP(K, c0);                                                                                     \
  } while (0)

PF_INLINE void fetch(const char *p, size_t lines) {
  for (; lines; lines--, p += 64)
    _mm_prefetch(p, _MM_HINT_T1);
}

enum { ROWS_A_STEP = 4, ROWS_A_STEP_X3 = 3 };

/* What goes between the products of a step: rows of the block before, and a panel's or the
 * activations' share of what is fetched. */
PF_INLINE void put_some(outgoing *o, const kind K, const way to) {
  if (to != NOWHERE)
    put_rows(o, K == X3 ? ROWS_A_STEP_X3 / 3 : ROWS_A_STEP / 2, K, to);
}

PF_INLINE void fetch_panel(const block *k, const int p) {
  fetch(k->fetch_b + (size_t)p * k->b_next, k->b_lines);
}

PF_INLINE void put_and_fetch(const block *k, outgoing *o, const int p, const kind K, const way to) {
  put_some(o, K, to);
  if (p < 3)
    fetch_panel(k, p);
  else
    fetch(k->fetch_a, k->a_lines);
}

PF_INLINE void step(block *k, outgoing *o, const kind K, const int R, const int P, const way to) {
  const char *a = k->a, *b = k->b;
  size_t next = k->b_next;
  if (K == X3) {
    FORTH(K, P, a + PF_TILE_BYTES, b, next, 3, 4, 5, fetch_panel(k, 0), put_some(o, K, to));
    BACK(K, P, a, b, next, 0, 1, 2, fetch_panel(k, 1), put_some(o, K, to));
    FORTH(K, P, a + 2 * PF_TILE_BYTES, b, next, 3, 4, 5, fetch_panel(k, 2),
          put_and_fetch(k, o, 3, K, to));
  } else {
    FORTH(K, P, a, b, next, 0, 2, 4, fetch_panel(k, 0), put_and_fetch(k, o, 1, K, to));
    if (R > 1)
      BACK(K, P, a + k->a_next, b, next, 1, 3, 5, fetch_panel(k, 2), put_and_fetch(k, o, 3, K, to));
  }
  k->a += (K == X3 ? 3 : 1) * PF_TILE_BYTES;
  k->b += PF_TILE_BYTES;
  k->fetch_b += k->b_lines * 64;
  k->fetch_a += k->a_lines * 64;
}

PF_INLINE void steps(const block *whole, outgoing *before, const kind K, const int R, const int P,
                     const way to) {
  block k = *whole;
  outgoing o = *before;
  const size_t rows = K == X3 ? ROWS_A_STEP_X3 : ROWS_A_STEP;
  size_t with = to == NOWHERE ? 0 : o.left / rows;
  with = with < k.steps ? with : k.steps;
  for (size_t n = with; n; n--)
    step(&k, &o, K, R, P, to);
  for (size_t n = k.steps - with; n; n--)
    step(&k, &o, K, R, P, NOWHERE);
  if (to != NOWHERE)
    put_rows(&o, o.left - with * rows, K, to);
  before->left = 0;
}

#define STEPS(name, K, R, P, to)                                                                   \
  static __attribute__((noinline)) void name(const block *k, outgoing *before) {                   \
    steps(k, before, K, R, P, to);                                                                 \
  }
STEPS(bf16_23, BF16, 2, 3, NOWHERE)
STEPS(bf16_22, BF16, 2, 2, NOWHERE)
STEPS(bf16_21, BF16, 2, 1, NOWHERE)
STEPS(bf16_13, BF16, 1, 3, NOWHERE)
STEPS(bf16_12, BF16, 1, 2, NOWHERE)
STEPS(bf16_11, BF16, 1, 1, NOWHERE)
STEPS(x3_13, X3, 1, 3, NOWHERE)
STEPS(x3_12, X3, 1, 2, NOWHERE)
STEPS(x3_11, X3, 1, 1, NOWHERE)
STEPS(s8_23, S8, 2, 3, NOWHERE)
STEPS(s8_22, S8, 2, 2, NOWHERE)
STEPS(s8_21, S8, 2, 1, NOWHERE)
STEPS(s8_13, S8, 1, 3, NOWHERE)
STEPS(s8_12, S8, 1, 2, NOWHERE)
STEPS(s8_11, S8, 1, 1, NOWHERE)
STEPS(bf16_23_stream, BF16, 2, 3, STREAM)
STEPS(bf16_22_stream, BF16, 2, 2, STREAM)
STEPS(x3_13_stream, X3, 1, 3, STREAM)
STEPS(x3_12_stream, X3, 1, 2, STREAM)
STEPS(s8_23_stream, S8, 2, 3, STREAM)
STEPS(s8_22_stream, S8, 2, 2, STREAM)
STEPS(s8_23_sums, S8, 2, 3, SUMS)
STEPS(s8_22_sums, S8, 2, 2, SUMS)

typedef void steps_fn(const block *, outgoing *);

/* [row tiles - 1][panels - 1] */
static steps_fn *const shapes_of[][2][3] = {
    [BF16] = {{bf16_11, bf16_12, bf16_13}, {bf16_21, bf16_22, bf16_23}},
    [X3] = {{x3_11, x3_12, x3_13}},
    [S8] = {{s8_11, s8_12, s8_13}, {s8_21, s8_22, s8_23}},
};

/* [panels - 1]: blocks of all row tiles that take the block before along. NULL: it goes first. */
static steps_fn *const along[][3][SUMS + 1] = {
    [BF16] = {[1] = {[STREAM] = bf16_22_stream}, [2] = {[STREAM] = bf16_23_stream}},
    [X3] = {[1] = {[STREAM] = x3_12_stream}, [2] = {[STREAM] = x3_13_stream}},
    [S8] = {[1] = {[STREAM] = s8_22_stream, [SUMS] = s8_22_sums},
            [2] = {[STREAM] = s8_23_stream, [SUMS] = s8_23_sums}},
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
  PASS(0, c);
  PASS(1, c + TILE);
  PASS(2, c + 2 * TILE);
  PASS(3, c + 3 * TILE);
  PASS(4, c + 4 * TILE);
  PASS(5, c + 5 * TILE);
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
  size_t chunk;                    /* steps of a job; s8: of a group */
  size_t groups;                   /* s8: of K */
  int resident;                    /* all of K of a group of row tiles stays in cache */
  size_t rows_at_once, panels_at_once;
  outgoing out;  /* of the block before */
  float *result; /* its sums, SLOT floats */
  float sa[32];  /* s8: its row scales */
} product;

/* Steps [k, k + chunk) of three panels from j (see panels_end) for a group of row tiles from i.
 * `first`: the group of panels begins there. */
typedef struct job {
  size_t first, i, k, j;
} job;

static size_t until(size_t at, size_t size, size_t end) {
  return end - at < size ? end : at + size;
}

static size_t last_panel(const product *q, const job *t) {
  return until(t->first, q->panels_at_once, q->panels);
}

/* Of the last four panels only two: a block of one panel would load as many tiles as it multiplies.
 */
static size_t panels_end(const product *q, const job *t) {
  size_t end = last_panel(q, t);
  return end - t->j == 4 ? t->j + 2 : until(t->j, 3, end);
}

/* Which three (or two) panels of the group these are. */
static size_t nth(const job *t) {
  return (t->j - t->first + 1) / 3;
}

static size_t last_row(const product *q, const job *t) {
  return until(t->i, q->rows_at_once, q->row_tiles);
}

/* On to the next chunk, or panels: 0 after the last one, and it begins anew. */
static int next_chunk(const product *q, job *t) {
  t->k = until(t->k, q->chunk, q->steps);
  t->k = t->k < q->steps ? t->k : 0;
  return t->k != 0;
}

static int next_panels(const product *q, job *t) {
  t->j = panels_end(q, t);
  if (t->j < last_panel(q, t))
    return 1;
  t->j = t->first;
  return 0;
}

/* Resident: each three panels pass over all of K, and their accumulators alone wait. Otherwise each
 * chunk passes over a group of panels. Both for each group of row tiles, so that the weights that a
 * group needs again are in the last-level cache. 0 after the last job. */
static int next_job(const product *q, job *t) {
  if (q->resident ? next_chunk(q, t) || next_panels(q, t) : next_panels(q, t) || next_chunk(q, t))
    return 1;
  size_t end = last_panel(q, t);
  t->i = last_row(q, t);
  if (t->i == q->row_tiles) {
    t->i = 0;
    t->first = t->j = end;
  }
  return t->first < q->panels;
}

/* A block: R row tiles from i, P panels from j; where its sums wait. */
typedef struct spot {
  size_t i, j, R, P;
  float *slot;
} spot;

static void send_panels(outgoing *o, const pf_gemm *g, const spot *s) {
  int stream = g->ldy % 16 == 0 && (uintptr_t)o->y % 64 == 0;
  for (size_t l = 0; l < 3; l++) {
    size_t j = s->j + l;
    o->mask[l] = l < s->P ? columns(g, j) : 0;
    stream = stream && (o->mask[l] == 0xffff || l >= s->P);
    o->bias[l] =
        g->bias ? _mm512_maskz_loadu_ps(o->mask[l], g->bias + j * 16) : _mm512_setzero_ps();
  }
  o->way = stream ? STREAM : LINES;
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
  o->from = t ? acc : zeros;
  o->from_row = t ? 16 : 0;
  o->from_next = t ? o->c_next : 0;
  o->sa = q->sa;
  for (size_t l = 0; l < 3; l++) {
    size_t j = l < s->P ? s->j + l : s->j;
    o->sw[l] = _mm512_loadu_ps(g->ws + (j * q->groups + t) * 16);
  }
  if (t + 1 < q->groups)
    o->way = SUMS;
}

/* The block before has left when it returns. */
static void multiply(product *q, const spot *s, const block *b) {
  outgoing *o = &q->out;
  steps_fn *fn = s->R == q->unit && o->left ? along[q->kind][s->P - 1][o->way] : NULL;
  if (!fn) {
    finish(o, q->kind);
    fn = shapes_of[q->kind][s->R - 1][s->P - 1];
  }
  fn(b, o);
}

static void one_block(product *q, const spot *s, const block *b, size_t k) {
  if (k && q->kind != S8)
    load_tiles(s->slot);
  else
    zero_tiles();
  multiply(q, s, b);
  if (q->kind != S8 && k + b->steps < q->steps) {
    store_tiles(s->slot);
    return;
  }
  store_tiles(q->result);
  send(q, q->result, s);
  if (q->kind == S8)
    send_s8(q, s, k / q->chunk, s->slot);
}

/* The chunk of weights that comes next, a share for each block. */
static void fetch_weights(const product *q, const job *next, size_t blocks, block *b) {
  size_t lines = 16 * (until(next->k, q->chunk, q->steps) - next->k);
  b->fetch_b = (const char *)q->g->w + (next->j * q->steps + next->k) * PF_TILE_BYTES;
  b->b_lines = (lines + blocks * b->steps - 1) / (blocks * b->steps);
}

/* The activations for the chunk of K that comes next, a share with each three panels. */
static void fetch_activations(const product *q, const job *t, block *b) {
  job next = *t;
  if (!next_chunk(q, &next))
    next.i = last_row(q, t) < q->row_tiles ? last_row(q, t) : 0;
  size_t lines = (until(next.k, q->chunk, q->steps) - next.k) * q->a_step / 64,
         passes = (last_panel(q, t) - t->first + 2) / 3;
  b->a_lines = (q->unit * lines + passes * b->steps - 1) / (passes * b->steps);
  size_t at = nth(t) * b->steps * b->a_lines, tile = next.i + at / lines;
  b->fetch_a = (const char *)q->g->a + tile * q->a_tile + next.k * q->a_step + at % lines * 64;
}

static void run_job(product *q, const job *t, const job *next) {
  size_t i1 = last_row(q, t), blocks = (i1 - t->i + q->unit - 1) / q->unit;
  size_t j1 = panels_end(q, t), panel = q->steps * PF_TILE_BYTES;
  float *slot = q->g->work;
  block b = {(const char *)q->g->a + t->i * q->a_tile + t->k * q->a_step,
             (const char *)q->g->w + t->j * panel + t->k * PF_TILE_BYTES,
             q->a_tile,
             panel,
             until(t->k, q->chunk, q->steps) - t->k,
             q->g->w,
             q->g->a,
             0,
             0};
  if (next)
    fetch_weights(q, next, blocks, &b);
  if (!q->resident) {
    fetch_activations(q, t, &b);
    slot += nth(t) * BLOCKS * SLOT;
  }
  for (size_t i = t->i; i < i1; i += q->unit, slot += SLOT) {
    spot s = {i, t->j, until(i, q->unit, i1) - i, j1 - t->j, slot};
    one_block(q, &s, &b, t->k);
    b.a += q->unit * q->a_tile;
    b.fetch_a += q->unit * q->a_tile;
    b.fetch_b += b.steps * b.b_lines * 64;
  }
}

static void cut(product *q) {
  size_t most = q->row_tiles < RESIDENT_TILES ? q->row_tiles : RESIDENT_TILES;
  q->resident = most * q->steps * q->a_step <= RESIDENT;
  q->rows_at_once =
      pf_even_units(q->row_tiles, q->resident ? RESIDENT_TILES : BLOCKS * q->unit, q->unit);
  q->panels_at_once = q->resident ? RESIDENT_PANELS : PANELS;
}

static void many_rows(product *q) {
  job t = {0, 0, 0, 0}, next = t;
  cut(q);
  for (int more = 1; more; t = next) {
    more = next_job(q, &next);
    run_job(q, &t, more ? &next : NULL);
  }
  finish(&q->out, q->kind);
  _mm_sfence();
}

/* ---- few rows ---------------------------------------------------------------------------------
 */

PF_INLINE void fetch_tile(const char *p) {
  for (int i = 0; i < PF_TILE_BYTES; i += 64)
    _mm_prefetch(p + i, _MM_HINT_T0);
}

/* P panels in tiles 0..P-1. */
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
  }
#undef FEW
}

/* The three parts of the activations are few rows and loaded again for each panel. */
PF_INLINE void few_steps_x3(const block *k, const int P) {
  const char *a = k->a, *b = k->b;
#define FEW(h, m)                                                                                  \
  if (P > (h)) {                                                                                   \
    LOAD(7, b + (h)*k->b_next);                                                                    \
    fetch_tile(b + (h)*k->b_next + LOOKAHEAD);                                                     \
    LOAD(6, a + PF_TILE_BYTES);                                                                    \
    DP(X3, m);                                                                                     \
    LOAD(6, a);                                                                                    \
    DP(X3, h);                                                                                     \
    LOAD(6, a + 2 * PF_TILE_BYTES);                                                                \
    DP(X3, m);                                                                                     \
  }
  for (size_t s = 0; s < k->steps; s++, a += 3 * PF_TILE_BYTES, b += PF_TILE_BYTES) {
    FEW(0, 3)
    FEW(1, 4)
  }
#undef FEW
}

/* Where panel p of P stands in the work of few rows, after tiles of chunk t. */
static inline float *few_sums(const product *q, size_t t, size_t p, size_t P) {
  return (float *)q->g->work + (t * P + p) * TILE;
}

PF_INLINE void put_few(const product *q, size_t j, size_t p, size_t row, const kind K,
                       const size_t P) {
  const pf_gemm *g = q->g;
  __mmask16 mask = columns(g, j + p);
  const float *c = few_sums(q, 0, p, P) + row * 16;
  __m512 v = _mm512_load_ps(c);
  if (K == X3)
    v = _mm512_add_ps(v, _mm512_load_ps(few_sums(q, 0, P + p, P) + row * 16));
  if (K == S8) {
    const float *sa = (const float *)((const char *)g->a + 16 * g->kp) + row;
    const float *sw = g->ws + (j + p) * q->groups * 16;
    v = _mm512_setzero_ps();
    for (size_t t = 0; t < q->groups; t++, c += P * TILE, sa += 16, sw += 16) {
      __m512 scale = _mm512_mul_ps(_mm512_set1_ps(*sa), _mm512_loadu_ps(sw));
      v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(c)), scale, v);
    }
  }
  v = _mm512_add_ps(v, _mm512_setzero_ps());
  if (g->bias)
    v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, g->bias + (j + p) * 16));
  _mm512_mask_storeu_ps(g->y + row * g->ldy + (j + p) * 16, mask, v);
}

/* P panels, one or two: a core reads one or two streams at the full bandwidth of memory and six at
 * five sixths of it. What the chunks of K gave waits in work, so that nothing stands between the
 * reads. */
PF_INLINE void few_panels(product *q, size_t j, const kind K, const int P) {
  size_t panel = q->steps * PF_TILE_BYTES, rows = q->g->m;
  for (size_t s = 0, t = 0; s < q->steps; s += q->chunk, t++) {
    block b = {.a = (const char *)q->g->a + s * q->a_step,
               .b = (const char *)q->g->w + j * panel + s * PF_TILE_BYTES,
               .b_next = panel,
               .steps = until(s, q->chunk, q->steps) - s};
    zero_tiles();
    if (K == X3)
      few_steps_x3(&b, P);
    else
      few_steps(&b, K, P);
    STORE(0, few_sums(q, t, 0, (size_t)P));
    if (K == X3)
      STORE(3, few_sums(q, 0, (size_t)P, (size_t)P));
    if (P > 1)
      STORE(1, few_sums(q, t, 1, (size_t)P));
    if (P > 1 && K == X3)
      STORE(4, few_sums(q, 0, (size_t)P + 1, (size_t)P));
  }
  if (P > 1) /* panel j + 2 was fetched behind panel j + 1 */
    fetch_tile((const char *)q->g->w + (j + 3) * panel);
  for (size_t p = 0; p < (size_t)P; p++)
    for (size_t row = 0; row < rows; row++)
      put_few(q, j, p, row, K, (size_t)P);
}

PF_INLINE void few_rows(product *q, const kind K) {
  size_t j = 0;
  for (; j + 2 <= q->panels; j += 2)
    few_panels(q, j, K, 2);
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

static void run(const pf_gemm *g, kind K) {
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
  q.chunk = K == S8 ? g->group / 64 : q.row_tiles == 1 ? q.steps : CHUNK;
  q.groups = (q.steps + q.chunk - 1) / q.chunk;
  if (K == S8)
    q.a_tile += 64 * q.groups;
  if (q.row_tiles == 1 && 2 * q.groups * TILE * sizeof(float) <= PF_GEMM_WORK) {
    few(&q);
  } else {
    pf_amx_enter(16, 0);
    many_rows(&q);
  }
  pf_amx_leave();
}

void pf_gemm_bf16_amx(const pf_gemm *g) {
  run(g, BF16);
}

void pf_gemm_x3_bf16_amx(const pf_gemm *g) {
  run(g, X3);
}

void pf_gemm_s8_amx(const pf_gemm *g) {
  run(g, S8);
}
