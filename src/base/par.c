/* SPDX-License-Identifier: Apache-2.0
 * OpenMP behind one call. */
#include "base/par.h"

#include <omp.h>

#include "base/fpenv.h"

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
#pragma omp parallel num_threads(n_threads)
  {
    /* A team smaller than asked for (dynamic teams, limits) must still do all the parts. */
    int got = omp_get_num_threads();
    for (int t = omp_get_thread_num(); t < n_threads; t += got)
      run(fn, arg, t, n_threads);
  }
}

enum { WORK_PER_THREAD = 200000 };

int pf_par_worth(int n_threads, double work) {
  double n = 1.0 + work / WORK_PER_THREAD;
  return n < n_threads ? (int)n : n_threads;
}

int pf_par_default(void) {
  int n = omp_get_max_threads();
  return n > 0 ? n : 1;
}
