/* SPDX-License-Identifier: Apache-2.0
 * personaflow capture MODEL: values at hook points of one prompt, as safetensors or .npy, and
 * what they come from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/capfile.h"
#include "cli/prompt.h"

static const char usage[] =
    "usage: personaflow capture MODEL PROMPT --hooks NAMES --out FILE.safetensors|DIR [OPTIONS]\n"
    "Writes the values at hook points of a prompt.\n";

static const char after[] =
    "Rows are [pos, ...] in the hook's own order; a hook over keys has one "
    "column a key position.\nThe file's metadata (capture.json in a folder) says "
    "what they come from: checksums\nof weights, tokenizer and prompt, the "
    "token ids, positions, interventions.\n";

typedef struct cap {
  cli_prompt prompt;
  cli_ready ready;
  const char *hooks, *positions, *interventions;
  cli_capfile file;
  pf_interventions *iv; /* NULL: none */
  int quiet, threads;
  pf_precision precision;
  pf_span span;
  pf_tap *taps;
  pf_tensor *tensors;
  size_t n, room;
} cap;

#define AT(field) .at = offsetof(cap, field)
static const char *const formats[] = {"safetensors", "npy", NULL};
static const cli_opt opts[] = {
    CLI_PROMPT_OPTIONS(cap, prompt),
    {"options:", .kind = CLI_HEADING},
    {"hooks", 0, "A,B,...",
     "hook points; '*' in the place of the layer takes every layer (blocks.*.hook_resid_post); "
     "'personaflow hooks MODEL' lists them",
     CLI_TEXT, AT(hooks)},
    {"positions", 0, "P", "12, -1 (from the end), 3:7, 3:, persona, task[0:3] ... (all)", CLI_TEXT,
     AT(positions)},
    {"interventions", 0, "FILE",
     "edits, cuts and swaps (doc/INTERVENTIONS.md; - for standard input)", CLI_TEXT,
     AT(interventions)},
    {"format", 0, "F", "safetensors (default; one file) or npy (a folder, one file a hook)",
     CLI_WORD, AT(file.npy), .words = formats},
    {"out", 0, "FILE|DIR", "where the values go; it appears when it is whole", CLI_TEXT,
     AT(file.out)},
    {"force", 0, NULL,
     "write over what is there; of a folder its .npy files of hooks, and nothing else may be in it",
     CLI_FLAG, AT(file.force)},
    CLI_THREADS(cap, threads),
    CLI_PRECISIONS(cap, precision),
    {"quiet", 0, NULL, "no progress, no echo of positions", CLI_FLAG, AT(quiet)},
    {0}};
#undef AT

/* An exit code; 0: go on. */
static int check(const cap *c, int models) {
  if (models != 1)
    return cli_usage("capture", "one MODEL is wanted");
  if (!c->hooks || !c->file.out)
    return cli_usage("capture", "--hooks and --out are wanted");
  if (!strcmp(c->file.out, "-"))
    return cli_usage("capture",
                     "--out wants a file or a folder: values do not go to standard output");
  return cli_capfile_check(&c->file);
}

static const pf_hook_info *info_of(const pf_model *m, int id) {
  size_t n;
  const pf_hook_info *h = pf_hooks(m, &n);
  while (h->id != id)
    h++;
  return h;
}

/* Shape [pos], [pos, heads, width] or [pos, width] of one capture, its memory, its tap. */
static int add_tensor(cap *c, const pf_model *m, const char *name, int id, int32_t layer) {
  const pf_hook_info *h = info_of(m, id);
  if (c->n == c->room) {
    size_t room = c->room ? 2 * c->room : 16;
    pf_tap *a = realloc(c->taps, room * sizeof *a);
    c->taps = a ? a : c->taps;
    pf_tensor *b = realloc(c->tensors, room * sizeof *b);
    c->tensors = b ? b : c->tensors;
    if (!a || !b)
      return fputs("personaflow: out of memory\n", stderr), 5;
    c->room = room;
  }
  pf_tensor t = {.name = strdup(name)};
  size_t keys = (size_t)c->span.hi, width = h->width < 0 ? keys : (size_t)h->width;
  t.dims[t.n_dims++] = (size_t)(c->span.hi - c->span.lo);
  if (h->heads)
    t.dims[t.n_dims++] = (size_t)h->heads;
  t.dims[t.n_dims++] = width;
  size_t row = width * (h->heads ? (size_t)h->heads : 1);
  t.data = calloc(t.dims[0], row * sizeof *t.data);
  c->taps[c->n] = (pf_tap){.hook = id,
                           .layer = layer,
                           .head = -1,
                           .pos_lo = c->span.lo,
                           .pos_hi = c->span.hi,
                           .op = PF_OP_CAPTURE,
                           .out = t.data,
                           .out_stride = row,
                           .n_keys = h->width < 0 ? (int32_t)keys : 0};
  c->tensors[c->n++] = t;
  return t.data && t.name ? 0 : (fputs("personaflow: out of memory\n", stderr), 5);
}

static bool has_name(const cap *c, const char *name) {
  for (size_t i = 0; i < c->n; i++)
    if (!strcmp(c->tensors[i].name, name))
      return true;
  return false;
}

static int add_one(cap *c, const pf_model *m, const char *name) {
  int id;
  int32_t layer;
  if (has_name(c, name)) /* two tensors of one name would make a file nobody can read */
    return 0;
  int st = pf_hook_find(m, name, &id, &layer);
  return st == PF_OK ? add_tensor(c, m, name, id, layer) : cli_fail(st);
}

/* One name of --hooks, '*' in it taken as every layer. */
static int add_name(cap *c, const pf_model *m, const char *name) {
  char one[256];
  const char *star = strchr(name, '*');
  int32_t layers = pf_model_get_info(m)->n_layers, layer;
  int rc = 0, id;
  if (!star)
    return add_one(c, m, name);
  for (int32_t l = 0; rc == 0 && l <= layers; l++) {
    snprintf(one, sizeof one, "%.*s%d%s", (int)(star - name), name, (int)l, star + 1);
    if (l < layers || pf_hook_find(m, one, &id, &layer) == PF_OK) /* hidden_states has one more */
      rc = add_one(c, m, one);
  }
  return rc;
}

#define BETWEEN ", \t\n" /* names */

static int add_names(cap *c, const pf_model *m) {
  char *list = strdup(c->hooks), *save = NULL;
  int rc = list ? 0 : 5;
  for (char *name = list ? strtok_r(list, BETWEEN, &save) : NULL; name && rc == 0;
       name = strtok_r(NULL, BETWEEN, &save))
    rc = add_name(c, m, name);
  free(list);
  if (rc == 0 && c->n == 0)
    rc = cli_usage("capture", "--hooks names no hook point");
  return rc;
}

/* Both the interventions' actions and the captures act at the sequence's points: edits first. Rows
 * go no further than the last of them. */
static int evaluate(cap *c, const pf_model *m, pf_ctx *ctx, pf_seq *seq) {
  size_t n = c->interventions ? c->ready.ids.n : (size_t)c->span.hi, n_edit = 0;
  const pf_tap *edits = NULL;
  int st = PF_OK;
  if (c->interventions) {
    st = cli_interventions(c->interventions, m, ctx, &c->ready, seq, &c->iv);
    edits = st == PF_OK ? pf_interventions_taps(c->iv, &n_edit) : NULL;
  }
  pf_tap *all = calloc(n_edit + c->n, sizeof *all);
  pf_row *rows = calloc(n, sizeof *rows);
  for (size_t i = 0; rows && i < n; i++)
    rows[i] = (pf_row){.seq = seq, .token = c->ready.ids.v[i], .pos = (int32_t)i, .out = -1};
  if (st == PF_OK && all && rows) {
    if (n_edit)
      memcpy(all, edits, n_edit * sizeof *all);
    memcpy(all + n_edit, c->taps, c->n * sizeof *all);
    st = pf_seq_set_taps(seq, all, n_edit + c->n);
    if (st == PF_OK)
      st = pf_seq_set_stop(seq, pf_reach_stop(all, n_edit + c->n, pf_model_get_info(m)->n_layers));
    if (st == PF_OK)
      st = pf_eval(ctx, rows, n, NULL);
    if (st == PF_OK && c->iv)
      st = pf_interventions_check_edges(c->iv);
  }
  int rc = st != PF_OK ? cli_fail(st) : !all || !rows ? 5 : 0;
  char name[96];
  for (size_t i = 0; rc == 0 && i < n_edit + c->n; i++)
    if (all[i].fired == 0)
      rc = (fprintf(stderr, "personaflow: %s never fired: no row at its positions\n",
                    pf_hook_spell(info_of(m, all[i].hook), all[i].layer, name, sizeof name)),
            3);
  pf_seq_set_taps(seq, NULL, 0);
  free(all);
  free(rows);
  return rc;
}

/* The lines of the interventions, which the values depend on. */
static int add_lines(pf_origin *o, const pf_interventions *iv) {
  size_t n = 0;
  char *text = NULL;
  FILE *f = open_memstream(&text, &n);
  const char *line;
  for (size_t i = 0; f && iv && (line = pf_interventions_line(iv, i)); i++)
    fprintf(f, "%s%s", i ? "\n" : "", line);
  int st = f && fclose(f) == 0 ? PF_OK : PF_ENOMEM;
  if (st == PF_OK && iv)
    st = pf_origin_add(o, "interventions", text);
  free(text);
  return st;
}

static int write_out(const cap *c, const pf_model *m) {
  pf_origin *o;
  const char *tok = c->ready.tok ? pf_tok_sha256(c->ready.tok) : NULL;
  int st = pf_origin_new(&o, m, tok, c->ready.ids.v, c->ready.ids.n, c->span);
  if (st == PF_OK)
    st = add_lines(o, c->iv);
  int rc = st == PF_OK ? cli_capfile_write(&c->file, c->tensors, c->n, pf_origin_pairs(o))
                       : cli_fail(st);
  pf_origin_free(o);
  return rc;
}

static int resolve_span(cap *c) {
  c->span = (pf_span){0, (int32_t)c->ready.ids.n};
  int st = c->positions ? pf_positions_parse(c->positions, &c->ready.spans, &c->span) : PF_OK;
  if (st != PF_OK)
    return cli_fail(st);
  if (c->span.hi == INT32_MAX) /* "3:": capture runs the prompt only */
    c->span.hi = (int32_t)c->ready.ids.n;
  if (c->span.hi > (int32_t)c->ready.ids.n || c->span.lo >= c->span.hi)
    return cli_usage("capture", "--positions %s is not in the prompt's %zu tokens",
                     c->positions ? c->positions : "", c->ready.ids.n);
  return 0;
}

static int run(cap *c, const pf_model *m) {
  pf_ctx *ctx = NULL;
  pf_seq *seq = NULL;
  pf_ctx_opts o = {.threads = c->threads, .keep_raw_k = c->interventions != NULL};
  int st = pf_ctx_new(&ctx, m, &o);
  if (st == PF_OK)
    st = pf_seq_new(&seq, ctx);
  if (!c->quiet)
    fprintf(stderr, "positions %d..%d of %zu\n", (int)c->span.lo, (int)c->span.hi - 1,
            c->ready.ids.n);
  int rc = st == PF_OK ? evaluate(c, m, ctx, seq) : cli_fail(st);
  if (rc == 0)
    rc = write_out(c, m);
  pf_interventions_free(c->iv);
  pf_seq_free(seq);
  pf_ctx_free(ctx);
  return rc;
}

static int with_model(cap *c, const char *name) {
  char dir[4096];
  pf_model *m = NULL;
  int st = pf_model_resolve(name, dir, sizeof dir);
  if (st != PF_OK)
    return cli_fail(st);
  int rc = cli_capfile_look(&c->file, dir);
  if (rc == 0)
    rc = cli_prompt_make("capture", &c->prompt, dir, &c->ready);
  if (rc == 0)
    rc = resolve_span(c);
  pf_model_opts mo = {
      .threads = c->threads, .progress = c->quiet ? NULL : cli_progress, .precision = c->precision};
  if (rc == 0 && (st = pf_model_open(&m, name, &mo)) != PF_OK)
    rc = cli_fail(st);
  if (rc == 0)
    rc = add_names(c, m);
  if (rc == 0)
    rc = run(c, m);
  pf_model_close(m);
  return rc;
}

int cmd_capture(int argc, char **argv) {
  cap c = {0};
  int rc;
  if (!cli_options(&(cli_command){"capture", usage, opts, after}, &c, argc, argv, &rc) ||
      (rc = check(&c, argc - optind)) != 0)
    return rc;
  rc = with_model(&c, argv[optind]);
  for (size_t i = 0; i < c.n; i++) {
    free(c.tensors[i].name);
    free(c.tensors[i].data);
  }
  free(c.taps);
  free(c.tensors);
  cli_ready_free(&c.ready);
  return rc;
}
