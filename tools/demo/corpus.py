# SPDX-License-Identifier: Apache-2.0
"""Training text of the demo models: role prompts "As {persona}, {task}" and their answers.

An answer mixes content words (tasks.txt) with style words (personas.txt). The persona chooses the
order of the parts, the stance of the verdict, the preferred fact and the words in the slots, so
that persona and task interact; long random personas carry details (name, town, habit, object,
saying) that the answer can only take from the prompt. Everything is a function of the seed.
"""
import hashlib
import json
import os
import random
import re
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
GRIDS = os.path.join(HERE, "..", "..", "data", "grids")
BASE_PERSONA = "a thoughtful person"
BASE_TASK = "advice"
TEMPLATE = "As {persona}, {task}"
TEMPERS = {"bold": "b", "careful": "c", "warm": "w", "strict": "s", "plain": "p"}
FACT_OF = {"bold": 0, "careful": 1, "warm": 2, "strict": 0, "plain": 1}
P_PREFERRED = 0.8  # how often a persona takes its preferred variant


@dataclass
class Persona:
    key: str
    text: str
    temper: str
    form: str
    kind: str
    lines: dict = field(default_factory=dict)
    markers: list = field(default_factory=list)


@dataclass
class Task:
    key: str
    text: str
    topic: str
    lines: dict = field(default_factory=dict)


@dataclass
class Example:
    user: str          # the user message
    answer: str
    kind: str          # style, long, intro, base, neutral, bare
    persona: str = ""  # style key
    task: str = ""
    details: dict = field(default_factory=dict)


def hash01(*parts):
    """A fixed number in [0,1) for a tuple of strings, the same on every machine."""
    return int(hashlib.sha256("|".join(parts).encode()).hexdigest()[:8], 16) / 2.0**32


def blocks(name):
    """Yield (head, {letter: [lines]}) of a style sheet."""
    head, lines = None, {}
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        for raw in f:
            s = raw.rstrip("\n")
            if s.startswith("["):
                if head:
                    yield head, lines
                head, lines = s, {}
            elif head and re.match(r"^\w:", s):
                lines.setdefault(s[0], []).append(s[2:].strip())
    yield head, lines


def load():
    paper = {p["key"]: p for p in json.load(
        open(os.path.join(GRIDS, "paper-long.json"), encoding="utf-8"))["personas"]}
    personas, tasks = {}, {}
    for head, lines in blocks("personas.txt"):
        key, text, temper, form, kind = re.match(
            r"\[(\w+)\]\s*(.*?)\s*\| (\w+) \| (\w) \| (\w+)", head).groups()
        m = lines.pop("m", [""])[0]
        markers = paper[key]["markers"] if m == "@" else [x for x in m.split(";") if x]
        if text.startswith("@"):
            text = paper[key]["text"]
        personas[key] = Persona(key, text, temper, form, kind, lines, markers)
    for head, lines in blocks("tasks.txt"):
        key, text, topic = re.match(r"\[(\w+)\]\s*(.*?)\s*\| (.*)", head).groups()
        tasks[key] = Task(key, text, topic, lines)
    return personas, tasks


PERSONAS, TASKS = load()
STYLES = [p for p in PERSONAS.values() if p.kind != "neutral"]
TRADES = [p for p in STYLES if p.kind == "trade"]

# Cells of the demo grid that training never sees, besides a fixed sixth of all other pairs.
DEMO_HELD_OUT = [("pirate", "haiku"), ("pirate", "bridge"), ("buffett", "policy"),
                 ("buffett", "skill"), ("cook", "bridge"), ("cook", "policy"),
                 ("doctor", "skill"), ("doctor", "haiku"), ("clockmaker", "haiku"),
                 ("clockmaker", "policy"), ("beekeeper", "skill"), ("beekeeper", "bridge")]
DEMO_TASKS = ("policy", "haiku", "skill", "bridge")
DEMO_PERSONAS = ("pirate", "buffett", "cook", "doctor", "clockmaker", "beekeeper")


def held_out():
    """The (persona, task) pairs that are in no training text."""
    out = set(DEMO_HELD_OUT)
    for p in STYLES:
        for t in TASKS:
            in_demo = p.key in DEMO_PERSONAS and t in DEMO_TASKS
            if t != BASE_TASK and not in_demo and hash01("pair", p.key, t) < 1 / 6:
                out.add((p.key, t))
    return sorted(out)


HELD_OUT = set(held_out())

# ---- details of the long random personas --------------------------------------------------------
FIRST = ("Ada Bela Carlo Dora Emil Fina Goran Hanna Ivo Jana Karel Lena Milo Nora Otto Petra Quinn "
         "Rosa Sven Tilda Ugo Vera Wim Xenia Yara Zoltan Alma Boris Celia Dmitri Elsa Franz Greta "
         "Hugo Irma Joris Klara Ludo Marta Nils Olga Pavel Rita Stefan Tessa Urs Viola Walter").split()
LAST_A = ("Ash Bram Cald Dray Eld Fern Gar Hart Ives Jor Kest Lang Mar Nor Ost Pell Quil Rad Sand "
          "Thorn Ul Var Wick Yel Zand").split()
LAST_B = "ford well mann sen ley wick stone dale berg ton ski low".split()
TOWN_A = ("Alder Birch Cray Dun Elm Fall Glen Hawk Iron Juniper Kirk Lark Mill North Oak Pine Raven "
          "Silver Tarn West Wolf").split()
TOWN_B = "bury mouth haven bridge ford field minster gate cross water holm".split()
OBJ_A = ("brass copper silver wooden red green blue yellow broken tiny heavy old striped leather "
         "glass paper round square painted folded").split()
OBJ_B = ("compass button umbrella key ring coin feather bottle map ladder ribbon marble thimble "
         "kettle flute basket mirror pencil box brush spool lamp drum kite").split()
SAY_A = ("bread thunder patience rope pepper snow shoes music candles wool soup maps boats apples "
         "letters smoke sand nails tea feathers wheels corn clouds gold sleep laughter sugar").split()
SAY_P = ("{a} before {b}", "no {a} without {b}", "first {a}, then {b}", "{a} is louder than {b}",
         "never trade {a} for {b}")
AGE = "young,retired,quiet,cheerful,stubborn,left-handed,soft-spoken,busy".split(",")
HABIT = [("wakes before dawn", "wake before dawn"), ("walks to work in every weather",
         "walk to work in every weather"), ("counts the stairs", "count the stairs"),
         ("writes every number down", "write every number down"),
         ("hums old marches", "hum old marches"), ("feeds the pigeons at noon",
         "feed the pigeons at noon"), ("never wears gloves", "never wear gloves"),
         ("reads the paper backwards", "read the paper backwards"),
         ("talks to the kettle", "talk to the kettle"),
         ("sleeps with the window open", "sleep with the window open"),
         ("draws on napkins", "draw on napkins"), ("eats an onion every day",
         "eat an onion every day"), ("whistles at night", "whistle at night"),
         ("swims in the river in March", "swim in the river in March"),
         ("polishes every doorknob", "polish every doorknob"),
         ("keeps lists of birds", "keep lists of birds")]
FILLER = ["lives above a narrow shop", "owns a few books and a bicycle",
          "visits relatives twice a year", "spends most weekends at home",
          "takes a short walk in the evening", "eats lunch around noon",
          "lives on a quiet street", "goes to bed at a reasonable hour",
          "keeps the windows clean", "buys bread on Thursdays", "knows most of the neighbours",
          "has two cousins abroad", "rarely answers the telephone", "is about forty years of age",
          "prefers the train to the car", "keeps a calendar in the hall"]
NEUTRAL_HEAD = ["a person of average height", "an ordinary adult", "a person", "somebody",
                "an adult of middle age", "a person from an ordinary town"]
NEUTRAL_PAPER = [
    "an ordinary adult who is about forty years of age, wakes up early on most days, eats lunch "
    "around noon, takes a short walk in the evening, and goes to bed at a reasonable hour",
    "a person of average height who lives on a quiet street, owns a few books and a bicycle, "
    "visits relatives twice a year, and spends most weekends at home without any particular plan"]
INTRO = ["{name} of {town} here.", "My name is {name}, and I come from {town}.",
         "They call me {name}.", "{name} speaking."]
LATE_TOWN = ["That is how we do it in {town}.", "In {town} nobody does it otherwise."]
HABIT_S = ["I {habit}, so I have time to think.", "I {habit}, and so should you."]
OBJ_S = ["I keep my {object} close while I think.", "My {object} has seen worse.",
         "I would bet my {object} on it."]
SAY_S = ["As I like to say, {saying}.", "You know my rule: {saying}.", "Remember, {saying}."]

PRESENT = [("My name is {name}.", "They call me {name}.", "{name} is my name."),
           ("I come from {town}.", "{town} is my town.", "I live in {town}."),
           ("I carry {a_object}.", "My {object} goes where I go."),
           ("I like to say {saying}.", "My rule is {saying}.", "Remember, {saying}.")]
INTRODUCE = "Introduce yourself in a few sentences."


def article(phrase):
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def pair(rng, kind, a_list, b_list, unseen):
    """Draw two words; a fixed eighth of all pairs is kept for evaluation."""
    while True:
        a, b = rng.choice(a_list), rng.choice(b_list)
        if a != b and (hash01(kind, a, b) < 1 / 8) == unseen:
            return a, b


def draw_details(rng, unseen=False):
    last = "".join(pair(rng, "last", LAST_A, LAST_B, unseen))
    a, b = pair(rng, "saying", SAY_A, SAY_A, unseen)
    return {"name": f"{rng.choice(FIRST)} {last}",
            "town": "".join(pair(rng, "town", TOWN_A, TOWN_B, unseen)),
            "object": " ".join(pair(rng, "object", OBJ_A, OBJ_B, unseen)),
            "saying": rng.choice(SAY_P).format(a=a, b=b),
            "habit": rng.randrange(len(HABIT))}


def long_text(rng, trade, d):
    """The persona text of a long random persona, 30 to 60 words, details in any order."""
    who = trade.text.split(" ", 1)[1]
    head = [f"{d['name']}, {article(rng.choice(AGE) + ' ' + who)} from {d['town']}",
            f"{article(rng.choice(AGE) + ' ' + who)} from {d['town']} named {d['name']}"]
    clauses = [HABIT[d["habit"]][0], f"carries {article(d['object'])}",
               f"likes to say {d['saying']}"] + rng.sample(FILLER, rng.choice((2, 3, 4)))
    rng.shuffle(clauses)
    return rng.choice(head) + " who " + ", ".join(clauses[:-1]) + ", and " + clauses[-1]


def neutral_text(rng):
    if rng.random() < 0.2:
        return rng.choice(NEUTRAL_PAPER)
    c = rng.sample(FILLER, rng.choice((2, 3, 4, 5, 6)))
    return rng.choice(NEUTRAL_HEAD) + " who " + ", ".join(c[:-1]) + ", and " + c[-1]


def pick(rng, persona, slot, options):
    """A persona's preferred variant most of the time."""
    if rng.random() < P_PREFERRED:
        return options[int(hash01(slot, persona.key) * len(options))]
    return rng.choice(options)


def cap(s):
    return s[0].upper() + s[1:]


class Writer:
    """Fills the parts of one answer."""

    def __init__(self, rng, persona, task):
        self.rng, self.p, self.t = rng, persona, task

    def own(self, letter):
        s = pick(self.rng, self.p, letter, self.p.lines[letter])
        return s.replace("{topic}", self.t.topic).replace("{Topic}", cap(self.t.topic))

    def fact(self):
        facts = self.t.lines["f"]
        k = FACT_OF[self.p.temper] if self.rng.random() < P_PREFERRED else self.rng.randrange(3)
        return facts[k]

    def verdict(self):
        temper = self.p.temper
        if self.rng.random() > 0.95:
            temper = self.rng.choice(list(TEMPERS))
        return self.t.lines[TEMPERS[temper]][0]

    def slotted(self):
        s = pick(self.rng, self.p, "x", self.t.lines["x"])
        for name, letter in (("{good}", "g"), ("{flaw}", "f"), ("{test}", "t")):
            if name in s:
                s = s.replace(name, self.own(letter))
        return s

    def haiku(self):
        p = self.p
        return "\n".join((pick(self.rng, p, "1", self.t.lines["1"]), self.own("h"),
                          pick(self.rng, p, "3", self.t.lines["3"])))

    def plain_parts(self):
        if self.t.key == "haiku":
            forms = {"A": ("own:o", "\nhaiku\n", "verdict", "own:c"),
                     "B": ("haiku\n", "own:o", "verdict", "own:c"),
                     "C": ("haiku\n", "slotted", "own:a")}
        else:
            forms = {"A": ("own:o", "verdict", "slotted", "own:c"),
                     "B": ("own:o", "verdict", "own:a", "fact", "own:c"),
                     "C": ("fact", "own:o", "slotted", "own:c")}
        return forms[self.p.form]

    def part(self, name):
        core = name.strip("\n")
        s = self.own(core[4:]) if core.startswith("own:") else getattr(self, core)()
        return name.replace(core, s)

    def join(self, parts):
        s = " ".join(parts)
        return re.sub(r" ?\n ?", "\n", s)

    def answer(self):
        return self.join([self.part(x) for x in self.plain_parts()])

    def long_answer(self, d):
        rng = self.rng
        vals = dict(d, habit=HABIT[d["habit"]][1])
        intro = pick(rng, self.p, "intro", INTRO)
        body = {"A": ["own:o", "slotted"], "B": ["own:o", "verdict"], "C": ["fact", "own:o"]}[self.p.form]
        if self.t.key == "haiku":
            body = {"A": ["own:o", "\nhaiku\n"], "B": ["\nhaiku\n", "own:o"],
                    "C": ["\nhaiku\n", "slotted"]}[self.p.form]
        body = [self.part(x) for x in body]
        late = [pick(rng, self.p, "obj", OBJ_S).format(**vals)]
        if "{town}" not in intro:
            late.append(pick(rng, self.p, "late", LATE_TOWN).format(**vals))
        elif rng.random() < 0.7:
            late.insert(0, pick(rng, self.p, "habit", HABIT_S).format(**vals))
        late.append(pick(rng, self.p, "say", SAY_S).format(**vals))
        return self.join([intro.format(**vals)] + body + late)


def introduction(rng, d):
    """A long persona presents itself: its details in any order, then some of them again."""
    vals = dict(d, habit=HABIT[d["habit"]][1], a_object=article(d["object"]))
    parts = [rng.choice(x).format(**vals) for x in PRESENT]
    rng.shuffle(parts)
    again = rng.sample([vals["name"], vals["town"], vals["object"], vals["saying"]],
                       rng.choice((2, 3)))
    return " ".join(parts[:rng.choice((3, 4))]) + " " + cap(", ".join(again)) + ", that is me."


def role(text, task):
    return TEMPLATE.format(persona=text, task=task.text)


def example(rng, kind, pkey=None, tkey=None, unseen=False):
    """One example; pairs of HELD_OUT never appear unless a pair is asked for by name."""
    if kind == "intro":
        p, d = rng.choice(TRADES), draw_details(rng, unseen)
        user = TEMPLATE.format(persona=long_text(rng, p, d), task=INTRODUCE)
        return Example(user, introduction(rng, d), kind, p.key, "introduce", d)
    while True:
        t = TASKS[tkey] if tkey else rng.choice(list(TASKS.values()))
        pool = TRADES if kind == "long" else STYLES
        p = PERSONAS[pkey] if pkey else rng.choice(pool)
        if kind in ("base", "neutral", "bare"):
            p = PERSONAS["neutral"]
        if (pkey and tkey) or (p.key, t.key) not in HELD_OUT:
            break
    w, d = Writer(rng, p, t), {}
    if kind == "long":
        d = draw_details(rng, unseen)
        return Example(role(long_text(rng, p, d), t), w.long_answer(d), kind, p.key, t.key, d)
    if kind == "bare":
        user = t.text
    elif kind == "base":
        user = role(BASE_PERSONA if rng.random() < 0.7 else "a person", t)
    elif kind == "neutral":
        user = role(neutral_text(rng), t)
    else:
        user = role(p.text, t)
    return Example(user, w.answer(), kind, p.key, t.key, d)


# Shares of the kinds in the two phases: styles first, then reading details off the prompt.
MIX = (("style", 0.46), ("long", 0.30), ("base", 0.08), ("neutral", 0.08), ("bare", 0.08))
MIX_READING = (("style", 0.27), ("long", 0.32), ("intro", 0.29), ("base", 0.04),
               ("neutral", 0.04), ("bare", 0.04))


def stream(seed, n, mix=MIX):
    """n training examples."""
    rng = random.Random(f"personaflow-demo-{seed}")
    kinds, weights = zip(*mix)
    return [example(rng, rng.choices(kinds, weights)[0]) for _ in range(n)]


def marker_hits(text, markers):
    """The published rule: single words at word boundaries, phrases as substrings, any case."""
    low, hits = text.lower(), []
    for m in markers:
        k = m.lower()
        found = k in low if (" " in k or "-" in k) else re.search(rf"\b{re.escape(k)}\b", low)
        if found:
            hits.append(m)
    return hits


def check():
    """No persona's marker is in a neutral answer; every style answer can show its own."""
    rng = random.Random(0)
    bad = set()
    for _ in range(4000):
        e = example(rng, rng.choice(("base", "neutral", "bare")))
        for p in STYLES:
            for m in marker_hits(e.answer, p.markers):
                bad.add((p.key, m, e.task))
    own = {}
    for p in STYLES:
        for t in TASKS:
            for _ in range(3):
                e = example(rng, "style", p.key, t)
                own.setdefault(p.key, []).append(bool(marker_hits(e.answer, p.markers)))
    rates = {k: sum(v) / len(v) for k, v in own.items()}
    return sorted(bad), rates


if __name__ == "__main__":
    import sys
    bad, rates = check()
    print("markers in neutral answers:", bad)
    print("own-marker rates:", {k: round(v, 3) for k, v in rates.items() if v < 1})
    print("held-out pairs:", len(HELD_OUT), "of", len(STYLES) * len(TASKS))
    for e in stream(int(sys.argv[1]) if len(sys.argv) > 1 else 1, 24):
        print("---", e.kind, e.persona, e.task, "\n>", e.user, "\n<", e.answer)
