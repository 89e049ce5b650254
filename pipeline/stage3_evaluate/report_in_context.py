"""In-context learning as the report shows it: a k-shot curve for each task and condition of its
labels, with a line at chance, and a table of the same with the spread over draws of shots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pipeline.records import Score
from pipeline.stage3_evaluate import charts
from pipeline.stage3_evaluate.charts import Line, Point, percent
from pipeline.stage3_evaluate.metrics_in_context import NATURAL, Spread
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_view import NO_NAMES, Chart

RIGHT = {
    NATURAL: "the true label",
    "random": "the true label, not the examples' random ones",
    "flipped": "the flipped label, as in the examples",
    "arbitrary": "the nonsense word, as in the examples",
}
_ACCURACY = re.compile(r"accuracy/([^/]+)(?:/([a-z]+))?/k=(\d+)")


class Curve(NamedTuple):
    task: str
    labels: str


class CurveRow(msgspec.Struct, frozen=True):
    """One arm's curve; a cell is the accuracy, and the spread of its draws or ""."""

    task: str
    labels: str
    arm: str
    chance: str
    invalid: str  # at the largest k
    cells: list[tuple[str, str] | None]


class CurveTable(msgspec.Struct, frozen=True):
    ks: list[int]
    rows: list[CurveRow]
    legend: str


Found = dict[Curve, dict[tuple[str, int], Score]]  # curve -> (arm, k) -> accuracy


def in_context_charts(run: RunFiles, names: Mapping[str, str] = NO_NAMES) -> list[Chart]:
    """The mean of the tasks first, where there are two or more, then each task's conditions."""
    found, chance = _accuracies(run), _chance(run)
    shown = []
    for curve, scores in found.items():
        ks = sorted({k for _, k in scores})
        lines = []
        for arm in run.scores.arms if run.scores else ():
            points = [
                Point(place, s.value, s.low, s.high)
                for place, k in enumerate(ks)
                if (s := scores.get((arm, k)))
            ]
            lines.append(Line(arm, points, names.get(arm, "")))
        name = _name(curve)
        svg = charts.curve(
            f"accuracy by k, {name}", [str(k) for k in ks], lines, "k examples",
            chance.get(curve.task),
        )  # fmt: skip
        caption = "accuracy by number of examples shown"
        if chance.get(curve.task):
            caption += f"; right: {RIGHT[curve.labels]}"
        shown.append(Chart(f"In context: {name}", caption, svg))
    return shown


def curve_table(run: RunFiles) -> CurveTable | None:
    """None where in-context learning was not measured."""
    found, chance = _accuracies(run), _chance(run)
    if not found or run.scores is None:
        return None
    unread = {(s.model, s.metric): s.value for s in run.scores.scores}
    spreads = {(s.model, s.task, s.labels, s.k): s for s in run.scores.spread}
    ks = sorted({k for scores in found.values() for _, k in scores})
    rows = []
    for curve, scores in found.items():
        guess = chance.get(curve.task)
        for arm in run.scores.arms:
            cells = [
                (percent(s.value), _spread(spreads.get((arm, curve.task, curve.labels, k))))
                if (s := scores.get((arm, k)))
                else None
                for k in ks
            ]
            if any(cells):
                most = max(k for found_arm, k in scores if found_arm == arm)
                invalid = unread.get((arm, _metric("invalid", curve, most)))
                rows.append(
                    CurveRow(
                        task=_task(curve.task),
                        labels=curve.labels,
                        arm=arm,
                        chance=percent(guess) if guess else "–",
                        invalid="–" if invalid is None else percent(invalid),
                        cells=cells,
                    )
                )
    legend = (
        "Accuracy by number of examples shown, an item's draws of examples averaged. Invalid: "
        "answers that could not be read, at the most examples."
    )
    if spreads:
        legend += (
            " Small print: the least and the most of the draws, and the standard deviation over "
            "draws in points; after a slash that over orders of the same examples."
        )
    return CurveTable(ks, rows, legend)


def _accuracies(run: RunFiles) -> Found:
    """By curve, a task's conditions together; these have no mean of tasks here."""
    found: Found = {}
    for score in run.scores.scores if run.scores else ():
        match = _ACCURACY.fullmatch(score.metric)
        if score.ability == "in_context" and match:
            curve = Curve(match[1], match[2] or NATURAL)
            found.setdefault(curve, {})[score.model, int(match[3])] = score
    tasks = list(dict.fromkeys(curve.task for curve in found))  # the mean is the first
    return {
        curve: found[curve]
        for curve in sorted(found, key=lambda curve: tasks.index(curve.task))
        if curve.task != "mean" or (curve.labels == NATURAL and len(tasks) > 2)
    }


def _chance(run: RunFiles) -> dict[str, float]:
    """Task -> how often a guess is right; 0 where there are no labels to guess from."""
    scores = run.scores.scores if run.scores else []
    return {
        score.metric.removeprefix("chance/"): score.value
        for score in scores
        if score.ability == "in_context" and score.metric.startswith("chance/")
    }


def _metric(name: str, curve: Curve, k: int) -> str:
    condition = "" if curve.labels == NATURAL else f"/{curve.labels}"
    return f"{name}/{curve.task}{condition}/k={k}"


def _spread(found: Spread | None) -> str:
    if found is None:
        return ""
    parts = []
    if found.sd is not None:
        parts = [f"{100 * found.low:.0f}–{100 * found.high:.0f}", f"sd {100 * found.sd:.1f}"]
    if found.orders_sd is not None:
        parts.append(f"/ {100 * found.orders_sd:.1f}")
    return " ".join(parts)


def _task(task: str) -> str:
    return "mean of tasks" if task == "mean" else task.replace("_", " ")


def _name(curve: Curve) -> str:
    return _task(curve.task) + (f", {curve.labels} labels" if curve.labels != NATURAL else "")
