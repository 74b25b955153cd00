/* SPDX-License-Identifier: Apache-2.0
 * Rows for runs that are timed. */
#include "analysis/feed.h"

#include <string.h>

#include "base/mem.h"
#include "personaflow/types.h"

int pf_feed_prompt(pf_ctx *c, pf_seq *s, int32_t n, int32_t batch, pf_feed_fn token, void *user,
                   float *logits) {
  int32_t piece = batch < n ? batch : n;
  pf_row *rows = pf_alloc((size_t)(piece > 0 ? piece : 1), sizeof *rows);
  int rc = rows ? PF_OK : PF_ENOMEM;
  for (int32_t at = 0, m; at < n && rc == PF_OK; at += m) {
    m = n - at < piece ? n - at : piece;
    for (int32_t i = 0; i < m; i++)
      rows[i] = (pf_row){.seq = s,
                         .token = token(user, at + i),
                         .pos = pf_seq_end(s) + i,
                         .out = at + i + 1 == n ? 0 : -1};
    rc = pf_eval(c, rows, (size_t)m, logits);
  }
  pf_free(rows);
  return rc;
}

int pf_feed_step(pf_ctx *c, pf_seq *const *s, int32_t n, pf_feed_fn token, void *user, pf_row *rows,
                 float *logits) {
  for (int32_t k = 0; k < n; k++)
    rows[k] = (pf_row){.seq = s[k], .token = token(user, k), .pos = pf_seq_end(s[k]), .out = k};
  return pf_eval(c, rows, (size_t)n, logits);
}

int64_t pf_parameters(const pf_model_info *i) {
  int64_t d = i->d_model, q = (int64_t)i->n_heads * i->d_head,
          kv = (int64_t)i->n_kv_heads * i->d_head;
  int64_t vectors = strcmp(i->arch, "gemma2") ? 2 * d + q + 2 * kv : 4 * d;
  int64_t layer = 2 * d * q + 2 * d * kv + 3 * d * i->d_ff + vectors;
  return layer * i->n_layers + d + d * i->vocab_size * (i->tied ? 1 : 2);
}
