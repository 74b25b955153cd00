/* SPDX-License-Identifier: Apache-2.0
 * The parts of tensor files, for readers and writers that do not hold a whole file in memory
 * (analysis/tensorstream.c). */
#ifndef PF_ANALYSIS_TENSORFILE_H
#define PF_ANALYSIS_TENSORFILE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "personaflow/analysis.h"

/* A type of elements: its name in .npy (NULL: none) and in safetensors, its bytes. */
typedef struct pf_file_dtype {
  const char *npy, *st;
  size_t size;
} pf_file_dtype;

/* "[2, 3]"; returns buf. */
enum { PF_SHAPE_TEXT = 200 };
const char *pf_shape_text(const pf_tensor *t, char buf[PF_SHAPE_TEXT]);
/* pf_tensor_read; masked: values may be -inf, as in the scores of masked keys. */
int pf_tensor_read_as(const char *source, bool masked, pf_tensor *out);
/* The element at p as fp32. */
float pf_file_element(const pf_file_dtype *t, const unsigned char *p);
/* The head of a .npy file, of which the first n bytes are at b: shape into *out, the offset of the
 * data into *data. */
int pf_npy_head(const char *path, const unsigned char *b, size_t n, pf_tensor *out,
                const pf_file_dtype **dtype, size_t *data);
/* One tensor of a safetensors header over n bytes of data: shape into *out, where its bytes are. */
int pf_st_entry(const char *where, const json_t *e, size_t n, pf_tensor *out,
                const pf_file_dtype **dtype, size_t *first, size_t *bytes);
/* The header of a file that holds the fp32 tensors t in this order, padded. */
int pf_st_header(const pf_tensor *t, size_t n, const char *const *metadata, pf_buf *out);
/* Its length and text to the file; -1 with errno. */
int pf_st_put_header(int fd, const pf_buf *h);

#endif
