/* SPDX-License-Identifier: Apache-2.0
 * What the public headers and doc/LIBRARY.md promise a caller who makes mistakes: nothing dies, and
 * the line says what, where and what to do. */
#include <math.h>

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

/* ---- actions that cannot be meant ------------------------------------------------------------ */

static pf_model *model;
static pf_ctx *ctx;
static float values[4096];

static void setup(void) {
  model = tu_open("tests/mini/g2-window");
  ctx = tu_ctx(model, 1);
}

static void teardown(void) {
  pf_ctx_free(ctx);
  pf_model_close(model);
}

static void refused(int rc, const char *line) {
  ck_assert_int_eq(rc, PF_EUSAGE);
  ck_assert_msg(strstr(pf_last_error(), line) != NULL, "%s", pf_last_error());
}

static int set(pf_tap t) {
  pf_seq *s = tu_seq(ctx);
  int rc = pf_seq_set_taps(s, &t, 1);
  pf_seq_free(s);
  return rc;
}

/* Rows would lie over each other, and which one stays would be up to the threads. */
START_TEST(captures_have_room) {
  size_t d = (size_t)pf_model_get_info(model)->d_model;
  pf_tap t = {.hook = tu_hook(model, "blocks.0.hook_resid_pre"),
              .head = -1,
              .pos_hi = 4,
              .op = PF_OP_CAPTURE,
              .out = values};
  refused(set(t), "tap 0: blocks.0.hook_resid_pre: rows");
  t.out_stride = d - 1;
  refused(set(t), "out_stride");
  t.out_stride = d;
  ck_assert_int_eq(set(t), PF_OK);
  t.pos_hi = 1;
  t.out_stride = 0;
  ck_assert_int_eq(set(t), PF_OK);
  /* one row of values for all positions is nothing wrong */
  t = (pf_tap){.hook = t.hook, .head = -1, .pos_hi = 4, .op = PF_OP_ADD, .value = values};
  ck_assert_int_eq(set(t), PF_OK);
}
END_TEST

START_TEST(captures_of_heads_have_room) {
  const pf_model_info *i = pf_model_get_info(model);
  size_t h = (size_t)i->n_heads, keys = 8;
  pf_tap t = {.hook = tu_hook(model, "blocks.0.attn.hook_q"),
              .head = 0,
              .pos_hi = 4,
              .op = PF_OP_CAPTURE,
              .out = values,
              .out_stride = (size_t)i->d_head};
  ck_assert_int_eq(set(t), PF_OK);
  t.head = -1;
  refused(set(t), "out_stride");
  t.hook = tu_hook(model, "blocks.0.attn.hook_pattern");
  t.n_keys = (int32_t)keys;
  t.out_stride = h * keys - 1;
  refused(set(t), "out_stride");
  t.out_stride++;
  ck_assert_int_eq(set(t), PF_OK);
}
END_TEST

/* What a zeroed pf_tap has is told apart from what does not exist. */
START_TEST(places_are_said) {
  pf_tap t = {.hook = tu_hook(model, "hook_embed"), .pos_hi = 1, .op = PF_OP_ZERO};
  refused(set(t), "hook_embed is of no layer: layer has to be -1, not 0");
  t.layer = -1;
  refused(set(t), "hook_embed has no heads: head has to be -1, not 0");
  t.hook = tu_hook(model, "blocks.0.attn.hook_q");
  t.layer = 99;
  refused(set(t), "blocks.99.attn.hook_q: layer 99 does not exist");
  t.layer = 1;
  t.head = 99;
  refused(set(t), "blocks.1.attn.hook_q has no head 99: there are 0 to");
  t.head = pf_model_get_info(model)->n_heads;
  refused(set(t), "there are 0 to");
}
END_TEST

/* It does not cut the rows of another hook. */
START_TEST(keys_are_for_hooks_over_keys) {
  size_t d = (size_t)pf_model_get_info(model)->d_model;
  pf_seq *s = tu_seq(ctx);
  pf_tap t = {.hook = tu_hook(model, "blocks.0.ln1.hook_normalized"), .head = -1, .pos_hi = 1};
  t.op = PF_OP_CAPTURE;
  t.out = values;
  t.n_keys = 5;
  memset(values, 0, sizeof values);
  ck_assert_int_eq(pf_seq_set_taps(s, &t, 1), PF_OK);
  tu_run(ctx, s, model, 1, 0, 1, NULL);
  ck_assert(values[4] != 0 && values[5] != 0 && values[d - 1] != 0);
  ck_assert(values[d] == 0);
  pf_seq_free(s);
}
END_TEST

START_TEST(swaps_have_queries) {
  pf_seq *from = tu_seq(ctx), *s = tu_seq(ctx);
  tu_run(ctx, from, model, 1, 0, 8, NULL);
  pf_swap w = {.layer_hi = 1, .head = -1, .pos_hi = 2, .what = PF_SWAP_V, .src = from};
  w.q_lo = 5;
  w.q_hi = 3;
  refused(pf_seq_set_swaps(s, &w, 1), "swap 0");
  w.q_hi = 0; /* no end */
  ck_assert_int_eq(pf_seq_set_swaps(s, &w, 1), PF_OK);
  pf_seq_free(s);
  pf_seq_free(from);
}
END_TEST

/* NULL: those of pf_gen_defaults. */
START_TEST(threads_have_a_limit) {
  pf_ctx *c;
  refused(pf_ctx_new(&c, model, &(pf_ctx_opts){.threads = 1025}), "1025 threads: at most 1024");
  ck_assert_ptr_null(c);
}
END_TEST

/* What is made of a norm that is not there. */
START_TEST(layers_of_norms) {
  float x[1] = {2};
  pf_post_attention(model, -1, 1, x);
  pf_post_attention(model, pf_model_get_info(model)->n_layers, 1, x);
  ck_assert(x[0] == 2);
}
END_TEST

START_TEST(metrics_of_nothing) {
  const float x[] = {1, 2, 3};
  float margin;
  ck_assert(isnan(pf_logprob(x, 2, 2)) && isnan(pf_logprob(x, 2, -1)));
  ck_assert(pf_logprob(x, 2, 1) < 0);
  ck_assert_int_eq(pf_argmax(x, 0, &margin), -1);
  ck_assert_int_eq(pf_argmax(x, 1, &margin), 0);
}
END_TEST

START_TEST(generation_has_defaults) {
  pf_seq *s = tu_seq(ctx), *t = tu_seq(ctx);
  pf_ids a = {0}, b = {0};
  pf_gen_opts o;
  pf_gen_defaults(&o);
  ck_assert_int_eq(pf_generate(s, (int32_t[]){2, 5, 6}, 3, NULL, &a), PF_OK);
  ck_assert_int_eq(pf_generate(t, (int32_t[]){2, 5, 6}, 3, &o, &b), PF_OK);
  ck_assert_uint_eq(a.n, b.n);
  ck_assert_int_eq(memcmp(a.v, b.v, a.n * sizeof *a.v), 0);
  pf_ids_free(&a);
  pf_ids_free(&b);
  pf_seq_free(s);
  pf_seq_free(t);
}
END_TEST

/* ---- work that names no input ---------------------------------------------------------------- */

START_TEST(inputs_are_named) {
  pf_snap_opts so = {.model = "tests/mini/g2-window"};
  pf_diff_opts o;
  pf_diff *d = NULL;
  pf_tok *t = NULL;
  pf_tensor x;
  refused(pf_snap_run(&so, NULL), "wants prompts");
  pf_diff_defaults(&o);
  refused(pf_diff_run(&d, &o), "two snapshots");
  ck_assert_ptr_null(d);
  refused(pf_bisect_run(&d, &(pf_bisect_opts){.threads = 1}), "snapshot");
  ck_assert_ptr_null(d);
  refused(pf_tok_open(&t, NULL), "directory");
  ck_assert_ptr_null(t);
  refused(pf_tensor_read(NULL, &x), "file");
  pf_interventions *iv;
  refused(pf_interventions_read(&iv, NULL, NULL), "intervention file");
  ck_assert_ptr_null(iv);
}
END_TEST

/* ---- files that no reader would take --------------------------------------------------------- */

#define NO_FILE "/nonexistent/x"

START_TEST(tensors_have_a_shape) {
  pf_tensor t = {.name = "a", .n_dims = PF_TENSOR_MAX_DIMS + 1, .data = values};
  refused(pf_npy_write(NO_FILE, &t), "9 dimensions");
  refused(pf_safetensors_write(NO_FILE, &t, 1, NULL), "9 dimensions");
  t.n_dims = 2;
  t.dims[0] = t.dims[1] = SIZE_MAX / 2;
  refused(pf_npy_write(NO_FILE, &t), "too many values");
}
END_TEST

START_TEST(tensors_have_names_of_their_own) {
  pf_tensor t[2] = {{.name = "a", .n_dims = 1, .dims = {2}, .data = values}};
  t[1] = t[0];
  refused(pf_safetensors_write(NO_FILE, t, 2, NULL), "tensor 1: the name 'a'");
  t[1].name = NULL;
  refused(pf_safetensors_write(NO_FILE, t, 2, NULL), "tensor 1: it has no name");
  t[1].name = "__metadata__";
  refused(pf_safetensors_write(NO_FILE, t, 2, NULL), "__metadata__");
  t[1].name = "\xff";
  refused(pf_safetensors_write(NO_FILE, t, 2, NULL), "UTF-8");
  t[1].name = "b";
  refused(pf_safetensors_write(NO_FILE, t, 2, (const char *[]){"model", "\xff", NULL}), "UTF-8");
  ck_assert_int_eq(pf_safetensors_write(NO_FILE, t, 2, NULL), PF_EIO);
}
END_TEST

int main(void) {
  Suite *s = suite_create("public");
  TCase *t = tcase_create("mistakes");
  tcase_add_test(t, nothing_is_freed);
  suite_add_tcase(s, t);
  t = tcase_create("actions");
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_test(t, places_are_said);
  tcase_add_test(t, captures_have_room);
  tcase_add_test(t, captures_of_heads_have_room);
  tcase_add_test(t, keys_are_for_hooks_over_keys);
  tcase_add_test(t, swaps_have_queries);
  tcase_add_test(t, threads_have_a_limit);
  tcase_add_test(t, layers_of_norms);
  tcase_add_test(t, metrics_of_nothing);
  tcase_add_test(t, generation_has_defaults);
  suite_add_tcase(s, t);
  t = tcase_create("files");
  tcase_add_test(t, inputs_are_named);
  tcase_add_test(t, tensors_have_a_shape);
  tcase_add_test(t, tensors_have_names_of_their_own);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
