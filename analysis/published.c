/* SPDX-License-Identifier: Apache-2.0
 * The paper's three models by their configuration, and its published medians. */
#include <stdio.h>
#include <string.h>

#include "analysis/study.h"
#include "base/js.h"
#include "base/status.h"

static const struct known {
  pf_published id;
  const char *arch;
  int32_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_ff, vocab_size;
} known[] = {
    {{"gemma2b", "google/gemma-2-2b-it"}, "gemma2", 26, 2304, 8, 4, 256, 9216, 256000},
    {{"qwen15", "Qwen/Qwen2.5-1.5B-Instruct"}, "qwen2", 28, 1536, 12, 2, 128, 8960, 151936},
    {{"qwen3b", "Qwen/Qwen2.5-3B-Instruct"}, "qwen2", 36, 2048, 16, 2, 128, 11008, 151936},
};

const pf_published *pf_published_match(const pf_model_info *i) {
  for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
    const struct known *m = &known[k];
    if (!strcmp(i->arch, m->arch) && i->n_layers == m->n_layers && i->d_model == m->d_model &&
        i->n_heads == m->n_heads && i->n_kv_heads == m->n_kv_heads && i->d_head == m->d_head &&
        i->d_ff == m->d_ff && i->vocab_size == m->vocab_size)
      return &m->id;
  }
  return NULL;
}

static const struct {
  const char *grid, *pattern;
} files[] = {{"paper-short", "paper-results/v15_%s_localized_positions.json"},
             {"paper-long", "paper-results/v16_%s_diverse_grid.json"}};

int pf_published_load(const char *model_key, const char *grid, json_t **out) {
  char name[128], path[4096];
  *out = NULL;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (!strcmp(files[i].grid, grid)) {
      snprintf(name, sizeof name, files[i].pattern, model_key);
      int rc = pf_data_path(name, path, sizeof path);
      return rc == PF_OK ? pf_js_file(path, 1 << 24, out) : rc;
    }
  return pf_fail(PF_EINPUT, "the paper has no results for the grid '%s'", grid);
}
