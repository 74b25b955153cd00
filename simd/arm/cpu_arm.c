/* SPDX-License-Identifier: Apache-2.0
 * CPU detection on aarch64: the kernel's HWCAP words. */
#include "simd/cpu.h"

#if defined(__aarch64__)
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

/* asm/hwcap.h of Linux; written out because older headers lack the later bits. */
#define HWCAP_BIT_ASIMD   (1ul << 1)
#define HWCAP_BIT_ASIMDDP (1ul << 20)
#define HWCAP2_BIT_I8MM   (1ul << 13)
#define HWCAP2_BIT_BF16   (1ul << 14)

uint32_t pf_cpu_detect(void) {
  unsigned long a = getauxval(AT_HWCAP), b = getauxval(AT_HWCAP2);
  return (a & HWCAP_BIT_ASIMD ? PF_CPU_NEON : 0u) | (a & HWCAP_BIT_ASIMDDP ? PF_CPU_DOTPROD : 0u) |
         (b & HWCAP2_BIT_I8MM ? PF_CPU_I8MM : 0u) | (b & HWCAP2_BIT_BF16 ? PF_CPU_BF16 : 0u);
}

/* "implementer 0x41 part 0xd40" of /proc/cpuinfo. */
void pf_cpu_detect_name(char *buf, size_t size) {
  unsigned implementer = 0, part = 0;
  char line[256];
  buf[0] = '\0';
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && fgets(line, sizeof line, f)) {
    sscanf(line, "CPU implementer : %x", &implementer);
    sscanf(line, "CPU part : %x", &part);
  }
  if (f)
    fclose(f);
  if (implementer)
    snprintf(buf, size, "aarch64 implementer 0x%02x part 0x%03x", implementer, part);
}
#endif
