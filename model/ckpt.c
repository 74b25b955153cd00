/* SPDX-License-Identifier: Apache-2.0
 * The files of a checkpoint: model.safetensors, or shards named by model.safetensors.index.json. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "model/weights.h"

#define INDEX_LIMIT ((size_t)64 << 20)
#define MAX_SHARDS  4096
#define CHUNK       ((size_t)1 << 20)
#define SINGLE      "model.safetensors"
#define INDEX       "model.safetensors.index.json"

static uint64_t ns(struct timespec t) {
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* O_NONBLOCK: opening a FIFO by mistake must not hang. */
static int open_shard(pf_shard *f, const char *dir, const char *name) {
  pf_buf path = {0};
  struct stat st;
  f->fd = -1;
  pf_buf_printf(&path, "%s/%s", dir, name);
  if (pf_buf_status(&path) != PF_OK || !(f->path = pf_strdup(path.s))) {
    pf_buf_free(&path);
    return PF_ENOMEM;
  }
  pf_buf_free(&path);
  f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (f->fd < 0)
    return pf_fail(PF_EINPUT,
                   "%s: cannot open: %s: a file of the checkpoint is missing; fetch it again",
                   f->path, strerror(errno));
  if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode))
    return pf_fail(PF_EINPUT, "%s: not a file", f->path);
  uint64_t id[6] = {(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size, ns(st.st_mtim),
                    ns(st.st_ctim)};
  memcpy(f->id, id, sizeof id);
  return pf_st_read(&f->st, f->path, f->fd, (uint64_t)st.st_size);
}

static int by_string(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of weight_map, sorted; the strings belong to the JSON. */
static int shard_names(const char *path, json_t *map, const char ***out, size_t *n) {
  const char *key;
  json_t *v;
  size_t k = 0;
  const char **names = pf_calloc(json_object_size(map) + 1, sizeof *names);
  *out = names;
  *n = 0;
  if (!names)
    return PF_ENOMEM;
  json_object_foreach(map, key, v) {
    const char *s = json_string_value(v);
    if (!s || !*s || strchr(s, '/') || s[0] == '.')
      return pf_fail(PF_EINPUT,
                     "%s: weight_map: tensor %.96s: '%.96s' is not the name of a file beside it",
                     path, key, s ? s : "");
    names[k++] = s;
  }
  qsort(names, k, sizeof *names, by_string);
  for (size_t i = 0; i < k; i++)
    if (*n == 0 || strcmp(names[*n - 1], names[i]))
      names[(*n)++] = names[i];
  if (*n == 0 || *n > MAX_SHARDS)
    return pf_fail(PF_EINPUT, "%s: weight_map names %zu files: 1 to %d are possible", path, *n,
                   MAX_SHARDS);
  return PF_OK;
}

static const pf_shard *shard_named(const pf_ckpt *k, const char *name) {
  for (size_t i = 0; i < k->n; i++)
    if (!strcmp(strrchr(k->f[i].path, '/') + 1, name))
      return &k->f[i];
  return NULL;
}

/* Index and headers must say the same. */
static int check_index(const pf_ckpt *k, const char *path, json_t *map) {
  const char *key;
  json_t *v;
  json_object_foreach(map, key, v) {
    const pf_shard *f = shard_named(k, json_string_value(v));
    if (!f || !pf_st_find(&f->st, key))
      return pf_fail(PF_EINPUT,
                     "%s: tensor %.96s is not in %s: index and files do not belong together", path,
                     key, json_string_value(v));
  }
  for (size_t i = 0; i < k->n; i++)
    for (size_t j = 0; j < k->f[i].st.n; j++) {
      const char *name = k->f[i].st.t[j].name, *at = json_string_value(json_object_get(map, name));
      if (!at || shard_named(k, at) != &k->f[i])
        return pf_fail(PF_EINPUT, "%s: tensor %.96s is in %s, which the index does not say", path,
                       name, k->f[i].path);
    }
  return PF_OK;
}

static int open_shards(pf_ckpt *k, const char *dir, const char *path, json_t *map) {
  const char **names;
  size_t n;
  int rc = shard_names(path, map, &names, &n);
  if (rc == PF_OK && !(k->f = pf_calloc(n, sizeof *k->f)))
    rc = PF_ENOMEM;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    k->n++;
    rc = open_shard(&k->f[i], dir, names[i]);
  }
  pf_free(names);
  return rc == PF_OK ? check_index(k, path, map) : rc;
}

static int open_index(pf_ckpt *k, const char *dir, const char *path) {
  json_t *o;
  int rc = pf_js_file(path, INDEX_LIMIT, &o);
  if (rc != PF_OK)
    return rc;
  json_t *map = json_object_get(o, "weight_map");
  if (json_is_object(map))
    rc = open_shards(k, dir, path, map);
  else
    rc = pf_fail(PF_EINPUT, "%s: has no weight_map object", path);
  json_decref(o);
  return rc;
}

static int open_single(pf_ckpt *k, const char *dir) {
  if (!(k->f = pf_calloc(1, sizeof *k->f)))
    return PF_ENOMEM;
  k->n = 1;
  return open_shard(&k->f[0], dir, SINGLE);
}

static bool exists(const char *dir, const char *name) {
  pf_buf path = {0};
  struct stat st;
  pf_buf_printf(&path, "%s/%s", dir, name);
  bool yes = stat(pf_buf_str(&path), &st) == 0;
  pf_buf_free(&path);
  return yes;
}

/* A link that leads nowhere, as a download that was broken off leaves one in a cache. */
static bool dangles(const char *dir, const char *name) {
  pf_buf path = {0};
  struct stat st;
  pf_buf_printf(&path, "%s/%s", dir, name);
  bool yes = lstat(pf_buf_str(&path), &st) == 0 && S_ISLNK(st.st_mode) && !exists(dir, name);
  pf_buf_free(&path);
  return yes;
}

int pf_ckpt_open(pf_ckpt *out, const char *dir) {
  pf_buf index = {0};
  int rc;
  *out = (pf_ckpt){0};
  pf_buf_printf(&index, "%s/" INDEX, dir);
  if (pf_buf_status(&index) != PF_OK)
    rc = PF_ENOMEM;
  else if (exists(dir, SINGLE))
    rc = open_single(out, dir);
  else if (exists(dir, INDEX))
    rc = open_index(out, dir, index.s);
  else if (exists(dir, "pytorch_model.bin") || exists(dir, "pytorch_model.bin.index.json"))
    rc = pf_fail(PF_EINPUT,
                 "%s: the weights are in PyTorch's pickle format: convert them to safetensors "
                 "(save_pretrained of transformers does)",
                 dir);
  else if (dangles(dir, SINGLE) || dangles(dir, INDEX))
    rc = pf_fail(PF_EINPUT, "%s/%s: is a link to a file that is not there: download it again", dir,
                 dangles(dir, SINGLE) ? SINGLE : INDEX);
  else
    rc = pf_fail(PF_EINPUT, "%s: no weights: neither " SINGLE " nor " INDEX " is there", dir);
  pf_buf_free(&index);
  if (rc != PF_OK)
    pf_ckpt_close(out);
  return rc;
}

static int same_bytes(const pf_shard *f, const pf_st_tensor *a, const pf_shard *g,
                      const pf_st_tensor *b, char *buf, bool *same) {
  int rc = PF_OK;
  for (uint64_t at = 0; at < a->bytes && rc == PF_OK && *same; at += CHUNK) {
    size_t n = a->bytes - at < CHUNK ? (size_t)(a->bytes - at) : CHUNK;
    rc = pf_st_bytes(f->path, f->fd, buf, n, a->off + at);
    if (rc == PF_OK)
      rc = pf_st_bytes(g->path, g->fd, buf + CHUNK, n, b->off + at);
    *same = rc == PF_OK && !memcmp(buf, buf + CHUNK, n);
  }
  return rc;
}

int pf_ckpt_same(const pf_shard *f, const pf_st_tensor *a, const pf_shard *g, const pf_st_tensor *b,
                 bool *same) {
  *same = a->dtype == b->dtype && a->n_dims == b->n_dims && a->bytes == b->bytes &&
          !memcmp(a->shape, b->shape, a->n_dims * sizeof *a->shape);
  char *buf = *same ? pf_alloc(2 * CHUNK, 1) : NULL;
  int rc = *same && !buf ? PF_ENOMEM : PF_OK;
  if (buf)
    rc = same_bytes(f, a, g, b, buf, same);
  pf_free(buf);
  return rc;
}

void pf_ckpt_close(pf_ckpt *k) {
  for (size_t i = 0; i < k->n; i++) {
    if (k->f[i].path && k->f[i].fd >= 0)
      close(k->f[i].fd);
    pf_free(k->f[i].path);
    pf_st_free(&k->f[i].st);
  }
  pf_free(k->f);
  *k = (pf_ckpt){0};
}
