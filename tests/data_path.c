/* SPDX-License-Identifier: Apache-2.0
 * Prints where a shipped data file is found; the installed folder it was built for is "prefix", in
 * the working directory (tests/data_path.sh). */
#include <stdio.h>

#include "analysis/grid.h"
#include "base/status.h"

int main(int argc, char **argv) {
  char path[4096];
  if (argc != 2 || pf_data_path(argv[1], path, sizeof path) != PF_OK) {
    fprintf(stderr, "%s\n", pf_last_error());
    return 3;
  }
  puts(path);
  return 0;
}
