/* SPDX-License-Identifier: Apache-2.0
 * bench/free.h on AMX, over the operands of simd/x86 and in the blocking of gemm_amx.c: blocks of 2
 * x 3 tiles, a chunk of K of three panels in the first-level cache, the next one fetched meanwhile,
 * results written during the next block. x3: hi, mid and lo go to the same accumulators, so that a
 * block has two row tiles. int8: sums over all of K, which wait between chunks as they are. */
#include <string.h>

#include "bench/free.h"
#include "simd/kernels.h"
#include "simd/x86/amx.h"

#define LOAD(t, p)  _tile_loadd(t, p, 64)
#define PASS(t, p)  _tile_stream_loadd(t, p, 64)
#define STORE(t, p) _tile_stored(t, p, 64)

typedef enum kind { BF16, X3, S8 } kind;
enum { CHUNK = 12, TILE = 256, SLOT = 6 * TILE, BLOCKS = 8, PANELS = 24, RESIDENT_TILES = 32 };
enum { RESIDENT = 1152 << 10, RESIDENT_PANELS = 96, ROWS_A_STEP = 4 };

#define DP(K, c)                                                                                   \
  do {                                                                                             \
    if ((K) == S8)                                                                                 \
      _tile_dpbssd(c, 6, 7);                                                                       \
    else                                                                                           \
      _tile_dpbf16ps(c, 6, 7);                                                                     \
  } while (0)

/* Results on their way to y: rows of three lines, one of each panel. */
typedef struct outgoing {
  const float *c, *sa; /* sa: of two row tiles */
  float *y;
  size_t ldy, left;
  int stream;
  __mmask16 mask[3];
  __m512 bias[3], sw[3];
} outgoing;

INLINE void put_rows(outgoing *o, size_t n, const kind K, const int stream) {
  for (; n; n--, o->c += 16, o->y += o->ldy, o->sa++)
    UNROLL for (int l = 0; l < 3; l++) {
      if (stream && !o->mask[l])
        continue;
      __m512 v = _mm512_load_ps(o->c + (size_t)l * 2 * TILE);
      if (K == S8)
        v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(v)),
                          _mm512_mul_ps(_mm512_set1_ps(*o->sa), o->sw[l]));
      v = _mm512_add_ps(v, o->bias[l]);
      if (stream)
        _mm512_stream_ps(o->y + l * 16, v);
      else
        _mm512_mask_storeu_ps(o->y + l * 16, o->mask[l], v);
    }
}

/* A block over a chunk, and what each step fetches: of each panel, of the activations. */
typedef struct block {
  const char *a, *b;
  size_t a_next, b_next, steps;
  const char *fetch_b, *fetch_a;
  size_t b_lines, a_lines;
} block;

INLINE void fetch(const char *p, size_t lines) {
  for (; lines; lines--, p += 64)
    _mm_prefetch(p, _MM_HINT_T1);
}

/* What goes between the products of a step: rows of the block before, fetches. */
INLINE void between(const block *k, outgoing *o, const int n, const kind K, size_t rows,
                    const int stream) {
  if (n % 2)
    put_rows(o, rows / 2, K, stream);
  if (n < 3)
    fetch(k->fetch_b + (size_t)n * k->b_next, k->b_lines);
  else
    fetch(k->fetch_a, k->a_lines);
}

/* A row tile with P panels, from the first to the last. */
INLINE void forth(const block *k, const char *a, outgoing *o, const kind K, const int P,
                  size_t rows, const int stream, const int more) {
  PASS(6, a);
  LOAD(7, k->b);
  DP(K, 0);
  if (more)
    between(k, o, 0, K, rows, stream);
  if (P > 1) {
    LOAD(7, k->b + k->b_next);
    DP(K, 2);
  }
  if (more)
    between(k, o, 1, K, rows, stream);
  if (P > 2) {
    LOAD(7, k->b + 2 * k->b_next);
    DP(K, 4);
  }
}

/* The other row tile back. */
INLINE void back(const block *k, const char *a, outgoing *o, const kind K, const int P, size_t rows,
                 const int stream, const int more) {
  PASS(6, a);
  if (P > 2) {
    DP(K, 5);
    LOAD(7, k->b + k->b_next);
  }
  if (more)
    between(k, o, 2, K, rows, stream);
  if (P > 1) {
    DP(K, 3);
    LOAD(7, k->b);
  }
  if (more)
    between(k, o, 3, K, rows, stream);
  DP(K, 1);
}

INLINE void step(const block *k, outgoing *o, const kind K, const int R, const int P, size_t rows,
                 const int stream) {
  const int parts = K == X3 ? 3 : 1;
  for (int p = 0; p < parts; p++) {
    const char *a = k->a + p * PF_TILE_BYTES;
    forth(k, a, o, K, P, rows, stream, p == 0);
    if (R > 1)
      back(k, a + k->a_next, o, K, P, rows, stream, p == 0);
    else if (p == 0)
      put_rows(o, rows / 2, K, stream);
  }
}

INLINE void on(block *k, const kind K) {
  k->a += (K == X3 ? 3 : 1) * PF_TILE_BYTES;
  k->b += PF_TILE_BYTES;
  k->fetch_b += k->b_lines * 64;
  k->fetch_a += k->a_lines * 64;
}

INLINE void steps(block k, outgoing *before, const kind K, const int R, const int P,
                  const int stream) {
  outgoing o = *before;
  size_t with = stream ? o.left / ROWS_A_STEP : 0;
  with = with < k.steps ? with : k.steps;
  if (!stream)
    put_rows(&o, o.left, K, 0);
  for (size_t n = with; n; n--, on(&k, K))
    step(&k, &o, K, R, P, ROWS_A_STEP, 1);
  for (size_t n = k.steps - with; n; n--, on(&k, K))
    step(&k, &o, K, R, P, 0, 0);
  if (stream)
    put_rows(&o, o.left - with * ROWS_A_STEP, K, 1);
  before->left = 0;
}

typedef struct product {
  const pf_gemm *g;
  size_t row_tiles, panels, all, a_tile, a_step, rows_at_once, panels_at_once;
  int resident;
  outgoing out;
  float *result;
  float sa[32];
} product;

typedef struct job {
  size_t first, i, k, j;
} job;

INLINE size_t until(size_t at, size_t size, size_t end) {
  return end - at < size ? end : at + size;
}

/* 1 until the last of size items in [first, end) has been; then *at begins anew. */
static int next_of(size_t *at, size_t size, size_t first, size_t end) {
  *at = until(*at, size, end);
  if (*at < end)
    return 1;
  *at = first;
  return 0;
}

/* Of the last four panels only two. */
INLINE size_t width(const job *t, size_t end) {
  return end - t->j == 4 ? 2 : 3;
}

static int next_job(const product *q, job *t) {
  size_t end = until(t->first, q->panels_at_once, q->panels);
  if (q->resident
          ? next_of(&t->k, CHUNK, 0, q->all) || next_of(&t->j, width(t, end), t->first, end)
          : next_of(&t->j, width(t, end), t->first, end) || next_of(&t->k, CHUNK, 0, q->all))
    return 1;
  if (!next_of(&t->i, q->rows_at_once, 0, q->row_tiles))
    t->first = t->j = end;
  return t->first < q->panels;
}

static void send(product *q, size_t i, size_t j, size_t panels, const kind K) {
  const pf_gemm *g = q->g;
  outgoing *o = &q->out;
  *o = (outgoing){.c = q->result, .sa = q->sa, .y = g->y + i * 16 * g->ldy + j * 16, .ldy = g->ldy};
  o->left = g->m - i * 16 < 32 ? g->m - i * 16 : 32;
  o->stream = g->ldy % 16 == 0 && (uintptr_t)o->y % 64 == 0 && (j + panels) * 16 <= g->n;
  for (size_t l = 0; l < panels; l++) {
    size_t at = (j + l) * 16, left = g->n - at;
    o->mask[l] = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    if (g->bias)
      o->bias[l] = _mm512_maskz_loadu_ps(o->mask[l], g->bias + at);
    if (K == S8)
      o->sw[l] = _mm512_loadu_ps(g->ws + at);
  }
  const char *a = (const char *)g->a + i * q->a_tile + 16 * g->kp;
  for (size_t r = 0; K == S8 && r < 2 && i + r < q->row_tiles; r++, a += q->a_tile)
    memcpy(q->sa + r * 16, a, 64);
}

INLINE void load_tiles(const float *c) {
  PASS(0, c);
  PASS(1, c + TILE);
  PASS(2, c + 2 * TILE);
  PASS(3, c + 3 * TILE);
  PASS(4, c + 4 * TILE);
  PASS(5, c + 5 * TILE);
}

INLINE void zero_tiles(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
}

INLINE void store_tiles(float *c) {
  STORE(0, c);
  STORE(1, c + TILE);
  STORE(2, c + 2 * TILE);
  STORE(3, c + 3 * TILE);
  STORE(4, c + 4 * TILE);
  STORE(5, c + 5 * TILE);
}

INLINE void multiply(const block *b, outgoing *o, const kind K, size_t R, size_t P) {
  if (R == 2 && P == 3 && o->stream && o->left)
    steps(*b, o, K, 2, 3, 1);
  else if (R == 2 && P == 3)
    steps(*b, o, K, 2, 3, 0);
  else if (P == 3)
    steps(*b, o, K, 1, 3, 0);
  else if (R == 2 && P == 2 && o->stream && o->left)
    steps(*b, o, K, 2, 2, 1);
  else if (P == 2)
    R == 2 ? steps(*b, o, K, 2, 2, 0) : steps(*b, o, K, 1, 2, 0);
  else
    R == 2 ? steps(*b, o, K, 2, 1, 0) : steps(*b, o, K, 1, 1, 0);
}

/* Shares of what comes next: weights of the next job, activations of the next chunk. */
INLINE void shares(const product *q, const job *t, const job *next, size_t blocks, block *b) {
  size_t lines = 16 * (until(next->k, CHUNK, q->all) - next->k);
  b->fetch_b = (const char *)q->g->w + (next->j * q->all + next->k) * PF_TILE_BYTES;
  b->b_lines = (lines + blocks * b->steps - 1) / (blocks * b->steps);
  if (q->resident)
    return;
  job then = *t;
  if (!next_of(&then.k, CHUNK, 0, q->all))
    (void)next_of(&then.i, q->rows_at_once, 0, q->row_tiles);
  size_t end = until(t->first, q->panels_at_once, q->panels), passes = (end - t->first + 2) / 3;
  lines = (until(then.k, CHUNK, q->all) - then.k) * q->a_step / 64;
  b->a_lines = (2 * lines + passes * b->steps - 1) / (passes * b->steps);
  size_t at = (t->j - t->first + 1) / 3 * b->steps * b->a_lines;
  b->fetch_a = (const char *)q->g->a + (then.i + at / lines) * q->a_tile + then.k * q->a_step +
               at % lines * 64;
}

INLINE void run_job(product *q, const job *t, const job *next, const kind K) {
  size_t i1 = until(t->i, q->rows_at_once, q->row_tiles), panel = q->all * PF_TILE_BYTES,
         end = until(t->first, q->panels_at_once, q->panels), j1 = until(t->j, width(t, end), end);
  float *slot = (float *)q->g->work + (q->resident ? 0 : (t->j - t->first + 1) / 3 * BLOCKS * SLOT);
  block b = {.a = (const char *)q->g->a + t->i * q->a_tile + t->k * q->a_step,
             .b = (const char *)q->g->w + t->j * panel + t->k * PF_TILE_BYTES,
             .a_next = q->a_tile,
             .b_next = panel,
             .steps = until(t->k, CHUNK, q->all) - t->k,
             .fetch_b = q->g->w,
             .fetch_a = q->g->a};
  shares(q, t, next, (i1 - t->i + 1) / 2, &b);
  for (size_t i = t->i; i < i1; i += 2, slot += SLOT) {
    if (t->k)
      load_tiles(slot);
    else
      zero_tiles();
    multiply(&b, &q->out, K, i + 1 < i1 ? 2 : 1, j1 - t->j);
    if (t->k + b.steps < q->all) {
      store_tiles(slot);
    } else {
      store_tiles(q->result);
      send(q, i, t->j, j1 - t->j, K);
    }
    b.a += 2 * q->a_tile;
    b.fetch_a += 2 * q->a_tile;
    b.fetch_b += b.steps * b.b_lines * 64;
  }
}

INLINE void run(const pf_gemm *g, const kind K) {
  float result[SLOT] __attribute__((aligned(64)));
  size_t tile_k = K == S8 ? 64 : 32, parts = K == X3 ? 3 : 1;
  product q = {.g = g,
               .row_tiles = (g->m + 15) / 16,
               .panels = (g->n + 15) / 16,
               .all = g->kp / tile_k,
               .a_step = parts * PF_TILE_BYTES,
               .result = result};
  q.a_tile = q.all * q.a_step + (K == S8 ? 64 : 0);
  size_t most = q.row_tiles < RESIDENT_TILES ? q.row_tiles : RESIDENT_TILES;
  q.resident = most * q.all * q.a_step <= RESIDENT;
  q.rows_at_once = pf_even_units(q.row_tiles, q.resident ? RESIDENT_TILES : 2 * BLOCKS, 2);
  q.panels_at_once = q.resident ? RESIDENT_PANELS : PANELS;
  pf_amx_enter(16, 0);
  job t = {0, 0, 0, 0}, next = t;
  for (int more = 1; more; t = next) {
    more = next_job(&q, &next);
    run_job(&q, &t, more ? &next : &t, K);
  }
  put_rows(&q.out, q.out.left, K, 0);
  _mm_sfence();
  pf_amx_leave();
}

void pf_free_bf16_amx(const pf_gemm *g) {
  run(g, BF16);
}

void pf_free_x3_amx(const pf_gemm *g) {
  run(g, X3);
}

void pf_free_s8_amx(const pf_gemm *g) {
  run(g, S8);
}
