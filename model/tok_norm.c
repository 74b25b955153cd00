/* SPDX-License-Identifier: Apache-2.0
 * Normalisers, with a map from every normalised byte back to the given bytes. Unicode normalisation
 * is utf8proc's. */
#include "config.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/tok.h"
#include "model/tok_utf8.h"

static int reserve(pf_ntext *x, size_t n) {
  void *s = x->s, *lo = x->lo, *hi = x->hi;
  int rc = pf_grow(&s, &x->s_cap, n, 1);
  x->s = s;
  if (rc == PF_OK)
    rc = pf_grow(&lo, &x->lo_cap, n, sizeof *x->lo);
  x->lo = lo;
  if (rc == PF_OK)
    rc = pf_grow(&hi, &x->hi_cap, n, sizeof *x->hi);
  x->hi = hi;
  return rc;
}

/* Appends n bytes that all stand for [lo, hi). */
static int put(pf_ntext *x, const char *s, size_t n, uint32_t lo, uint32_t hi) {
  int rc = reserve(x, x->n + n);
  if (rc != PF_OK)
    return rc;
  for (size_t i = 0; i < n; i++, x->n++) {
    x->s[x->n] = s[i];
    x->lo[x->n] = lo;
    x->hi[x->n] = hi;
  }
  return PF_OK;
}

/* Appends from[lo, hi) unchanged. */
static int keep(pf_ntext *x, const pf_ntext *from, size_t lo, size_t hi) {
  int rc = reserve(x, x->n + (hi - lo));
  if (rc != PF_OK || hi == lo)
    return rc;
  memcpy(x->s + x->n, from->s + lo, hi - lo);
  memcpy(x->lo + x->n, from->lo + lo, (hi - lo) * sizeof *x->lo);
  memcpy(x->hi + x->n, from->hi + lo, (hi - lo) * sizeof *x->hi);
  x->n += hi - lo;
  return PF_OK;
}

static int replace(const pf_norm *step, const pf_ntext *in, pf_ntext *out) {
  size_t n = strlen(step->from), done = 0;
  int rc = PF_OK;
  while (rc == PF_OK) {
    const char *at = in->n > done ? memmem(in->s + done, in->n - done, step->from, n) : NULL;
    size_t i = at ? (size_t)(at - in->s) : in->n;
    rc = keep(out, in, done, i);
    if (rc != PF_OK || !at)
      break;
    rc = put(out, step->to, strlen(step->to), in->lo[i], in->hi[i + n - 1]);
    done = i + n;
  }
  return rc;
}

static int prepend(const pf_norm *step, const pf_ntext *in, pf_ntext *out) {
  int rc = in->n ? put(out, step->to, strlen(step->to), in->lo[0], in->lo[0]) : PF_OK;
  return rc == PF_OK ? keep(out, in, 0, in->n) : rc;
}

/* The end of the cluster that begins at i. No character composes across a grapheme boundary, and
 * none below U+0300 composes with what stands before it, so clusters can be normalised one by one.
 * U+11A7 composes with nothing, but utf8proc 2.8 takes it for a Hangul final and drops it: it
 * stands alone. */
static size_t cluster_end(const pf_ntext *in, size_t i) {
  uint32_t a = 0, b = 0;
  utf8proc_int32_t state = 0;
  i += (size_t)pf_utf8_step(in->s + i, in->n - i, &a);
  while (i < in->n) {
    int n = pf_utf8_step(in->s + i, in->n - i, &b);
    if (b < 0x300 || b == 0x11a7 ||
        utf8proc_grapheme_break_stateful((utf8proc_int32_t)a, (utf8proc_int32_t)b, &state))
      break;
    i += (size_t)n;
    a = b;
  }
  return i;
}

struct nfc {
  utf8proc_int32_t *cp;
  size_t cap;
  pf_buf utf8;
};

/* The composed form of s[0, n) into w->utf8. */
static int compose(struct nfc *w, const char *s, size_t n) {
  const utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)s;
  void *p = w->cp;
  int rc = pf_grow(&p, &w->cap, 4 * n + 4,
                   sizeof *w->cp); /* no character decomposes into more than 4 times its bytes */
  w->cp = p;
  if (rc != PF_OK)
    return rc;
  utf8proc_ssize_t k =
      utf8proc_decompose(in, (utf8proc_ssize_t)n, w->cp, (utf8proc_ssize_t)w->cap, how);
  if (k >= 0 && (size_t)k <= w->cap)
    k = utf8proc_normalize_utf32(w->cp, k, how);
  if (k < 0 || (size_t)k > w->cap)
    return pf_fail(PF_EINTERNAL, "normalisation: %s", utf8proc_errmsg(k));
  w->utf8.n = 0;
  for (utf8proc_ssize_t i = 0; i < k; i++) {
    char c[4];
    pf_buf_add(&w->utf8, c, pf_utf8_put(c, (uint32_t)w->cp[i]));
  }
  return pf_buf_status(&w->utf8);
}

static int nfc_cluster(struct nfc *w, const pf_ntext *in, size_t lo, size_t hi, pf_ntext *out) {
  int rc = compose(w, in->s + lo, hi - lo);
  if (rc != PF_OK)
    return rc;
  if (w->utf8.n == hi - lo && !memcmp(w->utf8.s, in->s + lo, hi - lo))
    return keep(out, in, lo, hi);
  return put(out, w->utf8.s, w->utf8.n, in->lo[lo], in->hi[hi - 1]);
}

static int nfc(const pf_norm *step, const pf_ntext *in, pf_ntext *out) {
  struct nfc w = {0};
  int rc = PF_OK;
  (void)step;
  for (size_t i = 0, plain = 0; rc == PF_OK && i < in->n;) {
    for (plain = i; i < in->n && (unsigned char)in->s[i] < 0x80; i++)
      ;
    if (i > plain && i < in->n) /* the last ASCII character may begin a cluster */
      i--;
    rc = keep(out, in, plain, i);
    if (rc != PF_OK || i == in->n)
      break;
    size_t end = cluster_end(in, i);
    rc = nfc_cluster(&w, in, i, end, out);
    i = end;
  }
  pf_free(w.cp);
  pf_buf_free(&w.utf8);
  return rc;
}

static int (*const steps[])(const pf_norm *, const pf_ntext *, pf_ntext *) = {
    [PF_NORM_NFC] = nfc, [PF_NORM_REPLACE] = replace, [PF_NORM_PREPEND] = prepend};

static int identity(pf_ntext *x, const char *s, size_t lo, size_t hi) {
  int rc = reserve(x, hi - lo);
  if (rc != PF_OK)
    return rc;
  x->n = hi - lo;
  memcpy(x->s, s + lo, hi - lo);
  for (size_t i = 0; i < hi - lo; i++) {
    x->lo[i] = (uint32_t)(lo + i);
    x->hi[i] = (uint32_t)(lo + i + 1);
  }
  return PF_OK;
}

int pf_normalise(pf_job *j, size_t lo, size_t hi) {
  int rc = identity(&j->a, j->text, lo, hi);
  for (size_t i = 0; rc == PF_OK && i < j->t->n_norms; i++) {
    const pf_norm *step = &j->t->norms[i];
    j->b.n = 0;
    rc = steps[step->kind](step, &j->a, &j->b);
    pf_ntext t = j->a;
    j->a = j->b;
    j->b = t;
  }
  if (rc == PF_OK && j->a.n >= UINT32_MAX)
    rc = pf_fail(PF_EINPUT, "tokenizer: the text is too long");
  return rc;
}
