/* SPDX-License-Identifier: Apache-2.0
 * personaflow snap MODEL: records what a model computes. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow snap MODEL --prompts FILE --out DIR [OPTIONS]\n"
    "Runs prompts and writes the snapshot DIR: SHA-256 of every hook point by layer, head and\n"
    "block of positions, logits and generated tokens. Prints the digest of all of it: two\n"
    "snapshots with one digest are equal. personaflow diff compares two that are not.\n"
    "MODEL is a Hugging Face directory, or org/name[@revision] in the Hugging Face cache.\n";

static const char after[] = "An interrupted snapshot keeps every finished prompt.\n";

typedef struct args {
  pf_snap_opts o;
  int quiet;
} args;

#define AT(field) .at = offsetof(args, o.field)
static const cli_opt opts[] = {
    {"prompts", 0, "FILE",
     "JSON Lines (- for standard input): in each line one of \"prompt\" (a user message), \"raw\" "
     "(text), \"messages\", \"persona\" with \"task\", \"ids\" (tokens); and an \"id\"",
     CLI_TEXT, AT(prompts_name)},
    {"out", 0, "DIR", "where the snapshot goes", CLI_TEXT, AT(out_dir)},
    {"hooks", 0, "A,B,...",
     "hook points; '*' in the place of the layer takes every layer (all but hook_result; the "
     "logits always)",
     CLI_TEXT, AT(hooks)},
    {"full", 0, NULL, "keep the values too, as safetensors", CLI_FLAG, AT(full)},
    {"max-tokens", 0, "N",
     "tokens to generate greedily for each prompt, past an end-of-sequence token too (8)", CLI_INT,
     AT(max_tokens), 0, 1 << 20},
    {"block", 0, "N", "positions of the prompt that a digest covers (16)", CLI_INT, AT(block), 1,
     65536},
    {"chunk", 0, "N", "prompt rows of one evaluation; changes no bit", CLI_INT, AT(chunk), 1,
     INT32_MAX},
    CLI_THREADS(args, o.threads),
    CLI_PRECISIONS(args, o.precision),
    {"resume", 0, NULL, "go on with what DIR holds", CLI_FLAG, AT(resume)},
    {"force", 0, NULL, "start again over what DIR holds", CLI_FLAG, AT(force)},
    CLI_QUIET(args, quiet),
    {0}};
#undef AT

static int snap(pf_snap_opts *o) {
  char *text = cli_read_text(o->prompts_name, &o->n_prompts), digest[65];
  if (!text)
    return 3;
  o->prompts = text;
  o->prompts_name = cli_text_name(o->prompts_name);
  o->stop = cli_stop_on_signals();
  int rc = pf_snap_run(o, digest);
  free(text);
  if (rc != PF_OK)
    return cli_fail(rc);
  printf("%s  %s\n", digest, o->out_dir);
  return 0;
}

int cmd_snap(int argc, char **argv) {
  args a = {.o = {.max_tokens = 8}};
  int rc;
  if (!cli_options(&(cli_command){"snap", usage, opts, after}, &a, argc, argv, &rc))
    return rc;
  if (optind + 1 != argc)
    return cli_usage("snap", "one MODEL is wanted");
  if (!a.o.prompts_name || !a.o.out_dir)
    return cli_usage("snap", "--prompts and --out are wanted");
  if (a.o.resume && a.o.force)
    return cli_usage("snap", "--resume goes on, --force starts again: give one");
  a.o.model = argv[optind];
  a.o.progress = a.quiet ? NULL : cli_progress;
  return snap(&a.o);
}
