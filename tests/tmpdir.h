/* SPDX-License-Identifier: Apache-2.0
 * A temporary folder for tests, and files in it. Include config.h first. */
#ifndef PF_TESTS_TMPDIR_H
#define PF_TESTS_TMPDIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "personaflow/types.h"
#include "tests/suite.h"

/* A new folder under TMPDIR; its path into dir. */
static inline void tmp_make(char dir[256]) {
  const char *t = getenv("TMPDIR");
  snprintf(dir, 256, "%s/pf-test-XXXXXX", t && *t ? t : "/tmp");
  ck_assert_ptr_nonnull(mkdtemp(dir));
}

static inline int tmp_rm_one(const char *path, const struct stat *st, int flag, struct FTW *f) {
  (void)st, (void)flag, (void)f;
  return remove(path);
}

static inline void tmp_remove(const char *dir) {
  nftw(dir, tmp_rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes n bytes to dir/name; folders named in it are made. */
static inline void tmp_write(const char *dir, const char *name, const void *data, size_t n) {
  char path[2048];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  for (char *s = path + strlen(dir) + 1; (s = strchr(s, '/')); s++) {
    *s = '\0';
    mkdir(path, 0777);
    *s = '/';
  }
  FILE *f = fopen(path, "wb");
  ck_assert_msg(f != NULL, "%s", path);
  ck_assert_uint_eq(fwrite(data, 1, n, f), n);
  ck_assert_int_eq(fclose(f), 0);
}

static inline void tmp_text(const char *dir, const char *name, const char *text) {
  tmp_write(dir, name, text, strlen(text));
}

/* dir/name becomes a copy of the file `from`, of at most 16 MiB. */
static inline void tmp_copy(const char *dir, const char *name, const char *from) {
  pf_buf b = {0};
  ck_assert_msg(pf_read_file(from, 1 << 24, &b) == PF_OK, "%s", pf_last_error());
  tmp_write(dir, name, b.s, b.n);
  pf_buf_free(&b);
}

static inline void tmp_unlink(const char *dir, const char *name) {
  char path[2048];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  unlink(path);
}

#endif
