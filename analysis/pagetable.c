/* SPDX-License-Identifier: Apache-2.0
 * Tables of a page as CSV: the page is the one place where they are made, so this knows the few
 * elements that our pages have. */
#include "analysis/pagetable.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

/* ---- text of elements ------------------------------------------------------------------------ */

static const struct {
  const char *entity, *text;
} entities[] = {{"&amp;", "&"},    {"&lt;", "<"},     {"&gt;", ">"},     {"&quot;", "\""},
                {"&#39;", "'"},    {"&ndash;", "-"},  {"&rsquo;", "'"},  {"&minus;", "-"},
                {"&middot;", ","}, {"&ldquo;", "\""}, {"&rdquo;", "\""}, {"&ge;", ">="},
                {"&times;", "x"},  {"&#8239;", " "}};

bool pf_page_opens(const char *s, const char *tag) {
  size_t n = strlen(tag);
  return !strncmp(s, tag, n) && (s[n] == '>' || s[n] == ' ');
}

/* One entity or byte; where the next one begins. */
static const char *plain_one(const char *s, pf_buf *out) {
  for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
    size_t n = strlen(entities[i].entity);
    if (!strncmp(s, entities[i].entity, n)) {
      pf_buf_puts(out, entities[i].text);
      return s + n;
    }
  }
  pf_buf_add(out, s, 1);
  return s + 1;
}

/* The value of <data value="...">; where the element ends, NULL: it is none of ours. */
static const char *plain_data(const char *s, const char *end, pf_buf *out) {
  static const char open[] = "<data value=\"", close[] = "</data>";
  const char *to = strncmp(s, open, strlen(open)) ? NULL : strstr(s, close);
  if (!to || to >= end)
    return NULL;
  for (s += strlen(open); *s != '"' && s < to;)
    s = plain_one(s, out);
  return to + strlen(close);
}

void pf_page_plain(const char *s, const char *end, pf_buf *out) {
  while (s < end) {
    const char *next = plain_data(s, end, out);
    if (next) {
      s = next;
    } else if (*s == '<') {
      if (!strncmp(s, "<br", 3))
        pf_buf_puts(out, " ");
      s = memchr(s, '>', (size_t)(end - s));
      s = s ? s + 1 : end;
    } else {
      s = plain_one(s, out);
    }
  }
}

/* ---- cells ----------------------------------------------------------------------------------- */

typedef struct table {
  size_t n_rows, n_cols;
  char **cell; /* (n_rows, n_cols), NULL: none */
} table;

/* The end of a cell: our pages close every one. */
static const char *cell_end(const char *s) {
  const char *td = strstr(s, "</td>"), *th = strstr(s, "</th>");
  return !td ? th : !th ? td : td < th ? td : th;
}

static size_t span_of(const char *cell, const char *text) {
  const char *at = strstr(cell, "colspan=\"");
  long n = at && at < text ? strtol(at + strlen("colspan=\""), NULL, 10) : 1;
  return n > 1 && n < 1000 ? (size_t)n : 1;
}

/* A dash stands for nothing on a page. */
static int keep(char **cell, const char *s, const char *end) {
  pf_buf b = {0};
  pf_page_plain(s, end, &b);
  if (!strcmp(pf_buf_str(&b), "-"))
    pf_buf_free(&b);
  return b.n ? pf_buf_take(&b, cell) : pf_buf_status(&b);
}

/* Counts rows and columns, or, with t->cell, fills the cells. */
static int walk(table *t, const char *s, const char *end) {
  size_t rows = 0, col = 0;
  int rc = PF_OK;
  for (; s < end && rc == PF_OK; s++) {
    if (pf_page_opens(s, "<tr")) {
      rows++;
      col = 0;
    } else if (rows && (pf_page_opens(s, "<td") || pf_page_opens(s, "<th"))) {
      const char *text = strchr(s, '>') + 1, *stop = cell_end(text);
      if (!stop || stop > end)
        break;
      if (t->cell)
        rc = keep(&t->cell[(rows - 1) * t->n_cols + col], text, stop);
      col += span_of(s, text);
      t->n_cols = !t->cell && col > t->n_cols ? col : t->n_cols;
      s = stop;
    }
  }
  t->n_rows = rows;
  return rc;
}

static const char *cell_at(const table *t, size_t row, size_t col) {
  const char *s = t->cell[row * t->n_cols + col];
  return s ? s : "";
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* The parts of "a [b, c] k/n p = x" and of "-l +w p = x", each of which may be missing; n = 0: it
 * is.
 */
enum { MID, LO, HI, COUNT, OF, LOST, WON, P, N_PARTS };
typedef struct part {
  const char *s;
  size_t n;
} part;

/* A number, or `s` where there is none. */
static const char *number(const char *s, part *p) {
  const char *digit = s + (*s == '-' || *s == '+');
  char *end = (char *)s;
  if (isdigit((unsigned char)digit[0]) || (digit[0] == '.' && isdigit((unsigned char)digit[1])))
    strtod(s, &end);
  *p = (part){s, (size_t)(end - s)};
  return end;
}

/* "b, c]"; NULL: it is not. */
static const char *interval(const char *s, part p[N_PARTS]) {
  s = number(s, &p[LO]);
  s += *s == ',';
  s = number(s + strspn(s, " "), &p[HI]);
  return p[LO].n && p[HI].n && *s == ']' ? s + 1 : NULL;
}

/* A number of its own, of "k/n", or the second of "-l +w"; NULL: it is none, or one too many. */
static const char *value(const char *s, part p[N_PARTS]) {
  part x;
  const char *end = number(s, &x);
  if (!x.n)
    return NULL;
  if (*end == '/' && !p[COUNT].n) {
    p[COUNT] = x;
    end = number(end + 1, &p[OF]);
    return p[OF].n ? end : NULL;
  }
  if (*s == '+' && p[MID].n && !p[WON].n && p[MID].s[0] == '-') {
    p[LOST] = (part){p[MID].s + 1, p[MID].n - 1};
    p[WON] = (part){x.s + 1, x.n - 1};
    p[MID].n = 0;
    return end;
  }
  if (p[MID].n)
    return NULL;
  p[MID] = x;
  return end;
}

/* True for a cell of numbers, and an empty one; a dash stands for none. */
static bool split(const char *s, part p[N_PARTS]) {
  memset(p, 0, N_PARTS * sizeof *p);
  while (s && *(s += strspn(s, " "))) {
    if (*s == '[' && !p[LO].n)
      s = interval(s + 1, p);
    else if (!strncmp(s, "p = ", 4) && !p[P].n)
      s = number(s + 4, &p[P]);
    else if (s[0] == '-' && s[1] == ' ')
      s++;
    else
      s = value(s, p);
  }
  return s != NULL;
}

/* Which parts the cells of a column have; none: it is text. */
static void parts_of(const table *t, size_t col, bool has[N_PARTS]) {
  part p[N_PARTS];
  memset(has, 0, N_PARTS * sizeof *has);
  for (size_t row = 1; row < t->n_rows; row++) {
    if (!split(cell_at(t, row, col), p)) {
      memset(has, 0, N_PARTS * sizeof *has);
      return;
    }
    for (int i = 0; i < N_PARTS; i++)
      has[i] |= p[i].n > 0;
  }
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static void put(pf_buf *out, bool first, const char *s, size_t n) {
  bool quoted = false;
  for (size_t i = 0; i < n; i++)
    quoted |= s[i] == ',' || s[i] == '"' || s[i] == '\n';
  pf_buf_puts(out, first ? "" : ",");
  pf_buf_puts(out, quoted ? "\"" : "");
  for (size_t i = 0; i < n; i++) {
    pf_buf_puts(out, s[i] == '"' ? "\"" : "");
    pf_buf_add(out, s + i, 1);
  }
  pf_buf_puts(out, quoted ? "\"" : "");
}

/* A cell's columns; of the header their names. */
static void put_cell(const table *t, size_t row, size_t col, pf_buf *out) {
  static const char *const names[N_PARTS] = {"", " lo", " hi", " k", " n", " lost", " won", " p"};
  bool has[N_PARTS], first = col == 0, any = false;
  const char *s = cell_at(t, row, col);
  part p[N_PARTS];
  parts_of(t, col, has);
  split(s, p);
  for (int i = 0; i < N_PARTS; i++)
    any |= has[i];
  if (!any)
    put(out, first, row || *s ? s : "item", strlen(row || *s ? s : "item"));
  for (int i = 0; i < N_PARTS; i++) {
    pf_buf name = {0};
    if (!has[i])
      continue;
    pf_buf_printf(&name, "%s%s", *s ? s : "item", names[i]);
    put(out, first, row ? p[i].s : pf_buf_str(&name), row ? p[i].n : name.n);
    out->failed |= name.failed;
    pf_buf_free(&name);
    first = false;
  }
}

int pf_page_csv(const char *s, const char *end, pf_buf *out) {
  table t = {0};
  walk(&t, s, end);
  t.cell = pf_calloc(t.n_rows * t.n_cols + 1, sizeof *t.cell);
  int rc = t.cell ? walk(&t, s, end) : PF_ENOMEM;
  for (size_t row = 0; row < t.n_rows && rc == PF_OK; row++) {
    for (size_t col = 0; col < t.n_cols; col++)
      put_cell(&t, row, col, out);
    pf_buf_puts(out, "\n");
  }
  for (size_t i = 0; t.cell && i < t.n_rows * t.n_cols; i++)
    pf_free(t.cell[i]);
  pf_free(t.cell);
  return rc == PF_OK ? pf_buf_status(out) : rc;
}
