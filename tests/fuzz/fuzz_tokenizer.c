/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: tokenizer.json, and after the first zero byte a text that is encoded, decoded and
 * tried as a chat template. */
#include "config.h"

#include <string.h>

#include "model/tok.h"
#include "tests/fuzz/fuzz.h"

static void check_offsets(const pf_encoding *e, size_t n) {
  for (size_t i = 0; i < e->n; i++) {
    FUZZ_CHECK(e->start[i] <= e->end[i] && e->end[i] <= n);
    FUZZ_CHECK(i == 0 || (e->start[i - 1] <= e->start[i] && e->end[i - 1] <= e->end[i]));
  }
}

static void use(pf_tok *t, const char *text, size_t n, unsigned flags) {
  pf_encoding e = {0};
  char *back;
  size_t k;
  if (pf_tok_encode(t, text, n, flags, &e) == PF_OK) {
    check_offsets(&e, n);
    for (size_t i = 0; i < e.n; i++)
      FUZZ_CHECK(e.ids[i] >= 0 && e.ids[i] < pf_tok_vocab_size(t));
    if (pf_tok_decode(t, e.ids, e.n, 1, &back, &k) == PF_OK)
      pf_text_free(back);
  }
  pf_encoding_free(&e);
}

/* A template is NUL-terminated. */
static void chat(pf_tok *t, const char *text, size_t n) {
  char *copy = malloc(n + 1);
  const pf_message m[] = {{"user", "u"}, {"assistant", "a"}};
  pf_encoding e = {0};
  char *out;
  if (!copy)
    return;
  memcpy(copy, text, n);
  copy[n] = '\0';
  if (pf_chat_recognise(t, copy) == PF_OK && pf_chat_encode(t, m, 2, 0, &e, &out, NULL) == PF_OK)
    pf_text_free(out);
  pf_encoding_free(&e);
  free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *json = (const char *)data, *zero = size ? memchr(data, 0, size) : NULL;
  size_t n = zero ? (size_t)(zero - json) : size;
  pf_tok *t;
  int rc = pf_tok_parse(&t, "fuzz", json, n);
  FUZZ_CHECK(rc == PF_OK ? t != NULL : t == NULL && *pf_last_error());
  if (rc == PF_OK && zero) {
    use(t, zero + 1, size - n - 1, 0);
    use(t, zero + 1, size - n - 1, PF_TOK_SPECIALS | PF_TOK_AUTO_BOS);
    chat(t, zero + 1, size - n - 1);
  }
  pf_tok_close(t);
  return 0;
}
