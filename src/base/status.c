/* SPDX-License-Identifier: Apache-2.0
 * Status codes, their sentences and exit codes in one table; the thread's last error line. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[1024];

static const struct {
  int status, exit_code;
  const char *sentence;
} table[] = {
    {PF_OK, 0, "ok"},
    {PF_EUSAGE, 2, "invalid arguments"},
    {PF_EINPUT, 3, "missing or invalid input"},
    {PF_EIO, 3, "reading or writing failed"},
    {PF_EINCOMPLETE, 4, "the result is incomplete and can be resumed"},
    {PF_ENOMEM, 5, "out of memory"},
    {PF_EENV, 5, "not possible on this machine"},
    {PF_ENUMERIC, 3, "non-finite values"},
    {PF_EEXIST, 2, "results exist already"},
    {PF_EINTERNAL, 70, "internal error"},
};

static size_t row_of(int status) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].status == status)
      return i;
  return sizeof table / sizeof *table - 1;
}

const char *pf_last_error(void) {
  return last_error;
}

const char *pf_strstatus(int status) {
  return table[row_of(status)].sentence;
}

int pf_exit_code(int status) {
  return table[row_of(status)].exit_code;
}

/* Control characters of hostile file names must not reach a terminal or break the one-line promise.
 */
static void make_one_line(char *s) {
  for (; *s; s++)
    if ((unsigned char)*s < 0x20 || *s == 0x7f)
      *s = '?';
}

int pf_fail(int status, const char *fmt, ...) {
  char line[sizeof last_error];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  make_one_line(line);
  memcpy(last_error, line, sizeof line);
  return status;
}

int pf_fail_prefix(int status, const char *fmt, ...) {
  char line[sizeof last_error];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (n < 0 || (size_t)n >= sizeof line - 3)
    return status;
  snprintf(line + n, sizeof line - (size_t)n, ": %.*s", (int)(sizeof line - (size_t)n - 3),
           last_error);
  make_one_line(line);
  memcpy(last_error, line, sizeof line);
  return status;
}
