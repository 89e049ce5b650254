"""Chain of thought in the report: sets beyond what was trained, votes, the change of the gain."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from pipeline.stage3_evaluate import charts
from pipeline.stage3_evaluate.charts import percent
from pipeline.stage3_evaluate.metrics_chain_of_thought import ABILITY, GainChange
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_view import NO_NAMES, Chart, lines_of, points

_STEPS = "accuracy/step_by_step"
_VOTE = re.compile(r"majority/m=(\d+)")


class GainTable(msgspec.Struct, frozen=True):
    """The gain from reasoning of one arm less that of another, a row for each set."""

    columns: list[str]
    rows: list[list[str]]
    legend: str


def reasoning_charts(run: RunFiles, names: Mapping[str, str] = NO_NAMES) -> list[Chart]:
    """Accuracy on sets beyond what was trained, and the majority of m samples; where measured."""
    known = _metrics(run)
    found = []
    sets = [metric for metric in known if metric == _STEPS or metric.startswith(f"{_STEPS}/")]
    if len(sets) > 1:
        shown = [metric.removeprefix(_STEPS).removeprefix("/") or "as trained" for metric in sets]
        title = "Chain of thought: beyond what was trained"
        svg = charts.bars(title, shown, lines_of(run, ABILITY, sets, names))
        found.append(Chart(title, "accuracy step by step", svg))
    votes = {metric: match[1] for metric in known if (match := _VOTE.fullmatch(metric))}
    if len(votes) > 1:
        title = "Chain of thought: majority vote"
        lines = lines_of(run, ABILITY, list(votes), names)
        svg = charts.curve(title, list(votes.values()), lines, "m samples")
        found.append(Chart(title, "chance that the majority of m samples is right", svg))
    return found


def gain_table(run: RunFiles) -> GainTable | None:
    """None where no two arms were compared in both modes."""
    changes = run.scores.reasoning if run.scores else []
    if not changes:
        return None
    columns = ["problems", "gain of", "", "less that of", "", "change", "95%", "p", "n"]
    legend = (
        "Gain: accuracy step by step less accuracy direct, on the same problems. A student that is "
        "better in both modes gained no reasoning; the change of the gain (difference in "
        "differences) says what it gained in that. p: sign-flip test, not adjusted."
    )
    return GainTable(columns, [_row(change) for change in changes], legend)


def _row(found: GainChange) -> list[str]:
    begins = [found.set or "as trained", found.second]
    if found.difference is None or found.gain_first is None or found.gain_second is None:
        why = f"not measured: {found.why_not}"
        return [*begins, "–", found.first, "–", why, "–", "–", str(found.n)]
    low, high, p = found.low or 0.0, found.high or 0.0, found.p or 0.0
    return [
        *begins,
        percent(found.gain_second),
        found.first,
        percent(found.gain_first),
        points(found.difference),
        f"{points(low)} to {points(high)}",
        "<0.001" if p < 0.001 else f"{p:.3f}",
        str(found.n),
    ]


def _metrics(run: RunFiles) -> list[str]:
    scores = run.scores.scores if run.scores else []
    return list(dict.fromkeys(score.metric for score in scores if score.ability == ABILITY))
