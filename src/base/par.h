/* SPDX-License-Identifier: Apache-2.0
 * The one way to run on several threads: a static partition, never a reduction. Threads may change
 * who computes a tile, never how it is summed. */
#ifndef PF_BASE_PAR_H
#define PF_BASE_PAR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* fn(arg, tid, n_threads) once on each of n_threads threads, inside the compute environment
 * (fpenv.h). n_threads = 1 runs on the caller, and so does everything in a child of fork() whose
 * parent has used threads. */
typedef void (*pf_par_fn)(void *arg, int tid, int n_threads);
void pf_par(int n_threads, pf_par_fn fn, void *arg);
/* Threads worth starting for `work` (multiplications, or as heavy): a team costs some microseconds,
 * so small work stays with the caller. At least 1, at most n_threads. */
int pf_par_worth(int n_threads, double work);
/* No more threads than there are parts. */
static inline int pf_par_most(int n_threads, size_t parts) {
  return (size_t)n_threads < parts ? n_threads : (int)parts;
}
/* The most that --threads takes. */
enum { PF_MAX_THREADS = 1024 };
/* Threads to use when the caller gives 0: OMP_NUM_THREADS, else the CPUs this process may run on;
 * at most PF_MAX_THREADS, as every thread has its own buffers and the variable may hold anything.
 */
int pf_par_default(void);
/* PF_EUSAGE for more than PF_MAX_THREADS. OpenMP ends the program when it cannot have them. */
int pf_par_check(int threads);

/* The part [*lo, *hi) of n items that thread tid of nt works on: contiguous, sizes differ by one at
 * most. */
static inline void pf_par_range(size_t n, int tid, int nt, size_t *lo, size_t *hi) {
  size_t q = n / (size_t)nt, r = n % (size_t)nt, t = (size_t)tid;
  *lo = t * q + (t < r ? t : r);
  *hi = *lo + q + (t < r);
}

/* The same parts taken piece by piece: who has done his own helps with the others', so that a
 * thread that was held up holds up nobody. turns: one a thread, zero when the region begins. */
typedef struct pf_turn {
  _Alignas(64) atomic_size_t taken; /* items of the part */
} pf_turn;
/* The next piece [*lo, *hi) of n items, false when nothing is left: a `share`-th of what is left of
 * a part, rounded down to whole units but at least one. */
bool pf_par_take(pf_turn *turns, size_t n, size_t unit, size_t share, int tid, int nt, size_t *lo,
                 size_t *hi);

#endif
