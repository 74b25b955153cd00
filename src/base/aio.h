/* SPDX-License-Identifier: Apache-2.0
 * Reads in flight: io_uring, or pread(2) where the kernel refuses io_uring (the reads are then
 * announced to the page cache when they are queued, so that the disk still sees a deep queue).
 * PERSONAFLOW_IO=uring or =pread chooses; it changes the speed only. One queue belongs to one
 * thread. */
#ifndef PF_BASE_AIO_H
#define PF_BASE_AIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_aio pf_aio;

/* A read of n bytes at off, of which at least `need` must come (the rest may lie beyond the end of
 * the file). The caller fills the first five; request and buffer stay where they are until the
 * request was waited for. */
typedef struct pf_aio_req {
  int fd;
  void *buf;
  size_t n, need;
  uint64_t off;
  size_t got;
  int err; /* errno of a failure, 0 */
  bool done;
} pf_aio_req;

/* A queue for up to `depth` requests. PF_EENV when PERSONAFLOW_IO asks for what is not there. */
int pf_aio_open(pf_aio **out, unsigned depth);
/* Waits for all that is in flight. */
void pf_aio_close(pf_aio *a);
/* "uring" or "pread". */
const char *pf_aio_kind(const pf_aio *a);
/* r->done may be true at once: io_uring read it from the page cache. */
void pf_aio_submit(pf_aio *a, pf_aio_req *r);
/* Returns when r is done: PF_OK, or PF_EIO (with r->err set, 0 for a file that ended early; no
 * error line). */
int pf_aio_wait(pf_aio *a, pf_aio_req *r);

#endif
