/* SPDX-License-Identifier: Apache-2.0
 * Making a snapshot: a folder that is filled prompt by prompt, each file whole or not there, the
 * manifest last. */
#include "analysis/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/folder.h"
#include "analysis/jsonout.h"
#include "base/fpenv.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

#define MANIFEST "manifest.json"
#define PARTIAL  "partial.json"
#define CONFIG   "config.json"
enum { MOST_BLOCK = 65536, CONFIG_LIMIT = 16 << 20, HEAD_LIMIT = 64 << 20 };

typedef struct snap {
  const pf_snap_opts *o;
  const pf_snap_extra *x;
  char model_dir[4096];
  int lock;
  pf_model *model;
  pf_prompts prompts;
  pf_points points;
  int32_t block;
  json_t *head, *files;
  uint64_t done, total; /* positions */
  pf_tout *values;
} snap;

/* ---- files of the folder --------------------------------------------------------------------- */

static char *path_of(const snap *s, const char *name, char buf[4400]) {
  snprintf(buf, 4400, "%s/%s", s->o->out_dir, name);
  return buf;
}

static char *prompt_path(const snap *s, size_t k, const char *ext, char buf[4400]) {
  snprintf(buf, 4400, "%s/prompt-%06zu.%s", s->o->out_dir, k, ext);
  return buf;
}

/* Names that a snapshot leaves beside its partial.json. */
static bool ours(const char *name) {
  return !strcmp(name, MANIFEST) || !strcmp(name, CONFIG) || !strncmp(name, "prompt-", 7);
}

/* One of those in a folder that holds no snapshot belongs to somebody else. */
static int check_foreign(const char *dir) {
  int rc = pf_folder_guard(dir, PF_FOLDER_SNAPSHOT);
  DIR *d = rc == PF_OK ? opendir(dir) : NULL;
  if (rc == PF_OK && !d)
    rc = pf_fail(PF_EIO, "%s: cannot read: %s", dir, strerror(errno));
  for (struct dirent *e; rc == PF_OK && (e = readdir(d));)
    if (ours(e->d_name) || !strcmp(e->d_name, PARTIAL))
      rc = pf_fail(PF_EEXIST, "%s: holds %s, but no snapshot: choose another folder", dir,
                   e->d_name);
  if (d)
    closedir(d);
  return rc;
}

/* Removes what a snapshot left, the manifest first: half of a snapshot is none. partial.json is
 * there already and says whose the rest is. */
static int clear(const snap *s) {
  char path[4400];
  unlink(path_of(s, MANIFEST, path));
  DIR *d = opendir(s->o->out_dir);
  int rc = d ? PF_OK : pf_fail(PF_EIO, "%s: cannot read: %s", s->o->out_dir, strerror(errno));
  for (struct dirent *e; rc == PF_OK && (e = readdir(d));)
    if (ours(e->d_name) && unlink(path_of(s, e->d_name, path)) != 0 && errno != ENOENT)
      rc = pf_fail(PF_EIO, "%s: cannot remove: %s", path, strerror(errno));
  if (d)
    closedir(d);
  return rc;
}

bool pf_snap_is(const char *dir) {
  return pf_folder_is(dir, PF_FOLDER_SNAPSHOT);
}

static int make_folder(snap *s) {
  const char *dir = s->o->out_dir;
  if (!dir || !*dir || strlen(dir) > 4000)
    return pf_fail(PF_EUSAGE, "output folder: the path is empty or too long");
  int rc = pf_make_dirs(dir);
  if (rc != PF_OK)
    return rc;
  s->lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (s->lock < 0 || access(dir, W_OK) != 0)
    return pf_fail(PF_EIO, "%s: cannot write there: %s", dir, strerror(errno));
  if (flock(s->lock, LOCK_EX | LOCK_NB) != 0)
    return pf_fail(PF_EEXIST, "%s: another run is at work there: wait, or choose another folder",
                   dir);
  if (pf_snap_is(dir) && !s->o->resume && !s->o->force)
    return pf_fail(PF_EEXIST,
                   "%s: holds a snapshot already: --resume goes on with it, --force starts again",
                   dir);
  return pf_snap_is(dir) ? PF_OK : check_foreign(dir);
}

/* ---- the head -------------------------------------------------------------------------------- */

static void prompts_digest(const pf_prompts *p, char hex[65]) {
  pf_buf b = {0};
  for (size_t i = 0; i < p->n; i++) {
    pf_buf_printf(&b, "%s:", p->v[i].id);
    for (size_t k = 0; k < p->v[i].ids.n; k++)
      pf_buf_printf(&b, " %d", (int)p->v[i].ids.v[k]);
    pf_buf_puts(&b, "\n");
  }
  pf_sha256_hex(pf_buf_str(&b), b.n, hex);
  pf_buf_free(&b);
}

/* What decides the bits, and what they are cut into. */
static json_t *make_head(const snap *s) {
  const pf_model_info *i = pf_model_get_info(s->model);
  char prompts[65];
  prompts_digest(&s->prompts, prompts);
  const char *tok = s->prompts.tokenizer_sha256;
  return json_pack("{s:i s:s s:s s:s s:s s:o s:s s:I s:i s:i s:b s:o}", "contract",
                   pf_contract_version(), "precision", pf_precision_name(i->precision), "arch",
                   i->arch, "weights_sha256", i->weights_sha256, "weights_dtype", i->weights_dtype,
                   "tokenizer_sha256", *tok ? json_string(tok) : json_null(), "prompts_sha256",
                   prompts, "prompts", (json_int_t)s->prompts.n, "max_tokens",
                   (int)s->o->max_tokens, "block", (int)s->block, "full", s->o->full != 0, "points",
                   pf_points_names(&s->points));
}

static int same_head(const snap *s, const char *name, const json_t *old) {
  const char *key;
  json_t *v;
  json_object_foreach(
      s->head, key,
      v) if (!json_equal(v,
                         json_object_get(
                             old, key))) return pf_fail(PF_EUSAGE,
                                                        "%s/%s: holds a snapshot that differs in "
                                                        "%s: choose another folder, or --force to "
                                                        "start again",
                                                        s->o->out_dir, name, key);
  return PF_OK;
}

/* A snapshot that is to be gone on with must be this one. *complete: there is nothing left to do.
 */
static int look_back(const snap *s, bool *complete) {
  static const char *const names[] = {MANIFEST, PARTIAL};
  char path[4400];
  *complete = false;
  for (size_t i = 0; i < 2 && s->o->resume; i++) {
    json_t *old;
    if (access(path_of(s, names[i], path), F_OK) != 0)
      continue;
    int rc = pf_js_file(path, HEAD_LIMIT, &old);
    if (rc == PF_OK)
      rc = same_head(s, names[i], json_object_get(old, "head"));
    json_decref(old);
    *complete = rc == PF_OK && i == 0;
    return rc;
  }
  return PF_OK;
}

static int copy_config(const snap *s) {
  char from[4400], to[4400];
  pf_buf b = {0};
  snprintf(from, sizeof from, "%s/" CONFIG, s->model_dir);
  int rc = pf_read_file(from, CONFIG_LIMIT, &b);
  if (rc == PF_OK)
    rc = pf_write_file(path_of(s, CONFIG, to), b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

static int begin(snap *s) {
  json_t *partial = json_pack("{s:s s:O}", "schema", PF_SNAP_SCHEMA, "head", s->head);
  bool go_on = s->o->resume && pf_snap_is(s->o->out_dir);
  int rc = pf_js_write(s->o->out_dir, PARTIAL, partial);
  if (rc == PF_OK && !go_on)
    rc = clear(s);
  if (rc == PF_OK)
    rc = copy_config(s);
  json_decref(partial);
  return rc;
}

/* ---- prompts --------------------------------------------------------------------------------- */

static void put_hex(pf_buf *b, const pf_sha *sha) {
  static const char digits[] = "0123456789abcdef";
  char hex[64];
  for (int i = 0; i < 32; i++) {
    hex[2 * i] = digits[sha->b[i] >> 4];
    hex[2 * i + 1] = digits[sha->b[i] & 15];
  }
  pf_buf_add(b, hex, sizeof hex);
}

static void put_ids(pf_buf *b, const char *key, const pf_ids *ids) {
  pf_buf_printf(b, " \"%s\": [", key);
  for (size_t i = 0; i < ids->n; i++)
    pf_buf_printf(b, "%s%d", i ? ", " : "", (int)ids->v[i]);
  pf_buf_puts(b, "],\n");
}

/* One line a point, so that text tools can compare snapshots too. */
static void put_prompt(const snap *s, const pf_snap_prompt *p, pf_buf *b) {
  json_t *id = json_string(p->id);
  pf_buf_puts(b, "{\n \"id\": ");
  pf_js_dump(id, 0, b);
  pf_buf_puts(b, ",\n");
  put_ids(b, "ids", &p->ids);
  put_ids(b, "generated", &p->generated);
  pf_buf_puts(b, " \"points\": {\n");
  for (size_t i = 0; i < s->points.n; i++) {
    const pf_at *a = &s->points.v[i];
    size_t n = pf_blocks_n(&p->blocks) * a->heads;
    pf_buf_printf(b, "  \"%s\": [", a->name);
    for (size_t k = 0; k < n; k++) {
      pf_buf_puts(b, k ? ",\"" : "\"");
      put_hex(b, &p->digest[i][k]);
      pf_buf_puts(b, "\"");
    }
    pf_buf_puts(b, i + 1 < s->points.n ? "],\n" : "]\n");
  }
  pf_buf_puts(b, " }\n}\n");
  json_decref(id);
}

static int write_prompt(const snap *s, size_t k, const pf_snap_prompt *p) {
  char path[4400];
  pf_buf b = {0};
  put_prompt(s, p, &b);
  int rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = pf_write_file(prompt_path(s, k, "json", path), b.s, b.n);
  pf_buf_free(&b);
  return rc;
}

static int put_rows(void *user, size_t point, int32_t lo, int32_t hi, const float *v,
                    size_t stride) {
  snap *s = user;
  return pf_tout_put(s->values, point, (size_t)lo * stride, v, (size_t)(hi - lo) * stride);
}

static int open_tensors(pf_tout **out, const char *path, const pf_points *points,
                        const pf_snap_prompt *p, const pf_origin *origin) {
  pf_tensor *t = pf_calloc(points->n, sizeof *t);
  if (!t)
    return PF_ENOMEM;
  for (size_t i = 0; i < points->n; i++) {
    const pf_at *a = &points->v[i];
    t[i].name = (char *)a->name;
    t[i].dims[t[i].n_dims++] = (size_t)p->blocks.all;
    if (a->hook->heads)
      t[i].dims[t[i].n_dims++] = a->heads;
    t[i].dims[t[i].n_dims++] = a->width ? a->width : (size_t)p->blocks.all;
  }
  int rc = pf_tout_open(out, path, t, points->n, pf_origin_pairs(origin));
  pf_free(t);
  return rc;
}

int pf_points_values(pf_tout **out, const char *path, const pf_points *points,
                     const pf_snap_prompt *p, const pf_model *m, const char *tokenizer_sha256) {
  pf_origin *o;
  *out = NULL;
  int rc = pf_origin_new(&o, m, tokenizer_sha256, p->ids.v, p->ids.n, (pf_span){0, p->blocks.all});
  if (rc == PF_OK)
    rc = pf_origin_add(o, "prompt", p->id);
  if (rc == PF_OK)
    rc = open_tensors(out, path, points, p, o);
  pf_origin_free(o);
  return rc;
}

static void count(void *user, int32_t positions) {
  snap *s = user;
  s->done += (uint64_t)positions;
  if (s->o->progress)
    s->o->progress(s->o->progress_user, "snapshot", s->done, s->total);
}

static int open_values(snap *s, size_t k, const pf_snap_prompt *p) {
  char path[4400];
  return pf_points_values(&s->values, prompt_path(s, k, "safetensors", path), &s->points, p,
                          s->model, s->prompts.tokenizer_sha256);
}

static int close_values(snap *s, int rc) {
  if (s->values && rc == PF_OK)
    rc = pf_tout_commit(s->values);
  else
    pf_tout_abandon(s->values);
  s->values = NULL;
  return rc;
}

static int run_prompt(snap *s, size_t k, pf_snap_prompt *p) {
  bool edited = s->x && s->x->prompt == k;
  pf_runner r = {.model = s->model,
                 .points = &s->points,
                 .isa = s->o->isa,
                 .threads = s->o->threads,
                 .block = s->block,
                 .max_tokens = s->o->max_tokens,
                 .chunk = s->o->chunk,
                 .edits = edited ? s->x->edits : NULL,
                 .n_edits = edited ? s->x->n_edits : 0,
                 .rows = s->o->full ? put_rows : NULL,
                 .done = count,
                 .user = s,
                 .stop = s->o->stop};
  int rc = s->o->full ? open_values(s, k, p) : PF_OK;
  if (rc == PF_OK)
    rc = pf_runner_run(&r, p);
  rc = close_values(s, rc); /* before the digests, which say that it is there */
  return rc == PF_OK ? write_prompt(s, k, p) : rc;
}

static int make_prompt(snap *s, size_t k) {
  const pf_prompt *q = &s->prompts.v[k];
  pf_snap_prompt p;
  int rc =
      pf_snap_prompt_init(&p, &s->points, q->id, q->ids.v, q->ids.n, s->o->max_tokens, s->block);
  if (rc != PF_OK)
    return rc;
  rc = run_prompt(s, k, &p);
  if (rc == PF_EINCOMPLETE)
    rc = pf_fail(PF_EINCOMPLETE, "%s: stopped at prompt %zu of %zu: --resume goes on",
                 s->o->out_dir, k, s->prompts.n);
  else if (rc != PF_OK)
    rc = pf_fail_prefix(rc, "prompt '%s'", q->id);
  pf_snap_prompt_free(&p);
  return rc;
}

static bool has_prompt(const snap *s, size_t k) {
  char path[4400];
  return access(prompt_path(s, k, "json", path), F_OK) == 0 &&
         (!s->o->full || access(prompt_path(s, k, "safetensors", path), F_OK) == 0);
}

/* The digest of the file as it is on the disk. */
static int list_prompt(snap *s, size_t k) {
  char path[4400], hex[65];
  pf_buf b = {0};
  int rc = pf_read_file(prompt_path(s, k, "json", path), (size_t)1 << 32, &b);
  if (rc == PF_OK) {
    pf_sha256_hex(b.s, b.n, hex);
    rc = json_array_append_new(s->files,
                               json_pack("{s:s s:s}", "id", s->prompts.v[k].id, "sha256", hex)) == 0
             ? PF_OK
             : PF_ENOMEM;
  }
  pf_buf_free(&b);
  return rc;
}

static int make_prompts(snap *s) {
  int rc = PF_OK;
  for (size_t k = 0; k < s->prompts.n; k++)
    s->total += s->prompts.v[k].ids.n + (size_t)(s->o->max_tokens > 0 ? s->o->max_tokens - 1 : 0);
  for (size_t k = 0; rc == PF_OK && k < s->prompts.n; k++) {
    if (s->o->resume && has_prompt(s, k))
      s->total -= s->prompts.v[k].ids.n + (size_t)(s->o->max_tokens > 0 ? s->o->max_tokens - 1 : 0);
    else
      rc = make_prompt(s, k);
    if (rc == PF_OK)
      rc = list_prompt(s, k);
  }
  return rc;
}

/* ---- the manifest ---------------------------------------------------------------------------- */

json_t *pf_tensors_json(const pf_model *m) {
  size_t n;
  const pf_tensor_info *t = pf_model_tensors(m, &n);
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(list, json_pack("{s:s s:s s:I s:I s:s}", "name", t[i].name, "dtype",
                                          t[i].dtype, "rows", (json_int_t)t[i].rows, "cols",
                                          (json_int_t)t[i].cols, "sha256", t[i].sha256));
  return list;
}

/* Over the head and the digests of the files: one value that two equal snapshots share, whether
 * values are kept or not. */
static void digest_of(const snap *s, char hex[65]) {
  pf_buf b = {0};
  json_t *head = json_copy(s->head);
  json_object_del(head, "full");
  pf_js_dump(head, 0, &b);
  json_decref(head);
  pf_js_dump(s->files, 0, &b);
  pf_sha256_hex(pf_buf_str(&b), b.n, hex);
  pf_buf_free(&b);
}

const char *pf_isa_in_force(const char *cap) {
  const char *env = getenv("PERSONAFLOW_ISA");
  size_t n;
  const char *const *isas = pf_isas(&n);
  return cap && *cap ? cap : env && *env ? env : isas[n - 1];
}

static int finish(snap *s, char digest[65]) {
  char path[4400];
  digest_of(s, digest);
  json_t *by =
      json_pack("{s:s s:s s:s s:s s:s s:i s:i}", "program", "personaflow", "version", pf_version(),
                "cpu", pf_cpu_name(), "features", pf_cpu_features(), "isa",
                pf_isa_in_force(s->o->isa), "threads", s->o->threads, "chunk", (int)s->o->chunk);
  json_t *m = json_pack("{s:s s:s s:O s:s s:O s:o s:o}", "schema", PF_SNAP_SCHEMA, "digest", digest,
                        "head", s->head, "model", s->o->model, "files", s->files, "made_by", by,
                        "tensors", pf_tensors_json(s->model));
  int rc = pf_js_write(s->o->out_dir, MANIFEST, m);
  json_decref(m);
  if (rc == PF_OK)
    unlink(path_of(s, PARTIAL, path));
  return rc;
}

/* What is there already is the result. */
static int known_digest(const snap *s, char digest[65]) {
  pf_snap old;
  int rc = pf_snap_open(&old, s->o->out_dir);
  if (rc == PF_OK)
    snprintf(digest, 65, "%s", json_string_value(json_object_get(old.manifest, "digest")));
  pf_snap_close(&old);
  return rc;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int check(const pf_snap_opts *o) {
  if (o->block < 0 || o->block > MOST_BLOCK || o->chunk < 0 || o->max_tokens < 0)
    return pf_fail(PF_EUSAGE, "block is 1 to %d, chunk and max_tokens are not negative",
                   MOST_BLOCK);
  return o->prompts && o->prompts_name && o->out_dir
             ? PF_OK
             : pf_fail(PF_EUSAGE, "a snapshot wants prompts, a name for them and an output folder");
}

/* Before begin(), which --force lets remove what is there. */
static int fits(const snap *s) {
  const pf_model_info *i = pf_model_get_info(s->model);
  return pf_prompts_fit(&s->prompts, s->o->prompts_name, i->vocab_size, i->max_positions,
                        s->o->max_tokens > 0 ? s->o->max_tokens - 1 : 0);
}

static int open_all(snap *s) {
  pf_model_opts mo = {.threads = s->o->threads,
                      .progress = s->o->progress,
                      .progress_user = s->o->progress_user,
                      .precision = s->o->precision,
                      .isa = s->o->isa};
  int rc = pf_model_resolve(s->o->model, s->model_dir, sizeof s->model_dir);
  if (rc == PF_OK)
    rc = pf_prompts_parse(&s->prompts, s->o->prompts_name, s->o->prompts, s->o->n_prompts,
                          s->model_dir, NULL);
  if (rc == PF_OK)
    rc = make_folder(s);
  if (rc == PF_OK)
    rc = pf_model_open(&s->model, s->model_dir, &mo);
  if (rc == PF_OK)
    rc = fits(s);
  if (rc == PF_OK)
    rc = pf_points_make(&s->points, s->model, s->o->hooks);
  if (rc == PF_OK)
    rc = (s->head = make_head(s)) && (s->files = json_array()) ? PF_OK : PF_ENOMEM;
  return rc;
}

int pf_snap_make(const pf_snap_opts *o, const pf_snap_extra *x, char digest[65]) {
  snap s = {.o = o, .x = x, .lock = -1, .block = o->block ? o->block : PF_SNAP_BLOCK};
  char hex[65];
  bool complete = false;
  int rc = check(o);
  if (rc == PF_OK)
    rc = open_all(&s);
  if (rc == PF_OK)
    rc = look_back(&s, &complete);
  if (rc == PF_OK && !complete)
    rc = begin(&s);
  if (rc == PF_OK && !complete)
    rc = make_prompts(&s);
  if (rc == PF_OK)
    rc = complete ? known_digest(&s, hex) : finish(&s, hex);
  if (rc == PF_OK && digest)
    memcpy(digest, hex, sizeof hex);
  json_decref(s.head);
  json_decref(s.files);
  pf_points_free(&s.points);
  pf_prompts_free(&s.prompts);
  pf_model_close(s.model);
  if (s.lock >= 0)
    close(s.lock);
  return rc;
}

int pf_snap_run(const pf_snap_opts *o, char digest[65]) {
  PF_FP_PLAIN();
  return pf_snap_make(o, NULL, digest);
}
