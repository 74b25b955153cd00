/* SPDX-License-Identifier: Apache-2.0
 * CPU features and name, detected once per process. */
#include "simd/cpu.h"

#include "config.h"

#include <pthread.h>
#include <string.h>

static const struct {
  uint32_t bit;
  const char *word;
} features[] = {
#define PF_FEATURE(name, bit, word) {1u << bit, word},
    PF_FEATURES(PF_FEATURE)
#undef PF_FEATURE
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t bits;
static char name[96];

static void detect(void) {
  bits = pf_cpu_detect();
  pf_cpu_detect_name(name, 64);
  size_t n = strlen(name);
  while (n && name[n - 1] == ' ')
    name[--n] = '\0';
  if (!n)
    strcpy(name, "unknown CPU");
#ifdef PF_EMULATION
  strcat(name, " (AMX and VNNI emulated)");
#endif
}

uint32_t pf_cpu_bits(void) {
  pthread_once(&once, detect);
  return bits;
}

const char *pf_cpu_brand(void) {
  pthread_once(&once, detect);
  return name;
}

void pf_cpu_words(uint32_t want, char *buf, size_t size) {
  size_t at = 0;
  buf[0] = '\0';
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    size_t n = strlen(features[i].word);
    if (!(want & features[i].bit) || at + n + 2 > size)
      continue;
    if (at)
      buf[at++] = ' ';
    memcpy(buf + at, features[i].word, n + 1);
    at += n;
  }
}
