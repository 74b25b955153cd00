/* SPDX-License-Identifier: Apache-2.0
 * personaflow verify: the digests of the demo models under every instruction set of this machine.
 * Each instruction set runs in a process of its own: one that dies is a result too. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow verify [OPTIONS]\n"
    "Is this machine computing right? Computes the logits of the demo models in every precision\n"
    "with every instruction set that this build and this CPU have, all positions in one call and\n"
    "one at a time, and compares their digests with the shipped ones. Takes seconds.\n";

static const char after[] =
    "Exit codes: 0 all right, 1 a digest differs or a process died, 3 models or digests are not\n"
    "installed, 5 no such instruction set here.\n";

typedef struct args {
  const char *isa;
  pf_precision precision;
  int threads, json, quiet;
} args;

#define AT(field) .at = offsetof(args, field)
static const cli_opt opts[] = {
    {"isa", 0, "NAME", "this instruction set only (default: PERSONAFLOW_ISA, else all)", CLI_TEXT,
     AT(isa)},
    {"precision", 0, "P", "this precision only", CLI_PRECISION, AT(precision)},
    CLI_THREADS(args, threads),
    {"json", 0, NULL, "one JSON object", CLI_FLAG, AT(json)},
    {"quiet", 0, NULL, "print nothing when all is right", CLI_FLAG, AT(quiet)},
    {0}};
#undef AT

/* ---- the process of an instruction set ------------------------------------------------------- */

static void put_row(void *user, const pf_verify_row *r) {
  json_t *o = json_pack("{s:s s:s s:s s:b s:s s:s s:s s:f}", "isa", r->isa, "model", r->model,
                        "precision", pf_precision_name(r->precision), "same", r->same, "want",
                        r->want, "got", r->got, "note", r->note, "seconds", r->seconds);
  json_dumpf(o, user, JSON_COMPACT);
  putc('\n', (FILE *)user);
  fflush(user);
  json_decref(o);
}

static int child(const args *a, const char *isa, int fd) {
  FILE *f = fdopen(fd, "w");
  if (!f)
    return pf_exit_code(PF_EINTERNAL);
  int rc = pf_verify_run(isa, a->precision, a->threads, put_row, f);
  if (rc != PF_OK)
    cli_fail(rc);
  fclose(f);
  return pf_exit_code(rc);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* A process that died leaves a row that says so. */
static void note_death(json_t *rows, const char *isa, int signal) {
  char note[64];
  snprintf(note, sizeof note, "killed by signal %d (%s)", signal, strsignal(signal));
  json_array_append_new(rows, json_pack("{s:s s:s s:s s:b s:s s:s s:s s:f}", "isa", isa, "model",
                                        "", "precision", "", "same", 0, "want", "", "got", "",
                                        "note", note, "seconds", 0.0));
}

static void read_rows(int fd, json_t *rows) {
  FILE *f = fdopen(fd, "r");
  json_t *o;
  while (f && (o = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)))
    json_array_append_new(rows, o);
  if (f)
    fclose(f);
}

/* The exit code of the process; 1 when it died. */
static int run_isa(const args *a, const char *isa, json_t *rows) {
  int fd[2], status;
  fflush(NULL);
  if (pipe(fd) != 0)
    return perror("personaflow: pipe"), 5;
  pid_t p = fork();
  if (p < 0)
    return perror("personaflow: fork"), 5;
  if (p == 0) {
    close(fd[0]);
    _exit(child(a, isa, fd[1]));
  }
  close(fd[1]);
  read_rows(fd[0], rows);
  waitpid(p, &status, 0);
  if (WIFSIGNALED(status))
    return note_death(rows, isa, WTERMSIG(status)), 1;
  return WEXITSTATUS(status);
}

static int run_all(const args *a, json_t *rows) {
  size_t n;
  const char *const *isas = pf_isas(&n), *env = getenv("PERSONAFLOW_ISA"),
                    *one = a->isa        ? a->isa
                           : env && *env ? env
                                         : NULL;
  if (one)
    return run_isa(a, one, rows);
  int rc = 0;
  for (size_t i = 0; i < n && rc <= 1; i++) {
    int r = run_isa(a, isas[i], rows);
    rc = r ? r : rc;
  }
  return rc;
}

/* ---- the report ------------------------------------------------------------------------------ */

static const char *text(const json_t *o, const char *key) {
  return json_string_value(json_object_get(o, key));
}

static void print_text(const json_t *rows, size_t bad) {
  size_t i;
  json_t *r;
  printf("%-11s %-12s %-9s %s\n", "isa", "model", "precision", "digest");
  json_array_foreach((json_t *)rows, i, r) {
    bool same = json_is_true(json_object_get(r, "same"));
    printf("%-11s %-12s %-9s %s", text(r, "isa"), text(r, "model"), text(r, "precision"),
           same ? "ok" : "DIFFERENT");
    if (!same && *text(r, "got"))
      printf(": %s, not %s", text(r, "got"), text(r, "want"));
    if (*text(r, "note"))
      printf(": %s", text(r, "note"));
    putchar('\n');
  }
  printf("%zu of %zu digests are those of numerics contract %d\n", json_array_size(rows) - bad,
         json_array_size(rows), pf_contract_version());
}

static int print_json(const json_t *rows, size_t bad) {
  json_t *o =
      json_pack("{s:s s:s s:i s:s s:s s:s s:b s:O}", "schema", "personaflow-verify/1", "version",
                pf_version(), "contract", pf_contract_version(), "compiler", __VERSION__, "cpu",
                pf_cpu_name(), "features", pf_cpu_features(), "same", bad == 0, "rows", rows);
  if (!o)
    return cli_fail(PF_ENOMEM);
  json_dumpf(o, stdout, JSON_INDENT(1));
  putchar('\n');
  json_decref(o);
  return 0;
}

static int verify(const args *a) {
  json_t *rows = json_array(), *r;
  size_t i, bad = 0;
  int rc = run_all(a, rows);
  json_array_foreach(rows, i, r) bad += !json_is_true(json_object_get(r, "same"));
  if (rc <= 1 && a->json)
    rc = print_json(rows, bad) ? 70 : rc;
  else if (rc <= 1 && (bad || !a->quiet))
    print_text(rows, bad);
  json_decref(rows);
  return rc == 0 && bad ? 1 : rc;
}

int cmd_verify(int argc, char **argv) {
  args a = {0};
  int rc;
  if (!cli_options(&(cli_command){"verify", usage, opts, after}, &a, argc, argv, &rc))
    return rc;
  if (optind < argc)
    return cli_usage("verify", "unexpected argument '%s'", argv[optind]);
  return verify(&a);
}
