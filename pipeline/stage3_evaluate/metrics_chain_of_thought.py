"""Chain of thought in numbers: accuracy, outcomes and tokens of each mode; gain over direct."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.records import Answer, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.metric_items import (
    gains,
    items_of,
    no_answer,
    of_variant,
    right,
    score_of,
    share,
    tokens,
    truncated,
    variants,
)


def chain_of_thought_scores(
    arm: str, rows: Sequence[Answer], seed: int
) -> tuple[list[Score], list[str]]:
    """Scores, and notes on what could not be scored."""
    found: list[Score] = []
    notes: list[str] = []
    for variant in variants(rows):
        some = of_variant(rows, variant)
        for metric, value in (
            ("accuracy", right),
            ("no_answer", no_answer),
            ("truncated", truncated),
            ("output_tokens", tokens),
        ):
            items = items_of(some, value)
            found.append(share(arm, "chain_of_thought", f"{metric}/{variant}", items, seed))
        spent = [(float(row.output_tokens), row.correct) for row in some]
        solved = sum(correct for _, correct in spent)
        interval = statistics.ratio_interval(_by_item(some), seed) if solved else None
        if interval is None or not math.isfinite(interval.high):
            notes.append(
                f"chain_of_thought, {variant}: {arm} has too few right answers for an interval "
                "of tokens per right answer."
            )
        else:
            cost = sum(used for used, _ in spent) / solved
            name = f"tokens_per_correct/{variant}"
            found.append(
                score_of(arm, "chain_of_thought", name, cost, len(_by_item(some)), interval)
            )
    top, bottom = (items_of(of_variant(rows, v), right) for v in ("step_by_step", "direct"))
    found += gains(arm, "chain_of_thought", "gain", top, bottom, seed)
    return found, notes


def _by_item(rows: Sequence[Answer]) -> list[tuple[float, float]]:
    grouped: dict[str, tuple[float, float]] = {}
    for row in rows:
        tokens, right = grouped.get(row.item_id, (0.0, 0.0))
        grouped[row.item_id] = (tokens + row.output_tokens, right + row.correct)
    return list(grouped.values())
