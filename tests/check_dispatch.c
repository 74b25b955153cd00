/* SPDX-License-Identifier: Apache-2.0
 * The choice of kernels: caps, names that do not exist, the public list. */
#include <stdlib.h>
#include <string.h>

#include "personaflow/model.h"
#include "simd/kernels.h"
#include "tests/suite.h"

static int cap_status(const char *cap) {
  const pf_kernel *chosen[PF_N_OPS];
  return pf_kernel_choose(chosen, cap);
}

START_TEST(cap_limits_every_operation) {
  const pf_kernel *chosen[PF_N_OPS];
  ck_assert_int_eq(pf_kernel_choose(chosen, "scalar"), PF_OK);
  for (size_t i = 0; i < PF_N_OPS; i++) {
    ck_assert_ptr_nonnull(chosen[i]);
    ck_assert_str_eq(chosen[i]->isa, "scalar");
    ck_assert_uint_eq(chosen[i]->slot, i * sizeof chosen[i]->fn);
  }
}
END_TEST

START_TEST(without_a_cap_the_last_allowed_line_wins) {
  const pf_kernel *chosen[PF_N_OPS];
  size_t n;
  const pf_kernel *k = pf_kernel_table(&n);
  unsetenv("PERSONAFLOW_ISA");
  ck_assert_int_eq(pf_kernel_choose(chosen, NULL), PF_OK);
  for (size_t i = 0; i < n; i++)
    if ((k[i].features & pf_cpu_bits()) == k[i].features)
      ck_assert(chosen[k[i].slot / sizeof k->fn] >= &k[i]);
}
END_TEST

/* A cap at avx512 leaves AVX-VNNI, whose int8 product is faster, where the CPU has it. */
START_TEST(a_cap_takes_the_fastest_below_it) {
  const pf_kernel *chosen[PF_N_OPS];
  uint32_t need = PF_CPU_LEVEL_AVX512 | PF_CPU_AVXVNNI;
  size_t gemm = offsetof(pf_simd, gemm_s8) / sizeof(void (*)(void)),
         operand = offsetof(pf_simd, operand_s8) / sizeof(void (*)(void));
  if ((pf_cpu_bits() & need) != need || pf_kernel_choose(chosen, "avxvnni") != PF_OK ||
      pf_kernel_choose(chosen, "avx512") != PF_OK)
    return; /* not this CPU, or not this build */
  ck_assert_str_eq(chosen[gemm]->isa, "avxvnni");
  ck_assert_str_eq(chosen[operand]->isa, "avxvnni");
}
END_TEST

START_TEST(unknown_name_is_refused_with_the_names) {
  ck_assert_int_eq(cap_status("sse9"), PF_EENV);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "sse9"));
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "use one of scalar"));
  ck_assert_int_eq(pf_exit_code(PF_EENV), 5);
}
END_TEST

START_TEST(absent_isa_is_refused) {
#if defined(__aarch64__)
  const char *foreign = "avx2";
#else
  const char *foreign = "neon";
#endif
  pf_simd s;
  ck_assert_int_eq(pf_simd_init(&s, foreign), PF_EENV);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), foreign));
}
END_TEST

/* Listing is no failure: the error line stays. */
START_TEST(the_names_are_those_that_a_cap_may_have) {
  const char *names[PF_MAX_ISAS];
  ck_assert_int_eq(cap_status("sse9"), PF_EENV);
  size_t n = pf_isa_names(names);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "sse9"));
  ck_assert_uint_gt(n, 0);
  ck_assert_str_eq(names[0], "scalar");
  for (size_t i = 0; i < n; i++)
    ck_assert_int_eq(cap_status(names[i]), PF_OK);
}
END_TEST

START_TEST(the_environment_is_the_default_cap) {
  const pf_kernel *chosen[PF_N_OPS];
  setenv("PERSONAFLOW_ISA", "scalar", 1);
  ck_assert_int_eq(pf_kernel_choose(chosen, NULL), PF_OK);
  ck_assert_str_eq(chosen[0]->isa, "scalar");
  setenv("PERSONAFLOW_ISA", "nonsense", 1);
  ck_assert_int_eq(cap_status(NULL), PF_EENV);
  setenv("PERSONAFLOW_ISA", "", 1);
  ck_assert_int_eq(cap_status(NULL), PF_OK);
}
END_TEST

START_TEST(the_public_list_names_every_operation) {
  const pf_kernel_choice *c;
  size_t n;
  setenv("PERSONAFLOW_ISA", "scalar", 1);
  ck_assert_int_eq(pf_kernels(&c, &n), PF_OK);
  ck_assert_uint_eq(n, PF_N_OPS);
  for (size_t i = 0; i < n; i++) {
    ck_assert_str_eq(c[i].isa, "scalar");
    ck_assert_ptr_nonnull(strstr(c[i].symbol, c[i].op));
    ck_assert_uint_gt(strlen(c[i].why), 0);
  }
  ck_assert_uint_gt(strlen(pf_cpu_name()), 0);
  ck_assert_ptr_nonnull(pf_cpu_features());
}
END_TEST

/* What a pass of a precision calls, "info --precision" says: op, then f32, bf16, bf16-hf, int8. */
START_TEST(a_precision_names_what_it_calls) {
  static const struct {
    const char *op;
    int uses[PF_N_PRECISIONS];
  } rows[] = {
      {"gemm_x3_bf16", {[PF_PRECISION_F32] = 1}},
      {"gemm_bf16", {[PF_PRECISION_BF16] = 1, [PF_PRECISION_BF16_HF] = 1}},
      {"gemm_s8", {[PF_PRECISION_INT8] = 1}},
      {"round_bf16",
       {[PF_PRECISION_BF16] = 1, [PF_PRECISION_BF16_HF] = 1, [PF_PRECISION_INT8] = 1}},
      {"rope", {[PF_PRECISION_F32] = 1, [PF_PRECISION_BF16] = 1, [PF_PRECISION_INT8] = 1}},
      {"softcap", {[PF_PRECISION_F32] = 1, [PF_PRECISION_BF16] = 1, [PF_PRECISION_INT8] = 1}},
      {"qk", {[PF_PRECISION_F32] = 1}},
      {"pv_bf16", {[PF_PRECISION_BF16] = 1, [PF_PRECISION_BF16_HF] = 1, [PF_PRECISION_INT8] = 1}},
      {"vtanh", {[PF_PRECISION_BF16_HF] = 1}},
      {"canary", {0}},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int p = 1; p < PF_N_PRECISIONS; p++)
      ck_assert_msg(pf_precision_uses((pf_precision)p, rows[i].op) == rows[i].uses[p], "%s in %s",
                    rows[i].op, pf_precision_name((pf_precision)p));
}
END_TEST

int main(void) {
  TCase *t = tcase_create("dispatch");
  tcase_add_test(t, cap_limits_every_operation);
  tcase_add_test(t, without_a_cap_the_last_allowed_line_wins);
  tcase_add_test(t, a_cap_takes_the_fastest_below_it);
  tcase_add_test(t, unknown_name_is_refused_with_the_names);
  tcase_add_test(t, absent_isa_is_refused);
  tcase_add_test(t, the_names_are_those_that_a_cap_may_have);
  tcase_add_test(t, the_environment_is_the_default_cap);
  tcase_add_test(t, the_public_list_names_every_operation);
  tcase_add_test(t, a_precision_names_what_it_calls);
  Suite *s = suite_create("dispatch");
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_FORK_GETENV);
}
