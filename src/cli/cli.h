/* SPDX-License-Identifier: Apache-2.0
 * What the sub-commands share. The program sees the public headers only. */
#ifndef PF_CLI_H
#define PF_CLI_H

#include <getopt.h>
#include <stdbool.h>

#include "personaflow/personaflow.h"

/* One sub-command: argv[0] is "personaflow NAME". Returns the exit code. */
typedef int (*pf_command_fn)(int argc, char **argv);
#define PF_COMMAND(name, fn, summary) int fn(int argc, char **argv);
#include "cli/commands.def"
#undef PF_COMMAND

/* Prints "personaflow: <last error>" on stderr and returns the exit code of the status. */
int cli_fail(int status);
/* Prints "personaflow CMD: message; see personaflow CMD --help" and returns 2. */
int cli_usage(const char *cmd, const char *fmt, ...) PF_PRINTF(2, 3);
/* Whole numbers and reals with their range checked; false after printing a usage line. */
bool cli_int(const char *cmd, const char *opt, const char *text, long lo, long hi, long *out);
bool cli_real(const char *cmd, const char *opt, const char *text, double lo, double hi,
              double *out);
/* A number of bytes: "800M", "1.5G", "64K" (powers of 1000) or plain bytes; false after printing a
 * usage line. */
bool cli_size(const char *cmd, const char *opt, const char *text, uint64_t *out);
/* A precision by name; false after printing a usage line. */
bool cli_precision(const char *cmd, const char *text, pf_precision *out);
#define CLI_PRECISION_HELP                                                                         \
  "  --precision P        f32 (default), bf16, bf16-hf or int8; every precision has one set of\n"  \
  "                       bits; int8 weights (personaflow quantize) run as int8\n"
/* "1,2,3" -> ids; false after printing a usage line. */
bool cli_ids(const char *cmd, const char *opt, const char *text, pf_ids *out);
/* Progress on stderr: a bar with ETA on a terminal, a line every few seconds elsewhere. user: NULL.
 */
void cli_progress(void *user, const char *what, uint64_t done, uint64_t total);
/* Seconds on a clock that is never set back. */
double cli_now(void);
/* A line on the stream `user`, a FILE. */
void cli_print_line(void *user, const char *line);
/* SIGINT and SIGTERM set what is returned to 1; a second one ends the program. */
const volatile int *cli_stop_on_signals(void);
/* All of standard input (or a file; "-" is standard input) as a heap string; PF_EINPUT/PF_EIO with
 * a line on stderr. */
char *cli_read_text(const char *path, size_t *n);
/* What error lines call it. */
const char *cli_text_name(const char *path);

#endif
