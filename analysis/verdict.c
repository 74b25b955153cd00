/* SPDX-License-Identifier: Apache-2.0
 * Decision rules. */
#include "analysis/verdict.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/jsonout.h"
#include "base/mem.h"
#include "base/status.h"

const pf_thresholds pf_threshold = {
#define PF_THRESHOLD(name, value, what) .name = (value),
#include "analysis/thresholds.def"
#undef PF_THRESHOLD
};

static const struct {
  const char *what;
  double value;
} threshold_list[] = {
#define PF_THRESHOLD(name, value, what) {what, value},
#include "analysis/thresholds.def"
#undef PF_THRESHOLD
};

const char *pf_threshold_text(size_t i, double *value) {
  if (i >= sizeof threshold_list / sizeof *threshold_list)
    return NULL;
  *value = threshold_list[i].value;
  return threshold_list[i].what;
}

static const char *const verdict_names[] = {"inconclusive", "supported", "not supported",
                                            "uninformative"};
const char *pf_verdict_name(pf_verdict v) {
  return verdict_names[v];
}

/* ---- criteria
 * -----------------------------------------------------------------------------------------------------
 */

static pf_met either(bool met, bool missed) {
  return met ? PF_MET : missed ? PF_MISSED : PF_UNCLEAR;
}

/* Comparisons with NaN are false, so what has no number is unclear. */
static pf_met judge(const pf_criterion *c) {
  const pf_interval *x = &c->x;
  switch (c->rule) {
  case PF_AT_LEAST:
    return either(x->lo >= c->hi, x->hi < c->lo);
  case PF_OVER:
    return either(x->lo > c->hi, x->hi < c->lo);
  case PF_UNDER:
    return either(x->hi < c->lo, x->lo >= c->hi);
  case PF_WITHIN:
    return either(x->lo > -c->hi && x->hi < c->hi, x->lo >= c->hi || x->hi <= -c->hi);
  case PF_HOLDS:
    return either(x->lo <= c->lo && x->hi >= c->hi, x->lo > c->hi || x->hi < c->lo);
  case PF_P:
    return either(x->value < c->hi, false);
  case PF_CONTROL:
    return either(x->value >= c->hi, x->value < c->hi);
  case PF_SHOW:
    break;
  }
  return PF_MET;
}

static pf_finding begin(const char *id, const char *title, size_t n_cells) {
  return (pf_finding){.id = id, .title = title, .n_cells = n_cells};
}

static void add(pf_finding *f, const char *name, pf_interval x, pf_rule rule, double lo,
                double hi) {
  pf_criterion *c = &f->c[f->n++];
  *c = (pf_criterion){.x = x,
                      .rule = rule,
                      .lo = lo,
                      .hi = hi,
                      .mean = NAN,
                      .personas = {NAN, NAN, NAN},
                      .sign_flip = NAN};
  snprintf(c->name, sizeof c->name, "%s", name);
  c->met = judge(c);
}

static void add_p(pf_finding *f, const char *name, double p) {
  add(f, name, (pf_interval){p, NAN, NAN}, PF_P, pf_threshold.alpha, pf_threshold.alpha);
}

/* Of persona means, towards what the rule asks. */
static double sign_flip(const double *means, size_t n, pf_rule rule, double limit) {
  switch (rule) {
  case PF_AT_LEAST:
  case PF_OVER:
  case PF_CONTROL:
    return pf_sign_flip(means, n, limit, PF_GREATER);
  case PF_UNDER:
    return pf_sign_flip(means, n, limit, PF_LESS);
  case PF_WITHIN:
    return pf_sign_flip_tost(means, n, limit);
  default:
    return NAN;
  }
}

/* What the last criterion shows beside its interval. */
static int over_personas(pf_finding *f, const pf_crossed *t, pf_statistic what, const pf_boot *o) {
  pf_criterion *c = &f->c[f->n - 1];
  pf_boot alone = o ? *o : (pf_boot){0};
  alone.resampling = PF_PERSONAS;
  double *means = pf_alloc(t->n_personas, sizeof *means);
  int rc = means ? pf_bootstrap(t, what, &alone, &c->personas) : PF_ENOMEM;
  if (rc == PF_OK) {
    c->mean = pf_mean(t->x, t->n_personas * t->n_tasks);
    pf_persona_means(t, means);
    c->sign_flip = sign_flip(means, t->n_personas, c->rule, c->hi);
  }
  pf_free(means);
  return rc;
}

static int add_table(pf_finding *f, const char *name, const pf_crossed *t, pf_statistic what,
                     pf_rule rule, double limit, const pf_boot *o) {
  pf_interval x;
  int rc = pf_bootstrap(t, what, o, &x);
  if (rc != PF_OK)
    return rc;
  add(f, name, x, rule, limit, limit);
  return over_personas(f, t, what, o);
}

static size_t cells_of(const pf_crossed *t) {
  size_t n = 0;
  for (size_t c = 0; c < t->n_personas * t->n_tasks; c++)
    n += !isnan(t->x[c]);
  return n;
}

static int end(pf_finding *f, int rc) {
  size_t met = 0, missed = 0;
  for (size_t i = 0; i < f->n; i++) {
    met += f->c[i].met == PF_MET;
    missed += f->c[i].met == PF_MISSED;
    f->control_failed |= f->c[i].rule == PF_CONTROL && f->c[i].met != PF_MET;
  }
  f->verdict = f->control_failed ? PF_INCONCLUSIVE
               : missed          ? PF_NOT_SUPPORTED
               : met == f->n     ? PF_SUPPORTED
                                 : PF_INCONCLUSIVE;
  if (rc != PF_OK)
    *f = (pf_finding){0};
  return rc;
}

/* ---- hypotheses
 * ---------------------------------------------------------------------------------------------------
 */

int pf_h1a(const pf_crossed *kl_sx, const pf_crossed *kl_sy, double floor, const pf_boot *o,
           pf_finding *out) {
  double floors = pf_threshold.relevant_floors * floor;
  double limit = floors > pf_threshold.relevant_kl ? floors : pf_threshold.relevant_kl;
  *out = begin("H1a", "site relevance", cells_of(kl_sx));
  int rc = add_table(out, "median KL10(S_X)", kl_sx, PF_MEDIAN, PF_AT_LEAST, limit, o);
  if (rc == PF_OK && kl_sy)
    rc = add_table(out, "median KL10(S_Y)", kl_sy, PF_MEDIAN, PF_SHOW, 0, o);
  return end(out, rc);
}

int pf_h1b(const pf_crossed *rx, const pf_crossed *r0, const pf_crossed *kl_a1, double p_n1,
           double p_n3, const pf_finding *h1a, const pf_boot *o, pf_finding *out) {
  *out = begin("H1b", "additivity", cells_of(rx));
  int rc = add_table(out, "R_X", rx, PF_MEDIAN, PF_AT_LEAST, pf_threshold.additive_ratio, o);
  if (rc == PF_OK)
    rc = add_table(out, "R_0", r0, PF_MEDIAN, PF_AT_LEAST, pf_threshold.additive_ratio, o);
  if (rc == PF_OK)
    rc = add_table(out, "mean KL10(A1)", kl_a1, PF_MEAN, PF_UNDER, pf_threshold.additive_kl, o);
  add_p(out, "p(N1)", p_n1);
  add_p(out, "p(N3)", p_n3);
  rc = end(out, rc);
  if (rc == PF_OK && h1a->verdict != PF_SUPPORTED)
    out->verdict = PF_UNINFORMATIVE;
  return rc;
}

int pf_h1c(const pf_crossed *rx_difference, const pf_boot *o, pf_finding *out) {
  *out = begin("H1c", "band", cells_of(rx_difference));
  int rc =
      add_table(out, "R_X(p_last,g1,g2) - R_X(others)", rx_difference, PF_MEDIAN, PF_OVER, 0, o);
  double share =
      (double)out->n_cells / (double)(rx_difference->n_personas * rx_difference->n_tasks);
  add(out, "cells relevant on both sides", (pf_interval){share, share, share}, PF_CONTROL,
      pf_threshold.band_cells, pf_threshold.band_cells);
  return end(out, rc);
}

int pf_h2(const pf_crossed *cos_sum, double null_q95, const pf_additivity *r2,
          const pf_crossed *cos_xy, const pf_boot *o, pf_finding *out) {
  *out = begin("H2", "geometry", cells_of(cos_sum));
  int rc = add_table(out, "cos(D_XY,sum)", cos_sum, PF_MEDIAN, PF_OVER, null_q95, o);
  if (rc == PF_OK)
    add(out, "R2_add", r2->r2, PF_AT_LEAST, pf_threshold.geometry_r2, pf_threshold.geometry_r2);
  if (rc == PF_OK)
    rc = add_table(out, "cos(D_X,D_Y)", cos_xy, PF_MEDIAN, PF_SHOW, 0, o);
  return end(out, rc);
}

int pf_h2b(const pf_crossed *ratio, const pf_crossed *kl_a1, const pf_crossed *n4_less_a1,
           const pf_boot *o, pf_finding *out) {
  pf_interval rho;
  *out = begin("H2b", "norm of the interaction and KL", cells_of(ratio));
  int rc = pf_bootstrap_spearman(ratio, kl_a1, o, &rho);
  if (rc == PF_OK) {
    add(out, "Spearman", rho, PF_HOLDS, 0, 0);
    rc = add_table(out, "KL10(N4) - KL10(A1)", n4_less_a1, PF_MEDIAN, PF_AT_LEAST, 0, o);
  }
  return end(out, rc);
}

static int add_difference(pf_finding *f, const char *name, const pf_crossed *a, const pf_crossed *b,
                          pf_statistic what, pf_rule rule, double limit, const pf_boot *o) {
  size_t n = a->n_personas * a->n_tasks;
  if (b->n_personas != a->n_personas || b->n_tasks != a->n_tasks)
    return pf_fail(PF_EUSAGE, "%s: tables of different shape", name);
  double *x = pf_alloc(n, sizeof *x);
  if (!x)
    return PF_ENOMEM;
  for (size_t c = 0; c < n; c++)
    x[c] = a->x[c] - b->x[c];
  pf_crossed t = {x, a->n_personas, a->n_tasks};
  int rc = add_table(f, name, &t, what, rule, limit, o);
  pf_free(x);
  return rc;
}

int pf_h3(const pf_crossed *clean, const pf_crossed *additive, const pf_crossed *remove_x,
          const pf_crossed *sx, const pf_boot *o, pf_finding *out) {
  *out = begin("H3", "behaviour", cells_of(clean));
  int rc = add_difference(out, "additive - clean", additive, clean, PF_MEAN, PF_AT_LEAST,
                          -pf_threshold.markers_kept, o);
  if (rc == PF_OK)
    rc = add_difference(out, "additive - remove-X", additive, remove_x, PF_MEAN, PF_AT_LEAST,
                        pf_threshold.markers_specific, o);
  if (rc == PF_OK && sx)
    rc = add_difference(out, "additive - S_X", additive, sx, PF_MEAN, PF_AT_LEAST,
                        pf_threshold.markers_specific, o);
  return end(out, rc);
}

/* Mean closure of a setting over the personas of one half. */
static double half_mean(const pf_crossed *t, size_t half) {
  double sum = 0, n = 0;
  for (size_t i = half; i < t->n_personas; i += 2)
    for (size_t j = 0; j < t->n_tasks; j++)
      if (!isnan(t->x[i * t->n_tasks + j])) {
        sum += t->x[i * t->n_tasks + j];
        n++;
      }
  return n > 0 ? sum / n : -INFINITY;
}

int pf_held_out_best(const pf_crossed *settings, size_t n, double *out, size_t chosen[2]) {
  for (size_t k = 1; k < n; k++)
    if (settings[k].n_personas != settings->n_personas || settings[k].n_tasks != settings->n_tasks)
      return pf_fail(PF_EUSAGE, "held-out setting: tables of different shape");
  if (n == 0 || settings->n_personas < 2)
    return pf_fail(PF_EUSAGE, "held-out setting: want a setting and two personas");
  for (size_t half = 0; half < 2; half++) {
    chosen[half] = 0;
    for (size_t k = 1; k < n; k++)
      if (half_mean(&settings[k], 1 - half) > half_mean(&settings[chosen[half]], 1 - half))
        chosen[half] = k;
  }
  for (size_t c = 0; c < settings->n_personas * settings->n_tasks; c++)
    out[c] = settings[chosen[c / settings->n_tasks % 2]].x[c];
  return PF_OK;
}

static int add_control(pf_finding *f, const pf_crossed *t3, const pf_boot *o) {
  return add_table(f, "T3", t3, PF_MEDIAN, PF_CONTROL, pf_threshold.control_closure, o);
}

static int many(size_t n) {
  return n > 0 && n <= 8 ? PF_OK : pf_fail(PF_EUSAGE, "want 1 to 8 tables, not %zu", n);
}

int pf_h4(const pf_crossed *closure, const char *const *names, size_t n, const pf_crossed *t3,
          const pf_boot *o, pf_finding *out) {
  *out = begin("H4", "one residual cannot replace the prompt", n ? cells_of(closure) : 0);
  int rc = many(n);
  for (size_t i = 0; i < n && rc == PF_OK; i++)
    rc = add_table(out, names[i], &closure[i], PF_MEDIAN, PF_UNDER, pf_threshold.small_closure, o);
  return end(out, rc == PF_OK ? add_control(out, t3, o) : rc);
}

int pf_h4b(const pf_crossed *difference, const pf_boot *o, pf_finding *out) {
  *out = begin("H4b", "the site count, not the vector", cells_of(difference));
  return end(out, add_table(out, "closure(t=0) - closure(t=1-9)", difference, PF_MEDIAN, PF_OVER,
                            pf_threshold.first_token_gap, o));
}

/* The interval of coverage 2 level - 1 within the margin: two one-sided tests. */
int pf_h4c(const pf_crossed *difference, const char *const *names, size_t n, const pf_boot *o,
           pf_finding *out) {
  *out = begin("H4c", "no artefact of length or position", n ? cells_of(difference) : 0);
  int rc = many(n);
  for (size_t i = 0; i < n && rc == PF_OK; i++) {
    pf_tost t;
    char name[40];
    size_t cells = cells_of(&difference[i]);
    snprintf(name, sizeof name, cells == out->n_cells ? "%s" : "%s, %zu cells", names[i], cells);
    rc = pf_bootstrap_tost(&difference[i], PF_MEDIAN, pf_threshold.same_closure, o, &t);
    if (rc != PF_OK)
      break;
    add(out, name, t.ci, PF_WITHIN, pf_threshold.same_closure, pf_threshold.same_closure);
    rc = over_personas(out, &difference[i], PF_MEDIAN, o);
  }
  return end(out, rc);
}

static const char *route(const pf_interval *d, const pf_interval *i) {
  if (isnan(d->value) || isnan(i->value))
    return NULL;
  if (d->value >= pf_threshold.redundant && i->value >= pf_threshold.redundant)
    return "redundant";
  if (d->value <= pf_threshold.synergistic && i->value <= pf_threshold.synergistic)
    return "synergistic";
  if (isnan(d->lo) || isnan(i->lo)) /* of one cell */
    return NULL;
  return d->lo > i->hi ? "direct" : i->lo > d->hi ? "indirect" : "mixed";
}

int pf_h5(const pf_crossed *direct, const pf_crossed *indirect, const pf_crossed *t1,
          const pf_crossed *t2, const pf_crossed *t3, const pf_boot *o, pf_finding *out) {
  pf_interval d, i;
  *out = begin("H5", "direct reading", cells_of(direct));
  int rc = pf_bootstrap(direct, PF_MEDIAN, o, &d);
  if (rc == PF_OK)
    rc = pf_bootstrap(indirect, PF_MEDIAN, o, &i);
  if (rc == PF_OK) {
    add(out, "c_D", d, PF_OVER, i.lo, i.hi);
    add(out, "c_I", i, PF_SHOW, 0, 0);
    rc = add_table(out, "T1", t1, PF_MEDIAN, PF_SHOW, 0, o);
  }
  if (rc == PF_OK)
    rc = add_table(out, "T2", t2, PF_MEDIAN, PF_SHOW, 0, o);
  if (rc == PF_OK)
    rc = add_difference(out, "T1 - T2", t1, t2, PF_MEDIAN, PF_OVER, 0, o);
  if (rc == PF_OK)
    rc = add_control(out, t3, o);
  rc = end(out, rc);
  if (rc == PF_OK)
    out->kind = route(&d, &i);
  return rc;
}

void pf_h5_both(const pf_finding *const each[2], const char *const suffix[2], pf_finding *out) {
  *out = begin(each[0]->id, each[0]->title, each[0]->n_cells);
  for (int k = 0; k < 2; k++)
    for (size_t i = 0; i < each[k]->n && out->n < PF_MAX_CRITERIA; i++) {
      const pf_criterion *from = &each[k]->c[i];
      bool cut = !strncmp(from->name, "c_", 2); /* transplants are the same in both */
      if (k && !cut)
        continue;
      pf_criterion *c = &out->c[out->n++];
      *c = *from;
      if (cut)
        snprintf(c->name, sizeof c->name, "%s, %s", from->name, suffix[k]);
    }
  bool same = each[0]->verdict == each[1]->verdict;
  out->verdict = same ? each[0]->verdict : PF_INCONCLUSIVE;
  out->control_failed = each[0]->control_failed || each[1]->control_failed;
  if (same && each[0]->kind && each[1]->kind && !strcmp(each[0]->kind, each[1]->kind))
    out->kind = each[0]->kind;
}

int pf_h6(const pf_crossed *n80_share, const pf_crossed *top_heads, double p_tokens, double p_heads,
          const pf_boot *o, pf_finding *out) {
  *out = begin("H6", "distributed", cells_of(n80_share));
  int rc =
      add_table(out, "n80/tokens", n80_share, PF_MEDIAN, PF_AT_LEAST, pf_threshold.many_tokens, o);
  size_t cells = cells_of(top_heads);
  char name[40];
  snprintf(name, sizeof name,
           cells == out->n_cells ? "top 5 %% of heads alone" : "top 5 %% of heads alone, %zu cells",
           cells);
  if (rc == PF_OK)
    rc = add_table(out, name, top_heads, PF_MEDIAN, PF_UNDER, pf_threshold.few_heads, o);
  add_p(out, "p(tokens)", p_tokens);
  add_p(out, "p(heads)", p_heads);
  return end(out, rc);
}

int pf_h7(const pf_crossed *late_kl, const pf_crossed *late_share, double floor, const pf_boot *o,
          pf_finding *out) {
  *out = begin("H7", "persistence", cells_of(late_kl));
  int rc = add_table(out, "KL after the late cut", late_kl, PF_MEDIAN, PF_OVER,
                     pf_threshold.late_floors * floor, o);
  if (rc == PF_OK)
    rc = add_table(out, "share of the cut from 0", late_share, PF_MEDIAN, PF_AT_LEAST,
                   pf_threshold.late_share, o);
  return end(out, rc);
}

int pf_h8(const pf_interval *mass, const pf_interval *value_weighted, size_t n_cells,
          pf_finding *out) {
  *out = begin("H8", "attention mass explains cause", n_cells);
  add(out, "Spearman(cause, mass)", *mass, PF_OVER, pf_threshold.mass_rho, pf_threshold.mass_rho);
  add(out, "Spearman(cause, value-weighted)", *value_weighted, PF_SHOW, 0, 0);
  return end(out, PF_OK);
}

void pf_h9(const pf_verdict *v, size_t n, pf_finding *out) {
  size_t yes = 0,
         no = 0; /* an uninformative site decides nothing: it is open, as is inconclusive */
  for (size_t i = 0; i < n; i++) {
    yes += v[i] == PF_SUPPORTED;
    no += v[i] == PF_NOT_SUPPORTED;
  }
  size_t most = yes > no ? yes : no;
  double open = fmax(pf_threshold.models, (double)n) - (double)(yes + no);
  double limit = pf_threshold.models_agree;
  *out = begin("H9", "generality", n);
  /* what the open ones may still bring is the upper end */
  add(out, "models with one verdict",
      (pf_interval){(double)most, (double)most, (double)most + open}, PF_AT_LEAST, limit, limit);
  end(out, PF_OK);
}

/* ---- printing
 * -----------------------------------------------------------------------------------------------------
 */

static void drop_zero(char *s) {
  char *zero = s + (*s == '-');
  if (zero[0] == '0' && zero[1] == '.')
    memmove(zero, zero + 1, strlen(zero));
}

/* Two decimals without a leading zero; small numbers with one digit, large ones with one decimal.
 */
static void number(char *out, size_t size, double x) {
  double a = fabs(x);
  if (isnan(x)) {
    snprintf(out, size, "?");
    return;
  }
  snprintf(out, size, a >= 10 ? "%.1f" : a >= 0.01 || a == 0 ? "%.2f" : "%.1g", x);
  drop_zero(out);
}

static void put_number(pf_buf *b, double x) {
  char s[40];
  number(s, sizeof s, x);
  pf_buf_puts(b, s);
}

/* With as many decimals more as tell it from the limit that it is held against: .048 < .05. */
static void put_beside(pf_buf *b, double x, double limit) {
  char s[40], other[40];
  number(s, sizeof s, x);
  number(other, sizeof other, limit);
  for (int digits = 3; digits <= 9 && x != limit && !strcmp(s, other); digits++) {
    snprintf(s, sizeof s, "%.*f", digits, x);
    snprintf(other, sizeof other, "%.*f", digits, limit);
    drop_zero(s);
    drop_zero(other);
  }
  pf_buf_puts(b, s);
}

static const char *const rule_texts[] = {
    [PF_AT_LEAST] = "lower end >= ", [PF_OVER] = "lower end > ",
    [PF_UNDER] = "upper end < ",     [PF_WITHIN] = "within +-",
    [PF_HOLDS] = "holds ",           [PF_P] = "< ",
    [PF_CONTROL] = "control >= ",    [PF_SHOW] = NULL};
static const char *const met_texts[] = {"unclear", "yes", "no"};

static void put_criterion(pf_buf *b, const pf_criterion *c) {
  pf_buf_printf(b, "%s = ", c->name);
  put_beside(b, c->x.value, c->hi);
  if (!isnan(c->x.lo)) {
    pf_buf_puts(b, " [");
    put_beside(b, c->x.lo, c->hi);
    pf_buf_puts(b, ", ");
    put_beside(b, c->x.hi, c->hi);
    pf_buf_puts(b, "]");
  }
  if (c->rule == PF_SHOW)
    return;
  pf_buf_printf(b, " (%s", rule_texts[c->rule]);
  put_number(b, c->hi);
  pf_buf_printf(b, ": %s)", met_texts[c->met]);
}

int pf_finding_line(const pf_finding *f, const char *model, char **line) {
  pf_buf b = {0};
  pf_buf_printf(&b, "%s %s \xe2\x80\x94 %s, %zu %s: ", f->id, f->title, model, f->n_cells,
                strcmp(f->id, "H9") == 0 ? "models"
                : f->n_cells == 1        ? "cell"
                                         : "cells");
  for (size_t i = 0; i < f->n; i++) {
    pf_buf_puts(&b, i ? ", " : "");
    put_criterion(&b, &f->c[i]);
  }
  pf_buf_printf(&b, " \xe2\x86\x92 %s%s%s%s", pf_verdict_name(f->verdict), f->kind ? " / " : "",
                f->kind ? f->kind : "", f->control_failed ? " (the control does not hold)" : "");
  return pf_buf_take(&b, line);
}

static json_t *criterion_json(const pf_criterion *c) {
  json_t *o =
      json_pack("{s:s,s:o,s:o,s:o,s:s?,s:o,s:s}", "name", c->name, "value", pf_js_num(c->x.value),
                "lo", pf_js_num(c->x.lo), "hi", pf_js_num(c->x.hi), "rule", rule_texts[c->rule],
                "limit", c->rule == PF_SHOW ? json_null() : pf_js_num(c->hi), "met",
                c->rule == PF_SHOW ? "shown" : met_texts[c->met]);
  if (o && !isnan(c->mean))
    json_object_set_new(o, "mean", pf_js_num(c->mean));
  if (o && !isnan(c->personas.lo))
    json_object_set_new(o, "over_personas",
                        json_pack("[o,o]", pf_js_num(c->personas.lo), pf_js_num(c->personas.hi)));
  if (o && !isnan(c->sign_flip))
    json_object_set_new(o, "sign_flip_p", pf_js_num(c->sign_flip));
  return o;
}

json_t *pf_finding_json(const pf_finding *f) {
  json_t *list = json_array();
  for (size_t i = 0; i < f->n; i++)
    json_array_append_new(list, criterion_json(&f->c[i]));
  return json_pack("{s:s,s:s,s:s,s:s?,s:I,s:b,s:o}", "id", f->id, "title", f->title, "verdict",
                   pf_verdict_name(f->verdict), "kind", f->kind, "cells", (json_int_t)f->n_cells,
                   "control_failed", f->control_failed, "criteria", list);
}
