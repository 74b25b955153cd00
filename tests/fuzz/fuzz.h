/* SPDX-License-Identifier: Apache-2.0
 * What a fuzz target offers: libFuzzer calls it, and so does replay.c in `make check`. It must not
 * crash, hang or leak, and stops with FUZZ_CHECK when what was accepted is not what the parser
 * promises. */
#ifndef PF_TESTS_FUZZ_H
#define PF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(x)                                                                              \
  do {                                                                                             \
    if (!(x)) {                                                                                    \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #x);                        \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

#endif
