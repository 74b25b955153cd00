/* SPDX-License-Identifier: Apache-2.0
 * pf-bench-load: time, rate and peak memory of opening a model, beside the rate at which the same
 * files can be read and dropped in the same run. --cold asks the kernel to drop the files from the
 * page cache before each part. */
#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/aio.h"
#include "base/status.h"
#include "base/clock.h"
#include "bench/disk.h"

static const char usage[] =
    "usage: pf-bench-load [--cold] [--no-checksum] [--threads N] [--direct] MODEL\n"
    "--direct reads the files with O_DIRECT in the comparison. PERSONAFLOW_IO=uring|pread chooses "
    "how the model is read.\n";

static double seconds(struct timeval t) {
  return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

/* CPU time of the process, user and system. */
static void cpu(double *user, double *sys) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  *user = seconds(u.ru_utime);
  *sys = seconds(u.ru_stime);
}

static const char *io_kind(void) {
  static char kind[16] = "?";
  pf_aio *a;
  if (pf_aio_open(&a, 4) == PF_OK)
    snprintf(kind, sizeof kind, "%s", pf_aio_kind(a));
  pf_aio_close(a);
  return kind;
}

static int run(const char *path, const pf_model_opts *o, bool cold, bool direct) {
  char dir[4096];
  pf_ckpt k;
  pf_model *m;
  size_t weights = 0;
  int rc = pf_model_resolve(path, dir, sizeof dir);
  if (rc == PF_OK)
    rc = pf_ckpt_open(&k, dir);
  if (rc != PF_OK)
    return rc;
  if (cold)
    pf_disk_drop(&k);
  double before = pf_memory_peak(), user0, sys0, user, sys;
  cpu(&user0, &sys0);
  double t = pf_seconds();
  rc = pf_model_open(&m, dir, o);
  t = pf_seconds() - t;
  cpu(&user, &sys);
  if (rc == PF_OK) {
    double bytes = (double)pf_model_get_info(m)->weight_bytes, rss = pf_memory_peak();
    printf("load: %.0f bytes of weights, io %s, %.2f s, %.2f GB/s, sha256 %s\n", bytes, io_kind(),
           t, bytes / t * 1e-9, o->no_checksum ? "off" : pf_model_get_info(m)->weights_sha256);
    printf("cpu: %.2f s user, %.2f s system\n", user - user0, sys - sys0);
    printf("memory: peak resident %.0f bytes (%.0f before), %.4f of the weights\n", rss, before,
           rss / bytes);
    weights = (size_t)pf_model_get_info(m)->weight_bytes;
    pf_model_close(m);
    if (cold)
      pf_disk_drop(&k);
    t = pf_disk_read(&k, direct);
    bytes = pf_disk_bytes(&k);
    printf("plain read(2), 4 MiB%s: %.0f bytes, %.2f s, %.2f GB/s\n", direct ? ", O_DIRECT" : "",
           bytes, t, bytes / t * 1e-9);
  }
  if (rc == PF_OK)
    printf("fresh memory, one thread: %.2f s to touch %.0f bytes\n", pf_memory_touch(weights),
           (double)weights);
  pf_ckpt_close(&k);
  return rc;
}

int main(int argc, char **argv) {
  static const struct option opts[] = {{"cold", 0, 0, 'c'},   {"no-checksum", 0, 0, 'n'},
                                       {"direct", 0, 0, 'd'}, {"threads", 1, 0, 't'},
                                       {"help", 0, 0, 'h'},   {0, 0, 0, 0}};
  pf_model_opts o = {0};
  bool cold = false, direct = false, bad = false;
  for (int c; (c = getopt_long(argc, argv, "h", opts, NULL)) != -1;) {
    if (c == 'h') {
      fputs(usage, stdout);
      return 0;
    }
    cold |= c == 'c';
    direct |= c == 'd';
    o.no_checksum |= c == 'n';
    if (c == 't')
      o.threads = atoi(optarg);
    bad |= c == '?';
  }
  if (bad || argc - optind != 1) {
    fputs(usage, stderr);
    return 2;
  }
  int rc = run(argv[optind], &o, cold, direct);
  if (rc != PF_OK)
    fprintf(stderr, "pf-bench-load: %s\n", pf_last_error());
  return pf_exit_code(rc);
}
