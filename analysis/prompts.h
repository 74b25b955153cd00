/* SPDX-License-Identifier: Apache-2.0
 * Prompts as JSON Lines: one object a line, with an optional "id" (text or whole number) and one of
 *   "prompt": text, one user message in the model's chat format
 *   "raw": text, with the tokenizer's own BOS rule
 *   "messages": [{"role": ..., "content": ...}, ...]
 *   "persona" and "task": the role prompt "As X, Y" in the chat format
 *   "ids": [1, 2, 3], which needs no tokenizer
 * Empty lines are skipped. */
#ifndef PF_ANALYSIS_PROMPTS_H
#define PF_ANALYSIS_PROMPTS_H

#include <jansson.h>

#include "personaflow/analysis.h"

typedef struct pf_prompt {
  char *id; /* "id", else its place in the file: "0", "1", ... */
  pf_ids ids;
  size_t line;  /* its number */
  json_t *json; /* the line */
} pf_prompt;

/* Other keys that a line may have. PF_OK: taken; PF_EUSAGE: unknown; else a failure, whose line
 * begins with `where`. */
typedef int (*pf_prompt_key_fn)(const char *where, const char *key, const json_t *value);

typedef struct pf_prompts {
  pf_prompt *v;
  size_t n, cap;
  char tokenizer_sha256[65]; /* "": no prompt needed the tokenizer */
  pf_tok *tok;               /* NULL alike */
} pf_prompts;

/* dir: of the model, whose tokenizer is opened when a prompt needs it. `name` stands in error
 * lines, with the line's number. An empty list, an id given twice and an empty prompt are
 * PF_EINPUT. key: NULL where a line has no other keys. */
int pf_prompts_parse(pf_prompts *out, const char *name, const char *text, size_t n, const char *dir,
                     pf_prompt_key_fn key);
/* PF_EINPUT names the first prompt that a model cannot take: a token id outside [0, vocab), or more
 * than `positions` tokens with the `more` that are to follow; PF_EUSAGE: `more` alone are too many.
 */
int pf_prompts_fit(const pf_prompts *p, const char *name, int32_t vocab, int32_t positions,
                   int32_t more);
void pf_prompts_free(pf_prompts *p);

#endif
