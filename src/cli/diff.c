/* SPDX-License-Identifier: Apache-2.0
 * personaflow diff A B: compares two snapshots, or one with another program's values. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow diff A B [OPTIONS]\n"
    "Compares two snapshots (personaflow snap): the same, or where the first difference is in\n"
    "order of execution. One of A and B may be a safetensors file or a folder of .npy files with\n"
    "another program's values under names of hook points (Hugging Face's and TransformerLens's\n"
    "names are taken); the other is then a snapshot made with --full.\n"
    "  --prompt ID          compare one prompt only\n"
    "  --atol X, --rtol X   values a, b of A, B are equal when |a - b| <= atol + rtol |b|\n"
    "  --ulp N              or when at most N floats lie between them (--full snapshots)\n"
    "  --json               the result as one JSON object\n"
    "  --junit FILE         write JUnit XML too (- for standard output, in place of the text)\n"
    "  --quiet              print nothing\n"
    "Exit codes: 0 same, 1 different, 2 usage, 3 input.\n";

enum { OPT_PROMPT = 256, OPT_ATOL, OPT_RTOL, OPT_ULP, OPT_JSON, OPT_JUNIT, OPT_QUIET };

typedef struct args {
  pf_diff_opts o;
  const char *junit;
  bool json, quiet;
} args;

/* -1: go on; else an exit code. */
static int option(args *a, int c) {
  switch (c) {
  case 'h':
    return fputs(usage, stdout), 0;
  case OPT_PROMPT:
    return a->o.prompt = optarg, -1;
  case OPT_ATOL:
    return cli_real("diff", "--atol", optarg, 0, 1e300, &a->o.atol) ? -1 : 2;
  case OPT_RTOL:
    return cli_real("diff", "--rtol", optarg, 0, 1e300, &a->o.rtol) ? -1 : 2;
  case OPT_ULP:
    return cli_real("diff", "--ulp", optarg, 0, 4294967295.0, &a->o.ulp) ? -1 : 2;
  case OPT_JSON:
    return a->json = true, -1;
  case OPT_JUNIT:
    return a->junit = optarg, -1;
  case OPT_QUIET:
    return a->quiet = true, -1;
  default:
    return 2;
  }
}

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
  static const struct option options[] = {{"prompt", required_argument, NULL, OPT_PROMPT},
                                          {"atol", required_argument, NULL, OPT_ATOL},
                                          {"rtol", required_argument, NULL, OPT_RTOL},
                                          {"ulp", required_argument, NULL, OPT_ULP},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"junit", required_argument, NULL, OPT_JUNIT},
                                          {"quiet", no_argument, NULL, OPT_QUIET},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  args a = {0};
  pf_diff *d;
  pf_diff_defaults(&a.o);
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    int rc = option(&a, c);
    if (rc >= 0)
      return rc;
  }
  if (optind + 2 != argc)
    return cli_usage("diff", "two snapshots are wanted");
  a.o.a = argv[optind];
  a.o.b = argv[optind + 1];
  int rc = pf_diff_run(&d, &a.o);
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
