/* SPDX-License-Identifier: Apache-2.0
 * personaflow bisect SNAPSHOT: the first operation that does not give what a snapshot has. */
#include <stdio.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow bisect SNAPSHOT [OPTIONS]\n"
    "Runs the snapshot's prompts again, by default as it was made, and finds the first operation\n"
    "in order of execution whose result is another: its kernels, and digests and shapes of its\n"
    "operands and weights, from which a test of a kernel can be made. Of another model: the first\n"
    "tensor, and the first element of it, that differs too.\n"
    "  --model MODEL        run this model (default: the snapshot's)\n"
    "  --isa NAME           with this instruction set at most\n"
    "  --chunk N            prompt rows of one evaluation\n"
    "  -t, --threads N      threads\n"
    "  --precision P        f32, bf16, bf16-hf or int8 (default: the snapshot's)\n"
    "  --prompt ID          this prompt only\n"
    "  --out DIR            keep the operation's values, candidate's and reference's, in the new\n"
    "                       folder DIR\n"
    "  --json               the result as one JSON object\n"
    "  --quiet              no progress\n"
    "Exit codes: 0 nothing differs, 1 different, 2 usage, 3 input, 5 environment.\n";

enum {
  OPT_MODEL = 256,
  OPT_ISA,
  OPT_CHUNK,
  OPT_PRECISION,
  OPT_PROMPT,
  OPT_OUT,
  OPT_JSON,
  OPT_QUIET
};

typedef struct args {
  pf_bisect_opts o;
  bool json;
} args;

static int number(const char *name, long hi, int32_t *out) {
  long v;
  if (!cli_int("bisect", name, optarg, 1, hi, &v))
    return 2;
  *out = (int32_t)v;
  return -1;
}

/* -1: go on; else an exit code. */
static int option(args *a, int c) {
  switch (c) {
  case 'h':
    return fputs(usage, stdout), 0;
  case OPT_MODEL:
    return a->o.model = optarg, -1;
  case OPT_ISA:
    return a->o.isa = optarg, -1;
  case OPT_CHUNK:
    return number("--chunk", INT32_MAX, &a->o.chunk);
  case 't':
    return number("--threads", 1024, &a->o.threads);
  case OPT_PRECISION:
    return cli_precision("bisect", optarg, &a->o.precision) ? -1 : 2;
  case OPT_PROMPT:
    return a->o.prompt = optarg, -1;
  case OPT_OUT:
    return a->o.out_dir = optarg, -1;
  case OPT_JSON:
    return a->json = true, -1;
  case OPT_QUIET:
    return a->o.progress = NULL, -1;
  default:
    return 2;
  }
}

int cmd_bisect(int argc, char **argv) {
  static const struct option options[] = {{"model", required_argument, NULL, OPT_MODEL},
                                          {"isa", required_argument, NULL, OPT_ISA},
                                          {"chunk", required_argument, NULL, OPT_CHUNK},
                                          {"threads", required_argument, NULL, 't'},
                                          {"precision", required_argument, NULL, OPT_PRECISION},
                                          {"prompt", required_argument, NULL, OPT_PROMPT},
                                          {"out", required_argument, NULL, OPT_OUT},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"quiet", no_argument, NULL, OPT_QUIET},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  args a = {.o = {.progress = cli_progress}};
  pf_diff *d;
  char *text;
  size_t n;
  for (int c; (c = getopt_long(argc, argv, "t:", options, NULL)) != -1;) {
    int rc = option(&a, c);
    if (rc >= 0)
      return rc;
  }
  if (optind + 1 != argc)
    return cli_usage("bisect", "one SNAPSHOT is wanted");
  a.o.snapshot = argv[optind];
  int rc = pf_bisect_run(&d, &a.o);
  if (rc != PF_OK)
    return cli_fail(rc);
  rc = pf_diff_report(d, a.json ? PF_FORMAT_JSON : PF_FORMAT_TEXT, &text, &n);
  if (rc == PF_OK) {
    fwrite(text, 1, n, stdout);
    pf_text_free(text);
  }
  int code = rc != PF_OK ? cli_fail(rc) : pf_diff_same(d) ? 0 : 1;
  pf_diff_free(d);
  return code;
}
