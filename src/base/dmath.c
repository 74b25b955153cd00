/* SPDX-License-Identifier: Apache-2.0
 * fp64 elementary functions with fixed bits. Double-double (dd) values are unevaluated sums h + l,
 * |l| <= ulp(h)/2, after T. J. Dekker, "A floating-point technique for extending the available
 * precision", Numer. Math. 18 (1971). */
#include "base/dmath.h"

#include "base/dmath_seq.h"
#include "base/fpenv.h"

typedef struct dd {
  double h, l;
} dd;

static dd two_sum(double a, double b) {
  double s = a + b, t = s - a;
  return (dd){s, (a - (s - t)) + (b - t)};
}

/* |a| >= |b| */
static dd fast_two_sum(double a, double b) {
  double s = a + b;
  return (dd){s, b - (s - a)};
}

static dd split(double a) {
  double c = a * 0x1.0000002p27, h = c - (c - a);
  return (dd){h, a - h};
}

static dd two_prod(double a, double b) {
  double p = a * b;
  dd x = split(a), y = split(b);
  return (dd){p, ((x.h * y.h - p) + x.h * y.l + x.l * y.h) + x.l * y.l};
}

static dd dd_add(dd a, dd b) {
  dd s = two_sum(a.h, b.h), t = two_sum(a.l, b.l);
  s = fast_two_sum(s.h, s.l + t.h);
  return fast_two_sum(s.h, s.l + t.l);
}

static dd dd_mul(dd a, dd b) {
  dd p = two_prod(a.h, b.h);
  return fast_two_sum(p.h, p.l + (a.h * b.l + a.l * b.h));
}

static dd dd_div_d(dd a, double n) {
  double q = a.h / n;
  dd p = two_prod(q, n);
  return fast_two_sum(q, (((a.h - p.h) - p.l) + a.l) / n);
}

static double pow2(int k) {
  return pf_f64_of_bits((uint64_t)(k + 1023) << 52);
}

/* exp(x) for |x.h| < 700: x = k ln2 + r, Taylor series to r^27 by Horner. */
static dd dd_exp(dd x) {
  double k = (x.h * PF_D_LOG2E + PF_D_MAGIC) - PF_D_MAGIC;
  dd r = dd_add(x, two_prod(-k, 0x1.62e42fefa39efp-1));
  r = dd_add(r, two_prod(-k, 0x1.abc9e3b39803fp-56));
  r = dd_add(r, (dd){-k * 0x1.7b57a079a1934p-111, 0});
  dd y = {1, 0};
  for (int n = 27; n >= 1; n--)
    y = dd_add((dd){1, 0}, dd_div_d(dd_mul(r, y), n));
  double p = pow2((int)k);
  return (dd){y.h * p, y.l * p};
}

/* One step of third order from the fp64 logarithm: t = x exp(-y) - 1, ln x = y + t - t^2/2. */
static dd dd_log(double x) {
  double y = pf_dlog_seq(x);
  dd t = dd_add(dd_mul(dd_exp((dd){-y, 0}), (dd){x, 0}), (dd){-1, 0});
  return dd_add((dd){y, 0}, dd_add(t, (dd){-0.5 * t.h * t.h, 0}));
}

/* One rounding from h + l to fp32: h is first made odd in its last place when l says that it is
 * inexact. */
static float dd_to_f32(dd a) {
  uint64_t u = pf_bits_of_f64(a.h);
  if (a.l != 0 && !(u & 1))
    u += (a.l > 0) == (a.h > 0) ? 1 : (uint64_t)-1;
  return (float)pf_f64_of_bits(u);
}

double pf_dexp(double x) {
  return pf_dexp_seq(x);
}

double pf_dlog(double x) {
  return pf_dlog_seq(x);
}

double pf_dpow(double x, double y) {
  dd r = dd_exp(dd_mul(dd_log(x), (dd){y, 0}));
  return r.h + r.l;
}

/* x = k pi/2 + r with pi/2 in parts of 30, 30, 30 and 53 bits: k times each of the first three is
 * exact. Returns k mod 4. */
static int reduce(double x, dd *r) {
  double k = (x * 0x1.45f306dc9c883p-1 + PF_D_MAGIC) - PF_D_MAGIC;
  dd a = two_sum(x - k * 0x1.921fb54p+0, -(k * 0x1.10b46118p-30));
  dd b = two_sum(a.h, -(k * 0x1.313198ap-61));
  *r = fast_two_sum(b.h, (a.l + b.l) - k * 0x1.701b839a25205p-92);
  return (int)((int64_t)k & 3);
}

/* sin(h + l) = h + (h^3 S(h^2) + l (1 - h^2/2)), Taylor series to h^17. */
static double sin_poly(dd r) {
  double z = r.h * r.h, s = 0x1.952c77030ad4ap-49;
  s = s * z - 0x1.ae7f3e733b81fp-41;
  s = s * z + 0x1.6124613a86d09p-33;
  s = s * z - 0x1.ae64567f544e4p-26;
  s = s * z + 0x1.71de3a556c734p-19;
  s = s * z - 0x1.a01a01a01a01ap-13;
  s = s * z + 0x1.1111111111111p-7;
  s = s * z - 0x1.5555555555555p-3;
  return r.h + ((r.h * z) * s + r.l * (1.0 - 0.5 * z));
}

/* cos(h + l) = w + ((1 - w - z/2) + (z^2 C(z) - h l)), z = h^2, w = fl(1 - z/2), Taylor series to
 * h^18. */
static double cos_poly(dd r) {
  double z = r.h * r.h, c = -0x1.6827863b97d97p-53;
  c = c * z + 0x1.ae7f3e733b81fp-45;
  c = c * z - 0x1.93974a8c07c9dp-37;
  c = c * z + 0x1.1eed8eff8d898p-29;
  c = c * z - 0x1.27e4fb7789f5cp-22;
  c = c * z + 0x1.a01a01a01a01ap-16;
  c = c * z - 0x1.6c16c16c16c17p-10;
  c = c * z + 0x1.5555555555555p-5;
  double h = 0.5 * z, w = 1.0 - h;
  return w + (((1.0 - w) - h) + (z * z * c - r.h * r.l));
}

/* sin(x + q pi/2) */
static double sin_quadrant(double x, int q) {
  if (!(x >= -0x1p23 && x <= 0x1p23))
    return pf_f64_of_bits(UINT64_C(0x7ff8) << 48);
  dd r;
  q = (q + reduce(x, &r)) & 3;
  double y = q & 1 ? cos_poly(r) : sin_poly(r);
  return q & 2 ? -y : y;
}

double pf_dsin(double x) {
  return sin_quadrant(x, 0);
}

double pf_dcos(double x) {
  return sin_quadrant(x, 1);
}

float pf_rope_inv_freq(double theta, int i, int d) {
  uint64_t env = pf_fp_enter();
  PF_FP_PIN(theta);
  PF_FP_PIN(i);
  double y = -2.0 * i / d;
  dd p = two_prod(y, d);
  dd e = fast_two_sum(y, ((-2.0 * i - p.h) - p.l) / d);
  float f = dd_to_f32(dd_exp(dd_mul(dd_log(theta), e)));
  PF_FP_PIN(f);
  pf_fp_leave(env);
  return f;
}

void pf_rope_angle(int32_t pos, float inv_freq, float *cos, float *sin) {
  uint64_t env = pf_fp_enter();
  PF_FP_PIN(pos);
  float a = (float)pos * inv_freq;
  *cos = (float)pf_dcos((double)a);
  *sin = (float)pf_dsin((double)a);
  pf_fp_leave(env);
}
