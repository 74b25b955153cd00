/* SPDX-License-Identifier: Apache-2.0
 * SHA-256 through libcrypto. */
#ifndef PF_BASE_SHA256_H
#define PF_BASE_SHA256_H

#include <stddef.h>

typedef struct pf_sha256 pf_sha256;
pf_sha256 *pf_sha256_new(void); /* NULL when out of memory */
void pf_sha256_add(pf_sha256 *s, const void *p, size_t n);
/* Writes the lower-case hex digest and frees s. */
void pf_sha256_end(pf_sha256 *s, char hex[65]);
/* The same as 32 bytes. */
void pf_sha256_raw(pf_sha256 *s, unsigned char digest[32]);
/* Of one block of memory. */
void pf_sha256_hex(const void *p, size_t n, char hex[65]);

#endif
