/* SPDX-License-Identifier: Apache-2.0
 * perf_event_open(2), one descriptor for each counter and thread. */
#include "base/counters.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "personaflow/types.h"

/* AMX_BUSY of Sapphire Rapids and later: event B7h, umask 02h (EXE.AMX_BUSY). */
enum { AMX_BUSY = 0x02b7, MOST_THREADS = 1024 };

static const struct {
  const char *name;
  uint32_t type;
  uint64_t config;
} events[] = {{"task-clock (ns)", PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK},
              {"context-switches", PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES},
              {"cpu-migrations", PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_MIGRATIONS},
              {"page-faults", PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS},
              {"cycles", PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES},
              {"instructions", PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS},
              {"cache-references", PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_REFERENCES},
              {"cache-misses", PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES},
              {"stalled-cycles-backend", PERF_TYPE_HARDWARE, PERF_COUNT_HW_STALLED_CYCLES_BACKEND},
              {"amx-busy-cycles", PERF_TYPE_RAW, AMX_BUSY}};
enum { N_EVENTS = sizeof events / sizeof *events };

struct pf_counters {
  pf_counter v[N_EVENTS];
  int *fd; /* (N_EVENTS, n_threads) */
  size_t n_threads;
};

static size_t threads(pid_t *out) {
  DIR *d = opendir("/proc/self/task");
  size_t n = 0;
  for (struct dirent *e; d && n < MOST_THREADS && (e = readdir(d));)
    if (e->d_name[0] != '.')
      out[n++] = (pid_t)strtol(e->d_name, NULL, 10);
  if (d)
    closedir(d);
  return n;
}

static int open_event(int event, pid_t thread) {
  struct perf_event_attr a = {.type = events[event].type,
                              .size = sizeof a,
                              .config = events[event].config,
                              .read_format =
                                  PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
                              .disabled = 1,
                              .exclude_kernel = events[event].type != PERF_TYPE_SOFTWARE,
                              .exclude_hv = 1};
  return (int)syscall(SYS_perf_event_open, &a, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static const char *why(int error) {
  return error == ENOENT || error == EOPNOTSUPP ? "this machine does not count it"
         : error == EACCES || error == EPERM
             ? "not permitted: see /proc/sys/kernel/perf_event_paranoid"
             : strerror(error);
}

int pf_counters_open(pf_counters **out, bool amx) {
  pf_counters *c = pf_calloc(1, sizeof *c);
  pid_t tid[MOST_THREADS];
  *out = NULL;
  if (!c)
    return PF_ENOMEM;
  c->n_threads = threads(tid);
  c->fd = pf_alloc(N_EVENTS * (c->n_threads ? c->n_threads : 1), sizeof *c->fd);
  if (!c->fd) {
    pf_free(c);
    return PF_ENOMEM;
  }
  for (int e = 0; e < N_EVENTS; e++) {
    pf_counter *v = &c->v[e];
    *v = (pf_counter){.name = events[e].name, .there = c->n_threads > 0};
    for (size_t t = 0; t < c->n_threads; t++) {
      bool known = events[e].type != PERF_TYPE_RAW || amx;
      int fd = known ? open_event(e, tid[t]) : -1;
      c->fd[(size_t)e * c->n_threads + t] = fd;
      if (fd < 0 && v->there) {
        v->there = false;
        v->absent = known ? why(errno) : "the CPU has no AMX";
      }
    }
  }
  *out = c;
  return PF_OK;
}

void pf_counters_close(pf_counters *c) {
  if (!c)
    return;
  for (size_t i = 0; i < N_EVENTS * c->n_threads; i++)
    if (c->fd[i] >= 0)
      close(c->fd[i]);
  pf_free(c->fd);
  pf_free(c);
}

static void tell(pf_counters *c, unsigned long request) {
  for (size_t i = 0; i < N_EVENTS * c->n_threads; i++)
    if (c->fd[i] >= 0)
      (void)ioctl(c->fd[i], request, 0);
}

void pf_counters_start(pf_counters *c) {
  tell(c, PERF_EVENT_IOC_RESET);
  tell(c, PERF_EVENT_IOC_ENABLE);
}

/* Counters that shared a register were on for a part of the time. */
static double value_of(int fd) {
  uint64_t v[3] = {0}; /* count, time enabled, time running */
  if (fd < 0 || read(fd, v, sizeof v) != sizeof v || v[2] == 0)
    return 0;
  return (double)v[0] * (double)v[1] / (double)v[2];
}

void pf_counters_stop(pf_counters *c) {
  tell(c, PERF_EVENT_IOC_DISABLE);
  for (int e = 0; e < N_EVENTS; e++) {
    c->v[e].value = 0;
    for (size_t t = 0; t < c->n_threads && c->v[e].there; t++)
      c->v[e].value += value_of(c->fd[(size_t)e * c->n_threads + t]);
  }
}

const pf_counter *pf_counters_read(const pf_counters *c, int *n) {
  *n = N_EVENTS;
  return c->v;
}
