/* SPDX-License-Identifier: Apache-2.0
 * A page says what the records say: a folder written by hand, one persona x three tasks, in which
 * every condition has numbers of its own, and what must stand behind each label in tables and at
 * which place in figures. */
#include "config.h"

#include <math.h>
#include <stdarg.h>

#include "analysis/pagetable.h"
#include "analysis/svg.h"
#include "base/buf.h"
#include "personaflow/analysis.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"

enum { TASKS = 3, LAYERS = 3, HEADS = 2 };
static char dir[256];
static pf_buf file, page;

/* A number b of a condition stands for cells of b, b + .002, b + .008. */
static const double step[TASKS] = {0, .002, .008};
static double number(double b, int task) {
  return b + step[task];
}

/* Of the i-th row's j-th column. */
static double of(int i, int j) {
  return .01 * i + .5 * j;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static void begin(int task) {
  pf_buf_printf(&file, "{\"persona\": \"a\", \"task\": \"%c\"", 't' + task);
}

__attribute__((format(printf, 1, 2))) static void put(const char *members, ...) {
  char text[512];
  va_list ap;
  va_start(ap, members);
  vsnprintf(text, sizeof text, members, ap);
  va_end(ap);
  pf_buf_printf(&file, ", %s", text);
}

static void end(void) {
  pf_buf_puts(&file, "}\n");
}

/* A record in each cell with these members (a text for each) and, in the fields, numbers of row i.
 */
static void records(const char *members, const char *const *fields, size_t n, int i) {
  for (int c = 0; c < TASKS; c++) {
    begin(c);
    put("%s", members);
    for (size_t j = 0; j < n; j++)
      put("\"%s\": %.17g", fields[j], number(of(i, (int)j), c));
    end();
  }
}

static void one_number(const char *field, double b, const char *members, ...)
    __attribute__((format(printf, 3, 4)));
static void one_number(const char *field, double b, const char *members, ...) {
  char text[512];
  va_list ap;
  va_start(ap, members);
  vsnprintf(text, sizeof text, members, ap);
  va_end(ap);
  for (int c = 0; c < TASKS; c++) {
    begin(c);
    put("%s", text);
    put("\"%s\": %.17g", field, number(b, c));
    end();
  }
}

static void write_records(const char *name) {
  tmp_text(dir, name, pf_buf_str(&file));
  pf_buf_free(&file);
}

static void read_page(void) {
  char path[300];
  ck_assert_msg(pf_report_make(dir) == PF_OK, "%s", pf_last_error());
  snprintf(path, sizeof path, "%s/report.html", dir);
  ck_assert_msg(pf_read_file(path, 1 << 24, &page) == PF_OK, "%s", pf_last_error());
}

static void make_page(void) {
  tmp_text(dir, "manifest.json",
           "{\"schema\": \"personaflow-manifest/1\", \"protocol\": \"full\", \"precision\": "
           "\"f32\", \"probes\": [\"p_last\"], \"layers\": [1], \"cells\": 3, \"grid\": {\"name\": "
           "\"g\", \"sha256\": \"0\", \"personas\": [{\"key\": \"a\", \"text\": \"a\"}], "
           "\"tasks\": [{\"key\": \"t\", \"text\": \"t\"}, {\"key\": \"u\", \"text\": \"u\"}, "
           "{\"key\": \"v\", \"text\": \"v\"}], \"conflicts\": [[\"a\", \"u\"]]}, \"model\": "
           "{\"name\": \"m\", \"n_layers\": 3, \"n_heads\": 2}}");
  read_page();
}

static void setup(void) {
  tmp_make(dir);
}

static void teardown(void) {
  pf_buf_free(&page);
  tmp_remove(dir);
}

/* ---- the page -------------------------------------------------------------------------------- */

/* `want` stands between the place of `from` and the next end of a table behind it. */
static void inside(const char *from, const char *want) {
  const char *at = strstr(page.s, from);
  ck_assert_msg(at != NULL, "the page lacks %s", from);
  const char *stop = strstr(at, "</table>"), *found = strstr(at, want);
  ck_assert_msg(found && (!stop || found < stop), "behind %s there is no %s", from, want);
}

static void put_spread(pf_buf *b, double x) {
  pf_buf_printf(b, "<td>%.3f <small>[%.3f, %.3f]</small></td>", x + .002, x + .001, x + .005);
}

/* The table's row of a label has the numbers of row i. */
static void row(const char *label, size_t n, int i, const char *tail) {
  pf_buf b = {0};
  pf_buf_puts(&b, "<tr><td class=\"t\">");
  pf_html_text(&b, label);
  pf_buf_puts(&b, "</td>");
  for (size_t j = 0; j < n; j++)
    put_spread(&b, of(i, (int)j));
  pf_buf_puts(&b, tail);
  ck_assert_msg(strstr(page.s, pf_buf_str(&b)) != NULL, "no %s", pf_buf_str(&b));
  pf_buf_free(&b);
}

static double across(double x, double xmin) {
  x = x < xmin ? xmin : x > 1 ? 1 : x;
  return 330 + 370 * (x - xmin) / (1 - xmin);
}

/* The figure's row of a label: both series at their places, from xmin to 1. */
static void drawn(const char *label, int i, double xmin) {
  pf_buf b = {0};
  pf_buf_puts(&b, "text-anchor=\"end\">");
  pf_html_text(&b, label);
  pf_buf_puts(&b, "</text>\n");
  const char *at = strstr(page.s, pf_buf_str(&b));
  ck_assert_msg(at != NULL, "no figure has %s", label);
  at += b.n;
  pf_buf_free(&b);
  for (int k = 0; k < 2; k++) {
    double lo, hi, mid, x = of(i, k);
    int series = -1;
    ck_assert_int_eq(sscanf(at,
                            "<line class=\"line c%d\" x1=\"%lf\" y1=\"%*f\" x2=\"%lf\" "
                            "y2=\"%*f\"/><circle class=\"dot c%*d\" cx=\"%lf\"",
                            &series, &lo, &hi, &mid),
                     4);
    ck_assert_int_eq(series, k);
    ck_assert_msg(fabs(lo - across(x + .001, xmin)) < .06 &&
                      fabs(mid - across(x + .002, xmin)) < .06 &&
                      fabs(hi - across(x + .005, xmin)) < .06,
                  "%s, series %d: %g %g %g", label, k, lo, mid, hi);
    at = strchr(at, '\n') + 1;
  }
}

typedef struct asked {
  const char *label, *members;
} asked;

static void tell(const asked *rows, size_t n, const char *const *fields, size_t n_fields) {
  for (size_t i = 0; i < n; i++)
    records(rows[i].members, fields, n_fields, (int)i + 1);
}

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define C3(host, content, positions, set)                                                          \
  "\"host\": \"" host "\", \"condition\": \"" content "\", \"positions\": \"" positions            \
  "\", \"set\": \"" set "\""
#define ADDED(content, positions, alpha)                                                           \
  C3("B", content, positions, "14") ", \"op\": \"add\", \"alpha\": " alpha
#define WIDE "6_8_10_12_14_16_18_20_22"

/* ---- residuals in a host --------------------------------------------------------------------- */

START_TEST(injections) {
  static const asked rows[] = {
      {"paper: oracle, one layer, p_last", C3("B", "oracle", "p_last", "14")},
      {"paper: cached, one layer, p_last", C3("B", "cached", "p_last", "14")},
      {"cached, the widest set of layers", C3("B", "cached", "p_last", WIDE)},
      {"oracle, the widest set of layers", C3("B", "oracle", "p_last", WIDE)},
      {"oracle, all layers, p_last (t = 0 by construction)", C3("B", "oracle", "p_last", "all")},
      {"another persona's", C3("B", "other_persona", "p_last", "14")},
      {"random, same length", C3("B", "random", "p_last", "14")},
      {"averaged over other tasks", C3("B", "averaged", "p_last", "14")},
      {"cached, end of turn and header", C3("B", "cached", "E", "14")},
      {"cached, task and header", C3("B", "cached", "Y+E", "14")},
      {"cached, p_last g1 g2", C3("B", "cached", "window", "14")},
      {"oracle, p_last g1 g2", C3("B", "oracle", "window", "14")},
      {"cached, every step", C3("B", "cached", "every_step", "14")},
      {"oracle, every step", C3("B", "oracle", "every_step", "14")},
      {"D_X added, p_last", ADDED("delta", "p_last", "1.0")},
      {"twice D_X added, p_last", ADDED("delta", "p_last", "2.0")},
      {"four times D_X added, p_last", ADDED("delta", "p_last", "4.0")},
      {"averaged D_X added, p_last", ADDED("mean_delta", "p_last", "1.0")},
      {"twice averaged D_X added, p_last", ADDED("mean_delta", "p_last", "2.0")},
      {"four times averaged D_X, p_last", ADDED("mean_delta", "p_last", "4.0")},
      {"half averaged D_X, every step", ADDED("mean_delta", "every_step", "0.5")},
      {"averaged D_X added at every step", ADDED("mean_delta", "every_step", "1.0")},
      {"twice averaged D_X, every step", ADDED("mean_delta", "every_step", "2.0")},
      {"cached in the bare task", C3("bare", "cached", "p_last", "14")},
      {"oracle in the bare task", C3("bare", "oracle", "p_last", "14")},
      {"cached in a neutral persona's prompt", C3("N", "cached", "p_last", "14")},
      {"oracle in a neutral persona's prompt", C3("N", "oracle", "p_last", "14")},
      {"cached behind a gap", C3("GAP", "cached", "p_last", "14")},
      {"oracle behind a gap", C3("GAP", "oracle", "p_last", "14")},
      {"cached in the masked prompt", C3("MASK", "cached", "p_last", "14")},
      {"oracle in the masked prompt", C3("MASK", "oracle", "p_last", "14")}};
  static const char *const fields[] = {
      "closure10",     "closure_0",    "closure_1_9", "closure_10", "closure_reverse_kl10",
      "closure_jsd10", "closure_ll10", "closure"};
  tell(rows, COUNT(rows), fields, COUNT(fields));
  one_number("closure10", 9, C3("B", "oracle", "p_last", "one"));
  one_number("closure10", 9, C3("B", "oracle", "every_step", "last"));
  one_number("closure10", 9, ADDED("delta", "p_last", "0.5"));
  write_records("C3.jsonl");
  make_page();
  for (size_t i = 0; i < COUNT(rows); i++)
    row(rows[i].label, 7, (int)i + 1, "<td>0/3</td></tr>");
  drawn(rows[0].label, 1, -.25);
  drawn(rows[9].label, 10, -.25);
  /* the answer: of the three numbers the sample's median lies anywhere */
  ck_assert(strstr(page.s, "closes, of the gap at the first token, 0.522 [0.52, 0.528] and at the "
                           "nine after it 1.02 [1.02, 1.03].") != NULL);
}
END_TEST

/* Cells below 0 are made worse; of several draws a cell has the mean, -.003 of the first. */
START_TEST(made_worse) {
  one_number("closure10", -.103, "%s, \"draw\": 0", C3("B", "random", "p_last", "14"));
  one_number("closure10", .097, "%s, \"draw\": 1", C3("B", "random", "p_last", "14"));
  write_records("C3.jsonl");
  make_page();
  inside("random, same length", "<td>-0.001 <small>[-0.002, 0.002]</small></td>");
  inside("random, same length", "<td>2/3</td></tr>");
}
END_TEST

/* ---- reads of the persona -------------------------------------------------------------------- */

static const char *const ways[] = {"mask", "counterfactual", "zero_v", "k_only", "v_only"};
enum { WAYS = COUNT(ways) };

static void cut(const char *condition, const char *field, int i) {
  for (int w = 0; w < WAYS; w++)
    one_number(field, of(i, w), "\"condition\": \"%s\", \"ablation\": \"%s\"", condition, ways[w]);
}

/* Closure of a condition in the layers of a profile. */
static double by_layer(int profile, int layer) {
  return .1 + .2 * profile + .05 * layer;
}

static void layers(const char *condition) {
  static const char *const profiles[] = {"from", "below", "window5", "window1"};
  for (int p = 0; p < 4; p++)
    for (int l = 0; l < LAYERS; l++)
      one_number("closure", by_layer(p, l),
                 "\"condition\": \"%s\", \"ablation\": \"mask\", \"profile\": \"%s\", \"layer\": "
                 "%d",
                 condition, profiles[p], l);
}

/* The table under a chart: a row for each layer, first the acts from there on. */
static void layers_table(const char *title) {
  for (int l = 0; l < LAYERS; l++) {
    pf_buf b = {0};
    pf_buf_printf(&b, "<tr><td>%d</td>", l);
    for (int p = 0; p < 3; p++)
      put_spread(&b, by_layer(p, l));
    pf_buf_puts(&b, "</tr>");
    inside(title, pf_buf_str(&b));
    pf_buf_free(&b);
  }
  inside(title, "<th>in this layer and later</th><th>below this layer</th><th>within five layers");
}

/* Of the chart, 620 x 220 from (60, 30), closure 0 to 1: the first series' line and band. */
static void layers_drawn(const char *title) {
  pf_buf b = {0};
  pf_buf_puts(&b, "<polygon class=\"band c0\" points=\"");
  for (int k = 0; k < 2 * LAYERS; k++) {
    int l = k < LAYERS ? k : 2 * LAYERS - 1 - k;
    pf_buf_printf(&b, "%.1f,%.1f ", 60 + 310. * l,
                  30 + 220 * (1 - by_layer(0, l) - (k < LAYERS ? .001 : .005)));
  }
  pf_buf_puts(&b, "\"/>\n<polyline class=\"line c0\" points=\"");
  for (int l = 0; l < LAYERS; l++)
    pf_buf_printf(&b, "%.1f,%.1f ", 60 + 310. * l, 30 + 220 * (1 - by_layer(0, l) - .002));
  inside(title, pf_buf_str(&b));
  pf_buf_free(&b);
}

static void late(void) {
  static const char *const steps[] = {"1, 1, 1, 1", "0, 0.5, 0.5, 0.5", "0, 0, 0.25, 0.25"};
  for (int tau = 0; tau < 3; tau++)
    for (int c = 0; c < TASKS; c++) {
      begin(c);
      put("\"condition\": \"late\", \"tau\": %d, \"kl_steps\": [%s]", tau, steps[tau]);
      end();
    }
}

static const asked other_keys[] = {
    {"of the task's, as many or all", "\"condition\": \"Kc_task\""},
    {"so many of the persona's", "\"condition\": \"K1_some\", \"as_many_as\": \"Kc_task\""},
    {"before the persona, not the first, as many or all", "\"condition\": \"Kc_before\""},
    {"so many of the persona's", "\"condition\": \"K1_some\", \"as_many_as\": \"Kc_before\""},
    {"a neutral persona's, in its own prompt", "\"condition\": \"Kc_neutral\""}};

START_TEST(routes) {
  static const char *const fields[] = {"kl", "kl10", "kl_0", "n_keys"};
  cut("K3", "kl", 1);
  cut("K1", "closure", 2);
  cut("K1p", "closure", 3);
  cut("K1g", "closure", 4);
  cut("K2", "closure", 5);
  layers("K1");
  layers("K2");
  late();
  tell(other_keys, COUNT(other_keys), fields, 4);
  write_records("D1.jsonl");
  make_page();
  row("no read at all (K3)", WAYS, 1, "</tr>");
  row("not by p_last and generated tokens (K1): the indirect route is left", WAYS, 2, "</tr>");
  row("not by p_last", WAYS, 3, "</tr>");
  row("not by generated tokens", WAYS, 4, "</tr>");
  row("not by the later prompt (K2): the direct route is left", WAYS, 5, "</tr>");
  /* 1 - c_D - c_I: .93, .926, .914 of the mask */
  inside("<tr><td class=\"t\">1 - direct - indirect",
         "<td>0.926 <small>[0.920, 0.928]</small></td><td>-0.074 <small>[-0.080, -0.072]");
  drawn("the indirect route alone (K1)", 2, -.25);
  drawn("the direct route alone (K2)", 5, -.25);
  drawn("not read by p_last", 3, -.25);
  for (size_t i = 0; i < COUNT(other_keys); i++)
    row(other_keys[i].label, 4, (int)i + 1, "</tr>");
  layers_table("Direct reads cut, by layer");
  layers_drawn("Direct reads cut, by layer");
  inside("How long is the persona read?", "<tr><td>0</td><td>0.000 <small>[0.000, 0.000]</small>");
  inside("How long is the persona read?", "<tr><td>1</td><td>0.500 <small>[0.500, 0.500]</small>");
  inside("How long is the persona read?", "<tr><td>2</td><td>0.750 <small>[0.750, 0.750]</small>");
  ck_assert(strstr(page.s, "by p_last and the answer, 0.052 [0.05, 0.058] of the persona&rsquo;s "
                           "effect is kept; with what the later prompt has taken over alone, 0.022 "
                           "[0.02, 0.028].") != NULL);
}
END_TEST

START_TEST(transplants) {
  static const asked rows[] = {
      {"the persona's (T1)", "\"condition\": \"T1\""},
      {"the later prompt's (T2)", "\"condition\": \"T2\""},
      {"all (T3, the control)", "\"condition\": \"T3\""},
      {"those of p_last (T6)", "\"condition\": \"T6\""},
      {"another persona's (T4)", "\"condition\": \"T4\""},
      {"the same, towards that persona's own answer", "\"condition\": \"T4_towards_other\""},
      {"random, about a neutral mean (T5)", "\"condition\": \"T5\""},
      {"random, about its own mean (T5_own)", "\"condition\": \"T5_own\""}};
  static const char *const fields[] = {"closure", "closure_0"}, *const orders[] = {"best", "last",
                                                                                   "random"};
  tell(rows, COUNT(rows), fields, 2);
  layers("T8");
  for (int k = 0; k < 3; k++)
    for (int n = 1; n <= 4; n *= 2)
      one_number("closure", .1 + .2 * k + .01 * n,
                 "\"condition\": \"T7\", \"order\": \"%s\", \"k\": %d, \"n\": 4", orders[k], n);
  write_records("D2.jsonl");
  make_page();
  for (size_t i = 0; i < COUNT(rows); i++)
    row(rows[i].label, 2, (int)i + 1, "</tr>");
  drawn(rows[0].label, 1, -.25);
  layers_table("The persona&#39;s K,V put in, by layer");
  pf_buf b = {0};
  pf_buf_puts(&b, "<tr><td>2</td>"); /* four of them */
  for (int k = 0; k < 3; k++)
    put_spread(&b, .14 + .2 * k);
  inside("How many of the persona&#39;s tokens?", pf_buf_str(&b));
  inside("How many of the persona&#39;s tokens?",
         "<th>best tokens</th><th>last tokens</th><th>random tokens</th>");
  pf_buf_free(&b);
}
END_TEST

START_TEST(heads) {
  static const char *const edges[] = {"b", "c", "bc"};
  for (int h = 0; h < HEADS; h++)
    for (int l = 0; l < LAYERS; l++)
      for (int e = 0; e < 3; e++)
        one_number("kl", 10. * e + h + .1 * l,
                   "\"condition\": \"head\", \"edge\": \"%s\", \"layer\": %d, \"head\": %d",
                   edges[e], l, h);
  for (int k = 1; k < HEADS * LAYERS; k *= 2) {
    one_number("closure", .1 * k, "\"condition\": \"cut_best\", \"k\": %d", k);
    one_number("closure", .5 + .1 * k, "\"condition\": \"keep_best\", \"k\": %d", k);
  }
  one_number("kl", .1, "\"condition\": \"token\", \"tokens\": [0, 1], \"text\": \" sea\"");
  one_number("kl", .5,
             "\"condition\": \"token_layer\", \"tokens\": [0, 1], \"text\": \" sea\", "
             "\"layer\": 1");
  one_number("kl", .7, "\"condition\": \"after_persona\", \"tokens\": [1, 2], \"text\": \",\"");
  write_records("D3.jsonl");
  make_page();
  ck_assert(strstr(page.s, ">sea</span><small>0.1</small>") != NULL);
  ck_assert(strstr(page.s, "<title>sea, layer 1: 0.502</title>") != NULL);
  ck_assert(strstr(page.s, "from p_last on: 0.702 [0.701, 0.705] nats (median over 3") != NULL);
  ck_assert(strstr(page.s, "<title>head 0, layer 2: 20.2</title>") != NULL);
  ck_assert(strstr(page.s, "<title>head 1, layer 0: 21</title>") != NULL);
  /* 550 wide from 150, rows of 20 from 30: head 1 in layer 2 */
  const char *at = strstr(page.s, "<title>head 1, layer 2: 21.2</title>");
  double x, y;
  ck_assert(at != NULL);
  while (strncmp(at, "<rect", 5) != 0)
    at--;
  ck_assert_int_eq(sscanf(at, "<rect x=\"%lf\" y=\"%lf\"", &x, &y), 2);
  ck_assert_msg(fabs(x - 516.7) < .06 && y == 50, "%g %g", x, y);
  inside("<th>head 0</th><th>head 1</th>", "<tr><td>2</td><td>20.2</td><td>21.2</td></tr>");
  inside("closure without the best",
         "<tr><td>2</td><td>0.202 <small>[0.201, 0.205]</small></td><td>0.702");
}
END_TEST

START_TEST(mass_and_delta) {
  static const asked mass[] = {{"mass", "\"condition\": \"mass\""},
                               {"value_weighted", "\"condition\": \"value_weighted\""},
                               {"projection", "\"condition\": \"projection\""},
                               {"first_mass", "\"condition\": \"first_mass\""},
                               {"first_value_weighted", "\"condition\": \"first_value_weighted\""},
                               {"first_projection", "\"condition\": \"first_projection\""}},
                     delta[] = {{"each step's own", "\"condition\": \"by_step\""},
                                {"averaged over steps", "\"condition\": \"mean_over_steps\""},
                                {"averaged over other tasks", "\"condition\": "
                                                              "\"mean_over_tasks\""}};
  static const char *const scores[] = {"spearman", "recall10"}, *const closures[] = {"closure",
                                                                                     "closure_0"};
  tell(mass, COUNT(mass), scores, 2);
  write_records("D4.jsonl");
  tell(delta, COUNT(delta), closures, 2);
  write_records("D5.jsonl");
  make_page();
  for (size_t i = 0; i < COUNT(mass); i++)
    row(mass[i].label, 2, (int)i + 1, "</tr>");
  for (size_t i = 0; i < COUNT(delta); i++)
    row(delta[i].label, 2, (int)i + 1, "</tr>");
  drawn("first_projection", 6, -1);
}
END_TEST

/* ---- values at a site ------------------------------------------------------------------------ */

static void at_site(const char *site, const char *condition, double a, double b, double c) {
  const double v[TASKS] = {a, b, c};
  for (int k = 0; k < TASKS; k++) {
    begin(k);
    put("\"site\": \"%s\", \"layer\": 1, \"condition\": \"%s\", \"kl10\": %g", site, condition,
        v[k]);
    end();
  }
}

#define P_LAST "\"site\": \"p_last\", \"layer\": 1, \"condition\": "
static const asked local_rows[] = {
    {"additive value (A1)", P_LAST "\"A1\""},
    {"two-way fit without the cell (A2)", P_LAST "\"A2\""},
    {"A1 at the length of the state (N5)", P_LAST "\"N5\""},
    {"persona's part taken away (RMX)", P_LAST "\"RMX\""},
    {"persona dropped (S_X)", P_LAST "\"S_X\""},
    {"task dropped (S_Y)", P_LAST "\"S_Y\""},
    {"both dropped (S_0)", P_LAST "\"S_0\""},
    {"another persona (N1)", P_LAST "\"N1\""},
    {"another task (N2)", P_LAST "\"N2\""},
    {"random direction for the persona (N3)", P_LAST "\"N3_isotropic\""}};

/* g4: dropping costs 1, 5 and 2, the additive value .1, .2, .4. g8: so little in one cell that it
 * does not count. */
static void sites(void) {
  at_site("g4", "A1", .1, .2, .4);
  at_site("g4", "S_X", 1, 1, 1);
  at_site("g4", "S_Y", 5, 5, 5);
  at_site("g4", "S_0", 2, 2, 2);
  at_site("g8", "A1", .1, .2, .4);
  at_site("g8", "S_X", .05, 1, 1);
  at_site("g8", "S_Y", .05, .05, .05);
  at_site("g8", "S_0", 2, 2, 2);
}

START_TEST(local_values) {
  static const char *const fields[] = {"kl10", "reverse_kl10", "jsd10", "kl_0"};
  tell(local_rows, COUNT(local_rows), fields, 4);
  one_number("kl10", .003, P_LAST "\"I1\", \"draws\": [0.001, 0.004, 0.002]");
  one_number("kl10", .3, "\"site\": \"p_last\", \"layer\": 0, \"condition\": \"A1\"");
  sites();
  one_number("inter_over_xy", .5, P_LAST "\"geometry\"");
  write_records("C1.jsonl");
  make_page();
  for (size_t i = 0; i < COUNT(local_rows); i++)
    row(local_rows[i].label, 4, (int)i + 1, "</tr>");
  inside("<h3>Values at p_last, layer 1</h3>", "one unit in the last place (I1): at floor</td>");
  ck_assert(strstr(page.s, "Noise floor: 0.004 nats") && !strstr(page.s, "(A1): at floor"));
  inside("<h3>Sites, layer 1</h3>",
         "<tr><td class=\"t\">g4</td><td>0.200 <small>[0.150, 0.300]</small></td><td>1.000 "
         "<small>[1.000, 1.000]</small></td><td>5.000 <small>[5.000, 5.000]</small></td><td>2.000 "
         "<small>[2.000, 2.000]</small></td><td>0.800 <small>[0.700, 0.850]</small></td><td>0.960 "
         "<small>[0.940, 0.970]</small></td><td>0.900 <small>[0.850, 0.925]</small></td></tr>");
  inside("<tr><td class=\"t\">g8</td>",
         "<td>0.7 <small>[0.65, 0.75]</small> <small>2/3</small></td><td>&ndash; "
         "<small>0/3</small></td><td>0.900");
  ck_assert(strstr(page.s, "ten tokens by 0.012 [0.01, 0.018] nats; without the persona there it "
                           "would be 0.052 [0.05, 0.058].") != NULL);
}
END_TEST

/* Of the chart at p_last, 1e-6 to 100 on a logarithmic axis: A1 at layer 1. */
START_TEST(local_charts) {
  static const char *const conditions[] = {"A1", "S_X", "N1", "N3_isotropic"};
  for (int l = 0; l <= LAYERS; l++)
    for (int k = 0; k < 4; k++)
      one_number("kl10", .1 + .2 * k + .01 * l,
                 "\"site\": \"p_last\", \"layer\": %d, \"condition\": \"%s\"", l, conditions[k]);
  write_records("C1.jsonl");
  make_page();
  pf_buf b = {0};
  pf_buf_puts(&b, "<tr><td>1</td>");
  for (int k = 0; k < 4; k++)
    put_spread(&b, .11 + .2 * k);
  inside("aria-label=\"KL at p_last\"", pf_buf_str(&b));
  pf_buf_free(&b);
  pf_buf_printf(&b, "cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>1: 0.112</title>", 60 + 620 / 3.,
                30 + 220 * (1 - (log10(.112) + 6) / 8));
  inside("aria-label=\"KL at p_last\"", pf_buf_str(&b));
  pf_buf_free(&b);
}
END_TEST

START_TEST(conflicts) {
  one_number("inter_over_xy", .5, P_LAST "\"geometry\"");
  one_number("kl10", .3, P_LAST "\"A1\"");
  write_records("C1.jsonl");
  make_page();
  inside("<th>conflicting cells</th><th>the others</th>",
         "interaction / |D_XY|</td><td>0.502 <small>[0.502, 0.502]</small></td><td>0.504 "
         "<small>[0.502, 0.506]</small></td>");
  inside("<th>conflicting cells</th><th>the others</th>",
         "KL, additive value (A1)</td><td>0.302 <small>[0.302, 0.302]</small></td>");
}
END_TEST

/* ---- texts ----------------------------------------------------------------------------------- */

/* Markers of three cells, how many not verbatim, and numbers of row i. */
static void texts(const char *condition, const char *schedule, const int markers[TASKS],
                  const int own[TASKS], int i) {
  static const char *const fields[] = {"own_minus_others_not_verbatim", "llr_own",
                                       "first_divergence", "repetition", "nll_own"};
  for (int c = 0; c < TASKS; c++) {
    begin(c);
    put("\"condition\": \"%s\", \"schedule\": \"%s\", \"text\": \"x\", \"markers\": %d, "
        "\"markers_not_verbatim\": %d, \"identified\": \"%s\", \"own_minus_others\": 9",
        condition, schedule, markers[c], own[c], c == 1 ? "z" : "a");
    for (int j = 0; j < 5; j++)
      put("\"%s\": %.17g", fields[j], number(of(i, j), c));
    end();
  }
}

/* Wilson's interval of 2 of 3 is .208 to .939, of 0 of 3 0 to .561; McNemar's p of 2 against 0 is
 * a half. */
START_TEST(what_is_said) {
  texts("clean", "once", (const int[]){1, 0, 2}, (const int[]){0, 0, 0}, 1);
  texts("additive", "once", (const int[]){0, 4, 2}, (const int[]){0, 0, 0}, 2);
  texts("additive", "every_step", (const int[]){0, 0, 0}, (const int[]){0, 0, 0}, 3);
  texts("host_oracle", "window", (const int[]){0, 3, 2}, (const int[]){0, 1, 1}, 4);
  write_records("C2.jsonl");
  make_page();
#define TWO  "<td>2/3 <small>[0.21, 0.94]</small></td>"
#define NONE "<td>0/3 <small>[0.00, 0.56]</small></td>"
  static const char *const rows[] = {
      "clean</td><td class=\"t\">once</td>" TWO NONE "<td>&ndash;</td>",
      "additive</td><td class=\"t\">once</td>" TWO NONE "<td>&minus;1 +1 <small>p = 1</small></td>",
      "additive</td><td class=\"t\">every_step</td>" NONE NONE
      "<td>&minus;2 +0 <small>p = 0.5</small></td>",
      "host_oracle</td><td class=\"t\">window</td>" TWO TWO
      "<td>&minus;1 +1 <small>p = 1</small></td>"};
  for (int i = 0; i < 4; i++) {
    pf_buf b = {0};
    pf_buf_printf(&b, "<tr><td class=\"t\">%s", rows[i]);
    put_spread(&b, of(i + 1, 0));
    put_spread(&b, of(i + 1, 1));
    pf_buf_puts(&b, "<td>2/3 <small>[0.21, 0.94] p = 1</small></td>");
    for (int j = 2; j < 5; j++)
      put_spread(&b, of(i + 1, j));
    ck_assert_msg(strstr(page.s, pf_buf_str(&b)) != NULL, "no %s", pf_buf_str(&b));
    pf_buf_free(&b);
  }
}
END_TEST

/* ---- the sweep ------------------------------------------------------------------------------- */

/* A file of JSON with ' for ". */
static void quoted(const char *name, const char *text) {
  pf_buf b = {0};
  for (; *text; text++)
    pf_buf_add(&b, *text == '\'' ? "\"" : text, 1);
  tmp_text(dir, name, pf_buf_str(&b));
  pf_buf_free(&b);
}

/* Of two tested layers of three: KL .02 [.01, .05] and .4 [.3, .6] over three cells. */
static void sweep(void) {
  quoted("manifest.json",
         "{'schema': 'personaflow-manifest/1', 'protocol': 'paper', 'precision': 'f32', "
         "'probes': ['p_last'], 'layers': [1, 2], 'cells': 3, 'grid': {'name': 'g', 'sha256': '0', "
         "'personas': [{'key': 'a'}], 'tasks': [{'key': 't'}, {'key': 'u'}, {'key': 'v'}]}, "
         "'model': {'name': 'm', 'n_layers': 3}}");
  quoted("summary.json", "{'personas': ['a'], 'tasks': ['t', 'u', 'v'], 'causal': {'p_last': {"
                         "'1': {'summary': {'median': 0.02, 'iqr': [0.01, 0.05]},"
                         " 'per_cell': {'a__t': 0.01, 'a__u': 0.02, 'a__v': 0.3}}, "
                         "'2': {'summary': {'median': 0.4, 'iqr': [0.3, 0.6]},"
                         " 'per_cell': {'a__t': 0.05, 'a__u': 0.4, 'a__v': 0.9}}}}, "
                         "'decomposition': {'p_last': {"
                         "'2': {'cos_xy_sum': {'median': 0.85, 'iqr': [0.7, 0.9]},"
                         " 'cos_x_y': {'median': 0.15, 'iqr': [0.1, 0.2]},"
                         " 'inter_over_xy': {'median': 0.45, 'iqr': [0.4, 0.5]}}}}}");
  quoted("generated.jsonl", "{'persona': 'a', 'task': 't', 'y': {'text': 'yes'}, 'prompt': {}}\n");
  read_page();
}

START_TEST(medians_of_the_sweep) {
  sweep();
  ck_assert(strstr(page.s,
                   "the median KL over cells is 0.020 at layer 1, where it is smallest, and "
                   "0.400 at layer 2, where it is largest. There, 1 of 3 cells are below "
                   "0.1") != NULL);
  ck_assert(strstr(page.s, "The largest value of any cell is 0.900 (a, v, layer 2).") != NULL);
  ck_assert(strstr(page.s, "have a cosine of 0.85; the two parts have a cosine of 0.15 with each "
                           "other; what the sum misses is 0.45 times as long") != NULL);
  inside("<th>layer 1</th><th>layer 2</th>",
         "<td>0.020<br><small>[0.010, 0.050]</small><br><small>2/3</small></td><td>0.400<br><small>"
         "[0.300, 0.600]</small><br><small>1/3</small></td>");
  inside("<th>p_last<br>cos_xy_sum</th><th>p_last<br>cos_x_y</th><th>p_last<br>inter_over_xy</th>",
         "<tr><td>2</td><td>0.850</td><td>0.150</td><td>0.450</td></tr>");
}
END_TEST

/* Neither the first layer nor the last need be the largest. */
START_TEST(largest_in_the_middle) {
  sweep();
  quoted("manifest.json",
         "{'protocol': 'paper', 'precision': 'f32', 'probes': ['p_last'], 'layers': "
         "[0, 1, 2], 'cells': 1, 'grid': {'personas': [{'key': 'a'}], 'tasks': "
         "[{'key': 't'}]}, 'model': {'name': 'm', 'n_layers': 3}}");
  quoted("summary.json",
         "{'personas': ['a'], 'tasks': ['t'], 'decomposition': {}, 'causal': {'p_last': {"
         "'0': {'summary': {'median': 0.05}, 'per_cell': {'a__t': 0.05}}, "
         "'1': {'summary': {'median': 0.4}, 'per_cell': {'a__t': 0.4}}, "
         "'2': {'summary': {'median': 0.1}, 'per_cell': {'a__t': 0.1}}}}}");
  pf_buf_free(&page);
  read_page();
  ck_assert(strstr(page.s, "0.050 at layer 0, where it is smallest, and 0.400 at layer 1, where it "
                           "is largest. There, 0 of 1 cells") != NULL);
  ck_assert(strstr(page.s, "of any cell is 0.400 (a, t, layer 1).") != NULL);
}
END_TEST

/* A panel of 210 x 190 at (62, 30): layers 0 to 2, .01 to 1 nats on a logarithmic axis; and the map
 * of the middle layer's cells, 84 wide from 110. */
START_TEST(figures_of_the_sweep) {
  sweep();
  const double x[2] = {167, 272}, lo[2] = {.01, .3}, mid[2] = {.02, .4}, hi[2] = {.05, .6};
  pf_buf b = {0};
#define AT(v) (30 + 190 * (1 - log10((v) / .01) / 2))
  pf_buf_printf(&b, "<polygon class=\"band c0\" points=\"%.1f,%.1f %.1f,%.1f ", x[0], AT(lo[0]),
                x[1], AT(lo[1]));
  pf_buf_printf(&b, "%.1f,%.1f %.1f,%.1f \"/>\n", x[1], AT(hi[1]), x[0], AT(hi[0]));
  pf_buf_printf(&b, "<polyline class=\"line c0\" points=\"%.1f,%.1f %.1f,%.1f ", x[0], AT(mid[0]),
                x[1], AT(mid[1]));
  inside("KL by layer at each position", pf_buf_str(&b));
  pf_buf_free(&b);
  static const char *const cells[] = {"0.050", "0.400", "0.900"};
  for (int t = 0; t < TASKS; t++) {
    pf_buf_printf(&b, "<text x=\"%.1f\" y=\"68.5\" text-anchor=\"middle\"", 151 + 84. * t);
    const char *at = strstr(page.s, pf_buf_str(&b));
    ck_assert_msg(at && !strncmp(strchr(at, '>') + 1, cells[t], 5), "cell %d", t);
    pf_buf_free(&b);
  }
}
END_TEST

/* ---- verdicts -------------------------------------------------------------------------------- */

/* What decided, and not the whole line again, of many cells and of one. */
START_TEST(verdicts) {
  tmp_text(dir, "findings.json",
           "{\"findings\": [{\"id\": \"H5\", \"title\": \"direct reading\", \"verdict\": "
           "\"supported\", \"kind\": \"direct\", \"where\": {\"ablation\": \"mask\"}, \"line\": "
           "\"H5 direct reading \xe2\x80\x94 m, 3 cells: c_D = .90 \xe2\x86\x92 supported\", "
           "\"criteria\": [{\"name\": \"T1\", \"value\": 0.7, \"mean\": 0.75, \"over_personas\": "
           "[0.5, 0.8], \"sign_flip_p\": 0.25}]}, {\"id\": \"H6\", \"title\": \"distributed\", "
           "\"verdict\": \"inconclusive\", \"where\": null, \"line\": \"H6 distributed "
           "\xe2\x80\x94 m, 1 cell: n80/tokens = .50 \xe2\x86\x92 inconclusive\", \"criteria\": "
           "[]}]}");
  one_number("closure", .5, "\"condition\": \"T1\"");
  write_records("D2.jsonl");
  make_page();
  inside("<b>H5</b> direct reading<br><small>ablation mask</small></td><td class=\"t\"><b>"
         "supported</b>, direct",
         "<small>c_D = .90<br><i>mean, and the interval over personas alone:</i> T1 0.75 [0.5, "
         "0.8] (p = 0.25)</small>");
  inside("<b>H6</b> distributed", "<small>n80/tokens = .50</small></td></tr>");
}
END_TEST

/* ---- tables as files ------------------------------------------------------------------------- */

/* Every number of a cell in the column that is named after it. */
START_TEST(numbers_in_columns) {
  static const char table[] =
      "<table><tr><th class=\"t\">value</th><th>x</th><th>y</th><th>z</th></tr>\n"
      "<tr><td class=\"t\">a, &quot;b&quot;</td><td>&minus;0.5 <small>[0.25, 0.75]</small> "
      "<small>2/3</small></td><td>&minus;1 +4 <small>p = 0.125</small></td><td>7</td></tr>\n"
      "<tr><td class=\"t\">c</td><td>&ndash;</td><td>&minus;0 +2 <small>p = "
      "0.5</small></td><td>1e-05"
      "</td></tr></table>";
  ck_assert_int_eq(pf_page_csv(table, table + strlen(table), &page), PF_OK);
  ck_assert_str_eq(pf_buf_str(&page), "value,x,x lo,x hi,x k,x n,y lost,y won,y p,z\n"
                                      "\"a, \"\"b\"\"\",-0.5,0.25,0.75,2,3,1,4,0.125,7\n"
                                      "c,,,,,,0,2,0.5,1e-05\n");
}
END_TEST

/* ---- rows of a figure ------------------------------------------------------------------------ */

/* A number without an interval has none on its label; one that is not there, no dot. */
START_TEST(no_interval) {
  const pf_svg_row r = {.name = "one", .mid = {.5, NAN}, .lo = {NAN, NAN}, .hi = {NAN, NAN}};
  static const char *const series[] = {"s", "t"};
  pf_svg_rows(&page, "title", &r, 1, series, 2, 0, 1);
  ck_assert(strstr(page.s, "<title>0.5</title>") != NULL && strstr(page.s, "nan") == NULL);
  ck_assert(strstr(page.s, "dot c1\" cx") == NULL);
}
END_TEST

int main(void) {
  Suite *s = suite_create("page");
  TCase *t = tcase_create("page");
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_set_timeout(t, 300);
  tcase_add_test(t, injections);
  tcase_add_test(t, made_worse);
  tcase_add_test(t, routes);
  tcase_add_test(t, transplants);
  tcase_add_test(t, heads);
  tcase_add_test(t, mass_and_delta);
  tcase_add_test(t, local_values);
  tcase_add_test(t, local_charts);
  tcase_add_test(t, conflicts);
  tcase_add_test(t, what_is_said);
  tcase_add_test(t, medians_of_the_sweep);
  tcase_add_test(t, largest_in_the_middle);
  tcase_add_test(t, figures_of_the_sweep);
  tcase_add_test(t, verdicts);
  tcase_add_test(t, numbers_in_columns);
  tcase_add_test(t, no_interval);
  suite_add_tcase(s, t);
  return tu_suite_run(s, CK_FORK_GETENV);
}
