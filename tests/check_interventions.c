/* SPDX-License-Identifier: Apache-2.0
 * Intervention files: what is refused and with which line; what is bound does what taps, cuts and
 * swaps do, bit for bit. */
#include <math.h>

#include "model_util.h"
#include "tests/suite.h"

enum { LEN = 40 };

static pf_model *model;
static pf_ctx *ctx;

static void setup(void) {
  model = tu_open("tests/mini/g2-window");
  ctx = tu_ctx(model, 1);
}

static void teardown(void) {
  pf_ctx_free(ctx);
  pf_model_close(model);
}

static int parse(const char *items, pf_interventions **iv) {
  char text[2048];
  snprintf(text, sizeof text, "{\"schema\":\"personaflow-interventions/1\",\"interventions\":[%s]}",
           items);
  return pf_interventions_parse(iv, "test.json", text, strlen(text), model);
}

#define SOURCE(prompt) "{\"op\":\"swap_kv\",\"positions\":\"1\",\"source\":" prompt "}"

static const struct {
  const char *items, *line;
} refused[] = {
    {"", "non-empty list"},
    {"3", "not an object"},
    {"{\"op\":\"zap\"}", "\"op\" must be"},
    {"{\"op\":\"zero\"}", "\"site\" is missing"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_prr\"}", "the nearest are"},
    {"{\"op\":\"zero\",\"site\":\"blocks.9.hook_resid_pre\"}", "layers 0 to 3"},
    {"{\"op\":\"zero\",\"site\":\"blocks.*.hook_resid_pre\"}", "\"layers\" must be a list"},
    {"{\"op\":\"zero\",\"site\":\"blocks.*.hook_resid_pre\",\"layers\":[4]}", "0 to 3"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"layers\":[1]}", "needs a '*'"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"heads\":[0]}", "has no heads"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.attn.hook_z\",\"heads\":[4]}", "0 to 3"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"source\":\"x.npy\"}",
     "takes no \"source\""},
    {"{\"op\":\"replace\",\"site\":\"blocks.0.hook_resid_pre\"}", "\"source\" must be"},
    {"{\"op\":\"scale\",\"site\":\"blocks.0.hook_resid_pre\"}", "scale needs"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"phase\":\"later\"}",
     "\"phase\" must be"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"color\":1}", "unknown key 'color'"},
    {"{\"op\":\"knockout\"}", "\"positions\" (the keys) is missing"},
    {"{\"op\":\"knockout\",\"site\":\"blocks.0.hook_resid_pre\",\"positions\":\"1\"}",
     "take no \"site\""},
    {"{\"op\":\"swap_kv\",\"positions\":\"1\",\"source\":\"x.npy\"}", "needs a prompt object"},
    {"{\"op\":\"swap_kv\",\"positions\":\"1\",\"source\":{\"ids\":[1]},\"what\":\"q\"}",
     "kv, k or v"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"queries\":\"1\"}",
     "only knockout takes"},
    {"{\"op\":\"swap_kv\",\"positions\":\"1\",\"source\":{\"ids\":[1]},\"phase\":\"prompt\"}",
     "takes no \"phase\""},
    {"{\"op\":\"zero\",\"site\":\"blocks.*.hook_resid_pre\",\"layers\":[3,1,3]}",
     "\"layers\": 3 stands there twice"},
    {"{\"op\":\"knockout\",\"positions\":\"1\",\"heads\":[0,0]}", "\"heads\": 0 stands"},
    {"{\"op\":\"scale\",\"site\":\"blocks.0.hook_resid_pre\",\"scale\":1e300}", "too large for"},
    {"{\"op\":\"scale\",\"site\":\"blocks.0.hook_resid_pre\",\"scale\":-3.5e38}", "too large"},
    {"{\"op\":\"zero\",\"site\":\"hook_embed\"}],\"phase\":\"prompt\",\"note\":[1",
     "unknown key 'phase'"},
    {SOURCE("{}"), "a source prompt is"},
    {SOURCE("{\"ids\":[]}"), "non-empty list"},
    {SOURCE("{\"ids\":3}"), "non-empty list"},
    {SOURCE("{\"ids\":[1,2.5]}"), "whole numbers"},
    {SOURCE("{\"ids\":[1,-1]}"), "-1 is not in the vocabulary"},
    {SOURCE("{\"ids\":[4294967297,2]}"), "4294967297 is not in the vocabulary"},
    {SOURCE("{\"ids\":[999999,2]}"), "999999 is not in the vocabulary"},
    {SOURCE("{\"ids\":[1],\"color\":1}"), "\"source\": unknown key 'color'"},
    {SOURCE("{\"ids\":[1],\"prompt\":\"x\"}"), "a source prompt is"},
    {SOURCE("{\"ids\":[1],\"persona\":\"x\"}"), "a source prompt is"},
    {SOURCE("{\"persona\":\"a pirate\"}"), "a source prompt is"},
    {SOURCE("{\"persona\":\"a pirate\",\"prompt\":\"x\"}"), "a source prompt is"},
    {SOURCE("{\"persona\":3,\"task\":\"x\"}"), "\"persona\" must be a text"},
    {SOURCE("{\"prompt\":[\"x\"]}"), "\"prompt\" must be a text"},
    {SOURCE("{\"prompt\":null,\"ids\":[1]}"), "\"prompt\" must be a text"},
};

START_TEST(wrong_files_are_refused) {
  pf_interventions *iv;
  ck_assert_int_eq(parse(refused[_i].items, &iv), PF_EINPUT);
  ck_assert_ptr_null(iv);
  ck_assert_msg(strstr(pf_last_error(), refused[_i].line), "%s", pf_last_error());
  ck_assert_msg(strstr(pf_last_error(), "test.json"), "%s", pf_last_error());
}
END_TEST

static const struct {
  const char *items, *line;
} unbindable[] = {
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"positions\":\"persona\"}",
     "unknown span"},
    {"{\"op\":\"zero\",\"site\":\"blocks.0.hook_resid_pre\",\"positions\":\"99:100\"}",
     "nothing of the phase"},
    {"{\"op\":\"replace\",\"site\":\"blocks.0.hook_resid_pre\",\"positions\":\"1\",\"source\":\"/"
     "no/such.npy\"}",
     "/no/such.npy"},
    {"{\"op\":\"replace\",\"site\":\"blocks.0.hook_resid_pre\",\"positions\":\"1:4\",\"source\":{"
     "\"ids\":[1,2,3,4]},"
     "\"source_positions\":\"0:2\"}",
     "2 source positions for 3"},
    {"{\"op\":\"replace\",\"site\":\"blocks.0.hook_resid_pre\",\"positions\":\"1\",\"source\":{"
     "\"prompt\":\"x\"}}",
     "needs the model's tokenizer"},
    {"{\"op\":\"knockout\",\"positions\":\"1\",\"queries\":\"3:9\",\"phase\":\"generation\"}",
     "positions '3:9' hold nothing of the phase 'generation'"},
    {"{\"op\":\"replace\",\"site\":\"blocks.0.attn.hook_pattern\",\"positions\":\"-1\",\"source\":"
     "{\"ids\":[1,2,3]}}",
     "source's position 2 has 3 keys, at position 39 it has 40"},
    {"{\"op\":\"add\",\"site\":\"blocks.0.attn.hook_attn_scores\",\"positions\":\"1:3\",\"source\":"
     "{\"ids\":[1,2,3]},\"source_positions\":\"1\"}",
     "source's position 1 has 2 keys, at position 2 it has 3"},
    {"{\"op\":\"replace\",\"site\":\"blocks.0.attn.hook_pattern\",\"phase\":\"generation\","
     "\"source\":{\"ids\":[1,2,3]},\"source_positions\":\"1\"}",
     "have no end"},
};

static void bind(const char *items, pf_seq *s, pf_interventions **iv, int want) {
  pf_spans spans;
  pf_spans_of_ids(LEN, &spans);
  ck_assert_msg(parse(items, iv) == PF_OK, "%s", pf_last_error());
  int st = pf_interventions_bind(*iv, ctx, NULL, &spans, s);
  ck_assert_msg(st == PF_OK ? want == PF_OK : want != PF_OK, "%s", pf_last_error());
}

START_TEST(what_a_prompt_lacks_is_refused) {
  pf_seq *s = tu_seq(ctx);
  pf_interventions *iv;
  bind(unbindable[_i].items, s, &iv, PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), unbindable[_i].line), "%s", pf_last_error());
  pf_interventions_free(iv);
  pf_seq_free(s);
}
END_TEST

/* Logits after the file's actions into x, after the same actions set by hand into y. */
static void compare(const char *items, pf_tap *t, size_t nt, const pf_cut *c, size_t nc,
                    const pf_swap *w, size_t nw) {
  pf_seq *a = tu_seq(ctx), *b = tu_seq(ctx), *plain = tu_seq(ctx);
  float *x = tu_logits(model), *y = tu_logits(model), *z = tu_logits(model);
  pf_interventions *iv;
  bind(items, a, &iv, PF_OK);
  ck_assert_int_eq(pf_seq_set_taps(b, t, nt), PF_OK);
  ck_assert_int_eq(pf_seq_set_cuts(b, c, nc), PF_OK);
  ck_assert_int_eq(pf_seq_set_swaps(b, w, nw), PF_OK);
  tu_run(ctx, a, model, 1, 0, LEN, x);
  tu_run(ctx, b, model, 1, 0, LEN, y);
  tu_run(ctx, plain, model, 1, 0, LEN, z);
  tu_same(model, x, y, items);
  ck_assert(tu_differ(model, x, z));
  ck_assert_int_eq(pf_interventions_check_fired(iv), PF_OK);
  ck_assert_ptr_nonnull(pf_interventions_line(iv, 0));
  ck_assert_ptr_null(pf_interventions_line(iv, 1));
  pf_interventions_free(iv);
  pf_seq_free(a);
  pf_seq_free(b);
  pf_seq_free(plain);
  free(x);
  free(y);
  free(z);
}

START_TEST(actions_equal_taps_cuts_and_swaps) {
  int32_t layer;
  int z, in;
  ck_assert_int_eq(pf_hook_find(model, "blocks.2.attn.hook_z", &z, &layer), PF_OK);
  ck_assert_int_eq(pf_hook_find(model, "blocks.2.hook_resid_pre", &in, &layer), PF_OK);
  pf_tap zero = {.hook = z, .layer = 2, .head = 1, .pos_lo = 39, .pos_hi = 40, .op = PF_OP_ZERO};
  compare("{\"op\":\"zero\",\"site\":\"blocks.*.attn.hook_z\",\"layers\":[2],\"heads\":[1],"
          "\"positions\":\"-1\"}",
          &zero, 1, NULL, 0, NULL, 0);
  pf_tap scale = {.hook = in,
                  .layer = 2,
                  .head = -1,
                  .pos_lo = 35,
                  .pos_hi = 38,
                  .op = PF_OP_SCALE,
                  .scale = 1.5f};
  compare("{\"op\":\"scale\",\"site\":\"blocks.2.hook_resid_pre\",\"positions\":\"35:38\","
          "\"scale\":1.5}",
          &scale, 1, NULL, 0, NULL, 0);
  pf_cut cut[4];
  for (int32_t l = 0; l < 4; l++)
    cut[l] = (pf_cut){l, l + 1, -1, 38, 40, 30, 36};
  compare("{\"op\":\"knockout\",\"positions\":\"30:36\",\"queries\":\"38:40\"}", NULL, 0, cut, 4,
          NULL, 0);
  pf_seq *src = tu_seq(ctx);
  char text[512] =
      "{\"op\":\"swap_kv\",\"layers\":[1],\"positions\":\"33:36\",\"source\":{\"ids\":[";
  for (int32_t i = 0; i < 36; i++)
    sprintf(text + strlen(text), "%s%d", i ? "," : "", (int)tu_token(model, 2, i));
  strcat(text, "]}}");
  tu_run(ctx, src, model, 2, 0, 36, NULL);
  pf_swap w = {1, 2, -1, 33, 36, 33, PF_SWAP_K | PF_SWAP_V, src, 0, 0};
  compare(text, NULL, 0, NULL, 0, &w, 1);
  pf_seq_free(src);
}
END_TEST

START_TEST(replace_from_a_prompt_and_from_a_file) {
  size_t d = (size_t)pf_model_get_info(model)->d_model;
  float *v = calloc(d, sizeof *v);
  int32_t layer;
  int in;
  ck_assert_int_eq(pf_hook_find(model, "blocks.1.hook_resid_pre", &in, &layer), PF_OK);
  pf_seq *src = tu_seq(ctx);
  pf_tap cap = {.hook = in,
                .layer = 1,
                .head = -1,
                .pos_lo = 5,
                .pos_hi = 6,
                .op = PF_OP_CAPTURE,
                .out = v,
                .out_stride = d};
  ck_assert_int_eq(pf_seq_set_taps(src, &cap, 1), PF_OK);
  tu_run(ctx, src, model, 2, 0, 6, NULL);
  pf_tap put = {.hook = in,
                .layer = 1,
                .head = -1,
                .pos_lo = 39,
                .pos_hi = 40,
                .op = PF_OP_REPLACE,
                .value = v};
  char text[512];
  snprintf(text, sizeof text,
           "{\"op\":\"replace\",\"site\":\"blocks.1.hook_resid_pre\",\"positions\":\"-1\","
           "\"source_positions\":\"-1\",\"source\":{\"ids\":[%d,%d,%d,%d,%d,%d]}}",
           tu_token(model, 2, 0), tu_token(model, 2, 1), tu_token(model, 2, 2),
           tu_token(model, 2, 3), tu_token(model, 2, 4), tu_token(model, 2, 5));
  compare(text, &put, 1, NULL, 0, NULL, 0);
  char dir[] = "/tmp/pf-iv-XXXXXX", path[64];
  ck_assert_ptr_nonnull(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/v.npy", dir);
  pf_tensor t = {.n_dims = 1, .dims = {d}, .data = v};
  ck_assert_int_eq(pf_npy_write(path, &t), PF_OK);
  snprintf(text, sizeof text,
           "{\"op\":\"replace\",\"site\":\"blocks.1.hook_resid_pre\",\"positions\":\"p_last\","
           "\"source\":\"%s\"}",
           path);
  compare(text, &put, 1, NULL, 0, NULL, 0);
  remove(path);
  remove(dir);
  pf_seq_free(src);
  free(v);
}
END_TEST

/* ---- rows of files: g2-window has 4 heads of 20, a width of 48 ------------------------------- */

#define RESID   "blocks.1.hook_resid_pre"
#define Z       "blocks.1.attn.hook_z"
#define PATTERN "blocks.1.attn.hook_pattern"

static const struct {
  const char *site, *positions, *heads;
  int n_dims;
  size_t dims[4];
  const char *line; /* NULL: taken */
} shapes[] = {
    {RESID, "1:3", "", 1, {48}, NULL},
    {RESID, "1:3", "", 2, {1, 48}, NULL},
    {RESID, "1:3", "", 2, {2, 48}, NULL},
    {RESID, "1:3", "", 3, {1, 2, 48}, NULL},
    {RESID, "1:3", "", 2, {48, 2}, "[48, 2]; wanted for " RESID " is [2, 48], or [48] for all"},
    {RESID, "1:3", "", 2, {4, 24}, "has the shape [4, 24]"},
    {RESID, "1:3", "", 2, {2, 24}, "has the shape [2, 24]"},
    {RESID, "1:3", "", 1, {96}, "has the shape [96]"},
    {RESID, "1:3", "", 3, {2, 1, 48}, "has the shape [2, 1, 48]"},
    {RESID, "1", "", 2, {48, 1}, "[48, 1]; wanted for " RESID " is [1, 48] or [48]"},
    {RESID, "1", "", 2, {2, 48}, "has the shape [2, 48]"},
    {Z, "1:3", "", 3, {2, 4, 20}, NULL},
    {Z, "1:3", "", 2, {4, 20}, NULL},
    {Z, "1:3", "", 2, {2, 80}, NULL},
    {Z, "1:3", "", 1, {80}, NULL},
    {Z, "1:3", "", 3, {4, 2, 20}, "[4, 2, 20]; wanted for " Z " is [2, 4, 20], or [4, 20]"},
    {Z, "1:3", "", 2, {20, 4}, "has the shape [20, 4]"},
    {Z, "1:3", ",\"heads\":[0,2]", 3, {2, 2, 20}, NULL},
    {Z, "1:3", ",\"heads\":[0,2]", 3, {2, 4, 20}, "wanted for " Z " is [2, 2, 20]"},
    {Z, "1:3", ",\"heads\":[3]", 2, {2, 20}, NULL},
    {PATTERN, "4:6", "", 3, {2, 4, 6}, NULL},
    {PATTERN, "5", "", 2, {4, 6}, NULL},
    {PATTERN, "5", "", 2, {4, 5}, "has 5 keys; " PATTERN " at position 5 has 6"},
    {PATTERN, "5", "", 2, {4, 50}, "has 50 keys; " PATTERN " at position 5 has 6"},
    {PATTERN, "4:6", "", 3, {2, 4, 7}, "has 7 keys; " PATTERN " at position 5 has 6"},
    {PATTERN, "4:6", "", 2, {4, 6}, "[4, 6]; wanted for " PATTERN " is [2, 4, keys]"},
    {PATTERN, "4:6", "", 3, {4, 2, 6}, "has the shape [4, 2, 6]"},
    {PATTERN, "3:", "", 3, {1, 4, 6}, "have no end"},
};

/* Rows of zeros, written and bound. */
static void check_shape(const char *path, int i) {
  pf_seq *s = tu_seq(ctx);
  pf_interventions *iv;
  char text[512];
  pf_tensor t = {.n_dims = shapes[i].n_dims};
  memcpy(t.dims, shapes[i].dims, sizeof shapes[i].dims);
  t.data = calloc(pf_tensor_count(&t), sizeof *t.data);
  ck_assert_int_eq(pf_npy_write(path, &t), PF_OK);
  snprintf(text, sizeof text,
           "{\"op\":\"add\",\"site\":\"%s\",\"positions\":\"%s\"%s,\"phase\":\"all\","
           "\"source\":\"%s\"}",
           shapes[i].site, shapes[i].positions, shapes[i].heads, path);
  bind(text, s, &iv, shapes[i].line ? PF_EINPUT : PF_OK);
  if (shapes[i].line)
    ck_assert_msg(strstr(pf_last_error(), shapes[i].line), "%s", pf_last_error());
  pf_interventions_free(iv);
  pf_seq_free(s);
  free(t.data);
}

START_TEST(rows_of_a_file_by_their_shape) {
  char dir[] = "/tmp/pf-iv-XXXXXX", path[64];
  ck_assert_ptr_nonnull(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/v.npy", dir);
  check_shape(path, _i);
  remove(path);
  remove(dir);
}
END_TEST

/* Heads 2 and 0 of two positions, each with its own values of the file [pos, head, d_head]. */
START_TEST(each_head_its_own_values) {
  enum { D = 20, AT = 37 };
  char dir[] = "/tmp/pf-iv-XXXXXX", path[64], text[512];
  float v[2 * 2 * D];
  pf_tap by_hand[2];
  for (int i = 0; i < 2 * 2 * D; i++)
    v[i] = (float)(i % 7 - 3) * 0.25f + (float)(i / D);
  pf_tensor t = {.n_dims = 3, .dims = {2, 2, D}, .data = v};
  ck_assert_ptr_nonnull(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/v.npy", dir);
  ck_assert_int_eq(pf_npy_write(path, &t), PF_OK);
  snprintf(text, sizeof text,
           "{\"op\":\"replace\",\"site\":\"%s\",\"positions\":\"%d:%d\",\"heads\":[2,0],"
           "\"source\":\"%s\"}",
           Z, AT, AT + 2, path);
  for (int k = 0; k < 2; k++)
    by_hand[k] = (pf_tap){.hook = tu_hook(model, Z),
                          .layer = 1,
                          .head = k ? 0 : 2,
                          .pos_lo = AT,
                          .pos_hi = AT + 2,
                          .op = PF_OP_REPLACE,
                          .value = v + k * D,
                          .value_stride = 2 * D};
  compare(text, by_hand, 2, NULL, 0, NULL, 0);
  remove(path);
  remove(dir);
}
END_TEST

/* Scores [4 positions, 4 heads, 4 keys] as captured: -inf where a row has no key. */
static float *captured(const char *site, int32_t n, size_t *count) {
  pf_seq *s = tu_seq(ctx);
  *count = (size_t)n * 4 * (size_t)n;
  float *v = calloc(*count, sizeof *v);
  pf_tap cap = {.hook = tu_hook(model, site),
                .layer = 1,
                .head = -1,
                .pos_hi = n,
                .op = PF_OP_CAPTURE,
                .out = v,
                .out_stride = 4 * (size_t)n,
                .n_keys = n};
  ck_assert_int_eq(pf_seq_set_taps(s, &cap, 1), PF_OK);
  tu_run(ctx, s, model, 1, 0, n, NULL);
  pf_seq_free(s);
  return v;
}

static void same_after(const char *items, const char *what) {
  pf_seq *a = tu_seq(ctx), *b = tu_seq(ctx);
  float *x = tu_logits(model), *y = tu_logits(model);
  pf_interventions *iv;
  bind(items, a, &iv, PF_OK);
  tu_run(ctx, a, model, 1, 0, LEN, x);
  tu_run(ctx, b, model, 1, 0, LEN, y);
  tu_same(model, x, y, what);
  pf_interventions_free(iv);
  pf_seq_free(a);
  pf_seq_free(b);
  free(x);
  free(y);
}

START_TEST(captured_keys_go_back) {
  static const char *const sites[] = {PATTERN, "blocks.1.attn.hook_attn_scores",
                                      "blocks.1.attn.hook_attn_scores_raw"};
  char dir[] = "/tmp/pf-iv-XXXXXX", path[64], text[512];
  ck_assert_ptr_nonnull(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/v.safetensors", dir);
  for (int i = 0; i < 3; i++) {
    size_t n;
    pf_tensor t = {.name = "v", .n_dims = 3, .dims = {LEN, 4, LEN}};
    t.data = captured(sites[i], LEN, &n);
    ck_assert_int_eq(pf_safetensors_write(path, &t, 1, NULL), PF_OK);
    snprintf(text, sizeof text, "{\"op\":\"replace\",\"site\":\"%s\",\"source\":\"%s#v\"}",
             sites[i], path);
    same_after(text, sites[i]);
    t.data[5] = 1; /* key 5 of position 0 */
    ck_assert_int_eq(pf_safetensors_write(path, &t, 1, NULL), PF_OK);
    pf_seq *s = tu_seq(ctx);
    pf_interventions *iv;
    bind(text, s, &iv, PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), "v.safetensors#v has a value for key 5"), "%s",
                  pf_last_error());
    pf_interventions_free(iv);
    pf_seq_free(s);
    free(t.data);
  }
  remove(path);
  remove(dir);
}
END_TEST

/* Scores are masked, nothing else is. */
START_TEST(what_is_not_finite) {
  char dir[] = "/tmp/pf-iv-XXXXXX", path[64], text[512];
  float v[48] = {1, -INFINITY};
  pf_tensor t = {.name = "v", .n_dims = 1, .dims = {48}, .data = v};
  pf_interventions *iv;
  ck_assert_ptr_nonnull(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/v.safetensors", dir);
  ck_assert_int_eq(pf_safetensors_write(path, &t, 1, NULL), PF_OK);
  snprintf(text, sizeof text, "{\"op\":\"replace\",\"site\":\"" RESID "\",\"source\":\"%s\"}",
           path);
  pf_seq *s = tu_seq(ctx);
  bind(text, s, &iv, PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "v.safetensors#v: value 1 is not finite"), "%s",
                pf_last_error());
  pf_interventions_free(iv);
  pf_seq_free(s);
  remove(path);
  remove(dir);
}
END_TEST

/* A tap's values have a key for each that its rows have. */
START_TEST(taps_over_keys) {
  float v[4 * LEN] = {0};
  pf_seq *s = tu_seq(ctx);
  pf_tap t = {.hook = tu_hook(model, PATTERN),
              .layer = 1,
              .head = -1,
              .pos_lo = 4,
              .pos_hi = 6,
              .op = PF_OP_REPLACE,
              .value = v,
              .n_keys = 6};
  ck_assert_int_eq(pf_seq_set_taps(s, &t, 1), PF_OK);
  t.n_keys = 5;
  ck_assert_int_eq(pf_seq_set_taps(s, &t, 1), PF_EUSAGE);
  ck_assert_msg(strstr(pf_last_error(), "6 keys at position 5, its values 5"), "%s",
                pf_last_error());
  pf_seq_free(s);
}
END_TEST

/* ---- lines ----------------------------------------------------------------------------------- */

static const struct {
  const char *items, *line;
} lines[] = {
    {"{\"op\":\"zero\",\"site\":\"blocks.*.attn.hook_z\",\"layers\":[2,0],\"heads\":[1],"
     "\"positions\":\"-1\"}",
     "zero blocks.*.attn.hook_z layers 2,0 heads 1 positions 39..39 (-1)"},
    {"{\"op\":\"scale\",\"site\":\"hook_embed\",\"scale\":1,\"phase\":\"generation\"}",
     "scale hook_embed positions 40.. scale 1"},
    {"{\"op\":\"add\",\"site\":\"hook_embed\",\"positions\":\"1:3\",\"scale\":0.25,"
     "\"source\":{\"ids\":[1,2]},\"source_positions\":\"-1\"}",
     "add hook_embed positions 1..2 (1:3) source {\"ids\":[1,2]} source positions 1..1 (-1) scale "
     "0.25"},
    {"{\"op\":\"replace\",\"site\":\"hook_embed\",\"positions\":\"-1\",\"source\":{\"ids\":[1,2]}}",
     "replace hook_embed positions 39..39 (-1) source {\"ids\":[1,2]} source positions 1..1 (-1)"},
    {"{\"op\":\"swap_kv\",\"layers\":[1],\"positions\":\"0\",\"what\":\"v\",\"source\":{\"ids\":[7]"
     "}}",
     "swap_kv attention layers 1 positions 0..0 (0) source {\"ids\":[7]} source positions 0..0 (0) "
     "what v"},
    {"{\"op\":\"knockout\",\"layers\":[1],\"positions\":\"0\",\"queries\":\"3:99\","
     "\"phase\":\"prompt\"}",
     "knockout attention layers 1 positions 0..0 (0) queries 3..39 (3:99)"},
    {"{\"op\":\"knockout\",\"layers\":[1],\"positions\":\"0\",\"queries\":\"3:99\"}",
     "knockout attention layers 1 positions 0..0 (0) queries 3..98 (3:99)"},
};

START_TEST(lines_say_all_that_was_resolved) {
  pf_seq *s = tu_seq(ctx);
  pf_interventions *iv;
  bind(lines[_i].items, s, &iv, PF_OK);
  ck_assert_str_eq(pf_interventions_line(iv, 0), lines[_i].line);
  pf_interventions_free(iv);
  pf_seq_free(s);
}
END_TEST

START_TEST(source_files_are_named) {
  char dir[] = "/tmp/pf-iv-XXXXXX", path[64], text[512], line[512];
  float v[48] = {0};
  pf_tensor t = {.n_dims = 1, .dims = {48}, .data = v};
  pf_interventions *iv;
  ck_assert_ptr_nonnull(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/v.npy", dir);
  ck_assert_int_eq(pf_npy_write(path, &t), PF_OK);
  snprintf(text, sizeof text,
           "{\"op\":\"add\",\"site\":\"" RESID "\",\"source\":\"%s\",\"scale\":-2}", path);
  snprintf(line, sizeof line, "add " RESID " layers 1 positions 0..39 source %s scale -2", path);
  pf_seq *s = tu_seq(ctx);
  bind(text, s, &iv, PF_OK);
  ck_assert_str_eq(pf_interventions_line(iv, 0), line);
  pf_interventions_free(iv);
  pf_seq_free(s);
  remove(path);
  remove(dir);
}
END_TEST

#define SWAP(positions)                                                                            \
  "{\"op\":\"swap_kv\",\"positions\":\"" positions "\",\"source_positions\":\"0\","                \
  "\"source\":{\"ids\":[1]}}"

/* Of a run of LEN tokens: 0 to LEN-1. line NULL: it fires. */
static const struct {
  const char *items, *line;
} firing[] = {
    {"{\"op\":\"zero\",\"site\":\"blocks.1.hook_resid_pre\",\"phase\":\"generation\","
     "\"positions\":\"g2\"}",
     "intervention 0 (blocks.1.hook_resid_pre) never fired"},
    {"{\"op\":\"knockout\",\"positions\":\"0\",\"queries\":\"39\"}", NULL},
    {"{\"op\":\"knockout\",\"positions\":\"39\",\"queries\":\"39\"}", NULL},
    {"{\"op\":\"knockout\",\"positions\":\"39\",\"queries\":\"3:39\"}",
     "intervention 0 (knockout) never fired"},
    {"{\"op\":\"knockout\",\"positions\":\"40\",\"queries\":\"0:99\"}",
     "intervention 0 (knockout) never fired"},
    {"{\"op\":\"knockout\",\"positions\":\"0\",\"queries\":\"40:99\"}",
     "intervention 0 (knockout) never fired"},
    {"{\"op\":\"knockout\",\"positions\":\"0\",\"phase\":\"generation\"}",
     "intervention 0 (knockout) never fired"},
    {SWAP("38"), NULL},
    {SWAP("39"), "intervention 0 (swap_kv) never fired"},
    {SWAP("0") "," SWAP("39"), "intervention 1 (swap_kv) never fired"},
};

START_TEST(what_never_fires_is_an_error) {
  pf_ctx_opts o = {.threads = 1, .keep_raw_k = 1};
  pf_ctx *c;
  pf_interventions *iv;
  pf_spans spans;
  ck_assert_int_eq(pf_ctx_new(&c, model, &o), PF_OK);
  pf_seq *s = tu_seq(c);
  pf_spans_of_ids(LEN, &spans);
  ck_assert_msg(parse(firing[_i].items, &iv) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_interventions_bind(iv, c, NULL, &spans, s) == PF_OK, "%s", pf_last_error());
  tu_run(c, s, model, 1, 0, LEN, NULL);
  ck_assert_int_eq(pf_interventions_check_fired(iv), firing[_i].line ? PF_EINPUT : PF_OK);
  if (firing[_i].line)
    ck_assert_msg(strstr(pf_last_error(), firing[_i].line), "%s", pf_last_error());
  pf_interventions_free(iv);
  pf_seq_free(s);
  pf_ctx_free(c);
}
END_TEST

int main(void) {
  Suite *s = suite_create("interventions");
  TCase *t = tcase_create("files");
  tcase_set_timeout(t, 0);
  tcase_add_unchecked_fixture(t, setup, teardown);
  tcase_add_loop_test(t, wrong_files_are_refused, 0, (int)(sizeof refused / sizeof *refused));
  tcase_add_loop_test(t, what_a_prompt_lacks_is_refused, 0,
                      (int)(sizeof unbindable / sizeof *unbindable));
  tcase_add_test(t, actions_equal_taps_cuts_and_swaps);
  tcase_add_test(t, replace_from_a_prompt_and_from_a_file);
  tcase_add_loop_test(t, rows_of_a_file_by_their_shape, 0, (int)(sizeof shapes / sizeof *shapes));
  tcase_add_test(t, each_head_its_own_values);
  tcase_add_test(t, captured_keys_go_back);
  tcase_add_test(t, what_is_not_finite);
  tcase_add_test(t, taps_over_keys);
  tcase_add_loop_test(t, lines_say_all_that_was_resolved, 0, (int)(sizeof lines / sizeof *lines));
  tcase_add_test(t, source_files_are_named);
  tcase_add_loop_test(t, what_never_fires_is_an_error, 0, (int)(sizeof firing / sizeof *firing));
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
