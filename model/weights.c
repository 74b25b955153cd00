/* SPDX-License-Identifier: Apache-2.0
 * The weights of a checkpoint directory: every tensor that the configuration calls for is found,
 * checked, read and packed. Memory: one arena of packed weights and a bounded staging area a
 * thread; no file is mapped.
 *
 * Work is a list of jobs (a tensor, or a run of its rows). A thread takes a job, keeps a queue of
 * reads ahead of itself and packs the oldest block as it comes in. A SHA-256 needs its tensor in
 * order, so while digests are made a job is a whole tensor. */
#include "model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/aio.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/digest.h"
#include "model/pack.h"
#include "model/precision.h"

#define BLOCK     ((size_t)512 << 10) /* bytes of a read, unless 16 rows are longer */
#define STAGING   ((size_t)48 << 20)  /* of all threads together */
#define DEPTH     64                  /* reads in flight, of all threads together */
#define JOB_BYTES ((size_t)16 << 20)  /* when tensors may be split */
#define PAGE      ((size_t)4096) /* reads start and end on this, as the page cache and the disk do */

/* ---- what the configuration calls for
 * ---------------------------------------------------------------------------- */

enum { D_VEC, D_MODEL, D_FF, D_VOCAB, D_Q, D_KV }; /* D_VEC as columns: a vector */
enum { GEMMA = 1 << PF_GEMMA2, QWEN = 1 << PF_QWEN2, BOTH = GEMMA | QWEN };

typedef struct spec {
  const char *name;
  size_t off; /* of the pf_mat or float* in pf_layer or pf_model */
  int rows, cols;
  unsigned archs;
} spec;

enum { FLOATS = 1 << PF_DT_BF16 | 1 << PF_DT_F16 | 1 << PF_DT_F32 };

#define L(m) offsetof(pf_layer, m)
static const spec layer_specs[] = {
    {"input_layernorm.weight", L(ln1), D_MODEL, D_VEC, BOTH},
    {"post_attention_layernorm.weight", L(ln1_post), D_MODEL, D_VEC, GEMMA},
    {"pre_feedforward_layernorm.weight", L(ln2), D_MODEL, D_VEC, GEMMA},
    {"post_feedforward_layernorm.weight", L(ln2_post), D_MODEL, D_VEC, GEMMA},
    {"post_attention_layernorm.weight", L(ln2), D_MODEL, D_VEC, QWEN},
    {"self_attn.q_proj.weight", L(q), D_Q, D_MODEL, BOTH},
    {"self_attn.k_proj.weight", L(k), D_KV, D_MODEL, BOTH},
    {"self_attn.v_proj.weight", L(v), D_KV, D_MODEL, BOTH},
    {"self_attn.q_proj.bias", L(bq), D_Q, D_VEC, QWEN},
    {"self_attn.k_proj.bias", L(bk), D_KV, D_VEC, QWEN},
    {"self_attn.v_proj.bias", L(bv), D_KV, D_VEC, QWEN},
    {"self_attn.o_proj.weight", L(o), D_MODEL, D_Q, BOTH},
    {"mlp.gate_proj.weight", L(gate), D_FF, D_MODEL, BOTH},
    {"mlp.up_proj.weight", L(up), D_FF, D_MODEL, BOTH},
    {"mlp.down_proj.weight", L(down), D_MODEL, D_FF, BOTH},
};
#undef L
#define M(m) offsetof(struct pf_model, m)
static const spec embed_spec = {"model.embed_tokens.weight", M(embed), D_VOCAB, D_MODEL, BOTH};
static const spec norm_spec = {"model.norm.weight", M(ln_final), D_MODEL, D_VEC, BOTH};
static const spec head_spec = {"lm_head.weight", M(unembed), D_VOCAB, D_MODEL, BOTH};
#undef M

static size_t dim(const pf_model_info *in, int d) {
  switch (d) {
  case D_MODEL:
    return (size_t)in->d_model;
  case D_FF:
    return (size_t)in->d_ff;
  case D_VOCAB:
    return (size_t)in->vocab_size;
  case D_Q:
    return (size_t)in->n_heads * (size_t)in->d_head;
  case D_KV:
    return (size_t)in->n_kv_heads * (size_t)in->d_head;
  default:
    return 0;
  }
}

static pf_role role_of(const spec *s, const pf_model_info *in) {
  if (s->cols == D_VEC)
    return PF_VECTOR;
  return s == &embed_spec && !in->tied ? PF_TABLE : PF_WEIGHT;
}

static void want(pf_wants *w, const pf_config *c, const spec *s, int layer, void *base) {
  pf_want *t = &w->v[w->n++];
  *t = (pf_want){.rows = dim(&c->info, s->rows),
                 .cols = dim(&c->info, s->cols),
                 .role = role_of(s, &c->info),
                 .dtypes = FLOATS};
  if (layer < 0)
    snprintf(t->name, sizeof t->name, "%s", s->name);
  else
    snprintf(t->name, sizeof t->name, "model.layers.%d.%s", layer, s->name);
  t->dst = base ? (char *)base + s->off : NULL;
  if (!c->s8_group || t->role != PF_WEIGHT)
    return;
  t->dtypes = 1 << PF_DT_I8;
  pf_want *scales = &w->v[w->n++];
  *scales = *t;
  strcat(scales->name, ".scale"); /* the longest name has 64 bytes */
  scales->role = PF_SCALES;
  scales->dtypes = 1 << PF_DT_F32;
  scales->cols = pf_s8_scales(t->cols, (size_t)c->s8_group);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const pf_want *)a)->name, ((const pf_want *)b)->name);
}

int pf_wants_make(pf_wants *w, const pf_config *c, pf_model *m) {
  size_t n_specs = sizeof layer_specs / sizeof *layer_specs, layers = (size_t)c->info.n_layers;
  *w = (pf_wants){0};
  if (!(w->v = pf_calloc(2 * (layers * n_specs + 3), sizeof *w->v)))
    return PF_ENOMEM;
  want(w, c, &embed_spec, -1, m);
  want(w, c, &norm_spec, -1, m);
  if (!c->info.tied)
    want(w, c, &head_spec, -1, m);
  for (size_t l = 0; l < layers; l++)
    for (size_t i = 0; i < n_specs; i++)
      if (layer_specs[i].archs >> c->arch & 1u)
        want(w, c, &layer_specs[i], (int)l, m ? &m->layers[l] : NULL);
  qsort(w->v, w->n, sizeof *w->v, by_name);
  return PF_OK;
}

void pf_wants_free(pf_wants *w) {
  pf_free(w->v);
  *w = (pf_wants){0};
}

static pf_want *find_want(pf_wants *w, const char *name) {
  pf_want key;
  snprintf(key.name, sizeof key.name, "%s", name);
  return bsearch(&key, w->v, w->n, sizeof *w->v, by_name);
}

/* ---- the checkpoint's tensors against it
 * ------------------------------------------------------------------------- */

/* Buffers that older files carry and nobody reads; the unembedding of a tied model is the
 * embedding (match_tied looks at it). */
static bool ignorable(const char *name, const pf_model_info *in) {
  const char *dot = strrchr(name, '.');
  if (!strcmp(name, head_spec.name))
    return in->tied;
  return dot && (!strcmp(dot, ".inv_freq") || !strcmp(dot, ".masked_bias"));
}

static const char *shape_text(const pf_st_tensor *t, char buf[96]) {
  size_t n = 0;
  buf[0] = '\0';
  for (size_t i = 0; i < t->n_dims && n < 80; i++)
    n += (size_t)snprintf(buf + n, 96 - n, "%s%llu", i ? "," : "", (unsigned long long)t->shape[i]);
  return buf;
}

static int check_dtype(const pf_want *w, const pf_shard *f, const pf_st_tensor *t) {
  if (w->dtypes >> t->dtype & 1u)
    return PF_OK;
  if (w->dtypes == FLOATS)
    return pf_fail(PF_EINPUT,
                   "%s: tensor %s has dtype %s: only BF16, F16 and F32 weights are supported",
                   f->path, t->name, t->dtype_name);
  return pf_fail(PF_EINPUT, "%s: tensor %s has dtype %s, quantised weights have %s there", f->path,
                 t->name, t->dtype_name, w->role == PF_SCALES ? "F32" : "I8");
}

static int check_tensor(pf_want *w, const pf_shard *f, const pf_st_tensor *t) {
  char got[96];
  int rc = check_dtype(w, f, t);
  if (rc != PF_OK)
    return rc;
  bool same = t->n_dims == (w->cols ? 2 : 1) && t->shape[0] == w->rows &&
              (!w->cols || t->shape[1] == w->cols);
  if (same) {
    w->src = t;
    w->file = f;
    return PF_OK;
  }
  char expect[64];
  snprintf(expect, sizeof expect, w->cols ? "%zu,%zu" : "%zu", w->rows, w->cols);
  return pf_fail(PF_EINPUT,
                 "%s: tensor %s has shape [%s], the configuration asks for [%s]: config.json and "
                 "weights do not "
                 "belong together",
                 f->path, t->name, shape_text(t, got), expect);
}

/* The unembedding that the files of a tied model hold besides: Hugging Face uses it as it stands
 * where it differs from the embedding, and in the place of an embedding that is missing. */
static int match_tied(pf_wants *w, const pf_ckpt *k) {
  pf_want *embed = find_want(w, embed_spec.name);
  const pf_st_tensor *head = NULL;
  bool same;
  size_t f = 0;
  while (f < k->n && !(head = pf_st_find(&k->f[f].st, head_spec.name)))
    f++;
  if (!head)
    return PF_OK;
  if (!embed->src)
    return check_tensor(embed, &k->f[f], head);
  int rc = pf_ckpt_same(embed->file, embed->src, &k->f[f], head, &same);
  if (rc == PF_OK && !same)
    rc = pf_fail(PF_EINPUT,
                 "%s: tensor %s differs from %s, but config.json says that they are one: if the "
                 "model was trained so, set tie_word_embeddings to false there, else fetch or "
                 "export the model again",
                 k->f[f].path, head->name, embed->name);
  return rc;
}

int pf_wants_match(pf_wants *w, const pf_ckpt *k, const pf_model_info *in) {
  for (size_t f = 0; f < k->n; f++)
    for (size_t i = 0; i < k->f[f].st.n; i++) {
      const pf_st_tensor *t = &k->f[f].st.t[i];
      pf_want *x = find_want(w, t->name);
      int rc = PF_OK;
      if (x && x->src)
        rc = pf_fail(PF_EINPUT, "%s: tensor %s is in another file of the checkpoint too",
                     k->f[f].path, t->name);
      else if (x)
        rc = check_tensor(x, &k->f[f], t);
      else if (!ignorable(t->name, in))
        rc = pf_fail(PF_EINPUT, "%s: tensor %s does not belong to a %s model with this config.json",
                     k->f[f].path, t->name, in->arch);
      if (rc != PF_OK)
        return rc;
    }
  int rc = in->tied ? match_tied(w, k) : PF_OK;
  if (rc != PF_OK)
    return rc;
  for (size_t i = 0; i < w->n; i++)
    if (!w->v[i].src)
      return pf_fail(
          PF_EINPUT,
          "%s: tensor %s is missing from the checkpoint: config.json and weights do not belong "
          "together, or a file is missing",
          in->dir, w->v[i].name);
  return PF_OK;
}

/* ---- memory
 * ------------------------------------------------------------------------------------------------------
 */

/* How a matrix is stored: weights of products as the precision says, a table as in f32 unless all
 * weights are rounded. */
static pf_wtype storage(const pf_want *w, pf_precision p) {
  if (w->src->dtype == PF_DT_I8)
    return PF_W_S8;
  bool as_f32 = w->role == PF_TABLE && !pf_modes[p].round_weights;
  return pf_modes[as_f32 ? PF_PRECISION_F32 : p].floats[w->src->dtype];
}

/* Bytes of a tensor in the arena; sets the matrix's shape. Scales are part of their matrix. */
static size_t place_bytes(pf_want *w, const pf_model_info *in) {
  if (w->role == PF_SCALES)
    return 0;
  if (w->role == PF_VECTOR)
    return pf_round_up(w->rows * sizeof(float), 64);
  pf_mat_shape(w->dst, storage(w, in->precision), w->rows, w->cols, (size_t)in->s8_group);
  return pf_mat_bytes(w->dst);
}

static void place(const pf_want *w, char *p) {
  if (w->role == PF_VECTOR)
    *(float **)w->dst = (float *)p;
  else if (w->role != PF_SCALES)
    pf_mat_place(w->dst, p);
}

/* The arena is fresh anonymous memory: all zero (which padding relies on), touched as it is packed.
 */
static int make_arena(pf_model *m, pf_wants *w) {
  size_t total = 0, at = 0;
  for (size_t i = 0; i < w->n; i++)
    if (__builtin_add_overflow(total, place_bytes(&w->v[i], &m->cfg.info), &total))
      return pf_fail(PF_ENOMEM, "%s: the weights are larger than any memory", m->cfg.dir);
  total = pf_round_up(total, PF_HUGE_PAGE);
  void *p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return pf_fail(PF_ENOMEM, "%s: the weights need %zu bytes of memory: %s", m->cfg.dir, total,
                   strerror(errno));
  (void)madvise(p, total, MADV_HUGEPAGE);
  m->arena = p;
  m->arena_bytes = total;
  for (size_t i = 0; i < w->n; i++) {
    size_t n = place_bytes(&w->v[i], &m->cfg.info);
    place(&w->v[i], (char *)p + at);
    at += n;
  }
  return PF_OK;
}

/* ---- jobs
 * --------------------------------------------------------------------------------------------------------
 */

typedef struct job {
  pf_want *t;
  uint64_t lo, hi; /* bytes of the tensor */
} job;

typedef struct loader {
  pf_wants *w;
  job *jobs;
  size_t n_jobs, slot_bytes;
  unsigned depth;
  bool hash;
  const pf_simd *f;
  const pf_mode *mode;
  size_t wide, q; /* a thread's room for quantising: fp32 values of a row, bytes of a panel */
  uint64_t total;
  const pf_model_opts *opts;
  atomic_size_t next;
  _Atomic uint64_t done;
  atomic_bool stop;
  struct outcome {
    int rc;
    char line[1024];
    pf_load_times t;
  } * outcomes; /* one a thread: an error line belongs to the thread that met it */
} loader;

/* Bytes of one read: whole panels of a matrix; any run of a vector. */
static size_t block_bytes(const pf_want *t) {
  size_t es = pf_dtype_bytes(t->src->dtype), panel = PF_LANES * t->cols * es;
  return !t->cols ? BLOCK : panel >= BLOCK ? panel : BLOCK / panel * panel;
}

static int larger_first(const void *a, const void *b) {
  const job *x = a, *y = b;
  uint64_t p = x->hi - x->lo, q = y->hi - y->lo;
  if (p != q)
    return p > q ? -1 : 1;
  return x->t != y->t ? (x->t < y->t ? -1 : 1) : (x->lo > y->lo) - (x->lo < y->lo);
}

static void need_room(loader *l, const pf_want *t) {
  const pf_mat *m = t->dst;
  if (t->role != PF_WEIGHT || m->type != PF_W_S8 || t->src->dtype == PF_DT_I8)
    return;
  l->wide = m->k > l->wide ? m->k : l->wide;
  l->q = PF_LANES * m->kp > l->q ? PF_LANES * m->kp : l->q;
}

static int make_jobs(loader *l) {
  size_t n = 0, longest = 0;
  for (size_t i = 0; i < l->w->n; i++) {
    pf_want *t = &l->w->v[i];
    n += l->hash ? 1 : (size_t)(t->src->bytes / JOB_BYTES) + 1;
    l->total += t->src->bytes;
    size_t b = block_bytes(t) < t->src->bytes ? block_bytes(t) : t->src->bytes;
    longest = b > longest ? b : longest;
    need_room(l, t);
  }
  l->slot_bytes = pf_round_up(longest, PAGE) + 2 * PAGE;
  if (!(l->jobs = pf_calloc(n, sizeof *l->jobs)))
    return PF_ENOMEM;
  for (size_t i = 0; i < l->w->n; i++) {
    pf_want *t = &l->w->v[i];
    uint64_t step = l->hash ? t->src->bytes : pf_round_up(JOB_BYTES, block_bytes(t));
    for (uint64_t lo = 0; lo < t->src->bytes; lo += step)
      l->jobs[l->n_jobs++] = (job){t, lo, step < t->src->bytes - lo ? lo + step : t->src->bytes};
  }
  qsort(l->jobs, l->n_jobs, sizeof *l->jobs, larger_first);
  return PF_OK;
}

/* ---- one thread
 * --------------------------------------------------------------------------------------------------
 */

typedef struct slot {
  pf_aio_req req;
  job *j;
  uint64_t lo, hi; /* bytes of the tensor */
  size_t skip;     /* of the buffer before them */
} slot;

typedef struct worker {
  loader *l;
  pf_aio *aio;
  char *staging;
  float *wide;
  int8_t *q;
  slot *slots;
  size_t head, tail; /* blocks queued and finished; a block uses slot number % depth */
  job *j;            /* being queued; NULL: none left */
  uint64_t at;       /* its next byte */
  pf_sha256 *sha;    /* of the job being packed */
  bool report;       /* this thread calls the progress function */
  pf_load_times t;
  double last; /* when the last lap ended */
} worker;

/* Time since the worker's last lap. */
static void lap(worker *k, double *to) {
  double now = pf_seconds();
  *to += now - k->last;
  k->last = now;
}

static job *take_job(loader *l) {
  size_t i = atomic_fetch_add(&l->next, 1);
  return i < l->n_jobs && !atomic_load(&l->stop) ? &l->jobs[i] : NULL;
}

static void queue_block(worker *k) {
  const pf_want *t = k->j->t;
  slot *s = &k->slots[k->head++ % k->l->depth];
  uint64_t n = block_bytes(t), left = k->j->hi - k->at, off = t->src->off + k->at;
  s->j = k->j;
  s->lo = k->at;
  s->hi = k->at + (n < left ? n : left);
  s->skip = off % PAGE;
  s->req.fd = t->file->fd;
  s->req.off = off - s->skip;
  s->req.need = s->skip + (size_t)(s->hi - s->lo);
  s->req.n = pf_round_up(s->req.need, PAGE);
  pf_aio_submit(k->aio, &s->req);
  k->at = s->hi;
  if (k->at == k->j->hi) {
    k->j = take_job(k->l);
    k->at = k->j ? k->j->lo : 0;
  }
}

/* Fills the queue; but a block that the page cache gave at once is packed while it is in this
 * core's cache, before the next one is read into the same memory. */
static void queue_blocks(worker *k) {
  bool here = false;
  if (k->head == k->tail)
    k->head = k->tail = 0;
  while (k->j && !here && k->head - k->tail < k->l->depth) {
    const slot *s = &k->slots[k->head % k->l->depth];
    queue_block(k);
    here = s->req.done;
  }
}

static int read_failed(const pf_want *t, const pf_aio_req *r) {
  return pf_fail(PF_EIO, "%s: tensor %s: cannot read: %s", t->file->path, t->name,
                 r->err ? strerror(r->err) : "the file became shorter while it was read");
}

static int bad_element(const pf_want *t, uint64_t i, const char *why) {
  char at[64];
  unsigned long long row = t->cols ? i / t->cols : i, col = t->cols ? i % t->cols : 0;
  snprintf(at, sizeof at, t->cols ? "[%llu,%llu]" : "[%llu]", row, col);
  return pf_fail(PF_EINPUT, "%s: tensor %s: element %s is %s", t->file->path, t->name, at, why);
}

/* n values from `first` on, as they stand in the file. */
static int check_values(const loader *l, const pf_want *t, size_t first, size_t n, const char *p) {
  pf_dtype dt = t->src->dtype;
  size_t bad = dt == PF_DT_I8 ? pf_first_minus_128(n, p) : pf_first_nonfinite(dt, n, p);
  if (bad < n)
    return bad_element(t, first + bad,
                       dt == PF_DT_I8 ? "-128, beyond the -127 to 127 of quantised weights"
                                      : "NaN or infinite: the checkpoint is damaged");
  if (t->role == PF_SCALES && (bad = pf_first_negative(n, p)) < n)
    return bad_element(t, first + bad, "negative, which no scale is");
  if (l->mode->round_weights && dt == PF_DT_F32 && (bad = pf_first_beyond_bf16(n, p)) < n)
    return bad_element(t, first + bad, "too large for bf16: --precision f32 can use it");
  return PF_OK;
}

static int hash_block(worker *k, slot *s, const char *p) {
  if (s->lo == 0 && !(k->sha = pf_sha256_new()))
    return pf_fail(PF_ENOMEM, "out of memory for a checksum");
  pf_sha256_add(k->sha, p, (size_t)(s->hi - s->lo));
  if (s->hi == s->j->t->src->bytes) {
    pf_sha256_end(k->sha, s->j->t->sha256);
    k->sha = NULL;
  }
  return PF_OK;
}

/* Rows [row, row + n) of a matrix, or n values of a vector, into their place. Returns true if it
 * met NaN or infinity, which only packing looks for. */
static bool put_vector(const worker *k, const pf_want *t, size_t first, size_t n, const char *p) {
  float *v = *(float **)t->dst + first;
  pf_widen(v, t->src->dtype, n, p);
  if (k->l->mode->round_weights)
    k->l->f->round_bf16(n, v, v);
  return false;
}

static bool put_rows(const worker *k, const pf_want *t, size_t row, size_t n, const char *p) {
  const pf_mat *m = t->dst;
  if (m->type != PF_W_S8 || t->src->dtype == PF_DT_I8)
    return pf_pack_rows(m, t->src->dtype, row, n, p);
  pf_quant_rows(m, k->l->f, t->src->dtype, row, n, p, k->wide, k->q);
  return false;
}

static bool put_scales(const worker *k, const pf_want *t, size_t row, size_t n, const char *p) {
  (void)k;
  pf_pack_scales(t->dst, row, n, p);
  return false;
}

typedef bool (*put_fn)(const worker *k, const pf_want *t, size_t at, size_t n, const char *p);
static const put_fn puts_of[PF_N_ROLES] = {[PF_VECTOR] = put_vector,
                                           [PF_TABLE] = put_rows,
                                           [PF_WEIGHT] = put_rows,
                                           [PF_SCALES] = put_scales};

/* Checks n values from `first` on and puts them into their place: in one pass where packing looks
 * at them anyway. */
static int use_values(worker *k, const pf_want *t, size_t first, size_t n, const char *p) {
  size_t width = t->cols ? t->cols : 1;
  bool looks =
      (t->role == PF_TABLE || t->role == PF_WEIGHT) && pf_pack_looks(t->dst, t->src->dtype);
  int rc = looks ? PF_OK : check_values(k->l, t, first, n, p);
  lap(k, &k->t.check);
  if (rc == PF_OK && puts_of[t->role](k, t, first / width, n / width, p))
    rc = check_values(k->l, t, first, n, p); /* says which */
  lap(k, &k->t.pack);
  return rc;
}

static int finish_block(worker *k) {
  slot *s = &k->slots[k->tail % k->l->depth];
  const pf_want *t = s->j->t;
  if (pf_aio_wait(k->aio, &s->req) != PF_OK)
    return read_failed(t, &s->req);
  lap(k, &k->t.read);
  k->tail++;
  const char *p = (char *)s->req.buf + s->skip;
  size_t es = pf_dtype_bytes(t->src->dtype), n = (size_t)(s->hi - s->lo) / es,
         first = (size_t)(s->lo / es);
  int rc = use_values(k, t, first, n, p);
  if (rc != PF_OK)
    return rc;
  atomic_fetch_add(&k->l->done, s->hi - s->lo);
  k->t.blocks++;
  k->t.bytes += s->hi - s->lo;
  rc = k->l->hash ? hash_block(k, s, p) : PF_OK;
  lap(k, &k->t.hash);
  return rc;
}

static void tell(const loader *l, uint64_t done) {
  if (l->opts && l->opts->progress)
    l->opts->progress(l->opts->progress_user, "loading", done, l->total);
}

static int run_worker(worker *k) {
  int rc = PF_OK;
  k->last = pf_seconds();
  k->j = take_job(k->l);
  k->at = k->j ? k->j->lo : 0;
  while (rc == PF_OK && !atomic_load(&k->l->stop)) {
    queue_blocks(k);
    if (k->head == k->tail)
      break;
    rc = finish_block(k);
    if (k->report)
      tell(k->l, atomic_load(&k->l->done));
  }
  return rc;
}

static int open_worker(worker *k) {
  loader *l = k->l;
  int rc = pf_aio_open(&k->aio, l->depth);
  if (rc != PF_OK)
    return rc;
  k->slots = pf_calloc(l->depth, sizeof *k->slots);
  k->staging = pf_alloc(l->depth * l->slot_bytes + PAGE, 1);
  k->wide = pf_alloc(l->wide, sizeof *k->wide);
  k->q = pf_alloc(l->q, 1);
  if (!k->slots || !k->staging || !k->wide || !k->q)
    return PF_ENOMEM;
  char *base = (char *)pf_round_up((size_t)k->staging, PAGE);
  for (size_t i = 0; i < l->depth; i++)
    k->slots[i].req.buf = base + i * l->slot_bytes;
  return PF_OK;
}

static void work(void *arg, int tid, int nt) {
  loader *l = arg;
  (void)nt;
  worker k = {.l = l, .report = tid == 0};
  struct outcome *o = &l->outcomes[tid];
  o->rc = open_worker(&k);
  if (o->rc == PF_OK)
    o->rc = run_worker(&k);
  if (o->rc != PF_OK) {
    atomic_store(&l->stop, true);
    snprintf(o->line, sizeof o->line, "%s", pf_last_error());
  }
  o->t = k.t;
  pf_aio_close(k.aio);
  if (k.sha) {
    char hex[65];
    pf_sha256_end(k.sha, hex);
  }
  pf_free(k.slots);
  pf_free(k.staging);
  pf_free(k.wide);
  pf_free(k.q);
}

/* Splits the depth over nt threads within the staging area. */
static void share_out(loader *l, int nt) {
  size_t depth = DEPTH / (unsigned)nt, fits = STAGING / ((size_t)nt * l->slot_bytes);
  depth = depth < 4 ? 4 : depth;
  depth = depth < fits ? depth : fits;
  l->depth = depth < 2 ? 2 : (unsigned)depth;
}

static void add_times(pf_load_times *to, const pf_load_times *t) {
  to->read += t->read;
  to->check += t->check;
  to->pack += t->pack;
  to->hash += t->hash;
  to->blocks += t->blocks;
  to->bytes += t->bytes;
}

static int threads_of(const pf_model_opts *opts) {
  return opts && opts->threads > 0 ? opts->threads : pf_par_default();
}

static int run_jobs(loader *l, pf_load_times *times) {
  int nt = threads_of(l->opts);
  nt = pf_par_most(nt > 64 ? 64 : nt, l->n_jobs);
  share_out(l, nt);
  if (!(l->outcomes = pf_calloc((size_t)nt, sizeof *l->outcomes)))
    return PF_ENOMEM;
  pf_par(nt, work, l);
  int rc = PF_OK;
  for (int i = 0; i < nt && rc == PF_OK; i++)
    if (l->outcomes[i].rc != PF_OK)
      rc = pf_fail(l->outcomes[i].rc, "%s", l->outcomes[i].line);
    else
      add_times(times, &l->outcomes[i].t);
  times->threads = nt;
  if (rc == PF_OK)
    tell(l, l->total);
  return rc;
}

/* ---- all together
 * ------------------------------------------------------------------------------------------------
 */

static void describe(pf_model *m, const pf_wants *w) {
  static const char *const names[] = {
      [PF_DT_BF16] = "BF16", [PF_DT_F16] = "F16", [PF_DT_F32] = "F32"};
  pf_dtype first = w->v[0].src->dtype;
  pf_model_info *in = &m->cfg.info;
  bool mixed = false;
  in->weight_bytes = 0;
  for (size_t i = 0; i < w->n; i++) {
    in->weight_bytes += w->v[i].src->bytes;
    mixed |= w->v[i].src->dtype != first;
  }
  in->weights_dtype = m->cfg.s8_group ? "I8" : mixed ? "mixed" : names[first];
  if (in->tied)
    m->unembed = m->embed;
}

static int load(pf_model *m, pf_wants *w, const pf_ckpt *k, const pf_model_opts *opts) {
  loader l = {.w = w, .opts = opts, .mode = &pf_modes[m->cfg.info.precision]};
  bool checksum = !opts || !opts->no_checksum;
  int rc;
  if (!(l.f = pf_simd_for(opts ? opts->isa : NULL, &rc)))
    return rc;
  if ((rc = pf_par_check(opts ? opts->threads : 0)) != PF_OK)
    return rc;
  double since = pf_seconds();
  l.hash = checksum && !pf_digest_cached(m->sha256, w, k);
  rc = make_arena(m, w);
  if (rc == PF_OK && pf_memory_nodes() > 1)
    pf_weights_touch(m, threads_of(opts));
  if (rc == PF_OK)
    rc = make_jobs(&l);
  if (rc == PF_OK)
    rc = run_jobs(&l, &m->load);
  if (rc == PF_OK && l.hash)
    rc = pf_digest_make(m->sha256, w, k);
  m->load.wall = pf_seconds() - since;
  pf_free(l.jobs);
  pf_free(l.outcomes);
  return rc;
}

const pf_load_times *pf_model_load_times(const pf_model *m) {
  return &m->load;
}

struct pf_tensor_text {
  char name[sizeof((pf_want *)0)->name], dtype[sizeof((pf_st_tensor *)0)->dtype_name], sha256[65];
};

/* The digests outlive the list of what was wanted. */
static int keep_tensors(pf_model *m, const pf_wants *w) {
  struct pf_tensor_text *text = m->tensor_text = pf_alloc(w->n, sizeof *text);
  m->tensors = pf_alloc(w->n, sizeof *m->tensors);
  if (!text || !m->tensors)
    return PF_ENOMEM;
  for (size_t i = 0; i < w->n; i++) {
    const pf_want *t = &w->v[i];
    memcpy(text[i].name, t->name, sizeof text[i].name);
    memcpy(text[i].dtype, t->src->dtype_name, sizeof text[i].dtype);
    memcpy(text[i].sha256, t->sha256, sizeof text[i].sha256);
    m->tensors[i] = (pf_tensor_info){text[i].name, text[i].dtype, t->rows, t->cols, text[i].sha256};
  }
  m->n_tensors = w->n;
  return PF_OK;
}

int pf_weights_load(pf_model *m, const pf_model_opts *opts) {
  pf_ckpt k;
  pf_wants w = {0};
  int rc = pf_ckpt_open(&k, m->cfg.dir);
  if (rc != PF_OK)
    return rc;
  m->layers = pf_calloc((size_t)m->cfg.info.n_layers, sizeof *m->layers);
  rc = m->layers ? pf_wants_make(&w, &m->cfg, m) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_wants_match(&w, &k, &m->cfg.info);
  if (rc == PF_OK)
    rc = load(m, &w, &k, opts);
  if (rc == PF_OK) {
    describe(m, &w);
    m->cfg.info.weights_sha256 = m->sha256;
    rc = m->sha256[0] ? keep_tensors(m, &w) : PF_OK;
  }
  pf_wants_free(&w);
  pf_ckpt_close(&k);
  if (rc != PF_OK)
    pf_weights_free(m);
  return rc;
}

void pf_weights_free(pf_model *m) {
  if (m->arena)
    munmap(m->arena, m->arena_bytes);
  pf_free(m->layers);
  pf_free(m->tensors);
  pf_free(m->tensor_text);
  m->arena = NULL;
  m->layers = NULL;
  m->tensors = NULL;
  m->tensor_text = NULL;
  m->n_tensors = 0;
}
