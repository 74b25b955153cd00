/* SPDX-License-Identifier: Apache-2.0
 * What a direction of the residual stream says about the answer, with the norms' scales held fixed
 * ("frozen"): then the way from a head's output to a difference of logits is linear. */
#include "base/fpenv.h"
#include "base/status.h"
#include "model/internal.h"
#include "model/pack.h"
#include "model/step.h"

/* x times the norm's weight over its scale. */
static void frozen(const pf_model *m, const float *w, float scale, float *x) {
  for (int32_t i = 0; i < m->cfg.info.d_model; i++)
    x[i] = x[i] * (m->cfg.plus_one ? 1 + w[i] : w[i]) / scale;
}

int pf_logit_direction(const pf_model *m, int32_t token, int32_t other, float scale, float *out) {
  if (!m->layers)
    return pf_fail(PF_EUSAGE, "%s: only the configuration was opened", m->cfg.dir);
  int rc = pf_check_token(&m->cfg.info, token);
  if (rc == PF_OK)
    rc = pf_check_token(&m->cfg.info, other);
  if (rc != PF_OK)
    return rc;
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < (size_t)m->cfg.info.d_model; i++)
    out[i] = pf_mat_get(&m->unembed, (size_t)token, i) - pf_mat_get(&m->unembed, (size_t)other, i);
  frozen(m, m->ln_final, scale, out);
  pf_fp_leave(env);
  return PF_OK;
}

void pf_post_attention(const pf_model *m, int32_t layer, float scale, float *x) {
  if (!m->cfg.post_norms || !m->layers || layer < 0 || layer >= m->cfg.info.n_layers)
    return;
  uint64_t env = pf_fp_enter();
  frozen(m, m->layers[layer].ln1_post, scale, x);
  pf_fp_leave(env);
}
