/* SPDX-License-Identifier: Apache-2.0
 * answer MODEL PERSONA TASK: the greedy answer to "As PERSONA, TASK", token by token as it comes.
 * The smallest whole program: a model, a tokeniser, a context, a sequence. */
#include <personaflow/personaflow.h>
#include <stdio.h>

enum { TOKENS = 40 };

/* Tokens may end inside a character: the decoder gives back what is whole. */
static int print_token(void *user, int32_t id, float logprob, float margin) {
  pf_decoder *d = user;
  const char *text;
  size_t n;
  (void)logprob, (void)margin;
  if (pf_decoder_push(d, id, &text, &n) != PF_OK)
    return 1;
  fwrite(text, 1, n, stdout);
  fflush(stdout);
  return 0;
}

static int answer(const pf_model *m, const pf_role_prompt *p, pf_decoder *d) {
  pf_ctx *ctx = NULL;
  pf_seq *seq = NULL;
  pf_ids out = {0};
  pf_gen_opts o;
  pf_gen_defaults(&o);
  o.max_tokens = TOKENS;
  o.on_token = print_token;
  o.user = d;
  int rc = pf_ctx_new(&ctx, m, NULL);
  if (rc == PF_OK)
    rc = pf_seq_new(&seq, ctx);
  if (rc == PF_OK)
    rc = pf_generate(seq, p->enc.ids, p->enc.n, &o, &out);
  putchar('\n');
  pf_ids_free(&out);
  pf_seq_free(seq);
  pf_ctx_free(ctx);
  return rc;
}

int main(int argc, char **argv) {
  if (argc != 4)
    return fprintf(stderr, "usage: %s MODEL PERSONA TASK\n", argv[0]), 2;
  pf_model *m = NULL;
  pf_tok *t = NULL;
  pf_decoder *d = NULL;
  pf_role_prompt p = {0};
  int rc = pf_model_open(&m, argv[1], &(pf_model_opts){.no_checksum = 1});
  if (rc == PF_OK)
    rc = pf_tok_open(&t, pf_model_get_info(m)->dir);
  if (rc == PF_OK)
    rc = pf_decoder_new(&d, t, 0);
  if (rc == PF_OK)
    rc = pf_role_prompt_make(t, "As {persona}, {task}", argv[2], argv[3], &p);
  if (rc == PF_OK)
    rc = answer(m, &p, d);
  if (rc != PF_OK)
    fprintf(stderr, "%s: %s\n", argv[0], pf_last_error());
  pf_role_prompt_free(&p);
  pf_decoder_free(d);
  pf_tok_close(t);
  pf_model_close(m);
  return pf_exit_code(rc);
}
