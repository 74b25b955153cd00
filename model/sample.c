/* SPDX-License-Identifier: Apache-2.0
 * Generation: greedy, or temperature / top-k / top-p from a counter-based generator. Logits are
 * processed in Hugging Face's order: repetition penalty, temperature, top-k, top-p. The draw for
 * step t depends on (seed, t) only. */
#include <stdlib.h>
#include <string.h>

#include "base/dmath.h"
#include "base/fpenv.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/status.h"
#include "model/kv.h"

void pf_gen_defaults(pf_gen_opts *o) {
  *o = (pf_gen_opts){.max_tokens = 128, .repetition_penalty = 1.0, .top_p = 1.0};
}

static int check_opts(const pf_gen_opts *o) {
  if (o->max_tokens < 1)
    return pf_fail(PF_EUSAGE, "at least one token must be generated, not %d", o->max_tokens);
  if (!(o->repetition_penalty > 0))
    return pf_fail(PF_EUSAGE, "the repetition penalty must be positive, not %g",
                   o->repetition_penalty);
  if (!(o->temperature >= 0) || o->top_k < 0 || !(o->top_p > 0 && o->top_p <= 1))
    return pf_fail(PF_EUSAGE, "temperature >= 0, top-k >= 0 and 0 < top-p <= 1 are wanted");
  return PF_OK;
}

/* Hugging Face's RepetitionPenaltyLogitsProcessor: every token seen once, negative scores times p,
 * others over p. */
static void penalise(const pf_seq *s, float penalty, float *x, uint8_t *seen) {
  memset(seen, 0, (size_t)s->ctx->model->cfg.info.vocab_size);
  for (int32_t p = 0; p < s->end; p++) {
    int32_t id = s->tokens[p];
    if (id < 0 || seen[id])
      continue;
    seen[id] = 1;
    x[id] = x[id] < 0 ? x[id] * penalty : x[id] / penalty;
  }
}

typedef struct candidate {
  float score;
  int32_t id;
} candidate;

static int by_score(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->score != y->score)
    return x->score > y->score ? -1 : 1;
  return x->id < y->id ? -1 : x->id > y->id;
}

/* Keeps the shortest head of the sorted list whose probability reaches top_p; p[i] receives
 * unnormalised weights. */
static size_t nucleus(const candidate *c, size_t n, double temperature, double top_p, double *p,
                      double *sum) {
  double total = 0;
  for (size_t i = 0; i < n; i++) {
    p[i] = pf_dexp(((double)c[i].score - (double)c[0].score) / temperature);
    total += p[i];
  }
  *sum = 0;
  for (size_t i = 0; i < n; i++) {
    *sum += p[i];
    if (*sum >= top_p * total)
      return i + 1;
  }
  return n;
}

static int draw(const pf_gen_opts *o, const float *x, size_t n, uint64_t step, int32_t *id) {
  candidate *c = pf_alloc(n, sizeof *c);
  double *p = pf_alloc(n, sizeof *p), sum;
  if (!c || !p) {
    pf_free(c);
    pf_free(p);
    return PF_ENOMEM;
  }
  for (size_t i = 0; i < n; i++)
    c[i] = (candidate){x[i], (int32_t)i};
  qsort(c, n, sizeof *c, by_score);
  size_t keep = o->top_k > 0 && (size_t)o->top_k < n ? (size_t)o->top_k : n;
  keep = nucleus(c, keep, o->temperature, o->top_p, p, &sum);
  double u = pf_uniform(o->seed, 0, step) * sum;
  size_t i = 0;
  for (double acc = p[0]; i + 1 < keep && acc <= u; acc += p[i])
    i++;
  *id = c[i].id;
  pf_free(c);
  pf_free(p);
  return PF_OK;
}

typedef struct chosen {
  int32_t id;
  float logprob, margin;
} chosen;

/* The log-probability is that of the untouched logits; the margin is between the two best processed
 * scores. */
static int choose(const pf_seq *s, const pf_gen_opts *o, float *x, uint8_t *seen, uint64_t step,
                  chosen *out) {
  size_t n = (size_t)s->ctx->model->cfg.info.vocab_size;
  const pf_simd *f = s->ctx->simd;
  uint64_t env = pf_fp_enter();
  double lse = f->logsumexp(n, x);
  float second, *raw = x + n;
  memcpy(raw, x, n * sizeof *x);
  if (o->repetition_penalty != 1.0)
    penalise(s, (float)o->repetition_penalty, x, seen);
  out->id = (int32_t)f->argmax(n, x, &second);
  out->margin = x[out->id] - second;
  int rc = o->temperature > 0 ? draw(o, x, n, step, &out->id) : PF_OK;
  out->logprob = (float)((double)raw[out->id] - lse);
  pf_fp_leave(env);
  return rc;
}

static bool is_eos(const pf_model_info *m, int32_t id) {
  for (int32_t i = 0; i < m->n_eos; i++)
    if (m->eos[i] == id)
      return true;
  return false;
}

static int prefill(pf_seq *s, const int32_t *ids, size_t n, int32_t chunk, float *x) {
  size_t step = chunk > 0 ? (size_t)chunk : n;
  pf_row *rows = pf_alloc(step, sizeof *rows);
  int rc = rows ? PF_OK : PF_ENOMEM;
  for (size_t at = 0; at < n && rc == PF_OK; at += step) {
    size_t m = n - at < step ? n - at : step;
    for (size_t i = 0; i < m; i++)
      rows[i] = (pf_row){.seq = s,
                         .token = ids[at + i],
                         .pos = s->end + (int32_t)i,
                         .out = at + i + 1 == n ? 0 : -1};
    rc = pf_eval(s->ctx, rows, m, x);
  }
  pf_free(rows);
  return rc;
}

static int decode(pf_seq *s, const pf_gen_opts *o, float *x, uint8_t *seen, pf_ids *out) {
  const pf_model_info *m = &s->ctx->model->cfg.info;
  for (int32_t t = 0;; t++) {
    chosen c;
    int rc = choose(s, o, x, seen, (uint64_t)t, &c);
    if (rc == PF_OK)
      rc = pf_ids_push(out, c.id);
    if (rc != PF_OK)
      return rc;
    bool stop = o->on_token && o->on_token(o->user, c.id, c.logprob, c.margin);
    if (stop || t + 1 == o->max_tokens || (!o->ignore_eos && is_eos(m, c.id)))
      return PF_OK;
    rc = pf_eval(s->ctx, &(pf_row){.seq = s, .token = c.id, .pos = s->end, .out = 0}, 1, x);
    if (rc != PF_OK)
      return rc;
  }
}

int pf_generate(pf_seq *s, const int32_t *ids, size_t n, const pf_gen_opts *o, pf_ids *out) {
  const pf_model_info *m = &s->ctx->model->cfg.info;
  int rc = check_opts(o);
  if (rc == PF_OK && n == 0)
    rc = pf_fail(PF_EUSAGE, "the prompt is empty: at least one token is needed");
  if (rc == PF_OK && (int64_t)s->end + (int64_t)n > m->max_positions)
    rc = pf_fail(PF_EUSAGE, "the prompt has %zu tokens; the model has %d positions",
                 (size_t)s->end + n, m->max_positions);
  if (rc != PF_OK)
    return rc;
  float *x = pf_alloc(2 * (size_t)m->vocab_size, sizeof *x);
  uint8_t *seen = pf_alloc((size_t)m->vocab_size, 1);
  rc = x && seen ? prefill(s, ids, n, o->chunk, x) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = decode(s, o, x, seen, out);
  pf_free(x);
  pf_free(seen);
  return rc;
}
