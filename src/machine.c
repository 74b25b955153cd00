/* SPDX-License-Identifier: Apache-2.0
 * The public view of this machine: CPU features and the kernels chosen. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/par.h"
#include "base/status.h"
#include "model/precision.h"
#include "personaflow/profile.h"
#include "simd/kernels.h"
#include "simd/peak/peaks.h"

static pthread_once_t words_once = PTHREAD_ONCE_INIT;
static char words[256];

static void make_words(void) {
  pf_cpu_words(pf_cpu_bits(), words, sizeof words);
}

const char *pf_cpu_features(void) {
  pthread_once(&words_once, make_words);
  return words;
}

const char *pf_cpu_name(void) {
  return pf_cpu_brand();
}

static pthread_once_t choice_once = PTHREAD_ONCE_INIT;
static pf_kernel_choice choice[PF_N_OPS];
static char why[PF_N_OPS][96];

/* The line after the chosen one that would have won, had something allowed it. */
static const pf_kernel *next_better(const pf_kernel *k) {
  size_t n;
  const pf_kernel *all = pf_kernel_table(&n);
  for (const pf_kernel *p = k + 1; p < all + n; p++)
    if (p->slot == k->slot)
      return p;
  return NULL;
}

static void explain(const pf_kernel *k, const char *cap, char *buf, size_t size) {
  const pf_kernel *better = next_better(k);
  if (!better) {
    snprintf(buf, size, "the best of this build");
    return;
  }
  uint32_t lacks = better->features & ~pf_cpu_bits();
  if (!lacks) {
    snprintf(buf, size, "PERSONAFLOW_ISA=%s", cap ? cap : "");
    return;
  }
  char missing[64];
  pf_cpu_words(lacks, missing, sizeof missing);
  snprintf(buf, size, "%s needs %s", better->isa, missing);
}

static void make_choice(void) {
  const pf_kernel *chosen[PF_N_OPS];
  const char *cap = pf_isa_cap(NULL);
  if (pf_kernel_choose(chosen, NULL) != PF_OK)
    return;
  for (size_t i = 0; i < PF_N_OPS; i++) {
    explain(chosen[i], cap, why[i], sizeof why[i]);
    choice[i] = (pf_kernel_choice){chosen[i]->op, chosen[i]->isa, chosen[i]->symbol, why[i]};
  }
}

static pthread_once_t isas_once = PTHREAD_ONCE_INIT;
static const char *isas[PF_MAX_ISAS];
static size_t n_isas;

static void list_isas(void) {
  n_isas = pf_isa_names(isas);
}

const char *const *pf_isas(size_t *n) {
  pthread_once(&isas_once, list_isas);
  *n = n_isas;
  return isas;
}

const char *pf_kernel_symbol(const char *op, const char *isa) {
  const pf_kernel *chosen[PF_N_OPS];
  if (pf_kernel_choose(chosen, isa) != PF_OK)
    return NULL;
  for (size_t i = 0; i < PF_N_OPS; i++)
    if (!strcmp(chosen[i]->op, op))
      return chosen[i]->symbol;
  return NULL;
}

int pf_kernels(const pf_kernel_choice **out, size_t *n) {
  int status;
  *out = NULL;
  *n = 0;
  if (!pf_simd_get(&status))
    return status;
  pthread_once(&choice_once, make_choice);
  *out = choice;
  *n = PF_N_OPS;
  return PF_OK;
}

/* ---- what it can do -------------------------------------------------------------------------- */

static const size_t READ_ARENA = (size_t)1 << 30;
enum { LOOKS = 6 };

/* The operation's kernel under a cap. */
static const char *isa_of(const char *op, const char *cap) {
  const pf_kernel *chosen[PF_N_OPS];
  if (pf_kernel_choose(chosen, cap) != PF_OK)
    return "";
  for (size_t i = 0; i < PF_N_OPS; i++)
    if (chosen[i] && !strcmp(chosen[i]->op, op))
      return chosen[i]->isa;
  return "";
}

static void best_of_looks(pf_peaks *p, const int unit[2], const pf_arena *a) {
  p->rough = false;
  for (int i = 0; i < LOOKS; i++) {
    for (int u = 0; u < 2; u++)
      if (unit[u] >= 0 && (u == 0 || unit[1] != unit[0]))
        (void)pf_peak_now(p, (pf_peak_id)unit[u]);
    (void)pf_read_now(p, a);
  }
}

static double peak_of(const pf_peaks *p, int unit, const char **what) {
  *what = unit >= 0 && p->ops[unit] > 0 ? pf_peak_what((pf_peak_id)unit) : NULL;
  return unit >= 0 ? p->ops[unit] : 0;
}

int pf_machine_measure(const pf_model *m, const char *isa, int threads, pf_machine_peak *out) {
  if (!m->layers)
    return pf_fail(PF_EUSAGE, "%s: only the configuration was opened", m->cfg.dir);
  const pf_mode *mode = &pf_modes[m->cfg.info.precision];
  int kind = mode->kind[m->layers->gate.type];
  const int unit[2] = {pf_peak_of(isa_of(pf_products[kind].names[1], isa), kind == PF_K_S8),
                       pf_peak_of(isa_of(pf_attns[mode->kv].names[0], isa), false)};
  pf_arena a = {m->arena, m->arena_bytes};
  bool own = m->arena_bytes < READ_ARENA;
  pf_peaks p = {.threads = threads > 0 ? threads : pf_par_default(), .rough = true};
  int rc = own ? pf_arena_open(&a, READ_ARENA, p.threads) : PF_OK;
  if (rc != PF_OK)
    return rc;
  pf_peaks_measure_in(&p, &a);
  best_of_looks(&p, unit, &a);
  if (own)
    pf_arena_close(&a);
  *out = (pf_machine_peak){
      .threads = p.threads, .parts = (int)pf_products[kind].parts, .bytes = p.read};
  out->flops = peak_of(&p, unit[0], &out->what);
  out->attention = peak_of(&p, unit[1], &out->attention_what);
  return PF_OK;
}
