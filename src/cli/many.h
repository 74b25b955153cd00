/* SPDX-License-Identifier: Apache-2.0
 * personaflow generate --prompts: a file of prompts. */
#ifndef PF_CLI_MANY_H
#define PF_CLI_MANY_H

#include "cli/cli.h"

typedef struct cli_many {
  const char *prompts, *out_dir; /* out_dir NULL: standard output */
  int32_t batch;
  uint64_t memory;
  int resume, force, quiet;
  pf_gen_opts gen;
  const char *penalty; /* of --repetition-penalty */
  int threads;
  pf_precision precision;
} cli_many;

/* Returns the exit code. */
int cli_many_run(const cli_many *a, const char *model);
/* The option's factor, or the configuration's, into o; an exit code. */
int cli_penalty(const char *text, const pf_model_info *i, pf_gen_opts *o);

#endif
