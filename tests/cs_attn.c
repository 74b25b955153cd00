/* SPDX-License-Identifier: Apache-2.0
 * qk, softmax, pv. */
#include <string.h>

#include "base/mem.h"
#include "tests/cs.h"

enum { MAX_BLOCKS = 5 };

void cs_qk(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++) {
      size_t d = cs_sizes[i], nblk = 1 + cs_u32(t) % 3;
      const float *blocks[MAX_BLOCKS];
      for (size_t b = 0; b < nblk; b++)
        blocks[b] = cs_u32(t) % 4 ? cs_in(t, 1 + (int)b, 2 * d * PF_LANES, kind) : NULL;
      float *q = cs_in(t, 0, d, kind), scale = cs_value(t, CS_UNIT), *got, *want;
      cs_out(t, 0, nblk * PF_KBLK, &got, &want);
      t->ref->qk(d, q, nblk, blocks, scale, want);
      t->v->qk(d, q, nblk, blocks, scale, got);
      cs_cmp(t, got, want, nblk * PF_KBLK, "d %zu, blocks %zu, kind %d", d, nblk, kind);
    }
}

/* One row: kind of the scores, share of masked ones in 16ths, and a value put somewhere (NAN:
 * none). */
static void one_softmax(cs *t, size_t n, int kind, unsigned masked, uint32_t poison) {
  float *got, *want;
  cs_out(t, 0, n, &got, &want);
  for (size_t i = 0; i < n; i++) {
    float v = cs_value(t, kind);
    if (kind == CS_UNIT)
      v *= 20;
    want[i] = cs_u32(t) % 16 < masked ? pf_f32_of_bits(0xff800000u) : v;
  }
  size_t at = cs_u32(t) % n;
  if (poison)
    want[at] = pf_f32_of_bits(poison);
  memcpy(got, want, n * sizeof *got);
  int r = t->ref->softmax(n, want), v = t->v->softmax(n, got);
  cs_cmp_u(t, (uint64_t)v, (uint64_t)r, "softmax's result, n %zu, kind %d", n, kind);
  if (!r)
    cs_cmp(t, got, want, n, "n %zu, kind %d, masked %u/16", n, kind, masked);
}

void cs_softmax(cs *t) {
  static const int kinds[] = {CS_UNIT, CS_WIDE, CS_TINY, CS_HUGE, CS_SIGNS, CS_FINITE, CS_BITS};
  static const uint32_t poisons[] = {0x7f800000u, 0x7fc00000u, 0xffc00001u, 0x7f800001u};
  for (size_t n = 32; n <= 320; n += 32) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
      for (unsigned masked = 0; masked <= 16; masked += 4)
        one_softmax(t, n, kinds[i], masked, 0);
    for (size_t i = 0; i < sizeof poisons / sizeof *poisons; i++)
      one_softmax(t, n, CS_UNIT, 2, poisons[i]);
  }
}

void cs_pv(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++) {
      size_t d = cs_sizes[i], dp = pf_round_up(d, PF_LANES), nblk = 1 + cs_u32(t) % 4;
      const float *blocks[MAX_BLOCKS];
      uint32_t *mask = cs_guarded(t, 11, nblk * sizeof *mask);
      for (size_t b = 0; b < nblk; b++) {
        blocks[b] = cs_u32(t) % 8 ? cs_in(t, 1 + (int)b, PF_KBLK * dp, kind) : NULL;
        uint32_t r = cs_u32(t) % 4;
        mask[b] = r == 0 ? 0xffffffffu : r == 1 ? cs_u32(t) : r == 2 ? cs_u32(t) & cs_u32(t) : 0;
      }
      float *p = cs_in(t, 0, nblk * PF_KBLK, kind), *got, *want;
      cs_out(t, 0, d, &got, &want);
      t->ref->pv(d, nblk, p, blocks, mask, want);
      t->v->pv(d, nblk, p, blocks, mask, got);
      cs_cmp(t, got, want, d, "d %zu, blocks %zu, kind %d", d, nblk, kind);
    }
}
