/* SPDX-License-Identifier: Apache-2.0
 * Tests by counting: signs, labels, pairs. */
#include <math.h>

#include "analysis/stats.h"
#include "base/mem.h"
#include "base/status.h"

/* Sums of the same values in other orders differ by rounding; a tie must count as one. */
enum { SIGNS_MAX = 20, PERSONAS_MAX = 150 };
#define TIE 1e-12

static bool extreme(double sum, double observed, double tie, pf_alternative alt) {
  if (alt == PF_TWO_SIDED)
    return fabs(sum) >= fabs(observed) - tie;
  return alt == PF_GREATER ? sum >= observed - tie : sum <= observed + tie;
}

void pf_persona_means(const pf_crossed *t, double *out) {
  for (size_t i = 0; i < t->n_personas; i++)
    out[i] = pf_mean(t->x + i * t->n_tasks, t->n_tasks);
}

double pf_sign_flip(const double *x, size_t n, double null, pf_alternative alt) {
  double d[SIGNS_MAX], observed = 0, size = 0, hits = 0;
  size_t k = 0;
  for (size_t i = 0; i < n; i++)
    if (!isnan(x[i])) {
      if (k == SIGNS_MAX)
        return NAN;
      d[k] = x[i] - null;
      observed += d[k];
      size += fabs(d[k++]);
    }
  if (k == 0)
    return NAN;
  for (uint32_t signs = 0; signs < 1u << k; signs++) {
    double sum = 0;
    for (size_t i = 0; i < k; i++)
      sum += signs >> i & 1 ? -d[i] : d[i];
    hits += extreme(sum, observed, TIE * size, alt);
  }
  return hits / (double)(1u << k);
}

double pf_sign_flip_tost(const double *x, size_t n, double margin) {
  double above = pf_sign_flip(x, n, -margin, PF_GREATER),
         below = pf_sign_flip(x, n, margin, PF_LESS);
  return above > below ? above : below;
}

double pf_rank_p(double observed, const double *null, size_t n, pf_alternative alt) {
  double hits = 1;
  for (size_t i = 0; i < n; i++)
    hits += extreme(null[i], observed, TIE * fabs(observed), alt);
  return isnan(observed) ? NAN : hits / (double)(n + 1);
}

/* ---- labels within tasks
 * ------------------------------------------------------------------------------------------
 */

void pf_draw_labels(uint64_t seed, uint64_t draw, size_t n_personas, size_t n_tasks,
                    uint32_t *perm) {
  uint64_t counter = 0;
  for (size_t j = 0; j < n_tasks; j++, perm += n_personas) {
    for (size_t i = 0; i < n_personas; i++)
      perm[i] = (uint32_t)i;
    for (size_t i = n_personas - 1; i > 0; i--) {
      size_t k = pf_draw_below(seed, PF_STREAM_PERMUTATIONS + draw, counter++, i + 1);
      uint32_t keep = perm[i];
      perm[i] = perm[k];
      perm[k] = keep;
    }
  }
}

static double labelled_sum(const double *k, size_t n_personas, size_t n_tasks,
                           const uint32_t *perm) {
  double sum = 0;
  for (size_t i = 0; i < n_personas; i++)
    for (size_t j = 0; j < n_tasks; j++) {
      size_t other = perm ? perm[j * n_personas + i] : i;
      sum += k[(i * n_personas + other) * n_tasks + j];
    }
  return sum;
}

int pf_label_permutation(const double *k, size_t n_personas, size_t n_tasks, pf_alternative alt,
                         const pf_boot *o, double *p) {
  pf_boot all;
  size_t n;
  int rc = pf_boot_fill(o, &all);
  *p = NAN;
  if (rc == PF_OK && (n_personas == 0 || !pf_mul3(n_personas, n_tasks, sizeof(uint32_t), &n)))
    rc =
        pf_fail(PF_EUSAGE, "permutation: a table of %zu personas x %zu tasks", n_personas, n_tasks);
  uint32_t *perm = rc == PF_OK ? pf_alloc(n_personas * n_tasks, sizeof *perm) : NULL;
  if (rc == PF_OK && !perm)
    rc = PF_ENOMEM;
  if (rc == PF_OK) {
    double observed = labelled_sum(k, n_personas, n_tasks, NULL), hits = 1;
    for (size_t b = 0; b < all.draws; b++) {
      pf_draw_labels(all.seed, b, n_personas, n_tasks, perm);
      hits +=
          extreme(labelled_sum(k, n_personas, n_tasks, perm), observed, TIE * fabs(observed), alt);
    }
    *p = isnan(observed) ? NAN : hits / (double)(all.draws + 1);
  }
  pf_free(perm);
  return rc;
}

/* f[k] = e_k(c) (n-k)!/n!, e_k the elementary symmetric polynomials of how often each label was
 * predicted: k places with different predictions, all of them right, in a share f[k] of the
 * orders. */
static void rook_shares(const int32_t *predicted, size_t n, size_t stride, double *f) {
  double c[PERSONAS_MAX] = {0};
  for (size_t i = 0; i < n; i++)
    if (predicted[i * stride] >= 0)
      c[predicted[i * stride]]++;
  for (size_t k = 0; k <= n; k++)
    f[k] = k == 0;
  for (size_t i = 0; i < n; i++)
    for (size_t k = i + 1; k > 0; k--)
      f[k] += c[i] * f[k - 1];
  double share = 1;
  for (size_t k = 1; k <= n; k++) {
    share /= (double)(n - k + 1);
    f[k] *= share;
  }
}

/* P(exactly m right) in one task by inclusion and exclusion: sum over k >= m of (-1)^(k-m) C(k,m)
 * f[k]. */
static void hit_chances(const double *f, size_t n, double *q) {
  for (size_t m = 0; m <= n; m++) {
    double sum = 0, choose = 1, sign = 1;
    for (size_t k = m; k <= n; k++) {
      sum += sign * choose * f[k];
      choose = choose * (double)(k + 1) / (double)(k + 1 - m);
      sign = -sign;
    }
    q[m] = sum > 0 ? sum : 0;
  }
}

/* all (n_all + 1) becomes the distribution of the sum with one more task. */
static void add_task(double *all, size_t n_all, const double *q, size_t n, double *next) {
  for (size_t k = 0; k <= n_all + n; k++)
    next[k] = 0;
  for (size_t a = 0; a <= n_all; a++)
    for (size_t b = 0; b <= n; b++)
      next[a + b] += all[a] * q[b];
  for (size_t k = 0; k <= n_all + n; k++)
    all[k] = next[k];
}

static double identification_p(const int32_t *predicted, size_t n_personas, size_t n_tasks,
                               size_t hits, double *all, double *next) {
  double f[PERSONAS_MAX + 1], q[PERSONAS_MAX + 1], p = 0;
  all[0] = 1;
  for (size_t j = 0; j < n_tasks; j++) {
    rook_shares(predicted + j, n_personas, n_tasks, f);
    hit_chances(f, n_personas, q);
    add_task(all, j * n_personas, q, n_personas, next);
  }
  for (size_t k = n_personas * n_tasks + 1; k-- > hits;)
    p += all[k];
  return p < 1 ? p : 1;
}

int pf_identification(const int32_t *predicted, size_t n_personas, size_t n_tasks,
                      pf_identified *out) {
  size_t n = n_personas * n_tasks;
  *out = (pf_identified){0, n, {NAN, NAN, NAN}, NAN};
  if (n_personas == 0 || n_personas > PERSONAS_MAX)
    return pf_fail(PF_EUSAGE, "identification: %zu personas: want 1 to %d", n_personas,
                   PERSONAS_MAX);
  for (size_t c = 0; c < n; c++)
    if (predicted[c] >= (int32_t)n_personas)
      return pf_fail(PF_EUSAGE, "identification: cell %zu names persona %d of %zu", c, predicted[c],
                     n_personas);
  double *all = pf_calloc(n + 1, 2 * sizeof *all);
  if (!all)
    return PF_ENOMEM;
  for (size_t c = 0; c < n; c++)
    out->hits += predicted[c] == (int32_t)(c / n_tasks);
  out->accuracy = pf_wilson(out->hits, n);
  out->p = identification_p(predicted, n_personas, n_tasks, out->hits, all, all + n + 1);
  pf_free(all);
  return PF_OK;
}

/* ---- pairs
 * --------------------------------------------------------------------------------------------------------
 */

/* Twice the tail of Binomial(b + c, 1/2) up to the smaller of the two. Terms relative to the
 * largest, C(n, n/2), so that none overflows. */
double pf_mcnemar(size_t b, size_t c) {
  size_t n = b + c, least = b < c ? b : c, half = n / 2;
  double tail = least >= half, total = 1, term = 1;
  for (size_t k = half; k > 0; k--) {
    term = term * (double)k / (double)(n - k + 1); /* C(n, k-1) / C(n, k) */
    total += term;
    tail += k - 1 <= least ? term : 0;
  }
  term = 1;
  for (size_t k = half; k < n; k++) {
    term = term * (double)(n - k) / (double)(k + 1);
    total += term;
  }
  double p = 2 * tail / total;
  return p < 1 ? p : 1;
}
