/* SPDX-License-Identifier: Apache-2.0
 * personaflow report: the page of a finished study again, or several studies side by side. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow report DIR\n"
    "       personaflow report DIR DIR... --out OUT [--force]\n"
    "Makes DIR/report.html again from the results of a finished study in DIR. Several studies, of\n"
    "several models or precisions, are set side by side in OUT/comparison.html and\n"
    "OUT/comparison.json: verdicts with the numbers that decided them, whether models agree (H9),\n"
    "medians of the additive value.\n"
    "  --out OUT            where the comparison goes\n"
    "  --force              write over one that is there\n";

enum { OPT_OUT = 256, OPT_FORCE };

int cmd_report(int argc, char **argv) {
  static const struct option options[] = {{"out", required_argument, NULL, OPT_OUT},
                                          {"force", no_argument, NULL, OPT_FORCE},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  const char *out = NULL;
  int force = 0;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 'h')
      return fputs(usage, stdout), 0;
    if (c == '?')
      return 2;
    if (c == OPT_OUT)
      out = optarg;
    force |= c == OPT_FORCE;
  }
  int n = argc - optind;
  if (n < 1)
    return cli_usage("report", "which folder?");
  if ((n > 1) != (out != NULL))
    return cli_usage("report", n > 1 ? "several studies want --out OUT"
                                     : "one study has its own page; --out is for several");
  int rc = n == 1 ? pf_report_make(argv[optind])
                  : pf_report_compare((const char *const *)argv + optind, (size_t)n, out, force);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s/%s\n", n == 1 ? argv[optind] : out, n == 1 ? "report.html" : "comparison.html");
  return 0;
}
