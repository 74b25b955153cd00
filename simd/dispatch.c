/* SPDX-License-Identifier: Apache-2.0
 * Chooses the kernels: of every operation the last line of kernels.def that the CPU, the OS and the
 * cap allow. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "simd/kernels.h"

static const struct {
  const char *name;
  int level;
  uint32_t features;
} isas[] = {
#define PF_ISA_ENTRY(name, level, features) {#name, level, features},
    PF_ISAS(PF_ISA_ENTRY)
#undef PF_ISA_ENTRY
};
#define N_ISAS (sizeof isas / sizeof *isas)

static const pf_kernel kernels[] = {
#define PF_KERNEL(op, isa, symbol, features)                                                       \
  {#op, #isa, #symbol, features, offsetof(pf_simd, op), (void (*)(void))symbol},
#include "simd/kernels.def"
#undef PF_KERNEL
};

const pf_kernel *pf_kernel_table(size_t *n) {
  *n = sizeof kernels / sizeof *kernels;
  return kernels;
}

void pf_kernel_install(pf_simd *s, const pf_kernel *k) {
  memcpy((char *)s + k->slot, &k->fn, sizeof k->fn);
}

const char *pf_isa_cap(const char *cap) {
  if (!cap || !*cap)
    cap = getenv("PERSONAFLOW_ISA");
  return cap && *cap ? cap : NULL;
}

static size_t find_isa(const char *name) {
  size_t i = 0;
  while (i < N_ISAS && strcmp(isas[i].name, name) != 0)
    i++;
  return i;
}

static int built(const char *isa) {
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
    if (!strcmp(kernels[i].isa, isa))
      return 1;
  return 0;
}

static int cpu_has(uint32_t features) {
  return (pf_cpu_bits() & features) == features;
}

/* The instruction sets that this build and this CPU have, a space before each. */
static void offered(char *out, size_t size) {
  size_t at = 0;
  *out = '\0';
  for (size_t i = 0; i < N_ISAS; i++)
    if (built(isas[i].name) && cpu_has(isas[i].features) && at < size)
      at += (size_t)snprintf(out + at, size - at, " %s", isas[i].name);
}

/* The level of a cap's name; an error for a name that is unknown, not built or not offered by this
 * CPU. from: who says so. */
static int cap_level(const char *cap, const char *from, int *level) {
  char have[160];
  *level = 1 << 30;
  if (!cap)
    return PF_OK;
  size_t i = find_isa(cap);
  offered(have, sizeof have);
  if (i == N_ISAS)
    return pf_fail(PF_EENV, "%s: '%s' is no instruction set: use one of%s", from, cap, have);
  if (!built(cap))
    return pf_fail(PF_EENV, "%s: %s is not in this build: use one of%s", from, cap, have);
  if (!cpu_has(isas[i].features))
    return pf_fail(PF_EENV, "%s: this CPU (%s) does not offer %s: use one of%s", from,
                   pf_cpu_brand(), cap, have);
  *level = isas[i].level;
  return PF_OK;
}

int pf_kernel_choose(const pf_kernel *chosen[PF_N_OPS], const char *cap) {
  int level, status = cap_level(pf_isa_cap(cap), cap && *cap ? "isa" : "PERSONAFLOW_ISA", &level);
  if (status != PF_OK)
    return status;
  memset(chosen, 0, PF_N_OPS * sizeof *chosen);
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
    const pf_kernel *k = &kernels[i];
    if (cpu_has(k->features) && isas[find_isa(k->isa)].level <= level)
      chosen[k->slot / sizeof k->fn] = k;
  }
  return PF_OK;
}

int pf_simd_init(pf_simd *out, const char *cap) {
  const pf_kernel *chosen[PF_N_OPS];
  int status = pf_kernel_choose(chosen, cap);
  for (size_t i = 0; status == PF_OK && i < PF_N_OPS; i++)
    pf_kernel_install(out, chosen[i]);
  return status;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pf_simd table;
static int table_status;

static void init_table(void) {
  table_status = pf_simd_init(&table, NULL);
}

const pf_simd *pf_simd_get(int *status) {
  pthread_once(&once, init_table);
  if (status)
    *status = table_status;
  if (table_status == PF_OK)
    return &table;
  pf_simd again; /* for this thread's error line */
  pf_simd_init(&again, NULL);
  return NULL;
}

/* Tables of named caps, kept when they are first asked for. */
static pthread_mutex_t capped_lock = PTHREAD_MUTEX_INITIALIZER;
static pf_simd capped[N_ISAS];
static char capped_made[N_ISAS];

const pf_simd *pf_simd_for(const char *isa, int *status) {
  if (!isa || !*isa)
    return pf_simd_get(status);
  pf_simd made;
  size_t i = find_isa(isa);
  *status = pf_simd_init(&made, isa);
  if (*status != PF_OK)
    return NULL;
  pthread_mutex_lock(&capped_lock);
  if (!capped_made[i])
    capped[i] = made;
  capped_made[i] = 1;
  pthread_mutex_unlock(&capped_lock);
  return &capped[i];
}

size_t pf_isa_names(const char *names[PF_MAX_ISAS]) {
  size_t n = 0;
  for (size_t i = 0; i < N_ISAS && n < PF_MAX_ISAS; i++)
    if (built(isas[i].name) && cpu_has(isas[i].features))
      names[n++] = isas[i].name;
  return n;
}
