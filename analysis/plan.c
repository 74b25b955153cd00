/* SPDX-License-Identifier: Apache-2.0
 * The plan of a study: model, tokenizer, grid, layers, every prompt with its spans, and the keys of
 * the units. */
#include <stdio.h>
#include <string.h>

#include "analysis/experiment.h"
#include "analysis/jsonout.h"
#include "analysis/spans.h"
#include "analysis/study.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

int32_t pf_plan_site(const pf_role_prompt *q, pf_probe probe) {
  return probe == PF_P_USER_LAST ? q->p_user_last : q->p_last + pf_probe_prefix(probe);
}

const pf_role_prompt *pf_plan_prompt(const pf_plan *p, int persona, int task) {
  if (persona < 0)
    return task < 0 ? &p->bb : &p->by[task];
  return task < 0 ? &p->xb[persona] : &p->xy[(size_t)persona * p->grid.n_tasks + (size_t)task];
}

static const pf_role_prompt *longer(const pf_role_prompt *a, const pf_role_prompt *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    a = b[i].enc.n > a->enc.n ? &b[i] : a;
  return a;
}

const pf_role_prompt *pf_plan_longest(const pf_plan *p) {
  const pf_role_prompt *q = longer(&p->bb, p->xb, p->grid.n_personas);
  return longer(longer(q, p->by, p->grid.n_tasks), p->xy, p->n_cells);
}

int32_t pf_shared_prefix(const pf_role_prompt *a, const pf_role_prompt *b, int32_t limit) {
  int32_t n = 0;
  while (n < limit && (size_t)n < a->enc.n && (size_t)n < b->enc.n &&
         a->enc.ids[n] == b->enc.ids[n])
    n++;
  return n;
}

/* ---- prompts
 * ------------------------------------------------------------------------------------------------------
 */

int pf_plan_say(const pf_plan *p, const char *persona, const char *task, pf_role_prompt *out) {
  const pf_paraphrase *by = p->paraphrase;
  int rc = by && by->system
               ? pf_role_prompt_make_system(p->tok, by->system, by->text, persona, task, out)
               : pf_role_prompt_make(p->tok, by ? by->text : p->grid.template_, persona, task, out);
  return rc != PF_OK && by ? pf_fail_prefix(rc, "paraphrase %s", by->key) : rc;
}

int pf_plan_say_host(const pf_plan *p, size_t host, const char *task, pf_role_prompt *out) {
  return pf_role_prompt_make_system(p->tok, "", p->controls.hosts[host].text, NULL, task, out);
}

bool pf_plan_own_host(const pf_plan *p, size_t i) {
  const char *text = p->controls.hosts[i].text;
  return strcmp(text, "{task}") != 0 && (!p->base_host || strcmp(text, p->base_host) != 0);
}

static int say_base_host(pf_plan *p) {
  const pf_paraphrase *by = p->paraphrase;
  pf_filled f;
  if (by && by->system)
    return PF_OK;
  int rc = pf_template_fill(by ? by->text : p->grid.template_, p->grid.base.key, "{task}", &f);
  p->base_host = f.text;
  return rc;
}

static int make_prompt(const pf_plan *p, const char *persona, const char *task,
                       pf_role_prompt *out) {
  int rc = pf_plan_say(p, persona, task, out);
  if (rc == PF_OK && out->enc.n + p->y_max > (size_t)p->info->max_positions)
    rc = pf_fail(PF_EINPUT,
                 "the prompt for '%.40s' and '%.40s' has %zu tokens; the model has %d positions",
                 persona, task, out->enc.n, p->info->max_positions);
  if (rc == PF_OK && out->p_user_last >= out->p_last)
    rc = pf_fail(PF_EINPUT,
                 "chat template: it has no generation header: p_user_last and p_last are the same");
  return rc;
}

static int make_prompts(pf_plan *p) {
  const pf_grid *g = &p->grid;
  p->n_cells = g->n_personas * g->n_tasks;
  p->xb = pf_calloc(g->n_personas, sizeof *p->xb);
  p->by = pf_calloc(g->n_tasks, sizeof *p->by);
  p->xy = pf_calloc(p->n_cells, sizeof *p->xy);
  if (!p->xb || !p->by || !p->xy)
    return PF_ENOMEM;
  int rc = make_prompt(p, g->base.key, g->base.text, &p->bb);
  for (size_t i = 0; i < g->n_personas && rc == PF_OK; i++)
    rc = make_prompt(p, g->personas[i].text, g->base.text, &p->xb[i]);
  for (size_t i = 0; i < g->n_tasks && rc == PF_OK; i++)
    rc = make_prompt(p, g->base.key, g->tasks[i].text, &p->by[i]);
  for (size_t c = 0; c < p->n_cells && rc == PF_OK; c++)
    rc = make_prompt(p, g->personas[c / g->n_tasks].text, g->tasks[c % g->n_tasks].text, &p->xy[c]);
  return rc;
}

/* ---- keys
 * ---------------------------------------------------------------------------------------------------------
 */

static json_t *probe_list(const pf_grid *g) {
  json_t *a = json_array();
  for (size_t i = 0; i < g->n_probes; i++)
    json_array_append_new(a, json_string(pf_probe_names[g->probes[i]]));
  return a;
}

/* The controls' text decides on prompts. */
static json_t *controls_sum(const pf_plan *p) {
  pf_buf b = {0};
  char hex[65];
  pf_js_dump(p->controls.root, 0, &b);
  pf_sha256_hex(pf_buf_str(&b), b.n, hex);
  json_t *sum = b.failed ? NULL : json_string(hex);
  pf_buf_free(&b);
  return sum;
}

/* ---- what the controls offer in place of the grid's own -------------------------------------- */

static int no_control(const char *option, const char *key) {
  return pf_fail(PF_EUSAGE, "%s: the grid's controls have no '%s' (personaflow grid lists them)",
                 option, key);
}

static const char *item_text(const pf_grid_item *v, size_t n, const char *key, size_t length) {
  for (size_t i = 0; i < n; i++)
    if (strlen(v[i].key) == length && !strncmp(v[i].key, key, length))
      return v[i].text;
  return NULL;
}

/* "PERSONA" or "PERSONA,TASK". */
static int take_baseline(pf_plan *p, const char *keys) {
  const pf_controls *c = &p->controls;
  const char *comma = keys ? strchr(keys, ',') : NULL;
  if (!keys)
    return PF_OK;
  const char *persona = item_text(c->base_personas, c->n_base_personas, keys,
                                  comma ? (size_t)(comma - keys) : strlen(keys)),
             *task = comma ? item_text(c->base_tasks, c->n_base_tasks, comma + 1, strlen(comma + 1))
                           : p->grid.base.text;
  if (!persona || !task)
    return no_control("baseline", persona ? comma + 1 : keys);
  p->grid.base = (pf_grid_item){persona, task};
  return PF_OK;
}

static int take_paraphrase(pf_plan *p, const char *key) {
  for (size_t i = 0; key && i < p->controls.n_paraphrases; i++)
    if (!strcmp(p->controls.paraphrases[i].key, key))
      p->paraphrase = &p->controls.paraphrases[i];
  return key && !p->paraphrase ? no_control("paraphrase", key) : PF_OK;
}

static void add_new(pf_grid_item *v, size_t *n, pf_grid_item item) {
  for (size_t i = 0; i < *n; i++)
    if (!strcmp(v[i].key, item.key))
      return;
  v[(*n)++] = item;
}

/* Personas and tasks of the conflicting cells, in the order of the list. */
static int take_conflicts(pf_plan *p, bool on) {
  const pf_controls *c = &p->controls;
  pf_grid *g = &p->grid;
  if (!on)
    return PF_OK;
  if (c->n_conflicts == 0)
    return no_control("conflicts", "cells");
  pf_grid_item *personas = pf_calloc(c->n_conflicts, sizeof *personas),
               *tasks = pf_calloc(c->n_conflicts, sizeof *tasks);
  pf_free(g->personas);
  pf_free(g->tasks);
  g->personas = personas;
  g->tasks = tasks;
  g->n_personas = g->n_tasks = 0;
  for (size_t i = 0; personas && tasks && i < c->n_conflicts; i++) {
    add_new(personas, &g->n_personas, c->conflicts[i].persona);
    add_new(tasks, &g->n_tasks, c->conflicts[i].task);
  }
  p->conflicts = true;
  return personas && tasks ? pf_grid_answered(g) : PF_ENOMEM;
}

static int take_markers(pf_plan *p, const char *what) {
  if (!what)
    return pf_markers_of_grid(&p->markers, &p->grid);
  size_t n = 0;
  int rc = pf_markers_open(&p->markers, what);
  for (size_t i = 0; i < p->grid.n_personas; i++)
    n += pf_markers_persona(&p->markers, p->grid.personas[i].key) != NULL;
  for (size_t i = 0; i < p->grid.n_tasks; i++)
    n += pf_markers_task(&p->markers, p->grid.tasks[i].key) != NULL;
  return rc != PF_OK || n ? rc
                          : pf_fail(PF_EINPUT,
                                    "markers '%s': no key is that of a persona or a task of the "
                                    "grid %s",
                                    what, p->grid.name);
}

/* The names of the members stand in the line that refuses to mix runs ("differs in grid"). */
static json_t *make_head(const pf_plan *p, const pf_study_opts *o) {
  json_t *head =
      json_pack("{s:s,s:s,s:s,s:s,s:i,s:s,s:s,s:b,s:o,s:o,s:o}", "schema", "personaflow-journal/1",
                "protocol", pf_protocol_names[p->protocol], "model", p->info->weights_sha256,
                "tokenizer", pf_tok_sha256(p->tok), "contract", pf_contract_version(), "precision",
                pf_precision_name(p->info->precision), "grid", p->grid.sha256, "all_draws",
                p->all_draws, "controls", controls_sum(p), "layers",
                pf_js_ints(p->layers.v, p->layers.n), "probes", probe_list(&p->grid));
  if (head && o->baseline)
    json_object_set_new(head, "baseline", json_string(o->baseline));
  if (head && o->paraphrase)
    json_object_set_new(head, "paraphrase", json_string(o->paraphrase));
  if (head && o->markers)
    json_object_set_new(head, "markers", json_string(p->markers.sha256));
  if (head && p->conflicts)
    json_object_set_new(head, "conflicts", json_true());
  return head;
}

static void add_prompt(pf_sha256 *h, const pf_role_prompt *q) {
  pf_sha256_add(h, &q->p_user_last, sizeof q->p_user_last);
  pf_sha256_add(h, q->enc.ids, q->enc.n * sizeof *q->enc.ids);
  pf_sha256_add(h, &(int32_t){-1}, sizeof(int32_t));
}

int pf_plan_unit(const pf_plan *p, const char *experiment, size_t cell, size_t part, char key[65]) {
  const pf_grid_item *x = &p->grid.personas[cell / p->grid.n_tasks],
                     *y = &p->grid.tasks[cell % p->grid.n_tasks];
  int revision = pf_experiment_find(experiment)->revision;
  pf_buf head = {0};
  pf_js_dump(p->head, 0, &head);
  pf_buf_printf(&head, "%s/%zu", experiment, part);
  if (revision > 1)
    pf_buf_printf(&head, "/r%d", revision);
  pf_sha256 *h = pf_buf_status(&head) == PF_OK ? pf_sha256_new() : NULL;
  if (h) {
    pf_sha256_add(h, pf_buf_str(&head), head.n);
    pf_sha256_add(h, x->key, strlen(x->key) + 1);
    pf_sha256_add(h, y->key, strlen(y->key) + 1);
    add_prompt(h, &p->bb);
    add_prompt(h, &p->xb[cell / p->grid.n_tasks]);
    add_prompt(h, &p->by[cell % p->grid.n_tasks]);
    add_prompt(h, &p->xy[cell]);
    pf_sha256_end(h, key);
  }
  pf_buf_free(&head);
  return h ? PF_OK : PF_ENOMEM;
}

/* ---- all of it
 * ----------------------------------------------------------------------------------------------------
 */

#define PROTOCOL_NAME(id, name, y, penalty) name,
const char *const pf_protocol_names[PF_N_PROTOCOLS] = {PF_PROTOCOLS(PROTOCOL_NAME)};
#define PROTOCOL_Y(id, name, y, penalty) y,
static const size_t protocol_y[PF_N_PROTOCOLS] = {PF_PROTOCOLS(PROTOCOL_Y)};
#define PROTOCOL_PENALTY(id, name, y, penalty) penalty,
static const bool protocol_penalty[PF_N_PROTOCOLS] = {PF_PROTOCOLS(PROTOCOL_PENALTY)};

static int take_protocol(pf_plan *p, const char *name) {
  for (int i = 0; i < PF_N_PROTOCOLS; i++)
    if (!strcmp(pf_protocol_names[i], name)) {
      p->protocol = (pf_protocol)i;
      p->y_max = protocol_y[i];
      return PF_OK;
    }
  return pf_fail(PF_EUSAGE, "protocol '%s': there are 'paper' and 'full'", name);
}

/* Cheap checks first: grid, configuration, layers and tokenizer before gigabytes of weights. */
int pf_plan_make(pf_plan *p, const pf_study_opts *o) {
  char dir[4096];
  pf_model *config = NULL;
  *p = (pf_plan){0};
  int rc = take_protocol(p, o->protocol ? o->protocol : "full");
  p->all_draws = o->all_draws;
  if (rc == PF_OK)
    rc = pf_grid_open(&p->grid, o->grid);
  if (rc == PF_OK)
    rc = pf_controls_open(&p->controls, &p->grid);
  if (rc == PF_OK)
    rc = take_baseline(p, o->baseline);
  if (rc == PF_OK)
    rc = take_paraphrase(p, o->paraphrase);
  if (rc == PF_OK)
    rc = say_base_host(p);
  if (rc == PF_OK)
    rc = take_conflicts(p, o->conflicts);
  if (rc == PF_OK)
    rc = take_markers(p, o->markers);
  if (rc == PF_OK)
    rc = pf_model_resolve(o->model, dir, sizeof dir);
  if (rc == PF_OK)
    rc = pf_model_open_config(&config, dir);
  if (rc == PF_OK)
    rc = pf_grid_layers(&p->grid, o->layers, pf_model_get_info(config)->n_layers, &p->layers);
  pf_model_close(config);
  if (rc == PF_OK)
    rc = pf_tok_open(&p->tok, dir);
  pf_model_opts mo = {.threads = o->threads,
                      .progress = o->progress,
                      .progress_user = o->progress_user,
                      .precision = o->precision};
  if (rc == PF_OK)
    rc = pf_model_open(&p->model, dir, &mo);
  if (rc == PF_OK) {
    p->info = pf_model_get_info(p->model);
    p->repetition_penalty = protocol_penalty[p->protocol] ? p->info->repetition_penalty : 1;
    rc = make_prompts(p);
  }
  if (rc == PF_OK && !(p->head = make_head(p, o)))
    rc = PF_ENOMEM;
  if (rc != PF_OK)
    pf_plan_free(p);
  return rc;
}

static void free_prompts(pf_role_prompt *v, size_t n) {
  for (size_t i = 0; v && i < n; i++)
    pf_role_prompt_free(&v[i]);
  pf_free(v);
}

void pf_plan_free(pf_plan *p) {
  pf_role_prompt_free(&p->bb);
  free_prompts(p->xb, p->grid.n_personas);
  free_prompts(p->by, p->grid.n_tasks);
  free_prompts(p->xy, p->n_cells);
  pf_markers_free(&p->markers);
  pf_free(p->base_host);
  pf_controls_free(&p->controls);
  json_decref(p->head);
  pf_ids_free(&p->layers);
  pf_grid_free(&p->grid);
  pf_tok_close(p->tok);
  pf_model_close(p->model);
  *p = (pf_plan){0};
}
