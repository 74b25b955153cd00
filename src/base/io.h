/* SPDX-License-Identifier: Apache-2.0
 * Whole-file reading and atomic writing (temporary file, fsync, rename, fsync of the folder). */
#ifndef PF_BASE_IO_H
#define PF_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

/* Reads a regular file of at most `limit` bytes into *out (NUL-terminated). PF_EINPUT when it is
 * missing, not a regular file or too large; PF_EIO when reading fails. */
int pf_read_file(const char *path, size_t limit, pf_buf *out);
/* The same from standard input. */
int pf_read_stdin(size_t limit, pf_buf *out);
/* Makes a folder and those above it; PF_EIO where it is not there then. */
int pf_make_dirs(const char *dir);
/* The lines of a file, one at a time. */
typedef struct pf_lines {
  const char *path; /* the caller's */
  FILE *f;
  char *s; /* the line, NUL-terminated, without its end */
  size_t n, cap;
  bool whole;             /* it has an end */
  uint64_t at, next, all; /* bytes before it, before the next one, in the file */
} pf_lines;

/* As pf_read_file; after a failure too, pf_lines_close is fine. */
int pf_lines_open(pf_lines *l, const char *path, uint64_t limit);
/* The next line; *more false: there is none. */
int pf_lines_next(pf_lines *l, bool *more);
void pf_lines_close(pf_lines *l);
/* Writes n bytes so that `path` holds either its old content or all of the new one. PF_EIO names
 * path and reason. */
int pf_write_file(const char *path, const void *data, size_t n);
/* write(2) until all is written; -1 with errno set on failure. */
int pf_write_all(int fd, const void *data, size_t n);
/* fsync of the folder that holds path. */
int pf_sync_parent(const char *path);

#endif
