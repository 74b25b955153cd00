/* SPDX-License-Identifier: Apache-2.0
 * Opening and closing a model. */
#include "model/internal.h"

#include "base/mem.h"
#include "base/status.h"

/* Int8 weights can be run as such only: the others are gone. */
static int choose_precision(pf_model *m, pf_precision asked) {
  pf_model_info *in = &m->cfg.info;
  bool quantised = m->cfg.s8_group > 0;
  if ((unsigned)asked >= PF_N_PRECISIONS)
    return pf_fail(PF_EUSAGE, "%s: precision %d does not exist", in->dir, (int)asked);
  if (asked == PF_PRECISION_AUTO)
    asked = quantised ? PF_PRECISION_INT8 : PF_PRECISION_F32;
  if (quantised && asked != PF_PRECISION_INT8)
    return pf_fail(PF_EUSAGE,
                   "%s: its weights are int8: they run in precision int8, not in %s; take the "
                   "model that it was made from",
                   in->dir, pf_precision_name(asked));
  in->precision = asked;
  if (asked == PF_PRECISION_INT8)
    in->s8_group = quantised ? m->cfg.s8_group : PF_S8_GROUP;
  return PF_OK;
}

int pf_model_open_config(pf_model **out, const char *path) {
  char dir[sizeof((pf_config *)0)->dir];
  *out = NULL;
  int rc = pf_resolve_dir(path, dir, sizeof dir);
  if (rc != PF_OK)
    return rc;
  pf_model *m = pf_calloc(1, sizeof *m);
  if (!m)
    return PF_ENOMEM;
  rc = pf_config_read(&m->cfg, dir);
  if (rc == PF_OK)
    rc = pf_hook_table_make(&m->hooks, &m->cfg);
  if (rc == PF_OK)
    rc = choose_precision(m, PF_PRECISION_AUTO);
  if (rc == PF_OK)
    *out = m;
  else
    pf_model_close(m);
  return rc;
}

int pf_model_open(pf_model **out, const char *path, const pf_model_opts *opts) {
  int rc = pf_model_open_config(out, path);
  if (rc == PF_OK && opts)
    rc = choose_precision(*out, opts->precision);
  if (rc == PF_OK)
    rc = pf_weights_load(*out, opts);
  if (rc != PF_OK) {
    pf_model_close(*out);
    *out = NULL;
  }
  return rc;
}

void pf_model_close(pf_model *m) {
  if (!m)
    return;
  pf_weights_free(m);
  pf_hook_table_free(&m->hooks);
  pf_config_free(&m->cfg);
  pf_free(m);
}

const pf_model_info *pf_model_get_info(const pf_model *m) {
  return &m->cfg.info;
}

const pf_tensor_info *pf_model_tensors(const pf_model *m, size_t *n) {
  *n = m->n_tensors;
  return m->tensors;
}

int pf_model_resolve(const char *path, char *buf, size_t size) {
  return pf_resolve_dir(path, buf, size);
}
