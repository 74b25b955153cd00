/* SPDX-License-Identifier: Apache-2.0
 * What kind of results a folder holds. */
#include "analysis/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/status.h"

/* Files that tell a kind. Their first bytes hold `word`, so that a damaged one is known too. */
static const struct {
  const char *kind, *file, *word;
} signs[] = {
    {PF_FOLDER_STUDY, "journal.jsonl", "\"personaflow-journal/"},
    {PF_FOLDER_STUDY, "manifest.json", "\"personaflow-manifest/"},
    {PF_FOLDER_STUDY, "findings.json", "\"personaflow-findings/"},
    {PF_FOLDER_TEXTS, "journal.jsonl", "\"personaflow-generated/"},
    {PF_FOLDER_SNAPSHOT, "manifest.json", "\"personaflow-snapshot/"},
    {PF_FOLDER_SNAPSHOT, "partial.json", "\"personaflow-snapshot/"},
    {PF_FOLDER_PROFILE, "profile.json", "\"personaflow-profile/"},
    {PF_FOLDER_COMPARISON, "comparison.json", "\"personaflow-comparison/"},
};
enum { N_SIGNS = sizeof signs / sizeof *signs, HEAD = 512 };

static bool begins_with(const char *dir, const char *file, const char *word) {
  char path[4400], head[HEAD + 1] = "";
  snprintf(path, sizeof path, "%s/%s", dir, file);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  ssize_t n = fd < 0 ? 0 : read(fd, head, HEAD);
  if (fd >= 0)
    close(fd);
  head[n > 0 ? n : 0] = '\0';
  return strstr(head, word) != NULL;
}

bool pf_folder_is(const char *dir, const char *kind) {
  for (size_t i = 0; i < N_SIGNS; i++)
    if (!strcmp(signs[i].kind, kind) && begins_with(dir, signs[i].file, signs[i].word))
      return true;
  return false;
}

int pf_folder_guard(const char *dir, const char *own) {
  for (size_t i = 0; i < N_SIGNS; i++)
    if (strcmp(signs[i].kind, own) != 0 && begins_with(dir, signs[i].file, signs[i].word))
      return pf_fail(PF_EEXIST, "%s: holds a %s: choose another folder", dir, signs[i].kind);
  return PF_OK;
}

static bool there(const char *dir, const char *name) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return access(path, F_OK) == 0;
}

static bool is_shard(const char *name) {
  int i, n, end = 0;
  return sscanf(name, "shard-%d-of-%d%n", &i, &n, &end) == 2 && !name[end + (name[end] == '/')];
}

static bool holds_shards(const char *dir) {
  bool found = false;
  DIR *d = opendir(dir);
  for (struct dirent *e; d && !found && (e = readdir(d));)
    found = is_shard(e->d_name);
  if (d)
    closedir(d);
  return found;
}

int pf_folder_finished(const char *dir) {
  const char *name = strstr(dir, "shard-"), *next;
  while (name && (next = strstr(name + 1, "shard-")))
    name = next;
  if (there(dir, "manifest.json"))
    return PF_OK;
  if (holds_shards(dir))
    return pf_fail(PF_EINCOMPLETE, "%s: holds shards of a study: `personaflow merge %s` joins them",
                   dir, dir);
  if (!pf_folder_is(dir, PF_FOLDER_STUDY))
    return PF_OK;
  return name && is_shard(name)
             ? pf_fail(PF_EINCOMPLETE,
                       "%s: is a shard of a study: `personaflow merge` joins it to "
                       "the others",
                       dir)
             : pf_fail(PF_EINCOMPLETE,
                       "%s: the study is not finished: run `personaflow study` "
                       "again to go on with it",
                       dir);
}

static int make(const char *dir) {
  struct stat st;
  int rc = pf_make_dirs(dir);
  if (rc != PF_OK)
    return rc;
  if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
    return pf_fail(PF_EIO, "%s: is not a folder", dir);
  return access(dir, W_OK) == 0
             ? PF_OK
             : pf_fail(PF_EIO, "%s: cannot write there: %s", dir, strerror(errno));
}

int pf_folder_make(const char *dir, const char *kind, const char *name, const char *const *others,
                   int force) {
  if (!*dir || strlen(dir) > 4000)
    return pf_fail(PF_EUSAGE, "output folder: the path is empty or too long");
  int rc = pf_folder_guard(dir, kind);
  bool own = there(dir, name);
  if (rc == PF_OK && own && !force)
    rc = pf_fail(PF_EEXIST, "%s: holds a %s already: choose another folder, or --force", dir, kind);
  for (size_t i = 0; others[i] && !own && rc == PF_OK; i++)
    if (there(dir, others[i]))
      rc = pf_fail(PF_EEXIST, "%s: holds %s, but no %s: choose another folder", dir, others[i],
                   kind);
  return rc == PF_OK ? make(dir) : rc;
}
