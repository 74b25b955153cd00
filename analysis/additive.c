/* SPDX-License-Identifier: Apache-2.0
 * The additive sweep as an experiment: cells.c computes as many cells together as memory allows. */
#include "analysis/experiment.h"

#include "base/mem.h"
#include "base/status.h"

bool pf_additive_gives_y(const pf_desk *d, size_t cell) {
  return d->plan.y_max == PF_Y_MAX && !d->o->no_sharing && pf_desk_wants(d, "additive", cell);
}

static int keep_cell(void *user, const pf_cell *c) {
  pf_desk *d = user;
  int rc = PF_OK;
  if (pf_additive_gives_y(d, c->index) && pf_desk_wants(d, "y", c->index))
    rc = pf_desk_done(d, "y", c->index, 0, pf_continuation_record(d, &c->y));
  return rc != PF_OK ? rc : pf_desk_done(d, "additive", c->index, 0, pf_cell_record(&d->work, c));
}

int pf_additive_sweep(pf_desk *d, const size_t *cells, size_t n) {
  int rc = PF_OK;
  for (size_t at = 0, m; at < n && rc == PF_OK; at += m) {
    m = n - at < d->together ? n - at : d->together;
    rc = pf_cells_run(&d->work, cells + at, m, keep_cell, d);
  }
  pf_work_drop(&d->work);
  return rc;
}

void pf_additive_cost(const pf_desk *d, size_t cell, pf_cost *cost) {
  pf_cost_cell(&d->work, cell, cost);
}
