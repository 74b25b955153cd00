/* SPDX-License-Identifier: Apache-2.0
 * One step through UTF-8 (Unicode standard, table 3-7): the one place that knows which byte
 * sequences are well formed. */
#ifndef PF_MODEL_TOK_UTF8_H
#define PF_MODEL_TOK_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Looks at p[0..n), n > 0. A character: returns its length (1 to 4) and sets *cp. An invalid
 * sequence: returns minus the length of its longest prefix that could have begun a character (at
 * least -1). 0: a good beginning, cut off by n. */
static inline int pf_utf8_step(const char *s, size_t n, uint32_t *cp) {
  const unsigned char *p = (const unsigned char *)s;
  unsigned c = p[0], lo = 0x80, hi = 0xbf;
  if (c < 0x80) {
    *cp = c;
    return 1;
  }
  if (c < 0xc2 || c > 0xf4)
    return -1;
  int more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
  lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : lo; /* no overlong forms */
  hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : hi; /* no surrogates, nothing above U+10FFFF */
  uint32_t u = c & (0x3fu >> more);
  for (int i = 1; i <= more; i++, lo = 0x80, hi = 0xbf) {
    if ((size_t)i >= n)
      return 0;
    if (p[i] < lo || p[i] > hi)
      return -i;
    u = u << 6 | (p[i] & 0x3fu);
  }
  *cp = u;
  return more + 1;
}

/* Bytes of the character at s[0] in text known to be valid UTF-8. */
static inline size_t pf_utf8_len(const char *s) {
  unsigned c = (unsigned char)*s;
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Writes cp (a Unicode scalar value) to s, at most 4 bytes; returns how many. */
static inline size_t pf_utf8_put(char *s, uint32_t cp) {
  if (cp < 0x80) {
    s[0] = (char)cp;
    return 1;
  }
  size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
  for (size_t i = n - 1; i > 0; i--, cp >>= 6)
    s[i] = (char)(0x80 | (cp & 0x3f));
  s[0] = (char)((0xf00u >> n & 0xf0u) | cp);
  return n;
}

#endif
