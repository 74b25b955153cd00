/* SPDX-License-Identifier: Apache-2.0
 * The program: finds the sub-command and runs it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const struct {
  const char *name;
  pf_command_fn run;
  const char *summary;
} commands[] = {
#define PF_COMMAND(name, fn, summary) {name, fn, summary},
#include "cli/commands.def"
#undef PF_COMMAND
};

static void help(FILE *f) {
  fputs("usage: personaflow COMMAND [OPTIONS]\n\ncommands:\n", f);
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fputs("\n'personaflow COMMAND --help' or 'personaflow help COMMAND' explains a command; "
        "'personaflow "
        "--version' prints the version.\n",
        f);
}

/* A command that could not write all of its output did not succeed. */
static int finish(int code) {
  if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
    fprintf(stderr, "personaflow: standard output: cannot write: %s\n", strerror(errno));
    return 3;
  }
  return code;
}

/* argv[0] of a command is its full name: getopt puts it before what it has to say. */
static int run(pf_command_fn command, int argc, char **argv) {
  static char name[64];
  snprintf(name, sizeof name, "personaflow %s", argv[0]);
  argv[0] = name;
  return finish(command(argc, argv));
}

/* words: the command's name and what follows it. */
static int run_named(char **words, int n) {
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (!strcmp(words[0], commands[i].name))
      return run(commands[i].run, n, words);
  fprintf(stderr, "personaflow: unknown command '%s'; 'personaflow --help' lists them\n", words[0]);
  return 2;
}

extern char **environ; /* POSIX leaves its declaration to the program */

/* A misspelt variable would change nothing and say nothing. */
static void warn_of_unknown_variables(void) {
  static const char prefix[] = "PERSONAFLOW_";
  static const char *const known[] = {"ISA", "IO", "DATADIR", "TESTDATA", "REQUIRE_ISA"};
  for (char **e = environ; *e; e++) {
    size_t n = strcspn(*e, "="), i = 0, k = sizeof prefix - 1;
    if (n < k || strncmp(*e, prefix, k) != 0)
      continue;
    while (i < sizeof known / sizeof *known &&
           (strlen(known[i]) != n - k || strncmp(*e + k, known[i], n - k) != 0))
      i++;
    if (i == sizeof known / sizeof *known)
      fprintf(stderr, "personaflow: warning: the variable %.*s is unknown and ignored\n", (int)n,
              *e);
  }
}

int main(int argc, char **argv) {
  warn_of_unknown_variables();
  if (argc < 2) {
    help(stderr);
    return 2;
  }
  if (!strcmp(argv[1], "help") && argc > 2) {
    static char option[] = "--help";
    return run_named((char *[]){argv[2], option, NULL}, 2);
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
    help(stdout);
    return finish(0);
  }
  if (!strcmp(argv[1], "--version")) {
    printf("personaflow %s (numerics contract %d)\n", pf_version(), pf_contract_version());
    return finish(0);
  }
  return run_named(argv + 1, argc - 1);
}
