"""What every ability's metrics are made of: values of items, shares and gains with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.records import Answer, Extraction, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.statistics import Interval, Strata

Items = dict[tuple[str, str], float]  # (stratum, item id) -> mean over the item's rows


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


def gains(arm: str, ability: str, name: str, top: Items, bottom: Items, seed: int) -> list[Score]:
    """top - bottom on the same items; nothing where they share none."""
    high, low = paired_strata(top, bottom)
    if not high:
        return []
    differences = [
        [y - x for x, y in zip(a, b, strict=True)] for a, b in zip(low, high, strict=True)
    ]
    strata = sorted({stratum for stratum, _ in top.keys() & bottom.keys()})
    parts: list[tuple[str, Strata]] = [(f"{name}/mean" if strata != [""] else name, differences)]
    if len(strata) > 1:
        parts += [(f"{name}/{s}", [values]) for s, values in zip(strata, differences, strict=True)]
    return [
        score_of(
            arm, ability, metric, statistics.mean_of(values),
            sum(len(stratum) for stratum in values), statistics.difference_interval(values, seed),
        )
        for metric, values in parts
    ]  # fmt: skip


def share(arm: str, ability: str, metric: str, items: Items, seed: int) -> Score:
    (strata,) = paired_strata(items)
    interval = statistics.mean_interval(strata, seed)
    return score_of(arm, ability, metric, statistics.mean_of(strata), len(items), interval)


def score_of(
    arm: str, ability: str, metric: str, value: float, n: int, interval: Interval
) -> Score:
    return Score(arm, ability, metric, value, n, interval.low, interval.high)


def items_of(
    rows: Sequence[Answer],
    value: Callable[[Answer], float],
    stratum: Callable[[Answer], str] = lambda row: "",
) -> Items:
    """Mean over each item's rows, so that several draws of one item count once."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        grouped.setdefault((stratum(row), row.item_id), []).append(value(row))
    return {key: sum(values) / len(values) for key, values in grouped.items()}


def of_variant(rows: Sequence[Answer], variant: str) -> list[Answer]:
    return [row for row in rows if row.variant == variant]


def variants(rows: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(row.variant for row in rows))


def right(row: Answer) -> float:
    return row.correct


def loose(row: Answer) -> float:
    return row.correct if row.loose is None else row.loose


def invalid(row: Answer) -> float:
    return float(row.extraction is not Extraction.VALUE)


def no_answer(row: Answer) -> float:
    return float(row.extraction is Extraction.NO_ANSWER)


def truncated(row: Answer) -> float:
    return float(row.extraction is Extraction.TRUNCATED)


def tokens(row: Answer) -> float:
    return float(row.output_tokens)
