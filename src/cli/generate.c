/* SPDX-License-Identifier: Apache-2.0
 * personaflow generate MODEL: continues a prompt, streaming to the terminal or as one JSON object,
 * or a file of prompts (many.c). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/many.h"
#include "cli/prompt.h"

static const char usage[] =
    "usage: personaflow generate MODEL PROMPT [OPTIONS]\n"
    "       personaflow generate MODEL --prompts FILE [OPTIONS]\n"
    "MODEL is a Hugging Face directory, or org/name[@revision] in the Hugging Face cache.\n";

typedef struct gen {
  cli_prompt prompt;
  pf_gen_opts o;
  const char *penalty;
  int threads;
  pf_precision precision;
  const char *interventions;
  int json, quiet;
  cli_many many;
  cli_ready ready;
  pf_decoder *dec;
  json_t *logprobs, *margins;
} gen;

#define AT(field) .at = offsetof(gen, field)
static const cli_opt opts[] = {
    CLI_PROMPT_OPTIONS(gen, prompt),
    {"options:", .kind = CLI_HEADING},
    {"max-tokens", 0, "N", "tokens to generate at most (128)", CLI_INT, AT(o.max_tokens), 1,
     INT32_MAX},
    {"temperature", 0, "T", "0 = greedy (default); above: sampling", CLI_REAL, AT(o.temperature), 0,
     1e6},
    {"top-k", 0, "K", "with --temperature: among the K most likely tokens (0: all)", CLI_INT,
     AT(o.top_k), 0, INT32_MAX},
    {"top-p", 0, "P",
     "with --temperature: among the likeliest tokens that have P together (1: all)", CLI_REAL,
     AT(o.top_p), 1e-9, 1},
    {"seed", 0, "S", "of the counter-based generator (0)", CLI_SEED, AT(o.seed)},
    {"repetition-penalty", 0, "R", "a factor (1: none), or config: that of generation_config.json",
     CLI_TEXT, AT(penalty)},
    {"interventions", 0, "FILE",
     "edits, cuts and swaps (doc/INTERVENTIONS.md; - for standard input); resolved lines go to "
     "stderr",
     CLI_TEXT, AT(interventions)},
    {"ignore-eos", 0, NULL, "go on after an end-of-sequence token", CLI_FLAG, AT(o.ignore_eos)},
    {"chunk", 0, "N", "tokens a prefill step (whole prompt); changes no bit", CLI_INT, AT(o.chunk),
     1, INT32_MAX},
    CLI_THREADS(gen, threads),
    CLI_PRECISIONS(gen, precision),
    {"json", 0, NULL, "one object: precision, prompt_ids, ids, text, logprobs, margins, finish",
     CLI_FLAG, AT(json)},
    CLI_QUIET(gen, quiet),
    {"many prompts:", .kind = CLI_HEADING},
    {"prompts", 0, "FILE",
     "one JSON object a line (- for standard input): prompt, raw, ids, messages, or persona with "
     "task; id, and max_tokens, seed, temperature, top_k, top_p, repetition_penalty, ignore_eos of "
     "that line",
     CLI_TEXT, AT(many.prompts)},
    {"out", 0, "DIR",
     "where the results go (generated.jsonl); default: standard output, in the order of the file",
     CLI_TEXT, AT(many.out_dir)},
    {"resume", 0, NULL, "go on with what DIR holds", CLI_FLAG, AT(many.resume)},
    {"force", 0, NULL, "start again over what DIR holds", CLI_FLAG, AT(many.force)},
    {"batch", 0, "N", "prompts in flight at most (no limit); changes no bit", CLI_INT,
     AT(many.batch), 1, INT32_MAX},
    {"memory", 0, "SIZE",
     "bytes of K,V and logits at most, such as 500M or 2G (no limit); changes no bit", CLI_SIZE,
     AT(many.memory)},
    {0}};
#undef AT

static int on_token(void *user, int32_t id, float logprob, float margin) {
  gen *g = user;
  const char *text;
  size_t n;
  if (g->json) {
    json_array_append_new(g->logprobs, json_real(logprob));
    json_array_append_new(g->margins, json_real(margin));
    return 0;
  }
  if (!g->dec)
    printf("%d ", (int)id);
  else if (pf_decoder_push(g->dec, id, &text, &n) == PF_OK)
    fwrite(text, 1, n, stdout);
  fflush(stdout);
  return ferror(stdout);
}

static json_t *id_array(const int32_t *v, size_t n) {
  json_t *a = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(a, json_integer(v[i]));
  return a;
}

static int print_json(gen *g, const pf_model_info *i, const pf_branch *b) {
  char *text = NULL;
  size_t n = 0;
  if (g->ready.tok) {
    int st = pf_tok_decode(g->ready.tok, b->out.v, b->out.n, 0, &text, &n);
    if (st != PF_OK)
      return cli_fail(st);
  }
  json_t *o = json_object();
  json_object_set_new(o, "precision", json_string(pf_precision_name(i->precision)));
  json_object_set_new(o, "prompt_ids", id_array(b->ids, b->n));
  json_object_set_new(o, "ids", id_array(b->out.v, b->out.n));
  json_object_set_new(o, "text", text ? json_stringn(text, n) : json_null());
  json_object_set(o, "logprobs", g->logprobs);
  json_object_set(o, "margins", g->margins);
  json_object_set_new(o, "finish", json_string(pf_finish_name(b->finish)));
  json_dumpf(o, stdout, JSON_REAL_PRECISION(9)); /* nine digits bring every fp32 back */
  putchar('\n');
  json_decref(o);
  pf_text_free(text);
  return 0;
}

static void finish_text(gen *g) {
  const char *text;
  size_t n;
  if (g->dec && pf_decoder_finish(g->dec, &text, &n) == PF_OK)
    fwrite(text, 1, n, stdout);
  putchar('\n');
  fflush(stdout); /* before a line on stderr */
}

/* Binds the interventions and generates; a hook that never fired is an error. */
static int generate(gen *g, const pf_model *m, pf_ctx *ctx, pf_seq *seq, pf_branch *b) {
  pf_interventions *iv = NULL;
  int st = PF_OK;
  if (g->interventions)
    st = cli_interventions(g->interventions, m, ctx, &g->ready, seq, &iv);
  if (st == PF_OK && g->ready.tok && !g->json)
    st = pf_decoder_new(&g->dec, g->ready.tok, 0);
  if (st == PF_OK)
    st = pf_generate_many(ctx, b, 1, NULL, NULL);
  if (st == PF_OK && iv)
    st = pf_interventions_check_fired(iv);
  pf_interventions_free(iv);
  return st;
}

static int run(gen *g, const pf_model *m) {
  pf_ctx *ctx = NULL;
  pf_seq *seq = NULL;
  pf_branch b = {.ids = g->ready.ids.v, .n = g->ready.ids.n, .o = g->o};
  pf_ctx_opts o = {.threads = g->threads, .keep_raw_k = g->interventions != NULL};
  int st = pf_ctx_new(&ctx, m, &o);
  if (st == PF_OK)
    st = pf_seq_new(&seq, ctx);
  b.seq = seq;
  if (st == PF_OK)
    st = generate(g, m, ctx, seq, &b);
  int rc = 0;
  if (st == PF_OK && g->json)
    rc = print_json(g, pf_model_get_info(m), &b);
  else if (b.out.n && !g->json)
    finish_text(g);
  if (st != PF_OK)
    rc = cli_fail(st);
  else if (b.finish == PF_FINISH_POSITIONS && !g->quiet)
    fprintf(stderr, "stopped at the model's %d positions\n",
            (int)pf_model_get_info(m)->max_positions);
  if (rc == 0 && fflush(stdout) != 0)
    rc = (perror("personaflow: standard output"), 3);
  pf_branch_clear(&b);
  pf_decoder_free(g->dec);
  pf_seq_free(seq);
  pf_ctx_free(ctx);
  return rc;
}

static int with_model(gen *g, const char *name) {
  char dir[4096];
  pf_model *m = NULL;
  int st = pf_model_resolve(name, dir, sizeof dir);
  if (st != PF_OK)
    return cli_fail(st);
  int rc = cli_prompt_make("generate", &g->prompt, dir, &g->ready);
  pf_model_opts mo = {.threads = g->threads,
                      .no_checksum = 1,
                      .progress = g->quiet ? NULL : cli_progress,
                      .precision = g->precision};
  if (rc == 0 && (st = pf_model_open(&m, name, &mo)) != PF_OK)
    rc = cli_fail(st);
  if (rc == 0)
    rc = cli_penalty(g->penalty, pf_model_get_info(m), &g->o);
  if (rc == 0)
    rc = run(g, m);
  pf_model_close(m);
  return rc;
}

/* Options that do not go together; an exit code. */
static int check_many(const gen *g) {
  const cli_many *m = &g->many;
  const cli_prompt *p = &g->prompt;
  const struct {
    bool wrong;
    const char *why;
  } checks[] = {
      {!m->prompts && (m->out_dir || m->resume || m->force || m->batch || m->memory),
       "--out, --resume, --force, --batch and --memory go with --prompts"},
      {m->prompts &&
           (p->chat || p->raw || p->ids || p->messages || p->persona || p->task || p->specials),
       "--prompts takes no other prompt, nor --specials"},
      {m->prompts && g->interventions, "--interventions goes with one prompt, not with --prompts"},
      {m->prompts && g->json, "--prompts writes JSON Lines always: leave out --json"},
      {!m->prompts && g->o.temperature <= 0 && (g->o.seed || g->o.top_k || g->o.top_p < 1),
       "--seed, --top-k and --top-p go with --temperature: without it the likeliest token is "
       "taken"},
      {m->resume && m->force, "--resume and --force exclude each other"},
      {(m->resume || m->force) && !m->out_dir, "--resume and --force need --out"}};
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
    if (checks[i].wrong)
      return cli_usage("generate", "%s", checks[i].why);
  return 0;
}

static int generate_many(gen *g, const char *model) {
  g->o.on_token = NULL;
  g->many.gen = g->o;
  g->many.penalty = g->penalty;
  g->many.threads = g->threads;
  g->many.precision = g->precision;
  g->many.quiet = g->quiet;
  return cli_many_run(&g->many, model);
}

int cmd_generate(int argc, char **argv) {
  gen g = {0};
  pf_gen_defaults(&g.o);
  g.o.on_token = on_token;
  g.o.user = &g;
  int rc;
  if (!cli_options(&(cli_command){"generate", usage, opts, NULL}, &g, argc, argv, &rc))
    return rc;
  if (optind + 1 != argc)
    return cli_usage("generate", "one MODEL is wanted");
  if ((rc = check_many(&g)) != 0 || g.many.prompts)
    return rc ? rc : generate_many(&g, argv[optind]);
  g.logprobs = json_array();
  g.margins = json_array();
  rc = with_model(&g, argv[optind]);
  json_decref(g.logprobs);
  json_decref(g.margins);
  cli_ready_free(&g.ready);
  return rc;
}
