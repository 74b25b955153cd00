/* SPDX-License-Identifier: Apache-2.0
 * Tracks and trials. A trial forks its track at the layers that its actions, cuts and swaps can
 * reach (pf_reach_*); the rows that enter there take the track's residuals. By the contract
 * (simd/CONTRACT.md) it has the bits of a whole run. */
#include "analysis/lab.h"

#include <string.h>

#include "analysis/cells.h"
#include "analysis/controls.h"
#include "analysis/jsonout.h"
#include "base/mem.h"
#include "base/par.h"
#include "base/status.h"

enum {
  MAX_SEGMENTS = PF_N_SITES,
  LAST_PREFIX = 8,
  TOGETHER_ROWS = 4 * PF_CALL_ROWS,
  SMALL_THINGS = 1 << 17
};

typedef struct block {
  struct block *next;
  size_t size, used; /* bytes, this head among them */
} block;

struct pf_lab {
  const pf_plan *plan;
  pf_lab_opts o;
  pf_ctx *ctx;
  int hook_pre, hook_post;
  size_t d, vocab;
  int32_t layers;
  size_t cell;
  pf_ids y;
  pf_track **tracks, **stems; /* stems: BB, BY and the cell's XB without y; they outlast the cell */
  size_t n_tracks, cap_tracks, n_stems, cap_stems;
  float *clean;  /* (n_y, V) */
  pf_ref *ref;   /* (n_y) */
  block *blocks; /* the first takes what comes next */
  pf_seq **donors;
  size_t n_donors, cap_donors;
  struct refs {
    const pf_track *t;
    float *logits;
    pf_ref *ref;
  } * refs;
  size_t n_refs, cap_refs;
  pf_lab_cost cost;
  uint64_t counted;       /* row-layers of the context that stand in cost */
  pf_lab_need need;       /* at most, so far; fixed: not in use */
  size_t arena, kept, kv; /* bytes now; kv by count, as a dry lab has it too */
  size_t donors_kv;       /* of it */
  int32_t longest;        /* positions of a track */
};

#define PF_SITE_NAME(id, name, prefix) name,
const char *const pf_site_names[PF_N_SITES] = {PF_SITES(PF_SITE_NAME)};
#define PF_SITE_PREFIX(id, name, prefix) prefix,
const int32_t pf_site_prefix[PF_N_SITES] = {PF_SITES(PF_SITE_PREFIX)};

/* ---- access ---------------------------------------------------------------------------------- */

const pf_plan *pf_lab_plan(const pf_lab *l) {
  return l->plan;
}

size_t pf_lab_index(const pf_lab *l) {
  return l->cell;
}

int pf_lab_persona(const pf_lab *l) {
  return (int)(l->cell / l->plan->grid.n_tasks);
}

int pf_lab_task(const pf_lab *l) {
  return (int)(l->cell % l->plan->grid.n_tasks);
}

size_t pf_lab_n_y(const pf_lab *l) {
  return l->y.n;
}

const int32_t *pf_lab_y(const pf_lab *l) {
  return l->y.v;
}

const pf_ref *pf_lab_ref(const pf_lab *l, int32_t step) {
  return &l->ref[step];
}

size_t pf_lab_n_tracks(const pf_lab *l) {
  return l->n_tracks;
}

size_t pf_lab_d(const pf_lab *l) {
  return l->d;
}

int32_t pf_lab_layers(const pf_lab *l) {
  return l->layers;
}

int pf_lab_hook(const pf_lab *l, const char *name) {
  int id;
  int32_t layer;
  int rc = pf_hook_find(l->plan->model, name, &id, &layer);
  return rc == PF_OK ? id : rc;
}

const pf_lab_cost *pf_lab_costs(const pf_lab *l) {
  return &l->cost;
}

const float *pf_lab_h(const pf_lab *l, const pf_track *t, int32_t index, int32_t layer) {
  return t->h + ((size_t)t->slot[index] * ((size_t)l->layers + 1) + (size_t)layer) * l->d;
}

int32_t pf_track_site(const pf_track *t, pf_site s) {
  int32_t at;
  switch (s) {
  case PF_SITE_PERSONA_LAST:
    return t->x.hi > t->x.lo ? t->x.hi - 1 : -1;
  case PF_SITE_TASK_MID:
    return (t->y.lo + t->y.hi) / 2;
  case PF_SITE_P_USER_LAST:
    return t->q->p_user_last;
  default:
    at = (int32_t)t->n_prompt - 1 + pf_site_prefix[s];
    return (size_t)at < t->n ? at : -1;
  }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* What is there now, and the most that was there. */
static void hold(size_t *now, uint64_t *most, size_t bytes) {
  *now += bytes;
  *most = *now > *most ? *now : *most;
}

enum { ALIGN = 64, LEAST_BLOCK = 1 << 16 };
#ifdef __SANITIZE_ADDRESS__
enum { MOST_BLOCK = 0 }; /* each piece by itself, so that a read behind it is seen */
#else
enum { MOST_BLOCK = 8 << 20 };
#endif

/* The first block of a unit takes what units have needed so far, or will need by the plan; others
 * double what is there. */
static size_t block_size(const pf_lab *l, size_t bytes) {
  uint64_t known = l->need.arena > l->o.need.arena ? l->need.arena : l->o.need.arena;
  size_t want = l->blocks ? l->arena : known;
  if (l->blocks && want > MOST_BLOCK)
    want = MOST_BLOCK;
  want = want > LEAST_BLOCK ? want : LEAST_BLOCK;
  return MOST_BLOCK > 0 && want > bytes ? want : bytes;
}

static int next_block(pf_lab *l, size_t bytes) {
  size_t size = block_size(l, bytes);
  block *b = pf_alloc(1, size + ALIGN), *first = l->blocks;
  if (!b)
    return PF_ENOMEM;
  *b = (block){.next = first, .size = size + ALIGN, .used = ALIGN};
  l->blocks = b;
  return PF_OK;
}

void *pf_lab_alloc(pf_lab *l, size_t n, size_t size) {
  size_t bytes;
  if (!pf_mul3(n, size, 1, &bytes) || bytes > PTRDIFF_MAX - 2 * ALIGN) {
    pf_fail(PF_ENOMEM, "out of memory: %zu x %zu bytes", n, size);
    return NULL;
  }
  bytes = pf_round_up(bytes, ALIGN);
  if ((!l->blocks || l->blocks->size - l->blocks->used < bytes) && next_block(l, bytes) != PF_OK)
    return NULL;
  char *p = (char *)l->blocks + l->blocks->used;
  l->blocks->used += bytes;
  hold(&l->arena, &l->need.arena, bytes);
  return memset(p, 0, bytes);
}

void *pf_lab_more(pf_lab *l, const void *from, size_t old, size_t bytes) {
  block *b = l->blocks;
  size_t had = pf_round_up(old, ALIGN), want = pf_round_up(bytes, ALIGN);
  char *end = b ? (char *)b + b->used : NULL;
  if (from && (const char *)from + had == end && b->size - b->used >= want - had) {
    memset(end, 0, want - had);
    b->used += want - had;
    hold(&l->arena, &l->need.arena, want - had);
    return (void *)from;
  }
  void *p = pf_lab_alloc(l, bytes, 1);
  if (p && old)
    memcpy(p, from, old);
  return p;
}

static void free_blocks(pf_lab *l) {
  for (block *b; (b = l->blocks);) {
    l->blocks = b->next;
    pf_free(b);
  }
}

static void drop_donors(pf_lab *l) {
  for (size_t i = 0; i < l->n_donors; i++)
    pf_seq_free(l->donors[i]);
  l->n_donors = 0;
  l->kv -= l->donors_kv;
  l->donors_kv = 0;
}

/* A block that all fits in stays: a study asks for gigabytes piece by piece, and fresh pages cost
 * more than the work that they are for. Several make room for one. */
void pf_lab_clear(pf_lab *l) {
  drop_donors(l);
  if (l->blocks && (l->blocks->next || MOST_BLOCK == 0))
    free_blocks(l);
  if (l->blocks)
    l->blocks->used = ALIGN;
  l->arena = 0;
}

static void track_free(pf_lab *l, pf_track *t) {
  if (!t)
    return;
  l->kept -= t->kept;
  l->kv -= t->kv;
  pf_role_prompt_free(&t->own);
  pf_seq_free(t->seq);
  pf_free(t->ids);
  pf_free(t->pos);
  pf_free(t->slot);
  pf_free(t->h);
  pf_free(t);
}

/* Frees the stems of other personas than one, PF_NOBODY: all. */
static void drop_stems(pf_lab *l, int persona) {
  size_t kept = 0;
  for (size_t i = 0; i < l->n_stems; i++)
    if (persona != PF_NOBODY &&
        (l->stems[i]->who.persona == PF_BASE || l->stems[i]->who.persona == persona))
      l->stems[kept++] = l->stems[i];
    else
      track_free(l, l->stems[i]);
  l->n_stems = kept;
}

/* Of the clean logits and what is made of them; of a track's as references. */
static size_t refs_bytes(const pf_lab *l) {
  return l->y.n * (l->vocab * sizeof(float) + sizeof(pf_ref));
}

static void drop_cell(pf_lab *l) {
  for (size_t i = 0; i < l->n_tracks; i++)
    track_free(l, l->tracks[i]);
  l->n_tracks = 0;
  for (size_t i = 0; i < l->n_refs; i++) {
    pf_free(l->refs[i].logits);
    pf_free(l->refs[i].ref);
  }
  l->kept -= (l->n_refs + 1) * refs_bytes(l);
  l->n_refs = 0;
  pf_free(l->clean);
  pf_free(l->ref);
  l->clean = NULL;
  l->ref = NULL;
  pf_ids_free(&l->y);
  pf_lab_clear(l);
}

/* Rows of hook_result, and a copy of K,V with swaps in it for each thread, come on top of what
 * calls take as a rule. */
pf_lab_need pf_lab_needs(const pf_lab *l) {
  const pf_model_info *i = l->plan->info;
  pf_lab_need n = l->need;
  size_t threads = (size_t)(l->o.threads > 0 ? l->o.threads : pf_par_default()),
         swapped = pf_kv_bytes(l->ctx, 0, (size_t)l->longest * 3 / 2 + PF_KV_BLOCK) /
                   ((size_t)l->layers * (size_t)i->n_kv_heads),
         results = (size_t)i->n_heads * (2 * l->d + (size_t)i->d_head);
  n.fixed = pf_ctx_scratch_bytes(l->ctx, PF_CALL_ROWS, l->longest) + threads * swapped +
            (results + PF_LOGIT_ROWS * l->vocab) * sizeof(float) + SMALL_THINGS;
  return n;
}

void pf_lab_count_records(pf_lab *l, const json_t *rows) {
  uint64_t bytes = pf_js_bytes(rows);
  l->need.records = bytes > l->need.records ? bytes : l->need.records;
}

/* ---- prompts --------------------------------------------------------------------------------- */

static const char *persona_text(const pf_lab *l, int persona) {
  const pf_plan *p = l->plan;
  return persona >= 0             ? p->grid.personas[persona].text
         : persona == PF_BASE     ? p->grid.base.key
         : persona <= PF_BASE_ALT ? p->controls.base_personas[PF_BASE_ALT - persona].text
                                  : NULL;
}

/* Host i of the controls; below 0: none. */
static int host_of(pf_who w) {
  return PF_HOST - w.persona;
}

static bool is_neutral(pf_who w) {
  return w.persona <= PF_NEUTRAL && host_of(w) < 0;
}

static const char *task_text(const pf_lab *l, int task) {
  const pf_plan *p = l->plan;
  return task >= 0         ? p->grid.tasks[task].text
         : task == PF_BASE ? p->grid.base.text
                           : p->controls.base_tasks[PF_BASE_ALT - task].text;
}

static const pf_role_prompt *cell_prompt(const pf_lab *l) {
  return &l->plan->xy[l->cell];
}

/* The prompt with a neutral persona of as many tokens as the cell's. */
static int neutral_prompt(const pf_lab *l, pf_who who, pf_role_prompt *out) {
  const pf_plan *p = l->plan;
  const pf_span x = cell_prompt(l)->persona;
  const char *task = task_text(l, who.task);
  char *text = NULL;
  int32_t got;
  bool own = p->paraphrase && !p->paraphrase->system; /* a system message has the same words */
  int rc =
      pf_neutral_fit(&p->controls.neutral[PF_NEUTRAL - who.persona], p->tok,
                     own ? p->paraphrase->text : p->grid.template_, task, x.hi - x.lo, &text, &got);
  if (rc == PF_OK)
    rc = pf_plan_say(p, text, task, out);
  pf_free(text);
  return rc;
}

static bool known(const pf_lab *l, pf_who w) {
  const pf_controls *c = &l->plan->controls;
  int np = (int)l->plan->grid.n_personas, nt = (int)l->plan->grid.n_tasks;
  int neutral = PF_NEUTRAL - w.persona, alt = PF_BASE_ALT - w.persona,
      alt_task = PF_BASE_ALT - w.task;
  bool persona = host_of(w) >= 0            ? host_of(w) < (int)c->n_hosts
                 : is_neutral(w)            ? neutral < (int)c->n_neutral
                 : w.persona <= PF_BASE_ALT ? alt < (int)c->n_base_personas
                                            : w.persona >= PF_NOBODY && w.persona < np;
  bool task =
      w.task <= PF_BASE_ALT ? alt_task < (int)c->n_base_tasks : w.task >= PF_BASE && w.task < nt;
  return persona && task;
}

/* Positions between the persona of a prompt with PF_GAP and what follows it; the baseline's lengths
 * are known before the prompt is made. */
static int32_t gap_of(const pf_lab *l, pf_who w) {
  if (w.placing != PF_GAP || is_neutral(w))
    return 0;
  if (w.persona != PF_BASE || w.task < PF_BASE)
    return -1;
  return cell_prompt(l)->persona.hi - pf_plan_prompt(l->plan, PF_BASE, w.task)->persona.hi;
}

bool pf_lab_has(const pf_lab *l, pf_who w) {
  return known(l, w) && gap_of(l, w) >= 0;
}

static int make_prompt(const pf_lab *l, pf_who w, pf_track *t) {
  const pf_plan *p = l->plan;
  if (!pf_lab_has(l, w))
    return pf_fail(PF_EINTERNAL, "study: there is no prompt of persona %d and task %d", w.persona,
                   w.task);
  t->q = &t->own;
  if (host_of(w) >= 0)
    return pf_plan_say_host(p, (size_t)host_of(w), task_text(l, w.task), &t->own);
  if (is_neutral(w))
    return neutral_prompt(l, w, &t->own);
  if (w.persona >= PF_BASE && w.task >= PF_BASE) {
    t->q = pf_plan_prompt(p, w.persona, w.task);
    return PF_OK;
  }
  const char *persona = persona_text(l, w.persona);
  return pf_plan_say(p, persona, task_text(l, w.task), &t->own);
}

/* ---- tracks ---------------------------------------------------------------------------------- */

static bool same_who(pf_who a, pf_who b) {
  return a.persona == b.persona && a.task == b.task && a.placing == b.placing;
}

static pf_track *find_track(const pf_lab *l, pf_who w) {
  for (size_t i = 0; i < l->n_tracks; i++)
    if (same_who(l->tracks[i]->who, w) && (w.values_only || !l->tracks[i]->who.values_only))
      return l->tracks[i];
  return NULL;
}

/* Spans by index; a persona that is not there is empty and stands where the task begins. */
static void take_spans(pf_track *t) {
  const pf_role_prompt *q = t->q;
  t->x = q->persona;
  if (t->who.persona == PF_NOBODY || host_of(t->who) >= 0)
    t->x = (pf_span){q->task.lo, q->task.lo};
  t->y = (pf_span){t->x.hi, q->task.hi};
  t->e = (pf_span){q->task.hi, (int32_t)q->enc.n};
}

/* The indices whose residuals are kept get a place. */
static void take_slots(pf_track *t) {
  for (size_t i = 0; i < t->n; i++)
    t->slot[i] = t->who.values_only ? -1 : (int32_t)t->n_slots++;
  for (int s = 0; s < PF_N_SITES && t->who.values_only; s++) {
    int32_t at = pf_track_site(t, (pf_site)s);
    if (at >= 0 && t->slot[at] < 0)
      t->slot[at] = (int32_t)t->n_slots++;
  }
}

static int check_length(const pf_lab *l, const pf_track *t) {
  int32_t end = t->pos[t->n - 1] + 1;
  return end <= l->plan->info->max_positions
             ? PF_OK
             : pf_fail(PF_EINPUT,
                       "study: a prompt with its answer takes %d positions; the model has %d", end,
                       l->plan->info->max_positions);
}

static int fill_track(pf_lab *l, pf_track *t, size_t n_y) {
  take_spans(t);
  if (t->who.values_only && n_y > LAST_PREFIX)
    n_y = LAST_PREFIX;
  t->n_prompt = t->q->enc.n;
  t->n = t->n_prompt + n_y;
  t->ids = pf_alloc(t->n, sizeof *t->ids);
  t->pos = pf_alloc(t->n, sizeof *t->pos);
  t->slot = pf_alloc(t->n, sizeof *t->slot);
  if (!t->ids || !t->pos || !t->slot)
    return PF_ENOMEM;
  memcpy(t->ids, t->q->enc.ids, t->n_prompt * sizeof *t->ids);
  memcpy(t->ids + t->n_prompt, l->y.v, n_y * sizeof *t->ids);
  int32_t gap = t->who.placing == PF_GAP ? cell_prompt(l)->persona.hi - t->x.hi : 0;
  for (size_t i = 0; i < t->n; i++)
    t->pos[i] = (int32_t)i + ((int32_t)i >= t->x.hi ? gap : 0);
  take_slots(t);
  t->h = pf_calloc(t->n_slots * ((size_t)l->layers + 1), l->d * sizeof *t->h);
  t->kept = t->n_slots * ((size_t)l->layers + 1) * l->d * sizeof *t->h +
            t->n * (sizeof *t->ids + sizeof *t->pos + sizeof *t->slot);
  t->cut = (pf_cut){.layer_hi = l->layers,
                    .head = -1,
                    .q_lo = t->x.hi,
                    .q_hi = t->pos[t->n - 1] + 1,
                    .k_lo = t->x.lo,
                    .k_hi = t->x.hi};
  hold(&l->kept, &l->need.kept, t->kept);
  return t->h ? check_length(l, t) : PF_ENOMEM;
}

/* Taps that keep the residual entering each layer, and the one that leaves the last, at the indices
 * [lo, hi), whose positions and slots have no gap. */
static void capture(const pf_lab *l, const pf_track *t, size_t lo, size_t hi, pf_tap *taps) {
  for (int32_t k = 0; k <= l->layers; k++)
    taps[k] =
        (pf_tap){.hook = k < l->layers ? l->hook_pre : l->hook_post,
                 .layer = k < l->layers ? k : l->layers - 1,
                 .head = -1,
                 .pos_lo = t->pos[lo],
                 .pos_hi = t->pos[hi - 1] + 1,
                 .op = PF_OP_CAPTURE,
                 .out = t->h + ((size_t)t->slot[lo] * ((size_t)l->layers + 1) + (size_t)k) * l->d,
                 .out_stride = ((size_t)l->layers + 1) * l->d};
}

/* Taps of a track, at most. */
static size_t taps_of_track(const pf_lab *l) {
  return MAX_SEGMENTS * ((size_t)l->layers + 1);
}

static size_t capture_all(const pf_lab *l, const pf_track *t, pf_tap *taps) {
  size_t n = 0, per = (size_t)l->layers + 1;
  for (size_t lo = 0, hi; lo < t->n; lo = hi) {
    hi = lo + 1;
    if (t->slot[lo] < 0)
      continue;
    while (hi < t->n && t->pos[hi] == t->pos[hi - 1] + 1 && t->slot[hi] == t->slot[hi - 1] + 1)
      hi++;
    capture(l, t, lo, hi, taps + n);
    n += per;
  }
  return n;
}

static void count(pf_lab *l, uint64_t *to, size_t rows) {
  uint64_t now = pf_ctx_row_layers(l->ctx);
  *to += now - l->counted;
  l->counted = now;
  l->cost.rows += rows;
  if (l->o.tick)
    l->o.tick(l->o.tick_user);
}

static int eval(pf_lab *l, const pf_row *rows, size_t n, float *logits, uint64_t *to) {
  if (l->o.stop && *l->o.stop)
    return PF_EINCOMPLETE;
  int rc = pf_eval(l->ctx, rows, n, logits);
  count(l, to, n);
  return rc;
}

/* The cell's own prompt gives the clean logits. */
static bool is_clean(const pf_lab *l, const pf_track *t) {
  return t->who.persona == pf_lab_persona(l) && t->who.task == pf_lab_task(l) &&
         t->who.placing == PF_PLAIN && !t->who.values_only && !l->clean;
}

static size_t track_rows(const pf_lab *l, const pf_track *t, size_t keep, pf_row *rows,
                         bool clean) {
  size_t n = 0;
  for (size_t i = keep; i < t->n; i++) {
    int32_t step = (int32_t)i - (int32_t)t->n_prompt + 1;
    bool out = clean && step >= 0 && (size_t)step < l->y.n;
    rows[n++] =
        (pf_row){.seq = t->seq, .token = t->ids[i], .pos = t->pos[i], .out = out ? step : -1};
  }
  return n;
}

/* The stem that a prompt of the grid begins with: its own, of XY that of XB. */
static pf_who stem_who(const pf_track *t) {
  return (pf_who){.persona = t->who.persona, .task = t->who.persona >= 0 ? PF_BASE : t->who.task};
}

static pf_track *find_stem(const pf_lab *l, const pf_track *t) {
  for (size_t i = 0; i < l->n_stems; i++)
    if (same_who(l->stems[i]->who, stem_who(t)))
      return l->stems[i];
  return NULL;
}

/* The tokens that a track takes from its stem: *stem NULL and 0 where there is none. */
static size_t kept_of(const pf_lab *l, const pf_track *t, const pf_track **stem) {
  *stem = t->who.placing == PF_PLAIN ? find_stem(l, t) : NULL;
  if (!*stem || t == *stem)
    return 0;
  bool whole = same_who(t->who, (*stem)->who);
  return whole ? t->n_prompt : (size_t)pf_shared_prefix(t->q, (*stem)->q, t->q->p_last);
}

/* Continues the stem, with its residuals as far as they are kept. */
static int begin_seq(pf_lab *l, pf_track *t, pf_tap *taps, size_t *keep) {
  const pf_track *stem;
  size_t per = ((size_t)l->layers + 1) * l->d;
  *keep = kept_of(l, t, &stem);
  for (size_t i = 0; i < *keep; i++)
    if (t->slot[i] >= 0)
      memcpy(t->h + (size_t)t->slot[i] * per, stem->h + (size_t)stem->slot[i] * per,
             per * sizeof *t->h);
  int rc = *keep ? pf_seq_fork(&t->seq, stem->seq, (int32_t)*keep) : pf_seq_new(&t->seq, l->ctx);
  if (rc == PF_OK)
    rc = pf_seq_set_taps(t->seq, taps, capture_all(l, t, taps));
  if (rc == PF_OK && t->who.placing == PF_MASK)
    rc = pf_seq_set_cuts(t->seq, &t->cut, 1);
  return rc;
}

static int begin_clean(pf_lab *l) {
  size_t n = l->y.n ? l->y.n : 1;
  l->clean = pf_alloc(n, l->vocab * sizeof *l->clean);
  l->ref = pf_calloc(n, sizeof *l->ref);
  return l->clean && l->ref ? PF_OK : PF_ENOMEM;
}

static void make_refs(pf_lab *l) {
  for (size_t t = 0; t < l->y.n; t++)
    pf_ref_make(&l->ref[t], l->clean + t * l->vocab, l->vocab);
}

/* Counts the K,V that tracks which run take; returns their rows. */
static size_t hold_kv(pf_lab *l, pf_track **t, size_t n) {
  const pf_track *stem;
  size_t rows = 0;
  for (size_t i = 0; i < n; i++) {
    size_t keep = kept_of(l, t[i], &stem);
    int32_t end = t[i]->pos[t[i]->n - 1] + 1;
    rows += t[i]->n - keep;
    t[i]->kv = pf_kv_bytes(l->ctx, keep, (size_t)end);
    l->longest = end > l->longest ? end : l->longest;
    hold(&l->kv, &l->need.kv, t[i]->kv);
  }
  return rows;
}

/* Residuals are all that is wanted of some tracks. */
static void drop_sequences(pf_lab *l, pf_track **t, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (t[i]->who.values_only) {
      pf_seq_free(t[i]->seq);
      t[i]->seq = NULL;
      l->kv -= t[i]->kv;
      t[i]->kv = 0;
    }
}

static int eval_tracks(pf_lab *l, pf_track **t, size_t n, pf_row *rows, pf_tap *taps) {
  size_t at = 0, per = taps_of_track(l), keep;
  bool clean = false;
  int rc = PF_OK;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    bool own = is_clean(l, t[i]);
    clean |= own;
    rc = own ? begin_clean(l) : PF_OK;
    if (rc == PF_OK)
      rc = begin_seq(l, t[i], taps + i * per, &keep);
    if (rc == PF_OK)
      at += track_rows(l, t[i], keep, rows + at, own);
  }
  if (rc == PF_OK)
    rc = eval(l, rows, at, l->clean, &l->cost.base);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = pf_seq_set_taps(t[i]->seq, NULL, 0);
  if (rc == PF_OK && clean)
    make_refs(l);
  return rc;
}

/* Runs new tracks, or stems, in one call. */
static int run_tracks(pf_lab *l, pf_track **t, size_t n) {
  size_t rows = hold_kv(l, t, n),
         bytes = rows * sizeof(pf_row) + n * taps_of_track(l) * sizeof(pf_tap);
  hold(&l->kept, &l->need.kept, bytes);
  int rc = PF_OK;
  if (l->o.dry) {
    l->cost.rows += rows;
    l->cost.base += rows * (uint64_t)l->layers;
  } else {
    pf_row *r = pf_alloc(rows, sizeof *r);
    pf_tap *taps = pf_alloc(n * taps_of_track(l), sizeof *taps);
    rc = r && taps ? eval_tracks(l, t, n, r, taps) : PF_ENOMEM;
    pf_free(r);
    pf_free(taps);
  }
  l->kept -= bytes;
  drop_sequences(l, t, n);
  return rc;
}

/* A track that has not run, with n_y tokens of y. */
static int make_track(pf_lab *l, pf_who w, size_t n_y, pf_track **out) {
  pf_track *t = *out = pf_calloc(1, sizeof *t);
  int rc = t ? PF_OK : PF_ENOMEM;
  if (rc == PF_OK) {
    t->who = w;
    rc = make_prompt(l, w, t);
  }
  if (rc == PF_OK)
    rc = fill_track(l, t, n_y);
  if (rc != PF_OK) {
    track_free(l, t);
    *out = NULL;
  }
  return rc;
}

static int new_track(pf_lab *l, pf_who w, pf_track **out) {
  int rc = pf_grow((void **)&l->tracks, &l->cap_tracks, l->n_tracks + 1, sizeof *l->tracks);
  if (rc == PF_OK)
    rc = make_track(l, w, l->y.n, out);
  if (rc == PF_OK)
    l->tracks[l->n_tracks++] = *out;
  return rc;
}

/* A stem pays where more begins with it than one track: the baseline's serve all cells, XB those of
 * its persona. */
static bool has_stem(const pf_lab *l, pf_who w) {
  return !l->o.no_sharing && w.placing == PF_PLAIN && w.task >= PF_BASE &&
         (w.persona == PF_BASE || w.persona == pf_lab_persona(l));
}

/* Runs the stems that tracks lack. */
static int need_stems(pf_lab *l, pf_track **t, size_t n) {
  size_t had = l->n_stems;
  int rc = PF_OK;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    if (!has_stem(l, t[i]->who) || find_stem(l, t[i]))
      continue;
    rc = pf_grow((void **)&l->stems, &l->cap_stems, l->n_stems + 1, sizeof *l->stems);
    if (rc == PF_OK)
      rc = make_track(l, stem_who(t[i]), 0, &l->stems[l->n_stems]);
    l->n_stems += rc == PF_OK;
  }
  if (rc == PF_OK && l->n_stems > had)
    rc = run_tracks(l, l->stems + had, l->n_stems - had);
  while (rc != PF_OK && l->n_stems > had)
    track_free(l, l->stems[--l->n_stems]);
  return rc;
}

/* Tracks that go together: more rows than a few steps have would only take more K,V. */
static int run_all(pf_lab *l, pf_track **t, size_t n) {
  int rc = PF_OK;
  for (size_t at = 0, m; at < n && rc == PF_OK; at += m) {
    size_t rows = 0;
    for (m = 0; at + m < n && rows < TOGETHER_ROWS; m++)
      rows += t[at + m]->n;
    rc = run_tracks(l, t + at, m);
  }
  return rc;
}

int pf_lab_tracks(pf_lab *l, const pf_who *who, size_t n, const pf_track **out) {
  size_t had = l->n_tracks;
  int rc = PF_OK;
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    pf_track *t = find_track(l, who[i]);
    if (!t)
      rc = new_track(l, who[i], &t);
    out[i] = t;
  }
  if (rc == PF_OK && l->n_tracks > had)
    rc = need_stems(l, l->tracks + had, l->n_tracks - had);
  if (rc == PF_OK && l->n_tracks > had)
    rc = run_all(l, l->tracks + had, l->n_tracks - had);
  if (rc != PF_OK)
    while (l->n_tracks > had)
      track_free(l, l->tracks[--l->n_tracks]);
  return rc;
}

int pf_lab_track(pf_lab *l, pf_who who, const pf_track **out) {
  return pf_lab_tracks(l, &who, 1, out);
}

/* ---- donors and references ------------------------------------------------------------------- */

static int run_donor(pf_lab *l, const pf_track *t, int32_t end, pf_tap *taps, size_t n_taps,
                     pf_seq **out) {
  pf_row *rows = pf_alloc((size_t)end, sizeof *rows);
  int rc = rows ? pf_seq_new(out, l->ctx) : PF_ENOMEM;
  if (rc == PF_OK)
    rc = pf_seq_set_taps(*out, taps, n_taps);
  for (int32_t i = 0; i < end && rc == PF_OK; i++)
    rows[i] = (pf_row){.seq = *out, .token = t->ids[i], .pos = t->pos[i], .out = -1};
  if (rc == PF_OK)
    rc = eval(l, rows, (size_t)end, NULL, &l->cost.base);
  if (rc == PF_OK)
    rc = pf_seq_set_taps(*out, NULL, 0);
  pf_free(rows);
  return rc;
}

/* Counts a donor, and runs it unless the lab is dry. */
static int make_donor(pf_lab *l, const pf_track *t, int32_t end, pf_tap *taps, size_t n_taps,
                      pf_seq **out) {
  *out = NULL;
  if (!l->o.dry)
    return run_donor(l, t, end, taps, n_taps, out);
  l->cost.rows += (uint64_t)end;
  l->cost.base += (uint64_t)end * (uint64_t)l->layers;
  return PF_OK;
}

int pf_lab_donor(pf_lab *l, const pf_track *t, int32_t end, pf_tap *taps, size_t n_taps,
                 const pf_seq **out) {
  int rc = pf_grow((void **)&l->donors, &l->cap_donors, l->n_donors + 1, sizeof *l->donors);
  size_t bytes = pf_kv_bytes(l->ctx, 0, (size_t)t->pos[end - 1] + 1);
  pf_seq *s = NULL;
  if (out)
    *out = NULL;
  if (rc != PF_OK)
    return rc;
  hold(&l->kv, &l->need.kv, bytes);
  rc = make_donor(l, t, end, taps, n_taps, &s);
  if (out && rc == PF_OK) {
    *out = l->donors[l->n_donors++] = s;
    l->donors_kv += bytes;
    return PF_OK;
  }
  pf_seq_free(s);
  l->kv -= bytes;
  return rc;
}

/* Logits from the residuals that leave the last layer. */
static int run_refs(pf_lab *l, const pf_track *t, struct refs *r) {
  pf_row *rows = pf_alloc(l->y.n, sizeof *rows);
  pf_seq *s = NULL;
  int32_t end = t->pos[pf_track_row(t, (int32_t)l->y.n - 1)] + 1;
  int rc = rows ? pf_seq_fork_layers(&s, t->seq, end, NULL) : PF_ENOMEM;
  for (size_t k = 0; k < l->y.n && rc == PF_OK; k++) {
    int32_t i = pf_track_row(t, (int32_t)k);
    rows[k] = (pf_row){.seq = s,
                       .token = t->ids[i],
                       .pos = t->pos[i],
                       .out = (int32_t)k,
                       .layer = l->layers,
                       .resid = pf_lab_h(l, t, i, l->layers)};
  }
  if (rc == PF_OK)
    rc = eval(l, rows, l->y.n, r->logits, &l->cost.base);
  for (size_t k = 0; k < l->y.n && rc == PF_OK; k++)
    pf_ref_make(&r->ref[k], r->logits + k * l->vocab, l->vocab);
  pf_seq_free(s);
  pf_free(rows);
  return rc;
}

int pf_lab_refs(pf_lab *l, const pf_track *t, const pf_ref **out) {
  for (size_t i = 0; i < l->n_refs; i++)
    if (l->refs[i].t == t) {
      *out = l->refs[i].ref;
      return PF_OK;
    }
  size_t n = l->y.n ? l->y.n : 1;
  int rc = pf_grow((void **)&l->refs, &l->cap_refs, l->n_refs + 1, sizeof *l->refs);
  if (rc != PF_OK)
    return rc;
  struct refs *r = &l->refs[l->n_refs++];
  hold(&l->kept, &l->need.kept, refs_bytes(l));
  *r = (struct refs){t, l->o.dry ? NULL : pf_alloc(n, l->vocab * sizeof(float)),
                     pf_calloc(n, sizeof(pf_ref))};
  *out = r->ref;
  if (!r->ref || (!l->o.dry && !r->logits))
    return PF_ENOMEM;
  return l->o.dry || l->y.n == 0 ? PF_OK : run_refs(l, t, r);
}

/* ---- trials ---------------------------------------------------------------------------------- */

pf_tap pf_lab_put(const pf_lab *l, const pf_track *t, int32_t index, int32_t layer, pf_op op,
                  const float *value) {
  bool last = layer == l->layers;
  return (pf_tap){.hook = last ? l->hook_post : l->hook_pre,
                  .layer = last ? layer - 1 : layer,
                  .head = -1,
                  .pos_lo = t->pos[index],
                  .pos_hi = t->pos[index] + 1,
                  .op = op,
                  .value = value};
}

/* A trial in the running step. */
typedef struct live {
  const pf_trial *v;
  pf_seq *seq;
  int32_t *layers; /* by position: where its row enters */
  pf_score *score; /* (to - from) */
  int32_t to;
  size_t rows, bytes;
} live;

static int32_t last_step(const pf_lab *l, const pf_trial *v) {
  return v->to < (int32_t)l->y.n ? v->to : (int32_t)l->y.n;
}

/* Index one past the row that gives the last scored token. */
static int32_t end_index(const pf_lab *l, const pf_trial *v) {
  return pf_track_row(v->t, last_step(l, v) - 1) + 1;
}

static bool scored(const live *x, int32_t index) {
  int32_t step = index - pf_track_row(x->v->t, 0);
  return step >= x->v->from && step < x->to;
}

/* Bytes of a trial's branch over n positions: of each block of K,V the layers from the first on at
 * which a row of it enters, the tables of its sequence, and the copies of what it does. */
static size_t branch_bytes(const pf_lab *l, const live *x, int32_t n) {
  const pf_trial *v = x->v;
  size_t one = pf_kv_bytes(l->ctx, 0, 1) / (size_t)l->layers,
         bytes = v->n_cuts * sizeof *v->cuts + v->n_swaps * sizeof *v->swaps +
                 v->n_taps * sizeof *v->taps;
  for (int32_t lo = 0; lo < n; lo += PF_KV_BLOCK) {
    int32_t least = l->layers;
    for (int32_t p = lo; p < n && p < lo + PF_KV_BLOCK; p++)
      least = x->layers[p] < least ? x->layers[p] : least;
    bytes += (size_t)(l->layers - least) * one + PF_KV_BLOCK * 3 * sizeof(int32_t) +
             (size_t)l->layers * sizeof(void *);
  }
  return bytes;
}

/* Where each row enters. A row is run if a layer of it is new or its logits are wanted. */
static int reach(const pf_lab *l, live *x) {
  const pf_trial *v = x->v;
  int32_t end = end_index(l, v), n = v->t->pos[end - 1] + 1;
  x->layers = pf_alloc((size_t)n, sizeof *x->layers);
  if (!x->layers)
    return PF_ENOMEM;
  for (int32_t p = 0; p < n; p++)
    x->layers[p] = l->o.no_sharing ? 0 : l->layers;
  pf_reach_taps(v->taps, v->n_taps, n, x->layers);
  pf_reach_cuts(v->cuts, v->n_cuts, n, x->layers);
  pf_reach_swaps(v->swaps, v->n_swaps, n, x->layers);
  for (int32_t i = 0; i < end; i++) {
    int32_t at = x->layers[v->t->pos[i]];
    x->rows += at < l->layers || scored(x, i);
  }
  x->bytes = branch_bytes(l, x, n);
  return PF_OK;
}

/* Cuts of the track itself and of the trial. */
static int set_cuts(const pf_trial *v, pf_seq *s) {
  bool masked = v->t->who.placing == PF_MASK;
  if (!masked)
    return pf_seq_set_cuts(s, v->cuts, v->n_cuts);
  pf_cut *cuts = pf_alloc(v->n_cuts + 1, sizeof *cuts);
  if (!cuts)
    return PF_ENOMEM;
  cuts[0] = v->t->cut;
  if (v->n_cuts)
    memcpy(cuts + 1, v->cuts, v->n_cuts * sizeof *cuts);
  int rc = pf_seq_set_cuts(s, cuts, v->n_cuts + 1);
  pf_free(cuts);
  return rc;
}

static int fork_track(const pf_lab *l, live *x) {
  const pf_trial *v = x->v;
  if (!v->t->seq)
    return pf_fail(PF_EINTERNAL, "study: a trial of a run without K,V");
  int32_t n = v->t->pos[end_index(l, v) - 1] + 1;
  int rc = l->o.no_sharing ? pf_seq_new(&x->seq, l->ctx)
                           : pf_seq_fork_layers(&x->seq, v->t->seq, n, x->layers);
  if (rc == PF_OK)
    rc = pf_seq_set_taps(x->seq, v->taps, v->n_taps);
  if (rc == PF_OK)
    rc = set_cuts(v, x->seq);
  if (rc == PF_OK)
    rc = pf_seq_set_swaps(x->seq, v->swaps, v->n_swaps);
  x->score = pf_calloc((size_t)(x->to - v->from), sizeof *x->score);
  return rc == PF_OK && !x->score ? PF_ENOMEM : rc;
}

static pf_row row_at(const pf_lab *l, live *x, int32_t i) {
  const pf_track *t = x->v->t;
  int32_t at = x->layers[t->pos[i]], step = i - pf_track_row(t, 0);
  pf_row r = {.seq = x->seq, .token = t->ids[i], .pos = t->pos[i], .out = -1, .layer = at};
  if (at > 0)
    r.resid = pf_lab_h(l, t, i, at);
  if (scored(x, i)) {
    r.score = &x->score[step - x->v->from];
    *r.score = (pf_score){.what = PF_SCORE_KL | (x->v->jsd ? PF_SCORE_JSD : 0u) |
                                  (x->v->logprob ? PF_SCORE_LOGPROB : 0u),
                          .ref = x->v->ref ? &x->v->ref[step] : &l->ref[step],
                          .token = l->y.v[step]};
  }
  return r;
}

/* Rows of a step: what comes before the first scored row, trial by trial; then, token by token of
 * y, the rows of all trials: those that share a reference stand together. */
static size_t step_rows(const pf_lab *l, live *x, size_t n, pf_row *rows) {
  size_t k = 0;
  for (size_t j = 0; j < n; j++)
    for (int32_t i = 0; i < pf_track_row(x[j].v->t, 0); i++)
      if (x[j].layers[x[j].v->t->pos[i]] < l->layers)
        rows[k++] = row_at(l, &x[j], i);
  for (int32_t step = 0; step < (int32_t)l->y.n; step++)
    for (size_t j = 0; j < n; j++) {
      int32_t i = pf_track_row(x[j].v->t, step);
      if (step < x[j].to && (x[j].layers[x[j].v->t->pos[i]] < l->layers || scored(&x[j], i)))
        rows[k++] = row_at(l, &x[j], i);
    }
  return k;
}

static int check_taps(const pf_trial *v) {
  for (size_t i = 0; i < v->n_taps; i++)
    if (!v->taps[i].fired)
      return pf_fail(PF_EINTERNAL, "study: an action at layer %d, positions %d to %d met no row",
                     v->taps[i].layer, v->taps[i].pos_lo, v->taps[i].pos_hi - 1);
  return PF_OK;
}

static void take_scores(const live *x) {
  for (int32_t k = 0; k < x->to - x->v->from; k++) {
    x->v->kl[k] = x->score[k].kl;
    if (x->v->jsd) {
      x->v->reverse_kl[k] = x->score[k].reverse_kl;
      x->v->jsd[k] = x->score[k].jsd;
    }
    if (x->v->logprob)
      x->v->logprob[k] = x->score[k].logprob;
  }
}

static int run_step(pf_lab *l, live *x, size_t n) {
  size_t n_rows = 0;
  for (size_t j = 0; j < n; j++)
    n_rows += x[j].rows;
  pf_row *rows = pf_alloc(n_rows, sizeof *rows);
  int rc = rows ? PF_OK : PF_ENOMEM;
  for (size_t j = 0; j < n && rc == PF_OK; j++)
    rc = fork_track(l, &x[j]);
  if (rc == PF_OK)
    rc = eval(l, rows, step_rows(l, x, n, rows), NULL, &l->cost.changed);
  for (size_t j = 0; j < n && rc == PF_OK; j++) {
    rc = check_taps(x[j].v);
    take_scores(&x[j]);
  }
  pf_free(rows);
  return rc;
}

static void end_step(live *x, size_t n) {
  for (size_t j = 0; j < n; j++) {
    pf_seq_free(x[j].seq);
    pf_free(x[j].layers);
    pf_free(x[j].score);
  }
}

/* Bytes of branches that a step may own: what the plan leaves, or what there is so far where there
 * is no plan. */
static size_t in_flight(const pf_lab *l) {
  pf_lab_need n = l->o.need.fixed ? l->o.need : pf_lab_needs(l);
  n.kv = l->kv;
  uint64_t used = pf_lab_bytes(&n);
  return l->o.memory == 0 ? SIZE_MAX : l->o.memory > used ? l->o.memory - used : 0;
}

static void count_trial(pf_lab *l, const live *x) {
  const pf_trial *v = x->v;
  int32_t end = end_index(l, v);
  l->cost.trials++;
  l->cost.scored += (uint64_t)(x->to - v->from);
  l->cost.whole += (uint64_t)end * (uint64_t)l->layers;
  if (!l->o.dry)
    return;
  l->cost.rows += x->rows;
  for (int32_t i = 0; i < end; i++)
    l->cost.changed += (uint64_t)(l->layers - x->layers[v->t->pos[i]]);
}

/* Trials from v[*at] on that go together, into x; returns their number. Trials that have nothing to
 * score, because y ended before, are passed over. */
static int next_step(pf_lab *l, const pf_trial *v, size_t n, size_t *at, live *x, size_t *m) {
  size_t rows = 0, bytes = 0, limit = in_flight(l);
  for (*m = 0; *at < n && *m < PF_CALL_ROWS; ++*at) {
    live *e = &x[*m];
    *e = (live){.v = &v[*at], .to = last_step(l, &v[*at])};
    if (e->to <= e->v->from)
      continue;
    int rc = reach(l, e);
    bool full = *m && (rows + e->rows > PF_CALL_ROWS || bytes + e->bytes > limit);
    if (rc != PF_OK || full) {
      pf_free(e->layers);
      return rc;
    }
    rows += e->rows;
    bytes += e->bytes;
    if (l->kv + e->bytes > l->need.kv)
      l->need.kv = l->kv + e->bytes;
    ++*m;
  }
  return PF_OK;
}

int pf_lab_run(pf_lab *l, const pf_trial *v, size_t n) {
  live *x = pf_calloc(PF_CALL_ROWS, sizeof *x);
  int rc = x ? PF_OK : PF_ENOMEM;
  for (size_t at = 0, m = 0; at < n && rc == PF_OK;) {
    rc = next_step(l, v, n, &at, x, &m);
    for (size_t j = 0; j < m && rc == PF_OK; j++)
      count_trial(l, &x[j]);
    if (rc == PF_OK && m && !l->o.dry)
      rc = run_step(l, x, m);
    end_step(x, m);
  }
  pf_free(x);
  return rc;
}

/* ---- cells ----------------------------------------------------------------------------------- */

int pf_lab_cell(pf_lab *l, size_t cell, const int32_t *y, size_t n_y) {
  int rc = PF_OK;
  drop_cell(l);
  l->cell = cell;
  drop_stems(l, pf_lab_persona(l));
  for (size_t i = 0; i < n_y && rc == PF_OK; i++)
    rc = pf_ids_push(&l->y, y[i]);
  hold(&l->kept, &l->need.kept, refs_bytes(l));
  return rc;
}

int pf_lab_new(pf_lab **out, const pf_plan *p, const pf_lab_opts *o) {
  const pf_model_info *i = p->info;
  pf_lab *l = *out = pf_calloc(1, sizeof *l);
  if (!l)
    return PF_ENOMEM;
  l->plan = p;
  l->o = *o;
  l->d = (size_t)i->d_model;
  l->vocab = (size_t)i->vocab_size;
  l->layers = i->n_layers;
  l->hook_pre = pf_lab_hook(l, "blocks.0.hook_resid_pre");
  l->hook_post = pf_lab_hook(l, "blocks.0.hook_resid_post");
  int rc = l->hook_pre < 0 ? l->hook_pre : l->hook_post < 0 ? l->hook_post : PF_OK;
  if (rc == PF_OK)
    rc = pf_ctx_new(&l->ctx, p->model, &(pf_ctx_opts){.threads = o->threads});
  if (rc != PF_OK) {
    pf_lab_free(l);
    *out = NULL;
  }
  return rc;
}

void pf_lab_free(pf_lab *l) {
  if (!l)
    return;
  drop_cell(l);
  drop_stems(l, PF_NOBODY);
  free_blocks(l);
  pf_free(l->stems);
  pf_free(l->tracks);
  pf_free(l->donors);
  pf_free(l->refs);
  pf_ctx_free(l->ctx);
  pf_free(l);
}
