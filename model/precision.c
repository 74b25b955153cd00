/* SPDX-License-Identifier: Apache-2.0
 * The precisions: names, products, rounding points. */
#include "model/precision.h"

#include <string.h>

#include "base/status.h"

static const struct {
  const char *name, *note;
} texts[PF_N_PRECISIONS] = {[PF_PRECISION_AUTO] = {"auto", ""},
#define PF_TEXT(id, name, what) [PF_PRECISION_##id] = {name, what},
                            PF_PRECISIONS(PF_TEXT)
#undef PF_TEXT
};

const char *pf_precision_name(pf_precision p) {
  return (unsigned)p < PF_N_PRECISIONS ? texts[p].name : "?";
}

const char *pf_precision_note(pf_precision p) {
  return (unsigned)p < PF_N_PRECISIONS ? texts[p].note : "";
}

int pf_precision_parse(const char *name, pf_precision *out) {
  for (int i = 1; i < PF_N_PRECISIONS; i++)
    if (!strcmp(name, texts[i].name)) {
      *out = (pf_precision)i;
      return PF_OK;
    }
#define PF_WORD(id, name, what) " " name
  return pf_fail(PF_EUSAGE, "precision '%.40s': there is" PF_PRECISIONS(PF_WORD), name);
#undef PF_WORD
}

/* ---- products -------------------------------------------------------------------------------- */

static void operand_x3(const pf_simd *f, const pf_mat *w, size_t row, const float *x, void *a) {
  f->operand_x3_bf16(row, w->k, w->kp, x, a);
}

static void operand_bf16(const pf_simd *f, const pf_mat *w, size_t row, const float *x, void *a) {
  f->operand_bf16(row, w->k, w->kp, x, a);
}

static void operand_f32(const pf_simd *f, const pf_mat *w, size_t row, const float *x, void *a) {
  f->operand_f32(row, w->k, w->kp, x, a);
}

static void operand_s8(const pf_simd *f, const pf_mat *w, size_t row, const float *x, void *a) {
  f->operand_s8(row, w->k, w->kp, w->group, x, a);
}

static void gemm_x3(const pf_simd *f, const pf_gemm *g) {
  f->gemm_x3_bf16(g);
}

static void gemm_bf16(const pf_simd *f, const pf_gemm *g) {
  f->gemm_bf16(g);
}

static void gemm_f32(const pf_simd *f, const pf_gemm *g) {
  f->gemm_f32(g);
}

static void gemm_s8(const pf_simd *f, const pf_gemm *g) {
  f->gemm_s8(g);
}

const pf_product_ops pf_products[PF_N_KINDS] = {
    [PF_K_X3_BF16] = {{"operand_x3_bf16", "gemm_x3_bf16"}, 3, 6, operand_x3, gemm_x3},
    [PF_K_BF16] = {{"operand_bf16", "gemm_bf16"}, 1, 2, operand_bf16, gemm_bf16},
    [PF_K_F32] = {{"operand_f32", "gemm_f32"}, 1, 4, operand_f32, gemm_f32},
    [PF_K_S8] = {{"operand_s8", "gemm_s8", "quant_s8"}, 1, 1, operand_s8, gemm_s8},
};

/* ---- attention --------------------------------------------------------------------------------
 */

static void qk(const pf_simd *f, const pf_attn *a) {
  f->qk(a);
}

static void pv(const pf_simd *f, const pf_attn *a) {
  f->pv(a);
}

static void qk_bf16(const pf_simd *f, const pf_attn *a) {
  f->qk_bf16(a);
}

static void pv_bf16(const pf_simd *f, const pf_attn *a) {
  f->pv_bf16(a);
}

const pf_attn_ops pf_attns[PF_N_KV] = {
    [PF_KV_F32] = {{"qk", "pv"}, sizeof(float), qk, pv},
    [PF_KV_BF16] = {{"qk_bf16", "pv_bf16"}, sizeof(uint16_t), qk_bf16, pv_bf16},
};

/* ---- modes ----------------------------------------------------------------------------------- */

enum { QWEN = 1 << PF_QWEN2, BOTH = 1 << PF_GEMMA2 | 1 << PF_QWEN2 };

/* Q and K after RoPE, V and P: what Q.K and P.V multiply. */
#define ATTENTION                                                                                  \
  [PF_HOOK_ROT_Q] = BOTH, [PF_HOOK_ROT_K] = BOTH, [PF_HOOK_V] = BOTH, [PF_HOOK_PATTERN] = BOTH

/* What Hugging Face's modules hand on: all but hook_scale and hook_result, and what Gemma's norms
 * multiply by 1 + w. */
#define MODULES                                                                                    \
  ATTENTION, [PF_HOOK_EMBED] = BOTH, [PF_HOOK_RESID_PRE] = BOTH, [PF_HOOK_LN1_NORM] = QWEN,        \
             [PF_HOOK_LN1_OUT] = BOTH, [PF_HOOK_Q] = BOTH, [PF_HOOK_K] = BOTH,                     \
             [PF_HOOK_SCORES_RAW] = BOTH, [PF_HOOK_SCORES] = BOTH, [PF_HOOK_Z] = BOTH,             \
             [PF_HOOK_ATTN_OUT_PRE] = BOTH, [PF_HOOK_ATTN_OUT] = BOTH, [PF_HOOK_RESID_MID] = BOTH, \
             [PF_HOOK_LN2_NORM] = QWEN, [PF_HOOK_LN2_OUT] = BOTH, [PF_HOOK_MLP_PRE] = BOTH,        \
             [PF_HOOK_MLP_PRE_LINEAR] = BOTH, [PF_HOOK_MLP_POST] = BOTH,                           \
             [PF_HOOK_MLP_OUT_PRE] = BOTH, [PF_HOOK_MLP_OUT] = BOTH, [PF_HOOK_RESID_POST] = BOTH,  \
             [PF_HOOK_LNF_NORM] = QWEN, [PF_HOOK_LNF_OUT] = BOTH, [PF_HOOK_LOGITS_PRECAP] = BOTH,  \
             [PF_HOOK_LOGITS] = BOTH

const pf_mode pf_modes[PF_N_PRECISIONS] = {
    [PF_PRECISION_F32] = {.kind = {[PF_W_BF16] = PF_K_X3_BF16, [PF_W_F32] = PF_K_F32},
                          .floats = {PF_W_BF16, PF_W_F32, PF_W_F32}},
    [PF_PRECISION_BF16] = {.kind = {[PF_W_BF16] = PF_K_BF16},
                           .floats = {PF_W_BF16, PF_W_BF16, PF_W_BF16},
                           .round_weights = true,
                           .kv = PF_KV_BF16,
                           .rounds = {ATTENTION}},
    [PF_PRECISION_BF16_HF] = {.kind = {[PF_W_BF16] = PF_K_BF16},
                              .floats = {PF_W_BF16, PF_W_BF16, PF_W_BF16},
                              .round_weights = true,
                              .inner = true,
                              .kv = PF_KV_BF16,
                              .rounds = {MODULES}},
    [PF_PRECISION_INT8] = {.kind = {[PF_W_S8] = PF_K_S8},
                           .floats = {PF_W_S8, PF_W_S8, PF_W_S8},
                           .kv = PF_KV_BF16,
                           .rounds = {ATTENTION}},
};

static bool has_kind(const pf_mode *m, int kind) {
  return memchr(m->kind, kind, PF_N_WTYPES) != NULL;
}

/* Operations beside products that not every precision calls: with `inner` the parts of one are
 * rounded and called singly. */
static const struct {
  const char *op;
  bool plain, inner;
} some[] = {{"rope", true, false},  {"softcap", true, false},   {"vtanh", false, true},
            {"vexp", false, false}, {"vsigmoid", false, false}, {"canary", false, false}};

int pf_precision_uses(pf_precision p, const char *op) {
  if ((unsigned)p >= PF_N_PRECISIONS)
    return 0;
  for (int k = 0; k < PF_N_KINDS; k++)
    for (int i = 0; i < 3; i++)
      if (pf_products[k].names[i] && !strcmp(op, pf_products[k].names[i]))
        return has_kind(&pf_modes[p], k);
  for (int k = 0; k < PF_N_KV; k++)
    for (int i = 0; i < 2; i++)
      if (!strcmp(op, pf_attns[k].names[i]))
        return pf_modes[p].kv == (pf_kv_kind)k;
  for (size_t i = 0; i < sizeof some / sizeof *some; i++)
    if (!strcmp(op, some[i].op))
      return pf_modes[p].inner ? some[i].inner : some[i].plain;
  return strcmp(op, "round_bf16") != 0 || pf_modes[p].rounds[PF_HOOK_PATTERN];
}
