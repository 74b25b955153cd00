/* SPDX-License-Identifier: Apache-2.0
 * Generation for a file of prompts. One record a prompt, made when its branch ends: kept in the
 * journal of a folder and exported in the file's order, or handed out in that order. What a record
 * holds depends on its line, the options and the model, not on the other lines or on the order. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/journal.h"
#include "analysis/jsonout.h"
#include "analysis/prompts.h"
#include "base/clock.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

#define RESULTS "generated.jsonl"
static const char *const outputs[] = {"journal.jsonl", RESULTS, NULL};

struct pf_batch {
  char *name;
  char sha256[65];
  pf_prompts p;
  pf_tok *own;       /* of files that give ids only */
  const pf_tok *tok; /* NULL: there is none */
};

/* ---- lines ----------------------------------------------------------------------------------- */

static void put_int(void *at, const json_t *v) {
  *(int32_t *)at = (int32_t)json_integer_value(v);
}

static void put_seed(void *at, const json_t *v) {
  *(uint64_t *)at = (uint64_t)json_integer_value(v);
}

static void put_real(void *at, const json_t *v) {
  *(double *)at = json_number_value(v);
}

static void put_flag(void *at, const json_t *v) {
  *(int *)at = json_is_true(v);
}

/* Options that a line may set: where they go, what they may be. */
static const struct option_key {
  const char *name;
  size_t at;
  void (*put)(void *at, const json_t *v);
  double lo, hi;
  const char *wanted;
} option_keys[] = {
    {"max_tokens", offsetof(pf_gen_opts, max_tokens), put_int, 1, INT32_MAX,
     "a whole number from 1"},
    {"top_k", offsetof(pf_gen_opts, top_k), put_int, 0, INT32_MAX, "a whole number from 0"},
    {"seed", offsetof(pf_gen_opts, seed), put_seed, 0, 0x1p62, "a whole number from 0"},
    {"temperature", offsetof(pf_gen_opts, temperature), put_real, 0, 1e6, "a number from 0"},
    {"top_p", offsetof(pf_gen_opts, top_p), put_real, 1e-9, 1, "a number from 0 to 1"},
    {"repetition_penalty", offsetof(pf_gen_opts, repetition_penalty), put_real, 1e-6, 1e6,
     "a positive number"},
    {"ignore_eos", offsetof(pf_gen_opts, ignore_eos), put_flag, 0, 0, "true or false"},
};

static const struct option_key *option_key(const char *name) {
  for (size_t i = 0; i < sizeof option_keys / sizeof *option_keys; i++)
    if (!strcmp(option_keys[i].name, name))
      return &option_keys[i];
  return NULL;
}

static bool fits_key(const struct option_key *k, const json_t *v) {
  if (k->put == put_flag)
    return json_is_boolean(v);
  if (k->put != put_real && !json_is_integer(v))
    return false;
  double x = json_number_value(v);
  return json_is_number(v) && x >= k->lo && x <= k->hi;
}

static int check_key(const char *where, const char *name, const json_t *v) {
  const struct option_key *k = option_key(name);
  if (!k)
    return PF_EUSAGE;
  return fits_key(k, v) ? PF_OK : pf_fail(PF_EINPUT, "%s: \"%s\" wants %s", where, name, k->wanted);
}

/* A tokenizer gives texts to ids too, where there is one. */
static int need_tokenizer(pf_batch *b, const char *dir) {
  char path[4200];
  snprintf(path, sizeof path, "%s/tokenizer.json", dir);
  int rc = !b->p.tok && access(path, F_OK) == 0 ? pf_tok_open(&b->own, dir) : PF_OK;
  b->tok = b->p.tok ? b->p.tok : b->own;
  return rc;
}

int pf_batch_read(pf_batch **out, const char *dir, const char *name, const char *text, size_t n) {
  PF_FP_PLAIN();
  pf_batch *b = pf_calloc(1, sizeof *b);
  *out = NULL;
  if (!b)
    return PF_ENOMEM;
  b->name = pf_strdup(name);
  pf_sha256_hex(text, n, b->sha256);
  int rc = b->name ? pf_prompts_parse(&b->p, name, text, n, dir, check_key) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = need_tokenizer(b, dir);
  if (rc != PF_OK)
    pf_batch_free(b);
  else
    *out = b;
  return rc;
}

void pf_batch_free(pf_batch *b) {
  if (!b)
    return;
  pf_prompts_free(&b->p);
  pf_tok_close(b->own);
  pf_free(b->name);
  pf_free(b);
}

/* ---- records --------------------------------------------------------------------------------- */

typedef struct run {
  const pf_batch *f;
  const pf_prompts *p;
  const pf_batch_opts *o;
  const pf_model_info *info;
  pf_branch *b;       /* of the lines that are not done */
  size_t *line_of, n; /* (n) */
  json_t **record;    /* (lines) made, and not handed out or kept yet */
  size_t next, done;  /* of lines: the next to hand out; handed out or kept */
  pf_journal *journal;
  size_t unflushed; /* records that a kill would lose */
  double flushed;   /* when */
} run;

/* Records, or seconds, after which they are kept. */
enum { FLUSH_RECORDS = 64, FLUSH_SECONDS = 1 };

/* Nine digits bring every fp32 back. */
static json_t *float_list(const float *x, size_t n) {
  json_t *a = json_array();
  char text[32];
  for (size_t i = 0; i < n; i++) {
    snprintf(text, sizeof text, "%.9g", (double)x[i]);
    json_array_append_new(a, pf_js_num(strtod(text, NULL)));
  }
  return a;
}

static json_t *text_of(const pf_tok *t, const pf_ids *ids) {
  char *text = NULL;
  size_t n = 0;
  if (!t)
    return json_null();
  json_t *out =
      pf_tok_decode(t, ids->v, ids->n, 0, &text, &n) == PF_OK ? json_stringn(text, n) : NULL;
  pf_text_free(text);
  return out;
}

/* As the line has it, else its place. */
static json_t *id_of(const run *g, const pf_prompt *l) {
  json_t *id = json_object_get(l->json, "id");
  return id ? json_incref(id) : json_integer(l - g->p->v);
}

static json_t *record_of(const run *g, const pf_prompt *l, const pf_branch *b) {
  return json_pack("{s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:s}", "id", id_of(g, l), "precision",
                   pf_precision_name(g->info->precision), "prompt_ids",
                   pf_js_ints(l->ids.v, l->ids.n), "ids", pf_js_ints(b->out.v, b->out.n), "text",
                   text_of(g->f->tok, &b->out), "logprobs", float_list(b->logprobs, b->out.n),
                   "margins", float_list(b->margins, b->out.n), "finish",
                   pf_finish_name(b->finish));
}

static int write_record(const run *g, const json_t *r) {
  pf_buf b = {0};
  pf_js_dump(r, 0, &b);
  pf_buf_puts(&b, "\n");
  int rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = g->o->write(g->o->write_user, b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

/* Records in the order of the lines, as far as they are there. */
static int hand_out(run *g) {
  int rc = PF_OK;
  for (; rc == PF_OK && g->next < g->p->n && g->record[g->next]; g->next++) {
    rc = write_record(g, g->record[g->next]);
    json_decref(g->record[g->next]);
    g->record[g->next] = NULL;
    g->done += rc == PF_OK;
  }
  return rc;
}

static void unit_of(const run *g, size_t line, char unit[24]) {
  snprintf(unit, 24, "%zu", g->p->v[line].line);
}

/* All records that were made since the last time, in one piece. */
static int flush(run *g) {
  size_t m = 0;
  char(*unit)[24] = pf_alloc(g->p->n, sizeof *unit);
  const char **units = pf_alloc(g->p->n, sizeof *units);
  json_t **data = pf_alloc(g->p->n, sizeof(json_t *));
  int rc = unit && units && data ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; rc == PF_OK && i < g->p->n; i++)
    if (g->record[i]) {
      unit_of(g, i, unit[m]);
      units[m] = unit[m];
      data[m++] = g->record[i];
      g->record[i] = NULL;
    }
  if (m)
    rc = pf_journal_append_all(g->journal, units, data, m);
  g->done += rc == PF_OK ? m : 0;
  g->flushed = pf_seconds();
  g->unflushed = 0;
  pf_free(unit);
  pf_free(units);
  pf_free(data);
  return rc;
}

static int on_done(void *user, size_t i) {
  run *g = user;
  size_t line = g->line_of[i];
  g->record[line] = record_of(g, &g->p->v[line], &g->b[i]);
  pf_branch_clear(&g->b[i]);
  if (!g->record[line])
    return PF_ENOMEM;
  if (!g->journal)
    return hand_out(g);
  bool due = ++g->unflushed >= FLUSH_RECORDS || pf_seconds() - g->flushed > FLUSH_SECONDS;
  return due ? flush(g) : PF_OK;
}

/* ---- the run --------------------------------------------------------------------------------- */

/* What decides the records: the journal of another is not gone on with. */
static json_t *make_head(const pf_batch *f, const pf_model_info *m, const pf_gen_opts *o) {
  return json_pack("{s:s,s:s,s:s,s:i,s:s,s:s,s:i,s:o,s:o,s:i,s:o,s:I,s:b}", "schema",
                   "personaflow-generated/1", "model", m->weights_sha256, "tokenizer",
                   f->tok ? pf_tok_sha256(f->tok) : "", "contract", pf_contract_version(),
                   "precision", pf_precision_name(m->precision), "prompts", f->sha256, "max_tokens",
                   (int)o->max_tokens, "repetition_penalty", pf_js_num(o->repetition_penalty),
                   "temperature", pf_js_num(o->temperature), "top_k", (int)o->top_k, "top_p",
                   pf_js_num(o->top_p), "seed", (json_int_t)o->seed, "ignore_eos", o->ignore_eos);
}

static int open_journal(run *g) {
  pf_journal_mode mode = g->o->force    ? PF_JOURNAL_FORCE
                         : g->o->resume ? PF_JOURNAL_RESUME
                                        : PF_JOURNAL_NEW;
  if (!g->o->out_dir)
    return PF_OK;
  json_t *head = make_head(g->f, g->info, &g->o->gen);
  int rc = head ? pf_journal_open(&g->journal, g->o->out_dir, mode, PF_FOLDER_TEXTS, head, outputs)
                : PF_ENOMEM;
  json_decref(head);
  g->flushed = pf_seconds();
  return rc;
}

static void set_options(const run *g, const pf_prompt *l, pf_gen_opts *o) {
  *o = g->o->gen;
  for (void *it = json_object_iter(l->json); it; it = json_object_iter_next(l->json, it)) {
    const struct option_key *k = option_key(json_object_iter_key(it));
    if (k)
      k->put((char *)o + k->at, json_object_iter_value(it));
  }
}

/* Branches of the lines that the journal does not hold. */
static int make_branches(run *g) {
  g->b = pf_calloc(g->p->n, sizeof *g->b);
  g->line_of = pf_alloc(g->p->n, sizeof *g->line_of);
  g->record = pf_calloc(g->p->n, sizeof(json_t *));
  int rc = g->b && g->line_of && g->record ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < g->p->n && rc == PF_OK; i++) {
    const pf_prompt *l = &g->p->v[i];
    char unit[24];
    unit_of(g, i, unit);
    if (g->journal && pf_journal_has(g->journal, unit))
      continue;
    g->b[g->n] = (pf_branch){.ids = l->ids.v, .n = l->ids.n};
    set_options(g, l, &g->b[g->n].o);
    g->line_of[g->n++] = i;
  }
  g->done = g->p->n - g->n;
  return rc;
}

static int generate(run *g, const pf_model *m, pf_many_stats *stats) {
  pf_ctx *ctx = NULL;
  pf_many_opts o = {.batch = g->o->batch,
                    .memory = g->o->memory,
                    .on_done = on_done,
                    .user = g,
                    .progress = g->o->progress,
                    .progress_user = g->o->progress_user,
                    .stop = g->o->stop};
  int rc = pf_ctx_new(&ctx, m, &(pf_ctx_opts){.threads = g->o->threads});
  if (rc == PF_OK)
    rc = pf_generate_many(ctx, g->b, g->n, &o, stats);
  pf_ctx_free(ctx);
  int kept = g->journal ? flush(g) : PF_OK; /* what has ended is kept whatever happened */
  if (rc == PF_OK || (rc == PF_EINCOMPLETE && kept != PF_OK))
    return kept;
  return rc;
}

static int export_all(const run *g) {
  char path[4400];
  pf_buf b = {0};
  int rc = PF_OK;
  snprintf(path, sizeof path, "%s/" RESULTS, g->o->out_dir);
  for (size_t i = 0; i < g->p->n && rc == PF_OK; i++) {
    char unit[24];
    json_t *data;
    unit_of(g, i, unit);
    rc = pf_journal_get(g->journal, unit, &data);
    pf_js_dump(data, 0, &b);
    pf_buf_puts(&b, "\n");
    json_decref(data);
  }
  if (rc == PF_OK)
    rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = pf_write_file(path, b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

static int stopped(const run *g) {
  if (g->journal)
    return pf_fail(PF_EINCOMPLETE,
                   "%s: stopped: %zu of %zu prompts are done and kept: --resume goes on",
                   g->o->out_dir, g->done, g->p->n);
  return pf_fail(PF_EINCOMPLETE,
                 "stopped: %zu of %zu prompts are written; --out DIR keeps them for "
                 "--resume",
                 g->done, g->p->n);
}

static void end_batch(run *g) {
  for (size_t i = 0; g->b && i < g->n; i++)
    pf_branch_clear(&g->b[i]);
  for (size_t i = 0; g->record && i < g->p->n; i++)
    json_decref(g->record[i]);
  pf_journal_close(g->journal);
  pf_free(g->b);
  pf_free(g->line_of);
  pf_free(g->record);
}

int pf_batch_look(const char *out_dir) {
  return pf_journal_look(out_dir, PF_JOURNAL_NEW, PF_FOLDER_TEXTS, outputs);
}

int pf_batch_run(const pf_batch *b, const pf_model *m, const pf_batch_opts *o,
                 pf_many_stats *stats) {
  PF_FP_PLAIN();
  run g = {.f = b, .p = &b->p, .o = o, .info = pf_model_get_info(m)};
  if (!o->out_dir == !o->write)
    return pf_fail(PF_EUSAGE, "records go to a folder or to a function, one of them");
  if (o->resume && o->force)
    return pf_fail(PF_EUSAGE, "--resume and --force exclude each other");
  /* before the journal, which --force empties */
  int rc = pf_prompts_fit(g.p, b->name, g.info->vocab_size, g.info->max_positions, 0);
  if (rc == PF_OK)
    rc = open_journal(&g);
  if (rc == PF_OK)
    rc = make_branches(&g);
  if (rc == PF_OK)
    rc = generate(&g, m, stats);
  if (rc == PF_EINCOMPLETE && o->stop && *o->stop)
    rc = stopped(&g);
  if (rc == PF_OK && g.journal)
    rc = export_all(&g);
  end_batch(&g);
  return rc;
}
