/* SPDX-License-Identifier: Apache-2.0
 * Writes a model as a directory with int8 weights: the packed form that loading in int8 makes, as
 * row-major tensors, beside the published values of all that is not quantised. Loading packs the
 * same values again, so both ways give the same bits. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"
#include "model/pack.h"
#include "model/weights.h"

#define WEIGHTS    "model.safetensors"
#define CHUNK      ((size_t)1 << 20)
#define FILE_LIMIT ((size_t)256 << 20) /* of the files copied beside the weights */

/* Copied as they are when they are there. */
static const char *const copied[] = {"generation_config.json",
                                     "tokenizer.json",
                                     "tokenizer_config.json",
                                     "tokenizer.model",
                                     "vocab.json",
                                     "merges.txt",
                                     "added_tokens.json",
                                     "chat_template.json",
                                     "special_tokens_map.json",
                                     "chat_template.jinja",
                                     "LICENSE",
                                     "LICENSE.txt",
                                     "LICENSE.md",
                                     "NOTICE",
                                     "USAGE_POLICY.md"};
enum { N_COPIED = sizeof copied / sizeof *copied };

typedef struct writer {
  const pf_model *m;
  const pf_model_opts *opts;
  pf_ckpt ckpt;
  pf_wants source;
  pf_want **order; /* of the source's tensors in the file */
  char *tmp;
  int fd;
  char *buf; /* CHUNK bytes, or one row with its scales */
  uint64_t done, total;
} writer;

static int cannot_write(const writer *w, const char *name) {
  return pf_fail(PF_EIO, "%s/%s: cannot write: %s", w->tmp, name, strerror(errno));
}

/* ---- which tensors, in which order
 * ------------------------------------------------------------------------------------------ */

static bool quantised(const pf_want *t) {
  return t->role == PF_WEIGHT;
}

static size_t file_bytes(const pf_want *t) {
  return quantised(t) ? t->rows * t->cols : (size_t)t->src->bytes;
}

static size_t scales_bytes(const pf_want *t) {
  return t->rows * pf_mat_groups(t->dst) * sizeof(float);
}

/* Wide values first: every tensor then begins at a multiple of its value's bytes. */
static int by_width(const void *a, const void *b) {
  const pf_want *x = *(pf_want *const *)a, *y = *(pf_want *const *)b;
  size_t p = quantised(x) ? 1 : pf_dtype_bytes(x->src->dtype),
         q = quantised(y) ? 1 : pf_dtype_bytes(y->src->dtype);
  return p != q ? (p > q ? -1 : 1) : strcmp(x->name, y->name);
}

static int open_source(writer *w) {
  const pf_config *c = &w->m->cfg;
  int rc = pf_ckpt_open(&w->ckpt, c->dir);
  if (rc == PF_OK)
    rc = pf_wants_make(&w->source, c, (pf_model *)w->m);
  if (rc == PF_OK)
    rc = pf_wants_match(&w->source, &w->ckpt, &c->info);
  if (rc != PF_OK)
    return rc;
  if (!(w->order = pf_calloc(w->source.n, sizeof(pf_want *))))
    return PF_ENOMEM;
  size_t row = CHUNK;
  for (size_t i = 0; i < w->source.n; i++) {
    pf_want *t = w->order[i] = &w->source.v[i];
    if (!quantised(t))
      continue;
    size_t bytes = pf_round_up(t->cols, 4) + 4 * pf_mat_groups(t->dst);
    row = bytes > row ? bytes : row;
    w->total += scales_bytes(t);
  }
  for (size_t i = 0; i < w->source.n; i++)
    w->total += file_bytes(w->order[i]);
  qsort(w->order, w->source.n, sizeof(pf_want *), by_width);
  return (w->buf = pf_alloc(row, 1)) ? PF_OK : PF_ENOMEM;
}

/* ---- model.safetensors
 * ------------------------------------------------------------------------------------------------------
 */

static void entry(pf_buf *b, const pf_want *t, const char *tail, const char *dtype, size_t cols,
                  uint64_t *at, uint64_t bytes) {
  pf_buf_printf(b, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":", t->name, tail, dtype);
  pf_buf_printf(b, cols ? "[%zu,%zu]" : "[%zu]", t->rows, cols);
  pf_buf_printf(b, ",\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at,
                (unsigned long long)(*at + bytes));
  *at += bytes;
}

/* Scales come first, as they are as wide as any value. */
static int write_header(writer *w) {
  pf_buf b = {0};
  uint64_t at = 0;
  pf_buf_puts(&b, "{\"__metadata__\":{\"format\":\"pt\"}");
  for (size_t i = 0; i < w->source.n; i++)
    if (quantised(w->order[i]))
      entry(&b, w->order[i], ".scale", "F32", pf_mat_groups(w->order[i]->dst), &at,
            scales_bytes(w->order[i]));
  for (size_t i = 0; i < w->source.n; i++) {
    const pf_want *t = w->order[i];
    entry(&b, t, "", quantised(t) ? "I8" : t->src->dtype_name, t->cols, &at, file_bytes(t));
  }
  pf_buf_puts(&b, "}");
  while (b.n % 8 && !b.failed)
    pf_buf_puts(&b, " ");
  int rc = pf_buf_status(&b);
  unsigned char length[8];
  for (int i = 0; i < 8; i++)
    length[i] = (unsigned char)((uint64_t)b.n >> 8 * i);
  if (rc == PF_OK && (pf_write_all(w->fd, length, 8) != 0 || pf_write_all(w->fd, b.s, b.n) != 0))
    rc = cannot_write(w, WEIGHTS);
  pf_buf_free(&b);
  return rc;
}

static int put(writer *w, size_t n) {
  if (pf_write_all(w->fd, w->buf, n) != 0)
    return cannot_write(w, WEIGHTS);
  w->done += n;
  if (w->opts && w->opts->progress)
    w->opts->progress(w->opts->progress_user, "writing", w->done, w->total);
  return PF_OK;
}

/* All rows of a matrix: their int8 values, or their scales. */
static int put_rows(writer *w, const pf_want *t, bool scales) {
  const pf_mat *m = t->dst;
  size_t n = scales ? 4 * pf_mat_groups(m) : m->k, fill = 0;
  int8_t *q = pf_alloc(m->k, 1);
  float *s = pf_alloc(pf_mat_groups(m), sizeof *s);
  int rc = q && s ? PF_OK : PF_ENOMEM;
  for (size_t r = 0; r < m->n && rc == PF_OK; r++) {
    pf_unpack_s8(m, r, q, s);
    memcpy(w->buf + fill, scales ? (void *)s : (void *)q, n);
    fill += n;
    if (fill + n > CHUNK || r + 1 == m->n) {
      rc = put(w, fill);
      fill = 0;
    }
  }
  pf_free(q);
  pf_free(s);
  return rc;
}

/* The bytes of the published file. */
static int put_published(writer *w, const pf_want *t) {
  int rc = PF_OK;
  for (uint64_t at = 0; at < t->src->bytes && rc == PF_OK;) {
    size_t n = t->src->bytes - at < CHUNK ? (size_t)(t->src->bytes - at) : CHUNK;
    ssize_t got = pread(t->file->fd, w->buf, n, (off_t)(t->src->off + at));
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return pf_fail(PF_EIO, "%s: tensor %s: cannot read: %s", t->file->path, t->name,
                     got ? strerror(errno) : "the file became shorter while it was read");
    rc = put(w, (size_t)got);
    at += (uint64_t)got;
  }
  return rc;
}

static int create(const writer *w, const char *name) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", w->tmp, name);
  return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

static int write_weights(writer *w) {
  if ((w->fd = create(w, WEIGHTS)) < 0)
    return cannot_write(w, WEIGHTS);
  int rc = write_header(w);
  for (size_t i = 0; i < w->source.n && rc == PF_OK; i++)
    if (quantised(w->order[i]))
      rc = put_rows(w, w->order[i], true);
  for (size_t i = 0; i < w->source.n && rc == PF_OK; i++)
    rc = quantised(w->order[i]) ? put_rows(w, w->order[i], false) : put_published(w, w->order[i]);
  if (rc == PF_OK && fsync(w->fd) != 0)
    rc = cannot_write(w, WEIGHTS);
  if (close(w->fd) != 0 && rc == PF_OK)
    rc = cannot_write(w, WEIGHTS);
  return rc;
}

/* ---- the other files
 * -------------------------------------------------------------------------------------------------------
 */

static int write_text(const writer *w, const char *name, const char *text, size_t n) {
  pf_buf path = {0};
  pf_buf_printf(&path, "%s/%s", w->tmp, name);
  int rc = pf_buf_status(&path);
  if (rc == PF_OK)
    rc = pf_write_file(path.s, text, n);
  pf_buf_free(&path);
  return rc;
}

static int copy_file(const writer *w, const char *name) {
  pf_buf path = {0}, text = {0};
  pf_buf_printf(&path, "%s/%s", w->m->cfg.dir, name);
  int rc = pf_buf_status(&path);
  if (rc == PF_OK && access(path.s, F_OK) == 0) {
    rc = pf_read_file(path.s, FILE_LIMIT, &text);
    if (rc == PF_OK)
      rc = write_text(w, name, pf_buf_str(&text), text.n);
  }
  pf_buf_free(&text);
  pf_buf_free(&path);
  return rc;
}

/* The original with a quantization_config. */
static int write_config(const writer *w) {
  pf_buf path = {0};
  json_t *o = NULL;
  pf_buf_printf(&path, "%s/config.json", w->m->cfg.dir);
  int rc = pf_buf_status(&path);
  if (rc == PF_OK)
    rc = pf_js_file(path.s, FILE_LIMIT, &o);
  pf_buf_free(&path);
  if (rc != PF_OK)
    return rc;
  json_t *q = json_pack("{ss si si si}", "quant_method", PF_QUANT_METHOD, "version",
                        PF_QUANT_VERSION, "bits", 8, "group_size", (int)w->m->cfg.info.s8_group);
  char *text = q && json_object_set_new(o, "quantization_config", q) == 0
                   ? json_dumps(o, JSON_INDENT(2))
                   : NULL;
  pf_buf b = {0};
  if (text)
    pf_buf_printf(&b, "%s\n", text);
  rc = text ? pf_buf_status(&b) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = write_text(w, "config.json", b.s, b.n);
  pf_buf_free(&b);
  free(text);
  json_decref(o);
  return rc;
}

/* The last part of a path or name. */
static int base_length(const char *path, const char **base) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/')
    n--;
  size_t at = n;
  while (at > 0 && path[at - 1] != '/')
    at--;
  *base = path + at;
  return (int)(n - at);
}

static int write_card(const writer *w, const char *in, const char *out) {
  const pf_model_info *i = &w->m->cfg.info;
  const char *from, *to;
  int n_from = base_length(in, &from), n_to = base_length(out, &to);
  pf_buf b = {0};
  pf_buf_printf(&b, "# %.*s\n\n%.*s with int8 weights, made by `personaflow quantize`. ", n_to, to,
                n_from, from);
  pf_buf_puts(&b, "The licence and the card of that model hold for this one too.\n\n");
  pf_buf_printf(&b,
                "- Weights of the projections and of the unembedding: int8, symmetric, a scale "
                "(fp32, tensor `NAME.scale`) for every output and %d inputs. A weight is its int8 "
                "value times its scale.\n"
                "- All other tensors: as published.\n"
                "- Tensors: %.1f MB, published %.1f MB.\n",
                (int)i->s8_group, (double)w->total / 1e6, (double)i->weight_bytes / 1e6);
  if (i->weights_sha256[0])
    pf_buf_printf(&b, "- Made from weights with the SHA-256 %s (as `personaflow` counts it).\n",
                  i->weights_sha256);
  pf_buf_puts(&b, "\npersonaflow runs it in precision `int8`, with the bits that the original "
                  "model has in that precision. Other programs do not know the format.\n");
  int rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = write_text(w, "README.md", b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

static int write_all(writer *w, const char *in, const char *out) {
  int rc = write_weights(w);
  if (rc == PF_OK)
    rc = write_config(w);
  for (size_t i = 0; i < N_COPIED && rc == PF_OK; i++)
    rc = copy_file(w, copied[i]);
  return rc == PF_OK ? write_card(w, in, out) : rc;
}

/* ---- the directory
 * -------------------------------------------------------------------------------------------------------
 */

/* Files that a failure leaves; nobody else writes there. */
static void discard(const writer *w) {
  static const char *const made[] = {WEIGHTS, "config.json", "README.md"};
  char path[PATH_MAX];
  for (size_t i = 0; i < N_COPIED + 3; i++) {
    const char *name = i < N_COPIED ? copied[i] : made[i - N_COPIED];
    snprintf(path, sizeof path, "%s/%s", w->tmp, name);
    (void)unlink(path);
  }
  (void)rmdir(w->tmp);
}

static int exists_already(const char *out) {
  return pf_fail(PF_EEXIST, "%s: exists already; choose another name or remove it", out);
}

/* rename() alone would replace an empty folder. */
static int move(const char *tmp, const char *out) {
  struct stat st;
  int bad = renameat2(AT_FDCWD, tmp, AT_FDCWD, out, RENAME_NOREPLACE);
  if (bad && (errno == EINVAL || errno == ENOSYS)) { /* a file system without it */
    if (lstat(out, &st) == 0)
      return exists_already(out);
    bad = rename(tmp, out);
  }
  if (bad)
    return errno == EEXIST
               ? exists_already(out)
               : pf_fail(PF_EIO, "%s: cannot be made from %s: %s", out, tmp, strerror(errno));
  return pf_sync_parent(out);
}

static int write_directory(writer *w, const char *in, const char *out) {
  if (mkdir(w->tmp, 0777) != 0)
    return pf_fail(PF_EIO, "%s: cannot make the folder %s: %s", out, w->tmp, strerror(errno));
  int rc = write_all(w, in, out);
  if (rc == PF_OK)
    rc = move(w->tmp, out);
  if (rc != PF_OK)
    discard(w);
  return rc;
}

/* OUT without slashes at its end, and the name that the folder has until it is complete. */
static int names_of(const char *out, char **plain, char **tmp) {
  enum { TAIL = 32, NAME = 64 }; /* of the temporary name; of a file in it */
  size_t n = strlen(out);
  struct stat st;
  while (n > 1 && out[n - 1] == '/')
    n--;
  if (n == 0)
    return pf_fail(PF_EUSAGE, "the name of the directory to write is empty");
  if (n + TAIL + NAME > PATH_MAX)
    return pf_fail(PF_EUSAGE, "%.60s...: the name is too long", out);
  *plain = pf_calloc(n + 1, 1);
  *tmp = pf_calloc(n + TAIL, 1);
  if (!*plain || !*tmp)
    return PF_ENOMEM;
  memcpy(*plain, out, n);
  snprintf(*tmp, n + TAIL, "%s.tmp.%ld", *plain, (long)getpid());
  return lstat(*plain, &st) == 0 ? exists_already(*plain) : PF_OK;
}

static int open_int8(pf_model **m, const char *in, const pf_model_opts *opts) {
  pf_model_opts o = opts ? *opts : (pf_model_opts){0};
  o.precision = PF_PRECISION_INT8;
  int rc = pf_model_open_config(m, in);
  if (rc == PF_OK && (*m)->cfg.s8_group)
    rc = pf_fail(PF_EUSAGE, "%s: its weights are int8 already", (*m)->cfg.dir);
  pf_model_close(*m);
  *m = NULL;
  return rc == PF_OK ? pf_model_open(m, in, &o) : rc;
}

int pf_model_quantize(const char *in, const char *out, const pf_model_opts *opts) {
  writer w = {.opts = opts};
  pf_model *m = NULL;
  char *plain = NULL;
  int rc = names_of(out, &plain, &w.tmp);
  if (rc == PF_OK)
    rc = open_int8(&m, in, opts);
  w.m = m;
  if (rc == PF_OK)
    rc = open_source(&w);
  if (rc == PF_OK)
    rc = write_directory(&w, in, plain);
  pf_wants_free(&w.source);
  pf_ckpt_close(&w.ckpt);
  pf_model_close(m);
  pf_free(w.order);
  pf_free(w.buf);
  pf_free(w.tmp);
  pf_free(plain);
  return rc;
}
