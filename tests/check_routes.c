/* SPDX-License-Identifier: Apache-2.0
 * Attention wired by hand, so that the route from the persona to the answer is known: read directly
 * by p_last and the answer's tokens; only through a later token of the prompt; or both ways. The
 * study must find it: (c_D, c_I) = (1,0), (0,1), (1,1), the transplants, the head, the
 * token and its layer. */
#include "config.h"

#include <math.h>
#include <stdbool.h>

#include "base/js.h"
#include "fixture.h"
#include "personaflow/personaflow.h"
#include "tests/suite.h"
#include "tests/util.h"
#include "tmpdir.h"

#define DONOR "data/models/demo-qwen2" /* its tokenizer and chat format */

/* Three layers of two query heads of 64 that share a K,V head. */
enum { D = 128, HEADS = 2, HEAD = 64, INNER = 16, LAYERS = 3, WRITE_LAYER = 0, READ_LAYER = 2 };
enum { WRITE_HEAD = 0, READ_HEAD = 1, PERSONAS = 2 };
/* Directions of the residual stream. */
enum {
  VALUE,
  FLAG = 8,
  WRITER,
  READER,
  REST_KEY,
  WRITTEN = 16,
  WRITTEN_FLAG = 24,
  OUT = 32,
  FILL = 40
};
/* RoPE turns these pairs by 1.5e-6 and 2.4e-6 a position: as good as not at all. */
enum { MATCH = HEAD / 2 - 1, REST = HEAD / 2 - 2 };

typedef enum route { DIRECT, INDIRECT, REDUNDANT, N_ROUTES } route;
static const struct {
  const char *name, *kind;
  bool reads, writes; /* the persona's keys; through a token of the prompt */
  double c_d, c_i;
} routes[N_ROUTES] = {{"direct", "direct", true, false, 1, 0},
                      {"indirect", "indirect", false, true, 0, 1},
                      {"redundant", "redundant", true, true, 1, 1}};

static const char grid[] =
    "{\"schema\": \"personaflow-grid/1\", \"name\": \"routes\", \"template\": \"As {persona}, "
    "{task}\","
    " \"baseline\": {\"persona\": \"a thoughtful person\", \"task\": \"Give advice to someone "
    "facing a"
    " difficult decision.\"},"
    " \"personas\": [{\"key\": \"p0\", \"text\": \"a pirate\"}, {\"key\": \"p1\", \"text\": \"a "
    "beekeeper\"}],"
    " \"tasks\": [{\"key\": \"t0\", \"text\": \"Review this idea: closing the old bridge.\"},"
    " {\"key\": \"t1\", \"text\": \"Write a haiku about Monday mornings.\"}]}";

/* ---- the checkpoint -------------------------------------------------------------------------- */

typedef struct ckpt {
  pf_tensor t[64];
  size_t n;
  float *embed, *unembed;
  size_t vocab;
} ckpt;

static float *add(ckpt *c, const char *name, size_t rows, size_t cols) {
  pf_tensor *t = &c->t[c->n++];
  *t = (pf_tensor){.name = strdup(name), .n_dims = cols ? 2 : 1, .dims = {rows, cols}};
  return t->data = calloc(rows * (cols ? cols : 1), sizeof(float));
}

static float *add_layer(ckpt *c, int layer, const char *name, size_t rows, size_t cols) {
  char full[128];
  snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
  return add(c, full, rows, cols);
}

static void ones(float *x) {
  for (int i = 0; i < D; i++)
    x[i] = 1;
}

/* A query head whose `from` tokens look for keys with `flags`, and all others at the first token of
 * a turn, which has nothing to say. `from` and flags: a normalised direction is about 5. */
static void wire(ckpt *c, int layer, int head, int from, const int *flags, int n_flags,
                 const int *values, const int *to, int n_values) {
  float *q = add_layer(c, layer, "self_attn.q_proj.weight", HEADS * HEAD, D),
        *q_bias = add_layer(c, layer, "self_attn.q_proj.bias", HEADS * HEAD, 0),
        *k = add_layer(c, layer, "self_attn.k_proj.weight", HEAD, D),
        *v = add_layer(c, layer, "self_attn.v_proj.weight", HEAD, D),
        *o = add_layer(c, layer, "self_attn.o_proj.weight", D, HEADS * HEAD);
  add_layer(c, layer, "self_attn.k_proj.bias", HEAD, 0);
  add_layer(c, layer, "self_attn.v_proj.bias", HEAD, 0);
  for (int h = 0; h < HEADS; h++)
    q_bias[h * HEAD + REST] = 10;
  k[REST * D + REST_KEY] = 10;
  for (int i = 0; i < n_flags; i++) {
    q[(head * HEAD + MATCH) * D + from] = 10;
    k[MATCH * D + flags[i]] = 10;
  }
  for (int i = 0; i < n_values; i++) {
    v[i * D + values[i]] = 0.2f;
    o[to[i] * HEADS * HEAD + head * HEAD + i] = 1;
  }
}

static void layer(ckpt *c, int l, route r) {
  int write[PERSONAS + 1], written[PERSONAS + 1], read[2 * PERSONAS], out[2 * PERSONAS];
  for (int p = 0; p < PERSONAS; p++) {
    write[p] = read[p] = VALUE + p;
    written[p] = read[PERSONAS + p] = WRITTEN + p;
    out[p] = out[PERSONAS + p] = OUT + p;
  }
  write[PERSONAS] = FLAG;
  written[PERSONAS] = WRITTEN_FLAG;
  const int flag[] = {FLAG}, read_flags[] = {FLAG, WRITTEN_FLAG};
  ones(add_layer(c, l, "input_layernorm.weight", D, 0));
  ones(add_layer(c, l, "post_attention_layernorm.weight", D, 0));
  add_layer(c, l, "mlp.gate_proj.weight", INNER, D);
  add_layer(c, l, "mlp.up_proj.weight", INNER, D);
  add_layer(c, l, "mlp.down_proj.weight", D, INNER);
  if (l == WRITE_LAYER && routes[r].writes)
    wire(c, l, WRITE_HEAD, WRITER, flag, 1, write, written, PERSONAS + 1);
  else if (l == READ_LAYER)
    wire(c, l, READ_HEAD, READER, routes[r].reads ? read_flags : read_flags + 1,
         routes[r].reads && routes[r].writes ? 2 : 1, read, out, 2 * PERSONAS);
  else
    wire(c, l, 0, 0, NULL, 0, NULL, NULL, 0);
}

/* Every token's vector is as long as the others'. */
static void fill(ckpt *c) {
  for (size_t t = 0; t < c->vocab; t++) {
    float *e = c->embed + t * D, n = 0;
    for (int i = 0; i < FILL; i++)
      n += e[i] * e[i];
    e[FILL] = sqrtf(8 - n);
  }
}

static bool has(const pf_encoding *e, int32_t id) {
  for (size_t i = 0; i < e->n; i++)
    if (e->ids[i] == id)
      return true;
  return false;
}

/* Tokens that only the persona's text has carry its value; the header's last but one writes; the
 * prompt's last and the answer's (one word for each persona) read. */
static void vocabulary(ckpt *c, const pf_tok *tok) {
  static const char *const texts[PERSONAS] = {"a pirate", "a beekeeper"},
                           *const other = "Give advice to someone facing a difficult decision.";
  pf_role_prompt base, own[PERSONAS];
  ck_assert(pf_role_prompt_make(tok, "As {persona}, {task}", "a thoughtful person", other, &base) ==
            PF_OK);
  for (int p = 0; p < PERSONAS; p++)
    ck_assert(pf_role_prompt_make(tok, "As {persona}, {task}", texts[p], other, &own[p]) == PF_OK);
  size_t n = base.enc.n;
  for (int p = 0; p < PERSONAS; p++) {
    size_t flagged = 0;
    for (size_t i = 0; i < own[p].enc.n; i++) {
      int32_t id = own[p].enc.ids[i];
      if (has(&base.enc, id) || has(&own[1 - p].enc, id))
        continue;
      c->embed[id * D + FLAG] = c->embed[id * D + VALUE + p] = 1;
      flagged++;
    }
    ck_assert_msg(flagged > 0, "%s: no token of its own", texts[p]);
    int32_t word = 100 + p; /* pieces that no prompt here has */
    ck_assert(!has(&own[p].enc, word) && !has(&base.enc, word));
    c->embed[word * D + READER] = 1;
    c->unembed[word * D + OUT + p] = 40;
    pf_role_prompt_free(&own[p]);
  }
  c->embed[base.enc.ids[0] * D + REST_KEY] = 1;
  c->embed[base.enc.ids[n - 2] * D + WRITER] = 1;
  c->embed[base.enc.ids[n - 1] * D + READER] = 1;
  pf_role_prompt_free(&base);
}

static void write_config(const char *dir, size_t vocab) {
  char text[1024];
  snprintf(text, sizeof text,
           "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_act\": "
           "\"silu\","
           " \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d,"
           " \"num_attention_heads\": %d, \"num_key_value_heads\": 1, \"rms_norm_eps\": 1e-6,"
           " \"rope_theta\": 1000000.0, \"max_position_embeddings\": 1024, "
           "\"tie_word_embeddings\": false,"
           " \"vocab_size\": %zu, \"torch_dtype\": \"float32\", \"eos_token_id\": 2306}",
           D, INNER, LAYERS, HEADS, vocab);
  tmp_text(dir, "m/config.json", text);
}

static void make_model(const char *dir, route r) {
  ckpt c = {0};
  pf_tok *tok;
  char path[512];
  tmp_copy(dir, "m/tokenizer.json", src_path(DONOR "/tokenizer.json"));
  tmp_copy(dir, "m/tokenizer_config.json", src_path(DONOR "/tokenizer_config.json"));
  ck_assert_msg(pf_tok_open(&tok, src_path(DONOR)) == PF_OK, "%s", pf_last_error());
  c.vocab = 2307;
  write_config(dir, c.vocab);
  c.embed = add(&c, "model.embed_tokens.weight", c.vocab, D);
  c.unembed = add(&c, "lm_head.weight", c.vocab, D);
  ones(add(&c, "model.norm.weight", D, 0));
  for (int l = 0; l < LAYERS; l++)
    layer(&c, l, r);
  vocabulary(&c, tok);
  fill(&c);
  snprintf(path, sizeof path, "%s/m/model.safetensors", dir);
  ck_assert_msg(pf_safetensors_write(path, c.t, c.n, NULL) == PF_OK, "%s", pf_last_error());
  for (size_t i = 0; i < c.n; i++) {
    free(c.t[i].name);
    free(c.t[i].data);
  }
  pf_tok_close(tok);
}

/* ---- what the study says of it --------------------------------------------------------------- */

static const char *member(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return s ? s : "";
}

static bool is(const json_t *row, const char *condition, const char *ablation) {
  return !strcmp(member(row, "condition"), condition) &&
         !strcmp(member(row, "ablation"), ablation) && !json_object_get(row, "profile");
}

/* Every cell's record of a condition has this closure. */
static void closure(const json_t *rows, const char *condition, const char *ablation, double want) {
  const json_t *row;
  size_t i, n = 0;
  json_array_foreach(rows, i, row) {
    if (!is(row, condition, ablation))
      continue;
    double got = fixture_number(row, "closure");
    ck_assert_msg(fabs(got - want) < 1e-6, "%s %s: closure %.9g, planted is %g", condition,
                  ablation, got, want);
    n++;
  }
  ck_assert_msg(n == 4, "%zu records of %s %s", n, condition, ablation);
}

/* Of a direct route: cutting the reader's reads costs all, any other head's nothing. */
static void heads(const json_t *rows) {
  const json_t *o;
  size_t i, n = 0;
  json_array_foreach(rows, i, o) {
    if (strcmp(member(o, "condition"), "head") != 0 || strcmp(member(o, "edge"), "bc") != 0)
      continue;
    double layer = fixture_number(o, "layer"), head = fixture_number(o, "head"),
           kl = fixture_number(o, "kl");
    bool costs = layer == READ_LAYER && head == READ_HEAD;
    ck_assert_msg(costs ? kl > 10 : kl < 1e-6, "layer %g, head %g: KL %g", layer, head, kl);
    n++;
  }
  ck_assert_uint_eq(n, 4 * LAYERS * HEADS);
}

static const json_t *of_token(const json_t *rows, const json_t *like) {
  const json_t *o;
  size_t i;
  json_array_foreach(rows, i, o) {
    if (!strcmp(member(o, "condition"), "token") &&
        !strcmp(member(o, "persona"), member(like, "persona")) &&
        !strcmp(member(o, "task"), member(like, "task")) &&
        json_equal(json_object_get(o, "tokens"), json_object_get(like, "tokens")))
      return o;
  }
  ck_abort_msg("no record of the token alone");
}

/* Of a direct route: a token of the persona cut in the reader's layer alone costs what it costs cut
 * in all, in any other layer nothing. */
static void token_layers(const json_t *rows) {
  const json_t *o;
  size_t i, n = 0, tokens = 0, needed = 0;
  json_array_foreach(rows, i, o) {
    tokens += !strcmp(member(o, "condition"), "token");
    if (strcmp(member(o, "condition"), "token_layer") != 0)
      continue;
    double layer = fixture_number(o, "layer"), kl = fixture_number(o, "kl"),
           all = fixture_number(of_token(rows, o), "kl"), want = layer == READ_LAYER ? all : 0;
    ck_assert_msg(fabs(kl - want) < 1e-6, "\"%s\", layer %g: KL %g, in all layers %g",
                  member(o, "text"), layer, kl, all);
    needed += kl > 10;
    n++;
  }
  ck_assert_uint_eq(n, tokens * LAYERS);
  ck_assert(needed > 0);
}

static void verdict(const char *out, route r) {
  char path[512];
  const json_t *f;
  size_t i, n = 0;
  snprintf(path, sizeof path, "%s/findings.json", out);
  json_t *all;
  ck_assert_msg(pf_js_file(path, 1 << 24, &all) == PF_OK, "%s", pf_last_error());
  json_array_foreach(json_object_get(all, "findings"), i, f) {
    if (strcmp(member(f, "id"), "H5") != 0)
      continue;
    ck_assert_str_eq(member(f, "kind"), routes[r].kind);
    ck_assert_msg(!strcmp(member(f, "verdict"), "supported") == (r == DIRECT), "%s",
                  member(f, "line"));
    n++;
  }
  ck_assert_uint_eq(n, 3); /* by each ablation, and of both */
  json_decref(all);
}

START_TEST(the_route_is_found) {
  static const char *const ablations[] = {"mask", "counterfactual"};
  char dir[256], model[300], file[300], out[300];
  route r = (route)_i;
  bool with_heads = r == DIRECT && !tu_tier("small");
  tmp_make(dir);
  make_model(dir, r);
  tmp_text(dir, "grid.json", grid);
  snprintf(model, sizeof model, "%s/m", dir);
  snprintf(file, sizeof file, "%s/grid.json", dir);
  snprintf(out, sizeof out, "%s/study", dir);
  pf_study_opts o = {.model = model,
                     .grid = file,
                     .only = with_heads ? "y,D1,D2,D3" : "y,D1,D2",
                     .out_dir = out,
                     .threads = 1};
  ck_assert_msg(pf_study_run(&o) == PF_OK, "%s", pf_last_error());
  json_t *d1 = fixture_rows(out, "D1.jsonl"), *d2 = fixture_rows(out, "D2.jsonl"), *d3;
  for (int i = 0; i < 2; i++) {
    closure(d1, "K2", ablations[i], routes[r].c_d);
    closure(d1, "K1", ablations[i], routes[r].c_i);
    closure(d1, "K3", ablations[i], 0);
  }
  closure(d2, "T1", "", routes[r].c_d);
  closure(d2, "T2", "", routes[r].c_i);
  closure(d2, "T3", "", 1);
  if (with_heads) {
    heads(d3 = fixture_rows(out, "D3.jsonl"));
    token_layers(d3);
    json_decref(d3);
  }
  json_decref(d1);
  json_decref(d2);
  verdict(out, r);
  tmp_remove(dir);
}
END_TEST

int main(void) {
  tu_use_source_data();
  Suite *s = suite_create("routes");
  TCase *t = tcase_create("planted");
  tcase_set_timeout(t, 0);
  tcase_add_loop_test(t, the_route_is_found, 0, tu_tier("small") ? 1 : N_ROUTES);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK) != 0;
}
