/* SPDX-License-Identifier: Apache-2.0
 * The products against OpenBLAS: every output of gemm_f32 and gemm_x3_bf16 lies within the a-priori
 * bound of its order of summation around cblas_dgemm of the same operands,
 *   |y - sum a w| <= (K/32 + 20) 2^-24 sum |a w|   (K/32 additions to the accumulator; 16 in a
 * chain, their sum, the bias and H + M; simd/CONTRACT.md) for the largest error; and the mean is
 * far inside it. */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/bf16.h"
#include "base/fpenv.h"
#include "base/mem.h"
#include "base/rng.h"
#include "personaflow/types.h"
#include "simd/simd.h"
#include "tests/suite.h"

typedef struct problem {
  size_t m, n, k, kp;
  float *a, *bias, *y; /* a (m,k) */
  void *op, *work;
  double *a64, *w64, *y64, *abs64, *aabs, *wabs;
  uint16_t *wb;
  float *wf;
} problem;

/* Values of both signs over 2^-6 .. 2^6. */
static float draw(uint64_t stream, uint64_t i) {
  uint32_t w[4];
  pf_philox(2024, stream, i, w);
  return ldexpf((float)(int32_t)w[0] * 0x1p-31f, (int)(w[1] % 13) - 6);
}

static void make_operands(problem *p, bool bf16) {
  for (size_t i = 0; i < p->m * p->k; i++)
    p->a64[i] = p->a[i] = draw(1, i);
  for (size_t j = 0; j < p->n; j++) {
    p->bias[j] = draw(3, j);
    for (size_t k = 0; k < p->k; k++) {
      uint16_t h = pf_f32_to_bf16(draw(2, j * p->k + k));
      float w = bf16 ? pf_bf16_to_f32(h) : draw(2, j * p->k + k);
      size_t panel = j / PF_LANES, lane = j % PF_LANES;
      p->wb[(panel * p->kp / 2 + k / 2) * 32 + 2 * lane + k % 2] = h;
      p->wf[(panel * p->kp + k) * PF_LANES + lane] = w;
      p->w64[j * p->k + k] = w;
    }
  }
  for (size_t i = 0; i < p->m * p->k; i++)
    p->aabs[i] = fabs(p->a64[i]);
  for (size_t i = 0; i < p->n * p->k; i++)
    p->wabs[i] = fabs(p->w64[i]);
}

static void reference(const problem *p, const double *a, const double *w, double *y) {
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p->m, (int)p->n, (int)p->k, 1, a,
              (int)p->k, w, (int)p->k, 0, y, (int)p->n);
}

static void run_kernel(const problem *p, const pf_simd *f, bool bf16) {
  uint64_t env = pf_fp_enter();
  for (size_t i = 0; i < p->m; i++)
    (bf16 ? f->operand_x3_bf16 : f->operand_f32)(i, p->k, p->kp, p->a + i * p->k, p->op);
  pf_gemm g = {.m = p->m, .n = p->n, .k = p->k, .kp = p->kp, .ldy = p->n, .a = p->op};
  g.w = bf16 ? (const void *)p->wb : p->wf;
  g.bias = p->bias;
  g.y = p->y;
  g.work = p->work;
  (bf16 ? f->gemm_x3_bf16 : f->gemm_f32)(&g);
  pf_fp_leave(env);
}

static void compare(const problem *p) {
  double worst = 0, mean = 0, steps = (double)p->k / 32 + 20;
  for (size_t i = 0; i < p->m * p->n; i++) {
    double b = p->bias[i % p->n], want = p->y64[i] + b;
    double share = fabs(p->y[i] - want) / (steps * 0x1p-24 * (p->abs64[i] + fabs(b)));
    worst = share > worst ? share : worst;
    mean += share / (double)(p->m * p->n);
  }
  ck_assert_msg(worst <= 1, "m %zu n %zu k %zu: error %g of the bound", p->m, p->n, p->k, worst);
  ck_assert_msg(mean < 0.1, "m %zu n %zu k %zu: mean error %g of the bound", p->m, p->n, p->k,
                mean);
}

static void *take(size_t n, size_t size) {
  void *v = pf_calloc(n, size);
  ck_assert_ptr_nonnull(v);
  return v;
}

static void check_one(size_t m, size_t n, size_t k, bool bf16) {
  int rc;
  const pf_simd *f = pf_simd_get(&rc);
  ck_assert_int_eq(rc, PF_OK);
  size_t kp = pf_round_up(k, PF_KBLK), np = pf_round_up(n, PF_LANES);
  problem p = {.m = m, .n = n, .k = k, .kp = kp};
  p.a = take(m * kp, sizeof(float));
  p.op = take(pf_operand_bytes(3, m, kp), 1);
  p.work = take(PF_GEMM_WORK, 1);
  double **d[] = {&p.a64, &p.aabs, &p.w64, &p.wabs, &p.y64, &p.abs64};
  const size_t nd[] = {m * k, m * k, n * k, n * k, m * n, m * n};
  for (size_t i = 0; i < 6; i++)
    *d[i] = take(nd[i], sizeof(double));
  p.bias = take(n, sizeof(float));
  p.y = take(m * n, sizeof(float));
  p.wb = take(np * kp, sizeof *p.wb);
  p.wf = take(np * kp, sizeof *p.wf);
  make_operands(&p, bf16);
  reference(&p, p.a64, p.w64, p.y64);
  reference(&p, p.aabs, p.wabs, p.abs64);
  run_kernel(&p, f, bf16);
  compare(&p);
  pf_free(p.a);
  pf_free(p.op);
  pf_free(p.work);
  for (size_t i = 0; i < 6; i++)
    pf_free(*d[i]);
  pf_free(p.bias);
  pf_free(p.y);
  pf_free(p.wb);
  pf_free(p.wf);
}

static const struct {
  size_t m, n, k;
} sizes[] = {{1, 1, 1}, {1, 16, 32}, {3, 17, 33}, {7, 48, 100}, {2, 31, 640}, {5, 40, 2304}};

START_TEST(products_of_fp32_weights) {
  check_one(sizes[_i].m, sizes[_i].n, sizes[_i].k, false);
}
END_TEST

START_TEST(products_of_bf16_weights) {
  check_one(sizes[_i].m, sizes[_i].n, sizes[_i].k, true);
}
END_TEST

int main(void) {
  Suite *s = suite_create("blas");
  TCase *tc = tcase_create("blas");
  tcase_set_timeout(tc, 0);
  tcase_add_loop_test(tc, products_of_fp32_weights, 0, sizeof sizes / sizeof *sizes);
  tcase_add_loop_test(tc, products_of_bf16_weights, 0, sizeof sizes / sizeof *sizes);
  suite_add_tcase(s, tc);
  return tu_suite_run(s, CK_FORK_GETENV);
}
