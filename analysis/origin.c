/* SPDX-License-Identifier: Apache-2.0
 * What recorded values come from, as metadata of their file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/study.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "personaflow/personaflow.h"

enum { MOST_PAIRS = 24, FEW_IDS = 512 };

struct pf_origin {
  char *v[2 * MOST_PAIRS + 1]; /* keys and values in turn, then NULL */
  size_t n;
};

void pf_origin_free(pf_origin *o) {
  for (size_t i = 0; o && i < o->n; i++)
    pf_free(o->v[i]);
  pf_free(o);
}

int pf_origin_add(pf_origin *o, const char *key, const char *value) {
  if (o->n == 2 * MOST_PAIRS)
    return pf_fail(PF_EUSAGE, "%s: more than %d entries of metadata", key, MOST_PAIRS);
  char *k = pf_strdup(key), *v = pf_strdup(value);
  if (!k || !v) {
    pf_free(k);
    pf_free(v);
    return PF_ENOMEM;
  }
  o->v[o->n++] = k;
  o->v[o->n++] = v;
  return PF_OK;
}

const char *const *pf_origin_pairs(const pf_origin *o) {
  return (const char *const *)o->v;
}

/* ---- entries --------------------------------------------------------------------------------- */

/* A path that ends in a name: no slash or "/." at its end; where only dots are left, the real path
 * (a heap string of the C library in any case). */
static char *model_path(const char *dir) {
  size_t n = strlen(dir);
  for (size_t was = 0; was != n;) {
    was = n;
    if (n > 1 && dir[n - 1] == '/')
      n--;
    else if (n > 2 && dir[n - 1] == '.' && dir[n - 2] == '/')
      n -= 2;
  }
  const char *last = dir + n;
  while (last > dir && last[-1] != '/')
    last--;
  size_t length = (size_t)(dir + n - last);
  bool dots = length == strspn(last, ".") && length <= 2;
  char *real = dots ? realpath(dir, NULL) : NULL;
  return real ? real : strndup(dir, n);
}

/* Cuts the last part off and returns it; NULL: there is none. */
static const char *take_last(char *path) {
  char *slash = strrchr(path, '/');
  if (!slash)
    return NULL;
  *slash = '\0';
  return slash + 1;
}

char *pf_model_name(const char *dir) {
  static const char repo[] = "models--";
  char *path = model_path(dir);
  if (!path)
    return NULL;
  const char *name = take_last(path), *parent = name ? take_last(path) : NULL;
  if (parent && !strcmp(parent, "snapshots")) {
    const char *last = take_last(path), *of = last ? last : path;
    if (!strncmp(of, repo, sizeof repo - 1))
      for (name = of; (of = strstr(name, "--"));)
        name = of + 2;
  }
  char *text = pf_strdup(name && *name ? name : path);
  free(path);
  return text;
}

static int add_model(pf_origin *o, const pf_model *m) {
  const pf_model_info *i = pf_model_get_info(m);
  char *path = model_path(i->dir);
  int rc = path ? pf_origin_add(o, "model", path) : PF_ENOMEM;
  free(path);
  if (rc == PF_OK)
    rc = pf_origin_add(o, "precision", pf_precision_name(i->precision));
  if (rc == PF_OK && *i->weights_sha256)
    rc = pf_origin_add(o, "weights_sha256", i->weights_sha256);
  return rc;
}

static int add_ids(pf_origin *o, const int32_t *ids, size_t n) {
  pf_buf b = {0};
  char hex[65];
  for (size_t i = 0; i < n; i++)
    pf_buf_printf(&b, "%s%d", i ? "," : "", (int)ids[i]);
  pf_sha256_hex(pf_buf_str(&b), b.n, hex);
  int rc = pf_buf_status(&b);
  if (rc == PF_OK)
    rc = pf_origin_add(o, "prompt_ids_sha256", hex);
  if (rc == PF_OK && n <= FEW_IDS)
    rc = pf_origin_add(o, "prompt_ids", pf_buf_str(&b));
  pf_buf_free(&b);
  return rc;
}

static int add_program(pf_origin *o) {
  char contract[16];
  snprintf(contract, sizeof contract, "%d", pf_contract_version());
  int rc = pf_origin_add(o, "program", "personaflow");
  if (rc == PF_OK)
    rc = pf_origin_add(o, "version", pf_version());
  return rc == PF_OK ? pf_origin_add(o, "contract", contract) : rc;
}

int pf_origin_new(pf_origin **out, const pf_model *m, const char *tokenizer_sha256,
                  const int32_t *ids, size_t n, pf_span at) {
  char span[32];
  pf_origin *o = *out = pf_calloc(1, sizeof *o);
  if (!o)
    return PF_ENOMEM;
  snprintf(span, sizeof span, "%d:%d", (int)at.lo, (int)at.hi);
  int rc = add_program(o);
  if (rc == PF_OK)
    rc = add_model(o, m);
  if (rc == PF_OK && tokenizer_sha256 && *tokenizer_sha256)
    rc = pf_origin_add(o, "tokenizer_sha256", tokenizer_sha256);
  if (rc == PF_OK)
    rc = add_ids(o, ids, n);
  if (rc == PF_OK)
    rc = pf_origin_add(o, "positions", span);
  if (rc != PF_OK) {
    pf_origin_free(o);
    *out = NULL;
  }
  return rc;
}
