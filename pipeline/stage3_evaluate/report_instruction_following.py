"""Instruction following by the number of constraints, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.stage3_evaluate import charts
from pipeline.stage3_evaluate.metrics_instruction_following import IF_SETS
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_view import NO_NAMES, Chart, lines_of


def constraint_charts(run: RunFiles, names: Mapping[str, str] = NO_NAMES) -> list[Chart]:
    """A curve for each set of items that have several numbers of constraints."""
    if run.scores is None:
        return []
    found = []
    for one, shown in IF_SETS.items():
        start = f"strict/{one}/n="
        metrics = {s.metric for s in run.scores.scores if s.metric.startswith(start)}
        numbers = sorted(int(metric.removeprefix(start)) for metric in metrics)
        if not numbers:
            continue
        lines = lines_of(run, "instruction_following", [f"{start}{n}" for n in numbers], names)
        title = f"Instruction following: {shown}"
        svg = charts.curve(
            f"all constraints kept, {shown}", [str(n) for n in numbers], lines, "constraints"
        )
        caption = "share of items with all constraints kept, by how many there are; strict"
        found.append(Chart(title, caption, svg))
    return found
