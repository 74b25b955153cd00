/* SPDX-License-Identifier: Apache-2.0
 * One set of bits. For each model directory given and each precision, on a fixed prompt of 70
 * tokens:
 *   inv_model digest TIER PRECISIONS DIR...  logits over threads x prefill chunk x sequences in a
 *       call x {cached, recomputed, beside other rows} are equal in every bit; prints
 *       "SHA-256  NAME" (f32) or "SHA-256  NAME PRECISION" of them. The caller compares the digest
 *       with tests/golden/digests.sha, under each PERSONAFLOW_ISA and each compiler.
 *   inv_model noop TIER PRECISIONS DIR...    putting the captured value back, at every hook point
 *       alone and at all of them together, changes no bit of the logits.
 * PRECISIONS: f32,bf16,... or all. Exit 0: equal; 1: not (a line says where); other: the exit code
 * of what failed. */
#include <fenv.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "analysis/verify.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "personaflow/personaflow.h"

enum { N = PF_VERIFY_TOKENS };

/* How much of threads x chunks x batches is run: one cell; the diagonal (each value of the three
 * once: the small matrix); all threads x chunks, the batches on the diagonal; everything. */
typedef enum extent { ONCE, SHORT, WHOLE, CUBE } extent;

typedef struct subject {
  char name[128]; /* and the precision, unless f32 */
  const char *path;
  pf_model *m;
  const pf_model_info *i;
  int32_t ids[N];
  size_t v;    /* values a row of logits has */
  float *want; /* (N, v) */
  extent extent;
} subject;

static int error(const char *where) {
  fprintf(stderr, "%s: %s\n", where, pf_last_error());
  return -1;
}

static int differ(const subject *s, const char *what, size_t row) {
  printf("FAIL: %s: %s: logits differ at position %zu\n", s->name, what, row);
  return 1;
}

/* Rows [lo, hi) of the prompt for one sequence; out0 = row of the first one's logits, -1: none. */
static size_t put_rows(pf_row *rows, pf_seq *q, const subject *s, size_t lo, size_t hi, int out0) {
  for (size_t p = lo; p < hi; p++)
    rows[p - lo] = (pf_row){.seq = q,
                            .token = s->ids[p],
                            .pos = (int32_t)p,
                            .out = out0 < 0 ? -1 : out0 + (int32_t)(p - lo)};
  return hi - lo;
}

static int run_seq(pf_ctx *c, pf_seq *q, const subject *s, size_t chunk, float *logits) {
  pf_row rows[N];
  for (size_t lo = 0; lo < N; lo += chunk) {
    size_t hi = lo + chunk < N ? lo + chunk : N;
    if (pf_eval(c, rows, put_rows(rows, q, s, lo, hi, 0), logits + lo * s->v) != PF_OK)
      return error("pf_eval");
  }
  return 0;
}

/* The prompt in pieces of `chunk` rows, the cache kept between them. */
static int run(const subject *s, int threads, size_t chunk, pf_tap *taps, size_t n_taps,
               float *logits) {
  pf_ctx *c = NULL;
  pf_seq *q = NULL;
  int rc = -1;
  pf_ctx_opts o = {.threads = threads};
  if (pf_ctx_new(&c, s->m, &o) != PF_OK || pf_seq_new(&q, c) != PF_OK ||
      pf_seq_set_taps(q, taps, n_taps) != PF_OK)
    error("new sequence");
  else
    rc = run_seq(c, q, s, chunk, logits);
  pf_seq_free(q);
  pf_ctx_free(c);
  return rc;
}

/* Row t from a fresh sequence that computes positions 0..t at once. */
static int recompute(const subject *s, pf_ctx *c, size_t t, float *row) {
  pf_seq *q = NULL;
  pf_row rows[N];
  int rc = -1;
  if (pf_seq_new(&q, c) == PF_OK) {
    size_t n = put_rows(rows, q, s, 0, t + 1, -1);
    rows[n - 1].out = 0;
    rc = pf_eval(c, rows, n, row) == PF_OK ? 0 : error("pf_eval");
  }
  pf_seq_free(q);
  return rc;
}

static int check_recomputed(const subject *s, int threads, size_t step, float *row) {
  pf_ctx *c = NULL;
  pf_ctx_opts o = {.threads = threads};
  int rc = pf_ctx_new(&c, s->m, &o) == PF_OK ? 0 : error("pf_ctx_new");
  for (size_t t = 0; rc == 0 && t < N; t++) {
    if (t % step != 0 && t != N - 1)
      continue;
    rc = recompute(s, c, t, row);
    if (rc == 0 && memcmp(row, s->want + t * s->v, s->v * sizeof *row) != 0)
      rc = differ(s, "recomputed", t);
  }
  pf_ctx_free(c);
  return rc;
}

/* Two sequences at different places of the prompt, their rows mixed in one call with a third's. */
static int check_beside(const subject *s, int threads, float *logits) {
  pf_ctx *c = NULL;
  pf_seq *q[3] = {NULL};
  pf_row rows[3 * N];
  pf_ctx_opts o = {.threads = threads};
  int rc = pf_ctx_new(&c, s->m, &o) == PF_OK ? 0 : error("pf_ctx_new");
  for (int k = 0; rc == 0 && k < 3; k++)
    rc = pf_seq_new(&q[k], c) == PF_OK ? 0 : error("pf_seq_new");
  if (rc == 0) { /* the second sequence is 20 positions ahead when the three meet */
    size_t n = put_rows(rows, q[1], s, 0, 20, -1);
    rc = pf_eval(c, rows, n, NULL) == PF_OK ? 0 : error("pf_eval");
  }
  size_t n = 0, v = s->v;
  for (size_t p = 0; p < N - 20; p++) {
    rows[n++] = (pf_row){.seq = q[2], .token = s->ids[N - 1 - p], .pos = (int32_t)p, .out = -1};
    rows[n++] =
        (pf_row){.seq = q[0], .token = s->ids[p], .pos = (int32_t)p, .out = (int32_t)(2 * p)};
    rows[n++] = (pf_row){
        .seq = q[1], .token = s->ids[p + 20], .pos = (int32_t)p + 20, .out = (int32_t)(2 * p + 1)};
  }
  if (rc == 0)
    rc = pf_eval(c, rows, n, logits) == PF_OK ? 0 : error("pf_eval");
  for (size_t p = 0; rc == 0 && p < N - 20; p++)
    if (memcmp(logits + 2 * p * v, s->want + p * v, v * sizeof *logits) != 0)
      rc = differ(s, "beside other sequences", p);
    else if (memcmp(logits + (2 * p + 1) * v, s->want + (p + 20) * v, v * sizeof *logits) != 0)
      rc = differ(s, "beside other sequences", p + 20);
  for (int k = 0; k < 3; k++)
    pf_seq_free(q[k]);
  pf_ctx_free(c);
  return rc;
}

/* Rows [lo, hi) of `batch` sequences in one call, position after position, against the digest's. */
static int run_beside(pf_ctx *c, pf_seq *const *q, size_t batch, const subject *s, size_t lo,
                      size_t hi, float *logits, const char *what) {
  pf_row *rows = pf_calloc(batch * (hi - lo), sizeof *rows);
  size_t n = 0;
  for (size_t p = lo; rows && p < hi; p++)
    for (size_t b = 0; b < batch; b++, n++)
      rows[n] = (pf_row){.seq = q[b], .token = s->ids[p], .pos = (int32_t)p, .out = (int32_t)n};
  int rc = rows && pf_eval(c, rows, n, logits) == PF_OK ? 0 : error("pf_eval");
  for (size_t i = 0; rc == 0 && i < n; i++)
    if (memcmp(logits + i * s->v, s->want + (lo + i / batch) * s->v, s->v * sizeof *logits) != 0)
      rc = differ(s, what, lo + i / batch);
  pf_free(rows);
  return rc;
}

/* One cell of the matrix: `batch` sequences of the prompt side by side, in pieces of `chunk`; of
 * many sequences a first block of positions and a piece of the next. */
static int check_cell(const subject *s, int threads, size_t chunk, size_t batch) {
  size_t n = batch > 8 && s->extent != CUBE ? N / 2 + 1 : N;
  pf_ctx *c = NULL;
  pf_seq *q[16] = {NULL};
  char what[64];
  pf_ctx_opts o = {.threads = threads};
  float *logits = pf_alloc(batch * chunk, s->v * sizeof *logits);
  int rc = logits && pf_ctx_new(&c, s->m, &o) == PF_OK ? 0 : error("pf_ctx_new");
  snprintf(what, sizeof what, "threads %d, chunk %zu, batch %zu", threads, chunk, batch);
  for (size_t b = 0; rc == 0 && b < batch; b++)
    rc = pf_seq_new(&q[b], c) == PF_OK ? 0 : error("pf_seq_new");
  for (size_t lo = 0; rc == 0 && lo < n; lo += chunk)
    rc = run_beside(c, q, batch, s, lo, lo + chunk < n ? lo + chunk : n, logits, what);
  for (size_t b = 0; b < batch; b++)
    pf_seq_free(q[b]);
  pf_ctx_free(c);
  pf_free(logits);
  return rc;
}

/* Whether (thread t, chunk k, batch b) of the matrix belongs to the extent. */
static bool has_cell(extent e, size_t t, size_t k, size_t b) {
  static const size_t with_chunk[4] = {1, 3, 2, 0}; /* 1: 2, 7: 16, 64: 5, all: 1 */
  bool diagonal = t == k && b == with_chunk[k];
  return e == CUBE || diagonal || (e == WHOLE && t != k && b == 0);
}

static int check_matrix(const subject *s) {
  static const int threads[] = {1, 2, 3, 7};
  static const size_t chunks[] = {1, 7, 64, N}, batches[] = {1, 2, 5, 16};
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < 64; i++)
    if (has_cell(s->extent, i / 16, i / 4 % 4, i % 4))
      rc = check_cell(s, threads[i / 16], chunks[i / 4 % 4], batches[i % 4]);
  return rc;
}

static int check_rest(const subject *s, float *buf) {
  int rc = check_recomputed(s, 1, s->extent >= WHOLE ? 3 : 23, buf);
  if (rc == 0)
    rc = check_recomputed(s, 3, s->extent >= WHOLE ? 11 : 31, buf);
  return rc ? rc : check_beside(s, 2, buf);
}

/* The model opened and run once more by a caller that rounds upwards: it finds its own mode again,
 * and the same bits. */
static int check_environment(const subject *s, float *buf) {
  subject o = *s;
  o.m = NULL;
  pf_model_opts opts = {.no_checksum = 1, .precision = s->i->precision};
  fesetround(FE_UPWARD);
  int rc = pf_model_open(&o.m, s->path, &opts) == PF_OK ? 0 : error(s->path);
  const pf_model_info *i = rc == 0 ? pf_model_get_info(o.m) : NULL;
  bool same = i && i->rms_eps == s->i->rms_eps && i->attn_scale == s->i->attn_scale &&
              i->rope_theta == s->i->rope_theta;
  if (rc == 0)
    rc = run(&o, 2, 64, NULL, 0, buf);
  bool kept = fegetround() == FE_UPWARD;
  fesetround(FE_TONEAREST);
  pf_model_close(o.m);
  if (rc == 0 && (!kept || !same)) {
    printf("FAIL: %s: %s\n", s->name,
           kept ? "a caller that rounds upwards reads another configuration"
                : "the caller's rounding mode is lost");
    rc = 1;
  }
  for (size_t p = 0; rc == 0 && p < N; p++)
    if (memcmp(buf + p * s->v, s->want + p * s->v, s->v * sizeof *buf) != 0)
      rc = differ(s, "by a caller that rounds upwards", p);
  return rc;
}

static int digest(const subject *s, float *buf) {
  int rc = s->extent == ONCE ? check_cell(s, 2, 64, 2) : check_matrix(s);
  if (rc == 0)
    rc = check_environment(s, buf);
  if (rc == 0 && s->extent != ONCE)
    rc = check_rest(s, buf);
  if (rc == 0) {
    char hex[65];
    pf_sha256_hex(s->want, N * s->v * sizeof *s->want, hex);
    printf("%s  %s\n", hex, s->name);
  }
  return rc;
}

/* ---- no-op patches --------------------------------------------------------------------------- */

static size_t tap_width(const pf_hook_info *h) {
  return (size_t)(h->heads ? h->heads : 1) * (size_t)(h->width < 0 ? N : h->width);
}

/* One capture for every hook point of every layer. */
static size_t make_taps(const subject *s, pf_tap *taps, bool *ok) {
  size_t n_hooks, n = 0;
  const pf_hook_info *h = pf_hooks(s->m, &n_hooks);
  *ok = true;
  for (size_t k = 0; k < n_hooks; k++)
    for (int32_t l = 0; l < (h[k].per_layer ? s->i->n_layers : 1); l++) {
      size_t w = tap_width(&h[k]);
      float *out = taps ? pf_calloc(N, w * sizeof *out) : NULL;
      if (taps)
        taps[n] = (pf_tap){.hook = h[k].id,
                           .layer = h[k].per_layer ? l : -1,
                           .head = -1,
                           .pos_hi = N,
                           .op = PF_OP_CAPTURE,
                           .out = out,
                           .out_stride = w,
                           .n_keys = h[k].width < 0 ? N : 0};
      *ok = *ok && (!taps || out);
      n++;
    }
  return n;
}

static const char *hook_name(const subject *s, int id) {
  size_t n;
  const pf_hook_info *h = pf_hooks(s->m, &n);
  for (size_t k = 0; k < n; k++)
    if (h[k].id == id)
      return h[k].name;
  return "?";
}

static int check_patched(const subject *s, size_t chunk, pf_tap *taps, size_t n, float *got) {
  for (size_t k = 0; k < n; k++)
    taps[k].fired = 0;
  int rc = run(s, 1, chunk, taps, n, got);
  for (size_t k = 0; rc == 0 && k < n; k++)
    if (taps[k].fired != N) {
      printf("FAIL: %s: %s, layer %d: fired %llu times, not %d\n", s->name,
             hook_name(s, taps[k].hook), taps[k].layer, (unsigned long long)taps[k].fired, N);
      rc = 1;
    }
  for (size_t p = 0; rc == 0 && p < N; p++)
    if (memcmp(got + p * s->v, s->want + p * s->v, s->v * sizeof *got) != 0) {
      char what[256];
      snprintf(what, sizeof what, "no-op patch at %s, layer %d%s", hook_name(s, taps[0].hook),
               taps[0].layer, n > 1 ? " and all others" : "");
      rc = differ(s, what, p);
    }
  return rc;
}

static void to_replace(pf_tap *t) {
  t->op = PF_OP_REPLACE;
  t->value = t->out;
  t->value_stride = t->out_stride;
}

static int patch_all(const subject *s, pf_tap *taps, size_t n, float *got) {
  int rc = check_patched(s, N, taps, n, got); /* capturing changes nothing either */
  for (size_t k = 0; k < n; k++)
    to_replace(&taps[k]);
  for (size_t k = 0; rc == 0 && k < n; k += s->extent >= WHOLE ? 1 : 7)
    rc = check_patched(s, k % 2 ? N : 32, &taps[k], 1, got);
  if (rc == 0)
    rc = check_patched(s, 7, taps, n, got);
  return rc;
}

static int noop(const subject *s, float *buf) {
  bool ok;
  size_t n = make_taps(s, NULL, &ok);
  pf_tap *taps = pf_calloc(n, sizeof *taps);
  if (!taps)
    return -1;
  make_taps(s, taps, &ok);
  int rc = ok ? patch_all(s, taps, n, buf) : -1;
  for (size_t k = 0; k < n; k++)
    pf_free(taps[k].out);
  pf_free(taps);
  if (rc == 0)
    printf("%s: %zu hook points, 0 bits changed\n", s->name, n);
  return rc;
}

/* ---- main ------------------------------------------------------------------------------------ */

typedef struct request {
  const char *tier, *isa;
  int (*test)(const subject *, float *);
  bool first; /* model of the list */
} request;

/* The big tier runs the whole matrix. Normal tests run most of it for f32 with vector kernels, and
 * the small one for other precisions and with scalar kernels (models of megabytes: one cell, as the
 * other kernels reach that digest). The small tier, which emulators run, takes the small matrix for
 * f32 and for the first model. */
static extent extent_of(const request *q, const pf_model_info *i) {
  bool scalar = !strcmp(q->isa, "scalar"), f32 = i->precision == PF_PRECISION_F32;
  if (!strcmp(q->tier, "big"))
    return CUBE;
  if (!strcmp(q->tier, "small"))
    return f32 || q->first ? SHORT : ONCE;
  if (f32 && !scalar)
    return WHOLE;
  return scalar && i->weight_bytes >= 2u << 20 ? ONCE : SHORT;
}

static int with_model(const char *path, const request *q, pf_precision p) {
  const char *slash = strrchr(path, '/');
  subject s = {.path = path, .extent = ONCE};
  pf_model_opts o = {.no_checksum = 1, .precision = p};
  int rc = pf_model_open(&s.m, path, &o);
  if (rc != PF_OK)
    return error(path), pf_exit_code(rc);
  snprintf(s.name, sizeof s.name, "%s%s%s", slash ? slash + 1 : path,
           p == PF_PRECISION_F32 ? "" : " ", p == PF_PRECISION_F32 ? "" : pf_precision_name(p));
  s.i = pf_model_get_info(s.m);
  s.v = (size_t)s.i->vocab_size;
  s.extent = extent_of(q, s.i);
  pf_verify_prompt(s.i->vocab_size, s.ids);
  s.want = pf_calloc(N, s.v * sizeof(float));
  float *buf = pf_calloc(2 * N, s.v * sizeof(float));
  rc = s.want && buf ? run(&s, 1, N, NULL, 0, s.want) : -1;
  if (rc == 0)
    rc = q->test(&s, buf);
  pf_free(buf);
  pf_free(s.want);
  pf_model_close(s.m);
  fflush(stdout);
  return rc < 0 ? 99 : rc;
}

/* Every precision of a list of names, or all there are, in the program's order. */
static bool asked(const char *list, pf_precision p) {
  const char *name = pf_precision_name(p);
  size_t n = strlen(name);
  if (!strcmp(list, "all"))
    return true;
  for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
    if (strcspn(at, ",") == n && !strncmp(at, name, n))
      return true;
  return false;
}

int main(int argc, char **argv) {
  if (argc < 5 || (strcmp(argv[1], "digest") != 0 && strcmp(argv[1], "noop") != 0)) {
    fputs("usage: inv_model digest|noop TIER PRECISIONS|all DIR...\n", stderr);
    return 2;
  }
  size_t n;
  const pf_kernel_choice *k;
  int rc = pf_kernels(&k, &n);
  if (rc != PF_OK)
    return error("kernels"), pf_exit_code(rc);
  request q = {.tier = argv[2], .isa = k[1].isa, .test = strcmp(argv[1], "noop") ? digest : noop};
  for (int a = 4; a < argc && rc == 0; a++) {
    q.first = a == 4;
    for (int p = 1; p < PF_N_PRECISIONS && rc == 0; p++)
      if (asked(argv[3], (pf_precision)p))
        rc = with_model(argv[a], &q, (pf_precision)p);
  }
  return rc;
}
