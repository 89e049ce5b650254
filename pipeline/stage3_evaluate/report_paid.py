"""Quality against the teacher's tokens that were paid for: a chart for each primary number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.records import Score
from pipeline.stage3_evaluate import charts
from pipeline.stage3_evaluate.charts import Line, Point
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_view import TITLES, Chart, metric_name
from pipeline.stage3_evaluate.verdicts import Role


class Shown(NamedTuple):
    """One run in the chart: the arm whose colour it has, and its name."""

    run: RunFiles
    colour: str
    name: str


def paid_charts(runs: Sequence[Shown]) -> list[Chart]:
    """From the student before, for nothing, to the student after; nothing where all was free."""
    first = runs[0].run.scores
    if first is None or not all(tokens_paid(shown.run) for shown in runs):
        return []
    found = []
    for comparison in first.comparisons:
        if comparison.role is not Role.PRIMARY:
            continue
        key = comparison.ability, comparison.metric
        lines = [Line(one.colour, _points(one.run, *key), one.name) for one in runs]
        if not all(line.points for line in lines):
            continue
        title = f"{TITLES.get(comparison.ability, comparison.ability)} by tokens paid"
        svg = charts.against_tokens(title, lines, comparison.teacher)
        caption = metric_name(comparison.metric)
        found.append(Chart(title, caption, svg))
    return found


def tokens_paid(run: RunFiles) -> int:
    """What the teacher read and wrote for the rows of this run, also if an earlier run paid."""
    step = next((step for step in run.steps if step.step == "generate"), None)
    return step.tokens.input + step.tokens.output if step else 0


def _points(run: RunFiles, ability: str, metric: str) -> list[Point]:
    scores = run.scores.scores if run.scores else []
    by: dict[str, Score] = {
        s.model: s for s in scores if (s.ability, s.metric) == (ability, metric)
    }
    if "before" not in by or "after" not in by:
        return []
    places = ((0, by["before"]), (tokens_paid(run), by["after"]))
    return [Point(place, score.value, score.low, score.high) for place, score in places]
