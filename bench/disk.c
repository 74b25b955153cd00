/* SPDX-License-Identifier: Apache-2.0
 * bench/disk.h */
#include "config.h"

#include "bench/disk.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/par.h"
#include "base/clock.h"

#define BLOCK ((size_t)4 << 20)
#define HUGE  ((size_t)2 << 20)

static size_t file_bytes(const pf_ckpt *k, size_t i) {
  struct stat st;
  return fstat(k->f[i].fd, &st) == 0 ? (size_t)st.st_size : 0;
}

double pf_disk_bytes(const pf_ckpt *k) {
  double n = 0;
  for (size_t i = 0; i < k->n; i++)
    n += (double)file_bytes(k, i);
  return n;
}

void pf_disk_drop(const pf_ckpt *k) {
  for (size_t i = 0; i < k->n; i++) {
    (void)fdatasync(k->f[i].fd);
    (void)posix_fadvise(k->f[i].fd, 0, 0, POSIX_FADV_DONTNEED);
  }
}

static bool read_whole(const char *path, bool direct, void *p) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
  ssize_t n = fd < 0 ? -1 : 1;
  while (n > 0)
    n = read(fd, p, BLOCK);
  if (fd >= 0)
    close(fd);
  return n == 0;
}

double pf_disk_read(const pf_ckpt *k, bool direct) {
  void *p = NULL;
  bool ok = posix_memalign(&p, 4096, BLOCK) == 0;
  if (ok)
    memset(p, 1, BLOCK);
  double t = pf_seconds();
  for (size_t i = 0; i < k->n && ok; i++)
    ok = read_whole(k->f[i].path, direct, p);
  t = pf_seconds() - t;
  free(p);
  return ok ? t : -1;
}

/* ---- several threads ---- */

static void *fresh(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return NULL;
  (void)madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

typedef struct reading {
  const pf_ckpt *k;
  char *to;
  atomic_size_t next; /* block of all files' */
  atomic_bool failed;
} reading;

/* Reads block b of file i to its place; false: there is no such block. */
static bool read_block(reading *r, size_t b) {
  size_t at = 0, i = 0, n;
  for (; i < r->k->n && (n = (file_bytes(r->k, i) + BLOCK - 1) / BLOCK, b >= n); i++, at += n)
    b -= n;
  if (i == r->k->n)
    return false;
  if (pread(r->k->f[i].fd, r->to + (at + b) * BLOCK, BLOCK, (off_t)(b * BLOCK)) <= 0)
    atomic_store(&r->failed, true);
  return true;
}

static void read_part(void *arg, int tid, int nt) {
  reading *r = arg;
  (void)tid, (void)nt;
  while (!atomic_load(&r->failed) && read_block(r, atomic_fetch_add(&r->next, 1)))
    ;
}

double pf_disk_pread(const pf_ckpt *k, int threads) {
  size_t bytes = pf_round_up((size_t)pf_disk_bytes(k) + k->n * BLOCK, HUGE);
  reading r = {.k = k, .to = fresh(bytes)};
  if (!r.to)
    return -1;
  double t = pf_seconds();
  pf_par(threads, read_part, &r);
  t = pf_seconds() - t;
  munmap(r.to, bytes);
  return atomic_load(&r.failed) ? -1 : t;
}

double pf_memory_touch(size_t bytes) {
  char *p = fresh(bytes);
  double t = pf_seconds();
  if (!p)
    return -1;
  for (size_t i = 0; i < bytes; i += 4096)
    ((volatile char *)p)[i] = 1;
  t = pf_seconds() - t;
  munmap(p, bytes);
  return t;
}

/* ---- what the kernel counts ---- */

/* The number after `word` at the start of a line of an open file, kB as bytes; negative: none. */
static double kilobytes(FILE *f, const char *word) {
  char line[512];
  unsigned long long kb;
  size_t n = strlen(word);
  while (fgets(line, sizeof line, f))
    if (!strncmp(line, word, n) && sscanf(line + n, " %llu", &kb) == 1)
      return 1024.0 * (double)kb;
  return -1;
}

double pf_memory_peak(void) {
  FILE *f = fopen("/proc/self/status", "r");
  double v = f ? kilobytes(f, "VmHWM:") : -1;
  if (f)
    fclose(f);
  return v;
}

void pf_memory_peak_reset(void) {
  FILE *f = fopen("/proc/self/clear_refs", "w");
  if (!f)
    return;
  fputs("5", f);
  fclose(f);
}

double pf_memory_huge(const void *p) {
  FILE *f = fopen("/proc/self/smaps", "r");
  char line[512];
  double v = -1;
  unsigned long long lo, hi;
  while (f && v < 0 && fgets(line, sizeof line, f))
    if (sscanf(line, "%llx-%llx ", &lo, &hi) == 2 && (uintptr_t)p >= lo && (uintptr_t)p < hi)
      v = kilobytes(f, "AnonHugePages:");
  if (f)
    fclose(f);
  return v;
}
