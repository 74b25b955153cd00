/* SPDX-License-Identifier: Apache-2.0
 * config.json and generation_config.json of a Hugging Face directory, for Gemma-2 and Qwen-2.5. The
 * classical keys and the forms of transformers 5 (rope_parameters, layer_types) are read; a missing
 * key has the default of Hugging Face's configuration class; a value that asks for something this
 * engine does not compute is refused by name. */
#include "model/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

#define CONFIG_LIMIT ((size_t)16 << 20)

/* One object being read; the first failure is kept in rc and everything after it is skipped. */
typedef struct reader {
  const json_t *o;
  const char *file;
  int rc;
} reader;

/* "value" of a key as short JSON text, for messages. */
static const char *shown(const json_t *v, char buf[64]) {
  char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
  snprintf(buf, 64, "%.60s", s ? s : "?");
  free(s);
  return buf;
}

static void refuse(reader *r, const char *key, const json_t *v, const char *why) {
  char buf[64];
  if (r->rc == PF_OK)
    r->rc = pf_fail(PF_EINPUT, "%s: %s = %s: %s", r->file, key, shown(v, buf), why);
}

/* ---- numbers
 * ----------------------------------------------------------------------------------------------------
 */

/* What JSON null means for a key: an error, the default, or 0 ("none"). */
typedef enum nulls { NULL_BAD, NULL_DEFAULT, NULL_ZERO } nulls;

typedef struct field {
  const char *key;
  size_t off;    /* in pf_model_info; int32_t or, for reals, float or double */
  double lo, hi; /* allowed range */
  double def[2]; /* of Gemma2Config, Qwen2Config; < 0: the key means nothing to that architecture */
  nulls null[2];
} field;

#define AT(m) offsetof(pf_model_info, m)
static const field int_fields[] = {
    {"vocab_size", AT(vocab_size), 1, 1 << 24, {256000, 151936}, {NULL_BAD, NULL_BAD}},
    {"hidden_size", AT(d_model), 1, 1 << 17, {2304, 4096}, {NULL_BAD, NULL_BAD}},
    {"intermediate_size", AT(d_ff), 1, 1 << 20, {9216, 22016}, {NULL_BAD, NULL_BAD}},
    {"num_hidden_layers", AT(n_layers), 1, 1 << 12, {26, 32}, {NULL_BAD, NULL_BAD}},
    {"num_attention_heads", AT(n_heads), 1, 1 << 12, {8, 32}, {NULL_BAD, NULL_BAD}},
    {"num_key_value_heads", AT(n_kv_heads), 1, 1 << 12, {4, 32}, {NULL_BAD, NULL_ZERO}},
    {"head_dim", AT(d_head), 2, 1 << 12, {256, 0}, {NULL_BAD, NULL_ZERO}},
    {"max_position_embeddings", AT(max_positions), 1, 1 << 28, {8192, 32768}, {NULL_BAD, NULL_BAD}},
    {"sliding_window", AT(sliding_window), 1, 1 << 30, {4096, -1}, {NULL_ZERO, NULL_ZERO}},
};
static const field float_fields[] = {
    {"rms_norm_eps", AT(rms_eps), 0, 1, {1e-6, 1e-6}, {NULL_BAD, NULL_BAD}},
    {"attn_logit_softcapping", AT(attn_softcap), 1e-30, 1e30, {50, -1}, {NULL_ZERO, NULL_ZERO}},
    {"final_logit_softcapping", AT(final_softcap), 1e-30, 1e30, {30, -1}, {NULL_ZERO, NULL_ZERO}},
};
#undef AT

/* An integer, also one that is written as a real: a file with one beyond 64 bits has all of them so
 * (base/js.h). */
static bool is_whole(const json_t *v) {
  double x = json_number_value(v);
  return json_is_number(v) && fabs(x) < 0x1p53 && floor(x) == x;
}

static double number(reader *r, const field *f, pf_arch arch, bool integer) {
  const json_t *v = json_object_get(r->o, f->key);
  char why[96];
  if (r->rc != PF_OK || f->def[arch] < 0)
    return 0;
  if (!v || (json_is_null(v) && f->null[arch] == NULL_DEFAULT))
    return f->def[arch];
  if (json_is_null(v) && f->null[arch] == NULL_ZERO)
    return 0;
  double x = json_number_value(v);
  if (integer ? !is_whole(v) : !json_is_number(v))
    refuse(r, f->key, v, integer ? "must be an integer" : "must be a number");
  else if (!(x >= f->lo && x <= f->hi)) {
    snprintf(why, sizeof why, "must lie between %.10g and %.10g", f->lo, f->hi);
    refuse(r, f->key, v, why);
  }
  return r->rc == PF_OK ? x : 0;
}

static double real(reader *r, const char *key, double lo, double hi, double def) {
  field f = {key, 0, lo, hi, {def, def}, {NULL_BAD, NULL_BAD}};
  return number(r, &f, PF_GEMMA2, false);
}

static bool boolean(reader *r, const char *key, bool def) {
  const json_t *v = json_object_get(r->o, key);
  if (!v)
    return def;
  if (!json_is_boolean(v))
    refuse(r, key, v, "must be true or false");
  return json_is_true(v);
}

static void read_numbers(reader *r, pf_model_info *in, pf_arch arch) {
  for (size_t i = 0; i < sizeof int_fields / sizeof *int_fields; i++) {
    int32_t x = (int32_t)number(r, &int_fields[i], arch, true);
    memcpy((char *)in + int_fields[i].off, &x, sizeof x);
  }
  for (size_t i = 0; i < sizeof float_fields / sizeof *float_fields; i++) {
    float x = (float)number(r, &float_fields[i], arch, false);
    memcpy((char *)in + float_fields[i].off, &x, sizeof x);
  }
}

/* ---- architecture
 * -----------------------------------------------------------------------------------------------
 */

static const struct {
  const char *cls, *model_type;
} archs[] = {
    [PF_GEMMA2] = {"Gemma2ForCausalLM", "gemma2"}, [PF_QWEN2] = {"Qwen2ForCausalLM", "qwen2"}};
#define N_ARCHS (sizeof archs / sizeof *archs)

/* `architectures` decides; a file without it (transformers allows that) is known by `model_type`.
 */
static pf_arch architecture(reader *r) {
  const json_t *list = json_object_get(r->o, "architectures"),
               *type = json_object_get(r->o, "model_type");
  const json_t *v = json_array_size(list) == 1 ? json_array_get(list, 0) : NULL;
  bool named = list && !json_is_null(list);
  size_t a = 0;
  while (a < N_ARCHS && strcmp(named ? archs[a].cls : archs[a].model_type,
                               (named ? json_string_value(v) : json_string_value(type)) ?: ""))
    a++;
  if (a == N_ARCHS) {
    refuse(r, named ? "architectures" : "model_type",
           named  ? list
           : type ? type
                  : json_null(),
           "not supported; this program runs Gemma2ForCausalLM and Qwen2ForCausalLM");
    return PF_GEMMA2;
  }
  if (named && type && strcmp(json_string_value(type) ?: "", archs[a].model_type))
    refuse(r, "model_type", type, "does not belong to the architecture named in \"architectures\"");
  return (pf_arch)a;
}

/* Keys whose presence with a true, non-empty or non-null value asks for a computation that is not
 * done here. */
static const struct {
  const char *key, *what;
  unsigned archs;
} refused[] = {
    {"per_layer_config", "settings that differ by layer are not supported", 3},
    {"pruned_heads", "pruned heads are not supported", 3},
    {"is_encoder_decoder", "encoder-decoder models are not supported", 3},
    {"add_cross_attention", "cross attention is not supported", 3},
    {"use_bidirectional_attention", "bidirectional attention is not supported", 1u << PF_GEMMA2},
    {"attention_bias", "attention biases of Gemma-2 are not supported", 1u << PF_GEMMA2},
    {"use_sliding_window", "the sliding window of Qwen-2 is not supported", 1u << PF_QWEN2},
};

static bool truthy(const json_t *v) {
  switch (v ? json_typeof(v) : JSON_NULL) {
  case JSON_NULL:
  case JSON_FALSE:
    return false;
  case JSON_OBJECT:
    return json_object_size(v) > 0;
  case JSON_ARRAY:
    return json_array_size(v) > 0;
  case JSON_INTEGER:
  case JSON_REAL:
    return json_number_value(v) != 0;
  default:
    return true;
  }
}

static void check_refused(reader *r, pf_arch arch) {
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    const json_t *v = json_object_get(r->o, refused[i].key);
    if ((refused[i].archs >> arch & 1u) && truthy(v))
      refuse(r, refused[i].key, v, refused[i].what);
  }
}

/* ---- int8 weights
 * ------------------------------------------------------------------------------------------------
 */

/* What personaflow quantize writes (quantize.c). */
static void quantisation(reader *r, pf_config *c) {
  const json_t *q = json_object_get(r->o, "quantization_config");
  if (!truthy(q))
    return;
  const char *method = json_string_value(json_object_get(q, "quant_method"));
  if (!method || strcmp(method, PF_QUANT_METHOD)) {
    refuse(r, "quantization_config", q,
           "quantised checkpoints are not supported but for those of personaflow quantize");
    return;
  }
  reader in = {q, r->file, r->rc};
  if (in.rc == PF_OK && real(&in, "version", 0, 1e9, 0) != PF_QUANT_VERSION)
    refuse(&in, "quantization_config", q, "this version reads version " PF_QUANT_VERSION_TEXT);
  double group = real(&in, "group_size", PF_S8BLK, PF_S8_GROUP_MAX, 0);
  if (in.rc == PF_OK && (group < PF_S8BLK || fmod(group, PF_S8BLK) != 0))
    refuse(&in, "group_size", json_object_get(q, "group_size"),
           "must be a multiple of 64 from 64 to 1024");
  c->s8_group = (int32_t)group;
  r->rc = in.rc;
}

/* ---- activation, rotary angles, windows
 * -------------------------------------------------------------------------- */

static const struct {
  const char *name;
  bool gelu_tanh;
} activations[] = {
    {"gelu_pytorch_tanh", true}, {"gelu_new", true}, {"silu", false}, {"swish", false}};

/* Gemma2Config knows hidden_activation only (hidden_act of older files is not used); Qwen2Config
 * hidden_act. */
static bool activation(reader *r, pf_arch arch) {
  const char *key = arch == PF_GEMMA2 ? "hidden_activation" : "hidden_act";
  const json_t *v = json_object_get(r->o, key);
  const char *name = v ? json_string_value(v) : arch == PF_GEMMA2 ? "gelu_pytorch_tanh" : "silu";
  for (size_t i = 0; name && i < sizeof activations / sizeof *activations; i++)
    if (!strcmp(name, activations[i].name))
      return activations[i].gelu_tanh;
  refuse(r, key, v, "not supported; known are gelu_pytorch_tanh and silu");
  return false;
}

static bool another_type(const json_t *v) {
  return v && !json_is_null(v) && strcmp(json_string_value(v) ?: "", "default");
}

/* Versions of Hugging Face differ on which of the two keys of a type counts, and on a factor
 * without either: whatever asks for scaling is refused. */
static bool scales(const json_t *p) {
  const json_t *type = json_object_get(p, "rope_type"), *old = json_object_get(p, "type"),
               *factor = json_object_get(p, "factor");
  bool untyped = (!type || json_is_null(type)) && (!old || json_is_null(old));
  return another_type(type) || another_type(old) ||
         (untyped && truthy(factor) && json_number_value(factor) != 1);
}

/* rope_scaling, when it holds something, replaces rope_parameters; rope_theta inside comes before
 * the one at the top. */
static void rope(reader *r, pf_model_info *in) {
  const char *key =
      truthy(json_object_get(r->o, "rope_scaling")) ? "rope_scaling" : "rope_parameters";
  const json_t *p = json_object_get(r->o, key);
  double top = real(r, "rope_theta", 1e-3, 1e30, 10000.0);
  in->rope_theta = top;
  real(r, "partial_rotary_factor", 1, 1, 1);
  if (!truthy(p))
    return;
  if (!json_is_object(p) || json_object_get(p, "full_attention") ||
      json_object_get(p, "sliding_attention"))
    refuse(r, key, p, "not supported; rotary parameters must be one object for all layers");
  else if (scales(p))
    refuse(r, key, p, "not supported; the only rope_type is \"default\" (no scaling)");
  reader in_rope = {p, r->file, r->rc};
  in->rope_theta = real(&in_rope, "rope_theta", 1e-3, 1e30, top);
  real(&in_rope, "partial_rotary_factor", 1, 1, 1);
  r->rc = in_rope.rc;
}

static int layer_window(reader *r, const json_t *list, size_t layer, pf_arch arch) {
  if (!list || json_is_null(list))
    return arch == PF_GEMMA2 &&
           layer % 2 == 0; /* Hugging Face: "sliding_attention" if (layer + 1) % 2 */
  const json_t *v = json_array_get(list, layer);
  const char *s = json_string_value(v) ?: "";
  if (!strcmp(s, "full_attention") || !strcmp(s, "attention"))
    return 0;
  if (strcmp(s, "sliding_attention") || arch != PF_GEMMA2)
    refuse(r, "layer_types", v,
           arch == PF_GEMMA2 ? "unknown; known are sliding_attention and full_attention"
                             : "not supported for Qwen-2; every layer must be full_attention");
  return 1;
}

static void windows(reader *r, pf_config *c) {
  const json_t *list = json_object_get(r->o, "layer_types");
  size_t n = (size_t)c->info.n_layers;
  int any = 0;
  if (r->rc != PF_OK)
    return;
  if (list && !json_is_null(list) && json_array_size(list) != n)
    refuse(r, "layer_types", list, "must list one type for every layer");
  if (!(c->windowed = pf_calloc(n, 1)))
    r->rc = PF_ENOMEM;
  for (size_t i = 0; i < n && r->rc == PF_OK; i++)
    any |= c->windowed[i] = (uint8_t)layer_window(r, list, i, c->arch);
  if (any && r->rc == PF_OK && c->info.sliding_window == 0)
    refuse(r, "sliding_window", json_null(), "layers with sliding_attention need a window length");
  if (!any)
    c->info.sliding_window = 0;
}

/* ---- special tokens
 * ---------------------------------------------------------------------------------------------- */

static int32_t token_id(reader *r, const char *key, const json_t *v) {
  double x = json_number_value(v);
  if (!is_whole(v) || x < 0 || x > INT32_MAX) {
    refuse(r, key, v, "must be a token id");
    return -1;
  }
  return (int32_t)x;
}

/* An id, a list of ids, or null; `def` (-1: none) when the key is missing. */
static void eos(reader *r, pf_model_info *in, int32_t def) {
  const json_t *v = json_object_get(r->o, "eos_token_id");
  in->n_eos = 0;
  if (!v && def >= 0)
    in->eos[in->n_eos++] = def;
  if (json_array_size(v) > PF_MAX_EOS)
    refuse(r, "eos_token_id", v, "more than 8 ids");
  if (!v || json_is_null(v) || r->rc != PF_OK)
    return;
  if (!json_is_array(v))
    in->eos[in->n_eos++] = token_id(r, "eos_token_id", v);
  for (size_t i = 0; i < json_array_size(v); i++)
    in->eos[in->n_eos++] = token_id(r, "eos_token_id", json_array_get(v, i));
}

static int32_t bos(reader *r, int32_t def) {
  const json_t *v = json_object_get(r->o, "bos_token_id");
  return !v ? def : json_is_null(v) ? -1 : token_id(r, "bos_token_id", v);
}

/* ---- the files
 * ----------------------------------------------------------------------------------------------------
 */

static const char *dtype_name(const json_t *o) {
  static const char *const names[][2] = {
      {"bfloat16", "BF16"}, {"float16", "F16"}, {"float32", "F32"}};
  const json_t *v = json_object_get(o, "dtype");
  const char *s = json_string_value(v ? v : json_object_get(o, "torch_dtype"));
  for (size_t i = 0; s && i < 3; i++)
    if (!strcmp(s, names[i][0]))
      return names[i][1];
  return "";
}

/* Relations between values that were each in range. */
static void check_heads(reader *r, pf_model_info *in) {
  if (r->rc != PF_OK)
    return;
  if (in->n_kv_heads == 0)
    in->n_kv_heads = in->n_heads;
  if (in->d_head == 0)
    in->d_head = in->d_model / in->n_heads;
  if (in->n_heads % in->n_kv_heads)
    r->rc = pf_fail(PF_EINPUT,
                    "%s: num_attention_heads = %d is not a multiple of num_key_value_heads = %d",
                    r->file, in->n_heads, in->n_kv_heads);
  else if (in->d_head < 2 || in->d_head % 2)
    r->rc = pf_fail(PF_EINPUT, "%s: head_dim = %d: must be even and at least 2 (rotary halves)",
                    r->file, in->d_head);
}

static void read_config(reader *r, pf_config *c) {
  pf_model_info *in = &c->info;
  pf_arch arch = c->arch = architecture(r);
  bool gemma = arch == PF_GEMMA2;
  check_refused(r, arch);
  quantisation(r, c);
  read_numbers(r, in, arch);
  check_heads(r, in);
  rope(r, in);
  windows(r, c);
  c->gelu_tanh = activation(r, arch);
  c->attn_bias = !gemma;
  c->plus_one = c->post_norms = c->scale_embed = gemma;
  in->tied = boolean(r, "tie_word_embeddings", gemma);
  double scalar = gemma ? real(r, "query_pre_attn_scalar", 1e-6, 1e9, 256) : in->d_head;
  in->attn_scale = 1.0 / sqrt(scalar);
  eos(r, in, gemma ? 1 : -1);
  in->bos_id = bos(r, gemma ? 2 : -1);
  in->arch = archs[arch].model_type;
  in->repetition_penalty = 1;
  in->weights_dtype = dtype_name(r->o);
}

/* Hugging Face's generate() takes the end-of-sequence ids from generation_config.json alone when
 * that file exists (no key there: no such id), from config.json otherwise. */
static void read_generation(reader *r, pf_config *c) {
  pf_model_info *in = &c->info;
  eos(r, in, -1);
  in->bos_id = bos(r, in->bos_id);
  if (truthy(json_object_get(r->o, "repetition_penalty")))
    in->repetition_penalty = real(r, "repetition_penalty", PF_PENALTY_LO, PF_PENALTY_HI, 1);
}

typedef void (*read_fn)(reader *r, pf_config *c);

/* In the environment of compute regions: the decimals of a file are rounded as ever, however the
 * caller rounds. */
static int parse(pf_config *c, const char *name, const char *text, size_t n, read_fn fn) {
  pf_buf path = {0};
  json_t *o = NULL;
  uint64_t env = pf_fp_enter();
  pf_buf_printf(&path, "%s/%s", c->dir, name);
  int rc = pf_buf_status(&path);
  if (rc == PF_OK)
    rc = pf_js_text(path.s, text, n, &o);
  if (rc == PF_OK) {
    reader r = {o, path.s, PF_OK};
    if (json_is_object(o))
      fn(&r, c);
    else
      r.rc = pf_fail(PF_EINPUT, "%s: must hold one JSON object", path.s);
    rc = r.rc;
  }
  json_decref(o);
  pf_buf_free(&path);
  pf_fp_leave(env);
  return rc;
}

int pf_config_parse(pf_config *out, const char *dir, const char *config, size_t n,
                    const char *generation, size_t n_generation) {
  *out = (pf_config){0};
  if (strlen(dir) >= sizeof out->dir)
    return pf_fail(PF_EINPUT, "%.60s...: the path is too long", dir);
  strcpy(out->dir, dir);
  out->info.dir = out->dir;
  out->info.weights_sha256 = "";
  int rc = parse(out, "config.json", config, n, read_config);
  if (rc == PF_OK && generation)
    rc = parse(out, "generation_config.json", generation, n_generation, read_generation);
  if (rc != PF_OK)
    pf_config_free(out);
  return rc;
}

/* An optional file that is not there leaves *out empty; a link to nowhere is a broken download. */
static int read_text(const char *dir, const char *name, bool optional, pf_buf *out) {
  pf_buf path = {0};
  struct stat st;
  pf_buf_printf(&path, "%s/%s", dir, name);
  int rc = pf_buf_status(&path);
  if (rc == PF_OK && !(optional && lstat(path.s, &st) != 0))
    rc = pf_read_file(path.s, CONFIG_LIMIT, out);
  pf_buf_free(&path);
  return rc;
}

/* transformers would load another base model and apply what lies here. */
static int check_adapter(const char *dir) {
  pf_buf b = {0};
  int rc = read_text(dir, "adapter_config.json", true, &b);
  if (rc == PF_OK && b.n)
    rc = pf_fail(PF_EINPUT,
                 "%s/adapter_config.json: adapters (LoRA) are not applied: merge it into the "
                 "weights (merge_and_unload of peft) and load what that saves",
                 dir);
  pf_buf_free(&b);
  return rc;
}

int pf_config_read(pf_config *out, const char *dir) {
  pf_buf config = {0}, generation = {0};
  *out = (pf_config){0};
  int rc = check_adapter(dir);
  if (rc == PF_OK)
    rc = read_text(dir, "config.json", false, &config);
  if (rc == PF_OK)
    rc = read_text(dir, "generation_config.json", true, &generation);
  if (rc == PF_OK)
    rc = pf_config_parse(out, dir, pf_buf_str(&config), config.n, generation.s, generation.n);
  pf_buf_free(&config);
  pf_buf_free(&generation);
  return rc;
}

void pf_config_free(pf_config *c) {
  pf_free(c->windowed);
  *c = (pf_config){0};
}
