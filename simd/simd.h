/* SPDX-License-Identifier: Apache-2.0
 * The kernels: one struct of function pointers, chosen once (dispatch.c). Serial, and without any
 * knowledge of a model. Every variant of an operation gives the same bits; simd/CONTRACT.md has the
 * formula, the order of summation and the treatment of special values of each. Callers are inside
 * pf_fp_enter (base/fpenv.h).
 *
 * Letters: m rows of activations, n output columns, k inner, kp = k rounded up to 32, d a head's
 * width, dp = d rounded up to 16. Vectors may have any length (kernels treat tails without reading
 * or writing past the end); no alignment is required except where said. Inputs and outputs do not
 * overlap unless said; elementwise ops allow y == x. */
#ifndef PF_SIMD_H
#define PF_SIMD_H

#include <stddef.h>
#include <stdint.h>

#define PF_LANES 16 /* the vector semantics: 16 fp32 lanes, whatever the hardware's width */
#define PF_KBLK  32 /* block of the contract's dot product; also the positions of a K,V block */

/* A product: y[i*ldy + j] = dot(row i of the operands, row j of the weights) (+ bias[j], a rounding
 * of its own), i < m, j < n.
 *
 * Weights are packed in panels of 16 outputs, 64-byte aligned, absent outputs and k >= K are 0:
 *   bf16: w[(panel*kp/2 + k/2)*32 + 2*lane + k%2]   uint16; kp = k rounded up to 32
 *   f32:  w[(panel*kp + k)*16 + lane]               float;  the same kp
 *   s8:   w[(panel*kp/4 + k/4)*64 + 4*lane + k%4]   int8;   kp = k rounded up to 64
 *         ws, wsum [(panel*groups + g)*16 + lane]: the scale, and the sum of the weights, of group
 * g of k (group values each, the last one fewer) An AMX tile is 16 such rows of 64 bytes.
 *
 * Operands are rows of activations in the form that the product's kernel reads; operand_T makes
 * them row by row, and only the operand_T and gemm_T of one instruction set fit together. */
typedef struct pf_gemm {
  size_t m, n, k, kp, ldy;
  const void *a; /* 64-byte aligned, pf_operand_bytes */
  const void *w;
  const float *ws; /* s8 only, as are the next two */
  const int32_t *wsum;
  size_t group;      /* a multiple of 64, at most PF_S8_GROUP_MAX */
  const float *bias; /* NULL: none */
  float *y;
  void *work; /* scratch of the call: PF_GEMM_WORK bytes, 64-byte aligned */
} pf_gemm;

#define PF_GEMM_WORK    ((size_t)640 << 10)
#define PF_S8BLK        64   /* kp of int8 products is a multiple of it */
#define PF_S8_GROUP_MAX 1024 /* 127 * 127 * 1024 < 2^24: a group's sum is exact in fp32 */

/* Bytes that hold the operands of m rows in any form. parts: 3 for x3_bf16, else 1. */
static inline size_t pf_operand_bytes(size_t parts, size_t m, size_t kp) {
  return parts * ((m + 15) / 16 * 16) * kp * sizeof(float);
}

/* Attention of nq queries that share one K,V head; keys lie in nblk blocks of 32 positions. Queries
 * and results are rows wherever they stand. The scores of a query become its probabilities.
 *
 * A block is packed as weights are: that of K as 32 outputs (keys) over d, that of V as dp outputs
 * (dimensions) over 32 keys.
 *   f32:  K [2][d][16], V [dp/16][32][16]                   (kp of K is d)
 *   bf16: K [2][kp/2][16][2], V [dp/16][16][16][2], 64-byte aligned */
typedef struct pf_attn {
  size_t d, nq, nblk;
  const float *const *q;       /* (nq) rows of d; qk_bf16: values that are bf16 */
  const void *const *kblk;     /* (nblk); NULL: nothing visible */
  const void *const *vblk;     /* (nblk); NULL alike */
  const uint32_t *const *mask; /* (nq) rows of nblk: bit j = key j of the block takes part */
  float scale;                 /* qk only */
  size_t lds;                  /* at least 32 * nblk */
  float *s;                    /* (nq, lds); pv_bf16: values that are bf16, where seen */
  float *const *y;             /* (nq) rows of d, pv only */
  void *work; /* scratch of qk_bf16 and pv_bf16: PF_ATTN_WORK bytes, 64-byte aligned */
} pf_attn;

#define PF_ATTN_WORK PF_GEMM_WORK /* d at most 4096 */

/* Element k of output n in the packed layouts of bf16 and fp32. */
static inline size_t pf_packed_bf16(size_t kp, size_t n, size_t k) {
  return (n / 16 * kp + k / 2 * 2) * 16 + 2 * (n % 16) + k % 2;
}
static inline size_t pf_packed_f32(size_t kp, size_t n, size_t k) {
  return (n / 16 * kp + k) * 16 + n % 16;
}

typedef struct pf_simd {
  /* Row `row` of the operands `a` from the k values of x. x3: x = hi + mid + lo, each the
   * round-to-nearest-even bf16 of the remainder; bf16: rounded; f32: as it is; s8: int8 and one
   * scale per group of k. */
  void (*operand_x3_bf16)(size_t row, size_t k, size_t kp, const float *x, void *a);
  void (*gemm_x3_bf16)(const pf_gemm *g);
  void (*operand_bf16)(size_t row, size_t k, size_t kp, const float *x, void *a);
  void (*gemm_bf16)(const pf_gemm *g);
  void (*operand_f32)(size_t row, size_t k, size_t kp, const float *x, void *a);
  void (*gemm_f32)(const pf_gemm *g);
  void (*operand_s8)(size_t row, size_t k, size_t kp, size_t group, const float *x, void *a);
  void (*gemm_s8)(const pf_gemm *g);

  /* x = q * scale: scale = max|x| / 127, q the nearest integer to x / scale. Returns the scale; NaN
   * (and q 0) when a value is not finite. */
  float (*quant_s8)(size_t n, const float *x, int8_t *q);
  /* y = x rounded to the nearest even bf16; y == x allowed. */
  void (*round_bf16)(size_t n, const float *x, float *y);

  /* sqrt(mean(x^2) + eps) */
  float (*rms_scale)(size_t d, const float *x, float eps);
  /* y = x * (1/scale) */
  void (*rms_apply)(size_t d, const float *x, float scale, float *y);
  /* y = x * w (plus_one 0) or x * (1 + w) (plus_one 1) */
  void (*rms_weight)(size_t d, const float *x, const float *w, int plus_one, float *y);

  /* Rotates halves: y[i] = x[i]c[i] - x[i+d/2]s[i], y[i+d/2] = x[i+d/2]c[i] + x[i]s[i]; c, s: d/2
   * values. y == x allowed. */
  void (*rope)(size_t d, const float *x, const float *c, const float *s, float *y);

  /* s[i*lds + 32*b + j] = dot(q[i], key j of block b) * scale, where kblk[b] is there and
   * mask[i][b] is not 0; other blocks of s are left alone. */
  void (*qk)(const pf_attn *a);
  /* The same over K of bf16. */
  void (*qk_bf16)(const pf_attn *a);
  /* x = cap * tanh(x / cap) */
  void (*softcap)(size_t n, float *x, float cap);
  /* Softmax in place over the 32*nblk scores of one query. A key whose mask bit is clear counts as
   * -inf whatever its score is; a block with mask 0 is left alone, other masked keys become +0.
   * mask NULL: every key takes part. Two passes; no score above -inf: all +0. Returns 1 if the
   * score of a key that takes part is NaN or +inf (s is then undefined), else 0. */
  int (*softmax)(size_t nblk, const uint32_t *mask, float *s);
  /* y[i][0..d) = sum over keys of s[i*lds + key] * v in blocks of 32. The value of a key whose mask
   * bit is clear is read as +0, whatever is stored and whatever its s is. */
  void (*pv)(const pf_attn *a);
  /* The same over V of bf16. */
  void (*pv_bf16)(const pf_attn *a);

  void (*gelu_tanh)(size_t n, const float *x, float *y);
  void (*silu)(size_t n, const float *x, float *y);
  void (*mul)(size_t n, const float *a, const float *b, float *y);
  void (*add)(size_t n, const float *a, const float *b, float *y);
  void (*scale)(size_t n, const float *x, float f, float *y);

  /* 1 if every value is finite. */
  int (*finite)(size_t n, const float *x);
  /* Largest value's index, ties to the lowest; *second: the runner-up's value (-inf for n = 1). */
  size_t (*argmax)(size_t n, const float *x, float *second);
  /* log(sum(exp(x))) in fp64. */
  double (*logsumexp)(size_t n, const float *x);
  /* kl[r] = sum softmax(p)*(log softmax(p) - log softmax(q[r])) in fp64 for m rows q. lse_p, lse_q:
   * their logsumexp. Rows that come together share the exponentials of p. */
  void (*kl)(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
             const double *lse_q, double *kl);
  /* The other two divergences of those rows: rkl[r] = KL(q[r] || p), jsd[r] = (KL(p || h) + KL(q[r]
   * || h)) / 2 with h = (p + q[r]) / 2: at most ln 2, exactly 0 for equal rows. */
  void (*jsd)(size_t n, const float *p, double lse_p, size_t m, const float *const *q,
              const double *lse_q, double *rkl, double *jsd);

  /* The elementary functions by themselves, for tests and digests. */
  void (*vexp)(size_t n, const float *x, float *y);
  void (*vtanh)(size_t n, const float *x, float *y);
  void (*vsigmoid)(size_t n, const float *x, float *y);

  /* 1 when the library this table came from was compiled without contraction (canary: a*b+c against
   * its two roundings). */
  int (*canary)(const volatile float *abc);
} pf_simd;

/* Fills *out with the best kernels allowed by the CPU, the OS and the cap (NULL or "":
 * PERSONAFLOW_ISA, else no cap; a name of pf_isas: that instruction set and those below it).
 * PF_EENV for an unknown name. A cap the CPU lacks is PF_EENV too. */
int pf_simd_init(pf_simd *out, const char *cap);
/* The process-wide table, made once; *status receives PF_OK or the failure. */
const pf_simd *pf_simd_get(int *status);
/* The table under a cap, always the same one; NULL or "": pf_simd_get. NULL on failure. */
const pf_simd *pf_simd_for(const char *isa, int *status);

#endif
