/* SPDX-License-Identifier: Apache-2.0
 * Where the keys and values of a block's heads lie (pf_attn in simd/simd.h), in fp32 or in bf16:
 * keys are outputs over the dimensions of the head, dimensions of V outputs over the 32 keys. */
#include <string.h>

#include "base/bf16.h"
#include "model/kv.h"

static inline float get(bool halves, const void *w, size_t kp, size_t n, size_t k) {
  return halves ? pf_bf16_to_f32(((const uint16_t *)w)[pf_packed_bf16(kp, n, k)])
                : ((const float *)w)[pf_packed_f32(kp, n, k)];
}

/* Of halves, x has been rounded to bf16: its lower half is zero. */
static inline void put(bool halves, void *w, size_t kp, size_t n, size_t k, float x) {
  if (halves)
    ((uint16_t *)w)[pf_packed_bf16(kp, n, k)] = (uint16_t)(pf_bits_of_f32(x) >> 16);
  else
    ((float *)w)[pf_packed_f32(kp, n, k)] = x;
}

static bool halves_of(const pf_ctx *c) {
  return pf_kv_ops(c)->size != sizeof(float);
}

static size_t width(const pf_ctx *c) {
  return (size_t)c->model->cfg.info.d_head;
}

/* Inlined once for each kind. */
static inline void store(bool halves, size_t d, size_t kp, void *k, void *v, size_t slot,
                         const float *key, const float *value) {
  for (size_t e = 0; e < d; e++)
    put(halves, k, kp, slot, e, key[e]);
  for (size_t e = 0; e < d; e++)
    put(halves, v, PF_KBLK, e, slot, value[e]);
}

void pf_kv_store(const pf_ctx *c, pf_kvblock *b, int32_t head, int slot, const float *rot_k,
                 const float *v, const float *raw_k) {
  void *to_k = pf_kv_k_at(c, b, head), *to_v = pf_kv_v_at(c, b, head);
  if (halves_of(c))
    store(true, width(c), pf_kv_kp(c), to_k, to_v, (size_t)slot, rot_k, v);
  else
    store(false, width(c), pf_kv_kp(c), to_k, to_v, (size_t)slot, rot_k, v);
  if (b->raw_k)
    memcpy(pf_kv_raw_at(c, b, head, slot), raw_k, width(c) * sizeof *raw_k);
}

void pf_kv_put_key(const pf_ctx *c, void *k, int slot, size_t e, float x) {
  put(halves_of(c), k, pf_kv_kp(c), (size_t)slot, e, x);
}

void pf_kv_copy_key(const pf_ctx *c, void *k, int slot, const void *from, int old) {
  bool halves = halves_of(c);
  size_t kp = pf_kv_kp(c);
  for (size_t e = 0; e < width(c); e++)
    put(halves, k, kp, (size_t)slot, e, get(halves, from, kp, (size_t)old, e));
}

void pf_kv_copy_value(const pf_ctx *c, void *v, int slot, const void *from, int old) {
  bool halves = halves_of(c);
  for (size_t e = 0; e < width(c); e++)
    put(halves, v, PF_KBLK, e, (size_t)slot, get(halves, from, PF_KBLK, e, (size_t)old));
}
