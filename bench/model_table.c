/* SPDX-License-Identifier: Apache-2.0
 * The lines of bench/model as Markdown, CSV, JSON or one JSON object a line. Field names that
 * llama-bench has too mean the same. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "bench/disk.h"
#include "bench/model.h"
#include "simd/cpu.h"

static double over(double a, double b) {
  return b > 0 ? a / b : 0;
}

const char *pf_mb_name(const pf_mb_line *l) {
  const char *s = strrchr(l->model, '/');
  return s && s[1] ? s + 1 : l->model;
}

double pf_mb_rate(const pf_mb_line *l) {
  return over(l->tokens, l->best_s);
}

double pf_mb_ops(const pf_mb_line *l) {
  return over(l->ops, l->best_s);
}

double pf_mb_flow(const pf_mb_line *l) {
  return over(l->bytes, l->best_s);
}

/* ---- fields of CSV and JSON ---- */

typedef struct field {
  const char *name, *s;
  double v; /* without s; 0 is null */
} field;

enum { N_FIELDS = 30 };

static void fields_of(const pf_mb *b, const pf_mb_line *l, field f[N_FIELDS]) {
  double rate = pf_mb_rate(l), ops = pf_mb_ops(l), flow = pf_mb_flow(l);
  const field all[N_FIELDS] = {
      {"cpu_info", pf_cpu_brand(), 0},
      {"model_filename", l->model, 0},
      {"model_type", l->info.arch, 0},
      {"model_size", NULL, l->size},
      {"model_n_params", NULL, l->params},
      {"precision", pf_precision_name(l->info.precision), 0},
      {"n_batch", NULL, (double)b->o.batch},
      {"n_threads", NULL, l->threads},
      {"test", l->name, 0},
      {"n_prompt", NULL, (double)l->p},
      {"n_gen", NULL, (double)l->n},
      {"n_depth", NULL, (double)l->depth},
      {"n_branches", NULL, (double)l->branches},
      {"avg_ns", NULL, 1e9 * l->mean_s},
      {"avg_ts", NULL, l->mean_ts},
      {"stddev_ts", NULL, l->stddev},
      {"best_ns", NULL, 1e9 * l->best_s},
      {"best_ts", NULL, rate},
      {"ops", NULL, l->ops},
      {"ops_per_s", NULL, ops},
      {"peak_ops_per_s", NULL, l->peak},
      {"peak_now_ops_per_s", NULL, l->peak_now},
      {"of_peak", NULL, over(ops, l->peak)},
      {"bytes", NULL, l->bytes},
      {"bytes_per_s", NULL, flow},
      {"read_bytes_per_s", NULL, l->read},
      {"read_now_bytes_per_s", NULL, l->read_now},
      {"of_read", NULL, over(flow, l->read)},
      {"peak_rss_bytes", NULL, l->memory > 0 ? l->memory : 0},
      {"d_model", NULL, l->info.d_model},
  };
  memcpy(f, all, sizeof all);
}

static void csv_header(const pf_mb *b) {

  const pf_mb_line empty = {.model = "", .info = {.arch = ""}};
  field f[N_FIELDS];
  fields_of(b, &empty, f);
  for (int i = 0; i < N_FIELDS; i++)
    printf("%s%s", i ? "," : "", f[i].name);
  putchar('\n');
}

static void csv_line(const pf_mb *b, const pf_mb_line *l) {
  field f[N_FIELDS];
  fields_of(b, l, f);
  for (int i = 0; i < N_FIELDS; i++)
    if (f[i].s)
      printf("%s\"%s\"", i ? "," : "", f[i].s);
    else
      printf("%s%.9g", i ? "," : "", f[i].v);
  putchar('\n');
}

static void object(const pf_mb *b, const pf_mb_line *l) {
  field f[N_FIELDS];
  fields_of(b, l, f);
  for (int i = 0; i < N_FIELDS; i++)
    if (f[i].s)
      printf("%s\"%s\": \"%s\"", i ? ", " : "{", f[i].name, f[i].s);
    else
      printf("%s\"%s\": %.9g", i ? ", " : "{", f[i].name, f[i].v);
  putchar('}');
}

static void json_line(const pf_mb *b, const pf_mb_line *l) {
  printf("%s\n  ", b->n_lines > 1 ? "," : "");
  object(b, l);
}

static void jsonl_line(const pf_mb *b, const pf_mb_line *l) {
  object(b, l);
  putchar('\n');
}

/* ---- Markdown ---- */

static void machine(const pf_mb *b) {
  char words[512];
  pf_cpu_words(pf_cpu_bits(), words, sizeof words);
  printf("%s, %d threads (%s). Peaks:", pf_cpu_brand(), b->peaks.threads, words);
  for (int i = 0; i < PF_PEAK_N; i++)
    if (b->peaks.ops[i] > 0)
      printf(" %s %.0f,", pf_peak_word((pf_peak_id)i), b->peaks.ops[i] * 1e-9);
  printf(" GOP/s; read %.1f GB/s (%d streams a thread, %zu bytes ahead), a plain loop %.1f",
         b->peaks.read * 1e-9, b->peaks.plan.streams, b->peaks.plan.ahead,
         b->peaks.read_plain * 1e-9);
  double huge = pf_memory_huge(b->arena.p);
  if (huge >= 0)
    printf("; %.0f %% of that memory in huge pages", 100 * huge / (double)b->arena.bytes);
  printf(".\n\n");
}

static const char md_header[] = "| model | size | params | precision | threads | test | t/s | best "
                                "s | GOP/s | of peak | GB/s | "
                                "of read | memory |\n"
                                "|---|---:|---:|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";

static void share(double v, double of) {
  if (v > 0 && of > 0)
    printf(" %.1f | %.1f %% of %.1f |", v * 1e-9, 100 * v / of, of * 1e-9);
  else
    printf(" | |");
}

static void md_line(const pf_mb *b, const pf_mb_line *l) {
  (void)b;
  printf("| %s | %.2f GiB | %.2f B | %s | %d | %s |", pf_mb_name(l), l->size / (double)(1 << 30),
         l->params * 1e-9, pf_precision_name(l->info.precision), l->threads, l->name);
  if (l->tokens > 0)
    printf(" %.2f ± %.2f |", l->mean_ts, l->stddev);
  else
    printf(" |");
  printf(" %.3f |", l->best_s);
  share(pf_mb_ops(l), l->peak);
  share(pf_mb_flow(l), l->read);
  printf(" %.2f GiB |\n", l->memory / (double)(1 << 30));
}

/* ---- calls ---- */

void pf_mb_begin(const pf_mb *b) {
  if (b->o.format == PF_MB_MD) {
    machine(b);
    fputs(md_header, stdout);
  } else if (b->o.format == PF_MB_CSV)
    csv_header(b);
  else if (b->o.format == PF_MB_JSON)
    putchar('[');
}

int pf_mb_print(pf_mb *b, const pf_mb_line *l) {
  static void (*const print[])(const pf_mb *b, const pf_mb_line *l) = {[PF_MB_MD] = md_line,
                                                                       [PF_MB_CSV] = csv_line,
                                                                       [PF_MB_JSON] = json_line,
                                                                       [PF_MB_JSONL] = jsonl_line};
  int rc = pf_grow((void **)&b->lines, &b->cap_lines, b->n_lines + 1, sizeof *b->lines);
  if (rc != PF_OK)
    return rc;
  b->lines[b->n_lines++] = *l;
  print[b->o.format](b, l);
  fflush(stdout);
  return PF_OK;
}

void pf_mb_end(const pf_mb *b) {
  if (b->o.format == PF_MB_JSON)
    printf("\n]\n");
}
