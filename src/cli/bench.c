/* SPDX-License-Identifier: Apache-2.0
 * personaflow bench: tokens a second, with the options and outputs of llama-bench where they mean
 * the same. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow bench -m MODEL[,MODEL...] [OPTIONS]\n"
    "Times prompts and generation: tokens drawn at random, nothing sampled, mean and standard "
    "deviation\n"
    "of the repetitions. Options and fields that llama-bench has too mean the same.\n";

enum { MOST = 16 };
static const char *const outputs[] = {"md", "csv", "json", "jsonl", NULL};
enum { MD, CSV, JSON }; /* of outputs */

typedef struct list {
  int32_t v[MOST];
  size_t n;
} list;

typedef struct args {
  pf_bench_opts o;
  struct models {
    char *v[MOST];
    size_t n;
  } model;
  struct precisions {
    pf_precision v[PF_N_PRECISIONS];
    size_t n;
  } precision;
  list p, n, npl;
  int output, quiet, broken; /* broken: why standard output takes no more */
  size_t lines;
} args;

/* ---- options --------------------------------------------------------------------------------- */

static bool take_numbers(const char *command, const cli_opt *o, char *text, void *to) {
  list *l = to;
  char *at = NULL, name[32];
  long v;
  snprintf(name, sizeof name, "--%s", o->name);
  l->n = 0;
  for (char *w = strtok_r(text, ",", &at); w; w = strtok_r(NULL, ",", &at)) {
    if (l->n == MOST)
      return cli_usage(command, "%s takes at most %d numbers", name, MOST), false;
    if (!cli_int(command, name, w, (long)o->lo, (long)o->hi, &v))
      return false;
    l->v[l->n++] = (int32_t)v;
  }
  return l->n || (cli_usage(command, "%s wants a number", name), false);
}

static bool take_models(const char *command, const cli_opt *o, char *text, void *to) {
  struct models *m = to;
  char *at = NULL;
  (void)o;
  for (char *w = strtok_r(text, ",", &at); w; w = strtok_r(NULL, ",", &at)) {
    if (m->n == MOST)
      return cli_usage(command, "--model takes at most %d models", MOST), false;
    m->v[m->n++] = w;
  }
  return true;
}

static bool take_precisions(const char *command, const cli_opt *o, char *text, void *to) {
  struct precisions *p = to;
  char *at = NULL;
  (void)o;
  for (char *w = strtok_r(text, ",", &at); w; w = strtok_r(NULL, ",", &at)) {
    if (p->n == PF_N_PRECISIONS)
      return cli_usage(command, "--precision takes each precision once"), false;
    if (!cli_precision(command, w, &p->v[p->n++]))
      return false;
  }
  return true;
}

#define AT(field) .at = offsetof(args, field)
static const cli_opt opts[] = {
    {"model", 'm', "M[,M...]", "models", CLI_CALL, AT(model), .take = take_models},
    {"n-prompt", 'p', "N,...", "prompts of N tokens (512; 0: none)", CLI_CALL, AT(p), 0, 1 << 20,
     .take = take_numbers},
    {"n-gen", 'n', "N,...", "generation of N tokens (128; 0: none)", CLI_CALL, AT(n), 0, 1 << 20,
     .take = take_numbers},
    {"npl", 0, "N,...", "branches that generate together (1); -npl too, as llama-batched-bench",
     CLI_CALL, AT(npl), 1, 1 << 20, .take = take_numbers},
    {"n-depth", 'd', "N", "tokens that are there before each test (0)", CLI_INT, AT(o.n_depth), 0,
     1 << 20},
    {"batch-size", 'b', "N", "tokens of a prompt in one call (2048)", CLI_INT, AT(o.n_batch), 1,
     1 << 20},
    CLI_THREADS(args, o.threads),
    {"repetitions", 'r', "N", "repetitions (5)", CLI_INT, AT(o.repetitions), 1, 1 << 20},
    {"output", 'o', "FORMAT", "md (default), csv, json, jsonl", CLI_WORD, AT(output),
     .words = outputs},
    {"no-warmup", 0, NULL, "no repetition before those that count", CLI_FLAG, AT(o.no_warmup)},
    {"precision", 0, "P[,P...]", "f32, bf16, bf16-hf, int8 (f32)", CLI_CALL, AT(precision),
     .take = take_precisions},
    CLI_QUIET(args, quiet),
    {0}};
#undef AT

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
  a->broken = fflush(stdout) == 0 ? 0 : errno;
  return a->broken ? PF_EIO : PF_OK;
}

static int run(args *a) {
  int rc = PF_OK;
  a->o.p = a->p.v;
  a->o.n = a->n.v;
  a->o.npl = a->npl.v;
  a->o.n_p = a->p.n;
  a->o.n_n = a->n.n;
  a->o.n_npl = a->npl.n;
  a->o.progress = a->quiet ? NULL : cli_progress;
  a->o.line = print_line;
  a->o.user = a;
  a->o.stop = cli_stop_on_signals();
  for (size_t m = 0; m < a->model.n; m++)
    for (size_t p = 0; p < a->precision.n && rc == PF_OK; p++) {
      a->o.precision = a->precision.v[p];
      rc = pf_bench_run(&a->o, a->model.v[m]);
    }
  if (a->broken) {
    fprintf(stderr, "personaflow: standard output: cannot write: %s\n", strerror(a->broken));
    return 3;
  }
  if (a->output == JSON && a->lines)
    puts("\n]");
  return rc == PF_OK ? 0 : cli_fail(rc);
}

/* 0: none of these. */
static bool any(const list *l) {
  for (size_t i = 0; i < l->n; i++)
    if (l->v[i] > 0)
      return true;
  return false;
}

/* llama-batched-bench spells -npl with one dash. */
static void long_npl(int argc, char **argv) {
  static char spelt[] = "--npl";
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "-npl"))
      argv[i] = spelt;
}

int cmd_bench(int argc, char **argv) {
  args a = {
      .o = {.n_batch = 2048, .repetitions = 5}, .p = {{512}, 1}, .n = {{128}, 1}, .npl = {{1}, 1}};
  int rc;
  long_npl(argc, argv);
  if (!cli_options(&(cli_command){"bench", usage, opts, NULL}, &a, argc, argv, &rc))
    return rc;
  if (optind < argc && a.model.n == 0)
    a.model.v[a.model.n++] = argv[optind++];
  if (optind < argc || a.model.n == 0)
    return cli_usage("bench", "-m MODEL is wanted");
  if (!any(&a.p) && !any(&a.n))
    return cli_usage("bench", "-p 0 and -n 0 leave nothing to measure");
  if (a.precision.n == 0)
    a.precision.v[a.precision.n++] = PF_PRECISION_AUTO;
  return run(&a);
}
