/* SPDX-License-Identifier: Apache-2.0
 * What the kernel tests share: shaped inputs in guarded memory, comparison by bits, hashes of the
 * reference's outputs. */
#ifndef PF_TESTS_CS_H
#define PF_TESTS_CS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bf16.h"
#include "base/sha256.h"
#include "simd/kernels.h"

/* Shapes of inputs. */
enum {
  CS_UNIT,   /* about [-2, 2] */
  CS_WIDE,   /* exponents over the whole normal range */
  CS_TINY,   /* around the smallest normal number, denormals among them */
  CS_HUGE,   /* around the largest number */
  CS_SIGNS,  /* zeros of both signs, +-1, pairs that cancel */
  CS_BITS,   /* any bits: NaN and Inf among them */
  CS_FINITE, /* any bits of finite numbers */
  CS_KINDS,
  /* Of single tests, outside the golden hashes. */
  CS_POINTS = 100, /* where rounding to bf16 turns: ties, borders, NaNs that a cut would make Inf */
  CS_SMALL,        /* products about the smallest normal number: sums that flush to -0 */
  CS_ALONE,        /* as CS_UNIT; of attention, a block has one key or two that a query sees */
  CS_TIES          /* halves up to 127, which divided by a scale of 1 lie between integers */
};

typedef struct cs {
  const pf_simd *ref, *v; /* the reference and the table with the kernel under test */
  const pf_kernel *k;
  uint64_t seed, counter;
  uint32_t words[4]; /* drawn, of the counter's group of four */
  int place;         /* 0: data begins at a guard page; 1: data ends at one */
  unsigned cases;
  bool failed;
  pf_sha256 *hash;        /* of the reference's outputs, while the scalar kernels run */
  pf_sha256 *laid_by;     /* see cs_extra */
  struct cs_known *known; /* outputs of the reference, kept for an operation's variants */
  size_t at;              /* values of them that were used */
  unsigned drawn;         /* cases that cs_leave_out was asked about */
  bool left_out;          /* of the reference too (tiny tier) */
} cs;

uint32_t cs_u32(cs *t);
float cs_value(cs *t, int kind);
/* A block of n floats between guard pages, at the place in force; slots 0..11. */
void *cs_guarded(cs *t, int slot, size_t bytes);
/* The same, filled with values of the kind. */
float *cs_in(cs *t, int slot, size_t n, int kind);
/* Two blocks for the kernel's and the reference's output, filled with one canary pattern; slots
 * 0..3. */
void cs_out(cs *t, int slot, size_t n, float **got, float **want);
/* Compares n floats (or doubles) by bits, NaN equal to NaN; hashes `want`. The text says the sizes.
 */
void cs_cmp(cs *t, const float *got, const float *want, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void cs_cmp_d(cs *t, double got, double want, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void cs_cmp_u(cs *t, uint64_t got, uint64_t want, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* True at the end of an operation's last round: what is drawn and compared from here on is not
 * hashed, so that cases can be added without another golden value. */
bool cs_extra(cs *t);

/* Products are slow in the reference and all variants of an operation see the same inputs: the
 * first one to run keeps the reference's outputs for the others. True: want (n floats) was filled;
 * false: the caller computes it and hands it to cs_keep. */
bool cs_recall(cs *t, float *want, size_t n);
/* In the small tier variants run every third case, in the tiny tier they and the reference every
 * twelfth: true if this one, of n outputs, is left out. */
bool cs_leave_out(cs *t, size_t n);
void cs_keep(cs *t, const float *want, size_t n);

/* Sizes around the lane count and the block. */
extern const size_t cs_sizes[];
extern const size_t cs_n_sizes;

/* One test per operation. */
typedef void (*cs_fn)(cs *t);
/* clang-format off */
#define CS_OPS(F) \
  F(operand_x3_bf16) F(gemm_x3_bf16) F(operand_bf16) F(gemm_bf16) F(operand_f32) F(gemm_f32) \
  F(operand_s8) F(gemm_s8) F(quant_s8) F(round_bf16) F(rms_scale) F(rms_apply) F(rms_weight) \
  F(rope) F(qk) F(qk_bf16) F(softcap) F(softmax) F(pv) F(pv_bf16) F(gelu_tanh) \
  F(silu) F(mul) F(add) F(scale) F(finite) F(argmax) \
  F(logsumexp) F(kl) F(jsd) F(vexp) F(vtanh) F(vsigmoid) F(canary)
/* clang-format on */
#define CS_PROTO(op) void cs_##op(cs *t);
CS_OPS(CS_PROTO)
#undef CS_PROTO

/* Tests of the reference itself: 0 or the number of failures. */
unsigned cs_naive(void);
/* checksimd --bench */
void cs_bench(const pf_simd *s, const char *isa);

#endif
