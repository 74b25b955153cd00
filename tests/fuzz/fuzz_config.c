/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: config.json, and generation_config.json after the first zero byte. */
#include <string.h>

#include "base/status.h"
#include "model/weights.h"
#include "tests/fuzz/fuzz.h"

static void check(const pf_config *c) {
  const pf_model_info *in = &c->info;
  FUZZ_CHECK(in->n_layers > 0 && in->d_model > 0 && in->d_ff > 0 && in->vocab_size > 0);
  FUZZ_CHECK(in->n_heads > 0 && in->n_kv_heads > 0 && in->n_heads % in->n_kv_heads == 0);
  FUZZ_CHECK(in->d_head >= 2 && in->d_head % 2 == 0);
  FUZZ_CHECK(in->n_eos >= 0 && in->n_eos <= PF_MAX_EOS && in->bos_id >= -1);
  FUZZ_CHECK(in->attn_scale > 0 && in->rope_theta > 0 && in->repetition_penalty > 0);
  FUZZ_CHECK(in->sliding_window >= 0 && c->windowed != NULL);
}

/* The tables made from it hold together. */
static void use(const pf_config *c) {
  pf_wants w;
  pf_hook_table t = {0};
  if (pf_wants_make(&w, c, NULL) == PF_OK) {
    FUZZ_CHECK(w.n >= 2);
    for (size_t i = 1; i < w.n; i++)
      FUZZ_CHECK(strcmp(w.v[i - 1].name, w.v[i].name) < 0);
    pf_wants_free(&w);
  }
  (void)pf_hook_table_make(&t, c);
  pf_hook_table_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data, *zero = memchr(data, 0, size);
  size_t n = zero ? (size_t)(zero - text) : size;
  pf_config c;
  int rc = pf_config_parse(&c, "fuzz", text, n, zero ? zero + 1 : NULL, zero ? size - n - 1 : 0);
  FUZZ_CHECK(rc == PF_OK || (c.windowed == NULL && *pf_last_error()));
  if (rc == PF_OK) {
    check(&c);
    use(&c);
  }
  pf_config_free(&c);
  return 0;
}
