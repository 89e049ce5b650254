"""Which numbers each ability has, computed from one arm's answers.

Names of metrics are paths, "accuracy/symbol_mapping/k=4", so that a reader of 6_scores.json can
filter them. Shares are between 0 and 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.records import Answer, Extraction, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.statistics import Interval, Strata

Items = dict[tuple[str, str], float]  # (stratum, item id) -> mean over the item's rows
Said = tuple[list[Score], list[str]]  # scores, and notes on what could not be scored

_SHOTS = re.compile(r"^(.*?)\s*k=(\d+)$")


class _Shots(NamedTuple):
    task: str
    k: int


def ability_scores(arm: str, ability: str, rows: Sequence[Answer], seed: int) -> Said:
    """Every metric of one arm in one ability, with 95 % intervals."""
    if ability == "in_context":
        return _in_context(arm, rows, seed), []
    if ability == "chain_of_thought":
        return _chain_of_thought(arm, rows, seed)
    return _by_variant(arm, ability, rows, seed), []


def primary_items(ability: str, rows: Sequence[Answer]) -> dict[str, Items]:
    """Metric -> item values of what is compared; the first one is primary."""
    chosen = _primary_rows(ability, rows)
    return {metric: _items(some, _right, _stratum(ability)) for metric, some in chosen.items()}


def valid_items(ability: str, rows: Sequence[Answer]) -> dict[str, set[tuple[str, str]]]:
    """Metric -> the items of `primary_items` whose every answer could be read."""
    return {
        metric: {key for key, bad in _items(some, _invalid, _stratum(ability)).items() if bad == 0}
        for metric, some in _primary_rows(ability, rows).items()
    }


def _primary_rows(ability: str, rows: Sequence[Answer]) -> dict[str, list[Answer]]:
    rows = [row for row in rows if row.ability == ability]
    if ability == "in_context":
        largest = _largest(rows)
        ks = sorted(set(largest.values()))
        name = f"accuracy/mean/k={ks[0]}" if len(ks) == 1 else "accuracy/mean/largest k"
        found = {name: [row for row in rows if _shots(row).k == largest[_shots(row).task]]}
    elif ability == "chain_of_thought":
        found = {"accuracy/step_by_step": _of(rows, "step_by_step")}
    elif ability == "instruction_following":
        found = {f"strict/{name}": _of(rows, name) for name in ("unseen_types", "seen_types")}
    else:
        found = {f"accuracy/{name}": _of(rows, name) for name in _variants(rows)}
    return {metric: some for metric, some in found.items() if some}


def _stratum(ability: str) -> Callable[[Answer], str]:
    """In-context tasks are averaged one by one, then together; all else is one stratum."""
    return (lambda row: _shots(row).task) if ability == "in_context" else (lambda row: "")


def _of(rows: Sequence[Answer], variant: str) -> list[Answer]:
    return [row for row in rows if row.variant == variant]


def _variants(rows: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(row.variant for row in rows))


def paired_strata(*arms: Items) -> list[list[list[float]]]:
    """For each arm the strata of the items that all arms have, in one order.

    A list of empty lists when the arms share no item.
    """
    shared = sorted(set.intersection(*(set(items) for items in arms)))
    strata = sorted({stratum for stratum, _ in shared})
    return [
        [[items[key] for key in shared if key[0] == stratum] for stratum in strata]
        for items in arms
    ]


def _in_context(arm: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    found: list[Score] = []

    def add(metric: str, items: Items) -> None:
        found.append(_share(arm, "in_context", metric, items, seed))

    def task_of(row: Answer) -> str:
        return _shots(row).task

    ks = sorted({_shots(row).k for row in rows})
    tasks = list(dict.fromkeys(task_of(row) for row in rows))
    for k in ks:
        at = [row for row in rows if _shots(row).k == k]
        add(f"accuracy/mean/k={k}", _items(at, _right, task_of))
        add(f"invalid/mean/k={k}", _items(at, _invalid, task_of))
        for task in tasks:
            one = [row for row in at if task_of(row) == task]
            if one:
                add(f"accuracy/{task}/k={k}", _items(one, _right))
                add(f"invalid/{task}/k={k}", _items(one, _invalid))
    largest = _largest(rows)
    top = _items([r for r in rows if _shots(r).k == largest[task_of(r)]], _right, task_of)
    bottom = _items([row for row in rows if _shots(row).k == 0], _right, task_of)
    found += _gains(arm, "in_context", "gain", top, bottom, seed)
    return found


def _chain_of_thought(arm: str, rows: Sequence[Answer], seed: int) -> Said:
    found: list[Score] = []
    notes: list[str] = []
    for variant in _variants(rows):
        some = _of(rows, variant)
        for metric, value in (
            ("accuracy", _right),
            ("no_answer", _no_answer),
            ("truncated", _truncated),
            ("output_tokens", _tokens),
        ):
            items = _items(some, value)
            found.append(_share(arm, "chain_of_thought", f"{metric}/{variant}", items, seed))
        spent = [(float(row.output_tokens), row.correct) for row in some]
        right = sum(correct for _, correct in spent)
        interval = statistics.ratio_interval(_by_item(some), seed) if right else None
        if interval is None or not math.isfinite(interval.high):
            notes.append(
                f"chain_of_thought, {variant}: {arm} has too few right answers for an interval "
                "of tokens per right answer."
            )
        else:
            cost = sum(tokens for tokens, _ in spent) / right
            name = f"tokens_per_correct/{variant}"
            found.append(_score(arm, "chain_of_thought", name, cost, len(_by_item(some)), interval))
    top, bottom = (_items(_of(rows, v), _right) for v in ("step_by_step", "direct"))
    found += _gains(arm, "chain_of_thought", "gain", top, bottom, seed)
    return found, notes


def _by_variant(arm: str, ability: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    found: list[Score] = []
    strict = "strict" if ability == "instruction_following" else "accuracy"
    for variant in _variants(rows):
        some = _of(rows, variant)
        found.append(_share(arm, ability, f"{strict}/{variant}", _items(some, _right), seed))
        if all(row.loose is not None for row in some):
            found.append(_share(arm, ability, f"loose/{variant}", _items(some, _loose), seed))
        for metric, value in (("no_answer", _no_answer), ("truncated", _truncated)):
            found.append(_share(arm, ability, f"{metric}/{variant}", _items(some, value), seed))
    return found


def _gains(arm: str, ability: str, name: str, top: Items, bottom: Items, seed: int) -> list[Score]:
    """top - bottom on the same items; nothing where they share none."""
    high, low = paired_strata(top, bottom)
    if not high:
        return []
    gains = [[y - x for x, y in zip(a, b, strict=True)] for a, b in zip(low, high, strict=True)]
    strata = sorted({stratum for stratum, _ in top.keys() & bottom.keys()})
    parts: list[tuple[str, Strata]] = [(f"{name}/mean" if strata != [""] else name, gains)]
    if len(strata) > 1:
        parts += [(f"{name}/{s}", [values]) for s, values in zip(strata, gains, strict=True)]
    return [
        _score(
            arm, ability, metric, statistics.mean_of(values),
            sum(len(stratum) for stratum in values), statistics.difference_interval(values, seed),
        )
        for metric, values in parts
    ]  # fmt: skip


def _share(arm: str, ability: str, metric: str, items: Items, seed: int) -> Score:
    (strata,) = paired_strata(items)
    interval = statistics.mean_interval(strata, seed)
    return _score(arm, ability, metric, statistics.mean_of(strata), len(items), interval)


def _score(arm: str, ability: str, metric: str, value: float, n: int, interval: Interval) -> Score:
    return Score(arm, ability, metric, value, n, interval.low, interval.high)


def _items(
    rows: Sequence[Answer],
    value: Callable[[Answer], float],
    stratum: Callable[[Answer], str] = lambda row: "",
) -> Items:
    """Mean over each item's rows, so that several draws of one item count once."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        grouped.setdefault((stratum(row), row.item_id), []).append(value(row))
    return {key: sum(values) / len(values) for key, values in grouped.items()}


def _by_item(rows: Sequence[Answer]) -> list[tuple[float, float]]:
    grouped: dict[str, tuple[float, float]] = {}
    for row in rows:
        tokens, right = grouped.get(row.item_id, (0.0, 0.0))
        grouped[row.item_id] = (tokens + row.output_tokens, right + row.correct)
    return list(grouped.values())


def _shots(row: Answer) -> _Shots:
    match = _SHOTS.match(row.variant)
    if match is None:
        raise ValueError(f"in_context variant {row.variant!r} is not of the form 'task k=4'")
    return _Shots(match[1] or "task", int(match[2]))


def _largest(rows: Sequence[Answer]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for row in rows:
        task, k = _shots(row)
        largest[task] = max(k, largest.get(task, 0))
    return largest


def _right(row: Answer) -> float:
    return row.correct


def _loose(row: Answer) -> float:
    return row.correct if row.loose is None else row.loose


def _invalid(row: Answer) -> float:
    return float(row.extraction is not Extraction.VALUE)


def _no_answer(row: Answer) -> float:
    return float(row.extraction is Extraction.NO_ANSWER)


def _truncated(row: Answer) -> float:
    return float(row.extraction is Extraction.TRUNCATED)


def _tokens(row: Answer) -> float:
    return float(row.output_tokens)
