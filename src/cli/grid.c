/* SPDX-License-Identifier: Apache-2.0
 * personaflow grid: a grid in lines. Needs the tokenizer files and the configuration of a model,
 * not its weights. */
#include <stdio.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow grid GRID [MODEL]\n"
    "Checks a grid (short, long, demo, or a file; doc/GRIDS.md) and prints what is in it. With "
    "MODEL, a\n"
    "directory or a name in the Hugging Face cache, also the tokens and spans of every prompt, one "
    "a\n"
    "line: name, tokens, bos template persona task header as lo:hi, p_user_last, p_last. Weights "
    "are\n"
    "not read.\n";

static const cli_opt opts[] = {{0}};

static int with_model(const char *grid, const char *model) {
  char dir[4096];
  pf_tok *t = NULL;
  pf_model *m = NULL;
  int rc = pf_model_resolve(model, dir, sizeof dir);
  if (rc == PF_OK)
    rc = pf_model_open_config(&m, dir);
  if (rc == PF_OK)
    rc = pf_tok_open(&t, dir);
  if (rc == PF_OK)
    rc = pf_grid_describe(grid, t, pf_model_get_info(m)->max_positions, cli_print_line, stdout);
  pf_tok_close(t);
  pf_model_close(m);
  return rc;
}

int cmd_grid(int argc, char **argv) {
  int rc;
  if (!cli_options(&(cli_command){"grid", usage, opts, NULL}, NULL, argc, argv, &rc))
    return rc;
  if (argc - optind < 1 || argc - optind > 2)
    return cli_usage("grid", argc == optind ? "a grid is needed" : "one grid and one model");
  rc = argc - optind == 1 ? pf_grid_describe(argv[optind], NULL, 0, cli_print_line, stdout)
                          : with_model(argv[optind], argv[optind + 1]);
  return rc == PF_OK ? 0 : cli_fail(rc);
}
