/* SPDX-License-Identifier: Apache-2.0
 * The shipped digests of the demo models, made again on this machine. */
#include "analysis/verify.h"

#include <stdio.h>
#include <string.h>

#include "analysis/grid.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/status.h"

enum { N = PF_VERIFY_TOKENS, DECODED = 40, DIGESTS_LIMIT = 1 << 20 };

static const char *const models[] = {"demo-gemma2", "demo-qwen2"};

void pf_verify_prompt(int32_t vocab_size, int32_t ids[PF_VERIFY_TOKENS]) {
  for (uint64_t k = 0; k < N; k++) {
    uint32_t w[4];
    pf_philox(0x70657273, 0, k, w);
    ids[k] = (int32_t)(w[0] % (uint32_t)vocab_size);
  }
}

/* ---- the digests that are promised ----------------------------------------------------------- */

/* Installed beside the grids; in the source tree it belongs to the tests. */
static int read_digests(pf_buf *out) {
  char path[4400];
  if (pf_data_path("digests.sha", path, sizeof path) != PF_OK) {
    int rc = pf_data_path("../tests/golden/digests.sha", path, sizeof path);
    if (rc != PF_OK)
      return rc;
  }
  return pf_read_file(path, DIGESTS_LIMIT, out);
}

/* "SHA-256  NAME" (f32) or "SHA-256  NAME PRECISION" in a line of its own. */
static int find_digest(const char *text, const char *model, pf_precision p, char out[65]) {
  char line[128];
  snprintf(line, sizeof line, p == PF_PRECISION_F32 ? "  %s\n" : "  %s %s\n", model,
           pf_precision_name(p));
  const char *at = strstr(text, line);
  if (!at || at - text < 64)
    return pf_fail(PF_EINPUT, "digests.sha: no digest of %s in %s", model, pf_precision_name(p));
  memcpy(out, at - 64, 64);
  out[64] = '\0';
  return PF_OK;
}

/* ---- the digests of this machine ------------------------------------------------------------- */

typedef struct subject {
  const char *isa;
  int threads;
  pf_model *m;
  size_t v;      /* values of a row of logits */
  float *logits; /* (N, v) */
  float *again;  /* (v) */
  int32_t ids[N];
} subject;

static int new_seq(const subject *s, int threads, pf_ctx **c, pf_seq **q) {
  *c = NULL;
  *q = NULL;
  int rc = pf_ctx_new(c, s->m, &(pf_ctx_opts){.threads = threads, .isa = s->isa});
  return rc == PF_OK ? pf_seq_new(q, *c) : rc;
}

/* All positions in one call. */
static int prefill(subject *s) {
  pf_ctx *c;
  pf_seq *q;
  pf_row rows[N];
  int rc = new_seq(s, s->threads, &c, &q);
  for (int32_t i = 0; i < N; i++)
    rows[i] = (pf_row){.seq = q, .token = s->ids[i], .pos = i, .out = i};
  if (rc == PF_OK)
    rc = pf_eval(c, rows, N, s->logits);
  pf_seq_free(q);
  pf_ctx_free(c);
  return rc;
}

/* One position a call: the same logits. *at: the first position where they are not, -1. */
static int decode(subject *s, int32_t *at) {
  pf_ctx *c;
  pf_seq *q;
  int rc = new_seq(s, 1, &c, &q);
  *at = -1;
  for (int32_t i = 0; rc == PF_OK && *at < 0 && i < DECODED; i++) {
    rc = pf_eval(c, &(pf_row){.seq = q, .token = s->ids[i], .pos = i, .out = 0}, 1, s->again);
    if (rc == PF_OK && memcmp(s->again, s->logits + (size_t)i * s->v, s->v * sizeof(float)) != 0)
      *at = i;
  }
  pf_seq_free(q);
  pf_ctx_free(c);
  return rc;
}

static int measure(subject *s, pf_verify_row *row) {
  int32_t at;
  s->v = (size_t)pf_model_get_info(s->m)->vocab_size;
  s->logits = pf_alloc(N + 1, s->v * sizeof *s->logits);
  if (!s->logits)
    return PF_ENOMEM;
  s->again = s->logits + N * s->v;
  pf_verify_prompt((int32_t)s->v, s->ids);
  int rc = prefill(s);
  if (rc == PF_OK)
    rc = decode(s, &at);
  if (rc != PF_OK)
    return rc;
  pf_sha256_hex(s->logits, N * s->v * sizeof *s->logits, row->got);
  row->same = at < 0 && !strcmp(row->got, row->want);
  if (at >= 0)
    snprintf(row->note, sizeof row->note,
             "one position a call gives other logits than all in one call, from position %d on",
             (int)at);
  return PF_OK;
}

/* A failure to compute is a row that is not the same, not the end: the others still tell. */
static int check_one(const char *digests, const char *isa, int threads, pf_verify_row *row) {
  char dir[4400], name[64];
  subject s = {.isa = isa, .threads = threads};
  double start = pf_seconds();
  snprintf(name, sizeof name, "models/%s", row->model);
  int rc = find_digest(digests, row->model, row->precision, row->want);
  if (rc == PF_OK)
    rc = pf_data_path(name, dir, sizeof dir);
  if (rc != PF_OK)
    return rc;
  pf_model_opts o = {.threads = threads, .no_checksum = 1, .precision = row->precision, .isa = isa};
  rc = pf_model_open(&s.m, dir, &o);
  if (rc == PF_OK)
    rc = measure(&s, row);
  if (rc != PF_OK)
    snprintf(row->note, sizeof row->note, "%s", pf_last_error());
  pf_free(s.logits);
  pf_model_close(s.m);
  row->seconds = pf_seconds() - start;
  return PF_OK;
}

int pf_verify_run(const char *isa, pf_precision only, int threads,
                  void (*fn)(void *user, const pf_verify_row *row), void *user) {
  pf_buf digests = {0};
  int rc = read_digests(&digests);
  if (rc == PF_OK && isa && !pf_kernel_symbol("mul", isa)) /* the line says why */
    rc = PF_EENV;
  for (size_t i = 0; rc == PF_OK && i < 2 * (PF_N_PRECISIONS - 1); i++) {
    pf_verify_row row = {.isa = isa ? isa : "",
                         .model = models[i / (PF_N_PRECISIONS - 1)],
                         .precision = (pf_precision)(1 + i % (PF_N_PRECISIONS - 1))};
    if (only != PF_PRECISION_AUTO && row.precision != only)
      continue;
    rc = check_one(pf_buf_str(&digests), isa, threads, &row);
    if (rc == PF_OK)
      fn(user, &row);
  }
  pf_buf_free(&digests);
  return rc;
}
