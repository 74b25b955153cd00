/* SPDX-License-Identifier: Apache-2.0
 * personaflow merge: joins the shards of a study. */
#include <stdio.h>

#include "cli/cli.h"

static const char help[] =
    "usage: personaflow merge OUT [DIR...] [OPTIONS]\n"
    "Joins the shards of a study (personaflow study --shard) in OUT and writes the results there: "
    "the bytes of\n"
    "one run. DIR...: the shards' folders; default OUT/shard-*.\n\n"
    "  --model MODEL      the model, where it is not at the shards' path\n"
    "  -t, --threads N    threads\n"
    "  --quiet            no progress and no table\n\n"
    "Exit codes: 0 done, 2 usage or another study, 3 input or output, 4 units are missing, 5 "
    "environment.\n";

enum { OPT_MODEL = 256, OPT_QUIET, OPT_HELP };

static const struct option options[] = {{"model", required_argument, NULL, OPT_MODEL},
                                        {"threads", required_argument, NULL, 't'},
                                        {"quiet", no_argument, NULL, OPT_QUIET},
                                        {"help", no_argument, NULL, OPT_HELP},
                                        {NULL, 0, NULL, 0}};

int cmd_merge(int argc, char **argv) {
  const char *model = NULL;
  pf_study_opts o = {.progress = cli_progress, .log = cli_print_line, .log_user = stdout};
  long n;
  optind = 1;
  for (int c; (c = getopt_long(argc, argv, "t:", options, NULL)) != -1;)
    switch (c) {
    case OPT_MODEL:
      model = optarg;
      break;
    case 't':
      if (!cli_int("merge", "--threads", optarg, 1, 1024, &n))
        return 2;
      o.threads = (int)n;
      break;
    case OPT_QUIET:
      o.progress = NULL;
      o.log = NULL;
      break;
    case OPT_HELP:
      fputs(help, stdout);
      return 0;
    default: /* getopt has said what is wrong */
      return 2;
    }
  if (optind >= argc)
    return cli_usage("merge", "which folder?");
  int rc = pf_study_merge(argv[optind], (const char *const *)argv + optind + 1,
                          (size_t)(argc - optind - 1), model, &o);
  return rc == PF_OK ? 0 : cli_fail(rc);
}
