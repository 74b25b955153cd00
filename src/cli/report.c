/* SPDX-License-Identifier: Apache-2.0
 * personaflow report: the page of a finished study again, or several studies side by side. */
#include <stdio.h>
#include <string.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow report DIR\n"
    "       personaflow report DIR DIR... --out OUT [--force]\n"
    "Makes DIR/report.html again from the results of a finished study in DIR. Several studies, of\n"
    "several models or precisions, are set side by side in OUT/comparison.html and\n"
    "OUT/comparison.json: verdicts with the numbers that decided them, whether models agree (H9),\n"
    "medians of the additive value.\n";

typedef struct args {
  const char *out;
  int force;
} args;

static const cli_opt opts[] = {
    {"out", 0, "OUT", "where the comparison goes", CLI_TEXT, .at = offsetof(args, out)},
    {"force", 0, NULL, "write over a comparison that is there", CLI_FLAG,
     .at = offsetof(args, force)},
    {0}};

int cmd_report(int argc, char **argv) {
  args a = {0};
  int rc;
  if (!cli_options(&(cli_command){"report", usage, opts, NULL}, &a, argc, argv, &rc))
    return rc;
  int n = argc - optind;
  if (n < 1)
    return cli_usage("report", "which folder?");
  if ((n > 1) != (a.out != NULL))
    return cli_usage("report", n > 1 ? "several studies want --out OUT"
                                     : "one study has its own page; --out is for several");
  if (n == 1 && a.force)
    return cli_usage("report", "--force is for a comparison; the page of one study is always made "
                               "again");
  rc = n == 1 ? pf_report_make(argv[optind])
              : pf_report_compare((const char *const *)argv + optind, (size_t)n, a.out, a.force);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s/%s\n", n == 1 ? argv[optind] : a.out, n == 1 ? "report.html" : "comparison.html");
  return 0;
}
