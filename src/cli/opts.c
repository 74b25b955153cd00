/* SPDX-License-Identifier: Apache-2.0
 * Options of a command by its table. getopt_long finds them (so they may be shortened and stand
 * anywhere); the lines about what is wrong are ours, in one form for all commands. */
#include "cli/opts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST = 256, HELP = FIRST - 1, COLUMN = 23, WIDTH = 98 };

/* ---- help ------------------------------------------------------------------------------------ */

/* Words from the column on, broken where a line is full. */
static void print_words(const char *text, int at) {
  while (*text) {
    int n = (int)strcspn(text, " ");
    if (at > COLUMN && at + 1 + n > WIDTH)
      printf("\n%*s", at = COLUMN, "");
    else if (at > COLUMN)
      at += printf(" ");
    at += printf("%.*s", n, text);
    text += n + strspn(text + n, " ");
  }
  putchar('\n');
}

static void print_option(const cli_opt *o) {
  int at = o->letter ? printf("  -%c, --%s", o->letter, o->name) : printf("  --%s", o->name);
  at += o->value ? printf(" %s", o->value) : 0;
  if (at >= COLUMN)
    at = printf("\n") - 1;
  printf("%*s", COLUMN - at, "");
  print_words(o->help, COLUMN);
}

static void print_help(const cli_command *c) {
  fputs(c->usage, stdout);
  for (const cli_opt *o = c->opts; o->name; o++)
    if (o->kind == CLI_HEADING)
      printf("%s\n", o->name);
    else
      print_option(o);
  fputs(c->after ? c->after : "", stdout);
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool take_int(const char *command, const char *opt, const char *text, double lo, double hi,
                     int32_t *to) {
  long v;
  if (!cli_int(command, opt, text, (long)lo, (long)hi, &v))
    return false;
  *to = (int32_t)v;
  return true;
}

static bool take_seed(const char *command, const char *opt, const char *text, uint64_t *to) {
  long v;
  if (!cli_int(command, opt, text, 0, INT64_MAX, &v))
    return false;
  *to = (uint64_t)v;
  return true;
}

static bool take_word(const char *command, const char *opt, const char *text,
                      const char *const *words, int *to) {
  char list[256] = "";
  for (int i = 0; words[i]; i++) {
    if (!strcmp(text, words[i]))
      return *to = i, true;
    size_t n = strlen(list);
    snprintf(list + n, sizeof list - n, "%s%s",
             i == 0         ? ""
             : words[i + 1] ? ", "
                            : " or ",
             words[i]);
  }
  cli_usage(command, "%s wants %s, not '%s'", opt, list, text);
  return false;
}

static bool take(const cli_command *c, const cli_opt *o, char *text, void *args) {
  void *to = (char *)args + o->at;
  char opt[64];
  snprintf(opt, sizeof opt, "--%s", o->name);
  switch (o->kind) {
  case CLI_FLAG:
  case CLI_CLEAR:
    *(int *)to = o->kind == CLI_FLAG;
    return true;
  case CLI_TEXT:
    *(const char **)to = text;
    return true;
  case CLI_INT:
    return take_int(c->name, opt, text, o->lo, o->hi, to);
  case CLI_SEED:
    return take_seed(c->name, opt, text, to);
  case CLI_REAL:
    return cli_real(c->name, opt, text, o->lo, o->hi, to);
  case CLI_SIZE:
    return cli_size(c->name, opt, text, to);
  case CLI_PRECISION:
    return cli_precision(c->name, text, to);
  case CLI_WORD:
    return take_word(c->name, opt, text, o->words, to);
  case CLI_CALL:
    return o->take(c->name, o, text, to);
  case CLI_HEADING:
    break;
  }
  return false;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static size_t count(const cli_opt *opts) {
  size_t n = 0;
  while (opts[n].name)
    n++;
  return n;
}

/* What getopt wants to know: long options (the place in the table is in val) and letters. */
static struct option *spell(const cli_opt *opts, char *letters, size_t room) {
  size_t n = count(opts), k = 0;
  struct option *l = calloc(n + 2, sizeof *l);
  size_t end = (size_t)snprintf(letters, room, ":h");
  for (size_t i = 0; l && i < n; i++) {
    if (opts[i].kind == CLI_HEADING)
      continue;
    l[k++] = (struct option){opts[i].name, opts[i].value ? required_argument : no_argument, NULL,
                             FIRST + (int)i};
    if (opts[i].letter)
      end += (size_t)snprintf(letters + end, room - end, "%c%s", opts[i].letter,
                              opts[i].value ? ":" : "");
  }
  if (l)
    l[k] = (struct option){"help", no_argument, NULL, HELP};
  return l;
}

static const cli_opt *by_letter(const cli_opt *o, int letter) {
  while (o->name && (o->kind == CLI_HEADING || o->letter != letter))
    o++;
  return o->name ? o : NULL;
}

/* Why getopt did not like a word. */
static int complain(const cli_command *c, const char *word, int found) {
  size_t n = strcspn(word, "=");
  char like[256] = "";
  int several = 0;
  for (const cli_opt *o = c->opts; o->name && n > 2; o++)
    if (o->kind != CLI_HEADING && !strncmp(word + 2, o->name, n - 2)) {
      size_t at = strlen(like);
      snprintf(like + at, sizeof like - at, "%s--%s", several++ ? ", " : "", o->name);
    }
  if (found == '?' && optopt > 0 && optopt < HELP)
    return cli_usage(c->name, "unknown option '-%c'", optopt);
  if (found == ':')
    return cli_usage(c->name, "%s needs a value", word);
  if (several > 1)
    return cli_usage(c->name, "%s may be %s", word, like);
  if (several == 1)
    return cli_usage(c->name, "%.*s takes no value", (int)n, word);
  return cli_usage(c->name, "unknown option '%s'", word);
}

/* The last of two folders or files would win, and nobody would see that the first had not counted.
 * (Of numbers and words the last wins: scripts change what a wrapper has set.) */
static bool first_time(const cli_command *c, const cli_opt *o, bool *seen) {
  bool again = o->kind == CLI_TEXT && seen[o - c->opts];
  seen[o - c->opts] = true;
  if (again)
    cli_usage(c->name, "--%s is given twice", o->name);
  return !again;
}

/* One option that getopt has found; false: the command ends with *code. */
static bool one(const cli_command *c, void *args, int found, const char *word, bool *seen,
                int *code) {
  const cli_opt *o = found >= FIRST ? &c->opts[found - FIRST] : by_letter(c->opts, found);
  if (found == 'h' || found == HELP)
    return print_help(c), false;
  if (!o)
    return *code = complain(c, word, found), false;
  return (first_time(c, o, seen) && take(c, o, optarg, args)) || (*code = 2, false);
}

bool cli_options(const cli_command *c, void *args, int argc, char **argv, int *code) {
  char letters[64];
  struct option *l = spell(c->opts, letters, sizeof letters);
  bool *seen = calloc(count(c->opts) + 1, sizeof *seen), fine = l && seen;
  *code = fine ? 0 : cli_fail(PF_ENOMEM);
  opterr = 0; /* the lines are ours */
  optind = 0; /* from the start */
  for (int f; fine && (f = getopt_long(argc, argv, letters, l, NULL)) != -1;)
    fine = one(c, args, f, argv[optind - 1], seen, code);
  free(l);
  free(seen);
  return fine;
}
