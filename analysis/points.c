/* SPDX-License-Identifier: Apache-2.0
 * The hook points that a snapshot records, in order of execution. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/snapshot.h"
#include "base/mem.h"
#include "base/status.h"

/* Points before the layers, the layers', points after them. */
static int64_t stage_of(const pf_hook_info *list, const pf_hook_info *h, int32_t layer) {
  if (h->per_layer)
    return layer;
  for (const pf_hook_info *p = list; p < h; p++)
    if (p->per_layer)
      return INT32_MAX;
  return -1;
}

/* qsort has no context argument */
static _Thread_local const pf_hook_info *order_list;

static int by_execution(const void *a, const void *b) {
  const pf_at *x = a, *y = b;
  int64_t i = stage_of(order_list, x->hook, x->layer), j = stage_of(order_list, y->hook, y->layer);
  if (i != j)
    return i < j ? -1 : 1;
  return (x->hook > y->hook) - (x->hook < y->hook);
}

static int add(pf_points *p, const pf_hook_info *h, int32_t layer) {
  for (size_t i = 0; i < p->n; i++)
    if (p->v[i].hook == h && p->v[i].layer == layer)
      return PF_OK;
  if (pf_grow((void **)&p->v, &p->cap, p->n + 1, sizeof *p->v) != PF_OK)
    return PF_ENOMEM;
  pf_at *a = &p->v[p->n++];
  *a = (pf_at){.hook = h,
               .layer = layer,
               .heads = h->heads ? (size_t)h->heads : 1,
               .width = h->width < 0 ? 0 : (size_t)h->width};
  pf_hook_spell(h, layer, a->name, sizeof a->name);
  return PF_OK;
}

static int add_spelt(pf_points *p, const pf_model *m, const char *name) {
  int id;
  int32_t layer;
  size_t n;
  const pf_hook_info *h = pf_hooks(m, &n);
  int rc = pf_hook_find(m, name, &id, &layer);
  if (rc != PF_OK)
    return rc;
  while (h->id != id)
    h++;
  return add(p, h, layer);
}

static int add_starred(pf_points *p, const pf_model *m, const char *name) {
  const char *star = strchr(name, '*');
  char one[256];
  if (!star)
    return add_spelt(p, m, name);
  int rc = PF_OK, id;
  int32_t layers = pf_model_get_info(m)->n_layers, layer;
  for (int32_t l = 0; rc == PF_OK && l <= layers; l++) {
    snprintf(one, sizeof one, "%.*s%d%s", (int)(star - name), name, (int)l, star + 1);
    if (l < layers || pf_hook_find(m, one, &id, &layer) == PF_OK) /* hidden_states has one more */
      rc = add_spelt(p, m, one);
  }
  return rc;
}

static int add_all(pf_points *p, const pf_model *m) {
  size_t n;
  const pf_hook_info *h = pf_hooks(m, &n);
  int rc = PF_OK;
  for (size_t i = 0; i < n; i++)
    for (int32_t l = 0; rc == PF_OK && l < (h[i].per_layer ? pf_model_get_info(m)->n_layers : 1);
         l++)
      if (!strstr(h[i].name, "hook_result"))
        rc = add(p, &h[i], h[i].per_layer ? l : -1);
  return rc;
}

#define BETWEEN ", \t\n" /* names */

static int add_list(pf_points *p, const pf_model *m, const char *list) {
  char *copy = pf_strdup(list), *save = NULL;
  int rc = copy ? PF_OK : PF_ENOMEM;
  for (char *name = copy ? strtok_r(copy, BETWEEN, &save) : NULL; rc == PF_OK && name;
       name = strtok_r(NULL, BETWEEN, &save))
    rc = strcmp(name, "all") ? add_starred(p, m, name) : add_all(p, m);
  pf_free(copy);
  return rc;
}

static int finish(pf_points *p, const pf_model *m, int rc) {
  size_t n;
  if (rc == PF_OK)
    rc = add_spelt(p, m, "unembed.hook_out");
  order_list = pf_hooks(m, &n);
  if (rc == PF_OK)
    qsort(p->v, p->n, sizeof *p->v, by_execution);
  else
    pf_points_free(p);
  return rc;
}

int pf_points_make(pf_points *out, const pf_model *m, const char *list) {
  *out = (pf_points){0};
  return finish(out, m, list ? add_list(out, m, list) : add_all(out, m));
}

int pf_points_named(pf_points *out, const pf_model *m, const json_t *names) {
  *out = (pf_points){0};
  int rc = PF_OK;
  for (size_t i = 0; rc == PF_OK && i < json_array_size(names); i++) {
    const char *s = json_string_value(json_array_get(names, i));
    rc = s ? add_spelt(out, m, s) : pf_fail(PF_EINPUT, "a hook point's name is no text");
  }
  return finish(out, m, rc);
}

int pf_points_add(pf_points *p, const pf_model *m, const char *name) {
  return finish(p, m, add_spelt(p, m, name));
}

ptrdiff_t pf_points_find(const pf_points *p, const char *name) {
  for (size_t i = 0; i < p->n; i++)
    if (!strcmp(p->v[i].name, name))
      return (ptrdiff_t)i;
  return -1;
}

json_t *pf_points_names(const pf_points *p) {
  json_t *list = json_array();
  for (size_t i = 0; i < p->n; i++)
    json_array_append_new(list, json_string(p->v[i].name));
  return list;
}

void pf_points_free(pf_points *p) {
  pf_free(p->v);
  *p = (pf_points){0};
}
