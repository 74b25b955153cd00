/* SPDX-License-Identifier: Apache-2.0
 * The end of the network: final norm, logits, and what rows ask of them. */
#include <string.h>

#include "base/par.h"
#include "base/status.h"
#include "model/step.h"

/* Rows of a step that go through the final norm, and those of them that go on to logits. */
typedef struct final_set {
  const pf_step *t;
  size_t row[PF_FINAL_ROWS];
  bool logits[PF_FINAL_ROWS];
  size_t n, n_logits;
  float *y; /* (n_logits, V) */
  int bad;  /* 1 + a row whose logits are not finite */
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
    if (s->logits[i]) {
      size_t at = 0; /* logits rows stand together */
      for (size_t k = 0; k < i; k++)
        at += s->logits[k];
      pf_step_operand(t, at, y, &m->unembed);
    }
  }
}

static void cap_part(void *arg, int tid, int nt) {
  final_set *s = arg;
  const pf_step *t = s->t;
  size_t v = (size_t)t->cfg->info.vocab_size, lo, hi, at = 0;
  pf_par_range(s->n_logits, tid, nt, &lo, &hi);
  for (size_t i = 0; i < s->n; i++) {
    if (!s->logits[i])
      continue;
    float *y = s->y + at * v;
    if (at >= lo && at < hi) {
      if (t->cfg->info.final_softcap > 0) {
        pf_step_tap(t, s->row[i], PF_HOOK_LOGITS_PRECAP, -1, y, 1, v);
        pf_step_softcap(t, v, y, t->cfg->info.final_softcap);
      }
      pf_step_tap(t, s->row[i], PF_HOOK_LOGITS, -1, y, 1, v);
      if (!t->f->finite(v, y))
        __atomic_store_n(&s->bad, (int)s->row[i] + 1, __ATOMIC_RELAXED);
    }
    at++;
  }
}

static int finish_set(final_set *s, float *logits) {
  const pf_step *t = s->t;
  size_t v = (size_t)t->cfg->info.vocab_size, at = 0;
  if (s->n == 0)
    return PF_OK;
  pf_par((size_t)t->c->threads < s->n ? t->c->threads : (int)s->n, final_norm_part, s);
  if (s->n_logits == 0)
    return PF_OK;
  pf_step_products(t, &(pf_product){&t->c->model->unembed, NULL, s->y, v}, 1, s->n_logits);
  int threads = pf_par_worth(t->c->threads, 20.0 * (double)s->n_logits * (double)v);
  pf_par((size_t)threads < s->n_logits ? threads : (int)s->n_logits, cap_part, s);
  if (s->bad)
    return pf_fail(PF_ENUMERIC, "logits are not finite at position %d", t->rows[s->bad - 1].pos);
  for (size_t i = 0; i < s->n; i++) {
    int32_t out = t->rows[s->row[i]].out;
    if (s->logits[i] && out >= 0)
      memcpy(logits + (size_t)out * v, s->y + at * v, v * sizeof *logits);
    at += s->logits[i];
  }
  return PF_OK;
}

int pf_step_finish(const pf_step *t, float *logits, float *y) {
  static const int norm_hooks[] = {PF_HOOK_LNF_SCALE, PF_HOOK_LNF_NORM, PF_HOOK_LNF_OUT};
  static const int logit_hooks[] = {PF_HOOK_LOGITS_PRECAP, PF_HOOK_LOGITS};
  final_set s = {.t = t, .y = y};
  int rc = PF_OK;
  for (size_t r = 0; r < t->n && rc == PF_OK; r++) {
    bool logit = t->rows[r].out >= 0 || wants(t, r, logit_hooks, 2);
    if (logit || wants(t, r, norm_hooks, 3)) {
      s.row[s.n] = r;
      s.logits[s.n++] = logit;
      s.n_logits += logit;
    }
    if (s.n == PF_FINAL_ROWS || r + 1 == t->n) {
      rc = finish_set(&s, logits);
      s = (final_set){.t = t, .y = y};
    }
  }
  return rc;
}
