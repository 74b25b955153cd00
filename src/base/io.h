/* SPDX-License-Identifier: Apache-2.0
 * Whole-file reading and atomic writing (temporary file, fsync, rename, fsync of the folder). */
#ifndef PF_BASE_IO_H
#define PF_BASE_IO_H

#include <stddef.h>

#include "base/buf.h"

/* Reads a regular file of at most `limit` bytes into *out (NUL-terminated). PF_EINPUT when it is
 * missing, not a regular file or too large; PF_EIO when reading fails. */
int pf_read_file(const char *path, size_t limit, pf_buf *out);
/* Writes n bytes so that `path` holds either its old content or all of the new one. PF_EIO names
 * path and reason. */
int pf_write_file(const char *path, const void *data, size_t n);
/* write(2) until all is written; -1 with errno set on failure. */
int pf_write_all(int fd, const void *data, size_t n);
/* fsync of the folder that holds path. */
int pf_sync_parent(const char *path);

#endif
