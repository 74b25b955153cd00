/* SPDX-License-Identifier: Apache-2.0
 * The tensors of two checkpoints, compared in the order in which a forward pass uses them. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/diff.h"
#include "base/bf16.h"
#include "base/mem.h"
#include "base/status.h"

/* Parts of names before, within and after the layers, in order of use. The scales and the bias of a
 * product follow its weight. */
static const char *const before[] = {"model.embed_tokens."};
static const char *const within[] = {"input_layernorm.",
                                     "self_attn.q_proj.",
                                     "self_attn.k_proj.",
                                     "self_attn.v_proj.",
                                     "self_attn.o_proj.",
                                     "post_attention_layernorm.",
                                     "pre_feedforward_layernorm.",
                                     "mlp.gate_proj.",
                                     "mlp.up_proj.",
                                     "mlp.down_proj.",
                                     "post_feedforward_layernorm."};
static const char *const after[] = {"model.norm.", "lm_head."};
#define COUNT(list) (sizeof(list) / sizeof *(list))

static int64_t place(const char *name, const char *const *list, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!strncmp(name, list[i], strlen(list[i])))
      return (int64_t)i;
  return -1;
}

int64_t pf_tensor_order(const char *name) {
  static const char layers[] = "model.layers.";
  enum { STEP = 64 };
  int64_t at = place(name, before, COUNT(before));
  if (at >= 0)
    return at;
  if (!strncmp(name, layers, sizeof layers - 1) &&
      isdigit((unsigned char)name[sizeof layers - 1])) {
    char *end;
    long l = strtol(name + sizeof layers - 1, &end, 10);
    at = place(end + (*end == '.'), within, COUNT(within));
    return (l + 1) * STEP + (at < 0 ? STEP - 1 : at);
  }
  at = place(name, after, COUNT(after));
  return ((int64_t)1 << 40) + (at < 0 ? STEP : at);
}

static const json_t *named(const json_t *list, const char *name) {
  size_t i;
  json_t *t;
  json_array_foreach((json_t *)list, i, t) {
    const char *s = json_string_value(json_object_get(t, "name"));
    if (s && !strcmp(s, name))
      return t;
  }
  return NULL;
}

static bool same_kind(const json_t *a, const json_t *b) {
  static const char *const keys[] = {"dtype", "rows", "cols"};
  bool same = a && b;
  for (size_t i = 0; same && i < COUNT(keys); i++)
    same = json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i]));
  return same;
}

typedef struct search {
  const char *name; /* of the first one */
  const json_t *a, *b;
  size_t n;
  bool changed;
} search;

static void take(search *s, const char *name, const json_t *a, const json_t *b) {
  if (a && b && json_equal(a, b))
    return;
  s->n++;
  s->changed |= same_kind(a, b);
  int64_t x = pf_tensor_order(name), y = s->name ? pf_tensor_order(s->name) : 0;
  if (s->name && (x > y || (x == y && strcmp(name, s->name) > 0)))
    return;
  s->name = name;
  s->a = a;
  s->b = b;
}

json_t *pf_compare_tensors(const json_t *a, const json_t *b, bool *changed) {
  search s = {0};
  size_t i;
  json_t *t;
  json_array_foreach((json_t *)a, i, t) {
    const char *name = json_string_value(json_object_get(t, "name"));
    if (name)
      take(&s, name, t, named(b, name));
  }
  json_array_foreach((json_t *)b, i, t) {
    const char *name = json_string_value(json_object_get(t, "name"));
    if (name && !named(a, name))
      take(&s, name, NULL, t);
  }
  *changed = s.changed;
  json_t *none = json_null();
  return s.n ? json_pack("{s:I s:{s:s s:O s:O}}", "different", (json_int_t)s.n, "first", "name",
                         s.name, "a", s.a ? s.a : none, "b", s.b ? s.b : none)
             : NULL;
}

/* ---- elements -------------------------------------------------------------------------------- */

/* The file of a checkpoint that has the tensor; NULL when there is none that can be read. */
static pf_tin *file_with(const char *dir, const char *tensor, size_t *at) {
  DIR *d = opendir(dir);
  pf_tin *t = NULL;
  char path[4400];
  for (struct dirent *e; d && !t && (e = readdir(d));) {
    size_t n = strlen(e->d_name);
    if (n < 12 || strcmp(e->d_name + n - 12, ".safetensors") != 0)
      continue;
    snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    ptrdiff_t k = pf_tin_open(&t, path) == PF_OK ? pf_tin_find(t, tensor) : -1;
    if (k >= 0) {
      *at = (size_t)k;
    } else {
      pf_tin_close(t);
      t = NULL;
    }
  }
  if (d)
    closedir(d);
  return t;
}

static void put_element(json_t *first, const pf_tensor *t, size_t i, float a, float b) {
  json_t *at = t->n_dims == 2
                   ? json_pack("[I, I]", (json_int_t)(i / t->dims[1]), (json_int_t)(i % t->dims[1]))
                   : json_pack("[I]", (json_int_t)i);
  char x[48], y[48];
  snprintf(x, sizeof x, "%a", (double)a);
  snprintf(y, sizeof y, "%a", (double)b);
  json_object_set_new(first, "element", at);
  json_object_set_new(first, "a_hex", json_string(x));
  json_object_set_new(first, "b_hex", json_string(y));
}

static void compare_elements(json_t *first, pf_tin *ta, size_t ia, pf_tin *tb, size_t ib) {
  enum { PIECE = 1 << 16 };
  const pf_tensor *t = pf_tin_get(ta, ia);
  size_t n = pf_tensor_count(t), m;
  float *a = pf_alloc(2 * PIECE, sizeof *a), *b = a + PIECE;
  bool found = !a || pf_tensor_count(pf_tin_get(tb, ib)) != n;
  for (size_t at = 0; !found && at < n; at += m) {
    m = n - at < PIECE ? n - at : PIECE;
    if (pf_tin_read(ta, ia, at, m, a) != PF_OK || pf_tin_read(tb, ib, at, m, b) != PF_OK)
      break;
    for (size_t i = 0; !found && i < m; i++)
      if (pf_bits_of_f32(a[i]) != pf_bits_of_f32(b[i])) {
        put_element(first, t, at + i, a[i], b[i]);
        found = true;
      }
  }
  pf_free(a);
}

void pf_first_element(json_t *tensors, const char *dir_a, const char *dir_b) {
  json_t *first = json_object_get(tensors, "first");
  const char *name = json_string_value(json_object_get(first, "name"));
  size_t ia, ib;
  char a_path[4096];
  if (!name || pf_model_resolve(dir_a, a_path, sizeof a_path) != PF_OK)
    return;
  pf_tin *a = file_with(a_path, name, &ia), *b = a ? file_with(dir_b, name, &ib) : NULL;
  if (a && b)
    compare_elements(first, a, ia, b, ib);
  pf_tin_close(a);
  pf_tin_close(b);
}
