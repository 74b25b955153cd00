#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train one demo model and export it as a Hugging Face directory.

usage: train_demo.py --arch gemma2|qwen2 --seed N --out DIR [--resume]

Without further options this makes the models that ship. Others, wider ones for instance:
    train_demo.py --arch gemma2 --set hidden_size=1024 intermediate_size=4096 num_hidden_layers=4 \
        head_dim=64 num_attention_heads=16 num_key_value_heads=4 query_pre_attn_scalar=64 \
        initializer_range=0.02 --lr 6e-4 --batch-tokens 18432 --device cuda --workers 14 --out DIR

Trains in fp32 on the text of corpus.py (loss weight 1 on the answer, 0.1 on the prompt), then
rounds the weights to bf16 and writes config.json, generation_config.json, tokenizer.json,
tokenizer_config.json, model.safetensors and train-log.json. Two phases with their own mixture of
prompts: styles, then reading details off the prompt. In each, the learning rate rises over WARMUP
steps and then follows the straight lines of SCHEDULE.
"""
import argparse
import collections
import functools
import itertools
import json
import math
import multiprocessing
import os
import random
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast
from transformers import Qwen2Config, Qwen2ForCausalLM

import corpus
import formats

CLASSES = {"gemma2": (Gemma2Config, Gemma2ForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
N_PIECES = {"gemma2": 2560, "qwen2": 2304}
TOKENIZER_SEED, N_TOKENIZER = 7, 12000
CHUNK = 1024            # examples drawn and sorted by length at a time
BATCH_TOKENS = 2304     # rows times longest row of one batch
PROMPT_WEIGHT = 0.1
LR, WARMUP, WEIGHT_DECAY, CLIP = 2e-3, 60, 0.05, 1.0
# (step, share of LR) knots of the two phases; the last step of a phase is its last knot's.
SCHEDULE = {"gemma2": (((900, 1.0), (1500, 0.0)), ((600, 1.0), (664, 0.84), (800, 0.0))),
            "qwen2": (((900, 1.0), (1500, 0.0)), ((780, 1.0), (1300, 0.0)))}
PHASES = (("style", corpus.MIX), ("reading", corpus.MIX_READING))
SYSTEMS = ((0.85, None), (0.10, "You are a helpful assistant."), (0.05, "Answer briefly."))


def build_tokenizer(arch):
    """tokenizer.json as a dict: learnt on answers and prompts of a stream of its own."""
    ex = corpus.stream(TOKENIZER_SEED, N_TOKENIZER)
    texts = [e.user for e in ex] + [e.answer for e in ex]
    if arch == "qwen2":
        texts += [f"system\n{formats.QWEN_SYSTEM}", "user\n", "assistant\n"] * 1000
        texts += [s for _, s in SYSTEMS if s] * 200
    else:
        texts += ["user\n", "model\n"] * 1000
    return formats.BUILD[arch](texts, N_PIECES[arch])


def check_template(arch, tok_json):
    """Our rendering equals the chat template's."""
    t = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tok_json)))
    t.chat_template = formats.template_text(arch)
    t.bos_token = "<bos>" if arch == "gemma2" else None
    got = t.apply_chat_template([{"role": "user", "content": "As Yoda, hum."}], tokenize=False,
                                add_generation_prompt=True)
    assert got == formats.render(arch, "As Yoda, hum."), got


def encode(arch, tok, e, rng):
    """(ids, length of the prompt) of one example."""
    r, system = rng.random(), None
    for p, s in SYSTEMS:
        if r < p:
            system = s
            break
        r -= p
    prompt = tok.encode(formats.render(arch, e.user, system), add_special_tokens=False).ids
    answer = tok.encode(e.answer + formats.end_of_answer(arch), add_special_tokens=False).ids
    return prompt + answer, len(prompt)


def batches(arch, tok, seed, batch_tokens, phase, chunk):
    """The batches of one chunk: rows of like length together, in random order."""
    name, mix = PHASES[phase]
    key = f"{seed}-{chunk}" if phase == 0 else f"{seed}-{name}-{chunk}"
    rng = random.Random(f"batches-{key}")
    rows = [encode(arch, tok, e, rng) for e in corpus.stream(key, CHUNK, mix)]
    rows.sort(key=lambda x: len(x[0]))
    out, cur = [], []
    for r in rows:
        if cur and (len(cur) + 1) * len(r[0]) > batch_tokens:
            out.append(cur)
            cur = []
        cur.append(r)
    out.append(cur)
    rng.shuffle(out)
    return out


def chunks(arch, tok, a, phase, first):
    """The batches of chunk after chunk; workers make those to come."""
    make = functools.partial(batches, arch, tok, a.seed, a.batch_tokens, phase)
    if not a.workers:
        yield from map(make, itertools.count(first))
        return
    with multiprocessing.get_context("spawn").Pool(a.workers) as pool:
        ahead = collections.deque(pool.apply_async(make, (first + i,)) for i in range(2 * a.workers))
        for i in itertools.count(first + len(ahead)):
            yield ahead.popleft().get()
            ahead.append(pool.apply_async(make, (i,)))


def tensors(rows, device):
    """ids [B,T] right-padded with 0, weights [B,T-1] of the predicted tokens."""
    n = max(len(r) for r, _ in rows)
    ids = torch.zeros(len(rows), n, dtype=torch.long)
    w = torch.zeros(len(rows), n)
    for i, (r, p) in enumerate(rows):
        ids[i, :len(r)] = torch.tensor(r)
        w[i, :p] = PROMPT_WEIGHT
        w[i, p:len(r)] = 1.0
    return ids.to(device), w[:, 1:].to(device)


def loss_of(model, rows):
    """Weighted mean loss, and sum and count over the answers alone. Rows are right-padded: under
    the causal mask no real token sees the padding, so no attention mask is needed."""
    ids, w = tensors(rows, model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.size(-1)),
                                            ids[:, 1:].reshape(-1), reduction="none").view_as(w)
    ans = w == 1.0
    return (nll * w).sum() / w.sum(), nll[ans].sum().item(), int(ans.sum())


def share_at(step, knots):
    """The share of the learning rate."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    at, share = 0, 1.0
    for s, f in knots:
        if step < s:
            return share + (f - share) * (step - at) / (s - at)
        at, share = s, f
    return 0.0


def export(arch, tok_json, config, model, out, log):
    """Write the Hugging Face directory with the weights rounded to bf16."""
    os.makedirs(out, exist_ok=True)
    files = {"config.json": config,
             "generation_config.json": formats.generation_config(arch, tok_json),
             "tokenizer_config.json": formats.tokenizer_config(arch, tok_json),
             "train-log.json": log}
    for name, value in files.items():
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=2)
            f.write("\n")
    with open(os.path.join(out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tok_json, f, ensure_ascii=False, indent=1)
        f.write("\n")
    state = {k: v.detach().to("cpu", torch.bfloat16).contiguous()
             for k, v in model.state_dict().items() if k != "lm_head.weight"}
    weights = os.path.join(out, "model.safetensors")
    save_file(state, weights, metadata={"format": "pt"})
    os.chmod(weights, 0o644)


class Run:
    """The state of one training run, and its checkpoint."""

    def __init__(self, args, model, tok):
        self.a, self.model, self.tok = args, model, tok
        self.schedule = [[(round(at * args.stretch), share) for at, share in knots]
                         for knots in SCHEDULE[args.arch]]
        self.steps = [knots[-1][0] for knots in self.schedule]
        groups = [{"params": [p for p in model.parameters() if p.dim() > 1]},
                  {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
        self.opt = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
        self.at = {"phase": 0, "step": 0, "chunk": 0, "tokens": 0, "seconds": 0.0, "curve": []}
        self.path = os.path.join(args.out, "checkpoint.pt")

    def save(self):
        torch.save({"model": self.model.state_dict(), "opt": self.opt.state_dict(), "at": self.at},
                   self.path + ".tmp")
        os.replace(self.path + ".tmp", self.path)

    def load(self):
        c = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(c["model"])
        self.opt.load_state_dict(c["opt"])
        self.at = c["at"]

    def step(self, rows):
        at = self.at
        for g in self.opt.param_groups:
            g["lr"] = self.a.lr * share_at(at["step"], self.schedule[at["phase"]])
        loss, s, k = loss_of(self.model, rows)
        if not math.isfinite(loss.item()):
            raise SystemExit("the loss is not finite")
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.opt.step()
        at["step"] += 1
        at["tokens"] += sum(len(r) for r, _ in rows)
        return s, k

    def phase(self):
        """Train to the end of the current phase."""
        at, a, total, count = self.at, self.a, 0.0, 0
        n, start = self.steps[at["phase"]], time.time() - at["seconds"]
        source = chunks(a.arch, self.tok, a, at["phase"], at["chunk"])
        while at["step"] < n:
            for rows in next(source):
                s, k = self.step(rows)
                total, count, at["seconds"] = total + s, count + k, time.time() - start
                if at["step"] % 20 == 0:
                    at["curve"].append([at["phase"], at["step"], round(total / count, 4)])
                    print(f"{PHASES[at['phase']][0]} {at['step']} answer loss {total / count:.4f} "
                          f"tokens {at['tokens']} {at['seconds']:.0f} s", flush=True)
                    total, count = 0.0, 0
                if at["step"] >= n:
                    break
            at["chunk"] += 1
            if at["chunk"] % a.save_every == 0:
                self.save()
        source.close()
        self.save()

    def train(self):
        while True:
            self.phase()
            if self.at["phase"] + 1 == len(PHASES):
                return
            self.at.update(phase=self.at["phase"] + 1, step=0, chunk=0)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--arch", choices=sorted(CLASSES), required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", required=True)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of config.json")
    ap.add_argument("--lr", type=float, default=LR)
    ap.add_argument("--stretch", type=float, default=1, help="times as many steps")
    ap.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--workers", type=int, default=0, help="processes that make the text")
    ap.add_argument("--save-every", type=int, default=1, metavar="CHUNKS")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    if a.device != "cpu":
        torch.set_float32_matmul_precision("high")
    tok_json = build_tokenizer(a.arch)
    check_template(a.arch, tok_json)
    config_class, model_class = CLASSES[a.arch]
    values = formats.model_config(a.arch, tok_json)
    values.update((k, json.loads(v)) for k, v in (s.split("=", 1) for s in a.set))
    config = config_class(**values)
    config._attn_implementation = "eager" if a.arch == "gemma2" else "sdpa"
    model = model_class(config).float().train().to(a.device)
    n = sum(p.numel() for p in model.parameters())
    os.makedirs(a.out, exist_ok=True)
    run = Run(a, model, Tokenizer.from_str(json.dumps(tok_json)))
    if a.resume:
        run.load()
    print(f"{a.arch}: {n} parameters, vocabulary {config.vocab_size}", flush=True)
    run.train()
    log = {"arch": a.arch, "seed": a.seed, "steps": run.steps, "tokens": run.at["tokens"],
           "parameters": n, "seconds": round(run.at["seconds"]), "threads": a.threads,
           "torch": torch.__version__, "answer_loss": run.at["curve"]}
    export(a.arch, tok_json, values, model, a.out, log)
    print("written:", a.out, flush=True)


if __name__ == "__main__":
    main()
