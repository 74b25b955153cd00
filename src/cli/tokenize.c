/* SPDX-License-Identifier: Apache-2.0
 * personaflow tokenize: text to ids and back. Needs the tokenizer files of a model, not its
 * weights. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/opts.h"
#include "cli/messages.h"

static const char usage[] =
    "usage: personaflow tokenize MODEL [OPTIONS] <TEXT\n"
    "Reads text on standard input and prints {\"ids\": [...]}. MODEL is a directory or a name in "
    "the\n"
    "Hugging Face cache; only its tokenizer files are read.\n\n";

typedef struct options {
  const char *messages;
  int specials, bos, no_bos, no_prompt, offsets, render, decode;
} options;

#define AT(field) .at = offsetof(options, field)
static const cli_opt opts[] = {
    {"specials", 0, NULL,
     "parse special tokens written in the text (default: they are text); with --decode: keep "
     "special tokens (default: leave them out)",
     CLI_FLAG, AT(specials)},
    {"bos", 0, NULL,
     "put the BOS token first; without this or --no-bos as the tokenizer's own post-processor does "
     "(Gemma: yes, Qwen: no)",
     CLI_FLAG, AT(bos)},
    {"no-bos", 0, NULL, "never put it first", CLI_FLAG, AT(no_bos)},
    {"messages", 0, "FILE",
     "render a conversation by the model's chat format and encode that; FILE holds [{\"role\": "
     "..., "
     "\"content\": ...}, ...], - is standard input. Contents are encoded as plain text unless "
     "--specials is given",
     CLI_TEXT, AT(messages)},
    {"no-generation-prompt", 0, NULL, "end the conversation without the header of an answer",
     CLI_FLAG, AT(no_prompt)},
    {"offsets", 0, NULL, "add \"offsets\": [[start, end], ...], in bytes of the text", CLI_FLAG,
     AT(offsets)},
    {"render", 0, NULL, "with --messages: add \"text\", the rendered conversation", CLI_FLAG,
     AT(render)},
    {"decode", 0, NULL,
     "read ids ({\"ids\": [...]}, [...], or numbers separated by white space or commas) and write "
     "their text",
     CLI_FLAG, AT(decode)},
    {0}};
#undef AT

/* Two options that exclude each other. */
static int check(const options *o) {
  const struct {
    int both;
    const char *why;
  } rules[] = {
      {o->bos && o->no_bos, "--bos and --no-bos exclude each other"},
      {o->messages && (o->bos || o->no_bos),
       "--messages takes neither --bos nor --no-bos: the format says"},
      {o->messages && o->decode, "--messages and --decode exclude each other"},
      {!o->messages && o->no_prompt, "--no-generation-prompt needs --messages"},
      {!o->messages && o->render, "--render needs --messages"},
      {o->decode && (o->bos || o->no_bos || o->offsets),
       "--decode takes no --bos, --no-bos or --offsets"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].both)
      return cli_usage("tokenize", "%s", rules[i].why);
  return 0;
}

/* ---- printing
 * -----------------------------------------------------------------------------------------------------
 */

static int print_encoding(const pf_encoding *e, int offsets, const char *text) {
  fputs("{\"ids\": [", stdout);
  for (size_t i = 0; i < e->n; i++)
    printf("%s%d", i ? ", " : "", (int)e->ids[i]);
  fputs("]", stdout);
  for (size_t i = 0; offsets && i < e->n; i++)
    printf("%s[%u, %u]", i ? ", " : ", \"offsets\": [", e->start[i], e->end[i]);
  if (offsets)
    fputs(e->n ? "]" : ", \"offsets\": []", stdout);
  if (text) {
    json_t *s = json_string(text);
    fputs(", \"text\": ", stdout);
    json_dumpf(s, stdout, JSON_ENCODE_ANY);
    json_decref(s);
  }
  puts("}");
  if (fflush(stdout) != 0 || ferror(stdout)) {
    fprintf(stderr, "personaflow: standard output: cannot write: %s\n", strerror(errno));
    return 3;
  }
  return 0;
}

/* ---- the three ways
 * -----------------------------------------------------------------------------------------------
 */

static int encode_text(const pf_tok *t, const options *o) {
  pf_encoding e = {0};
  size_t n;
  char *text = cli_read_text("-", &n);
  if (!text)
    return 3;
  unsigned flags = o->bos ? PF_TOK_BOS : o->no_bos ? 0 : PF_TOK_AUTO_BOS;
  int rc = pf_tok_encode(t, text, n, flags | (o->specials ? PF_TOK_SPECIALS : 0), &e);
  int code = rc == PF_OK ? print_encoding(&e, o->offsets, NULL) : cli_fail(rc);
  pf_encoding_free(&e);
  free(text);
  return code;
}

static int encode_messages(const pf_tok *t, const options *o) {
  pf_encoding e = {0};
  cli_messages m;
  char *text = NULL;
  int code = cli_messages_read(o->messages, &m);
  if (code == 0) {
    unsigned flags = (o->no_prompt ? PF_CHAT_NO_GENERATION_PROMPT : 0) |
                     (o->specials ? PF_CHAT_PARSE_SPECIALS : 0);
    int rc = pf_chat_encode(t, m.v, m.n, flags, &e, &text, NULL);
    code = rc == PF_OK ? print_encoding(&e, o->offsets, o->render ? text : NULL) : cli_fail(rc);
  }
  pf_text_free(text);
  pf_encoding_free(&e);
  cli_messages_free(&m);
  return code;
}

static int bad_ids(const char *what) {
  fprintf(stderr, "personaflow: standard input: %s\n", what);
  return 3;
}

static int ids_of_json(const char *text, size_t n, pf_ids *ids) {
  json_error_t err;
  json_t *root = json_loadb(text, n, 0, &err), *v;
  size_t i;
  int code = 0;
  const json_t *list = json_is_object(root) ? json_object_get(root, "ids") : root;
  if (!json_is_array(list))
    code = bad_ids(root ? "no array \"ids\"" : "ids are not valid JSON");
  json_array_foreach(list, i, v) {
    json_int_t id = json_integer_value(v);
    if (code == 0 && (!json_is_integer(v) || id < 0 || id > INT32_MAX))
      code = bad_ids("a token id that is not a whole number from 0 to 2147483647");
    if (code == 0 && pf_ids_push(ids, (int32_t)id) != PF_OK)
      code = cli_fail(PF_ENOMEM);
  }
  json_decref(root);
  return code;
}

static int ids_of_numbers(const char *text, pf_ids *ids) {
  const char *p = text + strspn(text, " \t\r\n,");
  while (*p) {
    char *end;
    errno = 0;
    long v = strtol(p, &end, 10);
    if (errno || end == p || v < 0 || v > INT32_MAX || (*end && !strchr(" \t\r\n,", *end)))
      return bad_ids("a token id that is not a whole number from 0 to 2147483647");
    if (pf_ids_push(ids, (int32_t)v) != PF_OK)
      return cli_fail(PF_ENOMEM);
    p = end + strspn(end, " \t\r\n,");
  }
  return 0;
}

static int check_known(const pf_tok *t, const pf_ids *ids) {
  for (size_t i = 0; i < ids->n; i++)
    if (!pf_tok_has(t, ids->v[i]))
      return fprintf(stderr,
                     "personaflow: standard input: the tokenizer has no token id %d (the highest "
                     "is %d)\n",
                     (int)ids->v[i], (int)pf_tok_vocab_size(t) - 1),
             3;
  return 0;
}

static int write_text(const pf_tok *t, const pf_ids *ids, int keep_specials) {
  char *text;
  size_t n;
  int rc = pf_tok_decode(t, ids->v, ids->n, keep_specials, &text, &n);
  if (rc != PF_OK)
    return cli_fail(rc);
  int ok = fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0;
  if (!ok)
    fprintf(stderr, "personaflow: standard output: cannot write: %s\n", strerror(errno));
  pf_text_free(text);
  return ok ? 0 : 3;
}

static int decode(const pf_tok *t, const options *o) {
  pf_ids ids = {0};
  size_t n;
  char *text = cli_read_text("-", &n);
  if (!text)
    return 3;
  char first = text[strspn(text, " \t\r\n")];
  int code = first == '{' || first == '[' ? ids_of_json(text, n, &ids) : ids_of_numbers(text, &ids);
  if (code == 0)
    code = check_known(t, &ids);
  if (code == 0)
    code = write_text(t, &ids, o->specials);
  free(text);
  pf_ids_free(&ids);
  return code;
}

int cmd_tokenize(int argc, char **argv) {
  options o = {0};
  char dir[4096];
  pf_tok *t;
  int code;
  if (!cli_options(&(cli_command){"tokenize", usage, opts, NULL}, &o, argc, argv, &code))
    return code;
  if (argc - optind != 1)
    return cli_usage("tokenize", argc == optind ? "a model is needed" : "one model is enough");
  if ((code = check(&o)) != 0)
    return code;
  int rc = pf_model_resolve(argv[optind], dir, sizeof dir);
  if (rc == PF_OK)
    rc = pf_tok_open(&t, dir);
  if (rc != PF_OK)
    return cli_fail(rc);
  code = o.decode ? decode(t, &o) : o.messages ? encode_messages(t, &o) : encode_text(t, &o);
  pf_tok_close(t);
  return code;
}
