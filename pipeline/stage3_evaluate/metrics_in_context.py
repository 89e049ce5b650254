"""In-context learning in numbers: accuracy and invalid answers at each k, gain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.records import Answer, Score
from pipeline.stage3_evaluate.metric_items import Items, gains, invalid, items_of, right, share

_SHOTS = re.compile(r"^(.*?)\s*k=(\d+)$")


class Shots(NamedTuple):
    task: str
    k: int


def in_context_scores(arm: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    found: list[Score] = []

    def add(metric: str, items: Items) -> None:
        found.append(share(arm, "in_context", metric, items, seed))

    def task_of(row: Answer) -> str:
        return shots(row).task

    ks = sorted({shots(row).k for row in rows})
    tasks = list(dict.fromkeys(task_of(row) for row in rows))
    for k in ks:
        at = [row for row in rows if shots(row).k == k]
        add(f"accuracy/mean/k={k}", items_of(at, right, task_of))
        add(f"invalid/mean/k={k}", items_of(at, invalid, task_of))
        for task in tasks:
            one = [row for row in at if task_of(row) == task]
            if one:
                add(f"accuracy/{task}/k={k}", items_of(one, right))
                add(f"invalid/{task}/k={k}", items_of(one, invalid))
    largest = largest_shots(rows)
    top = items_of([r for r in rows if shots(r).k == largest[task_of(r)]], right, task_of)
    bottom = items_of([row for row in rows if shots(row).k == 0], right, task_of)
    found += gains(arm, "in_context", "gain", top, bottom, seed)
    return found


def shots(row: Answer) -> Shots:
    match = _SHOTS.match(row.variant)
    if match is None:
        raise ValueError(f"in_context variant {row.variant!r} is not of the form 'task k=4'")
    return Shots(match[1] or "task", int(match[2]))


def largest_shots(rows: Sequence[Answer]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for row in rows:
        task, k = shots(row)
        largest[task] = max(k, largest.get(task, 0))
    return largest
