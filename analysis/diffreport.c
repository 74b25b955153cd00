/* SPDX-License-Identifier: Apache-2.0
 * A comparison's result as text, JSON and JUnit XML. */
#include "analysis/diffreport.h"

#include <stdio.h>
#include <string.h>

#include "analysis/jsonout.h"
#include "base/js.h"

static long long whole(const json_t *o, const char *key) {
  return (long long)json_integer_value(json_object_get(o, key));
}

/* A value in one line: texts without quotes. */
static void put_value(const json_t *v, pf_buf *out) {
  if (json_is_string(v))
    pf_buf_puts(out, json_string_value(v));
  else if (json_is_null(v))
    pf_buf_puts(out, "none");
  else
    pf_js_dump(v, 0, out);
}

/* ---- text ------------------------------------------------------------------------------------ */

/* A place of a result in words: "blocks.3.attn.hook_q, positions 0 to 15, head 2". */
static void place_text(const json_t *p, pf_buf *out) {
  const json_t *span = json_object_get(p, "positions"), *pos = json_object_get(p, "position");
  long long lo = json_integer_value(json_array_get(span, 0)),
            hi = json_integer_value(json_array_get(span, 1));
  pf_buf_puts(out, pf_js_str(p, "hook"));
  if (pos)
    pf_buf_printf(out, ", position %lld", (long long)json_integer_value(pos));
  else if (lo == hi)
    pf_buf_printf(out, ", position %lld", lo);
  else
    pf_buf_printf(out, ", positions %lld to %lld", lo, hi);
  if (!strcmp(pf_js_str(p, "phase"), "generation"))
    pf_buf_puts(out, " (generated)");
  if (json_is_integer(json_object_get(p, "head")))
    pf_buf_printf(out, ", head %lld", whole(p, "head"));
  if (json_object_get(p, "element"))
    pf_buf_printf(out, ", element %lld", whole(p, "element"));
  if (json_object_get(p, "key"))
    pf_buf_printf(out, ", key %lld", whole(p, "key"));
}

static void put_number(const json_t *o, const char *key, pf_buf *out) {
  char s[32];
  snprintf(s, sizeof s, "%.4g", json_number_value(json_object_get(o, key)));
  pf_buf_puts(out, json_is_number(json_object_get(o, key)) ? s : "not finite");
}

static void put_ulp(const json_t *o, const char *key, pf_buf *out) {
  if (json_is_integer(json_object_get(o, key)))
    pf_buf_printf(out, "%lld ulp", whole(o, key));
  else
    pf_buf_puts(out, "NaN");
}

static void put_first(const json_t *p, pf_buf *out) {
  pf_buf_puts(out, "  first difference: ");
  place_text(p, out);
  pf_buf_puts(out, "\n");
  if (json_object_get(p, "sha256_a"))
    pf_buf_printf(out, "    sha256  A %s\n            B %s\n", pf_js_str(p, "sha256_a"),
                  pf_js_str(p, "sha256_b"));
  if (!json_object_get(p, "a_hex"))
    return;
  pf_buf_printf(out, "    value   A %s  B %s  (", pf_js_str(p, "a_hex"), pf_js_str(p, "b_hex"));
  put_ulp(p, "ulp", out);
  pf_buf_puts(out, ", ");
  put_number(p, "abs", out);
  pf_buf_puts(out, ")\n");
}

static void put_spread(const json_t *p, pf_buf *out) {
  if (json_object_get(p, "max_abs")) {
    pf_buf_puts(out, "  largest: ");
    put_number(p, "max_abs", out);
    pf_buf_puts(out, " at ");
    place_text(json_object_get(p, "max_abs_at"), out);
    pf_buf_puts(out, "; ");
    put_ulp(p, "max_ulp", out);
    pf_buf_puts(out, " at ");
    place_text(json_object_get(p, "max_ulp_at"), out);
    pf_buf_puts(out, "\n");
  }
  const json_t *l = json_object_get(p, "logits");
  if (!l)
    return;
  pf_buf_puts(out, "  logits: KL mean ");
  put_number(l, "kl_mean", out);
  pf_buf_puts(out, ", max ");
  put_number(l, "kl_max", out);
  pf_buf_printf(out, " nats at position %lld; best token differs at %lld of %lld positions\n",
                whole(l, "kl_max_position"), whole(l, "top1_changed"), whole(l, "positions"));
}

static void put_prompt(const json_t *p, pf_buf *out) {
  const char *note = pf_js_str(p, "note");
  bool same = json_is_true(json_object_get(p, "same"));
  pf_buf_printf(out, "prompt '%s': %s", pf_js_str(p, "id"), same ? "same" : "different");
  if (*note)
    pf_buf_printf(out, ": %s\n", note);
  else
    pf_buf_printf(out, " (%lld of %lld hook points differ)\n", whole(p, "different"),
                  whole(p, "points"));
  if (json_object_get(p, "first"))
    put_first(json_object_get(p, "first"), out);
  if (json_object_get(p, "first_token"))
    pf_buf_printf(out, "  generated tokens differ from number %lld on\n", whole(p, "first_token"));
  put_spread(p, out);
}

static void put_tensors(const json_t *t, pf_buf *out) {
  const json_t *f = json_object_get(t, "first"), *a = json_object_get(f, "a"),
               *b = json_object_get(f, "b");
  pf_buf_printf(out, "tensors of the weights that differ: %lld; the first in order of use: %s\n",
                whole(t, "different"), pf_js_str(f, "name"));
  const json_t *sides[] = {a, b};
  for (int i = 0; i < 2; i++)
    if (json_is_object(sides[i]))
      pf_buf_printf(out, "    %c %s [%lld, %lld] sha256 %s\n", 'A' + i,
                    pf_js_str(sides[i], "dtype"), whole(sides[i], "rows"), whole(sides[i], "cols"),
                    pf_js_str(sides[i], "sha256"));
    else
      pf_buf_printf(out, "    %c has none\n", 'A' + i);
}

static void put_text(const json_t *r, pf_buf *out) {
  size_t i;
  json_t *v;
  const json_t *ignored = json_object_get(r, "ignored"), *prompts = json_object_get(r, "prompts");
  pf_buf_printf(out, "%s\n  A %s\n  B %s\n",
                json_is_true(json_object_get(r, "same")) ? "same" : "different", pf_js_str(r, "a"),
                pf_js_str(r, "b"));
  json_array_foreach(json_object_get(r, "settings"), i, v) {
    pf_buf_printf(out, "%s: A ", pf_js_str(v, "key"));
    put_value(json_object_get(v, "a"), out);
    pf_buf_puts(out, ", B ");
    put_value(json_object_get(v, "b"), out);
    pf_buf_puts(out, "\n");
  }
  if (json_object_get(r, "tensors"))
    put_tensors(json_object_get(r, "tensors"), out);
  size_t same = 0;
  json_array_foreach((json_t *)prompts, i, v) {
    bool s = json_is_true(json_object_get(v, "same"));
    same += s;
    if (!s || json_object_get(v, "max_abs"))
      put_prompt(v, out);
  }
  pf_buf_printf(out, "%zu of %zu prompts are the same\n", same, json_array_size(prompts));
  json_array_foreach((json_t *)ignored, i, v)
      pf_buf_printf(out, "not compared: %s: no hook point of the snapshot\n", json_string_value(v));
}

/* ---- bisect as text -------------------------------------------------------------------------- */

/* 0 is what nobody has asked for. */
static void put_count(const char *name, long long n, const char *none, pf_buf *out) {
  if (n)
    pf_buf_printf(out, ", %s %lld", name, n);
  else
    pf_buf_printf(out, ", %s %s", name, none);
}

static void put_setting(const char *what, const json_t *s, pf_buf *out) {
  if (!json_is_object(s))
    return;
  pf_buf_printf(out, "%s %s, %s, isa %s", what, pf_js_str(s, "model"), pf_js_str(s, "precision"),
                *pf_js_str(s, "isa") ? pf_js_str(s, "isa") : "(best)");
  put_count("threads", whole(s, "threads"), "(default)", out);
  put_count("chunk", whole(s, "chunk"), "(whole prompt)", out);
  pf_buf_puts(out, "\n");
}

static void put_tensor(const char *what, const json_t *t, pf_buf *out) {
  pf_buf_printf(out, "  %s %s %s ", what, pf_js_str(t, "name"), pf_js_str(t, "dtype"));
  pf_js_dump(json_object_get(t, "shape"), 0, out);
  pf_buf_printf(out, "\n    sha256    %s", pf_js_str(t, "sha256"));
  if (json_is_true(json_object_get(t, "same")))
    pf_buf_puts(out, " on both sides");
  else if (json_object_get(t, "same"))
    pf_buf_printf(out, "\n    reference %s", pf_js_str(t, "sha256_reference"));
  pf_buf_puts(out, "\n");
}

static void put_operation(const json_t *o, pf_buf *out) {
  size_t i;
  json_t *v;
  json_array_foreach(json_object_get(o, "kernels"), i, v) {
    pf_buf_printf(out, "  operation %s: %s", pf_js_str(v, "operation"), pf_js_str(v, "candidate"));
    if (*pf_js_str(v, "reference"))
      pf_buf_printf(out, " against %s", pf_js_str(v, "reference"));
    pf_buf_puts(out, "\n");
  }
  json_array_foreach(json_object_get(o, "operands"), i, v) put_tensor("operand", v, out);
  json_array_foreach(json_object_get(o, "weights"), i, v) put_tensor("weight", v, out);
  if (json_object_get(o, "result"))
    put_tensor("result", json_object_get(o, "result"), out);
}

static void put_bisect(const json_t *r, pf_buf *out) {
  const json_t *first = json_object_get(r, "first"), *place = json_object_get(first, "place"),
               *tensors = json_object_get(r, "tensors"), *t = json_object_get(tensors, "first");
  bool same = json_is_true(json_object_get(r, "same"));
  pf_buf_printf(out, "%s: A is %s\n", same ? "same" : "different", pf_js_str(r, "snapshot"));
  put_setting("candidate B:", json_object_get(r, "candidate"), out);
  put_setting("reference A:", json_object_get(r, "reference"), out);
  if (tensors)
    put_tensors(tensors, out);
  if (json_object_get(t, "element")) {
    pf_buf_puts(out, "    first element ");
    pf_js_dump(json_object_get(t, "element"), 0, out);
    pf_buf_printf(out, ": A %s, B %s\n", pf_js_str(t, "a_hex"), pf_js_str(t, "b_hex"));
  }
  if (!first) {
    pf_buf_puts(out, same ? "no operation differs\n" : "no recorded value shows it\n");
    return;
  }
  if (!json_is_object(json_object_get(r, "reference")))
    pf_buf_puts(out,
                "no reference: nothing on this machine reproduces the snapshot, so only what it "
                "recorded was compared\n");
  pf_buf_printf(out, "prompt '%s'\n", pf_js_str(first, "prompt"));
  put_first(place, out);
  put_operation(json_object_get(r, "operation"), out);
}

/* ---- JUnit XML ------------------------------------------------------------------------------- */

/* Text for XML: markup and what XML does not allow are replaced. */
static void xml_text(pf_buf *out, const char *s) {
  static const struct {
    char c;
    const char *text;
  } marks[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\n', "&#10;"}};
  for (; *s; s++) {
    size_t i = 0;
    while (i < sizeof marks / sizeof *marks && marks[i].c != *s)
      i++;
    if (i < sizeof marks / sizeof *marks)
      pf_buf_puts(out, marks[i].text);
    else
      pf_buf_add(out, (unsigned char)*s < 0x20 ? "?" : s, 1);
  }
}

/* What failed, in one line. */
static void put_reason(const json_t *p, pf_buf *out) {
  if (json_object_get(p, "first"))
    place_text(json_object_get(p, "first"), out);
  else if (*pf_js_str(p, "note"))
    pf_buf_puts(out, pf_js_str(p, "note"));
  else
    pf_buf_puts(out, "generated tokens");
}

static void put_case(const char *suite, const json_t *p, pf_buf *out) {
  pf_buf reason = {0}, detail = {0};
  pf_buf_puts(out, "  <testcase classname=\"");
  xml_text(out, suite);
  pf_buf_puts(out, "\" name=\"");
  xml_text(out, pf_js_str(p, "id"));
  if (json_is_true(json_object_get(p, "same"))) {
    pf_buf_puts(out, "\"/>\n");
    return;
  }
  put_reason(p, &reason);
  put_prompt(p, &detail);
  pf_buf_puts(out, "\">\n    <failure message=\"");
  xml_text(out, pf_buf_str(&reason));
  pf_buf_puts(out, "\">");
  xml_text(out, pf_buf_str(&detail));
  pf_buf_puts(out, "</failure>\n  </testcase>\n");
  pf_buf_free(&reason);
  pf_buf_free(&detail);
}

/* The weights are a case of their own: they may differ where no recorded value shows it. */
static void put_weights_case(const json_t *r, pf_buf *out) {
  pf_buf detail = {0};
  pf_buf_puts(out, "  <testcase classname=\"");
  xml_text(out, pf_js_str(r, "a"));
  pf_buf_puts(out, "\" name=\"weights\">\n    <failure message=\"weights differ\">");
  put_tensors(json_object_get(r, "tensors"), &detail);
  xml_text(out, pf_buf_str(&detail));
  pf_buf_puts(out, "</failure>\n  </testcase>\n");
  pf_buf_free(&detail);
}

static void put_junit(const json_t *r, pf_buf *out) {
  const json_t *prompts = json_object_get(r, "prompts");
  size_t i, n = json_array_size(prompts), bad = 0;
  json_t *p;
  json_array_foreach((json_t *)prompts, i, p) bad += !json_is_true(json_object_get(p, "same"));
  /* Only what makes the comparison fail is a failure. */
  bool weights = json_object_get(r, "tensors") && !json_is_true(json_object_get(r, "same")) &&
                 !json_object_size(json_object_get(r, "tolerance"));
  pf_buf_printf(out,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n <testsuite "
                "name=\"personaflow diff\" tests=\"%zu\" failures=\"%zu\">\n",
                n + weights, bad + weights);
  if (weights)
    put_weights_case(r, out);
  json_array_foreach((json_t *)prompts, i, p) put_case(pf_js_str(r, "a"), p, out);
  pf_buf_puts(out, " </testsuite>\n</testsuites>\n");
}

void pf_diff_write(const json_t *r, pf_format format, pf_buf *out) {
  if (format == PF_FORMAT_JUNIT) {
    put_junit(r, out);
  } else if (format == PF_FORMAT_JSON) {
    pf_js_dump(r, 1, out);
    pf_buf_puts(out, "\n");
  } else if (!strcmp(pf_js_str(r, "schema"), "personaflow-bisect/1")) {
    put_bisect(r, out);
  } else {
    put_text(r, out);
  }
}
