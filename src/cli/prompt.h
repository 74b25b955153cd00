/* SPDX-License-Identifier: Apache-2.0
 * The ways to give a prompt (--prompt, --prompt-raw, --prompt-ids, --messages, --persona with
 * --task) and how they become token ids and named spans. */
#ifndef PF_CLI_PROMPT_H
#define PF_CLI_PROMPT_H

#include "cli/opts.h"

typedef struct cli_prompt {
  const char *chat, *raw, *ids, *messages, *persona, *task; /* option values */
  int specials; /* --specials: parse special tokens in the text */
} cli_prompt;

/* Their lines of a command's table; field: a cli_prompt of its arguments. */
#define CLI_PROMPT_OPTIONS(type, field)                                                            \
  {"PROMPT is one of:", .kind = CLI_HEADING},                                                      \
      {"prompt", 0,                                                                                \
       "TEXT",   "one user message in the model's chat format",                                    \
       CLI_TEXT, .at = offsetof(type, field.chat)},                                                \
      {"prompt-raw", 0,                                                                            \
       "TEXT",       "the text itself, with the tokenizer's own BOS rule",                         \
       CLI_TEXT,     .at = offsetof(type, field.raw)},                                             \
      {"prompt-ids", 0,                                                                            \
       "1,2,3",      "token ids; needs no tokenizer",                                              \
       CLI_TEXT,     .at = offsetof(type, field.ids)},                                             \
      {"messages", 0,                                                                              \
       "FILE",     "a conversation, OpenAI-style JSON (- for standard input)",                     \
       CLI_TEXT,   .at = offsetof(type, field.messages)},                                          \
      {"persona", 0,                                                                               \
       "X",       "with --task Y: the role prompt \"As X, Y\" in the model's chat format",         \
       CLI_TEXT,  .at = offsetof(type, field.persona)},                                            \
      {"task",   0,                                                                                \
       "Y",      "a role prompt has the spans persona and task",                                   \
       CLI_TEXT, .at = offsetof(type, field.task)},                                                \
  {                                                                                                \
    "specials", 0, NULL,                                                                           \
        "with --prompt, --prompt-raw, --messages: parse special tokens such as <end_of_turn> in "  \
        "the text",                                                                                \
        CLI_FLAG, .at = offsetof(type, field.specials)                                             \
  }

/* A prompt made ready. spans: those that its kind of prompt has (personaflow/analysis.h). */
typedef struct cli_ready {
  pf_ids ids;
  pf_spans spans;
  pf_tok *tok; /* NULL: --prompt-ids on a directory without a tokenizer */
} cli_ready;

/* Opens the tokenizer and makes the ids. Returns an exit code, 0 = fine; the line has been printed.
 * Free in any case. */
int cli_prompt_make(const char *cmd, const cli_prompt *p, const char *dir, cli_ready *out);
void cli_ready_free(cli_ready *r);

/* Reads an intervention file ("-": standard input) and sets it on seq; prints each action as it was
 * resolved on stderr. Returns a status; *iv is the caller's (pf_interventions_free) also on
 * failure. */
int cli_interventions(const char *path, const pf_model *m, pf_ctx *c, const cli_ready *r,
                      pf_seq *seq, pf_interventions **iv);

#endif
