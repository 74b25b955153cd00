/* SPDX-License-Identifier: Apache-2.0
 * The checksum of loaded weights: SHA-256 over one line a tensor, "name dtype shape sha256\n" in
 * name order (shape as "2304,2048"), where sha256 is that of the tensor's bytes as published. Kept
 * in a cache file
 * ${XDG_CACHE_HOME:-~/.cache}/personaflow/weights-<key>.txt whose key is made of every file's
 * device, inode, size and times, so that an unchanged checkpoint is not hashed again. */
#ifndef PF_MODEL_DIGEST_H
#define PF_MODEL_DIGEST_H

#include "model/weights.h"

/* True when the cache knows these files; the digest is then in hex, and each tensor's in its want.
 */
bool pf_digest_cached(char hex[65], pf_wants *w, const pf_ckpt *k);
/* From the tensors' own digests (pf_want.sha256); remembered if the cache can be written. */
int pf_digest_make(char hex[65], const pf_wants *w, const pf_ckpt *k);

#endif
