/* SPDX-License-Identifier: Apache-2.0
 * D5: what attention brought from the persona is added to a host without it. For each layer and
 * head, sum_j alpha_j v_j over the persona's keys of the cell's own run, at the row that gives y_t,
 * is added to the host's z at the row of the same t. Then averaged over t; over other tasks of the
 * same persona. Which average loses the persona? doc/STUDY.md, D5. */
#include <string.h>

#include "analysis/experiment.h"
#include "analysis/heads.h"
#include "base/status.h"

typedef struct d5 {
  pf_flow f;
  size_t layers, rows, width; /* of z: (layers, rows, width) */
  const pf_trial *none;
} d5;

static size_t count(const d5 *d) {
  return d->layers * d->rows * d->width;
}

/* The persona's sums in the run of persona and task. */
static int sums(d5 *d, int task, float **z) {
  pf_lab *l = d->f.s.l;
  const pf_track *t;
  pf_heads h;
  int rc = pf_lab_track(l, (pf_who){.persona = pf_lab_persona(l), .task = task}, &t);
  if (rc == PF_OK)
    rc = pf_heads_read(&h, &d->f, t);
  if (rc != PF_OK)
    return rc;
  d->layers = h.layers;
  d->rows = h.rows;
  d->width = h.heads * h.d_head;
  *z = pf_lab_alloc(l, count(d), sizeof **z);
  if (!*z)
    return PF_ENOMEM;
  pf_heads_values(&h, t->x.lo, t->x.hi, *z);
  return PF_OK;
}

/* Adds z at the host's rows. */
static int inject(d5 *d, const pf_track *host, const char *name, const float *z) {
  pf_lab *l = d->f.s.l;
  int hook = pf_lab_hook(l, "blocks.0.attn.hook_z");
  int32_t lo = host->pos[host->n_prompt - 1];
  pf_line *x;
  int rc = hook < 0 ? hook : pf_sheet_add(&d->f.s, host, name, &x);
  for (size_t k = 0; k < d->layers && rc == PF_OK && z; k++)
    rc = pf_line_tap(&d->f.s, x,
                     (pf_tap){.hook = hook,
                              .layer = (int32_t)k,
                              .head = -1,
                              .pos_lo = lo,
                              .pos_hi = lo + (int32_t)d->rows,
                              .op = PF_OP_ADD,
                              .value = z + k * d->rows * d->width,
                              .value_stride = d->width});
  if (rc != PF_OK)
    return rc;
  d->none = z ? d->none : &x->v;
  x->base = d->none;
  x->steps = true;
  return PF_OK;
}

static void mean_over_steps(const d5 *d, const float *z, float *out) {
  for (size_t k = 0; k < d->layers; k++)
    for (size_t e = 0; e < d->width; e++) {
      double sum = 0;
      for (size_t r = 0; r < d->rows; r++)
        sum += (double)z[(k * d->rows + r) * d->width + e];
      for (size_t r = 0; r < d->rows; r++)
        out[(k * d->rows + r) * d->width + e] = (float)(sum / (double)d->rows);
    }
}

/* Over the other tasks; false: there is none. */
static int mean_over_tasks(d5 *d, float **out) {
  pf_lab *l = d->f.s.l;
  int n = (int)pf_lab_plan(l)->grid.n_tasks, own = pf_lab_task(l);
  double *sum = pf_lab_alloc(l, count(d), sizeof *sum);
  *out = n > 1 ? pf_lab_alloc(l, count(d), sizeof **out) : NULL;
  if (!sum || (n > 1 && !*out))
    return PF_ENOMEM;
  int rc = PF_OK;
  for (int j = 0; j < n && rc == PF_OK; j++) {
    float *z;
    if (j == own)
      continue;
    rc = sums(d, j, &z);
    for (size_t i = 0; i < count(d) && rc == PF_OK; i++)
      sum[i] += (double)z[i];
  }
  for (size_t i = 0; *out && i < count(d); i++)
    (*out)[i] = (float)(sum[i] / (n - 1));
  return rc;
}

int pf_d5(pf_lab *l, size_t part, json_t *rows) {
  d5 d = {0};
  float *z, *steps, *tasks;
  (void)part;
  int rc = pf_flow_open(&d.f, l, rows);
  const pf_track *host = d.f.neutral;
  if (rc == PF_OK && host && pf_lab_n_y(l) > 0) {
    rc = sums(&d, pf_lab_task(l), &z);
    if (rc == PF_OK)
      rc = inject(&d, host, "host", NULL);
    if (rc == PF_OK)
      rc = inject(&d, host, "by_step", z);
    steps = rc == PF_OK ? pf_lab_alloc(l, count(&d), sizeof *steps) : NULL;
    if (rc == PF_OK && !steps)
      rc = PF_ENOMEM;
    if (rc == PF_OK) {
      mean_over_steps(&d, z, steps);
      rc = inject(&d, host, "mean_over_steps", steps);
    }
    if (rc == PF_OK)
      rc = mean_over_tasks(&d, &tasks);
    if (rc == PF_OK && tasks)
      rc = inject(&d, host, "mean_over_tasks", tasks);
    if (rc == PF_OK)
      rc = pf_sheet_run(&d.f.s);
  }
  pf_flow_close(&d.f);
  return rc;
}
