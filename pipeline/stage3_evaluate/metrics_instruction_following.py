"""Instruction following in numbers: strict, loose and unreadable, by the types of constraints."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.records import Answer, Score
from pipeline.stage3_evaluate.metric_items import (
    items_of,
    loose,
    no_answer,
    of_variant,
    right,
    share,
    truncated,
    variants,
)


def scores_by_variant(arm: str, ability: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    found: list[Score] = []
    strict = "strict" if ability == "instruction_following" else "accuracy"
    for variant in variants(rows):
        some = of_variant(rows, variant)
        found.append(share(arm, ability, f"{strict}/{variant}", items_of(some, right), seed))
        if all(row.loose is not None for row in some):
            found.append(share(arm, ability, f"loose/{variant}", items_of(some, loose), seed))
        for metric, value in (("no_answer", no_answer), ("truncated", truncated)):
            found.append(share(arm, ability, f"{metric}/{variant}", items_of(some, value), seed))
    return found
