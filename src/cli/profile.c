/* SPDX-License-Identifier: Apache-2.0
 * personaflow profile MODEL: where a forward pass spends its time. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow profile MODEL [OPTIONS]\n"
    "       personaflow profile --compare A B [--by ...] [--sort ...] [--top N]\n"
    "Runs a prompt and a generation and says for each role (norms, attn.q_proj, mlp.act, ...) and "
    "layer what\n"
    "time it took, what it computed and moved, and how that compares with what this machine can "
    "do, measured\n"
    "in the same run. Tokens are drawn at random, the same ones every time.\n"
    "  -p, --prompt N       tokens of the prompt (128)\n"
    "  -n, --generate N     tokens that are generated behind it (32; 0: none)\n"
    "  -b, --branches N     branches that generate together (1)\n"
    "  -c, --chunk N        rows of one evaluation of the prompt (0: all)\n"
    "  -r, --repeats N      repeats, as many again without a profile (5)\n"
    "  -t, --threads N      threads\n"
    "  --isa ISA            cap the instruction set (personaflow info lists "
    "them)\n" CLI_PRECISION_HELP
    "  --interventions FILE their actions have rows of their own (doc/INTERVENTIONS.md)\n"
    "  --by role|layer|row  what a line of the table is: all layers of a role (default), all "
    "roles\n"
    "                       of a layer, each role of each layer\n"
    "  --sort COLUMN        time (default), share, calls, flops, bytes, gflops, gbs, intensity,\n"
    "                       peak, bandwidth, imbalance; order: as executed\n"
    "  --top N              the first N lines of each phase (0: all)\n"
    "  -o, --output FORMAT  table (default), csv, json\n"
    "  --out DIR            write profile.json, profile.csv, trace.json (opens in Perfetto) and\n"
    "                       report.html (a roofline) too\n"
    "  --force              write over an earlier profile in DIR\n"
    "  --compare            A and B are folders of --out, or profile.json: the change of each "
    "line\n"
    "                       and whether it is more than the noise of the repeats; exit code 1 if\n"
    "                       one is. Several runs a side (A1,A2,A3 B1,B2,B3) count once each: made\n"
    "                       in turn, they tell a change from a machine that was slower for a "
    "while\n"
    "  --quiet              no progress\n";

enum {
  OPT_PRECISION = 256,
  OPT_ISA,
  OPT_INTERVENTIONS,
  OPT_BY,
  OPT_SORT,
  OPT_TOP,
  OPT_OUT,
  OPT_FORCE,
  OPT_COMPARE,
  OPT_QUIET
};

static const struct option options[] = {
    {"prompt", required_argument, NULL, 'p'},
    {"generate", required_argument, NULL, 'n'},
    {"branches", required_argument, NULL, 'b'},
    {"chunk", required_argument, NULL, 'c'},
    {"repeats", required_argument, NULL, 'r'},
    {"threads", required_argument, NULL, 't'},
    {"isa", required_argument, NULL, OPT_ISA},
    {"precision", required_argument, NULL, OPT_PRECISION},
    {"interventions", required_argument, NULL, OPT_INTERVENTIONS},
    {"by", required_argument, NULL, OPT_BY},
    {"sort", required_argument, NULL, OPT_SORT},
    {"top", required_argument, NULL, OPT_TOP},
    {"output", required_argument, NULL, 'o'},
    {"out", required_argument, NULL, OPT_OUT},
    {"force", no_argument, NULL, OPT_FORCE},
    {"compare", no_argument, NULL, OPT_COMPARE},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, 'h'},
    {0}};

typedef enum output { TABLE, CSV, JSON, N_OUTPUTS } output;
static const char *const outputs[N_OUTPUTS] = {"table", "csv", "json"};
static const char *const bys[] = {"role", "layer", "row"};

typedef struct args {
  pf_profile_opts o;
  pf_profile_view v;
  output output;
  bool compare;
} args;

static int number(const char *name, long lo, long hi, int32_t *out) {
  long v;
  if (!cli_int("profile", name, optarg, lo, hi, &v))
    return 2;
  *out = (int32_t)v;
  return -1;
}

/* The place of a word in a list, -1 after a usage line. */
static int word(const char *name, const char *const *list, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(optarg, list[i]))
      return i;
  cli_usage("profile", "%s: '%s' is none of them", name, optarg);
  return -1;
}

/* -1: go on; else an exit code. */
static int option(args *a, int c) {
  int k;
  switch (c) {
  case 'h':
    return fputs(usage, stdout), 0;
  case 'p':
    return number("--prompt", 1, 1 << 20, &a->o.prompt);
  case 'n':
    return number("--generate", 0, 1 << 20, &a->o.generate);
  case 'b':
    return number("--branches", 1, 65536, &a->o.branches);
  case 'c':
    return number("--chunk", 0, 1 << 20, &a->o.chunk);
  case 'r':
    return number("--repeats", 1, 1000, &a->o.repeats);
  case 't':
    return number("--threads", 1, 1024, &a->o.threads);
  case OPT_ISA:
    return a->o.isa = optarg, -1;
  case OPT_PRECISION:
    return cli_precision("profile", optarg, &a->o.precision) ? -1 : 2;
  case OPT_INTERVENTIONS:
    return a->o.interventions = optarg, -1;
  case OPT_BY:
    k = word("--by", bys, 3);
    return a->v.by = (pf_profile_by)k, k < 0 ? 2 : -1;
  case OPT_SORT:
    return a->v.sort = optarg, -1;
  case OPT_TOP:
    return number("--top", 0, 1 << 20, &a->v.top);
  case 'o':
    k = word("--output", outputs, N_OUTPUTS);
    return a->output = (output)k, k < 0 ? 2 : -1;
  case OPT_OUT:
    return a->o.out_dir = optarg, -1;
  case OPT_FORCE:
    return a->o.force = 1, -1;
  case OPT_COMPARE:
    return a->compare = true, -1;
  case OPT_QUIET:
    return a->o.progress = NULL, -1;
  default:
    return 2;
  }
}

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
  args a = {
      .o = {.prompt = 128, .generate = 32, .branches = 1, .repeats = 5, .progress = cli_progress}};
  for (int c; (c = getopt_long(argc, argv, "p:n:b:c:r:t:o:", options, NULL)) != -1;) {
    int rc = option(&a, c);
    if (rc >= 0)
      return rc;
  }
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
  int rc = pf_profile_run(&a.o, &json);
  if (rc != PF_OK)
    return cli_fail(rc);
  rc = print(&a, json);
  pf_text_free(json);
  return rc;
}
