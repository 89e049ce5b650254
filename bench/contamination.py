"""The contamination check against public tests: rows a second, planted copies found, false hits.

    .venv/bin/python bench/contamination.py --data FOLDER [--rows 200000]

FOLDER (or the variable DISTILL_PUBLIC_DATA) holds gsm8k/test.jsonl, gsm8k/train.jsonl,
ifeval/prompts.jsonl, bbh/*.json and, for clean rows, self-instruct/*.jsonl, agnews/*.csv, as they
are published. Rows of 2 KB are sentences of GSM8K's training problems and of news in random order
(seeded): hard text, for it is made of the words and phrases of the items. Copies of every item are
planted in such rows: as it is, with one word changed, with other numbers, other names, both. Only
the filter is timed, on one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.records import Example, Message, Seed
from pipeline.stage1_generate.curate.contamination import Contamination

SIZE = 2048
BLOCK = 10_000  # rows made at a time, outside the clock
NUMBERS = "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty"
# Some are common words in lower case: a renamed problem does not avoid them.
NAMES = (
    "Amara Bilal Chiara Deepak Esra Femi Goran Hana Ivo Jonas Kwame Leila Mark Nadia Oskar Priya "
    "Rose Sven Tariq Uma Will Xenia Yusuf Zola Grace Bill Faith Frank May Jack Penny Dean"
)
NO_NAMES = (
    "I January February March April May June July August September October November December "
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
)
LIARS = "Fidel Vernell Alexis Michaela Elanor Sherrie Kristian Delbert"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given = os.environ.get("DISTILL_PUBLIC_DATA")
    parser.add_argument("--data", type=Path, default=given, required=given is None)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    items = list(evaluation(arguments.data))
    started = time.perf_counter()
    check = Contamination(items)
    print(f"{len(items)} items indexed in {time.perf_counter() - started:.1f} s")
    filler = Filler(arguments.data, 7)
    speed(check, filler, arguments.rows, arguments.rounds)
    planted(check, items, filler, lower_case_words(arguments.data))
    clean(check, arguments.data)
    patterns(check)


def evaluation(data: Path) -> Iterator[Seed]:
    for name, path, key in (
        ("gsm8k", data / "gsm8k" / "test.jsonl", "question"),
        ("ifeval", data / "ifeval" / "prompts.jsonl", "prompt"),
    ):
        for i, line in enumerate(path.read_text("utf-8").splitlines()):
            yield Seed(f"{name}-{i}", name, {"question": json.loads(line)[key]})
    for path in sorted((data / "bbh").glob("*.json")):
        for i, row in enumerate(json.loads(path.read_text("utf-8"))["examples"]):
            yield Seed(f"{path.stem}-{i}", path.stem, {"question": row["input"]})


class Filler:
    """Rows of SIZE characters out of shuffled sentences, the same for the same seed."""

    def __init__(self, data: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        texts = [q + " " + a for q, a in training_problems(data)]
        texts += [text for text, _ in news(data)]
        self.sentences = [s for t in texts for s in re.split(r"(?<=[.?!])\s+", t) if len(s) > 20]

    def text(self, size: int = SIZE) -> str:
        parts: list[str] = []
        while size > 0:
            parts.append(self.rng.choice(self.sentences))
            size -= len(parts[-1]) + 1
        return " ".join(parts)


def training_problems(data: Path) -> list[tuple[str, str]]:
    rows = map(json.loads, (data / "gsm8k" / "train.jsonl").read_text("utf-8").splitlines())
    return [(r["question"], re.sub(r"<<.*?>>|####", "", r["answer"])) for r in rows]


def news(data: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted((data / "agnews").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found += [(" ".join(row[1:]), "World") for row in csv.reader(file)]
    return found


def instructions(data: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted((data / "self-instruct").glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            first = row["instances"][0]
            found.append((f"{row['instruction']}\n{first['input']}", first["output"]))
    return found


def row_of(question: str, answer: str) -> tuple[Seed, tuple[Example]]:
    prompt, completion = (Message("user", question),), (Message("assistant", answer),)
    return Seed("s", "t", {"question": question}), (Example(prompt, completion, 1.0, ("r",)),)


def speed(check: Contamination, filler: Filler, rows: int, rounds: int) -> None:
    """Rows a second over all rows; the median of rounds, of which each has its own rows."""
    rates: list[float] = []
    cpu: list[float] = []
    hits: Counter[str] = Counter()
    for _ in range(rounds):
        seconds = busy = 0.0
        for first in range(0, rows, BLOCK):
            made = min(BLOCK, rows - first)
            block = [row_of(filler.text(600), filler.text(SIZE - 600)) for _ in range(made)]
            started, cpu_started = time.perf_counter(), time.process_time()
            found = [check.find(seed, examples) for seed, examples in block]
            seconds += time.perf_counter() - started
            busy += time.process_time() - cpu_started
            hits.update(f"{hit.kind} {hit.item}" for hit in found if hit)
        rates.append(rows / seconds)
        cpu.append(1e6 * busy / rows)
    each = ", ".join(f"{rate:,.0f}" for rate in rates)
    print(
        f"{rows:,} rows of {SIZE} characters: median {statistics.median(rates):,.0f} rows/s "
        f"({each}), {statistics.median(cpu):.0f} us of CPU a row"
    )
    print(f"dropped of {rounds * rows:,}: {hits.total()}, for {len(hits)} items: {dict(hits)}")


def lower_case_words(data: Path) -> set[str]:
    """Words of problems that are no names, from text that holds no item."""
    texts = [question for question, _ in training_problems(data)]
    return {word for text in texts for word in re.findall(r"\b[a-z]+\b", text)}


Change = Callable[[str, random.Random], str]


def planted(check: Contamination, items: list[Seed], filler: Filler, common: set[str]) -> None:
    """Every item, changed in each way that applies, as a question and in the middle of a text."""
    rng = random.Random(11)
    words = sorted(common)
    changes: dict[str, Change] = {
        "exact": lambda text, _: text,
        "other case and punctuation": lambda text, _: re.sub(r"[,.?!]", " ;", text).upper(),
        "one word changed": lambda text, r: one_word(text, words, r),
        "numbers changed": other_numbers,
        "names changed": lambda text, r: other_names(text, common, r),
        "numbers and names changed": lambda text, r: other_numbers(other_names(text, common, r), r),
    }
    print("\n| set | " + " | ".join(changes) + " |")
    print("|---" * (len(changes) + 1) + "|")
    missed: list[str] = []
    for name in dict.fromkeys(item.task for item in items):
        cells = []
        for kind, change in changes.items():
            tried = found = 0
            for item in (i for i in items if i.task == name):
                text = str(item.fields["question"])
                copy = change(text, rng)
                if kind != "exact" and copy == text:
                    continue
                tried += 1
                rows = (
                    row_of(copy, filler.text(SIZE - len(copy))),
                    row_of(filler.text(300), f"{filler.text(700)}\n\n{copy}\n\n{filler.text(700)}"),
                )
                hits = [check.find(*row) is not None for row in rows]
                found += all(hits)
                if not all(hits) and name in ("gsm8k", "ifeval"):
                    missed.append(f"{kind}, {item.id}, {hits}: {copy[:200]!r}")
            cells.append(f"{found} / {tried}" if tried else "–")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(*missed[:20], sep="\n")


def one_word(text: str, words: list[str], rng: random.Random) -> str:
    places = [m.span() for m in re.finditer(r"[A-Za-z]{3,}", text)]
    if len(re.findall(r"[A-Za-z0-9]+", text)) < 9 or not places:  # then it is another item
        return text
    start, end = rng.choice(places)
    return text[:start] + rng.choice(words) + text[end:]


def other_numbers(text: str, rng: random.Random) -> str:
    def digits(found: re.Match[str]) -> str:
        return rng.choice([str(rng.randint(2, 99)), f"{rng.randint(1, 9)},{rng.randint(100, 999)}"])

    text = re.sub(r"\d[\d,.]*\d|\d", digits, text)
    words = NUMBERS.split()
    return re.sub(rf"\b({'|'.join(words)})\b", lambda _: rng.choice(words), text)


def other_names(text: str, common: set[str], rng: random.Random) -> str:
    new: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        word = found.group(0)
        if word.lower() in common or word in NO_NAMES.split():
            return word
        return new.setdefault(word, rng.choice(NAMES.split()))

    return re.sub(r"\b[A-Z][a-z]+\b", name, text)


def clean(check: Contamination, data: Path) -> None:
    """Rows of the same kinds that are no items; those that are dropped are printed to be judged."""
    problems = training_problems(data)
    sets = {
        "GSM8K training problems": problems[:4000],
        "self-instruct": instructions(data),
        "news": news(data)[:600],
    }
    print("\n| clean rows | rows | dropped |\n|---|---|---|")
    dropped: list[str] = []
    for name, rows in sets.items():
        hits = [(row, check.find(*row_of(*row))) for row in rows]
        dropped += [f"{hit.reason}\n    {row[0][:300]!r}" for row, hit in hits if hit]
        print(f"| {name} | {len(rows)} | {sum(hit is not None for _, hit in hits)} |")
    print(*dropped, sep="\n")


def patterns(check: Contamination) -> None:
    """New problems of the generators that made BBH's: most words are the items', none is one."""
    rng = random.Random(13)
    print("\n| new problems of a test's own generator | rows | dropped |\n|---|---|---|")
    for name, make in {
        "boolean_expressions": boolean,
        "multistep_arithmetic_two": arithmetic,
        "navigate": navigate,
        "web_of_lies": lies,
    }.items():
        hits = [check.find(*row_of(make(rng), "Yes")) for _ in range(500)]
        kinds = dict(Counter(hit.kind.value for hit in hits if hit))
        print(f"| {name} | 500 | {sum(hit is not None for hit in hits)} {kinds or ''} |")


def boolean(rng: random.Random) -> str:
    def part() -> str:
        word = rng.choice(["True", "False"])
        return rng.choice(
            [word, f"not {word}", f"( {word} )", f"not ( {word} )", f"not not {word}"]
        )

    parts = [part()]
    for _ in range(rng.randint(1, 3)):
        parts += [rng.choice(["and", "or"]), part()]
    return " ".join(parts) + " is"


def arithmetic(rng: random.Random) -> str:
    def part() -> str:
        numbers = [str(rng.randint(-9, 9)) for _ in range(4)]
        signs = [rng.choice("+-*") for _ in range(3)]
        return f"({' '.join(w for pair in zip(numbers, [*signs, ''], strict=True) for w in pair)})"

    return f"({part()} {rng.choice('+-*')} {part()}) ="


def navigate(rng: random.Random) -> str:
    ways = ["left", "right", "forward", "backward"]
    steps = []
    for _ in range(rng.randint(3, 8)):
        n = rng.randint(1, 10)
        steps.append(f"Take {n} step{'s' if n > 1 else ''} {rng.choice(ways)}.")
    return (
        "If you follow these instructions, do you return to the starting point? Always face "
        f"forward. {' '.join(steps)}\nOptions:\n- Yes\n- No"
    )


def lies(rng: random.Random) -> str:
    names = rng.sample(LIARS.split(), 5)
    says = ["tells the truth", "lies"]
    text = [f"{names[0]} {rng.choice(says)}."]
    text += [f"{b} says {a} {rng.choice(says)}." for a, b in pairwise(names)]
    return f"Question: {' '.join(text)} Does {names[-1]} tell the truth?"


if __name__ == "__main__":
    main()
