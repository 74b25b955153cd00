/* SPDX-License-Identifier: Apache-2.0
 * The greedy continuations of all cells' prompts, made together: one decode step reads the weights
 * once for all of them. Experiments take y from the journal. */
#include "analysis/experiment.h"
#include "analysis/jsonout.h"
#include "base/mem.h"
#include "base/status.h"

typedef struct work {
  pf_desk *d;
  const size_t *cells;
  pf_branch *b;
  pf_ctx *ctx;
  uint64_t counted; /* row-layers of the context */
} work;

json_t *pf_continuation_record(const pf_desk *d, const pf_branch *b) {
  char *text = NULL;
  size_t n = 0;
  json_t *lp = json_array(), *margins = json_array();
  for (size_t i = 0; i < b->out.n; i++) {
    json_array_append_new(lp, pf_js_num((double)b->logprobs[i]));
    json_array_append_new(margins, pf_js_num((double)b->margins[i]));
  }
  if (pf_tok_decode(d->plan.tok, b->out.v, b->out.n, 0, &text, &n) != PF_OK)
    text = NULL;
  json_t *row = json_pack("{s:o,s:o,s:s,s:o,s:o}", "ids", pf_js_ints(b->out.v, b->out.n), "text",
                          text ? json_stringn(text, n) : json_null(), "finish",
                          pf_finish_name(b->finish), "logprobs", lp, "margins", margins);
  pf_text_free(text);
  return json_pack("{s:[o]}", "rows", row);
}

static void count(work *w) {
  pf_cost more = {.base = pf_ctx_row_layers(w->ctx) - w->counted};
  w->counted += more.base;
  pf_desk_count(w->d, &more);
}

static int take(void *user, size_t i) {
  work *w = user;
  count(w);
  int rc = pf_desk_done(w->d, "y", w->cells[i], 0, pf_continuation_record(w->d, &w->b[i]));
  pf_branch_clear(&w->b[i]);
  return rc;
}

/* Continuations are cheap beside what is measured on them; memory for them is what a study has. */
int pf_continuation(pf_desk *d, const size_t *cells, size_t n) {
  work w = {.d = d, .cells = cells, .b = pf_calloc(n, sizeof *w.b)};
  int rc =
      w.b ? pf_ctx_new(&w.ctx, d->plan.model, &(pf_ctx_opts){.threads = d->o->threads}) : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    const pf_encoding *e = &d->plan.xy[cells[i]].enc;
    w.b[i] = (pf_branch){.ids = e->ids, .n = e->n};
    pf_gen_defaults(&w.b[i].o);
    w.b[i].o.max_tokens = (int32_t)d->plan.y_max;
    w.b[i].o.repetition_penalty = d->plan.repetition_penalty;
  }
  pf_many_opts o = {.memory = d->budget, .on_done = take, .user = &w, .stop = d->o->stop};
  if (rc == PF_OK && n)
    rc = pf_generate_many(w.ctx, w.b, n, &o, NULL);
  for (size_t i = 0; w.b && i < n; i++)
    pf_branch_clear(&w.b[i]);
  pf_free(w.b);
  pf_ctx_free(w.ctx);
  return rc;
}

uint64_t pf_continuation_least(const pf_desk *d) {
  const pf_plan *p = &d->plan;
  const pf_ctx *c = d->work.ctx;
  size_t n = pf_plan_longest(p)->enc.n + p->y_max;
  return pf_ctx_scratch_bytes(c, PF_CALL_ROWS, (int32_t)n) + pf_kv_bytes(c, 0, n) +
         2 * (uint64_t)p->info->vocab_size * sizeof(float);
}

void pf_continuation_cost(const pf_desk *d, size_t cell, pf_cost *cost) {
  const pf_plan *p = &d->plan;
  const pf_role_prompt *q = &p->xy[cell], *first = &p->xy[cell - cell % p->grid.n_tasks];
  if (pf_additive_gives_y(d, cell))
    return;
  uint64_t common = q == first ? 0 : (uint64_t)pf_shared_prefix(q, first, q->p_last);
  uint64_t rows = q->enc.n - common + p->y_max;
  cost->rows += rows;
  cost->base += rows * (uint64_t)p->info->n_layers;
  cost->scored += p->y_max;
}

int pf_desk_y(const pf_desk *d, size_t cell, pf_ids *out) {
  json_t *data;
  int rc = pf_desk_get(d, "y", cell, 0, &data);
  if (rc != PF_OK)
    return rc;
  const json_t *ids = json_object_get(json_array_get(json_object_get(data, "rows"), 0), "ids");
  if (!json_is_array(ids))
    rc = pf_fail(PF_EINTERNAL, "study: the continuation of cell %zu is not there", cell);
  for (size_t i = 0; i < json_array_size(ids) && rc == PF_OK; i++)
    rc = pf_ids_push(out, (int32_t)json_integer_value(json_array_get(ids, i)));
  json_decref(data);
  return rc;
}
