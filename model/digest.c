/* SPDX-License-Identifier: Apache-2.0
 * The checksum of loaded weights and its cache. */
#include "model/digest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/sha256.h"

#define CACHE_LIMIT ((size_t)64 << 20)

/* "name dtype shape " */
static void head(pf_buf *b, const pf_want *t) {
  pf_buf_printf(b, t->cols ? "%s %s %zu,%zu " : "%s %s %zu ", t->name, t->src->dtype_name, t->rows,
                t->cols);
}

static void folder(pf_buf *b) {
  const char *x = getenv("XDG_CACHE_HOME"), *h = getenv("HOME");
  if (x && *x)
    pf_buf_puts(b, x);
  else if (h && *h)
    pf_buf_printf(b, "%s/.cache", h);
}

/* The cache file's name; empty when there is no place for one. */
static void cache_path(pf_buf *b, const pf_ckpt *k) {
  char key[65];
  pf_sha256 *s = pf_sha256_new();
  if (!s)
    return;
  for (size_t i = 0; i < k->n; i++)
    pf_sha256_add(s, k->f[i].id, sizeof k->f[i].id);
  pf_sha256_end(s, key);
  folder(b);
  if (b->n)
    pf_buf_printf(b, "/personaflow/weights-%s.txt", key);
}

/* The text must be exactly one line for every wanted tensor; only the digests are taken from it. */
static bool take_text(const char *text, pf_wants *w) {
  const char *p = text;
  for (size_t i = 0; i < w->n; i++) {
    pf_buf h = {0};
    head(&h, &w->v[i]);
    bool ok = pf_buf_status(&h) == PF_OK && !strncmp(p, h.s, h.n) &&
              strspn(p + h.n, "0123456789abcdef") == 64 && p[h.n + 64] == '\n';
    if (ok)
      memcpy(w->v[i].sha256, p + h.n, 64);
    p += h.n + 65;
    pf_buf_free(&h);
    if (!ok)
      return false;
  }
  return *p == '\0';
}

bool pf_digest_cached(char hex[65], pf_wants *w, const pf_ckpt *k) {
  pf_buf path = {0}, text = {0};
  cache_path(&path, k);
  bool ok = path.n && pf_buf_status(&path) == PF_OK &&
            pf_read_file(path.s, CACHE_LIMIT, &text) == PF_OK && strlen(text.s) == text.n &&
            take_text(text.s, w);
  if (ok)
    pf_sha256_hex(text.s, text.n, hex);
  pf_buf_free(&path);
  pf_buf_free(&text);
  return ok;
}

/* Failures leave no trace: without the cache the digest is made again the next time. */
static void remember(const pf_buf *text, const pf_ckpt *k) {
  pf_buf path = {0};
  cache_path(&path, k);
  if (path.n && pf_buf_status(&path) == PF_OK) {
    char *slash = strrchr(path.s, '/'), *up;
    *slash = '\0';
    up = strrchr(path.s, '/');
    *up = '\0';
    (void)mkdir(path.s, 0700);
    *up = '/';
    (void)mkdir(path.s, 0700);
    *slash = '/';
    (void)pf_write_file(path.s, text->s, text->n);
  }
  pf_buf_free(&path);
}

int pf_digest_make(char hex[65], const pf_wants *w, const pf_ckpt *k) {
  pf_buf text = {0};
  for (size_t i = 0; i < w->n; i++) {
    head(&text, &w->v[i]);
    pf_buf_printf(&text, "%s\n", w->v[i].sha256);
  }
  int rc = pf_buf_status(&text);
  if (rc == PF_OK) {
    pf_sha256_hex(text.s, text.n, hex);
    remember(&text, k);
  }
  pf_buf_free(&text);
  return rc;
}
