/* SPDX-License-Identifier: Apache-2.0
 * Records of a study's folder. */
#include "analysis/records.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

static const size_t FILE_LIMIT = (size_t)1 << 32;

static int take_keys(const json_t *list, const char ***out, size_t *n) {
  *n = json_array_size(list);
  *out = pf_calloc(*n, sizeof **out);
  for (size_t i = 0; *out && i < *n; i++) {
    (*out)[i] = json_string_value(json_object_get(json_array_get(list, i), "key"));
    if (!(*out)[i])
      return PF_EINPUT;
  }
  return *out ? PF_OK : PF_ENOMEM;
}

int pf_records_open(pf_records *r, const char *dir) {
  char path[4400];
  *r = (pf_records){.dir = dir, .files = json_object(), .sorted = json_object()};
  snprintf(path, sizeof path, "%s/manifest.json", dir);
  int rc = r->files && r->sorted ? pf_js_file(path, FILE_LIMIT, &r->manifest) : PF_ENOMEM;
  const json_t *grid = json_object_get(r->manifest, "grid");
  if (rc == PF_OK)
    rc = take_keys(json_object_get(grid, "personas"), &r->personas, &r->n_personas);
  if (rc == PF_OK)
    rc = take_keys(json_object_get(grid, "tasks"), &r->tasks, &r->n_tasks);
  if (rc == PF_EINPUT && r->manifest)
    pf_fail(rc, "%s: is not of a study", path);
  if (rc != PF_OK)
    pf_records_close(r);
  return rc;
}

void pf_records_close(pf_records *r) {
  json_decref(r->manifest);
  json_decref(r->files);
  json_decref(r->sorted);
  pf_free(r->personas);
  pf_free(r->tasks);
  *r = (pf_records){0};
}

const json_t *pf_records_of(pf_records *r, const char *experiment, int *rc) {
  char path[4400];
  json_t *list;
  const json_t *there = json_object_get(r->files, experiment);
  snprintf(path, sizeof path, "%s/%s.jsonl", r->dir, experiment);
  if (there || *rc != PF_OK || access(path, F_OK) != 0)
    return there;
  *rc = pf_js_lines(path, FILE_LIMIT, &list);
  if (*rc == PF_OK && json_object_set_new(r->files, experiment, list) != 0)
    *rc = PF_ENOMEM;
  return *rc == PF_OK ? list : NULL;
}

static size_t index_of(const char *const *keys, size_t n, const char *key) {
  size_t i = 0;
  while (i < n && (!key || strcmp(keys[i], key) != 0))
    i++;
  return i;
}

size_t pf_record_cell(const pf_records *r, const json_t *row) {
  size_t x = index_of(r->personas, r->n_personas,
                      json_string_value(json_object_get(row, "persona"))),
         y = index_of(r->tasks, r->n_tasks, json_string_value(json_object_get(row, "task")));
  return x < r->n_personas && y < r->n_tasks ? x * r->n_tasks + y : r->n_personas * r->n_tasks;
}

/* One "key=value" or "!key" of n bytes. */
static int holds(const json_t *row, const char *s, size_t n) {
  char key[64], number[32];
  const char *eq = memchr(s, '=', n);
  size_t len = *s == '!' ? n - 1 : eq ? (size_t)(eq - s) : n;
  if (len >= sizeof key)
    return 0;
  memcpy(key, *s == '!' ? s + 1 : s, len);
  key[len] = '\0';
  const json_t *v = json_object_get(row, key);
  if (*s == '!' || !eq)
    return *s == '!' ? !v : v != NULL;
  const char *text = json_string_value(v);
  if (json_is_number(v)) {
    if (json_is_integer(v))
      snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
    else
      snprintf(number, sizeof number, "%g", json_real_value(v));
    text = number;
  }
  return text && strlen(text) == n - len - 1 && !memcmp(text, eq + 1, n - len - 1);
}

int pf_record_is(const json_t *row, const char *query) {
  for (const char *at = query; *at;) {
    size_t n = strcspn(at, " ");
    if (n && !holds(row, at, n))
      return 0;
    at += n + (at[n] == ' ');
  }
  return 1;
}

const char *pf_manifest_other_words(const json_t *manifest, int *n) {
  const json_t *grid = json_object_get(manifest, "grid"),
               *arguments = json_object_get(manifest, "arguments");
  const struct {
    bool is;
    const char *why;
  } ways[] = {
      {json_object_get(grid, "paraphrase") != NULL, "the prompts are worded in another way"},
      {json_object_get(grid, "conflicts") != NULL, "the cells are others"},
      {json_is_string(json_object_get(arguments, "baseline")),
       "effects are counted from another baseline"}};
  const char *first = NULL;
  *n = 0;
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
    if (ways[i].is) {
      first = first ? first : ways[i].why;
      ++*n;
    }
  return first;
}

static double tail_of(const json_t *row, size_t from) {
  const json_t *steps = json_object_get(row, "kl_steps");
  double sum = 0;
  for (size_t t = from; t < json_array_size(steps); t++)
    sum += json_number_value(json_array_get(steps, t));
  return json_array_size(steps) > from ? sum : (double)NAN;
}

void pf_records_tails(pf_records *r, int tau, size_t from, double *x, int *rc) {
  char q[96];
  size_t i, n = r->n_personas * r->n_tasks;
  const json_t *rows = pf_records_of(r, "D1", rc), *row;
  snprintf(q, sizeof q, "condition=late tau=%d", tau);
  for (size_t c = 0; c < n; c++)
    x[c] = NAN;
  json_array_foreach(rows, i, row) {
    size_t c = pf_record_cell(r, row);
    if (c < n && pf_record_is(row, q))
      x[c] = tail_of(row, from);
  }
}

/* The largest KL10 of the draws; of a single one, which stands alone, its own. */
static double most_of(const json_t *row) {
  const json_t *draws = json_object_get(row, "draws"), *draw;
  double most = draws ? 0 : json_number_value(json_object_get(row, "kl10"));
  size_t k;
  json_array_foreach(draws, k, draw) {
    if (json_number_value(draw) > most)
      most = json_number_value(draw);
  }
  return most;
}

double pf_records_floor(pf_records *r, const char *site, int layer, int *rc) {
  double floor = 0;
  char q[96];
  size_t i;
  const json_t *rows = pf_records_of(r, "C1", rc), *row;
  snprintf(q, sizeof q, "site=%s layer=%d condition=I1", site, layer);
  json_array_foreach(rows, i, row) {
    if (pf_record_is(row, q))
      floor = fmax(floor, most_of(row));
  }
  return floor;
}

/* The records of each condition: experiments have tens of thousands, and every number of a page
 * asks for those of one. */
static json_t *sort_records(const json_t *rows) {
  json_t *by = json_object(), *list;
  const json_t *row;
  size_t i;
  json_array_foreach(rows, i, row) {
    const char *condition = json_string_value(json_object_get(row, "condition"));
    if (!condition)
      continue;
    if (!(list = json_object_get(by, condition))) {
      list = json_array();
      json_object_set_new(by, condition, list);
    }
    if (json_array_append(list, (json_t *)row) != 0) {
      json_decref(by);
      return NULL;
    }
  }
  return by;
}

/* Those that a query may ask for: of its condition, where it begins with one or names one. */
static const json_t *asked_for(pf_records *r, const char *experiment, const char *query, int *rc) {
  static const char key[] = "condition=";
  const json_t *rows = pf_records_of(r, experiment, rc);
  const char *at = strstr(query, key);
  char condition[96];
  if (!rows || !at || (at != query && at[-1] != ' ') ||
      strcspn(at, " ") - strlen(key) >= sizeof condition)
    return rows;
  snprintf(condition, sizeof condition, "%.*s", (int)(strcspn(at, " ") - strlen(key)),
           at + strlen(key));
  json_t *by = json_object_get(r->sorted, experiment);
  if (!by) {
    by = sort_records(rows);
    if (!by || json_object_set_new(r->sorted, experiment, by) != 0) {
      *rc = PF_ENOMEM;
      return NULL;
    }
  }
  return json_object_get(by, condition);
}

double *pf_records_table(pf_records *r, const char *experiment, const char *query,
                         const char *field, int *rc) {
  size_t n = r->n_personas * r->n_tasks, i;
  const json_t *rows = asked_for(r, experiment, query, rc), *row;
  double *x = pf_alloc(n, sizeof *x), *count = pf_calloc(n, sizeof *count);
  for (size_t c = 0; x && c < n; c++)
    x[c] = NAN;
  json_array_foreach(rows, i, row) {
    const json_t *v = json_object_get(row, field);
    size_t c = pf_record_cell(r, row);
    if (!x || !count || c >= n || !json_is_number(v) || !pf_record_is(row, query))
      continue;
    x[c] = count[c] == 0 ? json_number_value(v) : x[c] + json_number_value(v);
    count[c]++;
  }
  for (size_t c = 0; x && count && c < n; c++)
    if (count[c] > 1)
      x[c] /= count[c];
  if (*rc == PF_OK && (!x || !count))
    *rc = PF_ENOMEM;
  pf_free(count);
  if (*rc != PF_OK) {
    pf_free(x);
    x = NULL;
  }
  return x;
}
