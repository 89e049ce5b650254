"""Instruction following in numbers: strict, loose and unreadable, by the types of constraints.

At prompt level an item counts when all its constraints hold, at instruction level each constraint
counts by itself (IFEval, arXiv 2311.07911); then prompt level by how many constraints an item has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.records import Answer, Followed, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.metric_items import (
    Items,
    items_of,
    loose,
    no_answer,
    of_variant,
    right,
    score_of,
    share,
    truncated,
    variants,
)

# The sets of items, in the order in which they are compared: the first one asked is primary.
IF_SETS = {"unseen_types": "new types", "seen_types": "trained types", "ifeval": "IFEval"}


def instruction_following_scores(arm: str, rows: Sequence[Answer], seed: int) -> list[Score]:
    ability = "instruction_following"
    found = scores_by_variant(arm, ability, rows, seed)
    for variant in variants(rows):
        some = of_variant(rows, variant)
        if not all(row.followed for row in some):
            continue  # answers that were read before this was kept; --redo evaluate reads them anew
        for metric, value in (("strict", strict_constraints), ("loose", loose_constraints)):
            name = f"{metric}_instructions/{variant}"
            found.append(_constraints_share(arm, name, some, value, seed))
        numbers = sorted({len(row.followed) for row in some})
        for n in numbers if len(numbers) > 1 else []:
            of_n = [row for row in some if len(row.followed) == n]
            found += [
                share(arm, ability, f"strict/{variant}/n={n}", items_of(of_n, right), seed),
                share(arm, ability, f"loose/{variant}/n={n}", items_of(of_n, loose), seed),
            ]
    return found


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


def strict_constraints(row: Answer) -> float:
    """How many of an answer's constraints hold as it stands."""
    return float(row.followed.count(Followed.STRICT))


def loose_constraints(row: Answer) -> float:
    """How many of an answer's constraints hold in one of its loose forms."""
    return float(len(row.followed) - row.followed.count(Followed.BROKEN))


def _constraints_share(
    arm: str, metric: str, rows: Sequence[Answer], kept: Callable[[Answer], float], seed: int
) -> Score:
    """Constraints that hold / constraints asked; the interval is clustered by item, as one answer
    decides all of an item's constraints. `n` counts the constraints."""
    held: Items = items_of(rows, kept)
    asked: Items = items_of(rows, lambda row: float(len(row.followed)))
    pairs = [(held[key], asked[key]) for key in asked]
    total, of = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    interval = statistics.clustered_share(pairs, seed)
    return score_of(arm, "instruction_following", metric, total / of, round(of), interval)
