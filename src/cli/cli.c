/* SPDX-License-Identifier: Apache-2.0
 * What the sub-commands share: error lines, numbers, progress. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int cli_fail(int status) {
  const char *line = pf_last_error();
  fprintf(stderr, "personaflow: %s\n", *line ? line : pf_strstatus(status));
  return pf_exit_code(status);
}

int cli_usage(const char *cmd, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "personaflow %s: ", cmd);
  vfprintf(stderr, fmt, ap);
  fprintf(stderr, "; see personaflow %s --help\n", cmd);
  va_end(ap);
  return 2;
}

bool cli_int(const char *cmd, const char *opt, const char *text, long lo, long hi, long *out) {
  char *end;
  errno = 0;
  long v = strtol(text, &end, 10);
  if (errno || end == text || *end || v < lo || v > hi) {
    cli_usage(cmd, "%s wants a whole number from %ld to %ld, not '%s'", opt, lo, hi, text);
    return false;
  }
  *out = v;
  return true;
}

bool cli_real(const char *cmd, const char *opt, const char *text, double lo, double hi,
              double *out) {
  char *end;
  double v = strtod(text, &end);
  if (end == text || *end || !isfinite(v) || v < lo || v > hi) {
    cli_usage(cmd, "%s wants a number from %g to %g, not '%s'", opt, lo, hi, text);
    return false;
  }
  *out = v;
  return true;
}

bool cli_size(const char *cmd, const char *opt, const char *text, uint64_t *out) {
  static const struct {
    const char *suffix;
    double factor;
  } units[] = {{"", 1}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}};
  char *end;
  double v = strtod(text, &end);
  for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++)
    if (!strcmp(end, units[i].suffix) && v * units[i].factor >= 1 && v * units[i].factor < 1e18) {
      *out = (uint64_t)(v * units[i].factor);
      return true;
    }
  cli_usage(cmd, "%s wants a size such as 800M or 1.5G, not '%s'", opt, text);
  return false;
}

bool cli_precision(const char *cmd, const char *text, pf_precision *out) {
  if (pf_precision_parse(text, out) != PF_OK) {
    cli_usage(cmd, "--precision: %s", pf_last_error());
    return false;
  }
  return true;
}

bool cli_ids(const char *cmd, const char *opt, const char *text, pf_ids *out) {
  for (const char *p = text; *p;) {
    char *end;
    errno = 0;
    long v = strtol(p, &end, 10);
    if (errno || end == p || v < 0 || v > INT32_MAX || (*end && *end != ',')) {
      cli_usage(cmd, "%s wants token ids such as 1,2,3, not '%s'", opt, text);
      return false;
    }
    if (pf_ids_push(out, (int32_t)v) != PF_OK)
      return cli_fail(PF_ENOMEM), false;
    p = *end ? end + 1 : end;
  }
  return true;
}

static volatile int stop;

static void on_signal(int sig) {
  (void)sig;
  stop = 1;
}

const volatile int *cli_stop_on_signals(void) {
  struct sigaction a = {.sa_handler = on_signal};
  a.sa_flags = (int)SA_RESETHAND; /* a second one ends the program at once */
  sigaction(SIGINT, &a, NULL);
  sigaction(SIGTERM, &a, NULL);
  return &stop;
}

double cli_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_print_line(void *user, const char *line) {
  fprintf(user, "%s\n", line);
}

void cli_progress(void *user, const char *what, uint64_t done, uint64_t total) {
  static double start, last;
  static char current[64];
  (void)user;
  double t = cli_now();
  if (strncmp(current, what, sizeof current - 1) != 0 || done == 0) {
    snprintf(current, sizeof current, "%s", what);
    start = last = t;
  }
  int tty = isatty(STDERR_FILENO);
  if (done < total && t - last < (tty ? 0.1 : 5.0))
    return;
  last = t;
  double eta = done ? (t - start) * (double)(total - done) / (double)done : 0;
  double share = total ? 100.0 * (double)done / (double)total : 100.0;
  char left[32];
  if (!tty) {
    if (t - start >= 5.0)
      fprintf(stderr, "%s: %.0f %%, %s left\n", what, share, pf_duration(eta, left));
    return;
  }
  char bar[31];
  int full = (int)(share * 0.3);
  for (int i = 0; i < 30; i++)
    bar[i] = i < full ? '#' : '.';
  bar[30] = '\0';
  fprintf(stderr, "\r%s [%s] %3.0f %%  %s left \033[K", what, bar, share, pf_duration(eta, left));
  if (done >= total)
    fputs("\r\033[K", stderr);
}

static char *read_stream(FILE *f, size_t *n) {
  char *s = NULL;
  size_t cap = 0;
  *n = 0;
  for (;;) {
    if (cap - *n < 4096) {
      char *q = realloc(s, cap += 65536);
      if (!q)
        break;
      s = q;
    }
    size_t got = fread(s + *n, 1, cap - *n - 1, f);
    *n += got;
    if (got == 0) {
      if (ferror(f))
        break;
      s[*n] = '\0';
      return s;
    }
  }
  free(s);
  return NULL;
}

const char *cli_text_name(const char *path) {
  return strcmp(path, "-") != 0 ? path : "standard input";
}

char *cli_read_text(const char *path, size_t *n) {
  bool std = !strcmp(path, "-");
  FILE *f = std ? stdin : fopen(path, "rb");
  errno = f ? 0 : errno;
  char *s = f ? read_stream(f, n) : NULL;
  if (!s)
    fprintf(stderr, "personaflow: %s: cannot read: %s\n", cli_text_name(path), strerror(errno));
  if (f && !std)
    fclose(f);
  return s;
}
