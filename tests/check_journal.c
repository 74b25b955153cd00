/* SPDX-License-Identifier: Apache-2.0
 * The journal: resume after torn lines, damage, another head, locks, full disks, existing results;
 * tensor files. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/journal.h"
#include "base/io.h"
#include "personaflow/analysis.h"
#include "tests/heap.h"
#include "tests/suite.h"

static char dir[256], file[300];
static const char *const outputs[] = {"journal.jsonl", "results.jsonl", NULL};

static void setup(void) {
  const char *tmp = getenv("TMPDIR");
  snprintf(dir, sizeof dir, "%s/pf-journal-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  ck_assert(mkdtemp(dir) != NULL);
  snprintf(file, sizeof file, "%s/journal.jsonl", dir);
}

static void teardown(void) {
  static const char *const names[] = {"journal.jsonl", "results.jsonl", ".lock", "t.npy",
                                      "t.safetensors"};
  char path[400];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    unlink(path);
  }
  rmdir(dir);
}

static int open_it(pf_journal **j, pf_journal_mode mode, const char *model) {
  json_t *head = json_pack("{s:s,s:s}", "schema", "test/1", "model", model);
  int rc = pf_journal_open(j, dir, mode, PF_FOLDER_STUDY, head, outputs);
  json_decref(head);
  return rc;
}

static void append(pf_journal *j, const char *unit, double x) {
  ck_assert_msg(pf_journal_append(j, unit, json_pack("{s:f}", "x", x)) == PF_OK, "%s",
                pf_last_error());
}

/* A journal of two units on the disk. */
static void make_two(void) {
  pf_journal *j;
  ck_assert_msg(open_it(&j, PF_JOURNAL_NEW, "m") == PF_OK, "%s", pf_last_error());
  append(j, "one", 0.1);
  append(j, "two", 1.0 / 3);
  pf_journal_close(j);
}

static void add_bytes(const char *s, size_t n) {
  int fd = open(file, O_WRONLY | O_APPEND);
  ck_assert(fd >= 0 && pf_write_all(fd, s, n) == 0);
  close(fd);
}

static double value_of(const pf_journal *j, const char *unit) {
  json_t *data;
  ck_assert_msg(pf_journal_get(j, unit, &data) == PF_OK && data, "%s", pf_last_error());
  double x = json_number_value(json_object_get(data, "x"));
  json_decref(data);
  return x;
}

START_TEST(resume) {
  pf_journal *j;
  json_t *data;
  make_two();
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_NEW, "m"), PF_EEXIST);
  ck_assert(strstr(pf_last_error(), "--resume") != NULL && j == NULL);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "other"), PF_EUSAGE);
  ck_assert(strstr(pf_last_error(), "differs in model") != NULL);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_OK);
  ck_assert_uint_eq(pf_journal_count(j), 2);
  ck_assert(value_of(j, "two") == 1.0 / 3);
  append(j, "three", 0.3);
  ck_assert(value_of(j, "three") == 0.3 && value_of(j, "one") == 0.1);
  ck_assert(!pf_journal_has(j, "four") && pf_journal_get(j, "four", &data) == PF_OK && !data);
  pf_journal_close(j);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_OK);
  ck_assert(value_of(j, "three") == 0.3);
  pf_journal_close(j);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_FORCE, "other"), PF_OK);
  ck_assert_uint_eq(pf_journal_count(j), 0);
  pf_journal_close(j);
}
END_TEST

/* Cut at every byte: never an error, never a half unit, and appending goes on well. */
START_TEST(torn_anywhere) {
  pf_buf whole, b;
  pf_journal *j;
  make_two();
  ck_assert(pf_read_file(file, 1 << 20, &whole) == PF_OK);
  size_t head = (size_t)(strchr(whole.s, '\n') - whole.s) + 1;
  for (size_t cut = 0; cut < whole.n; cut++) {
    ck_assert(truncate(file, 0) == 0);
    add_bytes(whole.s, cut);
    ck_assert_msg(open_it(&j, PF_JOURNAL_RESUME, "m") == PF_OK, "cut %zu: %s", cut,
                  pf_last_error());
    size_t lines = 0;
    for (size_t i = head; i < cut; i++)
      lines += whole.s[i] == '\n';
    ck_assert_uint_eq(pf_journal_count(j), lines);
    if (lines < 1)
      append(j, "one", 0.1);
    append(j, "two", 1.0 / 3);
    pf_journal_close(j);
    ck_assert(pf_read_file(file, 1 << 20, &b) == PF_OK);
    ck_assert(b.n == whole.n && !memcmp(b.s, whole.s, b.n));
    pf_buf_free(&b);
  }
  pf_buf_free(&whole);
}
END_TEST

START_TEST(damage) {
  pf_journal *j;
  pf_buf b;
  make_two();
  add_bytes("\0\0\0\0\0\0\0\n", 8); /* what some file systems leave after a crash */
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_OK);
  ck_assert_uint_eq(pf_journal_dropped(j), 8);
  pf_journal_close(j);
  ck_assert(pf_read_file(file, 1 << 20, &b) == PF_OK);
  char *digit = strstr(b.s, "0.1}"); /* a flipped value in the middle: the sum tells */
  ck_assert(digit != NULL);
  digit[2] = '7';
  ck_assert(pf_write_file(file, b.s, b.n) == PF_OK);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_EINPUT);
  ck_assert(strstr(pf_last_error(), "line 2 is damaged") != NULL);
  b.s[0] = 'x';
  ck_assert(pf_write_file(file, b.s, b.n) == PF_OK);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_EINPUT);
  pf_buf_free(&b);
}
END_TEST

/* What was appended or read back stays in the file. */
START_TEST(units_are_not_kept_in_memory) {
  enum { UNITS = 50, NUMBERS = 10000 };
  pf_journal *j;
  json_t *data;
  char unit[16];
  size_t before = tu_heap_now().bytes;
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_NEW, "m"), PF_OK);
  for (int i = 0; i < UNITS; i++) {
    json_t *x = json_array();
    for (int k = 0; k < NUMBERS; k++)
      json_array_append_new(x, json_real(i + k / 3.0));
    snprintf(unit, sizeof unit, "%d", i);
    ck_assert_int_eq(pf_journal_append(j, unit, json_pack("{s:o}", "x", x)), PF_OK);
  }
  for (int again = 0; again < 2; again++) {
    ck_assert_uint_lt(tu_heap_now().bytes - before, 100000);
    for (int i = 0; i < UNITS; i++) {
      snprintf(unit, sizeof unit, "%d", i);
      ck_assert_int_eq(pf_journal_get(j, unit, &data), PF_OK);
      const json_t *x = json_object_get(data, "x");
      ck_assert(json_real_value(json_array_get(x, 1)) == i + 1 / 3.0);
      json_decref(data);
    }
    pf_journal_close(j);
    ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_OK);
  }
  ck_assert(truncate(file, 1000) == 0);
  ck_assert_int_eq(pf_journal_get(j, "7", &data), PF_EIO);
  ck_assert(data == NULL && strstr(pf_last_error(), "cannot read") != NULL);
  pf_journal_close(j);
}
END_TEST

/* Units of another folder's journal that this one lacks, and its torn end left out. */
START_TEST(joined) {
  pf_journal *j;
  char other[400], path[420];
  json_t *head = json_pack("{s:s,s:s}", "schema", "test/1", "model", "m"),
         *wrong = json_pack("{s:s,s:s}", "schema", "test/1", "model", "n");
  make_two();
  snprintf(other, sizeof other, "%s/other", dir);
  ck_assert_int_eq(pf_journal_open(&j, other, PF_JOURNAL_NEW, PF_FOLDER_STUDY, head, outputs),
                   PF_OK);
  append(j, "two", 2);
  ck_assert_int_eq(pf_journal_join(j, dir, wrong), PF_EUSAGE);
  add_bytes("{\"unit\":", 8);
  ck_assert_msg(pf_journal_join(j, dir, head) == PF_OK, "%s", pf_last_error());
  ck_assert_uint_eq(pf_journal_count(j), 2);
  ck_assert(value_of(j, "two") == 2 && value_of(j, "one") == 0.1);
  pf_journal_close(j);
  for (size_t i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", other, i ? ".lock" : "journal.jsonl");
    unlink(path);
  }
  rmdir(other);
  json_decref(head);
  json_decref(wrong);
}
END_TEST

START_TEST(lock) {
  pf_journal *j, *k;
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_NEW, "m"), PF_OK);
  ck_assert_int_eq(open_it(&k, PF_JOURNAL_RESUME, "m"), PF_EEXIST);
  ck_assert(strstr(pf_last_error(), "another run") != NULL);
  ck_assert_int_eq(open_it(&k, PF_JOURNAL_FORCE, "m"), PF_EEXIST);
  append(j, "one", 1);
  pf_journal_close(j);
  ck_assert_int_eq(open_it(&k, PF_JOURNAL_RESUME, "m"), PF_OK);
  pf_journal_close(k);
}
END_TEST

START_TEST(no_place) {
  pf_journal *j;
  json_t *head = json_object();
  ck_assert_int_eq(
      pf_journal_open(&j, "/proc/nowhere/out", PF_JOURNAL_NEW, PF_FOLDER_STUDY, head, outputs),
      PF_EIO);
  ck_assert_int_eq(pf_journal_open(&j, "", PF_JOURNAL_NEW, PF_FOLDER_STUDY, head, outputs),
                   PF_EUSAGE);
  make_two();
  ck_assert_int_eq(pf_journal_open(&j, file, PF_JOURNAL_NEW, PF_FOLDER_STUDY, head, outputs),
                   PF_EIO);
  json_decref(head);
}
END_TEST

/* A limit on the file's size stands in for a full disk: the line that does not fit is taken back.
 */
START_TEST(disk_full) {
  pf_journal *j;
  struct stat st;
  struct rlimit old, small;
  void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
  make_two();
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_OK);
  ck_assert(stat(file, &st) == 0 && getrlimit(RLIMIT_FSIZE, &old) == 0);
  small = old;
  small.rlim_cur = (rlim_t)st.st_size + 10;
  ck_assert(setrlimit(RLIMIT_FSIZE, &small) == 0);
  int rc = pf_journal_append(j, "three", json_pack("{s:f}", "x", 3.0));
  ck_assert(setrlimit(RLIMIT_FSIZE, &old) == 0);
  signal(SIGXFSZ, before);
  ck_assert_int_eq(rc, PF_EINCOMPLETE);
  ck_assert(strstr(pf_last_error(), "--resume") != NULL);
  append(j, "four", 4);
  pf_journal_close(j);
  ck_assert_int_eq(open_it(&j, PF_JOURNAL_RESUME, "m"), PF_OK);
  ck_assert_uint_eq(pf_journal_count(j), 3);
  ck_assert(!pf_journal_has(j, "three") && pf_journal_has(j, "four"));
  pf_journal_close(j);
}
END_TEST

/* ---- tensor files ---- */

static void same(const pf_tensor *a, const pf_tensor *b) {
  ck_assert_int_eq(a->n_dims, b->n_dims);
  ck_assert(!memcmp(a->dims, b->dims, sizeof a->dims[0] * (size_t)a->n_dims));
  ck_assert(!memcmp(a->data, b->data, pf_tensor_count(a) * sizeof(float)));
}

START_TEST(tensors_read_back) {
  float v[6] = {1, -0.0f, 3.5f, 1e-42f, 5, 6}, w[2] = {7, 8};
  char x[] = "x", y[] = "blocks.0.hook", path[300], source[340];
  pf_tensor t[2] = {{x, 2, {2, 3}, v}, {y, 1, {2}, w}}, got;
  const char *const meta[] = {"manifest", "abc", NULL};
  snprintf(path, sizeof path, "%s/t.npy", dir);
  for (int dims = 0; dims < 3; dims++) {
    pf_tensor one = {x, dims, {2, 3}, v};
    ck_assert_msg(pf_npy_write(path, &one) == PF_OK, "%s", pf_last_error());
    ck_assert_msg(pf_tensor_read(path, &got) == PF_OK, "%s", pf_last_error());
    same(&one, &got);
    pf_tensor_free(&got);
  }
  snprintf(source, sizeof source, "%s#x", path);
  ck_assert_int_eq(pf_tensor_read(source, &got), PF_EINPUT);
  snprintf(path, sizeof path, "%s/t.safetensors", dir);
  ck_assert_msg(pf_safetensors_write(path, t, 2, meta) == PF_OK, "%s", pf_last_error());
  ck_assert_int_eq(pf_tensor_read(path, &got), PF_EINPUT);
  snprintf(source, sizeof source, "%s#blocks.0.hook", path);
  ck_assert_msg(pf_tensor_read(source, &got) == PF_OK, "%s", pf_last_error());
  same(&t[1], &got);
  pf_tensor_free(&got);
  ck_assert(pf_safetensors_write(path, t, 1, NULL) == PF_OK);
  ck_assert_msg(pf_tensor_read(path, &got) == PF_OK, "%s", pf_last_error());
  same(&t[0], &got);
  pf_tensor_free(&got);
}
END_TEST

/* Every truncation of a good file is refused, and so is every header that lies. */
START_TEST(tensors_hostile) {
  static const char *const heads[] = {
      "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}",
      "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,0]}}",
      "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}",
      "{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
      "{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
      "{\"x\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "{\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}",
      "{\"x\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}",
      "{\"x\":{}}",
      "{\"x\":3}",
      "{}",
      "[]",
      "{\"x\""};
  pf_tensor got;
  unsigned char b[256];
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    size_t n = strlen(heads[i]);
    memset(b, 0, sizeof b);
    b[0] = (unsigned char)n;
    memcpy(b + 8, heads[i], n);
    ck_assert_int_eq(pf_safetensors_parse("t", b, n + 16, NULL, &got), PF_EINPUT);
  }
  memset(b, 0xff, 8);
  ck_assert_int_eq(pf_safetensors_parse("t", b, 100, NULL, &got), PF_EINPUT);
  float v[2] = {1, 2};
  char path[300];
  pf_tensor t = {NULL, 1, {2}, v};
  pf_buf f;
  snprintf(path, sizeof path, "%s/t.npy", dir);
  ck_assert(pf_npy_write(path, &t) == PF_OK && pf_read_file(path, 4096, &f) == PF_OK);
  for (size_t n = 0; n < f.n; n++)
    ck_assert_int_eq(pf_npy_parse("t", f.s, n, &got), PF_EINPUT);
  memcpy(f.s + f.n - 4, "\x00\x00\xc0\x7f", 4);
  ck_assert_int_eq(pf_npy_parse("t", f.s, f.n, &got), PF_EINPUT);
  ck_assert(strstr(pf_last_error(), "not finite") != NULL);
  pf_buf_free(&f);
}
END_TEST

int main(void) {
  Suite *s = suite_create("journal");
  TCase *t = tcase_create("journal");
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_test(t, resume);
  tcase_add_test(t, torn_anywhere);
  tcase_add_test(t, damage);
  tcase_add_test(t, units_are_not_kept_in_memory);
  tcase_add_test(t, joined);
  tcase_add_test(t, lock);
  tcase_add_test(t, no_place);
  tcase_add_test(t, disk_full);
  tcase_add_test(t, tensors_read_back);
  tcase_add_test(t, tensors_hostile);
  tcase_set_timeout(t, 120);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_NOFORK);
}
