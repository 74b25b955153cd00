/* SPDX-License-Identifier: Apache-2.0
 * Model names: a directory, or org/name[@revision] in the Hugging Face cache
 * (models--ORG--NAME/refs/<revision> holds a commit, snapshots/<commit> its files). Nothing is
 * downloaded. */
#include "model/internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/status.h"

#define MIN_PREFIX 7 /* characters of an abbreviated commit */

static bool is_dir(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The value of a variable that is set and not empty. */
static const char *env(const char *name) {
  const char *v = getenv(name);
  return v && *v ? v : NULL;
}

/* Where huggingface_hub keeps its cache: the first of these that is set, joined with the tail; "~/"
 * is expanded. False: none is. */
static bool cache_root(pf_buf *out) {
  static const struct {
    const char *var, *tail;
  } places[] = {{"HF_HUB_CACHE", ""},
                {"HUGGINGFACE_HUB_CACHE", ""},
                {"HF_HOME", "/hub"},
                {"XDG_CACHE_HOME", "/huggingface/hub"},
                {"HOME", "/.cache/huggingface/hub"}};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    const char *v = env(places[i].var);
    if (!v)
      continue;
    bool home = v[0] == '~' && (v[1] == '/' || !v[1]) && env("HOME");
    pf_buf_printf(out, "%s%s%s", home ? env("HOME") : "", home ? v + 1 : v, places[i].tail);
    return true;
  }
  return false;
}

/* Letters, digits, '-', '_', '.', not starting with '-' or '.', no ".." or "--" inside. */
static bool good_part(const char *s, size_t n) {
  if (n == 0 || n > 96 || s[0] == '-' || s[0] == '.')
    return false;
  for (size_t i = 0; i < n; i++) {
    if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i]))
      return false;
    if (i && (s[i] == '-' || s[i] == '.') && s[i - 1] == s[i])
      return false;
  }
  return true;
}

/* "name" or "org/name". */
static bool good_name(const char *s, size_t n) {
  const char *slash = memchr(s, '/', n);
  if (!slash)
    return good_part(s, n);
  return good_part(s, (size_t)(slash - s)) && good_part(slash + 1, n - (size_t)(slash - s) - 1);
}

/* A branch, tag or commit; may have '/' ("refs/pr/1") but no part that leaves the folder. */
static bool good_revision(const char *s) {
  for (;;) {
    size_t n = strcspn(s, "/");
    if (!good_part(s, n))
      return false;
    if (!s[n])
      return true;
    s += n + 1;
  }
}

static bool is_hex(const char *s, size_t n) {
  return n >= MIN_PREFIX && n <= 64 && strspn(s, "0123456789abcdef") == n;
}

/* The commit that refs/<revision> names, into *commit; false when there is no such file or it holds
 * something else. */
static bool ref_commit(const char *repo, const char *rev, pf_buf *commit) {
  pf_buf path = {0};
  pf_buf_printf(&path, "%s/refs/%s", repo, rev);
  bool ok = pf_buf_status(&path) == PF_OK && pf_read_file(path.s, 4096, commit) == PF_OK;
  pf_buf_free(&path);
  while (ok && commit->n && isspace((unsigned char)commit->s[commit->n - 1]))
    commit->s[--commit->n] = '\0';
  return ok && is_hex(commit->s, commit->n) && strlen(commit->s) == commit->n;
}

/* The one snapshot whose name starts with rev; the number of those found. */
static int prefix_commit(const char *repo, const char *rev, pf_buf *commit) {
  pf_buf path = {0};
  int n = 0;
  pf_buf_printf(&path, "%s/snapshots", repo);
  DIR *d = opendir(pf_buf_str(&path));
  pf_buf_free(&path);
  for (struct dirent *e; d && (e = readdir(d));)
    if (is_hex(e->d_name, strlen(e->d_name)) && !strncmp(e->d_name, rev, strlen(rev)) && n++ == 0)
      pf_buf_puts(commit, e->d_name);
  if (d)
    closedir(d);
  return n;
}

static int find_snapshot(const char *name, const char *repo, const char *rev, pf_buf *out) {
  pf_buf commit = {0};
  int n = 1, rc = PF_OK;
  if (!ref_commit(repo, rev, &commit)) {
    pf_buf_free(&commit);
    n = is_hex(rev, strlen(rev)) ? prefix_commit(repo, rev, &commit) : 0;
  }
  pf_buf only = {0};
  if (n == 0 && prefix_commit(repo, "", &only) == 1)
    rc =
        pf_fail(PF_EINPUT, "%s: the cache has no revision '%s', but one snapshot: %s@%.12s (in %s)",
                name, rev, name, pf_buf_str(&only), repo);
  else if (n == 0)
    rc = pf_fail(PF_EINPUT,
                 "%s: the cache has no revision '%s' (looked in %s): get it with "
                 "'hf download %s --revision %s'",
                 name, rev, repo, name, rev);
  else if (n > 1)
    rc = pf_fail(PF_EINPUT,
                 "%s: '%s' begins %d cached commits in %s/snapshots: give more characters", name,
                 rev, n, repo);
  else
    pf_buf_printf(out, "%s/snapshots/%s", repo, pf_buf_str(&commit));
  if (rc == PF_OK && pf_buf_status(out) == PF_OK && !is_dir(out->s))
    rc = pf_fail(
        PF_EINPUT,
        "%s: revision '%s' is not complete in the cache (no %s): get it with 'hf download %s'",
        name, rev, out->s, name);
  pf_buf_free(&only);
  pf_buf_free(&commit);
  return rc;
}

static int resolve_name(const char *name, const char *rev, pf_buf *out) {
  pf_buf repo = {0};
  if (!cache_root(&repo))
    return pf_fail(
        PF_EINPUT,
        "%s: no such directory, and neither HF_HUB_CACHE nor HOME says where the Hugging "
        "Face cache is",
        name);
  pf_buf_puts(&repo, "/models--");
  for (const char *s = name; *s; s++)
    pf_buf_puts(&repo, *s == '/' ? "--" : (char[]){*s, 0});
  int rc = pf_buf_status(&repo);
  if (rc == PF_OK && !is_dir(repo.s))
    rc = pf_fail(
        PF_EINPUT,
        "%s: no such directory, and not in the Hugging Face cache (looked for %s): get it with "
        "'hf download %s', or name a directory; nothing is downloaded by this program",
        name, repo.s, name);
  if (rc == PF_OK)
    rc = find_snapshot(name, repo.s, rev, out);
  pf_buf_free(&repo);
  return rc;
}

static int resolve(const char *path, pf_buf *out) {
  struct stat st;
  const char *at = strchr(path, '@');
  size_t n = at ? (size_t)(at - path) : strlen(path);
  if (stat(path, &st) == 0) {
    if (!S_ISDIR(st.st_mode))
      return pf_fail(PF_EINPUT, "%s: is a file: give the model's directory", path);
    pf_buf_puts(out, path);
    return PF_OK;
  }
  if (!good_name(path, n))
    return pf_fail(
        PF_EINPUT,
        "%s: no such directory (%s), and not a model name of the form org/name[@revision]", path,
        strerror(errno));
  if (at && !good_revision(at + 1))
    return pf_fail(PF_EINPUT, "%s: '%s' cannot be a revision: give a branch, tag or commit", path,
                   at + 1);
  pf_buf name = {0};
  pf_buf_add(&name, path, n);
  int rc = pf_buf_status(&name);
  if (rc == PF_OK)
    rc = resolve_name(name.s, at ? at + 1 : "main", out);
  pf_buf_free(&name);
  return rc;
}

int pf_resolve_dir(const char *path, char *buf, size_t size) {
  pf_buf out = {0};
  if (!path || !*path)
    return pf_fail(PF_EUSAGE, "no model was named: give a directory or org/name");
  int rc = resolve(path, &out);
  if (rc == PF_OK)
    rc = pf_buf_status(&out);
  if (rc == PF_OK && out.n >= size)
    rc = pf_fail(PF_EINPUT, "%.60s...: the path is too long", out.s);
  if (rc == PF_OK)
    memcpy(buf, out.s, out.n + 1);
  pf_buf_free(&out);
  return rc;
}
