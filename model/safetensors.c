/* SPDX-License-Identifier: Apache-2.0
 * Safetensors headers: reading and checking. The format: github.com/huggingface/safetensors,
 * README, "Format". */
#include "model/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

#define HEADER_LIMIT UINT64_C(100000000) /* the format's own limit */

static const struct {
  const char *name;
  pf_dtype dtype;
  unsigned bytes;
} dtypes[] = {
    {"BF16", PF_DT_BF16, 2},  {"F16", PF_DT_F16, 2},       {"F32", PF_DT_F32, 4},
    {"F64", PF_DT_OTHER, 8},  {"I64", PF_DT_OTHER, 8},     {"I32", PF_DT_OTHER, 4},
    {"I16", PF_DT_OTHER, 2},  {"I8", PF_DT_I8, 1},         {"U64", PF_DT_OTHER, 8},
    {"U32", PF_DT_OTHER, 4},  {"U16", PF_DT_OTHER, 2},     {"U8", PF_DT_OTHER, 1},
    {"BOOL", PF_DT_OTHER, 1}, {"F8_E4M3", PF_DT_OTHER, 1}, {"F8_E5M2", PF_DT_OTHER, 1},
    {"C64", PF_DT_OTHER, 8},
};

static int bad(const char *path, const char *tensor, const char *why) {
  return pf_fail(PF_EINPUT,
                 "%s: tensor %s: %s: the file is damaged or not a safetensors file; fetch it again",
                 path, tensor, why);
}

/* A non-negative integer of the header. */
static bool natural(const json_t *v, uint64_t *out) {
  json_int_t x = json_integer_value(v);
  *out = (uint64_t)x;
  return json_is_integer(v) && x >= 0;
}

static int read_dtype(pf_st_tensor *t, const char *path, const json_t *o, uint64_t *size) {
  const char *s = json_string_value(json_object_get(o, "dtype"));
  if (!s)
    return bad(path, t->name, "has no dtype");
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (!strcmp(s, dtypes[i].name)) {
      t->dtype = dtypes[i].dtype;
      snprintf(t->dtype_name, sizeof t->dtype_name, "%s", s);
      *size = dtypes[i].bytes;
      return PF_OK;
    }
  return pf_fail(PF_EINPUT, "%s: tensor %s: unknown dtype '%.20s'", path, t->name, s);
}

/* *size: bytes an element on entry, bytes of the tensor on return. */
static int read_shape(pf_st_tensor *t, const char *path, const json_t *o, uint64_t *size) {
  const json_t *shape = json_object_get(o, "shape");
  if (!json_is_array(shape) || json_array_size(shape) > PF_ST_MAX_DIMS)
    return bad(path, t->name, "its shape is not a list of at most 8 numbers");
  t->n_dims = json_array_size(shape);
  for (size_t i = 0; i < t->n_dims; i++)
    if (!natural(json_array_get(shape, i), &t->shape[i]))
      return bad(path, t->name, "a dimension is not a natural number");
    else if (__builtin_mul_overflow(*size, t->shape[i], size))
      return bad(path, t->name, "its shape is larger than any memory");
  return PF_OK;
}

static int read_extent(pf_st_tensor *t, const char *path, const json_t *o, uint64_t size,
                       uint64_t data_bytes) {
  const json_t *v = json_object_get(o, "data_offsets");
  uint64_t lo, hi;
  if (json_array_size(v) != 2 || !natural(json_array_get(v, 0), &lo) ||
      !natural(json_array_get(v, 1), &hi))
    return bad(path, t->name, "its data_offsets are not two natural numbers");
  if (lo > hi)
    return bad(path, t->name, "its data_offsets run backwards");
  if (hi > data_bytes)
    return pf_fail(
        PF_EINPUT,
        "%s: tensor %s ends at byte %llu of the data, the file has %llu: it is truncated; fetch it "
        "again",
        path, t->name, (unsigned long long)hi, (unsigned long long)data_bytes);
  if (hi - lo != size)
    return bad(path, t->name, "its extent does not equal dtype times shape");
  t->off = lo;
  t->bytes = size;
  return PF_OK;
}

static int read_tensor(pf_st_tensor *t, const char *path, const char *name, const json_t *o,
                       uint64_t data_bytes) {
  uint64_t size = 0;
  if (!(t->name = pf_strdup(name)))
    return PF_ENOMEM;
  if (!json_is_object(o))
    return bad(path, name, "is not described by an object");
  int rc = read_dtype(t, path, o, &size);
  if (rc == PF_OK)
    rc = read_shape(t, path, o, &size);
  return rc == PF_OK ? read_extent(t, path, o, size, data_bytes) : rc;
}

static int by_offset(const void *a, const void *b) {
  const pf_st_tensor *x = a, *y = b;
  if (x->off != y->off)
    return x->off < y->off ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) {
  const pf_st_tensor *x = a, *y = b;
  return strcmp(x->name, y->name);
}

/* Extents must follow each other from 0 to the end; then offsets become those of the file. */
static int check_extents(pf_st *s, const char *path, uint64_t data_start, uint64_t data_bytes) {
  uint64_t at = 0;
  qsort(s->t, s->n, sizeof *s->t, by_offset);
  for (size_t i = 0; i < s->n; i++) {
    pf_st_tensor *t = &s->t[i];
    if (t->off != at)
      return bad(path, t->name, t->off < at ? "overlaps another tensor" : "has a gap before it");
    at += t->bytes;
    t->off += data_start;
  }
  if (at != data_bytes)
    return pf_fail(PF_EINPUT,
                   "%s: %llu bytes follow the last tensor: the file is damaged; fetch it again",
                   path, (unsigned long long)(data_bytes - at));
  qsort(s->t, s->n, sizeof *s->t, by_name);
  return PF_OK;
}

static int check_metadata(const char *path, const json_t *meta) {
  const char *key;
  json_t *v;
  if (!json_is_object(meta))
    return pf_fail(PF_EINPUT, "%s: __metadata__ is not an object", path);
  json_object_foreach((json_t *)meta, key, v) if (!json_is_string(v)) return pf_fail(
      PF_EINPUT, "%s: __metadata__.%s is not a string", path, key);
  return PF_OK;
}

static int read_object(pf_st *s, const char *path, json_t *o, uint64_t data_bytes) {
  const char *key;
  json_t *v;
  if (!json_is_object(o))
    return pf_fail(PF_EINPUT, "%s: its header is not a JSON object: not a safetensors file", path);
  if (!(s->t = pf_calloc(json_object_size(o) + 1, sizeof *s->t)))
    return PF_ENOMEM;
  json_object_foreach(o, key, v) {
    int rc = strcmp(key, "__metadata__") ? read_tensor(&s->t[s->n++], path, key, v, data_bytes)
                                         : check_metadata(path, v);
    if (rc != PF_OK)
      return rc;
  }
  return PF_OK;
}

int pf_st_parse(pf_st *out, const char *path, const char *json, size_t n, uint64_t data_start,
                uint64_t data_bytes) {
  json_t *o = NULL;
  *out = (pf_st){0};
  int rc = pf_js_text(path, json, n, &o);
  if (rc == PF_OK)
    rc = read_object(out, path, o, data_bytes);
  if (rc == PF_OK)
    rc = check_extents(out, path, data_start, data_bytes);
  if (rc != PF_OK)
    pf_st_free(out);
  json_decref(o);
  return rc;
}

int pf_st_bytes(const char *path, int fd, void *buf, size_t n, uint64_t off) {
  for (char *p = buf; n > 0;) {
    ssize_t got = pread(fd, p, n, (off_t)off);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return pf_fail(PF_EIO, "%s: cannot read: %s", path,
                     got ? strerror(errno) : "it became shorter");
    p += got;
    n -= (size_t)got;
    off += (uint64_t)got;
  }
  return PF_OK;
}

int pf_st_read(pf_st *out, const char *path, int fd, uint64_t file_size) {
  unsigned char len[8];
  uint64_t n = 0;
  *out = (pf_st){0};
  if (file_size < 8)
    return pf_fail(PF_EINPUT, "%s: only %llu bytes long: not a safetensors file", path,
                   (unsigned long long)file_size);
  int rc = pf_st_bytes(path, fd, len, 8, 0);
  if (rc != PF_OK)
    return rc;
  for (int i = 0; i < 8; i++)
    n |= (uint64_t)len[i] << 8 * i;
  if (n < 2 || n > HEADER_LIMIT)
    return pf_fail(
        PF_EINPUT, "%s: header length %llu is not possible: not a safetensors file%s", path,
        (unsigned long long)n,
        n == UINT64_C(0x206e6f6973726576) ? " but a Git LFS pointer; fetch the file itself" : "");
  if (n > file_size - 8)
    return pf_fail(
        PF_EINPUT,
        "%s: the header is %llu bytes long, the file has %llu after it: truncated; fetch it again",
        path, (unsigned long long)n, (unsigned long long)(file_size - 8));
  char *json = pf_alloc((size_t)n, 1);
  rc = json ? pf_st_bytes(path, fd, json, (size_t)n, 8) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_st_parse(out, path, json, (size_t)n, 8 + n, file_size - 8 - n);
  pf_free(json);
  return rc;
}

const pf_st_tensor *pf_st_find(const pf_st *s, const char *name) {
  pf_st_tensor key = {.name = (char *)name};
  return s->n ? bsearch(&key, s->t, s->n, sizeof *s->t, by_name) : NULL;
}

void pf_st_free(pf_st *s) {
  for (size_t i = 0; i < s->n; i++)
    pf_free(s->t[i].name);
  pf_free(s->t);
  *s = (pf_st){0};
}
