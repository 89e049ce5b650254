"""The rules of `list_functions`: what is done with a list of whole numbers from 0.

A rule belongs to a family (`add` with c = 1 to 5 is one family); the splits train and eval share no
family. Rules of two steps do one after the other. `answers_left` counts what the rules of the whole
family tree, both splits and both lengths, still allow, so that a task's shots can be shown to say
enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

Numbers = tuple[int, ...]


class Rule(NamedTuple):
    family: str
    name: str
    steps: tuple[Callable[[Numbers], Numbers], ...]

    def apply(self, numbers: Numbers) -> Numbers:
        for step in self.steps:
            numbers = step(numbers)
        return numbers


class Pair(NamedTuple):
    given: Numbers
    result: Numbers


def _one(family: str, name: str, step: Callable[[Numbers], Numbers]) -> Rule:
    return Rule(family, name, (step,))


def _each(
    family: str, name: str, constants: Sequence[int], step: Callable[[int, Numbers], Numbers]
) -> list[Rule]:
    """A rule for each constant c; "{}" of the name is the constant."""
    return [_one(family, name.format(c), partial(step, c)) for c in constants]


def _train() -> list[Rule]:
    return [
        _one("reverse", "reverse the list", lambda x: x[::-1]),
        _one("sort down", "sort from the largest", lambda x: tuple(sorted(x, reverse=True))),
        _one("keep even", "keep the even numbers", lambda x: tuple(n for n in x if n % 2 == 0)),
        _one("rotate left", "move the first to the end", lambda x: x[1:] + x[:1]),
        _one("largest", "the largest number", lambda x: (max(x),) if x else ()),
        _one("repeat", "the list twice", lambda x: x + x),
        *_each("take first", "the first {}", (1, 2, 3), lambda c, x: x[:c]),
        *_each("drop last", "all but the last {}", (1, 2), lambda c, x: x[:-c]),
        *_each("add", "add {} to each", range(1, 6), lambda c, x: tuple(n + c for n in x)),
        *_each("keep over", "keep what is over {}", range(2, 7),
               lambda c, x: tuple(n for n in x if n > c)),
        *_each("append", "append {}", range(10), lambda c, x: (*x, c)),
    ]  # fmt: skip


def _eval() -> list[Rule]:
    return [
        _one("swap ends", "swap the first and the last",
             lambda x: (x[-1], *x[1:-1], x[0]) if len(x) > 1 else x),
        _one("sort up", "sort from the smallest", lambda x: tuple(sorted(x))),
        _one("keep odd", "keep the odd numbers", lambda x: tuple(n for n in x if n % 2)),
        _one("rotate right", "move the last to the front", lambda x: x[-1:] + x[:-1]),
        _one("smallest", "the smallest number", lambda x: (min(x),) if x else ()),
        _one("no duplicates", "drop what was there before", lambda x: tuple(dict.fromkeys(x))),
        _one("every second", "every second, from the first", lambda x: x[::2]),
        *_each("take last", "the last {}", (1, 2, 3), lambda c, x: x[-c:]),
        *_each("drop first", "all but the first {}", (1, 2), lambda c, x: x[c:]),
        *_each("multiply", "multiply each by {}", (2, 3), lambda c, x: tuple(n * c for n in x)),
        *_each("keep under", "keep what is under {}", range(3, 8),
               lambda c, x: tuple(n for n in x if n < c)),
        *_each("prepend", "put {} in front", range(10), lambda c, x: (c, *x)),
    ]  # fmt: skip


RULES = {"train": _train(), "eval": _eval()}


def families(split: str) -> dict[str, list[Rule]]:
    """Family -> its rules of one step."""
    found: dict[str, list[Rule]] = {}
    for rule in RULES[split]:
        found.setdefault(rule.family, []).append(rule)
    return found


def chained(first: Rule, second: Rule) -> Rule:
    return Rule(
        f"{first.family}, {second.family}",
        f"{first.name}, then {second.name}",
        first.steps + second.steps,
    )


@lru_cache(maxsize=1)
def every_rule() -> tuple[list[Rule], list[Rule]]:
    """All rules of one step, and of two."""
    single = [rule for rules in RULES.values() for rule in rules]
    return single, [chained(one, other) for one in single for other in single]


def answers_left(shots: Sequence[Pair], query: Numbers) -> list[int]:
    """How many different answers to `query` the rules allow after 1, 2, ... of the shots."""
    single, double = every_rule()
    fitting = [*single, *double]
    found = []
    for shot in shots:
        fitting = [rule for rule in fitting if rule.apply(shot.given) == shot.result]
        found.append(len({rule.apply(query) for rule in fitting}))
    return found


def fits_one_step(pairs: Sequence[Pair]) -> bool:
    """Whether a rule of one step does all that is seen."""
    return any(all(rule.apply(p.given) == p.result for p in pairs) for rule in every_rule()[0])
