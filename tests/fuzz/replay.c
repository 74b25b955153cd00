/* SPDX-License-Identifier: Apache-2.0
 * Runs a fuzz target without libFuzzer, for `make check` and any compiler: every file of its seed
 * corpus
 * ($srcdir/tests/fuzz/corpus/PF_FUZZ_NAME), every beginning of it, and mutations from a fixed seed.
 * With arguments: those files, as they are (to look at a finding). */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/status.h"
#include "tests/fuzz/fuzz.h"
#include "tests/util.h"

#define MAX_PREFIXES  512
#define MAX_MUTATIONS 2000
#define LIMIT         ((size_t)1 << 20)

static uint64_t runs;

/* From a block of exactly n bytes, so that a sanitizer sees a read behind it. */
static void one(const void *data, size_t n) {
  uint8_t *p = malloc(n ? n : 1);
  if (!p)
    abort();
  memcpy(p, data, n);
  LLVMFuzzerTestOneInput(p, n);
  free(p);
  runs++;
}

static void prefixes(const pf_buf *b) {
  size_t step = b->n / MAX_PREFIXES + 1;
  for (size_t n = 0; n < b->n; n += step)
    one(b->s, n);
}

/* One to four bytes replaced by digits, signs, brackets or anything. */
static void mutations(const pf_buf *b) {
  static const char likely[] = "0123456789-+.eE\"{}[]:,\\ \n";
  for (uint64_t i = 0; b->n && i < MAX_MUTATIONS; i++) {
    uint32_t r[4], q[4];
    char *p = malloc(b->n);
    if (!p)
      abort();
    memcpy(p, b->s, b->n);
    pf_philox(1, i, 0, r);
    pf_philox(1, i, 1, q);
    for (uint32_t k = 0; k <= q[3] % 4; k++)
      p[r[k] % b->n] = q[k % 3] & 64 ? likely[q[k % 3] % (sizeof likely - 1)] : (char)q[k % 3];
    one(p, b->n);
    free(p);
  }
}

static int file(const char *path, int mutate) {
  pf_buf b;
  if (pf_read_file(path, LIMIT, &b) != PF_OK) {
    fprintf(stderr, "%s\n", pf_last_error());
    return 1;
  }
  one(b.s, b.n);
  if (mutate) {
    prefixes(&b);
    mutations(&b);
  }
  pf_buf_free(&b);
  return 0;
}

static int corpus(const char *dir) {
  DIR *d = opendir(dir);
  int files = 0, bad = 0;
  for (struct dirent *e; d && (e = readdir(d));) {
    pf_buf path = {0};
    if (e->d_name[0] == '.')
      continue;
    pf_buf_printf(&path, "%s/%s", dir, e->d_name);
    bad |= file(pf_buf_str(&path), 1);
    pf_buf_free(&path);
    files++;
  }
  if (d)
    closedir(d);
  printf("%s: %d files, %llu runs\n", dir, files, (unsigned long long)runs);
  return bad || files == 0;
}

int main(int argc, char **argv) {
  char dir[1024];
  int bad = 0;
  snprintf(dir, sizeof dir, "%s/tests/fuzz/corpus/" PF_FUZZ_NAME, tu_srcdir());
  for (int i = 1; i < argc; i++)
    bad |= file(argv[i], 0);
  return argc > 1 ? bad : corpus(dir);
}
