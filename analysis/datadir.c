/* SPDX-License-Identifier: Apache-2.0
 * Where the shipped data files are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/grid.h"
#include "base/status.h"

/* Folders tried after the variable, in this order; "@" stands for the folder of the running
 * program. What lies beside the program belongs to it: an installed one finds its own prefix first,
 * one in a build folder its source tree, and neither what an older installation left. */
static const char *const places[] = {"@/../share/personaflow", "@/data",          "@/../data",
                                     "@/../../data",           "@/../../../data", PF_PKGDATADIR};

static bool program_dir(char *buf, size_t size) {
  ssize_t n = readlink("/proc/self/exe", buf, size - 1);
  if (n <= 0)
    return false;
  buf[n] = '\0';
  char *slash = strrchr(buf, '/');
  if (slash)
    *slash = '\0';
  return slash != NULL;
}

static bool found(const char *dir, const char *name, char *buf, size_t size) {
  char here[2048];
  int n;
  if (*dir == '@')
    n = program_dir(here, sizeof here) ? snprintf(buf, size, "%s%s/%s", here, dir + 1, name) : -1;
  else
    n = snprintf(buf, size, "%s/%s", dir, name);
  return n >= 0 && (size_t)n < size && access(buf, R_OK) == 0;
}

int pf_data_path(const char *name, char *buf, size_t size) {
  const char *env = getenv("PERSONAFLOW_DATADIR");
  if (env && *env) {
    if (found(env, name, buf, size))
      return PF_OK;
    return pf_fail(PF_EINPUT, "%s: not in %s (PERSONAFLOW_DATADIR)", name, env);
  }
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (found(places[i], name, buf, size))
      return PF_OK;
  char here[2048];
  if (!program_dir(here, sizeof here))
    snprintf(here, sizeof here, "the program");
  return pf_fail(PF_EINPUT,
                 "%s: not beside the program (%s/data, ../data or ../share/personaflow there), and "
                 "not in %s: set PERSONAFLOW_DATADIR to the folder that holds it",
                 name, here, PF_PKGDATADIR);
}
