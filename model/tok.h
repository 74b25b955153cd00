/* SPDX-License-Identifier: Apache-2.0
 * What the tokeniser's files share.
 *
 * The way of a text to ids, as in Hugging Face's tokenizers library:
 *   added tokens found in the raw text cut it into segments            tok_added.c
 *   each segment is normalised, with a map back to the given bytes     tok_norm.c
 *   added tokens of the kind "normalized" cut it again                 tok_added.c
 *   the rest is cut into words                                         tok_pre.c
 *   each word becomes symbols, and symbols are merged by rank          tok_bpe.c
 * tok_json.c builds the tokeniser from tokenizer.json; the two big members of that file (pieces and
 * merges) are read by tok_scan.c without a tree, into the tables of tok_vocab.c. */
#ifndef PF_MODEL_TOK_H
#define PF_MODEL_TOK_H

#include <jansson.h>
#include <stdbool.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/buf.h"
#include "personaflow/tokenizer.h"

/* ---- pieces and merges
 * ------------------------------------------------------------------------------------------ */

#define PF_TOK_MAX_IDS (1 << 22)
#define PF_NO_PIECE    UINT32_MAX

/* Pieces in the spelling of the file, by id and by text. */
typedef struct pf_vocab {
  pf_buf arena;
  struct pf_piece {
    uint32_t off, len; /* off = PF_NO_PIECE: no such id */
  } * pieces;          /* (n_ids) */
  size_t n_ids, cap, n_pieces;
  struct pf_piece_slot {
    uint32_t hash, id1; /* id + 1; 0: empty */
    struct pf_piece at; /* the id's, here too: one cache miss less */
  } * slots;
  size_t mask;
} pf_vocab;

/* Gives an id its text (a new one replaces the old when decoding); not found by pf_vocab_find
 * before pf_vocab_index. */
int pf_vocab_add(pf_vocab *v, int32_t id, const char *s, size_t n);
/* Builds the table by text. A text with two ids is PF_EINPUT. */
int pf_vocab_index(pf_vocab *v, const char *name);
int32_t pf_vocab_find(const pf_vocab *v, const char *s, size_t n);
/* The same in parts, for many look-ups at once: hash, bring the place near, find. */
uint32_t pf_vocab_hash(const char *s, size_t n);
void pf_vocab_prefetch(const pf_vocab *v, uint32_t hash);
int32_t pf_vocab_find_hashed(const pf_vocab *v, uint32_t hash, const char *s, size_t n);
/* The text of an id (NULL when absent), not NUL-terminated. */
const char *pf_vocab_text(const pf_vocab *v, int32_t id, size_t *n);
void pf_vocab_free(pf_vocab *v);

/* (left, right) -> rank and id of the merged piece. */
typedef struct pf_merge {
  uint64_t pair;
  uint32_t rank1; /* rank + 1; 0: empty */
  int32_t id;
} pf_merge;

typedef struct pf_merges {
  pf_merge *slots;
  size_t mask, n;
} pf_merges;

int pf_merges_reserve(pf_merges *m, size_t n);
void pf_merges_prefetch(const pf_merges *m, int32_t left, int32_t right);
/* A pair that is there already takes the later rank, as in the reference implementation. */
void pf_merges_add(pf_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id);
const pf_merge *pf_merges_find(const pf_merges *m, int32_t left, int32_t right);

/* ---- tok_scan.c
 * -------------------------------------------------------------------------------------------------
 */

typedef struct pf_slice {
  const char *p;
  size_t n;
} pf_slice;

/* Finds the values of model.vocab and model.merges in the file's text; what is not found has p =
 * NULL. It does not judge: text that is not JSON is left to the parser of the rest. */
void pf_scan_big_members(const char *text, size_t n, pf_slice *vocab, pf_slice *merges);
int pf_scan_vocab(const char *name, pf_slice in, pf_vocab *v);
int pf_scan_merges(const char *name, pf_slice in, const pf_tok *t, pf_merges *m);

/* ---- the tokeniser
 * ---------------------------------------------------------------------------------------------- */

typedef struct pf_added {
  char *content;
  char *text; /* as matched and decoded: the content, or the normalised content for normalized
                 tokens */
  size_t n;
  int32_t id;
  bool special, normalized, lstrip, rstrip, single_word;
} pf_added;

/* Added tokens in byte order of their texts. */
typedef struct pf_matcher {
  const pf_added **v;
  size_t n;
} pf_matcher;

typedef enum pf_norm_kind { PF_NORM_NFC, PF_NORM_REPLACE, PF_NORM_PREPEND } pf_norm_kind;

typedef struct pf_norm {
  pf_norm_kind kind;
  char *from, *to;
} pf_norm;

#define PF_MAX_STEPS 8

struct pf_chat_format;

struct pf_tok {
  pf_vocab vocab;
  pf_merges merges;
  pf_added *added;
  size_t n_added;
  uint8_t *special;       /* (vocab.n_ids) 1: a control token, never made from plain text */
  pf_matcher raw, normal; /* tokens matched before and after normalising */
  pf_norm norms[PF_MAX_STEPS];
  size_t n_norms;
  pcre2_code *split; /* words are its matches and what lies between; NULL: none */
  char *split_after; /* a word ends after each of these; NULL: none */
  bool byte_level;   /* pieces are spelt in the byte-level alphabet */
  bool byte_fallback, fuse_unk, ignore_merges;
  int32_t unk;           /* -1: none */
  int32_t byte_id[256];  /* the piece of a byte: alphabet character or <0xNN>; -1: none */
  int32_t bos, auto_bos; /* -1: none; auto_bos: what the post-processor puts first */
  struct {
    bool byte_level, byte_fallback;
    char *from, *to; /* replaced in each piece; from NULL: nothing */
    size_t strip;    /* spaces taken from the beginning of the text */
  } dec;
  const struct pf_chat_format *chat; /* NULL: no template or an unknown one */
  char *chat_system;                 /* the template's default system message */
  bool has_template;
  char *dir; /* that it was opened from; NULL: none */
  char sha256[65];
};

/* tokenizer.json from memory; `name` stands in error lines. No template, BOS as the post-processor
 * has it. */
int pf_tok_parse(pf_tok **out, const char *name, const char *text, size_t n);
bool pf_tok_is_special(const pf_tok *t, int32_t id);
/* The byte that a character of the byte-level alphabet stands for, -1: none; and the character of a
 * byte. */
int pf_alphabet_byte(uint32_t cp);
uint32_t pf_alphabet_char(unsigned byte);

/* ---- encoding
 * ---------------------------------------------------------------------------------------------------
 */

/* Normalised text: byte i stands for bytes [lo[i], hi[i]) of the given text; lo and hi never fall.
 */
typedef struct pf_ntext {
  char *s;
  uint32_t *lo, *hi;
  size_t n, s_cap, lo_cap, hi_cap;
} pf_ntext;

typedef struct pf_sym {
  int32_t id;
  uint32_t start, n; /* bytes of the word; n = 0: merged into the one before */
  uint32_t prev, next;
  uint32_t rank1; /* of the pair with the next one, 0: no merge */
  int32_t merged; /* what that pair becomes */
} pf_sym;

typedef struct pf_span {
  size_t lo, hi;
} pf_span;

/* One call: its input, its output and scratch memory. */
typedef struct pf_job {
  const pf_tok *t;
  const char *text;
  size_t n;
  const pf_span *plain; /* ascending spans in which special tokens are just text */
  size_t n_plain;
  pf_encoding *out;
  pf_ntext a, b;
  pf_sym *syms;
  size_t n_syms, syms_cap;
  uint64_t *heap; /* rank << 32 | position */
  size_t n_heap, heap_cap;
  pf_buf word; /* a word in the byte-level alphabet */
  pcre2_match_data *match;
} pf_job;

/* As pf_tok_encode; special tokens are not seen where they touch a span of `plain`. */
int pf_tok_encode_spans(const pf_tok *t, const char *text, size_t n, const pf_span *plain,
                        size_t n_plain, pf_encoding *out);
/* Frees the scratch memory, not the output. */
void pf_job_free(pf_job *j);
int pf_encoding_push(pf_encoding *e, int32_t id, size_t start, size_t end);
/* job->a becomes the normalised text[lo, hi). */
int pf_normalise(pf_job *j, size_t lo, size_t hi);
/* Cuts job->a[lo, hi) into words and encodes them; tok_pre.c, tok_bpe.c. */
int pf_encode_words(pf_job *j, size_t lo, size_t hi);
int pf_encode_word(pf_job *j, size_t lo, size_t hi);

/* A match of an added token in s[0, n): what it covers after lstrip and rstrip. */
typedef struct pf_match {
  const pf_added *token;
  size_t lo, hi;
} pf_match;
/* Whether a special token found at [lo, hi) of s is to be taken as text. */
typedef bool (*pf_is_plain_fn)(const pf_job *j, size_t lo, size_t hi);
/* The next added token at or after `from`; false: none. */
bool pf_added_find(const pf_matcher *m, const char *s, size_t n, size_t from, const pf_job *j,
                   pf_is_plain_fn plain, pf_match *out);
int pf_matcher_build(pf_matcher *m, const pf_added *added, size_t n, bool normalized);

/* ---- chat
 * -------------------------------------------------------------------------------------------------------
 */

/* Recognises the template's text; sets t->chat and t->chat_system. */
int pf_chat_recognise(pf_tok *t, const char *text);

#endif
