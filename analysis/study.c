/* SPDX-License-Identifier: Apache-2.0
 * The paper's additive-substitution study (arXiv 2605.23147). Four runs a cell (B baseline, X
 * persona, Y task): BB, XB, BY, XY. y: the greedy continuation of XY, 12 tokens or fewer at an EOS,
 * with the generation config's repetition penalty. At a site (layer l, position s) the value (h_BB
 * + (h_XB - h_BB)) + (h_BY - h_BB) replaces the input of layer l in the XY run, and KL(clean ||
 * changed) is summed over the next 10 teacher-forced tokens. Sites: p_user_last, p_last, and the
 * residuals of y_0 (g1) and y_1 (g2), which are appended to all four prompts, so positions agree
 * from the right end. cells.c computes; here are the order of the work, its journal, the dry run
 * and the times. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "analysis/cells.h"
#include "analysis/jsonout.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"

const char *const pf_study_outputs[] = {
    "journal.jsonl", "results.jsonl", "generated.jsonl", "summary.json",
    "manifest.json", "timings.json",  "report.html",     NULL};

typedef struct study {
  pf_plan plan;
  const pf_study_opts *o;
  pf_work work;
  pf_journal *journal;
  size_t together; /* cells */
} study;

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

/* ---- cells ----------------------------------------------------------------------------------- */

static bool is_done(const study *s, size_t c) {
  return pf_journal_get(s->journal, s->plan.unit[c]) != NULL;
}

static int keep_cell(void *user, const pf_cell *c) {
  study *s = user;
  json_t *record = pf_cell_record(&s->work, c);
  return record ? pf_journal_append(s->journal, s->plan.unit[c->index], record) : PF_ENOMEM;
}

static pf_cost cost_left(const study *s) {
  pf_cost cost = {0};
  pf_cost_base(&s->work, &cost);
  for (size_t c = 0; c < s->plan.n_cells; c++)
    if (!s->journal || !is_done(s, c))
      pf_cost_cell(&s->work, c, &cost);
  return cost;
}

/* The next cells that are not done, as many as go together; returns their number. */
static size_t next_cells(const study *s, size_t *from, size_t *index) {
  size_t n = 0;
  for (; *from < s->plan.n_cells && n < s->together; ++*from)
    if (!is_done(s, *from))
      index[n++] = *from;
  return n;
}

static int run_cells(study *s) {
  const pf_plan *p = &s->plan;
  size_t *index = pf_alloc(s->together, sizeof *index), from = 0, n;
  int rc = index ? PF_OK : PF_ENOMEM;
  pf_cost left = cost_left(s);
  s->work.total = pf_work_units(&s->work, &left);
  while (rc == PF_OK && (n = next_cells(s, &from, index)) > 0)
    rc = pf_cells_run(&s->work, index, n, keep_cell, s);
  pf_free(index);
  if (rc == PF_OK && s->o->progress)
    s->o->progress(s->o->progress_user, "study", s->work.total, s->work.total);
  if (rc == PF_EINCOMPLETE && stopped(s))
    pf_fail(rc, "%s: stopped: %zu of %zu cells are done and kept: --resume goes on", s->o->out_dir,
            pf_journal_count(s->journal), p->n_cells);
  return rc;
}

/* ---- dry run --------------------------------------------------------------------------------- */

/* Seconds for `n` rows of the BB prompt's last tokens in `forks` forks with a score for all of
 * them; < 0 on failure. */
static double time_forks(study *s, size_t forks, int32_t n) {
  const pf_run *bb = &s->work.bb;
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
    rc = pf_eval(s->work.ctx, rows, forks * (size_t)n, NULL);
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

static int dry_run(study *s) {
  const pf_plan *p = &s->plan;
  pf_cost cost = cost_left(s);
  int rc = pf_work_bb(&s->work);
  if (rc != PF_OK)
    return rc;
  int32_t n = p->bb.enc.n > 11 ? 10 : 1;
  double decode = best_time(s, 1, 1), many = best_time(s, 16, n);
  if (decode < 0 || many < 0)
    return PF_ENOMEM;
  pf_cost sample = {.changed = 16 * (uint64_t)n * (uint64_t)p->info->n_layers,
                    .scored = 16 * (uint64_t)n};
  double unit = many / (double)pf_work_units(&s->work, &sample),
         seconds = unit * (double)pf_work_units(&s->work, &cost) +
                   (double)p->n_cells * (PF_Y_MAX - 1) * decode;
  say(s, "model    %s, %d layers, width %d, %.1f MB of weights", p->info->arch, p->info->n_layers,
      p->info->d_model, (double)p->info->weight_bytes / 1e6);
  say(s, "cells    %zu (%zu personas x %zu tasks), %zu probes x %zu layers: %zu substitutions",
      p->n_cells, p->grid.n_personas, p->grid.n_tasks, p->grid.n_probes, p->layers.n,
      p->n_cells * p->grid.n_probes * p->layers.n);
  say(s, "rows     %.0f; row-layers: prompts and continuations %.0f, substitutions %.0f",
      (double)cost.rows, (double)cost.base, (double)cost.changed);
  say(s, "sharing  %s; without it the substitutions take %.0f row-layers, %.1f times as many",
      s->o->no_sharing ? "off" : "on", (double)cost.whole,
      (double)cost.whole / (double)cost.changed);
  say(s, "memory   %.1f MB beside the weights, %zu cells together",
      (double)pf_work_memory(&s->work, s->together) / 1e6, s->together);
  say(s,
      "time     about %.0f s, from one decoded token (%.2f ms) and %d rows at once (%.2f ms a row) "
      "measured now",
      ceil(seconds), 1e3 * decode, 16 * n, 1e3 * many / (16 * n));
  return PF_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Times, and what took them, stand apart from the results, whose bytes are the same in every run. A
 * run that found all cells done leaves the times of the one that computed them. */
static int write_timings(const study *s, double load, double work, size_t cells) {
  char path[4400];
  pf_buf b = {0};
  const pf_cost *done = &s->work.done;
  snprintf(path, sizeof path, "%s/timings.json", s->o->out_dir);
  if (cells == 0 && access(path, F_OK) == 0)
    return PF_OK;
  json_t *t = json_pack(
      "{s:s,s:i,s:o,s:o,s:o,s:o,s:I,s:I,s:s,s:I,s:I,s:I}", "schema", "personaflow-timings/1",
      "threads", threads_of(s), "load_seconds", pf_js_num(load), "study_seconds", pf_js_num(work),
      "base_seconds", pf_js_num(s->work.seconds[PF_PHASE_BASE]), "substitution_seconds",
      pf_js_num(s->work.seconds[PF_PHASE_SUBSTITUTIONS]), "cells_computed", (json_int_t)cells,
      "rows", (json_int_t)done->rows, "sharing", s->o->no_sharing ? "off" : "on", "row_layers_base",
      (json_int_t)done->base, "row_layers_substitutions", (json_int_t)done->changed,
      "cells_together", (json_int_t)s->together);
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
  double t = pf_seconds();
  rc = run_cells(s);
  if (rc == PF_OK)
    rc = pf_export(&s->plan, s->o, s->journal);
  if (rc == PF_OK)
    rc = write_timings(s, load, pf_seconds() - t, s->plan.n_cells - before);
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
  double t = pf_seconds();
  int rc = check_opts(o);
  if (rc == PF_OK)
    rc = pf_plan_make(&s.plan, o);
  double load = pf_seconds() - t;
  if (rc == PF_OK)
    rc = pf_work_begin(&s.work, &s.plan, o);
  if (rc == PF_OK)
    rc = pf_work_fit(&s.work, o->memory, &s.together);
  if (rc == PF_OK)
    rc = o->dry_run ? dry_run(&s) : compute(&s, load);
  if (rc == PF_OK && !o->dry_run && o->log) {
    rc = pf_export_table(o->out_dir, o->log, o->log_user);
    say(&s, "report: %s/report.html", o->out_dir);
  }
  pf_work_end(&s.work);
  pf_journal_close(s.journal);
  pf_plan_free(&s.plan);
  return rc;
}
