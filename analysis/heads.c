/* SPDX-License-Identifier: Apache-2.0
 * Attention of heads, read through hook points. */
#include "analysis/heads.h"

#include <string.h>

#include "analysis/direction.h"
#include "base/fpenv.h"
#include "base/status.h"

static pf_tap tap_at(int hook, int32_t layer, int32_t lo, int32_t hi, pf_op op) {
  return (pf_tap){.hook = hook, .layer = layer, .head = -1, .pos_lo = lo, .pos_hi = hi, .op = op};
}

/* Scales of the final norm, and of those behind attention where the model has them. */
static int look_at_scales(pf_heads *h, pf_flow *f, pf_line *x, int32_t lo) {
  pf_lab *l = f->s.l;
  int final = pf_lab_hook(l, "ln_final.hook_scale"),
      post = pf_lab_hook(l, "blocks.0.ln1_post.hook_scale");
  int32_t hi = lo + (int32_t)h->rows;
  h->final_scale = pf_lab_alloc(l, h->rows, sizeof *h->final_scale);
  h->post_scale = post < 0 ? NULL : pf_lab_alloc(l, h->layers * h->rows, sizeof *h->post_scale);
  if (final < 0)
    return final;
  if (!h->final_scale || (post >= 0 && !h->post_scale))
    return PF_ENOMEM;
  pf_tap tap = tap_at(final, -1, lo, hi, PF_OP_CAPTURE); /* of no layer */
  tap.out = h->final_scale;
  tap.out_stride = 1;
  int rc = pf_line_tap(&f->s, x, tap);
  for (size_t k = 0; k < h->layers && h->post_scale && rc == PF_OK; k++) {
    tap = tap_at(post, (int32_t)k, lo, hi, PF_OP_CAPTURE);
    tap.out = h->post_scale + k * h->rows;
    tap.out_stride = 1;
    rc = pf_line_tap(&f->s, x, tap);
  }
  return rc;
}

/* Patterns of the rows from p_last on: a trial that only looks. */
static int read_patterns(pf_heads *h, pf_flow *f) {
  pf_lab *l = f->s.l;
  int hook = pf_lab_hook(l, "blocks.0.attn.hook_pattern");
  size_t row = h->heads * h->n_keys;
  pf_line *x;
  if (hook < 0)
    return hook;
  h->pattern = pf_lab_alloc(l, h->layers * h->rows, row * sizeof *h->pattern);
  int rc = h->pattern ? pf_sheet_probe(&f->s, h->t, &x) : PF_ENOMEM;
  int32_t lo = h->t->pos[h->t->n_prompt - 1];
  for (size_t k = 0; k < h->layers && rc == PF_OK; k++) {
    pf_tap tap = tap_at(hook, (int32_t)k, lo, lo + (int32_t)h->rows, PF_OP_CAPTURE);
    tap.out = h->pattern + k * h->rows * row;
    tap.out_stride = row;
    tap.n_keys = (int32_t)h->n_keys;
    rc = pf_line_tap(&f->s, x, tap);
  }
  if (rc == PF_OK)
    rc = look_at_scales(h, f, x, lo);
  return rc == PF_OK ? pf_sheet_run(&f->s) : rc;
}

static int read_values(pf_heads *h, pf_flow *f) {
  pf_lab *l = f->s.l;
  int hook = pf_lab_hook(l, "blocks.0.attn.hook_v");
  size_t kv = h->heads / h->group, n = h->t->n_prompt, width = kv * h->d_head;
  pf_tap *taps = pf_lab_alloc(l, h->layers * n, sizeof *taps);
  h->v = pf_lab_alloc(l, h->layers * n, width * sizeof *h->v);
  if (hook < 0)
    return hook;
  if (!taps || !h->v)
    return PF_ENOMEM;
  for (size_t k = 0; k < h->layers; k++) /* one tap a token: behind a gap positions jump */
    for (size_t i = 0; i < n; i++) {
      pf_tap *t = &taps[k * n + i];
      *t = tap_at(hook, (int32_t)k, h->t->pos[i], h->t->pos[i] + 1, PF_OP_CAPTURE);
      t->out = h->v + (k * n + i) * width;
      t->out_stride = width;
    }
  return pf_lab_donor(l, h->t, (int32_t)n, taps, h->layers * n, NULL);
}

int pf_heads_read(pf_heads *h, pf_flow *f, const pf_track *t) {
  const pf_model_info *i = pf_lab_plan(f->s.l)->info;
  *h = (pf_heads){.t = t,
                  .layers = (size_t)i->n_layers,
                  .heads = (size_t)i->n_heads,
                  .group = (size_t)(i->n_heads / i->n_kv_heads),
                  .d_head = (size_t)i->d_head,
                  .rows = pf_lab_n_y(f->s.l),
                  .n_keys = (size_t)t->pos[t->n - 1] + 1};
  int rc = read_patterns(h, f);
  return rc == PF_OK ? read_values(h, f) : rc;
}

static const float *pattern_at(const pf_heads *h, size_t layer, size_t row, size_t head) {
  return h->pattern + ((layer * h->rows + row) * h->heads + head) * h->n_keys;
}

void pf_heads_mass(const pf_heads *h, int32_t lo, int32_t hi, double *out) {
  uint64_t env = pf_fp_enter();
  for (size_t k = 0; k < h->layers; k++)
    for (size_t q = 0; q < h->heads; q++) {
      double sum = 0;
      for (size_t r = 0; r < h->rows; r++)
        for (int32_t j = lo; j < hi; j++)
          sum += (double)pattern_at(h, k, r, q)[h->t->pos[j]];
      out[k * h->heads + q] = sum / (double)h->rows;
    }
  pf_fp_leave(env);
}

enum { PART = 64 }; /* elements of a head that are summed side by side */
typedef struct weighed {
  size_t layer, row, head, element;
} weighed;

/* Up to PART elements of a head's sum over the keys [lo, hi): key by key, as values lie in memory;
 * each element's sum is in the order of the keys. */
static void weigh_values(const pf_heads *h, weighed w, int32_t lo, int32_t hi, float *out) {
  size_t n = h->d_head - w.element < PART ? h->d_head - w.element : PART;
  size_t width = h->heads / h->group * h->d_head;
  const float *pattern = pattern_at(h, w.layer, w.row, w.head);
  double sum[PART] = {0};
  for (int32_t j = lo; j < hi; j++) {
    const float *v = h->v + (w.layer * h->t->n_prompt + (size_t)j) * width +
                     w.head / h->group * h->d_head + w.element;
    double p = (double)pattern[h->t->pos[j]];
    for (size_t e = 0; e < n; e++)
      sum[e] += p * (double)v[e];
  }
  out += ((w.layer * h->rows + w.row) * h->heads + w.head) * h->d_head + w.element;
  for (size_t e = 0; e < n; e++)
    out[e] = (float)sum[e];
}

void pf_heads_values(const pf_heads *h, int32_t lo, int32_t hi, float *out) {
  uint64_t env = pf_fp_enter();
  for (size_t k = 0; k < h->layers; k++)
    for (size_t r = 0; r < h->rows; r++)
      for (size_t q = 0; q < h->heads; q++)
        for (size_t e = 0; e < h->d_head; e += PART)
          weigh_values(h, (weighed){k, r, q, e}, lo, hi, out);
  pf_fp_leave(env);
}

/* A layer's z is replaced by the sums, and what each head's part of W_O makes of it is read: one
 * trial a layer. */
int pf_heads_results(const pf_heads *h, pf_flow *f, const float *z, float **out) {
  pf_lab *l = f->s.l;
  size_t d = pf_lab_d(l), width = h->heads * h->d_head;
  int hook_z = pf_lab_hook(l, "blocks.0.attn.hook_z"),
      hook_result = pf_lab_hook(l, "blocks.0.attn.hook_result");
  int32_t lo = h->t->pos[h->t->n_prompt - 1];
  float *result = pf_lab_alloc(l, h->layers * h->rows, h->heads * d * sizeof *result);
  *out = result;
  int rc = hook_z < 0 ? hook_z : hook_result < 0 ? hook_result : result ? PF_OK : PF_ENOMEM;
  for (size_t k = 0; k < h->layers && rc == PF_OK; k++) {
    pf_line *x;
    pf_tap put = tap_at(hook_z, (int32_t)k, lo, lo + (int32_t)h->rows, PF_OP_REPLACE),
           look = tap_at(hook_result, (int32_t)k, lo, lo + (int32_t)h->rows, PF_OP_CAPTURE);
    put.value = z + k * h->rows * width;
    put.value_stride = width;
    look.out = result + k * h->rows * h->heads * d;
    look.out_stride = h->heads * d;
    rc = pf_sheet_probe(&f->s, h->t, &x);
    if (rc == PF_OK)
      rc = pf_line_tap(&f->s, x, put);
    if (rc == PF_OK)
      rc = pf_line_tap(&f->s, x, look);
  }
  return rc == PF_OK ? pf_sheet_run(&f->s) : rc;
}

static const float *result_at(const pf_heads *h, const float *results, size_t d, size_t layer,
                              size_t row, size_t head) {
  return results + ((layer * h->rows + row) * h->heads + head) * d;
}

void pf_heads_norms(const pf_heads *h, const pf_flow *f, const float *results, double *out) {
  size_t d = pf_lab_d(f->s.l);
  for (size_t k = 0; k < h->layers; k++)
    for (size_t q = 0; q < h->heads; q++) {
      double sum = 0;
      for (size_t r = 0; r < h->rows; r++)
        sum += pf_norm(result_at(h, results, d, k, r, q), d);
      out[k * h->heads + q] = sum / (double)h->rows;
    }
}

/* The best token of the host's that is not y_t. */
static int32_t rival(const float *logits, int32_t vocab, int32_t y) {
  int32_t best = y == 0 ? 1 : 0;
  for (int32_t i = 0; i < vocab; i++)
    if (i != y && logits[i] > logits[best])
      best = i;
  return best;
}

/* Directions of the rows: (rows, d). Without references, in a dry run, they stay zero. */
static int directions(const pf_heads *h, pf_flow *f, const pf_ref *host, float *out) {
  const pf_plan *p = pf_lab_plan(f->s.l);
  size_t d = pf_lab_d(f->s.l);
  int rc = PF_OK;
  for (size_t r = 0; r < h->rows && rc == PF_OK && host[r].logits; r++) {
    int32_t y = pf_lab_y(f->s.l)[r];
    rc = pf_logit_direction(p->model, y, rival(host[r].logits, p->info->vocab_size, y),
                            h->final_scale[r], out + r * d);
  }
  return rc;
}

static double dot(const float *a, const float *b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += (double)a[i] * (double)b[i];
  return sum;
}

int pf_heads_projection(const pf_heads *h, pf_flow *f, const float *results, const pf_ref *host,
                        double *out) {
  pf_lab *l = f->s.l;
  size_t d = pf_lab_d(l);
  float *dir = pf_lab_alloc(l, h->rows, d * sizeof *dir), *x = pf_lab_alloc(l, d, sizeof *x);
  int rc = dir && x ? directions(h, f, host, dir) : PF_ENOMEM;
  uint64_t env = pf_fp_enter();
  for (size_t k = 0; k < h->layers && rc == PF_OK && host[0].logits; k++)
    for (size_t q = 0; q < h->heads; q++) {
      double sum = 0;
      for (size_t r = 0; r < h->rows; r++) {
        memcpy(x, result_at(h, results, d, k, r, q), d * sizeof *x);
        if (h->post_scale)
          pf_post_attention(pf_lab_plan(l)->model, (int32_t)k, h->post_scale[k * h->rows + r], x);
        sum += dot(x, dir + r * d, d);
      }
      out[k * h->heads + q] = sum / (double)h->rows;
    }
  pf_fp_leave(env);
  return rc;
}
