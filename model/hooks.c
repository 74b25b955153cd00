/* SPDX-License-Identifier: Apache-2.0
 * The hook points of a model: listing, names and aliases, nearest names for a wrong one. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/internal.h"
#include "model/tap.h"

enum { ALIAS_MAX = 256 };
enum { HEADS_NONE, HEADS_Q, HEADS_KV };
enum { WIDTH_D, WIDTH_Z, WIDTH_KEYS, WIDTH_F, WIDTH_V, WIDTH_ONE };
enum { EXISTS_ANY, EXISTS_POST, EXISTS_CAP };

static const struct hook_row {
  int per_layer, heads, width, exists;
  const char *name, *alias, *alias_gemma2, *alias_qwen2, *shape, *note;
} rows[PF_N_HOOKS] = {
#define PF_HOOK(id, per_layer, heads, width, exists, name, al, al_g, al_q, shape, note)            \
  {per_layer, HEADS_##heads, WIDTH_##width, EXISTS_##exists, name, al, al_g, al_q, shape, note},
#include "model/hooks.def"
#undef PF_HOOK
};

bool pf_hook_over_keys(int hook) {
  return rows[hook].width == WIDTH_KEYS;
}

static bool exists(const pf_config *c, const struct hook_row *r) {
  return r->exists == EXISTS_ANY || (r->exists == EXISTS_POST && c->post_norms) ||
         (r->exists == EXISTS_CAP && c->info.final_softcap > 0);
}

static int32_t width_of(const pf_model_info *i, int width) {
  switch (width) {
  case WIDTH_D:
    return i->d_model;
  case WIDTH_Z:
    return i->d_head;
  case WIDTH_F:
    return i->d_ff;
  case WIDTH_V:
    return i->vocab_size;
  case WIDTH_KEYS:
    return -1;
  default:
    return 1;
  }
}

static const char *arch_alias(const pf_config *c, const struct hook_row *r) {
  return c->arch == PF_GEMMA2 ? r->alias_gemma2 : r->alias_qwen2;
}

/* "%N" becomes the number of layers. */
static void spell_aliases(const char *from, int32_t layers, char *out, size_t size) {
  size_t n = 0;
  for (const char *at; (at = strstr(from, "%N")) && n < size; from = at + 2)
    n += (size_t)snprintf(out + n, size - n, "%.*s%d", (int)(at - from), from, (int)layers);
  if (n < size)
    snprintf(out + n, size - n, "%s", from);
}

static void fill(const pf_config *c, int id, pf_hook_info *h, char *alias, size_t size) {
  const struct hook_row *r = &rows[id];
  const char *more = arch_alias(c, r);
  char all[ALIAS_MAX];
  snprintf(all, sizeof all, "%s%s%s", r->alias, *r->alias && *more ? " " : "", more);
  spell_aliases(all, c->info.n_layers, alias, size);
  int32_t heads[] = {0, c->info.n_heads, c->info.n_kv_heads};
  *h = (pf_hook_info){id,           r->name,         alias,
                      r->per_layer, heads[r->heads], width_of(&c->info, r->width),
                      r->shape,     r->note};
}

int pf_hook_table_make(pf_hook_table *t, const pf_config *c) {
  t->list = pf_calloc(PF_N_HOOKS, sizeof *t->list);
  t->alias = pf_calloc(PF_N_HOOKS, ALIAS_MAX);
  if (!t->list || !t->alias)
    return PF_ENOMEM;
  for (int id = 0; id < PF_N_HOOKS; id++)
    if (exists(c, &rows[id])) {
      t->at[id] = (int)t->n;
      fill(c, id, &t->list[t->n], t->alias + t->n * ALIAS_MAX, ALIAS_MAX);
      t->n++;
    } else {
      t->at[id] = -1;
    }
  return PF_OK;
}

void pf_hook_table_free(pf_hook_table *t) {
  pf_free(t->list);
  pf_free(t->alias);
  *t = (pf_hook_table){0};
}

const pf_hook_info *pf_hooks(const pf_model *m, size_t *n) {
  *n = m->hooks.n;
  return m->hooks.list;
}

const pf_hook_info *pf_hook_by_id(const pf_model *m, int id) {
  if (id < 0 || id >= PF_N_HOOKS || m->hooks.at[id] < 0)
    return NULL;
  return &m->hooks.list[m->hooks.at[id]];
}

/* Matches `name` against a pattern in which "%d" stands for a layer number; *layer stays -1 without
 * one. */
static bool match(const char *pattern, size_t n_pattern, const char *name, int32_t *layer) {
  size_t i = 0;
  *layer = -1;
  while (i < n_pattern) {
    if (pattern[i] == '%' && i + 1 < n_pattern && pattern[i + 1] == 'd') {
      if (!isdigit((unsigned char)*name))
        return false;
      long v = 0;
      for (; isdigit((unsigned char)*name); name++)
        v = v < 1000000 ? v * 10 + (*name - '0') : v;
      *layer = (int32_t)v;
      i += 2;
    } else if (pattern[i++] != *name++) {
      return false;
    }
  }
  return *name == '\0';
}

static bool match_any(const char *patterns, const char *name, int32_t *layer) {
  while (*patterns) {
    size_t n = strcspn(patterns, " ");
    if (match(patterns, n, name, layer))
      return true;
    patterns += n + (patterns[n] == ' ');
  }
  return false;
}

/* Levenshtein distance, names cut at 95 characters. */
static unsigned distance(const char *a, const char *b) {
  unsigned row[96];
  size_t nb = strnlen(b, 95);
  for (unsigned j = 0; j <= nb; j++)
    row[j] = j;
  for (unsigned i = 1; a[i - 1] && i < 96; i++) {
    unsigned diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= nb; j++) {
      unsigned keep = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
      best = keep + 1 < best ? keep + 1 : best;
      row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
      diagonal = keep;
    }
  }
  return row[nb];
}

const char *pf_hook_spell(const pf_hook_info *h, int32_t layer, char *buf, size_t size) {
  const char *d = strstr(h->name, "%d");
  char number[16] = "*";
  if (layer >= 0)
    snprintf(number, sizeof number, "%d", (int)layer);
  if (d)
    snprintf(buf, size, "%.*s%s%s", (int)(d - h->name), h->name, number, d + 2);
  else
    snprintf(buf, size, "%s", h->name);
  return buf;
}

/* Layer numbers do not count when names are compared: "12" becomes "%d". *layer: the number, -1 for
 * none. */
static void generalise(const char *name, char *out, size_t size, int32_t *layer) {
  size_t n = 0;
  *layer = -1;
  while (*name && n + 3 < size) {
    if (isdigit((unsigned char)*name) && n > 0 && strchr(".[", out[n - 1])) {
      *layer = strnlen(name, 8) < 8 || !isdigit((unsigned char)name[7]) ? atoi(name) : INT32_MAX;
      out[n++] = '%';
      out[n++] = 'd';
      while (isdigit((unsigned char)*name))
        name++;
    } else {
      out[n++] = *name++;
    }
  }
  out[n] = '\0';
}

static int unknown(const pf_model *m, const char *name) {
  char general[96], spelt[3][96];
  const pf_hook_info *best[3] = {NULL};
  int32_t layer;
  unsigned d[3] = {~0u, ~0u, ~0u};
  generalise(name, general, sizeof general, &layer);
  layer = layer < m->cfg.info.n_layers ? layer : -1;
  for (size_t i = 0; i < m->hooks.n; i++) {
    const pf_hook_info *s = &m->hooks.list[i];
    unsigned x = distance(general, s->name);
    for (int k = 0; k < 3; k++)
      if (x < d[k]) {
        unsigned t = d[k];
        const pf_hook_info *u = best[k];
        d[k] = x, best[k] = s;
        x = t, s = u;
      }
  }
  return pf_fail(
      PF_EUSAGE,
      "no hook point is named '%s'; the nearest are %s, %s, %s ('personaflow hooks' lists all)",
      name, pf_hook_spell(best[0], layer, spelt[0], sizeof *spelt),
      pf_hook_spell(best[1], layer, spelt[1], sizeof *spelt),
      pf_hook_spell(best[2], layer, spelt[2], sizeof *spelt));
}

/* A name of a layer that there is not may still be another point's: hidden_states has one more. */
int pf_hook_find(const pf_model *m, const char *name, int *id, int32_t *layer) {
  bool beyond = false;
  for (size_t i = 0; i < m->hooks.n; i++) {
    const pf_hook_info *h = &m->hooks.list[i];
    if (!match(h->name, strlen(h->name), name, layer) && !match_any(h->aliases, name, layer))
      continue;
    *id = h->id;
    if (!h->per_layer || *layer < m->cfg.info.n_layers)
      return PF_OK;
    beyond = true;
  }
  return beyond ? pf_fail(PF_EUSAGE, "%s: the model has layers 0 to %d", name,
                          m->cfg.info.n_layers - 1)
                : unknown(m, name);
}
