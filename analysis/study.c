/* SPDX-License-Identifier: Apache-2.0
 * The paper's additive-substitution study (arXiv 2605.23147). Four runs a cell (B baseline, X
 * persona, Y task): BB, XB, BY, XY. y: the greedy continuation of XY, 12 tokens or fewer at an EOS,
 * with the generation config's repetition penalty. At a site (layer l, position s) the value (h_BB
 * + (h_XB - h_BB)) + (h_BY - h_BB) replaces the input of layer l in the XY run, and KL(clean ||
 * changed) is summed over the next 10 teacher-forced tokens. Sites: p_user_last, p_last, and the
 * residuals of y_0 (g1) and y_1 (g2), which are appended to all four prompts, so positions agree
 * from the right end.
 *
 * Costs: BB runs once, XB once a persona, BY once a task; XY forks from XB where their tokens part.
 * A substitution at s forks XY at s and evaluates s and what follows only. By the contract
 * (simd/CONTRACT.md) a forked row has the bits of a full run. */
#include "analysis/study.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "analysis/geometry.h"
#include "analysis/jsonout.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"

const char *const pf_study_outputs[] = {
    "journal.jsonl", "results.jsonl", "generated.jsonl", "summary.json",
    "manifest.json", "timings.json",  "report.html",     NULL};

/* A call to pf_eval in the substitutions holds at most this many bytes of logits, and rows. */
enum { ROWS_MAX = 2048 };
/* Rows of y_0 and y_1 behind BB, XB and BY. */
enum { APPENDED = 6 };
static const size_t LOGITS_MAX = (size_t)512 << 20;

typedef enum run_id { BB, XB, BY, XY, N_RUNS } run_id;

/* One prompt's run: its sequence, and the residuals (layer 0..L, d) at p_user_last, p_last, then of
 * y_0 and y_1. */
typedef struct run {
  const pf_role_prompt *q;
  pf_seq *seq;
  pf_tap *taps;
  float *h[PF_N_PROBES];
} run;

typedef struct study {
  pf_plan plan;
  const pf_study_opts *o;
  pf_ctx *ctx;
  pf_journal *journal;
  int hook_pre, hook_final, hook_logits;
  size_t d, n_h, vocab; /* n_h = (L+1)*d */
  run bb, xb, *by;      /* xb: of persona xb_of; by: (n_tasks) */
  size_t xb_of;
  float *clean;         /* (12, V): logits at the rows that give y_0 .. y_11 */
  uint64_t done, total; /* rows, for the progress line */
} study;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void progress(study *s, size_t rows) {
  s->done += rows;
  if (s->o->progress && s->done < s->total) /* the end is told once, when it is the end */
    s->o->progress(s->o->progress_user, "study", s->done, s->total);
}

static int threads_of(const study *s) {
  return s->o->threads > 0 ? s->o->threads : pf_par_default();
}

static bool stopped(const study *s) {
  return s->o->stop && *s->o->stop;
}

PF_PRINTF(2, 3) static void say(const study *s, const char *fmt, ...) {
  char line[1024];
  va_list ap;
  if (!s->o->log)
    return;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  s->o->log(s->o->log_user, line);
}

/* ---- runs
 * ---------------------------------------------------------------------------------------------------------
 */

static void run_free(run *r) {
  pf_seq_free(r->seq);
  pf_free(r->taps);
  for (int i = 0; i < PF_N_PROBES; i++)
    pf_free(r->h[i]);
  *r = (run){0};
}

/* Taps of one position: the input of every layer, and what the final norm gives. */
static void capture_at(const study *s, pf_tap *t, int32_t pos, float *out) {
  int32_t n = s->plan.info->n_layers;
  for (int32_t l = 0; l <= n; l++)
    t[l] = (pf_tap){.hook = l < n ? s->hook_pre : s->hook_final,
                    .layer = l < n ? l : -1,
                    .head = -1,
                    .pos_lo = pos,
                    .pos_hi = pos + 1,
                    .op = PF_OP_CAPTURE,
                    .out = out + (size_t)l * s->d};
}

/* from: a run whose first n_keep positions hold the same tokens, NULL for none. Captures at the
 * four sites. */
static int run_begin(study *s, run *r, const pf_role_prompt *q, const run *from, int32_t n_keep) {
  size_t n = (size_t)s->plan.info->n_layers + 1;
  *r = (run){.q = q};
  r->taps = pf_calloc(PF_N_PROBES * n + 1, sizeof *r->taps);
  for (size_t i = 0; i < PF_N_PROBES; i++) {
    r->h[i] = pf_calloc(s->n_h, sizeof **r->h);
    if (!r->taps || !r->h[i])
      return PF_ENOMEM;
    capture_at(s, r->taps + i * n, pf_plan_site(q, (pf_probe)i), r->h[i]);
  }
  int rc = from ? pf_seq_fork(&r->seq, from->seq, n_keep) : pf_seq_new(&r->seq, s->ctx);
  return rc == PF_OK ? pf_seq_set_taps(r->seq, r->taps, PF_N_PROBES * n) : rc;
}

/* Evaluates the prompt from position `at` on. */
static int run_prompt(study *s, run *r, int32_t at) {
  size_t n = r->q->enc.n - (size_t)at;
  pf_row *rows = pf_alloc(n, sizeof *rows);
  if (!rows)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++)
    rows[i] = (pf_row){
        .seq = r->seq, .token = r->q->enc.ids[(size_t)at + i], .pos = at + (int32_t)i, .out = -1};
  int rc = pf_eval(s->ctx, rows, n, NULL);
  pf_free(rows);
  progress(s, n);
  return rc;
}

static int base_run(study *s, run *r, const pf_role_prompt *q, const run *from) {
  int32_t keep = from ? pf_shared_prefix(q, from->q, q->p_user_last) : 0;
  int rc = run_begin(s, r, q, from, keep);
  if (rc == PF_OK)
    rc = run_prompt(s, r, keep);
  if (rc != PF_OK)
    run_free(r);
  return rc;
}

/* The three baseline runs of a cell, as far as they are not there yet. */
static int need_runs(study *s, size_t persona, size_t task) {
  int rc = PF_OK;
  if (!s->bb.seq)
    rc = base_run(s, &s->bb, &s->plan.bb, NULL);
  if (rc == PF_OK && !s->by[task].seq)
    rc = base_run(s, &s->by[task], &s->plan.by[task], &s->bb);
  if (rc == PF_OK && (!s->xb.seq || s->xb_of != persona)) {
    run_free(&s->xb);
    rc = base_run(s, &s->xb, &s->plan.xb[persona], &s->bb);
    s->xb_of = persona;
  }
  return rc;
}

/* ---- a cell
 * -------------------------------------------------------------------------------------------------------
 */

typedef struct cell {
  size_t index;
  run xy;
  run *runs[N_RUNS];
  pf_ids y;
} cell;

static int on_token(void *user, int32_t id, float logprob, float margin) {
  (void)id, (void)logprob, (void)margin;
  return stopped(user);
}

/* XY's prompt and its continuation; the taps take the residuals and, at the rows that give y_t, the
 * clean logits. */
static int continue_xy(study *s, cell *c) {
  const pf_role_prompt *q = &s->plan.xy[c->index];
  size_t n_taps = PF_N_PROBES * ((size_t)s->plan.info->n_layers + 1);
  int32_t keep = pf_shared_prefix(q, s->xb.q, q->p_user_last);
  pf_gen_opts g;
  pf_gen_defaults(&g);
  g.max_tokens = PF_Y_MAX;
  g.repetition_penalty = s->plan.info->repetition_penalty;
  g.on_token = on_token;
  g.user = s;
  int rc = run_begin(s, &c->xy, q, &s->xb, keep);
  if (rc != PF_OK)
    return rc;
  c->xy.taps[n_taps] = (pf_tap){.hook = s->hook_logits,
                                .layer = -1,
                                .head = -1,
                                .pos_lo = q->p_last,
                                .pos_hi = q->p_last + PF_Y_MAX,
                                .op = PF_OP_CAPTURE,
                                .out = s->clean,
                                .out_stride = s->vocab};
  rc = pf_seq_set_taps(c->xy.seq, c->xy.taps, n_taps + 1);
  if (rc == PF_OK)
    rc = pf_generate(c->xy.seq, q->enc.ids + keep, q->enc.n - (size_t)keep, &g, &c->y);
  progress(s, q->enc.n - (size_t)keep + PF_Y_MAX - 1);
  return rc;
}

/* Appends y_0 and y_1 (as far as they exist) to BB, XB and BY; to XY what generation left out after
 * an early EOS. The runs' own sequences stay as they are: forks take the rows. */
static int append_y(study *s, cell *c) {
  size_t n = (size_t)s->plan.info->n_layers + 1, n_rows = 0, m = c->y.n < 2 ? c->y.n : 2;
  pf_seq *fork[N_RUNS] = {NULL};
  pf_row rows[2 * N_RUNS];
  int rc = PF_OK;
  for (int k = 0; k < N_RUNS && rc == PF_OK; k++) {
    run *r = c->runs[k];
    pf_seq *to = r->seq;
    if (k != XY) {
      rc = pf_seq_fork(&fork[k], r->seq, (int32_t)r->q->enc.n);
      to = fork[k];
      if (rc == PF_OK)
        rc = pf_seq_set_taps(to, r->taps + PF_G1 * n, 2 * n);
    }
    for (int32_t i = 0; i < (int32_t)m && rc == PF_OK; i++)
      if ((int32_t)r->q->enc.n + i >= pf_seq_end(to))
        rows[n_rows++] =
            (pf_row){.seq = to, .token = c->y.v[i], .pos = (int32_t)r->q->enc.n + i, .out = -1};
  }
  if (rc == PF_OK)
    rc = pf_eval(s->ctx, rows, n_rows, NULL);
  for (int k = 0; k < N_RUNS; k++)
    pf_seq_free(fork[k]);
  progress(s, APPENDED);
  return rc;
}

static const float *residual(const study *s, const cell *c, run_id r, pf_probe probe,
                             int32_t layer) {
  return c->runs[r]->h[probe] + (size_t)layer * s->d;
}

/* Tokens scored at a probe: 10, fewer where y stopped at an EOS. */
static int32_t scored(const cell *c, pf_probe probe) {
  int32_t left = (int32_t)c->y.n - pf_probe_prefix(probe);
  return left < 0 ? 0 : left < PF_SCORED ? left : PF_SCORED;
}

/* ---- substitutions
 * ------------------------------------------------------------------------------------------------
 */

/* One condition: the additive value put at (layer, site of the probe) of XY. */
typedef struct condition {
  pf_probe probe;
  int32_t layer, n_scored;
  pf_seq *seq;
  pf_tap tap;
  float *value;         /* (d) */
  size_t out;           /* its first row of logits */
  double kl[PF_SCORED]; /* of each scored token, nats */
} condition;

static int condition_begin(const study *s, const cell *c, condition *k) {
  const pf_role_prompt *q = c->xy.q;
  int32_t at = pf_plan_site(q, k->probe);
  k->value = pf_alloc(s->d, sizeof *k->value);
  if (!k->value)
    return PF_ENOMEM;
  pf_additive(residual(s, c, BB, k->probe, k->layer), residual(s, c, XB, k->probe, k->layer),
              residual(s, c, BY, k->probe, k->layer), s->d, k->value);
  int rc = pf_seq_fork(&k->seq, c->xy.seq, at);
  k->tap = (pf_tap){.hook = s->hook_pre,
                    .layer = k->layer,
                    .head = -1,
                    .pos_lo = at,
                    .pos_hi = at + 1,
                    .op = PF_OP_REPLACE,
                    .value = k->value};
  return rc == PF_OK ? pf_seq_set_taps(k->seq, &k->tap, 1) : rc;
}

static void condition_end(condition *k) {
  pf_seq_free(k->seq);
  pf_free(k->value);
  k->seq = NULL;
  k->value = NULL;
}

/* The rows of a condition: from its site to the row that gives its last scored token. */
static size_t condition_rows(const cell *c, const condition *k, pf_row *rows) {
  const pf_role_prompt *q = c->xy.q;
  int32_t n = (int32_t)q->enc.n, first = q->p_last + pf_probe_prefix(k->probe);
  size_t m = 0;
  for (int32_t at = k->tap.pos_lo; at < first + k->n_scored; at++, m++)
    rows[m] = (pf_row){.seq = k->seq,
                       .token = at < n ? q->enc.ids[at] : c->y.v[at - n],
                       .pos = at,
                       .out = at < first ? -1 : (int32_t)k->out + at - first};
  return m;
}

typedef struct kl_job {
  const study *s;
  condition *k;
  size_t n;
  const float *logits;
} kl_job;

static void kl_part(void *arg, int tid, int nt) {
  const kl_job *j = arg;
  size_t lo, hi, v = j->s->vocab;
  pf_par_range(j->n * PF_SCORED, tid, nt, &lo, &hi);
  for (size_t i = lo; i < hi; i++) {
    condition *k = &j->k[i / PF_SCORED];
    size_t t = i % PF_SCORED;
    if (t < (size_t)k->n_scored)
      k->kl[t] = pf_kl(j->s->clean + (t + (size_t)pf_probe_prefix(k->probe)) * v,
                       j->logits + (k->out + t) * v, v);
  }
}

static int check_fired(const condition *k, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (k[i].tap.fired != 1)
      return pf_fail(PF_EINTERNAL, "the substitution at layer %d acted on %llu rows, not on one",
                     k[i].layer, (unsigned long long)k[i].tap.fired);
  return PF_OK;
}

/* Conditions k[0..n) in one call: every weight is read once for all of them. */
static int eval_batch(study *s, const cell *c, condition *k, size_t n, size_t n_rows,
                      size_t n_out) {
  pf_row *rows = pf_alloc(n_rows, sizeof *rows);
  float *logits = pf_alloc(n_out, s->vocab * sizeof *logits);
  int threads = threads_of(s);
  int rc = rows && logits ? PF_OK : PF_ENOMEM;
  size_t m = 0;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    rc = condition_begin(s, c, &k[i]);
    if (rc == PF_OK)
      m += condition_rows(c, &k[i], rows + m);
  }
  if (rc == PF_OK)
    rc = pf_eval(s->ctx, rows, m, logits);
  if (rc == PF_OK)
    rc = check_fired(k, n);
  if (rc == PF_OK)
    pf_par(threads, kl_part, &(kl_job){s, k, n, logits});
  for (size_t i = 0; i < n; i++)
    condition_end(&k[i]);
  pf_free(rows);
  pf_free(logits);
  progress(s, m);
  return rc;
}

static int eval_conditions(study *s, const cell *c, condition *k, size_t n) {
  size_t out_max = LOGITS_MAX / (s->vocab * sizeof(float)), at = 0, rows = 0, out = 0;
  int rc = PF_OK;
  for (size_t i = 0; i <= n && rc == PF_OK; i++) {
    size_t more = 0;
    if (i < n)
      more = (size_t)(c->xy.q->p_last + pf_probe_prefix(k[i].probe) + k[i].n_scored -
                      pf_plan_site(c->xy.q, k[i].probe));
    bool full =
        i < n && i > at && (rows + more > ROWS_MAX || out + (size_t)k[i].n_scored > out_max);
    if ((full || i == n) && i > at) {
      rc = stopped(s) ? PF_EINCOMPLETE : eval_batch(s, c, k + at, i - at, rows, out);
      at = i;
      rows = out = 0;
    }
    if (i < n) {
      k[i].out = out;
      out += (size_t)k[i].n_scored;
      rows += more;
    }
  }
  return rc;
}

/* ---- records
 * ------------------------------------------------------------------------------------------------------
 */

static json_t *span(pf_span s) {
  return json_pack("[i,i]", s.lo, s.hi);
}

/* The text of the tokens [lo, hi). */
static json_t *part(const pf_role_prompt *q, pf_span s) {
  if (s.hi <= s.lo)
    return json_string("");
  uint32_t lo = q->enc.start[s.lo], hi = q->enc.end[s.hi - 1];
  return hi > lo ? json_stringn(q->text + lo, hi - lo) : json_string("");
}

static json_t *prompt_json(const pf_role_prompt *q) {
  static const char *const names[] = {"bos", "template", "persona", "task", "header"};
  const pf_span spans[] = {q->bos, q->template_, q->persona, q->task, q->header};
  json_t *out = json_pack("{s:i,s:i,s:s}", "tokens", (int)q->enc.n, "p_user_last", q->p_user_last,
                          "text", q->text);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    json_object_set_new(
        out, names[i], json_pack("{s:o,s:o}", "tokens", span(spans[i]), "text", part(q, spans[i])));
  return out;
}

static json_t *y_json(const study *s, const cell *c) {
  char *text = NULL;
  size_t n = 0;
  json_t *ids = json_array(), *lp = json_array();
  for (size_t i = 0; i < c->y.n; i++) {
    json_array_append_new(ids, json_integer(c->y.v[i]));
    json_array_append_new(lp, pf_js_num(pf_logprob(s->clean + i * s->vocab, s->vocab, c->y.v[i])));
  }
  if (pf_tok_decode(s->plan.tok, c->y.v, c->y.n, 1, &text, &n) != PF_OK)
    text = NULL;
  json_t *out = json_pack("{s:o,s:o,s:o}", "ids", ids, "text",
                          text ? json_stringn(text, n) : json_null(), "logprobs", lp);
  pf_text_free(text);
  return out;
}

enum { N_NUMBERS = 7 };
static const char *const geometry_names[N_NUMBERS] = {
    "cos_xy_sum", "cos_x_y", "inter_over_xy", "norm_x", "norm_y", "norm_xy", "norm_bb"};

/* Lists over layers 0..L; "zero": the layers at which a difference is exactly 0. */
static json_t *geometry_json(const study *s, const cell *c, pf_probe probe) {
  json_t *out = json_object(), *zero = json_array();
  for (int i = 0; i < N_NUMBERS; i++)
    json_object_set_new(out, geometry_names[i], json_array());
  for (int32_t l = 0; l <= s->plan.info->n_layers; l++) {
    pf_geometry g = pf_decompose(residual(s, c, BB, probe, l), residual(s, c, XB, probe, l),
                                 residual(s, c, BY, probe, l), residual(s, c, XY, probe, l), s->d);
    const double v[N_NUMBERS] = {g.cos_xy_sum, g.cos_x_y, g.inter_over_xy, g.norm_x,
                                 g.norm_y,     g.norm_xy, g.norm_bb};
    for (int i = 0; i < N_NUMBERS; i++)
      json_array_append_new(json_object_get(out, geometry_names[i]), pf_js_num(v[i]));
    if (g.zero)
      json_array_append_new(zero, json_integer(l));
  }
  json_object_set_new(out, "zero", zero);
  return out;
}

/* kl: for each tested layer the list of its n_scored terms. */
static json_t *kl_json(const condition *k, size_t n) {
  json_t *out = json_array();
  for (size_t i = 0; i < n; i++) {
    json_t *steps = json_array();
    for (int32_t t = 0; t < k[i].n_scored; t++)
      json_array_append_new(steps, pf_js_num(k[i].kl[t]));
    json_array_append_new(out, steps);
  }
  return out;
}

static json_t *site_json(const study *s, const cell *c, pf_probe probe, const condition *k) {
  int32_t at[N_RUNS];
  for (int r = 0; r < N_RUNS; r++)
    at[r] = pf_plan_site(c->runs[r]->q, probe);
  json_t *positions =
      json_pack("{s:i,s:i,s:i,s:i}", "BB", at[BB], "XB", at[XB], "BY", at[BY], "XY", at[XY]);
  bool exists = (size_t)pf_probe_prefix(probe) <= c->y.n;
  return json_pack("{s:s,s:o,s:i,s:o,s:o}", "probe", pf_probe_names[probe], "positions", positions,
                   "n_scored", scored(c, probe), "geometry",
                   exists ? geometry_json(s, c, probe) : json_null(), "kl",
                   kl_json(k, s->plan.layers.n));
}

static json_t *cell_json(const study *s, const cell *c, const condition *k) {
  const pf_grid *g = &s->plan.grid;
  json_t *sites = json_array();
  for (size_t i = 0; i < g->n_probes; i++)
    json_array_append_new(sites, site_json(s, c, g->probes[i], k + i * s->plan.layers.n));
  size_t x = c->index / g->n_tasks, y = c->index % g->n_tasks;
  return json_pack("{s:s,s:s,s:b,s:o,s:o,s:o}", "persona", g->personas[x].key, "task",
                   g->tasks[y].key, "held_out", pf_grid_held_out(g, x, y), "prompt",
                   prompt_json(c->xy.q), "y", y_json(s, c), "sites", sites);
}

/* ---- cells one after the other
 * ------------------------------------------------------------------------------------ */

static int run_conditions(study *s, const cell *c, condition *k) {
  const pf_plan *p = &s->plan;
  size_t n = 0, n_all = p->grid.n_probes * p->layers.n;
  condition *live = pf_calloc(n_all, sizeof *live);
  if (!live)
    return PF_ENOMEM;
  for (size_t i = 0; i < n_all; i++) {
    k[i].probe = p->grid.probes[i / p->layers.n];
    k[i].layer = p->layers.v[i % p->layers.n];
    k[i].n_scored = scored(c, k[i].probe);
    if (k[i].n_scored > 0)
      live[n++] = k[i];
  }
  int rc = eval_conditions(s, c, live, n);
  for (size_t i = 0, at = 0; i < n_all; i++)
    if (k[i].n_scored > 0)
      k[i] = live[at++];
  pf_free(live);
  return rc;
}

static int run_cell(study *s, cell *c) {
  const pf_plan *p = &s->plan;
  condition *k = pf_calloc(p->grid.n_probes * p->layers.n, sizeof *k);
  int rc = k ? need_runs(s, c->index / p->grid.n_tasks, c->index % p->grid.n_tasks) : PF_ENOMEM;
  c->runs[BB] = &s->bb;
  c->runs[XB] = &s->xb;
  c->runs[BY] = &s->by[c->index % p->grid.n_tasks];
  c->runs[XY] = &c->xy;
  if (rc == PF_OK && !stopped(s))
    rc = continue_xy(s, c);
  if (rc == PF_OK && !stopped(s))
    rc = append_y(s, c);
  if (rc == PF_OK && !stopped(s))
    rc = run_conditions(s, c, k);
  if (rc == PF_OK && stopped(s))
    rc = PF_EINCOMPLETE;
  json_t *record = rc == PF_OK ? cell_json(s, c, k) : NULL;
  if (rc == PF_OK)
    rc = record ? pf_journal_append(s->journal, p->unit[c->index], record) : PF_ENOMEM;
  pf_free(k);
  return rc;
}

static bool is_done(const study *s, size_t c) {
  return pf_journal_get(s->journal, s->plan.unit[c]) != NULL;
}

static uint64_t prompt_rows(const pf_role_prompt *q, const pf_role_prompt *from) {
  return q->enc.n - (uint64_t)pf_shared_prefix(q, from, q->p_user_last);
}

static uint64_t rows_left(const study *s) {
  const pf_plan *p = &s->plan;
  uint64_t n = p->bb.enc.n;
  size_t n_tasks = p->grid.n_tasks;
  for (size_t c = 0; c < p->n_cells; c++) {
    size_t prefill, changed;
    pf_plan_rows(p, c, &prefill, &changed);
    n += is_done(s, c) ? 0 : prefill + PF_Y_MAX - 1 + APPENDED + changed;
  }
  for (size_t i = 0; i < p->grid.n_personas; i++)
    n += prompt_rows(&p->xb[i], &p->bb);
  for (size_t i = 0; i < n_tasks; i++)
    n += prompt_rows(&p->by[i], &p->bb);
  return n;
}

static int run_cells(study *s) {
  const pf_plan *p = &s->plan;
  int rc = PF_OK;
  s->total = rows_left(s);
  for (size_t i = 0; i < p->n_cells && rc == PF_OK; i++) {
    if (is_done(s, i))
      continue;
    cell c = {.index = i};
    rc = run_cell(s, &c);
    run_free(&c.xy);
    pf_ids_free(&c.y);
  }
  if (rc == PF_OK && s->o->progress)
    s->o->progress(s->o->progress_user, "study", s->total, s->total);
  if (rc == PF_EINCOMPLETE && stopped(s))
    pf_fail(rc, "%s: stopped: %zu of %zu cells are done and kept: --resume goes on", s->o->out_dir,
            pf_journal_count(s->journal), p->n_cells);
  return rc;
}

/* ---- set-up
 * -------------------------------------------------------------------------------------------------------
 */

static int find_hook(const study *s, const char *name, int *id) {
  int32_t layer;
  return pf_hook_find(s->plan.model, name, id, &layer);
}

static int set_up(study *s) {
  const pf_model_info *i = s->plan.info;
  pf_ctx_opts co = {.threads = s->o->threads};
  s->d = (size_t)i->d_model;
  s->n_h = s->d * ((size_t)i->n_layers + 1);
  s->vocab = (size_t)i->vocab_size;
  s->by = pf_calloc(s->plan.grid.n_tasks, sizeof *s->by);
  s->clean = pf_calloc(PF_Y_MAX, s->vocab * sizeof *s->clean);
  int rc = s->by && s->clean ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK)
    rc = find_hook(s, "blocks.0.hook_resid_pre", &s->hook_pre);
  if (rc == PF_OK)
    rc = find_hook(s, "ln_final.hook_out", &s->hook_final);
  if (rc == PF_OK)
    rc = find_hook(s, "unembed.hook_out", &s->hook_logits);
  return rc == PF_OK ? pf_ctx_new(&s->ctx, s->plan.model, &co) : rc;
}

static void tear_down(study *s) {
  run_free(&s->bb);
  run_free(&s->xb);
  for (size_t t = 0; s->by && t < s->plan.grid.n_tasks; t++)
    run_free(&s->by[t]);
  pf_free(s->by);
  pf_free(s->clean);
  pf_ctx_free(s->ctx);
  pf_journal_close(s->journal);
  pf_plan_free(&s->plan);
}

/* ---- dry run
 * ------------------------------------------------------------------------------------------------------
 */

/* Seconds for `n` rows of the BB prompt's last tokens in `forks` forks with logits for all of them;
 * < 0 on failure. */
static double time_forks(study *s, size_t forks, int32_t n) {
  int32_t end = (int32_t)s->bb.q->enc.n;
  pf_seq **f = pf_calloc(forks, sizeof(pf_seq *));
  pf_row *rows = pf_calloc(forks * (size_t)n, sizeof *rows);
  float *logits = pf_alloc(forks * (size_t)n, s->vocab * sizeof *logits);
  int rc = f && rows && logits ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < forks && rc == PF_OK; i++) {
    rc = pf_seq_fork(&f[i], s->bb.seq, end - n);
    for (int32_t k = 0; k < n; k++)
      rows[i * (size_t)n + (size_t)k] = (pf_row){.seq = f[i],
                                                 .token = s->bb.q->enc.ids[end - n + k],
                                                 .pos = end - n + k,
                                                 .out = (int32_t)i * n + k};
  }
  double t = now();
  if (rc == PF_OK)
    rc = pf_eval(s->ctx, rows, forks * (size_t)n, logits);
  t = now() - t;
  for (size_t i = 0; f && i < forks; i++)
    pf_seq_free(f[i]);
  pf_free(f);
  pf_free(rows);
  pf_free(logits);
  return rc == PF_OK ? t : -1;
}

/* The best of three: other work on the machine only ever makes a sample longer. */
static double best_time(study *s, size_t forks, int32_t n) {
  double best = time_forks(s, forks, n);
  for (int i = 0; i < 2 && best >= 0; i++) {
    double t = time_forks(s, forks, n);
    best = t < best ? t : best;
  }
  return best;
}

static double total_rows(const pf_plan *p, double *prefill, double *changed) {
  *prefill = (double)p->bb.enc.n;
  *changed = 0;
  for (size_t i = 0; i < p->grid.n_personas; i++)
    *prefill += (double)prompt_rows(&p->xb[i], &p->bb);
  for (size_t i = 0; i < p->grid.n_tasks; i++)
    *prefill += (double)prompt_rows(&p->by[i], &p->bb);
  for (size_t c = 0; c < p->n_cells; c++) {
    size_t a, b;
    pf_plan_rows(p, c, &a, &b);
    *prefill += (double)a;
    *changed += (double)b;
  }
  return *prefill + *changed + (double)(PF_Y_MAX - 1 + APPENDED) * (double)p->n_cells;
}

/* Bytes beside the weights: K,V of the runs that live at once, captured residuals, logits. */
static double memory_needed(const study *s) {
  const pf_plan *p = &s->plan;
  double positions = (double)p->bb.enc.n, longest = 0,
         sites = PF_N_PROBES * (double)(p->grid.n_tasks + 3);
  for (size_t i = 0; i < p->grid.n_tasks; i++)
    positions += (double)p->by[i].enc.n;
  for (size_t i = 0; i < p->n_cells; i++)
    longest = (double)p->xy[i].enc.n > longest ? (double)p->xy[i].enc.n : longest;
  size_t conditions = p->grid.n_probes * p->layers.n;
  double out = (double)conditions * PF_SCORED,
         cap = (double)LOGITS_MAX / ((double)s->vocab * sizeof(float));
  positions +=
      2 * longest + 64.0 * (double)conditions; /* a fork holds blocks of 32 positions of its own */
  return positions * (double)pf_ctx_bytes_per_position(s->ctx) +
         sites * (double)s->n_h * sizeof(float) +
         ((out < cap ? out : cap) + PF_Y_MAX) * (double)s->vocab * sizeof(float);
}

static int dry_run(study *s) {
  const pf_plan *p = &s->plan;
  double prefill, changed, rows = total_rows(p, &prefill, &changed);
  int rc = base_run(s, &s->bb, &p->bb, NULL);
  if (rc != PF_OK)
    return rc;
  int32_t n = p->bb.enc.n > 11 ? 10 : 1;
  double decode = best_time(s, 1, 1), many = best_time(s, 4, n) / (4.0 * n);
  if (decode < 0 || many < 0)
    return PF_ENOMEM;
  double seconds =
      (double)p->n_cells * ((PF_Y_MAX - 1) * decode + APPENDED * many) + (prefill + changed) * many;
  say(s, "model    %s, %d layers, width %d, %.1f MB of weights", p->info->arch, p->info->n_layers,
      p->info->d_model, (double)p->info->weight_bytes / 1e6);
  say(s, "cells    %zu (%zu personas x %zu tasks), %zu probes x %zu layers: %zu substitutions",
      p->n_cells, p->grid.n_personas, p->grid.n_tasks, p->grid.n_probes, p->layers.n,
      p->n_cells * p->grid.n_probes * p->layers.n);
  say(s, "rows     %.0f: prompts %.0f, continuations %.0f, substitutions %.0f", rows, prefill,
      (double)(PF_Y_MAX - 1 + APPENDED) * (double)p->n_cells, changed);
  say(s, "memory   %.1f MB beside the weights", memory_needed(s) / 1e6);
  say(s,
      "time     about %.0f s, from one decoded token (%.2f ms) and %d rows at once (%.2f ms a row) "
      "measured now",
      ceil(seconds), 1e3 * decode, 4 * n, 1e3 * many);
  return PF_OK;
}

/* ---- the whole
 * ----------------------------------------------------------------------------------------------------
 */

/* Times, and the threads that took them, stand apart from the results, whose bytes are the same in
 * every run. A run that found all cells done leaves the times of the one that computed them. */
static int write_timings(const study *s, double load, double work, size_t cells) {
  char path[4400];
  pf_buf b = {0};
  snprintf(path, sizeof path, "%s/timings.json", s->o->out_dir);
  if (cells == 0 && access(path, F_OK) == 0)
    return PF_OK;
  json_t *t =
      json_pack("{s:s,s:i,s:o,s:o,s:I,s:I}", "schema", "personaflow-timings/1", "threads",
                threads_of(s), "load_seconds", pf_js_num(load), "study_seconds", pf_js_num(work),
                "cells_computed", (json_int_t)cells, "rows", (json_int_t)s->done);
  pf_js_dump(t, 1, &b);
  pf_buf_puts(&b, "\n");
  int rc = t && !b.failed ? pf_write_file(path, b.s, b.n) : PF_ENOMEM;
  json_decref(t);
  pf_buf_free(&b);
  return rc;
}

static int compute(study *s, double load) {
  pf_journal_mode mode = s->o->force    ? PF_JOURNAL_FORCE
                         : s->o->resume ? PF_JOURNAL_RESUME
                                        : PF_JOURNAL_NEW;
  int rc = pf_journal_open(&s->journal, s->o->out_dir, mode, s->plan.head, pf_study_outputs);
  if (rc != PF_OK)
    return rc;
  size_t before = pf_journal_count(s->journal);
  if (pf_journal_dropped(s->journal))
    say(s, "journal: %zu bytes of an unfinished record were dropped",
        pf_journal_dropped(s->journal));
  if (before)
    say(s, "journal: %zu of %zu cells are there already", before, s->plan.n_cells);
  double t = now();
  rc = run_cells(s);
  if (rc == PF_OK)
    rc = pf_export(&s->plan, s->o, s->journal);
  if (rc == PF_OK)
    rc = write_timings(s, load, now() - t, s->plan.n_cells - before);
  return rc == PF_OK ? pf_report_make(s->o->out_dir) : rc;
}

static int check_opts(const pf_study_opts *o) {
  if (!o->model || !o->grid || (!o->out_dir && !o->dry_run))
    return pf_fail(PF_EUSAGE, "a study wants a model, a grid and an output folder");
  if (o->resume && o->force)
    return pf_fail(PF_EUSAGE, "--resume and --force exclude each other");
  if (!o->dry_run && !o->resume && !o->force)
    return pf_journal_look(o->out_dir, pf_study_outputs);
  return PF_OK;
}

int pf_study_run(const pf_study_opts *o) {
  study s = {.o = o};
  double t = now();
  int rc = check_opts(o);
  if (rc == PF_OK)
    rc = pf_plan_make(&s.plan, o);
  double load = now() - t;
  if (rc == PF_OK)
    rc = set_up(&s);
  if (rc == PF_OK)
    rc = o->dry_run ? dry_run(&s) : compute(&s, load);
  if (rc == PF_OK && !o->dry_run && o->log) {
    rc = pf_export_table(o->out_dir, o->log, o->log_user);
    say(&s, "report: %s/report.html", o->out_dir);
  }
  tear_down(&s);
  return rc;
}
