/* SPDX-License-Identifier: Apache-2.0
 * The elementary functions against MPFR (without it: long double), with the bounds that
 * simd/CONTRACT.md documents. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef PF_HAVE_MPFR
#include <mpfr.h>
#endif

#include "base/bf16.h"
#include "base/dmath.h"
#include "base/fpenv.h"
#include "base/rng.h"
#include "simd/simd.h"
#include "tests/util.h"

enum { F_EXP, F_LOG, F_SIN, F_COS, F_TANH, F_SIGMOID, F_SILU, F_GELU };

/* The true value as an unevaluated sum of two doubles. */
typedef struct value {
  double h, l;
} value;

#ifdef PF_HAVE_MPFR
#define ORACLE "MPFR, 160 bits"
static mpfr_t a, b, c;

static void oracle_open(void) {
  mpfr_inits2(160, a, b, c, (mpfr_ptr)0);
}

static void oracle_close(void) {
  mpfr_clears(a, b, c, (mpfr_ptr)0);
  mpfr_free_cache();
}

static value split(mpfr_t y) {
  value v = {.h = mpfr_get_d(y, MPFR_RNDN)};
  mpfr_sub_d(y, y, v.h, MPFR_RNDN);
  v.l = mpfr_get_d(y, MPFR_RNDN);
  return v;
}

/* b = x / (1 + exp(-a)) */
static void over_one_plus_exp_neg(double x) {
  mpfr_neg(a, a, MPFR_RNDN);
  mpfr_exp(b, a, MPFR_RNDN);
  mpfr_add_ui(b, b, 1, MPFR_RNDN);
  mpfr_d_div(b, x, b, MPFR_RNDN);
}

/* a = sqrt(8/pi) (x + 0.044715 x^3) */
static void gelu_argument(double x) {
  mpfr_set_ui(b, 44715, MPFR_RNDN);
  mpfr_div_ui(b, b, 1000000, MPFR_RNDN);
  mpfr_mul_d(b, b, x, MPFR_RNDN);
  mpfr_mul_d(b, b, x, MPFR_RNDN);
  mpfr_add_ui(b, b, 1, MPFR_RNDN);
  mpfr_mul_d(b, b, x, MPFR_RNDN);
  mpfr_const_pi(a, MPFR_RNDN);
  mpfr_ui_div(a, 8, a, MPFR_RNDN);
  mpfr_sqrt(a, a, MPFR_RNDN);
  mpfr_mul(a, a, b, MPFR_RNDN);
}

static value oracle(int f, double x) {
  mpfr_set_d(a, x, MPFR_RNDN);
  if (f == F_GELU)
    gelu_argument(x);
  switch (f) {
  case F_EXP:
    mpfr_exp(b, a, MPFR_RNDN);
    break;
  case F_LOG:
    mpfr_log(b, a, MPFR_RNDN);
    break;
  case F_SIN:
    mpfr_sin(b, a, MPFR_RNDN);
    break;
  case F_COS:
    mpfr_cos(b, a, MPFR_RNDN);
    break;
  case F_TANH:
    mpfr_tanh(b, a, MPFR_RNDN);
    break;
  default:
    over_one_plus_exp_neg(f == F_SIGMOID ? 1.0 : x);
  }
  return split(b);
}

static value oracle_pow(double x, long num, long den) {
  mpfr_set_d(a, x, MPFR_RNDN);
  mpfr_set_si(b, num, MPFR_RNDN);
  mpfr_div_si(b, b, den, MPFR_RNDN);
  mpfr_pow(c, a, b, MPFR_RNDN);
  return split(c);
}
#else
#define ORACLE "long double"
static void oracle_open(void) {}

static void oracle_close(void) {}

static value split(long double y) {
  return (value){(double)y, (double)(y - (long double)(double)y)};
}

static value oracle(int f, double v) {
  long double x = v, u = x;
  if (f == F_GELU)
    u = sqrtl(8 / 3.14159265358979323846264338327950288L) * (x + 0.044715L * x * x * x);
  switch (f) {
  case F_EXP:
    return split(expl(x));
  case F_LOG:
    return split(logl(x));
  case F_SIN:
    return split(sinl(x));
  case F_COS:
    return split(cosl(x));
  case F_TANH:
    return split(tanhl(x));
  default:
    return split((f == F_SIGMOID ? 1 : x) / (1 + expl(-u)));
  }
}

static value oracle_pow(double x, long num, long den) {
  return split(powl((long double)x, (long double)num / (long double)den));
}
#endif

static double distance(double got, value want) {
  return fabs((got - want.h) - want.l);
}

/* An ulp of a number of `digits` bits at x. */
static double ulp(double x, int digits) {
  int e;
  frexp(x, &e);
  return ldexp(1.0, e - digits);
}

static unsigned failed, passed;

static void verdict(const char *name, double lo, double hi, double worst, double at, double bound,
                    const char *unit) {
  bool ok = worst <= bound;
  printf("%s %-10s [%g, %g]: worst %.4f %s at %a, bound %g\n", ok ? "ok   " : "FAIL ", name, lo, hi,
         worst, unit, at, bound);
  ok ? passed++ : failed++;
}

/* The i-th of n sample points of [lo, hi]: evenly spaced, jittered. */
static double sample(double lo, double hi, unsigned i, unsigned n) {
  return lo + (hi - lo) * (((double)i + pf_uniform(1, 2, i)) / (double)n);
}

/* fp32: half of the samples evenly over the range, half over the bit patterns of it (small
 * magnitudes). relative_to_x: the error is counted in 2^-24 |x| instead of ulps of the result. */
static void check32(const char *name, int f, float lo, float hi, double bound, bool relative_to_x,
                    unsigned n) {
  int status;
  const pf_simd *s = pf_simd_get(&status);
  double worst = 0, at = 0;
  for (unsigned i = 0; s && i < n; i++) {
    float x = (float)sample((double)lo, (double)hi, i / 2, n / 2), y;
    if (i % 2)
      x = pf_f32_of_bits((uint32_t)(pf_uniform(3, 4, i) * 4294967296.0));
    if (!(x >= lo && x <= hi) || fabsf(x) < 0x1p-126f)
      continue;
    switch (f) {
    case F_EXP:
      s->vexp(1, &x, &y);
      break;
    case F_TANH:
      s->vtanh(1, &x, &y);
      break;
    case F_SIGMOID:
      s->vsigmoid(1, &x, &y);
      break;
    case F_SILU:
      s->silu(1, &x, &y);
      break;
    default:
      s->gelu_tanh(1, &x, &y);
    }
    value want = oracle(f, (double)x);
    if (fabs(want.h) < 0x1p-125 && !relative_to_x)
      continue;
    double e = distance((double)y, want) /
               (relative_to_x ? (fabs((double)x) * 0x1p-24 + 0x1p-126) : ulp(want.h, 24));
    if (!(e <= worst)) {
      worst = e;
      at = (double)x;
    }
  }
  verdict(name, (double)lo, (double)hi, s ? worst : INFINITY, at, bound,
          relative_to_x ? "2^-24 |x|" : "ulp");
}

static void check64(const char *name, double (*fn)(double), int f, double lo, double hi,
                    double bound, unsigned n) {
  double worst = 0, at = 0;
  for (unsigned i = 0; i < n; i++) {
    double x = sample(lo, hi, i, n);
    if (i % 4 == 0 && (f == F_SIN || f == F_COS)) /* near a multiple of pi/2 */
      x = rint(x / 1.5707963267948966) * 1.5707963267948966;
    if (x == 0)
      continue;
    value want = oracle(f, x);
    double e = distance(fn(x), want) / ulp(want.h, 53);
    if (!(e <= worst)) {
      worst = e;
      at = x;
    }
  }
  verdict(name, lo, hi, worst, at, bound, "ulp");
}

static void check_pow(unsigned n) {
  double worst = 0, at = 0;
  for (unsigned i = 0; i < n; i++) {
    double theta = sample(2, 1e6, i, n);
    long num = (long)(pf_uniform(5, 6, i) * 512) - 256;
    value want = oracle_pow(theta, num, 256);
    double e = distance(pf_dpow(theta, (double)num / 256), want) / ulp(want.h, 53);
    if (!(e <= worst)) {
      worst = e;
      at = theta;
    }
  }
  verdict("fp64 pow", 2, 1e6, worst, at, 0.51, "ulp");
}

/* Inverse frequencies are the correctly rounded fp32 values. */
static void check_inv_freq(void) {
  static const double thetas[] = {10000, 1000000, 500000, 150000.5, 3};
  static const int ds[] = {2, 4, 10, 64, 96, 128, 256};
  unsigned wrong = 0, n = 0;
  for (size_t t = 0; t < sizeof thetas / sizeof *thetas; t++)
    for (size_t j = 0; j < sizeof ds / sizeof *ds; j++)
      for (int i = 0; i < ds[j] / 2; i++, n++) {
        float got = pf_rope_inv_freq(thetas[t], i, ds[j]);
        value want = oracle_pow(thetas[t], -2 * i, ds[j]);
        wrong += distance((double)got, want) > 0.5000001 * ulp(want.h, 24);
      }
  printf("%s rope_inv_freq: %u of %u not the nearest fp32\n", wrong ? "FAIL " : "ok   ", wrong, n);
  wrong ? failed++ : passed++;
}

/* cos and sin of the fp32 angle, rounded to fp32. */
static void check_angle(void) {
  unsigned wrong = 0, n = 0;
  for (int32_t pos = 0; pos < 140000; pos += pos < 64 ? 1 : 997)
    for (int i = 0; i < 64; i += 9, n++) {
      float f = pf_rope_inv_freq(10000, i, 128), co, si, angle = (float)pos * f;
      pf_rope_angle(pos, f, &co, &si);
      value wc = oracle(F_COS, (double)angle), ws = oracle(F_SIN, (double)angle);
      wrong += distance((double)co, wc) > 0.500001 * ulp(wc.h, 24);
      wrong += pos && distance((double)si, ws) > 0.500001 * ulp(ws.h, 24);
      wrong += !pos && (co != 1 || si != 0);
    }
  printf("%s rope_angle: %u of %u not the nearest fp32\n", wrong ? "FAIL " : "ok   ", wrong, 2 * n);
  wrong ? failed++ : passed++;
}

/* Values that the contract names. */
static void check_special(void) {
  static const struct {
    double (*fn)(double);
    double x, want;
  } cases[] = {{pf_dexp, 0, 1},
               {pf_dexp, -INFINITY, 0},
               {pf_dexp, -709, 0},
               {pf_dexp, INFINITY, INFINITY},
               {pf_dexp, NAN, NAN},
               {pf_dlog, 1, 0},
               {pf_dlog, 0, -INFINITY},
               {pf_dlog, -1, NAN},
               {pf_dlog, -INFINITY, NAN},
               {pf_dlog, NAN, NAN},
               {pf_dlog, INFINITY, INFINITY},
               {pf_dsin, 0, 0},
               {pf_dcos, 0, 1},
               {pf_dsin, 1e9, NAN},
               {pf_dcos, INFINITY, NAN}};
  unsigned wrong = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    double y = cases[i].fn(cases[i].x), w = cases[i].want;
    if (y == w || (y != y && w != w))
      continue;
    printf("FAIL  special case %zu: f(%g) = %g, want %g\n", i, cases[i].x, y, w);
    wrong++;
  }
  wrong ? failed++ : passed++;
}

int main(void) {
  unsigned n = tu_tier("small") ? 4000 : tu_tier("big") ? 4000000 : 120000;
  printf("oracle: %s; %u samples a line\n", ORACLE, n);
  oracle_open();
  uint64_t env = pf_fp_enter();
  check32("exp", F_EXP, -87.3365f, 88.7228f, 1.0, false, n);
  check32("tanh", F_TANH, -20, 20, 2.6, false, n);
  check32("sigmoid", F_SIGMOID, -87.3365f, 100, 2.6, false, n);
  check32("silu", F_SILU, -88.7f, 100, 2.6, false, n);
  check32("gelu_tanh", F_GELU, -1, 20, 2.7, false, n);
  check32("gelu_tanh", F_GELU, -4, 20, 19, false, n);
  check32("gelu_tanh", F_GELU, -30, 30, 2.2, true, n);
  pf_fp_leave(env);
  check64("fp64 exp", pf_dexp, F_EXP, -708, 709, 1.1, n / 2);
  check64("fp64 exp", pf_dexp, F_EXP, -1, 1, 1.0, n / 2);
  check64("fp64 log", pf_dlog, F_LOG, 0.5, 2, 1.0, n / 2);
  check64("fp64 log", pf_dlog, F_LOG, 1, 1e6, 1.0, n / 2);
  check64("fp64 sin", pf_dsin, F_SIN, -10, 10, 0.9, n / 2);
  check64("fp64 sin", pf_dsin, F_SIN, -0x1p23, 0x1p23, 0.9, n / 2);
  check64("fp64 cos", pf_dcos, F_COS, -10, 10, 0.9, n / 2);
  check64("fp64 cos", pf_dcos, F_COS, -0x1p23, 0x1p23, 0.9, n / 2);
  check_pow(n / 60);
  check_inv_freq();
  check_angle();
  check_special();
  oracle_close();
  printf("check_math: %u passed, %u failed, 0 skipped\n", passed, failed);
  return failed ? 1 : 0;
}
