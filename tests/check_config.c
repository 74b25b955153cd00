/* SPDX-License-Identifier: Apache-2.0
 * Configurations, model names, and the tensors a configuration calls for. */
#include "config.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/weights.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"

static char dir[256];

static void setup(void) {
  tmp_make(dir);
}

static void teardown(void) {
  tmp_remove(dir);
}

#define GEMMA "{\"architectures\":[\"Gemma2ForCausalLM\"]}"
#define QWEN  "{\"architectures\":[\"Qwen2ForCausalLM\"]}"

/* base with the keys of patch put over it; a key with the value "(none)" is taken away. */
static int read_patched(pf_config *c, const char *base, const char *patch) {
  json_error_t e;
  json_t *o = json_loads(base, 0, &e), *p = json_loads(patch, 0, &e), *v;
  const char *key;
  void *next;
  ck_assert_ptr_nonnull(o);
  ck_assert_msg(p != NULL, "%s", patch);
  json_object_update(o, p);
  json_object_foreach_safe(o, next, key, v) {
    if (json_is_string(v) && !strcmp(json_string_value(v), "(none)"))
      json_object_del(o, key);
  }
  char *text = json_dumps(o, 0);
  tmp_text(dir, "config.json", text);
  free(text);
  json_decref(o);
  json_decref(p);
  return pf_config_read(c, dir);
}

static void must_read(pf_config *c, const char *base, const char *patch) {
  int rc = read_patched(c, base, patch);
  ck_assert_msg(rc == PF_OK, "%s: %s", patch, pf_last_error());
}

/* ---- values
 * -------------------------------------------------------------------------------------- */

START_TEST(defaults_are_hugging_faces) {
  pf_config c;
  must_read(&c, GEMMA, "{}");
  const pf_model_info *in = &c.info;
  ck_assert_str_eq(in->arch, "gemma2");
  ck_assert_str_eq(in->dir, dir);
  ck_assert_int_eq(in->vocab_size, 256000);
  ck_assert_int_eq(in->d_model, 2304);
  ck_assert_int_eq(in->d_ff, 9216);
  ck_assert_int_eq(in->n_layers, 26);
  ck_assert_int_eq(in->n_heads, 8);
  ck_assert_int_eq(in->n_kv_heads, 4);
  ck_assert_int_eq(in->d_head, 256);
  ck_assert_int_eq(in->max_positions, 8192);
  ck_assert(in->rms_eps == 1e-6f && in->attn_softcap == 50 && in->final_softcap == 30);
  ck_assert(in->rope_theta == 10000 && in->attn_scale == 1 / 16.0 && in->sliding_window == 4096);
  ck_assert(in->tied && in->bos_id == 2 && in->n_eos == 1 && in->eos[0] == 1);
  ck_assert(in->repetition_penalty == 1);
  ck_assert(c.gelu_tanh && !c.attn_bias && c.plus_one && c.post_norms && c.scale_embed);
  for (int i = 0; i < in->n_layers; i++)
    ck_assert_int_eq(c.windowed[i], i % 2 == 0);
  pf_config_free(&c);

  must_read(&c, QWEN, "{}");
  ck_assert_str_eq(in->arch, "qwen2");
  ck_assert_int_eq(in->vocab_size, 151936);
  ck_assert_int_eq(in->d_model, 4096);
  ck_assert_int_eq(in->d_ff, 22016);
  ck_assert_int_eq(in->n_layers, 32);
  ck_assert_int_eq(in->n_heads, 32);
  ck_assert_int_eq(in->n_kv_heads, 32);
  ck_assert_int_eq(in->d_head, 128);
  ck_assert_int_eq(in->max_positions, 32768);
  ck_assert(in->rms_eps == 1e-6f && in->attn_softcap == 0 && in->final_softcap == 0);
  ck_assert(in->rope_theta == 10000 && in->attn_scale == 1 / sqrt(128.0) &&
            in->sliding_window == 0);
  ck_assert(!in->tied && in->bos_id == -1 && in->n_eos == 0);
  ck_assert(!c.gelu_tanh && c.attn_bias && !c.plus_one && !c.post_norms && !c.scale_embed);
  for (int i = 0; i < in->n_layers; i++)
    ck_assert_int_eq(c.windowed[i], 0);
  pf_config_free(&c);
}
END_TEST

START_TEST(every_key_is_read) {
  pf_config c;
  must_read(
      &c, GEMMA,
      "{\"vocab_size\":301,\"hidden_size\":48,\"intermediate_size\":70,\"num_hidden_layers\":3,"
      "\"num_attention_heads\":6,\"num_key_value_heads\":2,\"head_dim\":10,"
      "\"max_position_embeddings\":99,\"rms_norm_eps\":0.001,\"attn_logit_softcapping\":null,"
      "\"final_logit_softcapping\":12.5,\"rope_theta\":500,\"query_pre_attn_scalar\":144.0,"
      "\"sliding_window\":7,\"tie_word_embeddings\":false,\"bos_token_id\":null,"
      "\"eos_token_id\":[3,4,5],\"hidden_activation\":\"silu\",\"hidden_act\":\"gelu\","
      "\"dtype\":\"float16\",\"an_unknown_key\":{\"x\":[1]}}");
  const pf_model_info *in = &c.info;
  ck_assert(in->vocab_size == 301 && in->d_model == 48 && in->d_ff == 70 && in->n_layers == 3);
  ck_assert(in->n_heads == 6 && in->n_kv_heads == 2 && in->d_head == 10 && in->max_positions == 99);
  ck_assert(in->rms_eps == 0.001f && in->attn_softcap == 0 && in->final_softcap == 12.5f);
  ck_assert(in->rope_theta == 500 && in->attn_scale == 1 / 12.0 && in->sliding_window == 7);
  ck_assert(!in->tied && in->bos_id == -1 && in->n_eos == 3 && in->eos[2] == 5);
  ck_assert(!c.gelu_tanh);
  ck_assert_str_eq(in->weights_dtype, "F16");
  pf_config_free(&c);
}
END_TEST

/* A default is a number, not what follows from the heads; an activation has more than one name. */
START_TEST(defaults_beside_other_keys) {
  pf_config c;
  must_read(&c, GEMMA, "{\"head_dim\":64,\"hidden_activation\":\"gelu_new\"}");
  ck_assert(c.info.attn_scale == 1 / 16.0 && c.gelu_tanh);
  pf_config_free(&c);
  must_read(&c, QWEN, "{\"hidden_act\":\"swish\"}");
  ck_assert(!c.gelu_tanh);
  pf_config_free(&c);
}
END_TEST

START_TEST(forms_of_transformers_5) {
  pf_config c;
  const pf_model_info *in = &c.info;
  must_read(&c, GEMMA,
            "{\"num_hidden_layers\":4,\"dtype\":\"bfloat16\",\"rope_theta\":77,"
            "\"rope_parameters\":{\"rope_theta\":1234.5,\"rope_type\":\"default\"},"
            "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"sliding_attention\","
            "\"full_attention\"]}");
  ck_assert(in->rope_theta == 1234.5);
  ck_assert_str_eq(in->weights_dtype, "BF16");
  ck_assert(!c.windowed[0] && c.windowed[1] && c.windowed[2] && !c.windowed[3]);
  pf_config_free(&c);
  must_read(&c, QWEN,
            "{\"rope_scaling\":{\"type\":\"default\",\"rope_theta\":5},\"rope_theta\":7}");
  ck_assert(in->rope_theta == 5);
  pf_config_free(&c);
  must_read(&c, QWEN, "{\"rope_scaling\":{\"type\":\"default\"},\"rope_theta\":7}");
  ck_assert(in->rope_theta == 7);
  pf_config_free(&c);
  must_read(&c, QWEN,
            "{\"rope_parameters\":{\"rope_type\":\"default\",\"type\":null,\"factor\":1.0}}");
  pf_config_free(&c);
  /* no layer with a window: the length is of no consequence */
  must_read(
      &c, GEMMA,
      "{\"num_hidden_layers\":1,\"layer_types\":[\"full_attention\"],\"sliding_window\":null}");
  ck_assert_int_eq(in->sliding_window, 0);
  pf_config_free(&c);
  must_read(&c, "{\"model_type\":\"qwen2\"}", "{}");
  ck_assert_str_eq(in->arch, "qwen2");
  pf_config_free(&c);
}
END_TEST

START_TEST(qwen_head_width) {
  pf_config c;
  must_read(&c, QWEN,
            "{\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":null}");
  ck_assert_int_eq(c.info.d_head, 16);
  ck_assert_int_eq(c.info.n_kv_heads, 4);
  pf_config_free(&c);
  must_read(
      &c, QWEN,
      "{\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":1,\"head_dim\":6}");
  ck_assert_int_eq(c.info.d_head, 6);
  ck_assert(c.info.attn_scale == 1 / sqrt(6.0));
  pf_config_free(&c);
}
END_TEST

START_TEST(generation_config_decides) {
  pf_config c;
  const pf_model_info *in = &c.info;
  tmp_text(dir, "generation_config.json",
           "{\"eos_token_id\":[9,8],\"bos_token_id\":4,\"repetition_penalty\":1.1,\"top_k\":20}");
  must_read(&c, GEMMA, "{\"eos_token_id\":1}");
  ck_assert(in->n_eos == 2 && in->eos[0] == 9 && in->eos[1] == 8 && in->bos_id == 4);
  ck_assert(in->repetition_penalty == 1.1);
  pf_config_free(&c);
  tmp_text(dir, "generation_config.json", "{\"repetition_penalty\":null}");
  must_read(&c, GEMMA, "{\"eos_token_id\":1,\"bos_token_id\":6}");
  ck_assert(in->n_eos == 0 && in->bos_id == 6 && in->repetition_penalty == 1);
  pf_config_free(&c);
  static const char *const bad[] = {"{",
                                    "[]",
                                    "{\"eos_token_id\":\"x\"}",
                                    "{\"eos_token_id\":[1,-2]}",
                                    "{\"eos_token_id\":1.5}",
                                    "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}",
                                    "{\"repetition_penalty\":-1}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tmp_text(dir, "generation_config.json", bad[i]);
    ck_assert_int_eq(read_patched(&c, GEMMA, "{}"), PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), "generation_config.json") != NULL, "%s", pf_last_error());
  }
}
END_TEST

/* Its settings would be lost without a word. */
START_TEST(a_link_to_nowhere) {
  pf_config c;
  char link[400];
  snprintf(link, sizeof link, "%s/generation_config.json", dir);
  ck_assert_int_eq(symlink("nowhere", link), 0);
  ck_assert_int_eq(read_patched(&c, QWEN, "{}"), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "generation_config.json") != NULL, "%s", pf_last_error());
}
END_TEST

/* One integer beyond 64 bits, and those of the whole file come as reals. */
START_TEST(a_huge_integer_beside) {
  pf_config c;
  tmp_text(dir, "generation_config.json",
           "{\"eos_token_id\":[9,8],\"max_length\":1000000000000000000000000000000}");
  tmp_text(dir, "config.json",
           "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":32,\"num_attention_heads\":4,"
           "\"num_key_value_heads\":2,\"vocab_size\":100,\"model_max_length\":"
           "1000000000000000000000000000000}");
  ck_assert_msg(pf_config_read(&c, dir) == PF_OK, "%s", pf_last_error());
  ck_assert(c.info.vocab_size == 100 && c.info.n_eos == 2 && c.info.eos[1] == 8);
  pf_config_free(&c);
}
END_TEST

/* ---- refusals
 * ------------------------------------------------------------------------------------ */

/* What stands in the line: the key at least. */
static const struct {
  const char *base, *patch, *says;
} refusals[] = {
    {QWEN, "{\"architectures\":[\"LlamaForCausalLM\"]}", "architectures = [\"LlamaForCausalLM\"]"},
    {QWEN, "{\"architectures\":[\"Qwen2ForCausalLM\",\"Gemma2ForCausalLM\"]}", "architectures"},
    {QWEN, "{\"architectures\":\"Qwen2ForCausalLM\"}", "architectures"},
    {QWEN, "{\"architectures\":[]}", "architectures"},
    {QWEN, "{\"architectures\":\"(none)\"}", "model_type"},
    {QWEN, "{\"architectures\":null,\"model_type\":\"llama\"}", "model_type = \"llama\""},
    {QWEN, "{\"model_type\":\"gemma2\"}", "model_type"},
    {QWEN, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", "rope_scaling"},
    {QWEN, "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}}", "rope_scaling"},
    {QWEN, "{\"rope_scaling\":{\"rope_type\":\"default\",\"type\":\"yarn\",\"factor\":4}}",
     "rope_scaling"},
    {QWEN, "{\"rope_scaling\":{\"type\":\"default\",\"rope_type\":\"yarn\",\"factor\":4}}",
     "rope_scaling"},
    {QWEN, "{\"rope_scaling\":{\"factor\":4}}", "rope_scaling"},
    {QWEN, "{\"rope_scaling\":7}", "rope_scaling"},
    {GEMMA, "{\"rope_parameters\":{\"rope_type\":\"dynamic\"}}", "rope_parameters"},
    {GEMMA, "{\"rope_parameters\":{\"rope_type\":3}}", "rope_parameters"},
    {GEMMA, "{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1}}}", "rope_parameters"},
    {GEMMA, "{\"rope_parameters\":{\"rope_theta\":-1}}", "rope_theta"},
    {GEMMA, "{\"rope_parameters\":{\"rope_theta\":10,\"partial_rotary_factor\":0.5}}",
     "partial_rotary_factor"},
    {QWEN, "{\"partial_rotary_factor\":0.25}", "partial_rotary_factor"},
    {QWEN, "{\"rope_theta\":\"big\"}", "rope_theta"},
    {QWEN, "{\"rope_theta\":0}", "rope_theta"},
    {QWEN, "{\"use_sliding_window\":true}", "use_sliding_window = true"},
    {QWEN, "{\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]}", "layer_types"},
    {GEMMA, "{\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\"]}", "layer_types"},
    {GEMMA, "{\"num_hidden_layers\":1,\"layer_types\":[\"full_attention\",\"full_attention\"]}",
     "layer_types"},
    {GEMMA, "{\"num_hidden_layers\":1,\"layer_types\":[\"chunked_attention\"]}", "layer_types"},
    {GEMMA, "{\"num_hidden_layers\":1,\"layer_types\":[3]}", "layer_types"},
    {GEMMA, "{\"num_hidden_layers\":1,\"layer_types\":\"full_attention\"}", "layer_types"},
    {GEMMA, "{\"sliding_window\":null}", "sliding_window"},
    {GEMMA, "{\"sliding_window\":0}", "sliding_window"},
    {GEMMA, "{\"attention_bias\":true}", "attention_bias"},
    {GEMMA, "{\"use_bidirectional_attention\":true}", "use_bidirectional_attention"},
    {GEMMA, "{\"quantization_config\":{\"bits\":4}}", "quantization_config"},
    {QWEN, "{\"quantization_config\":{\"quant_method\":\"gptq\"}}", "personaflow quantize"},
    {QWEN, "{\"quantization_config\":{\"quant_method\":\"personaflow-int8\"}}", "version"},
    {QWEN,
     "{\"quantization_config\":{\"quant_method\":\"personaflow-int8\",\"version\":2,"
     "\"group_size\":64}}",
     "reads version 1"},
    {QWEN,
     "{\"quantization_config\":{\"quant_method\":\"personaflow-int8\",\"version\":1,"
     "\"group_size\":100}}",
     "group_size = 100: must be a multiple"},
    {QWEN,
     "{\"quantization_config\":{\"quant_method\":\"personaflow-int8\",\"version\":1,"
     "\"group_size\":2048}}",
     "group_size"},
    {QWEN, "{\"quantization_config\":{\"quant_method\":\"personaflow-int8\",\"version\":1}}",
     "group_size"},
    {QWEN, "{\"pruned_heads\":{\"0\":[1]}}", "pruned_heads"},
    {QWEN, "{\"per_layer_config\":{\"1\":{\"intermediate_size\":3}}}", "per_layer_config"},
    {QWEN, "{\"is_encoder_decoder\":true}", "is_encoder_decoder"},
    {QWEN, "{\"add_cross_attention\":true}", "add_cross_attention"},
    {GEMMA, "{\"hidden_activation\":\"gelu\"}", "hidden_activation = \"gelu\""},
    {GEMMA, "{\"hidden_activation\":null}", "hidden_activation"},
    {QWEN, "{\"hidden_act\":\"relu\"}", "hidden_act = \"relu\""},
    {QWEN, "{\"hidden_act\":5}", "hidden_act"},
    {QWEN, "{\"num_attention_heads\":0}", "num_attention_heads"},
    {QWEN, "{\"num_attention_heads\":-3}", "num_attention_heads"},
    {QWEN, "{\"num_attention_heads\":7,\"num_key_value_heads\":2}", "num_key_value_heads"},
    {QWEN, "{\"num_hidden_layers\":1.5}", "num_hidden_layers"},
    {QWEN, "{\"num_hidden_layers\":1000000000000}", "num_hidden_layers"},
    {QWEN, "{\"num_hidden_layers\":null}", "num_hidden_layers"},
    {QWEN, "{\"hidden_size\":\"64\"}", "hidden_size"},
    {QWEN, "{\"hidden_size\":60,\"num_attention_heads\":4,\"num_key_value_heads\":4}",
     "head_dim = 15"},
    {GEMMA, "{\"head_dim\":33}", "head_dim = 33"},
    {GEMMA, "{\"head_dim\":0}", "head_dim"},
    {QWEN, "{\"hidden_size\":3,\"num_attention_heads\":4,\"num_key_value_heads\":4}",
     "head_dim = 0"},
    {QWEN, "{\"vocab_size\":0}", "vocab_size"},
    {QWEN, "{\"vocab_size\":99999999999}", "vocab_size"},
    {QWEN, "{\"intermediate_size\":-1}", "intermediate_size"},
    {QWEN, "{\"max_position_embeddings\":0}", "max_position_embeddings"},
    {QWEN, "{\"rms_norm_eps\":-1e-6}", "rms_norm_eps"},
    {QWEN, "{\"rms_norm_eps\":2}", "rms_norm_eps"},
    {GEMMA, "{\"attn_logit_softcapping\":0.0}", "attn_logit_softcapping"},
    {GEMMA, "{\"final_logit_softcapping\":-30}", "final_logit_softcapping"},
    {GEMMA, "{\"query_pre_attn_scalar\":0}", "query_pre_attn_scalar"},
    {QWEN, "{\"tie_word_embeddings\":1}", "tie_word_embeddings"},
    {QWEN, "{\"eos_token_id\":-1}", "eos_token_id"},
    {QWEN, "{\"bos_token_id\":[1]}", "bos_token_id"},
};

START_TEST(refused_by_name) {
  pf_config c;
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    int rc = read_patched(&c, refusals[i].base, refusals[i].patch);
    ck_assert_msg(rc == PF_EINPUT, "%s was accepted", refusals[i].patch);
    const char *line = pf_last_error();
    ck_assert_msg(strstr(line, refusals[i].says) && strstr(line, "config.json"), "%s: %s",
                  refusals[i].patch, line);
    ck_assert_msg(!strchr(line, '\n'), "%s", line);
  }
}
END_TEST

/* What lies there alone is another model than with the adapter. */
START_TEST(adapters) {
  pf_config c;
  tmp_text(dir, "adapter_config.json", "{\"peft_type\":\"LORA\"}");
  ck_assert_int_eq(read_patched(&c, QWEN, "{}"), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "adapter_config.json: adapters (LoRA)") != NULL, "%s",
                pf_last_error());
}
END_TEST

START_TEST(broken_files) {
  static const char *const texts[] = {
      "",
      "{",
      "[1]",
      "3",
      "{\"a\":1,\"a\":2}",
      "{\"x\":\"\xff\"}",

      "{}x",
      "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":1e999}"};
  pf_config c;
  ck_assert_int_eq(pf_config_read(&c, dir), PF_EINPUT); /* no config.json */
  ck_assert(strstr(pf_last_error(), "config.json") != NULL);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    tmp_text(dir, "config.json", texts[i]);
    ck_assert_msg(pf_config_read(&c, dir) == PF_EINPUT, "%s", texts[i]);
  }
}
END_TEST

/* ---- the Hugging Face cache
 * ---------------------------------------------------------------------- */

#define C1   "1111111aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define C2   "1111111bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define REPO "hub/models--org--na.me-x/"

static void fake_cache(void) {
  tmp_text(dir, REPO "refs/main", C1);
  tmp_text(dir, REPO "refs/pr/1", C2 "\n");
  tmp_text(dir, REPO "refs/odd", "../../../etc");
  tmp_text(dir, REPO "refs/gone", "2222222222222222222222222222222222222222");
  tmp_text(dir, REPO "snapshots/" C1 "/config.json", QWEN);
  tmp_text(dir, REPO "snapshots/" C2 "/config.json", QWEN);
  tmp_text(dir, "hub/models--alone/refs/main", C1);
  tmp_text(dir, "hub/models--alone/snapshots/" C1 "/config.json", QWEN);
}

static void resolves_to(const char *name, const char *tail) {
  char got[4096], expect[4096];
  int rc = pf_resolve_dir(name, got, sizeof got);
  ck_assert_msg(rc == PF_OK, "%s: %s", name, pf_last_error());
  snprintf(expect, sizeof expect, "%s/%s", dir, tail);
  ck_assert_str_eq(got, expect);
}

static void does_not_resolve(const char *name, const char *says) {
  char got[4096];
  ck_assert_msg(pf_resolve_dir(name, got, sizeof got) == PF_EINPUT, "%s", name);
  ck_assert_msg(strstr(pf_last_error(), says) != NULL, "%s: %s", name, pf_last_error());
}

static void only(const char *var, const char *tail) {
  static const char *const vars[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                     "XDG_CACHE_HOME", "HOME"};
  char v[512];
  for (size_t i = 0; i < sizeof vars / sizeof *vars; i++)
    unsetenv(vars[i]);
  snprintf(v, sizeof v, "%s%s", dir, tail);
  setenv(var, v, 1);
}

START_TEST(names_in_the_cache) {
  fake_cache();
  only("HF_HUB_CACHE", "/hub");
  resolves_to("org/na.me-x", REPO "snapshots/" C1);
  resolves_to("org/na.me-x@main", REPO "snapshots/" C1);
  resolves_to("org/na.me-x@pr/1", REPO "snapshots/" C2);
  resolves_to("org/na.me-x@" C2, REPO "snapshots/" C2);
  resolves_to("org/na.me-x@1111111b", REPO "snapshots/" C2);
  resolves_to("alone", "hub/models--alone/snapshots/" C1);
  does_not_resolve("org/na.me-x@1111111", "begins 2 cached commits");
  does_not_resolve("org/na.me-x@111111", "no revision");
  does_not_resolve("org/na.me-x@v2", "no revision 'v2'");
  does_not_resolve("org/na.me-x@odd", "no revision 'odd'");
  does_not_resolve("org/na.me-x@gone", "not complete");
  does_not_resolve("org/other", "hf download org/other");
  does_not_resolve("org/other", dir);
  static const char *const hostile[] = {
      "../x", "org/../x", "org/..", "/no/such/place", "a/b/c",  "a--b/c",  "-a/b",
      "a/.b", "a//b",     "a b/c",  "org/na.me-x/",   "a..b/c", "org/a--b"};
  for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
    does_not_resolve(hostile[i], "not a model name");
  char longest[128] = "org/"; /* no part of a name has more than 96 characters */
  memset(longest + 4, 'a', 97);
  does_not_resolve(longest, "not a model name");
  longest[100] = '\0';
  does_not_resolve(longest, "not in the Hugging Face cache");
  static const char *const revs[] = {"org/na.me-x@", "org/na.me-x@..", "org/na.me-x@../../x",
                                     "org/na.me-x@a/../b", "org/na.me-x@/x"};
  for (size_t i = 0; i < sizeof revs / sizeof *revs; i++)
    does_not_resolve(revs[i], "cannot be a revision");
}
END_TEST

START_TEST(places_of_the_cache) {
  fake_cache();
  only("HF_HOME", "");
  resolves_to("alone", "hub/models--alone/snapshots/" C1);
  only("HF_HUB_CACHE", "/hub");
  setenv("HF_HOME", "/nowhere", 1);
  resolves_to("alone", "hub/models--alone/snapshots/" C1);
  only("HOME", "");
  setenv("HF_HUB_CACHE", "~/hub", 1);
  resolves_to("alone", "hub/models--alone/snapshots/" C1);
  tmp_text(dir, ".cache/huggingface/hub/models--b/refs/main", C1);
  tmp_text(dir, ".cache/huggingface/hub/models--b/snapshots/" C1 "/config.json", QWEN);
  only("HOME", "");
  resolves_to("b", ".cache/huggingface/hub/models--b/snapshots/" C1);
  only("XDG_CACHE_HOME", "/.cache");
  resolves_to("b", ".cache/huggingface/hub/models--b/snapshots/" C1);
  setenv("HF_HUB_CACHE", "", 1); /* as if it were not set */
  resolves_to("b", ".cache/huggingface/hub/models--b/snapshots/" C1);
  only("HUGGINGFACE_HUB_CACHE", "/hub");
  setenv("HF_HOME", "/nowhere", 1);
  resolves_to("alone", "hub/models--alone/snapshots/" C1);
  only("HOME", "");
  setenv("HF_HUB_CACHE", "~hub", 1); /* somebody's, which is not looked up */
  does_not_resolve("alone", "looked for ~hub/models--alone");
}
END_TEST

START_TEST(directories) {
  char got[4096], small[8], file[512];
  tmp_text(dir, "config.json", QWEN);
  ck_assert_int_eq(pf_model_resolve(dir, got, sizeof got), PF_OK);
  ck_assert_str_eq(got, dir);
  ck_assert_int_eq(pf_model_resolve(dir, small, sizeof small), PF_EINPUT);
  snprintf(file, sizeof file, "%s/config.json", dir);
  ck_assert_int_eq(pf_model_resolve(file, got, sizeof got), PF_EINPUT);
  ck_assert_int_eq(pf_model_resolve("", got, sizeof got), PF_EUSAGE);
  pf_model *m = NULL;
  ck_assert_int_eq(pf_model_open_config(&m, dir), PF_OK);
  ck_assert_int_eq(pf_model_get_info(m)->d_model, 4096);
  pf_model_close(m);
  ck_assert_int_eq(pf_model_open_config(&m, file), PF_EINPUT);
  ck_assert_ptr_null(m);
}
END_TEST

/* ---- tensors of the real models
 * ------------------------------------------------------------------ */

static const char *const reals[] = {"gemma-2-2b-it", "qwen2.5-1.5b-instruct",
                                    "qwen2.5-3b-instruct"};

/* NULL, after a line that says so, where the reference data is not there. */
static json_t *reference(const char *name, const char *tail) {
  const char *root = getenv("PERSONAFLOW_TESTDATA");
  char path[1024];
  json_error_t e;
  snprintf(path, sizeof path, "%s/model-configs/%s.%s", root ? root : "(unset)", name, tail);
  json_t *o = json_load_file(path, 0, &e);
  if (!o)
    fprintf(stderr, "check_config: SKIPPED, no %s (set PERSONAFLOW_TESTDATA)\n", path);
  return o;
}

static void same_tensor(const pf_want *w, const json_t *shape) {
  ck_assert_msg(shape != NULL, "%s is not a tensor of the real model", w->name);
  ck_assert_uint_eq(json_array_size(shape), w->cols ? 2 : 1);
  ck_assert_int_eq(json_integer_value(json_array_get(shape, 0)), (json_int_t)w->rows);
  if (w->cols)
    ck_assert_int_eq(json_integer_value(json_array_get(shape, 1)), (json_int_t)w->cols);
}

START_TEST(tensors_of_real_models) {
  json_t *config = reference(reals[_i], "config.json"), *o = reference(reals[_i], "tensors.json");
  pf_config c;
  pf_wants w;
  if (config && o) {
    char *text = json_dumps(config, 0);
    must_read(&c, text, "{}");
    free(text);
    json_t *tensors = json_object_get(o, "tensors");
    ck_assert_int_eq(pf_wants_make(&w, &c, NULL), PF_OK);
    ck_assert_uint_eq(w.n, json_object_size(tensors));
    for (size_t i = 0; i < w.n; i++)
      same_tensor(&w.v[i], json_object_get(tensors, w.v[i].name));
    pf_wants_free(&w);
    pf_config_free(&c);
  }
  json_decref(config);
  json_decref(o);
}
END_TEST

/* What pf-mkckpt would write has the names and shapes of the real checkpoint. */
START_TEST(tensors_of_mkckpt) {
  static const char *const shapes[] = {"gemma-2-2b", "qwen2.5-1.5b", "qwen2.5-3b"};
  json_t *o = reference(reals[_i], "tensors.json");
  char cmd[256], line[512];
  size_t n = 0;
  if (!o)
    return;
  const char *emulator = getenv("PF_EMULATOR");
  snprintf(cmd, sizeof cmd, "%s ./pf-mkckpt --list %s", emulator ? emulator : "", shapes[_i]);
  FILE *f = popen(cmd, "r");
  ck_assert_ptr_nonnull(f);
  json_t *tensors = json_object_get(o, "tensors");
  for (; fgets(line, sizeof line, f); n++) {
    pf_want w = {.rows = 0};
    ck_assert_int_ge(sscanf(line, "%95s BF16 %zu,%zu", w.name, &w.rows, &w.cols), 2);
    same_tensor(&w, json_object_get(tensors, w.name));
  }
  ck_assert_int_eq(pclose(f), 0);
  ck_assert_uint_eq(n, json_object_size(tensors));
  json_decref(o);
}
END_TEST

int main(void) {
  Suite *s = suite_create("config");
  TCase *t = tcase_create("config");
  tcase_set_timeout(t, 300);
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_test(t, a_huge_integer_beside);
  tcase_add_test(t, a_link_to_nowhere);
  tcase_add_test(t, adapters);
  tcase_add_test(t, defaults_are_hugging_faces);
  tcase_add_test(t, every_key_is_read);
  tcase_add_test(t, qwen_head_width);
  tcase_add_test(t, defaults_beside_other_keys);
  tcase_add_test(t, forms_of_transformers_5);
  tcase_add_test(t, generation_config_decides);
  tcase_add_test(t, refused_by_name);
  tcase_add_test(t, broken_files);
  tcase_add_test(t, directories);
  tcase_add_loop_test(t, tensors_of_real_models, 0, 3);
  tcase_add_loop_test(t, tensors_of_mkckpt, 0, 3);
  tcase_add_test(t, names_in_the_cache);
  tcase_add_test(t, places_of_the_cache);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_FORK_GETENV);
}
