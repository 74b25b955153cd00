/* SPDX-License-Identifier: Apache-2.0
 * Products: every kernel of the registry by itself, columns divided over the threads as
 * model/layer.c does. Each call reads another copy of the weights out of memory larger than every
 * cache, because that is where the weights of the next layer are; activations and results stay
 * where the call before left them. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "base/bf16.h"
#include "bench/bench.h"
#include "bench/free.h"
#include "simd/consts.h"

enum { PAGE = 4096, MAX_ISAS = 16 };

typedef void (*gemm_fn)(const pf_gemm *g);

/* The same product in a free order (bench/free.h). operand NULL: the kernel's own. */
static const struct {
  const char *op, *isa, *name;
  pf_free_operand operand;
  gemm_fn gemm;
} freely[] = {
#ifdef PF_HAVE_AMX
    {"gemm_bf16", "amx", "amx-free", NULL, pf_free_bf16_amx},
    {"gemm_x3_bf16", "amx", "amx-free", NULL, pf_free_x3_amx},
    {"gemm_s8", "amx", "amx-free", NULL, pf_free_s8_amx},
#endif
#ifdef PF_HAVE_AVX512
    {"gemm_bf16", "avx512", "avx512-free", pf_free_operand_bf16_avx512, pf_free_bf16_avx512},
#endif
#ifdef PF_HAVE_AVX512VNNI
    {"gemm_s8", "avx512vnni", "av512vn-free", pf_free_operand_u8, pf_free_s8_avx512vnni},
#endif
#ifdef PF_HAVE_AVXVNNI
    {"gemm_s8", "avxvnni", "avxvnni-free", pf_free_operand_u8, pf_free_s8_avxvnni},
#endif
    {NULL, NULL, NULL, NULL, NULL},
};

static int free_of(const char *op, const char *isa) {
  for (int i = 0; freely[i].op; i++)
    if (!strcmp(freely[i].op, op) && !strcmp(freely[i].isa, isa))
      return i;
  return -1;
}

void pf_free_operand_u8(size_t row, size_t k, size_t kp, const float *x, void *a) {
  uint8_t *to = (uint8_t *)a + row * (kp + 64);
  float top = 0, scale;
  for (size_t i = 0; i < k; i++)
    top = x[i] > top ? x[i] : -x[i] > top ? -x[i] : top;
  scale = top / 127;
  for (size_t i = 0; i < kp; i++) {
    float q = i < k && scale > 0 ? x[i] / scale : 0;
    to[i] = (uint8_t)(128 + (int)(q + (q < 0 ? -0.5f : 0.5f)));
  }
  memcpy(to + kp, &scale, sizeof scale);
}

/* The kinds of products. passes: instructions of the peak's kind for a product that counts as one.
 */
typedef struct product_kind {
  const char *op;
  size_t gemm, parts, bytes, block;
  bool integer;
  double passes;
  pf_peer_kind blas, blas_else, dnnl;
} product_kind;
#define SLOT(name) offsetof(pf_simd, name)
static const product_kind kinds[] = {
    {"gemm_x3_bf16", SLOT(gemm_x3_bf16), 3, 2, PF_KBLK, false, 3, PF_PEER_SGEMM, PF_PEER_SGEMM,
     PF_PEER_DNNL_F32},
    {"gemm_bf16", SLOT(gemm_bf16), 1, 2, PF_KBLK, false, 1, PF_PEER_SBGEMM, PF_PEER_SGEMM,
     PF_PEER_DNNL_BF16},
    {"gemm_f32", SLOT(gemm_f32), 1, 4, PF_KBLK, false, 1, PF_PEER_SGEMM, PF_PEER_SGEMM,
     PF_PEER_DNNL_F32},
    {"gemm_s8", SLOT(gemm_s8), 1, 1, PF_S8BLK, true, 1, PF_PEER_SGEMM, PF_PEER_SGEMM,
     PF_PEER_DNNL_S8},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static int unit_of(const char *isa, const product_kind *k) {
  return pf_peak_of(isa, k->integer);
}

typedef struct shape {
  char what[48];
  size_t k, n;
  bool quick;
} shape;

#define PF_SHAPE(model, matrix, k, n, quick) {model " " matrix, k, n, quick},
static const shape shapes[] = {
#include "bench/shapes.def"
};
#undef PF_SHAPE
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* The i-th shape that the options ask for; false after the last. A shape of one's own keeps the
 * model's name when it is one of theirs. */
static bool shape_at(const pf_bench_opts *o, size_t i, shape *out) {
  if (o->k) {
    *out = (shape){"", o->k, o->n, true};
    for (size_t s = 0; s < N_SHAPES; s++)
      if (shapes[s].k == o->k && shapes[s].n == o->n)
        *out = shapes[s];
    return i == 0;
  }
  for (size_t s = 0; s < N_SHAPES; s++)
    if ((!o->quick || shapes[s].quick) && i-- == 0) {
      *out = shapes[s];
      return true;
    }
  return false;
}

/* ---- one product ---- */

typedef struct pf_bench_product {
  const product_kind *kind;
  gemm_fn fn;
  pf_free_operand operand; /* NULL: the instruction set's */
  pf_gemm g;               /* of all columns */
  const pf_arena *arena;
  int threads;
  bool freely;
  size_t copies, bytes, turn; /* of the weights with their scales */
} pf_bench_product;
typedef pf_bench_product product;

static size_t panels(size_t n) {
  return (n + PF_LANES - 1) / PF_LANES;
}

/* Values of one kind of scale. */
static size_t scales(const product *p) {
  return p->kind->integer ? panels(p->g.n) * ((p->g.kp + p->g.group - 1) / p->g.group) * PF_LANES
                          : 0;
}

static size_t packed(const product *p) {
  return panels(p->g.n) * PF_LANES * p->g.kp * p->kind->bytes;
}

/* Panels [lo, hi); tid's part of the scratch. */
static void columns(const product *p, const char *w, int tid, size_t lo, size_t hi) {
  pf_gemm g = p->g;
  size_t first = lo * PF_LANES, last = hi * PF_LANES < g.n ? hi * PF_LANES : g.n,
         skip = p->kind->integer ? scales(p) / panels(p->g.n) * lo : 0;
  g.n = last - first;
  g.w = w + first * g.kp * p->kind->bytes;
  g.ws = (const float *)(const void *)(w + packed(p)) + skip;
  g.wsum = (const int32_t *)(const void *)(w + packed(p)) + scales(p) + skip;
  g.y += first;
  g.work = (char *)g.work + (size_t)tid * PF_GEMM_WORK;
  p->fn(&g);
}

static void product_part(void *arg, int tid, int nt) {
  const product *p = arg;
  size_t lo, hi;
  pf_par_range(panels(p->g.n), tid, nt, &lo, &hi);
  if (lo < hi)
    columns(p, p->arena->p + p->turn * p->bytes, tid, lo, hi);
}

static void product_call(void *arg) {
  product *p = arg;
  p->turn = (p->turn + 1) % p->copies;
  pf_par(p->threads, product_part, p);
}

static void make_operand(const product *p, const pf_simd *f, size_t row, const float *x, void *a) {
  const pf_gemm *g = &p->g;
  if (p->operand) {
    p->operand(row, g->k, g->kp, x, a);
    return;
  }
  switch (p->kind->gemm) {
  case SLOT(gemm_x3_bf16):
    f->operand_x3_bf16(row, g->k, g->kp, x, a);
    break;
  case SLOT(gemm_bf16):
    f->operand_bf16(row, g->k, g->kp, x, a);
    break;
  case SLOT(gemm_f32):
    f->operand_f32(row, g->k, g->kp, x, a);
    break;
  default:
    f->operand_s8(row, g->k, g->kp, g->group, x, a);
  }
}

static int product_open(product *p, const pf_bench *b, const pf_simd *f, size_t m, const shape *s) {
  size_t kp = pf_round_up(s->k, p->kind->block);
  void *a = pf_calloc(1, pf_operand_bytes(p->kind->parts, m, kp));
  p->g = (pf_gemm){.m = m, .n = s->n, .k = s->k, .kp = kp, .ldy = s->n, .a = a};
  p->g.group = p->freely ? kp : b->o.group;
  p->g.y = pf_calloc(m * s->n, sizeof *p->g.y);
  p->g.work = pf_alloc((size_t)b->o.threads, PF_GEMM_WORK);
  if (!a || !p->g.y || !p->g.work)
    return PF_ENOMEM;
  p->arena = &b->arena;
  p->bytes = pf_round_up(packed(p) + 2 * scales(p) * sizeof(float), PAGE);
  p->copies = b->arena.bytes / p->bytes;
  p->threads = pf_par_worth(b->o.threads, 3.0 * (double)m * (double)s->n * (double)kp);
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < m; i++)
    make_operand(p, f, i, (const float *)(const void *)b->arena.p + i * s->k, a);
  pf_fp_leave(env);
  return PF_OK;
}

static void product_close(product *p) {
  pf_free((void *)(uintptr_t)p->g.a);
  pf_free(p->g.y);
  pf_free(p->g.work);
}

/* What a call must read: of int8 weights and scales (sums are read by some kernels only). */
static double must_read(const product *p) {
  return (double)(packed(p) + scales(p) * sizeof(float));
}

static const product_kind *kind_of(const char *op) {
  for (size_t i = 0; i < N_KINDS; i++)
    if (!strcmp(kinds[i].op, op))
      return &kinds[i];
  return NULL;
}

pf_bench_product *pf_bench_product_open(const pf_bench *b, const char *op, const char *isa,
                                        bool free_order, size_t m, size_t k, size_t n) {
  pf_simd f;
  shape s = {"", k, n, false};
  int i = free_order ? free_of(op, isa) : -1;
  product *p = pf_bench_isa(&f, isa) && (!free_order || i >= 0) ? pf_calloc(1, sizeof *p) : NULL;
  if (!p)
    return NULL;
  p->kind = kind_of(op);
  p->freely = free_order;
  memcpy(&p->fn, (const char *)&f + p->kind->gemm, sizeof p->fn);
  if (free_order) {
    p->fn = p->fn ? freely[i].gemm : NULL;
    p->operand = freely[i].operand;
  }
  if (p->fn && product_open(p, b, &f, m, &s) == PF_OK)
    return p;
  pf_bench_product_close(p);
  return NULL;
}

void pf_bench_product_call(void *p) {
  product_call(p);
}

double pf_bench_product_bytes(const pf_bench_product *p) {
  return must_read(p);
}

void pf_bench_product_close(pf_bench_product *p) {
  if (p)
    product_close(p);
  pf_free(p);
}

double pf_bench_product_peak(const pf_bench *b, const char *op, const char *isa) {
  const product_kind *k = kind_of(op);
  int unit = unit_of(isa, k);
  return unit < 0 ? 0 : b->peaks.ops[unit] / k->passes;
}

bool pf_bench_product_peaking(const pf_bench *b, const char *op, const char *isa, pf_peaking *out,
                              double *passes) {
  const product_kind *k = kind_of(op);
  int unit = unit_of(isa, k);
  *passes = k->passes;
  return unit >= 0 && pf_peaking_open(out, &b->peaks, (pf_peak_id)unit);
}

/* ---- all of them ---- */

/* Of one matrix: what other libraries took for this m, and how fast each kernel was for the m
 * before. */
typedef struct context {
  pf_bench *b;
  shape s;
  size_t m;
  double peer[PF_PEER_N]; /* seconds, 0: not measured */
  double rate[N_KINDS][MAX_ISAS];
  double unordered; /* seconds of the kernel that comes next, in a free order; 0: none */
} context;

static pf_result line(const context *c, const char *op, const char *isa) {
  return (pf_result){.op = op,
                     .isa = isa,
                     .what = c->s.what,
                     .m = c->m,
                     .k = c->s.k,
                     .n = c->s.n,
                     .memory = true,
                     .ops = 2.0 * (double)c->m * (double)c->s.k * (double)c->s.n};
}

static int run_kernel(context *c, const product_kind *k, size_t isa, const pf_simd *f) {
  product p = {.kind = k};
  const char *name = pf_bench_isa_name(isa);
  memcpy(&p.fn, (const char *)f + k->gemm, sizeof p.fn);
  pf_result r = line(c, k->op, name);
  double *rate = &c->rate[k - kinds][isa];
  if (*rate > 0 && r.ops / *rate > c->b->o.limit) {
    c->b->left_out++;
    return PF_OK;
  }
  int status = product_open(&p, c->b, f, c->m, &c->s);
  if (status == PF_OK) {
    double blas = c->peer[k->blas] > 0 ? c->peer[k->blas] : c->peer[k->blas_else];
    r.bytes = must_read(&p);
    pf_bench_measure(c->b, &r, product_call, &p, unit_of(name, k), k->passes);
    r.openblas = blas / r.t.best;
    r.dnnl = c->peer[k->dnnl] / r.t.best;
    r.cost = c->unordered > 0 ? r.t.best / c->unordered : 0;
    *rate = r.ops / r.t.best;
    pf_table_line(c->b, &r);
  }
  product_close(&p);
  return status;
}

/* A free order gives the same but for rounding: values of the arena are below 2, sums of k products
 * below 4k. Of int8 the arena holds no weights that fit each other. */
static bool agree(product *a, product *b) {
  product_call(a);
  b->turn = a->turn == 0 ? b->copies - 1 : a->turn - 1; /* so that the next is the same */
  product_call(b);
  double worst = 0, bound = 1e-5 * 4 * (double)a->g.k;
  for (size_t i = 0; !a->kind->integer && i < a->g.m * a->g.n; i++) {
    double d = fabs((double)a->g.y[i] - (double)b->g.y[i]);
    worst = d > worst || d != d ? d : worst;
  }
  return worst <= bound;
}

static int check_free(context *c, const product_kind *k, const char *isa, product *p) {
  product *ours =
      c->b->o.smoke ? pf_bench_product_open(c->b, k->op, isa, false, c->m, c->s.k, c->s.n) : NULL;
  bool ok = !ours || agree(p, ours);
  pf_bench_product_close(ours);
  return ok ? PF_OK : pf_fail(PF_EINTERNAL, "%s of %s in a free order differs", k->op, isa);
}

static int run_free(context *c, const product_kind *k, const char *isa) {
  int i = free_of(k->op, isa);
  product *p = i < 0 ? NULL : pf_bench_product_open(c->b, k->op, isa, true, c->m, c->s.k, c->s.n);
  c->unordered = 0;
  if (!p)
    return PF_OK;
  pf_result r = line(c, k->op, freely[i].name);
  r.bytes = must_read(p);
  pf_bench_measure(c->b, &r, product_call, p, unit_of(isa, k), k->passes);
  c->unordered = r.t.best;
  pf_table_line(c->b, &r);
  int status = check_free(c, k, isa, p);
  pf_bench_product_close(p);
  return status;
}

/* What a library computes with is its own affair; the fastest instruction for its type is the
 * machine's peak. */
static int peer_unit(const pf_bench *b, pf_peer_kind kind) {
  int best = -1;
  static const struct {
    pf_peer_kind kind;
    pf_peak_id unit;
  } may[] = {
      {PF_PEER_SGEMM, PF_PEAK_FMA_AVX2},        {PF_PEER_SGEMM, PF_PEAK_FMA_AVX512},
      {PF_PEER_SGEMM, PF_PEAK_FMA_NEON},        {PF_PEER_DNNL_F32, PF_PEAK_FMA_AVX2},
      {PF_PEER_DNNL_F32, PF_PEAK_FMA_AVX512},   {PF_PEER_DNNL_F32, PF_PEAK_FMA_NEON},
      {PF_PEER_SBGEMM, PF_PEAK_FMA_AVX512},     {PF_PEER_SBGEMM, PF_PEAK_BF16_AMX},
      {PF_PEER_SBGEMM, PF_PEAK_BF16_NEON},      {PF_PEER_DNNL_BF16, PF_PEAK_FMA_AVX512},
      {PF_PEER_DNNL_BF16, PF_PEAK_BF16_AMX},    {PF_PEER_DNNL_S8, PF_PEAK_S8_AVX2},
      {PF_PEER_DNNL_S8, PF_PEAK_S8_AVX512VNNI}, {PF_PEER_DNNL_S8, PF_PEAK_S8_AMX},
  };
  for (size_t i = 0; i < sizeof may / sizeof *may; i++)
    if (may[i].kind == kind && b->peaks.ops[may[i].unit] > 0 &&
        (best < 0 || b->peaks.ops[may[i].unit] > b->peaks.ops[best]))
      best = may[i].unit;
  return best;
}

static void run_peer(context *c, pf_peer_kind kind) {
  pf_result r = line(c, pf_peer_op(kind), pf_peer_library(kind));
  pf_peer *p = pf_peer_open(kind, c->b, c->m, c->s.k, c->s.n);
  c->peer[kind] = 0;
  if (!p)
    return;
  r.bytes = pf_peer_bytes(p);
  pf_bench_measure(c->b, &r, pf_peer_call, p, peer_unit(c->b, kind), 1);
  c->peer[kind] = r.t.best;
  pf_table_line(c->b, &r);
  pf_peer_close(p);
}

/* Libraries that a chosen operation is compared with. */
static bool peer_wanted(const pf_bench_opts *o, pf_peer_kind kind) {
  for (size_t i = 0; i < N_KINDS; i++)
    if (pf_bench_listed(o->ops, kinds[i].op) &&
        (kinds[i].blas == kind || kinds[i].blas_else == kind || kinds[i].dnnl == kind))
      return true;
  return false;
}

static int run_m(context *c) {
  const pf_bench_opts *o = &c->b->o;
  for (int kind = 0; kind < PF_PEER_N; kind++)
    if (o->peers && peer_wanted(o, kind))
      run_peer(c, kind);
  for (size_t k = 0; k < N_KINDS; k++)
    for (size_t i = 0; pf_bench_isa_name(i); i++) {
      pf_simd f;
      gemm_fn fn;
      if (!pf_bench_listed(o->ops, kinds[k].op) ||
          !pf_bench_listed(o->isas, pf_bench_isa_name(i)) ||
          !pf_bench_isa(&f, pf_bench_isa_name(i)))
        continue;
      memcpy(&fn, (const char *)&f + kinds[k].gemm, sizeof fn);
      int status = fn && o->peers ? run_free(c, &kinds[k], pf_bench_isa_name(i)) : PF_OK;
      if (status == PF_OK && fn)
        status = run_kernel(c, &kinds[k], i, &f);
      if (status != PF_OK)
        return status;
    }
  return PF_OK;
}

static bool any_product(const pf_bench_opts *o) {
  for (size_t i = 0; i < N_KINDS; i++)
    if (pf_bench_listed(o->ops, kinds[i].op))
      return true;
  return false;
}

int pf_bench_products(pf_bench *b) {
  shape s;
  for (size_t i = 0; any_product(&b->o) && shape_at(&b->o, i, &s); i++) {
    context c = {.b = b, .s = s};
    for (size_t j = 0; j < b->o.n_m; j++) {
      c.m = b->o.m[j];
      int status = run_m(&c);
      if (status != PF_OK)
        return status;
    }
  }
  return PF_OK;
}

size_t pf_bench_largest(const pf_bench_opts *o) {
  size_t most = 0;
  shape s;
  for (size_t i = 0; any_product(o) && shape_at(o, i, &s); i++) {
    size_t bytes = pf_round_up(s.k, PF_S8BLK) * pf_round_up(s.n, 64) * sizeof(float);
    most = bytes > most ? bytes : most;
  }
  return most + ((size_t)16 << 20);
}

bool pf_bench_shape(size_t i, const char **what, size_t *k, size_t *n) {
  if (i >= N_SHAPES)
    return false;
  *what = shapes[i].what;
  *k = shapes[i].k;
  *n = shapes[i].n;
  return true;
}

bool pf_bench_has_product(const char *op) {
  for (size_t i = 0; i < N_KINDS; i++)
    if (!strcmp(kinds[i].op, op))
      return true;
  return false;
}
