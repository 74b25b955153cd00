/* SPDX-License-Identifier: Apache-2.0
 * What the public headers and doc/LIBRARY.md promise a caller who makes mistakes: nothing dies, and
 * the line says what, where and what to do. */
#include "tests/model_util.h"
#include "tests/suite.h"

/* ---- NULL ------------------------------------------------------------------------------------ */

START_TEST(nothing_is_freed) {
  pf_ids_free(NULL);
  pf_encoding_free(NULL);
  pf_text_free(NULL);
  pf_tok_close(NULL);
  pf_decoder_free(NULL);
  pf_model_close(NULL);
  pf_ctx_free(NULL);
  pf_seq_free(NULL);
  pf_branch_clear(NULL);
  pf_role_prompt_free(NULL);
  pf_batch_free(NULL);
  pf_tensor_free(NULL);
  pf_origin_free(NULL);
  pf_interventions_free(NULL);
  pf_profile_free(NULL);
  pf_diff_free(NULL);
}
END_TEST

int main(void) {
  Suite *s = suite_create("public");
  TCase *t = tcase_create("mistakes");
  tcase_add_test(t, nothing_is_freed);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
