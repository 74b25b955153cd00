/* SPDX-License-Identifier: Apache-2.0
 * Joining the shards of a study: their units go into one journal, and the study is finished from
 * it.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/experiment.h"
#include "base/fpenv.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/status.h"

#define RUN "run.json"
enum { PATH = 4400, RUN_LIMIT = 1 << 20 };

static const char *text(const json_t *run, const char *key) {
  return json_string_value(json_object_get(run, key));
}

/* What a shard was asked for, as options; strings belong to *run. */
static int read_run(const char *dir, json_t **run, pf_study_opts *o) {
  char path[PATH];
  snprintf(path, sizeof path, "%s/" RUN, dir);
  int rc = pf_js_file(path, RUN_LIMIT, run);
  if (rc != PF_OK)
    return rc;
  o->model = text(*run, "model");
  o->grid = text(*run, "grid");
  o->layers = text(*run, "layers");
  o->protocol = text(*run, "protocol");
  o->only = text(*run, "only");
  o->baseline = text(*run, "baseline");
  o->paraphrase = text(*run, "paraphrase");
  o->markers = text(*run, "markers");
  o->conflicts = json_is_true(json_object_get(*run, "conflicts"));
  o->all_draws = json_is_true(json_object_get(*run, "all_draws"));
  const char *precision = text(*run, "precision");
  if (!o->model || !o->grid || !o->protocol || !precision)
    return pf_fail(PF_EINPUT, "%s: is not what a study wrote", path);
  return pf_precision_parse(precision, &o->precision);
}

/* Before anything is written: a folder of two studies could not be mended. */
static int check_heads(const char *const *dirs, size_t n, const json_t *head) {
  int rc = PF_OK;
  for (size_t i = 1; i < n && rc == PF_OK; i++) {
    json_t *other = NULL;
    rc = pf_journal_head(dirs[i], &other);
    const char *key = rc == PF_OK ? pf_journal_difference(head, other) : NULL;
    if (key)
      rc = pf_fail(PF_EUSAGE, "%s: is of another study than %s: they differ in %s", dirs[i],
                   dirs[0], key);
    json_decref(other);
  }
  return rc;
}

/* To start again in a shard would remove what is to be joined. */
static int check_force(const char *out, const char *const *dirs, size_t n) {
  struct stat a, b;
  for (size_t i = 0; i < n; i++)
    if (stat(out, &a) == 0 && stat(dirs[i], &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
      return pf_fail(PF_EUSAGE, "%s: is one of the shards: --force would remove it", out);
  return PF_OK;
}

static int join(const char *out, const char *const *dirs, size_t n, int force) {
  json_t *head = NULL;
  pf_journal *j = NULL;
  int rc = force ? check_force(out, dirs, n) : PF_OK;
  if (rc == PF_OK)
    rc = pf_journal_head(dirs[0], &head);
  if (rc == PF_OK)
    rc = check_heads(dirs, n, head);
  if (rc == PF_OK)
    rc = pf_journal_open(&j, out, force ? PF_JOURNAL_FORCE : PF_JOURNAL_RESUME, PF_FOLDER_STUDY,
                         head, pf_study_outputs);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = pf_journal_join(j, dirs[i], head);
  pf_journal_close(j);
  json_decref(head);
  return rc;
}

/* How many shards there are, by the folders' names; 0: they do not say. */
static int count_shards(const char *const *dirs, size_t n) {
  int all = 0;
  for (size_t k = 0; k < n; k++) {
    const char *name = strstr(dirs[k], "shard-"), *next;
    int i, of, end = 0;
    while (name && (next = strstr(name + 1, "shard-")))
      name = next;
    if (!name || sscanf(name, "shard-%d-of-%d%n", &i, &of, &end) != 2 ||
        name[end + (int)strspn(name + end, "/")] || of < 1 || (all && of != all))
      return 0;
    all = of;
  }
  return all;
}

static int merge(const char *out, const char *const *dirs, size_t n, const char *model,
                 const pf_study_opts *given) {
  json_t *run = NULL;
  pf_study_opts o = *given;
  o.out_dir = out;
  o.finish = 1;
  o.force = 0; /* what is joined stays */
  o.shards = count_shards(dirs, n);
  int rc = join(out, dirs, n, given->force);
  if (rc == PF_OK)
    rc = read_run(dirs[0], &run, &o);
  if (rc == PF_OK) {
    o.model = model ? model : o.model;
    rc = pf_study_run(&o);
  }
  json_decref(run);
  return rc;
}

static int is_shard(const struct dirent *e) {
  return !strncmp(e->d_name, "shard-", 6);
}

int pf_study_merge(const char *out, const char *const *dirs, size_t n, const char *model,
                   const pf_study_opts *o) {
  PF_FP_PLAIN();
  struct dirent **list;
  if (n)
    return merge(out, dirs, n, model, o);
  int found = scandir(out, &list, is_shard, alphasort);
  if (found <= 0) {
    if (found == 0)
      free(list);
    return pf_fail(PF_EINPUT, "%s: holds no shard-I-of-N of a study", out);
  }
  char(*paths)[PATH] = pf_calloc((size_t)found, sizeof *paths);
  const char **at = pf_calloc((size_t)found, sizeof *at);
  for (int i = 0; i < found; i++) {
    if (paths && at) {
      snprintf(paths[i], PATH, "%s/%s", out, list[i]->d_name);
      at[i] = paths[i];
    }
    free(list[i]);
  }
  free(list);
  int rc = paths && at ? merge(out, at, (size_t)found, model, o) : PF_ENOMEM;
  pf_free(paths);
  pf_free(at);
  return rc;
}
