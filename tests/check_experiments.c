/* SPDX-License-Identifier: Apache-2.0
 * What each record of C1, C3 and D1 to D5 is of: its numbers against a trial made here from
 * doc/STUDY.md's words, with the residuals, keys and values of the runs that it names. Trials
 * themselves: check_lab. */
#include "config.h"

#include <math.h>

#include "analysis/experiment.h"
#include "analysis/heads.h"
#include "analysis/jsonout.h"
#include "analysis/records.h"
#include "base/js.h"
#include "tests/lab_util.h"

enum { N_Y = 12, MAX_TAPS = 16, MAX_WIDTH = 256 };

static lu_cell demo;
static pf_lab *lab;
static json_t *rows;
static int x, y, np, nt;
static int32_t layers;
static size_t d;

/* y becomes what the model says itself: likelier behind the cell's prompt than in any host. */
static void greedy_y(void) {
  const pf_encoding *q = &demo.plan.xy[demo.cell].enc;
  float *logits = calloc((size_t)demo.plan.info->vocab_size, sizeof *logits), margin;
  pf_ctx *c;
  pf_seq *s;
  ck_assert(pf_ctx_new(&c, demo.plan.model, &(pf_ctx_opts){.threads = 1}) == PF_OK);
  ck_assert(pf_seq_new(&s, c) == PF_OK);
  for (int32_t i = 0; i + 1 < (int32_t)q->n + N_Y; i++) {
    int32_t said = i + 1 - (int32_t)q->n;
    pf_row r = {.seq = s,
                .token = said <= 0 ? q->ids[i] : demo.y[said - 1],
                .pos = i,
                .out = said < 0 ? -1 : 0};
    ck_assert(pf_eval(c, &r, 1, logits) == PF_OK);
    if (said >= 0)
      demo.y[said] = pf_argmax(logits, (size_t)demo.plan.info->vocab_size, &margin);
  }
  free(logits);
  pf_seq_free(s);
  pf_ctx_free(c);
}

static void open_cell(size_t n_y) {
  lu_open(&demo, 0);
  greedy_y();
  lab = lu_lab(&demo, n_y, (pf_lab_opts){0});
  rows = json_array();
  x = pf_lab_persona(lab);
  y = pf_lab_task(lab);
  np = (int)demo.plan.grid.n_personas;
  nt = (int)demo.plan.grid.n_tasks;
  layers = pf_lab_layers(lab);
  d = pf_lab_d(lab);
  ck_assert(d <= MAX_WIDTH);
}

static void close_cell(void) {
  json_decref(rows);
  pf_lab_free(lab);
  pf_plan_free(&demo.plan);
}

static const pf_track *track(int persona, int task, pf_placing placing) {
  const pf_track *t;
  ck_assert_msg(pf_lab_track(lab, (pf_who){persona, task, placing, false}, &t) == PF_OK, "%s",
                pf_last_error());
  return t;
}

static const float *at(const pf_track *t, int32_t offset, int32_t layer) {
  return pf_lab_h(lab, t, (int32_t)t->n_prompt - 1 + offset, layer);
}

/* ---- what is recorded ------------------------------------------------------------------------ */

static const json_t *record(const char *query) {
  const json_t *row;
  size_t i;
  json_array_foreach(rows, i, row) {
    if (pf_record_is(row, query))
      return row;
  }
  ck_abort_msg("no record %s", query);
}

static double number(const json_t *row, const char *key) {
  ck_assert_msg(json_is_number(json_object_get(row, key)), "no number %s", key);
  return pf_js_real(row, key);
}

static void near(double got, double want, const char *what, const char *key) {
  ck_assert_msg(fabs(got - want) <= 1e-4 * fabs(want) + 1e-9, "%s: %s %.9g, want %.9g", what, key,
                got, want);
}

/* ---- a trial of one's own -------------------------------------------------------------------- */

typedef struct trial {
  pf_trial v;
  double kl[N_Y], reverse[N_Y], jsd[N_Y], logprob[N_Y];
} trial;

static double sum(const double *v, int lo, int hi) {
  double s = 0;
  for (int k = lo; k < hi && k < (int)pf_lab_n_y(lab); k++)
    s += v[k];
  return s;
}

static void run(trial *t) {
  t->v.to = (int32_t)pf_lab_n_y(lab);
  t->v.kl = t->kl;
  t->v.reverse_kl = t->reverse;
  t->v.jsd = t->jsd;
  t->v.logprob = t->logprob;
  ck_assert_msg(pf_lab_run(lab, &t->v, 1) == PF_OK, "%s", pf_last_error());
}

/* A vector of this length in any direction, added to `out`. */
static void wander(double length, uint64_t stream, double *out) {
  double u[MAX_WIDTH], squares = 0;
  for (size_t e = 0; e < d; e++) {
    u[e] = -6; /* twelve numbers from 0 to 1: a bell */
    for (uint64_t k = 0; k < 12; k++)
      u[e] += pf_uniform(97, stream, 12 * e + k);
    squares += u[e] * u[e];
  }
  for (size_t e = 0; e < d; e++)
    out[e] += u[e] * length / sqrt(squares);
}

/* Of as many random directions the cost is alike, and grows as the square of the length does. */
static void alike(double got, double want, const char *what) {
  ck_assert_msg(got < 1.5 * want && want < 1.5 * got, "%s: %g, here %g", what, got, want);
}

/* ---- C3 -------------------------------------------------------------------------------------- */

static const pf_track *bb, *xb, *by, *xy;

static void open_runs(void) {
  xy = track(x, y, PF_PLAIN);
  bb = track(PF_BASE, PF_BASE, PF_PLAIN);
  xb = track(x, PF_BASE, PF_PLAIN);
  by = track(PF_BASE, y, PF_PLAIN);
}

typedef void (*value)(int32_t offset, int32_t layer, double *out);

static void cached(int32_t o, int32_t l, double *out) {
  for (size_t e = 0; e < d; e++)
    out[e] = (double)at(bb, o, l)[e] + ((double)at(xb, o, l)[e] - (double)at(bb, o, l)[e]) +
             ((double)at(by, o, l)[e] - (double)at(bb, o, l)[e]);
}

static void oracle(int32_t o, int32_t l, double *out) {
  for (size_t e = 0; e < d; e++)
    out[e] = (double)at(xy, o, l)[e];
}

static void other_persona(int32_t o, int32_t l, double *out) {
  const pf_track *t = track((x + 1) % np, y, PF_PLAIN);
  for (size_t e = 0; e < d; e++)
    out[e] = (double)at(t, o, l)[e];
}

static void delta(int32_t o, int32_t l, double *out) {
  for (size_t e = 0; e < d; e++)
    out[e] = (double)at(xb, o, l)[e] - (double)at(bb, o, l)[e];
}

/* At p_last, whatever the offset. */
static void mean_delta(int32_t o, int32_t l, double *out) {
  (void)o;
  memset(out, 0, d * sizeof *out);
  for (int j = 0; j < nt; j++)
    for (size_t e = 0; e < d && j != y; e++)
      out[e] += ((double)at(track(x, j, PF_PLAIN), 0, l)[e] -
                 (double)at(track(PF_BASE, j, PF_PLAIN), 0, l)[e]) /
                (nt - 1);
}

static void averaged(int32_t o, int32_t l, double *out) {
  mean_delta(o, l, out);
  for (size_t e = 0; e < d; e++)
    out[e] += (double)at(by, o, l)[e];
}

/* The host with values at the offsets [from, to) of one layer; alpha 0: in the place of what is
 * there, else so many times added. */
static void put_in(const pf_track *host, value of, double alpha, int32_t from, int32_t to,
                   int32_t layer, trial *t) {
  static float h[64][MAX_WIDTH];
  double u[MAX_WIDTH];
  pf_tap tap = pf_lab_put(lab, host, (int32_t)host->n_prompt - 1 + from, layer,
                          alpha != 0 ? PF_OP_ADD : PF_OP_REPLACE, h[0]);
  tap.pos_hi = tap.pos_lo + to - from;
  tap.value_stride = MAX_WIDTH;
  ck_assert(to - from <= 64);
  for (int32_t o = from; o < to; o++) {
    of(o, layer, u);
    for (size_t e = 0; e < d; e++)
      h[o - from][e] = (float)((alpha != 0 ? alpha : 1) * u[e]);
  }
  *t = (trial){.v = {.t = host, .taps = &tap, .n_taps = of != NULL}};
  run(t);
}

static void host_alone(const pf_track *host, trial *t) {
  *t = (trial){.v = {.t = host}};
  run(t);
}

static void same(const char *query, const trial *t, const trial *base) {
  const json_t *row = record(query);
  near(number(row, "kl"), sum(t->kl, 0, N_Y), query, "kl");
  near(number(row, "kl10"), sum(t->kl, 0, 10), query, "kl10");
  near(number(row, "kl_0"), t->kl[0], query, "kl_0");
  near(number(row, "kl_1_9"), sum(t->kl, 1, 10), query, "kl_1_9");
  near(number(row, "kl_10"), sum(t->kl, 10, N_Y), query, "kl_10");
  near(number(row, "reverse_kl10"), sum(t->reverse, 0, 10), query, "reverse_kl10");
  near(number(row, "jsd10"), sum(t->jsd, 0, 10), query, "jsd10");
  if (!base)
    return;
  near(number(row, "closure"), 1 - sum(t->kl, 0, N_Y) / sum(base->kl, 0, N_Y), query, "closure");
  near(number(row, "closure10"), 1 - sum(t->kl, 0, 10) / sum(base->kl, 0, 10), query, "closure10");
  near(number(row, "closure_1_9"), 1 - sum(t->kl, 1, 10) / sum(base->kl, 1, 10), query,
       "closure_1_9");
  near(number(row, "closure_jsd10"), 1 - sum(t->jsd, 0, 10) / sum(base->jsd, 0, 10), query,
       "closure_jsd10");
}

static int32_t tokens_from(const pf_track *t, bool task) {
  return (int32_t)t->n_prompt - 1 - (task ? t->y.lo : t->e.lo);
}

static int32_t least(const pf_track *a, const pf_track *b, bool task) {
  return tokens_from(a, task) < tokens_from(b, task) ? tokens_from(a, task) : tokens_from(b, task);
}

/* In the baseline persona's prompt, layer 4 of 8. */
static void contents_in_b(const trial *base) {
  const int32_t e = tokens_from(by, false), y_oracle = least(by, xy, true);
  int32_t y_cached = least(bb, xb, true) < y_oracle ? least(bb, xb, true) : y_oracle;
  const struct {
    const char *query;
    value of;
    double alpha;
    int32_t from, to;
  } all[] = {{"condition=cached positions=p_last set=14", cached, 0, 0, 1},
             {"condition=oracle positions=p_last set=14", oracle, 0, 0, 1},
             {"condition=other_persona", other_persona, 0, 0, 1},
             {"condition=averaged", averaged, 0, 0, 1},
             {"condition=delta alpha=0.5", delta, .5, 0, 1},
             {"condition=delta alpha=4", delta, 4, 0, 1},
             {"condition=mean_delta positions=p_last alpha=2", mean_delta, 2, 0, 1},
             {"condition=cached positions=E", cached, 0, -e, 1},
             {"condition=oracle positions=E", oracle, 0, -e, 1},
             {"condition=cached positions=Y+E", cached, 0, -y_cached, 1},
             {"condition=oracle positions=Y+E", oracle, 0, -y_oracle, 1},
             {"condition=oracle positions=window", oracle, 0, 0, 3},
             {"condition=cached positions=every_step set=14", cached, 0, 0, N_Y},
             {"condition=mean_delta positions=every_step alpha=1", mean_delta, 1, 0, N_Y}};
  ck_assert(e > 0 && y_oracle > e && y_cached > e);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char query[128];
    trial t;
    snprintf(query, sizeof query, "host=B %s", all[i].query);
    put_in(by, all[i].of, all[i].alpha, all[i].from, all[i].to, 4, &t);
    same(query, &t, base);
  }
}

/* Once in each of the other hosts. */
static void other_hosts(void) {
  const struct {
    const char *host;
    const pf_track *t;
  } all[] = {{"bare", track(PF_NOBODY, y, PF_PLAIN)},
             {"N", track(PF_NEUTRAL, y, PF_GAP)},
             {"GAP", track(PF_BASE, y, PF_GAP)},
             {"MASK", track(x, y, PF_MASK)}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char query[128];
    trial base, t;
    host_alone(all[i].t, &base);
    snprintf(query, sizeof query, "host=%s condition=none", all[i].host);
    same(query, &base, NULL);
    put_in(all[i].t, oracle, 0, 0, 1, 4, &t);
    snprintf(query, sizeof query, "host=%s condition=oracle", all[i].host);
    same(query, &t, &base);
    put_in(all[i].t, cached, 0, 0, 1, 4, &t);
    snprintf(query, sizeof query, "host=%s condition=cached", all[i].host);
    same(query, &t, &base);
  }
}

/* Which conditions hold by construction: what replaces the final norm's input, at the first step or
 * at all; nothing, and what is there anyway. */
static void degenerates(void) {
  const json_t *row;
  size_t i;
  json_array_foreach(rows, i, row) {
    const json_t *at_layers = json_object_get(row, "layers");
    size_t n = json_array_size(at_layers);
    bool last = n && json_integer_value(json_array_get(at_layers, n - 1)) == layers,
         nothing = pf_record_is(row, "condition=none") || pf_record_is(row, "condition=own");
    const char *want = nothing || (last && pf_record_is(row, "positions=every_step")) ? "all"
                       : last                                                         ? "t0"
                                                                                      : "";
    ck_assert_str_eq(pf_js_str(row, "degenerate"), want);
  }
}

static void likelihood(const trial *base) {
  trial t, clean;
  const json_t *row = record("host=B condition=cached positions=p_last set=14");
  host_alone(xy, &clean);
  put_in(by, cached, 0, 0, 1, 4, &t);
  near(number(row, "ll"), sum(t.logprob, 0, N_Y), "likelihood", "ll");
  near(number(row, "closure_ll"),
       (sum(t.logprob, 0, N_Y) - sum(base->logprob, 0, N_Y)) /
           (sum(clean.logprob, 0, N_Y) - sum(base->logprob, 0, N_Y)),
       "likelihood", "closure_ll");
}

START_TEST(residuals_in_hosts) {
  trial base;
  open_cell(N_Y);
  open_runs();
  ck_assert_msg(pf_c3(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  host_alone(by, &base);
  same("host=B condition=none", &base, NULL);
  contents_in_b(&base);
  other_hosts();
  likelihood(&base);
  degenerates();
  close_cell();
}
END_TEST

/* ---- C1 -------------------------------------------------------------------------------------- */

static double kl_of(const double *h, int32_t layer) {
  static float v[MAX_WIDTH];
  trial t = {.v = {.t = xy}};
  pf_tap tap = pf_lab_put(lab, xy, pf_track_site(xy, PF_SITE_G1), layer, PF_OP_REPLACE, v);
  for (size_t e = 0; e < d; e++)
    v[e] = (float)h[e];
  t.v.taps = &tap;
  t.v.n_taps = 1;
  run(&t);
  return sum(t.kl, 1, 11);
}

/* h_BB + the effects of a persona and a task. */
static void added(int persona, int task, int32_t l, double *out) {
  const float *p = at(track(persona, PF_BASE, PF_PLAIN), 1, l),
              *q = at(track(PF_BASE, task, PF_PLAIN), 1, l), *b = at(bb, 1, l);
  for (size_t e = 0; e < d; e++)
    out[e] = (double)p[e] + (double)q[e] - (double)b[e];
}

static double length_of(const double *v) {
  double s = 0;
  for (size_t e = 0; e < d; e++)
    s += v[e] * v[e];
  return sqrt(s);
}

/* The interaction of another cell on top of the cell's own state. */
static void with_interaction(int persona, int task, int32_t l, double *out) {
  double sum_there[MAX_WIDTH];
  const float *there = at(track(persona, task, PF_PLAIN), 1, l);
  added(persona, task, l, sum_there);
  for (size_t e = 0; e < d; e++)
    out[e] = (double)at(xy, 1, l)[e] + (double)there[e] - sum_there[e];
}

static void mean_state(int32_t l, double *out) {
  memset(out, 0, d * sizeof *out);
  for (int c = 0; c < np * nt; c++)
    for (size_t e = 0; e < d; e++)
      out[e] += (double)at(track(c / nt, c % nt, PF_PLAIN), 1, l)[e] / (np * nt);
}

static void c1_is(const char *condition, const double *h, int32_t l, int draw) {
  char query[96];
  snprintf(query, sizeof query, "condition=%s layer=%d", condition, (int)l);
  const json_t *row = record(query);
  near(draw < 0 ? number(row, "kl10")
                : json_number_value(json_array_get(json_object_get(row, "draws"), (size_t)draw)),
       kl_of(h, l), query, "kl10");
}

static void means_of_draws(void) {
  const json_t *row, *draw;
  size_t i, k, several = 0;
  json_array_foreach(rows, i, row) {
    const json_t *draws = json_object_get(row, "draws");
    double mean = 0;
    if (!draws)
      continue;
    json_array_foreach(draws, k, draw) mean +=
        json_number_value(draw) / (double)json_array_size(draws);
    near(number(row, "kl10"), mean, pf_js_str(row, "condition"), "mean of draws");
    ck_assert(number(row, "kl_0") <= mean * 1.0001);
    several++;
  }
  ck_assert(several > 0);
}

static void scaled(int32_t l, double *out) {
  double own[MAX_WIDTH];
  added(x, y, l, out);
  for (size_t e = 0; e < d; e++)
    own[e] = (double)at(xy, 1, l)[e];
  double by_how_much = length_of(own) / length_of(out);
  for (size_t e = 0; e < d; e++)
    out[e] *= by_how_much;
}

/* N3: a persona effect of the own one's length; N4: an error of the interaction's. */
static void random_values(int32_t l) {
  double error[MAX_WIDTH], dx[MAX_WIDTH], h[MAX_WIDTH], n3 = 0, n4 = 0;
  added(x, y, l, error);
  for (size_t e = 0; e < d; e++) {
    error[e] -= (double)at(xy, 1, l)[e];
    dx[e] = (double)at(xb, 1, l)[e] - (double)at(bb, 1, l)[e];
  }
  for (uint64_t k = 0; k < 20; k++) {
    added(PF_BASE, y, l, h);
    wander(length_of(dx), 100 + k, h);
    n3 += kl_of(h, l) / 20;
    for (size_t e = 0; e < d; e++)
      h[e] = (double)at(xy, 1, l)[e];
    wander(length_of(error), 200 + k, h);
    n4 += kl_of(h, l) / 20;
  }
  alike(number(record("condition=N3_isotropic layer=3"), "kl10"), n3, "N3_isotropic");
  alike(number(record("condition=N4_random layer=3"), "kl10"), n4, "N4_random");
}

/* The eight places: the persona's last token, the task's middle one (its comma counts, the turn's
 * end does not), the user's message's last, the prompt's last, and tokens of y. */
START_TEST(sites) {
  open_cell(N_Y);
  open_runs();
  const pf_encoding *q = &xy->q->enc;
  const char *text = xy->q->text;
  int32_t mid = pf_track_site(xy, PF_SITE_TASK_MID), last = pf_track_site(xy, PF_SITE_PERSONA_LAST),
          first = last + 1, end_of_task = mid;
  ck_assert(text[q->start[first]] == ',');
  while (strncmp(text + q->start[end_of_task], "<end_of_turn>", 13) != 0)
    end_of_task++;
  ck_assert_int_eq(mid, (first + end_of_task) / 2);
  ck_assert_int_eq(pf_track_site(xy, PF_SITE_P_USER_LAST), xy->q->p_user_last);
  ck_assert_int_eq(pf_track_site(xy, PF_SITE_P_LAST), (int)q->n - 1);
  ck_assert_int_eq(pf_track_site(xy, PF_SITE_G1), (int)q->n);
  ck_assert_int_eq(pf_track_site(xy, PF_SITE_G8), (int)q->n + 7);
  close_cell();
}
END_TEST

static double cosine(const double *a, const double *b) {
  double dot = 0;
  for (size_t e = 0; e < d; e++)
    dot += a[e] * b[e];
  return dot / (length_of(a) * length_of(b));
}

/* D of a run against BB. */
static void apart(const pf_track *t, int32_t l, double *out) {
  for (size_t e = 0; e < d; e++)
    out[e] = (double)at(t, 1, l)[e] - (double)at(bb, 1, l)[e];
}

static void plus(const double *a, const double *b, double *out) {
  for (size_t e = 0; e < d; e++)
    out[e] = a[e] + b[e];
}

/* The cell's own angles and lengths, and cos(D_XY, D_X' + D_Y) of each other persona. */
static void angles(int32_t l) {
  double dx[MAX_WIDTH], dy[MAX_WIDTH], dxy[MAX_WIDTH], both[MAX_WIDTH], inter[MAX_WIDTH];
  const json_t *row = record("condition=geometry layer=3"),
               *others = json_object_get(row, "null_cos");
  apart(xb, l, dx);
  apart(by, l, dy);
  apart(xy, l, dxy);
  plus(dx, dy, both);
  for (size_t e = 0; e < d; e++)
    inter[e] = dxy[e] - both[e];
  near(number(row, "cos_xy_sum"), cosine(dxy, both), "geometry", "cos_xy_sum");
  near(number(row, "cos_x_y"), cosine(dx, dy), "geometry", "cos_x_y");
  near(number(row, "inter_over_xy"), length_of(inter) / length_of(dxy), "geometry", "inter");
  near(number(row, "norm_x"), length_of(dx), "geometry", "norm_x");
  near(number(row, "norm_y"), length_of(dy), "geometry", "norm_y");
  near(number(row, "norm_xy"), length_of(dxy), "geometry", "norm_xy");
  ck_assert_uint_eq(json_array_size(others), (size_t)np - 1);
  for (int i = 0, k = 0; i < np; i++) {
    apart(track(i, PF_BASE, PF_PLAIN), l, dx);
    plus(dx, dy, both);
    if (i != x)
      near(json_number_value(json_array_get(others, (size_t)k++)), cosine(dxy, both), "geometry",
           "null_cos");
  }
}

START_TEST(values_at_g1) {
  const int32_t l = 3; /* a tested layer */
  double h[MAX_WIDTH];
  open_cell(N_Y);
  open_runs();
  ck_assert_msg(pf_c1(lab, PF_SITE_G1, rows) == PF_OK, "%s", pf_last_error());
  added(x, y, l, h);
  c1_is("A1", h, l, -1);
  added(PF_BASE, y, l, h);
  c1_is("S_X", h, l, -1);
  added(x, PF_BASE, l, h);
  c1_is("S_Y", h, l, -1);
  added(PF_BASE, PF_BASE, l, h);
  c1_is("S_0", h, l, -1);
  mean_state(l, h);
  c1_is("S_mean", h, l, -1);
  for (size_t e = 0; e < d; e++)
    h[e] = (double)at(xy, 1, l)[e] - (double)at(xb, 1, l)[e] + (double)at(bb, 1, l)[e];
  c1_is("RMX", h, l, -1);
  for (int k = 0; k + 1 < np; k++) {
    added((x + 1 + k) % np, y, l, h);
    c1_is("N1", h, l, k);
  }
  for (int k = 0; k + 1 < nt; k++) {
    added(x, (y + 1 + k) % nt, l, h);
    c1_is("N2", h, l, k);
  }
  with_interaction((x + 1) % np, (y + 1) % nt, l, h);
  c1_is("N4_other", h, l, -1);
  scaled(l, h);
  c1_is("N5", h, l, -1);
  means_of_draws();
  random_values(l);
  angles(l);
  close_cell();
}
END_TEST

/* ---- D1 to D3 -------------------------------------------------------------------------------- */

static int32_t x_lo, x_hi, p_last, end;

static void open_spans(void) {
  open_runs();
  x_lo = xy->pos[xy->x.lo];
  x_hi = xy->pos[xy->x.hi];
  p_last = xy->pos[xy->n_prompt - 1];
  end = xy->pos[xy->n - 1] + 1;
}

/* The queries [q_lo, q_hi) do not see the keys [k_lo, k_hi), in the layers [lo, hi). */
static pf_cut unseen(int32_t q_lo, int32_t q_hi, int32_t k_lo, int32_t k_hi, int32_t lo,
                     int32_t hi) {
  return (pf_cut){.layer_lo = lo,
                  .layer_hi = hi,
                  .head = -1,
                  .q_lo = q_lo,
                  .q_hi = q_hi,
                  .k_lo = k_lo,
                  .k_hi = k_hi};
}

static void without(const pf_cut *cuts, size_t n, trial *t) {
  *t = (trial){.v = {.t = xy, .cuts = cuts, .n_cuts = n}};
  run(t);
}

static void cut_is(const char *query, pf_cut cut, const trial *base) {
  trial t;
  without(&cut, 1, &t);
  same(query, &t, base);
}

static void swapped(const pf_track *t, const pf_seq *src, unsigned what, int32_t lo, int32_t hi,
                    int32_t q_lo, trial *out) {
  pf_swap s = {.layer_hi = layers,
               .head = -1,
               .pos_lo = lo,
               .pos_hi = hi,
               .src_lo = lo,
               .what = what,
               .src = src,
               .q_lo = q_lo};
  *out = (trial){.v = {.t = t, .swaps = &s, .n_swaps = 1}};
  run(out);
}

START_TEST(cut_reads) {
  trial k3, t;
  open_cell(N_Y);
  open_spans();
  ck_assert_msg(pf_d1(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  pf_cut all = unseen(x_hi, end, x_lo, x_hi, 0, layers);
  without(&all, 1, &k3);
  same("condition=K3 ablation=mask !profile", &k3, &k3);
#define MASK(name) "condition=" name " ablation=mask !profile"
  cut_is(MASK("K1"), unseen(p_last, end, x_lo, x_hi, 0, layers), &k3);
  cut_is(MASK("K1p"), unseen(p_last, p_last + 1, x_lo, x_hi, 0, layers), &k3);
  cut_is(MASK("K1g"), unseen(p_last + 1, end, x_lo, x_hi, 0, layers), &k3);
  cut_is(MASK("K2"), unseen(x_hi, p_last, x_lo, x_hi, 0, layers), &k3);
  cut_is("condition=K1 profile=window1 layer=3", unseen(p_last, end, x_lo, x_hi, 3, 4), &k3);
  cut_is("condition=K1 profile=window5 layer=3", unseen(p_last, end, x_lo, x_hi, 1, 6), &k3);
  cut_is("condition=K2 profile=window5 layer=7", unseen(x_hi, p_last, x_lo, x_hi, 5, 8), &k3);
  cut_is("condition=K1 profile=from layer=3", unseen(p_last, end, x_lo, x_hi, 3, layers), &k3);
  cut_is("condition=K1 profile=below layer=3", unseen(p_last, end, x_lo, x_hi, 0, 3), &k3);
  cut_is("condition=late tau=4", unseen(p_last + 4, end, x_lo, x_hi, 0, layers), &k3);
  cut_is("condition=Kc_before", unseen(p_last, end, 1, x_lo, 0, layers), &k3);
  const pf_track *neutral = track(PF_NEUTRAL, y, PF_GAP);
  swapped(xy, neutral->seq, PF_SWAP_K, x_lo, neutral->pos[neutral->x.hi - 1] + 1, x_hi, &t);
  if (neutral->x.hi == xy->x.hi)
    near(number(record("condition=K3 ablation=k_only"), "kl"), sum(t.kl, 0, N_Y), "K3", "k_only");
  swapped(xy, neutral->seq, PF_SWAP_V, x_lo, neutral->pos[neutral->x.hi - 1] + 1, x_hi, &t);
  if (neutral->x.hi == xy->x.hi)
    near(number(record("condition=K3 ablation=v_only"), "kl"), sum(t.kl, 0, N_Y), "K3", "v_only");
  close_cell();
}
END_TEST

/* As many keys as there are of the task; of the neutral persona's prompt its own answer. */
START_TEST(reads_of_others) {
  trial t;
  const pf_ref *ref;
  open_cell(N_Y);
  open_spans();
  ck_assert_msg(pf_d1(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  int32_t task = xy->y.hi - xy->y.lo, persona = x_hi - x_lo;
  const json_t *row = record("condition=Kc_task");
  ck_assert(number(row, "n_keys") == (task < persona ? task : persona));
  if (task <= persona) /* all of them */
    cut_is("condition=Kc_task", unseen(p_last, end, x_hi, x_hi + task, 0, layers), NULL);
  row = record("condition=K1_some as_many_as=Kc_before draw=1");
  ck_assert(number(row, "n_keys") == x_lo - 1);
  ck_assert(number(row, "kl") !=
            number(record("condition=K1_some as_many_as=Kc_before draw=0"), "kl"));
  const pf_track *n = track(PF_NEUTRAL, y, PF_GAP);
  ck_assert(pf_lab_refs(lab, n, &ref) == PF_OK);
  t = (trial){.v = {.t = n, .ref = ref}};
  run(&t); /* its own answer is no way off */
  ck_assert(sum(t.kl, 0, N_Y) == 0 && sum(t.jsd, 0, N_Y) == 0);
  trial there = {.v = {.t = n}}, back = {.v = {.t = xy, .ref = ref}};
  run(&there);
  run(&back); /* the way back is the reverse one */
  near(sum(there.reverse, 0, N_Y), sum(back.kl, 0, N_Y), "reverse KL", "there");
  near(sum(back.reverse, 0, N_Y), sum(there.kl, 0, N_Y), "reverse KL", "back");
  near(sum(back.jsd, 0, N_Y), sum(there.jsd, 0, N_Y), "JSD", "both ways");
  pf_cut own = unseen(p_last, end, x_lo, n->pos[n->x.hi - 1] + 1, 0, layers);
  t = (trial){.v = {.t = n, .cuts = &own, .n_cuts = 1, .ref = ref}};
  run(&t);
  same("condition=Kc_neutral", &t, NULL);
  close_cell();
}
END_TEST

/* The persona whose tokens are most, but no more than the cell's own; the first behind it. */
static int nearest(void) {
  int best = -1, most = 0;
  for (int k = 1; k < np; k++) {
    const pf_track *t = track((x + k) % np, y, PF_PLAIN);
    int n = t->x.hi - t->x.lo;
    if (n <= xy->x.hi - xy->x.lo && n > most) {
      most = n;
      best = (x + k) % np;
    }
  }
  return best;
}

static void another_persona(const pf_track *host, const trial *base) {
  const pf_track *t = track(nearest(), y, PF_PLAIN);
  const pf_ref *ref;
  int32_t stop = t->pos[t->x.hi - 1] + 1;
  pf_swap s = {.layer_hi = layers,
               .head = -1,
               .pos_lo = x_lo,
               .pos_hi = stop,
               .src_lo = x_lo,
               .what = PF_SWAP_K | PF_SWAP_V,
               .src = t->seq,
               .q_lo = p_last};
  pf_cut rest = unseen(p_last, end, stop, x_hi, 0, layers);
  trial put = {.v = {.t = host, .swaps = &s, .n_swaps = 1, .cuts = &rest, .n_cuts = stop < x_hi}};
  run(&put);
  same("condition=T4", &put, base);
  ck_assert_str_eq(pf_js_str(record("condition=T4"), "other"),
                   demo.plan.grid.personas[nearest()].key);
  ck_assert(pf_lab_refs(lab, t, &ref) == PF_OK);
  trial far = {.v = {.t = host, .ref = ref}};
  run(&far);
  same("condition=T4_host_to_other", &far, NULL);
  put.v.ref = ref;
  run(&put);
  same("condition=T4_towards_other", &put, &far);
}

/* K,V of single tokens of the persona: the order of the best is theirs. */
static void some_tokens(const pf_track *host, const trial *base) {
  int32_t n = x_hi - x_lo;
  int best = -1, second = -1;
  double kl[256];
  trial t;
  ck_assert(n > 4 && n < 256);
  for (int32_t i = 0; i < n; i++) {
    char query[64];
    snprintf(query, sizeof query, "condition=T7_single token=%d", (int)i);
    kl[i] = number(record(query), "kl");
    best = best < 0 || kl[i] < kl[best] ? i : best;
  }
  for (int32_t i = 0; i < n; i++)
    second = i != best && (second < 0 || kl[i] < kl[second]) ? i : second;
  swapped(host, xy->seq, PF_SWAP_K | PF_SWAP_V, x_lo + best, x_lo + best + 1, p_last, &t);
  same("condition=T7 order=best k=1", &t, base);
  char query[64];
  snprintf(query, sizeof query, "condition=T7_single token=%d", best);
  same(query, &t, base);
  pf_swap two[2] = {{.layer_hi = layers,
                     .head = -1,
                     .pos_lo = x_lo + best,
                     .pos_hi = x_lo + best + 1,
                     .src_lo = x_lo + best,
                     .what = PF_SWAP_K | PF_SWAP_V,
                     .src = xy->seq,
                     .q_lo = p_last}};
  two[1] = two[0];
  two[1].pos_lo = two[1].src_lo = x_lo + second;
  two[1].pos_hi = x_lo + second + 1;
  t = (trial){.v = {.t = host, .swaps = two, .n_swaps = 2}};
  run(&t);
  same("condition=T7 order=best k=2", &t, base);
  swapped(host, xy->seq, PF_SWAP_K | PF_SWAP_V, x_hi - 4, x_hi, p_last, &t);
  same("condition=T7 order=last k=4", &t, base);
}

enum { KV_LAYERS = 8, KV_TOKENS = 64, KV_WIDTH = 128 };
typedef float kv_row[KV_WIDTH];
static kv_row kv_own[2][KV_LAYERS * KV_TOKENS], kv_host[2][KV_LAYERS * KV_TOKENS],
    kv_drawn[2][KV_LAYERS * KV_TOKENS];

static const char *const kv_hooks[2] = {"blocks.0.attn.hook_k", "blocks.0.attn.hook_v"};

/* The persona's keys and values of a track, before RoPE, or (op) others in their place: the
 * sequence. */
static const pf_seq *kv_of(const pf_track *t, pf_op op, kv_row v[2][KV_LAYERS * KV_TOKENS]) {
  static pf_tap taps[2 * KV_LAYERS];
  const pf_seq *s;
  for (int i = 0; i < 2 * layers; i++) {
    float *at_layer = v[i / layers][(i % layers) * KV_TOKENS];
    taps[i] = (pf_tap){.hook = pf_lab_hook(lab, kv_hooks[i / layers]),
                       .layer = i % layers,
                       .head = -1,
                       .pos_lo = x_lo,
                       .pos_hi = t->pos[t->x.hi - 1] + 1,
                       .op = op};
    if (op == PF_OP_CAPTURE) {
      taps[i].out = at_layer;
      taps[i].out_stride = KV_WIDTH;
    } else {
      taps[i].value = at_layer;
      taps[i].value_stride = KV_WIDTH;
    }
  }
  ck_assert_msg(pf_lab_donor(lab, t, t->x.hi, taps, 2 * (size_t)layers, &s) == PF_OK, "%s",
                pf_last_error());
  return s;
}

static double mean_at(const kv_row *v, int n, size_t e) {
  double mean = 0;
  for (int i = 0; i < n; i++)
    mean += (double)v[i][e] / n;
  return mean;
}

static double bell(uint64_t stream, uint64_t k) {
  double z = -6;
  for (uint64_t i = 0; i < 12; i++)
    z += pf_uniform(96, stream, 12 * k + i);
  return z;
}

/* Every key (or value) a vector of its own: the mean of n_mean vectors, and the spread of own. */
static void draw_kv(const kv_row *own, int n, const kv_row *about, int n_mean, uint64_t stream,
                    kv_row *out) {
  double z[KV_TOKENS], centre[KV_WIDTH], about_it[KV_WIDTH];
  for (size_t e = 0; e < KV_WIDTH; e++) {
    centre[e] = mean_at(own, n, e);
    about_it[e] = mean_at(about, n_mean, e);
  }
  for (int i = 0; i < n; i++) {
    for (int k = 0; k < n; k++)
      z[k] = bell(stream, (uint64_t)(i * n + k));
    for (size_t e = 0; e < KV_WIDTH; e++) {
      double x_e = about_it[e];
      for (int k = 0; k < n; k++)
        x_e += z[k] * ((double)own[k][e] - centre[e]) / sqrt(n);
      out[i][e] = (float)x_e;
    }
  }
}

/* T5 and T5_own against random keys and values made here: as far from the clean answer on
 * average. */
static void random_ones(const pf_track *host) {
  const char *const names[2] = {"T5", "T5_own"};
  const int n = x_hi - x_lo, n_host = host->x.hi - host->x.lo;
  ck_assert(layers <= KV_LAYERS && n <= KV_TOKENS && n_host <= KV_TOKENS);
  ck_assert(demo.plan.info->n_kv_heads * demo.plan.info->d_head <= KV_WIDTH);
  kv_of(xy, PF_OP_CAPTURE, kv_own);
  kv_of(host, PF_OP_CAPTURE, kv_host);
  for (int of_own = 0; of_own < 2; of_own++) {
    double got = 0, want = 0;
    for (int draw = 0; draw < 5; draw++) {
      char query[64];
      trial t;
      snprintf(query, sizeof query, "condition=%s draw=%d", names[of_own], draw);
      got += number(record(query), "kl") / 5;
      for (int i = 0; i < 2 * layers; i++) {
        int k = i / layers, at_layer = i % layers * KV_TOKENS;
        draw_kv(&kv_own[k][at_layer], n, of_own ? &kv_own[k][at_layer] : &kv_host[k][at_layer],
                of_own ? n : n_host, (uint64_t)(100 * draw + i), &kv_drawn[k][at_layer]);
      }
      swapped(host, kv_of(xy, PF_OP_REPLACE, kv_drawn), PF_SWAP_K | PF_SWAP_V, x_lo, x_hi, p_last,
              &t);
      want += sum(t.kl, 0, N_Y) / 5;
    }
    alike(got, want, names[of_own]);
  }
}

START_TEST(transplants) {
  trial base, t;
  open_cell(N_Y);
  open_spans();
  ck_assert_msg(pf_d2(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  const pf_track *host = track(PF_NEUTRAL, y, PF_GAP);
  host_alone(host, &base);
  same("condition=host", &base, &base);
  swapped(host, xy->seq, PF_SWAP_K | PF_SWAP_V, x_lo, x_hi, p_last, &t);
  same("condition=T1", &t, &base);
  swapped(host, xy->seq, PF_SWAP_K | PF_SWAP_V, x_hi, p_last, p_last, &t);
  same("condition=T2", &t, &base);
  swapped(host, xy->seq, PF_SWAP_K | PF_SWAP_V, p_last, p_last + 1, p_last, &t);
  same("condition=T6", &t, &base);
  pf_swap s = {.layer_lo = 1,
               .layer_hi = 6,
               .head = -1,
               .pos_lo = x_lo,
               .pos_hi = x_hi,
               .src_lo = x_lo,
               .what = PF_SWAP_K | PF_SWAP_V,
               .src = xy->seq,
               .q_lo = p_last};
  t = (trial){.v = {.t = host, .swaps = &s, .n_swaps = 1}};
  run(&t);
  same("condition=T8 profile=window5 layer=3", &t, &base);
  another_persona(host, &base);
  some_tokens(host, &base);
  random_ones(host);
  close_cell();
}
END_TEST

/* A persona that is longer than the cell's has no place in its host, however near. */
START_TEST(the_nearest_that_fits) {
  open_cell(2);
  demo.cell = 3 * (size_t)nt + 1;
  ck_assert(pf_lab_cell(lab, demo.cell, demo.y, 2) == PF_OK);
  x = 3;
  open_spans();
  ck_assert_msg(pf_d2(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  ck_assert(track(4, y, PF_PLAIN)->x.hi > xy->x.hi);
  ck_assert_str_eq(pf_js_str(record("condition=T4"), "other"),
                   demo.plan.grid.personas[nearest()].key);
  close_cell();
}
END_TEST

/* ---- heads ----------------------------------------------------------------------------------- */

enum { MAX_HEADS = 64 };

/* Heads by what cutting their reads costs, most first. */
static size_t ranked(int *order) {
  size_t n = (size_t)layers * (size_t)demo.plan.info->n_heads;
  double kl[MAX_HEADS];
  ck_assert(n <= MAX_HEADS);
  for (size_t i = 0; i < n; i++) {
    char query[96];
    size_t k = i;
    snprintf(query, sizeof query, "condition=head edge=bc layer=%d head=%d",
             (int)i / demo.plan.info->n_heads, (int)i % demo.plan.info->n_heads);
    double one = number(record(query), "kl");
    for (; k > 0 && kl[k - 1] < one; k--) {
      kl[k] = kl[k - 1];
      order[k] = order[k - 1];
    }
    kl[k] = one;
    order[k] = (int)i;
  }
  return n;
}

/* The reads of order[from, to) are cut. */
static void heads_cut(const int *order, size_t from, size_t to, trial *t) {
  pf_cut cuts[MAX_HEADS];
  for (size_t i = from; i < to; i++) {
    int layer = order[i] / demo.plan.info->n_heads;
    cuts[i - from] = unseen(p_last, end, x_lo, x_hi, layer, layer + 1);
    cuts[i - from].head = order[i] % demo.plan.info->n_heads;
  }
  without(cuts, to - from, t);
}

/* A random set has its own closure, and as many heads of each layer: of all of one layer's it is
 * that layer's. */
static void random_sets(const char *query) {
  const json_t *draws = json_object_get(record(query), "random");
  bool differ = false;
  ck_assert_uint_eq(json_array_size(draws), 100);
  for (size_t i = 1; i < 100; i++)
    differ |=
        json_number_value(json_array_get(draws, i)) != json_number_value(json_array_get(draws, 0));
  ck_assert(differ);
}

static void clauses(const trial *base) {
  const json_t *row;
  size_t i, n = 0;
  int32_t next = 0;
  json_array_foreach(rows, i, row) {
    if (!pf_record_is(row, "condition=clause"))
      continue;
    const char *text = pf_js_str(row, "text");
    const json_t *span = json_object_get(row, "tokens");
    int32_t lo = (int32_t)json_integer_value(json_array_get(span, 0)),
            hi = (int32_t)json_integer_value(json_array_get(span, 1));
    ck_assert_int_eq(lo, next);
    next = hi;
    const char *comma = strchr(text, ',');
    ck_assert_msg(comma ? !comma[1] : hi == x_hi - x_lo, "clause \"%s\"", text);
    if (n++ == 1) {
      trial t;
      pf_cut cut = unseen(p_last, end, x_lo + lo, x_lo + hi, 0, layers);
      without(&cut, 1, &t);
      near(number(row, "kl"), sum(t.kl, 0, N_Y), text, "kl");
      near(number(row, "closure"), 1 - sum(t.kl, 0, N_Y) / sum(base->kl, 0, N_Y), text, "closure");
    }
  }
  ck_assert(n > 3 && next == x_hi - x_lo);
}

START_TEST(heads_and_tokens) {
  int order[MAX_HEADS];
  trial all, t;
  open_cell(N_Y);
  open_spans();
  ck_assert_msg(pf_d3(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  pf_cut k1 = unseen(p_last, end, x_lo, x_hi, 0, layers);
  without(&k1, 1, &all);
  same("condition=all_heads", &all, &all);
  size_t n = ranked(order), few = (n + 19) / 20, quarter = (n + 3) / 4;
  heads_cut(order, 0, 1, &t);
  same("condition=cut_best k=1", &t, &all);
  heads_cut(order, 0, 4, &t);
  same("condition=cut_best k=4", &t, &all);
  heads_cut(order, 4, n, &t);
  same("condition=keep_best k=4", &t, &all);
  for (int i = 0; i < 2; i++) {
    char query[64];
    size_t k = i ? quarter : few;
    snprintf(query, sizeof query, "condition=keep_share k=%zu", k);
    heads_cut(order, k, n, &t);
    same(query, &t, &all);
    random_sets(query);
    snprintf(query, sizeof query, "condition=cut_share k=%zu", k);
    heads_cut(order, 0, k, &t);
    same(query, &t, &all);
  }
  cut_is("condition=after_persona", unseen(p_last, end, x_hi, x_hi + 1, 0, layers), &all);
  clauses(&all);
  close_cell();
}
END_TEST

/* What the model itself has at p_last of a layer: read with a tap. */
static void look(const char *hook, int32_t layer, float *out, size_t n_keys) {
  pf_tap tap = {.hook = pf_lab_hook(lab, hook),
                .layer = layer,
                .head = -1,
                .pos_lo = p_last,
                .pos_hi = p_last + 1,
                .op = PF_OP_CAPTURE,
                .out = out,
                .out_stride = 1 << 14,
                .n_keys = (int32_t)n_keys};
  trial t = {.v = {.t = xy, .taps = &tap, .n_taps = 1}};
  ck_assert(tap.hook >= 0);
  run(&t);
}

/* Over all keys of the prompt what each head brings to p_last is the model's own: its z; added up
 * over the heads of a layer and projected, what attention adds to the residual. */
START_TEST(all_keys_are_the_model) {
  static float z_all[1 << 16], seen[1 << 14], dir[MAX_WIDTH];
  pf_flow f;
  pf_heads h;
  open_cell(1);
  open_spans();
  ck_assert(pf_flow_open(&f, lab, rows) == PF_OK && pf_heads_read(&h, &f, xy) == PF_OK);
  size_t width = h.heads * h.d_head;
  ck_assert(h.rows == 1 && h.layers * width <= sizeof z_all / sizeof *z_all);
  pf_heads_values(&h, 0, (int32_t)xy->n_prompt, z_all);
  const pf_ref *host;
  float *results;
  double shares[MAX_HEADS], mass[MAX_HEADS];
  ck_assert(pf_lab_refs(lab, by, &host) == PF_OK);
  ck_assert(pf_heads_results(&h, &f, z_all, &results) == PF_OK);
  ck_assert(pf_heads_projection(&h, &f, results, host, shares) == PF_OK);
  pf_heads_mass(&h, 0, (int32_t)xy->n_prompt, mass);
  int32_t own = pf_lab_y(lab)[0], rival = own == 0;
  for (int32_t i = 0; i < demo.plan.info->vocab_size; i++)
    rival = i != own && host[0].logits[i] > host[0].logits[rival] ? i : rival;
  ck_assert(pf_logit_direction(demo.plan.model, own, rival, h.final_scale[0], dir) == PF_OK);
  for (int32_t k = 0; k < layers; k++) {
    look("blocks.0.attn.hook_z", k, seen, 0);
    for (size_t e = 0; e < width; e++)
      ck_assert(fabsf(z_all[(size_t)k * width + e] - seen[e]) < 1e-4f);
    look("blocks.0.hook_attn_out", k, seen, 0);
    double want = 0, got = 0, size = 0;
    for (size_t e = 0; e < d; e++) {
      want += (double)seen[e] * (double)dir[e];
      size += fabs((double)seen[e] * (double)dir[e]);
    }
    for (size_t q = 0; q < h.heads; q++) {
      got += shares[(size_t)k * h.heads + q];
      ck_assert(fabs(mass[(size_t)k * h.heads + q] - 1) < 1e-5);
    }
    ck_assert_msg(fabs(got - want) < 1e-4 * size + 1e-6, "layer %d: %g, want %g", (int)k, got,
                  want);
  }
  pf_flow_close(&f);
  close_cell();
}
END_TEST

/* Each row has its own pattern, and a mean over rows is one. */
static double mass_of(const pf_heads *h, size_t layer, size_t head, int32_t lo, int32_t hi) {
  static float seen[1 << 16];
  double mass = 0;
  for (size_t r = 0; r < h->rows; r++) {
    pf_tap tap = {.hook = pf_lab_hook(lab, "blocks.0.attn.hook_pattern"),
                  .layer = (int32_t)layer,
                  .head = -1,
                  .pos_lo = p_last + (int32_t)r,
                  .pos_hi = p_last + (int32_t)r + 1,
                  .op = PF_OP_CAPTURE,
                  .out = seen,
                  .out_stride = sizeof seen / sizeof *seen,
                  .n_keys = end};
    trial t = {.v = {.t = xy, .taps = &tap, .n_taps = 1}};
    run(&t);
    for (int32_t j = lo; j < hi; j++)
      mass += (double)seen[head * (size_t)end + (size_t)j] / (double)h->rows;
  }
  return mass;
}

static double map_at(const char *score, size_t layer, size_t head) {
  char query[64];
  snprintf(query, sizeof query, "condition=%s", score);
  return json_number_value(
      json_array_get(json_array_get(json_object_get(record(query), "map"), layer), head));
}

/* Rank correlation without ties, and how many of the ten largest are shared. */
static void agreement(const char *score) {
  size_t n = (size_t)layers * (size_t)demo.plan.info->n_heads, shared = 0;
  double squares = 0;
  for (size_t i = 0; i < n; i++) {
    size_t above[2] = {0, 0}, heads = (size_t)demo.plan.info->n_heads;
    for (size_t k = 0; k < n; k++) {
      above[0] += map_at("cause", k / heads, k % heads) > map_at("cause", i / heads, i % heads);
      above[1] += map_at(score, k / heads, k % heads) > map_at(score, i / heads, i % heads);
    }
    squares += ((double)above[0] - (double)above[1]) * ((double)above[0] - (double)above[1]);
    shared += above[0] < 10 && above[1] < 10;
  }
  char query[64];
  snprintf(query, sizeof query, "condition=%s", score);
  near(number(record(query), "spearman"), 1 - 6 * squares / (double)(n * (n * n - 1)), score,
       "spearman");
  near(number(record(query), "recall10"), (double)shared / 10, score, "recall10");
}

START_TEST(scores_of_heads) {
  pf_flow f;
  pf_heads h;
  open_cell(4);
  open_spans();
  ck_assert_msg(pf_d4(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  ck_assert(pf_flow_open(&f, lab, rows) == PF_OK && pf_heads_read(&h, &f, xy) == PF_OK);
  for (size_t layer = 2; layer < 5; layer++) {
    size_t q = layer - 1;
    near(map_at("mass", layer, q), mass_of(&h, layer, q, x_lo, x_hi), "mass", "map");
    near(map_at("first_mass", layer, q), mass_of(&h, layer, q, 0, 1), "first_mass", "map");
    pf_cut cut = unseen(p_last, end, x_lo, x_hi, (int32_t)layer, (int32_t)layer + 1);
    cut.head = (int32_t)q;
    trial t;
    without(&cut, 1, &t);
    near(map_at("cause", layer, q), sum(t.kl, 0, 4), "cause", "map");
  }
  agreement("mass");
  agreement("value_weighted");
  agreement("projection");
  pf_flow_close(&f);
  close_cell();
}
END_TEST

/* ---- D5 -------------------------------------------------------------------------------------- */

/* What the persona brings to z of every layer, row and head, in the run of a task. */
static float *brought(int task, pf_heads *h) {
  pf_flow f;
  const pf_track *t = track(x, task, PF_PLAIN);
  ck_assert(pf_flow_open(&f, lab, rows) == PF_OK && pf_heads_read(h, &f, t) == PF_OK);
  float *z = pf_lab_alloc(lab, h->layers * h->rows, h->heads * h->d_head * sizeof *z);
  pf_heads_values(h, t->x.lo, t->x.hi, z);
  pf_flow_close(&f);
  return z;
}

static void added_is(const char *query, const pf_heads *h, float *z, const trial *base) {
  const pf_track *host = track(PF_NEUTRAL, y, PF_GAP);
  size_t width = h->heads * h->d_head;
  pf_tap taps[MAX_TAPS];
  ck_assert(layers <= MAX_TAPS);
  for (int32_t k = 0; k < layers; k++)
    taps[k] = (pf_tap){.hook = pf_lab_hook(lab, "blocks.0.attn.hook_z"),
                       .layer = k,
                       .head = -1,
                       .pos_lo = p_last,
                       .pos_hi = p_last + (int32_t)h->rows,
                       .op = PF_OP_ADD,
                       .value = z + (size_t)k * h->rows * width,
                       .value_stride = width};
  trial t = {.v = {.t = host, .taps = taps, .n_taps = (size_t)layers}};
  run(&t);
  same(query, &t, base);
}

START_TEST(what_attention_brought) {
  pf_heads h;
  trial base;
  open_cell(N_Y);
  open_spans();
  ck_assert_msg(pf_d5(lab, 0, rows) == PF_OK, "%s", pf_last_error());
  host_alone(track(PF_NEUTRAL, y, PF_GAP), &base);
  same("condition=host", &base, &base);
  float *z = brought(y, &h);
  size_t width = h.heads * h.d_head, n = h.layers * h.rows * width;
  added_is("condition=by_step", &h, z, &base);
  float *mean = pf_lab_alloc(lab, n, sizeof *mean);
  for (size_t i = 0; i < n; i++) {
    double s = 0;
    for (size_t r = 0; r < h.rows; r++)
      s += (double)z[(i / width / h.rows * h.rows + r) * width + i % width];
    mean[i] = (float)(s / (double)h.rows);
  }
  added_is("condition=mean_over_steps", &h, mean, &base);
  memset(mean, 0, n * sizeof *mean);
  for (int j = 0; j < nt; j++) {
    float *other = j == y ? NULL : brought(j, &h);
    for (size_t i = 0; other && i < n; i++)
      mean[i] += other[i] / (float)(nt - 1);
  }
  added_is("condition=mean_over_tasks", &h, mean, &base);
  close_cell();
}
END_TEST

/* CK_RUN_CASE=D2 runs those of D2. */
static TCase *of(Suite *s, const char *experiment) {
  TCase *t = tcase_create(experiment);
  tcase_set_timeout(t, 600);
  suite_add_tcase(s, t);
  return t;
}

int main(void) {
  Suite *s = suite_create("experiments");
  tcase_add_test(of(s, "C3"), residuals_in_hosts);
  TCase *c1 = of(s, "C1"), *d1 = of(s, "D1"), *d2 = of(s, "D2"), *d4 = of(s, "D4");
  tcase_add_test(c1, sites);
  tcase_add_test(c1, values_at_g1);
  tcase_add_test(d1, cut_reads);
  tcase_add_test(d1, reads_of_others);
  tcase_add_test(d2, transplants);
  tcase_add_test(d2, the_nearest_that_fits);
  tcase_add_test(of(s, "D3"), heads_and_tokens);
  tcase_add_test(d4, all_keys_are_the_model);
  tcase_add_test(d4, scores_of_heads);
  tcase_add_test(of(s, "D5"), what_attention_brought);
  return tu_suite_run(s, CK_NOFORK);
}
