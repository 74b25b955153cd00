/* SPDX-License-Identifier: Apache-2.0
 * The results as text, CSV or JSON. Text has one line for each with rounded figures; the other two
 * have every field with its unit in its name. */
#include "config.h"

#include <stdio.h>

#include "bench/bench.h"

static void machine_words(char words[512]) {
  pf_cpu_words(pf_cpu_bits(), words, 512);
}

/* ---- fields of CSV and JSON ---- */

typedef enum type { STRING, COUNT, REAL, FLAG } type;

typedef struct field {
  const char *name;
  type type;
  const char *s;
  double v; /* REAL: not written when it is not above 0 */
} field;

enum { N_FIELDS = 22 };

static double over(double a, double b) {
  return b > 0 ? a / b : 0;
}

static void fields_of(const pf_bench *b, const pf_result *r, field f[N_FIELDS]) {
  double rate = over(r->ops, r->t.best), flow = over(r->bytes, r->t.best);
  const field all[N_FIELDS] = {
      {"op", STRING, r->op, 0},
      {"isa", STRING, r->isa, 0},
      {"what", STRING, r->what, 0},
      {"m", COUNT, NULL, (double)r->m},
      {"k", COUNT, NULL, (double)r->k},
      {"n", COUNT, NULL, (double)r->n},
      {"best_s", REAL, NULL, r->t.best},
      {"median_s", REAL, NULL, r->t.median},
      {"calls", COUNT, NULL, r->t.calls},
      {"cpus", REAL, NULL, r->t.cpus},
      {"ops_per_s", REAL, NULL, rate},
      {"peak_ops_per_s", REAL, NULL, r->ops > 0 ? r->peak : 0},
      {"peak_now_ops_per_s", REAL, NULL, r->ops > 0 ? r->peak_now : 0},
      {"of_peak", REAL, NULL, over(rate, r->peak)},
      {"bytes", COUNT, NULL, r->bytes},
      {"bytes_per_s", REAL, NULL, flow},
      {"read_now_bytes_per_s", REAL, NULL, r->read_now},
      {"of_read", REAL, NULL, r->memory ? over(flow, b->peaks.read) : 0},
      {"openblas_time_over_ours", REAL, NULL, r->openblas},
      {"onednn_time_over_ours", REAL, NULL, r->dnnl},
      {"time_over_free_order", REAL, NULL, r->cost},
      {"disturbed", FLAG, NULL, r->disturbed},
  };
  for (int i = 0; i < N_FIELDS; i++)
    f[i] = all[i];
}

static void print_value(const field *f, const char *quote, const char *none) {
  if (f->type == STRING)
    printf("%s%s%s", quote, f->s, quote);
  else if (f->type == COUNT)
    printf("%.0f", f->v);
  else if (f->type == FLAG)
    printf("%s", f->v > 0 ? "true" : "false");
  else if (f->v > 0)
    printf("%.6g", f->v);
  else
    printf("%s", none);
}

static void csv_header(const pf_bench *b) {
  const pf_result none = {.op = "", .isa = "", .what = ""};
  field f[N_FIELDS];
  fields_of(b, &none, f);
  for (int i = 0; i < N_FIELDS; i++)
    printf("%s%s", i ? "," : "", f[i].name);
  putchar('\n');
}

static void csv_line(const pf_bench *b, const pf_result *r) {
  field f[N_FIELDS];
  fields_of(b, r, f);
  for (int i = 0; i < N_FIELDS; i++) {
    printf("%s", i ? "," : "");
    print_value(&f[i], "", "");
  }
  putchar('\n');
}

static void json_line(const pf_bench *b, const pf_result *r) {
  field f[N_FIELDS];
  fields_of(b, r, f);
  printf("%s\n    {", b->lines ? "," : "");
  for (int i = 0; i < N_FIELDS; i++) {
    printf("%s\"%s\": ", i ? ", " : "", f[i].name);
    print_value(&f[i], "\"", "null");
  }
  putchar('}');
}

/* ---- the machine ---- */

/* mark: before each line, a comment's sign in CSV. */
static void plain_peaks(const pf_peaks *p, const char *mark) {
  for (int i = 0; i < PF_PEAK_N; i++)
    if (p->ops[i] > 0)
      printf("%speak %-18s %9.1f GOP/s, %s\n", mark, pf_peak_word(i), p->ops[i] * 1e-9,
             pf_peak_what(i));
  printf("%sread, plain loop        %9.1f GB/s\n", mark, p->read_plain * 1e-9);
  printf("%sread, best              %9.1f GB/s, %d streams a thread, prefetch %zu bytes ahead into "
         "level %d\n",
         mark, p->read * 1e-9, p->plan.streams, p->plan.ahead, p->plan.near ? 1 : 2);
}

static void plain_machine(const pf_bench *b, const char *mark) {
  char words[512], blas[256], dnnl[256];
  machine_words(words);
  printf("%sCPU: %s, %d threads\n", mark, pf_cpu_brand(), b->peaks.threads);
  printf("%sfeatures: %s\n", mark, words);
  if (b->o.peers) {
    pf_peers_describe(blas, dnnl);
    printf("%sopenblas: %s\n%sonednn: %s\n", mark, blas, mark, dnnl);
  }
  plain_peaks(&b->peaks, mark);
}

static void json_machine(const pf_bench *b) {
  char words[512], blas[256] = "", dnnl[256] = "";
  machine_words(words);
  if (b->o.peers)
    pf_peers_describe(blas, dnnl);
  printf("{\n  \"program\": \"%s %s\",\n  \"cpu\": \"%s\",\n  \"threads\": %d,\n", PACKAGE_NAME,
         PACKAGE_VERSION, pf_cpu_brand(), b->peaks.threads);
  printf("  \"features\": \"%s\",\n  \"openblas\": \"%s\",\n  \"onednn\": \"%s\",\n", words, blas,
         dnnl);
  printf("  \"results\": [");
}

static void json_peaks(const pf_peaks *p) {
  printf("  \"peak_ops_per_s\": {");
  for (int i = 0, n = 0; i < PF_PEAK_N; i++)
    if (p->ops[i] > 0)
      printf("%s\"%s\": %.6g", n++ ? ", " : "", pf_peak_word(i), p->ops[i]);
  printf("},\n  \"read_plain_bytes_per_s\": %.6g,\n  \"read_bytes_per_s\": %.6g,\n", p->read_plain,
         p->read);
  printf("  \"read_streams\": %d,\n  \"read_ahead_bytes\": %zu,\n", p->plan.streams, p->plan.ahead);
}

/* ---- text ---- */

static const char text_header[] =
    "\n%-16s %-12s %-21s %4s %6s %6s %11s %11s %9s %6s %8s %6s %9s %7s %6s\n";

static void share(double v, int width) {
  if (v > 0)
    printf(" %*.1f%%", width - 1, 100 * v);
  else
    printf(" %*s", width, "");
}

static void number(double v, int width, int digits) {
  if (v > 0)
    printf(" %*.*f", width, digits, v);
  else
    printf(" %*s", width, "");
}

static void text_line(const pf_bench *b, const pf_result *r) {
  double rate = over(r->ops, r->t.best), flow = over(r->bytes, r->t.best);
  printf("%-16s %-12s %-21s %4zu %6zu %6zu", r->op, r->isa, r->what, r->m, r->k, r->n);
  number(r->t.best * 1e6, 11, 1);
  number(r->t.median * 1e6, 11, 1);
  number(rate * 1e-9, 9, 1);
  share(over(rate, r->peak), 6);
  number(flow * 1e-9, 8, 2);
  share(r->memory ? over(flow, b->peaks.read) : 0, 6);
  number(r->openblas, 9, 2);
  number(r->dnnl, 7, 2);
  number(r->cost, 6, 2);
  printf("%s\n", r->disturbed ? " ~" : "");
}

/* ---- calls ---- */

void pf_table_begin(const pf_bench *b) {
  if (b->o.format == PF_JSON) {
    json_machine(b);
    return;
  }
  plain_machine(b, b->o.format == PF_CSV ? "# " : "");
  if (b->o.peaks_only)
    return;
  if (b->o.format == PF_CSV)
    csv_header(b);
  else
    printf(text_header, "operation", "by", "of", "M", "K", "N", "best us", "median us", "GOP/s",
           "peak", "GB/s", "read", "xOpenBLAS", "xoneDNN", "/free");
}

void pf_table_line(pf_bench *b, const pf_result *r) {
  static void (*const print[])(const pf_bench *b, const pf_result *r) = {text_line, csv_line,
                                                                         json_line};
  print[b->o.format](b, r);
  b->lines++;
  fflush(stdout);
}

void pf_table_end(const pf_bench *b) {
  const char *mark = b->o.format == PF_CSV ? "# " : "";
  if (b->o.format == PF_JSON) {
    printf("\n  ],\n");
    json_peaks(&b->peaks);
    printf("  \"left_out\": %zu\n}\n", b->left_out);
    return;
  }
  if (b->lines) {
    printf("%sat the end of the run:\n", mark);
    plain_peaks(&b->peaks, mark);
  }
  if (b->left_out)
    printf("%s%zu lines left out: a call takes longer than --limit\n", mark, b->left_out);
}
