/* SPDX-License-Identifier: Apache-2.0
 * personaflow quantize: writes a model with int8 weights. */
#include <stdio.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow quantize IN OUT [OPTIONS]\n"
    "Writes the model IN (a Hugging Face directory, or org/name[@revision] in the Hugging Face "
    "cache)\n"
    "with int8 weights as the new directory OUT. OUT needs IN no more, and has the bits of IN in\n"
    "--precision int8. What is there is never overwritten.\n";

typedef struct args {
  pf_model_opts o;
  int quiet;
} args;

static const cli_opt opts[] = {CLI_THREADS(args, o.threads), CLI_QUIET(args, quiet), {0}};

int cmd_quantize(int argc, char **argv) {
  args a = {0};
  int rc;
  if (!cli_options(&(cli_command){"quantize", usage, opts, NULL}, &a, argc, argv, &rc))
    return rc;
  if (optind + 2 != argc)
    return cli_usage("quantize", "wanted are the model IN and the new directory OUT");
  a.o.progress = a.quiet ? NULL : cli_progress;
  rc = pf_model_quantize(argv[optind], argv[optind + 1], &a.o);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s\n", argv[optind + 1]);
  return 0;
}
