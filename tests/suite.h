/* SPDX-License-Identifier: Apache-2.0
 * Check: running a suite, and its assertions. */
#ifndef PF_TESTS_SUITE_H
#define PF_TESTS_SUITE_H

#include <check.h>

/* Check notes the place of every assertion that holds in a file, at two writes each: most of the
 * time of a test that looks at millions of values. These note those that fail. */
#undef ck_assert
#undef ck_assert_msg
#define ck_assert(expr) ck_assert_msg(expr, "Assertion '%s' failed", #expr)
#define ck_assert_msg(expr, ...)                                                                   \
  do {                                                                                             \
    if (!(expr))                                                                                   \
      ck_abort_msg(__VA_ARGS__);                                                                   \
  } while (0)

/* fork: CK_NOFORK where OpenMP's threads run, which do not survive one; else CK_FORK_GETENV, a
 * process for each test unless CK_FORK=no says otherwise. Frees the suite; the exit code of the
 * test: 0, or 1 if a test failed. */
static inline int tu_suite_run(Suite *s, enum fork_status fork) {
  SRunner *r = srunner_create(s);
  srunner_set_fork_status(r, fork);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}

#endif
