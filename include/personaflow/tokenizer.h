/* SPDX-License-Identifier: Apache-2.0
 * Tokenisers of tokenizer.json, chat formats, streaming decode. */
#ifndef PERSONAFLOW_TOKENIZER_H
#define PERSONAFLOW_TOKENIZER_H

#include "personaflow/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pf_tok pf_tok;

/* dir: a resolved model directory (tokenizer.json, tokenizer_config.json, chat_template.jinja). */
PF_API int pf_tok_open(pf_tok **out, const char *dir);
PF_API void pf_tok_close(pf_tok *t);
PF_API int32_t pf_tok_vocab_size(const pf_tok *t); /* highest id + 1 */
PF_API int32_t pf_tok_bos(const pf_tok *t);        /* -1: none */
/* Id of a piece or special token by its exact text, -1 when absent. */
PF_API int32_t pf_tok_id(const pf_tok *t, const char *piece);
/* 1: the id has a text; 0: it is out of range, or only fills up the model's vocabulary. */
PF_API int pf_tok_has(const pf_tok *t, int32_t id);
PF_API const char *pf_tok_sha256(const pf_tok *t); /* of tokenizer.json, hex */

/* A text as tokens: ids[i] covers bytes [start[i], end[i]) of the given (or rendered) text. */
typedef struct pf_encoding {
  int32_t *ids;
  uint32_t *start, *end;
  size_t n, cap;
} pf_encoding;
PF_API void pf_encoding_free(pf_encoding *e);

enum {
  PF_TOK_SPECIALS = 1, /* parse special tokens found in the text */
  PF_TOK_BOS = 2,      /* put the BOS token first */
  PF_TOK_AUTO_BOS = 4  /* put BOS first if the tokeniser's own post-processor does */
};
/* text: n bytes of UTF-8 (invalid UTF-8 is PF_EINPUT, naming the byte). Appends to *out. */
PF_API int pf_tok_encode(const pf_tok *t, const char *text, size_t n, unsigned flags,
                         pf_encoding *out);

/* PF_EINPUT, naming the byte, for n bytes that are not UTF-8. */
PF_API int pf_text_check(const char *text, size_t n);

/* Decoding. Specials are left out unless keep_specials, ids without a text always; PF_EUSAGE for a
 * negative id. *text is a heap string (pf_text_free), ended by a NUL, *n its bytes. */
PF_API int pf_tok_decode(const pf_tok *t, const int32_t *ids, size_t n_ids, int keep_specials,
                         char **text, size_t *n);
PF_API void pf_text_free(char *text);

/* Streaming: bytes come out only when they complete UTF-8 characters. */
typedef struct pf_decoder pf_decoder;
PF_API int pf_decoder_new(pf_decoder **out, const pf_tok *t, int keep_specials);
/* The text that id completes, valid until the next call; *n may be 0. */
PF_API int pf_decoder_push(pf_decoder *d, int32_t id, const char **text, size_t *n);
/* What is left at the end (an incomplete character comes out as U+FFFD). */
PF_API int pf_decoder_finish(pf_decoder *d, const char **text, size_t *n);
PF_API void pf_decoder_free(pf_decoder *d);

/* ---- chat ------------------------------------------------------------------------------------ */

typedef struct pf_message {
  const char *role, *content;
} pf_message;

enum {
  PF_CHAT_NO_GENERATION_PROMPT = 1,
  /* Parse special tokens inside contents, as Hugging Face does; default: they are text. */
  PF_CHAT_PARSE_SPECIALS = 2
};
/* Renders a conversation by the model's own template and encodes it. *text (pf_text_free) receives
 * the rendered text, whose byte offsets *out uses; content_start[i] (may be NULL; n_messages
 * entries) the offset of message i's content in it, after the template's trimming. An unknown
 * template is PF_EINPUT and names --prompt-raw; roles that the template refuses are PF_EINPUT with
 * the template's reason. */
PF_API int pf_chat_encode(const pf_tok *t, const pf_message *messages, size_t n_messages,
                          unsigned flags, pf_encoding *out, char **text, size_t *content_start);
/* Family of the chat template: "gemma2", "qwen2.5" or NULL when there is none or an unknown one. */
PF_API const char *pf_chat_family(const pf_tok *t);

#ifdef __cplusplus
}
#endif

#endif
