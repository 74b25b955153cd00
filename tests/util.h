/* SPDX-License-Identifier: Apache-2.0
 * What tests of every floor share: where the source tree is, and which tier runs. */
#ifndef PF_TESTS_UTIL_H
#define PF_TESTS_UTIL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline const char *tu_srcdir(void) {
  const char *s = getenv("srcdir");
  return s && *s ? s : ".";
}

/* PF_TEST_TIER is "tiny", "small" or "big"; without it the tier is "normal". What holds for the
 * small tier holds for the tiny one, which leaves out more. */
static inline bool tu_tier(const char *name) {
  const char *tier = getenv("PF_TEST_TIER");
  tier = tier && *tier ? tier : "normal";
  return !strcmp(tier, name) || (!strcmp(tier, "tiny") && !strcmp(name, "small"));
}

/* Grids, markers and models of the source tree, whatever is installed. */
static inline void tu_use_source_data(void) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s/data", tu_srcdir());
  setenv("PERSONAFLOW_DATADIR", dir, 1);
}

#endif
