/* SPDX-License-Identifier: Apache-2.0
 * The paper's three models by their configuration, and its published medians. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/grid.h"
#include "analysis/study.h"
#include "base/js.h"
#include "base/status.h"

static const struct known {
  pf_published id;
  const char *arch;
  int32_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_ff, vocab_size, sliding_window;
  float attn_softcap, final_softcap;
  double rope_theta;
} known[] = {
    {{"gemma2b", "google/gemma-2-2b-it"},
     "gemma2",
     26,
     2304,
     8,
     4,
     256,
     9216,
     256000,
     4096,
     50,
     30,
     1e4},
    {{"qwen15", "Qwen/Qwen2.5-1.5B-Instruct"},
     "qwen2",
     28,
     1536,
     12,
     2,
     128,
     8960,
     151936,
     0,
     0,
     0,
     1e6},
    {{"qwen3b", "Qwen/Qwen2.5-3B-Instruct"},
     "qwen2",
     36,
     2048,
     16,
     2,
     128,
     11008,
     151936,
     0,
     0,
     0,
     1e6},
};

/* What all three share: a tied unembedding, eps 1e-6, scores over the root of the head's width. */
static bool same_numbers(const struct known *m, const pf_model_info *i) {
  return i->tied && i->sliding_window == m->sliding_window && i->attn_softcap == m->attn_softcap &&
         i->final_softcap == m->final_softcap && i->rope_theta == m->rope_theta &&
         i->rms_eps == 1e-6f && i->attn_scale == 1.0 / sqrt((double)i->d_head);
}

const pf_published *pf_published_match(const pf_model_info *i) {
  for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
    const struct known *m = &known[k];
    if (!strcmp(i->arch, m->arch) && i->n_layers == m->n_layers && i->d_model == m->d_model &&
        i->n_heads == m->n_heads && i->n_kv_heads == m->n_kv_heads && i->d_head == m->d_head &&
        i->d_ff == m->d_ff && i->vocab_size == m->vocab_size && same_numbers(m, i))
      return &m->id;
  }
  return NULL;
}

/* The paper's grids by their shipped files: a grid of another content has no published results,
 * whatever its name. */
static const struct {
  const char *grid, *pattern;
} files[] = {{"short", "paper-results/v15_%s_localized_positions.json"},
             {"long", "paper-results/v16_%s_diverse_grid.json"}};

static bool is_grid(const char *word, const char *sha256) {
  pf_grid g;
  bool same = pf_grid_open(&g, word) == PF_OK && !strcmp(g.sha256, sha256);
  pf_grid_free(&g);
  return same;
}

int pf_published_load(const char *model_key, const char *grid_sha256, json_t **out) {
  char name[128], path[4096];
  *out = NULL;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (is_grid(files[i].grid, grid_sha256)) {
      snprintf(name, sizeof name, files[i].pattern, model_key);
      int rc = pf_data_path(name, path, sizeof path);
      return rc == PF_OK ? pf_js_file(path, 1 << 24, out) : rc;
    }
  return pf_fail(PF_EINPUT, "the paper has no results for this grid");
}
