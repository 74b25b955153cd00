/* SPDX-License-Identifier: Apache-2.0
 * Which memory the weights lie in. On a machine of several memory nodes a page belongs to the node
 * of the thread that writes to it first. So each thread first writes to the pages of the panels
 * that products give it (model/layer.c cuts them the same way): with threads bound to their CPUs
 * (OMP_PROC_BIND) every one of them then reads its own node's memory. The loader's threads, which
 * take blocks as they come, find the pages there. */
#include <stdio.h>
#include <stdlib.h>

#include "base/par.h"
#include "model/pack.h"
#include "model/weights.h"

enum { PAGE = 4096, MOST = 3 /* matrices of a line */ };

int pf_count_nodes(const char *list) {
  int n = 0;
  while (*list) {
    char *end;
    long lo = strtol(list, &end, 10), hi = lo;
    if (end == list)
      break;
    if (*end == '-')
      hi = strtol(end + 1, &end, 10);
    n += hi >= lo ? (int)(hi - lo) + 1 : 0;
    list = end + (*end == ',');
  }
  return n ? n : 1;
}

int pf_memory_nodes(void) {
  char list[256] = "";
  FILE *f = fopen("/sys/devices/system/node/has_memory", "r");
  if (f && !fgets(list, sizeof list, f))
    list[0] = '\0';
  if (f)
    fclose(f);
  return pf_count_nodes(list);
}

/* Matrices whose panels products take as one line. */
typedef struct line {
  const pf_mat *w[MOST];
  size_t n;
} line;

static void touch_panels(const pf_mat *w, size_t lo, size_t hi) {
  volatile char *p = (volatile char *)(size_t)pf_mat_panel(w, lo),
                *end = (volatile char *)(size_t)pf_mat_panel(w, hi);
  for (; p < end; p += PAGE - (size_t)p % PAGE)
    *p = 0;
}

static void touch_line(const line *l, int tid, int nt) {
  size_t total = 0, base = 0, lo, hi, from, to;
  for (size_t i = 0; i < l->n; i++)
    total += pf_mat_panels(l->w[i]);
  pf_par_range(total, tid, nt, &lo, &hi);
  for (size_t i = 0; i < l->n; base += pf_mat_panels(l->w[i++]))
    if (pf_line_part(base, pf_mat_panels(l->w[i]), lo, hi, &from, &to))
      touch_panels(l->w[i], from, to);
}

static void touch_part(void *arg, int tid, int nt) {
  const pf_model *m = arg;
  for (int32_t i = 0; i < m->cfg.info.n_layers; i++) {
    const pf_layer *l = &m->layers[i];
    const line lines[] = {
        {{&l->q, &l->k, &l->v}, 3}, {{&l->o}, 1}, {{&l->gate, &l->up}, 2}, {{&l->down}, 1}};
    for (size_t j = 0; j < sizeof lines / sizeof *lines; j++)
      touch_line(&lines[j], tid, nt);
  }
  touch_line(&(line){{m->cfg.info.tied ? &m->embed : &m->unembed}, 1}, tid, nt);
}

void pf_weights_touch(pf_model *m, int threads) {
  pf_par(threads, touch_part, m);
}
