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
    "MODEL is a Hugging Face directory, or org/name[@revision] in the Hugging Face cache.\n"
    "PROMPT is one of:\n" CLI_PROMPT_HELP "options:\n"
    "  --max-tokens N       tokens to generate at most (128)\n"
    "  --temperature T      0 = greedy (default); above: sampling\n"
    "  --top-k K, --top-p P with --temperature: cut the distribution (off)\n"
    "  --seed S             of the counter-based generator (0)\n"
    "  --repetition-penalty R|config   a factor, or the one of generation_config.json (1 = off)\n"
    "  --interventions FILE edits, cuts and swaps (doc/INTERVENTIONS.md); resolved lines go to "
    "stderr\n"
    "  --ignore-eos         go on after an end-of-sequence token\n"
    "  --chunk N            tokens a prefill step (whole prompt); changes no bit\n"
    "  -t, --threads N      threads; changes no bit\n" CLI_PRECISION_HELP
    "  --json               one object: precision, prompt_ids, ids, text, logprobs, margins, "
    "finish\n"
    "  --quiet              no progress\n"
    "many prompts:\n"
    "  --prompts FILE       one JSON object a line (- for standard input): prompt, raw, ids,\n"
    "                       messages, or persona with task; id, and max_tokens, seed,\n"
    "                       temperature, top_k, top_p, repetition_penalty, ignore_eos of that "
    "line\n"
    "  --out DIR            where the results go (generated.jsonl); default: standard output, in\n"
    "                       the order of the file\n"
    "  --resume             go on with what DIR holds\n"
    "  --force              start again over what DIR holds\n"
    "  --batch N            prompts in flight at most (no limit); changes no bit\n"
    "  --memory SIZE        bytes of K,V and logits at most, such as 500M or 2G (no limit); "
    "changes\n"
    "                       no bit\n";

enum {
  OPT_MAX = CLI_OPT_NEXT,
  OPT_TEMP,
  OPT_K,
  OPT_P,
  OPT_SEED,
  OPT_REP,
  OPT_EOS,
  OPT_CHUNK,
  OPT_JSON,
  OPT_QUIET,
  OPT_IV,
  OPT_PRECISION,
  OPT_PROMPTS,
  OPT_OUT,
  OPT_RESUME,
  OPT_FORCE,
  OPT_BATCH,
  OPT_MEMORY
};

typedef struct gen {
  cli_prompt prompt;
  pf_gen_opts o;
  const char *penalty;
  long threads;
  pf_precision precision;
  const char *interventions;
  bool json, quiet;
  cli_many many;
  cli_ready ready;
  pf_decoder *dec;
  json_t *logprobs, *margins;
} gen;

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

static bool number_option(gen *g, int c) {
  long v = 0;
  switch (c) {
  case OPT_MAX:
    return cli_int("generate", "--max-tokens", optarg, 1, INT32_MAX, &v) &&
           (g->o.max_tokens = (int32_t)v, true);
  case OPT_K:
    return cli_int("generate", "--top-k", optarg, 0, INT32_MAX, &v) &&
           (g->o.top_k = (int32_t)v, true);
  case OPT_CHUNK:
    return cli_int("generate", "--chunk", optarg, 1, INT32_MAX, &v) &&
           (g->o.chunk = (int32_t)v, true);
  case OPT_SEED:
    return cli_int("generate", "--seed", optarg, 0, INT64_MAX, &v) &&
           (g->o.seed = (uint64_t)v, true);
  case OPT_TEMP:
    return cli_real("generate", "--temperature", optarg, 0, 1e6, &g->o.temperature);
  case OPT_P:
    return cli_real("generate", "--top-p", optarg, 1e-9, 1, &g->o.top_p);
  default:
    return cli_int("generate", "--threads", optarg, 1, 1024, &g->threads);
  }
}

/* An option of many prompts; false if c is another one. */
static bool many_option(gen *g, int c, bool *fine) {
  *fine = true;
  switch (c) {
  case OPT_PROMPTS:
    g->many.prompts = optarg;
    return true;
  case OPT_OUT:
    g->many.out_dir = optarg;
    return true;
  case OPT_RESUME:
    return g->many.resume = true;
  case OPT_FORCE:
    return g->many.force = true;
  case OPT_BATCH:
    *fine = cli_int("generate", "--batch", optarg, 1, INT32_MAX, &g->many.batch);
    return true;
  case OPT_MEMORY:
    *fine = cli_size("generate", "--memory", optarg, &g->many.memory);
    return true;
  default:
    return false;
  }
}

/* -1: go on; else an exit code. */
static int option(gen *g, int c) {
  bool fine;
  if (cli_prompt_option(&g->prompt, c, optarg))
    return -1;
  if (many_option(g, c, &fine))
    return fine ? -1 : 2;
  switch (c) {
  case 'h':
    return fputs(usage, stdout), 0;
  case '?':
    return 2;
  case OPT_REP:
    g->penalty = optarg;
    return -1;
  case OPT_IV:
    g->interventions = optarg;
    return -1;
  case OPT_PRECISION:
    return cli_precision("generate", optarg, &g->precision) ? -1 : 2;
  case OPT_EOS:
    return g->o.ignore_eos = 1, -1;
  case OPT_JSON:
    return g->json = true, -1;
  case OPT_QUIET:
    return g->quiet = true, -1;
  default:
    return number_option(g, c) ? -1 : 2;
  }
}

static int parse(gen *g, int argc, char **argv) {
  static const struct option options[] = {CLI_PROMPT_OPTIONS,
                                          {"max-tokens", required_argument, NULL, OPT_MAX},
                                          {"temperature", required_argument, NULL, OPT_TEMP},
                                          {"top-k", required_argument, NULL, OPT_K},
                                          {"top-p", required_argument, NULL, OPT_P},
                                          {"seed", required_argument, NULL, OPT_SEED},
                                          {"repetition-penalty", required_argument, NULL, OPT_REP},
                                          {"ignore-eos", no_argument, NULL, OPT_EOS},
                                          {"chunk", required_argument, NULL, OPT_CHUNK},
                                          {"threads", required_argument, NULL, 't'},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"quiet", no_argument, NULL, OPT_QUIET},
                                          {"interventions", required_argument, NULL, OPT_IV},
                                          {"precision", required_argument, NULL, OPT_PRECISION},
                                          {"prompts", required_argument, NULL, OPT_PROMPTS},
                                          {"out", required_argument, NULL, OPT_OUT},
                                          {"resume", no_argument, NULL, OPT_RESUME},
                                          {"force", no_argument, NULL, OPT_FORCE},
                                          {"batch", required_argument, NULL, OPT_BATCH},
                                          {"memory", required_argument, NULL, OPT_MEMORY},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  for (int c; (c = getopt_long(argc, argv, "t:", options, NULL)) != -1;) {
    int rc = option(g, c);
    if (rc >= 0)
      return rc;
  }
  if (optind + 1 != argc)
    return cli_usage("generate", "one MODEL is wanted");
  return -1;
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
  pf_ctx_opts o = {.threads = (int)g->threads, .keep_raw_k = g->interventions != NULL};
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
  pf_model_opts mo = {.threads = (int)g->threads,
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
  int rc = parse(&g, argc, argv);
  if (rc < 0 && (rc = check_many(&g)) == 0)
    rc = g.many.prompts ? generate_many(&g, argv[optind]) : -1;
  if (rc >= 0)
    return rc;
  g.logprobs = json_array();
  g.margins = json_array();
  rc = with_model(&g, argv[optind]);
  json_decref(g.logprobs);
  json_decref(g.margins);
  cli_ready_free(&g.ready);
  return rc;
}
