/* SPDX-License-Identifier: Apache-2.0
 * Controls of a grid: reading, checking, neutral personas of a wished length. */
#include "analysis/controls.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* NULL-terminated: keys in a file. */
static const char *const control_keys[] = {"paraphrases", "hosts",     "neutral",
                                           "baselines",   "conflicts", NULL};
enum { ITEMS_MAX = 256, CONTROLS_LIMIT = 1 << 20 };

/* Members of an object, no others; "?" before a name: may be left out. */
static int check_members(const json_t *v, const char *where, const char *const *names) {
  const char *key;
  json_t *m;
  if (!json_is_object(v))
    return pf_fail(PF_EINPUT, "%s is no object", where);
  json_object_foreach((json_t *)v, key, m) {
    size_t i = 0;
    while (names[i] && strcmp(names[i] + (*names[i] == '?'), key) != 0)
      i++;
    if (!names[i])
      return pf_fail(PF_EINPUT, "%s: unknown key \"%s\"", where, key);
  }
  for (size_t i = 0; names[i]; i++)
    if (*names[i] != '?' && !json_object_get(v, names[i]))
      return pf_fail(PF_EINPUT, "%s: the key \"%s\" is missing", where, names[i]);
  return PF_OK;
}

static size_t count_of(const char *text, const char *what) {
  size_t n = 0;
  for (const char *p = text; p && (p = strstr(p, what)); p += strlen(what))
    n++;
  return n;
}

/* {persona} and {task} so many times, and no other brace. */
static int check_places(const char *where, const char *text, size_t personas, size_t tasks) {
  size_t braces = count_of(text, "{"), p = count_of(text, "{persona}"),
         t = count_of(text, "{task}");
  if (p != personas || t != tasks || braces != p + t)
    return pf_fail(PF_EINPUT, "%s: want %s in '%.40s'", where,
                   personas && tasks ? "{persona} once and after it {task} once, no other {"
                   : personas        ? "{persona} once and no other {"
                                     : "{task} once and no other {",
                   text);
  if (personas && tasks && strstr(text, "{task}") < strstr(text, "{persona}"))
    return pf_fail(PF_EINPUT, "%s: want {persona} before {task} in '%.40s'", where, text);
  return PF_OK;
}

typedef int (*take_fn)(const json_t *v, const char *where, void *out);

/* A list of items with distinct keys; size bytes each, its key first. */
static int take_list(const json_t *list, const char *where, take_fn take, size_t size, void **out,
                     size_t *n_out) {
  size_t n = json_array_size(list);
  if (!list)
    return PF_OK;
  if (!json_is_array(list) || n == 0 || n > ITEMS_MAX)
    return pf_fail(PF_EINPUT, "%s: want a list of 1 to %d", where, ITEMS_MAX);
  if (!(*out = pf_calloc(n, size)))
    return PF_ENOMEM;
  *n_out = n;
  for (size_t i = 0; i < n; i++) {
    char here[256];
    const json_t *v = json_array_get(list, i);
    snprintf(here, sizeof here, "%.200s %zu", where, i);
    int rc = take(v, here, (char *)*out + i * size);
    for (size_t k = 0; rc == PF_OK && k < i; k++)
      if (json_equal(json_object_get(json_array_get(list, k), "key"), json_object_get(v, "key")))
        rc = pf_fail(PF_EINPUT, "%s: the key \"%s\" is there twice", where,
                     json_string_value(json_object_get(v, "key")));
    if (rc != PF_OK)
      return rc;
  }
  return PF_OK;
}

static int take_item(const json_t *v, const char *where, void *out) {
  pf_grid_item *item = out;
  int rc = check_members(v, where, (const char *const[]){"key", "text", NULL});
  return rc == PF_OK ? pf_grid_take_item(v, where, item) : rc;
}

#define HOST_KEY(id, key) key,
const char *const pf_host_keys[PF_N_HOSTS] = {PF_HOSTS(HOST_KEY)};

static int take_host(const json_t *v, const char *where, void *out) {
  const pf_grid_item *item = out;
  int rc = take_item(v, where, out);
  for (size_t i = 0; i < PF_N_HOSTS && rc == PF_OK; i++)
    if (!strcmp(item->key, pf_host_keys[i]) && strcmp(item->text, "{task}") != 0)
      rc = pf_fail(PF_EINPUT,
                   "%s: \"%s\" is what the study calls a host of its own: take another key", where,
                   item->key);
  return rc == PF_OK ? check_places(where, item->text, 0, 1) : rc;
}

static int take_paraphrase(const json_t *v, const char *where, void *out) {
  pf_paraphrase *p = out;
  pf_grid_item item;
  int rc = check_members(v, where, (const char *const[]){"key", "text", "?system", NULL});
  if (rc == PF_OK)
    rc = pf_grid_take_item(v, where, &item);
  if (rc != PF_OK)
    return rc;
  const json_t *system = json_object_get(v, "system");
  *p = (pf_paraphrase){item.key, json_string_value(system), item.text};
  if (system)
    rc = pf_grid_check_text(where, "system", p->system);
  if (rc == PF_OK && system)
    rc = check_places(where, p->system, 1, 0);
  return rc == PF_OK ? check_places(where, p->text, system ? 0 : 1, 1) : rc;
}

static int take_neutral(const json_t *v, const char *where, void *out) {
  pf_neutral *p = out;
  int rc = check_members(v, where, (const char *const[]){"key", "clauses", NULL});
  const json_t *list = json_object_get(v, "clauses");
  if (rc == PF_OK)
    rc = pf_grid_check_key(where, json_string_value(json_object_get(v, "key")));
  if (rc != PF_OK)
    return rc;
  p->key = json_string_value(json_object_get(v, "key"));
  size_t n = json_array_size(list);
  if (n == 0 || n > ITEMS_MAX)
    return pf_fail(PF_EINPUT, "%s: \"clauses\": want a list of 1 to %d", where, ITEMS_MAX);
  if (!(p->clauses = pf_calloc(n, sizeof *p->clauses)))
    return PF_ENOMEM;
  for (p->n = 0; p->n < n && rc == PF_OK; p->n++) {
    p->clauses[p->n] = json_string_value(json_array_get(list, p->n));
    rc = pf_grid_check_text(where, "clause", p->clauses[p->n]);
  }
  return rc;
}

static int take_baselines(pf_controls *c, const json_t *v, const char *where) {
  char here[256];
  int rc = v ? check_members(v, where, (const char *const[]){"?personas", "?tasks", NULL}) : PF_OK;
  snprintf(here, sizeof here, "%.200s: persona", where);
  if (rc == PF_OK)
    rc = take_list(json_object_get(v, "personas"), here, take_item, sizeof *c->base_personas,
                   (void **)&c->base_personas, &c->n_base_personas);
  snprintf(here, sizeof here, "%.200s: task", where);
  if (rc == PF_OK)
    rc = take_list(json_object_get(v, "tasks"), here, take_item, sizeof *c->base_tasks,
                   (void **)&c->base_tasks, &c->n_base_tasks);
  return rc;
}

/* ---- conflicts: own texts first, then the grid's ----------------------------------------------
 */

typedef struct texts {
  pf_grid_item *own;
  size_t n_own;
  const pf_grid_item *grid;
  size_t n_grid;
} texts;

static bool find_text(const texts *t, const char *key, pf_grid_item *out) {
  for (size_t i = 0; key && i < t->n_own + t->n_grid; i++) {
    const pf_grid_item *e = i < t->n_own ? &t->own[i] : &t->grid[i - t->n_own];
    if (!strcmp(e->key, key)) {
      *out = *e;
      return true;
    }
  }
  return false;
}

static int take_cells(pf_controls *c, const json_t *list, const char *where, const texts *personas,
                      const texts *tasks) {
  size_t n = json_array_size(list);
  if (n == 0 || n > ITEMS_MAX)
    return pf_fail(PF_EINPUT, "%s: \"cells\": want a list of 1 to %d", where, ITEMS_MAX);
  if (!(c->conflicts = pf_calloc(n, sizeof *c->conflicts)))
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++) {
    const json_t *pair = json_array_get(list, i);
    if (json_array_size(pair) != 2 ||
        !find_text(personas, json_string_value(json_array_get(pair, 0)),
                   &c->conflicts[i].persona) ||
        !find_text(tasks, json_string_value(json_array_get(pair, 1)), &c->conflicts[i].task))
      return pf_fail(PF_EINPUT, "%s: cell %zu: want [persona key, task key] of here or of the grid",
                     where, i);
  }
  c->n_conflicts = n;
  return PF_OK;
}

static int take_conflicts(pf_controls *c, const pf_grid *g, const json_t *v, const char *where) {
  texts personas = {NULL, 0, g->personas, g->n_personas}, tasks = {NULL, 0, g->tasks, g->n_tasks};
  char here[256];
  if (!v)
    return PF_OK;
  int rc = check_members(v, where, (const char *const[]){"?personas", "?tasks", "cells", NULL});
  snprintf(here, sizeof here, "%.200s: persona", where);
  if (rc == PF_OK)
    rc = take_list(json_object_get(v, "personas"), here, take_item, sizeof *personas.own,
                   (void **)&personas.own, &personas.n_own);
  snprintf(here, sizeof here, "%.200s: task", where);
  if (rc == PF_OK)
    rc = take_list(json_object_get(v, "tasks"), here, take_item, sizeof *tasks.own,
                   (void **)&tasks.own, &tasks.n_own);
  if (rc == PF_OK)
    rc = take_cells(c, json_object_get(v, "cells"), where, &personas, &tasks);
  pf_free(personas.own);
  pf_free(tasks.own);
  return rc;
}

/* ---- all
 * ----------------------------------------------------------------------------------------------------------
 */

static int take_all(pf_controls *c, const pf_grid *g, const char *name) {
  char where[256];
#define PF_WHERE(key) (snprintf(where, sizeof where, "%.180s: \"%s\"", name, key), where)
  int rc =
      take_list(json_object_get(c->root, "paraphrases"), PF_WHERE("paraphrases"), take_paraphrase,
                sizeof *c->paraphrases, (void **)&c->paraphrases, &c->n_paraphrases);
  if (rc == PF_OK)
    rc = take_list(json_object_get(c->root, "hosts"), PF_WHERE("hosts"), take_host,
                   sizeof *c->hosts, (void **)&c->hosts, &c->n_hosts);
  if (rc == PF_OK)
    rc = take_list(json_object_get(c->root, "neutral"), PF_WHERE("neutral"), take_neutral,
                   sizeof *c->neutral, (void **)&c->neutral, &c->n_neutral);
  if (rc == PF_OK)
    rc = take_baselines(c, json_object_get(c->root, "baselines"), PF_WHERE("baselines"));
  if (rc == PF_OK)
    rc = take_conflicts(c, g, json_object_get(c->root, "conflicts"), PF_WHERE("conflicts"));
#undef PF_WHERE
  if (rc != PF_OK)
    pf_controls_free(c);
  return rc;
}

static int copy_keys(json_t *to, const json_t *from) {
  int rc = 0;
  for (size_t i = 0; control_keys[i]; i++) {
    json_t *v = json_object_get(from, control_keys[i]);
    rc |= v ? json_object_set(to, control_keys[i], v) : 0;
  }
  return rc ? PF_ENOMEM : PF_OK;
}

int pf_controls_of_grid(pf_controls *out, const pf_grid *g, const char *name) {
  *out = (pf_controls){.root = json_object()};
  int rc = out->root ? copy_keys(out->root, g->root) : PF_ENOMEM;
  return rc == PF_OK ? take_all(out, g, name) : rc;
}

int pf_controls_open(pf_controls *out, const pf_grid *g) {
  char path[4096];
  *out = (pf_controls){0};
  int rc = pf_data_path("grids/controls.json", path, sizeof path);
  if (rc == PF_OK)
    rc = pf_js_file(path, CONTROLS_LIMIT, &out->root);
  if (rc == PF_OK)
    rc = copy_keys(out->root, g->root);
  return rc == PF_OK ? take_all(out, g, path) : rc;
}

void pf_controls_free(pf_controls *c) {
  for (size_t i = 0; i < c->n_neutral; i++)
    pf_free(c->neutral[i].clauses);
  pf_free(c->paraphrases);
  pf_free(c->hosts);
  pf_free(c->neutral);
  pf_free(c->base_personas);
  pf_free(c->base_tasks);
  pf_free(c->conflicts);
  json_decref(c->root);
  *c = (pf_controls){0};
}

/* ---- neutral personas
 * ---------------------------------------------------------------------------------------------
 */

static size_t all_words(const pf_neutral *c) {
  size_t n = 0;
  for (size_t i = 0; i < c->n; i++)
    n += 1 + count_of(c->clauses[i], " ");
  return n;
}

char *pf_neutral_text(const pf_neutral *c, size_t words) {
  pf_buf b = {0};
  for (size_t i = 0; i < c->n && words > 0; i++) {
    const char *s = c->clauses[i], *end = s;
    for (; words > 0 && *end; words--) {
      end += *end == ' ';
      end += strcspn(end, " ");
    }
    pf_buf_puts(&b, i ? ", " : "");
    pf_buf_add(&b, s, (size_t)(end - s));
  }
  char *text;
  (void)pf_buf_take(&b, &text);
  return text;
}

static int fit_tokens(const pf_neutral *c, const pf_tok *t, const char *template_, const char *task,
                      size_t words, char **text, int32_t *n) {
  pf_role_prompt p = {0};
  *text = pf_neutral_text(c, words);
  int rc = *text ? pf_role_prompt_make(t, template_, *text, task, &p) : PF_ENOMEM;
  *n = p.persona.hi - p.persona.lo;
  pf_role_prompt_free(&p);
  return rc;
}

/* More words are more tokens, so the first length beyond the wish ends the search. */
int pf_neutral_fit(const pf_neutral *c, const pf_tok *t, const char *template_, const char *task,
                   int32_t want, char **text, int32_t *got) {
  int rc = PF_OK;
  *text = NULL;
  *got = 0;
  for (size_t words = 1, n = all_words(c); words <= n && rc == PF_OK && *got < want; words++) {
    char *longer;
    int32_t k;
    rc = fit_tokens(c, t, template_, task, words, &longer, &k);
    bool take = rc == PF_OK && (k <= want || !*text);
    if (take) {
      pf_free(*text);
      *text = longer;
      *got = k;
    } else {
      pf_free(longer);
      break;
    }
  }
  if (rc != PF_OK) {
    pf_free(*text);
    *text = NULL;
  }
  return rc;
}
