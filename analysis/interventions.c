/* SPDX-License-Identifier: Apache-2.0
 * Intervention files (doc/INTERVENTIONS.md): read and checked against a model once, bound to a
 * prompt and a sequence as taps, cuts and swaps. */
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/sourcerows.h"
#include "analysis/tensorfile.h"
#include "base/buf.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "personaflow/analysis.h"

enum { FILE_LIMIT = 64 << 20 };

typedef enum iv_op { IV_REPLACE, IV_ADD, IV_SCALE, IV_ZERO, IV_KNOCKOUT, IV_SWAP, N_IV_OPS } iv_op;

static const struct op_row {
  const char *name;
  pf_op tap;
  bool source, scale, hook; /* needs a source; takes a scale; acts at a hook point */
} ops[N_IV_OPS] = {
    {"replace", PF_OP_REPLACE, true, true, true},  {"add", PF_OP_ADD, true, true, true},
    {"scale", PF_OP_SCALE, false, true, true},     {"zero", PF_OP_ZERO, false, false, true},
    {"knockout", PF_OP_ZERO, false, false, false}, {"swap_kv", PF_OP_REPLACE, true, false, false}};

typedef enum phase { PHASE_PROMPT, PHASE_GENERATION, PHASE_ALL, N_PHASES } phase;
static const char *const phases[N_PHASES] = {"prompt", "generation", "all"};

typedef struct item {
  const json_t *js; /* owned by pf_interventions.root */
  iv_op op;
  phase phase;
  bool has_phase, has_scale;
  int hook;
  int32_t *layers, *heads; /* heads: n_heads = 0 means all */
  size_t n_layers, n_heads;
  const char *positions, *queries, *source_positions; /* NULL: default */
  const char *file;                                   /* source file or NULL */
  const json_t *prompt;                               /* source prompt or NULL */
  float scale;
  unsigned what;
  pf_span edge_keys, edge_queries; /* knockout and swap_kv, as bound */
} item;

struct pf_interventions {
  char *name;
  const pf_model *model;
  json_t *root;
  item *items;
  size_t n;
  /* What the last pf_interventions_bind made. */
  pf_tap *taps;
  size_t n_taps, cap_taps;
  size_t *tap_item, cap_tap_item;
  const pf_seq *seq; /* whose rows from `begin` on the actions are for */
  int32_t begin;
  pf_cut *cuts;
  size_t n_cuts, cap_cuts;
  pf_swap *swaps;
  size_t n_swaps, cap_swaps;
  float **values;
  size_t n_values, cap_values;
  pf_seq **seqs;
  size_t n_seqs, cap_seqs;
  pf_buf lines;
  size_t *line_at, n_lines, cap_lines;
};

/* ---- reading
 * ----------------------------------------------------------------------------------------------------
 */

static int bad(const pf_interventions *iv, const item *it, const char *what) {
  return pf_fail(PF_EINPUT, "%s: intervention %td: %s", iv->name, it - iv->items, what);
}

static int where(const pf_interventions *iv, const item *it, int status) {
  return pf_fail_prefix(status == PF_EUSAGE ? PF_EINPUT : status, "%s: intervention %td", iv->name,
                        it - iv->items);
}

static int check_keys(const pf_interventions *iv, const item *it) {
  static const char *const known[] = {
      "site",  "layers", "heads",  "positions", "queries", "source_positions",
      "phase", "op",     "source", "scale",     "what",    "note"};
  const char *key;
  const json_t *v;
  json_object_foreach((json_t *)it->js, key, v) {
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(key, known[i]) != 0)
      i++;
    if (i == sizeof known / sizeof *known)
      return pf_fail(PF_EINPUT, "%s: intervention %td: unknown key '%s'", iv->name, it - iv->items,
                     key);
  }
  return PF_OK;
}

/* An optional text; PF_EINPUT when the key holds something else. */
static int text_of(const pf_interventions *iv, const item *it, const char *key, const char **out) {
  const json_t *v = json_object_get(it->js, key);
  if (v && !json_is_string(v))
    return pf_fail(PF_EINPUT, "%s: intervention %td: \"%s\" must be a text", iv->name,
                   it - iv->items, key);
  *out = v ? json_string_value(v) : NULL;
  return PF_OK;
}

static int index_of(const char *word, const char *const *list, size_t stride, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(word, *(const char *const *)((const char *)list + i * stride)))
      return (int)i;
  return -1;
}

static int read_op(const pf_interventions *iv, item *it) {
  const char *op = NULL, *ph = NULL;
  int rc = text_of(iv, it, "op", &op);
  if (rc == PF_OK)
    rc = text_of(iv, it, "phase", &ph);
  if (rc != PF_OK)
    return rc;
  int o = op ? index_of(op, &ops[0].name, sizeof *ops, N_IV_OPS) : -1;
  int p = ph ? index_of(ph, phases, sizeof *phases, N_PHASES) : PHASE_PROMPT;
  if (o < 0)
    return bad(iv, it, "\"op\" must be replace, add, scale, zero, knockout or swap_kv");
  if (p < 0)
    return bad(iv, it, "\"phase\" must be prompt, generation or all");
  if (ph && o == IV_SWAP)
    return bad(iv, it,
               "swap_kv takes no \"phase\": all queries after its positions see the source");
  it->op = (iv_op)o;
  it->phase = (phase)p;
  it->has_phase = ph != NULL;
  return PF_OK;
}

/* An entry that stands twice would act twice. */
static int check_twice(const pf_interventions *iv, const item *it, const char *key,
                       const int32_t *v, size_t n) {
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < i; k++)
      if (v[i] == v[k])
        return pf_fail(PF_EINPUT, "%s: intervention %td: \"%s\": %d stands there twice", iv->name,
                       it - iv->items, key, (int)v[i]);
  return PF_OK;
}

/* [1,2], "all" or absent: every one of n. */
static int read_list(const pf_interventions *iv, const item *it, const char *key, int32_t n,
                     bool all_by_default, int32_t **out, size_t *n_out) {
  const json_t *v = json_object_get(it->js, key);
  bool all = (!v && all_by_default) || (json_is_string(v) && !strcmp(json_string_value(v), "all"));
  size_t count = all ? (size_t)n : json_array_size(v);
  if (!all && (!json_is_array(v) || count == 0))
    return pf_fail(PF_EINPUT,
                   "%s: intervention %td: \"%s\" must be a list such as [3, 4], or \"all\"",
                   iv->name, it - iv->items, key);
  if (!(*out = pf_alloc(count, sizeof **out)))
    return PF_ENOMEM;
  for (size_t i = 0; i < count; i++) {
    const json_t *e = json_array_get(v, i);
    json_int_t x = all ? (json_int_t)i : json_integer_value(e);
    if (!all && (!json_is_integer(e) || x < 0 || x >= n))
      return pf_fail(PF_EINPUT, "%s: intervention %td: \"%s\": the model has 0 to %d", iv->name,
                     it - iv->items, key, n - 1);
    (*out)[i] = (int32_t)x;
  }
  *n_out = count;
  return all ? PF_OK : check_twice(iv, it, key, *out, count);
}

static const pf_hook_info *hook_info(const pf_model *m, int id) {
  size_t n;
  const pf_hook_info *h = pf_hooks(m, &n);
  while (n-- > 0)
    if (h[n].id == id)
      return &h[n];
  return NULL;
}

/* A hook name, with its layer or with '*' in the layer's place and "layers". */
static int read_site(const pf_interventions *iv, item *it) {
  const char *site = NULL;
  char first[256];
  int32_t layer = -1;
  int rc = text_of(iv, it, "site", &site);
  if (rc != PF_OK || !site)
    return rc != PF_OK ? rc : bad(iv, it, "\"site\" is missing: a hook point's name");
  const char *star = strchr(site, '*');
  snprintf(first, sizeof first, star ? "%.*s0%s" : "%.*s",
           star ? (int)(star - site) : (int)strlen(site), site, star ? star + 1 : "");
  rc = pf_hook_find(iv->model, first, &it->hook, &layer);
  if (rc != PF_OK)
    return where(iv, it, rc);
  if (star)
    return read_list(iv, it, "layers", pf_model_get_info(iv->model)->n_layers, false, &it->layers,
                     &it->n_layers);
  if (json_object_get(it->js, "layers"))
    return bad(iv, it, "\"layers\" needs a '*' in the place of the layer in \"site\"");
  if (!(it->layers = pf_alloc(1, sizeof *it->layers)))
    return PF_ENOMEM;
  it->layers[0] = layer;
  it->n_layers = 1;
  return PF_OK;
}

static int read_heads(const pf_interventions *iv, item *it) {
  const pf_model_info *m = pf_model_get_info(iv->model);
  int32_t n = it->op == IV_SWAP ? m->n_kv_heads : m->n_heads;
  if (ops[it->op].hook)
    n = hook_info(iv->model, it->hook)->heads;
  if (!json_object_get(it->js, "heads"))
    return PF_OK;
  if (n == 0)
    return bad(iv, it, "\"heads\": this hook point has no heads");
  return read_list(iv, it, "heads", n, false, &it->heads, &it->n_heads);
}

static int check_ids(const pf_interventions *iv, const item *it, const json_t *ids) {
  int32_t n = pf_model_get_info(iv->model)->vocab_size;
  const json_t *e;
  size_t i;
  if (!json_is_array(ids) || json_array_size(ids) == 0)
    return bad(iv, it, "\"ids\" must be a non-empty list of token ids");
  json_array_foreach((json_t *)ids, i, e) {
    if (!json_is_integer(e))
      return bad(iv, it, "\"ids\" must be whole numbers");
    if (json_integer_value(e) < 0 || json_integer_value(e) >= n)
      return pf_fail(PF_EINPUT,
                     "%s: intervention %td: \"ids\": %" JSON_INTEGER_FORMAT
                     " is not in the vocabulary (0 to %d)",
                     iv->name, it - iv->items, json_integer_value(e), n - 1);
  }
  return PF_OK;
}

/* {"persona", "task"}, {"task"}, {"prompt"}, {"prompt_raw"} or {"ids"}, and nothing else. */
static int check_prompt(const pf_interventions *iv, const item *it) {
  static const char *const known[] = {"task", "prompt", "prompt_raw", "ids", "persona"};
  enum { WAYS = 4, N = sizeof known / sizeof *known };
  const json_t *v;
  const char *key;
  int ways = 0;
  json_object_foreach((json_t *)it->prompt, key, v) {
    int k = index_of(key, known, sizeof *known, N);
    if (k < 0)
      return pf_fail(PF_EINPUT, "%s: intervention %td: \"source\": unknown key '%s'", iv->name,
                     it - iv->items, key);
    if (strcmp(key, "ids") != 0 && !json_is_string(v))
      return pf_fail(PF_EINPUT, "%s: intervention %td: \"source\": \"%s\" must be a text", iv->name,
                     it - iv->items, key);
    ways += k < WAYS;
  }
  if (ways != 1 || (json_object_get(it->prompt, "persona") && !json_object_get(it->prompt, "task")))
    return bad(iv, it,
               "a source prompt is {\"persona\", \"task\"}, {\"task\"}, {\"prompt\"}, "
               "{\"prompt_raw\"} or {\"ids\"}");
  const json_t *ids = json_object_get(it->prompt, "ids");
  return ids ? check_ids(iv, it, ids) : PF_OK;
}

static int read_source(const pf_interventions *iv, item *it) {
  const json_t *v = json_object_get(it->js, "source"), *s = json_object_get(it->js, "scale");
  it->scale = json_is_number(s) ? (float)json_number_value(s) : 1.0f;
  it->has_scale = s != NULL;
  it->file = json_string_value(v);
  it->prompt = json_is_object(v) ? v : NULL;
  if (!!v != ops[it->op].source || (v && !it->file && !it->prompt))
    return bad(
        iv, it,
        ops[it->op].source
            ? "\"source\" must be a file (\"x.npy\", \"x.safetensors#name\") or a prompt object"
            : "this operation takes no \"source\"");
  if (s && (!json_is_number(s) || !ops[it->op].scale))
    return bad(iv, it, "\"scale\" must be a number, and only replace, add and scale take one");
  if (!isfinite(it->scale))
    return bad(iv, it, "\"scale\" is too large for a float (3.4e38)");
  if (it->op == IV_SCALE && !s)
    return bad(iv, it, "scale needs \"scale\"");
  if (it->op == IV_SWAP && !it->prompt)
    return bad(iv, it, "swap_kv needs a prompt object as \"source\"");
  return it->prompt ? check_prompt(iv, it) : PF_OK;
}

static int read_what(const pf_interventions *iv, item *it) {
  const char *what = NULL;
  int rc = text_of(iv, it, "what", &what);
  if (rc != PF_OK)
    return rc;
  if (what && it->op != IV_SWAP)
    return bad(iv, it, "only swap_kv takes \"what\"");
  it->what = !what || !strcmp(what, "kv") ? PF_SWAP_K | PF_SWAP_V
             : !strcmp(what, "k")         ? PF_SWAP_K
             : !strcmp(what, "v")         ? PF_SWAP_V
                                          : 0;
  return it->what ? PF_OK : bad(iv, it, "\"what\" must be kv, k or v");
}

static int read_places(const pf_interventions *iv, item *it) {
  int rc = text_of(iv, it, "positions", &it->positions);
  if (rc == PF_OK)
    rc = text_of(iv, it, "queries", &it->queries);
  if (rc == PF_OK)
    rc = text_of(iv, it, "source_positions", &it->source_positions);
  if (rc == PF_OK && it->queries && it->op != IV_KNOCKOUT)
    rc = bad(iv, it, "only knockout takes \"queries\"");
  if (rc == PF_OK && it->source_positions && !it->prompt)
    rc = bad(iv, it, "\"source_positions\" needs a prompt as \"source\"");
  if (rc == PF_OK && !it->positions && (it->op == IV_KNOCKOUT || it->op == IV_SWAP))
    rc = bad(iv, it, "\"positions\" (the keys) is missing");
  return rc;
}

static int read_item(const pf_interventions *iv, item *it) {
  if (!json_is_object(it->js))
    return bad(iv, it, "not an object");
  int rc = check_keys(iv, it);
  if (rc == PF_OK)
    rc = read_op(iv, it);
  if (rc == PF_OK && ops[it->op].hook)
    rc = read_site(iv, it);
  else if (rc == PF_OK && json_object_get(it->js, "site"))
    rc = bad(iv, it, "knockout and swap_kv act on attention and take no \"site\"");
  else if (rc == PF_OK)
    rc = read_list(iv, it, "layers", pf_model_get_info(iv->model)->n_layers, true, &it->layers,
                   &it->n_layers);
  if (rc == PF_OK)
    rc = read_heads(iv, it);
  if (rc == PF_OK)
    rc = read_source(iv, it);
  if (rc == PF_OK)
    rc = read_what(iv, it);
  return rc == PF_OK ? read_places(iv, it) : rc;
}

static int check_file_keys(const pf_interventions *iv) {
  static const char *const known[] = {"schema", "interventions", "note"};
  const char *key;
  const json_t *v;
  json_object_foreach(iv->root, key, v) {
    if (index_of(key, known, sizeof *known, sizeof known / sizeof *known) < 0)
      return pf_fail(PF_EINPUT,
                     "%s: unknown key '%s' (a file has \"schema\", \"interventions\" and \"note\")",
                     iv->name, key);
  }
  return PF_OK;
}

static int read_all(pf_interventions *iv) {
  const json_t *schema = json_object_get(iv->root, "schema"),
               *list = json_object_get(iv->root, "interventions");
  if (!json_is_string(schema) ||
      strcmp(json_string_value(schema), "personaflow-interventions/1") != 0)
    return pf_fail(PF_EINPUT, "%s: \"schema\" must be \"personaflow-interventions/1\"", iv->name);
  int rc = check_file_keys(iv);
  if (rc != PF_OK)
    return rc;
  if (!json_is_array(list) || json_array_size(list) == 0)
    return pf_fail(PF_EINPUT, "%s: \"interventions\" must be a non-empty list", iv->name);
  size_t n = json_array_size(list);
  if (!(iv->items = pf_calloc(n, sizeof *iv->items)))
    return PF_ENOMEM;
  iv->n = n;
  for (size_t i = 0; rc == PF_OK && i < n; i++) {
    iv->items[i].js = json_array_get(list, i);
    rc = read_item(iv, &iv->items[i]);
  }
  return rc;
}

static int adopt(pf_interventions **out, const char *name, json_t *root, const pf_model *m) {
  pf_interventions *iv = pf_calloc(1, sizeof *iv);
  *out = NULL;
  if (!iv) {
    json_decref(root);
    return PF_ENOMEM;
  }
  iv->root = root;
  iv->model = m;
  iv->name = pf_strdup(name);
  int rc = iv->name ? read_all(iv) : PF_ENOMEM;
  if (rc == PF_OK)
    *out = iv;
  else
    pf_interventions_free(iv);
  return rc;
}

int pf_interventions_parse(pf_interventions **out, const char *name, const char *text, size_t n,
                           const pf_model *m) {
  PF_FP_PLAIN();
  json_t *root;
  *out = NULL;
  int rc = pf_js_text(name, text, n, &root);
  return rc == PF_OK ? adopt(out, name, root, m) : rc;
}

int pf_interventions_read(pf_interventions **out, const char *path, const pf_model *m) {
  PF_FP_PLAIN();
  pf_buf b;
  *out = NULL;
  if (!path)
    return pf_fail(PF_EUSAGE, "no intervention file was named");
  bool input = !strcmp(path, "-");
  int rc = input ? pf_read_stdin(FILE_LIMIT, &b) : pf_read_file(path, FILE_LIMIT, &b);
  if (rc == PF_OK)
    rc = pf_interventions_parse(out, input ? "standard input" : path, pf_buf_str(&b), b.n, m);
  pf_buf_free(&b);
  return rc;
}

size_t pf_interventions_count(const pf_interventions *iv) {
  return iv->n;
}

/* ---- binding
 * ----------------------------------------------------------------------------------------------------
 */

static void unbind(pf_interventions *iv) {
  for (size_t i = 0; i < iv->n_values; i++)
    pf_free(iv->values[i]);
  for (size_t i = 0; i < iv->n_seqs; i++)
    pf_seq_free(iv->seqs[i]);
  iv->n_taps = iv->n_cuts = iv->n_swaps = iv->n_values = iv->n_seqs = iv->n_lines = 0;
  iv->lines.n = 0;
}

void pf_interventions_free(pf_interventions *iv) {
  if (!iv)
    return;
  unbind(iv);
  for (size_t i = 0; i < iv->n; i++) {
    pf_free(iv->items[i].layers);
    pf_free(iv->items[i].heads);
  }
  void *all[] = {iv->items,  iv->taps, iv->tap_item, iv->cuts, iv->swaps,
                 iv->values, iv->seqs, iv->line_at,  iv->name};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    pf_free(all[i]);
  pf_buf_free(&iv->lines);
  json_decref(iv->root);
  pf_free(iv);
}

/* Appends one element to a list of the bound state; list: address of a pointer of any type. */
static int append(void *list, size_t *n, size_t *cap, const void *e, size_t size) {
  void *p;
  memcpy(&p, list, sizeof p);
  int rc = pf_grow(&p, cap, *n + 1, size);
  if (rc == PF_OK)
    memcpy((char *)p + (*n)++ * size, e, size);
  memcpy(list, &p, sizeof p);
  return rc;
}
#define APPEND(iv, list, n, cap, e) append(&(iv)->list, &(iv)->n, &(iv)->cap, &(e), sizeof(e))

/* Positions of an item in this prompt: its text, cut to its phase. */
static int span_of(const pf_interventions *iv, const item *it, const char *text, phase ph,
                   const pf_spans *s, pf_span *out) {
  pf_span in[N_PHASES] = {{0, s->n_prompt}, {s->n_prompt, INT32_MAX}, {0, INT32_MAX}};
  *out = in[ph];
  if (!text)
    return PF_OK;
  int rc = pf_positions_parse(text, s, out);
  if (rc != PF_OK)
    return where(iv, it, rc);
  out->lo = out->lo > in[ph].lo ? out->lo : in[ph].lo;
  out->hi = out->hi < in[ph].hi ? out->hi : in[ph].hi;
  if (out->hi <= out->lo)
    return pf_fail(PF_EINPUT, "%s: intervention %td: positions '%s' hold nothing of the phase '%s'",
                   iv->name, it - iv->items, text, phases[ph]);
  return PF_OK;
}

/* " layers 0,1"; nothing for an empty list. */
static void line_list(pf_buf *b, const char *what, const int32_t *v, size_t n) {
  for (size_t i = 0; i < n; i++)
    pf_buf_printf(b, "%s%s%s%d", i ? "," : " ", i ? "" : what, i ? "" : " ", (int)v[i]);
}

/* " positions 3..6 (task[0:3])"; text: as the file says it, NULL where it does not. */
static void line_span(pf_buf *b, const char *what, pf_span at, const char *text) {
  pf_buf_printf(b, " %s %d..", what, (int)at.lo);
  if (at.hi != INT32_MAX)
    pf_buf_printf(b, "%d", (int)at.hi - 1);
  if (text)
    pf_buf_printf(b, " (%s)", text);
}

/* " source x.npy", or the prompt as the file has it and where its values come from. */
static void line_source(pf_buf *b, const item *it, const pf_span *from) {
  char *prompt = it->prompt ? json_dumps(it->prompt, JSON_COMPACT) : NULL;
  if (it->file || prompt)
    pf_buf_printf(b, " source %s", it->file ? it->file : prompt);
  if (from)
    line_span(b, "source positions", *from,
              it->source_positions ? it->source_positions : it->positions);
  free(prompt);
}

/* queries: of a knockout, else NULL; from: in a source prompt, else NULL. */
static int add_line(pf_interventions *iv, const item *it, pf_span at, const pf_span *queries,
                    const pf_span *from) {
  static const char *const whats[] = {NULL, "k", "v", "kv"};
  size_t start = iv->lines.n;
  const char *site = json_string_value(json_object_get(it->js, "site"));
  pf_buf_printf(&iv->lines, "%s %s", ops[it->op].name, site ? site : "attention");
  if (it->n_layers && it->layers[0] >= 0) /* -1: a hook point that no layer has */
    line_list(&iv->lines, "layers", it->layers, it->n_layers);
  line_list(&iv->lines, "heads", it->heads, it->n_heads);
  line_span(&iv->lines, "positions", at, it->positions);
  if (queries)
    line_span(&iv->lines, "queries", *queries, it->queries);
  line_source(&iv->lines, it, from);
  if (it->op == IV_SWAP)
    pf_buf_printf(&iv->lines, " what %s", whats[it->what & 3]);
  if (it->has_scale)
    pf_buf_printf(&iv->lines, " scale %.9g", (double)it->scale);
  pf_buf_add(&iv->lines, "", 1); /* lines are kept one after the other, each with its NUL */
  int rc = APPEND(iv, line_at, n_lines, cap_lines, start);
  return rc == PF_OK ? pf_buf_status(&iv->lines) : rc;
}

/* The prompt of a source object (check_prompt has seen it) as ids and spans. */
static int source_ids(const pf_interventions *iv, const item *it, const pf_tok *t, pf_ids *ids,
                      pf_spans *spans) {
  const char *prompt = json_string_value(json_object_get(it->prompt, "prompt"));
  const char *raw = json_string_value(json_object_get(it->prompt, "prompt_raw"));
  const char *task = json_string_value(json_object_get(it->prompt, "task"));
  const char *persona = json_string_value(json_object_get(it->prompt, "persona"));
  const json_t *list = json_object_get(it->prompt, "ids"), *e;
  pf_encoding enc = {0};
  pf_role_prompt role = {0};
  size_t i;
  int rc = PF_OK;
  if (!list && !t)
    return bad(iv, it, "a source prompt given as text needs the model's tokenizer");
  if (task &&
      (rc = pf_role_prompt_make(t, "As {persona}, {task}", persona, task, &role)) == PF_OK) {
    enc = role.enc;
    pf_spans_of(&role, spans);
    role.enc = (pf_encoding){0};
  } else if (prompt) {
    rc = pf_chat_prompt_make(t, &(pf_message){"user", prompt}, 1, 0, &enc, spans);
  } else if (raw) {
    rc = pf_tok_encode(t, raw, strlen(raw), PF_TOK_AUTO_BOS, &enc);
  }
  for (i = 0; rc == PF_OK && i < enc.n; i++)
    rc = pf_ids_push(ids, enc.ids[i]);
  json_array_foreach((json_t *)list, i, e) {
    if (rc == PF_OK)
      rc = pf_ids_push(ids, (int32_t)json_integer_value(e));
  }
  if (rc == PF_OK && !task && !prompt)
    pf_spans_of_tokens(t, ids->v, ids->n, spans);
  pf_encoding_free(&enc);
  pf_role_prompt_free(&role);
  return rc;
}

/* Runs the source prompt on a new sequence with the given taps; the sequence stays with iv. */
static int run_source(pf_interventions *iv, pf_ctx *c, const pf_ids *ids, pf_tap *taps, size_t n,
                      pf_seq **out) {
  pf_seq *s;
  int rc = pf_seq_new(&s, c);
  if (rc == PF_OK)
    rc = APPEND(iv, seqs, n_seqs, cap_seqs, s);
  if (rc != PF_OK) {
    pf_seq_free(s);
    return rc;
  }
  pf_row *rows = pf_alloc(ids->n, sizeof *rows);
  rc = rows ? pf_seq_set_taps(s, taps, n) : PF_ENOMEM;
  for (size_t i = 0; rows && i < ids->n; i++)
    rows[i] = (pf_row){.seq = s, .token = ids->v[i], .pos = (int32_t)i, .out = -1};
  if (rc == PF_OK)
    rc = pf_eval(c, rows, ids->n, NULL);
  if (rc == PF_OK)
    rc = pf_seq_set_taps(s, NULL, 0);
  pf_free(rows);
  *out = s;
  return rc;
}

static int keep_values(pf_interventions *iv, size_t n, float **out) {
  *out = pf_calloc(n, sizeof **out);
  int rc = *out ? APPEND(iv, values, n_values, cap_values, *out) : PF_ENOMEM;
  if (rc != PF_OK)
    pf_free(*out);
  return rc;
}

/* Where an item's values lie: rows of `width` (all selected heads), one row or one a position, for
 * one layer. */
typedef struct operand {
  const float *v;
  size_t stride; /* between positions; 0 = the same row for all */
  size_t head;   /* values a head */
  int32_t n_keys;
} operand;

static size_t heads_used(const pf_interventions *iv, const item *it) {
  int32_t all = hook_info(iv->model, it->hook)->heads;
  return it->n_heads ? it->n_heads : all ? (size_t)all : 1;
}

/* A masked key stays masked, whatever the factor. */
static void scale_values(float *v, size_t n, float f) {
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < n && f != 1.0f; i++)
    if (v[i] != -INFINITY)
      v[i] *= f;
  pf_fp_leave(env);
}

/* The file's name with '*' replaced by the layer. */
static void source_name(const item *it, int32_t layer, char *path, size_t size) {
  const char *star = strchr(it->file, '*');
  if (star)
    snprintf(path, size, "%.*s%d%s", (int)(star - it->file), it->file, (int)layer, star + 1);
  else
    snprintf(path, size, "%s", it->file);
}

static int read_rows(const pf_interventions *iv, const item *it, int32_t layer, pf_span at,
                     pf_tensor *t, bool *one) {
  char path[4096], name[96];
  const pf_hook_info *h = hook_info(iv->model, it->hook);
  pf_rows_want w = {pf_hook_spell(h, layer, name, sizeof name), h->heads ? heads_used(iv, it) : 0,
                    h->width < 0 ? 0 : (size_t)h->width, at};
  source_name(it, layer, path, sizeof path);
  int rc = pf_tensor_read_as(path, strstr(h->name, "hook_attn_scores") != NULL, t);
  return rc == PF_OK ? pf_rows_fit(path, t, &w, one) : rc;
}

/* Rows of one layer from a file, scaled; they stay with iv. */
static int file_operand(pf_interventions *iv, const item *it, int32_t layer, pf_span at,
                        operand *o) {
  const pf_hook_info *h = hook_info(iv->model, it->hook);
  size_t heads = heads_used(iv, it), per_head = h->width < 0 ? (size_t)at.hi : (size_t)h->width;
  pf_tensor t = {0};
  bool one;
  float *v = NULL;
  int rc = read_rows(iv, it, layer, at, &t, &one);
  size_t n = pf_tensor_count(&t);
  rc = rc == PF_OK ? keep_values(iv, n, &v) : where(iv, it, rc);
  if (rc == PF_OK) {
    memcpy(v, t.data, n * sizeof *v);
    scale_values(v, n, it->scale);
    *o = (operand){v, one ? 0 : per_head * heads, per_head, h->width < 0 ? at.hi : 0};
  }
  pf_tensor_free(&t);
  return rc;
}

static int add_tap(pf_interventions *iv, const item *it, pf_tap t) {
  size_t at = (size_t)(it - iv->items), n = iv->n_taps; /* the two lists run in step */
  int rc = append(&iv->tap_item, &n, &iv->cap_tap_item, &at, sizeof at);
  return rc == PF_OK ? APPEND(iv, taps, n_taps, cap_taps, t) : rc;
}

static int add_taps(pf_interventions *iv, const item *it, int32_t layer, pf_span at,
                    const operand *o) {
  pf_tap t = {.hook = it->hook,
              .layer = layer,
              .head = -1,
              .pos_lo = at.lo,
              .pos_hi = at.hi,
              .op = ops[it->op].tap,
              .scale = it->scale,
              .value = o->v,
              .value_stride = o->stride,
              .n_keys = o->n_keys};
  if (!it->n_heads)
    return add_tap(iv, it, t);
  for (size_t i = 0; i < it->n_heads; i++) {
    t.head = it->heads[i];
    t.value = o->v ? o->v + i * o->head : NULL;
    int rc = add_tap(iv, it, t);
    if (rc != PF_OK)
      return rc;
  }
  return PF_OK;
}

/* Captures of a source prompt: per layer (positions, selected heads, width). */
static int prompt_taps(pf_interventions *iv, const item *it, pf_span from, int32_t n_keys,
                       pf_tap **taps, operand *o) {
  const pf_hook_info *h = hook_info(iv->model, it->hook);
  size_t heads = heads_used(iv, it), per_head = h->width >= 0 ? (size_t)h->width : (size_t)n_keys,
         row = heads * per_head;
  size_t positions = (size_t)(from.hi - from.lo), parts = it->n_heads ? it->n_heads : 1;
  float *v;
  int rc = keep_values(iv, it->n_layers * positions * row, &v);
  if (rc != PF_OK)
    return rc;
  if (!(*taps = pf_calloc(it->n_layers * parts, sizeof **taps)))
    return PF_ENOMEM;
  for (size_t l = 0; l < it->n_layers; l++)
    for (size_t p = 0; p < parts; p++)
      (*taps)[l * parts + p] = (pf_tap){.hook = it->hook,
                                        .layer = it->layers[l],
                                        .head = it->n_heads ? it->heads[p] : -1,
                                        .pos_lo = from.lo,
                                        .pos_hi = from.hi,
                                        .op = PF_OP_CAPTURE,
                                        .out = v + l * positions * row + p * per_head,
                                        .out_stride = row,
                                        .n_keys = h->width < 0 ? n_keys : 0};
  *o = (operand){v, positions == 1 ? 0 : row, per_head, h->width < 0 ? n_keys : 0};
  return PF_OK;
}

/* A text of positions in the source prompt, of which all must be there. */
static int source_place(const char *text, const pf_spans *s, pf_span *from) {
  int rc = PF_OK;
  *from = (pf_span){0, s->n_prompt};
  if (text)
    rc = pf_positions_parse(text, s, from);
  if (rc == PF_OK && from->hi == INT32_MAX && from->lo < s->n_prompt) /* "3:" */
    from->hi = s->n_prompt;
  if (rc == PF_OK && from->hi > s->n_prompt)
    rc = pf_fail(PF_EINPUT, "position '%s' goes beyond them", text);
  return rc == PF_OK ? rc : pf_fail_prefix(rc, "the source prompt has %d tokens", (int)s->n_prompt);
}

/* The source prompt's span; it must have as many positions as the target, or one. */
static int source_span(const pf_interventions *iv, const item *it, const pf_spans *s, pf_span at,
                       pf_span *from) {
  int rc = source_place(it->source_positions ? it->source_positions : it->positions, s, from);
  if (rc != PF_OK)
    return where(iv, it, rc);
  int32_t n = from->hi - from->lo;
  if (n == 1 || (at.hi != INT32_MAX && n == at.hi - at.lo))
    return PF_OK;
  if (at.hi == INT32_MAX)
    return pf_fail(PF_EINPUT,
                   "%s: intervention %td: positions %d.. have no end, and the source prompt gives "
                   "%d: one is wanted (\"source_positions\", such as \"p_last\")",
                   iv->name, it - iv->items, (int)at.lo, (int)n);
  return pf_fail(
      PF_EINPUT,
      "%s: intervention %td: %d source positions for %d positions (one, or as many, are wanted)",
      iv->name, it - iv->items, (int)n, (int)(at.hi - at.lo));
}

/* Over keys a row has as many as its position: rows go to the positions that they come from. */
static int check_source_keys(const pf_interventions *iv, const item *it, pf_span at, pf_span from) {
  const pf_hook_info *h = hook_info(iv->model, it->hook);
  int32_t last = at.hi == from.hi ? at.lo : at.hi - 1,
          source = at.hi == from.hi ? from.lo : from.hi - 1;
  char name[96];
  if (h->width >= 0 || (at.lo == from.lo && at.hi == from.hi))
    return PF_OK;
  pf_hook_spell(h, it->n_layers == 1 ? it->layers[0] : -1, name, sizeof name);
  if (at.hi == INT32_MAX)
    return pf_fail(PF_EINPUT,
                   "%s: intervention %td: %s has a key more at each position, and these positions "
                   "have no end: give one that has, such as \"g1\"",
                   iv->name, it - iv->items, name);
  return pf_fail(PF_EINPUT,
                 "%s: intervention %td: %s at the source's position %d has %d keys, at position %d "
                 "it has %d: as many are wanted (\"source_positions\" must be the same positions)",
                 iv->name, it - iv->items, name, source, source + 1, last, last + 1);
}

static int bind_from_prompt(pf_interventions *iv, const item *it, pf_ctx *c, const pf_tok *t,
                            pf_span at) {
  pf_ids ids = {0};
  pf_spans spans;
  pf_span from;
  pf_tap *taps = NULL;
  operand o = {0};
  pf_seq *seq;
  size_t parts = it->n_heads ? it->n_heads : 1;
  int rc = source_ids(iv, it, t, &ids, &spans);
  if (rc == PF_OK)
    rc = source_span(iv, it, &spans, at, &from);
  if (rc == PF_OK)
    rc = check_source_keys(iv, it, at, from);
  if (rc == PF_OK)
    rc = add_line(iv, it, at, NULL, &from);
  if (rc == PF_OK)
    rc = prompt_taps(iv, it, from, (int32_t)ids.n, &taps, &o);
  if (rc == PF_OK)
    rc = run_source(iv, c, &ids, taps, it->n_layers * parts, &seq);
  size_t layer = (size_t)(rc == PF_OK ? from.hi - from.lo : 0) * heads_used(iv, it) * o.head;
  if (rc == PF_OK)
    scale_values(iv->values[iv->n_values - 1], it->n_layers * layer, it->scale);
  for (size_t l = 0; rc == PF_OK && l < it->n_layers; l++, o.v += layer)
    rc = add_taps(iv, it, it->layers[l], at, &o);
  pf_free(taps);
  pf_ids_free(&ids);
  return rc;
}

static int bind_taps(pf_interventions *iv, const item *it, pf_ctx *c, const pf_tok *t,
                     const pf_spans *s) {
  pf_span at;
  int rc = span_of(iv, it, it->positions, it->phase, s, &at);
  if (rc == PF_OK && it->prompt)
    return bind_from_prompt(iv, it, c, t, at);
  if (rc == PF_OK)
    rc = add_line(iv, it, at, NULL, NULL);
  for (size_t l = 0; rc == PF_OK && l < it->n_layers; l++) {
    operand o = {0};
    if (it->file)
      rc = file_operand(iv, it, it->layers[l], at, &o);
    if (rc == PF_OK)
      rc = add_taps(iv, it, it->layers[l], at, &o);
  }
  return rc;
}

static int bind_cut(pf_interventions *iv, item *it, const pf_spans *s) {
  pf_span keys, q;
  int rc = span_of(iv, it, it->positions, PHASE_ALL, s, &keys);
  if (rc == PF_OK)
    rc = span_of(iv, it, it->queries, it->queries && !it->has_phase ? PHASE_ALL : it->phase, s, &q);
  if (rc == PF_OK)
    rc = add_line(iv, it, keys, &q, NULL);
  if (rc == PF_OK)
    it->edge_keys = keys, it->edge_queries = q;
  size_t heads = it->n_heads ? it->n_heads : 1;
  for (size_t i = 0; rc == PF_OK && i < it->n_layers * heads; i++) {
    int32_t l = it->layers[i / heads], h = it->n_heads ? it->heads[i % heads] : -1;
    pf_cut cut = {l, l + 1, h, q.lo, q.hi, keys.lo, keys.hi};
    rc = APPEND(iv, cuts, n_cuts, cap_cuts, cut);
  }
  return rc;
}

static int bind_swap(pf_interventions *iv, item *it, pf_ctx *c, const pf_tok *t,
                     const pf_spans *s) {
  pf_ids ids = {0};
  pf_spans spans;
  pf_span at, from;
  pf_seq *src = NULL;
  int rc = span_of(iv, it, it->positions, PHASE_PROMPT, s, &at);
  if (rc == PF_OK) /* rows inside the span keep their own keys and values */
    it->edge_keys = at, it->edge_queries = (pf_span){at.hi, INT32_MAX};
  if (rc == PF_OK)
    rc = source_ids(iv, it, t, &ids, &spans);
  if (rc == PF_OK)
    rc = source_span(iv, it, &spans, at, &from);
  if (rc == PF_OK && from.hi - from.lo != at.hi - at.lo)
    rc = bad(iv, it, "swap_kv needs as many source positions as positions");
  if (rc == PF_OK)
    rc = add_line(iv, it, at, NULL, &from);
  if (rc == PF_OK)
    rc = run_source(iv, c, &ids, NULL, 0, &src);
  size_t heads = it->n_heads ? it->n_heads : 1;
  for (size_t i = 0; rc == PF_OK && i < it->n_layers * heads; i++) {
    int32_t l = it->layers[i / heads], h = it->n_heads ? it->heads[i % heads] : -1;
    pf_swap w = {l, l + 1, h, at.lo, at.hi, from.lo, it->what, src, 0, 0};
    rc = APPEND(iv, swaps, n_swaps, cap_swaps, w);
  }
  pf_ids_free(&ids);
  return rc;
}

int pf_interventions_bind(pf_interventions *iv, pf_ctx *c, const pf_tok *t, const pf_spans *s,
                          pf_seq *seq) {
  int rc = PF_OK;
  unbind(iv);
  iv->seq = seq;
  iv->begin = pf_seq_end(seq);
  for (size_t i = 0; i < iv->n && rc == PF_OK; i++) {
    item *it = &iv->items[i];
    rc = it->op == IV_KNOCKOUT ? bind_cut(iv, it, s)
         : it->op == IV_SWAP   ? bind_swap(iv, it, c, t, s)
                               : bind_taps(iv, it, c, t, s);
  }
  if (rc == PF_OK)
    rc = pf_seq_set_taps(seq, iv->taps, iv->n_taps);
  if (rc == PF_OK)
    rc = pf_seq_set_cuts(seq, iv->cuts, iv->n_cuts);
  return rc == PF_OK ? pf_seq_set_swaps(seq, iv->swaps, iv->n_swaps) : rc;
}

const pf_tap *pf_interventions_taps(const pf_interventions *iv, size_t *n) {
  *n = iv->n_taps;
  return iv->taps;
}

const char *pf_interventions_line(const pf_interventions *iv, size_t i) {
  return i < iv->n_lines ? iv->lines.s + iv->line_at[i] : NULL;
}

/* A row sees keys up to its own position; sliding windows are not looked at. */
int pf_interventions_check_edges(const pf_interventions *iv) {
  int32_t end = pf_seq_end(iv->seq);
  for (size_t i = 0; i < iv->n; i++) {
    const item *it = &iv->items[i];
    int32_t lo = it->edge_queries.lo > iv->begin ? it->edge_queries.lo : iv->begin;
    int32_t hi = it->edge_queries.hi < end ? it->edge_queries.hi : end;
    if (!ops[it->op].hook && (lo >= hi || it->edge_keys.lo >= hi))
      return pf_fail(PF_EINPUT,
                     "%s: intervention %zu (%s) never fired: no row that ran sees keys at its "
                     "positions",
                     iv->name, i, ops[it->op].name);
  }
  return PF_OK;
}

int pf_interventions_check_fired(const pf_interventions *iv) {
  char name[96];
  for (size_t i = 0; i < iv->n_taps; i++)
    if (iv->taps[i].fired == 0)
      return pf_fail(PF_EINPUT, "%s: intervention %zu (%s) never fired: no row at its positions",
                     iv->name, iv->tap_item[i],
                     pf_hook_spell(hook_info(iv->model, iv->taps[i].hook), iv->taps[i].layer, name,
                                   sizeof name));
  return pf_interventions_check_edges(iv);
}
