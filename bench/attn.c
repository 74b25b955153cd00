/* SPDX-License-Identifier: Apache-2.0
 * Attention of one layer in the shapes of the models: 512 new tokens (prefill), and one token over
 * 2,048 keys (decode). Rows and heads are divided over the threads as model/attend.c does; K and V
 * lie as model/kv.c has them (a block: the keys of all heads, then their values), other ones each
 * call: fp32, or bf16 with the probabilities rounded. */
#include "config.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"
#include "bench/bench.h"

enum { PREFILL = 512, DECODE = 2048 };

static const pf_bench_model models[] = {
    {"gemma-2-2b", 26, 8, 4, 256, 50},
    {"qwen2.5-1.5b", 28, 12, 2, 128, 0},
    {"qwen2.5-3b", 36, 16, 2, 128, 0},
};
enum { N_MODELS = sizeof models / sizeof *models };

const pf_bench_model *pf_bench_model_at(size_t i) {
  return i < N_MODELS ? &models[i] : NULL;
}

static const char *const ops[2] = {"attention", "attention_bf16"}; /* fp32, bf16 */

const char *pf_bench_attn_op(bool halves) {
  return ops[halves];
}

/* Rows that go together, times the query heads of a K,V head. */
enum { TOGETHER = 64 };

/* Of one thread. */
typedef struct lane {
  const void **k, **v;
  uint32_t *mask; /* (TOGETHER, blocks) */
  const uint32_t *seen[TOGETHER];
  const float *q[TOGETHER];
  float *y[TOGETHER];
  float *s;   /* (TOGETHER, keys) */
  void *work; /* PF_ATTN_WORK */
} lane;

struct pf_bench_attn {
  pf_simd f;
  const pf_bench_model *m;
  const pf_arena *arena;
  size_t rows, keys, nblk; /* rows: the last of the positions 0..keys-1 */
  size_t copies, turn, bytes;
  bool halves;
  int threads;
  float *y;
  lane *lanes;
};

static size_t group_of(const pf_bench_attn *a) {
  return a->m->heads / a->m->kv_heads;
}

static size_t rows_together(const pf_bench_attn *a) {
  return TOGETHER / group_of(a);
}

static size_t size_of(const pf_bench_attn *a) {
  return a->halves ? sizeof(uint16_t) : sizeof(float);
}

/* Query j of rows r...: row r + j / group, head j % group of the K,V head. */
static void set_query(const pf_bench_attn *a, lane *l, size_t r, size_t kv_head, size_t j) {
  size_t d = a->m->d, group = group_of(a), row = r + j / group, pos = a->keys - a->rows + row;
  size_t at = (row * a->m->heads + kv_head * group + j % group) * d;
  uint32_t *mask = l->mask + j * a->nblk;
  for (size_t b = 0; b < a->nblk; b++)
    mask[b] = b < pos / PF_KBLK   ? ~0u
              : b > pos / PF_KBLK ? 0
                                  : ~0u >> (PF_KBLK - 1 - pos % PF_KBLK);
  l->seen[j] = mask;
  l->q[j] = (const float *)(const void *)a->arena->p + at % 65536;
  l->y[j] = a->y + at;
}

/* Rows [r, r + n) of the query heads of a K,V head over all keys up to their own positions. */
static void attend(const pf_bench_attn *a, lane *l, size_t r, size_t n, size_t kv_head) {
  size_t d = a->m->d, nblk = (a->keys - a->rows + r + n - 1) / PF_KBLK + 1,
         head = d * PF_KBLK * size_of(a), heads = a->m->kv_heads * head;
  const char *kv = (const char *)a->arena->p + a->turn * a->bytes + kv_head * head;
  pf_attn op = {.d = d,
                .nq = n * group_of(a),
                .nblk = nblk,
                .q = l->q,
                .kblk = l->k,
                .vblk = l->v,
                .mask = l->seen,
                .scale = 1 / sqrtf((float)d),
                .lds = nblk * PF_KBLK,
                .s = l->s,
                .y = l->y,
                .work = l->work};
  for (size_t b = 0; b < nblk; b++) {
    l->k[b] = kv + 2 * b * heads;
    l->v[b] = kv + (2 * b + 1) * heads;
  }
  for (size_t j = 0; j < op.nq; j++)
    set_query(a, l, r, kv_head, j);
  (a->halves ? a->f.qk_bf16 : a->f.qk)(&op);
  for (size_t j = 0; j < op.nq; j++) {
    float *s = op.s + j * op.lds;
    size_t seen = (a->keys - a->rows + r + j / group_of(a)) / PF_KBLK * PF_KBLK + PF_KBLK;
    if (a->m->cap > 0)
      a->f.softcap(seen, s, a->m->cap);
    (void)a->f.softmax(nblk, l->seen[j], s);
    if (a->halves)
      a->f.round_bf16(seen, s, s);
  }
  (a->halves ? a->f.pv_bf16 : a->f.pv)(&op);
}

/* Pieces of rows are dealt in turn: the later ones see more keys. */
static void attend_part(void *arg, int tid, int nt) {
  const pf_bench_attn *a = arg;
  size_t piece = rows_together(a), pieces = (a->rows + piece - 1) / piece;
  for (size_t i = (size_t)tid; i < pieces * a->m->kv_heads; i += (size_t)nt) {
    size_t r = i / a->m->kv_heads * piece, n = a->rows - r < piece ? a->rows - r : piece;
    attend(a, &a->lanes[tid], r, n, i % a->m->kv_heads);
  }
}

void pf_bench_attn_call(void *arg) {
  pf_bench_attn *a = arg;
  a->turn = (a->turn + 1) % a->copies;
  pf_par(a->threads, attend_part, a);
}

double pf_bench_attn_bytes(const pf_bench_attn *a) {
  return (double)(a->keys * 2 * a->m->kv_heads * a->m->d * size_of(a));
}

/* Two products of d for each query and key that it sees. */
double pf_bench_attn_ops(const pf_bench_attn *a) {
  double sum = 0;
  for (size_t r = 0; r < a->rows; r++)
    sum += (double)(a->keys - a->rows + r + 1);
  return 4 * sum * (double)(a->m->heads * a->m->d);
}

static bool lanes_open(pf_bench_attn *a) {
  a->lanes = pf_calloc((size_t)a->threads, sizeof *a->lanes);
  for (int i = 0; a->lanes && i < a->threads; i++) {
    lane *l = &a->lanes[i];
    l->k = pf_calloc(a->nblk, sizeof *l->k);
    l->v = pf_calloc(a->nblk, sizeof *l->v);
    l->mask = pf_calloc(TOGETHER * a->nblk, sizeof *l->mask);
    l->s = pf_calloc(TOGETHER * a->nblk * PF_KBLK, sizeof *l->s);
    l->work = pf_alloc(1, PF_ATTN_WORK);
    if (!l->k || !l->v || !l->mask || !l->s || !l->work)
      return false;
  }
  return a->lanes != NULL;
}

void pf_bench_attn_close(pf_bench_attn *a) {
  for (int i = 0; a && a->lanes && i < a->threads; i++) {
    pf_free((void *)a->lanes[i].k);
    pf_free((void *)a->lanes[i].v);
    pf_free(a->lanes[i].mask);
    pf_free(a->lanes[i].s);
    pf_free(a->lanes[i].work);
  }
  if (a) {
    pf_free(a->lanes);
    pf_free(a->y);
  }
  pf_free(a);
}

/* The products of one instruction set; what goes over rows of scores from the best one where it has
 * none of its own. */
static bool kernels_of(pf_simd *f, const char *isa, bool halves) {
  pf_simd best;
  if (!pf_bench_isa(f, isa) || !(halves ? f->qk_bf16 : f->qk))
    return false;
  if (f->softmax)
    return true;
  if (pf_simd_init(&best, NULL) != PF_OK)
    return false;
  f->softmax = best.softmax;
  f->softcap = best.softcap;
  f->round_bf16 = best.round_bf16;
  return true;
}

pf_bench_attn *pf_bench_attn_open(const pf_bench *b, const pf_bench_model *m, const char *isa,
                                  bool halves, bool decode) {
  pf_bench_attn *a = pf_calloc(1, sizeof *a);
  if (!a)
    return NULL;
  bool have = kernels_of(&a->f, isa, halves);
  a->m = m;
  a->halves = halves;
  a->arena = &b->arena;
  a->threads = b->o.threads;
  a->keys = b->o.smoke ? 70 : decode ? DECODE : PREFILL;
  a->rows = decode ? 1 : a->keys;
  a->nblk = (a->keys + PF_KBLK - 1) / PF_KBLK;
  a->bytes = a->nblk * PF_KBLK * 2 * m->kv_heads * m->d * size_of(a);
  a->copies = b->arena.bytes / a->bytes;
  a->y = have ? pf_calloc(a->rows * m->heads * m->d, sizeof *a->y) : NULL;
  if (a->y && lanes_open(a))
    return a;
  pf_bench_attn_close(a);
  return NULL;
}

static void run(pf_bench *b, const pf_bench_model *m, const char *isa, bool halves, bool decode) {
  pf_bench_attn *a = pf_bench_attn_open(b, m, isa, halves, decode);
  char what[64];
  if (!a)
    return;
  snprintf(what, sizeof what, "%s %s", m->name, decode ? "decode" : "prefill");
  pf_result r = {.op = ops[halves], .isa = isa, .what = what, .m = a->rows, .k = a->keys};
  r.n = m->heads * m->d;
  r.ops = pf_bench_attn_ops(a);
  r.bytes = pf_bench_attn_bytes(a);
  r.memory = decode;
  pf_bench_measure(b, &r, pf_bench_attn_call, a, pf_peak_of(isa, false), 1);
  pf_table_line(b, &r);
  pf_bench_attn_close(a);
}

int pf_bench_attention(pf_bench *b) {
  const char *isa;
  for (size_t i = 0; i < N_MODELS; i++)
    for (int decode = 0; decode < 2; decode++)
      for (int halves = 0; halves < 2; halves++)
        for (size_t j = 0; (isa = pf_bench_isa_name(j)); j++)
          if (pf_bench_listed(b->o.ops, ops[halves]) && pf_bench_listed(b->o.isas, isa) &&
              !((b->o.quick || b->o.smoke) && i))
            run(b, &models[i], isa, halves, decode);
  return PF_OK;
}
