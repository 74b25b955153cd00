/* SPDX-License-Identifier: Apache-2.0
 * personaflow report: makes the page of a finished study again. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int cmd_report(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "--help")) {
    puts("usage: personaflow report DIR\nMakes DIR/report.html again from the results of a "
         "finished study in DIR.");
    return 0;
  }
  if (argc != 2 || argv[1][0] == '-')
    return cli_usage("report", argc < 2 ? "which folder?" : "want one folder of results");
  int rc = pf_report_make(argv[1]);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s/report.html\n", argv[1]);
  return 0;
}
