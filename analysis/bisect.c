/* SPDX-License-Identifier: Apache-2.0
 * From a snapshot and a run that does not reproduce it to the first operation that differs.
 *
 * The candidate (other instruction set, threads, chunk, precision or model) runs the snapshot's
 * prompts with every hook point watched until digests differ. The reference, which is the
 * snapshot's own setting where this machine still reproduces it, runs that prompt beside it, so
 * that points which the snapshot did not record are compared too, and values where it kept none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/diff.h"
#include "analysis/diffreport.h"
#include "analysis/jsonout.h"
#include "analysis/ops.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"

/* One way of running. */
typedef struct setting {
  pf_model *model; /* NULL: not available */
  const char *isa;
  int threads;
  int32_t chunk;
  const pf_tap *edits;
  size_t n_edits;
} setting;

typedef struct bisect {
  const pf_bisect_opts *o;
  const pf_snap_extra *x;
  pf_snap snap;
  setting cand, ref;
  bool ref_shared;  /* both run one opened model */
  pf_points points; /* all of the candidate's model */
  size_t prompt;
  pf_snap_prompt stored, ran, again; /* the snapshot's, the candidate's, the reference's */
  pf_place place;
  const pf_points *place_points;
  char folder[4400]; /* for values */
  bool temporary;
  json_t *tensors, *result;
  bool same;
} bisect;

static const char *made_by(const bisect *b, const char *key) {
  return json_string_value(json_object_get(json_object_get(b->snap.manifest, "made_by"), key));
}

static json_int_t made_by_number(const bisect *b, const char *key) {
  return json_integer_value(json_object_get(json_object_get(b->snap.manifest, "made_by"), key));
}

static const char *head_text(const bisect *b, const char *key) {
  const char *s = json_string_value(json_object_get(b->snap.head, key));
  return s ? s : "";
}

/* ---- runs ------------------------------------------------------------------------------------ */

static pf_runner runner_of(const bisect *b, const setting *s, const pf_points *points) {
  return (pf_runner){.model = s->model,
                     .points = points,
                     .isa = s->isa,
                     .threads = s->threads,
                     .block = b->snap.block,
                     .max_tokens = b->snap.max_tokens,
                     .chunk = s->chunk,
                     .edits = s->edits,
                     .n_edits = b->x && b->x->prompt == b->prompt ? s->n_edits : 0};
}

static int run(const bisect *b, const setting *s, const pf_points *points, pf_snap_prompt *out) {
  pf_runner r = runner_of(b, s, points);
  int rc = pf_snap_prompt_init(out, points, b->stored.id, b->stored.ids.v, b->stored.ids.n,
                               b->snap.max_tokens, b->snap.block);
  if (rc == PF_OK && (rc = pf_runner_run(&r, out)) != PF_OK) {
    pf_snap_prompt_free(out);
    rc = pf_fail_prefix(rc, "prompt '%s'", b->stored.id);
  }
  return rc;
}

/* Where p, over all points, leaves what the snapshot stored; the snapshot's points decide. */
static int against_snapshot(const bisect *b, pf_snap_prompt *p, pf_prompt_diff *out) {
  pf_snap_prompt view;
  int rc = pf_snap_view(&view, p, &b->points, &b->snap.points);
  pf_comparison c = {.points = &b->snap.points, .blocks = p->blocks, .a = &b->stored, .b = &view};
  c.tolerance = (pf_tolerance){-1, -1, -1};
  if (rc == PF_OK)
    rc = pf_compare(&c, out);
  pf_free(view.digest);
  return rc;
}

/* The first prompt whose digests the candidate does not reach; *found false: none. */
static int find_prompt(bisect *b, bool *found) {
  int rc = PF_OK;
  *found = false;
  for (size_t k = 0; rc == PF_OK && !*found && k < b->snap.n_prompts; k++) {
    if (b->o->prompt && strcmp(b->o->prompt, pf_snap_id(&b->snap, k)) != 0)
      continue;
    pf_prompt_diff d;
    pf_snap_prompt_free(&b->stored);
    pf_snap_prompt_free(&b->ran);
    b->prompt = k;
    rc = pf_snap_read(&b->snap, k, &b->stored);
    if (rc == PF_OK)
      rc = run(b, &b->cand, &b->points, &b->ran);
    if (rc == PF_OK)
      rc = against_snapshot(b, &b->ran, &d);
    *found = rc == PF_OK && !d.same;
    b->place = d.first;
    b->place_points = &b->snap.points;
    if (b->o->progress)
      b->o->progress(b->o->progress_user, "bisect", k + 1, b->snap.n_prompts);
  }
  return rc;
}

/* ---- the reference --------------------------------------------------------------------------- */

static bool has_isa(const char *isa) {
  size_t n;
  const char *const *isas = pf_isas(&n);
  for (size_t i = 0; isa && i < n; i++)
    if (!strcmp(isas[i], isa))
      return true;
  return false;
}

/* The model of the snapshot with its own weights and precision, if it is to be had; not having it
 * is no failure. */
static void open_reference(bisect *b) {
  const char *sha = head_text(b, "weights_sha256"), *precision = head_text(b, "precision");
  const pf_model_info *i = pf_model_get_info(b->cand.model);
  if (!strcmp(i->weights_sha256, sha) && !strcmp(pf_precision_name(i->precision), precision)) {
    b->ref.model = b->cand.model;
    b->ref_shared = true;
    return;
  }
  pf_model_opts mo = {.threads = b->o->threads};
  const char *path = json_string_value(json_object_get(b->snap.manifest, "model"));
  if (!path || pf_precision_parse(precision, &mo.precision) != PF_OK ||
      pf_model_open(&b->ref.model, path, &mo) != PF_OK)
    return;
  if (strcmp(pf_model_get_info(b->ref.model)->weights_sha256, sha) != 0) {
    pf_model_close(b->ref.model);
    b->ref.model = NULL;
  }
}

/* Tries the snapshot's instruction set, then the scalar code, until one reaches its digests. */
static int find_reference(bisect *b) {
  const char *tries[] = {made_by(b, "isa"), "scalar"};
  open_reference(b);
  b->ref.threads = (int)made_by_number(b, "threads");
  b->ref.chunk = (int32_t)made_by_number(b, "chunk");
  for (size_t i = 0; b->ref.model && i < 2; i++) {
    pf_prompt_diff d;
    if (!has_isa(tries[i]))
      continue;
    b->ref.isa = tries[i];
    int rc = run(b, &b->ref, &b->points, &b->again);
    if (rc == PF_OK)
      rc = against_snapshot(b, &b->again, &d);
    if (rc != PF_OK)
      return rc;
    if (d.same)
      return PF_OK;
    pf_snap_prompt_free(&b->again);
  }
  b->ref.isa = NULL;
  return PF_OK;
}

/* With a reference every point counts, not only those that were recorded. */
static int refine(bisect *b) {
  pf_prompt_diff d;
  pf_comparison c = {.points = &b->points, .blocks = b->ran.blocks, .a = &b->again, .b = &b->ran};
  c.tolerance = (pf_tolerance){-1, -1, -1};
  if (!b->ref.isa)
    return PF_OK;
  int rc = pf_compare(&c, &d);
  b->place = d.first;
  b->place_points = &b->points;
  return rc;
}

/* ---- values ---------------------------------------------------------------------------------- */

static int put_rows(void *user, size_t point, int32_t lo, int32_t hi, const float *v,
                    size_t stride) {
  return pf_tout_put(user, point, (size_t)lo * stride, v, (size_t)(hi - lo) * stride);
}

static int run_values(const bisect *b, const setting *s, const pf_points *points,
                      const char *path) {
  pf_snap_prompt p;
  pf_tout *out = NULL;
  pf_runner r = runner_of(b, s, points);
  int rc = pf_snap_prompt_init(&p, points, b->stored.id, b->stored.ids.v, b->stored.ids.n,
                               b->snap.max_tokens, b->snap.block);
  if (rc == PF_OK)
    rc = pf_points_values(&out, path, points, &p, r.model, NULL);
  r.rows = put_rows;
  r.user = out;
  if (rc == PF_OK)
    rc = pf_runner_run(&r, &p);
  if (rc == PF_OK)
    rc = pf_tout_commit(out);
  else
    pf_tout_abandon(out);
  pf_snap_prompt_free(&p);
  return rc;
}

/* The point and its operands, in order of execution. */
static int value_points(const bisect *b, const pf_operation *op, pf_points *out) {
  json_t *names = json_array();
  json_array_append_new(names, json_string(b->place_points->v[b->place.point].name));
  for (size_t i = 0; i < op->n_operands; i++)
    json_array_append_new(names, json_string(op->operand[i]));
  int rc = pf_points_named(out, b->cand.model, names);
  json_decref(names);
  return rc;
}

static int make_folder(bisect *b) {
  const char *t = getenv("TMPDIR");
  b->temporary = !b->o->out_dir;
  if (b->temporary) {
    snprintf(b->folder, sizeof b->folder, "%s/personaflow-XXXXXX", t && *t ? t : "/tmp");
    return mkdtemp(b->folder) ? PF_OK
                              : pf_fail(PF_EIO, "%s: cannot make a temporary folder: %s", b->folder,
                                        strerror(errno));
  }
  if (strlen(b->o->out_dir) > 4000)
    return pf_fail(PF_EUSAGE, "output folder: the path is too long");
  snprintf(b->folder, sizeof b->folder, "%s", b->o->out_dir);
  if (mkdir(b->folder, 0777) == 0)
    return PF_OK;
  return errno == EEXIST
             ? pf_fail(PF_EEXIST, "%s: exists already: choose another folder", b->folder)
             : pf_fail(PF_EIO, "%s: cannot make the folder: %s", b->folder, strerror(errno));
}

static const char *const value_files[] = {"candidate.safetensors", "reference.safetensors"};

static char *value_path(const bisect *b, int side, char buf[4500]) {
  snprintf(buf, 4500, "%s/%s", b->folder, value_files[side]);
  return buf;
}

static void drop_folder(const bisect *b) {
  char path[4500];
  if (!b->temporary || !*b->folder)
    return;
  for (int i = 0; i < 2; i++)
    unlink(value_path(b, i, path));
  rmdir(b->folder);
}

/* The exact place within the point, where the reference's values are to be had. */
static int locate(bisect *b, const pf_points *points, pf_values *cand, pf_values *ref) {
  const char *name = b->place_points->v[b->place.point].name;
  size_t at = (size_t)pf_points_find(points, name);
  pf_points one = {&points->v[at], 1, 1};
  ptrdiff_t ta = ref->tensor[at], tb = cand->tensor[at];
  bool fa = false, fb = false;
  pf_values va = {ref->values, &ta, &fa, ref->n_pos}, vb = {cand->values, &tb, &fb, cand->n_pos};
  pf_comparison c = {.points = &one, .blocks = b->ran.blocks, .va = &va, .vb = &vb};
  c.tolerance = (pf_tolerance){-1, -1, -1};
  pf_prompt_diff d;
  int rc = pf_compare(&c, &d);
  if (rc == PF_OK && !d.same) {
    size_t point = b->place.point;
    b->place = d.first;
    b->place.point = point;
  }
  return rc;
}

/* SHA-256 of rows [0, hi) of a point, in the layout of the file; a point over keys: hi keys a head.
 */
static int hash_rows(pf_values *s, const pf_points *points, size_t point, int32_t hi,
                     char hex[65]) {
  size_t heads = points->v[point].heads, part = pf_values_part(s, points, point),
         n = points->v[point].width ? part : (size_t)hi;
  float *row = pf_alloc(heads, part * sizeof *row);
  pf_sha256 *h = pf_sha256_new();
  int rc = row && h ? PF_OK : PF_ENOMEM;
  for (int32_t pos = 0; rc == PF_OK && pos < hi; pos++) {
    rc = pf_values_rows(s, points, point, pos, pos + 1, row);
    for (size_t k = 0; rc == PF_OK && k < heads; k++)
      pf_sha256_add(h, row + k * part, n * sizeof *row);
  }
  if (h)
    pf_sha256_end(h, hex);
  pf_free(row);
  return rc;
}

/* A point's rows up to the position that differs, as the operation saw or left them. */
static json_t *tensor_json(const pf_points *points, size_t point, int32_t hi, pf_values *cand,
                           pf_values *ref) {
  const pf_at *a = &points->v[point];
  char x[65], y[65];
  size_t width = a->width ? a->width : (size_t)hi;
  json_t *shape = a->hook->heads
                      ? json_pack("[i, I, I]", (int)hi, (json_int_t)a->heads, (json_int_t)width)
                      : json_pack("[i, I]", (int)hi, (json_int_t)width);
  bool ok = hash_rows(cand, points, point, hi, x) == PF_OK;
  json_t *o = json_pack("{s:s s:s s:o s:s}", "name", a->name, "dtype", "F32", "shape", shape,
                        "sha256", ok ? x : "");
  if (ref && hash_rows(ref, points, point, hi, y) == PF_OK) {
    json_object_set_new(o, "sha256_reference", json_string(y));
    json_object_set_new(o, "same", json_boolean(!strcmp(x, y)));
  }
  return o;
}

/* ---- the result ------------------------------------------------------------------------------ */

/* The reference may have another precision, and with it another product. */
static json_t *kernels_json(const bisect *b, const pf_at *at, const pf_operation *op) {
  json_t *list = json_array();
  pf_operation other = *op;
  if (b->ref.isa)
    pf_operation_of(b->ref.model, at, &other);
  for (size_t i = 0; i < op->n_kernels; i++) {
    const char *c = pf_kernel_symbol(op->kernel[i], b->cand.isa),
               *r = b->ref.isa ? pf_kernel_symbol(other.kernel[i], b->ref.isa) : NULL;
    json_array_append_new(list, json_pack("{s:s s:s s:s}", "operation", op->kernel[i], "candidate",
                                          c ? c : "", "reference", r ? r : ""));
  }
  return list;
}

static json_t *weights_json(const bisect *b, const pf_operation *op) {
  size_t n;
  const pf_tensor_info *t = pf_model_tensors(b->cand.model, &n);
  json_t *list = json_array();
  for (size_t i = 0; i < op->n_weights; i++)
    for (size_t k = 0; k < n; k++)
      if (!strcmp(t[k].name, op->weight[i]))
        json_array_append_new(list, json_pack("{s:s s:s s:[I, I] s:s}", "name", t[k].name, "dtype",
                                              t[k].dtype, "shape", (json_int_t)t[k].rows,
                                              (json_int_t)t[k].cols, "sha256", t[k].sha256));
  return list;
}

/* Runs candidate and reference once more for the values of the operation. */
static int describe(bisect *b, json_t *o, const pf_operation *op) {
  pf_points points;
  pf_values cand = {0}, ref = {0};
  char path[4500];
  bool has_ref = b->ref.isa != NULL;
  int rc = value_points(b, op, &points);
  if (rc == PF_OK)
    rc = run_values(b, &b->cand, &points, value_path(b, 0, path));
  if (rc == PF_OK)
    rc = pf_values_open(&cand, path, &points);
  if (rc == PF_OK && has_ref)
    rc = run_values(b, &b->ref, &points, value_path(b, 1, path));
  if (rc == PF_OK && has_ref)
    rc = pf_values_open(&ref, path, &points);
  if (rc == PF_OK && has_ref)
    rc = locate(b, &points, &cand, &ref);
  int32_t hi = b->place.exact ? b->place.pos + 1 : b->place.span.hi;
  json_t *operands = json_array();
  for (size_t i = 0; rc == PF_OK && i < op->n_operands; i++)
    json_array_append_new(operands,
                          tensor_json(&points, (size_t)pf_points_find(&points, op->operand[i]), hi,
                                      &cand, has_ref ? &ref : NULL));
  json_object_set_new(o, "operands", operands);
  ptrdiff_t at = pf_points_find(&points, b->place_points->v[b->place.point].name);
  if (rc == PF_OK)
    json_object_set_new(o, "result",
                        tensor_json(&points, (size_t)at, hi, &cand, has_ref ? &ref : NULL));
  pf_values_free(&cand);
  pf_values_free(&ref);
  pf_points_free(&points);
  return rc;
}

static int write_result(const bisect *b) {
  return b->temporary ? PF_OK : pf_js_write(b->folder, "bisect.json", b->result);
}

static json_t *setting_json(const setting *s) {
  const pf_model_info *i = pf_model_get_info(s->model);
  return json_pack("{s:s s:s s:s s:i s:i s:s}", "model", i->dir, "precision",
                   pf_precision_name(i->precision), "isa", s->isa ? s->isa : "", "threads",
                   s->threads, "chunk", (int)s->chunk, "weights_sha256", i->weights_sha256);
}

static int explain(bisect *b) {
  pf_operation op;
  const pf_at *at = &b->place_points->v[b->place.point];
  json_t *o = json_object();
  if (!pf_operation_of(b->cand.model, at, &op))
    op = (pf_operation){0};
  int rc = make_folder(b);
  json_object_set_new(o, "kernels", kernels_json(b, at, &op));
  json_object_set_new(o, "weights", weights_json(b, &op));
  if (rc == PF_OK)
    rc = describe(b, o, &op);
  json_t *place = pf_place_json(b->place_points, &b->place, b->ran.blocks.prompt, NULL, NULL);
  json_object_set_new(b->result, "first",
                      json_pack("{s:s s:o}", "prompt", b->stored.id, "place", place));
  json_object_set_new(b->result, "operation", o);
  json_object_set_new(b->result, "reference", b->ref.isa ? setting_json(&b->ref) : json_null());
  return rc == PF_OK ? write_result(b) : rc;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static const char *model_path(const bisect *b) {
  const char *s = json_string_value(json_object_get(b->snap.manifest, "model"));
  return b->o->model ? b->o->model : s ? s : "";
}

static int open_candidate(bisect *b) {
  pf_model_opts mo = {.threads = b->o->threads,
                      .precision = b->o->precision,
                      .isa = b->o->isa,
                      .progress = b->o->progress,
                      .progress_user = b->o->progress_user};
  int rc = PF_OK;
  b->cand = (setting){.isa = b->o->isa, .threads = b->o->threads, .chunk = b->o->chunk};
  if (b->x) {
    b->cand.edits = b->x->edits;
    b->cand.n_edits = b->x->n_edits;
  }
  if (mo.precision == PF_PRECISION_AUTO)
    rc = pf_precision_parse(head_text(b, "precision"), &mo.precision);
  if (rc == PF_OK)
    rc = pf_model_open(&b->cand.model, model_path(b), &mo);
  if (rc == PF_OK)
    rc = pf_points_make(&b->points, b->cand.model, "all");
  for (size_t i = 0; rc == PF_OK && i < b->snap.points.n; i++) {
    rc = pf_points_add(&b->points, b->cand.model, b->snap.points.v[i].name);
    if (rc == PF_EUSAGE)
      rc = pf_fail(PF_EINPUT, "%s: %s does not exist in %s: not a variant of one model",
                   b->snap.dir, b->snap.points.v[i].name, model_path(b));
  }
  for (size_t i = 0; rc == PF_OK && i < b->snap.points.n; i++) {
    const pf_at *x = &b->snap.points.v[i];
    const pf_at *y = &b->points.v[pf_points_find(&b->points, x->name)];
    if (x->heads != y->heads || x->width != y->width)
      rc = pf_fail(PF_EINPUT, "%s: %s has another shape in %s: not a variant of one model",
                   b->snap.dir, x->name, model_path(b));
  }
  return rc;
}

/* Of two models: the first tensor that differs, and its first element where both can be read. */
static void compare_models(bisect *b) {
  bool changed;
  json_t *mine = pf_tensors_json(b->cand.model);
  b->tensors = pf_compare_tensors(json_object_get(b->snap.manifest, "tensors"), mine, &changed);
  b->same = !changed;
  json_decref(mine);
  const char *was = json_string_value(json_object_get(b->snap.manifest, "model"));
  if (b->tensors && changed && was)
    pf_first_element(b->tensors, was, pf_model_get_info(b->cand.model)->dir);
}

static int search(bisect *b) {
  bool found;
  int rc = find_prompt(b, &found);
  if (rc == PF_OK && b->stored.id == NULL)
    rc = pf_fail(PF_EUSAGE, "no prompt has the id '%s'", b->o->prompt ? b->o->prompt : "");
  if (rc != PF_OK || !found)
    return rc;
  b->same = false;
  rc = find_reference(b);
  if (rc == PF_OK)
    rc = refine(b);
  return rc == PF_OK ? explain(b) : rc;
}

static int bisect_run(bisect *b) {
  int rc = pf_snap_open(&b->snap, b->o->snapshot);
  if (rc == PF_OK)
    rc = open_candidate(b);
  if (rc != PF_OK)
    return rc;
  compare_models(b);
  b->result = json_pack("{s:s s:s s:o}", "schema", "personaflow-bisect/1", "snapshot",
                        b->o->snapshot, "candidate", setting_json(&b->cand));
  if (b->tensors)
    json_object_set(b->result, "tensors", b->tensors);
  rc = b->result ? search(b) : PF_ENOMEM;
  json_object_set_new(b->result, "same", json_boolean(b->same));
  return rc;
}

int pf_bisect_make(pf_diff **out, const pf_bisect_opts *o, const pf_snap_extra *x) {
  bisect b = {.o = o, .x = x, .same = true};
  *out = NULL;
  int rc = o->snapshot ? bisect_run(&b) : pf_fail(PF_EUSAGE, "a bisection wants a snapshot");
  if (rc == PF_OK)
    rc = pf_diff_wrap(out, b.result, b.same);
  drop_folder(&b);
  json_decref(b.result);
  json_decref(b.tensors);
  pf_snap_prompt_free(&b.stored);
  pf_snap_prompt_free(&b.ran);
  pf_snap_prompt_free(&b.again);
  pf_points_free(&b.points);
  if (!b.ref_shared)
    pf_model_close(b.ref.model);
  pf_model_close(b.cand.model);
  pf_snap_close(&b.snap);
  return rc;
}

int pf_bisect_run(pf_diff **out, const pf_bisect_opts *o) {
  PF_FP_PLAIN();
  return pf_bisect_make(out, o, NULL);
}
