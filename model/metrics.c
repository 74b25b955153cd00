/* SPDX-License-Identifier: Apache-2.0
 * Metrics on logits, in fp64 as simd/CONTRACT.md orders them. */
#include <math.h>

#include "base/fpenv.h"
#include "personaflow/model.h"
#include "simd/simd.h"

double pf_kl(const float *p, const float *q, size_t n) {
  int rc;
  const pf_simd *f = pf_simd_get(&rc);
  if (rc != PF_OK)
    return NAN;
  uint64_t env = pf_fp_enter();
  double kl, lse_q = f->logsumexp(n, q);
  f->kl(n, p, f->logsumexp(n, p), 1, &q, &lse_q, &kl);
  pf_fp_leave(env);
  return kl;
}

double pf_jsd(const float *p, const float *q, size_t n) {
  int rc;
  const pf_simd *f = pf_simd_get(&rc);
  if (rc != PF_OK)
    return NAN;
  uint64_t env = pf_fp_enter();
  double rkl, jsd, lse_q = f->logsumexp(n, q);
  f->jsd(n, p, f->logsumexp(n, p), 1, &q, &lse_q, &rkl, &jsd);
  pf_fp_leave(env);
  return jsd;
}

void pf_ref_make(pf_ref *r, const float *logits, size_t n) {
  int rc;
  const pf_simd *f = pf_simd_get(&rc);
  *r = (pf_ref){.logits = logits, .n = n, .lse = NAN};
  if (rc != PF_OK)
    return;
  uint64_t env = pf_fp_enter();
  r->lse = f->logsumexp(n, logits);
  pf_fp_leave(env);
}

double pf_logprob(const float *x, size_t n, int32_t i) {
  int rc;
  const pf_simd *f = pf_simd_get(&rc);
  if (rc != PF_OK || i < 0 || (size_t)i >= n)
    return NAN;
  uint64_t env = pf_fp_enter();
  double lp = (double)x[i] - f->logsumexp(n, x);
  PF_FP_PIN(lp);
  pf_fp_leave(env);
  return lp;
}

int32_t pf_argmax(const float *x, size_t n, float *margin) {
  int rc;
  const pf_simd *f = pf_simd_get(&rc);
  if (rc != PF_OK || n == 0)
    return -1;
  uint64_t env = pf_fp_enter();
  float second;
  size_t best = f->argmax(n, x, &second);
  if (margin)
    *margin = x[best] - second;
  pf_fp_leave(env);
  return (int32_t)best;
}
