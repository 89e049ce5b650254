"""In-context episodes whose answer is a list: what does the hidden rule make of the query?

A task in the manner of List Functions (Rule 2020, "The child as hacker"; used with symbol tuning in
arXiv 2305.08298); the rules are our own (`list_rules.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from pipeline.errors import UserError
from pipeline.records import digest
from pipeline.stage1_generate.generators.list_rules import (
    Numbers,
    Pair,
    Rule,
    answers_left,
    chained,
    families,
    fits_one_step,
)
from pipeline.stage1_generate.generators.options import choice, whole, wholes

TRIES = 400  # episodes drawn for one that is as it should be
INPUTS = 40  # inputs drawn for one that leaves the rule something to do


def list_functions(
    n: int,
    seed: int,
    language: str = "en",
    shots: int = 8,
    steps: int | list[int] = 1,
    longest: int = 6,
    largest: int = 9,
    split: str = "train",
) -> Iterator[dict[str, Any]]:
    """Lists of up to `longest` numbers from 0 to `largest`, changed by a rule of 1 or 2 `steps`.

    One shot leaves several answers, all shots together just one: every rule of one or two steps, of
    both splits, that fits all shots makes the same of the query, which is never what stands there
    already. The families of rules take turns; train and eval share none. Rows {id, text, answer,
    answer_kind: list, shots: [{text, label}], rule, answers_left: [after 1 shot, after 2, ...]}.
    """
    side = choice("split", split, ("train", "eval"))
    lengths = wholes("steps", steps, 1, 2)
    count = whole("shots", shots, 4, 64)
    sizes = whole("longest", longest, 4, 20), whole("largest", largest, 5, 99)
    rng = random.Random(f"list_functions {side} {seed}")  # the splits share no inputs
    rules = families(side)
    turns: list[str] = []
    seen: set[str] = set()
    for number in range(n):
        if not turns:
            turns = rng.sample(sorted(rules), len(rules))
        family = turns.pop()
        for _ in range(TRIES):
            rule = rng.choice(rules[family])
            if lengths[number % len(lengths)] == 2:
                rule = _with_another(rule, rules, rng)
            row = _episode(rule, count, sizes, rng)
            if row is not None and (identity := digest(row, 12)) not in seen:
                seen.add(identity)
                yield {"id": f"lists-{identity}"} | row | {"language": language}
                break
        else:
            raise UserError(
                f"generator list_functions: no new episode of the family {family!r} in {TRIES} "
                "draws; raise shots, longest or largest, or lower n"
            )


def _with_another(rule: Rule, rules: dict[str, list[Rule]], rng: random.Random) -> Rule:
    other = rng.choice(rules[rng.choice(sorted(set(rules) - {rule.family}))])
    return chained(rule, other) if rng.random() < 0.5 else chained(other, rule)


def _episode(
    rule: Rule, count: int, sizes: tuple[int, int], rng: random.Random
) -> dict[str, Any] | None:
    """An episode of the rule; None where its shots say too much at once, or not enough."""
    pairs: list[Pair] = []
    for place in range(count + 1):  # the last is the query
        pair = _pair(rule, sizes, rng, query=place == count)
        if pair is None or pair.given in {other.given for other in pairs}:
            return None
        pairs.append(pair)
    *shots, query = pairs
    if sum(pair.result != pair.given for pair in shots) < count / 2:
        return None
    if len(rule.steps) > 1 and fits_one_step(pairs):
        return None
    if answers_left([shots[0]], query.given)[0] < 2:
        return None  # before the long count: one shot already says it all
    left = answers_left(shots, query.given)
    if left[-1] != 1:
        return None
    return {
        "text": _written(query.given),
        "answer": _written(query.result),
        "answer_kind": "list",
        "shots": [{"text": _written(p.given), "label": _written(p.result)} for p in shots],
        "rule": rule.name,
        "answers_left": left,
    }


def _pair(rule: Rule, sizes: tuple[int, int], rng: random.Random, query: bool) -> Pair | None:
    """An input and what the rule makes of it, which is not nothing, and in a query a change."""
    longest, largest = sizes
    for _ in range(INPUTS):
        length = rng.randint(3 if query else 1, longest)
        given: Numbers = tuple(rng.randint(0, largest) for _ in range(length))
        result = rule.apply(given)
        if result and not (query and result == given):
            return Pair(given, result)
    return None


def _written(numbers: Numbers) -> str:
    return f"[{', '.join(map(str, numbers))}]"
