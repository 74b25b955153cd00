/* SPDX-License-Identifier: Apache-2.0
 * The study of the paper (arXiv 2605.23147) and of this project's own protocol: which experiments
 * run on which cells, in what order; the journal, the dry run and the times. Four runs a cell (B
 * baseline, X persona, Y task): BB, XB, BY, XY. y: the greedy continuation of XY. What is measured
 * is KL(clean || changed) over tokens of y. experiments.def lists the experiments; those that work
 * cell by cell share the cell's runs (lab.h), the others take all cells together. */
#include "analysis/study.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "analysis/experiment.h"
#include "analysis/findings.h"
#include "analysis/jsonout.h"
#include "base/clock.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"

#define PAPER   (1u << PF_PROTOCOL_PAPER)
#define FULL    (1u << PF_PROTOCOL_FULL)
#define ANSWERS PF_ANSWERS
#define PF_EXPERIMENT(key, revision, protocols, parts, cell, together, cost, memory, title)        \
  {key, title, revision, protocols, parts, cell, together, cost, memory},
const pf_experiment pf_experiments[] = {
#include "analysis/experiments.def"
};
#undef PF_EXPERIMENT
const size_t pf_n_experiments = sizeof pf_experiments / sizeof *pf_experiments;

const char *const pf_study_outputs[] = {"journal.jsonl",
                                        "results.jsonl",
                                        "generated.jsonl",
                                        "summary.json",
                                        "manifest.json",
                                        "timings.json",
                                        "report.html",
                                        "run.json",
                                        "findings.json",
#define PF_EXPERIMENT(key, revision, protocols, parts, cell, together, cost, memory, title)        \
  key ".jsonl",
#include "analysis/experiments.def"
#undef PF_EXPERIMENT
                                        NULL};

const pf_experiment *pf_experiment_find(const char *key) {
  for (size_t i = 0; i < pf_n_experiments; i++)
    if (!strcmp(pf_experiments[i].key, key))
      return &pf_experiments[i];
  return NULL;
}

size_t pf_experiment_parts(const pf_experiment *e, const pf_plan *p, size_t cell) {
  if (e->protocols & PF_ANSWERS && p->protocol == PF_PROTOCOL_PAPER &&
      !p->grid.answered[cell % p->grid.n_tasks])
    return 0;
  return e->parts ? e->parts(p) : 1;
}

typedef struct study {
  pf_desk d;
  const pf_study_opts *o;
  size_t *sweep;     /* cells of the additive sweep that are left */
  pf_lab_cost lab;   /* of all cells of this run, by plan */
  uint64_t *lab_of;  /* (n_cells) multiplications of each */
  pf_lab_need needs; /* of the cell that takes most */
} study;

static int threads_of(const study *s) {
  return s->o->threads > 0 ? s->o->threads : pf_par_default();
}

bool pf_desk_stopped(const pf_desk *d) {
  return d->o->stop && *d->o->stop;
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

/* ---- units ----------------------------------------------------------------------------------- */

int pf_rows_add(json_t *rows, json_t *row) {
  return row && json_array_append_new(rows, row) == 0 ? PF_OK : PF_ENOMEM;
}

void pf_desk_count(pf_desk *d, const pf_cost *more) {
  d->done += pf_work_units(&d->work, more);
  d->spent[d->now].row_layers += more->base + more->changed;
  if (d->o->progress && d->done < d->total) /* the end is told once, when it is the end */
    d->o->progress(d->o->progress_user, "study", d->done, d->total);
}

int pf_desk_eval(pf_desk *d, pf_ctx *c, const pf_row *rows, size_t n, float *logits) {
  if (pf_desk_stopped(d))
    return PF_EINCOMPLETE;
  uint64_t before = pf_ctx_row_layers(c), scored = 0;
  int rc = n ? pf_eval(c, rows, n, logits) : PF_OK;
  for (size_t i = 0; i < n; i++)
    scored += rows[i].out >= 0 || rows[i].score;
  pf_desk_count(d, &(pf_cost){.base = pf_ctx_row_layers(c) - before, .scored = scored});
  return rc;
}

int pf_desk_done(pf_desk *d, const char *experiment, size_t cell, size_t part, json_t *data) {
  char key[65];
  if (!data)
    return PF_ENOMEM;
  int rc = pf_plan_unit(&d->plan, experiment, cell, part, key);
  if (rc != PF_OK) {
    json_decref(data);
    return rc;
  }
  d->computed++;
  return pf_journal_append(d->journal, key, data);
}

bool pf_desk_has(const pf_desk *d, const char *experiment, size_t cell, size_t part) {
  char key[65];
  return d->journal && pf_plan_unit(&d->plan, experiment, cell, part, key) == PF_OK &&
         pf_journal_has(d->journal, key);
}

int pf_desk_get(const pf_desk *d, const char *experiment, size_t cell, size_t part, json_t **data) {
  char key[65];
  int rc = pf_plan_unit(&d->plan, experiment, cell, part, key);
  *data = NULL;
  return rc == PF_OK ? pf_journal_get(d->journal, key, data) : rc;
}

static bool cell_done(const pf_desk *d, const pf_experiment *e, size_t cell) {
  for (size_t k = 0; k < pf_experiment_parts(e, &d->plan, cell); k++)
    if (!pf_desk_has(d, e->key, cell, k))
      return false;
  return true;
}

/* Cells in which an experiment runs. */
static size_t cells_of(const study *s, const pf_experiment *e) {
  size_t n = 0;
  for (size_t c = 0; c < s->d.plan.n_cells; c++)
    n += pf_experiment_parts(e, &s->d.plan, c) > 0;
  return n;
}

/* This run is one of several. */
static bool is_shard(const pf_study_opts *o) {
  return o->shards > 1 && !o->finish;
}

static bool mine(const study *s, size_t cell) {
  return !is_shard(s->o) || cell % (size_t)s->o->shards == (size_t)s->o->shard;
}

/* The cells of this run in which an experiment is not done; cells NULL: their number alone. */
static size_t cells_left(const study *s, const pf_experiment *e, size_t *cells) {
  size_t n = 0;
  for (size_t c = 0; c < s->d.plan.n_cells; c++)
    if (mine(s, c) && !cell_done(&s->d, e, c)) {
      if (cells)
        cells[n] = c;
      n++;
    }
  return n;
}

static bool runs(const study *s, const pf_experiment *e) {
  return s->d.chosen[e - pf_experiments];
}

bool pf_desk_wants(const pf_desk *d, const char *experiment, size_t cell) {
  const pf_experiment *e = pf_experiment_find(experiment);
  return d->chosen[e - pf_experiments] && !cell_done(d, e, cell);
}

/* ---- choice ---------------------------------------------------------------------------------- */

static int choose_all(study *s) {
  for (size_t i = 0; i < pf_n_experiments; i++)
    s->d.chosen[i] = pf_experiments[i].protocols >> s->d.plan.protocol & 1;
  return PF_OK;
}

static int choose_one(study *s, const char *name, size_t n) {
  for (size_t i = 0; i < pf_n_experiments; i++) {
    const pf_experiment *e = &pf_experiments[i];
    if (strlen(e->key) != n || strncmp(e->key, name, n) != 0)
      continue;
    if (!(e->protocols >> s->d.plan.protocol & 1))
      return pf_fail(PF_EUSAGE, "--only: %s is no experiment of the protocol '%s'", e->key,
                     pf_protocol_names[s->d.plan.protocol]);
    if (!cells_of(s, e))
      return pf_fail(PF_EUSAGE,
                     "--only: %s runs on none of this grid's tasks in the protocol '%s': see its "
                     "answer_tasks, or take --protocol full",
                     e->key, pf_protocol_names[s->d.plan.protocol]);
    s->d.chosen[i] = true;
    return PF_OK;
  }
  pf_buf b = {0};
  for (size_t i = 0; i < pf_n_experiments; i++)
    if (pf_experiments[i].protocols >> s->d.plan.protocol & 1)
      pf_buf_printf(&b, " %s", pf_experiments[i].key);
  int rc =
      pf_fail(PF_EUSAGE, "--only: no experiment '%.*s'; there are%s", (int)n, name, pf_buf_str(&b));
  pf_buf_free(&b);
  return rc;
}

/* What works cell by cell wants y. */
static void add_needed(study *s) {
  bool wanted = false;
  for (size_t i = 0; i < pf_n_experiments; i++)
    wanted |= s->d.chosen[i] && pf_experiments[i].cell;
  s->d.chosen[pf_experiment_find("y") - pf_experiments] |= wanted;
}

static int choose(study *s) {
  s->d.chosen = pf_calloc(pf_n_experiments, sizeof *s->d.chosen);
  s->d.spent = pf_calloc(pf_n_experiments, sizeof *s->d.spent);
  if (!s->d.chosen || !s->d.spent)
    return PF_ENOMEM;
  if (!s->o->only)
    return choose_all(s);
  int rc = PF_OK;
  for (const char *at = s->o->only; rc == PF_OK; at++) {
    at += strspn(at, " ");
    size_t n = strcspn(at, ","), blanks = 0;
    while (blanks < n && at[n - 1 - blanks] == ' ')
      blanks++;
    rc = choose_one(s, at, n - blanks);
    at += n;
    if (!*at)
      break;
  }
  add_needed(s);
  return rc;
}

/* ---- costs ----------------------------------------------------------------------------------- */

static uint64_t lab_units(const study *s, const pf_lab_cost *c) {
  pf_cost cost = {.base = c->base, .changed = c->changed, .scored = c->scored};
  return pf_work_units(&s->d.work, &cost);
}

/* Counts what a cell's experiments have left, without running them. */
static int plan_cell(study *s, pf_lab *dry, size_t cell, const int32_t *y) {
  int rc = pf_desk_stopped(&s->d) ? pf_fail(PF_EINCOMPLETE, "stopped before the plan was made")
                                  : pf_lab_cell(dry, cell, y, s->d.plan.y_max);
  for (size_t i = 0; i < pf_n_experiments && rc == PF_OK; i++) {
    const pf_experiment *e = &pf_experiments[i];
    if (!runs(s, e) || !e->cell)
      continue;
    for (size_t k = 0; k < pf_experiment_parts(e, &s->d.plan, cell) && rc == PF_OK; k++) {
      if (pf_desk_has(&s->d, e->key, cell, k))
        continue;
      json_t *rows = json_array();
      rc = rows ? e->cell(dry, k, rows) : PF_ENOMEM;
      pf_lab_count_records(dry, rows);
      json_decref(rows);
      pf_lab_clear(dry);
    }
  }
  return rc;
}

/* This run has something left to do there for experiments that work cell by cell. */
static bool has_lab_work(const study *s, size_t cell) {
  for (size_t i = 0; mine(s, cell) && i < pf_n_experiments; i++)
    if (runs(s, &pf_experiments[i]) && pf_experiments[i].cell &&
        !cell_done(&s->d, &pf_experiments[i], cell))
      return true;
  return false;
}

static size_t lab_cells(const study *s) {
  size_t n = 0;
  for (size_t c = 0; c < s->d.plan.n_cells; c++)
    n += has_lab_work(s, c);
  return n;
}

static int plan_cells(study *s, pf_lab *dry, const int32_t *y) {
  uint64_t before = 0;
  size_t done = 0, all = lab_cells(s);
  int rc = PF_OK;
  for (size_t c = 0; c < s->d.plan.n_cells && rc == PF_OK; c++) {
    if (!has_lab_work(s, c))
      continue;
    rc = plan_cell(s, dry, c, y);
    uint64_t now = lab_units(s, pf_lab_costs(dry));
    s->lab_of[c] = now - before;
    before = now;
    if (s->o->progress && all > 1)
      s->o->progress(s->o->progress_user, "plan", ++done, all);
  }
  s->lab = *pf_lab_costs(dry);
  s->needs = pf_lab_needs(dry);
  return rc;
}

/* What every cell costs and the most that one takes: lengths of prompts and personas decide. */
static int plan_lab(study *s) {
  pf_lab *dry = NULL;
  pf_lab_opts o = {.threads = s->o->threads, .no_sharing = s->o->no_sharing, .dry = true};
  int32_t *y = pf_calloc(s->d.plan.y_max, sizeof *y);
  s->lab_of = pf_calloc(s->d.plan.n_cells, sizeof *s->lab_of);
  int rc = y && s->lab_of ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK && lab_cells(s)) {
    rc = pf_lab_new(&dry, &s->d.plan, &o);
    if (rc == PF_OK)
      rc = plan_cells(s, dry, y);
  }
  pf_lab_free(dry);
  pf_free(y);
  return rc;
}

/* Of the experiments that take all cells together. */
static pf_cost together_cost(const study *s) {
  pf_cost cost = {0};
  const pf_experiment *additive = pf_experiment_find("additive");
  if (runs(s, additive) && cells_left(s, additive, NULL))
    pf_cost_base(&s->d.work, &cost);
  for (size_t i = 0; i < pf_n_experiments; i++)
    for (size_t c = 0; c < s->d.plan.n_cells; c++)
      if (runs(s, &pf_experiments[i]) && pf_experiments[i].cost && mine(s, c) &&
          !cell_done(&s->d, &pf_experiments[i], c))
        pf_experiments[i].cost(&s->d, c, &cost);
  return cost;
}

static bool takes_memory(const study *s, const pf_experiment *e) {
  return runs(s, e) && e->memory && cells_left(s, e, NULL);
}

/* What one cell needs at least: in the lab, of the sweep, of y and of texts, each by itself. */
static uint64_t least_memory(const study *s) {
  uint64_t most = pf_lab_bytes(&s->needs), m;
  if (runs(s, pf_experiment_find("additive"))) {
    m = pf_work_least(&s->d.work);
    most = m > most ? m : most;
  }
  if (runs(s, pf_experiment_find("y"))) {
    m = pf_continuation_least(&s->d);
    most = m > most ? m : most;
  }
  for (size_t i = 0; i < pf_n_experiments; i++) {
    size_t one = 1;
    m = takes_memory(s, &pf_experiments[i]) ? pf_experiments[i].memory(&s->d, &one) : 0;
    most = m > most ? m : most;
  }
  return most;
}

static int set_budget(study *s) {
  uint64_t least = least_memory(s), asked = s->o->memory;
  s->d.budget = asked ? asked : least > pf_default_budget ? least : pf_default_budget;
  if (least > s->d.budget)
    return pf_fail(PF_EUSAGE,
                   "--memory: %.0f MB are too little: one cell needs %.0f MB beside the weights",
                   (double)asked / 1e6, ceil((double)least / 1e6));
  return PF_OK;
}

/* How many cells of the sweep go together. */
static int fit_sweep(study *s) {
  if (!s->sweep && !(s->sweep = pf_alloc(s->d.plan.n_cells, sizeof *s->sweep)))
    return PF_ENOMEM;
  s->d.work.cells = s->sweep;
  s->d.work.n_cells = cells_left(s, pf_experiment_find("additive"), s->sweep);
  s->d.together = pf_work_fit(&s->d.work, s->d.budget);
  return PF_OK;
}

/* Before the journal, so that a budget is refused before anything is written, and by a dry run as
 * by the run itself. */
static int make_plan(study *s) {
  int rc = plan_lab(s);
  if (rc == PF_OK)
    rc = set_budget(s);
  return rc == PF_OK ? fit_sweep(s) : rc;
}

/* The progress line's total. */
static void plan_total(study *s) {
  pf_cost cost = together_cost(s);
  s->d.total = pf_work_units(&s->d.work, &cost);
  for (size_t c = 0; c < s->d.plan.n_cells; c++)
    s->d.total += has_lab_work(s, c) ? s->lab_of[c] : 0;
}

/* ---- work ------------------------------------------------------------------------------------ */

static uint64_t peak_memory(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (uint64_t)u.ru_maxrss * 1024;
}

static void work_tick(void *user, const pf_cost *more) {
  pf_desk_count(user, more);
}

/* Begins or ends an experiment's account. */
static void account(study *s, const pf_experiment *e, bool end) {
  s->d.now = (size_t)(e - pf_experiments);
  s->d.spent[s->d.now].seconds += end ? pf_seconds() : -pf_seconds();
  s->d.spent[s->d.now].peak = peak_memory();
}

static int run_together(study *s, const pf_experiment *e) {
  size_t *cells = pf_alloc(s->d.plan.n_cells, sizeof *cells);
  if (!cells)
    return PF_ENOMEM;
  size_t n = cells_left(s, e, cells);
  account(s, e, false);
  int rc = n ? e->together(&s->d, cells, n) : PF_OK;
  account(s, e, true);
  pf_free(cells);
  pf_ctx_trim(s->d.work.ctx);
  pf_release_freed();
  return rc;
}

static int run_unit(study *s, const pf_experiment *e, size_t cell, size_t part) {
  json_t *rows = json_array();
  account(s, e, false);
  int rc = rows ? e->cell(s->d.lab, part, rows) : PF_ENOMEM;
  account(s, e, true);
  pf_lab_clear(s->d.lab);
  if (rc != PF_OK) {
    json_decref(rows);
    return rc;
  }
  return pf_desk_done(&s->d, e->key, cell, part, json_pack("{s:o}", "rows", rows));
}

static int run_cell(study *s, size_t cell) {
  bool open = false;
  pf_ids y = {0};
  int rc = PF_OK;
  for (size_t i = 0; i < pf_n_experiments && rc == PF_OK; i++) {
    const pf_experiment *e = &pf_experiments[i];
    if (!runs(s, e) || !e->cell)
      continue;
    for (size_t k = 0; k < pf_experiment_parts(e, &s->d.plan, cell) && rc == PF_OK; k++) {
      if (pf_desk_has(&s->d, e->key, cell, k))
        continue;
      if (!open)
        rc = pf_desk_y(&s->d, cell, &y);
      if (!open && rc == PF_OK)
        rc = pf_lab_cell(s->d.lab, cell, y.v, y.n);
      open = true;
      if (rc == PF_OK)
        rc = run_unit(s, e, cell, k);
    }
  }
  pf_ids_free(&y);
  return rc;
}

/* The lab's costs of the last step on the progress line. */
typedef struct ticker {
  study *s;
  pf_lab_cost seen;
} ticker;

static void tick(void *user) {
  ticker *t = user;
  const pf_lab_cost *now = pf_lab_costs(t->s->d.lab);
  pf_cost more = {.base = now->base - t->seen.base,
                  .changed = now->changed - t->seen.changed,
                  .scored = now->scored - t->seen.scored};
  pf_desk_count(&t->s->d, &more);
  t->seen = *now;
}

static int run_cells(study *s) {
  ticker t = {.s = s};
  pf_lab_opts o = {.threads = s->o->threads,
                   .memory = s->d.budget,
                   .need = s->needs,
                   .no_sharing = s->o->no_sharing,
                   .stop = s->o->stop,
                   .tick = tick,
                   .tick_user = &t};
  int rc = pf_lab_new(&s->d.lab, &s->d.plan, &o);
  for (size_t c = 0; c < s->d.plan.n_cells && rc == PF_OK; c++)
    if (mine(s, c))
      rc = run_cell(s, c);
  pf_lab_free(s->d.lab);
  s->d.lab = NULL;
  return rc;
}

static bool whole_cell(const study *s, size_t cell) {
  for (size_t i = 0; i < pf_n_experiments; i++)
    if (runs(s, &pf_experiments[i]) && !cell_done(&s->d, &pf_experiments[i], cell))
      return false;
  return true;
}

static size_t units_of(const study *s, bool done) {
  size_t n = 0;
  for (size_t i = 0; i < pf_n_experiments; i++)
    for (size_t c = 0; c < s->d.plan.n_cells && runs(s, &pf_experiments[i]); c++)
      for (size_t k = 0; k < pf_experiment_parts(&pf_experiments[i], &s->d.plan, c); k++)
        n += mine(s, c) && (!done || pf_desk_has(&s->d, pf_experiments[i].key, c, k));
  return n;
}

static int run_all(study *s) {
  int rc = fit_sweep(s); /* again: some cells may be done */
  plan_total(s);
  s->d.work.tick = work_tick;
  s->d.work.tick_user = &s->d;
  for (size_t i = 0; i < pf_n_experiments && rc == PF_OK; i++)
    if (runs(s, &pf_experiments[i]) && pf_experiments[i].together)
      rc = run_together(s, &pf_experiments[i]);
  if (rc == PF_OK && lab_cells(s))
    rc = run_cells(s);
  if (rc == PF_OK && s->o->progress)
    s->o->progress(s->o->progress_user, "study", s->d.total, s->d.total);
  if (rc == PF_EINCOMPLETE && pf_desk_stopped(&s->d))
    pf_fail(rc, "%s: stopped: %zu of %zu units are done and kept: run it again to go on",
            s->o->out_dir, units_of(s, true), units_of(s, false));
  return rc;
}

static pf_journal_mode mode_of(const pf_study_opts *o) {
  return o->force ? PF_JOURNAL_FORCE : o->no_resume ? PF_JOURNAL_NEW : PF_JOURNAL_RESUME;
}

/* ---- dry run --------------------------------------------------------------------------------- */

/* Seconds for `n` rows of the BB prompt's last tokens in `forks` forks with a score for all of
 * them; < 0 on failure. */
static double time_forks(study *s, size_t forks, int32_t n) {
  const pf_run *bb = &s->d.work.bb;
  int32_t end = (int32_t)bb->q->enc.n;
  pf_seq **f = pf_calloc(forks, sizeof(pf_seq *));
  pf_row *rows = pf_calloc(forks * (size_t)n, sizeof *rows);
  pf_score *score = pf_calloc(forks * (size_t)n, sizeof *score);
  int rc = f && rows && score ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < forks && rc == PF_OK; i++) {
    rc = pf_seq_fork(&f[i], bb->seq, end - n);
    for (int32_t k = 0; k < n; k++) {
      size_t at = i * (size_t)n + (size_t)k;
      score[at].what = PF_SCORE_LOGPROB;
      rows[at] = (pf_row){.seq = f[i],
                          .token = bb->q->enc.ids[end - n + k],
                          .pos = end - n + k,
                          .out = -1,
                          .score = &score[at]};
    }
  }
  double t = pf_seconds();
  if (rc == PF_OK)
    rc = pf_eval(s->d.work.ctx, rows, forks * (size_t)n, NULL);
  t = pf_seconds() - t;
  for (size_t i = 0; f && i < forks; i++)
    pf_seq_free(f[i]);
  pf_free(f);
  pf_free(rows);
  pf_free(score);
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

/* What a run would compute. */
typedef struct outlook {
  size_t units, cells; /* left, of this run; cells with some of them */
  pf_cost cost;        /* of the experiments that take all cells together */
  pf_lab_cost lab;     /* of those that work cell by cell, in lab_cells cells */
  size_t lab_cells, texts_together;
  uint64_t memory, lab_memory, texts_memory; /* bytes beside the weights; 0: no such work */
  double decode, many, seconds; /* of a decoded token, of `rows` rows at once, of all */
  int32_t rows;
} outlook;

/* The most that texts take. */
static void look_at_texts(const study *s, outlook *k) {
  for (size_t i = 0; i < pf_n_experiments; i++) {
    const pf_experiment *e = &pf_experiments[i];
    if (!takes_memory(s, e))
      continue;
    size_t n = 0;
    uint64_t m = e->memory(&s->d, &n);
    k->texts_together = m > k->texts_memory ? n : k->texts_together;
    k->texts_memory = m > k->texts_memory ? m : k->texts_memory;
  }
}

/* From forks of the BB prompt that run now. */
static int look_at_time(study *s, outlook *k) {
  const pf_plan *p = &s->d.plan;
  int32_t n = p->bb.enc.n > 11 ? 10 : 1;
  k->rows = 16 * n;
  k->decode = best_time(s, 1, 1);
  k->many = best_time(s, 16, n);
  if (k->decode < 0 || k->many < 0)
    return PF_ENOMEM;
  pf_cost sample = {.changed = (uint64_t)k->rows * (uint64_t)p->info->n_layers,
                    .scored = (uint64_t)k->rows};
  k->seconds = k->many / (double)pf_work_units(&s->d.work, &sample) *
                   (double)(pf_work_units(&s->d.work, &k->cost) + lab_units(s, &k->lab)) +
               (double)k->cells * (PF_Y_MAX - 1) * k->decode;
  return PF_OK;
}

static int look(study *s, outlook *k) {
  *k = (outlook){.units = units_of(s, false) - units_of(s, true),
                 .cost = together_cost(s),
                 .lab = s->lab,
                 .lab_cells = lab_cells(s),
                 .lab_memory = pf_lab_bytes(&s->needs),
                 .memory = pf_work_memory(&s->d.work, s->d.together)};
  for (size_t c = 0; c < s->d.plan.n_cells; c++)
    k->cells += mine(s, c) && !whole_cell(s, c);
  int rc = pf_work_bb(&s->d.work);
  if (rc == PF_OK)
    look_at_texts(s, k);
  return rc == PF_OK ? look_at_time(s, k) : rc;
}

/* What is left of what, where it is not the whole study. */
static void say_units(const study *s, const outlook *k) {
  const pf_study_opts *o = s->o;
  size_t mine_all = units_of(s, false);
  if (is_shard(o))
    say(s, "units    %zu to compute in %zu cells: shard %d of %d has %zu, %zu of them are there",
        k->units, k->cells, o->shard + 1, o->shards, mine_all, mine_all - k->units);
  else if (k->units < mine_all)
    say(s, "units    %zu of %zu to compute in %zu cells, %zu are there", k->units, mine_all,
        k->cells, mine_all - k->units);
}

/* Experiments that run in some of the cells only. */
static void say_answers(const study *s) {
  for (size_t i = 0; i < pf_n_experiments; i++) {
    size_t n = cells_of(s, &pf_experiments[i]);
    if (runs(s, &pf_experiments[i]) && n < s->d.plan.n_cells)
      say(s, "         %s: %zu cells, on the grid's answer_tasks", pf_experiments[i].key, n);
  }
}

static void say_study(const study *s) {
  const pf_plan *p = &s->d.plan;
  say(s, "model    %s, %d layers, width %d, %.1f MB of weights", p->info->arch, p->info->n_layers,
      p->info->d_model, (double)p->info->weight_bytes / 1e6);
  say(s, "cells    %zu (%zu personas x %zu tasks), %zu probes x %zu layers: %zu substitutions",
      p->n_cells, p->grid.n_personas, p->grid.n_tasks, p->grid.n_probes, p->layers.n,
      p->n_cells * p->grid.n_probes * p->layers.n);
  say_answers(s);
}

static void say_cost(const study *s, const outlook *k) {
  say(s, "rows     %.0f; row-layers: prompts and continuations %.0f, substitutions %.0f",
      (double)k->cost.rows, (double)k->cost.base, (double)k->cost.changed);
  if (k->cost.changed)
    say(s, "sharing  %s; without it the substitutions take %.0f row-layers, %.1f times as many",
        s->o->no_sharing ? "off" : "on", (double)k->cost.whole,
        (double)k->cost.whole / (double)k->cost.changed);
  say(s, "memory   %.1f MB beside the weights, %zu cells together", (double)k->memory / 1e6,
      s->d.together);
  if (k->texts_memory)
    say(s, "texts    %.1f MB beside the weights, %zu cells together", (double)k->texts_memory / 1e6,
        k->texts_together);
  if (!k->lab.trials)
    return;
  say(s, "trials   %.0f in %zu cells; row-layers %.0f (runs of prompts %.0f), without sharing %.0f",
      (double)k->lab.trials, k->lab_cells, (double)k->lab.changed, (double)k->lab.base,
      (double)k->lab.whole);
  say(s, "         %.1f MB beside the weights for a cell", (double)k->lab_memory / 1e6);
}

static void say_time(const study *s, const outlook *k) {
  char text[32];
  if (!k->units)
    say(s, "time     nothing is left to compute");
  else
    say(s,
        "time     about %s, from one decoded token (%.2f ms) and %d rows at once (%.2f ms a row) "
        "measured now",
        pf_duration(k->seconds, text), 1e3 * k->decode, k->rows, 1e3 * k->many / k->rows);
}

static json_t *chosen_json(const study *s) {
  json_t *a = json_array();
  for (size_t i = 0; i < pf_n_experiments; i++)
    if (runs(s, &pf_experiments[i]))
      json_array_append_new(a, json_pack("{s:s,s:I,s:I}", "key", pf_experiments[i].key, "cells",
                                         (json_int_t)cells_of(s, &pf_experiments[i]), "cells_left",
                                         (json_int_t)cells_left(s, &pf_experiments[i], NULL)));
  return a;
}

static json_t *outlook_json(const study *s, const outlook *k) {
  const pf_plan *p = &s->d.plan;
  json_t *o =
      json_pack("{s:s,s:{s:s,s:i,s:i,s:I},s:s,s:s,s:I,s:I,s:I,s:O,s:O,s:o,s:I,s:I,s:I}", "schema",
                "personaflow-plan/1", "model", "arch", p->info->arch, "n_layers", p->info->n_layers,
                "d_model", p->info->d_model, "weight_bytes", (json_int_t)p->info->weight_bytes,
                "protocol", pf_protocol_names[p->protocol], "precision",
                pf_precision_name(p->info->precision), "cells", (json_int_t)p->n_cells, "personas",
                (json_int_t)p->grid.n_personas, "tasks", (json_int_t)p->grid.n_tasks, "probes",
                json_object_get(p->head, "probes"), "layers", json_object_get(p->head, "layers"),
                "experiments", chosen_json(s), "units", (json_int_t)units_of(s, false),
                "units_left", (json_int_t)k->units, "cells_left", (json_int_t)k->cells);
  json_t *cost = json_pack(
      "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:I,s:I,s:I,s:I,s:I,s:o}", "rows",
      (json_int_t)k->cost.rows, "row_layers_base", (json_int_t)k->cost.base,
      "row_layers_substitutions", (json_int_t)k->cost.changed, "row_layers_unshared",
      (json_int_t)k->cost.whole, "trials", (json_int_t)k->lab.trials, "trial_row_layers",
      (json_int_t)k->lab.changed, "trial_row_layers_base", (json_int_t)k->lab.base,
      "trial_row_layers_unshared", (json_int_t)k->lab.whole, "sharing",
      s->o->no_sharing ? "off" : "on", "memory_bytes", (json_int_t)k->memory, "cells_together",
      (json_int_t)s->d.together, "texts_memory_bytes", (json_int_t)k->texts_memory,
      "texts_cells_together", (json_int_t)k->texts_together, "trial_memory_bytes",
      (json_int_t)k->lab_memory, "seconds", pf_js_num(k->units ? k->seconds : 0));
  if (o && cost)
    json_object_update(o, cost);
  json_decref(cost);
  if (o && is_shard(s->o))
    json_object_set_new(o, "shard", json_pack("[i,i]", s->o->shard + 1, s->o->shards));
  return o;
}

static int say_json(const study *s, const outlook *k) {
  pf_buf b = {0};
  json_t *o = outlook_json(s, k);
  pf_js_dump(o, 0, &b);
  int rc = o ? pf_buf_status(&b) : PF_ENOMEM;
  if (rc == PF_OK && s->o->log)
    s->o->log(s->o->log_user, b.s);
  pf_buf_free(&b);
  json_decref(o);
  return rc;
}

/* A dry run counts what is left: it looks at the journal that a run would go on with. */
static int peek(study *s) {
  return s->o->dry_run && s->o->out_dir
             ? pf_journal_peek(&s->d.journal, s->o->out_dir, mode_of(s->o), PF_FOLDER_STUDY,
                               s->d.plan.head, pf_study_outputs)
             : PF_OK;
}

static int dry_run(study *s) {
  outlook k;
  int rc = look(s, &k);
  if (rc == PF_OK && s->o->dry_run > 1)
    return say_json(s, &k);
  if (rc == PF_OK) {
    say_study(s);
    say_units(s, &k);
    say_cost(s, &k);
    say_time(s, &k);
  }
  return rc;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static json_t *spent(const study *s) {
  json_t *all = json_object();
  for (size_t i = 0; i < pf_n_experiments; i++)
    if (runs(s, &pf_experiments[i]))
      json_object_set_new(all, pf_experiments[i].key,
                          json_pack("{s:o,s:I,s:I}", "seconds", pf_js_num(s->d.spent[i].seconds),
                                    "row_layers", (json_int_t)s->d.spent[i].row_layers,
                                    "peak_memory_bytes", (json_int_t)s->d.spent[i].peak));
  return all;
}

/* Times, and what took them, stand apart from the results, whose bytes are the same in every run. A
 * run that found all cells done leaves the times of the one that computed them. */
static int write_timings(const study *s, double load, double seconds, size_t cells) {
  char path[4400];
  const pf_work *w = &s->d.work;
  const pf_cost *done = &w->done;
  snprintf(path, sizeof path, "%s/timings.json", s->o->out_dir);
  if (s->d.computed == 0 && access(path, F_OK) == 0)
    return PF_OK;
  json_t *t = json_pack("{s:s,s:i,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:s,s:I,s:I,s:I,s:o,s:I}", "schema",
                        "personaflow-timings/1", "threads", threads_of(s), "load_seconds",
                        pf_js_num(load), "study_seconds", pf_js_num(seconds), "base_seconds",
                        pf_js_num(w->seconds[PF_PHASE_BASE]), "substitution_seconds",
                        pf_js_num(w->seconds[PF_PHASE_SUBSTITUTIONS]), "cells_computed",
                        (json_int_t)cells, "units_computed", (json_int_t)s->d.computed, "rows",
                        (json_int_t)done->rows, "sharing", s->o->no_sharing ? "off" : "on",
                        "row_layers_base", (json_int_t)done->base, "row_layers_substitutions",
                        (json_int_t)done->changed, "cells_together", (json_int_t)s->d.together,
                        "experiments", spent(s), "peak_memory_bytes", (json_int_t)peak_memory());
  int rc = pf_js_write(s->o->out_dir, "timings.json", t);
  json_decref(t);
  return rc;
}

/* "1-of-4, 3-of-4": the shards that lack something. */
static void name_shards(const study *s, pf_buf *b) {
  for (int i = 0; i < s->o->shards; i++) {
    size_t c = (size_t)i;
    while (c < s->d.plan.n_cells && whole_cell(s, c))
      c += (size_t)s->o->shards;
    if (c < s->d.plan.n_cells)
      pf_buf_printf(b, "%s%d-of-%d", b->n ? ", " : "", i + 1, s->o->shards);
  }
}

static int check_finished(const study *s) {
  size_t done = units_of(s, true), all = units_of(s, false);
  pf_buf b = {0};
  if (done == all)
    return PF_OK;
  name_shards(s, &b);
  int rc = pf_fail(PF_EINCOMPLETE, "%s: %zu of %zu units are missing%s%s%s", s->o->out_dir,
                   all - done, all, b.n ? ", of shards " : "", pf_buf_str(&b),
                   b.n ? ": run these (study --shard), then merge again" : "");
  pf_buf_free(&b);
  return rc;
}

/* The additive sweep is whole: there are tables to show. */
static bool has_summary(const study *s) {
  return cells_left(s, pf_experiment_find("additive"), NULL) == 0;
}

/* What was asked for, for `merge`. */
static int write_run(const study *s) {
  const pf_study_opts *o = s->o;
  json_t *run = json_pack(
      "{s:s,s:s,s:s,s:s?,s:s,s:s?,s:b,s:s,s:s?,s:s?,s:s?,s:b}", "schema", "personaflow-run/1",
      "model", o->model, "grid", o->grid, "layers", o->layers, "protocol",
      pf_protocol_names[s->d.plan.protocol], "only", o->only, "all_draws", o->all_draws != 0,
      "precision", pf_precision_name(s->d.plan.info->precision), "baseline", o->baseline,
      "paraphrase", o->paraphrase, "markers", o->markers, "conflicts", o->conflicts != 0);
  int rc = pf_js_write(o->out_dir, "run.json", run);
  json_decref(run);
  return rc;
}

/* What comes after the last unit, which takes a while for a large grid. */
static int write_results(const study *s, double load, double t, size_t cells) {
  static const char what[] = "records, verdicts, page";
  pf_progress_fn tell = s->o->progress;
  if (tell)
    tell(s->o->progress_user, what, 0, 3);
  int rc = pf_export(&s->d.plan, s->o, s->d.journal);
  if (rc == PF_OK)
    rc = write_timings(s, load, pf_seconds() - t, cells);
  if (rc == PF_OK && tell)
    tell(s->o->progress_user, what, 1, 3);
  if (rc == PF_OK)
    rc = pf_findings_make(s->o->out_dir);
  if (rc == PF_OK && tell)
    tell(s->o->progress_user, what, 2, 3);
  if (rc == PF_OK)
    rc = pf_report_make(s->o->out_dir);
  if (tell)
    tell(s->o->progress_user, what, 3, 3);
  return rc;
}

static int compute(study *s, double load) {
  int rc = pf_journal_open(&s->d.journal, s->o->out_dir, mode_of(s->o), PF_FOLDER_STUDY,
                           s->d.plan.head, pf_study_outputs);
  if (rc != PF_OK)
    return rc;
  const pf_experiment *additive = pf_experiment_find("additive");
  size_t before = units_of(s, true), cells = runs(s, additive) ? cells_left(s, additive, NULL) : 0;
  if (pf_journal_dropped(s->d.journal))
    say(s, "journal: %zu bytes of an unfinished record were dropped",
        pf_journal_dropped(s->d.journal));
  if (before)
    say(s, "journal: %zu of %zu units are there already", before, units_of(s, false));
  double t = pf_seconds();
  rc = write_run(s);
  if (rc == PF_OK)
    rc = s->o->finish ? check_finished(s) : run_all(s);
  if (rc == PF_OK && is_shard(s->o))
    return write_timings(s, load, pf_seconds() - t, cells);
  return rc == PF_OK ? write_results(s, load, t, cells) : rc;
}

static int check_opts(const pf_study_opts *o) {
  if (!o->model || !o->grid || (!o->out_dir && !o->dry_run))
    return pf_fail(PF_EUSAGE, "a study wants a model, a grid and an output folder");
  if (o->no_resume && o->force)
    return pf_fail(PF_EUSAGE, "--no-resume and --force exclude each other");
  if (o->shards < 0 || o->shard < 0 || (o->shards > 0 && o->shard >= o->shards))
    return pf_fail(PF_EUSAGE, "a study has no shard %d of %d", o->shard + 1, o->shards);
  pf_journal *none;
  if (o->dry_run && o->out_dir)
    return pf_journal_peek(&none, o->out_dir, mode_of(o), PF_FOLDER_STUDY, NULL, pf_study_outputs);
  if (!o->dry_run && !o->force)
    return pf_journal_look(o->out_dir, mode_of(o), PF_FOLDER_STUDY, pf_study_outputs);
  return PF_OK;
}

static int show_results(study *s) {
  if (is_shard(s->o)) {
    say(s, "shard %d of %d is done: `personaflow merge` joins them", s->o->shard + 1, s->o->shards);
    return PF_OK;
  }
  int rc = pf_findings_print(s->o->out_dir, s->o->log, s->o->log_user);
  if (rc == PF_OK && has_summary(s))
    rc = pf_export_table(s->o->out_dir, s->o->log, s->o->log_user);
  say(s, "report: %s/report.html", s->o->out_dir);
  return rc;
}

static int run_study(const pf_study_opts *o) {
  study s = {.o = o, .d.o = o};
  double t = pf_seconds();
  int rc = check_opts(o);
  if (rc == PF_OK)
    rc = pf_plan_make(&s.d.plan, o);
  double load = pf_seconds() - t;
  if (rc == PF_OK)
    rc = choose(&s);
  if (rc == PF_OK)
    rc = pf_work_begin(&s.d.work, &s.d.plan, o);
  if (rc == PF_OK)
    rc = peek(&s);
  if (rc == PF_OK)
    rc = o->finish ? PF_OK : make_plan(&s);
  if (rc == PF_OK)
    rc = o->dry_run ? dry_run(&s) : compute(&s, load);
  if (rc == PF_OK && !o->dry_run && o->log)
    rc = show_results(&s);
  pf_work_end(&s.d.work);
  pf_journal_close(s.d.journal);
  pf_plan_free(&s.d.plan);
  pf_free(s.d.chosen);
  pf_free(s.d.spent);
  pf_free(s.lab_of);
  pf_free(s.sweep);
  return rc;
}

int pf_study_run(const pf_study_opts *o) {
  PF_FP_PLAIN();
  char dir[4400];
  pf_study_opts shard = *o;
  if (!is_shard(o) || !o->out_dir)
    return run_study(o);
  snprintf(dir, sizeof dir, "%s/shard-%d-of-%d", o->out_dir, o->shard + 1, o->shards);
  shard.out_dir = dir;
  return run_study(&shard);
}
