/* SPDX-License-Identifier: Apache-2.0
 * The parts of bench/kernels: options, timing, the table of results, products, rows, other
 * libraries. */
#ifndef PF_BENCH_BENCH_H
#define PF_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "simd/peak/peaks.h"
#include "simd/kernels.h"

enum { PF_BENCH_MAX_M = 16 };

typedef enum pf_format { PF_TEXT, PF_CSV, PF_JSON } pf_format;

typedef struct pf_bench_opts {
  const char *ops, *isas; /* lists with commas; NULL: all */
  size_t k, n;            /* a shape of one's own; 0: the models' */
  size_t m[PF_BENCH_MAX_M], n_m;
  size_t group; /* of int8 products */
  int threads;
  pf_format format;
  bool peers, quick, peaks_only, smoke, targets;
  double seconds; /* a measurement lasts at least */
  double limit;   /* a call that would last longer is left out */
} pf_bench_opts;

/* True when the list is NULL or names the word. */
bool pf_bench_listed(const char *list, const char *word);

typedef struct pf_timing {
  double best, median; /* seconds of a call */
  double cpus;         /* processor time over time: CPUs that were busy */
  int calls;
} pf_timing;

/* Calls fn(arg) for at least `seconds`, and three times unless that takes longer than `limit`. */
typedef void (*pf_bench_fn)(void *arg);
pf_timing pf_bench_time(pf_bench_fn fn, void *arg, double seconds, double limit);

/* One line of the table. */
typedef struct pf_result {
  const char *op, *isa, *what; /* isa: or the other library; what: model and matrix, or where */
  size_t m, k, n;              /* k 0: row operations */
  pf_timing t;
  double ops, bytes;     /* of a call; ops 0: not counted */
  bool memory;           /* the bytes come from memory, not from a cache */
  double peak, peak_now; /* operations a second that the machine can do, over the whole run and
                            beside this line, in units of `ops`; 0: unknown */
  double read_now;       /* bandwidth beside this line */
  double openblas, dnnl; /* their time over ours; 0: not measured */
  double cost;           /* our time over that of the same product in a free order */
  bool disturbed;        /* the machine was slower than its best in every try */
} pf_result;

typedef struct pf_bench {
  pf_bench_opts o;
  pf_peaks peaks;
  pf_arena arena;
  size_t lines, left_out;
} pf_bench;

/* table.c: writes to standard output as the lines come. */
void pf_table_begin(const pf_bench *b);
void pf_table_line(pf_bench *b, const pf_result *r);
void pf_table_end(const pf_bench *b);

/* measure.c: times the call into r->t; measures the machine before it, and again when that was
 * slow. peak: the kind of instruction, or -1; share: operations of the instruction for each that r
 * counts. */
void pf_bench_measure(pf_bench *b, pf_result *r, pf_bench_fn fn, void *arg, int peak, double share);

/* The kernels of one instruction set alone, the other slots NULL; false when the CPU lacks it. */
bool pf_bench_isa(pf_simd *out, const char *isa);
/* Instruction sets of this build, from the reference to the best; NULL after the last. */
const char *pf_bench_isa_name(size_t i);

/* products.c, rows.c: PF_OK or PF_ENOMEM. */
int pf_bench_products(pf_bench *b);
int pf_bench_rows(pf_bench *b);
int pf_bench_attention(pf_bench *b); /* attn.c */
int pf_bench_layout(pf_bench *b);    /* layout.c */
int pf_bench_targets(pf_bench *b);   /* targets.c: the table of targets instead of all that */
/* Bytes of the largest weights that pf_bench_products reads. */
size_t pf_bench_largest(const pf_bench_opts *o);
/* The i-th matrix of the models. */
bool pf_bench_shape(size_t i, const char **what, size_t *k, size_t *n);
/* One product by itself; freely: in the best order that bench/free.h has. NULL: the CPU or the
 * build does not have it, or no memory. */
typedef struct pf_bench_product pf_bench_product;
pf_bench_product *pf_bench_product_open(const pf_bench *b, const char *op, const char *isa,
                                        bool free_order, size_t m, size_t k, size_t n);
void pf_bench_product_call(void *p);
double pf_bench_product_bytes(const pf_bench_product *p);
void pf_bench_product_close(pf_bench_product *p);
/* Operations a second that the instruction set can do for this product; 0: not known. */
double pf_bench_product_peak(const pf_bench *b, const char *op, const char *isa);
/* That instruction, to be called in turn with the product, and how often the product needs it for
 * an operation; false: not measured. */
bool pf_bench_product_peaking(const pf_bench *b, const char *op, const char *isa, pf_peaking *out,
                              double *passes);

/* attn.c: attention of one layer. */
typedef struct pf_bench_model {
  const char *name;
  size_t layers, heads, kv_heads, d;
  float cap;
} pf_bench_model;
const pf_bench_model *pf_bench_model_at(size_t i); /* NULL after the last */
typedef struct pf_bench_attn pf_bench_attn;
/* halves: K and V of bf16. */
pf_bench_attn *pf_bench_attn_open(const pf_bench *b, const pf_bench_model *m, const char *isa,
                                  bool halves, bool decode);
const char *pf_bench_attn_op(bool halves); /* its word for --op */
void pf_bench_attn_call(void *a);
double pf_bench_attn_bytes(const pf_bench_attn *a);
double pf_bench_attn_ops(const pf_bench_attn *a);
void pf_bench_attn_close(pf_bench_attn *a);

/* Calls several in turn, so that a disturbance meets all of them: rounds of one call each for
 * `seconds`, at least three. t[i]: the median of fn[i]. */
enum { PF_BENCH_RACERS = 4 };
void pf_bench_race(size_t n, const pf_bench_fn *fn, void *const *arg, double seconds, double *t);

/* True when there is an operation of this name. */
bool pf_bench_has_product(const char *op);
bool pf_bench_has_row(const char *op);

/* peers.c: y (m,n) = x (m,k) w of other libraries. */
typedef enum pf_peer_kind {
  PF_PEER_SGEMM,  /* OpenBLAS, fp32; one vector: sgemv */
  PF_PEER_SBGEMM, /* OpenBLAS, bf16, where the library has it */
  PF_PEER_DNNL_F32,
  PF_PEER_DNNL_BF16,
  PF_PEER_DNNL_S8, /* to fp32, a scale for each output */
  PF_PEER_N
} pf_peer_kind;

typedef struct pf_peer pf_peer;
/* Weights are read from the arena, another copy in each call. NULL: the library or the CPU does not
 * offer it, or no memory. */
pf_peer *pf_peer_open(pf_peer_kind kind, const pf_bench *b, size_t m, size_t k, size_t n);
void pf_peer_call(void *peer);
double pf_peer_bytes(const pf_peer *p); /* weights of a call */
void pf_peer_close(pf_peer *p);
const char *pf_peer_op(pf_peer_kind kind);
const char *pf_peer_library(pf_peer_kind kind); /* "openblas", "onednn" */
/* One line about each library: version, code path, threads. */
void pf_peers_describe(char openblas[256], char dnnl[256]);

#endif
