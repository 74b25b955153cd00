/* SPDX-License-Identifier: Apache-2.0
 * Operations over one row: norms, rotation, elementwise and elementary functions, the canary. */
#include <string.h>

#include "tests/cs.h"

/* The interesting points of the elementary functions: limits of exp, ties of the reduction, special
 * values. */
static const uint32_t points[] = {
    0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x007fffffu, 0x00800000u, 0x80800000u,
    0x7f7fffffu, 0xff7fffffu, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u, 0xffffffffu,
    0xc2aeac4eu, 0xc2aeac4fu, 0xc2aeac50u, 0xc2aeac51u, 0x42b17217u, 0x42b17218u, 0x42b17219u,
    0x41200000u, 0xc1200000u, 0x41102cb3u, 0x3eb17218u, 0xbeb17218u, 0x3f800000u};
enum { N_POINTS = sizeof points / sizeof *points };

static void fill_points(cs *t, float *x, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint32_t r = cs_u32(t);
    if (r % 2)
      x[i] = pf_f32_of_bits(points[r / 2 % N_POINTS]);
    else
      x[i] = cs_value(t, CS_UNIT) * 50;
  }
}

typedef void (*map1)(size_t n, const float *x, float *y);

/* kind CS_KINDS: the points. y == x when alias. */
static void one_map(cs *t, map1 ref, map1 v, size_t n, int kind, int alias) {
  float *x = cs_in(t, 0, n, kind < CS_KINDS ? kind : CS_UNIT), *got, *want;
  if (kind == CS_KINDS)
    fill_points(t, x, n);
  cs_out(t, 0, n, &got, &want);
  if (alias)
    memcpy(got, x, n * sizeof *x);
  ref(n, x, want);
  v(n, alias ? got : x, got);
  cs_cmp(t, got, want, n, "n %zu, kind %d, in place %d", n, kind, alias);
}

static void all_maps(cs *t, map1 ref, map1 v) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind <= CS_KINDS; kind++)
      one_map(t, ref, v, cs_sizes[i], kind, (int)(i % 2));
  for (int i = 0; i < 20; i++) {
    one_map(t, ref, v, 4000, CS_FINITE, 0);
    one_map(t, ref, v, 4000, CS_KINDS, 0);
  }
}

#define MAP(op)                                                                                    \
  void cs_##op(cs *t) {                                                                            \
    all_maps(t, t->ref->op, t->v->op);                                                             \
  }
MAP(vexp)
MAP(vtanh)
MAP(vsigmoid)
MAP(gelu_tanh)
MAP(silu)
#undef MAP

void cs_softcap(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind <= CS_KINDS; kind++) {
      size_t n = cs_sizes[i];
      float *got, *want, cap = kind % 2 ? 50.0f : 30.0f;
      float *x = cs_in(t, 0, n, kind < CS_KINDS ? kind : CS_UNIT);
      if (kind == CS_KINDS)
        fill_points(t, x, n);
      cs_out(t, 0, n, &got, &want);
      memcpy(got, x, n * sizeof *x);
      memcpy(want, x, n * sizeof *x);
      t->ref->softcap(n, want, cap);
      t->v->softcap(n, got, cap);
      cs_cmp(t, got, want, n, "n %zu, kind %d, cap %g", n, kind, (double)cap);
    }
}

typedef void (*map2)(size_t n, const float *a, const float *b, float *y);

static void all_map2(cs *t, map2 ref, map2 v) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++) {
      size_t n = cs_sizes[i];
      float *a = cs_in(t, 0, n, kind), *b = cs_in(t, 1, n, kind), *got, *want;
      cs_out(t, 0, n, &got, &want);
      int alias = (int)(i % 2);
      if (alias)
        memcpy(got, a, n * sizeof *a);
      ref(n, a, b, want);
      v(n, alias ? got : a, b, got);
      cs_cmp(t, got, want, n, "n %zu, kind %d, in place %d", n, kind, alias);
    }
}

void cs_mul(cs *t) {
  all_map2(t, t->ref->mul, t->v->mul);
}

void cs_add(cs *t) {
  all_map2(t, t->ref->add, t->v->add);
}

typedef void (*map1f)(size_t n, const float *x, float f, float *y);

static void one_map1f(cs *t, map1f ref, map1f v, size_t n, int kind, bool in_place) {
  float *x = cs_in(t, 0, n, kind), f = cs_value(t, kind), *got, *want;
  cs_out(t, 0, n, &got, &want);
  ref(n, x, f, want);
  if (in_place)
    memcpy(got, x, n * sizeof *x);
  v(n, in_place ? got : x, f, got);
  cs_cmp(t, got, want, n, "n %zu, kind %d%s", n, kind, in_place ? ", in place" : "");
}

/* Also in place, as the model calls them. */
static void all_map1f(cs *t, map1f ref, map1f v) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_map1f(t, ref, v, cs_sizes[i], kind, false);
  for (size_t i = 0; i < cs_n_sizes && (i || cs_extra(t)); i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_map1f(t, ref, v, cs_sizes[i], kind, true);
}

void cs_scale(cs *t) {
  all_map1f(t, t->ref->scale, t->v->scale);
}

void cs_rms_apply(cs *t) {
  all_map1f(t, t->ref->rms_apply, t->v->rms_apply);
}

static void one_rms_weight(cs *t, size_t n, int kind, int one, bool in_place) {
  float *x = cs_in(t, 0, n, kind), *w = cs_in(t, 1, n, kind), *got, *want;
  cs_out(t, 0, n, &got, &want);
  t->ref->rms_weight(n, x, w, one, want);
  if (in_place)
    memcpy(got, x, n * sizeof *x);
  t->v->rms_weight(n, in_place ? got : x, w, one, got);
  cs_cmp(t, got, want, n, "n %zu, kind %d, 1+w %d%s", n, kind, one, in_place ? ", in place" : "");
}

void cs_rms_weight(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      for (int one = 0; one < 2; one++)
        one_rms_weight(t, cs_sizes[i], kind, one, false);
  for (size_t i = 0; i < cs_n_sizes && (i || cs_extra(t)); i++)
    for (int kind = 0; kind < CS_KINDS; kind++)
      one_rms_weight(t, cs_sizes[i], kind, kind % 2, true);
}

void cs_rms_scale(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++) {
      size_t n = cs_sizes[i];
      float *x = cs_in(t, 0, n, kind);
      float want = t->ref->rms_scale(n, x, 1e-6f), got = t->v->rms_scale(n, x, 1e-6f);
      cs_cmp(t, &got, &want, 1, "n %zu, kind %d", n, kind);
    }
  /* Two values of one lane and zeros: the tree, where other lanes would hide how they were added,
   * has nothing to add. */
  for (size_t i = 0; i < 1200 && (i || cs_extra(t)); i++) {
    size_t n = PF_LANES + 1 + i % 50, at = n - 1 - cs_u32(t) % (n - PF_LANES);
    float *x = cs_in(t, 0, n, CS_UNIT), a = x[at], b = x[at - PF_LANES];
    memset(x, 0, n * sizeof *x);
    x[at] = a;
    x[at - PF_LANES] = b;
    float want = t->ref->rms_scale(n, x, 1e-6f), got = t->v->rms_scale(n, x, 1e-6f);
    cs_cmp(t, &got, &want, 1, "n %zu, values at %zu and %zu", n, at - PF_LANES, at);
  }
}

void cs_rope(cs *t) {
  for (size_t i = 0; i < cs_n_sizes; i++)
    for (int kind = 0; kind < CS_KINDS; kind++) {
      size_t h = cs_sizes[i], d = 2 * h;
      float *x = cs_in(t, 0, d, kind), *c = cs_in(t, 1, h, kind), *s = cs_in(t, 2, h, kind), *got,
            *want;
      cs_out(t, 0, d, &got, &want);
      int alias = (int)(i % 2);
      if (alias)
        memcpy(got, x, d * sizeof *x);
      t->ref->rope(d, x, c, s, want);
      t->v->rope(d, alias ? got : x, c, s, got);
      cs_cmp(t, got, want, d, "d %zu, kind %d, in place %d", d, kind, alias);
    }
}

void cs_canary(cs *t) {
  /* (1 + 2^-12)^2 - (1 + 2^-11): 2^-24 when fused, 0 in two roundings. */
  const volatile float abc[3] = {0x1.001p0f, 0x1.001p0f, -0x1.002p0f};
  cs_cmp_u(t, (uint64_t)t->v->canary(abc), 1, "the compiler contracts a*b + c");
}
