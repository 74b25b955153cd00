/* SPDX-License-Identifier: Apache-2.0
 * bench/model --targets: what the project set out to reach for the whole model, what this machine
 * gives, met or not. A Markdown table from the lines that the run measured; rates are the best of
 * their repetitions, peaks and bandwidth the best of the run. */
#include "config.h"

#include <stdio.h>

#include "bench/model.h"

enum { PROMPT = 512, MANY = 48 };
#define MEMORY 1.5e9 /* bytes beside the weights */

static void say(const pf_mb_line *l, const char *what, const char *target, const char *value,
                bool met) {
  printf("| %s %s, %s | %s | %s | %s |\n", pf_mb_name(l), pf_precision_name(l->info.precision),
         what, target, value, met ? "met" : "**not met**");
}

typedef struct reference {
  const char *name;
  int d_model, layers;
  double bf16_pp, bf16_tg, q8_pp, q8_tg;
} reference;

static const reference *reference_of(const pf_mb_line *l) {
  static const reference all[] = {
#define PF_REFERENCE(...) {__VA_ARGS__},
#include "bench/reference.def"
#undef PF_REFERENCE
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].d_model == l->info.d_model && all[i].layers == l->info.n_layers)
      return &all[i];
  return NULL;
}

static void against(const pf_mb_line *l, const char *what, double factor, double theirs,
                    const char *format) {
  char target[128], value[64];
  double rate = pf_mb_rate(l);
  snprintf(target, sizeof target, "%.4g x llama.cpp %s: %.4g tokens/s", factor, format,
           factor * theirs);
  snprintf(value, sizeof value, "%.1f tokens/s, %.2f x", rate, rate / theirs);
  say(l, what, target, value, rate >= factor * theirs);
}

/* Without AMX the machine's own bound is the target, and what that is beside llama.cpp is said. */
static void of_bound(const pf_mb_line *l, const reference *r) {
  char value[128];
  double share = pf_mb_ops(l) / l->peak, rate = pf_mb_rate(l);
  int n = snprintf(value, sizeof value, "%.1f %% (%.1f tokens/s", 100 * share, rate);
  if (r)
    n += snprintf(value + n, sizeof value - (size_t)n, ", %.2f x llama.cpp BF16 with AMX",
                  rate / r->bf16_pp);
  snprintf(value + n, sizeof value - (size_t)n, ")");
  say(l, l->name,
      l->info.precision == PF_PRECISION_F32 ? "70 % of a third of the multiply-add peak"
                                            : "70 % of the multiply-add peak",
      value, share >= 0.7);
}

static void prefill(const pf_mb *b, const pf_mb_line *l) {
  (void)b;
  const reference *r = reference_of(l);
  pf_precision p = l->info.precision;
  if (l->test != PF_MB_PP || l->p != PROMPT || l->depth)
    return;
  if (!l->amx && p != PF_PRECISION_INT8) {
    if (l->peak > 0) /* of the scalar kernels none is measured */
      of_bound(l, r);
    return;
  }
  if (!r)
    return;
  if (p == PF_PRECISION_INT8)
    against(l, l->name, 4, r->q8_pp, "Q8_0");
  else
    against(l, l->name, p == PF_PRECISION_F32 ? 4 : 10, r->bf16_pp, "BF16");
}

static void decode(const pf_mb *b, const pf_mb_line *l) {
  const reference *r = reference_of(l);
  char value[128];
  double share = pf_mb_flow(l) / b->peaks.read;
  if (l->test != PF_MB_TG || l->branches != 1)
    return;
  snprintf(value, sizeof value,
           "%.1f %% (%.1f of %.1f GB/s; of %.1f, median between the steps, %.1f %%)", 100 * share,
           1e-9 * pf_mb_flow(l), 1e-9 * b->peaks.read, 1e-9 * l->read_now,
           100 * pf_mb_flow(l) / l->read_now);
  say(l, l->name, "85 % of the read bandwidth over the weights", value, share >= 0.85);
  if (r && l->info.precision == PF_PRECISION_INT8)
    against(l, l->name, 1.15, r->q8_tg, "Q8_0");
  else if (r)
    against(l, l->name, 1.5, r->bf16_tg, "BF16");
}

/* The line of one branch that belongs to one of many. */
static const pf_mb_line *single(const pf_mb *b, const pf_mb_line *l) {
  for (size_t i = 0; i < b->n_lines; i++) {
    const pf_mb_line *s = &b->lines[i];
    if (s->test == PF_MB_TG && s->branches == 1 && s->n == l->n && s->model == l->model &&
        s->info.precision == l->info.precision)
      return s;
  }
  return NULL;
}

static void batch(const pf_mb *b, const pf_mb_line *l) {
  char value[96];
  const pf_mb_line *one;
  if (l->test != PF_MB_TG || l->branches != MANY || !(one = single(b, l)))
    return;
  double times = pf_mb_rate(l) / pf_mb_rate(one);
  snprintf(value, sizeof value, "%.1f x (%.1f of %.1f tokens/s)", times, pf_mb_rate(l),
           pf_mb_rate(one));
  say(l, l->name, "30 x the tokens/s of one branch", value, times >= 30);
}

static void loading(const pf_mb *b, const pf_mb_line *l) {
  char value[128];
  (void)b;
  double share = pf_mb_flow(l) / l->read;
  snprintf(value, sizeof value, "%.1f %% (%.2f of %.2f GB/s, %.2f s)", 100 * share,
           1e-9 * pf_mb_flow(l), 1e-9 * l->read, l->best_s);
  if (l->test == PF_MB_LOAD)
    say(l, l->name, "80 % of pread on as many threads into fresh memory", value, share >= 0.8);
  if (l->test == PF_MB_COLD)
    say(l, l->name, "90 % of the disk's rate", value, share >= 0.9);
}

static void memory(const pf_mb *b, const pf_mb_line *l) {
  char value[96];
  double more = l->memory - l->size;
  (void)b;
  if (l->tokens <= 0)
    return;
  snprintf(value, sizeof value, "%.2f GB, weights and %.2f GB", 1e-9 * l->memory, 1e-9 * more);
  say(l, l->name, "weights and 1.5 GB", value, more <= MEMORY);
}

void pf_mb_targets(const pf_mb *b) {
  static void (*const judges[])(const pf_mb *b,
                                const pf_mb_line *l) = {[PF_MB_PART_PREFILL] = prefill,
                                                        [PF_MB_PART_DECODE] = decode,
                                                        [PF_MB_PART_BATCH] = batch,
                                                        [PF_MB_PART_LOAD] = loading,
                                                        [PF_MB_PART_MEMORY] = memory};
  printf("\n| what | target | measured | |\n|---|---|---|---|\n");
  for (int p = 0; p < PF_MB_N_PARTS; p++)
    for (size_t i = 0; i < b->n_lines && b->o.only[p]; i++)
      judges[p](b, &b->lines[i]);
  for (size_t i = 0; i < b->n_lines; i++)
    if (b->lines[i].test >= PF_MB_SUMS)
      printf("\n%s %s, %s: %.2f s.", b->lines[i].model,
             pf_precision_name(b->lines[i].info.precision), b->lines[i].name, b->lines[i].best_s);
  putchar('\n');
}
