/* SPDX-License-Identifier: Apache-2.0
 * personaflow study: the additive-substitution study of a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const char help[] =
    "usage: personaflow study MODEL --out DIR [OPTIONS]\n"
    "Runs the study of \"As X, Do Y\" (arXiv 2605.23147): for every persona and task, how much the "
    "model's\n"
    "answer changes when a residual of the prompt is replaced by the sum of a persona part and a "
    "task part.\n"
    "MODEL is a Hugging Face directory, or org/name[@revision] in the Hugging Face cache.\n\n"
    "  --out DIR          where the results go: report.html, summary.json, results.jsonl, ...\n"
    "  --grid G           short, long (the paper's), demo, or a grid file; default short\n"
    "  --layers LIST      layers to substitute at, such as 3,5,8-10 or all; default: the grid's, "
    "else at 25, 40,\n"
    "                     55, 70 and 85 % of the depth\n"
    "  --protocol P       full (default): all experiments, 64 tokens of answer; paper: the "
    "paper's\n"
    "  --only LIST        these experiments of the protocol, such as additive,y\n"
    "  --baseline P[,T]   another baseline persona (and task) of the grid's controls, by key\n"
    "  --paraphrase KEY   another way to say persona and task: you-are, system, respond-as, or "
    "the\n"
    "                     grid's own (personaflow grid lists both)\n"
    "  --conflicts        the personas and tasks of the grid's conflicting cells, crossed, in "
    "place of\n"
    "                     its own\n"
    "  --draws all        repeat the random draws of C1 at every site and layer; default paper: at "
    "the\n"
    "                     paper's alone\n"
    "  --no-resume        refuse a DIR that holds results; without it a study goes on with what "
    "DIR\n"
    "                     holds of it (--resume)\n"
    "  --force            start again over what DIR holds\n"
    "  --shard I/N        every N-th cell, from the I-th (1 to N), into DIR/shard-I-of-N; auto: I "
    "and N\n"
    "                     from the environment of a Slurm array or an MPI launcher; `personaflow "
    "merge\n"
    "                     DIR` joins the shards\n"
    "  --dry-run          print cells, row-layers, memory and time; write nothing\n"
    "  -t, --threads N    threads; default OMP_NUM_THREADS, else the CPUs of the process\n"
    "  --precision P      f32 (default; the paper's), bf16, bf16-hf or int8; every precision has\n"
    "                     one set of bits; int8 weights (personaflow quantize) run as int8\n"
    "  --memory SIZE      what it may take beside the weights, such as 800M or 2G; default 1.5G\n"
    "  --sharing off      whole forward passes for every substitution: slow, the same results\n"
    "  --quiet            no progress and no table\n"
    "  --json             print summary.json instead of the table\n\n"
    "An interrupted study (Ctrl-C, SIGTERM, kill) keeps every finished unit; the same command "
    "gives "
    "the same bytes\n"
    "as a run without a break. Exit codes: 0 done, 2 usage or results exist, 3 input or output, 4 "
    "incomplete and resumable,\n"
    "5 environment.\n";

enum {
  OPT_OUT = 256,
  OPT_GRID,
  OPT_LAYERS,
  OPT_PROTOCOL,
  OPT_RESUME,
  OPT_NO_RESUME,
  OPT_ONLY,
  OPT_BASELINE,
  OPT_PARAPHRASE,
  OPT_CONFLICTS,
  OPT_DRAWS,
  OPT_SHARD,
  OPT_FORCE,
  OPT_DRY,
  OPT_QUIET,
  OPT_JSON,
  OPT_PRECISION,
  OPT_MEMORY,
  OPT_SHARING,
  OPT_HELP
};

static const struct option options[] = {{"out", required_argument, NULL, OPT_OUT},
                                        {"grid", required_argument, NULL, OPT_GRID},
                                        {"layers", required_argument, NULL, OPT_LAYERS},
                                        {"protocol", required_argument, NULL, OPT_PROTOCOL},
                                        {"resume", no_argument, NULL, OPT_RESUME},
                                        {"no-resume", no_argument, NULL, OPT_NO_RESUME},
                                        {"only", required_argument, NULL, OPT_ONLY},
                                        {"baseline", required_argument, NULL, OPT_BASELINE},
                                        {"paraphrase", required_argument, NULL, OPT_PARAPHRASE},
                                        {"conflicts", no_argument, NULL, OPT_CONFLICTS},
                                        {"draws", required_argument, NULL, OPT_DRAWS},
                                        {"shard", required_argument, NULL, OPT_SHARD},
                                        {"force", no_argument, NULL, OPT_FORCE},
                                        {"dry-run", no_argument, NULL, OPT_DRY},
                                        {"threads", required_argument, NULL, 't'},
                                        {"precision", required_argument, NULL, OPT_PRECISION},
                                        {"memory", required_argument, NULL, OPT_MEMORY},
                                        {"sharing", required_argument, NULL, OPT_SHARING},
                                        {"quiet", no_argument, NULL, OPT_QUIET},
                                        {"json", no_argument, NULL, OPT_JSON},
                                        {"help", no_argument, NULL, OPT_HELP},
                                        {NULL, 0, NULL, 0}};

typedef struct args {
  pf_study_opts o;
  bool quiet, json, help;
} args;

static bool take_draws(args *a) {
  a->o.all_draws = !strcmp(optarg, "all");
  if (a->o.all_draws || !strcmp(optarg, "paper"))
    return true;
  cli_usage("study", "--draws wants all or paper, not '%s'", optarg);
  return false;
}

static bool take_sharing(args *a) {
  a->o.no_sharing = !strcmp(optarg, "off");
  if (a->o.no_sharing || !strcmp(optarg, "on"))
    return true;
  cli_usage("study", "--sharing wants on or off, not '%s'", optarg);
  return false;
}

/* The variables in which launchers say which of how many a process is, and where they count from.
 */
static const struct {
  const char *rank, *size, *first;
} launchers[] = {
    {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL},
    {"PMI_RANK", "PMI_SIZE", NULL},
    {"SLURM_PROCID", "SLURM_NTASKS", NULL},
};

static bool env_int(const char *name, long *out) {
  const char *s = name ? getenv(name) : NULL;
  char *end;
  if (!s || !*s)
    return false;
  *out = strtol(s, &end, 10);
  return !*end;
}

static bool take_auto(args *a) {
  for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
    long rank, size, first = 0;
    if (!env_int(launchers[i].rank, &rank) || !env_int(launchers[i].size, &size))
      continue;
    env_int(launchers[i].first, &first);
    rank -= first;
    if (size < 1 || size > 1 << 20 || rank < 0 || rank >= size)
      return cli_usage("study", "--shard auto: %s and %s make no shard", launchers[i].rank,
                       launchers[i].size),
             false;
    a->o.shard = (int)rank;
    a->o.shards = (int)size;
    return true;
  }
  return cli_usage("study", "--shard auto: no Slurm array and no MPI launcher in the environment"),
         false;
}

static bool take_shard(args *a) {
  int i, n, end = 0;
  if (!strcmp(optarg, "auto"))
    return take_auto(a);
  if (sscanf(optarg, "%d/%d%n", &i, &n, &end) != 2 || optarg[end] || n < 1 || n > 1 << 20 ||
      i < 1 || i > n)
    return cli_usage("study", "--shard wants I/N with 1 <= I <= N, or auto, not '%s'", optarg),
           false;
  a->o.shard = i - 1;
  a->o.shards = n;
  return true;
}

static bool take_option(int c, args *a) {
  long n;
  switch (c) {
  case OPT_OUT:
    a->o.out_dir = optarg;
    return true;
  case OPT_GRID:
    a->o.grid = optarg;
    return true;
  case OPT_LAYERS:
    a->o.layers = optarg;
    return true;
  case OPT_PROTOCOL:
    a->o.protocol = optarg;
    return true;
  case OPT_RESUME:
    a->o.no_resume = 0;
    return true;
  case OPT_NO_RESUME:
    a->o.no_resume = 1;
    return true;
  case OPT_ONLY:
    a->o.only = optarg;
    return true;
  case OPT_BASELINE:
    a->o.baseline = optarg;
    return true;
  case OPT_PARAPHRASE:
    a->o.paraphrase = optarg;
    return true;
  case OPT_CONFLICTS:
    a->o.conflicts = 1;
    return true;
  case OPT_DRAWS:
    return take_draws(a);
  case OPT_SHARD:
    return take_shard(a);
  case OPT_FORCE:
    a->o.force = 1;
    return true;
  case OPT_DRY:
    a->o.dry_run = 1;
    return true;
  case OPT_QUIET:
    a->quiet = true;
    return true;
  case OPT_JSON:
    a->json = true;
    return true;
  case OPT_PRECISION:
    return cli_precision("study", optarg, &a->o.precision);
  case OPT_MEMORY:
    return cli_size("study", "--memory", optarg, &a->o.memory);
  case OPT_SHARING:
    return take_sharing(a);
  case OPT_HELP:
    a->help = true;
    return true;
  case 't':
    if (!cli_int("study", "--threads", optarg, 1, 1024, &n))
      return false;
    a->o.threads = (int)n;
    return true;
  default: /* getopt has said what is wrong */
    return false;
  }
}

static bool take_args(int argc, char **argv, args *a) {
  *a = (args){.o = {.grid = "short"}};
  optind = 1;
  for (int c; (c = getopt_long(argc, argv, "t:", options, NULL)) != -1;)
    if (!take_option(c, a))
      return false;
  if (a->help)
    return true;
  if (optind + 1 != argc)
    return cli_usage("study", optind == argc ? "which MODEL?" : "unexpected argument '%s'",
                     argv[argc - 1]),
           false;
  a->o.model = argv[optind];
  if (!a->o.out_dir && !a->o.dry_run)
    return cli_usage("study", "where do the results go? --out DIR"), false;
  return true;
}

static int print_summary(const char *dir) {
  char path[4400];
  size_t n;
  snprintf(path, sizeof path, "%s/summary.json", dir);
  char *s = cli_read_text(path, &n);
  if (!s)
    return 3;
  fwrite(s, 1, n, stdout);
  free(s);
  return 0;
}

int cmd_study(int argc, char **argv) {
  args a;
  if (!take_args(argc, argv, &a))
    return 2;
  if (a.help) {
    fputs(help, stdout);
    return 0;
  }
  if (!a.quiet) {
    a.o.progress = cli_progress;
    a.o.log = cli_print_line;
    a.o.log_user = a.json && !a.o.dry_run ? stderr : stdout;
  }
  a.o.stop = cli_stop_on_signals();
  int rc = pf_study_run(&a.o);
  if (rc != PF_OK)
    return cli_fail(rc);
  return a.json && !a.o.dry_run ? print_summary(a.o.out_dir) : 0;
}
