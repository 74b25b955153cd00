/* SPDX-License-Identifier: Apache-2.0
 * Timelines in the Trace Event Format (JSON object form): "X" events with microseconds, threads
 * named by "M" events. Perfetto and chrome://tracing open it. */
#include "analysis/profile.h"

enum { PROCESS = 1, PHASES = 0 }; /* the track of phases; threads follow from 1 */

static void name_track(pf_buf *b, int track, const char *name) {
  pf_buf_printf(b,
                "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":"
                "\"%s\"}},\n{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":%d,\"tid\":%d,"
                "\"args\":{\"sort_index\":%d}},\n",
                PROCESS, track, name, PROCESS, track, track);
}

void pf_trace_open(pf_buf *b, const char *title, int threads) {
  json_t *t = json_string(title);
  char *quoted = t ? json_dumps(t, JSON_ENCODE_ANY) : NULL;
  pf_buf_puts(b, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  pf_buf_printf(b, "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":%s}},\n",
                PROCESS, quoted ? quoted : "\"\"");
  name_track(b, PHASES, "phases");
  for (int i = 0; i < threads; i++) {
    char name[32];
    snprintf(name, sizeof name, "thread %d", i);
    name_track(b, PHASES + 1 + i, name);
  }
  free(quoted);
  json_decref(t);
}

static void event(pf_buf *b, const char *name, const char *category, int track, double from,
                  double to) {
  pf_buf_printf(b,
                "{\"ph\":\"X\",\"name\":\"%s\",\"cat\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,"
                "\"dur\":%.3f",
                name, category, PROCESS, track, 1e6 * from, 1e6 * (to - from));
}

void pf_trace_add(pf_buf *b, const char *phase, double begin, double wall, const pf_profile_span *s,
                  size_t n) {
  event(b, phase, "phase", PHASES, begin, begin + wall);
  pf_buf_puts(b, "},\n");
  for (size_t i = 0; i < n; i++) {
    event(b, s[i].name, phase, PHASES + 1 + s[i].thread, begin + s[i].from, begin + s[i].to);
    if (s[i].layer >= 0)
      pf_buf_printf(b, ",\"args\":{\"layer\":%d}", (int)s[i].layer);
    pf_buf_puts(b, "},\n");
  }
}

void pf_trace_close(pf_buf *b) {
  pf_buf_printf(
      b, "{\"ph\":\"M\",\"name\":\"process_labels\",\"pid\":%d,\"args\":{\"labels\":\"\"}}\n]}\n",
      PROCESS);
}
