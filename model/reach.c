/* SPDX-License-Identifier: Apache-2.0
 * What an intervention reaches. Overwriting a value at (layer L, position s) leaves positions below
 * s alone, and the layers below L everywhere: it arrives at later positions through the K,V of s
 * only, which change at L where the value comes before K and V, else at L + 1. */
#include "model/tap.h"

static void lower(int32_t *layers, int64_t lo, int64_t hi, int32_t to) {
  for (int64_t p = lo; p < hi; p++)
    if (layers[p] > to)
      layers[p] = to;
}

static int64_t below(int64_t p, int32_t n) {
  return p < n ? p : n;
}

void pf_reach_taps(const pf_tap *taps, size_t n_taps, int32_t n, int32_t *layers) {
  for (size_t i = 0; i < n_taps; i++) {
    const pf_tap *t = &taps[i];
    int64_t lo = below(t->pos_lo, n), hi = below(t->pos_hi, n);
    if (t->layer < 0 && t->hook != PF_HOOK_EMBED)
      continue; /* after the last layer */
    int32_t at = t->layer < 0 ? 0 : t->layer;
    lower(layers, lo, hi, at);
    if (t->op != PF_OP_CAPTURE)
      lower(layers, lo + 1, n, at + !pf_hook_before_kv(t->hook));
  }
}

void pf_reach_cuts(const pf_cut *cuts, size_t n_cuts, int32_t n, int32_t *layers) {
  for (size_t i = 0; i < n_cuts; i++) {
    const pf_cut *c = &cuts[i];
    if (c->q_hi <= c->q_lo || c->k_hi <= c->k_lo)
      continue;
    lower(layers, below(c->q_lo, n), below(c->q_hi, n), c->layer_lo);
    lower(layers, below((int64_t)c->q_lo + 1, n), n, c->layer_lo + 1);
  }
}

void pf_reach_swaps(const pf_swap *swaps, size_t n_swaps, int32_t n, int32_t *layers) {
  for (size_t i = 0; i < n_swaps; i++) {
    const pf_swap *w = &swaps[i];
    int64_t lo = w->q_lo > w->pos_hi ? w->q_lo : w->pos_hi;
    lower(layers, below(lo, n), w->q_hi ? below(w->q_hi, n) : n, w->layer_lo);
    if (!w->q_hi || lo < w->q_hi)
      lower(layers, below(lo + 1, n), n, w->layer_lo + 1);
  }
}

int32_t pf_reach_stop(const pf_tap *taps, size_t n_taps, int32_t n_layers) {
  int32_t stop = 1;
  for (size_t i = 0; i < n_taps; i++) {
    const pf_tap *t = &taps[i];
    int32_t past = t->layer >= 0              ? t->layer + (t->hook != PF_HOOK_RESID_PRE)
                   : t->hook == PF_HOOK_EMBED ? 1
                                              : n_layers;
    stop = past > stop ? past : stop;
  }
  return stop;
}
