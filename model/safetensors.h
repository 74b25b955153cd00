/* SPDX-License-Identifier: Apache-2.0
 * The safetensors container: 8 bytes of header length (little-endian), a JSON header, the tensors'
 * bytes. A file is accepted when every tensor's extent equals its dtype and shape and the extents
 * follow each other without gap or overlap to the end of the file, as the format demands. */
#ifndef PF_MODEL_SAFETENSORS_H
#define PF_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

typedef enum pf_dtype { PF_DT_BF16, PF_DT_F16, PF_DT_F32, PF_DT_I8, PF_DT_OTHER } pf_dtype;

#define PF_ST_MAX_DIMS 8

typedef struct pf_st_tensor {
  char *name;
  pf_dtype dtype;
  char dtype_name[12];
  size_t n_dims;
  uint64_t shape[PF_ST_MAX_DIMS];
  uint64_t off, bytes; /* from the start of the file */
} pf_st_tensor;

typedef struct pf_st {
  pf_st_tensor *t; /* in name order */
  size_t n;
} pf_st;

/* Reads the header of `path` (a regular file open at fd, of file_size bytes). On failure *out holds
 * nothing. */
int pf_st_read(pf_st *out, const char *path, int fd, uint64_t file_size);
/* The same from memory: the JSON text of a header whose file has data_bytes bytes after it. Offsets
 * are relative to data_start. */
int pf_st_parse(pf_st *out, const char *path, const char *json, size_t n, uint64_t data_start,
                uint64_t data_bytes);
/* n bytes from `off` on; PF_EIO names path and reason. */
int pf_st_bytes(const char *path, int fd, void *buf, size_t n, uint64_t off);
const pf_st_tensor *pf_st_find(const pf_st *s, const char *name);
void pf_st_free(pf_st *s);

#endif
