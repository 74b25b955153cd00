/* SPDX-License-Identifier: Apache-2.0
 * bench/study: what a study's substitutions cost when what they cannot change is shared, against a
 * whole forward pass for each; the bytes of the results are compared. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/cells.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/status.h"
#include "bench/disk.h"
#include "personaflow/personaflow.h"

static const char usage[] =
    "usage: bench/study -m DIR --out DIR [OPTION]...\n"
    "  -m DIR          checkpoint (pf-mkckpt writes random ones of a model's shape)\n"
    "  --out DIR       a new folder for the two studies\n"
    "  --grid GRID     short, long, demo or a file (default: short)\n"
    "  --precision P   f32, bf16, bf16-hf, int8 (default: f32)\n"
    "  --memory N      bytes beside the weights (default: 1.5 GB)\n"
    "  -t N            threads (default: OMP_NUM_THREADS, else all CPUs)\n"
    "  --help\n"
    "Runs the study twice, sharing off and on, and prints row-layers (a row through a layer), "
    "multiplications of the\nproducts (the unembedding of scored rows included, attention not) and "
    "seconds of the substitutions, base runs\napart. Exit code 1 if the results differ in a "
    "byte.\n";

enum { HELP = 256, OUT, GRID, PRECISION, MEMORY };

static const struct option options[] = {
    {"help", 0, 0, HELP},
    {"model", 1, 0, 'm'},
    {"out", 1, 0, OUT},
    {"grid", 1, 0, GRID},
    {"precision", 1, 0, PRECISION},
    {"memory", 1, 0, MEMORY},
    {"threads", 1, 0, 't'},
    {0, 0, 0, 0},
};

typedef struct cost {
  double base_rows, rows, base_seconds, seconds, memory;
} cost;

static double number_of(const json_t *t, const char *key) {
  return json_number_value(json_object_get(t, key));
}

static int read_cost(const char *dir, cost *c) {
  char path[4200];
  snprintf(path, sizeof path, "%s/timings.json", dir);
  json_t *t = json_load_file(path, 0, NULL);
  if (!t)
    return pf_fail(PF_EINPUT, "%s: cannot read", path);
  *c = (cost){.base_rows = number_of(t, "row_layers_base"),
              .rows = number_of(t, "row_layers_substitutions"),
              .base_seconds = number_of(t, "base_seconds"),
              .seconds = number_of(t, "substitution_seconds"),
              .memory = (double)pf_memory_peak()};
  json_decref(t);
  return PF_OK;
}

static int run(pf_study_opts o, const char *out, int off, cost *c) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s/%s", out, off ? "off" : "on");
  o.out_dir = dir;
  o.no_sharing = off;
  pf_memory_peak_reset();
  int rc = pf_study_run(&o);
  return rc == PF_OK ? read_cost(dir, c) : rc;
}

/* *eq: the results of both are the same bytes. */
static int compare(const char *out, bool *eq) {
  static const char *const dirs[2] = {"on", "off"};
  char path[4200];
  pf_buf b[2] = {{0}, {0}};
  int rc = PF_OK;
  for (int i = 0; i < 2 && rc == PF_OK; i++) {
    snprintf(path, sizeof path, "%s/%s/results.jsonl", out, dirs[i]);
    rc = pf_read_file(path, (size_t)1 << 30, &b[i]);
  }
  *eq = rc == PF_OK && b[0].n == b[1].n && !memcmp(b[0].s, b[1].s, b[0].n);
  pf_buf_free(&b[0]);
  pf_buf_free(&b[1]);
  return rc;
}

/* Rows of logits that the substitutions asked for: n_scored of every line with a KL. */
static double scored_rows(const char *out) {
  char path[4200], *line = NULL;
  size_t cap = 0;
  double n = 0;
  snprintf(path, sizeof path, "%s/on/results.jsonl", out);
  FILE *f = fopen(path, "r");
  while (f && getline(&line, &cap, f) > 0) {
    json_t *l = json_loads(line, 0, NULL);
    if (json_object_get(l, "kl"))
      n += number_of(l, "n_scored");
    json_decref(l);
  }
  free(line);
  if (f)
    fclose(f);
  return n;
}

/* Multiplications of the products, the unembedding of scored rows included. */
static void count_work(const char *out, const pf_model_info *i, const cost c[2], double work[2]) {
  double scored = scored_rows(out) * (double)i->d_model * i->vocab_size;
  for (int k = 0; k < 2; k++)
    work[k] = c[k].rows * (double)pf_layer_units(i) + scored;
}

static void print(const pf_study_opts *o, const cost c[2], const double work[2]) {
  printf("model %s, grid %s, precision %s; cpu: %s\n\n", o->model, o->grid,
         pf_precision_name(o->precision), pf_cpu_features());
  printf("| | sharing off | on | off / on |\n|---|---|---|---|\n");
  printf("| row-layers of the substitutions | %.0f | %.0f | %.2f |\n", c[1].rows, c[0].rows,
         c[1].rows / c[0].rows);
  printf("| multiplications of their products, 1e12 | %.3g | %.3g | %.2f |\n", 1e-12 * work[1],
         1e-12 * work[0], work[1] / work[0]);
  printf("| seconds of the substitutions | %.3f | %.3f | %.2f (%.0f %% of the line above) |\n",
         c[1].seconds, c[0].seconds, c[1].seconds / c[0].seconds,
         100 * (c[1].seconds / c[0].seconds) / (work[1] / work[0]));
  printf("| row-layers of the base runs | %.0f | %.0f | %.2f |\n", c[1].base_rows, c[0].base_rows,
         c[1].base_rows / c[0].base_rows);
  printf("| seconds of the base runs | %.3f | %.3f | %.2f |\n", c[1].base_seconds,
         c[0].base_seconds, c[1].base_seconds / c[0].base_seconds);
  printf("| peak of resident memory, GB | %.2f | %.2f | |\n", 1e-9 * c[1].memory,
         1e-9 * c[0].memory);
}

static double weights_of(const char *out) {
  char path[4200];
  snprintf(path, sizeof path, "%s/on/manifest.json", out);
  json_t *m = json_load_file(path, 0, NULL);
  double n = number_of(json_object_get(m, "model"), "weight_bytes");
  json_decref(m);
  return n;
}

/* What the project set out to reach on the paper's grids, met or not. */
static const struct {
  const char *grid;
  double rows, memory; /* row-layers less by; bytes beside the weights, 0: no target */
} targets[] = {{"short", 6, 0}, {"long", 14, 1.5e9}};
#define OF_OPERATIONS 0.8

static void judge(const char *what, double value, double limit, const char *unit, bool met) {
  printf("| %s | %.4g%s | %.4g%s | %s |\n", what, limit, unit, value, unit,
         met ? "met" : "**not met**");
}

static void print_targets(const pf_study_opts *o, const char *out, const cost c[2],
                          const double work[2]) {
  size_t k = 0, n = sizeof targets / sizeof *targets;
  double rows = c[1].rows / c[0].rows, share = c[1].seconds / c[0].seconds / (work[1] / work[0]),
         more = c[0].memory - weights_of(out);
  while (k < n && strcmp(targets[k].grid, o->grid) != 0)
    k++;
  printf("\n| what | target | measured | |\n|---|---|---|---|\n");
  if (k < n)
    judge("row-layers, off / on: at least", rows, targets[k].rows, "", rows >= targets[k].rows);
  judge("seconds, off / on, of the ratio of operations: at least", 100 * share, 100 * OF_OPERATIONS,
        " %", share >= OF_OPERATIONS);
  if (k < n && targets[k].memory > 0)
    judge("peak of memory beside the weights, GB: at most", 1e-9 * more, 1e-9 * targets[k].memory,
          "", more <= targets[k].memory);
}

static int parse(int argc, char **argv, pf_study_opts *o, const char **out) {
  int k;
  while ((k = getopt_long(argc, argv, "m:t:", options, NULL)) != -1) {
    char *end = NULL;
    switch (k) {
    case HELP:
      fputs(usage, stdout);
      exit(0);
    case 'm':
      o->model = optarg;
      break;
    case 't':
      o->threads = (int)strtol(optarg, &end, 10);
      break;
    case OUT:
      *out = optarg;
      break;
    case GRID:
      o->grid = optarg;
      break;
    case PRECISION:
      if (pf_precision_parse(optarg, &o->precision) != PF_OK)
        return PF_EUSAGE;
      break;
    case MEMORY:
      o->memory = strtoull(optarg, &end, 10);
      break;
    default:
      return pf_fail(PF_EUSAGE, "an option that is unknown or lacks its value: --help");
    }
    if (end && (*end || end == optarg))
      return pf_fail(PF_EUSAGE, "'%s' is no number", optarg);
  }
  if (optind < argc || !o->model || !*out)
    return pf_fail(PF_EUSAGE, "-m DIR and --out DIR are wanted, and nothing else: --help");
  return PF_OK;
}

/* Sharing on first: its mistakes show soonest. */
static int measure(const pf_study_opts *o, const char *out) {
  cost c[2];
  pf_model *m;
  if (mkdir(out, 0777))
    return pf_fail(PF_EUSAGE, "%s: cannot make this folder: it must be new", out);
  int rc = pf_model_open_config(&m, o->model);
  for (int off = 0; off < 2 && rc == PF_OK; off++)
    rc = run(*o, out, off, &c[off]);
  if (rc == PF_OK) {
    double work[2];
    count_work(out, pf_model_get_info(m), c, work);
    print(o, c, work);
    print_targets(o, out, c, work);
  }
  pf_model_close(m);
  return rc;
}

int main(int argc, char **argv) {
  pf_study_opts o = {.grid = "short", .protocol = "paper", .precision = PF_PRECISION_F32};
  const char *out = NULL;
  bool eq = false;
  int rc = parse(argc, argv, &o, &out);
  if (rc == PF_OK)
    rc = measure(&o, out);
  if (rc == PF_OK)
    rc = compare(out, &eq);
  if (rc != PF_OK) {
    fprintf(stderr, "bench/study: %s\n", pf_last_error());
    return pf_exit_code(rc);
  }
  printf("\nresults.jsonl of both: %s\n", eq ? "the same bytes" : "DIFFERENT");
  return eq ? 0 : 1;
}
