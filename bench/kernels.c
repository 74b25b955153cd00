/* SPDX-License-Identifier: Apache-2.0
 * bench/kernels: how fast every kernel is, against what the machine can do in the same run and
 * against other libraries. */
#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/par.h"
#include "base/status.h"
#include "bench/bench.h"

static const char usage[] =
    "usage: bench/kernels [OPTION]...\n"
    "  --op NAME[,NAME...]    operations of simd/simd.h (default: all)\n"
    "  --isa NAME[,NAME...]   instruction sets (default: all that the CPU has)\n"
    "  --shape K,N            one matrix instead of those of the models; row operations of width "
    "N\n"
    "  -m M[,M...]            rows of activations (default: 1,4,16,64,128,512)\n"
    "  --group G              k in a group of int8 products (default: 512)\n"
    "  --threads T            (default: OMP_NUM_THREADS, else all CPUs)\n"
    "  --format text|csv|json\n"
    "  --peers, --no-peers    compare with OpenBLAS and oneDNN (default) or not\n"
    "  --quick                a few shapes, M = 1, 16, 512, short measurements, one width of rows\n"
    "  --smoke                one tiny product, one repeat: does everything run?\n"
    "  --targets              the table of targets: measured value, met or not\n"
    "  --peaks                measure the machine only\n"
    "  --seconds S            a measurement lasts at least (default: 0.2)\n"
    "  --limit S              leave out what would take longer in one call (default: 5)\n"
    "  --help\n"
    "Columns: time of a call, operations a second (a multiply-add is two) and their share of the "
    "peak of the instruction\nthat the kernel uses (gemm_x3_bf16: of a third of it), bytes of "
    "weights a second and their share of the best read\nbandwidth, time of OpenBLAS and of oneDNN "
    "for the same product over ours. '~': the machine was slower than its best\nbefore every try. "
    "OpenBLAS multiplies one row by sgemv.\n";

#define SMOKE_BYTES ((size_t)32 << 20)

enum {
  HELP = 256,
  OP,
  ISA,
  SHAPE,
  GROUP,
  THREADS,
  FORMAT,
  PEERS,
  NO_PEERS,
  QUICK,
  TARGETS,
  SMOKE,
  PEAKS,
  SECONDS,
  LIMIT
};

static const struct option options[] = {
    {"help", 0, 0, HELP},         {"op", 1, 0, OP},
    {"isa", 1, 0, ISA},           {"shape", 1, 0, SHAPE},
    {"group", 1, 0, GROUP},       {"threads", 1, 0, THREADS},
    {"format", 1, 0, FORMAT},     {"peers", 0, 0, PEERS},
    {"no-peers", 0, 0, NO_PEERS}, {"quick", 0, 0, QUICK},
    {"peaks", 0, 0, PEAKS},       {"seconds", 1, 0, SECONDS},
    {"limit", 1, 0, LIMIT},       {"smoke", 0, 0, SMOKE},
    {"targets", 0, 0, TARGETS},   {0, 0, 0, 0},
};

static bool bad(const char *what, const char *value) {
  fprintf(stderr, "bench/kernels: %s: '%s' is not one\n", what, value);
  return false;
}

/* 1..max numbers with commas between them. */
static bool sizes(const char *s, size_t *v, size_t max, size_t *n) {
  char *end;
  for (*n = 0; *n < max; s = end + 1) {
    unsigned long long x = strtoull(s, &end, 10);
    if (end == s || *s == '-' || x == 0 || x > 1u << 24 || (*end && *end != ','))
      return false;
    v[(*n)++] = (size_t)x;
    if (!*end)
      return true;
  }
  return false;
}

static bool one_size(const char *s, size_t *v) {
  size_t n;
  return sizes(s, v, 1, &n);
}

static bool real(const char *s, double *v) {
  char *end;
  *v = strtod(s, &end);
  return end != s && !*end && *v > 0 && *v < 1e6;
}

static bool shape_of(const char *s, pf_bench_opts *o) {
  size_t v[2], n;
  if (!sizes(s, v, 2, &n) || n != 2)
    return false;
  o->k = v[0];
  o->n = v[1];
  return true;
}

static bool format_of(const char *s, pf_format *f) {
  static const char *const names[] = {"text", "csv", "json"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(s, names[i])) {
      *f = (pf_format)i;
      return true;
    }
  return false;
}

static bool known_op(const char *s) {
  return pf_bench_has_product(s) || pf_bench_has_row(s) || !strcmp(s, pf_bench_attn_op(false)) ||
         !strcmp(s, pf_bench_attn_op(true)) || !strcmp(s, "layout");
}

static bool known_isa(const char *s) {
  const char *name;
  for (size_t i = 0; (name = pf_bench_isa_name(i)); i++)
    if (!strcmp(name, s))
      return true;
  return false;
}

/* Every word of the list is known. */
static bool words(const char *list, bool (*known)(const char *)) {
  char *copy = strdup(list), *at = NULL;
  bool ok = copy && *copy;
  for (char *w = copy ? strtok_r(copy, ",", &at) : NULL; w && ok; w = strtok_r(NULL, ",", &at))
    ok = known(w);
  free(copy);
  return ok;
}

static bool option(int c, const char *v, pf_bench_opts *o) {
  size_t n = 0;
  switch (c) {
  case OP:
    o->ops = v;
    return words(v, known_op) || bad("--op", v);
  case ISA:
    o->isas = v;
    return words(v, known_isa) || bad("--isa", v);
  case SHAPE:
    return shape_of(v, o) || bad("--shape", v);
  case 'm':
    return sizes(v, o->m, PF_BENCH_MAX_M, &o->n_m) || bad("-m", v);
  case GROUP:
    return (one_size(v, &o->group) && o->group % 64 == 0 && o->group <= PF_S8_GROUP_MAX) ||
           bad("--group", v);
  case THREADS:
    o->threads = one_size(v, &n) && n <= 4096 ? (int)n : 0;
    return o->threads || bad("--threads", v);
  case FORMAT:
    return format_of(v, &o->format) || bad("--format", v);
  case SECONDS:
    return real(v, &o->seconds) || bad("--seconds", v);
  case LIMIT:
    return real(v, &o->limit) || bad("--limit", v);
  case PEERS:
  case NO_PEERS:
    o->peers = c == PEERS;
    return true;
  case QUICK:
    o->quick = true;
    return true;
  case SMOKE:
    o->smoke = true;
    return true;
  case TARGETS:
    o->targets = true;
    return true;
  case PEAKS:
    o->peaks_only = true;
    return true;
  default:
    return false;
  }
}

/* 70 and 96: edges in both, and two blocks of K. */
static void smoke(pf_bench_opts *o) {
  static const size_t m[] = {1, 17, 33};
  o->k = o->k ? o->k : 70;
  o->n = o->n ? o->n : 96;
  o->n_m = o->n_m ? o->n_m : 3;
  memcpy(o->m, m, sizeof m);
  o->seconds = 1e-6;
}

static void defaults(pf_bench_opts *o) {
  static const size_t m[] = {1, 4, 16, 64, 128, 512}, quick_m[] = {1, 16, 512};
  if (!o->threads)
    o->threads = pf_par_default();
  if (o->smoke)
    smoke(o);
  if (o->seconds <= 0)
    o->seconds = o->quick ? 0.05 : 0.2;
  if (o->n_m)
    return;
  o->n_m = o->quick ? 3 : 6;
  memcpy(o->m, o->quick ? quick_m : m, o->n_m * sizeof *m);
}

/* PF_EENV if this machine has none of the instruction sets that are asked for. */
static int look_at_isas(const pf_bench_opts *o) {
  const char *name;
  pf_simd f;
  bool any = !o->isas;
  for (size_t i = 0; (name = pf_bench_isa_name(i)); i++)
    any |= o->isas && pf_bench_listed(o->isas, name) && pf_bench_isa(&f, name);
  return any ? PF_OK : pf_fail(PF_EENV, "--isa %s: this CPU or this build has none", o->isas);
}

static int run(pf_bench *b) {
  size_t bytes = pf_bench_largest(&b->o);
  size_t least = b->o.smoke ? SMOKE_BYTES : PF_READ_BYTES;
  int status = pf_arena_open(&b->arena, bytes > least ? bytes : least, b->o.threads);
  if (status != PF_OK)
    return status;
  b->peaks.threads = b->o.threads;
  b->peaks.rough = b->o.smoke;
  pf_peaks_measure_in(&b->peaks, &b->arena);
  if (b->o.targets) {
    status = pf_bench_targets(b);
    pf_arena_close(&b->arena);
    return status;
  }
  pf_table_begin(b);
  if (!b->o.peaks_only)
    status = pf_bench_products(b);
  if (!b->o.peaks_only && status == PF_OK)
    status = pf_bench_attention(b);
  if (!b->o.peaks_only && status == PF_OK)
    status = pf_bench_layout(b);
  if (!b->o.peaks_only && status == PF_OK && (b->o.ops || b->o.smoke || !b->o.k))
    status = pf_bench_rows(b);
  pf_table_end(b);
  pf_arena_close(&b->arena);
  return status;
}

int main(int argc, char **argv) {
  static pf_bench b = {.o = {.peers = true, .limit = 5, .group = 512}};
  for (int c; (c = getopt_long(argc, argv, "m:", options, NULL)) != -1;) {
    if (c == HELP) {
      fputs(usage, stdout);
      return 0;
    }
    if (!option(c, optarg, &b.o)) {
      if (c == '?')
        fputs(usage, stderr);
      return 2;
    }
  }
  if (optind < argc) {
    fputs(usage, stderr);
    return 2;
  }
  defaults(&b.o);
  int status = look_at_isas(&b.o);
  if (status == PF_OK)
    status = run(&b);
  if (status != PF_OK)
    fprintf(stderr, "bench/kernels: %s\n", pf_last_error());
  return pf_exit_code(status);
}
