/* SPDX-License-Identifier: Apache-2.0
 * Scratch memory of a context: made once for the largest step seen, so that nothing is allocated
 * per token. */
#include "base/mem.h"
#include "base/status.h"
#include "model/step.h"

static size_t max3(size_t a, size_t b, size_t c) {
  size_t m = a > b ? a : b;
  return m > c ? m : c;
}

typedef struct part {
  float **at;
  size_t width;
} part;

/* Floats a row of operands takes for the weights that the precision stores so. */
static size_t operand_width(const pf_scratch *s, const pf_model_info *i, pf_wtype w) {
  return pf_products[pf_modes[i->precision].kind[w]].parts * s->kp_max;
}

enum { N_PARTS = 13 + PF_N_WTYPES };

/* The arrays over rows and their widths; op: the operands'. */
static void list_parts(pf_scratch *s, const pf_model_info *i, float *op[PF_N_WTYPES],
                       part parts[N_PARTS]) {
  size_t d = (size_t)i->d_model, f = (size_t)i->d_ff, hd = (size_t)i->n_heads * (size_t)i->d_head;
  size_t kd = (size_t)i->n_kv_heads * (size_t)i->d_head, half = (size_t)i->d_head / 2, n = 0;
  s->kp_max = pf_round_up(max3(d, f, hd), PF_S8BLK);
  const part rows[] = {{&s->x, d},     {&s->norm, d},   {&s->q, hd},     {&s->k, kd},
                       {&s->v, kd},    {&s->rot_q, hd}, {&s->rot_k, kd}, {&s->z, hd},
                       {&s->out, d},   {&s->gate, f},   {&s->up, f},     {&s->cos, half},
                       {&s->sin, half}};
  for (; n < sizeof rows / sizeof *rows; n++)
    parts[n] = rows[n];
  for (int w = 0; w < PF_N_WTYPES; w++)
    parts[n++] = (part){&op[w], operand_width(s, i, (pf_wtype)w)};
}

static size_t floats_of(const part parts[N_PARTS], size_t rows) {
  size_t total = 0;
  for (size_t i = 0; i < N_PARTS; i++)
    total += pf_round_up(rows * parts[i].width, 16);
  return total;
}

static int make_rows(pf_scratch *s, const pf_model_info *i, size_t rows) {
  float *op[PF_N_WTYPES];
  part parts[N_PARTS];
  pf_free(s->block);
  s->rows = pf_round_up(rows, 16); /* operands come in groups of 16 rows */
  list_parts(s, i, op, parts);
  float *p = s->block = pf_calloc(floats_of(parts, s->rows), sizeof(float));
  if (!p) {
    s->rows = 0;
    return PF_ENOMEM;
  }
  for (size_t n = 0; n < N_PARTS; n++) {
    *parts[n].at = p;
    p += pf_round_up(s->rows * parts[n].width, 16);
  }
  for (int w = 0; w < PF_N_WTYPES; w++)
    s->op[w] = op[w];
  return PF_OK;
}

/* Floats of the scores, and rows of masks, of the largest item over up to n_blk blocks. */
static size_t lane_scores(size_t group, size_t n_blk) {
  size_t one = group * n_blk * PF_KBLK;
  return one > PF_ATTEND_SCORES ? one : PF_ATTEND_SCORES;
}

static size_t group_of(const pf_model_info *i) {
  return (size_t)(i->n_heads / i->n_kv_heads);
}

static size_t act_bytes(const pf_model_info *i) {
  return pf_round_up((size_t)i->d_ff * sizeof(float), 64);
}

/* One thread's arrays in one block. */
static void carve_lane(pf_lane *l, const pf_model_info *i, char *p, size_t n_blk, size_t swapped) {
  size_t group = group_of(i), rows = pf_attend_rows(group, 1), queries = rows * group;
  l->work = p;
  p += PF_GEMM_WORK;
  l->act = (float *)(void *)p;
  p += act_bytes(i);
  l->swapped = swapped ? p : NULL;
  l->s = (float *)(void *)(p + swapped);
  l->k = (const void **)(l->s + lane_scores(group, n_blk));
  l->v = l->k + n_blk;
  l->q = (const float **)(l->v + n_blk);
  l->y = (float **)(l->q + queries);
  l->seen = (const uint32_t **)(l->y + queries);
  l->mask = (uint32_t *)(l->seen + queries);
}

static size_t lane_bytes(const pf_model_info *i, size_t n_blk, size_t swapped) {
  size_t group = group_of(i), rows = pf_attend_rows(group, 1);
  return pf_round_up(
      PF_GEMM_WORK + act_bytes(i) + swapped + lane_scores(group, n_blk) * sizeof(float) +
          (2 * n_blk + 3 * rows * group) * sizeof(void *) + rows * group * n_blk * sizeof(uint32_t),
      64);
}

static int make_lanes(pf_ctx *c, pf_scratch *s, size_t n_blk, bool swaps) {
  const pf_model_info *i = &c->model->cfg.info;
  size_t nt = (size_t)c->threads;
  size_t swapped = swaps ? n_blk * (pf_kv_k_head(c) + pf_kv_v_head(c)) : 0;
  size_t bytes = lane_bytes(i, n_blk, swapped);
  pf_free(s->lane_block);
  pf_free(s->lanes);
  pf_free(s->turns);
  s->lane_blk = 0;
  s->turns = pf_calloc(nt, sizeof *s->turns);
  s->lanes = pf_calloc(nt, sizeof *s->lanes);
  s->lane_block = pf_alloc(nt, bytes);
  if (!s->turns || !s->lanes || !s->lane_block)
    return PF_ENOMEM;
  for (size_t t = 0; t < nt; t++)
    carve_lane(&s->lanes[t], i, (char *)s->lane_block + t * bytes, n_blk, swapped);
  s->lane_blk = n_blk;
  s->lane_swaps = swaps;
  return PF_OK;
}

/* Per-head results are wanted rarely: their room is made at first use. */
int pf_scratch_results(pf_ctx *c) {
  pf_scratch *s = c->scratch;
  const pf_model_info *i = &c->model->cfg.info;
  size_t heads = (size_t)i->n_heads;
  if (s->result)
    return PF_OK;
  s->result = pf_alloc(heads * (2 * (size_t)i->d_model + (size_t)i->d_head), sizeof(float));
  s->result_z = s->result ? s->result + 2 * heads * (size_t)i->d_model : NULL;
  return s->result ? PF_OK : PF_ENOMEM;
}

/* Kept from call to call: fresh memory of this size costs more than what is written to it. */
int pf_scratch_logits(pf_ctx *c, size_t rows) {
  pf_scratch *s = c->scratch;
  if (rows <= s->logit_rows)
    return PF_OK;
  pf_free(s->logits);
  s->logits = pf_alloc(rows, (size_t)c->model->cfg.info.vocab_size * sizeof *s->logits);
  s->logit_rows = s->logits ? rows : 0;
  return s->logits ? PF_OK : PF_ENOMEM;
}

int pf_scratch_make(pf_ctx *c, size_t rows, size_t n_blk, bool swaps) {
  if (!c->scratch && !(c->scratch = pf_calloc(1, sizeof *c->scratch)))
    return PF_ENOMEM;
  pf_scratch *s = c->scratch;
  int rc = PF_OK;
  if (rows > s->rows)
    rc = make_rows(s, &c->model->cfg.info, rows);
  if (rc == PF_OK && (n_blk > s->lane_blk || swaps > s->lane_swaps))
    rc = make_lanes(c, s, n_blk + n_blk / 2, swaps || s->lane_swaps);
  return rc;
}

size_t pf_ctx_scratch_bytes(const pf_ctx *c, size_t rows, int32_t positions) {
  const pf_model_info *i = &c->model->cfg.info;
  pf_scratch s;
  float *op[PF_N_WTYPES];
  part parts[N_PARTS];
  size_t n_blk = (size_t)positions / PF_KBLK + 1;
  list_parts(&s, i, op, parts);
  return floats_of(parts, pf_round_up(rows < PF_STEP_ROWS ? rows : PF_STEP_ROWS, 16)) *
             sizeof(float) +
         (size_t)c->threads * lane_bytes(i, n_blk + n_blk / 2, 0);
}

void pf_scratch_free(pf_scratch *s) {
  if (!s)
    return;
  pf_free(s->block);
  pf_free(s->turns);
  pf_free(s->lanes);
  pf_free(s->lane_block);
  pf_free(s->result);
  pf_free(s->logits);
  pf_free(s);
}
