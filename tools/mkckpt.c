/* SPDX-License-Identifier: Apache-2.0
 * pf-mkckpt: writes a random checkpoint of a real model's shape (or of any config.json), in bf16
 * safetensors, sharded as Hugging Face shards: tensors in the order of the layers, a new file when
 * the next tensor would pass --shard-size. Values come from a counter-based generator, so the bytes
 * depend on seed, tensor name and index alone. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bf16.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/rng.h"
#include "base/status.h"
#include "model/weights.h"

#define CHUNK ((size_t)1 << 20) /* values a thread makes and writes at once */

static const char usage[] =
    "usage: pf-mkckpt [options] SHAPE DIR\n"
    "Writes a random bf16 checkpoint into DIR (made if missing; must not hold a config.json).\n"
    "SHAPE: gemma-2-2b, qwen2.5-1.5b, qwen2.5-3b, or the path of a config.json.\n"
    "  --layers N        cut the number of layers to N\n"
    "  --shard-size SIZE largest file, e.g. 5GB, 200MB, 4096 (default: as the real checkpoint, "
    "else 5GB)\n"
    "  --seed N          of the generator (default 1)\n"
    "  --threads N       (default: OMP_NUM_THREADS, else the CPUs)\n"
    "  --list            print name, dtype and shape of every tensor and write nothing (DIR is not "
    "needed)\n";

#define QWEN_CONFIG(layers, d, heads, ff)                                                          \
  "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"hidden_act\":\"silu\","    \
  "\"num_hidden_layers\":" #layers ",\"hidden_size\":" #d ",\"num_attention_heads\":" #heads       \
  ",\"num_key_value_heads\":2,\"intermediate_size\":" #ff ",\"vocab_size\":151936,"                \
  "\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,"              \
  "\"sliding_window\":32768,\"use_sliding_window\":false,\"tie_word_embeddings\":true,"            \
  "\"bos_token_id\":151643,\"eos_token_id\":151645,\"torch_dtype\":\"bfloat16\"}"

static const struct shape {
  const char *name;
  uint64_t shard_size;
  const char *config, *generation;
} shapes[] = {
    {"gemma-2-2b", UINT64_C(5000000000),
     "{\"architectures\":[\"Gemma2ForCausalLM\"],\"model_type\":\"gemma2\",\"num_hidden_layers\":"
     "26,"
     "\"hidden_size\":2304,\"num_attention_heads\":8,\"num_key_value_heads\":4,\"head_dim\":256,"
     "\"intermediate_size\":9216,\"vocab_size\":256000,\"max_position_embeddings\":8192,"
     "\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_act\":\"gelu_pytorch_tanh\","
     "\"attention_bias\":false,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,"
     "\"query_pre_attn_scalar\":256,\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,"
     "\"sliding_window\":4096,\"bos_token_id\":2,\"eos_token_id\":[1,107],\"pad_token_id\":0,"
     "\"torch_dtype\":\"bfloat16\"}",
     "{\"bos_token_id\":2,\"eos_token_id\":[1,107],\"pad_token_id\":0}\n"},
    {"qwen2.5-1.5b", UINT64_C(5000000000), QWEN_CONFIG(28, 1536, 12, 8960),
     "{\"bos_token_id\":151643,\"eos_token_id\":[151645,151643],\"repetition_penalty\":1.1}\n"},
    {"qwen2.5-3b", UINT64_C(4000000000), QWEN_CONFIG(36, 2048, 16, 11008),
     "{\"bos_token_id\":151643,\"eos_token_id\":[151645,151643],\"repetition_penalty\":1.05}\n"},
};

typedef struct args {
  const char *shape, *dir;
  long layers;
  uint64_t shard_size, seed;
  int threads;
  bool list, help;
} args;

/* One file being written. */
typedef struct file {
  char *path;
  int fd;
  size_t lo, hi; /* tensors in it */
  uint64_t data_start;
} file;

/* A run of at most CHUNK values of one tensor. */
typedef struct chunk {
  const pf_want *t;
  int fd;
  uint64_t off; /* in the file */
  size_t lo, n; /* values of the tensor */
} chunk;

typedef struct writer {
  chunk *c;
  size_t n;
  uint64_t seed;
  bool plus_one; /* norms are 1 + w */
  atomic_int err;
} writer;

/* ---- order and files
 * --------------------------------------------------------------------------------------------- */

/* Within a layer, as transformers' modules are declared: with it the files of the Gemma-2-2B shape
 * have the sizes of the published ones. */
static const char *const in_layer[] = {
    "q_proj.weight", "q_proj.bias",     "k_proj.weight",    "k_proj.bias",      "v_proj.weight",
    "v_proj.bias",   "o_proj.",         "gate_proj.",       "up_proj.",         "down_proj.",
    "input_",        "post_attention_", "pre_feedforward_", "post_feedforward_"};
#define N_IN_LAYER (sizeof in_layer / sizeof *in_layer)

/* Embedding, layers in order, what follows them. */
static size_t rank(const char *name) {
  static const char layer[] = "model.layers.";
  size_t k = 0;
  if (strncmp(name, layer, sizeof layer - 1) != 0)
    return strstr(name, "embed") ? 0 : SIZE_MAX;
  while (k < N_IN_LAYER && !strstr(name, in_layer[k]))
    k++;
  return ((size_t)atol(name + sizeof layer - 1) + 1) * (N_IN_LAYER + 1) + k;
}

static int by_rank(const void *a, const void *b) {
  const pf_want *x = a, *y = b;
  size_t p = rank(x->name), q = rank(y->name);
  return p != q ? (p < q ? -1 : 1) : -strcmp(x->name, y->name); /* model.norm before lm_head */
}

static size_t values(const pf_want *t) {
  return t->rows * (t->cols ? t->cols : 1);
}

/* Cuts the list into files; the number of files. */
static size_t cut(const pf_wants *w, uint64_t limit, file *f) {
  size_t n = 0;
  uint64_t held = 0;
  for (size_t i = 0; i < w->n; i++) {
    uint64_t bytes = 2 * values(&w->v[i]);
    if (i == 0 || held + bytes > limit) {
      f[n++] = (file){.fd = -1, .lo = i};
      held = 0;
    }
    held += bytes;
    f[n - 1].hi = i + 1;
  }
  return n;
}

static void header(pf_buf *b, const pf_wants *w, const file *f) {
  uint64_t at = 0;
  pf_buf_puts(b, "{\"__metadata__\":{\"format\":\"pt\"}");
  for (size_t i = f->lo; i < f->hi; i++) {
    const pf_want *t = &w->v[i];
    unsigned long long end = at + 2 * values(t);
    pf_buf_printf(b,
                  t->cols ? ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%zu,%zu]"
                          : ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%zu]",
                  t->name, t->rows, t->cols);
    pf_buf_printf(b, ",\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, end);
    at = end;
  }
  pf_buf_puts(b, "}");
  while (b->n % 8)
    pf_buf_puts(b, " ");
}

static int open_file(file *f, const pf_wants *w, const char *dir, size_t i, size_t n) {
  pf_buf path = {0}, h = {0};
  unsigned char len[8];
  if (n == 1)
    pf_buf_printf(&path, "%s/model.safetensors", dir);
  else
    pf_buf_printf(&path, "%s/model-%05zu-of-%05zu.safetensors", dir, i + 1, n);
  header(&h, w, f);
  f->path = pf_buf_status(&path) == PF_OK ? pf_strdup(path.s) : NULL;
  pf_buf_free(&path);
  if (!f->path || pf_buf_status(&h) != PF_OK)
    return PF_ENOMEM;
  for (int b = 0; b < 8; b++)
    len[b] = (unsigned char)((uint64_t)h.n >> 8 * b);
  f->data_start = 8 + h.n;
  f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  int rc = PF_OK;
  if (f->fd < 0 || pf_write_all(f->fd, len, 8) != 0 || pf_write_all(f->fd, h.s, h.n) != 0)
    rc = pf_fail(PF_EIO, "%s: cannot write: %s", f->path, strerror(errno));
  pf_buf_free(&h);
  return rc;
}

static int write_index(const pf_wants *w, const file *f, size_t n, const char *dir) {
  pf_buf b = {0}, path = {0};
  uint64_t total = 0;
  for (size_t i = 0; i < w->n; i++)
    total += 2 * values(&w->v[i]);
  pf_buf_printf(&b, "{\n  \"metadata\": {\"total_size\": %llu},\n  \"weight_map\": {",
                (unsigned long long)total);
  for (size_t k = 0; k < n; k++)
    for (size_t i = f[k].lo; i < f[k].hi; i++)
      pf_buf_printf(&b, "%s\n    \"%s\": \"%s\"", i ? "," : "", w->v[i].name,
                    strrchr(f[k].path, '/') + 1);
  pf_buf_puts(&b, "\n  }\n}\n");
  pf_buf_printf(&path, "%s/model.safetensors.index.json", dir);
  int rc = pf_buf_status(&b) != PF_OK || pf_buf_status(&path) != PF_OK
               ? PF_ENOMEM
               : pf_write_file(path.s, b.s, b.n);
  pf_buf_free(&b);
  pf_buf_free(&path);
  return rc;
}

/* ---- values
 * ------------------------------------------------------------------------------------------------------
 */

static uint64_t name_hash(const char *s) { /* FNV-1a */
  uint64_t h = UINT64_C(14695981039346656037);
  for (; *s; s++)
    h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return h;
}

/* Uniform around `centre`; standard deviations as trained models have them: activations stay near 1
 * through any depth. */
static void scale_of(const pf_want *t, bool plus_one, float *centre, float *width) {
  double std = strstr(t->name, "embed") || !t->cols ? 0.02 : 1 / sqrt((double)t->cols);
  *centre = !t->cols && strstr(t->name, "norm") && !plus_one ? 1 : 0;
  *width = (float)(std * sqrt(12.0) / 65536);
}

static void fill(uint16_t *v, const chunk *c, uint64_t seed, bool plus_one) {
  uint64_t stream = name_hash(c->t->name);
  float centre, width;
  scale_of(c->t, plus_one, &centre, &width);
  for (size_t i = 0; i < c->n; i += 8) { /* chunks start at multiples of 8 */
    uint32_t r[4];
    pf_philox(seed, stream, (c->lo + i) / 8, r);
    for (size_t j = 0; j < 8 && i + j < c->n; j++) {
      float u = (float)(int)(r[j / 2] >> 16 * (j % 2) & 0xffff) - 32767.5f;
      v[i + j] = pf_f32_to_bf16(centre + u * width);
    }
  }
}

static int put(const chunk *c, const uint16_t *v) {
  for (size_t done = 0; done < 2 * c->n;) {
    ssize_t w = pwrite(c->fd, (const char *)v + done, 2 * c->n - done, (off_t)(c->off + done));
    if (w < 0 && errno != EINTR)
      return errno;
    done += w > 0 ? (size_t)w : 0;
  }
  return 0;
}

static void work(void *arg, int tid, int nt) {
  writer *w = arg;
  size_t lo, hi;
  uint16_t *v = pf_alloc(CHUNK, sizeof *v);
  if (!v)
    atomic_store(&w->err, ENOMEM);
  pf_par_range(w->n, tid, nt, &lo, &hi);
  for (size_t i = lo; i < hi && !atomic_load(&w->err); i++) {
    fill(v, &w->c[i], w->seed, w->plus_one);
    int e = put(&w->c[i], v);
    if (e)
      atomic_store(&w->err, e);
  }
  pf_free(v);
}

static int plan(writer *wr, const pf_wants *w, const file *f, size_t n) {
  size_t total = 0;
  for (size_t i = 0; i < w->n; i++)
    total += values(&w->v[i]) / CHUNK + 1;
  if (!(wr->c = pf_calloc(total, sizeof *wr->c)))
    return PF_ENOMEM;
  for (size_t k = 0; k < n; k++) {
    uint64_t at = f[k].data_start;
    for (size_t i = f[k].lo; i < f[k].hi; at += 2 * values(&w->v[i++]))
      for (size_t lo = 0, m = values(&w->v[i]); lo < m; lo += CHUNK)
        wr->c[wr->n++] =
            (chunk){&w->v[i], f[k].fd, at + 2 * lo, lo, m - lo < CHUNK ? m - lo : CHUNK};
  }
  return PF_OK;
}

static int write_files(const pf_wants *w, file *f, size_t n, const args *a, bool plus_one) {
  writer wr = {.seed = a->seed, .plus_one = plus_one};
  int rc = PF_OK;
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = open_file(&f[i], w, a->dir, i, n);
  if (rc == PF_OK)
    rc = plan(&wr, w, f, n);
  if (rc == PF_OK) {
    pf_par(a->threads > 0 ? a->threads : pf_par_default(), work, &wr);
    if (wr.err)
      rc = pf_fail(PF_EIO, "%s: cannot write the weights: %s", a->dir, strerror(wr.err));
  }
  for (size_t i = 0; i < n; i++) {
    if (f[i].fd >= 0 && close(f[i].fd) != 0 && rc == PF_OK)
      rc = pf_fail(PF_EIO, "%s: cannot write: %s", f[i].path, strerror(errno));
  }
  if (rc == PF_OK && n > 1)
    rc = write_index(w, f, n, a->dir);
  pf_free(wr.c);
  return rc;
}

/* ---- configuration
 * -----------------------------------------------------------------------------------------------
 */

static const struct shape *named(const char *name) {
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    if (!strcmp(name, shapes[i].name))
      return &shapes[i];
  return NULL;
}

static int write_in(const char *dir, const char *name, const char *text) {
  pf_buf path = {0};
  pf_buf_printf(&path, "%s/%s", dir, name);
  int rc = pf_buf_status(&path) == PF_OK ? pf_write_file(path.s, text, strlen(text)) : PF_ENOMEM;
  pf_buf_free(&path);
  return rc;
}

static void cut_layers(json_t *o, long n) {
  json_t *types = json_object_get(o, "layer_types");
  if (n <= 0)
    return;
  json_object_set_new(o, "num_hidden_layers", json_integer(n));
  while (json_array_size(types) > (size_t)n)
    json_array_remove(types, (size_t)n);
}

static int write_config(const args *a) {
  const struct shape *s = named(a->shape);
  json_t *o = NULL;
  int rc =
      s ? pf_js_text(s->name, s->config, strlen(s->config), &o) : pf_js_file(a->shape, CHUNK, &o);
  if (rc != PF_OK)
    return rc;
  cut_layers(o, a->layers);
  char *text = json_dumps(o, JSON_INDENT(2));
  rc = text ? write_in(a->dir, "config.json", text) : PF_ENOMEM;
  free(text);
  json_decref(o);
  if (rc == PF_OK && s)
    rc = write_in(a->dir, "generation_config.json", s->generation);
  return rc;
}

static void list(const pf_wants *w) {
  for (size_t i = 0; i < w->n; i++)
    printf(w->v[i].cols ? "%s BF16 %zu,%zu\n" : "%s BF16 %zu\n", w->v[i].name, w->v[i].rows,
           w->v[i].cols);
}

static int make(const args *a) {
  pf_config c;
  pf_wants w = {0};
  file *f = NULL;
  size_t n = 0;
  int rc = pf_config_read(&c, a->dir);
  if (rc != PF_OK)
    return rc;
  rc = pf_wants_make(&w, &c, NULL);
  if (rc == PF_OK && !(f = pf_calloc(w.n, sizeof *f)))
    rc = PF_ENOMEM;
  if (rc == PF_OK) {
    qsort(w.v, w.n, sizeof *w.v, by_rank);
    if (a->list)
      list(&w);
    else {
      n = cut(&w, a->shard_size, f);
      rc = write_files(&w, f, n, a, c.plus_one);
    }
  }
  for (size_t i = 0; i < n; i++)
    pf_free(f[i].path);
  pf_free(f);
  pf_wants_free(&w);
  pf_config_free(&c);
  return rc;
}

/* ---- command line
 * ------------------------------------------------------------------------------------------------
 */

static bool size_of(const char *s, uint64_t *out) {
  char *end;
  unsigned long long x = strtoull(s, &end, 10);
  uint64_t unit = !*end                ? 1
                  : !strcmp(end, "KB") ? 1000
                  : !strcmp(end, "MB") ? 1000000
                  : !strcmp(end, "GB") ? 1000000000
                                       : 0;
  return end != s && *s != '-' && x > 0 && unit && !__builtin_mul_overflow((uint64_t)x, unit, out);
}

static bool parse(args *a, int argc, char **argv) {
  static const struct option opts[] = {
      {"layers", 1, 0, 'l'}, {"shard-size", 1, 0, 's'}, {"seed", 1, 0, 'S'}, {"threads", 1, 0, 't'},
      {"list", 0, 0, 'L'},   {"help", 0, 0, 'h'},       {0, 0, 0, 0}};
  *a = (args){.seed = 1};
  for (int c; (c = getopt_long(argc, argv, "h", opts, NULL)) != -1;) {
    uint64_t x = 0;
    if (c == 'h')
      return a->help = true;
    if (c == 'L')
      a->list = true;
    else if (c == '?' || !(c == 'S' ? (x = strtoull(optarg, NULL, 0), true) : size_of(optarg, &x)))
      return false;
    if (c == 'l')
      a->layers = (long)x;
    else if (c == 's')
      a->shard_size = x;
    else if (c == 'S')
      a->seed = x;
    else if (c == 't')
      a->threads = (int)x;
  }
  if (argc - optind != (a->list ? 1 : 2))
    return false;
  a->shape = argv[optind];
  a->dir = a->list ? NULL : argv[optind + 1];
  if (!a->shard_size)
    a->shard_size = named(a->shape) ? named(a->shape)->shard_size : UINT64_C(5000000000);
  return true;
}

static int make_dir(const char *dir) {
  pf_buf path = {0};
  pf_buf_printf(&path, "%s/config.json", dir);
  int rc = pf_buf_status(&path);
  if (rc == PF_OK && mkdir(dir, 0777) != 0 && errno != EEXIST)
    rc = pf_fail(PF_EIO, "%s: cannot make this folder: %s", dir, strerror(errno));
  if (rc == PF_OK && access(path.s, F_OK) == 0)
    rc = pf_fail(PF_EEXIST, "%s: is there already: name an empty folder", path.s);
  pf_buf_free(&path);
  return rc;
}

/* The list needs a directory for the configuration only. */
static int run_list(args *a) {
  char dir[] = "/tmp/pf-mkckpt-XXXXXX", path[64];
  if (!(a->dir = mkdtemp(dir)))
    return pf_fail(PF_EIO, "%s: cannot make a folder: %s", dir, strerror(errno));
  int rc = write_config(a);
  if (rc == PF_OK)
    rc = make(a);
  snprintf(path, sizeof path, "%s/config.json", dir);
  unlink(path);
  snprintf(path, sizeof path, "%s/generation_config.json", dir);
  unlink(path);
  rmdir(dir);
  return rc;
}

int main(int argc, char **argv) {
  args a;
  if (!parse(&a, argc, argv)) {
    fputs(usage, stderr);
    return 2;
  }
  if (a.help) {
    fputs(usage, stdout);
    return 0;
  }
  int rc = a.list ? run_list(&a) : make_dir(a.dir);
  if (rc == PF_OK && !a.list)
    rc = write_config(&a);
  if (rc == PF_OK && !a.list)
    rc = make(&a);
  if (rc != PF_OK)
    fprintf(stderr, "pf-mkckpt: %s\n", pf_last_error());
  return pf_exit_code(rc);
}
