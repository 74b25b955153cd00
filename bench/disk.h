/* SPDX-License-Identifier: Apache-2.0
 * What the files of a checkpoint can be read with, and what memory costs: the measures of a loader.
 */
#ifndef PF_BENCH_DISK_H
#define PF_BENCH_DISK_H

#include <stdbool.h>
#include <stddef.h>

#include "model/weights.h"

/* Bytes of all files. */
double pf_disk_bytes(const pf_ckpt *k);
/* Writes back and drops the pages of every file. */
void pf_disk_drop(const pf_ckpt *k);
/* Seconds in which one thread reads the files one after the other into one buffer of 4 MiB, as dd
 * does; direct: past the page cache. Negative: they cannot be read. */
double pf_disk_read(const pf_ckpt *k, bool direct);
/* Seconds in which `threads` read all of the files by pread into a buffer of their own size: fresh
 * memory in huge pages, as the loader's. Negative as above. */
double pf_disk_pread(const pf_ckpt *k, int threads);
/* Seconds to touch fresh memory in huge pages, one byte a page: what any loader that fills its own
 * memory pays at least. */
double pf_memory_touch(size_t bytes);

/* Resident memory of the process since the last reset, bytes. */
double pf_memory_peak(void);
void pf_memory_peak_reset(void);
/* Bytes of the mapping at p that stand in huge pages; negative: not known. */
double pf_memory_huge(const void *p);

#endif
