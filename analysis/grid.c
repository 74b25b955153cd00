/* SPDX-License-Identifier: Apache-2.0
 * Grid files: reading, checking, layer lists. */
#include "analysis/grid.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/controls.h"
#include "analysis/markers.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"

const char *const pf_probe_names[PF_N_PROBES] = {"p_user_last", "p_last", "g1", "g2"};

enum { GRID_LIMIT = 16 << 20, ITEMS_MAX = 4096 };

static const struct {
  const char *name;
  json_type type;
  bool needed;
} keys[] = {
    {"schema", JSON_STRING, true},       {"name", JSON_STRING, true},
    {"description", JSON_STRING, false}, {"template", JSON_STRING, true},
    {"baseline", JSON_OBJECT, true},     {"personas", JSON_ARRAY, true},
    {"tasks", JSON_ARRAY, true},         {"layers", JSON_OBJECT, false},
    {"probes", JSON_ARRAY, false},       {"held_out", JSON_ARRAY, false},
    {"paraphrases", JSON_ARRAY, false},  {"hosts", JSON_ARRAY, false},
    {"neutral", JSON_ARRAY, false},      {"baselines", JSON_OBJECT, false},
    {"conflicts", JSON_OBJECT, false},   {"answer_tasks", JSON_ARRAY, false},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* Before the keys: those of another kind of file would only puzzle. */
static int check_schema(const json_t *root, const char *name) {
  const char *schema = json_string_value(json_object_get(root, "schema"));
  if (!json_is_object(root))
    return pf_fail(PF_EINPUT, "%s: a grid file holds one JSON object", name);
  if (!schema || !strcmp(schema, "personaflow-grid/1"))
    return PF_OK;
  return pf_fail(
      PF_EINPUT, "%s: schema \"%s\": this version reads \"personaflow-grid/1\"%s", name, schema,
      strncmp(schema, "personaflow-markers/", 20) ? "" : "; study --markers takes this file");
}

/* All of them in one line: who writes a file by hand mends it once. */
static int check_needed(const json_t *root, const char *name) {
  pf_buf list = {0};
  size_t n = 0;
  for (size_t i = 0; i < N_KEYS; i++)
    if (keys[i].needed && !json_object_get(root, keys[i].name))
      pf_buf_printf(&list, "%s\"%s\"", n++ ? ", " : "", keys[i].name);
  int rc = pf_buf_status(&list);
  if (rc == PF_OK && n)
    rc = pf_fail(PF_EINPUT, "%s: the key%s %s %s missing", name, n > 1 ? "s" : "",
                 pf_buf_str(&list), n > 1 ? "are" : "is");
  pf_buf_free(&list);
  return rc;
}

static int check_keys(const json_t *root, const char *name) {
  int rc = check_needed(root, name);
  if (rc != PF_OK)
    return rc;
  for (size_t i = 0; i < N_KEYS; i++) {
    const json_t *v = json_object_get(root, keys[i].name);
    if (v && json_typeof(v) != keys[i].type)
      return pf_fail(PF_EINPUT, "%s: \"%s\" has the wrong type", name, keys[i].name);
  }
  for (void *it = json_object_iter((json_t *)root); it;
       it = json_object_iter_next((json_t *)root, it)) {
    size_t i = 0;
    while (i < N_KEYS && strcmp(keys[i].name, json_object_iter_key(it)) != 0)
      i++;
    if (i == N_KEYS)
      return pf_fail(PF_EINPUT, "%s: unknown key \"%s\"", name, json_object_iter_key(it));
  }
  return PF_OK;
}

/* A text that a chat template would trim, or that is empty, would make other tokens than it seems
 * to. */
int pf_grid_check_text(const char *where, const char *key, const char *s) {
  if (!s || !*s)
    return pf_fail(PF_EINPUT, "%s \"%s\": the text is missing or empty", where, key);
  if (isspace((unsigned char)s[0]) || isspace((unsigned char)s[strlen(s) - 1]))
    return pf_fail(PF_EINPUT, "%s \"%s\": the text begins or ends with white space", where, key);
  return PF_OK;
}

int pf_grid_check_key(const char *where, const char *key) {
  size_t n = key ? strlen(key) : 0;
  if (!key)
    return pf_fail(PF_EINPUT, "%s: the key \"key\" is missing", where);
  for (size_t k = 0; k < n; k++)
    if (!isalnum((unsigned char)key[k]) && key[k] != '-' && key[k] != '_')
      n = 0;
  if (n == 0 || n > 64 || key[0] == '_' || strstr(key, "__"))
    return pf_fail(PF_EINPUT, "%s: a key is 1 to 64 letters, digits, - or single _", where);
  return PF_OK;
}

int pf_grid_take_item(const json_t *e, const char *where, pf_grid_item *out) {
  out->key = json_string_value(json_object_get(e, "key"));
  out->text = json_string_value(json_object_get(e, "text"));
  int rc = pf_grid_check_key(where, out->key);
  return rc == PF_OK ? pf_grid_check_text(where, out->key, out->text) : rc;
}

static int take_item(const char *name, const char *what, const json_t *e, size_t i,
                     pf_grid_item *out) {
  char where[256];
  const json_t *markers = json_object_get(e, "markers");
  snprintf(where, sizeof where, "%.180s: %s %zu", name, what, i);
  int rc = pf_grid_take_item(e, where, out);
  return rc == PF_OK && markers ? pf_markers_check(markers, where) : rc;
}

static int take_items(const char *name, const char *what, const json_t *list, pf_grid_item **out,
                      size_t *n_out) {
  size_t n = json_array_size(list);
  if (n == 0 || n > ITEMS_MAX)
    return pf_fail(PF_EINPUT, "%s: want 1 to %d %ss, not %zu", name, ITEMS_MAX, what, n);
  pf_grid_item *items = *out = pf_calloc(n, sizeof *items);
  if (!items)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++) {
    int rc = take_item(name, what, json_array_get(list, i), i, &items[i]);
    if (rc != PF_OK)
      return rc;
    for (size_t k = 0; k < i; k++)
      if (!strcmp(items[k].key, items[i].key))
        return pf_fail(PF_EINPUT, "%s: two %ss have the key \"%s\"", name, what, items[i].key);
  }
  *n_out = n;
  return PF_OK;
}

static const char *const placeholders[] = {"{persona}", "{task}"};

static int check_template(const char *name, const char *t) {
  size_t seen[2] = {0, 0};
  for (const char *p = strchr(t, '{'); p; p = strchr(p + 1, '{')) {
    size_t k = 0;
    while (k < 2 && strncmp(p, placeholders[k], strlen(placeholders[k])) != 0)
      k++;
    if (k == 2)
      return pf_fail(
          PF_EINPUT,
          "%s: unknown placeholder in the template at '%.20s': there are {persona} and {task}",
          name, p);
    seen[k]++;
  }
  for (size_t k = 0; k < 2; k++)
    if (seen[k] != 1)
      return pf_fail(PF_EINPUT, "%s: the template wants %s once, it is there %zu times", name,
                     placeholders[k], seen[k]);
  if (strstr(t, placeholders[1]) < strstr(t, placeholders[0]))
    return pf_fail(PF_EINPUT, "%s: the template wants {persona} before {task}", name);
  char where[256];
  snprintf(where, sizeof where, "%.180s: template", name);
  return pf_grid_check_text(where, t, t);
}

static int take_probes(pf_grid *g, const char *name, const json_t *list) {
  if (list && json_array_size(list) == 0)
    return pf_fail(PF_EINPUT, "%s: the list of probes is empty", name);
  bool on[PF_N_PROBES] = {false};
  for (size_t i = 0; i < json_array_size(list); i++) {
    const char *s = json_string_value(json_array_get(list, i));
    size_t k = 0;
    while (k < PF_N_PROBES && (!s || strcmp(s, pf_probe_names[k]) != 0))
      k++;
    if (k == PF_N_PROBES)
      return pf_fail(PF_EINPUT,
                     "%s: unknown probe \"%s\": there are p_user_last, p_last, g1 and g2", name,
                     s ? s : "?");
    if (on[k])
      return pf_fail(PF_EINPUT, "%s: the probe \"%s\" is there twice", name, s);
    on[k] = true;
  }
  for (size_t k = 0; k < PF_N_PROBES; k++)
    if (!list || on[k])
      g->probes[g->n_probes++] = (pf_probe)k;
  return PF_OK;
}

static int check_layers(const char *name, const json_t *sets) {
  const char *key;
  json_t *list;
  json_object_foreach((json_t *)sets, key, list) {
    char *end;
    long n = strtol(key, &end, 10), before = -1;
    if (*end || end == key || n < 1 || n > 10000 || json_array_size(list) == 0)
      return pf_fail(PF_EINPUT, "%s: layers: want {\"number of layers\": [layer, ...]}, not \"%s\"",
                     name, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
      const json_t *v = json_array_get(list, i);
      if (!json_is_integer(v) || json_integer_value(v) <= before || json_integer_value(v) >= n)
        return pf_fail(PF_EINPUT, "%s: layers of \"%s\": want ascending numbers from 0 to %ld",
                       name, key, n - 1);
      before = (long)json_integer_value(v);
    }
  }
  return PF_OK;
}

/* n if the key is not there. */
static size_t find(const pf_grid_item *items, size_t n, const char *key) {
  size_t i = key ? 0 : n;
  while (i < n && strcmp(items[i].key, key) != 0)
    i++;
  return i;
}

int pf_grid_answered(pf_grid *g) {
  const json_t *list = json_object_get(g->root, "answer_tasks"), *v;
  size_t i;
  pf_free(g->answered);
  g->answered = pf_calloc(g->n_tasks, sizeof *g->answered);
  for (size_t t = 0; g->answered && t < g->n_tasks; t++)
    g->answered[t] = !list;
  json_array_foreach(list, i, v) {
    size_t at = find(g->tasks, g->n_tasks, json_string_value(v));
    if (g->answered && at < g->n_tasks)
      g->answered[at] = true;
  }
  return g->answered ? PF_OK : PF_ENOMEM;
}

static int take_answered(pf_grid *g, const char *name, const json_t *list) {
  const json_t *v;
  size_t i;
  json_array_foreach(list, i, v) {
    const char *key = json_string_value(v);
    if (find(g->tasks, g->n_tasks, key) == g->n_tasks)
      return pf_fail(PF_EINPUT, "%s: answer_tasks: this grid has no task \"%s\"", name,
                     key ? key : "?");
  }
  return pf_grid_answered(g);
}

static int check_held_out(const pf_grid *g, const char *name, const json_t *list) {
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *pair = json_array_get(list, i);
    const char *p = json_string_value(json_array_get(pair, 0)),
               *t = json_string_value(json_array_get(pair, 1));
    if (json_array_size(pair) != 2 || find(g->personas, g->n_personas, p) == g->n_personas ||
        find(g->tasks, g->n_tasks, t) == g->n_tasks)
      return pf_fail(PF_EINPUT, "%s: held_out %zu: want [persona key, task key] of this grid", name,
                     i);
  }
  return PF_OK;
}

static int check_controls(const pf_grid *g, const char *name) {
  pf_controls c;
  int rc = pf_controls_of_grid(&c, g, name);
  pf_controls_free(&c);
  return rc;
}

static int take_head(pf_grid *g, const char *name) {
  const json_t *b = json_object_get(g->root, "baseline");
  g->name = json_string_value(json_object_get(g->root, "name"));
  g->description = json_string_value(json_object_get(g->root, "description"));
  g->template_ = json_string_value(json_object_get(g->root, "template"));
  g->base.key = json_string_value(json_object_get(b, "persona"));
  g->base.text = json_string_value(json_object_get(b, "task"));
  if (!g->description)
    g->description = "";
  char where[256];
  snprintf(where, sizeof where, "%.180s: baseline", name);
  int rc = *g->name ? PF_OK : pf_fail(PF_EINPUT, "%s: the key \"name\" wants a text", name);
  if (rc == PF_OK)
    rc = pf_grid_check_text(where, "persona", g->base.key);
  if (rc == PF_OK)
    rc = pf_grid_check_text(where, "task", g->base.text);
  return rc == PF_OK ? check_template(name, g->template_) : rc;
}

static int take_all(pf_grid *g, const char *name) {
  int rc = check_schema(g->root, name);
  if (rc == PF_OK)
    rc = check_keys(g->root, name);
  if (rc == PF_OK)
    rc = take_head(g, name);
  if (rc == PF_OK)
    rc = take_items(name, "persona", json_object_get(g->root, "personas"), &g->personas,
                    &g->n_personas);
  if (rc == PF_OK)
    rc = take_items(name, "task", json_object_get(g->root, "tasks"), &g->tasks, &g->n_tasks);
  if (rc == PF_OK)
    rc = take_answered(g, name, json_object_get(g->root, "answer_tasks"));
  if (rc == PF_OK)
    rc = take_probes(g, name, json_object_get(g->root, "probes"));
  if (rc == PF_OK)
    rc = check_layers(name, json_object_get(g->root, "layers"));
  if (rc == PF_OK)
    rc = check_held_out(g, name, json_object_get(g->root, "held_out"));
  return rc == PF_OK ? check_controls(g, name) : rc;
}

int pf_grid_parse(pf_grid *out, const char *name, const char *text, size_t n) {
  *out = (pf_grid){0};
  int rc = pf_js_text(name, text, n, &out->root);
  if (rc == PF_OK)
    rc = take_all(out, name);
  if (rc != PF_OK)
    pf_grid_free(out);
  else
    pf_sha256_hex(text, n, out->sha256);
  return rc;
}

static const struct {
  const char *word, *file;
} shipped[] = {{"short", "paper-short"}, {"long", "paper-long"}};

static int shipped_path(const char *what, char *buf, size_t size) {
  char name[128];
  for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++)
    if (!strcmp(what, shipped[i].word))
      what = shipped[i].file;
  snprintf(name, sizeof name, "grids/%.100s.json", what);
  return pf_data_path(name, buf, size);
}

int pf_grid_open(pf_grid *out, const char *what) {
  char path[4096];
  pf_buf b;
  *out = (pf_grid){0};
  bool word = *what && !strpbrk(what, "/."), input = !strcmp(what, "-");
  int rc = word && !input ? shipped_path(what, path, sizeof path) : PF_OK;
  if (rc != PF_OK)
    return pf_fail_prefix(rc, "grid '%s' (shipped: short, long, demo; or a file's path)", what);
  const char *name = input ? "standard input" : word ? path : what;
  rc = input ? pf_read_stdin(GRID_LIMIT, &b) : pf_read_file(name, GRID_LIMIT, &b);
  if (rc == PF_OK)
    rc = pf_grid_parse(out, name, pf_buf_str(&b), b.n);
  pf_buf_free(&b);
  return rc;
}

void pf_grid_free(pf_grid *g) {
  json_decref(g->root);
  pf_free(g->personas);
  pf_free(g->tasks);
  pf_free(g->answered);
  *g = (pf_grid){0};
}

bool pf_grid_held_out(const pf_grid *g, size_t persona, size_t task) {
  const json_t *list = json_object_get(g->root, "held_out");
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *pair = json_array_get(list, i);
    if (!strcmp(json_string_value(json_array_get(pair, 0)), g->personas[persona].key) &&
        !strcmp(json_string_value(json_array_get(pair, 1)), g->tasks[task].key))
      return true;
  }
  return false;
}

/* ---- layers
 * -------------------------------------------------------------------------------------------------------
 */

static int push_range(const char *list, long lo, long hi, int32_t n_layers, pf_ids *out) {
  if (hi < lo)
    return pf_fail(PF_EUSAGE, "layers '%s': %ld-%ld runs backwards: write %ld-%ld", list, lo, hi,
                   hi, lo);
  if (lo < 0 || hi >= n_layers)
    return pf_fail(PF_EUSAGE, "layers '%s': this model has the layers 0 to %d", list, n_layers - 1);
  int rc = PF_OK;
  for (long l = lo; l <= hi && rc == PF_OK; l++)
    rc = pf_ids_push(out, (int32_t)l);
  return rc;
}

static int parse_layers(const char *list, int32_t n_layers, pf_ids *out) {
  if (!strcmp(list, "all"))
    return push_range(list, 0, n_layers - 1, n_layers, out);
  for (const char *p = list;; p++) {
    char *end;
    errno = 0;
    long lo = strtol(p, &end, 10), hi = lo;
    bool bad = end == p || !isdigit((unsigned char)*p);
    if (!bad && *end == '-') {
      p = end + 1;
      hi = strtol(p, &end, 10);
      bad = end == p || !isdigit((unsigned char)*p);
    }
    if (bad || errno || (*end && *end != ','))
      return pf_fail(PF_EUSAGE, "layers '%s': want a list such as 3,5,8-10, or all", list);
    int rc = push_range(list, lo, hi, n_layers, out);
    if (rc != PF_OK || !*end)
      return rc;
    p = end;
  }
}

static int ascending(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

static void sort_unique(pf_ids *v) {
  size_t k = 0;
  if (v->n)
    qsort(v->v, v->n, sizeof *v->v, ascending);
  for (size_t i = 0; i < v->n; i++)
    if (k == 0 || v->v[k - 1] != v->v[i])
      v->v[k++] = v->v[i];
  v->n = k;
}

/* round(L f), half to even, kept within 1 .. L-1 (0 for a single layer), as the paper's script
 * does. */
static int paper_layers(int32_t n_layers, pf_ids *out) {
  static const double fractions[] = {.25, .40, .55, .70, .85};
  int rc = PF_OK;
  for (size_t i = 0; i < sizeof fractions / sizeof *fractions && rc == PF_OK; i++) {
    int32_t l = (int32_t)rint(n_layers * fractions[i]);
    l = l < 1 ? 1 : l;
    rc = pf_ids_push(out, l > n_layers - 1 ? n_layers - 1 : l);
  }
  return rc;
}

int pf_grid_layers(const pf_grid *g, const char *list, int32_t n_layers, pf_ids *out) {
  char key[16];
  int rc = PF_OK;
  snprintf(key, sizeof key, "%d", n_layers);
  const json_t *own = json_object_get(json_object_get(g->root, "layers"), key);
  *out = (pf_ids){0};
  if (list)
    rc = parse_layers(list, n_layers, out);
  else if (!own)
    rc = paper_layers(n_layers, out);
  for (size_t i = 0; !list && i < json_array_size(own) && rc == PF_OK; i++)
    rc = pf_ids_push(out, (int32_t)json_integer_value(json_array_get(own, i)));
  sort_unique(out);
  if (rc != PF_OK)
    pf_ids_free(out);
  return rc;
}
