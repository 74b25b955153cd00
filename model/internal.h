/* SPDX-License-Identifier: Apache-2.0
 * What the files of the model floor share: configuration, packed weights, the opened model. */
#ifndef PF_MODEL_INTERNAL_H
#define PF_MODEL_INTERNAL_H

#include <stdbool.h>

#include "personaflow/model.h"
#include "simd/simd.h"

/* Inner dimensions that share a scale when int8 weights are made (doc/KERNELS.md has the reason);
 * part of the numerics contract. */
#define PF_S8_GROUP 512

/* Repetition penalties: what is far outside leaves fp32's range. */
#define PF_PENALTY_LO 1e-3
#define PF_PENALTY_HI 1e3

/* The quantization_config of directories with int8 weights. */
#define PF_QUANT_METHOD       "personaflow-int8"
#define PF_QUANT_VERSION      1
#define PF_QUANT_VERSION_TEXT "1"

typedef enum pf_arch { PF_GEMMA2, PF_QWEN2 } pf_arch;

typedef struct pf_config {
  pf_model_info info; /* what the public sees; strings point into this struct or static text */
  pf_arch arch;
  uint8_t *windowed; /* (n_layers) 1: a query sees its own position and the sliding_window - 1
                        before it */
  char dir[4096];
  bool attn_bias; /* q/k/v have biases */
  bool gelu_tanh; /* else silu */
  bool plus_one;  /* norms multiply by (1+w) */
  bool post_norms;
  /* Embedding times sqrt(d_model). Hugging Face rounds that factor to the dtype it computes in; in
   * fp32, which is what precision f32 reproduces, it is fp32(sqrt(d_model)) whatever the
   * checkpoint's dtype. */
  bool scale_embed;
  int32_t s8_group; /* of a directory with int8 weights (personaflow quantize), else 0 */
} pf_config;

typedef enum pf_wtype { PF_W_BF16, PF_W_F32, PF_W_S8, PF_N_WTYPES } pf_wtype;

/* A weight matrix (n outputs, k inputs) packed as in simd/simd.h. */
typedef struct pf_mat {
  pf_wtype type;
  size_t n, k, kp;
  size_t group; /* PF_W_S8: k that share a scale; ws, wsum [(panel * groups + g) * 16 + lane] */
  void *w;
  float *ws;
  int32_t *wsum;
} pf_mat;

static inline size_t pf_mat_groups(const pf_mat *m) {
  return m->group ? (m->kp + m->group - 1) / m->group : 0;
}

typedef struct pf_layer {
  pf_mat q, k, v, o, gate, up, down;
  float *bq, *bk, *bv;                    /* NULL: none */
  float *ln1, *ln1_post, *ln2, *ln2_post; /* (d_model); post NULL without post norms */
} pf_layer;

/* The hook points that the configuration has; at[id] is the place in list, -1 when absent. */
typedef struct pf_hook_table {
  pf_hook_info *list;
  char *alias;
  size_t n;
  int at[64];
} pf_hook_table;

struct pf_model {
  pf_config cfg;
  pf_mat embed;   /* (vocab, d_model) */
  pf_mat unembed; /* == embed (same w) when tied */
  float *ln_final;
  pf_layer *layers; /* NULL: configuration only */
  void *arena;      /* all packed weights and vectors live here; mapped by weights.c */
  size_t arena_bytes;
  char sha256[65];
  pf_load_times load;
  pf_tensor_info *tensors; /* with their digests, in name order; NULL: no checksum was asked for */
  size_t n_tensors;
  struct pf_tensor_text *tensor_text; /* their strings */
  pf_hook_table hooks; /* made by pf_hook_table_make when the configuration is read */
};

/* config.c: reads and checks config.json and generation_config.json of a resolved directory. */
int pf_config_read(pf_config *out, const char *dir);
/* The same from the files' texts; generation may be NULL. */
int pf_config_parse(pf_config *out, const char *dir, const char *config, size_t n,
                    const char *generation, size_t n_generation);
void pf_config_free(pf_config *c);
/* hfcache.c: directory or org/name[@revision] -> directory. */
int pf_resolve_dir(const char *path, char *buf, size_t size);
/* weights.c: reads and packs every tensor into m (m->cfg is filled). pf_weights_free undoes it. */
int pf_weights_load(pf_model *m, const pf_model_opts *opts);
void pf_weights_free(pf_model *m);

/* hooks.c */
int pf_hook_table_make(pf_hook_table *t, const pf_config *c);
void pf_hook_table_free(pf_hook_table *t);
const pf_hook_info *pf_hook_by_id(const pf_model *m, int id); /* NULL: the model has none */

/* Panels of 16 outputs. */
static inline size_t pf_mat_panels(const pf_mat *w) {
  return (w->n + PF_LANES - 1) / PF_LANES;
}
/* Of panels [lo, hi) of a line of matrices those of one that begins at `base`; false: none. */
static inline bool pf_line_part(size_t base, size_t panels, size_t lo, size_t hi, size_t *from,
                                size_t *to) {
  *from = lo > base ? lo - base : 0;
  *to = hi > base ? hi - base : 0;
  *to = *to < panels ? *to : panels;
  return *from < *to;
}
/* The first word of a panel. */
const void *pf_mat_panel(const pf_mat *w, size_t panel);
/* Element (row, col) of a packed matrix as fp32: exact; int8: value times scale, one rounding. */
float pf_mat_get(const pf_mat *w, size_t row, size_t col);
/* One whole row, k values. */
void pf_mat_row(const pf_mat *w, size_t row, float *out);

#endif
