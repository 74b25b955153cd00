/* SPDX-License-Identifier: Apache-2.0
 * personaflow bisect SNAPSHOT: the first operation that does not give what a snapshot has. */
#include <stdio.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow bisect SNAPSHOT [OPTIONS]\n"
    "Runs the snapshot's prompts again, by default as it was made, and finds the first operation\n"
    "in order of execution whose result is another: its kernels, and digests and shapes of its\n"
    "operands and weights, from which a test of a kernel can be made. Of another model: the first\n"
    "tensor, and the first element of it, that differs too.\n";

static const char after[] =
    "Exit codes: 0 nothing differs, 1 different, 2 usage, 3 input, 5 environment.\n";

typedef struct args {
  pf_bisect_opts o;
  int json, quiet;
} args;

#define AT(field) .at = offsetof(args, field)
static const cli_opt opts[] = {
    {"model", 0, "MODEL", "run this model (default: the snapshot's)", CLI_TEXT, AT(o.model)},
    {"isa", 0, "NAME", "with this instruction set at most", CLI_TEXT, AT(o.isa)},
    {"chunk", 0, "N", "prompt rows of one evaluation", CLI_INT, AT(o.chunk), 1, INT32_MAX},
    CLI_THREADS(args, o.threads),
    {"precision", 0, "P", "f32, bf16, bf16-hf or int8 (default: the snapshot's)", CLI_PRECISION,
     AT(o.precision)},
    {"prompt", 0, "ID", "this prompt only", CLI_TEXT, AT(o.prompt)},
    {"out", 0, "DIR",
     "keep the operation's values, candidate's and reference's, in the new folder DIR", CLI_TEXT,
     AT(o.out_dir)},
    {"json", 0, NULL, "the result as one JSON object", CLI_FLAG, AT(json)},
    CLI_QUIET(args, quiet),
    {0}};
#undef AT

int cmd_bisect(int argc, char **argv) {
  args a = {0};
  pf_diff *d;
  char *text;
  size_t n;
  int rc;
  if (!cli_options(&(cli_command){"bisect", usage, opts, after}, &a, argc, argv, &rc))
    return rc;
  if (optind + 1 != argc)
    return cli_usage("bisect", "one SNAPSHOT is wanted");
  a.o.snapshot = argv[optind];
  a.o.progress = a.quiet ? NULL : cli_progress;
  rc = pf_bisect_run(&d, &a.o);
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
