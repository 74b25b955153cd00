/* SPDX-License-Identifier: Apache-2.0
 * Every line of kernels.def that this CPU can run against the scalar reference: equal in every bit,
 * nothing read or written outside the extents; the reference's outputs against
 * tests/golden/simd.sha, one file for all machines.
 *
 *   checksimd             the test      --golden   hashes on stderr
 *   --bench [ISA]         times of the products
 * PERSONAFLOW_REQUIRE_ISA="avx2 avx512": a skip of those is a failure. PF_TEST_TIER=small: a third
 * of the products of the variants (the reference computes all of them, for the hashes); tiny: a
 * twelfth of all products, no hashes of them. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/dmath.h"
#include "base/fpenv.h"
#include "base/rng.h"
#include "personaflow/types.h"
#include "tests/cs.h"
#include "tests/util.h"

#define N_SLOTS    20
#define SLOT_BYTES ((size_t)8 << 20)

const size_t cs_sizes[] = {1,  2,  3,  5,  7,  8,  9,   12,  15,  16,  17,  23,
                           24, 25, 31, 32, 33, 40, 47,  48,  49,  56,  63,  64,
                           65, 79, 80, 81, 96, 97, 127, 128, 129, 255, 256, 259};
const size_t cs_n_sizes = sizeof cs_sizes / sizeof *cs_sizes;

uint32_t cs_u32(cs *t) {
  uint64_t i = t->counter++;
  if (i % 4 == 0)
    pf_philox(t->seed, 0, i / 4, t->words);
  return t->words[i % 4];
}

static float with_exponent(uint32_t u, uint32_t lo, uint32_t hi) {
  uint32_t e = lo + (u >> 8 & 0x7fff) % (hi - lo + 1);
  return pf_f32_of_bits((u & 0x807fffffu) | e << 23);
}

static float point(uint32_t u) {
  static const uint32_t points[] = {
      0x7f800001u, 0xff80ffffu, 0x7fbfffffu, 0xffffffffu, 0x7f800000u, 0xff800000u, 0x7f7f7fffu,
      0x7f7f8000u, 0xff7f8000u, 0x7f7f8001u, 0x7f7fffffu, 0x3f808000u, 0x3f818000u, 0xbf807fffu,
      0x3f808001u, 0x3fffffffu, 0x00008000u, 0x00018000u, 0x007f8000u, 0x807fffffu, 0x00800000u};
  return pf_f32_of_bits(points[u % (sizeof points / sizeof *points)]);
}

float cs_value(cs *t, int kind) {
  static const float some[] = {0.0f, -0.0f, 1.0f,          -1.0f,
                               0.0f, -0.0f, 0x1.000002p0f, -0x1.000002p0f};
  uint32_t u = cs_u32(t), w = cs_u32(t);
  u = (u & 0x80ffffffu) | (w & 0x7f000000u);
  switch (kind) {
  case CS_UNIT:
  case CS_ALONE:
    return ((float)(int32_t)u) * 0x1p-30f;
  case CS_WIDE:
    return with_exponent(w, 1, 254);
  case CS_TINY:
    return with_exponent(w, 0, 3);
  case CS_HUGE:
    return with_exponent(w, 250, 254);
  case CS_SIGNS:
    return some[w % 8];
  case CS_FINITE:
    return (u & 0x7f800000u) == 0x7f800000u ? 0.5f : pf_f32_of_bits(u);
  case CS_POINTS:
    return point(w);
  case CS_SMALL:
    return with_exponent(w, 62, 65);
  case CS_TIES:
    return w % 4 == 0 ? 127.0f : 0.5f * ((float)(u % 509) - 254.0f);
  default:
    return pf_f32_of_bits(w % 16 ? u : (u & 0x80000000u) | 0x7f800000u | (w % 64 ? 0 : 0x400001u));
  }
}

bool cs_extra(cs *t) {
  if (t->place == 0 || t->failed)
    return false;
  if (t->hash)
    t->laid_by = t->hash;
  t->hash = NULL;
  return true;
}

static uint8_t *slots[N_SLOTS];

/* A slot is SLOT_BYTES between two pages that may not be touched. */
static void make_slots(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < N_SLOTS; i++) {
    uint8_t *p = mmap(NULL, SLOT_BYTES + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, SLOT_BYTES, PROT_READ | PROT_WRITE)) {
      perror("checksimd: mmap");
      exit(99);
    }
    slots[i] = p + page;
  }
}

void *cs_guarded(cs *t, int slot, size_t bytes) {
  return slots[slot] + (t->place ? SLOT_BYTES - bytes : 0);
}

float *cs_in(cs *t, int slot, size_t n, int kind) {
  float *p = cs_guarded(t, slot, n * sizeof *p);
  for (size_t i = 0; i < n; i++)
    p[i] = cs_value(t, kind);
  return p;
}

void cs_out(cs *t, int slot, size_t n, float **got, float **want) {
  *got = cs_guarded(t, 12 + 2 * slot, n * sizeof(float));
  *want = cs_guarded(t, 13 + 2 * slot, n * sizeof(float));
  memset(*got, 0xa5, n * sizeof(float));
  memset(*want, 0xa5, n * sizeof(float));
}

struct cs_known {
  float *v;
  size_t n, cap;
};

bool cs_recall(cs *t, float *want, size_t n) {
  if (t->known->n < t->at + n)
    return false;
  memcpy(want, t->known->v + t->at, n * sizeof *want);
  t->at += n;
  return true;
}

bool cs_leave_out(cs *t, size_t n) {
  if (tu_tier("tiny")) {
    bool out = t->drawn++ % 12 != 0;
    t->left_out |= out;
    return out;
  }
  bool kept = t->drawn++ % 3 == 0 || t->known->n < t->at + n;
  if (kept || !tu_tier("small"))
    return false;
  t->at += n;
  return true;
}

void cs_keep(cs *t, const float *want, size_t n) {
  struct cs_known *k = t->known;
  if (k->n + n > k->cap) {
    k->cap = 2 * (k->n + n);
    k->v = realloc(k->v, k->cap * sizeof *k->v);
    if (!k->v) {
      perror("checksimd");
      exit(99);
    }
  }
  memcpy(k->v + k->n, want, n * sizeof *want);
  t->at = k->n += n;
}

static void fail(cs *t, const char *fmt, va_list ap, size_t i, uint64_t got, uint64_t want) {
  printf("FAIL  %s %s: seed %llu, ", t->k->op, t->k->isa, (unsigned long long)t->seed);
  vprintf(fmt, ap);
  printf(", guard %s: value %zu is %0*llx, the reference has %0*llx\n",
         t->place ? "after" : "before", i, want >> 32 ? 16 : 8, (unsigned long long)got,
         want >> 32 ? 16 : 8, (unsigned long long)want);
  t->failed = true;
}

static uint32_t canonical(float x) {
  uint32_t u = pf_bits_of_f32(x);
  return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : u;
}

void cs_cmp(cs *t, const float *got, const float *want, size_t n, const char *fmt, ...) {
  t->cases++;
  for (size_t i = 0; i < n && !t->failed; i++) {
    uint32_t a = canonical(got[i]), b = canonical(want[i]);
    if (t->hash)
      pf_sha256_add(t->hash, &b, sizeof b);
    if (a != b) {
      va_list ap;
      va_start(ap, fmt);
      fail(t, fmt, ap, i, a, b);
      va_end(ap);
    }
  }
}

void cs_cmp_u(cs *t, uint64_t got, uint64_t want, const char *fmt, ...) {
  t->cases++;
  if (t->hash)
    pf_sha256_add(t->hash, &want, sizeof want);
  if (got == want || t->failed)
    return;
  va_list ap;
  va_start(ap, fmt);
  fail(t, fmt, ap, 0, got, want);
  va_end(ap);
}

static uint64_t canonical_d(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return x != x ? UINT64_C(0x7ff8) << 48 : u;
}

void cs_cmp_d(cs *t, double got, double want, const char *fmt, ...) {
  t->cases++;
  uint64_t a = canonical_d(got), b = canonical_d(want);
  if (t->hash)
    pf_sha256_add(t->hash, &b, sizeof b);
  if (a == b || t->failed)
    return;
  va_list ap;
  va_start(ap, fmt);
  fail(t, fmt, ap, 0, a, b);
  va_end(ap);
}

static struct test {
  const char *op;
  cs_fn fn;
  struct cs_known known;
} tests[] = {
#define CS_ENTRY(op) {#op, cs_##op, {NULL, 0, 0}},
    CS_OPS(CS_ENTRY)
#undef CS_ENTRY
};

static struct test *test_of(const char *op) {
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (!strcmp(tests[i].op, op))
      return &tests[i];
  return NULL;
}

static const cs *running;

/* A kernel that leaves its extents meets a guard page; say which one. */
static void on_fault(int sig) {
  char line[160];
  int n = snprintf(
      line, sizeof line,
      "FAIL  %s %s: signal %d after %u cases, guard %s: outside the extents or a bad instruction\n",
      running ? running->k->op : "?", running ? running->k->isa : "?", sig,
      running ? running->cases : 0, running && running->place ? "after" : "before");
  _exit(write(STDOUT_FILENO, line, (size_t)n) == n ? 1 : 2);
}

/* The seed belongs to the operation, so that every variant of it sees the same inputs. */
static uint64_t seed_of(const char *op) {
  uint64_t h = UINT64_C(1469598103934665603);
  for (; *op; op++)
    h = (h ^ (uint8_t)*op) * UINT64_C(1099511628211);
  return h % 1000000;
}

/* The operands' form belongs to the instruction set: with operand_T goes its gemm_T, and the other
 * way round. */
static void install(pf_simd *s, const pf_kernel *k) {
  const char *const names[2] = {"operand_", "gemm_"};
  size_t n;
  const pf_kernel *all = pf_kernel_table(&n);
  pf_kernel_install(s, k);
  for (int i = 0; i < 2; i++) {
    size_t len = strlen(names[i]);
    if (strncmp(k->op, names[i], len) != 0)
      continue;
    for (size_t j = 0; j < n; j++)
      if (!strncmp(all[j].op, names[!i], strlen(names[!i])) &&
          !strcmp(all[j].op + strlen(names[!i]), k->op + len) && !strcmp(all[j].isa, k->isa))
        pf_kernel_install(s, &all[j]);
  }
}

/* Runs one kernel; hex receives the hash of the reference's outputs when it is not NULL ("" if
 * cases were left out). */
static bool run_kernel(const pf_simd *ref, const pf_kernel *k, char *hex) {
  pf_simd v = *ref;
  struct test *test = test_of(k->op);
  if (!test) {
    printf("FAIL  %s: no test for this operation\n", k->op);
    return false;
  }
  install(&v, k);
  cs t = {.ref = ref,
          .v = &v,
          .k = k,
          .seed = seed_of(k->op),
          .hash = hex ? pf_sha256_new() : NULL,
          .laid_by = NULL,
          .known = &test->known};
  running = &t;
  uint64_t env = pf_fp_enter();
  for (t.place = 0; t.place < 2 && !t.failed; t.place++)
    test->fn(&t);
  pf_fp_leave(env);
  running = NULL;
  t.hash = t.laid_by ? t.laid_by : t.hash;
  if (hex)
    pf_sha256_end(t.hash, hex);
  if (t.left_out && hex)
    *hex = '\0';
  if (!t.failed)
    printf("ok    %-15s %-10s %6u cases%s\n", k->op, k->isa, t.cases,
           t.left_out ? ", some left out" : "");
  return !t.failed;
}

/* 1 if the golden file has this hash for the operation. */
static bool golden_has(const char *op, const char *hex) {
  char path[4096], name[64], want[65];
  snprintf(path, sizeof path, "%s/tests/golden/simd.sha", tu_srcdir());
  FILE *f = fopen(path, "r");
  bool found = false, same = false;
  while (f && !found && fscanf(f, "%63s %64s", name, want) == 2)
    if (!strcmp(name, op)) {
      found = true;
      same = !strcmp(want, hex);
    }
  if (f)
    fclose(f);
  if (!same)
    printf("FAIL  %s: hash %s is not that of %s%s\n", op, hex, path,
           found ? "" : " (no such line)");
  return same;
}

/* Hash of the fp64 functions and the rotation angles; they have no variants, so the hash is their
 * test. */
static void hash_dmath(char hex[65]) {
  pf_sha256 *h = pf_sha256_new();
  for (unsigned i = 0; i < 4000; i++) {
    double u = pf_uniform(11, 12, i), x = u * 1400 - 700;
    double y[] = {pf_dexp(x), pf_dlog(u), pf_dsin(x * 1000), pf_dcos(x * 1000),
                  pf_dpow(u * 1e6 + 1, u - 0.5)};
    pf_sha256_add(h, y, sizeof y);
  }
  for (int i = 0; i < 64; i++)
    for (int32_t pos = 0; pos < 140000; pos += 1 + pos / 2) {
      float f = pf_rope_inv_freq(i % 2 ? 10000 : 1000000, i, 128), y[3] = {f};
      pf_rope_angle(pos, f, &y[1], &y[2]);
      pf_sha256_add(h, y, sizeof y);
    }
  pf_sha256_end(h, hex);
}

static bool required(const char *isa) {
  const char *list = getenv("PERSONAFLOW_REQUIRE_ISA");
  char words[256];
  snprintf(words, sizeof words, "%s", list ? list : "");
  for (char *w = strtok(words, " ,"); w; w = strtok(NULL, " ,"))
    if (!strcmp(w, isa))
      return true;
  return false;
}

/* Instruction sets that PERSONAFLOW_REQUIRE_ISA names and this build does not have at all. */
static unsigned missing_required(const pf_kernel *k, size_t n) {
  static const char *const isas[] = {
#define PF_ISA_NAME(name, level, features) #name,
      PF_ISAS(PF_ISA_NAME)
#undef PF_ISA_NAME
  };
  unsigned missing = 0;
  for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
    size_t j = 0;
    while (j < n && strcmp(k[j].isa, isas[i]) != 0)
      j++;
    if (j == n && required(isas[i])) {
      printf("FAIL  %s is required and not in this build\n", isas[i]);
      missing++;
    }
  }
  return missing;
}

static int bench(const pf_kernel *k, size_t n, const char *isa) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(k[i].op, "gemm_x3_bf16") && (pf_cpu_bits() & k[i].features) == k[i].features &&
        (!isa || !strcmp(isa, k[i].isa))) {
      pf_simd s;
      if (pf_simd_init(&s, k[i].isa) == PF_OK)
        cs_bench(&s, k[i].isa);
    }
  return 0;
}

int main(int argc, char **argv) {
  size_t n;
  const pf_kernel *k = pf_kernel_table(&n);
  bool golden = argc > 1 && !strcmp(argv[1], "--golden");
  if (argc > 1 && !strcmp(argv[1], "--bench"))
    return bench(k, n, argc > 2 ? argv[2] : NULL);
  setvbuf(stdout, NULL, _IOLBF, 0);
  unsigned passed = 0, failed = 0, skipped = 0;
  char hex[65];
  signal(SIGSEGV, on_fault);
  signal(SIGBUS, on_fault);
  signal(SIGILL, on_fault);
  make_slots();
  pf_simd ref;
  for (size_t i = 0; i < n; i++)
    if (!strcmp(k[i].isa, "scalar"))
      pf_kernel_install(&ref, &k[i]);
  for (size_t i = 0; i < n; i++) {
    bool scalar = !strcmp(k[i].isa, "scalar");
    if (golden && !scalar)
      continue;
    if ((pf_cpu_bits() & k[i].features) != k[i].features) {
      bool bad = required(k[i].isa);
      printf("%s %-15s %-10s this CPU lacks it\n", bad ? "FAIL " : "skip ", k[i].op, k[i].isa);
      bad ? failed++ : skipped++;
    } else if (golden) {
      if (run_kernel(&ref, &k[i], hex))
        fprintf(stderr, "%s %s\n", k[i].op, hex);
    } else {
      bool ok = run_kernel(&ref, &k[i], scalar ? hex : NULL);
      ok = ok && (!scalar || !*hex || golden_has(k[i].op, hex));
      ok ? passed++ : failed++;
    }
  }
  hash_dmath(hex);
  if (golden)
    fprintf(stderr, "dmath %s\n", hex);
  else
    golden_has("dmath", hex) ? passed++ : failed++;
  failed += missing_required(k, n);
  unsigned bad = cs_naive();
  bad ? failed++ : passed++;
  printf("checksimd: %u passed, %u failed, %u skipped\n", passed, failed, skipped);
  return failed ? 1 : 0;
}
