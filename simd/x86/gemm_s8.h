/* SPDX-License-Identifier: Apache-2.0
 * CONTRACT.md "quant_s8", "operand_s8", "gemm_s8" on x86 without AMX: one text, included by the
 * file of each instruction set after its vocabulary (s8_256.h, s8_512.h) and
 *
 *   S8_WIDE             0: the product takes bytes, 4 k a step (vpdpbusd: unsigned x signed, so a
 *                       row holds q + 128 and a sum begins at -128 wsum); 1: int16, 2 k (vpmaddwd)
 *   S8_ROWS, S8_PANELS  the tile of many rows
 *   S8_FEW(F), S8_FEW_ROWS
 *                       F(rows, panels side by side) for 1, 2, .. S8_FEW_ROWS rows
 *   s8_dot(sum, row, weights)
 *
 * A row of operands is its kp values (int16: of each four k the order 0 2 1 3, as the even and the
 * odd bytes of a weight lane give it) and then a scale per group, in whole cache lines.
 *
 * A product of many rows is cut into blocks of rows x S8_PANELS panels x pieces of K (some groups)
 * x tiles of rows, from outside to inside: a piece of the weights stays in the first-level cache
 * while the rows of the block pass, and the rows, in the second-level cache, are read once a panel.
 * The first tiles fetch the next piece. A few rows read several panels side by side, each
 * fetched ahead: there the way from memory binds. doc/KERNELS.md has the measurements. */
#ifndef PF_SIMD_X86_GEMM_S8_H
#define PF_SIMD_X86_GEMM_S8_H

#include "base/mem.h"
#include "simd/consts.h"
#include "simd/kernels.h"
#include "simd/x86/s8_scale.h"

enum {
  S8_SUBS = S8_WIDE ? 2 : 1, /* steps of 4 k */
  S8_LANES = 16 / S8_H,      /* of a register */
  S8_LINE = 64,              /* bytes of 16 outputs x 4 k */
  S8_BLOCK = 96,             /* rows of a block */
  S8_PIECE = 16 << 10,       /* bytes of a piece, unless one group is larger */
  S8_ACC =
      S8_BLOCK * S8_PANELS * 16 * 4, /* bytes of g->work for sums; after them the wide weights */
};
_Static_assert(S8_ACC + PF_S8_GROUP_MAX * 16 * 2 * S8_PANELS <= PF_GEMM_WORK, "fits");
_Static_assert(S8_FEW_ROWS * 4 * 16 * 4 <= S8_ACC, "a few rows fit");

/* ---- operands ---------------------------------------------------------------------------------
 */

PF_INLINE size_t s8_stride(size_t kp, size_t groups) {
  return kp * S8_SUBS + pf_round_up(groups * sizeof(float), 64);
}

/* 16 values of n from x in the form of the product, 0 after them or without a scale. */
PF_INLINE void s8_put(char *to, const float *x, size_t n, float scale) {
  __m256i q = _mm256_setzero_si256();
  if (n && scale > 0)
    q = s8_nearest(s8_load(x, n), scale);
  if (S8_WIDE) {
    q = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(q, 0xd8), 0xd8);
    _mm256_store_si256((__m256i *)(void *)to, q);
  } else {
    _mm_store_si128((__m128i *)(void *)to, _mm_xor_si128(s8_bytes(q), _mm_set1_epi8(-128)));
  }
}

PF_INLINE void s8_operand(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a) {
  char *to = (char *)a + row * s8_stride(kp, (kp + group - 1) / group);
  float *scales = (float *)(void *)(to + kp * S8_SUBS);
  for (size_t g = 0; g < kp; g += group) {
    size_t end = g + group < kp ? g + group : kp, n = k < end ? k : end;
    float scale = *scales++ = g < n ? s8_scale(n - g, x + g) : 0.0f;
    for (size_t i = g; i < end; i += 16) {
      size_t left = i < n ? n - i : 0;
      s8_put(to + i * S8_SUBS, x + i, left < 16 ? left : 16, scale);
    }
  }
}

PF_INLINE float s8_quant(size_t n, const float *x, int8_t *q) {
  float scale = s8_scale(n, x);
  if (!(scale > 0)) {
    memset(q, 0, n);
    return scale;
  }
  for (size_t i = 0; i < n; i += 16) {
    size_t left = n - i < 16 ? n - i : 16;
    __m128i b = s8_bytes(s8_nearest(s8_load(x + i, left), scale));
    if (left == 16)
      _mm_storeu_si128((__m128i *)(void *)(q + i), b);
    else
      memcpy(q + i, &b, left);
  }
  return scale;
}

/* ---- one tile ---------------------------------------------------------------------------------
 */

/* R rows x P panels over some groups of k. */
typedef struct s8_job {
  const char *a, *w;    /* values of row 0, weights of panel 0 */
  const float *sa, *ws; /* their scales; rows lda bytes apart, panels of scales lds values */
  const int32_t *wsum;  /* as ws */
  size_t lda, ldw, lds; /* ldw: bytes between panels */
  size_t groups;
  size_t quads, last; /* 16 k are a quad: quads of a group, of the last one */
  float *acc;         /* [row][P][16] */
  const char *fetch;  /* many rows: what to fetch, fetch_step bytes for 4 k */
  size_t fetch_step;
} s8_job;

/* The weights of register c. Widened ones are two lines for one, first the even k. */
PF_INLINE vi s8_weights(const char *w, const int c, const int sub, const int widened) {
  if (widened)
    return vi_load(w + (c + sub * S8_H) * (S8_LINE / S8_H));
  vi x = vi_load(w + c * (S8_LINE / S8_H));
  return !S8_WIDE ? x : sub ? vi_odd(x) : vi_even(x);
}

/* Where the sums of register c begin. */
PF_INLINE vi s8_begin(const int32_t *wsum) {
  return S8_WIDE ? vi_zero() : vi_sub(vi_zero(), vi_shl(vi_load(wsum), 7));
}

/* Rows and panels are reached by every third's address: index registers reach the two after it. */
#define S8_AT(p, i, ld) (p[(i) / 3] + (size_t)((i) % 3) * (ld))

PF_INLINE void s8_tile(const s8_job *job, const int R, const int P, const int few) {
  const s8_job t = *job; /* a copy: stores of sums cannot change it */
  const int C = P * S8_H, widened = S8_WIDE && !few;
  const size_t line = widened ? 2 * S8_LINE : S8_LINE;
  const char *a[5], *w[2], *fetch = t.fetch, *sa = (const char *)t.sa;
  const float *ws = t.ws;
  const int32_t *wsum = t.wsum;
  const size_t quad = 4 * S8_LINE, distance = PF_AHEAD(P, R, 1) / quad;
  size_t ahead = distance * quad;
  PF_UNROLL for (int i = 0; i < (R + 2) / 3; i++) a[i] = t.a + 3 * (size_t)i * t.lda;
  PF_UNROLL for (int i = 0; i < (P + 2) / 3; i++) w[i] = t.w + 3 * (size_t)i * t.ldw;
  for (size_t left = t.groups; left; left--) {
    vi s[14][4 * S8_H], x[4 * S8_H];
    PF_UNROLL for (int c = 0; c < C; c++) {
      vi begin = s8_begin(wsum + (size_t)(c / S8_H) * t.lds + c % S8_H * S8_LANES);
      PF_UNROLL for (int r = 0; r < R; r++) s[r][c] = begin;
    }
    for (size_t q = left > 1 ? t.quads : t.last; q; q--) {
      /* At the end of its panel a stream goes on to the panels that come next. */
      if (few && left == 1 && q == distance)
        ahead += (size_t)(P - 1) * t.ldw;
      PF_UNROLL for (int k = 0; k < 4; k++) {
        if (few) {
          PF_UNROLL for (int p = 0; p < P; p++)
              PF_FETCH_L2(S8_AT(w, p, t.ldw) + k * S8_LINE + ahead);
        } else {
          _mm_prefetch(fetch, _MM_HINT_T0);
          fetch += t.fetch_step;
        }
        PF_UNROLL for (int sub = 0; sub < S8_SUBS; sub++) {
          PF_UNROLL for (int c = 0; c < C; c++) x[c] =
              s8_weights(S8_AT(w, c / S8_H, t.ldw) + (size_t)k * line, c % S8_H, sub, widened);
          PF_UNROLL for (int r = 0; r < R; r++) {
            vi y = vi_every(S8_AT(a, r, t.lda) + 4 * (k * S8_SUBS + sub));
            PF_UNROLL for (int c = 0; c < C; c++) s[r][c] = s8_dot(s[r][c], y, x[c]);
          }
        }
      }
      PF_UNROLL for (int i = 0; i < (R + 2) / 3; i++) a[i] += 16 * S8_SUBS;
      PF_UNROLL for (int i = 0; i < (P + 2) / 3; i++) w[i] += 4 * line;
    }
    /* Without this, GCC 12 converts some of the sums early and moves the others to the stack. */
    PF_UNROLL for (int r = 0; r < R; r++) PF_UNROLL for (int c = 0; c < C; c++) S8_KEEP(s[r][c]);
    vf sw[4 * S8_H];
    PF_UNROLL for (int c = 0; c < C; c++) sw[c] =
        vf_load(ws + (size_t)(c / S8_H) * t.lds + c % S8_H * S8_LANES);
    PF_UNROLL for (int r = 0; r < R; r++) {
      vf scale = vf_set1(*(const float *)(const void *)(sa + (size_t)r * t.lda));
      PF_UNROLL for (int c = 0; c < C; c++) {
        float *to = t.acc + r * P * 16 + c * S8_LANES;
        vf_store(to, vf_fma(vf_of(s[r][c]), vf_mul(scale, sw[c]), vf_load(to)));
      }
    }
    sa += sizeof(float);
    ws += 16;
    wsum += 16;
  }
}

/* ---- the whole product ------------------------------------------------------------------------
 */

typedef void (*s8_tile_fn)(const s8_job *t);
/* clang-format off */
#define S8_TILE(name, R, P, few) static void name##_##R(const s8_job *t) { s8_tile(t, R, P, few); }
#define S8_FOUR(name, P) S8_TILE(name, 1, P, 0) S8_TILE(name, 2, P, 0) S8_TILE(name, 3, P, 0) S8_TILE(name, 4, P, 0)
#if S8_ROWS == 8
#define S8_MORE(name, P) S8_TILE(name, 5, P, 0) S8_TILE(name, 6, P, 0) S8_TILE(name, 7, P, 0) S8_TILE(name, 8, P, 0)
#define S8_REST(name) name##_5, name##_6, name##_7, name##_8
#elif S8_ROWS == 6
#define S8_MORE(name, P) S8_TILE(name, 5, P, 0) S8_TILE(name, 6, P, 0)
#define S8_REST(name) name##_5, name##_6
#endif
#define S8_FOURS(name) NULL, name##_1, name##_2, name##_3, name##_4
/* By rows. */
#define S8_FEW_TILES(R, P) S8_TILE(few, R, P, 1) S8_TILE(narrow, R, 1, 1)
S8_FEW(S8_FEW_TILES)
S8_FOUR(many, S8_PANELS)
S8_MORE(many, S8_PANELS)
#define S8_FEW_LINE(R, P) {few_##R, narrow_##R, P},
static const struct { s8_tile_fn wide, narrow; size_t panels; } few_rows[] = {{NULL, NULL, 0}, S8_FEW(S8_FEW_LINE)};
static const s8_tile_fn many_rows[] = {S8_FOURS(many), S8_REST(many)};
#if S8_PANELS > 1
S8_FOUR(rest, 1)
S8_MORE(rest, 1)
static const s8_tile_fn many_rows_narrow[] = {S8_FOURS(rest), S8_REST(rest)};
#else
#define many_rows_narrow many_rows
#endif
/* clang-format on */

/* Rows from i, panels from j, n groups from t. */
static s8_job s8_job_at(const pf_gemm *g, size_t i, size_t j, size_t t, size_t n) {
  size_t groups = (g->kp + g->group - 1) / g->group, lda = s8_stride(g->kp, groups);
  const char *row = (const char *)g->a + i * lda;
  s8_job job = {.lda = lda, .ldw = 16 * g->kp, .lds = 16 * groups, .groups = n, .acc = g->work};
  job.a = row + t * g->group * S8_SUBS;
  job.sa = (const float *)(const void *)(row + g->kp * S8_SUBS) + t;
  job.w = (const char *)g->w + (j * g->kp + t * g->group) * 16;
  job.ws = g->ws + (j * groups + t) * 16;
  job.wsum = g->wsum + (j * groups + t) * 16;
  job.quads = g->group / 16;
  job.last = t + n < groups ? job.quads : (g->kp - (groups - 1) * g->group) / 16;
  return job;
}

/* acc [rows][panels][16] to y. */
static void s8_finish(const pf_gemm *g, const float *acc, size_t i, size_t rows, size_t j,
                      size_t panels) {
  for (size_t l = 0; l < rows * panels; l++, acc += 16) {
    size_t at = (j + l % panels) * 16, n = g->n - at < 16 ? g->n - at : 16;
    float *y = g->y + (i + l / panels) * g->ldy + at;
    for (size_t c = 0; n == 16 && c < 16; c += S8_LANES) {
      vf v = vf_add(vf_load(acc + c), vf_zero());
      vf_store(y + c, g->bias ? vf_add(v, vf_load(g->bias + at + c)) : v);
    }
    for (size_t c = 0; n < 16 && c < n; c++)
      y[c] = g->bias ? (acc[c] + 0.0f) + g->bias[at + c] : acc[c] + 0.0f;
  }
}

static void s8_few_rows(const pf_gemm *g, size_t i, size_t rows) {
  size_t groups = (g->kp + g->group - 1) / g->group, panels = (g->n + 15) / 16;
  for (size_t j = 0, P; j < panels; j += P) {
    P = few_rows[rows].panels <= panels - j ? few_rows[rows].panels : 1;
    s8_job job = s8_job_at(g, i, j, 0, groups);
    memset(job.acc, 0, rows * P * 16 * sizeof *job.acc);
    (P > 1 ? few_rows[rows].wide : few_rows[rows].narrow)(&job);
    s8_finish(g, job.acc, i, rows, j, P);
  }
}

/* The job's weights (panels x k) as int16, in g->work. */
static void s8_widen(const pf_gemm *g, s8_job *job, size_t panels, size_t k) {
  char *to = (char *)g->work + S8_ACC, *at = to;
  for (size_t p = 0; p < panels; p++) {
    const char *w = job->w + p * job->ldw;
    for (size_t i = 0; i < k; i += 4, w += S8_LINE)
      for (int sub = 0; sub < 2; sub++)
        for (int c = 0; c < S8_H; c++, at += sizeof(vi))
          vi_store(at, s8_weights(w, c, sub, 0));
  }
  job->w = to;
  job->ldw = 2 * k * 16;
}

/* Tile number n of a piece fetches its share of the next one: a line, a half or a quarter for 4 k,
 * as many tiles as there are. */
static void s8_share(s8_job *job, const char *next, size_t ldw, size_t n, size_t tiles,
                     size_t panels, size_t k) {
  size_t step = tiles >= 4 * panels ? 16 : tiles >= 2 * panels ? 32 : 64;
  size_t at = n * (k / 4) * step, panel = at / (16 * k);
  job->fetch_step = panel < panels ? step : 0;
  job->fetch = panel < panels ? next + panel * ldw + at % (16 * k) : (const char *)job;
}

/* The scales and sums of a piece: one line a group and panel, too far apart for the hardware. */
static void s8_fetch_scales(const s8_job *next, size_t panels) {
  for (size_t p = 0; p < panels; p++)
    for (size_t t = 0; t < next->groups; t++) {
      _mm_prefetch((const char *)(next->ws + p * next->lds + t * 16), _MM_HINT_T0);
      if (!S8_WIDE)
        _mm_prefetch((const char *)(next->wsum + p * next->lds + t * 16), _MM_HINT_T0);
    }
}

/* A piece of K for all rows of a block; `last`: the sums are complete. */
static void s8_piece(const pf_gemm *g, s8_job job, const s8_job *next, size_t i, size_t rows,
                     size_t j, size_t panels, int last) {
  size_t k = ((job.groups - 1) * job.quads + job.last) * 16, ldw = job.ldw;
  if (S8_WIDE)
    s8_widen(g, &job, panels, k);
  s8_fetch_scales(next, panels);
  size_t tiles = (rows + S8_ROWS - 1) / S8_ROWS;
  for (size_t n = 0, r = 0, R; n < tiles; n++, r += R) {
    R = pf_even_part(rows - r, S8_ROWS);
    s8_share(&job, next->w, ldw, n, tiles, panels, k);
    (panels == S8_PANELS ? many_rows : many_rows_narrow)[R](&job);
    if (last)
      s8_finish(g, job.acc, i + r, R, j, panels);
    job.a += R * job.lda;
    job.sa += R * job.lda / sizeof(float);
    job.acc += R * panels * 16;
  }
}

static void s8_many_rows(const pf_gemm *g, size_t i, size_t rows) {
  size_t groups = (g->kp + g->group - 1) / g->group, all = (g->n + 15) / 16;
  size_t piece = S8_PIECE / (S8_PANELS * 16 * S8_SUBS * g->group);
  piece = piece ? piece : 1;
  for (size_t j = 0, panels; j < all; j += panels) {
    panels = all - j >= S8_PANELS ? S8_PANELS : 1;
    memset(g->work, 0, rows * panels * 16 * sizeof(float));
    for (size_t t = 0, n; t < groups; t += n) {
      n = groups - t < piece ? groups - t : piece;
      int last = t + n == groups;
      size_t left = last ? groups : groups - t - n;
      s8_job job = s8_job_at(g, i, j, t, n),
             next = s8_job_at(g, i, last ? j + panels : j, last ? 0 : t + n,
                              left < piece ? left : piece);
      s8_piece(g, job, &next, i, rows, j, panels, last);
    }
  }
}

static void s8_gemm(const pf_gemm *g) {
  size_t step = pf_even_units(g->m, S8_BLOCK, S8_ROWS);
  for (size_t i = 0, rows; i < g->m; i += rows) {
    rows = g->m - i < step ? g->m - i : step;
    if (rows <= S8_FEW_ROWS)
      s8_few_rows(g, i, rows);
    else
      s8_many_rows(g, i, rows);
  }
}

#endif
