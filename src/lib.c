/* SPDX-License-Identifier: Apache-2.0
 * Version of the library and of the numerics contract. */
#include "personaflow/personaflow.h"

#include "config.h"

const char *pf_version(void) {
  return PACKAGE_VERSION;
}

int pf_contract_version(void) {
  return PF_CONTRACT_VERSION;
}
