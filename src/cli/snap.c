/* SPDX-License-Identifier: Apache-2.0
 * personaflow snap MODEL: records what a model computes. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"

static const char usage[] =
    "usage: personaflow snap MODEL --prompts FILE --out DIR [OPTIONS]\n"
    "Runs prompts and writes the snapshot DIR: SHA-256 of every hook point by layer, head and\n"
    "block of positions, logits and generated tokens. Prints the digest of all of it: two\n"
    "snapshots with one digest are equal. personaflow diff compares two that are not.\n"
    "MODEL is a Hugging Face directory, or org/name[@revision] in the Hugging Face cache.\n"
    "  --prompts FILE       JSON Lines (- for standard input): in each line one of \"prompt\" (a\n"
    "                       user message), \"raw\" (text), \"messages\", \"persona\" with "
    "\"task\",\n"
    "                       \"ids\" (tokens); and an \"id\"\n"
    "  --out DIR            where the snapshot goes\n"
    "  --hooks A,B,...      hook points; '*' in the place of the layer takes every layer (all but\n"
    "                       hook_result; the logits always)\n"
    "  --full               keep the values too, as safetensors\n"
    "  --max-tokens N       tokens to generate greedily for each prompt, past an end-of-sequence\n"
    "                       token too (8)\n"
    "  --block N            positions of the prompt that a digest covers (16)\n"
    "  --chunk N            prompt rows of one evaluation; changes no bit\n"
    "  -t, --threads N      threads; changes no bit\n" CLI_PRECISION_HELP
    "  --resume             go on with what DIR holds\n"
    "  --force              start again over what DIR holds\n"
    "  --quiet              no progress\n"
    "An interrupted snapshot keeps every finished prompt.\n";

enum {
  OPT_PROMPTS = 256,
  OPT_OUT,
  OPT_HOOKS,
  OPT_FULL,
  OPT_MAX,
  OPT_BLOCK,
  OPT_CHUNK,
  OPT_PRECISION,
  OPT_RESUME,
  OPT_FORCE,
  OPT_QUIET
};

static const struct option options[] = {{"prompts", required_argument, NULL, OPT_PROMPTS},
                                        {"out", required_argument, NULL, OPT_OUT},
                                        {"hooks", required_argument, NULL, OPT_HOOKS},
                                        {"full", no_argument, NULL, OPT_FULL},
                                        {"max-tokens", required_argument, NULL, OPT_MAX},
                                        {"block", required_argument, NULL, OPT_BLOCK},
                                        {"chunk", required_argument, NULL, OPT_CHUNK},
                                        {"threads", required_argument, NULL, 't'},
                                        {"precision", required_argument, NULL, OPT_PRECISION},
                                        {"resume", no_argument, NULL, OPT_RESUME},
                                        {"force", no_argument, NULL, OPT_FORCE},
                                        {"quiet", no_argument, NULL, OPT_QUIET},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

static int number(const char *name, long lo, long hi, int32_t *out) {
  long v;
  if (!cli_int("snap", name, optarg, lo, hi, &v))
    return 2;
  *out = (int32_t)v;
  return -1;
}

/* -1: go on; else an exit code. */
static int option(pf_snap_opts *o, int c) {
  switch (c) {
  case 'h':
    return fputs(usage, stdout), 0;
  case OPT_PROMPTS:
    return o->prompts_name = optarg, -1;
  case OPT_OUT:
    return o->out_dir = optarg, -1;
  case OPT_HOOKS:
    return o->hooks = optarg, -1;
  case OPT_FULL:
    return o->full = 1, -1;
  case OPT_MAX:
    return number("--max-tokens", 0, 1 << 20, &o->max_tokens);
  case OPT_BLOCK:
    return number("--block", 1, 65536, &o->block);
  case OPT_CHUNK:
    return number("--chunk", 1, INT32_MAX, &o->chunk);
  case 't':
    return number("--threads", 1, 1024, &o->threads);
  case OPT_PRECISION:
    return cli_precision("snap", optarg, &o->precision) ? -1 : 2;
  case OPT_RESUME:
    return o->resume = 1, -1;
  case OPT_FORCE:
    return o->force = 1, -1;
  case OPT_QUIET:
    return o->progress = NULL, -1;
  default:
    return 2;
  }
}

int cmd_snap(int argc, char **argv) {
  pf_snap_opts o = {.max_tokens = 8, .progress = cli_progress};
  for (int c; (c = getopt_long(argc, argv, "t:", options, NULL)) != -1;) {
    int rc = option(&o, c);
    if (rc >= 0)
      return rc;
  }
  if (optind + 1 != argc)
    return cli_usage("snap", "one MODEL is wanted");
  if (!o.prompts_name || !o.out_dir)
    return cli_usage("snap", "--prompts and --out are wanted");
  if (o.resume && o.force)
    return cli_usage("snap", "--resume goes on, --force starts again: give one");
  char *text = cli_read_text(o.prompts_name, &o.n_prompts), digest[65];
  if (!text)
    return 3;
  o.model = argv[optind];
  o.prompts = text;
  o.stop = cli_stop_on_signals();
  int rc = pf_snap_run(&o, digest);
  free(text);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s  %s\n", digest, o.out_dir);
  return 0;
}
