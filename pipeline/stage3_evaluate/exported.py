"""The evaluation's questions to an exported student, and its scores against the unexported one."""

from __future__ import annotations

import msgspec

from pipeline.config import Budget, Config, ModelConfig
from pipeline.models.ask import Spending
from pipeline.stage3_evaluate.evaluate import ask_arm, saved_answers
from pipeline.stage3_evaluate.score import score


class Change(msgspec.Struct, frozen=True):
    """export - student on one metric, paired by item; shares of 1. See `score.Comparison`."""

    ability: str
    metric: str
    student: float
    export: float
    difference: float
    low: float
    high: float
    p: float  # exact, two-sided, of this metric alone
    n: int
    gained: int
    lost: int


def changes(config: Config, exported: ModelConfig) -> list[Change] | None:
    """Every primary and secondary comparison; None where the run has no answers of its student.

    Answers go to the ledger of the exported model: asking again asks nothing.
    """
    before = saved_answers(config.run_dir).get("after")
    if not before:
        return None
    failed: list[str] = []
    after, _, _ = ask_arm(config, "after", exported, Spending(Budget()), failed)
    found = score({"before": before, "after": after}, arms=["before", "after"], seed=config.seed)
    return [
        Change(
            ability=c.ability,
            metric=c.metric,
            student=c.before,
            export=c.after,
            difference=c.difference,
            low=c.low,
            high=c.high,
            p=c.p,
            n=c.n,
            gained=c.gained,
            lost=c.lost,
        )
        for c in found.comparisons
    ]
