#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the grid of the demo models: 6 personas x 4 tasks, half of the cells held out of training.

usage: demo_grid.py OUTDIR

Four personas are in the training text; the last two are long ones that are not: their surname, town,
object and saying are word pairs that training never draws, so the answer can only copy them.
"""
import json
import sys

import corpus

UNSEEN = {
    "clockmaker": ("Petra Radford, a soft-spoken clockmaker from Glenwater who walks to work in every "
                   "weather, carries a leather compass, owns a few books and a bicycle, knows most "
                   "of the neighbours, and likes to say first patience, then thunder",
                   {"name": "Petra Radford", "town": "Glenwater", "object": "leather compass",
                    "saying": "first patience, then thunder"}),
    "beekeeper": ("a stubborn beekeeper from Ravenbury named Hugo Thornley who likes to say no soup "
                  "without nails, lives above a narrow shop, wakes before dawn, visits relatives "
                  "twice a year, and carries a round lamp",
                  {"name": "Hugo Thornley", "town": "Ravenbury", "object": "round lamp",
                   "saying": "no soup without nails"}),
}


def persona(key):
    p = corpus.PERSONAS[key]
    if key not in UNSEEN:
        return {"key": key, "text": p.text, "markers": p.markers}
    text, details = UNSEEN[key]
    return {"key": key, "text": text, "markers": p.markers + list(details.values())}


def main():
    grid = {"schema": "personaflow-grid/1", "name": "demo",
            "description": "Grid of the demo models: 6 personas x 4 tasks; the cells in held_out "
                           "are in no training text, the last two personas are unseen.",
            "template": corpus.TEMPLATE,
            "baseline": {"persona": corpus.BASE_PERSONA,
                         "task": corpus.TASKS[corpus.BASE_TASK].text},
            "personas": [persona(k) for k in corpus.DEMO_PERSONAS],
            "tasks": [{"key": k, "text": corpus.TASKS[k].text} for k in corpus.DEMO_TASKS],
            "probes": ["p_user_last", "p_last", "g1", "g2"],
            "held_out": [list(x) for x in corpus.DEMO_HELD_OUT]}
    with open(f"{sys.argv[1]}/demo.json", "w", encoding="utf-8") as f:
        json.dump(grid, f, ensure_ascii=False, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
