/* SPDX-License-Identifier: Apache-2.0
 * The packed layout against the layout of the file, (n, k) rows of bf16: what packing costs, and
 * what one row of activations takes in either (the packed one is gemm_bf16 in the table). The
 * product over the file's layout is the fastest that we have, in an order of its own along k: the
 * contract's order, vectorised over outputs, cannot be had from rows without packing on the way. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "bench/bench.h"
#include "bench/free.h"
#include "model/pack.h"

typedef struct layout {
  const pf_arena *arena;
  pf_mat to;
  size_t n, k, bytes, copies, turn;
  int threads;
  float *x, *y;
} layout;

static const uint16_t *source(const layout *l) {
  return (const uint16_t *)(const void *)(l->arena->p + l->turn * l->bytes);
}

static void pack_part(void *arg, int tid, int nt) {
  const layout *l = arg;
  size_t lo, hi;
  pf_par_range(l->n / PF_LANES, tid, nt, &lo, &hi);
  if (lo < hi)
    pf_pack_rows(&l->to, PF_DT_BF16, lo * PF_LANES, (hi - lo) * PF_LANES,
                 source(l) + lo * PF_LANES * l->k);
}

static void copy_part(void *arg, int tid, int nt) {
  const layout *l = arg;
  size_t lo, hi;
  pf_par_range(l->n, tid, nt, &lo, &hi);
  memcpy((uint16_t *)l->to.w + lo * l->k, source(l) + lo * l->k, (hi - lo) * l->k * 2);
}

static void file_part(void *arg, int tid, int nt) {
  const layout *l = arg;
  size_t lo, hi;
  pf_par_range(l->n / PF_LANES, tid, nt, &lo, &hi);
  (void)l;
#ifdef PF_HAVE_AVX512
  pf_free_file_avx512((hi - lo) * PF_LANES, l->k, source(l) + lo * PF_LANES * l->k, l->x,
                      l->y + lo * PF_LANES);
#endif
}

#define CALL(name)                                                                                 \
  static void name##_call(void *arg) {                                                             \
    layout *l = arg;                                                                               \
    l->turn = (l->turn + 1) % l->copies;                                                           \
    pf_par(l->threads, name##_part, l);                                                            \
  }
CALL(pack)
CALL(copy)
CALL(file)

static void run(pf_bench *b, layout *l, const char *op, const char *isa, const char *what,
                pf_bench_fn fn, double bytes) {
  pf_result r = {.op = op, .isa = isa, .what = what, .m = fn == file_call, .k = l->k, .n = l->n};
  r.bytes = bytes;
  r.memory = true;
  r.ops = fn == file_call ? 2.0 * (double)l->n * (double)l->k : 0;
  pf_bench_measure(b, &r, fn, l, -1, 1);
  pf_table_line(b, &r);
}

static bool has_avx512(void) {
  pf_simd f;
  return pf_bench_isa(&f, "avx512");
}

static int one(pf_bench *b, const char *what, size_t k, size_t n) {
  layout l = {.arena = &b->arena, .n = n / PF_LANES * PF_LANES, .k = k, .threads = b->o.threads};
  pf_mat_shape(&l.to, PF_W_BF16, l.n, k, 0);
  l.bytes = pf_round_up(l.n * k * 2, 4096);
  l.copies = b->arena.bytes / l.bytes;
  void *packed = pf_calloc(1, pf_mat_bytes(&l.to));
  if (packed)
    pf_mat_place(&l.to, packed);
  l.x = pf_calloc(k + 32, sizeof *l.x);
  l.y = pf_calloc(l.n, sizeof *l.y);
  int status = packed && l.x && l.y ? PF_OK : PF_ENOMEM;
  if (status == PF_OK) {
    double weights = (double)(l.n * k * 2);
    run(b, &l, "layout", "copy", what, copy_call, 2 * weights);
    run(b, &l, "layout", "pack", what, pack_call, 2 * weights);
    if (has_avx512())
      run(b, &l, "layout", "avx512-free", what, file_call, weights);
  }
  pf_free(packed);
  pf_free(l.x);
  pf_free(l.y);
  return status;
}

int pf_bench_layout(pf_bench *b) {
  const char *what;
  size_t k, n;
  int status = PF_OK;
  if (!pf_bench_listed(b->o.ops, "layout"))
    return PF_OK;
  if (b->o.k)
    return one(b, "", b->o.k, b->o.n);
  for (size_t i = 0; status == PF_OK && pf_bench_shape(i, &what, &k, &n); i++)
    if (n < 100000)
      status = one(b, what, k, n);
  return status;
}
