/* SPDX-License-Identifier: Apache-2.0
 * Tensors in files larger than memory: written and read piece by piece. Values that are not finite
 * are allowed. */
#ifndef PF_ANALYSIS_TENSORSTREAM_H
#define PF_ANALYSIS_TENSORSTREAM_H

#include "analysis/tensorfile.h"

/* A safetensors file of fp32 tensors being written beside its name; it appears when it is
 * committed. */
typedef struct pf_tout pf_tout;
/* t: names and shapes; data is not used. */
int pf_tout_open(pf_tout **out, const char *path, const pf_tensor *t, size_t n,
                 const char *const *metadata);
/* n values of tensor i from its element `first` on. */
int pf_tout_put(pf_tout *w, size_t i, size_t first, const float *v, size_t n);
/* Syncs and renames; frees w also on failure. */
int pf_tout_commit(pf_tout *w);
/* Removes what was written; w may be NULL. */
void pf_tout_abandon(pf_tout *w);

/* The tensors of a safetensors file, or of the .npy files of a folder (each named by its file,
 * without ".npy"). */
typedef struct pf_tin pf_tin;
int pf_tin_open(pf_tin **out, const char *path);
size_t pf_tin_count(const pf_tin *r);
/* Name and shape (data NULL); they belong to r. */
const pf_tensor *pf_tin_get(const pf_tin *r, size_t i);
/* The place of a name, -1 when there is none. */
ptrdiff_t pf_tin_find(const pf_tin *r, const char *name);
/* n values of tensor i from its element `first` on, widened or rounded to fp32. */
int pf_tin_read(pf_tin *r, size_t i, size_t first, size_t n, float *out);
void pf_tin_close(pf_tin *r);

#endif
