/* SPDX-License-Identifier: Apache-2.0
 * personaflow quantize: writes a model with int8 weights. */
#include <stdio.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow quantize IN OUT [OPTIONS]\n"
    "Writes the model IN (a Hugging Face directory, or org/name[@revision] in the Hugging Face "
    "cache)\n"
    "with int8 weights as the new directory OUT. OUT needs IN no more, and has the bits of IN in\n"
    "--precision int8. What is there is never overwritten.\n"
    "  -t, --threads N      threads; changes no bit\n"
    "  --quiet              no progress\n";

enum { OPT_QUIET = 256 };

int cmd_quantize(int argc, char **argv) {
  static const struct option options[] = {{"threads", required_argument, NULL, 't'},
                                          {"quiet", no_argument, NULL, OPT_QUIET},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  pf_model_opts o = {.progress = cli_progress};
  long threads = 0;
  for (int c; (c = getopt_long(argc, argv, "t:", options, NULL)) != -1;) {
    if (c == 'h')
      return fputs(usage, stdout), 0;
    if (c == '?' || (c == 't' && !cli_int("quantize", "--threads", optarg, 1, 1024, &threads)))
      return 2;
    if (c == OPT_QUIET)
      o.progress = NULL;
  }
  if (optind + 2 != argc)
    return cli_usage("quantize", "wanted are the model IN and the new directory OUT");
  o.threads = (int)threads;
  int rc = pf_model_quantize(argv[optind], argv[optind + 1], &o);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s\n", argv[optind + 1]);
  return 0;
}
