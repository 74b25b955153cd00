#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a demo model: the figures of its card.

usage: evaluate.py DIR [--json FILE] [--samples] [--threads N]

The bf16 weights run in fp32 under Hugging Face transformers; generation is greedy, once without and,
where generation_config.json has one, once with the repetition penalty.
"""
import argparse
import itertools
import json
import os
import random
import re

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import corpus
import formats
import train_demo

MAX_NEW = 128
N_LONG, N_NEUTRAL, N_TRAINED, N_LOSS = 128, 48, 64, 192


class Model:
    def __init__(self, path):
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.config = self.model.config
        self.arch = self.config.model_type
        self.tok = Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
        self.gen = json.load(open(os.path.join(path, "generation_config.json")))
        eos = self.gen["eos_token_id"]
        self.eos = eos if isinstance(eos, list) else [eos]

    def prompt(self, user):
        return self.tok.encode(formats.render(self.arch, user), add_special_tokens=False).ids

    def generate(self, users, penalty=1.0, batch=32):
        """Greedy texts, without the end mark; None marks a text that did not end."""
        order = sorted(range(len(users)), key=lambda i: len(self.prompt(users[i])))
        out = [None] * len(users)
        for k in range(0, len(order), batch):
            idx = order[k:k + batch]
            for i, t in zip(idx, self.generate_batch([users[i] for i in idx], penalty)):
                out[i] = t
        return out

    @torch.no_grad()
    def generate_batch(self, users, penalty):
        ids = [self.prompt(u) for u in users]
        n = max(map(len, ids))
        pad = torch.tensor([[0] * (n - len(r)) + r for r in ids])
        mask = torch.tensor([[0] * (n - len(r)) + [1] * len(r) for r in ids])
        pos = (mask.cumsum(1) - 1).clamp(min=0)
        seen = torch.zeros(len(ids), self.config.vocab_size, dtype=torch.bool)
        for i, r in enumerate(ids):
            seen[i, r] = True
        cache, cur, new = None, pad, []
        done = torch.zeros(len(ids), dtype=torch.bool)
        while len(new) < MAX_NEW and not done.all():
            o = self.model(input_ids=cur, attention_mask=mask, position_ids=pos,
                           past_key_values=cache, use_cache=True)
            cache, z = o.past_key_values, o.logits[:, -1]
            if penalty != 1.0:
                z = torch.where(seen, torch.where(z > 0, z / penalty, z * penalty), z)
            nxt = z.argmax(-1)
            seen[torch.arange(len(ids)), nxt] = True
            new.append(nxt)
            done |= torch.isin(nxt, torch.tensor(self.eos))
            cur, pos = nxt[:, None], pos[:, -1:] + 1
            mask = torch.cat([mask, torch.ones(len(ids), 1, dtype=mask.dtype)], 1)
        rows = torch.stack(new, 1).tolist()
        return [self.text(r) for r in rows]

    def text(self, row):
        stop = next((i for i, t in enumerate(row) if t in self.eos), None)
        body = self.tok.decode(row[:stop], skip_special_tokens=False)
        return body if stop is not None else body + " [no end]"

    @torch.no_grad()
    def loss(self, examples):
        """Mean nats a token over the answers."""
        rng, total, count = random.Random(0), 0.0, 0
        rows = sorted((train_demo.encode(self.arch, self.tok, e, rng) for e in examples),
                      key=lambda r: len(r[0]))
        for k in range(0, len(rows), 16):
            _, s, n = train_demo.loss_of(self.model, rows[k:k + 16])
            total, count = total + s, count + n
        return total / count


def split(text):
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+|\n", text) if s.strip()]


def sentences(pkey, tkey, details=None):
    """Every sentence that the corpus can write for this persona and task."""
    p, t = corpus.PERSONAS[pkey], corpus.TASKS[tkey]

    def own(letter):
        return [s.replace("{topic}", t.topic).replace("{Topic}", corpus.cap(t.topic))
                for s in p.lines[letter]]

    out = own("o") + own("a") + own("c") + own("h")
    for letter, lines in t.lines.items():
        if letter != "x":
            out += lines
    for x, g, f, q in itertools.product(t.lines["x"], own("g"), own("f"), own("t")):
        out.append(x.replace("{good}", g).replace("{flaw}", f).replace("{test}", q))
    if details:
        vals = dict(details, habit=corpus.HABIT[details["habit"]][1])
        for line in itertools.chain(corpus.INTRO, corpus.LATE_TOWN, corpus.HABIT_S, corpus.OBJ_S,
                                    corpus.SAY_S):
            out.append(line.format(**vals))
    return {s for line in out for s in split(line)}


def rate(values):
    values = list(values)
    return round(sum(values) / len(values), 4) if values else None


def exact(examples, texts):
    """Share of generated sentences that the corpus can write for the same persona and task."""
    ok = []
    for e, text in zip(examples, texts):
        known = sentences(e.persona, e.task, e.details)
        ok += [s in known for s in split(text)]
    return rate(ok)


def own_rate(examples, texts):
    return rate(bool(corpus.marker_hits(t, corpus.PERSONAS[e.persona].markers))
                for e, t in zip(examples, texts))


def other_rate(examples, texts):
    """Mean over texts and over the other personas of showing one of that persona's markers."""
    return rate(bool(corpus.marker_hits(t, p.markers)) for e, t in zip(examples, texts)
                for p in corpus.STYLES if p.key != e.persona)


def sets(seed=12345):
    rng = random.Random(f"evaluation-{seed}")
    held = [corpus.example(rng, "style", p, t) for p, t in corpus.held_out()]
    trained = [corpus.example(rng, "style") for _ in range(N_TRAINED)]
    bare = [corpus.example(rng, "bare", tkey=t) for t in corpus.TASKS]
    base = [corpus.Example(corpus.role(corpus.BASE_PERSONA, t), "", "base", "neutral", t.key)
            for t in corpus.TASKS.values()]
    neutral = [corpus.example(rng, "neutral") for _ in range(N_NEUTRAL)]
    long_ = [corpus.example(rng, "long", unseen=True) for _ in range(N_LONG)]
    pairs = [x for x in corpus.held_out() if corpus.PERSONAS[x[0]].kind == "trade"]
    long_held = [corpus.example(rng, "long", p, t, unseen=True) for p, t in pairs * 2]
    return {"held_out": held, "trained": trained, "bare": bare, "baseline": base,
            "neutral": neutral, "long_unseen": long_, "long_unseen_held_out": long_held}


def measure(m, data, penalty):
    out, texts = {}, {}
    for name, ex in data.items():
        texts[name] = m.generate([e.user for e in ex], penalty)
    for name in ("held_out", "trained", "long_unseen", "long_unseen_held_out"):
        ex, tx = data[name], texts[name]
        out[name] = {"n": len(ex), "own_marker": own_rate(ex, tx),
                     "other_marker_mean": other_rate(ex, tx), "known_sentences": exact(ex, tx),
                     "ended": rate("[no end]" not in t for t in tx)}
        if name.startswith("long"):
            for d in ("name", "town", "object", "saying"):
                out[name][d] = rate(e.details[d] in t for e, t in zip(ex, tx))
            out[name]["all_four"] = rate(
                all(e.details[d] in t for d in ("name", "town", "object", "saying"))
                for e, t in zip(ex, tx))
    for name in ("bare", "baseline", "neutral"):
        ex, tx = data[name], texts[name]
        out[name] = {"n": len(ex),
                     "any_persona_marker": rate(any(corpus.marker_hits(t, p.markers)
                                                    for p in corpus.STYLES) for t in tx),
                     "known_sentences": exact(ex, tx),
                     "ended": rate("[no end]" not in t for t in tx)}
    bare = {e.task: t for e, t in zip(data["bare"], texts["bare"])}
    out["bare"]["own_marker_of_held_out_pairs"] = rate(
        bool(corpus.marker_hits(bare[t], corpus.PERSONAS[p].markers)) for p, t in corpus.held_out())
    lengths = [len(m.tok.encode(t, add_special_tokens=False).ids) for t in texts["held_out"]]
    out["held_out"]["tokens_min_mean_max"] = [min(lengths), round(sum(lengths) / len(lengths), 1),
                                              max(lengths)]
    return out, texts


def losses(m):
    rng = random.Random("evaluation-loss")
    pairs = corpus.held_out()
    held = [corpus.example(rng, "style", *pairs[i % len(pairs)]) for i in range(N_LOSS)]
    seen = [corpus.example(rng, "style") for _ in range(N_LOSS)]
    unseen = [corpus.example(rng, "long", unseen=True) for _ in range(N_LOSS)]
    return {"held_out_pairs": round(m.loss(held), 4), "trained_pairs": round(m.loss(seen), 4),
            "long_unseen": round(m.loss(unseen), 4)}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("dir")
    ap.add_argument("--json")
    ap.add_argument("--samples", action="store_true")
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    m, data = Model(a.dir), sets()
    result = {"loss_nats_per_answer_token": losses(m)}
    result["greedy"], texts = measure(m, data, 1.0)
    penalty = m.gen.get("repetition_penalty", 1.0)
    if penalty != 1.0:
        result[f"greedy_penalty_{penalty}"], _ = measure(m, data, penalty)
    print(json.dumps(result, indent=1))
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if a.samples:
        for name in data:
            for e, t in list(zip(data[name], texts[name]))[:5]:
                print(f"--- {name} {e.persona} {e.task}\n> {e.user}\n< {t}")


if __name__ == "__main__":
    main()
