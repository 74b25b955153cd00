/* SPDX-License-Identifier: Apache-2.0
 * The parts of loading: a checkpoint's files, the tensors a configuration calls for, and how the
 * two meet. */
#ifndef PF_MODEL_WEIGHTS_H
#define PF_MODEL_WEIGHTS_H

#include "model/internal.h"
#include "model/safetensors.h"

/* One open file of a checkpoint. */
typedef struct pf_shard {
  char *path;
  int fd;
  pf_st st;
  uint64_t
      id[6]; /* device, inode, size, mtime and ctime in ns: what a cached digest is valid for */
} pf_shard;

typedef struct pf_ckpt {
  pf_shard *f; /* in name order */
  size_t n;
} pf_ckpt;

/* ckpt.c: opens model.safetensors, or the shards of model.safetensors.index.json, and reads their
 * headers. */
int pf_ckpt_open(pf_ckpt *out, const char *dir);
void pf_ckpt_close(pf_ckpt *k);
/* *same: the two tensors have one dtype, one shape and the same bytes. */
int pf_ckpt_same(const pf_shard *f, const pf_st_tensor *a, const pf_shard *g, const pf_st_tensor *b,
                 bool *same);

/* What a tensor is to the model. A weight of a product is what int8 quantises; a table is read by
 * rows only (the embedding of a model that is not tied). */
typedef enum pf_role { PF_VECTOR, PF_TABLE, PF_WEIGHT, PF_SCALES, PF_N_ROLES } pf_role;

/* A tensor that the configuration calls for: (rows, cols), or a vector of rows values when cols is
 * 0. Directories with int8 weights have "NAME.scale" (rows, groups) for each weight NAME. */
typedef struct pf_want {
  char name[96];
  pf_role role;
  unsigned dtypes; /* bit pf_dtype: may be stored so */
  size_t rows, cols;
  void *dst; /* float** of a vector, else pf_mat*, in the model */
  const pf_st_tensor *src;
  const pf_shard *file;
  char sha256[65];
} pf_want;

typedef struct pf_wants {
  pf_want *v; /* in name order */
  size_t n;
} pf_wants;

/* weights.c. m may be NULL (names and shapes only). */
int pf_wants_make(pf_wants *w, const pf_config *c, pf_model *m);
/* Finds every wanted tensor and refuses missing, unexpected and misshapen ones. */
int pf_wants_match(pf_wants *w, const pf_ckpt *k, const pf_model_info *in);
void pf_wants_free(pf_wants *w);

/* touch.c. Nodes of memory in a list of the kernel's ("0-1,3"), at least 1; of this machine. */
int pf_count_nodes(const char *list);
int pf_memory_nodes(void);
/* Writes a zero to every page of the products' weights, which are placed and still zero, each by
 * the thread of `threads` that will read it. */
void pf_weights_touch(pf_model *m, int threads);

#endif
