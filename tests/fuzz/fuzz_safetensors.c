/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: a whole safetensors file. */
#include "config.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/status.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void check(const pf_st *s, uint64_t size) {
  for (size_t i = 0; i < s->n; i++) {
    const pf_st_tensor *t = &s->t[i];
    FUZZ_CHECK(t->off <= size && t->bytes <= size - t->off);
    FUZZ_CHECK(t->n_dims <= PF_ST_MAX_DIMS);
    FUZZ_CHECK(pf_st_find(s, t->name) == t);
    FUZZ_CHECK(i == 0 || strcmp(s->t[i - 1].name, t->name) < 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int fd = -1;
  pf_st s;
  if (fd < 0)
    fd = memfd_create("fuzz", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
  int rc = pf_st_read(&s, "fuzz", fd, size);
  FUZZ_CHECK(rc == PF_OK || (s.t == NULL && *pf_last_error()));
  if (rc == PF_OK)
    check(&s, size);
  pf_st_free(&s);
  return 0;
}
