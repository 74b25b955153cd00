/* SPDX-License-Identifier: Apache-2.0
 * bench/kernels --targets: what the project set out to reach, what this machine gives, met or not.
 * A Markdown table. Everything that a line compares, the read bandwidth too, was called in turn
 * (pf_bench_race) and stands for its median. The peak of a product's instruction is called in turn
 * with it and stands for its best, as clocks and neighbours change within a run; the share of the
 * best peak of the whole run stands beside. A line is judged by its worst matrix. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "bench/bench.h"

enum { SMALL_SHAPE = 7 }; /* qwen2.5-1.5b k v, alone in a smoke run */

/* The worst and the best of a ratio over the matrices. */
typedef struct worst {
  double v, best;
  const char *what;
  size_t n;
} worst;

static void lower(worst *w, double v, const char *what) {
  w->best = w->n && w->best > v ? w->best : v;
  if (!w->n++ || v < w->v) {
    w->v = v;
    w->what = what;
  }
}

static void higher(worst *w, double v, const char *what) {
  w->best = w->n && w->best < v ? w->best : v;
  if (!w->n++ || v > w->v) {
    w->v = v;
    w->what = what;
  }
}

static void say(pf_bench *b, const char *what, const char *target, const char *value, bool met) {
  printf("| %s | %s | %s | %s |\n", what, target, value, met ? "met" : "**not met**");
  b->lines++;
  fflush(stdout);
}

static bool chosen(const pf_bench *b, const char *op, const char *isa) {
  return pf_bench_listed(b->o.ops, op) && pf_bench_listed(b->o.isas, isa);
}

typedef struct matrix {
  const char *what;
  size_t k, n;
} matrix;

static bool matrix_at(const pf_bench *b, size_t i, matrix *out) {
  if (b->o.smoke) {
    (void)pf_bench_shape(SMALL_SHAPE, &out->what, &out->k, &out->n);
    return i == 0;
  }
  return pf_bench_shape(i, &out->what, &out->k, &out->n);
}

static double ops_of(const matrix *s, size_t m) {
  return 2.0 * (double)m * (double)s->k * (double)s->n;
}

/* pf_bench_race of those that exist (arg not NULL); the times of the others are not set. */
static void race_some(size_t n, const pf_bench_fn *fns, void *const *arg, double seconds,
                      double *t) {
  pf_bench_fn fn[PF_BENCH_RACERS];
  void *there[PF_BENCH_RACERS];
  double times[PF_BENCH_RACERS];
  size_t n_there = 0, at = 0;
  for (size_t i = 0; i < n; i++)
    if (arg[i]) {
      fn[n_there] = fns[i];
      there[n_there++] = arg[i];
    }
  pf_bench_race(n_there, fn, there, seconds, times);
  for (size_t i = 0; i < n; i++)
    if (arg[i])
      t[i] = times[at++];
}

/* ---- AMX beside oneDNN and beside a free order ---- */

typedef struct versus {
  worst share, of_best, ratio, cost; /* of the peak in turn; of the best of the run */
} versus;

/* Ours and the peak, then the free order and oneDNN where they exist. */
static void race_one(pf_bench *b, const char *op, const char *isa, pf_peer_kind kind, size_t m,
                     const matrix *s, versus *v) {
  enum { OURS, PEAK, FREE, PEER, N };
  pf_peaking peak;
  double passes, t[N], ops = ops_of(s, m);
  pf_bench_product *ours = pf_bench_product_open(b, op, isa, false, m, s->k, s->n);
  bool peaked = ours && pf_bench_product_peaking(b, op, isa, &peak, &passes);
  void *arg[N] = {ours, peaked ? &peak : NULL};
  if (ours)
    arg[FREE] = pf_bench_product_open(b, op, isa, true, m, s->k, s->n);
  if (ours && kind != PF_PEER_N)
    arg[PEER] = pf_peer_open(kind, b, m, s->k, s->n);
  const pf_bench_fn fns[N] = {pf_bench_product_call, pf_peak_call, pf_bench_product_call,
                              pf_peer_call};
  if (ours) {
    race_some(N, fns, arg, b->o.seconds, t);
    if (peaked) {
      lower(&v->share, ops / t[OURS] * passes / peak.best, s->what);
      lower(&v->of_best, ops / t[OURS] / pf_bench_product_peak(b, op, isa), s->what);
    }
    if (arg[FREE])
      higher(&v->cost, t[OURS] / t[FREE], s->what);
    if (arg[PEER])
      lower(&v->ratio, t[PEER] / t[OURS], s->what);
  }
  pf_peer_close(arg[PEER]);
  pf_bench_product_close(arg[FREE]);
  pf_bench_product_close(ours);
}

static void share_text(char *out, size_t size, const versus *v) {
  snprintf(out, size, "%.1f %% (%s), best %.1f %%; of the best peak of the run %.1f to %.1f %%",
           100 * v->share.v, v->share.what, 100 * v->share.best, 100 * v->of_best.v,
           100 * v->of_best.best);
}

static void amx_line(pf_bench *b, const char *op, const char *name, pf_peer_kind kind, double share,
                     double ratio) {
  versus v = {0};
  matrix s;
  char target[128], value[256], what[64];
  if (!chosen(b, op, "amx"))
    return;
  for (size_t i = 0; matrix_at(b, i, &s); i++)
    race_one(b, op, "amx", kind, 512, &s, &v);
  if (!v.share.n)
    return;
  snprintf(what, sizeof what, "AMX %s, M = 512, %zu matrices", name, v.share.n);
  snprintf(target, sizeof target, "at least %.0f %% of the AMX peak", 100 * share);
  share_text(value, sizeof value, &v);
  say(b, what, target, value, v.share.v >= share);
  if (v.ratio.n) {
    snprintf(target, sizeof target, ratio > 1 ? "%.1f x oneDNN" : "faster than oneDNN", ratio);
    snprintf(value, sizeof value, "%.2f x (%s), best %.2f", v.ratio.v, v.ratio.what, v.ratio.best);
    say(b, what, target, value, v.ratio.v > ratio);
  }
  if (v.cost.n) {
    snprintf(value, sizeof value, "%.2f x (%s), best %.2f", v.cost.v, v.cost.what, v.cost.best);
    say(b, what, "at most 1.25 x our best free order", value, v.cost.v <= 1.25);
  }
}

/* int8 without AMX against its free order. */
static void cost_line(pf_bench *b, const char *isa) {
  versus v = {0};
  matrix s;
  char value[256], what[64];
  for (size_t i = 0; chosen(b, "gemm_s8", isa) && matrix_at(b, i, &s); i++)
    if (s.n < 100000)
      race_one(b, "gemm_s8", isa, PF_PEER_N, 512, &s, &v);
  if (!v.cost.n)
    return;
  snprintf(what, sizeof what, "%s int8, M = 512, %zu matrices", isa, v.cost.n);
  snprintf(value, sizeof value, "%.2f x (%s), best %.2f", v.cost.v, v.cost.what, v.cost.best);
  say(b, what, "at most 1.25 x our best free order", value, v.cost.v <= 1.25);
}

/* ---- vectors against the FMA peak ---- */

#define LONGEST 0.6 /* seconds of a call at half the peak; longer ones are left out */

static void peak_line(pf_bench *b, const char *isa, const char *op) {
  versus v = {0};
  static const size_t rows[] = {64, 128, 512};
  matrix s;
  char value[256], what[96];
  double peak = pf_bench_product_peak(b, op, isa);
  for (size_t i = 0; chosen(b, op, isa) && peak > 0 && matrix_at(b, i, &s); i++)
    for (size_t j = 0; j < 3; j++)
      if (ops_of(&s, rows[j]) / peak * 2 < LONGEST)
        race_one(b, op, isa, PF_PEER_N, rows[j], &s, &v);
  if (!v.share.n)
    return;
  snprintf(what, sizeof what, "%s %s, M = 64, 128, 512, %zu products", isa, op, v.share.n);
  share_text(value, sizeof value, &v);
  say(b, what,
      !strcmp(op, "gemm_x3_bf16") ? "75 % of a third of the FMA peak" : "75 % of the FMA peak",
      value, v.share.v >= 0.75);
}

/* ---- few rows against the bandwidth ---- */

/* read: the bandwidth in the same minute, measured between the calls; NULL: do not. */
static double median_of(const pf_bench *b, const char *op, const char *isa, size_t m,
                        const matrix *s, double *bytes, double *read) {
  pf_bench_product *p = pf_bench_product_open(b, op, isa, false, m, s->k, s->n);
  pf_reading reading = {&b->peaks, &b->arena};
  const pf_bench_fn fn[2] = {pf_bench_product_call, pf_read_call};
  void *const arg[2] = {p, &reading};
  double t[2] = {0, 0};
  if (p) {
    pf_bench_race(read ? 2 : 1, fn, arg, b->o.seconds, t);
    *bytes = pf_bench_product_bytes(p);
  }
  if (p && read)
    *read = pf_reading_bytes(&reading) / t[1];
  pf_bench_product_close(p);
  return t[0];
}

/* M = 1 against the bandwidth; 4 and 16 against M = 1 where at full peak they would be faster. */
static void read_line(pf_bench *b, const char *isa, const char *op) {
  worst share = {0, 0, "", 0}, slower = {0, 0, "", 0};
  double best = 0, ideal = 0, all_time = 0, bytes = 0, read = 0,
         peak = pf_bench_product_peak(b, op, isa);
  matrix s;
  char value[256], what[96];
  for (size_t i = 0; chosen(b, op, isa) && matrix_at(b, i, &s); i++) {
    double t = median_of(b, op, isa, 1, &s, &bytes, &read);
    if (t <= 0)
      return;
    lower(&share, bytes / t / read, s.what);
    best = bytes / t > best ? bytes / t : best;
    ideal += bytes / read;
    all_time += t;
    for (size_t m = 4; m <= 16; m *= 4) {
      double base = t, more;
      if (peak > 0 && ops_of(&s, m) / peak < t &&
          (more = median_of(b, op, isa, m, &s, &bytes, NULL)) > 0)
        higher(&slower, more / base, s.what);
    }
  }
  if (!share.n)
    return;
  snprintf(what, sizeof what, "%s %s, M = 1", isa, op);
  snprintf(value, sizeof value, "%.1f %% (%s); all matrices together %.1f %%; best %.1f GB/s",
           100 * share.v, share.what, 100 * ideal / all_time, best * 1e-9);
  say(b, what, "90 % of the read bandwidth", value, share.v >= 0.9);
  if (!slower.n)
    return;
  snprintf(what, sizeof what, "%s %s, M = 4, 16 where the peak would allow it", isa, op);
  snprintf(value, sizeof value, "%.2f x (%s), best %.2f", slower.v, slower.what, slower.best);
  say(b, what, "at most 1.15 x M = 1", value, slower.v <= 1.15);
}

/* ---- f32 mode ---- */

static void mode_line(pf_bench *b, size_t m, double target) {
  worst w = {0, 0, "", 0};
  matrix s;
  char value[256], what[64], limit[64];
  for (size_t i = 0; chosen(b, "gemm_x3_bf16", "amx") && matrix_at(b, i, &s); i++) {
    pf_bench_product *x3 = pf_bench_product_open(b, "gemm_x3_bf16", "amx", false, m, s.k, s.n),
                     *bf = pf_bench_product_open(b, "gemm_bf16", "amx", false, m, s.k, s.n);
    const pf_bench_fn fn[2] = {pf_bench_product_call, pf_bench_product_call};
    void *arg[2] = {x3, bf};
    double t[2];
    if (x3 && bf) {
      pf_bench_race(2, fn, arg, b->o.seconds, t);
      higher(&w, t[0] / t[1], s.what);
    }
    pf_bench_product_close(x3);
    pf_bench_product_close(bf);
  }
  if (!w.n)
    return;
  snprintf(what, sizeof what, "f32 mode on AMX, M = %zu", m);
  snprintf(limit, sizeof limit, "at most %.1f x bf16", target);
  snprintf(value, sizeof value, "%.2f x (%s), best %.2f", w.v, w.what, w.best);
  say(b, what, limit, value, w.v <= target);
}

/* ---- attention ---- */

static double attention_time(const pf_bench *b, const pf_bench_model *m, const char *isa,
                             bool halves, bool decode, double *share) {
  pf_bench_attn *a = pf_bench_attn_open(b, m, isa, halves, decode);
  pf_reading reading = {&b->peaks, &b->arena};
  const pf_bench_fn fn[2] = {pf_bench_attn_call, pf_read_call};
  void *const arg[2] = {a, &reading};
  double t[2] = {0, 0};
  if (a) {
    pf_bench_race(2, fn, arg, b->o.seconds, t);
    *share = pf_bench_attn_bytes(a) / t[0] / (pf_reading_bytes(&reading) / t[1]);
  }
  pf_bench_attn_close(a);
  return t[0];
}

/* The products of one layer, those of a name with two matrices twice. */
static double layer_time(const pf_bench *b, const char *model, const char *op, const char *isa) {
  double t = 0, bytes;
  matrix s;
  for (size_t i = 0; matrix_at(b, i, &s); i++) {
    const char *names = s.what + strlen(model) + 1;
    if (b->o.smoke || (!strncmp(s.what, model, strlen(model)) && strcmp(names, "unembed")))
      t += (strchr(names, ' ') ? 2 : 1) * median_of(b, op, isa, 512, &s, &bytes, NULL);
  }
  return t;
}

/* The last instruction set of the list that has the operation. */
static const char *best_isa(const pf_bench *b, const char *op) {
  const char *isa, *best = NULL;
  for (size_t i = 0; (isa = pf_bench_isa_name(i)); i++) {
    pf_simd f;
    if (!pf_bench_listed(b->o.isas, isa) || !pf_bench_isa(&f, isa))
      continue;
    if (!strcmp(op, "attention")        ? !!f.qk
        : !strcmp(op, "attention_bf16") ? !!f.qk_bf16
        : !strcmp(op, "gemm_bf16")      ? !!f.gemm_bf16
                                        : !!f.gemm_s8)
      best = isa;
  }
  return best;
}

/* Prefill beside the other products of a layer in bf16. */
static void prefill_line(pf_bench *b, const pf_bench_model *m, const char *isa, const char *gemm) {
  char value[256], what[96];
  double share, t = attention_time(b, m, isa, true, false, &share),
                rest = gemm ? layer_time(b, m->name, "gemm_bf16", gemm) : 0;
  if (t <= 0 || rest <= 0)
    return;
  snprintf(what, sizeof what, "%s attention_bf16 (%s), 512 tokens, beside bf16 products (%s)",
           m->name, isa, gemm);
  snprintf(value, sizeof value, "%.1f %% of a layer (%.2f ms of %.2f)", 100 * t / (t + rest),
           1e3 * t, 1e3 * (t + rest));
  say(b, what, "at most 15 % of the forward", value, t / (t + rest) <= 0.15);
}

static void decode_line(pf_bench *b, const pf_bench_model *m, const char *isa, bool halves) {
  char value[256], what[96];
  double share, t = attention_time(b, m, isa, halves, true, &share);
  snprintf(what, sizeof what, "%s %s (%s), decode at 2,048 keys", m->name, pf_bench_attn_op(halves),
           isa);
  snprintf(value, sizeof value, "%.1f %% (%.2f ms)", 100 * share, 1e3 * t);
  say(b, what, "80 % of the read bandwidth", value, share >= 0.8);
}

static void attention_lines(pf_bench *b) {
  const pf_bench_model *m;
  const char *gemm = best_isa(b, "gemm_bf16");
  for (size_t i = 0; (m = pf_bench_model_at(i)) && i < (b->o.smoke ? 1 : 2); i++)
    for (int halves = 0; halves < 2; halves++) {
      const char *isa = best_isa(b, pf_bench_attn_op(halves));
      if (!isa || !pf_bench_listed(b->o.ops, pf_bench_attn_op(halves)))
        continue;
      if (halves)
        prefill_line(b, m, isa, gemm);
      decode_line(b, m, isa, halves);
    }
}

/* ---- the table ---- */

static void all_lines(pf_bench *b) {
  static const char *const reals[] = {"gemm_bf16", "gemm_x3_bf16", "gemm_f32"};
  static const char *const ops[] = {"gemm_bf16", "gemm_x3_bf16", "gemm_f32", "gemm_s8"};
  const char *isa;
  amx_line(b, "gemm_bf16", "bf16", PF_PEER_DNNL_BF16, 0.5, 1.5);
  amx_line(b, "gemm_s8", "int8", PF_PEER_DNNL_S8, 0.4, 1);
  for (size_t i = 0; (isa = pf_bench_isa_name(i)); i++)
    if (strcmp(isa, "amx"))
      cost_line(b, isa);
  for (size_t i = 0; (isa = pf_bench_isa_name(i)); i++)
    for (size_t j = 0; j < 3; j++)
      if (strcmp(isa, "amx"))
        peak_line(b, isa, reals[j]);
  for (size_t i = 0; (isa = pf_bench_isa_name(i)); i++)
    for (size_t j = 0; j < 4; j++)
      if (strcmp(isa, "scalar"))
        read_line(b, isa, ops[j]);
  mode_line(b, 512, 3.2);
  mode_line(b, 1, 1.1);
  attention_lines(b);
}

int pf_bench_targets(pf_bench *b) {
  char words[512], blas[256], dnnl[256];
  pf_cpu_words(pf_cpu_bits(), words, sizeof words);
  pf_peers_describe(blas, dnnl);
  printf("%s, %d threads (%s); oneDNN: %s. Groups of %zu in int8.\n\n", pf_cpu_brand(),
         b->peaks.threads, words, dnnl, b->o.group);
  printf("| what | target | measured: worst matrix, best matrix | |\n|---|---|---|---|\n");
  all_lines(b);
  printf("\nint8 accuracy is no matter of time and not measured here.\nPeaks:");
  for (int i = 0; i < PF_PEAK_N; i++)
    if (b->peaks.ops[i] > 0)
      printf(" %s %.0f,", pf_peak_word((pf_peak_id)i), b->peaks.ops[i] * 1e-9);
  printf(" GOP/s; read %.1f GB/s, a plain loop %.1f.\n", b->peaks.read * 1e-9,
         b->peaks.read_plain * 1e-9);
  return PF_OK;
}
