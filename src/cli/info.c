/* SPDX-License-Identifier: Apache-2.0
 * personaflow info: this build and this machine. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int cmd_info(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--help")) {
    puts("usage: personaflow info\nPrints the version, the numerics contract and what this machine "
         "offers.");
    return 0;
  }
  if (argc > 1)
    return cli_usage("info", "unexpected argument '%s'", argv[1]);
  printf("personaflow %s, numerics contract %d\n", pf_version(), pf_contract_version());
  return 0;
}
