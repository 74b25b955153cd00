/* SPDX-License-Identifier: Apache-2.0
 * The study of "As X, Do Y" (arXiv 2605.23147): grids, prompt spans, the additive-substitution
 * study and its report. */
#ifndef PERSONAFLOW_ANALYSIS_H
#define PERSONAFLOW_ANALYSIS_H

#include "personaflow/model.h"
#include "personaflow/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Token spans [lo, hi) of a role prompt in the model's chat format. */
typedef struct pf_span {
  int32_t lo, hi;
} pf_span;

typedef struct pf_role_prompt {
  pf_encoding enc; /* the prompt with the generation header */
  char *text;      /* rendered text */
  /* template_: all that is neither of the others, up to the header. */
  pf_span bos, template_, persona, task, header;
  int32_t p_user_last, p_last;
} pf_role_prompt;

/* Fills a template such as "As {persona}, {task}" and encodes it as one user message. persona NULL
 * = the bare task. */
PF_API int pf_role_prompt_make(const pf_tok *t, const char *template_, const char *persona,
                               const char *task, pf_role_prompt *out);
/* The same with the persona in a system message: `system` has {persona}, template_ has {task}.
 * persona NULL = no system message. The task span goes from the persona's end to the user message's
 * end. PF_EINPUT where the chat format has no system role (Gemma). */
PF_API int pf_role_prompt_make_system(const pf_tok *t, const char *system, const char *template_,
                                      const char *persona, const char *task, pf_role_prompt *out);
PF_API void pf_role_prompt_free(pf_role_prompt *p);

/* Spans by name: bos template persona task header answer (answer: all that follows the prompt), and
 * the one-token sites p_user_last p_last g1 g2. Every prompt has answer p_last g1 g2; bos where it
 * begins with that token; header where it is in the chat format, template where it is one message,
 * p_user_last where a user's message is the last; persona and task are a role prompt's. */
typedef struct pf_named_span {
  const char *name;
  pf_span span; /* hi = INT32_MAX: open */
} pf_named_span;
#define PF_MAX_SPANS 12
typedef struct pf_spans {
  int32_t n_prompt;
  size_t n;
  pf_named_span v[PF_MAX_SPANS];
} pf_spans;
PF_API void pf_spans_of(const pf_role_prompt *p, pf_spans *out);
PF_API void pf_spans_of_ids(int32_t n_prompt, pf_spans *out);
/* Of ids whose first may be the tokenizer's BOS; t may be NULL. */
PF_API void pf_spans_of_tokens(const pf_tok *t, const int32_t *ids, size_t n, pf_spans *out);
/* A conversation by the model's chat format (flags: PF_CHAT_PARSE_SPECIALS) with the generation
 * header, and its spans. *out (pf_encoding_free) is empty on failure. */
PF_API int pf_chat_prompt_make(const pf_tok *t, const pf_message *m, size_t n, unsigned flags,
                               pf_encoding *out, pf_spans *spans);
/* Positions as text: "12", "-1" (from the end of the prompt), "3:7", "persona", "persona[-1]",
 * "task[0:3]". */
PF_API int pf_positions_parse(const char *text, const pf_spans *s, pf_span *out);

/* ---- a file of prompts
 * ------------------------------------------------------------------------------------------ */

/* JSON Lines, one prompt each: {"prompt": text} (a user message), {"raw": text}, {"ids": [...]},
 * {"messages": [...]} or {"persona": text, "task": text}; with it may stand "id" and, for this
 * line, max_tokens, seed, temperature, top_k, top_p, repetition_penalty, ignore_eos. */
typedef struct pf_batch pf_batch;
/* `name` stands in error lines, with the line's number; dir: the model's, for its tokenizer. */
PF_API int pf_batch_read(pf_batch **out, const char *dir, const char *name, const char *text,
                         size_t n);
PF_API void pf_batch_free(pf_batch *b);

typedef struct pf_batch_opts {
  pf_gen_opts gen;      /* of lines that do not say otherwise; on_token and eos are not used */
  size_t batch, memory; /* as in pf_many_opts */
  int threads;
  /* A folder that keeps what is done (journal.jsonl) and receives generated.jsonl, or a function
   * that gets the lines in their order as they come to be; another status than PF_OK ends the run.
   */
  const char *out_dir;
  int resume; /* 1: go on with what out_dir holds */
  int force;  /* 1: start again over it */
  int (*write)(void *user, const char *line, size_t n);
  void *write_user;
  pf_progress_fn progress;
  void *progress_user;
  const volatile int *stop; /* non-zero: PF_EINCOMPLETE after the running step */
} pf_batch_opts;

/* Generates for all lines together (pf_generate_many). A record is one line of JSON: id (the line's
 * place, from 0, where it has none), precision, prompt_ids, ids, text, logprobs, margins, finish.
 * stats may be NULL. */
PF_API int pf_batch_run(const pf_batch *b, const pf_model *m, const pf_batch_opts *o,
                        pf_many_stats *stats);
/* PF_EEXIST if a run without resume or force would be refused there; for a look before long work.
 */
PF_API int pf_batch_look(const char *out_dir);

/* ---- tensors in files
 * ------------------------------------------------------------------------------------------- */

#define PF_TENSOR_MAX_DIMS 8
/* Row-major fp32. What a reader filled is freed with pf_tensor_free; a writer takes what the caller
 * owns. */
typedef struct pf_tensor {
  char *name;
  int n_dims;
  size_t dims[PF_TENSOR_MAX_DIMS];
  float *data;
} pf_tensor;
PF_API size_t pf_tensor_count(const pf_tensor *t); /* number of values */
PF_API void pf_tensor_free(pf_tensor *t);
/* "file.npy", "file.safetensors" (with one tensor) or "file.safetensors#name"; widened or rounded
 * to fp32; values that are not finite are PF_EINPUT. */
PF_API int pf_tensor_read(const char *source, pf_tensor *out);
/* The same from memory; `name` stands in error lines. tensor NULL: the only one. */
PF_API int pf_npy_parse(const char *name, const void *data, size_t n, pf_tensor *out);
PF_API int pf_safetensors_parse(const char *name, const void *data, size_t n, const char *tensor,
                                pf_tensor *out);
/* Written whole or not at all, over what is there. PF_EUSAGE for more than PF_TENSOR_MAX_DIMS
 * dimensions; PF_EIO. */
PF_API int pf_npy_write(const char *path, const pf_tensor *t);
/* metadata: key, value, ..., NULL (may be NULL); written under __metadata__. PF_EUSAGE also for
 * names that are missing, given twice or "__metadata__", and for text that is not UTF-8. */
PF_API int pf_safetensors_write(const char *path, const pf_tensor *t, size_t n,
                                const char *const *metadata);

/* What recorded values come from, as metadata of their file: program, version, contract, model (its
 * directory), precision, weights_sha256, tokenizer_sha256, prompt_ids_sha256 (of the text
 * "2,5,6"), prompt_ids (that text, of up to 512), positions ("3:7", of the values). What is not
 * known is left out: the weights' checksum of a model that was opened without it, the tokenizer's
 * where it is NULL. */
typedef struct pf_origin pf_origin;
PF_API int pf_origin_new(pf_origin **out, const pf_model *m, const char *tokenizer_sha256,
                         const int32_t *ids, size_t n, pf_span at);
/* One more; at most 24 in all. */
PF_API int pf_origin_add(pf_origin *o, const char *key, const char *value);
/* key, value, ..., NULL, as pf_safetensors_write takes them; they belong to o. */
PF_API const char *const *pf_origin_pairs(const pf_origin *o);
PF_API void pf_origin_free(pf_origin *o);

/* ---- interventions as data
 * -------------------------------------------------------------------------------------- */

/* An intervention file (schema "personaflow-interventions/1", doc/INTERVENTIONS.md; "-" is standard
 * input), checked against a model. */
typedef struct pf_interventions pf_interventions;
PF_API int pf_interventions_read(pf_interventions **out, const char *path, const pf_model *m);
PF_API int pf_interventions_parse(pf_interventions **out, const char *name, const char *text,
                                  size_t n, const pf_model *m);
PF_API size_t pf_interventions_count(const pf_interventions *iv);
/* Resolves positions in the prompt that `s` describes, reads source files, runs source prompts (t
 * may be NULL when there are none) on c, and sets taps, cuts and swaps on seq. Call it again for
 * another sequence; each call drops what the last one set up, so one sequence is served at a time.
 * iv must outlive the use of seq. */
PF_API int pf_interventions_bind(pf_interventions *iv, pf_ctx *c, const pf_tok *t,
                                 const pf_spans *s, pf_seq *seq);
/* One line for each action as it was resolved ("replace blocks.3.hook_resid_pre positions 12..14"),
 * NULL past the last. */
PF_API const char *pf_interventions_line(const pf_interventions *iv, size_t i);
/* After the run, with the sequence of the last bind still there: PF_EINPUT, naming the
 * intervention, if a tap never acted on a row, or no row that ran could see a key of a knockout or
 * swap. */
PF_API int pf_interventions_check_fired(const pf_interventions *iv);
/* The second half of it, for callers that ran copies of the taps. */
PF_API int pf_interventions_check_edges(const pf_interventions *iv);
/* The taps of the last bind (pf_seq_set_taps replaces a sequence's list: join them with your own).
 */
PF_API const pf_tap *pf_interventions_taps(const pf_interventions *iv, size_t *n);
PF_API void pf_interventions_free(pf_interventions *iv);

/* ---- grids
 * ---------------------------------------------------------------------------------------------------
 */

/* A grid ("short", "long", "demo" or a file; doc/GRIDS.md) in lines: what is in it and what it is
 * studied with. With a tokenizer also every prompt's tokens and spans ("lo:hi"), and how near the
 * neutral personas come to each persona's length; max_positions > 0: a prompt that leaves no room
 * for the scored tokens is PF_EINPUT. */
PF_API int pf_grid_describe(const char *grid, const pf_tok *t, int32_t max_positions,
                            void (*log)(void *user, const char *line), void *user);

/* ---- the study
 * --------------------------------------------------------------------------------------------------
 */

typedef struct pf_study_opts {
  const char *model;    /* directory or org/name[@revision] */
  const char *protocol; /* "paper", "full"; NULL: full */
  const char *only;     /* experiments by their keys, "y,D1"; NULL: all of the protocol */
  const char *grid;     /* "short", "long", a shipped grid's name, or a file */
  int all_draws; /* 1: C1 repeats its draws at every site and layer, not at the paper's alone */
  const char *layers; /* "3,5,7"; NULL = the grid's or the paper's fractions */
  /* Keys of the grid's controls (doc/GRIDS.md), NULL: the grid's own: "PERSONA" or "PERSONA,TASK"
   * that effects are counted from; another way to say persona and task. */
  const char *baseline, *paraphrase;
  const char *markers; /* marker lists that texts are scored on: "paper", "full", a file
                          (doc/GRIDS.md); NULL: the grid's own, else shipped ones */
  int conflicts; /* 1: the personas and tasks of the controls' conflicting cells, crossed, take the
                    place of the grid's */
  const char *out_dir;
  int threads;
  pf_precision precision;
  /* Bytes that it may take beside the weights: fewer cells go together. 0: 1.5 GB, or what one cell
   * needs. PF_EUSAGE, with the number, if it is too little for one cell. No bit depends on it. */
  uint64_t memory;
  /* 1: nothing is taken from another run; prompts and substitutions are whole forward passes (for
   * tests and measurements; the results are the same). */
  int no_sharing;
  /* A run goes on with what out_dir holds of the same study, and refuses what it holds of another.
   */
  int no_resume; /* 1: PF_EEXIST if there is anything */
  int force;     /* 1: start again over what is there */
  /* shards > 1: the cells whose number is shard modulo shards, from 0; no results are written.
   * Each has its folder, out_dir/shard-I-of-N with I from 1; pf_study_merge joins them. */
  int shard, shards;
  int finish; /* 1: computes nothing; PF_EINCOMPLETE if units are missing, which names of `shards`
                 shards those that lack some */
  /* 1: say what this call would compute (the shard, less what out_dir holds, which may be NULL):
   * cells, row-layers, memory and time, measured on one prompt; 2: the same as one line of JSON
   * (schema "personaflow-plan/1"). Nothing is written; what would be refused is refused. */
  int dry_run;
  pf_progress_fn progress;
  void *progress_user;
  /* Set to non-zero (by a signal handler) to stop at the next step: PF_EINCOMPLETE. */
  const volatile int *stop;
  void (*log)(void *user, const char *line); /* tables and notes, line by line; NULL = silent */
  void *log_user;
} pf_study_opts;

PF_API int pf_study_run(const pf_study_opts *o);
/* Joins the shards of a study in out (n = 0: out's own shard-*) and finishes it there: the bytes of
 * one run. model: NULL: that of the shards. Of o: threads, force, progress and log alone.
 * PF_EINCOMPLETE when units are missing; what the shards have is kept in out then. Nothing is
 * written when they are not of one study. */
PF_API int pf_study_merge(const char *out, const char *const *dirs, size_t n, const char *model,
                          const pf_study_opts *o);
/* Makes report.html of a finished study again. */
PF_API int pf_report_make(const char *dir);
/* Formats in which this build writes the figures of a report: "svg, png" or "svg". */
PF_API const char *pf_figure_formats(void);
/* Sets 2 to 16 finished studies side by side: out/comparison.html and comparison.json (schema
 * "personaflow-comparison/1"): verdicts with the numbers that decided, H9 over the models in f32,
 * medians of the additive sweep. Precisions of one model show what rounding changes. PF_EEXIST
 * unless force. */
PF_API int pf_report_compare(const char *const *dirs, size_t n, const char *out, int force);

#ifdef __cplusplus
}
#endif

#endif
