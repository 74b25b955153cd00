/* SPDX-License-Identifier: Apache-2.0
 * `personaflow bench`: prompts and generation timed as llama-bench times them: tokens at random,
 * nothing sampled, a warm-up before the repetitions that count. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "analysis/feed.h"
#include "analysis/jsonout.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/rng.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

typedef struct bench {
  const pf_bench_opts *o;
  const char *path;
  pf_model *m;
  pf_ctx *c;
  float *logits; /* (most branches, V) */
  uint64_t drawn;
} bench;

/* One line: n_prompt tokens, or n_gen tokens on each of n_branches. */
typedef struct test {
  int32_t n_prompt, n_gen, n_branches;
} test;

static int32_t any_token(void *user, int32_t i) {
  bench *b = user;
  (void)i;
  return (int32_t)(pf_uniform(1, 0, b->drawn++) * (double)pf_model_get_info(b->m)->vocab_size);
}

static int prompt(bench *b, pf_seq *s, int32_t n) {
  return pf_feed_prompt(b->c, s, n, b->o->n_batch, any_token, b, b->logits);
}

static int generate(bench *b, const test *t, pf_seq *const *s, pf_row *rows) {
  int rc = PF_OK;
  for (int32_t i = 0; i < t->n_gen && rc == PF_OK; i++)
    rc = pf_feed_step(b->c, s, t->n_branches, any_token, b, rows, b->logits);
  return rc;
}

/* The seconds of one repetition, without the tokens that are there before it. */
static int once(bench *b, const test *t, double *seconds) {
  size_t n = (size_t)t->n_branches;
  pf_seq **s = pf_calloc(n, sizeof *s);
  pf_row *rows = pf_alloc(n, sizeof *rows);
  int rc = s && rows ? pf_seq_new(&s[0], b->c) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = prompt(b, s[0], b->o->n_depth);
  for (size_t k = 1; k < n && rc == PF_OK; k++)
    rc = pf_seq_fork(&s[k], s[0], b->o->n_depth);
  double since = pf_seconds();
  if (rc == PF_OK)
    rc = t->n_gen ? generate(b, t, s, rows) : prompt(b, s[0], t->n_prompt);
  *seconds = pf_seconds() - since;
  for (size_t k = 0; s && k < n; k++)
    pf_seq_free(s[k]);
  pf_free(s);
  pf_free(rows);
  return rc;
}

/* ---- a line ---------------------------------------------------------------------------------- */

static double deviation(const double *x, size_t n, double mean) {
  double square = 0;
  for (size_t i = 0; i < n; i++)
    square += (x[i] - mean) * (x[i] - mean);
  return n > 1 ? sqrt(square / (double)(n - 1)) : 0;
}

static json_t *list(const double *x, size_t n, double factor) {
  json_t *l = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(l, pf_js_num(x[i] * factor));
  return l;
}

static json_t *line_of(const bench *b, const test *t, const double *s, double *ts) {
  const pf_model_info *i = pf_model_get_info(b->m);
  size_t n = (size_t)b->o->repetitions;
  double tokens = t->n_gen ? (double)t->n_gen * t->n_branches : t->n_prompt;
  char when[32], name[64];
  time_t now = time(NULL);
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
  for (size_t k = 0; k < n; k++)
    ts[k] = tokens / s[k];
  double mean = pf_mean(s, n), sd = deviation(s, n, mean), mean_ts = pf_mean(ts, n),
         sd_ts = deviation(ts, n, mean_ts);
  int at = t->n_gen ? snprintf(name, sizeof name, t->n_branches > 1 ? "tg%d x %d" : "tg%d",
                               (int)t->n_gen, (int)t->n_branches)
                    : snprintf(name, sizeof name, "pp%d", (int)t->n_prompt);
  if (b->o->n_depth)
    snprintf(name + at, sizeof name - (size_t)at, " @ d%d", (int)b->o->n_depth);
  return json_pack(
      "{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:s,s:o,s:o,s:o,"
      "s:o,s:o,s:o}",
      "version", pf_version(), "cpu_info", pf_cpu_name(), "features", pf_cpu_features(),
      "model_filename", b->path, "model_type", i->arch, "model_size", (json_int_t)i->weight_bytes,
      "model_n_params", (json_int_t)pf_parameters(i), "precision", pf_precision_name(i->precision),
      "n_threads", b->o->threads > 0 ? b->o->threads : pf_par_default(), "n_batch",
      (int)b->o->n_batch, "n_prompt", (int)t->n_prompt, "n_gen", (int)t->n_gen, "n_branches",
      (int)t->n_branches, "n_depth", (int)b->o->n_depth, "test", name, "test_time", when, "avg_ns",
      pf_js_num(1e9 * mean), "stddev_ns", pf_js_num(1e9 * sd), "avg_ts", pf_js_num(mean_ts),
      "stddev_ts", pf_js_num(sd_ts), "samples_ns", list(s, n, 1e9), "samples_ts", list(ts, n, 1));
}

static int run_test(bench *b, const test *t) {
  size_t n = (size_t)b->o->repetitions;
  double *s = pf_alloc(2 * n, sizeof *s), skip;
  int rc = s ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK && !b->o->no_warmup)
    rc = once(b, t, &skip);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = b->o->stop && *b->o->stop ? pf_fail(PF_EINCOMPLETE, "stopped") : once(b, t, &s[i]);
  json_t *line = rc == PF_OK ? line_of(b, t, s, s + n) : NULL;
  char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
  if (rc == PF_OK)
    rc = text ? b->o->line(b->o->user, text) : PF_ENOMEM;
  free(text);
  json_decref(line);
  pf_free(s);
  return rc;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int check(const bench *b, const test *t) {
  int64_t most = pf_model_get_info(b->m)->max_positions,
          want = (int64_t)b->o->n_depth + (t->n_gen ? t->n_gen : t->n_prompt);
  return want <= most ? PF_OK
                      : pf_fail(PF_EUSAGE, "%lld positions are wanted; %s has %lld",
                                (long long)want, b->path, (long long)most);
}

static int run_tests(bench *b) {
  const pf_bench_opts *o = b->o;
  int rc = PF_OK;
  for (size_t i = 0; i < o->n_p && rc == PF_OK; i++) {
    test t = {.n_prompt = o->p[i], .n_branches = 1};
    rc = o->p[i] > 0 ? check(b, &t) : PF_OK;
    if (rc == PF_OK && o->p[i] > 0)
      rc = run_test(b, &t);
  }
  for (size_t i = 0; i < o->n_n && rc == PF_OK; i++)
    for (size_t k = 0; k < o->n_npl && rc == PF_OK && o->n[i] > 0; k++) {
      test t = {.n_gen = o->n[i], .n_branches = o->npl[k]};
      rc = check(b, &t);
      if (rc == PF_OK)
        rc = run_test(b, &t);
    }
  return rc;
}

int pf_bench_run(const pf_bench_opts *o, const char *model) {
  bench b = {.o = o, .path = model};
  pf_model_opts mo = {.threads = o->threads,
                      .no_checksum = 1,
                      .precision = o->precision,
                      .progress = o->progress,
                      .progress_user = o->progress_user};
  int32_t most = 1;
  if (o->repetitions < 1 || o->n_batch < 1 || o->n_depth < 0 || !o->line)
    return pf_fail(PF_EUSAGE, "a bench takes 1 repetition and a batch of 1 token or more");
  for (size_t k = 0; k < o->n_npl; k++)
    most = o->npl[k] > most ? o->npl[k] : most;
  int rc = pf_model_open(&b.m, model, &mo);
  if (rc == PF_OK)
    rc = pf_ctx_new(&b.c, b.m, &(pf_ctx_opts){.threads = o->threads});
  if (rc == PF_OK &&
      !(b.logits =
            pf_alloc((size_t)most * (size_t)pf_model_get_info(b.m)->vocab_size, sizeof(float))))
    rc = PF_ENOMEM;
  if (rc == PF_OK)
    rc = run_tests(&b);
  pf_ctx_free(b.c);
  pf_model_close(b.m);
  pf_free(b.logits);
  return rc;
}
