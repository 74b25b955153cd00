/* SPDX-License-Identifier: Apache-2.0
 * The options of a command as a table: how each is spelt, what its help says, where its value goes.
 */
#ifndef PF_CLI_OPTS_H
#define PF_CLI_OPTS_H

#include <stddef.h>

#include "cli/cli.h"

typedef enum cli_kind {
  CLI_FLAG,      /* an int becomes 1 */
  CLI_CLEAR,     /* an int becomes 0 */
  CLI_TEXT,      /* const char *: the value as it stands */
  CLI_INT,       /* int32_t from lo to hi */
  CLI_SEED,      /* uint64_t, from 0 to 2^63 - 1 */
  CLI_REAL,      /* double from lo to hi */
  CLI_SIZE,      /* uint64_t: bytes (cli_size) */
  CLI_PRECISION, /* pf_precision */
  CLI_WORD,      /* int: which of `words`, from 0 */
  CLI_CALL,      /* what take() makes of it */
  CLI_HEADING    /* no option: a line of the help */
} cli_kind;

typedef struct cli_opt cli_opt;
struct cli_opt {
  const char *name;  /* without its dashes; a heading's text */
  char letter;       /* -t; 0: none */
  const char *value; /* what its value is called in the help; NULL: it has none */
  const char *help;
  cli_kind kind;
  size_t at; /* of its variable in the command's arguments */
  double lo, hi;
  const char *const *words; /* ends with NULL */
  /* May write to text; prints a usage line and returns false when it is wrong. */
  bool (*take)(const char *command, const cli_opt *o, char *text, void *to);
};

typedef struct cli_command {
  const char *name, *usage; /* usage: the help before the options */
  const cli_opt *opts;      /* ends with {0}; --help is every command's */
  const char *after;        /* the help after them; NULL: nothing */
} cli_command;

/* Takes the options out of argv into the variables of args. True: go on with the words that are
 * left, argv[optind] to argv[argc - 1]. False: help or an error line has been printed, and the
 * command ends with *code. */
bool cli_options(const cli_command *c, void *args, int argc, char **argv, int *code);

#define CLI_THREADS(type, field)                                                                   \
  {                                                                                                \
    "threads", 't', "N", "threads; changes no bit (OMP_NUM_THREADS, else all CPUs)", CLI_INT,      \
        .at = offsetof(type, field), 1, 1024                                                       \
  }
#define CLI_PRECISIONS(type, field)                                                                \
  {                                                                                                \
    "precision", 0, "P",                                                                           \
        "f32 (default), bf16, bf16-hf or int8; every precision has one set of "                    \
        "bits; int8 weights (personaflow quantize) run as int8",                                   \
        CLI_PRECISION, .at = offsetof(type, field)                                                 \
  }
#define CLI_QUIET(type, field)                                                                     \
  { "quiet", 0, NULL, "no progress", CLI_FLAG, .at = offsetof(type, field) }

#endif
