/* SPDX-License-Identifier: Apache-2.0
 * A growing text buffer, and the public list of token ids. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

/* Nothing is left of it, so that who reads n bytes of pf_buf_str reads none. */
static void fail(pf_buf *b) {
  b->failed = true;
  b->n = 0;
}

void pf_buf_add(pf_buf *b, const void *p, size_t n) {
  void *s = b->s;
  if (b->failed || n >= (size_t)-1 - b->n || pf_grow(&s, &b->cap, b->n + n + 1, 1) != PF_OK) {
    fail(b);
    return;
  }
  b->s = s;
  if (n)
    memcpy(b->s + b->n, p, n);
  b->n += n;
  b->s[b->n] = '\0';
}

void pf_buf_puts(pf_buf *b, const char *s) {
  pf_buf_add(b, s, strlen(s));
}

void pf_buf_printf(pf_buf *b, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  char *tmp = n < 0 ? NULL : pf_alloc((size_t)n + 1, 1);
  if (tmp) {
    vsnprintf(tmp, (size_t)n + 1, fmt, again);
    pf_buf_add(b, tmp, (size_t)n);
    pf_free(tmp);
  } else {
    fail(b);
  }
  va_end(again);
}

const char *pf_buf_str(const pf_buf *b) {
  return b->failed || !b->s ? "" : b->s;
}

int pf_buf_status(const pf_buf *b) {
  return b->failed ? PF_ENOMEM : PF_OK;
}

int pf_buf_take(pf_buf *b, char **out) {
  pf_buf_add(b, "", 0); /* a text that is empty has an end too */
  *out = b->failed ? NULL : b->s;
  if (b->failed)
    pf_buf_free(b);
  int rc = *out ? PF_OK : PF_ENOMEM;
  *b = (pf_buf){0};
  return rc;
}

void pf_buf_free(pf_buf *b) {
  pf_free(b->s);
  *b = (pf_buf){0};
}

void pf_ids_free(pf_ids *ids) {
  if (!ids)
    return;
  pf_free(ids->v);
  *ids = (pf_ids){0};
}

int pf_ids_push(pf_ids *ids, int32_t id) {
  void *v = ids->v;
  int st = pf_grow(&v, &ids->cap, ids->n + 1, sizeof id);
  ids->v = v;
  if (st == PF_OK)
    ids->v[ids->n++] = id;
  return st;
}
