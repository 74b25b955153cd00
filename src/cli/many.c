/* SPDX-License-Identifier: Apache-2.0
 * personaflow generate --prompts: a file of prompts, JSON Lines in and out. */
#include "cli/many.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_penalty(const char *text, const pf_model_info *i, pf_gen_opts *o) {
  if (text && !strcmp(text, "config"))
    o->repetition_penalty = i->repetition_penalty;
  else if (text &&
           !cli_real("generate", "--repetition-penalty", text, 1e-6, 1e6, &o->repetition_penalty))
    return 2;
  return 0;
}

/* What went wrong is in *user, an errno. */
static int write_line(void *user, const char *line, size_t n) {
  if (fwrite(line, 1, n, stdout) == n && fflush(stdout) == 0)
    return PF_OK;
  *(int *)user = errno;
  return PF_EIO;
}

static int read_prompts(const cli_many *a, const char *dir, pf_batch **out) {
  size_t n;
  char *text = cli_read_text(a->prompts, &n);
  if (!text)
    return 3;
  int st = pf_batch_read(out, dir, cli_text_name(a->prompts), text, n);
  free(text);
  if (st == PF_OK && a->out_dir && !a->resume && !a->force)
    st = pf_batch_look(a->out_dir);
  return st == PF_OK ? 0 : cli_fail(st);
}

static void say_done(const pf_many_stats *s, double seconds) {
  fprintf(stderr,
          "%llu tokens in %.1f s, %.1f a second, %zu prompts at a time; %.1f MB of K,V and logits; "
          "%llu of %llu prompt tokens computed\n",
          (unsigned long long)s->generated, seconds, (double)s->generated / seconds, s->in_flight,
          (double)s->memory_peak / 1e6, (unsigned long long)s->prompt_rows,
          (unsigned long long)s->prompt_tokens);
}

static int run(const cli_many *a, const pf_batch *p, const pf_model *m) {
  int broken = 0;
  pf_many_stats stats = {0};
  pf_batch_opts o = {.gen = a->gen,
                     .batch = (size_t)a->batch,
                     .memory = (size_t)a->memory,
                     .threads = a->threads,
                     .out_dir = a->out_dir,
                     .resume = a->resume,
                     .force = a->force,
                     .write = a->out_dir ? NULL : write_line,
                     .write_user = &broken,
                     .progress = a->quiet ? NULL : cli_progress,
                     .stop = cli_stop_on_signals()};
  int rc = cli_penalty(a->penalty, pf_model_get_info(m), &o.gen);
  if (rc != 0)
    return rc;
  double start = cli_now();
  int st = pf_batch_run(p, m, &o, &stats);
  if (broken) {
    fprintf(stderr, "personaflow: standard output: cannot write: %s\n", strerror(broken));
    return 3;
  }
  if (st == PF_OK && !a->quiet && stats.generated)
    say_done(&stats, cli_now() - start);
  return st == PF_OK ? 0 : cli_fail(st);
}

/* A folder keeps results: they are those of the weights whose checksum it names. */
static int with_model(const cli_many *a, const pf_batch *p, const char *model) {
  pf_model *m = NULL;
  pf_model_opts mo = {.threads = a->threads,
                      .no_checksum = !a->out_dir,
                      .progress = a->quiet ? NULL : cli_progress,
                      .precision = a->precision};
  int st = pf_model_open(&m, model, &mo);
  int rc = st == PF_OK ? run(a, p, m) : cli_fail(st);
  pf_model_close(m);
  return rc;
}

int cli_many_run(const cli_many *a, const char *model) {
  char dir[4096];
  pf_batch *p = NULL;
  int st = pf_model_resolve(model, dir, sizeof dir);
  int rc = st == PF_OK ? read_prompts(a, dir, &p) : cli_fail(st);
  if (rc == 0)
    rc = with_model(a, p, model);
  pf_batch_free(p);
  return rc;
}
