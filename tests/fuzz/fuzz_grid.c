/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: a grid file with its controls and markers, and a list of layers after the first zero
 * byte. */
#include <string.h>

#include "analysis/controls.h"
#include "analysis/markers.h"
#include "base/mem.h"
#include "base/status.h"
#include "tests/fuzz/fuzz.h"

enum { LAYERS = 26 };

static void check(const pf_grid *g) {
  FUZZ_CHECK(g->n_personas > 0 && g->n_tasks > 0 && g->n_probes > 0 && g->n_probes <= PF_N_PROBES);
  FUZZ_CHECK(strstr(g->template_, "{persona}") < strstr(g->template_, "{task}"));
  for (size_t i = 0; i < g->n_personas; i++)
    FUZZ_CHECK(*g->personas[i].key && *g->personas[i].text);
  for (size_t i = 1; i < g->n_probes; i++)
    FUZZ_CHECK(g->probes[i - 1] < g->probes[i]);
  (void)pf_grid_held_out(g, g->n_personas - 1, g->n_tasks - 1);
}

/* A grid that was read has controls and markers that can be read. */
static void check_parts(const pf_grid *g) {
  pf_controls c;
  pf_markers m;
  FUZZ_CHECK(pf_controls_of_grid(&c, g, "fuzz") == PF_OK);
  for (size_t i = 0; i < c.n_neutral; i++) {
    char *s = pf_neutral_text(&c.neutral[i], 5);
    FUZZ_CHECK(s != NULL);
    pf_free(s);
  }
  for (size_t i = 0; i < c.n_conflicts; i++)
    FUZZ_CHECK(*c.conflicts[i].persona.text && *c.conflicts[i].task.text);
  pf_controls_free(&c);
  FUZZ_CHECK(pf_markers_of_grid(&m, g) == PF_OK);
  for (size_t i = 0; i < m.n_personas; i++) {
    pf_marker_score s;
    int rc =
        pf_markers_score(&m.personas[i], "A pirate's life,\nfor me", "a pirate", NULL, &s, NULL);
    FUZZ_CHECK(rc != PF_OK || (s.own <= s.distinct && s.distinct <= m.personas[i].n));
  }
  pf_markers_free(&m);
}

static void check_layers(const pf_grid *g, const char *list) {
  pf_ids v;
  if (pf_grid_layers(g, list, LAYERS, &v) != PF_OK)
    return;
  FUZZ_CHECK(v.n > 0);
  for (size_t i = 0; i < v.n; i++)
    FUZZ_CHECK(v.v[i] >= 0 && v.v[i] < LAYERS && (i == 0 || v.v[i - 1] < v.v[i]));
  pf_ids_free(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data, *zero = memchr(data, 0, size);
  size_t n = zero ? (size_t)(zero - text) : size;
  char list[64] = "";
  pf_grid g;
  if (zero)
    memcpy(list, zero + 1, size - n - 1 < 63 ? size - n - 1 : 63);
  int rc = pf_grid_parse(&g, "fuzz", text, n);
  FUZZ_CHECK(rc == PF_OK || (g.root == NULL && *pf_last_error()));
  if (rc == PF_OK) {
    check(&g);
    check_parts(&g);
    check_layers(&g, NULL);
    check_layers(&g, list);
  }
  pf_grid_free(&g);
  return 0;
}
