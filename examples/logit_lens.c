/* SPDX-License-Identifier: Apache-2.0
 * logit_lens MODEL TEXT: what the model would say after each layer (nostalgebraist, "interpreting
 * GPT: the logit lens", 2020): the residual that enters a layer, at the prompt's last position,
 * through the final norm and the unembedding. One line a layer: the best token, and the
 * log-probability (nats) of the token that the whole model answers with.
 *
 * Captures take the residuals in the prompt's own pass; a row that enters after the last layer
 * costs the final norm and its logits alone. */
#include <personaflow/personaflow.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct lens {
  const pf_model_info *i;
  pf_ctx *ctx;
  pf_seq *seq;
  pf_encoding prompt;
  size_t d, n;   /* width; residuals: one a layer, and the one that leaves the last */
  float *h;      /* (n, d) */
  pf_tap *taps;  /* (n) */
  pf_row *rows;  /* (n), or one a token */
  pf_score *say; /* (n) */
} lens;

/* A capture at the last position of what enters each layer and leaves the last. */
static int want_residuals(lens *l, const pf_model *m) {
  int32_t last = (int32_t)l->prompt.n - 1;
  int pre, post, rc;
  int32_t layer;
  rc = pf_hook_find(m, "blocks.0.hook_resid_pre", &pre, &layer);
  if (rc == PF_OK)
    rc = pf_hook_find(m, "blocks.0.hook_resid_post", &post, &layer);
  for (size_t k = 0; rc == PF_OK && k < l->n; k++)
    l->taps[k] = (pf_tap){.hook = k + 1 < l->n ? pre : post,
                          .layer = (int32_t)(k + 1 < l->n ? k : k - 1),
                          .head = -1,
                          .pos_lo = last,
                          .pos_hi = last + 1,
                          .op = PF_OP_CAPTURE,
                          .out = l->h + k * l->d};
  return rc == PF_OK ? pf_seq_set_taps(l->seq, l->taps, l->n) : rc;
}

static int read_prompt(lens *l) {
  for (size_t p = 0; p < l->prompt.n; p++)
    l->rows[p] = (pf_row){.seq = l->seq, .token = l->prompt.ids[p], .pos = (int32_t)p, .out = -1};
  return pf_eval(l->ctx, l->rows, l->prompt.n, NULL);
}

/* The last position's row again, once with each residual, after the last layer. Each needs a branch
 * of its own: a sequence has a position once in a call. */
static int score(lens *l, unsigned what, int32_t token) {
  int32_t last = (int32_t)l->prompt.n - 1;
  int rc = PF_OK;
  size_t made = 0;
  for (; rc == PF_OK && made < l->n; made++) {
    pf_seq *branch = NULL;
    rc = pf_seq_fork_layers(&branch, l->seq, last + 1, NULL);
    l->say[made].what = what;
    l->say[made].token = token;
    l->rows[made] = (pf_row){.seq = branch,
                             .token = l->prompt.ids[last],
                             .pos = last,
                             .out = -1,
                             .layer = l->i->n_layers,
                             .resid = l->h + made * l->d,
                             .score = &l->say[made]};
  }
  if (rc == PF_OK)
    rc = pf_eval(l->ctx, l->rows, l->n, NULL);
  for (size_t k = 0; k < made; k++)
    pf_seq_free(l->rows[k].seq);
  return rc;
}

/* A token's text in one line. */
static void print_text(const char *text, size_t n) {
  putchar('"');
  for (size_t i = 0; i < n; i++)
    if (text[i] == '\n')
      fputs("\\n", stdout);
    else
      putchar(text[i]);
  fputs("\"\n", stdout);
}

static int print(const lens *l, const pf_tok *t) {
  int rc = PF_OK;
  for (size_t k = 0; k < l->n && rc == PF_OK; k++) {
    char *text = NULL;
    size_t n;
    rc = pf_tok_decode(t, &l->say[k].best, 1, 1, &text, &n);
    if (rc != PF_OK)
      break;
    printf("layer %2zu  %8.4f  ", k, l->say[k].logprob);
    print_text(text, n);
    pf_text_free(text);
  }
  return rc;
}

static int run(lens *l, const pf_model *m, const pf_tok *t, const char *text) {
  pf_spans spans;
  int rc = pf_chat_prompt_make(t, &(pf_message){"user", text}, 1, 0, &l->prompt, &spans);
  if (rc != PF_OK)
    return rc;
  size_t rows = l->prompt.n > l->n ? l->prompt.n : l->n;
  l->h = calloc(l->n * l->d, sizeof *l->h);
  l->taps = calloc(l->n, sizeof *l->taps);
  l->say = calloc(l->n, sizeof *l->say);
  l->rows = calloc(rows, sizeof *l->rows);
  if (!l->h || !l->taps || !l->say || !l->rows)
    return PF_ENOMEM;
  rc = want_residuals(l, m);
  if (rc == PF_OK)
    rc = read_prompt(l);
  if (rc == PF_OK)
    rc = score(l, PF_SCORE_ARGMAX, 0);
  if (rc == PF_OK) /* the last layer's is what the model says */
    rc = score(l, PF_SCORE_ARGMAX | PF_SCORE_LOGPROB, l->say[l->n - 1].best);
  return rc == PF_OK ? print(l, t) : rc;
}

int main(int argc, char **argv) {
  if (argc != 3)
    return fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]), 2;
  pf_model *m = NULL;
  pf_tok *t = NULL;
  lens l = {0};
  int rc = pf_model_open(&m, argv[1], &(pf_model_opts){.no_checksum = 1});
  if (rc == PF_OK)
    rc = pf_tok_open(&t, pf_model_get_info(m)->dir);
  if (rc == PF_OK)
    rc = pf_ctx_new(&l.ctx, m, NULL);
  if (rc == PF_OK)
    rc = pf_seq_new(&l.seq, l.ctx);
  if (rc == PF_OK) {
    l.i = pf_model_get_info(m);
    l.d = (size_t)l.i->d_model;
    l.n = (size_t)l.i->n_layers + 1;
    rc = run(&l, m, t, argv[2]);
  }
  if (rc != PF_OK)
    fprintf(stderr, "%s: %s\n", argv[0], rc == PF_ENOMEM ? "out of memory" : pf_last_error());
  pf_encoding_free(&l.prompt);
  free(l.h);
  free(l.taps);
  free(l.say);
  free(l.rows);
  pf_seq_free(l.seq);
  pf_ctx_free(l.ctx);
  pf_tok_close(t);
  pf_model_close(m);
  return pf_exit_code(rc);
}
