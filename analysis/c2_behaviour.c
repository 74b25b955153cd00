/* SPDX-License-Identifier: Apache-2.0
 * C2: what the model says under each value. 80 greedy tokens, with a value put at the layer of the
 * paper's test: once at p_last; at p_last, g1 and g2; or at every step, where the runs that the
 * value comes from are fed the text generated so far; in the prompt itself, or (C3, free running)
 * in the baseline persona's. Texts are scored on marker lists and by the model itself: which
 * persona makes the text most likely? `markers` is the paper's own test. All cells' texts grow
 * together, so that a step reads the weights once for many. doc/STUDY.md, C2. */
#include <math.h>
#include <string.h>

#include "analysis/bases.h"
#include "analysis/direction.h"
#include "analysis/experiment.h"
#include "analysis/geometry.h"
#include "analysis/jsonout.h"
#include "analysis/markers.h"
#include "base/mem.h"
#include "base/status.h"

/* AT_ONCE texts of cells at most. */
enum { TOKENS = 80, PAPER_LAYER = 14, AT_ONCE = 96 };

/* ---- conditions ------------------------------------------------------------------------------ */

/* Runs that a value is made of. */
typedef enum source { FROM_BB, FROM_XB, FROM_BY, FROM_XY, FROM_OTHER, N_SOURCES } source;
typedef enum schedule { ONCE, WINDOW, EVERY_STEP, N_SCHEDULES } schedule;
static const char *const schedule_names[N_SCHEDULES] = {"once", "window", "every_step"};
static const int32_t schedule_steps[N_SCHEDULES] = {1, 3, TOKENS};

typedef enum value { V_NONE, V_A1, V_A2, V_RMX, V_SX, V_N1, V_XY, V_MEAN } value;
typedef struct condition {
  const char *name;
  value v;
  unsigned sources; /* bits of source; WHOLE_GRID: a run of every cell */
  int persona;      /* of the prompt: OWN, PF_BASE, PF_NOBODY */
  bool paper;       /* of the paper's test, under its own name */
  bool schedules;   /* all of them; else once */
} condition;
enum { OWN = 0 };
#define BIT(s)     (1u << (s))
#define WHOLE_GRID BIT(N_SOURCES)
static const condition conditions[] = {
    {"clean", V_NONE, 0, OWN, true, false},
    {"additive", V_A1, BIT(FROM_BB) | BIT(FROM_XB) | BIT(FROM_BY), OWN, true, true},
    {"remove_X", V_RMX, BIT(FROM_BB) | BIT(FROM_XB) | BIT(FROM_XY), OWN, true, true},
    {"bare", V_NONE, 0, PF_NOBODY, true, false},
    {"A2", V_A2, WHOLE_GRID, OWN, false, true},
    {"S_X", V_SX, BIT(FROM_BY), OWN, false, true},
    {"N1", V_N1, BIT(FROM_BB) | BIT(FROM_BY) | BIT(FROM_OTHER), OWN, false, true},
    {"host", V_NONE, 0, PF_BASE, false, false},
    {"host_cached", V_A1, BIT(FROM_BB) | BIT(FROM_XB) | BIT(FROM_BY), PF_BASE, false, true},
    {"host_oracle", V_XY, BIT(FROM_XY), PF_BASE, false, true},
    {"host_mean_delta", V_MEAN, 0, PF_BASE, false, true}}; /* added, not put in place */
enum { N_CONDITIONS = sizeof conditions / sizeof *conditions };

/* ---- texts in the making ----------------------------------------------------------------------
 */

/* A run that a value is made of, fed the text as far as the layer of the value. */
typedef struct feeder {
  const pf_base *b; /* whose prompt; NULL: none */
  pf_seq *seq;      /* NULL: the prompt's own run is all that is needed */
  float *h;         /* (d) at this step */
  pf_tap tap;
} feeder;

/* A text in the making. */
typedef struct text {
  size_t cell;
  const condition *c;
  schedule s;
  int turn; /* those of one turn grow together */
  pf_base *b;
  pf_seq *seq;
  feeder *from; /* (n_from) by source, or of the grid by cell */
  size_t n_from;
  float *value;
  pf_tap tap;
  pf_ids out;
  float least_margin;
  const char *finish;      /* NULL: it goes on */
  double *llr;             /* (n_personas) */
  double logprob;          /* a token, behind the baseline persona's prompt, mean */
  const struct text *like; /* what has the same tokens: the same prompt, and no value; or NULL */
} text;

typedef struct work {
  pf_desk *d;
  const pf_plan *p;
  bool full;
  size_t width, vocab;
  pf_bases b;
  text *t;
  size_t n_t;
  int turn;
  text **said; /* that others of the same prompt take over: those without a persona of the grid */
  size_t n_said, cap_said;
  float *logits;         /* (texts, V) */
  bool *seen;            /* (V) false, for penalise; NULL: y has no penalty */
  pf_markers shipped[2]; /* for those that bring none: `paper`, `full` */
} work;

/* ---- values ---------------------------------------------------------------------------------- */

/* The layer of the value: a run that it is made of goes no further. */
static int32_t layer_of(const pf_plan *p) {
  return pf_paper_layer(PAPER_LAYER, p->info->n_layers);
}

static int32_t stop_of(const pf_plan *p) {
  return layer_of(p) > 0 ? layer_of(p) : 1;
}

static int persona_of(const work *w, const text *t) {
  return (int)(t->cell / w->p->grid.n_tasks);
}

static int task_of(const work *w, const text *t) {
  return (int)(t->cell % w->p->grid.n_tasks);
}

/* Who stands behind a source. */
static void source_who(const work *w, const text *t, source s, int *persona, int *task) {
  int x = persona_of(w, t);
  *persona = s == FROM_BB || s == FROM_BY ? PF_BASE
             : s == FROM_OTHER            ? (x + 1) % (int)w->p->grid.n_personas
                                          : x;
  *task = s == FROM_BY || s == FROM_XY ? task_of(w, t) : PF_BASE;
}

/* A2, from the other cells' prompts with the text so far behind them. */
static int two_way(const work *w, const text *t, float *out) {
  const float **h = pf_alloc(t->n_from, sizeof *h);
  if (!h)
    return PF_ENOMEM;
  for (size_t c = 0; c < t->n_from; c++)
    h[c] = t->from[c].h;
  bool there = pf_two_way_fit(h, w->p->grid.n_personas, w->p->grid.n_tasks,
                              (size_t)persona_of(w, t), (size_t)task_of(w, t), w->width, out);
  pf_free(h);
  return there ? PF_OK : PF_EINTERNAL;
}

/* The mean over other tasks of h_XY' - h_BY' at p_last. */
static void mean_delta(const work *w, const text *t, float *out) {
  size_t others = w->p->grid.n_tasks - 1;
  memset(out, 0, w->width * sizeof *out);
  for (int j = 0; (size_t)j <= others; j++) {
    const pf_base *a = pf_bases_find(&w->b, persona_of(w, t), j),
                  *b = pf_bases_find(&w->b, PF_BASE, j);
    for (size_t e = 0; j != task_of(w, t) && e < w->width; e++)
      out[e] += (a->h[e] - b->h[e]) / (float)others;
  }
}

/* The value from what its runs have at this step. */
static int make_value(const work *w, const text *t) {
  float *out = t->value;
  const feeder *f = t->from;
  switch (t->c->v) {
  case V_A1:
    pf_additive(f[FROM_BB].h, f[FROM_XB].h, f[FROM_BY].h, w->width, out);
    return PF_OK;
  case V_N1:
    pf_additive(f[FROM_BB].h, f[FROM_OTHER].h, f[FROM_BY].h, w->width, out);
    return PF_OK;
  case V_SX:
    memcpy(out, f[FROM_BY].h, w->width * sizeof *out);
    return PF_OK;
  case V_RMX:
    for (size_t e = 0; e < w->width; e++)
      out[e] = f[FROM_XY].h[e] - (f[FROM_XB].h[e] - f[FROM_BB].h[e]);
    return PF_OK;
  case V_A2:
    return two_way(w, t, out);
  case V_XY:
    memcpy(out, f[FROM_XY].h, w->width * sizeof *out);
    return PF_OK;
  case V_MEAN:
    mean_delta(w, t, out);
    return PF_OK;
  default:
    return PF_EINTERNAL;
  }
}

static bool acts(const text *t, int32_t step) {
  return t->c->v != V_NONE && step < schedule_steps[t->s];
}

/* ---- texts ----------------------------------------------------------------------------------- */

/* What only a text that grows needs. */
static void text_end(text *t) {
  pf_seq_free(t->seq);
  t->seq = NULL;
  for (size_t k = 0; k < t->n_from; k++) {
    pf_seq_free(t->from[k].seq);
    pf_free(t->from[k].h);
  }
  pf_free(t->from);
  t->from = NULL;
  t->n_from = 0;
}

static void text_free(text *t) {
  text_end(t);
  pf_free(t->value);
  pf_free(t->llr);
  pf_ids_free(&t->out);
  *t = (text){0};
}

static void said_free(text *t) {
  text_free(t);
  pf_free(t);
}

static bool same_text(const text *a, const text *b) {
  return a->c->v == V_NONE && b->c->v == V_NONE && a->b == b->b;
}

/* The first text of the run that says what this one will. */
static const text *find_like(const work *w, const text *t) {
  if (w->d->o->no_sharing)
    return NULL;
  for (size_t i = 0; i < w->n_said; i++)
    if (same_text(w->said[i], t))
      return w->said[i];
  for (const text *x = w->t; x < t; x++)
    if (same_text(x, t))
      return x;
  return NULL;
}

static int take_over(work *w, text *t) {
  int rc = PF_OK;
  for (size_t i = 0; i < t->like->out.n && rc == PF_OK; i++)
    rc = pf_ids_push(&t->out, t->like->out.v[i]);
  t->least_margin = t->like->least_margin;
  t->finish = t->like->finish;
  t->logprob = t->like->logprob;
  memcpy(t->llr, t->like->llr, w->p->grid.n_personas * sizeof *t->llr);
  return rc;
}

/* Keeps a finished text for the cells to come; it is no longer among those of its group. */
static int remember(work *w, text *t) {
  int rc = pf_grow((void **)&w->said, &w->cap_said, w->n_said + 1, sizeof(text *));
  text *x = rc == PF_OK ? pf_alloc(1, sizeof *x) : NULL;
  if (!x)
    return PF_ENOMEM;
  text_end(t);
  *x = *t;
  w->said[w->n_said++] = x;
  *t = (text){0};
  return PF_OK;
}

static int remember_all(work *w) {
  int rc = PF_OK;
  for (size_t i = 0; i < w->n_t && rc == PF_OK; i++)
    if (w->t[i].c->v == V_NONE && w->t[i].b->persona < 0 && !w->t[i].like && !w->d->o->no_sharing)
      rc = remember(w, &w->t[i]);
  return rc;
}

/* The run goes on with the text in a branch of its prompt, as far as the layer of the value; the
 * fit leaves the text's own cell out. */
static int feeder_begin(const work *w, const text *t, feeder *f) {
  f->h = pf_alloc(w->width, sizeof *f->h);
  if (!f->h)
    return PF_ENOMEM;
  memcpy(f->h, f->b->h, w->width * sizeof *f->h);
  if (schedule_steps[t->s] == 1 || (t->c->v == V_A2 && f->b == t->b))
    return PF_OK;
  int rc = pf_seq_fork(&f->seq, f->b->seq, (int32_t)f->b->q->enc.n);
  return rc == PF_OK ? pf_seq_set_stop(f->seq, stop_of(w->p)) : rc;
}

/* Branches of the prompts: the text's own lacks p_last, at which a value may act. */
static int text_begin(work *w, text *t) {
  int32_t n = (int32_t)t->b->q->enc.n;
  t->value = pf_calloc(w->width, sizeof *t->value);
  t->llr = pf_calloc(w->p->grid.n_personas, sizeof *t->llr);
  t->least_margin = INFINITY;
  t->like = find_like(w, t);
  if (t->like)
    return t->value && t->llr ? PF_OK : PF_ENOMEM;
  int rc = t->value && t->llr ? pf_seq_fork(&t->seq, t->b->seq, n - 1) : PF_ENOMEM;
  for (size_t k = 0; k < t->n_from && rc == PF_OK; k++)
    if (t->from[k].b)
      rc = feeder_begin(w, t, &t->from[k]);
  return rc;
}

static bool grows(const work *w, const text *t) {
  return t->turn == w->turn && !t->finish && !t->like;
}

static int feed(const work *w, const text *t, feeder *f, int32_t step, pf_row *row) {
  int32_t pos = (int32_t)f->b->q->enc.n - 1 + step;
  f->tap = (pf_tap){.hook = w->b.hook,
                    .layer = w->b.layer,
                    .head = -1,
                    .pos_lo = pos,
                    .pos_hi = pos + 1,
                    .op = PF_OP_CAPTURE,
                    .out = f->h};
  *row = (pf_row){.seq = f->seq, .token = t->out.v[step - 1], .pos = pos, .out = -1};
  return pf_seq_set_taps(f->seq, &f->tap, 1);
}

/* Feeds the last token to the runs that the values of this step come from. */
static int feed_sources(work *w, int32_t step) {
  size_t n = 0, most = 0;
  for (size_t i = 0; i < w->n_t; i++)
    most += w->t[i].n_from;
  pf_row *rows = pf_alloc(most, sizeof *rows);
  int rc = rows ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < w->n_t && step > 0; i++) {
    text *t = &w->t[i];
    for (size_t k = 0; k < t->n_from && rc == PF_OK && grows(w, t) && acts(t, step); k++)
      if (t->from[k].seq)
        rc = feed(w, t, &t->from[k], step, &rows[n++]);
  }
  if (rc == PF_OK)
    rc = pf_desk_eval(w->d, w->d->work.ctx, rows, n, NULL);
  pf_free(rows);
  return rc;
}

/* Token i of prompt and text. */
static int32_t token_at(const text *t, size_t i) {
  const pf_encoding *e = &t->b->q->enc;
  return i < e->n ? e->ids[i] : t->out.v[i - e->n];
}

/* Scores as generate's: the penalty once for each token of prompt and text. */
static void penalise(const work *w, const text *t, float *x) {
  float p = (float)w->p->repetition_penalty;
  size_t n = w->seen ? t->b->q->enc.n + t->out.n : 0;
  for (size_t i = 0; i < n; i++) {
    int32_t id = token_at(t, i);
    if (!w->seen[id])
      x[id] = x[id] > 0 ? x[id] / p : x[id] * p;
    w->seen[id] = true;
  }
  for (size_t i = 0; i < n; i++)
    w->seen[token_at(t, i)] = false;
}

/* Tokens of its prompt, or of one that its values come from. */
static int32_t longest_prompt(const text *t) {
  size_t n = t->b->q->enc.n;
  for (size_t k = 0; k < t->n_from; k++)
    if (t->from[k].b && t->from[k].b->q->enc.n > n)
      n = t->from[k].b->q->enc.n;
  return (int32_t)n;
}

static int take_token(const work *w, text *t, float *x, int32_t step) {
  float margin;
  penalise(w, t, x);
  int32_t id = pf_argmax(x, w->vocab, &margin);
  t->least_margin = margin < t->least_margin ? margin : t->least_margin;
  int rc = pf_ids_push(&t->out, id);
  for (int32_t i = 0; i < w->p->info->n_eos; i++)
    if (w->p->info->eos[i] == id)
      t->finish = "eos";
  if (!t->finish && step + 1 == TOKENS)
    t->finish = "length";
  if (!t->finish && longest_prompt(t) + step + 1 >= w->p->info->max_positions)
    t->finish = "positions";
  return rc;
}

/* One token of every text that goes on. */
static int step_texts(work *w, int32_t step, bool *more) {
  pf_row *rows = pf_alloc(w->n_t, sizeof *rows);
  size_t n = 0;
  int rc = rows ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < w->n_t && rc == PF_OK; i++) {
    text *t = &w->t[i];
    int32_t pos = (int32_t)t->b->q->enc.n - 1 + step;
    if (!grows(w, t))
      continue;
    bool put = acts(t, step);
    rc = put ? make_value(w, t) : PF_OK;
    t->tap = (pf_tap){.hook = w->b.hook,
                      .layer = w->b.layer,
                      .head = -1,
                      .pos_lo = pos,
                      .pos_hi = pos + 1,
                      .op = t->c->v == V_MEAN ? PF_OP_ADD : PF_OP_REPLACE,
                      .value = t->value};
    if (rc == PF_OK)
      rc = pf_seq_set_taps(t->seq, &t->tap, put);
    rows[n] = (pf_row){.seq = t->seq,
                       .token = step ? t->out.v[step - 1] : t->b->q->enc.ids[pos],
                       .pos = pos,
                       .out = (int32_t)n};
    n++;
  }
  if (rc == PF_OK)
    rc = pf_desk_eval(w->d, w->d->work.ctx, rows, n, w->logits);
  *more = false;
  for (size_t i = 0, k = 0; i < w->n_t && rc == PF_OK; i++) {
    if (!grows(w, &w->t[i]))
      continue;
    rc = take_token(w, &w->t[i], w->logits + k++ * w->vocab, step);
    *more |= grows(w, &w->t[i]);
  }
  pf_free(rows);
  return rc;
}

/* Those of the work's turn. */
static int grow_texts(work *w) {
  bool more = true;
  int rc = PF_OK;
  for (size_t i = 0; i < w->n_t && rc == PF_OK; i++)
    if (w->t[i].turn == w->turn)
      rc = text_begin(w, &w->t[i]);
  for (int32_t step = 0; more && rc == PF_OK; step++) {
    rc = feed_sources(w, step);
    if (rc == PF_OK)
      rc = step_texts(w, step, &more);
  }
  for (size_t i = 0; i < w->n_t; i++)
    if (w->t[i].turn == w->turn)
      text_end(&w->t[i]);
  return rc;
}

/* ---- whose text is it? ----------------------------------------------------------------------- */

/* The text's tokens behind a prompt. */
typedef struct judge {
  pf_seq *seq;
  pf_score score[TOKENS];
} judge;

static int judge_begin(judge *j, const text *t, const pf_base *b, pf_row *rows) {
  int32_t last = (int32_t)b->q->enc.n - 1;
  for (size_t k = 0; k < t->out.n; k++) {
    j->score[k] = (pf_score){.what = PF_SCORE_LOGPROB, .token = t->out.v[k]};
    rows[k] = (pf_row){.token = k ? t->out.v[k - 1] : b->q->enc.ids[last],
                       .pos = last + (int32_t)k,
                       .out = -1,
                       .score = &j->score[k]};
  }
  int rc = pf_seq_fork(&j->seq, b->seq, last);
  for (size_t k = 0; k < t->out.n; k++)
    rows[k].seq = j->seq;
  return rc;
}

static double mean_logprob(const judge *j, size_t n) {
  double sum = 0;
  for (size_t k = 0; k < n; k++)
    sum += j->score[k].logprob / (double)n;
  return sum;
}

/* (log p(z | persona, task) - log p(z | baseline, task)) / |z| for every persona, in one call. */
static int persona_scores(work *w, text *t) {
  size_t n = w->p->grid.n_personas + 1;
  judge *j = pf_calloc(n, sizeof *j);
  pf_row *rows = pf_alloc(n * TOKENS, sizeof *rows);
  int rc = j && rows ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    pf_base *b;
    rc = pf_bases_want(&w->b, i ? (int)i - 1 : PF_BASE, task_of(w, t), &b);
    if (rc == PF_OK)
      rc = judge_begin(&j[i], t, b, rows + i * t->out.n);
  }
  if (rc == PF_OK)
    rc = pf_desk_eval(w->d, w->d->work.ctx, rows, n * t->out.n, NULL);
  t->logprob = rc == PF_OK ? mean_logprob(&j[0], t->out.n) : 0;
  for (size_t i = 1; i < n && rc == PF_OK; i++)
    t->llr[i - 1] = mean_logprob(&j[i], t->out.n) - t->logprob;
  for (size_t i = 0; j && i < n; i++)
    pf_seq_free(j[i].seq);
  pf_free(j);
  pf_free(rows);
  return rc;
}

/* ---- records --------------------------------------------------------------------------------- */

/* Scores of a text on the persona's own list, and the mean over the others'. */
static int put_markers(const work *w, const text *t, const pf_markers *lists, const char *z,
                       json_t *row) {
  const pf_grid *g = &w->p->grid;
  size_t own = (size_t)persona_of(w, t);
  double *distinct = pf_alloc(3 * g->n_personas, sizeof *distinct),
         *fresh = distinct + g->n_personas, *any = fresh + g->n_personas;
  int rc = distinct ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < g->n_personas && rc == PF_OK; i++) {
    const pf_marker_list *l = pf_markers_persona(lists, g->personas[i].key);
    pf_marker_score score = {0};
    if (l)
      rc =
          pf_markers_score(l, z, g->personas[own].text, g->tasks[task_of(w, t)].text, &score, NULL);
    distinct[i] = l ? (double)score.distinct : (double)NAN;
    fresh[i] = l ? (double)score.own : (double)NAN;
    any[i] = l ? (double)(score.own > 0) : (double)NAN;
  }
  if (rc == PF_OK) {
    json_object_set_new(row, "markers", pf_js_num(distinct[own]));
    json_object_set_new(row, "markers_not_verbatim", pf_js_num(fresh[own]));
    json_object_set_new(row, "own_minus_others",
                        pf_js_num(pf_own_minus_others(distinct, g->n_personas, own)));
    json_object_set_new(row, "own_minus_others_not_verbatim",
                        pf_js_num(pf_own_minus_others(fresh, g->n_personas, own)));
    json_object_set_new(row, "own_minus_others_any",
                        pf_js_num(pf_own_minus_others(any, g->n_personas, own)));
  }
  pf_free(distinct);
  return rc;
}

static int put_task_markers(const work *w, const text *t, const char *z, json_t *row) {
  const pf_grid_item *task = &w->p->grid.tasks[task_of(w, t)];
  const pf_markers *lists = w->p->markers.n_tasks ? &w->p->markers : &w->shipped[1];
  const pf_marker_list *l = pf_markers_task(lists, task->key);
  pf_marker_score score;
  if (!l)
    return PF_OK;
  int rc = pf_markers_score(l, z, NULL, task->text, &score, NULL);
  if (rc == PF_OK)
    json_object_set_new(row, "task_markers", json_integer((json_int_t)score.distinct));
  return rc;
}

static void put_persona_scores(const work *w, const text *t, json_t *row) {
  const pf_grid *g = &w->p->grid;
  json_t *all = json_array();
  size_t best = 0;
  for (size_t x = 0; x < g->n_personas; x++) {
    json_array_append_new(all, pf_js_num(t->llr[x]));
    best = t->llr[x] > t->llr[best] ? x : best;
  }
  json_object_set_new(row, "llr", all);
  json_object_set_new(row, "llr_own", pf_js_num(t->llr[persona_of(w, t)]));
  json_object_set_new(row, "nll_own", pf_js_num(-(t->logprob + t->llr[persona_of(w, t)])));
  json_object_set_new(row, "identified", json_string(g->personas[best].key));
}

/* Share of a text's runs of three tokens that stood in it before; NaN when it has none. */
static double repetition(const pf_ids *z) {
  size_t n = z->n < 3 ? 0 : z->n - 2, again = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < i; k++)
      if (!memcmp(z->v + i, z->v + k, 3 * sizeof *z->v)) {
        again++;
        break;
      }
  return n ? (double)again / (double)n : (double)NAN;
}

/* Tokens that a text has in common with the cell's clean one from the beginning. */
static size_t divergence(const work *w, const text *t) {
  size_t i = 0, k = 0;
  while (i < w->n_t && (w->t[i].cell != t->cell || w->t[i].c != conditions))
    i++;
  const pf_ids *clean = &w->t[i].out;
  while (k < clean->n && k < t->out.n && clean->v[k] == t->out.v[k])
    k++;
  return k;
}

static void put_course(const work *w, const text *t, json_t *row) {
  json_object_set_new(row, "first_divergence", json_integer((json_int_t)divergence(w, t)));
  json_object_set_new(row, "repetition", pf_js_num(repetition(&t->out)));
}

/* Of --markers or the grid; else the shipped ones, of which the paper's have its long grid's
 * personas alone. */
static const pf_markers *persona_lists(const work *w, bool full) {
  const pf_grid *g = &w->p->grid;
  if (w->p->markers.n_personas)
    return &w->p->markers;
  for (size_t i = 0; i < g->n_personas && !full; i++)
    if (pf_markers_persona(&w->shipped[0], g->personas[i].key))
      return &w->shipped[0];
  return &w->shipped[1];
}

static int text_row(const work *w, const text *t, bool full, json_t *rows) {
  char *z = NULL;
  size_t n;
  int rc = pf_tok_decode(w->p->tok, t->out.v, t->out.n, 0, &z, &n);
  if (rc != PF_OK)
    return rc;
  json_t *row = json_pack("{s:s,s:s,s:o,s:o,s:s,s:o}", "condition", t->c->name, "schedule",
                          schedule_names[t->s], "ids", pf_js_ints(t->out.v, t->out.n), "text",
                          json_stringn(z, n), "finish", t->finish, "least_margin",
                          pf_js_num((double)t->least_margin));
  const pf_markers *lists = persona_lists(w, full);
  rc = row ? put_markers(w, t, lists, z, row) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = put_task_markers(w, t, z, row);
  if (rc == PF_OK && full) {
    put_persona_scores(w, t, row);
    put_course(w, t, row);
  }
  pf_text_free(z);
  if (rc == PF_OK)
    return pf_rows_add(rows, row);
  json_decref(row);
  return rc;
}

/* ---- cells ----------------------------------------------------------------------------------- */

/* Runs of the whole grid for every step are many: a cell's texts that need them grow by themselves,
 * after the others. */
static bool has_own_turn(const condition *c, schedule s) {
  return c->sources == WHOLE_GRID && schedule_steps[s] > 1;
}

static int add_source(work *w, const text *t, size_t k, feeder *f) {
  int x, y;
  pf_base *b;
  if (t->c->sources == WHOLE_GRID) {
    x = (int)(k / w->p->grid.n_tasks);
    y = (int)(k % w->p->grid.n_tasks);
  } else if (t->c->sources & BIT(k)) {
    source_who(w, t, (source)k, &x, &y);
  } else {
    return PF_OK;
  }
  int rc = pf_bases_want(&w->b, x, y, &b);
  f->b = b;
  return rc;
}

static int add_text(work *w, size_t cell, const condition *c, schedule s, int own_turn) {
  text *t = &w->t[w->n_t++];
  *t = (text){.cell = cell, .c = c, .s = s, .turn = has_own_turn(c, s) ? own_turn : 0};
  int persona = c->persona == OWN ? persona_of(w, t) : c->persona;
  int rc = pf_bases_want(&w->b, persona, task_of(w, t), &t->b);
  t->n_from = c->sources == WHOLE_GRID ? w->p->n_cells : c->sources ? N_SOURCES : 0;
  t->from = pf_calloc(t->n_from, sizeof *t->from);
  if (!t->from)
    t->n_from = 0, rc = PF_ENOMEM;
  for (size_t k = 0; k < t->n_from && rc == PF_OK; k++)
    rc = add_source(w, t, k, &t->from[k]);
  return rc;
}

static bool applies(const pf_plan *p, bool full, const condition *c) {
  const pf_grid *g = &p->grid;
  bool personas = (c->v != V_A2 && c->v != V_N1) || g->n_personas > 1,
       tasks = (c->v != V_A2 && c->v != V_MEAN) || g->n_tasks > 1;
  return personas && tasks && (full || c->paper);
}

static int schedules_of(const pf_plan *p, bool full, const condition *c) {
  return !applies(p, full, c) ? 0 : full && c->schedules ? N_SCHEDULES : 1;
}

static int add_cell(work *w, size_t cell, int own_turn) {
  int rc = PF_OK;
  for (int i = 0; i < N_CONDITIONS; i++)
    for (int s = 0; s < schedules_of(w->p, w->full, &conditions[i]) && rc == PF_OK; s++)
      rc = add_text(w, cell, &conditions[i], (schedule)s, own_turn);
  return rc;
}

/* The records of C2, or of the paper's test. */
static int keep_cell(work *w, bool full, size_t cell) {
  json_t *rows = json_array();
  int rc = rows ? PF_OK : PF_ENOMEM;
  for (size_t k = 0; k < w->n_t && rc == PF_OK; k++) {
    const text *t = &w->t[k];
    if (t->cell == cell && (full || (t->c->paper && t->s == ONCE)))
      rc = text_row(w, t, full, rows);
  }
  if (rc == PF_OK)
    return pf_desk_done(w->d, full ? "C2" : "markers", cell, 0, json_pack("{s:o}", "rows", rows));
  json_decref(rows);
  return rc;
}

static int keep_cells(work *w, const size_t *cells, size_t n) {
  int rc = PF_OK;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    if (pf_desk_wants(w->d, "markers", cells[i]))
      rc = keep_cell(w, false, cells[i]);
    if (rc == PF_OK && w->full)
      rc = keep_cell(w, true, cells[i]);
  }
  return rc;
}

/* The prompts of the whole grid, which A2 is fitted to and averages are taken of. */
static int whole_grid(work *w) {
  pf_base *b;
  int rc = PF_OK;
  for (size_t c = 0; c < w->p->n_cells && rc == PF_OK; c++)
    rc = pf_bases_want(&w->b, (int)(c / w->p->grid.n_tasks), (int)(c % w->p->grid.n_tasks), &b);
  for (int j = 0; (size_t)j < w->p->grid.n_tasks && rc == PF_OK; j++)
    rc = pf_bases_want(&w->b, PF_BASE, j, &b);
  return rc;
}

static int run_group(work *w, const size_t *cells, size_t n) {
  int rc = PF_OK;
  w->n_t = 0;
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = add_cell(w, cells[i], (int)i + 1);
  if (rc == PF_OK && w->full)
    rc = whole_grid(w);
  if (rc == PF_OK)
    rc = pf_bases_run(&w->b);
  for (w->turn = 0; w->turn <= (int)n && rc == PF_OK; w->turn++)
    rc = grow_texts(w);
  for (size_t i = 0; i < w->n_t && rc == PF_OK; i++)
    rc = w->t[i].like ? take_over(w, &w->t[i]) : w->full ? persona_scores(w, &w->t[i]) : PF_OK;
  if (rc == PF_OK)
    rc = keep_cells(w, cells, n);
  if (rc == PF_OK)
    rc = remember_all(w);
  for (size_t i = 0; i < w->n_t; i++)
    text_free(&w->t[i]);
  w->n_t = 0;
  if (!w->full)
    pf_bases_drop(&w->b, false);
  return rc;
}

static int open_markers(work *w) {
  int rc = pf_markers_open(&w->shipped[0], "paper");
  return rc == PF_OK ? pf_markers_open(&w->shipped[1], "full") : rc;
}

/* ---- what it takes --------------------------------------------------------------------------- */

/* Texts, tokens of the runs that their values come from, and bytes of K,V behind prompts of n
 * tokens: of texts that grow with other cells', and of those that grow by themselves. */
typedef struct load {
  uint64_t texts, beside, bytes, alone;
} load;

/* One text's. */
static void add_load(const pf_desk *d, const condition *c, schedule s, size_t n, load *l) {
  size_t more = (size_t)schedule_steps[s] - 1;
  uint64_t runs = c->sources == WHOLE_GRID ? d->plan.n_cells - 1
                                           : (uint64_t)__builtin_popcount(c->sources),
           kv = pf_kv_bytes(d->work.ctx, n, n + more) / (size_t)d->plan.info->n_layers *
                (size_t)stop_of(&d->plan),
           bytes = pf_kv_bytes(d->work.ctx, n - 1, n - 1 + TOKENS) + runs * kv;
  l->texts++;
  l->beside += runs * more;
  *(has_own_turn(c, s) ? &l->alone : &l->bytes) += bytes;
}

/* Of a cell alone; or of its task, whoever it is told to. */
static load load_of(const pf_desk *d, bool full, bool of_task, size_t n) {
  load l = {0};
  for (int i = 0; i < N_CONDITIONS; i++)
    for (int s = 0; s < schedules_of(&d->plan, full, &conditions[i]); s++)
      if ((conditions[i].persona != OWN && conditions[i].v == V_NONE) == of_task)
        add_load(d, &conditions[i], (schedule)s, n, &l);
  return l;
}

/* With n cells at a time: scratch and logits, prompts, texts. C2 keeps the prompts of the whole
 * grid, and its judges read one text behind all personas. */
static uint64_t memory_of(const pf_desk *d, bool full, size_t n) {
  const pf_plan *p = &d->plan;
  size_t longest = pf_plan_longest(p)->enc.n, personas = p->grid.n_personas,
         tasks = p->grid.n_tasks, some = full || n > personas ? personas : n,
         told = n < tasks ? n : tasks;
  uint64_t row = (uint64_t)p->info->vocab_size * sizeof(float);
  pf_bases_bytes b = pf_bases_memory(d);
  load l = load_of(d, full, false, longest), t = load_of(d, full, true, longest);
  uint64_t together = n * l.bytes + told * t.bytes;
  uint64_t judges =
      full ? (personas + 1) * pf_kv_bytes(d->work.ctx, longest - 1, longest - 1 + TOKENS) : 0;
  return pf_ctx_scratch_bytes(d->work.ctx, PF_CALL_ROWS, (int32_t)longest + TOKENS) +
         (n * l.texts + told * t.texts + PF_LOGIT_ROWS) * row + (full ? p->n_cells : n) * b.xy +
         (1 + 2 * tasks + some) * b.whole + (together > l.alone ? together : l.alone) + judges;
}

/* Prompts, tokens of texts and of the runs beside them; of C2 what judges read too. */
static void add_cost(const pf_desk *d, size_t cell, bool full, pf_cost *cost) {
  const pf_plan *p = &d->plan;
  load l = load_of(d, full, false, p->xy[cell].enc.n), t = load_of(d, full, true, 1);
  uint64_t texts = l.texts + (cell < p->grid.n_tasks || d->o->no_sharing ? t.texts : 0),
           read = TOKENS * texts * (full ? p->grid.n_personas + 2 : 1);
  uint64_t rows = pf_bases_rows(d, cell) + read;
  cost->rows += rows + l.beside;
  cost->base += rows * (uint64_t)p->info->n_layers + l.beside * (uint64_t)stop_of(p);
  cost->scored += read;
}

/* The paper's texts are among those of C2. */
static bool c2_gives_markers(const pf_desk *d, size_t cell) {
  return pf_desk_wants(d, "C2", cell) && !d->o->no_sharing;
}

void pf_c2_markers_cost(const pf_desk *d, size_t cell, pf_cost *cost) {
  if (!c2_gives_markers(d, cell))
    add_cost(d, cell, false, cost);
}

void pf_c2_cost(const pf_desk *d, size_t cell, pf_cost *cost) {
  add_cost(d, cell, true, cost);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Cells at a time: as memory allows, and no more texts than rows that are worth a step. */
static size_t cells_together(const pf_desk *d, bool full) {
  size_t n = AT_ONCE / load_of(d, full, false, 1).texts, all = d->plan.n_cells;
  n = n < all ? n : all;
  while (n > 1 && memory_of(d, full, n) > d->budget)
    n--;
  return n ? n : 1;
}

static uint64_t memory_for(const pf_desk *d, bool full, size_t *n) {
  *n = *n ? *n : cells_together(d, full);
  return memory_of(d, full, *n);
}

uint64_t pf_c2_markers_memory(const pf_desk *d, size_t *n) {
  return memory_for(d, false, n);
}

uint64_t pf_c2_memory(const pf_desk *d, size_t *n) {
  return memory_for(d, true, n);
}

static int behaviour(pf_desk *d, const size_t *cells, size_t n, bool full) {
  const pf_plan *p = &d->plan;
  work w = {.d = d, .p = p, .full = full, .width = (size_t)p->info->d_model, .b = {.d = d}};
  size_t per = load_of(d, full, false, 1).texts + load_of(d, full, true, 1).texts,
         together = cells_together(d, full);
  int32_t layer;
  w.vocab = (size_t)p->info->vocab_size;
  w.b.layer = layer_of(p);
  int rc = pf_hook_find(p->model, "blocks.0.hook_resid_pre", &w.b.hook, &layer);
  if (rc == PF_OK)
    rc = open_markers(&w);
  w.t = pf_calloc(together * per, sizeof *w.t);
  w.logits = pf_alloc(together * per, w.vocab * sizeof *w.logits);
  bool penalty = p->repetition_penalty != 1;
  w.seen = penalty ? pf_calloc(w.vocab, sizeof *w.seen) : NULL;
  if (rc == PF_OK && (!w.t || !w.logits || (penalty && !w.seen)))
    rc = PF_ENOMEM;
  for (size_t at = 0, m; at < n && rc == PF_OK; at += m) {
    m = n - at < together ? n - at : together;
    rc = run_group(&w, cells + at, m);
  }
  for (size_t i = 0; i < w.n_said; i++)
    said_free(w.said[i]);
  pf_free(w.said);
  pf_bases_drop(&w.b, true);
  pf_free(w.t);
  pf_free(w.logits);
  pf_free(w.seen);
  pf_markers_free(&w.shipped[0]);
  pf_markers_free(&w.shipped[1]);
  return rc;
}

int pf_c2_markers(pf_desk *d, const size_t *cells, size_t n) {
  size_t *left = pf_alloc(n, sizeof *left), m = 0;
  for (size_t i = 0; left && i < n; i++)
    if (!c2_gives_markers(d, cells[i]))
      left[m++] = cells[i];
  int rc = !left ? PF_ENOMEM : m ? behaviour(d, left, m, false) : PF_OK;
  pf_free(left);
  return rc;
}

int pf_c2(pf_desk *d, const size_t *cells, size_t n) {
  return behaviour(d, cells, n, true);
}
