/* SPDX-License-Identifier: Apache-2.0
 * personaflow profile MODEL: where a forward pass spends its time. */
#include <stdio.h>
#include <string.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow profile MODEL [OPTIONS]\n"
    "       personaflow profile --compare A B [--by ...] [--sort ...] [--top N]\n"
    "Runs a prompt and a generation and says for each role (norms, attn.q_proj, mlp.act, ...) and "
    "layer what\n"
    "time it took, what it computed and moved, and how that compares with what this machine can "
    "do, measured\n"
    "in the same run. Tokens are drawn at random, the same ones every time.\n";

static const char *const outputs[] = {"table", "csv", "json", NULL};
static const char *const bys[] = {"role", "layer", "row", NULL};
enum { TABLE, CSV }; /* of outputs */

typedef struct args {
  pf_profile_opts o;
  pf_profile_view v;
  int by, output, compare, quiet;
} args;

#define AT(field) .at = offsetof(args, field)
static const cli_opt opts[] = {
    {"prompt", 'p', "N", "tokens of the prompt (128)", CLI_INT, AT(o.prompt), 1, 1 << 20},
    {"generate", 'n', "N", "tokens that are generated behind it (32; 0: none)", CLI_INT,
     AT(o.generate), 0, 1 << 20},
    {"branches", 'b', "N", "branches that generate together (1)", CLI_INT, AT(o.branches), 1,
     65536},
    {"chunk", 'c', "N", "rows of one evaluation of the prompt (0: all)", CLI_INT, AT(o.chunk), 0,
     1 << 20},
    {"repeats", 'r', "N", "repeats, as many again without a profile (5)", CLI_INT, AT(o.repeats), 1,
     1000},
    CLI_THREADS(args, o.threads),
    {"isa", 0, "ISA", "cap the instruction set (personaflow info lists them)", CLI_TEXT, AT(o.isa)},
    CLI_PRECISIONS(args, o.precision),
    {"interventions", 0, "FILE",
     "their actions have rows of their own (doc/INTERVENTIONS.md; - for standard input)", CLI_TEXT,
     AT(o.interventions)},
    {"by", 0, "WHAT",
     "what a line of the table is: role (default; all layers of one), layer (all roles of one), "
     "row "
     "(each role of each layer)",
     CLI_WORD, AT(by), .words = bys},
    {"sort", 0, "COLUMN",
     "time (default), share, calls, flops, bytes, gflops, gbs, intensity, peak, bandwidth, "
     "imbalance; order: as executed",
     CLI_TEXT, AT(v.sort)},
    {"top", 0, "N", "the first N lines of each phase (0: all)", CLI_INT, AT(v.top), 0, 1 << 20},
    {"output", 'o', "FORMAT", "table (default), csv, json", CLI_WORD, AT(output), .words = outputs},
    {"out", 0, "DIR",
     "write profile.json, profile.csv, trace.json (opens in Perfetto) and report.html (a roofline) "
     "too",
     CLI_TEXT, AT(o.out_dir)},
    {"force", 0, NULL, "write over an earlier profile in DIR", CLI_FLAG, AT(o.force)},
    {"compare", 0, NULL,
     "A and B are folders of --out, or profile.json: the change of each line and whether it is "
     "more "
     "than the noise of the repeats; exit code 1 if one is. Several runs a side (A1,A2,A3 "
     "B1,B2,B3) "
     "count once each: made in turn, they tell a change from a machine that was slower for a while",
     CLI_FLAG, AT(compare)},
    CLI_QUIET(args, quiet),
    {0}};
#undef AT

static int print(const args *a, const char *json) {
  char *text = NULL;
  int rc = a->output == TABLE ? pf_profile_table(json, &a->v, &text)
           : a->output == CSV ? pf_profile_csv(json, &text)
                              : PF_OK;
  if (rc != PF_OK)
    return cli_fail(rc);
  fputs(text ? text : json, stdout);
  pf_text_free(text);
  if (a->o.out_dir && a->output == TABLE)
    printf("\nwritten: %s/report.html, trace.json, profile.csv, profile.json\n", a->o.out_dir);
  return 0;
}

static int compare(const args *a, char **argv) {
  char *text;
  size_t changed;
  int rc = pf_profile_compare(argv[0], argv[1], &a->v, &text, &changed);
  if (rc != PF_OK)
    return cli_fail(rc);
  fputs(text, stdout);
  pf_text_free(text);
  return changed ? 1 : 0;
}

int cmd_profile(int argc, char **argv) {
  args a = {.o = {.prompt = 128, .generate = 32, .branches = 1, .repeats = 5}};
  int rc;
  if (!cli_options(&(cli_command){"profile", usage, opts, NULL}, &a, argc, argv, &rc))
    return rc;
  a.v.by = (pf_profile_by)a.by;
  a.o.progress = a.quiet ? NULL : cli_progress;
  if (pf_profile_check_view(&a.v) != PF_OK)
    return cli_fail(PF_EUSAGE);
  if (a.compare)
    return optind + 2 == argc ? compare(&a, argv + optind)
                              : cli_usage("profile", "--compare takes two profiles");
  if (optind + 1 != argc)
    return cli_usage("profile", "one MODEL is wanted");
  a.o.model = argv[optind];
  a.o.stop = cli_stop_on_signals();
  char *json;
  rc = pf_profile_run(&a.o, &json);
  if (rc != PF_OK)
    return cli_fail(rc);
  rc = print(&a, json);
  pf_text_free(json);
  return rc;
}
