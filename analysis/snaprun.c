/* SPDX-License-Identifier: Apache-2.0
 * Runs one prompt and makes the digests of its hook points. Positions go in windows: the captures
 * of a window are held, hashed on all threads and handed on, so memory does not grow with the
 * prompt (but for points over keys, whose rows do). */
#include <stdlib.h>
#include <string.h>

#include "analysis/snapshot.h"
#include "base/bf16.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/sha256.h"
#include "base/status.h"

enum { MOST_ROWS = 256 };
#define CAPTURE_BYTES ((size_t)512 << 20)

typedef struct run {
  const pf_runner *r;
  pf_snap_prompt *p;
  pf_ctx *ctx;
  pf_seq *seq;
  pf_tap *taps; /* edits, then a capture for each point */
  size_t *at;   /* (points) where its rows begin in buf */
  float *buf;
  float *logits; /* (V) of the last position */
  pf_row *rows;
  int32_t window, lo, hi; /* positions held: [lo, hi) */
  size_t next_item;
  int failed; /* a digest could not be made */
} run;

static size_t stride_of(const run *u, const pf_at *a) {
  return a->heads * (a->width ? a->width : (size_t)u->p->blocks.all);
}

/* ---- digests --------------------------------------------------------------------------------- */

/* One NaN for all. */
static void settle_nans(float *v, size_t n) {
  uint32_t seen = 0;
  for (size_t i = 0; i < n; i++)
    seen |= (pf_bits_of_f32(v[i]) & 0x7fffffffu) > 0x7f800000u;
  for (size_t i = 0; seen && i < n; i++)
    if ((pf_bits_of_f32(v[i]) & 0x7fffffffu) > 0x7f800000u)
      v[i] = pf_f32_of_bits(0x7fc00000u);
}

static void hash_rows(run *u, size_t point, size_t block, size_t head) {
  const pf_at *a = &u->r->points->v[point];
  size_t stride = stride_of(u, a), part = stride / a->heads;
  pf_span s = pf_block_span(&u->p->blocks, block);
  float *v = u->buf + u->at[point] + (size_t)(s.lo - u->lo) * stride + head * part;
  pf_sha256 *h = pf_sha256_new();
  for (int32_t pos = s.lo; h && pos < s.hi; pos++, v += stride) {
    size_t n = a->width ? a->width : (size_t)pos + 1;
    settle_nans(v, n);
    pf_sha256_add(h, v, n * sizeof *v);
  }
  pf_sha *out = &u->p->digest[point][block * a->heads + head];
  if (h)
    pf_sha256_raw(h, out->b);
  else
    __atomic_store_n(&u->failed, 1, __ATOMIC_RELAXED);
}

/* The blocks of the window: [*lo, *hi). */
static void window_blocks(const run *u, size_t *lo, size_t *hi) {
  size_t n = pf_blocks_n(&u->p->blocks), i = 0;
  while (i < n && pf_block_span(&u->p->blocks, i).lo < u->lo)
    i++;
  for (*lo = i; i < n && pf_block_span(&u->p->blocks, i).hi <= u->hi;)
    i++;
  *hi = i;
}

/* Items are (point, block); threads take them one by one, as they are of very different sizes. */
static void hash_part(void *arg, int tid, int nt) {
  run *u = arg;
  size_t lo, hi, i;
  (void)tid, (void)nt;
  window_blocks(u, &lo, &hi);
  size_t n = (hi - lo) * u->r->points->n;
  while ((i = __atomic_fetch_add(&u->next_item, 1, __ATOMIC_RELAXED)) < n)
    for (size_t h = 0; h < u->r->points->v[i / (hi - lo)].heads; h++)
      hash_rows(u, i / (hi - lo), lo + i % (hi - lo), h);
}

static int hand_on(run *u) {
  u->next_item = 0;
  pf_par(u->r->threads > 0 ? u->r->threads : pf_par_default(), hash_part, u);
  int rc = u->failed ? pf_fail(PF_ENOMEM, "out of memory for a checksum") : PF_OK;
  for (size_t i = 0; rc == PF_OK && u->r->rows && i < u->r->points->n; i++)
    rc = u->r->rows(u->r->user, i, u->lo, u->hi, u->buf + u->at[i],
                    stride_of(u, &u->r->points->v[i]));
  if (u->r->done)
    u->r->done(u->r->user, u->hi - u->lo);
  return rc;
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static int set_taps(run *u) {
  size_t n = u->r->points->n, e = u->r->n_edits;
  for (size_t i = 0; i < n; i++) {
    const pf_at *a = &u->r->points->v[i];
    u->taps[e + i] = (pf_tap){.hook = a->hook->id,
                              .layer = a->layer,
                              .head = -1,
                              .pos_lo = u->lo,
                              .pos_hi = u->hi,
                              .op = PF_OP_CAPTURE,
                              .out = u->buf + u->at[i],
                              .out_stride = stride_of(u, a),
                              .n_keys = a->width ? 0 : u->p->blocks.all};
  }
  int32_t layers = pf_model_get_info(u->r->model)->n_layers;
  int rc = pf_seq_set_taps(u->seq, u->taps, e + n);
  if (rc != PF_OK || u->r->max_tokens > 0)
    return rc;
  return pf_seq_set_stop(u->seq, pf_reach_stop(u->taps, e + n, layers));
}

/* Tokens at positions [lo, hi), which are known. */
static int eval_rows(run *u, int32_t lo, int32_t hi) {
  const pf_snap_prompt *p = u->p;
  int32_t n = (int32_t)p->ids.n;
  bool choose = hi >= n && p->generated.n < (size_t)u->r->max_tokens;
  for (int32_t pos = lo; pos < hi; pos++)
    u->rows[pos - lo] = (pf_row){.seq = u->seq,
                                 .token = pos < n ? p->ids.v[pos] : p->generated.v[pos - n],
                                 .pos = pos,
                                 .out = -1};
  if (choose)
    u->rows[hi - 1 - lo].out = 0;
  int rc = pf_eval(u->ctx, u->rows, (size_t)(hi - lo), u->logits);
  if (rc == PF_OK && choose)
    rc =
        pf_ids_push(&u->p->generated,
                    pf_argmax(u->logits, (size_t)pf_model_get_info(u->r->model)->vocab_size, NULL));
  return rc;
}

static int run_window(run *u) {
  int32_t n = (int32_t)u->p->ids.n, chunk = u->r->chunk > 0 ? u->r->chunk : u->window;
  int rc = set_taps(u);
  for (int32_t at = u->lo, to; rc == PF_OK && at < u->hi; at = to) {
    to = at >= n ? at + 1 : at + chunk < u->hi ? at + chunk : u->hi;
    to = at < n && to > n ? n : to;
    if (u->r->stop && *u->r->stop)
      return pf_fail(PF_EINCOMPLETE, "stopped");
    rc = eval_rows(u, at, to);
  }
  return rc == PF_OK ? hand_on(u) : rc;
}

/* Windows are as long as the memory for captures allows, at least a block. */
static int plan(run *u) {
  size_t row = 0, n = u->r->points->n, block = (size_t)u->p->blocks.block;
  for (size_t i = 0; i < n; i++)
    if (__builtin_add_overflow(row, stride_of(u, &u->r->points->v[i]), &row))
      return pf_fail(PF_ENOMEM, "captures of one position do not fit in memory");
  size_t fits = CAPTURE_BYTES / sizeof(float) / (row ? row : 1) / block * block;
  size_t most = pf_round_up((size_t)u->p->blocks.all, block), cap = pf_round_up(MOST_ROWS, block);
  most = most < cap ? most : cap;
  fits = fits < block ? block : fits > most ? most : fits;
  u->window = (int32_t)fits;
  for (size_t i = 0, at = 0; i < n; i++) {
    u->at[i] = at;
    at += fits * stride_of(u, &u->r->points->v[i]);
  }
  u->buf = pf_alloc(fits, row * sizeof *u->buf);
  u->rows = pf_alloc(fits, sizeof *u->rows);
  return u->buf && u->rows ? PF_OK : PF_ENOMEM;
}

static int start(run *u) {
  const pf_runner *r = u->r;
  u->at = pf_alloc(r->points->n, sizeof *u->at);
  u->taps = pf_alloc(r->n_edits + r->points->n, sizeof *u->taps);
  u->logits = pf_alloc((size_t)pf_model_get_info(r->model)->vocab_size, sizeof *u->logits);
  if (!u->at || !u->taps || !u->logits)
    return PF_ENOMEM;
  if (r->n_edits)
    memcpy(u->taps, r->edits, r->n_edits * sizeof *u->taps);
  int rc = plan(u);
  if (rc == PF_OK)
    rc = pf_ctx_new(&u->ctx, r->model, &(pf_ctx_opts){.threads = r->threads, .isa = r->isa});
  return rc == PF_OK ? pf_seq_new(&u->seq, u->ctx) : rc;
}

int pf_runner_run(const pf_runner *r, pf_snap_prompt *out) {
  run u = {.r = r, .p = out};
  int32_t most = pf_model_get_info(r->model)->max_positions;
  int rc = out->blocks.all > most ? pf_fail(PF_EUSAGE, "%d positions are wanted; the model has %d",
                                            out->blocks.all, most)
                                  : start(&u);
  for (; rc == PF_OK && u.hi < out->blocks.all;) {
    u.lo = u.hi;
    u.hi = u.lo + u.window < out->blocks.all ? u.lo + u.window : out->blocks.all;
    rc = run_window(&u);
  }
  pf_seq_free(u.seq);
  pf_ctx_free(u.ctx);
  pf_free(u.at);
  pf_free(u.taps);
  pf_free(u.logits);
  pf_free(u.buf);
  pf_free(u.rows);
  return rc;
}

/* ---- a prompt's digests ---------------------------------------------------------------------- */

int pf_snap_prompt_init(pf_snap_prompt *p, const pf_points *points, const char *id,
                        const int32_t *ids, size_t n, int32_t max_tokens, int32_t block) {
  *p = (pf_snap_prompt){.id = pf_strdup(id)};
  int32_t more = max_tokens > 0 ? max_tokens - 1 : 0;
  int rc = p->id ? PF_OK : PF_ENOMEM;
  if (n > INT32_MAX / 2 || more > INT32_MAX / 2)
    rc = pf_fail(PF_EUSAGE, "%zu tokens and %d to generate are too many", n, max_tokens);
  for (size_t i = 0; rc == PF_OK && i < n; i++)
    rc = pf_ids_push(&p->ids, ids[i]);
  p->blocks = (pf_blocks){(int32_t)n, (int32_t)n + more, block};
  p->digest = rc == PF_OK ? pf_calloc(points->n, sizeof *p->digest) : NULL;
  for (size_t i = 0; p->digest && i < points->n; i++, p->n_points++)
    if (!(p->digest[i] = pf_calloc(pf_blocks_n(&p->blocks) * points->v[i].heads, sizeof(pf_sha))))
      break;
  if (rc == PF_OK && (!p->digest || p->n_points < points->n))
    rc = PF_ENOMEM;
  if (rc != PF_OK)
    pf_snap_prompt_free(p);
  return rc;
}

void pf_snap_prompt_free(pf_snap_prompt *p) {
  for (size_t i = 0; i < p->n_points; i++)
    pf_free(p->digest[i]);
  pf_free(p->digest);
  pf_free(p->id);
  pf_ids_free(&p->ids);
  pf_ids_free(&p->generated);
  *p = (pf_snap_prompt){0};
}

int pf_snap_view(pf_snap_prompt *view, const pf_snap_prompt *p, const pf_points *own,
                 const pf_points *wanted) {
  *view = *p;
  view->digest = pf_calloc(wanted->n, sizeof *view->digest);
  if (!view->digest)
    return PF_ENOMEM;
  for (size_t i = 0; i < wanted->n; i++) {
    ptrdiff_t k = pf_points_find(own, wanted->v[i].name);
    if (k < 0)
      return pf_fail(PF_EINTERNAL, "%s was not recorded", wanted->v[i].name);
    view->digest[i] = p->digest[k];
  }
  return PF_OK;
}
