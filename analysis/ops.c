/* SPDX-License-Identifier: Apache-2.0
 * The operation that makes the values of a hook point. */
#include "analysis/ops.h"

#include <stdio.h>
#include <string.h>

typedef enum where { ANY, GEMMA2, QWEN2, CAP, NOCAP } where;

static const struct row {
  const char *hook;
  where in;
  const char *kernels, *operands, *weights;
} rows[] = {
#define PF_OPERATION(hook, in, kernels, operands, weights) {hook, in, kernels, operands, weights},
#include "analysis/ops.def"
#undef PF_OPERATION
};

static bool holds(const pf_model_info *i, where w) {
  switch (w) {
  case GEMMA2:
    return !strcmp(i->arch, "gemma2");
  case QWEN2:
    return !strcmp(i->arch, "qwen2");
  case CAP:
    return i->final_softcap > 0;
  case NOCAP:
    return !(i->final_softcap > 0);
  default:
    return true;
  }
}

/* The name of a point without "blocks.%d.". */
static const char *bare(const pf_hook_info *h) {
  static const char prefix[] = "blocks.%d.";
  return h->per_layer && !strncmp(h->name, prefix, sizeof prefix - 1) ? h->name + sizeof prefix - 1
                                                                      : h->name;
}

/* Names that stand by themselves, in any layer. */
static bool global(const char *name) {
  return !strncmp(name, "ln_final.", 9) || !strncmp(name, "unembed.", 8) ||
         !strcmp(name, "hook_embed");
}

static void put_operand(const pf_model_info *i, int32_t layer, const char *word, size_t n,
                        char out[96]) {
  char name[64];
  int32_t l = *word == '<' ? layer - 1 : *word == '$' ? i->n_layers - 1 : layer;
  bool mark = *word == '<' || *word == '$';
  snprintf(name, sizeof name, "%.*s", (int)(n - mark), word + mark);
  if (global(name))
    snprintf(out, 96, "%s", name);
  else if (l < 0)
    snprintf(out, 96, "hook_embed");
  else
    snprintf(out, 96, "blocks.%d.%s", (int)l, name);
}

static bool has_tensor(const pf_model *m, const char *name) {
  size_t n;
  const pf_tensor_info *t = pf_model_tensors(m, &n);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(t[i].name, name))
      return true;
  return false;
}

static bool put_weight(const pf_model *m, int32_t layer, const char *word, size_t n,
                       char out[128]) {
  if (layer < 0)
    snprintf(out, 128, "%.*s", (int)n, word);
  else
    snprintf(out, 128, "model.layers.%d.%.*s", (int)layer, (int)n, word);
  if (!strcmp(out, "lm_head.weight") && pf_model_get_info(m)->tied)
    snprintf(out, 128, "model.embed_tokens.weight");
  return has_tensor(m, out);
}

/* The product that a precision makes of weights of a type. */
static const char *product_of(const pf_model *m, const char *weight) {
  pf_precision p = pf_model_get_info(m)->precision;
  size_t n;
  const pf_tensor_info *t = pf_model_tensors(m, &n);
  if (p == PF_PRECISION_INT8)
    return "gemm_s8";
  if (p != PF_PRECISION_F32)
    return "gemm_bf16";
  for (size_t i = 0; i < n; i++)
    if (!strcmp(t[i].name, weight))
      return strcmp(t[i].dtype, "BF16") ? "gemm_f32" : "gemm_x3_bf16";
  return "gemm_x3_bf16";
}

static const char *next_word(const char **p, size_t *n) {
  *p += strspn(*p, " ");
  *n = strcspn(*p, " ");
  const char *word = *p;
  *p += *n;
  return *n ? word : NULL;
}

static void fill(const pf_model *m, const pf_at *at, const struct row *r, pf_operation *out) {
  size_t n;
  const char *p = r->operands, *word;
  while ((word = next_word(&p, &n)) && out->n_operands < PF_OP_PARTS)
    put_operand(pf_model_get_info(m), at->layer, word, n, out->operand[out->n_operands++]);
  p = r->weights;
  while ((word = next_word(&p, &n)) && out->n_weights < PF_OP_PARTS)
    out->n_weights += put_weight(m, at->layer, word, n, out->weight[out->n_weights]);
  p = r->kernels;
  while ((word = next_word(&p, &n)) && out->n_kernels < PF_OP_PARTS) {
    char *k = out->kernel[out->n_kernels++];
    snprintf(k, sizeof *out->kernel, "%.*s", (int)n, word);
    if (!strcmp(k, "gemm"))
      snprintf(k, sizeof *out->kernel, "%s", product_of(m, out->weight[0]));
  }
}

bool pf_operation_of(const pf_model *m, const pf_at *at, pf_operation *out) {
  *out = (pf_operation){0};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (!strcmp(rows[i].hook, bare(at->hook)) && holds(pf_model_get_info(m), rows[i].in)) {
      fill(m, at, &rows[i], out);
      return true;
    }
  return false;
}
