/* SPDX-License-Identifier: Apache-2.0
 * Profiles as tables: rows added up by role or layer, sorted; as CSV; two of them compared. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/jsonout.h"
#include "analysis/profile.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "personaflow/stats.h"

enum { RESULT_LIMIT = 256 << 20, MOST_REPEATS = 1000, MOST_RUNS = 64 };
/* A change counts if it is more than these: times the noise of both sides, and in itself. */
static const double NOISE_FACTOR = 3, LEAST_CHANGE = 0.03;
/* Rows below this share of the phase are not judged: their clock is too coarse. */
static const double LEAST_SHARE = 0.005;

static const struct {
  const char *key, *header, *what;
} columns[PF_N_COLUMNS] = {
#define PF_COLUMN_ROW(id, key, header, what) {key, header, what},
    PF_PROFILE_COLUMNS(PF_COLUMN_ROW)};

/* ---- the result ------------------------------------------------------------------------------ */

int pf_profile_parse(const char *name, const char *json, json_t **out) {
  int rc = pf_js_text(name, json, strlen(json), out);
  if (rc != PF_OK || !strcmp(pf_js_str(*out, "schema"), PF_PROFILE_SCHEMA))
    return rc;
  json_decref(*out);
  *out = NULL;
  return pf_fail(PF_EINPUT, "%s: not a profile (schema " PF_PROFILE_SCHEMA ")", name);
}

static size_t values_of(const json_t *list, double *v, size_t most) {
  size_t n = json_array_size(list) < most ? json_array_size(list) : most;
  for (size_t i = 0; i < n; i++)
    v[i] = json_number_value(json_array_get(list, i));
  return n;
}

/* Puts v in order. */
static double median(double *v, size_t n) {
  return pf_stats_of(v, n).median;
}

static double median_of(const json_t *list) {
  double v[MOST_REPEATS];
  return median(v, values_of(list, v, MOST_REPEATS));
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* A line in the making: its times by repeat. */
typedef struct sum {
  pf_profile_line l;
  double *seconds; /* (repeats) */
  double slow;     /* sum of imbalance x time */
} sum;

static bool same_line(const sum *s, const pf_profile_view *v, int32_t layer, const char *name) {
  switch (v->by) {
  case PF_BY_LAYER:
    return s->l.layer == layer;
  case PF_BY_ROLE:
    return !strcmp(s->l.name, name);
  default:
    return s->l.layer == layer && !strcmp(s->l.name, name);
  }
}

static void add_row(sum *s, const json_t *row, size_t repeats) {
  const json_t *t = json_object_get(row, "seconds");
  for (size_t r = 0; r < repeats; r++)
    s->seconds[r] += json_number_value(json_array_get(t, r));
  s->l.value[PF_COLUMN_CALLS] += pf_js_real(row, "calls");
  s->l.value[PF_COLUMN_FLOPS] += pf_js_real(row, "flops");
  s->l.value[PF_COLUMN_BYTES] += pf_js_real(row, "bytes");
  s->slow += median_of(json_object_get(row, "imbalance")) * median_of(t);
}

static double ratio(double a, double b) {
  return b > 0 && a > 0 ? a / b : (double)NAN;
}

/* Standard error of the median m of n values, from the median of their distances to it, so that a
 * few repeats that were disturbed do not count. Changes v. */
static double error_of_median(double *v, size_t n, double m) {
  static const double sd_of_mad = 1.4826, of_median = 1.2533; /* of normal errors */
  for (size_t i = 0; i < n; i++)
    v[i] = fabs(v[i] - m);
  return sd_of_mad * of_median * median(v, n) / sqrt((double)n);
}

/* A layer's sum is mostly products. */
double pf_profile_roof(const json_t *machine, const char *role) {
  if (role && (!strcmp(role, "attn.scores") || !strcmp(role, "attn.pv")))
    return pf_js_real(machine, "attention_flops");
  return pf_js_real(machine, "flops") / pf_js_real(machine, "products_for_one");
}

static void finish(sum *s, const json_t *result, double wall, size_t repeats) {
  const json_t *machine = json_object_get(result, "machine");
  double *v = s->l.value, t = median(s->seconds, repeats);
  s->l.noise = repeats > 1 && t > 0 ? error_of_median(s->seconds, repeats, t) / t : (double)NAN;
  v[PF_COLUMN_TIME] = t;
  v[PF_COLUMN_SHARE] = wall > 0 ? t / wall : (double)NAN;
  v[PF_COLUMN_GFLOPS] = ratio(v[PF_COLUMN_FLOPS], t);
  v[PF_COLUMN_GBS] = ratio(v[PF_COLUMN_BYTES], t);
  v[PF_COLUMN_INTENSITY] = ratio(v[PF_COLUMN_FLOPS], v[PF_COLUMN_BYTES]);
  v[PF_COLUMN_PEAK] = ratio(v[PF_COLUMN_GFLOPS], pf_profile_roof(machine, s->l.name));
  v[PF_COLUMN_BANDWIDTH] = ratio(v[PF_COLUMN_GBS], pf_js_real(machine, "read"));
  v[PF_COLUMN_IMBALANCE] = t > 0 ? s->slow / t : (double)NAN;
}

static int sort_column(const char *key) {
  if (!key)
    return PF_COLUMN_TIME;
  if (!strcmp(key, "order"))
    return PF_N_COLUMNS;
  for (int i = 0; i < PF_N_COLUMNS; i++)
    if (!strcmp(key, columns[i].key))
      return i;
  return -1;
}

int pf_profile_check_view(const pf_profile_view *v) {
  return sort_column(v->sort) >= 0
             ? PF_OK
             : pf_fail(PF_EUSAGE, "there is no column '%s' to sort by", v->sort);
}

static int sorting; /* column of the sort that runs; qsort has no other place for it */
static int downwards(const void *a, const void *b) {
  const pf_profile_line *x = a, *y = b;
  double p = sorting < PF_N_COLUMNS ? x->value[sorting] : 0,
         q = sorting < PF_N_COLUMNS ? y->value[sorting] : 0;
  if (isnan(p) != isnan(q))
    return isnan(p) ? 1 : -1;
  if (!isnan(p) && p != q)
    return p < q ? 1 : -1;
  return (x->order > y->order) - (x->order < y->order);
}

static int add_all(const json_t *phase, const pf_profile_view *v, size_t repeats, sum *s,
                   size_t *n) {
  const json_t *row;
  size_t i;
  json_array_foreach(json_object_get(phase, "rows"), i, row) {
    int32_t layer = (int32_t)json_integer_value(json_object_get(row, "layer"));
    size_t at = 0;
    while (at < *n && !same_line(&s[at], v, layer, pf_js_str(row, "role")))
      at++;
    if (at == *n) {
      s[at].l = (pf_profile_line){.layer = v->by == PF_BY_ROLE ? -1 : layer,
                                  .name = v->by == PF_BY_LAYER ? NULL : pf_js_str(row, "role"),
                                  .all_layers = v->by == PF_BY_ROLE,
                                  .order = at};
      s[at].seconds = pf_calloc(repeats, sizeof(double));
      if (!s[at].seconds)
        return PF_ENOMEM;
      (*n)++;
    }
    add_row(&s[at], row, repeats);
  }
  return PF_OK;
}

int pf_profile_lines(const json_t *result, const json_t *phase, const pf_profile_view *v,
                     pf_profile_line **out, size_t *n) {
  size_t rows = json_array_size(json_object_get(phase, "rows")),
         repeats = json_array_size(json_object_get(phase, "wall"));
  int rc = pf_profile_check_view(v);
  *out = NULL;
  *n = 0;
  if (rc != PF_OK)
    return rc;
  if (repeats == 0 || repeats > MOST_REPEATS)
    return pf_fail(PF_EINPUT, "a profile of %zu repeats", repeats);
  sum *s = pf_calloc(rows + 1, sizeof *s);
  pf_profile_line *l = pf_calloc(rows + 1, sizeof *l);
  rc = s && l ? add_all(phase, v, repeats, s, n) : PF_ENOMEM;
  for (size_t i = 0; i < *n && rc == PF_OK; i++) {
    finish(&s[i], result, median_of(json_object_get(phase, "wall")), repeats);
    l[i] = s[i].l;
  }
  for (size_t i = 0; s && i < rows + 1; i++)
    pf_free(s[i].seconds);
  pf_free(s);
  if (rc != PF_OK) {
    pf_free(l);
    return rc;
  }
  sorting = sort_column(v->sort);
  qsort(l, *n, sizeof *l, downwards);
  if (v->top > 0 && (size_t)v->top < *n)
    *n = (size_t)v->top;
  *out = l;
  return PF_OK;
}

void pf_profile_line_name(const pf_profile_line *l, char out[96]) {
  if (!l->name)
    snprintf(out, 96, l->layer >= 0 ? "layer %d" : "outside of layers", (int)l->layer);
  else if (l->layer >= 0)
    snprintf(out, 96, "%2d %s", (int)l->layer, l->name);
  else
    snprintf(out, 96, "%s", l->name);
}

/* ---- the table ------------------------------------------------------------------------------- */

/* How a column is printed: a factor, and digits behind the point. */
static const struct {
  double factor;
  int digits;
} shown[PF_N_COLUMNS] = {[PF_COLUMN_TIME] = {1e3, 2},   [PF_COLUMN_SHARE] = {100, 1},
                         [PF_COLUMN_CALLS] = {1, 0},    [PF_COLUMN_FLOPS] = {1e-9, 3},
                         [PF_COLUMN_BYTES] = {1e-6, 1}, [PF_COLUMN_GFLOPS] = {1e-9, 1},
                         [PF_COLUMN_GBS] = {1e-9, 1},   [PF_COLUMN_INTENSITY] = {1, 2},
                         [PF_COLUMN_PEAK] = {100, 1},   [PF_COLUMN_BANDWIDTH] = {100, 1},
                         [PF_COLUMN_IMBALANCE] = {1, 2}};

static void put_cell(pf_buf *b, int column, double v) {
  if (isnan(v) || (v == 0 && (column == PF_COLUMN_FLOPS || column == PF_COLUMN_BYTES)))
    pf_buf_printf(b, " %10s", "-");
  else
    pf_buf_printf(b, " %10.*f", shown[column].digits, v * shown[column].factor);
}

static void put_header(pf_buf *b, const json_t *r) {
  const json_t *m = json_object_get(r, "machine");
  pf_buf_printf(b, "%s, %s, %s, %d threads, %s (%s)\n", pf_js_str(r, "model"),
                pf_js_str(r, "precision"), pf_js_str(r, "isa"), (int)pf_js_real(r, "threads"),
                pf_js_str(m, "cpu"), pf_js_str(m, "features"));
  if (pf_js_real(m, "flops") > 0)
    pf_buf_printf(b, "measured now: %.0f GFLOP/s (%s%s), read %.1f GB/s\n",
                  1e-9 * pf_js_real(m, "flops") / pf_js_real(m, "products_for_one"),
                  pf_js_str(m, "products"),
                  pf_js_real(m, "products_for_one") > 1 ? ", a third: three products for one" : "",
                  1e-9 * pf_js_real(m, "read"));
  else
    pf_buf_printf(b, "read %.1f GB/s; the products' instruction is not measured\n",
                  1e-9 * pf_js_real(m, "read"));
  const json_t *load = json_object_get(r, "load");
  pf_buf_printf(b, "load: %.3f s, %.2f GB/s of %.1f MB\n", pf_js_real(load, "seconds"),
                1e-9 * pf_js_real(load, "bytes") / pf_js_real(load, "seconds"),
                1e-6 * pf_js_real(load, "bytes"));
}

static void put_counters(pf_buf *b, const json_t *phase) {
  if (!json_object_get(phase, "counters"))
    return;
  const char *key, *sep = "counters:", *why = "";
  json_t *v, *all = json_object_get(phase, "counters");
  json_object_foreach(all, key, v) {
    if (json_is_number(v)) {
      pf_buf_printf(b, "%s %s %.4g", sep, key, json_number_value(v));
      sep = ",";
    }
  }
  sep = "\nabsent:";
  json_object_foreach(all, key, v) {
    if (json_is_number(v))
      continue;
    if (strcmp(why, pf_js_str(v, "absent")) != 0)
      pf_buf_printf(b, "%s %s: %s", sep, pf_js_str(v, "absent"), key);
    else
      pf_buf_printf(b, ", %s", key);
    why = pf_js_str(v, "absent");
    sep = ";";
  }
  pf_buf_puts(b, "\n");
}

static double least_of(const json_t *list) {
  double v[MOST_REPEATS];
  return pf_stats_of(v, values_of(list, v, MOST_REPEATS)).min;
}

/* What the profile itself costs: the best runs with it and without it, which took turns. */
static void put_phase_header(pf_buf *b, const json_t *phase) {
  const json_t *walls = json_object_get(phase, "wall"), *row;
  double wall = median_of(walls), least = least_of(walls),
         plain = least_of(json_object_get(phase, "unprofiled_wall")), other = 0;
  size_t i;
  json_array_foreach(json_object_get(phase, "rows"), i, row) {
    if (!strcmp(pf_js_str(row, "role"), "between"))
      other += median_of(json_object_get(row, "seconds"));
  }
  if (pf_js_real(phase, "tokens") == 0) {
    pf_buf_printf(b, "\n%s: %.1f ms; of them %.1f ms with the weights\n", pf_js_str(phase, "name"),
                  1e3 * wall, 1e3 * median_of(json_object_get(phase, "busy")));
    return;
  }
  pf_buf_printf(b,
                "\n%s: %d tokens, %.1f ms, %.1f tokens/s; best %.1f ms, without a profile %.1f ms "
                "(%+.1f %%); roles and waiting are %.1f %% of the time\n",
                pf_js_str(phase, "name"), (int)pf_js_real(phase, "tokens"), 1e3 * wall,
                pf_js_real(phase, "tokens") / wall, 1e3 * least, 1e3 * plain,
                100 * (least / plain - 1),
                100 * (median_of(json_object_get(phase, "busy")) - other) / wall);
}

static int put_phase(pf_buf *b, const json_t *r, const json_t *phase, const pf_profile_view *v) {
  pf_profile_line *l;
  size_t n;
  int rc = pf_profile_lines(r, phase, v, &l, &n);
  if (rc != PF_OK)
    return rc;
  put_phase_header(b, phase);
  put_counters(b, phase);
  pf_buf_printf(b, "%-26s", "");
  for (int c = 0; c < PF_N_COLUMNS; c++)
    pf_buf_printf(b, " %10s", columns[c].header);
  pf_buf_puts(b, "\n");
  for (size_t i = 0; i < n; i++) {
    char name[96];
    pf_profile_line_name(&l[i], name);
    pf_buf_printf(b, "%-26s", name);
    for (int c = 0; c < PF_N_COLUMNS; c++)
      put_cell(b, c, l[i].value[c]);
    pf_buf_puts(b, "\n");
  }
  pf_free(l);
  return PF_OK;
}

int pf_profile_put_table(const json_t *r, const pf_profile_view *v, pf_buf *b) {
  const json_t *phase;
  size_t i;
  int rc = PF_OK;
  put_header(b, r);
  json_array_foreach(json_object_get(r, "phases"), i, phase) {
    if (rc == PF_OK)
      rc = put_phase(b, r, phase, v);
  }
  return rc;
}

/* The text that `put` makes of a result. */
static int text_of(const char *json,
                   int (*put)(const json_t *r, const pf_profile_view *v, pf_buf *b),
                   const pf_profile_view *v, char **out) {
  json_t *r;
  pf_buf b = {0};
  *out = NULL;
  int rc = pf_profile_parse("profile", json, &r);
  if (rc == PF_OK)
    rc = put(r, v, &b);
  if (rc == PF_OK)
    rc = pf_buf_take(&b, out);
  json_decref(r);
  pf_buf_free(&b);
  return rc;
}

int pf_profile_table(const char *json, const pf_profile_view *v, char **out) {
  return text_of(json, pf_profile_put_table, v, out);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static void csv_number(pf_buf *b, double x) {
  char t[32];
  pf_buf_puts(b, ",");
  if (isnan(x))
    return;
  pf_format_double(x, t, sizeof t);
  pf_buf_puts(b, t);
}

static int csv_phase(pf_buf *b, const json_t *r, const json_t *phase) {
  pf_profile_line *l;
  size_t n;
  int rc = pf_profile_lines(r, phase, &(pf_profile_view){.by = PF_BY_ROW, .sort = "order"}, &l, &n);
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    pf_buf_printf(b, "%s,%d,%s", pf_js_str(phase, "name"), (int)l[i].layer, l[i].name);
    for (int c = 0; c < PF_N_COLUMNS; c++)
      csv_number(b, l[i].value[c]);
    csv_number(b, l[i].noise);
    pf_buf_puts(b, "\n");
  }
  pf_free(l);
  return rc;
}

/* Units: seconds, shares of 1, operations, bytes. */
int pf_profile_put_csv(const json_t *r, const pf_profile_view *v, pf_buf *b) {
  const json_t *phase;
  size_t i;
  int rc = PF_OK;
  (void)v;
  pf_buf_puts(b, "phase,layer,role");
  for (int c = 0; c < PF_N_COLUMNS; c++)
    pf_buf_printf(b, ",%s", columns[c].key);
  pf_buf_puts(b, ",noise\n");
  json_array_foreach(json_object_get(r, "phases"), i, phase) {
    if (rc == PF_OK)
      rc = csv_phase(b, r, phase);
  }
  return rc;
}

int pf_profile_csv(const char *json, char **out) {
  return text_of(json, pf_profile_put_csv, NULL, out);
}

/* ---- two of them ----------------------------------------------------------------------------- */

static int read_result(const char *path, json_t **out) {
  char file[4400];
  struct stat st;
  pf_buf b = {0};
  bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
  snprintf(file, sizeof file, "%s%s", path, folder ? "/profile.json" : "");
  *out = NULL;
  int rc = pf_read_file(file, RESULT_LIMIT, &b);
  if (rc == PF_OK)
    rc = pf_profile_parse(file, pf_buf_str(&b), out);
  pf_buf_free(&b);
  return rc;
}

static json_t *phase_named(const json_t *r, const char *name) {
  json_t *phase;
  size_t i;
  json_array_foreach(json_object_get(r, "phases"), i, phase) {
    if (!strcmp(pf_js_str(phase, "name"), name))
      return phase;
  }
  return NULL;
}

/* A row's median in the same phase of another run, 0 if it is not there. */
static double median_in(const json_t *phase, const json_t *row) {
  const json_t *r;
  size_t i;
  json_array_foreach(json_object_get(phase, "rows"), i, r) {
    if (json_equal(json_object_get(r, "layer"), json_object_get(row, "layer")) &&
        !strcmp(pf_js_str(r, "role"), pf_js_str(row, "role")))
      return median_of(json_object_get(r, "seconds"));
  }
  return 0;
}

/* Puts the medians of all runs in place of the first run's repeats. */
static void pool_phase(json_t *const *run, size_t n, json_t *phase) {
  json_t *walls = json_array(), *row;
  size_t k;
  for (size_t r = 0; r < n; r++)
    json_array_append_new(walls, pf_js_num(median_of(json_object_get(
                                     phase_named(run[r], pf_js_str(phase, "name")), "wall"))));
  json_array_foreach(json_object_get(phase, "rows"), k, row) {
    json_t *t = json_array();
    double own = median_of(json_object_get(row, "seconds"));
    for (size_t r = 0; r < n; r++)
      json_array_append_new(
          t, pf_js_num(r ? median_in(phase_named(run[r], pf_js_str(phase, "name")), row) : own));
    json_object_set_new(row, "seconds", t);
  }
  json_object_set_new(phase, "wall", walls);
}

/* One side of a comparison: a profile, or several with commas between, of which each counts once.
 */
static int read_side(const char *paths, json_t **out) {
  json_t *run[MOST_RUNS] = {NULL}, *phase;
  size_t n = 0, i;
  char *list = pf_strdup(paths), *at = NULL;
  int rc = list ? PF_OK : PF_ENOMEM;
  for (char *w = list ? strtok_r(list, ",", &at) : NULL; w && rc == PF_OK;
       w = strtok_r(NULL, ",", &at))
    rc = n < MOST_RUNS ? read_result(w, &run[n++])
                       : pf_fail(PF_EUSAGE, "a side takes at most %d profiles", MOST_RUNS);
  if (rc == PF_OK && n == 0)
    rc = pf_fail(PF_EUSAGE, "a profile is wanted, not ''");
  if (rc == PF_OK && n > 1)
    json_array_foreach(json_object_get(run[0], "phases"), i, phase) pool_phase(run, n, phase);
  *out = rc == PF_OK ? json_incref(run[0]) : NULL;
  for (i = 0; i < n; i++)
    json_decref(run[i]);
  pf_free(list);
  return rc;
}

static const pf_profile_line *partner(const pf_profile_line *want, const pf_profile_line *l,
                                      size_t n) {
  for (size_t i = 0; i < n; i++)
    if (l[i].layer == want->layer &&
        (want->name ? l[i].name && !strcmp(l[i].name, want->name) : !l[i].name))
      return &l[i];
  return NULL;
}

static void put_pair(pf_buf *b, const pf_profile_line *x, const pf_profile_line *y,
                     size_t *changed) {
  char name[96];
  double p = x->value[PF_COLUMN_TIME], q = y ? y->value[PF_COLUMN_TIME] : (double)NAN,
         change = q / p - 1, noise = y ? hypot(x->noise, y->noise) : (double)NAN;
  bool judged = y && fmax(x->value[PF_COLUMN_SHARE], y->value[PF_COLUMN_SHARE]) >= LEAST_SHARE &&
                !isnan(noise),
       more = judged && fabs(change) > fmax(NOISE_FACTOR * noise, LEAST_CHANGE);
  pf_profile_line_name(x, name);
  pf_buf_printf(b, "%-26s %10.3f %10.3f", name, 1e3 * p, 1e3 * q);
  if (y && p > 0) {
    pf_buf_printf(b, " %+9.1f%% ", 100 * change);
    if (isnan(noise))
      pf_buf_puts(b, "         -");
    else
      pf_buf_printf(b, "%9.1f%%", 100 * noise);
    pf_buf_printf(b, "  %s\n",
                  more     ? (change > 0 ? "slower" : "faster")
                  : judged ? ""
                           : "not judged");
  } else
    pf_buf_puts(b, "          -          -  in A only\n");
  *changed += more;
}

static int compare_phase(pf_buf *b, const json_t *ra, const json_t *rb, const json_t *pa,
                         const json_t *pb, const pf_profile_view *v, size_t *changed) {
  pf_profile_line *x = NULL, *y = NULL;
  size_t n = 0, m = 0;
  pf_profile_view all = *v;
  all.top = 0;
  int rc = pf_profile_lines(ra, pa, v, &x, &n);
  if (rc == PF_OK)
    rc = pf_profile_lines(rb, pb, &all, &y, &m);
  if (rc == PF_OK)
    pf_buf_printf(b, "\n%s: A %.1f ms, B %.1f ms (medians)\n%-26s %10s %10s %10s %10s\n",
                  pf_js_str(pa, "name"), 1e3 * median_of(json_object_get(pa, "wall")),
                  1e3 * median_of(json_object_get(pb, "wall")), "", "A, ms", "B, ms", "change",
                  "noise");
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    put_pair(b, &x[i], partner(&x[i], y, m), changed);
  pf_free(x);
  pf_free(y);
  return rc;
}

static void put_sides(pf_buf *b, const json_t *r, const char *side, const char *path) {
  pf_buf_printf(b, "%s: %s: %s, %s, %s, %d threads, personaflow %s, %d repeats\n", side, path,
                pf_js_str(r, "model"), pf_js_str(r, "precision"), pf_js_str(r, "isa"),
                (int)pf_js_real(r, "threads"), pf_js_str(r, "version"),
                (int)pf_js_real(r, "repeats"));
}

int pf_profile_compare(const char *a, const char *b, const pf_profile_view *v, char **out,
                       size_t *changed) {
  json_t *ra = NULL, *rb = NULL;
  const json_t *phase, *other;
  pf_buf t = {0};
  size_t i, n = 0;
  *out = NULL;
  int rc = read_side(a, &ra);
  if (rc == PF_OK)
    rc = read_side(b, &rb);
  if (rc == PF_OK) {
    put_sides(&t, ra, "A", a);
    put_sides(&t, rb, "B", b);
    pf_buf_printf(
        &t,
        "noise: standard error of the medians, both sides together, from the repeats; a row "
        "changed if its median did by more than %g x noise and %g %%\n",
        NOISE_FACTOR, 100 * LEAST_CHANGE);
  }
  json_array_foreach(json_object_get(ra, "phases"), i, phase) {
    if (rc == PF_OK && (other = phase_named(rb, pf_js_str(phase, "name"))))
      rc = compare_phase(&t, ra, rb, phase, other, v, &n);
  }
  if (rc == PF_OK)
    pf_buf_printf(&t, "\n%zu rows changed\n", n);
  json_decref(ra);
  json_decref(rb);
  if (changed)
    *changed = n;
  if (rc == PF_OK)
    rc = pf_buf_take(&t, out);
  pf_buf_free(&t);
  return rc;
}
