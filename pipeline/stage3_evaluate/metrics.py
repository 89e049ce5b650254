"""Which numbers each ability has, computed from one arm's answers.

Names of metrics are paths, "accuracy/symbol_mapping/k=4", so that a reader of 6_scores.json can
filter them. Shares are between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.records import Answer, Score
from pipeline.stage3_evaluate.metric_items import (
    Items,
    invalid,
    items_of,
    of_variant,
    right,
    variants,
)
from pipeline.stage3_evaluate.metrics_chain_of_thought import beyond_items as problems_beyond
from pipeline.stage3_evaluate.metrics_chain_of_thought import chain_of_thought_scores
from pipeline.stage3_evaluate.metrics_in_context import (
    at_largest,
    beyond_rows,
    in_context_scores,
    largest_shots,
    natural_rows,
    shots,
    task_of,
    within,
)
from pipeline.stage3_evaluate.metrics_instruction_following import (
    IF_SETS,
    instruction_following_scores,
    scores_by_variant,
)

Said = tuple[list[Score], list[str]]  # scores, and notes on what could not be scored


def ability_scores(arm: str, ability: str, rows: Sequence[Answer], seed: int) -> Said:
    """Every metric of one arm in one ability, with 95 % intervals."""
    if ability == "in_context":
        return in_context_scores(arm, rows, seed), []
    if ability == "chain_of_thought":
        return chain_of_thought_scores(arm, rows, seed)
    if ability == "instruction_following":
        return instruction_following_scores(arm, rows, seed), []
    return scores_by_variant(arm, ability, rows, seed), []


def primary_items(ability: str, rows: Sequence[Answer]) -> dict[str, Items]:
    """Metric -> item values of what is compared; the first one is primary."""
    chosen = _primary_rows(ability, rows)
    return {metric: items_of(some, right, _stratum(ability)) for metric, some in chosen.items()}


def beyond_items(ability: str, rows: Sequence[Answer]) -> Items:
    """Item values on the sets beyond what was trained, each a stratum; empty without such sets.

    Instruction following has none: its primary number is about types that training never saw.
    """
    rows = [row for row in rows if row.ability == ability]
    if ability == "in_context":
        return items_of(beyond_rows(rows), right, task_of)
    if ability == "chain_of_thought":
        return {
            (metric.rsplit("/", 1)[-1], item): value
            for metric, items in problems_beyond(rows).items()
            for (_, item), value in items.items()
        }
    return {}


def valid_items(ability: str, rows: Sequence[Answer]) -> dict[str, set[tuple[str, str]]]:
    """Metric -> the items of `primary_items` whose every answer could be read."""
    return {
        metric: {key for key, bad in items_of(some, invalid, _stratum(ability)).items() if bad == 0}
        for metric, some in _primary_rows(ability, rows).items()
    }


def _primary_rows(ability: str, rows: Sequence[Answer]) -> dict[str, list[Answer]]:
    rows = [row for row in rows if row.ability == ability]
    if ability == "in_context":
        rows = within(natural_rows(rows))
        ks = sorted(set(largest_shots(rows).values()))
        name = f"accuracy/mean/k={ks[0]}" if len(ks) == 1 else "accuracy/mean/largest k"
        found = {name: at_largest(rows)}
    elif ability == "chain_of_thought":
        found = {"accuracy/step_by_step": of_variant(rows, "step_by_step")}
    elif ability == "instruction_following":
        found = {f"strict/{name}": of_variant(rows, name) for name in IF_SETS}
    else:
        found = {f"accuracy/{name}": of_variant(rows, name) for name in variants(rows)}
    return {metric: some for metric, some in found.items() if some}


def _stratum(ability: str) -> Callable[[Answer], str]:
    """In-context tasks are averaged one by one, then together; all else is one stratum."""
    return (lambda row: shots(row).task) if ability == "in_context" else (lambda row: "")
