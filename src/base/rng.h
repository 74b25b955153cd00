/* SPDX-License-Identifier: Apache-2.0
 * A counter-based generator: Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1,
 * 2, 3", SC 2011). The same (key, counter) gives the same words everywhere, whatever was drawn
 * before. */
#ifndef PF_BASE_RNG_H
#define PF_BASE_RNG_H

#include <stdint.h>

static inline void pf_philox(uint64_t key, uint64_t stream, uint64_t counter, uint32_t out[4]) {
  uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                   (uint32_t)(stream >> 32)};
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int r = 0; r < 10; r++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[1] = (uint32_t)p1;
    c[3] = (uint32_t)p0;
    c[0] = n0;
    c[2] = n2;
  }
  for (int i = 0; i < 4; i++)
    out[i] = c[i];
}

/* Uniform in [0, 1) with 53 bits. */
static inline double pf_uniform(uint64_t key, uint64_t stream, uint64_t counter) {
  uint32_t w[4];
  pf_philox(key, stream, counter, w);
  return (double)((((uint64_t)w[0] << 32) | w[1]) >> 11) * 0x1p-53;
}

#endif
