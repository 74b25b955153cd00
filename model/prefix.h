/* SPDX-License-Identifier: Apache-2.0
 * A token tree over prompts: which beginnings they share, and in which order of the prompts the
 * fewest of them live at once. */
#ifndef PF_MODEL_PREFIX_H
#define PF_MODEL_PREFIX_H

#include <stddef.h>
#include <stdint.h>

typedef struct pf_prompt_ids {
  const int32_t *ids;
  size_t n, index; /* index: the caller's */
} pf_prompt_ids;

/* The first n tokens of ids, shared by all below it; longer than its parent's. */
typedef struct pf_prefix {
  const int32_t *ids;
  size_t n;
  int64_t parent; /* -1: none */
} pf_prefix;

typedef struct pf_prefix_tree {
  pf_prefix *v; /* (n_v) parents before their children */
  size_t n_v;
  int64_t *of; /* of[i]: the prefix of the i-th sorted prompt, -1: none */
} pf_prefix_tree;

/* Sorts the n prompts (a walk through the tree, depth first) and finds the shared beginnings that
 * are `step` tokens longer than the one before and save `worth` tokens, at least. Every prompt
 * keeps one token of its own. PF_OK or PF_ENOMEM. */
int pf_prefix_tree_make(pf_prefix_tree *t, pf_prompt_ids *prompts, size_t n, size_t worth,
                        size_t step);
void pf_prefix_tree_free(pf_prefix_tree *t);

#endif
