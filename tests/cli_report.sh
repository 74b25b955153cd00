#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Several studies side by side: verdicts of folders written by hand, the count of models that agree, medians of real sweeps in
# two precisions; what is there is not written over.
set -u
: "${srcdir:=.}" "${PF_EMULATOR:=}"
srcdir=$(cd "$srcdir" && pwd)
T=$(mktemp -d "${TMPDIR:-/tmp}/pf-report-XXXXXX") || exit 99
trap 'rm -rf "$T"' EXIT
export LC_ALL=C
. "$srcdir/tests/interrupt.sh"
# shellcheck disable=SC2086
pf() { $PF_EMULATOR ./personaflow "$@" >"$T/out" 2>"$T/err"; }

# A finished study of one hypothesis at the second tested layer: FOLDER MODEL PRECISION LAYER VERDICT
study() {
  mkdir "$T/$1"
  cat >"$T/$1/manifest.json" <<J
{"protocol": "full", "precision": "$3", "layers": [1, $4, 8], "cells": 4, "grid": {"name": "g", "sha256": "0"},
 "model": {"name": "$2", "weights_sha256": "sha-$2", "n_layers": 9}}
J
  cat >"$T/$1/findings.json" <<J
{"findings": [{"id": "H1b", "title": "additivity", "verdict": "$5", "kind": null, "criteria": [{"name": "R_X", "value": 0.5,
 "lo": 0.4, "hi": 0.6}], "where": {"site": "p_last", "layer": $4, "floor": 1e-9}},
 {"id": "H5", "title": "direct reading", "verdict": "$5", "kind": "direct", "criteria": [{"name": "c_D", "value": 0.9$4, "lo": 0.8,
 "hi": 1}, {"name": "c_I", "value": 0.125, "lo": 0, "hi": 0.2}], "where": {"ablation": "mask"}}]}
J
}
study a one f32 4 supported
study b two f32 7 supported
study c three f32 5 'not supported'
study d one int8 4 inconclusive
study i four int8 6 supported # of a model that was not run in f32
for d in a:4 b:7; do
  echo '{"causal": {"p_last": {"1": {"summary": {"median": 0.01}}, "8": {"summary": {"median": 0.08}}, "'${d#*:}'": {"summary": {"median": 0.0'${d#*:}'5}}}}}' \
    >"$T/${d%:*}/summary.json"
done
pf report "$T/a" "$T/b" "$T/c" "$T/d" "$T/i" --out "$T/all" || bad "report: $(cat "$T/err")"
tr -d ' \n' <"$T/all/comparison.json" | grep -q '"position":"p_last","tested_layer":2,"median_kl10":\[0.045,0.075,null,null,null\]' &&
  ok 'medians of the second tested layer, whichever that is' || bad "medians: $(tr -d ' \n' <"$T/all/comparison.json" | grep -o '"sweep".*')"
grep -q '"where": "H1b, p_last, tested layer 2"' "$T/all/comparison.json" && ok 'layers are matched by rank' || bad 'rows'
[ "$(grep -c '"where"' "$T/all/comparison.json")" -ge 1 ] || bad 'no rows'
tr -d '\n' <"$T/all/comparison.json" | grep -q '"id": "H9".*"cells": 3.*"value": 2' && ok 'H9: two of three models in f32, int8 is not one' ||
  bad "H9: $(grep -A 12 H9 "$T/all/comparison.json")"
grep -q 'one, int8' "$T/all/comparison.html" && ok 'a page' || bad 'no page'
grep -q '<td>9</td><td class="t">1, 7, 8</td>' "$T/all/comparison.html" && ok 'which layers were tested' || bad 'no tested layers'
for v in '0.94 \[0.8, 1\]' '0.97 \[0.8, 1\]' '0.95 \[0.8, 1\]' '0.125 \[0, 0.2\]'; do
  grep -q "<title>$v</title>" "$T/all/comparison.html" || bad "the figure of routes lacks $v"
done
grep -q 'dot c0".*<title>0.94 \[' "$T/all/comparison.html" && grep -q 'dot c1".*<title>0.125 \[' "$T/all/comparison.html" || bad 'the routes of the figure are the other way round'
[ -s "$T/all/figures/01-verdicts.svg" ] && grep -q '^"H5, mask' "$T/all/tables/"*-verdicts.csv && ok 'its figure and tables as files' || bad 'no parts'
pf report "$T/a" "$T/b" --out "$T/all" && bad 'written over' || { grep -q 'holds a comparison already' "$T/err" && ok "$(cat "$T/err")"; }
pf report "$T/a" "$T/b" --out "$T/all" --force || bad '--force'
tr -d '\n' <"$T/all/comparison.json" | grep -q '"value": 2' || bad 'two models'
# A model counts with the study in the grid's own words, whatever the order.
study p two f32 7 'not supported'
sed -i 's/"sha256": "0"/"sha256": "0", "paraphrase": "you-are"/' "$T/p/manifest.json"
pf report "$T/p" "$T/a" "$T/b" --out "$T/own" || bad "report: $(cat "$T/err")"
tr -d '\n' <"$T/own/comparison.json" | grep -q '"id": "H9".*"cells": 2.*"value": 2' && ok 'the study in its own words' || bad 'another wording counted'
# Two baselines of one model: the verdict that changes with it is named, and the columns are told apart.
study e one f32 4 'not supported'
for d in a:thoughtful e:plain; do
  sed 's/"sha256": "0"/"sha256": "0", "baseline": {"persona": "a '"${d#*:}"' person", "task": "talk"}/' "$T/${d%:*}/manifest.json" >"$T/m" &&
    mv "$T/m" "$T/${d%:*}/manifest.json"
done
pf report "$T/a" "$T/e" --out "$T/wording" || bad "report: $(cat "$T/err")"
grep -q 'baseline-dependent' "$T/wording/comparison.html" && grep -q 'one, f32, baseline &quot;a plain person&quot;' "$T/wording/comparison.html" &&
  tr -d ' \n' <"$T/wording/comparison.json" | grep -q '"depends_on":\["baseline"\]' && ok 'a verdict that depends on the baseline' || bad 'wording'
grep -q 'dependent' "$T/all/comparison.html" && bad 'a wording where there is one'
# Studies of one model on several grids: told apart, and what differs is not the baseline's doing.
study g one f32 4 'not supported'
study h one f32 4 supported
sed -i 's/"name": "g", "sha256": "0"/"name": "mine", "sha256": "1", "baseline": {"persona": "a plain person", "task": "talk"}/' "$T/g/manifest.json"
pf report "$T/a" "$T/g" --out "$T/grids" || bad "report: $(cat "$T/err")"
grep -q '>one, f32, grid g, baseline' "$T/grids/comparison.html" && grep -q '>one, f32, grid mine, baseline' "$T/grids/comparison.html" &&
  ok 'grids in the columns' || bad "columns: $(grep -o '>one, f32[^<]*' "$T/grids/comparison.html" | sort -u)"
grep -q 'dependent' "$T/grids/comparison.html" && bad 'another grid taken for another baseline'
pf report "$T/d" "$T/h" "$T/e" --out "$T/twice" && pf report "$T/h" "$T/h" --out "$T/twice" --force || bad "report: $(cat "$T/err")"
[ "$(grep -o ">one, f32, $T/h<" "$T/twice/comparison.html" | wc -l)" -ge 2 ] && ok 'folders where nothing else differs' || bad 'two columns of one name'
pf report "$T/a" "$T/none" --out "$T/x"
[ $? = 3 ] && ok "$(cat "$T/err")" || bad 'a folder that is not there'
pf report "$T/a" "$T/b" --out "$T/a"
[ $? = 2 ] && grep -q 'is one of the studies' "$T/err" && [ "$(ls "$T/a")" = $'findings.json\nmanifest.json\nsummary.json' ] && ok "$(cat "$T/err")" ||
  bad "a comparison into one of its studies: $(cat "$T/err"; ls "$T/a")"

# A study of one of the paper's models: its texts stand beside the paper's where they were scored on the paper's lists.
for lists in paper mine; do
  mkdir "$T/$lists"
  cat >"$T/$lists/manifest.json" <<J
{"protocol": "paper", "precision": "f32", "probes": ["p_last"], "layers": [14], "cells": 1, "markers": {"name": "$lists", "sha256":
 "$(sha256sum <"$srcdir/data/markers/$([ $lists = paper ] && echo paper || echo full).json" | cut -d' ' -f1)"},
 "grid": {"name": "paper-long", "sha256": "$(sha256sum <"$srcdir/data/grids/paper-long.json" | cut -d' ' -f1)",
 "personas": [{"key": "engineer", "text": "e"}], "tasks": [{"key": "arch", "text": "a"}]},
 "model": {"name": "m", "n_layers": 26, "repetition_penalty": 1, "shaped_as": "google/gemma-2-2b-it", "shaped_as_key": "gemma2b"}}
J
  echo '{"persona": "engineer", "task": "arch", "condition": "clean", "schedule": "once", "text": "z", "markers": 2}
{"persona": "engineer", "task": "arch", "condition": "bare", "schedule": "once", "text": "z", "markers": 0}' >"$T/$lists/markers.jsonl"
  echo '{"persona": "engineer", "task": "arch", "condition": "none", "kl": 9, "kl10": 0.5}' >"$T/$lists/injection.jsonl"
  echo '{"causal": {"p_last": {"14": {"summary": {"median": 0.458, "iqr": [0.4, 0.5]}, "per_cell": {"engineer__arch": 0.458}}}},
 "decomposition": {}, "personas": ["engineer"], "tasks": ["arch"]}' >"$T/$lists/summary.json"
  echo '{"persona": "engineer", "task": "arch", "y": {"text": "z"}, "prompt": {}}' >"$T/$lists/generated.jsonl"
  pf report "$T/$lists" || bad "report: $(cat "$T/err")"
done
grep -q '<td class="t">any marker</td><td class="t">clean</td><td>1.000</td><td>1.000</td><td>1/1</td>' "$T/paper/report.html" &&
  ok 'markers beside the published ones' || bad 'no published markers'
grep -q '<td class="t">bare</td><td>0.00000</td><td>1.000</td><td>0/1</td>' "$T/paper/report.html" &&
  grep -q '<td class="t">host</td><td>0.500</td><td>0.653</td><td>0/1</td>' "$T/paper/report.html" && ok 'ours, then theirs' ||
  bad "ours and theirs: $(grep -oE '<td class="t">(bare|host)</td>.*' "$T/paper/report.html" | head -n 2)"
grep -q '<td class="t">p_last</td><td>14</td><td>0.458</td><td>0.229</td><td>2.00</td>' "$T/paper/report.html" && ok 'a median twice the published one' ||
  bad "beside the paper: $(grep -o '<td class="t">p_last</td><td>14.*' "$T/paper/report.html" | head -n 1)"
# The paper ran Qwen in bf16: a study of it in f32 is held against that.
mkdir "$T/qwen"
sed 's/"layers": \[14\]/"layers": [7]/; s/gemma2b/qwen15/' "$T/paper/manifest.json" >"$T/qwen/manifest.json"
echo '{"persona": "engineer", "task": "arch", "probe": "p_last", "layer": 7, "kl": 0.05}' >"$T/qwen/results.jsonl"
pf report "$T/qwen" || bad "report: $(cat "$T/err")"
grep -q 'one of the two runs is in bf16' "$T/qwen/report.html" && grep -q 'or of .01 where that is less' "$T/paper/report.html" && ok 'Qwen beside bf16 runs' ||
  bad "the rule: $(grep -o 'A value agrees.*' "$T/qwen/report.html")"
grep -q 'any marker</td><td' "$T/mine/report.html" && bad 'markers of other lists beside the published ones'
grep -q 'marker lists &ldquo;mine&rdquo;: they are not set beside' "$T/mine/report.html" && ok 'not those of other lists' || bad 'other lists: not said'

# Wordings of one model in one precision are taken together, each cell's mean; another precision, or the same words again, are not.
words() { # FOLDER PRECISION PARAPHRASE RHO
  mkdir "$T/$1"
  echo '{"protocol": "full", "precision": "'$2'", "layers": [1], "cells": 1, "grid": {"name": "g", "sha256": "0", '"$3"'
 "personas": [{"key": "cook"}], "tasks": [{"key": "book"}, {"key": "hi"}]}, "model": {"name": "m", "weights_sha256": "s", "n_layers": 2}}' >"$T/$1/manifest.json"
  echo '{"findings": []}' >"$T/$1/findings.json"
  for t in book hi; do echo '{"persona": "cook", "task": "'$t'", "condition": "mass", "spearman": '$4'}'; done >"$T/$1/D4.jsonl"
}
words w1 f32 '' 0.5
words w2 f32 '"paraphrase": "p",' 0.25
words w3 int8 '"paraphrase": "q",' 0.9
words w4 f32 '' 0.8
pf report "$T/w1" "$T/w3" "$T/w2" "$T/w4" --out "$T/words" || bad "report: $(cat "$T/err")"
tr -d ' \n' <"$T/words/comparison.json" | grep -o '"folders":[^]]*]' | grep -q 'w1","[^"]*w2"]$' &&
  tr -d ' \n' <"$T/words/comparison.json" | grep -q '"name":"Spearman(cause,mass)","value":0.375' && ok 'two wordings in one precision' ||
  bad "wordings: $(tr -d ' \n' <"$T/words/comparison.json" | grep -o '"pooled":.*')"

# A page from records written by hand: what is printed is what they say, figures alone are cut at their lower edge.
mkdir "$T/hand"
cat >"$T/hand/manifest.json" <<'J'
{"schema": "personaflow-manifest/1", "protocol": "full", "precision": "f32", "probes": ["p_last"], "layers": [1], "cells": 1,
 "grid": {"name": "g", "sha256": "0", "personas": [{"key": "cook", "text": "a cook"}], "tasks": [{"key": "book", "text": "a book"}]},
 "model": {"name": "m", "n_layers": 2, "n_heads": 1}}
J
for l in 0 1 2; do
  for c in A1 S_X N1 N3_isotropic; do
    echo "{\"persona\": \"cook\", \"task\": \"book\", \"site\": \"p_last\", \"layer\": $l, \"condition\": \"$c\", \"kl10\": $l, \"kl_0\": $l}"
  done
done >"$T/hand/C1.jsonl"
pf report "$T/hand" || bad "a page of C1 alone: $(cat "$T/err")"
answer() { sed -n '/<h2>The answer/,/<\/ul>/p' "$T/$1/report.html" | grep '^<li>'; }
[ "$(answer hand | grep -oE '^<li>(Additive|Replaceable|Which way)\?|[0-9.]+ nats|was not asked here')" = "$(printf '%s\n' '<li>Additive?' '1 nats' '<li>Replaceable?' 'was not asked here' '<li>Which way?' 'was not asked here')" ] &&
  ok 'the answer: what was asked, and what was not' || bad "the answer of C1 alone: $(answer hand)"
grep -q 'm in f32 .*1 cell &middot; protocol full:' "$T/hand/report.html" && ok 'the head names precision and protocol' || bad 'head of the page'
grep -q 'stand in for the persona&rsquo;s text' "$T/hand/report.html" && bad 'the page explains what was not asked'
grep -q '^<tr><td>0</td><td>0\.000 <small>\[0\.000, 0\.000\]' "$T/hand/report.html" && ok 'a KL of 0 reads 0' || bad 'KL of layer 0'
# A neutral persona that is not of the persona's length: one token less is what whole words allow, nine are not.
for n in 9 1; do
  echo '{"persona": "cook", "task": "book", "condition": "host", "n_persona": 10, "n_neutral": '$n', "kl": 1}
{"persona": "cook", "task": "book", "condition": "T1", "closure": 0.5, "closure_0": 0.5}' >"$T/hand/D2.jsonl"
  pf report "$T/hand" || bad "a page with D2: $(cat "$T/err")"
  grep -o 'In . of . cells the neutral persona is shorter by more than a token, once with . of ..' "$T/hand/report.html"
done >"$T/short"
[ "$(cat "$T/short")" = 'In 1 of 1 cells the neutral persona is shorter by more than a token, once with 1 of 10' ] && ok "$(cat "$T/short")" ||
  bad "neutral personas: $(cat "$T/short")"

if [ "${PF_TEST_TIER:=normal}" = small ]; then
  echo "report: $n_ok ok, $n_bad failed; real studies run in the other tiers"
  [ $n_bad = 0 ] && [ $n_ok -ge 5 ]
  exit
fi
cat >"$T/grid.json" <<'G'
{"schema": "personaflow-grid/1", "name": "two", "template": "As {persona}, {task}",
 "baseline": {"persona": "a thoughtful person", "task": "Give advice to someone facing a difficult decision."},
 "personas": [{"key": "pirate", "text": "a pirate"}, {"key": "cook", "text": "a chef"}],
 "tasks": [{"key": "book", "text": "Recommend a book worth reading and explain why."}]}
G
for p in f32 int8; do
  pf study "$srcdir/data/models/demo-qwen2" --grid "$T/grid.json" --protocol paper --only additive --precision $p --out "$T/$p" --quiet ||
    bad "study: $(cat "$T/err")"
done
pf report "$T/f32" "$T/int8" --out "$T/precisions" || bad "report: $(cat "$T/err")"
tr -d ' \n' <"$T/precisions/comparison.json" | grep -qE '"position":"p_last","tested_layer":1,"median_kl10":\[[0-9.e-]+,[0-9.e-]+\]' && ok 'medians of the sweep' || bad 'no sweep'
grep -q 'p_last, 1' "$T/precisions/comparison.html" && ok 'medians in two precisions' || bad 'no medians'
parts() { (cd "$T/f32" && echo figures/* tables/*); }
svg=$(find "$T/f32/figures" -name '*.svg' | wc -l) csv=$(find "$T/f32/tables" -name '*.csv' | wc -l)
[ "$svg" = "$(grep -o '<svg' "$T/f32/report.html" | wc -l)" ] && [ "$svg" -gt 2 ] && ok "$svg figures" || bad "$svg figures"
[ "$csv" = "$(grep -oE '<table[ >]' "$T/f32/report.html" | wc -l)" ] && [ "$csv" -gt 2 ] && ok "$csv tables" || bad "$csv tables"
grep -q 'var(--' "$T/f32/figures/"*.svg && bad 'a figure wants the style of its page'
# A rule of a style sheet is stronger than an attribute: what must be white on a dark cell says so in a style.
grep -qE '<text[^>]* fill="' "$T/f32/figures/"*.svg && bad 'a colour that the sheet of the figure overrules'
grep -qE '<text[^>]* style="font-size:12px;fill:#fff">' "$T/f32/figures/"*cell-by-cell*.svg && ok 'white on dark cells' || bad 'no white numbers'
n='-?[0-9.]+(e-[0-9]+)?'
grep -qE "^p_last,$n,$n,$n,[0-9]+,2," "$T/f32/tables/"*.csv && grep -qE '^position,layer 2,layer 2 lo,layer 2 hi,layer 2 k,layer 2 n,' "$T/f32/tables/"*.csv &&
  ok 'the medians as CSV, one number a column' || bad "no medians as CSV: $(head -n 2 "$T/f32/tables/"01*)"
square() { # FILE: a header without gaps, and as many columns in every row
  sed 's/"[^"]*"/q/g' "$1" | awk -F, 'NR == 1 { n = NF; for (i = 1; i <= NF; i++) if ($i == "") exit 1 } NF != n { exit 1 } END { exit NR < 2 }'
}
for t in "$T/f32/tables/"*.csv "$T/hand/tables/"*.csv "$T/wording/tables/"*.csv; do
  square "$t" || bad "columns of $t: $(head -n 2 "$t")"
done
grep -qE '<|&[#a-z0-9]+;' "$T/f32/tables/"*.csv && bad "marks in CSV: $(grep -hE '<|&[#a-z0-9]+;' "$T/f32/tables/"*.csv | head -n 2)"
if $PF_EMULATOR ./personaflow info | grep -q '^figures.*png'; then
  [ "$svg" = "$(find "$T/f32/figures" -name '*.png' -size +2k | wc -l)" ] && ok 'as many PNG files' || bad 'PNG files'
fi

# Other words for the same question: the prompts differ, and a folder takes one kind only.
for how in '' '--baseline person,topic' '--paraphrase you-are' '--paraphrase system' --conflicts; do
  dir=$T/how$(tr -dc a-z <<<"$how")
  # shellcheck disable=SC2086
  pf study "$srcdir/data/models/demo-qwen2" --grid "$T/grid.json" --only y,injection $how --out "$dir" --quiet || bad "study $how: $(cat "$T/err")"
  sha256sum <"$dir/injection.jsonl"
done >"$T/sums"
[ "$(sort -u "$T/sums" | wc -l)" = 5 ] && ok 'baselines, paraphrases and conflicts give other results' || bad "$(cat "$T/sums")"
grep -q '"persona": "a person"' "$T/howbaselinepersontopic/manifest.json" && ok 'the manifest names the baseline' || bad 'baseline in manifest'
grep -q '"system": "You are {persona}."' "$T/howparaphrasesystem/manifest.json" && ok 'and the system message' || bad 'system in manifest'
[ "$(wc -l <"$T/howconflicts/injection.jsonl")" = "$(($(wc -l <"$T/how/injection.jsonl") * 15 / $(wc -l <"$T/how/y.jsonl")))" ] &&
  grep -q '"conflicts": \[\["engineer", "haiku"\], \["chef", "arch"\]' "$T/howconflicts/manifest.json" &&
  grep -q 'grid two (its conflicting cells, crossed) ' "$T/howconflicts/report.html" && ! grep -q 'conflicting' "$T/how/report.html" &&
  ok '15 cells, the manifest has which conflict, the page says so' || bad "$(wc -l "$T/howconflicts/injection.jsonl")"
pf study "$srcdir/data/models/demo-qwen2" --grid "$T/grid.json" --only y,injection --out "$T/howbaselinepersontopic" --quiet
[ $? = 2 ] && grep -q 'differs in baseline' "$T/err" && ok "$(cat "$T/err")" || bad "another baseline: $(cat "$T/err")"
for how in '' '--paraphrase you-are'; do
  # shellcheck disable=SC2086
  pf study "$srcdir/data/models/demo-qwen2" --grid "$T/grid.json" --only D4 $how --out "$T/pool$(tr -dc a-z <<<"$how")" --quiet || bad "study $how: $(cat "$T/err")"
done
pf report "$T/pool" "$T/poolparaphraseyouare" --out "$T/pooled" || bad "report: $(cat "$T/err")"
n=$(tr -d ' \n' <"$T/pooled/comparison.json" | grep -o '"pooled":.*"sweep"' | grep -o '"id":"H8"' | wc -l)
[ "$n" = 1 ] && grep -q 'Wordings together' "$T/pooled/comparison.html" && ok 'two wordings together: H8' || bad "wordings together: $n"
# H8's value together lies between those of the two
tr -d ' \n' <"$T/pooled/comparison.json" | grep -o '"name":"Spearman(cause,mass)","value":[-0-9.e]*' | sed 's/.*://' >"$T/rho"
awk 'NR == 1 { a = $1 } NR == 2 { b = $1 } { x = $1 } END { exit !(NR == 3 && a != b && (x - a) * (x - b) <= 0) }' "$T/rho" && ok 'and its value is between theirs' || bad "$(cat "$T/rho")"
mv "$T/how/injection.jsonl" "$T/mine" && pf report "$T/how"
[ $? = 3 ] && grep -q 'how/injection.jsonl: is missing, although the study has run injection' "$T/err" && ok "$(cat "$T/err")" ||
  bad "a page without records: $(cat "$T/err")"
before=$(parts)
touch "$T/f32/figures/99-old.svg" "$T/f32/figures/98-mine.svg" "$T/f32/tables/01-mine.csv"
echo 99-old.svg >>"$T/f32/figures/.parts" # as if an earlier page had made it
pf report "$T/f32" || bad "$(cat "$T/err")"
rm "$T/f32/figures/98-mine.svg" "$T/f32/tables/01-mine.csv" || bad 'removed what no page has made'
[ "$before" = "$(parts)" ] && ok 'made again: the same files' || bad "made again: $(parts)"
pf report "$T/f32" "$T/int8" --out "$T/f32" --force
[ $? = 2 ] && grep -q 'is one of the studies' "$T/err" && [ ! -e "$T/f32/comparison.json" ] && ok 'no comparison into a study, --force or not' || bad 'into a study'

# Whatever texts a grid has, they are texts on every page.
cat >"$T/evil.json" <<'G'
{"schema": "personaflow-grid/1", "name": "<script>n()</script> & \"n\" 'n'", "description": "<script>d()</script>",
 "template": "<script>t()</script> As {persona}, {task} & so",
 "baseline": {"persona": "a <script>b()</script> person & \"co\"", "task": "Give <script>a()</script> 'advice' & more."},
 "hosts": [{"key": "h", "text": "<script>h()</script> & {task}"}],
 "paraphrases": [{"key": "p", "system": "<script>s()</script> & {persona}", "text": "<script>u()</script> {task}"}],
 "personas": [{"key": "pirate", "text": "a <script>p()</script> pirate & \"crew\""}],
 "tasks": [{"key": "book", "text": "Recommend a <script>k()</script> book & say 'why'."}]}
G
for how in '' '--paraphrase p'; do
  # shellcheck disable=SC2086
  pf study "$srcdir/data/models/demo-qwen2" --grid "$T/evil.json" --protocol paper --only additive,injection,layer_sets $how --out "$T/evil${how:+2}" --quiet ||
    bad "study $how: $(cat "$T/err")"
done
for f in results generated y injection layer_sets; do
  grep -qv '^{"schema":"personaflow-[a-z]*/1","precision":"f32",' "$T/evil/$f.jsonl" && bad "$f.jsonl: $(head -c 100 "$T/evil/$f.jsonl")"
done
# What a manifest by hand may hold besides.
mkdir "$T/evil3" && cp "$T/evil/"*.json* "$T/evil3" &&
  sed -E 's/"(p_last|g1|f32|pirate)"/"<script>\1"/; s/"name": "(demo|per)/"name": "<script>\1/' "$T/evil/manifest.json" >"$T/evil3/manifest.json"
pf report "$T/evil3" || bad "report: $(cat "$T/err")"
pf report "$T/evil" "$T/evil2" "$T/evil3" --out "$T/evils" || bad "report: $(cat "$T/err")"
pages=("$T"/evil*/*.html "$T"/evil*/figures/*.svg)
grep -l '<script' "${pages[@]}" && bad 'a script of the grid runs on a page'
[ "$(answer evil | grep -cE '^<li>(Additive|Replaceable)\?.* -?[0-9.]+')" = 2 ] && answer evil | grep -q 'not asked here (protocol full asks it)' &&
  grep -q 'protocol of the paper' "$T/evil/report.html" && ok 'the answer of the protocol of the paper' || bad "the answer: $(answer evil)"
[ ${#pages[@]} -gt 10 ] && grep -q '&lt;script&gt;n()&lt;/script&gt; &amp; &quot;n&quot; &#39;n&#39;' "$T/evil/report.html" && ok "texts are texts on ${#pages[@]} pages and figures" ||
  bad 'the name of the grid'
echo "report: $n_ok ok, $n_bad failed"
[ $n_bad = 0 ] && [ $n_ok -ge 6 ]
