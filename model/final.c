/* SPDX-License-Identifier: Apache-2.0
 * The end of the network: final norm, logits, and what rows ask of them. Logits of at most
 * PF_FINAL_ROWS rows are there at a time; scores are taken from them while they are hot, parallel
 * over rows, divergences over groups of rows with the same reference. */
#include <string.h>

#include "base/par.h"
#include "base/status.h"
#include "model/step.h"

#define NO_LOGITS ((size_t)-1)

enum { KL_TOGETHER = 8, DIVERGENCES = PF_SCORE_KL | PF_SCORE_JSD };

/* Rows of a step that go through the final norm, and those of them that go on to logits. */
typedef struct final_set {
  const pf_step *t;
  size_t row[PF_FINAL_ROWS], n;
  size_t at[PF_FINAL_ROWS];                  /* a row's place in y, or NO_LOGITS */
  size_t logit_row[PF_FINAL_ROWS], n_logits; /* the row at a place */
  float *y;                                  /* (n_logits, V) */
  const pf_sink *sink;
  int bad;                   /* 1 + a row whose logits are not finite */
  double lse[PF_FINAL_ROWS]; /* of the rows that need it */
  size_t kl[PF_FINAL_ROWS], group[PF_FINAL_ROWS + 1], n_groups; /* places in y, by reference */
} final_set;

static bool wants(const pf_step *t, size_t r, const int *hooks, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (t->used[hooks[i]] && pf_tapset_hits(&t->rows[r].seq->taps, hooks[i], -1, t->rows[r].pos))
      return true;
  return false;
}

static void final_norm_part(void *arg, int tid, int nt) {
  static const int hooks[3] = {PF_HOOK_LNF_SCALE, PF_HOOK_LNF_NORM, PF_HOOK_LNF_OUT};
  final_set *s = arg;
  const pf_step *t = s->t;
  const pf_model *m = t->c->model;
  size_t d = (size_t)t->cfg->info.d_model, lo, hi;
  pf_par_range(s->n, tid, nt, &lo, &hi);
  for (size_t i = lo; i < hi; i++) {
    size_t r = s->row[i];
    float *y = t->s->norm + r * d;
    pf_step_norm(t, r, t->s->x + r * d, m->ln_final, hooks, -1, y);
    pf_step_lap(t, PF_ROLE_NORM);
    if (s->at[i] != NO_LOGITS)
      pf_step_operand(t, s->at[i], y, &m->unembed);
    pf_step_lap(t, PF_ROLE_OPERAND);
  }
}

/* ---- scores ---------------------------------------------------------------------------------- */

static const pf_score *score_at(const final_set *s, size_t at) {
  return s->t->rows[s->logit_row[at]].score;
}

static bool asks(const final_set *s, size_t at, unsigned what) {
  const pf_score *score = score_at(s, at);
  return score && (score->what & what);
}

static void best_of(size_t v, const float *y, int32_t n, pf_top *top) {
  int32_t have = 0;
  for (size_t i = 0; i < v; i++) {
    if (have == n && !(y[i] > top[n - 1].logit))
      continue;
    int32_t at = have < n ? have++ : n - 1;
    for (; at > 0 && y[i] > top[at - 1].logit; at--)
      top[at] = top[at - 1];
    top[at] = (pf_top){(int32_t)i, y[i]};
  }
}

static void score_row(final_set *s, size_t at, size_t v, const float *y) {
  const pf_simd *f = s->t->f;
  pf_score *score = s->t->rows[s->logit_row[at]].score;
  float second;
  if (score->what & (DIVERGENCES | PF_SCORE_LOGPROB))
    s->lse[at] = f->logsumexp(v, y);
  if (score->what & PF_SCORE_LOGPROB)
    score->logprob = (double)y[score->token] - s->lse[at];
  if (score->what & PF_SCORE_ARGMAX) {
    score->best = (int32_t)f->argmax(v, y, &second);
    score->margin = y[score->best] - second;
  }
  if (score->what & PF_SCORE_TOP)
    best_of(v, y, score->n_top, score->top);
}

/* Rows with the same reference and the same wishes, up to KL_TOGETHER of them, are a group. */
static bool alike(const final_set *s, size_t i, size_t j) {
  const pf_score *a = score_at(s, i), *b = score_at(s, j);
  return a->ref == b->ref && !((a->what ^ b->what) & DIVERGENCES);
}

static void group_kl(final_set *s) {
  bool done[PF_FINAL_ROWS] = {false};
  size_t n = 0;
  s->n_groups = 0;
  for (size_t i = 0; i < s->n_logits; i++) {
    if (done[i] || !asks(s, i, DIVERGENCES))
      continue;
    s->group[s->n_groups++] = n;
    for (size_t j = i; j < s->n_logits && n < s->group[s->n_groups - 1] + KL_TOGETHER; j++)
      if (!done[j] && asks(s, j, DIVERGENCES) && alike(s, i, j)) {
        done[j] = true;
        s->kl[n++] = j;
      }
  }
  s->group[s->n_groups] = n;
}

static void kl_part(void *arg, int tid, int nt) {
  final_set *s = arg;
  size_t v = (size_t)s->t->cfg->info.vocab_size, lo, hi;
  pf_par_range(s->n_groups, tid, nt, &lo, &hi);
  for (size_t g = lo; g < hi; g++) {
    const size_t *at = s->kl + s->group[g], m = s->group[g + 1] - s->group[g];
    const pf_ref *ref = score_at(s, at[0])->ref;
    unsigned what = score_at(s, at[0])->what;
    const float *q[KL_TOGETHER];
    double lse[KL_TOGETHER], kl[KL_TOGETHER], rkl[KL_TOGETHER], jsd[KL_TOGETHER];
    for (size_t i = 0; i < m; i++) {
      q[i] = s->y + at[i] * v;
      lse[i] = s->lse[at[i]];
    }
    if (what & PF_SCORE_KL)
      s->t->f->kl(v, ref->logits, ref->lse, m, q, lse, kl);
    if (what & PF_SCORE_JSD)
      s->t->f->jsd(v, ref->logits, ref->lse, m, q, lse, rkl, jsd);
    for (size_t i = 0; i < m; i++) {
      pf_score *score = s->t->rows[s->logit_row[at[i]]].score;
      if (what & PF_SCORE_KL)
        score->kl = kl[i];
      if (what & PF_SCORE_JSD) {
        score->reverse_kl = rkl[i];
        score->jsd = jsd[i];
      }
    }
  }
}

/* ---- logits ---------------------------------------------------------------------------------- */

/* From products to logits, and what a row's own logits give. */
static void logits_part(void *arg, int tid, int nt) {
  final_set *s = arg;
  const pf_step *t = s->t;
  size_t v = (size_t)t->cfg->info.vocab_size, lo, hi;
  pf_par_range(s->n_logits, tid, nt, &lo, &hi);
  for (size_t at = lo; at < hi; at++) {
    size_t r = s->logit_row[at];
    float *y = s->y + at * v;
    if (t->cfg->info.final_softcap > 0) {
      pf_step_tap(t, r, PF_HOOK_LOGITS_PRECAP, -1, y, 1, v);
      pf_step_softcap(t, v, y, t->cfg->info.final_softcap);
    }
    pf_step_tap(t, r, PF_HOOK_LOGITS, -1, y, 1, v);
    if (!t->f->finite(v, y)) {
      __atomic_store_n(&s->bad, (int)r + 1, __ATOMIC_RELAXED);
      continue;
    }
    pf_step_lap(t, PF_ROLE_LOGITS);
    if (t->rows[r].score) {
      score_row(s, at, v, y);
      pf_step_lap(t, PF_ROLE_SCORING);
    }
    if (t->rows[r].out >= 0) {
      s->sink->take(s->sink->user, tid, t->rows[r].out, y);
      pf_step_lap(t, PF_ROLE_SAMPLING);
    }
  }
}

static int threads_for(const final_set *s, double work, size_t parts) {
  return pf_par_most(pf_par_worth(s->t->c->threads, work), parts);
}

static int finish_set(final_set *s) {
  const pf_step *t = s->t;
  size_t v = (size_t)t->cfg->info.vocab_size;
  double values = (double)s->n_logits * (double)v, d = (double)t->cfg->info.d_model;
  if (s->n == 0)
    return PF_OK;
  pf_step_work(t, PF_ROLE_NORM, 0, (double)s->n * 8 * d);
  pf_step_par(t, PF_STAGE_FINAL, pf_par_most(t->c->threads, s->n), final_norm_part, s);
  if (s->n_logits == 0)
    return PF_OK;
  const pf_product p = {&t->c->model->unembed, NULL, s->y, v, PF_ROLE_UNEMBED};
  pf_step_products(t, PF_STAGE_UNEMBED, &p, 1, s->n_logits);
  pf_step_work(t, PF_ROLE_LOGITS, 0, values * (t->cfg->info.final_softcap > 0 ? 8 : 4));
  pf_step_par(t, PF_STAGE_LOGITS, threads_for(s, 20.0 * values, s->n_logits), logits_part, s);
  if (s->bad)
    return pf_fail(PF_ENUMERIC, "logits are not finite at position %d", t->rows[s->bad - 1].pos);
  group_kl(s);
  if (s->n_groups)
    pf_step_par(t, PF_STAGE_KL, threads_for(s, 20.0 * values, s->n_groups), kl_part, s);
  return PF_OK;
}

/* Does row r go on to logits, or to the final norm? */
static bool has_logits(const pf_step *t, size_t r) {
  static const int hooks[] = {PF_HOOK_LOGITS_PRECAP, PF_HOOK_LOGITS};
  return t->rows[r].out >= 0 || t->rows[r].score || wants(t, r, hooks, 2);
}

bool pf_step_goes_on(const pf_step *t, size_t r) {
  static const int hooks[] = {PF_HOOK_LNF_SCALE, PF_HOOK_LNF_NORM, PF_HOOK_LNF_OUT};
  return has_logits(t, r) || wants(t, r, hooks, 3);
}

static const pf_ref *reference(const pf_step *t, size_t r) {
  const pf_score *s = t->rows[r].score;
  return s && (s->what & DIVERGENCES) ? s->ref : NULL;
}

/* The rows that go on, those of one reference together: its exponentials are computed once for the
 * rows of a set that share it. */
static size_t in_order(const pf_step *t, size_t row[PF_STEP_ROWS]) {
  bool done[PF_STEP_ROWS] = {false};
  size_t n = 0;
  for (size_t r = 0; r < t->n; r++) {
    if (done[r] || !pf_step_goes_on(t, r))
      continue;
    row[n++] = r;
    const pf_ref *ref = reference(t, r);
    for (size_t k = r + 1; ref && k < t->n; k++)
      if (!done[k] && reference(t, k) == ref) {
        done[k] = true;
        row[n++] = k;
      }
  }
  return n;
}

int pf_step_finish(const pf_step *t, const pf_sink *sink) {
  final_set s = {.t = t, .y = t->s->logits, .sink = sink};
  size_t row[PF_STEP_ROWS], n = in_order(t, row);
  int rc = PF_OK;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    bool logit = has_logits(t, row[i]);
    s.at[s.n] = logit ? s.n_logits : NO_LOGITS;
    s.row[s.n++] = row[i];
    if (logit)
      s.logit_row[s.n_logits++] = row[i];
    if (s.n == PF_FINAL_ROWS || i + 1 == n) {
      rc = finish_set(&s);
      s.n = s.n_logits = 0;
    }
  }
  return rc;
}
