/* SPDX-License-Identifier: Apache-2.0
 * The tensors of two checkpoints, compared in the order in which a forward pass uses them. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/diff.h"

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
