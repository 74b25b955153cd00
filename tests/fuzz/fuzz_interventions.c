/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: an intervention file against the configuration of a model; a position written as
 * text; tensor files. The first byte chooses. */
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "personaflow/analysis.h"
#include "tests/fuzz/fuzz.h"
#include "tests/util.h"

static pf_model *model(void) {
  static pf_model *m;
  char path[1024];
  snprintf(path, sizeof path, "%s/tests/mini/g2-window", tu_srcdir());
  if (!m && pf_model_open_config(&m, path) != PF_OK) {
    fprintf(stderr, "%s\n", pf_last_error());
    abort();
  }
  return m;
}

static void interventions(const char *text, size_t n) {
  pf_interventions *iv;
  int rc = pf_interventions_parse(&iv, "fuzz", text, n, model());
  FUZZ_CHECK(rc == PF_OK ? iv && pf_interventions_count(iv) > 0 : !iv && *pf_last_error());
  pf_interventions_free(iv);
}

static void positions(const char *text, size_t n) {
  pf_role_prompt q = {
      .bos = {0, 1}, .template_ = {1, 4}, .persona = {4, 9}, .task = {9, 20}, .header = {20, 25}};
  pf_spans s;
  pf_span out;
  char line[128] = "";
  memcpy(line, text, n < sizeof line - 1 ? n : sizeof line - 1);
  q.enc.n = 25;
  q.p_user_last = 21;
  pf_spans_of(&q, &s);
  if (pf_positions_parse(line, &s, &out) == PF_OK)
    FUZZ_CHECK(out.lo >= 0 && out.lo < out.hi);
}

static void tensors(const char *text, size_t n) {
  pf_tensor t;
  for (int npy = 0; npy < 2; npy++) {
    int rc =
        npy ? pf_npy_parse("fuzz", text, n, &t) : pf_safetensors_parse("fuzz", text, n, NULL, &t);
    FUZZ_CHECK(rc == PF_OK || (t.data == NULL && *pf_last_error()));
    if (rc == PF_OK) {
      volatile float last = pf_tensor_count(&t) ? t.data[pf_tensor_count(&t) - 1] : 0;
      (void)last;
      pf_tensor_free(&t);
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  const char *text = (const char *)data + 1;
  if (*data == 'p')
    positions(text, size - 1);
  else if (*data == 't')
    tensors(text, size - 1);
  else
    interventions(text, size - 1);
  return 0;
}
