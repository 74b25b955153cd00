/* SPDX-License-Identifier: Apache-2.0
 * SHA-256 through libcrypto's EVP interface. */
#include "base/sha256.h"

#include <stdio.h>

#include <openssl/evp.h>

pf_sha256 *pf_sha256_new(void) {
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  if (c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
    EVP_MD_CTX_free(c);
    c = NULL;
  }
  return (pf_sha256 *)c;
}

void pf_sha256_add(pf_sha256 *s, const void *p, size_t n) {
  EVP_DigestUpdate((EVP_MD_CTX *)s, p, n);
}

static void to_hex(const unsigned char md[32], char hex[65]) {
  for (int i = 0; i < 32; i++)
    snprintf(hex + 2 * i, 3, "%02x", md[i]);
}

void pf_sha256_raw(pf_sha256 *s, unsigned char digest[32]) {
  EVP_DigestFinal_ex((EVP_MD_CTX *)s, digest, NULL);
  EVP_MD_CTX_free((EVP_MD_CTX *)s);
}

void pf_sha256_end(pf_sha256 *s, char hex[65]) {
  unsigned char md[32] = {0};
  pf_sha256_raw(s, md);
  to_hex(md, hex);
}

void pf_sha256_hex(const void *p, size_t n, char hex[65]) {
  unsigned char md[EVP_MAX_MD_SIZE] = {0};
  EVP_Digest(p, n, md, NULL, EVP_sha256(), NULL);
  to_hex(md, hex);
}
