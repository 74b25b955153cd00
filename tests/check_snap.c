/* SPDX-License-Identifier: Apache-2.0
 * Snapshots, their differences, and bisect (faults: check_faults): what a digest covers, one set of
 * bytes for any threads, chunk and instruction set, stops and repeats, prompts that are wrong,
 * values of other programs. */
#include "config.h"

#include <math.h>

#include "analysis/diff.h"
#include "analysis/diffreport.h"
#include "analysis/ops.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "tests/model_util.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

#define GEMMA "data/models/demo-gemma2"
#define IDS                                                                                        \
  "{\"id\": \"x\", \"ids\": [2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]}\n"

static char dir[256], model[1024];

static void setup(void) {
  tmp_make(dir);
  snprintf(model, sizeof model, "%s/" GEMMA, tu_srcdir());
}

static void teardown(void) {
  tmp_remove(dir);
}

static const char *in(const char *name) {
  static char path[8][400];
  static int turn;
  turn = (turn + 1) % 8;
  snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
  return path[turn];
}

static pf_snap_opts opts(const char *name, const char *prompts) {
  return (pf_snap_opts){.model = model,
                        .prompts_name = "prompts",
                        .prompts = prompts,
                        .n_prompts = strlen(prompts),
                        .out_dir = in(name),
                        .max_tokens = 4,
                        .threads = 1};
}

static void make(const pf_snap_opts *o) {
  int rc = pf_snap_run(o, NULL);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
}

static void same_file(const char *a, const char *b, const char *name) {
  char pa[700], pb[700];
  pf_buf x, y;
  snprintf(pa, sizeof pa, "%s/%s", a, name);
  snprintf(pb, sizeof pb, "%s/%s", b, name);
  ck_assert_msg(pf_read_file(pa, 1 << 28, &x) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(pf_read_file(pb, 1 << 28, &y) == PF_OK, "%s", pf_last_error());
  ck_assert_msg(x.n == y.n && !memcmp(x.s, y.s, x.n), "%s and %s differ", pa, pb);
  pf_buf_free(&x);
  pf_buf_free(&y);
}

static json_t *diff(const char *a, const char *b, double ulp, bool *same) {
  pf_diff_opts o;
  pf_diff *d;
  pf_diff_defaults(&o);
  o.a = a;
  o.b = b;
  o.ulp = ulp;
  int rc = pf_diff_run(&d, &o);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
  *same = pf_diff_same(d);
  json_t *r = json_deep_copy(pf_diff_result(d));
  pf_diff_free(d);
  return r;
}

/* ---- digests --------------------------------------------------------------------------------- */

/* The digest of one head's rows [16, 17) and of [0, 16) at one point, computed by hand. */
START_TEST(digests_are_of_the_rows) {
  enum { N = 17, H = 4 };
  pf_snap_opts o = opts("s", IDS);
  o.max_tokens = 1;
  make(&o);
  pf_snap s;
  pf_snap_prompt p;
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK);
  ck_assert_int_eq(pf_snap_read(&s, 0, &p), PF_OK);
  pf_model *m = tu_open(GEMMA);
  pf_ctx *c = tu_ctx(m, 1);
  pf_seq *q = tu_seq(c);
  size_t at = (size_t)pf_points_find(&s.points, "blocks.3.attn.hook_q"), w = s.points.v[at].width;
  ck_assert_uint_eq(s.points.v[at].heads, H);
  float *v = calloc(N * H * w, sizeof *v), *rows = calloc(N * w, sizeof *rows);
  pf_tap t = {.hook = tu_hook(m, "blocks.3.attn.hook_q"),
              .layer = 3,
              .head = -1,
              .pos_hi = N,
              .out = v,
              .out_stride = H * w};
  ck_assert_int_eq(pf_seq_set_taps(q, &t, 1), PF_OK);
  pf_row row[N];
  for (int i = 0; i < N; i++)
    row[i] = (pf_row){.seq = q, .token = p.ids.v[i], .pos = i, .out = -1};
  ck_assert_int_eq(pf_eval(c, row, N, NULL), PF_OK);
  for (size_t h = 0; h < H; h++) {
    for (size_t i = 0; i < N; i++)
      memcpy(rows + i * w, v + (i * H + h) * w, w * sizeof *v);
    for (size_t b = 0; b < 2; b++) {
      char hex[65], got[65];
      pf_sha256_hex(rows + b * 16 * w, (b ? 1 : 16) * w * sizeof *rows, hex);
      for (int i = 0; i < 32; i++)
        snprintf(got + 2 * i, 3, "%02x", p.digest[at][b * H + h].b[i]);
      ck_assert_str_eq(hex, got);
    }
  }
  free(v);
  free(rows);
  pf_seq_free(q);
  pf_ctx_free(c);
  pf_model_close(m);
  pf_snap_prompt_free(&p);
  pf_snap_close(&s);
}
END_TEST

START_TEST(one_set_of_bytes) {
  static const char prompts[] = IDS "{\"id\": \"chat\", \"prompt\": \"Recommend a book.\"}\n"
                                    "{\"raw\": \"Once upon\"}\n";
  pf_snap_opts a = opts("a", prompts), b = opts("b", prompts);
  char x[65], y[65];
  a.full = 1;
  b.threads = 3;
  b.chunk = 5;
  b.isa = "scalar";
  ck_assert_int_eq(pf_snap_run(&a, x), PF_OK);
  ck_assert_int_eq(pf_snap_run(&b, y), PF_OK);
  ck_assert_str_eq(x, y);
  for (int i = 0; i < 3; i++) {
    char name[32];
    snprintf(name, sizeof name, "prompt-%06d.json", i);
    same_file(a.out_dir, b.out_dir, name);
  }
  bool same;
  json_decref(diff(a.out_dir, b.out_dir, -1, &same));
  ck_assert(same);
}
END_TEST

static void check_block(const pf_snap *s, const pf_snap_prompt *p, pf_values *v, size_t i,
                        size_t block) {
  const pf_at *a = &s->points.v[i];
  size_t part = pf_values_part(v, &s->points, i);
  pf_span span = pf_block_span(&p->blocks, block);
  float *rows = calloc((size_t)(span.hi - span.lo) * a->heads * part, sizeof *rows);
  ck_assert_int_eq(pf_values_rows(v, &s->points, i, span.lo, span.hi, rows), PF_OK);
  for (size_t h = 0; h < a->heads; h++) {
    unsigned char sha[32];
    pf_sha256 *x = pf_sha256_new();
    for (int32_t pos = span.lo; pos < span.hi; pos++)
      pf_sha256_add(x, rows + ((size_t)(pos - span.lo) * a->heads + h) * part,
                    (a->width ? part : (size_t)pos + 1) * sizeof *rows);
    pf_sha256_raw(x, sha);
    ck_assert_msg(!memcmp(sha, p->digest[i][block * a->heads + h].b, 32), "%s", a->name);
  }
  free(rows);
}

/* Rows of the values file are what was hashed, keys of a row up to its own position. */
START_TEST(values_are_what_was_hashed) {
  pf_snap_opts o = opts("full", IDS);
  o.full = 1;
  make(&o);
  pf_snap s;
  pf_snap_prompt p;
  pf_values v;
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK);
  ck_assert_int_eq(pf_snap_read(&s, 0, &p), PF_OK);
  ck_assert_int_eq(pf_values_of_snap(&v, &s, 0, &s.points), PF_OK);
  for (size_t i = 0; i < s.points.n; i++)
    for (size_t b = 0; b < pf_blocks_n(&p.blocks); b++)
      check_block(&s, &p, &v, i, b);
  pf_values_free(&v);
  pf_snap_prompt_free(&p);
  pf_snap_close(&s);
}
END_TEST

/* ---- stops and repeats ----------------------------------------------------------------------- */

static volatile int stop_now;
static void stop_at_once(void *user, const char *what, uint64_t done, uint64_t total) {
  (void)user, (void)done, (void)total;
  if (!strcmp(what, "snapshot"))
    stop_now = 1;
}

START_TEST(stopped_and_resumed) {
  static const char prompts[] = IDS "{\"ids\": [1, 2, 3]}\n{\"ids\": [4, 5]}\n";
  pf_snap_opts whole = opts("whole", prompts), o = opts("part", prompts);
  char x[65], y[65];
  ck_assert_int_eq(pf_snap_run(&whole, x), PF_OK);
  o.stop = &stop_now;
  o.progress = stop_at_once;
  stop_now = 0;
  ck_assert_int_eq(pf_snap_run(&o, NULL), PF_EINCOMPLETE);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "--resume"));
  pf_snap s;
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_EINPUT);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "not complete"));
  o.stop = NULL;
  ck_assert_int_eq(pf_snap_run(&o, NULL), PF_EEXIST);
  o.resume = 1;
  ck_assert_int_eq(pf_snap_run(&o, y), PF_OK);
  ck_assert_str_eq(x, y);
  ck_assert_int_eq(pf_snap_run(&o, y), PF_OK); /* nothing left to do */
  ck_assert_str_eq(x, y);
  o.precision = PF_PRECISION_BF16;
  ck_assert_int_eq(pf_snap_run(&o, NULL), PF_EUSAGE);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "differs in precision"));
  o.resume = 0;
  ck_assert_int_eq(pf_snap_run(&o, NULL), PF_EEXIST);
  o.force = 1;
  ck_assert_int_eq(pf_snap_run(&o, y), PF_OK);
  ck_assert_str_ne(x, y);
  pf_snap_opts bad = opts("part", "{\"ids\": [2, 99999]}");
  bad.force = 1;
  ck_assert_int_eq(pf_snap_run(&bad, NULL), PF_EINPUT);
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK); /* still there */
  pf_snap_close(&s);
}
END_TEST

/* A model's folder has a config.json too: nothing of it may be touched. */
START_TEST(foreign_folders_are_left_alone) {
  pf_snap_opts o = opts("m", IDS);
  tmp_text(dir, "m/config.json", "{}");
  o.force = 1;
  ck_assert_int_eq(pf_snap_run(&o, NULL), PF_EEXIST);
  ck_assert_int_eq(access(in("m/config.json"), F_OK), 0);
}
END_TEST

/* ---- prompts --------------------------------------------------------------------------------- */

START_TEST(prompts_that_are_wrong) {
  static const struct {
    const char *text, *line;
  } bad[] = {{"", "no prompts"},
             {"\n \n", "no prompts"},
             {"[1]\n", "line 1: not a JSON object"},
             {"{\"ids\": [1]}\n{", "line 2: invalid JSON"},
             {"{\"id\": \"a\"}", "wanted is one of"},
             {"{\"ids\": [1], \"raw\": \"x\"}", "more than one"},
             {"{\"ids\": \"1\"}", "\"ids\" must be a list"},
             {"{\"ids\": [1.5]}", "wants token ids"},
             {"{\"ids\": []}", "no tokens"},
             {"{\"prompt\": 3}", "must be a text"},
             {"{\"raw\": \"x\", \"text\": 1}", "unknown key 'text'"},
             {"{\"persona\": \"x\"}", "go together"},
             {"{\"raw\": \"x\", \"task\": \"y\"}", "goes with"},
             {"{\"messages\": []}", "is empty"},
             {"{\"messages\": [{\"role\": \"user\"}]}", "text \"content\""},
             {"{\"messages\": [{\"role\": \"fly\", \"content\": \"x\"}]}", "prompt '0'"},
             {"{\"id\": 1.5, \"ids\": [1]}", "\"id\" must be"},
             {"{\"ids\": [1]}\n{\"id\": \"0\", \"ids\": [1]}", "line 2: the id '0' was given"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    pf_prompts p;
    ck_assert_int_eq(pf_prompts_parse(&p, "f", bad[i].text, strlen(bad[i].text), model, NULL),
                     PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), bad[i].line) != NULL, "%s: %s", bad[i].text,
                  pf_last_error());
  }
}
END_TEST

START_TEST(prompts_that_are_right) {
  static const char text[] =
      "{\"id\": 7, \"prompt\": \"Recommend a book.\"}\n\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"Recommend a book.\"}]}\r\n"
      "{\"persona\": \"a pirate\", \"task\": \"recommend a book.\"}\n"
      "{\"raw\": \"As a pirate\"}";
  pf_prompts p;
  ck_assert_int_eq(pf_prompts_parse(&p, "f", text, strlen(text), model, NULL), PF_OK);
  ck_assert_uint_eq(p.n, 4);
  ck_assert_str_eq(p.v[0].id, "7");
  ck_assert_str_eq(p.v[1].id, "1");
  ck_assert_uint_eq(p.v[0].ids.n, p.v[1].ids.n);
  ck_assert_mem_eq(p.v[0].ids.v, p.v[1].ids.v, p.v[0].ids.n * sizeof(int32_t));
  ck_assert_uint_gt(p.v[2].ids.n, p.v[0].ids.n);
  ck_assert_uint_lt(p.v[3].ids.n, p.v[0].ids.n);
  ck_assert_uint_eq(strlen(p.tokenizer_sha256), 64);
  pf_prompts_free(&p);
}
END_TEST

/* ---- differences ----------------------------------------------------------------------------- */

START_TEST(precisions_differ_at_the_first_product) {
  pf_snap_opts a = opts("f32", IDS), b = opts("bf16", IDS);
  bool same;
  a.full = b.full = 1;
  b.precision = PF_PRECISION_BF16;
  make(&a);
  make(&b);
  json_t *r = diff(a.out_dir, b.out_dir, -1, &same);
  const json_t *place = json_object_get(json_object_get(r, "first"), "place");
  ck_assert(!same);
  ck_assert_str_eq(json_string_value(json_object_get(place, "hook")), "blocks.0.attn.hook_q");
  ck_assert_int_eq(json_integer_value(json_object_get(place, "position")), 0);
  ck_assert_int_gt(json_integer_value(json_object_get(place, "ulp")), 0);
  json_decref(r);
  json_decref(diff(a.out_dir, b.out_dir, 4294967295.0, &same));
  ck_assert(same);
}
END_TEST

/* Logits of the first generated position are pushed to another token: the embedding of the next
 * position differs too, but later. */
START_TEST(tokens_come_after_their_logits) {
  pf_snap_opts a = opts("a", IDS), b = opts("b", IDS);
  bool same;
  make(&a);
  pf_model *m = tu_open(GEMMA);
  float *push = tu_logits(m);
  push[7] = 1000;
  pf_tap t = {.hook = tu_hook(m, "unembed.hook_out"),
              .layer = -1,
              .head = -1,
              .pos_lo = 17,
              .pos_hi = 18,
              .op = PF_OP_ADD,
              .value = push};
  pf_snap_extra x = {&t, 1, 0};
  ck_assert_msg(pf_snap_make(&b, &x, NULL) == PF_OK, "%s", pf_last_error());
  json_t *r = diff(a.out_dir, b.out_dir, -1, &same);
  const json_t *p = json_object_get(json_object_get(r, "first"), "place"),
               *one = json_array_get(json_object_get(r, "prompts"), 0);
  ck_assert_str_eq(json_string_value(json_object_get(p, "hook")), "unembed.hook_out");
  ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(p, "positions"), 0)), 17);
  ck_assert_str_eq(json_string_value(json_object_get(p, "phase")), "generation");
  ck_assert_int_eq(json_integer_value(json_object_get(one, "first_token")), 1);
  json_decref(r);
  free(push);
  pf_model_close(m);
}
END_TEST

START_TEST(ulps_and_tolerances) {
  pf_tolerance none = {-1, -1, -1}, one = {-1, -1, 1}, abs = {0.5, 0.1, -1};
  ck_assert_uint_eq(pf_ulp_distance(1.0f, nextafterf(1.0f, 2.0f)), 1);
  ck_assert_uint_eq(pf_ulp_distance(-0.0f, 0.0f), 0);
  ck_assert_uint_eq(pf_ulp_distance(-1e-45f, 1e-45f), 2);
  ck_assert_uint_eq(pf_ulp_distance(NAN, 1.0f), UINT32_MAX);
  ck_assert(!pf_values_agree(&none, -0.0f, 0.0f));
  ck_assert(pf_values_agree(&none, NAN, -NAN));
  ck_assert(pf_values_agree(&one, -0.0f, 0.0f));
  ck_assert(pf_values_agree(&one, 1.0f, nextafterf(1.0f, 2.0f)));
  ck_assert(!pf_values_agree(&one, 1.0f, 1.1f));
  ck_assert(pf_values_agree(&abs, 10.0f, 11.0f)); /* 1 <= 0.5 + 1.1 */
  ck_assert(!pf_values_agree(&abs, 10.0f, 13.0f));
  ck_assert(pf_values_agree(&abs, 10.0f, 11.6f)); /* 1.6 <= 0.5 + 1.16: a tenth of the second */
  ck_assert(!pf_values_agree(&abs, 11.6f, 10.0f));
  ck_assert(!pf_values_agree(&abs, INFINITY, 1.0f));
  ck_assert(!pf_values_agree(&abs, NAN, 1.0f));
}
END_TEST

/* ---- values of other programs ---------------------------------------------------------------- */

enum { GEMMA_WIDTH = 160, N_IDS = 17 };

/* A point's prompt rows out of the snapshot, as another program would save them. */
static pf_tensor taken(const pf_snap *s, const char *point, const char *name) {
  pf_values v;
  size_t i = (size_t)pf_points_find(&s->points, point);
  ck_assert_int_eq(pf_values_of_snap(&v, s, 0, &s->points), PF_OK);
  const pf_at *a = &s->points.v[i];
  size_t part = pf_values_part(&v, &s->points, i), n = N_IDS * a->heads * part;
  pf_tensor t = {.name = strdup(name), .n_dims = 3, .dims = {1, N_IDS, a->heads * part}};
  t.data = calloc(n, sizeof *t.data);
  ck_assert_int_eq(pf_values_rows(&v, &s->points, i, 0, N_IDS, t.data), PF_OK);
  pf_values_free(&v);
  return t;
}

/* [pos, head, key] into [1, head, pos, key], the prompt's keys. */
static pf_tensor taken_keys(const pf_snap *s, const char *point, const char *name) {
  pf_tensor from = taken(s, point, name);
  size_t heads = s->points.v[pf_points_find(&s->points, point)].heads, all = from.dims[2] / heads;
  pf_tensor t = {.name = strdup(name), .n_dims = 4, .dims = {1, heads, N_IDS, N_IDS}};
  t.data = calloc(heads * N_IDS * N_IDS, sizeof *t.data);
  for (size_t p = 0; p < N_IDS; p++)
    for (size_t h = 0; h < heads; h++)
      memcpy(t.data + (h * N_IDS + p) * N_IDS, from.data + (p * heads + h) * all,
             N_IDS * sizeof *t.data);
  free(from.name);
  free(from.data);
  return t;
}

START_TEST(hugging_face_names) {
  pf_snap_opts o = opts("s", IDS);
  pf_snap s;
  bool same;
  o.full = 1;
  make(&o);
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK);
  pf_tensor t[] = {taken(&s, "blocks.0.hook_resid_pre", "hidden_states.0"),
                   taken(&s, "ln_final.hook_out", "hidden_states.8"),
                   taken(&s, "blocks.3.attn.hook_k", "model.layers.3.self_attn.k_proj"),
                   taken(&s, "unembed.hook_out", "logits"),
                   taken(&s, "hook_embed", "past.key"),
                   taken_keys(&s, "blocks.2.attn.hook_pattern", "attentions.2")};
  enum { N = sizeof t / sizeof *t };
  const char *file = in("hf.safetensors");
  ck_assert_int_eq(pf_safetensors_write(file, t, N, NULL), PF_OK);
  json_t *r = diff(o.out_dir, file, -1, &same);
  ck_assert_msg(same, "%s", json_dumps(r, 0));
  const json_t *p = json_array_get(json_object_get(r, "prompts"), 0);
  ck_assert_int_eq(json_integer_value(json_object_get(p, "points")), N - 1);
  ck_assert_uint_eq(json_array_size(json_object_get(r, "ignored")), 1);
  json_decref(r);
  /* one value of head 1, position 12, key 5; one of a head before it, but a position later; and a
   * larger one that comes later in a pass */
  t[5].data[(1 * N_IDS + 12) * N_IDS + 5] += 1e-3f;
  t[5].data[13 * N_IDS + 5] += 1e-3f;
  t[1].data[0] += 1;
  ck_assert_int_eq(pf_safetensors_write(file, t, N, NULL), PF_OK);
  r = diff(file, o.out_dir, 5, &same);
  ck_assert(!same);
  p = json_object_get(json_object_get(r, "first"), "place");
  ck_assert_str_eq(json_string_value(json_object_get(p, "hook")), "blocks.2.attn.hook_pattern");
  ck_assert_int_eq(json_integer_value(json_object_get(p, "position")), 12);
  ck_assert_int_eq(json_integer_value(json_object_get(p, "head")), 1);
  ck_assert_int_eq(json_integer_value(json_object_get(p, "key")), 5);
  json_decref(r);
  /* and a folder of .npy files with TransformerLens's names */
  mkdir(in("npy"), 0777);
  pf_tensor tl = taken(&s, "blocks.3.hook_resid_post", "x");
  ck_assert_int_eq(pf_npy_write(in("npy/blocks.3.hook_resid_post.npy"), &tl), PF_OK);
  json_decref(diff(o.out_dir, in("npy"), -1, &same));
  ck_assert(same);
  tl.data[5 * GEMMA_WIDTH + 9] *= 1.5f;
  ck_assert_int_eq(pf_npy_write(in("npy/blocks.3.hook_resid_post.npy"), &tl), PF_OK);
  r = diff(o.out_dir, in("npy"), -1, &same);
  p = json_object_get(json_object_get(r, "first"), "place");
  ck_assert_int_eq(json_integer_value(json_object_get(p, "position")), 5);
  ck_assert_int_eq(json_integer_value(json_object_get(p, "element")), 9);
  json_decref(r);
  pf_tensor_free(&tl);
  for (int i = 0; i < N; i++)
    pf_tensor_free(&t[i]);
  pf_snap_close(&s);
}
END_TEST

/* A and B are as they were named, the snapshot first or last: rtol is of B's values. */
START_TEST(the_order_is_the_callers) {
  pf_snap_opts o = opts("s", IDS);
  pf_snap s;
  pf_diff *d;
  o.full = 1;
  make(&o);
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK);
  pf_tensor t = taken(&s, "blocks.2.hook_resid_pre", "hidden_states.2");
  const char *file = in("twice.safetensors");
  t.data[3] *= 2;
  ck_assert_int_eq(pf_safetensors_write(file, &t, 1, NULL), PF_OK);
  for (int first = 0; first < 2; first++) {
    pf_diff_opts q;
    pf_diff_defaults(&q);
    q.a = first ? file : o.out_dir;
    q.b = first ? o.out_dir : file;
    q.rtol = .6;
    ck_assert_msg(pf_diff_run(&d, &q) == PF_OK, "%s", pf_last_error());
    ck_assert_str_eq(json_string_value(json_object_get(pf_diff_result(d), "a")), q.a);
    ck_assert_int_eq(pf_diff_same(d), !first);
    pf_diff_free(d);
  }
  pf_tensor_free(&t);
  pf_snap_close(&s);
}
END_TEST

/* How far two runs' logits are apart: three rows changed, in the second a new best token; ours is
 * the first of the two whose KL it is. */
START_TEST(spread_of_logits) {
  pf_snap_opts o = opts("s", IDS);
  pf_snap s;
  bool same;
  o.full = 1;
  make(&o);
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK);
  pf_tensor t[2] = {taken(&s, "unembed.hook_out", "logits"),
                    taken(&s, "unembed.hook_out", "logits")};
  size_t v = t[0].dims[2];
  float *row = t[1].data + 7 * v;
  int32_t best = pf_argmax(row, v, NULL), other = best ? 0 : 1;
  t[1].data[3 * v + 2] += 0.25f;
  row[other] = row[best] + 3;
  t[1].data[9 * v + 4] -= 0.5f;
  ck_assert_int_eq(pf_safetensors_write(in("l.safetensors"), &t[1], 1, NULL), PF_OK);
  json_t *r = diff(o.out_dir, in("l.safetensors"), -1, &same);
  const json_t *p = json_array_get(json_object_get(r, "prompts"), 0),
               *logits = json_object_get(p, "logits"), *at = json_object_get(p, "max_abs_at");
  double kl[3], far = (double)row[other] - (double)t[0].data[7 * v + (size_t)other];
  for (int k = 0; k < 3; k++) {
    static const size_t changed[3] = {3, 7, 9};
    kl[k] = pf_kl(t[0].data + changed[k] * v, t[1].data + changed[k] * v, v);
  }
  ck_assert(!same && fabs(json_number_value(json_object_get(p, "max_abs")) - far) < 1e-6 * far);
  ck_assert_int_eq(json_integer_value(json_object_get(at, "position")), 7);
  ck_assert_int_eq(json_integer_value(json_object_get(at, "element")), other);
  ck_assert_int_eq(json_integer_value(json_object_get(logits, "top1_changed")), 1);
  ck_assert_int_eq(json_integer_value(json_object_get(logits, "positions")), N_IDS);
  ck_assert_int_eq(json_integer_value(json_object_get(logits, "kl_max_position")), 7);
  ck_assert(json_number_value(json_object_get(logits, "kl_max")) == kl[1]);
  double mean = (kl[0] + kl[1] + kl[2]) / N_IDS;
  ck_assert(fabs(json_number_value(json_object_get(logits, "kl_mean")) - mean) < 1e-9 * mean);
  json_decref(r);
  for (int i = 0; i < 2; i++)
    pf_tensor_free(&t[i]);
  pf_snap_close(&s);
}
END_TEST

/* Four positions, four heads: [position, head, key] and [head, position, key] have one shape. */
START_TEST(as_many_positions_as_heads) {
  static const char *const names[] = {"hook_pattern", "hook_attn_scores", "hook_attn_scores_raw"};
  enum { N = 4 };
  pf_snap_opts o = opts("s", "{\"ids\": [2, 5, 6, 7]}");
  pf_snap s;
  bool same;
  char out[400], file[400];
  snprintf(out, sizeof out, "%s", o.out_dir); /* in() keeps the last few names */
  snprintf(file, sizeof file, "%s", in("k.safetensors"));
  o.out_dir = out;
  o.full = 1;
  o.max_tokens = 0;
  make(&o);
  ck_assert_int_eq(pf_snap_open(&s, o.out_dir), PF_OK);
  for (int k = 0; k < 3; k++) {
    pf_values v;
    char point[64];
    float ours[N * N * N], theirs[N * N * N];
    snprintf(point, sizeof point, "blocks.2.attn.%s", names[k]);
    size_t i = (size_t)pf_points_find(&s.points, point);
    ck_assert_int_eq(pf_values_of_snap(&v, &s, 0, &s.points), PF_OK);
    ck_assert_uint_eq(s.points.v[i].heads, N);
    ck_assert_int_eq(pf_values_rows(&v, &s.points, i, 0, N, ours), PF_OK);
    pf_values_free(&v);
    for (int p = 0; p < N; p++)
      for (int h = 0; h < N; h++)
        memcpy(theirs + (h * N + p) * N, ours + (p * N + h) * N, N * sizeof *ours);
    for (int t = 0; t < N * N * N; t++) /* Hugging Face's mask */
      theirs[t] = theirs[t] == -INFINITY ? -3.4028235e38f : theirs[t];
    for (int first = 0; first < 2; first++) {
      pf_tensor t = {.name = point, .n_dims = 3, .dims = {N, N, N}, .data = first ? theirs : ours};
      ck_assert_int_eq(pf_safetensors_write(file, &t, 1, NULL), PF_OK);
      json_t *r = diff(o.out_dir, file, -1, &same);
      ck_assert_msg(same, "%s, heads first: %d: %s", names[k], first, json_dumps(r, 0));
      json_decref(r);
      t.data[(1 * N + 1) * N] *= 1.5f; /* position 1, head 1: it is compared */
      ck_assert_int_eq(pf_safetensors_write(file, &t, 1, NULL), PF_OK);
      json_decref(diff(o.out_dir, file, -1, &same));
      ck_assert(!same);
    }
  }
  pf_snap_close(&s);
}
END_TEST

START_TEST(damage_is_found) {
  pf_snap_opts o = opts("a", IDS), q = opts("b", IDS);
  pf_diff_opts d;
  pf_diff *r;
  q.precision = PF_PRECISION_BF16;
  make(&o);
  make(&q);
  pf_buf b;
  ck_assert_int_eq(pf_read_file(in("a/prompt-000000.json"), 1 << 28, &b), PF_OK);
  b.s[b.n / 2] ^= 1;
  tmp_write(dir, "a/prompt-000000.json", b.s, b.n);
  pf_buf_free(&b);
  pf_diff_defaults(&d);
  d.a = o.out_dir;
  d.b = q.out_dir;
  ck_assert_int_eq(pf_diff_run(&r, &d), PF_EINPUT);
  ck_assert_ptr_nonnull(strstr(pf_last_error(), "not the file that the manifest lists"));
  pf_snap_opts c = opts("c", IDS), e = opts("d", IDS); /* equal manifests hide nothing */
  make(&c);
  make(&e);
  d.a = c.out_dir;
  d.b = e.out_dir;
  ck_assert_int_eq(pf_diff_run(&r, &d), PF_OK);
  pf_diff_free(r);
  ck_assert_int_eq(pf_read_file(in("d/prompt-000000.json"), 1 << 28, &b), PF_OK);
  b.s[b.n / 2] ^= 1;
  tmp_write(dir, "d/prompt-000000.json", b.s, b.n);
  pf_buf_free(&b);
  ck_assert_int_eq(pf_diff_run(&r, &d), PF_EINPUT);
}
END_TEST

/* Another tensor in b's manifest, as of a model that was trained a little more. */
static void change_a_tensor(const char *snapshot) {
  char path[700];
  pf_buf b;
  snprintf(path, sizeof path, "%s/manifest.json", snapshot);
  ck_assert_int_eq(pf_read_file(path, 1 << 24, &b), PF_OK);
  char *sha = strstr(strstr(b.s, "\"tensors\""), "\"sha256\": \"");
  ck_assert_ptr_nonnull(sha);
  sha[11] = sha[11] == '0' ? '1' : '0';
  ck_assert_int_eq(pf_write_file(path, b.s, b.n), PF_OK);
  pf_buf_free(&b);
}

static bool diff_is_same(const pf_diff_opts *o, const char *junit) {
  pf_diff *d;
  char *text;
  size_t n;
  ck_assert_msg(pf_diff_run(&d, o) == PF_OK, "%s", pf_last_error());
  bool same = pf_diff_same(d);
  ck_assert_int_eq(pf_diff_report(d, PF_FORMAT_JUNIT, &text, &n), PF_OK);
  ck_assert_msg(strstr(text, junit) != NULL, "%s", text);
  ck_assert_ptr_nonnull(strstr(strstr(text, "<testsuite "), "<testcase"));
  pf_text_free(text);
  ck_assert_int_eq(pf_diff_report(d, PF_FORMAT_TEXT, &text, &n), PF_OK);
  ck_assert_ptr_nonnull(strstr(text, "tensors of the weights that differ: 1;"));
  pf_text_free(text);
  pf_diff_free(d);
  return same;
}

/* Bits: other weights are a difference of their own. A tolerance asks for the values. */
START_TEST(tolerances_are_for_other_weights_too) {
  pf_snap_opts a = opts("a", IDS), b = opts("b", IDS);
  pf_diff_opts d;
  a.full = b.full = 1;
  a.hooks = b.hooks = "blocks.*.hook_resid_post";
  make(&a);
  make(&b);
  change_a_tensor(b.out_dir);
  pf_diff_defaults(&d);
  d.a = a.out_dir;
  d.b = b.out_dir;
  ck_assert(!diff_is_same(&d, "tests=\"2\" failures=\"1\""));
  d.atol = 1e-3;
  ck_assert(diff_is_same(&d, "tests=\"1\" failures=\"0\""));
}
END_TEST

/* A snapshot of fewer points is compared over these, and that is said. */
START_TEST(points_that_one_side_lacks_are_counted) {
  pf_snap_opts a = opts("a", IDS), b = opts("b", IDS);
  pf_diff_opts o;
  pf_diff *d;
  char *text;
  size_t n;
  a.hooks = "hook_embed,blocks.*.hook_resid_post";
  b.hooks = "blocks.*.hook_resid_post,blocks.0.hook_resid_mid";
  make(&a);
  make(&b);
  pf_diff_defaults(&o);
  o.a = a.out_dir;
  o.b = b.out_dir;
  ck_assert_int_eq(pf_diff_run(&d, &o), PF_OK);
  ck_assert(pf_diff_same(d));
  ck_assert_int_eq(pf_diff_report(d, PF_FORMAT_TEXT, &text, &n), PF_OK);
  ck_assert_msg(strstr(text, "hook_points_not_compared: A 1, B 1\n") != NULL, "%s", text);
  pf_text_free(text);
  pf_diff_free(d);
}
END_TEST

/* ---- operations ------------------------------------------------------------------------------ */

/* Every point has an operation; its operands are points before it; products have weights. */
static void check_operations(const char *sub) {
  char path[1024];
  pf_model *m;
  pf_points p;
  snprintf(path, sizeof path, "%s/%s", tu_srcdir(), sub);
  ck_assert_int_eq(pf_model_open(&m, path, NULL), PF_OK);
  ck_assert_int_eq(pf_points_make(&p, m, "all,blocks.*.attn.hook_result"), PF_OK);
  for (size_t i = 0; i < p.n; i++) {
    pf_operation op;
    const char *name = p.v[i].name;
    ck_assert_msg(pf_operation_of(m, &p.v[i], &op), "%s has no operation", name);
    ck_assert_msg(op.n_operands > 0 || !strcmp(name, "hook_embed"), "%s has no operands", name);
    for (size_t k = 0; k < op.n_operands; k++) {
      ptrdiff_t at = pf_points_find(&p, op.operand[k]);
      ck_assert_msg(at >= 0 && (size_t)at < i, "%s: operand %s", name, op.operand[k]);
    }
    for (size_t k = 0; k < op.n_kernels; k++) {
      ck_assert_msg(pf_kernel_symbol(op.kernel[k], NULL) != NULL, "%s: %s", name, op.kernel[k]);
      ck_assert_msg(strncmp(op.kernel[k], "gemm", 4) || op.n_weights > 0, "%s: no weight", name);
    }
  }
  pf_points_free(&p);
  pf_model_close(m);
}

START_TEST(every_point_has_an_operation) {
  check_operations(GEMMA);
  check_operations("data/models/demo-qwen2");
  check_operations("tests/mini/g2-nocap-mqa");
  check_operations("tests/mini/q2-f32");
}
END_TEST

static json_t *tensors(const char *const *names, const char *sha) {
  json_t *list = json_array();
  for (; *names; names++)
    json_array_append_new(list, json_pack("{s:s s:s s:i s:i s:s}", "name", *names, "dtype", "BF16",
                                          "rows", 1, "cols", 1, "sha256", sha));
  return list;
}

START_TEST(tensors_in_order_of_use) {
  static const char *const names[] = {"lm_head.weight",
                                      "model.layers.10.input_layernorm.weight",
                                      "model.layers.9.mlp.down_proj.weight",
                                      "model.layers.9.self_attn.q_proj.bias",
                                      "model.layers.9.self_attn.v_proj.weight",
                                      "model.norm.weight",
                                      NULL};
  static const char *const order[] = {"model.layers.9.self_attn.q_proj.bias",
                                      "model.layers.9.self_attn.v_proj.weight",
                                      "model.layers.9.mlp.down_proj.weight",
                                      "model.layers.10.input_layernorm.weight",
                                      "model.norm.weight",
                                      "lm_head.weight"};
  for (size_t i = 0; i + 1 < sizeof order / sizeof *order; i++)
    ck_assert_msg(pf_tensor_order(order[i]) < pf_tensor_order(order[i + 1]), "%s", order[i]);
  json_t *a = tensors(names, "x"), *b = tensors(names, "y"), *c = tensors(names + 1, "x");
  bool changed;
  ck_assert_ptr_null(pf_compare_tensors(a, a, &changed));
  json_t *r = pf_compare_tensors(a, b, &changed);
  ck_assert(changed);
  ck_assert_int_eq(json_integer_value(json_object_get(r, "different")), 6);
  ck_assert_str_eq(json_string_value(json_object_get(json_object_get(r, "first"), "name")),
                   order[0]);
  json_decref(r);
  r = pf_compare_tensors(a, c, &changed); /* one is missing: other weights, none of them changed */
  ck_assert(!changed);
  ck_assert_str_eq(json_string_value(json_object_get(json_object_get(r, "first"), "name")),
                   "lm_head.weight");
  json_decref(r);
  json_decref(a);
  json_decref(b);
  json_decref(c);
}
END_TEST

/* A snapshot of residuals only: bisect watches all points and names the product. */
START_TEST(bisect_sees_what_was_not_recorded) {
  pf_snap_opts o = opts("s", IDS);
  pf_bisect_opts b = {.snapshot = o.out_dir, .isa = "scalar", .threads = 1, .chunk = 3};
  pf_diff *d;
  o.hooks = "blocks.*.hook_resid_post";
  make(&o);
  ck_assert_msg(pf_bisect_run(&d, &b) == PF_OK, "%s", pf_last_error());
  ck_assert(pf_diff_same(d));
  pf_diff_free(d);
  b.precision = PF_PRECISION_BF16;
  b.out_dir = in("kept");
  ck_assert_msg(pf_bisect_run(&d, &b) == PF_OK, "%s", pf_last_error());
  ck_assert(!pf_diff_same(d));
  const json_t *r = pf_diff_result(d), *op = json_object_get(r, "operation"),
               *k = json_array_get(json_object_get(op, "kernels"), 0),
               *x = json_array_get(json_object_get(op, "operands"), 0);
  ck_assert_str_eq(json_string_value(json_object_get(
                       json_object_get(json_object_get(r, "first"), "place"), "hook")),
                   "blocks.0.attn.hook_q");
  ck_assert_str_eq(json_string_value(json_object_get(k, "candidate")), "pf_gemm_bf16_scalar");
  ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(k, "reference")), "gemm_x3_bf16"));
  ck_assert_str_eq(json_string_value(json_object_get(x, "name")), "blocks.0.ln1.hook_out");
  ck_assert(json_is_true(json_object_get(x, "same")));
  pf_diff_free(d);
  /* the operand that was kept has the digest that was printed */
  ck_assert_int_eq(access(in("kept/bisect.json"), F_OK), 0);
  ck_assert_int_eq(access(in("kept/candidate.safetensors"), F_OK), 0);
  ck_assert_int_eq(pf_bisect_run(&d, &b), PF_EEXIST);
}
END_TEST

int main(void) {
  Suite *s = suite_create("snap");
  TCase *t = tcase_create("snap");
  suite_add_tcase(s, t);
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_set_timeout(t, 0);
  tcase_add_test(t, digests_are_of_the_rows);
  tcase_add_test(t, one_set_of_bytes);
  tcase_add_test(t, values_are_what_was_hashed);
  tcase_add_test(t, stopped_and_resumed);
  tcase_add_test(t, foreign_folders_are_left_alone);
  tcase_add_test(t, prompts_that_are_wrong);
  tcase_add_test(t, prompts_that_are_right);
  tcase_add_test(t, precisions_differ_at_the_first_product);
  tcase_add_test(t, tokens_come_after_their_logits);
  tcase_add_test(t, ulps_and_tolerances);
  tcase_add_test(t, hugging_face_names);
  tcase_add_test(t, the_order_is_the_callers);
  tcase_add_test(t, spread_of_logits);
  tcase_add_test(t, as_many_positions_as_heads);
  tcase_add_test(t, damage_is_found);
  tcase_add_test(t, tolerances_are_for_other_weights_too);
  tcase_add_test(t, points_that_one_side_lacks_are_counted);
  tcase_add_test(t, every_point_has_an_operation);
  tcase_add_test(t, tensors_in_order_of_use);
  tcase_add_test(t, bisect_sees_what_was_not_recorded);
  return tu_suite_run(s, CK_FORK_GETENV);
}
