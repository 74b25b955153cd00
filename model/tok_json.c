/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json (and the BOS and template of tokenizer_config.json) to a tokeniser. Every kind of
 * normaliser, pre-tokeniser, post-processor, decoder and model that is not known here is refused by
 * name: a text tokenised almost right is worse than an error. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

#define MAX_FILE ((size_t)512 << 20)

/* Where we are in the file, for error lines, and what is being built. */
typedef struct reader {
  pf_tok *t;
  const char *name;
  const char *section;
} reader;

static int refuse(const reader *r, const char *what) {
  return pf_fail(PF_EINPUT, "%s: %s: %s is not supported", r->name, r->section, what);
}

static int refuse_type(const reader *r, const char *type) {
  return pf_fail(PF_EINPUT, "%s: %s: type '%.80s' is not supported", r->name, r->section, type);
}

static int malformed(const reader *r, const char *what) {
  return pf_fail(PF_EINPUT, "%s: %s: %s", r->name, r->section, what);
}

static const char *text_of(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return s ? s : "";
}

static bool is_on(const json_t *o, const char *key) {
  return json_is_true(json_object_get(o, key));
}

/* ---- steps by type
 * ---------------------------------------------------------------------------------------------- */

typedef int (*step_fn)(reader *r, const json_t *step);
typedef struct step_kind {
  const char *type;
  step_fn read;
} step_kind;

static int read_step(reader *r, const json_t *step, const step_kind *kinds) {
  const char *type = text_of(step, "type");
  for (; kinds->type; kinds++)
    if (!strcmp(type, kinds->type))
      return kinds->read(r, step);
  return refuse_type(r, type);
}

/* A section is null, one step, or a Sequence of steps under `list`. */
static int read_section(reader *r, const json_t *root, const char *section, const char *list,
                        const step_kind *kinds) {
  const json_t *o = json_object_get(root, section), *step;
  r->section = section;
  if (!o || json_is_null(o))
    return PF_OK;
  if (!json_is_object(o))
    return malformed(r, "must be an object or null");
  if (strcmp(text_of(o, "type"), "Sequence"))
    return read_step(r, o, kinds);
  size_t i;
  int rc =
      json_is_array(json_object_get(o, list)) ? PF_OK : malformed(r, "a Sequence without its list");
  json_array_foreach(json_object_get(o, list), i, step) {
    if (rc == PF_OK)
      rc = read_step(r, step, kinds);
  }
  return rc;
}

/* The String of a pattern; other patterns are refused. */
static int string_pattern(const reader *r, const json_t *step, const char **out) {
  *out = text_of(json_object_get(step, "pattern"), "String");
  return **out ? PF_OK : refuse(r, "a pattern that is not a plain String");
}

/* ---- normaliser
 * -------------------------------------------------------------------------------------------------
 */

static int add_norm(reader *r, pf_norm_kind kind, const char *from, const char *to) {
  pf_tok *t = r->t;
  if (t->n_norms == PF_MAX_STEPS)
    return refuse(r, "a Sequence of more than 8 steps");
  pf_norm *n = &t->norms[t->n_norms++];
  *n = (pf_norm){kind, pf_strdup(from), pf_strdup(to)};
  return n->from && n->to ? PF_OK : PF_ENOMEM;
}

static int norm_nfc(reader *r, const json_t *step) {
  (void)step;
  return add_norm(r, PF_NORM_NFC, "", "");
}

static int norm_replace(reader *r, const json_t *step) {
  const char *from;
  int rc = string_pattern(r, step, &from);
  return rc == PF_OK ? add_norm(r, PF_NORM_REPLACE, from, text_of(step, "content")) : rc;
}

static int norm_prepend(reader *r, const json_t *step) {
  return add_norm(r, PF_NORM_PREPEND, "", text_of(step, "prepend"));
}

static const step_kind norm_kinds[] = {
    {"NFC", norm_nfc}, {"Replace", norm_replace}, {"Prepend", norm_prepend}, {NULL, NULL}};

/* ---- pre-tokeniser
 * ---------------------------------------------------------------------------------------------- */

/* The files' patterns are written for Oniguruma, whose \s is the Unicode property White_Space;
 * PCRE2's also holds U+180E. */
static int translate_pattern(const char *p, pf_buf *out) {
  for (; *p; p++) {
    size_t n = p[0] == '\\' && p[1] ? 2 : 1;
    if (n == 2 && p[1] == 's')
      pf_buf_puts(out, "\\p{White_Space}");
    else if (n == 2 && p[1] == 'S')
      pf_buf_puts(out, "\\P{White_Space}");
    else
      pf_buf_add(out, p, n);
    p += n - 1;
  }
  return pf_buf_status(out);
}

static int compile_split(reader *r, const char *pattern) {
  pf_buf b = {0};
  int rc = translate_pattern(pattern, &b), code;
  PCRE2_SIZE at;
  if (rc == PF_OK) {
    r->t->split = pcre2_compile((PCRE2_SPTR)b.s, b.n,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!r->t->split) {
      char why[128];
      pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
      rc = pf_fail(PF_EINPUT, "%s: %s: the pattern does not compile: %s", r->name, r->section, why);
    } else {
      pcre2_jit_compile(r->t->split,
                        PCRE2_JIT_COMPLETE); /* without JIT the interpreter does the same */
    }
  }
  pf_buf_free(&b);
  return rc;
}

static int pre_split(reader *r, const json_t *step) {
  pf_tok *t = r->t;
  const char *regex = text_of(json_object_get(step, "pattern"), "Regex"), *string;
  const char *behavior = text_of(step, "behavior");
  if (is_on(step, "invert"))
    return refuse(r, "Split with invert");
  if (t->split || t->split_after || t->byte_level)
    return refuse(r, "a Split after another step");
  if (*regex)
    return strcmp(behavior, "Isolated")
               ? refuse(r, "a Split by Regex whose behavior is not Isolated")
               : compile_split(r, regex);
  int rc = string_pattern(r, step, &string);
  if (rc == PF_OK && strcmp(behavior, "MergedWithPrevious"))
    return refuse(r, "a Split by String whose behavior is not MergedWithPrevious");
  if (rc == PF_OK && !(t->split_after = pf_strdup(string)))
    rc = PF_ENOMEM;
  return rc;
}

static int pre_byte_level(reader *r, const json_t *step) {
  const json_t *regex = json_object_get(step, "use_regex");
  if (is_on(step, "add_prefix_space"))
    return refuse(r, "ByteLevel with add_prefix_space");
  if (!regex || json_is_true(regex))
    return refuse(r, "ByteLevel with use_regex");
  r->t->byte_level = true;
  return PF_OK;
}

static const step_kind pre_kinds[] = {
    {"Split", pre_split}, {"ByteLevel", pre_byte_level}, {NULL, NULL}};

/* ---- decoder
 * ----------------------------------------------------------------------------------------------------
 */

static int dec_byte_level(reader *r, const json_t *step) {
  (void)step;
  r->t->dec.byte_level = true;
  return PF_OK;
}

static int dec_replace(reader *r, const json_t *step) {
  const char *from;
  int rc = string_pattern(r, step, &from);
  if (rc != PF_OK)
    return rc;
  if (r->t->dec.from || r->t->dec.byte_fallback)
    return refuse(r, "a Replace after another step");
  r->t->dec.from = pf_strdup(from);
  r->t->dec.to = pf_strdup(text_of(step, "content"));
  return r->t->dec.from && r->t->dec.to ? PF_OK : PF_ENOMEM;
}

static int dec_byte_fallback(reader *r, const json_t *step) {
  (void)step;
  r->t->dec.byte_fallback = true;
  return PF_OK;
}

/* Pieces are always joined: nothing to do. */
static int dec_fuse(reader *r, const json_t *step) {
  (void)r;
  (void)step;
  return PF_OK;
}

static int dec_strip(reader *r, const json_t *step) {
  json_int_t start = json_integer_value(json_object_get(step, "start"));
  if (strcmp(text_of(step, "content"), " ") || start < 0 ||
      json_integer_value(json_object_get(step, "stop")) != 0)
    return refuse(r, "a Strip of anything but leading spaces");
  r->t->dec.strip = (size_t)start;
  return PF_OK;
}

static const step_kind dec_kinds[] = {{"ByteLevel", dec_byte_level},
                                      {"Replace", dec_replace},
                                      {"ByteFallback", dec_byte_fallback},
                                      {"Fuse", dec_fuse},
                                      {"Strip", dec_strip},
                                      {NULL, NULL}};

/* Without a decoder the reference joins tokens with spaces, which no language model wants. Strip
 * counts from the beginning of the whole text only behind Fuse. */
static int check_decoder(reader *r, const json_t *root) {
  const json_t *list = json_object_get(json_object_get(root, "decoder"), "decoders");
  size_t n = json_array_size(list);
  if (json_is_null(json_object_get(root, "decoder")) || !json_object_get(root, "decoder"))
    return refuse(r, "a tokenizer without a decoder");
  if (r->t->dec.byte_level != r->t->byte_level || (r->t->dec.byte_level && n > 1))
    return refuse(r, "a decoder that does not fit the pre_tokenizer");
  for (size_t i = 0; r->t->dec.strip && i < n; i++)
    if (!strcmp(text_of(json_array_get(list, i), "type"), "Strip"))
      return i > 0 && i + 1 == n && !strcmp(text_of(json_array_get(list, i - 1), "type"), "Fuse")
                 ? PF_OK
                 : refuse(r, "a Strip that is not the last step, after Fuse");
  return PF_OK;
}

/* ---- post-processor
 * --------------------------------------------------------------------------------------------- */

static int post_byte_level(reader *r, const json_t *step) {
  (void)r;
  (void)step;
  return PF_OK; /* changes offsets only */
}

static int post_special(reader *r, const json_t *step, const json_t *token) {
  const char *id = text_of(token, "id");
  const json_t *ids =
      json_object_get(json_object_get(json_object_get(step, "special_tokens"), id), "ids");
  if (json_array_size(ids) != 1 || !json_is_integer(json_array_get(ids, 0)))
    return malformed(r, "a special token of the template does not have exactly one id");
  json_int_t v = json_integer_value(json_array_get(ids, 0));
  if (v < 0 || (size_t)v >= r->t->vocab.n_ids)
    return malformed(r, "a special token of the template has an id outside the vocabulary");
  if (r->t->auto_bos >= 0)
    return refuse(r, "a template with two tokens before the text");
  r->t->auto_bos = (int32_t)v;
  return PF_OK;
}

static int post_template(reader *r, const json_t *step) {
  const json_t *part;
  bool text_seen = false;
  size_t i;
  int rc = json_is_array(json_object_get(step, "single"))
               ? PF_OK
               : malformed(r, "TemplateProcessing without 'single'");
  json_array_foreach(json_object_get(step, "single"), i, part) {
    const json_t *token = json_object_get(part, "SpecialToken");
    if (rc == PF_OK && token)
      rc = text_seen ? refuse(r, "a template with a token after the text")
                     : post_special(r, step, token);
    text_seen = text_seen || !token;
  }
  return rc;
}

static const step_kind post_kinds[] = {
    {"ByteLevel", post_byte_level}, {"TemplateProcessing", post_template}, {NULL, NULL}};

/* ---- model
 * ------------------------------------------------------------------------------------------------------
 */

static bool is_empty(const json_t *v) {
  return !v || json_is_null(v) || (json_is_string(v) && !*json_string_value(v)) ||
         (json_is_number(v) && json_number_value(v) == 0.0);
}

static int read_model(reader *r, const json_t *root) {
  static const char *const must_be_empty[] = {"dropout", "continuing_subword_prefix",
                                              "end_of_word_suffix"};
  const json_t *m = json_object_get(root, "model");
  pf_tok *t = r->t;
  r->section = "model";
  if (strcmp(text_of(m, "type"), "BPE") && json_object_get(m, "type"))
    return refuse_type(r, text_of(m, "type"));
  for (size_t i = 0; i < sizeof must_be_empty / sizeof *must_be_empty; i++)
    if (!is_empty(json_object_get(m, must_be_empty[i])))
      return refuse(r, must_be_empty[i]);
  t->byte_fallback = is_on(m, "byte_fallback");
  t->fuse_unk = is_on(m, "fuse_unk");
  t->ignore_merges = is_on(m, "ignore_merges");
  const char *unk = text_of(m, "unk_token");
  t->unk = *unk ? pf_vocab_find(&t->vocab, unk, strlen(unk)) : -1;
  if (*unk && t->unk < 0)
    return malformed(r, "unk_token is not in the vocabulary");
  return PF_OK;
}

/* ---- added tokens
 * -----------------------------------------------------------------------------------------------
 */

/* A new id gets its text; an id of the vocabulary must have this text. */
static int claim_id(reader *r, const char *text, json_int_t id) {
  pf_vocab *v = &r->t->vocab;
  size_t n;
  if (id < 0 || id >= PF_TOK_MAX_IDS)
    return malformed(r, "an id that is not a whole number below 4194304");
  const char *have = pf_vocab_text(v, (int32_t)id, &n);
  int32_t other = pf_vocab_find(v, text, strlen(text));
  if (have ? n != strlen(text) || memcmp(have, text, n) : other >= 0)
    return pf_fail(PF_EINPUT, "%s: added_tokens: '%.80s' and the vocabulary disagree about id %d",
                   r->name, text, (int)id);
  return have ? PF_OK : pf_vocab_add(v, (int32_t)id, text, strlen(text));
}

static int read_added_token(reader *r, const json_t *o, pf_added *a) {
  const char *text = text_of(o, "content");
  if (!*text || !json_is_integer(json_object_get(o, "id")))
    return malformed(r, "an entry without content and id");
  json_int_t id = json_integer_value(json_object_get(o, "id"));
  *a = (pf_added){.n = strlen(text),
                  .special = is_on(o, "special"),
                  .normalized = is_on(o, "normalized"),
                  .lstrip = is_on(o, "lstrip"),
                  .rstrip = is_on(o, "rstrip"),
                  .single_word = is_on(o, "single_word")};
  int rc = claim_id(r, text, id);
  a->id = (int32_t)id;
  a->content = rc == PF_OK ? pf_strdup(text) : NULL;
  a->text = rc == PF_OK ? pf_strdup(text) : NULL;
  if (rc == PF_OK && (!a->content || !a->text))
    rc = PF_ENOMEM;
  return rc;
}

/* Tokens of the kind "normalized" are matched in normalised text by their own normalised content,
 * which is also what they decode to.
 */
static int normalise_added(pf_tok *t, pf_added *a) {
  pf_job j = {.t = t, .text = a->text, .n = a->n};
  int rc = pf_normalise(&j, 0, a->n);
  char *s = rc == PF_OK ? pf_alloc(j.a.n + 1, 1) : NULL;
  if (s) {
    memcpy(s, j.a.s, j.a.n);
    s[j.a.n] = '\0';
    pf_free(a->text);
    a->text = s;
    a->n = j.a.n;
    rc = pf_vocab_add(&t->vocab, a->id, s, a->n);
  }
  pf_job_free(&j);
  return rc == PF_OK && !s ? PF_ENOMEM : rc;
}

static int read_added(reader *r, const json_t *root) {
  const json_t *list = json_object_get(root, "added_tokens"), *o;
  pf_tok *t = r->t;
  size_t i;
  r->section = "added_tokens";
  t->added = pf_calloc(json_array_size(list), sizeof *t->added);
  int rc = t->added ? PF_OK : PF_ENOMEM;
  json_array_foreach(list, i, o) {
    if (rc == PF_OK)
      rc = read_added_token(r, o, &t->added[t->n_added++]);
    if (rc == PF_OK && t->added[i].normalized)
      rc = normalise_added(t, &t->added[i]);
  }
  if (rc == PF_OK)
    rc = pf_matcher_build(&t->raw, t->added, t->n_added, false);
  return rc == PF_OK ? pf_matcher_build(&t->normal, t->added, t->n_added, true) : rc;
}

bool pf_tok_is_special(const pf_tok *t, int32_t id) {
  return id >= 0 && (size_t)id < t->vocab.n_ids && t->special[id];
}

static int mark_special(pf_tok *t) {
  t->special = pf_calloc(t->vocab.n_ids, 1);
  if (!t->special)
    return PF_ENOMEM;
  for (size_t i = 0; i < t->n_added; i++)
    t->special[t->added[i].id] = t->added[i].special;
  return PF_OK;
}

/* ---- bytes
 * ------------------------------------------------------------------------------------------------------
 */

/* GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes, in order, for U+0100
 * and up. */
static bool stands_for_itself(unsigned b) {
  return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

static unsigned nth_of_others(unsigned b) {
  return b < 0x21 ? b : b < 0xa1 ? 33 + b - 0x7f : 67;
}

uint32_t pf_alphabet_char(unsigned byte) {
  return stands_for_itself(byte) ? byte : 0x100 + nth_of_others(byte);
}

int pf_alphabet_byte(uint32_t cp) {
  if (cp < 0x100)
    return stands_for_itself(cp) ? (int)cp : -1;
  cp -= 0x100;
  return cp < 33 ? (int)cp : cp < 67 ? (int)(cp - 33 + 0x7f) : cp == 67 ? 0xad : -1;
}

static void find_bytes(pf_tok *t) {
  for (unsigned b = 0; b < 256; b++) {
    char s[8];
    size_t n = t->byte_level ? pf_utf8_put(s, pf_alphabet_char(b))
                             : (size_t)snprintf(s, sizeof s, "<0x%02X>", b);
    t->byte_id[b] = pf_vocab_find(&t->vocab, s, n);
  }
}

/* ---- the file
 * ---------------------------------------------------------------------------------------------------
 */

/* The file's text with the two big members replaced by null, parsed. */
static int parse_rest(const char *name, const char *text, size_t n, pf_slice vocab, pf_slice merges,
                      json_t **out) {
  pf_slice cut[2] = {vocab, merges};
  if (merges.p && (!vocab.p || merges.p < vocab.p)) {
    cut[0] = merges;
    cut[1] = vocab;
  }
  pf_buf b = {0};
  const char *from = text;
  for (int i = 0; i < 2; i++) {
    if (!cut[i].p)
      continue;
    pf_buf_add(&b, from, (size_t)(cut[i].p - from));
    pf_buf_puts(&b, "null");
    from = cut[i].p + cut[i].n;
  }
  pf_buf_add(&b, from, (size_t)(text + n - from));
  int rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = pf_js_text(name, b.s, b.n, out);
  pf_buf_free(&b);
  return rc;
}

static int build(reader *r, const json_t *root, pf_slice merges) {
  pf_tok *t = r->t;
  int rc = read_model(r, root);
  if (rc == PF_OK)
    rc = read_section(r, root, "normalizer", "normalizers", norm_kinds);
  if (rc == PF_OK)
    rc = read_section(r, root, "pre_tokenizer", "pretokenizers", pre_kinds);
  if (rc == PF_OK)
    rc = read_section(r, root, "decoder", "decoders", dec_kinds);
  if (rc == PF_OK)
    rc = check_decoder(r, root);
  if (rc == PF_OK)
    rc = read_added(r, root);
  if (rc == PF_OK)
    rc = mark_special(t);
  if (rc == PF_OK)
    rc = read_section(r, root, "post_processor", "processors", post_kinds);
  if (rc == PF_OK)
    rc = pf_scan_merges(r->name, merges, t, &t->merges);
  find_bytes(t);
  return rc;
}

int pf_tok_parse(pf_tok **out, const char *name, const char *text, size_t n) {
  pf_slice vocab, merges;
  json_t *root = NULL;
  *out = NULL;
  pf_tok *t = pf_calloc(1, sizeof *t);
  if (!t)
    return PF_ENOMEM;
  t->unk = t->bos = t->auto_bos = -1;
  pf_sha256_hex(text, n, t->sha256);
  pf_scan_big_members(text, n, &vocab, &merges);
  int rc = parse_rest(name, text, n, vocab, merges, &root);
  if (rc == PF_OK && !json_is_object(json_object_get(root, "model")))
    rc = pf_fail(PF_EINPUT, "%s: no model in it: this is not a tokenizer.json", name);
  if (rc == PF_OK)
    rc = pf_scan_vocab(name, vocab, &t->vocab);
  reader r = {t, name, ""};
  if (rc == PF_OK)
    rc = build(&r, root, merges);
  json_decref(root);
  t->bos = t->auto_bos;
  if (rc == PF_OK)
    *out = t;
  else
    pf_tok_close(t);
  return rc;
}

void pf_tok_close(pf_tok *t) {
  if (!t)
    return;
  pf_vocab_free(&t->vocab);
  pf_free(t->merges.slots);
  for (size_t i = 0; i < t->n_added; i++) {
    pf_free(t->added[i].content);
    pf_free(t->added[i].text);
  }
  for (size_t i = 0; i < t->n_norms; i++) {
    pf_free(t->norms[i].from);
    pf_free(t->norms[i].to);
  }
  pf_free(t->added);
  pf_free(t->raw.v);
  pf_free(t->normal.v);
  pf_free(t->special);
  pf_free(t->split_after);
  pf_free(t->dec.from);
  pf_free(t->dec.to);
  pf_free(t->chat_system);
  pf_free(t->dir);
  pcre2_code_free(t->split);
  pf_free(t);
}

/* ---- the directory
 * ---------------------------------------------------------------------------------------------- */

static int read_parse(pf_tok **out, const char *path) {
  pf_buf b;
  int rc = pf_read_file(path, MAX_FILE, &b);
  if (rc == PF_OK)
    rc = pf_tok_parse(out, path, b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

/* "bos_token": null, a text, or an object with its content. */
static int read_bos(pf_tok *t, const char *path, const json_t *config) {
  const json_t *bos = json_object_get(config, "bos_token");
  const char *s = json_is_object(bos) ? text_of(bos, "content") : json_string_value(bos);
  if (!s || !*s)
    return PF_OK;
  t->bos = pf_tok_id(t, s);
  return t->bos >= 0 ? PF_OK : pf_fail(PF_EINPUT, "%s: bos_token '%.80s' is not a token", path, s);
}

/* A text, or a list of named ones of which "default" counts. */
static const char *template_of(const json_t *config) {
  const json_t *v = json_object_get(config, "chat_template"), *one;
  size_t i;
  json_array_foreach(v, i, one) {
    if (!strcmp(text_of(one, "name"), "default"))
      return json_string_value(json_object_get(one, "template"));
  }
  return json_string_value(v);
}

static int read_config(pf_tok *t, const char *path) {
  json_t *config;
  if (access(path, F_OK) != 0)
    return PF_OK;
  int rc = pf_js_file(path, MAX_FILE, &config);
  if (rc != PF_OK)
    return rc;
  const char *chat = template_of(config);
  rc = read_bos(t, path, config);
  if (rc == PF_OK && chat)
    rc = pf_chat_recognise(t, chat);
  json_decref(config);
  return rc;
}

/* chat_template.jinja stands over the one in tokenizer_config.json. */
static int read_template(pf_tok *t, const char *path) {
  pf_buf b;
  if (access(path, F_OK) != 0)
    return PF_OK;
  int rc = pf_read_file(path, MAX_FILE, &b);
  if (rc == PF_OK)
    rc = pf_chat_recognise(t, pf_buf_str(&b));
  pf_buf_free(&b);
  return rc;
}

static int in_dir(pf_buf *b, const char *dir, const char *file) {
  b->n = 0;
  pf_buf_printf(b, "%s/%s", dir, file);
  return pf_buf_status(b);
}

int pf_tok_open(pf_tok **out, const char *dir) {
  pf_buf path = {0};
  pf_tok *t = NULL;
  *out = NULL;
  if (!dir)
    return pf_fail(PF_EUSAGE, "no tokenizer was named: give the model's directory");
  int rc = in_dir(&path, dir, "tokenizer.json");
  if (rc == PF_OK)
    rc = read_parse(&t, path.s);
  if (rc == PF_OK)
    rc = (t->dir = pf_strdup(dir)) ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK)
    rc = in_dir(&path, dir, "tokenizer_config.json");
  if (rc == PF_OK)
    rc = read_config(t, path.s);
  if (rc == PF_OK)
    rc = in_dir(&path, dir, "chat_template.jinja");
  if (rc == PF_OK)
    rc = read_template(t, path.s);
  pf_buf_free(&path);
  if (rc == PF_OK)
    *out = t;
  else
    pf_tok_close(t);
  return rc;
}

int32_t pf_tok_vocab_size(const pf_tok *t) {
  return (int32_t)t->vocab.n_ids;
}

int32_t pf_tok_bos(const pf_tok *t) {
  return t->bos;
}

int32_t pf_tok_id(const pf_tok *t, const char *piece) {
  for (size_t i = 0; i < t->n_added; i++)
    if (!strcmp(t->added[i].content, piece))
      return t->added[i].id;
  return pf_vocab_find(&t->vocab, piece, strlen(piece));
}

int pf_tok_has(const pf_tok *t, int32_t id) {
  size_t n;
  return id >= 0 && pf_vocab_text(&t->vocab, id, &n) != NULL;
}

const char *pf_tok_sha256(const pf_tok *t) {
  return t->sha256;
}
