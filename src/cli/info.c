/* SPDX-License-Identifier: Apache-2.0
 * personaflow info: this build, this machine and the kernels chosen. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/opts.h"

static int print_text(const pf_kernel_choice *k, size_t n) {
  printf("personaflow %s, numerics contract %d\n", pf_version(), pf_contract_version());
  printf("cpu       %s\nfeatures  %s\nfigures   %s\n\n", pf_cpu_name(), pf_cpu_features(),
         pf_figure_formats());
  for (int p = 1; p < PF_N_PRECISIONS; p++)
    printf("%s %-8s %s\n", p == 1 ? "precision" : "         ", pf_precision_name((pf_precision)p),
           pf_precision_note((pf_precision)p));
  printf("\n%-15s %-10s %-28s %s\n", "operation", "isa", "kernel", "why");
  for (size_t i = 0; i < n; i++)
    printf("%-15s %-10s %-28s %s\n", k[i].op, k[i].isa, k[i].symbol, k[i].why);
  return 0;
}

static int print_json(const pf_kernel_choice *k, size_t n) {
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(list, json_pack("{ss ss ss ss}", "op", k[i].op, "isa", k[i].isa, "kernel",
                                          k[i].symbol, "why", k[i].why));
  json_t *precisions = json_object();
  for (int p = 1; p < PF_N_PRECISIONS; p++)
    json_object_set_new(precisions, pf_precision_name((pf_precision)p),
                        json_string(pf_precision_note((pf_precision)p)));
  json_t *o = json_pack("{ss si ss ss so so}", "version", pf_version(), "contract",
                        pf_contract_version(), "cpu", pf_cpu_name(), "features", pf_cpu_features(),
                        "precisions", precisions, "kernels", list);
  if (!o) {
    fputs("personaflow: out of memory\n", stderr);
    return pf_exit_code(PF_ENOMEM);
  }
  json_dumpf(o, stdout, JSON_INDENT(2));
  putchar('\n');
  json_decref(o);
  return 0;
}

static const char usage[] =
    "usage: personaflow info [--json] [--precision P]\n"
    "Prints the version, the numerics contract, the CPU and its features, the precisions, and the "
    "kernel\n"
    "chosen for every operation with the reason. PERSONAFLOW_ISA caps the choice; the manual page "
    "names\n"
    "its values.\n";

typedef struct args {
  int json;
  pf_precision precision;
} args;

static const cli_opt opts[] = {
    {"json", 0, NULL, "one JSON object", CLI_FLAG, .at = offsetof(args, json)},
    {"precision", 0, "P", "only the kernels that a pass of this precision calls", CLI_PRECISION,
     .at = offsetof(args, precision)},
    {0}};

/* Those that the precision uses, to the front; their number. */
static size_t keep_used(pf_kernel_choice *to, const pf_kernel_choice *k, size_t n, pf_precision p) {
  size_t m = 0;
  for (size_t i = 0; i < n; i++)
    if (p == PF_PRECISION_AUTO || pf_precision_uses(p, k[i].op))
      to[m++] = k[i];
  return m;
}

int cmd_info(int argc, char **argv) {
  args a = {.precision = PF_PRECISION_AUTO};
  int rc;
  if (!cli_options(&(cli_command){"info", usage, opts, NULL}, &a, argc, argv, &rc))
    return rc;
  if (optind < argc)
    return cli_usage("info", "unexpected argument '%s'", argv[optind]);
  const pf_kernel_choice *k;
  size_t n;
  int status = pf_kernels(&k, &n);
  if (status != PF_OK)
    return cli_fail(status);
  pf_kernel_choice *used = calloc(n, sizeof *used);
  if (!used)
    return cli_fail(PF_ENOMEM);
  n = keep_used(used, k, n, a.precision);
  rc = a.json ? print_json(used, n) : print_text(used, n);
  free(used);
  return rc;
}
