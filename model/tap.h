/* SPDX-License-Identifier: Apache-2.0
 * Hook points by number, and the actions of a sequence indexed by (layer, hook). */
#ifndef PF_MODEL_TAP_H
#define PF_MODEL_TAP_H

#include <stdbool.h>

#include "personaflow/model.h"

typedef enum pf_hook_id {
#define PF_HOOK(id, per_layer, heads, width, exists, name, al, al_g, al_q, shape, note)            \
  PF_HOOK_##id,
#include "model/hooks.def"
#undef PF_HOOK
  PF_N_HOOKS
} pf_hook_id;

/* Are K or V of the same layer made from the value? The other points of a layer stand behind them.
 */
static inline bool pf_hook_before_kv(int hook) {
  return hook <= PF_HOOK_LN1_OUT || hook == PF_HOOK_K || hook == PF_HOOK_V || hook == PF_HOOK_ROT_K;
}

/* Does a head's row have a value for each key? */
bool pf_hook_over_keys(int hook);

/* A sequence's actions sorted by (layer, hook), list order kept within one point. */
typedef struct pf_tapset {
  pf_tap *taps; /* the caller's */
  uint32_t *order;
  size_t n;
} pf_tapset;

/* What a row looks like at a point: `heads` parts of `width` values, part h at x + h*stride. */
typedef struct pf_point {
  int hook;
  int32_t layer, pos;
  int32_t head0, heads; /* parts head0 .. head0+heads-1 of the hook are here */
  size_t width, stride;

} pf_point;

/* Checks and indexes; PF_EUSAGE names the tap. */
int pf_tapset_make(pf_tapset *t, const pf_model *m, pf_tap *taps, size_t n);
void pf_tapset_free(pf_tapset *t);
/* True if an action stands at (hook, layer) for position pos. */
bool pf_tapset_hits(const pf_tapset *t, int hook, int32_t layer, int32_t pos);
/* Runs the actions of the point on x in list order; true if one of them may have changed x. */
bool pf_tapset_run(const pf_tapset *t, const pf_point *p, float *x);
/* Marks used[layer_slot*PF_N_HOOKS + hook] for every action; slot 0 is "not per layer", layer L is
 * slot L+1. */
void pf_tapset_mark(const pf_tapset *t, uint8_t *used);

#endif
