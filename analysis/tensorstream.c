/* SPDX-License-Identifier: Apache-2.0
 * Tensors written and read piece by piece. */
#include "analysis/tensorstream.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- writing --------------------------------------------------------------------------------- */

struct pf_tout {
  char *path, *tmp;
  int fd;
  uint64_t *at; /* (n + 1) where each tensor begins in the file */
};

static int cannot_write(const pf_tout *w) {
  return pf_fail(errno == ENOSPC || errno == EDQUOT ? PF_EINCOMPLETE : PF_EIO,
                 "%s: cannot write: %s", w->path, strerror(errno));
}

static int begin(pf_tout *w, const pf_tensor *t, size_t n, const char *const *metadata) {
  pf_buf h = {0};
  int rc = pf_st_header(t, n, metadata, &h);
  if (rc == PF_OK && ((w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0 ||
                      pf_st_put_header(w->fd, &h) != 0))
    rc = cannot_write(w);
  w->at[0] = 8 + h.n;
  for (size_t i = 0; i < n; i++)
    w->at[i + 1] = w->at[i] + pf_tensor_count(&t[i]) * sizeof(float);
  if (rc == PF_OK && ftruncate(w->fd, (off_t)w->at[n]) != 0)
    rc = cannot_write(w);
  pf_buf_free(&h);
  return rc;
}

int pf_tout_open(pf_tout **out, const char *path, const pf_tensor *t, size_t n,
                 const char *const *metadata) {
  *out = NULL;
  pf_tout *w = pf_calloc(1, sizeof *w);
  if (!w)
    return PF_ENOMEM;
  pf_buf tmp = {0};
  pf_buf_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
  w->fd = -1;
  w->path = pf_strdup(path);
  w->tmp = pf_strdup(pf_buf_str(&tmp));
  w->at = pf_calloc(n + 1, sizeof *w->at);
  int rc = w->path && w->tmp && w->at ? pf_buf_status(&tmp) : PF_ENOMEM;
  pf_buf_free(&tmp);
  if (rc == PF_OK)
    rc = begin(w, t, n, metadata);
  if (rc == PF_OK)
    *out = w;
  else
    pf_tout_abandon(w);
  return rc;
}

int pf_tout_put(pf_tout *w, size_t i, size_t first, const float *v, size_t n) {
  const char *p = (const char *)v;
  off_t at = (off_t)(w->at[i] + first * sizeof *v);
  for (size_t left = n * sizeof *v; left > 0;) {
    ssize_t done = pwrite(w->fd, p, left, at);
    if (done < 0 && errno == EINTR)
      continue;
    if (done < 0)
      return cannot_write(w);
    p += done;
    at += done;
    left -= (size_t)done;
  }
  return PF_OK;
}

static void tout_free(pf_tout *w) {
  if (w->fd >= 0)
    close(w->fd);
  pf_free(w->path);
  pf_free(w->tmp);
  pf_free(w->at);
  pf_free(w);
}

int pf_tout_commit(pf_tout *w) {
  int rc = PF_OK;
  if (fsync(w->fd) != 0 || rename(w->tmp, w->path) != 0) {
    rc = cannot_write(w);
    unlink(w->tmp);
  } else {
    rc = pf_sync_parent(w->path);
  }
  tout_free(w);
  return rc;
}

void pf_tout_abandon(pf_tout *w) {
  if (!w)
    return;
  if (w->tmp)
    unlink(w->tmp);
  tout_free(w);
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct entry {
  pf_tensor t;
  const pf_file_dtype *dtype;
  uint64_t at;
  char *path; /* of its .npy file, NULL: in the file that is open */
} entry;

struct pf_tin {
  char *path;
  int fd; /* of the safetensors file, or of the .npy file read last */
  size_t open_npy;
  entry *v;
  size_t n, cap;
};

static int add(pf_tin *r, const char *name, entry **e) {
  if (pf_grow((void **)&r->v, &r->cap, r->n + 1, sizeof *r->v) != PF_OK)
    return PF_ENOMEM;
  *e = &r->v[r->n++];
  **e = (entry){.t.name = pf_strdup(name)};
  return (*e)->t.name ? PF_OK : PF_ENOMEM;
}

static int pread_all(const char *path, int fd, void *to, size_t n, uint64_t at) {
  for (char *p = to; n > 0;) {
    ssize_t got = pread(fd, p, n, (off_t)at);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return pf_fail(PF_EIO, "%s: cannot read: %s", path,
                     got ? strerror(errno) : "the file is too short");
    p += got;
    at += (uint64_t)got;
    n -= (size_t)got;
  }
  return PF_OK;
}

/* Opens a regular file and tells its size. */
static int open_file(const char *path, int *fd, uint64_t *size) {
  struct stat st;
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0)
    return pf_fail(PF_EINPUT, "%s: cannot open: %s", path, strerror(errno));
  if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode))
    return pf_fail(PF_EINPUT, "%s: not a regular file", path);
  *size = (uint64_t)st.st_size;
  return PF_OK;
}

/* The shape must take the bytes that are there. */
static int check_bytes(const char *where, const entry *e, uint64_t bytes) {
  size_t want;
  if (!pf_mul3(pf_tensor_count(&e->t), e->dtype->size, 1, &want) || want != bytes ||
      (bytes == 0) != (pf_tensor_count(&e->t) == 0))
    return pf_fail(PF_EINPUT, "%s: tensor %s: the shape does not agree with its %llu bytes of data",
                   where, e->t.name, (unsigned long long)bytes);
  return PF_OK;
}

static int take_entries(pf_tin *r, const json_t *head, uint64_t data, uint64_t size) {
  const char *key;
  json_t *v;
  int rc = json_is_object(head)
               ? PF_OK
               : pf_fail(PF_EINPUT, "%s: not a safetensors file: the header is no object", r->path);
  json_object_foreach((json_t *)head, key, v) {
    entry *e;
    size_t first = 0, bytes = 0;
    if (rc != PF_OK || !strcmp(key, "__metadata__"))
      continue;
    rc = add(r, key, &e);
    if (rc == PF_OK)
      rc = pf_st_entry(r->path, v, (size_t)(size - data), &e->t, &e->dtype, &first, &bytes);
    if (rc == PF_OK)
      rc = check_bytes(r->path, e, bytes);
    if (rc == PF_OK)
      e->at = data + first;
  }
  return rc;
}

enum { HEADER_LIMIT = 100 << 20, NPY_HEAD = 65536 };

static int open_safetensors(pf_tin *r) {
  unsigned char b[8];
  uint64_t size, len = 0;
  json_t *head = NULL;
  int rc = open_file(r->path, &r->fd, &size);
  if (rc == PF_OK && size < 8)
    rc = pf_fail(PF_EINPUT, "%s: not a safetensors file: it has %llu bytes", r->path,
                 (unsigned long long)size);
  if (rc == PF_OK)
    rc = pread_all(r->path, r->fd, b, 8, 0);
  if (rc != PF_OK)
    return rc;
  for (int i = 8; i-- > 0;)
    len = len << 8 | b[i];
  if (len > size - 8 || len > HEADER_LIMIT)
    return pf_fail(PF_EINPUT, "%s: not a safetensors file: the header goes beyond its end",
                   r->path);
  char *text = pf_alloc((size_t)len + 1, 1);
  rc = text ? pread_all(r->path, r->fd, text, (size_t)len, 8) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_js_text(r->path, text, (size_t)len, &head);
  if (rc == PF_OK)
    rc = take_entries(r, head, 8 + len, size);
  json_decref(head);
  pf_free(text);
  return rc;
}

static int add_npy(pf_tin *r, const char *file) {
  pf_buf path = {0};
  unsigned char *b = pf_alloc(NPY_HEAD, 1);
  uint64_t size = 0;
  size_t data = 0;
  int fd = -1;
  entry *e;
  char name[256];
  snprintf(name, sizeof name, "%.*s", (int)(strlen(file) - 4), file);
  pf_buf_printf(&path, "%s/%s", r->path, file);
  int rc = b ? pf_buf_status(&path) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = open_file(path.s, &fd, &size);
  size_t n = size < NPY_HEAD ? (size_t)size : NPY_HEAD;
  if (rc == PF_OK)
    rc = pread_all(path.s, fd, b, n, 0);
  if (rc == PF_OK)
    rc = add(r, name, &e);
  if (rc == PF_OK)
    rc = pf_npy_head(path.s, b, n, &e->t, &e->dtype, &data);
  if (rc == PF_OK)
    rc = check_bytes(path.s, e, size - data);
  if (rc == PF_OK) {
    e->at = data;
    rc = (e->path = pf_strdup(path.s)) ? PF_OK : PF_ENOMEM;
  }
  if (fd >= 0)
    close(fd);
  pf_free(b);
  pf_buf_free(&path);
  return rc;
}

static int open_folder(pf_tin *r, DIR *d) {
  int rc = PF_OK;
  for (struct dirent *e; rc == PF_OK && (e = readdir(d));) {
    size_t n = strlen(e->d_name);
    if (n > 4 && !strcmp(e->d_name + n - 4, ".npy"))
      rc = add_npy(r, e->d_name);
  }
  if (rc == PF_OK && r->n == 0)
    rc = pf_fail(PF_EINPUT, "%s: neither a snapshot nor a folder of .npy files", r->path);
  return rc;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const entry *)a)->t.name, ((const entry *)b)->t.name);
}

int pf_tin_open(pf_tin **out, const char *path) {
  *out = NULL;
  pf_tin *r = pf_calloc(1, sizeof *r);
  if (!r)
    return PF_ENOMEM;
  r->fd = -1;
  r->open_npy = SIZE_MAX;
  r->path = pf_strdup(path);
  DIR *d = r->path ? opendir(path) : NULL;
  int rc = !r->path ? PF_ENOMEM : d ? open_folder(r, d) : open_safetensors(r);
  if (d)
    closedir(d);
  if (rc != PF_OK) {
    pf_tin_close(r);
    return rc;
  }
  if (r->n)
    qsort(r->v, r->n, sizeof *r->v, by_name);
  *out = r;
  return PF_OK;
}

size_t pf_tin_count(const pf_tin *r) {
  return r->n;
}

const pf_tensor *pf_tin_get(const pf_tin *r, size_t i) {
  return &r->v[i].t;
}

ptrdiff_t pf_tin_find(const pf_tin *r, const char *name) {
  entry key = {.t.name = (char *)name};
  const entry *e = r->n ? bsearch(&key, r->v, r->n, sizeof *r->v, by_name) : NULL;
  return e ? e - r->v : -1;
}

/* The file of tensor i is at r->fd. */
static int at_hand(pf_tin *r, size_t i) {
  uint64_t size;
  if (!r->v[i].path || r->open_npy == i)
    return PF_OK;
  if (r->fd >= 0)
    close(r->fd);
  r->open_npy = i;
  return open_file(r->v[i].path, &r->fd, &size);
}

int pf_tin_read(pf_tin *r, size_t i, size_t first, size_t n, float *out) {
  enum { PIECE = 65536 };
  const entry *e = &r->v[i];
  size_t es = e->dtype->size;
  int rc = at_hand(r, i);
  if (rc == PF_OK && e->dtype->st && !strcmp(e->dtype->st, "F32"))
    return pread_all(e->path ? e->path : r->path, r->fd, out, n * es, e->at + first * es);
  unsigned char *b = rc == PF_OK ? pf_alloc(PIECE, es) : NULL;
  if (rc == PF_OK && !b)
    rc = PF_ENOMEM;
  for (size_t at = 0, m; rc == PF_OK && at < n; at += m) {
    m = n - at < PIECE ? n - at : PIECE;
    rc = pread_all(e->path ? e->path : r->path, r->fd, b, m * es, e->at + (first + at) * es);
    for (size_t k = 0; rc == PF_OK && k < m; k++)
      out[at + k] = pf_file_element(e->dtype, b + k * es);
  }
  pf_free(b);
  return rc;
}

void pf_tin_close(pf_tin *r) {
  if (!r)
    return;
  for (size_t i = 0; i < r->n; i++) {
    pf_tensor_free(&r->v[i].t);
    pf_free(r->v[i].path);
  }
  if (r->fd >= 0)
    close(r->fd);
  pf_free(r->v);
  pf_free(r->path);
  pf_free(r);
}
