/* SPDX-License-Identifier: Apache-2.0
 * Checkpoints: packing, both ways of reading, checksums, and files that must be refused. The
 * checkpoints are made here, so what is in them is known. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/aio.h"
#include "base/bf16.h"
#include "base/buf.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/pack.h"
#include "model/weights.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

static char dir[256];

/* ---- a checkpoint in memory
 * ---------------------------------------------------------------------- */

typedef struct blob {
  char name[96], dtype[8];
  size_t rows, cols, n, bytes; /* cols 0: a vector */
  unsigned char *data;
} blob;

static blob blobs[64];
static size_t n_blobs;

static void setup(void) {
  tmp_make(dir);
  char cache[300];
  snprintf(cache, sizeof cache, "%s/cache", dir);
  setenv("XDG_CACHE_HOME", cache, 1);
  unsetenv("PERSONAFLOW_IO");
}

static void forget(void) {
  for (size_t i = 0; i < n_blobs; i++)
    pf_free(blobs[i].data);
  n_blobs = 0;
}

static void teardown(void) {
  forget();
  tmp_remove(dir);
}

#define TINY_QWEN                                                                                  \
  "{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":19,\"hidden_size\":8,"                 \
  "\"intermediate_size\":10,\"num_hidden_layers\":1,\"num_attention_heads\":2,"                    \
  "\"num_key_value_heads\":1,\"head_dim\":6,\"tie_word_embeddings\":true}"
#define TINY_GEMMA                                                                                 \
  "{\"architectures\":[\"Gemma2ForCausalLM\"],\"vocab_size\":33,\"hidden_size\":9,"                \
  "\"intermediate_size\":17,\"num_hidden_layers\":2,\"num_attention_heads\":3,"                    \
  "\"num_key_value_heads\":1,\"head_dim\":4,\"tie_word_embeddings\":false}"
/* Inner dimensions of more than one group of int8. */
#define GROUPS_QWEN                                                                                \
  "{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":33,\"hidden_size\":515,"               \
  "\"intermediate_size\":1031,\"num_hidden_layers\":1,\"num_attention_heads\":2,"                  \
  "\"num_key_value_heads\":1,\"head_dim\":6,\"tie_word_embeddings\":true}"
/* Blocks of more than one panel with a ragged end, rows longer than a block, a tensor of more than
 * one job. */
#define WIDE_QWEN                                                                                  \
  "{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":17011,\"hidden_size\":555,"            \
  "\"intermediate_size\":16417,\"num_hidden_layers\":1,\"num_attention_heads\":2,"                 \
  "\"num_key_value_heads\":1,\"head_dim\":6,\"tie_word_embeddings\":true}"

static bool is_f32(const char *dtype) {
  return dtype[1] == '3';
}

static bool is_bf16(const char *dtype) {
  return dtype[0] == 'B';
}

static size_t size_of(const char *dtype) {
  return is_f32(dtype) ? 4 : dtype[0] == 'I' ? 1 : 2;
}

/* Random bits with a finite exponent; denormals, zeros of both signs and large values among them.
 */
static void random_values(blob *b, uint64_t stream) {
  bool f32 = is_f32(b->dtype), bf16 = is_bf16(b->dtype);
  /* The exponents in a word: one of fp32, two of the others. */
  const uint32_t e[2] = {f32    ? 0x7f800000u
                         : bf16 ? 0x7f80u
                                : 0x7c00u,
                         f32    ? 0
                         : bf16 ? 0x7f800000u
                                : 0x7c000000u};
  uint32_t r[4];
  for (size_t at = 0; at < b->bytes; at += sizeof r) {
    pf_philox(7, stream, at / sizeof r, r);
    for (int k = 0; k < 8; k++)
      if ((r[k / 2] & e[k % 2]) == e[k % 2])
        r[k / 2] &= ~e[k % 2];
    memcpy(b->data + at, r, b->bytes - at < sizeof r ? b->bytes - at : sizeof r);
  }
}

/* Makes fp32 magnitudes smaller than the value of these bits. */
static void keep_below(blob *b, uint32_t bits) {
  for (size_t i = 0; is_f32(b->dtype) && i < b->n; i++) {
    uint32_t u;
    memcpy(&u, b->data + 4 * i, 4);
    if ((u & 0x7fffffffu) >= bits)
      u ^= 0x40000000u;
    memcpy(b->data + 4 * i, &u, 4);
  }
}

static blob *add(const char *name, const char *dtype, size_t rows, size_t cols) {
  blob *b = &blobs[n_blobs++];
  ck_assert_uint_le(n_blobs, sizeof blobs / sizeof *blobs);
  *b = (blob){.rows = rows, .cols = cols, .n = rows * (cols ? cols : 1)};
  snprintf(b->name, sizeof b->name, "%s", name);
  snprintf(b->dtype, sizeof b->dtype, "%s", dtype);
  b->bytes = b->n * size_of(dtype);
  b->data = pf_alloc(b->bytes, 1);
  ck_assert_ptr_nonnull(b->data);
  random_values(b, n_blobs);
  return b;
}

/* Blobs for every tensor of a configuration; dtypes are dealt in turn, but for quantised weights
 * and their scales. */
static void make_blobs(const char *config, const char *const *dtypes, size_t n_dtypes) {
  pf_config c;
  pf_wants w;
  forget();
  tmp_text(dir, "config.json", config);
  ck_assert_msg(pf_config_read(&c, dir) == PF_OK, "%s", pf_last_error());
  ck_assert_int_eq(pf_wants_make(&w, &c, NULL), PF_OK);
  for (size_t i = 0; i < w.n; i++)
    add(w.v[i].name,
        w.v[i].role == PF_SCALES          ? "F32"
        : w.v[i].dtypes == 1u << PF_DT_I8 ? "I8"
                                          : dtypes[i % n_dtypes],
        w.v[i].rows, w.v[i].cols);
  pf_wants_free(&w);
  pf_config_free(&c);
}

static blob *find(const char *name) {
  for (size_t i = 0; i < n_blobs; i++)
    if (!strcmp(blobs[i].name, name))
      return &blobs[i];
  ck_abort_msg("no %s", name);
  return NULL;
}

/* ---- files
 * --------------------------------------------------------------------------------------- */

static json_t *header(size_t lo, size_t hi) {
  json_t *o = json_object();
  size_t at = 0;
  json_object_set_new(o, "__metadata__", json_pack("{s:s}", "format", "pt"));
  for (size_t i = lo; i < hi; at += blobs[i++].bytes) {
    json_t *shape = json_array();
    json_array_append_new(shape, json_integer((json_int_t)blobs[i].rows));
    if (blobs[i].cols)
      json_array_append_new(shape, json_integer((json_int_t)blobs[i].cols));
    json_t *t = json_pack("{s:s, s:o, s:[I,I]}", "dtype", blobs[i].dtype, "shape", shape,
                          "data_offsets", (json_int_t)at, (json_int_t)(at + blobs[i].bytes));
    json_object_set_new(o, blobs[i].name, t);
  }
  return o;
}

/* The bytes of a file with this header text and the blobs' data. */
static void file_bytes(pf_buf *b, const char *head, size_t lo, size_t hi) {
  uint64_t n = strlen(head);
  *b = (pf_buf){0};
  pf_buf_add(b, &n, 8);
  pf_buf_add(b, head, n);
  for (size_t i = lo; i < hi; i++)
    pf_buf_add(b, blobs[i].data, blobs[i].bytes);
  ck_assert_int_eq(pf_buf_status(b), PF_OK);
}

static void write_head(const char *name, const char *head, size_t lo, size_t hi) {
  pf_buf b;
  file_bytes(&b, head, lo, hi);
  tmp_write(dir, name, b.s, b.n);
  pf_buf_free(&b);
}

static void write_json(const char *name, json_t *o, size_t lo, size_t hi) {
  char *head = json_dumps(o, JSON_COMPACT);
  write_head(name, head, lo, hi);
  free(head);
  json_decref(o);
}

static void write_single(void) {
  write_json("model.safetensors", header(0, n_blobs), 0, n_blobs);
}

/* Two shards, cut in the middle; *map is the index's weight_map (a new reference). */
static void write_shards(json_t **map) {
  size_t half = n_blobs / 2;
  *map = json_object();
  write_json("a.safetensors", header(0, half), 0, half);
  write_json("b.safetensors", header(half, n_blobs), half, n_blobs);
  for (size_t i = 0; i < n_blobs; i++)
    json_object_set_new(*map, blobs[i].name,
                        json_string(i < half ? "a.safetensors" : "b.safetensors"));
}

static void write_index(json_t *map) {
  json_t *o = json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 1, "weight_map", map);
  char *s = json_dumps(o, 0);
  tmp_text(dir, "model.safetensors.index.json", s);
  free(s);
  json_decref(o);
}

/* ---- what loading must give
 * ---------------------------------------------------------------------- */

static pf_model *load(const pf_model_opts *o) {
  pf_model *m = NULL;
  int rc = pf_model_open(&m, dir, o);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
  return m;
}

static float value(const blob *b, size_t i) {
  uint32_t u = 0;
  memcpy(&u, b->data + i * size_of(b->dtype), size_of(b->dtype));
  if (is_f32(b->dtype))
    return pf_f32_of_bits(u);
  return is_bf16(b->dtype) ? pf_bf16_to_f32((uint16_t)u) : pf_f16_to_f32((uint16_t)u);
}

/* What the precision makes of a value. */
static pf_precision precision = PF_PRECISION_F32;

static float kept(const blob *b, size_t i) {
  float v = value(b, i);
  return precision == PF_PRECISION_BF16 ? pf_bf16_to_f32(pf_f32_to_bf16(v)) : v;
}

/* s = amax / 127, q = x / s to the nearest integer, ties to even (simd/CONTRACT.md), once more. */
static float quantise(const blob *b, size_t lo, size_t n, int q[]) {
  volatile float amax = 0, s, x;
  for (size_t i = 0; i < n; i++)
    amax = fabsf(value(b, lo + i)) > amax ? fabsf(value(b, lo + i)) : amax;
  s = amax / 127.0f;
  for (size_t i = 0; i < n; i++) {
    x = s > 0 ? value(b, lo + i) / s : 0.0f;
    q[i] = (int)lrintf(x);
  }
  return s;
}

static void check_s8(const pf_mat *m, const blob *b) {
  int q[PF_S8_GROUP];
  size_t groups = (b->cols + PF_S8_GROUP - 1) / PF_S8_GROUP, bad = 0;
  const int8_t *w = m->w;
  ck_assert_int_eq(m->type, PF_W_S8);
  ck_assert(m->n == b->rows && m->k == b->cols && m->kp == (b->cols + 63) / 64 * 64);
  ck_assert(m->group == PF_S8_GROUP && (size_t)m->w % 64 == 0 && (size_t)m->ws % 64 == 0);
  for (size_t r = 0; r < m->n; r++)
    for (size_t g = 0; g < groups; g++) {
      size_t lo = g * PF_S8_GROUP, n = m->k - lo < PF_S8_GROUP ? m->k - lo : PF_S8_GROUP;
      float s = quantise(b, r * m->k + lo, n, q);
      int32_t sum = 0;
      for (size_t k = lo; k < lo + n; k++) {
        bad += w[(r / 16 * m->kp / 4 + k / 4) * 64 + 4 * (r % 16) + k % 4] != q[k - lo];
        bad += r % 7 == 0 && pf_mat_get(m, r, k) != (float)q[k - lo] * s;
        sum += q[k - lo];
      }
      size_t at = (r / 16 * groups + g) * 16 + r % 16;
      bad += pf_bits_of_f32(m->ws[at]) != pf_bits_of_f32(s);
      bad += m->wsum[at] != sum;
    }
  for (size_t r = 0; r < m->n; r++)
    for (size_t k = m->k; k < m->kp; k++)
      bad += w[(r / 16 * m->kp / 4 + k / 4) * 64 + 4 * (r % 16) + k % 4] != 0;
  ck_assert_msg(bad == 0, "%s: %zu values differ", b->name, bad);
}

/* The layout of simd/simd.h, written down again. */
static void check_floats(const pf_mat *m, const blob *b) {
  bool pairs = precision == PF_PRECISION_BF16 || is_bf16(b->dtype);
  ck_assert_int_eq(m->type, pairs ? PF_W_BF16 : PF_W_F32);
  ck_assert(m->n == b->rows && m->k == b->cols && m->kp == (b->cols + 31) / 32 * 32);
  ck_assert_uint_eq((size_t)m->w % 64, 0);
  size_t bad = 0;
  for (size_t r = 0; r < (m->n + 15) / 16 * 16; r++)
    for (size_t k = 0; k < m->kp; k++) {
      size_t panel = r / 16, lane = r % 16;
      uint32_t got =
          pairs ? (uint32_t)((uint16_t *)m->w)[(panel * m->kp / 2 + k / 2) * 32 + 2 * lane + k % 2]
                      << 16
                : ((uint32_t *)m->w)[(panel * m->kp + k) * 16 + lane];
      uint32_t want = r < m->n && k < m->k ? pf_bits_of_f32(kept(b, r * m->k + k)) : 0;
      bad += got != want;
      if (r < m->n && k < m->k && r % 7 == 0)
        bad += pf_bits_of_f32(pf_mat_get(m, r, k)) != want;
    }
  ck_assert_msg(bad == 0, "%s: %zu values differ", b->name, bad);
}

static void check_mat(const pf_mat *m, const blob *b) {
  uint64_t env = pf_fp_enter();
  (precision == PF_PRECISION_INT8 ? check_s8 : check_floats)(m, b);
  pf_fp_leave(env);
}

static void check_vec(const float *v, const blob *b) {
  for (size_t i = 0; i < b->n; i++)
    ck_assert_msg(pf_bits_of_f32(v[i]) == pf_bits_of_f32(kept(b, i)), "%s[%zu]", b->name, i);
}

static void check_layer(const pf_layer *l, int i, bool gemma) {
  char name[96];
#define NAMED(tail) (snprintf(name, sizeof name, "model.layers.%d.%s", i, tail), find(name))
  check_mat(&l->q, NAMED("self_attn.q_proj.weight"));
  check_mat(&l->k, NAMED("self_attn.k_proj.weight"));
  check_mat(&l->v, NAMED("self_attn.v_proj.weight"));
  check_mat(&l->o, NAMED("self_attn.o_proj.weight"));
  check_mat(&l->gate, NAMED("mlp.gate_proj.weight"));
  check_mat(&l->up, NAMED("mlp.up_proj.weight"));
  check_mat(&l->down, NAMED("mlp.down_proj.weight"));
  check_vec(l->ln1, NAMED("input_layernorm.weight"));
  if (gemma) {
    check_vec(l->ln1_post, NAMED("post_attention_layernorm.weight"));
    check_vec(l->ln2, NAMED("pre_feedforward_layernorm.weight"));
    check_vec(l->ln2_post, NAMED("post_feedforward_layernorm.weight"));
    ck_assert(!l->bq && !l->bk && !l->bv);
  } else {
    check_vec(l->ln2, NAMED("post_attention_layernorm.weight"));
    check_vec(l->bq, NAMED("self_attn.q_proj.bias"));
    check_vec(l->bk, NAMED("self_attn.k_proj.bias"));
    check_vec(l->bv, NAMED("self_attn.v_proj.bias"));
    ck_assert(!l->ln1_post && !l->ln2_post);
  }
#undef NAMED
}

/* hex: SHA-256 over "name dtype shape digest" lines in name order (the blobs are in name order). */
static void expected_sha(char hex[65]) {
  pf_buf b = {0};
  for (size_t i = 0; i < n_blobs; i++) {
    char one[65];
    pf_sha256_hex(blobs[i].data, blobs[i].bytes, one);
    pf_buf_printf(&b, "%s %s %zu", blobs[i].name, blobs[i].dtype, blobs[i].rows);
    if (blobs[i].cols)
      pf_buf_printf(&b, ",%zu", blobs[i].cols);
    pf_buf_printf(&b, " %s\n", one);
  }
  pf_sha256_hex(b.s, b.n, hex);
  pf_buf_free(&b);
}

static void check_model(const pf_model *m, const char *dtype) {
  const pf_model_info *in = pf_model_get_info(m);
  bool gemma = m->cfg.arch == PF_GEMMA2;
  uint64_t bytes = 0;
  for (size_t i = 0; i < n_blobs; i++)
    bytes += blobs[i].bytes;
  ck_assert_str_eq(in->weights_dtype, dtype);
  ck_assert_uint_eq(in->weight_bytes, bytes);
  if (in->tied)
    check_mat(&m->embed, find("model.embed_tokens.weight"));
  else /* read by rows only: as published, or rounded */
    check_floats(&m->embed, find("model.embed_tokens.weight"));
  if (in->tied)
    ck_assert_ptr_eq(m->unembed.w, m->embed.w);
  else
    check_mat(&m->unembed, find("lm_head.weight"));
  check_vec(m->ln_final, find("model.norm.weight"));
  for (int i = 0; i < in->n_layers; i++)
    check_layer(&m->layers[i], i, gemma);
  float row[600];
  const blob *e = find("model.embed_tokens.weight");
  if (precision != PF_PRECISION_F32)
    return;
  pf_mat_row(&m->embed, e->rows - 1, row);
  for (size_t k = 0; k < e->cols; k++)
    ck_assert_uint_eq(pf_bits_of_f32(row[k]),
                      pf_bits_of_f32(value(e, (e->rows - 1) * e->cols + k)));
}

static const char *const bf16[] = {"BF16"}, *const f16[] = {"F16"}, *const f32[] = {"F32"},
                         *const all[] = {"F32", "BF16", "F16", "BF16"};
static const struct {
  const char *config, *dtype;
  const char *const *dtypes;
  size_t n;
} kinds[] = {
    {TINY_QWEN, "BF16", bf16, 1},  {TINY_QWEN, "F16", f16, 1},    {TINY_QWEN, "F32", f32, 1},
    {TINY_GEMMA, "mixed", all, 4}, {TINY_GEMMA, "BF16", bf16, 1}, {GROUPS_QWEN, "mixed", all, 4},
    {TINY_GEMMA, "F32", f32, 1},   {WIDE_QWEN, "mixed", all, 4},  {WIDE_QWEN, "BF16", bf16, 1},
};
#define N_KINDS ((int)(sizeof kinds / sizeof *kinds))
enum { N_SMALL_KINDS = 7 };

START_TEST(packed_as_published) {
  char hex[65];
  json_t *map;
  make_blobs(kinds[_i].config, kinds[_i].dtypes, kinds[_i].n);
  if (_i % 2) {
    write_shards(&map);
    write_index(map);
  } else {
    write_single();
  }
  pf_model *m = load(NULL);
  check_model(m, kinds[_i].dtype);
  expected_sha(hex);
  ck_assert_str_eq(pf_model_get_info(m)->weights_sha256, hex);
  pf_model_close(m);
}
END_TEST

START_TEST(packed_for_a_precision) {
  int kind = _i % N_SMALL_KINDS;
  precision = _i / N_SMALL_KINDS ? PF_PRECISION_INT8 : PF_PRECISION_BF16;
  make_blobs(kinds[kind].config, kinds[kind].dtypes, kinds[kind].n);
  for (size_t b = 0; b < n_blobs; b++)
    keep_below(&blobs[b], precision == PF_PRECISION_BF16 ? 0x7f7f8000u : 0x7e000000u);
  write_single();
  pf_model *m = load(&(pf_model_opts){.precision = precision, .threads = 1 + _i % 3});
  check_model(m, kinds[kind].dtype);
  ck_assert_int_eq(pf_model_get_info(m)->precision, precision);
  ck_assert_int_eq(pf_model_get_info(m)->s8_group,
                   precision == PF_PRECISION_INT8 ? PF_S8_GROUP : 0);
  pf_model_close(m);
  precision = PF_PRECISION_F32;
}
END_TEST

START_TEST(too_large_for_bf16) {
  make_blobs(TINY_QWEN, f32, 1);
  for (size_t b = 0; b < n_blobs; b++)
    keep_below(&blobs[b], 0x7f7f8000u);
  uint32_t u = 0xff7f8000u;
  blob *b = find("model.layers.0.mlp.up_proj.weight");
  memcpy(b->data + 4 * (3 * b->cols + 2), &u, 4);
  write_single();
  pf_model *m;
  ck_assert_int_eq(pf_model_open(&m, dir, &(pf_model_opts){.precision = PF_PRECISION_BF16}),
                   PF_EINPUT);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "up_proj.weight: element [3,2] is too large"));
  pf_model_close(load(NULL));
}
END_TEST

/* Values of an ordinary model that bf16 can hold, the same in every dtype; the rows of a matrix
 * have different sizes. */
static void ordinary_values(blob *b, uint64_t stream) {
  for (size_t i = 0; i < b->n; i++) {
    size_t row = b->cols ? i / b->cols : 0;
    double u = pf_uniform(3, stream, i) - 0.5;
    uint16_t h = pf_f32_to_bf16(b->cols ? (float)(u * 0.05 * (double)(1 + row % 5)) : (float)u + 1);
    uint32_t w = (uint32_t)h << 16;
    memcpy(b->data + i * size_of(b->dtype), is_f32(b->dtype) ? (void *)&w : (void *)&h,
           size_of(b->dtype));
  }
}

enum { RUN_ROWS = 20, RUN_VOCAB = 33 };

/* Logits of a few tokens from a checkpoint whose tensors have these dtypes in turn. */
static void run_with(const char *const *dtypes, size_t n, pf_precision p, float *x) {
  pf_ctx *c;
  pf_seq *s;
  pf_row rows[RUN_ROWS];
  make_blobs(GROUPS_QWEN, dtypes, n);
  for (size_t b = 0; b < n_blobs; b++)
    ordinary_values(&blobs[b], b);
  write_single();
  pf_model *m = load(&(pf_model_opts){.precision = p});
  ck_assert_int_eq(pf_ctx_new(&c, m, &(pf_ctx_opts){.threads = 2}), PF_OK);
  ck_assert_int_eq(pf_seq_new(&s, c), PF_OK);
  for (int32_t r = 0; r < RUN_ROWS; r++)
    rows[r] = (pf_row){.seq = s, .token = 7 * r % RUN_VOCAB, .pos = r, .out = r};
  ck_assert_msg(pf_eval(c, rows, RUN_ROWS, x) == PF_OK, "%s", pf_last_error());
  pf_seq_free(s);
  pf_ctx_free(c);
  pf_model_close(m);
}

static void near_to(const float *x, const float *y, float bound, const char *what) {
  float most = 0, apart = 0;
  for (size_t i = 0; i < RUN_ROWS * RUN_VOCAB; i++) {
    most = fmaxf(most, fabsf(x[i]));
    apart = fmaxf(apart, fabsf(x[i] - y[i]));
  }
  ck_assert_msg(apart <= bound * most, "%s: %g of %g", what, (double)apart, (double)most);
}

/* Products with weights of two kinds in a layer (K unlike Q, up unlike gate), and of int8 with
 * several groups a row, go together as those of one kind do. */
START_TEST(weights_of_two_kinds_run) {
  static const char *const turns[] = {"BF16", "F32"}, *const others[] = {"F32", "BF16"};
  static float x[RUN_ROWS * RUN_VOCAB], y[RUN_ROWS * RUN_VOCAB];
  run_with(bf16, 1, PF_PRECISION_F32, x);
  run_with(turns, 2, PF_PRECISION_F32, y);
  near_to(x, y, 1e-5f, "BF16 and F32");
  run_with(others, 2, PF_PRECISION_F32, y);
  near_to(x, y, 1e-5f, "F32 and BF16");
  run_with(bf16, 1, PF_PRECISION_BF16, y);
  near_to(x, y, 0.02f, "bf16");
  run_with(bf16, 1, PF_PRECISION_INT8, y);
  near_to(x, y, 0.05f, "int8");
}
END_TEST

/* Puts other bytes into a file and opens its directory. */
static void patched(const char *in, const char *file, const pf_buf *b, size_t at, const char *bytes,
                    size_t n, const char *says) {
  pf_model *m;
  pf_buf c = {0};
  pf_buf_add(&c, b->s, b->n);
  memcpy(c.s + at, bytes, n);
  tmp_write(in, file, c.s, c.n);
  ck_assert_int_eq(pf_model_open(&m, in, NULL), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), says) != NULL, "%s", pf_last_error());
  pf_buf_free(&c);
}

/* Quantised values and scales that quantising never gives. */
START_TEST(int8_that_nobody_made) {
  static const char name[] = "model.layers.0.mlp.up_proj.weight",
                    scale[] = "model.layers.0.mlp.up_proj.weight.scale";
  char out[300], path[330];
  pf_ckpt k;
  pf_buf b;
  make_blobs(GROUPS_QWEN, bf16, 1);
  for (size_t i = 0; i < n_blobs; i++)
    ordinary_values(&blobs[i], i);
  write_single();
  snprintf(out, sizeof out, "%s/int8", dir);
  snprintf(path, sizeof path, "%s/model.safetensors", out);
  ck_assert_msg(pf_model_quantize(dir, out, NULL) == PF_OK, "%s", pf_last_error());
  ck_assert_int_eq(pf_ckpt_open(&k, out), PF_OK);
  ck_assert_int_eq(pf_read_file(path, 1 << 24, &b), PF_OK);
  const pf_st_tensor *w = pf_st_find(&k.f[0].st, name), *s = pf_st_find(&k.f[0].st, scale);
  ck_assert(w && s && s->shape[1] == 2);
  patched(out, "model.safetensors", &b, w->off + 3 * w->shape[1] + 2, "\x80", 1,
          "element [3,2] is -128");
  patched(out, "model.safetensors", &b, s->off + 4 * (3 * 2 + 1), "\0\0\x80\xbf", 4,
          "element [3,1] is negative");
  patched(out, "model.safetensors", &b, s->off + 4 * (3 * 2 + 1), "\0\0\xc0\x7f", 4,
          "element [3,1] is NaN");
  pf_ckpt_close(&k);
  pf_buf_free(&b);
}
END_TEST

/* A directory says how many inputs share a scale. */
START_TEST(int8_of_another_group) {
  make_blobs("{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":19,\"hidden_size\":8,"
             "\"intermediate_size\":200,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
             "\"num_key_value_heads\":1,\"head_dim\":6,\"tie_word_embeddings\":true,"
             "\"quantization_config\":{\"quant_method\":\"personaflow-int8\",\"version\":1,"
             "\"bits\":8,\"group_size\":64}}",
             bf16, 1);
  for (size_t b = 0; b < n_blobs; b++)
    for (size_t i = 0; i < blobs[b].n; i++) {
      float scale = 0.01f * (float)(1 + i % 7);
      if (blobs[b].dtype[0] == 'I')
        blobs[b].data[i] = (unsigned char)(int8_t)((int)(i * 37 % 255) - 127);
      else if (is_f32(blobs[b].dtype))
        memcpy(blobs[b].data + 4 * i, &scale, 4);
    }
  write_single();
  pf_model *m = load(NULL);
  const pf_mat *w = &m->layers[0].down;
  const blob *q = find("model.layers.0.mlp.down_proj.weight"),
             *s = find("model.layers.0.mlp.down_proj.weight.scale");
  ck_assert_int_eq(pf_model_get_info(m)->s8_group, 64);
  ck_assert(w->group == 64 && s->cols == 4);
  for (size_t r = 0; r < w->n; r++)
    for (size_t k = 0; k < w->k; k++)
      ck_assert(pf_mat_get(w, r, k) ==
                (float)(int8_t)q->data[r * w->k + k] * value(s, r * 4 + k / 64));
  pf_model_close(m);
}
END_TEST

/* Matrices longer than what is written at a time, quantised and as published; every tensor begins
 * at a multiple of its values' bytes. The directory is what quantising at load gives. */
START_TEST(long_matrices_are_written) {
  char out[300];
  pf_ckpt k;
  pf_model *m;
  make_blobs("{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":17011,\"hidden_size\":65,"
             "\"intermediate_size\":17,\"num_hidden_layers\":1,\"num_attention_heads\":1,"
             "\"num_key_value_heads\":1,\"head_dim\":6,\"tie_word_embeddings\":false}",
             all, 4);
  for (size_t i = 0; i < n_blobs; i++)
    ordinary_values(&blobs[i], i);
  write_single();
  snprintf(out, sizeof out, "%s/int8", dir);
  ck_assert_msg(pf_model_quantize(dir, out, NULL) == PF_OK, "%s", pf_last_error());
  pf_model *own = load(&(pf_model_opts){.precision = PF_PRECISION_INT8});
  ck_assert_msg(pf_model_open(&m, out, NULL) == PF_OK, "%s", pf_last_error());
  ck_assert_uint_eq(m->arena_bytes, own->arena_bytes);
  ck_assert(memcmp(m->arena, own->arena, m->arena_bytes) == 0);
  pf_model_close(own);
  pf_model_close(m);
  ck_assert_int_eq(pf_ckpt_open(&k, out), PF_OK);
  uint64_t begin = UINT64_MAX;
  for (size_t i = 0; i < k.f[0].st.n; i++) {
    const pf_st_tensor *t = &k.f[0].st.t[i];
    begin = t->off < begin ? t->off : begin;
    ck_assert_msg(t->off % pf_dtype_bytes(t->dtype) == 0, "%s at %zu", t->name, (size_t)t->off);
  }
  ck_assert_uint_eq(begin % 8, 0);
  pf_ckpt_close(&k);
}
END_TEST

/* What was just written has to be read from the disk, where this works: several reads are in flight
 * then, each with room of its own. */
static void out_of_the_cache(void) {
  char path[300];
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  int fd = open(path, O_RDONLY);
  (void)fsync(fd);
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

/* Ways of reading, threads and checksums change nothing. */
START_TEST(all_ways_give_the_same_bytes) {
  static const char *const ways[] = {"uring", "pread"};
  static const int threads[] = {1, 2, 3, 7};
  int step = tu_tier("small") ? 2 : 1;
  make_blobs(WIDE_QWEN, all, 4);
  write_single();
  pf_model *first = load(&(pf_model_opts){.no_checksum = 1});
  ck_assert_str_eq(pf_model_get_info(first)->weights_sha256, "");
  pf_aio *probe;
  setenv("PERSONAFLOW_IO", "uring", 1);
  int lo = pf_aio_open(&probe, 1) == PF_OK ? 0 : 1;
  if (lo)
    fprintf(stderr, "check_weights: SKIPPED io_uring: %s\n", pf_last_error());
  pf_aio_close(probe);
  for (int w = lo; w < 2; w++)
    for (int t = 0; t < 4; t += step)
      for (int h = 0; h < 2; h++) {
        setenv("PERSONAFLOW_IO", ways[w], 1);
        tmp_remove(getenv("XDG_CACHE_HOME")); /* so that the digest is made */
        out_of_the_cache();
        pf_model *m = load(&(pf_model_opts){.threads = threads[t], .no_checksum = h});
        ck_assert_uint_eq(m->arena_bytes, first->arena_bytes);
        ck_assert_msg(!memcmp(m->arena, first->arena, m->arena_bytes), "%s, %d threads", ways[w],
                      threads[t]);
        pf_model_close(m);
      }
  pf_model_close(first);
}
END_TEST

START_TEST(nodes_are_counted) {
  static const struct {
    const char *list;
    int n;
  } cases[] = {{"0\n", 1}, {"0-1\n", 2}, {"0,2-3\n", 3}, {"1,3", 2}, {"", 1}, {"nonsense", 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    ck_assert_int_eq(pf_count_nodes(cases[i].list), cases[i].n);
  ck_assert_int_ge(pf_memory_nodes(), 1);
}
END_TEST

/* Pages of [from, to) that are not in memory. */
static size_t resident(const void *from, const void *to) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), lo = (size_t)from / page, n = 0;
  size_t pages = ((size_t)to + page - 1) / page - lo;
  unsigned char *in = calloc(pages, 1);
  ck_assert_int_eq(mincore((void *)(lo * page), pages * page, in), 0);
  for (size_t i = 0; i < pages; i++)
    n += in[i] & 1;
  free(in);
  return pages - n;
}

/* Every page of a product's weights, whatever the number of threads. */
START_TEST(weights_are_touched) {
  static const int threads[] = {1, 3, 7};
  make_blobs(WIDE_QWEN, bf16, 1);
  write_single();
  pf_model *m = load(NULL);
  const pf_layer *l = m->layers;
  const pf_mat *w[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down, &m->unembed};
  for (int t = 0; t < 3; t++) {
    /* Small pages, so that a page that was left out is seen. */
    ck_assert_int_eq(madvise(m->arena, m->arena_bytes, MADV_NOHUGEPAGE), 0);
    ck_assert_int_eq(madvise(m->arena, m->arena_bytes, MADV_DONTNEED), 0);
    pf_weights_touch(m, threads[t]);
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
      ck_assert_uint_eq(resident(w[i]->w, pf_mat_panel(w[i], pf_mat_panels(w[i]))), 0);
    for (size_t i = 0; i < m->arena_bytes; i += 64)
      ck_assert_int_eq(((char *)m->arena)[i], 0);
  }
  pf_model_close(m);
}
END_TEST

START_TEST(data_at_an_odd_offset) {
  make_blobs(TINY_QWEN, f32, 1);
  for (int pad = 0; pad < 4; pad++) {
    json_t *o = header(0, n_blobs);
    char *head = json_dumps(o, JSON_COMPACT), padded[8192];
    snprintf(padded, sizeof padded, "%s%*s", head, pad, "");
    write_head("model.safetensors", padded, 0, n_blobs);
    free(head);
    json_decref(o);
    pf_model *m = load(NULL);
    check_model(m, "F32");
    pf_model_close(m);
  }
}
END_TEST

/* ---- checksum cache, progress
 * -------------------------------------------------------------------- */

static void cache_file(char path[1024], bool must) {
  char cmd[600];
  snprintf(cmd, sizeof cmd, "ls %s/personaflow/weights-*.txt 2>/dev/null",
           getenv("XDG_CACHE_HOME"));
  FILE *f = popen(cmd, "r");
  path[0] = '\0';
  ck_assert_int_eq(fgets(path, 1024, f) != NULL, must);
  path[strcspn(path, "\n")] = '\0';
  pclose(f);
}

static void sha_now(char hex[65]) {
  pf_model *m = load(NULL);
  snprintf(hex, 65, "%s", pf_model_get_info(m)->weights_sha256);
  pf_model_close(m);
}

START_TEST(checksum_cache) {
  char path[1024], real[65], got[65], text[8192] = {0};
  make_blobs(TINY_QWEN, bf16, 1);
  write_single();
  sha_now(real);
  cache_file(path, true);
  FILE *f = fopen(path, "r+");
  size_t n = fread(text, 1, sizeof text - 1, f);
  text[n - 2] = text[n - 2] == '0'
                    ? '1'
                    : '0'; /* another digest of the last tensor: believed, so the cache is used */
  rewind(f);
  fwrite(text, 1, n, f);
  fclose(f);
  sha_now(got);
  ck_assert_str_ne(got, real);
  f = fopen(path, "a"); /* one byte more: not believed, and written anew */
  fputc('x', f);
  fclose(f);
  sha_now(got);
  ck_assert_str_eq(got, real);
  text[n - 2] = 'g'; /* no digest */
  f = fopen(path, "w");
  fwrite(text, 1, n, f);
  fclose(f);
  sha_now(got);
  ck_assert_str_eq(got, real);
  find("model.norm.weight")->data[0] ^= 1; /* another file: another key */
  write_single();
  sha_now(got);
  ck_assert_str_ne(got, real);
  expected_sha(real);
  ck_assert_str_eq(got, real);
}
END_TEST

START_TEST(checksum_without_a_cache) {
  char path[1024], got[65], real[65];
  make_blobs(TINY_QWEN, bf16, 1);
  write_single();
  tmp_text(dir, "file", "");
  snprintf(path, sizeof path, "%s/file", dir);
  setenv("XDG_CACHE_HOME", path, 1); /* a file: nothing can be made in it */
  sha_now(got);
  expected_sha(real);
  ck_assert_str_eq(got, real);
}
END_TEST

typedef struct seen {
  uint64_t calls, done, total;
} seen;

static void on_progress(void *user, const char *what, uint64_t done, uint64_t total) {
  seen *s = user;
  ck_assert_str_eq(what, "loading");
  ck_assert(done >= s->done && done <= total);
  *s = (seen){s->calls + 1, done, total};
}

START_TEST(progress_reaches_the_end) {
  seen s = {0};
  make_blobs(WIDE_QWEN, bf16, 1);
  write_single();
  pf_model *m = load(&(pf_model_opts){.progress = on_progress, .progress_user = &s, .threads = 2});
  ck_assert_uint_ge(s.calls, 4);
  ck_assert_uint_eq(s.done, pf_model_get_info(m)->weight_bytes);
  ck_assert_uint_eq(s.total, s.done);
  pf_model_close(m);
}
END_TEST

/* ---- files that must be refused
 * ------------------------------------------------------------------ */

static void refused_as(int status, const char *says, const char *label) {
  pf_model *m = (pf_model *)&m;
  int rc = pf_model_open(&m, dir, NULL);
  const char *line = pf_last_error();
  ck_assert_msg(rc == status, "%s: status %d (%s)", label, rc, rc ? line : "accepted");
  ck_assert_ptr_null(m);
  ck_assert_msg(strstr(line, says) != NULL, "%s: %s", label, line);
  ck_assert_msg(strstr(line, dir) != NULL, "%s: names no file: %s", label, line);
  ck_assert_msg(!strchr(line, '\n'), "%s", line);
}

static void refused(const char *says, const char *label) {
  refused_as(PF_EINPUT, says, label);
}

#define NORM "model.norm.weight" /* the last tensor of the file: 8 values, 16 bytes */
static const struct {
  const char *tensor, *patch, *says;
} bad_entries[] = {
    {NORM, "{\"shape\":[9]}", NORM ": its extent"},
    {NORM, "{\"shape\":[7]}", "extent"},
    {NORM, "{\"shape\":[-8]}", "natural number"},
    {NORM, "{\"shape\":[8.0]}", "natural number"},
    {NORM, "{\"shape\":[4611686018427387904,4611686018427387904]}", "larger than any memory"},
    {NORM, "{\"shape\":[4294967296,4294967296,2,0]}", "larger than any memory"},
    {NORM, "{\"shape\":\"8\"}", "shape is not a list"},
    {NORM, "{\"shape\":null}", "shape is not a list"},
    {NORM, "{\"shape\":[1,1,1,1,1,1,1,1,8]}", "at most 8"},
    {NORM, "{\"shape\":[]}", "extent"},
    {NORM, "{\"shape\":[4,2]}", "has shape [4,2], the configuration asks for [8]"},
    {NORM, "{\"shape\":[8,1]}", "has shape [8,1]"},
    {"model.embed_tokens.weight", "{\"shape\":[8,19]}",
     "has shape [8,19], the configuration asks for [19,8]"},
    {"model.embed_tokens.weight", "{\"shape\":[152]}", "has shape [152]"},
    {NORM, "{\"dtype\":\"Q4_0\"}", "unknown dtype 'Q4_0'"},
    {NORM, "{\"dtype\":5}", "no dtype"},
    {NORM, "{\"dtype\":\"I16\"}", "dtype I16"},
    {NORM, "{\"dtype\":\"F32\"}", "extent"},
    {NORM, "{\"data_offsets\":[0,16]}", "overlaps"},
    {NORM, "{\"data_offsets\":[16,0]}", "backwards"},
    {NORM, "{\"data_offsets\":[-16,0]}", "data_offsets are not"},
    {NORM, "{\"data_offsets\":[0]}", "data_offsets are not"},
    {NORM, "{\"data_offsets\":[0,8,16]}", "data_offsets are not"},
    {NORM, "{\"data_offsets\":[\"0\",16]}", "data_offsets are not"},
    {NORM, "{\"data_offsets\":[1000000,1000016]}", "truncated"},
    {NORM, "{\"data_offsets\":[0,9223372036854775807]}", "truncated"},
    {NORM, "{\"data_offsets\":null}", "data_offsets are not"},
    {"__metadata__", "{\"format\":3}", "__metadata__"},
};

START_TEST(bad_header_entries) {
  make_blobs(TINY_QWEN, bf16, 1);
  for (size_t i = 0; i < sizeof bad_entries / sizeof *bad_entries; i++) {
    json_t *o = header(0, n_blobs), *p = json_loads(bad_entries[i].patch, 0, NULL);
    ck_assert_ptr_nonnull(p);
    json_object_update(json_object_get(o, bad_entries[i].tensor), p);
    json_decref(p);
    write_json("model.safetensors", o, 0, n_blobs);
    refused(bad_entries[i].says, bad_entries[i].patch);
  }
}
END_TEST

START_TEST(bad_header_texts) {
  static const struct {
    const char *text, *says;
  } t[] = {
      {"{ ", "invalid JSON"},
      {"not JSON", "invalid JSON"},
      {"[]", "not a JSON object"},
      {"{}", "follow the last tensor"},
      {"{\"a\":[]}", "not described by an object"},
      {"{\"__metadata__\":[]}", "__metadata__"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
       "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
       "duplicate"},
      {"{\"\xff\xfe\":1}", "invalid JSON"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1e999],\"data_offsets\":[0,0]}}", "invalid JSON"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}",
       "model.safetensors: "},
  };
  make_blobs(TINY_QWEN, bf16, 1);
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    write_head("model.safetensors", t[i].text, 0, n_blobs);
    refused(t[i].says, t[i].text);
  }
}
END_TEST

/* Deep nesting must not use up the stack. */
START_TEST(deep_header) {
  enum { N = 200000 };
  char *s = pf_alloc(N + 1, 1);
  memset(s, '[', N);
  s[N] = '\0';
  make_blobs(TINY_QWEN, bf16, 1);
  write_head("model.safetensors", s, 0, 0);
  refused("invalid JSON", "deep header");
  pf_free(s);
}
END_TEST

START_TEST(bad_lengths) {
  pf_buf b;
  json_t *o = NULL;
  make_blobs(TINY_QWEN, bf16, 1);
  o = header(0, n_blobs);
  char *head = json_dumps(o, JSON_COMPACT);
  file_bytes(&b, head, 0, n_blobs);
  for (size_t n = 0; n < b.n; n += n < 16 || n > b.n - 40 ? 1 : 37) { /* every kind of cut */
    tmp_write(dir, "model.safetensors", b.s, n);
    refused("safetensors", "cut file");
  }
  for (size_t k = 1; k < 9; k++) {
    tmp_write(dir, "model.safetensors", b.s, 8 + strlen(head) - k);
    refused("truncated", "cut header");
  }
  tmp_write(dir, "model.safetensors", b.s, b.n);
  pf_model_close(load(NULL));
  static const struct {
    uint64_t len;
    const char *says;
  } lens[] = {{0, "not possible"},
              {1, "not possible"},
              {100000001, "not possible"},
              {UINT64_MAX, "not possible"},
              {UINT64_C(1) << 63, "not possible"},
              {99999999, "truncated"},
              {UINT64_C(0x206e6f6973726576), "Git LFS"}};
  for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
    memcpy(b.s, &lens[i].len, 8);
    tmp_write(dir, "model.safetensors", b.s, b.n);
    refused(lens[i].says, "header length");
  }
  uint64_t n = strlen(head);
  memcpy(b.s, &n, 8);
  pf_buf_add(&b, "x", 1);
  tmp_write(dir, "model.safetensors", b.s, b.n);
  refused("follow the last tensor", "one byte too many");
  pf_buf_free(&b);
  free(head);
  json_decref(o);
}
END_TEST

/* ---- sets of tensors
 * ----------------------------------------------------------------------------- */

static void drop_blob(const char *name) {
  blob *b = find(name);
  pf_free(b->data);
  memmove(b, b + 1, (size_t)(blobs + n_blobs - b - 1) * sizeof *b);
  n_blobs--;
}

START_TEST(tensors_that_do_not_belong) {
  make_blobs(TINY_QWEN, bf16, 1);
  add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 3, 0);
  write_single();
  pf_model_close(load(NULL)); /* harmless */
  add("model.layers.1.mlp.up_proj.weight", "BF16", 10, 8);
  write_single();
  refused("tensor model.layers.1.mlp.up_proj.weight does not belong", "a layer too many");
  drop_blob("model.layers.1.mlp.up_proj.weight");
  drop_blob("model.layers.0.self_attn.k_proj.bias");
  write_single();
  refused("tensor model.layers.0.self_attn.k_proj.bias is missing", "a bias too few");

  make_blobs(TINY_GEMMA, bf16, 1);
  drop_blob("lm_head.weight");
  write_single();
  refused("tensor lm_head.weight is missing", "untied");
}
END_TEST

/* Some files of tied models hold the unembedding too, or in the place of the embedding. */
START_TEST(tied_models_with_an_unembedding) {
  make_blobs(TINY_QWEN, bf16, 1);
  blob *embed = find("model.embed_tokens.weight");
  blob *head = add("lm_head.weight", "BF16", 19, 8);
  memcpy(head->data, embed->data, head->bytes);
  write_single();
  pf_model_close(load(NULL));
  head->data[head->bytes - 2] ^= 1;
  write_single();
  refused("tensor lm_head.weight differs from model.embed_tokens.weight", "one bit");
  head->data[head->bytes - 2] ^= 1;
  head->rows = 18;
  head->n = head->rows * 8;
  head->bytes = head->n * 2;
  write_single();
  refused("tensor lm_head.weight differs from model.embed_tokens.weight", "a row too few");

  make_blobs(TINY_QWEN, bf16, 1);
  write_single();
  pf_model *m = load(NULL);
  char sha[65];
  strcpy(sha, pf_model_get_info(m)->weights_sha256);
  pf_model_close(m);
  strcpy(find("model.embed_tokens.weight")->name, "lm_head.weight");
  write_single();
  m = load(NULL);
  ck_assert_str_eq(pf_model_get_info(m)->weights_sha256, sha);
  pf_model_close(m);
}
END_TEST

START_TEST(values_that_are_not_finite) {
  static const struct {
    const char *dtype;
    uint32_t bits;
  } bad[] = {{"BF16", 0x7f80}, {"BF16", 0xff80},    {"BF16", 0x7fc1},   {"F16", 0x7c00},
             {"F16", 0xfe00},  {"F32", 0x7f800000}, {"F32", 0xff800001}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    make_blobs(TINY_QWEN, &bad[i].dtype, 1);
    size_t es = size_of(bad[i].dtype);
    memcpy(find("model.layers.0.mlp.down_proj.weight")->data + (3 * 10 + 9) * es, &bad[i].bits, es);
    write_single();
    refused("model.layers.0.mlp.down_proj.weight: element [3,9] is NaN or infinite", bad[i].dtype);
    make_blobs(TINY_QWEN, &bad[i].dtype, 1);
    memcpy(find(NORM)->data + 7 * es, &bad[i].bits, es);
    write_single();
    refused(NORM ": element [7] is NaN or infinite", bad[i].dtype);
  }
  make_blobs(WIDE_QWEN, bf16, 1); /* far into a tensor that is read in blocks */
  memcpy(find("model.embed_tokens.weight")->data + ((size_t)17010 * 555 + 554) * 2, "\x80\x7f", 2);
  write_single();
  refused("element [17010,554] is NaN or infinite", "last element");
  static const struct {
    size_t row, col;
    const char *line; /* in a tile of 16 x 32 values; in the words behind the last tile */
  } inside[] = {
      {5, 0, "element [5,0] "}, {4094, 301, "element [4094,301] "}, {16, 545, "element [16,545] "}};
  for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
    make_blobs(WIDE_QWEN, bf16, 1);
    memcpy(find("model.embed_tokens.weight")->data + (inside[i].row * 555 + inside[i].col) * 2,
           "\x80\xff", 2);
    write_single();
    refused(inside[i].line, "inside");
  }
}
END_TEST

START_TEST(no_weights) {
  tmp_text(dir, "config.json", TINY_QWEN);
  refused("no weights", "empty folder");
  tmp_text(dir, "pytorch_model.bin", "x");
  refused("safetensors", "pickle only");
  char path[512];
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  ck_assert_int_eq(mkdir(path, 0777), 0);
  refused("not a file", "a folder");
  rmdir(path);
  ck_assert_int_eq(mkfifo(path, 0666), 0);
  refused("not a file", "a FIFO");
}
END_TEST

/* ---- indexes
 * ------------------------------------------------------------------------------------- */

static void with_shard_name(const char *shard, const char *says) {
  json_t *map;
  write_shards(&map);
  json_object_set_new(map, NORM, json_string(shard));
  write_index(map);
  refused(says, shard);
}

START_TEST(bad_shard_names) {
  make_blobs(TINY_QWEN, bf16, 1);
  with_shard_name("../b.safetensors", "not the name of a file beside it");
  with_shard_name("/etc/passwd", "not the name of a file beside it");
  with_shard_name("sub/b.safetensors", "not the name of a file beside it");
  with_shard_name("..", "not the name of a file beside it");
  with_shard_name(".hidden", "not the name of a file beside it");
  with_shard_name("", "not the name of a file beside it");
  with_shard_name("c.safetensors", "cannot open");
  with_shard_name("a.safetensors", NORM " is not in a.safetensors");
  with_shard_name("cache", "cannot open");
  tmp_text(dir, "cache/x", "");
  with_shard_name("cache", "not a file");
}
END_TEST

START_TEST(bad_indexes) {
  static const struct {
    const char *text, *says;
  } t[] = {{"", "invalid JSON"},
           {"[]", "no weight_map"},
           {"{}", "no weight_map"},
           {"{\"weight_map\":[]}", "no weight_map"},
           {"{\"weight_map\":{}}", "names 0 files"},
           {"{\"weight_map\":{\"x\":1}}", "not the name of a file"},
           {"{\"weight_map\":{\"" NORM "\":\"b.safetensors\"}}", "which the index does not say"}};
  json_t *map;
  make_blobs(TINY_QWEN, bf16, 1);
  write_shards(&map);
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    tmp_text(dir, "model.safetensors.index.json", t[i].text);
    refused(t[i].says, t[i].text);
  }
  json_object_set_new(map, "model.extra", json_string("a.safetensors"));
  write_index(map);
  refused("model.extra is not in a.safetensors", "a tensor that no file has");

  write_shards(&map); /* the same tensor in both files */
  size_t half = n_blobs / 2;
  json_t *o = header(half - 1, n_blobs);
  write_json("b.safetensors", o, half - 1, n_blobs);
  write_index(map);
  refused("which the index does not say", "a tensor twice");
}
END_TEST

/* ---- reads in flight
 * ----------------------------------------------------------------------------- */

static void read_pieces(int fd, const unsigned char *want, size_t n) {
  enum { DEPTH = 4, PIECE = 1000 };
  static char bufs[DEPTH][PIECE];
  pf_aio_req r[DEPTH] = {{0}};
  pf_aio *a;
  ck_assert_int_eq(pf_aio_open(&a, DEPTH), PF_OK);
  for (size_t at = 0, i = 0; at < n + DEPTH * PIECE; at += PIECE, i++) {
    pf_aio_req *q = &r[i % DEPTH];
    if (i >= DEPTH) {
      ck_assert_int_eq(pf_aio_wait(a, q), PF_OK);
      ck_assert_mem_eq(q->buf, want + q->off, q->need);
    }
    if (at < n) {
      *q = (pf_aio_req){.fd = fd,
                        .buf = bufs[i % DEPTH],
                        .n = PIECE,
                        .off = at,
                        .need = n - at < PIECE ? n - at : PIECE};
      pf_aio_submit(a, q);
    }
  }
  r[0] = (pf_aio_req){.fd = fd, .buf = bufs[0], .n = PIECE, .off = n - 10, .need = 11};
  pf_aio_submit(a, &r[0]);
  ck_assert_int_eq(pf_aio_wait(a, &r[0]), PF_EIO); /* beyond the end */
  ck_assert(r[0].err == 0 && r[0].got == 10);
  r[1] = (pf_aio_req){.fd = -1, .buf = bufs[1], .n = PIECE, .need = 1};
  pf_aio_submit(a, &r[1]);
  ck_assert_int_eq(pf_aio_wait(a, &r[1]), PF_EIO);
  ck_assert_int_eq(r[1].err, EBADF);
  r[2] = (pf_aio_req){.fd = fd, .buf = bufs[2], .n = PIECE, .need = PIECE};
  pf_aio_submit(a, &r[2]); /* closing waits for it */
  pf_aio_close(a);
}

START_TEST(reads_in_flight) {
  static const char *const ways[] = {"", "uring", "pread"};
  unsigned char data[12345];
  char path[512];
  for (size_t i = 0; i < sizeof data; i++)
    data[i] = (unsigned char)(i * 31 >> 3);
  tmp_write(dir, "data", data, sizeof data);
  snprintf(path, sizeof path, "%s/data", dir);
  int fd = open(path, O_RDONLY);
  for (int i = 0; i < 3; i++) {
    pf_aio *a;
    setenv("PERSONAFLOW_IO", ways[i], 1);
    if (pf_aio_open(&a, 1) == PF_OK) {
      pf_aio_close(a);
      read_pieces(fd, data, sizeof data);
    } else {
      fprintf(stderr, "check_weights: SKIPPED %s: %s\n", ways[i], pf_last_error());
      ck_assert_int_eq(i, 1);
    }
  }
  close(fd);
  setenv("PERSONAFLOW_IO", "mmap", 1);
  pf_aio *a = NULL;
  ck_assert_int_eq(pf_aio_open(&a, 1), PF_EENV);
  ck_assert_ptr_null(a);
}
END_TEST

/* A ring needs a file descriptor: without one to be had, pread takes its place. */
START_TEST(pread_where_there_is_no_ring) {
  struct rlimit old, none;
  pf_aio *a;
  getrlimit(RLIMIT_NOFILE, &old);
  none = old;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_NOFILE, &none);
  int rc = pf_aio_open(&a, 4);
  setenv("PERSONAFLOW_IO", "uring", 1);
  pf_aio *b;
  int forced = pf_aio_open(&b, 4);
  setrlimit(RLIMIT_NOFILE, &old);
  ck_assert_int_eq(rc, PF_OK);
  ck_assert_str_eq(pf_aio_kind(a), "pread");
  ck_assert_int_eq(forced, PF_EENV);
  pf_aio_close(a);
}
END_TEST

int main(void) {
  Suite *s = suite_create("weights");
  TCase *t = tcase_create("weights");
  tcase_set_timeout(t, 600);
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_loop_test(t, packed_as_published, 0, N_KINDS);
  tcase_add_loop_test(t, packed_for_a_precision, 0, 2 * N_SMALL_KINDS);
  tcase_add_test(t, too_large_for_bf16);
  tcase_add_test(t, weights_of_two_kinds_run);
  tcase_add_test(t, int8_that_nobody_made);
  tcase_add_test(t, int8_of_another_group);
  tcase_add_test(t, long_matrices_are_written);
  tcase_add_test(t, all_ways_give_the_same_bytes);
  tcase_add_test(t, nodes_are_counted);
  tcase_add_test(t, weights_are_touched);
  tcase_add_test(t, data_at_an_odd_offset);
  tcase_add_test(t, checksum_cache);
  tcase_add_test(t, checksum_without_a_cache);
  tcase_add_test(t, progress_reaches_the_end);
  tcase_add_test(t, bad_header_entries);
  tcase_add_test(t, bad_header_texts);
  tcase_add_test(t, deep_header);
  tcase_add_test(t, bad_lengths);
  tcase_add_test(t, tensors_that_do_not_belong);
  tcase_add_test(t, tied_models_with_an_unembedding);
  tcase_add_test(t, values_that_are_not_finite);
  tcase_add_test(t, no_weights);
  tcase_add_test(t, bad_shard_names);
  tcase_add_test(t, bad_indexes);
  tcase_add_test(t, reads_in_flight);
  tcase_add_test(t, pread_where_there_is_no_ring);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_FORK_GETENV);
}
