/* SPDX-License-Identifier: Apache-2.0
 * The same products by OpenBLAS and oneDNN, on as many threads. OpenBLAS is used serially: each
 * thread calls it for its own columns, as our kernels are. oneDNN starts its own threads (OpenMP in
 * Debian's build). Both get what suits them: OpenBLAS the rows of a Hugging Face matrix, oneDNN
 * weights in the layout that it chose, made outside the timing. */
#include "config.h"

#include <cblas.h>
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef PF_HAVE_DNNL
#include <dnnl.h>
#endif

#include "base/mem.h"
#include "base/par.h"
#include "bench/bench.h"

enum { PAGE = 4096 };

struct pf_peer {
  pf_peer_kind kind;
  size_t m, k, n;
  int threads;
  const pf_arena *arena;
  size_t bytes, copies, turn; /* of the weights */
  void *x;
  float *y;
#ifdef PF_HAVE_DNNL
  dnnl_primitive_t prim;
  dnnl_memory_t mem[3]; /* x, w, y */
#endif
};

static const struct {
  const char *op, *library;
  size_t x_bytes, w_bytes;
} info[PF_PEER_N] = {
    [PF_PEER_SGEMM] = {"sgemm", "openblas", 4, 4}, [PF_PEER_SBGEMM] = {"sbgemm", "openblas", 2, 2},
    [PF_PEER_DNNL_F32] = {"f32", "onednn", 4, 4},  [PF_PEER_DNNL_BF16] = {"bf16", "onednn", 2, 2},
    [PF_PEER_DNNL_S8] = {"s8", "onednn", 1, 1},
};

const char *pf_peer_op(pf_peer_kind kind) {
  return info[kind].op;
}

const char *pf_peer_library(pf_peer_kind kind) {
  return info[kind].library;
}

double pf_peer_bytes(const pf_peer *p) {
  return (double)p->k * (double)p->n * (double)info[p->kind].w_bytes;
}

/* The next copy of the weights. */
static void *weights(pf_peer *p) {
  p->turn = (p->turn + 1) % p->copies;
  return p->arena->p + p->turn * p->bytes;
}

/* ---- OpenBLAS ---- */

/* Not in every build, so found at run time. */
typedef void (*sbgemm_fn)(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE ta, enum CBLAS_TRANSPOSE tb,
                          blasint m, blasint n, blasint k, float alpha, const uint16_t *a,
                          blasint lda, const uint16_t *b, blasint ldb, float beta, float *c,
                          blasint ldc);

static sbgemm_fn find_sbgemm(void) {
  sbgemm_fn fn;
  void *p = dlsym(RTLD_DEFAULT, "cblas_sbgemm");
  memcpy(&fn, &p, sizeof fn);
  return fn;
}

typedef struct blas_job {
  const pf_peer *p;
  const char *w;
} blas_job;

static void sgemm_part(const pf_peer *p, const float *w, float *y, blasint n) {
  blasint m = (blasint)p->m, k = (blasint)p->k, ldy = (blasint)p->n;
  if (m == 1)
    cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, w, k, p->x, 1, 0, y, 1);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, p->x, k, w, k, 0, y, ldy);
}

static void blas_part(void *arg, int tid, int nt) {
  const blas_job *j = arg;
  const pf_peer *p = j->p;
  size_t lo, hi;
  pf_par_range(p->n, tid, nt, &lo, &hi);
  if (lo == hi)
    return;
  const char *w = j->w + lo * p->k * info[p->kind].w_bytes;
  if (p->kind == PF_PEER_SGEMM)
    sgemm_part(p, (const float *)(const void *)w, p->y + lo, (blasint)(hi - lo));
  else
    find_sbgemm()(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)p->m, (blasint)(hi - lo),
                  (blasint)p->k, 1, p->x, (blasint)p->k, (const uint16_t *)(const void *)w,
                  (blasint)p->k, 0, p->y + lo, (blasint)p->n);
}

static bool blas_open(pf_peer *p) {
  if (p->kind == PF_PEER_SBGEMM && !find_sbgemm())
    return false;
  openblas_set_num_threads(1); /* of each of our threads */
  p->bytes = p->k * p->n * info[p->kind].w_bytes;
  return true;
}

static void blas_call(pf_peer *p) {
  blas_job j = {p, weights(p)};
  pf_par(p->threads, blas_part, &j);
}

/* ---- oneDNN, version 2 ---- */

#ifdef PF_HAVE_DNNL
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static bool dnnl_ready(int threads) {
  omp_set_num_threads(threads);
  return stream || (dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
                    dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success);
}

/* One scale for each output, as weights in int8 have. */
static bool output_scales(dnnl_primitive_attr_t attr, size_t n) {
  float *s = pf_alloc(n, sizeof *s);
  for (size_t i = 0; s && i < n; i++)
    s[i] = 0x1p-7f;
  bool ok =
      s && dnnl_primitive_attr_set_output_scales(attr, (dnnl_dim_t)n, 1 << 1, s) == dnnl_success;
  pf_free(s);
  return ok;
}

/* The matrix product as oneDNN plans it; NULL when it has none for these types on this CPU. */
static dnnl_primitive_desc_t plan(const pf_peer *p) {
  dnnl_data_type_t type = p->kind == PF_PEER_DNNL_F32    ? dnnl_f32
                          : p->kind == PF_PEER_DNNL_BF16 ? dnnl_bf16
                                                         : dnnl_s8;
  dnnl_dims_t dx = {(dnnl_dim_t)p->m, (dnnl_dim_t)p->k}, dw = {(dnnl_dim_t)p->k, (dnnl_dim_t)p->n},
              dy = {(dnnl_dim_t)p->m, (dnnl_dim_t)p->n};
  dnnl_memory_desc_t x, w, y;
  dnnl_matmul_desc_t d;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t pd = NULL;
  bool ok = dnnl_memory_desc_init_by_tag(&x, 2, dx, type, dnnl_ab) == dnnl_success &&
            dnnl_memory_desc_init_by_tag(&w, 2, dw, type, dnnl_format_tag_any) == dnnl_success &&
            dnnl_memory_desc_init_by_tag(&y, 2, dy, dnnl_f32, dnnl_ab) == dnnl_success &&
            dnnl_matmul_desc_init(&d, &x, &w, NULL, &y) == dnnl_success &&
            dnnl_primitive_attr_create(&attr) == dnnl_success &&
            (type != dnnl_s8 || output_scales(attr, p->n));
  if (ok && dnnl_primitive_desc_create(&pd, &d, attr, engine, NULL) != dnnl_success)
    pd = NULL;
  dnnl_primitive_attr_destroy(attr);
  return pd;
}

/* The arena's values are as good as weights that were reordered: the time does not depend on them.
 */
static bool dnnl_open(pf_peer *p) {
  static const dnnl_query_t which[3] = {dnnl_query_src_md, dnnl_query_weights_md,
                                        dnnl_query_dst_md};
  void *const at[3] = {p->x, p->arena->p, p->y};
  dnnl_primitive_desc_t pd = dnnl_ready(p->threads) ? plan(p) : NULL;
  if (!pd)
    return false;
  bool ok = dnnl_primitive_create(&p->prim, pd) == dnnl_success;
  for (int i = 0; ok && i < 3; i++)
    ok = dnnl_memory_create(&p->mem[i], dnnl_primitive_desc_query_md(pd, which[i], 0), engine,
                            at[i]) == dnnl_success;
  p->bytes = dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0));
  dnnl_primitive_desc_destroy(pd);
  return ok;
}

static void dnnl_call(pf_peer *p) {
  dnnl_exec_arg_t arg[3] = {
      {DNNL_ARG_SRC, p->mem[0]}, {DNNL_ARG_WEIGHTS, p->mem[1]}, {DNNL_ARG_DST, p->mem[2]}};
  dnnl_memory_set_data_handle(p->mem[1], weights(p));
  dnnl_primitive_execute(p->prim, stream, 3, arg);
  dnnl_stream_wait(stream);
}

static void dnnl_close(pf_peer *p) {
  for (int i = 0; i < 3; i++)
    dnnl_memory_destroy(p->mem[i]);
  dnnl_primitive_destroy(p->prim);
}

static void describe_dnnl(char line[256]) {
  const dnnl_version_t *v = dnnl_version();
  snprintf(line, 256, "oneDNN %d.%d.%d, threads: %s, code path 0x%x", v->major, v->minor, v->patch,
           v->cpu_runtime == DNNL_RUNTIME_OMP   ? "OpenMP"
           : v->cpu_runtime == DNNL_RUNTIME_TBB ? "TBB"
                                                : "other",
           (unsigned)dnnl_get_effective_cpu_isa());
}
#else
static bool dnnl_open(pf_peer *p) {
  (void)p;
  return false;
}

static void dnnl_call(pf_peer *p) {
  (void)p;
}

static void dnnl_close(pf_peer *p) {
  (void)p;
}

static void describe_dnnl(char line[256]) {
  snprintf(line, 256, "not in this build");
}
#endif

/* ---- both ---- */

static bool is_dnnl(pf_peer_kind kind) {
  return kind >= PF_PEER_DNNL_F32;
}

/* Small numbers of the type, all bits of an arena's pattern. */
static void *activations(const pf_bench *b, size_t bytes) {
  char *x = pf_alloc(bytes, 1);
  if (x)
    memcpy(x, b->arena.p, bytes);
  return x;
}

pf_peer *pf_peer_open(pf_peer_kind kind, const pf_bench *b, size_t m, size_t k, size_t n) {
  pf_peer *p = pf_calloc(1, sizeof *p);
  if (!p)
    return NULL;
  *p = (pf_peer){.kind = kind, .m = m, .k = k, .n = n, .arena = &b->arena};
  p->threads = b->o.threads;
  p->x = activations(b, m * k * info[kind].x_bytes);
  p->y = pf_calloc(m * n, sizeof *p->y);
  if (p->x && p->y && (is_dnnl(kind) ? dnnl_open : blas_open)(p)) {
    p->bytes = pf_round_up(p->bytes, PAGE);
    p->copies = b->arena.bytes / p->bytes;
    if (p->copies)
      return p;
  }
  pf_peer_close(p);
  return NULL;
}

void pf_peer_call(void *peer) {
  pf_peer *p = peer;
  (is_dnnl(p->kind) ? dnnl_call : blas_call)(p);
}

void pf_peer_close(pf_peer *p) {
  if (!p)
    return;
  if (is_dnnl(p->kind))
    dnnl_close(p);
  pf_free(p->x);
  pf_free(p->y);
  pf_free(p);
}

void pf_peers_describe(char openblas[256], char dnnl[256]) {
  const char *type = getenv("OPENBLAS_CORETYPE");
  snprintf(openblas, 256, "%s, core type %s%s%s, sbgemm: %s", openblas_get_config(),
           openblas_get_corename(), type ? ", OPENBLAS_CORETYPE=" : "", type ? type : "",
           find_sbgemm() ? "yes" : "no");
  describe_dnnl(dnnl);
}
