/* SPDX-License-Identifier: Apache-2.0
 * Compares two snapshots, or a snapshot with values of another program. The result is one JSON
 * object; diffreport.c makes text and JUnit XML of it. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "analysis/diff.h"
#include "analysis/diffreport.h"
#include "analysis/jsonout.h"
#include "base/fpenv.h"
#include "base/mem.h"
#include "base/status.h"

struct pf_diff {
  json_t *result;
  bool same;
};

void pf_diff_defaults(pf_diff_opts *o) {
  *o = (pf_diff_opts){.atol = -1, .rtol = -1, .ulp = -1};
}

typedef struct diff {
  const pf_diff_opts *o;
  pf_tolerance tolerance;
  pf_snap a, b;
  bool foreign, swapped; /* one side is no snapshot; it was named first, and `a` is the second */
  pf_points points;      /* of both, in a's order, hooks of a's configuration */
  json_t *prompts, *settings, *first, *tensors;
  bool same;
} diff;

/* ---- what the manifests say ------------------------------------------------------------------ */

static void setting(diff *d, const char *key, const json_t *a, const json_t *b) {
  if (a && b && !json_equal(a, b))
    json_array_append_new(d->settings, json_pack("{s:s s:O s:O}", "key", key, "a", a, "b", b));
}

static void compare_settings(diff *d) {
  static const char *const head[] = {"contract",       "precision",     "arch",
                                     "weights_sha256", "weights_dtype", "tokenizer_sha256",
                                     "prompts_sha256", "max_tokens"};
  static const char *const by[] = {"version", "cpu", "features", "isa", "threads", "chunk"};
  const json_t *ma = json_object_get(d->a.manifest, "made_by"),
               *mb = json_object_get(d->b.manifest, "made_by");
  for (size_t i = 0; i < sizeof head / sizeof *head; i++)
    setting(d, head[i], json_object_get(d->a.head, head[i]), json_object_get(d->b.head, head[i]));
  for (size_t i = 0; i < sizeof by / sizeof *by; i++)
    setting(d, by[i], json_object_get(ma, by[i]), json_object_get(mb, by[i]));
}

/* A weight that changed is a difference even where no recorded value shows it; unless a tolerance
 * leaves it to the values. */
static void compare_tensors(diff *d) {
  bool changed;
  d->tensors = pf_compare_tensors(json_object_get(d->a.manifest, "tensors"),
                                  json_object_get(d->b.manifest, "tensors"), &changed);
  d->same = d->same && (!changed || pf_tolerance_given(&d->tolerance));
}

/* Points that both have; of one model they have one shape. */
static int common_points(diff *d) {
  json_t *names = json_array();
  int rc = PF_OK;
  for (size_t i = 0; rc == PF_OK && i < d->a.points.n; i++) {
    const pf_at *a = &d->a.points.v[i];
    ptrdiff_t k = d->foreign ? (ptrdiff_t)i : pf_points_find(&d->b.points, a->name);
    if (k < 0)
      continue;
    const pf_at *b = d->foreign ? a : &d->b.points.v[k];
    if (a->heads != b->heads || a->width != b->width)
      rc = pf_fail(PF_EINPUT,
                   "%s: %s has %zu x %zu values, in %s %zu x %zu: the models have other shapes",
                   d->a.dir, a->name, a->heads, a->width, d->b.dir, b->heads, b->width);
    json_array_append_new(names, json_string(a->name));
  }
  size_t both = json_array_size(names), a = d->a.points.n - both;
  size_t b = d->foreign ? 0 : d->b.points.n - both;
  if (rc == PF_OK && a + b)
    json_array_append_new(d->settings, json_pack("{s:s s:I s:I}", "key", "hook_points_not_compared",
                                                 "a", (json_int_t)a, "b", (json_int_t)b));
  if (rc == PF_OK)
    rc = pf_points_named(&d->points, d->a.config, names);
  json_decref(names);
  return rc;
}

/* ---- prompts --------------------------------------------------------------------------------- */

static json_t *spread_json(const diff *d, const pf_prompt_diff *r, const pf_blocks *b) {
  const pf_spread *s = &r->spread;
  json_t *o = json_object();
  if (s->max_ulp > 0 || s->max_abs > 0) {
    json_object_set_new(o, "max_abs", pf_js_num(s->max_abs));
    json_object_set_new(o, "max_abs_at",
                        pf_place_json(&d->points, &s->abs_at, b->prompt, NULL, NULL));
    json_object_set_new(o, "max_ulp",
                        s->max_ulp == UINT32_MAX ? json_null() : json_integer(s->max_ulp));
    json_object_set_new(o, "max_ulp_at",
                        pf_place_json(&d->points, &s->ulp_at, b->prompt, NULL, NULL));
  }
  if (s->n_logits)
    json_object_set_new(o, "logits",
                        json_pack("{s:o s:o s:i s:i s:i}", "kl_mean", pf_js_num(s->kl_sum / b->all),
                                  "kl_max", pf_js_num(s->kl_max), "kl_max_position", (int)s->kl_at,
                                  "top1_changed", (int)s->top1, "positions", (int)b->all));
  return o;
}

static json_t *prompt_json(const diff *d, const char *id, const pf_prompt_diff *r,
                           const pf_blocks *b, const pf_snap_prompt *pa, const pf_snap_prompt *pb) {
  json_t *o = json_pack("{s:s s:b s:I s:I}", "id", id, "same", r->same, "points",
                        (json_int_t)r->n_points, "different", (json_int_t)r->n_differ);
  if (!r->same)
    json_object_set_new(o, "first", pf_place_json(&d->points, &r->first, b->prompt, pa, pb));
  json_t *spread = r->has_values ? spread_json(d, r, b) : NULL;
  if (spread)
    json_object_update(o, spread);
  json_decref(spread);
  return o;
}

static bool same_ids(const pf_ids *a, const pf_ids *b) {
  return a->n == b->n && !memcmp(a->v, b->v, a->n * sizeof *a->v);
}

/* The first generated token that differs, -1: none of those that both have. */
static int32_t first_token(const pf_ids *a, const pf_ids *b) {
  size_t n = a->n < b->n ? a->n : b->n;
  for (size_t i = 0; i < n; i++)
    if (a->v[i] != b->v[i])
      return (int32_t)i;
  return -1;
}

static void keep(diff *d, const char *id, json_t *o) {
  if (!json_is_true(json_object_get(o, "same"))) {
    d->same = false;
    if (!d->first)
      d->first = json_pack("{s:s s:O*}", "prompt", id, "place", json_object_get(o, "first"));
  }
  json_array_append_new(d->prompts, o);
}

static void keep_note(diff *d, const char *id, const char *note) {
  keep(d, id,
       json_pack("{s:s s:b s:i s:i s:s}", "id", id, "same", 0, "points", 0, "different", 0, "note",
                 note));
}

static int compare_read(diff *d, size_t i, size_t k, pf_snap_prompt *pa, pf_snap_prompt *pb) {
  pf_values va = {0}, vb = {0};
  pf_prompt_diff r;
  bool values = d->a.full && d->b.full, digests = d->a.block == d->b.block;
  pf_blocks b = pa->blocks;
  b.all = b.all < pb->blocks.all ? b.all : pb->blocks.all;
  pf_snap_prompt xa, xb = {0};
  int rc = pf_snap_view(&xa, pa, &d->a.points, &d->points);
  if (rc == PF_OK)
    rc = pf_snap_view(&xb, pb, &d->b.points, &d->points);
  if (rc == PF_OK && values && (rc = pf_values_of_snap(&va, &d->a, i, &d->points)) == PF_OK)
    rc = pf_values_of_snap(&vb, &d->b, k, &d->points);
  pf_comparison c = {&d->points,           b,
                     digests ? &xa : NULL, digests ? &xb : NULL,
                     values ? &va : NULL,  values ? &vb : NULL,
                     d->tolerance};
  if (rc == PF_OK)
    rc = pf_compare(&c, &r);
  if (rc == PF_OK) {
    json_t *o = prompt_json(d, pa->id, &r, &b, c.a, c.b);
    int32_t t = first_token(&pa->generated, &pb->generated);
    if (t >= 0) {
      json_object_set_new(o, "same", json_false());
      json_object_set_new(o, "first_token", json_integer(t));
    }
    keep(d, pa->id, o);
  }
  pf_values_free(&va);
  pf_values_free(&vb);
  pf_free(xa.digest);
  pf_free(xb.digest);
  return rc;
}

static size_t points_same(const diff *d) {
  return d->points.n;
}

static int compare_prompt(diff *d, size_t i) {
  const char *id = pf_snap_id(&d->a, i);
  size_t k = 0;
  while (k < d->b.n_prompts && strcmp(pf_snap_id(&d->b, k), id) != 0)
    k++;
  if (k == d->b.n_prompts) {
    keep_note(d, id, "only in A");
    return PF_OK;
  }
  if (!strcmp(pf_snap_file_sha(&d->a, i), pf_snap_file_sha(&d->b, k)) && d->a.block == d->b.block) {
    int rc = pf_snap_check(&d->a, i); /* a store may have lost what its manifest says */
    if (rc == PF_OK)
      rc = pf_snap_check(&d->b, k);
    if (rc != PF_OK)
      return rc;
    keep(d, id,
         json_pack("{s:s s:b s:I s:i}", "id", id, "same", 1, "points", (json_int_t)points_same(d),
                   "different", 0));
    return PF_OK;
  }
  pf_snap_prompt pa, pb = {0};
  int rc = pf_snap_read(&d->a, i, &pa);
  if (rc == PF_OK)
    rc = pf_snap_read(&d->b, k, &pb);
  if (rc == PF_OK && !same_ids(&pa.ids, &pb.ids))
    keep_note(d, id, "the prompts have other tokens");
  else if (rc == PF_OK)
    rc = compare_read(d, i, k, &pa, &pb);
  pf_snap_prompt_free(&pa);
  pf_snap_prompt_free(&pb);
  return rc;
}

static bool chosen(const diff *d, const char *id) {
  return !d->o->prompt || !strcmp(d->o->prompt, id);
}

static int compare_snaps(diff *d) {
  int rc = PF_OK;
  for (size_t i = 0; rc == PF_OK && i < d->a.n_prompts; i++)
    if (chosen(d, pf_snap_id(&d->a, i)))
      rc = compare_prompt(d, i);
  for (size_t k = 0; rc == PF_OK && k < d->b.n_prompts; k++) {
    const char *id = pf_snap_id(&d->b, k);
    size_t i = 0;
    while (i < d->a.n_prompts && strcmp(pf_snap_id(&d->a, i), id) != 0)
      i++;
    if (i == d->a.n_prompts && chosen(d, id))
      keep_note(d, id, "only in B");
  }
  return rc;
}

/* ---- values of another program --------------------------------------------------------------- */

static const char *foreign_path(const diff *d) {
  return d->swapped ? d->o->a : d->o->b;
}

static int only_prompt(const diff *d, size_t *k) {
  if (!d->o->prompt && d->a.n_prompts > 1)
    return pf_fail(PF_EUSAGE, "%s: holds %zu prompts: say whose values %s has with --prompt ID",
                   d->a.dir, d->a.n_prompts, foreign_path(d));
  for (*k = 0; d->o->prompt && *k < d->a.n_prompts; (*k)++)
    if (chosen(d, pf_snap_id(&d->a, *k)))
      break;
  return *k < d->a.n_prompts ? PF_OK
                             : pf_fail(PF_EUSAGE, "no prompt has the id '%s'", d->o->prompt);
}

static int compare_foreign(diff *d, json_t *ignored) {
  size_t k = 0;
  pf_snap_prompt p = {0};
  pf_values ours = {0}, theirs = {0};
  pf_prompt_diff r;
  int rc = only_prompt(d, &k);
  if (rc == PF_OK)
    rc = pf_snap_read(&d->a, k, &p);
  if (rc == PF_OK)
    rc = pf_values_of_snap(&ours, &d->a, k, &d->points);
  if (rc == PF_OK)
    rc = pf_values_foreign(&theirs, foreign_path(d), &d->a, &p.blocks, ignored);
  pf_blocks b = p.blocks;
  b.all = rc == PF_OK ? theirs.n_pos : b.all;
  pf_comparison c = {.points = &d->points,
                     .blocks = b,
                     .va = d->swapped ? &theirs : &ours,
                     .vb = d->swapped ? &ours : &theirs,
                     .tolerance = d->tolerance};
  if (rc == PF_OK)
    rc = pf_compare(&c, &r);
  if (rc == PF_OK)
    keep(d, p.id, prompt_json(d, p.id, &r, &b, NULL, NULL));
  pf_values_free(&ours);
  pf_values_free(&theirs);
  pf_snap_prompt_free(&p);
  return rc;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int check_side(const char *path) {
  return access(path, R_OK) == 0 ? PF_OK
                                 : pf_fail(PF_EINPUT, "%s: cannot open: %s", path, strerror(errno));
}

static int open_sides(diff *d) {
  int rc = check_side(d->o->a);
  if (rc == PF_OK)
    rc = check_side(d->o->b);
  if (rc != PF_OK)
    return rc;
  bool a = pf_snap_is(d->o->a), b = pf_snap_is(d->o->b);
  if (!a && !b)
    return pf_fail(PF_EINPUT, "%s, %s: neither is a snapshot (personaflow snap makes them)",
                   d->o->a, d->o->b);
  d->foreign = !a || !b;
  d->swapped = !a;
  rc = pf_snap_open(&d->a, a ? d->o->a : d->o->b);
  if (rc == PF_OK && !d->foreign)
    rc = pf_snap_open(&d->b, d->o->b);
  if (rc != PF_OK)
    return rc;
  bool values = d->a.full && (d->foreign || d->b.full);
  if (d->foreign && !values)
    return pf_fail(PF_EUSAGE,
                   "%s: holds digests only, and %s is no snapshot: compare values with a snapshot "
                   "made with --full",
                   d->a.dir, a ? d->o->b : d->o->a);
  if (pf_tolerance_given(&d->tolerance) && !values)
    return pf_fail(PF_EUSAGE, "a tolerance needs values: make both snapshots with --full");
  if (!d->foreign && d->a.block != d->b.block && !values)
    return pf_fail(PF_EUSAGE,
                   "%s has blocks of %d positions, %s of %d: digests of other blocks cannot be "
                   "compared; make one again, or both with --full",
                   d->a.dir, d->a.block, d->b.dir, d->b.block);
  return common_points(d);
}

static json_t *tolerance_json(const pf_tolerance *t) {
  json_t *o = json_object();
  if (t->atol >= 0)
    json_object_set_new(o, "atol", pf_js_num(t->atol));
  if (t->rtol >= 0)
    json_object_set_new(o, "rtol", pf_js_num(t->rtol));
  if (t->ulp >= 0)
    json_object_set_new(o, "ulp", pf_js_num(t->ulp));
  return o;
}

static json_t *result_of(diff *d, json_t *ignored) {
  return json_pack("{s:s s:s s:s s:b s:o s:O* s:O s:O* s:O s:O}", "schema", "personaflow-diff/1",
                   "a", d->o->a, "b", d->o->b, "same", d->same, "tolerance",
                   tolerance_json(&d->tolerance), "first", d->first, "settings", d->settings,
                   "tensors", d->tensors, "prompts", d->prompts, "ignored", ignored);
}

int pf_diff_run(pf_diff **out, const pf_diff_opts *o) {
  PF_FP_PLAIN();
  diff d = {.o = o, .tolerance = {o->atol, o->rtol, o->ulp}, .same = true};
  json_t *ignored = json_array();
  *out = NULL;
  d.prompts = json_array();
  d.settings = json_array();
  int rc = d.prompts && d.settings && ignored ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK && (!o->a || !o->b))
    rc = pf_fail(PF_EUSAGE, "a comparison wants two snapshots, or one and other values");
  if (rc == PF_OK)
    rc = open_sides(&d);
  if (rc == PF_OK && !d.foreign) {
    compare_settings(&d);
    compare_tensors(&d);
  }
  if (rc == PF_OK)
    rc = d.foreign ? compare_foreign(&d, ignored) : compare_snaps(&d);
  if (rc == PF_OK && json_array_size(d.prompts) == 0)
    rc = pf_fail(PF_EUSAGE, "no prompt has the id '%s'", o->prompt ? o->prompt : "");
  json_t *result = rc == PF_OK ? result_of(&d, ignored) : NULL;
  if (rc == PF_OK)
    rc = pf_diff_wrap(out, result, d.same);
  json_decref(result);
  json_decref(d.prompts);
  json_decref(d.settings);
  json_decref(d.first);
  json_decref(d.tensors);
  json_decref(ignored);
  pf_points_free(&d.points);
  pf_snap_close(&d.a);
  pf_snap_close(&d.b);
  return rc;
}

int pf_diff_wrap(pf_diff **out, json_t *result, bool same) {
  *out = result ? pf_calloc(1, sizeof **out) : NULL;
  if (!*out)
    return PF_ENOMEM;
  (*out)->result = json_incref(result);
  (*out)->same = same;
  return PF_OK;
}

int pf_diff_same(const pf_diff *d) {
  return d->same;
}

const json_t *pf_diff_result(const pf_diff *d) {
  return d->result;
}

int pf_diff_report(const pf_diff *d, pf_format format, char **text, size_t *n) {
  PF_FP_PLAIN();
  pf_buf b = {0};
  pf_diff_write(d->result, format, &b);
  *n = b.n;
  return pf_buf_take(&b, text);
}

void pf_diff_free(pf_diff *d) {
  if (!d)
    return;
  json_decref(d->result);
  pf_free(d);
}
