#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the two grids of the additive-composition paper as grid files.

Texts are facts of the paper's protocol (arXiv 2605.23147); the marker lists of the long grid are
the published ones, the lists of the short grid are this project's own (the paper scored none).

usage: paper_grids.py MARKERS.json OUTDIR
  MARKERS.json  the paper's v17_behavioral_markers.json
"""
import json
import sys

TEMPLATE = "As {persona}, {task}"
BASELINE = {
    "persona": "a thoughtful person",
    "task": "Give advice to someone facing a difficult decision.",
}
TASKS = {
    "arch": "Review this design: a microservice architecture where eight services share a single "
            "PostgreSQL database for both transactional state and event log.",
    "plan": "Review this plan: a three-person team building a B2B SaaS product, planning to launch "
            "in three months, with no usage analytics in v1.",
    "proposal": "Review this proposal: an internal tool that automates calendar scheduling using "
                "an LLM, sending tentative meetings to all parties before confirmation.",
    "policy": "Comment on whether universal basic income is a good policy.",
    "haiku": "Write a haiku about Monday mornings.",
    "recommend": "Recommend a book worth reading and explain why.",
}
SHORT = {
    "buffett": ("Warren Buffett",
                ["margin of safety", "moat", "Berkshire", "shareholder", "shareholders",
                 "intrinsic value", "Graham", "Munger", "Omaha", "compound", "compounding",
                 "circle of competence"]),
    "marx": ("Karl Marx",
             ["proletariat", "proletarian", "bourgeois", "bourgeoisie", "class struggle",
              "means of production", "surplus value", "alienation", "alienated", "exploit",
              "exploitation", "working class", "capitalist", "capitalism", "dialectic",
              "dialectical"]),
    "yoda": ("Yoda",
             ["hmm", "hmmm", "young one", "padawan", "the Force", "Jedi", "you must", "must you",
              "it is.", "this is.", "that is."]),
    "angelou": ("Maya Angelou",
                ["caged bird", "still I rise", "rise", "sing", "singing", "sings", "dignity",
                 "courage", "grace", "phenomenal", "soul", "my child"]),
}
LONG = {
    "engineer": "a senior software engineer with 10 years of experience who pays close attention "
                "to architecture, reliability, and avoiding single points of failure",
    "counselor": "an empathetic counselor with deep training in active listening, cognitive "
                 "behavioral therapy, and trauma-informed care, who helps clients feel heard "
                 "without imposing solutions",
    "founder": "a pragmatic startup founder who has bootstrapped three companies, makes "
               "capital-efficient decisions, iterates fast based on user feedback, and avoids "
               "vanity metrics",
    "teacher": "a middle school science teacher who has taught for 15 years, explains concepts "
               "with relatable analogies, gently checks for understanding, and meets students at "
               "their level",
    "journalist": "an investigative journalist who has covered city government for two decades, "
                  "asks pointed questions, follows the money, and verifies every claim against "
                  "primary sources",
    "doctor": "a primary-care physician who has practiced for 25 years, listens carefully to "
              "symptoms, considers differential diagnoses without alarming the patient, and "
              "explains options clearly",
    "lawyer": "a corporate litigator who has tried cases at the appellate level for 20 years, "
              "anticipates opposing arguments, builds case theory from the record, and "
              "communicates dense law in plain English",
    "chef": "a head chef trained in classical French technique who has run three Michelin-starred "
            "kitchens, builds menus around seasonal ingredients, and teaches young cooks by "
            "demonstration",
}


def grid(name, description, personas, tasks, answered, probes, layers=None):
    out = {"schema": "personaflow-grid/1", "name": name, "description": description,
           "template": TEMPLATE, "baseline": BASELINE,
           "personas": [{"key": k, "text": t, "markers": m} for k, t, m in personas],
           "tasks": [{"key": k, "text": TASKS[k]} for k in tasks],
           "answer_tasks": answered}
    if layers:
        out["layers"] = layers
    out["probes"] = probes
    return out


def main():
    markers = json.load(open(sys.argv[1], encoding="utf-8"))["persona_markers"]
    short = grid("paper-short", "The paper's short grid: 4 personas x 3 tasks.",
                 [(k, t, m) for k, (t, m) in SHORT.items()], ["policy", "haiku", "recommend"], [],
                 ["p_user_last", "p_last", "g1", "g2"])
    long_ = grid("paper-long", "The paper's long grid: 8 personas x 6 tasks.",
                 [(k, t, markers[k]) for k, t in LONG.items()], list(TASKS), ["arch", "plan", "proposal"],
                 ["p_last", "g1", "g2"], {"26": [10, 14, 18], "28": [7, 15, 20]})
    for g in (short, long_):
        with open(f"{sys.argv[2]}/{g['name']}.json", "w", encoding="utf-8") as f:
            json.dump(g, f, ensure_ascii=False, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
