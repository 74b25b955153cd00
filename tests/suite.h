/* SPDX-License-Identifier: Apache-2.0
 * Running a suite of Check. */
#ifndef PF_TESTS_SUITE_H
#define PF_TESTS_SUITE_H

#include <check.h>

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
