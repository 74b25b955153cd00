/* SPDX-License-Identifier: Apache-2.0
 * OpenMP behind one call. */
#include "base/par.h"

#include <omp.h>
#include <pthread.h>

#include "base/fpenv.h"
#include "base/status.h"

/* GCC's OpenMP waits for ever in a child of fork() for the threads that the parent had. There the
 * caller does all the parts. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_bool alone;

static void in_child(void) {
  atomic_store_explicit(&alone, true, memory_order_relaxed);
}

static void watch_forks(void) {
  (void)pthread_atfork(NULL, NULL, in_child);
}

static void run(pf_par_fn fn, void *arg, int tid, int nt) {
  uint64_t env = pf_fp_enter();
  fn(arg, tid, nt);
  pf_fp_leave(env);
}

void pf_par(int n_threads, pf_par_fn fn, void *arg) {
  if (n_threads <= 1) {
    run(fn, arg, 0, 1);
    return;
  }
  pthread_once(&once, watch_forks);
  if (atomic_load_explicit(&alone, memory_order_relaxed)) {
    for (int t = 0; t < n_threads; t++)
      run(fn, arg, t, n_threads);
    return;
  }
#pragma omp parallel num_threads(n_threads)
  {
    /* A team smaller than asked for (dynamic teams, limits) must still do all the parts. */
    int got = omp_get_num_threads();
    for (int t = omp_get_thread_num(); t < n_threads; t += got)
      run(fn, arg, t, n_threads);
  }
}

/* A piece of a part of `size` items, some of them taken; 0: none left. */
static size_t take_piece(pf_turn *t, size_t size, size_t unit, size_t share, size_t *at) {
  size_t n;
  *at = atomic_load_explicit(&t->taken, memory_order_relaxed);
  do {
    if (*at >= size)
      return 0;
    n = (size - *at) / share / unit * unit;
    n = n ? n : unit;
    n = n < size - *at ? n : size - *at;
  } while (!atomic_compare_exchange_weak_explicit(&t->taken, at, *at + n, memory_order_relaxed,
                                                  memory_order_relaxed));
  return n;
}

bool pf_par_take(pf_turn *turns, size_t n, size_t unit, size_t share, int tid, int nt, size_t *lo,
                 size_t *hi) {
  for (int i = 0; i < nt; i++) {
    int owner = (tid + i) % nt;
    size_t begin, end, at, piece;
    pf_par_range(n, owner, nt, &begin, &end);
    if (!(piece = take_piece(&turns[owner], end - begin, unit, share, &at)))
      continue;
    *lo = begin + at;
    *hi = *lo + piece;
    return true;
  }
  return false;
}

enum { WORK_PER_THREAD = 200000 };

int pf_par_worth(int n_threads, double work) {
  double n = 1.0 + work / WORK_PER_THREAD;
  return n < n_threads ? (int)n : n_threads;
}

int pf_par_check(int threads) {
  return threads <= PF_MAX_THREADS ? PF_OK
                                   : pf_fail(PF_EUSAGE, "%d threads: at most %d can be asked for",
                                             threads, PF_MAX_THREADS);
}

int pf_par_default(void) {
  int n = omp_get_max_threads();
  return n < 1 ? 1 : n < PF_MAX_THREADS ? n : PF_MAX_THREADS;
}
