/* SPDX-License-Identifier: Apache-2.0
 * The ways to give a prompt (--prompt, --prompt-raw, --prompt-ids, --messages, --persona with
 * --task) and how they become token ids and named spans. */
#ifndef PF_CLI_PROMPT_H
#define PF_CLI_PROMPT_H

#include "cli/cli.h"

typedef struct cli_prompt {
  const char *chat, *raw, *ids, *messages, *persona, *task; /* option values */
  bool specials; /* --specials: parse special tokens in the text */
} cli_prompt;

enum {
  CLI_OPT_PROMPT = 256,
  CLI_OPT_RAW,
  CLI_OPT_IDS,
  CLI_OPT_MESSAGES,
  CLI_OPT_PERSONA,
  CLI_OPT_TASK,
  CLI_OPT_SPECIALS,
  CLI_OPT_NEXT
};

#define CLI_PROMPT_OPTIONS                                                                         \
  {"prompt", required_argument, NULL, CLI_OPT_PROMPT},                                             \
      {"prompt-raw", required_argument, NULL, CLI_OPT_RAW},                                        \
      {"prompt-ids", required_argument, NULL, CLI_OPT_IDS},                                        \
      {"messages", required_argument, NULL, CLI_OPT_MESSAGES},                                     \
      {"persona", required_argument, NULL, CLI_OPT_PERSONA},                                       \
      {"task", required_argument, NULL, CLI_OPT_TASK}, {                                           \
    "specials", no_argument, NULL, CLI_OPT_SPECIALS                                                \
  }

#define CLI_PROMPT_HELP                                                                            \
  "  --prompt TEXT        one user message in the model's chat format\n"                           \
  "  --prompt-raw TEXT    the text itself, with the tokenizer's own BOS rule\n"                    \
  "  --prompt-ids 1,2,3   token ids; needs no tokenizer\n"                                         \
  "  --messages FILE      a conversation, OpenAI-style JSON (- for standard input)\n"              \
  "  --persona X --task Y the role prompt \"As X, Y\" in the model's chat format; has "            \
  "the\n"                                                                                          \
  "                       spans persona and task\n"                                                \
  "  --specials           with --prompt, --prompt-raw, --messages: parse special tokens such as\n" \
  "                       <end_of_turn> in the text\n"

/* Takes an option of CLI_PROMPT_OPTIONS; false if opt is another one. */
bool cli_prompt_option(cli_prompt *p, int opt, const char *arg);
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

/* Reads an intervention file and sets it on seq; prints each action as it was resolved on stderr.
 * Returns a status; *iv is the caller's (pf_interventions_free) also on failure. */
int cli_interventions(const char *path, const pf_model *m, pf_ctx *c, const cli_ready *r,
                      pf_seq *seq, pf_interventions **iv);

#endif
