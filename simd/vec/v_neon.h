/* SPDX-License-Identifier: Apache-2.0
 * 16 fp32 lanes as four NEON registers. */
#ifndef PF_V_NEON_H
#define PF_V_NEON_H

#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "simd/vec for NEON needs aarch64"
#endif
#include <arm_neon.h>
#include <string.h>

#define PF_FN(op)     pf_##op##_neon
#define PF_ATT_PAIRS  3 /* rows of qk and pv up to which even and odd chains run side by side */
#define PF_ATT_PANELS 1

typedef struct v16 {
  float32x4_t a, b, c, d;
} v16;
typedef struct i16 {
  uint32x4_t a, b, c, d;
} i16;
typedef i16 m16;

#define PF_V1(t, f, x)    ((t){f((x).a), f((x).b), f((x).c), f((x).d)})
#define PF_V2(t, f, x, y) ((t){f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)})

static inline v16 v_set1(float x) {
  float32x4_t r = vdupq_n_f32(x);
  return (v16){r, r, r, r};
}
static inline v16 v_load(const float *p) {
  return (v16){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
static inline void v_store(float *p, v16 x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
static inline v16 v_loadn(const float *p, size_t n) {
  float t[16] = {0};
  memcpy(t, p, n * sizeof *p);
  return v_load(t);
}
static inline void v_storen(float *p, v16 x, size_t n) {
  float t[16];
  v_store(t, x);
  memcpy(p, t, n * sizeof *p);
}

static inline v16 v_add(v16 x, v16 y) {
  return PF_V2(v16, vaddq_f32, x, y);
}
static inline v16 v_sub(v16 x, v16 y) {
  return PF_V2(v16, vsubq_f32, x, y);
}
static inline v16 v_mul(v16 x, v16 y) {
  return PF_V2(v16, vmulq_f32, x, y);
}
static inline v16 v_div(v16 x, v16 y) {
  return PF_V2(v16, vdivq_f32, x, y);
}
static inline v16 v_fma(v16 x, v16 y, v16 z) {
  return (v16){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
               vfmaq_f32(z.d, x.d, y.d)};
}

static inline m16 v_gt(v16 x, v16 y) {
  return PF_V2(m16, vcgtq_f32, x, y);
}
static inline m16 v_nan(v16 x) {
  m16 e = PF_V2(m16, vceqq_f32, x, x);
  return PF_V1(m16, vmvnq_u32, e);
}
static inline v16 v_select(m16 m, v16 yes, v16 no) {
  return (v16){vbslq_f32(m.a, yes.a, no.a), vbslq_f32(m.b, yes.b, no.b),
               vbslq_f32(m.c, yes.c, no.c), vbslq_f32(m.d, yes.d, no.d)};
}
static inline m16 m_or(m16 x, m16 y) {
  return PF_V2(m16, vorrq_u32, x, y);
}
static inline int m_any(m16 m) {
  return vmaxvq_u32(vorrq_u32(vorrq_u32(m.a, m.b), vorrq_u32(m.c, m.d))) != 0;
}

static inline i16 i_bits(v16 x) {
  return PF_V1(i16, vreinterpretq_u32_f32, x);
}
static inline v16 v_bits(i16 x) {
  return PF_V1(v16, vreinterpretq_f32_u32, x);
}
static inline i16 i_set1(uint32_t x) {
  uint32x4_t r = vdupq_n_u32(x);
  return (i16){r, r, r, r};
}
static inline m16 m_none(void) {
  return i_set1(0);
}
static inline i16 i_load(const void *p) {
  const uint8_t *q = (const uint8_t *)p;
  return (i16){vreinterpretq_u32_u8(vld1q_u8(q)), vreinterpretq_u32_u8(vld1q_u8(q + 16)),
               vreinterpretq_u32_u8(vld1q_u8(q + 32)), vreinterpretq_u32_u8(vld1q_u8(q + 48))};
}
static inline void i_store(void *p, i16 x) {
  uint8_t *q = (uint8_t *)p;
  vst1q_u8(q, vreinterpretq_u8_u32(x.a));
  vst1q_u8(q + 16, vreinterpretq_u8_u32(x.b));
  vst1q_u8(q + 32, vreinterpretq_u8_u32(x.c));
  vst1q_u8(q + 48, vreinterpretq_u8_u32(x.d));
}
static inline i16 i_add(i16 x, i16 y) {
  return PF_V2(i16, vaddq_u32, x, y);
}
static inline i16 i_and(i16 x, i16 y) {
  return PF_V2(i16, vandq_u32, x, y);
}
static inline i16 i_or(i16 x, i16 y) {
  return PF_V2(i16, vorrq_u32, x, y);
}
#define i_shl(x, n)                                                                                \
  ((i16){vshlq_n_u32((x).a, n), vshlq_n_u32((x).b, n), vshlq_n_u32((x).c, n),                      \
         vshlq_n_u32((x).d, n)})
#define i_shr(x, n)                                                                                \
  ((i16){vshrq_n_u32((x).a, n), vshrq_n_u32((x).b, n), vshrq_n_u32((x).c, n),                      \
         vshrq_n_u32((x).d, n)})
static inline uint32x4_t i_gt4(uint32x4_t x, uint32x4_t y) {
  return vcgtq_s32(vreinterpretq_s32_u32(x), vreinterpretq_s32_u32(y));
}
static inline m16 i_gt(i16 x, i16 y) {
  return PF_V2(m16, i_gt4, x, y);
} /* signed */
static inline m16 i_eq(i16 x, i16 y) {
  return PF_V2(m16, vceqq_u32, x, y);
}
static inline i16 i_select(m16 m, i16 yes, i16 no) {
  return i_bits(v_select(m, v_bits(yes), v_bits(no)));
}

/* Lane l: bit l of u. */
static inline m16 m_bits(uint32_t u) {
  static const uint32_t first[4] = {1, 2, 4, 8};
  uint32x4_t x = vdupq_n_u32(u), a = vld1q_u32(first);
  return (m16){vtstq_u32(x, a), vtstq_u32(x, vshlq_n_u32(a, 4)), vtstq_u32(x, vshlq_n_u32(a, 8)),
               vtstq_u32(x, vshlq_n_u32(a, 12))};
}

/* The instruction by name: the C function would set errno. */
static inline float v_root(float x) {
  return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0);
}

#endif
