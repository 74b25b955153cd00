/* SPDX-License-Identifier: Apache-2.0
 * Choosing a token: greedy, or temperature / top-k / top-p from a counter-based generator. Logits
 * are processed in Hugging Face's order: repetition penalty, temperature, top-k, top-p. The draw
 * for step t depends on (seed, t) only. */
#include "model/sample.h"

#include "base/bf16.h"
#include "base/dmath.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/status.h"

void pf_gen_defaults(pf_gen_opts *o) {
  *o = (pf_gen_opts){.max_tokens = 128, .repetition_penalty = 1.0, .top_p = 1.0};
}

int pf_gen_check(const pf_gen_opts *o, const pf_model_info *m) {
  if (o->max_tokens < 1)
    return pf_fail(PF_EUSAGE, "at least one token must be generated, not %d", o->max_tokens);
  if (!(o->repetition_penalty >= PF_PENALTY_LO && o->repetition_penalty <= PF_PENALTY_HI))
    return pf_fail(PF_EUSAGE, "the repetition penalty must lie between %g and %g, not %g",
                   PF_PENALTY_LO, PF_PENALTY_HI, o->repetition_penalty);
  if (!(o->temperature >= 0) || o->top_k < 0 || !(o->top_p > 0 && o->top_p <= 1))
    return pf_fail(PF_EUSAGE, "temperature >= 0, top-k >= 0 and 0 < top-p <= 1 are wanted");
  for (size_t i = 0; o->eos && i < o->n_eos; i++)
    if (o->eos[i] < 0 || o->eos[i] >= m->vocab_size)
      return pf_fail(PF_EUSAGE, "end-of-sequence id %d is not in the vocabulary (0 to %d)",
                     o->eos[i], m->vocab_size - 1);
  return PF_OK;
}

int pf_picker_make(pf_picker *p, size_t vocab, bool penalty, bool draws) {
  *p = (pf_picker){.vocab = vocab};
  if (penalty) {
    p->seen = pf_calloc(vocab, 1);
    p->ids = pf_alloc(vocab, sizeof *p->ids);
    p->raw = pf_alloc(vocab, sizeof *p->raw);
  }
  for (int i = 0; i < 2 && draws; i++)
    p->key[i] = pf_alloc(vocab, sizeof **p->key);
  if (draws)
    p->weight = pf_alloc(vocab, sizeof *p->weight);
  bool fine = (!penalty || (p->seen && p->ids && p->raw)) &&
              (!draws || (p->key[0] && p->key[1] && p->weight));
  return fine ? PF_OK : PF_ENOMEM;
}

void pf_picker_free(pf_picker *p) {
  void *const all[] = {p->seen, p->ids, p->raw, p->key[0], p->key[1], p->weight};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    pf_free(all[i]);
  *p = (pf_picker){0};
}

/* Hugging Face's RepetitionPenaltyLogitsProcessor: every token seen once, negative scores times p,
 * others over p. */
static void penalise(pf_picker *p, const pf_seq *s, float penalty, float *x) {
  for (int32_t at = 0; at < s->end; at++) {
    int32_t id = s->tokens[at];
    if (id < 0 || p->seen[id])
      continue;
    p->seen[id] = 1;
    p->ids[p->n_seen] = id;
    p->raw[p->n_seen++] = x[id];
    x[id] = x[id] < 0 ? x[id] * penalty : x[id] / penalty;
  }
}

static void restore(pf_picker *p, float *x) {
  for (; p->n_seen > 0; p->n_seen--) {
    int32_t id = p->ids[p->n_seen - 1];
    x[id] = p->raw[p->n_seen - 1];
    p->seen[id] = 0;
  }
}

/* ---- drawing --------------------------------------------------------------------------------- */

/* Candidates are keys that ascend as scores fall, ids rising where scores are equal: the score's
 * bits, ordered, above the id. Zeros and denormals compare as equal here (base/fpenv.h). */
static inline uint64_t key_of(float score, uint32_t id) {
  uint32_t u = pf_bits_of_f32(score);
  u = u & 0x7f800000u ? u : 0;
  u = u >> 31 ? u : ~u & 0x7fffffffu;
  return (uint64_t)u << 32 | id;
}

static inline uint32_t id_of(uint64_t key) {
  return (uint32_t)key;
}

/* Scores so far below the best that their weight, against the best one's 1, is lost in any sum:
 * exp(-40) < 2^-54. Leaving them out changes no bit. */
static const double LOST = 40.0;

static size_t gather(const pf_picker *p, const float *x, float best, double temperature) {
  float least = (float)((double)best - LOST * temperature);
  size_t n = 0;
  for (size_t i = 0; i < p->vocab; i++) {
    p->key[0][n] = key_of(x[i], (uint32_t)i);
    n += x[i] >= least;
  }
  return n;
}

enum { DIGIT = 11, DIGITS = 1 << DIGIT, TOP = 64 - DIGIT };

/* Of n keys those whose first digit is not beyond that of the k-th. */
static size_t cut_to(uint64_t *key, size_t n, size_t k) {
  uint32_t count[DIGITS] = {0};
  size_t at = 0, kept = 0;
  for (size_t i = 0; i < n; i++)
    count[key[i] >> TOP]++;
  uint64_t last = 0;
  for (; last < DIGITS && at + count[last] < k; last++)
    at += count[last];
  for (size_t i = 0; i < n; i++)
    if (key[i] >> TOP <= last)
      key[kept++] = key[i];
  return kept;
}

/* Sorts by the scores' bits, least digit first; the ids ascend already. Returns where they are. */
static uint64_t *sort_keys(pf_picker *p, size_t n) {
  uint64_t *from = p->key[0], *to = p->key[1];
  for (int shift = 32; shift < 64; shift += DIGIT) {
    uint32_t at[DIGITS] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++)
      at[from[i] >> shift & (DIGITS - 1)]++;
    for (size_t d = 0; d < DIGITS; d++) {
      uint32_t here = at[d];
      at[d] = sum;
      sum += here;
    }
    for (size_t i = 0; i < n; i++)
      to[at[from[i] >> shift & (DIGITS - 1)]++] = from[i];
    uint64_t *swap = from;
    from = to;
    to = swap;
  }
  return from;
}

/* Keeps the shortest head of the sorted list whose probability reaches top_p; p->weight[i] receives
 * unnormalised weights, *sum theirs. */
static size_t nucleus(pf_picker *p, const uint64_t *key, size_t n, const float *x,
                      const pf_gen_opts *o, double *sum) {
  double total = 0, best = (double)x[id_of(key[0])];
  for (size_t i = 0; i < n; i++) {
    p->weight[i] = pf_dexp(((double)x[id_of(key[i])] - best) / o->temperature);
    total += p->weight[i];
  }
  *sum = 0;
  for (size_t i = 0; i < n; i++) {
    *sum += p->weight[i];
    if (*sum >= o->top_p * total)
      return i + 1;
  }
  return n;
}

/* best: the largest of x. */
static int32_t draw(pf_picker *p, const pf_gen_opts *o, const float *x, float best, uint64_t step) {
  double sum;
  size_t n = gather(p, x, best, o->temperature), k = (size_t)o->top_k;
  if (k > 0 && k < n)
    n = cut_to(p->key[0], n, k);
  const uint64_t *key = sort_keys(p, n);
  n = nucleus(p, key, k > 0 && k < n ? k : n, x, o, &sum);
  double u = pf_uniform(o->seed, 0, step) * sum, acc = p->weight[0];
  size_t i = 0;
  for (; i + 1 < n && acc <= u; acc += p->weight[i])
    i++;
  return (int32_t)id_of(key[i]);
}

void pf_pick(pf_picker *p, const pf_seq *s, const pf_gen_opts *o, uint64_t step, float *x,
             pf_chosen *out) {
  const pf_simd *f = s->ctx->simd;
  double lse = f->logsumexp(p->vocab, x);
  float second;
  if (o->repetition_penalty != 1.0)
    penalise(p, s, (float)o->repetition_penalty, x);
  out->id = (int32_t)f->argmax(p->vocab, x, &second);
  out->margin = x[out->id] - second;
  if (o->temperature > 0)
    out->id = draw(p, o, x, x[out->id], step);
  restore(p, x);
  out->logprob = (float)((double)x[out->id] - lse);
}
