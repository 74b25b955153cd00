/* SPDX-License-Identifier: Apache-2.0
 * The whole public interface of libpersonaflow. */
#ifndef PERSONAFLOW_H
#define PERSONAFLOW_H

#include "personaflow/analysis.h"
#include "personaflow/model.h"
#include "personaflow/profile.h"
#include "personaflow/regression.h"
#include "personaflow/stats.h"
#include "personaflow/tokenizer.h"
#include "personaflow/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the numerics contract (simd/CONTRACT.md): results of equal versions are equal in
 * every bit. */
#define PF_CONTRACT_VERSION 1

PF_API const char *pf_version(void);
PF_API int pf_contract_version(void);

#ifdef __cplusplus
}
#endif

#endif
