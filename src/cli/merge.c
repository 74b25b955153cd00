/* SPDX-License-Identifier: Apache-2.0
 * personaflow merge: joins the shards of a study. */
#include <stdio.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow merge OUT [DIR...] [OPTIONS]\n"
    "Joins the shards of a study (personaflow study --shard) in OUT and writes the results there: "
    "the bytes of\n"
    "one run. DIR...: the shards' folders; default OUT/shard-*.\n\n";

static const char after[] =
    "\nExit codes: 0 done, 2 usage or another study, 3 input or output, 4 units are missing, 5 "
    "environment.\n";

typedef struct args {
  pf_study_opts o;
  const char *model;
  int quiet;
} args;

static const cli_opt opts[] = {
    {"model", 0, "MODEL", "the model, where it is not at the shards' path", CLI_TEXT,
     .at = offsetof(args, model)},
    {"force", 0, NULL, "start again over what OUT itself holds; the shards stay", CLI_FLAG,
     .at = offsetof(args, o.force)},
    CLI_THREADS(args, o.threads),
    {"quiet", 0, NULL, "no progress and no table", CLI_FLAG, .at = offsetof(args, quiet)},
    {0}};

int cmd_merge(int argc, char **argv) {
  args a = {0};
  int rc;
  if (!cli_options(&(cli_command){"merge", usage, opts, after}, &a, argc, argv, &rc))
    return rc;
  if (optind >= argc)
    return cli_usage("merge", "which folder?");
  if (!a.quiet) {
    a.o.progress = cli_progress;
    a.o.log = cli_print_line;
    a.o.log_user = stdout;
  }
  rc = pf_study_merge(argv[optind], (const char *const *)argv + optind + 1,
                      (size_t)(argc - optind - 1), a.model, &a.o);
  return rc == PF_OK ? 0 : cli_fail(rc);
}
