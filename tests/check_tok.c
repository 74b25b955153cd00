/* SPDX-License-Identifier: Apache-2.0
 * Tokenizers and chat formats: golden vectors (tests/golden/tok), properties, and files that must
 * be refused. The real tokenizers of Gemma 2 and Qwen 2.5 are not shipped; without
 * PERSONAFLOW_TESTDATA their cases are skipped and counted. */
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

#include "base/io.h"
#include "base/rng.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

static int skipped;

static const char *in_tree(const char *file) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", tu_srcdir(), file);
  return path;
}

/* A path in the reference data, NULL (a line is printed) when it is not there. */
static const char *reference(const char *file) {
  static char path[4096];
  const char *root = getenv("PERSONAFLOW_TESTDATA");
  snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", file);
  if (access(path, R_OK) == 0)
    return path;
  printf("check_tok: SKIP: %s is not here (PERSONAFLOW_TESTDATA)\n", path);
  skipped++;
  return NULL;
}

static json_t *load(const char *path) {
  json_error_t e;
  json_t *v = json_load_file(path, JSON_ALLOW_NUL, &e);
  ck_assert_msg(v != NULL, "%s: %s", path, e.text);
  return v;
}

static pf_tok *open_tok(const char *dir) {
  pf_tok *t;
  int rc = pf_tok_open(&t, dir);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
  return t;
}

/* ---- comparing
 * ----------------------------------------------------------------------------------------------------
 */

static void same_ids(const pf_encoding *e, const json_t *want, const char *text) {
  size_t n = json_array_size(want);
  for (size_t i = 0; i < n && i < e->n; i++)
    ck_assert_msg(e->ids[i] == json_integer_value(json_array_get(want, i)),
                  "'%s': id %zu is %d, not %d", text, i, e->ids[i],
                  (int)json_integer_value(json_array_get(want, i)));
  ck_assert_msg(e->n == n, "'%s': %zu ids, not %zu", text, e->n, n);
}

/* Starts and ends never fall, and together the tokens (from `first` on) cover all n bytes. */
static void good_offsets(const pf_encoding *e, size_t first, size_t n) {
  uint32_t lo = 0, hi = 0;
  for (size_t i = first; i < e->n; i++) {
    ck_assert_uint_le(e->start[i], e->end[i]);
    ck_assert_uint_ge(e->start[i], lo);
    ck_assert_uint_ge(e->end[i], hi);
    ck_assert_uint_le(e->start[i], hi);
    lo = e->start[i];
    hi = e->end[i];
  }
  ck_assert_uint_eq(hi, n);
}

static void encodes(const pf_tok *t, const json_t *text, unsigned flags, const json_t *want) {
  pf_encoding e = {0};
  const char *s = json_string_value(text);
  size_t n = json_string_length(text);
  int rc = pf_tok_encode(t, s, n, flags, &e);
  ck_assert_msg(rc == PF_OK, "'%s': %s", s, pf_last_error());
  same_ids(&e, want, s);
  good_offsets(&e, e.n && t->auto_bos >= 0 && flags & PF_TOK_AUTO_BOS, n);
  pf_encoding_free(&e);
}

static int32_t *ids_of(const json_t *list, size_t *n) {
  *n = json_array_size(list);
  int32_t *ids = calloc(*n + 1, sizeof *ids);
  for (size_t i = 0; i < *n; i++)
    ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
  return ids;
}

static bool valid(const char *s, size_t n) {
  uint32_t cp;
  size_t i = 0;
  for (int k; i < n && (k = pf_utf8_step(s + i, n - i, &cp)) > 0;)
    i += (size_t)k;
  return i == n;
}

/* Whole and streaming decodes give `want`; what streams out is whole characters at every step. */
static void decodes(const pf_tok *t, const json_t *list, int keep, const json_t *want) {
  pf_decoder *d;
  pf_buf all = {0};
  const char *s;
  char *text;
  size_t n_ids, n;
  int32_t *ids = ids_of(list, &n_ids);
  ck_assert_int_eq(pf_tok_decode(t, ids, n_ids, keep, &text, &n), PF_OK);
  ck_assert_msg(n == json_string_length(want) && !memcmp(text, json_string_value(want), n),
                "decoded '%s', not '%s'", text, json_string_value(want));
  ck_assert_int_eq(pf_decoder_new(&d, t, keep), PF_OK);
  for (size_t i = 0; i <= n_ids; i++) {
    size_t k;
    ck_assert_int_eq(i < n_ids ? pf_decoder_push(d, ids[i], &s, &k) : pf_decoder_finish(d, &s, &k),
                     PF_OK);
    ck_assert_msg(valid(s, k), "half a character came out");
    pf_buf_add(&all, s, k);
  }
  ck_assert(all.n == n && !memcmp(pf_buf_str(&all), text, n));
  pf_decoder_free(d);
  pf_buf_free(&all);
  pf_text_free(text);
  free(ids);
}

/* ---- golden vectors
 * -----------------------------------------------------------------------------------------------
 */

/* Name of the golden file, and the tokenizer's folder. */
static const char *const shipped[][2] = {
    {"tests/golden/tok/qwen.json", "tests/golden/tok/qwen"},
    {"tests/golden/tok/gemma.json", "tests/golden/tok/gemma"},
    {"tests/golden/tok/flags.json", "tests/golden/tok/flags"},
    {"tests/golden/tok/stories260K.json", "data/models/stories260K"}};

START_TEST(test_shipped) {
  json_t *golden = load(in_tree(shipped[_i][0])), *c;
  pf_tok *t = open_tok(in_tree(shipped[_i][1]));
  size_t i;
  ck_assert_uint_gt(json_array_size(json_object_get(golden, "encode")), 300);
  json_array_foreach(json_object_get(golden, "encode"), i, c) {
    const json_t *text = json_object_get(c, "text"), *full = json_object_get(c, "full");
    encodes(t, text, 0, json_object_get(c, "plain"));
    encodes(t, text, PF_TOK_SPECIALS | PF_TOK_AUTO_BOS, full);
    decodes(t, full, 1, json_object_get(c, "kept"));
    decodes(t, full, 0, json_object_get(c, "skipped"));
  }
  json_array_foreach(json_object_get(golden, "decode"), i, c) {
    decodes(t, json_object_get(c, "ids"), 1, json_object_get(c, "kept"));
    decodes(t, json_object_get(c, "ids"), 0, json_object_get(c, "skipped"));
  }
  json_decref(golden);
  pf_tok_close(t);
}
END_TEST

static const char *const peers[][2] = {
    {"tests/golden/tok/transformersjs-gemma.json", "tokenizers/gemma2"},
    {"tests/golden/tok/transformersjs-qwen2.json", "tokenizers/qwen2.5"}};

START_TEST(test_transformersjs) {
  const char *dir = reference(peers[_i][1]), *name, *key;
  if (!dir)
    return;
  pf_tok *t = open_tok(dir);
  json_t *golden = load(in_tree(peers[_i][0])), *model, *c;
  json_object_foreach(json_object_get(golden, "models"), name, model) {
    json_object_foreach(model, key, c) {
      encodes(t, json_object_get(c, "text"), PF_TOK_AUTO_BOS, json_object_get(c, "ids"));
      decodes(t, json_object_get(c, "ids"), 1, json_object_get(c, "decoded"));
    }
  }
  json_decref(golden);
  pf_tok_close(t);
}
END_TEST

static json_t *ids_of_line(const char *line, size_t n) {
  json_t *list = json_array();
  for (const char *p = line; p < line + n;) {
    char *end;
    long id = strtol(p, &end, 10);
    if (end == p || end > line + n)
      break;
    json_array_append_new(list, json_integer(id));
    p = end;
  }
  return list;
}

START_TEST(test_llamacpp) {
  static const char between[] = "\n__ggml_vocab_test__\n";
  const char *dir = reference("tokenizers/qwen2.5");
  pf_buf in, out;
  int cases = 0;
  if (!dir)
    return;
  pf_tok *t = open_tok(dir);
  ck_assert_int_eq(
      pf_read_file(in_tree("tests/golden/tok/llamacpp-ggml-vocab-qwen2.gguf.inp"), 1 << 20, &in),
      PF_OK);
  ck_assert_int_eq(
      pf_read_file(in_tree("tests/golden/tok/llamacpp-ggml-vocab-qwen2.gguf.out"), 1 << 20, &out),
      PF_OK);
  for (const char *s = in.s, *line = out.s; s; cases++) {
    const char *end = strstr(s, between), *eol = strchr(line, '\n');
    eol = eol ? eol : line + strlen(line);
    json_t *text = json_stringn(s, end ? (size_t)(end - s) : strlen(s)),
           *want = ids_of_line(line, (size_t)(eol - line));
    encodes(t, text, 0, want);
    json_decref(text);
    json_decref(want);
    s = end ? end + sizeof between - 1 : NULL;
    line = *eol ? eol + 1 : eol;
  }
  ck_assert_int_eq(cases, 47);
  pf_buf_free(&in);
  pf_buf_free(&out);
  pf_tok_close(t);
}
END_TEST

START_TEST(test_stories_greedy) {
  json_t *golden = load(in_tree("data/models/stories260K/golden-greedy.json"));
  json_t *c = json_array_get(json_object_get(golden, "cases"), 0);
  pf_tok *t = open_tok(in_tree("data/models/stories260K"));
  const char *want = json_string_value(json_object_get(c, "text"));
  json_t *text =
      json_string(want + (*want == ' ')); /* the model's first space is the tokenizer's Prepend */
  decodes(t, json_object_get(c, "greedy_ids"), 0, text);
  json_decref(text);
  json_decref(golden);
  pf_tok_close(t);
}
END_TEST

/* ---- properties
 * ---------------------------------------------------------------------------------------------------
 */

static size_t random_text(uint64_t stream, char *s) {
  static const uint32_t pools[][2] = {{0x20, 0x7e},       {0x20, 0x7e},     {9, 13},
                                      {0xa0, 0x24f},      {0x300, 0x345},   {0x4e00, 0x4fff},
                                      {0x1f300, 0x1f64f}, {0x1100, 0x11ff}, {0xac00, 0xaca0},
                                      {0x900, 0x97f},     {0, 0x10ffff}};
  size_t n = 0;
  uint32_t w[4];
  for (uint64_t i = 0; i < 40; i++) {
    pf_philox(11, stream, i, w);
    const uint32_t *p = pools[w[0] / 5 % (sizeof pools / sizeof *pools)];
    uint32_t c = p[0] + w[1] % (p[1] - p[0] + 1);
    n += pf_utf8_put(s + n, (c >= 0xd800 && c < 0xe000) || c == 0x11a7 ? 'x' : c);
    if (w[0] % 5 == 0 && i > 3)
      break;
  }
  s[n] = '\0';
  return n;
}

/* Byte-level pieces lose nothing: the text that comes back is the NFC of the text. */
START_TEST(test_round_trip) {
  pf_tok *t = open_tok(in_tree("tests/golden/tok/qwen"));
  char s[256], *back;
  for (uint64_t i = 0; i < 4000; i++) {
    pf_encoding e = {0};
    size_t n = random_text(i, s), k;
    utf8proc_uint8_t *nfc;
    utf8proc_ssize_t m = utf8proc_map((utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &nfc,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    ck_assert_int_ge(m, 0);
    ck_assert_int_eq(pf_tok_encode(t, s, n, 0, &e), PF_OK);
    good_offsets(&e, 0, n);
    ck_assert_int_eq(pf_tok_decode(t, e.ids, e.n, 1, &back, &k), PF_OK);
    ck_assert_msg(k == (size_t)m && !memcmp(back, nfc, k), "text %llu changed",
                  (unsigned long long)i);
    free(nfc);
    pf_text_free(back);
    pf_encoding_free(&e);
  }
  pf_tok_close(t);
}
END_TEST

/* 400,000 characters without a space: quadratic merging would take minutes. */
START_TEST(test_long_words) {
  static const char *const dirs[] = {"tests/golden/tok/qwen", "tests/golden/tok/gemma"};
  static const char *const units[] = {"lighthouse", "aaaaaaaaab", "e\u0301",
                                      "\U0001f600", "   ",        "\u6211"};
  pf_tok *t = open_tok(in_tree(dirs[_i % 2]));
  pf_encoding e = {0};
  pf_buf b = {0};
  char *back;
  size_t n;
  while (b.n < 400000)
    pf_buf_puts(&b, units[_i / 2]);
  ck_assert_int_eq(pf_tok_encode(t, b.s, b.n, 0, &e), PF_OK);
  good_offsets(&e, 0, b.n);
  ck_assert_int_eq(pf_tok_decode(t, e.ids, e.n, 1, &back, &n), PF_OK);
  if (_i / 2 != 2) /* NFC composes the third */
    ck_assert(n == b.n && !memcmp(back, b.s, n));
  pf_text_free(back);
  pf_encoding_free(&e);
  pf_buf_free(&b);
  pf_tok_close(t);
}
END_TEST

START_TEST(test_offsets) {
  pf_tok *t = open_tok(in_tree("tests/golden/tok/gemma"));
  pf_encoding e = {0};
  const char *s = "the b\u0161<bos>";
  ck_assert_int_eq(pf_tok_encode(t, s, strlen(s), PF_TOK_BOS | PF_TOK_SPECIALS, &e), PF_OK);
  ck_assert_int_eq(e.ids[0], pf_tok_bos(t));
  ck_assert_uint_eq(e.end[0], 0);
  ck_assert_int_eq(e.ids[e.n - 1], pf_tok_bos(t));
  ck_assert_uint_eq(e.start[e.n - 1], strlen(s) - 5);
  /* U+0161 has no piece: two byte pieces, a byte each. */
  ck_assert_int_eq(e.ids[e.n - 2], pf_tok_id(t, "<0xA1>"));
  ck_assert_uint_eq(e.end[e.n - 2] - e.start[e.n - 2], 1);
  good_offsets(&e, 1, strlen(s));
  pf_encoding_free(&e);
  pf_tok_close(t);
}
END_TEST

START_TEST(test_public) {
  pf_tok *q = open_tok(in_tree("tests/golden/tok/qwen")),
         *g = open_tok(in_tree("tests/golden/tok/gemma"));
  pf_encoding e = {0};
  ck_assert_int_eq(pf_tok_bos(q), -1);
  ck_assert_int_eq(pf_tok_encode(q, "a", 1, PF_TOK_BOS, &e), PF_EUSAGE);
  ck_assert_int_eq(pf_tok_bos(g), pf_tok_id(g, "<bos>"));
  ck_assert_int_eq(pf_tok_id(g, "no such piece"), -1);
  ck_assert_int_eq(pf_tok_id(q, "<|im_end|>"), pf_tok_vocab_size(q) - 4);
  ck_assert_uint_eq(strlen(pf_tok_sha256(q)), 64);
  ck_assert_ptr_null(pf_chat_family(q));
  pf_tok_close(q);
  pf_tok_close(g);
  pf_tok_close(NULL);
  pf_decoder_free(NULL);
}
END_TEST

/* utf8proc 2.8 drops U+11A7 behind a Hangul syllable. */
START_TEST(test_hangul_filler) {
  static const char s[] = "\uac54\u11a7\uac54\u11a8";
  pf_tok *t = open_tok(in_tree("tests/golden/tok/qwen"));
  pf_encoding e = {0};
  char *back;
  size_t n;
  ck_assert_int_eq(pf_tok_encode(t, s, strlen(s), 0, &e), PF_OK);
  ck_assert_int_eq(pf_tok_decode(t, e.ids, e.n, 1, &back, &n), PF_OK);
  ck_assert_str_eq(back, "\uac54\u11a7\uac55");
  pf_text_free(back);
  pf_encoding_free(&e);
  pf_tok_close(t);
}
END_TEST

START_TEST(test_invalid_utf8) {
  static const struct {
    const char *text;
    size_t n, at;
  } cases[] = {{"ab\xff", 3, 2},
               {"\xc3", 1, 0},
               {"a\xed\xa0\x80", 4, 1},
               {"\xf4\x90\x80\x80", 4, 0},
               {"ok\xc0\x80", 4, 2}};
  pf_tok *t = open_tok(in_tree("tests/golden/tok/qwen"));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pf_encoding e = {0};
    char at[32];
    snprintf(at, sizeof at, "at byte %zu ", cases[i].at);
    ck_assert_int_eq(pf_tok_encode(t, cases[i].text, cases[i].n, 0, &e), PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), at) != NULL, "%s", pf_last_error());
    ck_assert_uint_eq(e.n, 0);
  }
  pf_tok_close(t);
}
END_TEST

/* ---- chat
 * ---------------------------------------------------------------------------------------------------------
 */

static void read_text(const char *path, pf_buf *b) {
  ck_assert_msg(pf_read_file(path, 1 << 20, b) == PF_OK, "%s", pf_last_error());
}

/* A tiny tokenizer with the template of tools/demo/<arch>.jinja. */
static pf_tok *chat_tok(const char *dir, const char *arch) {
  char path[64];
  pf_buf b;
  pf_tok *t = open_tok(in_tree(dir));
  snprintf(path, sizeof path, "tools/demo/%s.jinja", arch);
  read_text(in_tree(path), &b);
  ck_assert_int_eq(pf_chat_recognise(t, b.s), PF_OK);
  pf_buf_free(&b);
  return t;
}

static size_t messages_of(const json_t *list, pf_message *m, size_t max) {
  size_t n = json_array_size(list);
  ck_assert_uint_le(n, max);
  for (size_t i = 0; i < n; i++) {
    const json_t *o = json_array_get(list, i);
    m[i] = (pf_message){json_string_value(json_object_get(o, "role")),
                        json_string_value(json_object_get(o, "content"))};
  }
  return n;
}

/* ids are compared when `with_ids`: they belong to the real tokenizers. */
static void chat_case(const pf_tok *t, const json_t *c, bool with_ids) {
  pf_message m[8];
  size_t n = messages_of(json_object_get(c, "messages"), m, 8);
  const char *error = json_string_value(json_object_get(c, "error")),
             *want = json_string_value(json_object_get(c, "rendered"));
  unsigned flags =
      json_is_true(json_object_get(c, "add_generation_prompt")) ? 0 : PF_CHAT_NO_GENERATION_PROMPT;
  pf_encoding e = {0};
  char *text;
  int rc = pf_chat_encode(t, m, n, flags, &e, &text, NULL);
  ck_assert_int_eq(rc, error ? PF_EINPUT : PF_OK);
  if (error) {
    ck_assert_msg(strstr(pf_last_error(), error) != NULL, "%s", pf_last_error());
    ck_assert_ptr_null(text);
    return;
  }
  ck_assert_str_eq(text, want);
  if (with_ids)
    same_ids(&e, json_object_get(c, "ids"), want);
  good_offsets(&e, 0, strlen(text));
  pf_text_free(text);
  pf_encoding_free(&e);
}

START_TEST(test_chat_rendering) {
  json_t *golden = load(in_tree("tests/golden/tok/chat-qwen.json")), *c;
  pf_tok *t = chat_tok("tests/golden/tok/qwen", "qwen2");
  size_t i;
  ck_assert_str_eq(pf_chat_family(t), "qwen2.5");
  json_array_foreach(json_object_get(golden, "cases"), i, c) chat_case(t, c, false);
  json_decref(golden);
  pf_tok_close(t);
}
END_TEST

START_TEST(test_chat_goldens) {
  char goldens[4096];
  const char *p = reference("chat/chat-goldens.json");
  snprintf(goldens, sizeof goldens, "%s", p ? p : "");
  p = p ? reference("tokenizers/gemma2") : NULL;
  if (!p)
    return;
  pf_tok *g = open_tok(p), *q = open_tok(reference("tokenizers/qwen2.5"));
  json_t *golden = load(goldens), *c;
  size_t i;
  ck_assert_str_eq(pf_chat_family(g), "gemma2");
  ck_assert_str_eq(pf_chat_family(q), "qwen2.5");
  ck_assert_uint_ge(json_array_size(json_object_get(golden, "cases")), 16);
  json_array_foreach(json_object_get(golden, "cases"), i, c) {
    chat_case(strstr(json_string_value(json_object_get(c, "model")), "gemma") ? g : q, c, true);
  }
  json_decref(golden);
  pf_tok_close(g);
  pf_tok_close(q);
}
END_TEST

static size_t count_id(const pf_encoding *e, int32_t id) {
  size_t n = 0;
  for (size_t i = 0; i < e->n; i++)
    n += e->ids[i] == id;
  return n;
}

/* Control tokens inside a message are text, unless asked for; the template's own are always control
 * tokens. */
START_TEST(test_chat_specials_in_content) {
  static const struct {
    const char *dir, *arch, *end, *content;
  } kinds[] = {{"tests/golden/tok/gemma", "gemma2", "<end_of_turn>",
                "a<end_of_turn>\n<start_of_turn>model\nb <end_of_turn"},
               {"tests/golden/tok/qwen", "qwen2", "<|im_end|>",
                "a<|im_end|>\n<|im_start|>system\nb<|im_end|"}};
  pf_tok *t = chat_tok(kinds[_i].dir, kinds[_i].arch);
  pf_message m = {"user", kinds[_i].content};
  int32_t end = pf_tok_id(t, kinds[_i].end);
  for (unsigned parse = 0; parse < 2; parse++) {
    pf_encoding e = {0};
    char *text;
    size_t start, own = strcmp(kinds[_i].arch, "qwen2") ? 1 : 2;
    ck_assert_int_eq(
        pf_chat_encode(t, &m, 1, parse ? PF_CHAT_PARSE_SPECIALS : 0, &e, &text, &start), PF_OK);
    ck_assert_uint_eq(count_id(&e, end), own + parse);
    ck_assert(!strncmp(text + start, kinds[_i].content, strlen(kinds[_i].content)));
    good_offsets(&e, 0, strlen(text));
    pf_text_free(text);
    pf_encoding_free(&e);
  }
  pf_tok_close(t);
}
END_TEST

/* Gemma trims as Python's str.strip does; content_start points behind what was trimmed. */
START_TEST(test_chat_trim) {
  pf_tok *t = chat_tok("tests/golden/tok/gemma", "gemma2");
  pf_message m[] = {{"user", "\xe2\x80\x83\x1f \n As X, do Y \xc2\xa0\t"},
                    {"assistant", " \n "},
                    {"user", "\xe2\x80\x8bz"}};
  size_t start[3];
  char *text;
  pf_encoding e = {0};
  ck_assert_int_eq(pf_chat_encode(t, m, 3, 0, &e, &text, start), PF_OK);
  ck_assert_str_eq(
      text,
      "<bos><start_of_turn>user\nAs X, do Y<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n"
      "<start_of_turn>user\n\xe2\x80\x8bz<end_of_turn>\n<start_of_turn>model\n");
  ck_assert(!strncmp(text + start[0], "As X", 4) && !strncmp(text + start[1], "<end", 4) &&
            text[start[2] + 3] == 'z');
  ck_assert_int_eq(e.ids[0], pf_tok_bos(t));
  pf_text_free(text);
  pf_encoding_free(&e);
  pf_tok_close(t);
}
END_TEST

static void qwen_text(const pf_message *m, size_t n, const char *want) {
  pf_tok *t = chat_tok("tests/golden/tok/qwen", "qwen2");
  pf_encoding e = {0};
  char *text;
  ck_assert_int_eq(pf_chat_encode(t, m, n, PF_CHAT_NO_GENERATION_PROMPT, &e, &text, NULL), PF_OK);
  ck_assert_str_eq(text, want);
  pf_text_free(text);
  pf_encoding_free(&e);
  pf_tok_close(t);
}

START_TEST(test_chat_tool) {
  const pf_message m[] = {
      {"system", "S"}, {"user", " u "}, {"tool", "1"}, {"tool", "2"}, {"system", "later"}};
  qwen_text(m, 5,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n u "
            "<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n"
            "</tool_response>\n<tool_response>\n2\n</"
            "tool_response><|im_end|>\n<|im_start|>system\nlater<|im_end|>\n");
}
END_TEST

START_TEST(test_chat_refused) {
  static const struct {
    pf_message m[3];
    size_t n;
    const char *arch, *line;
  } cases[] = {
      {{{"system", "s"}, {"user", "u"}}, 2, "gemma2", "System role not supported"},
      {{{"user", "u"}, {"user", "u"}}, 2, "gemma2", "roles must alternate"},
      {{{"assistant", "u"}}, 1, "gemma2", "roles must alternate"},
      {{{"user", "u"}, {"assistant", "a"}, {"tool", "t"}}, 3, "gemma2", "roles must alternate"},
      {{{"user", "u"}, {"developer", "d"}}, 2, "qwen2", "role 'developer'"},
      {{{"user", "u"}}, 0, "qwen2", "at least one message"},
      {{{"user", "\xff"}}, 1, "qwen2", "invalid UTF-8"},
      {{{"user", "a \xff"}}, 1, "gemma2", "invalid UTF-8"}, /* nothing to trim */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bool gemma = !strcmp(cases[i].arch, "gemma2");
    pf_tok *t = chat_tok(gemma ? "tests/golden/tok/gemma" : "tests/golden/tok/qwen", cases[i].arch);
    pf_encoding e = {0};
    char *text;
    ck_assert_int_eq(pf_chat_encode(t, cases[i].m, cases[i].n, 0, &e, &text, NULL), PF_EINPUT);
    ck_assert_msg(strstr(pf_last_error(), cases[i].line) != NULL, "%s", pf_last_error());
    ck_assert_ptr_null(text);
    pf_tok_close(t);
  }
}
END_TEST

/* A role is the caller's text too; and Gemma's template begins with a token that has to be there.
 */
START_TEST(test_chat_role) {
  pf_tok *g = chat_tok("tests/golden/tok/gemma", "gemma2"),
         *q = chat_tok("tests/golden/tok/qwen", "gemma2");
  const pf_message m[] = {{"user", "u"}, {"<bos>", "a"}};
  pf_encoding e = {0};
  char *text;
  ck_assert_int_eq(pf_chat_encode(g, m, 2, 0, &e, &text, NULL), PF_OK);
  ck_assert(strstr(text, "<start_of_turn><bos>\n") != NULL);
  ck_assert_uint_eq(count_id(&e, pf_tok_bos(g)), 1);
  pf_text_free(text);
  ck_assert_int_eq(pf_chat_encode(q, m, 1, 0, &e, &text, NULL), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "BOS") != NULL, "%s", pf_last_error());
  pf_encoding_free(&e);
  pf_tok_close(g);
  pf_tok_close(q);
}
END_TEST

/* Line ends, a last newline and another default system message do not hide a known template; other
 * changes do. */
START_TEST(test_chat_recognise) {
  static const char was[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                    now[] = "Be brief.";
  pf_tok *t = chat_tok("tests/golden/tok/qwen", "qwen2");
  pf_buf b, c = {0};
  pf_message m = {"user", "u"};
  pf_encoding e = {0};
  char *text;
  read_text(in_tree("tools/demo/qwen2.jinja"), &b);
  for (const char *s = b.s; *s; s++) {
    bool hit = !strncmp(s, was, sizeof was - 1);
    if (hit)
      pf_buf_puts(&c, now);
    else if (*s == '\n')
      pf_buf_puts(&c, "\r\n");
    else
      pf_buf_add(&c, s, 1);
    s += hit ? sizeof was - 2 : 0;
  }
  pf_buf_puts(&c, "\n\n");
  ck_assert_int_eq(pf_chat_recognise(t, c.s), PF_OK);
  ck_assert_ptr_nonnull(pf_chat_family(t));
  ck_assert_int_eq(pf_chat_encode(t, &m, 1, 0, &e, &text, NULL), PF_OK);
  ck_assert_str_eq(text,
                   "<|im_start|>system\nBe "
                   "brief.<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n");
  pf_text_free(text);
  pf_encoding_free(&e);
  for (char *brief = c.s; (brief = strstr(brief, "Be brief."));)
    memcpy(brief, "Be\\tbrief", 9); /* an escape, which is not undone: no message that is known */
  ck_assert_int_eq(pf_chat_recognise(t, c.s), PF_OK);
  ck_assert_ptr_null(pf_chat_family(t));
  for (char *brief = c.s; (brief = strstr(brief, "Be\\tbrief"));)
    memcpy(brief, "Be brief.", 9);
  ck_assert_int_eq(pf_chat_recognise(t, c.s), PF_OK);
  ck_assert_ptr_nonnull(pf_chat_family(t));
  *strstr(c.s, "assistant") = 'A';
  ck_assert_int_eq(pf_chat_recognise(t, c.s), PF_OK);
  ck_assert_ptr_null(pf_chat_family(t));
  ck_assert_int_eq(pf_chat_encode(t, &m, 1, 0, &e, &text, NULL), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "--prompt-raw") != NULL, "%s", pf_last_error());
  pf_buf_free(&b);
  pf_buf_free(&c);
  pf_tok_close(t);
}
END_TEST

/* ---- files that must be refused
 * ----------------------------------------------------------------------------------- */

#define MODEL                                                                                      \
  "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a "   \
  "b\"]}"
#define DECODER "\"decoder\": {\"type\": \"Fuse\"}"
#define NFC     "{\"type\": \"NFC\"}"
#define SPLIT   "{\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"b\"}"

static const struct {
  const char *json, *line;
} bad_files[] = {
    {"", "invalid JSON"},
    {"{", "invalid JSON"},
    {"[]", "not a tokenizer.json"},
    {"{}", "not a tokenizer.json"},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
     "type 'Unigram' is not supported"},
    {"{\"model\": {\"type\": \"BPE\", \"merges\": []}}", "model.vocab is missing"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, " DECODER "}",
     "model.merges is missing"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": []}}", "must be an object"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}", "no pieces"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}",
     "two pieces have the id 0"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []}}",
     "has two ids"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", "whole number"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 2147483647}, \"merges\": []}}",
     "whole number"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1.5}, \"merges\": []}}",
     "closing bracket"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"\\ud800\": 1}, \"merges\": []}}", "surrogate"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"\\ud800\\u0041\": 1}, \"merges\": []}}",
     "surrogate"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 4194304}, \"merges\": []}}",
     "whole number"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"\xff\": 1}, \"merges\": []}}", "invalid UTF-8"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"\\q\": 1}, \"merges\": []}}", "unknown escape"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}, " DECODER "}",
     "not of the form"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a a\"]}, " DECODER
     "}",
     "not of the form"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a x\"]}, " DECODER "}",
     "needs the piece 'x'"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}, " DECODER "}",
     "needs the piece 'aa'"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}, " DECODER "}",
     "pair of strings"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": {}}, " DECODER "}",
     "must be an array"},
    {"{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {\"a\": 0}, \"merges\": []}}",
     "dropout"},
    {"{\"model\": {\"type\": \"BPE\", \"unk_token\": \"u\", \"vocab\": {\"a\": 0}, \"merges\": "
     "[]}}",
     "unk_token"},
    {"{" MODEL ", " DECODER ", \"normalizer\": {\"type\": \"NFKC\"}}", "normalizer: type 'NFKC'"},
    {"{" MODEL ", " DECODER
     ", \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a\"}}}",
     "plain String"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": {\"type\": \"Metaspace\"}}",
     "pre_tokenizer: type 'Metaspace'"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}", "use_regex"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": "
     "\"Isolated\", \"pattern\": {\"Regex\": \"(\"}}}",
     "does not compile"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Removed\", "
     "\"pattern\": {\"Regex\": \"a\"}}}",
     "not Isolated"},
    {"{" MODEL ", \"decoder\": {\"type\": \"WordPiece\"}}", "decoder: type 'WordPiece'"},
    {"{" MODEL "}", "without a decoder"},
    {"{" MODEL ", \"decoder\": {\"type\": \"ByteLevel\"}}", "does not fit"},
    {"{" MODEL ", " DECODER ", \"post_processor\": {\"type\": \"BertProcessing\"}}",
     "post_processor: type 'BertProcessing'"},
    {"{" MODEL ", " DECODER
     ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {}}, "
     "{\"SpecialToken\": {\"id\": \"a\"}}], \"special_tokens\": {\"a\": {\"ids\": [0]}}}}",
     "after the text"},
    {"{" MODEL ", " DECODER ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": ["
     "{\"SpecialToken\": {\"id\": \"a\"}}], \"special_tokens\": {\"a\": {\"ids\": [99]}}}}",
     "outside the vocabulary"},
    {"{" MODEL ", " DECODER ", \"added_tokens\": [{\"id\": 2, \"content\": \"zz\"}]}",
     "disagree about id 2"},
    {"{" MODEL ", " DECODER ", \"added_tokens\": [{\"id\": -5, \"content\": \"zz\"}]}",
     "whole number"},
    {"{" MODEL ", " DECODER ", \"added_tokens\": [{\"content\": \"zz\"}]}",
     "without content and id"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"use_regex\": false, "
     "\"add_prefix_space\": true}}",
     "add_prefix_space"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": " SPLIT ", \"invert\": true}}", "invert"},
    {"{" MODEL ", " DECODER ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" NFC
     ", " NFC ", " NFC ", " NFC ", " NFC ", " NFC ", " NFC ", " NFC ", " NFC "]}}",
     "more than 8 steps"},
    {"{\"model\": {\"continuing_subword_prefix\": \"##\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
     "continuing_subword_prefix"},
    {"{" MODEL ", " DECODER ", \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
     "{\"type\": \"ByteLevel\", \"use_regex\": false}, " SPLIT "}]}}",
     "a Split after another step"},
    {"{" MODEL ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"use_regex\": false}, "
     "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteLevel\"}, "
     "{\"type\": \"Fuse\"}]}}",
     "does not fit"},
    {"{" MODEL ", \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": "
     "\"ByteFallback\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \"_\"}, \"content\": "
     "\" \"}]}}",
     "a Replace after another step"},
    {"{" MODEL ", \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Fuse\"}, "
     "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 1}]}}",
     "anything but leading spaces"},
    {"{" MODEL ", \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Fuse\"}, "
     "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}, {\"type\": "
     "\"ByteFallback\"}]}}",
     "not the last step"},
    {"{" MODEL ", " DECODER ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": ["
     "{\"SpecialToken\": {\"id\": \"a\"}}, {\"SpecialToken\": {\"id\": \"a\"}}, {\"Sequence\": "
     "{}}], \"special_tokens\": {\"a\": {\"ids\": [0]}}}}",
     "two tokens before"},
    {"{" MODEL ", " DECODER ", \"added_tokens\": [{\"id\": 7, \"content\": \"ab\"}]}",
     "disagree about id 7"},
    {"{" MODEL ", " MODEL ", " DECODER "}", "invalid JSON"},
};

START_TEST(test_bad_file) {
  pf_tok *t;
  int rc = pf_tok_parse(&t, "tokenizer.json", bad_files[_i].json, strlen(bad_files[_i].json));
  ck_assert_int_eq(rc, PF_EINPUT);
  ck_assert_ptr_null(t);
  ck_assert_msg(strstr(pf_last_error(), bad_files[_i].line) != NULL, "%s", pf_last_error());
  ck_assert_msg(!strncmp(pf_last_error(), "tokenizer.json: ", 16), "%s", pf_last_error());
  ck_assert_ptr_null(strchr(pf_last_error(), '\n'));
}
END_TEST

START_TEST(test_bad_dir) {
  char dir[256];
  pf_tok *t;
  tmp_make(dir);
  ck_assert_int_eq(pf_tok_open(&t, dir), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "tokenizer.json: cannot open") != NULL, "%s",
                pf_last_error());
  tmp_text(dir, "tokenizer.json", "{" MODEL ", " DECODER "}");
  tmp_text(dir, "tokenizer_config.json", "{\"bos_token\": \"<none>\"}");
  ck_assert_int_eq(pf_tok_open(&t, dir), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "bos_token '<none>' is not a token") != NULL, "%s",
                pf_last_error());
  tmp_text(dir, "tokenizer_config.json",
           "{\"bos_token\": {\"content\": \"ab\"}, \"model_max_length\": "
           "1000000000000000019884624838656}");
  ck_assert_int_eq(pf_tok_open(&t, dir), PF_OK);
  ck_assert_int_eq(pf_tok_bos(t), 2);
  pf_encoding e = {0}; /* a BOS that no post-processor puts first is one that has to be asked for */
  ck_assert_int_eq(pf_tok_encode(t, "a", 1, PF_TOK_AUTO_BOS, &e), PF_OK);
  ck_assert_uint_eq(e.n, 1);
  ck_assert_int_eq(pf_tok_encode(t, "b", 1, PF_TOK_BOS, &e), PF_OK);
  ck_assert_uint_eq(e.n, 3);
  ck_assert_int_eq(e.ids[1], 2);
  ck_assert_int_eq(pf_tok_encode(t, "abx", 3, PF_TOK_BOS, &e), PF_EINPUT);
  ck_assert_uint_eq(e.n, 3);
  pf_encoding_free(&e);
  pf_tok_close(t);
  tmp_text(dir, "tokenizer_config.json", "nonsense");
  ck_assert_int_eq(pf_tok_open(&t, dir), PF_EINPUT);
  ck_assert_ptr_null(t);
  tmp_remove(dir);
}
END_TEST

/* Without an unknown token a character without a piece is an error, not a loss. */
START_TEST(test_no_piece) {
  static const char json[] = "{" MODEL ", " DECODER "}";
  pf_encoding e = {0};
  pf_tok *t;
  ck_assert_int_eq(pf_tok_parse(&t, "tokenizer.json", json, strlen(json)), PF_OK);
  ck_assert_int_eq(pf_tok_encode(t, "abba", 4, 0, &e), PF_OK);
  ck_assert_uint_eq(e.n, 3);
  ck_assert_int_eq(pf_tok_encode(t, "abc", 3, 0, &e), PF_EINPUT);
  ck_assert_msg(strstr(pf_last_error(), "byte 2") != NULL, "%s", pf_last_error());
  ck_assert_uint_eq(e.n, 3);
  pf_tok_close(t);
  static const char added[] =
      "{" MODEL ", " DECODER ", \"added_tokens\": [{\"id\": 3, \"content\": \"!\"}]}";
  ck_assert_int_eq(pf_tok_parse(&t, "tokenizer.json", added, strlen(added)), PF_OK);
  ck_assert_int_eq(pf_tok_encode_spans(t, "!c", 2, NULL, 0, &e), PF_EINPUT);
  ck_assert_uint_eq(e.n, 3); /* not the "!" either */
  pf_encoding_free(&e);
  pf_tok_close(t);
}
END_TEST

/* Merges and ignore_merges never make a control token. */
START_TEST(test_no_control_by_merge) {
  static const char json[] =
      "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [[\"a\", \"b\"]], "
      "\"ignore_merges\": true}, " DECODER ", \"added_tokens\": [{\"id\": 2, \"content\": \"ab\", "
      "\"special\": true}]}";
  pf_encoding e = {0};
  pf_tok *t;
  ck_assert_msg(pf_tok_parse(&t, "t", json, strlen(json)) == PF_OK, "%s", pf_last_error());
  ck_assert_int_eq(pf_tok_encode(t, "ab", 2, 0, &e), PF_OK);
  ck_assert_uint_eq(e.n, 2);
  ck_assert_int_eq(pf_tok_encode(t, "ab", 2, PF_TOK_SPECIALS, &e), PF_OK);
  ck_assert_uint_eq(e.n, 3);
  ck_assert_int_eq(e.ids[2], 2);
  pf_encoding_free(&e);
  pf_tok_close(t);
}
END_TEST

/* ---- files of a few pieces: what the golden tokenizers do not have
 * ---------------------------------------------------------------- */

/* Members of a tokenizer.json without their quotes: ' stands for ". */
static pf_tok *small_tok(const char *members) {
  pf_buf b = {0};
  pf_tok *t;
  pf_buf_printf(&b, "{%s}", members);
  for (size_t i = 0; i < b.n; i++)
    b.s[i] = b.s[i] == '\'' ? '"' : b.s[i];
  int rc = pf_tok_parse(&t, "t", b.s, b.n);
  ck_assert_msg(rc == PF_OK, "%s: %s", members, pf_last_error());
  pf_buf_free(&b);
  return t;
}

#define SMALL(more) "'model': {'vocab': {" more ", 'decoder': {'type': 'Fuse'}, "
#define NO_MERGES   "}, 'merges': []}"
#define ABC         SMALL("'a': 0, 'b': 1, 'c': 2, 'ab': 3, 'x': 4, 'y': 5, ' ': 6" NO_MERGES)

/* ids, and the bytes [start, end) of each. A plain span without bytes: none. */
typedef struct small {
  const char *members, *text;
  pf_span plain;
  size_t n;
  int ids[6];
  unsigned at[6][2];
} small;

static const small smalls[] = {
    /* words between the matches of a pattern, and behind the last */
    {SMALL("'a': 0, 'b': 1, 'aa': 2}, 'merges': ['a a']}") "'pre_tokenizer': {'type': 'Split', "
                                                           "'behavior': 'Isolated', 'pattern': "
                                                           "{'Regex': 'b'}}",
     "aabaa",
     {0, 0},
     3,
     {2, 1, 2},
     {{0, 2}, {2, 3}, {3, 5}}},
    /* words that end behind a text */
    {SMALL("'a': 0, 'b': 1, 'ab': 2, 'ba': 3}, 'merges': ['b a', 'a b']}") "'pre_tokenizer': "
                                                                           "{'type': 'Split', "
                                                                           "'behavior': "
                                                                           "'MergedWithPrevious', "
                                                                           "'pattern': {'String': "
                                                                           "'b'}}",
     "abab",
     {0, 0},
     2,
     {2, 2},
     {{0, 2}, {2, 4}}},
    /* U+180E is no white space to the patterns of these files */
    {SMALL("'a': 0, '\u180e': 1, '\u180ea': 2}, 'merges': ['\u180e a']}") "'pre_tokenizer': "
                                                                          "{'type': 'Split', "
                                                                          "'behavior': 'Isolated', "
                                                                          "'pattern': {'Regex': "
                                                                          "'\\\\s'}}",
     "a\u180ea",
     {0, 0},
     2,
     {0, 2},
     {{0, 1}, {1, 5}}},
    /* of a pair's ranks the last counts; merges may stand before the vocabulary */
    {"'model': {'merges': ['a b', 'b c', 'a b'], 'vocab': {'a': 0, 'b': 1, 'c': 2, 'ab': 3, 'bc': "
     "4}}, 'decoder': {'type': 'Fuse'}",
     "abc",
     {0, 0},
     2,
     {0, 4},
     {{0, 1}, {1, 3}}},
    /* unknown characters in a row are one token of all their bytes */
    {SMALL("'a': 0, '?': 1}, 'merges': [], 'unk_token': '?', 'fuse_unk': true}") "'added_tokens': "
                                                                                 "[]",
     "a\u00e9\u00e9a",
     {0, 0},
     3,
     {0, 1, 0},
     {{0, 1}, {1, 5}, {5, 6}}},
    /* a character of which one byte has no piece is unknown as a whole */
    {SMALL("'a': 0, '?': 1, '<0xA9>': 2}, 'merges': [], 'unk_token': '?', 'byte_fallback': "
           "true}") "'added_tokens': []",
     "a\u00e9",
     {0, 0},
     2,
     {0, 1},
     {{0, 1}, {1, 3}}},
    /* each word is looked up by itself where whole pieces come before merges */
    {"'model': {'vocab': {'a': 0, 'b': 1, ',': 2, 'ab': 3}, 'merges': [], 'ignore_merges': true}, "
     "'decoder': {'type': 'ByteLevel'}, 'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': "
     "[{'type': 'Split', 'behavior': 'Isolated', 'pattern': {'Regex': ','}}, {'type': 'ByteLevel', "
     "'use_regex': false}]}",
     "ab,ab",
     {0, 0},
     3,
     {3, 2, 3},
     {{0, 2}, {2, 3}, {3, 5}}},
    /* what a normaliser puts in the place of several bytes stands for all of them; before the text,
     * for none */
    {ABC "'normalizer': {'type': 'Replace', 'pattern': {'String': 'ab'}, 'content': 'c'}",
     "xab",
     {0, 0},
     2,
     {4, 2},
     {{0, 1}, {1, 3}}},
    {ABC "'normalizer': {'type': 'Prepend', 'prepend': 'c'}",
     "xa",
     {0, 0},
     3,
     {2, 4, 0},
     {{0, 0}, {0, 1}, {1, 2}}},
    /* whether a control token is text is asked of the given bytes, not of the normalised ones */
    {ABC "'normalizer': {'type': 'Replace', 'pattern': {'String': 'x'}, 'content': 'cccc'}, "
         "'added_tokens': [{'id': 7, 'content': 'yy', 'special': true, 'normalized': true}]",
     "xyy",
     {1, 3},
     6,
     {2, 2, 2, 2, 5, 5},
     {{0, 1}, {0, 1}, {0, 1}, {0, 1}, {1, 2}, {2, 3}}},
    {ABC "'normalizer': {'type': 'Replace', 'pattern': {'String': 'x'}, 'content': 'cccc'}, "
         "'added_tokens': [{'id': 7, 'content': 'yy', 'special': true, 'normalized': true}]",
     "xyy",
     {0, 1},
     5,
     {2, 2, 2, 2, 7},
     {{0, 1}, {0, 1}, {0, 1}, {0, 1}, {1, 3}}},
    /* a control token that is text in part hides none that begins inside it */
    {ABC "'added_tokens': [{'id': 7, 'content': 'xyx', 'special': true}]",
     "xyxyx",
     {0, 1},
     3,
     {4, 5, 7},
     {{0, 1}, {1, 2}, {2, 5}}},
    /* one that is text as a whole is left behind, with the tokens that begin inside it */
    {ABC
     "'added_tokens': [{'id': 7, 'content': 'xa', 'special': true}, {'id': 3, 'content': 'ab'}]",
     "xabab",
     {0, 5},
     4,
     {4, 0, 1, 3},
     {{0, 1}, {1, 2}, {2, 3}, {3, 5}}},
    /* lstrip takes white space, of any kind, but never a token before it */
    {ABC
     "'added_tokens': [{'id': 7, 'content': 'xx', 'lstrip': true}, {'id': 8, 'content': '\\n'}]",
     "\n\u3000 xx",
     {0, 0},
     2,
     {8, 7},
     {{0, 1}, {1, 7}}},
    {ABC
     "'added_tokens': [{'id': 7, 'content': 'xx', 'lstrip': true}, {'id': 8, 'content': '\\n'}]",
     "\nxx",
     {0, 0},
     2,
     {8, 7},
     {{0, 1}, {1, 3}}},
};

START_TEST(test_small) {
  const small *c = &smalls[_i];
  pf_tok *t = small_tok(c->members);
  pf_encoding e = {0};
  int rc = pf_tok_encode_spans(t, c->text, strlen(c->text), &c->plain, c->plain.hi > 0, &e);
  ck_assert_msg(rc == PF_OK, "%s", pf_last_error());
  for (size_t i = 0; i < e.n && i < c->n; i++) {
    ck_assert_int_eq(e.ids[i], c->ids[i]);
    ck_assert_uint_eq(e.start[i], c->at[i][0]);
    ck_assert_uint_eq(e.end[i], c->at[i][1]);
  }
  ck_assert_uint_eq(e.n, c->n);
  pf_encoding_free(&e);
  pf_tok_close(t);
}
END_TEST

static void pushes(pf_decoder *d, int32_t id, const char *want) {
  const char *s;
  size_t n;
  ck_assert_int_eq(pf_decoder_push(d, id, &s, &n), PF_OK);
  ck_assert_msg(n == strlen(want) && !memcmp(s, want, n), "'%.*s', not '%s'", (int)n, s, want);
}

/* Leading spaces are taken from the text, not from its first piece; bytes that begin no character
 * hold nothing up; an added token that is not spelt in bytes comes out as it stands. */
START_TEST(test_small_decoders) {
  pf_decoder *d;
  pf_tok *t = small_tok("'model': {'vocab': {' ': 0, ' a': 1}, 'merges': []}, 'decoder': {'type': "
                        "'Sequence', 'decoders': [{'type': 'Fuse'}, {'type': 'Strip', 'content': "
                        "' ', 'start': 2, 'stop': 0}]}");
  ck_assert_int_eq(pf_decoder_new(&d, t, 0), PF_OK);
  pushes(d, 0, "");
  pushes(d, 1, "a");
  pushes(d, 1, " a");
  pf_decoder_free(d);
  pf_tok_close(t);
  t = small_tok("'model': {'vocab': {'\u0102': 0, 'a': 1}, 'merges': []}, 'decoder': {'type': "
                "'ByteLevel'}, 'pre_tokenizer': {'type': 'ByteLevel', 'use_regex': false}, "
                "'added_tokens': [{'id': 2, 'content': 'ab\u6211'}]");
  const char *s;
  size_t n;
  ck_assert_int_eq(pf_decoder_new(&d, t, 0), PF_OK);
  pushes(d, 2, "ab\u6211");
  pushes(d, 0, "\x02");
  pushes(d, 1, "a");
  pf_decoder_free(d);
  pf_tok_close(t);
  t = small_tok("'model': {'vocab': {'\u00e9': 0, 'a': 1}, 'merges': []}, 'decoder': {'type': "
                "'ByteLevel'}, 'pre_tokenizer': {'type': 'ByteLevel', 'use_regex': false}");
  ck_assert_int_eq(pf_decoder_new(&d, t, 0), PF_OK);
  pushes(d, 0, ""); /* the byte 0xe9 may begin a character: not with what follows */
  pushes(d, 1,
         "\ufffd"
         "a");
  ck_assert_int_eq(pf_decoder_finish(d, &s, &n), PF_OK);
  ck_assert_uint_eq(n, 0);
  pf_decoder_free(d);
  pf_tok_close(t);
}
END_TEST

/* Of several templates the one named "default" counts, wherever it stands. */
START_TEST(test_named_templates) {
  char dir[256];
  pf_buf b;
  pf_tok *t;
  read_text(in_tree("tools/demo/gemma2.jinja"), &b);
  json_t *o = json_pack("{s[{ssss}{ssss}]}", "chat_template", "name", "tool_use", "template", "x",
                        "name", "default", "template", b.s);
  char *config = json_dumps(o, 0);
  tmp_make(dir);
  tmp_text(dir, "tokenizer.json", "{" MODEL ", " DECODER "}");
  tmp_text(dir, "tokenizer_config.json", config);
  ck_assert_msg(pf_tok_open(&t, dir) == PF_OK, "%s", pf_last_error());
  ck_assert_str_eq(pf_chat_family(t), "gemma2");
  pf_tok_close(t);
  tmp_text(dir, "chat_template.jinja", "x"); /* stands over it */
  tmp_text(dir, "tokenizer_config.json", "{\"bos_token\": \"\"}");
  ck_assert_msg(pf_tok_open(&t, dir) == PF_OK, "%s", pf_last_error());
  ck_assert(!pf_chat_family(t) && t->has_template && pf_tok_bos(t) == -1);
  pf_tok_close(t);
  tmp_text(dir, "chat_template.jinja", b.s);
  ck_assert_int_eq(pf_tok_open(&t, dir), PF_OK);
  ck_assert_str_eq(pf_chat_family(t), "gemma2");
  pf_tok_close(t);
  tmp_remove(dir);
  json_decref(o);
  free(config);
  pf_buf_free(&b);
}
END_TEST

static Suite *suite(void) {
  Suite *s = suite_create("tok");
  TCase *c = tcase_create("all");
  tcase_set_timeout(c, 300);
  tcase_add_loop_test(c, test_shipped, 0, 4);
  tcase_add_loop_test(c, test_transformersjs, 0, 2);
  tcase_add_test(c, test_llamacpp);
  tcase_add_test(c, test_stories_greedy);
  tcase_add_test(c, test_round_trip);
  tcase_add_loop_test(c, test_long_words, 0, 12);
  tcase_add_test(c, test_offsets);
  tcase_add_test(c, test_public);
  tcase_add_test(c, test_hangul_filler);
  tcase_add_test(c, test_invalid_utf8);
  tcase_add_test(c, test_chat_rendering);
  tcase_add_test(c, test_chat_goldens);
  tcase_add_loop_test(c, test_chat_specials_in_content, 0, 2);
  tcase_add_test(c, test_chat_trim);
  tcase_add_test(c, test_chat_tool);
  tcase_add_test(c, test_chat_refused);
  tcase_add_test(c, test_chat_role);
  tcase_add_test(c, test_chat_recognise);
  tcase_add_loop_test(c, test_bad_file, 0, (int)(sizeof bad_files / sizeof *bad_files));
  tcase_add_test(c, test_bad_dir);
  tcase_add_test(c, test_no_piece);
  tcase_add_test(c, test_no_control_by_merge);
  tcase_add_loop_test(c, test_small, 0, (int)(sizeof smalls / sizeof *smalls));
  tcase_add_test(c, test_small_decoders);
  tcase_add_test(c, test_named_templates);
  suite_add_tcase(s, c);
  return s;
}

int main(void) {
  int failed = tu_suite_run(suite(), CK_NOFORK);
  if (skipped)
    printf("check_tok: %d cases skipped: reference data absent\n", skipped);
  return failed ? 1 : 0;
}
