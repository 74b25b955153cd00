/* SPDX-License-Identifier: Apache-2.0
 * Vectors for controls. */
#include "analysis/direction.h"

#include <math.h>

#include "base/bf16.h"
#include "base/dmath.h"
#include "base/fpenv.h"
#include "base/rng.h"

static const uint64_t SEED = 2605; /* of all of them: streams tell them apart */
#define TWO_PI 6.283185307179586

double pf_norm(const float *x, size_t d) {
  double sum = 0;
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i++)
    sum += (double)x[i] * (double)x[i];
  sum = sqrt(sum);
  PF_FP_PIN(sum);
  pf_fp_leave(env);
  return sum;
}

double pf_distance(const float *a, const float *b, size_t d) {
  double sum = 0;
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i++) {
    double x = (double)a[i] - (double)b[i];
    sum += x * x;
  }
  sum = sqrt(sum);
  PF_FP_PIN(sum);
  pf_fp_leave(env);
  return sum;
}

void pf_add_scaled(const float *x, const double *u, double scale, size_t d, float *out) {
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i++)
    out[i] = (float)((x ? (double)x[i] : 0) + scale * u[i]);
  pf_fp_leave(env);
}

void pf_normals(uint64_t stream, size_t d, double *out) {
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i += 2) {
    double u = 1 - pf_uniform(SEED, stream, i), a = TWO_PI * pf_uniform(SEED, stream, i + 1),
           r = sqrt(-2 * pf_dlog(u));
    out[i] = r * pf_dcos(a);
    if (i + 1 < d)
      out[i + 1] = r * pf_dsin(a);
  }
  pf_fp_leave(env);
}

static double mean_at(const float *const *v, size_t n, size_t e) {
  double sum = 0;
  for (size_t k = 0; k < n; k++)
    sum += (double)v[k][e];
  return sum / (double)n;
}

enum { PART = 1024 }; /* elements whose means are there at a time */

/* mean_at of the elements [lo, hi), at most PART, vector by vector as they lie in memory. */
static void means(const float *const *v, size_t n, size_t lo, size_t hi, double *out) {
  for (size_t e = lo; e < hi; e++)
    out[e - lo] = 0;
  for (size_t k = 0; k < n; k++)
    for (size_t e = lo; e < hi; e++)
      out[e - lo] += (double)v[k][e];
  for (size_t e = lo; e < hi; e++)
    out[e - lo] /= (double)n;
}

void pf_covariance_draw(const float *const *v, size_t n, uint64_t stream, size_t d, double *out) {
  double mean[PART];
  uint64_t env = pf_fp_enter();
  for (size_t lo = 0; lo < d; lo += PART) {
    size_t hi = lo + PART < d ? lo + PART : d;
    means(v, n, lo, hi, mean);
    for (size_t e = lo; e < hi; e++)
      out[e] = 0;
    for (size_t k = 0; k < n; k++) {
      double z[2];
      pf_normals(stream ^ (uint64_t)(k + 1) << 32, 2, z);
      for (size_t e = lo; e < hi; e++)
        out[e] = out[e] + z[0] * (double)v[k][e] - z[0] * mean[e - lo];
    }
  }
  pf_fp_leave(env);
}

void pf_set_length(double *u, double length, size_t d) {
  double sum = 0;
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < d; i++)
    sum += u[i] * u[i];
  for (size_t i = 0; i < d && sum > 0; i++)
    u[i] *= length / sqrt(sum);
  pf_fp_leave(env);
}

void pf_jitter(const float *x, bool bf16, uint64_t stream, size_t d, float *out) {
  uint32_t w[4] = {0}, step = bf16 ? 1u << 16 : 1u;
  for (size_t i = 0; i < d; i++) {
    if (i % 128 == 0)
      pf_philox(SEED, stream, i / 128, w);
    uint32_t bits = pf_bits_of_f32(x[i]);
    bool up = w[i / 32 % 4] >> (i % 32) & 1u;
    out[i] = x[i] == 0 ? x[i] : pf_f32_of_bits(up ? bits + step : bits - step);
  }
}

void pf_mean_vector(const float *const *v, size_t n, size_t d, float *out) {
  double mean[PART];
  uint64_t env = pf_fp_enter();
  for (size_t lo = 0; lo < d; lo += PART) {
    size_t hi = lo + PART < d ? lo + PART : d;
    means(v, n, lo, hi, mean);
    for (size_t e = lo; e < hi; e++)
      out[e] = (float)mean[e - lo];
  }
  pf_fp_leave(env);
}

bool pf_two_way_fit(const float *const *h, size_t n_personas, size_t n_tasks, size_t i, size_t j,
                    size_t d, float *out) {
  double p = (double)n_personas, t = (double)n_tasks;
  if (n_personas < 2 || n_tasks < 2)
    return false;
  uint64_t env = pf_fp_enter();
  for (size_t e = 0; e < d; e++) {
    double row = 0, column = 0, all = 0;
    for (size_t c = 0; c < n_personas * n_tasks; c++) {
      double x = (double)h[c][e];
      bool same_row = c / n_tasks == i, same_column = c % n_tasks == j;
      if (same_row && same_column)
        continue;
      row += same_row ? x : 0;
      column += same_column ? x : 0;
      all += x;
    }
    out[e] = (float)((p * row + t * column - all) / ((p - 1) * (t - 1)));
  }
  pf_fp_leave(env);
  return true;
}

/* Sums of squares of one element over the table: about the mean, and of the interaction. */
static void squares(const float *const *h, size_t np, size_t nt, size_t e, double *total,
                    double *inter) {
  double all = mean_at(h, np * nt, e);
  for (size_t i = 0; i < np; i++) {
    double row = mean_at(h + i * nt, nt, e);
    for (size_t j = 0; j < nt; j++) {
      double column = 0, x = (double)h[i * nt + j][e];
      for (size_t k = 0; k < np; k++)
        column += (double)h[k * nt + j][e];
      double r = x - row - column / (double)np + all;
      *total += (x - all) * (x - all);
      *inter += r * r;
    }
  }
}

double pf_r2_two_way(const float *const *h, size_t n_personas, size_t n_tasks, size_t d) {
  double total = 0, inter = 0;
  uint64_t env = pf_fp_enter();
  for (size_t e = 0; e < d; e++)
    squares(h, n_personas, n_tasks, e, &total, &inter);
  double r2 = total > 0 ? 1 - inter / total : (double)NAN;
  PF_FP_PIN(r2);
  pf_fp_leave(env);
  return r2;
}
