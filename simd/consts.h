/* SPDX-License-Identifier: Apache-2.0
 * Constants of the fp32 sequences (simd/CONTRACT.md, "Elementary functions"), shared by the
 * reference and the vector source. */
#ifndef PF_SIMD_CONSTS_H
#define PF_SIMD_CONSTS_H

#define PF_C_MAGIC  0x1.8p23f /* t = z + magic leaves rint(z) in the low bits of t */
#define PF_C_LOG2E  0x1.715476p+0f
#define PF_C_LN2_HI 0x1.62e4p-1f
#define PF_C_LN2_LO 0x1.7f7d1cp-20f
/* exp(r) = 1 + r + r^2 (Q0 + Q1 r + ... + Q5 r^5) on |r| <= 0.3476, approximation error 0.02 ulp */
#define PF_C_Q0 0x1p-1f
#define PF_C_Q1 0x1.555554p-3f
#define PF_C_Q2 0x1.55548cp-5f
#define PF_C_Q3 0x1.111274p-7f
#define PF_C_Q4 0x1.6d8f2ap-10f
#define PF_C_Q5 0x1.9f06e6p-13f
/* Below LO exp is +0 (the first value above has exp > 2^-126 (1 + 2^-18)); above HI it is +Inf. */
#define PF_C_EXP_LO   -0x1.5d589ep+6f
#define PF_C_EXP_HI   0x1.62e42ep+6f
#define PF_C_TANH_MAX 10.0f /* tanh is 1 from 9.02 on */
/* sqrt(8/pi) and 0.044715 sqrt(8/pi) */
#define PF_C_GELU_A 0x1.988454p+0f
#define PF_C_GELU_B 0x1.2444f2p-4f

/* split3: from this magnitude on (bits) the bf16 rounding gives Inf. */
#define PF_C_SPLIT_MAX 0x7f7f8000u

#endif
