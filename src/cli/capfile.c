/* SPDX-License-Identifier: Apache-2.0
 * The files of capture: whole under their name, or not there. */
#include "cli/capfile.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NPY    ".npy"
#define ORIGIN "capture.json"

/* ---- names ----------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n > m && !strcmp(s + n - m, end);
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int name_against_format(const cli_capfile *f) {
  if (!f->npy && ends_with(f->out, NPY))
    return cli_usage("capture",
                     "--out %s: this is to be one safetensors file: name it so, or give --format "
                     "npy and a folder, which gets one .npy file a hook",
                     f->out);
  if (f->npy && (ends_with(f->out, NPY) || ends_with(f->out, ".safetensors")))
    return cli_usage("capture",
                     "--out %s: --format npy makes a folder with one .npy file a hook: name it "
                     "without an ending",
                     f->out);
  return 0;
}

int cli_capfile_check(const cli_capfile *f) {
  if (!*f->out || strlen(f->out) > 4000)
    return cli_usage("capture", "--out: the name is empty or too long");
  int rc = name_against_format(f);
  if (rc || access(f->out, F_OK) != 0)
    return rc;
  if (!f->force)
    return fprintf(stderr, "personaflow: %s: exists already; --force writes over it\n", f->out), 2;
  if (is_folder(f->out) != (f->npy != 0))
    return fprintf(stderr, "personaflow: %s: is a %s, and --format %s makes a %s\n", f->out,
                   f->npy ? "file" : "folder", f->npy ? "npy" : "safetensors",
                   f->npy ? "folder" : "file"),
           2;
  return 0;
}

/* ---- a folder that is to go ------------------------------------------------------------------ */

/* "blocks.12.hook_z.npy": layers do not count, so that of a longer model is known too. */
static bool is_hook_file(const pf_model *m, const char *file) {
  char name[256];
  size_t n = 0;
  int id;
  int32_t layer;
  if (!ends_with(file, NPY) || strlen(file) >= sizeof name)
    return false;
  for (const char *s = file; s < file + strlen(file) - strlen(NPY);) {
    bool number = isdigit((unsigned char)*s) && n && strchr(".[_", name[n - 1]);
    name[n++] = number ? '0' : *s++;
    while (number && isdigit((unsigned char)*s))
      s++;
  }
  name[n] = '\0';
  return strstr(name, "hook_") || pf_hook_find(m, name, &id, &layer) == PF_OK;
}

/* Until one says no: its exit code. */
static int each_file(const char *dir, int (*each)(void *user, const char *name), void *user) {
  DIR *d = opendir(dir);
  int rc = 0;
  if (!d)
    return fprintf(stderr, "personaflow: %s: cannot read: %s\n", dir, strerror(errno)), 3;
  for (struct dirent *e; rc == 0 && (e = readdir(d));)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      rc = each(user, e->d_name);
  closedir(d);
  return rc;
}

typedef struct judge {
  const char *dir;
  const pf_model *m;
} judge;

static int judge_file(void *user, const char *name) {
  const judge *j = user;
  char path[4400];
  struct stat st;
  snprintf(path, sizeof path, "%s/%s", j->dir, name);
  if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
      (!strcmp(name, ORIGIN) || is_hook_file(j->m, name)))
    return 0;
  fprintf(stderr,
          "personaflow: %s: holds %s, which is no file of a capture: choose another folder\n",
          j->dir, name);
  return 2;
}

int cli_capfile_look(const cli_capfile *f, const char *dir) {
  pf_model *m;
  if (!f->npy || !is_folder(f->out))
    return 0;
  int st = pf_model_open_config(&m, dir);
  if (st != PF_OK)
    return cli_fail(st);
  int rc = each_file(f->out, judge_file, &(judge){f->out, m});
  pf_model_close(m);
  return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int remove_file(void *user, const char *name) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", (const char *)user, name);
  unlink(path);
  return 0;
}

/* What was written there, or looked at before; another's file would keep the folder. */
static void remove_folder(char *dir) {
  if (is_folder(dir))
    each_file(dir, remove_file, dir);
  rmdir(dir);
}

static int sync_parent(const char *path) {
  char dir[4400];
  snprintf(dir, sizeof dir, "%s", path);
  char *slash = strrchr(dir, '/');
  if (slash)
    slash[slash == dir] = '\0';
  int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int rc = fd >= 0 ? fsync(fd) : -1;
  if (fd >= 0)
    close(fd);
  return rc;
}

/* tmp takes out's place; what is there steps aside first and is removed when it has. */
static int put_in_place(char *tmp, const char *out, bool force) {
  char old[4400];
  snprintf(old, sizeof old, "%s.old.%ld", out, (long)getpid());
  bool there = force && access(out, F_OK) == 0;
  if (there && rename(out, old) != 0)
    return -1;
  if (rename(tmp, out) != 0) {
    int e = errno;
    if (there)
      (void)rename(old, out);
    errno = e;
    return -1;
  }
  if (there)
    remove_folder(old);
  return sync_parent(out);
}

static int cannot(const char *path, const char *what) {
  fprintf(stderr, "personaflow: %s: cannot %s: %s\n", path, what, strerror(errno));
  return 3;
}

/* The folder itself, where a link names it; else the name without slashes at its end. */
static void folder_name(const char *given, char out[4100]) {
  size_t n = strlen(given);
  char *real = realpath(given, NULL);
  while (n > 1 && given[n - 1] == '/')
    n--;
  if (real && strlen(real) < 4100)
    strcpy(out, real);
  else
    snprintf(out, 4100, "%.*s", (int)n, given);
  free(real);
}

static int write_origin(const char *dir, const char *const *metadata) {
  char path[4600];
  json_t *o = json_pack("{s:s}", "schema", "personaflow-capture/1");
  for (size_t i = 0; metadata[i]; i += 2)
    json_object_set_new(o, metadata[i], json_string(metadata[i + 1]));
  snprintf(path, sizeof path, "%s/" ORIGIN, dir);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  bool ok = fd >= 0 && json_dumpfd(o, fd, JSON_INDENT(1)) == 0 && write(fd, "\n", 1) == 1 &&
            fsync(fd) == 0;
  int rc = ok ? 0 : cannot(path, "write");
  if (fd >= 0)
    close(fd);
  json_decref(o);
  return rc;
}

static int write_files(const char *dir, const pf_tensor *t, size_t n, const char *const *metadata) {
  char path[4600];
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < n; i++) {
    snprintf(path, sizeof path, "%s/%s" NPY, dir, t[i].name);
    int st = pf_npy_write(path, &t[i]);
    rc = st == PF_OK ? 0 : cli_fail(st);
  }
  return rc ? rc : write_origin(dir, metadata);
}

static int write_folder(const cli_capfile *f, const pf_tensor *t, size_t n,
                        const char *const *metadata) {
  char out[4100], tmp[4200];
  folder_name(f->out, out);
  snprintf(tmp, sizeof tmp, "%s.tmp.%ld", out, (long)getpid());
  if (mkdir(tmp, 0777) != 0)
    return cannot(f->out, "make the folder");
  int rc = write_files(tmp, t, n, metadata);
  if (rc == 0 && put_in_place(tmp, out, f->force) != 0)
    rc = cannot(f->out, "write");
  if (rc)
    remove_folder(tmp);
  return rc;
}

int cli_capfile_write(const cli_capfile *f, const pf_tensor *t, size_t n,
                      const char *const *metadata) {
  if (f->npy)
    return write_folder(f, t, n, metadata);
  int st = pf_safetensors_write(f->out, t, n, metadata);
  return st == PF_OK ? 0 : cli_fail(st);
}
