/* SPDX-License-Identifier: Apache-2.0
 * The runs of `personaflow profile`: prompt and generation, repeated with a profile and without one
 * in turn. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/feed.h"
#include "analysis/folder.h"
#include "analysis/jsonout.h"
#include "analysis/profile.h"
#include "analysis/snapshot.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

typedef enum phase_id { PREFILL, DECODE, N_PHASES } phase_id;
static const char *const phase_names[N_PHASES] = {"prefill", "decode"};
enum { SEED = 29 };

/* A row, over the repeats. */
typedef struct cell {
  int32_t layer;
  char name[64];
  double calls, flops, bytes;
  double *seconds, *imbalance; /* (repeats) */
} cell;

typedef struct phase {
  cell *v;
  size_t n, cap;
  double *wall, *busy, *plain; /* (repeats); plain: wall time without a profile */
  double counted[16];          /* of the counters, all repeats */
} phase;

typedef struct prof {
  const pf_profile_opts *o;
  pf_model *m;
  pf_ctx *c;
  pf_tok *tok;
  pf_interventions *iv;
  pf_profile *p;
  pf_counters *counters;
  pf_machine_peak peak;
  int32_t *ids;
  float *logits; /* (branches, V) */
  pf_seq *s;     /* of the prompt */
  phase ph[N_PHASES];
  double load;
  uint64_t done, total;
  pf_buf trace;
  double traced; /* seconds of the phases before */
  size_t dropped;
} prof;

/* ---- one phase ------------------------------------------------------------------------------- */

static void tick(prof *f) {
  f->done++;
  if (f->o->progress)
    f->o->progress(f->o->progress_user, "profile", f->done, f->total);
}

static int stopped(const prof *f) {
  return f->o->stop && *f->o->stop ? pf_fail(PF_EINCOMPLETE, "stopped: nothing is written") : PF_OK;
}

static int32_t prompt_token(void *user, int32_t i) {
  return ((prof *)user)->ids[i];
}

static int prefill(prof *f) {
  int32_t n = f->o->prompt;
  return pf_feed_prompt(f->c, f->s, n, f->o->chunk > 0 ? f->o->chunk : n, prompt_token, f,
                        f->logits);
}

/* The best token: of the prompt's logits, which all branches share, or of the branch's own. */
static int32_t first_token(void *user, int32_t i) {
  const prof *f = user;
  (void)i;
  return pf_argmax(f->logits, (size_t)pf_model_get_info(f->m)->vocab_size, NULL);
}

static int32_t next_token(void *user, int32_t i) {
  const prof *f = user;
  size_t v = (size_t)pf_model_get_info(f->m)->vocab_size;
  return pf_argmax(f->logits + (size_t)i * v, v, NULL);
}

static int steps(prof *f, pf_seq *const *s, pf_row *rows) {
  int rc = PF_OK;
  for (int32_t i = 0; i < f->o->generate && rc == PF_OK; i++)
    rc = pf_feed_step(f->c, s, f->o->branches, i ? next_token : first_token, f, rows, f->logits);
  return rc;
}

static int decode(prof *f) {
  size_t b = (size_t)f->o->branches;
  pf_seq **s = pf_calloc(b, sizeof *s);
  pf_row *rows = pf_alloc(b, sizeof *rows);
  int rc = s && rows ? PF_OK : PF_ENOMEM;
  for (size_t k = 0; k < b && rc == PF_OK; k++)
    rc = pf_seq_fork(&s[k], f->s, f->o->prompt);
  if (rc == PF_OK)
    rc = steps(f, s, rows);
  for (size_t k = 0; s && k < b; k++)
    pf_seq_free(s[k]);
  pf_free(s);
  pf_free(rows);
  return rc;
}

static int begin_prompt(prof *f) {
  pf_spans spans;
  pf_seq_free(f->s);
  f->s = NULL;
  int rc = pf_seq_new(&f->s, f->c);
  pf_spans_of_ids(f->o->prompt, &spans);
  return rc == PF_OK && f->iv ? pf_interventions_bind(f->iv, f->c, f->tok, &spans, f->s) : rc;
}

static int run_phase(prof *f, phase_id id) {
  return id == PREFILL ? prefill(f) : decode(f);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static cell *cell_of(prof *f, phase *ph, int32_t layer, const char *name) {
  size_t repeats = (size_t)f->o->repeats;
  for (size_t i = 0; i < ph->n; i++)
    if (ph->v[i].layer == layer && !strcmp(ph->v[i].name, name))
      return &ph->v[i];
  if (pf_grow((void **)&ph->v, &ph->cap, ph->n + 1, sizeof *ph->v) != PF_OK)
    return NULL;
  cell *c = &ph->v[ph->n];
  *c = (cell){.layer = layer, .seconds = pf_calloc(2 * repeats, sizeof(double))};
  c->imbalance = c->seconds + repeats;
  snprintf(c->name, sizeof c->name, "%s", name);
  return c->seconds ? (ph->n++, c) : NULL;
}

static int keep_rows(prof *f, phase *ph, int32_t r) {
  size_t n;
  const pf_profile_row *row = pf_profile_rows(f->p, &n);
  double threads = pf_profile_threads(f->p);
  if (!row)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++) {
    cell *c = cell_of(f, ph, row[i].layer, row[i].name);
    if (!c)
      return PF_ENOMEM;
    c->calls = (double)row[i].calls;
    c->flops = row[i].flops;
    c->bytes = row[i].bytes;
    c->seconds[r] = row[i].seconds / threads;
    c->imbalance[r] = row[i].imbalance;
  }
  cell *c = cell_of(f, ph, -1, "caller");
  if (!c)
    return PF_ENOMEM;
  ph->wall[r] = pf_profile_wall(f->p);
  ph->busy[r] = pf_profile_busy(f->p);
  c->seconds[r] = ph->wall[r] - ph->busy[r];
  return PF_OK;
}

static void keep_counters(prof *f, phase *ph) {
  int n;
  const pf_counter *v = pf_counters_read(f->counters, &n);
  for (int i = 0; i < n; i++)
    ph->counted[i] += v[i].value;
}

/* The last repeat's, for the timeline. */
static void keep_spans(prof *f, phase_id id, int32_t r) {
  size_t n, dropped;
  if (!f->o->out_dir || r + 1 < f->o->repeats)
    return;
  const pf_profile_span *s = pf_profile_spans(f->p, &n, &dropped);
  pf_trace_add(&f->trace, phase_names[id], f->traced, pf_profile_wall(f->p), s, n);
  f->traced += pf_profile_wall(f->p);
  f->dropped += dropped;
}

static int profiled(prof *f, phase_id id, int32_t r) {
  pf_counters_start(f->counters);
  pf_profile_start(f->p);
  int rc = run_phase(f, id);
  pf_profile_stop(f->p);
  pf_counters_stop(f->counters);
  keep_counters(f, &f->ph[id]);
  if (rc == PF_OK)
    rc = keep_rows(f, &f->ph[id], r);
  keep_spans(f, id, r);
  return rc;
}

static int plain(prof *f, phase_id id, int32_t r) {
  double t = pf_seconds();
  int rc = run_phase(f, id);
  f->ph[id].plain[r] = pf_seconds() - t;
  return rc;
}

/* Prompt and generation once; the first of a pair is the other kind each time. */
static int once(prof *f, bool with, int32_t r) {
  int rc = stopped(f);
  if (rc == PF_OK)
    rc = begin_prompt(f);
  for (int id = 0; id < N_PHASES && rc == PF_OK; id++)
    rc = with ? profiled(f, (phase_id)id, r) : plain(f, (phase_id)id, r);
  tick(f);
  return rc;
}

static int repeat(prof *f) {
  int rc = once(f, false, 0); /* warms up */
  if (rc == PF_OK)
    rc = pf_counters_open(&f->counters, strstr(pf_cpu_features(), "amx") != NULL);
  for (int32_t r = 0; r < f->o->repeats && rc == PF_OK; r++) {
    rc = once(f, r % 2, r);
    if (rc == PF_OK)
      rc = once(f, !(r % 2), r);
  }
  return rc == PF_OK && f->iv ? pf_interventions_check_fired(f->iv) : rc;
}

/* ---- the result ------------------------------------------------------------------------------ */

static json_t *numbers(const double *v, int32_t n) {
  json_t *list = json_array();
  for (int32_t i = 0; i < n; i++)
    json_array_append_new(list, pf_js_num(v[i]));
  return list;
}

static json_t *rows_json(const prof *f, const phase *ph) {
  json_t *list = json_array();
  for (size_t i = 0; i < ph->n; i++) {
    const cell *c = &ph->v[i];
    json_array_append_new(list, json_pack("{s:i,s:s,s:o,s:o,s:o,s:o,s:o}", "layer", (int)c->layer,
                                          "role", c->name, "calls", pf_js_num(c->calls), "flops",
                                          pf_js_num(c->flops), "bytes", pf_js_num(c->bytes),
                                          "seconds", numbers(c->seconds, f->o->repeats),
                                          "imbalance", numbers(c->imbalance, f->o->repeats)));
  }
  return list;
}

static json_t *counters_json(const prof *f, const phase *ph) {
  int n;
  const pf_counter *v = pf_counters_read(f->counters, &n);
  json_t *o = json_object();
  for (int i = 0; i < n; i++)
    json_object_set_new(o, v[i].name,
                        v[i].there ? pf_js_num(ph->counted[i] / f->o->repeats)
                                   : json_pack("{s:s}", "absent", v[i].absent));
  return o;
}

static json_t *phase_json(const prof *f, phase_id id) {
  const phase *ph = &f->ph[id];
  int32_t r = f->o->repeats,
          tokens = id == PREFILL ? f->o->prompt : f->o->generate * f->o->branches;
  return json_pack("{s:s,s:i,s:o,s:o,s:o,s:o,s:o}", "name", phase_names[id], "tokens", (int)tokens,
                   "wall", numbers(ph->wall, r), "busy", numbers(ph->busy, r), "unprofiled_wall",
                   numbers(ph->plain, r), "counters", counters_json(f, ph), "rows",
                   rows_json(f, ph));
}

/* Loading as a phase of one repeat; what is not listed is making room and waiting at the end. */
static json_t *load_json(const prof *f) {
  const pf_load_times *t = pf_model_load_times(f->m);
  const struct {
    const char *role;
    double seconds;
  } parts[] = {{"load.read", t->read},
               {"load.check", t->check},
               {"load.pack", t->pack}}; /* a profile opens its model without checksums */
  json_t *rows = json_array();
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    json_array_append_new(rows,
                          json_pack("{s:i,s:s,s:I,s:f,s:I,s:[f],s:[f]}", "layer", -1, "role",
                                    parts[i].role, "calls", (json_int_t)t->blocks, "flops", 0.0,
                                    "bytes", (json_int_t)(parts[i].seconds > 0 ? t->bytes : 0),
                                    "seconds", parts[i].seconds / t->threads, "imbalance", 0.0));
  return json_pack("{s:s,s:i,s:[f],s:[f],s:o}", "name", "load", "tokens", 0, "wall", f->load,
                   "busy", t->wall, "rows", rows);
}

static json_t *interventions_json(const prof *f) {
  json_t *list = json_array();
  const char *line;
  for (size_t i = 0; f->iv && (line = pf_interventions_line(f->iv, i)); i++)
    json_array_append_new(list, json_string(line));
  return list;
}

static json_t *result_of(const prof *f) {
  const pf_model_info *i = pf_model_get_info(f->m);
  json_t *phases = json_array();
  json_array_append_new(phases, load_json(f));
  for (int id = 0; id < N_PHASES; id++)
    if (id == PREFILL || f->o->generate > 0)
      json_array_append_new(phases, phase_json(f, (phase_id)id));
  const pf_machine_peak *k = &f->peak;
  json_t *machine = json_pack("{s:s,s:s,s:s,s:o,s:i,s:s,s:o,s:o}", "cpu", pf_cpu_name(), "features",
                              pf_cpu_features(), "products", k->what ? k->what : "", "flops",
                              pf_js_num(k->flops), "products_for_one", k->parts, "attention",
                              k->attention_what ? k->attention_what : "", "attention_flops",
                              pf_js_num(k->attention), "read", pf_js_num(k->bytes));
  json_t *load =
      json_pack("{s:o,s:I}", "seconds", pf_js_num(f->load), "bytes", (json_int_t)i->weight_bytes);
  return json_pack(
      "{s:s,s:s,s:i,s:s,s:s,s:i,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:o,s:o,s:o,s:o}", "schema",
      PF_PROFILE_SCHEMA, "version", pf_version(), "contract", pf_contract_version(), "model",
      f->o->model, "arch", i->arch, "layers", (int)i->n_layers, "precision",
      pf_precision_name(i->precision), "isa", pf_isa_in_force(f->o->isa), "threads",
      pf_profile_threads(f->p), "prompt", (int)f->o->prompt, "generate", (int)f->o->generate,
      "branches", (int)f->o->branches, "chunk", (int)f->o->chunk, "repeats", (int)f->o->repeats,
      "machine", machine, "load", load, "interventions", interventions_json(f), "phases", phases);
}

/* ---- files ----------------------------------------------------------------------------------- */

static int put(const prof *f, const char *name, const void *s, size_t n) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", f->o->out_dir, name);
  return pf_write_file(path, s, n);
}

static int write_files(prof *f, const json_t *result, const char *json) {
  pf_buf page = {0}, csv = {0};
  pf_trace_close(&f->trace);
  int rc = pf_profile_page(result, &page);
  if (rc == PF_OK)
    rc = pf_profile_put_csv(result, NULL, &csv);
  if (rc == PF_OK)
    rc = pf_buf_status(&csv);
  if (rc == PF_OK)
    rc = pf_buf_status(&f->trace);
  if (rc == PF_OK)
    rc = put(f, "trace.json", f->trace.s, f->trace.n);
  if (rc == PF_OK)
    rc = put(f, "profile.csv", csv.s, csv.n);
  if (rc == PF_OK)
    rc = put(f, "report.html", page.s, page.n);
  if (rc == PF_OK)
    rc = put(f, "profile.json", json, strlen(json));
  pf_buf_free(&page);
  pf_buf_free(&csv);
  return rc;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int check(const pf_profile_opts *o) {
  if (o->prompt < 1 || o->generate < 0 || o->branches < 1 || o->repeats < 1 || o->repeats > 1000 ||
      o->chunk < 0)
    return pf_fail(PF_EUSAGE, "a profile takes a prompt of 1 token or more, and 1 to 1000 repeats");
  return PF_OK;
}

static int check_positions(const prof *f) {
  int64_t most = pf_model_get_info(f->m)->max_positions,
          want = (int64_t)f->o->prompt + f->o->generate;
  return want <= most ? PF_OK
                      : pf_fail(PF_EUSAGE, "%lld positions are wanted; the model has %lld",
                                (long long)want, (long long)most);
}

static int make_buffers(prof *f) {
  size_t v = (size_t)pf_model_get_info(f->m)->vocab_size, r = (size_t)f->o->repeats;
  f->ids = pf_alloc((size_t)f->o->prompt, sizeof *f->ids);
  f->logits = pf_alloc((size_t)f->o->branches * v, sizeof *f->logits);
  bool ok = f->ids && f->logits;
  for (int32_t i = 0; ok && i < f->o->prompt; i++)
    f->ids[i] = (int32_t)(pf_uniform(SEED, 0, (uint64_t)i) * (double)v);
  for (int id = 0; ok && id < N_PHASES; id++) {
    phase *ph = &f->ph[id];
    ok = (ph->wall = pf_calloc(3 * r, sizeof(double))) != NULL;
    ph->busy = ph->wall + r;
    ph->plain = ph->wall + 2 * r;
  }
  return ok ? PF_OK : PF_ENOMEM;
}

static int open_all(prof *f) {
  const pf_profile_opts *o = f->o;
  pf_model_opts mo = {.threads = o->threads,
                      .no_checksum = 1,
                      .precision = o->precision,
                      .isa = o->isa,
                      .progress = o->progress,
                      .progress_user = o->progress_user};
  double t = pf_seconds();
  int rc = pf_model_open(&f->m, o->model, &mo);
  f->load = pf_seconds() - t;
  if (rc == PF_OK)
    rc = check_positions(f);
  if (rc == PF_OK && o->interventions)
    rc = pf_interventions_read(&f->iv, o->interventions, f->m);
  if (rc == PF_OK && o->interventions)
    (void)pf_tok_open(&f->tok, pf_model_get_info(f->m)->dir); /* source prompts say if it lacks */
  if (rc == PF_OK)
    rc = pf_ctx_new(
        &f->c, f->m,
        &(pf_ctx_opts){.threads = o->threads, .isa = o->isa, .keep_raw_k = f->iv != NULL});
  if (rc == PF_OK)
    rc = pf_profile_new(&f->p, f->c, o->out_dir != NULL);
  if (rc == PF_OK)
    rc = make_buffers(f);
  if (rc == PF_OK)
    rc = pf_machine_measure(f->m, o->isa, pf_profile_threads(f->p), &f->peak);
  if (rc == PF_OK && o->out_dir)
    pf_trace_open(&f->trace, o->model, pf_profile_threads(f->p));
  return rc;
}

static void close_all(prof *f) {
  for (int id = 0; id < N_PHASES; id++) {
    for (size_t i = 0; i < f->ph[id].n; i++)
      pf_free(f->ph[id].v[i].seconds);
    pf_free(f->ph[id].v);
    pf_free(f->ph[id].wall);
  }
  pf_counters_close(f->counters);
  pf_seq_free(f->s);
  pf_interventions_free(f->iv);
  pf_profile_free(f->p);
  pf_ctx_free(f->c);
  pf_model_close(f->m);
  pf_tok_close(f->tok);
  pf_free(f->ids);
  pf_free(f->logits);
  pf_buf_free(&f->trace);
}

static int give(prof *f, char **json) {
  json_t *result = result_of(f);
  pf_buf b = {0};
  pf_js_dump(result, 1, &b);
  pf_buf_puts(&b, "\n");
  int rc = result ? pf_buf_take(&b, json) : PF_ENOMEM;
  if (rc == PF_OK && f->o->out_dir)
    rc = write_files(f, result, *json);
  if (rc != PF_OK) {
    pf_text_free(*json);
    *json = NULL;
  }
  json_decref(result);
  return rc;
}

static int make_folder(const pf_profile_opts *o) {
  static const char *const others[] = {"profile.csv", "trace.json", "report.html", NULL};
  return pf_folder_make(o->out_dir, PF_FOLDER_PROFILE, "profile.json", others, o->force);
}

int pf_profile_run(const pf_profile_opts *o, char **json) {
  prof f = {.o = o, .total = 2 * (uint64_t)(o->repeats > 0 ? o->repeats : 0) + 1};
  *json = NULL;
  int rc = check(o);
  if (rc == PF_OK)
    rc = o->out_dir ? make_folder(o) : PF_OK;
  if (rc == PF_OK)
    rc = open_all(&f);
  if (rc == PF_OK)
    rc = repeat(&f);
  if (rc == PF_OK)
    rc = give(&f, json);
  close_all(&f);
  return rc;
}
