/* SPDX-License-Identifier: Apache-2.0
 * Operations over a row, each kernel of the registry by itself, rows divided over the threads: with
 * operands that stay in the first or second level of the cache, as they mostly are, and streaming
 * through memory, which bounds them from above. Bytes are those that the operation must read and
 * write; a form of operands that is private to its kernel is not counted. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "bench/bench.h"

enum { MAX_WIDTHS = 4 };

/* One row: n values of x (and of x2), y for the result, scratch. */
typedef struct row {
  size_t n;
  float *x;
  const float *x2;
  float *y, *scratch;
  size_t group;
} row;

typedef void (*row_fn)(const pf_simd *f, const row *r);

#define ROW(name, ...)                                                                             \
  static void do_##name(const pf_simd *f, const row *r) {                                          \
    __VA_ARGS__;                                                                                   \
  }
/* Rows stand in memory one after the other, so the operand is always row 0 of the scratch. */
ROW(operand_x3_bf16, f->operand_x3_bf16(0, r->n, pf_round_up(r->n, 32), r->x, r->scratch))
ROW(operand_bf16, f->operand_bf16(0, r->n, pf_round_up(r->n, 32), r->x, r->scratch))
ROW(operand_f32, f->operand_f32(0, r->n, pf_round_up(r->n, 32), r->x, r->scratch))
ROW(operand_s8, f->operand_s8(0, r->n, pf_round_up(r->n, 64), r->group, r->x, r->scratch))
ROW(quant_s8, (void)f->quant_s8(r->n, r->x, (int8_t *)r->y))
ROW(round_bf16, f->round_bf16(r->n, r->x, r->y))
ROW(rms_scale, r->scratch[0] = f->rms_scale(r->n, r->x, 1e-6f))
ROW(rms_apply, f->rms_apply(r->n, r->x, 1.5f, r->y))
ROW(rms_weight, f->rms_weight(r->n, r->x, r->scratch, 1, r->y))
ROW(rope, f->rope(r->n, r->x, r->scratch, r->scratch + r->n, r->y))
ROW(softcap, f->softcap(r->n, r->x, 30.0f))
ROW(softmax, (void)f->softmax(r->n / PF_KBLK, NULL, r->x))
ROW(gelu_tanh, f->gelu_tanh(r->n, r->x, r->y))
ROW(silu, f->silu(r->n, r->x, r->y))
ROW(mul, f->mul(r->n, r->x, r->x2, r->y))
ROW(add, f->add(r->n, r->x, r->x2, r->y))
ROW(scale, f->scale(r->n, r->x, 0.5f, r->y))
ROW(finite, r->scratch[0] = (float)f->finite(r->n, r->x))
ROW(argmax, (void)f->argmax(r->n, r->x, r->scratch))
ROW(logsumexp, r->scratch[0] = (float)f->logsumexp(r->n, r->x))
ROW(kl, double kl[1]; f->kl(r->n, r->x, 14.0, 1, &r->x2, (const double[]){14.0}, kl);
    r->scratch[0] = (float)kl[0])
ROW(jsd, double d[2]; f->jsd(r->n, r->x, 14.0, 1, &r->x2, (const double[]){14.0}, d, d + 1);
    r->scratch[0] = (float)(d[0] + d[1]))
ROW(vexp, f->vexp(r->n, r->x, r->y))
ROW(vtanh, f->vtanh(r->n, r->x, r->y))
ROW(vsigmoid, f->vsigmoid(r->n, r->x, r->y))

/* read, written: bytes for each value. Operations in place stand last: they change the arena's
 * values for those after them. */
static const struct {
  const char *op;
  row_fn fn;
  size_t slot, read, written;
  size_t width[MAX_WIDTHS]; /* up to the first 0 */
} ops[] = {
#define OP(name, read, written, ...)                                                               \
  {                                                                                                \
#name, do_##name, offsetof(pf_simd, name), read, written, {                                    \
      __VA_ARGS__                                                                                  \
    }                                                                                              \
  }
    OP(operand_x3_bf16, 4, 0, 2304, 9216),
    OP(operand_bf16, 4, 0, 2304, 9216),
    OP(operand_f32, 4, 0, 2304, 9216),
    OP(operand_s8, 4, 0, 2304, 9216),
    OP(quant_s8, 4, 1, 128, 1024),
    OP(round_bf16, 4, 4, 2304),
    OP(rms_scale, 4, 0, 1536, 2048, 2304),
    OP(rms_apply, 4, 4, 1536, 2048, 2304),
    OP(rms_weight, 4, 4, 1536, 2048, 2304),
    OP(rope, 4, 4, 128, 256),
    OP(gelu_tanh, 4, 4, 9216),
    OP(silu, 4, 4, 8960, 11008),
    OP(mul, 8, 4, 8960, 9216, 11008),
    OP(add, 8, 4, 1536, 2048, 2304),
    OP(scale, 4, 4, 2304),
    OP(finite, 4, 0, 2304, 256000),
    OP(argmax, 4, 0, 151936, 256000),
    OP(logsumexp, 4, 0, 151936, 256000),
    OP(kl, 8, 0, 151936, 256000),
    OP(jsd, 8, 0, 151936, 256000),
    OP(vexp, 4, 4, 2304),
    OP(vtanh, 4, 4, 2304),
    OP(vsigmoid, 4, 4, 2304),
    OP(softcap, 4, 4, 512, 2048, 256000),
    OP(softmax, 4, 4, 512, 2048),
};
enum { N_OPS = sizeof ops / sizeof *ops };

#define MEMORY_BYTES ((size_t)64 << 20) /* of x in one call that streams */
#define CACHE_BYTES  ((size_t)16 << 20) /* of x for each thread in one call in the cache */
#define SMOKE_BYTES  ((size_t)64 << 10) /* instead of either when nothing is to be measured */

typedef struct row_job {
  const pf_simd *f;
  row_fn fn;
  const pf_arena *arena;
  int threads;
  bool streams;
  size_t n, group, rows; /* rows of a thread */
  size_t turn, turns;
  float *own; /* of each thread: x, x2, y for the cache, then scratch */
  size_t own_n;
} row_job;

/* Row i of those that stream: x, x2 and y are three parts of the arena. */
static void from_memory(const row_job *j, size_t i, row *r) {
  float *base = (float *)(void *)j->arena->p + i * j->n;
  size_t part = j->arena->bytes / sizeof *base / 3 / 16 * 16;
  r->x = base;
  r->x2 = base + part;
  r->y = base + 2 * part;
}

static void row_part(void *arg, int tid, int nt) {
  const row_job *j = arg;
  size_t pad = pf_round_up(j->n, 64);
  float *own = j->own + (size_t)tid * j->own_n;
  row r = {j->n, own, own + pad, own + 2 * pad, own + 3 * pad, j->group};
  size_t first = (j->turn * (size_t)nt + (size_t)tid) * j->rows;
  for (size_t i = 0; i < j->rows; i++) {
    if (j->streams)
      from_memory(j, first + i, &r);
    j->fn(j->f, &r);
  }
}

static void row_call(void *arg) {
  row_job *j = arg;
  j->turn = (j->turn + 1) % j->turns;
  pf_par(j->threads, row_part, j);
}

/* Scratch holds a row of operands in any form, or two rows of fp32. */
static int row_open(row_job *j, const pf_bench *b, size_t op) {
  size_t pad = pf_round_up(j->n, 64), threads = (size_t)b->o.threads,
         scratch = pf_operand_bytes(3, 1, pad) / sizeof(float);
  bool operand = !strncmp(ops[op].op, "operand", 7);
  j->own_n = 3 * pad + (operand ? scratch : 2 * pad);
  j->own = pf_alloc(threads * j->own_n, sizeof *j->own);
  if (!j->own)
    return PF_ENOMEM;
  for (size_t t = 0; t < threads; t++)
    memcpy(j->own + t * j->own_n, b->arena.p, j->own_n * sizeof *j->own);
  size_t bytes = j->n * sizeof(float), all = j->streams ? MEMORY_BYTES / threads : CACHE_BYTES;
  all = b->o.smoke ? SMOKE_BYTES : all;
  j->rows = all / bytes ? all / bytes : 1;
  j->turns = b->arena.bytes / 3 / (j->rows * threads * bytes);
  return PF_OK;
}

static int run_op(pf_bench *b, size_t op, const char *isa, const pf_simd *f, size_t n,
                  bool streams) {
  row_job j = {.f = f, .fn = ops[op].fn, .arena = &b->arena, .threads = b->o.threads, .n = n};
  j.group = b->o.group;
  j.streams = streams;
  int status = row_open(&j, b, op);
  if (status != PF_OK)
    return status;
  size_t rows = j.rows * (size_t)j.threads;
  pf_result r = {.op = ops[op].op, .isa = isa, .m = rows, .n = n, .memory = streams};
  r.what = streams ? "memory" : "cache";
  r.bytes = (double)(rows * n) * (double)(ops[op].read + ops[op].written);
  pf_bench_measure(b, &r, row_call, &j, -1, 1);
  pf_table_line(b, &r);
  pf_free(j.own);
  return PF_OK;
}

static int run_width(pf_bench *b, size_t op, size_t n) {
  const char *isa;
  int status = PF_OK;
  n = pf_round_up(n, strcmp(ops[op].op, "softmax") ? 2 : PF_KBLK);
  for (size_t i = 0; status == PF_OK && (isa = pf_bench_isa_name(i)); i++) {
    pf_simd f;
    void (*fn)(void);
    if (!pf_bench_listed(b->o.isas, isa) || !pf_bench_isa(&f, isa))
      continue;
    memcpy(&fn, (const char *)&f + ops[op].slot, sizeof fn);
    for (int streams = 0; fn && status == PF_OK && streams < 2; streams++)
      status = run_op(b, op, isa, &f, n, streams);
  }
  return status;
}

int pf_bench_rows(pf_bench *b) {
  int status = PF_OK;
  for (size_t op = 0; op < N_OPS; op++) {
    if (!pf_bench_listed(b->o.ops, ops[op].op))
      continue;
    size_t widths = b->o.quick || b->o.n ? 1 : MAX_WIDTHS;
    for (size_t w = 0; status == PF_OK && w < widths && ops[op].width[w]; w++)
      status = run_width(b, op, b->o.n ? b->o.n : ops[op].width[w]);
  }
  return status;
}

bool pf_bench_has_row(const char *op) {
  for (size_t i = 0; i < N_OPS; i++)
    if (!strcmp(ops[i].op, op))
      return true;
  return false;
}
