/* SPDX-License-Identifier: Apache-2.0
 * What the files of `personaflow profile` share: the result as JSON, and columns over its rows. */
#ifndef PF_ANALYSIS_PROFILE_H
#define PF_ANALYSIS_PROFILE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "personaflow/profile.h"

#define PF_PROFILE_SCHEMA "personaflow-profile/1"

/* THE list of columns. F(id, key, header, what) */
#define PF_PROFILE_COLUMNS(F)                                                                      \
  F(TIME, "time", "ms", "median over the repeats, of a thread")                                    \
  F(SHARE, "share", "share", "of the phase's wall time")                                           \
  F(CALLS, "calls", "calls", "uses in one repeat")                                                 \
  F(FLOPS, "flops", "GFLOP", "a multiply-add is two")                                              \
  F(BYTES, "bytes", "MB", "that have to move at least once")                                       \
  F(GFLOPS, "gflops", "GFLOP/s", "flops / time")                                                   \
  F(GBS, "gbs", "GB/s", "bytes / time")                                                            \
  F(INTENSITY, "intensity", "FLOP/B", "flops / bytes")                                             \
  F(PEAK, "peak", "% peak", "of the machine's products in this precision, or of its attention")    \
  F(BANDWIDTH, "bandwidth", "% read", "of the best read bandwidth")                                \
  F(IMBALANCE, "imbalance", "imbal.", "time of the slowest thread over the mean, less one")
typedef enum pf_profile_column {
#define PF_COLUMN_ID(id, key, header, what) PF_COLUMN_##id,
  PF_PROFILE_COLUMNS(PF_COLUMN_ID)
#undef PF_COLUMN_ID
      PF_N_COLUMNS
} pf_profile_column;

/* A row of a table: records of the result added up. */
typedef struct pf_profile_line {
  int32_t layer;    /* -1: outside of layers, or of all layers together */
  const char *name; /* of a role; NULL: a layer's sum */
  bool all_layers;
  double value[PF_N_COLUMNS]; /* NaN: none */
  double noise; /* standard error of the median over it, from the repeats; NaN with one */
  size_t order;
} pf_profile_line;

/* The lines of a phase of the result, sorted and cut as the view says. *out is a heap array. */
int pf_profile_lines(const json_t *result, const json_t *phase, const pf_profile_view *v,
                     pf_profile_line **out, size_t *n);
/* Its name as the tables have it: "3 mlp.act", "norms", "layer 3". */
void pf_profile_line_name(const pf_profile_line *l, char out[96]);
/* Operations a second that the machine reaches at most in what a role does (NULL: products); 0: not
 * measured. */
double pf_profile_roof(const json_t *machine, const char *role);
/* Reads a result from its text, checked. */
int pf_profile_parse(const char *name, const char *json, json_t **out);

/* A table of a result, and every row of it as CSV (v: not used). */
int pf_profile_put_table(const json_t *r, const pf_profile_view *v, pf_buf *b);
int pf_profile_put_csv(const json_t *r, const pf_profile_view *v, pf_buf *b);
/* profpage.c: report.html. */
int pf_profile_page(const json_t *result, pf_buf *b);
/* proftrace.c: spans as a Chrome trace (JSON object format, complete events); one phase behind the
 * other. begin: seconds at which the spans' time begins. */
void pf_trace_open(pf_buf *b, const char *title, int threads);
void pf_trace_add(pf_buf *b, const char *phase, double begin, double wall, const pf_profile_span *s,
                  size_t n);
void pf_trace_close(pf_buf *b);

#endif
