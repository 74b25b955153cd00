/* SPDX-License-Identifier: Apache-2.0
 * personaflow study: the additive-substitution study of a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow study MODEL --out DIR [OPTIONS]\n"
    "Runs the study of \"As X, Do Y\" (arXiv 2605.23147): for every persona and task, how much the "
    "model's\n"
    "answer changes when a residual of the prompt is replaced by the sum of a persona part and a "
    "task part.\n"
    "MODEL is a Hugging Face directory, or org/name[@revision] in the Hugging Face cache.\n\n";

static const char after[] =
    "\nAn interrupted study (Ctrl-C, SIGTERM, kill) keeps every finished unit; the same command "
    "gives the same bytes\n"
    "as a run without a break. Exit codes: 0 done, 2 usage or results exist, 3 input or output, 4 "
    "incomplete and resumable,\n"
    "5 environment.\n";

typedef struct args {
  pf_study_opts o;
  int quiet, json;
} args;

/* ---- options --------------------------------------------------------------------------------- */

/* The variables in which launchers say which of how many a process is, where they count from and
 * by how much. */
static const struct {
  const char *rank, *size, *first, *step;
} launchers[] = {
    {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
     "SLURM_ARRAY_TASK_STEP"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL, NULL},
    {"PMI_RANK", "PMI_SIZE", NULL, NULL},
    {"SLURM_PROCID", "SLURM_NTASKS", NULL, NULL},
};

static bool env_int(const char *name, long *out) {
  const char *s = name ? getenv(name) : NULL;
  char *end;
  if (!s || !*s)
    return false;
  *out = strtol(s, &end, 10);
  return !*end;
}

static bool take_auto(pf_study_opts *o) {
  for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
    long rank, size, first = 0, step = 1;
    if (!env_int(launchers[i].rank, &rank) || !env_int(launchers[i].size, &size))
      continue;
    env_int(launchers[i].first, &first);
    env_int(launchers[i].step, &step);
    rank -= first;
    if (size < 1 || size > 1 << 20 || step < 1 || rank < 0 || rank % step || rank / step >= size)
      return cli_usage("study", "--shard auto: %s and %s make no shard%s", launchers[i].rank,
                       launchers[i].size,
                       launchers[i].step ? ": the ids of the array must be evenly spaced, such as "
                                           "1-8 or 1-9:4; else give --shard I/N"
                                         : ""),
             false;
    o->shard = (int)(rank / step);
    o->shards = (int)size;
    return true;
  }
  return cli_usage("study", "--shard auto: no Slurm array and no MPI launcher in the environment"),
         false;
}

static bool take_shard(const char *command, const cli_opt *opt, char *text, void *to) {
  pf_study_opts *o = to;
  int i, n, end = 0;
  (void)opt;
  if (!strcmp(text, "auto"))
    return take_auto(o);
  if (sscanf(text, "%d/%d%n", &i, &n, &end) != 2 || text[end] || n < 1 || n > 1 << 20 || i < 1 ||
      i > n)
    return cli_usage(command, "--shard wants I/N with 1 <= I <= N, or auto, not '%s'", text), false;
  o->shard = i - 1;
  o->shards = n;
  return true;
}

static const char *const draws[] = {"paper", "all", NULL}, *const sharing[] = {"on", "off", NULL};

#define AT(field) .at = offsetof(args, field)
static const cli_opt opts[] = {
    {"out", 0, "DIR", "where the results go: report.html, summary.json, results.jsonl, ...",
     CLI_TEXT, AT(o.out_dir)},
    {"grid", 0, "G",
     "short, long (the paper's), demo, a grid file, or - (standard input); default short", CLI_TEXT,
     AT(o.grid)},
    {"layers", 0, "LIST",
     "layers to substitute at, such as 3,5,8-10 or all; default: the grid's, else at 25, 40, 55, "
     "70 and 85 % of the depth",
     CLI_TEXT, AT(o.layers)},
    {"protocol", 0, "P", "full (default): all experiments, 64 tokens of answer; paper: the paper's",
     CLI_TEXT, AT(o.protocol)},
    {"only", 0, "LIST", "these experiments of the protocol, such as additive,y", CLI_TEXT,
     AT(o.only)},
    {"baseline", 0, "P[,T]", "another baseline persona (and task) of the grid's controls, by key",
     CLI_TEXT, AT(o.baseline)},
    {"paraphrase", 0, "KEY",
     "another way to say persona and task: you-are, system, respond-as, or the grid's own "
     "(personaflow grid lists both)",
     CLI_TEXT, AT(o.paraphrase)},
    {"markers", 0, "M",
     "marker lists that texts are scored on: paper, full, or a marker file; default: the grid's "
     "own, else paper for the paper's texts and full for C2",
     CLI_TEXT, AT(o.markers)},
    {"conflicts", 0, NULL,
     "the personas and tasks of the grid's conflicting cells, crossed, in place of its own",
     CLI_FLAG, AT(o.conflicts)},
    {"draws", 0, "D",
     "paper (default): the random draws of C1 at the paper's site and layer; all: repeated at "
     "every site and layer",
     CLI_WORD, AT(o.all_draws), .words = draws},
    {"resume", 0, NULL, "go on with what DIR holds of this study: the default", CLI_CLEAR,
     AT(o.no_resume)},
    {"no-resume", 0, NULL, "refuse a DIR that holds results", CLI_FLAG, AT(o.no_resume)},
    {"force", 0, NULL, "start again over what DIR holds", CLI_FLAG, AT(o.force)},
    {"shard", 0, "I/N",
     "every N-th cell, from the I-th (1 to N), into DIR/shard-I-of-N; auto: I and N from the "
     "environment of a Slurm array or an MPI launcher; `personaflow merge DIR` joins the shards",
     CLI_CALL, AT(o), .take = take_shard},
    {"dry-run", 0, NULL,
     "print what this command would compute (the shard, less what DIR holds): cells, row-layers, "
     "memory and time; write nothing",
     CLI_FLAG, AT(o.dry_run)},
    CLI_THREADS(args, o.threads),
    CLI_PRECISIONS(args, o.precision),
    {"memory", 0, "SIZE", "what it may take beside the weights, such as 800M or 2G; default 1.5G",
     CLI_SIZE, AT(o.memory)},
    {"sharing", 0, "on|off",
     "off: whole forward passes for every substitution: slow, the same results", CLI_WORD,
     AT(o.no_sharing), .words = sharing},
    {"quiet", 0, NULL, "no progress and no table", CLI_FLAG, AT(quiet)},
    {"json", 0, NULL,
     "print summary.json instead of the table; with --dry-run the plan as one object", CLI_FLAG,
     AT(json)},
    {0}};
#undef AT

/* summary.json is made of the additive sweep. */
static bool sweeps(const char *only) {
  static const char name[] = "additive";
  for (const char *at = only; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
    if (strcspn(at, ",") == strlen(name) && !strncmp(at, name, strlen(name)))
      return true;
  return !only;
}

/* What is to be printed; an exit code. */
static int check_output(args *a) {
  if (a->o.dry_run) {
    a->o.dry_run += a->json;
    return a->quiet && !a->json ? cli_usage("study", "--quiet leaves nothing of --dry-run") : 0;
  }
  if (a->json && !sweeps(a->o.only))
    return cli_usage("study",
                     "--json prints summary.json, which `--only %s` does not make: add "
                     "additive to it",
                     a->o.only);
  if (a->json && a->o.shards > 1)
    return cli_usage("study", "--json prints summary.json, which `personaflow merge` makes of "
                              "shards");
  return 0;
}

/* What stands between the options; an exit code. */
static int take_words(args *a, int n, char **words) {
  if (n != 1)
    return cli_usage("study", n == 0 ? "which MODEL?" : "unexpected argument '%s'", words[n - 1]);
  a->o.model = words[0];
  if (!a->o.out_dir && !a->o.dry_run)
    return cli_usage("study", "where do the results go? --out DIR");
  return 0;
}

/* ---- the study ------------------------------------------------------------------------------- */

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
  args a = {.o = {.grid = "short"}};
  int code;
  if (!cli_options(&(cli_command){"study", usage, opts, after}, &a, argc, argv, &code) ||
      (code = take_words(&a, argc - optind, argv + optind)) != 0 || (code = check_output(&a)) != 0)
    return code;
  if (!a.quiet || a.o.dry_run) {
    a.o.progress = a.quiet ? NULL : cli_progress;
    a.o.log = cli_print_line;
    a.o.log_user = a.json && !a.o.dry_run ? stderr : stdout;
  }
  a.o.stop = cli_stop_on_signals();
  int rc = pf_study_run(&a.o);
  if (rc != PF_OK)
    return cli_fail(rc);
  return a.json && !a.o.dry_run ? print_summary(a.o.out_dir) : 0;
}
