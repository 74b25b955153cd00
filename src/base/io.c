/* SPDX-License-Identifier: Apache-2.0
 * Whole-file reading and atomic writing. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"

static int too_large(const char *path, uint64_t limit) {
  return pf_fail(PF_EINPUT, "%s: larger than the %llu bytes allowed for this kind of file", path,
                 (unsigned long long)limit);
}

static int read_fd(int fd, const char *path, size_t limit, pf_buf *out) {
  char chunk[65536];
  for (;;) {
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return pf_fail(PF_EIO, "%s: cannot read: %s", path, strerror(errno));
    if (n == 0)
      break;
    if ((size_t)n > limit - out->n)
      return too_large(path, limit);
    pf_buf_add(out, chunk, (size_t)n);
  }
  pf_buf_add(out, "", 0);
  return pf_buf_status(out);
}

/* A regular file, and its size. Without O_NONBLOCK the opening of a pipe that nobody writes to
 * would wait for ever. */
static int open_file(const char *path, int *fd, uint64_t *size) {
  struct stat st;
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0)
    return pf_fail(PF_EINPUT, "%s: cannot open: %s", path, strerror(errno));
  if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    close(*fd);
    return pf_fail(PF_EINPUT, "%s: not a regular file", path);
  }
  *size = (uint64_t)st.st_size;
  return PF_OK;
}

int pf_read_file(const char *path, size_t limit, pf_buf *out) {
  int fd;
  uint64_t size;
  *out = (pf_buf){0};
  int rc = open_file(path, &fd, &size);
  if (rc != PF_OK)
    return rc;
  rc = read_fd(fd, path, limit, out);
  close(fd);
  if (rc != PF_OK)
    pf_buf_free(out);
  return rc;
}

int pf_lines_open(pf_lines *l, const char *path, uint64_t limit) {
  int fd;
  *l = (pf_lines){.path = path};
  int rc = open_file(path, &fd, &l->all);
  if (rc != PF_OK)
    return rc;
  l->f = fdopen(fd, "r");
  if (!l->f) {
    close(fd);
    return pf_fail(PF_ENOMEM, "%s: cannot open: %s", path, strerror(errno));
  }
  return l->all > limit ? too_large(path, limit) : PF_OK;
}

int pf_lines_next(pf_lines *l, bool *more) {
  ssize_t got = getline(&l->s, &l->cap, l->f);
  *more = got > 0;
  if (got <= 0)
    return feof(l->f) ? PF_OK
                      : pf_fail(errno == ENOMEM ? PF_ENOMEM : PF_EIO, "%s: cannot read: %s",
                                l->path, strerror(errno));
  l->whole = l->s[got - 1] == '\n';
  l->n = (size_t)got - l->whole;
  l->s[l->n] = '\0';
  l->at = l->next;
  l->next += (uint64_t)got;
  return PF_OK;
}

void pf_lines_close(pf_lines *l) {
  if (l->f)
    fclose(l->f);
  free(l->s);
  *l = (pf_lines){0};
}

int pf_read_stdin(size_t limit, pf_buf *out) {
  *out = (pf_buf){0};
  int rc = read_fd(STDIN_FILENO, "standard input", limit, out);
  if (rc != PF_OK)
    pf_buf_free(out);
  return rc;
}

int pf_make_dirs(const char *dir) {
  char *s = pf_strdup(dir);
  if (!s)
    return PF_ENOMEM;
  for (char *p = s + 1; *s && *p; p++)
    if (*p == '/') {
      *p = '\0';
      mkdir(s, 0777); /* what is wrong with it shows in the last one */
      *p = '/';
    }
  int rc = mkdir(s, 0777) != 0 && errno != EEXIST
               ? pf_fail(PF_EIO, "%s: cannot make the folder: %s", dir, strerror(errno))
               : PF_OK;
  pf_free(s);
  return rc;
}

int pf_write_all(int fd, const void *data, size_t n) {
  const char *p = data;
  while (n > 0) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno == EINTR)
      continue;
    if (w < 0)
      return -1;
    p += w;
    n -= (size_t)w;
  }
  return 0;
}

int pf_sync_parent(const char *path) {
  char *dir = pf_strdup(path);
  if (!dir)
    return PF_ENOMEM;
  char *slash = strrchr(dir, '/');
  if (slash)
    slash[slash == dir] = '\0';
  int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  pf_free(dir);
  if (fd < 0 || fsync(fd) != 0) {
    int e = errno;
    if (fd >= 0)
      close(fd);
    return pf_fail(PF_EIO, "%s: cannot sync its folder: %s", path, strerror(e));
  }
  close(fd);
  return PF_OK;
}

static int write_tmp(const char *tmp, const void *data, size_t n) {
  int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0)
    return -1;
  if (pf_write_all(fd, data, n) != 0 || fsync(fd) != 0) {
    int e = errno;
    close(fd);
    errno = e;
    return -1;
  }
  return close(fd);
}

int pf_write_file(const char *path, const void *data, size_t n) {
  pf_buf tmp = {0};
  pf_buf_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
  int rc = pf_buf_status(&tmp);
  if (rc == PF_OK && (write_tmp(tmp.s, data, n) != 0 || rename(tmp.s, path) != 0)) {
    rc = pf_fail(PF_EIO, "%s: cannot write: %s", path, strerror(errno));
    unlink(tmp.s);
  }
  pf_buf_free(&tmp);
  return rc == PF_OK ? pf_sync_parent(path) : rc;
}
