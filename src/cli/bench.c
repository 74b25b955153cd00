/* SPDX-License-Identifier: Apache-2.0
 * personaflow bench: tokens a second, with the options and outputs of llama-bench where they mean
 * the same. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow bench -m MODEL[,MODEL...] [OPTIONS]\n"
    "Times prompts and generation: tokens drawn at random, nothing sampled, mean and standard "
    "deviation\n"
    "of the repetitions. Options and fields that llama-bench has too mean the same.\n"
    "  -m, --model M[,M...]   models\n"
    "  -p, --n-prompt N,...   prompts of N tokens (512; 0: none)\n"
    "  -n, --n-gen N,...      generation of N tokens (128; 0: none)\n"
    "  -npl N,...             branches that generate together (1), as llama-batched-bench\n"
    "  -d, --n-depth N        tokens that are there before each test (0)\n"
    "  -b, --batch-size N     tokens of a prompt in one call (2048)\n"
    "  -t, --threads N        threads (all CPUs)\n"
    "  -r, --repetitions N    repetitions (5)\n"
    "  -o, --output FORMAT    md (default), csv, json, jsonl\n"
    "      --no-warmup        no repetition before those that count\n"
    "  --precision P[,P...]   f32, bf16, bf16-hf, int8 (f32)\n"
    "  --quiet                no progress\n";

enum { OPT_NPL = 256, OPT_PRECISION, OPT_NO_WARMUP, OPT_QUIET, MOST = 16 };

static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                        {"n-prompt", required_argument, NULL, 'p'},
                                        {"n-gen", required_argument, NULL, 'n'},
                                        {"npl", required_argument, NULL, OPT_NPL},
                                        {"n-depth", required_argument, NULL, 'd'},
                                        {"batch-size", required_argument, NULL, 'b'},
                                        {"threads", required_argument, NULL, 't'},
                                        {"repetitions", required_argument, NULL, 'r'},
                                        {"output", required_argument, NULL, 'o'},
                                        {"no-warmup", no_argument, NULL, OPT_NO_WARMUP},
                                        {"precision", required_argument, NULL, OPT_PRECISION},
                                        {"quiet", no_argument, NULL, OPT_QUIET},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

typedef enum output { MD, CSV, JSON, JSONL, N_OUTPUTS } output;
static const char *const outputs[N_OUTPUTS] = {"md", "csv", "json", "jsonl"};

typedef struct args {
  pf_bench_opts o;
  char *model[MOST];
  size_t n_models;
  pf_precision precision[PF_N_PRECISIONS];
  size_t n_precisions;
  int32_t p[MOST], n[MOST], npl[MOST];
  output output;
  size_t lines;
} args;

/* ---- options --------------------------------------------------------------------------------- */

static int numbers(const char *name, long lo, int32_t *list, size_t *n) {
  char *at = NULL;
  *n = 0;
  for (char *w = strtok_r(optarg, ",", &at); w; w = strtok_r(NULL, ",", &at)) {
    long v;
    if (*n == MOST)
      return cli_usage("bench", "%s takes at most %d numbers", name, MOST);
    if (!cli_int("bench", name, w, lo, 1 << 20, &v))
      return 2;
    list[(*n)++] = (int32_t)v;
  }
  return *n ? -1 : cli_usage("bench", "%s wants a number", name);
}

static int number(const char *name, long lo, int32_t *out) {
  long v;
  if (!cli_int("bench", name, optarg, lo, 1 << 20, &v))
    return 2;
  *out = (int32_t)v;
  return -1;
}

static int models(args *a) {
  char *at = NULL;
  for (char *w = strtok_r(optarg, ",", &at); w; w = strtok_r(NULL, ",", &at)) {
    if (a->n_models == MOST)
      return cli_usage("bench", "--model takes at most %d models", MOST);
    a->model[a->n_models++] = w;
  }
  return -1;
}

static int precisions(args *a) {
  char *at = NULL;
  for (char *w = strtok_r(optarg, ",", &at); w; w = strtok_r(NULL, ",", &at))
    if (a->n_precisions == PF_N_PRECISIONS ||
        !cli_precision("bench", w, &a->precision[a->n_precisions++]))
      return 2;
  return -1;
}

static int format(args *a) {
  for (int i = 0; i < N_OUTPUTS; i++)
    if (!strcmp(optarg, outputs[i]))
      return a->output = (output)i, -1;
  return cli_usage("bench", "--output: '%s' is none of md, csv, json, jsonl", optarg);
}

/* -1: go on; else an exit code. */
static int option(args *a, int c) {
  switch (c) {
  case 'h':
    return fputs(usage, stdout), 0;
  case 'm':
    return models(a);
  case 'p':
    return numbers("--n-prompt", 0, a->p, &a->o.n_p);
  case 'n':
    return numbers("--n-gen", 0, a->n, &a->o.n_n);
  case OPT_NPL:
    return numbers("-npl", 1, a->npl, &a->o.n_npl);
  case 'd':
    return number("--n-depth", 0, &a->o.n_depth);
  case 'b':
    return number("--batch-size", 1, &a->o.n_batch);
  case 't':
    return number("--threads", 1, &a->o.threads);
  case 'r':
    return number("--repetitions", 1, &a->o.repetitions);
  case 'o':
    return format(a);
  case OPT_NO_WARMUP:
    return a->o.no_warmup = 1, -1;
  case OPT_PRECISION:
    return precisions(a);
  case OPT_QUIET:
    return a->o.progress = NULL, -1;
  default:
    return 2;
  }
}

/* ---- lines ----------------------------------------------------------------------------------- */

static const char *text(const json_t *o, const char *key) {
  return json_string_value(json_object_get(o, key));
}

static double real(const json_t *o, const char *key) {
  return json_number_value(json_object_get(o, key));
}

static void print_md(const args *a, const json_t *o) {
  if (a->lines == 0)
    printf("%s (%s)\n\n| model | size | params | precision | threads | test | t/s |\n"
           "| --- | ---: | ---: | --- | ---: | --- | ---: |\n",
           text(o, "cpu_info"), text(o, "features"));
  double size = real(o, "model_size"), params = real(o, "model_n_params");
  bool large = size >= 1 << 30, many = params >= 1e9;
  printf("| %s | %.2f %s | %.2f %s | %s | %d | %s | %.2f ± %.2f |\n", text(o, "model_filename"),
         size / (large ? 1 << 30 : 1 << 20), large ? "GiB" : "MiB", params / (many ? 1e9 : 1e6),
         many ? "B" : "M", text(o, "precision"), (int)real(o, "n_threads"), text(o, "test"),
         real(o, "avg_ts"), real(o, "stddev_ts"));
}

/* Lists stay out; texts are quoted. */
static void print_csv(const args *a, const json_t *o) {
  const char *key, *sep = "";
  json_t *v;
  for (int head = a->lines == 0; head >= 0; head--, sep = "") {
    json_object_foreach((json_t *)o, key, v) {
      if (json_is_array(v))
        continue;
      fputs(sep, stdout);
      sep = ",";
      if (head)
        fputs(key, stdout);
      else
        json_dumpf(v, stdout, JSON_ENCODE_ANY);
    }
    putchar('\n');
  }
}

static int print_line(void *user, const char *json) {
  args *a = user;
  json_t *o = json_loads(json, 0, NULL);
  switch (a->output) {
  case MD:
    print_md(a, o);
    break;
  case CSV:
    print_csv(a, o);
    break;
  case JSON:
    printf("%s%s", a->lines ? ",\n  " : "[\n  ", json);
    break;
  default:
    puts(json);
  }
  a->lines++;
  json_decref(o);
  return fflush(stdout) == 0 ? PF_OK : PF_EIO;
}

static int run(args *a) {
  int rc = PF_OK;
  for (size_t m = 0; m < a->n_models; m++)
    for (size_t p = 0; p < a->n_precisions && rc == PF_OK; p++) {
      a->o.precision = a->precision[p];
      rc = pf_bench_run(&a->o, a->model[m]);
    }
  if (a->output == JSON && a->lines)
    puts("\n]");
  return rc == PF_OK ? 0 : cli_fail(rc);
}

/* llama-batched-bench spells -npl with one dash. */
static void long_npl(int argc, char **argv) {
  static char spelt[] = "--npl";
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "-npl"))
      argv[i] = spelt;
}

int cmd_bench(int argc, char **argv) {
  args a = {.o = {.n_batch = 2048,
                  .repetitions = 5,
                  .n_p = 1,
                  .n_n = 1,
                  .n_npl = 1,
                  .progress = cli_progress},
            .p = {512},
            .n = {128},
            .npl = {1}};
  long_npl(argc, argv);
  for (int c; (c = getopt_long(argc, argv, "m:p:n:d:b:t:r:o:", options, NULL)) != -1;) {
    int rc = option(&a, c);
    if (rc >= 0)
      return rc;
  }
  if (optind < argc && a.n_models == 0)
    a.model[a.n_models++] = argv[optind++];
  if (optind < argc || a.n_models == 0)
    return cli_usage("bench", "-m MODEL is wanted");
  a.o.p = a.p;
  a.o.n = a.n;
  a.o.npl = a.npl;
  if (a.n_precisions == 0)
    a.precision[a.n_precisions++] = PF_PRECISION_AUTO;
  a.o.line = print_line;
  a.o.user = &a;
  a.o.stop = cli_stop_on_signals();
  return run(&a);
}
