/* SPDX-License-Identifier: Apache-2.0
 * personaflow hooks MODEL: the hook points a model has, with shapes and aliases. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/opts.h"

static const char usage[] =
    "usage: personaflow hooks MODEL [--json] [--list]\n"
    "Prints the hook points of a model in order of execution: name, shape, aliases that are "
    "accepted\n"
    "as input, and what stands there. %d is the layer. Only the configuration is read.\n";

typedef struct args {
  int json, list;
} args;

static const cli_opt opts[] = {
    {"json", 0, NULL, "one JSON array", CLI_FLAG, .at = offsetof(args, json)},
    {"list", 0, NULL, "one hook point a line: its name, a tab, its aliases separated by spaces",
     CLI_FLAG, .at = offsetof(args, list)},
    {0}};

static json_t *as_json(const pf_hook_info *h) {
  return json_pack("{s:s s:s s:s s:i s:i s:b s:s}", "name", h->name, "shape", h->shape, "aliases",
                   h->aliases, "heads", (int)h->heads, "width", (int)h->width, "per_layer",
                   (int)h->per_layer, "note", h->note);
}

static int print_json(const pf_hook_info *h, size_t n) {
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(list, as_json(&h[i]));
  json_dumpf(list, stdout, JSON_INDENT(1));
  putchar('\n');
  json_decref(list);
  return 0;
}

static void print_width(const pf_hook_info *h) {
  char shape[64] = "";
  if (h->width < 0)
    snprintf(shape, sizeof shape, "[pos, %d, key]", (int)h->heads);
  else if (h->heads)
    snprintf(shape, sizeof shape, "[pos, %d, %d]", (int)h->heads, (int)h->width);
  else
    snprintf(shape, sizeof shape, "[pos, %d]", (int)h->width);
  printf("%-36s %-20s %-22s", h->name, shape, h->shape);
}

static int print_text(const pf_model_info *m, const pf_hook_info *h, size_t n) {
  printf("%s: %d layers (0 to %d); rows are [pos, ...], row-major\n\n", m->arch, (int)m->n_layers,
         (int)m->n_layers - 1);
  printf("%-36s %-20s %-22s\n", "name", "this model", "axes");
  for (size_t i = 0; i < n; i++) {
    print_width(&h[i]);
    if (*h[i].note)
      printf(" %s", h[i].note);
    putchar('\n');
    if (*h[i].aliases)
      printf("    also: %s\n", h[i].aliases);
  }
  return 0;
}

static int print_names(const pf_hook_info *h, size_t n) {
  for (size_t i = 0; i < n; i++)
    printf("%s%s%s\n", h[i].name, *h[i].aliases ? "\t" : "", h[i].aliases);
  return 0;
}

int cmd_hooks(int argc, char **argv) {
  args a = {0};
  int rc;
  if (!cli_options(&(cli_command){"hooks", usage, opts, NULL}, &a, argc, argv, &rc))
    return rc;
  if (optind + 1 != argc)
    return cli_usage("hooks", "one MODEL is wanted");
  pf_model *m;
  int st = pf_model_open_config(&m, argv[optind]);
  if (st != PF_OK)
    return cli_fail(st);
  size_t n;
  const pf_hook_info *h = pf_hooks(m, &n);
  rc = a.json   ? print_json(h, n)
       : a.list ? print_names(h, n)
                : print_text(pf_model_get_info(m), h, n);
  pf_model_close(m);
  return rc;
}
