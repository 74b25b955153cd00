/* SPDX-License-Identifier: Apache-2.0
 * Reading a snapshot. Everything is checked against the manifest before it is used. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "analysis/snapshot.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"

enum { MANIFEST_LIMIT = 256 << 20 };
#define PROMPT_LIMIT ((size_t)1 << 32)

static int broken(const pf_snap *s, const char *what) {
  return pf_fail(PF_EINPUT, "%s: damaged snapshot: %s: make it again", s->dir, what);
}

static int read_manifest(pf_snap *s) {
  char path[4400], part[4400];
  snprintf(path, sizeof path, "%s/manifest.json", s->dir);
  snprintf(part, sizeof part, "%s/partial.json", s->dir);
  if (access(path, F_OK) != 0 && access(part, F_OK) == 0)
    return pf_fail(PF_EINPUT,
                   "%s: the snapshot is not complete: personaflow snap --resume goes on with it",
                   s->dir);
  if (access(path, F_OK) != 0)
    return pf_fail(PF_EINPUT, "%s: no snapshot: it has no manifest.json", s->dir);
  int rc = pf_js_file(path, MANIFEST_LIMIT, &s->manifest);
  if (rc != PF_OK)
    return rc;
  const char *schema = json_string_value(json_object_get(s->manifest, "schema"));
  if (!schema || strcmp(schema, PF_SNAP_SCHEMA) != 0)
    return pf_fail(PF_EINPUT, "%s: schema '%s': this version reads " PF_SNAP_SCHEMA, path,
                   schema ? schema : "");
  s->head = json_object_get(s->manifest, "head");
  return PF_OK;
}

static int read_head(pf_snap *s) {
  json_int_t block = json_integer_value(json_object_get(s->head, "block")),
             tokens = json_integer_value(json_object_get(s->head, "max_tokens"));
  s->n_prompts = json_array_size(json_object_get(s->manifest, "files"));
  s->full = json_is_true(json_object_get(s->head, "full"));
  if (block < 1 || block > INT32_MAX || tokens < 0 || tokens > INT32_MAX || s->n_prompts == 0)
    return broken(s, "the head of the manifest makes no sense");
  s->block = (int32_t)block;
  s->max_tokens = (int32_t)tokens;
  int rc = pf_model_open_config(&s->config, s->dir);
  if (rc == PF_OK)
    rc = pf_points_named(&s->points, s->config, json_object_get(s->head, "points"));
  return rc == PF_EUSAGE ? pf_fail_prefix(PF_EINPUT, "%s", s->dir) : rc;
}

int pf_snap_open(pf_snap *out, const char *dir) {
  *out = (pf_snap){.dir = pf_strdup(dir)};
  int rc = !out->dir ? PF_ENOMEM : strlen(dir) > 4000 ? PF_EUSAGE : read_manifest(out);
  if (rc == PF_OK)
    rc = read_head(out);
  if (rc != PF_OK)
    pf_snap_close(out);
  return rc;
}

void pf_snap_close(pf_snap *s) {
  json_decref(s->manifest);
  pf_points_free(&s->points);
  pf_model_close(s->config);
  pf_free(s->dir);
  *s = (pf_snap){0};
}

static const char *file_text(const pf_snap *s, size_t k, const char *key) {
  const json_t *f = json_array_get(json_object_get(s->manifest, "files"), k);
  const char *t = json_string_value(json_object_get(f, key));
  return t ? t : "";
}

const char *pf_snap_file_sha(const pf_snap *s, size_t k) {
  return file_text(s, k, "sha256");
}

const char *pf_snap_id(const pf_snap *s, size_t k) {
  return file_text(s, k, "id");
}

static int nibble(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_hex(const char *s, pf_sha *out) {
  if (!s || strlen(s) != 64)
    return false;
  for (int i = 0; i < 32; i++) {
    int hi = nibble(s[2 * i]), lo = nibble(s[2 * i + 1]);
    if (hi < 0 || lo < 0)
      return false;
    out->b[i] = (unsigned char)(hi << 4 | lo);
  }
  return true;
}

static int take_ids(const json_t *list, pf_ids *out) {
  int rc = json_is_array(list) ? PF_OK : PF_EINPUT;
  for (size_t i = 0; rc == PF_OK && i < json_array_size(list); i++)
    rc = pf_ids_push(out, (int32_t)json_integer_value(json_array_get(list, i)));
  return rc;
}

static bool take_digests(const pf_snap *s, const json_t *points, pf_snap_prompt *p) {
  for (size_t i = 0; i < s->points.n; i++) {
    const json_t *list = json_object_get(points, s->points.v[i].name);
    size_t n = pf_blocks_n(&p->blocks) * s->points.v[i].heads;
    if (json_array_size(list) != n)
      return false;
    for (size_t k = 0; k < n; k++)
      if (!take_hex(json_string_value(json_array_get(list, k)), &p->digest[i][k]))
        return false;
  }
  return true;
}

static int take_prompt(const pf_snap *s, size_t k, const json_t *o, pf_snap_prompt *out) {
  pf_ids ids = {0};
  int rc = take_ids(json_object_get(o, "ids"), &ids);
  if (rc == PF_OK && ids.n == 0)
    rc = PF_EINPUT;
  if (rc == PF_OK)
    rc = pf_snap_prompt_init(out, &s->points, pf_snap_id(s, k), ids.v, ids.n, s->max_tokens,
                             s->block);
  if (rc == PF_OK) {
    rc = take_ids(json_object_get(o, "generated"), &out->generated);
    if (rc == PF_OK && !take_digests(s, json_object_get(o, "points"), out))
      rc = PF_EINPUT;
    if (rc != PF_OK)
      pf_snap_prompt_free(out);
  }
  pf_ids_free(&ids);
  return rc == PF_EINPUT ? broken(s, "a prompt's file lacks digests") : rc;
}

/* The file of prompt k, if it is the one that the manifest lists. */
static int read_listed(const pf_snap *s, size_t k, char path[4400], pf_buf *out) {
  char hex[65];
  snprintf(path, 4400, "%s/prompt-%06zu.json", s->dir, k);
  int rc = pf_read_file(path, PROMPT_LIMIT, out);
  if (rc != PF_OK)
    return rc;
  pf_sha256_hex(pf_buf_str(out), out->n, hex);
  return !strcmp(hex, pf_snap_file_sha(s, k))
             ? PF_OK
             : pf_fail(PF_EINPUT,
                       "%s: not the file that the manifest lists: make the snapshot again", path);
}

int pf_snap_check(const pf_snap *s, size_t k) {
  char path[4400];
  pf_buf b = {0};
  int rc = read_listed(s, k, path, &b);
  pf_buf_free(&b);
  return rc;
}

int pf_snap_read(const pf_snap *s, size_t k, pf_snap_prompt *out) {
  char path[4400];
  pf_buf b = {0};
  json_t *o = NULL;
  *out = (pf_snap_prompt){0};
  int rc = read_listed(s, k, path, &b);
  if (rc == PF_OK)
    rc = pf_js_text(path, pf_buf_str(&b), b.n, &o);
  pf_buf_free(&b);
  if (rc == PF_OK)
    rc = take_prompt(s, k, o, out);
  json_decref(o);
  return rc;
}

void pf_snap_values_path(const pf_snap *s, size_t k, char path[4400]) {
  snprintf(path, 4400, "%s/prompt-%06zu.safetensors", s->dir, k);
}
