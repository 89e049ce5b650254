"""Chain of thought in numbers: accuracy, outcomes and tokens of each mode; gain; votes.

Names: "accuracy/step_by_step", and "accuracy/step_by_step/longer" on the set `longer` of `beyond`.
The gain is not measured where more than `REASONED` of the direct answers reasoned before they
answered: then both modes measure the same thing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from pipeline.config_evaluate import CONTROL
from pipeline.records import Answer, Extraction, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.majority import draws_of, majority_right
from pipeline.stage3_evaluate.metric_items import (
    Items,
    gains,
    items_of,
    no_answer,
    of_variant,
    paired_strata,
    right,
    score_of,
    share,
    tokens,
    truncated,
    variants,
)

ABILITY = "chain_of_thought"
BEYOND = " beyond="  # in a variant: "step_by_step beyond=longer"
SAMPLED = "sampled"
REASONED = 0.1  # of the direct answers; above it the gain over them says nothing


class GainChange(msgspec.Struct, frozen=True):
    """Difference in differences: the gain from reasoning of one arm less that of another.

    On the items that both arms were asked in both modes; p is of the sign-flip test (exact McNemar
    where every gain is 0 or 1), two-sided, unadjusted. None where a gain was not measured.
    """

    set: str  # "" for the items, else the name of a set beyond them
    first: str  # arm
    second: str
    n: int
    gain_first: float | None = None
    gain_second: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    why_not: str = ""


def chain_of_thought_scores(
    arm: str, rows: Sequence[Answer], seed: int
) -> tuple[list[Score], list[str]]:
    """Scores, and notes on what could not be scored."""
    found: list[Score] = []
    notes: list[str] = []
    costless: list[str] = []
    for variant in variants(rows):
        some = of_variant(rows, variant)
        mode, name = _mode_and_set(variant)
        path = mode + (f"/{name}" if name else "")
        wanted = [("no_answer", no_answer), ("truncated", truncated), ("output_tokens", tokens)]
        if mode != SAMPLED:  # its accuracy is the majority of one
            wanted.insert(0, ("accuracy", right))
        if mode == "direct" and any(row.reasoned is not None for row in some):
            wanted.append(("reasoned", _reasoned))
        for metric, value in wanted:
            items = items_of(some, value)
            found.append(share(arm, ABILITY, f"{metric}/{path}", items, seed))
        cost = _cost(arm, some, path, seed)
        found += [cost] if cost else []
        costless += [] if cost else [path]
    if costless:
        notes.append(
            f"chain_of_thought: {arm} has too few right answers for an interval of tokens per "
            f"right answer: {', '.join(costless)}."
        )
    for name in sets_of(rows):
        top, bottom, spoilt = _modes(rows, name)
        if spoilt and top:
            notes.append(
                f"chain_of_thought{f', {name}' if name else ''}: the gain of {arm} over its direct "
                f"answers is not measured: {100 * spoilt:.0f} % of these reason before they answer."
            )
        else:
            path = f"gain/{name}" if name else "gain"
            found += gains(arm, ABILITY, path, top, bottom, seed)
    return found + majority_scores(arm, rows, seed), notes


def majority_scores(arm: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    """ "majority/m=3": the chance that the majority of 3 of an item's samples is right."""
    sampled: dict[str, list[Answer]] = {}
    for row in of_variant(rows, SAMPLED):
        sampled.setdefault(row.item_id, []).append(row)
    if not sampled:
        return []
    found = []
    for m in draws_of(max(map(len, sampled.values()))):
        items = {("", item): _vote(some, m) for item, some in sampled.items() if len(some) >= m}
        found.append(share(arm, ABILITY, f"majority/m={m}", items, seed))
    return found


def gain_changes(answers: dict[str, list[Answer]], seed: int) -> list[GainChange]:
    """After less before, and after less each control, on every set."""
    pairs = [("before", "after")]
    pairs += [(arm, "after") for arm in sorted(answers) if arm.startswith(CONTROL)]
    found = []
    for first, second in pairs:
        old = [row for row in answers.get(first, []) if row.ability == ABILITY]
        new = [row for row in answers.get(second, []) if row.ability == ABILITY]
        found += [
            change
            for name in sets_of(new)
            if (change := _change(name, (first, old), (second, new), seed)) is not None
        ]
    return found


def sets_of(rows: Sequence[Answer]) -> list[str]:
    """ "" for the items, then the names of the sets beyond them, in the order of the config."""
    return list(dict.fromkeys(_mode_and_set(variant)[1] for variant in variants(rows)))


def beyond_items(rows: Sequence[Answer]) -> dict[str, Items]:
    """Metric -> items, step by step, of every set beyond what was trained."""
    found = {
        f"accuracy/step_by_step/{name}": items_of(
            of_variant(rows, f"step_by_step{BEYOND}{name}"), right
        )
        for name in sets_of([row for row in rows if row.ability == ABILITY])
        if name
    }
    return {metric: items for metric, items in found.items() if items}


def _mode_and_set(variant: str) -> tuple[str, str]:
    mode, _, name = variant.partition(BEYOND)
    return mode, name


def _modes(rows: Sequence[Answer], name: str) -> tuple[Items, Items, float]:
    """Right answers step by step, direct ones, and the share of the direct that is too large."""
    behind = f"{BEYOND}{name}" if name else ""
    direct = of_variant(rows, f"direct{behind}")
    top = items_of(of_variant(rows, f"step_by_step{behind}"), right)
    reasoned = sum(map(_reasoned, direct)) / len(direct) if direct else 0.0
    return top, items_of(direct, right), reasoned if reasoned > REASONED else 0.0


def _change(
    name: str, one: tuple[str, list[Answer]], two: tuple[str, list[Answer]], seed: int
) -> GainChange | None:
    """None where the two arms share no item in both modes."""
    top_one, bottom_one, spoilt_one = _modes(one[1], name)
    top_two, bottom_two, spoilt_two = _modes(two[1], name)
    parts = paired_strata(top_one, bottom_one, top_two, bottom_two)
    if not parts[0]:
        return None
    n = len(parts[0][0])
    for arm, spoilt in ((one[0], spoilt_one), (two[0], spoilt_two)):
        if spoilt:
            why = f"{100 * spoilt:.0f} % of the direct answers of {arm} reason first"
            return GainChange(name, one[0], two[0], n, why_not=why)
    old, new = _less(parts[0], parts[1]), _less(parts[2], parts[3])
    # Halved, since the interval is made for differences between -1 and 1.
    halves = [[value / 2 for value in stratum] for stratum in _less(new, old)]
    low, high = statistics.difference_interval(halves, seed)
    before, after = statistics.mean_of(old), statistics.mean_of(new)
    p = statistics.paired_test(old, new, seed).p
    return GainChange(name, one[0], two[0], n, before, after, after - before, 2 * low, 2 * high, p)


def _less(top: list[list[float]], bottom: list[list[float]]) -> list[list[float]]:
    return [[x - y for x, y in zip(a, b, strict=True)] for a, b in zip(top, bottom, strict=True)]


def _vote(rows: Sequence[Answer], m: int) -> float:
    read = [row for row in rows if row.extraction is Extraction.VALUE]
    correct = sum(row.correct > 0 for row in read)
    wrong = Counter(row.spelled or row.extracted or "" for row in read if not row.correct)
    return majority_right(correct, list(wrong.values()), len(rows) - len(read), m)


def _reasoned(row: Answer) -> float:
    return float(row.reasoned or False)


def _cost(arm: str, rows: Sequence[Answer], path: str, seed: int) -> Score | None:
    """Tokens for each right answer; None where there are too few of these."""
    solved = sum(row.correct for row in rows)
    interval = statistics.ratio_interval(_by_item(rows), seed) if solved else None
    if interval is None or not math.isfinite(interval.high):
        return None
    cost = sum(row.output_tokens for row in rows) / solved
    return score_of(arm, ABILITY, f"tokens_per_correct/{path}", cost, len(_by_item(rows)), interval)


def _by_item(rows: Sequence[Answer]) -> list[tuple[float, float]]:
    grouped: dict[str, tuple[float, float]] = {}
    for row in rows:
        tokens, right = grouped.get(row.item_id, (0.0, 0.0))
        grouped[row.item_id] = (tokens + row.output_tokens, right + row.correct)
    return list(grouped.values())
