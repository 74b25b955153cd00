/* SPDX-License-Identifier: Apache-2.0
 * Models, sequences, the forward pass over rows, hook points, interventions and generation.
 *
 * Threads: a pf_model may be shared by several contexts; a context and its sequences belong to one
 * thread at a time. */
#ifndef PERSONAFLOW_MODEL_H
#define PERSONAFLOW_MODEL_H

#include "personaflow/types.h"

/* ---- precision ------------------------------------------------------------------------------- */

/* THE list of precisions: what a forward pass rounds where (simd/CONTRACT.md, "Precision modes").
 * F(id, name, what) */
#define PF_PRECISIONS(F)                                                                           \
  F(F32, "f32", "weights as published, activations exact in three bf16 parts: sums alone round")   \
  F(BF16, "bf16", "bf16 weights; operands of products and attention rounded to bf16")              \
  F(BF16_HF, "bf16-hf", "bf16, rounded wherever Hugging Face's modules round (doc/BF16_HF.md)")    \
  F(INT8, "int8", "int8 weights and operands with a scale per group; attention as in bf16")

typedef enum pf_precision {
  PF_PRECISION_AUTO, /* f32; int8 for a directory that personaflow quantize has made */
#define PF_PRECISION_ID(id, name, what) PF_PRECISION_##id,
  PF_PRECISIONS(PF_PRECISION_ID)
#undef PF_PRECISION_ID
      PF_N_PRECISIONS
} pf_precision;

/* The name of a precision, "auto" for PF_PRECISION_AUTO. */
PF_API const char *pf_precision_name(pf_precision p);
/* What it rounds, in one line. */
PF_API const char *pf_precision_note(pf_precision p);
/* PF_EUSAGE, with the names that there are, for another name. */
PF_API int pf_precision_parse(const char *name, pf_precision *out);
/* 1 if loading or running a model in the precision may call the operation (a name of pf_kernels).
 */
PF_API int pf_precision_uses(pf_precision p, const char *op);

/* ---- model ----------------------------------------------------------------------------------- */

typedef struct pf_model pf_model;

#define PF_MAX_EOS 8

/* What a configuration says. Strings belong to the model. */
typedef struct pf_model_info {
  const char *arch; /* "gemma2" or "qwen2" */
  const char *dir;  /* the resolved directory */
  int32_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_ff, vocab_size, max_positions;
  float rms_eps, attn_softcap, final_softcap; /* soft-caps: 0 = none */
  double rope_theta;
  double attn_scale;      /* factor on q.k: query_pre_attn_scalar^-1/2 or d_head^-1/2 */
  int32_t sliding_window; /* 0 = no layer has one */
  int32_t tied;           /* unembedding = embedding */
  int32_t bos_id;         /* -1: none */
  int32_t eos[PF_MAX_EOS];
  int32_t n_eos;
  double repetition_penalty; /* of generation_config.json; 1 when it names none */
  const char *weights_dtype; /* "BF16", "F16", "F32" or "mixed"; "I8" for int8 weights on disk */
  /* Hex SHA-256 over the per-tensor digests in name order; "" until computed. */
  const char *weights_sha256;
  uint64_t weight_bytes;  /* bytes of the checkpoint's tensors */
  pf_precision precision; /* of the packed weights; never PF_PRECISION_AUTO */
  int32_t s8_group;       /* int8: inner dimensions that share a scale; else 0 */
} pf_model_info;

typedef struct pf_model_opts {
  int threads;             /* for loading; 0 = default */
  int no_checksum;         /* do not compute weights_sha256 */
  pf_progress_fn progress; /* NULL = silent; bytes read */
  void *progress_user;
  pf_precision precision; /* weights are packed for it; PF_EUSAGE if they do not allow it */
} pf_model_opts;

/* Resolves `path` (a directory, or org/name[@revision] in the Hugging Face cache; nothing is
 * downloaded), checks every tensor against the configuration, reads the weights. *out is NULL on
 * failure. opts may be NULL. */
PF_API int pf_model_open(pf_model **out, const char *path, const pf_model_opts *opts);
PF_API void pf_model_close(pf_model *m);
PF_API const pf_model_info *pf_model_get_info(const pf_model *m);

/* The configuration only, without the weights (for tokenisers, hooks, dry runs). Free with
 * pf_model_close. */
PF_API int pf_model_open_config(pf_model **out, const char *path);

/* Writes the model `in` (as in pf_model_open) with int8 weights as the new directory `out`: a
 * folder beside it is filled and renamed at the end. What is there is never overwritten
 * (PF_EEXIST). Opened, it has the bits of `in` in int8. Of opts, which may be NULL, precision is
 * not used. */
PF_API int pf_model_quantize(const char *in, const char *out, const pf_model_opts *opts);

/* The resolved directory of a model name or path, into buf (size bytes). */
PF_API int pf_model_resolve(const char *path, char *buf, size_t size);

/* ---- context and sequences ------------------------------------------------------------------- */

typedef struct pf_ctx pf_ctx; /* scratch memory and settings of one computation */
typedef struct pf_seq pf_seq; /* one branch: its K,V cache, taps, cuts and swaps */

typedef struct pf_ctx_opts {
  int threads;    /* 0 = default (OMP_NUM_THREADS, else the CPUs of the process) */
  int keep_raw_k; /* keep un-rotated keys too (needed to move keys to other positions) */
} pf_ctx_opts;

PF_API int pf_ctx_new(pf_ctx **out, const pf_model *m, const pf_ctx_opts *opts);
PF_API void pf_ctx_free(pf_ctx *c);

PF_API int pf_seq_new(pf_seq **out, pf_ctx *c);
/* A new branch that shares the K,V of src's positions < n_keep (copied on write). Taps, cuts and
 * swaps are not inherited. */
PF_API int pf_seq_fork(pf_seq **out, const pf_seq *src, int32_t n_keep);
PF_API void pf_seq_free(pf_seq *s);
/* One past the highest position whose K,V the sequence holds. */
PF_API int32_t pf_seq_end(const pf_seq *s);

/* One token of one sequence. Positions of one sequence ascend within a call and follow those it
 * holds; gaps are masked keys. */
typedef struct pf_row {
  pf_seq *seq;
  int32_t token, pos;
  int32_t out; /* row of `logits` that takes this row's logits, -1 for none */
} pf_row;

/* Runs the rows through all layers, in any mixture of sequences. logits: (n_out, vocab_size)
 * row-major, stride vocab_size, after the final soft-cap; may be NULL if no row asks. A row's bits
 * do not depend on the rows beside it. */
PF_API int pf_eval(pf_ctx *c, const pf_row *rows, size_t n_rows, float *logits);

/* Bytes of K,V cache per position, in all layers: fp32 in f32, bf16 in the other precisions; and
 * fp32 un-rotated keys where the context keeps them. */
PF_API size_t pf_ctx_bytes_per_position(const pf_ctx *c);

/* ---- hook points ----------------------------------------------------------------------------- */

typedef struct pf_hook_info {
  int id;
  const char *name;    /* primary spelling; "%d" stands for the layer: "blocks.%d.hook_resid_pre" */
  const char *aliases; /* accepted as input, separated by spaces; "" for none */
  int32_t per_layer;   /* 1: one per layer */
  int32_t heads;       /* 0: no head axis; else number of heads */
  int32_t width;       /* values a head (or the position) has; -1: one per key position */
  const char *shape;   /* e.g. "[pos, head, d_head]" */
  const char *note;
} pf_hook_info;

/* The hook points this model has, in order of execution; *n receives their number. */
PF_API const pf_hook_info *pf_hooks(const pf_model *m, size_t *n);
/* Resolves a name or alias ("blocks.3.hook_resid_pre", "model.layers.3"...) to hook id and layer
 * (-1 if not per layer). Unknown: PF_EUSAGE, the line names the nearest ones. */
PF_API int pf_hook_find(const pf_model *m, const char *name, int *id, int32_t *layer);
/* The name with its layer, "blocks.3.hook_resid_pre"; layer < 0: "*" in its place. Returns buf. */
PF_API const char *pf_hook_spell(const pf_hook_info *h, int32_t layer, char *buf, size_t size);

typedef enum pf_op { PF_OP_CAPTURE, PF_OP_REPLACE, PF_OP_ADD, PF_OP_SCALE, PF_OP_ZERO } pf_op;

/* An action at a hook point, for rows at positions [pos_lo, pos_hi). Actions at one point run in
 * list order; a capture sees what the actions before it left. Row p uses value + (p -
 * pos_lo)*value_stride and out + (p - pos_lo)*out_stride (in floats). Width of a row: heads*width
 * of the hook for head = -1, width for one head; hooks over keys (scores, pattern) have n_keys
 * values a head, keys beyond the row's own position read as 0 (pattern) or -inf (scores). */
typedef struct pf_tap {
  int hook;
  int32_t layer; /* -1 for hooks that are not per layer */
  int32_t head;  /* -1: all */
  int32_t pos_lo, pos_hi;
  pf_op op;
  const float *value; /* PF_OP_REPLACE, PF_OP_ADD */
  size_t value_stride;
  float scale; /* PF_OP_SCALE */
  float *out;  /* PF_OP_CAPTURE */
  size_t out_stride;
  int32_t n_keys; /* hooks over keys: keys a head has in value/out */
  uint64_t fired; /* rows it acted on (written by pf_eval) */
} pf_tap;

/* Sets the sequence's actions; the array and what it points to stay the caller's and must outlive
 * their use. */
PF_API int pf_seq_set_taps(pf_seq *s, pf_tap *taps, size_t n);

/* Forbids attention from queries at [q_lo,q_hi) to keys at [k_lo,k_hi) in layers
 * [layer_lo,layer_hi) for one query head
 * (-1: all): after the soft-cap, before the softmax. */
typedef struct pf_cut {
  int32_t layer_lo, layer_hi, head, q_lo, q_hi, k_lo, k_hi;
} pf_cut;
PF_API int pf_seq_set_cuts(pf_seq *s, const pf_cut *cuts, size_t n); /* copied */

enum { PF_SWAP_K = 1, PF_SWAP_V = 2 };
/* Queries at positions >= pos_hi see, for keys at [pos_lo,pos_hi) in layers [layer_lo,layer_hi), K
 * and/or V of src's positions [src_lo, src_lo + pos_hi - pos_lo); rows inside the span keep their
 * own. src must stay alive. Moving keys (src_lo != pos_lo) needs keep_raw_k. head: a K,V head, -1
 * for all. */
typedef struct pf_swap {
  int32_t layer_lo, layer_hi, head, pos_lo, pos_hi, src_lo;
  unsigned what;
  const pf_seq *src;
} pf_swap;
PF_API int pf_seq_set_swaps(pf_seq *s, const pf_swap *swaps, size_t n); /* copied */

/* ---- generation ------------------------------------------------------------------------------ */

typedef struct pf_gen_opts {
  int32_t max_tokens;
  double repetition_penalty; /* 1 = off; applied to prompt and generated tokens alike, as Hugging
                                Face does */
  double temperature;        /* 0 = greedy */
  int32_t top_k;             /* 0 = off */
  double top_p;              /* 1 = off */
  uint64_t seed;
  int32_t chunk; /* prefill chunk, 0 = whole prompt at once */
  int ignore_eos;
  /* Called for every token; a non-zero return stops. May be NULL. */
  int (*on_token)(void *user, int32_t id, float logprob, float margin);
  void *user;
} pf_gen_opts;

PF_API void pf_gen_defaults(pf_gen_opts *o);
/* Continues `seq` (which may hold a prefix already; `ids` follow it). Generated ids (EOS included)
 * are appended to *out. */
PF_API int pf_generate(pf_seq *seq, const int32_t *ids, size_t n, const pf_gen_opts *o,
                       pf_ids *out);

/* ---- metrics on logits ----------------------------------------------------------------------- */

/* sum_v p(v) (log p(v) - log q(v)) in nats for logits p, q of n values, all arithmetic in fp64
 * (simd/CONTRACT.md). */
PF_API double pf_kl(const float *p, const float *q, size_t n);
/* log softmax(x)[i] in fp64. */
PF_API double pf_logprob(const float *x, size_t n, int32_t i);
/* Index of the largest value, ties to the lowest; *margin (may be NULL) receives top1 - top2. */
PF_API int32_t pf_argmax(const float *x, size_t n, float *margin);

/* ---- this machine ---------------------------------------------------------------------------- */

typedef struct pf_kernel_choice {
  const char *op, *isa, *symbol, *why;
} pf_kernel_choice;
/* CPU features as one line of words, e.g. "avx2 fma avx512f avx512_bf16 ...". */
PF_API const char *pf_cpu_features(void);
PF_API const char *pf_cpu_name(void);
/* The kernel chosen for every operation; PERSONAFLOW_ISA caps the level. PF_EENV when that names an
 * unknown or absent one. */
PF_API int pf_kernels(const pf_kernel_choice **out, size_t *n);

#endif
