/* SPDX-License-Identifier: Apache-2.0
 * CPU detection on x86-64: CPUID for the CPU, XCR0 for the registers that the operating system
 * saves (Intel SDM vol. 1, 13.3 and 14.3; vol. 2, CPUID). */
#include "simd/cpu.h"

#include "config.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t xcr0(void) {
  uint32_t lo, hi;
  __asm__ __volatile__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

enum { EAX, EBX, ECX, EDX };

/* A feature: the leaf and sub-leaf, register and bit that announce it, and the XCR0 bits that it
 * needs. */
static const struct {
  uint32_t leaf, sub, reg, bit;
  uint64_t xcr0;
  uint32_t feature;
} table[] = {
    {7, 0, EBX, 5, 0x06, PF_CPU_AVX2},        {1, 0, ECX, 12, 0x06, PF_CPU_FMA},
    {1, 0, ECX, 29, 0x06, PF_CPU_F16C},       {7, 0, EBX, 16, 0xe6, PF_CPU_AVX512F},
    {7, 0, EBX, 30, 0xe6, PF_CPU_AVX512BW},   {7, 0, EBX, 17, 0xe6, PF_CPU_AVX512DQ},
    {7, 0, EBX, 31, 0xe6, PF_CPU_AVX512VL},   {7, 0, ECX, 11, 0xe6, PF_CPU_AVX512VNNI},
    {7, 1, EAX, 5, 0xe6, PF_CPU_AVX512BF16},  {7, 1, EAX, 4, 0x06, PF_CPU_AVXVNNI},
    {7, 0, EDX, 24, 0x60000, PF_CPU_AMXTILE}, {7, 0, EDX, 22, 0x60000, PF_CPU_AMXBF16},
    {7, 0, EDX, 25, 0x60000, PF_CPU_AMXINT8},
};

#define ALL_AMX (PF_CPU_AMXTILE | PF_CPU_AMXBF16 | PF_CPU_AMXINT8)

/* Linux gives the tile registers to processes that ask (Documentation/arch/x86/xstate.rst). */
static int tiles_permitted(void) {
  enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
  return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}

/* What C stands in for in a build with --enable-emulation (simd/x86/emulate.h). */
static uint32_t emulated(uint32_t found) {
  uint32_t more = 0;
#ifdef PF_EMULATION
  if ((found & PF_CPU_LEVEL_AVX2) == PF_CPU_LEVEL_AVX2)
    more |= PF_CPU_AVXVNNI;
  if ((found & PF_CPU_LEVEL_AVX512) == PF_CPU_LEVEL_AVX512)
    more |= PF_CPU_AVX512VNNI | ALL_AMX;
#endif
  return found | more;
}

uint32_t pf_cpu_detect(void) {
  uint32_t r[4] = {0}, found = 0;
  __get_cpuid(1, &r[EAX], &r[EBX], &r[ECX], &r[EDX]);
  if (!(r[ECX] >> 27 & 1)) /* OSXSAVE: XCR0 can be read */
    return 0;
  uint64_t saved = xcr0();
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    memset(r, 0, sizeof r);
    if (table[i].sub) { /* EAX of leaf 7 says how many sub-leaves there are */
      __get_cpuid_count(table[i].leaf, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]);
      if (r[EAX] < table[i].sub)
        continue;
    }
    if (__get_cpuid_count(table[i].leaf, table[i].sub, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) &&
        (r[table[i].reg] >> table[i].bit & 1) && (saved & table[i].xcr0) == table[i].xcr0)
      found |= table[i].feature;
  }
  if ((found & ALL_AMX) && !tiles_permitted())
    found &= ~(uint32_t)ALL_AMX;
  return emulated(found);
}

void pf_cpu_detect_name(char *buf, size_t size) {
  uint32_t r[12] = {0};
  for (uint32_t i = 0; i < 3; i++)
    if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
      break;
  size_t n = size - 1 < sizeof r ? size - 1 : sizeof r;
  memcpy(buf, r, n);
  buf[n] = '\0';
}
#endif
