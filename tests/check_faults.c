/* SPDX-License-Identifier: Apache-2.0
 * Seeded faults: one bit of one value at a random hook point, layer, head and position of a run, or
 * one bit of one weight. Digests, values and bisect must name the place, every time. The big tier
 * tries 200, the others a few; CHECK_FAULTS=FIRST:LAST chooses. */
#include "config.h"

#include <math.h>

#include "analysis/diff.h"
#include "analysis/diffreport.h"
#include "base/bf16.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "tests/model_util.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/util.h"

static const char prompts[] =
    "{\"id\": \"first\", \"ids\": [2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]}\n"
    "{\"id\": \"second\", \"ids\": [2, 40, 41, 42, 43, 44]}\n";

static const char *const models[] = {"demo-gemma2", "demo-qwen2"};
enum { N_MODELS = 2, TOKENS = 4 };

static char dir[256];
static bool have_base[N_MODELS][PF_N_PRECISIONS];

/* What fault `i` draws, in a fixed order. */
typedef struct draw {
  uint64_t fault, at;
} draw;

static uint32_t next(draw *d, size_t n) {
  uint32_t w[4];
  pf_philox(0x6661756c74, d->fault, d->at++, w);
  return (uint32_t)((((uint64_t)w[0] << 32) | w[1]) % n);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static char *base_dir(size_t m, pf_precision p, char buf[300]) {
  snprintf(buf, 300, "%s/%s-%s", dir, models[m], pf_precision_name(p));
  return buf;
}

static pf_snap_opts opts(const char *model, pf_precision p, const char *out) {
  return (pf_snap_opts){.model = model,
                        .prompts_name = "prompts",
                        .prompts = prompts,
                        .n_prompts = sizeof prompts - 1,
                        .out_dir = out,
                        .precision = p,
                        .max_tokens = TOKENS,
                        .threads = 1,
                        .full = 1,
                        .force = 1};
}

static void need_base(size_t m, pf_precision p, const char *model) {
  char out[300];
  if (have_base[m][p])
    return;
  pf_snap_opts o = opts(model, p, base_dir(m, p, out));
  ck_assert_msg(pf_snap_run(&o, NULL) == PF_OK, "%s", pf_last_error());
  have_base[m][p] = true;
}

/* ---- one bit of one value -------------------------------------------------------------------- */

typedef struct fault {
  size_t prompt, point, head, element;
  int32_t pos;
  float clean, bad;
  pf_tap tap;
  float *value; /* the head's row */
} fault;

/* A value that the rest of the pass survives: sizes stay within what other values have. */
static bool sane(const pf_at *a, float x) {
  bool scale = strstr(a->name, "hook_scale") != NULL;
  return isfinite(x) && fabsf(x) < 1e4f && (!scale || x > 1e-3f);
}

static void draw_fault(draw *d, const pf_snap *s, fault *f) {
  pf_snap_prompt p;
  pf_values v;
  f->prompt = next(d, s->n_prompts);
  ck_assert_int_eq(pf_snap_read(s, f->prompt, &p), PF_OK);
  ck_assert_int_eq(pf_values_of_snap(&v, s, f->prompt, &s->points), PF_OK);
  do {
    f->point = next(d, s->points.n);
    f->pos = (int32_t)next(d, (size_t)p.blocks.all);
    const pf_at *a = &s->points.v[f->point];
    f->head = next(d, a->heads);
    size_t part = pf_values_part(&v, &s->points, f->point);
    f->element = next(d, a->width ? a->width : (size_t)f->pos + 1);
    float *row = pf_alloc(a->heads, part * sizeof *row);
    ck_assert_int_eq(pf_values_rows(&v, &s->points, f->point, f->pos, f->pos + 1, row), PF_OK);
    pf_free(f->value);
    f->value = pf_alloc(part, sizeof *f->value);
    memcpy(f->value, row + f->head * part, part * sizeof *row);
    pf_free(row);
    f->clean = f->value[f->element];
    f->bad = pf_f32_of_bits(pf_bits_of_f32(f->clean) ^ (1u << next(d, 32)));
    f->value[f->element] = f->bad;
    f->tap = (pf_tap){.hook = a->hook->id,
                      .layer = a->layer,
                      .head = a->hook->heads ? (int32_t)f->head : -1,
                      .pos_lo = f->pos,
                      .pos_hi = f->pos + 1,
                      .op = PF_OP_REPLACE,
                      .value = f->value,
                      .n_keys = a->width ? 0 : (int32_t)part};
  } while (!sane(&s->points.v[f->point], f->clean) || !sane(&s->points.v[f->point], f->bad));
  pf_values_free(&v);
  pf_snap_prompt_free(&p);
}

static json_int_t whole(const json_t *o, const char *key) {
  const json_t *v = json_object_get(o, key);
  return json_is_integer(v) ? json_integer_value(v) : -1;
}

/* True if the result's first place is the fault's, to the element. */
static bool names_fault(const json_t *result, const pf_snap *s, const fault *f) {
  const pf_at *a = &s->points.v[f->point];
  const json_t *first = json_object_get(result, "first"), *p = json_object_get(first, "place");
  const char *hook = json_string_value(json_object_get(p, "hook")),
             *id = json_string_value(json_object_get(first, "prompt"));
  return hook && id && !strcmp(hook, a->name) && !strcmp(id, pf_snap_id(s, f->prompt)) &&
         whole(p, "position") == f->pos &&
         whole(p, "head") == (a->hook->heads ? (json_int_t)f->head : -1) &&
         whole(p, a->width ? "element" : "key") == (json_int_t)f->element;
}

/* By digests alone: the point, the block of the position, the head. */
static bool digests_name_fault(const char *a, const char *b, const fault *f) {
  pf_snap x, y;
  pf_snap_prompt p, q;
  pf_prompt_diff d;
  ck_assert_int_eq(pf_snap_open(&x, a), PF_OK);
  ck_assert_int_eq(pf_snap_open(&y, b), PF_OK);
  ck_assert_int_eq(pf_snap_read(&x, f->prompt, &p), PF_OK);
  ck_assert_int_eq(pf_snap_read(&y, f->prompt, &q), PF_OK);
  pf_comparison c = {.points = &x.points, .blocks = p.blocks, .a = &p, .b = &q};
  c.tolerance = (pf_tolerance){-1, -1, -1};
  ck_assert_int_eq(pf_compare(&c, &d), PF_OK);
  bool ok = !d.same && d.first.point == f->point && d.first.head == f->head &&
            d.first.span.lo <= f->pos && f->pos < d.first.span.hi;
  pf_snap_prompt_free(&p);
  pf_snap_prompt_free(&q);
  pf_snap_close(&x);
  pf_snap_close(&y);
  return ok;
}

static json_t *diff(const char *a, const char *b) {
  pf_diff_opts o;
  pf_diff *d;
  pf_diff_defaults(&o);
  o.a = a;
  o.b = b;
  ck_assert_msg(pf_diff_run(&d, &o) == PF_OK, "%s", pf_last_error());
  json_t *r = json_incref((json_t *)pf_diff_result(d));
  pf_diff_free(d);
  return r;
}

static json_t *bisect(const char *snapshot, const char *model, const pf_snap_extra *x) {
  pf_bisect_opts o = {.snapshot = snapshot, .model = model, .threads = 1};
  pf_diff *d;
  ck_assert_msg(pf_bisect_make(&d, &o, x) == PF_OK, "%s", pf_last_error());
  json_t *r = json_incref((json_t *)pf_diff_result(d));
  pf_diff_free(d);
  return r;
}

static void check_value(draw *d, size_t m, pf_precision p, const char *model) {
  char a[300], b[300];
  pf_snap s;
  fault f = {0};
  snprintf(b, sizeof b, "%s/faulty", dir);
  ck_assert_int_eq(pf_snap_open(&s, base_dir(m, p, a)), PF_OK);
  draw_fault(d, &s, &f);
  pf_snap_extra x = {&f.tap, 1, f.prompt};
  pf_snap_opts o = opts(model, p, b);
  ck_assert_msg(pf_snap_make(&o, &x, NULL) == PF_OK, "fault %d: %s", (int)d->fault,
                pf_last_error());
  json_t *r = diff(a, b), *t = bisect(a, model, &x);
  bool by_digest = digests_name_fault(a, b, &f), by_value = names_fault(r, &s, &f),
       by_bisect = names_fault(t, &s, &f);
  ck_assert_msg(by_digest && by_value && by_bisect,
                "fault %d: %s in %s, %s, position %d, head %zu, element %zu, %a to %a: digests %d, "
                "values %d, bisect %d",
                (int)d->fault, models[m], pf_precision_name(p), s.points.v[f.point].name,
                (int)f.pos, f.head, f.element, (double)f.clean, (double)f.bad, by_digest, by_value,
                by_bisect);
  const json_t *op = json_object_get(t, "operation");
  ck_assert_ptr_nonnull(json_object_get(op, "result"));
  json_decref(r);
  json_decref(t);
  pf_free(f.value);
  pf_snap_close(&s);
}

/* ---- one bit of one weight ------------------------------------------------------------------- */

typedef struct weight {
  char name[128];
  size_t rows, cols, element; /* cols 0: a vector */
} weight;

/* Flips a bit of the fraction or the sign of a random BF16 weight in the file's text. */
static void flip_weight(draw *d, pf_buf *file, weight *w) {
  uint64_t len = 0;
  json_t *head;
  memcpy(&len, file->s, 8);
  ck_assert_int_eq(pf_js_text("header", file->s + 8, (size_t)len, &head), PF_OK);
  json_object_del(head, "__metadata__");
  size_t k = next(d, json_object_size(head)), i = 0;
  const char *key;
  json_t *v;
  json_object_foreach(head, key, v) {
    if (i++ != k)
      continue;
    const json_t *shape = json_object_get(v, "shape"), *at = json_object_get(v, "data_offsets");
    snprintf(w->name, sizeof w->name, "%s", key);
    ck_assert_str_eq(json_string_value(json_object_get(v, "dtype")), "BF16");
    w->rows = (size_t)json_integer_value(json_array_get(shape, 0));
    w->cols = (size_t)json_integer_value(json_array_get(shape, 1));
    w->element = next(d, w->rows * (w->cols ? w->cols : 1));
    size_t byte = 8 + (size_t)len + (size_t)json_integer_value(json_array_get(at, 0));
    uint32_t bit = next(d, 8);
    file->s[byte + 2 * w->element + (bit == 7)] ^= (char)(1 << bit);
  }
  json_decref(head);
}

static bool has_weight(const json_t *result, const char *name) {
  const json_t *list = json_object_get(json_object_get(result, "operation"), "weights");
  for (size_t i = 0; i < json_array_size(list); i++)
    if (!strcmp(json_string_value(json_object_get(json_array_get(list, i), "name")), name))
      return true;
  return !json_object_get(result, "first"); /* no recorded value shows it */
}

static bool names_weight(const json_t *result, const weight *w, bool element) {
  const json_t *first = json_object_get(json_object_get(result, "tensors"), "first"),
               *at = json_object_get(first, "element");
  const char *name = json_string_value(json_object_get(first, "name"));
  size_t i = (size_t)json_integer_value(json_array_get(at, 0)),
         k = (size_t)json_integer_value(json_array_get(at, 1));
  return name && !strcmp(name, w->name) && !json_is_true(json_object_get(result, "same")) &&
         (!element || (at && (w->cols ? i * w->cols + k : i) == w->element));
}

static void check_weight(draw *d, size_t m, pf_precision p, const char *model) {
  char a[300], b[300], copy[300], path[1100];
  pf_buf file;
  weight w;
  snprintf(b, sizeof b, "%s/faulty", dir);
  snprintf(copy, sizeof copy, "%s/copy", dir);
  base_dir(m, p, a);
  snprintf(path, sizeof path, "%s/config.json", model);
  ck_assert_int_eq(pf_read_file(path, 1 << 20, &file), PF_OK);
  tmp_write(dir, "copy/config.json", file.s, file.n);
  pf_buf_free(&file);
  snprintf(path, sizeof path, "%s/model.safetensors", model);
  ck_assert_int_eq(pf_read_file(path, 1 << 28, &file), PF_OK);
  flip_weight(d, &file, &w);
  tmp_write(dir, "copy/model.safetensors", file.s, file.n);
  pf_buf_free(&file);
  pf_snap_opts o = opts(copy, p, b);
  ck_assert_msg(pf_snap_run(&o, NULL) == PF_OK, "%s", pf_last_error());
  json_t *r = diff(a, b), *t = bisect(a, copy, NULL);
  bool by_diff = names_weight(r, &w, false), by_bisect = names_weight(t, &w, true),
       by_operation = has_weight(t, w.name);
  ck_assert_msg(by_diff && by_bisect && by_operation,
                "fault %d: %s in %s, weight %s element %zu: diff %d, bisect %d, operation %d",
                (int)d->fault, models[m], pf_precision_name(p), w.name, w.element, by_diff,
                by_bisect, by_operation);
  json_decref(r);
  json_decref(t);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void range(int *lo, int *hi) {
  const char *only = getenv("CHECK_FAULTS");
  *lo = 0;
  *hi = tu_tier("big") ? 200 : 8;
  if (only)
    ck_assert_int_eq(sscanf(only, "%d:%d", lo, hi), 2);
}

START_TEST(every_fault_is_named) {
  int lo, hi, weights = 0;
  range(&lo, &hi);
  tmp_make(dir);
  for (int i = lo; i < hi; i++) {
    draw d = {(uint64_t)i, 0};
    char model[1024];
    size_t m = next(&d, N_MODELS);
    pf_precision p = (pf_precision)(1 + next(&d, PF_N_PRECISIONS - 1));
    snprintf(model, sizeof model, "%s/data/models/%s", tu_srcdir(), models[m]);
    need_base(m, p, model);
    if (i % 5 == 4) {
      check_weight(&d, m, p, model);
      weights++;
    } else {
      check_value(&d, m, p, model);
    }
  }
  printf("%d faults named in %d, %d of them in weights\n", hi - lo, hi - lo, weights);
  tmp_remove(dir);
}
END_TEST

int main(void) {
  Suite *s = suite_create("faults");
  TCase *t = tcase_create("faults");
  suite_add_tcase(s, t);
  tcase_set_timeout(t, 0);
  tcase_add_test(t, every_fault_is_named);
  return tu_suite_run(s, CK_FORK_GETENV);
}
