/* SPDX-License-Identifier: Apache-2.0
 * The reading loops, included by a file of each instruction set with PF_READ_NAME and PF_READ_VEC
 * (bytes of a register) defined. */
#include <string.h>

#include "simd/peak/micro.h"

typedef uint64_t vec_t __attribute__((vector_size(PF_READ_VEC), may_alias));
enum { LINE = 64, STEP = 2 * LINE }; /* two lines of a stream at a time: a pair is one fetch */

#if PF_READ_VEC == 64
#define PF_EACH_VEC(F) F(0) F(1)
#elif PF_READ_VEC == 32
#define PF_EACH_VEC(F) F(0) F(1) F(2) F(3)
#else
#define PF_EACH_VEC(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7)
#endif
#define PF_INLINE static inline __attribute__((always_inline))

PF_INLINE void ask(const char *p, const int near) {
  if (near)
    __builtin_prefetch(p, 0, 3);
  else
    __builtin_prefetch(p, 0, 2);
}

PF_INLINE uint64_t read_streams(const char *p, size_t n, size_t ahead, const int S,
                                const int near) {
  vec_t sum[4];
  memset(sum, 0, sizeof sum);
  size_t part = n / (size_t)S;
  for (size_t i = 0; i < part; i += STEP)
    for (int s = 0; s < S; s++) {
      const char *q = p + (size_t)s * part + i;
#define PF_ADD(j) sum[(j) % 4] += ((const vec_t *)q)[j];
      PF_EACH_VEC(PF_ADD)
#undef PF_ADD
      if (near >= 0) {
        ask(q + ahead, near);
        ask(q + ahead + LINE, near);
      }
    }
  vec_t all = sum[0] + sum[1] + sum[2] + sum[3];
  uint64_t v = 0;
  for (size_t i = 0; i < sizeof all / sizeof v; i++)
    v += all[i];
  return v;
}

/* near: -1 without prefetch. */
#define PF_READ(S)                                                                                 \
  static uint64_t far_##S(const char *p, size_t n, size_t ahead) {                                 \
    return read_streams(p, n, ahead, S, 0);                                                        \
  }                                                                                                \
  static uint64_t near_##S(const char *p, size_t n, size_t ahead) {                                \
    return read_streams(p, n, ahead, S, 1);                                                        \
  }                                                                                                \
  static uint64_t plain_##S(const char *p, size_t n, size_t ahead) {                               \
    return read_streams(p, n, ahead, S, -1);                                                       \
  }
PF_READ(1)
PF_READ(2)
PF_READ(4)
PF_READ(8)

uint64_t PF_READ_NAME(const char *p, size_t n, const pf_read_plan *plan) {
#define PF_ROW(S)                                                                                  \
  { far_##S, near_##S, plain_##S }
  static uint64_t (*const fn[4][3])(const char *, size_t, size_t) = {PF_ROW(1), PF_ROW(2),
                                                                     PF_ROW(4), PF_ROW(8)};
  int row = plan->streams >= 8 ? 3 : plan->streams / 2;
  return fn[row][plan->ahead ? plan->near : 2](p, n, plan->ahead);
}
