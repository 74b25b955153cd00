/* SPDX-License-Identifier: Apache-2.0
 * A grid in lines: what is in it, and with a tokenizer the length and the spans of every prompt. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "analysis/controls.h"
#include "analysis/study.h"
#include "base/mem.h"
#include "base/status.h"

typedef struct teller {
  const pf_grid *g;
  const pf_controls *c;
  const pf_tok *t;
  int32_t max_positions;
  void (*log)(void *user, const char *line);
  void *user;
} teller;

static PF_PRINTF(2, 3) void say(const teller *w, const char *fmt, ...) {
  char line[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(line, sizeof line, fmt, args);
  va_end(args);
  w->log(w->user, line);
}

/* ---- prompts
 * ------------------------------------------------------------------------------------------------------
 */

static int say_prompt(const teller *w, const char *a, const char *b, const char *c,
                      const pf_role_prompt *p) {
  char name[200];
  snprintf(name, sizeof name, "%.64s%s%.64s%s%.64s", a, b ? "__" : "", b ? b : "", c ? " " : "",
           c ? c : "");
  say(w, "%-40s %6zu  %d:%d %d:%d %d:%d %d:%d %d:%d  %d %d", name, p->enc.n, p->bos.lo, p->bos.hi,
      p->template_.lo, p->template_.hi, p->persona.lo, p->persona.hi, p->task.lo, p->task.hi,
      p->header.lo, p->header.hi, p->p_user_last, p->p_last);
  if (w->max_positions > 0 && p->enc.n + PF_Y_MAX > (size_t)w->max_positions)
    return pf_fail(PF_EINPUT, "%s: %zu tokens and %d of an answer; the model has %d positions",
                   name, p->enc.n, PF_Y_MAX, w->max_positions);
  return PF_OK;
}

/* One prompt by a paraphrase (system NULL: by a template). */
static int one(const teller *w, const pf_paraphrase *by, const pf_grid_item *persona,
               const pf_grid_item *task) {
  pf_role_prompt p = {0};
  int rc = by->system ? pf_role_prompt_make_system(w->t, by->system, by->text,
                                                   persona ? persona->text : NULL, task->text, &p)
                      : pf_role_prompt_make(w->t, by->text, persona ? persona->text : NULL,
                                            task->text, &p);
  if (rc == PF_OK)
    rc = say_prompt(w, persona ? persona->key : "bare", task->key, by->key, &p);
  else
    rc = pf_fail_prefix(rc, "%s__%s", persona ? persona->key : "bare", task->key);
  pf_role_prompt_free(&p);
  return rc;
}

/* BB, XB, BY and XY of the grid. */
static int all_cells(const teller *w, const pf_paraphrase *by, const pf_grid_item *base_persona,
                     const pf_grid_item *base_task) {
  int rc = one(w, by, base_persona, base_task);
  for (size_t i = 0; i < w->g->n_personas && rc == PF_OK; i++)
    rc = one(w, by, &w->g->personas[i], base_task);
  for (size_t j = 0; j < w->g->n_tasks && rc == PF_OK; j++)
    rc = one(w, by, base_persona, &w->g->tasks[j]);
  for (size_t i = 0; i < w->g->n_personas && rc == PF_OK; i++)
    for (size_t j = 0; j < w->g->n_tasks && rc == PF_OK; j++)
      rc = one(w, by, &w->g->personas[i], &w->g->tasks[j]);
  return rc;
}

static bool has_system_role(const pf_tok *t) {
  static const pf_message m[] = {{"system", "x"}, {"user", "x"}};
  pf_encoding e = {0};
  char *text = NULL;
  int rc = pf_chat_encode(t, m, 2, 0, &e, &text, NULL);
  pf_encoding_free(&e);
  pf_text_free(text);
  return rc == PF_OK;
}

/* A chat format without a system role cannot say a paraphrase that wants one: it is left out. */
static int paraphrases(const teller *w, const pf_grid_item *base_persona,
                       const pf_grid_item *base_task) {
  int rc = PF_OK;
  for (size_t i = 0; i < w->c->n_paraphrases && rc == PF_OK; i++) {
    const pf_paraphrase *by = &w->c->paraphrases[i];
    if (by->system && !has_system_role(w->t))
      say(w, "paraphrase %s left out: the chat format has no system role", by->key);
    else
      rc = all_cells(w, by, base_persona, base_task);
  }
  return rc;
}

static int hosts(const teller *w) {
  int rc = PF_OK;
  for (size_t i = 0; i < w->c->n_hosts; i++)
    for (size_t j = 0; j < w->g->n_tasks && rc == PF_OK; j++) {
      pf_paraphrase by = {NULL, "", w->c->hosts[i].text};
      pf_role_prompt p = {0};
      rc = pf_role_prompt_make_system(w->t, by.system, by.text, NULL, w->g->tasks[j].text, &p);
      if (rc == PF_OK)
        rc = say_prompt(w, w->c->hosts[i].key, w->g->tasks[j].key, "host", &p);
      pf_role_prompt_free(&p);
    }
  return rc;
}

/* How near whole words come to each persona's number of tokens. */
static int neutral(const teller *w, const pf_neutral *c) {
  int rc = PF_OK;
  for (size_t i = 0; i < w->g->n_personas && rc == PF_OK; i++) {
    pf_role_prompt p = {0};
    char *text = NULL;
    int32_t got = 0;
    const char *task = w->g->tasks[0].text;
    rc = pf_role_prompt_make(w->t, w->g->template_, w->g->personas[i].text, task, &p);
    int32_t want = p.persona.hi - p.persona.lo;
    pf_role_prompt_free(&p);
    if (rc == PF_OK)
      rc = pf_neutral_fit(c, w->t, w->g->template_, task, want, &text, &got);
    if (rc == PF_OK)
      say(w, "neutral %s for %s: %d of %d tokens: %s", c->key, w->g->personas[i].key, got, want,
          text);
    pf_free(text);
  }
  return rc;
}

static int prompts(const teller *w) {
  pf_paraphrase main_ = {NULL, NULL, w->g->template_};
  pf_grid_item persona = {"_baseline", w->g->base.key}, task = {"_baseline", w->g->base.text};
  say(w, "%-40s %6s  %s", "prompt", "tokens",
      "bos template persona task header  p_user_last p_last");
  int rc = all_cells(w, &main_, &persona, &task);
  for (size_t j = 0; j < w->g->n_tasks && rc == PF_OK; j++)
    rc = one(w, &main_, NULL, &w->g->tasks[j]);
  if (rc == PF_OK)
    rc = paraphrases(w, &persona, &task);
  if (rc == PF_OK)
    rc = hosts(w);
  for (size_t i = 0; i < w->c->n_conflicts && rc == PF_OK; i++) {
    pf_paraphrase by = {"conflict", NULL, w->g->template_};
    rc = one(w, &by, &w->c->conflicts[i].persona, &w->c->conflicts[i].task);
  }
  for (size_t i = 0; i < w->c->n_neutral && rc == PF_OK; i++)
    rc = neutral(w, &w->c->neutral[i]);
  return rc;
}

/* ---- the file
 * -----------------------------------------------------------------------------------------------------
 */

/* What `study --baseline` takes, by key. */
static void baselines(const teller *w) {
  for (size_t i = 0; i < w->c->n_base_personas; i++)
    say(w, "baseline persona %s: %.300s", w->c->base_personas[i].key, w->c->base_personas[i].text);
  for (size_t i = 0; i < w->c->n_base_tasks; i++)
    say(w, "baseline task %s: %.300s", w->c->base_tasks[i].key, w->c->base_tasks[i].text);
}

static void head(const teller *w) {
  const pf_grid *g = w->g;
  const pf_controls *c = w->c;
  say(w, "grid %.100s: %zu personas x %zu tasks = %zu cells", g->name, g->n_personas, g->n_tasks,
      g->n_personas * g->n_tasks);
  say(w, "sha256 %s", g->sha256);
  say(w, "template %.300s", g->template_);
  for (size_t i = 0; i < c->n_paraphrases; i++)
    say(w, "paraphrase %s: %s%.200s%s%.200s", c->paraphrases[i].key,
        c->paraphrases[i].system ? "[system] " : "",
        c->paraphrases[i].system ? c->paraphrases[i].system : "",
        c->paraphrases[i].system ? " [user] " : "", c->paraphrases[i].text);
  for (size_t i = 0; i < c->n_hosts; i++)
    say(w, "host %s: %.300s", c->hosts[i].key, c->hosts[i].text);
  baselines(w);
  say(w, "neutral personas: %zu; conflicting cells: %zu", c->n_neutral, c->n_conflicts);
}

int pf_grid_describe(const char *grid, const pf_tok *t, int32_t max_positions,
                     void (*log)(void *user, const char *line), void *user) {
  pf_grid g = {0};
  pf_controls c = {0};
  int rc = pf_grid_open(&g, grid);
  if (rc == PF_OK)
    rc = pf_controls_open(&c, &g);
  if (rc == PF_OK) {
    teller w = {&g, &c, t, max_positions, log, user};
    head(&w);
    rc = t ? prompts(&w) : PF_OK;
  }
  pf_controls_free(&c);
  pf_grid_free(&g);
  return rc;
}
