"""What each model costs to use, beside how well it answers."""

from __future__ import annotations

import msgspec

from pipeline.stage3_evaluate.charts import percent
from pipeline.stage3_evaluate.cost_of_use import Cost
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_view import TITLES
from pipeline.stage3_evaluate.verdicts import Role


class CostTable(msgspec.Struct, frozen=True):
    """`columns` begin with the model; each row has a cell for every column."""

    lead: str
    columns: list[str]
    rows: list[list[str]]


def cost_table(run: RunFiles) -> CostTable | None:
    """None where the cost of use was not measured."""
    if not run.costs:
        return None
    primary = []
    if run.scores is not None:
        primary = [(c.ability, c.metric) for c in run.scores.comparisons if c.role is Role.PRIMARY]
    columns = [
        "model", "parameters", "weights", "peak memory", "first token", "tokens/s, one by one",
        "tokens/s, together", *(TITLES.get(ability, ability) for ability, _ in primary),
    ]  # fmt: skip
    return CostTable(_lead(run.costs), columns, [_row(run, cost, primary) for cost in run.costs])


def _lead(costs: list[Cost]) -> str:
    one = costs[0]
    how = f"{one.questions} questions of the evaluation, engine {one.engine}, {one.device}."
    found = {cost.arm: cost for cost in costs}
    if "teacher" not in found or "after" not in found:
        return how
    teacher, student = found["teacher"], found["after"]
    return (
        f"The student has {_times(student.parameters / teacher.parameters)} the teacher's "
        f"parameters and answers at {_times(student.together / teacher.together)} its speed. {how}"
    )


def _times(ratio: float) -> str:
    return f"{ratio:.2g} times" if ratio < 10 else f"{ratio:.0f} times"


def _row(run: RunFiles, cost: Cost, primary: list[tuple[str, str]]) -> list[str]:
    scores = run.scores.scores if run.scores else []
    by = {(s.model, s.ability, s.metric): s.value for s in scores}
    right = [by.get((cost.arm, *key)) for key in primary]
    return [
        cost.arm,
        _large(cost.parameters),
        f"{_large(cost.disk_bytes)}B",
        f"{cost.memory_gb:.1f} GB",
        f"{1000 * cost.first_token_seconds:.0f} ms",
        f"{cost.alone:,.1f}",
        f"{cost.together:,.1f}",
        *("–" if value is None else percent(value) for value in right),
    ]


def _large(value: float) -> str:
    """ "135 M" for 134,515,008."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} "
