/* SPDX-License-Identifier: Apache-2.0
 * What capture writes: one safetensors file, or a folder with one .npy file a hook
 * and capture.json, which has what a safetensors file has as metadata. */
#ifndef PF_CLI_CAPFILE_H
#define PF_CLI_CAPFILE_H

#include "cli/cli.h"

typedef struct cli_capfile {
  const char *out; /* as the command line names it */
  int npy, force;
} cli_capfile;

/* Exit codes, 0: go on; the line has been printed. */

/* By the names alone, and what is there. */
int cli_capfile_check(const cli_capfile *f);
/* That --force would remove nothing but an earlier capture; dir: the model's. */
int cli_capfile_look(const cli_capfile *f, const char *dir);
/* Writes under another name beside it and renames the whole. metadata: key, value, ..., NULL. */
int cli_capfile_write(const cli_capfile *f, const pf_tensor *t, size_t n,
                      const char *const *metadata);

#endif
