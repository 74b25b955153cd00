/* SPDX-License-Identifier: Apache-2.0
 * personaflow info: this build, this machine and the kernels chosen. */
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"

static int print_text(const pf_kernel_choice *k, size_t n) {
  printf("personaflow %s, numerics contract %d\n", pf_version(), pf_contract_version());
  printf("cpu       %s\nfeatures  %s\n\n", pf_cpu_name(), pf_cpu_features());
  printf("%-14s %-8s %-26s %s\n", "operation", "isa", "kernel", "why");
  for (size_t i = 0; i < n; i++)
    printf("%-14s %-8s %-26s %s\n", k[i].op, k[i].isa, k[i].symbol, k[i].why);
  return 0;
}

static int print_json(const pf_kernel_choice *k, size_t n) {
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(list, json_pack("{ss ss ss ss}", "op", k[i].op, "isa", k[i].isa, "kernel",
                                          k[i].symbol, "why", k[i].why));
  json_t *o =
      json_pack("{ss si ss ss so}", "version", pf_version(), "contract", pf_contract_version(),
                "cpu", pf_cpu_name(), "features", pf_cpu_features(), "kernels", list);
  if (!o) {
    fputs("personaflow: out of memory\n", stderr);
    return pf_exit_code(PF_ENOMEM);
  }
  json_dumpf(o, stdout, JSON_INDENT(2));
  putchar('\n');
  json_decref(o);
  return 0;
}

int cmd_info(int argc, char **argv) {
  static const struct option options[] = {
      {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
  bool json = false;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 'h') {
      puts("usage: personaflow info [--json]\n"
           "Prints the version, the numerics contract, the CPU and its features, and the kernel "
           "chosen for every\n"
           "operation with the reason. PERSONAFLOW_ISA=scalar|avx2|avx512|neon caps the choice.");
      return 0;
    }
    if (c != 'j')
      return 2;
    json = true;
  }
  if (optind < argc)
    return cli_usage("info", "unexpected argument '%s'", argv[optind]);
  const pf_kernel_choice *k;
  size_t n;
  int status = pf_kernels(&k, &n);
  if (status != PF_OK)
    return cli_fail(status);
  return json ? print_json(k, n) : print_text(k, n);
}
