/* SPDX-License-Identifier: Apache-2.0
 * Reads in flight through io_uring or pread. */
#include "base/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"

struct pf_aio {
  bool uring;
  unsigned in_flight;
  struct io_uring ring;
};

/* What PERSONAFLOW_IO asks for: 1 io_uring, 0 pread, -1 the best there is, -2 nonsense. */
static int wanted(void) {
  const char *s = getenv("PERSONAFLOW_IO");
  if (!s || !*s)
    return -1;
  return !strcmp(s, "uring") ? 1 : !strcmp(s, "pread") ? 0 : -2;
}

int pf_aio_open(pf_aio **out, unsigned depth) {
  int want = wanted();
  *out = NULL;
  if (want == -2)
    return pf_fail(PF_EENV, "PERSONAFLOW_IO=%.40s is not known: use uring or pread, or unset it",
                   getenv("PERSONAFLOW_IO"));
  pf_aio *a = pf_calloc(1, sizeof *a);
  if (!a)
    return PF_ENOMEM;
  int e = want ? io_uring_queue_init(depth, &a->ring, 0) : -1;
  a->uring = e == 0;
  if (want == 1 && e != 0) {
    pf_free(a);
    return pf_fail(
        PF_EENV,
        "PERSONAFLOW_IO=uring: the kernel refuses io_uring: %s: unset it to read with pread",
        strerror(-e));
  }
  *out = a;
  return PF_OK;
}

const char *pf_aio_kind(const pf_aio *a) {
  return a->uring ? "uring" : "pread";
}

/* One completion's result: bytes, or a negative errno. The request is done when enough came, at the
 * end of the file, or on an error that trying again does not cure. */
static void account(pf_aio_req *r, ssize_t res) {
  bool again = res == -EINTR || res == -EAGAIN;
  if (res < 0 && !again)
    r->err = (int)-res;
  if (res > 0)
    r->got += (size_t)res;
  r->done = r->err || (!again && (res == 0 || r->got >= r->need));
}

/* Queues what is left of r. The ring has room for `depth` requests, and a resubmission takes its
 * own place again. */
static void ring_push(pf_aio *a, pf_aio_req *r) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&a->ring);
  int e = -EBUSY;
  if (sqe) {
    io_uring_prep_read(sqe, r->fd, (char *)r->buf + r->got, (unsigned)(r->n - r->got),
                       r->off + r->got);
    io_uring_sqe_set_data(sqe, r);
    do
      e = io_uring_submit(&a->ring);
    while (e == -EINTR || e == -EAGAIN);
  }
  if (e < 1) {
    r->err = e ? -e : EIO;
    r->done = true;
  } else
    a->in_flight++;
}

/* One completion: the next, or (wait false) one that is there; false: none. */
static bool ring_reap(pf_aio *a, bool wait) {
  struct io_uring_cqe *cqe;
  if (!wait && io_uring_peek_cqe(&a->ring, &cqe) != 0)
    return false;
  while (wait && io_uring_wait_cqe(&a->ring, &cqe) < 0)
    ; /* a signal; a buffer the kernel still writes to can never be given up */
  pf_aio_req *r = io_uring_cqe_get_data(cqe);
  ssize_t res = cqe->res;
  io_uring_cqe_seen(&a->ring, cqe);
  a->in_flight--;
  account(r, res);
  if (!r->done)
    ring_push(a, r);
  return true;
}

void pf_aio_submit(pf_aio *a, pf_aio_req *r) {
  r->got = 0;
  r->err = 0;
  r->done = false;
  if (a->uring) {
    ring_push(a, r);
    while (ring_reap(a, false))
      ;
  } else
    (void)posix_fadvise(r->fd, (off_t)r->off, (off_t)r->n, POSIX_FADV_WILLNEED);
}

int pf_aio_wait(pf_aio *a, pf_aio_req *r) {
  while (!r->done)
    if (a->uring)
      ring_reap(a, true);
    else {
      ssize_t res = pread(r->fd, (char *)r->buf + r->got, r->n - r->got, (off_t)(r->off + r->got));
      account(r, res < 0 ? -errno : res);
    }
  return r->err || r->got < r->need ? PF_EIO : PF_OK;
}

void pf_aio_close(pf_aio *a) {
  if (!a)
    return;
  while (a->in_flight)
    ring_reap(a, true);
  if (a->uring)
    io_uring_queue_exit(&a->ring);
  pf_free(a);
}
