/* SPDX-License-Identifier: Apache-2.0
 * Compares two runs of one prompt in order of execution: the prompt point by point, then each
 * generated position point by point (its token depends on the logits before it). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/diff.h"
#include "analysis/jsonout.h"
#include "base/bf16.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- values ---------------------------------------------------------------------------------- */

static int64_t ordered(float x) {
  uint32_t u = pf_bits_of_f32(x);
  return u >> 31 ? -(int64_t)(u & 0x7fffffffu) : (int64_t)u;
}

uint32_t pf_ulp_distance(float a, float b) {
  if (isnan(a) || isnan(b))
    return isnan(a) && isnan(b) ? 0 : UINT32_MAX;
  int64_t d = ordered(a) - ordered(b);
  return (uint32_t)(d < 0 ? -d : d);
}

bool pf_values_agree(const pf_tolerance *t, float a, float b) {
  if (pf_bits_of_f32(a) == pf_bits_of_f32(b) || (isnan(a) && isnan(b)))
    return true;
  if (!pf_tolerance_given(t) || isnan(a) || isnan(b))
    return false;
  if (a == b || (t->ulp >= 0 && pf_ulp_distance(a, b) <= t->ulp))
    return true;
  double bound = (t->atol > 0 ? t->atol : 0) + (t->rtol > 0 ? t->rtol * fabs((double)b) : 0);
  return isfinite(a) && isfinite(b) && fabs((double)a - (double)b) <= bound;
}

/* ---- one block of a point -------------------------------------------------------------------- */

typedef struct work {
  const pf_comparison *c;
  pf_prompt_diff *out;
  float *a, *b; /* rows of a block, made as long as needed */
  size_t room;
  bool found, point_differs;
} work;

static bool digests_agree(const work *w, size_t point, size_t block, size_t head) {
  size_t i = block * w->c->points->v[point].heads + head;
  return !memcmp(&w->c->a->digest[point][i], &w->c->b->digest[point][i], sizeof(pf_sha));
}

/* A difference was found; the first one is kept. */
static void found(work *w, const pf_place *p) {
  w->point_differs = true;
  w->out->same = false;
  if (!w->found)
    w->out->first = *p;
  w->found = true;
}

/* By position before head, where the values are known. */
static bool earlier(const pf_place *p, const pf_place *q) {
  return p->pos != q->pos ? p->pos < q->pos : p->head < q->head;
}

static void widen_spread(pf_spread *s, const pf_place *p) {
  double d = fabs((double)p->a - (double)p->b);
  uint32_t u = pf_ulp_distance(p->a, p->b);
  if (!(d <= s->max_abs)) {
    s->max_abs = d;
    s->abs_at = *p;
  }
  if (u > s->max_ulp) {
    s->max_ulp = u;
    s->ulp_at = *p;
  }
}

/* One head's values of one row. */
static void compare_row(work *w, pf_place p, const float *a, const float *b, size_t n,
                        pf_place *first, bool *any) {
  for (size_t e = 0; e < n; e++) {
    if (pf_bits_of_f32(a[e]) == pf_bits_of_f32(b[e]))
      continue;
    p.element = e;
    p.a = a[e];
    p.b = b[e];
    widen_spread(&w->out->spread, &p);
    if (pf_values_agree(&w->c->tolerance, p.a, p.b) || (*any && !earlier(&p, first)))
      continue;
    *first = p;
    *any = true;
  }
}

static void logits_row(work *w, int32_t pos, const float *a, const float *b, size_t n) {
  pf_spread *s = &w->out->spread;
  double kl = pf_kl(a, b, n);
  s->kl_sum += kl;
  if (kl > s->kl_max || s->n_logits == 0) {
    s->kl_max = kl;
    s->kl_at = pos;
  }
  s->n_logits++;
  s->top1 += pf_argmax(a, n, NULL) != pf_argmax(b, n, NULL);
}

static int read_rows(work *w, size_t point, pf_span s) {
  const pf_comparison *c = w->c;
  size_t heads = c->points->v[point].heads, rows = (size_t)(s.hi - s.lo);
  size_t pa = pf_values_part(c->va, c->points, point), pb = pf_values_part(c->vb, c->points, point);
  size_t need = rows * heads * (pa > pb ? pa : pb);
  if (need > w->room) {
    pf_free(w->a);
    pf_free(w->b);
    w->a = pf_alloc(need, sizeof *w->a);
    w->b = pf_alloc(need, sizeof *w->b);
    w->room = w->a && w->b ? need : 0;
    if (!w->room)
      return PF_ENOMEM;
  }
  int rc = pf_values_rows(c->va, c->points, point, s.lo, s.hi, w->a);
  return rc == PF_OK ? pf_values_rows(c->vb, c->points, point, s.lo, s.hi, w->b) : rc;
}

static int compare_values(work *w, size_t point, size_t block, bool *any) {
  const pf_comparison *c = w->c;
  const pf_at *at = &c->points->v[point];
  pf_place p = {.point = point, .block = block, .exact = true}, first = {0};
  bool logits = !strcmp(at->name, "unembed.hook_out");
  p.span = pf_block_span(&c->blocks, block);
  int rc = read_rows(w, point, p.span);
  if (rc != PF_OK)
    return rc;
  size_t pa = pf_values_part(c->va, c->points, point), pb = pf_values_part(c->vb, c->points, point);
  for (p.pos = p.span.lo; p.pos < p.span.hi; p.pos++)
    for (p.head = 0; p.head < at->heads; p.head++) {
      size_t i = (size_t)(p.pos - p.span.lo) * at->heads + p.head;
      size_t n = at->width ? at->width : (size_t)p.pos + 1;
      compare_row(w, p, w->a + i * pa, w->b + i * pb, n, &first, any);
      if (logits)
        logits_row(w, p.pos, w->a + i * pa, w->b + i * pb, n);
    }
  if (*any)
    found(w, &first);
  return PF_OK;
}

static int compare_block(work *w, size_t point, size_t block) {
  const pf_comparison *c = w->c;
  bool digests = c->a && c->b, differ = !digests, any = false;
  pf_place p = {.point = point, .block = block, .span = pf_block_span(&c->blocks, block)};
  for (size_t h = c->points->v[point].heads; digests && h-- > 0;)
    if (!digests_agree(w, point, block, h)) {
      differ = true;
      p.head = h; /* the lowest is left */
    }
  int rc = differ && w->out->has_values ? compare_values(w, point, block, &any) : PF_OK;
  /* Digests that differ while all values agree to the bit: the values are not what was hashed. */
  if (rc == PF_OK && differ && !any && digests &&
      (!w->out->has_values || !pf_tolerance_given(&c->tolerance)))
    found(w, &p);
  return rc;
}

/* ---- in order of execution ------------------------------------------------------------------- */

static bool there(const pf_comparison *c, size_t point) {
  return (!c->va || c->va->tensor[point] >= 0) && (!c->vb || c->vb->tensor[point] >= 0);
}

static int compare_step(work *w, size_t lo, size_t hi, bool *differs) {
  int rc = PF_OK;
  for (size_t i = 0; rc == PF_OK && i < w->c->points->n; i++) {
    if (!there(w->c, i))
      continue;
    w->point_differs = false;
    for (size_t b = lo; rc == PF_OK && b < hi; b++)
      rc = compare_block(w, i, b);
    differs[i] |= w->point_differs;
  }
  return rc;
}

int pf_compare(const pf_comparison *c, pf_prompt_diff *out) {
  size_t n = pf_blocks_n(&c->blocks), prompt = pf_blocks_prompt(&c->blocks);
  bool *differs = pf_calloc(c->points->n, sizeof *differs);
  work w = {.c = c, .out = out};
  *out = (pf_prompt_diff){.same = true, .has_values = c->va && c->vb};
  int rc = differs ? compare_step(&w, 0, prompt, differs) : PF_ENOMEM;
  for (size_t b = prompt; rc == PF_OK && b < n; b++)
    rc = compare_step(&w, b, b + 1, differs);
  for (size_t i = 0; differs && i < c->points->n; i++) {
    out->n_points += there(c, i);
    out->n_differ += differs[i];
  }
  pf_free(differs);
  pf_free(w.a);
  pf_free(w.b);
  return rc;
}

/* ---- places as JSON ------------------------------------------------------------------------ */

static void hex_of(const pf_sha *s, char hex[65]) {
  for (int i = 0; i < 32; i++)
    snprintf(hex + 2 * i, 3, "%02x", s->b[i]);
}

static void add_digests(json_t *o, const pf_points *points, const pf_place *p,
                        const pf_snap_prompt *a, const pf_snap_prompt *b) {
  size_t i = p->block * points->v[p->point].heads + p->head;
  char hex[65];
  hex_of(&a->digest[p->point][i], hex);
  json_object_set_new(o, "sha256_a", json_string(hex));
  hex_of(&b->digest[p->point][i], hex);
  json_object_set_new(o, "sha256_b", json_string(hex));
}

static void add_values(json_t *o, const pf_at *a, const pf_place *p) {
  char hex[48];
  uint32_t ulp = pf_ulp_distance(p->a, p->b);
  json_object_set_new(o, "position", json_integer(p->pos));
  json_object_set_new(o, a->width ? "element" : "key", json_integer((json_int_t)p->element));
  json_object_set_new(o, "a", pf_js_num((double)p->a));
  json_object_set_new(o, "b", pf_js_num((double)p->b));
  snprintf(hex, sizeof hex, "%a", (double)p->a);
  json_object_set_new(o, "a_hex", json_string(hex));
  snprintf(hex, sizeof hex, "%a", (double)p->b);
  json_object_set_new(o, "b_hex", json_string(hex));
  json_object_set_new(o, "ulp", ulp == UINT32_MAX ? json_null() : json_integer(ulp));
  json_object_set_new(o, "abs", pf_js_num(fabs((double)p->a - (double)p->b)));
}

json_t *pf_place_json(const pf_points *points, const pf_place *p, int32_t n_prompt,
                      const pf_snap_prompt *a, const pf_snap_prompt *b) {
  const pf_at *at = &points->v[p->point];
  json_t *o = json_pack("{s:s s:o s:s s:[i,i] s:o}", "hook", at->name, "layer",
                        at->layer < 0 ? json_null() : json_integer(at->layer), "phase",
                        p->span.lo < n_prompt ? "prompt" : "generation", "positions",
                        (int)p->span.lo, (int)p->span.hi - 1, "head",
                        at->hook->heads ? json_integer((json_int_t)p->head) : json_null());
  if (a && b)
    add_digests(o, points, p, a, b);
  if (p->exact)
    add_values(o, at, p);
  return o;
}
