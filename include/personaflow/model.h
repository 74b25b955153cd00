/* SPDX-License-Identifier: Apache-2.0
 * Models, sequences, the forward pass over rows, hook points, interventions and generation.
 *
 * Threads: a pf_model may be shared by several contexts; a context and its sequences belong to one
 * thread at a time.
 *
 * Lifetimes: a context keeps pointers to its model, a sequence to its context (also to free
 * itself): free sequences before their context, contexts before their model. Forks outlive what
 * they were forked from. */
#ifndef PERSONAFLOW_MODEL_H
#define PERSONAFLOW_MODEL_H

#include "personaflow/types.h"

#ifdef __cplusplus
extern "C" {
#endif

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
  int threads;             /* for loading; 0 = default, at most 1024 */
  int no_checksum;         /* do not compute weights_sha256 */
  pf_progress_fn progress; /* NULL = silent; bytes read */
  void *progress_user;
  pf_precision precision; /* weights are packed for it; PF_EUSAGE if they do not allow it */
  const char *isa;        /* caps the instruction set; NULL: PERSONAFLOW_ISA's. Changes no bit. */
} pf_model_opts;

/* Resolves `path` (a directory, or org/name[@revision] in the Hugging Face cache; nothing is
 * downloaded), checks every tensor against the configuration, reads the weights. *out is NULL on
 * failure. opts may be NULL. */
PF_API int pf_model_open(pf_model **out, const char *path, const pf_model_opts *opts);
PF_API void pf_model_close(pf_model *m);
/* What loading the weights took: seconds of all threads together (the wall time is threads x wall
 * less what is not listed), and blocks that were read. */
typedef struct pf_load_times {
  int threads;
  double wall;
  double read;  /* waiting for the disk or the page cache */
  double check; /* for NaNs and infinities */
  double pack;  /* into panels, quantising and rounding included */
  double hash;  /* checksums, when they were not known */
  uint64_t blocks, bytes;
} pf_load_times;
PF_API const pf_load_times *pf_model_load_times(const pf_model *m);
PF_API const pf_model_info *pf_model_get_info(const pf_model *m);

/* A tensor of a checkpoint. */
typedef struct pf_tensor_info {
  const char *name, *dtype; /* "BF16", "F16", "F32", "I8" */
  size_t rows, cols;        /* cols 0: a vector */
  const char *sha256;       /* hex, of its bytes in the file */
} pf_tensor_info;
/* The tensors of an opened model in name order; *n = 0 when it was opened without its checksum.
 * They belong to the model. */
PF_API const pf_tensor_info *pf_model_tensors(const pf_model *m, size_t *n);

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
  int threads;     /* 0 = default (OMP_NUM_THREADS, else the CPUs of the process), at most 1024 */
  int keep_raw_k;  /* keep un-rotated keys too (needed to move keys to other positions) */
  const char *isa; /* as in pf_model_opts */
} pf_ctx_opts;

/* opts may be NULL. PF_EUSAGE for a model without weights (pf_model_open_config), PF_EENV for an
 * instruction set that is not here. */
PF_API int pf_ctx_new(pf_ctx **out, const pf_model *m, const pf_ctx_opts *opts);
/* After its sequences. */
PF_API void pf_ctx_free(pf_ctx *c);

/* An empty sequence. */
PF_API int pf_seq_new(pf_seq **out, pf_ctx *c);
/* A new branch that shares the K,V of src's positions < n_keep (copied on write). Taps, cuts and
 * swaps are not inherited, where it stops is. PF_EUSAGE for more positions than src has. */
PF_API int pf_seq_fork(pf_seq **out, const pf_seq *src, int32_t n_keep);
/* A new branch with src's positions < n that shares, of position p, the K,V of the layers below
 * layers[p] (0 to n_layers; fewer where src itself has fewer), copied on write: the layers that the
 * branch cannot change. A position with fewer than n_layers is unfinished: its row enters at
 * layers[p], in order of positions, before any new one. pf_reach_* lower layers to what an
 * intervention leaves. layers NULL: all of src's. */
PF_API int pf_seq_fork_layers(pf_seq **out, const pf_seq *src, int32_t n, const int32_t *layers);
/* Rows of the sequence leave before this layer (1 to n_layers: none does), as in TransformerLens'
 * stop_at_layer: the actions at the layer's hook_resid_pre are their last, they have no logits and
 * no score, and K,V of the layers below are all that is made and kept of them. Raised again, the
 * sequence has unfinished positions, as after pf_seq_fork_layers. PF_EUSAGE for another layer. */
PF_API int pf_seq_set_stop(pf_seq *s, int32_t layer);
PF_API void pf_seq_free(pf_seq *s);
/* One past the highest position that the sequence has. */
PF_API int32_t pf_seq_end(const pf_seq *s);

/* Logits to measure others against; they stay the caller's. */
typedef struct pf_ref {
  const float *logits; /* (n) */
  size_t n;
  double lse; /* their log-sum-exp */
} pf_ref;
PF_API void pf_ref_make(pf_ref *r, const float *logits, size_t n);

typedef struct pf_top {
  int32_t id;
  float logit;
} pf_top;

/* What a row is asked about its logits, which need no place of their own then. `what` says which of
 * the values pf_eval writes; they have the bits of pf_kl, pf_jsd, pf_logprob and pf_argmax. */
enum {
  PF_SCORE_KL = 1,
  PF_SCORE_LOGPROB = 2,
  PF_SCORE_ARGMAX = 4,
  PF_SCORE_TOP = 8,
  PF_SCORE_JSD = 16
};
typedef struct pf_score {
  unsigned what;
  const pf_ref *ref; /* KL, JSD; rows of one ref that stand near each other share work */
  int32_t token;     /* LOGPROB */
  int32_t n_top;     /* TOP */
  pf_top *top;       /* TOP: (n_top), best first, ties to the lower id */
  double kl;         /* KL: of (ref || these logits), nats */
  double reverse_kl; /* JSD: of (these logits || ref), and the next */
  double jsd;
  double logprob; /* LOGPROB: of the token */
  int32_t best;   /* ARGMAX, and the next */
  float margin;
} pf_score;

/* One token of one sequence. Positions of one sequence ascend within a call and follow those it
 * has; gaps are masked keys. A row enters at the layer from which on its sequence lacks the
 * position's K,V: 0 for a new position; what pf_seq_fork_layers or a stop left of an unfinished one
 * (with the same token, lowest position first); n_layers, for the final norm and the logits alone,
 * where all K,V are there. */
typedef struct pf_row {
  pf_seq *seq;
  int32_t token, pos;
  int32_t out;        /* row of `logits` that takes this row's logits, -1 for none */
  int32_t layer;      /* at which the row enters; it costs the row-layers from there to its end */
  const float *resid; /* (d_model) the residual that enters that layer (hook_resid_pre before its
                         actions, or what leaves the last layer); NULL: the token's embedding,
                         layer 0 only */
  pf_score *score;    /* NULL: none */
} pf_row;

/* Runs the rows through all layers, in any mixture of sequences. logits: (n_out, vocab_size)
 * row-major, stride vocab_size, after the final soft-cap; may be NULL if no row asks. A row's bits
 * do not depend on the rows beside it. PF_EUSAGE, before anything is computed, for a row that
 * cannot be (a token or position that the model has not, a position that is taken, a sequence of
 * another context); PF_ENUMERIC for scores or logits that are not finite, naming the
 * position; PF_ENOMEM. Sequences are then as they were before the call; logits, scores and captures
 * are not. */
PF_API int pf_eval(pf_ctx *c, const pf_row *rows, size_t n_rows, float *logits);

/* Row-layers that the context has computed: every row counts the layers that it went through. */
PF_API uint64_t pf_ctx_row_layers(const pf_ctx *c);

/* Bytes of scratch memory that calls of up to `rows` rows take (a longer call is cut into steps),
 * for branches of up to `positions` positions. */
PF_API size_t pf_ctx_scratch_bytes(const pf_ctx *c, size_t rows, int32_t positions);

/* Bytes of K,V cache per position, in all layers: fp32 in f32, bf16 in the other precisions; and
 * fp32 un-rotated keys where the context keeps them. */
PF_API size_t pf_ctx_bytes_per_position(const pf_ctx *c);
/* Bytes of a block of them, 32 positions in all layers, as pf_ctx_kv_bytes counts it. */
PF_API size_t pf_ctx_block_bytes(const pf_ctx *c);
/* Bytes of the K,V blocks that the context's sequences hold now; a block that several share counts
 * once. *peak (may be NULL): the most at any time since the context was made or the peak was reset.
 */
PF_API size_t pf_ctx_kv_bytes(const pf_ctx *c, size_t *peak);
PF_API void pf_ctx_kv_reset_peak(pf_ctx *c);
/* Frees the K,V blocks that freed sequences have left for others to use: after a phase of work
 * whose memory the next one does not want. */
PF_API void pf_ctx_trim(pf_ctx *c);

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
 * of the hook for head = -1, width for one head; captures of several positions have an out_stride
 * of at least that. Hooks over keys (scores, pattern) have n_keys values a head, keys beyond the
 * row's own position read as 0 (pattern) or -inf (scores); a replacement or addition has at least
 * pos_hi of them. */
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
  int32_t n_keys; /* hooks over keys: keys a head has in value/out; not read of others */
  uint64_t fired; /* rows it acted on: pf_eval counts it up, in every call */
} pf_tap;

/* Sets the sequence's actions in place of those it has (n = 0: none); the array and what it points
 * to stay the caller's and must outlive their use. PF_EUSAGE, naming the tap, for one that cannot
 * be meant; the sequence keeps what it had. */
PF_API int pf_seq_set_taps(pf_seq *s, pf_tap *taps, size_t n);

/* Forbids attention from queries at [q_lo,q_hi) to keys at [k_lo,k_hi) in layers
 * [layer_lo,layer_hi) for one query head
 * (-1: all): after the soft-cap, before the softmax. */
typedef struct pf_cut {
  int32_t layer_lo, layer_hi, head, q_lo, q_hi, k_lo, k_hi;
} pf_cut;
PF_API int pf_seq_set_cuts(pf_seq *s, const pf_cut *cuts, size_t n); /* copied */

enum { PF_SWAP_K = 1, PF_SWAP_V = 2 };
/* Queries at positions >= pos_hi (and in [q_lo, q_hi)) see, for keys at [pos_lo,pos_hi) in layers
 * [layer_lo,layer_hi), K and/or V of src's positions [src_lo, src_lo + pos_hi - pos_lo); rows
 * inside the span keep their own. src must stay alive. Moving keys (src_lo != pos_lo) needs
 * keep_raw_k. head: a K,V head, -1 for all. */
typedef struct pf_swap {
  int32_t layer_lo, layer_hi, head, pos_lo, pos_hi, src_lo;
  unsigned what;
  const pf_seq *src;
  int32_t q_lo, q_hi; /* only queries at positions from q_lo on and, unless it is 0, below q_hi */
} pf_swap;
PF_API int pf_seq_set_swaps(pf_seq *s, const pf_swap *swaps, size_t n); /* copied */

/* What interventions reach: lowers layers[p], p < n, to the first layer whose K,V or output at
 * position p they can change or see, so that pf_seq_fork_layers shares the rest. An action at layer
 * L restarts its own positions at L; positions after it at L if it comes before K and V (the input,
 * its norm, k, v, rot_k), else at L + 1, as a cut does after its queries. A swap restarts the
 * queries that see it, a capture its own positions only. Begin with n_layers everywhere. */
PF_API void pf_reach_taps(const pf_tap *taps, size_t n_taps, int32_t n, int32_t *layers);
PF_API void pf_reach_cuts(const pf_cut *cuts, size_t n_cuts, int32_t n, int32_t *layers);
PF_API void pf_reach_swaps(const pf_swap *swaps, size_t n_swaps, int32_t n, int32_t *layers);
/* The lowest layer for pf_seq_set_stop before which all of these actions act: that of the highest
 * hook_resid_pre, one above that of any other point, n_layers for what comes after the last layer.
 */
PF_API int32_t pf_reach_stop(const pf_tap *taps, size_t n_taps, int32_t n_layers);

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
  const int32_t *eos; /* (n_eos) ids that end it, in place of the model's; NULL: the model's */
  size_t n_eos;
  /* Called for every token; a non-zero return stops. May be NULL. */
  int (*on_token)(void *user, int32_t id, float logprob, float margin);
  void *user;
} pf_gen_opts;

/* 128 tokens, greedy, no penalty, the model's EOS. */
PF_API void pf_gen_defaults(pf_gen_opts *o);
/* Continues `seq` (which may hold a prefix already; `ids` follow it). Generated ids (EOS included)
 * are appended to *out. It ends with an EOS, at max_tokens, where the model's positions end, or
 * where on_token says so. Then seq holds the ids and the generated ones but for the last: who goes
 * on begins with that one. One branch of pf_generate_many. o may be NULL (pf_gen_defaults). */
PF_API int pf_generate(pf_seq *seq, const int32_t *ids, size_t n, const pf_gen_opts *o,
                       pf_ids *out);

/* THE list of reasons why a generation ended. F(id, name) */
#define PF_FINISHES(F)                                                                             \
  F(EOS, "eos")             /* an EOS, the last of the ids */                                      \
  F(LENGTH, "length")       /* max_tokens */                                                       \
  F(POSITIONS, "positions") /* the model has no more positions */                                  \
  F(STOPPED, "stopped")     /* on_token */
typedef enum pf_finish {
  PF_FINISH_NONE, /* it has not ended */
#define PF_FINISH_ID(id, name) PF_FINISH_##id,
  PF_FINISHES(PF_FINISH_ID)
#undef PF_FINISH_ID
      PF_N_FINISHES
} pf_finish;
PF_API const char *pf_finish_name(pf_finish f); /* "" for PF_FINISH_NONE */

/* One of many continuations. */
typedef struct pf_branch {
  /* What the ids follow, with its taps, cuts and swaps; no two branches have the same. It stays the
   * caller's unless free_seq is set. NULL: the ids are all; what the ids of such branches have in
   * common at their beginning is computed once. */
  pf_seq *seq;
  int free_seq; /* 1: seq is freed, and NULL, when the branch has ended */
  const int32_t *ids;
  size_t n;
  /* (vocab) for n = 0: the logits of seq's last position, which give the first token. */
  const float *logits;
  pf_gen_opts o;
  /* Results, freed by pf_branch_clear: the generated ids; of each its log-probability and the
   * margin between the two best scores, as on_token gets them. All zero at the start. */
  pf_ids out;
  float *logprobs, *margins;
  pf_finish finish;
} pf_branch;
PF_API void pf_branch_clear(pf_branch *b); /* the results only */

typedef struct pf_many_opts {
  size_t batch; /* branches in flight at most, 0 = no limit */
  /* Bytes of K,V and logits at most, 0 = no limit: branches wait until there is room for all that
   * they may come to hold. Not counted: what the given sequences hold at the start. */
  size_t memory;
  /* Branch i has ended (its ids may be taken, its results cleared). Another status than PF_OK ends
   * the run with it. May be NULL. */
  int (*on_done)(void *user, size_t i);
  void *user;
  pf_progress_fn progress; /* in tokens: those of the prompts and max_tokens; NULL = silent */
  void *progress_user;
  const volatile int *stop; /* non-zero: PF_EINCOMPLETE after the running step; may be NULL */
} pf_many_opts;

typedef struct pf_many_stats {
  uint64_t steps, rows;   /* calls of pf_eval, and their rows */
  uint64_t prompt_tokens; /* ids of all branches */
  uint64_t prompt_rows;   /* rows that these took: fewer where beginnings are shared */
  uint64_t generated;     /* tokens */
  size_t in_flight;       /* branches at most */
  size_t kv_peak;         /* bytes of K,V beyond the start's, at most */
  size_t memory_peak;     /* bytes of K,V and logits together, at most */
  size_t memory_one;      /* the smallest limit: what the largest branch needs by itself */
} pf_many_stats;

/* Generates for all branches together: the rows of all go through the weights in one product, those
 * that have ended leave, those that wait follow. Order, batch and memory change no bit of a
 * branch's results. PF_ENOMEM at once, with the number needed, when o->memory is too small for one
 * of them. o and stats may be NULL. After a failure the branches that ended have their results; the
 * others' are to be cleared. */
PF_API int pf_generate_many(pf_ctx *c, pf_branch *b, size_t n, const pf_many_opts *o,
                            pf_many_stats *stats);

/* ---- metrics on logits ----------------------------------------------------------------------- */

/* They run on the kernels that PERSONAFLOW_ISA allows; NaN, and -1 of pf_argmax, where it names an
 * instruction set that is not here. */

/* sum_v p(v) (log p(v) - log q(v)) in nats for logits p, q of n values, all arithmetic in fp64
 * (simd/CONTRACT.md). */
PF_API double pf_kl(const float *p, const float *q, size_t n);
/* Their Jensen-Shannon divergence in nats: the mean of KL(p || h) and KL(q || h), h half of each. 0
 * for equal logits, at most ln 2, the same both ways. */
PF_API double pf_jsd(const float *p, const float *q, size_t n);
/* log softmax(x)[i] in fp64. */
PF_API double pf_logprob(const float *x, size_t n, int32_t i);
/* Index of the largest value, ties to the lowest; *margin (may be NULL) receives top1 - top2. */
PF_API int32_t pf_argmax(const float *x, size_t n, float *margin);

/* The direction (d_model) of the residual stream whose product with what is added to it is the
 * change of logit[token] - logit[other], before a soft-cap, with the final norm's scale (its
 * hook_scale) held fixed. PF_EUSAGE for tokens outside the vocabulary. */
PF_API int pf_logit_direction(const pf_model *m, int32_t token, int32_t other, float scale,
                              float *out);
/* What a layer's norm behind attention makes of x (d_model) with its scale held fixed; without such
 * norms, or such a layer, x stays. */
PF_API void pf_post_attention(const pf_model *m, int32_t layer, float scale, float *x);

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
/* The instruction sets that this build and this CPU have, from the scalar code to the best. */
PF_API const char *const *pf_isas(size_t *n);
/* The kernel that a cap (NULL: the environment's) chooses for an operation; NULL: no such operation
 * or cap. */
PF_API const char *pf_kernel_symbol(const char *op, const char *isa);

#ifdef __cplusplus
}
#endif

#endif
