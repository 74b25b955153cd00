/* SPDX-License-Identifier: Apache-2.0
 * Running a suite of Check. */
#ifndef PF_TESTS_SUITE_H
#define PF_TESTS_SUITE_H

#include <check.h>

/* In this process: OpenMP's threads do not survive a fork. Frees the suite; the exit code of the
 * test: 0, or 1 if a test failed. */
static inline int tu_suite_run(Suite *s) {
  SRunner *r = srunner_create(s);
  srunner_set_fork_status(r, CK_NOFORK);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}

#endif
