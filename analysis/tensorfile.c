/* SPDX-License-Identifier: Apache-2.0
 * Tensors in files: .npy (version 1 to 3, little-endian, C order, f2 f4 f8) and safetensors (F16,
 * BF16, F32, F64). Formats: numpy.lib.format; huggingface.co/docs/safetensors. Everything read is
 * checked against the file's size before it is used. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/jsonout.h"
#include "analysis/tensorfile.h"
#include "base/bf16.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "personaflow/analysis.h"

enum { FILE_LIMIT_GIB = 4 };

static const pf_file_dtype dtypes[] = {
    {"<f4", "F32", 4}, {"<f2", "F16", 2}, {"<f8", "F64", 8}, {NULL, "BF16", 2}};

float pf_file_element(const pf_file_dtype *t, const unsigned char *p) {
  uint16_t h = (uint16_t)(p[0] | p[1] << 8);
  if (t->size == 2)
    return t->npy ? pf_f16_to_f32(h) : pf_bf16_to_f32(h);
  uint64_t u = 0;
  for (size_t i = t->size; i-- > 0;)
    u = u << 8 | p[i];
  if (t->size == 4)
    return pf_f32_of_bits((uint32_t)u);
  double d;
  memcpy(&d, &u, sizeof d);
  return (float)d;
}

static bool count_of(const pf_tensor *t, size_t *n) {
  *n = 1;
  for (int i = 0; i < t->n_dims; i++)
    if (!pf_mul3(*n, t->dims[i], 1, n))
      return false;
  return true;
}

static int check_shape(const pf_tensor *t, size_t i) {
  size_t n;
  if (t->n_dims < 0 || t->n_dims > PF_TENSOR_MAX_DIMS)
    return pf_fail(PF_EUSAGE, "tensor %zu: %d dimensions: there may be up to %d", i, t->n_dims,
                   PF_TENSOR_MAX_DIMS);
  if (!count_of(t, &n) || n > PTRDIFF_MAX / sizeof(float))
    return pf_fail(PF_EUSAGE, "tensor %zu: too many values", i);
  return PF_OK;
}

size_t pf_tensor_count(const pf_tensor *t) {
  size_t n;
  return count_of(t, &n) ? n : 0;
}

const char *pf_shape_text(const pf_tensor *t, char buf[PF_SHAPE_TEXT]) {
  size_t n = 1;
  buf[0] = '[';
  for (int i = 0; i < t->n_dims; i++)
    n += (size_t)snprintf(buf + n, PF_SHAPE_TEXT - n, "%s%zu", i ? ", " : "", t->dims[i]);
  snprintf(buf + n, PF_SHAPE_TEXT - n, "]");
  return buf;
}

void pf_tensor_free(pf_tensor *t) {
  if (!t)
    return;
  pf_free(t->data);
  pf_free(t->name);
  *t = (pf_tensor){0};
}

/* Converts `bytes` bytes at p, which must be exactly the tensor's. */
static int take(const char *where, bool masked, const pf_file_dtype *t, const unsigned char *p,
                size_t bytes, pf_tensor *out) {
  size_t n, want;
  if (!count_of(out, &n) || !pf_mul3(n, t->size, 1, &want) || want != bytes)
    return pf_fail(PF_EINPUT, "%s: the shape does not agree with its %zu bytes of data", where,
                   bytes);
  out->data = pf_alloc(n, sizeof *out->data);
  if (!out->data)
    return PF_ENOMEM;
  for (size_t i = 0; i < n; i++) {
    out->data[i] = pf_file_element(t, p + i * t->size);
    if (!isfinite(out->data[i]) && !(masked && out->data[i] == -INFINITY))
      return pf_fail(PF_EINPUT, "%s: value %zu is not finite", where, i);
  }
  return PF_OK;
}

/* ---- .npy
 * ---------------------------------------------------------------------------------------------------------
 */

/* "(3, 4)" after 'shape': into dims. */
static bool npy_shape(const char *h, pf_tensor *out) {
  const char *p = strstr(h, "'shape'");
  p = p ? strchr(p, '(') : NULL;
  if (!p)
    return false;
  for (p++; *p && *p != ')';) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(p, &end, 10);
    if (end == p || errno || *p == '-' || out->n_dims == PF_TENSOR_MAX_DIMS)
      return false;
    out->dims[out->n_dims++] = (size_t)v;
    p = end + strspn(end, ", ");
  }
  return *p == ')';
}

static const pf_file_dtype *npy_dtype(const char *h) {
  const char *p = strstr(h, "'descr'");
  p = p ? strchr(p + 7, '\'') : NULL;
  for (size_t i = 0; p && i < sizeof dtypes / sizeof *dtypes; i++)
    if (dtypes[i].npy && !strncmp(p + 1, dtypes[i].npy, 3) && p[4] == '\'')
      return &dtypes[i];
  return NULL;
}

int pf_npy_head(const char *path, const unsigned char *b, size_t n, pf_tensor *out,
                const pf_file_dtype **dtype, size_t *data) {
  if (n < 12 || memcmp(b, "\x93NUMPY", 6) != 0 || b[6] < 1 || b[6] > 3)
    return pf_fail(PF_EINPUT, "%s: not a .npy file of version 1, 2 or 3", path);
  size_t at = b[6] == 1 ? 10 : 12;
  size_t len = b[6] == 1
                   ? (size_t)(b[8] | b[9] << 8)
                   : (size_t)b[8] | (size_t)b[9] << 8 | (size_t)b[10] << 16 | (size_t)b[11] << 24;
  if (len > n - at)
    return pf_fail(PF_EINPUT, "%s: truncated: the header goes beyond the end of the file", path);
  char *h = pf_calloc(len + 1, 1);
  if (!h)
    return PF_ENOMEM;
  memcpy(h, b + at, len);
  const pf_file_dtype *t = npy_dtype(h);
  bool fortran = strstr(h, "'fortran_order': True") != NULL, shape = npy_shape(h, out);
  pf_free(h);
  if (!t || fortran || !shape)
    return pf_fail(PF_EINPUT,
                   "%s: want little-endian f2, f4 or f8 values in C order, at most %d axes", path,
                   PF_TENSOR_MAX_DIMS);
  *dtype = t;
  *data = at + len;
  return PF_OK;
}

static int npy_parse(const char *path, bool masked, const unsigned char *b, size_t n,
                     pf_tensor *out) {
  const pf_file_dtype *t;
  size_t at;
  *out = (pf_tensor){0};
  int rc = pf_npy_head(path, b, n, out, &t, &at);
  if (rc == PF_OK)
    rc = take(path, masked, t, b + at, n - at, out);
  if (rc != PF_OK)
    pf_tensor_free(out);
  return rc;
}

int pf_npy_parse(const char *name, const void *data, size_t n, pf_tensor *out) {
  return npy_parse(name, false, data, n, out);
}

int pf_npy_write(const char *path, const pf_tensor *t) {
  pf_buf h = {0}, b = {0};
  int rc = check_shape(t, 0);
  if (rc != PF_OK)
    return rc;
  pf_buf_puts(&h, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
  for (int i = 0; i < t->n_dims; i++)
    pf_buf_printf(&h, i || t->n_dims == 1 ? "%zu," : "%zu, ", t->dims[i]);
  pf_buf_puts(&h, "), }");
  while ((10 + h.n + 1) % 64)
    pf_buf_puts(&h, " ");
  pf_buf_puts(&h, "\n");
  pf_buf_add(&b, "\x93NUMPY\x01\x00", 8);
  pf_buf_add(&b, (unsigned char[]){(unsigned char)h.n, (unsigned char)(h.n >> 8)}, 2);
  pf_buf_add(&b, pf_buf_str(&h), h.n);
  pf_buf_add(&b, t->data, pf_tensor_count(t) * sizeof *t->data);
  rc = h.failed ? PF_ENOMEM : pf_buf_status(&b);
  if (rc == PF_OK)
    rc = pf_write_file(path, b.s, b.n);
  pf_buf_free(&h);
  pf_buf_free(&b);
  return rc;
}

/* ---- safetensors
 * --------------------------------------------------------------------------------------------------
 */

static const pf_file_dtype *st_dtype(const json_t *v) {
  const char *s = json_string_value(v);
  for (size_t i = 0; s && i < sizeof dtypes / sizeof *dtypes; i++)
    if (!strcmp(s, dtypes[i].st))
      return &dtypes[i];
  return NULL;
}

static bool st_shape(const json_t *shape, pf_tensor *out) {
  if (!json_is_array(shape) || json_array_size(shape) > PF_TENSOR_MAX_DIMS)
    return false;
  for (size_t i = 0; i < json_array_size(shape); i++) {
    const json_t *v = json_array_get(shape, i);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
      return false;
    out->dims[out->n_dims++] = (size_t)json_integer_value(v);
  }
  return true;
}

int pf_st_entry(const char *where, const json_t *e, size_t n, pf_tensor *out,
                const pf_file_dtype **dtype, size_t *first, size_t *bytes) {
  const json_t *off = json_object_get(e, "data_offsets");
  json_int_t lo = json_integer_value(json_array_get(off, 0)),
             hi = json_integer_value(json_array_get(off, 1));
  if (!(*dtype = st_dtype(json_object_get(e, "dtype"))))
    return pf_fail(PF_EINPUT, "%s: dtype must be F32, F16, BF16 or F64", where);
  if (!st_shape(json_object_get(e, "shape"), out))
    return pf_fail(PF_EINPUT, "%s: want a shape of at most %d axes", where, PF_TENSOR_MAX_DIMS);
  if (json_array_size(off) != 2 || lo < 0 || hi < lo || (uint64_t)hi > n)
    return pf_fail(PF_EINPUT, "%s: data_offsets go beyond the end of the file", where);
  *first = (size_t)lo;
  *bytes = (size_t)(hi - lo);
  return PF_OK;
}

static int st_find(const char *file, const json_t *head, const char *tensor, const char **name,
                   const json_t **e) {
  size_t n = json_object_size(head) - (json_object_get(head, "__metadata__") != NULL);
  if (!tensor && n != 1)
    return pf_fail(PF_EINPUT, "%s: holds %zu tensors: say which, as %s#NAME", file, n, file);
  json_t *v;
  json_object_foreach((json_t *)head, *name, v) {
    *e = v;
    if (tensor ? !strcmp(*name, tensor) : strcmp(*name, "__metadata__") != 0)
      return PF_OK;
  }
  return pf_fail(PF_EINPUT, "%s: no tensor '%s' in it", file, tensor ? tensor : "");
}

/* The tensor of a header over n bytes of data; lines name it as sources do. */
static int st_take(const char *file, bool masked, const json_t *head, const char *tensor,
                   const unsigned char *data, size_t n, pf_tensor *out) {
  const json_t *e = NULL;
  const char *name = "";
  const pf_file_dtype *t;
  size_t first, bytes;
  pf_buf where = {0};
  int rc = st_find(file, head, tensor, &name, &e);
  if (rc != PF_OK)
    return rc;
  pf_buf_printf(&where, "%s#%s", file, name);
  rc = pf_buf_status(&where);
  if (rc == PF_OK)
    rc = pf_st_entry(where.s, e, n, out, &t, &first, &bytes);
  if (rc == PF_OK)
    rc = take(where.s, masked, t, data + first, bytes, out);
  pf_buf_free(&where);
  return rc;
}

static int st_parse(const char *name, bool masked, const unsigned char *b, size_t n,
                    const char *tensor, pf_tensor *out) {
  uint64_t len = 0;
  *out = (pf_tensor){0};
  for (int i = 8; n >= 8 && i-- > 0;)
    len = len << 8 | b[i];
  if (n < 8 || len > n - 8 || len > 100u << 20)
    return pf_fail(PF_EINPUT, "%s: not a safetensors file: the header goes beyond its end", name);
  json_t *head;
  int rc = pf_js_text(name, (const char *)b + 8, (size_t)len, &head);
  if (rc == PF_OK && !json_is_object(head))
    rc = pf_fail(PF_EINPUT, "%s: not a safetensors file: the header is no object", name);
  if (rc == PF_OK)
    rc = st_take(name, masked, head, tensor, b + 8 + len, n - 8 - (size_t)len, out);
  json_decref(head);
  if (rc != PF_OK)
    pf_tensor_free(out);
  return rc;
}

int pf_safetensors_parse(const char *name, const void *data, size_t n, const char *tensor,
                         pf_tensor *out) {
  return st_parse(name, false, data, n, tensor, out);
}

int pf_tensor_read_as(const char *source, bool masked, pf_tensor *out) {
  const char *hash = strchr(source, '#');
  size_t n_path = hash ? (size_t)(hash - source) : strlen(source);
  char *path = pf_strdup(source);
  pf_buf b;
  *out = (pf_tensor){0};
  if (!path)
    return PF_ENOMEM;
  path[n_path] = '\0';
  int rc = pf_read_file(path, (size_t)FILE_LIMIT_GIB << 30, &b);
  const unsigned char *data = (const unsigned char *)b.s;
  bool npy = n_path > 4 && !strcmp(path + n_path - 4, ".npy");
  if (rc == PF_OK && npy && hash)
    rc = pf_fail(PF_EINPUT, "%s: a .npy file holds one array: leave #%s out", path, hash + 1);
  else if (rc == PF_OK)
    rc = npy ? npy_parse(path, masked, data, b.n, out)
             : st_parse(path, masked, data, b.n, hash ? hash + 1 : NULL, out);
  pf_buf_free(&b);
  pf_free(path);
  return rc;
}

int pf_tensor_read(const char *source, pf_tensor *out) {
  *out = (pf_tensor){0};
  if (!source)
    return pf_fail(PF_EUSAGE, "no file was named: give x.npy, x.safetensors or x.safetensors#name");
  return pf_tensor_read_as(source, false, out);
}

/* What a reader would refuse or not find. */
static int check_named(const json_t *head, const pf_tensor *t, size_t i) {
  if (!t->name)
    return pf_fail(PF_EUSAGE, "tensor %zu: it has no name", i);
  if (pf_text_check(t->name, strlen(t->name)) != PF_OK)
    return pf_fail(PF_EUSAGE, "tensor %zu: the name '%s' is not UTF-8", i, t->name);
  if (!strcmp(t->name, "__metadata__") || json_object_get(head, t->name))
    return pf_fail(PF_EUSAGE, "tensor %zu: the name '%s' is taken", i, t->name);
  return check_shape(t, i);
}

static int check_metadata(const char *const *m) {
  for (size_t i = 0; m && m[i]; i++)
    if (pf_text_check(m[i], strlen(m[i])) != PF_OK)
      return pf_fail(PF_EUSAGE, "metadata: '%s' is not UTF-8", m[i]);
  return PF_OK;
}

int pf_st_header(const pf_tensor *t, size_t n, const char *const *metadata, pf_buf *out) {
  json_t *head = json_object(), *meta = json_object();
  int bad = 0, rc = check_metadata(metadata);
  for (size_t i = 0; rc == PF_OK && metadata && metadata[i]; i += 2)
    bad |= json_object_set_new(meta, metadata[i], json_string(metadata[i + 1]));
  bad |= json_object_size(meta) ? json_object_set(head, "__metadata__", meta) : 0;
  size_t at = 0;
  for (size_t i = 0; i < n && rc == PF_OK && (rc = check_named(head, &t[i], i)) == PF_OK; i++) {
    json_t *shape = json_array();
    for (int k = 0; k < t[i].n_dims; k++)
      bad |= json_array_append_new(shape, json_integer((json_int_t)t[i].dims[k]));
    size_t bytes = pf_tensor_count(&t[i]) * sizeof(float);
    bad |= json_object_set_new(head, t[i].name,
                               json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                                         "data_offsets", (json_int_t)at, (json_int_t)(at + bytes)));
    at += bytes;
  }
  if (!bad)
    pf_js_dump(head, 0, out);
  while (!out->failed && out->n % 8) /* data begins on a multiple of 8 bytes */
    pf_buf_puts(out, " ");
  json_decref(head);
  json_decref(meta);
  return rc != PF_OK ? rc : bad ? PF_ENOMEM : pf_buf_status(out);
}

int pf_st_put_header(int fd, const pf_buf *h) {
  unsigned char len[8];
  for (int i = 0; i < 8; i++)
    len[i] = (unsigned char)((uint64_t)h->n >> (8 * i));
  return pf_write_all(fd, len, 8) || pf_write_all(fd, h->s, h->n) ? -1 : 0;
}

static int st_write_fd(int fd, const pf_buf *h, const pf_tensor *t, size_t n) {
  if (pf_st_put_header(fd, h) != 0)
    return -1;
  for (size_t i = 0; i < n; i++)
    if (pf_write_all(fd, t[i].data, pf_tensor_count(&t[i]) * sizeof(float)))
      return -1;
  return fsync(fd);
}

/* Straight to the file (captures may be large), under another name until it is complete. */
static int st_write(const char *path, const pf_buf *h, const pf_tensor *t, size_t n) {
  pf_buf tmp = {0};
  pf_buf_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
  int rc = pf_buf_status(&tmp);
  int fd = rc == PF_OK ? open(tmp.s, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
  if (rc == PF_OK && (fd < 0 || st_write_fd(fd, h, t, n) != 0 || rename(tmp.s, path) != 0)) {
    rc = pf_fail(PF_EIO, "%s: cannot write: %s", path, strerror(errno));
    unlink(tmp.s);
  }
  if (fd >= 0)
    close(fd);
  pf_buf_free(&tmp);
  return rc == PF_OK ? pf_sync_parent(path) : rc;
}

int pf_safetensors_write(const char *path, const pf_tensor *t, size_t n,
                         const char *const *metadata) {
  pf_buf h = {0};
  int rc = pf_st_header(t, n, metadata, &h);
  if (rc == PF_OK)
    rc = st_write(path, &h, t, n);
  pf_buf_free(&h);
  return rc;
}
