/* SPDX-License-Identifier: Apache-2.0
 * Contexts, and pf_eval: rows of any sequences through all layers. A call is cut into steps of
 * PF_STEP_ROWS rows; by the contract the cut changes no bit. A call that fails leaves every
 * sequence as it was. */
#include <string.h>

#include "base/dmath.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "model/step.h"

int pf_ctx_new(pf_ctx **out, const pf_model *m, const pf_ctx_opts *o) {
  int rc;
  *out = NULL;
  if (!m->layers)
    return pf_fail(PF_EUSAGE, "%s: only the configuration was opened; a context needs the weights",
                   m->cfg.dir);
  const pf_simd *simd = pf_simd_for(o ? o->isa : NULL, &rc);
  if (rc != PF_OK)
    return rc;
  pf_ctx *c = pf_calloc(1, sizeof *c);
  if (!c)
    return PF_ENOMEM;
  *c = (pf_ctx){
      .model = m, .simd = simd, .threads = o && o->threads > 0 ? o->threads : pf_par_default()};
  c->keep_raw_k = o && o->keep_raw_k;
  int d = m->cfg.info.d_head;
  c->inv_freq = pf_alloc((size_t)d / 2, sizeof *c->inv_freq);
  if (!c->inv_freq) {
    pf_ctx_free(c);
    return PF_ENOMEM;
  }
  for (int i = 0; i < d / 2; i++)
    c->inv_freq[i] = pf_rope_inv_freq(m->cfg.info.rope_theta, i, d);
  *out = c;
  return PF_OK;
}

void pf_ctx_free(pf_ctx *c) {
  if (!c)
    return;
  pf_scratch_free(c->scratch);
  pf_free(c->inv_freq);
  pf_free(c);
}

static int check_row(const pf_ctx *c, const pf_row *r) {
  const pf_model_info *i = &c->model->cfg.info;
  if (!r->seq || r->seq->ctx != c)
    return pf_fail(PF_EUSAGE, "a row's sequence does not belong to this context");
  if (r->token < 0 || r->token >= i->vocab_size)
    return pf_fail(PF_EUSAGE, "token id %d is not in the vocabulary (0 to %d)", r->token,
                   i->vocab_size - 1);
  if (r->pos < r->seq->end)
    return pf_fail(PF_EUSAGE, "position %d is taken: the sequence goes on at %d", r->pos,
                   r->seq->end);
  if (r->pos >= i->max_positions)
    return pf_fail(PF_EUSAGE, "position %d is beyond the model's %d positions", r->pos,
                   i->max_positions);
  return PF_OK;
}

static int admit(const pf_ctx *c, const pf_row *r) {
  int rc = check_row(c, r);
  if (rc == PF_OK)
    rc = pf_seq_reserve(r->seq, r->pos);
  if (rc != PF_OK)
    return rc;
  r->seq->present[r->pos / PF_KBLK] |= 1u << (r->pos % PF_KBLK);
  r->seq->tokens[r->pos] = r->token;
  r->seq->end = r->pos + 1;
  return PF_OK;
}

/* Takes the first n rows of a failed call back. */
static void withdraw(const pf_row *rows, size_t n) {
  while (n-- > 0) {
    pf_seq *s = rows[n].seq;
    s->present[rows[n].pos / PF_KBLK] &= ~(1u << (rows[n].pos % PF_KBLK));
    s->tokens[rows[n].pos] = -1;
    while (s->end > 0 && !(s->present[(s->end - 1) / PF_KBLK] >> ((s->end - 1) % PF_KBLK) & 1u))
      s->end--;
  }
}

static void embed_part(void *arg, int tid, int nt) {
  const pf_step *t = arg;
  size_t d = (size_t)t->cfg->info.d_model, half = (size_t)t->cfg->info.d_head / 2, lo, hi;
  float factor = __builtin_sqrtf((float)t->cfg->info.d_model);
  pf_step_round_inner(t, 1, &factor);
  pf_par_range(t->n, tid, nt, &lo, &hi);
  for (size_t r = lo; r < hi; r++) {
    float *x = t->s->x + r * d;
    pf_mat_row(&t->c->model->embed, (size_t)t->rows[r].token, x);
    if (t->cfg->scale_embed)
      t->f->scale(d, x, factor, x);
    pf_step_tap(t, r, PF_HOOK_EMBED, -1, x, 1, d);
    for (size_t i = 0; i < half; i++)
      pf_rope_angle(t->rows[r].pos, t->c->inv_freq[i], &t->s->cos[r * half + i],
                    &t->s->sin[r * half + i]);
    pf_step_round_inner(t, half, t->s->cos + r * half);
    pf_step_round_inner(t, half, t->s->sin + r * half);
  }
}

static int check_scores(const pf_step *t) {
  for (size_t r = 0; r < t->n; r++)
    if (t->bad[r])
      return pf_fail(PF_ENUMERIC, "attention scores are not finite in layer %d at position %d",
                     t->bad[r] - 1, t->rows[r].pos);
  return PF_OK;
}

/* ---- the end of the network
 * ------------------------------------------------------------------------------------- */

enum { FINAL_ROWS = 64 };

/* Rows of a step that go through the final norm, and those of them that go on to logits. */
typedef struct final_set {
  const pf_step *t;
  size_t row[FINAL_ROWS];
  bool logits[FINAL_ROWS];
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

static int finish_step(const pf_step *t, float *logits, float *y) {
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
    if (s.n == FINAL_ROWS || r + 1 == t->n) {
      rc = finish_set(&s, logits);
      s = (final_set){.t = t, .y = y};
    }
  }
  return rc;
}

/* ---- calls
 * ------------------------------------------------------------------------------------------------------
 */

typedef struct call {
  pf_ctx *c;
  uint8_t *used;
  int32_t *bad;
  float *y; /* (FINAL_ROWS, V) */
  float *logits;
} call;

static int run_step(const call *k, const pf_row *rows, size_t n) {
  pf_ctx *c = k->c;
  const pf_model *m = c->model;
  pf_step t = {.c = c,
               .s = c->scratch,
               .cfg = &m->cfg,
               .mode = &pf_modes[m->cfg.info.precision],
               .f = c->simd,
               .rows = rows,
               .n = n,
               .used = k->used,
               .bad = k->bad};
  memset(k->bad, 0, n * sizeof *k->bad);
  pf_par((size_t)c->threads < n ? c->threads : (int)n, embed_part, &t);
  for (t.layer = 0; t.layer < m->cfg.info.n_layers; t.layer++) {
    t.w = &m->layers[t.layer];
    pf_step_layer(&t);
    int rc = check_scores(&t);
    if (rc != PF_OK)
      return rc;
  }
  return finish_step(&t, k->logits, k->y);
}

static int prepare(call *k, const pf_row *rows, size_t n) {
  pf_ctx *c = k->c;
  size_t layers = (size_t)c->model->cfg.info.n_layers, n_blk = 1, n_out = 0;
  bool swaps = false;
  k->used = pf_calloc(layers + 1, PF_N_HOOKS);
  k->bad = pf_alloc(PF_STEP_ROWS, sizeof *k->bad);
  if (!k->used || !k->bad)
    return PF_ENOMEM;
  for (size_t r = 0; r < n; r++) {
    if (r == 0 || rows[r].seq != rows[r - 1].seq)
      pf_tapset_mark(&rows[r].seq->taps, k->used);
    swaps |= rows[r].seq->n_swaps > 0;
    n_out += rows[r].out >= 0;
    n_blk = (size_t)rows[r].pos / PF_KBLK + 1 > n_blk ? (size_t)rows[r].pos / PF_KBLK + 1 : n_blk;
  }
  if (n_out && !k->logits)
    return pf_fail(PF_EUSAGE, "rows ask for logits but there is no place to write them");
  if (n_out || k->used[PF_HOOK_LOGITS] || k->used[PF_HOOK_LOGITS_PRECAP])
    k->y = pf_alloc(n < FINAL_ROWS ? n : FINAL_ROWS,
                    (size_t)c->model->cfg.info.vocab_size * sizeof *k->y);
  if ((n_out && !k->y) ||
      pf_scratch_make(c, n < PF_STEP_ROWS ? n : PF_STEP_ROWS, n_blk, swaps) != PF_OK)
    return PF_ENOMEM;
  for (size_t l = 1; l <= layers; l++)
    if (k->used[l * PF_N_HOOKS + PF_HOOK_RESULT] && pf_scratch_results(c) != PF_OK)
      return PF_ENOMEM;
  return PF_OK;
}

int pf_eval(pf_ctx *c, const pf_row *rows, size_t n_rows, float *logits) {
  call k = {.c = c, .logits = logits};
  size_t in = 0;
  int rc = PF_OK;
  for (; in < n_rows && rc == PF_OK; in++)
    rc = admit(c, &rows[in]);
  if (rc != PF_OK) {
    withdraw(rows, in - 1);
    return rc;
  }
  rc = n_rows ? prepare(&k, rows, n_rows) : PF_OK;
  for (size_t at = 0; at < n_rows && rc == PF_OK; at += PF_STEP_ROWS)
    rc = run_step(&k, rows + at, n_rows - at < PF_STEP_ROWS ? n_rows - at : PF_STEP_ROWS);
  if (rc != PF_OK)
    withdraw(rows, n_rows);
  pf_free(k.used);
  pf_free(k.bad);
  pf_free(k.y);
  return rc;
}
