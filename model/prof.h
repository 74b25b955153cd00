/* SPDX-License-Identifier: Apache-2.0
 * How the forward pass tells a profile what it does. Each thread of a parallel part has a lane; a
 * lap gives the time since the lane's last lap to a role, so that nothing of a thread's time is
 * lost or counted twice. */
#ifndef PF_MODEL_PROF_H
#define PF_MODEL_PROF_H

#include <stdbool.h>

#include "model/tap.h"
#include "personaflow/profile.h"

typedef enum pf_role_id {
#define PF_ROLE(id, with, name, what) PF_ROLE_##id,
#include "model/roles.def"
#undef PF_ROLE
  PF_N_PROF_ROLES
} pf_role_id;
/* Hook points follow the roles. */
enum { PF_PROF_ROWS = PF_N_PROF_ROLES + PF_N_HOOKS };

typedef struct pf_prof_cell {
  uint64_t ticks, calls;
  double flops, bytes;
} pf_prof_cell;

/* THE list of parallel parts, as timelines name them. PF_STAGE(id, name, role of what is left at
 * its end) */
#define PF_STAGES(PF_STAGE)                                                                        \
  PF_STAGE(ENTER, "embed", EMBED)                                                                  \
  PF_STAGE(ATTN_IN, "attn.in", OPERAND)                                                            \
  PF_STAGE(QKV, "attn.qkv_proj", V)                                                                \
  PF_STAGE(ROTATE, "attn.rope", STORE)                                                             \
  PF_STAGE(ATTEND, "attn.attend", SCORES)                                                          \
  PF_STAGE(ATTN_OUT, "attn.out", OPERAND)                                                          \
  PF_STAGE(O_PROJ, "attn.o_proj", O)                                                               \
  PF_STAGE(RESULTS, "attn.head_results", RESULT)                                                   \
  PF_STAGE(MLP_IN, "mlp.in", OPERAND)                                                              \
  PF_STAGE(GATE_UP, "mlp.gate_up_proj", UP)                                                        \
  PF_STAGE(ACT, "mlp.act", OPERAND)                                                                \
  PF_STAGE(DOWN, "mlp.down_proj", DOWN)                                                            \
  PF_STAGE(MLP_OUT, "mlp.out", RESID)                                                              \
  PF_STAGE(FINAL, "final.norm", OPERAND)                                                           \
  PF_STAGE(UNEMBED, "unembed", UNEMBED)                                                            \
  PF_STAGE(LOGITS, "logits", LOGITS)                                                               \
  PF_STAGE(KL, "scoring", SCORING)
typedef enum pf_stage {
#define PF_STAGE_ID(id, name, role) PF_STAGE_##id,
  PF_STAGES(PF_STAGE_ID)
#undef PF_STAGE_ID
      PF_N_STAGES
} pf_stage;

/* A call of the context begins or ends; on the calling thread. */
void pf_prof_call(pf_profile *p, bool begins);
/* pf_par of one stage. */
void pf_prof_par(pf_profile *p, int32_t layer, pf_stage stage, int threads,
                 void (*fn)(void *arg, int tid, int nt), void *arg);
/* Time since the lane's last lap; on a thread of a part. Rows: roles, then hook points. */
void pf_prof_lap(pf_profile *p, int32_t layer, int row);
/* Work that was or will be done; on any thread of a part, or between parts on the calling one. */
void pf_prof_work(pf_profile *p, int32_t layer, int row, double flops, double bytes);
/* Actions at a hook point interrupt the lap: begin gives a mark for end. */
uint64_t pf_prof_pause(void);
void pf_prof_resume(pf_profile *p, int32_t layer, int row, uint64_t mark);

#endif
