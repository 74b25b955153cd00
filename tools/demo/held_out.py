#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the prompts that no training text of the demo models has: the held-out cells of the demo grid,
then the other held-out persona x task pairs of the corpus.

usage: held_out.py >tests/fixtures/held-out.json
"""
import json
import sys

import corpus
import demo_grid


def prompt(persona, task):
    return corpus.TEMPLATE.format(persona=persona, task=corpus.TASKS[task].text)


def main():
    prompts = [prompt(demo_grid.persona(p)["text"], t) for p, t in corpus.DEMO_HELD_OUT]
    prompts += [prompt(corpus.PERSONAS[p].text, t) for p, t in corpus.held_out()]
    json.dump({"prompts": list(dict.fromkeys(prompts))}, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
