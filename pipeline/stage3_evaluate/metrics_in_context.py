"""In-context learning in numbers: accuracy and invalid answers at each k, gains, chance, spread.

    accuracy/TASK/k=4           natural labels; TASK is "mean" for the mean of the tasks
    accuracy/TASK/flipped/k=4   the same under another condition of the labels
    gain/TASK[/flipped]         largest k less none, on the same items
    gain_over_random/TASK       largest k: natural less random labels, what the mapping itself gives
    chance/TASK                 a guess among the labels

A task that is beyond what was trained is called "TASK (beyond)", and is no part of a mean.

An item's draws and orders are averaged first, so that it counts once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from statistics import fmean, stdev, variance
from typing import NamedTuple

import msgspec

from pipeline.config_evaluate import BEYOND_TASK
from pipeline.records import Answer, Score
from pipeline.stage3_evaluate.metric_items import (
    Items,
    gains,
    invalid,
    items_of,
    right,
    score_of,
    share,
)
from pipeline.stage3_evaluate.statistics import Interval

_SHOTS = re.compile(r"^(.*?)(?:/([a-z]+))?\s*k=(\d+)$")
NATURAL = "natural"


class Shots(NamedTuple):
    task: str
    k: int
    labels: str = NATURAL

    @property
    def beyond(self) -> bool:
        return self.task.endswith(BEYOND_TASK)


class Spread(msgspec.Struct, frozen=True):
    """How much hangs on the choice of shots: the accuracy of each draw, over all items.

    sd: standard deviation over draws (n - 1). `orders_sd`: over the orders of a draw's shots, the
    root of the mean variance within draws; None where there was one order.
    """

    model: str
    task: str
    labels: str
    k: int
    draws: list[float]
    low: float
    high: float
    sd: float | None
    orders_sd: float | None


def in_context_scores(arm: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    found: list[Score] = []
    conditions = list(dict.fromkeys(shots(row).labels for row in rows))
    for labels in conditions:
        some = [row for row in rows if shots(row).labels == labels]
        found += _curves(arm, some, "" if labels == NATURAL else f"/{labels}", seed)
    inside = within(rows)
    natural = at_largest(natural_rows(inside))
    if given := at_largest([row for row in inside if shots(row).labels == "random"]):
        top, bottom = items_of(natural, right, task_of), items_of(given, right, task_of)
        found += gains(arm, "in_context", "gain_over_random", top, bottom, seed)
    return found + _chances(arm, rows)


def _curves(arm: str, rows: Sequence[Answer], condition: str, seed: int) -> list[Score]:
    """What there is under one condition of the labels, whose part of a metric's path is given."""
    found: list[Score] = []

    def add(metric: str, items: Items) -> None:
        found.append(share(arm, "in_context", metric, items, seed))

    tasks = list(dict.fromkeys(map(task_of, rows)))
    for k in sorted({shots(row).k for row in rows}):
        at = [row for row in rows if shots(row).k == k]
        if inside := within(at):
            add(f"accuracy/mean{condition}/k={k}", items_of(inside, right, task_of))
            add(f"invalid/mean{condition}/k={k}", items_of(inside, invalid, task_of))
        for task in tasks:
            one = [row for row in at if task_of(row) == task]
            if one:
                add(f"accuracy/{task}{condition}/k={k}", items_of(one, right))
                add(f"invalid/{task}{condition}/k={k}", items_of(one, invalid))
    inside = within(rows)
    top = items_of(at_largest(inside), right, task_of)
    bottom = items_of([row for row in inside if shots(row).k == 0], right, task_of)
    gained = gains(arm, "in_context", "gain", top, bottom, seed)
    return found + [msgspec.structs.replace(one, metric=one.metric + condition) for one in gained]


def at_largest(rows: Sequence[Answer]) -> list[Answer]:
    """Each task's rows at its largest k."""
    largest = largest_shots(rows)
    return [row for row in rows if shots(row).k == largest[task_of(row)]]


def within(rows: Sequence[Answer]) -> list[Answer]:
    """Without the tasks that are beyond what was trained."""
    return [row for row in rows if not shots(row).beyond]


def beyond_rows(rows: Sequence[Answer]) -> list[Answer]:
    """The tasks beyond what was trained, as the primary number is made: natural, largest k."""
    return at_largest([row for row in natural_rows(rows) if shots(row).beyond])


def _chances(arm: str, rows: Sequence[Answer]) -> list[Score]:
    """Chance of each task and their mean: no estimate, so its interval is itself."""
    guesses: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.chance is not None:
            guesses.setdefault(task_of(row), {})[row.item_id] = row.chance
    means = {task: fmean(items.values()) for task, items in guesses.items()}
    counts = {task: len(items) for task, items in guesses.items()}
    inside = [task for task in means if not task.endswith(BEYOND_TASK)]
    if len(inside) > 1:
        means["mean"] = fmean(means[task] for task in inside)
        counts["mean"] = sum(counts[task] for task in inside)
    return [
        score_of(arm, "in_context", f"chance/{task}", value, counts[task], Interval(value, value))
        for task, value in means.items()
    ]


def spreads(answers: dict[str, list[Answer]]) -> list[Spread]:
    """The spread of every arm, task, condition and k that was asked with several sets of shots."""
    found: list[Spread] = []
    for arm, rows in answers.items():
        asked: dict[Shots, list[Answer]] = {}
        for row in rows:
            if row.ability == "in_context":
                asked.setdefault(shots(row), []).append(row)
        every = {where: _spread(arm, where, some) for where, some in asked.items()}
        found += [*_of_tasks(arm, every), *(one for one in every.values() if one is not None)]
    return found


def _of_tasks(arm: str, every: dict[Shots, Spread | None]) -> list[Spread]:
    """The spread of the mean of tasks under natural labels, where all have as many draws."""
    found = []
    inside = {w: one for w, one in every.items() if w.labels == NATURAL and not w.beyond}
    for k in dict.fromkeys(where.k for where in inside):
        tasks = [one.draws if one else [] for where, one in inside.items() if where.k == k]
        draws = [fmean(values) for values in zip(*tasks, strict=False)]
        if len(tasks) > 1 and len(draws) > 1 and all(len(t) == len(draws) for t in tasks):
            low, high = min(draws), max(draws)
            found.append(Spread(arm, "mean", NATURAL, k, draws, low, high, stdev(draws), None))
    return found


def _spread(arm: str, where: Shots, rows: Sequence[Answer]) -> Spread | None:
    """None with one draw in one order."""
    by_draw = _grouped(rows, lambda row: row.draw)
    draws = [fmean(map(right, some)) for some in by_draw]
    within = []
    for some in by_draw:
        orders = [fmean(map(right, one)) for one in _grouped(some, lambda row: row.order)]
        if len(orders) > 1:
            within.append(variance(orders))
    if len(draws) < 2 and not within:
        return None
    return Spread(
        model=arm,
        task=where.task,
        labels=where.labels,
        k=where.k,
        draws=draws,
        low=min(draws),
        high=max(draws),
        sd=stdev(draws) if len(draws) > 1 else None,
        orders_sd=fmean(within) ** 0.5 if within else None,
    )


def _grouped(rows: Sequence[Answer], key: Callable[[Answer], int]) -> list[list[Answer]]:
    return [list(some) for _, some in groupby(sorted(rows, key=key), key)]


def shots(row: Answer) -> Shots:
    return _parsed(row.variant)


@lru_cache(maxsize=4096)
def _parsed(variant: str) -> Shots:
    match = _SHOTS.match(variant)
    if match is None:
        raise ValueError(f"in_context variant {variant!r} is not of the form 'task k=4'")
    return Shots(match[1] or "task", int(match[3]), match[2] or NATURAL)


def task_of(row: Answer) -> str:
    return shots(row).task


def natural_rows(rows: Sequence[Answer]) -> list[Answer]:
    """The rows that the primary number is made of: those under other conditions are probes."""
    return [row for row in rows if shots(row).labels == NATURAL]


def largest_shots(rows: Sequence[Answer]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for row in rows:
        task, k, _ = shots(row)
        largest[task] = max(k, largest.get(task, 0))
    return largest
