/* SPDX-License-Identifier: Apache-2.0
 * Marker lists: words by the paper's rule, patterns, shapes of lines, and so many of a list. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "analysis/markers.h"

#include <ctype.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"

enum { MARKERS_LIMIT = 4 << 20, MARKERS_MAX = 4096, LINES_MAX = 16, DEPTH_MAX = 4 };

struct pf_marker {
  const char *name;
  pcre2_code *code;                             /* a word or a pattern */
  pf_marker_list parts;                         /* so many of these ... */
  size_t at_least;                              /* ... */
  int n_lines, tolerance, syllables[LINES_MAX]; /* a paragraph of n_lines lines */
};

/* ---- making
 * -------------------------------------------------------------------------------------------------------
 */

static int compile(const char *pattern, size_t n, const char *where, pcre2_code **out) {
  int code;
  PCRE2_SIZE at;
  *out = pcre2_compile((PCRE2_SPTR)pattern, n,
                       PCRE2_UTF | PCRE2_UCP | PCRE2_CASELESS | PCRE2_MATCH_INVALID_UTF |
                           PCRE2_NEVER_BACKSLASH_C,
                       &code, &at, NULL);
  if (*out)
    return PF_OK;
  char why[128];
  pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
  return pf_fail(PF_EINPUT, "%s: the pattern does not compile: %s at byte %zu", where, why, at);
}

/* The paper's rule: with a space or a hyphen anywhere in the text, else as a whole word; upper and
 * lower case alike. A word that ends in the middle of one, such as "indemnif", never matches. */
static int compile_word(const char *s, const char *where, pcre2_code **out) {
  pf_buf b = {0};
  const char *edge = strpbrk(s, " -") ? "" : "\\b";
  pf_buf_puts(&b, edge);
  for (; *s; s++) {
    if ((unsigned char)*s < 128 && !isalnum((unsigned char)*s))
      pf_buf_puts(&b, "\\");
    pf_buf_add(&b, s, 1);
  }
  pf_buf_puts(&b, edge);
  int rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = compile(b.s, b.n, where, out);
  pf_buf_free(&b);
  return rc;
}

static int take_list(const json_t *list, const char *where, int depth, pf_marker_list *out);

static int take_pattern(const json_t *v, const char *where, int depth, pf_marker *out) {
  (void)depth;
  const char *s = json_string_value(v);
  if (!s || !*s)
    return pf_fail(PF_EINPUT, "%s: \"pattern\" wants a text", where);
  return compile(s, strlen(s), where, &out->code);
}

static int take_lines(const json_t *v, const char *where, int depth, pf_marker *out) {
  (void)depth;
  size_t n = json_array_size(v);
  if (n == 0 || n > LINES_MAX)
    return pf_fail(PF_EINPUT, "%s: \"lines\" wants a list of 1 to %d numbers of syllables", where,
                   LINES_MAX);
  for (size_t i = 0; i < n; i++) {
    const json_t *k = json_array_get(v, i);
    if (!json_is_integer(k) || json_integer_value(k) < 1 || json_integer_value(k) > 1000)
      return pf_fail(PF_EINPUT, "%s: \"lines\" wants numbers of syllables", where);
    out->syllables[i] = (int)json_integer_value(k);
  }
  out->n_lines = (int)n;
  return PF_OK;
}

static int take_parts(const json_t *v, const char *where, int depth, pf_marker *out) {
  if (json_array_size(v) == 0)
    return pf_fail(PF_EINPUT, "%s: \"of\" wants a list of markers", where);
  return take_list(v, where, depth + 1, &out->parts);
}

static int take_at_least(const json_t *v, const char *where, int depth, pf_marker *out) {
  (void)depth;
  if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > MARKERS_MAX)
    return pf_fail(PF_EINPUT, "%s: \"at_least\" wants a number from 1", where);
  out->at_least = (size_t)json_integer_value(v);
  return PF_OK;
}

static int take_tolerance(const json_t *v, const char *where, int depth, pf_marker *out) {
  (void)depth;
  if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 100)
    return pf_fail(PF_EINPUT, "%s: \"tolerance\" wants a number of syllables", where);
  out->tolerance = (int)json_integer_value(v);
  return PF_OK;
}

static int take_name(const json_t *v, const char *where, int depth, pf_marker *out) {
  (void)depth;
  out->name = json_string_value(v);
  return json_string_length(v) ? PF_OK : pf_fail(PF_EINPUT, "%s: \"name\" wants a text", where);
}

static const struct {
  const char *key;
  int (*take)(const json_t *v, const char *where, int depth, pf_marker *out);
} members[] = {{"name", take_name},           {"pattern", take_pattern},   {"lines", take_lines},
               {"tolerance", take_tolerance}, {"at_least", take_at_least}, {"of", take_parts}};
enum { N_MEMBERS = sizeof members / sizeof *members };

static int take_object(const json_t *v, const char *where, int depth, pf_marker *out) {
  const char *key;
  json_t *m;
  int rc = PF_OK;
  json_object_foreach((json_t *)v, key, m) {
    size_t i = 0;
    while (i < N_MEMBERS && strcmp(members[i].key, key) != 0)
      i++;
    if (i == N_MEMBERS)
      return pf_fail(PF_EINPUT, "%s: unknown key \"%s\"", where, key);
    if ((rc = members[i].take(m, where, depth, out)) != PF_OK)
      return rc;
  }
  int kinds = (out->code != NULL) + (out->n_lines > 0) + (out->parts.n > 0);
  if (kinds != 1)
    return pf_fail(PF_EINPUT, "%s: want one of \"pattern\", \"lines\" and \"of\"", where);
  if (out->at_least > out->parts.n || (out->tolerance && !out->n_lines))
    return pf_fail(PF_EINPUT, "%s: \"at_least\" goes with \"of\", \"tolerance\" with \"lines\"",
                   where);
  if (!out->name)
    out->name = out->code      ? json_string_value(json_object_get(v, "pattern"))
                : out->n_lines ? "lines"
                               : "of";
  if (out->parts.n && !out->at_least)
    out->at_least = 1;
  return PF_OK;
}

static int take_marker(const json_t *v, const char *where, int depth, pf_marker *out) {
  if (json_string_length(v)) {
    out->name = json_string_value(v);
    return compile_word(out->name, where, &out->code);
  }
  if (!json_is_object(v))
    return pf_fail(PF_EINPUT, "%s is no text and no object", where);
  return depth > DEPTH_MAX ? pf_fail(PF_EINPUT, "%s: lists within lists, too deep", where)
                           : take_object(v, where, depth, out);
}

static void free_list(pf_marker_list *l) {
  for (size_t i = 0; i < l->n; i++) {
    pcre2_code_free(l->v[i].code);
    free_list(&l->v[i].parts);
  }
  pf_free(l->v);
  *l = (pf_marker_list){0};
}

/* On failure *out is empty. */
static int take_list(const json_t *list, const char *where, int depth, pf_marker_list *out) {
  size_t n = json_array_size(list);
  if (!json_is_array(list))
    return pf_fail(PF_EINPUT, "%s: markers must be a list", where);
  if (n > MARKERS_MAX)
    return pf_fail(PF_EINPUT, "%s: %zu markers; at most %d", where, n, MARKERS_MAX);
  out->v = pf_calloc(n, sizeof *out->v);
  out->n = out->v ? n : 0;
  int rc = out->v ? PF_OK : PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    char here[256];
    snprintf(here, sizeof here, "%.200s: marker %zu", where, i);
    rc = take_marker(json_array_get(list, i), here, depth, &out->v[i]);
  }
  if (rc != PF_OK) {
    pf_marker_list bad = *out;
    out->v = NULL;
    out->n = 0;
    free_list(&bad);
  }
  return rc;
}

int pf_markers_check(const json_t *list, const char *where) {
  pf_marker_list l = {0};
  int rc = take_list(list, where, 0, &l);
  free_list(&l);
  return rc;
}

/* ---- files
 * --------------------------------------------------------------------------------------------------------
 */

static int take_lists(const json_t *o, const char *name, const char *what, pf_marker_list **out,
                      size_t *n_out) {
  size_t n = json_object_size(o), i = 0;
  const char *key;
  json_t *list;
  if (o && !json_is_object(o))
    return pf_fail(PF_EINPUT, "%s: \"%ss\" wants {key: [marker, ...]}", name, what);
  if (!(*out = pf_calloc(n, sizeof **out)))
    return PF_ENOMEM;
  *n_out = n;
  json_object_foreach((json_t *)o, key, list) {
    char where[256];
    snprintf(where, sizeof where, "%.150s: %s \"%.64s\"", name, what, key);
    (*out)[i].key = key;
    int rc = take_list(list, where, 0, &(*out)[i]);
    if (rc != PF_OK)
      return rc;
    i++;
  }
  return PF_OK;
}

static const char *const file_keys[] = {"schema", "name", "description", "personas", "tasks"};
enum { N_FILE_KEYS = sizeof file_keys / sizeof *file_keys };

static int check_head(const json_t *root, const char *name) {
  const char *schema = json_string_value(json_object_get(root, "schema")), *key;
  json_t *v;
  if (!schema || strcmp(schema, "personaflow-markers/1") != 0)
    return pf_fail(PF_EINPUT, "%s: schema \"%s\": marker lists have \"personaflow-markers/1\"",
                   name, schema ? schema : "");
  if (!json_string_length(json_object_get(root, "name")))
    return pf_fail(PF_EINPUT, "%s: the key \"name\" is missing", name);
  json_object_foreach((json_t *)root, key, v) {
    size_t i = 0;
    while (i < N_FILE_KEYS && strcmp(file_keys[i], key) != 0)
      i++;
    if (i == N_FILE_KEYS)
      return pf_fail(PF_EINPUT, "%s: unknown key \"%s\"", name, key);
  }
  return PF_OK;
}

static int take_file(pf_markers *m, const char *name) {
  int rc = check_head(m->root, name);
  m->name = json_string_value(json_object_get(m->root, "name"));
  if (rc == PF_OK)
    rc = take_lists(json_object_get(m->root, "personas"), name, "persona", &m->personas,
                    &m->n_personas);
  if (rc == PF_OK)
    rc = take_lists(json_object_get(m->root, "tasks"), name, "task", &m->tasks, &m->n_tasks);
  return rc;
}

int pf_markers_parse(pf_markers *out, const char *name, const char *text, size_t n) {
  *out = (pf_markers){0};
  int rc = pf_js_text(name, text, n, &out->root);
  if (rc == PF_OK)
    rc = take_file(out, name);
  if (rc == PF_OK)
    pf_sha256_hex(text, n, out->sha256);
  else
    pf_markers_free(out);
  return rc;
}

int pf_markers_open(pf_markers *out, const char *what) {
  char path[4096], name[128];
  pf_buf b = {0};
  bool word = *what && !strpbrk(what, "/.");
  int rc = PF_OK;
  *out = (pf_markers){0};
  snprintf(name, sizeof name, "markers/%.100s.json", what);
  if (word)
    rc = pf_data_path(name, path, sizeof path);
  if (rc != PF_OK)
    return pf_fail_prefix(rc, "markers '%s' (shipped: paper, full; or a file's path)", what);
  rc = pf_read_file(word ? path : what, MARKERS_LIMIT, &b);
  if (rc == PF_OK)
    rc = pf_markers_parse(out, word ? path : what, pf_buf_str(&b), b.n);
  pf_buf_free(&b);
  return rc;
}

/* {key: markers} of the items that have some. */
static json_t *lists_of(const json_t *items) {
  json_t *o = json_object();
  for (size_t i = 0; i < json_array_size(items); i++) {
    const json_t *e = json_array_get(items, i);
    json_t *list = json_object_get(e, "markers");
    if (list)
      json_object_set(o, json_string_value(json_object_get(e, "key")), list);
  }
  return o;
}

int pf_markers_of_grid(pf_markers *out, const pf_grid *g) {
  *out = (pf_markers){0};
  out->root = json_pack("{s:s,s:s,s:o,s:o}", "schema", "personaflow-markers/1", "name", g->name,
                        "personas", lists_of(json_object_get(g->root, "personas")), "tasks",
                        lists_of(json_object_get(g->root, "tasks")));
  int rc = out->root ? take_file(out, g->name) : PF_ENOMEM;
  memcpy(out->sha256, g->sha256, sizeof out->sha256);
  if (rc != PF_OK)
    pf_markers_free(out);
  return rc;
}

void pf_markers_free(pf_markers *m) {
  for (size_t i = 0; i < m->n_personas; i++)
    free_list(&m->personas[i]);
  for (size_t i = 0; i < m->n_tasks; i++)
    free_list(&m->tasks[i]);
  pf_free(m->personas);
  pf_free(m->tasks);
  json_decref(m->root);
  *m = (pf_markers){0};
}

/* A list without a marker, which nothing could hit, is none. */
static const pf_marker_list *find(const pf_marker_list *l, size_t n, const char *key) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(l[i].key, key))
      return l[i].n ? &l[i] : NULL;
  return NULL;
}

const pf_marker_list *pf_markers_persona(const pf_markers *m, const char *key) {
  return find(m->personas, m->n_personas, key);
}

const pf_marker_list *pf_markers_task(const pf_markers *m, const char *key) {
  return find(m->tasks, m->n_tasks, key);
}

const char *pf_marker_name(const pf_marker_list *l, size_t i) {
  return l->v[i].name;
}

/* ---- scoring
 * ------------------------------------------------------------------------------------------------------
 */

typedef struct scored {
  const char *text, *persona, *task;
  size_t n;
} scored;

static bool in_text(const char *text, const char *s, size_t n) {
  for (; text && *text; text++) {
    size_t k = 0;
    while (k < n && tolower((unsigned char)text[k]) == tolower((unsigned char)s[k]) && text[k])
      k++;
    if (k == n)
      return true;
  }
  return false;
}

/* Goes through the matches until one is not verbatim. */
static int score_code(const pf_marker *m, const scored *s, pf_hit *hit) {
  pcre2_match_data *d = pcre2_match_data_create_from_pattern(m->code, NULL);
  PCRE2_SIZE from = 0;
  int rc = d ? 1 : PCRE2_ERROR_NOMEMORY;
  *hit = PF_NO_HIT;
  while (rc > 0 && *hit != PF_HIT_OWN && from <= s->n) {
    rc = pcre2_match(m->code, (PCRE2_SPTR)s->text, s->n, from, 0, d, NULL);
    if (rc <= 0)
      break;
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(d);
    size_t n = v[1] > v[0] ? v[1] - v[0] : 0;
    bool copied =
        n > 0 && (in_text(s->persona, s->text + v[0], n) || in_text(s->task, s->text + v[0], n));
    *hit = copied ? PF_HIT_VERBATIM : PF_HIT_OWN;
    from = v[1] > from ? v[1] : from + 1;
  }
  pcre2_match_data_free(d);
  if (rc == PCRE2_ERROR_NOMEMORY)
    return PF_ENOMEM;
  return rc > 0 || rc == PCRE2_ERROR_NOMATCH
             ? PF_OK
             : pf_fail(PF_EINPUT, "the marker '%.60s' gave up on a text (PCRE2 error %d)", m->name,
                       rc);
}

static size_t line_end(const scored *s, size_t at) {
  const char *end = memchr(s->text + at, '\n', s->n - at);
  return end ? (size_t)(end - s->text) : s->n;
}

/* A paragraph is a run of lines that are not blank; one must have just the lines asked for. */
static pf_hit score_lines(const pf_marker *m, const scored *s) {
  int line = 0;
  bool fits = true;
  for (size_t at = 0, end; at <= s->n; at = end + 1) {
    end = at < s->n ? line_end(s, at) : at;
    size_t k = pf_syllables(s->text + at, end - at);
    if (k > 0) {
      int want = line < m->n_lines ? m->syllables[line] : -1000;
      fits = fits && (int)k >= want - m->tolerance && (int)k <= want + m->tolerance;
      line++;
    }
    if (k == 0 || end >= s->n) {
      if (fits && line == m->n_lines)
        return PF_HIT_OWN;
      line = 0;
      fits = true;
    }
  }
  return PF_NO_HIT;
}

static int score_marker(const pf_marker *m, const scored *s, pf_hit *hit);

static int score_parts(const pf_marker *m, const scored *s, pf_hit *hit) {
  size_t any = 0, own = 0;
  for (size_t i = 0; i < m->parts.n; i++) {
    pf_hit h;
    int rc = score_marker(&m->parts.v[i], s, &h);
    if (rc != PF_OK)
      return rc;
    any += h != PF_NO_HIT;
    own += h == PF_HIT_OWN;
  }
  *hit = own >= m->at_least ? PF_HIT_OWN : any >= m->at_least ? PF_HIT_VERBATIM : PF_NO_HIT;
  return PF_OK;
}

static int score_marker(const pf_marker *m, const scored *s, pf_hit *hit) {
  if (m->parts.n)
    return score_parts(m, s, hit);
  if (m->code)
    return score_code(m, s, hit);
  *hit = score_lines(m, s);
  return PF_OK;
}

int pf_markers_score(const pf_marker_list *l, const char *text, const char *persona,
                     const char *task, pf_marker_score *out, pf_hit *hits) {
  scored s = {text, persona, task, strlen(text)};
  *out = (pf_marker_score){0};
  for (size_t i = 0; i < l->n; i++) {
    pf_hit h;
    int rc = score_marker(&l->v[i], &s, &h);
    if (rc != PF_OK)
      return rc;
    out->distinct += h != PF_NO_HIT;
    out->own += h == PF_HIT_OWN;
    if (hits)
      hits[i] = h;
  }
  return PF_OK;
}

double pf_own_minus_others(const double *score, size_t n, size_t own) {
  double sum = 0, k = 0;
  for (size_t i = 0; i < n; i++)
    if (i != own && !isnan(score[i])) {
      sum += score[i];
      k++;
    }
  return k > 0 ? score[own] - sum / k : NAN;
}

/* ---- syllables
 * ----------------------------------------------------------------------------------------------------
 */

static bool is_letter(const char *w, size_t n, size_t i, const char *of) {
  return i < n && w[i] && strchr(of, tolower((unsigned char)w[i])) != NULL;
}

/* y is a consonant at the front and between vowels. */
static bool is_vowel(const char *w, size_t n, size_t i) {
  if (is_letter(w, n, i, "aeiou"))
    return true;
  return is_letter(w, n, i, "y") && i > 0 &&
         !(is_letter(w, n, i - 1, "aeiou") && is_letter(w, n, i + 1, "aeiou"));
}

static bool ends_with(const char *w, size_t n, const char *tail) {
  size_t k = strlen(tail);
  if (k > n)
    return false;
  for (size_t i = 0; i < k; i++)
    if (tolower((unsigned char)w[n - k + i]) != tail[i])
      return false;
  return true;
}

/* An e at the end that is not spoken: "like", "likes", "liked"; but "apple", "wanted", "dances". */
static bool silent_end(const char *w, size_t n) {
  static const char *const spoken[] = {"ted", "ded", "ses",  "ces", "ges",
                                       "zes", "xes", "shes", "ches"};
  for (size_t i = 0; i < sizeof spoken / sizeof *spoken; i++)
    if (ends_with(w, n, spoken[i]))
      return false;
  size_t tail = ends_with(w, n, "e") ? 1 : ends_with(w, n, "es") || ends_with(w, n, "ed") ? 2 : 0;
  size_t e = n - tail; /* where the e stands */
  if (tail == 0 || e < 1 || is_vowel(w, n, e - 1))
    return false;
  return !(is_letter(w, n, e - 1, "l") && e >= 2 && !is_vowel(w, n, e - 2));
}

static size_t word_syllables(const char *w, size_t n) {
  size_t k = 0, letters = 0;
  for (size_t i = 0; i < n; i++) {
    bool ing =
        is_letter(w, n, i, "i") && is_letter(w, n, i + 1, "n") && is_letter(w, n, i + 2, "g");
    k += is_vowel(w, n, i) && (i == 0 || ing || !is_vowel(w, n, i - 1));
    letters += isalpha((unsigned char)w[i]) != 0;
  }
  k -= k > 1 && silent_end(w, n);
  return k > 0 || letters == 0 ? k : 1;
}

/* An apostrophe and bytes of other alphabets belong to the word around them. */
static bool in_word(const char *s, size_t i) {
  unsigned char c = (unsigned char)s[i];
  return isalpha(c) || c == '\'' || c >= 128;
}

size_t pf_syllables(const char *s, size_t n) {
  size_t k = 0;
  for (size_t i = 0; i < n;) {
    size_t lo = i;
    while (i < n && in_word(s, i))
      i++;
    k += i > lo ? word_syllables(s + lo, i - lo) : (size_t)(isdigit((unsigned char)s[i]) != 0);
    i += i == lo;
  }
  return k;
}
