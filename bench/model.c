/* SPDX-License-Identifier: Apache-2.0
 * bench/model: the speed of the whole model, with the options and outputs of llama-bench where they
 * mean the same. */
#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "bench/model.h"

static const char usage[] =
    "usage: bench/model -m DIR[,DIR...] [OPTION]...\n"
    "  -m DIR[,DIR...]     checkpoints (pf-mkckpt writes random ones of a model's shape)\n"
    "  --precision P[,P..] f32, bf16, bf16-hf, int8 (default: f32,bf16,int8)\n"
    "  -p N[,N...]         prompts of N tokens (default: 128,512,2048; 0: none)\n"
    "  -n N[,N...]         generation of N tokens (default: 32; 0: none)\n"
    "  -npl N[,N...]       branches that generate together (default: 1,16,48)\n"
    "  -d N                tokens that are there before each test (default: 0)\n"
    "  -b N                tokens of a prompt in one call (default: 2048)\n"
    "  -t N                threads (default: OMP_NUM_THREADS, else all CPUs)\n"
    "  -r N                repetitions (default: 3)\n"
    "  -o md|csv|json|jsonl\n"
    "  --load              loading too: warm, cold, with checksums, to the first token\n"
    "  --no-warmup         no repetition before those that count\n"
    "  --profile           share of each role, on standard error\n"
    "  --targets           the table of targets after the lines: measured value, met or not (md)\n"
    "  --only PART[,...]   of the targets: prefill, decode, batch, load, memory\n"
    "  --smoke             short measures of the machine: does everything run?\n"
    "  --help\n"
    "A line: mean tokens a second and standard deviation; the best repetition's seconds; its "
    "operations a second (a\nmultiply-add is two) and their share of the peak of the instruction "
    "that the products use (f32: of a third of it);\nthe bytes of weights it read, a second, and "
    "their share of the best bandwidth from the same memory; the peak of\nresident memory. Peaks "
    "and bandwidth are the best of the same run; csv and json have those beside the line too.\n"
    "Tokens are random, nothing is sampled. Loading: bytes of the files, beside pread on as many "
    "threads into fresh memory\n(cold: beside the best of plain reads).\n";

enum { HELP = 256, PRECISION, NPL, LOAD, NO_WARMUP, PROFILE, TARGETS, ONLY, SMOKE };

static const struct option options[] = {
    {"help", 0, 0, HELP},       {"precision", 1, 0, PRECISION}, {"npl", 1, 0, NPL},
    {"load", 0, 0, LOAD},       {"no-warmup", 0, 0, NO_WARMUP}, {"profile", 0, 0, PROFILE},
    {"targets", 0, 0, TARGETS}, {"only", 1, 0, ONLY},           {"smoke", 0, 0, SMOKE},
    {"model", 1, 0, 'm'},       {"n-prompt", 1, 0, 'p'},        {"n-gen", 1, 0, 'n'},
    {"n-depth", 1, 0, 'd'},     {"batch-size", 1, 0, 'b'},      {"threads", 1, 0, 't'},
    {"repetitions", 1, 0, 'r'}, {"output", 1, 0, 'o'},          {0, 0, 0, 0},
};

static bool bad(const char *what, const char *value) {
  fprintf(stderr, "bench/model: %s: '%s' is not one\n", what, value);
  return false;
}

/* ---- lists with commas ---- */

typedef bool (*word_fn)(pf_mb_opts *o, const char *word);

/* Cuts the list up where it stands: the words stay in the argument. */
static bool each(pf_mb_opts *o, const char *name, char *list, word_fn take) {
  char *at = NULL, *w = strtok_r(list, ",", &at);
  if (!w)
    return bad(name, "");
  for (; w; w = strtok_r(NULL, ",", &at))
    if (!take(o, w))
      return bad(name, w);
  return true;
}

static bool number(const char *s, size_t least, size_t most, size_t *v) {
  char *end;
  unsigned long long x = strtoull(s, &end, 10);
  *v = (size_t)x;
  return end != s && !*end && *s != '-' && x >= least && x <= most;
}

/* 0 stands for nothing at all. */
static bool push(size_t *list, size_t *n, const char *s, size_t most) {
  size_t v;
  if (*n == PF_MB_LIST || !number(s, 0, most, &v))
    return false;
  if (v)
    list[(*n)++] = v;
  return true;
}

static bool take_model(pf_mb_opts *o, const char *s) {
  if (o->n_models == PF_MB_LIST)
    return false;
  o->model[o->n_models++] = s;
  return true;
}

static bool take_precision(pf_mb_opts *o, const char *s) {
  return o->n_precisions < PF_N_PRECISIONS &&
         pf_precision_parse(s, &o->precision[o->n_precisions++]) == PF_OK;
}

static bool take_prompt(pf_mb_opts *o, const char *s) {
  return push(o->p, &o->n_p, s, 1 << 20);
}

static bool take_gen(pf_mb_opts *o, const char *s) {
  return push(o->n, &o->n_n, s, 1 << 20);
}

static bool take_npl(pf_mb_opts *o, const char *s) {
  return push(o->npl, &o->n_npl, s, 4096);
}

static bool take_part(pf_mb_opts *o, const char *s) {
  static const char *const words[] = {
#define PF_MB_PART(id, word) word,
      PF_MB_PARTS(PF_MB_PART)
#undef PF_MB_PART
  };
  for (int i = 0; i < PF_MB_N_PARTS; i++)
    if (!strcmp(s, words[i]))
      return o->only[i] = true;
  return false;
}

static bool format_of(const char *s, pf_mb_format *f) {
  static const char *const names[] = {"md", "csv", "json", "jsonl"};
  for (int i = 0; i < 4; i++)
    if (!strcmp(s, names[i])) {
      *f = (pf_mb_format)i;
      return true;
    }
  return false;
}

/* ---- options ---- */

static bool flag(int c, pf_mb_opts *o) {
  bool *const at = c == LOAD      ? &o->load
                   : c == PROFILE ? &o->profile
                   : c == TARGETS ? &o->targets
                   : c == SMOKE   ? &o->smoke
                                  : NULL;
  if (at)
    *at = true;
  else if (c == NO_WARMUP)
    o->warmup = false;
  return at || c == NO_WARMUP;
}

static bool option(int c, char *v, pf_mb_opts *o) {
  size_t n = 0;
  switch (c) {
  case 'm':
    return each(o, "-m", v, take_model);
  case PRECISION:
    return each(o, "--precision", v, take_precision);
  case 'p':
    return each(o, "-p", v, take_prompt);
  case 'n':
    return each(o, "-n", v, take_gen);
  case NPL:
    return each(o, "-npl", v, take_npl);
  case ONLY:
    return each(o, "--only", v, take_part);
  case 'd':
    return number(v, 0, 1 << 20, &o->depth) || bad("-d", v);
  case 'b':
    return number(v, 1, 1 << 20, &o->batch) || bad("-b", v);
  case 'r':
    return number(v, 1, 1000, &o->reps) || bad("-r", v);
  case 't':
    o->threads = number(v, 1, 4096, &n) ? (int)n : 0;
    return o->threads || bad("-t", v);
  case 'o':
    return format_of(v, &o->format) || bad("-o", v);
  default:
    return flag(c, o);
  }
}

/* What a part of the targets needs, where nothing else was asked for. */
static void need(pf_mb_opts *o, bool given[2]) {
  static const size_t npl[] = {1, 48};
  bool any = false;
  for (int i = 0; i < PF_MB_N_PARTS; i++)
    any |= o->only[i];
  for (int i = 0; i < PF_MB_N_PARTS && !any; i++)
    o->only[i] = true;
  bool p = o->only[PF_MB_PART_PREFILL] || o->only[PF_MB_PART_MEMORY],
       many = o->only[PF_MB_PART_BATCH] || o->only[PF_MB_PART_MEMORY],
       n = many || o->only[PF_MB_PART_DECODE];
  if (!given[0] && p)
    o->p[o->n_p++] = 512;
  if (!given[1] && n)
    o->n[o->n_n++] = 32;
  if (!o->n_npl) {
    memcpy(o->npl, npl, sizeof npl);
    o->n_npl = many ? 2 : 1;
  }
  given[0] = given[1] = true;
  o->load |= o->only[PF_MB_PART_LOAD];
}

static void defaults(pf_mb_opts *o, bool given[2]) {
  static const size_t p[] = {128, 512, 2048}, npl[] = {1, 16, 48};
  static const pf_precision all[] = {PF_PRECISION_F32, PF_PRECISION_BF16, PF_PRECISION_INT8};
  if (!o->n_precisions) {
    memcpy(o->precision, all, sizeof all);
    o->n_precisions = 3;
  }
  if (o->targets)
    need(o, given);
  if (!given[0]) {
    memcpy(o->p, p, sizeof p);
    o->n_p = 3;
  }
  if (!given[1])
    o->n[o->n_n++] = 32;
  if (!o->n_npl) {
    memcpy(o->npl, npl, sizeof npl);
    o->n_npl = 3;
  }
}

static int run(pf_mb *b) {
  int rc = PF_OK;
  for (size_t i = 0; i < b->o.n_models && rc == PF_OK; i++)
    for (size_t k = 0; k < b->o.n_precisions && rc == PF_OK; k++)
      rc = pf_mb_run(b, b->o.model[i], b->o.precision[k]);
  if (rc == PF_OK)
    pf_mb_end(b);
  if (rc == PF_OK && b->o.targets)
    pf_mb_targets(b);
  if (b->own_arena)
    pf_arena_close(&b->arena);
  pf_free(b->lines);
  return rc;
}

int main(int argc, char **argv) {
  static pf_mb b = {.o = {.batch = 2048, .reps = 3, .warmup = true}};
  bool given[2] = {false, false};
  for (int c; (c = getopt_long_only(argc, argv, "m:p:n:d:b:t:r:o:", options, NULL)) != -1;) {
    given[0] |= c == 'p';
    given[1] |= c == 'n';
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
  if (optind < argc || !b.o.n_models || (b.o.targets && b.o.format != PF_MB_MD)) {
    fputs(usage, stderr);
    return 2;
  }
  defaults(&b.o, given);
  int rc = run(&b);
  if (rc != PF_OK)
    fprintf(stderr, "bench/model: %s\n", pf_last_error());
  return pf_exit_code(rc);
}
