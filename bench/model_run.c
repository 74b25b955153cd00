/* SPDX-License-Identifier: Apache-2.0
 * bench/model: opens a checkpoint and times loading, prompts and generation. Tokens are random and
 * no sampling takes part, as in llama-bench. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/feed.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/status.h"
#include "bench/disk.h"
#include "bench/model.h"
#include "model/kv.h"
#include "model/pack.h"
#include "model/precision.h"

#define OWN_ARENA ((size_t)1 << 30) /* weights of less are no measure of memory */
#define SMOKE     ((size_t)32 << 20)
enum { READS = 256 };

typedef struct run {
  pf_mb *b;
  const char *path;
  pf_precision precision;
  pf_ckpt files;
  pf_model *m;
  pf_ctx *c;
  float *logits; /* (the most branches, V) */
  uint64_t drawn;
  double reads[READS]; /* bytes a second, between the steps of one branch */
  size_t n_reads;
} run;

static size_t vocab(const run *r) {
  return (size_t)pf_model_get_info(r->m)->vocab_size;
}

static int32_t any_token(void *user, int32_t i) {
  run *r = user;
  (void)i;
  return (int32_t)(pf_uniform(1, 0, r->drawn++) * (double)vocab(r));
}

/* ---- what a line counts ---- */

static const pf_mat *mats_of(const pf_layer *l, size_t i) {
  const pf_mat *const all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
  return i < sizeof all / sizeof *all ? all[i] : NULL;
}

/* Values of the matrices of all layers, and of the unembedding; the bytes that a product reads. */
static double layer_values(const pf_model *m, double *bytes) {
  double n = 0;
  const pf_mat *w;
  for (int32_t l = 0; l < m->cfg.info.n_layers; l++)
    for (size_t i = 0; (w = mats_of(&m->layers[l], i)); i++) {
      n += (double)w->n * (double)w->k;
      *bytes += (double)pf_mat_read_bytes(w);
    }
  return n;
}

static double all_bytes(const pf_model *m) {
  double bytes = (double)pf_mat_read_bytes(&m->unembed);
  (void)layer_values(m, &bytes);
  return bytes;
}

/* Keys that the rows at positions [from, from + n) see. */
static double keys_of(size_t from, size_t n) {
  return (double)n * ((double)from + 0.5 * (double)(n + 1));
}

/* Operations of rows at positions [from, from + n) of one branch, the last `logits` of them through
 * the unembedding; of the others the last layer makes K,V only. A multiplication and its addition
 * are two. */
static double forward_ops(const pf_model *m, size_t from, size_t n, size_t logits) {
  const pf_model_info *i = &m->cfg.info;
  const pf_layer *last = &m->layers[i->n_layers - 1];
  double bytes = 0, skipped = 0, heads = 4 * (double)i->n_heads * (double)i->d_head;
  const pf_mat *w;
  for (size_t k = 0; (w = mats_of(last, k)); k++)
    skipped += w == &last->k || w == &last->v ? 0 : (double)w->n * (double)w->k;
  return 2 * (double)n * layer_values(m, &bytes) + heads * i->n_layers * keys_of(from, n) -
         2 * (double)(n - logits) * skipped - heads * keys_of(from, n - logits) +
         2 * (double)logits * (double)i->vocab_size * (double)i->d_model;
}

/* The peak of the instruction of the layers' products; the operations of it for each that counts.
 */
static int unit_of(const run *r, double *share, bool *amx) {
  const pf_kernel_choice *k;
  size_t n;
  int kind = pf_modes[pf_model_get_info(r->m)->precision].kind[r->m->layers->gate.type];
  *share = (double)pf_products[kind].parts;
  for (size_t i = 0; pf_kernels(&k, &n) == PF_OK && i < n; i++)
    if (!strcmp(k[i].op, pf_products[kind].names[1]))
      return *amx = !strcmp(k[i].isa, "amx"), pf_peak_of(k[i].isa, kind == PF_K_S8);
  return -1;
}

static void beside(run *r, pf_mb_line *l) {
  double share;
  int unit = unit_of(r, &share, &l->amx);
  l->peak_now = unit < 0 ? 0 : pf_peak_now(&r->b->peaks, (pf_peak_id)unit) / share;
  l->read_now = pf_read_now(&r->b->peaks, &r->b->arena);
  l->peak = unit < 0 ? 0 : r->b->peaks.ops[unit] / share;
  l->read = r->b->peaks.read;
}

static double size_of(const pf_model *m) {
  return (double)m->arena_bytes;
}

static pf_mb_line line_of(const run *r, pf_mb_test test) {
  return (pf_mb_line){.model = r->path,
                      .info = *pf_model_get_info(r->m),
                      .size = size_of(r->m),
                      .params = (double)pf_parameters(pf_model_get_info(r->m)),
                      .test = test,
                      .branches = 1,
                      .depth = r->b->o.depth,
                      .threads = r->c->threads};
}

/* ---- repetitions ---- */

typedef struct job {
  run *r;
  size_t p, n, branches;
  pf_mb_test test; /* loading */
} job;

/* One repetition: its seconds into *t. */
typedef int (*once_fn)(const job *j, double *t);

static void account(pf_mb_line *l, const double *t, size_t n) {
  double sum = 0, rate = 0, square = 0;
  l->best_s = t[0];
  for (size_t i = 0; i < n; i++) {
    double ts = l->tokens / t[i];
    sum += t[i];
    rate += ts;
    square += ts * ts;
    l->best_s = t[i] < l->best_s ? t[i] : l->best_s;
  }
  l->mean_s = sum / (double)n;
  l->mean_ts = rate / (double)n;
  double v = n > 1 ? (square - rate * rate / (double)n) / (double)(n - 1) : 0;
  l->stddev = v > 0 ? sqrt(v) : 0;
}

/* Without what bandwidth is measured with, unless that is the model. Negative: not known. */
static double memory_peak(const pf_mb *b) {
  double peak = pf_memory_peak();
  return peak < 0 || !b->own_arena ? peak : peak - (double)b->arena.bytes;
}

static int repeat(const job *j, pf_mb_line *l, once_fn once) {
  run *r = j->r;
  size_t reps = r->b->o.reps;
  double *t = pf_alloc(reps, sizeof *t), skip;
  pf_profile *prof = NULL;
  int rc = t ? PF_OK : PF_ENOMEM;
  pf_memory_peak_reset();
  if (rc == PF_OK && r->b->o.warmup)
    rc = once(j, &skip);
  if (rc == PF_OK)
    beside(r, l);
  r->n_reads = 0;
  if (r->b->o.profile && rc == PF_OK)
    rc = pf_profile_new(&prof, r->c, 0);
  if (prof)
    pf_profile_start(prof);
  for (size_t i = 0; i < reps && rc == PF_OK; i++)
    rc = once(j, &t[i]);
  if (prof) {
    pf_profile_stop(prof);
    pf_mb_profile_print(prof, l->name);
  }
  pf_profile_free(prof);
  if (rc == PF_OK) {
    account(l, t, reps);
    l->memory = memory_peak(r->b);
    if (r->n_reads)
      l->read_now = pf_median_of(r->reads, r->n_reads);
    rc = pf_mb_print(r->b, l);
  }
  pf_free(t);
  return rc;
}

/* ---- prompts and generation ---- */

static int prompt(run *r, pf_seq *s, size_t n) {
  return pf_feed_prompt(r->c, s, (int32_t)n, (int32_t)r->b->o.batch, any_token, r, r->logits);
}

static int once_prompt(const job *j, double *t) {
  pf_seq *s = NULL;
  int rc = pf_seq_new(&s, j->r->c);
  if (rc == PF_OK)
    rc = prompt(j->r, s, j->r->b->o.depth);
  double since = pf_seconds();
  if (rc == PF_OK)
    rc = prompt(j->r, s, j->p);
  *t = pf_seconds() - since;
  pf_seq_free(s);
  return rc;
}

static void read_between(run *r) {
  pf_reading reading = {&r->b->peaks, &r->b->arena};
  if (r->n_reads == READS)
    return;
  double since = pf_seconds();
  pf_read_call(&reading);
  r->reads[r->n_reads++] = pf_reading_bytes(&reading) / (pf_seconds() - since);
}

/* Steps of one token on every branch. Those of a single branch are limited by bandwidth, which is
 * measured between them, outside of *t. */
static int generate(const job *j, pf_seq *const *s, pf_row *rows, double *t) {
  int rc = PF_OK;
  *t = 0;
  for (size_t i = 0; i < j->n && rc == PF_OK; i++) {
    double since = pf_seconds();
    rc = pf_feed_step(j->r->c, s, (int32_t)j->branches, any_token, j->r, rows, j->r->logits);
    *t += pf_seconds() - since;
    if (j->branches == 1)
      read_between(j->r);
  }
  return rc;
}

static int once_branches(const job *j, double *t) {
  pf_seq **s = pf_calloc(j->branches, sizeof *s), *stem = NULL;
  pf_row *rows = pf_alloc(j->branches, sizeof *rows);
  int rc = s && rows ? pf_seq_new(&stem, j->r->c) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = prompt(j->r, stem, j->r->b->o.depth);
  for (size_t k = 0; k < j->branches && rc == PF_OK; k++)
    rc = pf_seq_fork(&s[k], stem, pf_seq_end(stem));
  if (rc == PF_OK)
    rc = generate(j, s, rows, t);
  for (size_t k = 0; s && k < j->branches; k++)
    pf_seq_free(s[k]);
  pf_seq_free(stem);
  pf_free(s);
  pf_free(rows);
  return rc;
}

static int test_prompt(run *r, size_t p) {
  job j = {.r = r, .p = p};
  pf_mb_line l = line_of(r, PF_MB_PP);
  l.p = p;
  l.tokens = (double)p;
  l.ops = forward_ops(r->m, r->b->o.depth, p, 1);
  l.bytes = all_bytes(r->m) * ceil((double)p / (double)r->b->o.batch);
  snprintf(l.name, sizeof l.name, "pp%zu", p);
  return repeat(&j, &l, once_prompt);
}

static int test_branches(run *r, size_t n, size_t branches) {
  job j = {.r = r, .n = n, .branches = branches};
  pf_mb_line l = line_of(r, PF_MB_TG);
  l.n = n;
  l.branches = branches;
  l.tokens = (double)(n * branches);
  l.ops = (double)branches * forward_ops(r->m, r->b->o.depth, n, n);
  l.bytes = all_bytes(r->m) * (double)n;
  snprintf(l.name, sizeof l.name, branches > 1 ? "tg%zu x %zu" : "tg%zu", n, branches);
  return repeat(&j, &l, once_branches);
}

static int tests(run *r) {
  const pf_mb_opts *o = &r->b->o;
  int rc = PF_OK;
  for (size_t i = 0; i < o->n_p && rc == PF_OK; i++)
    rc = test_prompt(r, o->p[i]);
  for (size_t i = 0; i < o->n_n && rc == PF_OK; i++)
    for (size_t k = 0; k < o->n_npl && rc == PF_OK; k++)
      rc = test_branches(r, o->n[i], o->npl[k]);
  return rc;
}

/* ---- opening ---- */

static void closing(run *r) {
  pf_ctx_free(r->c);
  pf_model_close(r->m);
  pf_free(r->logits);
  r->c = NULL;
  r->m = NULL;
  r->logits = NULL;
}

static int opening(run *r, bool checksum) {
  pf_mb_opts *o = &r->b->o;
  pf_model_opts mo = {.threads = o->threads, .no_checksum = !checksum, .precision = r->precision};
  size_t most = 1;
  for (size_t i = 0; i < o->n_npl; i++)
    most = o->npl[i] > most ? o->npl[i] : most;
  int rc = pf_model_open(&r->m, r->path, &mo);
  if (rc == PF_OK)
    rc = pf_ctx_new(&r->c, r->m, &(pf_ctx_opts){.threads = o->threads});
  if (rc == PF_OK && !(r->logits = pf_alloc(most * vocab(r), sizeof *r->logits)))
    rc = PF_ENOMEM;
  if (rc != PF_OK)
    closing(r);
  return rc;
}

/* Bandwidth is measured with the model's own weights, so that their pages, huge or not, are those
 * that it runs on; small models fit a cache and get other memory. */
static int measure_machine(run *r) {
  pf_mb *b = r->b;
  bool own = r->m->arena_bytes < OWN_ARENA;
  if (own && !b->own_arena) {
    int rc = pf_arena_open(&b->arena, b->o.smoke ? SMOKE : PF_READ_BYTES, r->c->threads);
    if (rc != PF_OK)
      return rc;
    b->own_arena = true;
  }
  if (!b->own_arena)
    b->arena = (pf_arena){r->m->arena, r->m->arena_bytes};
  if (!b->peaks_known) {
    b->peaks.threads = r->c->threads;
    b->peaks.rough = b->o.smoke;
    pf_peaks_measure_in(&b->peaks, &b->arena);
    b->peaks_known = true;
    pf_mb_begin(b);
  }
  return PF_OK;
}

/* ---- loading ---- */

enum { LOAD_PROMPT = 32 }; /* tokens before the first one that is generated */

/* Closes and opens again, and for PF_MB_FIRST runs a prompt. */
static int once_load(const job *j, double *t) {
  run *r = j->r;
  pf_seq *s = NULL;
  closing(r);
  if (j->test == PF_MB_COLD)
    pf_disk_drop(&r->files);
  pf_memory_peak_reset();
  double since = pf_seconds();
  int rc = opening(r, j->test == PF_MB_SUMS);
  if (rc == PF_OK && j->test == PF_MB_FIRST)
    rc = pf_seq_new(&s, r->c);
  if (s)
    rc = prompt(r, s, LOAD_PROMPT);
  *t = pf_seconds() - since;
  pf_seq_free(s);
  return rc;
}

/* The best of a few readings of the files in the loader's manner, or as the disk gives them, bytes
 * a second. The model is closed: there may be no room for both. */
static double best_reading(run *r, bool cold) {
  double best = 0, bytes = pf_disk_bytes(&r->files);
  closing(r);
  for (int i = 0; i < 4; i++) {
    double t;
    if (cold)
      pf_disk_drop(&r->files);
    if (cold && i < 2)
      t = pf_disk_read(&r->files, i == 0);
    else
      t = pf_disk_pread(&r->files, r->b->peaks.threads);
    best = t > 0 && bytes / t > best ? bytes / t : best;
  }
  return best;
}

static int test_load(run *r, pf_mb_test test, const char *name) {
  job j = {.r = r, .test = test};
  double t[PF_MB_LOADS], read = best_reading(r, test == PF_MB_COLD);
  int rc = PF_OK;
  for (int i = 0; i < PF_MB_LOADS && rc == PF_OK; i++)
    rc = once_load(&j, &t[i]);
  if (rc != PF_OK)
    return rc;
  pf_mb_line l = line_of(r, test);
  l.bytes = pf_disk_bytes(&r->files);
  l.read = l.read_now = read;
  l.memory = memory_peak(r->b);
  snprintf(l.name, sizeof l.name, "%s", name);
  account(&l, t, PF_MB_LOADS);
  return pf_mb_print(r->b, &l);
}

static int load_tests(run *r) {
  static const char *const names[] = {[PF_MB_LOAD] = "load",
                                      [PF_MB_COLD] = "load, cold",
                                      [PF_MB_SUMS] = "load, checksum",
                                      [PF_MB_FIRST] = "load, first token"};
  int rc = PF_OK;
  for (int i = PF_MB_LOAD; i <= PF_MB_FIRST && rc == PF_OK; i++)
    rc = test_load(r, (pf_mb_test)i, names[i]);
  return rc;
}

int pf_mb_run(pf_mb *b, const char *model, pf_precision p) {
  run r = {.b = b, .path = model, .precision = p};
  char dir[4096];
  int rc = pf_model_resolve(model, dir, sizeof dir);
  if (rc == PF_OK)
    rc = pf_ckpt_open(&r.files, dir);
  if (rc != PF_OK)
    return rc;
  pf_memory_peak_reset();
  rc = opening(&r, false);
  if (rc == PF_OK)
    rc = measure_machine(&r);
  if (rc == PF_OK)
    rc = tests(&r);
  if (rc == PF_OK && b->o.load)
    rc = load_tests(&r);
  closing(&r);
  pf_ckpt_close(&r.files);
  return rc;
}
