/* SPDX-License-Identifier: Apache-2.0
 * patch_layers MODEL PERSONA TASK: activation patching, layer by layer. The residual that enters
 * layer l at the last position of "As PERSONA, TASK" is replaced by the one that the bare TASK has
 * at its last position; one line a layer: KL(clean || patched) of the next token, nats. KL(clean ||
 * bare), the last line, is what dropping the persona does altogether.
 *
 * Every layer is a branch that shares what the change leaves: all positions before the last one,
 * and of that one the layers below l. All branches go through the weights together, in one call. */
#include <personaflow/personaflow.h>
#include <stdio.h>
#include <stdlib.h>

/* A prompt's pass. */
typedef struct pass {
  pf_role_prompt p;
  pf_seq *seq;
  pf_tap *taps; /* (L) */
  float *h;     /* (L, d): what enters each layer at p_last */
  float *logits;
  pf_ref ref; /* of them */
} pass;

typedef struct bench {
  const pf_model_info *i;
  pf_ctx *ctx;
  int pre; /* hook id of "blocks.%d.hook_resid_pre" */
  size_t layers, d;
} bench;

static pf_tap tap_at(const bench *b, const pass *x, size_t layer, pf_op op) {
  return (pf_tap){.hook = b->pre,
                  .layer = (int32_t)layer,
                  .head = -1,
                  .pos_lo = x->p.p_last,
                  .pos_hi = x->p.p_last + 1,
                  .op = op};
}

static int read_prompt(const bench *b, pass *x) {
  size_t n = x->p.enc.n;
  pf_row *rows = calloc(n, sizeof *rows);
  if (!rows)
    return PF_ENOMEM;
  for (size_t k = 0; k < n; k++)
    rows[k] = (pf_row){
        .seq = x->seq, .token = x->p.enc.ids[k], .pos = (int32_t)k, .out = k + 1 == n ? 0 : -1};
  int rc = pf_eval(b->ctx, rows, n, x->logits);
  free(rows);
  pf_ref_make(&x->ref, x->logits, (size_t)b->i->vocab_size);
  return rc;
}

static int run_pass(const bench *b, pass *x) {
  x->taps = calloc(b->layers, sizeof *x->taps);
  x->h = calloc(b->layers * b->d, sizeof *x->h);
  x->logits = calloc((size_t)b->i->vocab_size, sizeof *x->logits);
  if (!x->taps || !x->h || !x->logits)
    return PF_ENOMEM;
  for (size_t l = 0; l < b->layers; l++) {
    x->taps[l] = tap_at(b, x, l, PF_OP_CAPTURE);
    x->taps[l].out = x->h + l * b->d;
  }
  int rc = pf_seq_new(&x->seq, b->ctx);
  if (rc == PF_OK)
    rc = pf_seq_set_taps(x->seq, x->taps, b->layers);
  return rc == PF_OK ? read_prompt(b, x) : rc;
}

static void pass_free(pass *x) {
  pf_seq_free(x->seq);
  pf_role_prompt_free(&x->p);
  free(x->taps);
  free(x->h);
  free(x->logits);
}

/* A branch of `clean` as far as the tap leaves it, and its one row. */
static int branch(const bench *b, const pass *clean, size_t layer, pf_tap *tap, pf_score *score,
                  pf_row *row) {
  int32_t n = clean->p.p_last + 1, *share = malloc((size_t)n * sizeof *share);
  if (!share)
    return PF_ENOMEM;
  for (int32_t k = 0; k < n; k++)
    share[k] = b->i->n_layers;
  pf_reach_taps(tap, 1, n, share); /* of the last position: the layers below the tap's */
  *score = (pf_score){.what = PF_SCORE_KL, .ref = &clean->ref};
  *row = (pf_row){.token = clean->p.enc.ids[n - 1],
                  .pos = n - 1,
                  .out = -1,
                  .layer = (int32_t)layer,
                  .resid = clean->h + layer * b->d,
                  .score = score};
  int rc = pf_seq_fork_layers(&row->seq, clean->seq, n, share);
  free(share);
  return rc == PF_OK ? pf_seq_set_taps(row->seq, tap, 1) : rc;
}

static int patch(const bench *b, const pass *clean, const pass *bare) {
  size_t n = b->layers;
  pf_tap *taps = calloc(n, sizeof *taps);
  pf_score *scores = calloc(n, sizeof *scores);
  pf_row *rows = calloc(n, sizeof *rows);
  int rc = taps && scores && rows ? PF_OK : PF_ENOMEM;
  for (size_t l = 0; l < n && rc == PF_OK; l++) {
    taps[l] = tap_at(b, clean, l, PF_OP_REPLACE);
    taps[l].value = bare->h + l * b->d;
    rc = branch(b, clean, l, &taps[l], &scores[l], &rows[l]);
  }
  if (rc == PF_OK)
    rc = pf_eval(b->ctx, rows, n, NULL);
  for (size_t l = 0; l < n && rc == PF_OK; l++)
    printf("layer %2zu  %.6f\n", l, scores[l].kl);
  if (rc == PF_OK)
    printf("bare      %.6f\n", pf_kl(clean->logits, bare->logits, (size_t)b->i->vocab_size));
  for (size_t l = 0; rows && l < n; l++)
    pf_seq_free(rows[l].seq);
  free(taps);
  free(scores);
  free(rows);
  return rc;
}

static int run(const pf_model *m, const pf_tok *t, const char *persona, const char *task) {
  static const char form[] = "As {persona}, {task}";
  pass clean = {0}, bare = {0};
  int32_t layer;
  bench b = {.i = pf_model_get_info(m)};
  b.layers = (size_t)b.i->n_layers;
  b.d = (size_t)b.i->d_model;
  int rc = pf_ctx_new(&b.ctx, m, NULL);
  if (rc == PF_OK)
    rc = pf_hook_find(m, "blocks.0.hook_resid_pre", &b.pre, &layer);
  if (rc == PF_OK)
    rc = pf_role_prompt_make(t, form, persona, task, &clean.p);
  if (rc == PF_OK)
    rc = pf_role_prompt_make(t, form, NULL, task, &bare.p);
  if (rc == PF_OK)
    rc = run_pass(&b, &clean);
  if (rc == PF_OK)
    rc = run_pass(&b, &bare);
  if (rc == PF_OK)
    rc = patch(&b, &clean, &bare);
  pass_free(&clean);
  pass_free(&bare);
  pf_ctx_free(b.ctx);
  return rc;
}

int main(int argc, char **argv) {
  if (argc != 4)
    return fprintf(stderr, "usage: %s MODEL PERSONA TASK\n", argv[0]), 2;
  pf_model *m = NULL;
  pf_tok *t = NULL;
  int rc = pf_model_open(&m, argv[1], &(pf_model_opts){.no_checksum = 1});
  if (rc == PF_OK)
    rc = pf_tok_open(&t, pf_model_get_info(m)->dir);
  if (rc == PF_OK)
    rc = run(m, t, argv[2], argv[3]);
  if (rc != PF_OK)
    fprintf(stderr, "%s: %s\n", argv[0], rc == PF_ENOMEM ? "out of memory" : pf_last_error());
  pf_tok_close(t);
  pf_model_close(m);
  return pf_exit_code(rc);
}
