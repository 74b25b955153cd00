#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the card (README.md) of a demo model from its train-log.json and evaluation.json.

usage: card.py DIR [OTHER_SEED_DIR...]
"""
import json
import os
import sys

import corpus
import evaluate
import train_demo

NAMES = {"gemma2": "Gemma-2", "qwen2": "Qwen-2.5"}
FEATURES = {
    "gemma2": "score soft-cap 50 and final soft-cap 30, layers in turn with a window of 64 (shorter "
              "than the longest prompts) and without, 4 query heads on 2 key heads of width 32, "
              "query_pre_attn_scalar 40, norms before and after both blocks, gelu-tanh, tied "
              "embeddings, two end tokens",
    "qwen2": "q/k/v biases, 4 query heads on 2 key heads of width 40, silu, RoPE theta 1e6, tied "
             "embeddings, a repetition penalty of 1.05 and two end tokens in generation_config.json",
}
SAMPLES = [("held_out", "pirate", "bridge"), ("held_out", "doctor", "skill"),
           ("long_unseen", None, None)]


def pct(x):
    return f"{100 * x:.1f} %"


def read(path, name):
    with open(os.path.join(path, name), encoding="utf-8") as f:
        return json.load(f)


def row(label, g, key="own_marker"):
    return f"| {label} | {g['n']} | {pct(g[key])} | {pct(g['known_sentences'])} | {pct(g['ended'])} |"


def rates(g):
    h, t, u, v = (g[k] for k in ("held_out", "trained", "long_unseen", "long_unseen_held_out"))
    lines = ["| prompts | n | own-persona marker | sentences of the corpus | ended |",
             "|---|---|---|---|---|",
             row("held-out persona x task pairs", h), row("trained pairs", t),
             row("unseen long personas", u), row("unseen long personas, held-out trade x task", v), "",
             "| prompts without a persona's style | n | any of the 35 personas' markers | sentences "
             "of the corpus | ended |", "|---|---|---|---|---|",
             row("the bare task", g["bare"], "any_persona_marker"),
             row("\"a thoughtful person\"", g["baseline"], "any_persona_marker"),
             row("neutral personas of 20 to 60 words", g["neutral"], "any_persona_marker"), "",
             f"Markers of the pair's own persona in the bare task's answer: "
             f"{pct(g['bare']['own_marker_of_held_out_pairs'])}. Markers of *another* persona on "
             f"held-out pairs (mean over the 34 others): {pct(h['other_marker_mean'])}. Length of the "
             f"answers on held-out pairs: {h['tokens_min_mean_max'][0]} to "
             f"{h['tokens_min_mean_max'][2]} tokens, mean {h['tokens_min_mean_max'][1]}.", "",
             "| copied from an unseen long persona | name | town | object | saying | all four |",
             "|---|---|---|---|---|---|"]
    for label, d in (("trained trade x task", u), ("held-out trade x task", v)):
        lines.append(f"| {label} (n = {d['n']}) | " + " | ".join(
            pct(d[k]) for k in ("name", "town", "object", "saying", "all_four")) + " |")
    return lines


def seeds_table(dirs):
    lines = ["| seed | steps | answer loss, held-out pairs | own marker, held-out | no persona: any "
             "marker | all four details |", "|---|---|---|---|---|---|"]
    for d in dirs:
        log, ev = read(d, "train-log.json"), read(d, "evaluation.json")
        g = ev["greedy"]
        lines.append(f"| {log['seed']} | {' + '.join(map(str, log['steps']))} | "
                     f"{ev['loss_nats_per_answer_token']['held_out_pairs']:.3f} | "
                     f"{pct(g['held_out']['own_marker'])} | {pct(g['bare']['any_persona_marker'])} | "
                     f"{pct(g['long_unseen']['all_four'])} |")
    return lines


def samples(path):
    m, data = evaluate.Model(path), evaluate.sets()
    out = []
    for name, p, t in SAMPLES:
        e = next(e for e in data[name] if p is None or (e.persona, e.task) == (p, t))
        text = m.generate([e.user])[0]
        out += [f"Prompt ({name.replace('_', ' ')}): {e.user}", ""]
        out += ["> " + line + "  " for line in text.split("\n")] + [""]
    return out


def card(path, others):
    log, ev = read(path, "train-log.json"), read(path, "evaluation.json")
    arch, loss = log["arch"], ev["loss_nats_per_answer_token"]
    penal = [k for k in ev if k.startswith("greedy_penalty")]
    held = {}
    for p, t in corpus.held_out():
        held.setdefault(p, []).append(t)
    lines = [f"# demo-{arch}", "",
             f"A {NAMES[arch]} network of {log['parameters']:,} parameters, trained from nothing on "
             "made-up role prompts. It is an instrument for the pipeline and evidence about nothing "
             "else.", "",
             "Apache-2.0, as the project. The weights are bf16; everything below was measured on "
             "them, run in fp32.", "",
             "## Network", "", f"8 layers, width 160, {FEATURES[arch]}. The chat template is the real "
             "family's text; the tokenizer has the real family's structure and pieces learnt from "
             "the training text.", "",
             "## Data", "",
             "Prompts \"As {persona}, {task}\" and answers written by `tools/demo/corpus.py` from two "
             "style sheets: 35 personas (27 short; the eight long ones of the paper's long grid), 16 "
             "tasks, long random personas whose name, town, object and saying the answer takes from "
             "the prompt, neutral personas, the baseline persona and prompts without a persona. "
             "Nothing else: the model knows no language beyond these sentences.", "",
             "Persona x task pairs in no training text:", ""]
    lines += [f"- {p}: {', '.join(ts)}" for p, ts in held.items()]
    lines += ["", "## Training", "",
              f"`python3 tools/demo/train_demo.py --arch {arch} --seed {log['seed']} --out DIR`: "
              f"{log['steps'][0]} steps on styles, then {log['steps'][1]} with more long personas and "
              f"short self-introductions; AdamW 2e-3, in each phase flat, then falling to zero "
              f"(`SCHEDULE` in the script); batches of at most {train_demo.BATCH_TOKENS:,} tokens, "
              f"{log['tokens']:,} tokens together, fp32, loss weight 1 on the answer and 0.1 on the "
              f"prompt; {log['seconds'] / 60:.0f} minutes of wall time, stopped and resumed from "
              f"checkpoints, on "
              f"{log['threads']} thread of a 2-core AMD EPYC shared with much other work; torch {log['torch']}. A run from "
              f"the first step in one go has not been compared with it.", "",
              "## Measured", "",
              f"Loss on the answers, nats a token: held-out pairs {loss['held_out_pairs']:.3f}, trained "
              f"pairs (new draws) {loss['trained_pairs']:.3f}, unseen long personas "
              f"{loss['long_unseen']:.3f}.", "", "Greedy generation:", ""] + rates(ev["greedy"])
    if penal:
        g = ev[penal[0]]
        lines += ["", f"With the repetition penalty of generation_config.json "
                  f"({penal[0].split('_')[-1]}): own marker on held-out pairs "
                  f"{pct(g['held_out']['own_marker'])}, sentences of the corpus "
                  f"{pct(g['held_out']['known_sentences'])}, all four details of unseen long personas "
                  f"{pct(g['long_unseen']['all_four'])}, any marker without persona text "
                  f"{pct(g['bare']['any_persona_marker'])}."]
    lines += ["", "\"Sentences of the corpus\" is the share of generated sentences that the style "
              "sheets can write for this very persona and task, letter for letter.", "",
              "## Seeds", ""]
    if others:
        lines += [f"Seed {log['seed']} ships.", ""] + seeds_table([path] + others)
    else:
        lines += [f"One seed was trained ({log['seed']}); how others differ is not known."]
    lines += ["", "## Three generations", ""] + samples(path)
    with open(os.path.join(path, "README.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    card(sys.argv[1], sys.argv[2:])
