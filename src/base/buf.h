/* SPDX-License-Identifier: Apache-2.0
 * A growing text buffer. An allocation failure is remembered: check `failed` (or pf_buf_status)
 * once, at the end. */
#ifndef PF_BASE_BUF_H
#define PF_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "personaflow/types.h"

typedef struct pf_buf {
  char *s; /* NUL-terminated when n > 0 or after pf_buf_str */
  size_t n, cap;
  bool failed;
} pf_buf;

void pf_buf_add(pf_buf *b, const void *p, size_t n);
void pf_buf_puts(pf_buf *b, const char *s);
void pf_buf_printf(pf_buf *b, const char *fmt, ...) PF_PRINTF(2, 3);
/* The text, never NULL ("" when empty or failed). */
const char *pf_buf_str(const pf_buf *b);
int pf_buf_status(const pf_buf *b); /* PF_OK or PF_ENOMEM */
/* The text leaves the buffer, which is empty then: *out (pf_free), NULL with PF_ENOMEM. */
int pf_buf_take(pf_buf *b, char **out);
void pf_buf_free(pf_buf *b);

#endif
