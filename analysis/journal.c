/* SPDX-License-Identifier: Apache-2.0
 * The journal of a run. */
#include "analysis/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/jsonout.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"

#define JOURNAL "journal.jsonl"
#define LOCK    ".lock"
enum { SUM_DIGITS = 16 };
static const size_t JOURNAL_LIMIT = (size_t)1 << 34;

/* Where a unit's line stands, without its end. */
typedef struct place {
  off_t at;
  size_t n;
} place;

struct pf_journal {
  char *dir;
  int lock_fd, dir_fd, fd;
  off_t size;    /* bytes of whole lines */
  json_t *units; /* unit -> its index in v */
  place *v;
  size_t n, cap;
  size_t dropped;
};

/* ---- lines
 * --------------------------------------------------------------------------------------------------------
 */

static void sum_of(const json_t *data, char sum[SUM_DIGITS + 1]) {
  pf_buf b = {0};
  char hex[65];
  pf_js_dump(data, 0, &b);
  pf_sha256_hex(pf_buf_str(&b), b.n, hex);
  memcpy(sum, hex, SUM_DIGITS);
  sum[SUM_DIGITS] = '\0';
  pf_buf_free(&b);
}

static int take_place(pf_journal *j, const char *unit, place p) {
  int rc = pf_grow((void **)&j->v, &j->cap, j->n + 1, sizeof *j->v);
  if (rc == PF_OK && json_object_set_new(j->units, unit, json_integer((json_int_t)j->n)) != 0)
    rc = PF_ENOMEM;
  if (rc == PF_OK)
    j->v[j->n++] = p;
  return rc;
}

/* *ok true if the line is a unit whose sum is right; then its place is kept. */
static int take_line(pf_journal *j, const char *s, place p, bool *ok) {
  char sum[SUM_DIGITS + 1];
  json_t *line = json_loadb(s, p.n, JSON_REJECT_DUPLICATES, NULL);
  json_t *data = json_object_get(line, "data");
  const char *unit = json_string_value(json_object_get(line, "unit"));
  const char *given = json_string_value(json_object_get(line, "sum"));
  int rc = PF_OK;
  *ok = unit && given && data;
  if (*ok) {
    sum_of(data, sum);
    *ok = !strcmp(sum, given);
  }
  if (*ok)
    rc = take_place(j, unit, p);
  json_decref(line);
  return rc;
}

/* The first member of a that b has not, or has otherwise; NULL if none. */
static const char *lacks(const json_t *a, const json_t *b) {
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)a, key, v) {
    pf_buf x = {0}, y = {0};
    pf_js_dump(v, 0, &x);
    pf_js_dump(json_object_get(b, key), 0, &y);
    bool same = !strcmp(pf_buf_str(&x), pf_buf_str(&y));
    pf_buf_free(&x);
    pf_buf_free(&y);
    if (!same)
      return key;
  }
  return NULL;
}

const char *pf_journal_difference(const json_t *a, const json_t *b) {
  const char *key = lacks(a, b);
  return key ? key : lacks(b, a);
}

static int check_head(const pf_journal *j, const char *s, size_t n, const json_t *head) {
  json_t *old = json_loadb(s, n, JSON_REJECT_DUPLICATES, NULL);
  if (!json_is_object(old)) {
    json_decref(old);
    return pf_fail(PF_EINPUT, "%s/" JOURNAL ": line 1 is damaged: --force starts again", j->dir);
  }
  const char *key = pf_journal_difference(head, old);
  int rc = key ? pf_fail(PF_EUSAGE,
                         "%s: holds a run that differs in %s: choose another folder, or --force to "
                         "start again",
                         j->dir, key)
               : PF_OK;
  json_decref(old);
  return rc;
}

/* A line behind the first; *ok false: it is no unit. */
static int read_line(pf_journal *j, const pf_lines *l, size_t number, bool *ok) {
  int rc = PF_OK;
  *ok = l->whole;
  if (*ok)
    rc = take_line(j, l->s, (place){(off_t)l->at, l->n}, ok);
  if (rc == PF_OK && !*ok && l->next < l->all)
    return pf_fail(PF_EINPUT, "%s/" JOURNAL ": line %zu is damaged: --force starts again", j->dir,
                   number);
  return rc;
}

/* Reads whole lines; what follows the last good one at the end of the file is torn and dropped. */
static int read_lines(pf_journal *j, pf_lines *l, const json_t *head) {
  bool more = true, ok = true;
  int rc = PF_OK;
  j->size = 0;
  for (size_t number = 1; more && ok && rc == PF_OK; number++) {
    rc = pf_lines_next(l, &more);
    if (rc != PF_OK || !more)
      break;
    if (number > 1)
      rc = read_line(j, l, number, &ok);
    else if ((ok = l->whole))
      rc = check_head(j, l->s, l->n, head);
    if (rc == PF_OK && ok)
      j->size = (off_t)l->next;
  }
  j->dropped = (size_t)(l->all - (uint64_t)j->size);
  return rc;
}

/* ---- the file
 * -----------------------------------------------------------------------------------------------------
 */

static int full(const pf_journal *j, int e) {
  if (e == ENOSPC || e == EDQUOT || e == EFBIG)
    return pf_fail(PF_EINCOMPLETE,
                   "%s/" JOURNAL ": cannot write: %s: make room and run again with --resume",
                   j->dir, strerror(e));
  return pf_fail(PF_EIO, "%s/" JOURNAL ": cannot write: %s", j->dir, strerror(e));
}

/* A line is there whole and on the disk, or not at all. */
static int put_line(pf_journal *j, const pf_buf *line) {
  if (pf_buf_status(line) != PF_OK)
    return PF_ENOMEM;
  if (pf_write_all(j->fd, line->s, line->n) != 0 || fsync(j->fd) != 0) {
    int e = errno;
    if (ftruncate(j->fd, j->size) != 0 || lseek(j->fd, j->size, SEEK_SET) < 0)
      return pf_fail(PF_EIO, "%s/" JOURNAL ": cannot take a failed line back: %s", j->dir,
                     strerror(errno));
    return full(j, e);
  }
  j->size += (off_t)line->n;
  return PF_OK;
}

static int begin(pf_journal *j, const json_t *head) {
  pf_buf b = {0};
  pf_js_dump(head, 0, &b);
  pf_buf_puts(&b, "\n");
  int rc = put_line(j, &b);
  pf_buf_free(&b);
  if (rc == PF_OK && fsync(j->dir_fd) != 0)
    rc = full(j, errno);
  return rc;
}

static int open_lines(const char *dir, char path[4400], pf_lines *l) {
  snprintf(path, 4400, "%s/" JOURNAL, dir);
  return pf_lines_open(l, path, JOURNAL_LIMIT);
}

static int read_journal(pf_journal *j, const json_t *head) {
  char path[4400];
  pf_lines l;
  int rc = open_lines(j->dir, path, &l);
  if (rc == PF_OK)
    rc = read_lines(j, &l, head);
  pf_lines_close(&l);
  return rc;
}

static int read_back(pf_journal *j, const json_t *head) {
  int rc = read_journal(j, head);
  if (rc == PF_OK && (ftruncate(j->fd, j->size) != 0 || lseek(j->fd, j->size, SEEK_SET) < 0))
    rc = full(j, errno);
  return rc;
}

/* ---- the folder
 * ---------------------------------------------------------------------------------------------------
 */

static int lock_dir(pf_journal *j) {
  j->dir_fd = open(j->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  j->lock_fd = j->dir_fd < 0 ? -1 : openat(j->dir_fd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (j->lock_fd < 0)
    return pf_fail(PF_EIO, "%s: cannot write there: %s", j->dir, strerror(errno));
  if (flock(j->lock_fd, LOCK_EX | LOCK_NB) != 0)
    return pf_fail(PF_EEXIST,
                   "%s: another run is at work there: wait for it, or choose another folder",
                   j->dir);
  return PF_OK;
}

static bool holds(const pf_journal *j, const char *name) {
  return faccessat(j->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int prepare(pf_journal *j, pf_journal_mode mode, const char *kind,
                   const char *const *outputs) {
  int rc = pf_folder_guard(j->dir, kind);
  bool lost = mode == PF_JOURNAL_RESUME && !holds(j, JOURNAL);
  for (size_t i = 0; outputs[i] && rc == PF_OK; i++) {
    if (lost && holds(j, outputs[i]))
      return pf_fail(PF_EEXIST,
                     "%s: holds results (%s) without their journal: choose another folder, or "
                     "--force to start again",
                     j->dir, outputs[i]);
    if (mode == PF_JOURNAL_NEW && holds(j, outputs[i]))
      return pf_fail(
          PF_EEXIST,
          "%s: holds results already (%s): --resume goes on with them, --force starts again",
          j->dir, outputs[i]);
    if (mode == PF_JOURNAL_FORCE && unlinkat(j->dir_fd, outputs[i], 0) != 0 && errno != ENOENT)
      return pf_fail(PF_EIO, "%s/%s: cannot remove: %s", j->dir, outputs[i], strerror(errno));
  }
  return rc;
}

static int open_file(pf_journal *j, const json_t *head) {
  j->fd = openat(j->dir_fd, JOURNAL, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (j->fd < 0)
    return full(j, errno);
  int rc = read_back(j, head);
  return rc == PF_OK && j->size == 0 ? begin(j, head) : rc;
}

/* One that nothing is open of; NULL on failure. */
static int make_journal(pf_journal **out, const char *dir) {
  *out = NULL;
  if (!*dir || strlen(dir) > 4096)
    return pf_fail(PF_EUSAGE, "output folder: the path is empty or too long");
  pf_journal *j = pf_calloc(1, sizeof *j);
  if (!j)
    return PF_ENOMEM;
  j->fd = j->dir_fd = j->lock_fd = -1;
  j->dir = pf_strdup(dir);
  j->units = json_object();
  if (j->dir && j->units) {
    *out = j;
    return PF_OK;
  }
  pf_journal_close(j);
  return PF_ENOMEM;
}

int pf_journal_open(pf_journal **out, const char *dir, pf_journal_mode mode, const char *kind,
                    const json_t *head, const char *const *outputs) {
  pf_journal *j;
  *out = NULL;
  int rc = make_journal(&j, dir);
  if (rc == PF_OK)
    rc = pf_make_dirs(dir);
  if (rc == PF_OK)
    rc = lock_dir(j);
  if (rc == PF_OK)
    rc = prepare(j, mode, kind, outputs);
  if (rc == PF_OK)
    rc = open_file(j, head);
  if (rc != PF_OK)
    pf_journal_close(j);
  else
    *out = j;
  return rc;
}

int pf_journal_look(const char *dir, pf_journal_mode mode, const char *kind,
                    const char *const *outputs) {
  pf_journal j = {.fd = -1, .lock_fd = -1, .dir = (char *)dir};
  bool there = access(dir, F_OK) == 0;
  int rc = pf_make_dirs(dir);
  if (rc != PF_OK)
    return rc;
  j.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  rc = j.dir_fd < 0 || access(dir, W_OK) != 0
           ? pf_fail(PF_EIO, "%s: cannot write there: %s", dir, strerror(errno))
           : prepare(&j, mode, kind, outputs);
  if (j.dir_fd >= 0)
    close(j.dir_fd);
  if (!there)
    rmdir(dir); /* the work may fail before it has something to write */
  return rc;
}

/* Another run would keep this one out. */
static int peek_lock(const pf_journal *j) {
  int fd = openat(j->dir_fd, LOCK, O_RDONLY | O_CLOEXEC);
  int busy = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;
  if (fd >= 0)
    close(fd);
  return busy ? pf_fail(PF_EEXIST,
                        "%s: another run is at work there: wait for it, or choose another folder",
                        j->dir)
              : PF_OK;
}

/* A folder that is there. */
static int peek(pf_journal *j, pf_journal_mode mode, const char *kind, const json_t *head,
                const char *const *outputs) {
  if (access(j->dir, W_OK) != 0)
    return pf_fail(PF_EIO, "%s: cannot write there: %s", j->dir, strerror(errno));
  int rc =
      mode == PF_JOURNAL_FORCE ? pf_folder_guard(j->dir, kind) : prepare(j, mode, kind, outputs);
  if (rc == PF_OK)
    rc = peek_lock(j);
  if (rc != PF_OK || !head || mode == PF_JOURNAL_FORCE || !holds(j, JOURNAL))
    return rc;
  return read_journal(j, head);
}

int pf_journal_peek(pf_journal **out, const char *dir, pf_journal_mode mode, const char *kind,
                    const json_t *head, const char *const *outputs) {
  pf_journal *j;
  *out = NULL;
  int rc = make_journal(&j, dir);
  if (rc == PF_OK)
    j->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (rc == PF_OK && j->dir_fd < 0 && errno != ENOENT)
    rc = pf_fail(PF_EIO, "%s: cannot write there: %s", dir, strerror(errno));
  if (rc == PF_OK && j->dir_fd >= 0)
    rc = peek(j, mode, kind, head, outputs);
  if (rc == PF_OK && head)
    *out = j;
  else
    pf_journal_close(j);
  return rc;
}

bool pf_journal_has(const pf_journal *j, const char *unit) {
  return json_object_get(j->units, unit) != NULL;
}

static int read_at(const pf_journal *j, place p, char *s) {
  for (size_t got = 0; got < p.n;) {
    ssize_t n = pread(j->fd, s + got, p.n - got, p.at + (off_t)got);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return pf_fail(PF_EIO, "%s/" JOURNAL ": cannot read: %s", j->dir,
                     n < 0 ? strerror(errno) : "it is shorter than it was");
    got += (size_t)n;
  }
  return PF_OK;
}

int pf_journal_get(const pf_journal *j, const char *unit, json_t **data) {
  const json_t *i = json_object_get(j->units, unit);
  *data = NULL;
  if (!i)
    return PF_OK;
  place p = j->v[json_integer_value(i)];
  char *s = pf_alloc(p.n, 1);
  int rc = s ? read_at(j, p, s) : PF_ENOMEM;
  if (rc == PF_OK) {
    json_t *line = json_loadb(s, p.n, 0, NULL);
    *data = json_incref(json_object_get(line, "data"));
    json_decref(line);
    if (!*data)
      rc = pf_fail(PF_EIO, "%s/" JOURNAL ": unit %.16s is not what was written", j->dir, unit);
  }
  pf_free(s);
  return rc;
}

static void add_line(pf_buf *b, const char *unit, const json_t *data) {
  char sum[SUM_DIGITS + 1];
  sum_of(data, sum);
  pf_buf_printf(b, "{\"unit\":\"%s\",\"sum\":\"%s\",\"data\":", unit, sum);
  pf_js_dump(data, 0, b);
  pf_buf_puts(b, "}\n");
}

int pf_journal_append_all(pf_journal *j, const char *const *units, json_t *const *data, size_t n) {
  pf_buf b = {0};
  off_t at = j->size;
  size_t *end = pf_alloc(n, sizeof *end);
  for (size_t i = 0; i < n; i++) {
    add_line(&b, units[i], data[i]);
    json_decref(data[i]);
    if (end)
      end[i] = b.n;
  }
  int rc = end ? put_line(j, &b) : PF_ENOMEM;
  for (size_t i = 0, lo = 0; i < n && rc == PF_OK; lo = end[i++])
    rc = take_place(j, units[i], (place){at + (off_t)lo, end[i] - lo - 1});
  pf_buf_free(&b);
  pf_free(end);
  return rc;
}

int pf_journal_append(pf_journal *j, const char *unit, json_t *data) {
  return pf_journal_append_all(j, &unit, &data, 1);
}

int pf_journal_head(const char *dir, json_t **head) {
  char path[4400];
  pf_lines l;
  bool more = false;
  *head = NULL;
  int rc = open_lines(dir, path, &l);
  if (rc == PF_OK)
    rc = pf_lines_next(&l, &more);
  if (rc == PF_OK && more)
    *head = json_loadb(l.s, l.n, JSON_REJECT_DUPLICATES, NULL);
  pf_lines_close(&l);
  if (rc == PF_OK && !json_is_object(*head)) {
    json_decref(*head);
    *head = NULL;
    return pf_fail(PF_EINPUT, "%s/" JOURNAL ": line 1 is damaged", dir);
  }
  return rc;
}

static int join_unit(pf_journal *j, const pf_journal *other, const char *unit) {
  json_t *data;
  if (pf_journal_has(j, unit))
    return PF_OK;
  int rc = pf_journal_get(other, unit, &data);
  return rc == PF_OK ? pf_journal_append(j, unit, data) : rc;
}

int pf_journal_join(pf_journal *j, const char *dir, const json_t *head) {
  char path[4400];
  pf_lines l;
  pf_journal other = {.dir = (char *)dir, .units = json_object()};
  const char *unit;
  json_t *place_of;
  int rc = open_lines(dir, path, &l);
  if (rc == PF_OK)
    rc = other.units ? read_lines(&other, &l, head) : PF_ENOMEM;
  other.fd = l.f ? fileno(l.f) : -1;
  json_object_foreach(other.units, unit, place_of) {
    if (rc == PF_OK)
      rc = join_unit(j, &other, unit);
  }
  pf_lines_close(&l);
  json_decref(other.units);
  pf_free(other.v);
  return rc;
}

size_t pf_journal_count(const pf_journal *j) {
  return json_object_size(j->units);
}

size_t pf_journal_dropped(const pf_journal *j) {
  return j->dropped;
}

void pf_journal_close(pf_journal *j) {
  if (!j)
    return;
  if (j->fd >= 0)
    close(j->fd);
  if (j->lock_fd >= 0)
    close(j->lock_fd);
  if (j->dir_fd >= 0)
    close(j->dir_fd);
  json_decref(j->units);
  pf_free(j->v);
  pf_free(j->dir);
  pf_free(j);
}
