/* SPDX-License-Identifier: Apache-2.0
 * personaflow diff A B: compares two snapshots, or one with another program's values. */
#include <stdio.h>
#include <string.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow diff A B [OPTIONS]\n"
    "Compares two snapshots (personaflow snap): the same, or where the first difference is in\n"
    "order of execution. One of A and B may be a safetensors file or a folder of .npy files with\n"
    "another program's values under names of hook points (Hugging Face's and TransformerLens's\n"
    "names are taken); the other is then a snapshot made with --full.\n";

static const char after[] = "Exit codes: 0 same, 1 different, 2 usage, 3 input.\n";

typedef struct args {
  pf_diff_opts o;
  const char *junit;
  int json, quiet;
} args;

#define AT(field) .at = offsetof(args, field)
static const cli_opt opts[] = {
    {"prompt", 0, "ID", "compare one prompt only", CLI_TEXT, AT(o.prompt)},
    {"atol", 0, "X", "values a, b of A, B are equal when |a - b| <= atol + rtol |b|", CLI_REAL,
     AT(o.atol), 0, 1e300},
    {"rtol", 0, "X", "see --atol", CLI_REAL, AT(o.rtol), 0, 1e300},
    {"ulp", 0, "N", "or when at most N floats lie between them (--full snapshots)", CLI_REAL,
     AT(o.ulp), 0, 4294967295.0},
    {"json", 0, NULL, "the result as one JSON object", CLI_FLAG, AT(json)},
    {"junit", 0, "FILE", "write JUnit XML too (- for standard output, in place of the text)",
     CLI_TEXT, AT(junit)},
    {"quiet", 0, NULL, "print nothing", CLI_FLAG, AT(quiet)},
    {0}};
#undef AT

static int print(const pf_diff *d, pf_format format, const char *path) {
  char *text;
  size_t n;
  int rc = pf_diff_report(d, format, &text, &n);
  if (rc != PF_OK)
    return cli_fail(rc);
  FILE *f = path && strcmp(path, "-") != 0 ? fopen(path, "w") : stdout;
  bool bad = !f || fwrite(text, 1, n, f) != n;
  if (f && f != stdout)
    bad |= fclose(f) != 0;
  pf_text_free(text);
  if (bad && f != stdout)
    return fprintf(stderr, "personaflow: %s: cannot write\n", path), 3;
  return 0;
}

int cmd_diff(int argc, char **argv) {
  args a = {0};
  pf_diff *d;
  int rc;
  pf_diff_defaults(&a.o);
  if (!cli_options(&(cli_command){"diff", usage, opts, after}, &a, argc, argv, &rc))
    return rc;
  if (optind + 2 != argc)
    return cli_usage("diff", "two snapshots are wanted");
  a.o.a = argv[optind];
  a.o.b = argv[optind + 1];
  rc = pf_diff_run(&d, &a.o);
  if (rc != PF_OK)
    return cli_fail(rc);
  rc = a.junit ? print(d, PF_FORMAT_JUNIT, a.junit) : 0;
  if (rc == 0 && !a.quiet && !(a.junit && !strcmp(a.junit, "-")))
    rc = print(d, a.json ? PF_FORMAT_JSON : PF_FORMAT_TEXT, NULL);
  if (rc == 0)
    rc = pf_diff_same(d) ? 0 : 1;
  pf_diff_free(d);
  return rc;
}
